//! `forewarn check`: a config, its queries, rule files, a model, a running `serve`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::StatusCode;
use serde::Serialize;
use serde_json::json;

use super::terminal::{self, GOOD, WARNING, print, print_json};
use super::{ConfigFile, Output, Usage, check_fit, model_dir, now};
use crate::artifact;
use crate::config::{Config, ConfigError, Environment, WebConfig};
use crate::diagnosis::Diagnosis;
use crate::exported::exported;
use crate::fetch::{self, Fetched, Purpose};
use crate::history::TargetHistory;
use crate::prometheus::{Client, QueryError};
use crate::promql;
use crate::rules::{self, Remark, Rule};
use crate::starter;
use crate::table::Table;
use crate::time::{Timestamp, format_duration, parse_duration};
use crate::types::Unit;
use crate::webhook::OwnAlerts;

/// Targets that advice names.
const NAMED: usize = 5;
/// Where rules are looked for: beside the config's example, and where the package puts them.
const RULES: [&str; 2] = ["rules", "/usr/share/forewarn/rules"];
/// Share of missing points that is worth a word.
const GAPS: f64 = 0.25;

pub const EXAMPLES: &str = examples!(
    "forewarn check config",
    "forewarn check queries --range 6h",
    "forewarn check web web-config.yml",
    "forewarn check rules",
    "forewarn check model --model models/winter",
);

#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    #[command(subcommand)]
    command: CheckCommand,
}

#[derive(Debug, clap::Subcommand)]
enum CheckCommand {
    /// Every problem of a config at once; needs no network.
    #[command(after_long_help = concat!(examples!(
        "forewarn check config",
        "forewarn check config --config.file /etc/forewarn/config.yaml --output json",
    ), "\n\n", paragraph!("JSON",
        "{\"file\": \"config.yaml\", \"ok\": false,",
            " \"problems\": [{\"path\": \"api.listen\", \"line\": 7, \"message\": \"…\"}]}",
        "and exit status 2 when there are problems. Line 0 stands for a key that is not in the file.",
    )))]
    Config(ConfigArgs),
    /// Run every query of a config over the recent past and show what it returns.
    #[command(after_long_help = examples!(
        "forewarn check queries",
        "forewarn check queries --range 7d --output json",
    ))]
    Queries(QueriesArgs),
    /// Every problem of a web config (`serve --web.config.file`) and the files that it names at once.
    #[command(after_long_help = concat!(examples!(
        "forewarn check web /etc/forewarn/web-config.yml",
    ), "\n\n", paragraph!("JSON", "as of check config")))]
    Web(WebArgs),
    /// Whether alerting rules read metrics that exist, agree with the config, and are understood by Prometheus.
    ///
    /// Metrics and labels of forewarn, also in annotations, must be among those that it exports. Alerts on failure_probability need
    /// the `for` of alerting.for, by which alarms are counted, and a `keep_firing_for` of at least the horizon. Every expression
    /// is run once on the Prometheus of the config; when that cannot be reached, strings and brackets are looked at and a
    /// warning says so. promtool knows the rest of the format.
    #[command(after_long_help = concat!(examples!(
        "forewarn check rules",
        "forewarn check rules /etc/prometheus/rules/forewarn.rules.yml --config.file /etc/forewarn/config.yaml",
        "forewarn check rules rules --output json",
    ), "\n\n", paragraph!("JSON",
        "{\"ok\": false, \"asked\": true, \"files\": [{\"file\": \"…\", \"alerts\": 17, \"records\": 3}],",
        " \"problems\": [{\"file\": \"…\", \"line\": 7, \"group\": \"…\", \"rule\": \"…\", \"message\": \"…\"}], \"warnings\": […]}",
        "`asked` is whether Prometheus ran the expressions. Line 0 stands for the whole file.",
    )))]
    Rules(RulesArgs),
    /// Open a model directory, verify it, and see whether it fits the config.
    #[command(after_long_help = concat!(examples!(
        "forewarn check model",
        "forewarn check model --model models/winter --output json",
    ), "\n\n", paragraph!("JSON",
        "{\"model\": \"models/winter\", \"ok\": true, \"problem\": null, \"model_id\": \"…\", \"origin\": \"history\",",
        " \"features\": 65, \"trained_until\": \"…\", \"incidents\": 40}; the last four only of a model that is whole",
    )))]
    Model(ModelArgs),
    /// Whether a running `serve` answers: the health check of a container that has no shell.
    ///
    /// Asks /-/healthy. 401 is an answer too. Reads no config, as `serve` goes on with the one before when a changed one is wrong.
    #[command(after_long_help = examples!(
        "forewarn check health",
        "forewarn check health --url https://127.0.0.1:8443",
    ))]
    Health(HealthArgs),
}

