//! The report of one evaluated slice: the keys that train and backtest print as JSON, and a table for terminals.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use super::alarms::{AlarmRule, Outcome};
use super::baselines::{Baseline, ORACLE};
use super::bootstrap::{Parts, draw, interval, quantile, replicates};
use super::curves::{Curves, Drawing, Reliability};
use super::events::{Scored, Scores, Tally, Track, tally};
use super::ranking::{Rows, brier_skill};
use super::threshold::Curve;
use crate::labels::{FailureRules, RowLabel};
use crate::table::{self, Table};
use crate::time::{Timestamp, format_duration};

/// Budgets of `at_budget`: false alarms per target-week.
pub const BUDGETS: [f64; 4] = [0.01, 0.1, 1.0, 7.0];

/// Precision of `at_precision_089`.
pub const PRECISION: f64 = 0.89;

/// Below this many incidents the table says that its figures mean little.
pub const FEW_INCIDENTS: u64 = 10;

const DAY_MS: i64 = 86_400_000;

pub struct Input<'a> {
    /// With the scores of the member that is served.
    pub tracks: &'a [Track],
    /// Of each incident of each track: what kind of failure it is.
    pub modes: &'a [Vec<String>],
    /// Name and scores of each member.
    pub members: &'a [(&'a str, Scores)],
    pub baselines: &'a [Baseline<'a>],
    /// Scores that somebody else claims for the same rows.
    pub compared: &'a [Baseline<'a>],
    pub rules: &'a FailureRules,
    /// The alert rule's own `for`.
    pub for_: Duration,
    /// Fixed before this slice was seen; `None` when no threshold was within the budget.
    pub threshold: Option<f64>,
    /// False alarms per target-week that the threshold was chosen for.
    pub budget: f64,
    pub seed: u64,
}

/// Ratios are 0 to 1 and `None` (null) where undefined; times are seconds, instants unix seconds.
///
/// `at_threshold` uses the threshold fixed beforehand. `at_precision_089`, `at_budget` and everything
/// about baselines are read off this slice's own curve: a baseline is given its best threshold here.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    pub horizon_seconds: f64,
    pub start: f64,
    pub end: f64,
    pub targets: u64,
    /// Scored rows with a known label.
    pub rows: u64,
    pub incidents: u64,
    pub base_rate: Option<f64>,
    /// The member with the highest ROC AUC.
    pub best_member: Option<String>,
    pub members: BTreeMap<String, Ranking>,
    pub ensemble: EnsembleReport,
    pub at_threshold: OperatingPoint,
    pub at_precision_089: OperatingPoint,
    /// By false alarms per target-week.
    pub at_budget: BTreeMap<String, OperatingPoint>,
    pub baselines: BTreeMap<String, BaselineReport>,
    /// Scores that the config says to compare with.
    pub compared: BTreeMap<String, BaselineReport>,
    /// The true risk, where a simulator gives one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oracle: Option<BaselineReport>,
    /// At the threshold.
    pub by_target: BTreeMap<String, TargetReport>,
    /// At the threshold.
    pub by_failure_mode: BTreeMap<String, ModeReport>,
    /// For charts, not for the JSON report.
    #[serde(skip)]
    pub drawing: Drawing,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ranking {
    pub roc_auc: Option<f64>,
    pub average_precision: Option<f64>,
    pub brier: Option<f64>,
    pub log_loss: Option<f64>,
}

#[derive(Clone, Debug, Serialize)]
pub struct EnsembleReport {
    #[serde(flatten)]
    pub ranking: Ranking,
    /// Against always answering these rows' own base rate, the best constant there is.
    pub brier_skill: Option<f64>,
    /// 95 %, drawing days of one target.
    pub brier_skill_interval: Option<[f64; 2]>,
    #[serde(flatten)]
    pub reliability: Reliability,
    pub calibration_slope: Option<f64>,
    /// The same rows as the stack scored them, before calibration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uncalibrated: Option<Reliability>,
}

