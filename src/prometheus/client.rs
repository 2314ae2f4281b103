use std::error::Error;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use reqwest::header::{CONTENT_ENCODING, LOCATION};
use reqwest::{Response, StatusCode};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};

use crate::config::UpstreamConfig;
use crate::time::{Timestamp, millis};

use super::access::{Access, Opened, without_credentials};
use super::decode::{DecodeError, Decoded, Decoder, Limits};
use super::error::excerpt;
use super::rules::{decode_build_info, decode_rules};
use super::{AlertingRule, Answer, BuildInfo, ClientError, QueryError};

/// Grid points in one range request; Prometheus refuses more than 11,000.
const MAX_POINTS: i64 = 10_000;
const TRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Of an answer that is kept as a whole: rules, build information.
const MAX_DOCUMENT_BYTES: usize = 32 << 20;
const MAX_ERROR_BYTES: usize = 64 << 10;
const HEAD_BYTES: usize = 400;

/// One request for samples, as it ended.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryOutcome {
    /// Retries included, waiting for a free slot not.
    pub duration: Duration,
    /// `success` or [`QueryError::kind`].
    pub result: &'static str,
    pub warnings: usize,
    /// Size of the answer; zero without one.
    pub bytes: u64,
}

pub type Observer = Arc<dyn Fn(&QueryOutcome) + Send + Sync>;

/// Queries one server. Clones share the connections and the bound on queries under way.
#[derive(Clone)]
pub struct Client {
    access: Arc<Access>,
    /// Without credentials, for messages.
    url: String,
    timeout: Duration,
    concurrency: usize,
    permits: Arc<Semaphore>,
    limits: Limits,
    observer: Option<Observer>,
}

#[derive(Clone, Copy)]
enum Call<'a> {
    Instant {
        query: &'a str,
        at: Timestamp,
        step: Duration,
    },
    Range {
        query: &'a str,
        start: Timestamp,
        end: Timestamp,
        step: Duration,
    },
    BuildInfo,
    Rules,
}

impl Client {
    pub fn new(config: &UpstreamConfig) -> Result<Self, ClientError> {
        let access = Access::new("prometheus", config)?;
        let concurrency = config.concurrency.max(1);
        Ok(Self {
            access: Arc::new(access),
            url: without_credentials(config.url.trim_end_matches('/')),
            timeout: config.timeout,
            concurrency,
            permits: Arc::new(Semaphore::new(concurrency)),
            limits: Limits::default(),
            observer: None,
        })
    }

    /// Calls `observer` at the end of each request for samples.
    pub fn with_observer(mut self, observer: Observer) -> Self {
        self.observer = Some(observer);
        self
    }

    /// The value of `query` at one instant of a grid of `step`, as a range of that grid has it: Prometheus does not
    /// read the step, VictoriaMetrics looks back by it.
    pub async fn instant(
        &self,
        query: &str,
        at: Timestamp,
        step: Duration,
    ) -> Result<Answer, QueryError> {
        self.samples(Call::Instant { query, at, step }).await
    }

