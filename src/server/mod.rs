//! The HTTP side: the API, `/metrics`, the webhook, the status page and the docs, all reading what the cycle published.

mod action;
mod advice;
mod api;
mod auth;
mod docs;
mod happenings;
mod examples;
mod page;
mod plain;
mod predict;
mod problem;
mod reload;
mod seats;
mod web;

use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use prometheus::IntCounter;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::ServiceExt;

use crate::assessment::Snapshot;
use crate::bundle::Bundle;
use crate::config::Config;
use crate::metrics::{Metrics, ModelCard};
use crate::state::Store;
use crate::time::Timestamp;
use crate::types::Shard;
use crate::webhook::OwnAlerts;

pub(crate) use predict::{Explain, Parser, Prediction, Scorer};
pub(crate) use problem::Problem;
pub use reload::{ReloadRequest, Reloads};
use seats::Seats;
use web::Guarded;
pub use web::Web;

/// Open connections that work is taken from.
const MAX_CONNECTIONS: usize = 1024;
/// Further ones, for scrapes and probes: each is answered once, work with 503. More wait in the listener's backlog.
const SPARE_CONNECTIONS: usize = 64;
/// Open connections that work is taken from, of one client address. A proxy in front is one too.
const MAX_OF_ONE: usize = MAX_CONNECTIONS / 2;
/// Spare connections of one client address; more are closed at once.
const SPARE_OF_ONE: usize = SPARE_CONNECTIONS / 2;
/// How long a spare connection may take to ask.
const SPARE_TIMEOUT: Duration = Duration::from_secs(5);
/// Also how long an idle connection stays open, hence longer than a usual scrape interval.
const HEADER_TIMEOUT: Duration = Duration::from_secs(75);
/// How long a client may take nothing of its answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Also within `api.shutdown_timeout`, usually.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Request line and headers together; more are answered 431.
const MAX_HEADER_BYTES: usize = 32 * 1024;
/// Batches at work at once; more are refused with 503.
const MAX_BATCHES: usize = 8;
/// Bodies above `SMALL_BODY` in memory at once, each at most of `api.max_body_bytes`; more are refused with 503.
const MAX_LARGE_BODIES: usize = 32;
const SMALL_BODY: usize = 64 * 1024;
/// Webhooks at work at once; more wait, at most `api.request_timeout`.
const MAX_WEBHOOKS: usize = 16;

/// What is in service. It is swapped as a whole, so that a reader never mixes the old and the new.
#[derive(Clone)]
pub struct Serving {
    pub config: Arc<Config>,
    pub model: Option<Arc<Bundle>>,
    /// Made with this config and this model; `None` before the first cycle.
    pub snapshot: Option<Arc<Snapshot>>,
}

impl Serving {
    fn bundle(&self) -> Result<&Arc<Bundle>, Problem> {
        self.model.as_ref().ok_or_else(|| {
            Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!(
                    "no model is loaded; train one with `forewarn train` or put a model directory under {}, and reload (SIGHUP)",
                    self.config.model.path.display()
                ),
            )
        })
    }

    fn card(&self) -> Option<ModelCard> {
        self.model.as_deref().map(ModelCard::of)
    }
}

/// What the handlers share.
pub struct App {
    /// Swapped by the cycle and by reloads.
    pub serving: ArcSwap<Serving>,
    /// Where `/-/reload` asks; `None` without `--web.enable-lifecycle`.
    pub reloads: Option<Reloads>,
    /// Which of the targets are ours.
    pub shard: Shard,
    /// Alerts that must not count as failures; from the rules that Prometheus has.
    pub own_alerts: ArcSwap<OwnAlerts>,
    pub metrics: Metrics,
    /// `None` with `state.enabled: false`.
    pub store: Option<Store>,
    /// Set once the first cycle is done or Prometheus is known to be down.
    pub cycled: AtomicBool,
    pub started_at: Timestamp,
    pub clock: fn() -> Timestamp,
    api_predictions: IntCounter,
    batch_predictions: IntCounter,
    batch_slots: Arc<Semaphore>,
    large_bodies: Arc<Semaphore>,
    webhook_slots: Semaphore,
}

