//! Each control takes away what there is to learn, or checks that nothing is learned from what is not known yet.
//! `a_leak_is_seen` holds them to account: what they call chance is far from what a leak gives.

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use forewarn::bundle::Bundle;
use forewarn::history::{Column, History};
use forewarn::model::Score;
use forewarn::training::{self, Plan};
use forewarn::types::{Source, TargetId};

use super::fleet::{bundle, history, plan, record, train};

/// Less of everything than the shared model has: a control needs no good one.
fn small() -> Plan {
    let mut plan = plan();
    plan.max_rows = 6000;
    plan.fit.xgboost.n_estimators = 20;
    plan.fit.random_forest.n_estimators = 15;
    plan
}

/// The signals of the test fleet with failures of the caller's choice: `failing` answers by number of the
/// target and minute. A failing target answers nothing, before and after the change, so no gap gives a label away.
/// `leak` replaces the first signal.
fn with_failures(
    failing: impl Fn(usize, usize) -> bool,
    leak: Option<&dyn Fn(usize, usize) -> f64>,
) -> History {
    let real = history();
    let mut changed = History::new(7, real.time(0), real.time(real.steps() - 1), real.step());
    for (k, (name, recorded)) in real.targets().iter().enumerate() {
        let mut insert = |column, samples: &[_]| {
            changed
                .insert(column, name.as_str(), &Default::default(), samples)
                .expect("one series per signal")
        };
        for signal in 0..7 {
            let column = recorded.column(signal);
            let samples: Vec<_> = (0..real.steps())
                .filter(|&i| !column[i].is_nan() && !failing(k, i))
                .map(|i| match leak {
                    Some(leak) if signal == 0 => (real.time(i), leak(k, i)),
                    _ => (real.time(i), f64::from(column[i])),
                })
                .collect();
            insert(Column::Signal(signal), &samples);
        }
        let samples: Vec<_> = (0..real.steps())
            .filter(|&i| failing(k, i))
            .map(|i| (real.time(i), 1.0))
            .collect();
        insert(Column::Failing(Source::Query), &samples);
    }
    changed
}

/// The failures of the test fleet, by number of the target and minute.
fn real_failures() -> Vec<Vec<bool>> {
    let targets = history().targets().into_iter();
    targets
        .map(|(_, recorded)| {
            recorded
                .steps
                .iter()
                .map(|step| step.failing.is_some())
                .collect()
        })
        .collect()
}

/// Failures as long as those of the test fleet and four times as many, each at any time of any target.
fn abrupt_failures() -> Vec<Vec<bool>> {
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let real = real_failures();
    let mut abrupt = vec![vec![false; history().steps()]; real.len()];
    let runs = real
        .iter()
        .flat_map(|minutes| minutes.chunk_by(|a, b| a == b));
    for length in runs.filter(|run| run[0]).map(<[bool]>::len) {
        for _ in 0..4 {
            let target = rng.random_range(0..abrupt.len());
            let start = rng.random_range(0..history().steps() - length);
            abrupt[target][start..start + length].fill(true);
        }
    }
    abrupt
}

/// Ranking, probabilities and alarms are worth no more than those of somebody who knows only how frequent failures are.
fn assert_chance(model: &Bundle, what: &str) {
    let metrics = &model.manifest.metrics;
    let value = |path: &str| metrics.pointer(path).and_then(serde_json::Value::as_f64);
    let (base_rate, precision) = (
        value("/base_rate").expect("rows"),
        value("/ensemble/average_precision").expect("both classes"),
    );
    let skill = value("/ensemble/brier_skill").expect("rows");
    // Luck with one of six incidents is worth three times the base rate; what is learned from true labels, far more.
    assert!(
        precision < 4.0 * base_rate,
        "{what}: average precision {precision} at a base rate of {base_rate}"
    );
    assert!(skill < 0.02, "{what}: Brier skill {skill}");
    // An alarm foresees what starts within its horizon: by chance the share of time in alarm.
    for point in ["/at_threshold", "/at_budget/7"] {
        let of = |name: &str| value(&format!("{point}/{name}"));
        assert!(
            of("incidents").is_some_and(|n| n >= 5.0),
            "{what}: too few incidents"
        );
        let chance = of("alarm_time_share").unwrap_or(0.0);
        let lowest = of("intervals/recall/0").unwrap_or(0.0);
        assert!(
            lowest <= chance,
            "{what}: recall is at least {lowest} with {chance} of the time in alarm"
        );
    }
}

/// The incidents of a history, given to other targets at other times: nothing is left to learn.
#[test]
fn labels_without_meaning_teach_nothing() {
    let real = real_failures();
    let mut givers: Vec<usize> = (0..real.len()).collect();
    givers.shuffle(&mut ChaCha8Rng::seed_from_u64(5));
    givers.rotate_left(1);
    let shift = 1440 + 517;
    let history = with_failures(|k, i| real[givers[k]][(i + shift) % real[k].len()], None);
    assert_chance(&train(&history, &small()), "permuted labels");
}

