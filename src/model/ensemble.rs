//! Scores and explains with the three members, stacked and calibrated.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::calibration::Calibration;
use super::logistic::Linear;
use super::newton::Line;
use super::packed::{self, Packed};
use super::shap::TreeShap;
use super::tree::Trees;
use super::xgboost_json::{self, LoadError, Objective, TreeModel, check_columns};
use super::{Matrix, is_usable, logit, sigmoid};
use crate::types::ServeMember;

const XGBOOST: &str = "xgboost.json";
const FOREST: &str = "random_forest.json";
const LINEAR: &str = "linear.json";
const CALENDAR: &str = "calendar.json";
const CALIBRATION: &str = "calibration.json";

/// Rows scored at a time, one core each.
pub(super) const BLOCK: usize = 1024;

/// Calibrated probabilities, each in [1e-4, 1 - 1e-4]; of the members that the model has.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Score {
    pub ensemble: f64,
    pub xgboost: f64,
    pub random_forest: Option<f64>,
    pub logistic_regression: Option<f64>,
}

impl Score {
    pub fn of(&self, member: ServeMember) -> Option<f64> {
        match member {
            ServeMember::Ensemble => Some(self.ensemble),
            ServeMember::Xgboost => Some(self.xgboost),
            ServeMember::RandomForest => self.random_forest,
            ServeMember::LogisticRegression => self.logistic_regression,
        }
    }

    /// What is answered. A model without the served member is refused before it scores,
    /// so that the ensemble never really stands in.
    pub fn served(&self, member: ServeMember) -> f64 {
        self.of(member).unwrap_or(self.ensemble)
    }
}

/// What the members say of a row before stack and calibration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RawScore {
    /// Log-odds.
    pub xgboost: f64,
    /// Mean share of positives.
    pub random_forest: Option<f64>,
    /// Log-odds.
    pub logistic_regression: Option<f64>,
}

/// What the ensemble sees of a row: the members' logit, mean share and logit, and the calendar's log-odds; 0 of what the model does not have.
pub(super) type Inputs = [f64; 4];

/// A model trained elsewhere has the boosted trees only.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Members {
    pub xgboost: TreeModel,
    pub random_forest: Option<TreeModel>,
    pub logistic_regression: Option<Linear>,
    /// Boosted trees that see the calendar alone. They are no member: like a prior their log-odds are added to the
    /// stack's as they are.
    pub calendar: Option<TreeModel>,
}

/// Places in [`Packed`], and in [`Inputs`].
const XGBOOST_TREES: (usize, usize) = (0, 0);
const FOREST_TREES: (usize, usize) = (1, 1);
const CALENDAR_TREES: (usize, usize) = (2, 3);
const LINEAR_INPUT: usize = 2;
/// The ensemble needs every member.
const EVERYONE: ServeMember = ServeMember::Ensemble;

fn asks(serve: ServeMember, member: ServeMember) -> bool {
    serve == member || serve == EVERYONE
}

/// Places of the trees that are needed.
fn asked_trees(serve: ServeMember) -> &'static [(usize, usize)] {
    match serve {
        ServeMember::Ensemble => &[XGBOOST_TREES, FOREST_TREES, CALENDAR_TREES],
        ServeMember::Xgboost => &[XGBOOST_TREES],
        ServeMember::RandomForest => &[FOREST_TREES],
        ServeMember::LogisticRegression => &[],
    }
}

impl Members {
    fn inputs(&self, row: &[f32]) -> Inputs {
        let score =
            |trees: &Option<TreeModel>| trees.as_ref().map_or(0.0, |trees| trees.score(row));
        [
            self.xgboost.score(row),
            score(&self.random_forest),
            self.linear(row),
            score(&self.calendar),
        ]
    }

    fn linear(&self, row: &[f32]) -> f64 {
        let linear = self.logistic_regression.as_ref();
        linear.map_or(0.0, |linear| linear.logit(row))
    }

    /// In their order in [`Packed`].
    fn trees(&self) -> [Option<&TreeModel>; 3] {
        [
            Some(&self.xgboost),
            self.random_forest.as_ref(),
            self.calendar.as_ref(),
        ]
    }

    /// Scores without any tree.
    fn starts(&self) -> [f64; 3] {
        self.trees()
            .map(|model| model.map_or(0.0, TreeModel::start))
    }

    fn pack(&self, columns: usize) -> Option<Packed> {
        let none = Trees::default();
        let trees = self
            .trees()
            .map(|model| model.map_or(&none, |model| &model.trees));
        Packed::new(&trees, columns)
    }

    /// Bit for bit what `inputs` gives; `rows` is row-major.
    pub fn block_inputs(&self, rows: &[f32], columns: usize) -> Vec<Inputs> {
        let [xgboost, forest, calendar] = self.trees().map(|model| {
            let none = || vec![0.0; rows.len() / columns];
            model.map_or_else(none, |model| model.block_scores(rows, columns))
        });
        let linear = rows.chunks_exact(columns).map(|row| self.linear(row));
        linear
            .enumerate()
            .map(|(i, linear)| [xgboost[i], forest[i], linear, calendar[i]])
            .collect()
    }
}

/// Log-odds as a weighted sum of what the members say, and the calendar's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Stack {
    pub xgboost: f64,
    pub random_forest: f64,
    pub logistic_regression: f64,
    pub intercept: f64,
}

impl Stack {
    /// Of a model that has the boosted trees only.
    pub const XGBOOST: Stack = Stack {
        xgboost: 1.0,
        random_forest: 0.0,
        logistic_regression: 0.0,
        intercept: 0.0,
    };

    /// The score of one member as it is.
    fn of(member: ServeMember) -> Option<Stack> {
        let alone = |member: ServeMember, one| f64::from(u8::from(member == one));
        (member != ServeMember::Ensemble).then(|| Stack {
            xgboost: alone(member, ServeMember::Xgboost),
            random_forest: alone(member, ServeMember::RandomForest),
            logistic_regression: alone(member, ServeMember::LogisticRegression),
            intercept: 0.0,
        })
    }

