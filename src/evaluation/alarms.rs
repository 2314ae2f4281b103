//! How scores become alarms, and alarms outcomes: one page to a person, as a pager would send it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::labels::{FailureRules, acted_within};
use crate::time::{Timestamp, millis};
use crate::types::Incident;

/// When an alarm opens, what it covers and when it is decided.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlarmRule {
    /// An alarm needs a score of at least this. Finite in what is stored: 1 where nothing is to alarm.
    pub threshold: f64,
    for_ms: i64,
    horizon_ms: i64,
    step_ms: i64,
    confirmation_ms: i64,
}

impl AlarmRule {
    /// `for_` is the alert rule's own `for`.
    pub fn new(threshold: f64, for_: Duration, rules: &FailureRules) -> Self {
        Self {
            threshold,
            for_ms: millis(for_),
            horizon_ms: millis(rules.horizon),
            step_ms: millis(rules.step),
            confirmation_ms: millis(rules.confirmation()),
        }
    }

    pub fn with_threshold(self, threshold: f64) -> Self {
        Self { threshold, ..self }
    }

    pub fn horizon(&self) -> Duration {
        Duration::from_millis(self.horizon_ms.unsigned_abs())
    }

    pub fn step(&self) -> Duration {
        Duration::from_millis(self.step_ms.unsigned_abs())
    }

    /// From here on nothing can turn a row at `t` positive: its horizon is over and an incident at its end confirmed.
    pub fn row_known_at(&self, t: Timestamp) -> Timestamp {
        Timestamp(t.0 + self.horizon_ms + self.confirmation_ms)
    }

    /// Whether an incident that starts then makes a row at `t` positive.
    pub fn is_positive(&self, t: Timestamp, start: Timestamp) -> bool {
        t < start && start.0 - self.horizon_ms <= t.0
    }

    /// All alarms that were opened before are decided at `t`.
    pub fn undecided_since(&self, t: Timestamp) -> Timestamp {
        Timestamp(t.0 - 2 * self.horizon_ms - self.confirmation_ms)
    }

    /// From here on an alarm opened at `t` that nothing followed is false.
    pub fn false_at(&self, opened: Timestamp) -> Timestamp {
        Timestamp(opened.0 + 2 * self.horizon_ms + self.confirmation_ms)
    }
}

/// Covers `(opened, covers_until]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alarm {
    pub opened: Timestamp,
    pub covers_until: Timestamp,
    /// At the opening.
    pub score: f64,
}

impl Alarm {
    pub fn covers(&self, start: Timestamp) -> bool {
        self.opened < start && start <= self.covers_until
    }
}

/// State of one target's alarm rule; live and backtest push the same way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AlarmCutter {
    /// Since when the score has been at or above the threshold.
    since_ms: Option<i64>,
    covered_ms: Option<i64>,
    newest_ms: Option<i64>,
}

impl AlarmCutter {
    /// Whether the newest score is at or above the threshold.
    pub fn holds(&self) -> bool {
        self.since_ms.is_some()
    }

    /// Takes the score of each step in order. A step without a score, and a hole in the times, end the
    /// condition, as an absent series ends that of an alert rule; they do not close an open alarm.
    pub fn push(&mut self, rule: &AlarmRule, t: Timestamp, score: Option<f64>) -> Option<Alarm> {
        let newest = self.newest_ms.unwrap_or(i64::MIN);
        if t.0 <= newest {
            return None;
        }
        self.newest_ms = Some(t.0);
        let Some(score) = score.filter(|score| *score >= rule.threshold) else {
            self.since_ms = None;
            return None;
        };
        let since = match self.since_ms {
            Some(since) if t.0 - newest <= rule.step_ms => since,
            _ => t.0,
        };
        self.since_ms = Some(since);
        if t.0 - since < rule.for_ms || self.covered_ms.is_some_and(|until| t.0 < until) {
            return None;
        }
        let covers_until = Timestamp(t.0 + rule.horizon_ms);
        self.covered_ms = Some(covers_until.0);
        Some(Alarm {
            opened: t,
            covers_until,
            score,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// An incident starts within (opened, opened + H].
    Right,
    /// The first incident starts within (opened + H, opened + 2H].
    Early,
    /// No incident starts in that time, but somebody acted within (opened, opened + H], who may have prevented one.
    Uncertain,
    False,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Right => "right",
            Outcome::Early => "early",
            Outcome::Uncertain => "uncertain",
            Outcome::False => "false",
        }
    }
}

/// Outcome of an alarm, given all incidents (by start) that began before [`AlarmRule::false_at`] and all actions until then.
pub fn judge(
    alarm: &Alarm,
    incidents: &[Incident],
    actions: &[Timestamp],
    horizon: Duration,
) -> Outcome {
    match first_after(alarm.opened, incidents) {
        Some(start) if alarm.covers(start) => Outcome::Right,
        Some(start) if start <= alarm.covers_until.plus(horizon) => Outcome::Early,
        _ if acted_within(actions, alarm.opened, alarm.covers_until) => Outcome::Uncertain,
        _ => Outcome::False,
    }
}

/// Lead time of an incident: its start minus the opening of the earliest alarm that covers it.
pub fn foreseen<'a>(
    start: Timestamp,
    alarms: impl IntoIterator<Item = &'a Alarm>,
) -> Option<Duration> {
    let covering = alarms.into_iter().filter(|alarm| alarm.covers(start));
    covering.map(|alarm| start.since(alarm.opened)).max()
}

