//! Recorded samples of all targets over a stretch of the step grid: what
//! training replays whole and what a cycle feeds on a step at a time.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::labels::spells_to_failing;
use crate::time::{Timestamp, millis};
use crate::types::{FailureMode, Incident, Labels, Source, TargetId};

/// Failure modes that are told apart: a label with a name for each incident would make a report of nothing else.
const MAX_MODES: usize = 100;

#[derive(Clone, Debug)]
pub struct History {
    start: Timestamp,
    step: Duration,
    steps: usize,
    signals: usize,
    /// As they came.
    targets: Vec<(TargetId, TargetHistory)>,
    places: HashMap<TargetId, usize, RandomState>,
    compared: Vec<String>,
    /// Every failure mode that was named; steps hold places in this list.
    modes: Vec<FailureMode>,
    /// Place of the target, column and grid index of samples that several series claimed.
    disputed: HashSet<(usize, Column, usize)>,
    /// Whether a query for failures, or for exclusions, got no answer: absence then says nothing.
    pub failing_unanswered: bool,
    pub excluded_unanswered: bool,
}

#[derive(Clone, Debug)]
pub struct TargetHistory {
    /// Values of `targets.extra_labels`, as the first series that has any gives them.
    pub labels: Labels,
    signals: u32,
    /// One column per signal, then one per score to compare with; NaN = missing.
    columns: Vec<f32>,
    /// What was said at each step beside the samples.
    pub steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Step {
    /// Who says that it fails.
    pub failing: Option<Source>,
    pub excluded: bool,
    /// Whether somebody acted on it, since the step before.
    pub acted: bool,
    /// Whether anything at all, a failure query included, returned a sample.
    pub seen: bool,
    /// Of what kind its failure is, as 1 + the place in the history's list; 0 where nobody said.
    mode: u8,
}

/// Where a series' samples belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Column {
    Signal(usize),
    Failing(Source),
    Excluded,
    Acted,
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
            targets: Vec::new(),
            places: HashMap::default(),
            compared: Vec::new(),
            modes: Vec::new(),
            disputed: HashSet::new(),
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

