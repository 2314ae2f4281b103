//! What is known of one target at its newest grid point. Training replays
//! history through it, serving feeds it live: there is no second path to a feature row.

use std::sync::Arc;
use std::time::Duration;

use crate::features::Catalogue;
use crate::labels::{FailureMachine, FailureRules, Phase};
use crate::time::Timestamp;
use crate::types::{Incident, TargetState};
use crate::window::{MARK_EVERY, MARKS, Window};

/// When there is too little data to say anything: section `features` of the config.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Share of the signals that need a sample within `fresh_steps`.
    pub min_signals: f64,
    pub fresh_steps: usize,
    /// Share of the lookback that must hold samples.
    pub min_coverage: f64,
}

/// How far before its first score a target must be followed step by step, so that its window is full and no incident's
/// recovery is overlooked. Before that its baseline needs the marks.
pub fn backfill(catalogue: &Catalogue, rules: &FailureRules) -> Duration {
    let lookback = catalogue.step() * catalogue.lookback() as u32;
    lookback.max(rules.recovery + rules.merge_gap + rules.min_duration)
}

/// How far the baseline reaches back.
fn baseline(catalogue: &Catalogue) -> Duration {
    mark_step(catalogue) * MARKS as u32
}

/// How far before its first score samples of a target are of use.
pub fn reach(catalogue: &Catalogue, rules: &FailureRules) -> Duration {
    backfill(catalogue, rules).max(baseline(catalogue))
}

/// Where the marks lie that a backfill up to `t` does not bring: first, last and step.
pub fn marks_before(
    t: Timestamp,
    catalogue: &Catalogue,
    rules: &FailureRules,
) -> (Timestamp, Timestamp, Duration) {
    let step = mark_step(catalogue);
    let first = t.minus(baseline(catalogue)).floor(step);
    let filled = t.minus(backfill(catalogue, rules)).floor(catalogue.step());
    (first, filled.minus(catalogue.step()).floor(step), step)
}

/// From one mark of the baseline to the next.
fn mark_step(catalogue: &Catalogue) -> Duration {
    catalogue.step() * MARK_EVERY as u32
}

#[derive(Clone, Debug)]
pub struct Tracker {
    window: Window,
    machine: FailureMachine,
    limits: Limits,
    excluded: bool,
    phase: Phase,
}

impl Tracker {
    pub fn new(catalogue: &Catalogue, rules: impl Into<Arc<FailureRules>>, limits: Limits) -> Self {
        Self {
            window: catalogue.window(),
            machine: FailureMachine::new(rules),
            limits,
            excluded: false,
            phase: Phase::Healthy,
        }
    }

    /// Takes the samples of the next grid point (NaN = missing) and what was said of the target then.
    pub fn push(
        &mut self,
        t: Timestamp,
        samples: impl Iterator<Item = f32>,
        failing: bool,
        excluded: bool,
    ) {
        self.window.advance(t);
        for (signal, value) in samples.enumerate() {
            self.window.set(signal, t, value);
        }
        // What begins under maintenance is no failure; one that was there before goes on.
        let failing = failing && (!excluded || self.phase == Phase::Failing);
        self.phase = self.machine.push(t, failing);
        self.excluded = excluded;
    }

    /// Moves on to `t` without a sample.
    pub fn pass(&mut self, t: Timestamp) {
        self.window.advance(t);
    }

    /// Takes samples of a mark that no step brought.
    pub fn recall(&mut self, t: Timestamp, samples: impl Iterator<Item = f32>) {
        for (signal, value) in samples.enumerate() {
            self.window.set(signal, t, value);
        }
    }

