//! The small routes: JSON behind the status page, `/metrics`, health and the webhook.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::advice::Advice;
use super::happenings::{self, Happening, foreseen_by};
use super::predict::Members;
use super::problem::Problem;
use super::{App, JsonBody, blocking, json};
use crate::assessment::{Assessment, Reason, ShadowBoard};
use crate::config::Config;
use crate::drift::Drift;
use crate::metrics::{Format, ModelCard};
use crate::scoreboard::Summary;
use crate::state::{AlarmRecord, IncidentRecord, StateError, Store, StoredAlert};
use crate::time::Timestamp;
use crate::types::{RiskLevel, ServeMember, Source, TargetState};
use crate::webhook::{self, Received, WebhookError};

/// Incidents or alerts in one answer.
const INCIDENTS: usize = 1000;
/// Alarms that alerts are joined with.
const ALARMS: usize = 10_000;

/// What the last cycle says about all targets.
#[derive(Serialize, ToSchema)]
pub struct Targets<'a> {
    /// Evaluation time of the cycle; null before the first one.
    #[schema(required, format = DateTime, example = "2026-01-10T15:30:00Z")]
    at: Option<String>,
    targets: Vec<Target<'a>>,
}

/// What the last cycle says about one target.
#[derive(Serialize, ToSchema)]
pub struct Target<'a> {
    /// The values of `targets.label`, joined with `/`.
    #[schema(example = "web-1")]
    target: &'a str,
    /// `targets.extra_labels`.
    labels: BTreeMap<&'a str, &'a str>,
    state: TargetState,
    /// Calibrated; null unless the state is ok.
    #[schema(required, minimum = 0, maximum = 1)]
    failure_probability: Option<f64>,
    #[schema(required)]
    failure_risk: Option<RiskLevel>,
    #[schema(required)]
    models: Option<Members>,
    /// Three at most, the strongest first; empty for targets that are far from an alarm.
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
///
/// What the last cycle says. It changes once per `step`, so asking more often gives the same.
#[utoipa::path(get, path = "/api/v1/targets", tag = "fleet", responses((status = 200, body = Targets, description = "By target")))]
pub async fn targets(State(app): State<Arc<App>>) -> Response {
    let snapshot = app.serving.load().snapshot.clone();
    let assessments = snapshot.as_deref().map_or(&[][..], |s| &s.assessments);
    json(&Targets {
        at: snapshot.as_deref().map(|s| s.at.to_string()),
        targets: assessments.iter().map(Target::from).collect(),
    })
}

/// One target
///
/// As in the list of all. Of a target that belongs to another shard the 404 says which shard.
#[utoipa::path(
    get,
    path = "/api/v1/targets/{target}", tag = "fleet",
    params(("target" = String, Path, description = "As in the label `target`. It may contain slashes, as they are or as `%2F`")),
    responses((status = 200, body = TargetDetail, description = "The target")),
)]
pub async fn target(
    State(app): State<Arc<App>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(name) =
        name.map_err(|rejection| Problem::new(StatusCode::BAD_REQUEST, rejection.body_text()))?;
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

/// Recorded incidents, newest first.
#[derive(Serialize, ToSchema)]
pub struct Incidents<'a> {
    incidents: Vec<Incident<'a>>,
}

/// A period in which a target was failing.
#[derive(Serialize, ToSchema)]
pub struct Incident<'a> {
    #[schema(example = "web-1")]
    target: &'a str,
    source: Source,
    #[schema(format = DateTime)]
    start: String,
    /// Null while it goes on.
    #[schema(required, format = DateTime)]
    end: Option<String>,
    /// foreseen, missed, or unwatched: it began before forewarn had made a prediction of the target, and counts as neither.
    #[schema(example = "foreseen")]
    verdict: &'static str,
    /// By how much an alarm came before the start; null when none did.
    #[schema(required)]
    foreseen_seconds: Option<f64>,
    /// What the alarm gave as its reasons.
    #[schema(required, value_type = Option<Vec<Reason>>)]
    reasons: Option<&'a Value>,
}

impl<'a> From<&'a IncidentRecord> for Incident<'a> {
    fn from(incident: &'a IncidentRecord) -> Self {
        Self {
            target: incident.target.as_str(),
            source: incident.source,
            start: incident.start.to_string(),
            end: incident.end.map(|end| end.to_string()),
            verdict: incident.verdict(),
            foreseen_seconds: incident.foreseen,
            reasons: incident.reasons.as_ref(),
        }
    }
}

