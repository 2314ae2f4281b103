//! The small routes: JSON behind the status page, `/metrics`, health and the webhook.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use serde_json::{Value, json as value};
use utoipa::ToSchema;

use super::advice::Advice;
use super::happenings::{self, Happening, foreseen_by};
use super::predict::Members;
use super::problem::Problem;
use super::{App, JsonBody, blocking, json};
use crate::assessment::{Assessment, Reason};
use crate::config::Config;
use crate::drift::Drift;
use crate::metrics::{Format, ModelCard};
use crate::scoreboard::Summary;
use crate::state::{AlarmRecord, StateError, Store, StoredAlert};
use crate::time::Timestamp;
use crate::types::{RiskLevel, ServeMember, TargetState};
use crate::webhook::{self, WebhookError};

/// Incidents or alerts in one answer.
const INCIDENTS: usize = 1000;
/// Alarms that alerts are joined with.
const ALARMS: usize = 10_000;

/// What the last cycle says about all targets.
#[derive(Serialize, ToSchema)]
pub struct Targets<'a> {
    /// Evaluation time of the cycle, RFC 3339; null before the first one.
    at: Option<String>,
    targets: Vec<Target<'a>>,
}

/// What the last cycle says about one target.
#[derive(Serialize, ToSchema)]
pub struct Target<'a> {
    target: &'a str,
    labels: BTreeMap<&'a str, &'a str>,
    #[schema(value_type = String, example = "ok")]
    state: TargetState,
    /// Null unless the state is ok.
    failure_probability: Option<f64>,
    #[schema(value_type = Option<String>, example = "LOW")]
    failure_risk: Option<RiskLevel>,
    models: Option<Members>,
    #[schema(value_type = Vec<Object>)]
    reasons: &'a [Reason],
}

impl<'a> From<&'a Assessment> for Target<'a> {
    fn from(assessment: &'a Assessment) -> Self {
        let risk = assessment.risk.as_ref();
        Self {
            target: assessment.target.as_str(),
            labels: assessment
                .labels
                .iter()
                .map(|(n, v)| (n.as_str(), v.as_str()))
                .collect(),
            state: assessment.state,
            failure_probability: risk.map(|r| r.probability),
            failure_risk: risk.map(|r| r.level),
            models: risk.map(|r| Members::from(&r.score)),
            reasons: risk.map_or(&[], |r| &r.reasons),
        }
    }
}

/// All that is known of one target.
#[derive(Serialize, ToSchema)]
pub struct TargetDetail<'a> {
    /// Here with up to ten reasons, whatever the probability.
    #[serde(flatten)]
    target: Target<'a>,
    /// What to do, the most urgent first; empty without a probability.
    recommendations: &'a [String],
    course: Past,
    /// Incidents, alarms and alerts, newest first; null where state is off.
    happenings: Option<Vec<Happening>>,
}

/// What was said at the last steps.
#[derive(Serialize, ToSchema)]
pub struct Past {
    step_seconds: f64,
    /// Oldest first, the last one is that of the newest cycle; null where there was none.
    probabilities: Vec<Option<f64>>,
}

/// All targets with state, probability and reasons
#[utoipa::path(get, path = "/api/v1/targets", tag = "fleet", responses((status = 200, body = Targets)))]
pub async fn targets(State(app): State<Arc<App>>) -> Response {
    let snapshot = app.serving.load().snapshot.clone();
    let assessments = snapshot.as_deref().map_or(&[][..], |s| &s.assessments);
    json(&Targets {
        at: snapshot.as_deref().map(|s| s.at.to_string()),
        targets: assessments.iter().map(Target::from).collect(),
    })
}

/// One target
#[utoipa::path(
    get,
    path = "/api/v1/targets/{target}", tag = "fleet",
    params(("target" = String, Path, description = "As in the label `target`; may contain slashes")),
    responses(
        (status = 200, body = TargetDetail),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "Not among the targets of the last cycle"),
    ),
)]
pub async fn target(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let serving = app.serving.load_full();
    let snapshot = serving.snapshot.as_deref();
    let Some(assessment) = snapshot.and_then(|snapshot| snapshot.find(&name)) else {
        let elsewhere = snapshot.and_then(|snapshot| snapshot.is_elsewhere(&name));
        let hint = elsewhere.unwrap_or_else(|| "GET /api/v1/targets lists them".into());
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            format!("{name} is not among the targets of the last cycle; {hint}"),
        ));
    };
    let happenings = match app.store.clone() {
        Some(store) => {
            let (config, now) = (serving.config.clone(), (app.clock)());
            let read = move || happenings::of_target(&store, &config, &name, now);
            Some(blocking(read).await.map_err(unreadable)?)
        }
        None => None,
    };
    let advice = serving
        .model
        .as_deref()
        .and_then(|bundle| Advice::of(assessment, bundle, serving.config.model.serve));
    let (reasons, recommendations) = match &advice {
        Some(advice) => (advice.reasons.as_slice(), advice.recommendations.as_slice()),
        None => (&[][..], &[][..]),
    };
    Ok(json(&TargetDetail {
        target: Target {
            reasons,
            ..Target::from(assessment)
        },
        recommendations,
        course: Past {
            step_seconds: serving.config.step.as_secs_f64(),
            probabilities: assessment.course.probabilities(),
        },
        happenings,
    }))
}

