//! What is drawn of an evaluation, thinned to what a chart can show.

use std::time::Duration;

use super::alarms::AlarmRule;
use super::events::{Scored, target_weeks};
use super::ranking::{ReliabilityBin, Rows};
use super::threshold::Curve;

/// A curve has at most so many points.
pub const POINTS: usize = 200;

/// Equal parts of the probability scale in a histogram.
pub const HISTOGRAM_BINS: usize = 20;

/// How one score ranks rows, and what its alarms cost at each threshold.
#[derive(Clone, Debug, Default)]
pub struct Curves {
    /// (share of negatives, share of positives) above each score, from (0, 0) to (1, 1); empty with one class only.
    pub roc: Vec<[f64; 2]>,
    /// (recall, precision), lowest recall first; empty without positives.
    pub precision_recall: Vec<[f64; 2]>,
    /// Highest threshold first.
    pub alarms: Vec<AlarmPoint>,
}

/// What a threshold gives. Rates of the whole fleet unless they say otherwise.
#[derive(Clone, Copy, Debug)]
pub struct AlarmPoint {
    pub threshold: f64,
    pub alarms_per_week: f64,
    pub false_alarms_per_week: f64,
    pub false_alarms_per_target_week: f64,
    pub precision: Option<f64>,
    pub recall: Option<f64>,
}

/// What is drawn of the ensemble alone.
#[derive(Clone, Debug, Default)]
pub struct Drawing {
    pub curves: Curves,
    /// Rows (not followed, followed by an incident) in each part of the probability scale.
    pub histogram: [[u64; 2]; HISTOGRAM_BINS],
    /// Of each foreseen incident, ascending.
    pub lead_seconds: Vec<f64>,
}

/// What was claimed and what came, in bins of equal count; those that claim least stand last.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Reliability {
    pub ece: Option<f64>,
    pub ece_high: Option<f64>,
    pub reliability: Vec<ReliabilityBin>,
    /// The rows of `ece_high` alone.
    pub reliability_high: Vec<ReliabilityBin>,
}

