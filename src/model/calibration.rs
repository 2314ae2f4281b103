//! From a score to a probability at the true base rate.

use serde::{Deserialize, Serialize};

use super::newton::{self, Line};
use super::{is_usable, sigmoid};

/// No answer is surer than this, on either side.
const FLOOR: f64 = 1e-4;
/// Positives from which isotonic regression is used. Below about 1000 cases it
/// overfits and Platt's two parameters do better (Niculescu-Mizil & Caruana 2005,
/// "Predicting good probabilities with supervised learning", section 5); rows of
/// one incident resemble each other, so the positives are what counts here.
const ISOTONIC_POSITIVES: usize = 1000;
const RIDGE: f64 = 1e-3;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Calibration {
    Platt {
        slope: f64,
        intercept: f64,
    },
    /// Scores, strictly ascending, and their probabilities, ascending; linear in between.
    Isotonic {
        scores: Vec<f64>,
        probabilities: Vec<f64>,
    },
}

impl Calibration {
    /// `weights` bring the rows to the true base rate.
    pub fn fit(scores: &[f64], labels: &[bool], weights: &[f64]) -> Self {
        if labels.iter().filter(|label| **label).count() < ISOTONIC_POSITIVES {
            platt(scores, labels, weights)
        } else {
            isotonic(scores, labels, weights)
        }
    }

    pub fn probability(&self, score: f64) -> f64 {
        let p = match self {
            Calibration::Platt { slope, intercept } => sigmoid(slope * score + intercept),
            Calibration::Isotonic {
                scores,
                probabilities,
            } => {
                let above = scores.partition_point(|x| *x <= score);
                if above == 0 {
                    probabilities[0]
                } else if above == scores.len() {
                    probabilities[above - 1]
                } else {
                    let (low, high) = (above - 1, above);
                    let share = (score - scores[low]) / (scores[high] - scores[low]);
                    probabilities[low] + share * (probabilities[high] - probabilities[low])
                }
            }
        };
        p.clamp(FLOOR, 1.0 - FLOOR)
    }

    /// What is wrong with a calibration from a file.
    pub fn check(&self) -> Result<(), &'static str> {
        match self {
            Calibration::Platt { slope, intercept }
                if *slope >= 0.0 && is_usable(*slope) && is_usable(*intercept) =>
            {
                Ok(())
            }
            Calibration::Platt { .. } => {
                Err("the slope must be from 0, and both it and the intercept within 1e60")
            }
            Calibration::Isotonic {
                scores,
                probabilities,
            } => {
                let ascending =
                    scores.windows(2).all(|pair| pair[0] < pair[1]) && probabilities.is_sorted();
                let usable = scores.iter().chain(probabilities).all(|x| is_usable(*x));
                if scores.is_empty() || scores.len() != probabilities.len() || !ascending || !usable
                {
                    return Err(
                        "scores and probabilities must be ascending, within 1e60, of equal number and at least one",
                    );
                }
                Ok(())
            }
        }
    }
}

/// Platt's sigmoid with his smoothed targets.
fn platt(scores: &[f64], labels: &[bool], weights: &[f64]) -> Calibration {
    let sum = |class: bool| {
        labels
            .iter()
            .zip(weights)
            .filter(|(label, _)| **label == class)
            .map(|(_, w)| w)
            .sum::<f64>()
    };
    let (positive, negative) = (
        (sum(true) + 1.0) / (sum(true) + 2.0),
        1.0 / (sum(false) + 2.0),
    );
    let inputs: Vec<[f64; 1]> = scores.iter().map(|score| [*score]).collect();
    let targets: Vec<f64> = labels
        .iter()
        .map(|label| if *label { positive } else { negative })
        .collect();
    let Line {
        coefficients: [slope],
        intercept,
    } = newton::fit(&inputs, &targets, weights, RIDGE);
    Calibration::Platt { slope, intercept }
}

