//! The tree members as they are scored: four bytes a node and rows as codes of one byte a value, so that a
//! whole forest stays in the caches. Answers are bit for bit those of [`Trees`].
//!
//! All that a tree asks of a value is on which side of a threshold it lies. Its rank among the thresholds
//! that the trees have for its column says the same; trees that are grown here have at most 254 of them.

use super::tree::{LANES, Trees};

/// Two codes for each column: where a missing value is to go left, and where it is to go right.
type Codes = [u8; 2 * MAX_COLUMNS];
const MAX_COLUMNS: usize = 128;
/// No rank is above it, so that a leaf never sends a row on.
const LEAF: u8 = u8::MAX;
/// So many rows' codes and a tree fit into the first cache.
pub const BLOCK: usize = 128;

/// Trees of several members that see the same rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Packed {
    /// Thresholds of each column, ascending.
    cuts: Vec<Vec<f32>>,
    members: Vec<Member>,
}

#[derive(Clone, Debug, PartialEq)]
struct Member {
    /// Distance to the left child (16 bits, 0 in a leaf; the right child comes next), code of the row to look at
    /// (8 bits), rank of the threshold (8 bits): what is ranked above it goes right.
    nodes: Vec<u32>,
    /// Value of each node, as in [`Trees`].
    values: Vec<f32>,
    trees: Vec<Tree>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Tree {
    root: u32,
    /// Steps to the farthest leaf.
    depth: u32,
}

impl Packed {
    /// `None` when there are more columns, thresholds or nodes than this form can tell apart.
    pub fn new(members: &[&Trees], columns: usize) -> Option<Self> {
        if columns > MAX_COLUMNS {
            return None;
        }
        let mut cuts = vec![Vec::new(); columns];
        for trees in members {
            collect_cuts(trees, &mut cuts)?;
        }
        let members: Option<Vec<Member>> = members
            .iter()
            .map(|trees| Member::new(trees, &cuts))
            .collect();
        Some(Self {
            members: members?,
            cuts,
        })
    }

    /// A row, as all members see it.
    pub fn encode(&self, row: &[f32]) -> Encoded {
        let mut codes = [0; 2 * MAX_COLUMNS];
        self.write_codes(row, &mut codes);
        Encoded(codes)
    }

    fn write_codes(&self, row: &[f32], codes: &mut Codes) {
        let (codes, _) = codes.as_chunks_mut::<2>();
        for ((cuts, x), codes) in self.cuts.iter().zip(row).zip(codes) {
            let rank = rank(cuts, |cut| cut <= *x);
            *codes = [rank, if x.is_nan() { u8::MAX } else { rank }];
        }
    }

    /// `start` plus the leaf values of a member, added in the order of its trees.
    pub fn sum(&self, member: usize, start: f64, row: &Encoded) -> f64 {
        let member = &self.members[member];
        let mut sum = start;
        for group in member.trees.chunks(LANES) {
            let (mut at, depth) = member.start_of(group);
            for _ in 0..depth {
                for at in &mut at {
                    *at += step(member.nodes[*at as usize], &row.0);
                }
            }
            for at in &at[..group.len()] {
                sum += f64::from(member.values[*at as usize]);
            }
        }
        sum
    }

    /// [`Packed::encode`] of each row; `rows` is row-major. Blocks of [`BLOCK`] rows go fastest through the trees.
    pub fn encode_rows(&self, rows: &[f32]) -> EncodedRows {
        let rows = rows.chunks_exact(self.cuts.len());
        let count = rows.len();
        let mut codes = vec![[0; 2 * MAX_COLUMNS]; count.next_multiple_of(LANES)];
        for (row, codes) in rows.zip(&mut codes) {
            self.write_codes(row, codes);
        }
        EncodedRows { codes, count }
    }

    /// What [`Packed::sum`] gives for each row.
    pub fn sums(&self, member: usize, start: f64, rows: &EncodedRows) -> Vec<f64> {
        let member = &self.members[member];
        let mut sums = vec![start; rows.codes.len()];
        let (groups, _) = rows.codes.as_chunks::<LANES>();
        for tree in &member.trees {
            let nodes = &member.nodes[tree.root as usize..];
            let values = &member.values[tree.root as usize..];
            for (codes, sums) in groups.iter().zip(sums.as_chunks_mut::<LANES>().0) {
                let mut at = [0; LANES];
                for _ in 0..tree.depth {
                    for (at, codes) in at.iter_mut().zip(codes) {
                        *at += step(nodes[*at as usize], codes);
                    }
                }
                for (sum, at) in sums.iter_mut().zip(at) {
                    *sum += f64::from(values[at as usize]);
                }
            }
        }
        sums.truncate(rows.count);
        sums
    }

