//! What the figures say, in sentences. The same ones stand in `report.html` and `card.md`.

use std::time::Duration;

use super::{Fitting, Kind, Subject};
use crate::bundle::Origin;
use crate::evaluation::Evaluation;
use crate::evaluation::baselines::ORACLE;
use crate::evaluation::report::{BaselineReport, FEW_INCIDENTS, OperatingPoint};
use crate::table;
use crate::time::{Timestamp, format_rough};

/// What a reader must not overlook, a line each, for where the figures stand without their report.
pub fn notes(subject: &Subject) -> String {
    let notes = cautions(subject).into_iter();
    notes.map(|note| format!("note: {note}\n")).collect()
}

pub struct Headline {
    pub sentence: String,
    /// What a reader must not overlook.
    pub cautions: Vec<String>,
    /// How near it comes to the true risk, where that is known.
    pub oracle: Option<String>,
}

pub fn headline(subject: &Subject) -> Headline {
    Headline {
        sentence: sentence(subject),
        cautions: cautions(subject),
        oracle: oracle(subject),
    }
}

fn sentence(subject: &Subject) -> String {
    let evaluation = subject.evaluation;
    let at = &evaluation.at_threshold;
    let budget = budget(subject);
    if at.threshold.is_none() {
        return format!(
            "This model does not alert: no threshold kept within {budget} on the calibration slice. {} happened in the evaluated range, and none was to be announced.",
            counted(at.incidents, "incident", "incidents"),
        );
    }
    let alarms = match at.alarms {
        0 => "It raised no alarm at all".to_string(),
        alarms => format!(
            "{} of {} {} false ({} per target-week){}{}",
            at.r#false,
            counted(alarms, "alarm", "alarms"),
            if at.r#false == 1 { "was" } else { "were" },
            rate(at.measures.false_alarms_per_target_week),
            match at.early {
                0 => String::new(),
                early => format!(", {early} came early"),
            },
            match at.uncertain {
                0 => String::new(),
                uncertain => format!(
                    ", {uncertain} {} neither way because somebody acted in time",
                    if uncertain == 1 { "counts" } else { "count" }
                ),
            } + &match at.undecided {
                0 => String::new(),
                undecided => format!(
                    ", {undecided} {} not decided yet when the data ended",
                    if undecided == 1 { "was" } else { "were" }
                ),
            }
        ),
    };
    if at.incidents == 0 {
        return format!(
            "No incident fell into the evaluated range, so nothing can be said of how many it would foresee. {alarms}."
        );
    }
    let interval = interval(at, "recall").map_or_else(String::new, |[low, high]| {
        let [low, high] = [low, high].map(|share| table::percent(share, 0));
        format!(", 95 % interval {low}–{high} %")
    });
    let lead = at
        .measures
        .lead_time_seconds
        .p50
        .map_or_else(String::new, |median| {
            format!(", half of them at least {} before", duration(Some(median)))
        });
    format!(
        "Of {} it foresaw {} ({}{interval}){lead}; {}. {}",
        counted(at.incidents, "incident", "incidents"),
        at.foreseen,
        percent(at.measures.recall, 0),
        lower_first(&alarms),
        rival(subject),
    )
}

