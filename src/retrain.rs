//! Scheduled training: a process of its own, so that it gives way, has a memory limit, and takes nothing down with it.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use serde::Deserialize;
use tokio::process::Command;
use tokio::time::{Instant, sleep};
use tracing::{error, info};

use crate::bundle::{Manifest, Origin};
use crate::models;
use crate::server::{App, Reloads};
use crate::time::{Timestamp, format_duration};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After a training that failed, this part of the schedule passes before the next.
const RETRY: u32 = 10;
/// Of what a training that failed says last.
const LAST_WORDS: usize = 1000;

/// Trains whenever the newest model is older than `train.schedule` says, until it is dropped. What is promoted is taken up at once.
pub async fn run(app: Arc<App>, config_file: PathBuf, reloads: Reloads) {
    let mut not_before = Instant::now();
    let mut newest = Newest::default();
    loop {
        sleep(LOOK_EVERY).await;
        let config = app.serving.load().config.clone();
        let schedule = config.train.schedule;
        if schedule.is_zero()
            || Instant::now() < not_before
            || !newest.is_older(schedule, &config.model.path, (app.clock)())
        {
            continue;
        }
        not_before = Instant::now() + schedule / RETRY;
        info!(
            "scheduled training begins: the newest model is older than {}",
            format_duration(schedule)
        );
        let result = match train(&config_file).await {
            Ok(promotion) => {
                let is_promoted = promotion.promoted;
                info!(
                    promoted = is_promoted,
                    "scheduled training is done: {}", promotion.reason
                );
                if is_promoted {
                    // If one is waiting already, it will find the new model.
                    let _ = reloads.ask();
                }
                if is_promoted { "promoted" } else { "kept" }
            }
            Err(why) => {
                error!("scheduled training failed, the served model stays: {why:#}");
                "failed"
            }
        };
        app.metrics.trainings.with_label_values(&[result]).inc();
    }
}

/// Until when the newest model of a folder has learned. The manifests of large fleets are megabytes: they are read again
/// when the folder has changed only.
#[derive(Default)]
struct Newest {
    read: Option<(PathBuf, SystemTime)>,
    until: Option<Timestamp>,
}

impl Newest {
    /// Whether the folder has no model younger than `age`. Those of the simulated fleet do not count: they say nothing about
    /// these targets. What cannot be read is not called old.
    fn is_older(&mut self, age: Duration, folder: &Path, now: Timestamp) -> bool {
        let changed = folder.metadata().and_then(|folder| folder.modified()).ok();
        let seen = changed.map(|changed| (folder.to_owned(), changed));
        if seen.is_none() || seen != self.read {
            let Ok(entries) = models::list(folder) else {
                return false;
            };
            self.read = seen;
            self.until = entries
                .iter()
                .filter_map(|entry| entry.manifest.as_ref().ok())
                .filter(|manifest| manifest.origin != Origin::Simulated)
                .filter_map(Manifest::trained_until)
                .max();
        }
        self.until.is_none_or(|until| now.since(until) >= age)
    }
}

/// Of the report of `forewarn train`, which has megabytes more for a large fleet.
#[derive(Deserialize)]
struct Report {
    promotion: Promotion,
}

#[derive(Deserialize)]
struct Promotion {
    promoted: bool,
    reason: String,
}

/// What became of the model.
async fn train(config_file: &Path) -> anyhow::Result<Promotion> {
    let program = std::env::current_exe().context("cannot find forewarn's own binary")?;
    let mut command = Command::new(program);
    command
        .args([
            "train",
            "--background",
            "--promote=if-better",
            "--output=json",
            "--config.file",
        ])
        .arg(config_file)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = command
        .output()
        .await
        .context("cannot run forewarn train")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.char_indices().rev().nth(LAST_WORDS);
        // Progress comes first, then what is wrong.
        let error = said.rfind("\nforewarn: ");
        let from = error.or(last.map(|(at, _)| at)).unwrap_or(0);
        let hint = match output.status.signal() {
            Some(_) => {
                "; if it was short of memory, raise train.max_memory_bytes or shorten train.range"
            }
            None => "",
        };
        bail!("{} ({}{hint})", said[from..].trim(), output.status);
    }
    let report: Report =
        serde_json::from_slice(&output.stdout).context("forewarn train printed no report")?;
    Ok(report.promotion)
}