fn unreadable(error: StateError) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}

/// Recorded incidents, newest first
#[utoipa::path(
    get,
    path = "/api/v1/incidents", tag = "fleet",
    responses(
        (status = 200, body = Value),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "State is off or cannot be read"),
    ),
)]
pub async fn incidents(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let records = recorded(&app, |store, since, now| {
        store.incidents(since, now, INCIDENTS)
    })
    .await?;
    let incidents: Vec<Value> = records
        .iter()
        .map(|incident| {
            value!({
                "target": incident.target.as_str(),
                "source": incident.source,
                "start": incident.start.to_string(),
                "end": incident.end.map(|end| end.to_string()),
                "foreseen_seconds": incident.foreseen,
                "reasons": incident.reasons,
            })
        })
        .collect();
    Ok(json(&value!({ "incidents": incidents })))
}

/// Alerts received from Alertmanager, newest first, and whether an alarm foresaw them
#[utoipa::path(
    get,
    path = "/api/v1/alerts", tag = "fleet",
    responses(
        (status = 200, body = Value),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "State is off or cannot be read"),
    ),
)]
pub async fn alerts(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let (alerts, alarms) = recorded(&app, |store, since, now| {
        Ok((store.alerts(since, now)?, store.alarms(since, ALARMS)?))
    })
    .await?;
    let config = &app.serving.load().config;
    let alerts: Vec<Value> = alerts
        .iter()
        .rev()
        .take(INCIDENTS)
        .map(|alert| alert_json(alert, &alarms, config))
        .collect();
    Ok(json(&value!({ "alerts": alerts })))
}

/// What the store has of the time from the beginning of the retention to now.
pub(super) async fn recorded<T: Send + 'static>(
    app: &App,
    read: impl FnOnce(&Store, Timestamp, Timestamp) -> Result<T, StateError> + Send + 'static,
) -> Result<T, Problem> {
    let store = state(app)?;
    let now = (app.clock)();
    let since = now.minus(app.serving.load().config.state.retention);
    blocking(move || read(&store, since, now))
        .await
        .map_err(unreadable)
}

/// An alert joined with the alarm that covered its start. Our own alerts name their target themselves and foresee, not happen.
fn alert_json(alert: &StoredAlert, alarms: &[AlarmRecord], config: &Config) -> Value {
    let target = webhook::subject(alert.own, &alert.labels, config);
    let alarm = target
        .as_deref()
        .and_then(|target| foreseen_by(alert, target, alarms));
    value!({
        "target": target.as_deref(),
        "own": alert.own,
        "labels": alert.labels,
        "starts_at": alert.starts_at.to_string(),
        "ends_at": alert.ends_at.map(|end| end.to_string()),
        "received_at": alert.received_at.to_string(),
        "foreseen_seconds": alarm.map(|alarm| alert.starts_at.since(alarm.opened).as_secs_f64()),
        "reasons": alarm.and_then(|alarm| alarm.reasons.clone()),
    })
}

/// What the served model is, and how far the world has moved from it.
#[derive(Serialize, ToSchema)]
pub struct ServedModel<'a> {
    #[serde(flatten)]
    card: ModelCard,
    /// Null until a day was scored, and for models that do not say what they were trained on.
    drift: Option<&'a Drift>,
}

/// The served model
#[utoipa::path(
    get,
    path = "/api/v1/model", tag = "fleet",
    responses(
        (status = 200, body = ServedModel),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "No model"),
    ),
)]
pub async fn model(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let serving = app.serving.load();
    let card = ModelCard::of(serving.bundle()?);
    let snapshot = serving.snapshot.as_deref();
    let drift = snapshot.and_then(|snapshot| snapshot.drift.as_ref());
    Ok(json(&ServedModel { card, drift }))
}

/// How good the predictions have been
#[utoipa::path(get, path = "/api/v1/scoreboard", tag = "fleet", responses((status = 200, body = Value)))]
pub async fn scoreboard(State(app): State<Arc<App>>) -> Response {
    match &app.serving.load().snapshot {
        Some(snapshot) => json(&snapshot.scoreboard),
        None => json(&Summary::default()),
    }
}

