//! What an evaluation leaves out: which features moved the scores, and the alarms and incidents that went wrong.

use rayon::prelude::*;

use crate::assessment::Reason;
use crate::bundle::{Bundle, IMPORTANCE_ROWS};
use crate::evaluation::events::Scored;
use crate::evaluation::{AlarmRule, Outcome};
use crate::history::History;
use crate::labels::RowLabel;
use crate::model::Score;
use crate::time::{Timestamp, millis};
use crate::training::{Plan, Replay, TargetRows};
use crate::types::Signal;

/// Cases shown of each kind.
pub const CASES: usize = 6;
/// Signals drawn of a case.
const SIGNALS: usize = 4;
/// Reasons given for a case.
const REASONS: usize = 5;
/// A case is drawn from so many horizons before it.
pub const HORIZONS_BEFORE: u32 = 6;
/// Points of a drawn series.
const POINTS: usize = 240;

#[derive(Clone, Debug, Default)]
pub struct Review {
    /// Mean size of each feature's SHAP value of the stack's log-odds, largest first.
    pub shap: Vec<(String, f64)>,
    /// Rows that those means are taken over.
    pub explained_rows: usize,
    /// The highest scores first.
    pub false_alarms: Vec<Case>,
    /// Spread from the one nearest to an alarm to the one furthest from it.
    pub missed: Vec<Case>,
    pub missed_total: usize,
}

/// An alarm that nothing followed, or an incident that no alarm covered.
#[derive(Clone, Debug)]
pub struct Case {
    pub target: String,
    /// Opening of the alarm, or start of the incident.
    pub at: Timestamp,
    /// At the opening, or the highest within the horizon before the incident; `None` when there was none.
    pub probability: Option<f64>,
    /// The row that the probability and the reasons are of.
    pub seen_at: Timestamp,
    /// Strongest first.
    pub reasons: Vec<Reason>,
    /// Seconds from `at` to the first and last point that are drawn.
    pub span: (f64, f64),
    /// Seconds from `at` and probability; NaN where there is none.
    pub probabilities: Vec<[f64; 2]>,
    pub signals: Vec<(Signal, Vec<[f64; 2]>)>,
    /// Seconds from `at` to the openings of alarms.
    pub alarms: Vec<f64>,
    /// Seconds from `at` to start and end of incidents.
    pub incidents: Vec<[f64; 2]>,
}

/// Looks at the grid points `from..until`, at the model's own threshold. `scores` are those of the replay's rows.
pub fn review(
    history: &History,
    replay: &Replay,
    plan: &Plan,
    (from, until): (usize, usize),
    scores: &[Score],
    bundle: &Bundle,
) -> Review {
    let (shap, explained_rows) = mean_shap(replay, (from, until), bundle);
    let reviewer = Reviewer {
        history,
        replay,
        plan,
        scores,
        bundle,
    };
    let tracks = replay.tracks(from, until, |row| scores[row].ensemble);
    let scored = Scored::own(&tracks);
    let threshold = bundle.manifest.threshold.alarming();
    let rule = AlarmRule::new(
        threshold.unwrap_or(f64::INFINITY),
        plan.alert_for,
        &plan.rules,
    );
    let replays: Vec<_> = scored.par_iter().map(|one| one.replay(&rule)).collect();

    // Target's place, instant, score.
    let mut false_alarms: Vec<(usize, Timestamp, f64)> = Vec::new();
    let mut missed: Vec<(usize, Timestamp, f64)> = Vec::new();
    for (place, replayed) in replays.iter().enumerate() {
        let wrong = replayed
            .alarms
            .iter()
            .filter(|(_, outcome)| *outcome == Some(Outcome::False));
        false_alarms.extend(wrong.map(|(alarm, _)| (place, alarm.opened, alarm.score)));
        let unseen = replayed.incidents.iter().filter(|(_, lead)| lead.is_none());
        missed.extend(unseen.map(|(start, _)| {
            let peak = reviewer.peak(&replay.targets[place], *start);
            (place, *start, peak.map_or(-1.0, |(_, score)| score))
        }));
    }
    for cases in [&mut false_alarms, &mut missed] {
        cases.sort_by(|a, b| b.2.total_cmp(&a.2).then((a.0, a.1).cmp(&(b.0, b.1))));
    }
    let openings = |place: usize| -> Vec<Timestamp> {
        let alarms = replays[place].alarms.iter();
        alarms.map(|(alarm, _)| alarm.opened).collect()
    };
    Review {
        shap,
        explained_rows,
        missed_total: missed.len(),
        false_alarms: false_alarms
            .iter()
            .take(CASES)
            .map(|&(place, at, score)| {
                let seen = Some((at, score));
                // An alarm is false when nothing came within two horizons.
                reviewer.case(&replay.targets[place], at, seen, openings(place), 2)
            })
            .collect(),
        missed: spread(missed.len())
            .map(|i| {
                let (place, at, _) = missed[i];
                let target = &replay.targets[place];
                reviewer.case(target, at, reviewer.peak(target, at), openings(place), 1)
            })
            .collect(),
    }
}

