//! Fits the members, chooses among a few parameters on time folds, stacks and calibrates.
//!
//! ```text
//! folds ─► scores of rows that their member had not seen ─► which imbalance and parameters, how many rounds
//!                                                        └─► stack
//! all rows to fit ─► members ─► scores of the calibration slice ─► calibration
//! ```

use std::borrow::Cow;

use rayon::prelude::*;
use serde::Serialize;

use super::bins::Bins;
use super::boosted::{self, Data};
use super::calibration::Calibration;
use super::ensemble::{BLOCK, Calibrations, Ensemble, Inputs, Members, Stack, share_logit};
use super::logistic::{self, Linear};
use super::newton;
use super::smote;
use super::subspace::{Subspace, stream};
use super::tree::MAX_COLUMNS;
use super::xgboost_json::TreeModel;
use super::{ForestParams, Imbalance, LogisticParams, Matrix, XgboostParams, forest};
use crate::evaluation::Rows;

/// Out-of-fold positives below which nothing is searched or stacked.
const STACK_POSITIVES: usize = 20;
/// Ridge of the stack over standardised inputs, against rows in the tens of thousands.
const STACK_RIDGE: f64 = 1.0;
/// What another choice must gain in average precision, relative to the present one: less is luck.
const SEARCH_MARGIN: f64 = 0.01;
/// Negatives for each positive under [`Imbalance::Downsample`].
const DOWNSAMPLE_RATIO: f64 = 10.0;
/// Base score of trees that add to log-odds.
const NO_ODDS: f32 = 0.5;
/// Random stream of the imbalance methods; trees use those from 0.
const IMBALANCE_STREAM: usize = usize::MAX;

/// Rows in time order. `weights` undo the sampling of negatives: with them the base rate is the true one.
pub struct TrainingSet<'a> {
    pub features: &'a Matrix,
    pub labels: &'a [bool],
    pub weights: &'a [f32],
    /// Signals that each column is computed from.
    pub inputs: &'a [Vec<usize>],
}

/// Row numbers, each list ascending.
pub struct Split {
    /// For stacking, within `fit`.
    pub folds: Vec<Fold>,
    pub fit: Vec<usize>,
    /// Later than `fit`.
    pub calibrate: Vec<usize>,
}

/// `validate` is later than `fit`.
pub struct Fold {
    pub fit: Vec<usize>,
    pub validate: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FitParams {
    pub xgboost: XgboostParams,
    pub random_forest: ForestParams,
    pub logistic_regression: LogisticParams,
    pub imbalance: Imbalance,
    /// Share of the signals that each tree sees.
    pub signals_per_tree: f64,
    /// Whether trees that see the calendar alone are added to the stack.
    pub calendar: bool,
    /// Whether to try a few neighbouring parameters, and the calendar, on the folds.
    pub search: bool,
    pub seed: u64,
}

/// Why no model could be fitted.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum FitError {
    #[error("there are no rows to {part}; widen the training range")]
    NoRows { part: &'static str },
    #[error(
        "the rows to {part} are of one class only ({positives} positives of {rows} rows with weight); widen the training range or check the failure queries"
    )]
    OneClass {
        part: &'static str,
        positives: usize,
        rows: usize,
    },
    #[error("weight {weight} of row {row} is not a finite number from 0")]
    Weight { row: usize, weight: f32 },
    #[error("every feature of every row is missing; check the signal queries")]
    AllMissing,
    #[error("{what}: found {found}, expected {expected}")]
    Shape {
        what: &'static str,
        found: usize,
        expected: String,
    },
}

/// An ensemble and how its parameters came about.
#[derive(Debug)]
pub struct Fitted {
    pub ensemble: Ensemble,
    /// With what was chosen.
    pub params: FitParams,
    /// In the order in which they were tried; empty without enough positives in the folds.
    pub trials: Vec<Trial>,
}

