use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use wiremock::matchers::path_regex;
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

use forewarn::artifact;
use forewarn::models;
use forewarn::state::Store;

use super::fleet::bundle;
use super::upstream::form;

pub const CONFIG: &str = include_str!("../../deploy/demo/config.yaml");
/// Nobody listens there.
pub const NOWHERE: &str = "http://127.0.0.1:1";

/// A folder with a config, a model and a state folder to be.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a temporary folder"));
        place.write("config.yaml", CONFIG);
        let models = place.path().join("models");
        artifact::write(&bundle(), &models.join("default"), "", None, &json!({})).expect("a model");
        place
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).expect("the folder can be written to");
    }

    pub fn command(&self, prometheus: &str, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forewarn"));
        command
            .args(words.split_whitespace())
            .current_dir(self.path())
            .env_clear()
            .env("FOREWARN_PROMETHEUS_URL", prometheus);
        command
    }

    fn check(&self, prometheus: &str, words: &str, code: i32, parts: &[&str]) {
        let output = self.command(prometheus, words).output();
        let Output { status, stderr, .. } = output.expect("forewarn runs");
        let stderr = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(code), "{words}: {stderr}");
        for part in parts {
            assert!(stderr.contains(part), "{words}: no {part:?} in {stderr}");
        }
        assert!(!stderr.contains("panicked"), "{words}: {stderr}");
    }

    /// `forewarn serve`, listening.
    pub async fn serve(&self, prometheus: &str) -> Serving {
        self.serve_with(prometheus, "").await
    }

    pub async fn serve_with(&self, prometheus: &str, flags: &str) -> Serving {
        // For reqwest; fails only when another test was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("an address");
        drop(free);
        let log = fs::File::create(self.path().join("log")).expect("a log");
        let words = format!("serve --web.listen-address {address} {flags}");
        let mut command = self.command(prometheus, &words);
        let process = command.stderr(log).stdout(Stdio::null()).spawn();
        let serving = Serving {
            process: process.expect("forewarn runs"),
            url: format!("http://{address}"),
        };
        serving.until("/-/healthy", 200).await;
        serving
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path().join("log")).expect("a log")
    }
}

