//! The samples of one target on the step grid, up to and including its newest slot: all of the
//! last ones, and of the time before that one in every so many.

use std::time::Duration;

use crate::time::{Timestamp, millis};

/// Every so many steps of the grid a sample is kept for the baseline.
pub const MARK_EVERY: usize = 60;
/// Such marks that are kept: a day at a step of a minute.
pub const MARKS: usize = 24;
/// Marks with a sample below which there is no telling what is normal.
const MIN_MARKS: usize = 4;

/// Ring buffer of one target: `signals` columns of `lookback` slots each, and the marks.
///
/// A slot without a sample is missing, not zero; outside this module missing
/// is `None` or, in the dense feature rows, NaN.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    step_ms: i64,
    lookback: usize,
    /// Grid index (unix milliseconds / step) of the newest slot.
    newest: Option<i64>,
    /// Of each signal in turn: the samples, slot `g` at `g mod lookback`; those of the slots that are multiples of
    /// [`MARK_EVERY`] in the same way; the median of these marks, NaN where there are fewer than [`MIN_MARKS`].
    columns: Box<[f32]>,
}

impl Window {
    pub fn new(signals: usize, lookback: usize, step: Duration) -> Self {
        Self {
            step_ms: millis(step),
            lookback,
            newest: None,
            columns: vec![f32::NAN; signals * (lookback + MARKS + 1)].into(),
        }
    }

    pub fn signals(&self) -> usize {
        self.columns.len() / self.stride()
    }

    fn stride(&self) -> usize {
        self.lookback + MARKS + 1
    }

    /// Samples, marks and their median.
    fn column(&self, signal: usize) -> (&[f32], &[f32], f32) {
        let column = &self.columns[signal * self.stride()..][..self.stride()];
        let (samples, rest) = column.split_at(self.lookback);
        (samples, &rest[..MARKS], rest[MARKS])
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
        match self.newest {
            Some(newest) if slot <= newest => return,
            Some(newest) => {
                let (before, now) = (mark(newest), mark(slot));
                let (stride, lookback) = (self.stride(), self.lookback);
                for column in self.columns.chunks_exact_mut(stride) {
                    let (samples, marks) = column.split_at_mut(lookback);
                    clear(samples, newest, slot);
                    clear(&mut marks[..MARKS], before, now);
                }
                if before < now {
                    (0..self.signals()).for_each(|signal| self.find_median(signal));
                }
            }
            None => (),
        }
        self.newest = Some(slot);
    }

    /// Stores a sample. One that is not finite, or not within the window, is ignored.
    pub fn set(&mut self, signal: usize, t: Timestamp, value: f32) {
        let Some(newest) = self.newest else { return };
        let slot = t.0.div_euclid(self.step_ms);
        if !value.is_finite() || slot > newest {
            return;
        }
        let column = signal * self.stride();
        if newest - slot < self.lookback as i64 {
            self.columns[column + position(slot, self.lookback)] = value;
        }
        let is_mark = slot.rem_euclid(MARK_EVERY as i64) == 0;
        if is_mark && mark(newest) - mark(slot) < MARKS as i64 {
            self.columns[column + self.lookback + position(mark(slot), MARKS)] = value;
            self.find_median(signal);
        }
    }

    fn find_median(&mut self, signal: usize) {
        let mut present = [0.0; MARKS];
        let mut count = 0;
        for mark in self.column(signal).1 {
            if !mark.is_nan() {
                present[count] = *mark;
                count += 1;
            }
        }
        let present = &mut present[..count];
        let median = if count < MIN_MARKS {
            f32::NAN
        } else {
            *present.select_nth_unstable_by(count / 2, f32::total_cmp).1
        };
        self.columns[(signal + 1) * self.stride() - 1] = median;
    }

    /// What is normal for a signal: the median of its marks.
    pub fn baseline(&self, signal: usize) -> Option<f32> {
        let median = self.column(signal).2;
        (!median.is_nan()).then_some(median)
    }

    /// The sample `lag` steps before the newest slot.
    pub fn get(&self, signal: usize, lag: usize) -> Option<f32> {
        let newest = self.newest?;
        if lag >= self.lookback {
            return None;
        }
        let slot = newest - lag as i64;
        let value = self.column(signal).0[position(slot, self.lookback)];
        (!value.is_nan()).then_some(value)
    }

    /// The last `steps` slots of a signal, newest last; NaN where missing. Two pieces because the buffer wraps.
    pub fn recent(&self, signal: usize, steps: usize) -> (&[f32], &[f32]) {
        self.earlier(signal, 0, steps)
    }

    /// The `steps` slots of a signal up to the one `lag` steps before the newest; the sum is within the lookback.
    pub fn earlier(&self, signal: usize, lag: usize, steps: usize) -> (&[f32], &[f32]) {
        let steps = steps.min(self.lookback);
        let column = self.column(signal).0;
        let newest = self.newest.unwrap_or(-1);
        let end = position(newest - lag as i64, self.lookback) + 1;
        if end >= steps {
            (&column[end - steps..end], &[])
        } else {
            (&column[self.lookback - (steps - end)..], &column[..end])
        }
    }

    /// Share of slots, over all signals, that hold a sample.
    pub fn coverage(&self) -> f64 {
        let samples = (0..self.signals()).flat_map(|signal| self.column(signal).0);
        let present = samples.filter(|v| !v.is_nan()).count();
        present as f64 / (self.signals() * self.lookback).max(1) as f64
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
}

/// The newest mark at or before a slot.
fn mark(slot: i64) -> i64 {
    slot.div_euclid(MARK_EVERY as i64)
}

/// Where a slot stands in a ring of so many.
fn position(slot: i64, ring: usize) -> usize {
    slot.rem_euclid(ring as i64) as usize
}

/// Makes the slots after `before` up to `now` missing in a ring.
fn clear(ring: &mut [f32], before: i64, now: i64) {
    if now - before >= ring.len() as i64 {
        ring.fill(f32::NAN);
        return;
    }
    for slot in before + 1..=now {
        ring[position(slot, ring.len())] = f32::NAN;
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

    /// Samples of every minute up to `until`; the value is the hour.
    fn hours(until: i64) -> Window {
        let mut window = Window::new(1, 4, STEP);
        for minute in 0..=until {
            window.advance(at(minute));
            window.set(0, at(minute), (minute / 60) as f32);
        }
        window
    }

    #[test]
    fn the_baseline_is_the_median_of_the_marks_of_a_day() {
        assert_eq!(hours(179).baseline(0), None);
        assert_eq!(hours(180).baseline(0), Some(2.0));
        assert_eq!(hours(24 * 60 - 1).baseline(0), Some(12.0));
        assert_eq!(hours(30 * 60 + 7).baseline(0), Some(19.0));
    }

    #[test]
    fn marks_that_come_late_count_as_if_they_had_come_in_time() {
        let mut late = Window::new(1, 4, STEP);
        late.advance(at(30 * 60 + 7));
        for hour in 0..=30 {
            late.set(0, at(60 * hour), hour as f32);
            late.set(0, at(60 * hour + 1), 99.0);
        }
        assert_eq!(late.baseline(0), hours(30 * 60 + 7).baseline(0));
        late.advance(at(60 * 60));
        assert_eq!(late.baseline(0), None, "most of them are too old by now");
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
