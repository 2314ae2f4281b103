//! Which features a set of signals has, in which order, and their names, units and reasons.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::statistic::{Fits, Statistic};
use crate::time::{Timestamp, millis};
use crate::types::{Signal, Unit};
use crate::window::{MARK_EVERY, MARKS, Window};

/// Signals with domain features, and the unit that these features assume.
pub const KNOWN_SIGNALS: [(&str, Unit); 7] = [
    ("cpu_usage", Unit::Percent),
    ("memory_usage", Unit::Percent),
    ("disk_usage", Unit::Percent),
    ("network_latency_ms", Unit::Milliseconds),
    ("error_count", Unit::Count),
    ("response_time_ms", Unit::Milliseconds),
    ("active_connections", Unit::Count),
];

use Statistic::{
    Delta, Departure, Growth, Max, Mean, Projection, Ratio, Slope, Std, TimeToLimit, Value,
};

/// Statistics of the known signals beyond their value.
const KNOWN_STATISTICS: [(&str, &[Statistic]); 7] = [
    (
        "cpu_usage",
        &[
            Mean(15),
            Std(15),
            Slope(60),
            Projection(60),
            TimeToLimit(60),
            Ratio(120),
            Departure,
            Growth(30),
        ],
    ),
    (
        "memory_usage",
        &[
            Slope(60),
            Projection(60),
            TimeToLimit(60),
            Departure,
            Growth(30),
        ],
    ),
    (
        "disk_usage",
        &[Projection(60), TimeToLimit(60), Departure, Growth(30)],
    ),
    ("network_latency_ms", &[Ratio(120), Departure, Growth(30)]),
    ("error_count", &[Departure, Growth(30)]),
    ("response_time_ms", &[Ratio(120), Departure, Growth(30)]),
    ("active_connections", &[Ratio(120), Departure, Growth(30)]),
];

/// Statistics of a signal that the user named.
const CUSTOM_STATISTICS: [Statistic; 8] = [
    Delta(5),
    Mean(15),
    Std(15),
    Max(60),
    Slope(60),
    Ratio(120),
    Departure,
    Growth(30),
];
const CUSTOM_BOUNDED_STATISTICS: [Statistic; 2] = [Projection(60), TimeToLimit(60)];

/// A number of the current samples alone, by the names that the Python service gave them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interaction {
    TotalStress,
    ResourcePressure,
    ErrorRate,
    PerformanceRatio,
    CpuMemoryProduct,
    MaxUtilization,
}

impl Interaction {
    const ALL: [Interaction; 6] = [
        Interaction::TotalStress,
        Interaction::ResourcePressure,
        Interaction::ErrorRate,
        Interaction::PerformanceRatio,
        Interaction::CpuMemoryProduct,
        Interaction::MaxUtilization,
    ];

