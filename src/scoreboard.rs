//! The live ledger: were the alarms right, were the incidents foreseen, was 80 % really 80 %?
//!
//! It cuts and judges alarms with the functions of [`crate::evaluation`], so that fed step by step it
//! counts what a backtest of the same rows counts.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};

use crate::evaluation::alarms::{Alarm, AlarmCutter, AlarmRule, Outcome, foreseen, judge};
use crate::evaluation::events::{Tally, target_weeks};
use crate::labels::acted_within;
use crate::time::{Timestamp, millis};
use crate::types::{Incident, TargetId};

const DAY_MS: i64 = 86_400_000;

/// Precision and recall are given from this many outcomes in the window.
pub const MIN_OUTCOMES: u64 = 10;

/// Brier score and calibration error are given from this many judged scores in the window.
pub const MIN_SCORES: u64 = 1000;

/// False alarms per target-week are given from this much scored time of all targets in the window.
pub const MIN_TARGET_WEEKS: f64 = 1.0;

/// Scores that wait for their outcome reach no further back, unless thinned out.
const SCORES_KEPT: Duration = Duration::from_secs(6 * 3600);

const RECENT: usize = 50;

/// Upper bounds of the calibration bins but the last; dense where probabilities of rare events lie.
const BIN_BOUNDS: [f64; 15] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9,
];

const LEAD_BOUNDS: [f64; 11] = [
    60.0, 120.0, 300.0, 600.0, 900.0, 1200.0, 1500.0, 1800.0, 3600.0, 7200.0, 14_400.0,
];

#[derive(Clone, Debug)]
pub struct Scoreboard {
    books: Books,
    /// Place = number of the target.
    ledgers: Vec<Option<Ledger>>,
    numbers: HashMap<TargetId, u32, RandomState>,
    /// Numbers that are free again.
    free: Vec<u32>,
    /// Scores that wait for their outcome, by step, oldest first.
    steps: VecDeque<Step>,
    /// Numbers of targets that are gone and still stored.
    gone: BTreeSet<u32>,
}

/// What is decided, for the whole fleet.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Books {
    rule: AlarmRule,
    retention: Duration,
    totals: Counts,
    /// One per day with anything in it, oldest first, within the retention.
    days: VecDeque<Day>,
    lead_times: LeadTimes,
    /// Newest last.
    recent: VecDeque<RecentOutcome>,
    #[serde(default)]
    newest_ms: i64,
}

/// What is still undecided about one target.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Ledger {
    target: TargetId,
    first_ms: i64,
    newest_ms: Option<i64>,
    /// Starts, oldest first; the newest, and others as long as scores before them wait.
    incidents_ms: VecDeque<i64>,
    /// When somebody acted, oldest first; as long as that can matter to an alarm or a score.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    actions: Vec<Timestamp>,
    cutter: AlarmCutter,
    /// Oldest first; kept until nothing can change or add to what they covered.
    alarms: VecDeque<Open>,
    /// Whether anything but the time of the newest step is not stored yet.
    #[serde(skip)]
    is_changed: bool,
}

#[derive(Clone, Debug)]
struct Step {
    at: Timestamp,
    /// By number of the target; NaN where there is none or its outcome is known.
    scores: Vec<f32>,
    is_stored: bool,
}

/// What the store has of a scoreboard, as JSON but for the scores.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stored {
    pub books: String,
    /// By number of the target.
    pub ledgers: BTreeMap<u32, String>,
    /// By step, four bytes for each target in the order of the numbers.
    pub scores: BTreeMap<Timestamp, Vec<u8>>,
}