impl App {
    pub fn new(
        config: Arc<Config>,
        metrics: Metrics,
        store: Option<Store>,
        clock: fn() -> Timestamp,
    ) -> Self {
        Self {
            serving: ArcSwap::from_pointee(Serving {
                config,
                model: None,
                snapshot: None,
            }),
            reloads: None,
            shard: Shard::WHOLE,
            own_alerts: ArcSwap::default(),
            api_predictions: metrics.predictions.with_label_values(&["api"]),
            batch_predictions: metrics.predictions.with_label_values(&["batch"]),
            metrics,
            store,
            cycled: AtomicBool::new(false),
            started_at: clock(),
            clock,
            batch_slots: Arc::new(Semaphore::new(MAX_BATCHES)),
            large_bodies: Arc::new(Semaphore::new(MAX_LARGE_BODIES)),
            webhook_slots: Semaphore::new(MAX_WEBHOOKS),
        }
    }

    fn ready(&self) -> bool {
        self.cycled.load(Ordering::Relaxed) && self.serving.load().model.is_some()
    }
}

/// Every route over `app`.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(page::status))
        .route("/predict", post(predict::predict))
        .route("/predict/batch", post(predict::predict_batch))
        .route("/webhook/alertmanager", post(api::webhook))
        .route("/webhook/action", post(action::act))
        .route("/metrics", get(api::metrics))
        .route("/health", get(api::health))
        .route("/-/healthy", get(api::healthy))
        .route("/-/ready", get(api::ready))
        .route("/-/reload", post(reload::reload))
        .route("/api/v1/targets", get(api::targets))
        .route("/api/v1/targets/{*target}", get(api::target))
        .route("/api/v1/incidents", get(api::incidents))
        .route("/api/v1/alerts", get(api::alerts))
        .route("/api/v1/actions", get(action::actions))
        .route("/api/v1/model", get(api::model))
        .route("/api/v1/scoreboard", get(api::scoreboard))
        .route("/api/v1/shadow", get(api::shadow))
        .route("/openapi.json", get(docs::openapi))
        .route("/docs", get(docs::swagger))
        .route("/redoc", get(docs::redoc))
        .route("/docs/{file}", get(docs::asset))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(app.clone(), guard))
        .layer(DefaultBodyLimit::disable())
        .with_state(app)
}

/// Serves until `shutdown` resolves, then lets requests under way finish for `api.shutdown_timeout`.
pub async fn serve(
    app: Arc<App>,
    web: Option<Arc<Web>>,
    listeners: Vec<TcpListener>,
    shutdown: impl Future<Output = ()>,
) {
    let front = Front {
        router: router(app.clone()),
        app: app.clone(),
        is_spare: false,
    };
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let spare_slots = Arc::new(Semaphore::new(SPARE_CONNECTIONS));
    let seats = Arc::new(Seats::default());
    let mut followers = JoinSet::new();
    followers.extend(web.clone().map(Web::follow));
    let mut shutdown = pin!(shutdown);
    loop {
        let next = async {
            let spare = spare_slots.clone().acquire_owned().await;
            (spare, accept(&listeners).await)
        };
        let (spare, accepted) = tokio::select! {
            () = &mut shutdown => break,
            next = next => next,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let seat = seats.take(peer.ip());
        if seat.taken > MAX_OF_ONE + SPARE_OF_ONE {
            continue;
        }
        let slot = match seat.taken <= MAX_OF_ONE {
            true => slots.clone().try_acquire_owned().ok(),
            false => None,
        };
        let is_spare = slot.is_none();
        // Whatever was not used is free again.
        let slot = slot.or(spare.ok());
        let front = Front {
            is_spare,
            ..front.clone()
        };
        let watcher = graceful.watcher();
        let web = web.clone();
        tokio::spawn(async move {
            let _held = (slot, seat);
            let Some(web) = web else {
                return converse(stream, is_spare, front, watcher).await;
            };
            let tls = web.tls();
            let guarded = Guarded {
                front,
                web,
                peer: peer.ip(),
            };
            match tls {
                None => converse(stream, is_spare, guarded, watcher).await,
                Some(tls) => match handshake(stream, tls).await {
                    Ok(stream) => converse(stream, is_spare, guarded, watcher).await,
                    Err(error) => tracing::debug!(%error, %peer, "no TLS connection"),
                },
            }
        });
    }
    drop(listeners);
    let drain = app.serving.load().config.api.shutdown_timeout;
    if tokio::time::timeout(drain, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!(
            timeout = ?drain,
            "requests were still under way at the end of api.shutdown_timeout"
        );
    }
}

/// Speaks HTTP until the client or the shutdown ends it.
async fn converse<S>(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    is_spare: bool,
    service: S,
    watcher: Watcher,
) where
    S: Service<
            hyper::Request<Incoming>,
            Response = hyper::Response<Either<Full<Bytes>, Body>>,
            Error = Infallible,
        >,
{
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(!is_spare)
        .max_header_size(MAX_HEADER_BYTES)
        .header_read_timeout(if is_spare {
            SPARE_TIMEOUT
        } else {
            HEADER_TIMEOUT
        })
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "connection ended early");
    }
}

