//! One pass over all targets: new samples in, assessments out. Pure; the
//! clock and the queries are the caller's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rayon::prelude::*;

use crate::assessment::{Assessment, Live, Risk};
use crate::bundle::Bundle;
use crate::course::Course;
use crate::drift::{self, Drift, Recent};
use crate::history::{History, TargetHistory};
use crate::labels::{FailureRules, Phase};
use crate::model::{Matrix, Score};
use crate::time::{Timestamp, millis};
use crate::tracker::{self, Limits, Tracker};
use crate::types::{Incident, Labels, RiskLevels, ServeMember, Source, TargetId, TargetState};

/// Explanations per cycle at most, for the riskiest targets first: some milliseconds, whatever the fleet's size.
pub const MAX_EXPLAINED: usize = 100;
/// Targets that are scored at once.
const BLOCK: usize = 256;
/// Reasons kept for a target.
const REASONS: usize = 3;
/// Targets below this probability are not explained, unless the alert threshold is lower.
const EXPLAIN_FROM: f64 = 0.4;

#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Targets at most; see [`Fleet::left_out`].
    pub max_targets: usize,
    pub rules: FailureRules,
    pub limits: Limits,
    pub levels: RiskLevels,
    pub serve: ServeMember,
}

/// Every target that has been seen lately.
pub struct Fleet {
    bundle: Arc<Bundle>,
    /// Reads the same features.
    shadow: Option<Arc<Bundle>>,
    settings: Settings,
    /// Those of the settings.
    rules: Arc<FailureRules>,
    targets: BTreeMap<TargetId, Member>,
    newest: Option<Timestamp>,
    left_out: LeftOut,
    /// Of a model that says what it was trained on.
    recent: Option<Recent>,
}

/// What the newest step had too much of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Targets beyond `targets.max`.
    pub targets: usize,
    /// Risky targets beyond [`MAX_EXPLAINED`].
    pub explanations: usize,
}

struct Member {
    labels: Labels,
    live: Live,
    last_seen: Timestamp,
    /// As the newest grid point had it; holds while nobody answers.
    failing: Option<Source>,
    excluded: bool,
    /// Who reported the newest spell first.
    source: Source,
}

impl Member {
    fn new(
        bundle: &Bundle,
        settings: &Settings,
        rules: &Arc<FailureRules>,
        last_seen: Timestamp,
    ) -> Self {
        Self {
            labels: Labels::default(),
            live: Live::new(Tracker::new(
                &bundle.catalogue,
                rules.clone(),
                settings.limits,
            )),
            last_seen,
            failing: None,
            excluded: false,
            source: Source::Query,
        }
    }
}

impl Member {
    /// Takes what was recorded of it at these grid points: places in the batch and their times.
    fn ingest(
        &mut self,
        batch: &History,
        recorded: Option<&TargetHistory>,
        steps: &[(usize, Timestamp)],
    ) {
        if let Some(recorded) = recorded
            && !recorded.labels.is_empty()
        {
            self.labels.clone_from(&recorded.labels);
        }
        let mut tracker = self.live.write();
        for &(i, t) in steps {
            let failing = recorded.and_then(|r| r.steps[i].failing);
            let held = self.failing.filter(|_| batch.failing_unanswered);
            let failing = failing.or(held);
            let excluded = recorded.is_some_and(|r| r.steps[i].excluded)
                || (batch.excluded_unanswered && self.excluded);
            if let (None, Some(source)) = (self.failing, failing)
                && tracker.phase() != Phase::Failing
            {
                self.source = source;
            }
            (self.failing, self.excluded) = (failing, excluded);
            if held.is_some() || recorded.is_some_and(|r| r.steps[i].seen) {
                self.last_seen = t;
            }
            let failing = failing.is_some();
            match recorded {
                Some(recorded) => tracker.push(t, recorded.samples(i), failing, excluded),
                None => tracker.push(t, std::iter::empty(), failing, excluded),
            }
        }
    }

