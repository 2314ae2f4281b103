//! Statistics of one signal over the newest slots of a window.

use std::time::Duration;

use crate::types::Unit;
use crate::window::{MARK_EVERY, MARKS, Window};

/// What is computed from one signal; `n` counts steps, the newest slot included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistic {
    Value,
    Delta(usize),
    Mean(usize),
    Std(usize),
    Max(usize),
    Slope(usize),
    Projection(usize),
    TimeToLimit(usize),
    Ratio(usize),
    /// How far the level has left the baseline: towards the limit if there is one, else in proportion.
    Departure,
    Growth(usize),
}

/// Steps over which the level of a signal is a mean, against single odd samples.
const LEVEL: usize = 5;
/// Beyond this many horizons a limit counts as out of sight.
const FAR_LIMIT_HORIZONS: f64 = 48.0;

impl Statistic {
    /// Slots that the statistic reads.
    pub fn span(self) -> usize {
        match self {
            Statistic::Value => 1,
            Statistic::Delta(n) => n + 1,
            Statistic::Mean(n)
            | Statistic::Std(n)
            | Statistic::Max(n)
            | Statistic::Slope(n)
            | Statistic::Projection(n)
            | Statistic::TimeToLimit(n)
            | Statistic::Ratio(n) => n,
            Statistic::Departure => LEVEL,
            Statistic::Growth(n) => n + LEVEL,
        }
    }

    /// Middle part of the feature's name; `None` for the plain value.
    pub fn label(self) -> Option<(&'static str, usize)> {
        match self {
            Statistic::Value => None,
            Statistic::Delta(n) => Some(("delta", n)),
            Statistic::Mean(n) => Some(("mean", n)),
            Statistic::Std(n) => Some(("std", n)),
            Statistic::Max(n) => Some(("max", n)),
            Statistic::Slope(n) => Some(("slope", n)),
            Statistic::Projection(n) => Some(("projection", n)),
            Statistic::TimeToLimit(n) => Some(("time_to_limit", n)),
            Statistic::Ratio(n) => Some(("ratio", n)),
            Statistic::Departure => Some(("departure", MARKS * MARK_EVERY)),
            Statistic::Growth(n) => Some(("growth", n)),
        }
    }

    pub fn unit(self, signal: Unit) -> String {
        match self {
            Statistic::Slope(_) => format!("{} per hour", signal.name()),
            Statistic::TimeToLimit(_) => "hours".into(),
            Statistic::Ratio(_) | Statistic::Departure | Statistic::Growth(_) => "ratio".into(),
            _ => signal.name().into(),
        }
    }

    pub fn formula(self, unit: Unit, span: &str) -> String {
        let is_bounded = unit.limit().is_some();
        match self {
            Statistic::Value => "sample at t".into(),
            Statistic::Delta(_) => format!("sample at t minus sample at t − {span}"),
            Statistic::Mean(_) => format!("mean over the last {span}"),
            Statistic::Std(_) => format!("population standard deviation over the last {span}"),
            Statistic::Max(_) => format!("maximum over the last {span}"),
            Statistic::Slope(_) => format!("least-squares slope over the last {span}"),
            Statistic::Projection(_) => format!(
                "least-squares line over the last {span}, read off at t + horizon, kept within 0 and twice the limit"
            ),
            Statistic::TimeToLimit(_) => format!(
                "time until that line over the last {span} meets the limit; 48 horizons when it does not rise or is farther away"
            ),
            Statistic::Ratio(_) => {
                format!("sample at t divided by the mean over the last {span}, at most 10")
            }
            Statistic::Departure if is_bounded => format!(
                "(level − baseline) / (limit − baseline), within ±2; the baseline is the median of one sample in {MARK_EVERY} steps over the last {span}"
            ),
            Statistic::Departure => format!(
                "arsinh((level − baseline) / (|baseline| + floor)); the baseline is the median of one sample in {MARK_EVERY} steps over the last {span}"
            ),
            Statistic::Growth(_) if is_bounded => {
                format!("(level − level at t − {span}) / (limit − baseline), within ±2")
            }
            Statistic::Growth(_) => {
                format!("arsinh((level − level at t − {span}) / (|level at t − {span}| + floor))")
            }
        }
    }

