//! All targets: what is about to fail, why and what to do; what fails now; the list.

use std::borrow::Cow;
use std::fmt::Write;

use super::ask::{Ask, Show, Sort};
use super::parts::{
    bars, came_true, change, chip, count, grouped, horizon_of, lead, link, percent, rough, short,
    sparkline, steps_back, steps_kept, time,
};
use super::{View, quality, within};
use crate::assessment::{Assessment, Risk, Snapshot};
use crate::report::escaped;
use crate::server::advice::Advice;
use crate::time::{Timestamp, format_duration};
use crate::types::{RiskLevel, Signal, TargetState};

/// Targets of a page.
const ROWS: usize = 50;
/// Targets that are told of above the list.
const CARDS: usize = 3;
const FAILING: usize = 4;
/// Reasons of a card and of a row.
const REASONS: usize = 3;
const IN_A_ROW: usize = 2;
/// Recommendations of a card.
const ACTIONS: usize = 2;

/// For the tab: what matters first.
pub fn title(view: &View) -> String {
    let Some(snapshot) = view.snapshot else {
        return "forewarn".into();
    };
    let (alarming, failing) = (alarming(view, snapshot).len(), failing(snapshot).len());
    match (alarming, failing) {
        (0, 0) => "forewarn".into(),
        (0, failing) => format!("{failing} failing · forewarn"),
        (alarming, 0) => format!("{alarming} at risk · forewarn"),
        (alarming, failing) => format!("{alarming} at risk, {failing} failing · forewarn"),
    }
}

/// A dot of the colour of the highest level.
pub fn icon(view: &View) -> String {
    let levels = view.snapshot.map_or(&[][..], |s| &s.assessments).iter();
    let highest = levels
        .filter_map(|a| a.risk.as_ref())
        .map(|r| r.level)
        .max();
    let colour = match highest {
        None => "8e8e8e",
        Some(RiskLevel::Minimal) => "56a64b",
        Some(RiskLevel::Low) => "96d98d",
        Some(RiskLevel::Medium) => "f2cc0c",
        Some(RiskLevel::High) => "ff780a",
        Some(RiskLevel::Critical) => "c4162a",
    };
    format!(
        "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Ccircle cx='8' cy='8' r='7' fill='%23{colour}'/%3E%3C/svg%3E"
    )
}

/// What is worth a look now: at the alarm threshold, or far from zero whatever that is.
fn is_alarming(view: &View, risk: &Risk) -> bool {
    risk.level >= RiskLevel::Medium
        || view
            .card
            .is_some_and(|card| risk.probability >= card.alert_threshold)
}

fn alarming<'a>(view: &View, snapshot: &'a Snapshot) -> Vec<(&'a Assessment, &'a Risk)> {
    let mut found: Vec<_> = snapshot
        .assessments
        .iter()
        .filter_map(|a| Some((a, a.risk.as_ref()?)))
        .filter(|(_, risk)| is_alarming(view, risk))
        .collect();
    found.sort_by(|(_, a), (_, b)| b.probability.total_cmp(&a.probability));
    found
}

fn failing(snapshot: &Snapshot) -> Vec<&Assessment> {
    let all = snapshot.assessments.iter();
    all.filter(|a| a.state == TargetState::Failing).collect()
}

pub fn page(out: &mut String, view: &View) {
    let Some(snapshot) = view.snapshot else {
        quality::page(out, view, None);
        return;
    };
    out.push_str("<div id=\"verdict\" data-live>\n");
    verdict(out, view, snapshot);
    out.push_str("</div>\n");
    targets(out, view, snapshot);
    quality::page(out, view, Some(snapshot));
}

