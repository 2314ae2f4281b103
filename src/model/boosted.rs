//! Gradient boosted trees with logistic loss.

use rayon::prelude::*;

use super::bins::Bins;
use super::subspace::{Subspace, stream};
use super::tree::{Candidates, Growth, Sample, Trees};
use super::xgboost_json::{Objective, TreeModel};
use super::{Matrix, XgboostParams, logit, sigmoid};

/// What the trees are fitted on; labels and weights are indexed by row.
pub struct Data<'a> {
    pub bins: &'a Bins,
    pub features: &'a Matrix,
    pub labels: &'a [bool],
    /// Class weights included.
    pub weights: &'a [f32],
}

/// Fits on the rows `fit`. Also gives the loss over the rows `validate` after each number of rounds
/// from 0, and stops when it has not fallen for `early_stopping_rounds`; what to keep is the caller's choice.
pub fn fit(
    data: &Data,
    fit: &[usize],
    validate: &[usize],
    subspace: &Subspace,
    params: &XgboostParams,
    seed: u64,
    progress: &(dyn Fn(f64) + Sync),
) -> (TreeModel, Vec<f64>) {
    let weight = |row: &usize| f64::from(data.weights[*row]);
    let total: f64 = fit.iter().map(weight).sum();
    let positive: f64 = fit
        .iter()
        .filter(|row| data.labels[**row])
        .map(weight)
        .sum();
    let mut model = TreeModel {
        objective: Objective::Logistic,
        base_score: (positive / total) as f32,
        trees: Trees::default(),
    };
    let growth = Growth {
        max_depth: params.max_depth,
        lambda: params.lambda,
        min_child: params.min_child_weight,
        shrinkage: params.learning_rate,
    };
    let mut margins = vec![logit(f64::from(model.base_score)); data.labels.len()];
    let loss = |margins: &[f64]| -> f64 {
        let row_loss = |row: &usize| {
            let toward = if data.labels[*row] {
                -margins[*row]
            } else {
                margins[*row]
            };
            weight(row) * (toward.max(0.0) + (-toward.abs()).exp().ln_1p())
        };
        validate.iter().map(row_loss).sum()
    };
    let mut losses = vec![loss(&margins)];
    let mut best = 0;
    for round in 1..=params.n_estimators {
        let (rows, stats) = fit
            .par_iter()
            .map(|row| {
                let (p, weight) = (sigmoid(margins[*row]), weight(row));
                let target = f64::from(u8::from(data.labels[*row]));
                let hessian = (p * (1.0 - p)).max(1e-16);
                (
                    *row as u32,
                    [(weight * (p - target)) as f32, (weight * hessian) as f32],
                )
            })
            .unzip();
        let mut sample = Sample { rows, stats };
        let candidates = Candidates::Columns(subspace.draw(&mut stream(seed, round)));
        let leaves = growth.grow(&mut model.trees, data.bins, &mut sample, candidates);
        for leaf in leaves {
            let value = f64::from(model.trees.values[leaf.node]);
            for row in &sample.rows[leaf.range] {
                margins[*row as usize] += value;
            }
        }
        if !validate.is_empty() {
            let trees = &model.trees;
            let root = trees.span(round - 1).start;
            for row in validate {
                margins[*row] += f64::from(trees.values[trees.leaf(root, data.features.row(*row))]);
            }
            losses.push(loss(&margins));
            if losses[round] < losses[best] {
                best = round;
            } else if round - best >= params.early_stopping_rounds {
                break;
            }
        }
        progress(round as f64 / params.n_estimators as f64);
    }
    (model, losses)
}
