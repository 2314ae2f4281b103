//! Between the config and the pure pipeline: what to learn, and what became of it.

use std::collections::BTreeMap;

use serde_json::json;

use crate::bundle::{
    Bundle, FORMAT_VERSION, LabelDefinition, Manifest, Origin, SignalSource, Threshold,
    TrainingFacts,
};
use crate::config::Config;
use crate::evaluation::curves::Reliability;
use crate::evaluation::ranking::ReliabilityBin;
use crate::evaluation::{AlarmRule, Evaluation};
use crate::features::Catalogue;
use crate::history::History;
use crate::labels::FailureRules;
use crate::model::FitParams;
use crate::report::{self, Case, Fitting, Kind, Subject, number, percent};
use crate::time::{format_duration, format_moment};
use crate::tracker::Limits;
use crate::training::{LabelReport, Plan, Replay, Trained};
use crate::types::Signal;

/// Above every probability: without a threshold within the budget nothing pages.
const NEVER: f64 = 1.0;

/// What the config says of learning, for the pure pipeline.
pub fn plan(config: &Config) -> Plan {
    Plan {
        catalogue: Catalogue::new(&config.inputs(), config.step, config.horizon),
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
            signals_per_tree: config.train.signals_per_tree,
            calendar: false,
            search: config.train.search,
            seed: config.train.seed,
        },
        max_rows: config.train.max_rows,
        folds: config.train.folds,
        false_alarms_per_week: config.alerting.false_alarms_per_week,
        alert_for: config.alerting.for_,
    }
}

/// How its alarms are cut.
pub fn alarm_rule(bundle: &Bundle, plan: &Plan) -> AlarmRule {
    AlarmRule::new(
        bundle.manifest.threshold.probability,
        plan.alert_for,
        &plan.rules,
    )
}

/// Why a model cannot score what the config describes; `None` when it can.
pub fn misfit(bundle: &Bundle, config: &Config) -> Option<String> {
    bundle
        .manifest
        .misfit(&config.inputs(), config.step, config.horizon)
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
    metrics["held_out_targets"] = json!(trained.held_out);
    metrics["search"] = json!(trained.trials);
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
        trained.reference,
    )
}

/// A trained model with what is written of it.
pub struct WriteUp {
    pub bundle: Bundle,
    /// What the card says beside the evaluation.
    pub fitted: String,
    /// What a reader of the figures must not overlook.
    pub notes: String,
    pub evaluation: Evaluation,
    pub card: String,
    /// `report.html`
    pub report: String,
}

/// Puts what was trained into a bundle, looks at what it got wrong, and says so.
pub fn write_up(
    config: &Config,
    plan: &Plan,
    history: &History,
    replay: &Replay,
    labels: &LabelReport,
    mut trained: Trained,
    origin: Origin,
) -> WriteUp {
    let scores = std::mem::take(&mut trained.scores);
    let (test, evaluation) = (trained.test, trained.evaluation.clone());
    let (surrogate, snapshot) = (trained.surrogate.clone(), trained.snapshot_quality.clone());
    let (held_out, trials) = (trained.held_out.clone(), trained.trials.clone());
    let bundle = bundle(config, plan, labels, trained, origin);
    let review = report::review(history, replay, plan, test, &scores, &bundle);
    let importance = bundle.importance();
    let subject = Subject {
        kind: Kind::Training,
        manifest: &bundle.manifest,
        evaluation: &evaluation,
        labels,
        fitting: Some(Fitting {
            snapshot: &snapshot,
            held_out: held_out.as_ref(),
            trials: &trials,
        }),
        importance: &importance,
        review: &review,
        surrogate: surrogate.as_deref(),
    };
    let fitted = report::fitted(&subject).unwrap_or_default();
    let table = evaluation.table(None) + &fitted;
    WriteUp {
        card: card(&subject, &table),
        report: report::render(&subject),
        notes: report::notes(&subject),
        fitted,
        evaluation,
        bundle,
    }
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
        "labels   {} to {}\n         {} targets, {} rows, {} positive (base rate {:.4}); {} more would be with enough data\n         {} incidents, {} with scored rows before them; on {} targets\n         left out: {} rows in incidents, recovery or maintenance, {} with too little data, {} whose horizon is not fully observed{}\n",
        report.start,
        report.end,
        report.targets,
        report.rows,
        report.positives,
        report.base_rate,
        report.positives_without_history,
        report.incidents,
        report.incidents_with_history,
        report.incidents_by_target.len(),
        report.excluded,
        report.abstained,
        report.censored,
        match report.uncertain {
            0 => String::new(),
            rows => format!(", {rows} after which somebody acted and nothing failed"),
        },
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
    let by = |counts: &mut dyn Iterator<Item = (&str, usize)>| {
        let counts: Vec<String> = counts.map(|(what, n)| format!("{what} {n}")).collect();
        counts.join(", ")
    };
    if report.incidents > 0 {
        let months = report.incidents_by_month.iter();
        let sources = report.incidents_by_source.iter();
        text.push_str(&format!(
            "         by month: {}\n         by source: {}\n",
            by(&mut months.map(|(month, n)| (month.as_str(), *n))),
            by(&mut sources.map(|(source, n)| (*source, *n))),
        ));
    }
    text.push_str(&format!("verdict  {}\n", report.verdict()));
    let coverage: Vec<String> = report
        .coverage
        .iter()
        .map(|(name, share)| format!("{name} {}", percent(Some(*share), 1)))
        .collect();
    text.push_str(&format!("coverage {}\n", coverage.join(", ")));
    for warning in &report.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text
}

