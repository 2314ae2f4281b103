//! The linear member: logistic regression with imputation and standardisation inside.

use linfa::Dataset;
use linfa::traits::Fit;
use linfa_logistic::LogisticRegression;
use ndarray::{Array1, Array2};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{LogisticParams, Matrix, sigmoid};

/// Standardised values are cut off here, so that one outlier cannot decide a score.
const MAX_STANDARD: f64 = 5.0;
const MAX_ITERATIONS: u64 = 1000;
/// Mean gradient per row at which the solver stops, and the one above which its answer is refused.
const TOLERANCE: f64 = 1e-5;
const NOT_CONVERGED: f64 = 1e-3;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Linear {
    pub intercept: f64,
    pub terms: Vec<Term>,
}

/// One column's share of the logit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Term {
    /// Stands in for a missing value.
    pub median: f64,
    pub mean: f64,
    /// 0 for a column that did not vary: it never counts.
    pub scale: f64,
    pub weight: f64,
}

impl Term {
    fn standard(&self, x: f32) -> f64 {
        if self.scale == 0.0 {
            return 0.0;
        }
        let x = if x.is_nan() {
            self.median
        } else {
            f64::from(x)
        };
        ((x - self.mean) / self.scale).clamp(-MAX_STANDARD, MAX_STANDARD)
    }
}

impl Linear {
    /// What is wrong with a member from a file.
    pub fn check(&self, columns: usize) -> Result<(), String> {
        if self.terms.len() != columns {
            return Err(format!(
                "it has {} terms, expected {columns}",
                self.terms.len()
            ));
        }
        let finite = |term: &Term| {
            [term.median, term.mean, term.scale, term.weight]
                .iter()
                .all(|x| x.is_finite())
        };
        if !self.intercept.is_finite() || !self.terms.iter().all(finite) {
            return Err("its numbers must be finite".to_owned());
        }
        Ok(())
    }

    pub fn logit(&self, row: &[f32]) -> f64 {
        let terms = self
            .terms
            .iter()
            .zip(row)
            .map(|(term, x)| term.weight * term.standard(*x));
        self.intercept + terms.sum::<f64>()
    }

    /// Adds each column's term; returns the intercept's share.
    pub fn explain(&self, row: &[f32], scale: f64, contributions: &mut [f64]) -> f64 {
        for ((term, x), contribution) in self.terms.iter().zip(row).zip(contributions) {
            *contribution += scale * term.weight * term.standard(*x);
        }
        scale * self.intercept
    }
}

