//! A stretch of history for the commands that replay one: which, read and checked.

use anyhow::{Context, bail};

use super::progress::Bars;
use super::{Usage, now};
use crate::config::Config;
use crate::fetch::{self, Fetched};
use crate::history::History;
use crate::prometheus::Client;
use crate::runner;
use crate::time::{Timestamp, format_duration, parse_time};
use crate::webhook::OwnAlerts;

/// Which history to learn from.
#[derive(Debug, clap::Args)]
pub struct HistoryArgs {
    /// Start of the history to learn from; RFC 3339, unix seconds or relative (30d). Default: train.range before the end.
    #[arg(long, value_name = "TIME")]
    start: Option<String>,
    /// End of the history to learn from.
    #[arg(long, value_name = "TIME", default_value = "now")]
    end: String,
    /// Learn even from answers that Prometheus calls incomplete.
    #[arg(long)]
    allow_partial: bool,
}

impl HistoryArgs {
    /// First and last grid point.
    pub fn range(&self, config: &Config) -> anyhow::Result<(Timestamp, Timestamp)> {
        let now = now();
        let end = time("--end", &self.end, now)?;
        let start = match &self.start {
            Some(start) => time("--start", start, now)?,
            None => end.minus(config.train.range),
        };
        range(config, start, end, now)
    }

    pub fn read(
        &self,
        config: &Config,
        start: Timestamp,
        end: Timestamp,
        bars: &Bars,
    ) -> anyhow::Result<History> {
        read(config, start, end, self.allow_partial, bars)
    }
}

/// The instant that a flag gives.
pub fn time(flag: &'static str, text: &str, now: Timestamp) -> anyhow::Result<Timestamp> {
    Ok(parse_time(text, now).map_err(|problem| Usage(format!("{flag}: {problem}")))?)
}

/// First and last grid point of a range; what has not happened yet is left out.
pub fn range(
    config: &Config,
    start: Timestamp,
    end: Timestamp,
    now: Timestamp,
) -> anyhow::Result<(Timestamp, Timestamp)> {
    let newest = now.minus(config.query_offset);
    let (start, end) = (start.floor(config.step), end.min(newest).floor(config.step));
    if start >= end {
        return Err(Usage(format!("--start {start} is not before --end {end}")).into());
    }
    Ok((start, end))
}

/// Reads a history. Refuses what would teach or show something wrong: failed queries, duplicates,
/// nothing at all, and, unless `allow_partial`, answers that Prometheus calls incomplete.
pub fn read(
    config: &Config,
    start: Timestamp,
    end: Timestamp,
    allow_partial: bool,
    bars: &Bars,
) -> anyhow::Result<History> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(fetch_history(config, start, end, allow_partial, bars))
}

async fn fetch_history(
    config: &Config,
    start: Timestamp,
    end: Timestamp,
    allow_partial: bool,
    bars: &Bars,
) -> anyhow::Result<History> {
    let client = Client::new(&config.prometheus)?;
    let own_alerts = match config.failure.alerts.is_empty() {
        true => OwnAlerts::default(),
        false => runner::own_alerts(&client)
            .await
            .context("cannot ask Prometheus for its alerting rules, to leave out our own alerts")?,
    };
    let range = format!("{start} to {end}");
    eprintln!(
        "reading {range} at a step of {} from {}",
        format_duration(config.step),
        config.prometheus.url
    );
    let Fetched { history, report } =
        fetch::fetch(&client, config, &own_alerts, start, end, |done, total| {
            bars.show("queries", done as f64 / total as f64)
        })
        .await;
    bars.finish();
    if !report.failed.is_empty() {
        bail!(
            "{} of {} queries failed:\n  {}",
            report.failed.len(),
            report.queries,
            report.failures().join("\n  ")
        );
    }
    if !report.duplicates.is_empty() {
        let texts = report
            .duplicates
            .iter()
            .take(10)
            .map(|(_, text)| text.as_str());
        bail!(
            "{} duplicates, such as:\n{}",
            report.duplicates.len(),
            texts.collect::<Vec<_>>().join("\n")
        );
    }
    let empty: Vec<&str> = report
        .series
        .iter()
        .filter(|(_, series)| **series == 0)
        .map(|(name, _)| name.as_str())
        .collect();
    if empty.len() == report.series.len() {
        bail!(
            "no signal returned a series between {range}: check the queries with `forewarn check queries`"
        );
    }
    for name in empty {
        eprintln!(
            "warning: signals.{name}.query returned no series between {range}: its features will be missing"
        );
    }
    for key in &report.nameless {
        eprintln!(
            "warning: {key} returned series without the label {}, which were left out",
            config.targets.label.join(" or ")
        );
    }
    let partial: Vec<&(String, String)> = report
        .warnings
        .iter()
        .filter(|(_, text)| !text.starts_with("PromQL "))
        .collect();
    for (key, text) in &partial {
        eprintln!("warning: {key}: {text}");
    }
    if !partial.is_empty() && !allow_partial {
        bail!(
            "Prometheus calls {} answers incomplete (above): repair that, or use them all the same with --allow-partial",
            partial.len()
        );
    }
    Ok(history)
}
