//! What a user may set about each member; the defaults are those of `config.yaml`.

/// What is done about failures being rare, for the tree members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Imbalance {
    None,
    ClassWeight,
    /// Synthetic positives.
    Smote,
    /// Fewer negatives, each with more weight.
    Downsample,
    /// What the time folds say is best.
    Auto,
}

impl Imbalance {
    pub const METHODS: [Imbalance; 4] = [
        Imbalance::None,
        Imbalance::ClassWeight,
        Imbalance::Smote,
        Imbalance::Downsample,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Imbalance::ClassWeight => "class_weight",
            Imbalance::None => "none",
            Imbalance::Smote => "smote",
            Imbalance::Downsample => "downsample",
            Imbalance::Auto => "auto",
        }
    }

    /// How much more the positives count than they weigh, from the weight of each class. The square root
    /// of the classes' ratio: with the full one a few positives decide whole leaves (boosted trees and
    /// forest, 1.4 % positives: average precision 0.105 and 0.108 against 0.114 and 0.121).
    pub fn ratio(self, positive: f64, negative: f64) -> f64 {
        match self {
            Imbalance::ClassWeight | Imbalance::Smote | Imbalance::Auto => {
                (negative / positive).sqrt()
            }
            Imbalance::None | Imbalance::Downsample => 1.0,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct XgboostParams {
    pub n_estimators: usize,
    pub learning_rate: f64,
    pub max_depth: usize,
    /// Minimum sum of hessians in a leaf. 15
    pub min_child_weight: f64,
    /// L2 on leaf values. 1
    pub lambda: f64,
    /// Rounds without a better validation loss before boosting of a fold stops. 30
    pub early_stopping_rounds: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ForestParams {
    pub n_estimators: usize,
    pub max_depth: usize,
    /// 20
    pub min_samples_leaf: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LogisticParams {
    /// L2 penalty.
    pub alpha: f64,
}