/// Pools adjacent violators; every block is one point at its mean score.
fn isotonic(scores: &[f64], labels: &[bool], weights: &[f64]) -> Calibration {
    #[derive(Clone, Copy)]
    struct Block {
        score: f64,
        positive: f64,
        weight: f64,
    }
    let mut order: Vec<usize> = (0..scores.len()).filter(|i| weights[*i] > 0.0).collect();
    order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
    let mut blocks: Vec<Block> = Vec::new();
    for ties in order.chunk_by(|a, b| scores[*a] == scores[*b]) {
        let sum = |value: &dyn Fn(usize) -> f64| {
            ties.iter().map(|i| weights[*i] * value(*i)).sum::<f64>()
        };
        let mut block = Block {
            score: scores[ties[0]],
            positive: sum(&|i| f64::from(u8::from(labels[i]))),
            weight: sum(&|_| 1.0),
        };
        while let Some(last) = blocks
            .last()
            .filter(|last| last.positive * block.weight >= block.positive * last.weight)
        {
            let weight = last.weight + block.weight;
            block = Block {
                score: (last.score * last.weight + block.score * block.weight) / weight,
                positive: last.positive + block.positive,
                weight,
            };
            blocks.pop();
        }
        blocks.push(block);
    }
    Calibration::Isotonic {
        scores: blocks.iter().map(|block| block.score).collect(),
        probabilities: blocks
            .iter()
            .map(|block| block.positive / block.weight)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scores on a grid; of the `n` rows at score z, sigmoid(z) · n are positive.
    fn rows(n: usize) -> (Vec<f64>, Vec<bool>) {
        (0..=40)
            .flat_map(|i| {
                let z = f64::from(i) / 5.0 - 6.0;
                let positive = (sigmoid(z) * n as f64).round() as usize;
                (0..n).map(move |k| (z, k < positive))
            })
            .unzip()
    }

    #[test]
    fn both_kinds_find_the_shares() {
        for (n, name) in [(50, "platt"), (2000, "isotonic")] {
            let (scores, labels) = rows(n);
            let doubled: Vec<f64> = scores.iter().map(|score| 2.0 * score + 1.0).collect();
            let calibration = Calibration::fit(&doubled, &labels, &vec![1.0; scores.len()]);
            assert_eq!(
                matches!(calibration, Calibration::Isotonic { .. }),
                name == "isotonic"
            );
            for z in [-5.0, -2.0, 0.0, 1.5] {
                let p = calibration.probability(2.0 * z + 1.0);
                assert!((p - sigmoid(z)).abs() < 0.01, "{name} at {z}: {p}");
            }
        }
    }

    #[test]
    fn negative_sampling_is_undone_by_weights() {
        let (scores, labels) = rows(400);
        let all = Calibration::fit(&scores, &labels, &vec![1.0; scores.len()]);
        let mut kept = (Vec::new(), Vec::new(), Vec::new());
        for (i, (score, label)) in scores.iter().zip(&labels).enumerate() {
            if *label || i % 2 == 0 {
                kept.0.push(*score);
                kept.1.push(*label);
                kept.2.push(if *label { 1.0 } else { 2.0 });
            }
        }
        let sampled = Calibration::fit(&kept.0, &kept.1, &kept.2);
        for z in [-4.0, -1.0, 1.0] {
            assert!((all.probability(z) - sampled.probability(z)).abs() < 0.01);
        }
    }

    #[test]
    fn isotonic_keeps_the_order_and_never_leaves_the_bounds() {
        let scores: Vec<f64> = (0..4000).map(f64::from).collect();
        let labels: Vec<bool> = (0..4000)
            .map(|i| i >= 2000 && (i * 7919) % 10 < 7)
            .collect();
        let calibration = isotonic(&scores, &labels, &vec![1.0; 4000]);
        calibration.check().unwrap();
        let answers: Vec<f64> = (-100..4100)
            .map(|score| calibration.probability(f64::from(score)))
            .collect();
        assert!(answers.is_sorted());
        assert!(answers.iter().all(|p| (FLOOR..=1.0 - FLOOR).contains(p)));
        assert!((calibration.probability(3000.0) - 0.7).abs() < 0.1);
    }

    #[test]
    fn a_score_that_ranks_backwards_becomes_the_base_rate() {
        let scores: Vec<f64> = (0..200).map(f64::from).collect();
        let labels: Vec<bool> = (0..200).map(|i| i < 50).collect();
        let calibration = Calibration::fit(&scores, &labels, &[1.0; 200]);
        for score in [0.0, 199.0] {
            assert!((calibration.probability(score) - 0.25).abs() < 0.01);
        }
    }

    #[test]
    fn foreign_values_are_refused() {
        let bad = [
            Calibration::Platt {
                slope: -1.0,
                intercept: 0.0,
            },
            // Their difference has no number.
            Calibration::Isotonic {
                scores: vec![-1e308, 1e308],
                probabilities: vec![0.1, 0.2],
            },
            Calibration::Isotonic {
                scores: vec![],
                probabilities: vec![],
            },
            Calibration::Isotonic {
                scores: vec![1.0, 1.0],
                probabilities: vec![0.1, 0.2],
            },
            Calibration::Isotonic {
                scores: vec![1.0, 2.0],
                probabilities: vec![0.2, 0.1],
            },
            Calibration::Isotonic {
                scores: vec![1.0, 2.0],
                probabilities: vec![0.2],
            },
        ];
        for calibration in bad {
            assert!(calibration.check().is_err(), "{calibration:?}");
        }
    }
}
