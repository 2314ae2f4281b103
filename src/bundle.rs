//! A model ready to score, and what its manifest says of it. Pure: the files of a model are bytes by name here.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::assessment::Reason;
use crate::drift::Reference;
use crate::evaluation::baselines::Prior;
use crate::features::{Catalogue, FeatureSpec};
use crate::model::{Ensemble, EnsembleShap, LoadError, Matrix, RawScore, Score};
use crate::time::{Timestamp, format_duration};
use crate::types::{ServeMember, Signal};
use crate::window::Window;

pub const FORMAT_VERSION: u32 = 1;

const REFERENCE: &str = "reference.json";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    pub format_version: u32,
    /// End of the training range and a hash of the files that it scores with.
    pub id: String,
    pub forewarn_version: String,
    pub origin: Origin,
    pub signals: Vec<SignalSource>,
    pub features: Vec<FeatureSpec>,
    pub step_seconds: f64,
    pub horizon_seconds: f64,
    pub label: LabelDefinition,
    pub training: TrainingFacts,
    pub threshold: Threshold,
    pub best_member: String,
    /// The report of `train`: test slice, event level, baselines.
    pub metrics: serde_json::Value,
    /// SHA-256 of each file, by path inside the directory.
    pub files: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Origin {
    /// Trained on the simulated fleet: never pages.
    Simulated,
    History,
    Imported,
}

