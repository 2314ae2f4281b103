//! One target's answer at one instant, and the snapshot that readers see.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use serde::Serialize;

use crate::course::Course;
use crate::drift::Drift;
use crate::model::Score;
use crate::risk::with_unit;
use crate::scoreboard::Summary;
use crate::time::{Timestamp, format_rough};
use crate::tracker::Tracker;
use crate::types::{Labels, RiskLevel, Shard, Signal, TargetId, TargetState, Unit};

#[derive(Clone, Debug)]
pub struct Assessment {
    pub target: TargetId,
    /// `targets.extra_labels` with their values, in config order.
    pub labels: Labels,
    /// Shared with the cycle, which moves it on.
    pub live: Live,
    /// What was said of it of late; empty until the cycle is published.
    pub course: Course,
    pub state: TargetState,
    /// Present exactly when `state` is [`TargetState::Ok`].
    pub risk: Option<Risk>,
}

/// The samples of a target as far as the newest cycle has them.
#[derive(Clone, Debug)]
pub struct Live(Arc<RwLock<Tracker>>);

impl Live {
    pub fn new(tracker: Tracker) -> Self {
        Self(Arc::new(RwLock::new(tracker)))
    }

    /// Of no signal: an example.
    pub fn of_nothing() -> Self {
        let step = Duration::from_secs(60);
        let rules = crate::labels::FailureRules {
            step,
            min_duration: Duration::ZERO,
            merge_gap: step,
            recovery: step,
            horizon: step,
        };
        let limits = crate::tracker::Limits {
            min_signals: 0.0,
            fresh_steps: 1,
            min_coverage: 0.0,
        };
        let catalogue = crate::features::Catalogue::new(&[], step, step);
        Self::new(Tracker::new(&catalogue, rules, limits))
    }

    /// A panic elsewhere leaves at worst a step that is not whole, which is missing samples.
    pub fn read(&self) -> RwLockReadGuard<'_, Tracker> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, Tracker> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Debug)]
pub struct Risk {
    /// Calibrated, of the member that `model.serve` names.
    pub probability: f64,
    pub score: Score,
    pub level: RiskLevel,
    /// What the model in the shadow says.
    pub shadow: Option<f64>,
    /// Strongest first; empty below the explanation threshold.
    pub reasons: Vec<Reason>,
}

/// Part of a score that one feature accounts for.
#[derive(Clone, Debug, PartialEq, serde::Serialize, utoipa::ToSchema)]
pub struct Reason {
    #[schema(example = "memory_usage_slope_60m")]
    pub feature: String,
    /// The feature's value; null where it is missing.
    #[schema(required, example = 4.2)]
    pub value: Option<f64>,
    /// In log-odds of the stack's score; positive raises the risk.
    #[schema(example = 1.31)]
    pub contribution: f64,
}

impl Reason {
    /// A feature and its value as a person would say it. Names are made by the catalogue: signal, statistic, span.
    pub fn in_words(&self, signals: &[Signal]) -> String {
        let feature = self.feature.as_str();
        let Some(value) = self.value else {
            return format!("{} is missing", feature.replace('_', " "));
        };
        let of_signal = signals
            .iter()
            .filter_map(|signal| Some((signal, feature.strip_prefix(signal.name.as_str())?)))
            .filter(|(_, rest)| rest.is_empty() || rest.starts_with('_'))
            .max_by_key(|(signal, _)| signal.name.len());
        let Some((signal, rest)) = of_signal else {
            return match feature {
                "hour_sin" | "hour_cos" => "the time of day".into(),
                "is_weekend" => "the day of the week".into(),
                _ => format!(
                    "{} is {}",
                    feature.replace('_', " "),
                    with_unit(value, Unit::None)
                ),
            };
        };
        let name = signal.name.trim_end_matches("_ms").replace('_', " ");
        let (statistic, span) = rest.rsplit_once('_').unwrap_or_default();
        let amount = |value| with_unit(value, signal.unit);
        match statistic.trim_start_matches('_') {
            "" => format!("{name} is {}", amount(value)),
            "lag" => format!("{name} was {} {span} ago", amount(value)),
            "delta" if value < 0.0 => format!("{name} fell by {} in {span}", amount(-value)),
            "delta" => format!("{name} rose by {} in {span}", amount(value)),
            "mean" => format!("{name} is {} on average over {span}", amount(value)),
            "std" => format!("{name} varies by {} over {span}", amount(value)),
            "max" => format!("{name} reached {} within {span}", amount(value)),
            "slope" if value < 0.0 => {
                format!("{name} falls by {} per hour ({span})", amount(-value))
            }
            "slope" => format!("{name} rises by {} per hour ({span})", amount(value)),
            "projection" => format!("{name} heads for {} ({span})", amount(value)),
            "time_to_limit" => format!(
                "{name} reaches its limit in {} ({span})",
                format_rough(Duration::from_secs_f64((value * 3600.0).max(0.0)))
            ),
            "ratio" => format!("{name} is {value:.1} times its mean of {span}"),
            // What has a limit is told in parts of the way there, all else in times what is normal.
            "departure" | "growth" if signal.unit.limit().is_some() => {
                let way = format!(
                    "{:.0} % of the way from normal to its limit",
                    value.abs() * 100.0
                );
                match (statistic, value < 0.0) {
                    ("_departure", false) => format!("{name} is {way}"),
                    ("_departure", true) => format!("{name} is below its normal"),
                    (_, false) => format!("{name} went {way} in {span}"),
                    (_, true) => format!("{name} fell in {span}"),
                }
            }
            "departure" if value < -0.05 => format!("{name} is below its normal"),
            "departure" if value < 0.05 => format!("{name} is as usual"),
            "departure" => format!("{name} is about {:.1} times its normal", 1.0 + value.sinh()),
            "growth" if value < 0.0 => format!("{name} fell in {span}"),
            "growth" => format!(
                "{name} rose by about {:.1} times its normal in {span}",
                value.sinh()
            ),
            _ => format!("{} is {value:.2}", feature.replace('_', " ")),
        }
    }
}

/// What one cycle published. Readers share it; nobody changes it, but for the samples that it refers to.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Evaluation time of the cycle.
    pub at: Timestamp,
    /// Whether Prometheus answered; without it every target is stale.
    pub prometheus_up: bool,
    /// Whose targets these are.
    pub shard: Shard,
    /// Ordered by target.
    pub assessments: Vec<Assessment>,
    pub scoreboard: Summary,
    /// Of the model in the shadow.
    pub shadow: Option<ShadowBoard>,
    /// `None` where it is not known.
    pub drift: Option<Drift>,
}