    /// Name, formula, unit, reason.
    fn text(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Interaction::TotalStress => (
                "total_stress",
                "0.30 cpu + 0.30 memory + 0.10 disk + 0.15 min(response time / 20, 100) + 0.15 min(5 errors, 100)",
                "percent",
                "one number for resources and symptoms together",
            ),
            Interaction::ResourcePressure => (
                "resource_pressure",
                "(cpu + memory + disk) / 3",
                "percent",
                "mean utilisation",
            ),
            Interaction::ErrorRate => (
                "error_rate",
                "errors / max(connections, 1)",
                "errors per connection",
                "errors at equal load",
            ),
            Interaction::PerformanceRatio => (
                "performance_ratio",
                "response time / max(connections, 1)",
                "milliseconds per connection",
                "slow although little is going on",
            ),
            Interaction::CpuMemoryProduct => (
                "cpu_memory_product",
                "cpu × memory / 100",
                "percent",
                "lets the linear member see both high at once",
            ),
            Interaction::MaxUtilization => (
                "max_utilization",
                "max(cpu, memory, disk)",
                "percent",
                "one exhausted resource is enough to fail",
            ),
        }
    }

    /// Known signals it reads, in the order that [`Interaction::value`] takes them.
    fn inputs(self) -> &'static [&'static str] {
        match self {
            Interaction::TotalStress => &[
                "cpu_usage",
                "memory_usage",
                "disk_usage",
                "response_time_ms",
                "error_count",
            ],
            Interaction::ResourcePressure | Interaction::MaxUtilization => {
                &["cpu_usage", "memory_usage", "disk_usage"]
            }
            Interaction::ErrorRate => &["error_count", "active_connections"],
            Interaction::PerformanceRatio => &["response_time_ms", "active_connections"],
            Interaction::CpuMemoryProduct => &["cpu_usage", "memory_usage"],
        }
    }

    fn value(self, x: &[f64]) -> f64 {
        match self {
            Interaction::TotalStress => {
                0.30 * x[0]
                    + 0.30 * x[1]
                    + 0.10 * x[2]
                    + 0.15 * (x[3] / 20.0).min(100.0)
                    + 0.15 * (5.0 * x[4]).min(100.0)
            }
            Interaction::ResourcePressure => (x[0] + x[1] + x[2]) / 3.0,
            Interaction::MaxUtilization => x[0].max(x[1]).max(x[2]),
            Interaction::ErrorRate | Interaction::PerformanceRatio => x[0] / x[1].max(1.0),
            Interaction::CpuMemoryProduct => x[0] * x[1] / 100.0,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Calendar {
    HourSin,
    HourCos,
    IsWeekend,
}

impl Calendar {
    const ALL: [Calendar; 3] = [Calendar::HourSin, Calendar::HourCos, Calendar::IsWeekend];

    /// Name, formula, reason.
    fn text(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Calendar::HourSin => ("hour_sin", "sin(2π × hour of day / 24), UTC", "daily load"),
            Calendar::HourCos => ("hour_cos", "cos(2π × hour of day / 24), UTC", "daily load"),
            Calendar::IsWeekend => ("is_weekend", "1 on Saturday and Sunday, UTC", "weekly load"),
        }
    }

    fn value(self, t: Timestamp) -> f64 {
        const DAY_MS: i64 = 86_400_000;
        let turn = t.0.rem_euclid(DAY_MS) as f64 / DAY_MS as f64 * std::f64::consts::TAU;
        match self {
            Calendar::HourSin => turn.sin(),
            Calendar::HourCos => turn.cos(),
            // The epoch was a Thursday.
            Calendar::IsWeekend => f64::from((t.0.div_euclid(DAY_MS) + 3).rem_euclid(7) >= 5),
        }
    }
}

#[derive(Clone, Debug)]
enum Source {
    Signal { signal: usize, statistic: Statistic },
    Interaction(Interaction, Vec<usize>),
    Calendar(Calendar),
}

/// What a model file records of a feature; a model is refused when they differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureSpec {
    pub name: String,
    pub unit: String,
    /// Raised whenever the formula changes.
    pub version: u32,
}

const FEATURE_VERSION: u32 = 1;

/// Whether a feature that is not a signal's own has this name, so that no signal may.
pub fn is_reserved(name: &str) -> bool {
    let mut interactions = Interaction::ALL.iter().map(|i| i.text().0);
    let mut calendar = Calendar::ALL.iter().map(|c| c.text().0);
    interactions.any(|own| own == name) || calendar.any(|own| own == name)
}

/// The features of a set of signals at one step and horizon.
#[derive(Clone, Debug)]
pub struct Catalogue {
    signals: Vec<Signal>,
    step: Duration,
    horizon: Duration,
    features: Vec<(FeatureSpec, Source)>,
    lookback: usize,
}

