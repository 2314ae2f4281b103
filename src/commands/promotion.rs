//! Whether a freshly trained model becomes the served one, and why.

use anyhow::Context;
use serde::Serialize;

use super::check_fit;
use super::terminal::{GOOD, WARNING};
use crate::artifact;
use crate::bundle::{Bundle, Origin};
use crate::config::Config;
use crate::evaluation::{AlarmRule, Versus};
use crate::models;
use crate::scoreboard::{Scoreboard, Summary};
use crate::state::{StateError, Store};
use crate::training::{MIN_INCIDENTS, Plan, Replay, Trained};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Promote {
    /// It is served.
    Always,
    /// It waits under model.path for `forewarn model promote`.
    Never,
    /// It is served when it is clearly better than the served one on rows that neither has learned from, and no worse
    /// than that one's alarms have been.
    IfBetter,
}

/// What became of a model.
#[derive(Debug, Serialize)]
pub struct Promotion {
    pub promoted: bool,
    pub reason: String,
    /// The model that was served before.
    pub served: Option<String>,
    /// Both on the rows of the test slice that neither has learned from.
    pub test_slice: Option<Versus>,
    /// What the scoreboard says of the served model.
    pub live: Option<Live>,
}

/// Ratios of the scoreboard's window, with their counts.
#[derive(Debug, Serialize)]
pub struct Live {
    window_seconds: f64,
    precision: Option<f64>,
    right: u64,
    r#false: u64,
    recall: Option<f64>,
    foreseen: u64,
    missed: u64,
}

impl From<Summary> for Live {
    fn from(summary: Summary) -> Self {
        let counts = summary.window.counts;
        Self {
            window_seconds: summary.window.seconds,
            precision: summary.precision,
            right: counts.right,
            r#false: counts.r#false,
            recall: summary.recall,
            foreseen: counts.foreseen,
            missed: counts.missed,
        }
    }
}

impl Promotion {
    fn new(promoted: bool, reason: impl Into<String>) -> Self {
        Self {
            promoted,
            reason: reason.into(),
            served: None,
            test_slice: None,
            live: None,
        }
    }

    /// For a terminal.
    pub fn text(&self, id: &str, width: Option<usize>) -> String {
        let mut text = String::new();
        if let Some(versus) = &self.test_slice {
            text.push_str(&versus.table(width));
        }
        if let Some(live) = &self.live {
            let share = |x: Option<f64>| x.map_or_else(|| "-".to_owned(), |x| format!("{x:.3}"));
            text.push_str(&format!(
                "live scoreboard of the served model: precision {} ({} right, {} false), recall {} ({} foreseen, {} missed)\n",
                share(live.precision), live.right, live.r#false, share(live.recall), live.foreseen, live.missed
            ));
        }
        let outcome = match self.promoted {
            true => format!("{GOOD}promoted{GOOD:#}"),
            false => format!("{WARNING}not promoted{WARNING:#}"),
        };
        format!("{text}{id} {outcome}: {}", self.reason)
    }
}

/// Before the model is written: what it is compared with may lie where it goes.
pub fn decide(
    promote: Promote,
    config: &Config,
    plan: &Plan,
    replay: &Replay,
    trained: &Trained,
    origin: Origin,
) -> anyhow::Result<Promotion> {
    let name = models::served(&config.model.path)?;
    let promotion = match (promote, &name) {
        (Promote::Always, _) => Promotion::new(true, "--promote=always"),
        (Promote::Never, _) => Promotion::new(false, "--promote=never"),
        (Promote::IfBetter, None) => Promotion::new(true, "no model was served before"),
        (Promote::IfBetter, Some(name)) => {
            match artifact::open(&models::directory(&config.model.path, name)?) {
                Err(error) => {
                    Promotion::new(true, format!("the served one cannot be used: {error}"))
                }
                Ok(served) => if_better(&served, config, plan, replay, trained, origin)?,
            }
        }
    };
    Ok(Promotion {
        served: name,
        ..promotion
    })
}

