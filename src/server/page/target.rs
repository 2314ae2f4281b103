//! One target: its course, why, what to do, its signals, what has happened to it.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::ask::Show;
use super::overview::{course_in_words, explained, how_failing};
use super::parts::{bars, came_true, chip, encoded, lead, percent, rough, short, time};
use super::{View, dashboard_of, within};
use crate::assessment::Assessment;
use crate::report::{Axis, Plot, escaped};
use crate::risk::with_unit;
use crate::server::advice::Advice;
use crate::server::happenings::{Happening, Kind};
use crate::state::UNWATCHED;
use crate::time::Timestamp;
use crate::types::{Signal, Source, TargetState};
use crate::window::Window;

/// Reasons told.
const REASONS: usize = 8;

pub fn unknown(out: &mut String, view: &View, name: &str) {
    let elsewhere = view
        .snapshot
        .and_then(|snapshot| snapshot.is_elsewhere(name));
    let hint = match (elsewhere, view.snapshot) {
        (Some(where_it_is), _) => escaped(&where_it_is),
        (None, None) => "no cycle is done yet".into(),
        (None, Some(_)) => "it may be gone, or have another name: search below".into(),
    };
    let _ = writeln!(
        out,
        "<p class=\"note bad\"><b><bdi>{}</bdi> is not among the targets of the last cycle</b>: {hint}.</p>",
        escaped(&short(name)),
    );
}

pub fn page(out: &mut String, view: &View, assessment: &Assessment) {
    let Some(snapshot) = view.snapshot else {
        return;
    };
    let name = assessment.target.as_str();
    let show = Show::of(assessment);
    let _ = write!(
        out,
        "<p class=\"back\"><a href=\"./\">← All targets</a></p>\n<article id=\"detail\" data-live class=\"detail {}\">\n<header><h1><bdi>{}</bdi></h1>",
        show.name(),
        escaped(name),
    );
    if let Some(risk) = &assessment.risk {
        let _ = write!(out, "<b class=\"big\">{}</b>", percent(risk.probability));
    }
    let _ = write!(out, "{}</header>\n<p>", chip(show.name(), &show.words()));
    match &assessment.risk {
        Some(risk) => {
            let _ = write!(
                out,
                "It fails{} with a probability of {}. {}",
                within(view),
                percent(risk.probability),
                course_in_words(view, assessment),
            );
            if let Some(words) = came_true(&snapshot.scoreboard.reliability, risk.probability) {
                let _ = write!(out, " {words}");
            }
        }
        None if assessment.state == TargetState::Failing => {
            let how = how_failing(view, snapshot, assessment);
            let comma = if how.is_empty() { "" } else { ", " };
            let _ = write!(
                out,
                "It is failing now{comma}{how}. {}It gets no probability until it has recovered.",
                seen_by(view)
            );
        }
        None => {
            let _ = write!(
                out,
                "It has no probability: {}.",
                explained(assessment.state)
            );
        }
    }
    out.push_str("</p>\n<p class=\"dim\">");
    for (label, value) in assessment.labels.iter() {
        let _ = write!(
            out,
            "<span class=\"label\">{}=<bdi>{}</bdi></span> ",
            escaped(label),
            escaped(&short(value))
        );
    }
    if let Some(dashboard) = dashboard_of(view, name) {
        let _ = write!(
            out,
            "<a rel=\"noreferrer\" href=\"{dashboard}\">Dashboard in Grafana</a> "
        );
    }
    if let Some(encoded) = encoded(name) {
        let _ = write!(
            out,
            "<a href=\"api/v1/targets/{}\">JSON</a>",
            escaped(&encoded.replace('+', "%20"))
        );
    }
    out.push_str("</p>\n");
    course(out, view, assessment);
    out.push_str("<div class=\"two\">\n");
    let bundle = view.serving.model.as_deref();
    let serve = view.serving.config.model.serve;
    let signals = view.card.map_or(&[][..], |card| &card.signals);
    if let Some(advice) = bundle.and_then(|bundle| Advice::of(assessment, bundle, serve)) {
        out.push_str("<section><h2>What to do</h2><ol class=\"actions\">");
        for action in &advice.recommendations {
            let _ = write!(out, "<li>{}</li>", escaped(action));
        }
        let _ = write!(
            out,
            "</ol></section>\n<section><h2>Why</h2>{}<p class=\"dim\">To the right what raises the risk, to the left what lowers it.</p></section>\n",
            bars(&advice.reasons, signals, REASONS)
        );
    }
    happened(out, view);
    if let Some(bundle) = bundle {
        let live = assessment.live.read();
        // Of another shape only between a change of the model and the next cycle.
        if live.window().signals() == bundle.catalogue.signals().len() {
            readings(out, view, bundle.catalogue.signals(), live.window());
        }
    }
    out.push_str("</div>\n</article>\n");
}

