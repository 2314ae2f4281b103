//! `forewarn simulate`: the simulated fleet as history for promtool and as live exporters.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};

use super::progress::Bars;
use super::terminal::{self, print_json};
use super::{Output, Usage};
use crate::output::{self, OutputError};
use crate::simulator::{
    Census, Fleet, FleetSpec, Gauges, MINUTES_PER_DAY, Pace, Sample, Scenario, Service,
    find_upcoming, probe_text, write_history, write_oracle,
};
use crate::time::{Timestamp, millis, parse_duration, parse_time};

pub const EXAMPLES: &str = examples!(
    "forewarn simulate history --output history.txt --fleet fleet.json",
    "promtool tsdb create-blocks-from openmetrics --max-block-duration=720h history.txt data/",
    "forewarn simulate live --fleet fleet.json",
);

#[derive(clap::Args, Debug)]
pub struct SimulateArgs {
    #[command(subcommand)]
    command: SimulateCommand,
}

#[derive(clap::Subcommand, Debug)]
enum SimulateCommand {
    /// Write past samples as OpenMetrics for `promtool tsdb create-blocks-from openmetrics`.
    #[command(after_long_help = concat!(
        examples!(
            "forewarn simulate history --output history.txt --fleet fleet.json",
            "forewarn simulate history --targets 5 --days 7 --seed 3 --output - | gzip > history.txt.gz",
            "forewarn simulate history --output history.txt --fleet fleet.json --upcoming-failure 40m",
        ),
        "\n\n",
        paragraph!(
            "JSON",
            "{\"file\", \"fleet\", \"oracle\", \"targets\", \"start\", \"end\", \"upcoming\"}; upcoming is",
            "null or {\"target\", \"time\", \"mode\"} of --upcoming-failure",
        ),
    ))]
    History(HistoryArgs),
    /// Serve the exporters of a fleet that `simulate history` described, from its last sample on.
    #[command(after_long_help = examples!("forewarn simulate live --listen 127.0.0.1:9109 --fleet fleet.json"))]
    Live(LiveArgs),
}

#[derive(clap::Args, Debug)]
struct HistoryArgs {
    /// Number of targets.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    targets: u32,
    /// Simulated days of history.
    #[arg(long, value_name = "N", default_value_t = 14, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Same seed, same fleet. 7001 is the test fleet: do not tune on it.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Where the OpenMetrics text goes; `-` is stdout.
    #[arg(long, value_name = "FILE|-")]
    output: PathBuf,
    /// Where to describe the fleet for `simulate live`.
    #[arg(long, value_name = "FILE")]
    fleet: Option<PathBuf>,
    /// Time of the last sample, rounded down to the tick.
    #[arg(long, default_value = "now", value_name = "TIME")]
    end: String,
    /// Shift the fleet in time so that a target that is degrading fails this long after the end.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    upcoming_failure: Option<Duration>,
    /// Simulated minutes per real minute; must divide 60000.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..=600))]
    speed: i64,
    /// Add the failure mode that only test fleets have.
    #[arg(long)]
    unseen_mode: bool,
    /// Make all targets one use case, with metrics, labels and failures of its own; see docs/tutorials.
    #[arg(long, value_enum, conflicts_with = "upcoming_failure")]
    scenario: Option<Service>,
    /// Where the true hazard goes, as OpenMetrics of its own: for evaluation only.
    #[arg(long, value_name = "FILE")]
    oracle: Option<PathBuf>,
    /// How what was written is summed up: text goes to stderr, JSON to stdout.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    summary: Output,
}

#[derive(clap::Args, Debug)]
struct LiveArgs {
    /// Address of the exporters and of the service discovery.
    #[arg(long, default_value = "127.0.0.1:9109", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// The file that `simulate history --fleet` wrote.
    #[arg(long, value_name = "FILE")]
    fleet: PathBuf,
}

pub fn run(args: SimulateArgs) -> anyhow::Result<()> {
    match args.command {
        SimulateCommand::History(args) => history(&args),
        SimulateCommand::Live(args) => tokio::runtime::Runtime::new()
            .context("failed to start the async runtime")?
            .block_on(live(&args)),
    }
}

fn now() -> Timestamp {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    Timestamp(elapsed.map_or(0, millis))
}

