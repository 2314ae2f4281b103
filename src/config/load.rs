//! The keys of `config.yaml`: one line each, with default and range.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use super::check::{self, TEN_YEARS, above, boolean, duration, number, one_of, whole};
use super::http;
use super::reader::{self, Reader, Section};
use super::*;
use crate::features::{KNOWN_SIGNALS, is_reserved};
use crate::time::format_duration;
use crate::types::Unit;

/// Larger files are refused unread.
const MAX_BYTES: usize = 1 << 20;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const ANY: RangeInclusive<Duration> = Duration::ZERO..=TEN_YEARS;

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Every problem of the file, or why it cannot be read.
    pub fn load(path: &Path, env: &Environment) -> Result<Self, ConfigError> {
        let source_name = path.display().to_string();
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes))
            .map_err(|error| {
                let remedy = match error.kind() {
                    ErrorKind::NotFound => "write one with `forewarn init`, or name the config by",
                    _ => "name the config by",
                };
                let message = format!("cannot be read: {error}; {remedy} --config.file");
                ConfigError::single(&source_name, 0, message)
            })?;
        let text = String::from_utf8(bytes)
            .map_err(|_| ConfigError::single(&source_name, 0, "is not UTF-8 text".into()))?;
        Self::parse(&text, &source_name, env)
    }

    /// Checks the text of a config; `source_name` is what messages call it.
    ///
    /// # Errors
    /// Every problem of the text.
    pub fn parse(text: &str, source_name: &str, env: &Environment) -> Result<Self, ConfigError> {
        if text.len() > MAX_BYTES {
            return Err(ConfigError::single(
                source_name,
                0,
                "is larger than 1 MiB".into(),
            ));
        }
        let mut tree = reader::parse(text, source_name)?;
        let reader = Reader {
            env,
            problems: RefCell::default(),
        };
        reader.resolve(&mut tree, "");
        let config = Section::read(&reader, String::new(), 1, &tree.value, config);
        let problems = reader.problems.into_inner();
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::new(source_name, problems))
        }
    }
}

/// Reads everything; where something could not be read a problem is reported and a placeholder stands for it.
fn config(root: &Section) -> Config {
    let prometheus = root.section("prometheus", prometheus);
    let alertmanager = root.section("alertmanager", alertmanager);
    let targets = root.section("targets", targets);
    let signals = root.section("signals", signals);
    let step = root.get("step", duration(SECOND..=DAY)).unwrap_or(MINUTE);
    let query_offset = root.get("query_offset", duration(ANY)).unwrap_or_default();
    let horizon = root
        .get("horizon", duration(SECOND..=TEN_YEARS))
        .unwrap_or(30 * MINUTE);
    if root.sound(&["step", "horizon"]) && !horizon.as_millis().is_multiple_of(step.as_millis()) {
        let (horizon, step) = (format_duration(horizon), format_duration(step));
        root.report(
            "horizon",
            format!("{horizon} is not a multiple of step ({step})"),
        );
    }
    let sound_horizon = root.sound(&["horizon"]).then_some(horizon);
    Config {
        failure: root.section("failure", |s| failure(s, &targets.label)),
        exclude: root.list("exclude", check::query),
        compare: root.section("compare", compare),
        features: root.section("features", features),
        train: root.section("train", |s| train(s, sound_horizon)),
        model: root.section("model", |s| ModelConfig {
            serve: s
                .get(
                    "serve",
                    one_of("a member", &ServeMember::ALL, ServeMember::name),
                )
                .unwrap_or(ServeMember::Ensemble),
            shadow: s.get("shadow", check::text),
            path: path(s, "path", "MODEL_PATH", "models/"),
        }),
        alerting: root.section("alerting", |s| alerting(s, sound_horizon)),
        risk_levels: root.section("risk_levels", risk_levels),
        api: root.section("api", api),
        state: root.section("state", |s| StateConfig {
            enabled: s.get("enabled", boolean).unwrap_or(true),
            path: path(s, "path", "DATA_PATH", "data/"),
            retention: s
                .get("retention", duration(HOUR..=TEN_YEARS))
                .unwrap_or(90 * DAY),
            max_bytes: s
                .get("max_bytes", whole(64 << 20..=1_u64 << 40))
                .unwrap_or(1 << 30),
        }),
        page: root.section("page", |s| PageConfig {
            grafana_url: s.get("grafana_url", check::url),
        }),
        log: root.section("log", |s| {
            let level = s.get("level", check::log_level);
            LogConfig {
                level: s
                    .variable("LOG_LEVEL", check::log_level)
                    .or(level)
                    .unwrap_or_else(|| "info".into()),
            }
        }),
        prometheus,
        alertmanager,
        targets,
        signals,
        step,
        query_offset,
        horizon,
    }
}