impl Origin {
    pub fn name(self) -> &'static str {
        match self {
            Origin::Simulated => "simulated",
            Origin::History => "history",
            Origin::Imported => "imported",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalSource {
    #[serde(flatten)]
    pub signal: Signal,
    pub query: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LabelDefinition {
    pub queries: Vec<String>,
    pub alerts: Vec<BTreeMap<String, String>>,
    pub min_duration_seconds: f64,
    pub merge_gap_seconds: f64,
    pub recovery_seconds: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TrainingFacts {
    pub start: String,
    pub end: String,
    pub targets: usize,
    pub rows: usize,
    pub incidents: usize,
    pub base_rate: f64,
    /// What the baselines learned from the same rows; unknown of an imported model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prior: Option<Prior>,
    pub seed: u64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Threshold {
    pub probability: f64,
    pub false_alarms_per_target_week: f64,
}

impl Threshold {
    /// The threshold at which alarms open; `None` when none was within the budget and nothing pages.
    pub fn alarming(&self) -> Option<f64> {
        (self.probability < 1.0).then_some(self.probability)
    }

    /// Whether a probability is at it or above.
    pub fn is_reached(&self, probability: f64) -> bool {
        self.alarming()
            .is_some_and(|threshold| probability >= threshold)
    }
}

impl Manifest {
    pub fn step(&self) -> Duration {
        Duration::from_secs_f64(self.step_seconds)
    }

    pub fn horizon(&self) -> Duration {
        Duration::from_secs_f64(self.horizon_seconds)
    }

    pub fn trained_until(&self) -> Option<Timestamp> {
        instant(&self.training.end)
    }

    /// Whether the model has learned from an instant of `start..=end`; `None` when the manifest does not say.
    pub fn learned_from(&self, start: Timestamp, end: Timestamp) -> Option<bool> {
        let (first, last) = (instant(&self.training.start)?, self.trained_until()?);
        Some(start <= last && end >= first)
    }

    /// Why this model cannot score what the config describes; `None` when it can.
    pub fn misfit(&self, signals: &[Signal], step: Duration, horizon: Duration) -> Option<String> {
        let duration = |name: &str, model: Duration, config: Duration| {
            (model != config).then(|| {
                format!(
                    "{name} is {} in the model and {} in the config",
                    format_duration(model),
                    format_duration(config)
                )
            })
        };
        let own: Vec<&Signal> = self.signals.iter().map(|s| &s.signal).collect();
        let missing = own.iter().find(|s| !signals.contains(s)).map(|s| {
            format!(
                "the model reads the signal {} ({}), which the config does not define so",
                s.name,
                s.unit.name()
            )
        });
        let surplus = signals.iter().find(|s| !own.contains(s)).map(|s| {
            format!(
                "the config defines the signal {} ({}), which the model does not know so",
                s.name,
                s.unit.name()
            )
        });
        // Samples are stored and scored by position.
        let order = own.iter().zip(signals).find(|(a, b)| **a != *b).map(|(a, b)| {
            format!(
                "where the model has the signal {}, the config has {}; bring them into the model's order",
                a.name, b.name
            )
        });
        duration("step", self.step(), step)
            .or_else(|| duration("horizon", self.horizon(), horizon))
            .or(missing)
            .or(surplus)
            .or(order)
            .map(|why| format!("model {} does not fit the config: {why}; train one with `forewarn train`, or restore the config it was trained with", self.id))
    }
}

fn instant(text: &str) -> Option<Timestamp> {
    crate::time::parse_time(text, Timestamp(0)).ok()
}

/// Why the files of a model are refused.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("{0}")]
    Damaged(String),
    #[error("{part}: {cause}")]
    Model {
        part: &'static str,
        cause: LoadError,
    },
}

/// A model ready to score.
#[derive(Debug)]
pub struct Bundle {
    pub manifest: Manifest,
    pub catalogue: Catalogue,
    full: Ensemble,
    snapshot: Ensemble,
    snapshot_columns: Vec<usize>,
    reference: Option<Arc<Reference>>,
}

impl Bundle {
    /// Takes freshly fitted ensembles; fills in the manifest's id and checksums.
    pub fn new(
        mut manifest: Manifest,
        catalogue: Catalogue,
        full: Ensemble,
        snapshot: Ensemble,
        reference: Reference,
    ) -> Self {
        let snapshot_columns = catalogue.snapshot_columns();
        let files = model_files(&catalogue, &snapshot_columns, &full, &snapshot);
        manifest.files = files
            .iter()
            .map(|(name, bytes)| (name.clone(), sha256(bytes)))
            .collect();
        let all: Vec<u8> = manifest
            .files
            .values()
            .flat_map(|sum| sum.bytes())
            .collect();
        let day: String = manifest
            .training
            .end
            .chars()
            .take(16)
            .filter(char::is_ascii_alphanumeric)
            .collect();
        manifest.id = format!("{day}-{}", &sha256(&all)[..8]).to_lowercase();
        let checksum = sha256(&reference.to_json());
        manifest.files.insert(REFERENCE.into(), checksum);
        Self {
            manifest,
            catalogue,
            full,
            snapshot,
            snapshot_columns,
            reference: Some(Arc::new(reference)),
        }
    }

    /// What `model.serve` may name of this model.
    pub fn members(&self) -> impl Iterator<Item = ServeMember> + '_ {
        ServeMember::ALL
            .into_iter()
            .filter(|member| self.full.has(*member))
    }

    /// Why this model cannot answer as `model.serve` wants it; `None` when it can.
    pub fn lacks(&self, serve: ServeMember) -> Option<String> {
        if self.full.has(serve) {
            return None;
        }
        let own: Vec<&str> = self.members().map(ServeMember::name).collect();
        Some(format!(
            "model {} of {} origin has no {}, which model.serve names: set model.serve to {}, or promote another model",
            self.manifest.id,
            self.manifest.origin.name(),
            serve.name(),
            own.join(" or ")
        ))
    }

    /// Features of a window whose newest slot is `t`.
    pub fn features(&self, window: &Window, t: Timestamp) -> Vec<f32> {
        let mut row = vec![f32::NAN; self.catalogue.len()];
        self.catalogue.compute(window, t, &mut row);
        row
    }

    pub fn score(&self, features: &[f32]) -> Score {
        self.full.score(features)
    }

    /// [`Bundle::score`] of each row, faster.
    pub fn score_rows(&self, features: &Matrix) -> Vec<Score> {
        self.full.score_rows(features)
    }

    /// What the training rows were like; models of earlier builds do not say.
    pub fn reference(&self) -> Option<&Arc<Reference>> {
        self.reference.as_ref()
    }

    /// The ensemble over all features.
    pub fn full(&self) -> &Ensemble {
        &self.full
    }

    /// What the members say of each row before stack and calibration.
    pub fn raw_rows(&self, features: &Matrix) -> Vec<RawScore> {
        self.full.raw_rows(features)
    }

    /// [`Bundle::score_snapshot`] of each row, faster; the rows have all columns.
    pub fn score_snapshot_rows(&self, features: &Matrix) -> Vec<Score> {
        self.snapshot
            .score_rows(&features.select(&self.snapshot_columns))
    }

    /// Calibrated probability of what `model.serve` names; the other members are not asked.
    pub fn probability(&self, serve: ServeMember, features: &[f32], has_history: bool) -> f64 {
        let (ensemble, row) = self.asked(features, has_history);
        ensemble.probability(serve, &row)
    }

    /// [`Bundle::probability`] of each row, faster.
    pub fn probabilities(
        &self,
        serve: ServeMember,
        features: &Matrix,
        has_history: bool,
    ) -> Vec<f64> {
        match has_history {
            true => self.full.probabilities(serve, features),
            false => {
                let rows = features.select(&self.snapshot_columns);
                self.snapshot.probabilities(serve, &rows)
            }
        }
    }

    /// Scores a row of which only the current samples and the clock are known.
    pub fn score_snapshot(&self, features: &[f32]) -> Score {
        self.snapshot.score(&self.snapshot_row(features))
    }

    /// The strongest path contributions to the stack's score, strongest first.
    pub fn explain(&self, features: &[f32], has_history: bool, top: usize) -> Vec<Reason> {
        self.explain_served(ServeMember::Ensemble, features, has_history, top)
    }

    /// The same of the score that `model.serve` names.
    pub fn explain_served(
        &self,
        serve: ServeMember,
        features: &[f32],
        has_history: bool,
        top: usize,
    ) -> Vec<Reason> {
        let (ensemble, row) = self.asked(features, has_history);
        let mut contributions = vec![0.0; row.len()];
        ensemble.explain_served(serve, &row, &mut contributions);
        self.reasons(features, &contributions, has_history, top)
    }

    /// SHAP values of both ensembles, prepared once for many rows.
    pub fn shap(&self) -> Shap<'_> {
        Shap {
            bundle: self,
            full: self.full.shap(),
            snapshot: self.snapshot.shap(),
        }
    }

    /// The ensemble that answers, and its columns of a row.
    fn asked<'a>(&self, features: &'a [f32], has_history: bool) -> (&Ensemble, Cow<'a, [f32]>) {
        if has_history {
            (&self.full, features.into())
        } else {
            (&self.snapshot, self.snapshot_row(features).into())
        }
    }

    fn reasons(
        &self,
        features: &[f32],
        contributions: &[f64],
        has_history: bool,
        top: usize,
    ) -> Vec<Reason> {
        let column = |i: usize| {
            if has_history {
                i
            } else {
                self.snapshot_columns[i]
            }
        };
        let mut order: Vec<usize> = (0..contributions.len())
            .filter(|&i| contributions[i] != 0.0)
            .collect();
        order.sort_by(|&a, &b| {
            contributions[b]
                .abs()
                .total_cmp(&contributions[a].abs())
                .then(a.cmp(&b))
        });
        order
            .into_iter()
            .take(top)
            .map(|i| Reason {
                feature: self.catalogue.name(column(i)).to_string(),
                value: (!features[column(i)].is_nan()).then(|| f64::from(features[column(i)])),
                contribution: contributions[i],
            })
            .collect()
    }

    /// Gain share of each feature, largest first.
    pub fn importance(&self) -> Vec<(String, f64)> {
        let mut shares: Vec<(String, f64)> = self
            .catalogue
            .names()
            .into_iter()
            .zip(self.full.importance())
            .collect();
        shares.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        shares
    }

    fn snapshot_row(&self, features: &[f32]) -> Vec<f32> {
        self.snapshot_columns.iter().map(|&c| features[c]).collect()
    }

    /// Every file of the model but its manifest, by path inside the directory.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = model_files(
            &self.catalogue,
            &self.snapshot_columns,
            &self.full,
            &self.snapshot,
        );
        let reference = self.reference.iter();
        files.extend(reference.map(|reference| (REFERENCE.into(), reference.to_json())));
        files
    }

    /// Verifies the files that a manifest lists and puts them together.
    pub fn from_files(
        manifest: Manifest,
        files: BTreeMap<String, Vec<u8>>,
    ) -> Result<Self, BundleError> {
        let damaged = BundleError::Damaged;
        for (name, seconds) in [
            ("step_seconds", manifest.step_seconds),
            ("horizon_seconds", manifest.horizon_seconds),
        ] {
            if !(0.001..=1e8).contains(&seconds) {
                return Err(damaged(format!("{name} is {seconds}")));
            }
        }
        if !(0.0..=1.0).contains(&manifest.threshold.probability) {
            return Err(damaged(format!(
                "the threshold is {}, not a probability",
                manifest.threshold.probability
            )));
        }
        let (mut full, mut snapshot, mut reference) = (BTreeMap::new(), BTreeMap::new(), None);
        for (name, bytes) in files {
            match name.split_once('/') {
                Some(("full", file)) => full.insert(file.to_string(), bytes),
                Some(("snapshot", file)) => snapshot.insert(file.to_string(), bytes),
                None if name == REFERENCE => reference.replace(bytes),
                _ => {
                    return Err(damaged(format!(
                        "the manifest lists {name}, which is no file of a model"
                    )));
                }
            };
        }
        let signals: Vec<Signal> = manifest.signals.iter().map(|s| s.signal.clone()).collect();
        let catalogue = Catalogue::new(&signals, manifest.step(), manifest.horizon());
        if let Some((own, theirs)) = catalogue
            .specs()
            .iter()
            .zip(&manifest.features)
            .find(|(a, b)| a != b)
        {
            return Err(damaged(format!(
                "it was trained with feature {} (version {}, {}), where this forewarn computes {} (version {}, {})",
                theirs.name, theirs.version, theirs.unit, own.name, own.version, own.unit
            )));
        }
        if catalogue.len() != manifest.features.len() {
            return Err(damaged(format!(
                "it was trained with {} features, where this forewarn computes {}",
                manifest.features.len(),
                catalogue.len()
            )));
        }
        let snapshot_columns = catalogue.snapshot_columns();
        let verify = |name: &str, bytes: &[u8]| match manifest.files.get(name) {
            Some(checksum) if *checksum == sha256(bytes) => Ok(()),
            _ => Err(damaged(format!(
                "{name} does not match the checksum in manifest.json"
            ))),
        };
        let load = |part, files: BTreeMap<String, Vec<u8>>, names: &[String]| {
            for (file, bytes) in &files {
                verify(&format!("{part}/{file}"), bytes)?;
            }
            Ensemble::from_files(&files, names).map_err(|cause| BundleError::Model { part, cause })
        };
        let (full, snapshot) = rayon::join(
            || load("full", full, &catalogue.names()),
            || {
                let names = column_names(&catalogue, &snapshot_columns);
                load("snapshot", snapshot, &names)
            },
        );
        let reference = match reference {
            Some(bytes) => {
                verify(REFERENCE, &bytes)?;
                let read = Reference::from_json(&bytes, &catalogue.names());
                let read = read.map_err(|why| damaged(format!("{REFERENCE}: {why}")))?;
                Some(Arc::new(read))
            }
            None => None,
        };
        Ok(Self {
            reference,
            full: full?,
            snapshot: snapshot?,
            manifest,
            snapshot_columns,
            catalogue,
        })
    }
}

