//! What there is to learn from, shown before anything is fitted.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{FEW_INCIDENTS, MIN_INCIDENTS, Plan, Replay, TargetRows};
use crate::history::History;
use crate::labels::RowLabel;
use crate::types::Incident;

#[derive(Clone, Debug, Serialize)]
pub struct LabelReport {
    pub start: String,
    pub end: String,
    pub targets: usize,
    pub rows: usize,
    pub positives: usize,
    /// Positive grid points with too little data to score.
    pub positives_without_history: usize,
    pub incidents: usize,
    /// Incidents that have a scored row within the horizon before them.
    pub incidents_with_history: usize,
    pub base_rate: f64,
    /// Grid points inside an incident, its recovery, or maintenance.
    pub excluded: usize,
    /// Grid points that nothing failed after, but somebody acted within the horizon.
    pub uncertain: usize,
    /// Grid points whose horizon ends after the range, or after the target was last seen.
    pub censored: usize,
    /// Grid points with too little data to score.
    pub abstained: usize,
    /// Share of grid points that something calls failing.
    pub failing_share: f64,
    /// Share of grid points with a sample, by signal.
    pub coverage: BTreeMap<String, f64>,
    pub incidents_by_target: BTreeMap<String, usize>,
    /// By `YYYY-MM` in UTC.
    pub incidents_by_month: BTreeMap<String, usize>,
    /// By who reported the start.
    pub incidents_by_source: BTreeMap<&'static str, usize>,
    /// What looks wrong, in words.
    pub warnings: Vec<String>,
}

/// Above this share of failing grid points a failure query more likely says when all is well.
const TOO_MUCH_FAILING: f64 = 0.5;

/// Targets that a warning names.
const NAMED: usize = 5;

impl Replay {
    pub fn report(&self, history: &History, plan: &Plan) -> LabelReport {
        let mut report = LabelReport {
            start: self.start.to_string(),
            end: self.time(self.steps - 1).to_string(),
            targets: self.targets.len(),
            rows: 0,
            positives: 0,
            positives_without_history: 0,
            incidents: 0,
            incidents_with_history: 0,
            base_rate: 0.0,
            excluded: 0,
            uncertain: 0,
            censored: 0,
            abstained: 0,
            failing_share: 0.0,
            coverage: BTreeMap::new(),
            incidents_by_target: BTreeMap::new(),
            incidents_by_month: BTreeMap::new(),
            incidents_by_source: BTreeMap::new(),
            warnings: Vec::new(),
        };
        let mut failing = 0;
        let (mut blind, mut unforeseeable) = (Vec::new(), Vec::new());
        for target in &self.targets {
            for (i, label) in target.labels.iter().enumerate() {
                match (label, target.rows[i]) {
                    (RowLabel::Excluded, _) => report.excluded += 1,
                    (RowLabel::Uncertain, _) => report.uncertain += 1,
                    (RowLabel::Censored, _) => report.censored += 1,
                    (label, None) => {
                        report.abstained += 1;
                        report.positives_without_history +=
                            usize::from(*label == RowLabel::Positive);
                    }
                    (RowLabel::Positive, Some(_)) => {
                        report.rows += 1;
                        report.positives += 1;
                    }
                    (RowLabel::Negative, Some(_)) => report.rows += 1,
                }
            }
            report.incidents += target.incidents.len();
            let foreseeable = target
                .incidents
                .iter()
                .filter(|incident| self.foreseeable(target, incident, plan))
                .count();
            report.incidents_with_history += foreseeable;
            let Some(recorded) = history.target(&target.target) else {
                continue;
            };
            for incident in &target.incidents {
                let month = incident.start.to_string().chars().take(7).collect();
                *report.incidents_by_month.entry(month).or_default() += 1;
                let said = history
                    .index(incident.start)
                    .and_then(|i| recorded.steps[i].failing);
                if let Some(source) = said {
                    *report.incidents_by_source.entry(source.name()).or_default() += 1;
                }
            }
            failing += recorded
                .steps
                .iter()
                .filter(|step| step.failing.is_some())
                .count();
            let signals = plan.catalogue.signals().len();
            let sees = |s: usize| recorded.column(s).iter().any(|v| v.is_finite());
            if recorded.steps.iter().any(|step| step.failing.is_some()) && !(0..signals).any(sees) {
                blind.push(target.target.as_str());
            } else if foreseeable == 0 && !target.incidents.is_empty() {
                unforeseeable.push(target.target.as_str());
            }
            if !target.incidents.is_empty() {
                report
                    .incidents_by_target
                    .insert(target.target.to_string(), target.incidents.len());
            }
        }
        report.base_rate = report.positives as f64 / report.rows.max(1) as f64;
        let points = (self.steps * self.targets.len()).max(1) as f64;
        report.failing_share = failing as f64 / points;
        report.warn_of_incidents(&blind, &unforeseeable);
        for (s, signal) in plan.catalogue.signals().iter().enumerate() {
            let name = &signal.name;
            let targets = history.targets();
            let samples = targets.iter().flat_map(|(_, t)| t.column(s));
            let (present, low, high) = samples.filter(|v| v.is_finite()).fold(
                (0_usize, f32::INFINITY, f32::NEG_INFINITY),
                |(n, low, high), v| (n + 1, low.min(*v), high.max(*v)),
            );
            report
                .coverage
                .insert(name.clone(), present as f64 / points);
            if present == 0 {
                report.warnings.push(format!(
                    "the signal {name} has no sample at all: check its query, or remove it"
                ));
            } else if low == high {
                report.warnings.push(format!(
                    "the signal {name} is always {low}, on every target: it tells nothing; check its query, or remove it"
                ));
            }
        }
        report
    }

