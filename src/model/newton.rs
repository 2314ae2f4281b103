//! Weighted logistic regression by Newton steps: the linear member, the stack and Platt's calibration.

use rayon::prelude::*;

use super::sigmoid;

/// Non-negative coefficients and an intercept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line<const K: usize> {
    pub coefficients: [f64; K],
    pub intercept: f64,
}

const MAX_STEPS: usize = 50;
/// Rows summed up at a time, one core each; the sums of the chunks are added in their order.
const CHUNK: usize = 2048;

/// Minimises the weighted log loss of soft `targets` plus `ridge / 2 · |c|²` over
/// coefficients of the standardised inputs. An input that would get a negative
/// coefficient gets none: a member that ranks backwards is not to be turned round.
pub fn fit<const K: usize>(
    inputs: &[[f64; K]],
    targets: &[f64],
    weights: &[f64],
    ridge: f64,
) -> Line<K> {
    let total: f64 = weights.iter().sum();
    let mean = |value: &dyn Fn(usize) -> f64| {
        (0..inputs.len())
            .map(|i| weights[i] * value(i))
            .sum::<f64>()
            / total
    };
    let centre: [f64; K] = std::array::from_fn(|k| mean(&|i| inputs[i][k]));
    let spread: [f64; K] =
        std::array::from_fn(|k| mean(&|i| (inputs[i][k] - centre[k]).powi(2)).sqrt());
    let standard: Vec<f64> = inputs
        .iter()
        .flat_map(|row| {
            (0..K).map(|k| match spread[k] > 0.0 {
                true => (row[k] - centre[k]) / spread[k],
                false => 0.0,
            })
        })
        .collect();
    let rows = Rows {
        columns: K,
        inputs: &standard,
        targets,
        weights,
    };

    let mut active: [bool; K] = spread.map(|spread| spread > 0.0);
    let (found, intercept) = loop {
        let (found, intercept) = rows.solve(ridge, &active);
        let worst = (0..K)
            .filter(|k| found[*k] < 0.0)
            .min_by(|a, b| found[*a].total_cmp(&found[*b]));
        match worst {
            Some(k) => active[k] = false,
            None => break (found, intercept),
        }
    };
    let coefficients: [f64; K] =
        std::array::from_fn(|k| if active[k] { found[k] / spread[k] } else { 0.0 });
    let shift: f64 = coefficients
        .iter()
        .zip(centre)
        .map(|(c, centre)| c * centre)
        .sum();
    Line {
        coefficients,
        intercept: intercept - shift,
    }
}

/// Standardised rows, row-major, with what they should give.
pub struct Rows<'a> {
    pub columns: usize,
    pub inputs: &'a [f64],
    /// 0 to 1.
    pub targets: &'a [f64],
    pub weights: &'a [f64],
}

impl Rows<'_> {
    /// Coefficients, 0 of columns that are not active, and intercept.
    pub fn solve(&self, ridge: f64, active: &[bool]) -> (Vec<f64>, f64) {
        let columns = self.columns;
        // The intercept comes last.
        let mut found = vec![0.0; columns + 1];
        let penalty =
            |found: &[f64]| ridge / 2.0 * found[..columns].iter().map(|c| c * c).sum::<f64>();
        let loss = |found: &[f64]| self.loss(found) + penalty(found);
        let mut current = loss(&found);
        for _ in 0..MAX_STEPS {
            let (mut gradient, mut hessian) = self.derivatives(&found, active);
            for k in 0..columns {
                gradient[k] += ridge * found[k];
                // What is not active has no curvature: it must not make the matrix singular.
                hessian[k][k] += if active[k] { ridge } else { 1.0 };
            }
            let Some(step) = cholesky_solve(hessian, gradient) else {
                break;
            };
            let mut length = 1.0;
            let mut improved = false;
            while length > 1e-6 {
                let next: Vec<f64> = found
                    .iter()
                    .zip(&step)
                    .map(|(c, step)| c - length * step)
                    .collect();
                let next_loss = loss(&next);
                if next_loss < current {
                    improved = current - next_loss > 1e-12 * current;
                    (found, current) = (next, next_loss);
                    break;
                }
                length /= 2.0;
            }
            if !improved {
                break;
            }
        }
        let intercept = found.pop().unwrap_or(0.0);
        (found, intercept)
    }

    fn chunks(
        &self,
    ) -> impl IndexedParallelIterator<Item = impl Iterator<Item = (&[f64], f64, f64)>> {
        let rows = self.inputs.par_chunks(CHUNK * self.columns.max(1));
        let outcomes = self
            .targets
            .par_chunks(CHUNK)
            .zip(self.weights.par_chunks(CHUNK));
        rows.zip(outcomes).map(|(rows, (targets, weights))| {
            let rows = rows.chunks_exact(self.columns.max(1));
            rows.zip(targets)
                .zip(weights)
                .map(|((x, y), w)| (x, *y, *w))
        })
    }

    fn loss(&self, found: &[f64]) -> f64 {
        let sums: Vec<f64> = self
            .chunks()
            .map(|rows| {
                rows.map(|(x, y, w)| {
                    let z = at(found, x);
                    w * (z.max(0.0) + (-z.abs()).exp().ln_1p() - y * z)
                })
                .sum()
            })
            .collect();
        sums.iter().sum()
    }

    /// Gradient, and lower half of the Hessian, of the loss.
    fn derivatives(&self, found: &[f64], active: &[bool]) -> (Vec<f64>, Vec<Vec<f64>>) {
        let n = self.columns + 1;
        let parts: Vec<(Vec<f64>, Vec<Vec<f64>>)> = self
            .chunks()
            .map(|rows| {
                let mut gradient = vec![0.0; n];
                let mut hessian: Vec<Vec<f64>> = (1..=n).map(|row| vec![0.0; row]).collect();
                let mut input = vec![1.0; n];
                for (x, y, w) in rows {
                    for ((input, x), active) in input.iter_mut().zip(x).zip(active) {
                        *input = if *active { *x } else { 0.0 };
                    }
                    let p = sigmoid(at(found, x));
                    let (error, curvature) = (w * (p - y), w * p * (1.0 - p));
                    for (a, row) in hessian.iter_mut().enumerate() {
                        gradient[a] += error * input[a];
                        let scaled = curvature * input[a];
                        for (cell, b) in row.iter_mut().zip(&input) {
                            *cell += scaled * b;
                        }
                    }
                }
                (gradient, hessian)
            })
            .collect();
        let mut gradient = vec![0.0; n];
        let mut hessian: Vec<Vec<f64>> = (1..=n).map(|row| vec![0.0; row]).collect();
        for (part, square) in parts {
            for (sum, part) in gradient.iter_mut().zip(part) {
                *sum += part;
            }
            for (sum, part) in hessian.iter_mut().flatten().zip(square.iter().flatten()) {
                *sum += part;
            }
        }
        (gradient, hessian)
    }
}

