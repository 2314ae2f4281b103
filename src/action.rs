//! Somebody did something about a target. Where nothing fails after that, nobody knows whether it would have: such alarms
//! count neither as right nor as false, and such rows teach nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::config::Config;
use crate::prometheus::Silenced;
use crate::state::ActionRecord;
use crate::time::{Timestamp, parse_time};
use crate::types::TargetId;
use crate::webhook;

/// Characters at most.
pub const MAX_TARGET: usize = 1000;
pub const MAX_ID: usize = 200;
pub const MAX_COMMENT: usize = 2000;
/// How far the sender's clock may be ahead.
const MAX_AHEAD: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Told {
    target: Option<String>,
    /// Instead of the target, as an alert has them.
    labels: Option<BTreeMap<String, String>>,
    time: Option<Time>,
    id: Option<String>,
    comment: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Time {
    UnixSeconds(f64),
    Text(String),
}

/// Reads a body of `POST /webhook/action`.
///
/// # Errors
/// What is wrong with it, by JSON pointer.
pub fn parse(body: &[u8], now: Timestamp, config: &Config) -> Result<ActionRecord, String> {
    let told: Told = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let named = told.target.filter(|target| !target.is_empty());
    let by_labels = |labels: BTreeMap<String, String>| {
        let is_own = labels.get("forewarn").is_some_and(|own| own == "true");
        webhook::subject(is_own, &labels, config).map(|target| target.into_owned())
    };
    let told_by_labels = || {
        told.labels
            .and_then(by_labels)
            .filter(|target| !target.is_empty())
    };
    let target = named.or_else(told_by_labels).ok_or_else(|| {
        format!(
            "names no target: write /target, or /labels with {}",
            config.targets.label.join(" and ")
        )
    })?;
    let at = match told.time {
        None => now,
        Some(Time::UnixSeconds(seconds)) => Timestamp::from_secs_f64(seconds),
        Some(Time::Text(text)) => {
            parse_time(&text, now).map_err(|problem| format!("/time: {problem}"))?
        }
    };
    if at > now.plus(MAX_AHEAD) {
        return Err(format!("/time: {at} is in the future; it is {now}"));
    }
    if at < Timestamp(0) {
        return Err("/time: is before 1970".into());
    }
    let at = at.min(now);
    let id = told.id.filter(|id| !id.is_empty());
    let id = id.unwrap_or_else(|| format!("at/{}", at.0));
    let comment = told.comment.unwrap_or_default();
    for (name, text, max) in [
        ("target", &target, MAX_TARGET),
        ("id", &id, MAX_ID),
        ("comment", &comment, MAX_COMMENT),
    ] {
        let characters = text.chars().count();
        if characters > max {
            return Err(format!(
                "/{name}: has {characters} characters, at most {max} are kept"
            ));
        }
    }
    Ok(ActionRecord {
        target: TargetId::new(target),
        id,
        at,
        comment,
    })
}

/// Who silences a warning has seen it.
pub fn of_silence(silenced: &Silenced, seen: Timestamp) -> ActionRecord {
    ActionRecord {
        target: TargetId::new(silenced.target.as_str()),
        id: format!("silence/{}", silenced.silence),
        at: seen,
        comment: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, SHIPPED};

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn read(body: &str) -> Result<ActionRecord, String> {
        let env = Environment::from_iter([("", ""); 0]);
        let text = SHIPPED.replace("${", "$${");
        let config = Config::parse(&text, "config.yaml", &env).unwrap();
        parse(body.as_bytes(), NOW, &config)
    }

    #[test]
    fn an_action_names_a_target_and_a_time() {
        for (body, target, id, at) in [
            (r#"{"target": "web-1"}"#, "web-1", "at/1800000000000", 0),
            (
                r#"{"target": "web-1", "time": 1799999990, "id": "PD-7", "comment": "failed over", "more": {}}"#,
                "web-1",
                "PD-7",
                -10_000,
            ),
            (
                r#"{"target": "web-1", "time": "2027-01-15T07:59:00Z"}"#,
                "web-1",
                "at/1799999940000",
                -60_000,
            ),
            (
                r#"{"target": "web-1", "time": "5m"}"#,
                "web-1",
                "at/1799999700000",
                -300_000,
            ),
            // As one of our own alerts, and one of others.
            (
                r#"{"labels": {"forewarn": "true", "target": "a", "instance": "b"}, "id": "1"}"#,
                "a",
                "1",
                0,
            ),
            (r#"{"labels": {"instance": "b"}, "id": "1"}"#, "b", "1", 0),
            // The sender's clock is a little ahead.
            (
                r#"{"target": "a", "id": "1", "time": 1800000030}"#,
                "a",
                "1",
                0,
            ),
        ] {
            let action = read(body).unwrap();
            assert_eq!(
                (action.target.as_str(), &*action.id),
                (target, id),
                "{body}"
            );
            assert_eq!(action.at.0 - NOW.0, at, "{body}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        let long = format!(r#"{{"target": "a", "comment": "{}"}}"#, "x".repeat(5000));
        for (body, problem) in [
            ("", "EOF"),
            ("[]", "invalid length"),
            (
                "{}",
                "names no target: write /target, or /labels with instance",
            ),
            (r#"{"target": ""}"#, "names no target"),
            (r#"{"labels": {"job": "a"}}"#, "names no target"),
            (
                r#"{"labels": {"forewarn": "true", "target": ""}}"#,
                "names no target",
            ),
            (r#"{"target": 5}"#, "expected a string"),
            (r#"{"target": "a", "time": "soon"}"#, "/time: "),
            (r#"{"target": "a", "time": 1800000090}"#, "is in the future"),
            (
                r#"{"target": "a", "time": {}}"#,
                "did not match any variant",
            ),
            (r#"{"target": "a", "time": -1}"#, "is before 1970"),
            (r#"{"target": "a", "time": -1e300}"#, "is before 1970"),
            (
                &long,
                "/comment: has 5000 characters, at most 2000 are kept",
            ),
        ] {
            let refused = read(body).unwrap_err();
            assert!(refused.contains(problem), "{body}: {refused}");
        }
    }
}
