//! What to do about a risk: concrete actions from its level and the signals that drive it.

use std::time::Duration;

use crate::table::percent;
use crate::time::format_duration;
use crate::types::{RiskLevel, Unit};

/// A signal that raises a score, with its newest value where there is one.
#[derive(Clone, Debug, PartialEq)]
pub struct Driver<'a> {
    pub signal: &'a str,
    pub unit: Unit,
    pub value: Option<f64>,
}

/// Actions for a person, the most urgent first; never empty.
///
/// `alarms` says that the probability is at the alert threshold or above it, which may be below every level. `drivers` stand
/// strongest first. Below [`RiskLevel::Low`] no signal is worth an action unless it alarms.
pub fn recommendations(
    level: RiskLevel,
    alarms: bool,
    horizon: Duration,
    drivers: &[Driver],
) -> Vec<String> {
    let within = format_duration(horizon);
    let first = match level {
        RiskLevel::Critical => format!(
            "Act now: a failure within {within} is likely. Call the person on duty, stop deploys, prepare failover or rollback."
        ),
        RiskLevel::High => format!(
            "Investigate now: a failure within {within} is more likely than not. Have the mitigation ready."
        ),
        RiskLevel::Medium => {
            format!("Watch this target for the next {within} and find the cause before it grows.")
        }
        RiskLevel::Low | RiskLevel::Minimal if alarms => format!(
            "At the alert threshold: a failure within {within} is more likely than usual. Look at this target now, whatever the level is called."
        ),
        RiskLevel::Low => "Slightly raised risk: look again at the next opportunity.".to_string(),
        RiskLevel::Minimal => return vec!["Nothing to do: no sign of a coming failure.".into()],
    };
    std::iter::once(first)
        .chain(drivers.iter().map(action))
        .collect()
}

fn action(driver: &Driver) -> String {
    let (name, advice) = match driver.signal {
        "cpu_usage" => (
            "CPU",
            "look for a runaway process, a fresh deploy or a batch job; add capacity or shed load",
        ),
        "memory_usage" => (
            "Memory",
            "look for a leak since the last deploy; plan a rolling restart before it runs out",
        ),
        "disk_usage" => (
            "Disk",
            "free space (logs, temporary files, old images) or extend the volume",
        ),
        "network_latency_ms" => (
            "Network latency",
            "check the path to the dependencies (name resolution, load balancer, remote side) and consider another route",
        ),
        "error_count" => (
            "Errors",
            "read the newest error logs; if they began with a deploy, roll it back",
        ),
        "response_time_ms" => (
            "Response time",
            "check slow database queries, locks, connection pools and downstream calls",
        ),
        "active_connections" => (
            "Connections",
            "look for requests that pile up behind a slow dependency; limit incoming traffic or raise the pool",
        ),
        other => (
            other,
            "compare it with its usual course and find what changed",
        ),
    };
    match driver.value {
        Some(value) => format!(
            "{name} ({}) raises this risk: {advice}.",
            with_unit(value, driver.unit)
        ),
        None => format!("{name} (no value now) raises this risk: {advice}."),
    }
}

/// A value as people write it.
pub fn with_unit(value: f64, unit: Unit) -> String {
    let number = if value.abs() >= 100.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    };
    match unit {
        Unit::Percent if value.fract() != 0.0 && value.abs() < 1.0 => {
            format!("{} %", percent(value / 100.0, 1))
        }
        Unit::Percent => format!("{number} %"),
        Unit::Milliseconds => format!("{number} ms"),
        Unit::Seconds => format!("{value:.2} s"),
        Unit::Ratio => format!("{} %", percent(value, 1)),
        Unit::Bytes => format!("{:.1} MiB", value / (1024.0 * 1024.0)),
        Unit::Count | Unit::None => number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HORIZON: Duration = Duration::from_secs(1800);

    #[test]
    fn actions_follow_the_level_and_the_drivers() {
        let drivers = [
            Driver {
                signal: "memory_usage",
                unit: Unit::Percent,
                value: Some(93.46),
            },
            Driver {
                signal: "queue_depth",
                unit: Unit::Count,
                value: None,
            },
        ];
        let actions = recommendations(RiskLevel::Critical, true, HORIZON, &drivers);
        assert_eq!(actions.len(), 3);
        assert!(actions[0].starts_with("Act now: a failure within 30m"));
        assert!(actions[1].starts_with("Memory (93.5 %)"));
        assert!(actions[2].starts_with("queue_depth (no value now)"));
        assert_eq!(
            recommendations(RiskLevel::Minimal, false, HORIZON, &drivers),
            ["Nothing to do: no sign of a coming failure."]
        );
        for level in [RiskLevel::Minimal, RiskLevel::Low] {
            let actions = recommendations(level, true, HORIZON, &drivers);
            assert_eq!(actions.len(), 3);
            assert!(actions[0].starts_with("At the alert threshold: a failure within 30m"));
        }
    }

    #[test]
    fn values_carry_their_unit() {
        for (value, unit, text) in [
            (1234.5, Unit::Milliseconds, "1234 ms"),
            (12.0, Unit::Count, "12"),
            (0.25, Unit::Ratio, "25.0 %"),
            (0.0006, Unit::Ratio, "0.06 %"),
            (0.04, Unit::Percent, "0.04 %"),
            (0.034, Unit::Seconds, "0.03 s"),
            (3.0 * 1024.0 * 1024.0, Unit::Bytes, "3.0 MiB"),
        ] {
            assert_eq!(with_unit(value, unit), text);
        }
    }
}
