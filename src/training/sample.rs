//! Which rows are fitted: slices of time, folds inside the first, and a sample of the negatives.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Plan, Progress, Replay, TrainError};
use crate::model::{self, FitError, FitParams, Fitted, Fold, Split, TrainingSet};

/// Bounds of the slices, as grid indices: fit `0..fit`, calibrate `calibrate.0..calibrate.1`, test `test..`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slices {
    pub(super) fit: usize,
    pub(super) calibrate: (usize, usize),
    pub(super) test: usize,
    pub(super) embargo: usize,
}

impl Slices {
    /// What a grid point is for.
    pub(super) fn name(&self, index: usize) -> &'static str {
        match index {
            i if i < self.fit => "fit",
            i if (self.calibrate.0..self.calibrate.1).contains(&i) => "calibrate",
            i if i >= self.test => "test",
            _ => "embargo",
        }
    }

    /// 60 % to fit, 20 % to calibrate and choose the threshold, 20 % to test; an embargo of horizon + lookback between.
    pub(super) fn new(steps: usize, plan: &Plan) -> Result<Self, TrainError> {
        let step = plan.catalogue.step();
        let horizon = plan.rules.horizon.as_millis().div_ceil(step.as_millis()) as usize;
        let embargo = horizon + plan.catalogue.lookback();
        check_length(step * steps as u32, plan)?;
        let (fit, calibrate) = (steps * 6 / 10, steps * 8 / 10);
        Ok(Self {
            fit,
            calibrate: (fit + embargo, calibrate),
            test: calibrate + embargo,
            embargo,
        })
    }
}

/// The shortest range that has room for the slices and their embargoes.
pub fn shortest(plan: &Plan) -> Duration {
    let step = plan.catalogue.step();
    let horizon = plan.rules.horizon.as_millis().div_ceil(step.as_millis()) as u32;
    step * 10 * (horizon + plan.catalogue.lookback() as u32)
}

/// Refuses a range that has no room for the slices.
pub fn check_length(range: Duration, plan: &Plan) -> Result<(), TrainError> {
    let needed = shortest(plan);
    if range >= needed {
        return Ok(());
    }
    let lookback = plan.catalogue.step() * plan.catalogue.lookback() as u32;
    Err(TrainError::TooShort {
        have: range,
        horizon: needed / 10 - lookback,
        lookback,
    })
}

/// Rows to fit and calibrate on, with the weights that undo the sampling of negatives.
pub(super) struct Sample {
    pub(super) rows: Vec<usize>,
    pub(super) labels: Vec<bool>,
    pub(super) weights: Vec<f32>,
    pub(super) split: Split,
}

impl Sample {
    /// Of the targets (by position) that are wanted.
    pub(super) fn draw(
        replay: &Replay,
        slices: &Slices,
        plan: &Plan,
        wanted: &dyn Fn(usize) -> bool,
    ) -> Self {
        let fit = replay.labelled(0, slices.fit, wanted);
        let positives = fit.iter().filter(|(_, label)| *label).count();
        let negatives = fit.len() - positives;
        let kept = plan.max_rows.saturating_sub(positives).max(positives);
        let keep = (kept as f64 / negatives.max(1) as f64).min(1.0);
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
        for (row, label) in replay.labelled(slices.calibrate.0, slices.calibrate.1, wanted) {
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

    /// Fits an ensemble over all features, levels apart.
    pub(super) fn fit_full(
        &self,
        replay: &Replay,
        plan: &Plan,
        params: &FitParams,
        progress: Progress,
    ) -> Result<Fitted, FitError> {
        let columns: Vec<usize> = (0..plan.catalogue.len()).collect();
        let levels = plan.catalogue.level_columns();
        self.fit(replay, &columns, &levels, plan, params, progress)
    }

    /// Fits an ensemble over those that a body without history has.
    pub(super) fn fit_snapshot(
        &self,
        replay: &Replay,
        plan: &Plan,
        params: &FitParams,
        progress: Progress,
    ) -> Result<Fitted, FitError> {
        let columns = plan.catalogue.snapshot_columns();
        self.fit(replay, &columns, &[], plan, params, progress)
    }

    /// No split and no weight falls to `hidden` columns.
    fn fit(
        &self,
        replay: &Replay,
        columns: &[usize],
        hidden: &[usize],
        plan: &Plan,
        params: &FitParams,
        progress: Progress,
    ) -> Result<Fitted, FitError> {
        let mut features = replay
            .features
            .select_rows(self.rows.iter().copied(), columns);
        for row in features.data.chunks_exact_mut(columns.len()) {
            hidden.iter().for_each(|column| row[*column] = f32::NAN);
        }
        let inputs: Vec<Vec<usize>> = columns
            .iter()
            .map(|&c| plan.catalogue.inputs_of(c).to_vec())
            .collect();
        let set = TrainingSet {
            features: &features,
            labels: &self.labels,
            weights: &self.weights,
            inputs: &inputs,
        };
        model::fit(&set, &self.split, params, progress)
    }
}
