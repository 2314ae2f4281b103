use std::fs;

use super::fleet::plan;

const HEAD: &str = "\
# Features

Generated from the catalogue in `src/features/`; `FOREWARN_UPDATE_DOCS=1 cargo test docs` writes it anew.

These are the features of the seven known signals at a step of 1m and a horizon of 30m. Spans scale with the step: at a step of 30s,
`memory_usage_slope_60m` is `memory_usage_slope_30m`. A signal of another name has its value, `delta`, `mean`, `std`, `max`, `slope`, `ratio`, `departure` and
`growth`, and with the unit `percent` or `ratio` also `projection` and `time_to_limit`. A feature is missing, never zero, where its window holds too few samples: a mean,
standard deviation or maximum needs a quarter of its slots, a line half of them, a delta both of its samples, a level (the mean of five steps) two of them. Slopes are per
hour. The first sixteen need no history.

The *baseline* is what is normal for this target: the median of one sample in 60 steps over the last 24 of them, a day at a step of 1m. With fewer than four such samples it is
the mean over the window. The *floor* is 1 for counts, 1e-6 for other units without a limit: with it, one error where there are none is not infinitely many.

The ensemble that has a target's history does not see how large latency, errors, response time and connections are, nor what is computed from them (`total_stress`, `error_rate`,
`performance_ratio`): what is much on one target is little on another, and a model that knows the number learns whose it is. It sees how far they have left
their baseline. A body without history has no baseline, so the ensemble that answers it sees the first sixteen as they are.

";

#[test]
fn features_md_is_current() {
    check(
        "docs/features.md",
        &format!("{HEAD}{}", plan().catalogue.markdown()),
    );
}

/// The page of each section of the config, and what to read besides.
const TOPICS: [(&str, &str); 12] = [
    ("prometheus", "[the servers that it asks](upstream.md)"),
    ("targets", "[several processes](operations.md)"),
    ("signals", "[the features made of them](features.md)"),
    ("failure", "[webhooks and labels](closed-loop.md)"),
    ("compare", "[how it is judged](quality.md)"),
    ("features", "[the features](features.md)"),
    (
        "train",
        "[figures](quality.md), [scheduled training and promotion](closed-loop.md)",
    ),
    (
        "model",
        "[models from elsewhere](interchange.md), [a candidate in the shadow](closed-loop.md)",
    ),
    (
        "alerting",
        "[the alarm budget](quality.md), [what to do about an alert](runbook.md)",
    ),
    (
        "api",
        "[TLS, users and limits](security.md), [restart and shutdown](operations.md)",
    ),
    (
        "state",
        "[what is kept, and how it survives](reliability.md)",
    ),
    ("log", "[running it](operations.md)"),
];

/// A key of the config as config.yaml writes it.
struct Key {
    path: String,
    /// Written behind a `#`: it has no default.
    optional: bool,
    value: String,
    /// Behind it on its line.
    remark: String,
    /// The comment before it.
    above: Vec<String>,
}

/// The name before the colon of `name: value` or `name:`.
fn key_of(words: &str) -> Option<(&str, &str)> {
    let (name, rest) = words.split_once(':')?;
    let is_name = name
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    let ends = rest.is_empty() || rest.starts_with(' ');
    (is_name && ends).then_some((name, rest))
}

