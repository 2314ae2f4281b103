//! Instants and durations: millisecond timestamps on an evaluation grid, and
//! the text forms that the command line and the config accept.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    pub fn from_secs(secs: i64) -> Self {
        Self(secs * 1000)
    }

    /// Rounds to the nearest millisecond.
    pub fn from_secs_f64(secs: f64) -> Self {
        Self((secs * 1000.0).round() as i64)
    }

    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// The last grid point at or before this instant.
    pub fn floor(self, step: Duration) -> Self {
        let step = millis(step);
        Self(self.0.div_euclid(step) * step)
    }

    /// The first grid point at or after this instant.
    pub fn ceil(self, step: Duration) -> Self {
        let step = millis(step);
        Self(-(-self.0).div_euclid(step) * step)
    }

    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0 + millis(duration))
    }

    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0 - millis(duration))
    }

    /// Time elapsed since `earlier`; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0).max(0) as u64)
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds only when they are not zero.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(t) => write!(f, "{t}"),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

/// Whole milliseconds of a duration.
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Parses `30s`, `5m`, `1h30m`, `30d`, `500ms`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| {
        format!("{text:?} is not a duration ({error}); write it like 30s, 5m, 1h30m or 30d")
    })
}

/// Shortest exact form in the units that Prometheus uses: `90s` stays `1m30s`, `3600s` is `1h`.
pub fn format_duration(duration: Duration) -> String {
    let mut rest = duration.as_millis();
    if rest == 0 {
        return "0s".into();
    }
    let mut text = String::new();
    for (unit, size) in [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
        ("ms", 1),
    ] {
        if rest >= size {
            text.push_str(&format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    text
}

/// Parses RFC 3339, unix seconds, or a time relative to `now` (`30d`, `now-6h`, `now`).
pub fn parse_time(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let text = text.trim();
    if text == "now" {
        return Ok(now);
    }
    if let Ok(t) = text.parse::<jiff::Timestamp>() {
        return Ok(Timestamp(t.as_millisecond()));
    }
    if let Ok(secs) = text.parse::<f64>()
        && secs.is_finite()
        && secs.abs() < 253_402_300_800.0
    {
        return Ok(Timestamp::from_secs_f64(secs));
    }
    let relative = text.strip_prefix("now-").unwrap_or(text);
    parse_duration(relative)
        .ok()
        .map(|d| now.minus(d))
        .filter(|t| jiff::Timestamp::from_millisecond(t.0).is_ok())
        .ok_or_else(|| {
            format!(
                "{text:?} is not a time; write RFC 3339 (2026-01-10T15:00:00Z), unix seconds, or relative (30d, now-6h)"
            )
        })
}

/// A duration to the minute, a short one to the second.
pub fn format_rough(duration: Duration) -> String {
    let unit = if duration.as_secs() < 600 { 1 } else { 60 };
    format_duration(Duration::from_secs(duration.as_secs() / unit * unit))
}

/// An instant for people, to the second.
pub fn format_moment(t: Timestamp) -> String {
    let second = t.floor(Duration::from_secs(1)).to_string();
    second.replace('T', " ").replace('Z', " UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_all_their_forms() {
        let now = Timestamp::from_secs(1_000_000);
        let at = |text| parse_time(text, now).map(|t| t.0);
        assert_eq!(at("now"), Ok(1_000_000_000));
        assert_eq!(at("now-6h"), Ok(1_000_000_000 - 6 * 3_600_000));
        assert_eq!(at("30d"), Ok(1_000_000_000 - 30 * 86_400_000));
        assert_eq!(at("1970-01-01T00:00:10Z"), Ok(10_000));
        assert_eq!(at("12.5"), Ok(12_500));
        assert!(at("yesterday").unwrap_err().contains("RFC 3339"));
        assert!(at("NaN").is_err());
        assert!(at("292277000y").is_err(), "before all calendars");
    }

    #[test]
    fn durations_round_trip() {
        for text in ["30s", "1m30s", "1h", "30d", "500ms", "0s"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
        assert_eq!(format_duration(Duration::from_secs(90 * 60)), "1h30m");
    }

    #[test]
    fn grid_points_lie_at_or_before() {
        let step = Duration::from_secs(60);
        assert_eq!(Timestamp(119_999).floor(step), Timestamp(60_000));
        assert_eq!(Timestamp(-1).floor(step), Timestamp(-60_000));
    }
}
