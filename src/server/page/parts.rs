//! Small pieces of the page.

use std::fmt::Write;
use std::time::Duration;

use super::View;
use crate::assessment::{Assessment, Reason};
use crate::course::{self, STEPS};
use crate::metrics::ModelCard;
use crate::report::escaped;
use crate::scoreboard::Reliability;
use crate::table;
use crate::time::{Timestamp, format_duration, format_moment, format_rough};
use crate::types::Signal;

/// Longer names are cut where they are only shown.
const SHOWN: usize = 80;
/// Longer ones make no link: servers and proxies refuse long addresses.
const LINKED: usize = 8 * 1024;
/// Points of a sparkline.
const POINTS: usize = course::FEWEST;
/// Scores of a bin from which its share is told.
const MIN_SCORES: u64 = 30;

pub fn percent(p: f64) -> String {
    let decimals = usize::from(!(0.1..=0.99).contains(&p));
    format!("{} %", table::percent(p, decimals))
}

/// With commas between thousands.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

pub fn count(number: usize, one: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{} {one}{s}", grouped(number))
}

pub fn short(name: &str) -> String {
    match name.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// For an address; `None` where that would be too long.
pub fn encoded(name: &str) -> Option<String> {
    let encoded: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
    (encoded.len() <= LINKED).then_some(encoded)
}

/// A target's name, which leads to all that is known of it. Names may be of any script and direction.
pub fn link(name: &str) -> String {
    let text = format!("<bdi>{}</bdi>", escaped(&short(name)));
    match encoded(name) {
        Some(encoded) => format!("<a href=\"./?target={}\">{text}</a>", escaped(&encoded)),
        None => text,
    }
}

pub fn time(t: Timestamp, now: Timestamp) -> String {
    let moment = format_moment(t);
    let (day, clock) = moment.split_once(' ').unwrap_or(("", &moment));
    let today = format_moment(now);
    let shown = if today.starts_with(day) {
        clock.to_owned()
    } else {
        format!("{day} {}", clock.get(..5).unwrap_or(clock))
    };
    format!(
        "<time datetime=\"{t}\">{}</time>",
        shown.replace(" UTC", "")
    )
}

pub fn ago(t: Timestamp, now: Timestamp) -> String {
    format!(
        "<span data-ago=\"{}\">{} ago</span>",
        t.0,
        rough(now.since(t))
    )
}

/// Two units at most.
pub fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let unit = match seconds {
        0..600 => 1,
        600..86_400 => 60,
        _ => 3600,
    };
    match seconds / unit * unit {
        0 => "0s".into(),
        seconds => format_duration(Duration::from_secs(seconds)),
    }
}

pub fn lead(seconds: f64) -> String {
    format_rough(Duration::from_secs_f64(seconds.max(0.0)))
}

pub fn horizon_of(card: &ModelCard) -> String {
    format_duration(Duration::from_secs_f64(card.horizon_seconds))
}

pub fn chip(class: &str, words: &str) -> String {
    format!("<span class=\"chip {class}\">{words}</span>")
}

/// The probability at the last steps with the alarm threshold; the highest of neighbouring steps is drawn.
pub fn sparkline(assessment: &Assessment, view: &View, (width, height): (usize, usize)) -> String {
    let said = assessment.course.probabilities();
    if said.iter().all(Option::is_none) {
        return String::new();
    }
    let per_point = steps_kept(view) / POINTS;
    let x = |place: usize| (place * width) as f64 / (POINTS - 1) as f64;
    let y = |p: f64| 1.0 + (1.0 - p) * (height as f64 - 2.0);
    let chunks: Vec<Option<f64>> = said
        .rchunks(per_point)
        .map(|chunk| chunk.iter().copied().flatten().reduce(f64::max))
        .collect();
    let (mut line, mut area) = (String::new(), String::new());
    let mut from: Option<f64> = None;
    let mut last = 0.0;
    let close = |area: &mut String, from: &mut Option<f64>, last: f64| {
        if let Some(start) = from.take() {
            let _ = write!(area, "L{last:.0} {height}L{start:.0} {height}Z");
        }
    };
    for (back, value) in chunks.iter().enumerate().rev() {
        let Some(p) = value else {
            close(&mut area, &mut from, last);
            continue;
        };
        let at = x(POINTS - 1 - back.min(POINTS - 1));
        let pen = if from.is_none() { 'M' } else { 'L' };
        let point = format!("{pen}{at:.0} {:.1}", y(*p));
        line.push_str(&point);
        area.push_str(&point);
        if from.is_none() {
            // A point alone shows as a dot.
            line.push_str("h0");
        }
        from.get_or_insert(at);
        last = at;
    }
    close(&mut area, &mut from, last);
    let mark = view.card.map_or(String::new(), |card| {
        let at = y(card.alert_threshold);
        format!("<path class=\"threshold\" d=\"M0 {at:.1}H{width}\"/>")
    });
    let values = || said.iter().flatten().copied();
    let (low, high) = (values().fold(1.0, f64::min), values().fold(0.0, f64::max));
    let span = view.serving.config.step * said.len().saturating_sub(1) as u32;
    format!(
        "<svg class=\"spark\" viewBox=\"0 0 {width} {height}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"between {} and {} over the last {}\">\
         <path class=\"area\" d=\"{area}\"/><path class=\"course\" d=\"{line}\"/>{mark}</svg>",
        percent(low),
        percent(high),
        rough(span),
    )
}