pub struct Serving {
    process: Child,
    pub url: String,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Serving {
    pub async fn get(&self, route: &str) -> (u16, String) {
        match reqwest::get(format!("{}{route}", self.url)).await {
            Ok(answer) => (
                answer.status().as_u16(),
                answer.text().await.unwrap_or_default(),
            ),
            Err(_) => (0, String::new()),
        }
    }

    pub async fn until(&self, route: &str, status: u16) {
        let begun = Instant::now();
        while self.get(route).await.0 != status {
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "{route} is not {status}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn predict(&self) -> (u16, Value) {
        let request = reqwest::Client::new()
            .post(format!("{}/predict", self.url))
            .header("content-type", "application/json")
            .body(r#"{"cpu_usage": 40}"#);
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a body");
        (status, serde_json::from_str(&text).expect("JSON"))
    }

    pub fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status();
        assert!(status.is_ok_and(|status| status.success()));
    }

    /// SIGTERM, which is no failure.
    pub fn stop(mut self) {
        self.signal("TERM");
        let status = self.process.wait().expect("an exit");
        assert_eq!(status.code(), Some(0));
    }
}

/// Two targets whose signals are always 1; `memory` answers for memory_usage, no failure query returns anything.
pub async fn prometheus(memory: fn() -> Option<ResponseTemplate>, replicas: usize) -> MockServer {
    let server = MockServer::start().await;
    let respond = move |request: &Request| {
        let form = form(request);
        let query = &form["query"];
        if query.contains("memory")
            && let Some(answer) = memory()
        {
            return answer;
        }
        let time = |name: &str| {
            let text = form.get(name).unwrap_or_else(|| &form["time"]);
            text.parse::<f64>().expect("a time") as i64
        };
        let values: Vec<Value> = (time("start")..=time("end"))
            .step_by(60)
            .map(|t| json!([t, "1"]))
            .collect();
        let series = |name: &str, replica: usize| json!({"metric": {"instance": name, "replica": replica.to_string()}, "values": values});
        let result: Vec<Value> = match query.starts_with("up") {
            true => Vec::new(),
            false => (0..replicas)
                .flat_map(|r| [series("a", r), series("b", r)])
                .collect(),
        };
        ResponseTemplate::new(200).set_body_json(
            json!({"status": "success", "data": {"resultType": "matrix", "result": result}}),
        )
    };
    Mock::given(path_regex("^/api/v1/query(_range)?$"))
        .respond_with(respond)
        .mount(&server)
        .await;
    server
}

fn refused() -> Option<ResponseTemplate> {
    Some(ResponseTemplate::new(400).set_body_json(
        json!({"status": "error", "errorType": "bad_data", "error": "1:3: parse error: unexpected end of input"}),
    ))
}

fn nothing() -> Option<ResponseTemplate> {
    Some(ResponseTemplate::new(200).set_body_json(
        json!({"status": "success", "data": {"resultType": "matrix", "result": []}}),
    ))
}

#[test]
fn a_config_that_is_wrong_ends_with_2_and_says_all_that_is_wrong() {
    let place = Place::new();
    place.write("wrong.yaml", "prometheus: {url: ftp://x, colour: red}\nhorizon: 45s\nsignals:\n  load: {query: node_load1}\nfailure: {}\n");
    let all = [
        "wrong.yaml:1: prometheus.url: \"ftp://x\"",
        "wrong.yaml:1: prometheus.colour: is not a known key",
        "wrong.yaml:2: horizon: 45s is not a multiple",
        "wrong.yaml:4: signals.load.unit: is missing",
        "wrong.yaml:5: failure: says nothing",
    ];
    for command in [
        "serve",
        "train",
        "check config",
        "check queries",
        "check model",
    ] {
        place.check(
            NOWHERE,
            &format!("{command} --config.file wrong.yaml"),
            2,
            &all,
        );
        let missing = format!("{command} --config.file none.yaml");
        place.check(
            NOWHERE,
            &missing,
            2,
            &["none.yaml: cannot be read", "--config.file"],
        );
    }
    for (words, part) in [
        (
            "train --start yesterday",
            "--start: \"yesterday\" is not a time",
        ),
        ("train --start 1h --end 2h", "is not before --end"),
        ("serve --web.listen-address :8000", "write 0.0.0.0:8000"),
        (
            "serve --web.listen-address here",
            "write it like 127.0.0.1:8000",
        ),
    ] {
        place.check(NOWHERE, words, 2, &[part]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_check_ends_with_0_only_when_serve_answers() {
    let place = Place::new();
    for (answer, code, part) in [
        (200, 0, ""),
        (401, 0, ""),
        (503, 1, "/-/healthy answers 503"),
    ] {
        let server = MockServer::start().await;
        Mock::given(path_regex("^/-/healthy$"))
            .respond_with(ResponseTemplate::new(answer))
            .mount(&server)
            .await;
        let words = format!("check health --url {}/", server.uri());
        place.check(NOWHERE, &words, code, &[part]);
    }
    place.check(
        NOWHERE,
        &format!("check health --url {NOWHERE}"),
        1,
        &["/-/healthy does not answer", "--url"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_without_a_use_are_named_by_check_and_train() {
    let place = Place::new();
    let html = MockServer::start().await;
    let page = ResponseTemplate::new(200).set_body_string("<html><title>Grafana</title></html>");
    Mock::given(path_regex("^/api/v1/query(_range)?$"))
        .respond_with(page)
        .mount(&html)
        .await;
    let other = MockServer::start().await;
    let (bad, empty) = (prometheus(refused, 1).await, prometheus(nothing, 1).await);
    let twice = prometheus(|| None, 2).await;
    for (url, parts) in [
        (
            NOWHERE.to_string(),
            [
                "failed to reach Prometheus at http://127.0.0.1:1",
                "check prometheus.url",
            ],
        ),
        (
            html.uri(),
            [
                "in an answer that begins \"Grafana\"",
                "check that prometheus.url",
            ],
        ),
        (other.uri(), ["HTTP 404", "check that prometheus.url"]),
        (
            bad.uri(),
            ["signals.memory_usage.query: ", "1:3: parse error"],
        ),
        (
            twice.uri(),
            [
                "signals.memory_usage.query returns several series for one target (2 targets",
                "aggregate it",
            ],
        ),
    ] {
        for command in ["check queries", "train --start 6h"] {
            place.check(&url, command, 1, &parts);
        }
    }
    let compare = format!("{CONFIG}\ncompare: {{rule: up_rule, other: rule}}\n");
    place.write("compare.yaml", &compare);
    let (good, words) = (
        prometheus(|| None, 1).await,
        "check queries --config.file compare.yaml",
    );
    place.check(&good.uri(), words, 1, &["compare.rule returns nothing"]);
    let output = place.command(&good.uri(), words).output();
    let table = String::from_utf8_lossy(&output.expect("forewarn runs").stdout).into_owned();
    assert!(table.contains("\ncompare.other "), "{table}");

    let part = "signals.memory_usage.query return";
    place.check(&empty.uri(), "check queries", 1, &[part, "nothing"]);
    let parts = [
        part,
        "no incident from",
        "warning: the signal memory_usage has no sample at all",
        "warning: the signal cpu_usage is always 1, on every target",
        "train.range",
    ];
    place.check(&empty.uri(), "train --start 3d", 1, &parts);
    let parts = [
        "the range of 8m is too short, it must be 1d1h at least",
        "30m + 2h = 2h30m",
        "20 % of 8m are 1m36s",
    ];
    place.check(&empty.uri(), "train --start 8m", 1, &parts);
    assert!(
        !place.path().join("models/current").exists(),
        "nothing was promoted"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn training_that_is_refused_leaves_the_served_model_alone() {
    let place = Place::new();
    models::promote(&place.path().join("models"), "default").expect("a whole model");
    let damaged = place.path().join("damaged");
    artifact::write(&bundle(), &damaged, "", None, &json!({})).expect("a model");
    place.write("damaged/full/xgboost.json", "{}");
    fs::create_dir(place.path().join("foreign")).expect("a folder");
    place.write("foreign/thesis.txt", "do not lose");
    // Says 1 for every target at all times.
    place.write(
        "inverted.yaml",
        &CONFIG.replace("up{job=\"fleet\"} == 0", "fleet_up"),
    );
    let before = files(&place.path().join("models"));

    let (good, many) = (prometheus(|| None, 1).await, prometheus(|| None, 100).await);
    for (url, words, code, parts) in [
        (
            good.uri(),
            "train --config.file inverted.yaml --start 3d --force",
            1,
            &[
                "failing at 100 % of all points in time",
                "probably inverted",
            ][..],
        ),
        (
            good.uri(),
            "train --start 3d --out foreign",
            1,
            &["--out", "foreign"],
        ),
        (
            good.uri(),
            "train --start 0",
            2,
            &["1970-01-01T00:00:00Z", "at most 1000000", "--start"],
        ),
        (
            many.uri(),
            "train --start 600d",
            1,
            &["200 targets", "at most 100000000", "longer step"],
        ),
        (
            good.uri(),
            "backtest --start 3d --end now --model damaged",
            1,
            &["full/xgboost.json does not match the checksum"],
        ),
        (
            good.uri(),
            "backtest --start 3d --end now --model foreign",
            1,
            &["foreign"],
        ),
    ] {
        place.check(&url, words, code, parts);
    }
    assert_eq!(files(&place.path().join("models")), before);
    assert_eq!(files(&place.path().join("foreign")).len(), 1);
}

fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("a folder").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let bytes = fs::read(&path).expect("a file");
            found.push((path, bytes));
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_goes_on_without_prometheus() {
    let place = Place::new();
    let serving = place.serve(NOWHERE).await;
    serving.until("/-/ready", 200).await;
    let (_, metrics) = serving.get("/metrics").await;
    assert!(
        metrics.contains("\nforewarn_prometheus_up 0\n"),
        "{metrics}"
    );
    assert!(
        !metrics.contains("\nforewarn_cycle_last_success_timestamp_seconds"),
        "{metrics}"
    );
    let (status, answer) = serving.predict().await;
    assert_eq!(
        (status, &answer["model_origin"]),
        (200, &json!("simulated"))
    );
    serving.stop();
    let log = place.log();
    assert_eq!(
        log.matches("failed to reach Prometheus").count(),
        1,
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_names_the_query_that_is_wrong_and_scores_with_the_others() {
    let place = Place::new();
    let server = prometheus(refused, 1).await;
    let serving = place.serve(&server.uri()).await;
    serving.until("/-/ready", 200).await;
    let (_, metrics) = serving.get("/metrics").await;
    for line in [
        "forewarn_prometheus_up 1",
        "forewarn_targets 2",
        "forewarn_target_state{target=\"a\",state=\"ok\"} 1",
    ] {
        assert!(
            metrics.contains(&format!("\n{line}\n")),
            "no {line} in {metrics}"
        );
    }
    serving.stop();
    let log = place.log();
    assert!(
        log.contains("signals.memory_usage.query: Prometheus refused"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_does_not_fit_scores_no_target_but_answers() {
    let place = Place::new();
    place.write(
        "config.yaml",
        &CONFIG.replace("horizon: 30m", "horizon: 1h"),
    );
    let parts = [
        "horizon is 30m in the model and 1h in the config",
        "forewarn train",
    ];
    place.check(NOWHERE, "check model", 1, &parts);
    let serving = place.serve(NOWHERE).await;
    serving.until("/-/ready", 200).await;
    assert_eq!(serving.predict().await.0, 200);
    let (_, metrics) = serving.get("/metrics").await;
    assert!(metrics.contains("\nforewarn_model_last_reload_successful 0\n"));
    assert!(
        !metrics.contains("\nforewarn_prometheus_up"),
        "nobody asked Prometheus"
    );
    serving.stop();
    assert!(place.log().contains(parts[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_model_is_refused() {
    let place = Place::new();
    place.write("models/default/full/calibration.json", "{}");
    let part = "full/calibration.json does not match the checksum";
    place.check(NOWHERE, "check model", 1, &[part, "train again"]);
    let serving = place.serve(NOWHERE).await;
    assert_eq!(serving.get("/-/ready").await.0, 503);
    let (status, problem) = serving.predict().await;
    assert_eq!(
        (status, &problem["title"]),
        (503, &json!("Service Unavailable"))
    );
    assert!(
        problem["detail"]
            .as_str()
            .is_some_and(|d| d.contains("forewarn train"))
    );
    serving.stop();
    assert!(place.log().contains(part));
}

#[test]
fn a_port_or_a_state_folder_in_use_ends_with_1() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let words = format!("serve --web.listen-address {address}");
    place.check(NOWHERE, &words, 1, &[&address, "--web.listen-address"]);
    let free = "serve --web.listen-address 127.0.0.1:0";
    let _lock = Store::open(&place.path().join("data"), Duration::from_secs(60));
    place.check(
        NOWHERE,
        free,
        1,
        &["another forewarn is writing to data", "DATA_PATH"],
    );
    place.write(
        "config.yaml",
        &format!("{CONFIG}\nstate: {{path: config.yaml}}\n"),
    );
    place.check(NOWHERE, free, 1, &["cannot use config.yaml"]);
}
