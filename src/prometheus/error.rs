use std::time::Duration;

use thiserror::Error;

use crate::time::format_duration;

use super::decode::DecodeError;

/// Why a client cannot be made from the config.
#[derive(Debug, Error)]
pub enum ClientError {
    #[error("{section}.url {url:?} {problem}; write it like http://127.0.0.1:9090")]
    Url {
        section: &'static str,
        url: String,
        problem: String,
    },
    #[error("{section}: {problem}")]
    Setup {
        section: &'static str,
        problem: String,
    },
}

/// Why a query has no answer.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum QueryError {
    #[error(
        "failed to reach Prometheus at {url}: {cause}; check prometheus.url, tls_config and proxy_url, and that the server runs"
    )]
    Unreachable { url: String, cause: String },
    #[error("Prometheus at {url} did not answer in time (prometheus.timeout is {}); raise it or make the query cheaper", format_duration(*timeout))]
    Timeout { url: String, timeout: Duration },
    #[error("Prometheus refused the query: {message}{}", several(message))]
    BadQuery { message: String },
    #[error("cannot ask Prometheus: {problem}; check the keys under prometheus in the config")]
    Credentials { problem: String, passing: bool },
    #[error(
        "Prometheus at {url} answers HTTP {status} ({message}); check the credentials and http_headers under prometheus in the config"
    )]
    Unauthorized {
        url: String,
        status: u16,
        message: String,
    },
    #[error(
        "Prometheus at {url} is overloaded, starting or limits the rate of queries (HTTP {status}): {message}"
    )]
    Overloaded {
        url: String,
        status: u16,
        message: String,
    },
    #[error(
        "unexpected answer from {url} (HTTP {status}): {message}; check that prometheus.url is the base URL of a Prometheus API"
    )]
    Protocol {
        url: String,
        status: u16,
        message: String,
    },
    #[error("the answer of Prometheus exceeds {max} {limit}; narrow the query or aggregate in it")]
    TooLarge { limit: &'static str, max: u64 },
}

/// What to do when series are alike that must not be.
fn several(message: &str) -> &'static str {
    let alike = [
        "duplicate series for the match group",
        "multiple matches for labels",
        "same labelset",
    ];
    match alike.iter().any(|words| message.contains(words)) {
        true => {
            "; several series of a target are alike there: aggregate each side by the target's labels (targets.label), for example max by (instance) (…), and name them by on (…) where two sides meet"
        }
        false => "",
    }
}

impl QueryError {
    /// Whether the same query may succeed a moment later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Timeout { .. } | Self::Overloaded { .. } => true,
            Self::Credentials { passing, .. } => *passing,
            Self::BadQuery { .. }
            | Self::Unauthorized { .. }
            | Self::Protocol { .. }
            | Self::TooLarge { .. } => false,
        }
    }

    /// Whether the server said nothing.
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Timeout { .. })
    }

    /// What the server or the network said.
    pub(super) fn said(&mut self) -> Option<&mut String> {
        match self {
            Self::Unreachable { cause: said, .. }
            | Self::BadQuery { message: said }
            | Self::Credentials { problem: said, .. }
            | Self::Unauthorized { message: said, .. }
            | Self::Overloaded { message: said, .. }
            | Self::Protocol { message: said, .. } => Some(said),
            Self::Timeout { .. } | Self::TooLarge { .. } => None,
        }
    }

    /// Fixed word for metrics and logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::Timeout { .. } => "timeout",
            Self::BadQuery { .. } => "bad_query",
            Self::Credentials { .. } => "credentials",
            Self::Unauthorized { .. } => "unauthorized",
            Self::Overloaded { .. } => "overloaded",
            Self::Protocol { .. } => "protocol",
            Self::TooLarge { .. } => "too_large",
        }
    }

    /// From what the server said: HTTP status and, in a JSON body, `errorType`.
    pub(super) fn refused(
        url: &str,
        status: u16,
        error_type: Option<&str>,
        message: String,
    ) -> Self {
        let url = url.to_owned();
        match (status, error_type) {
            (401 | 403, _) => Self::Unauthorized {
                url,
                status,
                message,
            },
            (429 | 503 | 504, _) | (_, Some("timeout" | "unavailable")) => Self::Overloaded {
                url,
                status,
                message,
            },
            (200 | 400 | 422, Some(_)) => Self::BadQuery { message },
            _ => Self::Protocol {
                url,
                status,
                message,
            },
        }
    }

    /// `head` is the beginning of the body that could not be decoded.
    pub(super) fn undecodable(url: &str, status: u16, error: DecodeError, head: &[u8]) -> Self {
        match error {
            DecodeError::TooLarge { limit, max } => Self::TooLarge { limit, max },
            DecodeError::Samples(message) => Self::BadQuery { message },
            DecodeError::Invalid(problem) => Self::Protocol {
                url: url.to_owned(),
                status,
                message: format!("{problem}, in an answer that begins \"{}\"", excerpt(head)),
            },
        }
    }
}

