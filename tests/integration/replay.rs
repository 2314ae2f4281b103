use std::ops::Range;
use std::time::Duration;

use forewarn::cycle::{Fleet, Settings};
use forewarn::history::{Column, History};
use forewarn::time::Timestamp;
use forewarn::training::{self, Plan, Replay};
use forewarn::types::{RiskLevels, ServeMember, Source, TargetId, TargetState};

use super::fleet::{bundle, history, plan, record};

fn replayed(history: &History) -> Replay {
    training::replay(history, &plan(), &|_, _| ())
}

fn row<'a>(replay: &'a Replay, target: &TargetId, index: usize) -> Option<&'a [f32]> {
    let rows = replay.targets.iter().find(|t| t.target == *target)?;
    rows.rows[index].map(|row| replay.features.row(row))
}

fn bits(row: &[f32]) -> Vec<u32> {
    row.iter().map(|v| v.to_bits()).collect()
}

fn settings(plan: &Plan) -> Settings {
    Settings {
        max_targets: 100_000,
        rules: plan.rules,
        limits: plan.limits,
        levels: RiskLevels::default(),
        serve: ServeMember::Ensemble,
    }
}

/// A day in the history, fed to the serving path in uneven batches as cycles and outages would.
#[test]
fn serving_computes_bit_identical_rows() {
    let (history, bundle, plan) = (history(), bundle(), plan());
    let replay = replayed(history);
    let settings = settings(&plan);
    let mut fleet = Fleet::new(bundle.clone(), settings);
    let (mut compared, mut at) = (0, 0);
    for batch in [600, 1, 1, 1, 7, 1, 130, 1, 1, 300, 1, 2, 1, 1, 400, 1]
        .iter()
        .cycle()
        .take(60)
    {
        fleet.ingest(&record(at, at + batch));
        at += batch;
        if at > 4000 {
            break;
        }
        let t = history.time(at - 1);
        for assessment in fleet.assess() {
            let trained = row(&replay, &assessment.target, at - 1);
            assert_eq!(
                assessment.state == TargetState::Ok,
                trained.is_some(),
                "{} at {t}",
                assessment.target
            );
            if let Some(trained) = trained {
                let served = bundle.features(assessment.live.read().window(), t);
                assert_eq!(bits(&served), bits(trained), "{} at {t}", assessment.target);
                compared += 1;
            }
        }
    }
    assert!(compared > 100, "only {compared} rows were compared");
}

#[test]
fn later_samples_change_no_earlier_row() {
    let (long, short) = (history(), record(0, 2000));
    let (long, short) = (replayed(long), replayed(&short));
    for target in &short.targets {
        for index in 0..2000 {
            let (a, b) = (
                row(&short, &target.target, index),
                row(&long, &target.target, index),
            );
            assert_eq!(a.map(bits), b.map(bits), "{} at {index}", target.target);
        }
    }
}

#[test]
fn a_server_that_starts_later_sees_the_same_rows_once_its_backfill_is_full() {
    let (history, bundle, plan) = (history(), bundle(), plan());
    let replay = replayed(history);
    let settings = settings(&plan);
    let mut fleet = Fleet::new(bundle.clone(), settings);
    let backfill = (fleet.backfill().as_secs() / 60) as usize + 1;
    let mut scored = 0;
    for start in (1600..6000).step_by(617) {
        fleet = Fleet::new(bundle.clone(), settings);
        fleet.ingest(&record(start, start + backfill));
        let t = history.time(start + backfill - 1);
        fleet.recall(&marks(history, fleet.marks_before(t)));
        for assessment in fleet.assess() {
            if let Some(trained) = row(&replay, &assessment.target, start + backfill - 1) {
                assert_eq!(
                    assessment.state,
                    TargetState::Ok,
                    "{} at {t}",
                    assessment.target
                );
                assert_eq!(
                    bits(&bundle.features(assessment.live.read().window(), t)),
                    bits(trained),
                    "{} at {t}",
                    assessment.target
                );
                scored += 1;
            }
        }
    }
    assert!(scored > 50, "only {scored} rows were compared");
}

/// What a query for marks would return of a history.
fn marks(history: &History, (first, last, step): (Timestamp, Timestamp, Duration)) -> History {
    let mut marks = History::new(7, first, last, step);
    for (target, recorded) in history.targets() {
        for signal in 0..7 {
            let samples: Vec<_> = marks
                .times()
                .filter_map(|t| Some((t, f64::from(recorded.column(signal)[history.index(t)?]))))
                .filter(|(_, value)| !value.is_nan())
                .collect();
            marks
                .insert(
                    Column::Signal(signal),
                    target.as_str(),
                    &Default::default(),
                    &samples,
                )
                .expect("one series per signal");
        }
    }
    marks
}

/// Minutes `range` of a history in which the first target says nothing at all in `silent`.
fn part(history: &History, range: Range<usize>, silent: &Range<usize>) -> History {
    let (start, end) = (history.time(range.start), history.time(range.end - 1));
    let mut part = History::new(7, start, end, history.step());
    for (k, (target, recorded)) in history.targets().iter().enumerate() {
        let mut insert = |column, value: &dyn Fn(usize) -> Option<f32>| {
            let samples: Vec<_> = range
                .clone()
                .filter(|i| k > 0 || !silent.contains(i))
                .filter_map(|i| Some((history.time(i), f64::from(value(i)?))))
                .collect();
            part.insert(column, target.as_str(), &Default::default(), &samples)
                .expect("one series per signal");
        };
        for signal in 0..7 {
            let column = recorded.column(signal);
            insert(Column::Signal(signal), &|i| {
                Some(column[i]).filter(|v| !v.is_nan())
            });
        }
        insert(Column::Failing(Source::Query), &|i| {
            recorded.steps[i].failing.map(|_| 1.0)
        });
    }
    part
}

#[test]
fn a_target_that_was_silent_for_a_while_comes_back_as_training_has_it() {
    let (history, bundle, plan) = (history(), bundle(), plan());
    let silent = 1010..1030;
    let replay = replayed(&part(history, 0..1100, &silent));
    let target = history.targets()[0].0;
    let settings = settings(&plan);
    let mut fleet = Fleet::new(bundle.clone(), settings);
    fleet.ingest(&part(history, 0..1000, &silent));
    let (mut gone, mut scored) = (0, 0);
    for at in 1000..1100 {
        fleet.ingest(&part(history, at..at + 1, &silent));
        let assessed = fleet.assess();
        let Some(own) = assessed.iter().find(|a| a.target == *target) else {
            assert!(silent.contains(&at), "gone at {at}");
            gone += 1;
            continue;
        };
        let trained = row(&replay, target, at);
        assert_eq!(own.state == TargetState::Ok, trained.is_some(), "at {at}");
        if let Some(trained) = trained {
            let served = bundle.features(own.live.read().window(), history.time(at));
            assert_eq!(bits(&served), bits(trained), "at {at}");
            scored += usize::from(at >= silent.end);
        }
    }
    assert!(gone > 10 && scored > 30, "{gone} {scored}");
}