/// The hour of day, which repeats, is all that could help.
#[test]
fn labels_of_another_day_teach_nothing() {
    let real = real_failures();
    let history = with_failures(|k, i| real[k][(i + 1440) % real[k].len()], None);
    assert_chance(&train(&history, &small()), "labels shifted by a day");
}

#[test]
fn failures_without_a_precursor_are_foreseen_by_chance_only() {
    let abrupt = abrupt_failures();
    let history = with_failures(|k, i| abrupt[k][i], None);
    assert_chance(&train(&history, &small()), "abrupt failures");
}

/// One probability for all, the base rate itself: the measures give it no credit and no alarm.
#[test]
fn an_untrained_model_scores_at_the_base_rate() {
    let (plan, bundle) = (plan(), bundle());
    let replay = training::replay(history(), &plan, &|_, _| ());
    let prior = bundle.manifest.training.prior.clone();
    let prior = prior.expect("a trained model knows its prior");
    let p = bundle.manifest.training.base_rate;
    let untrained = Score {
        ensemble: p,
        xgboost: p,
        random_forest: Some(p),
        logistic_regression: Some(p),
    };
    let scores = vec![untrained; replay.features.rows()];
    let slice = (8000, history().steps());
    let evaluation = replay.evaluate(history(), &plan, slice, &scores, &prior, None);
    let base_rate = evaluation.base_rate.expect("rows");
    let ensemble = &evaluation.ensemble;
    let precision = ensemble.ranking.average_precision.expect("both classes");
    assert!(
        (precision / base_rate - 1.0).abs() < 1e-6,
        "{precision} {base_rate}"
    );
    assert_eq!(ensemble.ranking.roc_auc, Some(0.5));
    let skill = ensemble.brier_skill.expect("both classes");
    assert!((-0.05..=0.0).contains(&skill), "Brier skill {skill}");
    assert!(evaluation.at_threshold.incidents >= 5);
    for (budget, point) in &evaluation.at_budget {
        assert_eq!((point.threshold, point.alarms), (None, 0), "{budget}");
    }
    // A model that has learned is far from that on the same rows.
    let learned = bundle.score_rows(&replay.features);
    let evaluation = replay.evaluate(history(), &plan, slice, &learned, &prior, None);
    let ranking = evaluation.ensemble.ranking;
    assert!(ranking.average_precision.expect("both classes") > 5.0 * base_rate);
}

/// The controls above would see it if a feature knew the future.
#[test]
fn a_leak_is_seen() {
    let abrupt = abrupt_failures();
    let soon = |k: usize, i: usize| {
        let until = (i + 31).min(abrupt[k].len());
        f64::from(u8::from(abrupt[k][i..until].contains(&true)))
    };
    let history = with_failures(|k, i| abrupt[k][i], Some(&soon));
    let metrics = train(&history, &small()).manifest.metrics;
    let value = |path: &str| metrics.pointer(path).and_then(serde_json::Value::as_f64);
    let precision = value("/ensemble/average_precision").expect("both classes");
    let base_rate = value("/base_rate").expect("rows");
    assert!(precision > 10.0 * base_rate, "{precision} {base_rate}");
    assert!(value("/ensemble/brier_skill").expect("rows") > 0.3);
    let (recall, chance) = (
        value("/at_threshold/intervals/recall/0").expect("incidents"),
        value("/at_threshold/alarm_time_share").expect("rows"),
    );
    assert!(recall > 2.0 * chance, "{recall} {chance}");
}

/// A backtest that reads further says the same of the days before.
#[test]
fn more_history_changes_no_earlier_answer() {
    let (until, plan, bundle) = (3000, plan(), bundle());
    let replays =
        [&record(0, until), history()].map(|history| training::replay(history, &plan, &|_, _| ()));
    // The newest labels wait for their horizon and for an incident at its end to be confirmed.
    let settled = until - 40;
    let tracks = replays.each_ref().map(|replay| {
        let scores = bundle.score_rows(&replay.features);
        replay.tracks(0, settled, |row| scores[row].ensemble)
    });
    let scored = |track: &forewarn::evaluation::Track| track.scores.iter().flatten().count();
    assert!(tracks[0].iter().map(scored).sum::<usize>() > 20_000);
    for (short, long) in std::iter::zip(&tracks[0], &tracks[1]) {
        let bits = |track: &forewarn::evaluation::Track| -> Vec<Option<u32>> {
            track
                .scores
                .iter()
                .map(|score| score.map(f32::to_bits))
                .collect()
        };
        let target: &TargetId = &short.target;
        assert_eq!(target, &long.target);
        assert!(bits(short) == bits(long), "scores of {target} differ");
        assert!(short.labels == long.labels, "labels of {target} differ");
    }
}