fn prometheus(s: &Section) -> UpstreamConfig {
    let url = s.get("url", check::url);
    let concurrency = s.get("concurrency", whole(1..=64)).unwrap_or(4);
    let url = url.unwrap_or_else(|| "http://127.0.0.1:9090".into());
    upstream(s, url, concurrency)
}

fn alertmanager(s: &Section) -> Option<UpstreamConfig> {
    let url = s.get("url", check::url);
    let is_named = url.is_some();
    let config = upstream(s, url.unwrap_or_default(), 1);
    if !is_named && s.sound(&["url"]) && !s.names().is_empty() {
        s.report(
            "url",
            "is missing; write it, like http://127.0.0.1:9093, or leave the section out",
        );
    }
    is_named.then_some(config)
}

fn upstream(s: &Section, url: String, concurrency: usize) -> UpstreamConfig {
    UpstreamConfig {
        url,
        concurrency,
        timeout: s
            .get("timeout", duration(SECOND..=HOUR))
            .unwrap_or(30 * SECOND),
        auth: http::auth(s),
        http_headers: s.section("http_headers", http::headers),
        follow_redirects: s.get("follow_redirects", boolean).unwrap_or(true),
        transport: http::transport(s),
    }
}

fn targets(s: &Section) -> TargetsConfig {
    let config = TargetsConfig {
        label: s
            .get("label", check::labels)
            .unwrap_or_else(|| vec!["instance".into()]),
        extra_labels: s
            .get("extra_labels", check::labels)
            .unwrap_or_else(|| vec!["job".into()]),
        max: s.get("max", whole(1..=1_000_000)).unwrap_or(100_000),
    };
    if config.label.is_empty() {
        s.report("label", "names no label; write at least one");
    }
    if config.extra_labels.iter().any(|label| label == "target") {
        s.report(
            "extra_labels",
            "\"target\" is the label that forewarn sets itself; remove it",
        );
    }
    config
}

fn signals(s: &Section) -> Vec<SignalConfig> {
    let names = s.names();
    if names.is_empty() {
        s.report(
            "",
            "names no signal; write at least one, like cpu_usage: {query: '…'}",
        );
    }
    let signal = |name: &&str| {
        s.section(name, |signal| {
            if let Err(message) = check::signal_name(name) {
                signal.report("", message);
            }
            if is_reserved(name) {
                signal.report("", "is the name of a feature; give the signal another one");
            }
            let known = KNOWN_SIGNALS
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, unit)| *unit);
            let query = signal.required("query", check::query);
            let unit = match known {
                Some(known) => signal
                    .get("unit", one_of("a unit", &Unit::ALL, Unit::name))
                    .or(Some(known)),
                None => signal.required("unit", one_of("a unit", &Unit::ALL, Unit::name)),
            };
            if let (Some(known), Some(written)) = (known, unit)
                && known != written
            {
                signal.report(
                    "unit",
                    format!(
                        "{} is always in {}, not {}; convert it in the query or rename the signal",
                        name,
                        known.name(),
                        written.name()
                    ),
                );
            }
            let name = (*name).to_owned();
            Some(SignalConfig {
                signal: Signal { name, unit: unit? },
                query: query?,
            })
        })
    };
    names.iter().filter_map(signal).collect()
}

fn failure(s: &Section, target: &[String]) -> FailureConfig {
    let config = FailureConfig {
        queries: s.list("queries", check::query),
        alerts: s.list("alerts", check::matchers),
        acted: s.list("acted", check::query),
        min_duration: s.get("min_duration", duration(ANY)).unwrap_or_default(),
        merge_gap: s.get("merge_gap", duration(ANY)).unwrap_or(5 * MINUTE),
        target_labels: s.section("target_labels", |s| {
            let entry = |label: &str| {
                let alert_label = s.get(label, check::label)?;
                if !target.iter().any(|known| known == label) {
                    s.report(
                        label,
                        format!("is not in targets.label ({})", target.join(", ")),
                    );
                }
                Some((label.to_owned(), alert_label))
            };
            s.names().into_iter().filter_map(entry).collect()
        }),
    };
    if config.queries.is_empty() && config.alerts.is_empty() && s.sound(&["queries", "alerts"]) {
        s.report("", "says nothing; write at least one of queries and alerts");
    }
    config
}