/// Rows that [`Shap::importance`] looks at, at most: some seconds of one core.
pub const IMPORTANCE_ROWS: usize = 1000;

/// See [`Bundle::shap`].
pub struct Shap<'a> {
    bundle: &'a Bundle,
    full: EnsembleShap<'a>,
    snapshot: EnsembleShap<'a>,
}

impl Shap<'_> {
    /// As [`Bundle::explain_served`].
    pub fn explain_served(
        &self,
        serve: ServeMember,
        features: &[f32],
        has_history: bool,
        top: usize,
    ) -> Vec<Reason> {
        let ensemble = if has_history {
            &self.full
        } else {
            &self.snapshot
        };
        let (_, row) = self.bundle.asked(features, has_history);
        let mut contributions = vec![0.0; row.len()];
        ensemble.explain_served(serve, &row, &mut contributions);
        self.bundle
            .reasons(features, &contributions, has_history, top)
    }

    /// Contributions to the full ensemble's score, row-major as `features`, computed on all cores.
    pub fn contributions(&self, features: &Matrix) -> Vec<f64> {
        let columns = features.columns;
        let mut contributions = vec![0.0; features.data.len()];
        contributions
            .par_chunks_mut(columns)
            .zip(features.data.par_chunks(columns))
            .for_each(|(contributions, row)| {
                self.full.explain(row, contributions);
            });
        contributions
    }

    /// Mean |contribution| of each feature to the full ensemble's score, largest first; of many rows, as
    /// many as a report can wait for are taken at equal distances.
    pub fn importance(&self, features: &Matrix) -> Vec<(String, f64)> {
        let every = features.rows().div_ceil(IMPORTANCE_ROWS).max(1);
        let columns: Vec<usize> = (0..features.columns).collect();
        let rows = features.select_rows((0..features.rows()).step_by(every), &columns);
        let mut sums = vec![0.0; features.columns];
        for row in self.contributions(&rows).chunks(features.columns) {
            for (sum, contribution) in sums.iter_mut().zip(row) {
                *sum += contribution.abs();
            }
        }
        let count = rows.rows().max(1) as f64;
        let means = sums.into_iter().map(|sum| sum / count);
        let mut importance: Vec<(String, f64)> = self
            .bundle
            .catalogue
            .names()
            .into_iter()
            .zip(means)
            .collect();
        importance.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        importance
    }
}

