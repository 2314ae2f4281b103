//! The least that a server of this API can cost: hyper takes a request, serde_json the seven numbers, and the answer has
//! the six fields that clients read, with no model behind them. `benches/requests.sh` compares with it.
//!
//! `PORT` (default 8010); two threads, as many as the comparison has cores.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

#[derive(Deserialize)]
struct Row {
    cpu_usage: f64,
    memory_usage: f64,
    disk_usage: f64,
    network_latency_ms: f64,
    error_count: f64,
    response_time_ms: f64,
    active_connections: f64,
}

#[derive(Serialize)]
struct Answer {
    failure_probability: f64,
    failure_risk: &'static str,
    confidence: f64,
    recommendations: &'static [&'static str],
    model_used: &'static str,
    timestamp: &'static str,
}

/// Depends on every field, so that none can be left unread.
fn answer(row: &Row) -> Answer {
    let sum = row.cpu_usage
        + row.memory_usage
        + row.disk_usage
        + row.network_latency_ms
        + row.error_count
        + row.response_time_ms
        + row.active_connections;
    let p = ((sum / 1e4).clamp(0.0, 1.0) * 1e4).round() / 1e4;
    Answer {
        failure_probability: p,
        failure_risk: "MINIMAL",
        confidence: (p.max(1.0 - p) * 1e3).round() / 1e3,
        recommendations: &["Nothing to do: no sign of a coming failure."],
        model_used: "ensemble",
        timestamp: "2026-01-10T15:30:45.123456+00:00",
    }
}

fn one(body: &[u8]) -> serde_json::Result<Vec<u8>> {
    let row: Row = serde_json::from_slice(body)?;
    serde_json::to_vec(&answer(&row))
}

fn many(body: &[u8]) -> serde_json::Result<Vec<u8>> {
    let rows: Vec<Row> = serde_json::from_slice(body)?;
    let answers: Vec<Answer> = rows.iter().map(answer).collect();
    let mut json = Vec::with_capacity(400 * answers.len());
    serde_json::to_writer(&mut json, &answers)?;
    Ok(json)
}

async fn handle(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let work = match request.uri().path() {
        "/predict" => one,
        "/predict/batch" => many,
        _ => return Ok(reply(StatusCode::NOT_FOUND, Vec::new())),
    };
    let Ok(body) = request.into_body().collect().await else {
        return Ok(reply(StatusCode::BAD_REQUEST, Vec::new()));
    };
    Ok(match work(&body.to_bytes()) {
        Ok(json) => reply(StatusCode::OK, json),
        Err(error) => reply(StatusCode::BAD_REQUEST, error.to_string().into_bytes()),
    })
}

fn reply(status: StatusCode, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn main() -> std::io::Result<()> {
    let port = std::env::var("PORT")
        .ok()
        .and_then(|port| port.parse().ok());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port.unwrap_or(8010))).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(async move {
                http1::Builder::new()
                    .timer(TokioTimer::new())
                    .pipeline_flush(true)
                    .serve_connection(TokioIo::new(stream), service_fn(handle))
                    .await
                    .ok();
            });
        }
    })
}
