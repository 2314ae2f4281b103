//! What must hold whatever bytes come in: one function for each kind of foreign input.
//! The fuzz targets call them with bytes that they make up, `tests/integration/fuzzed.rs` with recorded ones.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, header};
use http_body_util::BodyExt;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tower::ServiceExt;

use forewarn::action;
use forewarn::assessment::Snapshot;
use forewarn::bundle::{Bundle, Manifest};
use forewarn::commands::predict::Rows;
use forewarn::config::{
    Auth, Config, ConfigError, Environment, SHIPPED, SecretSource, UpstreamConfig, WebConfig,
};
use forewarn::cycle::{Fleet, Settings};
use forewarn::drift::{Recent, Reference};
use forewarn::features::Catalogue;
use forewarn::history::{Column, History};
use forewarn::learning;
use forewarn::metrics::{Metrics, ModelCard};
use forewarn::model::{
    self, Ensemble, FitParams, ForestParams, Imbalance, LogisticParams, Matrix, Split, TrainingSet,
    XgboostParams,
};
use forewarn::prometheus::{Answer, Decoded, Decoder, Limits, decode_build_info, decode_rules};
use forewarn::scoreboard::Summary;
use forewarn::server::{App, Serving, router};
use forewarn::state::{AlertStatus, ReceivedAlert, StoredAlert};
use forewarn::time::{Timestamp, format_duration, format_rough, parse_duration, parse_time};
use forewarn::tracker;
use forewarn::types::{ServeMember, Shard};
use forewarn::webhook::{self, OwnAlerts, is_own};

/// A Monday, on a full step.
const NOW: Timestamp = Timestamp(1_767_571_200_000);
const MINUTE: Duration = Duration::from_secs(60);
/// Thousands of years from now, in milliseconds: what arithmetic on times of any input must leave alone.
const FAR: i64 = 400_000_000_000_000;
/// The target whose live window `/predict` can name.
const TARGET: &str = "web-1";

// ------------------------------------------------------------------ config

/// `config.yaml`: read twice the same, and what it describes can be planned with; else every problem has its place.
pub fn config(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    let env = Environment::from_iter([("NAME", "value"), ("NUMBER", "7")]);
    let read = |text: &str| Config::parse(text, "fuzzed.yaml", &env);
    let parsed = read(text);
    match &parsed {
        Ok(config) => {
            let names: BTreeSet<&str> = config
                .signals
                .iter()
                .map(|s| s.signal.name.as_str())
                .collect();
            assert_eq!(names.len(), config.signals.len());
            assert!(!names.is_empty());
            let (step, horizon) = (config.step.as_millis(), config.horizon.as_millis());
            assert!(step >= 1000 && horizon.is_multiple_of(step));
            let levels = config.risk_levels;
            let levels = [levels.low, levels.medium, levels.high, levels.critical];
            assert!(levels.is_sorted() && levels.iter().all(|level| level.is_finite()));
            let plan = learning::plan(config);
            assert!(tracker::reach(&plan.catalogue, &plan.rules).as_millis() < FAR as u128);
            let columns: BTreeSet<String> = plan.catalogue.names().into_iter().collect();
            assert_eq!(
                columns.len(),
                plan.catalogue.len(),
                "two features of one name"
            );
            check_secrets(&config.prometheus, text, &format!("{config:?}"));
        }
        Err(error) => check_problems(error, "fuzzed.yaml", text),
    }
    assert_eq!(read(text), parsed);
}

/// Each problem has its place and says something.
fn check_problems(error: &ConfigError, name: &str, text: &str) {
    assert!(!error.problems.is_empty());
    for problem in &error.problems {
        assert!(
            problem.line <= text.split(['\n', '\r']).count(),
            "{problem:?}"
        );
        assert!(!problem.message.is_empty());
    }
    assert!(error.to_string().starts_with(name));
}