#[derive(Debug, clap::Args)]
struct QueriesArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// How far back to look.
    #[arg(long, value_name = "DURATION", default_value = "2h", value_parser = parse_duration)]
    range: Duration,
    /// How the result is printed.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct RulesArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// Rule files, or folders of them [default: rules, else /usr/share/forewarn/rules of the Debian package].
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How the result is printed.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct ModelArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// The model directory [default: the served one under model.path].
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// How the result is printed.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct ConfigArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// How the result is printed.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct WebArgs {
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How the result is printed.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct HealthArgs {
    /// Where it listens [default: http://127.0.0.1:8000, or the port in API_PORT]. The certificate of https is not verified.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

pub fn run(args: CheckArgs) -> anyhow::Result<()> {
    match args.command {
        CheckCommand::Config(args) => {
            let file = &args.config.path;
            file_check(args.output, file, args.config.load(), |config| {
                format!(
                    ", {} signals, step {}, horizon {}",
                    config.signals.len(),
                    format_duration(config.step),
                    format_duration(config.horizon)
                )
            })
        }
        CheckCommand::Web(args) => {
            let (web, _) = WebConfig::load(&args.file, &Environment::from_process()?);
            file_check(args.output, &args.file, web, |_| String::new())
        }
        CheckCommand::Queries(args) => queries(&args),
        CheckCommand::Rules(args) => rules(args),
        CheckCommand::Model(args) => model(args),
        CheckCommand::Health(args) => health(args),
    }
}

/// Tells whether a file is right and what is wrong with it; `summary` is what else there is to say of one that is.
fn file_check<T>(
    output: Output,
    file: &Path,
    checked: Result<T, ConfigError>,
    summary: impl FnOnce(&T) -> String,
) -> anyhow::Result<()> {
    if output == Output::Json {
        let problems = checked
            .as_ref()
            .err()
            .map_or(&[][..], |error| &error.problems);
        let problems: Vec<serde_json::Value> = problems
            .iter()
            .map(|one| json!({"path": one.path, "line": one.line, "message": one.message}))
            .collect();
        print_json(&json!({"file": file, "ok": checked.is_ok(), "problems": problems}))?;
        checked?;
        return Ok(());
    }
    let checked = checked?;
    print(format!(
        "{}: {GOOD}ok{GOOD:#}{}",
        file.display(),
        summary(&checked)
    ))
}

fn queries(args: &QueriesArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    let looked = look(&config, args.range)?;
    match args.output {
        Output::Json => print_json(&looked.rows)?,
        Output::Text => print(looked.table().trim_end())?,
    }
    looked.tell()
}

/// What the queries of a config return.
pub struct Looked {
    rows: Vec<Row>,
    warnings: Vec<String>,
    problems: Vec<String>,
}

/// One query.
#[derive(Serialize)]
struct Row {
    /// Name of the signal, else the config key.
    signal: String,
    #[serde(skip)]
    key: String,
    series: usize,
    /// With a sample in the range.
    targets: usize,
    /// Share of their points without a sample; of failures and exclusions absence is no lack.
    missing: Option<String>,
    last_value: Option<String>,
    unit: Option<Unit>,
    first_sample: Option<String>,
    last_sample: Option<String>,
    /// What to do about it.
    advice: Vec<String>,
}

/// Runs every query over the recent past.
pub fn look(config: &Config, range: Duration) -> anyhow::Result<Looked> {
    let end = now().minus(config.query_offset).floor(config.step);
    let start = end.minus(range).floor(config.step);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let client = Client::new(&config.prometheus)?;
    let fetched = runtime.block_on(fetch::fetch(
        &client,
        config,
        &OwnAlerts::default(),
        Purpose::Evaluation,
        (start, end, config.step),
        |_, _| (),
    ));
    let diagnosis = Diagnosis {
        client: &client,
        at: end,
        range,
    };
    let newest = Diagnosis {
        at: now(),
        ..diagnosis
    };
    let mut rows = rows(config, &fetched, start);
    let report = &fetched.report;
    let warnings = report
        .warnings
        .iter()
        .map(|(key, text)| format!("{key}: {text}"));
    let mut warnings: Vec<String> = warnings.collect();
    warnings.extend(report.nameless.iter().map(|key| {
        let labels = config.targets.label.join(" or ");
        format!("{key} returns series without the label {labels}")
    }));
    let mut problems = report.failures();
    problems.extend(report.duplicates.iter().map(|(_, text)| text.clone()));
    let mut newer = Vec::new();
    for row in &mut rows {
        let answered = report.returned.iter().any(|one| one.key == row.key);
        if row.series > 0 || !answered {
            continue;
        }
        let query = query_of(config, &row.key);
        if runtime.block_on(newest.is_newer(query, end)) {
            newer.push(row.key.clone());
            continue;
        }
        if row.unit.is_some() || row.key.starts_with("compare.") {
            let why = runtime.block_on(diagnosis.why_empty(query));
            problems.push(format!("{} returns nothing: {why}", row.key));
            row.advice.push(why);
        } else if let Ok(absent) = runtime.block_on(diagnosis.absent(query)) {
            row.advice.extend(absent);
        }
    }
    if !newer.is_empty() {
        warnings.push(format!(
            "what these queries read is newer than {end}, the newest step asked for, as Prometheus or the exporter is new: run forewarn check queries again in a minute: {}",
            newer.join(", ")
        ));
    }
    warnings.extend(said_once(&rows));
    Ok(Looked {
        rows,
        warnings,
        problems,
    })
}

impl Looked {
    pub fn queries(&self) -> usize {
        self.rows.len()
    }

    fn table(&self) -> String {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        let mut table = Table::new(&[
            "<query",
            ">series",
            ">targets",
            ">missing",
            ">first sample",
            ">last sample",
            ">last value",
        ]);
        for row in &self.rows {
            let value = row.last_value.as_ref().and_then(|value| value.parse().ok());
            let value =
                value.map(|value| starter::with_unit(value, row.unit.unwrap_or(Unit::None)));
            table.row([
                row.signal.clone(),
                row.series.to_string(),
                row.targets.to_string(),
                text(&row.missing),
                text(&row.first_sample),
                text(&row.last_sample),
                text(&value),
            ]);
        }
        table.render(terminal::width())
    }

    /// Says what looks wrong; a failure when something is.
    pub fn tell(&self) -> anyhow::Result<()> {
        for warning in &self.warnings {
            terminal::warn(warning);
        }
        match self.problems.is_empty() {
            true => Ok(()),
            false => bail!(
                "the queries have problems:\n  {}",
                self.problems.join("\n  ")
            ),
        }
    }
}

/// What is said of each query that is no problem; the same of several in one line.
fn said_once(rows: &[Row]) -> Vec<String> {
    let mut keys: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let signals = rows.iter().filter(|row| row.unit.is_some()).count();
    let others = |row: &&Row| row.series > 0 || row.unit.is_none();
    for row in rows.iter().filter(others) {
        for advice in &row.advice {
            keys.entry(advice).or_default().push(&row.key);
        }
    }
    let said = keys.into_iter().map(|(advice, keys)| match keys.len() {
        n if n > NAMED && n == signals => format!("every signal {advice}"),
        n if n > NAMED => format!(
            "{} and {} more: {advice}",
            keys[..NAMED].join(", "),
            n - NAMED
        ),
        _ => format!("{}: {advice}", keys.join(", ")),
    });
    said.collect()
}

fn query_of<'a>(config: &'a Config, key: &str) -> &'a str {
    let signals = config.signals.iter();
    let signals = signals.map(|s| (format!("signals.{}.query", s.signal.name), &s.query));
    let numbered = |section: &'static str, queries: &'a [String]| {
        let queries = queries.iter().enumerate();
        queries.map(move |(i, query)| (format!("{section}[{i}]"), query))
    };
    let compared = config.compare.iter();
    signals
        .chain(numbered("failure.queries", &config.failure.queries))
        .chain(numbered("failure.acted", &config.failure.acted))
        .chain(numbered("exclude", &config.exclude))
        .chain(compared.map(|(name, query)| (format!("compare.{name}"), query)))
        .find(|(known, _)| known == key)
        .map_or("", |(_, query)| query)
}

