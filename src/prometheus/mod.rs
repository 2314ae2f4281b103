//! The Prometheus query API: one client for Prometheus, Thanos, Mimir and VictoriaMetrics.
//! `prometheus-http-query` sends; the answer is decoded here while it arrives. Alertmanager is asked in the same way.

mod access;
mod client;
mod decode;
mod error;
mod rules;
mod silences;
mod token;

pub use client::{Client, Observer, QueryOutcome};
pub use decode::{DecodeError, Decoded, Decoder, Limits, Refusal};
pub use error::{ClientError, QueryError};
pub use rules::{AlertingRule, BuildInfo, decode_build_info, decode_rules};
pub use silences::{Alertmanager, Silenced};

use std::collections::BTreeMap;

use crate::time::Timestamp;

/// One series of an answer: at least one sample, all finite, timestamps increasing.
#[derive(Clone, Copy)]
pub struct Series<'a> {
    answer: &'a Answer,
    /// Places of its labels in the answer.
    first: usize,
    end: usize,
    pub samples: &'a [(Timestamp, f64)],
}

impl<'a> Series<'a> {
    /// Names and values, sorted by name, with `__name__` if the series has one.
    pub fn labels(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        (self.first..self.end).map(move |place| self.answer.label(place))
    }

    pub fn label(self, name: &str) -> Option<&'a str> {
        let mut labels = self.labels();
        labels.find(|label| label.0 == name).map(|label| label.1)
    }
}

/// What a query returned: series in the order of the answer. A scalar is one series without labels.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    series: Vec<Ends>,
    /// Names of labels, of which the first few are there once: those of many series are the same.
    names: Vec<String>,
    labels: Vec<Label>,
    /// Values of all labels.
    text: String,
    samples: Vec<(Timestamp, f64)>,
    /// The server's own warnings; also partial answers and samples dropped because their
    /// timestamps do not increase.
    pub warnings: Vec<String>,
    pub infos: Vec<String>,
    /// Samples dropped because they are NaN or infinite.
    pub not_finite: u64,
    /// Native histogram samples, which are skipped.
    pub histograms: u64,
}

/// A name is looked for among so many: labels that are all called differently cost no more each.
const FEW_NAMES: usize = 32;

/// Where the labels and samples of a series end; they begin where those of the one before end.
/// [`decode::Limits`] keeps all such places within 32 bits.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    labels: u32,
    samples: u32,
}

/// The place of its name, and where its value ends in the text.
#[derive(Clone, Copy, Debug)]
struct Label {
    name: u32,
    end: u32,
}

impl PartialEq for Series<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.labels().eq(other.labels()) && self.samples == other.samples
    }
}

impl PartialEq for Answer {
    fn eq(&self, other: &Self) -> bool {
        self.series().eq(other.series())
            && (&self.warnings, &self.infos) == (&other.warnings, &other.infos)
            && (self.not_finite, self.histograms) == (other.not_finite, other.histograms)
    }
}

