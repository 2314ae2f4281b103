use std::collections::HashMap;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use forewarn::artifact;
use forewarn::models;

use super::bad_input::{CONFIG, NOWHERE, Place, Serving, prometheus};

/// The shared model is there as `default`; the shipped one stands beside it.
fn place() -> Place {
    let place = Place::new();
    let shipped = artifact::open(Path::new("models/default")).expect("the shipped model");
    let other = place.path().join("models/other");
    artifact::write(&shipped, &other, "", None, &json!({})).expect("a model");
    place
}

fn promote(place: &Place, name: &str) {
    models::promote(&place.path().join("models"), name).expect("the model can be promoted");
}

async fn model(serving: &Serving) -> String {
    let (_, answer) = serving.get("/api/v1/model").await;
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    answer["model_id"].as_str().unwrap_or_default().into()
}

async fn reload(serving: &Serving) -> (u16, String) {
    let request = reqwest::Client::new().post(format!("{}/-/reload", serving.url));
    let answer = request.send().await.expect("an answer");
    let status = answer.status().as_u16();
    (status, answer.text().await.expect("a body"))
}

async fn metric(serving: &Serving, line: &str) -> bool {
    let (_, metrics) = serving.get("/metrics").await;
    metrics.lines().any(|l| l == line)
}

async fn until<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

const NEVER: &str = "--config.auto-reload-interval 0s --web.enable-lifecycle";
const CONFIG_GOOD: &str = "forewarn_config_last_reload_successful 1";
const CONFIG_BAD: &str = "forewarn_config_last_reload_successful 0";
const MODEL_BAD: &str = "forewarn_model_last_reload_successful 0";

#[tokio::test]
async fn a_reload_takes_config_and_model_or_leaves_both() {
    let place = place();
    let server = prometheus(|| None, 1).await;
    let serving = place.serve_with(&server.uri(), NEVER).await;
    serving.until("/-/ready", 200).await;
    let first = model(&serving).await;

    place.write("config.yaml", &format!("{CONFIG}\nsurprise: 1\n"));
    promote(&place, "other");
    let (status, answer) = reload(&serving).await;
    assert_eq!(status, 500, "{answer}");
    assert!(answer.contains("surprise: is not a known key"), "{answer}");
    assert!(metric(&serving, CONFIG_BAD).await);
    assert_eq!(model(&serving).await, first);
    assert!(
        place
            .log()
            .contains("not reloaded, everything stays as it was")
    );

    place.write(
        "config.yaml",
        &format!(
            "{CONFIG}\nrisk_levels: {{low: 0.00001, medium: 0.00002, high: 0.00003, critical: 0.00004}}\n"
        ),
    );
    let (status, answer) = reload(&serving).await;
    assert_eq!(status, 200, "{answer}");
    let second = model(&serving).await;
    assert_ne!(first, second);
    assert!(answer.contains(&second), "{answer}");
    assert!(metric(&serving, CONFIG_GOOD).await);
    let (_, prediction) = serving.predict().await;
    assert_eq!(prediction["model_id"], second);
    assert_eq!(prediction["failure_risk"], "CRITICAL", "{prediction}");
    let (_, targets) = serving.get("/api/v1/targets").await;
    assert!(targets.contains("\"target\":\"a\""), "{targets}");

    let first_in_shadow = format!("{CONFIG}\nmodel: {{shadow: default}}\n");
    place.write("config.yaml", &first_in_shadow);
    assert_eq!(serving.get("/api/v1/shadow").await.0, 404);
    let (status, answer) = reload(&serving).await;
    assert_eq!(status, 200, "{answer}");
    let (_, shadow) = serving.get("/api/v1/shadow").await;
    assert!(
        shadow.contains(&format!("\"model_id\":\"{first}\"")),
        "{shadow}"
    );
    assert!(
        metric(
            &serving,
            &format!("forewarn_shadow_info{{model_id=\"{first}\"}} 1")
        )
        .await
    );

    for (text, part) in [
        (format!("{CONFIG}\nmodel: {{shadow: nobody}}\n"), "nobody"),
        (
            CONFIG.replace("horizon: 30m", "horizon: 20m"),
            "does not fit the config: horizon is 30m in the model and 20m in the config",
        ),
        (
            format!("{CONFIG}\nstate: {{retention: 2d}}\n"),
            "state has changed, which takes effect at a restart only",
        ),
    ] {
        place.write("config.yaml", &text);
        let (status, answer) = reload(&serving).await;
        assert_eq!(status, 500, "{answer}");
        assert!(answer.contains(part), "{answer}");
    }
    place.write("config.yaml", CONFIG);
    let manifest = place.path().join("models/other/manifest.json");
    fs::write(&manifest, "{}").expect("the folder can be written to");
    let (status, answer) = reload(&serving).await;
    assert_eq!(status, 500, "{answer}");
    assert!(answer.contains("is not a model manifest"), "{answer}");
    assert!(metric(&serving, MODEL_BAD).await);
    assert_eq!(model(&serving).await, second);
    serving.stop();
}

