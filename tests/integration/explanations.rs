use std::collections::BTreeMap;
use std::sync::Arc;

use forewarn::bundle::Bundle;
use forewarn::cycle::{Fleet, MAX_EXPLAINED, Settings};
use forewarn::history::{Column, History};
use forewarn::model::{Ensemble, Matrix};
use forewarn::training;
use forewarn::types::{RiskLevels, ServeMember, TargetId};

use super::fleet::{bundle, history, plan};

/// Rows of the test fleet, each second one with every third value lost.
fn rows() -> Matrix {
    let replay = training::replay(history(), &plan(), &|_, _| ());
    let columns: Vec<usize> = (0..replay.features.columns).collect();
    let every = replay.features.rows() / 600;
    let mut rows = replay
        .features
        .select_rows((0..replay.features.rows()).step_by(every), &columns);
    for row in rows.data.chunks_mut(2 * columns.len()) {
        row.iter_mut()
            .take(columns.len())
            .step_by(3)
            .for_each(|x| *x = f32::NAN);
    }
    rows
}

/// One of the two ensembles, from the model's files.
fn ensemble(bundle: &Bundle, folder: &str, names: &[String]) -> Ensemble {
    let files: BTreeMap<String, Vec<u8>> = bundle
        .files()
        .into_iter()
        .filter_map(|(name, bytes)| {
            Some((
                name.strip_prefix(folder)?.strip_prefix('/')?.to_string(),
                bytes,
            ))
        })
        .collect();
    Ensemble::from_files(&files, names).expect("its own files fit")
}

#[test]
fn contributions_and_bias_are_the_score_of_both_ensembles() {
    let (bundle, rows) = (bundle(), rows());
    let names = bundle.catalogue.names();
    let snapshot_columns = bundle.catalogue.snapshot_columns();
    let snapshot_names: Vec<String> = snapshot_columns.iter().map(|&c| names[c].clone()).collect();
    for (ensemble, rows) in [
        (ensemble(&bundle, "full", &names), rows.clone()),
        (
            ensemble(&bundle, "snapshot", &snapshot_names),
            rows.select(&snapshot_columns),
        ),
    ] {
        let shap = ensemble.shap();
        let mut differ = 0;
        for i in 0..rows.rows() {
            let row = rows.row(i);
            let mut paths = vec![0.0; rows.columns];
            let mut values = vec![0.0; rows.columns];
            let path_bias = ensemble.explain(row, &mut paths);
            let shap_bias = shap.explain(row, &mut values);
            let score = ensemble.stack_score(row);
            for (bias, contributions) in [(path_bias, &paths), (shap_bias, &values)] {
                let sum = bias + contributions.iter().sum::<f64>();
                assert!((sum - score).abs() < 1e-6, "row {i}: {sum} is not {score}");
            }
            // Both start from the mean of the rows that were fitted.
            assert!((path_bias - shap_bias).abs() < 1e-5);
            differ += usize::from(paths.iter().zip(&values).any(|(a, b)| (a - b).abs() > 1e-3));
        }
        assert!(rows.rows() > 500 && differ > rows.rows() / 2, "{differ}");
    }
}

#[test]
fn shap_importance_is_the_mean_of_the_contributions() {
    let (bundle, rows) = (bundle(), rows());
    let shap = bundle.shap();
    let contributions = shap.contributions(&rows);
    let importance = shap.importance(&rows);
    assert_eq!(importance.len(), rows.columns);
    assert!(importance.windows(2).all(|pair| pair[0].1 >= pair[1].1));
    let column = |name: &str| bundle.catalogue.names().iter().position(|n| n == name);
    for (name, mean) in &importance[..5] {
        let column = column(name).expect("a feature of the catalogue");
        let sum: f64 = contributions
            .iter()
            .skip(column)
            .step_by(rows.columns)
            .map(|x| x.abs())
            .sum();
        assert!((sum / rows.rows() as f64 - mean).abs() < 1e-12, "{name}");
    }
}

/// Minutes 3000 to 3200 of the shared history, each target under many names.
fn crowd(copies: usize) -> History {
    let real = history();
    let (from, until) = (3000, 3200);
    let mut crowd = History::new(7, real.time(from), real.time(until - 1), real.step());
    for (name, recorded) in real.targets() {
        for copy in 0..copies {
            let target = TargetId::new(format!("{name}-{copy}"));
            for signal in 0..7 {
                let samples: Vec<_> = (from..until)
                    .map(|i| (real.time(i), recorded.column(signal)[i]))
                    .filter(|(_, x)| !x.is_nan())
                    // No two alike, so that none has the same probability.
                    .map(|(t, x)| (t, f64::from(x) * (1.0 - 0.02 * copy as f64)))
                    .collect();
                crowd
                    .insert(
                        Column::Signal(signal),
                        target.as_str(),
                        &Default::default(),
                        &samples,
                    )
                    .expect("one series per signal");
            }
        }
    }
    crowd
}

#[test]
fn a_cycle_explains_the_riskiest_targets_and_no_more_than_so_many() {
    let plan = plan();
    let crowd = crowd(12);
    let assess = |threshold: f64| {
        let shared = bundle();
        let mut manifest = shared.manifest.clone();
        manifest.threshold.probability = threshold;
        let bundle = Bundle::from_files(manifest, shared.files()).expect("its own files fit");
        let settings = Settings {
            max_targets: 100_000,
            rules: plan.rules,
            limits: plan.limits,
            levels: RiskLevels::default(),
            serve: ServeMember::Ensemble,
        };
        let mut fleet = Fleet::new(Arc::new(bundle), settings);
        fleet.ingest(&crowd);
        let mut risks: Vec<_> = fleet.assess().into_iter().filter_map(|a| a.risk).collect();
        risks.sort_by(|a, b| b.probability.total_cmp(&a.probability));
        risks
    };

    let risks = assess(0.0);
    assert!(risks.len() > MAX_EXPLAINED, "{} targets", risks.len());
    let explained = |i: usize| !risks[i].reasons.is_empty();
    assert!((0..MAX_EXPLAINED).all(explained));
    for (i, risk) in risks.iter().enumerate().skip(MAX_EXPLAINED) {
        assert!(!explained(i) || risk.probability == risks[MAX_EXPLAINED - 1].probability);
    }
    let count = (0..risks.len()).filter(|&i| explained(i)).count();
    assert_eq!(count, MAX_EXPLAINED);
    for risk in &risks[..MAX_EXPLAINED] {
        assert_eq!(risk.reasons.len(), 3);
        let sizes: Vec<f64> = risk.reasons.iter().map(|r| r.contribution.abs()).collect();
        assert!(sizes.is_sorted_by(|a, b| a >= b), "{sizes:?}");
    }

    // From the alert threshold where that is low, from 0.4 where it is high.
    let middle = risks[40].probability;
    for (threshold, from) in [(middle, middle.min(0.4)), (1.0, 0.4)] {
        for risk in assess(threshold) {
            assert_eq!(
                !risk.reasons.is_empty(),
                risk.probability >= from,
                "{} against {from}",
                risk.probability
            );
        }
    }
}