/// What a store lacks of a scoreboard.
#[derive(Clone, Debug)]
pub struct Changes {
    /// To be written over what is there.
    pub stored: Stored,
    /// Ledgers to be deleted.
    pub gone: BTreeSet<u32>,
    /// Scores of earlier steps are to be deleted.
    pub oldest: Timestamp,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Open {
    opened_ms: i64,
    covers_until_ms: i64,
    score: f64,
    outcome: Option<Outcome>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Counts {
    pub right: u64,
    pub early: u64,
    #[serde(default)]
    pub uncertain: u64,
    pub r#false: u64,
    pub foreseen: u64,
    pub missed: u64,
    /// Scores taken in.
    pub scored: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Day {
    day: i64,
    counts: Counts,
    bins: [Bin; BIN_BOUNDS.len() + 1],
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Bin {
    scores: u64,
    positive: u64,
    predicted: f64,
    squared_error: f64,
}

/// What a step decided, for the log, the counters and the store.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    AlarmOpened {
        target: TargetId,
        alarm: Alarm,
    },
    AlarmClosed {
        target: TargetId,
        alarm: Alarm,
        outcome: Outcome,
        /// From the opening to the incident; `None` where there was none.
        lead: Option<Duration>,
    },
    IncidentForeseen {
        target: TargetId,
        start: Timestamp,
        lead: Duration,
    },
    IncidentMissed {
        target: TargetId,
        start: Timestamp,
    },
}

/// Counters run since the first start; ratios are over the rolling window and null below a minimum count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Summary {
    pub right: u64,
    pub early: u64,
    /// Alarms that nothing followed, but somebody acted in time to prevent it.
    #[serde(default)]
    pub uncertain: u64,
    pub r#false: u64,
    pub missed: u64,
    /// Incidents that an alarm covered; one right alarm can cover several.
    pub foreseen: u64,
    /// Alarms that are still undecided.
    pub open: u64,
    /// right / (right + false).
    #[schema(required, minimum = 0, maximum = 1)]
    pub precision: Option<f64>,
    /// foreseen / (foreseen + missed).
    #[schema(required, minimum = 0, maximum = 1)]
    pub recall: Option<f64>,
    #[schema(required, minimum = 0)]
    pub false_alarms_per_target_week: Option<f64>,
    #[schema(required, minimum = 0)]
    pub brier: Option<f64>,
    #[schema(required, minimum = 0)]
    pub calibration_error: Option<f64>,
    /// What the ratios are made of.
    pub window: Rolling,
    pub lead_time_histogram: LeadTimes,
    /// How often what was said came true, by what was said; bins without a score are left out.
    #[serde(default)]
    pub reliability: Vec<Reliability>,
    /// Newest first.
    pub recent: Vec<RecentOutcome>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Rolling {
    pub seconds: f64,
    #[serde(flatten)]
    pub counts: Counts,
    pub target_weeks: f64,
    /// Scores whose outcome is known.
    pub judged: u64,
}

/// The scores from `low` to below `high` whose outcome is known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Reliability {
    pub low: f64,
    pub high: f64,
    pub scores: u64,
    /// Mean of the scores.
    pub predicted: f64,
    /// Share of them that a failure followed within the horizon.
    pub observed: f64,
}

/// Lead times of the incidents foreseen, in seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LeadTimes {
    /// Inclusive upper bounds.
    pub bounds: Vec<f64>,
    /// Per bucket, not cumulative; the last one is above all bounds.
    pub counts: Vec<u64>,
    pub sum: f64,
    pub count: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RecentOutcome {
    pub target: String,
    /// right, early, uncertain, false or missed.
    #[schema(example = "right")]
    pub outcome: String,
    /// Unix seconds; null for a missed incident.
    #[schema(required)]
    pub opened: Option<f64>,
    /// Start, unix seconds; null where there was none.
    #[schema(required)]
    pub incident: Option<f64>,
    #[schema(required)]
    pub lead_seconds: Option<f64>,
    /// At the opening of the alarm.
    #[schema(required, minimum = 0, maximum = 1)]
    pub probability: Option<f64>,
}

impl Scoreboard {
    /// `retention` is the length of the rolling window, in whole days.
    pub fn new(rule: AlarmRule, retention: Duration) -> Self {
        Self {
            books: Books {
                rule,
                retention,
                totals: Counts::default(),
                days: VecDeque::new(),
                lead_times: LeadTimes::default(),
                recent: VecDeque::new(),
                newest_ms: i64::MIN,
            },
            ledgers: Vec::new(),
            numbers: HashMap::default(),
            free: Vec::new(),
            steps: VecDeque::new(),
            gone: BTreeSet::new(),
        }
    }

    /// Continues what was stored, perhaps under another rule: see [`Scoreboard::set_rule`].
    pub fn restore(
        stored: &Stored,
        rule: AlarmRule,
        retention: Duration,
    ) -> Result<Self, serde_json::Error> {
        let books: Books = serde_json::from_str(&stored.books)?;
        let newest = Some(books.newest_ms);
        let mut board = Self::new(books.rule, retention);
        board.books = books;
        for (number, json) in &stored.ledgers {
            let mut ledger: Ledger = serde_json::from_str(json)?;
            // It is stored when it changes, not at each step.
            ledger.newest_ms = ledger.newest_ms.max(newest);
            let target = ledger.target.clone();
            let place = *number as usize;
            board
                .ledgers
                .resize(board.ledgers.len().max(place + 1), None);
            board.ledgers[place] = Some(ledger);
            board.numbers.insert(target, *number);
        }
        board.free = (0..board.ledgers.len() as u32)
            .filter(|number| board.ledgers[*number as usize].is_none())
            .collect();
        for (&at, bytes) in &stored.scores {
            let scores = bytes.chunks_exact(4);
            let scores = scores.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            let mut scores: Vec<f32> = scores.collect();
            for (score, ledger) in scores.iter_mut().zip(&board.ledgers) {
                let is_judged = ledger.as_ref().is_none_or(|ledger| {
                    let starts = ledger.incidents_ms.iter();
                    starts
                        .into_iter()
                        .any(|start| board.books.rule.is_positive(at, Timestamp(*start)))
                });
                if is_judged {
                    *score = f32::NAN;
                }
            }
            board.steps.push_back(Step {
                at,
                scores,
                is_stored: true,
            });
        }
        board.set_rule(rule, retention);
        Ok(board)
    }

