//! What a Prometheus has that forewarn could use: targets of the presets, signals that return data, failures and how
//! often they happened. Asks one query after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::config::TargetsConfig;
use crate::diagnosis::Diagnosis;
use crate::fetch;
use crate::labels::{FailureMachine, FailureRules};
use crate::presets::{self, Preset, PresetFailure, PresetSignal};
use crate::prometheus::{Answer, Client, QueryError};
use crate::promql;
use crate::runner;
use crate::time::{Timestamp, format_duration, millis};
use crate::types::Unit;
use crate::webhook;

/// Signals are looked for over so long, at so many points.
const RECENT: Duration = Duration::from_secs(3600);
const POINTS: u32 = 12;
/// Share of the targets for which a signal must have data.
const MOST: f64 = 0.5;
/// Share of points at which a failure query may hold.
const TOO_MUCH_FAILING: f64 = 0.5;
/// Points of all targets at which failures are looked for, at most: 46 days of minutes for 100 targets.
const MAX_POINTS: i64 = 10_000_000;
/// A history that is shorter says little of what is not there.
const YOUNG: Duration = Duration::from_secs(3600);
/// Why a rate returns nothing where its counter is there.
const NO_DATA_YET: &str =
    "no data yet: counters need two scrapes within the rate window; run forewarn init again later";
/// What alerts that are pages mostly say of themselves.
const PAGES: [&str; 2] = ["critical", "page"];