fn history(args: &HistoryArgs) -> anyhow::Result<()> {
    let stdout = args.output == Path::new("-");
    if stdout && args.summary == Output::Json {
        return Err(Usage(
            "--output - and --summary json both write to stdout: name a file".into(),
        )
        .into());
    }
    let end = parse_time(&args.end, now()).map_err(|error| Usage(format!("--end: {error}")))?;
    let files = [
        Some(&args.output).filter(|_| !stdout),
        args.fleet.as_ref(),
        args.oracle.as_ref(),
    ];
    for path in files.into_iter().flatten() {
        output::check_writable(path)?;
    }
    let (spec, first_tick) = place(args, end)?;
    let ticks = u64::from(args.days) * MINUTES_PER_DAY;
    let mut fleet = Fleet::new(&spec);
    let mut tracks: Vec<Vec<Sample>> = (0..args.targets)
        .map(|_| Vec::with_capacity(ticks as usize))
        .collect();
    let bars = Bars::new();
    while fleet.next_tick() < first_tick + ticks {
        if fleet.next_tick().is_multiple_of(MINUTES_PER_DAY) {
            let share = fleet.next_tick() as f64 / (first_tick + ticks) as f64;
            bars.show("simulating", share);
        }
        let keep = fleet.next_tick() >= first_tick;
        fleet.advance(|index, sample| {
            if keep {
                tracks[index].push(sample);
            }
        });
    }
    bars.finish();
    let mut census = Census::new(Pace::of(spec.scenario));
    tracks.iter().for_each(|track| census.add(track));
    eprintln!(
        "simulated {} targets from {} to {}\n{census}",
        args.targets,
        spec.time(first_tick),
        spec.time(first_tick + ticks - 1),
    );

    if let Some(path) = &args.oracle {
        to_file(path, |out| {
            write_oracle(out, &spec, fleet.targets(), first_tick, &tracks)
        })?;
    }
    bars.show("writing", 0.0);
    if stdout {
        let mut out = BufWriter::new(io::stdout().lock());
        let wrote = write_history(&mut out, &spec, fleet.targets(), first_tick, &tracks);
        terminal::wrote(wrote.and_then(|()| out.flush()))?;
    } else {
        to_file(&args.output, |out| {
            write_history(out, &spec, fleet.targets(), first_tick, &tracks)
        })?;
    }
    if let Some(path) = &args.fleet {
        let text = serde_json::to_string_pretty(&spec)?;
        to_file(path, |out| writeln!(out, "{text}"))?;
    }
    bars.finish();
    for path in files.into_iter().flatten() {
        eprintln!("wrote {}", path.display());
    }
    if args.summary == Output::Json {
        let upcoming = spec.upcoming.as_ref().map(|one| {
            json!({"target": one.target, "time": Timestamp(one.at).to_string(), "mode": one.mode})
        });
        print_json(&json!({
            "file": args.output,
            "fleet": args.fleet,
            "oracle": args.oracle,
            "targets": args.targets,
            "start": spec.time(first_tick).to_string(),
            "end": spec.time(first_tick + ticks - 1).to_string(),
            "upcoming": upcoming,
        }))?;
    }
    Ok(())
}