    /// Continues under another rule, as after a reload or a new model. Counts stay. If anything but the
    /// threshold differs, what is undecided was cut by another measure and is dropped.
    pub fn set_rule(&mut self, rule: AlarmRule, retention: Duration) {
        if self.books.rule.with_threshold(rule.threshold) != rule {
            self.gone
                .extend(self.numbers.drain().map(|(_, number)| number));
            self.ledgers.clear();
            self.free.clear();
            self.steps.clear();
        }
        self.books.rule = rule;
        self.books.retention = retention;
    }

    /// What the store does not have yet.
    pub fn changes(&self) -> Result<Changes, serde_json::Error> {
        let mut stored = Stored {
            books: serde_json::to_string(&self.books)?,
            ..Stored::default()
        };
        for (number, ledger) in (0..).zip(&self.ledgers) {
            if let Some(ledger) = ledger
                && ledger.is_changed
            {
                stored
                    .ledgers
                    .insert(number, serde_json::to_string(ledger)?);
            }
        }
        for step in self.steps.iter().filter(|step| !step.is_stored) {
            let bytes = step.scores.iter().flat_map(|score| score.to_le_bytes());
            stored.scores.insert(step.at, bytes.collect());
        }
        Ok(Changes {
            stored,
            gone: self.gone.clone(),
            oldest: self
                .steps
                .front()
                .map_or(Timestamp(i64::MAX), |step| step.at),
        })
    }

    /// Says that all [`Scoreboard::changes`] are stored.
    pub fn stored(&mut self) {
        self.gone.clear();
        for step in &mut self.steps {
            step.is_stored = true;
        }
        for ledger in self.ledgers.iter_mut().flatten() {
            // While a score is at the threshold, the time of the newest one counts.
            ledger.is_changed = ledger.cutter.holds();
        }
    }

    /// Takes one target's step: its probability (`None` while failing, recovering, excluded or abstaining)
    /// and the start of its newest incident, which may be repeated. Incidents that had begun when
    /// the target first had a probability do not count: nobody could have foreseen them. Call [`Scoreboard::tick`] after all targets of a step.
    pub fn observe(
        &mut self,
        t: Timestamp,
        target: &TargetId,
        probability: Option<f64>,
        incident: Option<Timestamp>,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        if probability.is_none() && !self.numbers.contains_key(target) {
            return events;
        }
        let number = self.number(t, target);
        let keeps = self.keeps(t);
        let rule = self.books.rule;
        let Self {
            books,
            ledgers,
            steps,
            ..
        } = self;
        let place = number as usize;
        let Some(ledger) = &mut ledgers[place] else {
            return events;
        };
        let newest_incident = ledger.incidents_ms.back().copied();
        if let Some(start) =
            incident.filter(|start| start.0 > newest_incident.unwrap_or(ledger.first_ms))
        {
            ledger.is_changed = true;
            ledger.incidents_ms.push_back(start.0);
            books.incident(t, target, ledger, start, &mut events);
            let waiting = steps
                .iter_mut()
                .filter(|step| rule.is_positive(step.at, start));
            for score in waiting.filter_map(|step| step.scores.get_mut(place)) {
                if !score.is_nan() {
                    books.judge_score(t, *score, true);
                    *score = f32::NAN;
                }
            }
        }
        if ledger.newest_ms.is_none_or(|newest| t.0 > newest) {
            ledger.newest_ms = Some(t.0);
            books.newest_ms = books.newest_ms.max(t.0);
            // As recorded scores are, so that a backtest sees the same numbers.
            let score = probability.map(|p| p as f32).filter(|p| !p.is_nan());
            if let Some(score) = score {
                books.day(t).counts.scored += 1;
                books.totals.scored += 1;
                if keeps {
                    keep(steps, t, place, score);
                }
            }
            let held = ledger.cutter.holds();
            if let Some(alarm) = ledger.cutter.push(&rule, t, score.map(f64::from)) {
                ledger.alarms.push_back(Open::new(alarm));
                events.push(Event::AlarmOpened {
                    target: target.clone(),
                    alarm,
                });
            }
            ledger.is_changed |= held || ledger.cutter.holds();
        }
        events
    }

    /// All alarms that were opened before are decided at `t`.
    pub fn undecided_since(&self, t: Timestamp) -> Timestamp {
        self.books.rule.undecided_since(t)
    }

    /// Takes that somebody acted on a target, at a grid point. It counts for the alarms and scores before it whose outcome
    /// is still open.
    pub fn act(&mut self, target: &TargetId, at: Timestamp) {
        let number = self.numbers.get(target);
        let slot = number.and_then(|number| self.ledgers.get_mut(*number as usize));
        if let Some(ledger) = slot.and_then(Option::as_mut)
            && let Err(place) = ledger.actions.binary_search(&at)
        {
            ledger.actions.insert(place, at);
            ledger.is_changed = true;
        }
    }

