//! What the OpenAPI document shows: bodies, answers and refusals as they come.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::problem::{FieldError, Problem};
use crate::types::{Signal, Unit};

/// A way in which operations refuse a request or fail.
pub struct Refusal {
    /// Of which operations, by their id.
    pub of: &'static [&'static str],
    pub status: StatusCode,
    /// Of the example.
    pub name: &'static str,
    pub when: &'static str,
    detail: &'static str,
    /// Pointers and what is wrong there.
    errors: &'static [(&'static str, &'static str)],
}

const fn refusal(
    of: &'static [&'static str],
    status: StatusCode,
    [name, when, detail]: [&'static str; 3],
) -> Refusal {
    Refusal {
        of,
        status,
        name,
        when,
        detail,
        errors: &[],
    }
}

impl Refusal {
    const fn at(self, errors: &'static [(&'static str, &'static str)]) -> Self {
        Self { errors, ..self }
    }

    pub fn problem(&self) -> Problem {
        match self.errors {
            [] => Problem::new(self.status, self.detail),
            errors => Problem::fields(
                errors
                    .iter()
                    .map(|(pointer, detail)| FieldError {
                        pointer: (*pointer).into(),
                        detail: (*detail).into(),
                    })
                    .collect(),
            ),
        }
    }
}

pub const EVERY: &[&str] = &[];
const PREDICT: &[&str] = &["predict"];
const BATCH: &[&str] = &["predict_batch"];
const PREDICTIONS: &[&str] = &["predict", "predict_batch"];
const WITH_BODY: &[&str] = &["predict", "predict_batch", "webhook", "act"];
const WORK: &[&str] = &["predict", "predict_batch", "webhook", "act", "reload"];
const STATE: &[&str] = &["webhook", "act", "incidents", "alerts", "actions"];

