//! Recorded samples of all targets over a stretch of the step grid: what
//! training replays whole and what a cycle feeds on a step at a time.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use crate::labels::spells_to_failing;
use crate::time::{Timestamp, millis};
use crate::types::{FailureMode, Incident, Source, TargetId};

/// Failure modes that are told apart: a label with a name for each incident would make a report of nothing else.
const MAX_MODES: usize = 100;

#[derive(Clone, Debug)]
pub struct History {
    start: Timestamp,
    step: Duration,
    steps: usize,
    signals: usize,
    targets: BTreeMap<TargetId, TargetHistory>,
    compared: Vec<String>,
    /// Every failure mode that was named; targets hold places in this list.
    modes: Vec<FailureMode>,
    /// Whether a query for failures, or for exclusions, got no answer: absence then says nothing.
    pub failing_unanswered: bool,
    pub excluded_unanswered: bool,
}

#[derive(Clone, Debug)]
pub struct TargetHistory {
    /// Values of `targets.extra_labels`, as the first series that has any gives them.
    pub labels: Vec<(String, String)>,
    /// One column per signal; NaN = missing.
    columns: Vec<Vec<f32>>,
    /// One column per score to compare with; NaN = missing.
    compared: Vec<Vec<f32>>,
    /// Who says that it fails.
    pub failing: Vec<Option<Source>>,
    /// Of what kind, as 1 + the place in the history's list; 0 where nobody said. Empty until somebody does.
    modes: Vec<u8>,
    pub excluded: Vec<bool>,
    /// Whether anything at all, a failure query included, returned a sample.
    pub seen: Vec<bool>,
    /// Column and grid index of samples that several series claimed.
    disputed: HashSet<(Column, usize)>,
}

/// Where a series' samples belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Column {
    Signal(usize),
    Failing(Source),
    Excluded,
    /// A score to measure beside the model.
    Compared(usize),
}

/// Two series of one signal or score name the same target at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duplicate {
    pub at: Timestamp,
}

impl History {
    pub fn new(signals: usize, start: Timestamp, end: Timestamp, step: Duration) -> Self {
        let steps = (end.0 - start.0).max(0) / millis(step) + 1;
        Self {
            start,
            step,
            steps: steps as usize,
            signals,
            targets: BTreeMap::new(),
            compared: Vec::new(),
            modes: Vec::new(),
            failing_unanswered: false,
            excluded_unanswered: false,
        }
    }

    /// The same with room for scores to compare with.
    pub fn with_compared(self, names: Vec<String>) -> Self {
        Self {
            compared: names,
            ..self
        }
    }

    /// Names of the scores to compare with, in the order of their columns.
    pub fn compared(&self) -> &[String] {
        &self.compared
    }

    pub fn step(&self) -> Duration {
        self.step
    }

    pub fn steps(&self) -> usize {
        self.steps
    }

    pub fn time(&self, index: usize) -> Timestamp {
        Timestamp(self.start.0 + index as i64 * millis(self.step))
    }

    /// The grid point at or before `t`; `None` outside of the stretch.
    pub fn index(&self, t: Timestamp) -> Option<usize> {
        index(t, self.start, self.step, self.steps)
    }