fn verdict(out: &mut String, view: &View, snapshot: &Snapshot) {
    let (alarming, failing) = (alarming(view, snapshot), failing(snapshot));
    let scored = snapshot.assessments.iter().filter(|a| a.risk.is_some());
    let within = within(view);
    let now = match failing.len() {
        1 => "1 target is failing".to_owned(),
        failing => format!("{} are failing", count(failing, "target")),
    };
    let (class, words) = match (alarming.as_slice(), failing.as_slice()) {
        ([], []) if scored.clone().count() == 0 => (
            "unknown",
            "Nothing is known: no target has a probability".to_owned(),
        ),
        ([], []) => ("calm", format!("No target is expected to fail{within}")),
        ([], _) => ("failing", format!("{now}, no other is expected to{within}")),
        ([(only, risk)], _) => (
            risk.level.name(),
            format!(
                "<bdi>{}</bdi> {} fail{within}",
                escaped(&short(only.target.as_str())),
                likely(risk)
            ),
        ),
        ([(_, risk), ..], _) => (
            risk.level.name(),
            format!("{} may fail{within}", count(alarming.len(), "target")),
        ),
    };
    let _ = writeln!(
        out,
        "<section class=\"verdict {class}\" aria-labelledby=\"say\"><div><h1 id=\"say\">{words}</h1>"
    );
    if alarming.is_empty()
        && let Some((highest, risk)) = scored
            .filter_map(|a| Some((a, a.risk.as_ref()?)))
            .max_by(|(_, a), (_, b)| a.probability.total_cmp(&b.probability))
    {
        let _ = writeln!(
            out,
            "<p>The highest probability is {}, of {}.</p>",
            percent(risk.probability),
            link(highest.target.as_str())
        );
    }
    if !failing.is_empty() {
        out.push_str("<ul class=\"failing-now\">");
        for assessment in failing.iter().take(FAILING) {
            let _ = write!(
                out,
                "<li>{} {} {}</li>",
                chip("failing", "failing"),
                link(assessment.target.as_str()),
                how_failing(view, snapshot, assessment),
            );
        }
        if failing.len() > FAILING {
            let _ = write!(
                out,
                "<li><a href=\"./?show=failing#targets\">and {} more failing</a></li>",
                grouped(failing.len() - FAILING)
            );
        }
        out.push_str("</ul>\n");
    }
    out.push_str("</div>");
    quality::record(out, snapshot);
    out.push_str("</section>\n");
    if alarming.is_empty() {
        return;
    }
    out.push_str("<div class=\"cards\">\n");
    for (assessment, risk) in alarming.iter().take(CARDS) {
        card(out, view, snapshot, assessment, risk);
    }
    out.push_str("</div>\n");
    if alarming.len() > CARDS {
        let _ = writeln!(
            out,
            "<p class=\"more\"><a href=\"#targets\">{} more in the list</a></p>",
            grouped(alarming.len() - CARDS)
        );
    }
}

fn likely(risk: &Risk) -> &'static str {
    if risk.probability > 0.5 {
        "is likely to"
    } else {
        "may"
    }
}

/// Since when, and whether it was foreseen.
pub fn how_failing(view: &View, snapshot: &Snapshot, assessment: &Assessment) -> String {
    let start = assessment.live.read().incidents().last().map(|i| i.start);
    let Some(start) = start else {
        return String::new();
    };
    let lead_time = snapshot
        .scoreboard
        .recent
        .iter()
        .filter(|outcome| outcome.target == assessment.target.as_str())
        .find(|outcome| outcome.incident.map(Timestamp::from_secs_f64) == Some(start))
        .map(|outcome| outcome.lead_seconds);
    let foreseen = match lead_time {
        Some(Some(seconds)) => format!(", foreseen {} before", lead(seconds)),
        Some(None) => ", missed".into(),
        None => String::new(),
    };
    format!(
        "since {} ({}){foreseen}",
        time(start, view.now),
        rough(view.now.since(start))
    )
}

/// How long it has been at the alarm threshold, and where it was a horizon ago.
pub fn course_in_words(view: &View, assessment: &Assessment) -> String {
    let Some(card) = view.card else {
        return String::new();
    };
    let above = assessment.course.steps_above(card.alert_threshold);
    let since = match above {
        0 => String::new(),
        above => {
            let span = view.serving.config.step * above as u32;
            format!("At the alarm threshold or above for {}.", rough(span))
        }
    };
    let before = assessment.course.ago(steps_back(view));
    match before {
        Some(p) => format!("{since} It was {} {} ago.", percent(p), horizon_of(card)),
        None => since,
    }
}

