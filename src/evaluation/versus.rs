//! Whether one model is better than another, on the same rows.

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::alarms::AlarmRule;
use super::bootstrap::{draw, interval, replicates};
use super::events::{Scored, Scores, Tally, Track, tally};
use super::ranking::Rows;
use crate::labels::RowLabel;
use crate::table::{Cell, Table};

const DAY_MS: i64 = 86_400_000;

/// A candidate beside the served model.
#[derive(Clone, Debug, Serialize)]
pub struct Versus {
    /// Unix seconds.
    pub start: f64,
    pub end: f64,
    pub rows: u64,
    pub incidents: u64,
    pub average_precision: Pair,
    pub brier_skill: Pair,
    /// Each at its own threshold.
    pub precision: Pair,
    pub recall: Pair,
    pub false_alarms_per_target_week: Pair,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Pair {
    pub candidate: Option<f64>,
    pub served: Option<f64>,
    /// 95 % of candidate - served, drawing days of one target; only of what decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
}

impl Pair {
    fn is_above(&self) -> bool {
        self.interval.is_some_and(|[low, _]| low > 0.0)
    }

    fn is_below(&self) -> bool {
        self.interval.is_some_and(|[_, high]| high < 0.0)
    }
}

/// A labelled row with the scores of both.
struct Row {
    /// Place of its day of its target.
    day: usize,
    label: bool,
    scores: [f64; 2],
}

impl Versus {
    /// `candidate` has its own scores; the rules are those of candidate and served model.
    pub fn new(candidate: &[Track], served: &Scores, rules: [AlarmRule; 2], seed: u64) -> Self {
        let (mut rows, mut days) = (Vec::new(), 0);
        for (track, served) in candidate.iter().zip(served) {
            let mut newest = None;
            for (i, t) in track.times.iter().enumerate() {
                let label = match track.labels[i] {
                    RowLabel::Positive => true,
                    RowLabel::Negative => false,
                    RowLabel::Uncertain | RowLabel::Excluded | RowLabel::Censored => continue,
                };
                let (Some(own), Some(other)) = (track.scores[i], served[i]) else {
                    continue;
                };
                let day = t.0.div_euclid(DAY_MS);
                days += usize::from(newest.replace(day) != Some(day));
                rows.push(Row {
                    day: days - 1,
                    label,
                    scores: [own, other].map(f64::from),
                });
            }
        }
        let orders = [0, 1].map(|model| {
            let mut order: Vec<usize> = (0..rows.len()).collect();
            let score = |i: &usize| rows[*i].scores[model];
            order.sort_by(|a, b| score(b).total_cmp(&score(a)));
            order
        });
        let weighed = |model: usize, weights: &[f64]| {
            let order = orders[model].iter().map(|&i| &rows[i]);
            let one = Rows::new(order.map(|row| (row.scores[model], row.label, weights[row.day])));
            [one.average_precision(), one.brier_skill()]
        };
        let all = vec![1.0; days];
        let whole = [0, 1].map(|model| weighed(model, &all));
        let places: Vec<usize> = (0..days).collect();
        let differences = replicates(seed, |rng| {
            let mut weights = vec![0.0; days];
            draw(rng, &places).for_each(|day| weights[*day] += 1.0);
            let [own, other] = [0, 1].map(|model| weighed(model, &weights));
            [0, 1].map(|measure| Some(own[measure]? - other[measure]?))
        });
        let decides = |measure: usize| Pair {
            candidate: whole[0][measure],
            served: whole[1][measure],
            interval: interval(differences.iter().map(|one| one[measure])),
        };
        let tallies = [
            tally(&Scored::own(candidate), &rules[0]),
            tally(&Scored::with(candidate, served), &rules[1]),
        ];
        let beside = |measure: &dyn Fn(&Tally) -> Option<f64>| Pair {
            candidate: measure(&tallies[0]),
            served: measure(&tallies[1]),
            interval: None,
        };
        let times = || candidate.iter().flat_map(|track| &track.times);
        Self {
            start: times().min().map_or(0.0, |t| t.as_secs_f64()),
            end: times().max().map_or(0.0, |t| t.as_secs_f64()),
            rows: rows.len() as u64,
            incidents: tallies[0].incidents,
            average_precision: decides(0),
            brier_skill: decides(1),
            precision: beside(&Tally::precision),
            recall: beside(&Tally::recall),
            false_alarms_per_target_week: beside(&|tally| {
                tally.false_alarms_per_target_week(rules[0].step())
            }),
        }
    }

