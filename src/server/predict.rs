//! `/predict` and `/predict/batch`: bodies to rows, rows to windows, windows to answers.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use jiff::fmt::temporal::DateTimePrinter;
use rayon::prelude::*;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::OwnedSemaphorePermit;
use utoipa::ToSchema;

use super::problem::{FieldError, Problem, pointer};
use super::{App, JsonBody, blocking, encode, encoded, permit, plain};
use crate::assessment::{Reason, Snapshot};
use crate::bundle::{Bundle, Shap};
use crate::config::Config;
use crate::model::{Matrix, Score};
use crate::risk::{Driver, recommendations};
use crate::time::Timestamp;
use crate::types::{RiskLevel, ServeMember, Signal, TargetId};
use crate::window::Window;

/// Reasons in an answer that asks for them.
const REASONS: usize = 10;
/// Rows of a batch with `explain=shap`: together they cost about what a full batch without it does.
const MAX_SHAP_ROWS: usize = 100;
/// Signals that recommendations speak about.
const DRIVERS: usize = 3;
/// What an answer takes, usually.
const ANSWER_BYTES: usize = 1024;
/// Rows of a batch that are scored and written at a time, one core each.
const BATCH_PART: usize = 125;
/// Field errors listed at most; a full batch with every signal wrong stays below.
const MAX_ERRORS: usize = 10_000;

/// The answer to one row. The first six keys are those of the Python service.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Prediction {
    /// Calibrated probability that an incident starts within the horizon; to four places.
    #[schema(minimum = 0, maximum = 1, example = 0.8543)]
    pub failure_probability: f64,
    pub failure_risk: RiskLevel,
    /// max(p, 1 - p), to three places
    #[schema(minimum = 0.5, maximum = 1, example = 0.854)]
    confidence: f64,
    /// What to do, the most urgent first; never empty.
    recommendations: Vec<String>,
    /// `model.serve`: ensemble, xgboost, random_forest or logistic_regression
    #[schema(example = "ensemble")]
    model_used: &'static str,
    /// When it was scored, with microseconds and offset as Python writes them
    #[schema(format = DateTime, example = "2026-01-10T15:30:45.123456+00:00")]
    timestamp: String,
    #[schema(minimum = 1, example = 1800)]
    horizon_seconds: u64,
    history: History,
    /// Signals that were null or absent.
    missing: Vec<String>,
    /// Fields that the model does not know.
    ignored: Vec<String>,
    models: Members,
    /// Only with `explain`; strongest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, max_items = 10)]
    reasons: Option<Vec<Reason>>,
    #[schema(example = "20260110t0000-1a2b3c4d")]
    model_id: String,
    /// simulated, history or imported
    #[schema(example = "history")]
    model_origin: &'static str,
}

/// The calibrated probabilities of the members that were asked: all that the model has for the ensemble (an imported
/// model has only xgboost over the history), else the one that `model.serve` names.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Members {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 0, maximum = 1)]
    xgboost: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 0, maximum = 1)]
    random_forest: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 0, maximum = 1)]
    logistic_regression: Option<f64>,
}

impl From<&Score> for Members {
    fn from(score: &Score) -> Self {
        Self {
            xgboost: Some(rounded(score.xgboost, 4)),
            random_forest: score.random_forest.map(|p| rounded(p, 4)),
            logistic_regression: score.logistic_regression.map(|p| rounded(p, 4)),
        }
    }
}

/// What a row's answer is made of.
#[derive(Clone, Debug, Default)]
struct Verdict {
    probability: f64,
    models: Members,
}

impl Verdict {
    fn of_ensemble(score: &Score) -> Self {
        Self {
            probability: score.ensemble,
            models: Members::from(score),
        }
    }

    fn of_member(member: ServeMember, probability: f64) -> Self {
        let only = |one| (member == one).then(|| rounded(probability, 4));
        Self {
            probability,
            models: Members {
                xgboost: only(ServeMember::Xgboost),
                random_forest: only(ServeMember::RandomForest),
                logistic_regression: only(ServeMember::LogisticRegression),
            },
        }
    }
}

/// Where the samples before the row came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum History {
    /// None, or too few of them: the ensemble that needs no history answered.
    None,
    /// `history` in the request.
    Request,
    /// The live window of `target`.
    Live,
}

/// A checked request row; values in the order of the model's signals.
#[derive(Debug, PartialEq)]
pub(crate) struct Row {
    pub(super) values: Vec<Option<f32>>,
    /// Oldest first, one per step; the row itself comes one step after the last.
    pub(super) history: Vec<Vec<Option<f32>>>,
    pub(super) target: Option<TargetId>,
    pub(super) missing: Vec<String>,
    pub(super) ignored: Vec<String>,
}

