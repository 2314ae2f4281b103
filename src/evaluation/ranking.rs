//! How well scores order and calibrate rows, apart from any threshold.

/// Weighted rows of (score, label), sorted by score. Measures are `None` where undefined:
/// no rows, or only one class where both are needed.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Highest score first.
    rows: Vec<Row>,
    weight: f64,
    positive: f64,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    score: f64,
    label: bool,
    weight: f64,
}

/// Rows of neighbouring scores: what was predicted and what came.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct ReliabilityBin {
    pub mean_predicted: f64,
    pub observed: f64,
    pub weight: f64,
}

/// Equal-count bins of the calibration errors.
pub const CALIBRATION_BINS: usize = 15;

/// A row counts for `ece_high` from this multiple of the base rate.
const HIGH_MULTIPLE: f64 = 5.0;

impl Rows {
    /// From (score, label, weight); rows whose score is NaN are left out.
    pub fn new(rows: impl IntoIterator<Item = (f64, bool, f64)>) -> Self {
        let mut rows: Vec<Row> = rows
            .into_iter()
            .filter(|row| !row.0.is_nan())
            .map(|(score, label, weight)| Row {
                score,
                label,
                weight,
            })
            .collect();
        rows.sort_unstable_by(|a, b| b.score.total_cmp(&a.score));
        let weight = rows.iter().map(|row| row.weight).sum();
        let positive = rows.iter().map(Row::positive).sum();
        Self {
            rows,
            weight,
            positive,
        }
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn base_rate(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.positive / self.weight)
    }

    /// Chance that a positive scores above a negative; a tie counts half.
    pub fn roc_auc(&self) -> Option<f64> {
        let negative = self.weight - self.positive;
        let mut above = 0.0;
        let mut won = 0.0;
        for (weight, positive) in self.ties() {
            won += (weight - positive) * (above + positive / 2.0);
            above += positive;
        }
        (self.positive > 0.0 && negative > 0.0).then(|| won / (self.positive * negative))
    }

    /// Mean precision over the positives, without interpolation; equal scores are one step.
    pub fn average_precision(&self) -> Option<f64> {
        let (mut weight, mut positive, mut sum) = (0.0, 0.0, 0.0);
        for (tied, tied_positive) in self.ties() {
            weight += tied;
            positive += tied_positive;
            if tied_positive > 0.0 {
                sum += tied_positive * positive / weight;
            }
        }
        (self.positive > 0.0).then(|| sum / self.positive)
    }

    pub fn brier(&self) -> Option<f64> {
        self.mean(|row| (row.score - row.outcome()).powi(2))
    }

    /// 1 is perfect, 0 is no better than always answering these rows' own base rate.
    pub fn brier_skill(&self) -> Option<f64> {
        brier_skill(self.brier()?, self.base_rate()?)
    }

    pub fn log_loss(&self) -> Option<f64> {
        self.mean(|row| {
            let p = row.score.clamp(1e-15, 1.0 - 1e-15);
            if row.label { -p.ln() } else { -(1.0 - p).ln() }
        })
    }

    /// Expected calibration error over [`CALIBRATION_BINS`] equal-count bins.
    pub fn ece(&self) -> Option<f64> {
        let bins = self.reliability(CALIBRATION_BINS);
        let error: f64 = bins
            .iter()
            .map(|b| b.weight * (b.mean_predicted - b.observed).abs())
            .sum();
        (self.weight > 0.0).then(|| error / self.weight)
    }

    /// [`Rows::ece`] of the rows that claim at least five times the base rate.
    pub fn ece_high(&self) -> Option<f64> {
        self.high()?.ece()
    }

    /// The rows that claim at least five times the base rate.
    pub fn high(&self) -> Option<Rows> {
        let bound = HIGH_MULTIPLE * self.base_rate()?;
        let high = self.rows.iter().take_while(|row| row.score >= bound);
        Some(Rows::new(
            high.map(|row| (row.score, row.label, row.weight)),
        ))
    }

    /// Bins of about equal weight, highest scores first. Equal scores are never parted, so there may be fewer.
    pub fn reliability(&self, bins: usize) -> Vec<ReliabilityBin> {
        let mut found = Vec::new();
        let (mut weight, mut positive, mut predicted, mut done) = (0.0, 0.0, 0.0, 0.0);
        for tied in self.rows.chunk_by(|a, b| a.score == b.score) {
            for row in tied {
                weight += row.weight;
                positive += row.positive();
                predicted += row.weight * row.score;
            }
            let next = (found.len() + 1) as f64 / bins as f64 * self.weight;
            if weight > 0.0 && done + weight >= next * (1.0 - 1e-12) {
                found.push(ReliabilityBin {
                    mean_predicted: predicted / weight,
                    observed: positive / weight,
                    weight,
                });
                done += weight;
                (weight, positive, predicted) = (0.0, 0.0, 0.0);
            }
        }
        found
    }