fn if_better(
    served: &Bundle,
    config: &Config,
    plan: &Plan,
    replay: &Replay,
    trained: &Trained,
    origin: Origin,
) -> anyhow::Result<Promotion> {
    let manifest = &served.manifest;
    if let Err(misfit) = check_fit(served, config) {
        return Ok(Promotion::new(true, format!("{misfit:#}")));
    }
    if manifest.origin == Origin::Simulated && origin != Origin::Simulated {
        return Ok(Promotion::new(
            true,
            "the served one knows the simulated fleet only",
        ));
    }
    let learned = format!(
        "the served one has learned from {} to {}",
        manifest.training.start, manifest.training.end
    );
    let Some(from) = first_unseen(served, replay, trained.test) else {
        return Ok(Promotion::new(
            false,
            format!(
                "nothing to compare on: {learned}, which is all of the test slice; train to a later --end, or use --promote=always"
            ),
        ));
    };
    let range = (from, trained.test.1);
    let member = config.model.serve;
    let candidate = replay.tracks(range.0, range.1, |row| trained.scores[row].served(member));
    let scores = served.probabilities(member, &replay.features, true);
    let tracks = replay.tracks(range.0, range.1, |row| scores[row]);
    let rule = AlarmRule::new(f64::INFINITY, plan.alert_for, &plan.rules);
    let rules = [trained.threshold, manifest.threshold.alarming()]
        .map(|threshold| rule.with_threshold(threshold.unwrap_or(f64::INFINITY)));
    let versus = Versus::new(
        &candidate,
        &tracks.into_iter().map(|track| track.scores).collect(),
        rules,
        plan.fit.seed,
    );
    let live = match live(config, rules[1]) {
        Ok(live) => live,
        Err(error) => return Ok(Promotion::new(false, format!("{error:#}"))),
    };
    let (promoted, reason) = if versus.incidents < MIN_INCIDENTS as u64 {
        let reason = format!(
            "{} incidents are too few to compare on: {learned}, and only the test slice after that counts",
            versus.incidents
        );
        (false, reason)
    } else if !versus.candidate_is_better() {
        let reason = "it is not clearly better on rows that neither has learned from";
        (false, reason.to_owned())
    } else if let Some(worse) = live
        .as_ref()
        .and_then(|live| worse_than_live(live, trained))
    {
        (false, worse)
    } else {
        let reason = "it is clearly better on rows that neither has learned from";
        (true, reason.to_owned())
    };
    Ok(Promotion {
        test_slice: Some(versus),
        live,
        ..Promotion::new(promoted, reason)
    })
}

/// First grid point of the test slice from which on the served model has not learned.
fn first_unseen(served: &Bundle, replay: &Replay, (from, until): (usize, usize)) -> Option<usize> {
    let manifest = &served.manifest;
    match manifest.learned_from(replay.time(from), replay.time(until - 1))? {
        false => Some(from),
        true => {
            let last = manifest.trained_until()?;
            (from..until).find(|&index| replay.time(index) > last)
        }
    }
}

/// What the ledger of a running forewarn says, where there is one.
fn live(config: &Config, rule: AlarmRule) -> anyhow::Result<Option<Live>> {
    if !config.state.enabled {
        return Ok(None);
    }
    let store = match Store::open_read_only(&config.state.path) {
        Ok(store) => store,
        Err(StateError::Missing { .. }) => return Ok(None),
        Err(error) => return Err(error).context("cannot read the scoreboard of the served model"),
    };
    let stored = store
        .scoreboard()
        .context("cannot read the scoreboard of the served model")?;
    let Some(stored) = stored else {
        return Ok(None);
    };
    let board = Scoreboard::restore(&stored, rule, config.state.retention)
        .context("cannot read the scoreboard of the served model")?;
    Ok(Some(board.summary().into()))
}

/// Whether even the upper end of what the test slice promises is below what the served model's alarms have been.
fn worse_than_live(live: &Live, trained: &Trained) -> Option<String> {
    let point = &trained.evaluation.at_threshold;
    let measures = [
        ("precision", live.precision, point.measures.precision),
        ("recall", live.recall, point.measures.recall),
    ];
    measures.into_iter().find_map(|(name, live, own)| {
        let (live, own) = (live?, own.unwrap_or(0.0));
        let high = point.intervals.get(name).copied().flatten().map_or(own, |i| i[1]);
        (high < live).then(|| {
            format!("its {name} on the test slice, {own:.3} and {high:.3} at most, is below the {live:.3} that the served one has live")
        })
    })
}