/// At most [`CASES`] places out of `count`, the first and the last among them.
fn spread(count: usize) -> impl Iterator<Item = usize> {
    let shown = count.min(CASES);
    (0..shown).map(move |i| i * (count - 1) / (shown - 1).max(1))
}

/// By feature, largest first, and the rows behind it: labelled ones, evenly spaced.
fn mean_shap(
    replay: &Replay,
    (from, until): (usize, usize),
    bundle: &Bundle,
) -> (Vec<(String, f64)>, usize) {
    let mut rows: Vec<usize> = Vec::new();
    for target in &replay.targets {
        let until = until.min(target.rows.len());
        let points = target.rows[from..until]
            .iter()
            .zip(&target.labels[from..until]);
        rows.extend(points.filter_map(|(row, label)| {
            row.filter(|_| matches!(label, RowLabel::Positive | RowLabel::Negative))
        }));
    }
    let every = rows.len().div_ceil(IMPORTANCE_ROWS).max(1);
    let columns: Vec<usize> = (0..bundle.catalogue.len()).collect();
    let rows = replay
        .features
        .select_rows(rows.into_iter().step_by(every), &columns);
    (bundle.shap().importance(&rows), rows.rows())
}

struct Reviewer<'a> {
    history: &'a History,
    replay: &'a Replay,
    plan: &'a Plan,
    scores: &'a [Score],
    bundle: &'a Bundle,
}