impl EnsembleReport {
    /// Without the interval, which needs to know the targets.
    pub fn new(rows: &Rows) -> Self {
        Self {
            ranking: Ranking::new(rows, true),
            brier_skill: rows.brier_skill(),
            brier_skill_interval: None,
            reliability: Reliability::new(rows),
            calibration_slope: rows.calibration_slope(),
            uncalibrated: None,
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct BaselineReport {
    /// `brier` and `log_loss`, and the calibration below, only where the score is a probability.
    #[serde(flatten)]
    pub ranking: Ranking,
    pub brier_skill: Option<f64>,
    pub ece: Option<f64>,
    pub ece_high: Option<f64>,
    pub calibration_slope: Option<f64>,
    pub at_threshold: OperatingPoint,
    pub at_precision_089: OperatingPoint,
    pub at_budget: BTreeMap<String, OperatingPoint>,
    #[serde(skip)]
    pub curves: Curves,
}

#[derive(Clone, Debug, Serialize)]
pub struct OperatingPoint {
    /// `None` when no threshold qualifies; there are no alarms then.
    pub threshold: Option<f64>,
    /// Includes those too close to the end of the slice to be called false.
    pub alarms: u64,
    pub right: u64,
    pub early: u64,
    /// Nothing followed, but somebody acted in time to prevent it.
    pub uncertain: u64,
    pub r#false: u64,
    /// Nothing followed yet, and the slice ends before they could be called false.
    pub undecided: u64,
    pub incidents: u64,
    pub foreseen: u64,
    #[serde(flatten)]
    pub measures: Measures,
    /// Incidents foreseen of each mode; how many there are of it stands in [`Evaluation::by_failure_mode`].
    pub foreseen_by_failure_mode: BTreeMap<String, u64>,
    /// 95 % by bootstrap, under the name of each measure.
    pub intervals: BTreeMap<&'static str, Option<[f64; 2]>>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Measures {
    pub precision: Option<f64>,
    pub recall: Option<f64>,
    pub f1: Option<f64>,
    pub false_alarms_per_target_week: Option<f64>,
    /// Of the whole fleet.
    pub alarms_per_day: Option<f64>,
    /// Share of scored rows within an alarm.
    pub alarm_time_share: Option<f64>,
    pub lead_time_seconds: LeadTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LeadTime {
    pub p10: Option<f64>,
    pub p50: Option<f64>,
    pub p90: Option<f64>,
}

impl LeadTime {
    fn new(mut seconds: Vec<f64>) -> Self {
        seconds.sort_unstable_by(f64::total_cmp);
        Self {
            p10: quantile(&seconds, 0.1),
            p50: quantile(&seconds, 0.5),
            p90: quantile(&seconds, 0.9),
        }
    }
}

impl Measures {
    /// `days` is the length of the evaluated span.
    pub fn new(tally: &Tally, lead_seconds: Vec<f64>, step: Duration, days: f64) -> Self {
        let (precision, recall) = (tally.precision(), tally.recall());
        let f1 = precision
            .zip(recall)
            .and_then(|(p, r)| (p + r > 0.0).then(|| 2.0 * p * r / (p + r)));
        Self {
            precision,
            recall,
            f1,
            false_alarms_per_target_week: tally.false_alarms_per_target_week(step),
            alarms_per_day: (days > 0.0).then(|| tally.alarms() as f64 / days),
            alarm_time_share: super::events::ratio(tally.rows_in_alarm, tally.rows),
            lead_time_seconds: LeadTime::new(lead_seconds),
        }
    }

    fn named(&self) -> [(&'static str, Option<f64>); 9] {
        [
            ("precision", self.precision),
            ("recall", self.recall),
            ("f1", self.f1),
            (
                "false_alarms_per_target_week",
                self.false_alarms_per_target_week,
            ),
            ("alarms_per_day", self.alarms_per_day),
            ("alarm_time_share", self.alarm_time_share),
            ("lead_time_seconds.p10", self.lead_time_seconds.p10),
            ("lead_time_seconds.p50", self.lead_time_seconds.p50),
            ("lead_time_seconds.p90", self.lead_time_seconds.p90),
        ]
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TargetReport {
    pub rows: u64,
    pub alarms: u64,
    pub right: u64,
    pub early: u64,
    pub uncertain: u64,
    pub r#false: u64,
    pub incidents: u64,
    pub foreseen: u64,
}

/// Of the incidents of one failure mode.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModeReport {
    pub incidents: u64,
    pub foreseen: u64,
    pub recall: Option<f64>,
    /// Alarms that one of them made right.
    pub right: u64,
    /// Alarms that one of them made early.
    pub early: u64,
    pub lead_time_seconds: LeadTime,
}

/// Evaluates a slice that nothing was fitted on.
pub fn evaluate(input: &Input) -> Evaluation {
    let tracks = input.tracks;
    let times = || {
        tracks
            .iter()
            .flat_map(|track| track.times.first().into_iter().chain(track.times.last()))
    };
    let start = times().min().copied().unwrap_or(Timestamp(0));
    let end = times().max().copied().unwrap_or(start);
    let judge = Judge {
        rule: AlarmRule::new(f64::INFINITY, input.for_, input.rules),
        modes: input.modes,
        days: (end.plus(input.rules.step).0 - start.0) as f64 / DAY_MS as f64,
        seed: input.seed,
    };

    let scored = Scored::own(tracks);
    let rows = labelled(&scored);
    let curve = Curve::new(&scored, &judge.rule);
    let members: BTreeMap<String, Ranking> = input
        .members
        .iter()
        .map(|(name, scores)| {
            (
                name.to_string(),
                Ranking::new(&labelled(&Scored::with(tracks, scores)), true),
            )
        })
        .collect();
    let best_member = members
        .iter()
        .filter_map(|(name, ranking)| Some((name, ranking.roc_auc?)))
        .reduce(|best, one| if one.1 > best.1 { one } else { best })
        .map(|(name, _)| name.clone());
    let at_threshold = judge.at(&scored, input.threshold);
    let measured = |rules: &[Baseline]| -> BTreeMap<String, BaselineReport> {
        rules
            .iter()
            .map(|one| judge.baseline(tracks, one, input.budget))
            .collect()
    };
    let mut compared = measured(input.compared);
    let oracle = compared.remove(ORACLE);

    Evaluation {
        horizon_seconds: input.rules.horizon.as_secs_f64(),
        start: start.as_secs_f64(),
        end: end.as_secs_f64(),
        targets: tracks.len() as u64,
        rows: rows.len() as u64,
        incidents: at_threshold.incidents,
        base_rate: rows.base_rate(),
        best_member,
        members,
        ensemble: EnsembleReport {
            brier_skill_interval: brier_skill_interval(&scored, input.seed),
            ..EnsembleReport::new(&rows)
        },
        at_threshold,
        at_precision_089: judge.at(&scored, curve.with_precision(PRECISION)),
        at_budget: judge.at_budgets(&scored, &curve),
        baselines: measured(input.baselines),
        compared,
        oracle,
        by_target: judge.by_target(&scored, input.threshold),
        by_failure_mode: judge.by_mode(&scored, input.threshold),
        drawing: Drawing::new(
            &scored,
            &judge
                .rule
                .with_threshold(input.threshold.unwrap_or(f64::INFINITY)),
            judge.curves(&rows, &curve),
            scored
                .iter()
                .flat_map(known)
                .map(|(_, score, label)| (score, label)),
        ),
    }
}

struct Judge<'a> {
    rule: AlarmRule,
    modes: &'a [Vec<String>],
    days: f64,
    seed: u64,
}

impl Judge<'_> {
    fn at(&self, scored: &[Scored], threshold: Option<f64>) -> OperatingPoint {
        // An infinite threshold opens no alarm.
        let parts = Parts::new(
            scored,
            &self.rule.with_threshold(threshold.unwrap_or(f64::INFINITY)),
        );
        let tally = parts.tally();
        let step = self.rule.step();
        let drawn: Vec<_> = parts
            .replicates(step, self.days, self.seed)
            .iter()
            .map(Measures::named)
            .collect();
        let measures = Measures::new(&tally, parts.lead_seconds(), step, self.days);
        let intervals = measures
            .named()
            .iter()
            .enumerate()
            .map(|(i, (name, _))| {
                (
                    *name,
                    interval(drawn.iter().map(|replicate| replicate[i].1)),
                )
            })
            .collect();
        OperatingPoint {
            threshold,
            alarms: tally.alarms(),
            right: tally.right,
            early: tally.early,
            uncertain: tally.uncertain,
            r#false: tally.r#false,
            undecided: tally.undecided,
            incidents: tally.incidents,
            foreseen: tally.foreseen,
            measures,
            foreseen_by_failure_mode: self
                .by_mode(scored, threshold)
                .into_iter()
                .map(|(mode, report)| (mode, report.foreseen))
                .collect(),
            intervals,
        }
    }

    fn at_budgets(&self, scored: &[Scored], curve: &Curve) -> BTreeMap<String, OperatingPoint> {
        let point = |budget: f64| {
            (
                budget.to_string(),
                self.at(scored, curve.within_budget(budget)),
            )
        };
        BUDGETS.into_iter().map(point).collect()
    }

    fn baseline(
        &self,
        tracks: &[Track],
        baseline: &Baseline,
        budget: f64,
    ) -> (String, BaselineReport) {
        let scored = Scored::with(tracks, &baseline.scores);
        let curve = Curve::new(&scored, &self.rule);
        let rows = labelled(&scored);
        let calibrated = |measure: fn(&Rows) -> Option<f64>| {
            baseline.is_probability.then(|| measure(&rows)).flatten()
        };
        let report = BaselineReport {
            ranking: Ranking::new(&rows, baseline.is_probability),
            brier_skill: calibrated(Rows::brier_skill),
            ece: calibrated(Rows::ece),
            ece_high: calibrated(Rows::ece_high),
            calibration_slope: calibrated(Rows::calibration_slope),
            curves: self.curves(&rows, &curve),
            at_threshold: self.at(&scored, curve.within_budget(budget)),
            at_precision_089: self.at(&scored, curve.with_precision(PRECISION)),
            at_budget: self.at_budgets(&scored, &curve),
        };
        (baseline.name.to_string(), report)
    }

    fn curves(&self, rows: &Rows, curve: &Curve) -> Curves {
        Curves::new(rows, curve, self.rule.step(), self.days)
    }

    fn by_mode(&self, scored: &[Scored], threshold: Option<f64>) -> BTreeMap<String, ModeReport> {
        let rule = self.rule.with_threshold(threshold.unwrap_or(f64::INFINITY));
        let mut found: BTreeMap<&str, (Tally, Vec<f64>)> = BTreeMap::new();
        for (one, modes) in scored.iter().zip(self.modes) {
            let incidents = &one.track.incidents;
            let mode_of = |start: Timestamp| {
                let at = incidents.binary_search_by_key(&start, |incident| incident.start);
                modes.get(at.ok()?).map(String::as_str)
            };
            let replay = one.replay(&rule);
            for (start, lead) in &replay.incidents {
                let Some(mode) = mode_of(*start) else {
                    continue;
                };
                let (tally, leads) = found.entry(mode).or_default();
                tally.incidents += 1;
                tally.foreseen += u64::from(lead.is_some());
                leads.extend(lead.map(|lead| lead.as_secs_f64()));
            }
            for (alarm, outcome) in &replay.alarms {
                let by = matches!(outcome, Some(Outcome::Right | Outcome::Early));
                let cause = one.cause(alarm).filter(|_| by).and_then(mode_of);
                if let Some(mode) = cause {
                    found.entry(mode).or_default().0.count(*outcome);
                }
            }
        }
        let report = |(mode, (tally, leads)): (&str, (Tally, Vec<f64>))| {
            let report = ModeReport {
                incidents: tally.incidents,
                foreseen: tally.foreseen,
                recall: tally.recall(),
                right: tally.right,
                early: tally.early,
                lead_time_seconds: LeadTime::new(leads),
            };
            (mode.to_string(), report)
        };
        found.into_iter().map(report).collect()
    }

    fn by_target(
        &self,
        scored: &[Scored],
        threshold: Option<f64>,
    ) -> BTreeMap<String, TargetReport> {
        let rule = self.rule.with_threshold(threshold.unwrap_or(f64::INFINITY));
        let report = |one: &Scored| {
            let found = tally(std::slice::from_ref(one), &rule);
            let report = TargetReport {
                rows: found.rows,
                alarms: found.alarms(),
                right: found.right,
                early: found.early,
                uncertain: found.uncertain,
                r#false: found.r#false,
                incidents: found.incidents,
                foreseen: found.foreseen,
            };
            (one.track.target.to_string(), report)
        };
        scored.iter().map(report).collect()
    }
}

impl Ranking {
    /// Of probabilities and what came.
    pub fn of(probabilities: &[f64], labels: &[bool]) -> Self {
        Self::new(
            &Rows::new(
                probabilities
                    .iter()
                    .zip(labels)
                    .map(|(p, label)| (*p, *label, 1.0)),
            ),
            true,
        )
    }

    fn new(rows: &Rows, is_probability: bool) -> Self {
        Self {
            roc_auc: rows.roc_auc(),
            average_precision: rows.average_precision(),
            brier: rows.brier().filter(|_| is_probability),
            log_loss: rows.log_loss().filter(|_| is_probability),
        }
    }
}

/// (row's time, score, label) of the rows that have both a score and a known label.
fn known<'a>(one: &'a Scored) -> impl Iterator<Item = (Timestamp, f64, bool)> + 'a {
    let rows = one
        .track
        .times
        .iter()
        .zip(one.scores)
        .zip(&one.track.labels);
    rows.filter_map(|((t, score), label)| {
        let label = match label {
            RowLabel::Positive => true,
            RowLabel::Negative => false,
            RowLabel::Uncertain | RowLabel::Excluded | RowLabel::Censored => return None,
        };
        Some((*t, f64::from((*score)?), label))
    })
}

fn labelled(scored: &[Scored]) -> Rows {
    Rows::new(
        scored
            .iter()
            .flat_map(known)
            .map(|(_, score, label)| (score, label, 1.0)),
    )
}

fn brier_skill_interval(scored: &[Scored], seed: u64) -> Option<[f64; 2]> {
    // Rows, positives and squared errors of each day of a target.
    let mut days: Vec<[f64; 3]> = Vec::new();
    for one in scored {
        let mut newest = None;
        for (t, score, label) in known(one) {
            let day = t.0.div_euclid(DAY_MS);
            if newest.replace(day) != Some(day) {
                days.push([0.0; 3]);
            }
            let outcome = f64::from(u8::from(label));
            if let Some(sums) = days.last_mut() {
                sums[0] += 1.0;
                sums[1] += outcome;
                sums[2] += (score - outcome).powi(2);
            }
        }
    }
    interval(replicates(seed, |rng| {
        let [rows, positives, errors] = draw(rng, &days).fold([0.0; 3], |sum: [f64; 3], day| {
            std::array::from_fn(|i| sum[i] + day[i])
        });
        brier_skill(errors / rows, positives / rows)
    }))
}

impl Evaluation {
    /// Everything that stands beside the model: baselines, then what was compared, then the oracle.
    fn others(&self) -> impl Iterator<Item = (&str, &BaselineReport)> {
        let oracle = self.oracle.iter().map(|one| (ORACLE, one));
        self.baselines
            .iter()
            .chain(&self.compared)
            .map(|(name, one)| (name.as_str(), one))
            .chain(oracle)
    }

    /// In words and columns, on so many places.
    pub fn table(&self, width: Option<usize>) -> String {
        let mut out = String::new();
        self.write_table(&mut out, width).unwrap_or_default();
        out
    }

    fn write_table(&self, out: &mut String, width: Option<usize>) -> std::fmt::Result {
        let at = Timestamp::from_secs_f64;
        writeln!(
            out,
            "{} to {}: {} targets, {} rows, {} incidents; {} of the rows are followed by one within {}",
            at(self.start),
            at(self.end),
            self.targets,
            self.rows,
            self.incidents,
            percent(self.base_rate),
            format_duration(Duration::from_secs_f64(self.horizon_seconds)),
        )?;
        if self.incidents < FEW_INCIDENTS {
            writeln!(
                out,
                "Fewer than {FEW_INCIDENTS} incidents: these figures can be off by a lot; see the intervals."
            )?;
        }

        let mut rows = Table::new(&["<rows", ">ROC AUC", ">AP", ">Brier", ">log loss"]);
        let rankings = std::iter::once(("ensemble", &self.ensemble.ranking))
            .chain(self.members.iter().map(|(name, one)| (name.as_str(), one)))
            .chain(self.others().map(|(name, one)| (name, &one.ranking)));
        for (name, one) in rankings {
            rows.row([
                name.to_owned(),
                number(one.roc_auc, 3),
                number(one.average_precision, 3),
                number(one.brier, 4),
                number(one.log_loss, 4),
            ]);
        }
        write!(out, "\n{}", rows.render(width))?;
        if let Some(best) = &self.best_member {
            writeln!(out, "best member by ROC AUC: {best}")?;
        }
        writeln!(
            out,
            "calibration: error {}, among high scores {}, slope {}, Brier skill {} {}",
            number(self.ensemble.reliability.ece, 4),
            number(self.ensemble.reliability.ece_high, 4),
            number(self.ensemble.calibration_slope, 2),
            number(self.ensemble.brier_skill, 3),
            range(self.ensemble.brier_skill_interval, |x| format!("{x:.3}")),
        )?;
        write!(out, "\n{}", self.alarms().render(width))?;
        if self.by_failure_mode.len() > 1 {
            write!(out, "\n{}", self.failure_modes().render(width))?;
        }
        Ok(())
    }

    fn alarms(&self) -> Table {
        let mut table = Table::new(&[
            "<alarms",
            ">threshold",
            ">alarms",
            ">right",
            ">early",
            ">false",
            ">precision",
            ">foreseen",
            ">recall",
            ">false/tgt-wk",
            ">per day",
            ">in alarm",
            ">lead",
        ]);
        point(&mut table, "ensemble, chosen threshold", &self.at_threshold);
        table.across(format!(
            "  95 %: precision {}, recall {}, median lead {}",
            interval_of(&self.at_threshold, "precision", |x| percent(Some(x))),
            interval_of(&self.at_threshold, "recall", |x| percent(Some(x))),
            interval_of(&self.at_threshold, "lead_time_seconds.p50", |x| lead(Some(
                x
            ))),
        ));
        if self.at_threshold.uncertain > 0 {
            table.across(format!(
                "  {} of these alarms count neither way: somebody acted within the horizon, and nothing failed",
                self.at_threshold.uncertain
            ));
        }
        if self.at_threshold.undecided > 0 {
            table.across(format!(
                "  {} of these alarms were not decided yet when the data ended: only two horizons after its opening is an alarm false",
                self.at_threshold.undecided
            ));
        }
        point(
            &mut table,
            "ensemble, precision 0.89",
            &self.at_precision_089,
        );
        if let Some(oracle) = &self.oracle {
            point(
                &mut table,
                "oracle, precision 0.89",
                &oracle.at_precision_089,
            );
        }
        for (budget, at) in &self.at_budget {
            table.across(format!("at most {budget} false alarms per target-week"));
            point(&mut table, "  ensemble", at);
            for (name, one) in self.others() {
                if let Some(at) = one.at_budget.get(budget) {
                    point(&mut table, &format!("  {name}"), at);
                }
            }
        }
        if self
            .others()
            .any(|(_, one)| one.at_budget.values().any(has_rest))
        {
            table.across(
                "alarms that are not right, early or false were not decided yet, or somebody acted",
            );
        }
        table
    }

    fn failure_modes(&self) -> Table {
        let mut table = Table::new(&[
            "<failure modes, chosen threshold",
            ">foreseen",
            ">recall",
            ">right",
            ">early",
            ">lead",
        ]);
        for (mode, one) in &self.by_failure_mode {
            table.row([
                mode.clone(),
                format!("{}/{}", one.foreseen, one.incidents),
                percent(one.recall),
                one.right.to_string(),
                one.early.to_string(),
                lead(one.lead_time_seconds.p50),
            ]);
        }
        table
    }
}

fn has_rest(at: &OperatingPoint) -> bool {
    at.undecided + at.uncertain > 0
}

fn point(table: &mut Table, name: &str, at: &OperatingPoint) {
    if at.threshold.is_none() {
        return table.row([name, "none fits"]);
    }
    let measures = &at.measures;
    table.row([
        name.to_owned(),
        number(at.threshold, 4),
        at.alarms.to_string(),
        at.right.to_string(),
        at.early.to_string(),
        at.r#false.to_string(),
        percent(measures.precision),
        format!("{}/{}", at.foreseen, at.incidents),
        percent(measures.recall),
        number(measures.false_alarms_per_target_week, 3),
        number(measures.alarms_per_day, 2),
        percent(measures.alarm_time_share),
        lead(measures.lead_time_seconds.p50),
    ]);
}

fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.decimals$}"))
}