/// Score one observation
///
/// Signals are JSON numbers; null or absent ones are listed under `missing`, unknown fields under
/// `ignored` (`timestamp` is among them: a row is always scored as of now). Of a repeated key the last one counts.
/// Nothing is kept, so that it may be sent again at will. `Content-Type` must be `application/json`.
#[utoipa::path(
    post,
    path = "/predict", tag = "predictions",
    request_body(content = ref("#/components/schemas/Row"), content_type = "application/json"),
    params(("explain" = Option<Explain>, Query, example = "true", description = "Add the reasons of the score: `true` for path contributions, `shap` for TreeSHAP, which takes some milliseconds")),
    responses((status = 200, body = Prediction, description = "The prediction")),
)]
pub async fn predict(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    JsonBody { bytes, .. }: JsonBody,
) -> Result<Response, Problem> {
    answer(&app, query.as_deref(), bytes).await.map(encoded)
}

/// The JSON that answers a body of `/predict`.
pub(super) async fn answer(
    app: &Arc<App>,
    query: Option<&str>,
    body: Bytes,
) -> Result<Vec<u8>, Problem> {
    let explain = Explain::asked(query)?;
    if explain != Explain::Shap {
        return answer_now(app, explain, &body);
    }
    let (slot, app) = (slot(app)?, app.clone());
    blocking(move || {
        let _slot = slot;
        answer_now(&app, explain, &body)
    })
    .await
}

fn answer_now(app: &App, explain: Explain, body: &[u8]) -> Result<Vec<u8>, Problem> {
    let serving = app.serving.load_full();
    let (bundle, snapshot) = (serving.bundle()?, serving.snapshot.as_deref());
    let start = Instant::now();
    let row = match plain::row(body, bundle.catalogue.signals()) {
        Some(row) => row,
        None => {
            let mut parser = Parser::new(bundle, snapshot);
            let row = parser.row(document(body)?, "")?;
            parser.finish(row)?
        }
    };
    let scorer = Scorer::new(bundle, &serving.config, snapshot, (app.clock)(), explain);
    let answer = encode(&scorer.predict(row), ANSWER_BYTES)?;
    app.metrics
        .prediction_duration
        .observe(start.elapsed().as_secs_f64());
    app.api_predictions.inc();
    Ok(answer)
}

/// Score many observations
///
/// At most `api.max_batch` rows. Answers stand in their order; one wrong row refuses the batch.
#[utoipa::path(
    post,
    path = "/predict/batch", tag = "predictions",
    request_body(content = ref("#/components/schemas/Rows"), content_type = "application/json"),
    params(("explain" = Option<Explain>, Query, example = "true", description = "Add the reasons of each score: `true` for path contributions, `shap` for TreeSHAP; with it a batch has at most 100 rows")),
    responses((status = 200, body = Vec<Prediction>, description = "A prediction for each row, in the order of the rows")),
)]
pub async fn predict_batch(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    JsonBody { bytes, leave }: JsonBody,
) -> Result<Response, Problem> {
    let explain = Explain::asked(query.as_deref())?;
    let slot = slot(&app)?;
    let work = move || {
        let _held = (slot, leave);
        let serving = app.serving.load_full();
        let (bundle, snapshot) = (serving.bundle()?, serving.snapshot.as_deref());
        let start = Instant::now();
        let max = serving.config.api.max_batch;
        let rows = match plain::rows(&bytes, bundle.catalogue.signals(), max) {
            Some(rows) => rows,
            None => {
                let mut parser = Parser::new(bundle, snapshot);
                let rows = parser.rows(document(&bytes)?, max)?;
                parser.finish(rows)?
            }
        };
        if explain == Explain::Shap && rows.len() > MAX_SHAP_ROWS {
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                format!(
                    "the batch has {} rows; with explain=shap it has at most {MAX_SHAP_ROWS}: send fewer, or ask for explain=true",
                    rows.len()
                ),
            ));
        }
        let scorer = Scorer::new(bundle, &serving.config, snapshot, (app.clock)(), explain);
        let count = rows.len() as u64;
        let parts: Vec<Vec<u8>> = rows
            .into_par_iter()
            .chunks(if explain == Explain::Shap {
                1
            } else {
                BATCH_PART
            })
            .map(|rows| {
                let size = rows.len() * ANSWER_BYTES;
                encode(&scorer.predict_all(rows), size)
            })
            .collect::<Result<_, _>>()?;
        let answer = joined(&parts);
        app.metrics
            .prediction_duration
            .observe(start.elapsed().as_secs_f64());
        app.batch_predictions.inc_by(count);
        Ok(encoded(answer))
    };
    blocking(work).await
}