async fn handshake(
    stream: TcpStream,
    config: Arc<rustls::ServerConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let accepted = TlsAcceptor::from(config).accept(stream);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, accepted).await {
        Ok(accepted) => accepted,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn accept(listeners: &[TcpListener]) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = poll_fn(|cx| {
        listeners
            .iter()
            .map(|listener| listener.poll_accept(cx))
            .find(Poll::is_ready)
            .unwrap_or(Poll::Pending)
    })
    .await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer))
}

/// What stands before the router: answers `/predict` itself, because the way through the router costs
/// a good part of such an answer, and refuses work on spare connections.
#[derive(Clone)]
struct Front {
    app: Arc<App>,
    router: Router,
    is_spare: bool,
}

impl Service<hyper::Request<Incoming>> for Front {
    type Response = hyper::Response<Either<Full<Bytes>, Body>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        let is_work = request.method() == Method::POST;
        if is_work && self.is_spare {
            let problem = Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!(
                    "{MAX_CONNECTIONS} connections are open already, or {MAX_OF_ONE} of this address; retry after a second"
                ),
            );
            let response = problem.retry_after(1).into_response().map(Either::Right);
            return Box::pin(std::future::ready(Ok(response)));
        }
        if is_work && request.uri().path() == "/predict" {
            let app = self.app.clone();
            return Box::pin(async move { Ok(predict_directly(&app, request).await) });
        }
        let response = self.router.clone().oneshot(request.map(Body::new));
        Box::pin(async move { response.await.map(|response| response.map(Either::Right)) })
    }
}

async fn predict_directly(
    app: &Arc<App>,
    request: hyper::Request<Incoming>,
) -> hyper::Response<Either<Full<Bytes>, Body>> {
    let (head, body) = request.into_parts();
    let answer = async {
        let body = JsonBody::read(&head.headers, body, app).await?;
        predict::answer(app, head.uri.query(), body.bytes).await
    };
    let mut response = match bounded(app, head.uri.path(), answer).await.flatten() {
        Ok(json) => {
            let mut response = hyper::Response::new(Either::Left(Full::from(json)));
            let kind = header::HeaderValue::from_static(JSON);
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Err(problem) => problem.into_response().map(Either::Right),
    };
    response
        .headers_mut()
        .insert(header::X_CONTENT_TYPE_OPTIONS, nosniff());
    response
}

/// Bounds what the router answers.
async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let answer = bounded(&app, &path, next.run(request)).await;
    let mut response = answer.unwrap_or_else(Problem::into_response);
    response
        .headers_mut()
        .insert(header::X_CONTENT_TYPE_OPTIONS, nosniff());
    response
}

/// Bounds a request in time and turns a panic into a 500 that gives nothing away.
async fn bounded<T>(app: &App, path: &str, answer: impl Future<Output = T>) -> Result<T, Problem> {
    let limit = app.serving.load().config.api.request_timeout;
    let answer = AssertUnwindSafe(answer).catch_unwind();
    match tokio::time::timeout(limit, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => {
            tracing::error!(%path, "a handler panicked");
            Err(Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "an internal error; the log has more",
            ))
        }
        Err(_) => {
            let detail = format!(
                "the request took longer than api.request_timeout ({})",
                crate::time::format_duration(limit)
            );
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(1))
        }
    }
}

async fn not_found(request: Request) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        format!(
            "there is no {}; /docs lists the routes",
            request.uri().path()
        ),
    )
}

async fn method_not_allowed(request: Request) -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!(
            "{} does not take {}; the Allow header names what it takes",
            request.uri().path(),
            request.method()
        ),
    )
}

const JSON: &str = "application/json";

/// A page that loads what `policy` (its Content-Security-Policy) says, stands in no frame and tells nobody where it is.
fn html(page: impl Into<Body>, policy: impl Into<String>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8".into()),
        (header::CONTENT_SECURITY_POLICY, policy.into()),
        (header::X_FRAME_OPTIONS, "deny".into()),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
    ];
    (headers, page.into()).into_response()
}

fn nosniff() -> header::HeaderValue {
    header::HeaderValue::from_static("nosniff")
}

