//! Sums of decision trees: how they are stored, scored, explained and grown.

use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::bins::{Bins, Column, MISSING};

/// Columns that a node can name.
pub const MAX_COLUMNS: usize = 1 << 12;
/// Nodes of one tree: the distance to a child must fit into a node.
pub const MAX_NODES: usize = 1 << 19;
/// Least gain of a split; the value that XGBoost uses against rounding noise.
const MIN_GAIN: f64 = 1e-6;
/// Rows, or trees, that are followed in lockstep: hides the latency of memory.
pub const LANES: usize = 16;

/// Eight bytes: `word` is the distance to the left child (19 bits; 0 in a leaf;
/// the right child comes next), the default direction (1 bit) and the column (12 bits).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Node {
    /// `x < threshold` goes left; in a leaf its value.
    pub threshold: f32,
    word: u32,
}

impl Node {
    fn leaf(value: f32) -> Self {
        Self {
            threshold: value,
            word: 0,
        }
    }

    fn split(column: usize, threshold: f32, default_left: bool, distance: usize) -> Self {
        debug_assert!(column < MAX_COLUMNS && (1..MAX_NODES).contains(&distance));
        Self {
            threshold,
            word: (distance as u32) << 13 | u32::from(default_left) << 12 | column as u32,
        }
    }

    pub fn column(self) -> usize {
        (self.word & 0xfff) as usize
    }

    pub fn default_left(self) -> bool {
        self.word & 0x1000 != 0
    }

    pub fn is_leaf(self) -> bool {
        self.word < 0x2000
    }

    /// Steps from this node to the next for the value `x`; 0 in a leaf.
    fn step(self, x: f32) -> usize {
        let right = (x >= self.threshold) | (x.is_nan() & !self.default_left());
        ((self.word >> 13) + u32::from(right & !self.is_leaf())) as usize
    }
}

/// Trees whose leaf values are added up. Nodes of tree `i` start at `roots[i]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trees {
    pub roots: Vec<usize>,
    pub nodes: Vec<Node>,
    /// Leaf value, or the cover-weighted mean of the leaves below: what a path contribution is measured against.
    pub values: Vec<f32>,
    /// Sum of hessians, or of weights, of the rows that came by.
    pub covers: Vec<f32>,
    /// Loss reduction of the split; 0 in a leaf.
    pub gains: Vec<f32>,
}

impl Trees {
    /// Opens a tree with a single leaf and returns its root.
    pub fn plant(&mut self) -> usize {
        let root = self.nodes.len();
        self.roots.push(root);
        self.push_leaf();
        root
    }

    /// Gives back what room there is for more trees.
    pub fn shrink(&mut self) {
        self.nodes.shrink_to_fit();
        for numbers in [&mut self.values, &mut self.covers, &mut self.gains] {
            numbers.shrink_to_fit();
        }
    }

    fn push_leaf(&mut self) {
        self.nodes.push(Node::leaf(0.0));
        self.values.push(0.0);
        self.covers.push(0.0);
        self.gains.push(0.0);
    }

    pub fn set_leaf(&mut self, node: usize, value: f32, cover: f32) {
        self.nodes[node] = Node::leaf(value);
        self.covers[node] = cover;
    }

    /// Turns a leaf of the last tree into a split and returns its left child.
    pub fn set_split(&mut self, node: usize, split: Split, cover: f32) -> usize {
        let left = self.nodes.len();
        let Split {
            column,
            threshold,
            default_left,
            gain,
        } = split;
        self.nodes[node] = Node::split(column, threshold, default_left, left - node);
        self.covers[node] = cover;
        self.gains[node] = gain;
        self.push_leaf();
        self.push_leaf();
        left
    }

    /// Whether the last tree can take another split.
    pub fn has_room(&self) -> bool {
        let root = self.roots.last().copied().unwrap_or(0);
        self.nodes.len() - root + 2 < MAX_NODES
    }

    pub fn left(&self, node: usize) -> usize {
        node + (self.nodes[node].word >> 13) as usize
    }

    /// The child of a split that a row goes to.
    pub fn next(&self, node: usize, row: &[f32]) -> usize {
        node + self.nodes[node].step(row[self.nodes[node].column()])
    }