fn to_file(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> anyhow::Result<()> {
    let wrote = File::create(path).and_then(|file| {
        let mut out = BufWriter::with_capacity(1 << 16, file);
        write(&mut out)?;
        out.flush()
    });
    Ok(wrote.map_err(|cause| OutputError::Io {
        path: path.to_path_buf(),
        cause,
    })?)
}

/// Puts the fleet on the time line: its spec, and the first tick of the history.
fn place(args: &HistoryArgs, end: Timestamp) -> anyhow::Result<(FleetSpec, u64)> {
    const MINUTE_MS: i64 = 60_000;
    if MINUTE_MS % args.speed != 0 {
        return Err(Usage(format!(
            "--speed {} does not divide 60000, so that a simulated minute has no whole milliseconds; use 1, 10, 12, 20, 30 or 60",
            args.speed
        ))
        .into());
    }
    let tick_ms = MINUTE_MS / args.speed;
    let tick = Duration::from_millis(tick_ms as u64);
    let end = end.floor(tick);
    let ticks = u64::from(args.days) * MINUTES_PER_DAY;
    let first = Timestamp(end.0 - (ticks as i64 - 1) * tick_ms);
    let week = 7 * MINUTES_PER_DAY;
    // 1970-01-05 was a Monday, on which the simulated calendar begins. Only
    // at the speed of the clock can the two calendars agree.
    let minute_of_week = match args.speed {
        1 => (first.0 / MINUTE_MS - 4 * 1440).rem_euclid(week as i64),
        _ => 0,
    };
    let mut spec = FleetSpec {
        seed: args.seed,
        targets: args.targets,
        origin: first.0 - minute_of_week * tick_ms,
        tick_ms,
        unseen_mode: args.unseen_mode,
        upcoming: None,
        scenario: args.scenario,
    };
    let first_tick = minute_of_week as u64;
    let Some(delay) = args.upcoming_failure else {
        return Ok((spec, first_tick));
    };
    let after_end = millis(delay).div_euclid(tick_ms).max(1) as u64;
    let wanted = first_tick + ticks - 1 + after_end;
    eprintln!("looking for a failure to show …");
    let Some((found, mut upcoming)) = find_upcoming(&spec, ticks - 1 + after_end, wanted) else {
        bail!(
            "--upcoming-failure: seed {} has no gradual failure worth showing in the 60 days after its first {}; try another --seed or more --targets",
            args.seed,
            args.days
        );
    };
    spec.origin = end.0 + (after_end as i64 - found as i64) * tick_ms;
    upcoming.at = spec.time(found).0;
    eprintln!(
        "{} will fail at {} ({})",
        upcoming.target,
        spec.time(found),
        upcoming.mode
    );
    spec.upcoming = Some(upcoming);
    Ok((spec, found + 1 - after_end - ticks))
}

/// The current sample of every target and what a scrape of it reads, `None` where that fails;
/// written by one task, read by requests.
struct Snapshot {
    time: Timestamp,
    samples: Vec<Sample>,
    pages: Vec<Option<String>>,
}

/// The labels that the service discovery gives to a target.
type Labels = Vec<(String, String)>;

struct Exporters {
    targets: Vec<(String, Labels)>,
    snapshot: RwLock<Arc<Snapshot>>,
}

impl Exporters {
    fn new(running: &Running, snapshot: Snapshot) -> Self {
        let scenario = running.spec.scenario.map(Scenario::of);
        let targets = running.fleet.targets().iter().zip(0..);
        let targets = targets.map(|(target, index)| {
            let labels = match scenario {
                Some(scenario) => scenario
                    .labels(index)
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect(),
                None => vec![("service".to_owned(), target.service().name().to_owned())],
            };
            (target.name().to_owned(), labels)
        });
        Self {
            targets: targets.collect(),
            snapshot: RwLock::new(Arc::new(snapshot)),
        }
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        match self.snapshot.read() {
            Ok(guard) => guard.clone(),
            Err(poisoned) => poisoned.into_inner().clone(),
        }
    }

    fn publish(&self, snapshot: Snapshot) {
        let snapshot = Arc::new(snapshot);
        match self.snapshot.write() {
            Ok(mut guard) => *guard = snapshot,
            Err(poisoned) => *poisoned.into_inner() = snapshot,
        }
    }
}

async fn live(args: &LiveArgs) -> anyhow::Result<()> {
    let path = args.fleet.display();
    let text = std::fs::read_to_string(&args.fleet).map_err(|cause| {
        anyhow::anyhow!(
            "cannot read {path}: {cause}; write it with `forewarn simulate history --fleet {path}`"
        )
    })?;
    let spec: FleetSpec = serde_json::from_str(&text)
        .with_context(|| format!("{path} does not describe a simulated fleet"))?;
    if spec.tick_ms < 1 || spec.targets < 1 {
        bail!("{path}: tick_ms and targets must be at least 1");
    }
    let Some(tick) = spec.tick_at(now()) else {
        bail!(
            "{path}: the fleet begins only at {}; write a history that ends now",
            spec.time(0)
        );
    };
    let listener = tokio::net::TcpListener::bind(args.listen)
        .await
        .map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => anyhow::anyhow!(
                "address {} is already in use; choose another with --listen",
                args.listen
            ),
            _ => anyhow::anyhow!("failed to listen on {}: {error}", args.listen),
        })?;

    let mut running = Running::new(spec);
    let snapshot = running.catch_up(tick);
    let exporters = Arc::new(Exporters::new(&running, snapshot));
    tokio::spawn(keep_up(running, exporters.clone()));
    eprintln!(
        "{} targets on http://{}/ (service discovery: /targets); Ctrl-C ends",
        exporters.targets.len(),
        listener.local_addr().unwrap_or(args.listen)
    );
    axum::serve(listener, router(exporters))
        .with_graceful_shutdown(stop_signal())
        .await
        .context("the exporters stopped")
}

/// A fleet on its way through time.
struct Running {
    spec: FleetSpec,
    fleet: Fleet,
    /// Of a scenario's targets; the others' scrapes need no memory.
    gauges: Vec<Gauges>,
}

impl Running {
    fn new(spec: FleetSpec) -> Self {
        let scenario = spec.scenario.map(Scenario::of);
        let gauges = (0..spec.targets).filter_map(|_| scenario.map(Gauges::new));
        Self {
            fleet: Fleet::new(&spec),
            gauges: gauges.collect(),
            spec,
        }
    }

