//! What `/metrics` shows: forewarn's own health from a registry, and the families
//! per target written from the last snapshot, so that a scrape neither queries nor scores.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};
use serde::Serialize;

use crate::assessment::{Assessment, Snapshot};
use crate::bundle::Bundle;
use crate::drift::{Drift, FeatureDrift};
use crate::scoreboard::Summary;
use crate::time::Timestamp;
use crate::types::{Signal, Source, TargetState};

/// Targets in a piece of the exposition.
const BLOCK: usize = 256;
/// Reasons published per target.
const CONTRIBUTIONS: usize = 3;
/// Features whose drift is published, the highest first.
const DRIFTING: usize = 10;

/// How a query can end: `QueryError::kind`, or well.
const QUERY_RESULTS: [&str; 9] = [
    "success",
    "unreachable",
    "timeout",
    "bad_query",
    "credentials",
    "unauthorized",
    "overloaded",
    "protocol",
    "too_large",
];

/// Counters and gauges that the components set; fixed names, known series start at 0.
pub struct Metrics {
    registry: Registry,
    /// source: cycle, api, batch
    pub predictions: IntCounterVec,
    pub prediction_duration: Histogram,
    prometheus_up: IntGaugeVec,
    /// result: success, or the kind of the error
    pub queries: IntCounterVec,
    pub query_duration: Histogram,
    pub query_warnings: IntCounter,
    /// signal: the configured ones
    pub signal_series: IntGaugeVec,
    /// what: targets, explanations
    pub left_out: IntGaugeVec,
    /// phase: query, ingest, score, publish
    pub cycle_duration: HistogramVec,
    cycles: IntCounter,
    pub cycles_missed: IntCounter,
    cycle_last_success_timestamp: GaugeVec,
    /// result: stored, duplicate, own, other_shard, malformed, failed
    pub webhook_alerts: IntCounterVec,
    pub actions: IntCounterVec,
    pub webhook_truncated_alerts: IntCounter,
    /// source: query, alerts, webhook
    pub incidents: IntCounterVec,
    state_size: IntGaugeVec,
    pub state_write_failures: IntCounter,
    /// reason: retention, size
    pub state_pruned: IntCounterVec,
    pub config_reload: Reload,
    pub model_reload: Reload,
    /// result: promoted, kept, failed
    pub trainings: IntCounterVec,
}

/// The pair of gauges that tells how the last reload went.
pub struct Reload {
    successful: IntGauge,
    success_timestamp: Gauge,
}

impl Reload {
    pub fn succeeded(&self, at: Timestamp) {
        self.successful.set(1);
        self.success_timestamp.set(at.as_secs_f64());
    }

    pub fn failed(&self) {
        self.successful.set(0);
    }
}

/// What the metrics, the API and the status page tell about the served model.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct ModelCard {
    #[schema(example = "20260110t0000-1a2b3c4d")]
    pub model_id: String,
    /// simulated, history or imported
    #[schema(example = "history")]
    pub model_origin: String,
    #[schema(example = 1800.0)]
    pub horizon_seconds: f64,
    pub step_seconds: f64,
    /// RFC 3339
    #[schema(format = DateTime, example = "2026-01-10T00:00:00Z")]
    pub trained_until: String,
    #[serde(skip)]
    pub trained: Timestamp,
    /// The threshold that the alarm budget gives.
    #[schema(minimum = 0, maximum = 1)]
    pub alert_threshold: f64,
    /// Share of rows with an incident within the horizon.
    #[schema(minimum = 0, maximum = 1)]
    pub base_rate: f64,
    pub signals: Vec<Signal>,
    pub features: Vec<String>,
}

impl ModelCard {
    pub fn of(bundle: &Bundle) -> Self {
        let manifest = &bundle.manifest;
        Self {
            model_id: manifest.id.clone(),
            model_origin: manifest.origin.name().to_string(),
            horizon_seconds: manifest.horizon_seconds,
            step_seconds: manifest.step_seconds,
            trained_until: manifest.training.end.clone(),
            trained: manifest.trained_until().unwrap_or(Timestamp(0)),
            alert_threshold: manifest.threshold.probability,
            base_rate: manifest.training.base_rate,
            signals: bundle.catalogue.signals().to_vec(),
            features: bundle.catalogue.names(),
        }
    }
}

/// The two exposition formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    OpenMetrics,
}