fn rows(config: &Config, fetched: &Fetched, start: Timestamp) -> Vec<Row> {
    let history = &fetched.history;
    let returned = |key: &str| fetched.report.returned.iter().find(|one| one.key == key);
    let seen = |target: &TargetHistory| {
        (0..config.signals.len()).any(|i| target.column(i).iter().any(|v| !v.is_nan()))
    };
    let row = |name: String,
               key: String,
               unit: Option<Unit>,
               column: &dyn Fn(&TargetHistory) -> &[f32]| {
        let targets = history.targets();
        let columns = || targets.iter().map(|(_, target)| column(target));
        let with = columns().filter(|c| c.iter().any(|v| !v.is_nan())).count();
        let present: usize = columns().flatten().filter(|v| !v.is_nan()).count();
        let missing = |points: usize| {
            (points > 0).then(|| (points - present.min(points)) as f64 / points as f64)
        };
        let last = columns()
            .filter_map(|c| c.iter().rev().find(|v| !v.is_nan()))
            .next();
        let first = (0..history.steps()).find(|&step| columns().any(|c| !c[step].is_nan()));
        let span = returned(&key).and_then(|one| one.span);
        let mut advice = Vec::new();
        if let (Some(unit), Some(first)) = (unit, first) {
            let lacking = targets
                .iter()
                .filter(|(_, target)| seen(target) && column(target).iter().all(|v| v.is_nan()));
            let lacking: Vec<&str> = lacking.map(|(id, _)| id.as_str()).collect();
            if !lacking.is_empty() {
                advice.push(format!(
                    "{} of {} targets have other signals but not this one, among them {}",
                    lacking.len(),
                    with + lacking.len(),
                    lacking[..lacking.len().min(NAMED)].join(", ")
                ));
            }
            if first > history.steps() / 10 {
                advice.push(format!("has no sample before {}", history.time(first)));
            }
            let gaps = missing(with * (history.steps() - first)).unwrap_or_default();
            if gaps > GAPS {
                advice.push(format!(
                    "{:.0} % of its points since then are missing: let step be no shorter than the scrape interval, and windows in brackets twice as long at least",
                    100.0 * gaps
                ));
            }
            let values = || columns().flatten().copied().filter(|v| !v.is_nan());
            let low = values().fold(f32::INFINITY, f32::min);
            let high = values().fold(f32::NEG_INFINITY, f32::max);
            let limit = unit.limit().map_or(f32::INFINITY, |limit| limit as f32);
            if unit != Unit::None && (low < 0.0 || high > limit * 1.001) {
                advice.push(format!(
                    "values from {low} to {high} do not fit the unit {}: convert them in the query, or name another unit",
                    unit.name()
                ));
            }
        }
        Row {
            signal: name,
            series: returned(&key).map_or(0, |one| one.series),
            targets: with,
            missing: missing(with * history.steps()).map(|share| format!("{:.1} %", 100.0 * share)),
            last_value: last.map(|v| format!("{v:.4}")),
            unit,
            first_sample: first.map(|step| history.time(step).max(start).to_string()),
            last_sample: span.map(|(_, last)| last.to_string()),
            advice,
            key,
        }
    };
    let signals = config.signals.iter().enumerate().map(|(i, signal)| {
        let signal = &signal.signal;
        let key = format!("signals.{}.query", signal.name);
        row(signal.name.clone(), key, Some(signal.unit), &|t| {
            t.column(i)
        })
    });
    let others = fetched
        .report
        .returned
        .iter()
        .filter(|one| !one.key.starts_with("signals.") && !one.key.starts_with("compare."));
    let others = others.map(|one| Row {
        signal: one.key.clone(),
        key: one.key.clone(),
        series: one.series,
        targets: one.targets,
        missing: None,
        last_value: None,
        unit: None,
        first_sample: one.span.map(|(first, _)| first.to_string()),
        last_sample: one.span.map(|(_, last)| last.to_string()),
        advice: Vec::new(),
    });
    let compared = history.compared().iter().enumerate().map(|(i, name)| {
        let key = format!("compare.{name}");
        row(key.clone(), key, None, &|t| t.compared(i))
    });
    signals.chain(others).chain(compared).collect()
}

