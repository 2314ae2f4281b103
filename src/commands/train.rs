//! `forewarn train`: history through PromQL, label report, fit, evaluation, model directory.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use serde_json::json;

use super::history;
use super::progress::Bars;
use super::{ConfigFile, Output, now};
use crate::artifact;
use crate::bundle::Origin;
use crate::learning;
use crate::models;
use crate::training;

#[derive(Debug, clap::Args)]
pub struct TrainArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// Start of the history to learn from; RFC 3339, unix seconds or relative (30d). Default: train.range before the end.
    #[arg(long, value_name = "TIME")]
    start: Option<String>,
    /// End of the history to learn from.
    #[arg(long, value_name = "TIME", default_value = "now")]
    end: String,
    /// Write the model to this directory instead of a new one under model.path, and do not promote it.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Where the history comes from; a model of simulated origin never pages.
    #[arg(long, value_enum, default_value_t = Origin::History)]
    origin: Origin,
    /// Learn even from answers that Prometheus calls incomplete.
    #[arg(long)]
    allow_partial: bool,
    /// Fit even with hardly any incident.
    #[arg(long)]
    force: bool,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub fn run(args: TrainArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    let now = now();
    let end = history::time("--end", &args.end, now)?;
    let start = match &args.start {
        Some(start) => history::time("--start", start, now)?,
        None => end.minus(config.train.range),
    };
    let (start, end) = history::range(&config, start, end, now)?;
    if let Some(dir) = &args.out {
        artifact::check_replaceable(dir).context("--out")?;
    }

    let began = Instant::now();
    let bars = Bars::new();
    let fetched = history::read(&config, start, end, args.allow_partial, &bars)?;
    let fetch_seconds = began.elapsed().as_secs_f64();

    let plan = learning::plan(&config);
    let progress = |stage: &str, share: f64| bars.show(stage, share);
    let replay = training::replay(&fetched, &plan, &progress);
    let report = replay.report(&fetched, &plan);
    bars.finish();
    eprintln!("{}", learning::label_report(&report));
    if let Some(why) = report.refusal(args.force) {
        bail!("{why}");
    }

    let fitting = Instant::now();
    let trained = training::train(&fetched, &replay, &plan, args.force, &progress)?;

    let written = learning::write_up(
        &config,
        &plan,
        &fetched,
        &replay,
        &report,
        trained,
        args.origin,
    );
    bars.finish();
    let (bundle, table) = (written.bundle, written.table);
    let dir = match &args.out {
        Some(dir) => dir.clone(),
        None => config.model.path.join(&bundle.manifest.id),
    };
    let timing = json!({
        "fetch_seconds": fetch_seconds,
        "fit_seconds": fitting.elapsed().as_secs_f64(),
        "total_seconds": began.elapsed().as_secs_f64(),
    });
    let command: Vec<String> = std::iter::once("forewarn".to_string())
        .chain(std::env::args().skip(1))
        .collect();
    let run = json!({"finished": super::now().to_string(), "command": command, "timing": timing});
    artifact::write(&bundle, &dir, &written.card, Some(&written.report), &run)?;
    if args.out.is_none() {
        models::promote(&config.model.path, &bundle.manifest.id)?;
        match models::prune(&config.model.path) {
            Ok(removed) => removed.iter().for_each(|name| {
                eprintln!("model {name} removed: the newest {} are kept", models::KEEP);
            }),
            Err(error) => eprintln!("warning: old models stay: {error}"),
        }
    }
    eprintln!("model {} written to {}", bundle.manifest.id, dir.display());
    if let Some(report) = artifact::report(&dir) {
        eprintln!("report for a browser: {}", report.display());
    }
    match args.output {
        Output::Text => println!("{table}"),
        Output::Json => {
            let mut report = bundle.manifest.metrics.clone();
            report["timing"] = timing;
            report["model_id"] = json!(bundle.manifest.id);
            println!("{}", serde_json::to_string_pretty(&report)?);
        }
    }
    Ok(())
}