impl Format {
    /// The format that an `Accept` header prefers; text 0.0.4 when it does not say.
    pub fn negotiate(accept: &str) -> Self {
        let mut best = (0.0, Format::Text);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let parameters: Vec<(&str, &str)> = parts.filter_map(|p| p.split_once('=')).collect();
            let parameter = |name| parameters.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
            let quality: f64 = parameter("q").map_or(1.0, |q| q.parse().unwrap_or(0.0));
            let version = parameter("version");
            let format = match media {
                "application/openmetrics-text" if matches!(version, None | Some("1.0.0")) => {
                    Format::OpenMetrics
                }
                "text/plain" | "text/*" | "*/*" => Format::Text,
                _ => continue,
            };
            if quality > best.0 {
                best = (quality, format);
            }
        }
        best.1
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

impl Metrics {
    /// Registers every family.
    pub fn new(now: Timestamp) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let r = &registry;
        r.register(Box::new(ProcessCollector::for_self()))?;
        let build = int_gauge_vec(
            r,
            "forewarn_build_info",
            "Version and source revision of this binary; always 1.",
            &["version", "revision"],
        )?;
        build
            .with_label_values(&[
                env!("CARGO_PKG_VERSION"),
                option_env!("FOREWARN_REVISION").unwrap_or("unknown"),
            ])
            .set(1);
        let signal_series = int_gauge_vec(
            r,
            "forewarn_signal_series",
            "Series that the signal's query returned; computed by the background cycle, absent before the first answer.",
            &["signal"],
        )?;
        let left_out = int_gauge_vec(
            r,
            "forewarn_left_out",
            "What the newest cycle had too much of: targets beyond targets.max, explanations of risky targets beyond 100; absent before the first.",
            &["what"],
        )?;
        let metrics = Self {
            predictions: counters(
                r,
                "predictions_total",
                "Predictions made, one per target or row, by who asked for them: the background cycle, POST /predict or POST /predict/batch.",
                "source",
                &["cycle", "api", "batch"],
            )?,
            prediction_duration: registered(
                r,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "prediction_duration_seconds",
                        "Time to score one request, one batch or one cycle.",
                    )
                    .buckets(vec![
                        1e-5, 2.5e-5, 1e-4, 2.5e-4, 1e-3, 2.5e-3, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5,
                    ]),
                )?,
            )?,
            prometheus_up: int_gauge_vec(
                r,
                "forewarn_prometheus_up",
                "Whether the last cycle could query Prometheus (1) or not (0); absent before the first.",
                &[],
            )?,
            queries: counters(
                r,
                "forewarn_queries_total",
                "Queries sent to Prometheus, by how they ended after all retries.",
                "result",
                &QUERY_RESULTS,
            )?,
            query_duration: registered(
                r,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "forewarn_query_duration_seconds",
                        "Time of one query to Prometheus, retries included.",
                    )
                    .buckets(vec![
                        0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
                    ]),
                )?,
            )?,
            query_warnings: counter(
                r,
                "forewarn_query_warnings_total",
                "Warnings in answers of Prometheus; partial data is among them.",
            )?,
            signal_series,
            left_out,
            cycle_duration: registered(
                r,
                HistogramVec::new(
                    HistogramOpts::new(
                        "forewarn_cycle_duration_seconds",
                        "Time of one background cycle, by phase: query Prometheus, ingest the samples, score the targets, publish the snapshot and write the state.",
                    )
                    .buckets(vec![
                        0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
                    ]),
                    &["phase"],
                )?,
            )?,
            cycles: counter(
                r,
                "forewarn_cycles_total",
                "Background cycles that scored; those without an answer of Prometheus do not count.",
            )?,
            cycles_missed: counter(
                r,
                "forewarn_cycles_missed_total",
                "Grid points passed over because the cycle before took too long.",
            )?,
            cycle_last_success_timestamp: registered(
                r,
                GaugeVec::new(
                    Opts::new(
                        "forewarn_cycle_last_success_timestamp_seconds",
                        "Evaluation time of the last background cycle that scored; absent before the first.",
                    ),
                    &[],
                )?,
            )?,
            actions: counters(
                r,
                "forewarn_actions_total",
                "Actions of people about targets that were stored, by how they became known.",
                "source",
                &["webhook", "silence"],
            )?,
            webhook_alerts: counters(
                r,
                "forewarn_webhook_alerts_total",
                "Alerts received from Alertmanager, by what became of them; malformed and failed count requests.",
                "result",
                &[
                    "stored",
                    "duplicate",
                    "own",
                    "other_shard",
                    "malformed",
                    "failed",
                ],
            )?,
            webhook_truncated_alerts: counter(
                r,
                "forewarn_webhook_truncated_alerts_total",
                "Alerts that Alertmanager left out of its webhooks (max_alerts).",
            )?,
            incidents: counters(
                r,
                "forewarn_incidents_total",
                "Incidents of targets that began, by where they were seen.",
                "source",
                &Source::ALL.map(Source::name),
            )?,
            state_size: int_gauge_vec(
                r,
                "forewarn_state_size_bytes",
                "Size of the state on disk after the last background cycle; absent without state.",
                &[],
            )?,
            state_write_failures: counter(
                r,
                "forewarn_state_write_failures_total",
                "Webhooks and cycles whose results could not be written to the state; both are tried again.",
            )?,
            state_pruned: counters(
                r,
                "forewarn_state_pruned_rows_total",
                "Alerts, incidents and alarms deleted: older than the retention, or because the state was larger than state.max_bytes.",
                "reason",
                &["retention", "size"],
            )?,
            config_reload: reload(r, "config", "configuration")?,
            model_reload: reload(r, "model", "model")?,
            trainings: counters(
                r,
                "forewarn_trainings_total",
                "Scheduled trainings that ended: their model promoted, kept beside the served one, or failed.",
                "result",
                &["promoted", "kept", "failed"],
            )?,
            registry,
        };
        for phase in ["query", "ingest", "score", "publish"] {
            metrics.cycle_duration.with_label_values(&[phase]);
        }
        metrics.config_reload.succeeded(now);
        Ok(metrics)
    }

    /// Forgets the signals that another config does not have.
    pub fn keep_signals(&self, signals: &[Signal]) {
        for family in self.signal_series.collect() {
            for label in family.get_metric().iter().flat_map(|m| m.get_label()) {
                if signals.iter().all(|signal| signal.name != label.value()) {
                    // It was there a moment ago, and nobody else removes any.
                    let _ = self.signal_series.remove_label_values(&[label.value()]);
                }
            }
        }
    }

    /// Whether the cycle that just ran got an answer from Prometheus.
    pub fn set_prometheus_up(&self, up: bool) {
        let none: [&str; 0] = [];
        self.prometheus_up
            .with_label_values(&none)
            .set(i64::from(up));
    }

    pub fn set_state_size(&self, bytes: u64) {
        let none: [&str; 0] = [];
        self.state_size.with_label_values(&none).set(bytes as i64);
    }

    /// A cycle scored at `t`.
    pub fn cycle_succeeded(&self, t: Timestamp) {
        let none: [&str; 0] = [];
        self.cycles.inc();
        self.cycle_last_success_timestamp
            .with_label_values(&none)
            .set(t.as_secs_f64());
    }

    /// The exposition, piece by piece: that of many targets is large, and the last pieces are written when the first are
    /// on their way.
    pub fn render(
        &self,
        snapshot: Option<Arc<Snapshot>>,
        model: Option<&ModelCard>,
        format: Format,
    ) -> impl Iterator<Item = String> + Send + use<> {
        let mut out = Exposition::new(format);
        let none = Summary::default();
        let summary = snapshot.as_ref().map_or(&none, |s| &s.scoreboard);
        scoreboard(&mut out, "forewarn", summary);
        if let Some(shadow) = snapshot.as_ref().and_then(|s| s.shadow.as_ref()) {
            out.family(
                "forewarn_shadow_info",
                "gauge",
                "The model in the shadow, whose outcomes are in forewarn_shadow_*; always 1.",
            );
            out.sample("", &[("model_id", &shadow.model_id)], 1.0);
            scoreboard(&mut out, "forewarn_shadow", &shadow.summary);
        }
        if let Some(drift) = snapshot.as_ref().and_then(|s| s.drift.as_ref()) {
            feature_drift(&mut out, drift);
        }
        if let Some(card) = model {
            served_model(&mut out, card);
        }
        for family in self.registry.gather() {
            out.registered(&family);
        }
        if let Some(snapshot) = &snapshot {
            out.family(
                "forewarn_targets",
                "gauge",
                "Targets known; computed by the background cycle.",
            );
            out.sample("", &[], snapshot.assessments.len() as f64);
        }
        let at_risk = model.map_or(0.4, |card| card.alert_threshold.min(0.4));
        let families = snapshot.into_iter().flat_map(move |snapshot| {
            let blocks = (0..snapshot.assessments.len()).step_by(BLOCK);
            PER_TARGET.iter().flat_map(move |(name, help, write)| {
                let snapshot = snapshot.clone();
                let mut head = Exposition::new(format);
                head.family(name, "gauge", help);
                let (base, head) = (head.base, head.text);
                let blocks = blocks.clone().map(move |from| {
                    let mut out = Exposition::new(format);
                    out.base.clone_from(&base);
                    out.text.reserve(BLOCK * 128);
                    for assessment in snapshot.assessments[from..].iter().take(BLOCK) {
                        write(&mut out, assessment, at_risk);
                    }
                    out.text
                });
                std::iter::once(head).chain(blocks)
            })
        });
        let end = (format == Format::OpenMetrics).then(|| "# EOF\n".to_owned());
        std::iter::once(out.text).chain(families).chain(end)
    }
}

fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    registered(registry, IntCounter::new(name, help)?)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
    registered(registry, Gauge::new(name, help)?)
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    label: &str,
    values: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    let family = registered(
        registry,
        IntCounterVec::new(Opts::new(name, help), &[label])?,
    )?;
    for value in values {
        family.with_label_values(&[value]);
    }
    Ok(family)
}

fn int_gauge_vec(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntGaugeVec, prometheus::Error> {
    registered(registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
}

fn reload(registry: &Registry, name: &str, what: &str) -> Result<Reload, prometheus::Error> {
    Ok(Reload {
        successful: registered(
            registry,
            IntGauge::new(
                format!("forewarn_{name}_last_reload_successful"),
                format!("Whether the last load of the {what} succeeded (1) or failed (0)."),
            )?,
        )?,
        success_timestamp: gauge(
            registry,
            &format!("forewarn_{name}_last_reload_success_timestamp_seconds"),
            &format!("When the {what} was last loaded; 0 if never."),
        )?,
    })
}

/// Writes a target's lines of the family begun last; targets below the probability are not at risk.
type Write = fn(&mut Exposition, &Assessment, f64);

/// Families with a line for each target: name, help, lines.
const PER_TARGET: [(&str, &str, Write); 3] = [
    (
        "failure_probability",
        "Calibrated probability that an incident of this target starts within the horizon; computed by the background cycle, absent while forewarn_target_state says why.",
        |out, assessment, _| {
            if let Some(risk) = &assessment.risk {
                let target = ("target", assessment.target.as_str());
                let labels = assessment
                    .labels
                    .iter()
                    .map(|(n, v)| (n.as_str(), v.as_str()));
                out.line("", std::iter::once(target).chain(labels), risk.probability);
            }
        },
    ),
    (
        "forewarn_target_state",
        "1 for the state that the target is in; computed by the background cycle.",
        |out, assessment, _| {
            let mut before = format!("{}{{target=\"", out.base);
            escape(&mut before, assessment.target.as_str(), true);
            before.push_str("\",state=\"");
            for state in TargetState::ALL {
                let end = match assessment.state == state {
                    true => "\"} 1\n",
                    false => "\"} 0\n",
                };
                for part in [&before, state.name(), end] {
                    out.text.push_str(part);
                }
            }
        },
    ),
    (
        "forewarn_feature_contribution",
        "Log-odds that the strongest features add to the score of a target at risk; computed by the background cycle.",
        |out, assessment, at_risk| {
            let risk = assessment.risk.as_ref();
            if let Some(risk) = risk.filter(|risk| risk.probability >= at_risk) {
                for reason in risk.reasons.iter().take(CONTRIBUTIONS) {
                    let labels = [
                        ("target", assessment.target.as_str()),
                        ("feature", reason.feature.as_str()),
                    ];
                    out.sample("", &labels, reason.contribution);
                }
            }
        },
    ),
];

fn scoreboard(out: &mut Exposition, prefix: &str, summary: &Summary) {
    out.family(
        &format!("{prefix}_outcomes_total"),
        "counter",
        "Alarms that proved right, early, false, or uncertain because somebody acted in time, and incidents that were missed; computed by the background cycle.",
    );
    for (outcome, count) in [
        ("right", summary.right),
        ("early", summary.early),
        ("uncertain", summary.uncertain),
        ("false", summary.r#false),
        ("missed", summary.missed),
    ] {
        out.sample("_total", &[("outcome", outcome)], count as f64);
    }

    let lead_times = &summary.lead_time_histogram;
    out.family(
        &format!("{prefix}_lead_time_seconds"),
        "histogram",
        "Time from the opening of the earliest alarm that covers an incident to its start; computed by the background cycle.",
    );
    let mut below = 0;
    let buckets: Vec<(f64, u64)> = lead_times
        .bounds
        .iter()
        .zip(&lead_times.counts)
        .map(|(&bound, count)| {
            below += count;
            (bound, below)
        })
        .collect();
    out.histogram(&[], &buckets, lead_times.sum, lead_times.count);

    for (name, value, help) in [
        (
            "precision_ratio",
            summary.precision,
            "Right alarms / (right + false) over the rolling window (state.retention); absent below 10 of them; computed by the background cycle.",
        ),
        (
            "recall_ratio",
            summary.recall,
            "Foreseen incidents / all over the rolling window (state.retention); absent below 10 of them; computed by the background cycle.",
        ),
        (
            "false_alarms_per_target_week",
            summary.false_alarms_per_target_week,
            "False alarms per target and week over the rolling window (state.retention); absent below one week of targets scored; computed by the background cycle.",
        ),
        (
            "brier_score",
            summary.brier,
            "Mean squared error of the probabilities over the rolling window (state.retention); absent below 1000 judged ones; computed by the background cycle.",
        ),
        (
            "calibration_error",
            summary.calibration_error,
            "Expected calibration error over the rolling window (state.retention); absent below 1000 judged probabilities; computed by the background cycle.",
        ),
    ] {
        if let Some(value) = value {
            out.family(&format!("{prefix}_{name}"), "gauge", help);
            out.sample("", &[], value);
        }
    }
}

type DriftGauge = (&'static str, fn(&FeatureDrift) -> f64, &'static str);

const DRIFT: [DriftGauge; 2] = [
    (
        "forewarn_feature_drift_psi",
        |feature| feature.psi,
        "Population stability index of the rows of the last day against the training rows, of the features with the highest; absent until a day was scored; computed by the background cycle.",
    ),
    (
        "forewarn_feature_drift_usual_psi",
        |feature| feature.usual_psi,
        "The highest population stability index of a single day of the training range, of the same features.",
    ),
];

fn feature_drift(out: &mut Exposition, drift: &Drift) {
    for (name, value, help) in DRIFT {
        out.family(name, "gauge", help);
        for feature in drift.features.iter().take(DRIFTING) {
            let labels = [("feature", feature.feature.as_str())];
            out.sample("", &labels, value(feature));
        }
    }
}

fn served_model(out: &mut Exposition, card: &ModelCard) {
    out.family(
        "forewarn_alert_threshold",
        "gauge",
        "Probability from which the alarm budget allows an alarm.",
    );
    out.sample("", &[], card.alert_threshold);
    out.family(
        "forewarn_horizon_seconds",
        "gauge",
        "How far ahead the probability looks.",
    );
    out.sample("", &[], card.horizon_seconds);
    out.family(
        "forewarn_model_info",
        "gauge",
        "The served model; always 1.",
    );
    let horizon = crate::time::format_duration(Duration::from_secs_f64(card.horizon_seconds));
    let labels = [
        ("model_id", card.model_id.as_str()),
        ("origin", card.model_origin.as_str()),
        ("horizon", &horizon),
        ("features", &card.features.len().to_string()),
    ];
    out.sample("", &labels, 1.0);
    out.family(
        "forewarn_model_trained_timestamp_seconds",
        "gauge",
        "When the served model was trained.",
    );
    out.sample("", &[], card.trained.as_secs_f64());
}

/// Writer of either format; samples belong to the family begun last.
struct Exposition {
    openmetrics: bool,
    /// Name of the current family, without `_total`.
    base: String,
    text: String,
}

impl Exposition {
    fn new(format: Format) -> Self {
        Self {
            openmetrics: format == Format::OpenMetrics,
            base: String::new(),
            text: String::new(),
        }
    }

    /// `name` is the name that Prometheus stores, so a counter's ends in `_total`.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let base = if kind == "counter" {
            name.strip_suffix("_total").unwrap_or(name)
        } else {
            name
        };
        self.base.clear();
        self.base.push_str(base);
        let shown = if self.openmetrics { base } else { name };
        let _ = write!(self.text, "# HELP {shown} ");
        escape(&mut self.text, help, self.openmetrics);
        let _ = write!(self.text, "\n# TYPE {shown} {kind}\n");
        if self.openmetrics
            && let Some(unit) = ["seconds", "bytes", "ratio"]
                .into_iter()
                .find(|unit| base.ends_with(unit))
        {
            let _ = writeln!(self.text, "# UNIT {shown} {unit}");
        }
    }

    fn sample(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        self.line(suffix, labels.iter().copied(), value);
    }

    fn line<'a>(
        &mut self,
        suffix: &str,
        labels: impl Iterator<Item = (&'a str, &'a str)>,
        value: f64,
    ) {
        let text = &mut self.text;
        text.push_str(&self.base);
        text.push_str(suffix);
        let mut before = "{";
        for (name, value) in labels {
            for part in [before, name, "=\""] {
                text.push_str(part);
            }
            escape(text, value, true);
            before = "\",";
        }
        text.push_str(if before == "{" { " " } else { "\"} " });
        push_number(text, value);
        text.push('\n');
    }

    /// `buckets` are upper bounds with cumulative counts.
    fn histogram(&mut self, labels: &[(&str, &str)], buckets: &[(f64, u64)], sum: f64, count: u64) {
        for (bound, below) in buckets.iter().copied().chain([(f64::INFINITY, count)]) {
            let mut le = String::new();
            if self.openmetrics && bound.is_finite() {
                let _ = write!(le, "{bound:?}");
            } else {
                push_number(&mut le, bound);
            }
            let labels = [labels, &[("le", le.as_str())]].concat();
            self.sample("_bucket", &labels, below as f64);
        }
        self.sample("_sum", labels, sum);
        self.sample("_count", labels, count as f64);
    }

    fn registered(&mut self, family: &MetricFamily) {
        let (kind, suffix) = match family.get_field_type() {
            MetricType::COUNTER => ("counter", "_total"),
            MetricType::HISTOGRAM => ("histogram", ""),
            _ => ("gauge", ""),
        };
        self.family(family.name(), kind, family.help());
        for metric in family.get_metric() {
            let labels: Vec<(&str, &str)> = metric
                .get_label()
                .iter()
                .map(|pair| (pair.name(), pair.value()))
                .collect();
            if kind == "histogram" {
                let histogram = metric.get_histogram();
                let buckets: Vec<(f64, u64)> = histogram
                    .get_bucket()
                    .iter()
                    .map(|b| (b.upper_bound(), b.cumulative_count()))
                    .filter(|(bound, _)| bound.is_finite())
                    .collect();
                self.histogram(
                    &labels,
                    &buckets,
                    histogram.get_sample_sum(),
                    histogram.get_sample_count(),
                );
            } else {
                let value = match kind {
                    "counter" => metric.get_counter().get_value(),
                    _ => metric.get_gauge().get_value(),
                };
                self.sample(suffix, &labels, value);
            }
        }
    }
}