fn model_files(
    catalogue: &Catalogue,
    snapshot_columns: &[usize],
    full: &Ensemble,
    snapshot: &Ensemble,
) -> BTreeMap<String, Vec<u8>> {
    let in_folder = |folder: &'static str, files: BTreeMap<String, Vec<u8>>| {
        files
            .into_iter()
            .map(move |(name, bytes)| (format!("{folder}/{name}"), bytes))
    };
    in_folder("full", full.to_files(&catalogue.names()))
        .chain(in_folder(
            "snapshot",
            snapshot.to_files(&column_names(catalogue, snapshot_columns)),
        ))
        .collect()
}

fn column_names(catalogue: &Catalogue, columns: &[usize]) -> Vec<String> {
    columns
        .iter()
        .map(|&c| catalogue.name(c).to_string())
        .collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::types::Unit;

    fn signal(name: &str) -> Signal {
        Signal {
            name: name.into(),
            unit: Unit::Percent,
        }
    }

    pub(crate) fn manifest() -> Manifest {
        Manifest {
            format_version: FORMAT_VERSION,
            id: "m".into(),
            forewarn_version: "0".into(),
            origin: Origin::History,
            signals: ["a", "b"]
                .map(|name| SignalSource {
                    signal: signal(name),
                    query: name.into(),
                })
                .to_vec(),
            features: Vec::new(),
            step_seconds: 60.0,
            horizon_seconds: 1800.0,
            label: LabelDefinition {
                queries: Vec::new(),
                alerts: Vec::new(),
                min_duration_seconds: 0.0,
                merge_gap_seconds: 0.0,
                recovery_seconds: 0.0,
            },
            training: TrainingFacts {
                start: "2026-01-01T00:00:00Z".into(),
                end: "2026-01-08T00:00:00Z".into(),
                targets: 1,
                rows: 1,
                incidents: 1,
                base_rate: 0.1,
                prior: None,
                seed: 1,
            },
            threshold: Threshold {
                probability: 0.5,
                false_alarms_per_target_week: 1.0,
            },
            best_member: "xgboost".into(),
            metrics: serde_json::Value::Null,
            files: BTreeMap::new(),
        }
    }

    #[test]
    fn a_model_fits_only_the_signals_step_and_horizon_it_was_trained_with() {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        let misfit = |names: &[&str], step, horizon| {
            let signals: Vec<Signal> = names.iter().map(|name| signal(name)).collect();
            manifest().misfit(&signals, minutes(step), minutes(horizon))
        };
        assert_eq!(misfit(&["a", "b"], 1, 30), None);
        for (names, step, horizon, why) in [
            (&["a", "b"][..], 2, 30, "step is 1m in the model and 2m"),
            (&["a", "b"], 1, 60, "horizon is 30m in the model and 1h"),
            (&["a"], 1, 30, "reads the signal b"),
            (&["a", "b", "c"], 1, 30, "defines the signal c"),
            (
                &["b", "a"],
                1,
                30,
                "where the model has the signal a, the config has b",
            ),
        ] {
            let found = misfit(names, step, horizon).unwrap();
            assert!(found.contains(why), "{found}");
        }
    }

    #[test]
    fn what_a_model_has_learned_from_includes_both_ends() {
        let learned = |start: &str, end: &str| {
            let at = |text| instant(text).unwrap();
            manifest().learned_from(at(start), at(end))
        };
        for (start, end, expected) in [
            ("2025-12-30T00:00:00Z", "2025-12-31T23:59:00Z", false),
            ("2025-12-30T00:00:00Z", "2026-01-01T00:00:00Z", true),
            ("2026-01-03T00:00:00Z", "2026-01-04T00:00:00Z", true),
            ("2026-01-08T00:00:00Z", "2026-01-09T00:00:00Z", true),
            ("2026-01-08T00:01:00Z", "2026-01-09T00:00:00Z", false),
        ] {
            assert_eq!(learned(start, end), Some(expected), "{start} to {end}");
        }
    }
}
