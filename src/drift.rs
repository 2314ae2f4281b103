//! Drift: how far the rows that are scored have moved from those that the model was trained on.
//!
//! The population stability index (PSI) of a feature compares the shares of its bins then and now: the sum of
//! `(now - then) × ln(now / then)`. Below 0.1 little has changed, above 0.25 much has. One day of a few targets differs
//! from a month of them without any drift, so the highest index of a single day of the training range is kept beside it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::model::Matrix;
use crate::time::Timestamp;

/// Bins of equal count that a feature is cut into, where it has enough different values.
const BINS: usize = 10;
/// A share counts as this at least, so that an empty bin does not make the index infinite.
const SMALLEST_SHARE: f64 = 1e-4;

/// Rows that are counted of a step at most; of more targets, every n-th and at each step others.
pub const ROWS_A_STEP: usize = 2000;
const HOUR_MS: i64 = 3_600_000;
/// What is compared are so many full hours: a whole day, because signals have a daily course.
const HOURS: i64 = 24;
/// So many of them must have rows: the rest may be a restart or an outage.
const MIN_HOURS: usize = 20;
const MIN_ROWS: u64 = 1000;

/// What the features of the training rows were like, at the true base rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    rows: u64,
    features: Vec<Spread>,
}

/// Where the values of one feature lay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Spread {
    feature: String,
    /// Inclusive upper bounds of the bins, ascending; what is above the last one has a bin too.
    bounds: Vec<f32>,
    /// Rows in each bin; after the bins of `bounds` the one above them, then the one of missing values.
    counts: Vec<u64>,
    /// The highest index of a single day of the training range; 0 where that is shorter than a day.
    usual_psi: f64,
    #[serde(skip)]
    column: usize,
}

impl Reference {
    /// Of `columns` of these rows; `days` are places in `rows` that belong to one day each.
    pub fn new(
        features: &Matrix,
        names: &[String],
        columns: &[usize],
        rows: &[usize],
        days: &[Range<usize>],
    ) -> Self {
        let spread = |&column: &usize| {
            let values = |rows: &[usize]| -> Vec<f32> {
                rows.iter().map(|&row| features.row(row)[column]).collect()
            };
            let mut spread = Spread::new(&names[column], column, values(rows));
            let of_day = |day: &Range<usize>| {
                let mut counts = vec![0; spread.counts.len()];
                spread.count(&mut counts, values(&rows[day.clone()]));
                spread.psi(&counts)
            };
            spread.usual_psi = days.iter().map(of_day).fold(0.0, f64::max);
            spread
        };
        Self {
            rows: rows.len() as u64,
            features: columns.par_iter().map(spread).collect(),
        }
    }

    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// `names` are the model's features, by column.
    pub fn from_json(json: &[u8], names: &[String]) -> Result<Self, String> {
        let mut reference: Self = serde_json::from_slice(json).map_err(|e| e.to_string())?;
        for spread in &mut reference.features {
            let Some(column) = names.iter().position(|name| *name == spread.feature) else {
                return Err(format!("the model has no feature {}", spread.feature));
            };
            let mut counts = spread.counts.iter();
            let all = counts.try_fold(0u64, |all, count| all.checked_add(*count));
            if all.is_none()
                || !spread.bounds.iter().all(|bound| bound.is_finite())
                || spread.counts.len() != spread.bounds.len() + 2
                || !spread.bounds.is_sorted_by(|a, b| a < b)
            {
                return Err(format!("the bins of {} do not fit", spread.feature));
            }
            spread.column = column;
        }
        Ok(reference)
    }
}

impl Spread {
    fn new(feature: &str, column: usize, values: Vec<f32>) -> Self {
        let mut known: Vec<f32> = values.iter().copied().filter(|v| v.is_finite()).collect();
        known.sort_unstable_by(f32::total_cmp);
        let mut bounds: Vec<f32> = match known.is_empty() {
            true => Vec::new(),
            false => (1..BINS).map(|i| known[known.len() * i / BINS]).collect(),
        };
        bounds.dedup();
        // Where the smallest value fills a bin, what is below it has a bin too.
        if bounds.first() == known.first() {
            let below = known.first().map(|smallest| smallest.next_down());
            bounds.splice(..0, below.filter(|below| below.is_finite()));
        }
        let mut spread = Self {
            feature: feature.to_owned(),
            counts: Vec::new(),
            bounds,
            usual_psi: 0.0,
            column,
        };
        let mut counts = vec![0; spread.bounds.len() + 2];
        spread.count(&mut counts, values);
        spread.counts = counts;
        spread
    }

    fn count(&self, counts: &mut [u64], values: impl IntoIterator<Item = f32>) {
        for value in values {
            let bin = match value.is_finite() {
                true => self.bounds.partition_point(|bound| *bound < value),
                false => self.bounds.len() + 1,
            };
            counts[bin] += 1;
        }
    }

