//! What was said of a target of late: its probability at each of the last steps.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::time::{Timestamp, millis};

/// Steps kept of a target: six hours of minutes.
pub const STEPS: usize = 360;
/// Of very many targets fewer: these are a point in a picture each.
pub const FEWEST: usize = 90;
/// Steps kept of all targets together, unless the fewest are more.
const OF_ALL: usize = 40_000 * STEPS;

/// Ten-thousandths are what the API tells too.
const ONE: f64 = 10_000.0;
const NONE: u16 = u16::MAX;

/// Steps kept of each of so many targets. Halves, so that a fleet that breathes changes it seldom.
pub fn kept(targets: usize) -> usize {
    let mut kept = STEPS;
    while kept > FEWEST && kept * targets > OF_ALL {
        kept /= 2;
    }
    kept
}

/// Shared with the cycle, which moves it on; it holds no sample, so it outlives a change of the model.
#[derive(Clone, Debug, Default)]
pub struct Course(Arc<RwLock<Steps>>);

#[derive(Debug, Default)]
struct Steps {
    newest: Option<Timestamp>,
    step_ms: i64,
    /// Oldest first, one per step up to the newest.
    probabilities: VecDeque<u16>,
}

impl Course {
    /// Takes what was said at `t` and keeps at most `kept` steps. Steps that were left out say nothing; time or a step that
    /// do not follow begin anew.
    pub fn push(&self, t: Timestamp, step: Duration, probability: Option<f64>, kept: usize) {
        let mut steps = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let step_ms = millis(step).max(1);
        let passed = steps.newest.map(|newest| t.0 - newest.0);
        match passed.filter(|_| steps.step_ms == step_ms) {
            Some(passed) if passed > 0 && passed % step_ms == 0 => {
                let skipped = usize::try_from(passed / step_ms - 1).unwrap_or(kept);
                for _ in 0..skipped.min(kept) {
                    steps.add(NONE, kept);
                }
            }
            _ => steps.probabilities.clear(),
        }
        (steps.newest, steps.step_ms) = (Some(t), step_ms);
        let value = probability.filter(|p| !p.is_nan());
        let value = value.map_or(NONE, |p| (p.clamp(0.0, 1.0) * ONE).round() as u16);
        steps.add(value, kept);
    }

    /// Oldest first, up to the newest step.
    pub fn probabilities(&self) -> Vec<Option<f64>> {
        let steps = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let said = steps.probabilities.iter();
        said.map(|&p| (p != NONE).then(|| f64::from(p) / ONE))
            .collect()
    }

    /// So many steps ago; 0 is the newest.
    pub fn ago(&self, steps: usize) -> Option<f64> {
        let kept = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let place = kept.probabilities.len().checked_sub(steps + 1)?;
        let value = kept.probabilities.get(place).filter(|p| **p != NONE)?;
        Some(f64::from(*value) / ONE)
    }

    /// How many of the newest steps, without a hole, were at `threshold` or above.
    pub fn steps_above(&self, threshold: f64) -> usize {
        let steps = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let bound = (threshold * ONE).round() as u16;
        let newest = steps.probabilities.iter().rev();
        newest.take_while(|p| (bound..NONE).contains(p)).count()
    }
}

impl Steps {
    fn add(&mut self, value: u16, kept: usize) {
        let surplus = (self.probabilities.len() + 1).saturating_sub(kept);
        self.probabilities.drain(..surplus);
        // All at once, not twice as much each time it is full: that of many targets grew for hours.
        if self.probabilities.capacity() < kept {
            self.probabilities
                .reserve_exact(kept - self.probabilities.len());
        }
        self.probabilities.push_back(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_said_is_a_hole_and_the_oldest_goes() {
        let (course, step) = (Course::default(), Duration::from_secs(60));
        let minute = |n: i64| Timestamp::from_secs(60 * n);
        course.push(minute(1), step, Some(0.25), STEPS);
        course.push(minute(3), step, Some(0.5), STEPS);
        course.push(minute(4), step, None, STEPS);
        course.push(minute(5), step, Some(0.75), STEPS);
        course.push(minute(6), step, Some(2.0), STEPS);
        let said = [Some(0.25), None, Some(0.5), None, Some(0.75), Some(1.0)];
        assert_eq!(course.probabilities(), said);
        assert_eq!(
            (course.ago(0), course.ago(2), course.ago(9)),
            (Some(1.0), None, None)
        );
        assert_eq!((course.steps_above(0.75), course.steps_above(0.8)), (2, 1));
        for n in 7..1000 {
            course.push(minute(n), step, Some(0.1), STEPS);
        }
        assert_eq!(course.probabilities(), [Some(0.1); STEPS]);
        course.push(minute(100_000), step, None, STEPS);
        assert_eq!(course.probabilities(), [None; STEPS]);
        for (t, step) in [
            (minute(5), step),
            (Timestamp(301_000), step),
            (Timestamp(331_000), Duration::from_secs(30)),
        ] {
            course.push(t, step, Some(0.5), STEPS);
            assert_eq!(course.probabilities(), [Some(0.5)], "begun anew at {t}");
        }
    }

    #[test]
    fn of_very_many_targets_less_is_kept() {
        let fleets = [0, 5_000, 40_000, 40_001, 80_001, 100_000, 10_000_000];
        assert_eq!(fleets.map(kept), [360, 360, 360, 180, 90, 90, 90]);
        let (course, step) = (Course::default(), Duration::from_secs(60));
        let minute = |n: i64| Timestamp::from_secs(60 * n);
        for n in 0..1000 {
            course.push(minute(n), step, Some(0.1), STEPS);
        }
        course.push(minute(1000), step, Some(0.2), FEWEST);
        let said = course.probabilities();
        assert_eq!((said.len(), said[FEWEST - 1]), (FEWEST, Some(0.2)));
        course.push(minute(2000), step, Some(0.3), FEWEST);
        assert_eq!(course.probabilities().len(), FEWEST);
    }
}