    pub fn reason(self) -> &'static str {
        match self {
            Statistic::Value => "the current state; all that a body without history has",
            Statistic::Delta(_) => "sudden steps, as after a deploy",
            Statistic::Mean(_) => "sustained load, robust against one odd sample",
            Statistic::Std(_) => "jitter grows before saturation",
            Statistic::Max(_) => "a recent peak that has passed still says how close it was",
            Statistic::Slope(_) => "leaks, fills and wear show as a trend first",
            Statistic::Projection(_) => "where a gradual fault will be within the horizon",
            Statistic::TimeToLimit(_) => "how long is left at the present trend",
            Statistic::Ratio(_) => {
                "change against the target's own recent normal, which differs between targets"
            }
            Statistic::Departure => {
                "how much of the way from the target's own normal day to exhaustion, or how many times normal"
            }
            Statistic::Growth(_) => "how fast it leaves the normal",
        }
    }

    /// `None` when the window does not hold enough samples to say.
    pub fn compute(
        self,
        window: &Window,
        signal: usize,
        unit: Unit,
        fits: &mut Fits,
    ) -> Option<f64> {
        match self {
            Statistic::Value => window.get(signal, 0).map(f64::from),
            Statistic::Delta(n) => {
                Some(f64::from(window.get(signal, 0)?) - f64::from(window.get(signal, n)?))
            }
            Statistic::Mean(n) => Moments::of(window, signal, n).map(|m| m.mean),
            Statistic::Std(n) => Moments::of(window, signal, n).map(|m| m.std),
            Statistic::Max(n) => Moments::of(window, signal, n).map(|m| m.max),
            Statistic::Slope(n) => Some(fits.line(window, signal, n)?.per_hour),
            Statistic::Projection(n) => {
                let line = fits.line(window, signal, n)?;
                let limit = unit.limit()?;
                Some((line.level + line.per_hour * fits.horizon_hours).clamp(0.0, 2.0 * limit))
            }
            Statistic::TimeToLimit(n) => {
                let line = fits.line(window, signal, n)?;
                let left = unit.limit()? - line.level;
                let far = FAR_LIMIT_HORIZONS * fits.horizon_hours;
                Some(match () {
                    _ if left <= 0.0 => 0.0,
                    _ if line.per_hour <= left / far => far,
                    _ => left / line.per_hour,
                })
            }
            Statistic::Ratio(n) => {
                let mean = Moments::of(window, signal, n)?.mean;
                let value = f64::from(window.get(signal, 0)?);
                Some((value / mean.abs().max(1e-6)).clamp(-10.0, 10.0))
            }
            Statistic::Departure => {
                let level = level(window, signal, 0)?;
                let baseline = baseline(window, signal)?;
                Some(departure(level, baseline, baseline, unit))
            }
            Statistic::Growth(n) => {
                let (now, then) = (level(window, signal, 0)?, level(window, signal, n)?);
                let baseline = match unit.limit() {
                    Some(_) => baseline(window, signal)?,
                    None => then,
                };
                Some(departure(now, then, baseline, unit))
            }
        }
    }
}

/// What is normal for a signal; where the marks do not reach back far enough to tell, the mean over the window.
fn baseline(window: &Window, signal: usize) -> Option<f64> {
    match window.baseline(signal) {
        Some(baseline) => Some(f64::from(baseline)),
        None => Some(Moments::of(window, signal, window.lookback())?.mean),
    }
}

/// Mean over the steps up to the one `lag` steps ago.
fn level(window: &Window, signal: usize, lag: usize) -> Option<f64> {
    let (older, newer) = window.earlier(signal, lag, LEVEL);
    let present = older.iter().chain(newer).filter(|v| !v.is_nan());
    let (n, sum) = present.fold((0, 0.0), |(n, sum), v| (n + 1, sum + f64::from(*v)));
    (n >= 2).then(|| sum / f64::from(n))
}

/// From one level to another: as a share of what lies between the baseline and the limit or, without a limit,
/// of the baseline, and then in proportion to its logarithm where it is large.
fn departure(to: f64, from: f64, baseline: f64, unit: Unit) -> f64 {
    match unit.limit() {
        Some(limit) => {
            let room = (limit - baseline).max(0.01 * limit);
            ((to - from) / room).clamp(-2.0, 2.0)
        }
        None => {
            // One event more or less says nothing where there are none.
            let floor = if unit == Unit::Count { 1.0 } else { 1e-6 };
            ((to - from) / (baseline.abs() + floor)).asinh()
        }
    }
}

/// A least-squares line: its value at the newest slot and its slope.
#[derive(Clone, Copy)]
struct Line {
    level: f64,
    per_hour: f64,
}

/// Lines already fitted for this row: slope, projection and time to limit share one.
pub struct Fits {
    step_hours: f64,
    horizon_hours: f64,
    last: Option<(usize, usize, Option<Line>)>,
}

impl Fits {
    pub fn new(step: Duration, horizon: Duration) -> Self {
        Self {
            step_hours: step.as_secs_f64() / 3600.0,
            horizon_hours: horizon.as_secs_f64() / 3600.0,
            last: None,
        }
    }

    fn line(&mut self, window: &Window, signal: usize, steps: usize) -> Option<Line> {
        if let Some((s, n, line)) = self.last
            && (s, n) == (signal, steps)
        {
            return line;
        }
        let line = self.fit(window, signal, steps);
        self.last = Some((signal, steps, line));
        line
    }

