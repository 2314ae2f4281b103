//! Checks of single values: each takes what the file says and gives the typed value or what to write instead.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::Ipv6Addr;
use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::Secret;
use super::reader::Value;
use crate::model::Imbalance;
use crate::time::{format_duration, parse_duration};

/// Longest duration that makes sense anywhere; keeps time arithmetic far from overflow.
pub(super) const TEN_YEARS: Duration = Duration::from_secs(3650 * 86_400);

pub(super) fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::Text(text) | Value::Expanded(text) if text.trim().is_empty() => {
            Err("is empty".into())
        }
        Value::Text(text) | Value::Expanded(text) => Ok(text.clone()),
        Value::List(_) | Value::Map(_) => Err(format!("{value} is not text")),
        _ => Err("is not text; put it in quotes".into()),
    }
}

pub(super) fn boolean(value: &Value) -> Result<bool, String> {
    match value {
        Value::Bool(value) => Ok(*value),
        Value::Expanded(text) if text == "true" => Ok(true),
        Value::Expanded(text) if text == "false" => Ok(false),
        value => Err(format!("{value} is not true or false")),
    }
}

pub(super) fn whole<T: TryFrom<u64> + PartialOrd + Display>(
    range: impl RangeBounds<T>,
) -> impl Fn(&Value) -> Result<T, String> {
    move |value| {
        let number = match value {
            Value::Whole(number) => Some(*number),
            Value::Expanded(text) => text.parse().ok(),
            _ => None,
        };
        match number.and_then(|number| T::try_from(number).ok()) {
            Some(number) => within(number, &range, T::to_string),
            None => Err(format!(
                "{value} is not a whole number; write one that is {}",
                describe(&range, T::to_string)
            )),
        }
    }
}

pub(super) fn number(range: impl RangeBounds<f64>) -> impl Fn(&Value) -> Result<f64, String> {
    move |value| {
        let number = match value {
            Value::Whole(number) => Some(*number as f64),
            Value::Number(number) => Some(*number),
            Value::Expanded(text) => text.parse().ok(),
            _ => None,
        };
        match number.filter(|number| number.is_finite()) {
            Some(number) => within(number, &range, f64::to_string),
            None => Err(format!(
                "{value} is not a number; write one that is {}",
                describe(&range, f64::to_string)
            )),
        }
    }
}

/// More than `low` and at most `high`.
pub(super) fn above(low: f64, high: f64) -> impl RangeBounds<f64> {
    (Bound::Excluded(low), Bound::Included(high))
}

/// Whole milliseconds within `range`.
pub(super) fn duration(
    range: RangeInclusive<Duration>,
) -> impl Fn(&Value) -> Result<Duration, String> {
    move |value| {
        let parsed = match value {
            Value::Text(text) | Value::Expanded(text) => parse_duration(text.trim())?,
            value => {
                return Err(format!(
                    "{value} is not a duration; write it like 30s, 5m, 1h30m or 30d"
                ));
            }
        };
        if parsed.subsec_nanos() % 1_000_000 != 0 {
            return Err(format!("{value} is finer than a millisecond"));
        }
        within(parsed, &range, |bound| format_duration(*bound))
    }
}

fn within<T: PartialOrd>(
    value: T,
    range: &impl RangeBounds<T>,
    show: impl Fn(&T) -> String,
) -> Result<T, String> {
    if range.contains(&value) {
        return Ok(value);
    }
    Err(format!(
        "{} is out of range; it must be {}",
        show(&value),
        describe(range, show)
    ))
}

fn describe<T>(range: &impl RangeBounds<T>, show: impl Fn(&T) -> String) -> String {
    let low = match range.start_bound() {
        Bound::Included(low) => Some(format!("at least {}", show(low))),
        Bound::Excluded(low) => Some(format!("more than {}", show(low))),
        Bound::Unbounded => None,
    };
    let high = match range.end_bound() {
        Bound::Included(high) => Some(format!("at most {}", show(high))),
        Bound::Excluded(high) => Some(format!("less than {}", show(high))),
        Bound::Unbounded => None,
    };
    let bounds: Vec<String> = low.into_iter().chain(high).collect();
    bounds.join(" and ")
}

/// One of a closed set, by name; `what` is the noun for the message ("a unit").
pub(super) fn one_of<T: Copy>(
    what: &str,
    all: &[T],
    name: fn(T) -> &'static str,
) -> impl Fn(&Value) -> Result<T, String> {
    move |value| {
        let written = text(value)?;
        all.iter()
            .copied()
            .find(|item| name(*item) == written)
            .ok_or_else(|| {
                let names: Vec<&str> = all.iter().map(|item| name(*item)).collect();
                format!("{value} is not {what}; use one of {}", names.join(", "))
            })
    }
}

