//! The Prometheus query API: one client for Prometheus, Thanos, Mimir and VictoriaMetrics.
//! `prometheus-http-query` sends; the answer is decoded here while it arrives.

mod client;
mod decode;
mod error;
mod rules;

pub use client::{Client, Observer, QueryOutcome};
pub use error::{ClientError, QueryError};
pub use rules::{AlertingRule, BuildInfo};

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::time::Timestamp;

/// Sorted by name, with `__name__` if the series has one.
pub type Labels = Vec<(String, String)>;

/// One series of an answer: at least one sample, all finite, timestamps increasing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    pub labels: Labels,
    pub samples: Vec<(Timestamp, f64)>,
}

/// What a query returned. A scalar is one series without labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Sorted by labels, each label set once.
    pub series: Vec<Series>,
    /// The server's own warnings; also partial answers and samples dropped because their
    /// timestamps do not increase.
    pub warnings: Vec<String>,
    pub infos: Vec<String>,
    /// Samples dropped because they are NaN or infinite.
    pub not_finite: u64,
    /// Native histogram samples, which are skipped.
    pub histograms: u64,
}

impl Answer {
    /// Adds the answer for the time range that follows this one's.
    fn append(&mut self, later: Answer) {
        let mut disordered = 0;
        let mut merged: BTreeMap<Labels, Vec<(Timestamp, f64)>> = self
            .series
            .drain(..)
            .map(|s| (s.labels, s.samples))
            .collect();
        for series in later.series {
            let samples = merged.entry(series.labels).or_default();
            if samples.is_empty() {
                *samples = series.samples;
                continue;
            }
            for sample in series.samples {
                if samples.last().is_some_and(|last| sample.0 <= last.0) {
                    disordered += 1;
                } else {
                    samples.push(sample);
                }
            }
        }
        self.series = merged
            .into_iter()
            .map(|(labels, samples)| Series { labels, samples })
            .collect();
        self.infos.extend(later.infos);
        self.warnings.extend(later.warnings);
        self.warnings.extend(disorder_warning(disordered));
        for notes in [&mut self.warnings, &mut self.infos] {
            notes.sort();
            notes.dedup();
        }
        self.not_finite += later.not_finite;
        self.histograms += later.histograms;
    }
}

fn disorder_warning(dropped: u64) -> Option<String> {
    (dropped > 0)
        .then(|| format!("{dropped} samples dropped because their timestamps do not increase"))
}

/// `{job="node",instance="a:9100"}`
fn format_labels(labels: &Labels) -> String {
    let mut text = String::from("{");
    for (name, value) in labels {
        let comma = if text.len() > 1 { "," } else { "" };
        let _ = write!(text, "{comma}{name}={value:?}");
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, samples: &[(i64, f64)]) -> Series {
        Series {
            labels: vec![("instance".into(), name.into())],
            samples: samples.iter().map(|&(t, v)| (Timestamp(t), v)).collect(),
        }
    }

    #[test]
    fn later_answers_continue_the_same_series() {
        let mut answer = Answer {
            series: vec![series("a", &[(1, 1.0), (2, 2.0)]), series("c", &[(1, 3.0)])],
            warnings: vec!["w".into()],
            not_finite: 1,
            ..Answer::default()
        };
        answer.append(Answer {
            series: vec![series("a", &[(2, 9.0), (3, 3.0)]), series("b", &[(3, 4.0)])],
            warnings: vec!["w".into()],
            histograms: 2,
            ..Answer::default()
        });
        assert_eq!(
            answer.series,
            [
                series("a", &[(1, 1.0), (2, 2.0), (3, 3.0)]),
                series("b", &[(3, 4.0)]),
                series("c", &[(1, 3.0)]),
            ]
        );
        assert_eq!(answer.warnings.len(), 2, "{:?}", answer.warnings);
        assert!(answer.warnings[0].starts_with("1 samples dropped"));
        assert_eq!((answer.not_finite, answer.histograms), (1, 2));
    }
}
