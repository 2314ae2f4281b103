//! The simulated process in the clothes of one use case: what its targets are called and what they
//! expose, as a table in `scenarios.yaml`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use super::{HORIZON, MINUTES_PER_DAY, Reading, Sample, Service};

/// One use case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    job: String,
    target: Naming,
    group: Group,
    /// Faults, failures and repairs take this many times as long.
    stretch: u32,
    /// Minutes that the oracle looks ahead.
    horizon: u32,
    /// Whether a target that fails can still be scraped.
    pub(super) reachable: bool,
    pub(super) families: Vec<Family>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Naming {
    label: String,
    prefix: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    label: String,
    values: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Family {
    pub name: String,
    pub kind: Kind,
    pub help: String,
    series: Vec<Series>,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Gauge,
    Counter,
    Histogram,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Series {
    #[serde(default)]
    labels: BTreeMap<String, String>,
    shows: Shows,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Shows {
    Level(Term),
    Total(Term),
    /// Upper bounds of the buckets in seconds.
    Durations(Vec<f64>),
    State(State),
    Heartbeat,
    Schedule(Schedule),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Term {
    #[serde(default)]
    offset: f64,
    #[serde(default = "one")]
    scale: f64,
    of: BTreeMap<Input, f64>,
    max: Option<f64>,
    #[serde(default = "two")]
    digits: i32,
    /// Of a total: what is added instead in a minute in which the target fails.
    while_failing: Option<Box<Term>>,
}

fn one() -> f64 {
    1.0
}

fn two() -> i32 {
    2
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Input {
    Cpu,
    Memory,
    Disk,
    Network,
    Response,
    Connections,
    /// Of the last minute, as are the requests.
    Errors,
    Requests,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    up: Option<f64>,
    failing: Option<f64>,
}

/// Hours of one weekday, 0 is Monday; UTC.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Schedule {
    weekday: u64,
    from: u64,
    until: u64,
}

static SCENARIOS: LazyLock<BTreeMap<Service, Scenario>> = LazyLock::new(|| {
    serde_yaml::from_str(include_str!("scenarios.yaml")).expect("the embedded scenarios are right")
});

impl Scenario {
    pub fn of(service: Service) -> &'static Scenario {
        &SCENARIOS[&service]
    }

    pub(super) fn name(&self, index: u32) -> String {
        format!("{}-{:02}", self.target.prefix, index + 1)
    }

    /// The labels that a scrape config gives to the target, without `job` and `instance`.
    pub fn labels(&self, index: u32) -> Vec<(&str, String)> {
        let group = &self.group.values[index as usize % self.group.values.len()];
        let own = (self.target.label != "instance")
            .then(|| (self.target.label.as_str(), self.name(index)));
        own.into_iter()
            .chain([(self.group.label.as_str(), group.clone())])
            .collect()
    }

    pub(super) fn job(&self) -> &str {
        &self.job
    }
}

/// What of the process a scenario changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Faults, failures and repairs take this many times as long.
    pub stretch: u32,
    /// Minutes that the oracle looks ahead.
    pub horizon: u32,
}

impl Pace {
    pub fn of(scenario: Option<Service>) -> Self {
        match scenario.map(Scenario::of) {
            Some(scenario) => Self {
                stretch: scenario.stretch,
                horizon: scenario.horizon,
            },
            None => Self::default(),
        }
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            stretch: 1,
            horizon: HORIZON,
        }
    }
}

/// One exposed series.
pub(super) struct Line {
    pub name: String,
    /// Its own labels, each preceded by a comma.
    pub labels: String,
    measure: Measure,
}

enum Measure {
    Level(&'static Term),
    Total(&'static Term),
    Bucket(f64),
    Seconds,
    Requests,
    State(State),
    Heartbeat,
    Schedule(Schedule),
}

impl Family {
    pub fn lines(&'static self) -> Vec<Line> {
        self.series
            .iter()
            .flat_map(|series| {
                let own: String = series
                    .labels
                    .iter()
                    .map(|(name, value)| format!(",{name}=\"{value}\""))
                    .collect();
                let line = |suffix: &str, extra: String, measure| Line {
                    name: format!("{}{suffix}", self.name),
                    labels: format!("{own}{extra}"),
                    measure,
                };
                match &series.shows {
                    Shows::Level(term) => vec![line("", String::new(), Measure::Level(term))],
                    Shows::Total(term) => vec![line("", String::new(), Measure::Total(term))],
                    Shows::State(state) => vec![line("", String::new(), Measure::State(*state))],
                    Shows::Heartbeat => vec![line("", String::new(), Measure::Heartbeat)],
                    Shows::Schedule(hours) => {
                        vec![line("", String::new(), Measure::Schedule(*hours))]
                    }
                    Shows::Durations(bounds) => bounds
                        .iter()
                        .copied()
                        .chain([f64::INFINITY])
                        .map(|le| {
                            let text = if le.is_finite() {
                                le.to_string()
                            } else {
                                "+Inf".to_owned()
                            };
                            line("_bucket", format!(",le=\"{text}\""), Measure::Bucket(le))
                        })
                        .chain([
                            line("_sum", String::new(), Measure::Seconds),
                            line("_count", String::new(), Measure::Requests),
                        ])
                        .collect(),
                }
            })
            .collect()
    }
}

/// What one minute says of each input.
#[derive(Clone, Copy, Default)]
struct Inputs {
    reading: Reading,
    errors: f64,
}

impl Inputs {
    fn get(&self, input: Input) -> f64 {
        let r = &self.reading;
        match input {
            Input::Cpu => f64::from(r.cpu_percent),
            Input::Memory => f64::from(r.memory_percent),
            Input::Disk => f64::from(r.disk_percent),
            Input::Network => f64::from(r.network_latency_ms),
            Input::Response => f64::from(r.response_time_ms),
            Input::Connections => f64::from(r.active_connections),
            Input::Errors => self.errors,
            Input::Requests => f64::from(r.requests),
        }
    }
}

impl Term {
    fn value(&self, inputs: &Inputs) -> f64 {
        let product: f64 = self
            .of
            .iter()
            .map(|(input, power)| inputs.get(*input).powf(*power))
            .product();
        let value = self.offset + self.scale * product;
        self.max.map_or(value, |max| value.min(max))
    }

    fn rounded(&self, value: f64) -> f64 {
        let steps = 10.0_f64.powi(self.digits);
        (value * steps).round() / steps
    }
}

/// What one series shows from minute to minute: it remembers what counters and heartbeats need.
#[derive(Clone, Default)]
pub(super) struct Meter {
    inputs: Inputs,
    seen: bool,
    total: f64,
    heartbeat: f64,
}

impl Meter {
    /// The value of `line` in the next minute, `None` where it has no sample.
    pub fn next(
        &mut self,
        line: &Line,
        reachable: bool,
        sample: &Sample,
        minute: u64,
        seconds: f64,
    ) -> Option<f64> {
        match &sample.reading {
            Some(reading) => {
                let before = self.inputs.reading.errors;
                let restarted = reading.errors < before;
                if restarted {
                    self.total = 0.0;
                }
                self.inputs = Inputs {
                    reading: *reading,
                    errors: f64::from(reading.errors - if restarted { 0 } else { before }),
                };
                self.seen = true;
                self.heartbeat = seconds;
                self.total += line.gain(&self.inputs);
            }
            // A lost scrape.
            None if sample.up => return None,
            None => {
                if let Measure::State(state) = &line.measure {
                    return state.failing;
                }
                if !(reachable && self.seen) {
                    return None;
                }
                if let Measure::Total(Term {
                    while_failing: Some(term),
                    ..
                }) = &line.measure
                {
                    self.total += term.value(&self.inputs);
                }
            }
        }
        Some(match &line.measure {
            Measure::Level(term) => term.rounded(term.value(&self.inputs)),
            Measure::Total(term) => term.rounded(self.total),
            Measure::Bucket(_) | Measure::Requests => self.total.round(),
            Measure::Seconds => (self.total * 1000.0).round() / 1000.0,
            Measure::State(state) => return state.up,
            Measure::Heartbeat => self.heartbeat,
            Measure::Schedule(hours) => {
                let weekday = minute / MINUTES_PER_DAY % 7;
                let hour = minute % MINUTES_PER_DAY / 60;
                let inside = weekday == hours.weekday && (hours.from..hours.until).contains(&hour);
                f64::from(u8::from(inside))
            }
        })
    }
}

impl Line {
    /// What a minute adds to the total.
    fn gain(&self, inputs: &Inputs) -> f64 {
        let requests = inputs.get(Input::Requests);
        // The 95th percentile of an exponential distribution is about three times its mean.
        let mean = inputs.get(Input::Response) / 3000.0;
        match &self.measure {
            Measure::Total(term) => term.value(inputs),
            Measure::Bucket(le) => requests * (1.0 - (-le / mean).exp()),
            Measure::Seconds => requests * mean,
            Measure::Requests => requests,
            _ => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Census, Fleet, FleetSpec, Mode, Oracle, TEST_FLEET};
    use super::*;

    fn spec(service: Service, targets: u32) -> FleetSpec {
        FleetSpec {
            seed: 2,
            targets,
            unseen_mode: false,
            scenario: Some(service),
            ..TEST_FLEET
        }
    }

    fn up(errors: u32) -> Sample {
        Sample {
            up: true,
            reading: Some(Reading {
                cpu_percent: 50.0,
                memory_percent: 40.0,
                response_time_ms: 600.0,
                errors,
                requests: 1000.0,
                ..Reading::default()
            }),
            oracle: Oracle {
                hazard: 0.0,
                probability: 0.0,
                mode: None,
                severity: 0.0,
            },
        }
    }

    fn down() -> Sample {
        Sample {
            up: false,
            reading: None,
            ..up(0)
        }
    }

    fn gap() -> Sample {
        Sample {
            reading: None,
            ..up(0)
        }
    }

    /// What the series that begins with `start` shows in these minutes.
    fn shown(service: Service, start: &str, samples: &[Sample]) -> Vec<Option<f64>> {
        let scenario = Scenario::of(service);
        let line = scenario
            .families
            .iter()
            .flat_map(Family::lines)
            .find(|line| format!("{}{}", line.name, line.labels).starts_with(start));
        let line = line.unwrap_or_else(|| panic!("no series {start}"));
        let mut meter = Meter::default();
        let minutes = samples.iter().zip(0..);
        minutes
            .map(|(sample, minute)| {
                let seconds = 60.0 * minute as f64;
                meter.next(&line, scenario.reachable, sample, minute, seconds)
            })
            .collect()
    }

    #[test]
    fn names_are_those_that_prometheus_takes_and_counters_say_so() {
        for service in Service::ALL {
            let scenario = Scenario::of(service);
            for family in &scenario.families {
                let name = &family.name;
                let total = family
                    .series
                    .iter()
                    .all(|s| matches!(s.shows, Shows::Total(_)));
                assert_eq!(family.kind == Kind::Counter, total, "{name}");
                assert_eq!(name.ends_with("_total"), total, "{name}");
                assert!(!family.lines().is_empty(), "{name}");
                let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
                assert!(name.chars().all(plain), "{name}");
            }
        }
    }

    #[test]
    fn each_use_case_shows_its_failure_in_its_own_way() {
        let minutes = [up(0), up(2), down(), down(), up(0), gap()];
        let check = |service, start: &str, expected: [Option<f64>; 6]| {
            assert_eq!(shown(service, start, &minutes), expected, "{start}");
        };
        let one = Some(1.0);
        let none = None;
        let alert = "ALERTS";
        check(Service::Shop, alert, [none, none, one, one, none, none]);
        // Nobody can ask a host that is down.
        let bytes = Some(34_359_738_368.0);
        let memory = "node_memory_MemTotal_bytes";
        check(
            Service::Cloud,
            memory,
            [bytes, bytes, none, none, bytes, none],
        );
        // Every request fails; the restart sets the counter back.
        let errors = "payment_authorisations_total,result=\"error\"";
        let counts = [0.0, 2.0, 1002.0, 2002.0, 0.0].map(Some);
        let [a, b, c, d, e] = counts;
        check(Service::Payments, errors, [a, b, c, d, e, none]);
        let approved = "payment_authorisations_total,result=\"approved\"";
        let [a, b, c] = [930.0, 1860.0, 930.0].map(Some);
        check(Service::Payments, approved, [a, b, b, b, c, none]);
        let beat = "device_last_heartbeat_timestamp_seconds";
        let [a, b, c] = [0.0, 60.0, 240.0].map(Some);
        check(Service::Hospital, beat, [a, b, b, b, c, none]);
        let zero = Some(0.0);
        let relay = "machine_alarm_relay";
        check(Service::Factory, relay, [zero, zero, one, one, zero, none]);
        let pressure = Some(166.0);
        let bar = "machine_hydraulic_pressure_bar";
        check(
            Service::Factory,
            bar,
            [pressure, pressure, pressure, pressure, pressure, none],
        );
    }

    #[test]
    fn a_histogram_holds_the_percentile_of_the_reading() {
        let bucket = |le: &str| {
            let start = format!("http_request_duration_seconds_bucket,le=\"{le}\"");
            shown(Service::Shop, &start, &[up(0), up(0)])[1].unwrap_or(f64::NAN)
        };
        let all = bucket("+Inf");
        assert_eq!(all, 2000.0);
        // 600 ms lie between these two.
        assert!(bucket("0.5") / all < 0.95 && bucket("1") / all > 0.95);
        assert!(bucket("0.025") < bucket("0.05"));
    }

    #[test]
    fn maintenance_is_where_the_schedule_says() {
        let week = vec![up(0); 7 * MINUTES_PER_DAY as usize];
        let shown = shown(Service::Factory, "machine_maintenance_mode", &week);
        let on: Vec<usize> = (0..shown.len())
            .filter(|m| shown[*m] == Some(1.0))
            .collect();
        let sunday = 6 * MINUTES_PER_DAY as usize;
        assert_eq!(on, (sunday + 360..sunday + 840).collect::<Vec<_>>());
    }

    #[test]
    fn a_stretched_process_fails_as_often_in_its_own_time() {
        let spec = spec(Service::Factory, 20);
        let pace = Pace::of(spec.scenario);
        assert_eq!((pace.stretch, pace.horizon), (4, 240));
        let mut fleet = Fleet::new(&spec);
        let mut tracks = vec![Vec::new(); 20];
        while fleet.next_tick() < 120 * MINUTES_PER_DAY {
            fleet.advance(|index, sample| tracks[index].push(sample));
        }
        let mut census = Census::new(pace);
        tracks.iter().for_each(|track| census.add(track));
        let total = census.total() as f64;
        let per_day = total / (20.0 * 120.0);
        assert!((0.3..0.45).contains(&(4.0 * per_day)), "{census}");
        assert!(census.near_misses as f64 / total > 2.5, "{census}");
        let abrupt = census.abrupt() as f64 / total;
        assert!((0.2..0.4).contains(&abrupt), "{census}");
        assert!(census.failures.contains_key(&Mode::Wear), "{census}");
        assert!(
            !census.failures.contains_key(&Mode::TrafficSurge),
            "{census}"
        );
    }

    #[test]
    fn targets_carry_the_labels_of_their_field() {
        let fleet = Fleet::new(&spec(Service::Factory, 3));
        assert_eq!(fleet.targets()[2].name(), "mill-03");
        let labels = |service, index| {
            let pairs = Scenario::of(service).labels(index).into_iter();
            pairs
                .map(|(name, value)| format!("{name}={value}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(labels(Service::Factory, 2), ["machine=mill-03", "line=a"]);
        assert_eq!(labels(Service::Cloud, 1), ["cluster=green"]);
    }
}
