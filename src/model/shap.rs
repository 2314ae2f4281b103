//! Path-dependent TreeSHAP: Shapley values of a row's columns in a sum of trees.
//!
//! The game is that of Lundberg, Erion and Lee, "Consistent Individualized Feature Attribution for Tree
//! Ensembles" (2018), and Lundberg et al., "From local explanations to global understanding with explainable
//! AI for trees" (2020), algorithm 2: a known column sends the row to one child, missing values by the learned
//! direction; an unknown one sends it to both, in proportion to their covers.
//!
//! The values are those of that algorithm, the way to them is shorter. A leaf counts with the product of one
//! factor per column on its path: 1 or 0 when the column is known (whether the row would go there), the share
//! of the cover when not. If every column is known with chance t, a factor is the mix of both, and the Shapley
//! value is the integral over t from 0 to 1 of the derivative by that column's chance (Owen, "Multilinear
//! Extensions of Games", 1972). The integrand is a polynomial of a degree below the number of columns on a
//! path, so Gauss–Legendre points give it exactly, and sums of leaves below a node serve all columns above
//! (the idea of Yu, Xu, Bifet and Read, "Linear TreeShap", 2022): linear in the nodes, without subtracting
//! large numbers from each other, however deep the tree.

use super::tree::Trees;
use super::xgboost_json::TreeModel;

/// Points of the integral that are followed at once.
const LANES: usize = 8;

type Lanes = [f64; LANES];

/// Positions and weights of points; padding has weight zero.
struct Points {
    at: Lanes,
    weight: Lanes,
}

/// How a node is reached from its parent.
#[derive(Clone, Copy)]
struct Edge {
    column: u32,
    /// The nearest edge above that asks the same column, by its lower node; [`NONE`] when there is none.
    previous: u32,
    /// Of the parent's cover.
    fraction: f64,
    /// Product of the fractions of all edges of this column from the root to here.
    share: f64,
}

const NONE: u32 = u32::MAX;

/// Of each node of one tree, counted from its root.
#[derive(Default)]
struct Walk {
    /// On the way down the product of the factors, on the way up the sum of the leaves below.
    sums: Vec<Lanes>,
    /// Whether the row agrees with every edge of this column from the root to here.
    followed: Vec<bool>,
}

/// What does not depend on the row, prepared once for many rows.
pub struct TreeShap<'a> {
    trees: &'a Trees,
    edges: Vec<Edge>,
    points: Vec<Points>,
    /// The score with no column known.
    expected: f64,
}

impl<'a> TreeShap<'a> {
    pub fn new(model: &'a TreeModel) -> Self {
        let trees = &model.trees;
        let root = Edge {
            column: NONE,
            previous: NONE,
            fraction: 1.0,
            share: 1.0,
        };
        let mut edges = vec![root; trees.nodes.len()];
        let mut parents = vec![NONE; trees.nodes.len()];
        let mut reach = vec![1.0; trees.nodes.len()];
        // Different columns on the way to each node.
        let mut distinct = vec![0usize; trees.nodes.len()];
        let mut expected = model.start();
        // Children come after their parent.
        for node in 0..trees.nodes.len() {
            if trees.nodes[node].is_leaf() {
                expected += reach[node] * f64::from(trees.nodes[node].threshold);
                continue;
            }
            let column = trees.nodes[node].column() as u32;
            let mut previous = node;
            while edges[previous].column != column && parents[previous] != NONE {
                previous = parents[previous] as usize;
            }
            let asked_before = edges[previous].column == column;
            let left = trees.left(node);
            for (child, fraction) in [left, left + 1].into_iter().zip(fractions(trees, left)) {
                edges[child] = Edge {
                    column,
                    previous: if asked_before { previous as u32 } else { NONE },
                    fraction,
                    share: fraction
                        * if asked_before {
                            edges[previous].share
                        } else {
                            1.0
                        },
                };
                parents[child] = node as u32;
                reach[child] = reach[node] * fraction;
                distinct[child] = distinct[node] + usize::from(!asked_before);
            }
        }
        // n points are exact up to degree 2n - 1; the degree is one less than the columns.
        let most = distinct.into_iter().max().unwrap_or(0);
        Self {
            trees,
            edges,
            points: gauss_legendre(most.div_ceil(2).max(1)),
            expected,
        }
    }

