use std::sync::Arc;

use forewarn::bundle::Bundle;
use forewarn::cycle::{Fleet, Settings};
use forewarn::drift::{Drift, ROWS_A_STEP};
use forewarn::history::{Column, History};
use forewarn::time::Timestamp;
use forewarn::tracker::Limits;
use forewarn::types::{RiskLevels, ServeMember, Source};

use super::fleet::{bundle, history, plan};

const DAY: usize = 1440;
/// A day of the training range, and the time before it that a server reads at its start.
const SCORED: std::ops::Range<usize> = 2 * DAY..3 * DAY + 1;
const READ_FROM: usize = DAY / 2;

fn fleet(bundle: Arc<Bundle>) -> Fleet {
    let plan = plan();
    let settings = Settings {
        max_targets: 100_000,
        rules: plan.rules,
        limits: plan.limits,
        levels: RiskLevels::default(),
        serve: ServeMember::Ensemble,
    };
    Fleet::new(bundle, settings)
}

/// Minutes of the history, each signal as `change` has it.
fn part(range: std::ops::Range<usize>, change: &dyn Fn(usize, usize, f32) -> f32) -> History {
    let real = history();
    let mut part = History::new(
        7,
        real.time(range.start),
        real.time(range.end - 1),
        real.step(),
    );
    for (target, recorded) in real.targets() {
        let mut insert = |column, value: &dyn Fn(usize) -> Option<f32>| {
            let samples: Vec<_> = range
                .clone()
                .filter_map(|i| Some((real.time(i), f64::from(value(i)?))))
                .collect();
            part.insert(column, target.as_str(), &Default::default(), &samples)
                .expect("one series per signal");
        };
        for signal in 0..7 {
            let column = recorded.column(signal);
            insert(Column::Signal(signal), &|i| {
                Some(change(signal, i, column[i])).filter(|value| !value.is_nan())
            });
        }
        insert(Column::Failing(Source::Query), &|i| {
            recorded.steps[i].failing.map(|_| 1.0)
        });
    }
    part
}

/// After a day that was served step by step.
fn served(bundle: Arc<Bundle>, change: &dyn Fn(usize, usize, f32) -> f32) -> Option<Drift> {
    let mut fleet = fleet(bundle);
    fleet.ingest(&part(READ_FROM..SCORED.start, change));
    for minute in SCORED {
        fleet.ingest(&part(minute..minute + 1, change));
        fleet.assess();
        if minute == SCORED.start + 19 * 60 {
            assert_eq!(
                fleet.drift(history().time(minute)),
                None,
                "too early to say"
            );
        }
    }
    fleet.drift(history().time(SCORED.end - 1))
}

fn moved(drift: &Drift) -> Vec<&str> {
    let beyond = |one: &&forewarn::drift::FeatureDrift| one.psi > 0.25 && one.psi > one.usual_psi;
    let features = drift.features.iter().filter(beyond);
    features.map(|one| one.feature.as_str()).collect()
}

#[test]
fn a_day_of_the_training_range_has_not_moved() {
    let drift = served(bundle(), &|_, _, value| value).expect("a day was scored");
    assert!(drift.rows > 10_000, "{}", drift.rows);
    assert_eq!(moved(&drift), [""; 0], "{drift:?}");
    assert!(drift.features.iter().all(|one| one.psi < 0.25), "{drift:?}");
    for left_out in ["hour_sin", "is_weekend", "response_time_ms"] {
        let found = drift.features.iter().any(|one| one.feature == left_out);
        assert!(
            !found,
            "{left_out} is not compared: the clock, and levels that no model sees"
        );
    }
}

#[test]
fn another_level_and_missing_samples_are_named() {
    let higher = |signal, _, value: f32| if signal == 1 { value + 25.0 } else { value };
    let drift = served(bundle(), &higher).expect("a day was scored");
    let named = moved(&drift);
    assert!(named.contains(&"memory_usage"), "{drift:?}");
    let of_memory = ["memory", "resource_pressure", "max_utilization"];
    assert!(
        named
            .iter()
            .all(|name| of_memory.iter().any(|of| name.contains(of))),
        "{named:?}"
    );

    let silent = |signal, minute: usize, value: f32| {
        let is_missing = signal == 2 && minute % 60 < 40;
        if is_missing { f32::NAN } else { value }
    };
    let drift = served(bundle(), &silent).expect("a day was scored");
    let named = moved(&drift);
    assert!(named.contains(&"disk_usage"), "{drift:?}");
    let of_disk = ["disk", "resource_pressure", "max_utilization"];
    assert!(
        named
            .iter()
            .all(|name| of_disk.iter().any(|of| name.contains(of))),
        "{named:?}"
    );
}

#[test]
fn a_model_of_an_earlier_build_loads_and_says_nothing_of_drift() {
    let shared = bundle();
    let (mut manifest, mut files) = (shared.manifest.clone(), shared.files());
    let reference = files.remove("reference.json").expect("train writes it");
    manifest.files.remove("reference.json");
    let old = Bundle::from_files(manifest, files.clone()).expect("it is whole");
    assert_eq!(
        (&old.manifest.id, old.files()),
        (&shared.manifest.id, files.clone())
    );
    let served = served(Arc::new(old), &|_, _, value| value);
    assert_eq!(served, None);

    let mut damaged = reference.clone();
    damaged[20] ^= 1;
    files.insert("reference.json".into(), damaged);
    let error = Bundle::from_files(shared.manifest.clone(), files).expect_err("it is damaged");
    assert!(error.to_string().contains("reference.json"), "{error}");
}

/// So many rows of so many targets say nothing that a part of them does not.
#[test]
fn of_many_targets_some_are_counted_at_each_step() {
    let targets = ROWS_A_STEP + 500;
    let mut fleet = Fleet::new(
        bundle(),
        Settings {
            max_targets: 100_000,
            limits: Limits {
                min_signals: 0.0,
                fresh_steps: 1,
                min_coverage: 0.0,
            },
            rules: plan().rules,
            levels: RiskLevels::default(),
            serve: ServeMember::Ensemble,
        },
    );
    let hour = |n: i64| Timestamp::from_secs(n * 3600);
    for n in 0..20 {
        let mut batch = History::new(7, hour(n), hour(n), history().step());
        for target in 0..targets {
            let name = format!("host-{target}");
            batch
                .insert(
                    Column::Signal(0),
                    &name,
                    &Default::default(),
                    &[(hour(n), 20.0)],
                )
                .expect("one series per signal");
        }
        fleet.ingest(&batch);
        let scored = fleet.assess().iter().filter(|a| a.risk.is_some()).count();
        assert_eq!(scored, targets, "all are scored");
    }
    let drift = fleet.drift(hour(21)).expect("a day was scored");
    assert_eq!(drift.rows, 20 * targets as u64 / 2);
}