    /// The number of a target, which gets one when it is new.
    fn number(&mut self, t: Timestamp, target: &TargetId) -> u32 {
        if let Some(number) = self.numbers.get(target) {
            return *number;
        }
        let number = self.free.pop().unwrap_or(self.ledgers.len() as u32);
        let place = number as usize;
        self.ledgers.resize(self.ledgers.len().max(place + 1), None);
        self.ledgers[place] = Some(Ledger::new(t, target));
        self.numbers.insert(target.clone(), number);
        self.gone.remove(&number);
        number
    }

    /// Ends a step: closes what time has decided, forgets what is past and targets that are gone.
    pub fn tick(&mut self, t: Timestamp) -> Vec<Event> {
        let mut events = Vec::new();
        let (rule, books) = (self.books.rule, &mut self.books);
        while let Some(step) = self
            .steps
            .pop_front_if(|step| rule.row_known_at(step.at) <= t)
        {
            let ahead = step.at.plus(rule.horizon());
            for (place, score) in step.scores.into_iter().enumerate() {
                let ledger = self.ledgers.get(place).and_then(Option::as_ref);
                let is_uncertain =
                    ledger.is_some_and(|ledger| acted_within(&ledger.actions, step.at, ahead));
                if !score.is_nan() && !is_uncertain {
                    books.judge_score(t, score, false);
                }
            }
        }
        for (number, slot) in (0..).zip(&mut self.ledgers) {
            let Some(ledger) = slot else { continue };
            while let Some(open) = ledger.alarms.front()
                && rule.false_at(open.alarm().opened) <= t
            {
                if open.outcome.is_none() {
                    let alarm = open.alarm();
                    let outcome = judge(&alarm, &[], &ledger.actions, rule.horizon());
                    books.close(t, &ledger.target, alarm, outcome, None, &mut events);
                }
                ledger.alarms.pop_front();
                ledger.is_changed = true;
            }
            while ledger.incidents_ms.len() > 1
                && rule.row_known_at(Timestamp(ledger.incidents_ms[0])) <= t
            {
                ledger.incidents_ms.pop_front();
            }
            ledger.actions.retain(|at| rule.false_at(*at) > t);
            if rule.false_at(Timestamp(ledger.newest_ms.unwrap_or(ledger.first_ms))) <= t {
                self.numbers.remove(&ledger.target);
                self.free.push(number);
                self.gone.insert(number);
                *slot = None;
            }
        }
        books.forget(t);
        events
    }

    pub fn summary(&self) -> Summary {
        let mut counts = Counts::default();
        let mut bins = [Bin::default(); BIN_BOUNDS.len() + 1];
        for day in &self.books.days {
            counts.add(&day.counts);
            for (sum, bin) in bins.iter_mut().zip(&day.bins) {
                sum.add(bin);
            }
        }
        let tally = counts.tally();
        let window = Rolling {
            seconds: self.books.retention.as_secs_f64(),
            counts,
            target_weeks: target_weeks(counts.scored, self.books.rule.step()),
            judged: bins.iter().map(|bin| bin.scores).sum(),
        };
        let mean = |sum: f64| (window.judged >= MIN_SCORES).then(|| sum / window.judged as f64);
        Summary {
            right: self.books.totals.right,
            early: self.books.totals.early,
            uncertain: self.books.totals.uncertain,
            r#false: self.books.totals.r#false,
            missed: self.books.totals.missed,
            foreseen: self.books.totals.foreseen,
            open: self
                .ledgers
                .iter()
                .flatten()
                .flat_map(|l| &l.alarms)
                .filter(|open| open.outcome.is_none())
                .count() as u64,
            precision: tally
                .precision()
                .filter(|_| counts.right + counts.r#false >= MIN_OUTCOMES),
            recall: tally.recall().filter(|_| tally.incidents >= MIN_OUTCOMES),
            false_alarms_per_target_week: tally
                .false_alarms_per_target_week(self.books.rule.step())
                .filter(|_| window.target_weeks >= MIN_TARGET_WEEKS),
            brier: mean(bins.iter().map(|bin| bin.squared_error).sum()),
            calibration_error: mean(
                bins.iter()
                    .map(|bin| (bin.predicted - bin.positive as f64).abs())
                    .sum(),
            ),
            window,
            lead_time_histogram: self.books.lead_times.clone(),
            reliability: reliability(&bins),
            recent: self.books.recent.iter().rev().cloned().collect(),
        }
    }

    /// With a horizon beyond what is kept of the scores, only every n-th one waits for its outcome.
    fn keeps(&self, t: Timestamp) -> bool {
        let wait = self.books.rule.row_known_at(t).0 - t.0;
        let stride = (wait as u64)
            .div_ceil(SCORES_KEPT.as_millis() as u64)
            .max(1);
        t.0.div_euclid(millis(self.books.rule.step()).max(1))
            .rem_euclid(stride as i64)
            == 0
    }
}

impl Books {
    fn incident(
        &mut self,
        t: Timestamp,
        target: &TargetId,
        ledger: &mut Ledger,
        start: Timestamp,
        events: &mut Vec<Event>,
    ) {
        let incident = [Incident { start, end: None }];
        for open in &mut ledger.alarms {
            let alarm = open.alarm();
            let outcome = judge(&alarm, &incident, &[], self.rule.horizon());
            if open.outcome.is_none() && outcome != Outcome::False {
                open.outcome = Some(outcome);
                self.close(t, target, alarm, outcome, Some(start), events);
            }
        }
        let alarms: Vec<Alarm> = ledger.alarms.iter().map(Open::alarm).collect();
        let mut counted = Counts::default();
        if let Some(lead) = foreseen(start, &alarms) {
            counted.foreseen = 1;
            self.lead_times.observe(lead);
            events.push(Event::IncidentForeseen {
                target: target.clone(),
                start,
                lead,
            });
        } else {
            counted.missed = 1;
            self.remember(RecentOutcome {
                target: target.to_string(),
                outcome: "missed".into(),
                opened: None,
                incident: Some(start.as_secs_f64()),
                lead_seconds: None,
                probability: None,
            });
            events.push(Event::IncidentMissed {
                target: target.clone(),
                start,
            });
        }
        self.count(t, &counted);
    }