    /// Adds each column's Shapley value times `scale`; returns the bias. Together they are `scale` times the score.
    pub fn explain(&self, row: &[f32], scale: f64, contributions: &mut [f64]) -> f64 {
        let mut walk = Walk::default();
        for tree in 0..self.trees.roots.len() {
            for points in &self.points {
                self.explain_tree(tree, row, points, scale, &mut walk, contributions);
            }
        }
        scale * self.expected
    }

    fn explain_tree(
        &self,
        tree: usize,
        row: &[f32],
        points: &Points,
        scale: f64,
        walk: &mut Walk,
        contributions: &mut [f64],
    ) {
        let Walk { sums, followed } = walk;
        let span = self.trees.span(tree);
        let root = span.start;
        sums.clear();
        sums.resize(span.len(), points.weight);
        followed.clear();
        followed.resize(span.len(), true);
        // Down: the product of the factors on the way to each node.
        for node in span.clone() {
            if self.trees.nodes[node].is_leaf() {
                continue;
            }
            let here = sums[node - root];
            let next = self.trees.next(node, row);
            let left = self.trees.left(node);
            for child in [left, left + 1] {
                let edge = self.edges[child];
                let previous = self.previous(edge, root, followed);
                let follows = next == child && previous.is_none_or(|(_, follows)| follows);
                followed[child - root] = follows;
                sums[child - root] = std::array::from_fn(|i| {
                    let t = points.at[i];
                    here[i]
                        * match previous {
                            None => factor(follows, edge.share, t),
                            Some((share, true)) => {
                                factor(follows, edge.share, t) / factor(true, share, t)
                            }
                            Some((_, false)) => edge.fraction,
                        }
                });
            }
        }
        // Up: the sum of the leaves below each node, each with its product.
        for node in span.rev() {
            if self.trees.nodes[node].is_leaf() {
                let value = f64::from(self.trees.nodes[node].threshold);
                sums[node - root].iter_mut().for_each(|sum| *sum *= value);
            } else {
                let left = self.trees.left(node) - root;
                sums[node - root] = std::array::from_fn(|i| sums[left][i] + sums[left + 1][i]);
            }
            let edge = self.edges[node];
            let slope = |follows: bool, share: f64| -> f64 {
                (0..LANES)
                    .map(|i| sums[node - root][i] * slope(follows, share, points.at[i]))
                    .sum()
            };
            let own = || slope(followed[node - root], edge.share);
            let value = match self.previous(edge, root, followed) {
                _ if node == root => continue,
                None => own(),
                // The edge above takes these leaves for its own: give them back.
                Some((share, true)) => own() - slope(true, share),
                // Both are left already, with the same slope.
                Some((_, false)) => continue,
            };
            contributions[edge.column as usize] += scale * value;
        }
    }

    /// Share of the edge above that asks the same column, and whether the row follows it.
    fn previous(&self, edge: Edge, root: usize, followed: &[bool]) -> Option<(f64, bool)> {
        (edge.previous != NONE).then(|| {
            let previous = edge.previous as usize;
            (self.edges[previous].share, followed[previous - root])
        })
    }
}

/// What a column multiplies a leaf with when it is known with chance `t`.
fn factor(follows: bool, share: f64, t: f64) -> f64 {
    let known = if follows { t } else { 0.0 };
    known + share * (1.0 - t)
}

/// Derivative of the factor by the chance, relative to the factor.
fn slope(follows: bool, share: f64, t: f64) -> f64 {
    if follows {
        (1.0 - share) / (t + share * (1.0 - t))
    } else {
        -1.0 / (1.0 - t)
    }
}

/// Of the parent's cover in each of two siblings: as node values are averaged.
fn fractions(trees: &Trees, left: usize) -> [f64; 2] {
    let [a, b] = [left, left + 1].map(|node| f64::from(trees.covers[node]));
    if a + b > 0.0 {
        [a / (a + b), b / (a + b)]
    } else {
        [0.5, 0.5]
    }
}