    /// What [`Trees::explain`] gives, up to rounding.
    pub fn explain(
        &self,
        member: usize,
        row: &Encoded,
        scale: f64,
        contributions: &mut [f64],
    ) -> f64 {
        let member = &self.members[member];
        let mut bias = 0.0;
        let mut changes = [0.0; 2 * MAX_COLUMNS];
        for group in member.trees.chunks(LANES) {
            let (mut at, depth) = member.start_of(group);
            let mut values = at.map(|at| member.values[at as usize]);
            bias += values[..group.len()]
                .iter()
                .map(|v| f64::from(*v))
                .sum::<f64>();
            for _ in 0..depth {
                for (at, value) in std::iter::zip(&mut at, &mut values) {
                    let node = member.nodes[*at as usize];
                    *at += step(node, &row.0);
                    let next = member.values[*at as usize];
                    changes[usize::from(code_of(node))] += f64::from(next) - f64::from(*value);
                    *value = next;
                }
            }
        }
        for (change, contribution) in changes.as_chunks::<2>().0.iter().zip(contributions) {
            *contribution += scale * (change[0] + change[1]);
        }
        scale * bias
    }
}

/// See [`Packed::encode`].
pub struct Encoded(Codes);

/// See [`Packed::encode_rows`].
pub struct EncodedRows {
    /// As many as fill the last group of lanes.
    codes: Vec<Codes>,
    count: usize,
}

impl Member {
    fn new(trees: &Trees, cuts: &[Vec<f32>]) -> Option<Self> {
        let pack = |node: usize| {
            let split = trees.nodes[node];
            if split.is_leaf() {
                return Some(u32::from(LEAF));
            }
            let distance = u16::try_from(trees.left(node) - node).ok()?;
            let code = 2 * split.column() + usize::from(!split.default_left());
            let rank = rank(&cuts[split.column()], |cut| cut < split.threshold);
            Some(u32::from(distance) << 16 | (code as u32) << 8 | u32::from(rank))
        };
        let nodes: Option<Vec<u32>> = (0..trees.nodes.len()).map(pack).collect();
        // Children come after their parent.
        let mut depths = vec![0; trees.nodes.len()];
        let deepest = |tree: usize| {
            let mut deepest = 0;
            for node in trees.span(tree) {
                deepest = deepest.max(depths[node]);
                if !trees.nodes[node].is_leaf() {
                    let left = trees.left(node);
                    depths[left] = depths[node] + 1;
                    depths[left + 1] = depths[node] + 1;
                }
            }
            deepest
        };
        let depths: Vec<u32> = (0..trees.roots.len()).map(deepest).collect();
        let root = |root: &usize| u32::try_from(*root).ok();
        let roots: Option<Vec<u32>> = trees.roots.iter().map(root).collect();
        Some(Self {
            nodes: nodes?,
            values: trees.values.clone(),
            trees: std::iter::zip(roots?, depths)
                .map(|(root, depth)| Tree { root, depth })
                .collect(),
        })
    }

