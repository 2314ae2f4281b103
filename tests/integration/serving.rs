use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use http_body_util::BodyExt;
use hyper::{Request, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;
use wiremock::MockServer;

use forewarn::assessment::Snapshot;
use forewarn::bundle::Bundle;
use forewarn::config::Config;
use forewarn::evaluation::events::{Scored, Track, tally};
use forewarn::evaluation::{AlarmRule, Rows};
use forewarn::fetch::{self, Purpose};
use forewarn::history::History;
use forewarn::labels::RowLabel;
use forewarn::learning;
use forewarn::metrics::{Format, Metrics, ModelCard};
use forewarn::prometheus::Client;
use forewarn::runner::{Models, Runner};
use forewarn::scoreboard::MIN_OUTCOMES;
use forewarn::server::{self, App, Serving};
use forewarn::state::{ActionRecord, IncidentRecord, Store};
use forewarn::time::Timestamp;
use forewarn::training;
use forewarn::types::{Shard, Source, TargetId, TargetState};
use forewarn::webhook::OwnAlerts;

use super::fleet::{MINUTES, ORIGIN, bundle, config, history};
use super::upstream::{
    AHEAD, BEHIND, DOWN, DUPLICATES, FAILURE_QUERY_REFUSED, FLAPPING, FLOOD, GOOD, HANGING,
    MEMORY_QUERY_HANGING, MEMORY_QUERY_REFUSED, PARTIAL, Prometheus, RELABELED,
};

static NOW: AtomicI64 = AtomicI64::new(ORIGIN.0);

const COMPARED: &str = "a_score_of_others";

struct World {
    app: Arc<App>,
    runner: Runner,
    prometheus: Prometheus,
    _server: MockServer,
    _state: TempDir,
}

impl World {
    async fn new() -> Self {
        Self::with(config()).await
    }

    async fn with(config: Config) -> Self {
        Self::of(config, Shard::WHOLE).await
    }

    async fn of(mut config: Config, shard: Shard) -> Self {
        let server = MockServer::start().await;
        let state = tempfile::tempdir().expect("a temporary folder");
        config.prometheus.url = server.uri();
        config.state.path = state.path().into();
        // Only training and backtests may ask for it.
        config.compare = [("rule".into(), COMPARED.into())].into();
        config.prometheus.timeout = config.prometheus.timeout.min(Duration::from_secs(5));
        let config = Arc::new(config);
        let prometheus = Prometheus::new(&config, history());
        prometheus.mount(&server).await;
        let store =
            Store::open(state.path(), config.state.retention).expect("the state can be opened");
        let metrics = Metrics::new(ORIGIN).expect("the metrics are valid");
        let mut app = App::new(config.clone(), metrics, Some(store), || {
            Timestamp(NOW.load(Ordering::Relaxed))
        });
        app.shard = shard;
        app.serving.store(Arc::new(Serving {
            config,
            model: Some(bundle()),
            snapshot: None,
        }));
        let app = Arc::new(app);
        let runner = runner(&app);
        Self {
            app,
            runner,
            prometheus,
            _server: server,
            _state: state,
        }
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        let snapshot = self.app.serving.load().snapshot.clone();
        snapshot.expect("a cycle has run")
    }

    fn state(&self, target: &TargetId) -> Option<TargetState> {
        let snapshot = self.snapshot();
        let mut assessments = snapshot.assessments.iter();
        assessments.find(|a| a.target == *target).map(|a| a.state)
    }

    /// The target's stored incidents since `n`, newest first.
    fn incidents(&self, target: &TargetId, n: usize) -> Vec<IncidentRecord> {
        let store = self.app.store.as_ref().expect("state is on");
        let mut incidents = store
            .incidents(minute(n), Timestamp(i64::MAX), 1000)
            .expect("the state can be read");
        incidents.retain(|incident| incident.target == *target);
        incidents
    }

    fn mode(&self, mode: u8) {
        self.prometheus.mode.store(mode, Ordering::Relaxed);
    }

    fn states(&self) -> HashMap<TargetState, usize> {
        let snapshot = self.snapshot();
        let mut states = HashMap::new();
        for assessment in &snapshot.assessments {
            *states.entry(assessment.state).or_default() += 1;
        }
        states
    }

    fn metrics(&self) -> String {
        let card = ModelCard::of(&bundle());
        let snapshot = self.app.serving.load().snapshot.clone();
        let metrics = &self.app.metrics;
        metrics
            .render(snapshot, Some(&card), Format::Text)
            .collect()
    }

    async fn get(&self, route: &str) -> Value {
        let request = Request::get(route).body(Body::empty());
        self.send(request.expect("a request")).await.1
    }

    async fn post(&self, route: &str, content_type: &str, body: String) -> (StatusCode, Value) {
        let request = Request::post(route)
            .header("content-type", content_type)
            .body(Body::from(body))
            .expect("a request");
        self.send(request).await
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, Value) {
        let answer = server::router(self.app.clone())
            .oneshot(request)
            .await
            .expect("an answer");
        let status = answer.status();
        let bytes = answer
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        (
            status,
            serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        )
    }
}

/// As after a start with the state that is there.
fn runner(app: &Arc<App>) -> Runner {
    runner_with(app, None)
}

fn runner_with(app: &Arc<App>, shadow: Option<Arc<Bundle>>) -> Runner {
    let config = app.serving.load().config.clone();
    let models = Models {
        served: bundle(),
        shadow,
    };
    Runner::new(app.clone(), config, models).expect("a runner")
}

fn minute(n: usize) -> Timestamp {
    history().time(n)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cycle_scores_at_once_and_asks_for_no_point_twice() {
    let mut world = World::new().await;
    for n in [3000, 3001, 3002, 3005, 3006] {
        world.runner.cycle(minute(n)).await;
        let snapshot = world.snapshot();
        assert_eq!(snapshot.at, minute(n));
        assert_eq!(snapshot.assessments.len(), history().targets().len());
    }
    assert!(world.states()[&TargetState::Ok] > 6, "{:?}", world.states());
    let asked = world.prometheus.asked.lock().expect("no test panicked");
    for (query, points) in asked.iter() {
        let mut once = points.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(
            once.len(),
            points.len(),
            "{query} was asked for a point twice"
        );
        let step = if query.starts_with("marks") {
            3_600_000
        } else {
            60_000
        };
        assert_eq!(
            (once.last().expect("points") - once[0]) / step + 1,
            once.len() as i64,
            "{query} has a hole"
        );
        if let Some(steps) = query.strip_prefix("marks of ") {
            let (last, first_step) = (once[once.len() - 1], asked[steps][0]);
            assert!(
                (first_step - step..first_step).contains(&last),
                "{query} end at {last}, the steps begin at {first_step}"
            );
        }
    }
    assert!(!asked.contains_key(COMPARED));
    drop(asked);
    let metrics = world.metrics();
    for line in [
        "forewarn_cycles_total 5",
        "forewarn_prometheus_up 1",
        "failure_probability{target=\"shop-01\",service=\"s\"}",
    ] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_score_the_same_and_shards_together_score_what_one_scores() {
    async fn scores(shard: Shard) -> BTreeMap<String, Option<f64>> {
        let mut world = World::of(config(), shard).await;
        world.runner.cycle(minute(3000)).await;
        world.runner.cycle(minute(3001)).await;
        let snapshot = world.snapshot();
        let scored = snapshot.assessments.iter().map(|a| {
            let probability = a.risk.as_ref().map(|risk| risk.probability);
            (a.target.to_string(), probability)
        });
        scored.collect()
    }
    let whole = scores(Shard::WHOLE).await;
    assert_eq!(scores(Shard::WHOLE).await, whole);
    let mut together = BTreeMap::new();
    for index in 0..3 {
        let shard = Shard::new(index, 3).expect("an index below the count");
        let part = scores(shard).await;
        assert!(part.len() < whole.len());
        together.extend(part);
    }
    assert_eq!(together, whole);

    let shard = Shard::new(0, 3).expect("an index below the count");
    let mut world = World::of(config(), shard).await;
    world.runner.cycle(minute(3000)).await;
    let other = whole.keys().find(|target| !shard.owns(target));
    let body = json!({"cpu_usage": 20, "target": other}).to_string();
    let (status, answer) = world.post("/predict", "application/json", body).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let text = answer.to_string();
    assert!(
        text.contains("belongs to the forewarn with --shard.index"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_refused_query_stops_no_cycle() {
    let mut world = World::new().await;
    world.mode(MEMORY_QUERY_REFUSED);
    world.runner.cycle(minute(3000)).await;
    assert!(world.states()[&TargetState::Ok] > 6, "{:?}", world.states());
    assert!(
        world
            .metrics()
            .contains("forewarn_queries_total{result=\"bad_query\"} 3"),
        "twice for the window and once for the marks"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_prometheus_makes_targets_stale_and_ends_by_itself() {
    let mut world = World::new().await;
    world.runner.cycle(minute(3000)).await;
    world.mode(DOWN);
    world.runner.cycle(minute(3001)).await;
    assert_eq!(
        world.states(),
        HashMap::from([(TargetState::Stale, history().targets().len())])
    );
    let metrics = world.metrics();
    assert!(metrics.contains("forewarn_prometheus_up 0"));
    assert!(
        !metrics
            .lines()
            .any(|line| line.starts_with("failure_probability{")),
        "a stale target has no probability"
    );
    let (status, answer) = world
        .post(
            "/predict",
            "application/json",
            json!({"cpu_usage": 20}).to_string(),
        )
        .await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    world.mode(GOOD);
    world.runner.cycle(minute(3002)).await;
    assert!(world.states()[&TargetState::Ok] > 6, "{:?}", world.states());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prometheus_that_hangs_is_given_up_after_the_first_queries() {
    let mut config = config();
    let timeout = Duration::from_secs(2);
    (config.prometheus.timeout, config.prometheus.concurrency) = (timeout, 2);
    let mut world = World::with(config).await;
    world.runner.cycle(minute(3000)).await;
    world.mode(HANGING);
    let began = Instant::now();
    world.runner.cycle(minute(3001)).await;
    let took = began.elapsed();
    // Eight queries, two at once: four times twice the timeout if each is waited for.
    assert!(took < 3 * timeout, "{took:?}");
    assert_eq!(
        world.states(),
        HashMap::from([(TargetState::Stale, history().targets().len())])
    );
    let metrics = world.metrics();
    assert!(metrics.contains("forewarn_prometheus_up 0"));
    assert!(metrics.contains("forewarn_queries_total{result=\"timeout\"} 2"));
    world.mode(GOOD);
    world.runner.cycle(minute(3002)).await;
    assert!(world.states()[&TargetState::Ok] > 6, "{:?}", world.states());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_hangs_alone_takes_no_other_with_it() {
    let mut config = config();
    config.prometheus.timeout = Duration::from_secs(1);
    let mut world = World::with(config).await;
    world.mode(MEMORY_QUERY_HANGING);
    world.runner.cycle(minute(3000)).await;
    assert!(world.states()[&TargetState::Ok] > 6, "{:?}", world.states());
    let metrics = world.metrics();
    assert!(metrics.contains("forewarn_queries_total{result=\"timeout\"} 3"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_flaps_or_has_another_clock_is_understood() {
    let mut world = World::new().await;
    world.runner.cycle(minute(3000)).await;
    let targets = world.states().values().sum::<usize>();
    for (n, mode) in [FLAPPING, AHEAD, BEHIND, RELABELED, PARTIAL]
        .into_iter()
        .enumerate()
    {
        world.mode(mode);
        world.runner.cycle(minute(3001 + n)).await;
        let snapshot = world.snapshot();
        assert_eq!(snapshot.at, minute(3001 + n));
        for assessment in &snapshot.assessments {
            let live = assessment.live.read();
            let recorded = history().target(&assessment.target).expect("a target");
            let expected = Some(recorded.column(0)[3001 + n]).filter(|value| !value.is_nan());
            assert_eq!(
                live.window().get(0, 0),
                expected,
                "{mode} {}",
                assessment.target
            );
        }
        assert_eq!(world.states().values().sum::<usize>(), targets);
    }
    let metrics = world.metrics();
    assert!(metrics.contains("service=\"s\"}"));
    assert!(
        !metrics.contains("forewarn_query_warnings_total 0"),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_beyond_the_bound_are_left_out_and_counted() {
    let mut world = World::new().await;
    world.runner.cycle(minute(3000)).await;
    let names = |world: &World| -> Vec<TargetId> {
        let snapshot = world.snapshot();
        snapshot
            .assessments
            .iter()
            .map(|a| a.target.clone())
            .collect()
    };
    let all = names(&world);

    let mut config = config();
    config.targets.max = 5;
    let mut world = World::with(config).await;
    for n in 3000..3003 {
        world.runner.cycle(minute(n)).await;
        assert_eq!(names(&world), all[..5], "{n}");
        let line = format!("forewarn_left_out{{what=\"targets\"}} {}", all.len() - 5);
        let metrics = world.metrics();
        let left_out: Vec<&str> = metrics
            .lines()
            .filter(|line| line.starts_with("forewarn_left_out{what=\"targets\""))
            .collect();
        assert_eq!(left_out, [line], "{n}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_series_is_refused_and_the_cycle_goes_on() {
    let mut world = World::new().await;
    world.runner.cycle(minute(3000)).await;
    let targets = world.states().values().sum::<usize>();
    world.mode(FLOOD);
    world.runner.cycle(minute(3001)).await;
    assert!(world.states()[&TargetState::Ok] > 6, "{:?}", world.states());
    assert_eq!(world.states().values().sum::<usize>(), targets);
    let metrics = world.metrics();
    assert!(metrics.contains("forewarn_queries_total{result=\"too_large\"} 1"));
    let config = world.app.serving.load().config.clone();
    let fetched = fetch::fetch(
        &Client::new(&config.prometheus).expect("a client"),
        &config,
        &OwnAlerts::default(),
        Purpose::Serving(Shard::WHOLE),
        (minute(3002), minute(3002), Duration::from_secs(60)),
        |_, _| (),
    )
    .await;
    assert_eq!(
        fetched.report.failures(),
        [
            "signals.cpu_usage.query: the answer of Prometheus exceeds 250000 series; narrow the query or aggregate in it"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicate_series_count_as_missing() {
    let mut world = World::new().await;
    world.mode(DUPLICATES);
    world.runner.cycle(minute(3000)).await;
    let snapshot = world.snapshot();
    let tracker = snapshot.assessments[0].live.read();
    let window = tracker.window();
    assert_eq!(
        window.get(0, 0),
        None,
        "neither of two series is known to be right"
    );
    assert!(window.get(1, 0).is_some());
    assert!(world.states()[&TargetState::Ok] > 6, "{:?}", world.states());
}

#[tokio::test(flavor = "multi_thread")]
async fn incidents_are_recorded_and_survive_a_restart_of_the_runner() {
    let mut world = World::new().await;
    let (target, start) = first_failure(history(), 2000);
    for n in start - 2..start + 3 {
        world.runner.cycle(minute(n)).await;
    }
    let snapshot = world.snapshot();
    let failing = snapshot
        .assessments
        .iter()
        .find(|a| a.target == target)
        .expect("the target is there");
    assert_eq!(failing.state, TargetState::Failing);
    assert!(
        failing.risk.is_none(),
        "a failing target has no probability"
    );
    let store = world.app.store.clone().expect("state is on");
    let stored = |at| {
        store
            .incidents(minute(0), at, 100)
            .expect("the state can be read")
    };
    let incident = stored(minute(start + 3))
        .into_iter()
        .find(|i| i.target == target && i.start == minute(start));
    assert_eq!(incident.expect("the incident is stored").end, None);
    assert!(
        world
            .metrics()
            .contains("forewarn_incidents_total{source=\"query\"} 1")
    );

    world.runner = runner(&world.app);
    world.runner.cycle(minute(start + 4)).await;
    let same: Vec<_> = stored(minute(start + 5))
        .into_iter()
        .filter(|i| i.target == target && i.start == minute(start))
        .collect();
    assert_eq!(same.len(), 1, "the incident is counted once");
}

fn first_failure(history: &History, from: usize) -> (TargetId, usize) {
    let starts = history
        .targets()
        .into_iter()
        .filter_map(|(target, recorded)| {
            (from..history.steps())
                .find(|&i| {
                    recorded.steps[i].failing.is_some() && recorded.steps[i - 1].failing.is_none()
                })
                .map(|i| (target.clone(), i))
        });
    starts.min_by_key(|(_, i)| *i).expect("something fails")
}

#[tokio::test(flavor = "multi_thread")]
async fn predict_answers_with_and_without_history() {
    let mut world = World::new().await;
    world.runner.cycle(minute(3000)).await;
    NOW.store(minute(3001).0, Ordering::Relaxed);
    let body = json!({"cpu_usage": 35, "memory_usage": 50, "disk_usage": 40, "network_latency_ms": 20, "error_count": 0, "response_time_ms": 150, "active_connections": 80});
    let ask = |body: Value| {
        world.post(
            "/predict?explain=true",
            "application/json",
            body.to_string(),
        )
    };
    let (status, alone) = ask(body.clone()).await;
    assert_eq!(status, StatusCode::OK, "{alone}");
    assert_eq!(
        (alone["history"].as_str(), alone["model_origin"].as_str()),
        (Some("none"), Some("simulated"))
    );
    assert_eq!(alone["models"].as_object().map(|m| m.len()), Some(3));
    let probability = alone["failure_probability"].as_f64().expect("a number");
    assert!((0.0..=1.0).contains(&probability));
    assert_eq!(
        alone["confidence"].as_f64(),
        Some((probability.max(1.0 - probability) * 1000.0).round() / 1000.0)
    );
    assert!(!alone["reasons"].as_array().expect("reasons").is_empty());

    let mut with_history = body.clone();
    with_history["history"] = Value::from(vec![body.clone(); 60]);
    assert_eq!(ask(with_history).await.1["history"], "request");
    let snapshot = world.snapshot();
    let target = &snapshot
        .assessments
        .iter()
        .find(|a| a.state == TargetState::Ok)
        .expect("a healthy target")
        .target;
    let mut live = body.clone();
    live["target"] = Value::from(target.as_str());
    assert_eq!(ask(live).await.1["history"], "live");

    let batch = |n: usize| Value::from(vec![body.clone(); n]).to_string();
    let (status, answers) = world
        .post("/predict/batch", "application/json", batch(1000))
        .await;
    assert_eq!(
        (status, answers.as_array().map(Vec::len)),
        (StatusCode::OK, Some(1000))
    );
    assert_eq!(
        answers[999]["failure_probability"],
        alone["failure_probability"]
    );
    for (rows, text) in [(0, "1 to 1000"), (1001, "1001")] {
        let (status, problem) = world
            .post("/predict/batch", "application/json", batch(rows))
            .await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(problem.to_string().contains(text), "{problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shap_is_answered_on_demand_with_and_without_history() {
    let world = World::new().await;
    NOW.store(minute(3001).0, Ordering::Relaxed);
    let body = json!({"cpu_usage": 95, "memory_usage": null, "disk_usage": 40, "network_latency_ms": 20, "error_count": 9, "response_time_ms": 950, "active_connections": 80});
    let mut with_history = body.clone();
    with_history["history"] = Value::from(vec![body.clone(); 60]);
    for body in [body.clone(), with_history] {
        let ask = async |explain: &str| {
            let route = format!("/predict?explain={explain}");
            world
                .post(&route, "application/json", body.to_string())
                .await
        };
        let (shap, paths) = (ask("shap").await, ask("true").await);
        assert_eq!(shap.0, StatusCode::OK, "{}", shap.1);
        assert_eq!(
            shap.1["failure_probability"],
            paths.1["failure_probability"]
        );
        assert!(!shap.1["reasons"].as_array().expect("reasons").is_empty());
        assert_ne!(shap.1["reasons"], paths.1["reasons"]);
    }
    for (rows, status) in [
        (100, StatusCode::OK),
        (101, StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        let batch = Value::from(vec![body.clone(); rows]).to_string();
        let route = "/predict/batch?explain=shap";
        let (found, answer) = world.post(route, "application/json", batch).await;
        assert_eq!(found, status, "{answer}");
        if rows > 100 {
            let text = answer.to_string();
            assert!(
                text.contains("101 rows; with explain=shap it has at most 100"),
                "{text}"
            );
        } else {
            assert!(
                !answer[99]["reasons"]
                    .as_array()
                    .expect("reasons")
                    .is_empty()
            );
        }
    }
}

/// One explanation, everywhere: the API, the metrics and, through those, the alert's text.
#[tokio::test(flavor = "multi_thread")]
async fn the_reasons_of_a_risky_target_are_published() {
    let replay = training::replay(history(), &learning::plan(&config()), &|_, _| ());
    let scores = bundle().score_rows(&replay.features);
    let probability = |target: &training::TargetRows, n: usize| {
        target.rows[n].map_or(0.0, |row| scores[row].ensemble)
    };
    let all = replay.targets.iter();
    let (n, target) = all
        .flat_map(|target| (1000..history().steps()).map(move |n| (n, target)))
        .max_by(|a, b| probability(a.1, a.0).total_cmp(&probability(b.1, b.0)))
        .expect("targets");
    assert!(probability(target, n) > 0.4, "{}", probability(target, n));

    let mut world = World::new().await;
    world.runner.cycle(minute(n)).await;
    let request = Request::get(format!("/api/v1/targets/{}", target.target.as_str()));
    let answer = server::router(world.app.clone())
        .oneshot(request.body(Body::empty()).expect("a request"))
        .await
        .expect("an answer");
    let bytes = answer
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    let answer: Value = serde_json::from_slice(&bytes).expect("JSON");
    let reasons = answer["reasons"].as_array().expect("reasons");
    assert_eq!(reasons.len(), 10, "{answer}");
    let metrics = world.metrics();
    for reason in &reasons[..3] {
        let of_target = format!(
            "forewarn_feature_contribution{{target=\"{}\"",
            target.target
        );
        let of_feature = format!("feature={}", reason["feature"]);
        assert!(
            metrics
                .lines()
                .any(|line| line.starts_with(&of_target) && line.contains(&of_feature)),
            "{reason} is not in the metrics"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_stored_once() {
    let world = World::new().await;
    let body = std::fs::read_to_string("tests/fixtures/alertmanager/0.25/firing-3.json")
        .expect("the fixture is there");
    for stored in [3, 0] {
        let (status, answer) = world
            .post("/webhook/alertmanager", "application/json", body.clone())
            .await;
        assert_eq!(
            (status, answer["stored"].as_u64()),
            (StatusCode::OK, Some(stored)),
            "{answer}"
        );
    }
    let (status, _) = world
        .post("/webhook/alertmanager", "application/json", "{}".into())
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_is_stored_once_and_listed() {
    let world = World::new().await;
    let body = r#"{"labels": {"instance": "shop-01"}, "id": "PD-7", "comment": "failed over"}"#;
    for stored in [1, 0] {
        let (status, answer) = world
            .post("/webhook/action", "application/json", body.into())
            .await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let expected = json!({"target": "shop-01", "time": ORIGIN.to_string(), "stored": stored,
            "duplicate": 1 - stored, "other_shard": 0});
        assert_eq!(answer, expected);
    }
    let (status, problem) = world
        .post("/webhook/action", "application/json", "{}".into())
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let detail = problem["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("names no target"), "{problem}");
    let listed = world.get("/api/v1/actions").await;
    let known = json!({"target": "shop-01", "time": ORIGIN.to_string(), "id": "PD-7", "comment": "failed over"});
    assert_eq!(listed, json!({"actions": [known]}));
    assert!(
        world
            .metrics()
            .contains("forewarn_actions_total{source=\"webhook\"} 1\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_before_the_first_prediction_is_not_watched_yet() {
    let mut world = World::new().await;
    let (target, start) = first_failure(history(), 2000);
    world.runner.cycle(minute(start + 1)).await;
    assert_eq!(world.state(&target), Some(TargetState::Failing));
    let incidents = world.incidents(&target, start);
    assert_eq!(incidents[0].verdict(), "unwatched");
    assert_eq!(world.snapshot().scoreboard.missed, 0);
    // A target that never had a prediction is not on the board, so that nothing of it is missed later either.
    world.runner.cycle(minute(start + 2)).await;
    let detail = world.get(&format!("/api/v1/targets/{target}")).await;
    for happening in detail["happenings"].as_array().expect("a list") {
        assert_eq!(happening["verdict"], "unwatched", "{detail}");
    }
    assert_eq!(world.snapshot().scoreboard.missed, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_answer_to_the_failure_query_a_target_stays_what_it_was() {
    let mut world = World::new().await;
    let (target, start) = first_failure(history(), 2000);
    for n in start - 1..start + 1 {
        world.runner.cycle(minute(n)).await;
    }
    world.mode(FAILURE_QUERY_REFUSED);
    for n in start + 1..start + 12 {
        world.runner.cycle(minute(n)).await;
        assert_eq!(world.state(&target), Some(TargetState::Failing), "{n}");
    }
    assert_eq!(world.incidents(&target, start)[0].end, None);
    assert!(world.states()[&TargetState::Ok] > 6, "{:?}", world.states());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_received_is_an_incident_that_goes_on_over_a_restart() {
    let mut config = config();
    config.failure.alerts = vec![[("severity".into(), "critical".into())].into()];
    let mut world = World::with(config).await;
    world.runner.cycle(minute(3000)).await;
    let snapshot = world.snapshot();
    let healthy = |a: &&forewarn::assessment::Assessment| a.state == TargetState::Ok;
    let found = snapshot.assessments.iter().find(healthy);
    let target = found.expect("a healthy target").target.clone();
    let alert = |name: &str, severity: &str| {
        json!({"status": "firing", "startsAt": minute(3001).to_string(), "endsAt": "0001-01-01T00:00:00Z",
            "labels": {"alertname": "Down", "severity": severity, "instance": name}})
    };
    let alerts = [
        alert(target.as_str(), "critical"),
        alert("nobody", "critical"),
        alert("shop-01", "info"),
    ];
    let body = json!({"version": "4", "alerts": alerts}).to_string();
    let (status, answer) = world
        .post("/webhook/alertmanager", "application/json", body)
        .await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    for n in 3001..3004 {
        world.runner.cycle(minute(n)).await;
    }
    assert_eq!(world.state(&target), Some(TargetState::Failing));
    assert_eq!(
        world.state(&TargetId::new("nobody")),
        None,
        "an alert alone makes no target"
    );
    let metrics = world.metrics();
    for (source, count) in [("webhook", 1), ("alerts", 0)] {
        let line = format!("forewarn_incidents_total{{source=\"{source}\"}} {count}\n");
        assert!(metrics.contains(&line), "no {line} in {metrics}");
    }
    let missed = |world: &World| {
        let snapshot = world.snapshot();
        let recent = snapshot.scoreboard.recent.clone();
        recent
            .iter()
            .filter(|o| o.target == target.as_str())
            .count()
    };
    let (before, known) = (missed(&world), world.incidents(&target, 3001));
    assert_eq!(
        (known.len(), known[0].source, known[0].start),
        (1, Source::Webhook, minute(3001))
    );
    assert_eq!(known[0].verdict(), "missed");

    // So long that the backfill does not reach the beginning.
    world.runner = runner(&world.app);
    for n in [3300, 3301] {
        world.runner.cycle(minute(n)).await;
        assert_eq!(world.state(&target), Some(TargetState::Failing));
    }
    assert_eq!(
        world.incidents(&target, 3001),
        known,
        "one incident, still open"
    );
    assert_eq!(missed(&world), before, "and judged once");
    assert!(
        world
            .metrics()
            .contains("forewarn_incidents_total{source=\"webhook\"} 1\n")
    );
}

/// What was served, as the evaluation wants it: probabilities by target and grid point from `from` on.
fn recorded_tracks(
    replay: &training::Replay,
    from: usize,
    served: &HashMap<TargetId, Vec<Option<f32>>>,
) -> Vec<Track> {
    let mut tracks = replay.tracks(from, history().steps(), |_| 0.0);
    for track in &mut tracks {
        track.scores.clone_from(&served[&track.target]);
    }
    tracks
}

/// Two days of cycles, with a restart and people who act on every other alarm, and then the functions of `backtest` on the very rows that were served.
#[tokio::test(flavor = "multi_thread")]
async fn the_scoreboard_counts_what_a_backtest_of_the_served_rows_counts() {
    let mut world = World::new().await;
    // The same model in the shadow must come to the same.
    world.runner = runner_with(&world.app, Some(bundle()));
    let (from, until) = (MINUTES - 2 * 1440, MINUTES);
    let mut served: HashMap<TargetId, Vec<Option<f32>>> = HashMap::new();
    let mut acted = Vec::new();
    let mut raised = 0;
    for n in from..until {
        if n == from + 1000 {
            world.runner = runner(&world.app);
            world.runner = runner_with(&world.app, Some(bundle()));
        }
        world.runner.cycle(minute(n)).await;
        let snapshot = world.snapshot();
        for assessment in &snapshot.assessments {
            let rows = served.entry(assessment.target.clone()).or_default();
            rows.resize(n - from, None);
            rows.push(assessment.risk.as_ref().map(|risk| risk.probability as f32));
        }
        let store = world.app.store.as_ref().expect("state is on");
        let opened = store.alarms(minute(n), 100).expect("the alarms");
        for alarm in opened {
            raised += 1;
            if raised % 2 == 0 {
                continue;
            }
            // Between two grid points, and told before it is over.
            let action = ActionRecord {
                target: alarm.target,
                id: n.to_string(),
                at: minute(n + 3).minus(Duration::from_secs(20)),
                comment: "failed over".into(),
            };
            let stored = store.record_actions(ORIGIN, std::slice::from_ref(&action));
            assert_eq!(stored.expect("it is stored").stored, 1);
            acted.push(action);
        }
    }
    served
        .values_mut()
        .for_each(|rows| rows.resize(until - from, None));
    let snapshot = world.snapshot();
    let live = &snapshot.scoreboard;
    let shadow = snapshot.shadow.as_ref().expect("a model is in the shadow");
    assert_eq!(&shadow.summary, live);

    let plan = learning::plan(&config());
    let mut known = history().clone();
    for action in &acted {
        known.mark_acted(&action.target, action.at);
    }
    let replay = training::replay(&known, &plan, &|_, _| ());
    let tracks = recorded_tracks(&replay, from, &served);
    let threshold = bundle().manifest.threshold.alarming();
    let rule = AlarmRule::new(
        threshold.expect("the model alarms"),
        plan.alert_for,
        &plan.rules,
    );
    let scored = Scored::own(&tracks);
    let tally = tally(&scored, &rule);
    assert!(
        tally.right > 0
            && tally.r#false > 0
            && tally.uncertain > 0
            && tally.incidents > tally.foreseen,
        "{tally:?}"
    );
    assert_eq!(
        (
            live.right,
            live.early,
            live.uncertain,
            live.r#false,
            live.open
        ),
        (
            tally.right,
            tally.early,
            tally.uncertain,
            tally.r#false,
            tally.undecided
        )
    );
    assert_eq!(
        (live.foreseen, live.missed, live.window.counts.scored),
        (tally.foreseen, tally.incidents - tally.foreseen, tally.rows)
    );
    let enough = |ratio: Option<f64>, count| ratio.filter(|_| count >= MIN_OUTCOMES);
    assert_eq!(
        live.precision,
        enough(tally.precision(), tally.right + tally.r#false)
    );
    assert_eq!(live.recall, enough(tally.recall(), tally.incidents));

    let replays = || {
        scored
            .iter()
            .map(|one| (&one.track.target, one.replay(&rule)))
    };
    let mut alarms: Vec<_> = replays()
        .flat_map(|(target, replay)| {
            let alarms = replay.alarms.into_iter();
            alarms.map(|(alarm, outcome)| {
                let outcome = outcome.map(|outcome| outcome.name().to_string());
                (target.clone(), alarm.opened, outcome)
            })
        })
        .collect();
    let store = world.app.store.as_ref().expect("state is on");
    let stored = store
        .alarms(minute(0), 10_000)
        .expect("the state can be read");
    let mut stored: Vec<_> = stored
        .into_iter()
        .map(|alarm| (alarm.target, alarm.opened, alarm.outcome))
        .collect();
    alarms.sort();
    stored.sort();
    assert_eq!(stored, alarms);
    let leads: Vec<f64> = replays()
        .flat_map(|(_, replay)| replay.incidents)
        .filter_map(|(_, lead)| Some(lead?.as_secs_f64()))
        .collect();
    assert_eq!(
        (live.lead_time_histogram.count, live.lead_time_histogram.sum),
        (leads.len() as u64, leads.iter().sum())
    );

    let labelled = tracks.iter().flat_map(|track| {
        let rows = track.scores.iter().zip(&track.labels);
        rows.filter_map(|(score, label)| match label {
            RowLabel::Positive => Some((f64::from((*score)?), true, 1.0)),
            RowLabel::Negative => Some((f64::from((*score)?), false, 1.0)),
            RowLabel::Uncertain | RowLabel::Excluded | RowLabel::Censored => None,
        })
    });
    let rows = Rows::new(labelled);
    assert_eq!(live.window.judged, rows.len() as u64);
    let (brier, again) = (
        live.brier.expect("enough rows"),
        rows.brier().expect("rows"),
    );
    assert!((brier - again).abs() < 1e-9, "{brier} {again}");

    // The same time, queried again: here nothing came late, so that not a score differs.
    let scores = bundle().score_rows(&replay.features);
    let queried_again = replay.tracks(from, until, |row| scores[row].ensemble);
    let differs = |(a, b): (&Track, &Track)| {
        let pairs = a.scores.iter().zip(&b.scores);
        pairs.filter(|(a, b)| a != b).count()
    };
    let differing: usize = tracks.iter().zip(&queried_again).map(differs).sum();
    assert_eq!(differing, 0, "of {} scores", tally.rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_that_came_late_are_one_incident_each_after_a_restart_too() {
    let mut config = config();
    config.failure.alerts = vec![[("severity".into(), "critical".into())].into()];
    let mut world = World::with(config).await;
    world.runner.cycle(minute(3000)).await;
    let snapshot = world.snapshot();
    let is_quiet = |a: &&forewarn::assessment::Assessment| {
        let recorded = history().target(&a.target).expect("a target");
        (2900..3060).all(|n| recorded.steps[n].failing.is_none())
    };
    let found = snapshot.assessments.iter().find(is_quiet);
    let target = found.expect("a target that is well").target.clone();
    let alert = |start: usize, end: Option<usize>| {
        let (status, end) = match end {
            Some(end) => ("resolved", minute(end).to_string()),
            None => ("firing", "0001-01-01T00:00:00Z".into()),
        };
        json!({"version": "4", "alerts": [{"status": status, "startsAt": minute(start).to_string(), "endsAt": end,
            "labels": {"alertname": "Down", "severity": "critical", "instance": target.as_str()}}]})
    };
    let spans = |world: &World| -> Vec<_> {
        let found = world.incidents(&target, 3001);
        found.into_iter().map(|i| (i.start, i.end)).rev().collect()
    };
    for n in 3001..3004 {
        world.runner.cycle(minute(n)).await;
    }
    // It began at 3001; the cycles know only since 3004.
    for (body, cycle) in [(alert(3001, None), 3004), (alert(3001, Some(3006)), 3008)] {
        let route = "/webhook/alertmanager";
        let (status, answer) = world
            .post(route, "application/json", body.to_string())
            .await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        world.runner.cycle(minute(cycle)).await;
    }
    let before = spans(&world);
    assert_eq!(before.len(), 1, "{before:?}");
    assert_eq!(before[0].0, minute(3004));

    world.runner = runner(&world.app);
    world.runner.cycle(minute(3010)).await;
    let after = spans(&world);
    assert_eq!((after.len(), after[0].0), (1, minute(3004)), "{after:?}");

    // Open when forewarn goes; when it is back, it has ended and another one goes on.
    for (body, cycle) in [
        (alert(3030, None), 3031),
        (alert(3030, Some(3036)), 0),
        (alert(3050, None), 0),
    ] {
        let route = "/webhook/alertmanager";
        let (status, answer) = world
            .post(route, "application/json", body.to_string())
            .await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        if cycle > 0 {
            world.runner.cycle(minute(cycle)).await;
        }
    }
    world.runner = runner(&world.app);
    world.runner.cycle(minute(3052)).await;
    let after = spans(&world);
    assert_eq!(after.len(), 3, "{after:?}");
    assert!(after[1].1.is_some_and(|end| end <= after[2].0), "{after:?}");
    assert_eq!(after[2], (minute(3050), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_and_the_json_behind_it_tell_the_same_of_a_target() {
    let mut world = World::new().await;
    for n in 3000..3005 {
        world.runner.cycle(minute(n)).await;
    }
    let get = async |path: String| {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let answer = server::router(world.app.clone())
            .oneshot(request)
            .await
            .expect("an answer");
        let status = answer.status();
        let body = answer.into_body().collect().await.expect("a body");
        let text = String::from_utf8(body.to_bytes().into()).expect("text");
        (status, text)
    };
    let json = async |path: String| {
        let (status, text) = get(path).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        serde_json::from_str::<Value>(&text).expect("JSON")
    };
    let listed = json("/api/v1/targets".into()).await;
    let listed = listed["targets"].as_array().expect("targets");
    assert_eq!(listed.len(), history().targets().len());
    let scored = listed.iter().find(|t| t["state"] == "ok").expect("one");
    let name = scored["target"].as_str().expect("a name");
    let target = json(format!("/api/v1/targets/{name}")).await;
    for key in [
        "target",
        "labels",
        "state",
        "failure_probability",
        "failure_risk",
        "models",
    ] {
        assert_eq!(target[key], scored[key], "{key}");
    }
    let said = target["course"]["probabilities"]
        .as_array()
        .expect("a course");
    assert_eq!(
        (said.len(), &target["course"]["step_seconds"]),
        (5, &json!(60.0))
    );
    let newest = target["failure_probability"]
        .as_f64()
        .expect("a probability");
    assert!((said[4].as_f64().expect("a probability") - newest).abs() < 1e-4);
    assert!(!target["reasons"].as_array().expect("reasons").is_empty());
    assert!(
        !target["recommendations"]
            .as_array()
            .expect("actions")
            .is_empty()
    );
    assert_eq!(target["happenings"], json!([]));
    for (path, keys) in [
        ("incidents", vec!["incidents"]),
        ("alerts", vec!["alerts"]),
        ("model", vec!["model_id", "alert_threshold", "drift"]),
        (
            "scoreboard",
            vec!["right", "precision", "window", "reliability", "recent"],
        ),
    ] {
        let answer = json(format!("/api/v1/{path}")).await;
        for key in keys {
            assert!(answer.get(key).is_some(), "{path} has no {key}: {answer}");
        }
    }

    let store = world.app.store.as_ref().expect("state is on");
    let incident = IncidentRecord {
        target: TargetId::new(name),
        source: Source::Query,
        start: minute(2900),
        end: Some(minute(2910)),
        foreseen: Some(720.0),
        missed: false,
        reasons: None,
    };
    store.upsert_incident(&incident).expect("it is stored");
    let before_all = IncidentRecord {
        start: minute(2000),
        end: Some(minute(2010)),
        foreseen: None,
        ..incident.clone()
    };
    store.upsert_incident(&before_all).expect("it is stored");
    let target = json(format!("/api/v1/targets/{name}")).await;
    let happened = &target["happenings"][0];
    assert_eq!(
        (&happened["kind"], &happened["verdict"]),
        (&json!("incident"), &json!("foreseen"))
    );
    let (status, page) = get(format!("/?target={name}")).await;
    assert_eq!(status, StatusCode::OK);
    for part in [
        "✓ foreseen 12m before",
        "not watched yet",
        "What to do",
        "cpu_usage",
        "the alarm threshold",
    ] {
        assert!(page.contains(part), "no {part} in {page}");
    }
    let (status, page) = get("/?target=nobody".into()).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(page.contains("nobody</bdi> is not among the targets"));
}
