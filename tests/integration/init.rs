//! `forewarn init` and the diagnosis of `check queries`, against a mock.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use wiremock::matchers::path_regex;
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

use forewarn::config::{Config, Environment};
use forewarn::presets;

use super::upstream::form;

/// One host whose series are all 1, at all times. No comparison holds, and there is no swap.
fn one_host(request: &Request) -> ResponseTemplate {
    let form = form(request);
    let query = &form["query"];
    let is_empty = ["== 0", "> 0", "< 300", "ALERTS", "absent_metric", "other"]
        .iter()
        .any(|part| query.contains(part));
    let metric = json!({"instance": "web-1:9100", "job": "node"});
    let number = |key: &str| form[key].parse::<f64>().expect("a number") as i64;
    let (kind, series) = match form.contains_key("time") {
        true => (
            "vector",
            json!({"metric": metric, "value": [number("time"), "1"]}),
        ),
        false => {
            let times = (number("start")..=number("end")).step_by(number("step") as usize);
            let values: Vec<Value> = times.map(|t| json!([t, "1"])).collect();
            ("matrix", json!({"metric": metric, "values": values}))
        }
    };
    let result = if is_empty { json!([]) } else { json!([series]) };
    ResponseTemplate::new(200)
        .set_body_json(json!({"status": "success", "data": {"resultType": kind, "result": result}}))
}

async fn prometheus() -> MockServer {
    let server = MockServer::start().await;
    Mock::given(path_regex("^/api/v1/query(_range)?$"))
        .respond_with(one_host)
        .mount(&server)
        .await;
    server
}

