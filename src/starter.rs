//! The text of a first `config.yaml`: the shipped one, with what was found in its place.

use std::time::Duration;

use crate::config::SHIPPED;
use crate::survey::{Incidents, Survey};
use crate::time::format_duration;
use crate::training::{FEW_INCIDENTS, MIN_INCIDENTS};
use crate::types::Unit;

/// A config for what was found; `prometheus` is the text of that section.
pub fn render(survey: &Survey, prometheus: &str) -> String {
    let found = &survey.found;
    let preset = found.preset;
    let mut text = format!(
        "# Written by `forewarn init` on {}: the preset {}, {}; targets: {}.\n",
        survey.at, preset.name, preset.title, found.targets
    );
    if let Some(young) = survey.young() {
        text.push_str(&comment("", &format!("{young}.")));
    }
    text.push_str(part("# Check an edited file", "# A target is what"));
    let from = text.find("prometheus:\n").unwrap_or(text.len());
    text.truncate(from);
    text.push_str(prometheus.trim_end());
    text.push_str("\n\n# A target is what is predicted for: one value of a label, or one combination of several.\n");
    text.push_str(&comment("", &preset.note));
    text.push_str(&format!(
        "targets:\n  label: {}\n  extra_labels: [{}]  # copied from the signals' series on to the published ones\n\n",
        list(&preset.label),
        preset.extra_labels.join(", ")
    ));
    text.push_str(&signals(survey));
    text.push_str(part("step: 1m", "# What a failure is"));
    text.push_str(&failure(survey));
    text.push_str(part("  min_duration:", ""));
    text
}

/// The section `prometheus` with this address, and more keys below it.
pub fn prometheus(url: &str, keys: &str) -> String {
    let section = part("prometheus:\n", "\n# A target is what");
    let (head, rest) = section.split_once("  url: ").unwrap_or((section, ""));
    let (_, rest) = rest.split_once('#').unwrap_or(("", rest));
    let (about, rest) = rest.split_once('\n').unwrap_or((rest, ""));
    format!("{head}  url: {:<28} #{about}\n{keys}{rest}", quote(url))
}

/// A YAML text.
pub fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/:._-".contains(c);
    match text.chars().all(plain) && !text.is_empty() {
        true => text.to_owned(),
        false => serde_json::Value::from(text).to_string(),
    }
}

/// The shipped config from the line that begins with `from` up to the one that begins with `to`.
fn part(from: &str, to: &str) -> &'static str {
    let start = SHIPPED.find(&format!("\n{from}")).map_or(0, |at| at + 1);
    let rest = &SHIPPED[start..];
    let end = match to {
        "" => None,
        to => rest.find(&format!("\n{}", to.trim_start_matches('\n'))),
    };
    &rest[..end.map_or(rest.len(), |at| at + 1)]
}

fn signals(survey: &Survey) -> String {
    let mut text = String::from(
        "# The model's inputs. Each query must return at most one series per target. A target may lack some.\n\
         # More of your own are welcome, with any names ([a-z_][a-z0-9_]*): what goes before a failure is worth more\n\
         # than these. Units: percent (0-100) | ratio (0-1) | milliseconds | seconds | count | bytes | none.\n\
         # What is commented out has no data for most targets now; the reason is beside it.\n\
         signals:\n",
    );
    for signal in &survey.signals {
        let body = format!(
            "  {}:\n    query: |-\n{}\n    unit: {}\n",
            signal.name,
            indented("      ", &escaped(&signal.query)),
            signal.unit.name()
        );
        match &signal.left_out {
            None => {
                let now = signal.value.map_or(String::new(), |value| {
                    format!(" One of them now: {}.", with_unit(value, signal.unit))
                });
                let said = format!(
                    "{} Data for {} of {} targets.{now}",
                    signal.about, signal.targets, survey.found.targets
                );
                text.push_str(&comment("  ", &said));
                text.push_str(&body);
            }
            Some(why) => {
                text.push_str(&comment(
                    "  ",
                    &format!("{} Left out: {why}.", signal.about),
                ));
                text.push_str(&commented(&body));
            }
        }
    }
    text.push('\n');
    text
}

