//! Every family that `/metrics` can have, with the labels that forewarn sets: what rules may use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::assessment::{Assessment, Live, Reason, Risk, ShadowBoard, Snapshot};
use crate::drift::{Drift, FeatureDrift};
use crate::metrics::{Format, Metrics, ModelCard};
use crate::model::Score;
use crate::scoreboard::Summary;
use crate::time::Timestamp;
use crate::types::{RiskLevel, Shard, TargetId, TargetState};

/// Labels whose values come from the config, the targets or the model; `job` stands for `targets.extra_labels`.
pub const OPEN: [&str; 11] = [
    "target", "job", "feature", "signal", "model_id", "origin", "horizon", "features", "version",
    "revision", "le",
];

/// Names as Prometheus stores them, and the values of each label; none where they are open.
pub type Exported = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

pub fn exported() -> Result<Exported, prometheus::Error> {
    let mut exported = Exported::new();
    let text = everything()?;
    for sample in text.lines().filter(|line| !line.starts_with('#')) {
        let name = sample.split(['{', ' ']).next().unwrap_or_default();
        let labels = exported.entry(name.to_owned()).or_default();
        for (label, value) in labels_of(sample) {
            let values = labels.entry(label.to_owned()).or_default();
            if !OPEN.contains(&label) {
                values.insert(value.to_owned());
            }
        }
    }
    Ok(exported)
}

/// Labels of a line of the exposition, in whose values nothing is escaped.
pub fn labels_of(sample: &str) -> impl Iterator<Item = (&str, &str)> {
    let inside = sample.split_once('{').map_or("", |(_, rest)| rest);
    let pairs = inside
        .split("\",")
        .filter_map(|pair| pair.split_once("=\""));
    pairs.map(|(label, value)| (label, value.split('"').next().unwrap_or_default()))
}

/// The exposition of a process that has everything it can have.
pub fn everything() -> Result<String, prometheus::Error> {
    let metrics = Metrics::new(Timestamp(0))?;
    metrics.signal_series.with_label_values(&["cpu_usage"]);
    for what in ["targets", "explanations"] {
        metrics.left_out.with_label_values(&[what]);
    }
    metrics.set_prometheus_up(true);
    metrics.set_state_size(1);
    metrics.cycle_succeeded(Timestamp(0));
    let snapshot = Some(Arc::new(snapshot()));
    let text = metrics.render(snapshot, Some(&card()), Format::Text);
    Ok(text.collect())
}

fn card() -> ModelCard {
    ModelCard {
        model_id: "m".into(),
        model_origin: "history".into(),
        horizon_seconds: 1800.0,
        step_seconds: 60.0,
        trained_until: String::new(),
        trained: Timestamp(0),
        alert_threshold: 0.3,
        base_rate: 0.01,
        signals: Vec::new(),
        features: Vec::new(),
    }
}

fn snapshot() -> Snapshot {
    let half = Some(0.5);
    let summary = || Summary {
        precision: half,
        recall: half,
        false_alarms_per_target_week: half,
        brier: half,
        calibration_error: half,
        ..Summary::default()
    };
    let risk = Risk {
        probability: 0.9,
        score: Score::default(),
        level: RiskLevel::Critical,
        shadow: None,
        reasons: vec![Reason {
            feature: "f".into(),
            value: None,
            contribution: 1.5,
        }],
    };
    Snapshot {
        at: Timestamp(0),
        prometheus_up: true,
        shard: Shard::WHOLE,
        assessments: vec![Assessment {
            target: TargetId::new("t"),
            labels: [("job".into(), "j".into())].into(),
            live: Live::of_nothing(),
            course: Default::default(),
            state: TargetState::Ok,
            risk: Some(risk),
        }],
        scoreboard: summary(),
        shadow: Some(ShadowBoard {
            model_id: "candidate".into(),
            summary: summary(),
        }),
        drift: Some(Drift {
            rows: 1,
            features: vec![FeatureDrift {
                feature: "f".into(),
                psi: 0.5,
                usual_psi: 0.1,
            }],
        }),
    }
}