fn compare(s: &Section) -> BTreeMap<String, String> {
    let score = |name: &str| {
        let query = s.get(name, check::query);
        if let Err(message) = check::score_name(name) {
            s.report(name, message);
        }
        Some((name.to_owned(), query?))
    };
    s.names().into_iter().filter_map(score).collect()
}

fn features(s: &Section) -> FeaturesConfig {
    FeaturesConfig {
        min_signals: s.get("min_signals", number(0.0..=1.0)).unwrap_or(0.5),
        fresh_steps: s.get("fresh_steps", whole(1..=1000)).unwrap_or(5),
        min_coverage: s.get("min_coverage", number(0.0..=1.0)).unwrap_or(0.25),
    }
}

fn train(s: &Section, horizon: Option<Duration>) -> TrainConfig {
    let range = s
        .get("range", duration(SECOND..=TEN_YEARS))
        .unwrap_or(30 * DAY);
    if let Some(horizon) = horizon
        && s.sound(&["range"])
        && range <= horizon
    {
        let (range, horizon) = (format_duration(range), format_duration(horizon));
        s.report(
            "range",
            format!("{range} is not longer than horizon ({horizon})"),
        );
    }
    TrainConfig {
        range,
        schedule: s.get("schedule", duration(ANY)).unwrap_or_default(),
        max_memory_bytes: s
            .get("max_memory_bytes", whole(1 << 26..=1 << 50))
            .unwrap_or(2 << 30),
        seed: s.get("seed", whole(0..=u64::MAX)).unwrap_or(1),
        imbalance: s
            .get("imbalance", check::imbalance)
            .unwrap_or(Imbalance::None),
        recovery: s.get("recovery", duration(ANY)).unwrap_or(HOUR),
        max_rows: s
            .get("max_rows", whole(1000..=100_000_000))
            .unwrap_or(120_000),
        folds: s.get("folds", whole(2..=20)).unwrap_or(3),
        search: s.get("search", check::boolean).unwrap_or(true),
        signals_per_tree: s
            .get("signals_per_tree", number(above(0.0, 1.0)))
            .unwrap_or(1.0),
        xgboost: s.section("xgboost", |s| XgboostParams {
            n_estimators: s.get("n_estimators", whole(1..=10_000)).unwrap_or(200),
            learning_rate: s
                .get("learning_rate", number(above(0.0, 1.0)))
                .unwrap_or(0.1),
            max_depth: s.get("max_depth", whole(1..=16)).unwrap_or(6),
            min_child_weight: s.get("min_child_weight", number(0.0..=1e6)).unwrap_or(15.0),
            lambda: s.get("lambda", number(0.0..=1e6)).unwrap_or(1.0),
            early_stopping_rounds: s
                .get("early_stopping_rounds", whole(1..=10_000))
                .unwrap_or(30),
        }),
        random_forest: s.section("random_forest", |s| ForestParams {
            n_estimators: s.get("n_estimators", whole(1..=10_000)).unwrap_or(200),
            max_depth: s.get("max_depth", whole(1..=32)).unwrap_or(15),
            min_samples_leaf: s
                .get("min_samples_leaf", whole(1..=1_000_000))
                .unwrap_or(20),
        }),
        logistic_regression: s.section("logistic_regression", |s| LogisticParams {
            alpha: s.get("alpha", number(above(0.0, 1e6))).unwrap_or(100.0),
        }),
    }
}

fn alerting(s: &Section, horizon: Option<Duration>) -> AlertingConfig {
    let for_ = s.get("for", duration(ANY)).unwrap_or(5 * MINUTE);
    if let Some(horizon) = horizon
        && s.sound(&["for"])
        && for_ >= horizon
    {
        let (for_, horizon) = (format_duration(for_), format_duration(horizon));
        s.report(
            "for",
            format!("{for_} is not shorter than horizon ({horizon}): no alarm could come in time"),
        );
    }
    AlertingConfig {
        false_alarms_per_week: s
            .get("false_alarms_per_week", number(above(0.0, 1e6)))
            .unwrap_or(7.0),
        for_,
    }
}

