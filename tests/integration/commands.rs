use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use wiremock::matchers::path;
use wiremock::{Mock, MockServer, ResponseTemplate};

use forewarn::artifact;
use forewarn::config::Config;
use forewarn::evaluation::AlarmRule;
use forewarn::evaluation::baselines::Prior;
use forewarn::history::{Column, History};
use forewarn::models;
use forewarn::scoreboard::Scoreboard;
use forewarn::state::{AlertStatus, ReceivedAlert, Store};
use forewarn::time::{Timestamp, parse_time};
use forewarn::training;
use forewarn::types::{Source, TargetId};

use super::fleet::{MINUTES, ORIGIN, bundle, config, history, plan, record, train};
use super::upstream::Prometheus;

/// A models folder with the shared model in it, promoted.
struct Models {
    dir: TempDir,
    id: String,
    /// Prometheus' address.
    url: String,
    config: PathBuf,
}

impl Models {
    fn new() -> Self {
        let models = Self {
            dir: tempfile::tempdir().expect("a temporary folder"),
            id: bundle().manifest.id.clone(),
            url: "http://127.0.0.1:9".into(),
            config: "deploy/demo/config.yaml".into(),
        };
        models.add(&models.id);
        models::promote(models.path(), &models.id).expect("the model can be promoted");
        models
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn add(&self, name: &str) {
        let dir = self.path().join(name);
        artifact::write(
            &bundle(),
            &dir,
            "# The card\n",
            Some("<!doctype html>"),
            &json!({}),
        )
        .expect("the model is written");
    }

    /// The demo's config with more lines before the one with `failure.min_duration`, and at the end.
    fn configure(&mut self, failure: &str, end: &str) {
        let demo = std::fs::read_to_string("deploy/demo/config.yaml").expect("a config");
        let (before, after) = demo
            .split_once("  min_duration:")
            .expect("the key is written");
        let text = format!("{before}{failure}  min_duration:{after}{end}");
        self.config = self.path().join("config.yaml");
        std::fs::write(&self.config, text).expect("the folder can be written to");
    }

    fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    fn run(&self, args: &[&str], input: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_forewarn"))
            .args(args)
            .arg("--config.file")
            .arg(&self.config)
            .env("FOREWARN_PROMETHEUS_URL", &self.url)
            .env("MODEL_PATH", self.path())
            .env("DATA_PATH", self.state())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        // A command that refuses its arguments does not read.
        stdin.write_all(input.as_bytes()).ok();
        drop(stdin);
        child.wait_with_output().expect("the binary ends")
    }

    fn ok(&self, args: &[&str], input: &str) -> String {
        let output = self.run(args, input);
        assert!(
            output.status.success(),
            "{args:?}: {}",
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    fn json(&self, args: &[&str], input: &str) -> Value {
        serde_json::from_str(&self.ok(args, input)).expect("JSON")
    }

    fn refused(&self, args: &[&str], input: &str) -> String {
        self.exits(1, args, input)
    }

    fn exits(&self, code: i32, args: &[&str], input: &str) -> String {
        let output = self.run(args, input);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{args:?}: {}",
            text(&output.stdout)
        );
        text(&output.stderr)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const ROWS: &str = r#"[
    {"cpu_usage": 35, "memory_usage": 50.5, "disk_usage": 40, "network_latency_ms": 20, "error_count": 0, "response_time_ms": 150, "active_connections": 80},
    {"cpu_usage": 97, "memory_usage": 96, "error_count": 400, "response_time_ms": 3000, "zone": "a"}
]"#;

/// What the library says of a row at the time of its answer.
fn expected(row: &Value, answer: &Value) -> f64 {
    let (bundle, config) = (bundle(), config());
    let at = answer["timestamp"].as_str().expect("a timestamp");
    let t = parse_time(&at.replace("+00:00", "Z"), ORIGIN)
        .expect("a time")
        .floor(config.step);
    let mut window = bundle.catalogue.window();
    window.advance(t);
    for (i, signal) in bundle.catalogue.signals().iter().enumerate() {
        if let Some(value) = row[&signal.name].as_f64() {
            window.set(i, t, value as f32);
        }
    }
    let score = bundle.score_snapshot(&bundle.features(&window, t));
    (score.ensemble * 1e4).round() / 1e4
}

#[test]
fn predict_answers_what_the_library_says_in_every_format() {
    let models = Models::new();
    let rows: Value = serde_json::from_str(ROWS).expect("JSON");
    let rows = rows.as_array().expect("an array");
    let answers = models.json(&["predict"], ROWS);
    assert_eq!(answers.as_array().map(Vec::len), Some(2));
    for (row, answer) in rows.iter().zip(answers.as_array().expect("an array")) {
        assert_eq!(answer["failure_probability"], expected(row, answer));
        assert_eq!(answer["model_id"], models.id);
        assert_eq!(answer["history"], "none");
    }
    assert_ne!(
        answers[0]["failure_probability"], answers[1]["failure_probability"],
        "else their order would not show"
    );
    assert_eq!(answers[1]["missing"].as_array().map(Vec::len), Some(3));
    assert_eq!(answers[1]["ignored"], json!(["zone"]));

    let one = models.json(&["predict"], &rows[0].to_string());
    assert_eq!(one["failure_probability"], expected(&rows[0], &one));

    let lines = format!("{}\n\n{}\n", rows[0], rows[1]);
    let printed = models.ok(&["predict", "--format", "ndjson"], &lines);
    let printed: Vec<Value> = printed
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect();
    assert_eq!(printed.len(), 2);
    for (row, answer) in rows.iter().zip(&printed) {
        assert_eq!(answer["failure_probability"], expected(row, answer));
    }

    let csv = "\u{feff}host,cpu_usage,memory_usage,error_count,response_time_ms\r\n\"a,b\",97,96.0,400,3e3\r\nc,35,,0,\r\n";
    let file = models.path().join("rows.csv");
    std::fs::write(&file, csv).expect("the file is written");
    let file = file.display().to_string();
    let printed = models.ok(&["predict", "--format", "csv", "--input", &file], "");
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(
        lines[0],
        "host,cpu_usage,memory_usage,error_count,response_time_ms,failure_probability,failure_risk"
    );
    assert!(
        lines[1].starts_with("\"a,b\",97,96.0,400,3e3,"),
        "{}",
        lines[1]
    );
    let probability = |line: &str| {
        line.rsplit(',')
            .nth(1)
            .and_then(|cell| cell.parse::<f64>().ok())
            .expect("a probability")
    };
    let same = models.json(
        &["predict"],
        r#"{"cpu_usage": 97, "memory_usage": 96, "error_count": 400, "response_time_ms": 3000}"#,
    );
    assert_eq!(same["failure_probability"], probability(lines[1]));
    assert_ne!(probability(lines[1]), probability(lines[2]));
    assert_eq!(lines.len(), 3);
}

#[test]
fn predict_uses_the_history_of_a_row() {
    let models = Models::new();
    let rows: Value = serde_json::from_str(ROWS).expect("JSON");
    let (mut row, body) = (rows[0].clone(), rows[0].clone());
    row["history"] = Value::from(vec![body; 60]);
    assert_eq!(
        models.json(&["predict"], &row.to_string())["history"],
        "request"
    );
}

#[test]
fn predict_names_the_row_and_the_field() {
    let models = Models::new();
    for (format, input, expected) in [
        (
            "json",
            r#"[{"cpu_usage": 1}, {"cpu_usage": "5"}, {"cpu_usage": 101, "disk_usage": true}]"#,
            &[
                "stdin: 2 of 3 rows are wrong",
                "row 2: /cpu_usage is a string; must be a number or null",
                "row 3: /cpu_usage is 101; must be between 0 and 100 (percent); /disk_usage is a boolean",
            ][..],
        ),
        (
            "json",
            "{\"cpu_usage\": 1}\n{}",
            &["not JSON", "--format ndjson"],
        ),
        (
            "json",
            r#"{"cpu_usage": 1, "target": "web-1"}"#,
            &["/target names no known target", "forewarn serve"],
        ),
        (
            "json",
            "[[]]",
            &["row 1: the body is an array; must be an object"],
        ),
        (
            "ndjson",
            "{\"cpu_usage\": 1}\n{\"cpu\": 1}\n",
            &["line 2: the body has none of the model's signals"],
        ),
        ("ndjson", "{\"cpu_usage\": NaN}", &["line 1: not JSON"]),
        ("csv", "", &["is empty"]),
        (
            "csv",
            "host,load\na,1\n",
            &["line 1: the header names none of the model's signals: cpu_usage"],
        ),
        (
            "csv",
            "host,cpu_usage\na,1\nb,x\n",
            &["line 3: /cpu_usage is a string"],
        ),
        (
            "csv",
            "host,cpu_usage\na,1,2\n",
            &["line 2: has 3 cells, and the header 2"],
        ),
        (
            "csv",
            "host,cpu_usage\n\"a,1\n",
            &["line 2: a quoted cell does not end"],
        ),
    ] {
        let problem = models.refused(&["predict", "--format", format], input);
        for expected in expected {
            assert!(
                problem.contains(expected),
                "{input}: no {expected:?} in {problem}"
            );
        }
    }
    let problem = models.refused(&["predict", "--input", "absent.json"], "");
    assert!(problem.contains("cannot read absent.json"), "{problem}");
    assert_eq!(models.json(&["predict"], "[]"), json!([]));
}

#[test]
fn models_are_listed_promoted_and_rolled_back() {
    let models = Models::new();
    let id = models.id.as_str();
    let nothing_before = models.refused(&["model", "rollback"], "");
    assert!(
        nothing_before.contains("no model was served before"),
        "{nothing_before}"
    );
    models.add("second");
    let list = || {
        let list = models.json(&["model", "list", "--output", "json"], "");
        let row = |name: &str| {
            let rows = list.as_array().expect("an array");
            let found = rows.iter().find(|row| row["name"] == name);
            found.expect("the model is listed").clone()
        };
        (row(id), row("second"))
    };
    let (first, second) = list();
    let manifest = &bundle().manifest;
    assert_eq!(first["current"], true);
    assert_eq!(second["current"], false);
    assert_eq!(first["incidents"], manifest.training.incidents);
    assert_eq!(first["roc_auc"], manifest.metrics["ensemble"]["roc_auc"]);
    assert_eq!(first["trained_until"], manifest.training.end);

    models.ok(&["model", "promote", "second"], "");
    let (first, second) = list();
    assert_eq!(
        (&first["previous"], &second["current"]),
        (&json!(true), &json!(true))
    );
    let table = models.ok(&["model", "list"], "");
    assert!(table.contains(&format!("* second ({id})")), "{table}");
    assert!(table.contains(&format!("< {id}")), "{table}");
    models.ok(&["model", "rollback"], "");
    assert_eq!(list().0["current"], true);
    models.ok(&["model", "rollback"], "");
    assert_eq!(list().1["current"], true, "a second rollback returns");

    assert_eq!(models.ok(&["model", "inspect"], ""), "# The card\n");
    let inspected = models.json(&["model", "inspect", id, "--output", "json"], "");
    assert_eq!(inspected, json!(manifest));
}

#[test]
fn what_is_no_whole_fitting_model_is_not_promoted() {
    let models = Models::new();
    models.add("damaged");
    let file = models.path().join("damaged/full/xgboost.json");
    let mut bytes = std::fs::read(&file).expect("the file is there");
    bytes[100] ^= 1;
    std::fs::write(&file, bytes).expect("the file is written");
    for (name, why) in [
        ("damaged", "checksum"),
        ("absent", "there is no model absent"),
        ("..", "not the name of a model"),
    ] {
        let problem = models.refused(&["model", "promote", name], "");
        assert!(problem.contains(why), "{problem}");
    }
    let served = models::served(models.path()).expect("the folder can be read");
    assert_eq!(served.as_deref(), Some(models.id.as_str()));

    std::fs::write(models.path().join("damaged/manifest.json"), "{").expect("written");
    let list = models.ok(&["model", "list"], "");
    assert!(list.contains("is not a model manifest"), "{list}");
}

#[test]
fn trees_go_out_as_a_file_and_only_over_their_kind() {
    let models = Models::new();
    let out = models.path().join("trees.json");
    let path = out.display().to_string();
    for (member, file) in [
        ("xgboost", "full/xgboost.json"),
        ("random_forest", "full/random_forest.json"),
    ] {
        models.ok(
            &["model", "export", "--member", member, "--output", &path],
            "",
        );
        assert_eq!(
            std::fs::read(&out).expect("written"),
            bundle().files()[file]
        );
    }
    std::fs::write(&out, "a diary").expect("the file is written");
    let problem = models.refused(&["model", "export", "--output", &path], "");
    assert!(problem.contains("is something else"), "{problem}");
    assert_eq!(std::fs::read(&out).expect("still there"), b"a diary");
}

#[test]
fn what_cannot_be_imported_leaves_the_served_model_alone() {
    let models = Models::new();
    let import = |name: &str| {
        let path = models.path().join(name).display().to_string();
        models.refused(&["model", "import", "--xgboost", &path], "")
    };
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(models.path().join(name), bytes).expect("the file is written");
    };
    let trees = bundle().files()["full/xgboost.json"].clone();
    let text = String::from_utf8(trees.clone()).expect("JSON is text");
    write("cut.json", &trees[..trees.len() / 3]);
    write(
        "other.json",
        text.replace("cpu_usage_std_15m", "load_1m").as_bytes(),
    );
    write("diary.json", b"dear diary");
    let large = std::fs::File::create(models.path().join("large.json")).expect("a file");
    large.set_len(10 << 30).expect("a sparse file of 10 GiB");
    for (name, expected) in [
        ("absent.json", "cannot read"),
        ("cut.json", "not a model file of the expected form"),
        ("diary.json", "not a model file of the expected form"),
        (
            "other.json",
            "it reads the feature `load_1m`, which this configuration does not have; train it on the feature columns",
        ),
        ("large.json", "is larger than 256 MiB"),
    ] {
        let problem = import(name);
        assert!(
            problem.contains(expected) && problem.contains(name),
            "{problem}"
        );
    }
    // A good file, but no Prometheus.
    write("good.json", &trees);
    let problem = import("good.json");
    assert!(problem.contains("queries failed"), "{problem}");
    let served = models::served(models.path()).expect("the folder can be read");
    assert_eq!(served.as_deref(), Some(models.id.as_str()));
    assert_eq!(
        models
            .json(&["model", "list", "--output", "json"], "")
            .as_array()
            .map(Vec::len),
        Some(1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_is_exported_from_what_prometheus_answers() {
    let (_server, models) = upstream(history()).await;
    let out = models.path().join("week.parquet");
    let (from, to) = (
        history().time(0).to_string(),
        history().time(MINUTES - 1).to_string(),
    );
    let path = out.display().to_string();
    let args = [
        "dataset", "export", "--start", &from, "--end", &to, "--output", &path,
    ];
    let output = models.run(&args, "");
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(output.stdout.is_empty(), "the result is the file");
    assert!(
        said.contains(&format!("--start {from} --end {to}")),
        "{said}"
    );
    assert!(said.find("labels ") < said.find("writing"), "{said}");
    let bytes = std::fs::read(&out).expect("the file is there");
    assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"));
    models.ok(&args, "");
    assert_eq!(
        std::fs::read(&out).expect("still there"),
        bytes,
        "the same data, the same bytes"
    );
}

/// Two days after what the model has learned from, and what windows need before them.
fn later() -> &'static History {
    static LATER: OnceLock<History> = OnceLock::new();
    LATER.get_or_init(|| record(MINUTES - 1440, MINUTES + 2 * 1440))
}

async fn upstream(history: &'static History) -> (MockServer, Models) {
    let server = MockServer::start().await;
    let config: Arc<Config> = Arc::new(config());
    Prometheus::new(&config, history).mount(&server).await;
    let mut models = Models::new();
    models.url = server.uri();
    (server, models)
}

#[tokio::test(flavor = "multi_thread")]
async fn backtest_says_what_the_library_says() {
    let (_server, models) = upstream(later()).await;
    let start = later().time(1440);
    let end = later().time(later().steps() - 1);
    let (from, to) = (start.to_string(), end.to_string());
    let args = ["backtest", "--start", &from, "--end", &to];
    let mut report = models.json(&[&args[..], &["--output", "json"]].concat(), "");

    let plan = plan();
    let reach = forewarn::tracker::reach(&plan.catalogue, &plan.rules);
    let known = record(
        MINUTES - (reach.as_secs() / 60) as usize,
        MINUTES + 2 * 1440,
    );
    let replay = training::replay(&known, &plan, &|_, _| ());
    let first = known
        .times()
        .position(|t| t == start)
        .expect("the start is recorded");
    let bundle = bundle();
    let prior = bundle
        .manifest
        .training
        .prior
        .clone()
        .expect("train stores it");
    let mut evaluation = replay.evaluate(
        &known,
        &plan,
        (first, known.steps()),
        &bundle.score_rows(&replay.features),
        &prior,
        bundle.manifest.threshold.alarming(),
    );
    let uncalibrated = replay.uncalibrated((first, known.steps()), bundle.full());
    evaluation.ensemble.uncalibrated = Some(uncalibrated);
    assert!(
        evaluation.incidents > 5,
        "{} incidents show little",
        evaluation.incidents
    );
    let fields = report.as_object_mut().expect("an object");
    assert_eq!(fields.remove("overlaps_training"), Some(json!(false)));
    assert_eq!(fields.remove("model_id"), Some(json!(models.id)));
    assert_eq!(fields.remove("live"), Some(Value::Null));
    let timing = fields.remove("timing").expect("timing");
    assert!(timing["total_seconds"].as_f64() > Some(0.0), "{timing}");
    assert_eq!(report, json!(evaluation));
    assert_eq!(report["start"], start.as_secs_f64());
    assert_ne!(
        report["baselines"]["time_of_day"], report["baselines"]["prior"],
        "the hours of the training rows are known"
    );
    assert_ne!(prior, Prior::flat(bundle.manifest.training.base_rate));

    let file = models.path().join("backtest.html");
    let file = file.to_str().expect("a path in UTF-8");
    let table = models.ok(&[&args[..], &["--report", file]].concat(), "");
    assert!(table.contains(&evaluation.table(None)), "{table}");
    assert!(!table.contains("warning"), "{table}");
    let html = std::fs::read_to_string(file).expect("the report is written");
    super::report::check(&html);
    assert!(html.contains("backtest report") && !html.contains("overlaps"));
    assert!(html.contains(&format!("--start {from} --end {to} --report report.html")));
}

/// A rule of the user's is one of the model's signals here, and the oracle says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn backtest_judges_what_the_config_says_to_compare_with() {
    let (_server, mut models) = upstream(later()).await;
    models.configure(
        "",
        "compare: {busy: 'fleet_cpu_usage_percent{job=\"fleet\"}', oracle: nothing}\n",
    );
    let (from, to) = (
        later().time(1440).to_string(),
        later().time(4000).to_string(),
    );
    let args = ["backtest", "--start", &from, "--end", &to];
    let output = models.run(&[&args[..], &["--output", "json"]].concat(), "");
    let (report, words) = (text(&output.stdout), text(&output.stderr));
    assert!(
        words.contains("compare.oracle returned no series"),
        "{words}"
    );
    let report: Value = serde_json::from_str(&report).expect("JSON");
    let (busy, oracle) = (&report["compared"]["busy"], &report["oracle"]);
    let (silent, random) = (oracle["roc_auc"].as_f64(), &report["baselines"]["random"]);
    assert_eq!(silent, Some(0.5));
    assert!(oracle["brier"].is_f64() && busy["brier"].is_null());
    assert!(busy["roc_auc"].as_f64() > Some(0.5), "{busy}");
    let keys = |value: &Value| -> Vec<String> {
        value
            .as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect()
    };
    assert_eq!((keys(busy), keys(oracle)), (keys(random), keys(random)));
    assert_eq!(report["compared"].get("oracle"), None);

    let table = models.ok(&args, "");
    assert_eq!(table.matches("\n  busy ").count(), 4, "{table}");
    assert!(table.contains("\noracle, precision 0.89"), "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_received_by_webhook_are_failures_of_a_backtest_too() {
    let (server, mut models) = upstream(later()).await;
    let rules = json!({"status": "success", "data": {"groups": []}});
    Mock::given(path("/api/v1/rules"))
        .respond_with(ResponseTemplate::new(200).set_body_json(rules))
        .mount(&server)
        .await;
    let alerts = "  alerts: [{severity: critical}]\n";
    models.configure(alerts, "");
    let (from, to) = (
        later().time(1440).to_string(),
        later().time(4300).to_string(),
    );
    let args = [
        "backtest", "--start", &from, "--end", &to, "--output", "json",
    ];
    let output = models.run(&args, "");
    assert!(
        text(&output.stderr).contains("no alerts of the webhook are used: there is no "),
        "{}",
        text(&output.stderr)
    );
    let without: Value = serde_json::from_slice(&output.stdout).expect("JSON");

    let failing = |target: &TargetId, i: usize| {
        later().target(target).expect("a target").steps[i]
            .failing
            .is_some()
    };
    let is_quiet = |target: &TargetId, i: usize| (i - 150..i + 150).all(|j| !failing(target, j));
    let (quiet, at) = later()
        .targets()
        .into_iter()
        .find_map(|(target, _)| Some((target, (1700..4000).find(|&i| is_quiet(target, i))?)))
        .expect("some target is well for five hours");
    let (failed, start) = later()
        .targets()
        .into_iter()
        .find_map(|(target, _)| Some((target, (1700..4000).find(|&i| failing(target, i))?)))
        .expect("some target fails");
    let alert = |name: &str, target: &TargetId, i: usize, own: bool| ReceivedAlert {
        fingerprint: name.into(),
        status: AlertStatus::Resolved,
        labels: [
            ("alertname", name),
            ("instance", target.as_str()),
            ("severity", "critical"),
        ]
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .into(),
        annotations: Default::default(),
        starts_at: later().time(i).plus(Duration::from_secs(20)),
        ends_at: Some(later().time(i + 4)),
        own,
    };
    let unknown = TargetId::new("unknown");
    let mut marked = alert("Marked", quiet, at + 120, false);
    marked.labels.insert("forewarn".into(), "true".into());
    // Read beside its writer, as a cron job does.
    let serving = Store::open(&models.state(), Duration::from_secs(86_400)).expect("a state");
    let alerts_received = [
        alert("DiskFull", quiet, at, false),
        alert("Predicted", quiet, at + 120, true),
        marked,
        // The failure query said so before.
        alert("Late", failed, start, false),
        alert("Elsewhere", &unknown, at, false),
    ];
    serving
        .record_alerts(ORIGIN, &alerts_received)
        .expect("the state can be written");
    let with = models.json(&args, "");
    drop(serving);
    let incidents = |report: &Value| report["incidents"].as_u64().expect("a number");
    assert_eq!(incidents(&with), incidents(&without) + 1);
    assert_eq!(with["targets"], without["targets"]);
    let modes: Vec<(&String, u64)> = with["by_failure_mode"]
        .as_object()
        .expect("an object")
        .iter()
        .map(|(mode, report)| (mode, incidents(report)))
        .collect();
    assert_eq!(
        modes,
        [
            (&"DiskFull".to_string(), 1),
            (&"failure.queries[0]".to_string(), incidents(&without)),
        ]
    );

    models.configure(alerts, "state: {enabled: false}\n");
    let mut off = models.json(&args, "");
    off["timing"] = without["timing"].clone();
    assert_eq!(off, without);
}

#[tokio::test(flavor = "multi_thread")]
async fn backtest_refuses_what_the_model_has_learned_from() {
    let (_server, models) = upstream(history()).await;
    let from = history().time(MINUTES - 1440).to_string();
    let args = [
        "backtest",
        "--start",
        &from,
        "--end",
        &history().time(MINUTES + 60).to_string(),
    ];
    let problem = models.refused(&args, "");
    for expected in [models.id.as_str(), "overlaps", "--allow-overlap"] {
        assert!(problem.contains(expected), "{problem}");
    }
    let file = models.path().join("backtest.html");
    let file = file.to_str().expect("a path in UTF-8");
    let overlapping = [&args[..], &["--allow-overlap", "--report", file]].concat();
    assert!(models.ok(&overlapping, "").contains("warning: model"));
    let html = std::fs::read_to_string(file).expect("the report is written");
    assert!(html.contains("overlaps the one that the model has learned from"));
    let json = models.json(&[&overlapping[..], &["--output", "json"]].concat(), "");
    assert_eq!(json["overlaps_training"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn backtest_refuses_ranges_and_histories_that_show_nothing() {
    let (_server, models) = upstream(later()).await;
    let (start, end) = (
        later().time(1440).to_string(),
        later().time(3000).to_string(),
    );
    for (code, from, to, why) in [
        (2, &end, &start, "is not before --end"),
        (
            2,
            &"yesterday".to_string(),
            &end,
            "--start: \"yesterday\" is not a time",
        ),
        (
            1,
            &start,
            &later().time(1450).to_string(),
            "shorter than the horizon",
        ),
        (
            1,
            &"2026-03-01T00:00:00Z".to_string(),
            &"2026-03-02T00:00:00Z".to_string(),
            "no signal returned a series",
        ),
    ] {
        let problem = models.exits(code, &["backtest", "--start", from, "--end", to], "");
        assert!(problem.contains(why), "{problem}");
    }
    let nowhere = models.path().join("nowhere/report.html");
    for (file, why) in [
        (nowhere.as_path(), "make the folder first"),
        (models.path(), "is a folder: name a file"),
    ] {
        let file = file.to_str().expect("a path in UTF-8");
        let range = ["backtest", "--start", &start, "--end", &end];
        let problem = models.refused(&[&range[..], &["--report", file]].concat(), "");
        assert!(problem.contains(why), "{problem}");
    }
}

/// Three days more than what the shared model has learned from.
fn ten_days() -> &'static History {
    static DAYS: OnceLock<History> = OnceLock::new();
    DAYS.get_or_init(|| record(0, MINUTES + 3 * 1440))
}

/// A model that has learned failures at other times than they were.
fn misled() -> forewarn::bundle::Bundle {
    let (real, day) = (history(), 1440);
    let mut made = History::new(7, real.time(0), real.time(real.steps() - 1), real.step());
    for (target, recorded) in real.targets() {
        let mut insert = |column, samples: Vec<_>| {
            made.insert(column, target.as_str(), &Default::default(), &samples)
                .expect("one series per signal");
        };
        for signal in 0..7 {
            let column = recorded.column(signal);
            let samples = (0..real.steps()).map(|i| (real.time(i), f64::from(column[i])));
            insert(
                Column::Signal(signal),
                samples.filter(|(_, value)| !value.is_nan()).collect(),
            );
        }
        let failing = (day..real.steps()).filter(|i| recorded.steps[*i].failing.is_some());
        insert(
            Column::Failing(Source::Query),
            failing.map(|i| (real.time(i - 300), 1.0)).collect(),
        );
    }
    train(&made, &plan())
}

/// A state whose scoreboard knows so many right alarms, and nothing else.
fn praise(state: &Path, alarms: i64) {
    let config = config();
    let store = Store::open(state, config.state.retention).expect("the state can be opened");
    let rule = AlarmRule::new(0.5, Duration::ZERO, &plan().rules);
    let mut board = Scoreboard::new(rule, config.state.retention);
    for minute in 0..alarms * 60 {
        let t = Timestamp::from_secs(minute * 60);
        let (hour, of_hour) = (minute / 60, minute % 60);
        let score = if of_hour == 30 { 0.9 } else { 0.1 };
        let incident = Timestamp::from_secs((hour * 60 + 40) * 60);
        let begun = (of_hour >= 40).then_some(incident);
        board.observe(t, &TargetId::new("a"), Some(score), begun);
        board.tick(t);
    }
    assert_eq!(board.summary().precision, Some(1.0));
    let changes = board.changes().expect("it can be stored");
    store
        .write_cycle(&[], &[], &changes)
        .expect("the state can be written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trained_model_is_promoted_as_the_flag_says_and_tells_why() {
    let (_server, mut models) = upstream(ten_days()).await;
    models.configure("", "");
    let text = std::fs::read_to_string(&models.config).expect("it was written");
    let small = "  max_rows: 6000\n  folds: 2\n  xgboost: {n_estimators: 20}\n  random_forest: {n_estimators: 10, max_depth: 6}\n";
    let text = text.replace("train:\n", &format!("train:\n{small}"));
    let configure = |models: &Models, horizon: &str| {
        let text = text.replace("horizon: 30m", horizon);
        std::fs::write(&models.config, text).expect("the folder can be written to");
    };
    configure(&models, "horizon: 30m");
    let start = history().time(0).to_string();
    let train = |models: &Models, promote: &str, end: usize| {
        let end = ten_days().time(end).to_string();
        let args = [
            "train",
            "--start",
            &start,
            "--end",
            &end,
            "--origin",
            "simulated",
            "--promote",
            promote,
            "--output",
            "json",
        ];
        let report = models.json(&args, "");
        let id = report["model_id"].as_str().expect("an id").to_owned();
        let served = models::served(models.path()).expect("the folder can be read");
        let promotion = report["promotion"].clone();
        assert_eq!(
            promotion["promoted"],
            served.as_ref() == Some(&id),
            "{promotion}"
        );
        assert!(models.path().join(&id).is_dir(), "it is there in any case");
        promotion
    };
    let serve = |models: &Models, bundle: &forewarn::bundle::Bundle| {
        let dir = models.path().join("served");
        artifact::write(bundle, &dir, "", None, &json!({})).expect("the model is written");
        models::promote(models.path(), "served").expect("the model can be promoted");
    };
    let said = |promotion: &Value, promoted: bool, why: &str| {
        assert_eq!(promotion["promoted"], promoted, "{promotion}");
        let reason = promotion["reason"].as_str().expect("a reason");
        assert!(reason.contains(why), "{reason}");
    };
    let last = MINUTES + 3 * 1440 - 1;

    said(&train(&models, "never", last), false, "--promote=never");
    let same = train(&models, "if-better", last);
    said(&same, false, "not clearly better");
    let slice = &same["test_slice"];
    assert_eq!(same["served"], models.id);
    assert!(slice["incidents"].as_u64() >= Some(3), "{same}");
    assert!(slice["average_precision"]["interval"].is_array(), "{same}");
    assert!(same["live"].is_null(), "{same}");
    // The shared model has seen all of these, then all but the last hours.
    let overlap = train(&models, "if-better", MINUTES - 1);
    said(&overlap, false, "nothing to compare on");
    let hours = train(&models, "if-better", MINUTES + 120);
    said(&hours, false, "are too few to compare on");
    assert!(
        hours["test_slice"]["start"].as_f64() > Some(history().time(MINUTES - 1).as_secs_f64())
    );

    let misled = misled();
    serve(&models, &misled);
    praise(&models.state(), 40);
    let worse = train(&models, "if-better", last);
    said(&worse, false, "that the served one has live");
    assert_eq!(
        (&worse["live"]["precision"], &worse["live"]["right"]),
        (&json!(1.0), &json!(40))
    );
    std::fs::remove_dir_all(models.state()).expect("the state can be removed");
    said(&train(&models, "if-better", last), true, "clearly better");

    serve(&models, &misled);
    configure(&models, "horizon: 20m");
    let misfit = train(&models, "if-better", last);
    said(&misfit, true, "horizon is 30m in the model and 20m");
    std::fs::write(models.path().join("current"), "gone\n").expect("the folder can be written to");
    said(&train(&models, "if-better", last), true, "no model in");
    said(&train(&models, "always", last), true, "--promote=always");

    let args = ["train", "--promote", "never", "--out", "somewhere"];
    let refused = models.exits(2, &args, "");
    assert!(refused.contains("cannot be used with"), "{refused}");
}