    pub fn times(&self) -> impl Iterator<Item = Timestamp> + '_ {
        (0..self.steps).map(|i| self.time(i))
    }

    pub fn targets(&self) -> &BTreeMap<TargetId, TargetHistory> {
        &self.targets
    }

    /// Adds a series of a target. A sample that several series claim is forgotten: none is known to be right.
    /// A score to compare with makes no target, and does not show that one is there.
    pub fn insert(
        &mut self,
        column: Column,
        target: TargetId,
        labels: Vec<(String, String)>,
        samples: &[(Timestamp, f64)],
    ) -> Result<(), Duplicate> {
        if let Column::Compared(_) = column
            && !self.targets.contains_key(&target)
        {
            return Ok(());
        }
        let entry = self
            .targets
            .entry(target)
            .or_insert_with(|| TargetHistory::new(self.signals, self.compared.len(), self.steps));
        if entry.labels.is_empty() {
            entry.labels = labels;
        }
        let mut duplicate = None;
        for (t, value) in samples {
            let Some(index) = index(*t, self.start, self.step, self.steps) else {
                continue;
            };
            entry.seen[index] |= !matches!(column, Column::Compared(_));
            let slot = match column {
                Column::Failing(source) => {
                    entry.fails(index, source);
                    continue;
                }
                Column::Excluded => {
                    entry.excluded[index] = true;
                    continue;
                }
                Column::Signal(signal) => &mut entry.columns[signal][index],
                Column::Compared(score) => &mut entry.compared[score][index],
            };
            if !slot.is_nan() || entry.disputed.contains(&(column, index)) {
                *slot = f32::NAN;
                entry.disputed.insert((column, index));
                duplicate.get_or_insert(Duplicate { at: *t });
            } else {
                *slot = *value as f32;
            }
        }
        duplicate.map_or(Ok(()), Err)
    }

    /// Says of what kind the failures of a target at these times are.
    pub fn name_failures(
        &mut self,
        target: &TargetId,
        mode: FailureMode,
        times: impl IntoIterator<Item = Timestamp>,
    ) {
        let named = self.place(mode);
        let Some(entry) = self.targets.get_mut(target) else {
            return;
        };
        entry.modes.resize(self.steps, 0);
        for t in times {
            let Some(index) = index(t, self.start, self.step, self.steps) else {
                continue;
            };
            let slot = &mut entry.modes[index];
            let known = usize::from(*slot).checked_sub(1).map(|at| &self.modes[at]);
            if known.is_none_or(|known| self.modes[usize::from(named) - 1] < *known) {
                *slot = named;
            }
        }
    }

    /// 1 + the mode's place in the list. Once that is full, what is new is [`FailureMode::Other`], its last entry.
    fn place(&mut self, mode: FailureMode) -> u8 {
        let full = self.modes.len() + 1 >= MAX_MODES;
        let known = self.modes.iter().position(|known| *known == mode);
        let at = known.unwrap_or_else(|| {
            if self.modes.len() < MAX_MODES {
                self.modes
                    .push(if full { FailureMode::Other } else { mode });
            }
            self.modes.len() - 1
        });
        at as u8 + 1
    }

    /// Of what kind a target's failure at this time is.
    pub fn failure_mode(&self, target: &TargetId, t: Timestamp) -> Option<&FailureMode> {
        let place = *self.targets.get(target)?.modes.get(self.index(t)?)?;
        self.modes.get(usize::from(place).checked_sub(1)?)
    }

    /// Marks spells that something other than a query reported, also of a target without any sample.
    pub fn mark_failing(
        &mut self,
        source: Source,
        mode: FailureMode,
        target: &TargetId,
        spells: &[Incident],
    ) {
        let grid: Vec<Timestamp> = self.times().collect();
        let failing = spells_to_failing(spells, &grid);
        if !failing.contains(&true) {
            return;
        }
        let entry = self
            .targets
            .entry(target.clone())
            .or_insert_with(|| TargetHistory::new(self.signals, self.compared.len(), self.steps));
        for index in (0..self.steps).filter(|&index| failing[index]) {
            entry.seen[index] = true;
            entry.fails(index, source);
        }
        let marked = grid
            .into_iter()
            .zip(failing)
            .filter(|(_, failing)| *failing);
        self.name_failures(target, mode, marked.map(|(t, _)| t));
    }
}

fn index(t: Timestamp, start: Timestamp, step: Duration, steps: usize) -> Option<usize> {
    let index = usize::try_from((t.0 - start.0).div_euclid(millis(step))).ok()?;
    (index < steps).then_some(index)
}

impl TargetHistory {
    fn new(signals: usize, compared: usize, steps: usize) -> Self {
        Self {
            labels: Vec::new(),
            columns: vec![vec![f32::NAN; steps]; signals],
            compared: vec![vec![f32::NAN; steps]; compared],
            failing: vec![None; steps],
            modes: Vec::new(),
            excluded: vec![false; steps],
            seen: vec![false; steps],
            disputed: HashSet::new(),
        }
    }

    fn fails(&mut self, index: usize, source: Source) {
        let slot = &mut self.failing[index];
        *slot = Some(slot.map_or(source, |known| known.min(source)));
    }

    pub fn column(&self, signal: usize) -> &[f32] {
        &self.columns[signal]
    }

    pub fn compared(&self, score: usize) -> &[f32] {
        &self.compared[score]
    }

