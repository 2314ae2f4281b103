//! A Prometheus of canned answers for `benches/cycle.sh`: seven signals of `TARGETS` targets, whatever the cycle asks for.
//! Instant answers are rendered once at the start, range answers for the grid that is asked for. Any other query
//! returns nothing.
//!
//! `PORT` (default 28420), `TARGETS` (default 1000).

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Answers of each signal that follow one another, so that a cycle finds other values than the one before.
const PHASES: usize = 3;
/// Query, mean, spread over the fleet, decimals.
const SIGNALS: [(&str, f64, f64, usize); 7] = [
    ("cpu_usage", 35.0, 30.0, 4),
    ("memory_usage", 58.0, 20.0, 4),
    ("disk_usage", 60.0, 20.0, 4),
    ("network_latency_ms", 35.0, 20.0, 4),
    ("error_count", 2.0, 4.0, 0),
    ("response_time_ms", 250.0, 150.0, 6),
    ("active_connections", 120.0, 80.0, 0),
];
const NOTHING: &str = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;

struct Upstream {
    targets: usize,
    instant: Vec<Vec<Bytes>>,
    asked: [AtomicUsize; SIGNALS.len()],
}

/// Uniform in -0.5..0.5.
fn draw(seed: [usize; 3]) -> f64 {
    let mut x = seed.into_iter().fold(1u64, |x, part| {
        (x ^ part as u64)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(27)
    });
    x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (x >> 11) as f64 / (1u64 << 53) as f64 - 0.5
}

fn value(signal: usize, target: usize, moment: usize) -> f64 {
    let (_, mean, spread, _) = SIGNALS[signal];
    let own = draw([signal, target, usize::MAX]);
    (mean + spread * (own + 0.15 * draw([signal, target, moment]))).max(0.0)
}

fn series(json: &mut String, target: usize) {
    let comma = if target == 0 { "" } else { "," };
    let _ = write!(
        json,
        r#"{comma}{{"metric":{{"instance":"host-{target:05}.dc1.example:9100","job":"node"}},"#
    );
}

fn instant(signal: usize, targets: usize, phase: usize) -> Bytes {
    let mut json = NOTHING[..NOTHING.len() - 3].to_owned();
    for target in 0..targets {
        series(&mut json, target);
        let (value, decimals) = (value(signal, target, phase), SIGNALS[signal].3);
        let _ = write!(json, r#""value":[1704894645.123,"{value:.decimals$}"]}}"#);
    }
    json.push_str("]}}");
    json.into()
}

fn range(signal: usize, targets: usize, times: &[usize]) -> Bytes {
    let mut json = NOTHING[..NOTHING.len() - 3].replace("vector", "matrix");
    for target in 0..targets {
        series(&mut json, target);
        let decimals = SIGNALS[signal].3;
        for (i, time) in times.iter().enumerate() {
            let (before, value) = (
                if i == 0 { r#""values":["# } else { "," },
                value(signal, target, *time),
            );
            let _ = write!(json, r#"{before}[{time},"{value:.decimals$}"]"#);
        }
        json.push_str("]}");
    }
    json.push_str("]}}");
    json.into()
}

impl Upstream {
    fn answer(&self, path: &str, form: &HashMap<String, String>) -> Bytes {
        let query = form.get("query").map_or("", String::as_str);
        let Some(signal) = SIGNALS.iter().position(|signal| signal.0 == query) else {
            return NOTHING.into();
        };
        let number = |name: &str| form.get(name)?.parse::<f64>().ok().map(|n| n as usize);
        match (path, number("start"), number("end"), number("step")) {
            ("/api/v1/query_range", Some(start), Some(end), Some(step)) if step > 0 => {
                let times: Vec<usize> = (start..=end).step_by(step).collect();
                range(signal, self.targets, &times)
            }
            _ => {
                let phase = self.asked[signal].fetch_add(1, Ordering::Relaxed) % PHASES;
                self.instant[signal][phase].clone()
            }
        }
    }
}

async fn handle(
    upstream: Arc<Upstream>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let parameters = request.uri().query().unwrap_or_default().to_owned();
    let body = match request.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => Bytes::new(),
    };
    let decoded = |form: &[u8]| serde_urlencoded::from_bytes(form).unwrap_or_default();
    let mut form: HashMap<String, String> = decoded(&body);
    form.extend::<HashMap<_, _>>(decoded(parameters.as_bytes()));
    let mut response = Response::new(Full::from(upstream.answer(&path, &form)));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}

fn main() -> std::io::Result<()> {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|value| value.parse().ok())
    };
    let targets = number("TARGETS").unwrap_or(1000);
    let upstream = Arc::new(Upstream {
        targets,
        instant: (0..SIGNALS.len())
            .map(|signal| {
                (0..PHASES)
                    .map(|phase| instant(signal, targets, phase))
                    .collect()
            })
            .collect(),
        asked: Default::default(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener =
            TcpListener::bind(("127.0.0.1", number("PORT").unwrap_or(28420) as u16)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let upstream = upstream.clone();
            let service = service_fn(move |request| handle(upstream.clone(), request));
            tokio::spawn(async move {
                http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await
                    .ok();
            });
        }
    })
}
