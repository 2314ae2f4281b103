//! Alertmanager's webhook, version "4": what was delivered, stored before the
//! answer, and which stored alerts mean that a target fails.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::de::{self, Unexpected};
use serde::{Deserialize, Deserializer};

use crate::config::{Config, FailureConfig, TargetsConfig};
use crate::history::History;
use crate::state::{AlertStatus, ReceivedAlert, Store, StoredAlert};
use crate::time::Timestamp;
use crate::types::{FailureMode, Incident, Source, TargetId};

pub const MAX_ALERTS: usize = 10_000;
/// A counter adds them up.
pub const MAX_TRUNCATED: u32 = u32::MAX;
/// Of the labels and annotations of one alert.
const MAX_ALERT_BYTES: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// New (fingerprint, status, start).
    pub stored: u64,
    pub duplicate: u64,
    /// Alerts of this delivery that our own predictions raised.
    pub own: u64,
    /// Alerts about targets of other shards, which are not stored here.
    pub elsewhere: u64,
    /// Alerts that Alertmanager left out (`max_alerts`).
    pub truncated: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// Answer 400: Alertmanager gives up.
    #[error("not an Alertmanager webhook delivery: {0}")]
    Malformed(String),
    /// Answer 503: Alertmanager tries again.
    #[error("{0}")]
    Unavailable(String),
}

/// Names of the alerts whose expression reads our own predictions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnAlerts(BTreeSet<String>);

impl OwnAlerts {
    /// From the (name, expression) of every alerting rule.
    pub fn from_rules<'a>(rules: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(
            rules
                .into_iter()
                .filter(|(_, expression)| is_own(expression))
                .map(|(name, _)| name.into())
                .collect(),
        )
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether these are the labels of an alert that our own predictions raised.
    pub fn contains(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.get("forewarn").is_some_and(|v| v == "true")
            || labels
                .get("alertname")
                .is_some_and(|name| self.0.contains(name))
    }
}

/// Stores a delivery. `Ok` means that it is on the disk.
pub fn receive(
    store: &Store,
    body: &[u8],
    now: Timestamp,
    own: &OwnAlerts,
    is_ours: impl Fn(&str) -> bool,
    config: &Config,
) -> Result<Received, WebhookError> {
    let (mut alerts, truncated) = parse(body, own).map_err(WebhookError::Malformed)?;
    let delivered = alerts.len();
    alerts.retain(|alert| {
        subject(alert.own, &alert.labels, config).is_none_or(|target| is_ours(&target))
    });
    let recorded = store
        .record_alerts(now, &alerts)
        .map_err(|error| WebhookError::Unavailable(error.to_string()))?;
    Ok(Received {
        stored: recorded.stored,
        duplicate: recorded.duplicate,
        own: alerts.iter().filter(|alert| alert.own).count() as u64,
        elsewhere: (delivered - alerts.len()) as u64,
        truncated,
    })
}