/// One choice of parameters, judged on the validation rows of all folds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trial {
    pub member: &'static str,
    pub choice: String,
    pub average_precision: f64,
    /// Whether it is what was fitted in the end.
    pub chosen: bool,
}

/// Fits all members on `split.fit`, the stack on what members fitted on the
/// folds say about rows they have not seen, and calibrates on `split.calibrate`.
/// `progress` is told a stage and the share of it that is done.
pub fn fit(
    set: &TrainingSet,
    split: &Split,
    params: &FitParams,
    progress: Progress,
) -> Result<Fitted, FitError> {
    check(set, split)?;
    let fitter = Fitter {
        set,
        bins: Bins::new(set.features, &split.fit),
        signals_per_tree: params.signals_per_tree,
        seed: params.seed,
    };
    let folds = Folds::new(&fitter, split);
    let Choice {
        params,
        rounds,
        stack,
        trials,
    } = match folds.positives() < STACK_POSITIVES {
        true => Choice::without_folds(params),
        false => folds.choose(params, progress),
    };

    let members = fitter.members(&split.fit, &params, rounds, progress);
    progress("calibration", 0.0);
    let inputs = fitter.inputs(&members, &split.calibrate);
    let labels: Vec<bool> = split.calibrate.iter().map(|row| set.labels[*row]).collect();
    let weights: Vec<f64> = split
        .calibrate
        .iter()
        .map(|row| f64::from(set.weights[*row]))
        .collect();
    let stack = stack.unwrap_or_else(|| equal_stack(&inputs));
    let calibrate = |score: &dyn Fn(&Inputs) -> f64| {
        Calibration::fit(
            &inputs.iter().map(score).collect::<Vec<_>>(),
            &labels,
            &weights,
        )
    };
    let calibrations = Calibrations {
        ensemble: calibrate(&|inputs| stack.at(inputs)),
        xgboost: calibrate(&|inputs| inputs[0]),
        random_forest: Some(calibrate(&|inputs| share_logit(inputs[1]))),
        logistic_regression: Some(calibrate(&|inputs| inputs[2])),
        stack,
    };
    progress("calibration", 1.0);
    Ok(Fitted {
        ensemble: Ensemble::new(set.features.columns, members, calibrations),
        params,
        trials,
    })
}

/// Boosted trees that were fitted elsewhere, calibrated on rows at the true base rate.
pub fn adopt(xgboost: TreeModel, features: &Matrix, labels: &[bool]) -> Result<Ensemble, FitError> {
    let weights = vec![1.0; labels.len()];
    let set = TrainingSet {
        features,
        labels,
        weights: &weights,
        inputs: &vec![Vec::new(); features.columns],
    };
    check_shape(&set)?;
    check_classes(&set, "calibrate", &(0..labels.len()).collect::<Vec<_>>())?;
    let scores = xgboost.block_scores(&features.data, features.columns);
    let calibration = Calibration::fit(&scores, labels, &vec![1.0; labels.len()]);
    Ok(Ensemble::new(
        features.columns,
        Members {
            xgboost,
            random_forest: None,
            logistic_regression: None,
            calendar: None,
        },
        Calibrations {
            stack: Stack::XGBOOST,
            ensemble: calibration.clone(),
            xgboost: calibration,
            random_forest: None,
            logistic_regression: None,
        },
    ))
}

type Progress<'a> = &'a (dyn Fn(&str, f64) + Sync);

struct Fitter<'a> {
    set: &'a TrainingSet<'a>,
    bins: Bins,
    signals_per_tree: f64,
    seed: u64,
}

/// What the tree members of one fit see: the set itself, or one with synthetic rows at its end.
struct Prepared<'a> {
    features: Cow<'a, Matrix>,
    bins: Cow<'a, Bins>,
    labels: Cow<'a, [bool]>,
    /// Class weights included.
    weights: Vec<f32>,
    rows: Vec<usize>,
}