    pub fn window(&self) -> &Window {
        &self.window
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    pub fn incidents(&self) -> &[Incident] {
        self.machine.incidents()
    }

    /// Whether the target can be scored now, and why not.
    pub fn state(&self) -> TargetState {
        let fresh = self.window.fresh_signals(self.limits.fresh_steps) as f64;
        match self.phase {
            Phase::Failing => TargetState::Failing,
            Phase::Recovering => TargetState::Excluded,
            Phase::Healthy if self.excluded => TargetState::Excluded,
            Phase::Healthy if fresh < self.limits.min_signals * self.window.signals() as f64 => {
                TargetState::MissingData
            }
            Phase::Healthy if self.window.coverage() < self.limits.min_coverage => {
                TargetState::WarmingUp
            }
            Phase::Healthy => TargetState::Ok,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// One letter per minute: `x` failing, `m` maintenance, `M` both.
    fn run(minutes: &str) -> (Vec<i64>, String) {
        let step = Duration::from_secs(60);
        let rules = FailureRules {
            step,
            min_duration: Duration::ZERO,
            merge_gap: step,
            recovery: 2 * step,
            horizon: step,
        };
        let limits = Limits {
            min_signals: 0.0,
            fresh_steps: 1,
            min_coverage: 0.0,
        };
        let catalogue = Catalogue::new(&[], step, step);
        let mut tracker = Tracker::new(&catalogue, rules, limits);
        let states = (0..)
            .zip(minutes.chars())
            .map(|(minute, c)| {
                let t = Timestamp::from_secs(60 * minute);
                tracker.push(t, std::iter::empty(), "xM".contains(c), "mM".contains(c));
                match tracker.state() {
                    TargetState::Failing => 'F',
                    TargetState::Excluded => 'E',
                    _ => '.',
                }
            })
            .collect();
        let starts = tracker.incidents().iter().map(|i| i.start.0 / 60_000);
        (starts.collect(), states)
    }

    #[test]
    fn a_restart_under_maintenance_is_no_incident() {
        for (minutes, starts, states) in [
            ("..x......", vec![2], "..FFE...."),
            (".mMMMm...", vec![], ".EEEEE..."),
            // It was failing before, and it still is afterwards.
            (".xxMMx...", vec![1], ".FFFFFFE."),
            (".mMMxx...", vec![4], ".EEEFFFE."),
        ] {
            assert_eq!(run(minutes), (starts, states.into()), "{minutes}");
        }
    }

    #[test]
    fn too_little_data_is_said_and_not_guessed() {
        let step = Duration::from_secs(60);
        let rules = FailureRules {
            step,
            min_duration: Duration::ZERO,
            merge_gap: step,
            recovery: Duration::ZERO,
            horizon: 30 * step,
        };
        let limits = Limits {
            min_signals: 0.5,
            fresh_steps: 5,
            min_coverage: 0.25,
        };
        let signals = ["queue_a", "queue_b", "queue_c"].map(|name| crate::types::Signal {
            name: name.into(),
            unit: crate::types::Unit::Count,
        });
        let catalogue = Catalogue::new(&signals, step, 30 * step);
        let mut tracker = Tracker::new(&catalogue, rules, limits);
        let mut minute = 0;
        let mut after = |minutes: usize, samples: [f32; 3]| {
            for _ in 0..minutes {
                let t = Timestamp::from_secs(60 * minute);
                tracker.push(t, samples.into_iter(), false, false);
                minute += 1;
            }
            tracker.state()
        };
        let gap = f32::NAN;
        assert_eq!(after(1, [gap; 3]), TargetState::MissingData);
        assert_eq!(after(29, [1.0; 3]), TargetState::WarmingUp);
        assert_eq!(
            after(1, [1.0; 3]),
            TargetState::Ok,
            "a quarter of 120 slots"
        );
        // Two of three signals are enough, one is not.
        assert_eq!(after(10, [gap, 0.0, 0.0]), TargetState::Ok);
        assert_eq!(after(4, [gap, gap, 0.0]), TargetState::Ok, "within 5 steps");
        assert_eq!(after(1, [gap, gap, 0.0]), TargetState::MissingData);
    }
}