    /// Nodes of tree `index`.
    pub fn span(&self, index: usize) -> std::ops::Range<usize> {
        self.roots[index]
            ..self
                .roots
                .get(index + 1)
                .copied()
                .unwrap_or(self.nodes.len())
    }

    /// Keeps the first `count` trees.
    pub fn truncate(&mut self, count: usize) {
        let Some(end) = self.roots.get(count).copied() else {
            return;
        };
        self.roots.truncate(count);
        self.nodes.truncate(end);
        self.values.truncate(end);
        self.covers.truncate(end);
        self.gains.truncate(end);
    }

    /// Computes the value of every node from `first` on; children come after their parent.
    pub fn fill_values(&mut self, first: usize) {
        for node in (first..self.nodes.len()).rev() {
            self.values[node] = if self.nodes[node].is_leaf() {
                self.nodes[node].threshold
            } else {
                let left = self.left(node);
                let (a, b) = (
                    f64::from(self.values[left]),
                    f64::from(self.values[left + 1]),
                );
                let (m, n) = (
                    f64::from(self.covers[left]),
                    f64::from(self.covers[left + 1]),
                );
                let mean = if m + n > 0.0 {
                    (a * m + b * n) / (m + n)
                } else {
                    (a + b) / 2.0
                };
                mean as f32
            };
        }
    }

    /// Changes all leaf values.
    pub fn map_leaves(&mut self, change: impl Fn(f32) -> f32) {
        for node in self.nodes.iter_mut().filter(|node| node.is_leaf()) {
            node.threshold = change(node.threshold);
        }
        self.fill_values(0);
    }

    pub fn append(&mut self, other: Trees) {
        let base = self.nodes.len();
        self.roots
            .extend(other.roots.iter().map(|root| root + base));
        self.nodes.extend(other.nodes);
        self.values.extend(other.values);
        self.covers.extend(other.covers);
        self.gains.extend(other.gains);
    }

    /// Follows `LANES` paths at once until all have reached their leaves.
    fn descend(&self, at: &mut [usize; LANES], value: impl Fn(usize, usize) -> f32) {
        loop {
            let mut moved = 0;
            for (lane, at) in at.iter_mut().enumerate() {
                let node = self.nodes[*at];
                let step = node.step(value(lane, node.column()));
                *at += step;
                moved |= step;
            }
            if moved == 0 {
                return;
            }
        }
    }

    /// The leaf that a row reaches from `node`.
    pub fn leaf(&self, mut node: usize, row: &[f32]) -> usize {
        while !self.nodes[node].is_leaf() {
            node += self.nodes[node].step(row[self.nodes[node].column()]);
        }
        node
    }

    /// `start` plus the leaf values of one row, added in the order of the trees.
    pub fn sum(&self, start: f64, row: &[f32]) -> f64 {
        let mut sum = start;
        let (groups, rest) = self.roots.as_chunks::<LANES>();
        for group in groups {
            let mut at = *group;
            self.descend(&mut at, |_, column| row[column]);
            for leaf in at {
                sum += f64::from(self.nodes[leaf].threshold);
            }
        }
        for root in rest {
            sum += f64::from(self.nodes[self.leaf(*root, row)].threshold);
        }
        sum
    }

    /// Adds each row's leaf values to its sum, bit for bit as `sum` does; `rows` is row-major.
    pub fn add_sums(&self, rows: &[f32], columns: usize, sums: &mut [f64]) {
        for root in &self.roots {
            let blocks = rows.chunks_exact(LANES * columns);
            let mut groups = sums.chunks_exact_mut(LANES);
            let rest = blocks.remainder();
            for (block, sums) in blocks.zip(groups.by_ref()) {
                let mut at = [*root; LANES];
                self.descend(&mut at, |lane, column| block[lane * columns + column]);
                for (sum, leaf) in sums.iter_mut().zip(at) {
                    *sum += f64::from(self.nodes[leaf].threshold);
                }
            }
            for (sum, row) in groups
                .into_remainder()
                .iter_mut()
                .zip(rest.chunks_exact(columns))
            {
                *sum += f64::from(self.nodes[self.leaf(*root, row)].threshold);
            }
        }
    }