fn advice(view: &View, assessment: &Assessment) -> Option<Advice> {
    let bundle = view.serving.model.as_deref()?;
    Advice::of(assessment, bundle, view.serving.config.model.serve)
}

fn signals<'a>(view: &View<'a>) -> &'a [Signal] {
    view.card.map_or(&[], |card| &card.signals)
}

fn card(out: &mut String, view: &View, snapshot: &Snapshot, assessment: &Assessment, risk: &Risk) {
    let _ = write!(
        out,
        "<article class=\"card {0}\"><header><h2>{1}</h2><b class=\"big\">{2}</b>{3}</header>{4}<p class=\"dim\">{5}</p>",
        risk.level.name(),
        link(assessment.target.as_str()),
        percent(risk.probability),
        chip(risk.level.name(), risk.level.name()),
        sparkline(assessment, view, (360, 64)),
        course_in_words(view, assessment),
    );
    if let Some(advice) = advice(view, assessment) {
        let raising: Vec<_> = advice
            .reasons
            .iter()
            .filter(|reason| reason.contribution > 0.0)
            .cloned()
            .collect();
        let _ = write!(
            out,
            "<div class=\"pair\"><div><h3>Why</h3>{}</div><div><h3>Do</h3><ol class=\"actions\">",
            bars(&raising, signals(view), REASONS)
        );
        for action in advice.recommendations.iter().take(ACTIONS) {
            let _ = write!(out, "<li>{}</li>", escaped(action));
        }
        out.push_str("</ol></div></div>");
    }
    if let Some(words) = came_true(&snapshot.scoreboard.reliability, risk.probability) {
        let _ = write!(out, "<p class=\"dim\">{words}</p>");
    }
    out.push_str("</article>\n");
}

fn targets(out: &mut String, view: &View, snapshot: &Snapshot) {
    let ask = &view.ask;
    out.push_str("<section id=\"targets\" aria-labelledby=\"all\">\n<h2 id=\"all\">Targets</h2>\n");
    filter(out, ask, snapshot);
    let mut rows: Vec<&Assessment> = snapshot
        .assessments
        .iter()
        .filter(|assessment| ask.matches(assessment))
        .collect();
    sort(&mut rows, ask, steps_back(view));
    let found = rows.len();
    let pages = found.div_ceil(ROWS).max(1);
    let page = ask.page.min(pages - 1);
    let shown: Vec<&Assessment> = rows.into_iter().skip(page * ROWS).take(ROWS).collect();
    let of_all = if ask.is_filtered() {
        format!(" of {}", grouped(snapshot.assessments.len()))
    } else {
        String::new()
    };
    let place = match (found, shown.len()) {
        (0, _) => String::new(),
        (_, shown) if shown == found => String::new(),
        (_, shown) => format!(
            ", {} to {} are shown",
            grouped(page * ROWS + 1),
            grouped(page * ROWS + shown)
        ),
    };
    let _ = write!(
        out,
        "<p id=\"count\" data-live role=\"status\" tabindex=\"-1\">{}{of_all}{place}.{}</p>\n<div id=\"rows\" data-live>\n",
        count(found, "target"),
        if ask.is_filtered() {
            " <a id=\"clear\" data-swap href=\"./#targets\">Show all</a>"
        } else {
            ""
        }
    );
    if found > 0 {
        table(out, view, snapshot, &shown);
    } else if ask.is_filtered() {
        out.push_str("<p class=\"none\">No target is like that.</p>\n");
    }
    pager(out, ask, page, pages);
    out.push_str("</div>\n</section>\n");
}

