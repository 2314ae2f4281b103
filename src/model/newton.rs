//! Small weighted logistic regression by Newton steps: the stack and Platt's calibration.

use super::sigmoid;

/// Non-negative coefficients and an intercept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line<const K: usize> {
    pub coefficients: [f64; K],
    pub intercept: f64,
}

impl<const K: usize> Line<K> {
    pub fn at(&self, inputs: &[f64; K]) -> f64 {
        self.intercept
            + self
                .coefficients
                .iter()
                .zip(inputs)
                .map(|(c, x)| c * x)
                .sum::<f64>()
    }
}

const MAX_STEPS: usize = 50;

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
    let standard: Vec<[f64; K]> = inputs
        .iter()
        .map(|row| {
            std::array::from_fn(|k| {
                if spread[k] > 0.0 {
                    (row[k] - centre[k]) / spread[k]
                } else {
                    0.0
                }
            })
        })
        .collect();

    let mut active: [bool; K] = spread.map(|spread| spread > 0.0);
    let line = loop {
        let line = solve(&standard, targets, weights, ridge, &active);
        let worst = (0..K)
            .filter(|k| line.coefficients[*k] < 0.0)
            .min_by(|a, b| line.coefficients[*a].total_cmp(&line.coefficients[*b]));
        match worst {
            Some(k) => active[k] = false,
            None => break line,
        }
    };
    let coefficients: [f64; K] = std::array::from_fn(|k| {
        if active[k] {
            line.coefficients[k] / spread[k]
        } else {
            0.0
        }
    });
    let shift: f64 = coefficients
        .iter()
        .zip(centre)
        .map(|(c, centre)| c * centre)
        .sum();
    Line {
        coefficients,
        intercept: line.intercept - shift,
    }
}

fn solve<const K: usize>(
    inputs: &[[f64; K]],
    targets: &[f64],
    weights: &[f64],
    ridge: f64,
    active: &[bool; K],
) -> Line<K> {
    let loss = |line: &Line<K>| -> f64 {
        let rows = inputs.iter().zip(targets).zip(weights).map(|((x, y), w)| {
            let z = line.at(x);
            w * (z.max(0.0) + (-z.abs()).exp().ln_1p() - y * z)
        });
        rows.sum::<f64>() + ridge / 2.0 * line.coefficients.iter().map(|c| c * c).sum::<f64>()
    };
    let mut line = Line {
        coefficients: [0.0; K],
        intercept: 0.0,
    };
    let mut current = loss(&line);
    for _ in 0..MAX_STEPS {
        // The last row and column belong to the intercept.
        let mut hessian = vec![vec![0.0; K + 1]; K + 1];
        let mut gradient = vec![0.0; K + 1];
        for ((x, y), w) in inputs.iter().zip(targets).zip(weights) {
            let p = sigmoid(line.at(x));
            let input = |k: usize| x.get(k).map_or(1.0, |x| if active[k] { *x } else { 0.0 });
            for a in 0..=K {
                gradient[a] += w * (p - y) * input(a);
                for (b, cell) in hessian[a].iter_mut().enumerate().take(a + 1) {
                    *cell += w * p * (1.0 - p) * input(a) * input(b);
                }
            }
        }
        for k in 0..K {
            gradient[k] += ridge * line.coefficients[k];
            hessian[k][k] += ridge;
        }
        let Some(step) = cholesky_solve(hessian, gradient) else {
            break;
        };
        let mut length = 1.0;
        let mut improved = false;
        while length > 1e-6 {
            let next = Line {
                coefficients: std::array::from_fn(|k| line.coefficients[k] - length * step[k]),
                intercept: line.intercept - length * step[K],
            };
            let next_loss = loss(&next);
            if next_loss < current {
                improved = current - next_loss > 1e-12 * current;
                (line, current) = (next, next_loss);
                break;
            }
            length /= 2.0;
        }
        if !improved {
            break;
        }
    }
    line
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