impl Curves {
    /// `days` is the length of the evaluated span.
    pub fn new(rows: &Rows, curve: &Curve, step: Duration, days: f64) -> Self {
        let every = curve.points.len().div_ceil(POINTS).max(1);
        let weekly = |count: u64| count as f64 * 7.0 / days.max(f64::MIN_POSITIVE);
        let point = |point: &super::threshold::Point| {
            let tally = &point.tally;
            AlarmPoint {
                threshold: point.threshold,
                alarms_per_week: weekly(tally.alarms()),
                false_alarms_per_week: weekly(tally.r#false),
                false_alarms_per_target_week: tally.r#false as f64
                    / target_weeks(tally.rows.max(1), step),
                precision: tally.precision(),
                recall: tally.recall(),
            }
        };
        Self {
            roc: roc(rows),
            precision_recall: precision_recall(rows),
            alarms: curve.points.iter().step_by(every).map(point).collect(),
        }
    }
}

impl Drawing {
    /// `rule` has the threshold at which alarms are cut.
    pub fn new(
        scored: &[Scored],
        rule: &AlarmRule,
        curves: Curves,
        rows: impl Iterator<Item = (f64, bool)>,
    ) -> Self {
        let mut histogram = [[0; 2]; HISTOGRAM_BINS];
        for (score, label) in rows {
            let bin = (score * HISTOGRAM_BINS as f64) as usize;
            histogram[bin.min(HISTOGRAM_BINS - 1)][usize::from(label)] += 1;
        }
        let replays = scored.iter().flat_map(|one| one.replay(rule).incidents);
        let mut lead_seconds: Vec<f64> = replays
            .filter_map(|(_, lead)| Some(lead?.as_secs_f64()))
            .collect();
        lead_seconds.sort_unstable_by(f64::total_cmp);
        Self {
            curves,
            histogram,
            lead_seconds,
        }
    }
}

impl Reliability {
    pub fn new(rows: &Rows) -> Self {
        let bins = super::ranking::CALIBRATION_BINS;
        Self {
            ece: rows.ece(),
            ece_high: rows.ece_high(),
            reliability: rows.reliability(bins),
            reliability_high: rows
                .high()
                .map_or_else(Vec::new, |high| high.reliability(bins)),
        }
    }
}

/// A point where the curve has gone on by a hundredth: it is two long from corner to corner.
fn roc(rows: &Rows) -> Vec<[f64; 2]> {
    let (positives, negatives) = totals(rows);
    if positives <= 0.0 || negatives <= 0.0 {
        return Vec::new();
    }
    let mut curve = vec![[0.0; 2]];
    let (mut wrong, mut found) = (0.0, 0.0);
    for (weight, positive) in rows.ties() {
        wrong += weight - positive;
        found += positive;
        let newest = [wrong / negatives, found / positives];
        let last = curve[curve.len() - 1];
        if newest[0] - last[0] + newest[1] - last[1] >= 2.0 / (POINTS - 2) as f64 {
            curve.push(newest);
        }
    }
    curve.push([1.0, 1.0]);
    curve
}

/// The first point at or above each of [`POINTS`] levels of recall.
fn precision_recall(rows: &Rows) -> Vec<[f64; 2]> {
    let (positives, _) = totals(rows);
    let mut curve: Vec<[f64; 2]> = Vec::new();
    let (mut above, mut found) = (0.0, 0.0);
    for (weight, positive) in rows.ties() {
        above += weight;
        found += positive;
        let recall = found / positives;
        let level = |recall: f64| (recall * POINTS as f64 + 1e-9) as usize;
        let last = curve.last().map_or(0.0, |point| point[0]);
        if positive > 0.0 && level(recall) > level(last) {
            curve.push([recall, found / above]);
        }
    }
    curve
}

/// Weight of the positives and of the negatives.
fn totals(rows: &Rows) -> (f64, f64) {
    rows.ties()
        .fold((0.0, 0.0), |(positives, negatives), (weight, positive)| {
            (positives + positive, negatives + weight - positive)
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Area under a polyline.
    fn area(curve: &[[f64; 2]]) -> f64 {
        curve
            .windows(2)
            .map(|two| (two[1][0] - two[0][0]) * (two[0][1] + two[1][1]) / 2.0)
            .sum()
    }

    #[test]
    fn one_class_has_no_curve() {
        for label in [true, false] {
            let rows = Rows::new([(0.1, label, 1.0), (0.7, label, 1.0)]);
            assert!(roc(&rows).is_empty());
            assert_eq!(precision_recall(&rows).is_empty(), !label);
        }
        assert!(roc(&Rows::new([])).is_empty());
    }

    #[test]
    fn probabilities_of_one_belong_to_the_last_bin() {
        let drawing = Drawing::new(
            &[],
            &AlarmRule::new(
                0.5,
                Duration::ZERO,
                &crate::labels::FailureRules {
                    step: Duration::from_secs(60),
                    min_duration: Duration::ZERO,
                    merge_gap: Duration::ZERO,
                    recovery: Duration::ZERO,
                    horizon: Duration::from_secs(1800),
                },
            ),
            Curves::default(),
            [(1.0, true), (0.0, false), (0.049, false), (0.05, true)].into_iter(),
        );
        assert_eq!(drawing.histogram[0], [2, 0]);
        assert_eq!(drawing.histogram[1], [0, 1]);
        assert_eq!(drawing.histogram[HISTOGRAM_BINS - 1], [0, 1]);
    }

    proptest! {
        #[test]
        fn thinned_curves_stay_near_the_measures_they_show(
            drawn in prop::collection::vec((0u16..2000, prop::bool::ANY), 2..3000),
        ) {
            let rows = Rows::new(drawn.iter().map(|(s, y)| (f64::from(*s) / 2000.0, *y, 1.0)));
            let (roc, pr) = (roc(&rows), precision_recall(&rows));
            prop_assert!(roc.len() <= POINTS && pr.len() <= POINTS, "{} {}", roc.len(), pr.len());
            if let Some(auc) = rows.roc_auc() {
                prop_assert!((area(&roc) - auc).abs() < 0.01, "{} {auc}", area(&roc));
                prop_assert_eq!(pr[pr.len() - 1][0], 1.0);
            }
            prop_assert!(roc.is_sorted_by(|a, b| a[0] <= b[0] && a[1] <= b[1]));
            prop_assert!(pr.is_sorted_by(|a, b| a[0] < b[0]));
        }
    }
}
