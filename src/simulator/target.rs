//! One simulated target: baselines, load, harmless look-alikes, faults, failures.

use std::f64::consts::TAU;

use super::draw::{Draw, Noise};
use super::fault::{BASE_HAZARD, Course, Mode};
use super::{Crowd, FleetSpec, Oracle, Pace, Reading, Sample, Scenario, Service};

const DAY: u64 = 1440;
/// Chance per minute that a course begins, at average load.
const ONSET: f64 = 1.5e-3;
/// Minutes after a restart or a relief before the next course may begin.
const REST: u64 = 45;

struct Baseline {
    cpu: f64,
    memory: f64,
    disk: f64,
    network_ms: f64,
    response_ms: f64,
    requests_per_second: f64,
    error_share: f64,
    pool: f64,
    pool_limit: f64,
    swing: f64,
    sawtooth: f64,
    sawtooth_minutes: u64,
    log_growth: f64,
    backup_at: u64,
    backup_minutes: u64,
    backup_cpu: f64,
    backup_disk: f64,
    hourly_at: Option<u64>,
}

impl Baseline {
    fn draw(draw: &mut Draw) -> Self {
        Self {
            cpu: draw.range(14.0, 36.0),
            memory: draw.range(32.0, 60.0),
            disk: draw.range(28.0, 60.0),
            network_ms: draw.range(1.0, 15.0),
            response_ms: draw.range(30.0, 200.0),
            requests_per_second: draw.range(15.0, 120.0),
            error_share: draw.range(1e-4, 6e-4),
            pool: draw.range(10.0, 50.0),
            pool_limit: draw.range(300.0, 700.0),
            swing: draw.range(0.25, 0.55),
            sawtooth: draw.range(1.5, 8.0),
            sawtooth_minutes: draw.whole(20, 150),
            log_growth: draw.range(2.0, 8.0),
            backup_at: draw.whole(0, 5 * 60),
            backup_minutes: draw.whole(15, 45),
            backup_cpu: draw.range(12.0, 38.0),
            backup_disk: draw.range(3.0, 12.0),
            hourly_at: draw.chance(0.4).then(|| draw.whole(0, 60)),
        }
    }
}

/// What the running release changes, until the next one.
struct Release {
    cpu: f64,
    memory: f64,
    response: f64,
    /// Minutes of rollout left.
    rollout: u32,
}

#[derive(Default)]
struct Noises {
    load: Noise,
    cpu: Noise,
    memory: Noise,
    network: Noise,
    response: Noise,
    connections: Noise,
}

/// The state of one target between two ticks.
pub struct Target {
    name: String,
    service: Service,
    unseen: bool,
    pace: Pace,
    draw: Draw,
    baseline: Baseline,
    release: Release,
    noises: Noises,
    course: Option<Course>,
    /// Minutes of outage left, and what caused it.
    outage: Option<(u32, Mode)>,
    errors: u32,
    /// 1 right after a restart, falling to 0.
    cold: f64,
    rest_until: u64,
    gap: u32,
}

impl Target {
    pub(super) fn new(spec: &FleetSpec, index: u32) -> Self {
        let mut draw = Draw::new(spec.seed, u64::from(index) + 1);
        let service = spec.scenario.unwrap_or(Service::of(index));
        let name = match spec.scenario {
            Some(scenario) => Scenario::of(scenario).name(index),
            None => format!(
                "{}-{:02}",
                service.name(),
                index as usize / Service::ALL.len() + 1
            ),
        };
        Self {
            name,
            service,
            unseen: spec.unseen_mode,
            pace: Pace::of(spec.scenario),
            baseline: Baseline::draw(&mut draw),
            draw,
            release: Release {
                cpu: 1.0,
                memory: 0.0,
                response: 1.0,
                rollout: 0,
            },
            noises: Noises::default(),
            course: None,
            outage: None,
            errors: 0,
            cold: 0.0,
            rest_until: 0,
            gap: 0,
        }
    }