    fn psi(&self, now: &[u64]) -> f64 {
        let shares = |counts: &[u64]| -> Vec<f64> {
            let all = counts.iter().sum::<u64>().max(1) as f64;
            let share = |&count: &u64| (count as f64 / all).max(SMALLEST_SHARE);
            counts.iter().map(share).collect()
        };
        let (then, now) = (shares(&self.counts), shares(now));
        let pairs = then.iter().zip(&now);
        pairs
            .map(|(then, now)| (now - then) * (now / then).ln())
            .sum()
    }
}

/// How far the rows of the last day have moved.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Drift {
    /// Rows of the last 24 full hours that were compared.
    pub rows: u64,
    /// The highest index first.
    pub features: Vec<FeatureDrift>,
}

#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct FeatureDrift {
    pub feature: String,
    /// Population stability index against the training rows.
    pub psi: f64,
    /// The highest one of a single day of the training range.
    pub usual_psi: f64,
}

/// The rows scored of late, counted by hour into the bins of a reference.
pub struct Recent {
    reference: Arc<Reference>,
    /// Oldest first, only those with rows.
    hours: VecDeque<Hour>,
}

struct Hour {
    hour: i64,
    rows: u64,
    /// By feature of the reference, as its own.
    counts: Vec<Vec<u64>>,
}

impl Recent {
    pub fn new(reference: Arc<Reference>) -> Self {
        Self {
            reference,
            hours: VecDeque::new(),
        }
    }

    /// Takes rows that were scored at `t`; steps come in order.
    pub fn count(&mut self, t: Timestamp, rows: &Matrix) {
        if rows.rows() == 0 {
            return;
        }
        let hour = t.0.div_euclid(HOUR_MS);
        if self.hours.back().is_none_or(|newest| newest.hour != hour) {
            let spreads = self.reference.features.iter();
            self.hours.push_back(Hour {
                hour,
                rows: 0,
                counts: spreads.map(|s| vec![0; s.counts.len()]).collect(),
            });
            self.hours.retain(|kept| hour - kept.hour <= HOURS);
        }
        let Some(newest) = self.hours.back_mut() else {
            return;
        };
        newest.rows += rows.rows() as u64;
        for (spread, counts) in self.reference.features.iter().zip(&mut newest.counts) {
            let values = rows.data.iter().skip(spread.column);
            spread.count(counts, values.step_by(rows.columns).copied());
        }
    }