fn filter(out: &mut String, ask: &Ask, snapshot: &Snapshot) {
    let _ = write!(
        out,
        "<form id=\"filter\" role=\"search\" method=\"get\" action=\"./#targets\">\n\
         <input type=\"search\" name=\"q\" value=\"{}\" maxlength=\"200\" placeholder=\"Search names and labels\" aria-label=\"Search names and labels\" autocomplete=\"off\" spellcheck=\"false\">\n",
        escaped(&ask.words),
    );
    if (ask.sort, ask.turned) != Default::default() {
        let _ = writeln!(
            out,
            "<input type=\"hidden\" name=\"sort\" value=\"{}\">",
            ask.sort_value()
        );
    }
    out.push_str("<fieldset><legend>Only levels and states</legend>\n");
    for show in Show::all() {
        let in_it = snapshot.assessments.iter().filter(|a| Show::of(a) == show);
        let in_it = in_it.count();
        let is_asked = ask.show.contains(&show);
        let is_level = matches!(show, Show::Level(_)) || show == Show::State(TargetState::Failing);
        let hidden = if in_it == 0 && !is_asked && !is_level {
            " hidden"
        } else {
            ""
        };
        let _ = writeln!(
            out,
            "<label class=\"tile {0}{1}\" id=\"tile-{0}\"{hidden}><input type=\"checkbox\" name=\"show\" value=\"{0}\"{2}> <b id=\"n-{0}\" data-live>{3}</b> {4}</label>",
            show.name(),
            if in_it == 0 { " empty" } else { "" },
            if is_asked { " checked" } else { "" },
            grouped(in_it),
            show.words(),
        );
    }
    out.push_str("</fieldset>\n<button>Apply</button>\n</form>\n");
}

fn sort(rows: &mut [&Assessment], ask: &Ask, steps: usize) {
    // Failing ones first, then by probability, then those that have none.
    let risk = |a: &Assessment| match (&a.risk, a.state) {
        (_, TargetState::Failing) => 2.0,
        (Some(risk), _) => risk.probability,
        (None, _) => -1.0,
    };
    let state = |a: &Assessment| Show::all().position(|show| show == Show::of(a));
    match ask.sort {
        Sort::Risk => rows.sort_by(|a, b| risk(b).total_cmp(&risk(a))),
        // As they are.
        Sort::Target => {}
        Sort::Change => rows.sort_by_cached_key(|a| {
            let risen = change(a, steps).map(|change| (change * 1e4).round() as i64);
            std::cmp::Reverse(risen.unwrap_or(i64::MIN))
        }),
        Sort::State => rows.sort_by_key(|a| state(a)),
    }
    if ask.turned {
        rows.reverse();
    }
}

fn table(out: &mut String, view: &View, snapshot: &Snapshot, rows: &[&Assessment]) {
    let ask = &view.ask;
    out.push_str("<table>\n<thead><tr>");
    let ago = match view.card {
        Some(card) => format!("Change in {}", horizon_of(card)),
        None => "Change".into(),
    };
    for (sort, words) in [
        (Sort::Target, Cow::from("Target")),
        (Sort::Risk, Cow::from("Probability")),
        (Sort::Change, Cow::from(ago)),
        (Sort::State, Cow::from("Level or state")),
    ] {
        let is_it = ask.sort == sort;
        let turned = is_it && !ask.turned;
        let link = Ask {
            sort,
            turned,
            page: 0,
            target: None,
            ..ask.clone()
        };
        let descends = matches!(sort, Sort::Risk | Sort::Change) != ask.turned;
        let (order, arrow) = match (is_it, descends) {
            (false, _) => ("none", ""),
            (true, true) => ("descending", " ↓"),
            (true, false) => ("ascending", " ↑"),
        };
        let _ = write!(
            out,
            "<th scope=\"col\" class=\"{0}\" aria-sort=\"{order}\"><a id=\"sort-{0}\" data-swap href=\"{1}\">{words}<span aria-hidden=\"true\">{arrow}</span></a></th>",
            sort.name(),
            escaped(&link.href()),
        );
        if sort == Sort::Risk {
            let span = view.serving.config.step * (steps_kept(view) as u32);
            let _ = write!(
                out,
                "<th scope=\"col\" class=\"past\">Last {}</th>",
                format_duration(span)
            );
        }
    }
    out.push_str("<th scope=\"col\">Why</th></tr></thead>\n<tbody>\n");
    for assessment in rows {
        row(out, view, snapshot, assessment);
    }
    out.push_str("</tbody></table>\n");
}