/// The one-line rule that foresaw most within the same budget.
pub fn best_baseline<'a>(subject: &Subject<'a>) -> Option<(&'a str, &'a OperatingPoint)> {
    subject
        .evaluation
        .baselines
        .iter()
        .map(|(name, one)| (name.as_str(), &one.at_threshold))
        .filter(|(_, at)| at.threshold.is_some() && at.foreseen > 0)
        .reduce(|best, one| {
            let rank = |at: &OperatingPoint| (at.foreseen, std::cmp::Reverse(at.r#false));
            if rank(one.1) > rank(best.1) {
                one
            } else {
                best
            }
        })
}

fn rival(subject: &Subject) -> String {
    let budget = budget(subject);
    match best_baseline(subject) {
        None => format!("No one-line rule foresaw any within {budget}."),
        Some((name, at)) => format!(
            "The best one-line rule, {}, foresaw {} within {budget}, its threshold chosen in hindsight.",
            rule(name),
            at.foreseen
        ),
    }
}

/// The share of what the true risk would reach.
fn oracle(subject: &Subject) -> Option<String> {
    let evaluation = subject.evaluation;
    let best = evaluation.oracle.as_ref()?;
    let share = |own: f64, best: f64| percent((best > 0.0).then(|| own / best), 0);
    let precision = evaluation.ensemble.ranking.average_precision;
    let ranks =
        precision
            .zip(best.ranking.average_precision)
            .map_or_else(String::new, |(own, best)| {
                format!(
                    "reaches {} of its average precision ({own:.3} of {best:.3}) and ",
                    share(own, best)
                )
            });
    let (own, best) = (evaluation.at_threshold.foreseen, best.at_threshold.foreseen);
    Some(format!(
        "The oracle is the true risk that the simulator knows. The ensemble {ranks}foresaw {own} incidents where the oracle foresees {best} within {} ({}), the oracle’s threshold chosen in hindsight.",
        budget(subject),
        share(own as f64, best as f64),
    ))
}

/// Everything that stands beside the model, each under a name for people.
pub fn others(evaluation: &Evaluation) -> Vec<(String, &BaselineReport)> {
    let rules = evaluation.baselines.iter();
    let compared = evaluation.compared.iter();
    rules
        .map(|(name, one)| (rule(name), one))
        .chain(compared.map(|(name, one)| (name.clone(), one)))
        .chain(
            evaluation
                .oracle
                .iter()
                .map(|one| (ORACLE.to_string(), one)),
        )
        .collect()
}

fn cautions(subject: &Subject) -> Vec<String> {
    let evaluation = subject.evaluation;
    let at = &evaluation.at_threshold;
    let mut found = Vec::new();
    match subject.manifest.origin {
        Origin::Simulated => found.push(
            "The model was trained on a simulated fleet: it shows how forewarn works, knows nothing of your hosts, and the shipped rules never page on it.".to_string(),
        ),
        Origin::Imported => {
            found.push("The model was trained elsewhere and calibrated here.".to_string());
        }
        Origin::History => {}
    }
    if subject.overlaps_training() {
        found.push(format!(
            "The evaluated range overlaps the one that the model has learned from ({} to {}): these figures are better than those on data it has not seen.",
            subject.manifest.training.start, subject.manifest.training.end
        ));
    }
    if evaluation.incidents < FEW_INCIDENTS {
        found.push(format!(
            "{} are too few to trust any of these figures: look at the intervals, or evaluate a longer range.",
            counted(evaluation.incidents, "incident", "incidents")
        ));
    }
    let ranks_better = evaluation.baselines.iter().find(|(_, one)| {
        one.ranking.average_precision.unwrap_or(0.0)
            >= evaluation
                .ensemble
                .ranking
                .average_precision
                .unwrap_or(f64::INFINITY)
    });
    match best_baseline(subject) {
        Some((name, best)) if best.foreseen >= at.foreseen => found.push(format!(
            "A one-line rule is as good: {} foresaw {} of {} within the budget, the model {}. Use the rule, or find out what the model lacks.",
            rule(name), best.foreseen, best.incidents, at.foreseen
        )),
        _ => {
            if let Some((name, one)) = ranks_better {
                found.push(format!(
                    "A one-line rule ranks the rows as well: {} has an average precision of {}, the model {}.",
                    rule(name),
                    number(one.ranking.average_precision, 3),
                    number(evaluation.ensemble.ranking.average_precision, 3),
                ));
            }
        }
    }
    for (name, one) in &evaluation.compared {
        let other = &one.at_threshold;
        if other.foreseen > 0 && other.foreseen >= at.foreseen {
            found.push(format!(
                "{name}, which it is compared with, is as good: it foresaw {} of {} within the budget, its threshold chosen in hindsight, the model {}.",
                other.foreseen, other.incidents, at.foreseen
            ));
        }
    }
    let elsewhere = better_elsewhere(subject);
    if !elsewhere.is_empty() {
        found.push(format!(
            "At other budgets a one-line rule foresees more: {}.",
            elsewhere.join("; ")
        ));
    }
    let allowed = subject.manifest.threshold.false_alarms_per_target_week;
    if let Some(found_rate) = at.measures.false_alarms_per_target_week
        && found_rate > allowed
    {
        found.push(format!(
            "Here it raised more false alarms than the budget that its threshold was chosen for: {} per target-week instead of at most {}.",
            rate(Some(found_rate)),
            rate(Some(allowed))
        ));
    }
    if evaluation
        .ensemble
        .brier_skill
        .is_some_and(|skill| skill <= 0.0)
    {
        found.push(
            "Its probabilities are no better than always answering the base rate of this range."
                .to_string(),
        );
    }
    found
}

/// The fixed budgets at which a rule foresees more than the model.
fn better_elsewhere(subject: &Subject) -> Vec<String> {
    let evaluation = subject.evaluation;
    let better = |(budget, own): (&String, &OperatingPoint)| {
        let (name, best) = evaluation
            .baselines
            .iter()
            .filter_map(|(name, one)| Some((name, one.at_budget.get(budget)?)))
            .filter(|(_, at)| at.foreseen > own.foreseen)
            .reduce(|best, one| {
                if one.1.foreseen > best.1.foreseen {
                    one
                } else {
                    best
                }
            })?;
        Some(format!(
            "within {budget} false alarms per target-week {} {}, the model {}",
            rule(name),
            best.foreseen,
            own.foreseen
        ))
    };
    evaluation.at_budget.iter().filter_map(better).collect()
}

fn budget(subject: &Subject) -> String {
    format!(
        "{} false alarms per target-week",
        rate(Some(
            subject.manifest.threshold.false_alarms_per_target_week
        ))
    )
}

/// Two digits that matter.
pub fn rate(value: Option<f64>) -> String {
    let decimals = value
        .filter(|value| *value > 0.0 && value.is_finite())
        .map_or(0.0, |value| 1.0 - value.log10().floor());
    number(value, decimals.clamp(0.0, 6.0) as usize)
}

/// A baseline's name as a person would say it.
pub fn rule(name: &str) -> String {
    match name {
        "static_threshold" => "static thresholds".into(),
        "random" => "a coin".into(),
        "prior" => "the base rate".into(),
        "persistence" => "“it failed lately”".into(),
        "time_of_day" => "the hour of the day".into(),
        "predict_linear" => "predict_linear".into(),
        other => other.replace('_', " "),
    }
}

pub fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", whole(count), if count == 1 { one } else { many })
}

/// Said where calibration did harm.
pub fn worse_calibrated(subject: &Subject) -> &'static str {
    let ensemble = &subject.evaluation.ensemble;
    let before = ensemble.uncalibrated.as_ref();
    let worse = |before: Option<f64>, after: Option<f64>| {
        before
            .zip(after)
            .is_some_and(|(before, after)| after > before)
    };
    let after = &ensemble.reliability;
    match (
        worse(before.and_then(|one| one.ece), after.ece),
        worse(before.and_then(|one| one.ece_high), after.ece_high),
    ) {
        (true, _) => " On these rows the scores were nearer to the truth before calibration.",
        (false, true) => " On these rows high claims were nearer to the truth before calibration.",
        (false, false) => "",
    }
}

