use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use forewarn::artifact;
use forewarn::history::{Column, History};
use forewarn::labels::RowLabel;
use forewarn::training::{self, LabelReport, Plan, TrainError};
use forewarn::types::{FailureMode, Source};

use super::fleet::{bundle, history, plan, record, train, write_up};

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
    assert!(one.len() >= 11, "{:?}", one.keys());
    assert!(one.contains_key(Path::new("reference.json")));
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
            .insert(Column::Signal(signal), "a", &Default::default(), &samples)
            .expect("one series per signal");
    }
    let message = refusal(&healthy, &plan).to_string();
    assert!(
        message.starts_with("0 incidents are too few to learn from"),
        "{message}"
    );
}

/// Minutes of the signals that `sample` makes up, with failures where `fails` says so.
fn made_up(
    targets: &[&str],
    sample: impl Fn(&str, usize, usize) -> Option<f64>,
    fails: impl Fn(&str, usize) -> bool,
) -> History {
    let (real, minutes) = (history(), 2000);
    let mut made = History::new(7, real.time(0), real.time(minutes - 1), real.step());
    for name in targets {
        let mut insert = |column, value: &dyn Fn(usize) -> Option<f64>| {
            let samples: Vec<_> = (0..minutes)
                .filter_map(|i| Some((real.time(i), value(i)?)))
                .collect();
            made.insert(column, name, &Default::default(), &samples)
                .expect("one series per signal");
        };
        for signal in 0..7 {
            insert(Column::Signal(signal), &|i| sample(name, signal, i));
        }
        insert(Column::Failing(Source::Query), &|i| {
            fails(name, i).then_some(1.0)
        });
    }
    made
}

fn labels_of(history: &History) -> LabelReport {
    let plan = plan();
    training::replay(history, &plan, &|_, _| ()).report(history, &plan)
}

#[test]
fn what_nothing_can_be_learned_from_is_refused_in_words() {
    let lively = |_: &str, signal: usize, i: usize| Some((i * (signal + 3) % 50) as f64);
    let at_times = |_: &str, i: usize| i % 400 == 399;
    for (what, made, force, expected) in [
        (
            "healthy",
            made_up(&["a", "b"], lively, |_, _| false),
            true,
            "no incident from 2026-01-05T00:00:00Z",
        ),
        (
            "always failing",
            made_up(&["a", "b"], lively, |_, _| true),
            true,
            "probably inverted",
        ),
        // Healthy at the start, and hence with incidents that have rows before them.
        (
            "mostly failing",
            made_up(&["a", "b"], lively, |_, i| i > 800),
            false,
            "probably inverted",
        ),
        (
            "two incidents",
            made_up(&["a", "b"], lively, |_, i| i == 900),
            false,
            "2 incidents from",
        ),
        (
            "no sample before an incident",
            made_up(
                &["a", "b"],
                |n, s, i| lively(n, s, i).filter(|_| i % 400 < 200),
                at_times,
            ),
            false,
            "none of the 10 incidents has enough samples",
        ),
        (
            "no sample at all",
            made_up(&["a"], |_, _, i| (i == 0).then_some(1.0), at_times),
            false,
            "no target can be scored at any time",
        ),
        (
            "an incident after every row",
            // Up to the first there are too few samples, and after the last nobody knows.
            made_up(
                &["a"],
                |n, s, i| lively(n, s, i).filter(|_| i > 900),
                |_, i| i >= 900 && i % 75 == 0,
            ),
            false,
            "an incident follows every one",
        ),
    ] {
        let report = labels_of(&made);
        let refusal = report
            .refusal(force)
            .unwrap_or_else(|| panic!("{what}: {report:?}"));
        assert!(refusal.contains(expected), "{what}: {refusal}");
    }
    let enough = labels_of(&made_up(&["a", "b"], lively, at_times));
    assert_eq!(enough.refusal(false), None, "{enough:?}");
    let verdict = enough.verdict();
    assert!(
        verdict.contains(" of 10 incidents have samples"),
        "{verdict}"
    );
    assert!(!verdict.contains("too few"), "{verdict}");
    let two = labels_of(&made_up(&["a", "b"], lively, |_, i| i == 900));
    assert_eq!(two.refusal(true), None, "forced");
}

