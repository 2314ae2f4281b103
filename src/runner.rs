//! The background loop: every step one cycle of fetch, score, judge, store, publish.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::action;
use crate::assessment::{self, Assessment, Snapshot};
use crate::bundle::Bundle;
use crate::config::Config;
use crate::course;
use crate::cycle::{Fleet, LeftOut, Settings};
use crate::fetch::{self, FetchReport, Fetched, Purpose};
use crate::learning;
use crate::prometheus::{Alertmanager, Client, ClientError, QueryError, QueryOutcome, Silenced};
use crate::scoreboard::{Event, Scoreboard};
use crate::server::{App, Serving};
use crate::shadow::{self, Shadow};
use crate::state::{
    ActionRecord, AlarmRecord, IncidentRecord, Pruned, StateError, Store, StoredAlert,
};
use crate::time::{Timestamp, millis};
use crate::training::Plan;
use crate::types::TargetId;
use crate::webhook::{self, OwnAlerts};

const PRUNE_EVERY: Duration = Duration::from_secs(3600);
/// Rules change rarely; own alerts are asked for again this often.
const RULES_EVERY: Duration = Duration::from_secs(300);

/// Samples of a signal that are fetched at once, as far as the number of targets is known, and steps at least.
const STRETCH_SAMPLES: usize = 100_000;
const STRETCH_STEPS: u32 = 5;

/// What the cycle scores with.
#[derive(Clone)]
pub struct Models {
    pub served: Arc<Bundle>,
    /// A candidate that fits the same config.
    pub shadow: Option<Arc<Bundle>>,
}

pub struct Runner {
    app: Arc<App>,
    config: Arc<Config>,
    client: Client,
    silences: Option<Silences>,
    fleet: Fleet,
    scoreboard: Scoreboard,
    shadow: Option<Shadow>,
    /// Who was acted on since the last cycle, as queries say, and at which grid point.
    acted: Vec<(TargetId, Timestamp)>,
    /// Newest incident of each target, as the store has it or will have it.
    recorded: HashMap<TargetId, IncidentRecord, RandomState>,
    /// What could not be stored yet.
    unwritten: (Vec<IncidentRecord>, Vec<AlarmRecord>),
    /// First grid point after a time that no cycle saw: what fails there may have begun before.
    seen_from: Timestamp,
    /// Grid point of the last cycle, whether or not Prometheus answered.
    attempted: Option<Timestamp>,
    /// Whether the backfill is done.
    is_live: bool,
    /// Whether the marks before a backfill are known.
    recalled: bool,
    rules_asked: Option<Instant>,
    pruned: Option<Instant>,
    /// Whether pruning did not make the state small enough.
    is_crowded: bool,
    /// Targets that the last cycle left out, so that it is logged when it begins and ends.
    left_out: usize,
    /// Whether the last cycle failed, so that an outage is logged once.
    down: bool,
    /// Problems of the last cycle, so that each is logged once.
    problems: BTreeMap<(&'static str, String), String>,
}

/// Asks for silences beside the cycles, which do not wait for the answer.
struct Silences {
    alertmanager: Arc<Alertmanager>,
    asked: Option<JoinHandle<Result<Vec<Silenced>, String>>>,
    /// Those of the last answer.
    known: BTreeSet<Silenced>,
    /// Whether the last time failed, so that it is logged once.
    failed: bool,
}

impl Silences {
    fn open(config: &Config) -> Result<Option<Self>, ClientError> {
        let alertmanager = config.alertmanager.as_ref().map(Alertmanager::new);
        Ok(alertmanager.transpose()?.map(|alertmanager| Self {
            alertmanager: Arc::new(alertmanager),
            asked: None,
            known: BTreeSet::new(),
            failed: false,
        }))
    }