    fn is_usable(&self) -> bool {
        [
            self.xgboost,
            self.random_forest,
            self.logistic_regression,
            self.intercept,
        ]
        .into_iter()
        .all(is_usable)
    }

    pub fn at(&self, inputs: &Inputs) -> f64 {
        self.intercept
            + self.xgboost * inputs[0]
            + self.random_forest * inputs[1]
            + self.logistic_regression * inputs[2]
            + inputs[3]
    }
}

impl From<Line<3>> for Stack {
    fn from(line: Line<3>) -> Self {
        let [xgboost, random_forest, logistic_regression] = line.coefficients;
        Self {
            xgboost,
            random_forest,
            logistic_regression,
            intercept: line.intercept,
        }
    }
}

/// What each answer is calibrated with, and how the stack weighs its inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Calibrations {
    pub stack: Stack,
    pub ensemble: Calibration,
    pub xgboost: Calibration,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub random_forest: Option<Calibration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logistic_regression: Option<Calibration>,
}

impl Calibrations {
    fn score(&self, inputs: &Inputs) -> Score {
        Score {
            ensemble: self.ensemble(inputs),
            xgboost: self.xgboost.probability(inputs[0]),
            random_forest: self.of(ServeMember::RandomForest, inputs),
            logistic_regression: self.of(ServeMember::LogisticRegression, inputs),
        }
    }

    fn ensemble(&self, inputs: &Inputs) -> f64 {
        self.ensemble.probability(self.stack.at(inputs))
    }

    /// [`Score::of`] alone.
    fn of(&self, member: ServeMember, inputs: &Inputs) -> Option<f64> {
        let (forest, linear) = (&self.random_forest, &self.logistic_regression);
        Some(match member {
            ServeMember::Ensemble => self.ensemble(inputs),
            ServeMember::Xgboost => self.xgboost.probability(inputs[0]),
            ServeMember::RandomForest => forest.as_ref()?.probability(share_logit(inputs[1])),
            ServeMember::LogisticRegression => linear.as_ref()?.probability(inputs[2]),
        })
    }

    /// [`Score::served`] alone.
    fn served(&self, serve: ServeMember, inputs: &Inputs) -> f64 {
        self.of(serve, inputs)
            .unwrap_or_else(|| self.ensemble(inputs))
    }
}

/// Log-odds of the forest's share, which may be 0 or 1.
pub(super) fn share_logit(share: f64) -> f64 {
    logit(share.clamp(1e-6, 1.0 - 1e-6))
}

/// The fitted members with stack and calibration.
#[derive(Clone, Debug, PartialEq)]
pub struct Ensemble {
    pub(super) columns: usize,
    pub(super) members: Members,
    /// The trees of the members, where they fit into that form; else they are followed as they are.
    packed: Option<Packed>,
    pub(super) calibrations: Calibrations,
}