/// `card.md`: what the model is and how good, in words; `report.html` says the same with charts.
pub fn card(subject: &Subject, table: &str) -> String {
    let manifest = subject.manifest;
    let headline = report::headline(subject);
    let cautions: String = headline
        .cautions
        .iter()
        .map(|caution| format!("- {caution}\n"))
        .collect();
    let importance: String = report::features(subject, 15)
        .iter()
        .map(|(name, gain, mean)| {
            format!("| `{name}` | {} | {mean:.3} |\n", percent(Some(*gain), 1))
        })
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
         `report.html` beside this file says the same with charts.\n\n\
         **{sentence}**\n\n{oracle}{cautions}\n\
         ## Data\n\n\
         ```text\n{labels}```\n\n\
         ## How good it is\n\n\
         On the last fifth of the range, which neither fitting nor calibration nor the threshold has seen.\n\n\
         ```text\n{table}\n```\n\n\
         ## Calibration\n\n\
         What was claimed for rows and what came true, in bins of equal count: all rows, then those that claim at least five times the base rate.\n\n\
         ```text\n{reliability}```\n\n\
         ## What it looks at\n\n\
         Mean share of the gain of all splits of the boosted trees and of the forest; mean size of the SHAP value in log-odds over {explained} rows.\n\n\
         | feature | share of gain | mean size of SHAP value |\n|---|---|---|\n{importance}\n\
         ## Where it was wrong\n\n\
         {wrong}\n\
         ## Its alarms as a few rules\n\n\
         A tree of depth three fitted to the ensemble's alarms: an approximation to read, not what is served.\n\n\
         ```text\n{rules}```\n\n\
         ## Alerting\n\n\
         {alerting}\n\n\
         ## How to reproduce\n\n\
         {reproduce}\n\n\
         ```sh\n{command}\n```\n\n\
         Seed {seed}, forewarn {version}.\n",
        id = manifest.id,
        horizon = format_duration(manifest.horizon()),
        sentence = headline.sentence,
        oracle = headline
            .oracle
            .map_or_else(String::new, |oracle| format!("{oracle}\n\n")),
        labels = label_report(subject.labels),
        reliability = reliability(subject),
        explained = subject.review.explained_rows,
        wrong = wrong(subject),
        rules = subject
            .surrogate
            .unwrap_or("no row reaches the threshold\n"),
        reproduce = report::REPRODUCE,
        command = report::command(subject),
        seed = manifest.training.seed,
        version = manifest.forewarn_version,
    )
}

fn reliability(subject: &Subject) -> String {
    let evaluation = subject.evaluation;
    let (before, after) = (
        evaluation.ensemble.uncalibrated.as_ref(),
        &evaluation.ensemble.reliability,
    );
    let mut text = format!(
        "calibration error  {} before calibration, {} after\namong high claims  {} before, {} after\n{}",
        number(before.and_then(|one| one.ece), 4),
        number(after.ece, 4),
        number(before.and_then(|one| one.ece_high), 4),
        number(after.ece_high, 4),
        match report::worse_calibrated(subject) {
            "" => String::new(),
            words => format!("{}\n", words.trim()),
        }
    );
    type Bins = fn(&Reliability) -> &[ReliabilityBin];
    let parts: [Bins; 2] = [|one| &one.reliability, |one| &one.reliability_high];
    for bins in parts {
        let (left, right) = (before.map_or(&[][..], bins), bins(after));
        text.push_str(&format!(
            "\n{:>14}{:>11}{:>10}{:>14}{:>11}{:>10}\n",
            "claimed before", "came true", "rows", "claimed after", "came true", "rows"
        ));
        for i in 0..left.len().max(right.len()) {
            let cells: String = [left.get(i), right.get(i)]
                .into_iter()
                .map(|side| {
                    format!(
                        "{:>14}{:>11}{:>10}",
                        percent(side.map(|bin| bin.mean_predicted), 2),
                        percent(side.map(|bin| bin.observed), 2),
                        number(side.map(|bin| bin.weight), 0)
                    )
                })
                .collect();
            text.push_str(&cells);
            text.push('\n');
        }
    }
    text
}

/// The worst false alarms and missed incidents, a line each.
fn wrong(subject: &Subject) -> String {
    let signals: Vec<Signal> = subject
        .manifest
        .signals
        .iter()
        .map(|source| source.signal.clone())
        .collect();
    let review = subject.review;
    let lines = |cases: &[Case]| -> String {
        cases
            .iter()
            .map(|case| {
                let reasons: Vec<String> = case
                    .reasons
                    .iter()
                    .filter(|reason| reason.contribution > 0.0)
                    .take(2)
                    .map(|reason| reason.in_words(&signals))
                    .collect();
                let reasons = match reasons.is_empty() {
                    true => String::new(),
                    false => format!(": {}", reasons.join(", ")),
                };
                format!(
                    "- {} {}, {}{reasons}\n",
                    format_moment(case.at),
                    case.target,
                    match case.probability {
                        Some(probability) => percent(Some(probability), 1),
                        None => "not scored before".into(),
                    }
                )
            })
            .collect()
    };
    let part = |title: &str, cases: &[Case], total: u64| match cases.len() {
        0 => format!("{title}: none.\n\n"),
        shown => format!("{title}, {shown} of {total}:\n\n{}\n", lines(cases)),
    };
    format!(
        "{}{}",
        part(
            "False alarms with their probability and strongest reasons",
            &review.false_alarms,
            subject.evaluation.at_threshold.r#false
        ),
        part(
            "Missed incidents with the highest probability within the horizon before",
            &review.missed,
            review.missed_total as u64
        )
    )
}
