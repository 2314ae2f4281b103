//! OAuth2 tokens by the client credentials grant (RFC 6749, 4.4).

use std::time::Duration;

use form_urlencoded::byte_serialize;
use futures_util::StreamExt;
use reqwest::header::{HOST, HeaderValue};
use reqwest::{Response, Url};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::config::{OAuth2Config, Secret};

use super::access::{Follow, Pem, Refused, Transport, hide, in_background};
use super::client::root_cause;
use super::error::excerpt;

const MAX_ANSWER_BYTES: usize = 1 << 20;
/// A token is fetched anew so long before it expires, or in the last quarter of its life.
const MARGIN: Duration = Duration::from_secs(30);

/// What one server gives out tokens for.
pub(super) struct Tokens {
    config: OAuth2Config,
    transport: Transport,
    /// Held while a token is fetched: all queries wait for the one.
    token: Mutex<Option<Token>>,
}

#[derive(Clone)]
pub(super) struct Token {
    /// The value of the `Authorization` header.
    pub header: Secret,
    renew: Option<Instant>,
    expires: Option<Instant>,
}

impl Token {
    fn new(answer: Answer, now: Instant) -> Self {
        let scheme = match &*answer.token_type {
            kind if kind.eq_ignore_ascii_case("bearer") => "Bearer",
            kind => kind,
        };
        let seconds = match &answer.expires_in {
            Value::Number(seconds) => seconds.as_f64(),
            Value::String(seconds) => seconds.parse().ok(),
            _ => None,
        };
        let life = seconds
            .filter(|seconds| *seconds > 0.0)
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let after = |age: Duration| now.checked_add(age);
        Self {
            header: Secret::new(format!("{scheme} {}", answer.access_token)),
            renew: life.and_then(|life| after(life - MARGIN.min(life / 4))),
            expires: life.and_then(after),
        }
    }
}

/// Tokens without a time of expiry last until they are refused.
fn lasts(until: Option<Instant>) -> bool {
    until.is_none_or(|until| Instant::now() < until)
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    #[serde(default = "bearer")]
    token_type: String,
    #[serde(default)]
    expires_in: Value,
}

fn bearer() -> String {
    "Bearer".into()
}

#[derive(Default, Deserialize)]
struct Complaint {
    #[serde(default)]
    error: String,
    #[serde(default)]
    error_description: String,
}

impl Tokens {
    pub fn new(config: &OAuth2Config, timeout: Duration) -> Result<Self, String> {
        let url = Url::parse(config.token_url.expose())
            .map_err(|error| format!("oauth2.token_url is not a URL ({error})"))?;
        let transport = Transport::new(&config.transport, url, timeout, Follow::Nowhere);
        transport.client(Pem::read(&config.transport.tls)?)?;
        Ok(Self {
            config: config.clone(),
            transport,
            token: Mutex::default(),
        })
    }

    /// A token that lasts a while.
    pub async fn current(&self) -> Result<Token, Refused> {
        let mut held = self.token.lock().await;
        if let Some(token) = held.as_ref().filter(|token| lasts(token.renew)) {
            return Ok(token.clone());
        }
        match (self.fetch().await, &*held) {
            (Ok(token), _) => Ok(held.insert(token).clone()),
            (Err(_), Some(old)) if lasts(old.expires) => Ok(old.clone()),
            (Err(refused), _) => Err(refused),
        }
    }

    pub async fn discard(&self, token: &Token) {
        let mut held = self.token.lock().await;
        held.take_if(|current| current.header == token.header);
    }

    async fn fetch(&self) -> Result<Token, Refused> {
        let sources = (
            self.config.client_secret.clone(),
            self.config.transport.tls.clone(),
        );
        let held = in_background(move || Ok((sources.0.read()?, Pem::read(&sources.1)?))).await;
        let (secret, pem) = held.map_err(Refused::passing)?;
        let client = self.transport.client(pem).map_err(Refused::passing)?;
        // The secret belongs into the header (RFC 6749, 2.3.1); some servers know it in the body only.
        let asked = Instant::now();
        let mut response = self.ask(&client, &secret, false).await?;
        if matches!(response.status().as_u16(), 400 | 401 | 403) {
            let second = self.ask(&client, &secret, true).await?;
            if second.status().is_success() {
                response = second;
            }
        }
        match response.status().is_success() {
            true => self.read(response, asked).await,
            false => Err(self.refusal(response, &secret).await),
        }
    }