impl Prepared<'_> {
    fn data(&self) -> Data<'_> {
        Data {
            bins: &self.bins,
            features: &self.features,
            labels: &self.labels,
            weights: &self.weights,
        }
    }
}

impl Fitter<'_> {
    fn members(
        &self,
        rows: &[usize],
        params: &FitParams,
        rounds: Rounds,
        progress: Progress,
    ) -> Members {
        let prepared = self.prepare(rows, params.imbalance);
        let boosted = |rounds: usize, subspace: &Subspace| {
            let params = XgboostParams {
                n_estimators: rounds,
                ..params.xgboost.clone()
            };
            let told = |share| progress("xgboost", share);
            self.boosted(&prepared, &[], subspace, &params, &told).0
        };
        let xgboost = boosted(rounds.boosted, &self.subspace(&prepared));
        let calendar = (rounds.calendar > 0).then(|| TreeModel {
            base_score: NO_ODDS,
            ..boosted(rounds.calendar, &self.calendar(&prepared))
        });
        let random_forest = self.forest(&prepared, &params.random_forest, &|share| {
            progress("random_forest", share)
        });
        let logistic_regression = self.linear(rows, &params.logistic_regression);
        Members {
            xgboost,
            random_forest: Some(random_forest),
            logistic_regression: Some(logistic_regression),
            calendar,
        }
    }

    /// Also gives the loss over `validate` after each number of rounds.
    fn boosted(
        &self,
        prepared: &Prepared,
        validate: &[usize],
        subspace: &Subspace,
        params: &XgboostParams,
        progress: &(dyn Fn(f64) + Sync),
    ) -> (TreeModel, Vec<f64>) {
        let (data, rows) = (prepared.data(), &prepared.rows);
        boosted::fit(&data, rows, validate, subspace, params, self.seed, progress)
    }

    fn forest(
        &self,
        prepared: &Prepared,
        params: &ForestParams,
        progress: &(dyn Fn(f64) + Sync),
    ) -> TreeModel {
        let subspace = self.subspace(prepared);
        let (data, rows) = (prepared.data(), &prepared.rows);
        forest::fit(&data, rows, &subspace, params, self.seed, progress)
    }

    fn subspace(&self, prepared: &Prepared) -> Subspace<'_> {
        Subspace::new(&prepared.bins, self.set.inputs, self.signals_per_tree)
    }

    fn calendar(&self, prepared: &Prepared) -> Subspace<'_> {
        Subspace::without_signals(&prepared.bins, self.set.inputs)
    }

    /// The linear member is fitted at the true base rate, whatever the imbalance setting.
    fn linear(&self, rows: &[usize], params: &LogisticParams) -> Linear {
        let TrainingSet {
            features,
            labels,
            weights,
            ..
        } = self.set;
        logistic::fit(features, labels, weights, rows, params)
    }

    /// What the imbalance method makes of `rows` for the tree members. Class weights and synthetic rows
    /// raise the positives to the same share of all weight, [`Imbalance::ratio`] times their own. Weights
    /// are scaled to a mean of 1 so that `min_child_weight` does not depend on how negatives were sampled.
    fn prepare(&self, rows: &[usize], imbalance: Imbalance) -> Prepared<'_> {
        let TrainingSet {
            features,
            labels,
            weights,
            ..
        } = self.set;
        let mut rng = stream(self.seed, IMBALANCE_STREAM);
        let mut prepared = Prepared {
            features: Cow::Borrowed(features),
            bins: Cow::Borrowed(&self.bins),
            labels: Cow::Borrowed(labels),
            weights: weights.to_vec(),
            rows: rows.to_vec(),
        };
        let sum = |class: bool| {
            let of_class = rows.iter().filter(|row| labels[**row] == class);
            of_class.map(|row| f64::from(weights[*row])).sum::<f64>()
        };
        let (positive, negative) = (sum(true), sum(false));
        let by_class =
            || -> (Vec<usize>, Vec<usize>) { rows.iter().partition(|row| labels[**row]) };
        match imbalance {
            Imbalance::None | Imbalance::Auto => {}
            Imbalance::ClassWeight => {
                let ratio = imbalance.ratio(positive, negative) as f32;
                for (weight, label) in prepared.weights.iter_mut().zip(*labels) {
                    *weight *= if *label { ratio } else { 1.0 };
                }
            }
            Imbalance::Downsample => {
                let (positives, negatives) = by_class();
                let wanted = (DOWNSAMPLE_RATIO * positives.len() as f64) as usize;
                if wanted < negatives.len() {
                    let kept = logistic::draw(&negatives, weights, wanted, &mut rng);
                    let each = (negative / wanted as f64) as f32;
                    negatives
                        .iter()
                        .for_each(|row| prepared.weights[*row] = each);
                    prepared.rows = [positives, kept].concat();
                    prepared.rows.sort_unstable();
                }
            }
            Imbalance::Smote => {
                let (positives, _) = by_class();
                let ratio = imbalance.ratio(positive, negative);
                let wanted = (positive * (ratio - 1.0)).max(0.0);
                let made = (wanted as usize).min(rows.len());
                let mut extended = (*features).clone();
                extended
                    .data
                    .extend(smote::synthesize(features, &positives, made, &mut rng));
                prepared.rows.extend(labels.len()..extended.rows());
                prepared.weights.resize(extended.rows(), 1.0);
                prepared.labels.to_mut().resize(extended.rows(), true);
                prepared.bins = Cow::Owned(self.bins.extended(&extended));
                prepared.features = Cow::Owned(extended);
            }
        }
        let total: f64 = prepared
            .rows
            .iter()
            .map(|row| f64::from(prepared.weights[*row]))
            .sum();
        let scale = (prepared.rows.len() as f64 / total) as f32;
        prepared.weights.iter_mut().for_each(|w| *w *= scale);
        prepared
    }

    fn inputs(&self, members: &Members, rows: &[usize]) -> Vec<Inputs> {
        self.blocks(rows, |block, columns| members.block_inputs(block, columns))
    }

    fn tree_scores(&self, model: &TreeModel, rows: &[usize]) -> Vec<f64> {
        self.blocks(rows, |block, columns| model.block_scores(block, columns))
    }

    fn blocks<T: Send>(
        &self,
        rows: &[usize],
        score: impl Fn(&[f32], usize) -> Vec<T> + Sync,
    ) -> Vec<T> {
        let features = self.set.features;
        rows.par_chunks(BLOCK)
            .flat_map_iter(|rows| {
                let block: Vec<f32> = rows
                    .iter()
                    .flat_map(|row| features.row(*row))
                    .copied()
                    .collect();
                score(&block, features.columns)
            })
            .collect()
    }
}

