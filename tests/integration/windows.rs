//! Windows and features under everything that samples do: gaps, late and repeated ones, resets, jumps in time, numbers
//! that are none.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use forewarn::cycle::{Fleet, Settings};
use forewarn::features::Catalogue;
use forewarn::history::{Column, History};
use forewarn::time::Timestamp;
use forewarn::training::{self, Plan};
use forewarn::types::{RiskLevels, ServeMember, Signal, Source, TargetState, Unit};
use forewarn::window::{MARK_EVERY, MARKS, Window};

use super::fleet::{bundle, plan};

const STEP: Duration = Duration::from_secs(60);
const SIGNALS: usize = 7;

/// What a sample may be, ordinary or not.
fn value() -> impl Strategy<Value = f32> {
    let odd = [
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        f32::MIN,
        f32::MIN_POSITIVE,
        0.0,
        -0.0,
    ];
    prop_oneof![
        6 => (0u16..1000).prop_map(|v| f32::from(v) / 10.0),
        1 => any::<f32>(),
        2 => prop::sample::select(odd.to_vec()),
    ]
}

#[derive(Clone, Debug)]
enum Event {
    /// The window moves on by so many steps, or is told a time that has passed.
    Advance(i64),
    /// A sample of so many steps ago, or of a time to come.
    Sample(usize, i64, f32),
    /// Samples of one signal at each of the last steps, up to a reset.
    Ramp(usize, i64, i64),
}

fn event() -> impl Strategy<Value = Event> {
    let signal = || 0..SIGNALS;
    let steps = prop_oneof![20 => Just(1i64), 3 => -3i64..10, 2 => 30i64..150, 1 => 1000i64..3000];
    let lag = prop_oneof![10 => Just(0i64), 5 => -3i64..130, 2 => 100i64..1600];
    prop_oneof![
        4 => steps.prop_map(Event::Advance),
        6 => (signal(), lag, value()).prop_map(|(signal, lag, v)| Event::Sample(signal, lag, v)),
        1 => (signal(), 1i64..140, 1i64..50).prop_map(|(signal, n, reset)| Event::Ramp(signal, n, reset)),
    ]
}

fn at(slot: i64) -> Timestamp {
    Timestamp(slot * 60_000)
}

/// Every sample that counts, by signal and slot; and the newest slot.
#[derive(Default)]
struct Record {
    samples: BTreeMap<(usize, i64), f32>,
    newest: i64,
}

impl Record {
    fn sample(&mut self, window: &mut Window, signal: usize, slot: i64, value: f32) {
        window.set(signal, at(slot), value);
        if value.is_finite() && slot <= self.newest {
            self.samples.insert((signal, slot), value);
        }
    }

    fn is_within(&self, slot: i64, lookback: usize) -> bool {
        self.newest - slot < lookback as i64
    }

    fn is_mark(&self, slot: i64) -> bool {
        let every = MARK_EVERY as i64;
        slot.rem_euclid(every) == 0 && self.newest.div_euclid(every) - slot / every < MARKS as i64
    }

    /// A new window that takes all of them in order.
    fn replayed(&self, mut window: Window) -> Window {
        window.advance(at(self.newest));
        for ((signal, slot), value) in &self.samples {
            window.set(*signal, at(*slot), *value);
        }
        window
    }
}

fn bits(row: &[f32]) -> Vec<u32> {
    row.iter().map(|v| v.to_bits()).collect()
}

fn row(catalogue: &Catalogue, window: &Window, t: Timestamp) -> Vec<f32> {
    let mut row = vec![0.0; catalogue.len()];
    catalogue.compute(window, t, &mut row);
    row
}

