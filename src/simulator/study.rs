//! What the simulator knows about its own failures: how early they could be
//! seen, how many courses ended well, and which one to show next.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use super::{BASE_HAZARD, Fleet, FleetSpec, MINUTES_PER_DAY, Mode, Oracle, Pace, Sample, Upcoming};

/// Probability of failing within the horizon at which the shipped rule pages.
const CRITICAL: f32 = 0.8;
/// A precursor is a hazard of this many times the base …
const PRECURSOR_FACTOR: f32 = 10.0;
/// … for this many minutes before the start; in a stretched process they are stretched too.
const PRECURSOR_MINUTES: usize = 15;
const MEMORY_MINUTES: usize = 120;

/// How one failure announced itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Failure {
    pub mode: Mode,
    /// Minutes up before it.
    pub uptime: u64,
    /// Unbroken minutes before it with a hazard of at least 10 times the base.
    pub precursor_minutes: usize,
    /// Unbroken minutes before it in which the oracle's probability was above 0.8.
    pub critical_minutes: usize,
    /// Unbroken minutes before it with the fault at a quarter of its course or more.
    pub visible_minutes: usize,
    pace: Pace,
}

impl Failure {
    pub fn has_precursor(&self) -> bool {
        self.precursor_minutes >= PRECURSOR_MINUTES * self.pace.stretch as usize
    }

    /// A leak, degrading for long, and critical long enough to page but so shortly that one can watch the probability rise.
    fn is_instructive(&self) -> bool {
        self.mode == Mode::MemoryLeak
            && self.visible_minutes >= 30
            && (12..=16).contains(&self.critical_minutes)
            && self.uptime >= 180
    }
}

/// The recent past of one target, fed sample by sample.
#[derive(Default)]
pub struct Trail {
    recent: VecDeque<Oracle>,
    uptime: u64,
    mode: Option<Mode>,
    /// Courses that ended without a failure.
    pub near_misses: u64,
    pace: Pace,
}

impl Trail {
    pub fn new(pace: Pace) -> Self {
        Self {
            pace,
            ..Self::default()
        }
    }

    /// The failure that starts with this sample, if one does.
    pub fn push(&mut self, sample: &Sample) -> Option<Failure> {
        let mode = sample.oracle.mode;
        if sample.up {
            if self.mode.is_some() && mode.is_none() && self.uptime > 0 {
                self.near_misses += 1;
            }
            self.mode = mode;
            self.uptime += 1;
            if self.recent.len() == MEMORY_MINUTES * self.pace.stretch as usize {
                self.recent.pop_front();
            }
            self.recent.push_back(sample.oracle);
            return None;
        }
        let failure = (self.uptime > 0).then(|| self.failure(mode.unwrap_or(Mode::Abrupt)));
        self.recent.clear();
        self.uptime = 0;
        self.mode = mode;
        failure
    }

    fn failure(&self, mode: Mode) -> Failure {
        let precursor = PRECURSOR_FACTOR * (BASE_HAZARD / f64::from(self.pace.stretch)) as f32;
        let minutes = |holds: &dyn Fn(&Oracle) -> bool| {
            self.recent.iter().rev().take_while(|o| holds(o)).count()
        };
        Failure {
            mode,
            uptime: self.uptime,
            precursor_minutes: minutes(&|o| o.hazard >= precursor),
            critical_minutes: minutes(&|o| o.probability > CRITICAL),
            visible_minutes: minutes(&|o| o.severity >= 0.25),
            pace: self.pace,
        }
    }
}

/// Counts over a stretch of a fleet's life.
#[derive(Default)]
pub struct Census {
    pub failures: BTreeMap<Mode, u64>,
    pub with_precursor: u64,
    /// Failures that were critical for at least ten minutes.
    pub critical: u64,
    pub near_misses: u64,
    pub minutes_up: u64,
    pub minutes_positive: u64,
    pace: Pace,
}

impl Census {
    pub fn new(pace: Pace) -> Self {
        Self {
            pace,
            ..Self::default()
        }
    }

    /// Counts one target's samples.
    pub fn add(&mut self, samples: &[Sample]) {
        let mut trail = Trail::new(self.pace);
        for sample in samples {
            self.minutes_up += u64::from(sample.up);
            if let Some(failure) = trail.push(sample) {
                *self.failures.entry(failure.mode).or_default() += 1;
                self.with_precursor += u64::from(failure.has_precursor());
                self.critical += u64::from(failure.critical_minutes >= 10);
                self.minutes_positive += failure.uptime.min(u64::from(self.pace.horizon));
            }
        }
        self.near_misses += trail.near_misses;
    }

    pub fn total(&self) -> u64 {
        self.failures.values().sum()
    }