impl Ensemble {
    pub(super) fn new(columns: usize, members: Members, calibrations: Calibrations) -> Self {
        Self {
            columns,
            packed: members.pack(columns),
            members,
            calibrations,
        }
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Whether the model has what `model.serve` may name.
    pub fn has(&self, member: ServeMember) -> bool {
        match member {
            ServeMember::Ensemble | ServeMember::Xgboost => true,
            ServeMember::RandomForest => self.members.random_forest.is_some(),
            ServeMember::LogisticRegression => self.members.logistic_regression.is_some(),
        }
    }

    /// `row` has `columns` values.
    pub fn score(&self, row: &[f32]) -> Score {
        self.calibrations.score(&self.inputs(EVERYONE, row))
    }

    /// [`Score::served`] of a member that the model has; the others are not asked.
    pub fn probability(&self, serve: ServeMember, row: &[f32]) -> f64 {
        self.calibrations.served(serve, &self.inputs(serve, row))
    }

    /// The same as `probability` of each row, faster.
    pub fn probabilities(&self, serve: ServeMember, rows: &Matrix) -> Vec<f64> {
        self.each_inputs(serve, rows)
            .map(|inputs| self.calibrations.served(serve, &inputs))
            .collect()
    }

    /// Whom `serve` does not need may be left at 0.
    fn inputs(&self, serve: ServeMember, row: &[f32]) -> Inputs {
        let Some(packed) = &self.packed else {
            return self.members.inputs(row);
        };
        let asked = asked_trees(serve);
        let mut inputs = [0.0; 4];
        if !asked.is_empty() {
            let (starts, encoded) = (self.members.starts(), packed.encode(row));
            for &(place, input) in asked {
                inputs[input] = packed.sum(place, starts[place], &encoded);
            }
        }
        if asks(serve, ServeMember::LogisticRegression) {
            inputs[LINEAR_INPUT] = self.members.linear(row);
        }
        inputs
    }

    /// Bit for bit what `inputs` gives for each row.
    fn each_inputs(
        &self,
        serve: ServeMember,
        rows: &Matrix,
    ) -> impl ParallelIterator<Item = Inputs> {
        let blocks = rows.data.par_chunks(packed::BLOCK * self.columns);
        blocks.flat_map_iter(move |block| {
            let Some(packed) = &self.packed else {
                return self.members.block_inputs(block, self.columns);
            };
            let rows = block.chunks_exact(self.columns);
            let mut inputs = vec![[0.0; 4]; rows.len()];
            let asked = asked_trees(serve);
            if !asked.is_empty() {
                let (starts, encoded) = (self.members.starts(), packed.encode_rows(block));
                for &(place, input) in asked {
                    let sums = packed.sums(place, starts[place], &encoded);
                    inputs
                        .iter_mut()
                        .zip(sums)
                        .for_each(|(inputs, sum)| inputs[input] = sum);
                }
            }
            if asks(serve, ServeMember::LogisticRegression) {
                inputs
                    .iter_mut()
                    .zip(rows)
                    .for_each(|(inputs, row)| inputs[LINEAR_INPUT] = self.members.linear(row));
            }
            inputs
        })
    }

    /// The same as `score` of each row, faster.
    pub fn score_rows(&self, rows: &Matrix) -> Vec<Score> {
        self.each_inputs(EVERYONE, rows)
            .map(|inputs| self.calibrations.score(&inputs))
            .collect()
    }

    /// What the members say of each row before stack and calibration.
    pub fn raw_rows(&self, rows: &Matrix) -> Vec<RawScore> {
        let raw = |[xgboost, forest, linear, _]: Inputs| RawScore {
            xgboost,
            random_forest: self.members.random_forest.is_some().then_some(forest),
            logistic_regression: self.members.logistic_regression.is_some().then_some(linear),
        };
        self.each_inputs(EVERYONE, rows).map(raw).collect()
    }

    /// Log-odds of the stack before calibration.
    pub fn stack_score(&self, row: &[f32]) -> f64 {
        self.calibrations.stack.at(&self.inputs(EVERYONE, row))
    }

    /// What each row's probability would be without calibration.
    pub fn uncalibrated_rows(&self, rows: &Matrix) -> Vec<f64> {
        self.each_inputs(EVERYONE, rows)
            .map(|inputs| sigmoid(self.calibrations.stack.at(&inputs)))
            .collect()
    }

    /// How the score of `model.serve` weighs the members.
    fn stack(&self, serve: ServeMember) -> Stack {
        Stack::of(serve).unwrap_or(self.calibrations.stack)
    }

    /// Adds each column's contribution to the stack's score and returns the bias:
    /// their sum is `stack_score`. Trees give path contributions (the change of
    /// the node mean at each split), the linear member its terms.
    pub fn explain(&self, row: &[f32], contributions: &mut [f64]) -> f64 {
        self.explain_served(ServeMember::Ensemble, row, contributions)
    }

    /// The same of the score that `model.serve` names: the stack's, or a member's before calibration.
    pub fn explain_served(
        &self,
        serve: ServeMember,
        row: &[f32],
        contributions: &mut [f64],
    ) -> f64 {
        let stack = self.stack(serve);
        let Members {
            xgboost,
            random_forest,
            logistic_regression,
            calendar,
        } = &self.members;
        let encoded = self
            .packed
            .as_ref()
            .map(|packed| (packed, packed.encode(row)));
        let mut trees = |(place, _), model: &TreeModel, scale| match &encoded {
            _ if scale == 0.0 => 0.0,
            None => model.explain(row, scale, contributions),
            Some((packed, encoded)) => {
                scale * model.start() + packed.explain(place, encoded, scale, contributions)
            }
        };
        let mut bias = stack.intercept + trees(XGBOOST_TREES, xgboost, stack.xgboost);
        if let Some(forest) = random_forest {
            bias += trees(FOREST_TREES, forest, stack.random_forest);
        }
        if let Some(calendar) = calendar
            && serve == EVERYONE
        {
            bias += trees(CALENDAR_TREES, calendar, 1.0);
        }
        if let Some(linear) = logistic_regression {
            bias += linear.explain(row, stack.logistic_regression, contributions);
        }
        bias
    }

    /// SHAP values, prepared once for many rows: what [`Ensemble::explain`] gives, fairer between columns and dearer.
    pub fn shap(&self) -> EnsembleShap<'_> {
        EnsembleShap {
            ensemble: self,
            xgboost: TreeShap::new(&self.members.xgboost),
            random_forest: self.members.random_forest.as_ref().map(TreeShap::new),
            calendar: self.members.calendar.as_ref().map(TreeShap::new),
        }
    }

    /// Mean of the tree members' gain shares: sums to 1, or to 0 when no tree ever split.
    pub fn importance(&self) -> Vec<f64> {
        let mut shares = self.members.xgboost.trees.importance(self.columns);
        if let Some(forest) = &self.members.random_forest {
            let others = forest.trees.importance(self.columns);
            for (share, other) in shares.iter_mut().zip(others) {
                *share += other;
            }
        }
        let total: f64 = shares.iter().sum();
        if total > 0.0 {
            shares.iter_mut().for_each(|share| *share /= total);
        }
        shares
    }

    /// File names and contents; `names` are the columns.
    pub fn to_files(&self, names: &[String]) -> BTreeMap<String, Vec<u8>> {
        let json = |result: serde_json::Result<Vec<u8>>| {
            result.expect("plain structs cannot fail to serialise")
        };
        let mut files = BTreeMap::from([
            (
                XGBOOST.to_owned(),
                xgboost_json::write(&self.members.xgboost, names),
            ),
            (
                CALIBRATION.to_owned(),
                json(serde_json::to_vec(&self.calibrations)),
            ),
        ]);
        if let Some(forest) = &self.members.random_forest {
            files.insert(FOREST.to_owned(), xgboost_json::write(forest, names));
        }
        if let Some(calendar) = &self.members.calendar {
            files.insert(CALENDAR.to_owned(), xgboost_json::write(calendar, names));
        }
        if let Some(linear) = &self.members.logistic_regression {
            let linear = LinearFile {
                columns: names.to_vec(),
                linear: linear.clone(),
            };
            files.insert(LINEAR.to_owned(), json(serde_json::to_vec(&linear)));
        }
        files
    }

