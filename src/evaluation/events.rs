//! Replays a rule over recorded tracks and counts what came of it.

use std::iter::Sum;
use std::ops::AddAssign;
use std::time::Duration;

use super::alarms::{Alarm, AlarmCutter, AlarmRule, Outcome, first_after, foreseen, judge};
use crate::labels::RowLabel;
use crate::time::Timestamp;
use crate::types::{Incident, TargetId};

/// One target's rows in the order of time, one per grid step of the evaluated slice.
#[derive(Clone, Debug)]
pub struct Track {
    pub target: TargetId,
    pub times: Vec<Timestamp>,
    /// `None` where the target abstains, is failing, recovering or excluded.
    pub scores: Vec<Option<f32>>,
    pub labels: Vec<RowLabel>,
    /// By start. Those that start within (first time, last time] count; others are ignored.
    pub incidents: Vec<Incident>,
    /// When somebody acted on the target, in order of time.
    pub actions: Vec<Timestamp>,
}

/// One score per row of each track.
pub type Scores = Vec<Vec<Option<f32>>>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub right: u64,
    pub early: u64,
    pub uncertain: u64,
    pub r#false: u64,
    /// Opened so late that the data ends before they could be called false.
    pub undecided: u64,
    pub incidents: u64,
    pub foreseen: u64,
    /// Rows with a score.
    pub rows: u64,
    pub rows_in_alarm: u64,
}

impl Tally {
    pub fn alarms(&self) -> u64 {
        self.right + self.early + self.uncertain + self.r#false + self.undecided
    }

    pub fn precision(&self) -> Option<f64> {
        ratio(self.right, self.right + self.r#false)
    }

    pub fn recall(&self) -> Option<f64> {
        ratio(self.foreseen, self.incidents)
    }

    /// Per week of scored time of one target.
    pub fn false_alarms_per_target_week(&self, step: Duration) -> Option<f64> {
        (self.rows > 0).then(|| self.r#false as f64 / target_weeks(self.rows, step))
    }

    pub fn count(&mut self, outcome: Option<Outcome>) {
        *match outcome {
            Some(Outcome::Right) => &mut self.right,
            Some(Outcome::Early) => &mut self.early,
            Some(Outcome::Uncertain) => &mut self.uncertain,
            Some(Outcome::False) => &mut self.r#false,
            None => &mut self.undecided,
        } += 1;
    }
}

impl AddAssign<&Tally> for Tally {
    fn add_assign(&mut self, other: &Tally) {
        self.right += other.right;
        self.early += other.early;
        self.uncertain += other.uncertain;
        self.r#false += other.r#false;
        self.undecided += other.undecided;
        self.incidents += other.incidents;
        self.foreseen += other.foreseen;
        self.rows += other.rows;
        self.rows_in_alarm += other.rows_in_alarm;
    }
}

impl<'a> Sum<&'a Tally> for Tally {
    fn sum<I: Iterator<Item = &'a Tally>>(tallies: I) -> Self {
        tallies.fold(Tally::default(), |mut sum, tally| {
            sum += tally;
            sum
        })
    }
}

/// `None` for 0/0.
pub fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

pub fn target_weeks(rows: u64, step: Duration) -> f64 {
    rows as f64 * step.as_secs_f64() / (7.0 * 86_400.0)
}

/// A track with the scores under examination, which need not be its own.
#[derive(Debug)]
pub struct Scored<'a> {
    pub track: &'a Track,
    pub scores: &'a [Option<f32>],
    /// Rows with a score.
    pub rows: u64,
    /// Highest score of each block of rows.
    maxima: Vec<f32>,
}

const BLOCK: usize = 64;

/// What a rule did on one track.
#[derive(Clone, Debug, PartialEq)]
pub struct Replay {
    pub alarms: Vec<(Alarm, Option<Outcome>)>,
    /// Each incident that counts, with its lead time when it was foreseen.
    pub incidents: Vec<(Timestamp, Option<Duration>)>,
}

impl<'a> Scored<'a> {
    pub fn own(tracks: &'a [Track]) -> Vec<Self> {
        tracks
            .iter()
            .map(|track| Self::new(track, &track.scores))
            .collect()
    }

