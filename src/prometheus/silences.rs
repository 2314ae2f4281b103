//! The silences of an Alertmanager, as far as they keep warnings of ours quiet.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use serde::Deserialize;

use crate::config::UpstreamConfig;

use super::ClientError;
use super::access::{Access, Opened, without_credentials};
use super::client::root_cause;
use super::error::excerpt;

/// Silenced alerts that forewarn's predictions raised; `forewarn="true"` is a label of every shipped rule.
const QUERY: &str = "active=false&inhibited=false&unprocessed=false&filter=forewarn%3D%22true%22";
const MAX_BYTES: usize = 16 << 20;

/// Somebody has silenced a warning about a target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Silenced {
    pub target: String,
    /// The id of the silence.
    pub silence: String,
}

pub struct Alertmanager {
    access: Access,
    /// Without credentials, for messages.
    url: String,
}

impl Alertmanager {
    pub fn new(config: &UpstreamConfig) -> Result<Self, ClientError> {
        Ok(Self {
            access: Access::new("alertmanager", config)?,
            url: without_credentials(&config.url),
        })
    }

    /// # Errors
    /// What went wrong, where, and what to look at.
    pub async fn silenced(&self) -> Result<Vec<Silenced>, String> {
        let asked = self.ask().await;
        asked.map_err(|mut problem| {
            self.access.hide(&mut problem);
            format!(
                "Alertmanager at {} does not say what is silenced: {problem}; check the section alertmanager of the config",
                self.url
            )
        })
    }

    async fn ask(&self) -> Result<Vec<Silenced>, String> {
        let mut opened = self.open().await?;
        let mut response = self.send(&opened).await?;
        if response.status() == reqwest::StatusCode::UNAUTHORIZED
            && self.access.discard(opened.token.take()).await
        {
            response = self.send(&self.open().await?).await?;
        }
        let status = response.status();
        let mut body = Vec::new();
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            body.extend_from_slice(&chunk.map_err(|error| root_cause(&error))?);
            if body.len() > MAX_BYTES {
                return Err(format!("the answer is larger than {MAX_BYTES} bytes"));
            }
        }
        match status.is_success() {
            true => decode(&body),
            false => Err(format!("HTTP {} ({})", status.as_u16(), excerpt(&body))),
        }
    }

    async fn open(&self) -> Result<Opened, String> {
        let opened = self.access.open().await;
        opened.map_err(|refused| refused.problem)
    }

    async fn send(&self, opened: &Opened) -> Result<reqwest::Response, String> {
        let base = opened.api.base_url().as_str().trim_end_matches('/');
        let request = opened
            .api
            .inner()
            .get(format!("{base}/api/v2/alerts?{QUERY}"));
        let sent = request.headers(opened.headers.clone()).send();
        sent.await.map_err(|error| root_cause(&error))
    }
}

/// An alert without a target, such as one about the fleet, is nobody's.
fn decode(body: &[u8]) -> Result<Vec<Silenced>, String> {
    #[derive(Deserialize)]
    struct Alert {
        labels: BTreeMap<String, String>,
        status: Status,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Status {
        silenced_by: Vec<String>,
    }
    let alerts: Vec<Alert> = serde_json::from_slice(body)
        .map_err(|error| format!("not the list of alerts of its API v2 ({error})"))?;
    let mut silenced: Vec<Silenced> = alerts
        .into_iter()
        .flat_map(|mut alert| {
            let target = alert
                .labels
                .remove("target")
                .filter(|name| !name.is_empty());
            let by = alert.status.silenced_by.into_iter();
            by.filter_map(move |silence| {
                let target = target.clone()?;
                Some(Silenced { target, silence })
            })
        })
        .collect();
    silenced.sort();
    silenced.dedup();
    Ok(silenced)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use wiremock::matchers::{header, path, query_param};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    use super::*;
    use crate::config::{Auth, Secret, SecretSource, TransportConfig};

    const SILENCED: &str = include_str!("../../tests/fixtures/alertmanager/0.25/silenced.json");

    fn alertmanager(url: &str) -> Alertmanager {
        let inline = |text: &str| SecretSource::Inline(Secret::new(text.into()));
        Alertmanager::new(&UpstreamConfig {
            url: format!("{url}/prefix"),
            timeout: Duration::from_secs(5),
            concurrency: 1,
            auth: Some(Auth::Basic {
                username: inline("forewarn"),
                password: inline("geheim-7"),
            }),
            http_headers: [].into(),
            follow_redirects: true,
            transport: TransportConfig::default(),
        })
        .unwrap()
    }

    #[test]
    fn an_answer_is_read_or_refused() {
        let silenced = |target: &str, silence: &str| Silenced {
            target: target.into(),
            silence: silence.into(),
        };
        let real = [silenced("web-1", "cc4d6c99-c480-4357-a12c-d9f7ecbaee84")];
        assert_eq!(decode(SILENCED.as_bytes()).unwrap(), real);
        let made = r#"[
            {"labels": {"alertname": "ManyTargetsAtRisk"}, "status": {"silencedBy": ["a"]}},
            {"labels": {"alertname": "A", "target": "b"}, "status": {"silencedBy": ["2", "1"]}},
            {"labels": {"alertname": "B", "target": "b"}, "status": {"silencedBy": ["1"]}},
            {"labels": {"alertname": "B", "target": "c"}, "status": {"silencedBy": []}}]"#;
        let found = decode(made.as_bytes()).unwrap();
        assert_eq!(found, [silenced("b", "1"), silenced("b", "2")]);
        for wrong in [
            "",
            "{}",
            "<html>",
            r#"[{"labels": {}}]"#,
            r#"[{"labels": {"target": 1}}]"#,
        ] {
            let problem = decode(wrong.as_bytes()).unwrap_err();
            assert!(problem.starts_with("not the list of alerts"), "{problem}");
        }
    }

    #[tokio::test]
    async fn it_is_asked_for_silenced_warnings_of_ours_and_shows_no_secret() {
        let server = MockServer::start().await;
        let asked = Mock::given(path("/prefix/api/v2/alerts"))
            .and(query_param("filter", r#"forewarn="true""#))
            .and(query_param("active", "false"))
            .and(header("authorization", "Basic Zm9yZXdhcm46Z2VoZWltLTc="));
        let answer = ResponseTemplate::new(200).set_body_raw(SILENCED, "application/json");
        asked
            .respond_with(answer)
            .up_to_n_times(1)
            .mount(&server)
            .await;
        let echo = ResponseTemplate::new(503).set_body_string("no geheim-7 here");
        Mock::given(path("/prefix/api/v2/alerts"))
            .respond_with(echo)
            .mount(&server)
            .await;
        let alertmanager = alertmanager(&server.uri());
        assert_eq!(alertmanager.silenced().await.unwrap().len(), 1);
        let problem = alertmanager.silenced().await.unwrap_err();
        assert!(problem.contains("HTTP 503 (no [secret] here)"), "{problem}");
    }
}
