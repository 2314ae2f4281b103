//! Intervals: how far the figures could be off by luck.
//!
//! What is drawn with replacement are clusters of incidents, each with its right and early alarms, and
//! days of one target, each with its scored rows and its false or undecided alarms. Incidents of
//! different targets that start within one step of the first of them share a cluster, because one cause
//! can take many targets. Both are drawn in their own number and added up.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::alarms::{AlarmRule, Outcome};
use super::events::{Scored, Tally};
use super::report::Measures;
use crate::time::millis;

pub const REPLICATES: u64 = 500;

const DAY_MS: i64 = 86_400_000;

/// The independent parts that an evaluation at one threshold adds up from.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    clusters: Vec<Part>,
    target_days: Vec<Tally>,
}

#[derive(Clone, Debug, Default)]
struct Part {
    tally: Tally,
    lead_seconds: Vec<f64>,
}

impl Parts {
    pub fn new(scored: &[Scored], rule: &AlarmRule) -> Self {
        let mut starts: Vec<i64> = scored
            .iter()
            .flat_map(|one| one.incidents())
            .map(|incident| incident.start.0)
            .collect();
        starts.sort_unstable();
        let step = millis(rule.step());
        let mut firsts: Vec<i64> = Vec::new();
        for start in starts {
            if firsts.last().is_none_or(|first| start - first > step) {
                firsts.push(start);
            }
        }
        let mut clusters = vec![Part::default(); firsts.len()];
        let cluster_of = |start: i64| {
            firsts
                .partition_point(|first| *first <= start)
                .checked_sub(1)
        };
        let mut target_days = Vec::new();

        for one in scored {
            let replay = one.replay(rule);
            let times = &one.track.times;
            let mut days: Vec<(i64, Tally)> = Vec::new();
            for (t, score) in times.iter().zip(one.scores) {
                let day = t.0.div_euclid(DAY_MS);
                if days.last().is_none_or(|last| last.0 != day) {
                    days.push((day, Tally::default()));
                }
                if let Some(last) = days.last_mut() {
                    last.1.rows += u64::from(score.is_some());
                }
            }
            let day_of =
                |row: usize| days.partition_point(|day| day.0 < times[row].0.div_euclid(DAY_MS));
            let mut in_alarm = vec![Tally::default(); days.len()];
            for (alarm, outcome) in &replay.alarms {
                let rows = one.rows_within(alarm);
                match (
                    outcome,
                    one.cause(alarm).and_then(|start| cluster_of(start.0)),
                ) {
                    (Some(Outcome::Right | Outcome::Early), Some(cluster)) => {
                        clusters[cluster].tally.count(*outcome);
                    }
                    _ => in_alarm[day_of(rows.start)].count(*outcome),
                }
                for row in rows {
                    in_alarm[day_of(row)].rows_in_alarm += one.scored_rows(row..row + 1);
                }
            }
            for (day, extra) in days.iter_mut().zip(&in_alarm) {
                day.1 += extra;
            }
            target_days.extend(days.into_iter().map(|day| day.1));
            for (start, lead) in &replay.incidents {
                if let Some(part) = cluster_of(start.0).map(|cluster| &mut clusters[cluster]) {
                    part.tally.incidents += 1;
                    part.tally.foreseen += u64::from(lead.is_some());
                    part.lead_seconds
                        .extend(lead.map(|lead| lead.as_secs_f64()));
                }
            }
        }
        Self {
            clusters,
            target_days,
        }
    }

    pub fn tally(&self) -> Tally {
        self.clusters
            .iter()
            .map(|part| &part.tally)
            .chain(&self.target_days)
            .sum()
    }

    /// Of the incidents foreseen.
    pub fn lead_seconds(&self) -> Vec<f64> {
        self.clusters
            .iter()
            .flat_map(|part| part.lead_seconds.iter().copied())
            .collect()
    }

    /// The measures of each replicate. `days` is the length of the evaluated span.
    pub fn replicates(&self, step: Duration, days: f64, seed: u64) -> Vec<Measures> {
        replicates(seed, |rng| {
            let mut drawn = Tally::default();
            let mut leads = Vec::new();
            for part in draw(rng, &self.clusters) {
                drawn += &part.tally;
                leads.extend_from_slice(&part.lead_seconds);
            }
            for day in draw(rng, &self.target_days) {
                drawn += day;
            }
            Measures::new(&drawn, leads, step, days)
        })
    }
}