/// `capacity` is about what the JSON takes.
fn encode<T: Serialize>(value: &T, capacity: usize) -> Result<Vec<u8>, Problem> {
    let mut json = Vec::with_capacity(capacity);
    match serde_json::to_writer(&mut json, value) {
        Ok(()) => Ok(json),
        Err(error) => {
            tracing::error!(%error, "cannot encode an answer");
            Err(Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the answer cannot be encoded",
            ))
        }
    }
}

fn encoded(json: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, JSON)], json).into_response()
}

fn json<T: Serialize>(value: &T) -> Response {
    encode(value, 1024).map_or_else(Problem::into_response, encoded)
}

/// Runs work that blocks beside the event loop; its panic is the caller's.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// A whole JSON request body within `api.max_body_bytes`.
struct JsonBody {
    bytes: Bytes,
    /// To hold a large body in memory.
    leave: Option<OwnedSemaphorePermit>,
}

impl FromRequest<Arc<App>> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let (head, body) = request.into_parts();
        Self::read(&head.headers, body, app).await
    }
}

impl JsonBody {
    async fn read<B>(headers: &HeaderMap, body: B, app: &App) -> Result<Self, Problem>
    where
        B: hyper::body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        check_type(headers)?;
        let max = app.serving.load().config.api.max_body_bytes;
        let too_large = || {
            Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!(
                    "the body is larger than api.max_body_bytes ({max} bytes); send fewer rows"
                ),
            )
        };
        let length = headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|l| l.to_str().ok()?.parse::<usize>().ok());
        if length.is_some_and(|length| length > max) {
            return Err(too_large());
        }
        let body = Limited::new(body, max);
        let leave = match length.unwrap_or(max) <= SMALL_BODY {
            true => None,
            false => match permit(&app.large_bodies, "large bodies") {
                Ok(leave) => Some(leave),
                Err(problem) => {
                    // Who is still sending would see the connection end instead of the answer.
                    let mut body = pin!(body);
                    while let Some(Ok(_)) = body.frame().await {}
                    return Err(problem);
                }
            },
        };
        match body.collect().await {
            Ok(body) => Ok(Self {
                bytes: body.to_bytes(),
                leave,
            }),
            Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
            Err(error) => Err(Problem::new(
                StatusCode::BAD_REQUEST,
                format!("the body could not be read: {error}"),
            )),
        }
    }
}

/// Leave to do what must not be done too often at once.
fn permit(slots: &Arc<Semaphore>, what: &str) -> Result<OwnedSemaphorePermit, Problem> {
    slots.clone().try_acquire_owned().map_err(|_| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("too many {what} at once; retry after a second"),
        )
        .retry_after(1)
    })
}

fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).map_or("", |v| v.to_str().unwrap_or("?"));
    let media = text(header::CONTENT_TYPE)
        .split(';')
        .next()
        .unwrap_or("")
        .trim();
    let encoding = text(header::CONTENT_ENCODING);
    let detail = if !media.eq_ignore_ascii_case("application/json") {
        format!("the content type is {media:?}; send application/json")
    } else if !matches!(encoding, "" | "identity") {
        format!("the content encoding is {encoding:?}; send the body uncompressed")
    } else {
        return Ok(());
    };
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::config::{
        AlertingConfig, ApiConfig, FailureConfig, FeaturesConfig, LogConfig, ModelConfig,
        SignalConfig, StateConfig, TargetsConfig, TrainConfig, UpstreamConfig,
    };
    use crate::model::{ForestParams, Imbalance, LogisticParams, XgboostParams};
    use crate::types::{RiskLevels, ServeMember, Signal, Unit};

    pub(super) fn app() -> Arc<App> {
        let signal = Signal {
            name: "cpu_usage".into(),
            unit: Unit::Percent,
        };
        let metrics = Metrics::new(Timestamp(0)).unwrap();
        let config = Config {
            prometheus: UpstreamConfig {
                url: "http://127.0.0.1:9090".into(),
                timeout: Duration::from_secs(1),
                concurrency: 1,
                auth: None,
                http_headers: Default::default(),
                follow_redirects: true,
                transport: Default::default(),
            },
            alertmanager: None,
            targets: TargetsConfig {
                label: vec!["instance".into()],
                extra_labels: Vec::new(),
                max: 1000,
            },
            signals: vec![SignalConfig {
                signal,
                query: "cpu".into(),
            }],
            step: Duration::from_secs(60),
            query_offset: Duration::ZERO,
            horizon: Duration::from_secs(1800),
            failure: FailureConfig {
                queries: Vec::new(),
                alerts: Vec::new(),
                acted: Vec::new(),
                min_duration: Duration::ZERO,
                merge_gap: Duration::ZERO,
                target_labels: Default::default(),
            },
            exclude: Vec::new(),
            compare: Default::default(),
            features: FeaturesConfig {
                min_signals: 0.5,
                fresh_steps: 5,
                min_coverage: 0.25,
            },
            train: TrainConfig {
                range: Duration::from_secs(60),
                schedule: Duration::ZERO,
                max_memory_bytes: 1 << 30,
                seed: 1,
                imbalance: Imbalance::None,
                recovery: Duration::ZERO,
                max_rows: 1,
                folds: 1,
                search: false,
                signals_per_tree: 1.0,
                xgboost: XgboostParams {
                    n_estimators: 1,
                    learning_rate: 0.1,
                    max_depth: 1,
                    min_child_weight: 1.0,
                    lambda: 1.0,
                    early_stopping_rounds: 1,
                },
                random_forest: ForestParams {
                    n_estimators: 1,
                    max_depth: 1,
                    min_samples_leaf: 1,
                },
                logistic_regression: LogisticParams { alpha: 1.0 },
            },
            model: ModelConfig {
                serve: ServeMember::Ensemble,
                shadow: None,
                path: "models".into(),
            },
            alerting: AlertingConfig {
                false_alarms_per_week: 7.0,
                for_: Duration::ZERO,
            },
            risk_levels: RiskLevels::default(),
            api: ApiConfig {
                listen: "127.0.0.1:0".into(),
                max_batch: 3,
                max_body_bytes: 64,
                request_timeout: Duration::from_millis(200),
                shutdown_timeout: Duration::from_secs(5),
            },
            state: StateConfig {
                enabled: false,
                path: "data".into(),
                retention: Duration::from_secs(60),
                max_bytes: 1 << 30,
            },
            page: Default::default(),
            log: LogConfig {
                level: "info".into(),
            },
        };
        Arc::new(App::new(Arc::new(config), metrics, None, || Timestamp(0)))
    }

    async fn send(
        request: axum::http::request::Builder,
        body: impl Into<Body>,
    ) -> (Response, String) {
        let request = request.body(body.into()).unwrap();
        let response = router(app()).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        (Response::from_parts(parts, Body::empty()), text)
    }

    fn header_of<'a>(response: &'a Response, name: &str) -> &'a str {
        response
            .headers()
            .get(name)
            .map_or("", |v| v.to_str().unwrap())
    }

    #[tokio::test]
    async fn refusals_are_problem_documents() {
        let json = "application/json";
        for (method, path, kind, body, status, detail) in [
            ("GET", "/nowhere", "", "", 404, "there is no /nowhere"),
            ("GET", "/docs/../secret", "", "", 404, "there is no"),
            ("GET", "/docs/nothing.js", "", "", 404, "no such file"),
            ("GET", "/predict", "", "", 405, "/predict does not take GET"),
            ("POST", "/predict", "", "{}", 415, "send application/json"),
            (
                "POST",
                "/predict",
                "text/plain",
                "{}",
                415,
                "\"text/plain\"",
            ),
            ("POST", "/predict", json, "{}", 503, "forewarn train"),
            ("POST", "/predict/batch", json, "[]", 503, "forewarn train"),
            ("POST", "/predict", json, &"1".repeat(65), 413, "64 bytes"),
            (
                "POST",
                "/predict?explain=maybe",
                json,
                "{}",
                422,
                "explain is \"maybe\"; it must be true, false or shap",
            ),
            (
                "POST",
                "/webhook/alertmanager",
                json,
                "{}",
                503,
                "state.enabled",
            ),
            ("GET", "/api/v1/incidents", "", "", 503, "state.enabled"),
            ("GET", "/api/v1/targets/%FF", "", "", 400, "UTF-8"),
            (
                "GET",
                "/api/v1/targets/a/b",
                "",
                "",
                404,
                "a/b is not among",
            ),
            ("GET", "/api/v1/model", "", "", 503, "forewarn train"),
            ("GET", "/-/ready", "", "", 503, "forewarn train"),
        ] {
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header("content-type", kind);
            let (response, text) = send(request, body.to_string()).await;
            assert_eq!(response.status(), status, "{method} {path}");
            assert_eq!(
                header_of(&response, "content-type"),
                "application/problem+json",
                "{path}"
            );
            let problem: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(problem["status"], status, "{path}");
            assert!(
                problem["detail"].as_str().unwrap().contains(detail),
                "{path}: {problem}"
            );
        }
    }

    #[tokio::test]
    async fn a_body_without_a_length_is_bounded_too() {
        let chunks =
            futures_util::stream::iter([(); 2].map(|()| Ok::<_, io::Error>("1".repeat(40))));
        let request = Request::post("/predict").header("content-type", "application/json");
        let (response, _) = send(request, Body::from_stream(chunks)).await;
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn a_body_that_never_ends_is_given_up() {
        let never = futures_util::stream::pending::<Result<Bytes, io::Error>>();
        let request = Request::post("/predict").header("content-type", "application/json");
        let (response, _) = send(request, Body::from_stream(never)).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn a_panic_is_a_500_that_gives_nothing_away() {
        let app = app();
        let router: Router = Router::new()
            .route(
                "/",
                get(|| async {
                    if true {
                        panic!("secret")
                    }
                }),
            )
            .layer(from_fn_with_state(app.clone(), guard))
            .with_state(app);
        let response = router.oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(!String::from_utf8_lossy(&body).contains("secret"));
    }

    #[tokio::test]
    async fn pages_answer_without_model_and_cycle() {
        for (path, kind, part) in [
            ("/", "text/html; charset=utf-8", "No model is loaded"),
            (
                "/docs",
                "text/html; charset=utf-8",
                "docs/swagger-ui-bundle.js",
            ),
            (
                "/redoc",
                "text/html; charset=utf-8",
                "docs/redoc.standalone.js",
            ),
            (
                "/docs/swagger-ui.css",
                "text/css; charset=utf-8",
                ".swagger-ui",
            ),
            ("/openapi.json", "application/json", "\"/predict/batch\""),
            (
                "/metrics",
                "text/plain; version=0.0.4; charset=utf-8",
                "forewarn_build_info",
            ),
            ("/health", "application/json", "no models"),
            ("/-/healthy", "text/plain; charset=utf-8", "healthy"),
            ("/api/v1/targets", "application/json", "\"targets\":[]"),
            ("/api/v1/scoreboard", "application/json", "\"right\":0"),
        ] {
            let (response, text) = send(Request::get(path), Body::empty()).await;
            assert_eq!(response.status(), StatusCode::OK, "{path}");
            assert_eq!(header_of(&response, "content-type"), kind, "{path}");
            assert!(text.contains(part), "{path}: {text:.300}");
        }
    }

    #[tokio::test]
    async fn the_document_names_every_route_and_the_signals() {
        let (_, text) = send(Request::get("/openapi.json"), Body::empty()).await;
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        let row = &document["components"]["schemas"]["Row"]["properties"];
        assert_eq!(row["cpu_usage"]["maximum"], 100.0);
        assert_eq!(document["components"]["schemas"]["Rows"]["maxItems"], 3);
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(
                document.pointer(pointer).is_some(),
                "{pointer} leads nowhere"
            );
        }
    }

    #[tokio::test]
    async fn a_request_can_say_no_address_path_or_query() {
        let (_, text) = send(Request::get("/openapi.json"), Body::empty()).await;
        let document: Value = serde_json::from_str(&text).unwrap();
        let routes = document["paths"].as_object().unwrap().values();
        let parameters: Vec<&Value> = routes
            .flat_map(|route| route.as_object().unwrap().values())
            .filter_map(|operation| operation["parameters"].as_array())
            .flatten()
            .map(|parameter| &parameter["name"])
            .collect();
        // `target` is looked up among those of the last cycle, `file` in a fixed list.
        assert_eq!(parameters, ["target", "file", "explain", "explain"]);
    }

    #[tokio::test]
    async fn requests_under_way_finish_before_the_end() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let served = tokio::spawn(serve(app(), None, vec![listener], async {
            let _ = stopped.await;
        }));
        let mut client = TcpStream::connect(address).await.unwrap();
        let head = "POST /predict HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n";
        client.write_all(head.as_bytes()).await.unwrap();
        let mut buffer = vec![0; 4096];
        let read = client.read(&mut buffer).await.unwrap();
        assert!(
            buffer[..read].starts_with(b"HTTP/1.1 100"),
            "the handler waits for the body"
        );
        stop.send(()).unwrap();
        client.write_all(b"{}").await.unwrap();
        let mut rest = String::new();
        client.read_to_string(&mut rest).await.unwrap();
        assert!(rest.starts_with("HTTP/1.1 503"), "{rest}");
        served.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