    fn close(
        &mut self,
        t: Timestamp,
        target: &TargetId,
        alarm: Alarm,
        outcome: Outcome,
        incident: Option<Timestamp>,
        events: &mut Vec<Event>,
    ) {
        self.count(t, &Counts::of(outcome));
        let lead = incident.map(|start| start.since(alarm.opened));
        self.remember(RecentOutcome {
            target: target.to_string(),
            outcome: outcome.name().into(),
            opened: Some(alarm.opened.as_secs_f64()),
            incident: incident.map(Timestamp::as_secs_f64),
            lead_seconds: lead.map(|lead| lead.as_secs_f64()),
            probability: Some(alarm.score),
        });
        events.push(Event::AlarmClosed {
            target: target.clone(),
            alarm,
            outcome,
            lead,
        });
    }

    fn count(&mut self, t: Timestamp, counts: &Counts) {
        self.totals.add(counts);
        self.day(t).counts.add(counts);
    }

    fn judge_score(&mut self, t: Timestamp, score: f32, positive: bool) {
        let score = f64::from(score);
        let outcome = f64::from(u8::from(positive));
        let bin = BIN_BOUNDS.partition_point(|bound| *bound <= score);
        self.day(t).bins[bin].add(&Bin {
            scores: 1,
            positive: u64::from(positive),
            predicted: score,
            squared_error: (score - outcome).powi(2),
        });
    }

    /// Days come in order, so a clock that went back counts into the newest day.
    fn day(&mut self, t: Timestamp) -> &mut Day {
        let day = t.0.div_euclid(DAY_MS);
        if self.days.back().is_none_or(|newest| newest.day < day) {
            self.days.push_back(Day {
                day,
                ..Day::default()
            });
        }
        let newest = self.days.len() - 1;
        &mut self.days[newest]
    }

    fn forget(&mut self, t: Timestamp) {
        let oldest = t.minus(self.retention).0.div_euclid(DAY_MS);
        while self.days.front().is_some_and(|day| day.day < oldest) {
            self.days.pop_front();
        }
    }

    fn remember(&mut self, outcome: RecentOutcome) {
        self.recent.push_back(outcome);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
    }
}

fn reliability(bins: &[Bin]) -> Vec<Reliability> {
    let lows = std::iter::once(0.0).chain(BIN_BOUNDS);
    let highs = BIN_BOUNDS.into_iter().chain([1.0]);
    let known = lows.zip(highs).zip(bins).filter(|(_, bin)| bin.scores > 0);
    known
        .map(|((low, high), bin)| Reliability {
            low,
            high,
            scores: bin.scores,
            predicted: bin.predicted / bin.scores as f64,
            observed: bin.positive as f64 / bin.scores as f64,
        })
        .collect()
}

/// Adds a score that waits for its outcome.
fn keep(steps: &mut VecDeque<Step>, t: Timestamp, place: usize, score: f32) {
    if steps.back().is_none_or(|newest| newest.at < t) {
        steps.push_back(Step {
            at: t,
            scores: Vec::new(),
            is_stored: false,
        });
    }
    if let Some(step) = steps.iter_mut().rev().find(|step| step.at == t) {
        if step.scores.len() <= place {
            step.scores.resize(place + 1, f32::NAN);
        }
        step.scores[place] = score;
        step.is_stored = false;
    }
}

impl Ledger {
    fn new(t: Timestamp, target: &TargetId) -> Self {
        Self {
            target: target.clone(),
            first_ms: t.0,
            newest_ms: None,
            incidents_ms: VecDeque::new(),
            actions: Vec::new(),
            cutter: AlarmCutter::default(),
            alarms: VecDeque::new(),
            is_changed: true,
        }
    }
}

impl Open {
    fn new(alarm: Alarm) -> Self {
        Self {
            opened_ms: alarm.opened.0,
            covers_until_ms: alarm.covers_until.0,
            score: alarm.score,
            outcome: None,
        }
    }

