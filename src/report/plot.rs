//! Small charts as inline SVG: axes, lines, bars, marks. Colours come from the page's classes.

use std::fmt::Write;

use super::escaped;

const LEFT: f64 = 50.0;
const RIGHT: f64 = 12.0;
const BOTTOM: f64 = 40.0;
const TOP: f64 = 26.0;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Scale {
    Linear,
    Log,
    Logit,
}

impl Scale {
    fn apply(self, value: f64) -> f64 {
        match self {
            Scale::Linear => value,
            Scale::Log => value.max(f64::MIN_POSITIVE).ln(),
            Scale::Logit => {
                let p = value.clamp(1e-12, 1.0 - 1e-12);
                (p / (1.0 - p)).ln()
            }
        }
    }
}

/// One direction of a chart: what it shows, from where to where, and its ticks.
#[derive(Clone, Debug)]
pub struct Axis {
    label: String,
    scale: Scale,
    low: f64,
    high: f64,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// Round ticks over at least `low..=high`.
    pub fn linear(label: &str, low: f64, high: f64, about: usize) -> Self {
        let (low, high) = if low.is_finite() && high.is_finite() && low < high {
            (low, high)
        } else {
            let low = if low.is_finite() { low } else { 0.0 };
            (low, low + 1.0)
        };
        let step = round_step((high - low) / about.max(1) as f64);
        let (first, last) = ((low / step).floor(), (high / step).ceil());
        let decimals = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
        let ticks = (0..=(last - first) as usize)
            .map(|i| (first + i as f64) * step)
            .map(|value| (value, short(value, decimals)))
            .collect();
        Self {
            label: label.into(),
            scale: Scale::Linear,
            low: first * step,
            high: last * step,
            ticks,
        }
    }

    /// 0 to 100 %.
    pub fn share(label: &str) -> Self {
        Self {
            label: label.into(),
            scale: Scale::Linear,
            low: 0.0,
            high: 1.0,
            ticks: (0..=5)
                .map(|fifth| (f64::from(fifth) / 5.0, format!("{} %", 20 * fifth)))
                .collect(),
        }
    }

    /// Decades that hold `low..=high`; what is lower is drawn at the lower end.
    pub fn log(label: &str, low: f64, high: f64) -> Self {
        let exponent = |value: f64| value.max(1e-9).log10().clamp(-9.0, 12.0);
        let first = exponent(low).floor() as i32;
        let last = (exponent(high).ceil() as i32).max(first + 1);
        let every = ((last - first) / 6 + 1) as usize;
        Self {
            label: label.into(),
            scale: Scale::Log,
            low: 10_f64.powi(first),
            high: 10_f64.powi(last),
            ticks: (first..=last)
                .step_by(every)
                .map(|e| {
                    let decimals = usize::try_from(-e).unwrap_or(0);
                    (10_f64.powi(e), short(10_f64.powi(e), decimals))
                })
                .collect(),
        }
    }

    /// Probabilities with room at both ends, from `low` to as near to one as it is to zero.
    pub fn probability(label: &str, low: f64) -> Self {
        let low = low.clamp(1e-4, 0.05);
        let ticks = [0.0001, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999]
            .into_iter()
            .filter(|p| (low * 0.999..=1.0 - low * 0.999).contains(p))
            .map(|p| (p, format!("{} %", p * 100.0)))
            .map(|(p, text)| (p, text.chars().take(7).collect::<String>()))
            .collect();
        Self {
            label: label.into(),
            scale: Scale::Logit,
            low,
            high: 1.0 - low,
            ticks,
        }
    }

    /// Seconds before and after an event.
    pub fn around(label: &str, low: f64, high: f64) -> Self {
        const STEPS: [f64; 12] = [
            1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 21_600.0, 86_400.0,
        ];
        let high = high.max(low + 1.0);
        let step = STEPS
            .into_iter()
            .find(|step| (high - low) / step <= 8.0)
            .unwrap_or_else(|| round_step((high - low) / 6.0));
        let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
        let ticks = (first..=last)
            .map(|i| {
                let seconds = i as f64 * step;
                let span = std::time::Duration::from_secs_f64(seconds.abs());
                let text = match i {
                    0 => "0".to_string(),
                    i if i < 0 => format!("−{}", crate::time::format_duration(span)),
                    _ => format!("+{}", crate::time::format_duration(span)),
                };
                (seconds, text)
            })
            .collect();
        Self {
            label: label.into(),
            scale: Scale::Linear,
            low,
            high,
            ticks,
        }
    }

    pub fn low(&self) -> f64 {
        self.low
    }

    /// Share of the axis; the ends hold what lies beyond them. `None` for what is no number.
    fn at(&self, value: f64) -> Option<f64> {
        let (low, high) = (self.scale.apply(self.low), self.scale.apply(self.high));
        let share = (self.scale.apply(value) - low) / (high - low);
        share.is_finite().then(|| share.clamp(0.0, 1.0))
    }
}

