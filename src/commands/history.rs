//! A stretch of history for the commands that replay one: which, read and checked.

use anyhow::{Context, bail};

use super::progress::Bars;
use super::terminal::warn;
use super::{Usage, now};
use crate::config::Config;
use crate::fetch::{self, Fetched, Purpose};
use crate::history::History;
use crate::prometheus::Client;
use crate::runner;
use crate::state::{StateError, Store};
use crate::time::{Timestamp, format_duration, millis, parse_time};
use crate::webhook::{self, OwnAlerts};

/// Grid points of one target at most: almost two years of minutes.
const MAX_STEPS: i64 = 1_000_000;
/// Grid points of all targets at most; each takes some 200 bytes of memory.
const MAX_POINTS: i64 = 100_000_000;

/// Which history to learn from.
#[derive(Debug, clap::Args)]
pub struct HistoryArgs {
    /// Start of the history to learn from; RFC 3339, unix seconds or relative (30d) [default: train.range before the end].
    #[arg(long, help_heading = "History", value_name = "TIME")]
    start: Option<String>,
    /// End of the history to learn from.
    #[arg(
        long,
        help_heading = "History",
        value_name = "TIME",
        default_value = "now"
    )]
    end: String,
    /// Learn even from answers that Prometheus calls incomplete.
    #[arg(long, help_heading = "History")]
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
        let history = read(config, start, end, self.allow_partial, bars)?.from_first_seen();
        if history.time(0) > start {
            eprintln!(
                "there is nothing before {}: the range begins there",
                history.time(0)
            );
        }
        Ok(history)
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
    let steps = steps(config, start, end);
    if steps > MAX_STEPS {
        return Err(Usage(format!(
            "{start} to {end} is {steps} steps of {}, at most {MAX_STEPS} can be read: choose a later --start",
            format_duration(config.step)
        ))
        .into());
    }
    Ok((start, end))
}

fn steps(config: &Config, start: Timestamp, end: Timestamp) -> i64 {
    (end.0 - start.0) / millis(config.step) + 1
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
    check_size(&client, config, start, end).await?;
    let Fetched {
        mut history,
        report,
    } = fetch::fetch(
        &client,
        config,
        &own_alerts,
        Purpose::Evaluation,
        (start, end, config.step),
        |done, total| bars.show("queries", done as f64 / total as f64),
    )
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
        warn(format!(
            "signals.{name}.query returned no series between {range}: its features will be missing"
        ));
    }
    for (name, _) in report.compared.iter().filter(|(_, series)| **series == 0) {
        warn(format!(
            "compare.{name} returned no series between {range}: it will look as if it had never warned"
        ));
    }
    for key in &report.nameless {
        warn(format!(
            "{key} returned series without the label {}, which were left out",
            config.targets.label.join(" or ")
        ));
    }
    let partial: Vec<&(String, String)> = report
        .warnings
        .iter()
        .filter(|(_, text)| !text.starts_with("PromQL "))
        .collect();
    for (key, text) in &partial {
        warn(format!("{key}: {text}"));
    }
    if !partial.is_empty() && !allow_partial {
        bail!(
            "Prometheus calls {} answers incomplete (above): repair that, or use them all the same with --allow-partial",
            partial.len()
        );
    }
    add_received(&mut history, config, &own_alerts, start, end)?;
    Ok(history)
}

/// Refuses what would not fit in memory, before anything of it is read. The targets are counted at the end of the
/// range; where that fails the queries themselves will say why.
async fn check_size(
    client: &Client,
    config: &Config,
    start: Timestamp,
    end: Timestamp,
) -> anyhow::Result<()> {
    let Some(signal) = config.signals.first() else {
        return Ok(());
    };
    let newest = client.instant(&signal.query, end, config.step).await;
    let targets = newest.map_or(0, |answer| answer.len() as i64);
    let points = targets * steps(config, start, end);
    if points > MAX_POINTS {
        bail!(
            "{targets} targets from {start} to {end} at a step of {} are {points} points, at most {MAX_POINTS} fit: choose a later --start or a longer step, or let the queries select fewer targets",
            format_duration(config.step)
        );
    }
    Ok(())
}

/// Marks what the state knows of this time, as a cycle does. Without it the queries alone say what failed.
fn add_received(
    history: &mut History,
    config: &Config,
    own: &OwnAlerts,
    start: Timestamp,
    end: Timestamp,
) -> anyhow::Result<()> {
    if !config.state.enabled {
        return Ok(());
    }
    let wants_alerts = !config.failure.alerts.is_empty();
    let store = match Store::open_read_only(&config.state.path) {
        Ok(store) => store,
        Err(StateError::Missing { path }) => {
            if wants_alerts {
                eprintln!(
                    "no alerts of the webhook are used: there is no {}",
                    path.display()
                );
            }
            return Ok(());
        }
        Err(error) if !wants_alerts => {
            eprintln!("warning: what somebody did about targets is not known: {error}");
            return Ok(());
        }
        Err(error) => return Err(error).context("cannot read the alerts received by webhook"),
    };
    if wants_alerts {
        let alerts = store
            .alerts(start, end)
            .context("cannot read the alerts received by webhook")?;
        eprintln!(
            "{} alerts of this time were received by webhook",
            alerts.len()
        );
        webhook::mark_failing(history, &alerts, config, own, |_| false);
    }
    let actions = store
        .actions(start, end, usize::MAX)
        .context("cannot read what somebody did about targets")?;
    if !actions.is_empty() {
        eprintln!(
            "{} times somebody acted on a target: where nothing failed after that, rows and alarms count neither way",
            actions.len()
        );
    }
    for action in &actions {
        history.mark_acted(&action.target, action.at);
    }
    Ok(())
}
