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

use crate::simulator::{
    Census, Fleet, FleetSpec, MINUTES_PER_DAY, Sample, Service, find_upcoming, probe_text,
    write_history, write_oracle,
};
use crate::time::{Timestamp, millis, parse_duration, parse_time};

/// Simulate a fleet to try forewarn on.
#[derive(clap::Args, Debug)]
pub struct SimulateArgs {
    #[command(subcommand)]
    command: SimulateCommand,
}

#[derive(clap::Subcommand, Debug)]
enum SimulateCommand {
    /// Write past samples as OpenMetrics for `promtool tsdb create-blocks-from openmetrics`.
    History(HistoryArgs),
    /// Serve the exporters of a fleet that `simulate history` described, from its last sample on.
    Live(LiveArgs),
}

#[derive(clap::Args, Debug)]
struct HistoryArgs {
    /// Number of targets.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    targets: u32,
    /// Simulated days of history.
    #[arg(long, default_value_t = 14, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Same seed, same fleet. 7001 is the test fleet: do not tune on it.
    #[arg(long, default_value_t = 1)]
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
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..=600))]
    speed: i64,
    /// Add the failure mode that only test fleets have.
    #[arg(long)]
    unseen_mode: bool,
    /// Where the true hazard goes, as OpenMetrics of its own: for evaluation only.
    #[arg(long, value_name = "FILE")]
    oracle: Option<PathBuf>,
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
    let end = parse_time(&args.end, now()).map_err(|error| anyhow::anyhow!("--end: {error}"))?;
    let (spec, first_tick) = place(args, end)?;
    let ticks = u64::from(args.days) * MINUTES_PER_DAY;
    let mut fleet = Fleet::new(&spec);
    let mut tracks: Vec<Vec<Sample>> = (0..args.targets)
        .map(|_| Vec::with_capacity(ticks as usize))
        .collect();
    while fleet.next_tick() < first_tick + ticks {
        let keep = fleet.next_tick() >= first_tick;
        fleet.advance(|index, sample| {
            if keep {
                tracks[index].push(sample);
            }
        });
    }
    let mut census = Census::default();
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
    if args.output == Path::new("-") {
        let mut out = BufWriter::new(io::stdout().lock());
        write_history(&mut out, &spec, fleet.targets(), first_tick, &tracks)
            .context("failed to write to stdout")?;
    } else {
        to_file(&args.output, |out| {
            write_history(out, &spec, fleet.targets(), first_tick, &tracks)
        })?;
    }
    if let Some(path) = &args.fleet {
        let text = serde_json::to_string_pretty(&spec)?;
        to_file(path, |out| writeln!(out, "{text}"))?;
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
    wrote.with_context(|| format!("failed to write {}", path.display()))?;
    eprintln!("wrote {}", path.display());
    Ok(())
}