    /// The samples of all signals at one grid point; NaN = missing.
    pub fn samples(&self, index: usize) -> impl Iterator<Item = f32> + '_ {
        self.columns.iter().map(move |column| column[index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_secs(60 * minute)
    }

    fn history() -> History {
        History::new(1, at(100), at(104), Duration::from_secs(60))
    }

    #[test]
    fn samples_land_on_the_grid_and_gaps_stay_missing() {
        let mut history = history();
        let target = TargetId::new("a");
        history
            .insert(
                Column::Signal(0),
                target.clone(),
                vec![],
                &[
                    (at(99), 9.0),
                    (at(100), 1.0),
                    (at(104), 5.0),
                    (at(105), 9.0),
                ],
            )
            .unwrap();
        let column = history.targets()[&target].column(0);
        assert_eq!(history.steps(), 5);
        assert_eq!(column[0], 1.0);
        assert!(column[1..4].iter().all(|v| v.is_nan()));
        assert_eq!(column[4], 5.0);
        assert_eq!(
            history.targets()[&target].seen,
            [true, false, false, false, true]
        );
    }

    #[test]
    fn two_series_of_one_target_may_follow_each_other_but_not_overlap() {
        let mut history = history();
        let target = TargetId::new("a");
        let mut insert = |samples: &[(Timestamp, f64)]| {
            history.insert(Column::Signal(0), target.clone(), vec![], samples)
        };
        assert_eq!(insert(&[(at(100), 1.0), (at(101), 1.0)]), Ok(()));
        assert_eq!(insert(&[(at(102), 2.0)]), Ok(()));
        assert_eq!(insert(&[(at(101), 3.0)]), Err(Duplicate { at: at(101) }));
        assert!(history.targets()[&target].column(0)[1].is_nan());
    }

    #[test]
    fn of_several_modes_at_once_the_first_in_order_counts_whatever_came_first() {
        let target = TargetId::new("a");
        let modes = [
            FailureMode::Query("failure.queries[0]".into()),
            FailureMode::Named("leak".into()),
            FailureMode::Named("disk".into()),
            FailureMode::Alert("Down".into()),
        ];
        for order in [[0, 1, 2, 3], [3, 2, 1, 0]] {
            let mut history = history();
            let samples: Vec<_> = (100..104).map(|m| (at(m), 1.0)).collect();
            history
                .insert(
                    Column::Failing(Source::Query),
                    target.clone(),
                    vec![],
                    &samples,
                )
                .unwrap();
            for i in order {
                // Each mode is said of one minute more than the one before.
                let times = (100..101 + i as i64).map(at);
                history.name_failures(&target, modes[i].clone(), times);
            }
            let found: Vec<_> = (100..105)
                .map(|m| history.failure_mode(&target, at(m)).map(FailureMode::name))
                .collect();
            let expected = [Some("disk"), Some("disk"), Some("disk"), Some("Down"), None];
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn too_many_modes_are_one() {
        let (mut history, target) = (history(), TargetId::new("a"));
        history
            .insert(
                Column::Failing(Source::Query),
                target.clone(),
                vec![],
                &[(at(100), 1.0)],
            )
            .unwrap();
        for i in (0..300).rev() {
            let mode = FailureMode::Named(format!("incident-{i:03}"));
            history.name_failures(&target, mode, [at(100 + i % 5)]);
        }
        let last = history.failure_mode(&target, at(100));
        assert_eq!(last.map(FailureMode::name), Some("incident-205"));
        assert_eq!(history.modes.len(), MAX_MODES);
        assert_eq!(history.modes.last(), Some(&FailureMode::Other));
    }

    #[test]
    fn a_score_to_compare_with_makes_no_target() {
        let mut history = history().with_compared(vec!["rule".into()]);
        let mut insert = |column, name: &str| {
            history.insert(column, TargetId::new(name), vec![], &[(at(101), 2.0)])
        };
        assert_eq!(insert(Column::Signal(0), "a"), Ok(()));
        assert_eq!(insert(Column::Compared(0), "a"), Ok(()));
        assert_eq!(insert(Column::Compared(0), "b"), Ok(()));
        assert_eq!(
            insert(Column::Compared(0), "a"),
            Err(Duplicate { at: at(101) })
        );
        assert_eq!(history.targets().len(), 1);
        let target = &history.targets()[&TargetId::new("a")];
        assert!(target.compared(0)[1].is_nan());
        assert_eq!(target.column(0)[1], 2.0);
    }

    #[test]
    fn a_third_series_does_not_settle_what_two_disputed() {
        let mut history = history();
        let target = TargetId::new("a");
        let mut insert = |value| {
            history.insert(
                Column::Signal(0),
                target.clone(),
                vec![],
                &[(at(101), value)],
            )
        };
        assert_eq!(insert(1.0), Ok(()));
        assert_eq!(insert(2.0), Err(Duplicate { at: at(101) }));
        assert_eq!(insert(3.0), Err(Duplicate { at: at(101) }));
        assert!(history.targets()[&target].column(0)[1].is_nan());
    }

    #[test]
    fn a_spell_covers_the_grid_points_inside_it() {
        let mut history = history();
        let target = TargetId::new("a");
        history
            .insert(
                Column::Failing(Source::Alerts),
                target.clone(),
                vec![],
                &[(at(102), 1.0)],
            )
            .unwrap();
        let spell = |start, end| Incident {
            start,
            end: Some(end),
        };
        history.mark_failing(
            Source::Webhook,
            FailureMode::Alert("Down".into()),
            &target,
            &[
                spell(Timestamp(at(101).0 - 1), at(103)),
                spell(at(0), at(1)),
                spell(at(200), at(300)),
            ],
        );
        assert_eq!(
            history.targets()[&target].failing,
            [
                None,
                Some(Source::Webhook),
                Some(Source::Alerts),
                None,
                None
            ],
            "Prometheus' own word counts before the webhook's"
        );
        assert_eq!(
            history.targets()[&target].seen,
            [false, true, true, false, false]
        );
    }
}
