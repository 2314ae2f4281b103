use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use forewarn::artifact;
use forewarn::history::{Column, History};
use forewarn::labels::RowLabel;
use forewarn::training::{self, Plan, TrainError};
use forewarn::types::TargetId;

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
    let folder = tempfile::tempdir().expect("a temporary folder");
    let written = |threads: usize| {
        let (made, dir) = (on(threads), folder.path().join(threads.to_string()));
        let run = serde_json::json!({"threads": threads});
        artifact::write(&made.bundle, &dir, &made.card, Some(&made.report), &run)
            .expect("the model is written");
        files(&dir)
    };
    let (mut one, mut two) = (written(1), written(2));
    // When, how long and by what command: the only file that may differ.
    let run = Path::new("run.json");
    assert_ne!(one.remove(run), two.remove(run));
    assert!(one.len() >= 10, "{:?}", one.keys());
    assert!(one == two, "the model directories differ");
}

/// Every file below a folder.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).expect("the folder is readable") {
            let path = entry.expect("the folder is readable").path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path
                    .strip_prefix(dir)
                    .expect("it lies inside")
                    .to_path_buf();
                found.insert(name, fs::read(&path).expect("the file is readable"));
            }
        }
    }
    found
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
