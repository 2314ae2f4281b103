//! What somebody did about a target, as people and their tools tell it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::api::{recorded, state};
use super::{App, JsonBody, Problem, blocking, json};
use crate::action;
use crate::state::ActionRecord;

/// Given at once at most.
const ACTIONS: usize = 1000;

/// What became of an action.
#[derive(Serialize, ToSchema)]
pub struct Acted<'a> {
    #[schema(example = "web-1")]
    target: &'a str,
    #[schema(format = DateTime)]
    time: String,
    /// 1 when it is new.
    stored: u64,
    /// 1 when it was known by target and id.
    duplicate: u64,
    /// 1 when the target belongs to another shard: it is not stored here.
    other_shard: u64,
}

/// Tell that somebody acted on a target
///
/// Where nothing fails within the horizon after an alarm or a score, and somebody acted in that time, the outcome is uncertain: it counts neither
/// for nor against the model, and is not learned from. The same target and id again change nothing.
#[utoipa::path(
    post,
    path = "/webhook/action", tag = "alerts",
    request_body(content = ref("#/components/schemas/Action"), content_type = "application/json"),
    responses((status = 200, body = Acted, description = "It is stored durably, or was already")),
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
        json(&Acted {
            target: action.target.as_str(),
            time: action.at.to_string(),
            stored,
            duplicate,
            other_shard,
        })
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

/// What somebody did about targets, newest first.
#[derive(Serialize, ToSchema)]
pub struct Actions<'a> {
    actions: Vec<Action<'a>>,
}

/// Somebody did something about a target.
#[derive(Serialize, ToSchema)]
#[schema(as = StoredAction)]
pub struct Action<'a> {
    #[schema(example = "web-1")]
    target: &'a str,
    #[schema(format = DateTime)]
    time: String,
    /// As it was told; `silence/<id>` of a silence.
    #[schema(example = "PD-7")]
    id: &'a str,
    comment: &'a str,
}

impl<'a> From<&'a ActionRecord> for Action<'a> {
    fn from(action: &'a ActionRecord) -> Self {
        Self {
            target: action.target.as_str(),
            time: action.at.to_string(),
            id: &action.id,
            comment: &action.comment,
        }
    }
}

/// What somebody did about targets
///
/// Of `state.retention`, the newest 1,000, newest first: silences and what `POST /webhook/action` told.
#[utoipa::path(
    get,
    path = "/api/v1/actions", tag = "fleet",
    responses((status = 200, body = Actions, description = "By time")),
)]
pub async fn actions(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let records = recorded(&app, |store, since, now| store.actions(since, now, ACTIONS)).await?;
    Ok(json(&Actions {
        actions: records.iter().map(Action::from).collect(),
    }))
}