    /// What was answered since the last time; asks again.
    async fn next(&mut self) -> Vec<Silenced> {
        let answer = match self.asked.take() {
            Some(asked) if !asked.is_finished() => {
                self.asked = Some(asked);
                return Vec::new();
            }
            Some(asked) => asked.await.unwrap_or_else(|error| Err(error.to_string())),
            None => Ok(self.known.iter().cloned().collect()),
        };
        let alertmanager = self.alertmanager.clone();
        self.asked = Some(tokio::spawn(async move { alertmanager.silenced().await }));
        match answer {
            Ok(silenced) => {
                if std::mem::take(&mut self.failed) {
                    info!("Alertmanager answers again");
                }
                let silenced: BTreeSet<Silenced> = silenced.into_iter().collect();
                let new = silenced.difference(&self.known).cloned().collect();
                self.known = silenced;
                new
            }
            Err(problem) => {
                if !std::mem::replace(&mut self.failed, true) {
                    warn!("{problem}");
                }
                Vec::new()
            }
        }
    }
}

impl Runner {
    pub fn new(app: Arc<App>, config: Arc<Config>, models: Models) -> anyhow::Result<Self> {
        let client = client(&app, &config)?;
        let silences = Silences::open(&config)?;
        let plan = learning::plan(&config);
        let rule = learning::alarm_rule(&models.served, &plan);
        let retention = config.state.retention;
        let mut scoreboard = Scoreboard::new(rule, retention);
        let shadow = models.shadow.clone();
        let shadow = shadow
            .map(|bundle| Shadow::open(bundle, &config, &plan))
            .transpose()?;
        let fleet = fleet(models, &config, &plan);
        let mut recorded = HashMap::default();
        if let Some(store) = &app.store {
            if let Some(restored) = shadow::restored(store, rule, retention)? {
                scoreboard = restored;
            }
            recorded = newest_incidents(&app, store, &fleet)?;
        }
        Ok(Self {
            config,
            client,
            silences,
            fleet,
            scoreboard,
            shadow,
            acted: Vec::new(),
            recorded,
            unwritten: Default::default(),
            seen_from: Timestamp(0),
            attempted: None,
            is_live: false,
            recalled: false,
            rules_asked: None,
            pruned: None,
            is_crowded: false,
            left_out: 0,
            down: false,
            problems: BTreeMap::new(),
            app,
        })
    }

    /// Goes on with another config or model: the next cycle backfills what they need and puts them into service. The
    /// scoreboard's counts stay. On an error everything is as it was.
    pub fn renew(&mut self, config: Arc<Config>, models: Models) -> anyhow::Result<()> {
        let client = client(&self.app, &config)?;
        let silences = Silences::open(&config)?;
        let plan = learning::plan(&config);
        let rule = learning::alarm_rule(&models.served, &plan);
        let known = self.shadow.as_ref().map(Shadow::id);
        let candidate = models.shadow.clone();
        let is_shadowed = candidate.is_some();
        let mut fleet = fleet(models, &config, &plan);
        let mut recorded = match &self.app.store {
            Some(store) => newest_incidents(&self.app, store, &fleet)?,
            None => HashMap::default(),
        };
        let opened = candidate
            .filter(|bundle| known != Some(&bundle.manifest.id))
            .map(|bundle| Shadow::open(bundle, &config, &plan))
            .transpose()?;
        recorded.extend(self.recorded.drain());
        self.recorded = recorded;
        self.shadow = opened.or(self.shadow.take()).filter(|_| is_shadowed);
        if let Some(shadow) = &mut self.shadow {
            shadow.renew(&config, &plan);
        }
        self.scoreboard.set_rule(rule, config.state.retention);
        fleet.inherit(&mut self.fleet);
        (self.config, self.client, self.fleet) = (config, client, fleet);
        self.silences = silences;
        self.attempted = None;
        self.rules_asked = None;
        self.problems.clear();
        Ok(())
    }

    /// Resolves when a cycle is due: at a grid point after the last one, or far before it.
    pub async fn due(&self) {
        let step = self.config.step;
        loop {
            let now = (self.app.clock)();
            let t = now.minus(self.config.query_offset).floor(step);
            let passed = self.attempted.map(|attempted| t.0 - attempted.0);
            if passed.is_none_or(|passed| passed > 0 || passed < -millis(step)) {
                return;
            }
            let next = t.plus(step).plus(self.config.query_offset);
            sleep(next.since(now)).await;
        }
    }