    /// Of the full hours before `t`; `None` while too little of a day is known.
    pub fn drift(&self, t: Timestamp) -> Option<Drift> {
        let hour = t.0.div_euclid(HOUR_MS);
        let full = hour - HOURS..hour;
        let within: Vec<&Hour> = self
            .hours
            .iter()
            .filter(|h| full.contains(&h.hour))
            .collect();
        let rows = within.iter().map(|hour| hour.rows).sum();
        if within.len() < MIN_HOURS || rows < MIN_ROWS {
            return None;
        }
        let spreads = self.reference.features.iter().enumerate();
        let mut features: Vec<FeatureDrift> = spreads
            .map(|(i, spread)| {
                let mut counts = vec![0; spread.counts.len()];
                for hour in &within {
                    let of_hour = hour.counts[i].iter();
                    counts
                        .iter_mut()
                        .zip(of_hour)
                        .for_each(|(all, one)| *all += one);
                }
                FeatureDrift {
                    feature: spread.feature.clone(),
                    psi: spread.psi(&counts),
                    usual_psi: spread.usual_psi,
                }
            })
            .collect();
        features.sort_by(|a, b| b.psi.total_cmp(&a.psi));
        Some(Drift { rows, features })
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const NAMES: [&str; 3] = ["wide", "discrete", "sparse"];

    fn names() -> Vec<String> {
        NAMES.map(str::to_owned).to_vec()
    }

    /// Rows of a feature with many values, of one that is mostly 0, and of one that is missing now and then.
    fn rows(count: usize, seed: u64, change: impl Fn(&mut [f32])) -> Matrix {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut rows = Matrix::new(NAMES.len());
        for _ in 0..count {
            let row = rows.push();
            row[0] = rng.random_range(-1.0..1.0f32).powi(3);
            row[1] = if rng.random::<f64>() < 0.8 {
                0.0
            } else {
                rng.random_range(1..4) as f32
            };
            row[2] = if rng.random::<f64>() < 0.05 {
                f32::NAN
            } else {
                rng.random()
            };
            change(row);
        }
        rows
    }

    fn reference(features: &Matrix) -> Reference {
        let all: Vec<usize> = (0..features.rows()).collect();
        let half = all.len() / 2;
        Reference::new(
            features,
            &names(),
            &[0, 1, 2],
            &all,
            &[0..half, half..all.len()],
        )
    }

    /// Scored in so many hours of the day before the result.
    fn after_a_day(hours: i64, rows: &Matrix) -> Option<Drift> {
        let training = rows_of_training();
        let mut recent = Recent::new(Arc::new(reference(&training)));
        for hour in 24 - hours..24 {
            recent.count(Timestamp::from_secs(hour * 3600 + 60), rows);
        }
        recent.drift(Timestamp::from_secs(24 * 3600 + 60))
    }

    fn rows_of_training() -> Matrix {
        rows(20_000, 1, |_| ())
    }

    fn psi(drift: &Drift) -> [f64; 3] {
        NAMES.map(|name| {
            let of_name = drift.features.iter().find(|one| one.feature == name);
            of_name.expect("every feature is compared").psi
        })
    }

    #[test]
    fn the_same_distribution_has_not_moved_and_what_has_moved_is_named() {
        let same = after_a_day(24, &rows(5000, 2, |_| ())).unwrap();
        assert!(
            psi(&same).iter().all(|psi| (0.0..0.02).contains(psi)),
            "{same:?}"
        );
        assert_eq!(same.rows, 24 * 5000);
        type Change = fn(&mut [f32]);
        let cases: [(&str, usize, f64, Change); 7] = [
            ("another level", 0, 1.0, |row| row[0] += 0.5),
            ("another unit", 0, 1.0, |row| row[0] *= 1000.0),
            ("constant", 0, 1.0, |row| row[0] = 0.1),
            ("infinite is missing", 0, 1.0, |row| row[0] = f32::INFINITY),
            ("never 0 any more", 1, 1.0, |row| row[1] += 1.0),
            ("below all values of training", 1, 1.0, |row| row[1] -= 4.0),
            ("more often missing", 2, 0.25, |row| {
                if row[2] < 0.3 {
                    row[2] = f32::NAN;
                }
            }),
        ];
        for (what, column, at_least, change) in cases {
            let drift = after_a_day(24, &rows(5000, 2, change)).unwrap();
            assert_eq!(
                drift.features[0].feature, NAMES[column],
                "{what}: {drift:?}"
            );
            assert!(drift.features[0].psi > at_least, "{what}: {drift:?}");
            assert!(drift.features[0].psi > drift.features[0].usual_psi);
            for (other, psi) in psi(&drift).into_iter().enumerate() {
                assert!(other == column || psi < 0.02, "{what}: {drift:?}");
            }
        }
    }

    #[test]
    fn little_of_a_day_says_nothing() {
        let some = rows(100, 2, |_| ());
        assert!(after_a_day(24, &some).is_some());
        assert!(after_a_day(20, &some).is_some(), "a restart or an outage");
        assert_eq!(after_a_day(19, &some), None, "too few hours");
        assert_eq!(after_a_day(24, &rows(41, 2, |_| ())), None, "too few rows");
    }

    #[test]
    fn hours_leave_the_window() {
        let moved = rows(100, 2, |row| row[0] += 0.5);
        let mut recent = Recent::new(Arc::new(reference(&rows_of_training())));
        let at = |hour: i64| Timestamp::from_secs(hour * 3600);
        for hour in 0..200 {
            let same = rows(100, hour as u64, |_| ());
            recent.count(at(hour), if hour < 100 { &moved } else { &same });
            assert!(recent.hours.len() <= 25, "memory is bounded");
        }
        assert!(recent.drift(at(200)).unwrap().features[0].psi < 0.1);
        for hour in 200..220 {
            recent.count(at(hour), &Matrix::new(NAMES.len()));
        }
        assert_eq!(recent.drift(at(220)), None, "nothing was scored of late");
    }

    #[test]
    fn bins_fit_the_values_that_there_are() {
        for (values, bounds, counts) in [
            (vec![], vec![], vec![0, 0]),
            (vec![f32::NAN; 3], vec![], vec![0, 3]),
            (vec![5.0; 4], vec![5f32.next_down(), 5.0], vec![0, 4, 0, 0]),
            (
                [vec![0.0; 90], vec![1.0; 10]].concat(),
                vec![0f32.next_down(), 0.0, 1.0],
                vec![0, 90, 10, 0, 0],
            ),
            (
                (1..=20).map(|i| i as f32).chain([f32::NAN]).collect(),
                (1..=9).map(|i| (2 * i + 1) as f32).collect(),
                vec![3, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1],
            ),
        ] {
            let spread = Spread::new("a", 0, values);
            assert_eq!((&spread.bounds, &spread.counts), (&bounds, &counts));
        }
    }

    #[test]
    fn a_reference_is_read_as_it_was_written_and_refused_when_it_does_not_fit() {
        let written = reference(&rows_of_training());
        let json = written.to_json();
        assert_eq!(Reference::from_json(&json, &names()), Ok(written));
        let text = String::from_utf8(json).unwrap();
        for (found, instead, why) in [
            ("\"sparse\"", "\"other\"", "no feature other"),
            ("\"counts\":[", "\"counts\":[7,", "bins of wide"),
            ("\"bounds\":[", "\"bounds\":[9e9,", "bins of wide"),
            ("{", "", "expected"),
        ] {
            let damaged = text.replacen(found, instead, 1);
            let error = Reference::from_json(damaged.as_bytes(), &names()).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
