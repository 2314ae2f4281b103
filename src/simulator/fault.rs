//! Gradual faults: how far one has come, when it ends by itself, and how
//! dangerous it is.

use super::Service;
use super::draw::{Draw, Noise};

/// Hazard of a healthy target, per minute: failures without any precursor.
pub const BASE_HAZARD: f64 = 8.5e-5;
/// Hazards that a course adds beyond its middle and at its limit; where, and
/// over which width of the severity, each of them sets in.
const MIDDLE_HAZARD: f64 = 9.5e-4;
const MIDDLE: (f64, f64) = (0.65, 0.03);
const LIMIT_HAZARD: f64 = 0.2;
const LIMIT: (f64, f64) = (0.975, 0.008);
/// Severities at which help comes: a first range for most courses, a second
/// for a few; the rest go to the limit.
const EARLY_HELP: (f64, f64, f64) = (0.80, 0.35, 0.75);
const LATE_HELP: (f64, f64, f64) = (0.018, 0.75, 0.97);
/// Chance per minute that help comes to a target at its limit.
const LATE_RELIEF: f64 = 0.002;

/// What is going wrong with a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// No course at all: fails from health.
    Abrupt,
    TrafficSurge,
    MemoryLeak,
    Saturation,
    DiskFill,
    SlowDatabase,
    Dependency,
    Wear,
    /// Only in a fleet with the unseen mode.
    PoolExhaustion,
}

impl Mode {
    pub const ALL: [Mode; 9] = [
        Mode::Abrupt,
        Mode::TrafficSurge,
        Mode::MemoryLeak,
        Mode::Saturation,
        Mode::DiskFill,
        Mode::SlowDatabase,
        Mode::Dependency,
        Mode::Wear,
        Mode::PoolExhaustion,
    ];

    /// Value of the oracle's label `mode`.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Abrupt => "abrupt",
            Mode::TrafficSurge => "traffic_surge",
            Mode::MemoryLeak => "memory_leak",
            Mode::Saturation => "saturation",
            Mode::DiskFill => "disk_fill",
            Mode::SlowDatabase => "slow_database",
            Mode::Dependency => "dependency_degradation",
            Mode::Wear => "equipment_wear",
            Mode::PoolExhaustion => "pool_exhaustion",
        }
    }

    /// Minutes from the first sign to the limit, and the share of the course
    /// that accelerates (0 straight, 1 quadratic).
    fn pace(self) -> (f64, f64, f64) {
        match self {
            Mode::Abrupt => (1.0, 1.0, 0.0),
            Mode::TrafficSurge => (70.0, 150.0, 0.1),
            Mode::MemoryLeak => (100.0, 360.0, 0.0),
            Mode::Saturation => (80.0, 200.0, 0.2),
            Mode::DiskFill => (150.0, 480.0, 0.0),
            Mode::SlowDatabase => (70.0, 160.0, 0.2),
            Mode::Dependency => (80.0, 200.0, 0.2),
            Mode::Wear => (130.0, 250.0, 0.4),
            Mode::PoolExhaustion => (90.0, 240.0, 0.1),
        }
    }

    /// Share of the severity that is left after each minute of relief.
    fn relief(self) -> f64 {
        match self {
            Mode::MemoryLeak | Mode::DiskFill | Mode::PoolExhaustion => 0.3,
            Mode::Saturation => 0.7,
            _ => 0.82,
        }
    }

    fn draw(service: Service, unseen: bool, draw: &mut Draw) -> Mode {
        if unseen && draw.chance(0.2) {
            return Mode::PoolExhaustion;
        }
        let shares: &[(Mode, f64)] = match service {
            Service::Shop => &[
                (Mode::TrafficSurge, 0.45),
                (Mode::MemoryLeak, 0.35),
                (Mode::DiskFill, 0.1),
                (Mode::SlowDatabase, 0.1),
            ],
            Service::Cloud => &[
                (Mode::Saturation, 0.5),
                (Mode::DiskFill, 0.3),
                (Mode::MemoryLeak, 0.2),
            ],
            Service::Payments => &[
                (Mode::SlowDatabase, 0.6),
                (Mode::MemoryLeak, 0.2),
                (Mode::Saturation, 0.1),
                (Mode::Dependency, 0.1),
            ],
            Service::Hospital => &[
                (Mode::Dependency, 0.6),
                (Mode::MemoryLeak, 0.25),
                (Mode::DiskFill, 0.15),
            ],
            Service::Factory => &[
                (Mode::Wear, 0.65),
                (Mode::DiskFill, 0.15),
                (Mode::MemoryLeak, 0.1),
                (Mode::Dependency, 0.1),
            ],
        };
        let mut rest = draw.unit();
        for (mode, share) in shares {
            rest -= share;
            if rest < 0.0 {
                return *mode;
            }
        }
        shares[0].0
    }
}