/// The time folds that can be fitted, and the validation rows of all of them.
struct Folds<'a> {
    fitter: &'a Fitter<'a>,
    folds: Vec<&'a Fold>,
    rows: Vec<usize>,
}

/// How many boosted trees there are: the member's, and those that see the calendar alone.
#[derive(Clone, Copy)]
struct Rounds {
    boosted: usize,
    calendar: usize,
}

/// What the folds say is best.
struct Choice {
    params: FitParams,
    rounds: Rounds,
    stack: Option<Stack>,
    trials: Vec<Trial>,
}

impl Choice {
    fn without_folds(params: &FitParams) -> Self {
        let imbalance = match params.imbalance {
            Imbalance::Auto => Imbalance::None,
            set => set,
        };
        Self {
            params: FitParams {
                imbalance,
                calendar: false,
                ..params.clone()
            },
            rounds: Rounds {
                boosted: params.xgboost.n_estimators,
                calendar: 0,
            },
            stack: None,
            trials: Vec::new(),
        }
    }
}

/// Boosted trees fitted on the folds, with the rounds that suit all of them.
struct BoostedTrial {
    params: XgboostParams,
    rounds: usize,
    scores: Vec<f64>,
    average_precision: f64,
}

impl BoostedTrial {
    fn trial(&self, imbalance: Imbalance) -> Trial {
        let XgboostParams {
            max_depth,
            min_child_weight,
            lambda,
            ..
        } = self.params;
        Trial {
            member: "xgboost",
            choice: format!(
                "imbalance {}, max_depth {max_depth}, min_child_weight {min_child_weight}, lambda {lambda}, {} rounds",
                imbalance.name(),
                self.rounds
            ),
            average_precision: self.average_precision,
            chosen: false,
        }
    }
}

