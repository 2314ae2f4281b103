//! The samples of one target on the step grid, up to and including its newest slot.

use std::time::Duration;

use crate::time::{Timestamp, millis};

/// Ring buffer of one target: `signals` columns of `lookback` slots each.
///
/// A slot without a sample is missing, not zero; outside this module missing
/// is `None` or, in the dense feature rows, NaN.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    step_ms: i64,
    lookback: usize,
    /// Grid index (unix milliseconds / step) of the newest slot.
    newest: Option<i64>,
    /// Column-major: signal `s`, slot `g` at `s * lookback + g mod lookback`.
    samples: Vec<f32>,
}

impl Window {
    pub fn new(signals: usize, lookback: usize, step: Duration) -> Self {
        Self {
            step_ms: millis(step),
            lookback,
            newest: None,
            samples: vec![f32::NAN; signals * lookback],
        }
    }

    pub fn signals(&self) -> usize {
        self.samples.len() / self.lookback
    }

    pub fn lookback(&self) -> usize {
        self.lookback
    }

    /// Time of the newest slot, whether or not it holds a sample.
    pub fn newest(&self) -> Option<Timestamp> {
        self.newest.map(|g| Timestamp(g * self.step_ms))
    }

    /// Makes `t` the newest slot; slots passed over become missing. A `t` at or before the newest slot changes nothing.
    pub fn advance(&mut self, t: Timestamp) {
        let slot = t.0.div_euclid(self.step_ms);
        let passed = match self.newest {
            Some(newest) if slot <= newest => return,
            Some(newest) => slot - newest,
            None => self.lookback as i64,
        };
        if passed >= self.lookback as i64 {
            self.samples.fill(f32::NAN);
        } else {
            for g in slot - passed + 1..=slot {
                let at = self.position(g);
                for column in self.samples.chunks_exact_mut(self.lookback) {
                    column[at] = f32::NAN;
                }
            }
        }
        self.newest = Some(slot);
    }

    /// Stores a sample. One that is not finite, or not within the window, is ignored.
    pub fn set(&mut self, signal: usize, t: Timestamp, value: f32) {
        let Some(newest) = self.newest else { return };
        let lag = newest - t.0.div_euclid(self.step_ms);
        if value.is_finite() && (0..self.lookback as i64).contains(&lag) {
            let at = signal * self.lookback + self.position(newest - lag);
            self.samples[at] = value;
        }
    }

    /// The sample `lag` steps before the newest slot.
    pub fn get(&self, signal: usize, lag: usize) -> Option<f32> {
        let newest = self.newest?;
        if lag >= self.lookback {
            return None;
        }
        let value = self.samples[signal * self.lookback + self.position(newest - lag as i64)];
        (!value.is_nan()).then_some(value)
    }

    /// The last `steps` slots of a signal, newest last; NaN where missing. Two pieces because the buffer wraps.
    pub fn recent(&self, signal: usize, steps: usize) -> (&[f32], &[f32]) {
        let steps = steps.min(self.lookback);
        let column = &self.samples[signal * self.lookback..(signal + 1) * self.lookback];
        let end = self.position(self.newest.unwrap_or(-1)) + 1;
        if end >= steps {
            (&column[end - steps..end], &[])
        } else {
            (&column[self.lookback - (steps - end)..], &column[..end])
        }
    }

    /// Share of slots, over all signals, that hold a sample.
    pub fn coverage(&self) -> f64 {
        let present = self.samples.iter().filter(|v| !v.is_nan()).count();
        present as f64 / self.samples.len().max(1) as f64
    }

    /// Signals with a sample among the `steps` newest slots.
    pub fn fresh_signals(&self, steps: usize) -> usize {
        (0..self.signals())
            .filter(|&s| {
                let (a, b) = self.recent(s, steps);
                a.iter().chain(b).any(|v| !v.is_nan())
            })
            .count()
    }

    fn position(&self, slot: i64) -> usize {
        slot.rem_euclid(self.lookback as i64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_secs(60);

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_secs(minute * 60)
    }

    fn recent(window: &Window, steps: usize) -> Vec<Option<f32>> {
        let (a, b) = window.recent(0, steps);
        a.iter()
            .chain(b)
            .map(|v| (!v.is_nan()).then_some(*v))
            .collect()
    }

    #[test]
    fn a_gap_is_missing_and_old_slots_fall_out() {
        let mut window = Window::new(1, 4, STEP);
        for (minute, value) in [(10, 1.0), (11, 2.0), (13, 4.0)] {
            window.advance(at(minute));
            window.set(0, at(minute), value);
        }
        assert_eq!(recent(&window, 4), [Some(1.0), Some(2.0), None, Some(4.0)]);
        window.advance(at(15));
        assert_eq!(recent(&window, 4), [None, Some(4.0), None, None]);
        assert_eq!(window.get(0, 2), Some(4.0));
        window.advance(at(99));
        assert_eq!(window.coverage(), 0.0);
    }

    #[test]
    fn samples_outside_the_window_and_not_finite_ones_are_ignored() {
        let mut window = Window::new(1, 3, STEP);
        window.set(0, at(5), 1.0);
        window.advance(at(5));
        for (minute, value) in [(6, 1.0), (2, 1.0), (5, f32::NAN), (5, f32::INFINITY)] {
            window.set(0, at(minute), value);
        }
        assert_eq!(recent(&window, 3), [None, None, None]);
        window.set(0, at(4), 7.0);
        assert_eq!(recent(&window, 3), [None, Some(7.0), None]);
    }

    #[test]
    fn fresh_signals_counts_the_newest_slots_only() {
        let mut window = Window::new(2, 10, STEP);
        window.advance(at(1));
        window.set(0, at(1), 1.0);
        window.advance(at(6));
        window.set(1, at(6), 1.0);
        assert_eq!(window.fresh_signals(5), 1);
        assert_eq!(window.fresh_signals(6), 2);
    }
}