    /// The cycle that is due, and what was missed before it.
    pub async fn tick(&mut self) {
        let step = self.config.step;
        let t = (self.app.clock)()
            .minus(self.config.query_offset)
            .floor(step);
        if let Some(attempted) = self.attempted {
            let passed = (t.0 - attempted.0) / millis(step);
            if passed > 1 {
                self.app.metrics.cycles_missed.inc_by(passed as u64 - 1);
            }
            if passed < 0 {
                warn!(before = %attempted, now = %t, "the clock went back: starting over");
                self.fleet.clear();
            }
        }
        self.attempted = Some(t);
        self.cycle(t).await;
    }

    /// One cycle at the grid point `t`.
    pub async fn cycle(&mut self, t: Timestamp) {
        let app = self.app.clone();
        let step = self.config.step;
        if self.rules_asked.is_none() {
            self.ask_rules().await;
        }

        let oldest = t.minus(self.fleet.backfill()).floor(step);
        let due = self.fleet.newest().map(|newest| newest.plus(step));
        let start = due.map_or(oldest, |due| due.max(oldest)).min(t);
        if due != Some(start) {
            self.seen_from = start;
            self.recalled = false;
            self.is_live = false;
        }
        let Some(report) = self.take_in(start, t).await else {
            let stale = self.fleet.stale();
            self.publish(t, false, stale);
            return;
        };
        let are_old = |asked: Instant| asked.elapsed() >= RULES_EVERY;
        if self.rules_asked.is_some_and(are_old) {
            self.ask_rules().await;
        }
        if !self.recalled {
            self.recall(t, &report).await;
        }
        self.notice_silences(t).await;
        let began = Instant::now();
        let assessments = tokio::task::block_in_place(|| self.fleet.assess());
        self.tell_left_out();
        let scored = assessments.iter().filter(|a| a.risk.is_some()).count();
        app.metrics
            .predictions
            .with_label_values(&["cycle"])
            .inc_by(scored as u64);
        app.metrics
            .prediction_duration
            .observe(began.elapsed().as_secs_f64());
        phase(&app, "score", began);

        let began = Instant::now();
        tokio::task::block_in_place(|| {
            self.judge(t, &assessments);
            self.publish(t, true, assessments);
        });
        self.is_live = true;
        phase(&app, "publish", began);
        app.metrics.cycle_succeeded(t);
    }

    /// Which alerts are our own, which the queries leave out.
    async fn ask_rules(&mut self) {
        match own_alerts(&self.client).await {
            Ok(own) => {
                self.app.own_alerts.store(Arc::new(own));
                self.rules_asked = Some(Instant::now());
            }
            Err(error) => debug!("cannot read the alerting rules of Prometheus: {error}"),
        }
    }

    /// Fetches the grid points `start..=t` and feeds them to the fleet, a stretch at a time: a backfill of many targets
    /// is large. Gives the newest stretch's report; `None` if Prometheus stopped answering, and then the next cycle goes on
    /// where this one stopped.
    async fn take_in(&mut self, start: Timestamp, t: Timestamp) -> Option<FetchReport> {
        let (app, config) = (self.app.clone(), self.config.clone());
        let own = app.own_alerts.load_full();
        let mut from = start;
        loop {
            let until = self.stretch(from, config.step).min(t);
            let began = Instant::now();
            let Fetched {
                mut history,
                report,
            } = self
                .fetch(Purpose::Serving(app.shard), (from, until, config.step))
                .await;
            phase(&app, "query", began);
            app.metrics.set_prometheus_up(report.answered());
            if until == t || !report.answered() {
                self.log(&report);
                for (signal, series) in &report.series {
                    app.metrics
                        .signal_series
                        .with_label_values(&[signal])
                        .set(*series as i64);
                }
            }
            if !report.answered() {
                return None;
            }
            if let Some(store) = app.store.clone() {
                match received(store, &config, from, until).await {
                    Ok(alerts) => {
                        let is_known = |target: &TargetId| self.fleet.contains(target);
                        webhook::mark_failing(&mut history, &alerts, &config, &own, is_known);
                    }
                    Err(error) => warn!("cannot read the alerts received by webhook: {error}"),
                }
            }
            let acted = history.acted().map(|(target, at)| (target.clone(), at));
            self.acted.extend(acted);
            let began = Instant::now();
            tokio::task::block_in_place(|| self.fleet.ingest(&history));
            phase(&app, "ingest", began);
            if until == t {
                return Some(report);
            }
            from = until.plus(config.step);
        }
    }

