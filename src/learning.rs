//! Between the config and the pure pipeline: what to learn, and what became of it.

use std::collections::BTreeMap;

use serde_json::json;

use crate::bundle::{
    Bundle, FORMAT_VERSION, LabelDefinition, Manifest, Origin, SignalSource, Threshold,
    TrainingFacts,
};
use crate::config::Config;
use crate::features::Catalogue;
use crate::labels::FailureRules;
use crate::model::FitParams;
use crate::time::format_duration;
use crate::tracker::Limits;
use crate::training::{FEW_INCIDENTS, LabelReport, Plan, Trained};
use crate::types::Signal;

/// Above every probability: without a threshold within the budget nothing pages.
const NEVER: f64 = 1.0;

/// What the config says of learning, for the pure pipeline.
pub fn plan(config: &Config) -> Plan {
    let signals: Vec<Signal> = config.signals.iter().map(|s| s.signal.clone()).collect();
    Plan {
        catalogue: Catalogue::new(&signals, config.step, config.horizon),
        rules: FailureRules {
            step: config.step,
            min_duration: config.failure.min_duration,
            merge_gap: config.failure.merge_gap,
            recovery: config.train.recovery,
            horizon: config.horizon,
        },
        limits: Limits {
            min_signals: config.features.min_signals,
            fresh_steps: config.features.fresh_steps,
            min_coverage: config.features.min_coverage,
        },
        fit: FitParams {
            xgboost: config.train.xgboost.clone(),
            random_forest: config.train.random_forest.clone(),
            logistic_regression: config.train.logistic_regression.clone(),
            imbalance: config.train.imbalance,
            seed: config.train.seed,
        },
        max_rows: config.train.max_rows,
        folds: config.train.folds,
        false_alarms_per_week: config.alerting.false_alarms_per_week,
        alert_for: config.alerting.for_,
    }
}

/// Puts what was trained and what it was trained on together.
pub fn bundle(
    config: &Config,
    plan: &Plan,
    report: &LabelReport,
    trained: Trained,
    origin: Origin,
) -> Bundle {
    let mut metrics = json!(trained.evaluation);
    metrics["snapshot"] = json!(trained.snapshot_quality);
    metrics["labels"] = json!(report);
    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        id: String::new(),
        forewarn_version: env!("CARGO_PKG_VERSION").into(),
        origin,
        signals: config
            .signals
            .iter()
            .map(|s| SignalSource {
                signal: s.signal.clone(),
                query: s.query.clone(),
            })
            .collect(),
        features: plan.catalogue.specs(),
        step_seconds: config.step.as_secs_f64(),
        horizon_seconds: config.horizon.as_secs_f64(),
        label: label_definition(config),
        training: TrainingFacts {
            start: report.start.clone(),
            end: report.end.clone(),
            targets: report.targets,
            rows: report.rows,
            incidents: report.incidents,
            base_rate: report.base_rate,
            prior: Some(trained.prior),
            seed: config.train.seed,
        },
        threshold: Threshold {
            probability: trained.threshold.unwrap_or(NEVER),
            false_alarms_per_target_week: trained.false_alarms_per_target_week,
        },
        best_member: trained.evaluation.best_member.clone().unwrap_or_default(),
        metrics,
        files: BTreeMap::new(),
    };
    Bundle::new(
        manifest,
        plan.catalogue.clone(),
        trained.full,
        trained.snapshot,
    )
}

pub fn label_definition(config: &Config) -> LabelDefinition {
    LabelDefinition {
        queries: config.failure.queries.clone(),
        alerts: config.failure.alerts.clone(),
        min_duration_seconds: config.failure.min_duration.as_secs_f64(),
        merge_gap_seconds: config.failure.merge_gap.as_secs_f64(),
        recovery_seconds: config.train.recovery.as_secs_f64(),
    }
}

/// What there is to learn from, in words.
pub fn label_report(report: &LabelReport) -> String {
    let mut text = format!(
        "labels   {} to {}\n         {} targets, {} rows, {} positive (base rate {:.4})\n         {} incidents, {} with scored rows before them; on {} targets\n         left out: {} rows in incidents, recovery or maintenance, {} with too little data, {} whose horizon is not fully observed\n",
        report.start,
        report.end,
        report.targets,
        report.rows,
        report.positives,
        report.base_rate,
        report.incidents,
        report.incidents_with_history,
        report.incidents_by_target.len(),
        report.excluded,
        report.abstained,
        report.censored,
    );
    let mut most: Vec<(&String, &usize)> = report.incidents_by_target.iter().collect();
    most.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let most: Vec<String> = most
        .iter()
        .take(5)
        .map(|(target, n)| format!("{target} {n}"))
        .collect();
    if !most.is_empty() {
        text.push_str(&format!("         most: {}\n", most.join(", ")));
    }
    let coverage: Vec<String> = report
        .coverage
        .iter()
        .map(|(name, share)| format!("{name} {:.1} %", 100.0 * share))
        .collect();
    text.push_str(&format!("coverage {}\n", coverage.join(", ")));
    if report.incidents < FEW_INCIDENTS {
        text.push_str(&format!(
            "warning: {} incidents are too few for figures to trust: widen train.range or choose a failure definition that happens more often\n",
            report.incidents
        ));
    }
    text
}

/// `card.md`: what the model is and how good, in words.
pub fn card(bundle: &Bundle, report: &LabelReport, table: &str, surrogate: Option<&str>) -> String {
    let manifest = &bundle.manifest;
    let origin = match manifest.origin {
        Origin::Simulated => {
            "It was trained on the **simulated fleet**: it shows how forewarn works, knows nothing of your hosts and never pages."
        }
        Origin::History => "It was trained on the history of the targets it scores.",
        Origin::Imported => "It was trained elsewhere and calibrated here.",
    };
    let importance: String = bundle
        .importance()
        .iter()
        .take(15)
        .map(|(name, share)| format!("| `{name}` | {:.1} % |\n", 100.0 * share))
        .collect();
    let budget = manifest.threshold.false_alarms_per_target_week;
    let alerting = match manifest.threshold.probability {
        NEVER => format!(
            "No threshold kept within {budget:.3} false alarms per target-week on the calibration slice: this model does not alert."
        ),
        threshold => format!(
            "The threshold {threshold:.4} kept within {budget:.3} false alarms per target-week on the calibration slice."
        ),
    };
    format!(
        "# Model {id}\n\n\
         Answers: how probable is it that a target fails within the next {horizon}?\n\
         {origin}\n\n\
         ## Data\n\n\
         ```text\n{labels}```\n\n\
         ## How good it is\n\n\
         On the last fifth of the range, which neither fitting nor calibration nor the threshold has seen.\n\n\
         ```text\n{table}\n```\n\n\
         ## What it looks at\n\n\
         Mean share of the gain of all splits of the boosted trees and of the forest.\n\n\
         | feature | share |\n|---|---|\n{importance}\n\
         ## Its alarms as a few rules\n\n\
         A tree of depth three fitted to the ensemble's alarms: an approximation to read, not what is served.\n\n\
         ```text\n{rules}```\n\n\
         ## Alerting\n\n\
         {alerting}\n",
        rules = surrogate.unwrap_or("no row reaches the threshold\n"),
        id = manifest.id,
        horizon = format_duration(manifest.horizon()),
        labels = label_report(report),
    )
}