/// What the failure that goes on is known from, as far as it is stored: of a query not which of several.
fn seen_by(view: &View) -> String {
    let open = || {
        let all = view.happenings.iter().flatten().flatten();
        all.filter(|happening| happening.end.is_none())
    };
    let Some(incident) = open().find(|one| one.kind == Kind::Incident) else {
        return String::new();
    };
    if incident.name.as_deref() == Some(Source::Query.name()) {
        return match view.serving.config.failure.queries.as_slice() {
            [query] => format!(
                "The failure query says so: <code>{}</code>. ",
                escaped(query.trim())
            ),
            several => format!("One of the {} failure queries says so. ", several.len()),
        };
    }
    // forewarn's own alerts have no verdict; they are no failures.
    let alerts = open().filter(|one| one.kind == Kind::Alert && one.verdict.is_some());
    let names: BTreeSet<&str> = alerts.filter_map(|one| one.name.as_deref()).collect();
    match names.len() {
        0 => "An alert says so. ".into(),
        _ => {
            let names: Vec<String> = names.iter().map(|name| escaped(&short(name))).collect();
            format!("An alert says so; open now: {}. ", names.join(", "))
        }
    }
}

/// The probability at the last steps, with failures and alarms in that time.
fn course(out: &mut String, view: &View, assessment: &Assessment) {
    let said = assessment.course.probabilities();
    let Some(at) = view.snapshot.map(|snapshot| snapshot.at) else {
        return;
    };
    if said.iter().all(Option::is_none) {
        out.push_str("<p class=\"dim\">It had no probability since forewarn runs, or in the last steps.</p>\n");
        return;
    }
    let step = view.serving.config.step.as_secs_f64();
    let first = -step * said.len().saturating_sub(1).max(30) as f64;
    let mut plot = Plot::new(
        "Failure probability",
        "Of this target at the last steps, with the alarm threshold, failures (shaded) and alarms (upright lines)",
        (960.0, 220.0),
        Axis::around("time before the newest cycle", first, 0.0),
        Axis::share("failure probability; dashed: the alarm threshold"),
    );
    let before = |t: Timestamp| t.as_secs_f64() - at.as_secs_f64();
    let happenings = view.happenings.iter().flatten().flatten();
    for happening in happenings {
        let start = before(happening.start);
        let end = happening.end.map_or(0.0, before);
        match happening.kind {
            Kind::Incident if end > first => plot.band(start.max(first), end.min(0.0), "incident"),
            _ => {}
        }
        // A foreseen incident stands for its alarm too.
        let opened = match (happening.kind, happening.lead_seconds) {
            (Kind::Incident, Some(lead)) => Some(start - lead),
            (Kind::Alarm, _) => Some(start),
            _ => None,
        };
        if let Some(opened) = opened.filter(|opened| *opened > first) {
            plot.vertical(opened, "alarm", "alarm");
        }
    }
    let times = (0..said.len()).map(|i| -step * (said.len() - 1 - i) as f64);
    let points = times.zip(&said).map(|(x, p)| [x, p.unwrap_or(f64::NAN)]);
    plot.line(points, "said");
    if let Some(card) = view.card {
        plot.horizontal(card.alert_threshold, "threshold", "");
    }
    let _ = writeln!(out, "<figure class=\"wide\">{}</figure>", plot.svg());
}

fn happened(out: &mut String, view: &View) {
    out.push_str("<section><h2>Incidents and alerts</h2>\n");
    match &view.happenings {
        None => out.push_str(
            "<p class=\"dim\">State is off (<code>state.enabled</code>), so that none is kept.</p>",
        ),
        Some(Err(why)) => {
            let _ = write!(
                out,
                "<p class=\"note bad\">They cannot be read: {}</p>",
                escaped(why)
            );
        }
        Some(Ok(happenings)) if happenings.is_empty() => {
            out.push_str("<p class=\"dim\">None is recorded.</p>");
        }
        Some(Ok(happenings)) => {
            out.push_str("<table class=\"plain\"><thead><tr><th scope=\"col\">What</th><th scope=\"col\">When</th><th scope=\"col\">Verdict</th></tr></thead><tbody>\n");
            for happening in happenings {
                happening_row(out, view, happening);
            }
            out.push_str("</tbody></table>");
        }
    }
    out.push_str("</section>\n");
}