/// One JSON array of the elements of several that are not empty.
fn joined(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut array = Vec::with_capacity(parts.iter().map(Vec::len).sum());
    for part in parts {
        array.push(if array.is_empty() { b'[' } else { b',' });
        array.extend_from_slice(&part[1..part.len() - 1]);
    }
    array.push(b']');
    array
}

/// What `explain` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) enum Explain {
    #[serde(rename = "false")]
    No,
    #[serde(rename = "true")]
    Paths,
    #[serde(rename = "shap")]
    Shap,
}

impl Explain {
    fn asked(query: Option<&str>) -> Result<Self, Problem> {
        let explain = query
            .into_iter()
            .flat_map(|q| q.split('&'))
            .find_map(|pair| pair.strip_prefix("explain="));
        match explain {
            None | Some("false" | "0") => Ok(Explain::No),
            Some("true" | "1") => Ok(Explain::Paths),
            Some("shap") => Ok(Explain::Shap),
            Some(other) => Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                format!(
                    "the query parameter explain is {:?}; it must be true, false or shap",
                    shortened(other)
                ),
            )),
        }
    }
}

/// Leave to keep the cores busy for a while.
fn slot(app: &App) -> Result<OwnedSemaphorePermit, Problem> {
    permit(&app.batch_slots, "batches or SHAP explanations")
}

fn document(body: &[u8]) -> Result<&RawValue, Problem> {
    serde_json::from_slice(body).map_err(|error| not_json("the body", &error))
}

fn not_json(what: &str, error: &serde_json::Error) -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        format!("{what} is not JSON: {error}"),
    )
}

/// Checks bodies against the model's signals and collects every field that is wrong.
pub(crate) struct Parser<'a> {
    signals: &'a [Signal],
    /// Earlier rows of use to the model.
    max_history: usize,
    snapshot: Option<&'a Snapshot>,
    errors: Vec<FieldError>,
}

impl<'a> Parser<'a> {
    pub(crate) fn new(bundle: &'a Bundle, snapshot: Option<&'a Snapshot>) -> Self {
        Self {
            signals: bundle.catalogue.signals(),
            max_history: bundle.catalogue.reach().saturating_sub(1),
            snapshot,
            errors: Vec::new(),
        }
    }

    /// `parsed`, unless a field was wrong.
    pub(crate) fn finish<T>(self, parsed: Option<T>) -> Result<T, Problem> {
        match parsed {
            Some(parsed) if self.errors.is_empty() => Ok(parsed),
            _ => Err(Problem::fields(self.errors)),
        }
    }

