//! From recorded history to a fitted, calibrated, evaluated ensemble. Pure:
//! the same history and seed give the same bytes on any number of threads.

mod dataset;
mod facts;
mod held_out;
mod reference;
mod replay;
mod sample;

use std::time::Duration;

pub use dataset::{Dataset, DatasetRow};
pub use facts::LabelReport;
pub use held_out::HeldOut;
pub use replay::{Replay, TargetRows, replay};
pub use sample::{check_length, shortest};

use crate::drift::Reference;
use crate::evaluation::baselines::Prior;
use crate::evaluation::{self, AlarmRule, EnsembleReport, Evaluation, Rows};
use crate::features::Catalogue;
use crate::history::History;
use crate::labels::FailureRules;
use crate::model::{self, Ensemble, FitError, FitParams, Fitted, Score, TreeModel, Trial};
use crate::time::format_duration;
use crate::tracker::Limits;
use held_out::held_out;
use sample::{Sample, Slices};

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
        "the range of {} is too short, it must be {} at least. Of its parts (60 % to fit, 20 % to calibrate, 20 % to test) the two later ones begin with a gap \
         of horizon + lookback = {} + {} = {}, so that none knows of the one before, and must be twice as long as that: {}. 20 % of {} are {}. \
         Begin earlier (--start, train.range), or wait until Prometheus has that much history; models/default answers meanwhile",
        format_duration(*.have), format_duration(10 * (*.horizon + *.lookback)), format_duration(*.horizon), format_duration(*.lookback),
        format_duration(*.horizon + *.lookback), format_duration(2 * (*.horizon + *.lookback)), format_duration(*.have), format_duration(*.have / 5)
    )]
    TooShort {
        have: Duration,
        horizon: Duration,
        lookback: Duration,
    },
    #[error(transparent)]
    Fit(#[from] FitError),
}

pub struct Trained {
    pub full: Ensemble,
    pub snapshot: Ensemble,
    /// What the folds said of imbalance methods and parameters.
    pub trials: Vec<Trial>,
    /// `None` when no threshold keeps within the budget: nothing is to be paged then.
    pub threshold: Option<f64>,
    pub false_alarms_per_target_week: f64,
    /// What the baselines learned.
    pub prior: Prior,
    /// What the rows that were fitted and calibrated on were like.
    pub reference: Reference,
    pub evaluation: Evaluation,
    /// The ensemble for bodies without history, on the same test rows.
    pub snapshot_quality: EnsembleReport,
    /// How it does on targets that it has not learned from.
    pub held_out: Option<HeldOut>,
    /// A few rules that come near the ensemble's alarms.
    pub surrogate: Option<String>,
    /// Grid points of the test slice.
    pub test: (usize, usize),
    /// Of every row of the replay.
    pub scores: Vec<Score>,
}

/// Below this many incidents in a slice nothing is fitted; below the second one `train` warns.
pub const MIN_INCIDENTS: usize = 3;
pub const FEW_INCIDENTS: usize = 10;

/// Fits, calibrates, chooses the threshold and evaluates on the last slice, which nothing else has seen.
pub fn train(
    history: &History,
    replay: &Replay,
    plan: &Plan,
    force: bool,
    progress: Progress,
) -> Result<Trained, TrainError> {
    let slices = slices(replay, plan, force)?;
    let sample = Sample::draw(replay, &slices, plan, &|_| true);
    let Fitted {
        ensemble: full,
        params,
        trials,
    } = sample.fit_full(replay, plan, &plan.fit, &|stage, share| {
        progress(&format!("full: {stage}"), share)
    })?;
    let params = FitParams {
        search: false,
        ..params
    };
    let snapshot = fit_snapshot(&sample, replay, plan, &params, progress)?;
    let fitted = (full, snapshot);
    let hidden = plan.catalogue.level_columns();
    let trained = finish(history, replay, plan, &slices, fitted, &hidden, progress);
    let held_out = held_out(replay, &slices, plan, &params, &trained.scores, progress);
    Ok(Trained {
        trials,
        held_out,
        ..trained
    })
}