/// As many items as there are, drawn with replacement.
pub fn draw<'a, T>(rng: &mut ChaCha8Rng, items: &'a [T]) -> impl Iterator<Item = &'a T> {
    (0..items.len()).map(|_| &items[rng.random_range(0..items.len())])
}

/// [`REPLICATES`] results, the same for the same seed on any number of threads.
pub fn replicates<R: Send>(seed: u64, one: impl Fn(&mut ChaCha8Rng) -> R + Sync) -> Vec<R> {
    let run = |stream| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        one(&mut rng)
    };
    (0..REPLICATES).into_par_iter().map(run).collect()
}

/// The central 95 % of the replicates; `None` when the figure is undefined in more than half of them.
pub fn interval(values: impl IntoIterator<Item = Option<f64>>) -> Option<[f64; 2]> {
    let mut drawn = 0;
    let defined = values.into_iter().inspect(|_| drawn += 1).flatten();
    let mut defined: Vec<f64> = defined.collect();
    defined.sort_unstable_by(f64::total_cmp);
    if 2 * defined.len() < drawn {
        return None;
    }
    Some([quantile(&defined, 0.025)?, quantile(&defined, 0.975)?])
}

/// Linear between neighbours of a sorted slice.
pub fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let position = q * sorted.len().checked_sub(1)? as f64;
    let below = sorted[position.floor() as usize];
    let above = sorted[position.ceil() as usize];
    Some(below + (above - below) * position.fract())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::events::{Track, tally};
    use crate::labels::{FailureRules, RowLabel};
    use crate::time::Timestamp;
    use crate::types::{Incident, TargetId};

    const MINUTE: Duration = Duration::from_secs(60);

    fn rule() -> AlarmRule {
        let rules = FailureRules {
            step: MINUTE,
            min_duration: Duration::ZERO,
            merge_gap: Duration::ZERO,
            recovery: Duration::ZERO,
            horizon: 30 * MINUTE,
        };
        AlarmRule::new(0.5, Duration::ZERO, &rules)
    }

    /// Ten days; every incident is at 12:00, foreseen on even days; a false alarm at 18:00 every fifth day.
    fn track(name: &str) -> Track {
        let minutes = 10 * 1440;
        let high = |m: i64| {
            let (day, minute) = (m / 1440, m % 1440);
            (day % 2 == 0 && (700..720).contains(&minute)) || (day % 5 == 0 && minute == 1080)
        };
        Track {
            target: TargetId::new(name),
            times: (0..minutes).map(|m| Timestamp::from_secs(m * 60)).collect(),
            scores: (0..minutes)
                .map(|m| Some(if high(m) { 0.9 } else { 0.1 }))
                .collect(),
            labels: vec![RowLabel::Negative; minutes as usize],
            actions: Vec::new(),
            incidents: (0..10)
                .map(|day| Incident {
                    start: Timestamp::from_secs(day * 86_400 + 43_200),
                    end: None,
                })
                .collect(),
        }
    }

    fn recall_interval(tracks: &[Track], seed: u64) -> [f64; 2] {
        let parts = Parts::new(&Scored::own(tracks), &rule());
        interval(
            parts
                .replicates(MINUTE, 10.0, seed)
                .into_iter()
                .map(|m| m.recall),
        )
        .unwrap()
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        let tracks = [track("a"), track("b")];
        let scored = Scored::own(&tracks);
        let parts = Parts::new(&scored, &rule());
        assert_eq!(parts.tally(), tally(&scored, &rule()));
        assert_eq!(parts.tally().precision(), Some(10.0 / 14.0));
        assert_eq!(parts.lead_seconds(), vec![1200.0; 10]);
        assert_eq!(parts.clusters.len(), 10);
        assert_eq!(parts.target_days.len(), 20);
    }

    #[test]
    fn shared_starts_do_not_narrow_the_interval() {
        let one = recall_interval(&[track("a")], 1);
        let ten: Vec<_> = (0..10).map(|i| track(&i.to_string())).collect();
        // Ten targets that fail together say no more than one does.
        assert_eq!(recall_interval(&ten, 1), one);
        assert!(one[0] < 0.3 && one[1] > 0.7, "{one:?}");
        assert_eq!(recall_interval(&[track("a")], 1), one);
    }

    #[test]
    fn quantiles_and_intervals_of_little() {
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[3.0], 0.9), Some(3.0));
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), Some(3.0));
        assert_eq!(interval([None, None, Some(1.0)]), None);
        assert_eq!(interval([None, Some(1.0)]), Some([1.0, 1.0]));
    }
}