    fn wrong(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(FieldError {
                pointer: pointer.into(),
                detail: detail.into(),
            });
        }
    }

    fn rows(&mut self, raw: &RawValue, max: usize) -> Result<Option<Vec<Row>>, Problem> {
        let Some(items) = self.array(raw, "")? else {
            return Ok(None);
        };
        if !(1..=max).contains(&items.len()) {
            let detail = format!("has {} rows; a batch has 1 to {max}", items.len());
            self.wrong("", detail);
            return Ok(None);
        }
        let rows: Result<Vec<_>, _> = items
            .iter()
            .enumerate()
            .map(|(i, item)| self.row(item, &format!("/{i}")))
            .collect();
        Ok(rows?.into_iter().collect())
    }

    pub(crate) fn row(&mut self, raw: &RawValue, at: &str) -> Result<Option<Row>, Problem> {
        let Some(mut fields) = self.object(raw, at)? else {
            return Ok(None);
        };
        let wrong_before = self.errors.len();
        let values = self.values(&mut fields, at);
        let missing: Vec<String> = std::iter::zip(self.signals, &values)
            .filter(|(_, value)| value.is_none())
            .map(|(signal, _)| signal.name.clone())
            .collect();
        if missing.len() == values.len() && self.errors.len() == wrong_before {
            let detail = format!(
                "has none of the model's signals as a number: {}",
                missing.join(", ")
            );
            self.wrong(at, detail);
        }

        let mut take = |name| {
            fields
                .remove(name)
                .filter(|raw: &&RawValue| raw.get() != "null")
        };
        let (target, earlier) = (take("target"), take("history"));
        let mut ignored: BTreeSet<String> = fields.into_keys().collect();
        if target.is_some() && earlier.is_some() {
            let detail = "cannot be given together with target, whose live window is the history";
            self.wrong(pointer(at, "history"), detail);
        }
        let target = match target {
            Some(raw) => self.target(raw, &pointer(at, "target")),
            None => None,
        };
        let history = match earlier {
            Some(raw) => self.history(raw, &pointer(at, "history"), &mut ignored)?,
            None => Vec::new(),
        };
        Ok(Some(Row {
            values,
            history,
            target,
            missing,
            ignored: ignored.into_iter().collect(),
        }))
    }

    fn history(
        &mut self,
        raw: &RawValue,
        at: &str,
        ignored: &mut BTreeSet<String>,
    ) -> Result<Vec<Vec<Option<f32>>>, Problem> {
        let items = self.array(raw, at)?.unwrap_or_default();
        let skipped = items.len().saturating_sub(self.max_history);
        let mut history = Vec::with_capacity(items.len() - skipped);
        for (i, item) in items.into_iter().enumerate().skip(skipped) {
            let at = format!("{at}/{i}");
            if let Some(mut fields) = self.object(item, &at)? {
                history.push(self.values(&mut fields, &at));
                ignored.extend(fields.into_keys());
            }
        }
        Ok(history)
    }

    fn target(&mut self, raw: &RawValue, at: &str) -> Option<TargetId> {
        let Ok(name) = serde_json::from_str::<Cow<str>>(raw.get()) else {
            self.wrong(at, format!("is {}; must be a string", kind(raw)));
            return None;
        };
        if let Some(known) = self.snapshot.and_then(|snapshot| snapshot.find(&name)) {
            return Some(known.target.clone());
        }
        let known = self.snapshot.map_or(&[][..], |s| &s.assessments);
        let elsewhere = self
            .snapshot
            .and_then(|snapshot| snapshot.is_elsewhere(&name));
        let hint = match known {
            _ if elsewhere.is_some() => elsewhere.unwrap_or_default(),
            [] => "targets are known once a cycle of `forewarn serve` has found them".to_string(),
            known => {
                let first: Vec<&str> = known.iter().take(3).map(|a| a.target.as_str()).collect();
                format!(
                    "{} targets are known, among them {}; GET /api/v1/targets lists all",
                    known.len(),
                    first.join(", ")
                )
            }
        };
        self.wrong(
            at,
            format!("names no known target ({:?}): {hint}", shortened(&name)),
        );
        None
    }

    /// Takes the signals out of `fields`, in the model's order.
    fn values(&mut self, fields: &mut BTreeMap<String, &RawValue>, at: &str) -> Vec<Option<f32>> {
        let signals = self.signals;
        signals
            .iter()
            .map(|signal| {
                let raw = fields.remove(&signal.name)?;
                number(raw, signal).unwrap_or_else(|detail| {
                    self.wrong(pointer(at, &signal.name), detail);
                    None
                })
            })
            .collect()
    }

    fn object<'r>(
        &mut self,
        raw: &'r RawValue,
        at: &str,
    ) -> Result<Option<BTreeMap<String, &'r RawValue>>, Problem> {
        if !raw.get().starts_with('{') {
            self.wrong(at, format!("is {}; must be an object", kind(raw)));
            return Ok(None);
        }
        serde_json::from_str(raw.get())
            .map(Some)
            .map_err(|error| not_json(if at.is_empty() { "the body" } else { at }, &error))
    }

    fn array<'r>(
        &mut self,
        raw: &'r RawValue,
        at: &str,
    ) -> Result<Option<Vec<&'r RawValue>>, Problem> {
        if !raw.get().starts_with('[') {
            self.wrong(at, format!("is {}; must be an array", kind(raw)));
            return Ok(None);
        }
        serde_json::from_str(raw.get())
            .map(Some)
            .map_err(|error| not_json(if at.is_empty() { "the body" } else { at }, &error))
    }
}

/// What a value of a signal must lie between, ends included.
pub(super) fn bounds(signal: &Signal) -> (f64, f64) {
    let (low, high) = signal.unit.range();
    (low.max(f64::from(f32::MIN)), high.min(f64::from(f32::MAX)))
}

/// A signal's value; `Err` says what is wrong with it.
fn number(raw: &RawValue, signal: &Signal) -> Result<Option<f32>, String> {
    match kind(raw) {
        "null" => return Ok(None),
        "a number" => {}
        other => return Err(format!("is {other}; must be a number or null")),
    }
    let (low, high) = bounds(signal);
    match serde_json::from_str::<f64>(raw.get()) {
        Ok(value) if (low..=high).contains(&value) => Ok(Some(value as f32)),
        _ => {
            let bound = |b: f64| {
                if b.abs() > 1e15 {
                    format!("{b:.1e}")
                } else {
                    b.to_string()
                }
            };
            Err(format!(
                "is {}; must be between {} and {} ({})",
                shortened(raw.get()),
                bound(low),
                bound(high),
                signal.unit.name()
            ))
        }
    }
}

/// What a JSON value is, for messages.
fn kind(raw: &RawValue) -> &'static str {
    match raw.get().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// Turns rows into answers with one model, at one instant.
