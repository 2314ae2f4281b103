//! Feature values as histogram bins of one byte, made once for all trees.

use std::collections::BTreeSet;

use rayon::prelude::*;

use super::{Matrix, sigmoid};

/// Code of a missing value.
pub const MISSING: u8 = 255;
/// Cuts of a column, besides the one between present and missing values: with both, codes end below [`MISSING`].
const MAX_CUTS: usize = 252;
/// Cuts are quantiles of at most this many evenly spaced rows.
const MAX_SAMPLE: usize = 100_000;

/// One column: a value's code is the number of cuts at or below it, so a split
/// at `cuts[j]` sends codes `0..=j`, that is `x < cuts[j]`, to the left.
#[derive(Clone)]
pub struct Column {
    pub cuts: Vec<f32>,
    /// One per row of the matrix.
    pub codes: Vec<u8>,
}

#[derive(Clone)]
pub struct Bins {
    pub columns: Vec<Column>,
}

impl Bins {
    /// The cuts come from `rows` only (the rows that may be fitted), the codes are those of all rows.
    pub fn new(features: &Matrix, rows: &[usize]) -> Self {
        let columns = (0..features.columns)
            .into_par_iter()
            .map(|column| {
                let value = |row: usize| features.data[row * features.columns + column];
                let cuts = cuts(rows, value);
                let codes = (0..features.rows())
                    .map(|row| code(&cuts, value(row)))
                    .collect();
                Column { cuts, codes }
            })
            .collect();
        Self { columns }
    }

    /// The same cuts for a matrix that has more rows at its end.
    pub fn extended(&self, features: &Matrix) -> Self {
        let columns = self.columns.par_iter().enumerate().map(|(column, old)| {
            let value = |row: usize| features.data[row * features.columns + column];
            let added = (old.codes.len()..features.rows()).map(|row| code(&old.cuts, value(row)));
            Column {
                cuts: old.cuts.clone(),
                codes: old.codes.iter().copied().chain(added).collect(),
            }
        });
        Self {
            columns: columns.collect(),
        }
    }

    /// Columns that a split can tell rows by.
    pub fn usable(&self) -> Vec<usize> {
        (0..self.columns.len())
            .filter(|column| !self.columns[*column].cuts.is_empty())
            .collect()
    }
}

fn code(cuts: &[f32], x: f32) -> u8 {
    if x.is_nan() {
        MISSING
    } else {
        cuts.partition_point(|cut| *cut <= x) as u8
    }
}

/// Half of the cuts lie at equal counts, half at equal steps of the logit of the rank: rare failures are told apart in the
/// tails, of which equal counts would make a few coarse bins.
fn cuts(rows: &[usize], value: impl Fn(usize) -> f32) -> Vec<f32> {
    let stride = rows.len().div_ceil(MAX_SAMPLE).max(1);
    let sample = || rows.iter().step_by(stride).map(|row| value(*row));
    let mut sorted: Vec<f32> = sample().filter(|x| x.is_finite()).collect();
    sorted.sort_unstable_by(f32::total_cmp);
    let runs: Vec<&[f32]> = sorted.chunk_by(|a, b| a == b).collect();

    // A value frequent enough to fill a bin gets one of its own, the others share what remains.
    let fills_a_bin = |run: &[f32]| run.len() >= sorted.len().div_ceil(MAX_CUTS / 2);
    let (frequent, others): (Vec<&[f32]>, Vec<&[f32]>) =
        runs.iter().partition(|run| fills_a_bin(run));
    let ranks = ranks(
        others.iter().map(|run| run.len()).sum(),
        MAX_CUTS.saturating_sub(2 * frequent.len()) / 2,
    );
    let mut cuts = Vec::new();
    let mut passed = 0;
    for (i, run) in runs.iter().enumerate() {
        let before = passed;
        if !fills_a_bin(run) {
            passed += run.len();
        }
        let Some(last) = i.checked_sub(1).map(|last| runs[last]) else {
            continue;
        };
        if runs.len() <= MAX_CUTS + 1
            || fills_a_bin(last)
            || fills_a_bin(run)
            || ranks.range(before..passed).next().is_some()
        {
            cuts.push(between(last[0], run[0]));
        }
    }
    if !sorted.is_empty() && sample().any(f32::is_nan) {
        // Lets a split separate "present" from "missing".
        cuts.push(f32::MAX);
    }
    cuts
}

/// Of `count` sorted rows, `levels` at equal distances and as many at equal distances of the logit.
fn ranks(count: usize, levels: usize) -> BTreeSet<usize> {
    let reach = (count as f64).max(1.0).ln();
    (1..=levels)
        .map(|level| level as f64 / (levels + 1) as f64)
        .flat_map(|share| [share, sigmoid(reach * (2.0 * share - 1.0))])
        .map(|share| (share * count as f64) as usize)
        .collect()
}

/// A threshold with `low < threshold <= high`.
fn between(low: f32, high: f32) -> f32 {
    let middle = low + (high - low) / 2.0;
    if middle > low && middle <= high {
        middle
    } else {
        high
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bin(values: &[f32]) -> Column {
        let features = Matrix {
            columns: 1,
            data: values.to_vec(),
        };
        let rows: Vec<usize> = (0..values.len()).collect();
        Bins::new(&features, &rows).columns.remove(0)
    }

    #[test]
    fn codes_agree_with_thresholds_on_every_value() {
        let mut values: Vec<f32> = (0..3000)
            .map(|i| ((i * 7919) % 1000) as f32 / 7.0)
            .collect();
        values.extend([
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            1.0e-45,
            -0.0,
            0.0,
        ]);
        values.extend([5.0; 2000]);
        let column = bin(&values);
        assert!(column.cuts.len() <= MAX_CUTS + 1, "{}", column.cuts.len());
        assert!(column.cuts.len() > 200, "{}", column.cuts.len());
        assert!(column.cuts.is_sorted());
        for (x, code) in values.iter().zip(&column.codes) {
            for (j, cut) in column.cuts.iter().enumerate() {
                assert_eq!(*code as usize <= j, *x < *cut, "value {x}, cut {cut}");
            }
        }
    }

    #[test]
    fn distinct_values_have_bins_of_their_own() {
        assert_eq!(bin(&[1.0, 2.0, 2.0, 4.0]).cuts, [1.5, 3.0]);
        assert_eq!(bin(&[1.0, f32::NAN]).cuts, [f32::MAX]);
        assert!(bin(&[3.0; 9]).cuts.is_empty());
        assert!(bin(&[f32::NAN; 9]).cuts.is_empty());
        let close = f32::from_bits(1.0f32.to_bits() + 1);
        assert_eq!(bin(&[1.0, close]).cuts, [close]);
        let many: Vec<f32> = (0..253).map(|i| i as f32).collect();
        assert_eq!(bin(&many).cuts.len(), 252);
    }

    #[test]
    fn tails_have_bins_of_their_own() {
        let values: Vec<f32> = (0..100_000).map(|i| i as f32).collect();
        let cuts = bin(&values).cuts;
        let within =
            |range: std::ops::Range<f32>| cuts.iter().filter(|c| range.contains(c)).count();
        assert!(within(0.0..100.0) > 20 && within(99_900.0..100_000.0) > 20);
        assert!(within(40_000.0..60_000.0) > 20);
    }

    #[test]
    fn a_frequent_value_does_not_swallow_its_neighbours() {
        let mut values = vec![0.0; 10_000];
        values.extend((1..=1000).map(|i| i as f32));
        let column = bin(&values);
        assert_eq!(column.cuts[0], 0.5);
        assert!(column.cuts.len() > 200, "{}", column.cuts.len());
    }
}