    /// Simulates up to and including `tick`, which the fleet has not passed.
    fn catch_up(&mut self, tick: u64) -> Snapshot {
        let mut samples = Vec::with_capacity(self.fleet.targets().len());
        while self.fleet.next_tick() <= tick {
            let minute = self.fleet.next_tick();
            let seconds = self.spec.time(minute).as_secs_f64();
            samples.clear();
            self.fleet.advance(|_, sample| samples.push(sample));
            for (gauges, sample) in self.gauges.iter_mut().zip(&samples) {
                gauges.push(sample, minute, seconds);
            }
        }
        let pages =
            samples
                .iter()
                .enumerate()
                .map(|(index, sample)| match self.gauges.get(index) {
                    Some(gauges) => gauges.text(sample),
                    None => sample
                        .up
                        .then(|| sample.reading.as_ref().map(probe_text).unwrap_or_default()),
                });
        Snapshot {
            time: self.spec.time(tick),
            pages: pages.collect(),
            samples,
        }
    }
}

async fn keep_up(mut running: Running, exporters: Arc<Exporters>) {
    loop {
        let next = running.fleet.next_tick();
        let wait = millis(running.spec.time(next).since(now())).clamp(1, 1000);
        tokio::time::sleep(Duration::from_millis(wait as u64)).await;
        if let Some(tick) = running.spec.tick_at(now()).filter(|t| *t >= next) {
            exporters.publish(running.catch_up(tick));
        }
    }
}

async fn stop_signal() {
    let interrupt = tokio::signal::ctrl_c();
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = interrupt => {}
        _ = terminate => {}
    }
}

fn router(exporters: Arc<Exporters>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/probe", get(probe))
        .route("/targets", get(discovery))
        .route("/oracle", get(oracle))
        .with_state(exporters)
}

async fn index(State(exporters): State<Arc<Exporters>>) -> String {
    let mut text = String::from(
        "forewarn's simulated fleet\n\n/targets  service discovery for Prometheus\n/oracle   true hazards, for evaluation only\n",
    );
    for (name, _) in &exporters.targets {
        text.push_str(&format!("/probe?target={name}\n"));
    }
    text
}

async fn probe(State(exporters): State<Arc<Exporters>>, RawQuery(query): RawQuery) -> Response {
    let mut parameters = query.iter().flat_map(|query| query.split('&'));
    let Some(target) = parameters.find_map(|pair| pair.strip_prefix("target=")) else {
        return (
            StatusCode::BAD_REQUEST,
            "name a target: /probe?target=shop-01\n",
        )
            .into_response();
    };
    let Some(index) = exporters
        .targets
        .iter()
        .position(|(name, _)| name == target)
    else {
        let message = format!("no target {target:?} in this fleet; see /targets\n");
        return (StatusCode::NOT_FOUND, message).into_response();
    };
    let Some(text) = exporters.snapshot().pages[index].clone() else {
        let message = format!("{target} is failing\n");
        return (StatusCode::SERVICE_UNAVAILABLE, message).into_response();
    };
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}

fn json_response(value: &Value) -> Response {
    let content_type = [(header::CONTENT_TYPE, "application/json")];
    (content_type, value.to_string()).into_response()
}

async fn discovery(State(exporters): State<Arc<Exporters>>) -> Response {
    let mut groups: Vec<(&Labels, Vec<&str>)> = Vec::new();
    for (name, labels) in &exporters.targets {
        match groups.iter_mut().find(|(of, _)| *of == labels) {
            Some((_, names)) => names.push(name),
            None => groups.push((labels, vec![name])),
        }
    }
    let groups = groups.into_iter().map(|(labels, names)| {
        let labels: serde_json::Map<String, Value> = labels
            .iter()
            .map(|(name, value)| (name.clone(), value.as_str().into()))
            .collect();
        json!({"targets": names, "labels": labels})
    });
    json_response(&Value::Array(groups.collect()))
}