/// Fits on a sample of `rows` with as many positives as negatives, whatever the
/// imbalance setting: the solver knows no weights. The intercept is then moved
/// to the true odds of the classes (prior correction).
pub fn fit(
    features: &Matrix,
    labels: &[bool],
    weights: &[f32],
    rows: &[usize],
    params: &LogisticParams,
    seed: u64,
) -> Result<Linear, String> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (positives, negatives): (Vec<usize>, Vec<usize>) =
        rows.iter().partition(|row| labels[**row]);
    let half = (params.max_rows / 2)
        .min(positives.len().max(negatives.len()))
        .max(1);
    let mut sample = draw(&positives, weights, half, &mut rng);
    let drawn_positives = sample.len();
    sample.extend(draw(&negatives, weights, half, &mut rng));

    let mut terms: Vec<Term> = (0..features.columns)
        .map(|column| scaling(features, &sample, column))
        .collect();
    let x = Array2::from_shape_fn((sample.len(), terms.len()), |(i, column)| {
        terms[column].standard(features.row(sample[i])[column])
    });
    let y = Array1::from_shape_fn(sample.len(), |i| i < drawn_positives);
    let data = Dataset::new(x, y);
    let fitted = LogisticRegression::default()
        .alpha(params.alpha)
        .max_iterations(MAX_ITERATIONS)
        .gradient_tolerance(TOLERANCE * sample.len() as f64)
        .fit(&data)
        .map_err(|error| error.to_string())?;

    let scores = data.records.dot(fitted.params()).to_vec();
    // linfa picks the positive class itself, sometimes the other one.
    let (of_positives, of_negatives) = scores.split_at(drawn_positives);
    let mean = |scores: &[f64]| scores.iter().sum::<f64>() / scores.len() as f64;
    let sign = if mean(of_positives) < mean(of_negatives) {
        -1.0
    } else {
        1.0
    };
    let intercept = sign * fitted.intercept();
    let residuals: Array1<f64> = scores
        .iter()
        .enumerate()
        .map(|(i, score)| {
            sigmoid(intercept + sign * score) - f64::from(u8::from(i < drawn_positives))
        })
        .collect();
    let gradient = data.records.t().dot(&residuals) + fitted.params() * (sign * params.alpha);
    let steepness =
        (gradient.dot(&gradient) + residuals.sum().powi(2)).sqrt() / sample.len() as f64;
    if steepness.is_nan() || steepness > NOT_CONVERGED {
        return Err(format!(
            "the solver did not converge in {MAX_ITERATIONS} iterations (mean gradient {steepness:.1e}, at most {NOT_CONVERGED:.0e}); raise train.logistic_regression.alpha"
        ));
    }
    for (term, weight) in terms.iter_mut().zip(fitted.params()) {
        term.weight = sign * weight;
    }
    let weight_of = |rows: &[usize]| rows.iter().map(|row| f64::from(weights[*row])).sum::<f64>();
    let sampled_odds = drawn_positives as f64 / (sample.len() - drawn_positives) as f64;
    Ok(Linear {
        intercept: intercept + (weight_of(&positives) / weight_of(&negatives) / sampled_odds).ln(),
        terms,
    })
}

/// Median, mean and spread of one column over the sample; a column without spread keeps weight zero.
fn scaling(features: &Matrix, sample: &[usize], column: usize) -> Term {
    let values = || sample.iter().map(|row| features.row(*row)[column]);
    let mut present: Vec<f32> = values().filter(|x| x.is_finite()).collect();
    let middle = present.len() / 2;
    let median = if present.is_empty() {
        0.0
    } else {
        f64::from(*present.select_nth_unstable_by(middle, f32::total_cmp).1)
    };
    let filled = || values().map(|x| if x.is_finite() { f64::from(x) } else { median });
    let rows = sample.len() as f64;
    let mean = filled().sum::<f64>() / rows;
    let spread = (filled().map(|x| (x - mean).powi(2)).sum::<f64>() / rows).sqrt();
    Term {
        median,
        mean,
        scale: if spread > 1e-9 * mean.abs() {
            spread
        } else {
            0.0
        },
        weight: 0.0,
    }
}

