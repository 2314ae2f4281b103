//! The one-line rules that a model has to beat. Each scores exactly the rows that the tracks score.

use std::collections::HashMap;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::events::{Scores, Track};
use crate::labels::FailureRules;
use crate::time::{Timestamp, millis};
use crate::types::{Incident, Signal, TargetId};

/// Name in the report and scores, one per row of each track.
#[derive(Clone, Debug)]
pub struct Baseline<'a> {
    pub name: &'a str,
    pub is_probability: bool,
    pub scores: Scores,
}

/// A target's raw samples on the grid.
#[derive(Clone, Debug)]
pub struct RawSeries {
    /// Time of slot 0; earlier than the track's first row, so that this one has a past too.
    pub start: Timestamp,
    /// One column per signal, NaN where missing.
    pub columns: Vec<Vec<f32>>,
}

/// What the training part knew, for the baselines that learn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prior {
    base_rate: f64,
    /// By hour of the day in UTC.
    hourly: [f64; 24],
}

/// Steps that `predict_linear` regresses over.
const REGRESSED_STEPS: usize = 60;

/// `persistence` fades out over this long after an incident.
const MEMORY: Duration = Duration::from_secs(24 * 3600);

/// Rows of the overall rate that each hour's rate is shrunk by.
const SHRINKAGE: f64 = 60.0;

/// Levels at which published rule collections alert (awesome-prometheus-alerts: HostHighCpuLoad,
/// HostOutOfMemory, HostOutOfDiskSpace, BlackboxProbeSlowPing, BlackboxProbeSlowHttp).
const RULES_OF_THUMB: [(&str, f64); 5] = [
    ("cpu_usage", 80.0),
    ("memory_usage", 90.0),
    ("disk_usage", 90.0),
    ("network_latency_ms", 1000.0),
    ("response_time_ms", 1000.0),
];

/// Level of other bounded signals, as a share of their limit.
const BOUNDED_LEVEL: f64 = 0.9;

impl Prior {
    /// When only the base rate is known: the hours of the day do not differ.
    pub fn flat(base_rate: f64) -> Self {
        Self {
            base_rate,
            hourly: [base_rate; 24],
        }
    }

    /// From (time, positive) of the training rows.
    pub fn learn(rows: impl IntoIterator<Item = (Timestamp, bool)>) -> Self {
        let mut counts = [(0.0, 0.0); 24];
        for (t, positive) in rows {
            let (rows, positives) = &mut counts[hour(t)];
            *rows += 1.0;
            *positives += f64::from(u8::from(positive));
        }
        let (rows, positives) = counts
            .iter()
            .fold((0.0, 0.0), |sum, hour| (sum.0 + hour.0, sum.1 + hour.1));
        let base_rate = if rows > 0.0 { positives / rows } else { 0.0 };
        let hourly = counts
            .map(|(rows, positives)| (positives + SHRINKAGE * base_rate) / (rows + SHRINKAGE));
        Self { base_rate, hourly }
    }
}

/// All baselines of the report.
pub fn all(
    tracks: &[Track],
    signals: &[Signal],
    raw: &HashMap<TargetId, RawSeries>,
    prior: &Prior,
    rules: &FailureRules,
    seed: u64,
) -> Vec<Baseline<'static>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let with_raw = |score: &dyn Fn(&RawSeries, usize) -> Option<f64>| {
        each_row(tracks, |track, t| {
            let raw = raw.get(&track.target)?;
            let slot = usize::try_from((t.0 - raw.start.0).div_euclid(millis(rules.step))).ok()?;
            score(raw, slot)
        })
    };
    let rule = |name, is_probability, scores| Baseline {
        name,
        is_probability,
        scores,
    };
    vec![
        rule("random", false, each_row(tracks, |_, _| Some(rng.random()))),
        rule(
            "prior",
            true,
            each_row(tracks, |_, _| Some(prior.base_rate)),
        ),
        rule(
            "static_threshold",
            false,
            with_raw(&|raw, slot| static_threshold(signals, raw, slot)),
        ),
        rule(
            "predict_linear",
            false,
            with_raw(&|raw, slot| predict_linear(signals, raw, slot, rules)),
        ),
        rule(
            "persistence",
            false,
            each_row(tracks, |track, t| Some(persistence(&track.incidents, t))),
        ),
        rule(
            "time_of_day",
            true,
            each_row(tracks, |_, t| Some(prior.hourly[hour(t)])),
        ),
    ]
}

