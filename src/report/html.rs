//! The document: sections in the order in which a reader asks.

use std::collections::BTreeMap;
use std::fmt::{Result, Write};

use super::plot::{Axis, Plot};
use super::review::{CASES, Case, HORIZONS_BEFORE};
use super::words::{
    best_baseline, counted, duration, headline, interval, number, others, percent, rate, rule,
    whole,
};
use super::{Fitting, Kind, Subject, escaped};
use crate::evaluation::EnsembleReport;
use crate::evaluation::baselines::ORACLE;
use crate::evaluation::curves::{Curves, HISTOGRAM_BINS, Reliability};
use crate::evaluation::ranking::ReliabilityBin;
use crate::evaluation::report::{BaselineReport, OperatingPoint, Ranking, TargetReport};
use crate::time::{Timestamp, format_duration, format_moment};

const STYLE: &str = include_str!("style.css");
/// Half of the page's width.
const CHART: (f64, f64) = (470.0, 300.0);
const PANEL: (f64, f64) = (470.0, 96.0);
/// The last panel of a case has room for the ticks of all.
const LAST_PANEL: (f64, f64) = (470.0, 128.0);
/// Features listed.
const FEATURES: usize = 20;
/// Targets listed.
const TARGETS: usize = 200;

const SECTIONS: [(&str, &str); 9] = [
    ("alarms", "Alarms and incidents"),
    (MODES, "Failure modes"),
    ("ranking", "Ranking"),
    ("calibration", "Calibration"),
    ("importance", "What it looks at"),
    ("cases", "Where it was wrong"),
    ("targets", "Targets"),
    ("data", "Data and labels"),
    ("reproduce", "How to reproduce"),
];

/// Left out where there is only one.
const MODES: &str = "modes";

/// The whole document.
pub fn render(subject: &Subject) -> String {
    let mut out = String::new();
    Page {
        out: &mut out,
        subject,
    }
    .write()
    .unwrap_or_default();
    out
}

struct Page<'a> {
    out: &'a mut String,
    subject: &'a Subject<'a>,
}