    /// Slope of a logistic regression of the label on logit(score): 1 is right, below 1 is overconfident.
    pub fn calibration_slope(&self) -> Option<f64> {
        let base = self.base_rate().filter(|base| *base > 0.0 && *base < 1.0)?;
        let logits: Vec<f64> = self.rows.iter().map(|row| logit(row.score)).collect();
        // Centred, so that the two coefficients hardly interact and Newton's steps stay tame.
        let mean = self
            .rows
            .iter()
            .zip(&logits)
            .map(|(row, x)| row.weight * x)
            .sum::<f64>()
            / self.weight;
        let loss = |intercept: f64, slope: f64| -> f64 {
            let rows = self.rows.iter().zip(&logits);
            rows.map(|(row, logit)| {
                let z = intercept + slope * (logit - mean);
                row.weight * (z.max(0.0) + (-z.abs()).exp().ln_1p() - row.outcome() * z)
            })
            .sum()
        };
        let (mut intercept, mut slope) = (logit(base), 0.0);
        for _ in 0..100 {
            let (mut g0, mut g1, mut h00, mut h01, mut h11) = (0.0, 0.0, 0.0, 0.0, 0.0);
            for (row, logit) in self.rows.iter().zip(&logits) {
                let x = logit - mean;
                let p = 1.0 / (1.0 + (-(intercept + slope * x)).exp());
                let (error, curvature) =
                    (row.weight * (row.outcome() - p), row.weight * p * (1.0 - p));
                g0 += error;
                g1 += error * x;
                h00 += curvature;
                h01 += curvature * x;
                h11 += curvature * x * x;
            }
            let determinant = h00 * h11 - h01 * h01;
            if determinant <= 1e-12 * h00 * h11 || !determinant.is_finite() {
                return None;
            }
            let by = (h11 * g0 - h01 * g1) / determinant;
            let slope_by = (h00 * g1 - h01 * g0) / determinant;
            if by.abs().max(slope_by.abs()) < 1e-8 {
                return Some(slope);
            }
            // A full step overshoots where the curve is flat.
            let bound = loss(intercept, slope) * (1.0 + 1e-9);
            let scale = (0..40)
                .map(|halvings| 0.5_f64.powi(halvings))
                .find(|scale| loss(intercept + scale * by, slope + scale * slope_by) <= bound)?;
            intercept += scale * by;
            slope += scale * slope_by;
        }
        None
    }

    /// (weight, positive weight) of each run of equal scores, highest first.
    pub(super) fn ties(&self) -> impl Iterator<Item = (f64, f64)> {
        self.rows.chunk_by(|a, b| a.score == b.score).map(|tied| {
            (
                tied.iter().map(|row| row.weight).sum(),
                tied.iter().map(Row::positive).sum(),
            )
        })
    }

    fn mean(&self, of: impl Fn(&Row) -> f64) -> Option<f64> {
        let sum: f64 = self.rows.iter().map(|row| row.weight * of(row)).sum();
        (self.weight > 0.0).then(|| sum / self.weight)
    }
}

impl Row {
    fn positive(&self) -> f64 {
        self.weight * self.outcome()
    }

    fn outcome(&self) -> f64 {
        f64::from(u8::from(self.label))
    }
}

/// Share of the Brier score of a constant `base_rate` that is gone.
pub fn brier_skill(brier: f64, base_rate: f64) -> Option<f64> {
    let reference = base_rate * (1.0 - base_rate);
    (reference > 0.0).then(|| 1.0 - brier / reference)
}

