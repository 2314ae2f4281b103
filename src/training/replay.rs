//! A history replayed through the serving path: a feature row and a label for every grid point.

use std::collections::HashMap;
use std::time::Duration;

use rayon::prelude::*;

use super::{Plan, Progress};
use crate::evaluation::baselines::{self, Prior, RawSeries};
use crate::evaluation::curves::Reliability;
use crate::evaluation::{self, Evaluation, Input, Rows, Scores, Track};
use crate::history::{History, TargetHistory};
use crate::labels::{self, Phase, RowLabel};
use crate::model::{Ensemble, Matrix, Score};
use crate::surrogate;
use crate::time::Timestamp;
use crate::tracker::Tracker;
use crate::types::{FailureMode, Incident, ServeMember, TargetId, TargetState};

/// A history replayed: a feature row for every grid point at which a target could be scored.
pub struct Replay {
    pub targets: Vec<TargetRows>,
    pub features: Matrix,
    pub(super) start: Timestamp,
    pub(super) step: Duration,
    pub(super) steps: usize,
}

pub struct TargetRows {
    pub target: TargetId,
    /// Label of every grid point.
    pub labels: Vec<RowLabel>,
    /// Row of every grid point in [`Replay::features`].
    pub rows: Vec<Option<usize>>,
    pub incidents: Vec<Incident>,
    /// When somebody acted on it.
    pub actions: Vec<Timestamp>,
}

/// Targets replayed at a time.
const BATCH: usize = 16;

/// Replays a history through the serving path and labels every grid point.
pub fn replay(history: &History, plan: &Plan, progress: Progress) -> Replay {
    let times: Vec<Timestamp> = history.times().collect();
    let done = std::sync::atomic::AtomicUsize::new(0);
    let replay_one = |&(target, recorded): &(&TargetId, &TargetHistory)| {
        let mut tracker = Tracker::new(&plan.catalogue, plan.rules, plan.limits);
        let mut phases = Vec::with_capacity(times.len());
        let mut rows = Vec::with_capacity(times.len());
        let mut features = Vec::new();
        let mut row = vec![f32::NAN; plan.catalogue.len()];
        for (i, &t) in times.iter().enumerate() {
            tracker.push(
                t,
                recorded.samples(i),
                recorded.steps[i].failing.is_some(),
                recorded.steps[i].excluded,
            );
            // Maintenance is nobody's failure and nobody's health.
            phases.push(if recorded.steps[i].excluded {
                Phase::Recovering
            } else {
                tracker.phase()
            });
            rows.push((tracker.state() == TargetState::Ok).then(|| {
                plan.catalogue.compute(tracker.window(), t, &mut row);
                features.extend_from_slice(&row);
                features.len() / row.len() - 1
            }));
        }
        let incidents = tracker.incidents().to_vec();
        // Of a target that vanished nobody knows how it went on.
        let last_seen = recorded.steps.iter().rposition(|step| step.seen);
        let observed_until = times[last_seen.unwrap_or(0)];
        let acted = times.iter().zip(&recorded.steps);
        let actions: Vec<Timestamp> = acted
            .filter(|(_, step)| step.acted)
            .map(|(t, _)| *t)
            .collect();
        let labels = labels::label_rows(
            &times,
            &incidents,
            &phases,
            &actions,
            &plan.rules,
            observed_until,
        );
        let finished = 1 + done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        progress("features", finished as f64 / history.len() as f64);
        let target = TargetRows {
            target: (*target).clone(),
            labels,
            rows,
            incidents,
            actions,
        };
        (target, features)
    };

    let mut features = Matrix::new(plan.catalogue.len());
    let mut targets = Vec::with_capacity(history.len());
    let recorded = history.targets();
    // In batches, so that the rows are in memory once and not twice.
    for batch in recorded.chunks(BATCH) {
        let replayed: Vec<(TargetRows, Vec<f32>)> = batch.par_iter().map(replay_one).collect();
        for (mut target, data) in replayed {
            let offset = features.rows();
            target
                .rows
                .iter_mut()
                .flatten()
                .for_each(|row| *row += offset);
            features.data.extend_from_slice(&data);
            targets.push(target);
        }
    }
    Replay {
        targets,
        features,
        start: history.time(0),
        step: history.step(),
        steps: history.steps(),
    }
}

impl Replay {
    pub fn time(&self, index: usize) -> Timestamp {
        Timestamp(self.start.0 + index as i64 * crate::time::millis(self.step))
    }

    /// Labelled rows of the grid points `from..until` in the order of time, for the targets (by position) that are wanted: row, label.
    pub(super) fn labelled(
        &self,
        from: usize,
        until: usize,
        wanted: &dyn Fn(usize) -> bool,
    ) -> Vec<(usize, bool)> {
        let mut rows: Vec<(usize, usize, bool)> = Vec::new();
        let targets = self.targets.iter().enumerate();
        for (order, target) in targets.filter(|(order, _)| wanted(*order)) {
            for i in from..until.min(self.steps) {
                if let (Some(row), RowLabel::Positive | RowLabel::Negative) =
                    (target.rows[i], target.labels[i])
                {
                    rows.push((
                        i * self.targets.len() + order,
                        row,
                        target.labels[i] == RowLabel::Positive,
                    ));
                }
            }
        }
        rows.sort_unstable();
        rows.into_iter()
            .map(|(_, row, label)| (row, label))
            .collect()
    }

