//! One pass over all targets: new samples in, assessments out. Pure; the
//! clock and the queries are the caller's.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use rayon::prelude::*;

use crate::assessment::{Assessment, Risk};
use crate::bundle::Bundle;
use crate::history::History;
use crate::labels::{FailureRules, Phase};
use crate::model::Score;
use crate::time::Timestamp;
use crate::tracker::{self, Limits, Tracker};
use crate::types::{Incident, RiskLevels, ServeMember, Source, TargetId, TargetState};
use crate::window::Window;

/// Explanations per cycle at most, for the riskiest targets first: some milliseconds, whatever the fleet's size.
pub const MAX_EXPLAINED: usize = 100;
/// Reasons kept for a target.
const REASONS: usize = 3;
/// Targets below this probability are not explained, unless the alert threshold is lower.
const EXPLAIN_FROM: f64 = 0.4;

#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub rules: FailureRules,
    pub limits: Limits,
    pub levels: RiskLevels,
    pub serve: ServeMember,
}

/// Every target that has been seen lately.
pub struct Fleet {
    bundle: Arc<Bundle>,
    settings: Settings,
    targets: BTreeMap<TargetId, Member>,
    newest: Option<Timestamp>,
}

struct Member {
    labels: Vec<(String, String)>,
    tracker: Tracker,
    last_seen: Timestamp,
    /// As the newest grid point had it; holds while nobody answers.
    failing: Option<Source>,
    excluded: bool,
    /// Who reported the newest spell first.
    source: Source,
}

impl Member {
    fn new(bundle: &Bundle, settings: &Settings, last_seen: Timestamp) -> Self {
        Self {
            labels: Vec::new(),
            tracker: Tracker::new(&bundle.catalogue, settings.rules, settings.limits),
            last_seen,
            failing: None,
            excluded: false,
            source: Source::Query,
        }
    }
}

/// What one target did at one grid point, for the scoreboard and the store.
#[derive(Clone, Debug)]
pub struct Observation {
    pub target: TargetId,
    pub phase: Phase,
    /// The newest incident, open or closed.
    pub incident: Option<Incident>,
    pub source: Source,
}

impl Fleet {
    pub fn new(bundle: Arc<Bundle>, settings: Settings) -> Self {
        Self {
            bundle,
            settings,
            targets: BTreeMap::new(),
            newest: None,
        }
    }

    pub fn bundle(&self) -> &Arc<Bundle> {
        &self.bundle
    }

    /// How far back the first fetch must reach.
    pub fn backfill(&self) -> Duration {
        tracker::backfill(&self.bundle.catalogue, &self.settings.rules)
    }

    /// [`tracker::marks_before`]
    pub fn marks_before(&self, t: Timestamp) -> (Timestamp, Timestamp, Duration) {
        tracker::marks_before(t, &self.bundle.catalogue, &self.settings.rules)
    }

    /// Takes marks of the baseline; steps that were taken in come first.
    pub fn recall(&mut self, marks: &History) {
        let Some(newest) = self.newest else { return };
        for (id, recorded) in marks.targets() {
            let (bundle, settings) = (&self.bundle, &self.settings);
            let member = self.targets.entry(id.clone()).or_insert_with(|| {
                let mut member = Member::new(bundle, settings, marks.time(0));
                member.tracker.pass(newest);
                member
            });
            for (i, t) in marks.times().enumerate() {
                member.tracker.recall(t, recorded.samples(i));
                if recorded.seen[i] {
                    member.last_seen = member.last_seen.max(t);
                }
            }
        }
    }

    /// The newest grid point taken in.
    pub fn newest(&self) -> Option<Timestamp> {
        self.newest
    }

    pub fn contains(&self, target: &TargetId) -> bool {
        self.targets.contains_key(target)
    }

    /// Forgets everything, so that the next batch is a backfill again.
    pub fn clear(&mut self) {
        self.targets.clear();
        self.newest = None;
    }

