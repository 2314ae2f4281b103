//! A simulated fleet: a pure, seeded process per target with a tick of one
//! simulated minute. `docs/simulator.md` has the equations and the measured rates.

mod draw;
mod exposition;
mod fault;
mod scenario;
mod study;
mod target;

use serde::{Deserialize, Serialize};

pub use exposition::{Gauges, probe_text, write_history, write_oracle};
pub use fault::{BASE_HAZARD, Mode};
pub use scenario::{Pace, Scenario};
pub use study::{Census, Failure, Trail, find_upcoming};
pub use target::Target;

use crate::time::Timestamp;
use draw::Draw;

pub const MINUTES_PER_DAY: u64 = 1440;
/// Minutes that the oracle's probability looks ahead, unless a scenario says otherwise.
const HORIZON: u32 = 30;

/// Everything that determines a fleet and where it lies in time: the file
/// that `simulate history` writes and `simulate live` reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FleetSpec {
    pub seed: u64,
    pub targets: u32,
    /// Unix milliseconds of tick 0, a Monday 00:00 of the simulated calendar.
    pub origin: i64,
    /// Real milliseconds per simulated minute.
    pub tick_ms: i64,
    pub unseen_mode: bool,
    pub upcoming: Option<Upcoming>,
    /// All targets are of this use case and expose what its [`Scenario`] says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scenario: Option<Service>,
}

/// The failure that `--upcoming-failure` looked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upcoming {
    pub target: String,
    /// Unix milliseconds of the first failing tick.
    pub at: i64,
    pub mode: String,
}

/// The fleet on which models are tested and on which nobody tunes: 30 days of
/// 20 targets, with the mode that no training fleet has.
pub const TEST_FLEET: FleetSpec = FleetSpec {
    seed: 7001,
    targets: 20,
    origin: 0,
    tick_ms: 60_000,
    unseen_mode: true,
    upcoming: None,
    scenario: None,
};

impl FleetSpec {
    /// The instant of a tick.
    pub fn time(&self, tick: u64) -> Timestamp {
        Timestamp(self.origin + tick as i64 * self.tick_ms)
    }

    /// The tick whose sample is current at `t`; `None` before the origin.
    pub fn tick_at(&self, t: Timestamp) -> Option<u64> {
        u64::try_from((t.0 - self.origin).div_euclid(self.tick_ms)).ok()
    }
}

/// What one scrape of one target shows, and what only the simulator knows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    pub up: bool,
    /// `None` while the target fails and in scrape gaps.
    pub reading: Option<Reading>,
    pub oracle: Oracle,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    pub cpu_percent: f32,
    pub memory_percent: f32,
    pub disk_percent: f32,
    pub network_latency_ms: f32,
    pub response_time_ms: f32,
    pub active_connections: f32,
    /// Counter; falls to 0 when the target restarts.
    pub errors: u32,
    /// In the last minute.
    pub requests: f32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Oracle {
    /// Rate per minute at which the target fails after this sample; 0 while it is failing.
    pub hazard: f32,
    /// Probability of failing within the horizon, 30 simulated minutes, for one who
    /// sees the fault but not whether help will come; 0 while failing.
    pub probability: f32,
    /// The fault that is under way or, while the target is failing, that brought it down.
    pub mode: Option<Mode>,
    /// 0 to 1 at the limit; 1 while failing.
    pub severity: f32,
}

#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    Shop,
    Cloud,
    Payments,
    Hospital,
    Factory,
}

impl Service {
    pub const ALL: [Service; 5] = [
        Service::Shop,
        Service::Cloud,
        Service::Payments,
        Service::Hospital,
        Service::Factory,
    ];

    /// Value of the label `service`.
    pub fn name(self) -> &'static str {
        match self {
            Service::Shop => "shop",
            Service::Cloud => "cloud",
            Service::Payments => "payments",
            Service::Hospital => "hospital",
            Service::Factory => "factory",
        }
    }

    fn of(index: u32) -> Self {
        Self::ALL[index as usize % Self::ALL.len()]
    }

    /// Hour of the daily peak and factor of the load on weekends.
    fn rhythm(self) -> (f64, f64) {
        match self {
            Service::Shop => (19.0, 1.25),
            Service::Cloud => (14.0, 0.8),
            Service::Payments => (13.0, 0.9),
            Service::Hospital => (10.0, 0.75),
            Service::Factory => (11.0, 0.6),
        }
    }
}

