//! `/-/reload`: asks for a reload and tells what became of it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::sync::{mpsc, oneshot};

use super::App;
use super::problem::Problem;

/// Takes the answer: what is in service now, or why everything stays as it was.
pub type ReloadRequest = oneshot::Sender<Result<String, String>>;

/// Where reloads are asked for. One may wait while another is under way.
#[derive(Clone)]
pub struct Reloads(mpsc::Sender<ReloadRequest>);

impl Reloads {
    pub fn channel() -> (Self, mpsc::Receiver<ReloadRequest>) {
        let (sender, receiver) = mpsc::channel(1);
        (Self(sender), receiver)
    }

    /// `None` when one is waiting already.
    pub fn ask(&self) -> Option<oneshot::Receiver<Result<String, String>>> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(reply).ok().map(|()| answer)
    }
}

/// Read the configuration and the model again
///
/// Everything is checked first; then the new config and the new model take over together. On an error both stay as they were.
/// Only with `--web.enable-lifecycle`.
#[utoipa::path(
    post,
    path = "/-/reload", tag = "operations",
    responses(
        (status = 200, body = String, content_type = "text/plain; charset=utf-8", description = "In service"),
        (status = 202, body = String, content_type = "text/plain; charset=utf-8", description = "Still under way at the end of api.request_timeout"),
    ),
)]
pub async fn reload(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let Some(reloads) = &app.reloads else {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "lifecycle routes are off; start with --web.enable-lifecycle, or send SIGHUP",
        ));
    };
    let answer = reloads.ask().ok_or_else(|| {
        let detail = "another reload is waiting already; retry after a second";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(1)
    })?;
    // Before the guard's own limit cuts it off.
    let limit = app.serving.load().config.api.request_timeout.mul_f64(0.9);
    match tokio::time::timeout(limit, answer).await {
        Ok(Ok(Ok(done))) => Ok(format!("{done}\n").into_response()),
        Ok(Ok(Err(why))) => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, why)),
        Ok(Err(_)) => Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "forewarn is stopping",
        )),
        Err(_) => {
            let text = "the reload is still under way; forewarn_config_last_reload_successful and the log tell how it ends\n";
            Ok((StatusCode::ACCEPTED, text).into_response())
        }
    }
}
