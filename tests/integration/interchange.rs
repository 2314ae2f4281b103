use std::collections::BTreeMap;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::json;

use forewarn::bundle::{Bundle, Origin};
use forewarn::dataset;
use forewarn::learning;
use forewarn::model::{self, Imbalance};
use forewarn::training::{self, Dataset};
use forewarn::types::ServeMember;

use super::fleet::{bundle, config, history, plan};

#[test]
fn the_dataset_is_every_labelled_row_in_time_order_and_survives_the_file() {
    let mut plan = plan();
    plan.fit.imbalance = Imbalance::ClassWeight;
    let replay = training::replay(history(), &plan, &|_, _| ());
    let report = replay.report(history(), &plan);
    let dataset = Dataset::new(&replay, &plan).expect("a week is enough");
    assert_eq!(dataset.rows.len(), report.rows);
    let positives = dataset.rows.iter().filter(|row| row.label).count();
    assert_eq!(positives, report.positives);
    assert!(dataset.rows.is_sorted_by_key(|row| row.time));
    let place = |slice: &str| {
        ["fit", "calibrate", "test"]
            .iter()
            .position(|s| *s == slice)
    };
    let kept = dataset.rows.iter().filter_map(|row| place(row.slice));
    assert!(kept.is_sorted(), "the slices follow each other");
    for slice in ["fit", "embargo", "calibrate", "test"] {
        let rows = || dataset.rows.iter().filter(|row| row.slice == slice);
        let mean = rows().map(|row| f64::from(row.weight)).sum::<f64>() / rows().count() as f64;
        assert!((mean - 1.0).abs() < 1e-4, "{slice}: mean weight {mean}");
        let heavier = rows().all(|row| (row.weight > 1.0) == (row.label && slice == "fit"));
        assert!(
            heavier,
            "{slice}: positives weigh more, and only where trees are fitted"
        );
    }

    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("a.parquet");
    let names = plan.catalogue.names();
    let bundle = bundle();
    dataset::write(
        &path,
        &dataset,
        &names,
        Some(&bundle),
        &json!({"a": 1}),
        |_| (),
    )
    .expect("the file is written");
    let file = std::fs::File::open(&path).expect("the file is there");
    let reader = SerializedFileReader::new(file).expect("Parquet");
    let metadata = reader.metadata().file_metadata().key_value_metadata();
    let own = metadata.and_then(|pairs| pairs.iter().find(|pair| pair.key == "forewarn"));
    assert_eq!(
        own.and_then(|pair| pair.value.as_deref()),
        Some("{\"a\":1}")
    );
    let mut read = 0;
    let stored = reader.get_row_iter(None).expect("rows");
    for (row, stored) in dataset.rows.iter().zip(stored) {
        let cells: BTreeMap<String, Field> = stored
            .expect("a row")
            .get_column_iter()
            .map(|(name, field)| (name.clone(), field.clone()))
            .collect();
        assert_eq!(cells["timestamp"], Field::TimestampMillis(row.time.0));
        assert_eq!(cells["target"], Field::Str(dataset.target(row).to_string()));
        assert_eq!(cells["slice"], Field::Str(row.slice.to_string()));
        assert_eq!(cells["label"], Field::Byte(i8::from(row.label)));
        assert_eq!(cells["weight"], Field::Float(row.weight));
        for (name, value) in names.iter().zip(dataset.features(row)) {
            match &cells[name] {
                Field::Null => assert!(value.is_nan(), "{name}"),
                field => assert_eq!(*field, Field::Float(*value), "{name}"),
            }
        }
        if read % 97 == 0 {
            let features = dataset.features(row);
            let score = bundle.score(features);
            assert_eq!(cells["score_ensemble"], Field::Double(score.ensemble));
        }
        read += 1;
    }
    assert_eq!(read, dataset.rows.len());
}

#[test]
fn a_signal_may_not_take_the_name_of_a_column() {
    let plan = plan();
    let replay = training::replay(history(), &plan, &|_, _| ());
    let dataset = Dataset::new(&replay, &plan).expect("a week is enough");
    let mut names = plan.catalogue.names();
    names[3] = "label".into();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("a.parquet");
    let error = dataset::write(&path, &dataset, &names, None, &json!({}), |_| ());
    let message = error.expect_err("two columns of one name").to_string();
    assert!(
        message.starts_with("the feature label has the name"),
        "{message}"
    );
    assert!(
        std::fs::read_dir(folder.path())
            .expect("a folder")
            .next()
            .is_none()
    );
}

#[test]
fn a_model_that_went_out_and_came_back_scores_as_before() {
    let (own, plan) = (bundle(), plan());
    let file = &own.files()["full/xgboost.json"];
    let names = plan.catalogue.names();
    let trees = model::import(file, &names).expect("our own file");
    let quiet = |_: &str, _: f64| ();
    let replay = training::replay(history(), &plan, &quiet);
    let trained = training::import(history(), &replay, &plan, trees, false, &quiet)
        .expect("a week of failures is enough");
    let report = replay.report(history(), &plan);
    let imported = learning::bundle(&config(), &plan, &report, trained, Origin::Imported);
    let imported = Bundle::from_files(imported.manifest.clone(), imported.files())
        .expect("what was written can be read");

    assert_eq!(imported.files()["full/xgboost.json"], *file);
    let members: Vec<ServeMember> = imported.members().collect();
    assert_eq!(members, [ServeMember::Ensemble, ServeMember::Xgboost]);
    assert_eq!(imported.lacks(ServeMember::Xgboost), None);
    let why = imported
        .lacks(ServeMember::RandomForest)
        .expect("no forest");
    assert!(
        why.contains("has no random_forest") && why.contains("ensemble or xgboost"),
        "{why}"
    );

    let rows = replay
        .features
        .select_rows((0..9000).step_by(31), &(0..names.len()).collect::<Vec<_>>());
    let (before, after) = (own.raw_rows(&rows), imported.raw_rows(&rows));
    let scores = imported.score_rows(&rows);
    for i in 0..rows.rows() {
        assert_eq!(before[i].xgboost, after[i].xgboost);
        assert_eq!(
            (after[i].random_forest, after[i].logistic_regression),
            (None, None)
        );
        // The same trees, calibrated on the same rows.
        assert_eq!(scores[i].xgboost, own.score(rows.row(i)).xgboost);
        assert_eq!(scores[i].ensemble, scores[i].xgboost);
        assert_eq!(imported.score(rows.row(i)), scores[i]);
        assert!(!imported.explain(rows.row(i), true, 3).is_empty());
        // Bodies without history have the ensemble that was fitted here.
        assert_eq!(
            imported.score_snapshot(rows.row(i)),
            own.score_snapshot(rows.row(i))
        );
    }
    let metrics = &imported.manifest.metrics;
    assert_eq!(
        metrics["members"],
        json!({"xgboost": own.manifest.metrics["members"]["xgboost"]})
    );
    assert_eq!(imported.manifest.best_member, "xgboost");
    assert_eq!(
        imported.manifest.metrics["baselines"],
        own.manifest.metrics["baselines"]
    );
}
