//! `report.html`: how good a model is, for people. One document without script or external asset; the same figures give the same bytes.

mod html;
mod plot;
mod review;
mod words;

pub use html::render;
pub use plot::{Axis, Plot};
pub use review::{Case, Review, review};
pub use words::{
    Headline, REPRODUCE, command, features, fitted, headline, notes, number, percent,
    worse_calibrated,
};

use crate::bundle::Manifest;
use crate::evaluation::{EnsembleReport, Evaluation};
use crate::model::Trial;
use crate::training::{HeldOut, LabelReport};

/// What a report is of.
pub struct Subject<'a> {
    pub kind: Kind,
    pub manifest: &'a Manifest,
    pub evaluation: &'a Evaluation,
    pub labels: &'a LabelReport,
    /// What only training knows.
    pub fitting: Option<Fitting<'a>>,
    /// Share of the gain of all splits by feature, largest first.
    pub importance: &'a [(String, f64)],
    pub review: &'a Review,
    /// A few rules that come near the alarms.
    pub surrogate: Option<&'a str>,
}

#[derive(Clone, Copy)]
pub struct Fitting<'a> {
    /// The ensemble for bodies without history, on the same rows.
    pub snapshot: &'a EnsembleReport,
    pub held_out: Option<&'a HeldOut>,
    /// What the time folds said of imbalance methods and parameters.
    pub trials: &'a [Trial],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The last slice of the range that the model was trained on, which nothing was fitted on.
    Training,
    Backtest {
        overlaps_training: bool,
    },
}

impl Subject<'_> {
    fn overlaps_training(&self) -> bool {
        self.kind
            == Kind::Backtest {
                overlaps_training: true,
            }
    }
}

/// Text that stands for itself in HTML.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}