/// A forest fitted on the folds.
struct ForestTrial {
    params: ForestParams,
    scores: Vec<f64>,
    average_precision: f64,
}

impl ForestTrial {
    fn trial(&self) -> Trial {
        Trial {
            member: "random_forest",
            choice: format!("min_samples_leaf {}", self.params.min_samples_leaf),
            average_precision: self.average_precision,
            chosen: false,
        }
    }
}

type XgboostChange = fn(&mut XgboostParams);
type ForestChange = fn(&mut ForestParams);

/// What the search tries, each on top of the best so far.
const XGBOOST_CHANGES: [XgboostChange; 4] = [
    |params| params.max_depth = params.max_depth.saturating_sub(2).max(1),
    |params| params.min_child_weight *= 4.0,
    |params| params.min_child_weight /= 4.0,
    |params| params.lambda *= 10.0,
];
const FOREST_CHANGES: [ForestChange; 2] = [
    |params| params.min_samples_leaf *= 4,
    |params| params.min_samples_leaf = params.min_samples_leaf.div_ceil(2),
];

/// What was tried, and told to whoever waits.
struct Log<'a> {
    trials: Vec<Trial>,
    planned: usize,
    progress: Progress<'a>,
}

impl Log<'_> {
    /// A member's first choice stands until another one is better.
    fn first(&mut self, trial: Trial) {
        self.trials.push(Trial {
            chosen: true,
            ..trial
        });
        (self.progress)("folds", self.trials.len() as f64 / self.planned as f64);
    }

    /// Whether this is better than the member's choice so far by more than luck; then it is the choice.
    fn improves(&mut self, trial: Trial) -> bool {
        let standing = self.trials.iter_mut().rfind(|trial| trial.chosen);
        let better = standing.is_none_or(|standing| {
            let better =
                trial.average_precision > standing.average_precision * (1.0 + SEARCH_MARGIN);
            standing.chosen = !better;
            better
        });
        self.trials.push(Trial {
            chosen: better,
            ..trial
        });
        (self.progress)("folds", self.trials.len() as f64 / self.planned as f64);
        better
    }
}

impl<'a> Folds<'a> {
    fn new(fitter: &'a Fitter<'a>, split: &'a Split) -> Self {
        let folds: Vec<&Fold> = split
            .folds
            .iter()
            .filter(|fold| {
                check_classes(fitter.set, "fit a fold", &fold.fit).is_ok()
                    && !fold.validate.is_empty()
            })
            .collect();
        let rows = folds
            .iter()
            .flat_map(|fold| fold.validate.iter().copied())
            .collect();
        Self {
            fitter,
            folds,
            rows,
        }
    }

    fn positives(&self) -> usize {
        let labels = self.fitter.set.labels;
        self.rows.iter().filter(|row| labels[**row]).count()
    }

    fn average_precision(&self, scores: &[f64]) -> f64 {
        let TrainingSet {
            labels, weights, ..
        } = self.fitter.set;
        let rows = self.rows.iter().zip(scores);
        Rows::new(rows.map(|(row, score)| (*score, labels[*row], f64::from(weights[*row]))))
            .average_precision()
            .unwrap_or(0.0)
    }