    /// Stores which warnings about our targets somebody has silenced.
    async fn notice_silences(&mut self, t: Timestamp) {
        let (Some(silences), Some(store)) = (&mut self.silences, &self.app.store) else {
            return;
        };
        let new = silences.next().await;
        let ours = new
            .iter()
            .filter(|silenced| self.app.shard.owns(&silenced.target));
        let actions: Vec<_> = ours
            .map(|silenced| action::of_silence(silenced, t))
            .collect();
        if actions.is_empty() {
            return;
        }
        let now = (self.app.clock)();
        match tokio::task::block_in_place(|| store.record_actions(now, &actions)) {
            Ok(recorded) => {
                let count = self.app.metrics.actions.with_label_values(&["silence"]);
                count.inc_by(recorded.stored);
            }
            Err(error) => {
                silences.known.clear();
                self.app.metrics.state_write_failures.inc();
                warn!("silences are not stored, the next cycle tries again: {error}");
            }
        }
    }

    /// Who was acted on while an alarm or a score was undecided: by queries since the last cycle, and all that is stored.
    fn actions(&mut self, t: Timestamp) -> Vec<(TargetId, Timestamp)> {
        let mut actions = std::mem::take(&mut self.acted);
        let since = self.scoreboard.undecided_since(t);
        let stored = match &self.app.store {
            Some(store) => store.actions(since, t, usize::MAX),
            None => Ok(Vec::new()),
        };
        match stored {
            Ok(stored) => {
                let step = self.config.step;
                actions.extend(
                    stored
                        .into_iter()
                        .map(|ActionRecord { target, at, .. }| (target, at.ceil(step))),
                );
            }
            Err(error) => warn!("cannot read what somebody did about targets: {error}"),
        }
        actions
    }

    /// The marks that the baselines need and the backfill does not bring. They are asked for again in the next cycle
    /// where a query failed that has just brought the `steps`: another try may help.
    async fn recall(&mut self, t: Timestamp, steps: &FetchReport) {
        let (mut from, end, step) = self.fleet.marks_before(t);
        self.recalled = true;
        while from <= end {
            let until = self.stretch(from, step).min(end);
            let Fetched { history, report } = self
                .fetch(Purpose::Baseline(self.app.shard), (from, until, step))
                .await;
            let fails_anyway = |key: &String| steps.failed.iter().any(|(failed, _)| failed == key);
            self.recalled &= report.failed.iter().all(|(key, _)| fails_anyway(key));
            if !report.answered() {
                return;
            }
            tokio::task::block_in_place(|| self.fleet.recall(&history));
            from = until.plus(step);
        }
    }

    async fn fetch(&self, purpose: Purpose, span: (Timestamp, Timestamp, Duration)) -> Fetched {
        let own = self.app.own_alerts.load_full();
        fetch::fetch(&self.client, &self.config, &own, purpose, span, |_, _| ()).await
    }

    /// The end of a stretch of grid points to fetch at once.
    fn stretch(&self, from: Timestamp, step: Duration) -> Timestamp {
        let fit = match self.fleet.len() {
            0 => 0,
            targets => (STRETCH_SAMPLES / targets) as u32,
        };
        from.plus(step * (fit.max(STRETCH_STEPS) - 1))
    }