/// 1, 2 or 5 times a power of ten, not below `rough`.
fn round_step(rough: f64) -> f64 {
    let power = 10_f64.powf(rough.max(1e-12).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|digit| digit * power)
        .find(|step| *step >= rough * (1.0 - 1e-9))
        .unwrap_or(10.0 * power)
}

fn short(value: f64, decimals: usize) -> String {
    // No minus before a zero.
    let value = value + 0.0;
    match value.abs() {
        size if size >= 1e12 => format!("{value:.0e}"),
        size if size >= 1e9 => format!("{:.0}G", value / 1e9),
        size if size >= 1e6 => format!("{:.0}M", value / 1e6),
        size if size >= 1e4 => format!("{:.0}k", value / 1e3),
        _ => format!("{value:.decimals$}"),
    }
}

/// A chart under construction; `class` names a style of the page.
pub struct Plot {
    title: String,
    description: String,
    width: f64,
    height: f64,
    bottom: f64,
    x: Axis,
    y: Axis,
    body: String,
}

impl Plot {
    pub fn new(
        title: &str,
        description: &str,
        (width, height): (f64, f64),
        x: Axis,
        y: Axis,
    ) -> Self {
        Self {
            title: title.into(),
            description: description.into(),
            width,
            height,
            bottom: BOTTOM,
            x,
            y,
            body: String::new(),
        }
    }

    /// Shares the x axis of the chart under it.
    pub fn without_x_labels(mut self) -> Self {
        self.bottom = 8.0;
        self
    }

    fn x(&self, value: f64) -> Option<f64> {
        Some(LEFT + self.x.at(value)? * (self.width - LEFT - RIGHT))
    }

    fn y(&self, value: f64) -> Option<f64> {
        Some(self.height - self.bottom - self.y.at(value)? * (self.height - TOP - self.bottom))
    }

    /// A line that breaks where a point is no number.
    pub fn line(&mut self, points: impl IntoIterator<Item = [f64; 2]>, class: &str) {
        let mut path = String::new();
        let mut pen = 'M';
        for [x, y] in points {
            match self.x(x).zip(self.y(y)) {
                Some((x, y)) => {
                    path.push_str(&format!("{pen}{x:.1} {y:.1}"));
                    pen = 'L';
                }
                None => pen = 'M',
            }
        }
        if !path.is_empty() {
            self.body
                .push_str(&format!("<path class=\"line {class}\" d=\"{path}\"/>"));
        }
    }

    /// A bar from the foot of the chart up to `y`.
    pub fn bar(&mut self, from: f64, to: f64, y: f64, class: &str) {
        if let (Some(left), Some(right), Some(top)) = (self.x(from), self.x(to), self.y(y)) {
            let foot = self.height - self.bottom;
            self.body.push_str(&format!(
                "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                (right - left - 1.0).max(0.5),
                foot - top,
            ));
        }
    }

    /// A dot with what it stands for as its tooltip.
    pub fn dot(&mut self, x: f64, y: f64, class: &str, words: &str) {
        if let (Some(x), Some(y)) = (self.x(x), self.y(y)) {
            self.body.push_str(&format!(
                "<circle class=\"dot {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{}</title></circle>",
                escaped(words)
            ));
        }
    }

    /// A span of x over the whole height.
    pub fn band(&mut self, from: f64, to: f64, class: &str) {
        if let (Some(left), Some(right)) = (self.x(from), self.x(to)) {
            self.body.push_str(&format!(
                "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{TOP:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                (right - left).max(1.0),
                self.height - self.bottom - TOP,
            ));
        }
    }

    pub fn vertical(&mut self, x: f64, class: &str, words: &str) {
        if let Some(at) = self.x(x) {
            let anchor = if at > self.width * 0.6 {
                "end"
            } else {
                "start"
            };
            let beside = if anchor == "end" { at - 4.0 } else { at + 4.0 };
            self.body.push_str(&format!(
                "<path class=\"line {class}\" d=\"M{at:.1} {TOP:.1}V{:.1}\"/><text x=\"{beside:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
                self.height - self.bottom,
                TOP + 11.0,
                escaped(words)
            ));
        }
    }

    pub fn horizontal(&mut self, y: f64, class: &str, words: &str) {
        if let Some(at) = self.y(y) {
            self.body.push_str(&format!(
                "<path class=\"line {class}\" d=\"M{LEFT:.1} {at:.1}H{:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                self.width - RIGHT,
                self.width - RIGHT - 2.0,
                if at < TOP + 16.0 { at + 13.0 } else { at - 4.0 },
                escaped(words)
            ));
        }
    }