    /// Takes what `to_files` gave; scores and explanations come out bit-identical.
    pub fn from_files(
        files: &BTreeMap<String, Vec<u8>>,
        names: &[String],
    ) -> Result<Self, LoadError> {
        let bytes = |file: &'static str| {
            files
                .get(file)
                .map(Vec::as_slice)
                .ok_or(LoadError::Missing { file })
        };
        let json = |file: &'static str| {
            move |error: serde_json::Error| LoadError::Json {
                file,
                reason: error.to_string(),
            }
        };
        let calibrations: Calibrations =
            serde_json::from_slice(bytes(CALIBRATION)?).map_err(json(CALIBRATION))?;
        let Calibrations {
            stack,
            ensemble,
            xgboost,
            random_forest,
            logistic_regression,
        } = &calibrations;
        for calibration in [ensemble, xgboost]
            .into_iter()
            .chain(random_forest)
            .chain(logistic_regression)
        {
            calibration
                .check()
                .map_err(|reason| LoadError::Unsupported {
                    file: CALIBRATION,
                    reason: reason.to_owned(),
                })?;
        }
        if !stack.is_usable() {
            return Err(LoadError::Unsupported {
                file: CALIBRATION,
                reason: "the stack has a number beyond 1e60".to_owned(),
            });
        }
        // What is calibrated is there.
        let trees = |file, objective| xgboost_json::read(file, bytes(file)?, objective, names);
        let random_forest = random_forest
            .is_some()
            .then(|| trees(FOREST, Objective::SquaredError))
            .transpose()?;
        let logistic_regression = logistic_regression
            .is_some()
            .then(|| {
                let LinearFile { columns, linear } =
                    serde_json::from_slice(bytes(LINEAR)?).map_err(json(LINEAR))?;
                check_columns(LINEAR, &columns, names)?;
                linear
                    .check(names.len())
                    .map_err(|reason| LoadError::Unsupported {
                        file: LINEAR,
                        reason,
                    })?;
                Ok(linear)
            })
            .transpose()?;
        let members = Members {
            xgboost: trees(XGBOOST, Objective::Logistic)?,
            random_forest,
            logistic_regression,
            calendar: files
                .contains_key(CALENDAR)
                .then(|| trees(CALENDAR, Objective::Logistic))
                .transpose()?,
        };
        Ok(Self::new(names.len(), members, calibrations))
    }
}

/// See [`Ensemble::shap`].
pub struct EnsembleShap<'a> {
    ensemble: &'a Ensemble,
    xgboost: TreeShap<'a>,
    random_forest: Option<TreeShap<'a>>,
    calendar: Option<TreeShap<'a>>,
}

impl EnsembleShap<'_> {
    /// As [`Ensemble::explain`], with path-dependent SHAP values of the trees. The linear member's terms are its
    /// SHAP values already: they are zero at the mean of the rows that its scaling was fitted on.
    pub fn explain(&self, row: &[f32], contributions: &mut [f64]) -> f64 {
        self.explain_served(ServeMember::Ensemble, row, contributions)
    }

    /// As [`Ensemble::explain_served`].
    pub fn explain_served(
        &self,
        serve: ServeMember,
        row: &[f32],
        contributions: &mut [f64],
    ) -> f64 {
        let stack = self.ensemble.stack(serve);
        let mut bias = stack.intercept;
        if stack.xgboost != 0.0 {
            bias += self.xgboost.explain(row, stack.xgboost, contributions);
        }
        if let Some(forest) = &self.random_forest
            && stack.random_forest != 0.0
        {
            bias += forest.explain(row, stack.random_forest, contributions);
        }
        if let Some(calendar) = &self.calendar
            && serve == EVERYONE
        {
            bias += calendar.explain(row, 1.0, contributions);
        }
        if let Some(linear) = &self.ensemble.members.logistic_regression {
            bias += linear.explain(row, stack.logistic_regression, contributions);
        }
        bias
    }
}

#[derive(Serialize, Deserialize)]
struct LinearFile {
    columns: Vec<String>,
    linear: Linear,
}

#[cfg(test)]
mod tests {
    use rand::seq::SliceRandom;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::model::{
        FitError, FitParams, Fitted, Fold, ForestParams, Imbalance, LogisticParams, Split,
        TrainingSet, Trial, XgboostParams, fit, sigmoid,
    };

    type Problem = (Matrix, Vec<bool>, Vec<f32>, Split);

    const COLUMNS: usize = 8;
    const XOR: (usize, usize) = (0, 1);
    const LINEAR_COLUMN: usize = 2;
    const CONSTANT: usize = 5;
    const ABSENT: usize = 6;