/// With commas between thousands.
pub fn whole(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A dash for what is not known or no number.
pub fn number(value: Option<f64>, decimals: usize) -> String {
    value
        .filter(|value| value.is_finite())
        .map_or_else(|| "–".into(), |value| format!("{:.decimals$}", value + 0.0))
}

pub fn percent(ratio: Option<f64>, decimals: usize) -> String {
    ratio.filter(|ratio| ratio.is_finite()).map_or_else(
        || "–".into(),
        |ratio| format!("{} %", table::percent(ratio, decimals)),
    )
}

pub fn duration(seconds: Option<f64>) -> String {
    seconds.filter(|seconds| seconds.is_finite()).map_or_else(
        || "–".into(),
        |seconds| format_rough(Duration::from_secs_f64(seconds.max(0.0))),
    )
}

/// 95 % bounds of a measure.
pub fn interval(at: &OperatingPoint, measure: &str) -> Option<[f64; 2]> {
    let [low, high] = at.intervals.get(measure).copied().flatten()?;
    (low.is_finite() && high.is_finite()).then_some([low, high])
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(chars).collect()
    })
}

/// Name, share of gain and mean |SHAP| of the features that stand among the first `count` in either view, by rank in both.
pub fn features(subject: &Subject, count: usize) -> Vec<(String, f64, f64)> {
    let (gains, means) = (subject.importance, &subject.review.shap);
    let rank = |list: &[(String, f64)], name: &str| {
        list.iter()
            .position(|(other, _)| other == name)
            .unwrap_or(list.len())
    };
    let value = |list: &[(String, f64)], name: &str| {
        list.iter()
            .find(|(other, _)| other == name)
            .map_or(0.0, |(_, value)| *value)
    };
    let mut names: Vec<&String> = gains.iter().map(|(name, _)| name).collect();
    names.sort_by_key(|name| {
        let (gain, mean) = (rank(gains, name), rank(means, name));
        (gain.min(mean), gain + mean, (*name).clone())
    });
    names
        .into_iter()
        .take(count)
        .map(|name| (name.clone(), value(gains, name), value(means, name)))
        .filter(|(_, gain, mean)| *gain > 0.0 || *mean > 0.0)
        .collect()
}

