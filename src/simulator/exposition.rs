//! Samples as text: OpenMetrics for history, text 0.0.4 for live scrapes.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::scenario::{self, Line, Meter, Scenario};
use super::study::Trail;
use super::{FleetSpec, Mode, Pace, Reading, Sample, Target};

struct Family {
    /// Name of the samples; a counter's family drops the `_total`.
    name: &'static str,
    help: &'static str,
    unit: &'static str,
    counter: bool,
    read: fn(&Reading) -> f64,
    /// Smallest steps in one unit of the reading, and in one published unit.
    steps: (f64, f64),
}

impl Family {
    /// The published value: exactly the decimal that the rounded reading stands for.
    fn value(&self, reading: &Reading) -> f64 {
        ((self.read)(reading) * self.steps.0).round() / self.steps.1
    }

    fn kind(&self) -> &'static str {
        if self.counter { "counter" } else { "gauge" }
    }
}

const FAMILIES: [Family; 7] = [
    Family {
        name: "fleet_cpu_usage_percent",
        help: "Processor time in use, 0 to 100.",
        unit: "percent",
        counter: false,
        read: |r| f64::from(r.cpu_percent),
        steps: (100.0, 100.0),
    },
    Family {
        name: "fleet_memory_usage_percent",
        help: "Memory in use, 0 to 100.",
        unit: "percent",
        counter: false,
        read: |r| f64::from(r.memory_percent),
        steps: (100.0, 100.0),
    },
    Family {
        name: "fleet_disk_usage_percent",
        help: "Disk space in use, 0 to 100.",
        unit: "percent",
        counter: false,
        read: |r| f64::from(r.disk_percent),
        steps: (100.0, 100.0),
    },
    Family {
        name: "fleet_network_latency_seconds",
        help: "Round trip to the dependencies.",
        unit: "seconds",
        counter: false,
        read: |r| f64::from(r.network_latency_ms),
        steps: (100.0, 100_000.0),
    },
    Family {
        name: "fleet_response_time_seconds",
        help: "95th percentile of the response time over the last minute.",
        unit: "seconds",
        counter: false,
        read: |r| f64::from(r.response_time_ms),
        steps: (10.0, 10_000.0),
    },
    Family {
        name: "fleet_active_connections",
        help: "Open connections.",
        unit: "",
        counter: false,
        read: |r| f64::from(r.active_connections),
        steps: (1.0, 1.0),
    },
    Family {
        name: "fleet_errors_total",
        help: "Failed requests since the last restart.",
        unit: "",
        counter: true,
        read: |r| f64::from(r.errors),
        steps: (1.0, 1.0),
    },
];

/// What a scrape of one target reads now; instance and service come from the scrape config.
pub fn probe_text(reading: &Reading) -> String {
    let mut text = String::with_capacity(1024);
    for family in &FAMILIES {
        let Family { name, help, .. } = family;
        let (kind, value) = (family.kind(), family.value(reading));
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"
        );
    }
    text
}

/// A series, its memory and its present value.
type Shown = (Line, Meter, Option<f64>);

/// What scrapes of one target of a scenario read, minute by minute.
pub struct Gauges {
    scenario: &'static Scenario,
    families: Vec<(&'static scenario::Family, Vec<Shown>)>,
}

impl Gauges {
    pub fn new(scenario: &'static Scenario) -> Self {
        let families = scenario.families.iter().map(|family| {
            let lines = family.lines().into_iter();
            (
                family,
                lines.map(|line| (line, Meter::default(), None)).collect(),
            )
        });
        Self {
            scenario,
            families: families.collect(),
        }
    }

    /// Takes the sample of the next minute.
    pub fn push(&mut self, sample: &Sample, minute: u64, seconds: f64) {
        for (line, meter, value) in self.families.iter_mut().flat_map(|(_, lines)| lines) {
            *value = meter.next(line, self.scenario.reachable, sample, minute, seconds);
        }
    }