impl Answer {
    pub fn len(&self) -> usize {
        self.series.len()
    }

    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    pub fn series(&self) -> impl Iterator<Item = Series<'_>> {
        let mut start = Ends::default();
        self.series.iter().map(move |end| {
            let start = std::mem::replace(&mut start, *end);
            self.between(start, *end)
        })
    }

    fn between(&self, start: Ends, end: Ends) -> Series<'_> {
        Series {
            answer: self,
            first: start.labels as usize,
            end: end.labels as usize,
            samples: &self.samples[start.samples as usize..end.samples as usize],
        }
    }

    fn label(&self, place: usize) -> (&str, &str) {
        let Label { name, end } = self.labels[place];
        let start = place
            .checked_sub(1)
            .map_or(0, |before| self.labels[before].end);
        (
            &self.names[name as usize],
            &self.text[start as usize..end as usize],
        )
    }

    /// Adds a label to the series that [`Answer::close`] will end.
    fn push_label(&mut self, name: &str, value: &str) {
        let mut known = self.names.iter().take(FEW_NAMES);
        let known = known.position(|known| known == name);
        let name = known.unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        });
        self.text.push_str(value);
        self.labels.push(Label {
            name: name as u32,
            end: self.text.len() as u32,
        });
    }

    /// Where the series begins that is not closed.
    fn start(&self) -> Ends {
        self.series.last().copied().unwrap_or_default()
    }

    /// The series of the labels and samples that were pushed since the last one.
    fn open(&self) -> Series<'_> {
        let end = Ends {
            labels: self.labels.len() as u32,
            samples: self.samples.len() as u32,
        };
        self.between(self.start(), end)
    }

    /// Ends a series; one without samples is dropped.
    fn close(&mut self) {
        if self.open().samples.is_empty() {
            self.drop_labels();
            return;
        }
        let open = self.open();
        if !open.labels().is_sorted_by_key(|label| label.0) {
            let labels = open
                .labels()
                .map(|(name, value)| (name.to_owned(), value.to_owned()));
            let mut labels: Vec<_> = labels.collect();
            labels.sort();
            self.drop_labels();
            for (name, value) in labels {
                self.push_label(&name, &value);
            }
        }
        self.series.push(Ends {
            labels: self.labels.len() as u32,
            samples: self.samples.len() as u32,
        });
    }

    /// Takes back the labels of the series that is not closed.
    fn drop_labels(&mut self) {
        let first = self.start().labels as usize;
        let end = first
            .checked_sub(1)
            .map_or(0, |before| self.labels[before].end);
        self.labels.truncate(first);
        self.text.truncate(end as usize);
    }

    /// Puts answers for time ranges that follow one another together; sorted by labels.
    fn join(pieces: Vec<Answer>) -> Answer {
        let mut whole = Answer::default();
        let mut runs: BTreeMap<Vec<_>, Vec<_>> = BTreeMap::new();
        for piece in &pieces {
            for series in piece.series() {
                runs.entry(series.labels().collect())
                    .or_default()
                    .push(series.samples);
            }
            whole.infos.extend_from_slice(&piece.infos);
            whole.warnings.extend_from_slice(&piece.warnings);
            whole.not_finite += piece.not_finite;
            whole.histograms += piece.histograms;
        }
        let mut disordered = 0;
        for (labels, runs) in runs {
            for (name, value) in labels {
                whole.push_label(name, value);
            }
            for &sample in runs.into_iter().flatten() {
                let before = whole.open().samples.last();
                if before.is_some_and(|before| sample.0 <= before.0) {
                    disordered += 1;
                } else {
                    whole.samples.push(sample);
                }
            }
            whole.close();
        }
        whole.warnings.extend(disorder_warning(disordered));
        for notes in [&mut whole.warnings, &mut whole.infos] {
            notes.sort();
            notes.dedup();
        }
        whole
    }
}

fn disorder_warning(dropped: u64) -> Option<String> {
    (dropped > 0)
        .then(|| format!("{dropped} samples dropped because their timestamps do not increase"))
}

/// `{job="node",instance="a:9100"}`
fn format_labels<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let labels: Vec<String> = labels
        .map(|(name, value)| format!("{name}={value:?}"))
        .collect();
    format!("{{{}}}", labels.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples of each series, all with one label of this name.
    fn answer(series: &[(&str, &[(i64, f64)])]) -> Answer {
        let mut answer = Answer::default();
        for (name, samples) in series {
            answer.push_label("instance", name);
            let samples = samples.iter().map(|&(t, v)| (Timestamp(t), v));
            answer.samples.extend(samples);
            answer.close();
        }
        answer
    }

    #[test]
    fn answers_that_follow_one_another_continue_the_same_series() {
        let mut first = answer(&[("c", &[(1, 3.0)]), ("a", &[(1, 1.0), (2, 2.0)])]);
        first.warnings.push("w".into());
        first.not_finite = 1;
        let mut later = answer(&[("a", &[(2, 9.0), (3, 3.0)]), ("b", &[(3, 4.0)])]);
        later.warnings.push("w".into());
        later.histograms = 2;
        let whole = Answer::join(vec![first, later]);
        let expected = answer(&[
            ("a", &[(1, 1.0), (2, 2.0), (3, 3.0)]),
            ("b", &[(3, 4.0)]),
            ("c", &[(1, 3.0)]),
        ]);
        assert!(whole.series().eq(expected.series()), "{whole:?}");
        assert_eq!(whole.warnings.len(), 2, "{:?}", whole.warnings);
        assert!(whole.warnings[0].starts_with("1 samples dropped"));
        assert_eq!((whole.not_finite, whole.histograms), (1, 2));
    }

    #[test]
    fn labels_come_sorted_by_name() {
        let mut answer = Answer::default();
        for (name, value) in [("job", "app"), ("__name__", "up"), ("instance", "a")] {
            answer.push_label(name, value);
        }
        answer.samples.push((Timestamp(1), 1.0));
        answer.close();
        let series = answer.series().next().unwrap();
        let labels: Vec<_> = series.labels().collect();
        assert_eq!(
            labels,
            [("__name__", "up"), ("instance", "a"), ("job", "app")]
        );
        assert_eq!(series.label("job"), Some("app"));
    }
}