    fn alarm(&self) -> Alarm {
        Alarm {
            opened: Timestamp(self.opened_ms),
            covers_until: Timestamp(self.covers_until_ms),
            score: self.score,
        }
    }
}

impl Counts {
    fn of(outcome: Outcome) -> Self {
        let mut counts = Self::default();
        *match outcome {
            Outcome::Right => &mut counts.right,
            Outcome::Early => &mut counts.early,
            Outcome::Uncertain => &mut counts.uncertain,
            Outcome::False => &mut counts.r#false,
        } = 1;
        counts
    }

    fn add(&mut self, other: &Self) {
        self.right += other.right;
        self.early += other.early;
        self.uncertain += other.uncertain;
        self.r#false += other.r#false;
        self.foreseen += other.foreseen;
        self.missed += other.missed;
        self.scored += other.scored;
    }

    fn tally(&self) -> Tally {
        Tally {
            right: self.right,
            early: self.early,
            uncertain: self.uncertain,
            r#false: self.r#false,
            incidents: self.foreseen + self.missed,
            foreseen: self.foreseen,
            rows: self.scored,
            ..Tally::default()
        }
    }
}

impl Bin {
    fn add(&mut self, other: &Self) {
        self.scores += other.scores;
        self.positive += other.positive;
        self.predicted += other.predicted;
        self.squared_error += other.squared_error;
    }
}

impl Default for LeadTimes {
    fn default() -> Self {
        Self {
            bounds: LEAD_BOUNDS.to_vec(),
            counts: vec![0; LEAD_BOUNDS.len() + 1],
            sum: 0.0,
            count: 0,
        }
    }
}

impl LeadTimes {
    fn observe(&mut self, lead: Duration) {
        let seconds = lead.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum += seconds;
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::evaluation::Track;
    use crate::evaluation::events::{Scored, tally};
    use crate::evaluation::ranking::Rows;
    use crate::labels::{FailureMachine, FailureRules, Phase, RowLabel, label_rows};

    const DAY: Duration = Duration::from_secs(86_400);

    fn minutes(n: u64) -> Duration {
        Duration::from_secs(n * 60)
    }

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_secs(minute * 60)
    }

    fn rules(horizon: u64) -> FailureRules {
        FailureRules {
            step: minutes(1),
            min_duration: Duration::ZERO,
            merge_gap: minutes(3),
            recovery: minutes(10),
            horizon: minutes(horizon),
        }
    }

    fn board(for_: u64, horizon: u64) -> Scoreboard {
        Scoreboard::new(
            AlarmRule::new(0.5, minutes(for_), &rules(horizon)),
            90 * DAY,
        )
    }

    /// As a store takes it.
    fn store(stored: &mut Stored, board: &mut Scoreboard) {
        let changes = board.changes().unwrap();
        board.stored();
        stored.books = changes.stored.books;
        stored
            .ledgers
            .retain(|number, _| !changes.gone.contains(number));
        stored.ledgers.extend(changes.stored.ledgers);
        stored.scores.extend(changes.stored.scores);
        stored.scores = stored.scores.split_off(&changes.oldest);
    }

    /// Feeds one target, one letter per minute: x above the threshold, . below, ? no score, ! a new incident, a somebody acted.
    fn story(text: &str) -> (Vec<String>, Summary) {
        let target = TargetId::new("a");
        let mut board = board(0, 5);
        let mut told = Vec::new();
        let mut incident = None;
        for (minute, c) in (0..).zip(text.chars()) {
            let probability = match c {
                'x' => Some(0.9),
                '.' | 'a' => Some(0.1),
                _ => None,
            };
            if c == 'a' {
                board.act(&target, at(minute));
            }
            if c == '!' {
                incident = Some(at(minute));
            }
            let mut events = board.observe(at(minute), &target, probability, incident);
            events.extend(board.tick(at(minute)));
            told.extend(events.iter().map(|event| {
                let lead = |lead: Duration| lead.as_secs() / 60;
                match event {
                    Event::AlarmOpened { alarm, .. } => {
                        format!("{minute} open until {}", alarm.covers_until.0 / 60_000)
                    }
                    Event::AlarmClosed {
                        outcome,
                        lead: None,
                        ..
                    } => format!("{minute} {}", outcome.name()),
                    Event::AlarmClosed {
                        outcome,
                        lead: Some(l),
                        ..
                    } => format!("{minute} {} {}", outcome.name(), lead(*l)),
                    Event::IncidentForeseen { lead: l, .. } => {
                        format!("{minute} foreseen {}", lead(*l))
                    }
                    Event::IncidentMissed { .. } => format!("{minute} missed"),
                }
            }));
        }
        (told, board.summary())
    }