    /// The scrape, or `None` where it fails.
    pub fn text(&self, sample: &Sample) -> Option<String> {
        if !(sample.up || self.scenario.reachable) {
            return None;
        }
        let mut text = String::with_capacity(2048);
        for (family, lines) in &self.families {
            if lines.iter().all(|(_, _, value)| value.is_none()) {
                continue;
            }
            let (name, help, kind) = (&family.name, &family.help, family.kind.name());
            // Writing to a String cannot fail, here and below.
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
            for (line, _, value) in lines {
                if let Some(value) = value {
                    let labels = line.labels.trim_start_matches(',');
                    let _ = writeln!(text, "{}{{{labels}}} {value}", line.name);
                }
            }
        }
        Some(text)
    }
}

/// OpenMetrics of the ticks from `first_tick` on; `tracks` holds the samples by target.
pub fn write_history(
    out: &mut impl Write,
    spec: &FleetSpec,
    targets: &[Target],
    first_tick: u64,
    tracks: &[Vec<Sample>],
) -> io::Result<()> {
    let mut page = Page::new(out, spec, targets, first_tick, tracks);
    if let Some(scenario) = page.scenario {
        return page.scenario_history(scenario, first_tick);
    }
    for family in &FAMILIES {
        let name = family.name.strip_suffix("_total").unwrap_or(family.name);
        page.head(name, family.kind(), family.unit, family.help)?;
        page.series(family.name, "", |sample| {
            sample.reading.as_ref().map(|reading| family.value(reading))
        })?;
    }
    page.head("up", "gauge", "", "1 if the scrape succeeded.")?;
    page.series("up", "", |sample| Some(f64::from(u8::from(sample.up))))?;
    page.end()
}

/// OpenMetrics of what only the simulator knows: for evaluation, never for training.
pub fn write_oracle(
    out: &mut impl Write,
    spec: &FleetSpec,
    targets: &[Target],
    first_tick: u64,
    tracks: &[Vec<Sample>],
) -> io::Result<()> {
    let mut page = Page::new(out, spec, targets, first_tick, tracks);
    let name = "fleet_oracle_hazard_per_minute";
    page.head(name, "gauge", "", "True rate of failure; 0 while failing.")?;
    page.series(name, "", |sample| Some(f64::from(sample.oracle.hazard)))?;
    let name = "fleet_oracle_probability";
    let help = "Probability of failing within 30 simulated minutes, given the fault under way.";
    page.head(name, "gauge", "", help)?;
    page.series(name, "", |sample| {
        Some(f64::from(sample.oracle.probability))
    })?;
    let name = "fleet_oracle_fault";
    page.head(
        name,
        "gauge",
        "",
        "Severity of the fault under way, 0 to 1 at its limit; 1 while failing of it.",
    )?;
    for mode in Mode::ALL {
        page.series(name, &format!(",mode=\"{}\"", mode.name()), |sample| {
            (sample.oracle.mode == Some(mode)).then_some(f64::from(sample.oracle.severity))
        })?;
    }
    let name = "fleet_oracle_failure";
    page.head(
        name,
        "gauge",
        "",
        "1 while failing, and 0 once when it is over.",
    )?;
    let pace = Pace::of(spec.scenario);
    let outages: Vec<Vec<Option<Outage>>> =
        tracks.iter().map(|track| outages(track, pace)).collect();
    for mode in Mode::ALL {
        for announced in [true, false] {
            let outage = Some(Outage { mode, announced });
            let label = format!(",failure_mode=\"{}\"", failure_mode(mode, announced));
            page.values(name, &label, |target, tick| {
                let is = |tick: usize| outages[target][tick] == outage;
                (is(tick) || (tick > 0 && is(tick - 1))).then(|| f64::from(u8::from(is(tick))))
            })?;
        }
    }
    page.end()
}

#[derive(Clone, Copy, PartialEq)]
struct Outage {
    mode: Mode,
    /// See [`Failure::has_precursor`].
    announced: bool,
}

/// The outage that each sample is part of.
fn outages(track: &[Sample], pace: Pace) -> Vec<Option<Outage>> {
    let mut trail = Trail::new(pace);
    let mut now = None;
    track
        .iter()
        .map(|sample| {
            let began = trail.push(sample);
            now = (!sample.up).then(|| Outage {
                mode: sample.oracle.mode.unwrap_or(Mode::Abrupt),
                announced: began
                    .map(|failure| failure.has_precursor())
                    .or(now.map(|outage: Outage| outage.announced))
                    .unwrap_or(false),
            });
            now
        })
        .collect()
}

/// Of the incidents of these names those that nothing could foresee can be told apart.
fn failure_mode(mode: Mode, announced: bool) -> String {
    let suffix = if announced { "" } else { "_without_precursor" };
    format!("{}{suffix}", mode.name())
}

struct Page<'a, W> {
    out: &'a mut W,
    targets: &'a [Target],
    tracks: &'a [Vec<Sample>],
    scenario: Option<&'static Scenario>,
    /// Unix seconds of every tick.
    seconds: Vec<f64>,
    times: Vec<String>,
    line: String,
}