    /// First the imbalance method, then the parameters of each tree member, one after another.
    fn choose(&self, params: &FitParams, progress: Progress) -> Choice {
        let methods: &[Imbalance] = match &params.imbalance {
            Imbalance::Auto => &Imbalance::METHODS,
            set => std::slice::from_ref(set),
        };
        let (xgboost_changes, forest_changes): (&[XgboostChange], &[ForestChange]) =
            match params.search {
                true => (&XGBOOST_CHANGES, &FOREST_CHANGES),
                false => (&[], &[]),
            };
        let mut log = Log {
            trials: Vec::new(),
            planned: methods.len()
                + xgboost_changes.len()
                + 1
                + forest_changes.len()
                + 2 * usize::from(params.search),
            progress,
        };

        let (mut imbalance, mut prepared) = (methods[0], self.prepare(methods[0]));
        let mut boosted = self.boosted(&prepared, params.xgboost.clone());
        log.first(boosted.trial(imbalance));
        for &method in &methods[1..] {
            let other = self.prepare(method);
            let tried = self.boosted(&other, params.xgboost.clone());
            if log.improves(tried.trial(method)) {
                (imbalance, prepared, boosted) = (method, other, tried);
            }
        }
        for change in xgboost_changes {
            let mut changed = boosted.params.clone();
            change(&mut changed);
            let tried = self.boosted(&prepared, changed);
            if log.improves(tried.trial(imbalance)) {
                boosted = tried;
            }
        }
        let mut forest = self.forest(&prepared, params.random_forest.clone());
        log.first(forest.trial());
        for change in forest_changes {
            let mut changed = forest.params.clone();
            change(&mut changed);
            let tried = self.forest(&prepared, changed);
            if log.improves(tried.trial()) {
                forest = tried;
            }
        }
        let linear = self.linear(&params.logistic_regression);
        let members: Vec<[f64; 3]> = (0..self.rows.len())
            .map(|i| [boosted.scores[i], forest.scores[i], linear[i]])
            .collect();
        let stack = self.stack(&members);
        let calendar = match &stack {
            Some(stack) if params.search || params.calendar => {
                match self.calendar(&prepared, &boosted.params, stack, &members, &mut log) {
                    Some((rounds, better)) if better || params.calendar => rounds,
                    _ => 0,
                }
            }
            _ => 0,
        };
        Choice {
            params: FitParams {
                xgboost: boosted.params,
                random_forest: forest.params,
                imbalance,
                calendar: calendar > 0,
                ..params.clone()
            },
            rounds: Rounds {
                boosted: boosted.rounds,
                calendar,
            },
            stack,
            trials: log.trials,
        }
    }

