//! Puts a config and a model into service: at the start, and again at each reload, whole or not at all.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{anyhow, bail};
use sd_notify::NotifyState;
use sha2::{Digest, Sha256};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use crate::artifact;
use crate::bundle::Bundle;
use crate::config::{Config, Environment};
use crate::learning;
use crate::metrics::Reload;
use crate::models;
use crate::runner::{Models, Runner};
use crate::server::{App, ReloadRequest, Serving};

/// Where a reload reads from, and what it cannot change.
pub struct Source {
    pub config_file: PathBuf,
    /// How often files are looked at; zero: never.
    pub every: Duration,
    /// Whether the command line names the addresses, so that `api.listen` does not count.
    pub listens_elsewhere: bool,
    pub set_log_level: Box<dyn Fn(&str) + Send>,
}

/// Runs the cycles, and reloads between them.
pub struct Service {
    app: Arc<App>,
    source: Source,
    /// `None` as long as there is no model that fits the config.
    runner: Option<Runner>,
    requests: mpsc::Receiver<ReloadRequest>,
    /// What the files were when they were last read, and when they were last looked at.
    settled: Fingerprint,
    looked_at: Fingerprint,
}

type Fingerprint = [u8; 32];

impl Service {
    /// Takes up the app's config with the model that is there. Without one that can be used forewarn starts all the same and waits
    /// for it.
    pub fn start(
        app: Arc<App>,
        source: Source,
        requests: mpsc::Receiver<ReloadRequest>,
    ) -> anyhow::Result<Self> {
        let config = app.serving.load().config.clone();
        let settled = fingerprint(&source, &config);
        let runner = match open(&config) {
            Ok(bundle) => {
                let (id, origin) = (&bundle.manifest.id, bundle.manifest.origin.name());
                info!(model = %id, origin, "model loaded");
                app.serving.store(Arc::new(Serving {
                    config: config.clone(),
                    model: Some(bundle.clone()),
                    snapshot: None,
                }));
                match learning::misfit(&bundle, &config) {
                    None => {
                        app.metrics.model_reload.succeeded((app.clock)());
                        let shadow = open_shadow(&config, &bundle).unwrap_or_else(|problem| {
                            error!("no model is in the shadow: {problem:#}");
                            None
                        });
                        let served = bundle;
                        Some(Runner::new(app.clone(), config, Models { served, shadow })?)
                    }
                    Some(why) => {
                        app.metrics.model_reload.failed();
                        warn!(
                            "no target is scored, /predict answers with the model's own signals: {why}"
                        );
                        None
                    }
                }
            }
            Err(problem) => {
                app.metrics.model_reload.failed();
                error!("no model is served, /predict answers 503 until there is one: {problem:#}");
                None
            }
        };
        Ok(Self {
            app,
            source,
            runner,
            requests,
            settled,
            looked_at: settled,
        })
    }

