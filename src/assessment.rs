//! One target's answer at one instant, and the snapshot that readers see.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::Score;
use crate::scoreboard::Summary;
use crate::time::Timestamp;
use crate::types::{RiskLevel, TargetId, TargetState};
use crate::window::Window;

#[derive(Clone, Debug)]
pub struct Assessment {
    pub target: TargetId,
    /// `targets.extra_labels` with their values, in config order.
    pub labels: Vec<(String, String)>,
    pub state: TargetState,
    /// Present exactly when `state` is [`TargetState::Ok`].
    pub risk: Option<Risk>,
}

#[derive(Clone, Debug)]
pub struct Risk {
    /// Calibrated, of the member that `model.serve` names.
    pub probability: f64,
    pub score: Score,
    pub level: RiskLevel,
    /// Strongest first; empty below the explanation threshold.
    pub reasons: Vec<Reason>,
}

/// Part of a score that one feature accounts for.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Reason {
    pub feature: String,
    /// The feature's value; `None` where it is missing.
    pub value: Option<f64>,
    /// In log-odds of the stack's score; positive raises the risk.
    pub contribution: f64,
}

/// What one cycle published. Readers share it; nobody changes it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Evaluation time of the cycle.
    pub at: Timestamp,
    /// Whether Prometheus answered; without it every target is stale.
    pub prometheus_up: bool,
    /// Ordered by target.
    pub assessments: Vec<Assessment>,
    pub windows: HashMap<TargetId, Arc<Window>>,
    pub scoreboard: Summary,
}
