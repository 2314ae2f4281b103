//! From recorded history to a fitted, calibrated, evaluated ensemble. Pure:
//! the same history and seed give the same bytes on any number of threads.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::Serialize;

use crate::evaluation::baselines::{self, Prior, RawSeries};
use crate::evaluation::{self, AlarmRule, EnsembleReport, Evaluation, Input, Rows, Scores, Track};
use crate::features::Catalogue;
use crate::history::{History, TargetHistory};
use crate::labels::{self, FailureRules, Phase, RowLabel};
use crate::model::{self, Ensemble, FitError, FitParams, Fold, Matrix, Score, Split, TrainingSet};
use crate::surrogate;
use crate::time::Timestamp;
use crate::tracker::{Limits, Tracker};
use crate::types::{Incident, ServeMember, TargetId, TargetState};

/// Reports a stage's name and the share of it that is done.
pub type Progress<'a> = &'a (dyn Fn(&str, f64) + Sync);

/// Everything that decides what a history is turned into.
#[derive(Clone, Debug)]
pub struct Plan {
    pub catalogue: Catalogue,
    pub rules: FailureRules,
    pub limits: Limits,
    pub fit: FitParams,
    pub max_rows: usize,
    pub folds: usize,
    /// For the whole fleet.
    pub false_alarms_per_week: f64,
    /// The alert rule's own `for`.
    pub alert_for: Duration,
}

/// A history replayed: a feature row for every grid point at which a target could be scored.
pub struct Replay {
    pub targets: Vec<TargetRows>,
    pub features: Matrix,
    start: Timestamp,
    step: Duration,
    steps: usize,
}

pub struct TargetRows {
    pub target: TargetId,
    /// Label of every grid point.
    pub labels: Vec<RowLabel>,
    /// Row of every grid point in [`Replay::features`].
    pub rows: Vec<Option<usize>>,
    pub incidents: Vec<Incident>,
}

/// What there is to learn from, shown before anything is fitted.
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

#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error(
        "no target has a sample in the range: check the signals' queries with `forewarn check queries`"
    )]
    NoTargets,
    #[error(
        "{found} incidents are too few to learn from (at least {needed} in the {part}): widen train.range, choose another failure definition, or start with the shipped model"
    )]
    TooFewIncidents {
        found: usize,
        needed: usize,
        part: &'static str,
    },
    #[error(
        "the range of {have} is too short: with a horizon of {horizon} and features that look {lookback} back it must be {needed} at least"
    )]
    TooShort {
        have: String,
        horizon: String,
        lookback: String,
        needed: String,
    },
    #[error(transparent)]
    Fit(#[from] FitError),
}

pub struct Trained {
    pub full: Ensemble,
    pub snapshot: Ensemble,
    /// `None` when no threshold keeps within the budget: nothing is to be paged then.
    pub threshold: Option<f64>,
    pub false_alarms_per_target_week: f64,
    /// What the baselines learned.
    pub prior: Prior,
    pub evaluation: Evaluation,
    /// The ensemble for bodies without history, on the same test rows.
    pub snapshot_quality: EnsembleReport,
    /// A few rules that come near the ensemble's alarms.
    pub surrogate: Option<String>,
}

/// Below this many incidents in a slice nothing is fitted; below the second one `train` warns.
pub const MIN_INCIDENTS: usize = 3;
pub const FEW_INCIDENTS: usize = 10;

/// Targets replayed at a time.
const BATCH: usize = 16;