fn happening_row(out: &mut String, view: &View, happening: &Happening) {
    let name = happening.name.as_deref().unwrap_or_default();
    let what = match happening.kind {
        Kind::Incident => format!("incident <small>{}</small>", escaped(name)),
        Kind::Alarm => format!(
            "alarm <small>{}</small>",
            happening.probability.map_or(String::new(), percent)
        ),
        Kind::Alert => format!("alert <small>{}</small>", escaped(&short(name))),
    };
    let until = match (happening.kind, happening.end) {
        (Kind::Alarm, _) => String::new(),
        (_, Some(end)) => format!(" for {}", rough(end.since(happening.start))),
        (_, None) => ", still".into(),
    };
    let before = happening.lead_seconds.map_or(String::new(), |seconds| {
        format!(" {} before", lead(seconds))
    });
    let (class, words) = match happening.verdict {
        Some("foreseen") => ("right", format!("✓ foreseen{before}")),
        Some("missed") => ("missed", "! not foreseen".into()),
        Some(UNWATCHED) => ("open", "not watched yet".into()),
        Some("early") => ("early", format!("~ early,{before} it")),
        Some("uncertain") => ("open", "? somebody acted".into()),
        Some("false") => ("false", "✗ false alarm".into()),
        Some(_) => ("open", "undecided".into()),
        None => ("", "sent by forewarn".into()),
    };
    let _ = writeln!(
        out,
        "<tr><td>{what}</td><td>{}{until}</td><td><span class=\"outcome {class}\">{words}</span></td></tr>",
        time(happening.start, view.now),
    );
}

/// The signals' newest samples and their course over the lookback.
fn readings(out: &mut String, view: &View, signals: &[Signal], window: &Window) {
    let fresh = view.serving.config.features.fresh_steps;
    let _ = writeln!(
        out,
        "<section><h2>Signals</h2><table class=\"plain\"><thead><tr><th scope=\"col\">Signal</th><th scope=\"col\" class=\"number\">Now</th><th scope=\"col\">Last {}</th></tr></thead><tbody>",
        rough(view.serving.config.step * window.lookback() as u32),
    );
    for (place, signal) in signals.iter().enumerate() {
        let samples: Vec<Option<f32>> = (0..window.lookback())
            .rev()
            .map(|lag| window.get(place, lag))
            .collect();
        let newest = samples.iter().rev().take(fresh).find_map(|sample| *sample);
        let now = newest.map_or("<span class=\"dim\">no recent sample</span>".into(), |v| {
            with_unit(f64::from(v), signal.unit)
        });
        let _ = writeln!(
            out,
            "<tr><th scope=\"row\">{}</th><td class=\"number\">{now}</td><td>{}</td></tr>",
            escaped(&signal.name),
            drawn(&samples, signal),
        );
    }
    out.push_str("</tbody></table></section>\n");
}

fn drawn(samples: &[Option<f32>], signal: &Signal) -> String {
    let known = || samples.iter().flatten().map(|v| f64::from(*v));
    let (low, high) = (
        known().fold(f64::INFINITY, f64::min),
        known().fold(f64::NEG_INFINITY, f64::max),
    );
    if low > high {
        return String::new();
    }
    // What has a limit is drawn up to it, other signals from zero or their lowest to their highest.
    let (bottom, top) = match signal.unit.limit() {
        Some(limit) => (0.0, limit),
        None => (
            low.min(0.0),
            if high > low.min(0.0) { high } else { low + 1.0 },
        ),
    };
    let mut path = String::new();
    let mut pen = 'M';
    for (i, sample) in samples.iter().enumerate() {
        match sample {
            Some(value) => {
                let x = i as f64 * 160.0 / (samples.len().max(2) - 1) as f64;
                let share = (f64::from(*value) - bottom) / (top - bottom);
                let _ = write!(
                    path,
                    "{pen}{x:.0} {:.1}",
                    1.0 + (1.0 - share.clamp(0.0, 1.0)) * 26.0
                );
                pen = 'L';
            }
            None => pen = 'M',
        }
    }
    format!(
        "<svg class=\"spark\" viewBox=\"0 0 160 28\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"between {} and {}\"><path class=\"course\" d=\"{path}\"/></svg>",
        with_unit(low, signal.unit),
        with_unit(high, signal.unit),
    )
}