#[test]
fn the_label_report_says_what_looks_wrong() {
    let sample = |name: &str, signal: usize, i: usize| match (name, signal) {
        ("blind", _) | (_, 3) => None,
        // Nothing to see before it fails.
        ("late", _) if i < 500 => None,
        (_, 4) => Some(7.5),
        (_, 5) => Some(if i.is_multiple_of(2) {
            f64::INFINITY
        } else {
            f64::NAN
        }),
        _ => Some((i * (signal + 3) % 50) as f64),
    };
    let fails = |name: &str, i: usize| match name {
        "late" => i == 500,
        "blind" => i == 900,
        "twice" => i == 600 || i == 1200,
        _ => false,
    };
    let report = labels_of(&made_up(&["blind", "late", "twice", "well"], sample, fails));
    assert_eq!(
        report.incidents_by_month,
        [("2026-01".to_string(), 4)].into()
    );
    assert_eq!(report.incidents_by_source, [("query", 4)].into());
    assert_eq!(report.incidents_by_target["twice"], 2);
    assert_eq!((report.incidents, report.incidents_with_history), (4, 2));
    assert_eq!(
        (report.positives, report.positives_without_history),
        (60, 60)
    );
    let text = forewarn::learning::label_report(&report);
    for expected in [
        "warning: 4 incidents are too few for figures to trust",
        "warning: blind fail but have no sample of any signal",
        "warning: late have incidents but never enough samples before one",
        "warning: the signal network_latency_ms has no sample at all",
        "warning: the signal error_count is always 7.5",
        "warning: the signal response_time_ms has no sample at all",
        "by month: 2026-01 4",
        "by source: query 4",
        "verdict  too few failures to learn from: 2 of 4 incidents have samples before them",
        "another failure definition",
        "a longer range",
        "the shipped model",
    ] {
        assert!(text.contains(expected), "no {expected:?} in {text}");
    }
    assert_eq!(report.warnings.len(), 6, "{text}");
}

/// NaN and infinite samples, timestamps twice, a target with two samples, one without any, a hole in the range.
#[test]
fn dirty_samples_are_missing_ones_and_training_goes_on() {
    let real = history();
    let mut dirty = History::new(7, real.time(0), real.time(real.steps() - 1), real.step());
    for (k, (target, recorded)) in real.targets().iter().enumerate() {
        for signal in 0..7 {
            let column = recorded.column(signal);
            let samples: Vec<_> = (0..real.steps())
                .filter(|i| !(4000..4200).contains(i))
                .map(|i| {
                    let value = match (i * 7 + k + signal) % 500 {
                        0 => f64::INFINITY,
                        1 => f64::NEG_INFINITY,
                        2 => f64::NAN,
                        3 => 1e300,
                        _ => f64::from(column[i]),
                    };
                    (real.time(i), value)
                })
                .collect();
            let column = Column::Signal(signal);
            dirty
                .insert(column, target.as_str(), &Default::default(), &samples)
                .expect("each timestamp once");
            let twice = &samples[k * 10..k * 10 + 9];
            assert!(
                dirty
                    .insert(column, target.as_str(), &Default::default(), twice)
                    .is_err()
            );
        }
        let failing: Vec<_> = (0..real.steps())
            .filter(|&i| recorded.steps[i].failing.is_some())
            .map(|i| (real.time(i), 1.0))
            .collect();
        dirty
            .insert(
                Column::Failing(Source::Query),
                target.as_str(),
                &Default::default(),
                &failing,
            )
            .expect("failures cannot be told twice");
    }
    let two = [(real.time(100), 1.0), (real.time(5000), 2.0)];
    for (name, column) in [
        ("two samples", Column::Signal(0)),
        ("no signals", Column::Failing(Source::Query)),
    ] {
        dirty
            .insert(column, name, &Default::default(), &two)
            .expect("one series");
    }
    let metrics = train(&dirty, &plan()).manifest.metrics;
    let auc = metrics["ensemble"]["roc_auc"].as_f64();
    let clean = bundle().manifest.metrics["ensemble"]["roc_auc"].as_f64();
    let clean = clean.expect("the clean history is ranked");
    assert!(
        auc > Some(clean - 0.05),
        "{auc:?}, and {clean} without the dirt"
    );
    assert_eq!(metrics["labels"]["targets"], real.targets().len() + 2);
}

#[test]
fn failure_modes_reach_neither_features_nor_labels() {
    let mut named = record(0, 2000);
    let plain = named.clone();
    for (target, recorded) in plain.targets() {
        let failing = (0..plain.steps()).filter(|&i| recorded.steps[i].failing.is_some());
        for (n, i) in failing.enumerate() {
            let mode = FailureMode::Named(format!("mode-{}", n % 3));
            named.name_failures(target.as_str(), mode, [plain.time(i)]);
        }
    }
    let replay = |history| training::replay(history, &plan(), &|_, _| ());
    let (named, plain) = (replay(&named), replay(&plain));
    let bits = |replay: &training::Replay| -> Vec<u32> {
        replay.features.data.iter().map(|v| v.to_bits()).collect()
    };
    assert_eq!(bits(&named), bits(&plain));
    for (a, b) in named.targets.iter().zip(&plain.targets) {
        assert_eq!((&a.labels, &a.incidents), (&b.labels, &b.incidents));
    }
}

#[test]
fn the_last_horizon_of_a_target_that_vanished_is_censored() {
    let (plan, real) = (plan(), history());
    let mut history = History::new(7, real.time(0), real.time(999), real.step());
    for (name, minutes) in [("gone", 0..600), ("here", 0..1000)] {
        let samples: Vec<_> = minutes.map(|i| (real.time(i), 10.0)).collect();
        for signal in 0..7 {
            history
                .insert(Column::Signal(signal), name, &Default::default(), &samples)
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