fn failure(survey: &Survey) -> String {
    let mut text = String::from(
        "# What a failure is: at least one query or alert. While a query returns a sample for a target, that target is\n\
         # failing, as with an alert's expr. The label failure_mode names the kind of failure in reports; nothing is\n\
         # learned from it.\n",
    );
    text.push_str(&comment("", &verdict(survey)));
    text.push_str("failure:\n  queries:\n");
    let since = since(survey);
    for failure in &survey.failures {
        let query = format!(
            "label_replace(\n{},\n  \"failure_mode\", \"{}\", \"\", \"\")",
            indented("  ", &failure.query),
            failure.name
        );
        let body = format!("    - |-\n{}\n", indented("      ", &escaped(&query)));
        let counted = failure.incidents.map_or(String::new(), |incidents| {
            format!(" Counted {since}: {}.", counted(incidents))
        });
        match &failure.left_out {
            None => {
                let said = format!("{}: {}{counted}", failure.name, failure.about);
                text.push_str(&comment("    ", &said));
                text.push_str(&body);
            }
            Some(why) => {
                let said = format!(
                    "{}: {}{counted} Left out: {why}.",
                    failure.name, failure.about
                );
                text.push_str(&comment("    ", &said));
                text.push_str(&commented(&body));
            }
        }
    }
    text.push_str("  # The same for firing alerts with all of these labels: their history is read from Prometheus (ALERTS), and from\n  # what /webhook/alertmanager has stored.\n");
    for alerts in &survey.alerts {
        if alerts.incidents.incidents == 0 {
            continue;
        }
        let names: Vec<&str> = alerts.names.iter().map(String::as_str).collect();
        let said = format!(
            "{{severity: {}}} would be {} {since}: {}.",
            alerts.severity,
            counted(alerts.incidents),
            names.join(", ")
        );
        text.push_str(&comment("  ", &said));
    }
    text.push_str(
        "  alerts: []                        # for example [{severity: critical, team: web}]\n",
    );
    text
}

/// What the counted incidents are good for, in plain words.
pub fn verdict(survey: &Survey) -> String {
    let found = format!("{} {}", counted(survey.incidents), since(survey));
    let ways = "What helps: to count more as a failure (what is left out here, alerts of yours); a longer history; until \
                then the shipped model (models/default), which answers POST /predict for its own seven signals";
    match survey.incidents.incidents {
        n if n < MIN_INCIDENTS => format!("{found}: too few to learn from. {ways}."),
        n if n < FEW_INCIDENTS => {
            format!("{found}: few, so that a model's figures will be rough. {ways}.")
        }
        _ => format!("{found}: enough to learn from."),
    }
}

fn since(survey: &Survey) -> String {
    let span = survey.at.since(survey.counted_since).as_secs().max(1);
    let unit = [86_400, 3600].into_iter().find(|unit| span >= 2 * unit);
    let unit = unit.unwrap_or(60);
    let whole = Duration::from_secs(span.div_ceil(unit) * unit);
    format!("in the last {}", format_duration(whole))
}

/// "3 incidents on 2 targets"
pub fn counted(found: Incidents) -> String {
    let plural = |n: usize| if n == 1 { "" } else { "s" };
    match found {
        Incidents { incidents: 0, .. } => "no incident".into(),
        Incidents { incidents, targets } => format!(
            "{incidents} incident{} on {targets} target{}",
            plural(incidents),
            plural(targets)
        ),
    }
}

/// A sample for people: `37.2 %`, `1.3 GiB`.
pub fn with_unit(value: f64, unit: Unit) -> String {
    let short = |value: f64| {
        let digits = match value.abs() {
            v if v == 0.0 || v >= 100.0 => 0,
            v if v >= 10.0 => 1,
            v if v >= 0.1 => 2,
            _ => 4,
        };
        let text = format!("{value:.digits$}");
        match text.contains('.') {
            true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
            false => text,
        }
    };
    match unit {
        Unit::Percent => format!("{} %", short(value)),
        Unit::Milliseconds => format!("{} ms", short(value)),
        Unit::Seconds => format!("{} s", short(value)),
        Unit::Bytes => {
            let units = ["B", "KiB", "MiB", "GiB", "TiB"];
            let mut size = value;
            let mut unit = 0;
            while size.abs() >= 1024.0 && unit + 1 < units.len() {
                size /= 1024.0;
                unit += 1;
            }
            format!("{} {}", short(size), units[unit])
        }
        Unit::Count | Unit::Ratio | Unit::None => short(value),
    }
}

fn list(labels: &[String]) -> String {
    match labels {
        [one] => one.clone(),
        labels => format!("[{}]", labels.join(", ")),
    }
}

/// What would be a variable of the environment is a text.
fn escaped(query: &str) -> String {
    query.replace("${", "$${")
}

fn indented(by: &str, text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("{by}{line}")).collect();
    lines.join("\n")
}

/// The same as a comment, at the same depth.
fn commented(body: &str) -> String {
    let depth = body.len() - body.trim_start().len();
    let (indent, _) = body.split_at(depth);
    body.lines()
        .map(|line| format!("{indent}# {}\n", &line[depth.min(line.len())..]))
        .collect()
}

