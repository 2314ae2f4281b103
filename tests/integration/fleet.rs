use std::sync::{Arc, OnceLock};

use forewarn::bundle::{Bundle, Origin};
use forewarn::config::{Config, Environment};
use forewarn::history::{Column, History};
use forewarn::learning::{self, WriteUp};
use forewarn::simulator::{Fleet, FleetSpec, Sample};
use forewarn::time::Timestamp;
use forewarn::training::{self, Plan};
use forewarn::types::{FailureMode, Source, TargetId};

/// A Monday, on a full step.
pub const ORIGIN: Timestamp = Timestamp(1_767_571_200_000);
pub const MINUTES: usize = 7 * 1440;
const TARGETS: u32 = 12;

/// The demo's config with less of everything.
pub fn config() -> Config {
    let text = std::fs::read_to_string("deploy/demo/config.yaml").expect("the demo has a config");
    let env = Environment::from_iter([("FOREWARN_PROMETHEUS_URL", "http://127.0.0.1:9090")]);
    let mut config =
        Config::parse(&text, "deploy/demo/config.yaml", &env).expect("the demo's config is right");
    config.train.max_rows = 12_000;
    config.train.folds = 2;
    config.train.search = false;
    config.train.xgboost.n_estimators = 40;
    config.train.random_forest.n_estimators = 30;
    config.train.random_forest.max_depth = 8;
    config
}

pub fn plan() -> Plan {
    learning::plan(&config())
}

/// Minutes `from..until` of a fleet's first week, as Prometheus would return them.
pub fn record(from: usize, until: usize) -> History {
    let spec = FleetSpec {
        seed: 11,
        targets: TARGETS,
        origin: ORIGIN.0,
        tick_ms: 60_000,
        unseen_mode: false,
        upcoming: None,
        scenario: None,
    };
    let mut fleet = Fleet::new(&spec);
    let mut history = History::new(
        7,
        spec.time(from as u64),
        spec.time(until as u64 - 1),
        plan().catalogue.step(),
    );
    let mut errors = vec![[0.0; 5]; TARGETS as usize];
    for minute in 0..until {
        let mut samples: Vec<Sample> = Vec::new();
        fleet.advance(|_, sample| samples.push(sample));
        let t = spec.time(minute as u64);
        for (i, sample) in samples.iter().enumerate() {
            errors[i][minute % 5] = sample.reading.map_or(0.0, |r| f64::from(r.errors));
            if minute < from {
                continue;
            }
            let target = TargetId::new(fleet.targets()[i].name());
            let mut insert = |column, value| {
                history
                    .insert(column, target.as_str(), &Default::default(), &[(t, value)])
                    .expect("one series per signal");
            };
            if !sample.up {
                insert(Column::Failing(Source::Query), 0.0);
            }
            if let Some(r) = sample.reading {
                let values = [
                    f64::from(r.cpu_percent),
                    f64::from(r.memory_percent),
                    f64::from(r.disk_percent),
                    f64::from(r.network_latency_ms),
                    errors[i].iter().sum(),
                    f64::from(r.response_time_ms),
                    f64::from(r.active_connections),
                ];
                for (signal, value) in values.into_iter().enumerate() {
                    insert(Column::Signal(signal), value);
                }
            }
            if !sample.up {
                let mode = FailureMode::Query("failure.queries[0]".into());
                history.name_failures(target.as_str(), mode, [t]);
            }
        }
    }
    history
}

pub fn history() -> &'static History {
    static HISTORY: OnceLock<History> = OnceLock::new();
    HISTORY.get_or_init(|| record(0, MINUTES))
}

/// A model of [`history`].
pub fn bundle() -> Arc<Bundle> {
    written().0.clone()
}

/// `card.md` of [`bundle`].
pub fn card() -> &'static str {
    &written().1
}

/// `report.html` of [`bundle`].
pub fn report() -> &'static str {
    &written().2
}

fn written() -> &'static (Arc<Bundle>, String, String) {
    static WRITTEN: OnceLock<(Arc<Bundle>, String, String)> = OnceLock::new();
    WRITTEN.get_or_init(|| {
        let written = write_up(history(), &plan());
        (Arc::new(written.bundle), written.card, written.report)
    })
}

pub fn train(history: &History, plan: &Plan) -> Bundle {
    write_up(history, plan).bundle
}

pub fn write_up(history: &History, plan: &Plan) -> WriteUp {
    let quiet = |_: &str, _: f64| ();
    let replay = training::replay(history, plan, &quiet);
    let labels = replay.report(history, plan);
    let trained = training::train(history, &replay, plan, false, &quiet)
        .expect("a week of failures is enough");
    learning::write_up(
        &config(),
        plan,
        history,
        &replay,
        &labels,
        trained,
        Origin::Simulated,
    )
}