/// Start of the first incident after `t`; incidents are ordered by start.
pub fn first_after(t: Timestamp, incidents: &[Incident]) -> Option<Timestamp> {
    let first = incidents.partition_point(|incident| incident.start <= t);
    incidents.get(first).map(|incident| incident.start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(n: u64) -> Duration {
        Duration::from_secs(n * 60)
    }

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_secs(minute * 60)
    }

    fn rule(for_: u64, horizon: u64) -> AlarmRule {
        let rules = FailureRules {
            step: minutes(1),
            min_duration: Duration::ZERO,
            merge_gap: Duration::ZERO,
            recovery: Duration::ZERO,
            horizon: minutes(horizon),
        };
        AlarmRule::new(0.5, minutes(for_), &rules)
    }

    /// One letter per minute: x above, . below, ? no score, _ no row at all.
    fn opened(rule: AlarmRule, scores: &str) -> Vec<i64> {
        let mut cutter = AlarmCutter::default();
        let push = |(minute, c)| {
            let score = match c {
                'x' => Some(0.5),
                '.' => Some(0.499),
                '?' => None,
                _ => return None,
            };
            cutter.push(&rule, at(minute), score)
        };
        (0..)
            .zip(scores.chars())
            .filter_map(push)
            .map(|alarm| alarm.opened.0 / 60_000)
            .collect()
    }

    #[test]
    fn an_alarm_opens_when_the_condition_has_held_and_covers_the_horizon() {
        for (rule, scores, expected) in [
            (rule(0, 3), "..x.x.x", vec![2, 6]),
            (rule(0, 3), "xxxxxxx", vec![0, 3, 6]),
            (rule(2, 5), "xx.xxx.", vec![5]),
            (rule(2, 5), "xx?xxx", vec![5]),
            (rule(2, 5), "xx_xxx", vec![5]),
            // The condition goes on while the alarm covers, so the next opens at once.
            (rule(2, 3), "xxxxxx", vec![2, 5]),
        ] {
            assert_eq!(opened(rule, scores), expected, "{scores}");
        }
    }

    #[test]
    fn an_alarm_is_judged_by_the_first_incident_after_it() {
        let alarm = Alarm {
            opened: at(100),
            covers_until: at(130),
            score: 0.9,
        };
        let incident = |minute| Incident {
            start: at(minute),
            end: None,
        };
        for (starts, actions, expected, lead) in [
            (vec![], vec![], Outcome::False, None),
            (vec![100], vec![], Outcome::False, None),
            (vec![101], vec![], Outcome::Right, Some(1)),
            (vec![130], vec![], Outcome::Right, Some(30)),
            (vec![131], vec![], Outcome::Early, None),
            (vec![160], vec![], Outcome::Early, None),
            (vec![161], vec![], Outcome::False, None),
            (vec![90, 120, 150], vec![], Outcome::Right, Some(20)),
            (vec![], vec![100, 131], Outcome::False, None),
            (vec![], vec![101], Outcome::Uncertain, None),
            (vec![161], vec![90, 130], Outcome::Uncertain, None),
            (vec![120], vec![110], Outcome::Right, Some(20)),
            (vec![150], vec![110], Outcome::Early, None),
        ] {
            let incidents: Vec<_> = starts.iter().copied().map(incident).collect();
            let actions: Vec<_> = actions.into_iter().map(at).collect();
            assert_eq!(
                judge(&alarm, &incidents, &actions, minutes(30)),
                expected,
                "{starts:?} {actions:?}"
            );
            let leads = incidents.iter().filter_map(|i| foreseen(i.start, [&alarm]));
            assert_eq!(leads.max(), lead.map(minutes), "{starts:?}");
        }
    }
}
