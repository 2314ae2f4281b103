//! Thresholds from a budget of false alarms or from a precision.

use rayon::prelude::*;

use super::alarms::AlarmRule;
use super::events::{Scored, Tally, Track, tally};

/// Counts at each candidate threshold, highest first.
///
/// Candidates are at most [`CANDIDATES`] scores at geometrically spaced ranks, so that they are
/// dense where alarms are rare: with a million rows, neighbours differ by 3 % in the rows above them.
#[derive(Clone, Debug)]
pub struct Curve {
    pub points: Vec<Point>,
    rule: AlarmRule,
}

#[derive(Clone, Copy, Debug)]
pub struct Point {
    pub threshold: f64,
    pub tally: Tally,
}

pub const CANDIDATES: usize = 512;

impl Curve {
    pub fn new(scored: &[Scored], rule: &AlarmRule) -> Self {
        let points = candidates(scored)
            .into_par_iter()
            .map(|threshold| Point {
                threshold,
                tally: tally(scored, &rule.with_threshold(threshold)),
            })
            .collect();
        Self {
            points,
            rule: *rule,
        }
    }

    /// The lowest threshold such that it and every higher one stays within so many false alarms per
    /// target-week; `None` when even the highest score is over it.
    pub fn within_budget(&self, false_alarms_per_target_week: f64) -> Option<f64> {
        let within = |point: &&Point| {
            let rate = point.tally.false_alarms_per_target_week(self.rule.step());
            rate.is_some_and(|rate| rate <= false_alarms_per_target_week)
        };
        self.points
            .iter()
            .take_while(within)
            .last()
            .map(|point| point.threshold)
    }

    /// The lowest threshold whose alarms are at least this precise.
    pub fn with_precision(&self, precision: f64) -> Option<f64> {
        let precise = |point: &&Point| point.tally.precision().is_some_and(|p| p >= precision);
        self.points
            .iter()
            .rfind(precise)
            .map(|point| point.threshold)
    }
}

/// [`Curve::within_budget`] of the tracks' own scores.
pub fn threshold_within_budget(
    tracks: &[Track],
    rule: &AlarmRule,
    false_alarms_per_target_week: f64,
) -> Option<f64> {
    Curve::new(&Scored::own(tracks), rule).within_budget(false_alarms_per_target_week)
}

/// Share of a fleet's weekly budget that falls to one target.
pub fn per_target_week(fleet_per_week: f64, targets: usize) -> f64 {
    fleet_per_week / targets.max(1) as f64
}

fn candidates(scored: &[Scored]) -> Vec<f64> {
    let mut scores: Vec<f32> = scored
        .iter()
        .flat_map(|one| one.scores.iter().flatten().copied())
        .collect();
    scores.retain(|score| score.is_finite());
    scores.sort_unstable_by(|a, b| b.total_cmp(a));
    let last = scores.len().saturating_sub(1) as f64;
    let rank = |k: usize| {
        (last + 1.0)
            .powf(k as f64 / (CANDIDATES - 1) as f64)
            .round() as usize
            - 1
    };
    let mut chosen: Vec<f64> = (0..CANDIDATES)
        .filter_map(|k| scores.get(rank(k)).map(|score| at_or_above(*score)))
        .collect();
    chosen.dedup();
    chosen
}

