//! Which columns a tree may split on, when it is to see only some of the signals.
//!
//! A tree that sees all signals splits on the strongest first and never asks the others about rows
//! that look healthy there. Trees that see only some (random subspaces, Ho 1998, drawn by signal
//! instead of by column) learn what each signal says by itself: that carries over to failures that
//! show in a combination of signals that no training failure had, and to signals that go missing.

use std::collections::BTreeSet;

use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;

use super::bins::Bins;

pub struct Subspace<'a> {
    /// Signals that each column is computed from.
    inputs: &'a [Vec<usize>],
    usable: Vec<usize>,
    signals: Vec<usize>,
    seen: usize,
}

impl<'a> Subspace<'a> {
    /// Each tree sees this share of the signals that have a usable column, one at least.
    pub fn new(bins: &Bins, inputs: &'a [Vec<usize>], share: f64) -> Self {
        let usable = bins.usable();
        let signals: BTreeSet<usize> = usable
            .iter()
            .flat_map(|column| inputs[*column].iter().copied())
            .collect();
        Self {
            inputs,
            usable,
            seen: ((share * signals.len() as f64).round() as usize).clamp(1, signals.len().max(1)),
            signals: signals.into_iter().collect(),
        }
    }

    /// The columns that are computed from no signal: the calendar.
    pub fn without_signals(bins: &Bins, inputs: &'a [Vec<usize>]) -> Self {
        let mut usable = bins.usable();
        usable.retain(|column| inputs[*column].is_empty());
        Self {
            inputs,
            usable,
            signals: Vec::new(),
            seen: 1,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.usable.is_empty()
    }

    /// Columns for a tree: those computed from the drawn signals alone, and those of no signal.
    pub fn draw(&self, rng: &mut ChaCha8Rng) -> Vec<usize> {
        if self.seen >= self.signals.len() {
            return self.usable.clone();
        }
        let seen: BTreeSet<usize> = index::sample(rng, self.signals.len(), self.seen)
            .iter()
            .map(|i| self.signals[i])
            .collect();
        self.usable
            .iter()
            .copied()
            .filter(|column| self.inputs[*column].iter().all(|s| seen.contains(s)))
            .collect()
    }
}

/// The random stream of one tree.
pub fn stream(seed: u64, tree: usize) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(tree as u64);
    rng
}
