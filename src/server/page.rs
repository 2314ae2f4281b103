//! The status page: one HTML document, nothing loaded from anywhere.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;

use super::{App, html};
use crate::assessment::{Assessment, Risk, Snapshot};
use crate::learning;
use crate::metrics::ModelCard;
use crate::report::escaped;
use crate::scoreboard::{MIN_OUTCOMES, MIN_SCORES, RecentOutcome, Summary};
use crate::time::{Timestamp, format_duration, format_moment, format_rough};
use crate::types::{RiskLevel, TargetState};

/// Styles and the icon stand in the page; nothing is loaded, run or sent.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// Targets shown; the API has them all.
const ROWS: usize = 500;
/// Reasons shown per target.
const REASONS: usize = 3;
/// Judged alarms and missed failures shown; the API has more.
const OUTCOMES: usize = 15;

const LEVELS: [RiskLevel; 5] = [
    RiskLevel::Critical,
    RiskLevel::High,
    RiskLevel::Medium,
    RiskLevel::Low,
    RiskLevel::Minimal,
];

const HEAD: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="30">
<title>forewarn</title>
<link rel="icon" href="data:,">
<style>
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --dim: light-dark(#555, #aaa); --link: light-dark(#0b57a4, #8ab8ff) }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 76rem; padding: 1rem 1.25rem 3rem }
header { display: flex; flex-wrap: wrap; gap: .25rem 2rem; align-items: baseline; border-bottom: 1px solid var(--line); padding-bottom: .6rem }
h1 { font-size: 1.4rem; margin: 0 } h2 { font-size: 1.1rem; margin: 1.75rem 0 .5rem }
a { color: var(--link) } nav a { margin-right: .9rem } .dim, dt, small { color: var(--dim) }
.note { background: var(--soft); border-left: 4px solid #d98a00; padding: .5rem .75rem; margin: .75rem 0 }
.tiles { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1rem 0 0 }
.tile { border: 1px solid var(--line); border-top: 4px solid var(--tone, #888); border-radius: .3rem; padding: .3rem .8rem; min-width: 5.5rem }
.tile b { display: block; font-size: 1.6rem; line-height: 1.25 } .none { opacity: .45 }
.scroll { overflow-x: auto } table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top }
th { font-weight: 600; white-space: nowrap } .number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.bar { position: relative; width: 11rem; height: .8rem; margin-top: .3rem; background: var(--soft) }
.bar i { display: block; height: 100%; background: var(--tone) }
.bar b { position: absolute; top: -.2rem; bottom: -.2rem; border-left: 2px solid currentColor }
.chip { border-left: .6rem solid var(--tone, #888); padding-left: .4rem; white-space: nowrap }
.CRITICAL, .failing, .missed { --tone: #c4162a } .HIGH, .false { --tone: #e8710a } .MEDIUM, .early { --tone: #e0b400 }
.LOW { --tone: #8cc265 } .MINIMAL, .right { --tone: #3f8f3a }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 0 3rem }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 0 } dd { margin: 0 }
</style>
</head>
<body>
"#;

/// What the page tells.
struct View<'a> {
    snapshot: Option<&'a Snapshot>,
    model: Option<&'a ModelCard>,
    /// Why the model cannot score what the config describes.
    misfit: Option<String>,
    started_at: Timestamp,
    now: Timestamp,
}

pub async fn status(State(app): State<Arc<App>>) -> Response {
    let serving = app.serving.load_full();
    let model = serving.model.as_deref();
    let page = render(&View {
        snapshot: serving.snapshot.as_deref(),
        model: serving.card().as_ref(),
        misfit: model.and_then(|bundle| learning::misfit(bundle, &serving.config)),
        started_at: app.started_at,
        now: (app.clock)(),
    });
    html(page, POLICY)
}

fn render(view: &View) -> String {
    let mut out = String::from(HEAD);
    let _ = write!(
        out,
        "<header><h1>forewarn <small>{}</small></h1>\n\
         <nav><a href=\"docs\">API docs</a><a href=\"redoc\">Redoc</a><a href=\"openapi.json\">openapi.json</a>\
         <a href=\"metrics\">metrics</a></nav>\n\
         <nav>JSON: <a href=\"api/v1/targets\">targets</a><a href=\"api/v1/incidents\">incidents</a>\
         <a href=\"api/v1/alerts\">alerts</a><a href=\"api/v1/model\">model</a><a href=\"api/v1/scoreboard\">scoreboard</a></nav></header>\n",
        env!("CARGO_PKG_VERSION"),
    );
    for note in notes(view) {
        let _ = writeln!(out, "<p class=\"note\">{note}</p>");
    }
    if let Some(snapshot) = view.snapshot {
        tiles(&mut out, snapshot);
        targets(&mut out, snapshot, view.model);
    }
    out.push_str("<div class=\"two\">\n");
    if let Some(card) = view.model {
        model_card(&mut out, card);
    }
    if let Some(snapshot) = view.snapshot {
        scoreboard(&mut out, &snapshot.scoreboard);
    }
    out.push_str("</div>\n");
    if let Some(snapshot) = view.snapshot {
        outcomes(&mut out, &snapshot.scoreboard.recent);
    }
    let _ = write!(
        out,
        "<p class=\"dim\">Running since {}; this page is of {} and loads itself anew every 30 s.</p>\n</body>\n</html>\n",
        format_moment(view.started_at),
        format_moment(view.now),
    );
    out
}

/// What keeps the numbers below from being what a reader would take them for.
fn notes(view: &View) -> Vec<String> {
    let mut notes = Vec::new();
    match (view.model, &view.misfit) {
        (None, _) => notes.push(
            "<b>No model is loaded: nothing is scored.</b> Train one with <code>forewarn train</code>.".into(),
        ),
        (_, Some(why)) => notes.push(format!(
            "<b>The model does not fit the config: no target is scored.</b> {}. <code>/predict</code> answers with the model's own signals. \
             Train a new one with <code>forewarn train</code>.",
            escaped(why),
        )),
        (Some(_), None) if view.snapshot.is_none() => {
            notes.push("The first cycle is not done yet.".into());
        }
        (Some(_), None) if view.snapshot.is_some_and(|s| !s.prometheus_up) => notes.push(
            "<b>Prometheus does not answer: no target is scored.</b> Check <code>prometheus.url</code>; <code>forewarn check queries</code> says what is wrong.".into(),
        ),
        _ => {}
    }
    if view
        .model
        .is_some_and(|card| card.model_origin == "simulated")
    {
        notes.push(
            "<b>The model was trained on simulated targets.</b> It shows how forewarn works; its probabilities say little about real hosts, and the shipped rules never page on it.".into(),
        );
    }
    notes
}

fn tiles(out: &mut String, snapshot: &Snapshot) {
    out.push_str("<div class=\"tiles\">\n");
    let mut tile = |count: usize, class: &str, name: &str| {
        let none = if count == 0 { " none" } else { "" };
        let _ = writeln!(
            out,
            "<div class=\"tile {class}{none}\"><b>{count}</b>{name}</div>"
        );
    };
    let assessments = &snapshot.assessments;
    let risk = |a: &Assessment| a.risk.as_ref().map(|risk| risk.level);
    for level in LEVELS {
        let count = assessments.iter().filter(|a| risk(a) == Some(level));
        tile(count.count(), level.name(), level.name());
    }
    for state in TargetState::ALL {
        let count = assessments.iter().filter(|a| a.state == state).count();
        if state != TargetState::Ok && (count > 0 || state == TargetState::Failing) {
            tile(count, state.name(), &state.name().replace('_', " "));
        }
    }
    out.push_str("</div>\n");
}

fn targets(out: &mut String, snapshot: &Snapshot, model: Option<&ModelCard>) {
    let mut rows: Vec<&Assessment> = snapshot.assessments.iter().collect();
    // Failing ones first, then by probability, then those that have none.
    let rank = |a: &Assessment| match (&a.risk, a.state) {
        (_, TargetState::Failing) => 2.0,
        (Some(risk), _) => risk.probability,
        (None, _) => -1.0,
    };
    rows.sort_by(|a, b| rank(b).total_cmp(&rank(a)));
    let horizon = model.map_or(String::new(), |card| {
        format!(" within {}", horizon_of(card))
    });
    let _ = writeln!(
        out,
        "<h2>Targets by risk</h2>\n<p class=\"dim\">How probable a failure{horizon} is, for {} targets as of {}; the mark in the bar is the alarm threshold.{}</p>",
        rows.len(),
        format_moment(snapshot.at),
        if rows.len() > ROWS {
            format!(" The first {ROWS} are shown.")
        } else {
            String::new()
        },
    );
    out.push_str("<div class=\"scroll\"><table>\n<tr><th>Target</th><th colspan=\"2\">Failure probability</th><th>Level or state</th><th>Why</th></tr>\n");
    for assessment in rows.into_iter().take(ROWS) {
        let labels: Vec<&str> = assessment.labels.iter().map(|(_, v)| v.as_str()).collect();
        let _ = write!(
            out,
            "<tr><td>{} <small>{}</small></td>",
            escaped(assessment.target.as_str()),
            escaped(&labels.join(" "))
        );
        let _ = match &assessment.risk {
            None => writeln!(
                out,
                "<td></td><td></td><td><span class=\"chip {0}\">{1}</span></td><td class=\"dim\">{2}</td></tr>",
                assessment.state.name(),
                assessment.state.name().replace('_', " "),
                explained(assessment.state),
            ),
            Some(risk) => writeln!(
                out,
                "<td>{0}</td><td class=\"number\">{1:.1} %</td><td><span class=\"chip {2}\">{2}</span></td><td>{3}</td></tr>",
                bar(risk, model),
                risk.probability * 100.0,
                risk.level.name(),
                reasons(risk, model),
            ),
        };
    }
    out.push_str("</table></div>\n");
}

fn bar(risk: &Risk, model: Option<&ModelCard>) -> String {
    let mark = model.map_or(String::new(), |card| {
        format!(
            "<b style=\"left:{:.1}%\"></b>",
            card.alert_threshold * 100.0
        )
    });
    format!(
        "<div class=\"bar {}\"><i style=\"width:{:.1}%\"></i>{mark}</div>",
        risk.level.name(),
        risk.probability * 100.0,
    )
}

/// Why a target has no probability.
fn explained(state: TargetState) -> &'static str {
    match state {
        TargetState::Ok => "",
        TargetState::WarmingUp => "new: its history is too short",
        TargetState::MissingData => "too few of its signals have samples",
        TargetState::Stale => "nothing new is known of it",
        TargetState::OutOfDistribution => "its values are unlike anything the model has seen",
        TargetState::Failing => "it is failing now",
        TargetState::Excluded => "it recovers from a failure, or a query excludes it",
    }
}

/// What raises a risk, in words.
fn reasons(risk: &Risk, model: Option<&ModelCard>) -> String {
    let signals = model.map_or(&[][..], |card| &card.signals);
    let raising: Vec<String> = risk
        .reasons
        .iter()
        .filter(|reason| reason.contribution > 0.0)
        .take(REASONS)
        .map(|reason| {
            format!(
                "<span title=\"{}: odds x{:.1}\">{}</span>",
                escaped(&reason.feature),
                reason.contribution.exp(),
                escaped(&reason.in_words(signals)),
            )
        })
        .collect();
    raising.join("<br>")
}

fn model_card(out: &mut String, card: &ModelCard) {
    let _ = write!(
        out,
        "<section><h2>Model</h2>\n<dl><dt>origin</dt><dd>{}</dd><dt>trained on data until</dt><dd>{}</dd><dt>horizon</dt><dd>{}</dd>\
         <dt>alarm threshold</dt><dd>{:.1} %</dd><dt>base rate</dt><dd>{:.2} % of the time a failure is that near</dd>\
         <dt>inputs</dt><dd>{} features of {} signals</dd><dt>id</dt><dd>{}</dd></dl></section>\n",
        escaped(&card.model_origin),
        format_moment(card.trained),
        horizon_of(card),
        card.alert_threshold * 100.0,
        card.base_rate * 100.0,
        card.features.len(),
        card.signals.len(),
        escaped(&card.model_id),
    );
}

fn scoreboard(out: &mut String, summary: &Summary) {
    let few = |what: &str| format!("<span class=\"dim\">too few yet: given from {what} on</span>");
    let percent = |ratio: Option<f64>, what: &str| {
        ratio.map_or_else(|| few(what), |r| format!("{:.0} %", r * 100.0))
    };
    let number =
        |number: Option<f64>, what: &str| number.map_or_else(|| few(what), |n| format!("{n:.3}"));
    let leads = &summary.lead_time_histogram;
    let lead = match leads.count {
        0 => few("one foreseen failure"),
        n => format_rough(Duration::from_secs_f64(leads.sum / n as f64)),
    };
    let _ = write!(
        out,
        "<section><h2>Scoreboard</h2>\n<dl><dt>alarms</dt><dd>{} right, {} early, {} false, {} undecided</dd>\
         <dt>failures</dt><dd>{} foreseen, {} missed</dd><dt>mean lead time</dt><dd>{lead}</dd>\
         <dt>precision</dt><dd>{}</dd><dt>recall</dt><dd>{}</dd><dt>false alarms per target and week</dt><dd>{}</dd>\
         <dt>Brier score</dt><dd>{}</dd><dt>calibration error</dt><dd>{}</dd></dl></section>\n",
        summary.right,
        summary.early,
        summary.r#false,
        summary.open,
        summary.foreseen,
        summary.missed,
        percent(summary.precision, &format!("{MIN_OUTCOMES} judged alarms")),
        percent(summary.recall, &format!("{MIN_OUTCOMES} failures")),
        number(summary.false_alarms_per_target_week, "one target-week"),
        number(summary.brier, &format!("{MIN_SCORES} judged scores")),
        number(
            summary.calibration_error,
            &format!("{MIN_SCORES} judged scores")
        ),
    );
}

fn outcomes(out: &mut String, recent: &[RecentOutcome]) {
    out.push_str("<h2>Recent outcomes</h2>\n");
    if recent.is_empty() {
        out.push_str(
            "<p class=\"dim\">No alarm has been judged and no failure was missed yet.</p>\n",
        );
        return;
    }
    out.push_str("<p class=\"dim\">Right: the failure came within the horizon. Early: it came later, within two. False: none came. Missed: no alarm before it.</p>\n");
    out.push_str("<div class=\"scroll\"><table>\n<tr><th>Target</th><th>Outcome</th><th>Alarm</th><th>Failure</th><th class=\"number\">Lead time</th><th class=\"number\">Probability at the alarm</th></tr>\n");
    let at = |secs: Option<f64>| {
        secs.map_or("none".into(), |s| {
            format_moment(Timestamp::from_secs_f64(s))
        })
    };
    for outcome in recent.iter().take(OUTCOMES) {
        let lead = outcome.lead_seconds.map_or(String::new(), |seconds| {
            format_rough(Duration::from_secs_f64(seconds.max(0.0)))
        });
        let probability = outcome
            .probability
            .map_or(String::new(), |p| format!("{:.0} %", p * 100.0));
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td><span class=\"chip {1}\">{1}</span></td><td>{2}</td><td>{3}</td><td class=\"number\">{lead}</td><td class=\"number\">{probability}</td></tr>",
            escaped(&outcome.target),
            escaped(&outcome.outcome),
            at(outcome.opened),
            at(outcome.incident),
        );
    }
    out.push_str("</table></div>\n");
}

fn horizon_of(card: &ModelCard) -> String {
    format_duration(Duration::from_secs_f64(card.horizon_seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assessment::{Live, Reason};
    use crate::model::Score;
    use crate::types::{Shard, Signal, TargetId, Unit};

    fn assessment(target: &str, probability: Option<f64>) -> Assessment {
        Assessment {
            target: TargetId::new(target),
            labels: Default::default(),
            live: Live::of_nothing(),
            state: probability.map_or(TargetState::Failing, |_| TargetState::Ok),
            risk: probability.map(|probability| Risk {
                probability,
                score: Score::default(),
                level: RiskLevel::High,
                shadow: None,
                reasons: vec![Reason {
                    feature: "a<b".into(),
                    value: None,
                    contribution: 0.5,
                }],
            }),
        }
    }

    fn view<'a>(snapshot: Option<&'a Snapshot>, model: Option<&'a ModelCard>) -> View<'a> {
        View {
            snapshot,
            model,
            misfit: None,
            started_at: Timestamp(0),
            now: Timestamp(0),
        }
    }

    fn card(origin: &str) -> ModelCard {
        let signal = |name: &str, unit| Signal {
            name: name.into(),
            unit,
        };
        ModelCard {
            model_id: "m".into(),
            model_origin: origin.into(),
            horizon_seconds: 1800.0,
            step_seconds: 60.0,
            trained_until: String::new(),
            trained: Timestamp(0),
            alert_threshold: 0.5,
            base_rate: 0.01,
            signals: vec![
                signal("cpu_usage", Unit::Percent),
                signal("cpu_usage_extra", Unit::None),
                signal("response_time_ms", Unit::Milliseconds),
            ],
            features: Vec::new(),
        }
    }

    #[test]
    fn targets_stand_by_risk_and_are_escaped() {
        let snapshot = Snapshot {
            at: Timestamp(0),
            prometheus_up: true,
            shard: Shard::WHOLE,
            assessments: vec![
                assessment("<script>alert('x')</script>", Some(0.2)),
                assessment("down", None),
                assessment("worst", Some(0.7)),
            ],
            scoreboard: Summary::default(),
            shadow: None,
            drift: None,
        };
        let page = render(&view(Some(&snapshot), None));
        let place = |text: &str| {
            page.find(text)
                .unwrap_or_else(|| panic!("no {text} in {page}"))
        };
        assert!(place("<td>down ") < place("<td>worst "));
        assert!(place("<td>worst ") < place("<td>&lt;script&gt;alert(&#39;x&#39;)"));
        assert!(page.contains("a&lt;b is missing"));
        assert!(!page.contains("<script"));
        assert!(!page.contains("http://") && !page.contains("https://"));
    }

    #[test]
    fn notes_say_what_is_wrong() {
        let snapshot = Snapshot {
            at: Timestamp(0),
            prometheus_up: true,
            shard: Shard::WHOLE,
            assessments: Vec::new(),
            scoreboard: Summary::default(),
            shadow: None,
            drift: None,
        };
        let down = Snapshot {
            prometheus_up: false,
            ..snapshot.clone()
        };
        let (card, simulated) = (card("history"), card("simulated"));
        let fine = view(Some(&snapshot), Some(&card));
        assert!(!render(&fine).contains("class=\"note\""));
        for (view, note) in [
            (view(None, None), "No model is loaded"),
            (view(None, Some(&card)), "first cycle is not done"),
            (view(Some(&snapshot), Some(&simulated)), "simulated targets"),
            (view(Some(&down), Some(&card)), "Prometheus does not answer"),
            (
                View {
                    misfit: Some("step is 1m in the model".into()),
                    ..view(None, Some(&card))
                },
                "step is 1m in the model",
            ),
        ] {
            assert!(render(&view).contains(note), "{note}");
        }
    }
}