impl Catalogue {
    pub fn new(signals: &[Signal], step: Duration, horizon: Duration) -> Self {
        let mut catalogue = Self {
            signals: signals.to_vec(),
            step,
            horizon,
            features: Vec::new(),
            lookback: 0,
        };
        for signal in 0..signals.len() {
            catalogue.push_signal(signal, Value);
        }
        for interaction in Interaction::ALL {
            catalogue.push_interaction(interaction);
        }
        for calendar in Calendar::ALL {
            let (name, ..) = calendar.text();
            catalogue.push(name.into(), "none".into(), Source::Calendar(calendar));
        }
        for (signal, known) in signals.iter().enumerate() {
            for statistic in statistics(known) {
                catalogue.push_signal(signal, statistic);
            }
        }
        catalogue.lookback = catalogue
            .features
            .iter()
            .map(|(_, source)| match source {
                Source::Signal { statistic, .. } => statistic.span(),
                _ => 1,
            })
            .max()
            .unwrap_or(1);
        catalogue
    }

    fn push(&mut self, name: String, unit: String, source: Source) {
        let spec = FeatureSpec {
            name,
            unit,
            version: FEATURE_VERSION,
        };
        self.features.push((spec, source));
    }

    fn push_signal(&mut self, signal: usize, statistic: Statistic) {
        let Signal { name, unit } = &self.signals[signal];
        let name = match statistic.label() {
            None => name.clone(),
            Some((label, steps)) => format!("{name}_{label}_{}", span_name(self.step, steps)),
        };
        let unit = statistic.unit(*unit);
        self.push(name, unit, Source::Signal { signal, statistic });
    }

    fn push_interaction(&mut self, interaction: Interaction) {
        let inputs: Option<Vec<usize>> = interaction
            .inputs()
            .iter()
            .map(|name| self.signals.iter().position(|s| s.name == *name))
            .collect();
        if let Some(inputs) = inputs {
            let (name, _, unit, _) = interaction.text();
            self.push(
                name.into(),
                unit.into(),
                Source::Interaction(interaction, inputs),
            );
        }
    }

    pub fn signals(&self) -> &[Signal] {
        &self.signals
    }

    pub fn step(&self) -> Duration {
        self.step
    }

    pub fn horizon(&self) -> Duration {
        self.horizon
    }

    pub fn len(&self) -> usize {
        self.features.len()
    }

    pub fn is_empty(&self) -> bool {
        self.features.is_empty()
    }

    pub fn specs(&self) -> Vec<FeatureSpec> {
        self.features.iter().map(|(spec, _)| spec.clone()).collect()
    }

    pub fn names(&self) -> Vec<String> {
        self.features
            .iter()
            .map(|(spec, _)| spec.name.clone())
            .collect()
    }

    pub fn name(&self, column: usize) -> &str {
        &self.features[column].0.name
    }

    /// Slots a window needs so that every feature can be computed.
    pub fn lookback(&self) -> usize {
        self.lookback
    }

    /// Slots that a window and its baseline reach back.
    pub fn reach(&self) -> usize {
        self.lookback.max(MARKS * MARK_EVERY)
    }

    /// Columns that the current samples and the clock alone decide.
    pub fn snapshot_columns(&self) -> Vec<usize> {
        (0..self.len())
            .filter(|&c| {
                !matches!(&self.features[c].1, Source::Signal { statistic, .. } if *statistic != Value)
            })
            .collect()
    }

    /// Columns that tell the level of what is large on one target and small on another: the ensemble that has
    /// the history is not to learn whose level it is, and has the departure from the target's own normal instead.
    pub fn level_columns(&self) -> Vec<usize> {
        let is_unbounded = |signal: &usize| {
            let Signal { name, unit } = &self.signals[*signal];
            unit.limit().is_none() && KNOWN_SIGNALS.iter().any(|(known, _)| known == name)
        };
        (0..self.len())
            .filter(|&column| match &self.features[column].1 {
                Source::Signal { signal, statistic } => *statistic == Value && is_unbounded(signal),
                Source::Interaction(_, signals) => signals.iter().any(is_unbounded),
                Source::Calendar(_) => false,
            })
            .collect()
    }