impl Page<'_> {
    fn write(&mut self) -> Result {
        self.head()?;
        self.alarms()?;
        self.modes()?;
        self.ranking()?;
        self.calibration()?;
        self.importance()?;
        self.cases()?;
        self.targets()?;
        self.data()?;
        self.reproduce()?;
        writeln!(self.out, "</main>\n</body>\n</html>")
    }

    fn head(&mut self) -> Result {
        let subject = self.subject;
        let (manifest, evaluation) = (subject.manifest, subject.evaluation);
        let id = escaped(&manifest.id);
        let kind = match subject.kind {
            Kind::Training => "training report",
            Kind::Backtest { .. } => "backtest report",
        };
        writeln!(
            self.out,
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{id}: {kind}</title>\n<link rel=\"icon\" href=\"data:,\">\n<style>\n{STYLE}</style>\n</head>\n<body>\n<header>"
        )?;
        writeln!(
            self.out,
            "<p class=\"eyebrow\">forewarn · {kind}</p>\n<h1>{id}</h1>"
        )?;
        let what = match subject.kind {
            Kind::Training => {
                "Judged on the last slice of its range, which neither fitting nor calibration nor the threshold has seen"
            }
            Kind::Backtest { .. } => "Judged on a replay of recorded history",
        };
        writeln!(
            self.out,
            "<p class=\"dim\">How probable is it that a target fails within the next {}? {what}: {} to {}, {}, {}.</p>",
            format_duration(manifest.horizon()),
            format_moment(Timestamp::from_secs_f64(evaluation.start)),
            format_moment(Timestamp::from_secs_f64(evaluation.end)),
            counted(evaluation.targets, "target", "targets"),
            counted(evaluation.rows, "row", "rows"),
        )?;
        let headline = headline(subject);
        writeln!(
            self.out,
            "<p class=\"headline\">{}</p>",
            escaped(&headline.sentence)
        )?;
        if let Some(oracle) = &headline.oracle {
            writeln!(self.out, "<p>{}</p>", escaped(oracle))?;
        }
        if !headline.cautions.is_empty() {
            writeln!(self.out, "<ul class=\"notes\">")?;
            for caution in &headline.cautions {
                writeln!(self.out, "<li>{}</li>", escaped(caution))?;
            }
            writeln!(self.out, "</ul>")?;
        }
        self.tiles()?;
        write!(self.out, "<nav aria-label=\"Sections\">")?;
        for (anchor, name) in SECTIONS {
            if anchor == MODES && !self.has_modes() {
                continue;
            }
            write!(self.out, "<a href=\"#{anchor}\">{name}</a>")?;
        }
        writeln!(self.out, "</nav>\n</header>\n<main>")
    }

    fn tiles(&mut self) -> Result {
        let evaluation = self.subject.evaluation;
        let at = &evaluation.at_threshold;
        let bounds = |measure: &str, show: &dyn Fn(f64) -> String| {
            interval(at, measure).map_or_else(String::new, |[low, high]| {
                format!(" ({} to {})", show(low), show(high))
            })
        };
        let as_percent = |ratio: f64| percent(Some(ratio), 0);
        let tiles = [
            (
                format!("{} of {}", at.foreseen, at.incidents),
                format!("incidents foreseen{}", bounds("recall", &as_percent)),
            ),
            (
                percent(at.measures.precision, 0),
                format!(
                    "of decided alarms right{}",
                    bounds("precision", &as_percent)
                ),
            ),
            (
                duration(at.measures.lead_time_seconds.p50),
                format!(
                    "median lead time{}",
                    bounds("lead_time_seconds.p50", &|seconds| duration(Some(seconds)))
                ),
            ),
            (
                rate(at.measures.alarms_per_day),
                "alarms a day to expect, whole fleet".to_string(),
            ),
            (
                rate(at.measures.false_alarms_per_target_week),
                format!(
                    "false alarms per target-week; budget {}",
                    rate(Some(
                        self.subject.manifest.threshold.false_alarms_per_target_week
                    ))
                ),
            ),
            (
                number(evaluation.ensemble.ranking.average_precision, 3),
                format!(
                    "average precision; base rate {}",
                    percent(evaluation.base_rate, 2)
                ),
            ),
            (
                number(evaluation.ensemble.ranking.roc_auc, 3),
                "ROC AUC".to_string(),
            ),
            (
                number(evaluation.ensemble.reliability.ece, 4),
                "calibration error (ECE)".to_string(),
            ),
        ];
        writeln!(self.out, "<div class=\"tiles\">")?;
        for (figure, words) in tiles {
            writeln!(
                self.out,
                "<div class=\"tile\"><b>{}</b><span>{}</span></div>",
                escaped(&figure),
                // A percent sign stays with its number.
                escaped(&words).replace(" %", "\u{a0}%")
            )?;
        }
        writeln!(self.out, "</div>")
    }

    fn section(&mut self, anchor: &str) -> Result {
        let name = SECTIONS
            .iter()
            .find(|(section, _)| *section == anchor)
            .map_or(anchor, |(_, name)| name);
        writeln!(self.out, "<h2 id=\"{anchor}\">{name}</h2>")
    }

    fn alarms(&mut self) -> Result {
        self.section("alarms")?;
        let evaluation = self.subject.evaluation;
        let at = &evaluation.at_threshold;
        writeln!(
            self.out,
            "<p>An alarm is one page to a person: it opens when the probability has stayed at or above the threshold for as long as the alert rule asks, and covers the next {}. It is <em>right</em> when an incident starts in that time, <em>early</em> when one starts in the same time after it, else <em>false</em>. {}</p>",
            format_duration(self.subject.manifest.horizon()),
            match at.threshold {
                Some(threshold) => format!(
                    "The threshold is a probability of {}.",
                    percent(Some(threshold), 1)
                ),
                None => "There is no threshold within the budget.".into(),
            }
        )?;
        writeln!(self.out, "<div class=\"charts\">")?;
        self.budget_chart()?;
        self.lead_chart()?;
        self.volume_chart()?;
        self.hit_chart()?;
        writeln!(self.out, "</div>")?;
        self.points_table()
    }

    /// The ensemble and what stands beside it, each with its class.
    fn scores(&self) -> Vec<(String, &'static str, &Ranking, &Curves)> {
        const CLASSES: [&str; 7] = ["c1", "c2", "c3", "c4", "c5", "c6", "c7"];
        let evaluation = self.subject.evaluation;
        let mut scores = vec![(
            "ensemble".to_string(),
            "c0",
            &evaluation.ensemble.ranking,
            &evaluation.drawing.curves,
        )];
        let mut others = others(evaluation);
        // The best ones get the most distinct styles; the oracle stands last, with its own.
        let place = |(name, one): &(String, &BaselineReport)| {
            let precision = one.ranking.average_precision.unwrap_or(0.0);
            (name == ORACLE, -precision)
        };
        others.sort_by(|a, b| {
            let (left, right) = (place(a), place(b));
            (left.0.cmp(&right.0))
                .then(left.1.total_cmp(&right.1))
                .then_with(|| a.0.cmp(&b.0))
        });
        for ((name, one), class) in others.into_iter().zip(CLASSES.into_iter().cycle()) {
            let class = if name == ORACLE { ORACLE } else { class };
            scores.push((name, class, &one.ranking, &one.curves));
        }
        scores
    }

    fn budget_chart(&mut self) -> Result {
        let scores = self.scores();
        // An alarm per horizon without a break.
        let most = 7.0 * 86_400.0 / self.subject.manifest.horizon_seconds;
        let budget = self.subject.manifest.threshold.false_alarms_per_target_week;
        let low = budget.clamp(1e-4, 0.1) / 10.0;
        let mut plot = Plot::new(
            "Incidents foreseen against false alarms",
            "Share of the incidents that are foreseen, for each rate of false alarms, of the ensemble and of what stands beside it.",
            CHART,
            Axis::log("false alarms per target-week", low, most),
            Axis::share("incidents foreseen"),
        );
        let mut legend = Vec::new();
        for (_, class, _, curves) in scores.iter().rev() {
            let points = curves.alarms.iter().map(|point| {
                [
                    point.false_alarms_per_target_week,
                    point.recall.unwrap_or(f64::NAN),
                ]
            });
            plot.line(points, class);
        }
        plot.vertical(budget, "mark", "budget");
        for (name, class, _, curves) in &scores {
            let within = curves
                .alarms
                .iter()
                .take_while(|point| point.false_alarms_per_target_week <= budget)
                .last();
            let share = within.and_then(|point| point.recall);
            legend.push((class.to_string(), format!("{name} {}", percent(share, 0))));
        }
        self.figure(
            "Incidents foreseen against false alarms",
            &plot.svg(),
            &legend,
            "Beside each name: what it foresees within the budget if its threshold could be chosen in hindsight. Up and left is better; at the left edge there is no false alarm at all.",
        )
    }

    fn lead_chart(&mut self) -> Result {
        const BINS: usize = 10;
        let evaluation = self.subject.evaluation;
        let horizon = self.subject.manifest.horizon_seconds;
        let leads = &evaluation.drawing.lead_seconds;
        let mut counts = [0_u64; BINS];
        for lead in leads {
            let bin = (lead / horizon * BINS as f64).ceil() as usize;
            counts[bin.clamp(1, BINS) - 1] += 1;
        }
        let most = counts.iter().copied().max().unwrap_or(0).max(1);
        let mut plot = Plot::new(
            "Lead time",
            "How long before their start the foreseen incidents were announced.",
            CHART,
            Axis::around("before the incident", -horizon, 0.0),
            // With room for the label above the bars.
            Axis::linear("incidents", 0.0, most as f64 * 1.15, most.min(5) as usize),
        );
        for (bin, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let width = horizon / BINS as f64;
            plot.bar(
                -((bin + 1) as f64) * width,
                -(bin as f64) * width,
                *count as f64,
                "c0",
            );
        }
        let lead = &evaluation.at_threshold.measures.lead_time_seconds;
        if let Some(median) = lead.p50 {
            plot.vertical(-median, "mark", "median");
        }
        let missed = evaluation.at_threshold.incidents - evaluation.at_threshold.foreseen;
        let words = if leads.is_empty() {
            "No incident was foreseen.".to_string()
        } else {
            format!(
                "Of {} nine in ten were announced at least {} before, half at least {}, one in ten at least {}; {missed} were not announced.",
                counted(
                    leads.len() as u64,
                    "foreseen incident",
                    "foreseen incidents"
                ),
                duration(lead.p10),
                duration(lead.p50),
                duration(lead.p90),
            )
        };
        self.figure("Lead time", &plot.svg(), &[], &words)
    }

    fn probability_axis(&self) -> Axis {
        let lowest = self
            .subject
            .evaluation
            .drawing
            .curves
            .alarms
            .iter()
            .map(|point| point.threshold)
            .fold(0.05, f64::min);
        Axis::probability("threshold", lowest.max(0.001))
    }

    fn volume_chart(&mut self) -> Result {
        let evaluation = self.subject.evaluation;
        let points = &evaluation.drawing.curves.alarms;
        let most = points
            .iter()
            .map(|point| point.alarms_per_week)
            .fold(1.0, f64::max);
        let budget = self.subject.manifest.threshold.false_alarms_per_target_week
            * evaluation.targets as f64;
        let mut plot = Plot::new(
            "Alarms per week against the threshold",
            "Alarms and false alarms of the whole fleet per week, for each threshold.",
            CHART,
            self.probability_axis(),
            Axis::log(
                "per week, whole fleet",
                (budget / 10.0).clamp(0.01, 1.0),
                most,
            ),
        );
        plot.line(
            points.iter().map(|p| [p.threshold, p.alarms_per_week]),
            "c0",
        );
        plot.line(
            points
                .iter()
                .map(|p| [p.threshold, p.false_alarms_per_week]),
            "c1",
        );
        plot.horizontal(budget, "even", "budget of false alarms");
        if let Some(threshold) = evaluation.at_threshold.threshold {
            plot.vertical(threshold, "mark", "chosen");
        }
        let per_week = |per_day: Option<f64>| per_day.map(|per_day| 7.0 * per_day);
        let measures = &evaluation.at_threshold.measures;
        let words = format!(
            "At the chosen threshold: {} alarms a week, {} a day. The threshold was chosen on earlier data; this curve is what came of it.",
            rate(per_week(measures.alarms_per_day)),
            rate(measures.alarms_per_day),
        );
        self.figure(
            "Alarms per week against the threshold",
            &plot.svg(),
            &[
                ("c0".into(), "alarms".into()),
                ("c1".into(), "false alarms".into()),
            ],
            &words,
        )
    }

    fn hit_chart(&mut self) -> Result {
        let evaluation = self.subject.evaluation;
        let points = &evaluation.drawing.curves.alarms;
        let mut plot = Plot::new(
            "Precision and recall against the threshold",
            "Share of decided alarms that are right and share of incidents that are foreseen, for each threshold.",
            CHART,
            self.probability_axis(),
            Axis::share("share"),
        );
        let known = |value: Option<f64>| value.unwrap_or(f64::NAN);
        plot.line(points.iter().map(|p| [p.threshold, known(p.recall)]), "c0");
        plot.line(
            points.iter().map(|p| [p.threshold, known(p.precision)]),
            "c1",
        );
        if let Some(threshold) = evaluation.at_threshold.threshold {
            plot.vertical(threshold, "mark", "chosen");
        }
        let precise = &evaluation.at_precision_089;
        let words = match precise.threshold {
            Some(threshold) => format!(
                "A precision of 0.89 is reached from a threshold of {}, which foresees {} of {}.",
                percent(Some(threshold), 1),
                precise.foreseen,
                counted(precise.incidents, "incident", "incidents"),
            ),
            None => "No threshold reaches a precision of 0.89.".into(),
        };
        self.figure(
            "Precision and recall against the threshold",
            &plot.svg(),
            &[
                ("c0".into(), "incidents foreseen".into()),
                ("c1".into(), "alarms right".into()),
            ],
            &words,
        )
    }

    fn points_table(&mut self) -> Result {
        let evaluation = self.subject.evaluation;
        writeln!(
            self.out,
            "<h3>The same as a table</h3>\n<p class=\"dim\">Rules and other scores, and every row but the first, are read off this range's own curve: they are given their best threshold in hindsight; what foresees nothing is left out at the fixed budgets. Undecided are alarms that nothing followed yet and that the data ends too soon to call false.</p>\n<div class=\"scroll\"><table class=\"dense\">\n<thead><tr><th scope=\"col\">at</th><th scope=\"col\">threshold</th><th scope=\"col\">alarms</th><th scope=\"col\">right</th><th scope=\"col\">early</th><th scope=\"col\">false</th><th scope=\"col\">undecided</th><th scope=\"col\">precision</th><th scope=\"col\">foreseen</th><th scope=\"col\">recall</th><th scope=\"col\">false per<br>target-week</th><th scope=\"col\">alarms<br>a day</th><th scope=\"col\">time in<br>alarm</th><th scope=\"col\">median<br>lead</th></tr></thead>\n<tbody>"
        )?;
        self.point(
            "own",
            "ensemble, chosen threshold",
            &evaluation.at_threshold,
        )?;
        self.point(
            "own",
            "ensemble, precision 0.89",
            &evaluation.at_precision_089,
        )?;
        if let Some(oracle) = &evaluation.oracle {
            self.point("", "oracle, precision 0.89", &oracle.at_precision_089)?;
        }
        let others = others(evaluation);
        for (name, one) in &others {
            self.point("", &format!("{name}, same budget"), &one.at_threshold)?;
        }
        for (budget, at) in &evaluation.at_budget {
            self.point("own", &format!("ensemble, at most {budget} false"), at)?;
            for (name, one) in &others {
                if let Some(at) = one.at_budget.get(budget).filter(|at| at.foreseen > 0) {
                    self.point("", name, at)?;
                }
            }
        }
        writeln!(self.out, "</tbody></table></div>")
    }

    fn point(&mut self, class: &str, name: &str, at: &OperatingPoint) -> Result {
        write!(
            self.out,
            "<tr class=\"{class}\"><th scope=\"row\">{}</th>",
            escaped(name)
        )?;
        if at.threshold.is_none() {
            return writeln!(
                self.out,
                "<td>none fits</td>{}</tr>",
                "<td>–</td>".repeat(12)
            );
        }
        let measures = &at.measures;
        for cell in [
            number(at.threshold, 4),
            whole(at.alarms),
            whole(at.right),
            whole(at.early),
            whole(at.r#false),
            whole(at.undecided),
            percent(measures.precision, 1),
            format!("{} of {}", at.foreseen, at.incidents),
            percent(measures.recall, 1),
            number(measures.false_alarms_per_target_week, 3),
            number(measures.alarms_per_day, 2),
            percent(measures.alarm_time_share, 2),
            duration(measures.lead_time_seconds.p50),
        ] {
            write!(self.out, "<td>{cell}</td>")?;
        }
        writeln!(self.out, "</tr>")
    }

    fn has_modes(&self) -> bool {
        self.subject.evaluation.by_failure_mode.len() > 1
    }

    fn modes(&mut self) -> Result {
        if !self.has_modes() {
            return Ok(());
        }
        self.section(MODES)?;
        let evaluation = self.subject.evaluation;
        let best = best_baseline(self.subject).map(|(name, at)| (rule(name), at));
        let oracle = evaluation.oracle.as_ref();
        let beside: Vec<(String, &OperatingPoint)> = best
            .into_iter()
            .chain(oracle.map(|one| (ORACLE.to_string(), &one.at_threshold)))
            .collect();
        let heads: String = beside
            .iter()
            .map(|(name, _)| format!("<th scope=\"col\">foreseen by<br>{}</th>", escaped(name)))
            .collect();
        writeln!(
            self.out,
            "<p>The same incidents by the query or alert that told of them, at the threshold{}.</p>\n<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">mode</th><th scope=\"col\">incidents</th><th scope=\"col\">foreseen</th><th scope=\"col\">recall</th><th scope=\"col\">median lead</th>{heads}</tr></thead>\n<tbody>",
            if beside.is_empty() {
                ""
            } else {
                "; what stands beside it has the same budget of false alarms, its threshold chosen in hindsight"
            }
        )?;
        for (mode, one) in &evaluation.by_failure_mode {
            write!(
                self.out,
                "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td>",
                escaped(mode),
                whole(one.incidents),
                whole(one.foreseen),
                percent(one.recall, 0),
                duration(one.lead_time_seconds.p50),
            )?;
            for (_, at) in &beside {
                let foreseen = at.foreseen_by_failure_mode.get(mode).copied();
                write!(self.out, "<td>{}</td>", whole(foreseen.unwrap_or(0)))?;
            }
            writeln!(self.out, "</tr>")?;
        }
        writeln!(self.out, "</tbody></table></div>")
    }

    fn ranking(&mut self) -> Result {
        self.section("ranking")?;
        let evaluation = self.subject.evaluation;
        writeln!(
            self.out,
            "<p>How well scores order rows, apart from any threshold. {} of the rows are followed by an incident within {}: at such a rate the ROC curve flatters everything, precision and recall do not.</p>\n<div class=\"charts\">",
            percent(evaluation.base_rate, 2),
            format_duration(self.subject.manifest.horizon()),
        )?;
        let scores = self.scores();
        let mut roc = Plot::new(
            "ROC",
            "Share of positive rows against share of negative rows above each score, of the ensemble and of what stands beside it.",
            CHART,
            Axis::share("negatives above the score"),
            Axis::share("positives above the score"),
        );
        let mut precision = Plot::new(
            "Precision and recall of rows",
            "Precision against recall of the rows above each score, of the ensemble and of what stands beside it.",
            CHART,
            Axis::share("recall of rows"),
            Axis::share("precision of rows"),
        );
        roc.line([[0.0, 0.0], [1.0, 1.0]], "even");
        let base = evaluation.base_rate.unwrap_or(f64::NAN);
        precision.line([[0.0, base], [1.0, base]], "even");
        for (_, class, _, curves) in scores.iter().rev() {
            roc.line(curves.roc.iter().copied(), class);
            precision.line(curves.precision_recall.iter().copied(), class);
        }
        let legend = |of: &dyn Fn(&Ranking) -> Option<f64>| -> Vec<(String, String)> {
            scores
                .iter()
                .map(|(name, class, ranking, _)| {
                    (
                        class.to_string(),
                        format!("{name} {}", number(of(ranking), 3)),
                    )
                })
                .collect()
        };
        let areas = legend(&|ranking| ranking.roc_auc);
        let precisions = legend(&|ranking| ranking.average_precision);
        let (roc, precision) = (roc.svg(), precision.svg());
        self.figure(
            "ROC",
            &roc,
            &areas,
            "Beside each name the area under its curve; 0.5 is chance.",
        )?;
        self.figure(
            "Precision and recall of rows",
            &precision,
            &precisions,
            "Beside each name its average precision; chance is the base rate.",
        )?;
        writeln!(
            self.out,
            "</div>\n<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">score</th><th scope=\"col\">ROC AUC</th><th scope=\"col\">average precision</th><th scope=\"col\">Brier</th><th scope=\"col\">log loss</th></tr></thead>\n<tbody>"
        )?;
        self.ranked("own", "ensemble", &evaluation.ensemble.ranking)?;
        for (name, ranking) in &evaluation.members {
            let best = evaluation.best_member.as_ref() == Some(name);
            let note = if best {
                " (best member by ROC AUC)"
            } else {
                ""
            };
            self.ranked("", &format!("{name}{note}"), ranking)?;
        }
        if let Some(Fitting { snapshot, .. }) = self.subject.fitting {
            self.ranked("", "ensemble for bodies without history", &snapshot.ranking)?;
        }
        for (name, one) in others(evaluation) {
            self.ranked("", &name, &one.ranking)?;
        }
        writeln!(self.out, "</tbody></table></div>")
    }

    fn ranked(&mut self, class: &str, name: &str, ranking: &Ranking) -> Result {
        writeln!(
            self.out,
            "<tr class=\"{class}\"><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escaped(name),
            number(ranking.roc_auc, 3),
            number(ranking.average_precision, 3),
            number(ranking.brier, 5),
            number(ranking.log_loss, 4),
        )
    }

    fn calibration(&mut self) -> Result {
        self.section("calibration")?;
        let evaluation = self.subject.evaluation;
        let ensemble = &evaluation.ensemble;
        let before = ensemble.uncalibrated.as_ref();
        writeln!(
            self.out,
            "<p>When it says 80 %, is it 80 %? Mean difference between claim and outcome (ECE): {} before calibration, <strong>{}</strong> after; among rows that claim at least five times the base rate {} before, <strong>{}</strong> after. Calibration slope {} (1 is right, below 1 is overconfident). Brier skill against always answering the base rate: {}{}.{}</p>\n<div class=\"charts\">",
            number(before.and_then(|one| one.ece), 4),
            number(ensemble.reliability.ece, 4),
            number(before.and_then(|one| one.ece_high), 4),
            number(ensemble.reliability.ece_high, 4),
            number(ensemble.calibration_slope, 2),
            number(ensemble.brier_skill, 3),
            ensemble
                .brier_skill_interval
                .map_or_else(String::new, |[low, high]| format!(
                    " (95 % interval {} to {})",
                    number(Some(low), 3),
                    number(Some(high), 3)
                )),
            super::words::worse_calibrated(self.subject),
        )?;
        self.reliability_chart()?;
        self.histogram_chart()?;
        writeln!(self.out, "</div>")?;
        self.reliability_table(&ensemble.reliability, before)?;
        if let Some(fitting) = self.subject.fitting {
            let snapshot = fitting.snapshot;
            writeln!(
                self.out,
                "<p>For bodies of <code>/predict</code> without history, on the same rows: ECE {}, among high claims {}, slope {}, Brier skill {}, ROC AUC {}.</p>",
                number(snapshot.reliability.ece, 4),
                number(snapshot.reliability.ece_high, 4),
                number(snapshot.calibration_slope, 2),
                number(snapshot.brier_skill, 3),
                number(snapshot.ranking.roc_auc, 3),
            )?;
            self.held_out(&fitting)?;
            self.search(&fitting)?;
        }
        Ok(())
    }

    fn held_out(&mut self, fitting: &Fitting) -> Result {
        writeln!(self.out, "<h3>Targets it never learned from</h3>")?;
        let Some(found) = fitting.held_out else {
            let why = super::words::held_out(self.subject, fitting);
            return writeln!(self.out, "<p>This was {}.</p>", escaped(&why));
        };
        writeln!(
            self.out,
            "<p>Fitted again without {} of the {}, and asked about these on the last slice ({}, {}): how the first days on a new target would be.</p>",
            whole(found.targets.len() as u64),
            counted(self.subject.labels.targets as u64, "target", "targets"),
            counted(found.rows as u64, "row", "rows"),
            counted(found.incidents as u64, "incident", "incidents"),
        )?;
        writeln!(
            self.out,
            "<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">on these rows</th><th scope=\"col\">ROC AUC</th><th scope=\"col\">average precision</th><th scope=\"col\">Brier skill</th><th scope=\"col\">ECE</th></tr></thead>\n<tbody>"
        )?;
        let rows: [(&str, &EnsembleReport); 2] = [
            ("ensemble that never learned from them", &found.ensemble),
            ("ensemble that did", &found.familiar),
        ];
        for (name, one) in rows {
            writeln!(
                self.out,
                "<tr><th scope=\"row\">{name}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                number(one.ranking.roc_auc, 3),
                number(one.ranking.average_precision, 3),
                number(one.brier_skill, 3),
                number(one.reliability.ece, 4),
            )?;
        }
        writeln!(self.out, "</tbody></table></div>")
    }

    fn search(&mut self, fitting: &Fitting) -> Result {
        writeln!(self.out, "<h3>How parameters were chosen</h3>")?;
        if fitting.trials.is_empty() {
            let why = super::words::chosen(self.subject, fitting);
            return writeln!(self.out, "<p>Search: {}.</p>", escaped(&why));
        }
        writeln!(
            self.out,
            "<p>Each choice was fitted on the time folds of the first part of the range and judged on rows after those that it had seen; nothing here has looked at the evaluated range.</p>\n<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">member</th><th scope=\"col\" class=\"words\">choice</th><th scope=\"col\">average precision<br>on time folds</th><th scope=\"col\">chosen</th></tr></thead>\n<tbody>"
        )?;
        for trial in fitting.trials {
            let (class, mark) = if trial.chosen {
                ("own", "yes")
            } else {
                ("", "")
            };
            writeln!(
                self.out,
                "<tr class=\"{class}\"><th scope=\"row\">{}</th><td class=\"words wrap\">{}</td><td>{}</td><td>{mark}</td></tr>",
                trial.member,
                escaped(&trial.choice),
                number(Some(trial.average_precision), 3),
            )?;
        }
        writeln!(self.out, "</tbody></table></div>")
    }

    fn reliability_chart(&mut self) -> Result {
        let ensemble = &self.subject.evaluation.ensemble;
        let claims = bins(&ensemble.reliability).chain(ensemble.uncalibrated.iter().flat_map(bins));
        let lowest = claims
            .map(|bin| bin.mean_predicted)
            .fold(0.05, f64::min)
            .max(0.0005);
        let axis = |label: &str| Axis::probability(label, lowest);
        let mut plot = Plot::new(
            "Reliability",
            "Share of rows that were followed by an incident against the probability claimed for them, before and after calibration.",
            CHART,
            axis("claimed"),
            axis("came true"),
        );
        let low = axis("").low();
        plot.line([[low, low], [1.0 - low, 1.0 - low]], "even");
        let mut dots = |of: &Reliability, class: &str| {
            for bin in bins(of) {
                let words = format!(
                    "claimed {}, came true {} of {} rows",
                    percent(Some(bin.mean_predicted), 2),
                    percent(Some(bin.observed), 2),
                    whole(bin.weight as u64)
                );
                plot.dot(bin.mean_predicted, bin.observed, class, &words);
            }
        };
        if let Some(before) = &ensemble.uncalibrated {
            dots(before, "open c1");
        }
        dots(&ensemble.reliability, "c0");
        let svg = plot.svg();
        self.figure(
            "Reliability",
            &svg,
            &[
                ("c0 dot".into(), "after calibration".into()),
                ("c1 dot open".into(), "before".into()),
            ],
            "Each dot is a bin of rows with neighbouring claims: all rows, and again those that claim at least five times the base rate. On the line a claim is right; above it the risk was understated. Both axes are stretched at their ends; what never came true lies on the lower edge.",
        )
    }

    fn histogram_chart(&mut self) -> Result {
        let evaluation = self.subject.evaluation;
        let histogram = &evaluation.drawing.histogram;
        let most = histogram
            .iter()
            .flatten()
            .copied()
            .max()
            .unwrap_or(0)
            .max(10);
        let mut plot = Plot::new(
            "Scores",
            "Number of rows in each twentieth of the probability scale, followed by an incident and not.",
            CHART,
            Axis::share("probability"),
            Axis::log("rows", 1.0, most as f64),
        );
        // Half a row below one, so that a single row is seen.
        let height = |count: u64| if count == 1 { 1.15 } else { count as f64 };
        for (bin, [negative, positive]) in histogram.iter().enumerate() {
            let width = 1.0 / HISTOGRAM_BINS as f64;
            let left = bin as f64 * width;
            if *negative > 0 {
                plot.bar(
                    left + 0.06 * width,
                    left + 0.5 * width,
                    height(*negative),
                    "c0",
                );
            }
            if *positive > 0 {
                plot.bar(
                    left + 0.5 * width,
                    left + 0.94 * width,
                    height(*positive),
                    "c1",
                );
            }
        }
        let at = evaluation.at_threshold.threshold;
        if let Some(threshold) = at {
            plot.vertical(threshold, "mark", "threshold");
        }
        let total = |class: usize| histogram.iter().map(|bin| bin[class]).sum::<u64>();
        let low = |class: usize| {
            let first = histogram[0][class];
            (total(class) > 0).then(|| first as f64 / total(class) as f64)
        };
        let words = format!(
            "{} of the rows before an incident and {} of the others score below 5 %. The height is logarithmic.",
            percent(low(1), 1),
            percent(low(0), 1)
        );
        let svg = plot.svg();
        self.figure(
            "Scores",
            &svg,
            &[
                ("c0 box".into(), "not followed by an incident".into()),
                ("c1 box".into(), "followed by one within the horizon".into()),
            ],
            &words,
        )
    }

    fn reliability_table(&mut self, after: &Reliability, before: Option<&Reliability>) -> Result {
        type Bins = fn(&Reliability) -> &[ReliabilityBin];
        let parts: [(&str, Bins); 2] = [
            ("All rows, in bins of equal count", |one| &one.reliability),
            ("Rows that claim at least five times the base rate", |one| {
                &one.reliability_high
            }),
        ];
        writeln!(self.out, "<div class=\"charts\">")?;
        for (name, bins) in parts {
            writeln!(
                self.out,
                "<div class=\"scroll\"><table>\n<caption>{name}</caption>\n<thead><tr><th scope=\"col\">claimed<br>before</th><th scope=\"col\">came true</th><th scope=\"col\">rows</th><th scope=\"col\">claimed<br>after</th><th scope=\"col\">came true</th><th scope=\"col\">rows</th></tr></thead>\n<tbody>"
            )?;
            let (left, right) = (before.map_or(&[][..], bins), bins(after));
            for i in 0..left.len().max(right.len()) {
                write!(self.out, "<tr>")?;
                for side in [left.get(i), right.get(i)] {
                    write!(
                        self.out,
                        "<td>{}</td><td>{}</td><td>{}</td>",
                        percent(side.map(|bin| bin.mean_predicted), 2),
                        percent(side.map(|bin| bin.observed), 2),
                        side.map_or_else(|| "–".into(), |bin| whole(bin.weight as u64)),
                    )?;
                }
                writeln!(self.out, "</tr>")?;
            }
            if left.is_empty() && right.is_empty() {
                writeln!(self.out, "<tr><td colspan=\"6\">no such row</td></tr>")?;
            }
            writeln!(self.out, "</tbody></table></div>")?;
        }
        writeln!(self.out, "</div>")
    }

    fn importance(&mut self) -> Result {
        self.section("importance")?;
        let review = self.subject.review;
        writeln!(
            self.out,
            "<p>Two views: the share of the gain of all splits while fitting, and how far a feature moves the log-odds of {} on average (mean size of its SHAP value: its effect averaged over all orders in which features could become known). Features that tell the same share their part.</p>",
            counted(
                review.explained_rows as u64,
                "evaluated row",
                "evaluated rows"
            )
        )?;
        let features = super::words::features(self.subject, FEATURES);
        let widest = |of: fn(&(String, f64, f64)) -> f64| {
            features.iter().map(of).fold(0.0, f64::max).max(1e-12)
        };
        let (most_gain, most_mean) = (widest(|one| one.1), widest(|one| one.2));
        writeln!(
            self.out,
            "<div class=\"scroll\"><table>\n<caption>The {} that stand highest in either view.</caption>\n<thead><tr><th scope=\"col\">feature</th><th scope=\"col\">share of gain</th><th scope=\"col\">mean |SHAP|, log-odds</th></tr></thead>\n<tbody>",
            counted(features.len() as u64, "feature", "features")
        )?;
        let bar = |class: &str, value: f64, most: f64| {
            format!(
                "<span class=\"bar {class}\"><i style=\"width:{:.0}%\"></i></span>",
                (100.0 * value / most).clamp(0.0, 100.0)
            )
        };
        for (name, gain, mean) in &features {
            writeln!(
                self.out,
                "<tr><th scope=\"row\"><code>{}</code></th><td>{}{}</td><td>{}{}</td></tr>",
                escaped(name),
                percent(Some(*gain), 1),
                bar("c0", *gain, most_gain),
                number(Some(*mean), 3),
                bar("c2", *mean, most_mean),
            )?;
        }
        writeln!(
            self.out,
            "</tbody></table></div>\n<h3>Its alarms as a few rules</h3>\n<p>A tree of depth three fitted to the ensemble's alarms: an approximation to read, not what is served.</p>"
        )?;
        match self.subject.surrogate {
            Some(rules) => writeln!(self.out, "<pre>{}</pre>", escaped(rules)),
            None => writeln!(
                self.out,
                "<p>No row reaches the threshold, or there is none: there are no alarms to imitate.</p>"
            ),
        }
    }

    fn cases(&mut self) -> Result {
        self.section("cases")?;
        let subject = self.subject;
        let (review, at) = (subject.review, &subject.evaluation.at_threshold);
        writeln!(
            self.out,
            "<p>Each drawing begins {} before and ends {} after an incident, or {} after an alarm: the probability with the threshold, and the signals behind the strongest reasons. Reasons are path contributions, as alerts give them: what the score changes by along each decision. Incidents are shaded, openings of alarms marked. A gap in the probability is a time in which the target was not scored.</p>",
            format_duration(subject.manifest.horizon() * HORIZONS_BEFORE),
            format_duration(subject.manifest.horizon()),
            format_duration(subject.manifest.horizon() * 2),
        )?;
        writeln!(self.out, "<h3>False alarms</h3>")?;
        match review.false_alarms.len() {
            0 if at.alarms == 0 => writeln!(self.out, "<p>There was no alarm.</p>")?,
            0 => writeln!(self.out, "<p>No alarm was false.</p>")?,
            shown => writeln!(
                self.out,
                "<p>{}, the surest first.</p>",
                shown_of(shown, at.r#false as usize, "false alarm", "false alarms")
            )?,
        }
        self.case_figures(&review.false_alarms, "alarm")?;
        writeln!(self.out, "<h3>Missed incidents</h3>")?;
        match review.missed.len() {
            0 if at.incidents == 0 => writeln!(self.out, "<p>There was no incident.</p>")?,
            0 => writeln!(self.out, "<p>No incident was missed.</p>")?,
            shown => writeln!(
                self.out,
                "<p>{}, {}from the one nearest to an alarm to the one with the least sign of what was to come.</p>",
                shown_of(
                    shown,
                    review.missed_total,
                    "missed incident",
                    "missed incidents"
                ),
                if review.missed_total > CASES {
                    "spread evenly "
                } else {
                    ""
                }
            )?,
        }
        self.case_figures(&review.missed, "incident")
    }

    fn case_figures(&mut self, cases: &[Case], event: &str) -> Result {
        if cases.is_empty() {
            return Ok(());
        }
        writeln!(self.out, "<div class=\"charts\">")?;
        for case in cases {
            self.case(case, event)?;
        }
        writeln!(self.out, "</div>")
    }

    fn case(&mut self, case: &Case, event: &str) -> Result {
        let subject = self.subject;
        writeln!(
            self.out,
            "<figure><b>{} <span class=\"dim\">{}</span></b>",
            escaped(&case.target),
            format_moment(case.at)
        )?;
        let mut panels: Vec<Plot> = Vec::new();
        let axis = || Axis::around(&format!("around the {event}"), case.span.0, case.span.1);
        let last = case.signals.len();
        let panel = |place: usize, name: &str, y: Axis| {
            let size = if place == last { LAST_PANEL } else { PANEL };
            let plot = Plot::new(
                &format!("{name} of {}", case.target),
                &format!("{name} around the {event} at {}", format_moment(case.at)),
                size,
                axis(),
                y,
            );
            if place == last {
                plot
            } else {
                plot.without_x_labels()
            }
        };
        let highest = case
            .probabilities
            .iter()
            .map(|point| point[1])
            .filter(|p| p.is_finite())
            .chain(subject.evaluation.at_threshold.threshold)
            .fold(0.1, f64::max);
        let mut plot = panel(
            0,
            "probability",
            Axis::linear("probability", 0.0, highest, 2),
        );
        shade(&mut plot, case);
        plot.line(case.probabilities.iter().copied(), "c0 plain");
        if let Some(threshold) = subject.evaluation.at_threshold.threshold {
            plot.horizontal(threshold, "mark", "");
        }
        panels.push(plot);
        for (i, (signal, points)) in case.signals.iter().enumerate() {
            let values = || {
                points
                    .iter()
                    .map(|point| point[1])
                    .filter(|v| v.is_finite())
            };
            let low = values().fold(f64::INFINITY, f64::min);
            let high = values().fold(f64::NEG_INFINITY, f64::max);
            let mut plot = panel(
                i + 1,
                &signal.name,
                Axis::linear(&signal.name, low, high, 2),
            );
            shade(&mut plot, case);
            plot.line(points.iter().copied(), "c2 plain");
            panels.push(plot);
        }
        for plot in &panels {
            write!(self.out, "{}", plot.svg())?;
        }
        writeln!(
            self.out,
            "<figcaption>{}",
            escaped(&self.case_words(case, event))
        )?;
        self.reasons(case)?;
        writeln!(self.out, "</figcaption></figure>")
    }

    fn case_words(&self, case: &Case, event: &str) -> String {
        let Some(probability) = case.probability else {
            return "The target was not scored within the horizon before: too little data, or it had just recovered.".into();
        };
        let said = percent(Some(probability), 1);
        if event == "alarm" {
            format!("It said {said}; no incident followed. What moved that score:")
        } else {
            format!(
                "The highest it said within the horizon before was {said}, {} before the start. What moved that score:",
                duration(Some(case.at.since(case.seen_at).as_secs_f64()))
            )
        }
    }

    fn reasons(&mut self, case: &Case) -> Result {
        if case.reasons.is_empty() {
            return Ok(());
        }
        let signals: Vec<_> = self
            .subject
            .manifest
            .signals
            .iter()
            .map(|source| source.signal.clone())
            .collect();
        writeln!(self.out, "<ul class=\"reasons\">")?;
        for reason in &case.reasons {
            let (class, word) = if reason.contribution > 0.0 {
                ("up", "raises")
            } else {
                ("down", "lowers")
            };
            writeln!(
                self.out,
                "<li>{}: <span class=\"{class}\">{word} the odds ×{}</span></li>",
                escaped(&reason.in_words(&signals)),
                rate(Some(reason.contribution.exp())),
            )?;
        }
        writeln!(self.out, "</ul>")
    }

    fn targets(&mut self) -> Result {
        self.section("targets")?;
        let targets = &self.subject.evaluation.by_target;
        let mut order: Vec<(&String, &TargetReport)> = targets.iter().collect();
        order.sort_by_key(|(name, one)| {
            let missed = one.incidents - one.foreseen;
            (
                std::cmp::Reverse(missed + one.r#false),
                std::cmp::Reverse(one.incidents),
                std::cmp::Reverse(one.alarms),
                (*name).clone(),
            )
        });
        writeln!(
            self.out,
            "<p>At the threshold; the targets with the most missed incidents and false alarms first.{}</p>",
            if order.len() > TARGETS {
                format!(
                    " The first {TARGETS} of {}; the others are in the JSON report.",
                    whole(order.len() as u64)
                )
            } else {
                String::new()
            }
        )?;
        if order.is_empty() {
            return writeln!(self.out, "<p>There is no target.</p>");
        }
        writeln!(
            self.out,
            "<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">target</th><th scope=\"col\">incidents</th><th scope=\"col\">foreseen</th><th scope=\"col\">missed</th><th scope=\"col\">alarms</th><th scope=\"col\">right</th><th scope=\"col\">early</th><th scope=\"col\">false</th><th scope=\"col\">scored rows</th></tr></thead>\n<tbody>"
        )?;
        for (name, one) in order.into_iter().take(TARGETS) {
            write!(self.out, "<tr><th scope=\"row\">{}</th>", escaped(name))?;
            for count in [
                one.incidents,
                one.foreseen,
                one.incidents - one.foreseen,
                one.alarms,
                one.right,
                one.early,
                one.r#false,
                one.rows,
            ] {
                write!(self.out, "<td>{}</td>", whole(count))?;
            }
            writeln!(self.out, "</tr>")?;
        }
        writeln!(self.out, "</tbody></table></div>")
    }

    fn data(&mut self) -> Result {
        self.section("data")?;
        let subject = self.subject;
        let (labels, manifest) = (subject.labels, subject.manifest);
        let facts = [
            ("range", format!("{} to {}", labels.start, labels.end)),
            (
                "targets",
                format!(
                    "{}, incidents on {}",
                    whole(labels.targets as u64),
                    whole(labels.incidents_by_target.len() as u64)
                ),
            ),
            (
                "incidents",
                format!(
                    "{}, {} of them with scored rows within the horizon before",
                    whole(labels.incidents as u64),
                    whole(labels.incidents_with_history as u64)
                ),
            ),
            ("by month", counts(&labels.incidents_by_month)),
            ("by source", counts(&labels.incidents_by_source)),
            (
                "rows",
                format!(
                    "{}, {} of them followed by an incident (base rate {})",
                    whole(labels.rows as u64),
                    whole(labels.positives as u64),
                    percent(Some(labels.base_rate), 2)
                ),
            ),
            (
                "left out",
                format!(
                    "{} in incidents, recovery or maintenance; {} with too little data; {} whose horizon is not fully observed{}",
                    whole(labels.excluded as u64),
                    whole(labels.abstained as u64),
                    whole(labels.censored as u64),
                    match labels.uncertain {
                        0 => String::new(),
                        rows => format!(
                            "; {} after which somebody acted and nothing failed",
                            whole(rows as u64)
                        ),
                    }
                ),
            ),
            (
                "what counts",
                format!(
                    "a spell shorter than {} is no incident, spells closer than {} are one; rows within an incident and {} after it are left out",
                    span(manifest.label.min_duration_seconds),
                    span(manifest.label.merge_gap_seconds),
                    span(manifest.label.recovery_seconds)
                ),
            ),
        ];
        if matches!(subject.kind, Kind::Backtest { .. }) {
            writeln!(
                self.out,
                "<p>What was read for the replay, with the history before its start that the windows need.</p>"
            )?;
        }
        if !labels.warnings.is_empty() {
            writeln!(self.out, "<ul class=\"notes\">")?;
            for warning in &labels.warnings {
                writeln!(self.out, "<li>{}</li>", escaped(warning))?;
            }
            writeln!(self.out, "</ul>")?;
        }
        writeln!(self.out, "<dl>")?;
        for (name, words) in facts {
            writeln!(self.out, "<dt>{name}</dt><dd>{}</dd>", escaped(&words))?;
        }
        writeln!(
            self.out,
            "</dl>\n<p>A target is failing while one of these returns a sample for it, or one of these alerts fires:</p>\n<ul>"
        )?;
        for query in &manifest.label.queries {
            writeln!(self.out, "<li><code>{}</code></li>", escaped(query))?;
        }
        for matchers in &manifest.label.alerts {
            let matchers: Vec<String> = matchers
                .iter()
                .map(|(name, value)| format!("{name}={value:?}"))
                .collect();
            writeln!(
                self.out,
                "<li>alert <code>{{{}}}</code></li>",
                escaped(&matchers.join(", "))
            )?;
        }
        writeln!(
            self.out,
            "</ul>\n<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">signal</th><th scope=\"col\" class=\"words\">unit</th><th scope=\"col\">coverage</th><th scope=\"col\" class=\"words\">query</th></tr></thead>\n<tbody>"
        )?;
        for source in &manifest.signals {
            writeln!(
                self.out,
                "<tr><th scope=\"row\">{}</th><td class=\"words\">{}</td><td>{}</td><td class=\"words wrap\"><code>{}</code></td></tr>",
                escaped(&source.signal.name),
                source.signal.unit.name(),
                percent(labels.coverage.get(&source.signal.name).copied(), 1),
                escaped(&source.query),
            )?;
        }
        writeln!(
            self.out,
            "</tbody></table></div>\n<p class=\"dim\">Coverage is the share of grid points with a sample.</p>"
        )
    }

    fn reproduce(&mut self) -> Result {
        self.section("reproduce")?;
        let manifest = self.subject.manifest;
        writeln!(
            self.out,
            "<p>{}</p>\n<pre>{}</pre>",
            escaped(super::words::REPRODUCE),
            escaped(&super::words::command(self.subject))
        )?;
        let threshold = match manifest.threshold.alarming() {
            Some(threshold) => format!(
                "{threshold:.4}, chosen for {} false alarms per target-week",
                rate(Some(manifest.threshold.false_alarms_per_target_week))
            ),
            None => "none within the budget".into(),
        };
        writeln!(self.out, "<dl>")?;
        for (name, words) in [
            ("model", manifest.id.clone()),
            ("origin", manifest.origin.name().to_string()),
            ("forewarn", manifest.forewarn_version.clone()),
            (
                "trained on",
                format!(
                    "{} to {}, {}, {}",
                    manifest.training.start,
                    manifest.training.end,
                    counted(manifest.training.targets as u64, "target", "targets"),
                    counted(manifest.training.incidents as u64, "incident", "incidents")
                ),
            ),
            ("seed", manifest.training.seed.to_string()),
            (
                "grid",
                format!(
                    "step {}, horizon {}",
                    format_duration(manifest.step()),
                    format_duration(manifest.horizon())
                ),
            ),
            ("threshold", threshold),
        ] {
            writeln!(self.out, "<dt>{name}</dt><dd>{}</dd>", escaped(&words))?;
        }
        writeln!(self.out, "</dl>")
    }

    fn figure(
        &mut self,
        title: &str,
        svg: &str,
        legend: &[(String, String)],
        caption: &str,
    ) -> Result {
        writeln!(self.out, "<figure><b>{}</b>{svg}", escaped(title))?;
        if !legend.is_empty() {
            write!(self.out, "<ul class=\"legend\">")?;
            for (class, name) in legend {
                let sample = if class.contains("dot") {
                    format!("<circle class=\"{class}\" cx=\"15\" cy=\"4\" r=\"3.5\"/>")
                } else if let Some(class) = class.strip_suffix(" box") {
                    format!("<rect class=\"{class}\" x=\"8\" y=\"0\" width=\"14\" height=\"8\"/>")
                } else {
                    format!("<path class=\"line {class}\" d=\"M0 4H30\"/>")
                };
                write!(
                    self.out,
                    "<li><svg aria-hidden=\"true\" viewBox=\"0 0 30 8\">{sample}</svg>{}</li>",
                    escaped(name)
                )?;
            }
            writeln!(self.out, "</ul>")?;
        }
        writeln!(
            self.out,
            "<figcaption>{}</figcaption></figure>",
            escaped(caption)
        )
    }
}

fn counts<Name: std::fmt::Display>(of: &BTreeMap<Name, usize>) -> String {
    let counts: Vec<String> = of
        .iter()
        .map(|(name, count)| format!("{name} {}", whole(*count as u64)))
        .collect();
    match counts.is_empty() {
        true => "none".into(),
        false => counts.join(", "),
    }
}

fn bins(of: &Reliability) -> impl Iterator<Item = &ReliabilityBin> {
    of.reliability.iter().chain(&of.reliability_high)
}

fn shade(plot: &mut Plot, case: &Case) {
    for [start, end] in &case.incidents {
        plot.band(*start, *end, "incident");
    }
    for opened in &case.alarms {
        plot.vertical(*opened, "alarm", "");
    }
}

fn shown_of(shown: usize, total: usize, one: &str, many: &str) -> String {
    if shown < total {
        format!("{shown} of {}", counted(total as u64, one, many))
    } else {
        counted(total as u64, one, many)
    }
}

fn span(seconds: f64) -> String {
    format_duration(std::time::Duration::from_secs_f64(seconds.max(0.0)))
}