pub(crate) struct Scorer<'a> {
    bundle: &'a Bundle,
    config: &'a Config,
    snapshot: Option<&'a Snapshot>,
    now: Timestamp,
    timestamp: String,
    explain: Explain,
    shap: Option<Shap<'a>>,
}

impl<'a> Scorer<'a> {
    pub(crate) fn new(
        bundle: &'a Bundle,
        config: &'a Config,
        snapshot: Option<&'a Snapshot>,
        now: Timestamp,
        explain: Explain,
    ) -> Self {
        Self {
            bundle,
            config,
            snapshot,
            now,
            timestamp: microseconds(now),
            explain,
            shap: (explain == Explain::Shap).then(|| bundle.shap()),
        }
    }

    pub(crate) fn predict(&self, row: Row) -> Prediction {
        let (features, history) = self.features(&row);
        let has_history = history != History::None;
        let verdict = match self.config.model.serve {
            ServeMember::Ensemble if has_history => {
                Verdict::of_ensemble(&self.bundle.score(&features))
            }
            ServeMember::Ensemble => Verdict::of_ensemble(&self.bundle.score_snapshot(&features)),
            member => {
                let probability = self.bundle.probability(member, &features, has_history);
                Verdict::of_member(member, probability)
            }
        };
        self.answer(row, &features, history, verdict)
    }

    /// [`Scorer::predict`] of each row, faster.
    fn predict_all(&self, rows: Vec<Row>) -> Vec<Prediction> {
        let inputs: Vec<(Vec<f32>, History)> = rows.iter().map(|row| self.features(row)).collect();
        let mut verdicts = vec![Verdict::default(); rows.len()];
        for has_history in [false, true] {
            let mut places = Vec::new();
            let mut features = Matrix::new(self.bundle.catalogue.len());
            for (place, (row, history)) in inputs.iter().enumerate() {
                if (*history != History::None) == has_history {
                    places.push(place);
                    features.data.extend_from_slice(row);
                }
            }
            for (place, verdict) in std::iter::zip(places, self.verdicts(&features, has_history)) {
                verdicts[place] = verdict;
            }
        }
        std::iter::zip(rows, inputs)
            .zip(verdicts)
            .map(|((row, (features, history)), verdict)| {
                self.answer(row, &features, history, verdict)
            })
            .collect()
    }

    fn verdicts(&self, features: &Matrix, has_history: bool) -> Vec<Verdict> {
        let scores = match self.config.model.serve {
            ServeMember::Ensemble if has_history => self.bundle.score_rows(features),
            ServeMember::Ensemble => self.bundle.score_snapshot_rows(features),
            member => {
                let probabilities = self.bundle.probabilities(member, features, has_history);
                let verdict = |p| Verdict::of_member(member, p);
                return probabilities.into_iter().map(verdict).collect();
            }
        };
        scores.iter().map(Verdict::of_ensemble).collect()
    }

    fn answer(&self, row: Row, features: &[f32], history: History, verdict: Verdict) -> Prediction {
        let (bundle, manifest) = (self.bundle, &self.bundle.manifest);
        let serve = self.config.model.serve;
        let Verdict {
            probability,
            models,
        } = verdict;
        let level = self.config.risk_levels.level(probability);
        let alarms = manifest.threshold.is_reached(probability);
        let has_history = history != History::None;
        let reasons = match &self.shap {
            Some(shap) => shap.explain_served(serve, features, has_history, REASONS),
            None if self.explain == Explain::Paths || level > RiskLevel::Minimal || alarms => {
                bundle.explain_served(serve, features, has_history, REASONS)
            }
            None => Vec::new(),
        };
        let drivers = drivers(
            &reasons,
            |feature| bundle.catalogue.signals_of(feature),
            bundle.catalogue.signals(),
            features,
        );
        Prediction {
            failure_probability: rounded(probability, 4),
            failure_risk: level,
            confidence: rounded(probability.max(1.0 - probability), 3),
            recommendations: recommendations(level, alarms, manifest.horizon(), &drivers),
            model_used: serve.name(),
            timestamp: self.timestamp.clone(),
            horizon_seconds: manifest.horizon().as_secs(),
            history,
            missing: row.missing,
            ignored: row.ignored,
            models,
            reasons: (self.explain != Explain::No).then_some(reasons),
            model_id: manifest.id.clone(),
            model_origin: manifest.origin.name(),
        }
    }
}