    /// Adds the change of the node value at every step of the row's paths to the
    /// column that was asked there; returns the sum of the root values.
    pub fn explain(&self, row: &[f32], scale: f64, contributions: &mut [f64]) -> f64 {
        let mut bias = 0.0;
        for root in &self.roots {
            let mut at = *root;
            bias += f64::from(self.values[at]);
            while !self.nodes[at].is_leaf() {
                let column = self.nodes[at].column();
                let next = at + self.nodes[at].step(row[column]);
                contributions[column] +=
                    scale * (f64::from(self.values[next]) - f64::from(self.values[at]));
                at = next;
            }
        }
        scale * bias
    }

    /// Gain per column as a share of all gain; zeros when nothing was split.
    pub fn importance(&self, columns: usize) -> Vec<f64> {
        let mut gains = vec![0.0; columns];
        for (node, gain) in self.nodes.iter().zip(&self.gains) {
            if !node.is_leaf() {
                gains[node.column()] += f64::from(*gain);
            }
        }
        let total: f64 = gains.iter().sum();
        if total > 0.0 {
            gains.iter_mut().for_each(|gain| *gain /= total);
        }
        gains
    }
}

/// A split as it is stored in a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Split {
    pub column: usize,
    pub threshold: f32,
    pub default_left: bool,
    pub gain: f32,
}

/// What a tree may become. Rows carry `N` statistics: gradient, hessian and possibly a count.
pub struct Growth {
    pub max_depth: usize,
    /// L2 on leaf values.
    pub lambda: f64,
    /// Least sum of the last statistic on each side of a split.
    pub min_child: f64,
    /// Factor on leaf values.
    pub shrinkage: f64,
}

/// Which columns a node may split on.
pub enum Candidates<'a> {
    /// These, in all nodes; histograms of siblings are subtracted, the columns run in parallel.
    Columns(Vec<usize>),
    /// So many of these, drawn for each node.
    Drawn(Vec<usize>, usize, &'a mut ChaCha8Rng),
}

/// Rows of a tree under construction: a node owns a range of both.
pub struct Sample<const N: usize> {
    pub rows: Vec<u32>,
    pub stats: Vec<[f32; N]>,
}

/// A leaf and its range of the sample.
pub struct Leaf {
    pub node: usize,
    pub range: std::ops::Range<usize>,
}

type Histogram<const N: usize> = [[f64; N]; 256];

#[derive(Clone, Copy)]
struct Cut<const N: usize> {
    gain: f64,
    column: usize,
    index: usize,
    default_left: bool,
    left: [f64; N],
}

struct Open<const N: usize> {
    node: usize,
    depth: usize,
    range: std::ops::Range<usize>,
    total: [f64; N],
    cut: Option<Cut<N>>,
    /// One per candidate column; empty when columns are drawn or the node stays a leaf.
    histograms: Vec<Histogram<N>>,
}