    /// The signals that a feature reads; none for the calendar.
    pub fn signals_of(&self, feature: &str) -> Vec<&str> {
        let column = self
            .features
            .iter()
            .position(|(spec, _)| spec.name == feature);
        let inputs = column.map_or(&[][..], |column| self.inputs_of(column));
        inputs
            .iter()
            .map(|&i| self.signals[i].name.as_str())
            .collect()
    }

    /// [`Catalogue::signals_of`] a column, as positions.
    pub fn inputs_of(&self, column: usize) -> &[usize] {
        match &self.features[column].1 {
            Source::Signal { signal, .. } => std::slice::from_ref(signal),
            Source::Interaction(_, inputs) => inputs,
            Source::Calendar(_) => &[],
        }
    }

    pub fn window(&self) -> Window {
        Window::new(self.signals.len(), self.lookback, self.step)
    }

    /// Fills `out` (one number per feature, NaN = missing) from a window whose newest slot is `t`.
    pub fn compute(&self, window: &Window, t: Timestamp, out: &mut [f32]) {
        debug_assert_eq!(window.newest(), Some(t.floor(self.step)));
        debug_assert!(t.0 % millis(self.step) == 0);
        let mut fits = Fits::new(self.step, self.horizon);
        self.fill(
            |signal| window.get(signal, 0),
            |signal, statistic| {
                statistic.compute(window, signal, self.signals[signal].unit, &mut fits)
            },
            t,
            out,
        );
    }

    /// [`Catalogue::compute`] of a window that holds these samples at `t` and nothing before.
    pub fn compute_current(&self, samples: &[Option<f32>], t: Timestamp, out: &mut [f32]) {
        self.fill(|signal| samples[signal], |_, _| None, t, out);
    }

    fn fill(
        &self,
        current: impl Fn(usize) -> Option<f32>,
        mut of_history: impl FnMut(usize, Statistic) -> Option<f64>,
        t: Timestamp,
        out: &mut [f32],
    ) {
        let mut inputs = [0.0; 5];
        for ((_, source), out) in self.features.iter().zip(out) {
            let value = match source {
                Source::Signal {
                    signal,
                    statistic: Value,
                } => current(*signal).map(f64::from),
                Source::Signal { signal, statistic } => of_history(*signal, *statistic),
                Source::Interaction(interaction, signals) => {
                    let complete = signals.iter().zip(&mut inputs).all(|(&signal, input)| {
                        current(signal).map(|v| *input = f64::from(v)).is_some()
                    });
                    complete.then(|| interaction.value(&inputs[..signals.len()]))
                }
                Source::Calendar(calendar) => Some(calendar.value(t)),
            };
            *out = value.map_or(f32::NAN, |v| {
                v.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32
            });
        }
    }

    /// The table of `docs/features.md`.
    pub fn markdown(&self) -> String {
        let mut text =
            String::from("| # | feature | formula | unit | why |\n|---|---|---|---|---|\n");
        for (i, (spec, source)) in self.features.iter().enumerate() {
            let (formula, reason) = match source {
                Source::Signal { signal, statistic } => {
                    let span = statistic
                        .label()
                        .map_or(String::new(), |(_, n)| span_name(self.step, n));
                    let Signal { name, unit } = &self.signals[*signal];
                    let formula = format!("`{name}`: {}", statistic.formula(*unit, &span));
                    (formula, statistic.reason())
                }
                Source::Interaction(interaction, _) => {
                    let (_, formula, _, reason) = interaction.text();
                    (formula.to_string(), reason)
                }
                Source::Calendar(calendar) => {
                    let (_, formula, reason) = calendar.text();
                    (formula.to_string(), reason)
                }
            };
            text.push_str(&format!(
                "| {} | `{}` | {formula} | {} | {reason} |\n",
                i + 1,
                spec.name,
                spec.unit
            ));
        }
        text
    }
}