    /// The values of `query` at `start`, `start + step`, … up to `end`. The caller aligns `start`
    /// to the step. Long ranges are fetched in pieces, several at once.
    pub async fn range(
        &self,
        query: &str,
        start: Timestamp,
        end: Timestamp,
        step: Duration,
    ) -> Result<Answer, QueryError> {
        if millis(step) == 0 {
            let message = "the step is zero; give at least 1ms".into();
            return Err(QueryError::BadQuery { message });
        }
        let mut pieces = stream::iter(pieces(start, end, millis(step)))
            .map(|(start, end)| {
                self.samples(Call::Range {
                    query,
                    start,
                    end,
                    step,
                })
            })
            .buffered(self.concurrency);
        let (mut answers, mut samples) = (Vec::new(), 0);
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            samples += piece.samples.len();
            self.within(self.limits.check_samples(samples))?;
            answers.push(piece);
        }
        if answers.len() == 1 {
            return Ok(answers.remove(0));
        }
        let whole = Answer::join(answers);
        self.within(self.limits.check_series(whole.len()))?;
        Ok(whole)
    }

    fn within(&self, bounds: Result<(), DecodeError>) -> Result<(), QueryError> {
        bounds.map_err(|error| QueryError::undecodable(&self.url, 200, error, &[]))
    }

    pub async fn build_info(&self) -> Result<BuildInfo, QueryError> {
        self.document(Call::BuildInfo, decode_build_info).await
    }

    /// The alerting rules that the server evaluates. A server without that API answers with an
    /// error or with none.
    pub async fn rules(&self) -> Result<Vec<AlertingRule>, QueryError> {
        self.document(Call::Rules, decode_rules).await
    }

    async fn samples(&self, call: Call<'_>) -> Result<Answer, QueryError> {
        let _permit = self
            .permits
            .acquire()
            .await
            .expect("the semaphore is never closed");
        let begun = Instant::now();
        let fetched = self
            .fetch(call, || Decoder::new(self.limits), Decoder::feed)
            .await;
        let (result, bytes) = match fetched {
            Ok((decoder, head)) => {
                let bytes = decoder.bytes();
                (self.accept(decoder.finish(), &head), bytes)
            }
            Err(error) => (Err(error), 0),
        };
        if let Some(observer) = &self.observer {
            observer(&QueryOutcome {
                duration: begun.elapsed(),
                result: result.as_ref().map_or_else(QueryError::kind, |_| "success"),
                warnings: result.as_ref().map_or(0, |answer| answer.warnings.len()),
                bytes,
            });
        }
        result
    }

    async fn document<T>(
        &self,
        call: Call<'_>,
        decode: fn(&[u8]) -> Decoded<T>,
    ) -> Result<T, QueryError> {
        let keep = |body: &mut Vec<u8>, chunk: &[u8]| {
            body.extend_from_slice(chunk);
            match body.len() > MAX_DOCUMENT_BYTES {
                true => Err(DecodeError::TooLarge {
                    limit: "bytes",
                    max: MAX_DOCUMENT_BYTES as u64,
                }),
                false => Ok(()),
            }
        };
        let (body, head) = self.fetch(call, Vec::new, keep).await?;
        self.accept(decode(&body), &head)
    }

    /// The meaning of a body that came with a status of success.
    fn accept<T>(&self, decoded: Decoded<T>, head: &[u8]) -> Result<T, QueryError> {
        let accepted = match decoded {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(refusal)) => Err(QueryError::refused(
                &self.url,
                200,
                Some(&refusal.error_type),
                refusal.message,
            )),
            Err(error) => Err(QueryError::undecodable(&self.url, 200, error, head)),
        };
        accepted.map_err(|error| self.discreet(error))
    }

    /// The error without secrets, in case that the server repeats them.
    fn discreet(&self, mut error: QueryError) -> QueryError {
        if let Some(said) = error.said() {
            self.access.hide(said);
        }
        error
    }

    /// Sends `call` until an answer is fed completely, within the tries and twice the timeout.
    /// Also gives the beginning of the body.
    async fn fetch<S>(
        &self,
        call: Call<'_>,
        start: impl Fn() -> S,
        feed: impl Fn(&mut S, &[u8]) -> Result<(), DecodeError>,
    ) -> Result<(S, Vec<u8>), QueryError> {
        let deadline = Instant::now() + self.timeout * 2;
        let mut pause = FIRST_PAUSE;
        let mut tries = 1;
        loop {
            let mut sink = start();
            let error = match timeout_at(deadline, self.attempt(call, &mut sink, &feed)).await {
                Ok(Ok(head)) => return Ok((sink, head)),
                Ok(Err(error)) => error,
                Err(_) => self.timed_out(),
            };
            if !error.is_retryable() || tries == TRIES || Instant::now() + pause >= deadline {
                return Err(self.discreet(error));
            }
            sleep(pause).await;
            pause *= 2;
            tries += 1;
        }
    }

    async fn attempt<S>(
        &self,
        call: Call<'_>,
        sink: &mut S,
        feed: impl Fn(&mut S, &[u8]) -> Result<(), DecodeError>,
    ) -> Result<Vec<u8>, QueryError> {
        let opened = self.open().await?;
        let mut response = self.send(call, &opened).await?;
        // A token may end before its time.
        if response.status() == StatusCode::UNAUTHORIZED && self.access.discard(opened.token).await
        {
            response = self.send(call, &self.open().await?).await?;
        }
        let status = response.status().as_u16();
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        if let Some(encoding) = response.headers().get(CONTENT_ENCODING)
            && encoding != "identity"
        {
            return Err(QueryError::Protocol {
                url: self.url.clone(),
                status,
                message: format!(
                    "the answer has the encoding {encoding:?}, which was not asked for"
                ),
            });
        }
        let mut head = Vec::new();
        let mut body = response.bytes_stream();
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| self.broken(&error))?;
            head.extend(chunk.iter().take(HEAD_BYTES.saturating_sub(head.len())));
            feed(sink, &chunk)
                .map_err(|error| QueryError::undecodable(&self.url, status, error, &head))?;
        }
        Ok(head)
    }

    async fn open(&self) -> Result<Opened, QueryError> {
        let opened = self.access.open().await;
        opened.map_err(|refused| QueryError::Credentials {
            problem: refused.problem,
            passing: refused.passing,
        })
    }

    async fn send(&self, call: Call<'_>, opened: &Opened) -> Result<Response, QueryError> {
        let timeout = millis(self.timeout);
        let Opened { api, headers, .. } = opened;
        let base = api.base_url().as_str().trim_end_matches('/');
        let sent = match call {
            Call::Instant { query, at, step } => {
                let mut request = api.query(query).query("time", at.as_secs_f64());
                request = request.query("step", step.as_secs_f64());
                for (name, value) in headers {
                    request = request.header(name, value.clone());
                }
                request.timeout(timeout).post_raw().await
            }
            Call::Range {
                query,
                start,
                end,
                step,
            } if start.0 % 1000 == 0 && end.0 % 1000 == 0 => {
                let step = step.as_secs_f64();
                let mut request = api.query_range(query, start.0 / 1000, end.0 / 1000, step);
                for (name, value) in headers {
                    request = request.header(name, value.clone());
                }
                request.timeout(timeout).post_raw().await
            }
            // The crate sends whole seconds only.
            Call::Range {
                query,
                start,
                end,
                step,
            } => {
                let form = [
                    ("query", query.to_owned()),
                    ("start", start.as_secs_f64().to_string()),
                    ("end", end.as_secs_f64().to_string()),
                    ("step", step.as_secs_f64().to_string()),
                    ("timeout", format!("{timeout}ms")),
                ];
                let request = api.inner().post(format!("{base}/api/v1/query_range"));
                let sent = request.headers(headers.clone()).form(&form).send();
                return sent.await.map_err(|error| self.broken(&error));
            }
            // To these the crate adds no headers.
            Call::BuildInfo | Call::Rules => {
                let path = match call {
                    Call::Rules => "rules?type=alert",
                    _ => "status/buildinfo",
                };
                let request = api.inner().get(format!("{base}/api/v1/{path}"));
                let sent = request.headers(headers.clone()).send();
                return sent.await.map_err(|error| self.broken(&error));
            }
        };
        sent.map_err(|error| self.broken(&error))
    }

    /// What a status that is no success means.
    async fn refusal(&self, response: Response) -> QueryError {
        let status = response.status();
        let location = response.headers().get(LOCATION).cloned();
        let mut body = Vec::new();
        let mut chunks = response.bytes_stream();
        while body.len() < MAX_ERROR_BYTES
            && let Some(Ok(chunk)) = chunks.next().await
        {
            body.extend_from_slice(&chunk);
        }
        let mut decoder = Decoder::new(self.limits);
        let decoded = decoder.feed(&body).and_then(|()| decoder.finish());
        let (error_type, message) = match (decoded, location) {
            (Ok(Err(refusal)), _) => (Some(refusal.error_type), refusal.message),
            (_, Some(to)) if status.is_redirection() => (
                None,
                format!(
                    "it redirects to {to:?}, which is followed with status 307 or 308 on the same server only, if at all; configure that address"
                ),
            ),
            _ => (None, excerpt(&body)),
        };
        QueryError::refused(&self.url, status.as_u16(), error_type.as_deref(), message)
    }

    fn timed_out(&self) -> QueryError {
        QueryError::Timeout {
            url: self.url.clone(),
            timeout: self.timeout,
        }
    }

    /// What a failure below HTTP means.
    fn broken(&self, error: &(dyn Error + 'static)) -> QueryError {
        let mut causes = iter::successors(Some(error), |&e| e.source());
        match causes.find_map(|e| e.downcast_ref::<reqwest::Error>()) {
            Some(e) if e.is_timeout() && !e.is_connect() => self.timed_out(),
            _ => QueryError::Unreachable {
                url: self.url.clone(),
                cause: root_cause(error),
            },
        }
    }
}