/// What fitting chose and how it does on targets that it never saw, a line each.
pub fn fitted(subject: &Subject) -> Option<String> {
    let fitting = subject.fitting?;
    Some(format!(
        "search: {}\nheld-out targets: {}\n",
        chosen(subject, &fitting),
        held_out(subject, &fitting)
    ))
}

/// Which imbalance method and parameters won.
pub fn chosen(subject: &Subject, fitting: &Fitting) -> String {
    if subject.manifest.origin == Origin::Imported {
        return "none, the trees were fitted elsewhere".into();
    }
    let chosen: Vec<String> = fitting
        .trials
        .iter()
        .filter(|trial| trial.chosen)
        .map(|trial| format!("{} with {}", trial.member, trial.choice))
        .collect();
    if chosen.is_empty() {
        "none, too few positive rows in the time folds to choose by".into()
    } else {
        format!("the time folds chose {}", chosen.join("; "))
    }
}

/// A cold start, or why none was tried.
pub fn held_out(subject: &Subject, fitting: &Fitting) -> String {
    let Some(found) = fitting.held_out else {
        return if subject.manifest.origin == Origin::Imported {
            "not measured, the trees were fitted elsewhere and cannot be fitted again without some targets".into()
        } else if subject.labels.targets < 5 {
            "not measured, that takes five targets at least".into()
        } else {
            "not measured, the held-out targets had no positive row in the last slice, or the others too few to learn from".into()
        };
    };
    let ensembles = [&found.ensemble, &found.familiar];
    let [own, familiar] = ensembles.map(|one| {
        format!(
            "ROC AUC {}, average precision {}, Brier skill {}, ECE {}",
            number(one.ranking.roc_auc, 3),
            number(one.ranking.average_precision, 3),
            number(one.brier_skill, 3),
            number(one.reliability.ece, 4)
        )
    });
    format!(
        "on {}, learned from all others, {own}; the ensemble that knew them, on the same rows, {familiar}",
        counted(found.targets.len() as u64, "target", "targets")
    )
}

pub const REPRODUCE: &str = "With the same config, the same samples in Prometheus and the same version of forewarn this gives the same bytes, on any number of threads:";

pub fn command(subject: &Subject) -> String {
    let manifest = subject.manifest;
    match subject.kind {
        Kind::Training => format!(
            "forewarn train --start {} --end {}{}",
            manifest.training.start,
            manifest.training.end,
            match manifest.origin {
                Origin::History => String::new(),
                other => format!(" --origin {}", other.name()),
            }
        ),
        Kind::Backtest { overlaps_training } => format!(
            "forewarn backtest --model models/{} --start {} --end {}{} --report report.html",
            manifest.id,
            Timestamp::from_secs_f64(subject.evaluation.start),
            Timestamp::from_secs_f64(subject.evaluation.end),
            if overlaps_training {
                " --allow-overlap"
            } else {
                ""
            }
        ),
    }
}
