//! How good the warnings are: the record in a line, the scoreboard, the model.

use std::fmt::Write;

use super::parts::{count, grouped, horizon_of, lead, link, percent, rough, time};
use super::{View, parts};
use crate::assessment::Snapshot;
use crate::metrics::ModelCard;
use crate::report::{Axis, Plot, escaped};
use crate::scoreboard::{MIN_OUTCOMES, MIN_SCORES, RecentOutcome, Summary};
use crate::time::{Timestamp, format_duration};

/// Outcomes in the strip and in the table.
const STRIP: usize = 20;
const OUTCOMES: usize = 12;
/// Bins with fewer scores are drawn hollow.
const SURE: u64 = 100;

/// How often warnings were right lately.
pub fn record(out: &mut String, snapshot: &Snapshot) {
    let summary = &snapshot.scoreboard;
    let window = &summary.window.counts;
    let judged = (window.right + window.early + window.r#false) as usize;
    let failures = (window.foreseen + window.missed) as usize;
    out.push_str("<div class=\"record\"><h2>Lately</h2>");
    if judged + failures == 0 {
        out.push_str("<p>No alarm has been judged and no failure seen yet: how far to trust this is not known. The model's report says how it did in training.</p>");
    }
    if judged > 0 {
        let _ = write!(
            out,
            "<p><b>{} of {}</b> {} right.</p>",
            grouped(window.right as usize),
            count(judged, "alarm"),
            if window.right == 1 { "was" } else { "were" },
        );
    }
    if failures > 0 {
        let leads = &summary.lead_time_histogram;
        let before = match leads.count {
            0 => String::new(),
            n => format!(", {} before on average", lead(leads.sum / n as f64)),
        };
        let _ = write!(
            out,
            "<p><b>{} of {}</b> {} foreseen{before}.</p>",
            grouped(window.foreseen as usize),
            count(failures, "failure"),
            if window.foreseen == 1 { "was" } else { "were" },
        );
    }
    if !summary.recent.is_empty() {
        out.push_str("<ol class=\"strip\" aria-label=\"The last outcomes, newest first\">");
        for outcome in summary.recent.iter().take(STRIP) {
            let (sign, words) = told(outcome);
            let _ = write!(
                out,
                "<li class=\"{}\" title=\"{}: {words}\"><span aria-hidden=\"true\">{sign}</span><span class=\"hidden\">{words}</span></li>",
                escaped(&outcome.outcome),
                escaped(&parts::short(&outcome.target)),
            );
        }
        out.push_str("</ol>");
    }
    if summary.window.seconds > 0.0 && judged + failures > 0 {
        let _ = write!(
            out,
            "<p class=\"dim\">Of the last {} at most. <a href=\"#quality\">Scoreboard</a></p>",
            rough(std::time::Duration::from_secs_f64(summary.window.seconds)),
        );
    }
    out.push_str("</div>");
}

fn told(outcome: &RecentOutcome) -> (&'static str, String) {
    let before = outcome.lead_seconds.map_or(String::new(), |seconds| {
        format!(", foreseen {} before", lead(seconds))
    });
    match outcome.outcome.as_str() {
        "right" => ("✓", format!("right{before}")),
        "early" => ("~", format!("early{before}")),
        "missed" => ("!", "missed".into()),
        "uncertain" => ("?", "uncertain: somebody acted".into()),
        _ => ("✗", "false alarm".into()),
    }
}

pub fn page(out: &mut String, view: &View, snapshot: Option<&Snapshot>) {
    out.push_str("<div id=\"quality\" class=\"two\" data-live>\n");
    if let Some(snapshot) = snapshot {
        scoreboard(out, &snapshot.scoreboard);
    }
    out.push_str("<div>\n");
    if let Some(snapshot) = snapshot {
        outcomes(out, view, &snapshot.scoreboard.recent);
    }
    if let Some(card) = view.card {
        model(out, view, card, snapshot);
    }
    out.push_str("</div>\n</div>\n");
}

fn scoreboard(out: &mut String, summary: &Summary) {
    let few = |what: &str| format!("<span class=\"dim\">too few yet: given from {what} on</span>");
    let share = |ratio: Option<f64>, what: &str| ratio.map_or_else(|| few(what), percent);
    let number =
        |number: Option<f64>, what: &str| number.map_or_else(|| few(what), |n| format!("{n:.3}"));
    let scores = format!("{} judged scores", grouped(MIN_SCORES as usize));
    let _ = write!(
        out,
        "<section><h2>Scoreboard</h2>\n<dl><dt>alarms</dt><dd>{} right, {} early, {} false, {} uncertain, {} undecided</dd>\
         <dt>failures</dt><dd>{} foreseen, {} missed</dd>\
         <dt>precision</dt><dd>{}</dd><dt>recall</dt><dd>{}</dd><dt>false alarms per target and week</dt><dd>{}</dd>\
         <dt>Brier score</dt><dd>{}</dd><dt>calibration error</dt><dd>{}</dd></dl>\n",
        summary.right,
        summary.early,
        summary.r#false,
        summary.uncertain,
        summary.open,
        summary.foreseen,
        summary.missed,
        share(summary.precision, &format!("{MIN_OUTCOMES} judged alarms")),
        share(summary.recall, &format!("{MIN_OUTCOMES} failures")),
        number(summary.false_alarms_per_target_week, "one target-week"),
        number(summary.brier, &scores),
        number(summary.calibration_error, &scores),
    );
    reliability(out, summary);
    out.push_str("</section>\n");
}

/// What was said against what came, on scales that show rare events.
fn reliability(out: &mut String, summary: &Summary) {
    let bins = &summary.reliability;
    let Some(lowest) = bins.iter().map(|bin| bin.predicted).reduce(f64::min) else {
        return;
    };
    let axis = |label: &str| Axis::probability(label, lowest.max(0.001));
    let mut plot = Plot::new(
        "Reliability",
        "How often a failure followed, by the probability that was said; on the line both are the same",
        (460.0, 300.0),
        axis("probability said"),
        axis("share that failed within the horizon"),
    );
    let low = axis("").low();
    plot.line([[low, low], [1.0 - low, 1.0 - low]], "even");
    for bin in bins {
        let class = if bin.scores < SURE { "open" } else { "said" };
        let words = format!(
            "said {}, came {} of the time, {} scores",
            percent(bin.predicted),
            percent(bin.observed),
            grouped(bin.scores as usize),
        );
        plot.dot(bin.predicted, bin.observed, class, &words);
    }
    let _ = writeln!(
        out,
        "<figure><figcaption>Reliability: of what was said to fail with 30 %, did 30 % fail? On the dashed line, yes. Hollow: fewer than {SURE} scores.</figcaption>{}</figure>",
        plot.svg()
    );
}

fn outcomes(out: &mut String, view: &View, recent: &[RecentOutcome]) {
    out.push_str("<section><h2>Recent outcomes</h2>\n");
    if recent.is_empty() {
        out.push_str(
            "<p class=\"dim\">No alarm has been judged and no failure was missed yet.</p></section>\n",
        );
        return;
    }
    out.push_str("<table class=\"plain\">\n<thead><tr><th scope=\"col\">Target</th><th scope=\"col\">Outcome</th><th scope=\"col\">Alarm</th><th scope=\"col\">Failure</th></tr></thead><tbody>\n");
    for outcome in recent.iter().take(OUTCOMES) {
        let (sign, words) = told(outcome);
        let at = |secs: Option<f64>| {
            secs.map_or("none".into(), |s| {
                time(Timestamp::from_secs_f64(s), view.now)
            })
        };
        let said = outcome
            .probability
            .map_or(String::new(), |p| format!(", {}", percent(p)));
        let _ = writeln!(
            out,
            "<tr><th scope=\"row\">{}</th><td><span class=\"outcome {}\"><span aria-hidden=\"true\">{sign}</span> {words}</span></td><td>{}{said}</td><td>{}</td></tr>",
            link(&outcome.target),
            escaped(&outcome.outcome),
            at(outcome.opened),
            at(outcome.incident),
        );
    }
    out.push_str("</tbody></table>\n<p class=\"dim\">Right: the failure came within the horizon. Early: it came later, within two. False: none came. Missed: no alarm before it.</p></section>\n");
}

fn model(out: &mut String, view: &View, card: &ModelCard, snapshot: Option<&Snapshot>) {
    let age = view.now.since(card.trained);
    let _ = write!(
        out,
        "<section><h2>Model</h2>\n<dl><dt>name</dt><dd>{}</dd><dt>origin</dt><dd>{}</dd><dt>learned from data until</dt><dd>{} ({} ago)</dd>\
         <dt>horizon</dt><dd>{}</dd><dt>alarm threshold</dt><dd>{}, for {}</dd><dt>base rate</dt><dd>{} of the time a failure is that near</dd>\
         <dt>inputs</dt><dd>{} features of {}</dd><dt>serves</dt><dd>{}</dd>",
        escaped(&card.model_id),
        escaped(&card.model_origin),
        time(card.trained, view.now),
        rough(age),
        horizon_of(card),
        percent(card.alert_threshold),
        format_duration(view.serving.config.alerting.for_),
        percent(card.base_rate),
        card.features.len(),
        count(card.signals.len(), "signal"),
        view.serving.config.model.serve.name().replace('_', " "),
    );
    let drift = snapshot.and_then(|snapshot| snapshot.drift.as_ref());
    let words = match drift.and_then(|drift| drift.features.first()) {
        None => "<span class=\"dim\">not known: needs a day of scores, and a model that says what it was trained on</span>".into(),
        Some(top) if top.psi > top.usual_psi => format!(
            "<code>{}</code> has left what the model was trained on (PSI {:.2}, {:.2} at most in training)",
            escaped(&top.feature),
            top.psi,
            top.usual_psi
        ),
        Some(top) => format!(
            "within what training knew; most <code>{}</code> (PSI {:.2})",
            escaped(&top.feature),
            top.psi
        ),
    };
    let _ = write!(out, "<dt>drift</dt><dd>{words}</dd>");
    if let Some(shadow) = snapshot.and_then(|snapshot| snapshot.shadow.as_ref()) {
        let _ = write!(
            out,
            "<dt>in the shadow</dt><dd>{}: {} right, {} false, {} foreseen, {} missed</dd>",
            escaped(&shadow.model_id),
            shadow.summary.right,
            shadow.summary.r#false,
            shadow.summary.foreseen,
            shadow.summary.missed,
        );
    }
    out.push_str("</dl></section>\n");
}
