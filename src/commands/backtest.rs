//! `forewarn backtest`: what an existing model would have foreseen in a stretch of history.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use serde_json::json;

use super::history;
use super::progress::Bars;
use super::{ConfigFile, Output, check_fit, model_dir, now};
use crate::artifact;
use crate::evaluation::baselines::Prior;
use crate::learning;
use crate::tracker;
use crate::training::{self, Plan};

#[derive(Debug, clap::Args)]
pub struct BacktestArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// First instant to score; RFC 3339, unix seconds or relative (30d).
    #[arg(long, value_name = "TIME")]
    start: String,
    /// Last instant to score.
    #[arg(long, value_name = "TIME")]
    end: String,
    /// The model directory; default: the served one under model.path.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Score what the model has learned from too; the report is marked then.
    #[arg(long)]
    allow_overlap: bool,
    /// Score even answers that Prometheus calls incomplete.
    #[arg(long)]
    allow_partial: bool,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub fn run(args: BacktestArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    let now = now();
    let start = history::time("--start", &args.start, now)?;
    let end = history::time("--end", &args.end, now)?;
    let (start, end) = history::range(&config, start, end, now)?;
    let dir = model_dir(args.model, &config)?;
    let bundle = artifact::open(&dir)?;
    let manifest = &bundle.manifest;
    check_fit(&bundle, &config)?;
    let facts = &manifest.training;
    let learned = format!(
        "model {} has learned from {} to {}",
        manifest.id, facts.start, facts.end
    );
    let overlaps = manifest
        .learned_from(start, end)
        .with_context(|| format!("{} does not say what it has learned from", dir.display()))?;
    if overlaps && !args.allow_overlap {
        bail!(
            "{learned}, which overlaps {start} to {end}: choose a later range, or see how well it remembers with --allow-overlap"
        );
    }

    let began = Instant::now();
    let bars = Bars::new();
    let plan = Plan {
        catalogue: bundle.catalogue.clone(),
        ..learning::plan(&config)
    };
    let first = start
        .minus(tracker::backfill(&plan.catalogue, &plan.rules))
        .floor(config.step);
    let history = history::read(&config, first, end, args.allow_partial, &bars)?;
    let fetch_seconds = began.elapsed().as_secs_f64();

    let scoring = Instant::now();
    let replay = training::replay(&history, &plan, &|stage, share| bars.show(stage, share));
    let scores = bundle.score_rows(&replay.features);
    bars.show("evaluation", 0.0);
    let prior = facts
        .prior
        .clone()
        .unwrap_or_else(|| Prior::flat(facts.base_rate));
    let from = history
        .times()
        .position(|t| t >= start)
        .unwrap_or(history.steps());
    let evaluation = replay.evaluate(
        &history,
        &plan,
        (from, history.steps()),
        &scores,
        &prior,
        manifest.threshold.alarming(),
    );
    bars.finish();
    if evaluation.rows == 0 {
        bail!(
            "no target has a labelled row from {start} to {end}: the range is shorter than the horizon, or `forewarn check queries` shows what is missing"
        );
    }

    match args.output {
        Output::Text => {
            println!("model {} of {} origin", manifest.id, manifest.origin.name());
            if overlaps {
                println!(
                    "warning: {learned}: these figures are better than those on data it has not seen"
                );
            }
            println!("{}", evaluation.table());
        }
        Output::Json => {
            if overlaps {
                eprintln!("warning: {learned}, which overlaps the range");
            }
            let mut report = json!(evaluation);
            report["model_id"] = json!(manifest.id);
            report["overlaps_training"] = json!(overlaps);
            report["timing"] = json!({
                "fetch_seconds": fetch_seconds,
                "score_seconds": scoring.elapsed().as_secs_f64(),
                "total_seconds": began.elapsed().as_secs_f64(),
            });
            println!("{}", serde_json::to_string_pretty(&report)?);
        }
    }
    Ok(())
}
