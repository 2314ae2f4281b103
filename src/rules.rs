//! Rule files: whether what they read of forewarn exists, and whether they agree with the config.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_yaml::Spanned;

use crate::config::{Config, nearest};
use crate::exported::Exported;
use crate::promql::{self, Selector};
use crate::time::{format_duration, parse_duration};

/// What Prometheus and its service discovery add to every sample of a scrape.
const SCRAPED: [&str; 3] = ["job", "instance", "__name__"];

#[derive(Deserialize)]
struct RuleFile {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    name: String,
    #[serde(default)]
    rules: Vec<RawRule>,
}

#[derive(Deserialize)]
struct RawRule {
    alert: Option<Spanned<String>>,
    record: Option<Spanned<String>>,
    expr: String,
    #[serde(rename = "for")]
    for_: Option<String>,
    keep_firing_for: Option<String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// One rule of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    pub group: String,
    /// Of the alert or the recorded series.
    pub name: String,
    pub line: usize,
    pub is_alert: bool,
    pub expr: String,
    for_: Option<String>,
    keep_firing_for: Option<String>,
    annotations: Vec<String>,
}

/// What is said of a rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Remark {
    /// 0 where the whole file is meant.
    pub line: usize,
    pub group: String,
    pub rule: String,
    pub message: String,
}

#[derive(Debug, Default)]
pub struct Remarks {
    pub problems: Vec<Remark>,
    pub warnings: Vec<Remark>,
}

impl Rule {
    fn names(&self) -> (bool, &str) {
        (self.is_alert, &self.name)
    }

    pub fn remark(&self, message: String) -> Remark {
        Remark {
            line: self.line,
            group: self.group.clone(),
            rule: self.name.clone(),
            message,
        }
    }
}

/// The rules of a file, or why it is none.
pub fn parse(text: &str) -> Result<Vec<Rule>, String> {
    let wrong = |error: serde_yaml::Error| {
        let text = error.without_snippet().to_string();
        format!("is no file of rule groups: {text}")
    };
    let file: RuleFile = serde_yaml::from_str(text).map_err(wrong)?;
    let rule = |group: &str, raw: RawRule| {
        let (name, is_alert) = match (raw.alert, raw.record) {
            (Some(alert), None) => (alert, true),
            (None, Some(record)) => (record, false),
            _ => {
                return Err(format!(
                    "group {group} has a rule that must have either `alert` or `record`: {}",
                    raw.expr.trim()
                ));
            }
        };
        Ok(Rule {
            group: group.to_owned(),
            line: name.referenced.line() as usize,
            name: name.value,
            is_alert,
            expr: raw.expr,
            for_: raw.for_,
            keep_firing_for: raw.keep_firing_for,
            annotations: raw.annotations.into_values().collect(),
        })
    };
    let groups = file.groups.into_iter();
    let rules = groups.flat_map(|group| {
        let name = group.name;
        let rules = group.rules.into_iter();
        rules.map(move |raw| rule(&name, raw)).collect::<Vec<_>>()
    });
    rules.collect()
}

/// Rules that two of the files have in common, said of the later one: a server that loads both evaluates each twice.
pub fn twice(files: &[(&Path, Vec<Rule>)]) -> Vec<(usize, Remark)> {
    let pairs = (0..files.len()).flat_map(|later| (0..later).map(move |first| (first, later)));
    let said = pairs.filter_map(|(first, later)| {
        let ((path, known), (_, rules)) = (&files[first], &files[later]);
        let known: BTreeSet<(bool, &str)> = known.iter().map(Rule::names).collect();
        let common: BTreeSet<(bool, &str)> = rules
            .iter()
            .map(Rule::names)
            .filter(|names| known.contains(names))
            .collect();
        let (_, example) = common.first()?;
        let message = format!(
            "has {} of the rules of {} too, such as {example}: a server that loads both files sends each alert twice. Load one of them; of the shipped ones forewarn.rules.yml is for Prometheus, forewarn-vmalert.rules.yml for vmalert",
            common.len(),
            path.display()
        );
        let remark = Remark {
            message,
            ..Remark::default()
        };
        Some((later, remark))
    });
    said.collect()
}

