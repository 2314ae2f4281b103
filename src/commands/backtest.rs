//! `forewarn backtest`: what an existing model would have foreseen in a stretch of history.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use serde_json::json;

use super::history;
use super::progress::Bars;
use super::terminal::{self, WARNING, print, print_json, warn};
use super::{ConfigFile, Output, check_fit, model_dir, now};
use crate::artifact;
use crate::config::Config;
use crate::evaluation::AlarmRule;
use crate::evaluation::baselines::Prior;
use crate::evaluation::events::Scored;
use crate::evaluation::live::{LiveDifference, Raised};
use crate::learning;
use crate::output;
use crate::report::{self, Kind, Subject};
use crate::state::{AlarmRecord, StateError, Store};
use crate::time::Timestamp;
use crate::tracker;
use crate::training::{self, Plan};

pub const EXAMPLES: &str = examples!(
    "forewarn backtest --start 7d --end now",
    "forewarn backtest --start 7d --end now --report backtest.html     charts for a browser",
    "forewarn backtest --start 14d --end 7d --model models/winter --output json",
);

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
    /// The model directory [default: the served one under model.path].
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Score what the model has learned from too; the report is marked then.
    #[arg(long)]
    allow_overlap: bool,
    /// Score even answers that Prometheus calls incomplete.
    #[arg(long)]
    allow_partial: bool,
    /// How the result is printed.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
    /// Write the report with charts to this HTML file too; what is there is replaced.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

pub fn run(args: BacktestArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    let now = now();
    let start = history::time("--start", &args.start, now)?;
    let end = history::time("--end", &args.end, now)?;
    let (start, end) = history::range(&config, start, end, now)?;
    if let Some(path) = &args.report {
        check_writable(path)?;
    }
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
        .minus(tracker::reach(&plan.catalogue, &plan.rules))
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
    let range = (from, history.steps());
    let threshold = manifest.threshold.alarming();
    let mut evaluation = replay.evaluate(&history, &plan, range, &scores, &prior, threshold);
    evaluation.ensemble.uncalibrated = Some(replay.uncalibrated(range, bundle.full()));
    bars.finish();
    if evaluation.rows == 0 {
        bail!(
            "no target has a labelled row from {start} to {end}: the range is shorter than the horizon, or `forewarn check queries` shows what is missing"
        );
    }

    let raised = raised(&config, start)?.filter(|raised| !raised.is_empty());
    let live = threshold.zip(raised).map(|(threshold, raised)| {
        let rule = AlarmRule::new(threshold, plan.alert_for, &plan.rules);
        let tracks = replay.tracks(range.0, range.1, |row| {
            scores[row].served(config.model.serve)
        });
        LiveDifference::new(&raised, &Scored::own(&tracks), &rule)
    });

    if let Some(path) = &args.report {
        let review = report::review(&history, &replay, &plan, range, &scores, &bundle);
        let surrogate = replay.surrogate(&plan, &scores, threshold);
        let html = report::render(&Subject {
            kind: Kind::Backtest {
                overlaps_training: overlaps,
            },
            manifest,
            evaluation: &evaluation,
            labels: &replay.report(&history, &plan),
            fitting: None,
            importance: &bundle.importance(),
            review: &review,
            surrogate: surrogate.as_deref(),
        });
        std::fs::write(path, html)
            .with_context(|| format!("cannot write the report to {}", path.display()))?;
        eprintln!("report for a browser: {}", path.display());
    }

    match args.output {
        Output::Text => {
            print(format!(
                "model {} of {} origin",
                manifest.id,
                manifest.origin.name()
            ))?;
            if overlaps {
                print(format!(
                    "{WARNING}warning:{WARNING:#} {learned}: these figures are better than those on data it has not seen"
                ))?;
            }
            print(evaluation.table(terminal::width()))?;
            if let Some(live) = &live {
                print(live.text())?;
            }
        }
        Output::Json => {
            if overlaps {
                warn(format!("{learned}, which overlaps the range"));
            }
            let mut report = json!(evaluation);
            report["model_id"] = json!(manifest.id);
            report["live"] = json!(live);
            report["overlaps_training"] = json!(overlaps);
            report["timing"] = json!({
                "fetch_seconds": fetch_seconds,
                "score_seconds": scoring.elapsed().as_secs_f64(),
                "total_seconds": began.elapsed().as_secs_f64(),
            });
            print_json(&report)?;
        }
    }
    Ok(())
}

/// The alarms since `start` that the state has, whichever model raised them; `None` without a state.
fn raised(config: &Config, start: Timestamp) -> anyhow::Result<Option<Vec<Raised>>> {
    if !config.state.enabled {
        return Ok(None);
    }
    let alarms = match Store::open_read_only(&config.state.path) {
        Ok(store) => store.alarms(start, usize::MAX)?,
        Err(StateError::Missing { .. }) => return Ok(None),
        Err(error) => {
            warn(format!(
                "the alarms that were raised live are not known: {error}"
            ));
            return Ok(None);
        }
    };
    let raised = |alarm: AlarmRecord| Raised {
        target: alarm.target,
        opened: alarm.opened,
        outcome: alarm.outcome,
    };
    Ok(Some(alarms.into_iter().map(raised).collect()))
}

/// Before anything is read, so that nobody waits for a report that has no place.
fn check_writable(report: &Path) -> anyhow::Result<()> {
    if report.is_dir() {
        bail!("--report {} is a folder: name a file", report.display());
    }
    output::check_writable(report).context("--report")
}