/// Recorded incidents
///
/// Of `state.retention`, the newest 1,000, newest first: when which target failed, who said so, and whether an alarm foresaw it.
#[utoipa::path(
    get,
    path = "/api/v1/incidents", tag = "fleet",
    responses((status = 200, body = Incidents, description = "Newest first")),
)]
pub async fn incidents(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let records = recorded(&app, |store, since, now| {
        store.incidents(since, now, INCIDENTS)
    })
    .await?;
    Ok(json(&Incidents {
        incidents: records.iter().map(Incident::from).collect(),
    }))
}

/// Alerts that came by the webhook, newest first.
#[derive(Serialize, ToSchema)]
pub struct Alerts<'a> {
    alerts: Vec<Alert<'a>>,
}

/// An alert, and whether an alarm foresaw it.
#[derive(Serialize, ToSchema)]
pub struct Alert<'a> {
    /// Null when its labels name none.
    #[schema(required, example = "web-1")]
    target: Option<String>,
    /// Whether our own predictions raised it; such an alert is never taken for a failure.
    own: bool,
    labels: &'a BTreeMap<String, String>,
    #[schema(format = DateTime)]
    starts_at: String,
    /// Null while it fires.
    #[schema(required, format = DateTime)]
    ends_at: Option<String>,
    #[schema(format = DateTime)]
    received_at: String,
    /// By how much an alarm came before it; null when none did.
    #[schema(required)]
    foreseen_seconds: Option<f64>,
    /// What the alarm gave as its reasons.
    #[schema(required, value_type = Option<Vec<Reason>>)]
    reasons: Option<&'a Value>,
}

/// Alerts received from Alertmanager
///
/// Of `state.retention`, the newest 1,000, newest first, each with the alarm that foresaw it.
#[utoipa::path(
    get,
    path = "/api/v1/alerts", tag = "fleet",
    responses((status = 200, body = Alerts, description = "Newest first")),
)]
pub async fn alerts(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let (alerts, alarms) = recorded(&app, |store, since, now| {
        Ok((store.alerts(since, now)?, store.alarms(since, ALARMS)?))
    })
    .await?;
    let config = &app.serving.load().config;
    let alerts = alerts
        .iter()
        .rev()
        .take(INCIDENTS)
        .map(|alert| joined(alert, &alarms, config))
        .collect();
    Ok(json(&Alerts { alerts }))
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
fn joined<'a>(alert: &'a StoredAlert, alarms: &'a [AlarmRecord], config: &Config) -> Alert<'a> {
    let target = webhook::subject(alert.own, &alert.labels, config);
    let alarm = target
        .as_deref()
        .and_then(|target| foreseen_by(alert, target, alarms));
    Alert {
        own: alert.own,
        labels: &alert.labels,
        starts_at: alert.starts_at.to_string(),
        ends_at: alert.ends_at.map(|end| end.to_string()),
        received_at: alert.received_at.to_string(),
        foreseen_seconds: alarm.map(|alarm| alert.starts_at.since(alarm.opened).as_secs_f64()),
        reasons: alarm.and_then(|alarm| alarm.reasons.as_ref()),
        target: target.map(Cow::into_owned),
    }
}

/// What the served model is, and how far the world has moved from it.
#[derive(Serialize, ToSchema)]
pub struct ServedModel<'a> {
    #[serde(flatten)]
    card: ModelCard,
    /// Null until a day was scored, and for models that do not say what they were trained on.
    #[schema(required)]
    drift: Option<&'a Drift>,
}

/// The served model
///
/// Its horizon, signals and alert threshold, and how far the last day has drifted from what it was trained on.
#[utoipa::path(
    get,
    path = "/api/v1/model", tag = "fleet",
    responses((status = 200, body = ServedModel, description = "The model's card")),
)]
pub async fn model(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let serving = app.serving.load();
    let card = ModelCard::of(serving.bundle()?);
    let snapshot = serving.snapshot.as_deref();
    let drift = snapshot.and_then(|snapshot| snapshot.drift.as_ref());
    Ok(json(&ServedModel { card, drift }))
}