/// A threshold that every f64 which rounds to `score` reaches, so that recorded scores and live ones agree.
fn at_or_above(score: f32) -> f64 {
    f64::midpoint(f64::from(score), f64::from(score.next_down()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::labels::{FailureRules, RowLabel};
    use crate::time::Timestamp;
    use crate::types::{Incident, TargetId};

    fn rule() -> AlarmRule {
        let rules = FailureRules {
            step: Duration::from_secs(60),
            min_duration: Duration::ZERO,
            merge_gap: Duration::ZERO,
            recovery: Duration::ZERO,
            horizon: Duration::from_secs(1800),
        };
        AlarmRule::new(0.0, Duration::from_secs(300), &rules)
    }

    /// Four weeks with an incident every two days.
    fn track(score: impl FnMut(i64) -> f32) -> Track {
        let minutes = 28 * 1440;
        Track {
            target: TargetId::new("a"),
            times: (0..minutes).map(|m| Timestamp::from_secs(m * 60)).collect(),
            scores: (0..minutes).map(score).map(Some).collect(),
            labels: vec![RowLabel::Negative; minutes as usize],
            actions: Vec::new(),
            incidents: (1..14)
                .map(|i| Incident {
                    start: Timestamp::from_secs(i * 2 * 86_400),
                    end: None,
                })
                .collect(),
        }
    }

    const BUDGETS: [f64; 4] = [0.01, 0.1, 1.0, 7.0];

    #[test]
    fn a_constant_and_a_coin_flip_fail_every_budget() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        for (name, track) in [
            ("constant", track(|_| 1.0)),
            (
                "coin",
                track(|_| if rng.random::<bool>() { 1.0 } else { 0.0 }),
            ),
        ] {
            let tracks = [track];
            let curve = Curve::new(&Scored::own(&tracks), &rule());
            for budget in BUDGETS {
                assert_eq!(curve.within_budget(budget), None, "{name} {budget}");
            }
            assert_eq!(curve.with_precision(0.89), None, "{name}");
        }
        let tracks = [track(|_| 1.0)];
        let all = tally(&Scored::own(&tracks), &rule().with_threshold(1.0));
        // Always warning is a page per horizon, without a gap.
        assert_eq!(all.alarms(), 28 * 48);
        assert_eq!(all.foreseen, all.incidents);
        assert_eq!(all.rows - all.rows_in_alarm, 5);
    }

    #[test]
    fn random_scores_foresee_no_more_than_their_time_in_alarm() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let tracks: Vec<_> = (0..10).map(|_| track(|_| rng.random())).collect();
        let scored = Scored::own(&tracks);
        let curve = Curve::new(&scored, &rule());
        for budget in BUDGETS {
            let Some(threshold) = curve.within_budget(budget) else {
                continue;
            };
            let found = tally(&scored, &rule().with_threshold(threshold));
            let chance = found.rows_in_alarm as f64 / found.rows as f64;
            assert!(
                found.recall().unwrap() < chance + 0.05,
                "{budget}: {found:?}"
            );
        }
    }

    #[test]
    fn the_threshold_is_the_lowest_with_everything_above_within_budget() {
        // A ramp before each incident, one lower look-alike a week, noise far below.
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let score = |m: i64| {
            let to_incident = 2880 - m % 2880;
            let look_alike = (m % 10_080).abs_diff(5_000) < 10;
            let noise: f32 = rng.random::<f32>() * 0.1;
            if to_incident <= 25 && m < 27 * 1440 {
                0.9
            } else if look_alike {
                0.6
            } else {
                noise
            }
        };
        let tracks = [track(score)];
        let scored = Scored::own(&tracks);
        let curve = Curve::new(&scored, &rule());
        let at = |threshold| tally(&scored, &rule().with_threshold(threshold));

        let strict = curve.within_budget(0.5).unwrap();
        assert!(0.6 < strict && strict <= 0.9);
        let found = at(strict);
        assert_eq!(
            (found.right, found.r#false, found.foreseen, found.incidents),
            (13, 0, 13, 13)
        );

        let loose = curve.within_budget(1.5).unwrap();
        assert!(loose < 0.6);
        assert!(
            at(loose)
                .false_alarms_per_target_week(rule().step())
                .unwrap()
                <= 1.5
        );
        assert!(curve.with_precision(0.89).unwrap() > 0.6);
        assert_eq!(curve.within_budget(-1.0), None);
    }

    #[test]
    fn a_candidate_admits_every_double_that_rounds_to_its_score() {
        for double in [0.1, 0.3123, 0.9999, 1.0 / 3.0, 1e-4] {
            let threshold = at_or_above(double as f32);
            assert!(double >= threshold && f64::from(double as f32) >= threshold);
            assert!(f64::from((double as f32).next_down()) < threshold);
        }
    }
}
