//! The second view: how well targets are scored that nothing was learned from.

use serde::Serialize;

use super::sample::{Sample, Slices};
use super::{Plan, Progress, Replay};
use crate::evaluation::{EnsembleReport, Rows};
use crate::model::{Ensemble, FitParams, Score};

/// Every so many-th target, in the order of names, is held out.
const EVERY: usize = 5;

/// A cold start: an ensemble fitted without some targets, judged on their rows of the test slice.
#[derive(Clone, Debug, Serialize)]
pub struct HeldOut {
    pub targets: Vec<String>,
    pub rows: usize,
    pub incidents: usize,
    pub ensemble: EnsembleReport,
    /// The ensemble that has learned from these targets too, on the same rows.
    pub familiar: EnsembleReport,
}

/// `None` with fewer than five targets, or where either part lacks failures.
pub(super) fn held_out(
    replay: &Replay,
    slices: &Slices,
    plan: &Plan,
    params: &FitParams,
    familiar: &[Score],
    progress: Progress,
) -> Option<HeldOut> {
    let is_out = |target: usize| target % EVERY == EVERY - 1;
    let columns: Vec<usize> = (0..plan.catalogue.len()).collect();
    let (rows, labels): (Vec<usize>, Vec<bool>) = replay
        .labelled(slices.test, replay.steps, &is_out)
        .into_iter()
        .unzip();
    if !labels.contains(&true) {
        return None;
    }
    let sample = Sample::draw(replay, slices, plan, &|target| !is_out(target));
    let stranger: Ensemble = sample
        .fit_full(replay, plan, params, &|stage, share| {
            progress(&format!("held-out targets: {stage}"), share)
        })
        .ok()?
        .ensemble;
    let scores = stranger.score_rows(&replay.features.select_rows(rows.iter().copied(), &columns));
    let report = |score: &dyn Fn(usize) -> f64| {
        let judged = labels.iter().enumerate();
        EnsembleReport::new(&Rows::new(judged.map(|(i, label)| (score(i), *label, 1.0))))
    };
    let out = || {
        let targets = replay.targets.iter().enumerate();
        targets
            .filter(|(i, _)| is_out(*i))
            .map(|(_, target)| target)
    };
    let tested = replay.time(slices.test);
    Some(HeldOut {
        targets: out().map(|target| target.target.to_string()).collect(),
        rows: rows.len(),
        incidents: out()
            .flat_map(|target| &target.incidents)
            .filter(|incident| incident.start > tested)
            .count(),
        ensemble: report(&|i| scores[i].ensemble),
        familiar: report(&|i| familiar[rows[i]].ensemble),
    })
}