impl Growth {
    /// Adds one tree to `trees` and says which rows of the sample (which it reorders) ended in which leaf.
    pub fn grow<const N: usize>(
        &self,
        trees: &mut Trees,
        bins: &Bins,
        sample: &mut Sample<N>,
        mut candidates: Candidates,
    ) -> Vec<Leaf> {
        let root = trees.plant();
        let mut total = [0.0; N];
        for stats in &sample.stats {
            add(&mut total, stats);
        }
        let mut first = self.open(root, 0, 0..sample.rows.len(), total);
        if self.may_split(&first) {
            match &mut candidates {
                Candidates::Columns(columns) => {
                    self.search_columns(bins, columns, sample, &mut first)
                }
                Candidates::Drawn(columns, count, rng) => {
                    first.cut = self.search_drawn(bins, sample, &first, columns, *count, rng)
                }
            }
        }
        let mut spare = Sample {
            rows: Vec::new(),
            stats: Vec::new(),
        };
        let mut leaves = Vec::new();
        let mut stack = vec![first];
        while let Some(open) = stack.pop() {
            let split_at = match open.cut {
                Some(cut) if trees.has_room() => partition(
                    &bins.columns[cut.column],
                    cut.index,
                    cut.default_left,
                    sample,
                    open.range.clone(),
                    &mut spare,
                ),
                _ => open.range.start,
            };
            let cut = match open.cut {
                Some(cut) if open.range.start < split_at && split_at < open.range.end => cut,
                _ => {
                    let (gradient, hessian) = (open.total[0], open.total[1]);
                    let value = -self.shrinkage * gradient / (hessian + self.lambda);
                    trees.set_leaf(
                        open.node,
                        if value.is_finite() { value as f32 } else { 0.0 },
                        hessian as f32,
                    );
                    leaves.push(Leaf {
                        node: open.node,
                        range: open.range,
                    });
                    continue;
                }
            };
            let split = Split {
                column: cut.column,
                threshold: bins.columns[cut.column].cuts[cut.index],
                default_left: cut.default_left,
                gain: cut.gain as f32,
            };
            let child = trees.set_split(open.node, split, open.total[1] as f32);
            let depth = open.depth + 1;
            let right_total = std::array::from_fn(|i| open.total[i] - cut.left[i]);
            let mut left = self.open(child, depth, open.range.start..split_at, cut.left);
            let mut right = self.open(child + 1, depth, split_at..open.range.end, right_total);
            match &mut candidates {
                Candidates::Columns(columns) if self.may_split(&left) || self.may_split(&right) => {
                    let parent = open.histograms;
                    self.search_siblings(bins, columns, sample, parent, &mut left, &mut right);
                }
                Candidates::Columns(_) => {}
                Candidates::Drawn(columns, count, rng) => {
                    for side in [&mut left, &mut right] {
                        if self.may_split(side) {
                            side.cut = self.search_drawn(bins, sample, side, columns, *count, rng);
                        }
                    }
                }
            }
            stack.push(right);
            stack.push(left);
        }
        trees.fill_values(root);
        leaves
    }

    fn open<const N: usize>(
        &self,
        node: usize,
        depth: usize,
        range: std::ops::Range<usize>,
        total: [f64; N],
    ) -> Open<N> {
        Open {
            node,
            depth,
            range,
            total,
            cut: None,
            histograms: Vec::new(),
        }
    }

    fn may_split<const N: usize>(&self, open: &Open<N>) -> bool {
        open.depth < self.max_depth
            && open.range.len() > 1
            && open.total[N - 1] >= 2.0 * self.min_child
    }

    fn search_columns<const N: usize>(
        &self,
        bins: &Bins,
        columns: &[usize],
        sample: &Sample<N>,
        open: &mut Open<N>,
    ) {
        open.histograms = vec![[[0.0; N]; 256]; columns.len()];
        let (range, total) = (&open.range, open.total);
        let cuts: Vec<_> = columns
            .par_iter()
            .zip(&mut open.histograms)
            .map(|(&column, histogram)| {
                let codes = &bins.columns[column];
                fill(codes, sample, range, histogram);
                self.best_cut(column, codes, histogram, total)
            })
            .collect();
        open.cut = best(cuts);
    }

    /// Counts the smaller sibling; the larger one is the parent's histogram less that.
    fn search_siblings<const N: usize>(
        &self,
        bins: &Bins,
        columns: &[usize],
        sample: &Sample<N>,
        mut parent: Vec<Histogram<N>>,
        left: &mut Open<N>,
        right: &mut Open<N>,
    ) {
        let (small, large) = if left.range.len() <= right.range.len() {
            (left, right)
        } else {
            (right, left)
        };
        let (search_small, search_large) = (self.may_split(small), self.may_split(large));
        let mut counted = vec![[[0.0; N]; 256]; columns.len()];
        let work = |((&column, whole), part): ((&usize, &mut Histogram<N>), &mut Histogram<N>)| {
            let codes = &bins.columns[column];
            fill(codes, sample, &small.range, part);
            for (whole, part) in whole.iter_mut().zip(part.iter()) {
                for i in 0..N {
                    whole[i] -= part[i];
                }
            }
            let cut = |search: bool, histogram: &_, total| {
                search
                    .then(|| self.best_cut(column, codes, histogram, total))
                    .flatten()
            };
            (
                cut(search_small, part, small.total),
                cut(search_large, whole, large.total),
            )
        };
        // Small nodes cost less than handing them to other threads.
        let (small_cuts, large_cuts): (Vec<_>, Vec<_>) =
            if small.range.len() * columns.len() < 1 << 16 {
                let pairs = columns.iter().zip(&mut parent).zip(&mut counted);
                pairs.map(work).unzip()
            } else {
                let pairs = columns.par_iter().zip(&mut parent).zip(&mut counted);
                pairs.map(work).unzip()
            };
        (small.cut, small.histograms) = (best(small_cuts), counted);
        (large.cut, large.histograms) = (best(large_cuts), parent);
    }