    fn prepare(&self, imbalance: Imbalance) -> Vec<Prepared<'_>> {
        let folds = self.folds.iter();
        folds
            .map(|fold| self.fitter.prepare(&fold.fit, imbalance))
            .collect()
    }

    fn boosted(&self, prepared: &[Prepared], params: XgboostParams) -> BoostedTrial {
        let (models, rounds) = self.boosted_models(prepared, &params, Fitter::subspace);
        let scores = self.scores(models);
        BoostedTrial {
            average_precision: self.average_precision(&scores),
            params,
            rounds,
            scores,
        }
    }

    /// Tries trees that see the calendar alone, added to the stack: how many, and whether the ensemble ranks better
    /// with them; `None` where they say nothing. They are fitted apart, not on what the others leave: trees that see
    /// all features explain a few incidents by those, and the hour by chance.
    fn calendar(
        &self,
        prepared: &[Prepared],
        params: &XgboostParams,
        stack: &Stack,
        members: &[[f64; 3]],
        log: &mut Log,
    ) -> Option<(usize, bool)> {
        let trial = |choice: String, scores: &[f64]| Trial {
            member: "ensemble",
            choice,
            average_precision: self.average_precision(scores),
            chosen: false,
        };
        let stacked: Vec<f64> = members
            .iter()
            .map(|&[xgboost, forest, linear]| stack.at(&[xgboost, forest, linear, 0.0]))
            .collect();
        log.first(trial("the members alone".to_owned(), &stacked));
        let nothing = |prepared| self.fitter.calendar(prepared).is_empty();
        if prepared.iter().any(nothing) {
            return None;
        }
        let (mut models, rounds) = self.boosted_models(prepared, params, Fitter::calendar);
        models
            .iter_mut()
            .for_each(|model| model.base_score = NO_ODDS);
        let scores: Vec<f64> = std::iter::zip(self.scores(models), &stacked)
            .map(|(calendar, stacked)| calendar + stacked)
            .collect();
        let choice = format!("the members and {rounds} trees of the calendar");
        (rounds > 0).then(|| (rounds, log.improves(trial(choice, &scores))))
    }

    /// One for each fold, with the rounds that suit all of them.
    fn boosted_models<'f>(
        &'f self,
        prepared: &[Prepared],
        params: &XgboostParams,
        subspace: impl Fn(&'f Fitter<'a>, &Prepared) -> Subspace<'f>,
    ) -> (Vec<TreeModel>, usize) {
        let (mut models, losses): (Vec<TreeModel>, Vec<Vec<f64>>) = self
            .folds
            .iter()
            .zip(prepared)
            .map(|(fold, prepared)| {
                let seen = subspace(self.fitter, prepared);
                self.fitter
                    .boosted(prepared, &fold.validate, &seen, params, &|_| ())
            })
            .unzip();
        let rounds = best_rounds(&losses).unwrap_or(params.n_estimators);
        models
            .iter_mut()
            .for_each(|model| model.trees.truncate(rounds));
        (models, rounds)
    }

    /// Of the validation rows of all folds, each by its fold's own model, one after another.
    fn scores(&self, models: impl IntoIterator<Item = TreeModel>) -> Vec<f64> {
        let scored = models.into_iter().zip(&self.folds);
        scored
            .flat_map(|(model, fold)| self.fitter.tree_scores(&model, &fold.validate))
            .collect()
    }

    fn forest(&self, prepared: &[Prepared], params: ForestParams) -> ForestTrial {
        let models = prepared
            .iter()
            .map(|prepared| self.fitter.forest(prepared, &params, &|_| ()));
        let scores = self.scores(models);
        ForestTrial {
            average_precision: self.average_precision(&scores),
            params,
            scores,
        }
    }

    fn linear(&self, params: &LogisticParams) -> Vec<f64> {
        let features = self.fitter.set.features;
        let mut scores = Vec::with_capacity(self.rows.len());
        for fold in &self.folds {
            let member = self.fitter.linear(&fold.fit, params);
            scores.extend(
                fold.validate
                    .iter()
                    .map(|row| member.logit(features.row(*row))),
            );
        }
        scores
    }

    /// Logistic regression over scores of rows that their members had not seen, at the true base rate.
    fn stack(&self, members: &[[f64; 3]]) -> Option<Stack> {
        let TrainingSet {
            labels, weights, ..
        } = self.fitter.set;
        let targets: Vec<f64> = self
            .rows
            .iter()
            .map(|row| f64::from(u8::from(labels[*row])))
            .collect();
        let weights: Vec<f64> = self
            .rows
            .iter()
            .map(|row| f64::from(weights[*row]))
            .collect();
        let line = newton::fit(members, &targets, &weights, STACK_RIDGE);
        line.coefficients
            .iter()
            .any(|c| *c > 0.0)
            .then(|| line.into())
    }
}