fn push_number(out: &mut String, value: f64) {
    if value.is_infinite() {
        out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else {
        let _ = write!(out, "{value}");
    }
}

fn escape(out: &mut String, text: &str, quotes: bool) {
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escaped = match byte {
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'"' if quotes => "\\\"",
            _ => continue,
        };
        out.push_str(&text[plain..at]);
        out.push_str(escaped);
        plain = at + 1;
    }
    out.push_str(&text[plain..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assessment::ShadowBoard;
    use crate::assessment::{Live, Reason, Risk};
    use crate::exported::{OPEN, everything, labels_of};
    use crate::model::Score;
    use crate::types::{RiskLevel, Shard, TargetId, Unit};

    fn card() -> ModelCard {
        ModelCard {
            model_id: "m1".into(),
            model_origin: "simulated".into(),
            horizon_seconds: 1800.0,
            step_seconds: 60.0,
            trained_until: "1970-01-01T00:00:50Z".into(),
            trained: Timestamp::from_secs(50),
            alert_threshold: 0.3,
            base_rate: 0.01,
            signals: Vec::new(),
            features: vec!["a".into(), "b".into()],
        }
    }

    fn assessment(target: &str, probability: Option<f64>) -> Assessment {
        Assessment {
            target: TargetId::new(target),
            labels: [("job".into(), "app".into())].into(),
            live: Live::of_nothing(),
            course: Default::default(),
            state: probability.map_or(TargetState::Failing, |_| TargetState::Ok),
            risk: probability.map(|probability| Risk {
                probability,
                score: Score::default(),
                level: RiskLevel::Low,
                shadow: None,
                reasons: (0..5)
                    .map(|i| Reason {
                        feature: format!("f{i}"),
                        value: None,
                        contribution: 1.5,
                    })
                    .collect(),
            }),
        }
    }

    fn snapshot() -> Snapshot {
        Snapshot {
            at: Timestamp(0),
            prometheus_up: true,
            shard: Shard::WHOLE,
            assessments: vec![
                assessment("a\"\\\nb", Some(0.35)),
                assessment("calm", Some(0.1)),
                assessment("down", None),
            ],
            scoreboard: Summary {
                right: 3,
                precision: Some(0.75),
                ..Summary::default()
            },
            shadow: Some(ShadowBoard {
                model_id: "candidate".into(),
                summary: Summary {
                    missed: 2,
                    recall: Some(0.5),
                    ..Summary::default()
                },
            }),
            drift: Some(Drift {
                rows: 5000,
                features: (0..12)
                    .map(|i| FeatureDrift {
                        feature: format!("d{i}"),
                        psi: 1.5 / f64::from(1 << i),
                        usual_psi: 0.125,
                    })
                    .collect(),
            }),
        }
    }

    fn render(format: Format) -> String {
        let metrics = Metrics::new(Timestamp(0)).unwrap();
        metrics.predictions.with_label_values(&["api"]).inc();
        metrics.query_duration.observe(0.3);
        let snapshot = Some(Arc::new(snapshot()));
        metrics.render(snapshot, Some(&card()), format).collect()
    }

    #[test]
    fn text_names_every_target_and_escapes_it() {
        let text = render(Format::Text);
        for line in [
            r#"failure_probability{target="a\"\\\nb",job="app"} 0.35"#,
            r#"forewarn_target_state{target="down",state="failing"} 1"#,
            r#"forewarn_target_state{target="down",state="ok"} 0"#,
            r#"forewarn_feature_contribution{target="a\"\\\nb",feature="f2"} 1.5"#,
            "# TYPE predictions_total counter",
            r#"forewarn_queries_total{result="timeout"} 0"#,
            r#"forewarn_incidents_total{source="webhook"} 0"#,
            r#"predictions_total{source="api"} 1"#,
            r#"predictions_total{source="cycle"} 0"#,
            r#"forewarn_outcomes_total{outcome="right"} 3"#,
            "forewarn_precision_ratio 0.75",
            r#"forewarn_shadow_outcomes_total{outcome="missed"} 2"#,
            r#"forewarn_shadow_info{model_id="candidate"} 1"#,
            "forewarn_shadow_recall_ratio 0.5",
            "forewarn_targets 3",
            r#"forewarn_feature_drift_psi{feature="d0"} 1.5"#,
            r#"forewarn_feature_drift_usual_psi{feature="d0"} 0.125"#,
            r#"forewarn_cycle_duration_seconds_count{phase="score"} 0"#,
            r#"forewarn_query_duration_seconds_bucket{le="1"} 1"#,
            r#"forewarn_model_info{model_id="m1",origin="simulated",horizon="30m",features="2"} 1"#,
        ] {
            assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        }
        for absent in [
            "failure_probability{target=\"down\"",
            "feature=\"f3\"",
            "feature=\"d10\"",
            "contribution{target=\"calm\"",
            "forewarn_recall_ratio",
            "forewarn_prometheus_up",
            "forewarn_signal_series{",
            "forewarn_left_out{",
            "forewarn_cycle_last_success_timestamp_seconds",
            "# EOF",
        ] {
            assert!(!text.contains(absent), "{absent} in\n{text}");
        }
    }

    #[test]
    fn a_config_without_a_signal_forgets_its_series_and_keeps_the_others() {
        let metrics = Metrics::new(Timestamp(0)).unwrap();
        for name in ["cpu_usage", "disk_usage"] {
            metrics.signal_series.with_label_values(&[name]).set(3);
        }
        let signals = ["disk_usage", "new_one"].map(|name| Signal {
            name: name.into(),
            unit: Unit::Percent,
        });
        metrics.keep_signals(&signals);
        let text: String = metrics.render(None, None, Format::Text).collect();
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("forewarn_signal_series"))
            .collect();
        assert_eq!(lines, [r#"forewarn_signal_series{signal="disk_usage"} 3"#]);
    }

    #[test]
    fn openmetrics_names_counters_without_total_in_their_type() {
        let text = render(Format::OpenMetrics);
        for line in [
            "# TYPE predictions counter",
            r#"predictions_total{source="api"} 1"#,
            "# TYPE forewarn_lead_time_seconds histogram",
            "# UNIT forewarn_lead_time_seconds seconds",
            r#"forewarn_query_duration_seconds_bucket{le="1.0"} 1"#,
        ] {
            assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        }
        assert!(text.ends_with("\n# EOF\n"));
    }

    #[test]
    fn every_family_is_declared_once_and_has_help() {
        let text = render(Format::Text);
        let mut types: Vec<&str> = text.lines().filter(|l| l.starts_with("# TYPE")).collect();
        let helps = text.lines().filter(|l| l.starts_with("# HELP")).count();
        assert_eq!(types.len(), helps);
        types.sort_unstable();
        types.dedup();
        assert_eq!(types.len(), helps);
    }

    const GROUPS: [(&str, &str, &[&str]); 8] = [
        (
            "Predictions",
            "One line per target; a target that leaves takes its lines along.",
            &[
                "failure_probability",
                "forewarn_target",
                "forewarn_feature_contribution",
                "forewarn_alert_threshold",
                "forewarn_horizon",
                "prediction",
            ],
        ),
        (
            "Scoreboard",
            "What became of the alarms ([closed-loop.md](closed-loop.md)). Each also exists as `forewarn_shadow_*` while a candidate scores in the shadow.",
            &[
                "forewarn_outcomes",
                "forewarn_lead_time",
                "forewarn_precision",
                "forewarn_recall",
                "forewarn_false_alarms",
                "forewarn_brier",
                "forewarn_calibration",
                "forewarn_incidents",
                "forewarn_shadow",
            ],
        ),
        (
            "Drift",
            "How far the rows scored have moved from those trained on ([closed-loop.md](closed-loop.md)).",
            &["forewarn_feature_drift"],
        ),
        (
            "Cycle and upstream",
            "The background cycle and the Prometheus that it asks ([upstream.md](upstream.md)).",
            &[
                "forewarn_cycle",
                "forewarn_prometheus",
                "forewarn_quer",
                "forewarn_signal",
                "forewarn_left_out",
            ],
        ),
        (
            "Webhooks and actions",
            "What Alertmanager sends to /webhook/alertmanager, and what people did ([closed-loop.md](closed-loop.md#when-somebody-acts)).",
            &["forewarn_webhook", "forewarn_actions"],
        ),
        (
            "State",
            "The database under state.path ([reliability.md](reliability.md)).",
            &["forewarn_state"],
        ),
        (
            "Model and config",
            "What is in service, and how the last change of it went ([operations.md](operations.md)).",
            &["forewarn_model", "forewarn_config", "forewarn_trainings"],
        ),
        (
            "Process",
            "The binary and its process.",
            &["forewarn_build", "process_"],
        ),
    ];
    /// Every family with everything that it can have.
    fn reference() -> (String, Vec<String>) {
        let text = everything().unwrap();
        let mut names = Vec::new();
        let mut tables = vec![String::new(); GROUPS.len()];
        for family in text.split("# HELP ").skip(1) {
            let mut lines = family.lines();
            let (name, help) = lines.next().unwrap().split_once(' ').unwrap();
            let kind = lines.next().unwrap().rsplit(' ').next().unwrap();
            let mut labels: Vec<(String, Vec<String>)> = Vec::new();
            for sample in lines {
                names.push(sample.split(['{', ' ']).next().unwrap().to_string());
                for (label, value) in labels_of(sample) {
                    let value = value.to_string();
                    let at = labels.iter().position(|(known, _)| known == label);
                    let at = at.unwrap_or_else(|| {
                        labels.push((label.to_string(), Vec::new()));
                        labels.len() - 1
                    });
                    if !labels[at].1.contains(&value) {
                        labels[at].1.push(value);
                    }
                }
            }
            let labels: Vec<String> = labels
                .iter()
                .filter(|(label, _)| label != "le")
                .map(
                    |(label, values)| match (label.as_str(), OPEN.contains(&label.as_str())) {
                        ("job", _) => "`targets.extra_labels`".into(),
                        (_, true) => format!("`{label}`"),
                        (_, false) => format!("`{label}`: {}", values.join(", ")),
                    },
                )
                .collect();
            let words: Vec<&str> = name.split('_').collect();
            let unit = ["seconds", "bytes", "ratio"]
                .into_iter()
                .find(|unit| words.contains(unit));
            let group = GROUPS
                .iter()
                .position(|(_, _, prefixes)| prefixes.iter().any(|prefix| name.starts_with(prefix)))
                .unwrap_or_else(|| panic!("{name} belongs to no group of docs/metrics.md"));
            tables[group].push_str(&format!(
                "| `{name}` | {kind} | {} | {} | {} |\n",
                unit.unwrap_or_default(),
                labels.join("; "),
                help.replace("\\\\", "\\").replace('|', "\\|")
            ));
        }
        let mut page = "# Metrics\n\nEverything under `/metrics`, generated from the families in `src/metrics.rs`; `FOREWARN_UPDATE_DOCS=1 cargo test docs` writes it anew. A histogram has\n`_bucket`, `_sum` and `_count`. \"Computed by the background cycle\" means that a scrape shows the last cycle's value: scraping more often shows nothing newer.\n".to_string();
        for ((title, words, _), table) in GROUPS.iter().zip(tables) {
            page.push_str(&format!("\n## {title}\n\n{words}\n\n| name | type | unit | labels | meaning |\n|---|---|---|---|---|\n{table}"));
        }
        (page, names)
    }

    #[test]
    fn docs_metrics_md_is_current() {
        let (page, names) = reference();
        let path = "docs/metrics.md";
        if std::env::var_os("FOREWARN_UPDATE_DOCS").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            found == page,
            "{path} is stale: run FOREWARN_UPDATE_DOCS=1 cargo test docs"
        );
        // What rules and dashboards may use.
        let listed = include_str!("../tests/metrics.lst").lines();
        for name in listed.filter(|name| !["ALERTS", "up"].contains(name)) {
            assert!(
                names.iter().any(|known| known == name),
                "{name} does not exist"
            );
        }
    }

    #[test]
    fn the_accept_header_chooses_the_format() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        for (accept, format) in [
            (prometheus, Format::OpenMetrics),
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/plain", Format::Text),
            (
                "application/openmetrics-text; version=1.0.0",
                Format::OpenMetrics,
            ),
            ("application/openmetrics-text;version=0.0.1", Format::Text),
            (
                "text/plain, application/openmetrics-text;q=0.3",
                Format::Text,
            ),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text;q=x", Format::Text),
        ] {
            assert_eq!(Format::negotiate(accept), format, "{accept}");
        }
    }
}