impl Reviewer<'_> {
    /// Grid points of `before` until `after` steps from an instant.
    fn grid(&self, at: Timestamp, before: i64, after: i64) -> std::ops::Range<usize> {
        let place = (at.0 - self.history.time(0).0).div_euclid(millis(self.history.step()));
        let steps = self.history.steps() as i64;
        let bound = |place: i64| place.clamp(0, steps) as usize;
        bound(place - before)..bound(place + after)
    }

    fn horizon(&self) -> i64 {
        millis(self.plan.rules.horizon) / millis(self.history.step())
    }

    /// The highest score within the horizon before an incident, and when.
    fn peak(&self, target: &TargetRows, start: Timestamp) -> Option<(Timestamp, f64)> {
        let points = self.grid(start, self.horizon(), 0);
        let scored = points.filter_map(|i| Some((i, self.scores[target.rows[i]?].ensemble)));
        scored
            .reduce(|best, one| if one.1 > best.1 { one } else { best })
            .map(|(i, score)| (self.history.time(i), score))
    }

    fn case(
        &self,
        target: &TargetRows,
        at: Timestamp,
        seen: Option<(Timestamp, f64)>,
        openings: Vec<Timestamp>,
        horizons_after: i64,
    ) -> Case {
        let seen_at = seen.map_or(at, |(seen_at, _)| seen_at);
        let row = self
            .grid(seen_at, 0, 1)
            .next()
            .and_then(|i| target.rows[i])
            .filter(|_| seen.is_some());
        let reasons = row.map_or_else(Vec::new, |row| {
            let features = self.replay.features.row(row);
            self.bundle.explain(features, true, REASONS)
        });
        let horizon = self.horizon();
        let grid = self.grid(
            at,
            i64::from(HORIZONS_BEFORE) * horizon,
            horizons_after * horizon + 1,
        );
        let seconds = |t: Timestamp| (t.0 - at.0) as f64 / 1000.0;
        let time = |i: usize| seconds(self.history.time(i));
        let probabilities: Vec<[f64; 2]> = grid
            .clone()
            .map(|i| {
                let probability = target.rows[i].map_or(f64::NAN, |row| self.scores[row].ensemble);
                [time(i), probability]
            })
            .collect();
        let recorded = self.history.target(&target.target);
        let signals = self
            .signals(&reasons)
            .into_iter()
            .map(|place| {
                let signal = self.bundle.catalogue.signals()[place].clone();
                let column = recorded.map_or(&[][..], |recorded| recorded.column(place));
                let points = grid
                    .clone()
                    .map(|i| [time(i), column.get(i).map_or(f64::NAN, |v| f64::from(*v))])
                    .collect();
                (signal, thinned(points))
            })
            .collect();
        let span = (
            grid.clone().next().map_or(0.0, time),
            grid.clone().next_back().map_or(0.0, time),
        );
        let within = |seconds: f64| (span.0..=span.1).contains(&seconds);
        let incidents = target.incidents.iter().map(|incident| {
            let end = incident.end.map_or(span.1, seconds);
            [seconds(incident.start).max(span.0), end.min(span.1)]
        });
        Case {
            target: target.target.to_string(),
            at,
            probability: seen.map(|(_, score)| score),
            seen_at,
            reasons,
            span,
            probabilities: thinned(probabilities),
            signals,
            alarms: openings
                .into_iter()
                .map(seconds)
                .filter(|at| within(*at))
                .collect(),
            incidents: incidents
                .filter(|[start, end]| start <= end && within(*start))
                .collect(),
        }
    }

    /// Places of the signals behind the reasons, strongest first; the first ones where no reason names any.
    fn signals(&self, reasons: &[Reason]) -> Vec<usize> {
        let catalogue = &self.bundle.catalogue;
        let mut places: Vec<usize> = Vec::new();
        let named = reasons
            .iter()
            .flat_map(|reason| catalogue.signals_of(&reason.feature));
        for name in named {
            let place = catalogue.signals().iter().position(|s| s.name == name);
            places.extend(place.filter(|place| !places.contains(place)));
        }
        if places.is_empty() {
            places.extend(0..catalogue.signals().len());
        }
        places.truncate(SIGNALS);
        places
    }
}

/// Of neighbouring points only the highest.
fn thinned(points: Vec<[f64; 2]>) -> Vec<[f64; 2]> {
    let together = points.len().div_ceil(POINTS).max(1);
    points
        .chunks(together)
        .map(|chunk| {
            let highest = chunk
                .iter()
                .filter(|point| !point[1].is_nan())
                .max_by(|a, b| a[1].total_cmp(&b[1]));
            *highest.unwrap_or(&chunk[0])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_holds_both_ends() {
        for (count, expected) in [
            (0, vec![]),
            (1, vec![0]),
            (2, vec![0, 1]),
            (6, vec![0, 1, 2, 3, 4, 5]),
            (11, vec![0, 2, 4, 6, 8, 10]),
        ] {
            assert_eq!(spread(count).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn thinning_keeps_peaks_and_gaps() {
        let point = |i: usize| [i as f64, if i == 301 { 9.0 } else { 1.0 }];
        let mut points: Vec<_> = (0..480).map(point).collect();
        points[10][1] = f64::NAN;
        points[11][1] = f64::NAN;
        let thin = thinned(points);
        assert_eq!(thin.len(), POINTS);
        assert!(thin[5][1].is_nan());
        assert_eq!(thin[150], [301.0, 9.0]);
    }
}