/// What is wrong with a rule, as far as no server need be asked; `recorded` are the series that rules make.
pub fn check(
    rule: &Rule,
    config: &Config,
    exported: &Exported,
    recorded: &BTreeSet<String>,
) -> Remarks {
    let mut remarks = Remarks::default();
    let mut problem = |message| remarks.problems.push(rule.remark(message));
    if let Some(what) = promql::unclosed(&rule.expr) {
        problem(format!("the expression does not parse: {what}"));
    }
    let selectors = promql::selectors(&rule.expr);
    let read = selectors.iter().map(|selector| selector.metric.as_str());
    let told = rule.annotations.iter().flat_map(|text| words(text));
    let names: BTreeSet<&str> = read.chain(told).collect();
    for name in names {
        let ours = name.starts_with("forewarn_") || name.starts_with("failure_prob");
        if ours && !exported.contains_key(name) && !recorded.contains(name) {
            let hint = nearest(name, exported.keys().map(String::as_str));
            let hint = hint.map_or("see docs/metrics.md".into(), |name| {
                format!("did you mean {name}?")
            });
            problem(format!("forewarn has no metric {name}; {hint}"));
        }
    }
    for selector in &selectors {
        let Some(labels) = exported.get(&selector.metric) else {
            continue;
        };
        for matcher in selector.matchers.iter().filter_map(|text| parted(text)) {
            let (label, values) = matcher;
            let Some(known) = labels.get(label) else {
                let scraped = SCRAPED.contains(&label);
                if !scraped && !config.targets.extra_labels.iter().any(|one| one == label) {
                    remarks.warnings.push(rule.remark(format!(
                        "forewarn gives {} no label {label}: right only if the scrape adds it",
                        selector.metric
                    )));
                }
                continue;
            };
            for value in values {
                if !known.is_empty() && !known.contains(value) {
                    let known: Vec<&str> = known.iter().map(String::as_str).collect();
                    remarks.problems.push(rule.remark(format!(
                        "{label} of {} is never {value:?}, only one of {}",
                        selector.metric,
                        known.join(", ")
                    )));
                }
            }
        }
    }
    if rule.is_alert && selectors.iter().any(|s| s.metric == "failure_probability") {
        let (problems, warnings) = page(rule, &selectors, config);
        let remark = |message| rule.remark(message);
        remarks.problems.extend(problems.into_iter().map(remark));
        remarks.warnings.extend(warnings.into_iter().map(remark));
    }
    remarks
}