/// What is said of a rule file.
#[derive(Serialize)]
struct InFile<'a> {
    file: &'a Path,
    #[serde(flatten)]
    remark: Remark,
}

impl fmt::Display for InFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, one) = (self.file.display(), &self.remark);
        match one.line {
            0 => write!(f, "{file}: {}", one.message),
            line => write!(
                f,
                "{file}:{line}: {} in {}: {}",
                one.rule, one.group, one.message
            ),
        }
    }
}

fn rules(args: RulesArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    let paths = rule_files(args.files)?;
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    let mut files = Vec::new();
    for file in &paths {
        let text = fs::read_to_string(file)
            .with_context(|| format!("cannot read {}; name a rule file", file.display()))?;
        match rules::parse(&text) {
            Ok(rules) => files.push((file.as_path(), rules)),
            Err(message) => {
                let remark = Remark {
                    message,
                    ..Remark::default()
                };
                problems.push(InFile { file, remark });
            }
        }
    }
    let all = || {
        files
            .iter()
            .flat_map(|(file, rules)| rules.iter().map(|rule| (*file, rule)))
    };
    let recorded = all().filter(|(_, rule)| !rule.is_alert);
    let recorded: BTreeSet<String> = recorded.map(|(_, rule)| rule.name.clone()).collect();
    let exported = exported()?;
    for (file, rule) in all() {
        let said = rules::check(rule, &config, &exported, &recorded);
        let in_file = |remark| InFile { file, remark };
        problems.extend(said.problems.into_iter().map(in_file));
        warnings.extend(said.warnings.into_iter().map(in_file));
    }
    warnings.extend(rules::twice(&files).into_iter().map(|(i, remark)| InFile {
        file: files[i].0,
        remark,
    }));
    let unasked = match refused(&config, all())? {
        Ok(refused) => {
            problems.extend(refused);
            None
        }
        Err(error) => Some(error.to_string()),
    };
    problems.sort_by(|a: &InFile, b| (a.file, a.remark.line).cmp(&(b.file, b.remark.line)));
    let alerts = |rules: &[Rule]| rules.iter().filter(|rule| rule.is_alert).count();
    if args.output == Output::Json {
        let files = files.iter().map(|(file, rules)| {
            let alerts = alerts(rules);
            json!({"file": file, "alerts": alerts, "records": rules.len() - alerts})
        });
        print_json(&json!({
            "ok": problems.is_empty(),
            "asked": unasked.is_none(),
            "files": files.collect::<Vec<_>>(),
            "problems": problems,
            "warnings": warnings,
        }))?;
    } else {
        for (file, rules) in &files {
            let alerts = alerts(rules);
            let (word, style) = match problems.iter().any(|one| one.file == *file) {
                true => ("has problems", WARNING),
                false => ("ok", GOOD),
            };
            print(format!(
                "{}: {style}{word}{style:#}, alerts {alerts}, recording rules {}",
                file.display(),
                rules.len() - alerts
            ))?;
        }
        for warning in &warnings {
            terminal::warn(warning);
        }
    }
    if let Some(error) = unasked {
        terminal::warn(format!("no expression was run: {error}"));
    }
    if problems.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    bail!("the rules have problems:\n  {}", lines.join("\n  "))
}