    pub fn abrupt(&self) -> u64 {
        self.failures.get(&Mode::Abrupt).copied().unwrap_or(0)
    }
}

impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total();
        let percent = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
        let modes: Vec<String> = self
            .failures
            .iter()
            .map(|(mode, count)| format!("{} {count}", mode.name()))
            .collect();
        writeln!(f, "failures: {total} ({})", modes.join(", "))?;
        writeln!(
            f,
            "with precursor: {} ({:.0} %), critical for 10 min before: {}, abrupt: {:.0} %",
            self.with_precursor,
            percent(self.with_precursor, total),
            self.critical,
            percent(self.abrupt(), total)
        )?;
        write!(
            f,
            "near misses: {} ({:.1} per failure); a failure starts within {} min of {:.2} % of the minutes up",
            self.near_misses,
            self.near_misses as f64 / total.max(1) as f64,
            self.pace.horizon,
            percent(self.minutes_positive, self.minutes_up)
        )
    }
}

/// Looks through `spec`'s future for a failure that is good to watch, at
/// least `earliest` ticks after the origin. Of those in 60 days it takes the
/// one for which a shift of the origin that puts it on `calendar_minute` of
/// the week disturbs the daily rhythm least; nothing is forced.
/// The `at` of the answer is on the spec's own time line.
pub fn find_upcoming(
    spec: &FleetSpec,
    earliest: u64,
    calendar_minute: u64,
) -> Option<(u64, Upcoming)> {
    let mut fleet = Fleet::new(spec);
    let mut trails: Vec<Trail> = (0..spec.targets).map(|_| Trail::default()).collect();
    let mut best: Option<(u64, u64, usize, Mode)> = None;
    while fleet.next_tick() < earliest + 60 * MINUTES_PER_DAY {
        let tick = fleet.next_tick();
        fleet.advance(|index, sample| {
            let failure = trails[index].push(&sample);
            if let Some(failure) = failure.filter(|f| tick >= earliest && f.is_instructive()) {
                let shift = calendar_shift(tick, calendar_minute);
                if best.is_none_or(|(least, ..)| shift < least) {
                    best = Some((shift, tick, index, failure.mode));
                }
            }
        });
    }
    best.map(|(_, tick, index, mode)| {
        let upcoming = Upcoming {
            target: fleet.targets()[index].name().to_owned(),
            at: spec.time(tick).0,
            mode: mode.name().to_owned(),
        };
        (tick, upcoming)
    })
}

/// Minutes between two times of day, and three hours more when only one of them is on a weekend.
fn calendar_shift(a: u64, b: u64) -> u64 {
    let apart = (a % MINUTES_PER_DAY).abs_diff(b % MINUTES_PER_DAY);
    let weekend = |minute: u64| minute / MINUTES_PER_DAY % 7 >= 5;
    apart.min(MINUTES_PER_DAY - apart) + 180 * u64::from(weekend(a) != weekend(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(hazard: f32, severity: f32, mode: Option<Mode>) -> Sample {
        Sample {
            up: hazard > 0.0,
            reading: None,
            oracle: Oracle {
                hazard,
                probability: if hazard > 0.1 { 0.9 } else { 0.1 },
                mode,
                severity,
            },
        }
    }

    #[test]
    fn a_trail_tells_failures_near_misses_and_their_warning_times() {
        let leak = Some(Mode::MemoryLeak);
        let mut trail = Trail::default();
        let mut push = |count: usize, hazard, severity, mode| {
            (0..count)
                .filter_map(|_| trail.push(&sample(hazard, severity, mode)))
                .next()
        };
        push(100, 8e-5, 0.0, None);
        push(20, 1e-3, 0.5, leak);
        push(10, 8e-5, 0.0, None);
        push(20, 1e-3, 0.5, leak);
        push(5, 0.2, 1.0, leak);
        let failure = push(7, 0.0, 1.0, leak).unwrap();
        assert_eq!(failure.uptime, 155);
        assert_eq!(failure.precursor_minutes, 25);
        assert_eq!(failure.visible_minutes, 25);
        assert_eq!(failure.critical_minutes, 5);
        assert_eq!(push(50, 8e-5, 0.0, None), None);
        let abrupt = push(1, 0.0, 1.0, Some(Mode::Abrupt)).unwrap();
        assert_eq!((abrupt.uptime, abrupt.has_precursor()), (50, false));
        assert_eq!(trail.near_misses, 1);
    }

    #[test]
    fn calendar_shift_goes_round_the_clock() {
        assert_eq!(calendar_shift(10, MINUTES_PER_DAY - 10), 20);
        assert_eq!(calendar_shift(0, 5 * MINUTES_PER_DAY), 180);
    }
}