/// An alert about targets against the config. Where an engine knows no `keep_firing_for`, the expression looks back itself.
fn page(rule: &Rule, selectors: &[Selector], config: &Config) -> (Vec<String>, Vec<String>) {
    let mut problems = Vec::new();
    let ranges = promql::ranges(&rule.expr);
    let subquery = ranges.iter().find_map(|range| range.split_once(':'));
    let range = ranges.iter().find(|range| !range.contains(':'));
    let mut duration = |key: &str, written: Option<&str>| -> Option<Duration> {
        let read = written.map(parse_duration).transpose();
        read.unwrap_or_else(|error| {
            problems.push(format!("{key}: {error}"));
            None
        })
    };
    let looks_back = subquery.map(|(range, _)| range.trim());
    let (waits_by, waits) = match (&rule.for_, looks_back) {
        (None, Some(_)) => ("the range of its first window", range.map(String::as_str)),
        (written, _) => ("`for`", written.as_deref()),
    };
    let (stays_by, stays) = match (&rule.keep_firing_for, looks_back) {
        (None, Some(range)) => ("the range of its subquery", Some(range)),
        (written, _) => ("`keep_firing_for`", written.as_deref()),
    };
    let waits = duration(waits_by, waits).unwrap_or_default();
    let stays = duration(stays_by, stays).unwrap_or_default();
    let (for_, horizon) = (config.alerting.for_, config.horizon);
    if waits != for_ {
        problems.push(format!(
            "{waits_by} is {}, but alerting.for of the config, by which alarms are counted, is {}: set them to the same",
            format_duration(waits),
            format_duration(for_)
        ));
    }
    if stays < horizon {
        problems.push(format!(
            "{stays_by} is {}, but the horizon is {}: it would resolve at the moment of the failure, when the probability goes away; set it to {1} or more",
            format_duration(stays),
            format_duration(horizon)
        ));
    }
    let real = |matcher: &String| matches!(parted(matcher), Some(("origin", values)) if values.contains(&"simulated"));
    let asks = |selector: &Selector| {
        selector.metric == "forewarn_model_info" && selector.matchers.iter().any(real)
    };
    let warning = "fires for a model of the simulator as well: add `and on () forewarn_model_info{origin!=\"simulated\"}`";
    let warnings = (!selectors.iter().any(asks)).then(|| warning.to_owned());
    (problems, warnings.into_iter().collect())
}

/// Label of a matcher and what it is compared with: of a regular expression the alternatives, if all are plain words.
fn parted(matcher: &str) -> Option<(&str, Vec<&str>)> {
    let at = matcher.find(['=', '!'])?;
    let (label, rest) = matcher.split_at(at);
    let value = rest.trim_start_matches(['=', '!', '~']).trim();
    let value = value.get(1..value.len().checked_sub(1)?)?;
    let plain = value
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'|');
    let values = match rest.get(..2)?.ends_with('~') {
        true if plain => value.split('|').collect(),
        true => Vec::new(),
        false => vec![value],
    };
    let values = values.into_iter().filter(|value| !value.is_empty());
    Some((label.trim(), values.collect()))
}