/// Bounds of the requests that cover the grid from `start` to `end`, each point in exactly one.
fn pieces(
    start: Timestamp,
    end: Timestamp,
    step_ms: i64,
) -> impl Iterator<Item = (Timestamp, Timestamp)> {
    let in_range = move |start: &i64| *start <= end.0;
    let next = move |start: &i64| {
        let piece = step_ms.checked_mul(MAX_POINTS)?;
        start.checked_add(piece).filter(in_range)
    };
    iter::successors(Some(start.0).filter(in_range), next).map(move |start| {
        let steps = ((end.0 - start) / step_ms).min(MAX_POINTS - 1);
        (Timestamp(start), Timestamp(start + steps * step_ms))
    })
}

pub(super) fn root_cause(error: &(dyn Error + 'static)) -> String {
    let causes = iter::successors(Some(error), |&e| e.source());
    causes.last().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::sync::Mutex;

    use reqwest::Url;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use wiremock::matchers::{header, method, path};
    use wiremock::{Mock, MockServer, Request, ResponseTemplate};

    use super::*;
    use crate::config::{Auth, Secret, SecretSource, TransportConfig};

    const EMPTY: &str = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
    const NOW: Timestamp = Timestamp(1_795_353_564_943);
    const STEP: Duration = Duration::from_secs(60);

    fn config(url: &str) -> UpstreamConfig {
        UpstreamConfig {
            url: url.into(),
            timeout: Duration::from_secs(5),
            concurrency: 2,
            auth: None,
            http_headers: BTreeMap::new(),
            follow_redirects: true,
            transport: TransportConfig::default(),
        }
    }

    fn inline(text: &str) -> SecretSource {
        SecretSource::Inline(Secret::new(text.into()))
    }

    fn file(path: &str) -> Option<SecretSource> {
        Some(SecretSource::File(path.into()))
    }

    fn client(url: &str) -> Client {
        Client::new(&config(url)).unwrap()
    }

    fn impatient(url: &str) -> Client {
        Client::new(&UpstreamConfig {
            timeout: Duration::from_secs(1),
            ..config(url)
        })
        .unwrap()
    }

    fn json(status: u16, body: impl Into<Vec<u8>>) -> ResponseTemplate {
        ResponseTemplate::new(status).set_body_raw(body, "application/json")
    }

    async fn serve(response: ResponseTemplate) -> MockServer {
        let server = MockServer::start().await;
        Mock::given(wiremock::matchers::any())
            .respond_with(response)
            .mount(&server)
            .await;
        server
    }

    fn form(request: &Request) -> BTreeMap<String, String> {
        let body = String::from_utf8(request.body.clone()).unwrap();
        let url = Url::parse(&format!("http://x/?{body}")).unwrap();
        url.query_pairs().into_owned().collect()
    }

    /// Answers every connection with `reply` and then closes it, or leaves it open.
    async fn raw_server(reply: Vec<u8>, close: bool) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let mut open = vec![];
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut request = vec![0; 65536];
                let _ = socket.read(&mut request).await;
                let _ = socket.write_all(&reply).await;
                if !close {
                    open.push(socket);
                }
            }
        });
        url
    }

    #[tokio::test]
    async fn every_captured_payload_is_read_or_refused_as_expected() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/prometheus");
        let table = fs::read_to_string(format!("{folder}/expected.tsv")).unwrap();
        let mut rows = 0;
        for row in table.lines().skip(1) {
            let [file, status, content_type, encoding, result, detail] =
                row.split('\t').collect::<Vec<_>>()[..]
            else {
                panic!("{row}");
            };
            let body = fs::read(format!("{folder}/{file}")).unwrap();
            let mut response = ResponseTemplate::new(status.parse::<u16>().unwrap())
                .set_body_raw(body, content_type);
            if !encoding.is_empty() {
                response = response.insert_header("content-encoding", encoding);
            }
            let server = serve(response).await;
            let observed = Arc::new(Mutex::new(vec![]));
            let sink = observed.clone();
            let client = client(&server.uri()).with_observer(Arc::new(move |outcome| {
                sink.lock().unwrap().push(outcome.result)
            }));
            let found = match client.instant("up", NOW, STEP).await {
                Ok(answer) => format!(
                    "{} series, {} samples, {} not finite, {} histograms, {} warnings, {} infos",
                    answer.len(),
                    answer.samples.len(),
                    answer.not_finite,
                    answer.histograms,
                    answer.warnings.len(),
                    answer.infos.len(),
                ),
                Err(error) => error.to_string(),
            };
            assert_eq!(*observed.lock().unwrap(), [result], "{file}: {found}");
            assert!(found.contains(detail), "{file}: {found}");
            rows += 1;
        }
        assert!(rows > 200);
        for (file, kind) in [
            ("err_401", "unauthorized"),
            ("err_http_to_https", "protocol"),
        ] {
            let reply = fs::read_to_string(format!("{folder}/prom2.42/{file}.http")).unwrap();
            let url = raw_server(
                reply.replace("HTTP/2 401", "HTTP/1.1 401").into_bytes(),
                true,
            )
            .await;
            let error = client(&url).instant("up", NOW, STEP).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
        }
    }

    #[tokio::test]
    async fn queries_are_posted_as_forms_under_the_prefix() {
        let server = MockServer::start().await;
        Mock::given(method("POST"))
            .and(path("/some/prefix/api/v1/query"))
            .and(header("authorization", "Basic bWU6cHc6QC8="))
            .and(header("x-scope-orgid", "7"))
            .and(header(
                "user-agent",
                concat!("forewarn/", env!("CARGO_PKG_VERSION")),
            ))
            .respond_with(json(200, EMPTY))
            .mount(&server)
            .await;
        let client = Client::new(&UpstreamConfig {
            auth: Some(Auth::Basic {
                username: inline("me"),
                password: inline("pw:@/"),
            }),
            http_headers: [("X-Scope-OrgID".to_owned(), vec![inline("7")])].into(),
            ..config(&format!("{}/some/prefix/", server.uri()))
        })
        .unwrap();
        client.instant("up{a=\"&=+ä\"}", NOW, STEP).await.unwrap();
        let request = &server.received_requests().await.unwrap()[0];
        assert!(!request.headers.contains_key("accept-encoding"));
        let form = form(request);
        assert_eq!(form["query"], "up{a=\"&=+ä\"}");
        assert_eq!(form["time"], "1795353564.943");
        assert_eq!(form["timeout"], "5000ms");
    }

    #[tokio::test]
    async fn ranges_are_cut_at_10000_points_and_no_point_is_fetched_twice() {
        let server = MockServer::start().await;
        let reply = |request: &Request| {
            let form = form(request);
            let [start, end, step] =
                ["start", "end", "step"].map(|k| form[k].parse::<f64>().unwrap());
            let count = ((end - start) / step).round() as usize + 1;
            let values: Vec<_> = (0..count)
                .map(|i| format!("[{},\"{i}\"]", start + i as f64 * step))
                .collect();
            let result = format!(
                r#"[{{"metric":{{"a":"1"}},"values":[{}]}}]"#,
                values.join(",")
            );
            json(
                200,
                format!(
                    r#"{{"status":"success","data":{{"resultType":"matrix","result":{result}}}}}"#
                ),
            )
        };
        Mock::given(method("POST"))
            .and(path("/api/v1/query_range"))
            .respond_with(reply)
            .mount(&server)
            .await;
        let client = client(&server.uri());
        for (start, points, step_ms, requests) in [
            (1_700_000_040_000, 25_001, 60_000, 3),
            (1_700_000_040_000, 10_000, 15_000, 1),
            (1_700_000_040_000, 1, 15_000, 1),
            (1_700_000_000_500, 10_002, 500, 2),
            (1_700_000_000_000, 10_003, 1_500, 2),
        ] {
            server.reset().await;
            Mock::given(path("/api/v1/query_range"))
                .respond_with(reply)
                .mount(&server)
                .await;
            let start = Timestamp(start);
            let end = Timestamp(start.0 + (points - 1) * step_ms + step_ms / 3);
            let step = Duration::from_millis(step_ms as u64);
            let answer = client.range("up", start, end, step).await.unwrap();
            assert_eq!(answer.warnings, [""; 0]);
            let times: Vec<_> = answer.samples.iter().map(|s| s.0.0).collect();
            let expected: Vec<_> = (0..points).map(|i| start.0 + i * step_ms).collect();
            assert_eq!(times, expected);
            let received = server.received_requests().await.unwrap();
            assert_eq!(received.len(), requests, "{points} points");
        }
        let empty = client.range(
            "up",
            NOW,
            NOW.minus(Duration::from_secs(1)),
            Duration::from_secs(1),
        );
        assert_eq!(empty.await.unwrap(), Answer::default());
        let zero = client.range("up", NOW, NOW, Duration::ZERO).await;
        assert_eq!(zero.unwrap_err().kind(), "bad_query");
    }

    #[test]
    fn pieces_cover_the_grid_without_overflow() {
        let all: Vec<_> = pieces(Timestamp(0), Timestamp(25_000), 1).collect();
        let expected = [(0, 9_999), (10_000, 19_999), (20_000, 25_000)];
        assert_eq!(all, expected.map(|(a, b)| (Timestamp(a), Timestamp(b))));
        assert_eq!(
            pieces(Timestamp(0), Timestamp(i64::MAX), i64::MAX).count(),
            1
        );
    }

    #[tokio::test]
    async fn overload_is_retried_a_few_times() {
        let server = MockServer::start().await;
        let starting = ResponseTemplate::new(503).set_body_raw("Service Unavailable", "text/plain");
        Mock::given(method("POST"))
            .respond_with(starting)
            .up_to_n_times(2)
            .mount(&server)
            .await;
        Mock::given(method("POST"))
            .respond_with(json(200, EMPTY))
            .mount(&server)
            .await;
        client(&server.uri())
            .instant("up", NOW, STEP)
            .await
            .unwrap();
        assert_eq!(server.received_requests().await.unwrap().len(), 3);
    }

    #[tokio::test]
    async fn faults_of_the_server_are_told_apart() {
        let html = "<html><title>502 Bad Gateway</title></html>";
        for (response, kind, text, tries) in [
            (json(503, "{}"), "overloaded", "{}", 3),
            // Mimir, by a user who asks too much, and by one without X-Scope-OrgID.
            (
                ResponseTemplate::new(429).set_body_string("the request has been rejected because the tenant exceeded the request rate limit"),
                "overloaded",
                "HTTP 429): the request has been rejected",
                3,
            ),
            (
                ResponseTemplate::new(401).set_body_string("no org id\n"),
                "unauthorized",
                "HTTP 401 (no org id); check the credentials and http_headers",
                1,
            ),
            (
                json(
                    422,
                    r#"{"status":"error","errorType":"422","error":"nope"}"#,
                ),
                "bad_query",
                "nope",
                1,
            ),
            (
                ResponseTemplate::new(502).set_body_raw(html, "text/html"),
                "protocol",
                "HTTP 502): 502 Bad Gateway",
                1,
            ),
            (
                ResponseTemplate::new(200).set_body_raw(html, "text/html"),
                "protocol",
                "unexpected '<' at byte 0",
                1,
            ),
            (
                ResponseTemplate::new(302).insert_header("location", "https://else/where"),
                "protocol",
                "redirects to \"https://else/where\", which is followed with status 307 or 308",
                1,
            ),
            (
                ResponseTemplate::new(200).set_body_raw(EMPTY, "text/plain"),
                "success",
                "",
                1,
            ),
            (ResponseTemplate::new(204), "protocol", "ends early", 1),
            (
                json(
                    200,
                    r#"{"status":"error","errorType":"bad_data","error":"nope"}"#,
                ),
                "bad_query",
                "nope",
                1,
            ),
            (json(500, "x".repeat(1 << 20)), "protocol", "xxx…", 1),
        ] {
            let server = serve(response).await;
            let found = client(&server.uri()).instant("up", NOW, STEP).await;
            let (found, message) = match found {
                Ok(_) => ("success", String::new()),
                Err(error) => (error.kind(), error.to_string()),
            };
            assert_eq!(found, kind, "{message}");
            assert!(message.contains(text), "{message}");
            assert_eq!(
                server.received_requests().await.unwrap().len(),
                tries,
                "{message}"
            );
        }
    }

    #[tokio::test]
    async fn broken_connections_end_in_bounded_time() {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
        let partial = &EMPTY[..40];
        for (reply, close, kind) in [
            (
                format!("{head}content-length: 63\r\n\r\n{partial}"),
                false,
                "timeout",
            ),
            (
                format!("{head}content-length: 63\r\n\r\n{partial}"),
                true,
                "unreachable",
            ),
            (
                format!("{head}connection: close\r\n\r\n{partial}"),
                true,
                "protocol",
            ),
            (String::new(), false, "timeout"),
            (String::new(), true, "unreachable"),
        ] {
            let client = impatient(&raw_server(reply.clone().into_bytes(), close).await);
            let begun = Instant::now();
            let error = client.instant("up", NOW, STEP).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{reply:?}: {error}");
            assert!(
                begun.elapsed() < Duration::from_secs(5),
                "{:?}",
                begun.elapsed()
            );
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let error = client(&url).instant("up", NOW, STEP).await.unwrap_err();
        assert_eq!(error.kind(), "unreachable");
        assert!(error.to_string().contains("Connection refused"), "{error}");
        let nowhere = impatient("http://prometheus.invalid:9090");
        let error = nowhere.instant("up", NOW, STEP).await.unwrap_err();
        assert_eq!(error.kind(), "unreachable");
        assert!(error.to_string().contains("lookup"), "{error}");
    }

    #[tokio::test]
    async fn a_huge_answer_is_given_up() {
        let labels: Vec<_> = (0..30)
            .map(|i| format!(r#"{{"metric":{{"a":"{i}"}},"value":[1,"1"]}}"#))
            .collect();
        let body = EMPTY.replace("[]", &format!("[{}]", labels.join(",")));
        let server = serve(json(200, body)).await;
        let mut client = client(&server.uri());
        assert_eq!(client.instant("up", NOW, STEP).await.unwrap().len(), 30);
        client.limits.series = 29;
        let error = client.instant("up", NOW, STEP).await.unwrap_err();
        assert_eq!(
            error,
            QueryError::TooLarge {
                limit: "series",
                max: 29
            }
        );
        client.limits.bytes = 1000;
        let error = client.instant("up", NOW, STEP).await.unwrap_err();
        assert_eq!(
            error,
            QueryError::TooLarge {
                limit: "bytes",
                max: 1000
            }
        );
    }

    #[tokio::test]
    async fn rules_and_build_info_come_from_their_endpoints() {
        let server = MockServer::start().await;
        for (at, body) in [
            (
                "/p/api/v1/rules",
                r#"{"status":"success","data":{"groups":[{"rules":[{"type":"alerting","name":"A","query":"up == 0"}]}]}}"#,
            ),
            (
                "/p/api/v1/status/buildinfo",
                r#"{"status":"success","data":{"version":"3.5.3"}}"#,
            ),
        ] {
            Mock::given(method("GET"))
                .and(path(at))
                .respond_with(json(200, body))
                .mount(&server)
                .await;
        }
        let there = client(&format!("{}/p", server.uri()));
        assert_eq!(there.build_info().await.unwrap().version, "3.5.3");
        assert_eq!(there.rules().await.unwrap()[0].name, "A");
        let elsewhere = client(&server.uri());
        assert_eq!(elsewhere.build_info().await.unwrap_err().kind(), "protocol");
        assert_eq!(elsewhere.rules().await.unwrap_err().kind(), "protocol");
    }

    #[test]
    fn configs_that_cannot_work_are_refused() {
        let error = |change: fn(&mut UpstreamConfig)| {
            let mut config = config("http://127.0.0.1:9090");
            change(&mut config);
            Client::new(&config).err().map(|error| error.to_string())
        };
        assert_eq!(error(|_| ()), None);
        for (change, text) in [
            (
                (|c| c.url = "localhost:9090".into()) as fn(&mut UpstreamConfig),
                "neither http nor https",
            ),
            (|c| c.url = "prometheus".into(), "is not a URL"),
            (|c| c.url = "http://a/?b=c".into(), "has a query"),
            (
                |c| c.transport.tls.ca = file("/nonexistent/ca.pem"),
                "/nonexistent/ca.pem",
            ),
            (
                |c| c.transport.tls.ca = file(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")),
                "no certificate",
            ),
            (
                |c| {
                    c.auth = Some(Auth::Authorization {
                        scheme: "Bearer".into(),
                        credentials: inline("geheim\n"),
                    })
                },
                "\"authorization\" has a value",
            ),
            (
                |c| drop(c.http_headers.insert("a b".into(), vec![inline("x")])),
                "\"a b\" has an invalid name",
            ),
        ] {
            let message = error(change).expect(text);
            assert!(
                message.contains(text) && !message.contains("geheim"),
                "{message}"
            );
        }
        let message = error(|c| c.url = "http://me:geheim@host/?q=1".into()).unwrap();
        assert!(message.contains("http://host/?q=1"), "{message}");
    }

    #[tokio::test]
    async fn queries_can_run_in_tasks_and_share_their_bound() {
        let server = serve(json(200, EMPTY).set_delay(Duration::from_millis(100))).await;
        let client = client(&server.uri());
        let begun = Instant::now();
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let client = client.clone();
                let step = Duration::from_secs(60);
                tokio::spawn(async move { client.range("up", NOW, NOW, step).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        assert!(
            begun.elapsed() >= Duration::from_millis(200),
            "{:?}",
            begun.elapsed()
        );
    }
}
