use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use forewarn::history::{Column, History};
use forewarn::labels::RowLabel;
use forewarn::training::{self, Plan, TrainError};
use forewarn::types::{Source, TargetId};

use super::fleet::{bundle, history, plan, train, write_up};

#[test]
fn the_same_data_and_seed_give_the_same_bytes_on_one_thread_and_on_two() {
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("a pool of threads");
        pool.install(|| write_up(history(), &plan()))
    };
    let (one, two) = (on(1), on(2));
    assert!(one.card == two.card, "card.md differs");
    assert!(one.report == two.report, "report.html differs");
    let (one, two) = (one.bundle, two.bundle);
    assert_eq!(one.manifest.id, two.manifest.id);
    assert_eq!(one.files(), two.files());
    let json = |bundle: &forewarn::bundle::Bundle| {
        serde_json::to_string(&bundle.manifest).expect("a manifest is JSON")
    };
    assert_eq!(json(&one), json(&two));
}

#[test]
fn another_seed_gives_another_model() {
    let mut other = plan();
    other.fit.seed += 1;
    assert_ne!(bundle().manifest.id, train(history(), &other).manifest.id);
}

#[test]
fn the_model_ranks_failures_above_health_and_beats_the_coin() {
    let metrics = &bundle().manifest.metrics;
    let value = |path: &str| {
        metrics
            .pointer(path)
            .and_then(serde_json::Value::as_f64)
            .unwrap_or_else(|| panic!("no {path} in {metrics}"))
    };
    let auc = value("/ensemble/roc_auc");
    assert!(auc > 0.7, "ROC AUC {auc}");
    assert!(value("/ensemble/brier_skill") > 0.0);
    let coin = value("/baselines/random/roc_auc");
    assert!((coin - 0.5).abs() < 0.1, "a coin has ROC AUC {coin}");
    assert!(
        value("/ensemble/average_precision") > 3.0 * value("/baselines/random/average_precision")
    );
}

/// The incidents of a history, given to other targets at other times: nothing is left to learn.
#[test]
fn labels_without_meaning_teach_nothing() {
    let real = history();
    let mut shuffled = History::new(7, real.time(0), real.time(real.steps() - 1), real.step());
    let names: Vec<&TargetId> = real.targets().keys().collect();
    let mut givers = names.clone();
    givers.shuffle(&mut ChaCha8Rng::seed_from_u64(5));
    givers.rotate_left(1);
    for (name, giver) in names.iter().zip(givers) {
        let (own, other) = (&real.targets()[*name], &real.targets()[giver]);
        let mut insert = |column, samples: &[_]| {
            shuffled
                .insert(column, (*name).clone(), vec![], samples)
                .expect("one series per signal")
        };
        for signal in 0..7 {
            let column = own.column(signal).iter().enumerate();
            // A failing target answers nothing: its gap would give the label away.
            let samples: Vec<_> = column
                .filter(|(i, v)| !v.is_nan() && other.failing[*i].is_none())
                .map(|(i, v)| (real.time(i), f64::from(*v)))
                .collect();
            insert(Column::Signal(signal), &samples);
        }
        let shift = 1440 + 517;
        let failing: Vec<_> = (0..real.steps())
            .filter(|&i| other.failing[(i + shift) % real.steps()].is_some())
            .map(|i| (real.time(i), 1.0))
            .collect();
        insert(Column::Failing(Source::Query), &failing);
    }
    let metrics = train(&shuffled, &plan()).manifest.metrics;
    let value = |path: &str| metrics.pointer(path).and_then(serde_json::Value::as_f64);
    let (base_rate, precision) = (
        value("/base_rate").expect("rows"),
        value("/ensemble/average_precision").expect("both classes"),
    );
    assert!(
        precision < 5.0 * base_rate,
        "average precision {precision} at a base rate of {base_rate}"
    );
    assert!(value("/ensemble/brier_skill").expect("rows") < 0.02);
}

#[test]
fn too_little_to_learn_from_is_said_in_words() {
    let quiet = |_: &str, _: f64| ();
    let refusal = |history: &History, plan: &Plan| {
        let replay = training::replay(history, plan, &quiet);
        match training::train(history, &replay, plan, false, &quiet) {
            Err(error) => error,
            Ok(_) => panic!("it trained"),
        }
    };
    let plan = plan();
    let empty = History::new(7, history().time(0), history().time(9000), history().step());
    assert!(matches!(refusal(&empty, &plan), TrainError::NoTargets));

    let short = super::fleet::record(0, 600);
    let message = refusal(&short, &plan).to_string();
    assert!(message.contains("is too short"), "{message}");

    let mut healthy = History::new(7, history().time(0), history().time(9000), history().step());
    let samples: Vec<_> = (0..9000).map(|i| (history().time(i), 10.0)).collect();
    for signal in 0..7 {
        healthy
            .insert(Column::Signal(signal), TargetId::new("a"), vec![], &samples)
            .expect("one series per signal");
    }
    let message = refusal(&healthy, &plan).to_string();
    assert!(
        message.starts_with("0 incidents are too few to learn from"),
        "{message}"
    );
}

#[test]
fn the_last_horizon_of_a_target_that_vanished_is_censored() {
    let (plan, real) = (plan(), history());
    let mut history = History::new(7, real.time(0), real.time(999), real.step());
    for (name, minutes) in [("gone", 0..600), ("here", 0..1000)] {
        let samples: Vec<_> = minutes.map(|i| (real.time(i), 10.0)).collect();
        for signal in 0..7 {
            history
                .insert(
                    Column::Signal(signal),
                    TargetId::new(name),
                    vec![],
                    &samples,
                )
                .expect("one series per signal");
        }
    }
    let replay = training::replay(&history, &plan, &|_, _| ());
    for (target, last) in replay.targets.iter().zip([599, 999]) {
        assert_eq!(target.labels[last - 30], RowLabel::Negative);
        assert!(
            target.labels[last - 29..]
                .iter()
                .all(|l| *l == RowLabel::Censored)
        );
    }
}

#[test]
fn blocks_of_rows_score_as_single_rows_do() {
    let (bundle, replay) = (bundle(), training::replay(history(), &plan(), &|_, _| ()));
    let columns: Vec<usize> = (0..replay.features.columns).collect();
    let rows = replay.features.select_rows((0..5000).step_by(7), &columns);
    let (full, snapshot) = (bundle.score_rows(&rows), bundle.score_snapshot_rows(&rows));
    assert_eq!((full.len(), snapshot.len()), (rows.rows(), rows.rows()));
    for i in 0..rows.rows() {
        assert_eq!(full[i], bundle.score(rows.row(i)));
        assert_eq!(snapshot[i], bundle.score_snapshot(rows.row(i)));
    }
}