/// `count` points of the Gauss–Legendre rule on 0 to 1: the roots of the Legendre polynomial by Newton's method.
fn gauss_legendre(count: usize) -> Vec<Points> {
    let rule: Vec<(f64, f64)> = (0..count)
        .map(|i| {
            let n = count as f64;
            let mut x = (std::f64::consts::PI * (i as f64 + 0.75) / (n + 0.5)).cos();
            let mut derivative = 1.0;
            for _ in 0..100 {
                let (mut before, mut value) = (1.0, x);
                for k in 2..=count {
                    let k = k as f64;
                    (before, value) = (
                        value,
                        ((2.0 * k - 1.0) * x * value - (k - 1.0) * before) / k,
                    );
                }
                derivative = n * (x * value - before) / (x * x - 1.0);
                let change = value / derivative;
                x -= change;
                if change.abs() < 1e-16 {
                    break;
                }
            }
            let weight = 2.0 / ((1.0 - x * x) * derivative * derivative);
            ((x + 1.0) / 2.0, weight / 2.0)
        })
        .collect();
    let points = |chunk: &[(f64, f64)]| Points {
        at: std::array::from_fn(|i| chunk.get(i).map_or(0.5, |(at, _)| *at)),
        weight: std::array::from_fn(|i| chunk.get(i).map_or(0.0, |(_, weight)| *weight)),
    };
    rule.chunks(LANES).map(points).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::model::tree::Split;
    use crate::model::xgboost_json::{self, Objective};

    fn model(trees: Trees) -> TreeModel {
        TreeModel {
            objective: Objective::SquaredError,
            base_score: 0.25,
            trees,
        }
    }

    /// Trees that ask columns again and again, with covers of which some are zero.
    fn random_trees(rng: &mut ChaCha8Rng, columns: usize, most_nodes: usize) -> TreeModel {
        let mut trees = Trees::default();
        for _ in 0..rng.random_range(0..4) {
            let root = trees.plant();
            let mut open = vec![root];
            while let Some(node) = open.pop() {
                let cover = if rng.random_bool(0.1) {
                    0.0
                } else {
                    rng.random_range(0.0..9.0)
                };
                if trees.nodes.len() - root < most_nodes && rng.random_bool(0.8) {
                    let split = Split {
                        column: rng.random_range(0..columns),
                        threshold: rng.random_range(-3..3) as f32,
                        default_left: rng.random(),
                        gain: 1.0,
                    };
                    let left = trees.set_split(node, split, cover);
                    open.extend([left, left + 1]);
                } else {
                    trees.set_leaf(node, rng.random_range(-1.0..1.0), cover);
                }
            }
            trees.fill_values(root);
        }
        model(trees)
    }

    fn random_row(rng: &mut ChaCha8Rng, columns: usize) -> Vec<f32> {
        let value = |rng: &mut ChaCha8Rng| match rng.random_range(0..6) {
            0 => f32::NAN,
            1 => f32::INFINITY,
            _ => rng.random_range(-3..3) as f32,
        };
        (0..columns).map(|_| value(rng)).collect()
    }

    /// The value of the game for one coalition, from its definition.
    fn coalition_value(trees: &Trees, node: usize, row: &[f32], known: u32) -> f64 {
        let here = trees.nodes[node];
        if here.is_leaf() {
            return f64::from(here.threshold);
        }
        let left = trees.left(node);
        if known >> here.column() & 1 == 1 {
            let x = row[here.column()];
            let goes_left = x < here.threshold || (x.is_nan() && here.default_left());
            return coalition_value(trees, left + usize::from(!goes_left), row, known);
        }
        let [a, b] = fractions(trees, left);
        a * coalition_value(trees, left, row, known)
            + b * coalition_value(trees, left + 1, row, known)
    }

    /// Shapley values over all orders of the columns, from their definition; the last is the empty coalition's value.
    fn shapley_values(model: &TreeModel, row: &[f32]) -> Vec<f64> {
        let value = |known: u32| -> f64 {
            let trees = &model.trees;
            let roots = trees.roots.iter();
            model.start()
                + roots
                    .map(|root| coalition_value(trees, *root, row, known))
                    .sum::<f64>()
        };
        let columns = row.len() as u32;
        let factorial = |n: u32| (1..=n).map(f64::from).product::<f64>();
        let mut values: Vec<f64> = (0..columns)
            .map(|column| {
                (0..1u32 << columns)
                    .filter(|known| known >> column & 1 == 0)
                    .map(|known| {
                        let size = known.count_ones();
                        let orders = factorial(size) * factorial(columns - 1 - size);
                        orders / factorial(columns) * (value(known | 1 << column) - value(known))
                    })
                    .sum()
            })
            .collect();
        values.push(value(0));
        values
    }

    proptest! {
        #[test]
        fn values_are_those_of_the_definition(seed: u64, columns in 1usize..=6) {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let model = random_trees(&mut rng, columns, 60);
            let row = random_row(&mut rng, columns);
            let mut found = vec![0.0; columns];
            let bias = TreeShap::new(&model).explain(&row, 1.0, &mut found);
            found.push(bias);
            for (found, expected) in found.iter().zip(shapley_values(&model, &row)) {
                prop_assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
            }
        }

        #[test]
        fn values_and_bias_are_the_score(seed: u64, columns in 1usize..=200) {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let model = random_trees(&mut rng, columns, 3000);
            let row = random_row(&mut rng, columns);
            let mut values = vec![0.0; columns];
            let bias = TreeShap::new(&model).explain(&row, 2.0, &mut values);
            let sum = bias + values.iter().sum::<f64>();
            prop_assert!((sum - 2.0 * model.score(&row)).abs() < 1e-9);
        }
    }

    /// Every split asks a column of its own: more points than fit into one set of lanes.
    #[test]
    fn a_path_of_a_hundred_columns_is_exact() {
        let mut trees = Trees::default();
        let mut node = trees.plant();
        for column in 0..100 {
            let split = Split {
                column,
                threshold: 0.0,
                default_left: false,
                gain: 1.0,
            };
            let left = trees.set_split(node, split, 3.0);
            trees.set_leaf(left, 0.0, 1.0);
            trees.set_leaf(left + 1, 1.0, 3.0);
            node = left + 1;
        }
        trees.fill_values(0);
        let model = model(trees);
        let mut values = [0.0; 100];
        let bias = TreeShap::new(&model).explain(&[1.0; 100], 1.0, &mut values);
        assert!((bias - 0.25 - 0.75f64.powi(100)).abs() < 1e-12);
        for value in values {
            // All columns play the same part.
            assert!(
                (value - (1.0 - 0.75f64.powi(100)) / 100.0).abs() < 1e-12,
                "{value}"
            );
        }
    }

    /// A chain as deep as a model file can make it neither recurses nor loses a digit.
    #[test]
    fn a_chain_of_ten_thousand_splits_is_explained() {
        let mut trees = Trees::default();
        let mut node = trees.plant();
        for depth in 0..10_000 {
            let split = Split {
                column: depth % 3,
                threshold: -(depth as f32),
                default_left: true,
                gain: 1.0,
            };
            let left = trees.set_split(node, split, 1.0);
            trees.set_leaf(left + 1, depth as f32, 1.0);
            trees.set_leaf(left, 0.5, 1.0);
            node = left;
        }
        let model = model(trees);
        let row = [-7.5, f32::NAN, -20_000.0];
        let mut values = [0.0; 3];
        let bias = TreeShap::new(&model).explain(&row, 1.0, &mut values);
        let sum = bias + values.iter().sum::<f64>();
        assert!((sum - model.score(&row)).abs() < 1e-9, "{sum}");
    }

    #[derive(serde::Deserialize)]
    struct Recorded {
        columns: Vec<String>,
        rows: Vec<Vec<Option<f32>>>,
        /// Of each row, one per column, and the bias last.
        contributions: Vec<Vec<f64>>,
    }

    /// `tests/fixtures/shap/record.py` asked Python's xgboost for the contributions to the shipped model's boosted trees.
    #[test]
    fn python_xgboost_says_the_same_of_the_shipped_model() {
        let read = |file: &str| std::fs::read(format!("tests/fixtures/shap/{file}")).expect(file);
        let recorded: Recorded = serde_json::from_slice(&read("contributions.json")).unwrap();
        let model = xgboost_json::read(
            "boosted.json",
            &read("boosted.json"),
            Objective::Logistic,
            &recorded.columns,
        )
        .unwrap();
        let shap = TreeShap::new(&model);
        assert_eq!(recorded.rows.len(), 20);
        for (row, expected) in recorded.rows.iter().zip(&recorded.contributions) {
            let row: Vec<f32> = row.iter().map(|x| x.unwrap_or(f32::NAN)).collect();
            let mut found = vec![0.0; recorded.columns.len()];
            let bias = shap.explain(&row, 1.0, &mut found);
            found.push(bias);
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-4, "{found} is not {expected}");
            }
        }
    }
}