    /// Needs samples in half of the slots.
    fn fit(&self, window: &Window, signal: usize, steps: usize) -> Option<Line> {
        let (mut n, mut sx, mut sy, mut sxx, mut sxy) = (0.0, 0.0, 0.0, 0.0, 0.0);
        let (older, newer) = window.recent(signal, steps);
        for (i, value) in older.iter().chain(newer).enumerate() {
            if !value.is_nan() {
                let x = i as f64 - (steps - 1) as f64;
                let y = f64::from(*value);
                n += 1.0;
                sx += x;
                sy += y;
                sxx += x * x;
                sxy += x * y;
            }
        }
        let spread = n * sxx - sx * sx;
        if n * 2.0 < steps as f64 || spread <= 0.0 {
            return None;
        }
        let slope = (n * sxy - sx * sy) / spread;
        Some(Line {
            level: (sy - slope * sx) / n,
            per_hour: slope / self.step_hours,
        })
    }
}

struct Moments {
    mean: f64,
    std: f64,
    max: f64,
}

impl Moments {
    /// Needs samples in a quarter of the slots, two at least.
    fn of(window: &Window, signal: usize, steps: usize) -> Option<Self> {
        let (older, newer) = window.recent(signal, steps);
        let present = || {
            older
                .iter()
                .chain(newer)
                .filter(|v| !v.is_nan())
                .map(|v| f64::from(*v))
        };
        let (mut n, mut sum, mut max) = (0usize, 0.0, f64::NEG_INFINITY);
        for value in present() {
            n += 1;
            sum += value;
            max = max.max(value);
        }
        if n < 2 || n * 4 < steps {
            return None;
        }
        let mean = sum / n as f64;
        let squares: f64 = present().map(|v| (v - mean) * (v - mean)).sum();
        Some(Self {
            mean,
            std: (squares / n as f64).sqrt(),
            max,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    const STEP: Duration = Duration::from_secs(60);

    fn window(values: &[Option<f32>]) -> Window {
        let mut window = Window::new(1, 120, STEP);
        for (i, value) in values.iter().enumerate() {
            let t = Timestamp::from_secs(60 * (1000 + i as i64));
            window.advance(t);
            if let Some(v) = value {
                window.set(0, t, *v);
            }
        }
        window
    }

    fn compute(statistic: Statistic, values: &[Option<f32>]) -> Option<f64> {
        let mut fits = Fits::new(STEP, Duration::from_secs(1800));
        statistic.compute(&window(values), 0, Unit::Percent, &mut fits)
    }

    fn ramp(n: usize, from: f32, per_step: f32) -> Vec<Option<f32>> {
        (0..n).map(|i| Some(from + per_step * i as f32)).collect()
    }

    #[test]
    fn a_ramp_has_its_slope_projection_and_time_to_limit() {
        let values = ramp(60, 40.0, 0.5); // 69.5 now, 30 % an hour
        let close = |statistic, expected: f64| {
            let got = compute(statistic, &values).unwrap();
            assert!(
                (got - expected).abs() < 1e-6,
                "{statistic:?}: {got} is not {expected}"
            );
        };
        close(Statistic::Slope(60), 30.0);
        close(Statistic::Projection(60), 84.5);
        close(Statistic::TimeToLimit(60), 30.5 / 30.0);
        close(Statistic::Delta(5), 2.5);
        close(Statistic::Max(60), 69.5);
        close(Statistic::Mean(15), 66.0);
    }

    #[test]
    fn a_flat_or_falling_line_never_meets_the_limit() {
        for per_step in [0.0, -0.2] {
            assert_eq!(
                compute(Statistic::TimeToLimit(60), &ramp(60, 50.0, per_step)),
                Some(24.0)
            );
        }
        assert_eq!(
            compute(Statistic::TimeToLimit(60), &ramp(60, 100.0, 0.0)),
            Some(0.0)
        );
        assert_eq!(
            compute(Statistic::Projection(60), &ramp(60, 60.0, -2.0)),
            Some(0.0)
        );
    }

    #[test]
    fn too_few_samples_give_no_number() {
        let mut values = vec![None; 60];
        values[59] = Some(1.0);
        for statistic in [
            Statistic::Mean(15),
            Statistic::Std(15),
            Statistic::Slope(60),
            Statistic::Delta(5),
            Statistic::Ratio(60),
        ] {
            assert_eq!(compute(statistic, &values), None, "{statistic:?}");
        }
        assert_eq!(compute(Statistic::Value, &values), Some(1.0));
        assert_eq!(compute(Statistic::Slope(60), &ramp(29, 0.0, 1.0)), None);
        assert!(compute(Statistic::Slope(60), &ramp(30, 0.0, 1.0)).is_some());
    }

    #[test]
    fn gaps_do_not_bend_a_line() {
        let mut values = ramp(60, 10.0, 0.25);
        for i in (3..50).step_by(3) {
            values[i] = None;
        }
        let slope = compute(Statistic::Slope(60), &values).unwrap();
        assert!((slope - 15.0).abs() < 1e-6, "{slope}");
    }
}