    /// Two columns of XOR, one linear, one whose gaps matter, noise, a constant, nothing, noise with gaps.
    fn rows(n: usize, seed: u64) -> (Matrix, Vec<bool>) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut features = Matrix::new(COLUMNS);
        let mut labels = Vec::new();
        for _ in 0..n {
            let mut row: [f32; COLUMNS] = std::array::from_fn(|_| rng.random_range(-1.0..1.0));
            row[CONSTANT] = 3.0;
            row[ABSENT] = f32::NAN;
            for column in [3, 7] {
                if rng.random_bool(0.2) {
                    row[column] = f32::NAN;
                }
            }
            let xor = (row[XOR.0] > 0.0) != (row[XOR.1] > 0.0);
            let z = -4.5
                + 3.0 * f64::from(u8::from(xor))
                + 2.0 * f64::from(row[LINEAR_COLUMN])
                + 1.5 * f64::from(u8::from(row[3].is_nan()));
            features.data.extend(row);
            labels.push(rng.random_bool(sigmoid(z)));
        }
        (features, labels)
    }

    fn params() -> FitParams {
        FitParams {
            xgboost: XgboostParams {
                n_estimators: 40,
                learning_rate: 0.2,
                max_depth: 4,
                min_child_weight: 5.0,
                lambda: 1.0,
                early_stopping_rounds: 10,
            },
            random_forest: ForestParams {
                n_estimators: 25,
                max_depth: 10,
                min_samples_leaf: 20,
            },
            logistic_regression: LogisticParams { alpha: 1.0 },
            imbalance: Imbalance::ClassWeight,
            signals_per_tree: 1.0,
            calendar: false,
            search: false,
            seed: 1,
        }
    }

    /// Two folds in the first 80 % of the rows; the rest calibrates.
    fn split(n: usize) -> Split {
        let at = |tenths: usize| n * tenths / 10;
        let fold = |border: usize| Fold {
            fit: (0..at(border)).collect(),
            validate: (at(border)..at(border + 2)).collect(),
        };
        Split {
            folds: vec![fold(4), fold(6)],
            fit: (0..at(8)).collect(),
            calibrate: (at(8)..n).collect(),
        }
    }

    fn fit_quietly(
        features: &Matrix,
        labels: &[bool],
        weights: &[f32],
        split: &Split,
        params: &FitParams,
    ) -> Result<Ensemble, FitError> {
        try_fit(features, labels, weights, split, params).map(|fitted| fitted.ensemble)
    }

    fn try_fit(
        features: &Matrix,
        labels: &[bool],
        weights: &[f32],
        split: &Split,
        params: &FitParams,
    ) -> Result<Fitted, FitError> {
        let inputs: Vec<Vec<usize>> = (0..features.columns).map(|column| vec![column]).collect();
        let set = TrainingSet {
            features,
            labels,
            weights,
            inputs: &inputs,
        };
        fit(&set, split, params, &|_, _| {})
    }

    fn fitted(n: usize) -> (Ensemble, Matrix, Vec<bool>) {
        let (features, labels) = rows(n, 1);
        let ensemble =
            fit_quietly(&features, &labels, &vec![1.0; n], &split(n), &params()).unwrap();
        (ensemble, features, labels)
    }

    fn names() -> Vec<String> {
        (0..COLUMNS).map(|i| format!("column_{i}")).collect()
    }

    /// Share of pairs ranked right, ties half.
    fn roc_auc(scores: &[f64], labels: &[bool]) -> f64 {
        let of = |class: bool| {
            scores
                .iter()
                .zip(labels)
                .filter(move |(_, label)| **label == class)
                .map(|(score, _)| *score)
        };
        let mut negatives: Vec<f64> = of(false).collect();
        negatives.sort_by(f64::total_cmp);
        let below = |score: f64| {
            negatives.partition_point(|x| *x < score) + negatives.partition_point(|x| *x <= score)
        };
        let right: usize = of(true).map(below).sum();
        right as f64 / 2.0 / (of(true).count() * negatives.len()) as f64
    }

    fn member_scores(ensemble: &Ensemble, features: &Matrix, member: ServeMember) -> Vec<f64> {
        ensemble
            .score_rows(features)
            .iter()
            .filter_map(|score| score.of(member))
            .collect()
    }

    #[test]
    fn every_member_learns_and_is_calibrated_under_every_imbalance_and_sampling() {
        let (test, truth) = rows(20_000, 2);
        let base = truth.iter().filter(|label| **label).count() as f64 / truth.len() as f64;
        let brier = |scores: &[f64]| {
            scores
                .iter()
                .zip(&truth)
                .map(|(p, y)| (p - f64::from(u8::from(*y))).powi(2))
                .sum::<f64>()
                / truth.len() as f64
        };
        let (features, labels) = rows(20_000, 1);
        let everything = split(20_000);
        let kept = |rows: &[usize]| {
            rows.iter()
                .copied()
                .filter(|row| labels[*row] || row % 3 == 0)
                .collect::<Vec<_>>()
        };
        let thinned = Split {
            folds: everything
                .folds
                .iter()
                .map(|fold| Fold {
                    fit: kept(&fold.fit),
                    validate: kept(&fold.validate),
                })
                .collect(),
            fit: kept(&everything.fit),
            calibrate: kept(&everything.calibrate),
        };
        let ones = vec![1.0; labels.len()];
        let thirds: Vec<f32> = labels
            .iter()
            .map(|label| if *label { 1.0 } else { 3.0 })
            .collect();
        for (split, weights, imbalance) in [
            (&everything, &ones, Imbalance::ClassWeight),
            (&everything, &ones, Imbalance::None),
            (&everything, &ones, Imbalance::Smote),
            (&everything, &ones, Imbalance::Downsample),
            (&thinned, &thirds, Imbalance::ClassWeight),
        ] {
            let ensemble = fit_quietly(
                &features,
                &labels,
                weights,
                split,
                &FitParams {
                    imbalance,
                    ..params()
                },
            )
            .unwrap();
            for (member, least) in [
                (ServeMember::Ensemble, 0.84),
                (ServeMember::Xgboost, 0.83),
                (ServeMember::RandomForest, 0.81),
                (ServeMember::LogisticRegression, 0.70),
            ] {
                let scores = member_scores(&ensemble, &test, member);
                let auc = roc_auc(&scores, &truth);
                assert!(auc > least, "{member:?} with {imbalance:?}: ROC AUC {auc}");
                assert!(
                    brier(&scores) < base * (1.0 - base) - 1e-3,
                    "{member:?} is worse than the base rate"
                );
                let mean = scores.iter().sum::<f64>() / scores.len() as f64;
                assert!(
                    (mean / base - 1.0).abs() < 0.12,
                    "{member:?} with {imbalance:?}: mean {mean}, base rate {base}"
                );
            }
        }
    }

    #[test]
    fn permuted_labels_teach_nothing() {
        let (features, mut labels) = rows(8000, 1);
        labels.shuffle(&mut ChaCha8Rng::seed_from_u64(3));
        let ensemble =
            fit_quietly(&features, &labels, &[1.0; 8000], &split(8000), &params()).unwrap();
        let (test, truth) = rows(20_000, 2);
        for member in ServeMember::ALL {
            let auc = roc_auc(&member_scores(&ensemble, &test, member), &truth);
            assert!((auc - 0.5).abs() < 0.12, "{member:?}: {auc}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_on_any_number_of_threads() {
        let files = |threads: usize, seed: u64| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let (features, labels) = rows(12_000, 1);
            let params = FitParams { seed, ..params() };
            pool.install(|| {
                fit_quietly(&features, &labels, &[1.0; 12_000], &split(12_000), &params)
                    .unwrap()
                    .to_files(&names())
            })
        };
        assert_eq!(files(1, 7), files(2, 7));
        assert_ne!(files(2, 7), files(2, 8));
    }

    #[test]
    fn the_folds_choose_and_say_what_they_saw() {
        let (features, labels) = rows(6000, 1);
        let everything = FitParams {
            imbalance: Imbalance::Auto,
            search: true,
            ..params()
        };
        let ones = vec![1.0; 6000];
        let fitted = try_fit(&features, &labels, &ones, &split(6000), &everything).unwrap();
        let of = |member: &'static str| fitted.trials.iter().filter(move |t| t.member == member);
        assert_eq!((of("xgboost").count(), of("random_forest").count()), (8, 3));
        for member in ["xgboost", "random_forest"] {
            let chosen: Vec<_> = of(member).filter(|trial| trial.chosen).collect();
            assert_eq!(chosen.len(), 1, "{:?}", fitted.trials);
            // Nothing else is better by more than the margin.
            let best = of(member).map(|t| t.average_precision).fold(0.0, f64::max);
            assert!(
                chosen[0].average_precision * 1.02 > best,
                "{:?}",
                fitted.trials
            );
        }
        assert_ne!(fitted.params.imbalance, Imbalance::Auto);
        let same = FitParams {
            search: false,
            ..fitted.params
        };
        let again = try_fit(&features, &labels, &ones, &split(6000), &same).unwrap();
        assert_eq!(again.ensemble, fitted.ensemble);

        let mut none = split(6000);
        none.folds.clear();
        let fitted = try_fit(&features, &labels, &ones, &none, &everything).unwrap();
        assert_eq!(fitted.trials, []);
        assert_eq!(fitted.params.imbalance, Imbalance::None);
    }

    /// Failures come at one hour, and now and then with a signal; most signals say nothing.
    #[test]
    fn trees_of_the_calendar_alone_are_added_where_the_folds_gain_by_them() {
        const SIGNALS: usize = 20;
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut features = Matrix::new(1 + SIGNALS);
        let mut labels = Vec::new();
        for row in 0..6000 {
            let hour = (row % 24) as f32;
            let signals: [f32; SIGNALS] = std::array::from_fn(|_| rng.random_range(-1.0..1.0));
            let z = -4.0 + 1.5 * f64::from(u8::from(hour == 7.0)) + 1.5 * f64::from(signals[0]);
            features.data.push(hour);
            features.data.extend(signals);
            labels.push(rng.random_bool(sigmoid(z)));
        }
        let ones = vec![1.0; 6000];
        let searching = FitParams {
            imbalance: Imbalance::None,
            search: true,
            ..params()
        };
        let fit_with = |hours: Vec<usize>, params: &FitParams| {
            let mut inputs: Vec<Vec<usize>> = (0..=SIGNALS).map(|column| vec![column]).collect();
            inputs[0] = hours;
            let set = TrainingSet {
                features: &features,
                labels: &labels,
                weights: &ones,
                inputs: &inputs,
            };
            fit(&set, &split(6000), params, &|_, _| ()).unwrap()
        };
        let of_ensemble = |fitted: &Fitted| -> Vec<Trial> {
            let mut trials = fitted.trials.clone();
            trials.retain(|trial| trial.member == "ensemble");
            trials
        };
        let fitted = fit_with(Vec::new(), &searching);
        let trials = of_ensemble(&fitted);
        let [without, with] = &trials[..] else {
            panic!("{trials:?}")
        };
        assert!(with.choice.ends_with("trees of the calendar"), "{with:?}");
        assert!(with.average_precision > without.average_precision);
        assert!(with.chosen && !without.chosen && fitted.params.calendar);
        // What was chosen is fitted again without a search, and the hour counts.
        let again = fit_with(
            Vec::new(),
            &FitParams {
                search: false,
                ..fitted.params.clone()
            },
        );
        assert_eq!(again.ensemble, fitted.ensemble);
        let mut contributions = [0.0; 1 + SIGNALS];
        let bias = again.ensemble.explain(features.row(7), &mut contributions);
        assert!(contributions[0] > 0.0, "{contributions:?}");
        let score = again.ensemble.stack_score(features.row(7));
        assert!((bias + contributions.iter().sum::<f64>() - score).abs() < 1e-6);
        contributions = [0.0; 1 + SIGNALS];
        let bias = again
            .ensemble
            .shap()
            .explain(features.row(7), &mut contributions);
        assert!((bias + contributions.iter().sum::<f64>() - score).abs() < 1e-6);
        let names: Vec<String> = (0..=SIGNALS).map(|column| format!("c{column}")).collect();
        let files = again.ensemble.to_files(&names);
        assert_eq!(
            Ensemble::from_files(&files, &names).unwrap(),
            again.ensemble
        );

        // No column is the calendar's.
        let fitted = fit_with(vec![0], &searching);
        assert_eq!(of_ensemble(&fitted).len(), 1);
        assert!(!fitted.params.calendar);
    }

    #[test]
    fn trees_that_see_one_signal_each_still_add_up() {
        let (features, labels) = rows(6000, 1);
        let narrow = FitParams {
            signals_per_tree: 0.1,
            ..params()
        };
        let ones = vec![1.0; 6000];
        let ensemble = fit_quietly(&features, &labels, &ones, &split(6000), &narrow).unwrap();
        let mut contributions = [0.0; COLUMNS];
        ensemble.explain(features.row(0), &mut contributions);
        let (test, truth) = rows(10_000, 2);
        let auc = roc_auc(
            &member_scores(&ensemble, &test, ServeMember::Xgboost),
            &truth,
        );
        // XOR needs two signals at once.
        assert!((0.6..0.8).contains(&auc), "{auc}");
    }

    #[test]
    fn the_order_of_rows_hardly_matters() {
        let (ensemble, features, labels) = fitted(12_000);
        // Within the parts only, which stay in time order.
        let mut order: Vec<usize> = (0..12_000).collect();
        for part in order.chunks_mut(2400) {
            part.shuffle(&mut ChaCha8Rng::seed_from_u64(4));
        }
        let shuffled = Matrix {
            columns: COLUMNS,
            data: order
                .iter()
                .flat_map(|row| features.row(*row))
                .copied()
                .collect(),
        };
        let relabelled: Vec<bool> = order.iter().map(|row| labels[*row]).collect();
        let other = fit_quietly(
            &shuffled,
            &relabelled,
            &[1.0; 12_000],
            &split(12_000),
            &params(),
        )
        .unwrap();
        let (test, truth) = rows(10_000, 2);
        for member in ServeMember::ALL {
            let auc =
                |ensemble: &Ensemble| roc_auc(&member_scores(ensemble, &test, member), &truth);
            assert!((auc(&ensemble) - auc(&other)).abs() < 0.01, "{member:?}");
        }
    }

    #[test]
    fn contributions_and_bias_are_the_stack_score() {
        let (ensemble, features, _) = fitted(6000);
        let shap = ensemble.shap();
        for i in 0..300 {
            let row = features.row(i);
            let paths = |row: &[f32], out: &mut [f64]| ensemble.explain(row, out);
            let shap = |row: &[f32], out: &mut [f64]| shap.explain(row, out);
            for explain in [&paths as &dyn Fn(&[f32], &mut [f64]) -> f64, &shap] {
                let mut contributions = [0.0; COLUMNS];
                let bias = explain(row, &mut contributions);
                let sum = bias + contributions.iter().sum::<f64>();
                assert!((sum - ensemble.stack_score(row)).abs() < 1e-6);
                assert_eq!((contributions[CONSTANT], contributions[ABSENT]), (0.0, 0.0));
            }
        }
        let importance = ensemble.importance();
        assert!((importance.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        assert_eq!((importance[CONSTANT], importance[ABSENT]), (0.0, 0.0));
        let (xor, noise) = (
            importance[XOR.0] + importance[XOR.1],
            importance[4] + importance[7],
        );
        assert!(xor > 2.0 * noise, "{importance:?}");
    }

    /// XGBoost adds in single precision.
    #[test]
    fn the_forest_is_added_without_rounding_in_single_precision() {
        let (ensemble, features, _) = fitted(6000);
        let forest = ensemble.members.random_forest.unwrap();
        for i in 0..300 {
            let row = features.row(i);
            let leaves = forest.trees.roots.iter().map(|root| {
                let leaf = forest.trees.leaf(*root, row);
                forest.trees.nodes[leaf].threshold
            });
            assert_eq!(f64::from(leaves.sum::<f32>()), forest.score(row));
        }
    }

    #[test]
    fn blocks_and_files_give_the_same_bits() {
        let (ensemble, features, _) = fitted(6000);
        let files = ensemble.to_files(&names());
        let loaded = Ensemble::from_files(&files, &names()).unwrap();
        assert_eq!(loaded, ensemble);
        assert_eq!(loaded.to_files(&names()), files);
        for (i, score) in loaded.score_rows(&features).into_iter().enumerate() {
            assert_eq!(score, ensemble.score(features.row(i)));
        }
        let mut bounds = ensemble
            .score_rows(&features)
            .into_iter()
            .flat_map(|score| ServeMember::ALL.map(|member| score.of(member).unwrap()));
        assert!(bounds.all(|p| (1e-4..=1.0 - 1e-4).contains(&p)));
    }

    #[test]
    fn works_without_folds_and_with_few_positives() {
        let (features, mut labels) = rows(3000, 1);
        let mut few = split(3000);
        few.folds.clear();
        let without = fit_quietly(&features, &labels, &[1.0; 3000], &few, &params()).unwrap();
        let (test, truth) = rows(10_000, 2);
        assert!(
            roc_auc(
                &member_scores(&without, &test, ServeMember::Ensemble),
                &truth
            ) > 0.75
        );
        let mut kept = 0;
        for label in &mut labels[..2400] {
            kept += usize::from(*label);
            *label &= kept <= 3;
        }
        let ensemble =
            fit_quietly(&features, &labels, &[1.0; 3000], &split(3000), &params()).unwrap();
        let score = ensemble.score(features.row(0));
        assert!(
            ServeMember::ALL
                .iter()
                .all(|member| score.of(*member).unwrap().is_finite())
        );
    }

    #[test]
    fn what_cannot_be_fitted_is_refused_by_name() {
        let (features, labels) = rows(1000, 1);
        let good = || {
            (
                features.clone(),
                labels.clone(),
                vec![1.0f32; 1000],
                split(1000),
            )
        };
        let check = |change: &dyn Fn(&mut Problem), message: &str| {
            let mut case = good();
            change(&mut case);
            let error = fit_quietly(&case.0, &case.1, &case.2, &case.3, &params())
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(message),
                "{error:?} does not say {message:?}"
            );
        };
        check(&|case| case.3.fit.clear(), "no rows to fit;");
        check(&|case| case.3.calibrate.clear(), "no rows to calibrate;");
        check(
            &|case| case.1.fill(false),
            "rows to fit are of one class only (0 positives of 800 rows",
        );
        check(
            &|case| case.1[800..].fill(true),
            "rows to calibrate are of one class only (200 positives of 200",
        );
        check(&|case| case.2[17] = f32::NAN, "weight NaN of row 17");
        check(&|case| case.2[17] = f32::INFINITY, "weight inf of row 17");
        check(&|case| case.2[17] = -1.0, "weight -1 of row 17");
        check(
            &|case| case.0.data.fill(f32::NAN),
            "every feature of every row is missing",
        );
        check(&|case| case.2.truncate(3), "weights: found 3");
        check(
            &|case| case.3.fit.push(1000),
            "row number in the split: found 1000",
        );
        check(&|case| case.0.columns = 0, "columns: found 0");
        check(&|case| case.0.data.truncate(9), "feature values: found 9");
    }

    #[test]
    fn infinite_and_huge_features_do_no_harm() {
        let (mut features, labels) = rows(4000, 1);
        for (i, x) in [f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN]
            .into_iter()
            .cycle()
            .take(400)
            .enumerate()
        {
            features.data[i * 9 * COLUMNS + i % 5] = x;
        }
        let ensemble =
            fit_quietly(&features, &labels, &[1.0; 4000], &split(4000), &params()).unwrap();
        assert!(
            ensemble
                .score_rows(&features)
                .iter()
                .all(|score| score.ensemble.is_finite()
                    && score.logistic_regression.unwrap().is_finite())
        );
    }

    #[test]
    fn foreign_and_damaged_files_are_refused() {
        let (ensemble, ..) = fitted(2000);
        let files = ensemble.to_files(&names());
        let check = |file: &str, change: &dyn Fn(&str) -> String, message: &str| {
            let mut changed = files.clone();
            let text = change(std::str::from_utf8(&files[file]).unwrap());
            changed.insert(file.to_owned(), text.into_bytes());
            let error = Ensemble::from_files(&changed, &names())
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(message),
                "{error:?} does not say {message:?}"
            );
        };
        let replace = |from: &'static str, to: &'static str| {
            move |text: &str| {
                assert!(text.contains(from), "{from}");
                text.replacen(from, to, 1)
            }
        };
        for file in files.keys() {
            check(
                file,
                &|text| text[..text.len() / 2].to_owned(),
                "not a model file of the expected form: EOF",
            );
            check(
                file,
                &|_| "[]".to_owned(),
                "not a model file of the expected form",
            );
            let mut fewer = files.clone();
            fewer.remove(file);
            let error = Ensemble::from_files(&fewer, &names()).unwrap_err();
            assert_eq!(error.to_string(), format!("{file} is missing in the model"));
        }
        for file in [XGBOOST, FOREST, LINEAR] {
            check(
                file,
                &replace("\"column_3\"", "\"other\""),
                "column 4 is `other`, expected `column_3`",
            );
        }
        check(
            XGBOOST,
            &replace("binary:logistic", "rank:ndcg"),
            "its objective is rank:ndcg, expected binary:logistic",
        );
        check(
            XGBOOST,
            &replace("gbtree\"", "dart\""),
            "its booster is dart",
        );
        check(
            XGBOOST,
            &replace("\"num_class\":\"0\"", "\"num_class\":\"3\""),
            "it has 3 classes",
        );
        check(
            XGBOOST,
            &replace("\"base_score\":\"", "\"base_score\":\"7"),
            "is not a usable number",
        );
        check(
            XGBOOST,
            &replace("\"left_children\":[1,", "\"left_children\":[0,"),
            "node 0 is reached twice",
        );
        check(
            XGBOOST,
            &replace("\"left_children\":[1,", "\"left_children\":[2,"),
            "reached twice",
        );
        check(
            XGBOOST,
            &replace("\"left_children\":[1,", "\"left_children\":[9999,"),
            "has children 9999 and 2",
        );
        check(
            XGBOOST,
            &replace("\"left_children\":[1,", "\"left_children\":[-1,"),
            "has children -1 and 2",
        );
        check(
            XGBOOST,
            &replace("\"left_children\":[1,", "\"left_children\":["),
            "left_children has",
        );
        check(
            XGBOOST,
            &replace("\"split_indices\":[", "\"split_indices\":[1"),
            "splits on column 1",
        );
        check(
            XGBOOST,
            &replace("\"split_type\":[0", "\"split_type\":[1"),
            "splits on categories",
        );
        check(
            XGBOOST,
            &replace("\"split_conditions\":[", "\"split_conditions\":[1e39,"),
            "number out of range",
        );
        check(
            XGBOOST,
            &replace("\"default_left\":[", "\"default_left\":[7,"),
            "7 is neither 0 nor 1",
        );
        check(
            LINEAR,
            &replace(
                "{\"median\"",
                "{\"median\":0,\"mean\":0,\"scale\":1,\"weight\":0},{\"median\"",
            ),
            "it has 9 terms, expected 8",
        );
        check(
            CALIBRATION,
            &replace("\"slope\":", "\"slope\":-"),
            "the slope must be",
        );
        check(
            CALIBRATION,
            &replace("\"intercept\":", "\"intercept\":1e99,\"\":"),
            "the stack has a number beyond 1e60",
        );
        check(
            LINEAR,
            &replace("\"weight\":", "\"weight\":1e99,\"\":"),
            "it has a number beyond 1e60",
        );

        // Any single damaged byte: an error or a model that still answers.
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        for file in files.keys() {
            for _ in 0..100 {
                let mut damaged = files.clone();
                if let Some(bytes) = damaged.get_mut(file) {
                    let at = rng.random_range(0..bytes.len());
                    bytes[at] = b"0123456789-.,[]{}\"e"[rng.random_range(0..19)];
                }
                if let Ok(ensemble) = Ensemble::from_files(&damaged, &names()) {
                    assert!(ensemble.score(&[f32::NAN; COLUMNS]).ensemble.is_finite());
                }
            }
        }

        let fewer = &names()[..7];
        let error = Ensemble::from_files(&files, fewer).unwrap_err().to_string();
        assert!(
            error.contains("column 8 is `column_7`, expected absent"),
            "{error}"
        );
    }
}