fn statistics(signal: &Signal) -> Vec<Statistic> {
    if let Some((_, known)) = KNOWN_STATISTICS
        .iter()
        .find(|(name, _)| *name == signal.name)
    {
        return known.to_vec();
    }
    let bounded: &[Statistic] = match signal.unit.limit() {
        Some(_) => &CUSTOM_BOUNDED_STATISTICS,
        None => &[],
    };
    CUSTOM_STATISTICS.iter().chain(bounded).copied().collect()
}

/// `15m` for fifteen steps of a minute, `1d` for a day of them, `90s` where the span is no whole number of minutes.
fn span_name(step: Duration, steps: usize) -> String {
    let ms = millis(step) * steps as i64;
    match ms {
        ms if ms % 86_400_000 == 0 => format!("{}d", ms / 86_400_000),
        ms if ms % 60_000 == 0 => format!("{}m", ms / 60_000),
        ms if ms % 1000 == 0 => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_secs(60);
    const HORIZON: Duration = Duration::from_secs(1800);

    fn seven() -> Vec<Signal> {
        KNOWN_SIGNALS
            .iter()
            .map(|(name, unit)| Signal {
                name: (*name).into(),
                unit: *unit,
            })
            .collect()
    }

    fn row(catalogue: &Catalogue, window: &Window, t: Timestamp) -> Vec<f32> {
        let mut out = vec![0.0; catalogue.len()];
        catalogue.compute(window, t, &mut out);
        out
    }

    fn filled(
        catalogue: &Catalogue,
        minutes: i64,
        at: impl Fn(usize, i64) -> f32,
    ) -> (Window, Timestamp) {
        let mut window = catalogue.window();
        let mut t = Timestamp::from_secs(0);
        for minute in 0..minutes {
            t = Timestamp::from_secs(1_770_000_000 + minute * 60);
            window.advance(t);
            for signal in 0..window.signals() {
                window.set(signal, t, at(signal, minute));
            }
        }
        (window, t)
    }

    #[test]
    fn the_seven_signals_have_44_features() {
        let catalogue = Catalogue::new(&seven(), STEP, HORIZON);
        assert_eq!(catalogue.len(), 44);
        assert_eq!(catalogue.lookback(), 120);
        assert_eq!(catalogue.snapshot_columns(), (0..16).collect::<Vec<_>>());
        let mut names = catalogue.names();
        for name in [
            "total_stress",
            "error_rate",
            "performance_ratio",
            "cpu_memory_product",
            "resource_pressure",
            "memory_usage_slope_60m",
        ] {
            assert!(names.contains(&name.to_string()), "{name}");
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 44);
    }

    #[test]
    fn custom_signals_have_their_own_statistics_and_interactions_need_their_inputs() {
        let signals = [
            Signal {
                name: "queue_depth".into(),
                unit: Unit::Count,
            },
            Signal {
                name: "pool_share".into(),
                unit: Unit::Ratio,
            },
            Signal {
                name: "cpu_usage".into(),
                unit: Unit::Percent,
            },
        ];
        let names = Catalogue::new(&signals, Duration::from_secs(30), HORIZON).names();
        for name in [
            "queue_depth_slope_30m",
            "queue_depth_delta_150s",
            "pool_share_time_to_limit_30m",
            "cpu_usage_projection_30m",
        ] {
            assert!(
                names.contains(&name.to_string()),
                "{name} is not among {names:?}"
            );
        }
        for name in [
            "queue_depth_projection_30m",
            "resource_pressure",
            "error_rate",
        ] {
            assert!(!names.contains(&name.to_string()), "{name}");
        }
    }

    #[test]
    fn a_full_window_has_every_feature_and_an_empty_one_only_the_calendar() {
        let catalogue = Catalogue::new(&seven(), STEP, HORIZON);
        let (window, t) = filled(&catalogue, 120, |signal, minute| {
            (signal as i64 + minute % 7) as f32 + 1.0
        });
        assert!(row(&catalogue, &window, t).iter().all(|v| v.is_finite()));
        let mut empty = catalogue.window();
        empty.advance(t);
        let present: Vec<String> = row(&catalogue, &empty, t)
            .iter()
            .zip(catalogue.names())
            .filter(|(v, _)| !v.is_nan())
            .map(|(_, name)| name)
            .collect();
        assert_eq!(present, ["hour_sin", "hour_cos", "is_weekend"]);
    }

    #[test]
    fn samples_without_history_are_a_window_that_holds_them_alone() {
        let mut signals = seven();
        signals.push(Signal {
            name: "queue_depth".into(),
            unit: Unit::None,
        });
        let catalogue = Catalogue::new(&signals, STEP, HORIZON);
        let t = Timestamp::from_secs(1_770_000_000);
        for gaps in 0..1 << 8 {
            let sample = |signal: usize| (gaps >> signal & 1 == 0).then_some(signal as f32 * 7.5);
            let samples: Vec<Option<f32>> = (0..8).map(sample).collect();
            let mut window = catalogue.window();
            window.advance(t);
            for (signal, value) in samples.iter().enumerate() {
                value.iter().for_each(|v| window.set(signal, t, *v));
            }
            let mut current = vec![0.0; catalogue.len()];
            catalogue.compute_current(&samples, t, &mut current);
            let bits = |row: &[f32]| row.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&current), bits(&row(&catalogue, &window, t)));
        }
    }

    #[test]
    fn shifting_time_changes_only_the_calendar() {
        let catalogue = Catalogue::new(&seven(), STEP, HORIZON);
        let value = |signal: usize, minute: i64| ((signal as i64 * 31 + minute * 17) % 23) as f32;
        let (window, t) = filled(&catalogue, 150, value);
        let mut shifted = catalogue.window();
        let shift = Duration::from_secs(60 * 60 * 29);
        for minute in 0..150 {
            let at = Timestamp(t.0 - (149 - minute) * 60_000).plus(shift);
            shifted.advance(at);
            for signal in 0..7 {
                shifted.set(signal, at, value(signal, minute));
            }
        }
        let (a, b) = (
            row(&catalogue, &window, t),
            row(&catalogue, &shifted, t.plus(shift)),
        );
        for ((name, x), y) in catalogue.names().iter().zip(a).zip(b) {
            if !["hour_sin", "hour_cos", "is_weekend"].contains(&name.as_str()) {
                assert_eq!(x.to_bits(), y.to_bits(), "{name}");
            }
        }
    }

    #[test]
    fn interactions_by_hand() {
        let catalogue = Catalogue::new(&seven(), STEP, HORIZON);
        let sample = [50.0, 60.0, 70.0, 20.0, 4.0, 300.0, 8.0];
        let (window, t) = filled(&catalogue, 1, |signal, _| sample[signal]);
        let row = row(&catalogue, &window, t);
        let value = |name: &str| row[catalogue.names().iter().position(|n| n == name).unwrap()];
        assert_eq!(value("total_stress"), 15.0 + 18.0 + 7.0 + 2.25 + 3.0);
        assert_eq!(value("resource_pressure"), 60.0);
        assert_eq!(value("error_rate"), 0.5);
        assert_eq!(value("performance_ratio"), 37.5);
        assert_eq!(value("cpu_memory_product"), 30.0);
        assert_eq!(value("max_utilization"), 70.0);
    }

    #[test]
    fn weekends_are_saturday_and_sunday() {
        let day = |text: &str| crate::time::parse_time(text, Timestamp(0)).unwrap();
        for (text, expected) in [
            ("2026-11-20T12:00:00Z", 0.0),
            ("2026-11-21T00:00:00Z", 1.0),
            ("2026-11-22T23:59:00Z", 1.0),
            ("2026-11-23T00:00:00Z", 0.0),
        ] {
            assert_eq!(Calendar::IsWeekend.value(day(text)), expected, "{text}");
        }
    }
}
