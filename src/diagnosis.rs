//! Why a query returns nothing: what of the series that it reads is not there.

use std::time::Duration;

use crate::presets;
use crate::prometheus::{Client, QueryError};
use crate::promql::{self, Selector};
use crate::time::{Timestamp, format_duration};

/// Selectors and matchers that are looked at; a query with more says enough with these.
const MOST: usize = 6;
/// Values of a label that are named.
const NAMED: usize = 5;

/// Asks a server about the `range` before `at`.
pub struct Diagnosis<'a> {
    pub client: &'a Client,
    pub at: Timestamp,
    pub range: Duration,
}

impl Diagnosis<'_> {
    /// What is wrong with each selector of a query that matches no series; nothing when all match some.
    ///
    /// # Errors
    /// A question that got no answer.
    pub async fn absent(&self, query: &str) -> Result<Vec<String>, QueryError> {
        let mut findings = Vec::new();
        for selector in promql::selectors(query).iter().take(MOST) {
            if self.count(selector).await? > 0 {
                continue;
            }
            let why = self.why(selector).await?;
            if !findings.contains(&why) {
                findings.push(why);
            }
        }
        Ok(findings)
    }

    /// Why a query returns nothing, and what to do.
    pub async fn why_empty(&self, query: &str) -> String {
        match self.absent(query).await {
            Err(error) => format!("why could not be found out: {error}"),
            Ok(findings) if !findings.is_empty() => findings.join("; "),
            Ok(_) if promql::selectors(query).is_empty() => "it reads no series".into(),
            Ok(_) => {
                let window = match promql::has_window(query) {
                    true => {
                        "a window in brackets must hold two samples at least, so be twice the scrape interval or more, and an exporter that is new must have been scraped twice; "
                    }
                    false => "",
                };
                format!(
                    "all series that it reads are there, so what is done with them leaves none: {window}the labels on both sides of an operator must be the same, else name the common ones by on (…); a comparison may never be true. Try its parts one by one in Prometheus' own page"
                )
            }
        }
    }

    /// Whether all that a query reads is there, but nothing was at `earlier` yet.
    pub async fn is_newer(&self, query: &str, earlier: Timestamp) -> bool {
        let before = Diagnosis {
            at: earlier,
            ..*self
        };
        let now = self.absent(query).await;
        matches!(now, Ok(absent) if absent.is_empty())
            && matches!(before.absent(query).await, Ok(absent) if !absent.is_empty())
    }

    async fn why(&self, selector: &Selector) -> Result<String, QueryError> {
        let Selector { metric, matchers } = selector;
        if metric.is_empty() {
            return Ok(format!("no series matches {selector}"));
        }
        let bare = |matchers: &[String]| Selector {
            metric: metric.clone(),
            matchers: matchers.to_vec(),
        };
        let all = match matchers.is_empty() {
            true => 0,
            false => self.count(&bare(&[])).await?,
        };
        if all == 0 {
            let from = match presets::exposes(metric) {
                Some(preset) => format!(": are {} scraped?", preset.title),
                None => ": is its exporter scraped, and is the name right?".into(),
            };
            let range = format_duration(self.range);
            return Ok(format!("no series {metric} in the last {range}{from}"));
        }
        for matcher in matchers.iter().take(MOST) {
            if self.count(&bare(std::slice::from_ref(matcher))).await? > 0 {
                continue;
            }
            let label: String = matcher
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            let values = self.values(metric, &label).await?;
            let values = match values.is_empty() {
                true => format!("none has the label {label}"),
                false => format!("{label} is {}", values.join(", ")),
            };
            return Ok(format!(
                "{matcher} matches none of the {all} series {metric}: {values}"
            ));
        }
        Ok(format!(
            "none of the {all} series {metric} matches {} at once",
            matchers.join(" and ")
        ))
    }

    async fn count(&self, selector: &Selector) -> Result<u64, QueryError> {
        let answer = self
            .ask(&format!("count({})", self.recent(selector)))
            .await?;
        let count = answer.series().next().and_then(|one| one.samples.last());
        Ok(count.map_or(0, |(_, count)| *count as u64))
    }

    /// Values of a label, those of most series first.
    async fn values(&self, metric: &str, label: &str) -> Result<Vec<String>, QueryError> {
        let selector = Selector {
            metric: metric.into(),
            matchers: Vec::new(),
        };
        let recent = self.recent(&selector);
        let answer = self.ask(&format!("count by ({label}) ({recent})")).await?;
        let count = |samples: &[(Timestamp, f64)]| samples.last().map_or(0.0, |last| last.1);
        let mut values: Vec<(f64, String)> = answer
            .series()
            .filter_map(|one| Some((count(one.samples), one.label(label)?.to_owned())))
            .collect();
        values.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let more = values.len() > NAMED;
        let mut values: Vec<String> = values
            .into_iter()
            .take(NAMED)
            .map(|(_, value)| format!("{value:?}"))
            .collect();
        if more {
            values.push("…".into());
        }
        Ok(values)
    }

    fn recent(&self, selector: &Selector) -> String {
        format!(
            "last_over_time({selector}[{}])",
            format_duration(self.range)
        )
    }

    async fn ask(&self, query: &str) -> Result<crate::prometheus::Answer, QueryError> {
        self.client.instant(query, self.at, self.range).await
    }
}