/// What hits all targets of one service at once; harmless in itself.
struct Crowd {
    /// Factor on the load.
    demand: f64,
    /// A new release is rolled out in this minute.
    release: bool,
    peak: f64,
    ramp: u64,
    hold: u64,
    age: Option<u64>,
}

impl Crowd {
    fn calm() -> Self {
        Self {
            demand: 1.0,
            release: false,
            peak: 1.0,
            ramp: 1,
            hold: 0,
            age: None,
        }
    }

    fn tick(&mut self, minute: u64, draw: &mut Draw) {
        let hour = minute % MINUTES_PER_DAY / 60;
        let working = (8..18).contains(&hour) && minute / MINUTES_PER_DAY % 7 < 5;
        self.release = draw.chance(if working { 1.0 / 900.0 } else { 1.0 / 20_000.0 });
        match self.age {
            None if draw.chance(1.0 / 4000.0) => {
                self.peak = draw.range(1.3, 1.8);
                self.ramp = draw.whole(4, 16);
                self.hold = draw.whole(10, 45);
                self.age = Some(0);
            }
            None => {}
            Some(age) => {
                let fall = (age.saturating_sub(self.ramp + self.hold)) as f64;
                let share =
                    (age as f64 / self.ramp as f64).min(1.0) - fall / (2 * self.ramp) as f64;
                self.demand = 1.0 + (self.peak - 1.0) * share.max(0.0);
                self.age = (share >= 0.0).then_some(age + 1);
            }
        }
    }
}

/// All targets of a spec, one tick at a time from the origin.
pub struct Fleet {
    draw: Draw,
    crowds: [Crowd; Service::ALL.len()],
    targets: Vec<Target>,
    next_tick: u64,
}

impl Fleet {
    pub fn new(spec: &FleetSpec) -> Self {
        Self {
            draw: Draw::new(spec.seed, 0),
            crowds: std::array::from_fn(|_| Crowd::calm()),
            targets: (0..spec.targets)
                .map(|index| Target::new(spec, index))
                .collect(),
            next_tick: 0,
        }
    }

    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// The tick that `advance` simulates next.
    pub fn next_tick(&self) -> u64 {
        self.next_tick
    }