    /// Runs until it is dropped. Never more than one cycle or reload is under way.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        let mut look = interval(self.source.every.max(Duration::from_secs(1)));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if self.runner.is_none() {
            self.app.cycled.store(true, Ordering::Relaxed);
            notify(&[NotifyState::Ready]);
        }
        loop {
            let due = async {
                match &self.runner {
                    Some(runner) => runner.due().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => self.cycle().await,
                Some(reply) = self.requests.recv() => {
                    // Who asked may be gone.
                    let _ = reply.send(self.reload().await.map_err(|why| format!("{why:#}")));
                }
                _ = hangup.recv() => drop(self.reload().await),
                _ = look.tick(), if !self.source.every.is_zero() => self.look().await,
            }
        }
    }

    async fn cycle(&mut self) {
        if let Some(runner) = &mut self.runner {
            runner.tick().await;
            notify(&[NotifyState::Ready]);
        }
    }

    /// Reloads when files have changed and no longer change: who is still writing is let finish. What was refused is not
    /// tried again until it changes.
    async fn look(&mut self) {
        let found = fingerprint(&self.source, &self.app.serving.load().config);
        let is_still = found == std::mem::replace(&mut self.looked_at, found);
        if is_still && found != self.settled {
            let _ = self.reload().await;
        }
    }

    /// The text says what is in service now.
    async fn reload(&mut self) -> anyhow::Result<String> {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            notify(&[NotifyState::Reloading, now]);
        }
        let result = self.try_reload().await;
        match &result {
            Ok(done) => info!("reloaded: {done}"),
            Err(why) => error!("not reloaded, everything stays as it was: {why:#}"),
        }
        notify(&[NotifyState::Ready]);
        result
    }

    async fn try_reload(&mut self) -> anyhow::Result<String> {
        let metrics = &self.app.metrics;
        let failed = |reload: &Reload, why: anyhow::Error| {
            reload.failed();
            why
        };
        let running = self.app.serving.load_full();
        self.settled = fingerprint(&self.source, &running.config);
        let config = self
            .read(&running.config)
            .map_err(|why| failed(&metrics.config_reload, why))?;
        // The config may name another folder.
        self.settled = fingerprint(&self.source, &config);
        let models = tokio::task::block_in_place(|| {
            let served = open(&config)?;
            match learning::misfit(&served, &config) {
                None => Ok(Models {
                    shadow: open_shadow(&config, &served)?,
                    served,
                }),
                Some(why) => Err(anyhow!(why)),
            }
        })
        .map_err(|why| failed(&metrics.model_reload, why))?;
        let (bundle, config) = (models.served.clone(), Arc::new(config));
        match &mut self.runner {
            Some(runner) => runner.renew(config.clone(), models),
            None => Runner::new(self.app.clone(), config.clone(), models)
                .map(|runner| self.runner = Some(runner)),
        }
        .map_err(|why| failed(&metrics.config_reload, why))?;
        (self.source.set_log_level)(&config.log.level);
        metrics.keep_signals(&config.inputs());
        self.cycle().await;
        let now = (self.app.clock)();
        self.app.metrics.config_reload.succeeded(now);
        self.app.metrics.model_reload.succeeded(now);
        let manifest = &bundle.manifest;
        Ok(format!(
            "model {} ({}) with {}",
            manifest.id,
            manifest.origin.name(),
            self.source.config_file.display()
        ))
    }

    fn read(&self, running: &Config) -> anyhow::Result<Config> {
        let config = Config::load(&self.source.config_file, &Environment::from_process()?)?;
        if config.state != running.state {
            bail!(
                "state has changed, which takes effect at a restart only; restart forewarn, or put it back"
            );
        }
        if config.api.listen != running.api.listen && !self.source.listens_elsewhere {
            bail!(
                "api.listen has changed from {} to {}, which takes effect at a restart only; restart forewarn, or put it back",
                running.api.listen,
                config.api.listen
            );
        }
        Ok(config)
    }
}

/// The served model, if it has what the config wants to serve.
fn open(config: &Config) -> anyhow::Result<Arc<Bundle>> {
    let bundle = models::open_current(&config.model.path)?;
    match bundle.lacks(config.model.serve) {
        Some(why) => Err(anyhow!(why)),
        None => Ok(Arc::new(bundle)),
    }
}

/// The model in the shadow, if one is named that is not served already.
fn open_shadow(config: &Config, served: &Bundle) -> anyhow::Result<Option<Arc<Bundle>>> {
    let Some(name) = &config.model.shadow else {
        return Ok(None);
    };
    let bundle = artifact::open(&models::directory(&config.model.path, name)?)?;
    if bundle.manifest.id == served.manifest.id {
        return Ok(None);
    }
    match learning::misfit(&bundle, config).or_else(|| bundle.lacks(config.model.serve)) {
        Some(why) => Err(anyhow!("model.shadow: {why}")),
        None => Ok(Some(Arc::new(bundle))),
    }
}

/// Of the config's text and of which model is served. What cannot be read counts as empty: a reload says why.
fn fingerprint(source: &Source, config: &Config) -> Fingerprint {
    let text = std::fs::read(&source.config_file).unwrap_or_default();
    let model = models::current(&config.model.path)
        .ok()
        .and_then(|dir| std::fs::read(dir.join(artifact::MANIFEST)).ok())
        .unwrap_or_default();
    let mut hash = Sha256::new();
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text);
    hash.update(model);
    hash.finalize().into()
}

/// Tells systemd, where it runs forewarn.
fn notify(states: &[NotifyState]) {
    if let Err(problem) = sd_notify::notify(states) {
        warn!("cannot notify systemd: {problem}");
    }
}
