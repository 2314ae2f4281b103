//! Random forest: trees of squared error on 0/1, so a leaf holds a share of positives.

use std::sync::atomic::{AtomicUsize, Ordering};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::ForestParams;
use super::boosted::Data;
use super::subspace::{Subspace, stream};
use super::tree::{Candidates, Growth, Sample, Trees};
use super::xgboost_json::{Objective, TreeModel};

/// Leaf values are multiples of its inverse: single precision adds up to 2 of them without rounding,
/// so that XGBoost comes to the very same sums.
const LEAF_GRID: f32 = (1 << 23) as f32;

/// The sum of the trees is the mean of their shares: leaf values are stored divided by the number of trees.
pub fn fit(
    data: &Data,
    fit: &[usize],
    subspace: &Subspace,
    params: &ForestParams,
    seed: u64,
    progress: &(dyn Fn(f64) + Sync),
) -> TreeModel {
    let growth = Growth {
        max_depth: params.max_depth,
        lambda: 0.0,
        min_child: params.min_samples_leaf as f64,
        shrinkage: 1.0,
    };
    let per_node = (data.features.columns as f64).sqrt().round().max(1.0) as usize;
    let done = AtomicUsize::new(0);
    let grown: Vec<Trees> = (0..params.n_estimators)
        .into_par_iter()
        .map(|tree| {
            let mut rng = stream(seed, tree);
            let columns = subspace.draw(&mut rng);
            let mut sample = bootstrap(data, fit, &mut rng);
            let mut trees = Trees::default();
            growth.grow(
                &mut trees,
                data.bins,
                &mut sample,
                Candidates::Drawn(columns, per_node, &mut rng),
            );
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            progress(done as f64 / params.n_estimators as f64);
            trees
        })
        .collect();
    let mut trees = Trees::default();
    for tree in grown {
        trees.append(tree);
    }
    let share = 1.0 / params.n_estimators as f32;
    trees.map_leaves(|value| (value * share * LEAF_GRID).round() / LEAF_GRID);
    TreeModel {
        objective: Objective::SquaredError,
        base_score: 0.0,
        trees,
    }
}

/// As many draws as rows; a row drawn twice counts once for `min_samples_leaf` and has twice the weight.
fn bootstrap(data: &Data, fit: &[usize], rng: &mut ChaCha8Rng) -> Sample<3> {
    let mut draws = vec![0u16; fit.len()];
    for _ in fit {
        draws[rng.random_range(0..fit.len())] += 1;
    }
    let (rows, stats) = fit
        .iter()
        .zip(draws)
        .filter(|(row, draws)| *draws > 0 && data.weights[**row] > 0.0)
        .map(|(row, draws)| {
            let weight = data.weights[*row] * f32::from(draws);
            let gradient = if data.labels[*row] { -weight } else { 0.0 };
            (*row as u32, [gradient, weight, 1.0])
        })
        .unzip();
    Sample { rows, stats }
}
