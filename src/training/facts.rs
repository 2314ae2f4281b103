//! What there is to learn from, shown before anything is fitted.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Plan, Replay, TargetRows};
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
    pub incidents: usize,
    /// Incidents that have a scored row within the horizon before them.
    pub incidents_with_history: usize,
    pub base_rate: f64,
    /// Grid points inside an incident, its recovery, or maintenance.
    pub excluded: usize,
    /// Grid points whose horizon ends after the range, or after the target was last seen.
    pub censored: usize,
    /// Grid points with too little data to score.
    pub abstained: usize,
    /// Share of grid points with a sample, by signal.
    pub coverage: BTreeMap<String, f64>,
    pub incidents_by_target: BTreeMap<String, usize>,
}

impl Replay {
    pub fn report(&self, history: &History, plan: &Plan) -> LabelReport {
        let mut report = LabelReport {
            start: self.start.to_string(),
            end: self.time(self.steps - 1).to_string(),
            targets: self.targets.len(),
            rows: 0,
            positives: 0,
            incidents: 0,
            incidents_with_history: 0,
            base_rate: 0.0,
            excluded: 0,
            censored: 0,
            abstained: 0,
            coverage: BTreeMap::new(),
            incidents_by_target: BTreeMap::new(),
        };
        for target in &self.targets {
            for (i, label) in target.labels.iter().enumerate() {
                match (label, target.rows[i]) {
                    (RowLabel::Excluded, _) => report.excluded += 1,
                    (RowLabel::Censored, _) => report.censored += 1,
                    (_, None) => report.abstained += 1,
                    (RowLabel::Positive, Some(_)) => {
                        report.rows += 1;
                        report.positives += 1;
                    }
                    (RowLabel::Negative, Some(_)) => report.rows += 1,
                }
            }
            report.incidents += target.incidents.len();
            report.incidents_with_history += target
                .incidents
                .iter()
                .filter(|incident| self.foreseeable(target, incident, plan))
                .count();
            if !target.incidents.is_empty() {
                report
                    .incidents_by_target
                    .insert(target.target.to_string(), target.incidents.len());
            }
        }
        report.base_rate = report.positives as f64 / report.rows.max(1) as f64;
        let points = (self.steps * self.targets.len()).max(1) as f64;
        for (s, signal) in plan.catalogue.signals().iter().enumerate() {
            let present = history
                .targets()
                .values()
                .flat_map(|t| t.column(s))
                .filter(|v| !v.is_nan())
                .count();
            report
                .coverage
                .insert(signal.name.clone(), present as f64 / points);
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