    fn foreseeable(&self, target: &TargetRows, incident: &Incident, plan: &Plan) -> bool {
        let step = crate::time::millis(self.step);
        let end = ((incident.start.0 - self.start.0) / step).clamp(0, self.steps as i64) as usize;
        let span = (crate::time::millis(plan.rules.horizon) / step) as usize;
        target.rows[end.saturating_sub(span)..end]
            .iter()
            .any(Option::is_some)
    }
}

impl LabelReport {
    fn warn_of_incidents(&mut self, blind: &[&str], unforeseeable: &[&str]) {
        if self.failing_share > TOO_MUCH_FAILING {
            self.warnings.push(self.inverted());
        }
        if self.incidents < FEW_INCIDENTS {
            self.warnings.push(format!(
                "{} incidents are too few for figures to trust: widen train.range or choose a failure definition that happens more often",
                self.incidents
            ));
        }
        if !blind.is_empty() {
            self.warnings.push(format!(
                "{} fail but have no sample of any signal: do the failure queries name targets as the signals' queries do?",
                some_of(blind)
            ));
        }
        if !unforeseeable.is_empty() {
            self.warnings.push(format!(
                "{} have incidents but never enough samples before one, so that nothing is learned from these",
                some_of(unforeseeable)
            ));
        }
    }

    /// Whether there are enough failures, and what to do when not.
    pub fn verdict(&self) -> String {
        let found = format!(
            "{} of {} incidents have samples before them, {MIN_INCIDENTS} are needed, and from {FEW_INCIDENTS} on figures mean something",
            self.incidents_with_history, self.incidents
        );
        let ways = "another failure definition, of something that happens more often (failure.queries, failure.alerts); a longer range (train.range or --start, as far back as Prometheus keeps); until then the shipped model (models/default), which answers POST /predict for its own seven signals, and scores targets of a config with just these";
        match self.incidents_with_history {
            n if n < MIN_INCIDENTS => {
                format!("too few failures to learn from: {found}. What helps: {ways}")
            }
            n if n < FEW_INCIDENTS => format!("few failures: {found}. What helps: {ways}"),
            _ => format!("enough failures to learn from: {found}"),
        }
    }

    fn inverted(&self) -> String {
        format!(
            "targets are failing at {:.0} % of all points in time: a failure query is probably inverted (it must return a sample only while a target fails, as `up == 0` does, and not a 0 or 1 at all times)",
            100.0 * self.failing_share
        )
    }

    /// Why nothing can be learned from these labels, and what to do; `force` accepts a single incident.
    pub fn refusal(&self, force: bool) -> Option<String> {
        let Self {
            start,
            end,
            incidents,
            rows,
            positives,
            ..
        } = self;
        let needed = if force { 1 } else { MIN_INCIDENTS };
        let elsewhere =
            "widen train.range, choose another failure definition, or start with the shipped model";
        if self.targets == 0 || *incidents >= needed && *positives > 0 && positives < rows {
            return None;
        }
        Some(if self.failing_share > TOO_MUCH_FAILING {
            format!("there is nothing to learn: {}", self.inverted())
        } else if *incidents == 0 && self.failing_share > 0.0 {
            format!(
                "no incident from {start} to {end}: targets fail, but never for as long as failure.min_duration, or only under exclude"
            )
        } else if *incidents == 0 {
            format!(
                "no incident from {start} to {end}, hence nothing to learn: see in Prometheus whether failure.queries and failure.alerts ever returned a sample in this time; {elsewhere}"
            )
        } else if *incidents < needed {
            format!(
                "{incidents} incidents from {start} to {end} are too few to learn from ({needed} at least): {elsewhere}; or try with --force"
            )
        } else if *rows == 0 {
            format!(
                "no target can be scored at any time from {start} to {end}: each is failing, excluded, or has too few samples; see the coverage above and `forewarn check queries`"
            )
        } else if *positives == 0 {
            format!(
                "none of the {incidents} incidents has enough samples in the horizon before it, so that all rows are healthy ones: see the coverage above and `forewarn check queries`"
            )
        } else {
            format!(
                "an incident follows every one of the {rows} rows within the horizon, so that there is no healthy one to learn from: choose a shorter horizon or another failure definition"
            )
        })
    }
}

/// The first few of these names, and how many there are.
fn some_of(names: &[&str]) -> String {
    let shown = names[..names.len().min(NAMED)].join(", ");
    match names.len() {
        n if n > NAMED => format!("{n} targets ({shown}, …)"),
        _ => shown,
    }
}
