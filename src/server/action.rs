//! What somebody did about a target, as people and their tools tell it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json as value};

use super::api::{recorded, state};
use super::{App, JsonBody, Problem, blocking, json};
use crate::action;

/// Given at once at most.
const ACTIONS: usize = 1000;

/// Tell that somebody acted on a target
///
/// Where nothing fails within the horizon after an alarm or a score, and somebody acted in that time, the outcome is uncertain: it counts neither
/// for nor against the model, and is not learned from. The body is `{"target": …}` or `{"labels": {…}}` as an alert has them, with an
/// optional `time` (unix seconds or RFC 3339; now), `id` (the same target and id again change nothing) and `comment`; further fields are ignored.
#[utoipa::path(
    post,
    path = "/webhook/action", tag = "alerts",
    request_body(content = Value, content_type = "application/json", example = json!({"target": "web-1", "id": "PD-7", "comment": "failed over"})),
    responses(
        (status = 200, body = Value, example = json!({"target": "web-1", "time": "2026-01-10T15:30:45Z", "stored": 1, "duplicate": 0, "other_shard": 0})),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "Not an action"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "Cannot store now"),
    ),
)]
pub async fn act(
    State(app): State<Arc<App>>,
    body: Result<JsonBody, Problem>,
) -> Result<Response, Problem> {
    let JsonBody { bytes: body, .. } = body?;
    let store = state(&app)?;
    let _slot = app.webhook_slots.acquire().await;
    let now = (app.clock)();
    let action = action::parse(&body, now, &app.serving.load().config).map_err(|problem| {
        Problem::new(StatusCode::BAD_REQUEST, format!("not an action: {problem}"))
    })?;
    let answer = |stored, duplicate, other_shard| {
        json(&value!({
            "target": action.target.as_str(),
            "time": action.at.to_string(),
            "stored": stored,
            "duplicate": duplicate,
            "other_shard": other_shard,
        }))
    };
    if !app.shard.owns(action.target.as_str()) {
        return Ok(answer(0, 0, 1));
    }
    let stored = action.clone();
    let recorded = blocking(move || store.record_actions(now, &[stored])).await;
    let recorded = recorded.map_err(|error| {
        app.metrics.state_write_failures.inc();
        tracing::error!(%error, "cannot store an action");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()).retry_after(10)
    })?;
    let count = app.metrics.actions.with_label_values(&["webhook"]);
    count.inc_by(recorded.stored);
    Ok(answer(recorded.stored, recorded.duplicate, 0))
}

/// What somebody did about targets, newest first
#[utoipa::path(
    get,
    path = "/api/v1/actions", tag = "fleet",
    responses(
        (status = 200, body = Value, example = json!({"actions": [{"target": "web-1", "time": "2026-01-10T15:30:45Z", "id": "PD-7", "comment": "failed over"}]})),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "State is off or cannot be read"),
    ),
)]
pub async fn actions(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let records = recorded(&app, |store, since, now| store.actions(since, now, ACTIONS)).await?;
    let actions: Vec<Value> = records
        .iter()
        .map(|action| {
            value!({
                "target": action.target.as_str(),
                "time": action.at.to_string(),
                "id": action.id,
                "comment": action.comment,
            })
        })
        .collect();
    Ok(json(&value!({ "actions": actions })))
}
