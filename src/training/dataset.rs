//! The training matrix for other engines: every labelled row, and what each is for.

use super::sample::Slices;
use super::{Plan, Replay, TrainError};
use crate::labels::RowLabel;
use crate::time::Timestamp;
use crate::types::TargetId;

/// All labelled rows in time order.
pub struct Dataset<'a> {
    pub replay: &'a Replay,
    pub rows: Vec<DatasetRow>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DatasetRow {
    /// In the replay's features.
    pub row: usize,
    /// In the replay's targets.
    pub target: usize,
    pub time: Timestamp,
    pub label: bool,
    /// fit, calibrate, test, or embargo for what lies between.
    pub slice: &'static str,
    /// Of `fit`: the class weight, 1 on average. Else 1: there the base rate must be the true one.
    pub weight: f32,
}

impl<'a> Dataset<'a> {
    pub fn new(replay: &'a Replay, plan: &Plan) -> Result<Self, TrainError> {
        if replay.features.rows() == 0 {
            return Err(TrainError::NoTargets);
        }
        let slices = Slices::new(replay.steps, plan)?;
        let mut rows: Vec<DatasetRow> = Vec::new();
        for i in 0..replay.steps {
            for (order, target) in replay.targets.iter().enumerate() {
                let label = match target.labels[i] {
                    RowLabel::Positive => true,
                    RowLabel::Negative => false,
                    RowLabel::Uncertain | RowLabel::Excluded | RowLabel::Censored => continue,
                };
                if let Some(row) = target.rows[i] {
                    rows.push(DatasetRow {
                        row,
                        target: order,
                        time: replay.time(i),
                        label,
                        slice: slices.name(i),
                        weight: 1.0,
                    });
                }
            }
        }
        weigh(&mut rows, plan);
        Ok(Self { replay, rows })
    }

    pub fn target(&self, row: &DatasetRow) -> &TargetId {
        &self.replay.targets[row.target].target
    }

    pub fn features(&self, row: &DatasetRow) -> &[f32] {
        self.replay.features.row(row.row)
    }
}

/// Sets the weights of the rows to fit as the tree members' are.
fn weigh(rows: &mut [DatasetRow], plan: &Plan) {
    let fit = || rows.iter().filter(|row| row.slice == "fit");
    let total = fit().count() as f64;
    let positive = fit().filter(|row| row.label).count() as f64;
    let negative = total - positive;
    // Of one class alone none weighs more.
    if positive == 0.0 || negative == 0.0 {
        return;
    }
    let ratio = plan.fit.imbalance.ratio(positive, negative);
    let scale = total / (positive * ratio + negative);
    for row in rows.iter_mut().filter(|row| row.slice == "fit") {
        row.weight = (if row.label { scale * ratio } else { scale }) as f32;
    }
}