/// The name under which the true risk is reported, as a probability.
pub const ORACLE: &str = "oracle";

/// A score that somebody else claims for the rows of the tracks; `at` is NaN where nothing is claimed,
/// which counts as the lowest score there is: that rule said nothing, so it would not have paged.
pub fn compared<'a>(
    name: &'a str,
    tracks: &[Track],
    mut at: impl FnMut(&TargetId, Timestamp) -> f32,
) -> Baseline<'a> {
    let is_probability = name == ORACLE;
    let lowest = if is_probability {
        0.0
    } else {
        f64::NEG_INFINITY
    };
    let scores = each_row(tracks, |track, t| {
        let claimed = at(&track.target, t);
        Some(match claimed.is_nan() {
            true => lowest,
            false => f64::from(claimed.clamp(f32::MIN, f32::MAX)),
        })
    });
    Baseline {
        name,
        is_probability,
        scores,
    }
}

/// A row that the track does not score is not scored.
fn each_row(tracks: &[Track], mut score: impl FnMut(&Track, Timestamp) -> Option<f64>) -> Scores {
    let track = |track: &Track| {
        let rows = track.times.iter().zip(&track.scores);
        rows.map(|(t, own)| own.and_then(|_| score(track, *t)).map(|score| score as f32))
            .collect()
    };
    tracks.iter().map(track).collect()
}

/// The highest share that any signal has of its alerting level.
fn static_threshold(signals: &[Signal], raw: &RawSeries, slot: usize) -> Option<f64> {
    let share = |(signal, column): (&Signal, &Vec<f32>)| {
        let known = RULES_OF_THUMB
            .iter()
            .find(|(name, _)| *name == signal.name)
            .map(|(_, level)| *level);
        let level = known.or_else(|| signal.unit.limit().map(|limit| limit * BOUNDED_LEVEL))?;
        let value = f64::from(*column.get(slot)?);
        value.is_finite().then_some(value / level)
    };
    signals
        .iter()
        .zip(&raw.columns)
        .filter_map(share)
        .reduce(f64::max)
}

/// The highest share of its limit that any bounded signal reaches at the horizon if its trend goes on.
fn predict_linear(
    signals: &[Signal],
    raw: &RawSeries,
    slot: usize,
    rules: &FailureRules,
) -> Option<f64> {
    let ahead = millis(rules.horizon) as f64 / millis(rules.step) as f64;
    let share = |(signal, column): (&Signal, &Vec<f32>)| {
        let limit = signal.unit.limit()?;
        let recent = column.get((slot + 1).saturating_sub(REGRESSED_STEPS)..=slot)?;
        Some(projected(recent, ahead)? / limit)
    };
    signals
        .iter()
        .zip(&raw.columns)
        .filter_map(share)
        .reduce(f64::max)
}

/// Least squares through the samples, read `ahead` steps after the last slot.
fn projected(recent: &[f32], ahead: f64) -> Option<f64> {
    let (mut n, mut sx, mut sy, mut sxx, mut sxy) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (lag, y) in recent
        .iter()
        .rev()
        .enumerate()
        .filter(|(_, y)| y.is_finite())
    {
        let (x, y) = (-(lag as f64), f64::from(*y));
        n += 1.0;
        sx += x;
        sy += y;
        sxx += x * x;
        sxy += x * y;
    }
    if n < 2.0 {
        return None;
    }
    let slope = (n * sxy - sx * sy) / (n * sxx - sx * sx);
    Some((sy - slope * sx) / n + slope * ahead)
}

/// 1 right after an incident, falling to 0 within a day.
fn persistence(incidents: &[Incident], t: Timestamp) -> f64 {
    let before = incidents.partition_point(|incident| incident.start < t);
    let last = incidents[..before].last();
    last.map_or(0.0, |incident| {
        let age = t.since(incident.end.unwrap_or(t).min(t));
        (1.0 - age.as_secs_f64() / MEMORY.as_secs_f64()).max(0.0)
    })
}

