//! The training matrix as a Parquet file; docs/interchange.md describes its columns.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::data_type::{
    ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::Type;

use crate::bundle::Bundle;
use crate::output::{self, OutputError};
use crate::training::{Dataset, DatasetRow};
use crate::types::ServeMember;

/// Rows written at a time.
const ROW_GROUP: usize = 1 << 16;
/// Key of the file's own facts, as JSON.
const METADATA_KEY: &str = "forewarn";

#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error("cannot write the Parquet file: {0}")]
    Parquet(#[from] ParquetError),
    #[error(
        "the feature {0} has the name of one of the file's own columns: give the signal another name"
    )]
    Name(String),
}

/// Writes a dataset, with the scores of a model where one is given.
pub fn write(
    path: &Path,
    dataset: &Dataset,
    features: &[String],
    model: Option<&Bundle>,
    metadata: &serde_json::Value,
    progress: impl Fn(f64),
) -> Result<(), DatasetError> {
    let scored: Vec<ServeMember> = model.iter().flat_map(|model| model.members()).collect();
    let schema = Arc::new(schema(features, &scored)?);
    let entry = KeyValue::new(METADATA_KEY.to_string(), metadata.to_string());
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_created_by(concat!("forewarn ", env!("CARGO_PKG_VERSION")).to_string())
        .set_key_value_metadata(Some(vec![entry]))
        .build();
    output::write(path, |file| {
        let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties))?;
        for (done, rows) in dataset.rows.chunks(ROW_GROUP).enumerate() {
            let mut group = writer.next_row_group()?;
            write_rows(&mut group, dataset, rows, features.len(), model)?;
            group.close()?;
            progress((done * ROW_GROUP + rows.len()) as f64 / dataset.rows.len() as f64);
        }
        writer.close()?;
        Ok(())
    })
}

fn schema(features: &[String], scored: &[ServeMember]) -> Result<Type, DatasetError> {
    let text = Some(LogicalType::String);
    let time = Some(LogicalType::timestamp(true, TimeUnit::MILLIS));
    let flag = Some(LogicalType::integer(8, true));
    let scores: Vec<String> = scored
        .iter()
        .map(|member| format!("score_{}", member.name()))
        .collect();
    let own = [
        ("timestamp", Physical::INT64, time),
        ("target", Physical::BYTE_ARRAY, text.clone()),
        ("slice", Physical::BYTE_ARRAY, text),
        ("label", Physical::INT32, flag),
        ("weight", Physical::FLOAT, None),
    ];
    let required = own
        .into_iter()
        .chain(
            scores
                .iter()
                .map(|name| (name.as_str(), Physical::DOUBLE, None)),
        )
        .map(|(name, physical, logical)| (name, physical, logical, Repetition::REQUIRED));
    let optional = features
        .iter()
        .map(|name| (name.as_str(), Physical::FLOAT, None, Repetition::OPTIONAL));
    let mut names = HashSet::new();
    let mut columns = Vec::new();
    for (name, physical, logical, repetition) in required.chain(optional) {
        if !names.insert(name) {
            return Err(DatasetError::Name(name.to_string()));
        }
        let column = Type::primitive_type_builder(name, physical)
            .with_logical_type(logical)
            .with_repetition(repetition)
            .build()?;
        columns.push(Arc::new(column));
    }
    Ok(Type::group_type_builder("forewarn")
        .with_fields(columns)
        .build()?)
}

/// Columns in the order of [`schema`].
fn write_rows<W: std::io::Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    dataset: &Dataset,
    rows: &[DatasetRow],
    features: usize,
    model: Option<&Bundle>,
) -> Result<(), ParquetError> {
    let text = |value: &str| ByteArray::from(value);
    column::<Int64Type>(group, rows.iter().map(|row| Some(row.time.0)))?;
    let targets = rows.iter().map(|row| dataset.target(row).to_string());
    column::<ByteArrayType>(group, targets.map(|target| Some(text(&target))))?;
    column::<ByteArrayType>(group, rows.iter().map(|row| Some(text(row.slice))))?;
    column::<Int32Type>(group, rows.iter().map(|row| Some(i32::from(row.label))))?;
    column::<FloatType>(group, rows.iter().map(|row| Some(row.weight)))?;
    if let Some(model) = model {
        let columns: Vec<usize> = (0..features).collect();
        let matrix = dataset
            .replay
            .features
            .select_rows(rows.iter().map(|row| row.row), &columns);
        let (raw, scores) = (model.raw_rows(&matrix), model.score_rows(&matrix));
        for member in model.members() {
            let score = |i: usize| match member {
                ServeMember::Ensemble => Some(scores[i].ensemble),
                ServeMember::Xgboost => Some(raw[i].xgboost),
                ServeMember::RandomForest => raw[i].random_forest,
                ServeMember::LogisticRegression => raw[i].logistic_regression,
            };
            column::<DoubleType>(group, (0..rows.len()).map(score))?;
        }
    }
    for feature in 0..features {
        // Other engines refuse infinite values; the largest ones fall on the same side of every split.
        let values = rows
            .iter()
            .map(|row| dataset.features(row)[feature])
            .map(|x| (!x.is_nan()).then(|| x.clamp(f32::MIN, f32::MAX)));
        column::<FloatType>(group, values)?;
    }
    Ok(())
}

/// `None` is null.
fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, impl std::io::Write + Send>,
    cells: impl Iterator<Item = Option<T::T>>,
) -> Result<(), ParquetError> {
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    for cell in cells {
        levels.push(i16::from(cell.is_some()));
        values.extend(cell);
    }
    if let Some(mut writer) = group.next_column()? {
        writer
            .typed::<T>()
            .write_batch(&values, Some(&levels), None)?;
        writer.close()?;
    }
    Ok(())
}
