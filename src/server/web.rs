//! The web config in force: read again when its files change, and in front of every request.

use std::convert::Infallible;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::Incoming;
use hyper::service::Service;

use super::auth::{Access, Gate};
use super::{Front, blocking, bounded, nosniff};
use crate::config::{Environment, Seen, WebConfig};

/// Between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The web config in force.
pub struct Web {
    path: PathBuf,
    env: Environment,
    gate: Arc<Gate>,
    terms: ArcSwap<Terms>,
    looks: Mutex<Looks>,
}

/// What a config says of connections and requests.
pub(super) struct Terms {
    tls: Option<Arc<rustls::ServerConfig>>,
    headers: Vec<(HeaderName, HeaderValue)>,
    pub access: Access,
    protections: [(&'static str, bool); 4],
}

struct Looks {
    /// What was in the files when they were last taken or refused.
    judged: Seen,
    last: Seen,
}

impl Web {
    /// # Errors
    /// A `ConfigError` with everything that is wrong.
    pub fn open(path: &Path, env: Environment) -> anyhow::Result<Arc<Self>> {
        let (config, seen) = WebConfig::load(path, &env);
        let gate = Gate::new()
            .ok()
            .context("the system gives no random numbers")?;
        let terms = Terms::of(config?, &gate);
        Ok(Arc::new(Self {
            path: path.to_owned(),
            env,
            gate: Arc::new(gate),
            terms: ArcSwap::from_pointee(terms),
            looks: Mutex::new(Looks {
                judged: seen.clone(),
                last: seen,
            }),
        }))
    }

    /// For the next connection.
    pub(super) fn tls(&self) -> Option<Arc<rustls::ServerConfig>> {
        self.terms.load().tls.clone()
    }

    /// Follows the files, for ever.
    pub(super) async fn follow(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        loop {
            ticks.tick().await;
            let web = self.clone();
            blocking(move || web.look()).await;
        }
    }

    /// Takes what has changed and is the same as at the last look: nobody is still writing it.
    fn look(&self) {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let now = looks.judged.again();
        let has_settled = now == looks.last;
        looks.last = now;
        if looks.last == looks.judged || !has_settled {
            return;
        }
        let (config, seen) = WebConfig::load(&self.path, &self.env);
        looks.judged = seen.clone();
        looks.last = seen;
        let file = self.path.display();
        let terms = match config {
            Ok(config) => Terms::of(config, &self.gate),
            Err(error) => {
                tracing::error!(%error, "the changed web config is not taken, the one before stays in force");
                return;
            }
        };
        match self.terms.load().lost_in(&terms) {
            Some(key) => tracing::error!(
                %file,
                "the changed web config is not taken: it has no {key} any more, and a protection is taken away by a restart only"
            ),
            None => {
                self.terms.store(Arc::new(terms));
                tracing::info!(%file, "the changed web config is in force");
            }
        }
    }
}

impl Terms {
    fn of(config: WebConfig, gate: &Gate) -> Self {
        Self {
            access: gate.access(&config),
            protections: [
                ("tls_server_config", config.tls.is_some()),
                ("client_auth_type", config.client_certificates),
                ("basic_auth_users", !config.users.is_empty()),
                (
                    "forewarn.write_credentials",
                    !config.write_credentials.is_empty(),
                ),
            ],
            tls: config.tls,
            headers: config.headers,
        }
    }

    /// A half-written file must not open what was closed.
    fn lost_in(&self, next: &Terms) -> Option<&'static str> {
        let mut pairs = self.protections.iter().zip(&next.protections);
        let lost = pairs.find(|((_, had), (_, has))| *had && !has);
        lost.map(|((key, _), _)| *key)
    }
}

/// A `Front` behind a web config.
#[derive(Clone)]
pub(super) struct Guarded {
    pub front: Front,
    pub web: Arc<Web>,
    pub peer: IpAddr,
}

impl Service<hyper::Request<Incoming>> for Guarded {
    type Response = hyper::Response<Either<Full<Bytes>, Body>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        let Self { front, web, peer } = self.clone();
        Box::pin(async move {
            let terms = web.terms.load_full();
            let (mut head, body) = request.into_parts();
            // For the document, which says what they demand.
            head.extensions.insert(terms.clone());
            let path = head.uri.path();
            let admitted = web
                .gate
                .admit(&terms.access, peer, &head.method, path, &head.headers);
            let mut response = match bounded(&front.app, path, admitted).await.flatten() {
                Ok(()) => front.call(hyper::Request::from_parts(head, body)).await?,
                Err(problem) => {
                    let max_bytes = front.app.serving.load().config.api.max_body_bytes;
                    let discarded = discard(&head.headers, body, max_bytes);
                    let _ = bounded(&front.app, path, discarded).await;
                    let mut response = problem.into_response().map(Either::Right);
                    let headers = response.headers_mut();
                    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff());
                    response
                }
            };
            for (name, value) in &terms.headers {
                response.headers_mut().insert(name, value.clone());
            }
            Ok(response)
        })
    }
}

/// Who is still sending would see the connection end instead of the answer.
async fn discard(headers: &HeaderMap, body: Incoming, max_bytes: usize) {
    if !headers.contains_key(header::EXPECT) {
        let mut body = pin!(Limited::new(body, max_bytes));
        while let Some(Ok(_)) = body.frame().await {}
    }
}