/// Rounds with the least loss over the validation rows of all folds together: those of one fold hold
/// too few incidents to say. A fold that stopped early counts with its last loss from there on.
fn best_rounds(losses: &[Vec<f64>]) -> Option<usize> {
    let longest = losses.iter().map(Vec::len).max()?;
    let total = |rounds: &usize| -> f64 {
        let after = |fold: &Vec<f64>| fold[(*rounds).min(fold.len() - 1)];
        losses.iter().map(after).sum()
    };
    (0..longest).min_by(|a, b| total(a).total_cmp(&total(b)))
}

/// Without folds: the mean of the two logits and of the forest's share, which is
/// stretched to the spread of the boosted logit because it must stay linear.
fn equal_stack(inputs: &[Inputs]) -> Stack {
    let spread = |k: usize| {
        let mean = inputs.iter().map(|row| row[k]).sum::<f64>() / inputs.len() as f64;
        (inputs
            .iter()
            .map(|row| (row[k] - mean).powi(2))
            .sum::<f64>()
            / inputs.len() as f64)
            .sqrt()
    };
    let stretch = if spread(1) > 0.0 {
        spread(0) / spread(1)
    } else {
        0.0
    };
    Stack {
        xgboost: 1.0 / 3.0,
        random_forest: stretch / 3.0,
        logistic_regression: 1.0 / 3.0,
        intercept: 0.0,
    }
}

fn shape<T>(what: &'static str, found: usize, expected: String) -> Result<T, FitError> {
    Err(FitError::Shape {
        what,
        found,
        expected,
    })
}

fn check_shape(set: &TrainingSet) -> Result<(), FitError> {
    let TrainingSet {
        features,
        labels,
        weights,
        inputs,
    } = set;
    if !(1..=MAX_COLUMNS).contains(&features.columns) {
        return shape("columns", features.columns, format!("1 to {MAX_COLUMNS}"));
    }
    if features.data.len() != labels.len() * features.columns {
        return shape(
            "feature values",
            features.data.len(),
            format!("{} labels × {} columns", labels.len(), features.columns),
        );
    }
    if inputs.len() != features.columns {
        return shape(
            "inputs",
            inputs.len(),
            format!("one for each of {} columns", features.columns),
        );
    }
    if weights.len() != labels.len() {
        return shape(
            "weights",
            weights.len(),
            format!("one for each of {} labels", labels.len()),
        );
    }
    Ok(())
}

fn check(set: &TrainingSet, split: &Split) -> Result<(), FitError> {
    check_shape(set)?;
    let TrainingSet {
        features,
        labels,
        weights,
        ..
    } = set;
    let folds = split
        .folds
        .iter()
        .flat_map(|fold| [&fold.fit, &fold.validate]);
    if let Some(row) = folds
        .chain([&split.fit, &split.calibrate])
        .flatten()
        .find(|row| **row >= labels.len())
    {
        return shape(
            "row number in the split",
            *row,
            format!("less than {}", labels.len()),
        );
    }
    if let Some(row) = weights
        .iter()
        .position(|weight| !weight.is_finite() || *weight < 0.0)
    {
        return Err(FitError::Weight {
            row,
            weight: weights[row],
        });
    }
    check_classes(set, "fit", &split.fit)?;
    check_classes(set, "calibrate", &split.calibrate)?;
    if split
        .fit
        .iter()
        .all(|row| features.row(*row).iter().all(|x| x.is_nan()))
    {
        return Err(FitError::AllMissing);
    }
    Ok(())
}

fn check_classes(set: &TrainingSet, part: &'static str, rows: &[usize]) -> Result<(), FitError> {
    if rows.is_empty() {
        return Err(FitError::NoRows { part });
    }
    let weighted = || rows.iter().filter(|row| set.weights[**row] > 0.0);
    let positives = weighted().filter(|row| set.labels[**row]).count();
    let rows = weighted().count();
    if positives == 0 || positives == rows {
        return Err(FitError::OneClass {
            part,
            positives,
            rows,
        });
    }
    Ok(())
}
