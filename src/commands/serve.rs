//! `forewarn serve`: wires the cycle, the HTTP side and the store together.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{anyhow, bail};
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

use super::logging::{self, LogArgs};
use super::{ConfigFile, Usage, now};
use crate::config::{Config, Environment};
use crate::metrics::Metrics;
use crate::retrain;
use crate::server::{self, App, Reloads, Web};
use crate::service::{Service, Source};
use crate::state::Store;
use crate::time::parse_duration;
use crate::types::Shard;

/// How long what blocks may go on after everything else has stopped.
const LAST_WORK: Duration = Duration::from_secs(5);

pub const EXAMPLES: &str = concat!(
    examples!(
        "forewarn serve",
        "forewarn serve --web.listen-address 0.0.0.0:8000 --web.config.file web-config.yml",
        "forewarn serve --web.listen-address 127.0.0.1:8000 --web.listen-address [::1]:8000 --log.format json",
        "forewarn serve --shard.count 3 --shard.index forewarn-2",
    ),
    "\n\n",
    paragraph!(
        "Signals",
        "SIGHUP reads the config and the model again, and so does a change of either. Everything is",
        "checked first; on an error both stay as they were.",
        "SIGTERM and Ctrl-C let requests under way finish (api.shutdown_timeout).",
    ),
);

#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// How often to look for a changed config file and a newly promoted model; 0s: never, only SIGHUP and /-/reload count.
    #[arg(long = "config.auto-reload-interval", value_name = "DURATION", default_value = "15s", value_parser = parse_duration)]
    every: Duration,
    /// Address of the API and of /metrics, like 127.0.0.1:8000 or [::1]:8000; may be given more than once. Default: api.listen.
    #[arg(long = "web.listen-address", help_heading = "Listener", value_name = "HOST:PORT", value_parser = address)]
    listen: Vec<String>,
    /// TLS, users and tokens of the listener, in the format of exporter-toolkit (docs/security.md); a change takes effect without a restart.
    #[arg(
        long = "web.config.file",
        help_heading = "Listener",
        value_name = "FILE"
    )]
    web_config: Option<PathBuf>,
    /// Allow POST /-/reload.
    #[arg(long = "web.enable-lifecycle", help_heading = "Listener")]
    lifecycle: bool,
    /// Which of `--shard.count` this one is, from 0; a name that ends with a number will do, like that of a StatefulSet's pod.
    #[arg(long = "shard.index", help_heading = "Shards", value_name = "N", default_value = "0", value_parser = ordinal)]
    shard_index: u32,
    /// Among how many the targets are divided. Each scores its own targets only; all must say the same count.
    #[arg(
        long = "shard.count",
        help_heading = "Shards",
        value_name = "N",
        default_value_t = 1
    )]
    shard_count: u32,
    #[command(flatten)]
    log: LogArgs,
}

pub fn run(args: ServeArgs) -> anyhow::Result<()> {
    // First of all: what is read before is read twice.
    #[cfg(target_env = "gnu")]
    super::heaps::bound();
    let shard = Shard::new(args.shard_index, args.shard_count).ok_or_else(|| {
        Usage(format!(
            "--shard.index {} is not below --shard.count {}; indexes start at 0",
            args.shard_index, args.shard_count
        ))
    })?;
    let config = Arc::new(args.config.load()?);
    let set_log_level = logging::start(&args.log, &config.log.level);
    let listen = match args.listen.is_empty() {
        true => vec![config.api.listen.clone()],
        false => args.listen.clone(),
    };
    let web = match args.web_config {
        Some(file) => Some(Web::open(&file, Environment::from_process()?)?),
        None => None,
    };
    let source = Source {
        config_file: args.config.path,
        every: args.every,
        listens_elsewhere: !args.listen.is_empty(),
        set_log_level,
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let result = runtime.block_on(serve(config, web, &listen, source, args.lifecycle, shard));
    runtime.shutdown_timeout(LAST_WORK);
    result
}

async fn serve(
    config: Arc<Config>,
    web: Option<Arc<Web>>,
    listen: &[String],
    source: Source,
    lifecycle: bool,
    shard: Shard,
) -> anyhow::Result<()> {
    let mut listeners = Vec::new();
    for address in listen {
        let listener = TcpListener::bind(address).await.map_err(|cause| {
            anyhow!("cannot listen on {address}: {cause}; choose another address with --web.listen-address, api.listen or API_PORT")
        })?;
        listeners.push(listener);
    }
    let store = match config.state.enabled {
        true => Some(Store::open(&config.state.path, config.state.retention)?),
        false => None,
    };
    let metrics = Metrics::new(now())?;
    let (reloads, requests) = Reloads::channel();
    let mut app = App::new(config, metrics, store, now);
    app.reloads = lifecycle.then(|| reloads.clone());
    app.shard = shard;
    let app = Arc::new(app);
    let training = tokio::spawn(retrain::run(
        app.clone(),
        source.config_file.clone(),
        reloads,
    ));
    let service = Service::start(app.clone(), source, requests)?;
    for listener in &listeners {
        info!(address = %listener.local_addr()?, "listening");
    }
    let mut service = tokio::spawn(service.run());
    let watchdog = tokio::spawn(watchdog());
    let mut ended = None;
    let stop = async {
        tokio::select! {
            () = stopped() => (),
            result = &mut service => ended = Some(result),
        }
        let _ = sd_notify::notify(&[NotifyState::Stopping]);
    };
    server::serve(app, web, listeners, stop).await;
    watchdog.abort();
    training.abort();
    match ended {
        None => service.abort(),
        // Without cycles the probabilities would stay as they are for ever.
        Some(Err(_)) => bail!("the cycle crashed (above); start forewarn again and report it"),
        Some(Ok(result)) => result?,
    }
    info!("stopped");
    Ok(())
}

/// Tells systemd twice in each watchdog interval that forewarn is alive.
async fn watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    let mut beat = tokio::time::interval(limit / 2);
    loop {
        beat.tick().await;
        let _ = sd_notify::notify(&[NotifyState::Watchdog]);
    }
}

/// The number at the end.
fn ordinal(text: &str) -> Result<u32, String> {
    let (_, number) = text.rsplit_once('-').unwrap_or(("", text));
    let problem = |_| "not a number, nor a name that ends with one, like forewarn-2".to_string();
    number.parse().map_err(problem)
}

fn address(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some(("", port)) if port.parse::<u16>().is_ok() => {
            Err(format!("no host; write 0.0.0.0{text} for all interfaces"))
        }
        Some((_, port)) if port.parse::<u16>().is_ok() => Ok(text.into()),
        _ => Err("not host:port; write it like 127.0.0.1:8000 or [::1]:8000".into()),
    }
}

/// Resolves at SIGTERM or Ctrl-C.
async fn stopped() {
    let interrupt = tokio::signal::ctrl_c();
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = interrupt => (),
                _ = terminate.recv() => (),
            }
        }
        Err(problem) => {
            error!("cannot wait for SIGTERM: {problem}");
            let _ = interrupt.await;
        }
    }
    info!("stopping: requests under way may finish");
}
