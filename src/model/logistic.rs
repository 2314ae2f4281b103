//! The linear member: logistic regression with imputation and standardisation inside.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{LogisticParams, Matrix, is_usable, newton};

/// Standardised values are cut off here, so that one outlier cannot decide a score; far out, because rare failures lie
/// many standard deviations away from health.
const MAX_STANDARD: f64 = 20.0;

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
        let usable = |term: &Term| {
            [term.median, term.mean, term.scale, term.weight]
                .into_iter()
                .all(is_usable)
        };
        if !is_usable(self.intercept) || !self.terms.iter().all(usable) {
            return Err("it has a number beyond 1e60".to_owned());
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

/// Fits on `rows` with their weights, that is at the true base rate: a sample that is balanced by class
/// ranks worse where failures are rare (one fleet: average precision 0.46 against 0.57).
pub fn fit(
    features: &Matrix,
    labels: &[bool],
    weights: &[f32],
    rows: &[usize],
    params: &LogisticParams,
) -> Linear {
    let weights: Vec<f64> = rows.iter().map(|row| f64::from(weights[*row])).collect();
    let mut terms: Vec<Term> = (0..features.columns)
        .into_par_iter()
        .map(|column| scaling(features, rows, &weights, column))
        .collect();
    let inputs: Vec<f64> = rows
        .iter()
        .flat_map(|row| terms.iter().zip(features.row(*row)))
        .map(|(term, x)| term.standard(*x))
        .collect();
    let targets: Vec<f64> = rows
        .iter()
        .map(|row| f64::from(u8::from(labels[*row])))
        .collect();
    let varies: Vec<bool> = terms.iter().map(|term| term.scale > 0.0).collect();
    let rows = newton::Rows {
        columns: terms.len(),
        inputs: &inputs,
        targets: &targets,
        weights: &weights,
    };
    let (coefficients, intercept) = rows.solve(params.alpha, &varies);
    for (term, weight) in terms.iter_mut().zip(coefficients) {
        term.weight = weight;
    }
    Linear { intercept, terms }
}

/// Median, weighted mean and spread of one column; a column without spread keeps weight zero.
fn scaling(features: &Matrix, rows: &[usize], weights: &[f64], column: usize) -> Term {
    let values = || rows.iter().map(|row| features.row(*row)[column]);
    let mut present: Vec<f32> = values().filter(|x| x.is_finite()).collect();
    let middle = present.len() / 2;
    let median = if present.is_empty() {
        0.0
    } else {
        f64::from(*present.select_nth_unstable_by(middle, f32::total_cmp).1)
    };
    let filled = || values().map(|x| if x.is_finite() { f64::from(x) } else { median });
    let total: f64 = weights.iter().sum();
    let weighted = |value: &dyn Fn(f64) -> f64| {
        filled()
            .zip(weights)
            .map(|(x, w)| w * value(x))
            .sum::<f64>()
            / total
    };
    let mean = weighted(&|x| x);
    let spread = weighted(&|x| (x - mean).powi(2)).sqrt();
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
    use linfa::Dataset;
    use linfa::traits::Fit;
    use ndarray::{Array1, Array2};
    use rand::SeedableRng;

    use super::*;
    use crate::model::{logit, sigmoid};

    const PARAMS: LogisticParams = LogisticParams { alpha: 1.0 };

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
    fn finds_slope_and_base_rate_whatever_was_left_out() {
        let (features, labels) = rows(20_000);
        let all: Vec<usize> = (0..labels.len()).collect();
        let fitted = fit(&features, &labels, &vec![1.0; all.len()], &all, &PARAMS);
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
        let thinned = fit(&features, &labels, &weights, &kept, &PARAMS);
        let row = [0.0, 0.5, 7.0, f32::NAN, 0.0];
        assert!((thinned.logit(&row) - fitted.logit(&row)).abs() < 0.3);
        assert!((thinned.logit(&row) - logit(sigmoid(-3.0))).abs() < 0.3);
    }

    /// An independent solver finds the same line on the same standardised rows.
    #[test]
    fn newton_agrees_with_linfa() {
        let (features, labels) = rows(3000);
        let all: Vec<usize> = (0..3000).collect();
        let terms = fit(&features, &labels, &[1.0; 3000], &all, &PARAMS).terms;
        let x = Array2::from_shape_fn((3000, 5), |(row, column)| {
            terms[column].standard(features.row(row)[column])
        });
        let targets: Vec<f64> = labels.iter().map(|l| f64::from(u8::from(*l))).collect();
        let ours = newton::Rows {
            columns: 5,
            inputs: x.as_slice().unwrap(),
            targets: &targets,
            weights: &[1.0; 3000],
        };
        let (coefficients, intercept) = ours.solve(PARAMS.alpha, &[true, true, false, false, true]);
        let theirs = linfa_logistic::LogisticRegression::default()
            .alpha(PARAMS.alpha)
            .max_iterations(1000)
            .gradient_tolerance(1e-6)
            .fit(&Dataset::new(x.clone(), Array1::from(labels)))
            .unwrap();
        // It chooses the positive class itself.
        let sign = theirs.params()[0].signum();
        assert!((sign * theirs.intercept() - intercept).abs() < 1e-3);
        for (own, other) in coefficients.iter().zip(theirs.params()) {
            assert!((own - sign * other).abs() < 1e-3, "{own}, {other}");
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
        let fitted = fit(&features, &labels, &[1.0; 1000], &all, &PARAMS);
        assert!((sigmoid(fitted.logit(&[1.0])) - 0.1).abs() < 1e-3);
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