fn risk_levels(s: &Section) -> RiskLevels {
    let default = RiskLevels::default();
    let bound = |key, default| s.get(key, number(0.0..=1.0)).unwrap_or(default);
    let levels = RiskLevels {
        critical: bound("critical", default.critical),
        high: bound("high", default.high),
        medium: bound("medium", default.medium),
        low: bound("low", default.low),
    };
    let ascending = [levels.low, levels.medium, levels.high, levels.critical];
    if s.sound(&[""]) && !ascending.is_sorted_by(|a, b| a < b) {
        s.report(
            "",
            format!("must ascend from low to critical, not {ascending:?}"),
        );
    }
    levels
}

fn api(s: &Section) -> ApiConfig {
    let (host, port) = s
        .get("listen", check::host_and_port)
        .unwrap_or_else(|| ("127.0.0.1".into(), 8000));
    let host = s.variable("API_HOST", check::host).unwrap_or(host);
    let port = s.variable("API_PORT", whole(0..=u16::MAX)).unwrap_or(port);
    ApiConfig {
        listen: format!("{host}:{port}"),
        max_batch: s.get("max_batch", whole(1..=100_000)).unwrap_or(1000),
        max_body_bytes: s
            .get("max_body_bytes", whole(1024..=1 << 30))
            .unwrap_or(4 << 20),
        request_timeout: s
            .get("request_timeout", duration(SECOND..=HOUR))
            .unwrap_or(10 * SECOND),
        shutdown_timeout: s
            .get("shutdown_timeout", duration(Duration::ZERO..=HOUR))
            .unwrap_or(10 * SECOND),
    }
}

