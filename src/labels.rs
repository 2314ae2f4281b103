//! When a target is failing, and what each row of the grid is worth for learning.
//!
//! One causal machine serves training, backtest and live. Only [`label_rows`] looks ahead.

use std::sync::Arc;
use std::time::Duration;

use crate::time::Timestamp;
use crate::types::Incident;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureRules {
    /// Grid step: a failing sample at `t` stands for `[t, t + step)`.
    pub step: Duration,
    /// Shorter spells are no incident; their rows stay excluded.
    pub min_duration: Duration,
    /// Healthy time, counted from the end of the last failing sample, that ends a spell.
    pub merge_gap: Duration,
    /// Rows up to this long after the end of an incident are excluded.
    pub recovery: Duration,
    pub horizon: Duration,
}

impl FailureRules {
    /// How long after its start a spell may take to prove an incident. One with breaks shorter than
    /// `merge_gap` reaches `min_duration` up to that gap later.
    pub fn confirmation(&self) -> Duration {
        if self.min_duration <= self.step {
            Duration::ZERO
        } else {
            self.min_duration + self.merge_gap
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    Healthy,
    /// From the first failing sample until `merge_gap` without one.
    Failing,
    /// Until `recovery` after the end of an incident.
    Recovering,
}

/// Turns failing samples into phases and incidents, without looking ahead.
///
/// An incident starts at its first failing sample, counts from the sample at which it has lasted
/// `min_duration`, and ends one step after its last failing sample; the end is known `merge_gap` later.
#[derive(Clone, Debug)]
pub struct FailureMachine {
    /// Shared by the machines of a fleet.
    rules: Arc<FailureRules>,
    spell: Option<Spell>,
    recovering_until: Option<Timestamp>,
    newest: Option<(Timestamp, Phase)>,
    incidents: Vec<Incident>,
}

#[derive(Clone, Copy, Debug)]
struct Spell {
    start: Timestamp,
    /// One step after the last failing sample.
    end: Timestamp,
    is_incident: bool,
}

impl FailureMachine {
    pub fn new(rules: impl Into<Arc<FailureRules>>) -> Self {
        Self {
            rules: rules.into(),
            spell: None,
            recovering_until: None,
            newest: None,
            incidents: Vec::new(),
        }
    }

    /// Takes the state at `t`, once per grid step; a step without an answer counts as not failing.
    /// Steps may be left out. A `t` at or before the newest one changes nothing.
    pub fn push(&mut self, t: Timestamp, failing: bool) -> Phase {
        if let Some((newest, phase)) = self.newest
            && t <= newest
        {
            return phase;
        }
        if let Some(spell) = self.spell
            && t >= spell.end.plus(self.rules.merge_gap)
            && !(failing && t <= spell.end)
        {
            self.close(spell);
        }
        let phase = if failing {
            self.extend(t);
            Phase::Failing
        } else if self.spell.is_some() {
            Phase::Failing
        } else if self.recovering_until.is_some_and(|until| t < until) {
            Phase::Recovering
        } else {
            Phase::Healthy
        };
        self.newest = Some((t, phase));
        phase
    }

    /// Oldest first; the last one is open (`end` is `None`) while its target is failing.
    pub fn incidents(&self) -> &[Incident] {
        &self.incidents
    }

    pub fn into_incidents(self) -> Vec<Incident> {
        self.incidents
    }

    /// Drops incidents that ended before `t`.
    pub fn forget_before(&mut self, t: Timestamp) {
        self.incidents
            .retain(|incident| incident.end.is_none_or(|end| end >= t));
    }

    fn extend(&mut self, t: Timestamp) {
        let end = t.plus(self.rules.step);
        let spell = self.spell.get_or_insert(Spell {
            start: t,
            end,
            is_incident: false,
        });
        spell.end = end;
        if !spell.is_incident && end.since(spell.start) >= self.rules.min_duration {
            spell.is_incident = true;
            self.incidents.push(Incident {
                start: spell.start,
                end: None,
            });
        }
    }

    fn close(&mut self, spell: Spell) {
        self.spell = None;
        if spell.is_incident {
            if let Some(incident) = self.incidents.last_mut() {
                incident.end = Some(spell.end);
            }
            self.recovering_until = Some(spell.end.plus(self.rules.recovery));
        }
    }
}

/// Whether any alert of a target was firing at each grid point: from the first point at or after a
/// spell's start until its end, so that a spell between two points is not lost.
///
/// With several sources a target is failing at `t` when any of them says so.
pub fn spells_to_failing(spells: &[Incident], grid: &[Timestamp]) -> Vec<bool> {
    let mut failing = vec![false; grid.len()];
    for spell in spells {
        let first = grid.partition_point(|t| *t < spell.start);
        let end = spell
            .end
            .map_or(grid.len(), |end| grid.partition_point(|t| *t < end));
        // A spell that ended before the grid began leaves no mark on it.
        let in_grid = first > 0
            || spell
                .end
                .is_none_or(|end| grid.first().is_some_and(|t| *t < end));
        let end = if in_grid {
            end.max(first + 1).min(grid.len())
        } else {
            0
        };
        if let Some(marked) = failing.get_mut(first..end) {
            marked.fill(true);
        }
    }
    failing
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RowLabel {
    /// An incident starts within `(t, t + horizon]`.
    Positive,
    Negative,
    /// No incident starts within the horizon, but somebody acted in it, who may have prevented one.
    Uncertain,
    /// Failing or recovering.
    Excluded,
    /// The horizon, and the time that confirms an incident at its end, is not fully observed.
    Censored,
}

/// Whether one of the actions, in order of time, falls into `(after, until]`.
pub fn acted_within(actions: &[Timestamp], after: Timestamp, until: Timestamp) -> bool {
    let next = actions.partition_point(|at| *at <= after);
    actions.get(next).is_some_and(|at| *at <= until)
}

/// Labels each point of `grid` from the phases and incidents that the machine gave for it, and from when somebody acted.
pub fn label_rows(
    grid: &[Timestamp],
    incidents: &[Incident],
    phases: &[Phase],
    actions: &[Timestamp],
    rules: &FailureRules,
    observed_until: Timestamp,
) -> Vec<RowLabel> {
    let mut next = incidents.iter().peekable();
    let label = |(&t, &phase): (&Timestamp, &Phase)| {
        while next.next_if(|incident| incident.start <= t).is_some() {}
        let ahead = t.plus(rules.horizon);
        if phase != Phase::Healthy {
            RowLabel::Excluded
        } else if next.peek().is_some_and(|incident| incident.start <= ahead) {
            RowLabel::Positive
        } else if ahead.plus(rules.confirmation()) > observed_until {
            RowLabel::Censored
        } else if acted_within(actions, t, ahead) {
            RowLabel::Uncertain
        } else {
            RowLabel::Negative
        }
    };
    grid.iter().zip(phases).map(label).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn minutes(n: u64) -> Duration {
        Duration::from_secs(n * 60)
    }

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_secs(minute * 60)
    }

    fn rules(min_duration: u64, merge_gap: u64, recovery: u64) -> FailureRules {
        FailureRules {
            step: minutes(1),
            min_duration: minutes(min_duration),
            merge_gap: minutes(merge_gap),
            recovery: minutes(recovery),
            horizon: minutes(3),
        }
    }

    /// One letter per minute: H, F, R.
    fn run(rules: FailureRules, samples: &str) -> (String, Vec<(i64, Option<i64>)>) {
        let mut machine = FailureMachine::new(rules);
        let phases = (0..)
            .zip(samples.chars())
            .map(|(minute, c)| match machine.push(at(minute), c == 'x') {
                Phase::Healthy => 'H',
                Phase::Failing => 'F',
                Phase::Recovering => 'R',
            })
            .collect();
        let minute = |t: Timestamp| t.0 / 60_000;
        let incidents = machine
            .incidents()
            .iter()
            .map(|i| (minute(i.start), i.end.map(minute)))
            .collect();
        (phases, incidents)
    }

    #[test]
    fn spells_become_phases_and_incidents() {
        for (rules, samples, phases, incidents) in [
            // The recovery counts from the end of the incident, not from the end of the merge gap.
            (
                rules(0, 2, 4),
                "..x........",
                "HHFFFRRHHHH",
                vec![(2, Some(3))],
            ),
            // Closer than the gap is one incident, not closer is two.
            (
                rules(0, 2, 0),
                "x.x..x.....",
                "FFFFFFFFHHH",
                vec![(0, Some(3)), (5, Some(6))],
            ),
            (
                rules(0, 0, 1),
                "xx..x.",
                "FFRHFR",
                vec![(0, Some(2)), (4, Some(5))],
            ),
            // Too short: excluded rows, no incident, no recovery.
            (rules(2, 1, 5), "..x.....xx", "HHFFHHHHFF", vec![(8, None)]),
            // Without a gap to merge, neighbours are still one spell.
            (rules(3, 0, 0), "xx.xxx.", "FFHFFFH", vec![(3, Some(6))]),
        ] {
            assert_eq!(run(rules, samples), (phases.into(), incidents), "{samples}");
        }
    }

    #[test]
    fn steps_left_out_or_repeated_do_not_prolong_a_spell() {
        let mut machine = FailureMachine::new(rules(0, 5, 60));
        machine.push(at(0), true);
        assert_eq!(machine.push(at(0), false), Phase::Failing);
        assert_eq!(machine.push(at(30), true), Phase::Failing);
        assert_eq!(machine.push(at(20), false), Phase::Failing);
        assert_eq!(machine.push(at(300), false), Phase::Healthy);
        assert_eq!(machine.incidents().len(), 2);
        assert_eq!(machine.incidents()[0].end, Some(at(1)));
        machine.forget_before(at(31));
        assert_eq!(
            machine.into_incidents(),
            [Incident {
                start: at(30),
                end: Some(at(31))
            }]
        );
    }

    #[test]
    fn labels_look_one_horizon_ahead() {
        let rules = rules(0, 1, 3);
        let samples = "....x........";
        let mut machine = FailureMachine::new(rules);
        let grid: Vec<_> = (0..samples.len() as i64).map(at).collect();
        let phases: Vec<_> = grid
            .iter()
            .zip(samples.chars())
            .map(|(t, c)| machine.push(*t, c == 'x'))
            .collect();
        for (actions, expected) in [
            (&[][..], "-+++xxxx--???"),
            // What failed all the same did not get prevented; before and after the action nothing is in doubt.
            (&[at(2)], "u+++xxxx--???"),
            (&[at(10)], "-+++xxxxuu???"),
            (&[at(0), at(12)], "-+++xxxx-u???"),
        ] {
            let incidents = machine.incidents();
            let labels = label_rows(&grid, incidents, &phases, actions, &rules, at(12));
            let text: String = labels
                .iter()
                .map(|label| match label {
                    RowLabel::Positive => '+',
                    RowLabel::Negative => '-',
                    RowLabel::Uncertain => 'u',
                    RowLabel::Excluded => 'x',
                    RowLabel::Censored => '?',
                })
                .collect();
            assert_eq!(text, expected, "{actions:?}");
        }
    }

    #[test]
    fn alert_spells_mark_the_grid_between_their_ends() {
        let grid: Vec<_> = (0..6).map(at).collect();
        let spell = |start, end: Option<i64>| Incident {
            start: Timestamp(start),
            end: end.map(Timestamp),
        };
        for (spells, expected) in [
            (vec![spell(60_000, Some(180_000))], ".xx..."),
            // Between two grid points: the next one carries it.
            (vec![spell(61_000, Some(65_000))], "..x..."),
            (vec![spell(-9_000, Some(-8_000))], "......"),
            (vec![spell(-9_000, Some(1_000))], "x....."),
            (vec![spell(0, Some(60_000)), spell(240_000, None)], "x...xx"),
            (vec![spell(999_000, None)], "......"),
        ] {
            let text: String = spells_to_failing(&spells, &grid)
                .iter()
                .map(|f| if *f { 'x' } else { '.' })
                .collect();
            assert_eq!(text, expected, "{spells:?}");
        }
    }

    /// The definition, read from everything up to `t` at once.
    fn phase_by_definition(rules: &FailureRules, seen: &[(i64, bool)]) -> Phase {
        let gap = rules.merge_gap.as_secs() as i64 / 60;
        let mut spells: Vec<(i64, i64)> = Vec::new();
        for &(t, _) in seen.iter().filter(|s| s.1) {
            match spells.last_mut() {
                Some(spell) if t <= spell.1 || t - spell.1 < gap => spell.1 = t + 1,
                _ => spells.push((t, t + 1)),
            }
        }
        let now = seen[seen.len() - 1];
        if now.1 || spells.last().is_some_and(|s| now.0 - s.1 < gap) {
            return Phase::Failing;
        }
        let recovery = rules.recovery.as_secs() as i64 / 60;
        let min = rules.min_duration.as_secs() as i64 / 60;
        let recovering = spells
            .iter()
            .any(|s| s.1 - s.0 >= min && now.0 < s.1 + recovery);
        if recovering {
            Phase::Recovering
        } else {
            Phase::Healthy
        }
    }

    proptest! {
        #[test]
        fn phases_are_those_of_the_past_alone(
            steps in prop::collection::vec((1i64..5, prop::bool::weighted(0.3)), 1..80),
            (min, gap, recovery) in (0u64..5, 0u64..6, 0u64..12),
        ) {
            let rules = rules(min, gap, recovery);
            let mut machine = FailureMachine::new(rules);
            let mut seen = Vec::new();
            let mut t = 0;
            for (ahead, failing) in steps {
                t += ahead;
                seen.push((t, failing));
                prop_assert_eq!(machine.push(at(t), failing), phase_by_definition(&rules, &seen), "{:?}", seen);
            }
            prop_assert!(machine.incidents().is_sorted_by(|a, b| a.end.is_some_and(|end| end <= b.start)));
        }
    }
}