async fn oracle(State(exporters): State<Arc<Exporters>>) -> Response {
    let snapshot = exporters.snapshot();
    let targets = exporters.targets.iter().zip(&snapshot.samples);
    let targets: Vec<Value> = targets
        .map(|((name, _), sample)| {
            json!({
                "target": name,
                "up": sample.up,
                "hazard_per_minute": sample.oracle.hazard,
                "probability": sample.oracle.probability,
                "mode": sample.oracle.mode.map(|mode| mode.name()),
                "severity": sample.oracle.severity,
            })
        })
        .collect();
    json_response(&json!({"time": snapshot.time.0, "targets": targets}))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use clap::{Args, FromArgMatches};
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    const END: Timestamp = Timestamp(1_767_225_600_000);

    fn place_with(flags: &str) -> anyhow::Result<(FleetSpec, u64)> {
        let command = HistoryArgs::augment_args(clap::Command::new("history"));
        let words = format!("history --output - --targets 10 --days 2 {flags}");
        let matches = command.try_get_matches_from(words.split_whitespace())?;
        place(&HistoryArgs::from_arg_matches(&matches)?, END)
    }

    #[test]
    fn history_ends_at_the_end_and_the_calendar_is_utc() {
        let (spec, first) = place_with("").unwrap();
        assert_eq!(spec.time(first + 2 * MINUTES_PER_DAY - 1), END);
        assert_eq!(spec.time(0).to_string(), "2025-12-29T00:00:00Z");
        let (spec, first) = place_with("--speed 20").unwrap();
        assert_eq!((spec.tick_ms, first), (3000, 0));
        assert_eq!(spec.time(2 * MINUTES_PER_DAY - 1), END);
        let error = place_with("--speed 7").unwrap_err().to_string();
        assert!(error.contains("--speed 7"), "{error}");
    }

    #[test]
    fn the_upcoming_failure_comes_when_it_was_announced() {
        let (spec, first) = place_with("--upcoming-failure 12m").unwrap();
        let upcoming = spec.upcoming.clone().unwrap();
        assert_eq!(upcoming.at, END.0 + 12 * 60_000);
        assert_eq!(spec.time(first + 2 * MINUTES_PER_DAY - 1), END);
        let at = spec.tick_at(Timestamp(upcoming.at)).unwrap();
        let mut running = Running::new(spec);
        let index = running
            .fleet
            .targets()
            .iter()
            .position(|t| t.name() == upcoming.target);
        let index = index.unwrap();
        let before = running.catch_up(at - 1).samples[index];
        assert!(before.up && before.oracle.probability > 0.8);
        assert!(!running.catch_up(at).samples[index].up);
    }

    #[tokio::test]
    async fn exporters_answer_for_each_state_of_a_target() {
        let (spec, _) = place_with("").unwrap();
        let mut running = Running::new(spec);
        let mut snapshot = running.catch_up(100);
        snapshot.pages[1] = None;
        snapshot.pages[2] = Some(String::new());
        let router = router(Arc::new(Exporters::new(&running, snapshot)));
        for (path, status, part) in [
            ("/probe?target=shop-01", 200, "\nfleet_cpu_usage_percent "),
            ("/probe?x=1&target=cloud-01", 503, "cloud-01 is failing"),
            ("/probe?target=payments-01", 200, ""),
            ("/probe?target=nix", 404, "no target \"nix\""),
            ("/probe", 400, "/probe?target="),
            ("/targets", 200, r#""targets":["shop-01","shop-02"]"#),
            ("/oracle", 200, r#""target":"shop-01""#),
            ("/", 200, "/probe?target=factory-02"),
        ] {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), status, "{path}");
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let body = String::from_utf8(body.to_vec()).unwrap();
            assert!(body.contains(part), "{path}: {body}");
        }
    }

    #[test]
    fn live_scrapes_of_a_scenario_read_what_its_history_holds() {
        let (spec, first) = place_with("--scenario payments").unwrap();
        let mut fleet = Fleet::new(&spec);
        let mut tracks = vec![Vec::new(); 10];
        for _ in 0..first + 200 {
            fleet.advance(|index, sample| tracks[index].push(sample));
        }
        let mut history = Vec::new();
        write_history(&mut history, &spec, fleet.targets(), 0, &tracks).unwrap();
        let history = String::from_utf8(history).unwrap();
        let last = spec.time(first + 199);
        let mut running = Running::new(spec);
        let snapshot = running.catch_up(first + 199);
        let page = snapshot.pages[0].as_ref().unwrap();
        let mut lines = 0;
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.trim_end_matches('}').split_once('{').unwrap();
            let labels = match labels {
                "" => String::new(),
                labels => format!(",{labels}"),
            };
            let expected = format!(
                "{name}{{job=\"payments\",instance=\"gw-01\",gateway=\"gw-01\",region=\"eu\"{labels}}} {value} {}\n",
                last.as_secs_f64()
            );
            assert!(history.contains(&expected), "{expected}");
            lines += 1;
        }
        assert!(lines > 15, "{page}");
        let exporters = Exporters::new(&running, snapshot);
        let labels = [("gateway", "gw-01"), ("region", "eu")];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(exporters.targets[0], ("gw-01".to_owned(), labels.to_vec()));
    }
}