impl<'a, W: Write> Page<'a, W> {
    fn new(
        out: &'a mut W,
        spec: &FleetSpec,
        targets: &'a [Target],
        first_tick: u64,
        tracks: &'a [Vec<Sample>],
    ) -> Self {
        let ticks = tracks.first().map_or(0, Vec::len) as u64;
        let seconds: Vec<f64> = (first_tick..first_tick + ticks)
            .map(|tick| spec.time(tick).as_secs_f64())
            .collect();
        Self {
            out,
            targets,
            tracks,
            scenario: spec.scenario.map(Scenario::of),
            times: seconds.iter().map(f64::to_string).collect(),
            seconds,
            line: String::new(),
        }
    }

    fn head(&mut self, name: &str, kind: &str, unit: &str, help: &str) -> io::Result<()> {
        writeln!(self.out, "# TYPE {name} {kind}")?;
        if !unit.is_empty() {
            writeln!(self.out, "# UNIT {name} {unit}")?;
        }
        writeln!(self.out, "# HELP {name} {help}")
    }

    fn series(
        &mut self,
        name: &str,
        label: &str,
        value: impl Fn(&Sample) -> Option<f64>,
    ) -> io::Result<()> {
        let tracks = self.tracks;
        self.values(name, label, |target, tick| value(&tracks[target][tick]))
    }

    fn scenario_history(mut self, scenario: &'static Scenario, first_tick: u64) -> io::Result<()> {
        for family in &scenario.families {
            let name = family.name.strip_suffix("_total").unwrap_or(&family.name);
            self.head(name, family.kind.name(), "", &family.help)?;
            for line in family.lines() {
                let (tracks, seconds) = (self.tracks, self.seconds.clone());
                let mut meters = vec![Meter::default(); tracks.len()];
                self.values(&line.name, &line.labels, |target, tick| {
                    meters[target].next(
                        &line,
                        scenario.reachable,
                        &tracks[target][tick],
                        first_tick + tick as u64,
                        seconds[tick],
                    )
                })?;
            }
        }
        self.head("up", "gauge", "", "1 if the scrape succeeded.")?;
        self.series("up", "", |sample| {
            Some(f64::from(u8::from(sample.up || scenario.reachable)))
        })?;
        self.end()
    }

    /// What a scrape config calls the target.
    fn identity(&self, index: usize) -> String {
        let target = &self.targets[index];
        match self.scenario {
            None => format!(
                "job=\"fleet\",instance=\"{}\",service=\"{}\"",
                target.name(),
                target.service().name()
            ),
            Some(scenario) => {
                let mut text = format!("job=\"{}\",instance=\"{}\"", scenario.job(), target.name());
                for (name, value) in scenario.labels(index as u32) {
                    // Writing to a String cannot fail.
                    let _ = write!(text, ",{name}=\"{value}\"");
                }
                text
            }
        }
    }

    /// `value` takes the places of the target and of the tick in its track, one after the other.
    fn values(
        &mut self,
        name: &str,
        label: &str,
        mut value: impl FnMut(usize, usize) -> Option<f64>,
    ) -> io::Result<()> {
        for index in 0..self.tracks.len() {
            let identity = self.identity(index);
            self.line.clear();
            // Writing to a String cannot fail, here and below.
            let _ = write!(self.line, "{name}{{{identity}{label}}} ");
            let head = self.line.len();
            for (tick, time) in self.times.iter().enumerate() {
                if let Some(value) = value(index, tick) {
                    self.line.truncate(head);
                    let _ = writeln!(self.line, "{value} {time}");
                    self.out.write_all(self.line.as_bytes())?;
                }
            }
        }
        Ok(())
    }

