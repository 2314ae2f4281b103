use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::decode::{DecodeError, Decoded, Refusal};

/// Which server answers. VictoriaMetrics gives a stand-in version or none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct BuildInfo {
    pub version: String,
    pub revision: String,
}

/// One alerting rule that the server evaluates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertingRule {
    pub name: String,
    pub query: String,
    /// Those the rule adds to its alerts, sorted by name.
    pub labels: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct Envelope<T> {
    data: Option<T>,
    #[serde(default, rename = "errorType")]
    error_type: String,
    #[serde(default)]
    error: String,
}

fn open<T: DeserializeOwned>(body: &[u8]) -> Decoded<T> {
    let envelope: Envelope<T> = serde_json::from_slice(body)
        .map_err(|error| DecodeError::Invalid(format!("not the expected JSON: {error}")))?;
    match envelope.data {
        Some(data) => Ok(Ok(data)),
        None if envelope.error_type.is_empty() => {
            Err(DecodeError::Invalid("the answer has no data".into()))
        }
        None => Ok(Err(Refusal {
            error_type: envelope.error_type,
            message: envelope.error,
        })),
    }
}

pub fn decode_build_info(body: &[u8]) -> Decoded<BuildInfo> {
    open(body)
}

pub fn decode_rules(body: &[u8]) -> Decoded<Vec<AlertingRule>> {
    #[derive(Deserialize)]
    struct Groups {
        groups: Vec<Group>,
    }
    #[derive(Deserialize)]
    struct Group {
        rules: Vec<Rule>,
    }
    #[derive(Deserialize)]
    struct Rule {
        #[serde(rename = "type")]
        kind: String,
        name: String,
        query: String,
        #[serde(default)]
        labels: BTreeMap<String, String>,
    }
    Ok(open::<Groups>(body)?.map(|data| {
        data.groups
            .into_iter()
            .flat_map(|group| group.rules)
            .filter(|rule| rule.kind == "alerting")
            .map(|rule| AlertingRule {
                name: rule.name,
                query: rule.query,
                labels: rule.labels.into_iter().collect(),
            })
            .collect()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captured_rules_and_build_info() {
        let fixture = |name: &str| {
            std::fs::read(format!(
                "{}/tests/fixtures/prometheus/{name}",
                env!("CARGO_MANIFEST_DIR")
            ))
            .unwrap()
        };
        let version = |name| decode_build_info(&fixture(name)).unwrap().unwrap().version;
        assert_eq!(version("prom2.42/buildinfo.json"), "2.42.0+ds");
        assert_eq!(version("prom3.5/buildinfo.json"), "3.5.3+ds1");
        assert_eq!(version("vm1.145/buildinfo.json"), "2.24.0");
        assert_eq!(version("vm1.79/buildinfo.json"), "");

        for server in ["prom2.42", "prom3.5"] {
            let rules = decode_rules(&fixture(&format!("{server}/rules.json")))
                .unwrap()
                .unwrap();
            assert_eq!(
                rules[0],
                AlertingRule {
                    name: "FailureLikely".into(),
                    query: "failure_probability{job!=\"sidecar\"} > 0.8".into(),
                    labels: vec![("severity".into(), "critical".into())],
                }
            );
        }
        assert_eq!(decode_rules(&fixture("vm1.79/rules.json")), Ok(Ok(vec![])));
        let refused = decode_rules(br#"{"status":"error","errorType":"422","error":"no"}"#);
        assert!(refused.unwrap().is_err());
        assert!(decode_rules(b"404 page not found").is_err());
        assert!(decode_rules(b"{}").is_err());
    }
}