/// Keys in the order of the file. A comment belongs to the key on its line, else to the next one.
fn keys(yaml: &str) -> Vec<Key> {
    let mut keys: Vec<Key> = Vec::new();
    let mut above: Vec<(usize, String)> = Vec::new();
    let mut comment: Vec<String> = Vec::new();
    // Where a text or a list begins that stands on lines of its own.
    let mut block = None;
    for line in yaml.lines().skip_while(|line| !line.is_empty()) {
        let text = line.trim_start();
        let remark = text.strip_prefix('#');
        let words = remark.unwrap_or(text).trim_start();
        let indent = (line.len() - words.len()).saturating_sub(remark.map_or(0, |_| "# ".len()));
        if text.is_empty() || remark.is_none() && block.is_some_and(|of| indent > of) {
            continue;
        }
        let Some((name, rest)) = key_of(words) else {
            let remark = remark.unwrap_or_default();
            comment.push(remark.strip_prefix(' ').unwrap_or(remark).to_string());
            continue;
        };
        let (value, behind) = rest.split_once(" # ").unwrap_or((rest, ""));
        let value = value.trim();
        above.retain(|(at, _)| *at < indent);
        above.push((indent, name.to_string()));
        let path: Vec<&str> = above.iter().map(|(_, name)| name.as_str()).collect();
        block = (value == ">-" || name == "queries").then_some(indent);
        keys.push(Key {
            path: path.join("."),
            optional: remark.is_some(),
            value: value.to_string(),
            remark: behind.trim().to_string(),
            above: std::mem::take(&mut comment),
        });
    }
    keys
}

/// What a value is, as far as it shows.
fn kind(value: &str) -> &'static str {
    let unquoted = value.trim_matches('"');
    let digits = unquoted.trim_end_matches(|c: char| c.is_ascii_lowercase());
    match unquoted {
        ">-" => "PromQL",
        "true" | "false" => "boolean",
        _ if value.starts_with('[') => "list",
        _ if value.starts_with('{') => "mapping",
        _ if unquoted.parse::<f64>().is_ok() => "number",
        _ if digits.len() < unquoted.len() && digits.parse::<u64>().is_ok() => "duration",
        _ => "text",
    }
}

fn configuration() -> String {
    let yaml = fs::read_to_string("config.yaml").expect("config.yaml is there");
    let (head, _) = yaml.split_once("\n\n").expect("a head");
    // `API_HOST and API_PORT (api.listen), …`
    let overrides: Vec<(String, String)> = head
        .lines()
        .flat_map(|line| line.trim_start_matches("# ").split("), "))
        .filter_map(|part| part.trim().split_once(" ("))
        .filter(|(names, _)| {
            names
                .bytes()
                .all(|b| b.is_ascii_uppercase() || b" _and".contains(&b))
        })
        .map(|(names, path)| {
            (
                path.trim_end_matches(['.', ')']).to_string(),
                names.to_string(),
            )
        })
        .collect();
    assert_eq!(overrides.len(), 4, "{overrides:?}");
    let keys = keys(&yaml);
    let mut page = format!(
        "# Configuration\n\nGenerated from [config.yaml](../config.yaml), which says the same in the file's own form; {UPDATE} writes it anew.\n\n"
    );
    for line in head.lines() {
        page.push_str(
            line.trim_start_matches('#')
                .strip_prefix(' ')
                .unwrap_or_default(),
        );
        page.push('\n');
    }
    for section in keys.chunk_by(|one, other| top(one) == top(other)) {
        page.push_str(&section_of(section, &overrides));
    }
    page
}

fn top(key: &Key) -> &str {
    key.path.split('.').next().unwrap_or_default()
}

/// Comments of more lines than this stand above the table.
const SHORT: usize = 3;

