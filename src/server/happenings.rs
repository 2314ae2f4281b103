//! What has happened to one target of late: incidents, alarms, alerts, and whether they fitted together.

use serde::Serialize;
use utoipa::ToSchema;

use crate::config::Config;
use crate::state::{AlarmRecord, StateError, Store, StoredAlert, UNWATCHED};
use crate::time::Timestamp;
use crate::webhook;

/// Of each kind.
const MOST: usize = 20;
/// How far back alerts are read; they are found by their labels only.
const ALERTS_WITHIN: std::time::Duration = std::time::Duration::from_secs(7 * 86_400);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The target failed.
    Incident,
    /// forewarn expected a failure, and none followed within the horizon, or not yet.
    Alarm,
    /// Alertmanager told.
    Alert,
}

#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Happening {
    #[schema(value_type = String, example = "incident")]
    pub kind: Kind,
    /// Of an alert its name, of an incident what told of it.
    pub name: Option<String>,
    /// RFC 3339
    #[serde(serialize_with = "text")]
    #[schema(value_type = String)]
    pub start: Timestamp,
    /// RFC 3339; null while it goes on, and for alarms.
    #[serde(serialize_with = "optional_text")]
    #[schema(value_type = Option<String>)]
    pub end: Option<Timestamp>,
    /// foreseen, missed or unwatched (forewarn had not yet made a prediction of the target) for an incident and for an alert of others; early, uncertain, false or open for an alarm; null for an alert of forewarn.
    #[schema(value_type = Option<String>, example = "foreseen")]
    pub verdict: Option<&'static str>,
    /// How long before it an alarm was opened.
    pub lead_seconds: Option<f64>,
    /// At the opening of the alarm.
    pub probability: Option<f64>,
}

fn text<S: serde::Serializer>(t: &Timestamp, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(t)
}

fn optional_text<S: serde::Serializer>(t: &Option<Timestamp>, s: S) -> Result<S::Ok, S::Error> {
    match t {
        Some(t) => s.collect_str(t),
        None => s.serialize_none(),
    }
}

/// Newest first.
pub fn of_target(
    store: &Store,
    config: &Config,
    target: &str,
    now: Timestamp,
) -> Result<Vec<Happening>, StateError> {
    let alarms = store.alarms_of(target, MOST)?;
    let incidents = store.incidents_of(target, MOST)?;
    let mut found: Vec<Happening> = incidents
        .iter()
        .map(|incident| Happening {
            kind: Kind::Incident,
            name: Some(incident.source.name().into()),
            start: incident.start,
            end: incident.end,
            verdict: Some(incident.verdict()),
            lead_seconds: incident.foreseen,
            probability: None,
        })
        .collect();
    // A right one is told by its incident.
    let alone = alarms.iter().filter_map(|alarm| {
        let verdict = match alarm.outcome.as_deref() {
            None => "open",
            Some("early") => "early",
            Some("uncertain") => "uncertain",
            Some("false") => "false",
            Some(_) => return None,
        };
        Some(Happening {
            kind: Kind::Alarm,
            name: None,
            start: alarm.opened,
            end: None,
            verdict: Some(verdict),
            lead_seconds: alarm.lead_seconds,
            probability: Some(alarm.probability),
        })
    });
    found.extend(alone);
    let is_unwatched = |alert: &StoredAlert| {
        let first = alert.starts_at.plus(config.step);
        incidents.iter().any(|incident| {
            incident.verdict() == UNWATCHED
                && incident.start < first
                && incident.end.is_none_or(|end| alert.starts_at <= end)
        })
    };
    let alerts = store.alerts(now.minus(ALERTS_WITHIN), now)?;
    let own = |alert: &&StoredAlert| {
        webhook::subject(alert.own, &alert.labels, config).as_deref() == Some(target)
    };
    found.extend(alerts.iter().rev().filter(own).take(MOST).map(|alert| {
        let lead = foreseen_by(alert, target, &alarms)
            .map(|alarm| alert.starts_at.since(alarm.opened).as_secs_f64());
        Happening {
            kind: Kind::Alert,
            name: alert.labels.get("alertname").cloned(),
            start: alert.starts_at,
            end: alert.ends_at,
            verdict: (!alert.own).then(|| match lead {
                Some(_) => "foreseen",
                None if is_unwatched(alert) => UNWATCHED,
                None => "missed",
            }),
            lead_seconds: lead,
            probability: None,
        }
    }));
    found.sort_by_key(|happening| std::cmp::Reverse(happening.start));
    Ok(found)
}

/// The first alarm that covered an alert's start. Our own alerts foresee, they do not happen.
pub fn foreseen_by<'a>(
    alert: &StoredAlert,
    target: &str,
    alarms: &'a [AlarmRecord],
) -> Option<&'a AlarmRecord> {
    let covers = |alarm: &&AlarmRecord| {
        !alert.own
            && alarm.target.as_str() == target
            && alarm.opened < alert.starts_at
            && alert.starts_at <= alarm.covers_until
    };
    alarms
        .iter()
        .filter(covers)
        .min_by_key(|alarm| alarm.opened)
}