    /// The roots of up to `LANES` trees, and how far to go. Further lanes start in a leaf, where they stay.
    fn start_of(&self, group: &[Tree]) -> ([u32; LANES], u32) {
        let last = self.nodes.len() as u32 - 1;
        let at = std::array::from_fn(|lane| group.get(lane).map_or(last, |tree| tree.root));
        (at, group.iter().map(|tree| tree.depth).max().unwrap_or(0))
    }
}

/// Adds the thresholds of all splits to those of their columns; `None` when there are too many, or one is no number.
fn collect_cuts(trees: &Trees, cuts: &mut [Vec<f32>]) -> Option<()> {
    for node in trees.nodes.iter().filter(|node| !node.is_leaf()) {
        let cuts = cuts.get_mut(node.column())?;
        let at = cuts.partition_point(|cut| *cut < node.threshold);
        if cuts.get(at) != Some(&node.threshold) {
            if cuts.len() == usize::from(LEAF) || node.threshold.is_nan() {
                return None;
            }
            cuts.insert(at, node.threshold);
        }
    }
    Some(())
}

/// How many of the ascending cuts are below; there are at most 255.
fn rank(cuts: &[f32], is_below: impl Fn(f32) -> bool) -> u8 {
    cuts.partition_point(|cut| is_below(*cut)) as u8
}

fn code_of(node: u32) -> u8 {
    (node >> 8) as u8
}

/// Steps from a node to the next; 0 in a leaf.
fn step(node: u32, codes: &Codes) -> u32 {
    let is_right = codes[usize::from(code_of(node))] > node as u8;
    (node >> 16) + u32::from(is_right)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::model::tree::Split;
    use crate::model::tree::tests::{COLUMNS, random_rows, random_trees, slow_leaf_value};

    #[test]
    fn packed_sums_equal_the_slow_ones_bit_for_bit() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for (count, rows) in [(0, 3), (1, 1), (7, 40), (16, 16), (37, 300)] {
            let members = [random_trees(&mut rng, count), random_trees(&mut rng, 3)];
            let rows = random_rows(&mut rng, rows);
            let packed = Packed::new(&members.each_ref(), COLUMNS).unwrap();
            let encoded = packed.encode_rows(&rows.data);
            for (n, trees) in members.iter().enumerate() {
                let sums = packed.sums(n, 0.25, &encoded);
                assert_eq!(sums.len(), rows.rows());
                for (i, sum) in sums.iter().enumerate() {
                    let row = rows.row(i);
                    let slow = trees.roots.iter().fold(0.25, |sum, root| {
                        sum + f64::from(slow_leaf_value(trees, *root, row))
                    });
                    let one = packed.sum(n, 0.25, &packed.encode(row));
                    assert_eq!(slow.to_bits(), one.to_bits());
                    assert_eq!(slow.to_bits(), sum.to_bits());
                }
            }
        }
    }

    #[test]
    fn packed_contributions_are_those_of_the_trees() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let trees = random_trees(&mut rng, 37);
        let rows = random_rows(&mut rng, 30);
        let packed = Packed::new(&[&trees], COLUMNS).unwrap();
        for i in 0..rows.rows() {
            let (mut own, mut theirs) = ([1.0; COLUMNS], [1.0; COLUMNS]);
            let row = packed.encode(rows.row(i));
            let bias = packed.explain(0, &row, 2.0, &mut own);
            let other = trees.explain(rows.row(i), 2.0, &mut theirs);
            assert!((bias - other).abs() < 1e-9);
            for (own, other) in own.iter().zip(theirs) {
                assert!((own - other).abs() < 1e-9);
            }
        }
    }

    /// One tree that asks for `x < n` for each n below `cuts`, the greatest first.
    fn ladder(cuts: usize) -> Trees {
        let mut trees = Trees::default();
        let mut node = trees.plant();
        for n in (0..cuts).rev() {
            let split = Split {
                column: 0,
                threshold: n as f32,
                default_left: n % 2 == 0,
                gain: 1.0,
            };
            let left = trees.set_split(node, split, 1.0);
            trees.set_leaf(left + 1, n as f32, 1.0);
            node = left;
        }
        trees.set_leaf(node, -1.0, 1.0);
        trees.fill_values(0);
        trees
    }

    #[test]
    fn what_does_not_fit_is_not_packed() {
        let trees = ladder(255);
        let packed = Packed::new(&[&trees], MAX_COLUMNS).unwrap();
        let wide = |x: f32| [&[x][..], &[0.0; MAX_COLUMNS - 1]].concat();
        for x in (-1..257)
            .map(|x| x as f32 - 0.5)
            .chain([0.0, 254.0, f32::NAN])
        {
            let sum = packed.sum(0, 0.0, &packed.encode(&wide(x)));
            assert_eq!(sum, f64::from(slow_leaf_value(&trees, 0, &[x])), "{x}");
        }
        assert_eq!(Packed::new(&[&trees], MAX_COLUMNS + 1), None);
        assert_eq!(Packed::new(&[&ladder(256)], 1), None);
        // The right side of the first split lies behind the whole left one.
        let mut far = Trees::default();
        let root = far.plant();
        let split = |column, threshold| Split {
            column,
            threshold,
            default_left: true,
            gain: 1.0,
        };
        let mut open = VecDeque::from([far.set_split(root, split(0, 0.0), 1.0)]);
        let right = open[0] + 1;
        while far.nodes.len() < 70_000 {
            let node = open.pop_front().unwrap();
            let left = far.set_split(node, split(0, 1.0), 1.0);
            open.extend([left, left + 1]);
        }
        assert!(Packed::new(&[&far], 1).is_some());
        far.set_split(right, split(0, 2.0), 1.0);
        assert_eq!(Packed::new(&[&far], 1), None);
    }
}