fn row(out: &mut String, view: &View, snapshot: &Snapshot, assessment: &Assessment) {
    let labels: Vec<&str> = assessment.labels.iter().map(|(_, v)| v.as_str()).collect();
    let labels = short(&labels.join(" "));
    let show = Show::of(assessment);
    let _ = write!(
        out,
        "<tr class=\"{}\"><th scope=\"row\">{} <small>{}</small></th>",
        show.name(),
        link(assessment.target.as_str()),
        escaped(&labels)
    );
    let probability = assessment.risk.as_ref().map(|risk| risk.probability);
    let moved = change(assessment, steps_back(view)).map_or(String::new(), |change| {
        let points = (change * 100.0).round() as i64;
        match points {
            0 => "<span class=\"dim\">±0</span>".into(),
            1.. => format!("<span class=\"up\">+{points}</span>"),
            _ => format!("<span class=\"down\">−{}</span>", -points),
        }
    });
    let _ = write!(
        out,
        "<td class=\"number\">{}</td><td class=\"past\">{}</td><td class=\"number\">{moved}</td><td>{}</td><td>",
        probability.map_or(String::new(), percent),
        sparkline(assessment, view, (120, 28)),
        chip(show.name(), &show.words()),
    );
    match &assessment.risk {
        None => {
            let words = match assessment.state {
                TargetState::Failing => how_failing(view, snapshot, assessment),
                state => explained(state).into(),
            };
            let _ = write!(out, "<span class=\"dim\">{words}</span>");
        }
        Some(risk) if risk.level > RiskLevel::Minimal => {
            let reasons = match risk.reasons.is_empty() {
                true => advice(view, assessment).map_or(Vec::new(), |advice| advice.reasons),
                false => risk.reasons.clone(),
            };
            let raising: Vec<_> = reasons
                .into_iter()
                .filter(|reason| reason.contribution > 0.0)
                .collect();
            out.push_str(&bars(&raising, signals(view), IN_A_ROW));
        }
        Some(_) => {}
    }
    out.push_str("</td></tr>\n");
}

/// Why a target has no probability.
pub fn explained(state: TargetState) -> &'static str {
    match state {
        TargetState::Ok => "",
        TargetState::WarmingUp => "new: its history is too short",
        TargetState::MissingData => "too few of its signals have recent samples",
        TargetState::Stale => "nothing new is known of it: Prometheus does not answer",
        TargetState::OutOfDistribution => "its values are unlike anything the model has seen",
        TargetState::Failing => "it is failing now",
        TargetState::Excluded => "it recovers from a failure, or a query excludes it",
    }
}

fn pager(out: &mut String, ask: &Ask, page: usize, pages: usize) {
    if pages < 2 {
        return;
    }
    out.push_str("<nav class=\"pages\" aria-label=\"Pages\">");
    let mut to = |id: &str, words: &str, to: Option<usize>| {
        let _ = match to {
            Some(page) => {
                let link = Ask {
                    page,
                    target: None,
                    ..ask.clone()
                };
                let href = escaped(&link.href());
                writeln!(
                    out,
                    "<a id=\"{id}\" data-swap href=\"{href}#targets\">{words}</a>"
                )
            }
            None => writeln!(out, "<span class=\"dim\">{words}</span>"),
        };
    };
    let last = pages - 1;
    let is_later = page > 0;
    to("first", "First", is_later.then_some(0));
    to("previous", "Previous", page.checked_sub(1));
    to("next", "Next", (page < last).then_some(page + 1));
    to("last", "Last", (page < last).then_some(last));
    let _ = writeln!(
        out,
        "<span>Page {} of {}</span></nav>",
        grouped(page + 1),
        grouped(pages)
    );
}