/// Comment lines of at most 110 places.
fn comment(indent: &str, text: &str) -> String {
    let (mut lines, mut line) = (String::new(), String::new());
    for word in text.split_whitespace() {
        if !line.is_empty() && indent.len() + line.chars().count() + word.chars().count() > 108 {
            lines.push_str(&format!("{indent}#{line}\n"));
            line.clear();
        }
        line.push(' ');
        line.push_str(word);
    }
    format!("{lines}{indent}#{line}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Environment};
    use crate::presets;
    use crate::survey::{AlertsFound, FailureFound, Found, SignalFound};
    use crate::time::Timestamp;

    /// Everything of a preset was found, but for its second signal and failure.
    fn survey(preset: &'static presets::Preset) -> Survey {
        let jobs = ["a \"job\"".to_owned(), "${b}".to_owned()];
        let left_out = |i| (i == 1).then(|| "a\nreason: #with {odd} characters".to_owned());
        let signals = preset
            .signals
            .iter()
            .enumerate()
            .map(|(i, signal)| SignalFound {
                name: &signal.name,
                unit: signal.unit,
                about: &signal.about,
                query: presets::with_jobs(&signal.queries[0], &jobs),
                targets: 3,
                value: Some(0.5),
                left_out: left_out(i),
            });
        let failures = preset
            .failures
            .iter()
            .enumerate()
            .map(|(i, failure)| FailureFound {
                name: &failure.name,
                about: &failure.about,
                query: presets::with_jobs(&failure.variants[0].query, &jobs),
                incidents: None,
                left_out: left_out(i),
            });
        let incidents = Incidents {
            incidents: 12,
            targets: 1,
        };
        Survey {
            signals: signals.collect(),
            failures: failures.collect(),
            found: Found {
                preset,
                targets: 3,
                jobs: jobs.to_vec(),
            },
            since: Timestamp(0),
            counted_since: Timestamp(0),
            at: Timestamp(7_200_000),
            incidents,
            alerts: vec![AlertsFound {
                severity: "page",
                incidents,
                names: ["Down".to_owned()].into(),
                elsewhere: 0,
            }],
            notes: Vec::new(),
        }
    }

    #[test]
    fn every_preset_makes_a_sound_config_that_is_as_shipped_otherwise() {
        let env = Environment::default();
        let shipped = Config::parse(SHIPPED, "shipped", &env).unwrap();
        for preset in presets::all() {
            let keys = "  basic_auth: {username: a, password: b}\n";
            let text = render(&survey(preset), &prometheus("http://p:9090/x", keys));
            let config = Config::parse(&text, "written", &env);
            let config = config.unwrap_or_else(|problems| panic!("{problems}\n{text}"));
            let names: Vec<&str> = config
                .signals
                .iter()
                .map(|s| s.signal.name.as_str())
                .collect();
            let mut expected: Vec<&str> = preset.signals.iter().map(|s| s.name.as_str()).collect();
            expected.remove(1);
            assert_eq!(names, expected);
            assert_eq!(
                config.signals[0].query,
                preset.signals[0].queries[0].replace("$jobs", r#"job=~"a \"job\"|\\$\\{b\\}""#)
            );
            assert_eq!(config.failure.queries.len(), preset.failures.len() - 1);
            assert!(
                config.failure.queries[0].contains(r#""failure_mode", ""#),
                "{text}"
            );
            assert_eq!(config.targets.label, preset.label);
            assert_eq!(config.targets.extra_labels, preset.extra_labels);
            assert_eq!(config.prometheus.url, "http://p:9090/x");
            assert!(config.prometheus.auth.is_some());
            let rest = Config {
                prometheus: shipped.prometheus.clone(),
                targets: shipped.targets.clone(),
                signals: shipped.signals.clone(),
                failure: crate::config::FailureConfig {
                    queries: shipped.failure.queries.clone(),
                    ..config.failure.clone()
                },
                ..config
            };
            assert_eq!(rest, shipped);
            assert!(
                text.contains(
                    "{severity: page} would be 12 incidents on 1 target in the last 2h: Down."
                ),
                "{text}"
            );
            assert!(text.lines().all(|line| line.trim_end() == line), "{text}");
        }
    }

    #[test]
    fn samples_are_written_for_people() {
        for (value, unit, expected) in [
            (37.216, Unit::Percent, "37.2 %"),
            (0.0, Unit::Percent, "0 %"),
            (123.4, Unit::Milliseconds, "123 ms"),
            (0.123_456, Unit::Seconds, "0.12 s"),
            (0.001_23, Unit::None, "0.0012"),
            (0.000_001, Unit::None, "0"),
            (1_610_612_736.0, Unit::Bytes, "1.5 GiB"),
            (-5.0, Unit::None, "-5"),
            (100.0, Unit::Count, "100"),
        ] {
            assert_eq!(with_unit(value, unit), expected);
        }
    }

    #[test]
    fn the_verdict_says_what_helps() {
        let mut survey = survey(presets::named("node").unwrap());
        assert_eq!(
            verdict(&survey),
            "12 incidents on 1 target in the last 2h: enough to learn from."
        );
        survey.incidents = Incidents::default();
        let text = verdict(&survey);
        for part in [
            "no incident in the last 2h: too few",
            "count more",
            "longer history",
            "shipped model",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
