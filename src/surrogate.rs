//! A shallow tree that imitates the ensemble's alarms: a few readable rules for
//! the model card, not what is served.

use linfa::DatasetBase;
use linfa::traits::Fit;
use linfa_trees::{DecisionTree, TreeNode};
use ndarray::{Array1, Array2};

use crate::model::Matrix;

const MAX_ROWS: usize = 20_000;
const MAX_DEPTH: usize = 3;
/// A leaf holds at least this share of the weight.
const MIN_LEAF_SHARE: f32 = 0.005;

/// Rules that tell rows with a score of at least `threshold` from the others, as indented text.
///
/// Both kinds of rows weigh the same in the fit. `None` when the scores are all on one side.
pub fn rules(
    features: &Matrix,
    names: &[String],
    scores: &[f64],
    threshold: f64,
) -> Option<String> {
    let rows = sample(scores, threshold);
    let high: Vec<bool> = rows.iter().map(|&row| scores[row] >= threshold).collect();
    let alarms = high.iter().filter(|high| **high).count();
    if alarms == 0 || alarms == rows.len() {
        return None;
    }
    let medians: Vec<f32> = (0..features.columns)
        .map(|column| median(rows.iter().map(|&row| features.row(row)[column])))
        .collect();
    // linfa-trees cannot compare NaN.
    let value = |row: usize, column: usize| {
        let value = features.row(rows[row])[column];
        f64::from(if value.is_nan() {
            medians[column]
        } else {
            value
        })
    };
    let records = Array2::from_shape_fn((rows.len(), features.columns), |(r, c)| value(r, c));
    let share = |part: usize| 0.5 / part as f32;
    let weights = high.iter().map(|&high| match high {
        true => share(alarms),
        false => share(rows.len() - alarms),
    });
    let dataset = DatasetBase::new(records.clone(), Array1::from(high.clone()))
        .with_weights(Array1::from_iter(weights));
    let tree = DecisionTree::params()
        .max_depth(Some(MAX_DEPTH))
        .min_weight_leaf(MIN_LEAF_SHARE)
        .fit(&dataset)
        .ok()?;
    let mut text = String::new();
    let all: Vec<usize> = (0..rows.len()).collect();
    let branch = Branch {
        names,
        records: &records,
        high: &high,
    };
    branch.write(tree.root_node(), &all, 0, &mut text);
    Some(text)
}

/// Rows that stand for all: every alarm if they are rare, evenly spaced ones otherwise.
fn sample(scores: &[f64], threshold: f64) -> Vec<usize> {
    let spaced = |side: bool| {
        let rows: Vec<usize> = (0..scores.len())
            .filter(|&row| (scores[row] >= threshold) == side)
            .collect();
        let every = rows.len().div_ceil(MAX_ROWS / 2).max(1);
        rows.into_iter().step_by(every).collect::<Vec<_>>()
    };
    let mut rows = [spaced(true), spaced(false)].concat();
    rows.sort_unstable();
    rows
}

fn median(values: impl Iterator<Item = f32>) -> f32 {
    let mut present: Vec<f32> = values.filter(|v| !v.is_nan()).collect();
    present.sort_unstable_by(f32::total_cmp);
    present.get(present.len() / 2).copied().unwrap_or(0.0)
}

struct Branch<'a> {
    names: &'a [String],
    records: &'a Array2<f64>,
    high: &'a [bool],
}

impl Branch<'_> {
    fn write(&self, node: &TreeNode<f64, bool>, rows: &[usize], depth: usize, text: &mut String) {
        let indent = "  ".repeat(depth);
        let children = node.children();
        let (Some(Some(left)), Some(Some(right)), false) =
            (children.first(), children.get(1), node.is_leaf())
        else {
            let alarms = rows.iter().filter(|&&row| self.high[row]).count();
            let verdict = if node.prediction() == Some(true) {
                "alarm"
            } else {
                "no alarm"
            };
            text.push_str(&format!(
                "{indent}→ {verdict} ({alarms} of {} sampled rows are alarms)\n",
                rows.len()
            ));
            return;
        };
        let (column, value, _) = node.split();
        let (below, above): (Vec<usize>, Vec<usize>) = rows
            .iter()
            .partition(|&&row| self.records[(row, column)] < value);
        for (child, sign, rows) in [(left, "<", below), (right, "≥", above)] {
            text.push_str(&format!(
                "{indent}{} {sign} {value:.4}\n",
                self.names[column]
            ));
            self.write(child, &rows, depth + 1, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_behind_the_scores_is_found_in_spite_of_gaps() {
        let mut features = Matrix::new(2);
        let mut scores = Vec::new();
        for i in 0..4000 {
            let (noise, memory) = ((i * 37 % 101) as f32, (i % 100) as f32);
            features
                .data
                .extend([if i % 9 == 0 { f32::NAN } else { noise }, memory]);
            scores.push(if memory >= 96.0 { 0.9 } else { 0.01 });
        }
        let names = ["noise".to_string(), "memory_usage".to_string()];
        let text = rules(&features, &names, &scores, 0.5).unwrap();
        assert_eq!(
            text,
            "memory_usage < 95.5000\n  → no alarm (0 of 3840 sampled rows are alarms)\nmemory_usage ≥ 95.5000\n  → alarm (160 of 160 sampled rows are alarms)\n"
        );
        assert_eq!(rules(&features, &names, &scores, 0.95), None);
    }
}