/// A gradual fault on its way: to the limit, or to the point where it ends by itself.
pub(super) struct Course {
    pub mode: Mode,
    /// 0 healthy to 1 at the limit.
    pub severity: f64,
    /// Its time runs this many times slower.
    stretch: f64,
    progress: f64,
    per_minute: f64,
    curve: f64,
    jitter: Noise,
    /// Severity at which help comes; above 1 if it does not.
    ends_at: f64,
    easing: bool,
}

impl Course {
    pub fn start(service: Service, unseen: bool, stretch: u32, draw: &mut Draw) -> Self {
        let mode = Mode::draw(service, unseen, draw);
        let (fastest, slowest, curve) = mode.pace();
        let fate = draw.unit();
        let stretch = f64::from(stretch);
        Self {
            mode,
            severity: 0.0,
            stretch,
            progress: 0.0,
            per_minute: 1.0 / (draw.range(fastest, slowest) * stretch),
            curve,
            jitter: Noise::default(),
            ends_at: if fate < EARLY_HELP.0 {
                draw.range(EARLY_HELP.1, EARLY_HELP.2)
            } else if fate < EARLY_HELP.0 + LATE_HELP.0 {
                draw.range(LATE_HELP.1, LATE_HELP.2)
            } else {
                2.0
            },
            easing: false,
        }
    }

    /// One more minute; `false` when it is over without a failure.
    pub fn tick(&mut self, draw: &mut Draw) -> bool {
        if self.easing {
            self.severity *= self.mode.relief();
            return self.severity > 0.02;
        }
        let pace = (1.0 + 0.3 * self.jitter.next(0.9, draw)).max(0.1);
        self.progress = (self.progress + self.per_minute * pace).clamp(0.0, 1.0);
        self.severity = curved(self.progress, self.curve);
        self.easing = self.severity >= self.ends_at
            || (self.progress >= 1.0 && draw.chance(LATE_RELIEF / self.stretch));
        true
    }

    /// Help has come; the severity only falls from here.
    pub fn easing(&self) -> bool {
        self.easing
    }

    /// Hazard that this course adds, per minute.
    pub fn hazard(&self) -> f64 {
        hazard(self.severity) / self.stretch
    }

    /// Probability of failing within `minutes` for one who knows the fault,
    /// its severity and pace, but not whether help will come.
    pub fn probability(&self, minutes: u32) -> f64 {
        if self.easing {
            return 1.0 - (-BASE_HAZARD / self.stretch * f64::from(minutes)).exp();
        }
        let (mut progress, mut severity) = (self.progress, self.severity);
        let mut going_on = 1.0;
        let mut failed = 0.0;
        for _ in 0..minutes {
            let fails = 1.0 - ((-BASE_HAZARD - hazard(severity)) / self.stretch).exp();
            failed += going_on * fails;
            progress = (progress + self.per_minute).min(1.0);
            let next = curved(progress, self.curve);
            going_on *= (1.0 - fails) * unhelped(next) / unhelped(severity);
            severity = next;
        }
        failed
    }
}

fn curved(progress: f64, curve: f64) -> f64 {
    progress * (1.0 - curve * (1.0 - progress))
}

fn hazard(severity: f64) -> f64 {
    let beyond = |(at, width): (f64, f64)| 1.0 / (1.0 + (-(severity - at) / width).exp());
    MIDDLE_HAZARD * beyond(MIDDLE) + LIMIT_HAZARD * beyond(LIMIT)
}

/// Share of the courses to which no help has come up to this severity.
fn unhelped(severity: f64) -> f64 {
    [EARLY_HELP, LATE_HELP]
        .iter()
        .fold(1.0, |rest, (share, from, to)| {
            rest - share * ((severity - from) / (to - from)).clamp(0.0, 1.0)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_course_reaches_its_limit_in_its_time_and_its_hazard_never_falls_on_the_way() {
        let mut draw = Draw::new(3, 0);
        let mut reached = 0;
        for service in Service::ALL.into_iter().cycle().take(300) {
            let mut course = Course::start(service, true, 1, &mut draw);
            let (fastest, slowest, _) = course.mode.pace();
            let mut minutes = 0.0;
            let mut before = 0.0;
            while course.tick(&mut draw) && course.progress < 1.0 && !course.easing {
                minutes += 1.0;
                assert!(course.hazard() >= before);
                before = course.hazard();
            }
            if course.progress >= 1.0 {
                reached += 1;
                assert!(
                    (0.8 * fastest..1.2 * slowest).contains(&minutes),
                    "{minutes}"
                );
                assert!(course.hazard() > 100.0 * BASE_HAZARD);
            }
        }
        assert!((35..90).contains(&reached), "{reached}");
    }

    #[test]
    fn the_unseen_mode_stays_unseen_unless_asked_for() {
        let mut draw = Draw::new(4, 0);
        let mut count = |unseen| {
            (0..500)
                .filter(|_| Mode::draw(Service::Cloud, unseen, &mut draw) == Mode::PoolExhaustion)
                .count()
        };
        assert_eq!(count(false), 0);
        assert!(count(true) > 50);
    }
}