/// A folder of the file, the environment or by default.
fn path(s: &Section, key: &str, variable: &str, default: &str) -> PathBuf {
    let written = s.get(key, check::path);
    s.variable(variable, check::path)
        .or(written)
        .unwrap_or_else(|| default.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least that is a config: lines 1 and 2 of the tests below.
    const LEAST: &str =
        "signals: {load: {query: node_load1, unit: none}}\nfailure: {queries: [up == 0]}\n";

    fn environment() -> Environment {
        Environment::from_iter([
            ("TOKEN", "hunter2"),
            ("FOREWARN_PROMETHEUS_URL", "http://[::1]:9/p/"),
        ])
    }

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, "config.yaml", &environment())
    }

    fn least() -> Config {
        parse(LEAST).unwrap()
    }

    fn complaints(text: &str, env: &Environment) -> String {
        Config::parse(text, "config.yaml", env)
            .err()
            .map_or_else(|| "nothing".into(), |error| error.to_string())
    }

    #[test]
    fn the_shipped_file_states_the_true_defaults() {
        let shipped = parse(SHIPPED).unwrap();
        let mut defaults = least();
        defaults.signals.clone_from(&shipped.signals);
        defaults
            .failure
            .queries
            .clone_from(&shipped.failure.queries);
        assert_eq!(shipped, defaults);
        let signals: Vec<_> = shipped
            .signals
            .iter()
            .map(|s| (s.signal.name.as_str(), s.signal.unit))
            .collect();
        assert_eq!(signals, KNOWN_SIGNALS);
    }

    #[test]
    fn the_shipped_file_names_every_key() {
        let nested = "
prometheus:
  zzzzzzzz: 1
  basic_auth: {zzzzzzzz: 1}
  authorization: {zzzzzzzz: 1}
  oauth2: {zzzzzzzz: 1, tls_config: {zzzzzzzz: 1}}
  http_headers: {X-A: {zzzzzzzz: 1}}
  tls_config: {zzzzzzzz: 1}
targets: {zzzzzzzz: 1}
features: {zzzzzzzz: 1}
train:
  zzzzzzzz: 1
  xgboost: {zzzzzzzz: 1}
  random_forest: {zzzzzzzz: 1}
  logistic_regression: {zzzzzzzz: 1}
model: {zzzzzzzz: 1}
alerting: {zzzzzzzz: 1}
risk_levels: {zzzzzzzz: 1}
api: {zzzzzzzz: 1}
state: {zzzzzzzz: 1}
page: {zzzzzzzz: 1}
log: {zzzzzzzz: 1}
zzzzzzzz: 1
signals: {load: {zzzzzzzz: 1}}
failure: {zzzzzzzz: 1}
";
        let complaints = complaints(nested, &environment());
        let known: Vec<&str> = complaints
            .lines()
            .filter_map(|line| line.split_once("known here: "))
            .flat_map(|(_, keys)| keys.split(", "))
            .collect();
        assert_eq!(known.len(), 130, "{known:?}");
        for key in known {
            assert!(
                SHIPPED.contains(&format!("{key}:")),
                "{key} is not documented"
            );
        }
    }

    #[test]
    fn the_demo_file_fits() {
        let demo = include_str!("../../deploy/demo/config.yaml");
        let config = Config::parse(demo, "demo", &environment()).unwrap();
        assert_eq!(config.prometheus.url, "http://[::1]:9/p");
        assert_eq!(config.targets.extra_labels, ["service"]);
        assert_eq!(config.signals.len(), 7);
        assert_eq!(
            (config.step, config.horizon),
            (least().step, least().horizon)
        );
    }

    #[test]
    fn every_key_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, "from file\n").unwrap();
        let certified = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        let pem = dir.path().join("pem");
        std::fs::write(&pem, certified.cert.pem()).unwrap();
        let key = certified.signing_key.serialize_pem().replace('\n', "\\n");
        let text = format!(
            "{LEAST}
prometheus:
  url: https://thanos.example.com/prefix/
  timeout: 1m30s
  concurrency: 8
  oauth2:
    client_id: id
    client_secret_file: {file:?}
    token_url: https://login/t?v=1
    scopes: [a, b]
    endpoint_params: {{audience: c}}
    tls_config: {{max_version: TLS12}}
    proxy_url: proxy:3128
  http_headers:
    X-Scope-OrgID: tenant-1
    X-B: {{values: [v], secrets: ['${{TOKEN}}'], files: [{file:?}]}}
  follow_redirects: false
  tls_config:
    ca_file: {pem:?}
    cert_file: {pem:?}
    key: \"{key}\"
    min_version: TLS13
    insecure_skip_verify: true
  proxy_url: socks5://u:p@proxy
  no_proxy: ::1, .internal,10.0.0.0/8
  proxy_connect_header: {{X-C: [c]}}
alertmanager: {{url: 'http://am:9093/', basic_auth: {{username: u, password: p}}}}
targets: {{label: [namespace, pod], extra_labels: []}}
query_offset: 30s
exclude: [maintenance == 1]
compare: {{our_rule: ' disk_full '}}
train:
  seed: 18446744073709551615
  imbalance: none
  logistic_regression: {{alpha: 0.5}}
model: {{serve: random_forest, path: m}}
risk_levels: {{high: 0.7}}
api: {{listen: '[::1]:9001'}}
page: {{grafana_url: https://grafana.example.com/g/}}
log: {{level: DEBUG}}
"
        );
        let config = parse(&text).unwrap();
        let source = SecretSource::File(file.clone());
        let secret = |text: &str| Secret::new(text.into());
        let inline = |text: &str| SecretSource::Inline(secret(text));
        let pem = Some(SecretSource::File(pem));
        let key = SecretSource::Inline(Secret::new(certified.signing_key.serialize_pem()));
        let proxied = |url: &str| ProxyConfig {
            http: Some(secret(url)),
            https: Some(secret(url)),
            ..ProxyConfig::default()
        };
        assert_eq!(source.read(), Ok(secret("from file")));
        let expected = UpstreamConfig {
            url: "https://thanos.example.com/prefix".into(),
            timeout: 90 * SECOND,
            concurrency: 8,
            auth: Some(Auth::OAuth2(Box::new(OAuth2Config {
                client_id: "id".into(),
                client_secret: source.clone(),
                token_url: secret("https://login/t?v=1"),
                scopes: vec!["a".into(), "b".into()],
                endpoint_params: [("audience".into(), secret("c"))].into(),
                transport: TransportConfig {
                    tls: TlsConfig {
                        max_version: Some(TlsVersion::Tls12),
                        ..TlsConfig::default()
                    },
                    proxy: proxied("http://proxy:3128"),
                },
            }))),
            http_headers: [
                ("X-Scope-OrgID".into(), vec![inline("tenant-1")]),
                ("X-B".into(), vec![inline("v"), inline("hunter2"), source]),
            ]
            .into(),
            follow_redirects: false,
            transport: TransportConfig {
                tls: TlsConfig {
                    ca: pem.clone(),
                    cert: pem,
                    key: Some(key),
                    server_name: None,
                    min_version: Some(TlsVersion::Tls13),
                    max_version: None,
                    insecure_skip_verify: true,
                },
                proxy: ProxyConfig {
                    no_proxy: "::1, .internal,10.0.0.0/8".into(),
                    connect_headers: [("X-C".into(), vec![secret("c")])].into(),
                    ..proxied("socks5://u:p@proxy")
                },
            },
        };
        assert_eq!(config.prometheus, expected);
        let alertmanager = config.alertmanager.unwrap();
        assert_eq!(alertmanager.url, "http://am:9093");
        assert!(matches!(alertmanager.auth, Some(Auth::Basic { .. })));
        assert_eq!(config.targets.label, ["namespace", "pod"]);
        assert!(config.targets.extra_labels.is_empty());
        assert_eq!(
            (config.query_offset, config.exclude),
            (30 * SECOND, vec!["maintenance == 1".to_owned()])
        );
        assert_eq!(config.compare["our_rule"], "disk_full");
        assert_eq!(
            (config.train.seed, config.train.imbalance),
            (u64::MAX, Imbalance::None)
        );
        assert_eq!(config.train.logistic_regression.alpha, 0.5);
        assert_eq!(
            (config.model.serve, config.model.path),
            (ServeMember::RandomForest, "m".into())
        );
        assert_eq!(
            config.risk_levels,
            RiskLevels {
                high: 0.7,
                ..RiskLevels::default()
            }
        );
        assert_eq!(
            (config.api.listen.as_str(), config.log.level.as_str()),
            ("[::1]:9001", "debug")
        );
        let grafana = config.page.grafana_url.as_deref();
        assert_eq!(grafana, Some("https://grafana.example.com/g"));

        let failure = "failure:
  alerts: [{severity: critical, team: a b}]
  target_labels: {instance: host}
  min_duration: 2m
signals: {cpu_usage: {query: a}, b: {query: b, unit: ratio}}
prometheus: {concurrency: '${N}', authorization: {credentials: '${TOKEN}'}}
";
        let env = Environment::from_iter([("N", "2"), ("TOKEN", "hunter2")]);
        let config = Config::parse(failure, "config.yaml", &env).unwrap();
        assert_eq!(config.failure.alerts[0]["team"], "a b");
        assert_eq!(config.failure.target_labels["instance"], "host");
        assert_eq!(config.failure.min_duration, 2 * MINUTE);
        assert_eq!(config.signals[0].signal.unit, Unit::Percent);
        assert_eq!(
            (
                config.signals[1].signal.name.as_str(),
                config.signals[1].signal.unit
            ),
            ("b", Unit::Ratio)
        );
        assert_eq!(config.prometheus.concurrency, 2);
        assert_eq!(
            config.prometheus.auth,
            Some(Auth::Authorization {
                scheme: "Bearer".into(),
                credentials: SecretSource::Inline(Secret::new("hunter2".into())),
            })
        );
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    /// Checks each entry of a table: the text, then the expected messages after `! `.
    fn check_table(table: &str, before: &str) {
        for entry in table.split("\n\n") {
            let (expected, text): (Vec<&str>, Vec<&str>) =
                entry.lines().partition(|line| line.starts_with("! "));
            let expected: Vec<&str> = expected.iter().map(|line| &line[2..]).collect();
            assert!(!expected.is_empty(), "{entry}");
            let text = format!("{before}{}\n", text.join("\n"));
            assert_eq!(
                complaints(&text, &environment()),
                expected.join("\n"),
                "{text}"
            );
        }
    }

    #[test]
    fn each_bad_value_has_its_message() {
        check_table(
            include_str!("../../tests/fixtures/config/bad_values.txt"),
            LEAST,
        );
    }

    #[test]
    fn each_bad_file_has_its_message() {
        check_table(
            include_str!("../../tests/fixtures/config/bad_files.txt"),
            "",
        );
        let large = format!("# {}", "x".repeat(MAX_BYTES));
        assert_eq!(
            complaints(&large, &environment()),
            "config.yaml: is larger than 1 MiB"
        );
    }

    #[test]
    fn all_problems_come_at_once_in_the_order_of_the_file() {
        let text = "step: 0s\nhorizon: 45s\nsignals:\n  cpu_usage: {qurey: a, unit: percents}\nfailure: {}\nmodel: {path: ${X}}\n";
        let text = text.replace("${X}", "'${X}'");
        let env = Environment::from_iter([("API_PORT", "http")]);
        assert_eq!(
            complaints(&text, &env),
            "\
config.yaml:1: step: 0s is out of range; it must be at least 1s and at most 1d
config.yaml:1: alerting.for: 5m is not shorter than horizon (45s): no alarm could come in time
config.yaml:4: signals.cpu_usage.query: is missing
config.yaml:4: signals.cpu_usage.unit: \"percents\" is not a unit; use one of percent, milliseconds, seconds, count, ratio, bytes, none
config.yaml:4: signals.cpu_usage.qurey: is not a known key; did you mean query?
config.yaml:5: failure: says nothing; write at least one of queries and alerts
config.yaml:6: model.path: ${X} is not set; set the environment variable X, or write $${X} if the text is meant
config.yaml: environment variable API_PORT: \"http\" is not a whole number; write one that is at least 0 and at most 65535"
        );
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let env = Environment::from_iter([
            ("API_HOST", "::"),
            ("API_PORT", "8080"),
            ("MODEL_PATH", "/var/models"),
            ("DATA_PATH", "/var/data"),
            ("LOG_LEVEL", "Warning"),
        ]);
        let text = format!(
            "{LEAST}api: {{listen: localhost:1}}\nmodel: {{path: a}}\nlog: {{level: debug}}\n"
        );
        let config = Config::parse(&text, "config.yaml", &env).unwrap();
        assert_eq!(config.api.listen, "[::]:8080");
        assert_eq!(config.model.path, PathBuf::from("/var/models"));
        assert_eq!(config.state.path, PathBuf::from("/var/data"));
        assert_eq!(config.log.level, "warn");

        for (name, value, expected) in [
            (
                "API_HOST",
                "http://x",
                "\"http://x\" is not a host; write a name or an address like 127.0.0.1",
            ),
            (
                "API_PORT",
                "70000",
                "\"70000\" is not a whole number; write one that is at least 0 and at most 65535",
            ),
            ("MODEL_PATH", "", "is empty"),
            ("DATA_PATH", " ", "is empty"),
            (
                "LOG_LEVEL",
                "loud",
                "\"loud\" is not a log level; use one of trace, debug, info, warn, error",
            ),
        ] {
            let complaints = complaints(LEAST, &Environment::from_iter([(name, value)]));
            assert_eq!(
                complaints,
                format!("config.yaml: environment variable {name}: {expected}")
            );
        }
    }

    #[test]
    fn proxies_of_the_environment_count_only_when_asked_for() {
        let proxy = |yaml: &str, variables: &[(&str, &str)]| {
            let env = Environment::from_iter(variables.iter().copied());
            let text = format!("{LEAST}prometheus: {{{yaml}}}\n");
            let config = Config::parse(&text, "config.yaml", &env).unwrap();
            config.prometheus.transport.proxy
        };
        let variables = [
            ("http_proxy", "lower:1"),
            ("HTTP_PROXY", ""),
            ("https_proxy", "ignored:1"),
            ("HTTPS_PROXY", "http://u:p@upper:2"),
            ("NO_PROXY", "a.example"),
        ];
        assert_eq!(proxy("", &variables), ProxyConfig::default());
        let expected = ProxyConfig {
            http: Some(Secret::new("http://lower:1".into())),
            https: Some(Secret::new("http://u:p@upper:2".into())),
            no_proxy: "localhost,127.0.0.0/8,::1,a.example".into(),
            connect_headers: BTreeMap::new(),
        };
        assert_eq!(proxy("proxy_from_environment: true", &variables), expected);
        let none = proxy("proxy_from_environment: true", &[]);
        assert_eq!((none.http, none.https), (None, None));
    }

    #[test]
    fn files_that_cannot_be_read() {
        let error = Config::load(Path::new("/no/such.yaml"), &environment()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/no/such.yaml: cannot be read: No such file or directory (os error 2); write one with `forewarn init`, or name the config by --config.file"
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"step: \xff").unwrap();
        let error = Config::load(file.path(), &environment()).unwrap_err();
        assert!(error.to_string().ends_with(": is not UTF-8 text"));
        std::fs::write(file.path(), LEAST).unwrap();
        assert_eq!(Config::load(file.path(), &environment()), Ok(least()));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(cut in 0..SHIPPED.len(), junk in "[ -~\n]{0,8}") {
            let at = (0..=cut).rev().find(|i| SHIPPED.is_char_boundary(*i)).unwrap_or(0);
            let (before, after) = SHIPPED.split_at(at);
            let _ = parse(&format!("{before}{junk}{after}"));
        }
    }
}
