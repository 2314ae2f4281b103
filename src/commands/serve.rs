//! `forewarn serve`: wires the cycle, the HTTP side and the store together.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use super::logging::{self, LogArgs};
use super::{ConfigFile, now};
use crate::bundle::Bundle;
use crate::config::Config;
use crate::learning;
use crate::metrics::Metrics;
use crate::models;
use crate::runner::Runner;
use crate::server::{self, App};
use crate::state::Store;
use crate::time::Timestamp;
use crate::types::Signal;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "There is no reload yet (no SIGHUP, no /-/reload): a changed config or a new model takes effect at a restart.\nSIGTERM and Ctrl-C let requests under way finish (api.shutdown_timeout)."
)]
pub struct ServeArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// Address of the API and of /metrics, like 127.0.0.1:8000 or [::1]:8000; may be given more than once. Default: api.listen.
    #[arg(long = "web.listen-address", value_name = "HOST:PORT", value_parser = address)]
    listen: Vec<String>,
    #[command(flatten)]
    log: LogArgs,
}

pub fn run(args: ServeArgs) -> anyhow::Result<()> {
    let config = Arc::new(args.config.load()?);
    logging::start(&args.log, &config.log.level);
    let listen = match args.listen.is_empty() {
        true => vec![config.api.listen.clone()],
        false => args.listen,
    };
    tokio::runtime::Runtime::new()?.block_on(serve(config, &listen))
}

async fn serve(config: Arc<Config>, listen: &[String]) -> anyhow::Result<()> {
    let started = now();
    let mut listeners = Vec::new();
    for address in listen {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("cannot listen on {address}; choose another address with --web.listen-address, api.listen or API_PORT")
        })?;
        listeners.push(listener);
    }
    let store = match config.state.enabled {
        true => Some(Store::open(&config.state.path, config.state.retention)?),
        false => None,
    };
    let signals: Vec<Signal> = config.signals.iter().map(|s| s.signal.clone()).collect();
    let metrics = Metrics::new(&signals, started)?;
    let app = Arc::new(App::new(config.clone(), metrics, store, now));

    let cycle = match load_model(&app, &signals, started) {
        Some(bundle) => Some(Runner::new(app.clone(), bundle, &learning::plan(&config))?),
        None => {
            app.cycled.store(true, Ordering::Relaxed);
            None
        }
    };
    for listener in &listeners {
        info!(address = %listener.local_addr()?, "listening");
    }
    let stop = stopped();
    match cycle {
        None => server::serve(app, listeners, stop).await,
        Some(runner) => {
            let mut cycle = tokio::spawn(runner.run());
            let mut crashed = false;
            let ended = async {
                tokio::select! {
                    () = stop => (),
                    _ = &mut cycle => crashed = true,
                }
            };
            server::serve(app, listeners, ended).await;
            if crashed {
                // Without cycles the probabilities would stay as they are for ever.
                bail!("the cycle crashed (above); start forewarn again and report it");
            }
            cycle.abort();
        }
    }
    info!("stopped");
    Ok(())
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

/// Loads the served model into the app; the result is what the cycle can score with.
fn load_model(app: &App, signals: &[Signal], now: Timestamp) -> Option<Arc<Bundle>> {
    let config = &app.config;
    let bundle = match models::open_current(&config.model.path) {
        Ok(bundle) => Arc::new(bundle),
        Err(problem) => {
            error!(
                "no model is served, /predict answers 503; repair this and start again: {problem}"
            );
            app.metrics.model_reload.failed();
            return None;
        }
    };
    if let Some(why) = bundle.lacks(config.model.serve) {
        error!("no model is served, /predict answers 503; repair this and start again: {why}");
        app.metrics.model_reload.failed();
        return None;
    }
    let manifest = &bundle.manifest;
    info!(model = %manifest.id, origin = manifest.origin.name(), "model loaded");
    app.model.store(Some(bundle.clone()));
    match manifest.misfit(signals, config.step, config.horizon) {
        None => {
            app.metrics.model_reload.succeeded(now);
            Some(bundle)
        }
        Some(why) => {
            warn!("no target is scored, /predict answers with the model's own signals: {why}");
            app.metrics.model_reload.failed();
            None
        }
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