impl Scorer<'_> {
    fn features(&self, row: &Row) -> (Vec<f32>, History) {
        let live = row
            .target
            .as_ref()
            .and_then(|target| self.snapshot?.find(target.as_str()))
            .map(|assessment| assessment.live.read().window().clone());
        match (live, row.history.is_empty()) {
            (None, true) => (self.without_history(row), History::None),
            (live, _) => self.with_history(row, live),
        }
    }

    fn without_history(&self, row: &Row) -> Vec<f32> {
        let catalogue = &self.bundle.catalogue;
        let mut features = vec![f32::NAN; catalogue.len()];
        let now = self.now.floor(catalogue.step());
        catalogue.compute_current(&row.values, now, &mut features);
        features
    }

    fn with_history(&self, row: &Row, live: Option<Window>) -> (Vec<f32>, History) {
        let catalogue = &self.bundle.catalogue;
        let (window, mut history) =
            window(row, live, catalogue.window(), catalogue.step(), self.now);
        if window.coverage() < self.config.features.min_coverage {
            history = History::None;
        }
        let features = self
            .bundle
            .features(&window, window.newest().unwrap_or(self.now));
        (features, history)
    }
}

/// The samples that the row's features are computed from: the live window or the
/// request's history, with the row itself in the slot of `now`.
fn window(
    row: &Row,
    live: Option<Window>,
    empty: Window,
    step: Duration,
    now: Timestamp,
) -> (Window, History) {
    // A window of another shape is left from before a change of the model.
    let fits = |w: &Window| w.signals() == empty.signals() && w.lookback() == empty.lookback();
    let now = now.floor(step);
    let (mut window, history) = match live.filter(fits) {
        Some(live) => (live, History::Live),
        None if row.history.is_empty() => (empty, History::None),
        None => (empty, History::Request),
    };
    for (i, values) in row.history.iter().enumerate() {
        let age = (row.history.len() - i) as u32;
        place(&mut window, now.minus(step * age), values);
    }
    place(&mut window, now, &row.values);
    (window, history)
}

fn place(window: &mut Window, t: Timestamp, values: &[Option<f32>]) {
    window.advance(t);
    for (signal, value) in values.iter().enumerate() {
        if let Some(value) = value {
            window.set(signal, t, *value);
        }
    }
}

/// The signals behind the features that raise the score, strongest first, each once.
pub(super) fn drivers<'a, 'b>(
    reasons: &[Reason],
    signals_of: impl Fn(&str) -> Vec<&'b str>,
    signals: &'a [Signal],
    features: &[f32],
) -> Vec<Driver<'a>> {
    let mut drivers: Vec<Driver> = Vec::new();
    let raising = reasons.iter().filter(|reason| reason.contribution > 0.0);
    for name in raising.flat_map(|reason| signals_of(&reason.feature)) {
        let Some(index) = signals.iter().position(|signal| signal.name == name) else {
            continue;
        };
        if drivers.len() < DRIVERS && drivers.iter().all(|driver| driver.signal != name) {
            drivers.push(Driver {
                signal: &signals[index].name,
                unit: signals[index].unit,
                // The first features are the signals themselves.
                value: (!features[index].is_nan()).then(|| f64::from(features[index])),
            });
        }
    }
    drivers
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

