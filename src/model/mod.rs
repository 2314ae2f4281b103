//! The ensemble: boosted trees, random forest and logistic regression, stacked and calibrated.
//!
//! ```text
//! row ─► boosted trees  ─► logit ───────┐
//!     ─► random forest  ─► mean share ──┼─► stack (log-odds) ─► + ─► calibration ─► probability
//!     ─► linear member  ─► logit ───────┘                       │
//!     ─► calendar's trees, if any ─► log-odds ──────────────────┘
//! ```
//!
//! Rows are dense `f32` in the catalogue's column order; NaN means missing.

mod bins;
mod boosted;
mod calibration;
mod ensemble;
mod fit;
mod forest;
mod logistic;
mod matrix;
mod newton;
mod packed;
mod params;
mod shap;
mod smote;
mod subspace;
mod tree;
mod xgboost_json;

pub use ensemble::{Ensemble, EnsembleShap, RawScore, Score};
pub use fit::{FitError, FitParams, Fitted, Fold, Split, TrainingSet, Trial, adopt, fit};
pub use matrix::Matrix;
pub use params::{ForestParams, Imbalance, LogisticParams, XgboostParams};
pub use xgboost_json::{LoadError, TreeModel, import};

/// Whether a number of a model file is none that sums and products of several would overflow with.
fn is_usable(x: f64) -> bool {
    x.abs() <= 1e60
}

fn logit(p: f64) -> f64 {
    (p / (1.0 - p)).ln()
}

fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}