    /// Simulates one minute; hands out the sample of each target by index.
    pub fn advance(&mut self, mut take: impl FnMut(usize, Sample)) {
        let minute = self.next_tick;
        self.next_tick += 1;
        for crowd in &mut self.crowds {
            crowd.tick(minute, &mut self.draw);
        }
        for (index, target) in self.targets.iter_mut().enumerate() {
            take(
                index,
                target.tick(minute, &self.crowds[target.service() as usize]),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    fn run(spec: &FleetSpec, days: u64) -> Vec<Vec<Sample>> {
        let mut fleet = Fleet::new(spec);
        let mut tracks = vec![Vec::new(); spec.targets as usize];
        while fleet.next_tick() < days * MINUTES_PER_DAY {
            fleet.advance(|index, sample| tracks[index].push(sample));
        }
        tracks
    }

    fn fleet(seed: u64, targets: u32) -> FleetSpec {
        FleetSpec {
            seed,
            targets,
            unseen_mode: false,
            ..TEST_FLEET
        }
    }

    /// Four significant digits: coarser than any difference between two `exp` or `sin`.
    fn fingerprint(tracks: &[Vec<Sample>], hash: &mut Sha256) {
        for sample in tracks.iter().flatten() {
            let line = match &sample.reading {
                Some(r) => format!(
                    "{} {:.3e} {:.3e} {:.3e} {:.3e} {:.3e} {:.3e} {}\n",
                    sample.up,
                    r.cpu_percent,
                    r.memory_percent,
                    r.disk_percent,
                    r.network_latency_ms,
                    r.response_time_ms,
                    r.active_connections,
                    r.errors
                ),
                None => format!("{}\n", sample.up),
            };
            hash.update(line);
        }
    }

    #[test]
    fn the_process_is_frozen() {
        let mut hash = Sha256::new();
        fingerprint(&run(&fleet(1, 5), 3), &mut hash);
        fingerprint(&run(&TEST_FLEET, 1), &mut hash);
        // As it was written before there were scenarios.
        hash.update(format!("{TEST_FLEET:?}").replace(", scenario: None", ""));
        let digest: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        assert!(
            include_str!("../../docs/simulator.md").contains(&digest),
            "the simulated process has changed (now {digest}): models and results made on it no longer \
             compare; if that is meant, put the new hash into docs/simulator.md and train again"
        );
    }

    #[test]
    fn targets_have_streams_of_their_own() {
        let few = run(&fleet(5, 3), 2);
        assert_eq!(few[..], run(&fleet(5, 8), 2)[..3]);
        assert_ne!(few[0], run(&fleet(6, 1), 2)[0]);
        let names: Vec<String> = Fleet::new(&fleet(5, 6))
            .targets()
            .iter()
            .map(|target| target.name().to_owned())
            .collect();
        assert_eq!(names[0], "shop-01");
        assert_eq!(names[4..], ["factory-01", "shop-02"]);
    }

    #[test]
    fn rates_are_those_of_the_docs() {
        let tracks = run(&fleet(2, 20), 60);
        let mut census = Census::default();
        tracks.iter().for_each(|track| census.add(track));
        let per = |part: u64, whole: u64| part as f64 / whole as f64;
        let check = |what: &str, value: f64, low: f64, high: f64| {
            assert!((low..high).contains(&value), "{what}: {value}\n{census}");
        };
        let total = census.total();
        check("failures a day", per(total, 20 * 60), 0.35, 0.5);
        check("abrupt", per(census.abrupt(), total), 0.25, 0.35);
        check("near misses", per(census.near_misses, total), 3.0, 4.5);
        check(
            "base rate",
            per(census.minutes_positive, census.minutes_up),
            0.006,
            0.012,
        );
        check(
            "precursor among gradual failures",
            per(census.with_precursor, total - census.abrupt()),
            0.85,
            1.0,
        );
        check(
            "critical for ten minutes",
            per(census.critical, census.with_precursor),
            0.9,
            1.0,
        );
        let gaps = tracks
            .iter()
            .flatten()
            .filter(|s| s.up && s.reading.is_none());
        check(
            "lost scrapes",
            per(gaps.count() as u64, census.minutes_up),
            0.0005,
            0.004,
        );
        for track in &tracks {
            let mut down = 0;
            for sample in track {
                match sample.up {
                    false => down += 1,
                    true => {
                        assert!(
                            down == 0 || (5..=30).contains(&down),
                            "outage of {down} min"
                        );
                        down = 0;
                    }
                }
            }
        }
    }

    /// Pages as the shipped rule does, with the oracle's probability as the score.
    #[test]
    fn an_ideal_observer_is_good_but_not_perfect() {
        let (mut right, mut wrong, mut foreseen, mut announced) = (0u32, 0u32, 0u32, 0u32);
        for track in run(&fleet(3, 20), 60) {
            let mut trail = Trail::default();
            let (mut above, mut covered_until) = (0, 0);
            let starts: Vec<(usize, Failure)> = track
                .iter()
                .enumerate()
                .filter_map(|(t, sample)| trail.push(sample).map(|failure| (t, failure)))
                .collect();
            let mut alarms = Vec::new();
            for (t, sample) in track.iter().enumerate() {
                above = if sample.oracle.probability > 0.8 {
                    above + 1
                } else {
                    0
                };
                if above > 5 && t > covered_until {
                    alarms.push(t);
                    covered_until = t + 30;
                }
            }
            let covers = |alarm: usize, start: usize| (alarm + 1..=alarm + 30).contains(&start);
            for alarm in &alarms {
                let hit = |from: usize| starts.iter().any(|(start, _)| covers(from, *start));
                // An alarm up to 30 minutes early counts neither way.
                right += u32::from(hit(*alarm));
                wrong += u32::from(!hit(*alarm) && !hit(*alarm + 30));
            }
            for (start, _) in starts.iter().filter(|(_, failure)| failure.has_precursor()) {
                announced += 1;
                foreseen += u32::from(alarms.iter().any(|alarm| covers(*alarm, *start)));
            }
        }
        let precision = f64::from(right) / f64::from(right + wrong);
        let recall = f64::from(foreseen) / f64::from(announced);
        println!("precision {precision:.3}, recall {recall:.3}");
        assert!(
            (0.85..0.98).contains(&precision),
            "{right} right, {wrong} false"
        );
        assert!((0.88..1.0).contains(&recall), "{foreseen} of {announced}");
    }

    #[test]
    fn a_spec_places_ticks_in_time() {
        let spec = FleetSpec {
            origin: 1_000_000,
            tick_ms: 3000,
            ..TEST_FLEET
        };
        assert_eq!(spec.tick_at(spec.time(7)), Some(7));
        assert_eq!(spec.tick_at(Timestamp(1_000_000 + 3000 * 8 - 1)), Some(7));
        assert_eq!(spec.tick_at(Timestamp(999_999)), None);
    }
}
