//! Reads what the config describes from Prometheus into a [`History`]: the
//! same for a month of training and for the newest step of a cycle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use tokio::sync::watch;

use crate::config::Config;
use crate::history::{Column, History};
use crate::prometheus::{Answer, Client, QueryError, Series};
use crate::time::Timestamp;
use crate::types::{FailureMode, Labels, Shard, Source};
use crate::webhook::{self, OwnAlerts};

pub struct Fetched {
    pub history: History,
    pub report: FetchReport,
}

/// What went wrong or looked odd; nothing here stops the other queries.
#[derive(Debug, Default)]
pub struct FetchReport {
    /// Config key of each query that got no answer, and why.
    pub failed: Vec<(String, QueryError)>,
    /// Config key and text of each warning that Prometheus gave.
    pub warnings: Vec<(String, String)>,
    /// What each answered query returned, in the order of the config.
    pub returned: Vec<Returned>,
    /// Series of each signal.
    pub series: BTreeMap<String, usize>,
    /// Series of each score to compare with.
    pub compared: BTreeMap<String, usize>,
    /// Config key of each signal or score for which several series name one target, whose samples then count as missing; and what to do.
    pub duplicates: Vec<(String, String)>,
    /// Config keys whose series lack a target label.
    pub nameless: BTreeSet<String>,
    pub queries: usize,
}

#[derive(Debug)]
pub struct Returned {
    pub key: String,
    pub series: usize,
    /// Targets that a query for failures or exclusions names.
    pub targets: usize,
    /// Times of its first and last sample.
    pub span: Option<(Timestamp, Timestamp)>,
}

impl FetchReport {
    /// Whether Prometheus answered at least one query.
    pub fn answered(&self) -> bool {
        self.failed.len() < self.queries
    }

    /// Why queries failed; those that failed alike in one line.
    pub fn failures(&self) -> Vec<String> {
        let mut keys: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for (key, error) in &self.failed {
            keys.entry(error.to_string()).or_default().push(key);
        }
        keys.into_iter()
            .map(|(error, keys)| format!("{}: {error}", keys.join(", ")))
            .collect()
    }

    /// What an operator should look at, by what and where it is.
    pub fn problems(&self, config: &Config) -> BTreeMap<(&'static str, String), String> {
        let mut problems = BTreeMap::new();
        for (key, error) in &self.failed {
            problems.insert(("failed", key.clone()), format!("{key}: {error}"));
        }
        for (key, text) in &self.duplicates {
            problems.insert(("duplicates", key.clone()), text.clone());
        }
        for key in &self.nameless {
            let labels = config.targets.label.join(" or ");
            let text = format!("{key} returns series without the label {labels}");
            problems.insert(("nameless", key.clone()), text);
        }
        for (name, _) in self.series.iter().filter(|(_, series)| **series == 0) {
            let text = format!(
                "signals.{name}.query returns nothing: check it with `forewarn check queries`"
            );
            problems.insert(("empty", name.clone()), text);
        }
        problems
    }
}

/// What the history is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Serving(Shard),
    /// The signals alone.
    Baseline(Shard),
    /// Training, backtests and checks, which measure other scores too.
    Evaluation,
}

/// When a server counts as one that hangs: as many queries in a row as are under way at once, two at least, were waited
/// for in vain. What is under way then, and what is left to ask, fails alike.
struct Patience {
    most: usize,
    /// How long it takes until it is in vain.
    wait: Duration,
    /// Queries that were waited for in vain since the last word of the server.
    waited: AtomicUsize,
    /// Why the last one failed, once it is lost.
    lost: watch::Sender<Option<QueryError>>,
}

impl Patience {
    fn of(config: &Config) -> Self {
        Self::new(
            config.prometheus.concurrency.max(2),
            config.prometheus.timeout,
        )
    }

    fn endless() -> Self {
        Self::new(usize::MAX, Duration::MAX)
    }

    fn new(most: usize, wait: Duration) -> Self {
        Self {
            most,
            wait,
            waited: AtomicUsize::default(),
            lost: watch::Sender::default(),
        }
    }

    fn note(&self, error: Option<&QueryError>, took: Duration) {
        match error {
            Some(error) if error.is_silence() && took >= self.wait => {
                let waited = self.waited.fetch_add(1, Ordering::Relaxed) + 1;
                if waited >= self.most {
                    self.lost.send_replace(Some(error.clone()));
                }
            }
            _ => self.waited.store(0, Ordering::Relaxed),
        }
    }

