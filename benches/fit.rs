//! One fit of each member on rows of a simulated fleet, for `benches/fit.sh`: what it costs in CPU, beside Python's on the
//! same matrix, which is left in a folder.
//!
//! Arguments: rows, folder. Prints one JSON object.

mod process;

use std::path::Path;
use std::sync::Mutex;

use serde_json::{Map, json};

use process::cpu;

use forewarn::config::{Config, Environment};
use forewarn::history::{Column, History};
use forewarn::labels::RowLabel;
use forewarn::learning;
use forewarn::model::{self, Matrix, Split, TrainingSet};
use forewarn::simulator::{Fleet, FleetSpec, Sample};
use forewarn::training::{self, Plan};
use forewarn::types::Source;

const DAYS: u64 = 30;
const TICKS: u64 = DAYS * 1440;
/// A Monday.
const ORIGIN: i64 = 1_767_571_200_000;

/// A month of a fleet, as Prometheus would return it.
fn record(plan: &Plan, targets: u32) -> anyhow::Result<History> {
    let spec = FleetSpec {
        seed: 12,
        targets,
        origin: ORIGIN,
        tick_ms: 60_000,
        unseen_mode: false,
        upcoming: None,
        scenario: None,
    };
    let mut fleet = Fleet::new(&spec);
    let mut history = History::new(7, spec.time(0), spec.time(TICKS - 1), plan.catalogue.step());
    let mut errors = vec![[0.0; 5]; targets as usize];
    for tick in 0..TICKS {
        let mut samples: Vec<Sample> = Vec::new();
        fleet.advance(|_, sample| samples.push(sample));
        let t = spec.time(tick);
        for (i, sample) in samples.iter().enumerate() {
            errors[i][tick as usize % 5] = sample.reading.map_or(0.0, |r| f64::from(r.errors));
            let name = fleet.targets()[i].name();
            let mut insert =
                |column, value| history.insert(column, name, &Default::default(), &[(t, value)]);
            let inserted = match sample.reading {
                _ if !sample.up => insert(Column::Failing(Source::Query), 0.0),
                None => Ok(()),
                Some(r) => [
                    f64::from(r.cpu_percent),
                    f64::from(r.memory_percent),
                    f64::from(r.disk_percent),
                    f64::from(r.network_latency_ms),
                    errors[i].iter().sum(),
                    f64::from(r.response_time_ms),
                    f64::from(r.active_connections),
                ]
                .into_iter()
                .enumerate()
                .try_for_each(|(signal, value)| insert(Column::Signal(signal), value)),
            };
            inserted.map_err(|twice| anyhow::anyhow!("{name} twice at {}", twice.at))?;
        }
    }
    Ok(history)
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [rows, folder] = &arguments[..] else {
        anyhow::bail!("arguments: rows, folder");
    };
    let (rows, folder): (usize, &Path) = (rows.parse()?, folder.as_ref());
    let text = std::fs::read_to_string("deploy/demo/config.yaml")?;
    let env = Environment::from_iter([("FOREWARN_PROMETHEUS_URL", "http://127.0.0.1:9090")]);
    let plan = learning::plan(&Config::parse(&text, "deploy/demo/config.yaml", &env)?);

    let history = record(&plan, rows.div_ceil(TICKS as usize * 9 / 10) as u32)?;
    let replay = training::replay(&history, &plan, &|_, _| ());
    drop(history);
    let (mut features, mut labels) = (Matrix::new(plan.catalogue.len()), Vec::new());
    // In the order of time, as in training.
    for step in 0..TICKS as usize {
        for target in &replay.targets {
            let label = match target.labels[step] {
                RowLabel::Positive => true,
                RowLabel::Negative => false,
                RowLabel::Uncertain | RowLabel::Excluded | RowLabel::Censored => continue,
            };
            if let Some(row) = target.rows[step]
                && labels.len() < rows
            {
                labels.push(label);
                features.data.extend_from_slice(replay.features.row(row));
            }
        }
    }
    drop(replay);
    let bytes: Vec<u8> = features.data.iter().flat_map(|x| x.to_le_bytes()).collect();
    std::fs::write(folder.join("features"), bytes)?;
    std::fs::write(
        folder.join("labels"),
        labels.iter().map(|l| u8::from(*l)).collect::<Vec<_>>(),
    )?;

    let inputs: Vec<Vec<usize>> = (0..features.columns)
        .map(|column| plan.catalogue.inputs_of(column).to_vec())
        .collect();
    let weights = vec![1.0; labels.len()];
    let set = TrainingSet {
        features: &features,
        labels: &labels,
        weights: &weights,
        inputs: &inputs,
    };
    let split = Split {
        folds: Vec::new(),
        fit: (0..labels.len()).collect(),
        calibrate: (0..labels.len()).step_by(20).collect(),
    };
    let mut params = plan.fit.clone();
    params.signals_per_tree = 1.0;
    let marks = Mutex::new(vec![("", cpu()?)]);
    let progress = |stage: &str, share: f64| {
        let stage = match (stage, share) {
            ("xgboost", 1.0) => "xgboost",
            ("random_forest", 1.0) => "random_forest",
            ("calibration", 0.0) => "logistic_regression",
            _ => return,
        };
        if let (Ok(mut marks), Ok(now)) = (marks.lock(), cpu()) {
            marks.push((stage, now));
        }
    };
    let fitted = model::fit(&set, &split, &params, &progress)?;
    let marks = marks.into_inner()?;
    let seconds: Map<_, _> = marks
        .windows(2)
        .map(|pair| (pair[1].0.to_owned(), json!(pair[1].1 - pair[0].1)))
        .collect();
    println!(
        "{}",
        json!({
            "rows": labels.len(),
            "columns": features.columns,
            "positives": labels.iter().filter(|label| **label).count(),
            "rounds": fitted.params.xgboost.n_estimators,
            "cpu_seconds": seconds,
        })
    );
    Ok(())
}