/// How good the predictions of the model in the shadow have been
#[utoipa::path(
    get,
    path = "/api/v1/shadow", tag = "fleet",
    responses(
        (status = 200, body = Value),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No model is in the shadow"),
    ),
)]
pub async fn shadow(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let serving = app.serving.load();
    let shadow = serving.snapshot.as_ref().and_then(|s| s.shadow.as_ref());
    shadow.map(json).ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "no model is in the shadow; model.shadow in the config names one",
        )
    })
}

/// Prometheus metrics
#[utoipa::path(
    get,
    path = "/metrics", tag = "operations",
    responses((status = 200, body = String, content_type = "text/plain", description = "Text 0.0.4, or OpenMetrics 1.0 by Accept")),
)]
pub async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    let format = Format::negotiate(accept.unwrap_or_default());
    let serving = app.serving.load_full();
    let (snapshot, card) = (serving.snapshot.clone(), serving.card());
    let pieces = app.metrics.render(snapshot, card.as_ref(), format);
    let body = Body::from_stream(stream::iter(pieces.map(Ok::<_, Infallible>)));
    ([(header::CONTENT_TYPE, format.content_type())], body).into_response()
}

/// Whether a model is loaded
#[utoipa::path(get, path = "/health", tag = "operations", responses((status = 200, body = Value)))]
pub async fn health(State(app): State<Arc<App>>) -> Response {
    json(&match &app.serving.load().model {
        Some(bundle) => {
            let mut models: Vec<&str> = bundle.members().map(ServeMember::name).collect();
            models.sort_unstable();
            value!({"status": "ok", "models": models})
        }
        None => value!({"status": "no models", "models": []}),
    })
}

/// Alive
#[utoipa::path(get, path = "/-/healthy", tag = "operations", responses((status = 200, body = String, content_type = "text/plain")))]
pub async fn healthy() -> &'static str {
    "forewarn is healthy.\n"
}

/// Ready to serve: a model is loaded and the first cycle is done
#[utoipa::path(
    get,
    path = "/-/ready", tag = "operations",
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn ready(State(app): State<Arc<App>>) -> Result<&'static str, Problem> {
    app.serving.load().bundle()?;
    if app.ready() {
        Ok("forewarn is ready.\n")
    } else {
        Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the first cycle is not done yet",
        ))
    }
}

/// Receive alerts from Alertmanager
///
/// Webhook version 4. A 200 means that every alert is stored durably; 503 asks Alertmanager to send again.
#[utoipa::path(
    post,
    path = "/webhook/alertmanager", tag = "alerts",
    request_body(content = Value, content_type = "application/json"),
    responses(
        (status = 200, body = Value),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "Not an Alertmanager webhook"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "Cannot store now"),
    ),
)]
pub async fn webhook(
    State(app): State<Arc<App>>,
    body: Result<JsonBody, Problem>,
) -> Result<Response, Problem> {
    let count = |result, n| {
        app.metrics
            .webhook_alerts
            .with_label_values(&[result])
            .inc_by(n)
    };
    let JsonBody { bytes: body, .. } = body.inspect_err(|problem| match problem.status {
        503 => count("failed", 1),
        _ => count("malformed", 1),
    })?;
    let store = state(&app).inspect_err(|_| count("failed", 1))?;
    let _slot = app.webhook_slots.acquire().await;
    let (own, serving) = (app.own_alerts.load_full(), app.serving.load_full());
    let (shard, now) = (app.shard, (app.clock)());
    let receive = move || {
        webhook::receive(
            &store,
            &body,
            now,
            &own,
            |target| shard.owns(target),
            &serving.config,
        )
    };
    match blocking(receive).await {
        Ok(received) => {
            count("stored", received.stored);
            count("duplicate", received.duplicate);
            count("own", received.own);
            count("other_shard", received.elsewhere);
            app.metrics
                .webhook_truncated_alerts
                .inc_by(received.truncated);
            Ok(json(&value!({
                "stored": received.stored,
                "duplicate": received.duplicate,
                "own": received.own,
                "other_shard": received.elsewhere,
                "truncated": received.truncated,
            })))
        }
        Err(error @ WebhookError::Malformed(_)) => {
            count("malformed", 1);
            Err(Problem::new(StatusCode::BAD_REQUEST, error.to_string()))
        }
        Err(error @ WebhookError::Unavailable(_)) => {
            count("failed", 1);
            app.metrics.state_write_failures.inc();
            tracing::error!(%error, "cannot store alerts");
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()).retry_after(10))
        }
    }
}

pub(super) fn state(app: &App) -> Result<Store, Problem> {
    app.store.clone().ok_or_else(|| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "state is off; set state.enabled: true to store alerts and incidents",
        )
    })
}
