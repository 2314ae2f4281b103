//! The checked configuration. `Config` can only be made by [`Config::load`] and
//! [`Config::parse`], which report every problem at once with key path and line.

mod check;
mod environment;
mod error;
mod http;
mod load;
mod reader;
mod web;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::{ForestParams, Imbalance, LogisticParams, XgboostParams};
use crate::types::{RiskLevels, ServeMember, Signal};

pub use environment::Environment;
pub use error::{ConfigError, Problem};
pub use http::{
    Auth, OAuth2Config, ProxyConfig, SecretSource, TlsConfig, TlsVersion, TransportConfig,
};
pub use reader::nearest;
pub use web::{Seen, WebConfig};

/// `config.yaml` as shipped: the documentation of every key, with working queries.
pub const SHIPPED: &str = include_str!("../../config.yaml");

#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub prometheus: UpstreamConfig,
    /// Whose silences are read.
    pub alertmanager: Option<UpstreamConfig>,
    pub targets: TargetsConfig,
    /// In the order of the file; the model's raw inputs.
    pub signals: Vec<SignalConfig>,
    pub step: Duration,
    pub query_offset: Duration,
    pub horizon: Duration,
    pub failure: FailureConfig,
    /// Queries that return a sample while a target is under maintenance.
    pub exclude: Vec<String>,
    /// Name and query of scores to measure beside the model; `train` and `backtest` only.
    pub compare: BTreeMap<String, String>,
    pub features: FeaturesConfig,
    pub train: TrainConfig,
    pub model: ModelConfig,
    pub alerting: AlertingConfig,
    pub risk_levels: RiskLevels,
    pub api: ApiConfig,
    pub state: StateConfig,
    pub page: PageConfig,
    pub log: LogConfig,
}

impl Config {
    /// The signals without their queries.
    pub fn inputs(&self) -> Vec<Signal> {
        self.signals.iter().map(|s| s.signal.clone()).collect()
    }
}

/// A server that is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamConfig {
    /// Base URL, may carry a path prefix; no trailing slash.
    pub url: String,
    pub timeout: Duration,
    /// Requests under way at once.
    pub concurrency: usize,
    pub auth: Option<Auth>,
    pub http_headers: BTreeMap<String, Vec<SecretSource>>,
    pub follow_redirects: bool,
    pub transport: TransportConfig,
}

/// A value that no log, error or `Debug` output may show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: String) -> Self {
        Self(value)
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct TargetsConfig {
    /// Labels whose values, joined with `/`, name the target.
    pub label: Vec<String>,
    /// Copied on to the published series.
    pub extra_labels: Vec<String>,
    /// New ones beyond are left out. 100000
    pub max: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SignalConfig {
    pub signal: Signal,
    pub query: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FailureConfig {
    pub queries: Vec<String>,
    /// Each entry: label matchers (equality) over firing alerts; all must hold.
    pub alerts: Vec<BTreeMap<String, String>>,
    /// Queries that return a sample when somebody does something about a target.
    pub acted: Vec<String>,
    pub min_duration: Duration,
    pub merge_gap: Duration,
    /// Target label -> alert label that carries its value.
    pub target_labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FeaturesConfig {
    /// Share of the model's signals that must have a sample within `fresh_steps`. 0.5
    pub min_signals: f64,
    /// 5
    pub fresh_steps: usize,
    /// Share of the lookback that must be covered. 0.25
    pub min_coverage: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TrainConfig {
    pub range: Duration,
    /// `serve` trains again when the newest model is this old; zero: never. 0s
    pub schedule: Duration,
    /// What `train --background` may take. 2 GiB
    pub max_memory_bytes: u64,
    pub seed: u64,
    pub imbalance: Imbalance,
    /// Fixed time after an incident whose rows are not used. 1h
    pub recovery: Duration,
    /// Rows to fit on at most; negatives beyond are sampled and weighted. 120000
    pub max_rows: usize,
    /// Expanding time folds for stacking. 3
    pub folds: usize,
    pub search: bool,
    pub signals_per_tree: f64,
    pub xgboost: XgboostParams,
    pub random_forest: ForestParams,
    pub logistic_regression: LogisticParams,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    pub serve: ServeMember,
    /// Name of a model that is judged beside the served one.
    pub shadow: Option<String>,
    /// Directory of model directories (`models/`); overridden by `MODEL_PATH`.
    pub path: PathBuf,
}

#[derive(Clone, Debug, PartialEq)]
pub struct AlertingConfig {
    /// Budget for the whole fleet. 7
    pub false_alarms_per_week: f64,
    /// The rule's own `for`. 5m
    pub for_: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ApiConfig {
    /// `host:port`; `API_HOST` and `API_PORT` override. 127.0.0.1:8000
    pub listen: String,
    /// Rows in one `/predict/batch`. 1000
    pub max_batch: usize,
    /// Bytes. 4 MiB
    pub max_body_bytes: usize,
    /// Time for one request, headers to answer. 10s
    pub request_timeout: Duration,
    /// Bound of the drain after SIGTERM. 10s
    pub shutdown_timeout: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct StateConfig {
    pub enabled: bool,
    /// Folder of the SQLite file; overridden by `DATA_PATH`. data/
    pub path: PathBuf,
    pub retention: Duration,
    /// Beyond it the oldest goes before the end of the retention. 1 GiB
    pub max_bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct PageConfig {
    /// Base URL of the Grafana that has the dashboards; no trailing slash.
    pub grafana_url: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// trace | debug | info | warn | error; `LOG_LEVEL` overrides.
    pub level: String,
}
