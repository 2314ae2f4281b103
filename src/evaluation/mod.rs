//! What scores are worth: rows ranked and calibrated, alarms and incidents counted as a person would be paged.

pub mod alarms;
pub mod baselines;
pub mod bootstrap;
pub mod curves;
pub mod events;
pub mod live;
pub mod ranking;
pub mod report;
pub mod threshold;
pub mod versus;

pub use alarms::{Alarm, AlarmCutter, AlarmRule, Outcome};
pub use baselines::{Baseline, Prior, RawSeries};
pub use events::{Scores, Track};
pub use ranking::Rows;
pub use report::{EnsembleReport, Evaluation, Input, evaluate};
pub use threshold::{per_target_week, threshold_within_budget};
pub use versus::Versus;