/// Steps that are kept of each target.
pub fn steps_kept(view: &View) -> usize {
    course::kept(
        view.snapshot
            .map_or(0, |snapshot| snapshot.assessments.len()),
    )
}

/// By how much the probability has changed within the last horizon.
pub fn change(assessment: &Assessment, steps: usize) -> Option<f64> {
    Some(assessment.course.ago(0)? - assessment.course.ago(steps)?)
}

/// Steps in a horizon.
pub fn steps_back(view: &View) -> usize {
    let config = &view.serving.config;
    let steps = config.horizon.as_millis() / config.step.as_millis().max(1);
    (steps as usize).clamp(1, STEPS - 1)
}

/// Reasons as bars: to the right what raises the risk, to the left what lowers it.
pub fn bars(reasons: &[Reason], signals: &[Signal], most: usize) -> String {
    let shown = &reasons[..reasons.len().min(most)];
    let strongest = shown
        .iter()
        .map(|reason| reason.contribution.abs())
        .fold(f64::MIN_POSITIVE, f64::max);
    let zero = match shown.iter().any(|reason| reason.contribution < 0.0) {
        true => 50.0,
        false => 0.0,
    };
    let mut out = String::from("<ul class=\"reasons\">");
    for reason in shown {
        let length = (100.0 - zero) * reason.contribution.abs() / strongest;
        let (class, x, verb) = if reason.contribution > 0.0 {
            ("up", zero, "raises")
        } else {
            ("down", zero - length, "lowers")
        };
        let times = reason.contribution.abs().exp();
        let factor = if times >= 100.0 {
            "more than 100".into()
        } else {
            format!("{times:.1}")
        };
        let _ = write!(
            out,
            "<li title=\"{}: {verb} the odds {factor} times\"><svg class=\"bar {class}\" viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\" role=\"img\" \
             aria-label=\"{verb} the odds {factor} times:\"><rect x=\"{x:.1}\" width=\"{length:.1}\" height=\"10\"/><path d=\"M{zero} 0V10\"/></svg> <span>{}</span></li>",
            escaped(&reason.feature),
            escaped(&reason.in_words(signals)),
        );
    }
    out.push_str("</ul>");
    out
}

/// How often a failure followed when such a probability was said, where that is known.
pub fn came_true(reliability: &[Reliability], p: f64) -> Option<String> {
    let bin = reliability
        .iter()
        .find(|bin| bin.low <= p && (p < bin.high || bin.high >= 1.0))
        .filter(|bin| bin.scores >= MIN_SCORES)?;
    Some(format!(
        "Lately {} of the {} scores between {} and {} came true.",
        percent(bin.observed),
        grouped(bin.scores as usize),
        percent(bin.low),
        percent(bin.high),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_for_people() {
        assert_eq!(
            [999, 1000, 1_234_567].map(grouped),
            ["999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [0.0006, 0.001, 0.0949, 0.5, 0.9951].map(percent),
            ["0.06 %", "0.1 %", "9.5 %", "50 %", "99.5 %"]
        );
        assert_eq!(count(1, "target"), "1 target");
        assert_eq!(short(&"ü".repeat(81)), format!("{}…", "ü".repeat(80)));
        let (now, then) = (Timestamp(86_400_000 + 45_000), Timestamp(3_600_000));
        assert_eq!(
            time(then, now),
            "<time datetime=\"1970-01-01T01:00:00Z\">1970-01-01 01:00</time>"
        );
        assert_eq!(
            time(now, now),
            "<time datetime=\"1970-01-02T00:00:45Z\">00:00:45</time>"
        );
        assert_eq!(rough(Duration::from_secs(90_061)), "1d1h");
    }

    #[test]
    fn hostile_names_stay_text() {
        let name = "<script>\"'&\u{202e}";
        assert_eq!(
            link(name),
            "<a href=\"./?target=%3Cscript%3E%22%27%26%E2%80%AE\"><bdi>&lt;script&gt;&quot;&#39;&amp;\u{202e}</bdi></a>"
        );
        let long = link(&"ü".repeat(10_000));
        assert!(!long.contains("href") && long.len() < 300, "{long:.400}");
    }
}