fn at(found: &[f64], x: &[f64]) -> f64 {
    let (intercept, coefficients) = found.split_last().unwrap_or((&0.0, &[]));
    intercept + coefficients.iter().zip(x).map(|(c, x)| c * x).sum::<f64>()
}

/// Solves for a symmetric positive definite matrix given by its lower half; `None` when it is not.
fn cholesky_solve(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Option<Vec<f64>> {
    let n = b.len();
    for i in 0..n {
        for j in 0..=i {
            let rest = a[i][j] - (0..j).map(|k| a[i][k] * a[j][k]).sum::<f64>();
            a[i][j] = if i != j {
                rest / a[j][j]
            } else if rest > 1e-300 {
                rest.sqrt()
            } else {
                return None;
            };
        }
        b[i] = (b[i] - (0..i).map(|k| a[i][k] * b[k]).sum::<f64>()) / a[i][i];
    }
    for i in (0..n).rev() {
        b[i] = (b[i] - (i + 1..n).map(|k| a[k][i] * b[k]).sum::<f64>()) / a[i][i];
    }
    Some(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_line_that_made_the_shares() {
        let inputs: Vec<[f64; 2]> = (0..400)
            .map(|i| [f64::from(i % 20) - 10.0, f64::from(i / 20) * 100.0])
            .collect();
        let targets: Vec<f64> = inputs
            .iter()
            .map(|[a, b]| sigmoid(0.3 * a + 0.002 * b - 3.0))
            .collect();
        let weights: Vec<f64> = (0..400).map(|i| f64::from(i % 3 + 1)).collect();
        let line = fit(&inputs, &targets, &weights, 0.0);
        assert!((line.coefficients[0] - 0.3).abs() < 1e-6, "{line:?}");
        assert!((line.coefficients[1] - 0.002).abs() < 1e-8, "{line:?}");
        assert!((line.intercept + 3.0).abs() < 1e-5, "{line:?}");
    }

    #[test]
    fn weights_act_like_repeated_rows() {
        let inputs = [[0.0], [1.0], [2.0], [3.0], [3.0], [3.0]];
        let targets = [0.0, 1.0, 0.0, 1.0, 1.0, 1.0];
        let repeated = fit(&inputs, &targets, &[1.0; 6], 1.0);
        let weighted = fit(&inputs[..4], &targets[..4], &[1.0, 1.0, 1.0, 3.0], 1.0);
        assert!((repeated.coefficients[0] - weighted.coefficients[0]).abs() < 1e-9);
        assert!((repeated.intercept - weighted.intercept).abs() < 1e-9);
    }

    #[test]
    fn backward_and_constant_inputs_get_no_weight_and_the_rate_stays() {
        let inputs: Vec<[f64; 2]> = (0..100).map(|i| [-f64::from(i), 7.0]).collect();
        let targets: Vec<f64> = (0..100).map(|i| f64::from(u8::from(i >= 80))).collect();
        let line = fit(&inputs, &targets, &[1.0; 100], 1.0);
        assert_eq!(line.coefficients, [0.0, 0.0]);
        assert!((sigmoid(line.intercept) - 0.2).abs() < 1e-9);
    }

    #[test]
    fn separable_data_stay_finite() {
        let line = fit(&[[0.0], [1.0]], &[0.0, 1.0], &[1.0, 1.0], 1e-3);
        assert!(line.coefficients[0].is_finite() && line.coefficients[0] > 1.0);
    }
}