fn hour(t: Timestamp) -> usize {
    (t.0.div_euclid(3_600_000).rem_euclid(24)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::RowLabel;
    use crate::types::Unit;

    const MINUTE: Duration = Duration::from_secs(60);

    fn signal(name: &str, unit: Unit) -> Signal {
        Signal {
            name: name.into(),
            unit,
        }
    }

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_secs(minute * 60)
    }

    fn rules() -> FailureRules {
        FailureRules {
            step: MINUTE,
            min_duration: Duration::ZERO,
            merge_gap: Duration::ZERO,
            recovery: Duration::ZERO,
            horizon: 30 * MINUTE,
        }
    }

    #[test]
    fn each_rule_scores_what_it_knows_at_its_row() {
        let signals = [
            signal("cpu_usage", Unit::Percent),
            signal("queue", Unit::Count),
            signal("fill", Unit::Ratio),
        ];
        // cpu rises by one a minute from 20, with gaps; the queue has no level; fill starts late.
        let cpu = (0..80).map(|m| {
            if m % 7 == 3 {
                f32::NAN
            } else {
                20.0 + m as f32
            }
        });
        let fill = (0..80).map(|m| if m < 70 { f32::NAN } else { 0.45 });
        let raw = RawSeries {
            start: at(0),
            columns: vec![cpu.collect(), vec![1e9; 80], fill.collect()],
        };
        let track = Track {
            target: TargetId::new("a"),
            times: vec![at(0), at(20), at(60), at(61), at(72)],
            scores: vec![Some(0.5), Some(0.5), Some(0.5), None, Some(0.5)],
            labels: vec![RowLabel::Negative; 5],
            actions: Vec::new(),
            incidents: vec![
                Incident {
                    start: at(-1450),
                    end: Some(at(-1440)),
                },
                Incident {
                    start: at(30),
                    end: Some(at(48)),
                },
            ],
        };
        let prior = Prior::learn((0..2880).map(|m| (at(m), m % 1440 < 60)));
        let found = all(
            &[track],
            &signals,
            &HashMap::from([(TargetId::new("a"), raw)]),
            &prior,
            &rules(),
            1,
        );
        let scores = |name: &str| -> Vec<Option<f32>> {
            let scores = &found.iter().find(|one| one.name == name).unwrap().scores[0];
            scores
                .iter()
                .map(|s| s.map(|s| (s * 1000.0).round() / 1000.0))
                .collect()
        };
        assert_eq!(
            scores("static_threshold"),
            [Some(0.25), Some(0.5), Some(1.0), None, Some(1.15)]
        );
        // One sample has no trend.
        assert_eq!(
            scores("predict_linear"),
            [None, Some(0.7), Some(1.1), None, Some(1.22)]
        );
        assert_eq!(
            scores("persistence"),
            [Some(0.0), Some(0.0), Some(0.992), None, Some(0.983)]
        );
        assert_eq!(
            scores("prior"),
            [Some(0.042), Some(0.042), Some(0.042), None, Some(0.042)]
        );
        assert_eq!(
            scores("time_of_day"),
            [Some(0.681), Some(0.681), Some(0.014), None, Some(0.014)]
        );
        let random = scores("random");
        assert!(random[3].is_none() && random[0] != random[1]);
    }

    #[test]
    fn without_data_there_is_no_score_and_no_rate() {
        assert_eq!(projected(&[f32::NAN, 1.0], 5.0), None);
        assert_eq!(projected(&[1.0, f32::NAN, 2.0], 2.0), Some(3.0));
        assert_eq!(Prior::learn([]).base_rate, 0.0);
        let raw = RawSeries {
            start: at(0),
            columns: vec![vec![]],
        };
        assert_eq!(
            static_threshold(&[signal("cpu_usage", Unit::Percent)], &raw, 0),
            None
        );
        assert_eq!(
            predict_linear(&[signal("cpu_usage", Unit::Percent)], &raw, 3, &rules()),
            None
        );
    }
}