    async fn ask(
        &self,
        client: &reqwest::Client,
        secret: &Secret,
        in_body: bool,
    ) -> Result<Response, Refused> {
        let OAuth2Config {
            client_id,
            scopes,
            endpoint_params,
            ..
        } = &self.config;
        let scope = scopes.join(" ");
        let mut form = vec![("grant_type", "client_credentials")];
        if !scope.is_empty() {
            form.push(("scope", &scope));
        }
        let params = endpoint_params.iter();
        form.extend(params.map(|(name, value)| (&**name, value.expose())));
        let mut request = client.post(self.transport.url.clone());
        if let Some(host) = &self.transport.host {
            request = request.header(HOST, host);
        }
        if in_body {
            form.extend([
                ("client_id", &**client_id),
                ("client_secret", secret.expose()),
            ]);
        } else {
            request = request.basic_auth(encoded(client_id), Some(encoded(secret.expose())));
        }
        let sent = request.form(&form).send().await;
        sent.map_err(|error| self.failed(true, &root_cause(&error)))
    }

    async fn read(&self, response: Response, asked: Instant) -> Result<Token, Refused> {
        let body = body(response)
            .await
            .map_err(|problem| self.failed(true, &problem))?;
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|_| self.failed(false, "the answer is no JSON with an access_token"))?;
        let token = Token::new(answer, asked);
        match HeaderValue::from_str(token.header.expose()) {
            Ok(_) => Ok(token),
            Err(_) => Err(self.failed(
                false,
                "the token holds characters that no HTTP header can carry",
            )),
        }
    }

    /// What the server says, without secrets in case that it repeats them.
    async fn refusal(&self, response: Response, secret: &Secret) -> Refused {
        let status = response.status();
        let body = body(response).await.unwrap_or_default();
        let complaint: Complaint = serde_json::from_slice(&body).unwrap_or_default();
        let mut said = match (&*complaint.error, &*complaint.error_description) {
            ("", _) => excerpt(&body),
            (error, "") => error.to_owned(),
            (error, description) => excerpt(format!("{error}: {description}").as_bytes()),
        };
        let params = self.config.endpoint_params.values();
        let plain = params.chain([secret]);
        let sent = |secret: &Secret| [secret.clone(), Secret::new(encoded(secret.expose()))];
        hide(&mut said, &plain.flat_map(sent).collect::<Vec<_>>());
        self.failed(
            status.is_server_error(),
            &format!("HTTP {}: {said}", status.as_u16()),
        )
    }

    fn failed(&self, passing: bool, problem: &str) -> Refused {
        let mut url = self.transport.url.clone();
        url.set_query(None);
        Refused {
            problem: format!("no OAuth2 token from {url}: {problem}"),
            passing,
        }
    }
}

/// As in a form.
fn encoded(text: &str) -> String {
    byte_serialize(text.as_bytes()).collect()
}

