//! Cycles of the server without the wait between them, for `benches/cycle.sh`: state, API and metrics as `forewarn serve`
//! has them. The clock is the cycle's own: each is one step after the last.
//!
//! Arguments: port of the upstream, own port, model directory, cycles to measure. Prints one JSON object, then waits for
//! a line on stdin and goes on with cycles back to back.

mod process;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use anyhow::Context;
use serde_json::json;
use tokio::net::TcpListener;

use process::cpu;

use forewarn::config::{Config, Environment};
use forewarn::metrics::Metrics;
use forewarn::models;
use forewarn::runner::{Models, Runner};
use forewarn::server::{self, App};
use forewarn::state::Store;
use forewarn::time::Timestamp;

const SIGNALS: [&str; 7] = [
    "cpu_usage",
    "memory_usage",
    "disk_usage",
    "network_latency_ms",
    "error_count",
    "response_time_ms",
    "active_connections",
];

static NOW: AtomicI64 = AtomicI64::new(1_767_571_200_000);

fn now() -> Timestamp {
    Timestamp(NOW.load(Ordering::Relaxed))
}

fn status(field: &str) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(field));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kib.context("no such field")?.parse::<f64>()? / 1024.0)
}

fn config(upstream: &str, model: &Path, state: &Path) -> anyhow::Result<Config> {
    let signals: serde_json::Map<_, _> = SIGNALS
        .map(|name| (name.to_owned(), json!({"query": name})))
        .into_iter()
        .collect();
    let config = json!({
        "prometheus": {"url": format!("http://127.0.0.1:{upstream}")},
        "signals": signals,
        "failure": {"queries": ["down"]},
        "model": {"path": model},
        "state": {"path": state},
    });
    Ok(Config::parse(
        &config.to_string(),
        "the benchmark",
        &Environment::from_iter([("", ""); 0]),
    )?)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [upstream, port, model, cycles] = &arguments[..] else {
        anyhow::bail!("arguments: port of the upstream, own port, model directory, cycles");
    };
    let state = tempfile::tempdir()?;
    let config = Arc::new(config(upstream, &PathBuf::from(model), state.path())?);
    let store = Store::open(state.path(), config.state.retention)?;
    let metrics = Metrics::new(now())?;
    let app = Arc::new(App::new(config.clone(), metrics, Some(store), now));
    let bundle = Arc::new(models::open_current(&config.model.path)?);
    let mut runner = Runner::new(
        app.clone(),
        config.clone(),
        Models {
            served: bundle,
            shadow: None,
        },
    )?;
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    tokio::spawn(server::serve(
        app.clone(),
        None,
        vec![listener],
        std::future::pending(),
    ));

    let mut cycle = async || {
        let t = now().floor(config.step).plus(config.step);
        NOW.store(t.0, Ordering::Relaxed);
        let began = Instant::now();
        runner.cycle(t).await;
        began.elapsed().as_secs_f64()
    };
    let idle_mib = status("VmRSS")?;
    let before = cpu()?;
    let backfill = cycle().await;
    let backfill_cpu = cpu()? - before;
    cycle().await;
    let scored = app
        .serving
        .load()
        .snapshot
        .as_deref()
        .map_or(0, |snapshot| {
            snapshot
                .assessments
                .iter()
                .filter(|a| a.risk.is_some())
                .count()
        });
    let before = cpu()?;
    let mut walls = Vec::new();
    for _ in 0..cycles.parse()? {
        walls.push(cycle().await);
    }
    let spent = cpu()? - before;
    walls.sort_by(f64::total_cmp);
    println!(
        "{}",
        json!({
            "scored": scored,
            "backfill": {"cpu_s": backfill_cpu, "wall_s": backfill},
            "cycle": {"cpu_ms": 1000.0 * spent / walls.len() as f64, "wall_ms": 1000.0 * walls[walls.len() / 2]},
            "rss_mib": {"idle": idle_mib, "now": status("VmRSS")?, "peak": status("VmHWM")?},
        })
    );
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    loop {
        cycle().await;
    }
}