    /// Tells the scoreboard what happened and writes what it decided. Incidents that the backfill
    /// finds are no news: they were counted when they began, or nobody looked.
    fn judge(&mut self, t: Timestamp, assessments: &[Assessment]) {
        let (mut incidents, mut alarms) = std::mem::take(&mut self.unwritten);
        let mut events = Vec::new();
        let mut starts = Vec::with_capacity(assessments.len());
        for (assessment, observation) in assessments.iter().zip(self.fleet.observations()) {
            let target = &assessment.target;
            let known = self.recorded.get(target);
            let incident = observation.incident.map(|incident| IncidentRecord {
                target: target.clone(),
                source: observation.source,
                start: incident.start,
                end: incident.end,
                foreseen: None,
                missed: false,
                reasons: None,
            });
            let incident = incident.map(|incident| match known {
                Some(known) if self.continues(known, &incident) => IncidentRecord {
                    start: known.start,
                    source: known.source,
                    ..incident
                },
                _ => incident,
            });
            let probability = assessment.risk.as_ref().map(|risk| risk.probability);
            let start = incident.as_ref().map(|incident| incident.start);
            events.extend(self.scoreboard.observe(t, target, probability, start));
            starts.push(start);
            if let Some(incident) = incident
                && known.is_none_or(|k| (k.start, k.end) != (incident.start, incident.end))
            {
                if let Some(known) = known.filter(|known| known.start < incident.start)
                    && known.end.is_none_or(|end| end > incident.start)
                {
                    // Its end was seen by no cycle.
                    incidents.push(IncidentRecord {
                        end: Some(incident.start),
                        ..known.clone()
                    });
                }
                if self.is_live && known.is_none_or(|known| known.start != incident.start) {
                    let source = incident.source.name();
                    self.app
                        .metrics
                        .incidents
                        .with_label_values(&[source])
                        .inc();
                    info!(%target, start = %incident.start, source, "incident");
                }
                self.recorded.insert(target.clone(), incident.clone());
                incidents.push(incident);
            }
        }
        let fleet = &self.fleet;
        self.recorded.retain(|target, incident| {
            let is_known = fleet.contains(target);
            if !is_known && incident.end.is_none() {
                // Nobody will see it end.
                incident.end = Some(t);
                incidents.push(incident.clone());
            }
            is_known
        });
        let actions = self.actions(t);
        for (target, at) in &actions {
            self.scoreboard.act(target, *at);
        }
        events.extend(self.scoreboard.tick(t));
        if let Some(shadow) = &mut self.shadow {
            shadow.judge(t, assessments, &starts, &actions);
        }
        for event in &events {
            record(event, assessments, &mut incidents, &mut alarms);
        }
        let Some(store) = &self.app.store else {
            return;
        };
        let changes = match self.scoreboard.changes() {
            Ok(changes) => changes,
            Err(error) => {
                warn!("cannot write the scoreboard: {error}");
                return;
            }
        };
        match store.write_cycle(&incidents, &alarms, &changes) {
            Ok(()) => self.scoreboard.stored(),
            Err(error) => {
                self.app.metrics.state_write_failures.inc();
                warn!("incidents and alarms are not stored, the next cycle tries again: {error}");
                self.unwritten = (incidents, alarms);
                return;
            }
        }
        if let Err(error) = self.prune(t) {
            warn!("what is old in the state is not deleted, the next cycle tries again: {error}");
        }
    }

    /// Deletes what is old, now and then, and at once when the state is too large.
    fn prune(&mut self, t: Timestamp) -> Result<(), StateError> {
        let (app, Some(store)) = (&self.app, &self.app.store) else {
            return Ok(());
        };
        let max = self.config.state.max_bytes;
        let is_due = self
            .pruned
            .is_none_or(|pruned| pruned.elapsed() >= PRUNE_EVERY);
        if is_due || store.size() > max && !self.is_crowded {
            let needed = t.minus(self.fleet.backfill().max(3 * self.config.horizon));
            let Pruned { expired, surplus } = store.prune(t, needed, max)?;
            let count = |reason, rows| {
                let counter = app.metrics.state_pruned.with_label_values(&[reason]);
                counter.inc_by(rows as u64);
            };
            count("retention", expired);
            count("size", surplus);
            if surplus > 0 {
                warn!(
                    rows = surplus,
                    "the state was larger than state.max_bytes ({max}): the oldest alerts, incidents and alarms are deleted; raise it to keep more"
                );
            }
            self.is_crowded = store.size() > max;
            if self.is_crowded {
                warn!(
                    bytes = store.size(),
                    "the state is larger than state.max_bytes ({max}), and all of it is recent or still open: raise it"
                );
            }
            self.pruned = Some(Instant::now());
        }
        app.metrics.set_state_size(store.size());
        Ok(())
    }