    /// Clearly better in average precision or in Brier skill, and clearly worse in neither: zero lies outside the interval of
    /// the difference.
    pub fn candidate_is_better(&self) -> bool {
        let decides = [self.average_precision, self.brier_skill];
        decides.iter().any(Pair::is_above) && !decides.iter().any(Pair::is_below)
    }

    /// Side by side, a line each.
    pub fn table(&self, width: Option<usize>) -> String {
        let number = |x: Option<f64>| x.map_or_else(|| "-".to_owned(), |x| format!("{x:.3}"));
        let (better, worse) = (AnsiColor::Green.on_default(), AnsiColor::Red.on_default());
        let first = format!("<{} rows, {} incidents", self.rows, self.incidents);
        let mut table = Table::new(&[&first, ">candidate", ">served", "<difference, 95 %"]);
        for (name, pair, less_is_better) in [
            ("average precision", self.average_precision, false),
            ("brier skill", self.brier_skill, false),
            ("precision at its threshold", self.precision, false),
            ("recall at its threshold", self.recall, false),
            (
                "false alarms per target-week",
                self.false_alarms_per_target_week,
                true,
            ),
        ] {
            let style = match (pair.is_above(), pair.is_below()) {
                (true, _) if less_is_better => worse,
                (_, true) if less_is_better => better,
                (true, _) => better,
                (_, true) => worse,
                _ => Style::new(),
            };
            let difference = pair.interval.map_or_else(String::new, |[low, high]| {
                format!("{low:+.3} to {high:+.3}")
            });
            table.row([
                name.into(),
                number(pair.candidate).into(),
                number(pair.served).into(),
                Cell::styled(difference, style),
            ]);
        }
        table.render(width)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::labels::FailureRules;
    use crate::time::Timestamp;
    use crate::types::TargetId;

    /// Ten days of five targets; a score is right by so much, with noise of its own.
    fn compare(own: f32, other: f32) -> Versus {
        let minute = Duration::from_secs(60);
        let rules = FailureRules {
            step: minute,
            min_duration: Duration::ZERO,
            merge_gap: Duration::ZERO,
            recovery: Duration::ZERO,
            horizon: 30 * minute,
        };
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let (mut tracks, mut served) = (Vec::new(), Vec::new());
        for name in ["a", "b", "c", "d", "e"] {
            let positive = |m: usize| m % 720 < 30;
            let mut score = |by: f32| -> Vec<Option<f32>> {
                let mut one =
                    |m| 0.02 + by * f32::from(u8::from(positive(m))) + 0.1 * rng.random::<f32>();
                (0..14_400).map(|m| Some(one(m))).collect()
            };
            let scores = score(own);
            served.push(score(other));
            let label = |m| match positive(m) {
                true => RowLabel::Positive,
                false => RowLabel::Negative,
            };
            tracks.push(Track {
                target: TargetId::new(name),
                times: (0..14_400).map(|m| Timestamp::from_secs(m * 60)).collect(),
                scores,
                labels: (0..14_400).map(label).collect(),
                actions: Vec::new(),
                incidents: Vec::new(),
            });
        }
        let rule = AlarmRule::new(0.5, Duration::ZERO, &rules);
        Versus::new(&tracks, &served, [rule, rule], 1)
    }

    #[test]
    fn only_what_is_clearly_better_is_better() {
        for (own, other, better) in [(0.3, 0.02, true), (0.02, 0.3, false), (0.05, 0.05, false)] {
            let versus = compare(own, other);
            assert_eq!(versus.candidate_is_better(), better, "{versus:?}");
            assert_eq!(versus.rows, 5 * 14_400);
        }
        let same = compare(0.05, 0.05);
        assert!(!same.average_precision.is_below(), "{same:?}");
        // Ranked better, and far from the truth.
        let loud = compare(20.0, 0.05);
        assert!(loud.average_precision.is_above() && loud.brier_skill.is_below());
        assert!(!loud.candidate_is_better());
    }
}