    /// Without what lies before the first grid point at which anything was seen: a server that keeps less than is asked for
    /// has nothing there, and slices of time would be cut from nothing.
    pub fn from_first_seen(mut self) -> Self {
        let first_seen = |(_, of): &(TargetId, TargetHistory)| of.steps.iter().position(|s| s.seen);
        let first = self
            .targets
            .iter()
            .filter_map(first_seen)
            .min()
            .unwrap_or(0);
        if first == 0 {
            return self;
        }
        for (_, target) in &mut self.targets {
            let columns = target.columns.chunks_exact(self.steps);
            target.columns = columns
                .flat_map(|column| &column[first..])
                .copied()
                .collect();
            target.steps.drain(..first);
        }
        let moved = |(place, column, index): (usize, Column, usize)| {
            Some((place, column, index.checked_sub(first)?))
        };
        self.disputed = self.disputed.into_iter().filter_map(moved).collect();
        self.start = self.time(first);
        self.steps -= first;
        self
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

    /// In order.
    pub fn targets(&self) -> Vec<(&TargetId, &TargetHistory)> {
        let mut targets: Vec<_> = self.targets.iter().map(|(id, of)| (id, of)).collect();
        targets.sort_unstable_by_key(|(id, _)| *id);
        targets
    }

    pub fn target(&self, id: &TargetId) -> Option<&TargetHistory> {
        self.place(id.as_str()).map(|place| self.at(place).1)
    }

    /// Where a target stands among those that [`History::at`] gives.
    pub fn place(&self, id: &str) -> Option<usize> {
        self.places.get(id).copied()
    }

    /// Targets as they came, from 0 until [`History::len`].
    pub fn at(&self, place: usize) -> (&TargetId, &TargetHistory) {
        let (id, of) = &self.targets[place];
        (id, of)
    }

    pub fn len(&self) -> usize {
        self.targets.len()
    }

    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// Makes room for as many targets in all.
    pub fn reserve(&mut self, targets: usize) {
        let more = targets.saturating_sub(self.targets.len());
        self.targets.reserve_exact(more);
        self.places.reserve(more);
    }

    /// The place of a target, which gets one when it is new.
    fn entry(&mut self, id: &str) -> usize {
        self.place(id).unwrap_or_else(|| {
            let id = TargetId::new(id);
            self.places.insert(id.clone(), self.targets.len());
            let of = TargetHistory::new(self.signals, self.compared.len(), self.steps);
            self.targets.push((id, of));
            self.targets.len() - 1
        })
    }

    /// Adds a series of a target. A sample that several series claim is forgotten: none is known to be right.
    /// A score to compare with and an action make no target, and do not show that one is there.
    pub fn insert(
        &mut self,
        column: Column,
        target: &str,
        labels: &Labels,
        samples: &[(Timestamp, f64)],
    ) -> Result<(), Duplicate> {
        let is_sign = !matches!(column, Column::Compared(_) | Column::Acted);
        if !is_sign && self.place(target).is_none() {
            return Ok(());
        }
        let (start, step, steps, signals) = (self.start, self.step, self.steps, self.signals);
        let place = self.entry(target);
        let entry = &mut self.targets[place].1;
        if entry.labels.is_empty() {
            entry.labels.clone_from(labels);
        }
        let mut duplicate = None;
        for (t, value) in samples {
            let Some(index) = index(*t, start, step, steps) else {
                continue;
            };
            entry.steps[index].seen |= is_sign;
            let slot = match column {
                Column::Failing(source) => {
                    entry.fails(index, source);
                    continue;
                }
                Column::Excluded => {
                    entry.steps[index].excluded = true;
                    continue;
                }
                Column::Acted => {
                    entry.steps[index].acted = true;
                    continue;
                }
                Column::Signal(signal) => &mut entry.columns[signal * steps + index],
                Column::Compared(score) => &mut entry.columns[(signals + score) * steps + index],
            };
            if !slot.is_nan() || self.disputed.contains(&(place, column, index)) {
                *slot = f32::NAN;
                self.disputed.insert((place, column, index));
                duplicate.get_or_insert(Duplicate { at: *t });
            } else if (*value as f32).is_finite() {
                *slot = *value as f32;
            }
        }
        duplicate.map_or(Ok(()), Err)
    }

    /// Says of what kind the failures of a target at these times are.
    pub fn name_failures(
        &mut self,
        target: &str,
        mode: FailureMode,
        times: impl IntoIterator<Item = Timestamp>,
    ) {
        let named = self.mode(mode);
        let Some(place) = self.place(target) else {
            return;
        };
        let entry = &mut self.targets[place].1;
        for t in times {
            let Some(index) = index(t, self.start, self.step, self.steps) else {
                continue;
            };
            let slot = &mut entry.steps[index].mode;
            let known = usize::from(*slot).checked_sub(1).map(|at| &self.modes[at]);
            if known.is_none_or(|known| self.modes[usize::from(named) - 1] < *known) {
                *slot = named;
            }
        }
    }

    /// 1 + the mode's place in the list. Once that is full, what is new is [`FailureMode::Other`], its last entry.
    fn mode(&mut self, mode: FailureMode) -> u8 {
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

    /// Marks that somebody acted on a target: at the first grid point from then on, as an alert's start is. One without any
    /// sample is not made by that.
    pub fn mark_acted(&mut self, target: &TargetId, at: Timestamp) {
        let place = self.place(target.as_str());
        if let (Some(place), Some(index)) = (place, self.index(at.ceil(self.step))) {
            self.targets[place].1.steps[index].acted = true;
        }
    }

    /// Who was acted on, and at which grid point.
    pub fn acted(&self) -> impl Iterator<Item = (&TargetId, Timestamp)> {
        self.targets.iter().flat_map(move |(id, of)| {
            let steps = of.steps.iter().enumerate();
            steps
                .filter(|(_, step)| step.acted)
                .map(move |(i, _)| (id, self.time(i)))
        })
    }

    /// Of what kind a target's failure at this time is.
    pub fn failure_mode(&self, target: &TargetId, t: Timestamp) -> Option<&FailureMode> {
        let step = self.target(target)?.steps[self.index(t)?];
        self.modes.get(usize::from(step.mode).checked_sub(1)?)
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
        let steps = self.steps;
        let place = self.entry(target.as_str());
        let entry = &mut self.targets[place].1;
        for index in (0..steps).filter(|&index| failing[index]) {
            entry.steps[index].seen = true;
            entry.fails(index, source);
        }
        let marked = grid
            .into_iter()
            .zip(failing)
            .filter(|(_, failing)| *failing);
        self.name_failures(target.as_str(), mode, marked.map(|(t, _)| t));
    }
}

fn index(t: Timestamp, start: Timestamp, step: Duration, steps: usize) -> Option<usize> {
    let index = usize::try_from((t.0 - start.0).div_euclid(millis(step))).ok()?;
    (index < steps).then_some(index)
}

impl TargetHistory {
    fn new(signals: usize, compared: usize, steps: usize) -> Self {
        Self {
            labels: Labels::default(),
            signals: signals as u32,
            columns: vec![f32::NAN; (signals + compared) * steps],
            steps: vec![Step::default(); steps],
        }
    }

    fn fails(&mut self, index: usize, source: Source) {
        let slot = &mut self.steps[index].failing;
        *slot = Some(slot.map_or(source, |known| known.min(source)));
    }

    pub fn column(&self, signal: usize) -> &[f32] {
        &self.columns[signal * self.steps.len()..][..self.steps.len()]
    }

    pub fn compared(&self, score: usize) -> &[f32] {
        self.column(self.signals as usize + score)
    }

    /// The samples of all signals at one grid point; NaN = missing.
    pub fn samples(&self, index: usize) -> impl Iterator<Item = f32> + '_ {
        let columns = self.columns[index..].iter().step_by(self.steps.len());
        columns.take(self.signals as usize).copied()
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
    fn what_lies_before_the_first_sample_is_cut_off() {
        let mut history = History::new(2, at(100), at(104), Duration::from_secs(60));
        let mut insert = |name: &str, signal, minute, value| {
            let samples = [(at(minute), value)];
            let column = Column::Signal(signal);
            history
                .insert(column, name, &Labels::default(), &samples)
                .unwrap();
        };
        insert("a", 1, 102, 3.0);
        insert("b", 0, 104, 5.0);
        let cut = history.clone().from_first_seen();
        assert_eq!(
            (cut.steps(), cut.time(0), cut.time(2)),
            (3, at(102), at(104))
        );
        for name in ["a", "b"] {
            let (old, new) = (history.place(name).unwrap(), cut.place(name).unwrap());
            let (old, new) = (history.at(old).1, cut.at(new).1);
            for signal in [0, 1] {
                let bits = |column: &[f32]| column.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&old.column(signal)[2..]), bits(new.column(signal)));
            }
        }
        let again = cut.clone().from_first_seen();
        assert_eq!((again.steps(), again.time(0)), (3, at(102)));
    }