    /// Whether it is the known incident still: one whose beginning no cycle saw goes on, and that of an alert that
    /// came late turns out to be earlier when the history is read again.
    fn continues(&self, known: &IncidentRecord, incident: &IncidentRecord) -> bool {
        if known.start < incident.start {
            incident.start == self.seen_from && known.end.is_none_or(|end| end > incident.start)
        } else {
            incident.end.is_none_or(|end| end > known.start)
        }
    }

    fn publish(&mut self, t: Timestamp, prometheus_up: bool, mut assessments: Vec<Assessment>) {
        let last = self.app.serving.load_full();
        // Both are ordered by target.
        let mut before = last.snapshot.iter().flat_map(|s| &s.assessments).peekable();
        let kept = course::kept(assessments.len());
        for assessment in &mut assessments {
            while before.next_if(|b| b.target < assessment.target).is_some() {}
            if let Some(same) = before.next_if(|b| b.target == assessment.target) {
                assessment.course = same.course.clone();
            }
            let probability = assessment.risk.as_ref().map(|risk| risk.probability);
            let step = self.config.step;
            assessment.course.push(t, step, probability, kept);
        }
        let snapshot = Snapshot {
            at: t,
            prometheus_up,
            shard: self.app.shard,
            assessments,
            scoreboard: self.scoreboard.summary(),
            shadow: self.shadow.as_ref().map(Shadow::board),
            drift: self.fleet.drift(t),
        };
        self.app.serving.store(Arc::new(Serving {
            config: self.config.clone(),
            model: Some(self.fleet.bundle().clone()),
            snapshot: Some(Arc::new(snapshot)),
        }));
        self.app.cycled.store(true, Ordering::Relaxed);
    }

    fn tell_left_out(&mut self) {
        let LeftOut {
            targets,
            explanations,
        } = self.fleet.left_out();
        for (what, count) in [("targets", targets), ("explanations", explanations)] {
            let gauge = self.app.metrics.left_out.with_label_values(&[what]);
            gauge.set(count as i64);
        }
        let max = self.config.targets.max;
        match (targets, std::mem::replace(&mut self.left_out, targets)) {
            (1.., 0) => warn!(
                targets,
                "there are more targets than targets.max ({max}), new ones are left out: let the queries select fewer, shard, or raise it"
            ),
            (0, 1..) => info!("no target is left out any more"),
            _ => {}
        }
    }