fn logit(p: f64) -> f64 {
    let p = p.clamp(1e-9, 1.0 - 1e-9);
    (p / (1.0 - p)).ln()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn rows(rows: &[(f64, u8)]) -> Rows {
        Rows::new(rows.iter().map(|(score, label)| (*score, *label == 1, 1.0)))
    }

    fn close(a: Option<f64>, b: f64) -> bool {
        a.is_some_and(|a| (a - b).abs() < 1e-9)
    }

    #[test]
    fn known_values() {
        // scikit-learn: roc_auc_score, average_precision_score, brier_score_loss, log_loss.
        let known = rows(&[(0.1, 0), (0.4, 0), (0.35, 1), (0.8, 1)]);
        assert!(close(known.roc_auc(), 0.75));
        assert!(close(known.average_precision(), 0.833_333_333_333_333_3));
        assert!(close(known.brier(), 0.158_125));
        assert!(close(known.log_loss(), 0.472_287_953_338_090_7));
        let tied = rows(&[(0.5, 1), (0.5, 0), (0.5, 1), (0.2, 0)]);
        assert!(close(tied.roc_auc(), 0.75));
        assert!(close(tied.average_precision(), 2.0 / 3.0));
    }

    #[test]
    fn what_is_undefined_is_none() {
        let empty = rows(&[]);
        assert_eq!(
            (
                empty.base_rate(),
                empty.roc_auc(),
                empty.ece(),
                empty.brier()
            ),
            (None, None, None, None)
        );
        let negatives = rows(&[(0.1, 0), (0.2, 0)]);
        assert_eq!(
            (negatives.roc_auc(), negatives.average_precision()),
            (None, None)
        );
        assert_eq!(
            (negatives.brier_skill(), negatives.calibration_slope()),
            (None, None)
        );
        // A constant answer has neither slope nor claims, and no skill even at the right level.
        let constant = rows(&[
            (0.1, 0),
            (0.1, 0),
            (0.1, 0),
            (0.1, 0),
            (0.1, 0),
            (0.1, 0),
            (0.1, 0),
            (0.1, 0),
            (0.1, 0),
            (0.1, 1),
        ]);
        assert_eq!(
            (constant.calibration_slope(), constant.ece_high()),
            (None, None)
        );
        assert!(close(constant.brier_skill(), 0.0));
        // Separated classes: the slope has no finite answer.
        assert_eq!(
            rows(&[(0.1, 0), (0.2, 0), (0.8, 1), (0.9, 1)]).calibration_slope(),
            None
        );
    }

    #[test]
    fn calibration_measures_tell_a_calibrated_score_from_a_distorted_one() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let drawn: Vec<(f64, bool)> = (0..60_000)
            .map(|_| {
                let p: f64 = rng.random::<f64>().powi(6);
                (p, rng.random::<f64>() < p)
            })
            .collect();
        let right = Rows::new(drawn.iter().map(|(p, y)| (*p, *y, 1.0)));
        let sharpened = |p: f64| p * p / (p * p + (1.0 - p) * (1.0 - p));
        let over = Rows::new(drawn.iter().map(|(p, y)| (sharpened(*p), *y, 1.0)));
        assert!(right.ece().unwrap() < 0.01, "{:?}", right.ece());
        assert!(right.ece_high().unwrap() < 0.02, "{:?}", right.ece_high());
        assert!((right.calibration_slope().unwrap() - 1.0).abs() < 0.05);
        // Twice the log-odds: half the slope, exactly.
        assert!(
            (over.calibration_slope().unwrap() * 2.0 - right.calibration_slope().unwrap()).abs()
                < 1e-3
        );
        assert!(over.ece().unwrap() > 2.0 * right.ece().unwrap());
        assert!(right.brier_skill().unwrap() > over.brier_skill().unwrap());
    }

    #[test]
    fn the_slope_of_rare_high_scores_among_many_low_ones_is_found() {
        for rare in [0.003, 0.01, 0.1] {
            let mut rng = ChaCha8Rng::seed_from_u64(2);
            let drawn = (0..100_000).map(|_| {
                let high = rng.random::<f64>() < rare;
                let p = if high {
                    rng.random_range(0.5..1.0)
                } else {
                    1e-4
                };
                (p, rng.random::<f64>() < p, 1.0)
            });
            let slope = Rows::new(drawn).calibration_slope().unwrap();
            assert!((slope - 1.0).abs() < 0.15, "{slope} at {rare}");
        }
    }

    #[test]
    fn bins_hold_equal_counts_and_never_part_equal_scores() {
        let spread = Rows::new((0..150).map(|i| (f64::from(i) / 150.0, i % 3 == 0, 1.0)));
        assert_eq!(
            spread
                .reliability(15)
                .iter()
                .map(|b| b.weight)
                .collect::<Vec<_>>(),
            [10.0; 15]
        );
        let tied = Rows::new((0..150).map(|i| (f64::from(u8::from(i < 40)), i < 20, 1.0)));
        let bins = tied.reliability(15);
        assert_eq!(
            bins.iter()
                .map(|b| (b.weight, b.observed))
                .collect::<Vec<_>>(),
            [(40.0, 0.5), (110.0, 0.0)]
        );
    }

    proptest! {
        #[test]
        fn auc_agrees_with_smartcore_and_weights_with_repetition(
            drawn in prop::collection::vec((0u8..30, prop::bool::ANY, 1u8..4), 2..120),
        ) {
            let weighted = Rows::new(drawn.iter().map(|(s, y, w)| (f64::from(*s), *y, f64::from(*w))));
            let repeated: Vec<_> =
                drawn.iter().flat_map(|(s, y, w)| vec![(f64::from(*s), *y, 1.0); usize::from(*w)]).collect();
            let plain = Rows::new(repeated.iter().copied());
            for measure in [Rows::roc_auc, Rows::average_precision, Rows::brier, Rows::log_loss] {
                match (measure(&weighted), measure(&plain)) {
                    (Some(a), Some(b)) => prop_assert!((a - b).abs() < 1e-9),
                    (a, b) => prop_assert_eq!(a, b),
                }
            }
            if let Some(auc) = plain.roc_auc() {
                let truth: Vec<f64> = repeated.iter().map(|r| f64::from(u8::from(r.1))).collect();
                let scores: Vec<f64> = repeated.iter().map(|r| r.0).collect();
                let oracle = smartcore::metrics::roc_auc_score(&truth, &scores);
                prop_assert!((auc - oracle).abs() < 1e-9, "{} {}", auc, oracle);
            }
        }
    }
}