#[tokio::test]
async fn sighup_reloads_and_the_route_is_off_by_default() {
    let place = place();
    let serving = place
        .serve_with(NOWHERE, "--config.auto-reload-interval 0s")
        .await;
    let first = model(&serving).await;
    promote(&place, "other");
    let (status, answer) = reload(&serving).await;
    assert_eq!(status, 403, "{answer}");
    assert!(answer.contains("--web.enable-lifecycle"), "{answer}");
    assert_eq!(model(&serving).await, first);
    serving.signal("HUP");
    until("SIGHUP reloads", async || model(&serving).await != first).await;
    serving.stop();
}

#[tokio::test]
async fn what_changes_on_disk_is_taken_up_without_being_asked() {
    let place = place();
    let shared = place.path().join("models/default");
    let away = place.path().join("models/.away");
    fs::rename(&shared, &away).expect("a rename");
    let serving = place
        .serve_with(NOWHERE, "--config.auto-reload-interval 1s")
        .await;
    assert_eq!(serving.predict().await.0, 503);
    fs::rename(&away, &shared).expect("a rename");
    until("the model that came is served", async || {
        serving.predict().await.0 == 200
    })
    .await;
    let first = model(&serving).await;
    promote(&place, "other");
    until("the promoted model is served", async || {
        model(&serving).await != first
    })
    .await;
    // As a ConfigMap changes: the name leads to another file.
    place.write(
        "next.yaml",
        &format!(
            "{CONFIG}\nrisk_levels: {{low: 0.00001, medium: 0.00002, high: 0.00003, critical: 0.00004}}\n"
        ),
    );
    let (config, link) = (place.path().join("config.yaml"), place.path().join("link"));
    std::os::unix::fs::symlink("next.yaml", &link).expect("a link");
    fs::rename(&link, &config).expect("a rename");
    until("the changed config is taken up", async || {
        serving.predict().await.1["failure_risk"] == "CRITICAL"
    })
    .await;
    serving.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_swapped_under_load_and_no_request_is_lost() {
    let place = place();
    let server = prometheus(|| None, 1).await;
    let serving = Arc::new(place.serve_with(&server.uri(), NEVER).await);
    serving.until("/-/ready", 200).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let mut clients = Vec::new();
    for n in 0..4 {
        let (serving, is_over, answered) = (serving.clone(), is_over.clone(), answered.clone());
        clients.push(tokio::spawn(async move {
            let client = reqwest::Client::new();
            let mut by_model: HashMap<String, Vec<f64>> = HashMap::new();
            while !is_over.load(Ordering::Relaxed) {
                let request = client
                    .post(format!("{}/predict", serving.url))
                    .header("content-type", "application/json")
                    .body(match n % 2 {
                        0 => r#"{"cpu_usage": 40, "memory_usage": 97}"#,
                        _ => r#"{"cpu_usage": 40, "memory_usage": 97, "target": "a"}"#,
                    });
                let answer = request.send().await.expect("an answer");
                let status = answer.status();
                let text = answer.text().await.expect("a whole body");
                assert_eq!(status, 200, "{text}");
                let answer: Value = serde_json::from_str(&text).expect("JSON");
                let id = answer["model_id"].as_str().expect("an id").to_string();
                let probability = answer["failure_probability"].as_f64().expect("a number");
                if n % 2 == 0 {
                    by_model.entry(id).or_default().push(probability);
                }
                answered.fetch_add(1, Ordering::Relaxed);
            }
            by_model
        }));
    }
    for n in 0..12 {
        promote(&place, if n % 2 == 0 { "other" } else { "default" });
        let before = answered.load(Ordering::Relaxed);
        let (status, answer) = reload(&serving).await;
        assert_eq!(status, 200, "{answer}");
        until("requests go on", async || {
            answered.load(Ordering::Relaxed) > before + 20
        })
        .await;
    }
    is_over.store(true, Ordering::Relaxed);
    let mut by_model: HashMap<String, Vec<f64>> = HashMap::new();
    for client in clients {
        for (id, probabilities) in client.await.expect("no request was lost") {
            by_model.entry(id).or_default().extend(probabilities);
        }
    }
    assert_eq!(by_model.len(), 2);
    for (id, probabilities) in by_model {
        let first = probabilities[0];
        assert!(
            probabilities.iter().all(|p| (p - first).abs() < 1e-3),
            "{id} answers as another model"
        );
    }
}

/// What systemd is told until a message contains `part`.
fn told(socket: &UnixDatagram, part: &str) -> String {
    let mut heard = String::new();
    let mut message = [0; 4096];
    while !heard.contains(part) {
        let length = socket
            .recv(&mut message)
            .unwrap_or_else(|error| panic!("no {part} ({error}) after {heard}"));
        heard.push_str(&String::from_utf8_lossy(&message[..length]));
    }
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_is_told_how_it_stands() {
    let place = place();
    let socket = UnixDatagram::bind(place.path().join("notify")).expect("a socket");
    let patience = Some(Duration::from_secs(30));
    socket.set_read_timeout(patience).expect("a timeout");
    let mut command = place.command(NOWHERE, "serve --web.listen-address 127.0.0.1:0");
    command
        .env("NOTIFY_SOCKET", place.path().join("notify"))
        .env("WATCHDOG_USEC", "200000")
        .stderr(Stdio::null());
    let mut process = command.spawn().expect("forewarn runs");
    let signal = |name: &str| {
        let id = process.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status();
        assert!(status.is_ok_and(|status| status.success()));
    };
    told(&socket, "READY=1");
    told(&socket, "WATCHDOG=1");
    signal("HUP");
    let heard = told(&socket, "RELOADING=1");
    assert!(heard.contains("MONOTONIC_USEC="), "{heard}");
    told(&socket, "READY=1");
    signal("TERM");
    told(&socket, "STOPPING=1");
    assert!(process.wait().is_ok_and(|status| status.success()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_training_that_fails_is_told_and_changes_nothing() {
    let place = place();
    let scheduled = CONFIG.replace("train:\n", "train:\n  schedule: 1h\n");
    place.write("config.yaml", &scheduled);
    let serving = place.serve_with(NOWHERE, "").await;
    let failed = "forewarn_trainings_total{result=\"failed\"} 1";
    until("the training fails", async || {
        metric(&serving, failed).await
    })
    .await;
    let log = place.log();
    assert!(
        log.contains("scheduled training failed, the served model stays"),
        "{log}"
    );
    assert!(log.contains("failed to reach Prometheus"), "{log}");
    assert_eq!(serving.predict().await.0, 200);
    serving.stop();
}