/// Puts the fleet on the time line: its spec, and the first tick of the history.
fn place(args: &HistoryArgs, end: Timestamp) -> anyhow::Result<(FleetSpec, u64)> {
    const MINUTE_MS: i64 = 60_000;
    if MINUTE_MS % args.speed != 0 {
        bail!(
            "--speed {} does not divide 60000, so that a simulated minute has no whole milliseconds; use 1, 10, 12, 20, 30 or 60",
            args.speed
        );
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

/// The current sample of every target; written by one task, read by requests.
struct Snapshot {
    time: Timestamp,
    samples: Vec<Sample>,
}

struct Exporters {
    names: Vec<(String, Service)>,
    snapshot: RwLock<Arc<Snapshot>>,
}

impl Exporters {
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
    let text = std::fs::read_to_string(&args.fleet).with_context(|| {
        format!("failed to read {path}; write it with `forewarn simulate history --fleet {path}`")
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

    let mut fleet = Fleet::new(&spec);
    let samples = catch_up(&mut fleet, tick);
    let names = fleet.targets().iter();
    let exporters = Arc::new(Exporters {
        names: names.map(|t| (t.name().to_owned(), t.service())).collect(),
        snapshot: RwLock::new(Arc::new(Snapshot {
            time: spec.time(tick),
            samples,
        })),
    });
    tokio::spawn(keep_up(spec, fleet, exporters.clone()));
    eprintln!(
        "{} targets on http://{}/ (service discovery: /targets); Ctrl-C ends",
        exporters.names.len(),
        listener.local_addr().unwrap_or(args.listen)
    );
    axum::serve(listener, router(exporters))
        .with_graceful_shutdown(stop_signal())
        .await
        .context("the exporters stopped")
}

/// Simulates up to and including `tick`, which the fleet has not passed.
fn catch_up(fleet: &mut Fleet, tick: u64) -> Vec<Sample> {
    let mut samples = Vec::with_capacity(fleet.targets().len());
    while fleet.next_tick() <= tick {
        samples.clear();
        fleet.advance(|_, sample| samples.push(sample));
    }
    samples
}

async fn keep_up(spec: FleetSpec, mut fleet: Fleet, exporters: Arc<Exporters>) {
    loop {
        let wait = millis(spec.time(fleet.next_tick()).since(now())).clamp(1, 1000);
        tokio::time::sleep(Duration::from_millis(wait as u64)).await;
        if let Some(tick) = spec.tick_at(now()).filter(|t| *t >= fleet.next_tick()) {
            exporters.publish(Snapshot {
                samples: catch_up(&mut fleet, tick),
                time: spec.time(tick),
            });
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
    for (name, _) in &exporters.names {
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
    let Some(index) = exporters.names.iter().position(|(name, _)| name == target) else {
        let message = format!("no target {target:?} in this fleet; see /targets\n");
        return (StatusCode::NOT_FOUND, message).into_response();
    };
    let sample = exporters.snapshot().samples[index];
    if !sample.up {
        let message = format!("{target} is failing\n");
        return (StatusCode::SERVICE_UNAVAILABLE, message).into_response();
    }
    let text = sample.reading.as_ref().map(probe_text).unwrap_or_default();
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}

fn json_response(value: &Value) -> Response {
    let content_type = [(header::CONTENT_TYPE, "application/json")];
    (content_type, value.to_string()).into_response()
}

async fn discovery(State(exporters): State<Arc<Exporters>>) -> Response {
    let groups = Service::ALL.into_iter().filter_map(|service| {
        let members = exporters.names.iter().filter(|(_, of)| *of == service);
        let names: Vec<&str> = members.map(|(name, _)| name.as_str()).collect();
        (!names.is_empty())
            .then(|| json!({"targets": names, "labels": {"service": service.name()}}))
    });
    json_response(&Value::Array(groups.collect()))
}

async fn oracle(State(exporters): State<Arc<Exporters>>) -> Response {
    let snapshot = exporters.snapshot();
    let targets = exporters.names.iter().zip(&snapshot.samples);
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
        let mut fleet = Fleet::new(&spec);
        let at = spec.tick_at(Timestamp(upcoming.at)).unwrap();
        let index = fleet
            .targets()
            .iter()
            .position(|t| t.name() == upcoming.target);
        let index = index.unwrap();
        let before = catch_up(&mut fleet, at - 1);
        assert!(before[index].up && before[index].oracle.probability > 0.8);
        assert!(!catch_up(&mut fleet, at)[index].up);
    }

    #[tokio::test]
    async fn exporters_answer_for_each_state_of_a_target() {
        let (spec, _) = place_with("").unwrap();
        let mut fleet = Fleet::new(&spec);
        let mut samples = catch_up(&mut fleet, 100);
        (samples[1].up, samples[1].reading) = (false, None);
        (samples[2].up, samples[2].reading) = (true, None);
        let names = fleet.targets().iter();
        let router = router(Arc::new(Exporters {
            names: names.map(|t| (t.name().to_owned(), t.service())).collect(),
            snapshot: RwLock::new(Arc::new(Snapshot {
                time: spec.time(100),
                samples,
            })),
        }));
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
}