    fn search_drawn<const N: usize>(
        &self,
        bins: &Bins,
        sample: &Sample<N>,
        open: &Open<N>,
        usable: &[usize],
        count: usize,
        rng: &mut ChaCha8Rng,
    ) -> Option<Cut<N>> {
        let mut histogram = [[0.0; N]; 256];
        let mut columns: Vec<usize> = index::sample(rng, usable.len(), count.min(usable.len()))
            .iter()
            .map(|i| usable[i])
            .collect();
        columns.sort_unstable();
        best(columns.into_iter().map(|column| {
            let codes = &bins.columns[column];
            histogram[..=codes.cuts.len()].fill([0.0; N]);
            histogram[MISSING as usize] = [0.0; N];
            fill(codes, sample, &open.range, &mut histogram);
            self.best_cut(column, codes, &histogram, open.total)
        }))
    }

    fn best_cut<const N: usize>(
        &self,
        column: usize,
        codes: &Column,
        histogram: &Histogram<N>,
        total: [f64; N],
    ) -> Option<Cut<N>> {
        let score = |stats: &[f64; N]| stats[0] * stats[0] / (stats[1] + self.lambda);
        let whole = score(&total);
        let missing = histogram[MISSING as usize];
        let some_missing = missing[N - 1] > 0.0;
        let mut best: Option<Cut<N>> = None;
        let mut below = [0.0; N];
        for (index, bin) in histogram.iter().enumerate().take(codes.cuts.len()) {
            if bin[N - 1] == 0.0 {
                continue;
            }
            for i in 0..N {
                below[i] += bin[i];
            }
            for missing_left in [false, true] {
                if missing_left && !some_missing {
                    break;
                }
                let left: [f64; N] = std::array::from_fn(|i| {
                    if missing_left {
                        below[i] + missing[i]
                    } else {
                        below[i]
                    }
                });
                let right: [f64; N] = std::array::from_fn(|i| total[i] - left[i]);
                if left[N - 1] < self.min_child || right[N - 1] < self.min_child {
                    continue;
                }
                let gain = score(&left) + score(&right) - whole;
                if gain > best.map_or(MIN_GAIN, |best| best.gain) {
                    // A column without gaps here sends later gaps with the majority.
                    let default_left = if some_missing {
                        missing_left
                    } else {
                        left[1] >= right[1]
                    };
                    best = Some(Cut {
                        gain,
                        column,
                        index,
                        default_left,
                        left,
                    });
                }
            }
        }
        best
    }
}

fn add<const N: usize>(sum: &mut [f64; N], stats: &[f32; N]) {
    for i in 0..N {
        sum[i] += f64::from(stats[i]);
    }
}

fn fill<const N: usize>(
    column: &Column,
    sample: &Sample<N>,
    range: &std::ops::Range<usize>,
    histogram: &mut Histogram<N>,
) {
    for (row, stats) in sample.rows[range.clone()]
        .iter()
        .zip(&sample.stats[range.clone()])
    {
        add(&mut histogram[column.codes[*row as usize] as usize], stats);
    }
}

/// The first of the largest gains: the same on any number of threads.
fn best<const N: usize>(cuts: impl IntoIterator<Item = Option<Cut<N>>>) -> Option<Cut<N>> {
    cuts.into_iter()
        .flatten()
        .reduce(|best, cut| if cut.gain > best.gain { cut } else { best })
}