fn run(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_forewarn"))
        .args(args)
        .current_dir(dir)
        .output()
        .expect("the binary runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_is_written_with_the_section_of_another_and_no_secret_is_shown() {
    let server = prometheus().await;
    let dir = tempfile::tempdir().expect("a temporary folder");
    let old = dir.path().join("old.yaml");
    let section = format!(
        "prometheus:\n  url: {}\n  authorization: {{credentials: geheim}}\n",
        server.uri()
    );
    fs::write(&old, format!("# mine\n{section}\n# more\ntargets: {{}}\n")).expect("a file");
    fs::set_permissions(&old, fs::Permissions::from_mode(0o600)).expect("it is mine");
    let args = ["init", "--prometheus.config", "old.yaml"];
    let output = run(dir.path(), &args);
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert!(!text.contains("geheim"), "{text}");
    for part in [
        "preset   node",
        "targets  1, of job node; label instance",
        "  left out: its query returns nothing here",
        "no incident in the last",
        "next: read it, then forewarn train",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    let written = dir.path().join("config.yaml");
    let mode = fs::metadata(&written).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let config = fs::read_to_string(&written).expect("a text");
    assert!(config.contains(&section), "{config}");
    let config = Config::load(&written, &Environment::default()).expect("a sound config");
    assert!(config.signals.iter().all(|s| s.signal.name != "swap_usage"));
    let requests = server.received_requests().await.expect("they are kept");
    assert!(
        requests
            .iter()
            .all(|r| r.headers["authorization"] == "Bearer geheim")
    );

    let again = run(dir.path(), &args);
    assert_eq!(again.status.code(), Some(2), "{}", said(&again));
    assert!(said(&again).contains("replace it with --force"));
    let forced = run(
        dir.path(),
        &[&args[..], &["--force", "--output", "json"]].concat(),
    );
    let report: Value = serde_json::from_slice(&forced.stdout).expect("JSON");
    assert_eq!(report["survey"]["preset"], "node");
    assert_eq!(report["survey"]["incidents"]["incidents"], 0);
    // The mock has targets of each kind.
    assert_eq!(report["also_found"].as_array().map(Vec::len), Some(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_young_prometheus_is_called_one_and_lacks_nothing_that_it_may_get() {
    let now = std::time::SystemTime::now();
    let now = now
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    let begun = now.as_secs() as i64 - 90;
    let one_and_a_half_minutes = move |request: &Request| {
        let form = form(request);
        let query = &form["query"];
        let is_empty = ["rate(", "increase(", "== 0", "> 0", "< 300", "ALERTS"]
            .iter()
            .any(|part| query.contains(part));
        let is_node = ["node_", "up{"].iter().any(|part| query.contains(part));
        let number = |key: &str| form[key].parse::<f64>().expect("a number") as i64;
        let (kind, times): (_, Vec<i64>) = match form.contains_key("time") {
            true => ("vector", vec![number("time")]),
            false => {
                let times = (number("start")..=number("end")).step_by(number("step") as usize);
                ("matrix", times.collect())
            }
        };
        let times: Vec<i64> = times.into_iter().filter(|t| *t >= begun).collect();
        // Series of the second host came while init was asking.
        let hosts = match query.contains("MemTotal") {
            true => vec!["a", "late"],
            false => vec!["a"],
        };
        let series = hosts.into_iter().map(|host| {
            let metric = json!({"instance": host, "job": "node"});
            match kind {
                "vector" => json!({"metric": metric, "value": [times.first(), "1"]}),
                _ => {
                    let values: Vec<Value> = times.iter().map(|t| json!([t, "1"])).collect();
                    json!({"metric": metric, "values": values})
                }
            }
        });
        let result: Vec<Value> = match is_empty || !is_node || times.is_empty() {
            true => Vec::new(),
            false => series.collect(),
        };
        ResponseTemplate::new(200).set_body_json(
            json!({"status": "success", "data": {"resultType": kind, "result": result}}),
        )
    };
    let server = MockServer::start().await;
    Mock::given(path_regex("^/api/v1/query(_range)?$"))
        .respond_with(one_and_a_half_minutes)
        .mount(&server)
        .await;
    let dir = tempfile::tempdir().expect("a temporary folder");
    let url = server.uri();
    let output = run(dir.path(), &["init", "--prometheus.url", &url]);
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    for part in [
        "targets  1, of job node",
        "This Prometheus is young: it has these targets since ",
        "(models/default)",
        "in the last ",
        "no data yet: counters need two scrapes within the rate window",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    for part in [
        "2 of 1",
        "cpu_usage            0 of 1                -  left out: its query",
    ] {
        assert!(!text.contains(part), "{part:?} in {text}");
    }
    let since = text
        .split("it has these targets since ")
        .nth(1)
        .expect("when");
    let since = since.split(',').next().expect("a time");
    let since = forewarn::time::parse_time(since, forewarn::time::Timestamp(0));
    let since = since.expect("a time").0 / 1000;
    assert!((begun..=begun + 60).contains(&since), "{since} {begun}");
    let config = fs::read_to_string(dir.path().join("config.yaml")).expect("a text");
    assert!(config.contains("# This Prometheus is young"), "{config}");
    assert!(
        config.contains("no data yet: counters need two"),
        "{config}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_init_cannot_do_is_said() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let empty = MockServer::start().await;
    let nothing = |_: &Request| {
        ResponseTemplate::new(200).set_body_json(
            json!({"status": "success", "data": {"resultType": "vector", "result": []}}),
        )
    };
    Mock::given(path_regex("^/api/v1/query$"))
        .respond_with(nothing)
        .mount(&empty)
        .await;
    let url = empty.uri();
    fs::write(dir.path().join("none.yaml"), "signals: {}\n").expect("a file");
    fs::write(
        dir.path().join("bad.yaml"),
        "\n\nprometheus: {colour: red}\n",
    )
    .expect("a file");
    for (args, code, part) in [
        (
            vec!["--prometheus.url", "http://127.0.0.1:1"],
            1,
            "failed to reach Prometheus",
        ),
        (
            vec!["--prometheus.url", "ftp://x"],
            2,
            "prometheus.url: \"ftp://x\"",
        ),
        (
            vec!["--prometheus.url", &url],
            1,
            "nothing that a preset knows is scraped",
        ),
        (
            vec!["--prometheus.url", &url, "--preset", "nginx"],
            1,
            "nginx_up returns no series",
        ),
        (vec!["--preset", "cobol"], 2, "use one of node, kubernetes,"),
        (
            vec!["--prometheus.config", "none.yaml"],
            2,
            "has no section prometheus",
        ),
        (
            vec!["--prometheus.config", "gone.yaml"],
            1,
            "gone.yaml: No such file",
        ),
        (
            vec!["--prometheus.config", "bad.yaml"],
            2,
            "bad.yaml:3: prometheus.colour: is not a known key",
        ),
        (
            vec!["--prometheus.username", "a"],
            2,
            "--prometheus.password-file",
        ),
    ] {
        let output = run(dir.path(), &[vec!["init"], args.clone()].concat());
        let text = said(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        assert!(text.contains(part), "{args:?}: {text}");
    }
    assert!(!dir.path().join("config.yaml").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn check_queries_says_why_a_query_is_empty_and_what_does_not_fit() {
    let server = prometheus().await;
    let dir = tempfile::tempdir().expect("a temporary folder");
    let config = format!(
        "prometheus: {{url: '{}'}}\nsignals:\n  good: {{query: one, unit: percent}}\n  gone: {{query: absent_metric, unit: none}}\n  filtered: {{query: 'node_load5{{job=\"other\"}}', unit: none}}\n  never: {{query: 'rate(one[5m]) > 0', unit: none}}\nfailure: {{queries: [up == 0, absent_metric]}}\n",
        server.uri()
    );
    fs::write(dir.path().join("config.yaml"), config).expect("a file");
    let output = run(dir.path(), &["check", "queries"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in [
        "signals.gone.query returns nothing: no series absent_metric in the last 2h: is its exporter scraped",
        "signals.filtered.query returns nothing: job=\"other\" matches none of the 1 series node_load5: job is \"node\"",
        "signals.never.query returns nothing: all series that it reads are there",
        "twice the scrape interval",
        "warning: failure.queries[1]: no series absent_metric",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    assert!(
        !text.contains("failure.queries[0]: "),
        "it may well never have held: {text}"
    );
    let table: Vec<&str> = text.lines().take(7).collect();
    assert!(
        table[0].starts_with("query               series  targets"),
        "{text}"
    );
    assert!(
        table[1].starts_with("good                     1        1    0.0 %  "),
        "{text}"
    );
    assert!(table[1].ends_with("  1 %"), "{text}");
    let output = run(dir.path(), &["check", "queries", "--output", "json"]);
    let rows: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(rows[0]["signal"], "good");
    assert_eq!(rows[0]["targets"], 1);
    assert_eq!(rows[0]["missing"], "0.0 %");
    assert_eq!(rows[0]["last_value"], "1.0000");
    assert_eq!(rows[0]["unit"], "percent");
    assert_eq!(rows[0]["advice"], json!([]));
    assert_eq!(rows[1]["advice"].as_array().map(Vec::len), Some(1));
    assert_eq!(rows[4]["signal"], "failure.queries[0]");
}

#[test]
fn getting_started_md_names_what_the_presets_have() {
    let page = fs::read_to_string("docs/getting-started.md").expect("a page");
    for preset in presets::all() {
        let names = |names: Vec<&str>| names.join(", ");
        let signals = preset.signals.iter().map(|s| s.name.as_str()).collect();
        let failures = |active| {
            let failures = preset.failures.iter().filter(|f| f.active == active);
            names(failures.map(|f| f.name.as_str()).collect())
        };
        let row = format!(
            "| `{}` | {} | {} | {} | {} | {} |\n",
            preset.name,
            preset.title,
            preset.label.join("/"),
            names(signals),
            failures(true),
            failures(false)
        );
        assert!(page.contains(&row), "docs/getting-started.md lacks {row}");
    }
}
