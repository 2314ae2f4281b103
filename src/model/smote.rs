//! Synthetic positives between neighbouring ones (SMOTE, Chawla et al. 2002, JAIR 16).

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use smartcore::algorithm::neighbour::linear_search::LinearKNNSearch;
use smartcore::metrics::distance::Distance;

use super::Matrix;

/// Neighbours among which one is drawn, as in the paper.
const NEIGHBOURS: usize = 5;
/// Positives that get neighbours; of more, evenly spaced ones. The search takes their square.
const MAX_SEEDS: usize = 5000;

/// Mean squared difference over the columns that both rows have, each in its own spread.
#[derive(Clone)]
struct Standardised<'a> {
    scales: &'a [f32],
}

impl Distance<&[f32]> for Standardised<'_> {
    fn distance(&self, a: &&[f32], b: &&[f32]) -> f64 {
        let (mut sum, mut common) = (0.0f32, 0u32);
        for ((a, b), scale) in a.iter().zip(b.iter()).zip(self.scales) {
            let difference = (a - b) * scale;
            if difference.is_finite() {
                sum += difference * difference;
                common += 1;
            }
        }
        match common {
            0 => f64::MAX,
            _ => f64::from(sum) / f64::from(common),
        }
    }
}

/// `count` rows, each somewhere between a positive and one of its nearest; a value that either lacks stays that of the first.
pub fn synthesize(
    features: &Matrix,
    positives: &[usize],
    count: usize,
    rng: &mut ChaCha8Rng,
) -> Vec<f32> {
    let every = positives.len().div_ceil(MAX_SEEDS).max(1);
    let seeds: Vec<&[f32]> = positives
        .iter()
        .step_by(every)
        .map(|row| features.row(*row))
        .collect();
    let scales: Vec<f32> = (0..features.columns)
        .map(|column| scale(seeds.iter().map(|row| row[column])))
        .collect();
    // A row is its own nearest neighbour.
    let wanted = (NEIGHBOURS + 1).min(seeds.len());
    let Ok(search) = LinearKNNSearch::new(seeds.clone(), Standardised { scales: &scales }) else {
        return Vec::new();
    };
    let neighbours: Vec<Vec<usize>> = seeds
        .par_iter()
        .enumerate()
        .map(|(own, seed)| {
            let found = search.find(seed, wanted).unwrap_or_default();
            let mut others: Vec<usize> = found
                .iter()
                .map(|(index, ..)| *index)
                .filter(|index| *index != own)
                .collect();
            others.sort_unstable();
            others
        })
        .collect();
    let mut rows = Vec::with_capacity(count * features.columns);
    for made in 0..count {
        let own = made % seeds.len();
        let others = &neighbours[own];
        if others.is_empty() {
            rows.extend_from_slice(seeds[own]);
            continue;
        }
        let other = seeds[others[rng.random_range(0..others.len())]];
        let share: f32 = rng.random();
        rows.extend(seeds[own].iter().zip(other).map(|(a, b)| {
            let between = a + share * (b - a);
            if between.is_finite() { between } else { *a }
        }));
    }
    rows
}

/// One over the standard deviation of the present values; 0 for a column that says nothing.
fn scale(values: impl Iterator<Item = f32> + Clone) -> f32 {
    let present = || values.clone().filter(|x| x.is_finite()).map(f64::from);
    let count = present().count() as f64;
    let mean = present().sum::<f64>() / count;
    let spread = (present().map(|x| (x - mean).powi(2)).sum::<f64>() / count).sqrt();
    if spread > 0.0 {
        (1.0 / spread) as f32
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn two_groups() -> Matrix {
        let mut features = Matrix::new(3);
        for i in 0..40 {
            let group = if i % 2 == 0 { 0.0 } else { 1000.0 };
            let gap = if i % 5 == 0 { f32::NAN } else { 1.0 };
            features
                .data
                .extend([group + i as f32 / 40.0, gap, f32::INFINITY]);
        }
        features
    }

    #[test]
    fn synthetic_rows_lie_between_neighbours() {
        let features = two_groups();
        let positives: Vec<usize> = (0..40).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let rows = synthesize(&features, &positives, 100, &mut rng);
        assert_eq!(rows.len(), 300);
        let mut fresh = 0;
        for row in rows.chunks_exact(3) {
            let in_group = |base: f32| (base..=base + 1.0).contains(&row[0]);
            assert!(in_group(0.0) || in_group(1000.0), "{row:?}");
            assert!(row[1].is_nan() || row[1] == 1.0);
            assert_eq!(row[2], f32::INFINITY);
            fresh += usize::from(features.data.iter().all(|x| *x != row[0]));
        }
        assert!(fresh > 80, "{fresh} new rows");
        let again = synthesize(
            &features,
            &positives,
            100,
            &mut ChaCha8Rng::seed_from_u64(1),
        );
        assert_eq!(
            rows.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
            again.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        );
    }

    #[test]
    fn one_positive_is_repeated() {
        let features = two_groups();
        let rows = synthesize(&features, &[3], 2, &mut ChaCha8Rng::seed_from_u64(1));
        assert_eq!(rows, [features.row(3), features.row(3)].concat());
    }
}