/// How good the predictions have been
///
/// Counts since the first start, ratios over the rolling window. A ratio is null until there is enough to make it of.
#[utoipa::path(
    get,
    path = "/api/v1/scoreboard", tag = "fleet",
    responses((status = 200, body = Summary, description = "Zeros before the first cycle")),
)]
pub async fn scoreboard(State(app): State<Arc<App>>) -> Response {
    match &app.serving.load().snapshot {
        Some(snapshot) => json(&snapshot.scoreboard),
        None => json(&Summary::default()),
    }
}

/// How good the predictions of the model in the shadow have been
///
/// A candidate that `model.shadow` names scores beside the served model, without telling anybody.
#[utoipa::path(
    get,
    path = "/api/v1/shadow", tag = "fleet",
    responses((status = 200, body = ShadowBoard, description = "As the scoreboard")),
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
///
/// `failure_probability` of each target and what forewarn says of itself. Scrape it with `honor_labels: true`.
#[utoipa::path(
    get,
    path = "/metrics", tag = "operations",
    responses((
        status = 200,
        description = "Text 0.0.4, or OpenMetrics 1.0 for who prefers it by `Accept`",
        content(
            (String = "text/plain; version=0.0.4; charset=utf-8",
                example = "# TYPE failure_probability gauge\nfailure_probability{target=\"web-1\",job=\"node\"} 0.8543\n"),
            (String = "application/openmetrics-text; version=1.0.0; charset=utf-8",
                example = "# TYPE failure_probability gauge\nfailure_probability{target=\"web-1\",job=\"node\"} 0.8543\n# EOF\n"),
        ),
    )),
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

/// Whether a model is loaded.
#[derive(Serialize, ToSchema)]
pub struct Health {
    /// `ok` or `no models`
    #[schema(example = "ok")]
    status: &'static str,
    models: Vec<&'static str>,
}

/// Whether a model is loaded
///
/// As in the Python service, 200 either way; for probes there are `/-/healthy` and `/-/ready`.
#[utoipa::path(
    get,
    path = "/health", tag = "operations",
    responses((status = 200, body = Health, description = "The members that it has")),
)]
pub async fn health(State(app): State<Arc<App>>) -> Response {
    json(&match &app.serving.load().model {
        Some(bundle) => {
            let mut models: Vec<_> = bundle.members().map(ServeMember::name).collect();
            models.sort_unstable();
            let status = "ok";
            Health { status, models }
        }
        None => Health {
            status: "no models",
            models: Vec::new(),
        },
    })
}

/// Alive
#[utoipa::path(
    get,
    path = "/-/healthy", tag = "operations",
    responses((status = 200, body = String, content_type = "text/plain; charset=utf-8", description = "Always")),
)]
pub async fn healthy() -> &'static str {
    "forewarn is healthy.\n"
}

/// Ready to serve
#[utoipa::path(
    get,
    path = "/-/ready", tag = "operations",
    responses((
        status = 200, body = String, content_type = "text/plain; charset=utf-8",
        description = "A model is loaded, and the first cycle is done or Prometheus is known to be down",
    )),
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

/// What became of a delivery: numbers of alerts.
#[derive(Serialize, ToSchema)]
pub struct Taken {
    stored: u64,
    /// Known already by fingerprint, status and start.
    duplicate: u64,
    /// Raised by our own predictions.
    own: u64,
    /// About targets of other shards, and not stored here.
    other_shard: u64,
    /// Left out by Alertmanager (`max_alerts`).
    truncated: u64,
}

impl From<Received> for Taken {
    fn from(received: Received) -> Self {
        Self {
            stored: received.stored,
            duplicate: received.duplicate,
            own: received.own,
            other_shard: received.elsewhere,
            truncated: received.truncated,
        }
    }
}

/// Receive alerts from Alertmanager
///
/// Webhook version 4. A 200 means that every alert is on the disk; a 503 makes Alertmanager send again. The same delivery may come any number of times.
#[utoipa::path(
    post,
    path = "/webhook/alertmanager", tag = "alerts",
    request_body(content = ref("#/components/schemas/Delivery"), content_type = "application/json"),
    responses((status = 200, body = Taken, description = "Stored")),
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
            Ok(json(&Taken::from(received)))
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
