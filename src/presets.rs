//! What forewarn knows of exporters: the files under `presets/`, each of one kind of target.

use std::sync::LazyLock;

use serde::Deserialize;

use crate::promql;
use crate::types::Unit;

/// The one that `init` takes is the first in this order of which there are targets: hosts stay longest, and most
/// setups have them.
const FILES: [&str; 11] = [
    include_str!("presets/node.yaml"),
    include_str!("presets/kubernetes.yaml"),
    include_str!("presets/spring.yaml"),
    include_str!("presets/http.yaml"),
    include_str!("presets/istio.yaml"),
    include_str!("presets/envoy.yaml"),
    include_str!("presets/nginx.yaml"),
    include_str!("presets/postgres.yaml"),
    include_str!("presets/mysql.yaml"),
    include_str!("presets/redis.yaml"),
    include_str!("presets/blackbox.yaml"),
];

static ALL: LazyLock<Vec<Preset>> = LazyLock::new(|| {
    let parse = |text: &&str| serde_yaml::from_str(text).expect("presets are tested");
    FILES.iter().map(parse).collect()
});

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    pub name: String,
    /// What its targets are, and whose series it reads.
    pub title: String,
    /// Has series where the exporter is scraped.
    pub found_by: String,
    /// `targets.label`
    pub label: Vec<String>,
    pub extra_labels: Vec<String>,
    pub note: String,
    pub signals: Vec<PresetSignal>,
    pub failures: Vec<PresetFailure>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresetSignal {
    pub name: String,
    pub unit: Unit,
    pub about: String,
    /// The first that returns data for most targets is taken.
    pub queries: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresetFailure {
    /// What incidents of it are called in reports.
    pub name: String,
    pub about: String,
    /// Whether it counts unless somebody decides otherwise.
    pub active: bool,
    pub variants: Vec<Variant>,
}

/// One way to see a failure.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// Series without which the query could never return anything.
    pub exists: String,
    pub query: String,
}

/// All presets, the one to prefer first.
pub fn all() -> &'static [Preset] {
    &ALL
}

pub fn named(name: &str) -> Option<&'static Preset> {
    all().iter().find(|preset| preset.name == name)
}

/// Puts the jobs that were found where a query says `$jobs`.
pub fn with_jobs(query: &str, jobs: &[String]) -> String {
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let matcher = match jobs {
        [job] => format!("job={}", quote(job)),
        jobs => {
            let jobs: Vec<String> = jobs.iter().map(|job| literal(job)).collect();
            format!("job=~{}", quote(&jobs.join("|")))
        }
    };
    query.replace("$jobs", &matcher)
}

/// A regular expression for this text alone.
fn literal(text: &str) -> String {
    let special = |c: char| r"\.+*?()|[]{}^$".contains(c);
    let escaped = text.chars().map(|c| match special(c) {
        true => format!("\\{c}"),
        false => c.to_string(),
    });
    escaped.collect()
}

/// What exposes a metric, as far as the presets know it.
pub fn exposes(metric: &str) -> Option<&'static Preset> {
    all().iter().find(|preset| {
        let signals = preset.signals.iter().flat_map(|signal| &signal.queries);
        let failures = preset.failures.iter().flat_map(|failure| &failure.variants);
        // Every scraped target has `up`.
        metric != "up"
            && signals
                .chain(failures.map(|variant| &variant.query))
                .any(|query| {
                    let mut read = promql::selectors(query).into_iter();
                    read.any(|selector| selector.metric == metric)
                })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::features::KNOWN_SIGNALS;

    #[test]
    fn presets_are_sound() {
        let mut names = BTreeSet::new();
        for preset in all() {
            assert!(names.insert(&preset.name), "{} twice", preset.name);
            assert!(preset.failures[0].active, "{}", preset.name);
            let mut signals = BTreeSet::new();
            for signal in &preset.signals {
                assert!(signals.insert(&signal.name), "{} twice", signal.name);
                assert!(!signal.queries.is_empty(), "{}", signal.name);
                let known = KNOWN_SIGNALS.iter().find(|(name, _)| *name == signal.name);
                assert!(
                    known.is_none_or(|(_, unit)| *unit == signal.unit),
                    "{}",
                    signal.name
                );
            }
            // Nothing under another job may be taken for the target's own.
            let variants = preset.failures.iter().flat_map(|failure| &failure.variants);
            for variant in variants {
                assert!(!variant.query.contains("up{") || variant.query.contains("up{$jobs}"));
            }
        }
        assert!(named("node").is_some() && named("none").is_none());
    }

    #[test]
    fn jobs_are_matched_literally() {
        let jobs = |jobs: &[&str]| {
            let jobs: Vec<String> = jobs.iter().map(|job| job.to_string()).collect();
            with_jobs("up{$jobs}", &jobs)
        };
        assert_eq!(jobs(&["node"]), r#"up{job="node"}"#);
        assert_eq!(jobs(&[""]), r#"up{job=""}"#);
        assert_eq!(jobs(&[r#"a"b.c"#]), r#"up{job="a\"b.c"}"#);
        assert_eq!(jobs(&["a.b", "c|d"]), r#"up{job=~"a\\.b|c\\|d"}"#);
    }

    #[test]
    fn a_metric_leads_to_its_exporter() {
        let name = |metric| exposes(metric).map(|preset| preset.name.as_str());
        assert_eq!(name("node_load5"), Some("node"));
        assert_eq!(name("kube_pod_status_ready"), Some("kubernetes"));
        assert_eq!(name("up"), None);
        assert_eq!(name("node"), None);
    }
}