/// Moves the rows that go right behind those that go left, keeping their order; returns the border.
fn partition<const N: usize>(
    column: &Column,
    cut: usize,
    default_left: bool,
    sample: &mut Sample<N>,
    range: std::ops::Range<usize>,
    right: &mut Sample<N>,
) -> usize {
    right.rows.clear();
    right.stats.clear();
    let mut border = range.start;
    for i in range {
        let code = column.codes[sample.rows[i] as usize];
        if (code == MISSING && default_left) || (code as usize <= cut && code != MISSING) {
            sample.rows[border] = sample.rows[i];
            sample.stats[border] = sample.stats[i];
            border += 1;
        } else {
            right.rows.push(sample.rows[i]);
            right.stats.push(sample.stats[i]);
        }
    }
    sample.rows[border..][..right.rows.len()].copy_from_slice(&right.rows);
    sample.stats[border..][..right.stats.len()].copy_from_slice(&right.stats);
    border
}

#[cfg(test)]
pub(super) mod tests {
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::model::Matrix;

    pub const COLUMNS: usize = 5;

    pub fn random_trees(rng: &mut ChaCha8Rng, count: usize) -> Trees {
        let mut trees = Trees::default();
        for _ in 0..count {
            let root = trees.plant();
            let mut open = vec![root];
            while let Some(node) = open.pop() {
                if trees.nodes.len() - root < 60 && rng.random_bool(0.7) {
                    let split = Split {
                        column: rng.random_range(0..COLUMNS),
                        threshold: rng.random_range(-3..3) as f32,
                        default_left: rng.random(),
                        gain: rng.random(),
                    };
                    let left = trees.set_split(node, split, 1.0);
                    open.extend([left, left + 1]);
                } else {
                    trees.set_leaf(
                        node,
                        rng.random_range(-1.0..1.0),
                        rng.random_range(0.0..9.0),
                    );
                }
            }
            trees.fill_values(root);
        }
        trees
    }

    pub fn random_rows(rng: &mut ChaCha8Rng, rows: usize) -> Matrix {
        let value = |rng: &mut ChaCha8Rng| match rng.random_range(0..8) {
            0 => f32::NAN,
            1 => f32::INFINITY,
            2 => f32::NEG_INFINITY,
            3 => -0.0,
            _ => rng.random_range(-3..3) as f32,
        };
        let data = (0..rows * COLUMNS).map(|_| value(rng)).collect();
        Matrix {
            columns: COLUMNS,
            data,
        }
    }

    /// What a tree means, written down as plainly as possible.
    pub fn slow_leaf_value(trees: &Trees, node: usize, row: &[f32]) -> f32 {
        let here = trees.nodes[node];
        if here.is_leaf() {
            return here.threshold;
        }
        let x = row[here.column()];
        let goes_left = if x.is_nan() {
            here.default_left()
        } else {
            x < here.threshold
        };
        slow_leaf_value(
            trees,
            if goes_left {
                trees.left(node)
            } else {
                trees.left(node) + 1
            },
            row,
        )
    }