    /// What `ask` answers, unless patience is lost before.
    async fn bounds<T>(
        &self,
        ask: impl Future<Output = Result<T, QueryError>>,
    ) -> Result<T, QueryError> {
        let mut lost = self.lost.subscribe();
        let lost = async {
            let lost = lost.wait_for(Option::is_some).await;
            lost.ok().and_then(|error| error.clone())
        };
        let ask = async {
            let began = Instant::now();
            let answer = ask.await;
            self.note(answer.as_ref().err(), began.elapsed());
            answer
        };
        tokio::select! {
            biased;
            Some(error) = lost => Err(error),
            answer = ask => answer,
        }
    }
}

struct Query {
    /// Where it stands in the config.
    key: String,
    text: String,
    column: Column,
    is_alert: bool,
}

/// Fetches `start..=end` on the grid of `step`. `progress` is told how many of how many queries are done.
pub async fn fetch(
    client: &Client,
    config: &Config,
    own_alerts: &OwnAlerts,
    purpose: Purpose,
    (start, end, step): (Timestamp, Timestamp, Duration),
    progress: impl Fn(usize, usize),
) -> Fetched {
    let mut queries = queries(config, own_alerts);
    let mut history = History::new(config.signals.len(), start, end, step);
    match purpose {
        Purpose::Serving(_) => (),
        Purpose::Baseline(_) => queries.retain(|query| matches!(query.column, Column::Signal(_))),
        Purpose::Evaluation => {
            history = history.with_compared(config.compare.keys().cloned().collect());
            queries.extend(compared(config));
        }
    }
    let shard = match purpose {
        Purpose::Serving(shard) | Purpose::Baseline(shard) => shard,
        Purpose::Evaluation => Shard::WHOLE,
    };
    let total = queries.len();
    let mut report = FetchReport {
        queries: total,
        ..FetchReport::default()
    };
    let patience = match purpose {
        Purpose::Serving(_) | Purpose::Baseline(_) => Patience::of(config),
        Purpose::Evaluation => Patience::endless(),
    };
    let patience = &patience;
    let mut answers = stream::iter(queries)
        .map(|query| async move {
            let ask = async {
                match start == end {
                    true => client.instant(&query.text, end, step).await,
                    false => client.range(&query.text, start, end, step).await,
                }
            };
            let answer = patience.bounds(ask).await;
            (query, answer)
        })
        .buffered(config.prometheus.concurrency.max(1));
    let mut done = 0;
    while let Some((query, answer)) = answers.next().await {
        match answer {
            Ok(answer) => {
                let at = (start == end).then_some(end);
                insert(&mut history, &mut report, config, shard, &query, answer, at);
            }
            Err(error) => {
                match query.column {
                    Column::Failing(_) => history.failing_unanswered = true,
                    Column::Excluded => history.excluded_unanswered = true,
                    Column::Signal(_) | Column::Acted | Column::Compared(_) => (),
                }
                report.failed.push((query.key, error));
            }
        }
        done += 1;
        progress(done, total);
    }
    Fetched { history, report }
}

fn queries(config: &Config, own_alerts: &OwnAlerts) -> Vec<Query> {
    let numbered = |section: &str, i: usize| format!("{section}[{i}]");
    let mut queries = Vec::new();
    for (i, signal) in config.signals.iter().enumerate() {
        queries.push(Query {
            key: format!("signals.{}.query", signal.signal.name),
            text: signal.query.clone(),
            column: Column::Signal(i),
            is_alert: false,
        });
    }
    for (i, query) in config.failure.queries.iter().enumerate() {
        queries.push(Query {
            key: numbered("failure.queries", i),
            text: query.clone(),
            column: Column::Failing(Source::Query),
            is_alert: false,
        });
    }
    for (i, matchers) in config.failure.alerts.iter().enumerate() {
        queries.push(Query {
            key: numbered("failure.alerts", i),
            text: alerts_query(matchers, own_alerts),
            column: Column::Failing(Source::Alerts),
            is_alert: true,
        });
    }
    for (i, query) in config.exclude.iter().enumerate() {
        queries.push(Query {
            key: numbered("exclude", i),
            text: query.clone(),
            column: Column::Excluded,
            is_alert: false,
        });
    }
    for (i, query) in config.failure.acted.iter().enumerate() {
        queries.push(Query {
            key: numbered("failure.acted", i),
            text: query.clone(),
            column: Column::Acted,
            is_alert: false,
        });
    }
    queries
}

/// After all others, so that every target is known by then.
fn compared(config: &Config) -> impl Iterator<Item = Query> {
    let query = |(i, (name, text)): (usize, (&String, &String))| Query {
        key: format!("compare.{name}"),
        text: text.clone(),
        column: Column::Compared(i),
        is_alert: false,
    };
    config.compare.iter().enumerate().map(query)
}