    fn end(self) -> io::Result<()> {
        writeln!(self.out, "# EOF")?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BASE_HAZARD, Fleet, Oracle, TEST_FLEET};
    use super::*;

    fn text(write: impl Fn(&mut Vec<u8>, &[Target], &[Vec<Sample>])) -> String {
        let spec = FleetSpec {
            targets: 2,
            ..TEST_FLEET
        };
        let mut fleet = Fleet::new(&spec);
        let mut tracks = vec![Vec::new(); 2];
        for _ in 0..3 {
            fleet.advance(|index, sample| tracks[index].push(sample));
        }
        tracks[1][1].up = false;
        tracks[1][1].reading = None;
        tracks[1][1].oracle.mode = Some(Mode::DiskFill);
        let mut out = Vec::new();
        write(&mut out, fleet.targets(), &tracks);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn history_is_grouped_by_family_and_a_failing_target_shows_only_up() {
        let history = text(|out, targets, tracks| {
            write_history(out, &TEST_FLEET, targets, 0, tracks).unwrap();
        });
        assert!(history.ends_with("# EOF\n"));
        assert!(history.contains("# TYPE fleet_errors counter\n# HELP fleet_errors "));
        assert!(history.contains("# UNIT fleet_cpu_usage_percent percent\n"));
        assert!(
            history.contains("up{job=\"fleet\",instance=\"cloud-01\",service=\"cloud\"} 0 60\n")
        );
        let count = |start: &str| history.lines().filter(|l| l.starts_with(start)).count();
        assert_eq!(count("fleet_errors_total{"), 5);
        assert_eq!(count("up{"), 6);
        assert!(!history.contains("oracle"));
    }

    #[test]
    fn the_oracle_names_the_fault() {
        let oracle = text(|out, targets, tracks| {
            write_oracle(out, &TEST_FLEET, targets, 0, tracks).unwrap();
        });
        assert!(oracle.contains("service=\"cloud\",mode=\"disk_fill\"} "));
        let failures: Vec<&str> = oracle
            .lines()
            .filter_map(|line| line.strip_prefix("fleet_oracle_failure{job=\"fleet\","))
            .collect();
        let series =
            "instance=\"cloud-01\",service=\"cloud\",failure_mode=\"disk_fill_without_precursor\"}";
        assert_eq!(
            failures,
            [format!("{series} 1 60"), format!("{series} 0 120")]
        );
        assert!(oracle.ends_with("# EOF\n"));
    }

    #[test]
    fn an_outage_is_announced_when_its_beginning_was() {
        let sample = |hazard: f64, up| Sample {
            up,
            reading: None,
            oracle: Oracle {
                hazard: hazard as f32,
                probability: 0.0,
                mode: Some(Mode::MemoryLeak),
                severity: 0.5,
            },
        };
        for (warned, announced) in [(14, false), (15, true)] {
            let mut track = vec![sample(BASE_HAZARD, true); 30];
            track.extend(vec![sample(11.0 * BASE_HAZARD, true); warned]);
            track.extend(vec![sample(0.0, false); 3]);
            track.push(sample(BASE_HAZARD, true));
            let outages = outages(&track, Pace::default());
            let (before, rest) = outages.split_at(30 + warned);
            assert!(before.iter().chain(&rest[3..]).all(Option::is_none));
            for outage in &rest[..3] {
                assert_eq!(outage.map(|o| o.announced), Some(announced), "{warned}");
            }
        }
        assert_eq!(failure_mode(Mode::MemoryLeak, true), "memory_leak");
    }

    #[test]
    fn live_and_history_publish_the_same_decimals() {
        let reading = Reading {
            cpu_percent: 12.34,
            memory_percent: 50.0,
            disk_percent: 99.99,
            network_latency_ms: 7.13,
            response_time_ms: 1234.5,
            active_connections: 321.0,
            errors: 7,
            requests: 3600.0,
        };
        let text = probe_text(&reading);
        for line in [
            "fleet_cpu_usage_percent 12.34\n",
            "fleet_network_latency_seconds 0.00713\n",
            "fleet_response_time_seconds 1.2345\n",
            "# TYPE fleet_errors_total counter\nfleet_errors_total 7\n",
        ] {
            assert!(text.contains(line), "{line} not in {text}");
        }
    }
}