/// Those of the folders in their place.
fn rule_files(named: Vec<PathBuf>) -> anyhow::Result<Vec<PathBuf>> {
    let named = match named.is_empty() {
        false => named,
        true => match RULES.iter().map(Path::new).find(|folder| folder.is_dir()) {
            Some(folder) => vec![folder.to_path_buf()],
            None => bail!(Usage(format!(
                "neither {} is there: name the rule files",
                RULES.join(" nor ")
            ))),
        },
    };
    let mut files = Vec::new();
    for path in named {
        if !path.is_dir() {
            files.push(path);
            continue;
        }
        let within = || format!("cannot read the folder {}", path.display());
        let mut inside = Vec::new();
        for entry in fs::read_dir(&path).with_context(within)? {
            let file = entry.with_context(within)?.path();
            if file
                .extension()
                .is_some_and(|end| end == "yml" || end == "yaml")
            {
                inside.push(file);
            }
        }
        if inside.is_empty() {
            bail!("{} holds no *.yml: name the rule files", path.display());
        }
        inside.sort();
        files.extend(inside);
    }
    Ok(files)
}

/// Rules whose expression Prometheus refuses to run; an error when it cannot be asked.
fn refused<'a>(
    config: &Config,
    rules: impl Iterator<Item = (&'a Path, &'a Rule)>,
) -> anyhow::Result<Result<Vec<InFile<'a>>, QueryError>> {
    let client = Client::new(&config.prometheus)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut refused = Vec::new();
    for (file, rule) in rules.filter(|(_, rule)| promql::unclosed(&rule.expr).is_none()) {
        let answer = runtime.block_on(client.instant(&rule.expr, now(), config.step));
        match answer {
            Ok(_) => {}
            Err(error @ QueryError::BadQuery { .. }) => {
                let remark = rule.remark(error.to_string());
                refused.push(InFile { file, remark });
            }
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(refused))
}