    #[test]
    fn fast_sums_equal_the_slow_ones_bit_for_bit() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for (count, rows) in [(0, 3), (1, 1), (7, 40), (16, 16), (37, 33)] {
            let trees = random_trees(&mut rng, count);
            let rows = random_rows(&mut rng, rows);
            let mut sums = vec![0.25; rows.rows()];
            trees.add_sums(&rows.data, COLUMNS, &mut sums);
            for (i, sum) in sums.iter().enumerate() {
                let slow = trees.roots.iter().fold(0.25, |sum, root| {
                    sum + f64::from(slow_leaf_value(&trees, *root, rows.row(i)))
                });
                assert_eq!(slow.to_bits(), sum.to_bits());
                assert_eq!(slow.to_bits(), trees.sum(0.25, rows.row(i)).to_bits());
            }
        }
    }

    #[test]
    fn path_contributions_add_up_to_the_sum() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let trees = random_trees(&mut rng, 20);
        let rows = random_rows(&mut rng, 30);
        for i in 0..rows.rows() {
            let mut contributions = [0.0; COLUMNS];
            let bias = trees.explain(rows.row(i), 2.0, &mut contributions);
            let sum = bias + contributions.iter().sum::<f64>();
            assert!((sum - 2.0 * trees.sum(0.0, rows.row(i))).abs() < 1e-9);
        }
    }

    #[test]
    fn a_root_has_the_mean_of_the_rows_that_were_fitted() {
        let (bins, mut sample) = fitted_rows();
        let growth = Growth {
            max_depth: 4,
            lambda: 0.0,
            min_child: 3.0,
            shrinkage: 1.0,
        };
        let target: f64 = sample.stats.iter().map(|[g, _, _]| f64::from(-g)).sum();
        let weight: f64 = sample.stats.iter().map(|[_, h, _]| f64::from(*h)).sum();
        let mut trees = Trees::default();
        let leaves = growth.grow(
            &mut trees,
            &bins,
            &mut sample,
            Candidates::Columns(bins.usable()),
        );
        assert!(leaves.len() > 4);
        assert!((f64::from(trees.values[0]) - target / weight).abs() < 1e-6);
        assert!((f64::from(trees.covers[0]) - weight).abs() < 1e-3);
        for leaf in leaves {
            assert!(leaf.range.len() >= 3);
        }
    }

    fn fitted_rows() -> (Bins, Sample<3>) {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let features = random_rows(&mut rng, 200);
        let rows: Vec<usize> = (0..200).collect();
        let bins = Bins::new(&features, &rows);
        let stats = (0..200)
            .map(|i| {
                let x = features.row(i);
                let target = u8::from((x[0] > 0.0) ^ (x[1] < 1.0) || x[2].is_nan());
                let weight = rng.random_range(0.5..2.0);
                [-weight * f32::from(target), weight, 1.0]
            })
            .collect();
        (
            bins,
            Sample {
                rows: (0..200).collect(),
                stats,
            },
        )
    }

    #[test]
    fn the_first_split_is_the_best_of_all_possible_ones() {
        let (bins, mut sample) = fitted_rows();
        let (lambda, min_child) = (0.7, 5.0);
        let side = |keep: &dyn Fn(u8) -> bool, column: usize| {
            let mut sum = [0.0; 3];
            for (row, stats) in sample.rows.iter().zip(&sample.stats) {
                if keep(bins.columns[column].codes[*row as usize]) {
                    add(&mut sum, stats);
                }
            }
            sum
        };
        let score = |[g, h, _]: [f64; 3]| g * g / (h + lambda);
        let mut best: (f64, usize, f32) = (0.0, 0, 0.0);
        for (column, codes) in bins.columns.iter().enumerate() {
            for (cut, threshold) in codes.cuts.iter().enumerate() {
                for missing_left in [false, true] {
                    let goes_left = |code: u8| {
                        if code == MISSING {
                            missing_left
                        } else {
                            code as usize <= cut
                        }
                    };
                    let (left, right) = (
                        side(&goes_left, column),
                        side(&|code| !goes_left(code), column),
                    );
                    let gain = score(left) + score(right) - score(side(&|_| true, column));
                    if left[2] >= min_child && right[2] >= min_child && gain > best.0 + 1e-9 {
                        best = (gain, column, *threshold);
                    }
                }
            }
        }
        let growth = Growth {
            max_depth: 1,
            lambda,
            min_child,
            shrinkage: 1.0,
        };
        let mut trees = Trees::default();
        growth.grow(
            &mut trees,
            &bins,
            &mut sample,
            Candidates::Columns(bins.usable()),
        );
        assert_eq!(
            (trees.nodes[0].column(), trees.nodes[0].threshold),
            (best.1, best.2)
        );
        assert!((f64::from(trees.gains[0]) - best.0).abs() < 1e-4);
    }

    #[test]
    fn drawing_all_columns_gives_the_tree_of_subtracted_histograms() {
        let (bins, sample) = fitted_rows();
        let growth = Growth {
            max_depth: 6,
            lambda: 0.0,
            min_child: 2.0,
            shrinkage: 1.0,
        };
        let grow = |candidates: Candidates| {
            let mut sample = Sample {
                rows: sample.rows.clone(),
                stats: sample.stats.clone(),
            };
            let mut trees = Trees::default();
            growth.grow(&mut trees, &bins, &mut sample, candidates);
            trees
        };
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let (all, drawn) = (
            grow(Candidates::Columns(bins.usable())),
            grow(Candidates::Drawn(bins.usable(), COLUMNS, &mut rng)),
        );
        assert!(all.nodes.len() > 10, "{}", all.nodes.len());
        assert_eq!(all.nodes.len(), drawn.nodes.len());
        for (a, b) in all.values.iter().zip(&drawn.values) {
            assert!((a - b).abs() < 1e-5);
        }
    }
}