/// A preset of which there are targets.
#[derive(Debug, Serialize)]
pub struct Found {
    #[serde(serialize_with = "name")]
    pub preset: &'static Preset,
    pub targets: usize,
    pub jobs: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct Survey {
    #[serde(flatten)]
    pub found: Found,
    /// When its series begin, at the earliest the range that was asked for.
    #[serde(serialize_with = "time")]
    pub since: Timestamp,
    /// From when on failures were counted; later than `since` for many targets.
    #[serde(serialize_with = "time")]
    pub counted_since: Timestamp,
    #[serde(serialize_with = "time")]
    pub at: Timestamp,
    pub signals: Vec<SignalFound>,
    pub failures: Vec<FailureFound>,
    /// Incidents that all active failures together make.
    pub incidents: Incidents,
    pub alerts: Vec<AlertsFound>,
    /// What could not be asked, and why.
    pub notes: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct SignalFound {
    pub name: &'static str,
    pub unit: Unit,
    #[serde(skip)]
    pub about: &'static str,
    pub query: String,
    /// With data in the last hour.
    pub targets: usize,
    /// Newest value of one target.
    pub value: Option<f64>,
    /// Why it is left out.
    pub left_out: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct FailureFound {
    pub name: &'static str,
    #[serde(skip)]
    pub about: &'static str,
    pub query: String,
    pub incidents: Option<Incidents>,
    pub left_out: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Incidents {
    pub incidents: usize,
    pub targets: usize,
}

/// Firing alerts of a severity in the past.
#[derive(Debug, Serialize)]
pub struct AlertsFound {
    pub severity: &'static str,
    #[serde(flatten)]
    pub incidents: Incidents,
    /// Names of the alerts that were about targets.
    pub names: BTreeSet<String>,
    /// Series that name no target.
    pub elsewhere: usize,
}

impl Survey {
    /// Said where there is hardly any history yet, so that what is missing may only not have come yet.
    pub fn young(&self) -> Option<String> {
        let age = self.at.since(self.since);
        (age < YOUNG).then(|| {
            let age = match age.as_secs() {
                0..60 => "less than a minute".into(),
                secs => format_duration(Duration::from_secs(secs / 60 * 60)),
            };
            format!(
                "This Prometheus is young: it has these targets since {}, {age} ago. What has not been scraped twice yet looks as if it were missing. Run forewarn init \
                 again in an hour (--force replaces the file); until there is enough to learn from, start with the shipped model (models/default)",
                self.since
            )
        })
    }
}

fn name<S: Serializer>(preset: &&'static Preset, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&preset.name)
}

fn time<S: Serializer>(t: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(t)
}

/// The presets of which there are targets, in their order.
///
/// # Errors
/// The first query that got no answer.
pub async fn find(client: &Client, at: Timestamp) -> Result<Vec<Found>, QueryError> {
    let mut all = Vec::new();
    for preset in presets::all() {
        let labels = preset.label.join(", ");
        let query = format!(
            "count by (job) (count by (job, {labels}) ({}))",
            preset.found_by
        );
        let answer = client.instant(&query, at, RECENT).await?;
        if answer.is_empty() {
            continue;
        }
        let jobs = answer.series();
        let jobs = jobs.map(|one| one.label("job").unwrap_or_default().to_owned());
        all.push(Found {
            preset,
            targets: answer.series().map(|one| last(one.samples) as usize).sum(),
            jobs: jobs.collect(),
        });
    }
    Ok(all)
}

fn last(samples: &[(Timestamp, f64)]) -> f64 {
    samples.last().map_or(0.0, |(_, value)| *value)
}

/// Failing samples of each target, in order.
type Failing = BTreeMap<String, BTreeSet<Timestamp>>;

struct Surveyor<'a> {
    client: &'a Client,
    found: &'a Found,
    config: TargetsConfig,
    at: Timestamp,
    rules: FailureRules,
    /// Names of the targets there are.
    targets: BTreeSet<String>,
    /// When their series begin.
    since: Timestamp,
    notes: Vec<String>,
}

/// Looks for everything that a preset knows of, as far back as `range`.
///
/// # Errors
/// A query for the targets that got no answer. What else is not answered is noted.
pub async fn survey(
    client: &Client,
    found: Found,
    at: Timestamp,
    range: Duration,
    rules: FailureRules,
    progress: impl Fn(&str, f64),
) -> Result<Survey, QueryError> {
    let preset = found.preset;
    let mut surveyor = Surveyor {
        client,
        found: &found,
        config: TargetsConfig {
            label: preset.label.clone(),
            extra_labels: preset.extra_labels.clone(),
            max: usize::MAX,
        },
        at,
        rules,
        targets: BTreeSet::new(),
        since: at,
        notes: Vec::new(),
    };
    let everything = format!(
        "count by ({}) ({})",
        preset.label.join(", "),
        preset.found_by
    );
    let targets = surveyor.recent(&everything).await?;
    surveyor.targets = surveyor.targets_of(&targets).into_keys().collect();
    let total = (preset.signals.len() + preset.failures.len() + 2) as f64;
    let mut done = 0.0;
    let mut step = |what: &str| {
        progress(what, done / total);
        done += 1.0;
    };
    step("history");
    let since = surveyor.since(range).await;
    surveyor.since = since;
    let mut signals = Vec::new();
    for signal in &preset.signals {
        step("signals");
        signals.push(surveyor.signal(signal).await);
    }
    let steps = MAX_POINTS / surveyor.targets.len().max(1) as i64;
    let longest = millis(surveyor.rules.step).saturating_mul(steps);
    let counted_since = Timestamp(since.0.max(at.0 - longest));
    let (mut failures, mut all) = (Vec::new(), Failing::new());
    for failure in &preset.failures {
        step("failures");
        let (failure, failing) = surveyor.failure(failure, counted_since).await;
        if failure.left_out.is_none() {
            for (target, times) in failing {
                all.entry(target).or_default().extend(times);
            }
        }
        failures.push(failure);
    }
    step("alerts");
    let alerts = surveyor.alerts(counted_since).await;
    let incidents = surveyor.incidents(&all);
    let notes = surveyor.notes;
    Ok(Survey {
        found: Found {
            targets: surveyor.targets.len(),
            ..found
        },
        since,
        counted_since,
        at,
        signals,
        failures,
        incidents,
        alerts,
        notes,
    })
}

impl Surveyor<'_> {
    async fn recent(&self, query: &str) -> Result<Answer, QueryError> {
        let start = self.at.minus(RECENT);
        self.client
            .range(query, start, self.at, RECENT / POINTS)
            .await
    }

    /// Series of each target with the newest value; what names no target is left out.
    fn targets_of(&self, answer: &Answer) -> BTreeMap<String, (usize, f64)> {
        let mut targets = BTreeMap::new();
        for one in answer.series() {
            let label = |name: &str| one.label(name);
            if let Some(target) = webhook::target_of(label, &self.config, &BTreeMap::new()) {
                let entry = targets.entry(target.into_owned()).or_insert((0, 0.0));
                *entry = (entry.0 + 1, last(one.samples));
            }
        }
        targets
    }

    /// When the series of the targets begin, to the step where that is not before the range.
    async fn since(&mut self, range: Duration) -> Timestamp {
        let query = format!("count({})", self.found.preset.found_by);
        let (mut start, mut end) = (self.at.minus(range), self.at);
        // First the day, then the hour, then the minute.
        for points in [300, 30, 30] {
            let step = (end.since(start) / points).max(self.rules.step);
            let answer = match self.client.range(&query, start, end, step).await {
                Ok(answer) => answer,
                Err(error) => {
                    self.notes
                        .push(format!("how far back the series go is unknown: {error}"));
                    return end;
                }
            };
            // With none at these points they begin between the last one and the end.
            let first = answer.series().next().map_or(end, |one| one.samples[0].0);
            start = start.max(first.minus(step));
            end = first;
        }
        end
    }

    async fn signal(&self, signal: &'static PresetSignal) -> SignalFound {
        let mut best: Option<SignalFound> = None;
        for query in &signal.queries {
            let found = self
                .variant(signal, presets::with_jobs(query, &self.found.jobs))
                .await;
            let enough = found.left_out.is_none();
            if best
                .as_ref()
                .is_none_or(|best| enough || found.targets > best.targets)
            {
                best = Some(found);
            }
            if enough {
                break;
            }
        }
        best.expect("a signal has a query")
    }

    async fn variant(&self, signal: &'static PresetSignal, query: String) -> SignalFound {
        let mut found = SignalFound {
            name: &signal.name,
            unit: signal.unit,
            about: &signal.about,
            query,
            targets: 0,
            value: None,
            left_out: None,
        };
        let answer = match self.recent(&found.query).await {
            Ok(answer) => answer,
            Err(error) => {
                found.left_out = Some(error.to_string());
                return found;
            }
        };
        let mut targets = self.targets_of(&answer);
        let named = !targets.is_empty();
        // What was not there when the targets were counted is not counted here either.
        targets.retain(|target, _| self.targets.contains(target));
        found.targets = targets.len();
        found.value = targets.values().next().map(|(_, value)| *value);
        let several = targets.values().filter(|(series, _)| *series > 1).count();
        let all = self.targets.len();
        let few = (targets.len() as f64) < MOST * all as f64;
        found.left_out = if few
            && promql::has_window(&found.query)
            && self.is_first_sight(&found.query).await
        {
            Some(NO_DATA_YET.into())
        } else if answer.is_empty() {
            Some("its query returns nothing here".into())
        } else if !named {
            Some(format!(
                "its series lack the label {}",
                self.config.label.join(" or ")
            ))
        } else if several > 0 {
            Some(format!(
                "it returns several series for {several} targets: aggregate it, for example max by ({}) (…)",
                self.config.label.join(", ")
            ))
        } else if few {
            Some(format!("only {} of {all} targets have it", targets.len()))
        } else {
            None
        };
        found
    }

    /// Whether what a query reads is there, and was not there long.
    async fn is_first_sight(&self, query: &str) -> bool {
        let diagnosis = Diagnosis {
            client: self.client,
            at: self.at,
            range: RECENT,
        };
        let is_young = self.at.since(self.since) < YOUNG;
        is_young && matches!(diagnosis.absent(query).await, Ok(absent) if absent.is_empty())
    }

    async fn failure(
        &mut self,
        failure: &'static PresetFailure,
        since: Timestamp,
    ) -> (FailureFound, Failing) {
        let mut found = FailureFound {
            name: &failure.name,
            about: &failure.about,
            query: String::new(),
            incidents: None,
            left_out: Some("there are no series for it here".into()),
        };
        for variant in &failure.variants {
            let exists = presets::with_jobs(&variant.exists, &self.found.jobs);
            let query = presets::with_jobs(&variant.query, &self.found.jobs);
            if found.query.is_empty() {
                found.query.clone_from(&query);
            }
            match self.recent(&format!("count({exists})")).await {
                Ok(answer) if answer.is_empty() => continue,
                Ok(_) => found.left_out = None,
                Err(error) => found.left_out = Some(error.to_string()),
            }
            found.query = query;
            break;
        }
        if found.left_out.is_some() {
            return (found, Failing::new());
        }
        if !failure.active {
            found.left_out = Some("optional, yours to decide".into());
        }
        let answer = self
            .client
            .range(&found.query, since, self.at, self.rules.step)
            .await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let note = format!("failures {} were not counted: {error}", failure.name);
                self.notes.push(note);
                return (found, Failing::new());
            }
        };
        let (failing, _) = self.failing(&answer);
        found.incidents = Some(self.incidents(&failing));
        let points = self.at.since(since).as_secs_f64() / self.rules.step.as_secs_f64();
        let points = points * self.targets.len().max(1) as f64;
        let share = failing.values().map(BTreeSet::len).sum::<usize>() as f64 / points.max(1.0);
        if share > TOO_MUCH_FAILING {
            found.left_out = Some(format!(
                "it holds at {:.0} % of all times and targets, so that there would be nothing to foresee",
                100.0 * share
            ));
        }
        (found, failing)
    }