    #[test]
    fn alarms_and_incidents_close_as_they_are_decided() {
        for (text, expected) in [
            (
                "..x..!",
                vec!["2 open until 7", "5 right 3", "5 foreseen 3"],
            ),
            ("x......!", vec!["0 open until 5", "7 early 7", "7 missed"]),
            ("x..............", vec!["0 open until 5", "10 false"]),
            ("x.a............", vec!["0 open until 5", "10 uncertain"]),
            // Too late to have prevented what was announced.
            ("x.....a........", vec!["0 open until 5", "10 false"]),
            ("x.a.!", vec!["0 open until 5", "4 right 4", "4 foreseen 4"]),
            (".?.!", vec!["3 missed"]),
            // One alarm can cover two incidents, but is right once.
            (
                "x.!?!",
                vec![
                    "0 open until 5",
                    "2 right 2",
                    "2 foreseen 2",
                    "4 foreseen 4",
                ],
            ),
            // An incident that was there first is nobody's.
            ("!???", vec![]),
        ] {
            assert_eq!(story(text).0, expected, "{text}");
        }
        let (_, summary) = story("x.!...........");
        assert_eq!((summary.right, summary.foreseen, summary.open), (1, 1, 0));
        assert_eq!(
            (summary.precision, summary.recall, summary.brier),
            (None, None, None)
        );
        assert_eq!(summary.lead_time_histogram.counts[..2], [0, 1]);
        let recent = &summary.recent[0];
        assert_eq!(
            (recent.outcome.as_str(), recent.lead_seconds, recent.opened),
            ("right", Some(120.0), Some(0.0))
        );
        assert_eq!(story("x......").1.open, 1);
    }