/// All but what the web config adds.
#[rustfmt::skip]
pub const REFUSALS: &[Refusal] = &[
    refusal(PREDICTIONS, StatusCode::BAD_REQUEST, ["not_json", "The body is no JSON",
        "the body is not JSON: EOF while parsing an object at line 1 column 1"]),
    refusal(&["webhook"], StatusCode::BAD_REQUEST, ["not_a_delivery", "The body is no delivery of Alertmanager's webhook, version 4; Alertmanager does not send it again",
        "not an Alertmanager webhook delivery: version is \"3\", this receiver reads version \"4\""]),
    refusal(&["act"], StatusCode::BAD_REQUEST, ["not_an_action", "The body is no action, or names no target",
        "not an action: names no target: write /target, or /labels with instance"]),
    refusal(&["target"], StatusCode::BAD_REQUEST, ["not_utf8", "The name is no UTF-8",
        "Invalid URL: Invalid UTF-8 in `target`"]),
    refusal(&["target"], StatusCode::NOT_FOUND, ["unknown", "The last cycle has not seen such a target",
        "web-9 is not among the targets of the last cycle; GET /api/v1/targets lists them"]),
    refusal(&["target"], StatusCode::NOT_FOUND, ["other_shard", "Another shard has it",
        "web-9 is not among the targets of the last cycle; it belongs to the forewarn with --shard.index 1, this one is 0/2"]),
    refusal(&["shadow"], StatusCode::NOT_FOUND, ["no_shadow", "No model is in the shadow",
        "no model is in the shadow; model.shadow in the config names one"]),
    refusal(&["asset"], StatusCode::NOT_FOUND, ["no_file", "There is no such file",
        "there is no such file; /docs and /redoc load what there is"]),
    refusal(&["reload"], StatusCode::FORBIDDEN, ["lifecycle_off", "Lifecycle routes are off",
        "lifecycle routes are off; start with --web.enable-lifecycle, or send SIGHUP"]),
    refusal(WITH_BODY, StatusCode::PAYLOAD_TOO_LARGE, ["too_large", "The body is above `api.max_body_bytes`",
        "the body is larger than api.max_body_bytes (4194304 bytes); send fewer rows"]),
    refusal(WITH_BODY, StatusCode::UNSUPPORTED_MEDIA_TYPE, ["not_application_json", "The body is of another type, or compressed",
        "the content type is \"text/plain\"; send application/json"]),
    refusal(PREDICT, StatusCode::UNPROCESSABLE_ENTITY, ["out_of_range", "Values of a wrong type or out of their signal's range: every one is named", ""])
        .at(&[("/cpu_usage", "is 140; must be between 0 and 100 (percent)"), ("/memory_usage", "is a string; must be a number or null")]),
    refusal(PREDICT, StatusCode::UNPROCESSABLE_ENTITY, ["unknown_target", "`target` is none of the last cycle's", ""])
        .at(&[("/target", "names no known target (\"web-9\"): 20 targets are known, among them db-1, db-2, db-3; GET /api/v1/targets lists all")]),
    refusal(PREDICT, StatusCode::UNPROCESSABLE_ENTITY, ["no_signal", "Not one of the model's signals has a number", ""])
        .at(&[("", "has none of the model's signals as a number: cpu_usage, memory_usage")]),
    refusal(BATCH, StatusCode::UNPROCESSABLE_ENTITY, ["out_of_range", "Values of a wrong type or out of their signal's range: every one is named, and no row is scored", ""])
        .at(&[("/0/cpu_usage", "is 140; must be between 0 and 100 (percent)"), ("/17/history/3/disk_usage", "is -1; must be between 0 and 100 (percent)")]),
    refusal(BATCH, StatusCode::UNPROCESSABLE_ENTITY, ["too_many_rows", "More rows than `api.max_batch`, or none", ""])
        .at(&[("", "has 1001 rows; a batch has 1 to 1000")]),
    refusal(BATCH, StatusCode::UNPROCESSABLE_ENTITY, ["too_many_rows_for_shap", "More than 100 rows with `explain=shap`",
        "the batch has 250 rows; with explain=shap it has at most 100: send fewer, or ask for explain=true"]),
    refusal(PREDICTIONS, StatusCode::UNPROCESSABLE_ENTITY, ["explain", "`explain` is something else",
        "the query parameter explain is \"maybe\"; it must be true, false or shap"]),
    refusal(&["reload"], StatusCode::INTERNAL_SERVER_ERROR, ["refused", "The config or the model is wrong; what was in service still is",
        "config.yaml: line 12: horizon: is 100s; must be a multiple of step (60s)"]),
    refusal(EVERY, StatusCode::INTERNAL_SERVER_ERROR, ["internal", "A bug of forewarn's",
        "an internal error; the log has more"]),
    refusal(&["predict", "predict_batch", "model", "ready"], StatusCode::SERVICE_UNAVAILABLE, ["no_model", "No model is loaded",
        "no model is loaded; train one with `forewarn train` or put a model directory under models/, and reload (SIGHUP)"]),
    refusal(&["ready"], StatusCode::SERVICE_UNAVAILABLE, ["first_cycle", "The first cycle is under way",
        "the first cycle is not done yet"]),
    refusal(PREDICTIONS, StatusCode::SERVICE_UNAVAILABLE, ["too_many_batches", "Eight batches or SHAP explanations are at work; with `Retry-After`",
        "too many batches or SHAP explanations at once; retry after a second"]),
    refusal(WITH_BODY, StatusCode::SERVICE_UNAVAILABLE, ["too_many_large_bodies", "32 bodies above 64 KiB are in memory; with `Retry-After`",
        "too many large bodies at once; retry after a second"]),
    refusal(WORK, StatusCode::SERVICE_UNAVAILABLE, ["too_many_connections", "1,024 connections are open, or 512 of one address; with `Retry-After`",
        "1024 connections are open already, or 512 of this address; retry after a second"]),
    refusal(STATE, StatusCode::SERVICE_UNAVAILABLE, ["state_off", "Nothing is stored here",
        "state is off; set state.enabled: true to store alerts and incidents"]),
    refusal(STATE, StatusCode::SERVICE_UNAVAILABLE, ["state_failed", "The database cannot be read or written; webhooks answer with `Retry-After`",
        "data/forewarn.db: disk I/O error"]),
    refusal(&["reload"], StatusCode::SERVICE_UNAVAILABLE, ["another_waits", "One is under way and another waits; with `Retry-After`",
        "another reload is waiting already; retry after a second"]),
    refusal(EVERY, StatusCode::SERVICE_UNAVAILABLE, ["too_slow", "The answer was not there within `api.request_timeout`",
        "the request took longer than api.request_timeout (10s)"]),
];

/// Where a user or a token is demanded.
#[rustfmt::skip]
pub const LOCKED: &[Refusal] = &[
    refusal(EVERY, StatusCode::UNAUTHORIZED, ["unauthorized", "No credentials, or wrong ones; `WWW-Authenticate` says which are taken",
        "send a user of basic_auth_users and its password"]),
    refusal(EVERY, StatusCode::SERVICE_UNAVAILABLE, ["too_many_passwords", "Eight passwords from this address wait to be checked; with `Retry-After`",
        "too many passwords are being checked; retry after a second"]),
];

/// A row that can be sent as it stands.
pub fn row(signals: &[Signal]) -> Value {
    let value = |signal: &Signal| match (signal.name.as_str(), signal.unit) {
        ("cpu_usage", _) => 87.0,
        ("memory_usage", _) => 96.5,
        ("network_latency_ms", _) => 31.0,
        ("error_count", _) => 14.0,
        ("response_time_ms", _) => 1450.0,
        ("active_connections", _) => 120.0,
        (_, Unit::Percent) => 61.0,
        (_, Unit::Milliseconds) => 120.0,
        (_, Unit::Ratio) => 0.25,
        (_, Unit::Bytes) => 1e9,
        (_, Unit::Seconds | Unit::Count | Unit::None) => 3.0,
    };
    let values = signals.iter().map(|s| (s.name.clone(), value(s).into()));
    Value::Object(values.collect())
}