    pub(super) fn incidents(&self, from: usize, until: usize) -> usize {
        let (from, until) = (self.time(from), self.time(until));
        let starts = self.targets.iter().flat_map(|t| &t.incidents);
        starts
            .filter(|i| i.start >= from && i.start < until)
            .count()
    }

    /// The grid points `from..until` of every target as the event-level evaluation wants them.
    pub fn tracks(
        &self,
        from: usize,
        until: usize,
        score: impl Fn(usize) -> f64 + Sync,
    ) -> Vec<Track> {
        let until = until.min(self.steps);
        self.targets
            .par_iter()
            .map(|target| Track {
                target: target.target.clone(),
                times: (from..until).map(|i| self.time(i)).collect(),
                scores: (from..until)
                    .map(|i| target.rows[i].map(|row| score(row) as f32))
                    .collect(),
                labels: target.labels[from..until].to_vec(),
                incidents: target.incidents.clone(),
                actions: target.actions.clone(),
            })
            .collect()
    }

    /// The event-level report of the grid points `from..until`, with members and baselines beside the ensemble.
    pub fn evaluate(
        &self,
        history: &History,
        plan: &Plan,
        (from, until): (usize, usize),
        scores: &[Score],
        prior: &Prior,
        threshold: Option<f64>,
    ) -> Evaluation {
        let tracks = self.tracks(from, until, |row| scores[row].ensemble);
        let members: Vec<(&str, Scores)> = [
            ServeMember::Xgboost,
            ServeMember::RandomForest,
            ServeMember::LogisticRegression,
        ]
        .into_iter()
        .filter(|&member| scores.iter().all(|score| score.of(member).is_some()))
        .map(|member| {
            let tracks = self.tracks(from, until, |row| scores[row].served(member));
            (
                member.name(),
                tracks.into_iter().map(|track| track.scores).collect(),
            )
        })
        .collect();
        let signals = plan.catalogue.signals();
        let raw: HashMap<TargetId, RawSeries> = history
            .targets()
            .into_iter()
            .map(|(target, recorded)| {
                let columns = (0..signals.len())
                    .map(|s| recorded.column(s).to_vec())
                    .collect();
                (
                    target.clone(),
                    RawSeries {
                        start: self.start,
                        columns,
                    },
                )
            })
            .collect();
        let baselines = baselines::all(&tracks, signals, &raw, prior, &plan.rules, plan.fit.seed);
        let mode = |target: &TargetId, incident: &Incident| {
            let known = history.failure_mode(target, incident.start);
            known.map_or("unknown", FailureMode::name).to_string()
        };
        let modes: Vec<Vec<String>> = tracks
            .iter()
            .map(|track| {
                let incidents = track.incidents.iter();
                incidents.map(|one| mode(&track.target, one)).collect()
            })
            .collect();
        let compared: Vec<_> = (history.compared().iter().enumerate())
            .map(|(i, name)| {
                baselines::compared(name, &tracks, |target, t| {
                    let recorded = history.target(target);
                    let index = history.index(t);
                    recorded
                        .zip(index)
                        .map_or(f32::NAN, |(one, index)| one.compared(i)[index])
                })
            })
            .collect();
        evaluation::evaluate(&Input {
            tracks: &tracks,
            members: &members,
            modes: &modes,
            baselines: &baselines,
            compared: &compared,
            rules: &plan.rules,
            for_: plan.alert_for,
            threshold,
            budget: evaluation::per_target_week(plan.false_alarms_per_week, self.targets.len()),
            seed: plan.fit.seed,
        })
    }

    /// How the labelled rows of the grid points `from..until` fare before calibration.
    pub fn uncalibrated(&self, (from, until): (usize, usize), model: &Ensemble) -> Reliability {
        let (rows, labels): (Vec<usize>, Vec<bool>) =
            self.labelled(from, until, &|_| true).into_iter().unzip();
        let columns: Vec<usize> = (0..self.features.columns).collect();
        let scores = model.uncalibrated_rows(&self.features.select_rows(rows, &columns));
        let judged = scores.into_iter().zip(labels);
        Reliability::new(&Rows::new(judged.map(|(score, label)| (score, label, 1.0))))
    }

    /// A few rules that come near the ensemble's alarms; `None` where there are none.
    pub fn surrogate(
        &self,
        plan: &Plan,
        scores: &[Score],
        threshold: Option<f64>,
    ) -> Option<String> {
        let scores: Vec<f64> = scores.iter().map(|score| score.ensemble).collect();
        surrogate::rules(&self.features, &plan.catalogue.names(), &scores, threshold?)
    }

    /// Grid index of every row.
    pub(super) fn grid_indices(&self) -> Vec<usize> {
        let mut index = vec![0; self.features.rows()];
        for target in &self.targets {
            for (i, row) in target.rows.iter().enumerate() {
                if let Some(row) = row {
                    index[*row] = i;
                }
            }
        }
        index
    }
}
