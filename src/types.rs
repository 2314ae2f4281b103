//! The nouns that every layer shares: targets, signals, units, incidents, risk levels, states.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::time::Timestamp;

/// Name of one monitored thing: the values of `targets.label` joined with `/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct TargetId(Arc<str>);

impl From<String> for TargetId {
    fn from(name: String) -> Self {
        Self::new(name)
    }
}

impl From<TargetId> for String {
    fn from(target: TargetId) -> Self {
        target.to_string()
    }
}

impl TargetId {
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for TargetId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// `targets.extra_labels` with their values, in config order.
pub type Labels = Arc<[(String, String)]>;

impl fmt::Display for TargetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a signal's numbers mean; decides its statistics and its valid range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// 0 to 100, bounded: has a projection to the horizon and a time to the limit.
    Percent,
    Milliseconds,
    Seconds,
    Count,
    /// 0 to 1, bounded.
    Ratio,
    Bytes,
    /// No unit; may be negative.
    None,
}

impl Unit {
    pub const ALL: [Unit; 7] = [
        Unit::Percent,
        Unit::Milliseconds,
        Unit::Seconds,
        Unit::Count,
        Unit::Ratio,
        Unit::Bytes,
        Unit::None,
    ];

    /// The name used in config, model files and docs.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Percent => "percent",
            Unit::Milliseconds => "milliseconds",
            Unit::Seconds => "seconds",
            Unit::Count => "count",
            Unit::Ratio => "ratio",
            Unit::Bytes => "bytes",
            Unit::None => "none",
        }
    }

    /// The value at which the signal is exhausted, for bounded units.
    pub fn limit(self) -> Option<f64> {
        match self {
            Unit::Percent => Some(100.0),
            Unit::Ratio => Some(1.0),
            _ => None,
        }
    }

    /// Inclusive range of values that a caller of the API may send.
    pub fn range(self) -> (f64, f64) {
        match self {
            Unit::None => (f64::MIN, f64::MAX),
            _ => (0.0, self.limit().unwrap_or(f64::MAX)),
        }
    }
}

/// A named input of the model: what `signals.<name>` in the config defines.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Signal {
    pub name: String,
    pub unit: Unit,
}

/// A period in which a target is failing. `end` is exclusive: the first instant known to be healthy again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    pub start: Timestamp,
    /// `None` while it goes on.
    pub end: Option<Timestamp>,
}

/// What told us that a target fails; of several at once the first counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// `failure.queries`
    Query,
    /// The `ALERTS` series in Prometheus.
    Alerts,
    /// Alertmanager's webhook.
    Webhook,
}

impl Source {
    pub const ALL: [Source; 3] = [Source::Query, Source::Alerts, Source::Webhook];

    pub fn name(self) -> &'static str {
        match self {
            Source::Query => "query",
            Source::Alerts => "alerts",
            Source::Webhook => "webhook",
        }
    }
}

/// What kind of failure an incident is, as far as its source tells. Only reports know it: nothing is
/// learned from it. Of several that are said of one sample the first in this order counts, then by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailureMode {
    /// Label `failure_mode` of a failure query's series.
    Named(String),
    /// Name of the alert.
    Alert(String),
    /// Config key of the query that has no more to say.
    Query(String),
    /// There are too many to tell apart.
    Other,
}

impl FailureMode {
    pub fn name(&self) -> &str {
        match self {
            FailureMode::Named(name) | FailureMode::Alert(name) | FailureMode::Query(name) => name,
            FailureMode::Other => "other",
        }
    }
}

/// Share of the risk scale a probability falls in; the bounds come from `risk_levels`.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum RiskLevel {
    Minimal,
    Low,
    Medium,
    High,
    Critical,
}

impl RiskLevel {
    pub fn name(self) -> &'static str {
        match self {
            RiskLevel::Minimal => "MINIMAL",
            RiskLevel::Low => "LOW",
            RiskLevel::Medium => "MEDIUM",
            RiskLevel::High => "HIGH",
            RiskLevel::Critical => "CRITICAL",
        }
    }
}

/// Lower bounds (exclusive) of the risk levels; ascending from `low` to `critical`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RiskLevels {
    pub critical: f64,
    pub high: f64,
    pub medium: f64,
    pub low: f64,
}