fn microseconds(t: Timestamp) -> String {
    const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(6));
    match jiff::Timestamp::from_millisecond(t.0) {
        Ok(t) => PRINTER.timestamp_to_string(&t).replace('Z', "+00:00"),
        Err(_) => t.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assessment::{Assessment, Live};
    use crate::scoreboard::Summary;
    use crate::types::{Shard, TargetState, Unit};

    const STEP: Duration = Duration::from_secs(60);

    fn signals() -> Vec<Signal> {
        [("cpu_usage", Unit::Percent), ("errors", Unit::Count)]
            .map(|(name, unit)| Signal {
                name: name.into(),
                unit,
            })
            .to_vec()
    }

    fn snapshot() -> Snapshot {
        Snapshot {
            at: Timestamp(0),
            prometheus_up: true,
            shard: Shard::WHOLE,
            assessments: vec![Assessment {
                target: TargetId::new("web-1"),
                labels: Default::default(),
                live: Live::of_nothing(),
                course: Default::default(),
                state: TargetState::WarmingUp,
                risk: None,
            }],
            scoreboard: Summary::default(),
            shadow: None,
            drift: None,
        }
    }

    fn parse<T>(
        body: &str,
        parse: impl Fn(&mut Parser, &RawValue) -> Result<Option<T>, Problem>,
    ) -> Result<T, Problem> {
        let (signals, snapshot) = (signals(), snapshot());
        let mut parser = Parser {
            signals: &signals,
            max_history: 2,
            snapshot: Some(&snapshot),
            errors: Vec::new(),
        };
        let parsed = parse(&mut parser, document(body.as_bytes())?)?;
        parser.finish(parsed)
    }

    fn one(body: &str) -> Result<Row, Problem> {
        parse(body, |parser, raw| parser.row(raw, ""))
    }

    fn many(body: &str) -> Result<Vec<Row>, Problem> {
        parse(body, |parser, raw| parser.rows(raw, 3))
    }

    #[test]
    fn the_short_way_finds_what_the_careful_way_finds() {
        let keys = [
            r#""cpu_usage""#,
            r#""errors""#,
            r#""err\u006frs""#,
            r#""zone""#,
            r#""target""#,
            r#""history""#,
            r#""a\"b""#,
        ];
        let values = [
            "1",
            "-0.0",
            "100",
            "100.5",
            "1e400",
            "null",
            "true",
            r#""x""#,
            "{}",
            "[]",
            r#"{"a":[1]}"#,
            "12345678901234567890123",
            "0.1",
            "nul",
            "",
        ];
        let mut short = 0;
        for (i, first) in keys.iter().enumerate() {
            for (j, value) in values.iter().enumerate() {
                for second in keys {
                    let other = values[(i + j) % values.len()];
                    let body = format!("{{{first}: {value}, {second}:{other}, {first} :3}}");
                    let array = format!("[{body}, {{\"errors\":2}}]");
                    if let Some(row) = plain::row(body.as_bytes(), &signals()) {
                        assert_eq!(Ok(row), one(&body), "{body}");
                        short += 1;
                    }
                    if let Some(rows) = plain::rows(array.as_bytes(), &signals(), 3) {
                        assert_eq!(Ok(rows), many(&array), "{array}");
                    }
                }
            }
        }
        assert!(short > 50, "{short}");
        for body in [
            "",
            "[]",
            "{}",
            "1",
            r#"{"errors":1} x"#,
            r#"{"errors":1"#,
            r#"{"cpu_usage":null}"#,
        ] {
            assert_eq!(plain::row(body.as_bytes(), &signals()), None, "{body}");
        }
        assert_eq!(
            plain::row(b"{\"errors\":1,\"zone\":\"\xff\"}", &signals()),
            None
        );
        let four = [r#"{"errors":1}"#; 4].join(",");
        assert_eq!(
            plain::rows(format!("[{four}]").as_bytes(), &signals(), 3),
            None
        );
        assert_eq!(plain::rows(b"[]", &signals(), 3), None);
    }

    #[test]
    fn a_row_may_lack_signals_and_carry_others() {
        let row = one(
            r#"{"zone": {"a": [1]}, "errors": 3, "cpu_usage": null, "timestamp": "x", "target": null, "errors": 4}"#,
        );
        assert_eq!(
            row,
            Ok(Row {
                values: vec![None, Some(4.0)],
                history: Vec::new(),
                target: None,
                missing: vec!["cpu_usage".into()],
                ignored: vec!["timestamp".into(), "zone".into()],
            })
        );
    }

    #[test]
    fn history_is_used_as_far_as_the_lookback_goes() {
        let row = one(
            r#"{"cpu_usage": 4, "history": [{"cpu_usage": "too old to matter"}, {"cpu_usage": 2, "x": 1}, {}]}"#,
        )
        .unwrap();
        assert_eq!(row.history, [vec![Some(2.0), None], vec![None, None]]);
        assert_eq!(row.ignored, ["x"]);
    }

    #[test]
    fn wrong_fields_are_all_named() {
        for (body, expected) in [
            (
                r#"{"cpu_usage": "5", "errors": -1}"#,
                vec![
                    ("/cpu_usage", "is a string; must be a number or null"),
                    ("/errors", "is -1; must be between 0 and 3.4e38 (count)"),
                ],
            ),
            (
                r#"{"cpu_usage": 100.5, "errors": true}"#,
                vec![
                    (
                        "/cpu_usage",
                        "is 100.5; must be between 0 and 100 (percent)",
                    ),
                    ("/errors", "is a boolean; must be a number or null"),
                ],
            ),
            (
                r#"{"cpu_usage": 1, "errors": 1e999}"#,
                vec![("/errors", "is 1e999; must be between 0 and 3.4e38 (count)")],
            ),
            (
                r#"{"cpu_usage": 1, "errors": 1e300}"#,
                vec![("/errors", "is 1e300; must be between 0 and 3.4e38 (count)")],
            ),
            (
                r#"{"cpu": 1}"#,
                vec![(
                    "",
                    "has none of the model's signals as a number: cpu_usage, errors",
                )],
            ),
            ("[]", vec![("", "is an array; must be an object")]),
            (
                r#"{"cpu_usage": 1, "target": "web-1", "history": [3, {"errors": []}]}"#,
                vec![
                    (
                        "/history",
                        "cannot be given together with target, whose live window is the history",
                    ),
                    ("/history/0", "is a number; must be an object"),
                    ("/history/1/errors", "is an array; must be a number or null"),
                ],
            ),
            (
                r#"{"cpu_usage": 1, "target": "web-9"}"#,
                vec![(
                    "/target",
                    "names no known target (\"web-9\"): 1 targets are known, among them web-1; GET /api/v1/targets lists all",
                )],
            ),
        ] {
            let problem = one(body).unwrap_err();
            let found: Vec<_> = problem
                .errors
                .iter()
                .map(|e| (e.pointer.as_str(), e.detail.as_str()))
                .collect();
            assert_eq!(problem.status, 422, "{body}");
            assert_eq!(found, expected, "{body}");
        }
    }

    #[test]
    fn what_is_not_json_is_400() {
        for body in [
            "",
            "{",
            r#"{"cpu_usage": NaN}"#,
            r#"{"cpu_usage": Infinity}"#,
            r#"{"cpu_usage": 1} x"#,
            r#"{"\ud800": 1}"#,
            r#"{"cpu_usage": 01}"#,
        ] {
            assert_eq!(one(body).unwrap_err().status, 400, "{body}");
        }
        let invalid_utf8 = document(b"{\"\xff\": 1}").unwrap_err();
        assert_eq!(invalid_utf8.status, 400);
    }

    #[test]
    fn batches_name_the_row_and_their_bounds() {
        assert_eq!(
            many(r#"[{"errors": 1}, {"cpu_usage": 2}]"#).unwrap().len(),
            2
        );
        for (body, pointer, detail) in [
            ("[]", "", "has 0 rows; a batch has 1 to 3"),
            ("[1,1,1,1]", "", "has 4 rows; a batch has 1 to 3"),
            ("{}", "", "is an object; must be an array"),
            (
                r#"[{"errors": 1}, {"cpu_usage": "x"}]"#,
                "/1/cpu_usage",
                "is a string; must be a number or null",
            ),
        ] {
            let problem = many(body).unwrap_err();
            assert_eq!(problem.errors[0].pointer, pointer, "{body}");
            assert_eq!(problem.errors[0].detail, detail, "{body}");
        }
    }

    #[test]
    fn the_body_stands_at_now_after_its_history() {
        let now = Timestamp::from_secs(600 * 60 + 59);
        let empty = || Window::new(2, 3, STEP);
        let row = one(r#"{"cpu_usage": 3, "history": [{"cpu_usage": 1}, {"errors": 2}]}"#).unwrap();
        let (built, history) = window(&row, None, empty(), STEP, now);
        assert_eq!(history, History::Request);
        assert_eq!(built.newest(), Some(Timestamp::from_secs(600 * 60)));
        let column = |signal| [2, 1, 0].map(|lag| built.get(signal, lag));
        assert_eq!(column(0), [Some(1.0), None, Some(3.0)]);
        assert_eq!(column(1), [None, Some(2.0), None]);

        let mut live = empty();
        place(&mut live, now.minus(STEP), &[Some(7.0), Some(8.0)]);
        let alone = one(r#"{"cpu_usage": 3}"#).unwrap();
        let (built, history) = window(&alone, Some(live.clone()), empty(), STEP, now);
        assert_eq!(history, History::Live);
        assert_eq!(built.get(0, 0), Some(3.0));
        assert_eq!(built.get(0, 1), Some(7.0));
        assert_eq!(built.get(1, 0), None);
        assert_eq!(
            live.get(0, 0),
            Some(7.0),
            "the shared window stays as it was"
        );

        let other_shape = Window::new(1, 3, STEP);
        assert_eq!(
            window(&alone, Some(other_shape), empty(), STEP, now).1,
            History::None
        );
    }

    #[test]
    fn drivers_are_the_signals_that_raise_the_score() {
        let reason = |feature: &str, contribution| Reason {
            feature: feature.into(),
            value: None,
            contribution,
        };
        let reasons = [
            reason("hour_of_day", 3.0),
            reason("errors_max", 2.0),
            reason("errors_mean", 1.0),
            reason("cpu_usage_now", -1.0),
        ];
        let signals = signals();
        let signals_of = |feature: &str| match feature {
            "errors_max" | "errors_mean" => vec!["errors"],
            "cpu_usage_now" => vec!["cpu_usage"],
            _ => vec![],
        };
        let drivers = drivers(&reasons, signals_of, &signals, &[1.0, 9.0]);
        let expected = Driver {
            signal: "errors",
            unit: Unit::Count,
            value: Some(9.0),
        };
        assert_eq!(drivers, [expected]);
    }

    #[test]
    fn times_have_microseconds_and_an_offset() {
        assert_eq!(
            microseconds(Timestamp(1_768_059_045_123)),
            "2026-01-10T15:30:45.123000+00:00"
        );
    }
}