fn section_of(keys: &[Key], overrides: &[(String, String)]) -> String {
    let top = top(&keys[0]);
    let (mut words, mut rows) = (String::new(), String::new());
    let escape = |text: &str| text.replace('|', "\\|");
    for key in keys {
        let inside = format!("{}.", key.path);
        let has_keys = keys.iter().any(|other| other.path.starts_with(&inside));
        if key.above.len() > SHORT || has_keys && key.path == top {
            if key.path != top {
                words.push_str(&format!("`{}`: ", key.path));
            }
            words.push_str(&prose(&key.above));
            words.push('\n');
        }
        if has_keys && key.path == top {
            continue;
        }
        let mut meaning = key.remark.clone();
        if (1..=SHORT).contains(&key.above.len()) {
            let gap = if meaning.is_empty() { "" } else { ". " };
            meaning.push_str(&format!("{gap}{}", key.above.join(" ")));
        }
        if let Some((_, names)) = overrides.iter().find(|(path, _)| *path == key.path) {
            let names = names.replace(" and ", "` and `");
            meaning.push_str(&format!(". The environment's `{names}` override it"));
        }
        let kind = match has_keys {
            true => "section",
            false if key.path.ends_with("queries") => "list",
            false => kind(&key.value),
        };
        let default = match (key.value.as_str(), key.optional) {
            ("", _) => String::new(),
            (value, true) => format!("none; for example `{value}`"),
            (">-", false) => "as in the file".into(),
            (value, false) => format!("`{value}`"),
        };
        let cells = [kind.to_string(), escape(&default), escape(&meaning)];
        rows.push_str(&format!("| `{}` | {} |\n", key.path, cells.join(" | ")));
    }
    let more = TOPICS.iter().find(|(name, _)| *name == top);
    let more = more.map_or_else(String::new, |(_, links)| format!("More: {links}.\n\n"));
    format!(
        "\n## {top}\n\n{words}{more}| key | type | default | meaning |\n|---|---|---|---|\n{rows}"
    )
}

/// Comment lines as paragraphs; those that are indented stay as they are.
fn prose(lines: &[String]) -> String {
    let mut text = String::new();
    for line in lines {
        match line.strip_prefix("  ") {
            Some(code) => text.push_str(&format!("\n    {}\n", code.trim())),
            None if line.is_empty() => text.push('\n'),
            None => text.push_str(&format!("{line}\n")),
        }
    }
    text
}

const UPDATE: &str = "`FOREWARN_UPDATE_DOCS=1 cargo test docs`";

fn check(path: &str, expected: &str) {
    if std::env::var_os("FOREWARN_UPDATE_DOCS").is_some() {
        fs::write(path, expected).expect("docs/ is writable");
    }
    let found = fs::read_to_string(path).unwrap_or_default();
    assert!(found == expected, "{path} is stale: run {UPDATE}");
}

#[test]
fn configuration_md_is_current() {
    let page = configuration();
    // A key that the generator did not see would be missing from the page.
    let yaml = fs::read_to_string("config.yaml").expect("config.yaml is there");
    for line in yaml
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
    {
        if let Some((key, _)) = line.split_once(':')
            && !key.contains(|c: char| !c.is_ascii_lowercase() && c != '_' && c != ' ')
            && line.len() - line.trim_start().len() <= 4
        {
            let end = format!("{}`", key.trim());
            assert!(
                page.contains(&end) || page.contains(&format!("## {}\n", key.trim())),
                "{key}"
            );
        }
    }
    check("docs/configuration.md", &page);
}

/// The commands that a help page lists.
fn inner(page: &str) -> Vec<String> {
    let list = page
        .split_once("\nCommands:\n")
        .map_or("", |(_, rest)| rest);
    list.lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_string)
        .collect()
}

fn help(words: &[String], page: &mut String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_forewarn"))
        .args(words)
        .arg("--help")
        .env_clear()
        .output()
        .expect("forewarn runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let name = ["forewarn"]
        .into_iter()
        .chain(words.iter().map(String::as_str));
    let name: Vec<&str> = name.collect();
    page.push_str(&format!("\n## {}\n\n```text\n", name.join(" ")));
    for line in text.trim_end().lines() {
        page.push_str(line.trim_end());
        page.push('\n');
    }
    page.push_str("```\n");
    for name in inner(&text) {
        help(&[words, &[name]].concat(), page);
    }
}

#[test]
fn cli_md_is_current() {
    let mut page = format!(
        "# The command line\n\nGenerated from `forewarn help`; {UPDATE} writes it anew. `forewarn man DIR` writes the same as man pages, and\n`forewarn completions SHELL` prints the completions of bash, zsh, fish, elvish and PowerShell.\n"
    );
    help(&[], &mut page);
    check("docs/cli.md", &page);
}