#[derive(Deserialize)]
struct Envelope {
    version: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Delivery {
    alerts: Vec<Alert>,
    #[serde(default, deserialize_with = "whole_number")]
    truncated_alerts: Option<u64>,
}

/// JSON has one kind of number: 1.0 is as whole as 1.
fn whole_number<'de, D: Deserializer<'de>>(json: D) -> Result<Option<u64>, D::Error> {
    match Option::<f64>::deserialize(json)? {
        None => Ok(None),
        Some(n) if (0.0..=f64::from(MAX_TRUNCATED)).contains(&n) && n.fract() == 0.0 => {
            Ok(Some(n as u64))
        }
        Some(n) => Err(de::Error::invalid_value(
            Unexpected::Float(n),
            &"a whole number below 2^32",
        )),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Alert {
    status: AlertStatus,
    labels: BTreeMap<String, String>,
    annotations: Option<BTreeMap<String, String>>,
    starts_at: String,
    ends_at: Option<String>,
    fingerprint: Option<String>,
}

/// The alerts of a delivery, and how many Alertmanager left out of it.
pub fn parse(body: &[u8], own: &OwnAlerts) -> Result<(Vec<ReceivedAlert>, u64), String> {
    let envelope: Envelope = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    match envelope.version {
        Some(version) if version == "4" => {}
        Some(version) => {
            return Err(format!(
                "version is {version}, this receiver reads version \"4\""
            ));
        }
        None => return Err("version is missing, expected \"4\"".into()),
    }
    let delivery: Delivery = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if delivery.alerts.len() > MAX_ALERTS {
        return Err(format!(
            "{} alerts, at most {MAX_ALERTS} are read; set max_alerts in the receiver or group finer",
            delivery.alerts.len()
        ));
    }
    let alerts = delivery
        .alerts
        .into_iter()
        .enumerate()
        .map(|(i, alert)| check(alert, own).map_err(|problem| format!("/alerts/{i}{problem}")))
        .collect::<Result<_, _>>()?;
    Ok((alerts, delivery.truncated_alerts.unwrap_or(0)))
}

fn check(alert: Alert, own: &OwnAlerts) -> Result<ReceivedAlert, String> {
    let annotations = alert.annotations.unwrap_or_default();
    let bytes: usize = alert
        .labels
        .iter()
        .chain(&annotations)
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if bytes > MAX_ALERT_BYTES {
        return Err(format!(
            ": {bytes} bytes of labels and annotations, at most {MAX_ALERT_BYTES} are read"
        ));
    }
    let starts_at = time(&alert.starts_at).map_err(|problem| format!("/startsAt: {problem}"))?;
    let ends_at = match alert.ends_at.as_deref() {
        None | Some("") => None,
        Some(text) => time(text).map_err(|problem| format!("/endsAt: {problem}"))?,
    };
    let fingerprint = match alert.fingerprint {
        Some(given) if !given.is_empty() && given.len() <= 64 => given,
        _ => fingerprint(&alert.labels),
    };
    Ok(ReceivedAlert {
        fingerprint,
        status: alert.status,
        own: own.contains(&alert.labels),
        labels: alert.labels,
        annotations,
        starts_at: starts_at.ok_or("/startsAt: is the zero time, expected when the alert began")?,
        ends_at,
    })
}

/// `None` for Go's zero time, which Alertmanager sends for "not yet".
fn time(text: &str) -> Result<Option<Timestamp>, String> {
    const ZERO_SECONDS: i64 = -62_135_596_800;
    let time: jiff::Timestamp = text
        .parse()
        .map_err(|_| format!("{text:?} is not an RFC 3339 time"))?;
    Ok((time.as_second() > ZERO_SECONDS).then(|| Timestamp(time.as_millisecond())))
}

/// The fingerprint that Alertmanager itself gives these labels: FNV-1a, 64 bits.
fn fingerprint(labels: &BTreeMap<String, String>) -> String {
    let bytes = labels
        .iter()
        .flat_map(|(name, value)| [name, value])
        .flat_map(|text| text.bytes().chain([0xff]));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// Whether a PromQL expression reads our own predictions: a metric
/// `failure_probability` or `forewarn_…`, or a recording of one
/// (`job:failure_probability:max`), by name or in `__name__`. Text in strings does not count.
pub fn is_own(expression: &str) -> bool {
    let mut rest = expression;
    // The next string names a metric: `{__name__=~"…"` or `{"…"`.
    let mut names_metric = false;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' | '\'' | '`' => {
                let length = string_length(rest, first);
                if names_metric && words(&rest[..length]).any(names_ours) {
                    return true;
                }
                names_metric = false;
                length
            }
            '#' => rest.find('\n').unwrap_or(rest.len()),
            c if is_word(c) => {
                let word = words(rest).next().unwrap_or_default();
                if names_ours(word) {
                    return true;
                }
                names_metric = word == "__name__";
                word.len()
            }
            '=' | '~' | ' ' | '\t' | '\n' | '\r' => 1,
            other => {
                // A `!` ends here too: `__name__!=` selects what is not ours.
                names_metric = other == '{';
                other.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    false
}

/// Bytes of the string literal that `text` begins with; all of it when unterminated.
fn string_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote != '`' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c| !is_word(c)).filter(|word| !word.is_empty())
}

fn names_ours(word: &str) -> bool {
    word.split(':')
        .any(|part| part == "failure_probability" || part.starts_with("forewarn_"))
}

/// Whether every matcher holds; an absent label is empty, as in PromQL.
pub fn alert_matches(
    matchers: &BTreeMap<String, String>,
    labels: &BTreeMap<String, String>,
) -> bool {
    matchers
        .iter()
        .all(|(name, value)| labels.get(name).map_or("", String::as_str) == value)
}

/// The target that an alert's labels name; `None` where a label of it is absent.
pub fn target_of<'a>(
    label: impl Fn(&str) -> Option<&'a str>,
    targets: &TargetsConfig,
    target_labels: &BTreeMap<String, String>,
) -> Option<Cow<'a, str>> {
    let value = |name: &String| {
        label(target_labels.get(name).unwrap_or(name)).filter(|value| !value.is_empty())
    };
    if let [name] = &targets.label[..] {
        return value(name).map(Cow::Borrowed);
    }
    let values: Option<Vec<&str>> = targets.label.iter().map(value).collect();
    Some(Cow::Owned(values?.join("/")))
}

/// The target that an alert is about. Our own alerts name it themselves.
pub fn subject<'a>(
    is_own: bool,
    labels: &'a BTreeMap<String, String>,
    config: &Config,
) -> Option<Cow<'a, str>> {
    let label = |name: &str| labels.get(name).map(String::as_str);
    match is_own {
        true => label("target").map(Cow::Borrowed),
        false => target_of(label, &config.targets, &config.failure.target_labels),
    }
}