/// Firing alerts that match, without those that our own predictions raised.
pub fn alerts_query(matchers: &BTreeMap<String, String>, own_alerts: &OwnAlerts) -> String {
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let mut selector = String::from(r#"ALERTS{alertstate="firing",forewarn!="true""#);
    for (label, value) in matchers {
        selector.push_str(&format!(",{label}={}", quote(value)));
    }
    for name in own_alerts.names() {
        selector.push_str(&format!(",alertname!={}", quote(name)));
    }
    selector + "}"
}

/// `at` is when the answer is of, if of one instant: what a server then says of the time is not looked at.
fn insert(
    history: &mut History,
    report: &mut FetchReport,
    config: &Config,
    shard: Shard,
    query: &Query,
    answer: Answer,
    at: Option<Timestamp>,
) {
    let no_mapping = BTreeMap::new();
    match query.column {
        Column::Signal(i) => {
            let name = config.signals[i].signal.name.clone();
            report.series.insert(name, answer.len());
        }
        Column::Compared(i) => {
            let name = history.compared()[i].clone();
            report.compared.insert(name, answer.len());
        }
        Column::Failing(_) | Column::Excluded | Column::Acted => (),
    }
    let times = |series: Series| Some((series.samples.first()?.0, series.samples.last()?.0));
    report.returned.push(Returned {
        key: query.key.clone(),
        series: answer.len(),
        targets: 0,
        span: answer
            .series()
            .filter_map(times)
            .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))),
    });
    let warnings = answer.warnings.iter().cloned();
    report
        .warnings
        .extend(warnings.map(|warning| (query.key.clone(), warning)));
    // Only alerts may name their target by other labels.
    let mapped = if query.is_alert {
        &config.failure.target_labels
    } else {
        &no_mapping
    };
    history.reserve(answer.len() / shard.count() as usize);
    let mut extra_labels = Labels::default();
    let (mut doubled, mut example) = (BTreeSet::new(), None);
    let mut named = BTreeSet::new();
    for series in answer.series() {
        let label = |name: &str| series.label(name);
        let Some(target) = webhook::target_of(label, &config.targets, mapped) else {
            report.nameless.insert(query.key.clone());
            continue;
        };
        if !shard.owns(&target) {
            continue;
        }
        let names = config.targets.extra_labels.iter();
        let extra = names.filter_map(|name| Some((name.as_str(), series.label(name)?)));
        // Targets that follow one another mostly share them.
        let same = extra_labels
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        if !same.eq(extra.clone()) {
            extra_labels = extra
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
        }
        let instant = at
            .zip(series.samples.last())
            .map(|(at, last)| [(at, last.1)]);
        let samples = instant.as_ref().map_or(series.samples, |one| one);
        if let Err(duplicate) = history.insert(query.column, &target, &extra_labels, samples) {
            example.get_or_insert_with(|| format!("{target} at {}", duplicate.at));
            doubled.insert(target.clone().into_owned());
        }
        if matches!(query.column, Column::Failing(_) | Column::Excluded) {
            named.insert(target.clone().into_owned());
        }
        if matches!(query.column, Column::Failing(_)) {
            let mode = failure_mode(query, label);
            history.name_failures(&target, mode, samples.iter().map(|(t, _)| *t));
        }
    }
    if let Some(returned) = report.returned.last_mut() {
        returned.targets = named.len();
    }
    if let Some(example) = example {
        let text = format!(
            "{} returns several series for one target ({} targets, among them {example}): aggregate it by the target's label, for example max by ({}) (…) with the whole query in place of the dots",
            query.key,
            doubled.len(),
            config.targets.label.join(", ")
        );
        report.duplicates.push((query.key.clone(), text));
    }
}

/// What a series of a failure query says of the kind of failure.
fn failure_mode<'a>(query: &Query, label: impl Fn(&str) -> Option<&'a str>) -> FailureMode {
    let named = |name| {
        label(name)
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
    };
    let mode = if query.is_alert {
        named("alertname").map(FailureMode::Alert)
    } else {
        named("failure_mode").map(FailureMode::Named)
    };
    mode.unwrap_or_else(|| FailureMode::Query(query.key.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_says_what_kind_of_failure_it_is() {
        let query = |is_alert| Query {
            key: "failure.queries[1]".into(),
            text: String::new(),
            column: Column::Failing(Source::Query),
            is_alert,
        };
        let labels: BTreeMap<String, String> = [("failure_mode", "leak"), ("alertname", "Down")]
            .map(|(name, value)| (name.into(), value.into()))
            .into();
        let empty = [("failure_mode".into(), String::new())].into();
        for (is_alert, labels, expected) in [
            (false, &labels, FailureMode::Named("leak".into())),
            (true, &labels, FailureMode::Alert("Down".into())),
            (
                false,
                &empty,
                FailureMode::Query("failure.queries[1]".into()),
            ),
        ] {
            let label = |name: &str| labels.get(name).map(String::as_str);
            assert_eq!(failure_mode(&query(is_alert), label), expected);
        }
    }
}