/// How good a candidate's predictions have been, which nobody was told.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct ShadowBoard {
    pub model_id: String,
    #[serde(flatten)]
    pub summary: Summary,
}

impl Snapshot {
    pub fn find(&self, target: &str) -> Option<&Assessment> {
        find(&self.assessments, target)
    }

    /// Why a target cannot be among these, whether it exists or not.
    pub fn is_elsewhere(&self, target: &str) -> Option<String> {
        let shard = self.shard;
        (!shard.owns(target)).then(|| {
            let owner = shard.owner(target);
            format!("it belongs to the forewarn with --shard.index {owner}, this one is {shard}")
        })
    }
}

/// A target's among assessments that are ordered by target.
pub fn find<'a>(assessments: &'a [Assessment], target: &str) -> Option<&'a Assessment> {
    let order = |a: &Assessment| a.target.as_str().cmp(target);
    let at = assessments.binary_search_by(order).ok()?;
    assessments.get(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_said_in_words() {
        let signals = [
            ("cpu_usage", Unit::Percent),
            ("cpu_usage_extra", Unit::None),
            ("response_time_ms", Unit::Milliseconds),
        ]
        .map(|(name, unit)| Signal {
            name: name.into(),
            unit,
        });
        for (feature, value, words) in [
            ("cpu_usage", 93.46, "cpu usage is 93.5 %"),
            ("cpu_usage_lag_5m", 12.0, "cpu usage was 12 % 5m ago"),
            (
                "cpu_usage_slope_60m",
                -3.25,
                "cpu usage falls by 3.2 % per hour (60m)",
            ),
            (
                "cpu_usage_time_to_limit_60m",
                0.42,
                "cpu usage reaches its limit in 25m (60m)",
            ),
            (
                "cpu_usage_extra_ratio_120m",
                3.26,
                "cpu usage extra is 3.3 times its mean of 120m",
            ),
            (
                "response_time_ms_delta_5m",
                250.0,
                "response time rose by 250 ms in 5m",
            ),
            ("max_utilization", 94.21, "max utilization is 94.2"),
            (
                "cpu_usage_departure_1d",
                0.43,
                "cpu usage is 43 % of the way from normal to its limit",
            ),
            (
                "cpu_usage_growth_30m",
                0.2,
                "cpu usage went 20 % of the way from normal to its limit in 30m",
            ),
            ("cpu_usage_growth_30m", -0.2, "cpu usage fell in 30m"),
            (
                "response_time_ms_departure_1d",
                1.5,
                "response time is about 3.1 times its normal",
            ),
            (
                "response_time_ms_departure_1d",
                -0.4,
                "response time is below its normal",
            ),
            (
                "response_time_ms_growth_30m",
                1.0,
                "response time rose by about 1.2 times its normal in 30m",
            ),
            ("hour_sin", 0.5, "the time of day"),
        ] {
            let reason = Reason {
                feature: feature.into(),
                value: Some(value),
                contribution: 1.0,
            };
            assert_eq!(reason.in_words(&signals), words);
        }
    }
}
