//! Alarms that were raised live beside those of the same time queried again.

use std::collections::HashMap;

use serde::Serialize;

use super::alarms::AlarmRule;
use super::events::Scored;
use crate::time::Timestamp;
use crate::types::TargetId;

/// One alarm as the state has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Raised {
    pub target: TargetId,
    pub opened: Timestamp,
    /// `None` while undecided.
    pub outcome: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LiveDifference {
    /// Alarms that were raised in the range.
    pub live: u64,
    /// Alarms of the replay.
    pub replayed: u64,
    /// Of the same target, and one covers the opening of the other.
    pub same: u64,
    /// Of those, opened at the same step.
    pub same_step: u64,
    /// Of those, both decided and with the same outcome.
    pub same_outcome: u64,
}

impl LiveDifference {
    /// `raised` may be in any order; those outside of the range do not count.
    pub fn new(raised: &[Raised], replayed: &[Scored], rule: &AlarmRule) -> Self {
        let mut by_target: HashMap<&TargetId, Vec<&Raised>> = HashMap::new();
        for one in raised {
            by_target.entry(&one.target).or_default().push(one);
        }
        let mut found = Self::default();
        for one in replayed {
            let times = &one.track.times;
            let (Some(first), Some(last)) = (times.first(), times.last()) else {
                continue;
            };
            let mut live = by_target.remove(&one.track.target).unwrap_or_default();
            live.retain(|raised| (*first..=*last).contains(&raised.opened));
            live.sort_by_key(|raised| raised.opened);
            let mut live = live.into_iter().peekable();
            found.live += live.len() as u64;
            for (alarm, outcome) in one.replay(rule).alarms {
                found.replayed += 1;
                let early = |r: &&Raised| r.opened.plus(rule.horizon()) <= alarm.opened;
                while live.next_if(early).is_some() {}
                let Some(twin) = live.next_if(|r| r.opened < alarm.covers_until) else {
                    continue;
                };
                found.same += 1;
                found.same_step += u64::from(twin.opened == alarm.opened);
                let outcome = outcome.map(|outcome| outcome.name());
                let is_decided = outcome.is_some() && outcome == twin.outcome.as_deref();
                found.same_outcome += u64::from(is_decided);
            }
        }
        found
    }

    /// In words, for a person.
    pub fn text(&self) -> String {
        let Self {
            live,
            replayed,
            same,
            same_step,
            same_outcome,
        } = self;
        format!(
            "live      forewarn itself raised {live} alarms in this range; {same} of them are among the {replayed} that the history queried again gives \
             ({same_step} at the very step, {same_outcome} with the same outcome), {} are not, and {} would be new",
            live - same,
            replayed - same
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::events::Track;
    use super::*;
    use crate::labels::{FailureRules, RowLabel};
    use crate::types::Incident;

    #[test]
    fn alarms_are_the_same_when_one_covers_the_other() {
        let at = |minute: i64| Timestamp::from_secs(60 * minute);
        let minutes = |n: u64| Duration::from_secs(60 * n);
        let rules = FailureRules {
            step: minutes(1),
            min_duration: Duration::ZERO,
            merge_gap: Duration::ZERO,
            recovery: Duration::ZERO,
            horizon: minutes(10),
        };
        let rule = AlarmRule::new(0.5, Duration::ZERO, &rules);
        let risky = [10, 40, 70, 71];
        let track = |name: &str, risky: &[i64]| Track {
            target: TargetId::new(name),
            times: (0..120).map(at).collect(),
            scores: (0..120)
                .map(|minute| Some(if risky.contains(&minute) { 0.9 } else { 0.1 }))
                .collect(),
            labels: vec![RowLabel::Negative; 120],
            incidents: vec![Incident {
                start: at(45),
                end: None,
            }],
            actions: Vec::new(),
        };
        let raised = |target: &str, opened: i64, outcome: &str| Raised {
            target: TargetId::new(target),
            opened: at(opened),
            outcome: Some(outcome.into()),
        };
        let live = [
            raised("a", 75, "right"),
            raised("a", 10, "false"),
            raised("a", 38, "right"),
            // Not here again, of a target that is not here, before and after the range.
            raised("a", 100, "false"),
            raised("b", 10, "false"),
            raised("a", -5, "false"),
            raised("a", 500, "false"),
        ];
        let tracks = [track("a", &risky), track("c", &[])];
        let found = LiveDifference::new(&live, &Scored::own(&tracks), &rule);
        let expected = LiveDifference {
            live: 4,
            replayed: 3,
            same: 3,
            same_step: 1,
            same_outcome: 2,
        };
        assert_eq!(found, expected);
        assert!(found.text().contains("1 are not, and 0 would be new"));
    }
}