/// Systematic sample of `count` rows, each with a chance in proportion to its weight; repeats rows when there are too few.
pub fn draw(rows: &[usize], weights: &[f32], count: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let total: f64 = rows.iter().map(|row| f64::from(weights[*row])).sum();
    let step = total / count as f64;
    let mut next = step * rng.random::<f64>();
    let mut passed = 0.0;
    let mut drawn = Vec::with_capacity(count);
    for row in rows {
        passed += f64::from(weights[*row]);
        while next < passed && drawn.len() < count {
            drawn.push(*row);
            next += step;
        }
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::logit;

    const PARAMS: LogisticParams = LogisticParams {
        alpha: 1.0,
        max_rows: 4000,
    };

    /// Log-odds 2 x₀ - 3 with x₁ noise, x₂ constant, x₃ missing and x₄ a copy of x₀ with gaps and outliers.
    fn rows(n: usize) -> (Matrix, Vec<bool>) {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut features = Matrix::new(5);
        let mut labels = Vec::new();
        for i in 0..n {
            let x: f32 = rng.random_range(-2.0..2.0);
            let other = match i % 50 {
                0 => f32::NAN,
                1 => 1e30,
                2 => f32::INFINITY,
                _ => x,
            };
            features
                .data
                .extend([x, rng.random(), 7.0, f32::NAN, other]);
            labels.push(rng.random_bool(sigmoid(2.0 * f64::from(x) - 3.0)));
        }
        (features, labels)
    }

    #[test]
    fn finds_slope_and_base_rate_although_the_sample_is_balanced() {
        let (features, labels) = rows(20_000);
        let all: Vec<usize> = (0..labels.len()).collect();
        let fitted = fit(&features, &labels, &vec![1.0; all.len()], &all, &PARAMS, 1).unwrap();
        assert_eq!((fitted.terms[2].weight, fitted.terms[3].weight), (0.0, 0.0));
        for x in [-1.5, 0.0, 1.5] {
            let p = sigmoid(fitted.logit(&[x, 0.5, 7.0, f32::NAN, x]));
            let truth = sigmoid(2.0 * f64::from(x) - 3.0);
            assert!((p - truth).abs() < 0.05, "{x}: {p}, true {truth}");
        }
        assert!(
            fitted
                .logit(&[f32::INFINITY, 1e38, -1e38, 3.0, f32::NEG_INFINITY])
                .is_finite()
        );

        // The same with nine of ten negatives left out and weighted for it.
        let kept: Vec<usize> = all
            .iter()
            .copied()
            .filter(|i| labels[*i] || i % 10 == 0)
            .collect();
        let weights: Vec<f32> = labels
            .iter()
            .map(|label| if *label { 1.0 } else { 10.0 })
            .collect();
        let thinned = fit(&features, &labels, &weights, &kept, &PARAMS, 1).unwrap();
        let row = [0.0, 0.5, 7.0, f32::NAN, 0.0];
        assert!((thinned.logit(&row) - fitted.logit(&row)).abs() < 0.3);
        assert!((thinned.logit(&row) - logit(sigmoid(-3.0))).abs() < 0.3);
    }

    #[test]
    fn class_order_does_not_matter() {
        // linfa takes the class that is larger, or seen first, for the positive one.
        for flip in [false, true] {
            let (features, mut labels) = rows(3000);
            labels.iter_mut().for_each(|label| *label ^= flip);
            for skip in 0..3 {
                let part: Vec<usize> = (skip..3000).collect();
                let fitted = fit(&features, &labels, &[1.0; 3000], &part, &PARAMS, 2).unwrap();
                let rise = fitted.logit(&[1.0, 0.5, 7.0, 0.0, 1.0])
                    - fitted.logit(&[-1.0, 0.5, 7.0, 0.0, -1.0]);
                assert_eq!(rise < 0.0, flip);
            }
        }
    }

    #[test]
    fn nothing_to_learn_gives_the_base_rate() {
        let features = Matrix {
            columns: 1,
            data: vec![1.0; 1000],
        };
        let labels: Vec<bool> = (0..1000).map(|i| i % 10 == 0).collect();
        let all: Vec<usize> = (0..1000).collect();
        let fitted = fit(&features, &labels, &[1.0; 1000], &all, &PARAMS, 3).unwrap();
        assert!((sigmoid(fitted.logit(&[1.0])) - 0.1).abs() < 1e-3);
    }

    #[test]
    fn an_impossible_penalty_is_an_error() {
        let (features, labels) = rows(1000);
        let all: Vec<usize> = (0..1000).collect();
        for alpha in [-1.0, f64::NAN, f64::INFINITY] {
            let params = LogisticParams { alpha, ..PARAMS };
            let fitted = fit(&features, &labels, &[1.0; 1000], &all, &params, 1);
            assert!(fitted.is_err(), "{alpha}");
        }
    }

    #[test]
    fn draws_follow_the_weights() {
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let rows: Vec<usize> = (0..10).collect();
        let mut weights = [1.0; 10];
        assert_eq!(draw(&rows, &weights, 10, &mut rng), rows);
        weights[3] = 0.0;
        weights[7] = 11.0;
        let drawn = draw(&rows, &weights, 190, &mut rng);
        let count = |row| drawn.iter().filter(|drawn| **drawn == row).count();
        assert_eq!((count(3), drawn.len()), (0, 190));
        assert!((9..=11).contains(&count(0)) && (109..=111).contains(&count(7)));
    }
}
