use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

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

/// Answers queries from a recorded history.
#[derive(Clone)]
pub struct Prometheus {
    pub mode: Arc<AtomicU8>,
    config: Arc<Config>,
    history: &'static History,
    /// Points asked for, by query, the marks of a baseline apart: nothing may be asked twice.
    pub asked: Arc<Mutex<HashMap<String, Vec<i64>>>>,
}

impl Prometheus {
    pub fn new(config: &Arc<Config>, history: &'static History) -> Self {
        Self {
            mode: Arc::new(AtomicU8::new(GOOD)),
            config: config.clone(),
            history,
            asked: Arc::default(),
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
        if mode == DOWN {
            return ResponseTemplate::new(503).set_body_string("Service Unavailable");
        }
        let is_failure = self.config.failure.queries.contains(query);
        if (mode == MEMORY_QUERY_REFUSED && signal == Some(1))
            || (mode == FAILURE_QUERY_REFUSED && is_failure)
        {
            return ResponseTemplate::new(400).set_body_json(
                json!({"status": "error", "errorType": "bad_data", "error": "parse error"}),
            );
        }
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
                .filter_map(|&t| Some(json!([t / 1000, value(t)?.to_string()])))
                .collect();
            let labels = |replica: &str| json!({"instance": target.as_str(), "service": "s", "replica": replica});
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
        ResponseTemplate::new(200).set_body_json(
            json!({"status": "success", "data": {"resultType": kind, "result": result}}),
        )
    }
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