async fn body(response: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        body.extend(chunk.map_err(|error| root_cause(&error))?);
        if body.len() > MAX_ANSWER_BYTES {
            return Err(format!("the answer exceeds {MAX_ANSWER_BYTES} bytes"));
        }
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex as StdMutex};

    use wiremock::matchers::{any, path};
    use wiremock::{Mock, MockServer, Request, ResponseTemplate};

    use super::*;
    use crate::config::{Auth, SecretSource, TransportConfig, UpstreamConfig};
    use crate::prometheus::{Client, QueryError};
    use crate::time::Timestamp;

    const EMPTY: &str = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;

    fn client(server: &MockServer, secret: SecretSource) -> Client {
        let oauth2 = OAuth2Config {
            client_id: "an id".into(),
            client_secret: secret,
            token_url: Secret::new(format!("{}/token?tenant=geheim-too", server.uri())),
            scopes: vec!["read".into(), "query".into()],
            endpoint_params: [("audience".into(), Secret::new("us".into()))].into(),
            transport: TransportConfig::default(),
        };
        Client::new(&UpstreamConfig {
            url: server.uri(),
            timeout: Duration::from_secs(5),
            concurrency: 2,
            auth: Some(Auth::OAuth2(Box::new(oauth2))),
            http_headers: [].into(),
            follow_redirects: true,
            transport: TransportConfig::default(),
        })
        .unwrap()
    }

    fn inline() -> SecretSource {
        SecretSource::Inline(Secret::new("geheim+/".into()))
    }

    async fn ask(client: &Client) -> Result<(), QueryError> {
        let step = Duration::from_secs(60);
        client.instant("up", Timestamp(0), step).await.map(drop)
    }

    /// Gives out token 1, 2, … and accepts those that `valid` names.
    async fn serve(life: Value, in_header: bool, valid: Arc<StdMutex<Vec<usize>>>) -> MockServer {
        let server = MockServer::start().await;
        let given = AtomicUsize::new(0);
        let token = move |request: &Request| {
            let body = String::from_utf8(request.body.clone()).unwrap();
            assert!(
                body.starts_with("grant_type=client_credentials&scope=read+query&audience=us"),
                "{body}"
            );
            let expected = match in_header {
                // an+id:geheim%2B%2F
                true => request
                    .headers
                    .get("authorization")
                    .is_some_and(|value| value == "Basic YW4raWQ6Z2VoZWltJTJCJTJG"),
                false => body.ends_with("&client_id=an+id&client_secret=geheim%2B%2F"),
            };
            if !expected {
                return ResponseTemplate::new(401).set_body_json(serde_json::json!({
                    "error": "invalid_client",
                    "error_description": format!("not {body} geheim-old geheim-o")
                }));
            }
            let number = given.fetch_add(1, Ordering::Relaxed) + 1;
            ResponseTemplate::new(200).set_body_json(serde_json::json!({
                "access_token": format!("t{number}"), "token_type": "bearer", "expires_in": life
            }))
        };
        let query = move |request: &Request| {
            let token = request.headers["authorization"]
                .to_str()
                .unwrap()
                .to_owned();
            let known = valid.lock().unwrap();
            match known
                .iter()
                .any(|number| token == format!("Bearer t{number}"))
            {
                true => ResponseTemplate::new(200).set_body_raw(EMPTY, "application/json"),
                false => ResponseTemplate::new(401),
            }
        };
        Mock::given(path("/token"))
            .respond_with(token)
            .mount(&server)
            .await;
        Mock::given(any()).respond_with(query).mount(&server).await;
        server
    }

    async fn paths(server: &MockServer) -> Vec<String> {
        let requests = server.received_requests().await.unwrap();
        let path = |request: Request| request.url.path().rsplit('/').next().unwrap().to_owned();
        requests.into_iter().map(path).collect()
    }

    #[tokio::test]
    async fn a_token_is_kept_and_fetched_anew_once_when_it_is_refused() {
        let valid = Arc::new(StdMutex::new(vec![1]));
        let server = serve(3600.into(), true, valid.clone()).await;
        let client = client(&server, inline());
        let (a, b) = tokio::join!(ask(&client), ask(&client));
        a.unwrap();
        b.unwrap();
        assert_eq!(paths(&server).await, ["token", "query", "query"]);
        *valid.lock().unwrap() = vec![2];
        ask(&client).await.unwrap();
        assert_eq!(paths(&server).await[3..], ["query", "token", "query"]);
        valid.lock().unwrap().clear();
        let error = ask(&client).await.unwrap_err();
        assert_eq!(error.kind(), "unauthorized");
        assert_eq!(paths(&server).await[6..], ["query", "token", "query"]);
    }

    #[tokio::test]
    async fn tokens_are_renewed_before_they_expire() {
        for (life, asked) in [
            (Value::from(1), 2),
            (Value::from("1"), 2),
            (Value::Null, 1),
            (Value::from(3600), 1),
        ] {
            let server = serve(life.clone(), false, Arc::new(StdMutex::new(vec![1, 2]))).await;
            let client = client(&server, inline());
            ask(&client).await.unwrap();
            tokio::time::sleep(Duration::from_millis(800)).await;
            ask(&client).await.unwrap();
            // Each first asked with the secret in the header, then in the body.
            let tokens = paths(&server)
                .await
                .iter()
                .filter(|p| *p == "token")
                .count();
            assert_eq!(tokens, 2 * asked, "{life}");
        }
    }

    #[tokio::test]
    async fn without_a_token_the_error_says_why_and_holds_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, "geheim-old").unwrap();
        let server = serve(3600.into(), true, Arc::new(StdMutex::new(vec![1]))).await;
        let there = client(&server, SecretSource::File(file.clone()));
        let error = ask(&there).await.unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), ("credentials", false));
        let text = error.to_string();
        assert!(
            text.contains("/token: HTTP 401: invalid_client: not grant_type"),
            "{text}"
        );
        assert!(!text.contains("geheim"), "{text}");
        std::fs::write(&file, "geheim+/\n").unwrap();
        ask(&there).await.unwrap();

        for (response, words, retryable) in [
            (
                ResponseTemplate::new(503).set_body_string("<p>later</p>"),
                "HTTP 503: later",
                true,
            ),
            (
                ResponseTemplate::new(200).set_body_string("{}"),
                "no JSON with an access_token",
                false,
            ),
            (
                ResponseTemplate::new(302).insert_header("location", "/x"),
                "HTTP 302",
                false,
            ),
            (
                ResponseTemplate::new(200).set_body_string(r#"{"access_token":"a\nb"}"#),
                "characters that no HTTP header can carry",
                false,
            ),
        ] {
            let server = MockServer::start().await;
            Mock::given(any())
                .respond_with(response)
                .mount(&server)
                .await;
            let error = ask(&client(&server, inline())).await.unwrap_err();
            let found = (error.kind(), error.is_retryable());
            assert_eq!(found, ("credentials", retryable), "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