    #[test]
    fn samples_land_on_the_grid_and_gaps_stay_missing() {
        let mut history = history();
        let target = TargetId::new("a");
        history
            .insert(
                Column::Signal(0),
                target.as_str(),
                &Labels::default(),
                &[
                    (at(99), 9.0),
                    (at(100), 1.0),
                    (at(104), 5.0),
                    (at(105), 9.0),
                ],
            )
            .unwrap();
        let column = history.target(&target).unwrap().column(0);
        assert_eq!(history.steps(), 5);
        assert_eq!(column[0], 1.0);
        assert!(column[1..4].iter().all(|v| v.is_nan()));
        assert_eq!(column[4], 5.0);
        let steps = &history.target(&target).unwrap().steps;
        let seen: Vec<bool> = steps.iter().map(|step| step.seen).collect();
        assert_eq!(seen, [true, false, false, false, true]);
    }

    #[test]
    fn two_series_of_one_target_may_follow_each_other_but_not_overlap() {
        let mut history = history();
        let target = TargetId::new("a");
        let mut insert = |samples: &[(Timestamp, f64)]| {
            history.insert(
                Column::Signal(0),
                target.as_str(),
                &Labels::default(),
                samples,
            )
        };
        assert_eq!(insert(&[(at(100), 1.0), (at(101), 1.0)]), Ok(()));
        assert_eq!(insert(&[(at(102), 2.0)]), Ok(()));
        assert_eq!(insert(&[(at(101), 3.0)]), Err(Duplicate { at: at(101) }));
        assert!(history.target(&target).unwrap().column(0)[1].is_nan());
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
                    target.as_str(),
                    &Labels::default(),
                    &samples,
                )
                .unwrap();
            for i in order {
                // Each mode is said of one minute more than the one before.
                let times = (100..101 + i as i64).map(at);
                history.name_failures(target.as_str(), modes[i].clone(), times);
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
                target.as_str(),
                &Labels::default(),
                &[(at(100), 1.0)],
            )
            .unwrap();
        for i in (0..300).rev() {
            let mode = FailureMode::Named(format!("incident-{i:03}"));
            history.name_failures(target.as_str(), mode, [at(100 + i % 5)]);
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
            history.insert(column, name, &Labels::default(), &[(at(101), 2.0)])
        };
        assert_eq!(insert(Column::Signal(0), "a"), Ok(()));
        assert_eq!(insert(Column::Compared(0), "a"), Ok(()));
        assert_eq!(insert(Column::Compared(0), "b"), Ok(()));
        assert_eq!(
            insert(Column::Compared(0), "a"),
            Err(Duplicate { at: at(101) })
        );
        assert_eq!(history.len(), 1);
        let target = history.target(&TargetId::new("a")).unwrap();
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
                target.as_str(),
                &Labels::default(),
                &[(at(101), value)],
            )
        };
        assert_eq!(insert(1.0), Ok(()));
        assert_eq!(insert(2.0), Err(Duplicate { at: at(101) }));
        assert_eq!(insert(3.0), Err(Duplicate { at: at(101) }));
        assert!(history.target(&target).unwrap().column(0)[1].is_nan());
    }

    #[test]
    fn a_spell_covers_the_grid_points_inside_it() {
        let mut history = history();
        let target = TargetId::new("a");
        history
            .insert(
                Column::Failing(Source::Alerts),
                target.as_str(),
                &Labels::default(),
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
        let steps = &history.target(&target).unwrap().steps;
        let failing: Vec<_> = steps.iter().map(|step| step.failing).collect();
        assert_eq!(
            failing,
            [
                None,
                Some(Source::Webhook),
                Some(Source::Alerts),
                None,
                None
            ],
            "Prometheus' own word counts before the webhook's"
        );
        let seen: Vec<bool> = steps.iter().map(|step| step.seen).collect();
        assert_eq!(seen, [false, true, true, false, false]);
    }
}