    pub fn svg(&self) -> String {
        let mut out = format!(
            "<svg role=\"img\" viewBox=\"0 0 {} {}\"><title>{}</title><desc>{}</desc>",
            self.width,
            self.height,
            escaped(&self.title),
            escaped(&self.description)
        );
        self.write_axes(&mut out).unwrap_or_default();
        out.push_str(&self.body);
        out.push_str("</svg>");
        out
    }

    fn write_axes(&self, out: &mut String) -> std::fmt::Result {
        let foot = self.height - self.bottom;
        let right = self.width - RIGHT;
        for (value, text) in &self.y.ticks {
            if let Some(y) = self.y(*value) {
                write!(
                    out,
                    "<path class=\"grid\" d=\"M{LEFT:.1} {y:.1}H{right:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                    LEFT - 6.0,
                    y + 4.0,
                    escaped(text)
                )?;
            }
        }
        for (value, text) in &self.x.ticks {
            if let Some(x) = self.x(*value) {
                write!(
                    out,
                    "<path class=\"grid\" d=\"M{x:.1} {TOP:.1}V{foot:.1}\"/>"
                )?;
                if self.bottom >= BOTTOM {
                    write!(
                        out,
                        "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                        foot + 16.0,
                        escaped(text)
                    )?;
                }
            }
        }
        write!(
            out,
            "<text class=\"name\" x=\"4\" y=\"14\">{}</text>",
            escaped(&self.y.label)
        )?;
        if self.bottom >= BOTTOM {
            write!(
                out,
                "<text class=\"name\" x=\"{right:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                self.height - 6.0,
                escaped(&self.x.label)
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, text)| text.as_str()).collect()
    }

    #[test]
    fn ticks_are_round() {
        for (axis, expected) in [
            (Axis::linear("", 0.0, 100.0, 4), vec!["0", "50", "100"]),
            (
                Axis::linear("", 0.13, 0.41, 4),
                vec!["0.1", "0.2", "0.3", "0.4", "0.5"],
            ),
            (
                Axis::linear("", -3.0, 21_000.0, 3),
                vec!["-10k", "0", "10k", "20k", "30k"],
            ),
            (
                Axis::log("", 0.02, 40.0),
                vec!["0.01", "0.1", "1", "10", "100"],
            ),
            (
                Axis::probability("", 0.001),
                vec!["0.1 %", "1 %", "10 %", "50 %", "90 %", "99 %", "99.9 %"],
            ),
            (
                Axis::around("", -10_800.0, 1800.0),
                vec!["−3h", "−2h30m", "−2h", "−1h30m", "−1h", "−30m", "0", "+30m"],
            ),
        ] {
            assert_eq!(labels(&axis), expected);
        }
    }

    #[test]
    fn what_is_no_number_never_reaches_the_drawing() {
        let bad = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
        for low in bad.into_iter().chain([0.0, -1e300]) {
            for high in bad.into_iter().chain([0.0, 1e300]) {
                let mut plot = Plot::new(
                    "t",
                    "d",
                    (300.0, 200.0),
                    Axis::log("x", low, high),
                    Axis::linear("y", low, high, 4),
                );
                plot.line(
                    bad.map(|x| [x, 1.0]).into_iter().chain([[1.0, f64::NAN]]),
                    "c0",
                );
                plot.bar(f64::NAN, 1.0, 1.0, "c0");
                plot.dot(1.0, f64::NAN, "c0", "");
                plot.band(0.0, f64::NAN, "c0");
                plot.vertical(f64::NAN, "c0", "");
                plot.horizontal(f64::INFINITY, "c0", "");
                let svg = plot.svg();
                for wrong in ["NaN", "inf", "circle"] {
                    assert!(!svg.contains(wrong), "{wrong} at {low}..{high}: {svg}");
                }
            }
        }
    }

    #[test]
    fn a_line_breaks_at_a_gap_and_ends_at_the_frame() {
        let axis = || Axis::linear("", 0.0, 10.0, 2);
        let mut plot = Plot::new("", "", (162.0, 166.0), axis(), axis());
        plot.line(
            [[0.0, 0.0], [5.0, 5.0], [6.0, f64::NAN], [10.0, 99.0]],
            "c1",
        );
        assert!(
            plot.body
                .contains("d=\"M50.0 126.0L100.0 76.0M150.0 26.0\""),
            "{}",
            plot.body
        );
    }

    #[test]
    fn words_are_escaped() {
        let axis = || Axis::linear("<b>", 0.0, 1.0, 2);
        let mut plot = Plot::new("<i>", "\"&", (100.0, 100.0), axis(), axis());
        plot.vertical(0.5, "c0", "a<b");
        plot.dot(0.5, 0.5, "c0", "<u>");
        let svg = plot.svg();
        for raw in ["<b>", "<i>", "<u>", "a<b", "\"&<"] {
            assert!(!svg.contains(raw), "{raw}: {svg}");
        }
    }
}
