use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, Respond, ResponseTemplate};

use forewarn::config::Config;
use forewarn::history::History;

pub const GOOD: u8 = 0;
pub const MEMORY_QUERY_REFUSED: u8 = 1;
pub const DOWN: u8 = 2;
pub const DUPLICATES: u8 = 3;
pub const FAILURE_QUERY_REFUSED: u8 = 4;
/// Every other request with a query is refused.
pub const FLAPPING: u8 = 5;
/// The clock is an hour ahead, or behind.
pub const AHEAD: u8 = 6;
pub const BEHIND: u8 = 7;
/// The other labels of all series are new.
pub const RELABELED: u8 = 8;
/// The first signal has more series than an answer may have.
pub const FLOOD: u8 = 9;
/// Some of what was asked for is missing, as Thanos says it.
pub const PARTIAL: u8 = 10;
/// It takes connections and never answers.
pub const HANGING: u8 = 11;
pub const MEMORY_QUERY_HANGING: u8 = 12;

/// Answers queries from a recorded history.
#[derive(Clone)]
pub struct Prometheus {
    pub mode: Arc<AtomicU8>,
    config: Arc<Config>,
    history: &'static History,
    /// Points asked for, by query, the marks of a baseline apart: nothing may be asked twice.
    pub asked: Arc<Mutex<HashMap<String, Vec<i64>>>>,
    /// Requests with each query.
    requests: Arc<Mutex<HashMap<String, usize>>>,
}

impl Prometheus {
    pub fn new(config: &Arc<Config>, history: &'static History) -> Self {
        Self {
            mode: Arc::new(AtomicU8::new(GOOD)),
            config: config.clone(),
            history,
            asked: Arc::default(),
            requests: Arc::default(),
        }
    }

    pub async fn mount(&self, server: &MockServer) {
        for route in ["/api/v1/query_range", "/api/v1/query"] {
            Mock::given(method("POST"))
                .and(path(route))
                .respond_with(self.clone())
                .mount(server)
                .await;
        }
    }
}

impl Respond for Prometheus {
    fn respond(&self, request: &wiremock::Request) -> ResponseTemplate {
        let mode = self.mode.load(Ordering::Relaxed);
        let form = form(request);
        let (query, number) = (&form["query"], |key: &str| {
            form[key].parse::<f64>().expect("a number") as i64 * 1000
        });
        let signal = self.config.signals.iter().position(|s| s.query == *query);
        let mut requests = self.requests.lock().expect("no test panicked");
        let asked_before = requests.entry(query.clone()).or_default();
        *asked_before += 1;
        if mode == DOWN || (mode == FLAPPING && asked_before.is_multiple_of(2)) {
            return ResponseTemplate::new(503).set_body_string("Service Unavailable");
        }
        drop(requests);
        if mode == HANGING || (mode == MEMORY_QUERY_HANGING && signal == Some(1)) {
            return ResponseTemplate::new(200).set_delay(Duration::from_secs(3600));
        }
        let is_failure = self.config.failure.queries.contains(query);
        if (mode == MEMORY_QUERY_REFUSED && signal == Some(1))
            || (mode == FAILURE_QUERY_REFUSED && is_failure)
        {
            return ResponseTemplate::new(400).set_body_json(
                json!({"status": "error", "errorType": "bad_data", "error": "parse error"}),
            );
        }
        if mode == FLOOD && signal == Some(0) {
            return flood();
        }
        let skew = match mode {
            AHEAD => 3600,
            BEHIND => -3600,
            _ => 0,
        };
        let service = if mode == RELABELED { "new" } else { "s" };
        let step = number("step");
        let is_instant = form.contains_key("time");
        let grid: Vec<i64> = match is_instant {
            true => vec![number("time")],
            false => (number("start")..=number("end"))
                .step_by(step as usize)
                .collect(),
        };
        let key = match step {
            60_000 => query.clone(),
            _ => format!("marks of {query}"),
        };
        self.asked
            .lock()
            .expect("no test panicked")
            .entry(key)
            .or_default()
            .extend(&grid);
        let index = |t: i64| {
            let index = usize::try_from((t - self.history.time(0).0) / 60_000).ok()?;
            (index < self.history.steps()).then_some(index)
        };
        let mut result = Vec::new();
        for (target, recorded) in self.history.targets() {
            let value = |t: i64| match signal {
                Some(signal) => Some(recorded.column(signal)[index(t)?]).filter(|v| !v.is_nan()),
                None => recorded.steps[index(t)?]
                    .failing
                    .filter(|_| is_failure)
                    .map(|_| 0.0),
            };
            let values: Vec<Value> = grid
                .iter()
                .filter_map(|&t| Some(json!([t / 1000 + skew, value(t)?.to_string()])))
                .collect();
            let labels = |replica: &str| json!({"instance": target.as_str(), "service": service, "replica": replica});
            if values.is_empty() {
                continue;
            }
            let mut series = |replica| match is_instant {
                true => result.push(json!({"metric": labels(replica), "value": values[0]})),
                false => result.push(json!({"metric": labels(replica), "values": values})),
            };
            series("a");
            if mode == DUPLICATES && signal == Some(0) {
                series("b");
            }
        }
        let kind = if is_instant { "vector" } else { "matrix" };
        let mut answer =
            json!({"status": "success", "data": {"resultType": kind, "result": result}});
        if mode == PARTIAL {
            answer["warnings"] = json!(["No StoreAPIs matched for this query"]);
        }
        ResponseTemplate::new(200).set_body_json(answer)
    }
}

/// 250,001 series.
fn flood() -> ResponseTemplate {
    let series = |i: i32| format!(r#"{{"metric":{{"instance":"{i}"}},"value":[1,"1"]}}"#);
    let series: Vec<String> = (0..250_001).map(series).collect();
    let result = series.join(",");
    ResponseTemplate::new(200).set_body_string(format!(
        r#"{{"status":"success","data":{{"resultType":"vector","result":[{result}]}}}}"#
    ))
}

/// Parameters of the body and the address.
pub fn form(request: &wiremock::Request) -> HashMap<String, String> {
    let body = String::from_utf8_lossy(&request.body);
    let own = request.url.query().unwrap_or_default();
    reqwest::Url::parse(&format!("http://x/?{body}&{own}"))
        .expect("a form")
        .query_pairs()
        .map(|(k, v)| (k.into_owned(), v.into_owned()))
        .collect()
}
