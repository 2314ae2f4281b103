//! The feature catalogue and its one engine, used by training, backtest, serving and `/predict` alike.

mod catalogue;
mod statistic;

pub use catalogue::{Catalogue, FeatureSpec, KNOWN_SIGNALS, is_reserved};
pub use statistic::Statistic;