    /// Value of the label `instance`.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn service(&self) -> Service {
        self.service
    }

    /// Advances by one minute. The failure that this minute's hazard may
    /// bring shows in the next sample.
    pub(super) fn tick(&mut self, minute: u64, crowd: &Crowd) -> Sample {
        if let Some((left, mode)) = self.outage {
            self.outage = (left > 1).then(|| (left - 1, mode));
            if self.outage.is_none() {
                self.restart(minute);
            }
            return Sample {
                up: false,
                reading: None,
                oracle: Oracle {
                    hazard: 0.0,
                    probability: 0.0,
                    mode: Some(mode),
                    severity: 1.0,
                },
            };
        }
        let load = self.load(minute, crowd);
        self.advance_course(minute, load);
        if crowd.release {
            self.deploy();
        }
        let reading = self.read(minute, load);
        let course = self.course.as_ref();
        let stretch = f64::from(self.pace.stretch);
        let added = course.map_or(0.0, Course::hazard);
        let hazard = BASE_HAZARD / stretch + added;
        let oracle = Oracle {
            hazard: hazard as f32,
            probability: probability(course, self.pace) as f32,
            mode: course.map(|course| course.mode),
            severity: course.map_or(0.0, |course| course.severity as f32),
        };
        if self.draw.chance(1.0 - (-hazard).exp()) {
            let cause = match oracle.mode {
                Some(mode) if self.draw.chance(added / hazard) => mode,
                _ => Mode::Abrupt,
            };
            let minutes = self.draw.whole(5, 31) as u32 * self.pace.stretch;
            self.outage = Some((minutes, cause));
        }
        Sample {
            up: true,
            reading: self.scraped().then_some(reading),
            oracle,
        }
    }

    /// Demand relative to the target's mean.
    fn load(&mut self, minute: u64, crowd: &Crowd) -> f64 {
        let hour = (minute % DAY) as f64 / 60.0;
        let (peak, weekend) = self.service.rhythm();
        let phase = TAU * (hour - peak) / 24.0;
        let daily = 1.0
            + self.baseline.swing
                * (0.8 * (TAU / 4.0 + phase).sin() + 0.2 * (TAU / 4.0 + 2.0 * phase).sin());
        let weekly = if minute / DAY % 7 >= 5 { weekend } else { 1.0 };
        let noise = 1.0 + 0.06 * self.noises.load.next(0.9, &mut self.draw);
        daily * weekly * crowd.demand * noise.max(0.2)
    }

    fn advance_course(&mut self, minute: u64, load: f64) {
        match &mut self.course {
            Some(course) => {
                let was_easing = course.easing();
                let goes_on = course.tick(&mut self.draw);
                let restarted = matches!(course.mode, Mode::MemoryLeak | Mode::PoolExhaustion)
                    && course.easing()
                    && !was_easing;
                if restarted {
                    self.errors = 0;
                    self.cold = 1.0;
                }
                if !goes_on {
                    self.course = None;
                    self.rest_until = minute + REST * u64::from(self.pace.stretch);
                }
            }
            None => {
                let onset = ONSET * load / f64::from(self.pace.stretch);
                if minute >= self.rest_until && self.draw.chance(onset) {
                    let (service, stretch) = (self.service, self.pace.stretch);
                    self.course =
                        Some(Course::start(service, self.unseen, stretch, &mut self.draw));
                }
            }
        }
    }

    fn deploy(&mut self) {
        self.release = Release {
            cpu: self.draw.range(0.85, 1.2),
            memory: self.draw.range(-6.0, 8.0),
            response: self.draw.range(0.85, 1.2),
            rollout: self.draw.whole(2, 7) as u32,
        };
        self.errors = 0;
        self.cold = 1.0;
    }

    fn restart(&mut self, minute: u64) {
        self.course = None;
        self.errors = 0;
        self.cold = 1.0;
        self.rest_until = minute + REST * u64::from(self.pace.stretch);
    }

    /// Whether this scrape brings samples: a few are lost for some minutes.
    fn scraped(&mut self) -> bool {
        if self.gap == 0 && self.draw.chance(1.0 / 1500.0) {
            self.gap = self.draw.whole(1, 5) as u32;
            return false;
        }
        self.gap = self.gap.saturating_sub(1);
        self.gap == 0
    }

    fn read(&mut self, minute: u64, load: f64) -> Reading {
        let base = &self.baseline;
        let draw = &mut self.draw;
        let (mode, x) = match &self.course {
            Some(course) => (course.mode, course.severity),
            None => (Mode::Abrupt, 0.0),
        };
        let late = |from: f64| ((x - from) / (1.0 - from)).max(0.0);
        let of_day = minute % DAY;

        let demand = match mode {
            Mode::TrafficSurge => load * (1.0 + 1.6 * x),
            _ => load,
        };
        let mut cpu = 4.0
            + base.cpu * self.release.cpu * demand
            + 2.0 * self.noises.cpu.next(0.6, draw)
            + 8.0 * self.cold;
        let mut memory = base.memory
            + self.release.memory
            + 4.0 * (load - 1.0)
            + base.sawtooth * (minute % base.sawtooth_minutes) as f64
                / base.sawtooth_minutes as f64
            + 0.5 * self.noises.memory.next(0.8, draw)
            - 10.0 * self.cold;
        let mut disk = base.disk
            + base.log_growth * ((minute + DAY - base.backup_at) % DAY) as f64 / DAY as f64
            + 0.05 * draw.normal();
        let mut network_ms =
            base.network_ms * (1.0 + 0.12 * self.noises.network.next(0.7, draw)).max(0.3);
        let mut response = self.release.response
            * (1.0 + 0.08 * self.noises.response.next(0.6, draw)).max(0.3)
            * (1.0 + 0.5 * self.cold);
        let mut waiting = 1.0;
        let mut connections = base.pool * (1.0 + 0.05 * self.noises.connections.next(0.8, draw));
        let mut error_share = base.error_share * (1.0 + 4.0 * self.cold);

        let into_backup = (minute + DAY - base.backup_at) % DAY;
        if into_backup < base.backup_minutes {
            cpu += base.backup_cpu;
            disk += base.backup_disk * into_backup as f64 / base.backup_minutes as f64;
            network_ms *= 1.3;
        }
        if base.hourly_at.is_some_and(|at| (of_day + 60 - at) % 60 < 3) {
            cpu += 9.0;
        }
        if self.release.rollout > 0 {
            self.release.rollout -= 1;
            cpu += 14.0;
            error_share *= 5.0;
        }

        match mode {
            Mode::Abrupt => {}
            Mode::TrafficSurge => {
                cpu = pull(cpu, 97.0 + draw.normal(), x);
                error_share += 0.03 * late(0.7);
            }
            Mode::MemoryLeak => {
                memory = pull(memory, 97.5 + 0.4 * draw.normal(), x);
                cpu += 18.0 * late(0.75);
                response *= 1.0 + 2.5 * late(0.7);
                error_share += 0.02 * late(0.85);
            }
            Mode::Saturation => {
                cpu = pull(cpu, 97.5 + 0.8 * draw.normal(), x);
                memory += 12.0 * x;
                response *= 1.0 + 1.5 * late(0.6);
                error_share += 0.01 * late(0.8);
            }
            Mode::DiskFill => {
                disk = pull(disk, 99.5 + 0.1 * draw.normal(), x);
                response *= 1.0 + 1.5 * late(0.85);
                error_share += 0.02 * late(0.9);
            }
            Mode::SlowDatabase => {
                response *= 1.0 + 7.0 * x * x;
                waiting = 1.0 + 4.0 * x;
                cpu *= 1.0 - 0.15 * x;
                error_share += 0.06 * late(0.6);
            }
            Mode::Dependency => {
                network_ms *= 1.0 + 10.0 * x;
                response *= 1.0 + 2.0 * x;
                error_share += 0.05 * late(0.5);
            }
            Mode::Wear => {
                network_ms *= 1.0 + 1.2 * x;
                response *= 1.0 + 2.5 * x;
                cpu += 10.0 * x;
                error_share += 0.006 * x + 0.02 * late(0.7);
            }
            Mode::PoolExhaustion => {
                connections = pull(
                    connections,
                    base.pool_limit * (1.0 + 0.02 * draw.normal()),
                    x,
                );
                response *= 1.0 + 4.0 * late(0.85);
                error_share += 0.04 * late(0.9);
            }
        }

        let cpu = cpu.clamp(0.5, 100.0);
        let busy = cpu / 100.0;
        let queueing = 1.0 + 0.8 * busy * busy / (1.06 - busy);
        let response_ms = base.response_ms * response * queueing + 2.0 * network_ms;
        // Little's law; the mean response is about 0.4 of the p95.
        let requests = base.requests_per_second * demand;
        connections += waiting * requests * 0.4 * response_ms / 1000.0;
        self.errors += draw.poisson(60.0 * requests * error_share);
        self.cold *= 0.93;
        Reading {
            cpu_percent: rounded(cpu, 100.0),
            memory_percent: rounded(memory.clamp(0.5, 100.0), 100.0),
            disk_percent: rounded(disk.clamp(0.5, 100.0), 100.0),
            network_latency_ms: rounded(network_ms, 100.0),
            response_time_ms: rounded(response_ms, 10.0),
            active_connections: rounded(connections.max(0.0), 1.0),
            errors: self.errors,
            requests: rounded(60.0 * requests, 1.0),
        }
    }
}

fn probability(course: Option<&Course>, pace: Pace) -> f64 {
    course.map_or_else(
        || 1.0 - (-BASE_HAZARD / f64::from(pace.stretch) * f64::from(pace.horizon)).exp(),
        |course| course.probability(pace.horizon),
    )
}

fn pull(value: f64, limit: f64, share: f64) -> f64 {
    value + (limit - value).max(0.0) * share
}

/// Exporters report few digits; these also survive the way through text unchanged.
fn rounded(value: f64, per_unit: f64) -> f32 {
    ((value * per_unit).round() / per_unit) as f32
}