/// Marks what received alerts say of targets: of those in the history and those that `is_known`, because an
/// alert alone makes no target.
pub fn mark_failing(
    history: &mut History,
    alerts: &[StoredAlert],
    config: &Config,
    own: &OwnAlerts,
    is_known: impl Fn(&TargetId) -> bool,
) {
    let spells = failing_from_alerts(alerts, &config.failure, &config.targets, own);
    for ((target, name), spells) in &spells {
        if is_known(target) || history.place(target.as_str()).is_some() {
            let mode = FailureMode::Alert(name.clone());
            history.mark_failing(Source::Webhook, mode, target, spells);
        }
    }
}

/// Spells in which alerts of one name say that a target fails: apart and in order of time.
/// Whether an alert is our own is asked again, because rules are often read after it arrived.
fn failing_from_alerts(
    alerts: &[StoredAlert],
    failure: &FailureConfig,
    targets: &TargetsConfig,
    own: &OwnAlerts,
) -> BTreeMap<(TargetId, String), Vec<Incident>> {
    let mut spells: BTreeMap<_, Vec<Incident>> = BTreeMap::new();
    for alert in alerts {
        let is_failure = !alert.own
            && !own.contains(&alert.labels)
            && alert.ends_at.is_none_or(|end| end > alert.starts_at)
            && failure
                .alerts
                .iter()
                .any(|matchers| alert_matches(matchers, &alert.labels));
        if is_failure
            && let Some(target) = target_of(
                |name| alert.labels.get(name).map(String::as_str),
                targets,
                &failure.target_labels,
            )
        {
            let target = TargetId::new(target);
            let name = alert.labels.get("alertname").cloned().unwrap_or_default();
            spells.entry((target, name)).or_default().push(Incident {
                start: alert.starts_at,
                end: alert.ends_at,
            });
        }
    }
    for spells in spells.values_mut() {
        spells.sort_by_key(|spell| spell.start);
        spells.dedup_by(|next, last| {
            let touches = last.end.is_none_or(|end| next.start <= end);
            if touches {
                last.end = last.end.zip(next.end).map(|(a, b)| a.max(b));
            }
            touches
        });
    }
    spells
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;
    use crate::config::{Environment, SHIPPED};
    use std::sync::LazyLock;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn fixture(name: &str) -> Vec<u8> {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/alertmanager/");
        std::fs::read(format!("{dir}{name}")).unwrap()
    }

    fn store() -> (TempDir, Store) {
        let dir = TempDir::new().unwrap();
        let store = Store::open(dir.path(), Duration::from_secs(3600)).unwrap();
        (dir, store)
    }

    fn text_map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(k, v)| (k.into(), v.into())).collect()
    }

    fn config() -> &'static Config {
        static CONFIG: LazyLock<Config> = LazyLock::new(|| {
            let env = Environment::from_iter([("", ""); 0]);
            let text = SHIPPED.replace("${", "$${");
            Config::parse(&text, "config.yaml", &env).unwrap()
        });
        &CONFIG
    }

    fn receive_all(store: &Store, body: &[u8], own: &OwnAlerts) -> Result<Received, WebhookError> {
        receive(store, body, NOW, own, |_| true, config())
    }

    fn all(store: &Store) -> Vec<StoredAlert> {
        store.alerts(Timestamp(0), Timestamp(i64::MAX)).unwrap()
    }

    #[test]
    fn real_deliveries_of_both_alertmanagers() {
        let (_dir, store) = store();
        let own = OwnAlerts::from_rules([("PredictorDown", "forewarn_up == 0")]);
        for (name, stored, duplicate, ours, truncated) in [
            ("0.25/firing-2.json", 2, 0, 0, 0),
            ("0.25/firing-2.json", 0, 2, 0, 0),
            ("0.25/mixed-1resolved-1firing.json", 1, 1, 0, 0),
            ("0.25/resolved.json", 1, 0, 0, 0),
            ("0.25/firing-3.json", 3, 0, 0, 0),
            ("0.25/predictor-down.json", 1, 0, 1, 0),
            ("0.25/resolved-3-because-sidecar-died.json", 3, 0, 0, 0),
            ("0.25/truncated.json", 2, 0, 0, 498),
            ("0.25/firing-500.json", 500, 0, 0, 0),
            ("0.33/firing.json", 3, 0, 0, 0),
            ("0.33/resolved-1.json", 1, 0, 1, 0),
            ("0.33/firing-1.json", 1, 0, 1, 0),
            ("0.33/resolved-3.json", 3, 0, 0, 0),
            ("0.33/firing-3.json", 3, 0, 0, 0),
        ] {
            let received = receive_all(&store, &fixture(name), &own).unwrap();
            let expected = Received {
                stored,
                duplicate,
                own: ours,
                elsewhere: 0,
                truncated,
            };
            assert_eq!(received, expected, "{name}");
        }
        let alerts = all(&store);
        assert_eq!(alerts.len(), 2 + 3 + 1 + 2 + 500 + 3 + 1 + 3 + 3);
        assert_eq!(alerts.iter().filter(|a| a.own).count(), 2);
        let disk = alerts
            .iter()
            .find(|a| a.fingerprint == "ec945c8c9a2eb066")
            .unwrap();
        assert_eq!(disk.annotations["summary"], "ünïcode → \"quoted\"\nline2");
        assert_eq!(disk.starts_at.to_string(), "2026-11-22T13:25:08.933Z");
    }

    #[test]
    fn a_missing_fingerprint_becomes_the_one_alertmanager_gives() {
        for name in ["0.25/firing-500.json", "0.33/firing-3.json"] {
            let with = fixture(name);
            let mut without: serde_json::Value = serde_json::from_slice(&with).unwrap();
            without.as_object_mut().unwrap().remove("truncatedAlerts");
            for alert in without["alerts"].as_array_mut().unwrap() {
                alert.as_object_mut().unwrap().remove("fingerprint");
            }
            let without = without.to_string().into_bytes();
            let own = OwnAlerts::default();
            assert_eq!(parse(&without, &own), parse(&with, &own), "{name}");
        }
    }

    #[test]
    fn times_are_read_with_their_offset() {
        for (text, expected) in [
            ("2026-01-10T15:30:45.123456789Z", Some(1_768_059_045_123)),
            ("2026-01-10T17:30:45.123+02:00", Some(1_768_059_045_123)),
            ("0001-01-01T00:00:00Z", None),
        ] {
            assert_eq!(time(text), Ok(expected.map(Timestamp)), "{text}");
        }
    }

    #[test]
    fn malformed_deliveries_are_refused_by_name() {
        let one = |alert: &str| format!(r#"{{"version":"4","alerts":[{alert}]}}"#);
        let times = r#""startsAt":"2026-01-10T15:30:45Z","endsAt":"0001-01-01T00:00:00Z""#;
        let long = "x".repeat(MAX_ALERT_BYTES);
        let simple = format!(r#"{{"status":"firing","labels":{{}},{times}}}"#);
        let many = vec![simple.as_str(); MAX_ALERTS + 1].join(",");
        #[rustfmt::skip]
        let table = [
            (String::new(), "EOF while parsing"),
            ("nonsense".into(), "expected ident at line 1"),
            ("[]".into(), "invalid length 0"),
            ("{\"version\":\"4\"}\u{0}".into(), "trailing characters"),
            (r#"{"alerts":[]}"#.into(), r#"version is missing, expected "4""#),
            (r#"{"version":"3","alert":[]}"#.into(), r#"version is "3", this receiver reads version "4""#),
            (r#"{"version":4,"alerts":[]}"#.into(), "version is 4, this"),
            (r#"{"version":"4"}"#.into(), "missing field `alerts`"),
            (r#"{"version":"4","alerts":{}}"#.into(), "invalid type: map"),
            (r#"{"version":"4","alerts":[],"truncatedAlerts":-1}"#.into(), "floating point `-1.0`, expected a whole number"),
            (r#"{"version":"4","alerts":[],"truncatedAlerts":1.5}"#.into(), "`1.5`"),
            (r#"{"version":"4","alerts":[],"truncatedAlerts":18446744073709551616}"#.into(), "below 2^32"),
            (one(&format!(r#"{{"labels":{{}},{times}}}"#)), "missing field `status`"),
            (one(&format!(r#"{{"status":"silenced","labels":{{}},{times}}}"#)), "unknown variant `silenced`, expected `firing` or `resolved`"),
            (one(&format!(r#"{{"status":"firing",{times}}}"#)), "missing field `labels`"),
            (one(&format!(r#"{{"status":"firing","labels":{{"a":1}},{times}}}"#)), "invalid type: integer `1`, expected a string"),
            (one(r#"{"status":"firing","labels":{}}"#), "missing field `startsAt`"),
            (one(r#"{"status":"firing","labels":{},"startsAt":"today"}"#), r#"/alerts/0/startsAt: "today" is not an RFC 3339 time"#),
            (one(r#"{"status":"firing","labels":{},"startsAt":"0001-01-01T00:00:00Z"}"#), "/alerts/0/startsAt: is the zero time"),
            (one(&format!(r#"{simple},{{"status":"resolved","labels":{{}},"startsAt":"2026-01-10T15:30:45Z","endsAt":"2026-13-01T00:00:00Z"}}"#)), "/alerts/1/endsAt: \"2026-13"),
            (one(&format!(r#"{{"status":"firing","labels":{{"a":"{long}"}},{times}}}"#)), "/alerts/0: 65537 bytes of labels"),
            (one(&many), "10001 alerts, at most 10000"),
            ("[".repeat(100_000), "recursion limit"),
        ];
        let (_dir, store) = store();
        for (body, expected) in table {
            let shown = &body[..body.len().min(100)];
            match receive_all(&store, body.as_bytes(), &OwnAlerts::default()) {
                Err(WebhookError::Malformed(message)) => {
                    assert!(message.contains(expected), "{shown}: {message}");
                }
                other => panic!("{shown}: {other:?}"),
            }
        }
        assert_eq!(all(&store), []);
    }

    #[test]
    fn unknown_and_absent_fields_are_tolerated() {
        let body = br#"{"version":"4","new":{},"alerts":[{"status":"resolved","labels":{"a":"b"},"annotations":null,
            "startsAt":"2026-01-10T15:30:45Z","fingerprint":"","extra":[1]}],"truncatedAlerts":null}"#;
        let (_dir, store) = store();
        assert_eq!(
            receive_all(&store, body, &OwnAlerts::default())
                .unwrap()
                .stored,
            1
        );
        assert_eq!(all(&store)[0].ends_at, Some(NOW));
    }

    #[test]
    fn a_whole_number_may_be_written_with_a_point() {
        let parsed = parse(
            br#"{"version":"4","alerts":[],"truncatedAlerts":3.0}"#,
            &OwnAlerts::default(),
        );
        assert_eq!(parsed, Ok((Vec::new(), 3)));
    }

    #[test]
    fn an_alert_is_stored_by_the_shard_of_its_target() {
        let body = fixture("0.33/firing-3.json");
        let receive_of = |is_ours: fn(&str) -> bool| {
            let (_dir, store) = store();
            let own = OwnAlerts::default();
            let received = receive(&store, &body, NOW, &own, is_ours, config()).unwrap();
            (received.stored, received.elsewhere, all(&store).len())
        };
        assert_eq!(receive_of(|_| false), (0, 3, 0));
        assert_eq!(receive_of(|target| target.starts_with("web-")), (2, 1, 2));
    }

    #[test]
    fn a_store_that_cannot_be_written_asks_for_a_retry() {
        let (dir, _store) = store();
        let reader = Store::open_read_only(dir.path()).unwrap();
        let body = fixture("0.33/firing-1.json");
        let result = receive_all(&reader, &body, &OwnAlerts::default());
        assert!(
            matches!(result, Err(WebhookError::Unavailable(_))),
            "{result:?}"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// Two Alertmanagers send the same at the same time, each in its own order and groups and some of it again.
        #[test]
        fn who_sends_what_when_and_how_often_changes_nothing(
            all in prop::collection::vec((0..4_u8, 0..3_i64, prop::option::of(1..4_i64)), 1..16),
            (seed, groups) in (any::<u64>(), (1..5_usize, 1..5_usize)),
        ) {
            use rand::SeedableRng;
            use rand::seq::SliceRandom;
            let rfc3339 = |second: i64| Timestamp::from_secs(1_768_000_000 + second).to_string();
            let alert = |&(name, start, length): &(u8, i64, Option<i64>)| {
                let start = 100 * start;
                let (status, end) = match length {
                    Some(length) => ("resolved", rfc3339(start + length)),
                    None => ("firing", "0001-01-01T00:00:00Z".into()),
                };
                serde_json::json!({"status": status, "labels": {"alertname": name.to_string()},
                    "annotations": {"a": "b"}, "startsAt": rfc3339(start), "endsAt": end})
            };
            let deliver = |store: &Store, alerts: &[(u8, i64, Option<i64>)]| {
                let alerts: Vec<_> = alerts.iter().map(alert).collect();
                let body = serde_json::json!({"version": "4", "alerts": alerts}).to_string();
                receive_all(store, body.as_bytes(), &OwnAlerts::default()).unwrap()
            };
            let (_dir, once) = store();
            deliver(&once, &all);
            let (_dir, twice) = store();
            let stored: u64 = std::thread::scope(|scope| {
                let sender = |salt: u64, group: usize| {
                    let (mut alerts, twice, deliver) = ([&all[..], &all[..all.len() / 2]].concat(), &twice, &deliver);
                    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed ^ salt);
                    alerts.shuffle(&mut rng);
                    scope.spawn(move || {
                        alerts.chunks(group).map(|part| deliver(twice, part).stored).sum::<u64>()
                    })
                };
                let senders = [sender(0, groups.0), sender(1, groups.1)];
                senders.map(|sender| sender.join().unwrap()).into_iter().sum()
            });
            prop_assert_eq!(self::all(&once), self::all(&twice));
            let distinct: BTreeSet<_> = all.iter().map(|(name, start, end)| (name, start, end.is_some())).collect();
            prop_assert_eq!(stored, distinct.len() as u64);
        }
    }

    proptest! {
        #[test]
        fn damaged_deliveries_never_panic(at in 0..1700_usize, cut in 0..1700_usize, byte in any::<u8>()) {
            let mut body = fixture("0.33/firing-3.json");
            body[at] = byte;
            body.truncate(cut.max(at + 1));
            let _ = parse(&body, &OwnAlerts::default());
        }

        #[test]
        fn no_expression_panics(text in "[\\PC\"'`\\\\{=#_]{0,40}") {
            is_own(&text);
        }
    }

    #[test]
    fn expressions_that_read_our_predictions() {
        for (expression, expected) in [
            ("failure_probability > 0.8", true),
            ("max by (job) (failure_probability{job=\"x\"}) > 0.8", true),
            ("avg_over_time(forewarn_prediction_age[5m])", true),
            ("job:failure_probability:max > 0.5", true),
            ("{__name__=\"failure_probability\"} > 0.8", true),
            ("{__name__ =~ \"up|forewarn_.*\"}", true),
            ("{\"failure_probability\", job='x'} > 0", true),
            ("up == 0 # failure_probability\n", false),
            ("up == 0 # it's broken\n or failure_probability > 0", true),
            ("{__name__!=\"failure_probability\"}", false),
            ("up{job=\"failure_probability\"} == 0", false),
            ("up{job=\"a\\\"b forewarn_x\"} == 0", false),
            ("up{job=`a\\`} or forewarn_up", true),
            (
                "label_replace(up, 'forewarn_x', '$1', 'job', '(.*)') == 0",
                false,
            ),
            ("disk_failure_probability > 0.8", false),
            ("failure_probability_old > 0.8", false),
            ("forewarn > 0", false),
            ("", false),
            ("up{job=\"ü", false),
        ] {
            assert_eq!(is_own(expression), expected, "{expression}");
        }
    }

    #[test]
    fn our_alerts_are_known_by_label_or_name() {
        let own =
            OwnAlerts::from_rules([("Theirs", "failure_probability > 0.9"), ("Down", "up == 0")]);
        for (labels, expected) in [
            (&[("alertname", "Theirs")][..], true),
            (&[("alertname", "Down")], false),
            (&[("alertname", "Down"), ("forewarn", "true")], true),
            (&[("alertname", "Down"), ("forewarn", "no")], false),
            (&[], false),
        ] {
            assert_eq!(own.contains(&text_map(labels)), expected, "{labels:?}");
        }
    }

    #[test]
    fn matchers_and_targets() {
        let labels = text_map(&[
            ("alertname", "Down"),
            ("host", "db1"),
            ("job", "node"),
            ("pod", ""),
        ]);
        for (matchers, expected) in [
            (&[("alertname", "Down"), ("job", "node")][..], true),
            (&[("alertname", "Down"), ("job", "web")], false),
            (&[("severity", "page")], false),
            (&[("severity", "")], true),
        ] {
            assert_eq!(
                alert_matches(&text_map(matchers), &labels),
                expected,
                "{matchers:?}"
            );
        }
        for (label, renamed, expected) in [
            (&["job"][..], &[][..], Some("node")),
            (&["instance"], &[], None),
            (&["instance"], &[("instance", "host")], Some("db1")),
            (
                &["job", "instance"],
                &[("instance", "host")],
                Some("node/db1"),
            ),
            (&["job", "pod"], &[], None),
        ] {
            let value = |name: &str| labels.get(name).map(String::as_str);
            let found = target_of(value, &targets(label), &text_map(renamed));
            assert_eq!(found.as_deref(), expected, "{label:?}");
        }
    }

    fn targets(label: &[&str]) -> TargetsConfig {
        TargetsConfig {
            label: label.iter().map(|&l| l.into()).collect(),
            extra_labels: Vec::new(),
            max: 1000,
        }
    }

    #[test]
    fn failing_spells_come_from_matching_alerts_that_are_not_ours() {
        let stored = |name: &str, target: &str, start: i64, end: Option<i64>| StoredAlert {
            fingerprint: String::new(),
            labels: text_map(&[("alertname", name), ("instance", target)]),
            annotations: BTreeMap::new(),
            starts_at: Timestamp(start),
            ends_at: end.map(Timestamp),
            received_at: NOW,
            own: false,
        };
        let alerts = [
            stored("Slow", "a", 30, Some(40)),
            stored("Down", "a", 10, Some(20)),
            stored("Down", "a", 15, Some(25)),
            stored("Down", "a", 40, None),
            stored("Slow", "a", 60, Some(70)),
            stored("Down", "b", 10, Some(20)),
            stored("Down", "b", 5, Some(5)),
            stored("Other", "c", 10, None),
            stored("Down", "", 10, None),
            stored("Predicted", "d", 10, None),
            StoredAlert {
                own: true,
                ..stored("Down", "d", 10, None)
            },
        ];
        let failure = FailureConfig {
            queries: Vec::new(),
            alerts: ["Down", "Slow", "Predicted"]
                .map(|name| text_map(&[("alertname", name)]))
                .into(),
            acted: Vec::new(),
            min_duration: Duration::ZERO,
            merge_gap: Duration::ZERO,
            target_labels: BTreeMap::new(),
        };
        let own = OwnAlerts::from_rules([("Predicted", "failure_probability > 0")]);
        let found = failing_from_alerts(&alerts, &failure, &targets(&["instance"]), &own);
        let spell = |start, end: Option<i64>| Incident {
            start: Timestamp(start),
            end: end.map(Timestamp),
        };
        let of = |target: &str, name: &str| (TargetId::new(target), name.to_string());
        let expected = BTreeMap::from([
            (of("a", "Down"), vec![spell(10, Some(25)), spell(40, None)]),
            (
                of("a", "Slow"),
                vec![spell(30, Some(40)), spell(60, Some(70))],
            ),
            (of("b", "Down"), vec![spell(10, Some(20))]),
        ]);
        assert_eq!(found, expected);
    }
}