/// Bodies by operation, each with what it shows.
pub fn bodies(signals: &[Signal], target: &str) -> [(&'static str, Value); 4] {
    let row = row(signals);
    let with = |name: &str, value: Value| {
        let mut row = row.clone();
        row[name] = value;
        row
    };
    let earlier = |share: f64| -> Value {
        let values = row.as_object().into_iter().flatten();
        values
            .map(|(name, v)| {
                (
                    name.clone(),
                    json!((share * v.as_f64().unwrap_or(0.0)).round()),
                )
            })
            .collect::<Map<_, _>>()
            .into()
    };
    let mut sparse = with("timestamp", json!("2026-01-10T15:30:00Z"));
    if let Some(signal) = signals.get(1) {
        sparse[&signal.name] = Value::Null;
    }
    let history = with(
        "history",
        json!([earlier(0.8), earlier(0.9), earlier(0.95)]),
    );
    [
        (
            "predict",
            json!({
                "alone": {"summary": "The signals alone", "value": row},
                "history": {"summary": "With earlier rows, oldest first, one per step", "value": history},
                "sparse": {"summary": "A signal is missing, a field is unknown: both are told in the answer", "value": sparse},
                "target": {"summary": "With the live window of a known target", "value": with("target", json!(target))},
            }),
        ),
        (
            "predict_batch",
            json!({"rows": {"summary": "Two rows", "value": [row, sparse]}}),
        ),
        (
            "webhook",
            json!({
                "firing": {"summary": "An alert that fires", "value": delivery("firing", "0001-01-01T00:00:00Z")},
                "resolved": {"summary": "The same, when it is over", "value": delivery("resolved", "2026-01-10T15:52:10Z")},
            }),
        ),
        (
            "act",
            json!({
                "target": {"summary": "Somebody failed over, just now", "value": {"target": target, "id": "PD-7", "comment": "failed over"}},
                "labels": {"summary": "As an alert of forewarn names its target, some time ago",
                    "value": {"labels": {"forewarn": "true", "target": target}, "time": "2026-01-10T15:30:45Z"}},
            }),
        ),
    ]
}

fn delivery(status: &str, ends_at: &str) -> Value {
    let labels = json!({"alertname": "InstanceDown", "instance": "web-1", "severity": "critical"});
    json!({
        "version": "4", "groupKey": "{}:{alertname=\"InstanceDown\"}", "truncatedAlerts": 0, "status": status, "receiver": "forewarn",
        "groupLabels": {"alertname": "InstanceDown"}, "commonLabels": labels, "commonAnnotations": {},
        "externalURL": "http://alertmanager:9093",
        "alerts": [{
            "status": status, "labels": labels, "annotations": {"summary": "web-1 is down"},
            "startsAt": "2026-01-10T15:47:30.000Z", "endsAt": ends_at,
            "generatorURL": "http://prometheus:9090/graph", "fingerprint": "c5e2f7ab6f38e8dd",
        }],
    })
}

/// What operations answer when all is well, by operation and status.
pub fn answers() -> Vec<(&'static str, u16, Value)> {
    let reasons = json!([
        {"feature": "memory_usage_slope_60m", "value": 14.2, "contribution": 1.31},
        {"feature": "memory_usage", "value": 96.5, "contribution": 0.84},
    ]);
    let models = json!({"xgboost": 0.8702, "random_forest": 0.8215, "logistic_regression": 0.7911});
    let mut prediction = json!({
        "failure_probability": 0.8543, "failure_risk": "CRITICAL", "confidence": 0.854,
        "recommendations": ["Act now: the failure is expected within 30m.", "memory_usage: find what grows; restart it before it is killed."],
        "model_used": "ensemble", "timestamp": "2026-01-10T15:30:45.123456+00:00", "horizon_seconds": 1800,
        "history": "request", "missing": [], "ignored": [], "models": models,
        "model_id": "20260110t0000-1a2b3c4d", "model_origin": "history",
    });
    let plain = prediction.clone();
    prediction["reasons"] = reasons.clone();
    let targets = json!([
        {"target": "web-1", "labels": {"job": "node"}, "state": "ok", "failure_probability": 0.8543,
            "failure_risk": "CRITICAL", "models": models, "reasons": reasons},
        {"target": "web-2", "labels": {"job": "node"}, "state": "warming_up", "failure_probability": null,
            "failure_risk": null, "models": null, "reasons": []},
    ]);
    let mut detail = targets[0].clone();
    detail["recommendations"] = prediction["recommendations"].clone();
    detail["course"] =
        json!({"step_seconds": 60.0, "probabilities": [0.0312, null, 0.4127, 0.8543]});
    detail["happenings"] = json!([{"kind": "incident", "name": "query", "start": "2026-01-09T04:12:00Z", "end": "2026-01-09T04:19:00Z",
        "verdict": "foreseen", "lead_seconds": 840.0, "probability": null}]);
    let one = |value: Value| json!({"answer": {"value": value}});
    vec![
        (
            "predict",
            200,
            json!({
                "plain": {"summary": "Without explain", "value": plain},
                "explained": {"summary": "With explain=true", "value": prediction},
            }),
        ),
        ("predict_batch", 200, one(json!([plain]))),
        (
            "webhook",
            200,
            one(json!({"stored": 1, "duplicate": 0, "own": 0, "other_shard": 0, "truncated": 0})),
        ),
        (
            "act",
            200,
            one(
                json!({"target": "web-1", "time": "2026-01-10T15:30:45Z", "stored": 1, "duplicate": 0, "other_shard": 0}),
            ),
        ),
        (
            "actions",
            200,
            one(
                json!({"actions": [{"target": "web-1", "time": "2026-01-10T15:30:45Z", "id": "PD-7", "comment": "failed over"}]}),
            ),
        ),
        ("target", 200, one(detail)),
        (
            "targets",
            200,
            one(json!({"at": "2026-01-10T15:30:00Z", "targets": targets})),
        ),
        (
            "incidents",
            200,
            one(
                json!({"incidents": [{"target": "web-1", "source": "query", "start": "2026-01-10T15:47:30Z", "end": "2026-01-10T15:52:10Z",
                "verdict": "foreseen", "foreseen_seconds": 1050.0, "reasons": reasons}]}),
            ),
        ),
        (
            "alerts",
            200,
            one(json!({"alerts": [{"target": "web-1", "own": false,
                "labels": {"alertname": "InstanceDown", "instance": "web-1", "severity": "critical"},
                "starts_at": "2026-01-10T15:47:30Z", "ends_at": null, "received_at": "2026-01-10T15:48:00Z",
                "foreseen_seconds": 1050.0, "reasons": reasons}]})),
        ),
        (
            "model",
            200,
            one(
                json!({"model_id": "20260110t0000-1a2b3c4d", "model_origin": "history", "horizon_seconds": 1800.0, "step_seconds": 60.0,
                "trained_until": "2026-01-10T00:00:00Z", "alert_threshold": 0.42, "base_rate": 0.0113,
                "signals": [{"name": "cpu_usage", "unit": "percent"}, {"name": "error_count", "unit": "count"}],
                "features": ["cpu_usage", "cpu_usage_slope_60m", "error_count"],
                "drift": {"rows": 28_800, "features": [{"feature": "cpu_usage", "psi": 0.06, "usual_psi": 0.11}]}}),
            ),
        ),
        ("scoreboard", 200, one(scoreboard())),
        ("shadow", 200, {
            let mut board = scoreboard();
            board["model_id"] = json!("20260112t0000-5e6f7a8b");
            one(board)
        }),
        (
            "health",
            200,
            json!({
                "loaded": {"summary": "A model is loaded", "value": {"status": "ok", "models": ["ensemble", "logistic_regression", "random_forest", "xgboost"]}},
                "none": {"summary": "None is", "value": {"status": "no models", "models": []}},
            }),
        ),
        ("healthy", 200, one(json!("forewarn is healthy.\n"))),
        ("ready", 200, one(json!("forewarn is ready.\n"))),
        (
            "reload",
            200,
            one(json!(
                "model 20260110t0000-1a2b3c4d (history) with config.yaml\n"
            )),
        ),
        (
            "reload",
            202,
            one(json!(
                "the reload is still under way; forewarn_config_last_reload_successful and the log tell how it ends\n"
            )),
        ),
    ]
}

fn scoreboard() -> Value {
    json!({
        "right": 31, "early": 2, "false": 5, "missed": 4, "foreseen": 33, "open": 1, "precision": 0.861, "recall": 0.892,
        "false_alarms_per_target_week": 0.021, "brier": 0.0083, "calibration_error": 0.0041,
        "window": {"seconds": 7_776_000.0, "right": 31, "early": 2, "false": 5, "foreseen": 33, "missed": 4, "scored": 2_592_000,
            "target_weeks": 238.1, "judged": 2_555_180},
        "lead_time_histogram": {"bounds": [60.0, 300.0, 900.0, 1800.0], "counts": [1, 6, 14, 12, 0], "sum": 25_310.0, "count": 33},
        "recent": [{"target": "web-1", "outcome": "right", "opened": 1_768_059_000.0, "incident": 1_768_060_050.0,
            "lead_seconds": 1050.0, "probability": 0.71}],
    })
}
