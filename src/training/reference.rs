//! What the training rows were like, for the drift of what is scored later.

use std::ops::Range;

use super::{Plan, Replay};
use crate::drift::Reference;

impl Replay {
    /// Of the labelled rows before the grid point `until`. Left out are the clock, which no window of a day has as
    /// the training range had it, and the columns that are hidden from the model.
    pub(super) fn reference(&self, plan: &Plan, until: usize, hidden: &[usize]) -> Reference {
        let catalogue = &plan.catalogue;
        let columns: Vec<usize> = (0..catalogue.len())
            .filter(|column| !catalogue.inputs_of(*column).is_empty() && !hidden.contains(column))
            .collect();
        let labelled = self.labelled(0, until, &|_| true);
        let rows: Vec<usize> = labelled.into_iter().map(|(row, _)| row).collect();
        let index = self.grid_indices();
        let place = |step: usize| rows.partition_point(|row| index[*row] < step);
        let day = (86_400_000 / self.step.as_millis().max(1)).max(1) as usize;
        // Before that the baselines are not whole.
        let full_from = catalogue.reach();
        let days: Vec<Range<usize>> = (full_from..until)
            .step_by(day)
            .filter(|start| start + day <= until)
            .map(|start| place(start)..place(start + day))
            .collect();
        Reference::new(&self.features, &catalogue.names(), &columns, &rows, &days)
    }
}