/// PromQL. Only Prometheus can say whether it is right; see `forewarn check queries`.
pub(super) fn query(value: &Value) -> Result<String, String> {
    text(value).map(|query| query.trim().into())
}

/// The scheme of an `Authorization` header.
pub(super) fn auth_scheme(value: &Value) -> Result<String, String> {
    let scheme = text(value)?;
    if scheme.eq_ignore_ascii_case("basic") {
        return Err("Basic is written as prometheus.basic_auth".into());
    }
    match HeaderName::from_bytes(scheme.as_bytes()) {
        Ok(_) => Ok(scheme),
        Err(_) => Err(format!(
            "{value} is not an authorization scheme; write it like Bearer"
        )),
    }
}

/// A value that must never be part of a message.
pub(super) fn plain_secret(value: &Value) -> Result<Secret, String> {
    text(value).map(Secret::new)
}

pub(super) fn secret(value: &Value) -> Result<Secret, String> {
    let secret = text(value)?;
    header_text(&secret).map(|()| Secret::new(secret))
}

pub(super) fn header_text(secret: &str) -> Result<(), String> {
    HeaderValue::from_str(secret)
        .map(drop)
        .map_err(|_| "holds characters that no HTTP header can carry".into())
}

pub(super) fn user_name(name: &str) -> Result<(), String> {
    match name.contains(':') {
        true => Err("holds a colon, which basic authentication cannot carry in it".into()),
        false => header_text(name),
    }
}

pub(super) fn certificates(pem: &str) -> Result<(), String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(()),
        _ => Err("holds no certificate; write PEM, from -----BEGIN CERTIFICATE----- on".into()),
    }
}

pub(super) fn private_key(pem: &str) -> Result<(), String> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map(drop)
        .map_err(|_| {
            "holds no private key; write PEM, from -----BEGIN PRIVATE KEY----- on, not encrypted"
                .into()
        })
}

/// The name in a server's certificate.
pub(super) fn server_name(value: &Value) -> Result<String, String> {
    let name = text(value)?;
    match ServerName::try_from(name.as_str()) {
        Ok(ServerName::DnsName(_)) => Ok(name),
        _ => Err(format!(
            "{value} is not a host name; write it like prometheus.example.com"
        )),
    }
}

pub(super) fn path(value: &Value) -> Result<PathBuf, String> {
    text(value).map(PathBuf::from)
}

pub(super) fn imbalance(value: &Value) -> Result<Imbalance, String> {
    let all = [&Imbalance::METHODS[..], &[Imbalance::Auto]].concat();
    one_of("a way to handle imbalance", &all, Imbalance::name)(value)
}

/// A base URL without trailing slash.
pub(super) fn url(value: &Value) -> Result<String, String> {
    let written = text(value)?.trim().to_owned();
    let example = "write it like http://127.0.0.1:9090 or https://thanos.example.com/prefix";
    // What stands before an @ may be a password.
    let shown = match written.contains('@') {
        true => "the text".into(),
        false => value.to_string(),
    };
    let url = Url::parse(&written)
        .map_err(|error| format!("{shown} is not a URL ({error}); {example}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("{shown} is not an http or https URL; {example}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the URL must not hold a user or password; for queries they stand in prometheus.basic_auth".into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!(
            "{value} must end with its path, without ? or #; {example}"
        ));
    }
    Ok(written.trim_end_matches('/').into())
}