fn model(args: ModelArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    let dir = model_dir(args.model, &config)?;
    let opened = artifact::open(&dir).map_err(anyhow::Error::from);
    let facts = opened.as_ref().ok().map(|bundle| {
        let (manifest, training) = (&bundle.manifest, &bundle.manifest.training);
        json!({
            "model_id": manifest.id,
            "origin": manifest.origin.name(),
            "features": manifest.features.len(),
            "trained_until": training.end,
            "incidents": training.incidents,
        })
    });
    let fits = opened.and_then(|bundle| check_fit(&bundle, &config));
    match (args.output, &facts) {
        (Output::Json, _) => {
            let problem = fits.as_ref().err().map(|error| format!("{error:#}"));
            let mut report = facts.unwrap_or_else(|| json!({}));
            report["model"] = json!(dir);
            report["ok"] = json!(fits.is_ok());
            report["problem"] = json!(problem);
            print_json(&report)?;
        }
        (Output::Text, Some(facts)) => {
            let (word, style) = match fits.is_ok() {
                true => ("ok", GOOD),
                false => ("whole", WARNING),
            };
            let text = |key: &str| facts[key].as_str().unwrap_or_default().to_owned();
            print(format!(
                "{}: {style}{word}{style:#}, model {} of {} origin, {} features, trained until {} on {} incidents",
                dir.display(),
                text("model_id"),
                text("origin"),
                facts["features"],
                text("trained_until"),
                facts["incidents"],
            ))?;
        }
        (Output::Text, None) => {}
    }
    fits
}

fn health(args: HealthArgs) -> anyhow::Result<()> {
    let base = match args.url {
        Some(url) => url,
        None => {
            let environment = Environment::from_process()?;
            let port = environment.get("API_PORT").unwrap_or("8000");
            format!("http://127.0.0.1:{port}")
        }
    };
    let url = format!("{}/-/healthy", base.trim_end_matches('/'));
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(5))
        .tls_danger_accept_invalid_certs(true)
        .build()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let status = runtime
        .block_on(async { client.get(&url).send().await })
        .with_context(|| format!("{url} does not answer; --url says where `serve` listens"))?
        .status();
    match status {
        StatusCode::OK | StatusCode::UNAUTHORIZED => {
            println!("{url}: {status}");
            Ok(())
        }
        _ => bail!("{url} answers {status}"),
    }
}