/// Replays a history through the serving path and labels every grid point.
pub fn replay(history: &History, plan: &Plan, progress: Progress) -> Replay {
    let times: Vec<Timestamp> = history.times().collect();
    let done = std::sync::atomic::AtomicUsize::new(0);
    let replay_one = |(target, recorded): &(&TargetId, &TargetHistory)| {
        let mut tracker = Tracker::new(&plan.catalogue, plan.rules, plan.limits);
        let mut phases = Vec::with_capacity(times.len());
        let mut rows = Vec::with_capacity(times.len());
        let mut features = Vec::new();
        let mut row = vec![f32::NAN; plan.catalogue.len()];
        for (i, &t) in times.iter().enumerate() {
            tracker.push(
                t,
                recorded.samples(i),
                recorded.failing[i].is_some(),
                recorded.excluded[i],
            );
            // Maintenance is nobody's failure and nobody's health.
            phases.push(if recorded.excluded[i] {
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
        let last_seen = recorded.seen.iter().rposition(|seen| *seen);
        let observed_until = times[last_seen.unwrap_or(0)];
        let labels = labels::label_rows(&times, &incidents, &phases, &plan.rules, observed_until);
        let finished = 1 + done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        progress("features", finished as f64 / history.targets().len() as f64);
        let target = TargetRows {
            target: (*target).clone(),
            labels,
            rows,
            incidents,
        };
        (target, features)
    };

    let mut features = Matrix::new(plan.catalogue.len());
    let mut targets = Vec::with_capacity(history.targets().len());
    let recorded: Vec<_> = history.targets().iter().collect();
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
    fn time(&self, index: usize) -> Timestamp {
        Timestamp(self.start.0 + index as i64 * crate::time::millis(self.step))
    }

    /// Labelled rows of the grid points `from..until`: row, label.
    fn labelled(&self, from: usize, until: usize) -> Vec<(usize, bool)> {
        let mut rows: Vec<(usize, usize, bool)> = Vec::new();
        for (order, target) in self.targets.iter().enumerate() {
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

    fn incidents(&self, from: usize, until: usize) -> usize {
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
            })
            .collect()
    }

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

/// Bounds of the slices, as grid indices: fit `0..fit`, calibrate `calibrate.0..calibrate.1`, test `test..`.
#[derive(Clone, Copy, Debug)]
struct Slices {
    fit: usize,
    calibrate: (usize, usize),
    test: usize,
    embargo: usize,
}

impl Slices {
    /// 60 % to fit, 20 % to calibrate and choose the threshold, 20 % to test; an embargo of horizon + lookback between.
    fn new(steps: usize, plan: &Plan) -> Result<Self, TrainError> {
        let step = plan.catalogue.step();
        let horizon = plan.rules.horizon.as_millis().div_ceil(step.as_millis()) as usize;
        let embargo = horizon + plan.catalogue.lookback();
        if steps < 10 * embargo {
            let span = |n: usize| crate::time::format_duration(step * n as u32);
            return Err(TrainError::TooShort {
                have: span(steps),
                horizon: span(horizon),
                lookback: span(plan.catalogue.lookback()),
                needed: span(10 * embargo),
            });
        }
        let (fit, calibrate) = (steps * 6 / 10, steps * 8 / 10);
        Ok(Self {
            fit,
            calibrate: (fit + embargo, calibrate),
            test: calibrate + embargo,
            embargo,
        })
    }
}

/// Fits, calibrates, chooses the threshold and evaluates on the last slice, which nothing else has seen.
pub fn train(
    history: &History,
    replay: &Replay,
    plan: &Plan,
    force: bool,
    progress: Progress,
) -> Result<Trained, TrainError> {
    if replay.targets.is_empty() || replay.features.rows() == 0 {
        return Err(TrainError::NoTargets);
    }
    let slices = Slices::new(replay.steps, plan)?;
    for (part, from, until) in [
        ("first 60 % of the range", 0, slices.fit),
        ("calibration slice", slices.calibrate.0, slices.calibrate.1),
    ] {
        let found = replay.incidents(from, until);
        let needed = if force { 1 } else { MIN_INCIDENTS };
        if found < needed {
            return Err(TrainError::TooFewIncidents {
                found,
                needed,
                part,
            });
        }
    }

    let sample = Sample::draw(replay, &slices, plan);
    let full_columns: Vec<usize> = (0..plan.catalogue.len()).collect();
    let full = sample.fit(replay, &full_columns, plan, &|stage, share| {
        progress(&format!("full: {stage}"), share)
    })?;
    let snapshot_columns = plan.catalogue.snapshot_columns();
    let snapshot = sample.fit(replay, &snapshot_columns, plan, &|stage, share| {
        progress(&format!("snapshot: {stage}"), share)
    })?;

    progress("evaluation", 0.0);
    let scores = full.score_rows(&replay.features);
    let budget = evaluation::per_target_week(plan.false_alarms_per_week, replay.targets.len());
    let calibration = replay.tracks(slices.calibrate.0, slices.calibrate.1, |row| {
        scores[row].ensemble
    });
    let rule = AlarmRule::new(f64::INFINITY, plan.alert_for, &plan.rules);
    let threshold = evaluation::threshold_within_budget(&calibration, &rule, budget);
    progress("evaluation", 0.2);

    let labels = replay.labelled(0, slices.calibrate.1);
    let index = replay.grid_indices();
    let prior = Prior::learn(
        labels
            .iter()
            .map(|&(row, label)| (replay.time(index[row]), label)),
    );
    let evaluation = replay.evaluate(
        history,
        plan,
        (slices.test, replay.steps),
        &scores,
        &prior,
        threshold,
    );
    progress("evaluation", 0.9);

    let (rows, labels): (Vec<usize>, Vec<bool>) = replay
        .labelled(slices.test, replay.steps)
        .into_iter()
        .unzip();
    let snapshot_scores =
        snapshot.score_rows(&replay.features.select_rows(rows, &snapshot_columns));
    let judged = snapshot_scores
        .iter()
        .zip(&labels)
        .map(|(score, &label)| (score.ensemble, label, 1.0));
    let snapshot_quality = EnsembleReport::new(&Rows::new(judged));
    let surrogate = threshold.and_then(|threshold| {
        let scores: Vec<f64> = scores.iter().map(|score| score.ensemble).collect();
        surrogate::rules(
            &replay.features,
            &plan.catalogue.names(),
            &scores,
            threshold,
        )
    });
    progress("evaluation", 1.0);
    Ok(Trained {
        surrogate,
        full,
        snapshot,
        threshold,
        false_alarms_per_target_week: budget,
        prior,
        evaluation,
        snapshot_quality,
    })
}

impl Replay {
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
        .iter()
        .map(|&member| {
            let tracks = self.tracks(from, until, |row| scores[row].of(member));
            (
                member.name(),
                tracks.into_iter().map(|track| track.scores).collect(),
            )
        })
        .collect();
        let signals = plan.catalogue.signals();
        let raw: HashMap<TargetId, RawSeries> = history
            .targets()
            .iter()
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
        evaluation::evaluate(&Input {
            tracks: &tracks,
            members: &members,
            baselines: &baselines,
            rules: &plan.rules,
            for_: plan.alert_for,
            threshold,
            budget: evaluation::per_target_week(plan.false_alarms_per_week, self.targets.len()),
            seed: plan.fit.seed,
        })
    }
}

/// Rows to fit and calibrate on, with the weights that undo the sampling of negatives.
struct Sample {
    rows: Vec<usize>,
    labels: Vec<bool>,
    weights: Vec<f32>,
    split: Split,
}

impl Sample {
    fn draw(replay: &Replay, slices: &Slices, plan: &Plan) -> Self {
        let fit = replay.labelled(0, slices.fit);
        let positives = fit.iter().filter(|(_, label)| *label).count();
        let negatives = fit.len() - positives;
        let wanted = plan.max_rows.saturating_sub(positives).max(positives);
        let keep = (wanted as f64 / negatives.max(1) as f64).min(1.0);
        let mut rng = ChaCha8Rng::seed_from_u64(plan.fit.seed);
        let mut sample = Self {
            rows: Vec::new(),
            labels: Vec::new(),
            weights: Vec::new(),
            split: Split {
                folds: Vec::new(),
                fit: Vec::new(),
                calibrate: Vec::new(),
            },
        };
        for (row, label) in fit {
            if label || rng.random::<f64>() < keep {
                sample.push(row, label, if label { 1.0 } else { 1.0 / keep });
            }
        }
        let fitted = sample.rows.len();
        for (row, label) in replay.labelled(slices.calibrate.0, slices.calibrate.1) {
            sample.push(row, label, 1.0);
        }
        sample.split.fit = (0..fitted).collect();
        sample.split.calibrate = (fitted..sample.rows.len()).collect();
        sample.split.folds = sample.folds(replay, slices, plan.folds);
        sample
    }

    fn push(&mut self, row: usize, label: bool, weight: f64) {
        self.rows.push(row);
        self.labels.push(label);
        self.weights.push(weight as f32);
    }

    /// Expanding folds over the fit slice, an embargo between each fold's two parts.
    fn folds(&self, replay: &Replay, slices: &Slices, folds: usize) -> Vec<Fold> {
        let index = replay.grid_indices();
        let bound = |k: usize| slices.fit * (folds + k) / (2 * folds);
        let within = |from: usize, until: usize| -> Vec<usize> {
            self.split
                .fit
                .iter()
                .copied()
                .filter(|&i| (from..until).contains(&index[self.rows[i]]))
                .collect()
        };
        (0..folds)
            .map(|k| Fold {
                fit: within(0, bound(k).saturating_sub(slices.embargo)),
                validate: within(bound(k), bound(k + 1)),
            })
            .filter(|fold| {
                [&fold.fit, &fold.validate]
                    .iter()
                    .all(|rows| rows.iter().any(|&i| self.labels[i]))
            })
            .collect()
    }

    fn fit(
        &self,
        replay: &Replay,
        columns: &[usize],
        plan: &Plan,
        progress: Progress,
    ) -> Result<Ensemble, FitError> {
        let features = replay
            .features
            .select_rows(self.rows.iter().copied(), columns);
        let set = TrainingSet {
            features: &features,
            labels: &self.labels,
            weights: &self.weights,
        };
        model::fit(&set, &self.split, &plan.fit, progress)
    }
}

impl Replay {
    /// Grid index of every row.
    fn grid_indices(&self) -> Vec<usize> {
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
