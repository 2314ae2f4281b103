//! `forewarn train`: history through PromQL, label report, fit, evaluation, model directory.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use rustix::process::{Resource, Rlimit, setpriority_process, setrlimit};
use serde_json::json;

use super::history::HistoryArgs;
use super::progress::Bars;
use super::promotion::{self, Promote, Promotion};
use super::terminal::{self, print, print_json, tell, warn};
use super::{ConfigFile, Output};
use crate::artifact;
use crate::bundle::Origin;
use crate::config::Config;
use crate::history::History;
use crate::learning;
use crate::models;
use crate::output;
use crate::training::{self, Plan, Progress, Replay, TrainError, Trained};

const LOWEST: i32 = 19;

pub const EXAMPLES: &str = examples!(
    "forewarn train                                            the last train.range, promoted",
    "forewarn train --start 90d --promote if-better            a candidate, served when it is clearly better",
    "forewarn train --start 2026-01-01T00:00:00Z --end 2026-03-01T00:00:00Z --out models/winter --output json",
);

#[derive(Debug, clap::Args)]
pub struct TrainArgs {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    learn: LearnArgs,
    /// Give way to everything else on this machine: lowest CPU priority, the first to be killed for memory, and at most
    /// train.max_memory_bytes of it.
    #[arg(long)]
    background: bool,
    /// Where the history comes from; a model of simulated origin never pages.
    #[arg(long, value_enum, value_name = "KIND", help_heading = "Model", default_value_t = Origin::History)]
    origin: Origin,
}

/// How a model is made and where it is written.
#[derive(Debug, clap::Args)]
pub struct LearnArgs {
    #[command(flatten)]
    history: HistoryArgs,
    /// Write the model to this directory instead of a new one under model.path, and do not promote it.
    #[arg(long, help_heading = "Model", value_name = "DIR")]
    out: Option<PathBuf>,
    /// Whether the new model becomes the served one; one written to --out never does.
    #[arg(long, help_heading = "Model", value_enum, value_name = "WHEN", default_value_t = Promote::Always, conflicts_with = "out")]
    promote: Promote,
    /// Go on even with hardly any incident.
    #[arg(long, help_heading = "Model")]
    force: bool,
    /// How the result is printed.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
}

pub fn run(args: TrainArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    if args.background {
        give_way(&config)?;
    }
    learn(&config, &args.learn, args.origin, training::train)
}

fn give_way(config: &Config) -> anyhow::Result<()> {
    let limit = config.train.max_memory_bytes;
    let memory = Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    };
    setrlimit(Resource::Data, memory).context("cannot limit memory to train.max_memory_bytes")?;
    setpriority_process(None, LOWEST).context("cannot lower the priority")?;
    // Some containers do not let it be written; then the memory limit alone protects the others.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    Ok(())
}

/// Reads the history, makes a model with `fit`, and writes it.
pub fn learn(
    config: &Config,
    args: &LearnArgs,
    origin: Origin,
    fit: impl FnOnce(&History, &Replay, &Plan, bool, Progress) -> Result<Trained, TrainError>,
) -> anyhow::Result<()> {
    let (start, end) = args.history.range(config)?;
    match &args.out {
        Some(dir) => {
            artifact::check_replaceable(dir).context("--out")?;
            output::check_new_folder(dir).context("--out")?;
        }
        None => output::check_new_folder(&config.model.path).context("model.path")?,
    }

    let began = Instant::now();
    let bars = Bars::new();
    let fetched = args.history.read(config, start, end, &bars)?;
    let fetch_seconds = began.elapsed().as_secs_f64();

    let plan = learning::plan(config);
    let progress = |stage: &str, share: f64| bars.show(stage, share);
    let replay = training::replay(&fetched, &plan, &progress);
    let report = replay.report(&fetched, &plan);
    bars.finish();
    tell(&learning::label_report(&report));
    training::check_length(end.since(start), &plan)?;
    if let Some(why) = report.refusal(args.force) {
        bail!("{why}");
    }

    let fitting = Instant::now();
    let trained = fit(&fetched, &replay, &plan, args.force, &progress)?;
    bars.finish();
    let promotion = match args.out {
        Some(_) => None,
        None => Some(promotion::decide(
            args.promote,
            config,
            &plan,
            &replay,
            &trained,
            origin,
        )?),
    };
    let written = learning::write_up(config, &plan, &fetched, &replay, &report, trained, origin);
    bars.finish();
    let bundle = written.bundle;
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
    // Another `train` must not prune this model before it is served.
    let _lock = match &args.out {
        Some(_) => None,
        None => Some(models::lock(&config.model.path)?),
    };
    artifact::write(&bundle, &dir, &written.card, Some(&written.report), &run)?;
    if let Some(promotion) = &promotion {
        if promotion.promoted {
            models::promote(&config.model.path, &bundle.manifest.id)?;
        }
        match models::prune(&config.model.path, config.model.shadow.as_deref()) {
            Ok(removed) => removed.iter().for_each(|name| {
                eprintln!("model {name} removed: the newest {} are kept", models::KEEP);
            }),
            Err(error) => warn(format!("old models stay: {error}")),
        }
    }
    eprintln!("model {} written to {}", bundle.manifest.id, dir.display());
    if let Some(report) = artifact::report(&dir) {
        eprintln!("report for a browser: {}", report.display());
    }
    match args.output {
        Output::Text => {
            let width = terminal::width();
            print(written.evaluation.table(width) + &written.fitted)?;
            if !written.notes.is_empty() {
                print(written.notes.trim_end())?;
            }
            if let Some(promotion) = &promotion {
                print(promotion.text(&bundle.manifest.id, width))?;
            }
            print(next_step(
                config,
                promotion.as_ref(),
                &bundle.manifest.id,
                &dir,
            ))?;
        }
        Output::Json => {
            let mut report = bundle.manifest.metrics.clone();
            report["timing"] = timing;
            report["model_id"] = json!(bundle.manifest.id);
            report["promotion"] = json!(promotion);
            print_json(&report)?;
        }
    }
    Ok(())
}

/// How the model comes into service.
fn next_step(config: &Config, promotion: Option<&Promotion>, id: &str, dir: &Path) -> String {
    let url = format!("http://{}/", config.api.listen);
    match promotion {
        Some(Promotion { promoted: true, .. }) => format!(
            "next: forewarn serve with the same config, then open {url}; one that runs takes the model up by itself"
        ),
        Some(_) => format!(
            "next: read the report; to serve this model: forewarn model promote {id}, then forewarn serve (one that runs takes it up by itself)"
        ),
        None => format!(
            "next: forewarn backtest --model {0} or forewarn predict --model {0}; to serve it, move the folder into {1} and promote it there (forewarn model promote NAME)",
            dir.display(),
            config.model.path.display()
        ),
    }
}