    fn assessment(&self, target: &TargetId, state: TargetState) -> Assessment {
        Assessment {
            target: target.clone(),
            labels: self.labels.clone(),
            live: self.live.clone(),
            course: Course::default(),
            state,
            risk: None,
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
            recent: bundle.reference().cloned().map(Recent::new),
            bundle,
            shadow: None,
            settings,
            rules: Arc::new(settings.rules),
            targets: BTreeMap::new(),
            newest: None,
            left_out: LeftOut::default(),
        }
    }

    pub fn left_out(&self) -> LeftOut {
        self.left_out
    }

    /// Scores with another model too, of which only the scoreboard is told. Both must fit the same config.
    pub fn with_shadow(self, shadow: Option<Arc<Bundle>>) -> Self {
        Self { shadow, ..self }
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
            if self.targets.len() >= self.settings.max_targets && !self.targets.contains_key(id) {
                continue;
            }
            let (bundle, settings, rules) = (&self.bundle, &self.settings, &self.rules);
            let member = self.targets.entry(id.clone()).or_insert_with(|| {
                let member = Member::new(bundle, settings, rules, marks.time(0));
                member.live.write().pass(newest);
                member
            });
            let mut tracker = member.live.write();
            for (i, t) in marks.times().enumerate() {
                tracker.recall(t, recorded.samples(i));
                if recorded.steps[i].seen {
                    member.last_seen = member.last_seen.max(t);
                }
            }
        }
    }

    /// The newest grid point taken in.
    pub fn newest(&self) -> Option<Timestamp> {
        self.newest
    }

    pub fn len(&self) -> usize {
        self.targets.len()
    }

    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    pub fn contains(&self, target: &TargetId) -> bool {
        self.targets.contains_key(target)
    }

    /// Forgets everything, so that the next batch is a backfill again.
    pub fn clear(&mut self) {
        self.targets.clear();
        self.newest = None;
        self.recent = self.bundle.reference().cloned().map(Recent::new);
    }

    /// Takes the grid points of a batch that are newer than what is already known; forgets targets that have long been silent.
    /// Where a query for failures or exclusions got no answer, a target stays what it was.
    /// Once there are `max_targets`, new ones are left out; gone ones make room.
    pub fn ingest(&mut self, batch: &History) {
        let (memory, silence) = (self.memory(), self.silence());
        let Self {
            bundle,
            settings,
            rules,
            targets,
            newest,
            left_out,
            ..
        } = self;
        let is_new = |(_, t): &(usize, Timestamp)| newest.is_none_or(|newest| *t > newest);
        let steps: Vec<_> = batch.times().enumerate().filter(is_new).collect();
        let mut is_known = vec![false; batch.len()];
        for id in targets.keys() {
            if let Some(place) = batch.place(id.as_str()) {
                is_known[place] = true;
            }
        }
        let unknown = (0..batch.len()).filter(|&place| !is_known[place]);
        let mut new: Vec<&TargetId> = unknown.map(|place| batch.at(place).0).collect();
        if let Some(newest) = *newest
            && targets.len() + new.len() > settings.max_targets
        {
            targets.retain(|_, member| newest.since(member.last_seen) <= silence);
        }
        let room = settings.max_targets.saturating_sub(targets.len());
        left_out.targets = new.len().saturating_sub(room);
        if left_out.targets > 0 {
            new.sort_unstable();
        }
        for id in new.into_iter().take(room) {
            let member = Member::new(bundle, settings, rules, batch.time(0));
            targets.insert(id.clone(), member);
        }
        targets
            .par_iter_mut()
            .for_each(|(id, member)| member.ingest(batch, batch.target(id), &steps));
        *newest = steps.last().map(|(_, t)| *t).or(*newest);
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
    pub fn assess(&mut self) -> Vec<Assessment> {
        let Some(t) = self.newest else {
            return Vec::new();
        };
        let present: Vec<_> = self.present().collect();
        let mut assessments: Vec<Assessment> = present
            .into_par_iter()
            .map(|(target, member)| member.assessment(target, member.live.read().state()))
            .collect();
        let stride = assessments.len().div_ceil(drift::ROWS_A_STEP).max(1);
        let step = t.0.div_euclid(millis(self.bundle.catalogue.step()).max(1));
        let turn = step.rem_euclid(stride as i64) as usize;
        let blocks = assessments.par_chunks_mut(BLOCK).enumerate();
        let counted: Vec<Matrix> = blocks
            .map(|(n, block)| {
                self.score(block, t, |i| (n * BLOCK + i + turn).is_multiple_of(stride))
            })
            .collect();
        if let Some(recent) = &mut self.recent {
            counted.iter().for_each(|rows| recent.count(t, rows));
        }

        let explain_from = EXPLAIN_FROM.min(self.bundle.manifest.threshold.probability);
        let probability = |a: &Assessment| a.risk.as_ref().map_or(0.0, |r| r.probability);
        let mut risky: Vec<usize> = (0..assessments.len())
            .filter(|&i| probability(&assessments[i]) >= explain_from)
            .collect();
        risky.sort_by(|&a, &b| {
            probability(&assessments[b]).total_cmp(&probability(&assessments[a]))
        });
        self.left_out.explanations = risky.len().saturating_sub(MAX_EXPLAINED);
        for &i in risky.iter().take(MAX_EXPLAINED) {
            let Assessment { live, risk, .. } = &mut assessments[i];
            if let Some(risk) = risk {
                let features = self.bundle.features(live.read().window(), t);
                risk.reasons = self.bundle.explain(&features, true, REASONS);
            }
        }
        assessments
    }

    /// The trees are faster over many rows at once. Gives the rows of the places in the block that are wanted.
    fn score(
        &self,
        block: &mut [Assessment],
        t: Timestamp,
        wanted: impl Fn(usize) -> bool,
    ) -> Matrix {
        let is_scored = |assessment: &&mut Assessment| assessment.state == TargetState::Ok;
        let catalogue = &self.bundle.catalogue;
        let mut rows = Matrix::new(catalogue.len());
        let mut counted = Matrix::new(catalogue.len());
        for (i, assessment) in block.iter().enumerate() {
            if assessment.state != TargetState::Ok {
                continue;
            }
            let tracker = assessment.live.read();
            let row = rows.push();
            catalogue.compute(tracker.window(), t, row);
            if wanted(i) {
                counted.push().copy_from_slice(row);
            }
        }
        let scores = self.bundle.score_rows(&rows);
        let shadows = self
            .shadow
            .iter()
            .flat_map(|shadow| shadow.score_rows(&rows));
        let mut shadows = shadows.map(|score| score.served(self.settings.serve));
        for (assessment, score) in block.iter_mut().filter(is_scored).zip(scores) {
            assessment.risk = Some(self.risk(score, shadows.next()));
        }
        counted
    }

    /// Goes on with the rows that another fleet has counted, when both models were trained on the same.
    pub fn inherit(&mut self, other: &mut Fleet) {
        if self.bundle.reference() == other.bundle.reference() {
            self.recent = other.recent.take();
        }
    }

    /// How far what was scored in the day before `t` has moved from what the model was trained on; `None` where that is not
    /// known, or too little of a day was scored.
    pub fn drift(&self, t: Timestamp) -> Option<Drift> {
        self.recent.as_ref()?.drift(t)
    }

    /// The same targets without a probability: nothing new is known of them.
    pub fn stale(&self) -> Vec<Assessment> {
        self.present()
            .map(|(target, member)| member.assessment(target, TargetState::Stale))
            .collect()
    }

    pub fn observations(&self) -> impl Iterator<Item = Observation> + '_ {
        self.present().map(|(target, member)| {
            let tracker = member.live.read();
            Observation {
                target: target.clone(),
                phase: tracker.phase(),
                incident: tracker.incidents().last().cloned(),
                source: member.source,
            }
        })
    }

    fn risk(&self, score: Score, shadow: Option<f64>) -> Risk {
        let probability = score.served(self.settings.serve);
        Risk {
            probability,
            score,
            level: self.settings.levels.level(probability),
            shadow,
            reasons: Vec::new(),
        }
    }
}
