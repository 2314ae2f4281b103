//! `forewarn check`: a config, its queries, a model.

use std::path::PathBuf;

use anyhow::bail;
use serde_json::json;

use super::{ConfigFile, Output, check_fit, model_dir, now};
use crate::artifact;
use crate::config::{Config, Environment, WebConfig};
use crate::fetch::{self, Fetched, Purpose};
use crate::history::TargetHistory;
use crate::prometheus::Client;
use crate::time::{Timestamp, format_duration, parse_duration};
use crate::webhook::OwnAlerts;

#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    #[command(subcommand)]
    command: CheckCommand,
}

#[derive(Debug, clap::Subcommand)]
enum CheckCommand {
    /// Every problem of a config at once; needs no network.
    Config(ConfigFile),
    /// Run every query of a config over the recent past and show what it returns.
    Queries(QueriesArgs),
    /// Every problem of a web config (`serve --web.config.file`) and the files that it names at once.
    Web {
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Open a model directory, verify it, and see whether it fits the config.
    Model(ModelArgs),
}

#[derive(Debug, clap::Args)]
struct QueriesArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// How far back to look.
    #[arg(long, value_name = "DURATION", default_value = "2h", value_parser = parse_duration)]
    range: std::time::Duration,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct ModelArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// The model directory; default: the served one under model.path.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
}

pub fn run(args: CheckArgs) -> anyhow::Result<()> {
    match args.command {
        CheckCommand::Config(file) => {
            let config = file.load()?;
            println!(
                "{}: ok, {} signals, step {}, horizon {}",
                file.path.display(),
                config.signals.len(),
                format_duration(config.step),
                format_duration(config.horizon)
            );
            Ok(())
        }
        CheckCommand::Web { file } => {
            WebConfig::load(&file, &Environment::from_process()?).0?;
            println!("{}: ok", file.display());
            Ok(())
        }
        CheckCommand::Queries(args) => queries(&args),
        CheckCommand::Model(args) => model(args),
    }
}

fn queries(args: &QueriesArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    let end = now().minus(config.query_offset).floor(config.step);
    let start = end.minus(args.range).floor(config.step);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let client = Client::new(&config.prometheus)?;
    let fetched = runtime.block_on(fetch::fetch(
        &client,
        &config,
        &OwnAlerts::default(),
        Purpose::Evaluation,
        (start, end, config.step),
        |_, _| (),
    ));
    let rows = rows(&config, &fetched, start);
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&rows)?),
        Output::Text => {
            println!(
                "{:<24} {:>7} {:>9} {:>12} {:>20}",
                "signal", "targets", "missing", "last value", "first sample"
            );
            for row in &rows {
                let text = |key: &str| {
                    row[key]
                        .as_str()
                        .map_or_else(|| "-".to_string(), str::to_string)
                };
                println!(
                    "{:<24} {:>7} {:>9} {:>12} {:>20}",
                    text("signal"),
                    row["targets"],
                    text("missing"),
                    text("last_value"),
                    text("first_sample")
                );
            }
        }
    }
    let report = &fetched.report;
    for (key, text) in &report.warnings {
        eprintln!("warning: {key}: {text}");
    }
    for key in &report.nameless {
        eprintln!(
            "warning: {key} returns series without the label {}",
            config.targets.label.join(" or ")
        );
    }
    let mut problems = report.failures();
    problems.extend(report.duplicates.iter().map(|(_, text)| text.clone()));
    problems.extend(
        report
            .series
            .iter()
            .filter(|(_, series)| **series == 0)
            .map(|(name, _)| format!("signals.{name}.query returns nothing: try it in Prometheus' own page, and check the job's name and the exporter")),
    );
    problems.extend(
        report
            .compared
            .iter()
            .filter(|(_, series)| **series == 0)
            .map(|(name, _)| {
                format!("compare.{name} returns nothing: try it in Prometheus' own page")
            }),
    );
    if !problems.is_empty() {
        bail!("the queries have problems:\n  {}", problems.join("\n  "));
    }
    Ok(())
}

fn rows(config: &Config, fetched: &Fetched, start: Timestamp) -> Vec<serde_json::Value> {
    let history = &fetched.history;
    let row = |name: String, column: &dyn Fn(&TargetHistory) -> &[f32]| {
        let columns = || {
            history
                .targets()
                .into_iter()
                .map(|(_, target)| column(target))
        };
        let targets = columns().filter(|c| c.iter().any(|v| !v.is_nan())).count();
        let present: usize = columns().flatten().filter(|v| !v.is_nan()).count();
        let points = targets * history.steps();
        let missing = (points > 0)
            .then(|| format!("{:.1} %", 100.0 * (points - present) as f64 / points as f64));
        let last = columns()
            .filter_map(|c| c.iter().rev().find(|v| !v.is_nan()))
            .next();
        let first = (0..history.steps()).find(|&step| columns().any(|c| !c[step].is_nan()));
        json!({
            "signal": name,
            "targets": targets,
            "missing": missing,
            "last_value": last.map(|v| format!("{v:.4}")),
            "first_sample": first.map(|step| history.time(step).max(start).to_string()),
        })
    };
    let signals = config
        .signals
        .iter()
        .enumerate()
        .map(|(i, signal)| row(signal.signal.name.clone(), &|t| t.column(i)));
    let compared = history
        .compared()
        .iter()
        .enumerate()
        .map(|(i, name)| row(format!("compare.{name}"), &|t| t.compared(i)));
    signals.chain(compared).collect()
}

fn model(args: ModelArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    let dir = model_dir(args.model, &config)?;
    let bundle = artifact::open(&dir)?;
    let manifest = &bundle.manifest;
    println!(
        "{}: ok, model {} of {} origin, {} features, trained until {} on {} incidents",
        dir.display(),
        manifest.id,
        manifest.origin.name(),
        manifest.features.len(),
        manifest.training.end,
        manifest.training.incidents
    );
    check_fit(&bundle, &config)
}