    /// Logs what changed: an outage once and its end once, each other problem likewise.
    fn log(&mut self, report: &FetchReport) {
        let down = !report.answered();
        if down != self.down {
            match report.failed.first() {
                Some((key, error)) if down => {
                    warn!("no query was answered, targets are stale until one is; {key}: {error}")
                }
                _ => info!("Prometheus answers again"),
            }
        }
        self.down = down;
        if down {
            return;
        }
        let problems = report.problems(&self.config);
        for (what, text) in &problems {
            if !self.problems.contains_key(what) {
                warn!("{text}");
            }
        }
        for (_, key) in self.problems.keys() {
            if !problems.keys().any(|(_, still)| still == key) {
                info!("{key}: in order again");
            }
        }
        self.problems = problems;
        for (key, text) in &report.warnings {
            debug!("{key}: {text}");
        }
    }
}

fn client(app: &Arc<App>, config: &Config) -> Result<Client, ClientError> {
    let counted = app.clone();
    let observer = move |outcome: &QueryOutcome| {
        let metrics = &counted.metrics;
        metrics.queries.with_label_values(&[outcome.result]).inc();
        metrics
            .query_duration
            .observe(outcome.duration.as_secs_f64());
        metrics.query_warnings.inc_by(outcome.warnings as u64);
    };
    Ok(Client::new(&config.prometheus)?.with_observer(Arc::new(observer)))
}

fn fleet(models: Models, config: &Config, plan: &Plan) -> Fleet {
    let settings = Settings {
        max_targets: config.targets.max,
        rules: plan.rules,
        limits: plan.limits,
        levels: config.risk_levels,
        serve: config.model.serve,
    };
    Fleet::new(models.served, settings).with_shadow(models.shadow)
}

/// Of each target the newest incident that reaches into the backfill, as the store has it.
fn newest_incidents(
    app: &App,
    store: &Store,
    fleet: &Fleet,
) -> Result<HashMap<TargetId, IncidentRecord, RandomState>, StateError> {
    let since = (app.clock)().minus(fleet.backfill());
    let mut newest = HashMap::default();
    for incident in store.incidents(since, Timestamp(i64::MAX), usize::MAX)? {
        // Newest first.
        newest.entry(incident.target.clone()).or_insert(incident);
    }
    Ok(newest)
}

fn phase(app: &App, name: &str, began: Instant) {
    app.metrics
        .cycle_duration
        .with_label_values(&[name])
        .observe(began.elapsed().as_secs_f64());
}

/// What an event adds to the store.
fn record(
    event: &Event,
    assessments: &[Assessment],
    incidents: &mut [IncidentRecord],
    alarms: &mut Vec<AlarmRecord>,
) {
    match event {
        Event::AlarmOpened { target, alarm } => {
            let found = assessment::find(assessments, target.as_str());
            let risk = found.and_then(|assessment| assessment.risk.as_ref());
            info!(%target, probability = alarm.score, "alarm");
            alarms.push(AlarmRecord {
                target: target.clone(),
                opened: alarm.opened,
                covers_until: alarm.covers_until,
                probability: alarm.score,
                outcome: None,
                lead_seconds: None,
                reasons: risk.and_then(|risk| serde_json::to_value(&risk.reasons).ok()),
            });
        }
        Event::AlarmClosed {
            target,
            alarm,
            outcome,
            lead,
        } => {
            info!(%target, outcome = outcome.name(), "alarm judged");
            alarms.push(AlarmRecord {
                target: target.clone(),
                opened: alarm.opened,
                covers_until: alarm.covers_until,
                probability: alarm.score,
                outcome: Some(outcome.name().to_string()),
                lead_seconds: lead.map(|lead| lead.as_secs_f64()),
                reasons: None,
            });
        }
        Event::IncidentForeseen {
            target,
            start,
            lead,
        } => {
            if let Some(incident) = found(incidents, target, *start) {
                incident.foreseen = Some(lead.as_secs_f64());
            }
        }
        Event::IncidentMissed { target, start } => {
            if let Some(incident) = found(incidents, target, *start) {
                incident.missed = true;
            }
            info!(%target, %start, "incident was not foreseen")
        }
    }
}

fn found<'a>(
    incidents: &'a mut [IncidentRecord],
    target: &TargetId,
    start: Timestamp,
) -> Option<&'a mut IncidentRecord> {
    incidents
        .iter_mut()
        .find(|incident| incident.target == *target && incident.start == start)
}

async fn received(
    store: Store,
    config: &Config,
    start: Timestamp,
    t: Timestamp,
) -> anyhow::Result<Vec<StoredAlert>> {
    if config.failure.alerts.is_empty() {
        return Ok(Vec::new());
    }
    Ok(tokio::task::spawn_blocking(move || store.alerts(start, t)).await??)
}

/// Alerts that Prometheus evaluates on forewarn's own metrics.
pub async fn own_alerts(client: &Client) -> Result<OwnAlerts, QueryError> {
    let rules = client.rules().await?;
    Ok(OwnAlerts::from_rules(
        rules
            .iter()
            .map(|rule| (rule.name.as_str(), rule.query.as_str())),
    ))
}