/// The readable text of a foreign body, on one line: no tags, no control characters, short.
pub(super) fn excerpt(body: &[u8]) -> String {
    const MAX_CHARS: usize = 160;
    let mut in_tag = false;
    let text: String = String::from_utf8_lossy(body)
        .chars()
        .map(|c| {
            let hidden = in_tag || c == '<' || c.is_control();
            in_tag = c == '<' || (in_tag && c != '>');
            if hidden { ' ' } else { c }
        })
        .collect();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(MAX_CHARS) {
        _ if text.is_empty() => "no text".into(),
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_that_are_alike_come_with_what_to_do() {
        let said = |message: &str| {
            let message = message.to_owned();
            QueryError::BadQuery { message }.to_string()
        };
        for message in [
            "found duplicate series for the match group {instance=\"a\"} on the right hand-side of the operation",
            "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
            "vector cannot contain metrics with the same labelset",
        ] {
            let text = said(message);
            assert!(text.contains("max by (instance) (…)"), "{text}");
        }
        assert_eq!(
            said("parse error"),
            "Prometheus refused the query: parse error"
        );
    }

    #[test]
    fn excerpts_are_short_and_readable() {
        for (body, expected) in [
            ("404 page not found\n", "404 page not found"),
            (
                "<html>\r\n<head><title>502 Bad Gateway</title></head>\n<hr><center>nginx</center>",
                "502 Bad Gateway nginx",
            ),
            ("", "no text"),
            ("\u{1b}[31mred\0", "[31mred"),
            ("a < b", "a"),
        ] {
            assert_eq!(excerpt(body.as_bytes()), expected);
        }
        assert_eq!(excerpt("ä".repeat(5000).as_bytes()).chars().count(), 161);
        assert_eq!(excerpt(&[0x1f, 0x8b, b'x']), "\u{fffd}x");
    }

    #[test]
    fn status_and_error_type_decide_never_the_text() {
        for (status, error_type, kind, retryable) in [
            (400, Some("bad_data"), "bad_query", false),
            (422, Some("execution"), "bad_query", false),
            (422, Some("422"), "bad_query", false),
            (200, Some("bad_data"), "bad_query", false),
            (400, None, "protocol", false),
            (404, Some("not_found"), "protocol", false),
            (500, Some("internal"), "protocol", false),
            (502, None, "protocol", false),
            (429, None, "overloaded", true),
            (301, None, "protocol", false),
            (401, None, "unauthorized", false),
            (403, Some("403"), "unauthorized", false),
            (503, Some("timeout"), "overloaded", true),
            (503, None, "overloaded", true),
            (504, None, "overloaded", true),
            (422, Some("timeout"), "overloaded", true),
        ] {
            let error = QueryError::refused("http://p", status, error_type, "timeout 503".into());
            assert_eq!(
                (error.kind(), error.is_retryable()),
                (kind, retryable),
                "{status} {error_type:?}"
            );
        }
    }
}