    /// Failing samples by target, and how many series name none that is known.
    fn failing(&self, answer: &Answer) -> (Failing, usize) {
        let (mut failing, mut elsewhere) = (Failing::new(), 0);
        for one in answer.series() {
            let label = |name: &str| one.label(name);
            match webhook::target_of(label, &self.config, &BTreeMap::new()) {
                Some(target) => failing
                    .entry(target.into_owned())
                    .or_default()
                    .extend(one.samples.iter().map(|(t, _)| *t)),
                None => elsewhere += 1,
            }
        }
        (failing, elsewhere)
    }

    /// As training counts them.
    fn incidents(&self, failing: &Failing) -> Incidents {
        let rules = std::sync::Arc::new(self.rules);
        let mut sum = Incidents::default();
        for times in failing.values() {
            let mut machine = FailureMachine::new(rules.clone());
            for t in times {
                machine.push(*t, true);
            }
            sum.incidents += machine.incidents().len();
            sum.targets += usize::from(!machine.incidents().is_empty());
        }
        sum
    }

    async fn alerts(&mut self, since: Timestamp) -> Vec<AlertsFound> {
        // A server without that API has no rules of ours either.
        let own = runner::own_alerts(self.client).await.unwrap_or_default();
        let mut all = Vec::new();
        for severity in PAGES {
            let matchers = [("severity".to_owned(), severity.to_owned())].into();
            let query = fetch::alerts_query(&matchers, &own);
            let answer = match self
                .client
                .range(&query, since, self.at, self.rules.step)
                .await
            {
                Ok(answer) => answer,
                Err(error) => {
                    self.notes.push(format!(
                        "alerts with severity {severity} were not counted: {error}"
                    ));
                    continue;
                }
            };
            let (mut failing, mut elsewhere) = self.failing(&answer);
            let known = failing.len();
            failing.retain(|target, _| self.targets.contains(target));
            elsewhere += known - failing.len();
            let about_targets = answer.series().filter(|one| {
                let label = |name: &str| one.label(name);
                webhook::target_of(label, &self.config, &BTreeMap::new())
                    .is_some_and(|target| failing.contains_key(&*target))
            });
            let names = about_targets.filter_map(|one| Some(one.label("alertname")?.to_owned()));
            let found = AlertsFound {
                severity,
                incidents: self.incidents(&failing),
                names: names.collect(),
                elsewhere,
            };
            if !answer.is_empty() {
                all.push(found);
            }
        }
        all
    }
}