/// The seven signals, or others of every unit.
fn catalogue(known: bool) -> Catalogue {
    let own = |(i, unit): (usize, &Unit)| Signal {
        name: format!("own_{i}"),
        unit: *unit,
    };
    match known {
        true => plan().catalogue,
        false => {
            let signals: Vec<Signal> = Unit::ALL.iter().enumerate().map(own).collect();
            Catalogue::new(&signals, STEP, 30 * STEP)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    #[test]
    fn a_window_is_what_its_samples_are_whatever_way_they_came(
        known: bool,
        start in -5000i64..30_000_000,
        events in vec(event(), 1..400),
    ) {
        let catalogue = catalogue(known);
        let lookback = catalogue.lookback();
        let mut window = catalogue.window();
        let mut record = Record { newest: start, ..Record::default() };
        window.set(0, at(start), 1.0);
        window.advance(at(start));
        for event in events {
            match event {
                Event::Advance(steps) => {
                    window.advance(at(record.newest + steps));
                    record.newest = record.newest.max(record.newest + steps);
                }
                Event::Sample(signal, lag, value) => {
                    let slot = record.newest - lag;
                    record.sample(&mut window, signal, slot, value);
                }
                Event::Ramp(signal, steps, reset) => for lag in (0..steps).rev() {
                    let slot = record.newest - lag;
                    record.sample(&mut window, signal, slot, (slot.rem_euclid(reset)) as f32);
                },
            }
        }
        // What fell out while it was on its way is gone for good.
        let kept = |slot| record.is_within(slot, lookback) || record.is_mark(slot);
        let samples = record.samples.iter().filter(|((_, slot), _)| kept(*slot));
        let record = Record { samples: samples.map(|(k, v)| (*k, *v)).collect(), newest: record.newest };

        let t = at(record.newest);
        prop_assert_eq!(window.newest(), Some(t));
        for signal in 0..SIGNALS {
            for lag in 0..lookback {
                let expected = record.samples.get(&(signal, record.newest - lag as i64));
                prop_assert_eq!(window.get(signal, lag), expected.copied(), "{} {} ago", signal, lag);
            }
        }
        let replayed = record.replayed(catalogue.window());
        let features = row(&catalogue, &window, t);
        prop_assert_eq!(bits(&features), bits(&row(&catalogue, &replayed, t)));
        prop_assert_eq!(window.coverage(), replayed.coverage());
        prop_assert_eq!(window.fresh_signals(5), replayed.fresh_signals(5));

        for (column, value) in features.iter().enumerate() {
            let name = catalogue.name(column);
            prop_assert!(!value.is_infinite(), "{} is {}", name, value);
            let is_empty = |signal: &usize| !record.samples.keys().any(|(own, _)| own == signal);
            if catalogue.inputs_of(column).iter().any(is_empty) {
                prop_assert!(value.is_nan(), "{} is {} of nothing", name, value);
            }
        }
    }
}

/// What was said of one target at one time.
#[derive(Clone, Debug)]
struct Cell {
    samples: Vec<Option<f32>>,
    failing: bool,
    excluded: bool,
}

fn cell() -> impl Strategy<Value = Cell> {
    let sample = prop_oneof![5 => value().prop_map(Some), 1 => Just(None)];
    (vec(sample, SIGNALS), 0u16..1000).prop_map(|(samples, said)| Cell {
        samples,
        failing: said < 2,
        excluded: (50..53).contains(&said),
    })
}

/// Stretches of one kind of cell: as they are, without anything, or some signals silent.
fn target(steps: usize) -> impl Strategy<Value = Vec<Cell>> {
    let silent = vec((0..steps, 1usize..130, prop::bits::u8::ANY), 0..4);
    (vec(cell(), steps), silent).prop_map(|(mut cells, silent)| {
        for (from, length, signals) in silent {
            for cell in cells.iter_mut().skip(from).take(length) {
                let silenced = (0..SIGNALS).filter(|signal| signals >> signal & 1 == 1);
                silenced.for_each(|signal| cell.samples[signal] = None);
            }
        }
        cells
    })
}

const STEPS: usize = 260;
/// A Monday, on a full hour.
const START: i64 = 1_767_571_200 / 60;

/// Steps `range` of a recording; series in reverse, and each in two parts of which the later comes first.
fn history(targets: &[Vec<Cell>], range: Range<usize>, reversed: bool) -> History {
    let time = |step: usize| at(START + step as i64);
    let mut history = History::new(SIGNALS, time(range.start), time(range.end - 1), STEP);
    let mut series = Vec::new();
    for (name, cells) in targets.iter().enumerate() {
        let of = |column, value: &dyn Fn(&Cell) -> Option<f64>| {
            let samples = range
                .clone()
                .filter_map(|step| Some((time(step), value(&cells[step])?)));
            // The decoder lets nothing else through.
            let finite = samples.filter(|(_, value)| value.is_finite());
            (name, column, finite.collect::<Vec<_>>())
        };
        for signal in 0..SIGNALS {
            series.push(of(Column::Signal(signal), &|cell| {
                cell.samples[signal].map(f64::from)
            }));
        }
        series.push(of(Column::Failing(Source::Query), &|cell| {
            cell.failing.then_some(1.0)
        }));
        series.push(of(Column::Excluded, &|cell| cell.excluded.then_some(1.0)));
    }
    if reversed {
        series.reverse();
    }
    for (name, column, samples) in &series {
        let (early, late) = samples.split_at(samples.len() / 2);
        let parts = if reversed {
            [late, early]
        } else {
            [early, late]
        };
        for part in parts {
            let inserted = history.insert(*column, &name.to_string(), &Default::default(), part);
            inserted.expect("one series per signal");
        }
    }
    history
}

/// Rows of all targets at each step, as bits.
fn replayed(history: &History, plan: &Plan) -> BTreeMap<(String, usize), Vec<u32>> {
    let replay = training::replay(history, plan, &|_, _| ());
    let mut rows = BTreeMap::new();
    for target in &replay.targets {
        for (step, row) in target.rows.iter().enumerate() {
            if let Some(row) = row {
                let row = replay.features.row(*row);
                assert!(row.iter().all(|v| !v.is_infinite()));
                rows.insert((target.target.to_string(), step), bits(row));
            }
        }
    }
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    #[test]
    fn rows_depend_on_what_was_before_them_and_on_nothing_else(
        targets in vec(target(STEPS), 2),
        cut in 1..STEPS,
        batches in vec(1usize..40, 1..30),
    ) {
        let plan = plan();
        let whole = replayed(&history(&targets, 0..STEPS, false), &plan);
        prop_assert_eq!(&replayed(&history(&targets, 0..STEPS, true), &plan), &whole, "the order of series");

        let before = replayed(&history(&targets, 0..cut, false), &plan);
        let expected: BTreeMap<_, _> = whole.clone().into_iter().filter(|((_, step), _)| *step < cut).collect();
        prop_assert_eq!(before, expected, "what comes after {}", cut);

        let settings = Settings {
            max_targets: 100_000,
            rules: plan.rules,
            limits: plan.limits,
            levels: RiskLevels::default(),
            serve: ServeMember::Ensemble,
        };
        let mut fleet = Fleet::new(bundle(), settings);
        let mut step = 0;
        for batch in batches {
            let until = (step + batch).min(STEPS);
            if step == until {
                break;
            }
            // Steps that are known already come again.
            fleet.ingest(&history(&targets, step.saturating_sub(3)..until, true));
            step = until;
            for assessment in fleet.assess() {
                let trained = whole.get(&(assessment.target.to_string(), step - 1));
                let is_scored = assessment.state == TargetState::Ok;
                prop_assert_eq!(is_scored, trained.is_some());
                prop_assert_eq!(is_scored, assessment.risk.is_some());
                if let (Some(trained), Some(risk)) = (trained, assessment.risk) {
                    let live = assessment.live.read();
                    let served = bundle().features(live.window(), at(START + step as i64 - 1));
                    prop_assert_eq!(&bits(&served), trained);
                    prop_assert!((1e-4..=1.0 - 1e-4).contains(&risk.probability));
                }
            }
        }
    }

    #[test]
    fn a_sample_that_two_series_claim_is_nobodys(
        first in value(),
        second in value(),
        again: bool,
    ) {
        prop_assume!(first.is_finite() && second.is_finite());
        let t = at(START);
        let mut history = History::new(1, t, t, STEP);
        let mut insert = |value| history.insert(Column::Signal(0), "a", &Default::default(), &[(t, f64::from(value))]);
        prop_assert!(insert(first).is_ok());
        prop_assert!(insert(second).is_err());
        prop_assert!(!again || insert(first).is_err());
        prop_assert!(history.targets()[0].1.column(0)[0].is_nan());
    }
}