/// Where OAuth2 tokens come from. May carry a query, which may be secret.
pub(super) fn token_url(value: &Value) -> Result<Secret, String> {
    let written = text(value)?;
    let example = "write it like https://login.example.com/oauth2/token";
    let url = Url::parse(&written).map_err(|error| format!("is not a URL ({error}); {example}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("is not an http or https URL; {example}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user or password; use client_id and client_secret".into());
    }
    Ok(Secret::new(written))
}

/// A proxy; may hold a user and password. Without a scheme it is an HTTP one.
pub(super) fn proxy_url(value: &Value) -> Result<Secret, String> {
    let written = text(value)?;
    let whole = match written.contains("://") {
        true => written,
        false => format!("http://{written}"),
    };
    let known = |url: &Url| matches!(url.scheme(), "http" | "https" | "socks5" | "socks5h");
    match Url::parse(&whole) {
        Ok(url) if known(&url) && url.has_host() => Ok(Secret::new(whole)),
        _ => Err(
            "is not the URL of a proxy; write it like http://proxy.example.com:3128 (or https, socks5, socks5h)"
                .into(),
        ),
    }
}

/// Hosts, domains, addresses and networks, separated by commas.
pub(super) fn no_proxy(value: &Value) -> Result<String, String> {
    let list = text(value)?;
    let has_port = |entry: &&str| {
        let address = entry.split('/').next().unwrap_or_default();
        entry.contains(':') && address.parse::<Ipv6Addr>().is_err()
    };
    match list.split(',').map(str::trim).find(has_port) {
        Some(entry) => Err(format!(
            "{entry:?} has a port; write a host, a domain, an address or a network like 10.0.0.0/8"
        )),
        None => Ok(list),
    }
}

/// A host for `host:port`: IPv6 addresses come back in brackets.
pub(super) fn host(value: &Value) -> Result<String, String> {
    let written = text(value)?;
    let bare = written
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(&written);
    if bare.parse::<Ipv6Addr>().is_ok() {
        return Ok(format!("[{bare}]"));
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if written.chars().all(fits) {
        return Ok(written);
    }
    Err(format!(
        "{value} is not a host; write a name or an address like 127.0.0.1"
    ))
}

pub(super) fn host_and_port(value: &Value) -> Result<(String, u16), String> {
    text(value)?
        .rsplit_once(':')
        .and_then(|(before, port)| {
            let before = host(&Value::Text(before.into())).ok()?;
            Some((before, port.parse().ok()?))
        })
        .ok_or_else(|| format!("{value} is not host:port; write it like 127.0.0.1:8000"))
}

/// A log level in any case, also by its Python name.
pub(super) fn log_level(value: &Value) -> Result<String, String> {
    let level = text(value)?.to_ascii_lowercase();
    match level.as_str() {
        "trace" | "debug" | "info" | "warn" | "error" => Ok(level),
        "warning" => Ok("warn".into()),
        "critical" => Ok("error".into()),
        _ => Err(format!(
            "{value} is not a log level; use one of trace, debug, info, warn, error"
        )),
    }
}

/// A label name that a user may refer to.
pub(super) fn label(value: &Value) -> Result<String, String> {
    let name = text(value)?;
    if !is_name(&name, |c| c.is_ascii_alphabetic() || c == '_') {
        return Err(format!(
            "{value} is not a label name; it must match [a-zA-Z_][a-zA-Z0-9_]*"
        ));
    }
    if name.starts_with("__") {
        return Err(format!(
            "{value} is internal to Prometheus; no query returns it"
        ));
    }
    Ok(name)
}

pub(super) fn signal_name(name: &str) -> Result<(), String> {
    if is_name(name, |c| c.is_ascii_lowercase() || c == '_') {
        return Ok(());
    }
    Err("is not a signal name; it must match [a-z_][a-z0-9_]*".into())
}

pub(super) fn score_name(name: &str) -> Result<(), String> {
    if is_name(name, |c| c.is_ascii_lowercase() || c == '_') {
        return Ok(());
    }
    Err("is not the name of a score; it must match [a-z_][a-z0-9_]*".into())
}

/// Characters that fit `letter`, or digits but not at the start.
fn is_name(name: &str, letter: fn(char) -> bool) -> bool {
    name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit())
}

/// One label or a list of different labels.
pub(super) fn labels(value: &Value) -> Result<Vec<String>, String> {
    let Value::List(items) = value else {
        return label(value).map(|label| vec![label]);
    };
    let mut labels = Vec::new();
    for item in items {
        let label = label(&item.value)?;
        if labels.contains(&label) {
            return Err(format!("{label:?} is in the list twice"));
        }
        labels.push(label);
    }
    Ok(labels)
}

/// Label matchers by equality; all of them must hold.
pub(super) fn matchers(value: &Value) -> Result<BTreeMap<String, String>, String> {
    let Value::Map(entries) = value else {
        return Err(format!(
            "{value} is not a matcher; write it like {{severity: critical}}"
        ));
    };
    if entries.is_empty() {
        return Err(
            "matches every alert; name at least one label, like {severity: critical}".into(),
        );
    }
    let matcher = |(name, node): &(_, serde_yaml::Spanned<Value>)| {
        let name: &serde_yaml::Spanned<String> = name;
        let label = label(&Value::Text(name.value.clone()))?;
        let value = text(&node.value).map_err(|message| format!("{label}: {message}"))?;
        Ok((label, value))
    };
    entries.iter().map(matcher).collect()
}
