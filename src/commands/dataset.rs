//! `forewarn dataset export`: the training matrix as Parquet.

use std::path::PathBuf;

use anyhow::Context;
use serde_json::json;

use super::history::HistoryArgs;
use super::progress::Bars;
use super::terminal::{print_json, tell};
use super::{ConfigFile, Output, check_fit};
use crate::artifact;
use crate::dataset;
use crate::learning;
use crate::output;
use crate::time::format_duration;
use crate::training::{self, Dataset};

pub const EXAMPLES: &str = examples!(
    "forewarn dataset export --start 60d --output matrix.parquet",
    "forewarn dataset export --start 60d --output matrix.parquet --model models/winter --summary json",
);

#[derive(Debug, clap::Args)]
pub struct DatasetArgs {
    #[command(subcommand)]
    command: DatasetCommand,
}

#[derive(Debug, clap::Subcommand)]
enum DatasetCommand {
    /// Write the training matrix as Parquet, for XGBoost on Spark, Dask or Ray.
    ///
    /// Every labelled row of the range in time order: the features by name (null where missing), `label`,
    /// `weight`, `target`, `timestamp`, and the `slice` that `train` would use it for. Fit on `slice = 'fit'`
    /// only, and give `forewarn model import` the same --start and --end.
    #[command(after_long_help = EXAMPLES)]
    Export(ExportArgs),
}

#[derive(Debug, clap::Args)]
struct ExportArgs {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    history: HistoryArgs,
    /// The file to write; only a Parquet file is replaced.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Also write what the model in this directory says of each row: the ensemble's probability and the
    /// members' scores before calibration.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// How what was written is summed up: text goes to stderr, JSON to stdout.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    summary: Output,
}

pub fn run(args: DatasetArgs) -> anyhow::Result<()> {
    let DatasetCommand::Export(args) = args.command;
    export(&args)
}

fn export(args: &ExportArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    output::check_replaceable(&args.output, output::PARQUET).context("--output")?;
    let model = match &args.model {
        None => None,
        Some(dir) => {
            let bundle = artifact::open(dir)?;
            check_fit(&bundle, &config)?;
            Some(bundle)
        }
    };
    let bars = Bars::new();
    let (start, end) = args.history.range(&config)?;
    let history = args.history.read(&config, start, end, &bars)?;
    let plan = learning::plan(&config);
    let progress = |stage: &str, share: f64| bars.show(stage, share);
    let replay = training::replay(&history, &plan, &progress);
    let report = replay.report(&history, &plan);
    bars.finish();
    tell(&learning::label_report(&report));

    let dataset = Dataset::new(&replay, &plan)?;
    let names = plan.catalogue.names();
    let levels = plan.catalogue.level_columns().into_iter();
    let metadata = json!({
        "forewarn_version": env!("CARGO_PKG_VERSION"),
        "start": report.start,
        "end": report.end,
        "step_seconds": config.step.as_secs_f64(),
        "horizon_seconds": config.horizon.as_secs_f64(),
        "base_rate": report.base_rate,
        "features": plan.catalogue.specs(),
        "levels": levels.map(|column| names[column].as_str()).collect::<Vec<_>>(),
        "label": learning::label_definition(&config),
        "labels": report,
        "model_id": model.as_ref().map(|model| &model.manifest.id),
    });
    dataset::write(
        &args.output,
        &dataset,
        &names,
        model.as_ref(),
        &metadata,
        |share| bars.show("writing", share),
    )?;
    bars.finish();
    match args.summary {
        Output::Text => eprintln!(
            "{}: {} rows, {} features, horizon {}; import a model trained on it with --start {} --end {}",
            args.output.display(),
            dataset.rows.len(),
            names.len(),
            format_duration(config.horizon),
            report.start,
            report.end
        ),
        Output::Json => print_json(&json!({
            "file": args.output,
            "rows": dataset.rows.len(),
            "features": names.len(),
            "start": report.start,
            "end": report.end,
            "horizon_seconds": config.horizon.as_secs_f64(),
            "base_rate": report.base_rate,
        }))?,
    }
    Ok(())
}