impl Default for RiskLevels {
    fn default() -> Self {
        Self {
            critical: 0.8,
            high: 0.6,
            medium: 0.4,
            low: 0.2,
        }
    }
}

impl RiskLevels {
    pub fn level(&self, probability: f64) -> RiskLevel {
        if probability > self.critical {
            RiskLevel::Critical
        } else if probability > self.high {
            RiskLevel::High
        } else if probability > self.medium {
            RiskLevel::Medium
        } else if probability > self.low {
            RiskLevel::Low
        } else {
            RiskLevel::Minimal
        }
    }
}

/// Why a target has, or has not, a probability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TargetState {
    Ok,
    WarmingUp,
    MissingData,
    Stale,
    OutOfDistribution,
    Failing,
    Excluded,
}

impl TargetState {
    pub const ALL: [TargetState; 7] = [
        TargetState::Ok,
        TargetState::WarmingUp,
        TargetState::MissingData,
        TargetState::Stale,
        TargetState::OutOfDistribution,
        TargetState::Failing,
        TargetState::Excluded,
    ];

    pub fn name(self) -> &'static str {
        match self {
            TargetState::Ok => "ok",
            TargetState::WarmingUp => "warming_up",
            TargetState::MissingData => "missing_data",
            TargetState::Stale => "stale",
            TargetState::OutOfDistribution => "out_of_distribution",
            TargetState::Failing => "failing",
            TargetState::Excluded => "excluded",
        }
    }
}

/// Which part of the ensemble answers: `model.serve`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServeMember {
    Ensemble,
    Xgboost,
    RandomForest,
    LogisticRegression,
}

impl ServeMember {
    pub const ALL: [ServeMember; 4] = [
        ServeMember::Ensemble,
        ServeMember::Xgboost,
        ServeMember::RandomForest,
        ServeMember::LogisticRegression,
    ];

    pub fn name(self) -> &'static str {
        match self {
            ServeMember::Ensemble => "ensemble",
            ServeMember::Xgboost => "xgboost",
            ServeMember::RandomForest => "random_forest",
            ServeMember::LogisticRegression => "logistic_regression",
        }
    }
}

/// Which of several processes this is, when they share the targets among them: each target belongs to exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: u32,
    count: u32,
}

impl Shard {
    /// The only one.
    pub const WHOLE: Shard = Shard { index: 0, count: 1 };

    /// `None` unless `index` is below `count`.
    pub fn new(index: u32, count: u32) -> Option<Self> {
        (index < count).then_some(Self { index, count })
    }

    pub fn count(self) -> u32 {
        self.count
    }

    pub fn owns(self, target: &str) -> bool {
        self.count == 1 || self.owner(target) == self.index
    }

    /// Index of the shard that a target belongs to: the first eight bytes of the SHA-256 of its name, as a big-endian number,
    /// modulo the count.
    pub fn owner(self, target: &str) -> u32 {
        let hash: [u8; 32] = Sha256::digest(target).into();
        let [a, b, c, d, e, f, g, h, ..] = hash;
        (u64::from_be_bytes([a, b, c, d, e, f, g, h]) % u64::from(self.count)) as u32
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {} of {}", self.index, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_itself_belongs_to_the_level_below() {
        let levels = RiskLevels::default();
        assert_eq!(levels.level(0.8), RiskLevel::High);
        assert_eq!(levels.level(0.8001), RiskLevel::Critical);
        assert_eq!(levels.level(0.2), RiskLevel::Minimal);
    }

    #[test]
    fn each_target_has_one_shard_for_ever() {
        let shards: Vec<Shard> = (0..3).filter_map(|i| Shard::new(i, 3)).collect();
        let mut sizes = [0; 3];
        for target in (0..3000).map(|i| format!("host-{i}")) {
            let owners: Vec<usize> = (0..3).filter(|&i| shards[i].owns(&target)).collect();
            assert_eq!(owners.len(), 1, "{target}");
            sizes[owners[0]] += 1;
            assert!(Shard::WHOLE.owns(&target));
        }
        assert!(
            sizes.iter().all(|size| (900..1100).contains(size)),
            "{sizes:?}"
        );
        // Another hash would move every target to another shard.
        let owners = ["web-1", "web-2", "ns/pod"].map(|target| shards[0].owner(target));
        assert_eq!(owners, [1, 1, 2]);
        assert_eq!(Shard::new(3, 3), None);
    }
}