fn percent(ratio: Option<f64>) -> String {
    ratio.map_or_else(
        || "-".into(),
        |ratio| format!("{}%", table::percent(ratio, 1)),
    )
}

fn lead(seconds: Option<f64>) -> String {
    seconds.map_or_else(
        || "-".into(),
        |s| format_duration(Duration::from_secs_f64(s.max(0.0).round())),
    )
}

fn interval_of(at: &OperatingPoint, name: &str, show: impl Fn(f64) -> String) -> String {
    range(at.intervals.get(name).copied().flatten(), show)
}

fn range(interval: Option<[f64; 2]>, show: impl Fn(f64) -> String) -> String {
    interval.map_or_else(
        || "-".into(),
        |[low, high]| format!("[{}, {}]", show(low), show(high)),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::evaluation::baselines::compared;
    use crate::types::{Incident, TargetId};

    fn rules() -> FailureRules {
        FailureRules {
            step: Duration::from_secs(60),
            min_duration: Duration::ZERO,
            merge_gap: Duration::ZERO,
            recovery: Duration::ZERO,
            horizon: Duration::from_secs(1800),
        }
    }

    /// A week; an incident at noon of each day, with a risen score for 20 minutes before it.
    fn track(name: &str, incidents: i64) -> Track {
        let noon = |day| Timestamp::from_secs(day * 86_400 + 43_200);
        let minute_of_day = |m: i64| m % 1440;
        let before = |m: i64, minutes| {
            m / 1440 < incidents && (1..=minutes).contains(&(720 - minute_of_day(m)))
        };
        let label = |m| {
            if before(m, 30) {
                RowLabel::Positive
            } else {
                RowLabel::Negative
            }
        };
        Track {
            target: TargetId::new(name),
            times: (0..7 * 1440)
                .map(|m| Timestamp::from_secs(m * 60))
                .collect(),
            scores: (0..7 * 1440)
                .map(|m| Some(if before(m, 20) { 0.9 } else { 0.01 }))
                .collect(),
            labels: (0..7 * 1440).map(label).collect(),
            actions: Vec::new(),
            incidents: (0..incidents)
                .map(|day| Incident {
                    start: noon(day),
                    end: None,
                })
                .collect(),
        }
    }

    fn report(tracks: &[Track]) -> Evaluation {
        let flat = |score| -> Scores {
            tracks
                .iter()
                .map(|t| vec![Some(score); t.times.len()])
                .collect()
        };
        let own: Scores = tracks.iter().map(|t| t.scores.clone()).collect();
        evaluate(&Input {
            tracks,
            modes: &tracks
                .iter()
                .map(|track| {
                    let modes = ["leak", "disk"].into_iter().cycle();
                    let modes = modes.take(track.incidents.len());
                    modes.map(String::from).collect()
                })
                .collect::<Vec<_>>(),
            members: &[("logistic_regression", flat(0.5)), ("xgboost", own)],
            baselines: &[Baseline {
                name: "prior",
                is_probability: false,
                scores: flat(0.02),
            }],
            compared: &[
                compared("our_rule", tracks, |_, _| f32::NAN),
                compared("oracle", tracks, |target, t| {
                    let track = tracks.iter().find(|one| one.target == *target);
                    let row = track.and_then(|one| one.times.iter().position(|at| *at == t));
                    let score = track.zip(row).and_then(|(one, row)| one.scores[row]);
                    score.unwrap_or(f32::NAN)
                }),
            ],
            rules: &rules(),
            for_: Duration::from_secs(300),
            threshold: Some(0.5),
            budget: 1.0,
            seed: 1,
        })
    }

    #[test]
    fn the_report_counts_ranks_and_names_the_best_member() {
        let report = report(&[track("a", 7), track("b", 0)]);
        let json = serde_json::to_value(&report).unwrap();
        for (pointer, expected) in [
            ("/horizon_seconds", 1800.0),
            ("/targets", 2.0),
            ("/rows", 20_160.0),
            ("/base_rate", 210.0 / 20_160.0),
            ("/at_threshold/alarms", 7.0),
            ("/at_threshold/right", 7.0),
            ("/at_threshold/false", 0.0),
            ("/at_threshold/recall", 1.0),
            ("/at_threshold/f1", 1.0),
            ("/at_threshold/alarms_per_day", 1.0),
            // Twenty minutes less the rule's five.
            ("/at_threshold/lead_time_seconds/p50", 900.0),
            ("/at_threshold/alarm_time_share", 210.0 / 20_160.0),
            ("/at_budget/0.01/right", 7.0),
            ("/members/logistic_regression/roc_auc", 0.5),
            ("/by_target/b/rows", 10_080.0),
            ("/by_target/a/foreseen", 7.0),
            ("/baselines/prior/at_budget/7/foreseen", 0.0),
            ("/baselines/prior/average_precision", 210.0 / 20_160.0),
            ("/by_failure_mode/leak/incidents", 4.0),
            ("/by_failure_mode/disk/foreseen", 3.0),
            ("/by_failure_mode/disk/right", 3.0),
            ("/by_failure_mode/disk/lead_time_seconds/p90", 900.0),
            ("/at_budget/7/foreseen_by_failure_mode/leak", 4.0),
            (
                "/baselines/prior/at_budget/7/foreseen_by_failure_mode/leak",
                0.0,
            ),
            // What claims nothing has no order, and pages nobody.
            ("/compared/our_rule/roc_auc", 0.5),
            ("/compared/our_rule/at_budget/7/alarms", 0.0),
            ("/oracle/at_precision_089/foreseen", 7.0),
        ] {
            let found = json.pointer(pointer).and_then(Value::as_f64);
            assert!(
                found.is_some_and(|f| (f - expected).abs() < 1e-9),
                "{pointer}: {found:?}"
            );
        }
        assert_eq!(json["best_member"], "xgboost");
        for same in ["roc_auc", "brier", "ece", "calibration_slope", "at_budget"] {
            let ensemble = json["ensemble"].get(same).unwrap_or(&json[same]);
            assert_eq!(&json["oracle"][same], ensemble, "{same}");
        }
        assert!(json["compared"].get("oracle").is_none());
        for undefined in [
            "/baselines/prior/brier",
            "/compared/our_rule/brier",
            "/compared/our_rule/ece",
            "/baselines/prior/at_threshold/threshold",
            "/baselines/prior/at_budget/1/precision",
        ] {
            assert_eq!(json.pointer(undefined), Some(&Value::Null), "{undefined}");
        }
        assert!(json.pointer("/at_threshold/intervals/recall/1").is_some());
        assert_eq!(
            report.table(None).matches("none fits").count(),
            8,
            "{}",
            report.table(None)
        );
        assert!(report.table(None).contains("Fewer than 10 incidents"));
    }

    #[test]
    fn nothing_to_evaluate_is_a_report_of_nothing() {
        for tracks in [vec![], vec![track("b", 0)]] {
            let report = report(&tracks);
            assert_eq!(report.at_threshold.measures.precision, None);
            assert_eq!(report.at_threshold.measures.recall, None);
            assert_eq!(
                (report.ensemble.ranking.roc_auc, &report.best_member),
                (None, &None)
            );
            assert!(
                !report.table(None).contains("NaN"),
                "{}",
                report.table(None)
            );
            assert!(serde_json::to_string(&report).is_ok());
        }
    }
}