    pub fn with(tracks: &'a [Track], scores: &'a Scores) -> Vec<Self> {
        tracks
            .iter()
            .zip(scores)
            .map(|(track, scores)| Self::new(track, scores))
            .collect()
    }

    fn new(track: &'a Track, scores: &'a [Option<f32>]) -> Self {
        let max = |block: &[Option<f32>]| {
            block
                .iter()
                .flatten()
                .copied()
                .fold(f32::NEG_INFINITY, f32::max)
        };
        let rows = scores.iter().flatten().count() as u64;
        Self {
            track,
            scores,
            rows,
            maxima: scores.chunks(BLOCK).map(max).collect(),
        }
    }

    pub fn replay(&self, rule: &AlarmRule) -> Replay {
        let incidents = self.incidents();
        let end = self.track.times.last().copied();
        let decide = |alarm: Alarm| {
            let outcome = judge(&alarm, incidents, &self.track.actions, rule.horizon());
            let open = matches!(outcome, Outcome::False | Outcome::Uncertain)
                && end.is_some_and(|end| end < rule.false_at(alarm.opened));
            (alarm, (!open).then_some(outcome))
        };
        let alarms: Vec<_> = self.alarms(rule).into_iter().map(decide).collect();
        let lead = |incident: &Incident| {
            // Alarms of one target do not overlap, so at most the last one before the start covers it.
            let before = alarms.partition_point(|(alarm, _)| alarm.opened < incident.start);
            let covering = alarms[..before].last().map(|(alarm, _)| alarm);
            (incident.start, foreseen(incident.start, covering))
        };
        Replay {
            incidents: incidents.iter().map(lead).collect(),
            alarms,
        }
    }

    /// The incidents that count: those that start within (first time, last time].
    pub fn incidents(&self) -> &'a [Incident] {
        let (Some(first), Some(last)) = (self.track.times.first(), self.track.times.last()) else {
            return &[];
        };
        let incidents = &self.track.incidents;
        let from = incidents.partition_point(|incident| incident.start <= *first);
        let to = incidents.partition_point(|incident| incident.start <= *last);
        &incidents[from..to]
    }

    /// Start of the incident that made a right or early alarm so.
    pub fn cause(&self, alarm: &Alarm) -> Option<Timestamp> {
        first_after(alarm.opened, self.incidents())
    }

    /// Index range of the rows within an alarm.
    pub fn rows_within(&self, alarm: &Alarm) -> std::ops::Range<usize> {
        let from = self.track.times.partition_point(|t| *t < alarm.opened);
        let to = self
            .track
            .times
            .partition_point(|t| *t < alarm.covers_until);
        from..to
    }

    pub fn scored_rows(&self, rows: std::ops::Range<usize>) -> u64 {
        self.scores[rows].iter().flatten().count() as u64
    }

    fn alarms(&self, rule: &AlarmRule) -> Vec<Alarm> {
        let mut cutter = AlarmCutter::default();
        let mut alarms = Vec::new();
        let rows = self.track.times.len().min(self.scores.len());
        for (block, max) in self.maxima.iter().enumerate() {
            let end = rows.min((block + 1) * BLOCK);
            // Where no score reaches the threshold, only the last row can matter to what follows.
            let quiet = f64::from(*max) < rule.threshold;
            let start = if quiet {
                end.saturating_sub(1)
            } else {
                block * BLOCK
            };
            for row in start..end {
                let score = self.scores[row].map(f64::from);
                alarms.extend(cutter.push(rule, self.track.times[row], score));
            }
        }
        alarms
    }
}

/// All counts of a rule over all tracks.
pub fn tally(scored: &[Scored], rule: &AlarmRule) -> Tally {
    let mut sum = Tally::default();
    for one in scored {
        let replay = one.replay(rule);
        for (alarm, outcome) in &replay.alarms {
            sum.count(*outcome);
            sum.rows_in_alarm += one.scored_rows(one.rows_within(alarm));
        }
        sum.incidents += replay.incidents.len() as u64;
        sum.foreseen += replay
            .incidents
            .iter()
            .filter(|(_, lead)| lead.is_some())
            .count() as u64;
        sum.rows += one.rows;
    }
    sum
}