    /// Takes the grid points of a batch that are newer than what is already known; forgets targets that have long been silent.
    /// Where a query for failures or exclusions got no answer, a target stays what it was.
    pub fn ingest(&mut self, batch: &History) {
        let memory = self.memory();
        let Self {
            bundle,
            settings,
            targets,
            newest,
        } = self;
        for (id, recorded) in batch.targets() {
            let member = targets
                .entry(id.clone())
                .or_insert_with(|| Member::new(bundle, settings, batch.time(0)));
            if !recorded.labels.is_empty() {
                member.labels.clone_from(&recorded.labels);
            }
        }
        let signals = bundle.catalogue.signals().len();
        for (i, t) in batch.times().enumerate() {
            if newest.is_some_and(|newest| t <= newest) {
                continue;
            }
            *newest = Some(t);
            for (id, member) in targets.iter_mut() {
                let recorded = batch.targets().get(id);
                let failing = recorded.and_then(|r| r.failing[i]);
                let held = member.failing.filter(|_| batch.failing_unanswered);
                let failing = failing.or(held);
                let excluded = recorded.is_some_and(|r| r.excluded[i])
                    || (batch.excluded_unanswered && member.excluded);
                if let (None, Some(source)) = (member.failing, failing)
                    && member.tracker.phase() != Phase::Failing
                {
                    member.source = source;
                }
                (member.failing, member.excluded) = (failing, excluded);
                if held.is_some() || recorded.is_some_and(|r| r.seen[i]) {
                    member.last_seen = t;
                }
                let failing = failing.is_some();
                match recorded {
                    Some(recorded) => {
                        let samples = recorded.samples(i);
                        member.tracker.push(t, samples, failing, excluded);
                    }
                    None => {
                        let missing = std::iter::repeat_n(f32::NAN, signals);
                        member.tracker.push(t, missing, failing, excluded);
                    }
                }
            }
        }
        if let Some(newest) = *newest {
            targets.retain(|_, member| newest.since(member.last_seen) <= memory);
        }
    }

    /// After so long without a sample a target is forgotten.
    fn memory(&self) -> Duration {
        tracker::reach(&self.bundle.catalogue, &self.settings.rules).max(self.silence())
    }

    /// After so long without a sample a target counts as gone.
    fn silence(&self) -> Duration {
        self.bundle.catalogue.step() * self.settings.limits.fresh_steps as u32
    }

    /// Targets that are not gone. A gone one is remembered as far as its baseline reaches, so that
    /// on its return it is where training would have it.
    fn present(&self) -> impl Iterator<Item = (&TargetId, &Member)> {
        let (newest, silence) = (self.newest, self.silence());
        let is_present = move |member: &Member| {
            newest.is_none_or(|newest| newest.since(member.last_seen) <= silence)
        };
        self.targets
            .iter()
            .filter(move |(_, member)| is_present(member))
    }

    /// Scores every target at the newest grid point.
    pub fn assess(&self) -> Vec<Assessment> {
        let Some(t) = self.newest else {
            return Vec::new();
        };
        let present: Vec<_> = self.present().collect();
        let mut assessed: Vec<(Assessment, Vec<f32>)> = present
            .into_par_iter()
            .map(|(target, member)| {
                let state = member.tracker.state();
                let features = match state {
                    TargetState::Ok => self.bundle.features(member.tracker.window(), t),
                    _ => Vec::new(),
                };
                let risk =
                    (state == TargetState::Ok).then(|| self.risk(self.bundle.score(&features)));
                let assessment = Assessment {
                    target: target.clone(),
                    labels: member.labels.clone(),
                    state,
                    risk,
                };
                (assessment, features)
            })
            .collect();

        let explain_from = EXPLAIN_FROM.min(self.bundle.manifest.threshold.probability);
        let probability = |a: &Assessment| a.risk.as_ref().map_or(0.0, |r| r.probability);
        let mut risky: Vec<usize> = (0..assessed.len())
            .filter(|&i| probability(&assessed[i].0) >= explain_from)
            .collect();
        risky.sort_by(|&a, &b| probability(&assessed[b].0).total_cmp(&probability(&assessed[a].0)));
        for &i in risky.iter().take(MAX_EXPLAINED) {
            let (assessment, features) = &mut assessed[i];
            if let Some(risk) = &mut assessment.risk {
                risk.reasons = self.bundle.explain(features, true, REASONS);
            }
        }
        assessed
            .into_iter()
            .map(|(assessment, _)| assessment)
            .collect()
    }

    /// The same targets without a probability: nothing new is known of them.
    pub fn stale(&self) -> Vec<Assessment> {
        let stale = |(target, member): (&TargetId, &Member)| Assessment {
            target: target.clone(),
            labels: member.labels.clone(),
            state: TargetState::Stale,
            risk: None,
        };
        self.present().map(stale).collect()
    }

    pub fn observations(&self) -> impl Iterator<Item = Observation> + '_ {
        self.present().map(|(target, member)| Observation {
            target: target.clone(),
            phase: member.tracker.phase(),
            incident: member.tracker.incidents().last().cloned(),
            source: member.source,
        })
    }

    pub fn windows(&self) -> HashMap<TargetId, Arc<Window>> {
        let window = |(target, member): (&TargetId, &Member)| {
            (target.clone(), Arc::new(member.tracker.window().clone()))
        };
        self.present().map(window).collect()
    }

    fn risk(&self, score: Score) -> Risk {
        let probability = score.served(self.settings.serve);
        Risk {
            probability,
            score,
            level: self.settings.levels.level(probability),
            reasons: Vec::new(),
        }
    }
}