/// The same with boosted trees that were fitted elsewhere: they are calibrated, given their threshold and
/// evaluated as those of [`train`] are. What answers bodies without history is fitted here.
pub fn import(
    history: &History,
    replay: &Replay,
    plan: &Plan,
    xgboost: TreeModel,
    force: bool,
    progress: Progress,
) -> Result<Trained, TrainError> {
    let slices = slices(replay, plan, force)?;
    let (from, until) = slices.calibrate;
    let (rows, labels): (Vec<usize>, Vec<bool>) =
        replay.labelled(from, until, &|_| true).into_iter().unzip();
    let columns: Vec<usize> = (0..plan.catalogue.len()).collect();
    let full = model::adopt(
        xgboost,
        &replay.features.select_rows(rows, &columns),
        &labels,
    )?;
    let sample = Sample::draw(replay, &slices, plan, &|_| true);
    let params = FitParams {
        search: false,
        ..plan.fit.clone()
    };
    let snapshot = fit_snapshot(&sample, replay, plan, &params, progress)?;
    let fitted = (full, snapshot);
    Ok(finish(
        history,
        replay,
        plan,
        &slices,
        fitted,
        &[],
        progress,
    ))
}

/// The slices of time, with enough incidents in those that are learned from.
fn slices(replay: &Replay, plan: &Plan, force: bool) -> Result<Slices, TrainError> {
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
    Ok(slices)
}

fn fit_snapshot(
    sample: &Sample,
    replay: &Replay,
    plan: &Plan,
    params: &FitParams,
    progress: Progress,
) -> Result<Ensemble, FitError> {
    let fitted = sample.fit_snapshot(replay, plan, params, &|stage, share| {
        progress(&format!("snapshot: {stage}"), share)
    })?;
    Ok(fitted.ensemble)
}

/// Chooses the threshold of calibrated ensembles (over all features but the hidden ones, and over those of a body without
/// history) and evaluates them on the last slice.
fn finish(
    history: &History,
    replay: &Replay,
    plan: &Plan,
    slices: &Slices,
    (full, snapshot): (Ensemble, Ensemble),
    hidden: &[usize],
    progress: Progress,
) -> Trained {
    progress("evaluation", 0.0);
    let scores = full.score_rows(&replay.features);
    let budget = evaluation::per_target_week(plan.false_alarms_per_week, replay.targets.len());
    let calibration = replay.tracks(slices.calibrate.0, slices.calibrate.1, |row| {
        scores[row].ensemble
    });
    let rule = AlarmRule::new(f64::INFINITY, plan.alert_for, &plan.rules);
    let threshold = evaluation::threshold_within_budget(&calibration, &rule, budget);
    progress("evaluation", 0.2);

    let labels = replay.labelled(0, slices.calibrate.1, &|_| true);
    let index = replay.grid_indices();
    let prior = Prior::learn(
        labels
            .iter()
            .map(|&(row, label)| (replay.time(index[row]), label)),
    );
    let reference = replay.reference(plan, slices.calibrate.1, hidden);
    let test = (slices.test, replay.steps);
    let mut evaluation = replay.evaluate(history, plan, test, &scores, &prior, threshold);
    evaluation.ensemble.uncalibrated = Some(replay.uncalibrated(test, &full));
    progress("evaluation", 0.9);

    let (rows, labels): (Vec<usize>, Vec<bool>) = replay
        .labelled(test.0, test.1, &|_| true)
        .into_iter()
        .unzip();
    let snapshot_columns = plan.catalogue.snapshot_columns();
    let snapshot_scores =
        snapshot.score_rows(&replay.features.select_rows(rows, &snapshot_columns));
    let judged = snapshot_scores
        .iter()
        .zip(&labels)
        .map(|(score, &label)| (score.ensemble, label, 1.0));
    let snapshot_quality = EnsembleReport::new(&Rows::new(judged));
    let surrogate = replay.surrogate(plan, &scores, threshold);
    progress("evaluation", 1.0);
    Trained {
        surrogate,
        full,
        snapshot,
        threshold,
        false_alarms_per_target_week: budget,
        prior,
        reference,
        evaluation,
        snapshot_quality,
        test,
        scores,
        trials: Vec::new(),
        held_out: None,
    }
}