/// What stands there as a secret, and nowhere else, is not shown. Of secrets that say they are some: `1` or `true` may
/// be shown as something else.
fn check_secrets(upstream: &UpstreamConfig, text: &str, shown: &str) {
    let auth = match &upstream.auth {
        Some(Auth::Basic { password, .. }) => Some(password),
        Some(Auth::Authorization { credentials, .. }) => Some(credentials),
        Some(Auth::OAuth2(oauth2)) => Some(&oauth2.client_secret),
        None => None,
    };
    for source in auth
        .into_iter()
        .chain(upstream.http_headers.values().flatten())
    {
        let SecretSource::Inline(secret) = source else {
            continue;
        };
        let secret = secret.expose();
        if secret.contains("planted") && text.matches(secret).count() == 1 {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}

/// The file of `--web.config.file`, beside a certificate, its key and a file of tokens: read twice the same; what is
/// accepted closes what it says it closes; no message shows what stands in another file.
pub fn web(data: &[u8]) {
    const CERTIFICATE: &str = include_str!("web/cert.pem");
    const KEY: &str = include_str!("web/key.pem");
    let read = |path: &Path| match path.to_str() {
        Some("web.yml") => Ok(data.to_vec()),
        Some("cert.pem") => Ok(CERTIFICATE.into()),
        Some("key.pem") => Ok(KEY.into()),
        Some("tokens") => Ok(b"first-token\n\n second-token \n".to_vec()),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    let env = Environment::from_iter([("NAME", "value"), ("NUMBER", "7")]);
    let (loaded, seen) = WebConfig::load_by(&read, Path::new("web.yml"), &env);
    let (again, seen_again) = WebConfig::load_by(&read, Path::new("web.yml"), &env);
    assert_eq!(seen, seen_again);
    match (&loaded, &again) {
        (Ok(config), Ok(again)) => {
            assert!(config.tls.is_some() || !config.client_certificates);
            assert!(!config.open_read || !config.users.is_empty());
            assert!(config.users.keys().all(|user| !user.contains(':')));
            let hashes = config.users.values().map(|hash| hash.expose());
            assert!(hashes.into_iter().all(|hash| hash.len() == 60));
            let tokens = || config.write_credentials.iter().map(|token| token.expose());
            assert!(tokens().all(|token| !token.trim().is_empty()));
            assert!(config.headers.len() <= 5);
            assert_eq!(
                (&config.users, &config.write_credentials, &config.headers),
                (&again.users, &again.write_credentials, &again.headers)
            );
            assert_eq!(config.tls.is_some(), again.tls.is_some());
        }
        (Err(error), Err(again)) => {
            assert_eq!(error, again);
            check_problems(error, "web.yml", &lossy(data));
            let (told, written) = (error.to_string(), lossy(data));
            let secret = KEY.lines().filter(|line| !line.starts_with("-----"));
            for line in secret.chain(["first-token", "second-token"]) {
                assert!(!told.contains(line) || written.contains(line), "{told}");
            }
        }
        _ => panic!("refused once and accepted once"),
    }
}

// ------------------------------------------------------------------ Prometheus

fn decode<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Decoded<Answer> {
    let mut decoder = Decoder::new(Limits::default());
    for chunk in chunks {
        decoder.feed(chunk)?;
    }
    decoder.finish()
}

/// The answer to a query: the same wherever it is cut, samples finite and in order, labels in order.
pub fn query(data: &[u8]) {
    let whole = decode([data]);
    assert_eq!(decode(data.chunks(1)), whole, "byte by byte");
    assert_eq!(decode(pieces(data)), whole, "in pieces");
    let Ok(Ok(answer)) = whole else { return };
    let mut history = History::new(1, NOW.minus(60 * MINUTE), NOW, MINUTE);
    for series in answer.series() {
        assert!(!series.samples.is_empty());
        assert!(series.samples.iter().all(|(_, value)| value.is_finite()));
        assert!(series.samples.iter().all(|(t, _)| t.0.abs() < FAR));
        assert!(series.samples.is_sorted_by(|a, b| a.0 < b.0));
        assert!(series.labels().is_sorted_by(|a, b| a.0 < b.0));
        let target = series.label("instance").unwrap_or_default();
        // Two series of one target dispute its samples, which is no matter here.
        let _ = history.insert(
            Column::Signal(0),
            target,
            &Default::default(),
            series.samples,
        );
    }
    for (_, target) in history.targets() {
        assert!(target.column(0).iter().all(|value| !value.is_infinite()));
    }
}

/// Cut at places that the bytes themselves decide.
fn pieces(data: &[u8]) -> Vec<&[u8]> {
    let mut random = Random::of(data);
    let mut pieces = Vec::new();
    let mut rest = data;
    while !rest.is_empty() {
        let longest = [3, 17, 200, 5000][random.below(4)].min(rest.len());
        let (piece, after) = rest.split_at(1 + random.below(longest));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// The answers of the rules and build information APIs, and whose alerts they say are our own.
pub fn rules(data: &[u8]) {
    let _ = decode_build_info(data);
    let decoded = decode_rules(data);
    assert_eq!(decode_rules(data), decoded);
    let Ok(Ok(rules)) = decoded else { return };
    let pairs = rules
        .iter()
        .map(|rule| (rule.name.as_str(), rule.query.as_str()));
    let own = OwnAlerts::from_rules(pairs);
    for rule in &rules {
        assert!(rule.labels.is_sorted_by(|a, b| a.0 < b.0));
        let is_ours = is_own(&rule.query);
        let labels = BTreeMap::from([("alertname".to_owned(), rule.name.clone())]);
        assert!(!is_ours || own.contains(&labels));
        assert_eq!(is_own(&format!("({}", rule.query)), is_ours);
        let quoted = serde_json::to_string(&rule.query).unwrap_or_default();
        assert!(
            !is_own(&format!("up{{a={quoted}}}")),
            "text in strings counts"
        );
    }
}

// ------------------------------------------------------------------ Alertmanager

/// A delivery: what is taken is within bounds, comes out the same when it is delivered again, and marks only targets
/// that are known.
pub fn webhook(data: &[u8]) {
    let own = OwnAlerts::from_rules([("Ours", "failure_probability > 0.8")]);
    let Ok((alerts, truncated)) = webhook::parse(data, &own) else {
        return;
    };
    assert!(alerts.len() <= 10_000);
    for alert in &alerts {
        assert!((1..=64).contains(&alert.fingerprint.len()));
        assert_eq!(alert.own, own.contains(&alert.labels));
        assert!(alert.starts_at.0.abs() < FAR);
        assert!(alert.ends_at.is_none_or(|end| end.0.abs() < FAR));
        let texts = alert.labels.iter().chain(&alert.annotations);
        assert!(
            texts
                .map(|(name, value)| name.len() + value.len())
                .sum::<usize>()
                <= 64 << 10
        );
    }
    let again = json!({
        "version": "4",
        "truncatedAlerts": truncated,
        "alerts": alerts.iter().map(delivered).collect::<Vec<_>>(),
    });
    let again = webhook::parse(again.to_string().as_bytes(), &own);
    assert_eq!(again.as_ref(), Ok(&(alerts.clone(), truncated)));

    let stored: Vec<StoredAlert> = alerts.into_iter().map(stored).collect();
    let mut history = History::new(1, NOW.minus(60 * MINUTE), NOW, MINUTE);
    webhook::mark_failing(&mut history, &stored, demo(), &own, |target| {
        target.as_str() == TARGET
    });
    assert!(
        history
            .targets()
            .iter()
            .all(|(target, _)| target.as_str() == TARGET)
    );
}

/// A body of `/webhook/action`: what is taken is within bounds and not of the future, and is the same when it is told
/// again.
pub fn action(data: &[u8]) {
    let read = action::parse(data, NOW, demo());
    assert_eq!(action::parse(data, NOW, demo()), read);
    let action = match read {
        Ok(action) => action,
        Err(problem) => return assert!(!problem.is_empty()),
    };
    assert!((0..=NOW.0).contains(&action.at.0));
    for (text, max) in [
        (action.target.as_str(), action::MAX_TARGET),
        (&action.id, action::MAX_ID),
        (&action.comment, action::MAX_COMMENT),
    ] {
        assert!(text.chars().count() <= max);
    }
    assert!(!action.target.as_str().is_empty() && !action.id.is_empty());
    let again = json!({
        "target": action.target.as_str(),
        "time": action.at.to_string(),
        "id": action.id,
        "comment": action.comment,
    });
    // Later: what was told stays where it was.
    let again = action::parse(again.to_string().as_bytes(), NOW.plus(MINUTE), demo());
    assert_eq!(again, Ok(action));
}

fn delivered(alert: &ReceivedAlert) -> Value {
    let status = match alert.status {
        AlertStatus::Firing => "firing",
        AlertStatus::Resolved => "resolved",
    };
    json!({
        "status": status,
        "labels": alert.labels,
        "annotations": alert.annotations,
        "startsAt": alert.starts_at.to_string(),
        "endsAt": alert.ends_at.map(|end| end.to_string()),
        "fingerprint": alert.fingerprint,
    })
}

fn stored(alert: ReceivedAlert) -> StoredAlert {
    StoredAlert {
        fingerprint: alert.fingerprint,
        labels: alert.labels,
        annotations: alert.annotations,
        starts_at: alert.starts_at,
        ends_at: alert
            .ends_at
            .filter(|_| alert.status == AlertStatus::Resolved),
        received_at: NOW,
        own: alert.own,
    }
}

// ------------------------------------------------------------------ the API

/// A body of `/predict`: answered or refused with the fields that are wrong, the same each time, alone and in a batch,
/// by the short way and by the careful one.
pub fn predict(data: &[u8]) {
    let (status, answer) = post("/predict?explain=true", data);
    assert!(
        [200, 400, 422].contains(&status),
        "{status}: {}",
        lossy(&answer)
    );
    assert_eq!(
        post("/predict?explain=true", data),
        (status, answer.clone())
    );
    let in_batch = |rows: usize| {
        let rows = vec![data; rows].join(&b","[..]);
        let body = [b"[", &rows[..], b"]"].concat();
        post("/predict/batch?explain=true", &body)
    };
    if status == 422 {
        check_problem(&answer);
        assert_eq!(in_batch(1).0, 422);
    }
    if status != 200 {
        return;
    }
    check_prediction(&answer);
    for rows in [1, 17] {
        let expected = [b"[", &vec![&answer[..]; rows].join(&b","[..])[..], b"]"].concat();
        assert_eq!(in_batch(rows), (200, expected), "{rows} rows");
    }
    check_prediction(&post("/predict?explain=shap", data).1);

    let fields: BTreeMap<String, &RawValue> = serde_json::from_slice(data).expect("an object");
    if fields.get("target").is_none_or(|raw| raw.get() == "null") {
        let object = data.trim_ascii_start();
        let careful = [br#"{"history":[],"#, &object[1..]].concat();
        assert_eq!(post("/predict?explain=true", &careful), (200, answer));
    }
}

/// A body of `/predict/batch`: each answer is that of its row alone.
pub fn batch(data: &[u8]) {
    let (status, answer) = post("/predict/batch", data);
    assert!(
        [200, 400, 422].contains(&status),
        "{status}: {}",
        lossy(&answer)
    );
    match status {
        200 => {}
        422 => return check_problem(&answer),
        _ => return,
    }
    let rows: Vec<&RawValue> = serde_json::from_slice(data).expect("an array");
    let answers: Vec<&RawValue> = serde_json::from_slice(&answer).expect("an array");
    assert_eq!(answers.len(), rows.len());
    for (row, answer) in rows.iter().zip(answers) {
        check_prediction(answer.get().as_bytes());
        let (status, alone) = post("/predict", row.get().as_bytes());
        assert_eq!((status, lossy(&alone)), (200, answer.get().into()));
    }
}

fn check_prediction(answer: &[u8]) {
    let answer: Value = serde_json::from_slice(answer).expect("JSON");
    let number = |value: &Value| value.as_f64().expect("a number");
    let p = number(&answer["failure_probability"]);
    check_probability(p);
    assert!((number(&answer["confidence"]) - p.max(1.0 - p)).abs() < 1e-3);
    let members = answer["models"].as_object().expect("an object");
    members.values().for_each(|p| check_probability(number(p)));
    let names = |key: &str| -> Vec<&str> {
        let names = answer[key].as_array().expect("an array").iter();
        names.map(|name| name.as_str().expect("a name")).collect()
    };
    let own = |name: &&str| demo().signals.iter().any(|s| s.signal.name == **name);
    assert!(names("missing").iter().all(own));
    assert!(names("missing").len() < demo().signals.len());
    assert!(names("ignored").is_sorted_by(|a, b| a < b));
    assert!(!names("ignored").iter().any(own));
    assert!(!names("recommendations").is_empty());
    if let Some(reasons) = answer.get("reasons") {
        let sizes = reasons.as_array().expect("an array").iter();
        let sizes: Vec<f64> = sizes.map(|r| number(&r["contribution"]).abs()).collect();
        assert!(sizes.len() <= 10 && sizes.is_sorted_by(|a, b| a >= b));
    }
}

fn check_problem(answer: &[u8]) {
    let problem: Value = serde_json::from_slice(answer).expect("JSON");
    let errors = problem["errors"]
        .as_array()
        .expect("the fields that are wrong");
    assert!(!errors.is_empty());
    for error in errors {
        let pointer = error["pointer"].as_str().expect("a pointer");
        assert!(pointer.is_empty() || pointer.starts_with('/'), "{pointer}");
    }
}

fn check_probability(p: f64) {
    assert!((1e-4..=1.0 - 1e-4).contains(&p), "{p}");
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Status and body of the answer, by the whole server but its sockets.
fn post(path: &str, body: &[u8]) -> (u16, Vec<u8>) {
    static SERVER: OnceLock<(Runtime, axum::Router)> = OnceLock::new();
    let (runtime, router) = SERVER.get_or_init(|| {
        let config = demo();
        let metrics = Metrics::new(NOW).expect("metrics register once");
        let app = App::new(Arc::new(config.clone()), metrics, None, || {
            NOW.plus(MINUTE / 2)
        });
        app.serving.store(Arc::new(Serving {
            config: Arc::new(config.clone()),
            model: Some(base().clone()),
            snapshot: Some(Arc::new(snapshot())),
        }));
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().expect("a runtime");
        (runtime, router(Arc::new(app)))
    });
    let request = Request::post(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_vec()))
        .expect("a request");
    runtime.block_on(async {
        let response = router.clone().oneshot(request).await.expect("an answer");
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a body");
        (status, body.to_bytes().to_vec())
    })
}

/// One target with two hours of samples.
fn snapshot() -> Snapshot {
    let plan = learning::plan(demo());
    let settings = Settings {
        max_targets: 100_000,
        rules: plan.rules,
        limits: plan.limits,
        levels: demo().risk_levels,
        serve: ServeMember::Ensemble,
    };
    let mut fleet = Fleet::new(base().clone(), settings);
    let mut history = History::new(demo().signals.len(), NOW.minus(120 * MINUTE), NOW, MINUTE);
    let times: Vec<Timestamp> = history.times().collect();
    for signal in 0..demo().signals.len() {
        let samples: Vec<_> = times
            .iter()
            .map(|t| (*t, (t.0 / 60_000 % 50) as f64))
            .collect();
        history
            .insert(
                Column::Signal(signal),
                TARGET,
                &Default::default(),
                &samples,
            )
            .expect("one series per signal");
    }
    fleet.ingest(&history);
    Snapshot {
        at: NOW,
        prometheus_up: true,
        shard: Shard::WHOLE,
        assessments: fleet.assess(),
        scoreboard: Summary::default(),
        shadow: None,
        drift: None,
    }
}

// ------------------------------------------------------------------ rows in files

/// A file of `forewarn predict`, in each format: one answer for each row, or an error.
pub fn rows(data: &[u8]) {
    let rows = Rows {
        bundle: base(),
        config: demo(),
    };
    let mut out = Vec::new();
    if rows.json(data, &mut out).is_ok() {
        let answer: Value = serde_json::from_slice(&out).expect("JSON");
        match &answer {
            Value::Array(answers) => answers
                .iter()
                .for_each(|a| check_prediction(a.to_string().as_bytes())),
            one => check_prediction(one.to_string().as_bytes()),
        }
    }
    let lines = |data: &[u8]| lossy(data).lines().filter(|l| !l.trim().is_empty()).count();
    let mut out = Vec::new();
    let read = rows.ndjson(data, &mut out);
    String::from_utf8(out.clone())
        .expect("text")
        .lines()
        .for_each(|line| check_prediction(line.as_bytes()));
    assert!(read.is_err() || lines(&out) == lines(data));

    let mut out = Vec::new();
    let read = rows.csv(data, &mut out);
    let text = String::from_utf8(out.clone()).expect("text");
    for line in text.lines().skip(1) {
        let (rest, level) = line.rsplit_once(',').expect("a level");
        let (_, p) = rest.rsplit_once(',').expect("a probability");
        check_probability(p.parse().expect("a number"));
        assert!(
            ["CRITICAL", "HIGH", "MEDIUM", "LOW", "MINIMAL"].contains(&level),
            "{level}"
        );
    }
    assert!(read.is_err() || lines(&out) == lines(data), "{text}");
}

// ------------------------------------------------------------------ times

/// Durations and times as a person writes them: what is read is written the same way back, and nothing overflows.
pub fn times(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    if let Ok(duration) = parse_duration(text) {
        let whole = Duration::from_millis(duration.as_millis().try_into().unwrap_or(u64::MAX));
        assert_eq!(parse_duration(&format_duration(whole)), Ok(whole));
        assert!(!format_rough(duration).is_empty());
    }
    if let Ok(t) = parse_time(text, NOW) {
        assert!(t.0.abs() < FAR, "{t}");
        let later = t.plus(MINUTE).floor(MINUTE);
        assert!(later > t && later.minus(MINUTE) <= t);
        assert_eq!(parse_time(&t.to_string(), NOW), Ok(t));
    }
}

// ------------------------------------------------------------------ models

/// A file of a model directory, in the place of each such file of a good one: refused, or a model that scores and explains.
pub fn model(data: &[u8]) {
    static FILES: OnceLock<BTreeMap<String, Vec<u8>>> = OnceLock::new();
    let files = FILES.get_or_init(|| base().files());
    if let Ok(manifest) = serde_json::from_slice::<Manifest>(data) {
        open(manifest, files.clone());
    }
    let catalogue = &base().catalogue;
    if let Ok(reference) = Reference::from_json(data, &catalogue.names()) {
        check_reference(reference, &catalogue.names());
    }
    let snapshot = catalogue.snapshot_columns();
    let snapshot: Vec<String> = snapshot
        .iter()
        .map(|c| catalogue.name(*c).to_owned())
        .collect();
    for (part, names) in [("full/", &catalogue.names()), ("snapshot/", &snapshot)] {
        let own = files
            .iter()
            .filter_map(|(name, bytes)| Some((name.strip_prefix(part)?.to_owned(), bytes.clone())));
        let own: BTreeMap<String, Vec<u8>> = own.collect();
        for name in own.keys().filter(|name| is_kind(name, data)) {
            let mut files = own.clone();
            files.insert(name.clone(), data.to_vec());
            if let Ok(ensemble) = Ensemble::from_files(&files, names) {
                check_ensemble(&ensemble);
                assert_eq!(
                    Ensemble::from_files(&ensemble.to_files(names), names),
                    Ok(ensemble)
                );
            }
        }
    }
}

/// What the training rows were like: a day of rows is compared with it in finite numbers.
fn check_reference(reference: Reference, names: &[String]) {
    let json = reference.to_json();
    assert_eq!(Reference::from_json(&json, names).as_ref(), Ok(&reference));
    let mut rows = probes(names.len());
    rows.data = rows.data.repeat(3);
    let mut recent = Recent::new(Arc::new(reference));
    for hour in 0..24 {
        recent.count(NOW.plus(60 * MINUTE * hour), &rows);
    }
    let drift = recent.drift(NOW.plus(24 * 60 * MINUTE)).expect("a day");
    assert!(
        drift
            .features
            .iter()
            .all(|f| f.psi.is_finite() && f.usual_psi.is_finite())
    );
}

/// Whether the bytes may be such a file: what lacks this key is refused, and soon.
fn is_kind(name: &str, data: &[u8]) -> bool {
    let key: &[u8] = match name {
        "linear.json" => b"\"terms\"",
        "calibration.json" => b"\"stack\"",
        _ => b"\"gradient_booster\"",
    };
    data.windows(key.len()).any(|window| window == key)
}

/// The files of a good model, by name: what fuzzing starts from.
pub fn model_files() -> BTreeMap<String, Vec<u8>> {
    let mut files = base().files();
    let manifest = serde_json::to_vec_pretty(&base().manifest).expect("JSON");
    files.insert("manifest.json".into(), manifest);
    files
}

fn open(mut manifest: Manifest, files: BTreeMap<String, Vec<u8>>) {
    manifest.files.clone_from(&base().manifest.files);
    let Ok(bundle) = Bundle::from_files(manifest, files) else {
        return;
    };
    let card = ModelCard::of(&bundle);
    assert!(card.trained.0.abs() < FAR);
    assert!((0.0..=1.0).contains(&card.alert_threshold));
    let misfit = bundle
        .manifest
        .misfit(bundle.catalogue.signals(), MINUTE, 30 * MINUTE);
    assert!(misfit.is_none_or(|why| !why.is_empty()));
    let step = bundle.catalogue.step();
    let mut window = bundle.catalogue.window();
    let t = NOW.floor(step);
    window.advance(t);
    (0..window.signals()).for_each(|signal| window.set(signal, t, 1e30));
    assert!(
        bundle
            .features(&window, t)
            .iter()
            .all(|value| !value.is_infinite())
    );
    check_ensemble(bundle.full());
    let columns = bundle.catalogue.len();
    for row in probes(columns).data.chunks_exact(columns).take(3) {
        check_probability(bundle.score_snapshot(row).ensemble);
        for has_history in [false, true] {
            let reasons = bundle.explain(row, has_history, columns);
            assert!(reasons.iter().all(|r| r.contribution.is_finite()));
        }
    }
    let importance: f64 = bundle.importance().iter().map(|(_, share)| share).sum();
    assert!(importance < 1.001, "{importance}");
}

/// An XGBoost model to import: refused, or trees that score, explain and survive their own file.
pub fn xgboost(data: &[u8]) {
    let names = ["a", "b", "c", "d"].map(str::to_owned);
    // The recorded models stand in a document with rows and margins.
    let recorded: Option<Value> = serde_json::from_slice(data).ok();
    let inner =
        recorded.and_then(|mut document| Some(document.get_mut("model")?.take().to_string()));
    let Ok(trees) = model::import(inner.as_deref().map_or(data, str::as_bytes), &names) else {
        return;
    };
    let rows = probes(names.len());
    let labels: Vec<bool> = (0..rows.rows()).map(|row| row % 3 == 0).collect();
    let ensemble = model::adopt(trees, &rows, &labels).expect("rows of both classes");
    check_ensemble(&ensemble);
    let files = ensemble.to_files(&names);
    assert_eq!(Ensemble::from_files(&files, &names), Ok(ensemble));
}

/// One by one or together the same probabilities, within bounds; explanations add up to the score.
fn check_ensemble(ensemble: &Ensemble) {
    let rows = probes(ensemble.columns());
    let shap = ensemble.shap();
    for (i, together) in ensemble.score_rows(&rows).into_iter().enumerate() {
        let row = rows.row(i);
        assert_eq!(ensemble.score(row), together);
        for member in ServeMember::ALL {
            check_probability(together.served(member));
        }
        let score = ensemble.stack_score(row);
        assert!(score.is_finite());
        let paths = |out: &mut [f64]| ensemble.explain(row, out);
        let shap = |out: &mut [f64]| shap.explain(row, out);
        for explain in [&paths as &dyn Fn(&mut [f64]) -> f64, &shap] {
            let mut contributions = vec![0.0; row.len()];
            let bias = explain(&mut contributions);
            let size = contributions
                .iter()
                .fold(bias.abs(), |size, c| size + c.abs());
            let sum = bias + contributions.iter().sum::<f64>();
            assert!(
                (sum - score).abs() <= 1e-4 * (1.0 + size),
                "{sum} is not {score}"
            );
        }
    }
}

/// Rows of everything that a feature can be, and more.
fn probes(columns: usize) -> Matrix {
    const VALUES: [f32; 12] = [
        f32::NAN,
        0.0,
        -0.0,
        1.0,
        -1.5,
        50.0,
        1e6,
        1e-40,
        f32::MAX,
        f32::MIN,
        f32::INFINITY,
        f32::NEG_INFINITY,
    ];
    let mut matrix = Matrix::new(columns);
    for value in VALUES {
        matrix.push().fill(value);
    }
    let mut random = Random(7);
    for _ in 0..8 {
        matrix
            .push()
            .fill_with(|| VALUES[random.below(VALUES.len())]);
    }
    matrix
}

/// The shipped config.
fn demo() -> &'static Config {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    CONFIG.get_or_init(|| {
        Config::parse(SHIPPED, "config.yaml", &Environment::default()).expect("it is right")
    })
}

/// A model of a few small trees for the shipped config.
fn base() -> &'static Arc<Bundle> {
    static BASE: OnceLock<Arc<Bundle>> = OnceLock::new();
    BASE.get_or_init(|| {
        let catalogue = learning::plan(demo()).catalogue;
        let (full_rows, snapshot_rows) = (
            rows_to_learn(catalogue.len()),
            rows_to_learn(catalogue.snapshot_columns().len()),
        );
        let (full, snapshot) = (ensemble(&full_rows), ensemble(&snapshot_rows));
        let every: Vec<usize> = (0..ROWS).collect();
        let columns: Vec<usize> = (0..catalogue.len()).collect();
        let names = catalogue.names();
        let reference = Reference::new(&full_rows, &names, &columns, &every, &[]);
        let manifest = manifest(&catalogue);
        Arc::new(Bundle::new(manifest, catalogue, full, snapshot, reference))
    })
}

const ROWS: usize = 600;

fn rows_to_learn(columns: usize) -> Matrix {
    let mut random = Random(11);
    let mut features = Matrix::new(columns);
    for _ in 0..ROWS {
        features.push().fill_with(|| match random.below(10) {
            0 => f32::NAN,
            _ => random.below(1000) as f32 / 10.0,
        });
    }
    features
}

fn ensemble(features: &Matrix) -> Ensemble {
    let labels: Vec<bool> = (0..ROWS)
        .map(|row| {
            let row = features.row(row);
            row[0] > 70.0 || row[1] > 90.0
        })
        .collect();
    let set = TrainingSet {
        features,
        labels: &labels,
        weights: &[1.0; ROWS],
        inputs: &vec![vec![0]; features.columns],
    };
    let split = Split {
        folds: Vec::new(),
        fit: (0..400).collect(),
        calibrate: (400..ROWS).collect(),
    };
    let params = FitParams {
        xgboost: XgboostParams {
            n_estimators: 3,
            learning_rate: 0.3,
            max_depth: 2,
            min_child_weight: 1.0,
            lambda: 1.0,
            early_stopping_rounds: 3,
        },
        random_forest: ForestParams {
            n_estimators: 3,
            max_depth: 2,
            min_samples_leaf: 5,
        },
        logistic_regression: LogisticParams { alpha: 1.0 },
        imbalance: Imbalance::None,
        signals_per_tree: 1.0,
        calendar: false,
        search: false,
        seed: 1,
    };
    model::fit(&set, &split, &params, &|_, _| ())
        .expect("both classes are there")
        .ensemble
}

fn manifest(catalogue: &Catalogue) -> Manifest {
    let signals: Vec<Value> = demo()
        .signals
        .iter()
        .map(|s| {
            let mut signal = serde_json::to_value(&s.signal).expect("JSON");
            signal["query"] = "q".into();
            signal
        })
        .collect();
    serde_json::from_value(json!({
        "format_version": 1,
        "id": "",
        "forewarn_version": "0",
        "origin": "history",
        "signals": signals,
        "features": catalogue.specs(),
        "step_seconds": 60.0,
        "horizon_seconds": 1800.0,
        "label": {"queries": [], "alerts": [], "min_duration_seconds": 0.0, "merge_gap_seconds": 0.0, "recovery_seconds": 0.0},
        "training": {"start": "2026-01-01T00:00:00Z", "end": "2026-01-08T00:00:00Z", "targets": 1, "rows": 1, "incidents": 1, "base_rate": 0.1, "seed": 1},
        "threshold": {"probability": 0.5, "false_alarms_per_target_week": 1.0},
        "best_member": "xgboost",
        "metrics": {},
        "files": {},
    }))
    .expect("a manifest")
}

/// Numbers without a pattern, the same each time (SplitMix64).
struct Random(u64);

impl Random {
    fn of(data: &[u8]) -> Self {
        Self(data.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        }))
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}