    #[test]
    fn ratios_roll_while_totals_stay() {
        let target = TargetId::new("a");
        let mut board = board(0, 5);
        for hour in 0..24 * 8 {
            let start = hour * 60;
            for minute in 0..60 {
                // A right alarm in each hour of the first four days, a false one in each of the next.
                let incident = (hour < 96)
                    .then(|| at(start + 33))
                    .filter(|i| *i <= at(start + minute));
                let probability = Some(if minute == 30 { 0.9 } else { 0.1 });
                board.observe(at(start + minute), &target, probability, incident);
                board.tick(at(start + minute));
            }
        }
        let summary = board.summary();
        assert_eq!(
            (summary.right, summary.r#false, summary.precision),
            (96, 96, Some(0.5))
        );
        assert_eq!(
            summary.false_alarms_per_target_week.map(f64::round),
            Some(84.0)
        );
        assert!(summary.calibration_error.is_some() && summary.brier.is_some());

        let mut later = board.clone();
        later.tick(at(95 * 1440));
        let summary = later.summary();
        assert_eq!((summary.right, summary.precision), (96, Some(0.0)));
        later.tick(at(200 * 1440));
        assert_eq!(
            (later.summary().precision, later.summary().window.judged),
            (None, 0)
        );
        assert_eq!(later.summary().right, 96);
    }

    #[test]
    fn another_horizon_drops_what_is_undecided_but_no_count() {
        let target = TargetId::new("a");
        let mut board = board(0, 5);
        board.observe(at(0), &target, Some(0.9), None);
        board.set_rule(board.books.rule.with_threshold(0.6), DAY);
        assert_eq!(board.summary().open, 1);
        board.set_rule(AlarmRule::new(0.6, minutes(0), &rules(9)), DAY);
        assert_eq!(
            (board.summary().open, board.summary().window.counts.scored),
            (0, 1)
        );
    }

    #[test]
    fn scores_waiting_for_their_outcome_stay_bounded() {
        let target = TargetId::new("a");
        let mut board = board(0, 24 * 60);
        for minute in 0..3 * 1440 {
            board.observe(at(minute), &target, Some(0.1), None);
            board.tick(at(minute));
        }
        assert!(board.steps.len() <= 360);
        assert!(board.summary().window.judged >= 700);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn step_by_step_equals_the_backtest(
            seed in 0u64..u64::MAX,
            (horizon, for_) in (2u64..25, 0u64..4),
            (min_duration, merge_gap, recovery) in (0u64..6, 0u64..6, 0u64..20),
            restart in 0i64..2000,
        ) {
            let rules = FailureRules {
                step: minutes(1),
                min_duration: minutes(min_duration),
                merge_gap: minutes(merge_gap),
                recovery: minutes(recovery),
                horizon: minutes(horizon),
            };
            let rule = AlarmRule::new(0.5, minutes(for_), &rules);
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut board = Scoreboard::new(rule, 90 * DAY);
            let mut tracks: Vec<Track> = Vec::new();
            let mut machines: Vec<(FailureMachine, Vec<Phase>)> = Vec::new();
            let mut risk = [0.2f32; 3];
            let mut failing = [false; 3];
            for name in ["a", "b", "c"] {
                tracks.push(Track {
                    target: TargetId::new(name),
                    times: Vec::new(),
                    scores: Vec::new(),
                    labels: Vec::new(),
                    incidents: Vec::new(),
                    actions: Vec::new(),
                });
                machines.push((FailureMachine::new(rules), Vec::new()));
            }
            let (mut leads, mut stored) = (Vec::new(), Stored::default());
            for minute in 0..2000 {
                let t = at(minute);
                let mut events = Vec::new();
                for (i, (track, (machine, phases))) in tracks.iter_mut().zip(&mut machines).enumerate() {
                    risk[i] = (risk[i] + rng.random_range(-0.1..0.1f32)).clamp(0.0, 1.0);
                    let flips = if failing[i] { 0.3 } else { 0.003 + 0.03 * f64::from(risk[i]) };
                    failing[i] ^= rng.random::<f64>() < flips;
                    if rng.random::<f64>() < 0.02 {
                        continue;
                    }
                    let phase = machine.push(t, failing[i]);
                    let scored = phase == Phase::Healthy && rng.random::<f64>() > 0.03;
                    let score = scored.then_some(risk[i]);
                    track.times.push(t);
                    track.scores.push(score);
                    phases.push(phase);
                    let newest = machine.incidents().last().map(|incident| incident.start);
                    events.extend(board.observe(t, &track.target, score.map(f64::from), newest));
                    if rng.random::<f64>() < 0.01 {
                        track.actions.push(t);
                        board.act(&track.target, t);
                    }
                }
                events.extend(board.tick(t));
                leads.extend(events.iter().filter_map(|event| match event {
                    Event::IncidentForeseen { lead, target, start } => Some((target.clone(), *start, *lead)),
                    _ => None,
                }));
                // Now and then the disk is full.
                if minute % 7 != 3 || minute == restart {
                    store(&mut stored, &mut board);
                }
                if minute == restart {
                    board = Scoreboard::restore(&stored, rule, 90 * DAY).unwrap();
                }
            }
            for (track, (machine, phases)) in tracks.iter_mut().zip(machines) {
                track.incidents = machine.into_incidents();
                track.labels = label_rows(&track.times, &track.incidents, &phases, &track.actions, &rules, at(1999));
                // A last step that was left out is still a step of the clock.
                if track.times.last() != Some(&at(1999)) {
                    track.times.push(at(1999));
                    track.scores.push(None);
                    track.labels.push(RowLabel::Censored);
                }
            }

            let summary = board.summary();
            let scored = Scored::own(&tracks);
            let batch = tally(&scored, &rule);
            prop_assert_eq!(
                (summary.right, summary.early, summary.uncertain, summary.r#false, summary.open, summary.foreseen, summary.missed),
                (batch.right, batch.early, batch.uncertain, batch.r#false, batch.undecided, batch.foreseen, batch.incidents - batch.foreseen)
            );
            prop_assert_eq!(summary.window.counts.scored, batch.rows);
            let enough = |ratio: Option<f64>, count| ratio.filter(|_| count >= MIN_OUTCOMES);
            prop_assert_eq!(summary.precision, enough(batch.precision(), batch.right + batch.r#false));
            prop_assert_eq!(summary.recall, enough(batch.recall(), batch.incidents));

            let mut expected: Vec<_> = scored
                .iter()
                .flat_map(|one| {
                    let target = one.track.target.clone();
                    let found = one.replay(&rule).incidents.into_iter();
                    found.filter_map(move |(start, lead)| Some((target.clone(), start, lead?)))
                })
                .collect();
            expected.sort();
            leads.sort();
            prop_assert_eq!(leads, expected);

            let known = tracks.iter().flat_map(|track| {
                track.scores.iter().zip(&track.labels).filter_map(|(score, label)| match label {
                    RowLabel::Positive => Some((f64::from((*score)?), true, 1.0)),
                    RowLabel::Negative => Some((f64::from((*score)?), false, 1.0)),
                    RowLabel::Uncertain | RowLabel::Excluded | RowLabel::Censored => None,
                })
            });
            let rows = Rows::new(known);
            prop_assert_eq!(summary.window.judged, rows.len() as u64);
            if let (Some(live), Some(batch)) = (summary.brier, rows.brier()) {
                prop_assert!((live - batch).abs() < 1e-9, "{} {}", live, batch);
            }
        }
    }
}