/// What may be the name of a metric in a text.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;
    use crate::exported::exported;

    fn config(text: &str) -> Config {
        let whole = include_str!("../config.yaml");
        let text = text.lines().fold(whole.to_owned(), |config, line| {
            let (key, _) = line.split_once(':').unwrap();
            let from = config.find(&format!("\n{key}:")).unwrap() + 1;
            let until = from + config[from..].find('\n').unwrap();
            format!("{}{line}{}", &config[..from], &config[until..])
        });
        Config::parse(&text, "config.yaml", &Environment::default()).unwrap()
    }

    #[test]
    fn what_two_files_have_in_common_is_said_once() {
        let alert = |name: &str| format!("- {{alert: {name}, expr: up == 0}}\n");
        let file = |rules: &[&str]| {
            let rules: String = rules.iter().map(|name| alert(name)).collect();
            parse(&format!(
                "groups:\n- name: g\n  rules:\n{}",
                rules.replace("- {", "  - {")
            ))
            .unwrap()
        };
        let files = [
            (Path::new("a.yml"), file(&["One", "Two", "One"])),
            (Path::new("b.yml"), file(&["Three"])),
            (Path::new("c.yml"), file(&["Two", "One", "Four"])),
        ];
        let said = twice(&files);
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!((said[0].0, said[0].1.line), (2, 0));
        let expected = "has 2 of the rules of a.yml too, such as One:";
        assert!(said[0].1.message.starts_with(expected), "{said:?}");
        let recorded = parse("groups: [{name: g, rules: [{record: One, expr: up}]}]").unwrap();
        assert!(twice(&[files[0].clone(), (Path::new("d.yml"), recorded)]).is_empty());
    }

    /// All that is said of the rules of a file.
    fn said(text: &str, config: &Config) -> Vec<String> {
        let rules = parse(text).unwrap();
        let recorded = rules.iter().filter(|rule| !rule.is_alert);
        let recorded = recorded.map(|rule| rule.name.clone()).collect();
        let exported = exported().unwrap();
        let remarks = rules.iter().flat_map(|rule| {
            let said = check(rule, config, &exported, &recorded);
            [said.problems, said.warnings].concat()
        });
        let line = |remark: Remark| format!("{} {}: {}", remark.line, remark.rule, remark.message);
        remarks.map(line).collect()
    }

    const SHIPPED: [&str; 3] = [
        include_str!("../rules/forewarn.rules.yml"),
        include_str!("../rules/forewarn-vmalert.rules.yml"),
        include_str!("../rules/forewarn-links.rules.yml"),
    ];

    #[test]
    fn the_shipped_rules_fit_the_shipped_config() {
        let mut rules = 0;
        for text in SHIPPED {
            assert_eq!(said(text, &config("")), [] as [&str; 0]);
            rules += parse(text).unwrap().len();
        }
        assert!(rules > 30, "{rules}");
    }

    #[test]
    fn both_variants_are_held_to_the_horizon() {
        let slow = config("horizon: 4h");
        for text in &SHIPPED[..2] {
            let said = said(text, &slow);
            assert_eq!(said.len(), 3, "{said:#?}");
            for one in said {
                assert!(one.contains("is 30m, but the horizon is 4h"), "{one}");
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let real =
            r#"failure_probability > 0.9 and on () forewarn_model_info{origin!="simulated"}"#;
        for (rule, expected) in [
            (
                "expr: forewarn_target > 1".to_owned(),
                "forewarn has no metric forewarn_target; did you mean forewarn_targets?",
            ),
            (
                "expr: failure_probabilty > 1".to_owned(),
                "forewarn has no metric failure_probabilty; did you mean failure_probability?",
            ),
            (
                "expr: up, annotations: {a: '{{ query \"max(forewarn_horizon)\" }}'}".to_owned(),
                "forewarn has no metric forewarn_horizon; see docs/metrics.md",
            ),
            (
                r#"expr: 'forewarn_target_state{state!~"ok|faling"} == 1'"#.to_owned(),
                r#"state of forewarn_target_state is never "faling", only one of excluded, failing, missing_data, ok, out_of_distribution, stale, warming_up"#,
            ),
            (
                r#"expr: 'forewarn_targets{cluster="eu",instance="a"} > 1'"#.to_owned(),
                "forewarn gives forewarn_targets no label cluster: right only if the scrape adds it",
            ),
            (
                "expr: 'sum(up'".to_owned(),
                "the expression does not parse: ( is not closed",
            ),
            (
                format!("expr: '{real}', for: 1m, keep_firing_for: 1h"),
                "`for` is 1m, but alerting.for of the config, by which alarms are counted, is 5m: set them to the same",
            ),
            (
                format!("expr: '{real}', for: 5m"),
                "`keep_firing_for` is 0s, but the horizon is 30m: it would resolve at the moment of the failure, when the probability goes away; set it to 30m or more",
            ),
            (
                "expr: failure_probability > 0.9, for: 5m, keep_firing_for: 30m".to_owned(),
                "fires for a model of the simulator as well: add `and on () forewarn_model_info{origin!=\"simulated\"}`",
            ),
        ] {
            let file = format!(
                "groups:\n- name: g\n  rules:\n  - {{record: forewarn_mine, expr: 1}}\n  - {{alert: A, {rule}}}\n  - {{alert: B, expr: forewarn_mine > 0}}\n"
            );
            assert_eq!(said(&file, &config("")), [format!("5 A: {expected}")]);
        }
        for (text, expected) in [
            ("groups: [", "is no file of rule groups: "),
            ("group: []", "is no file of rule groups: "),
            (
                "groups: [{name: g, rules: [{expr: up}]}]",
                "group g has a rule that must have either `alert` or `record`: up",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
