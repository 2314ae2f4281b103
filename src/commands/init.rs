//! `forewarn init`: looks at what a Prometheus has and writes a first config.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::check;
use super::progress::Bars;
use super::terminal::{self, print, print_json};
use super::{Output, Usage, load_config, now};
use crate::config::{Config, Environment, UpstreamConfig};
use crate::learning;
use crate::output::{self, OutputError};
use crate::presets;
use crate::prometheus::Client;
use crate::starter;
use crate::survey::{self, Found, Survey};
use crate::table::Table;
use crate::time::{format_duration, parse_duration};
use crate::training;

/// What `check queries` looks at.
const RECENT: Duration = Duration::from_secs(2 * 3600);

pub const EXAMPLES: &str = examples!(
    "forewarn init --prometheus.url http://prometheus:9090",
    "forewarn init --preset kubernetes --range 14d --config.file cluster.yaml",
    "forewarn init --prometheus.config config.yaml --config.file new.yaml",
    "forewarn init --list",
);

#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// Address of Prometheus, Thanos, Mimir, Cortex or VictoriaMetrics.
    #[arg(
        long = "prometheus.url",
        value_name = "URL",
        default_value = "http://127.0.0.1:9090"
    )]
    url: String,
    /// Take the section `prometheus` of this file instead (address, users, tokens, TLS, proxy, headers), as config.yaml has it.
    #[arg(long = "prometheus.config", value_name = "FILE", conflicts_with_all = ["url", "username", "token_file"])]
    prometheus: Option<PathBuf>,
    /// User for basic authentication.
    #[arg(
        long = "prometheus.username",
        value_name = "NAME",
        requires = "password_file",
        conflicts_with = "token_file"
    )]
    username: Option<String>,
    /// File with the user's password.
    #[arg(
        long = "prometheus.password-file",
        value_name = "FILE",
        requires = "username"
    )]
    password_file: Option<PathBuf>,
    /// File with a bearer token.
    #[arg(long = "prometheus.token-file", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Kind of targets. Default: the first of --list of which there are any.
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// List the presets with their queries; asks no Prometheus.
    #[arg(long)]
    list: bool,
    /// How far back to count failures.
    #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = parse_duration)]
    range: Duration,
    /// The file to write.
    #[arg(
        long = "config.file",
        default_value = "config.yaml",
        value_name = "FILE"
    )]
    path: PathBuf,
    /// Replace the file if it exists.
    #[arg(long)]
    force: bool,
    /// How the result is printed.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
}

pub fn run(args: InitArgs) -> anyhow::Result<()> {
    if args.list {
        return list(args.output);
    }
    if let Some(name) = &args.preset
        && presets::named(name).is_none()
    {
        let names = presets::all().iter().map(|preset| preset.name.as_str());
        let names: Vec<&str> = names.collect();
        return Err(Usage(format!(
            "--preset {name:?} is not known: use one of {}",
            names.join(", ")
        ))
        .into());
    }
    if args.path.exists() && !args.force {
        return Err(Usage(format!(
            "{} exists: name another file with --config.file, or replace it with --force",
            args.path.display()
        ))
        .into());
    }
    let (config, text) = section(&args)?;
    let surveyed = look_around(&args, &config.prometheus)?;
    let (survey, others) = match surveyed {
        Some(surveyed) => surveyed,
        None => bail!(
            "nothing that a preset knows is scraped by {}; if it has only just been started, try again after its first scrapes; `forewarn init --list` shows what would be; else write a config by hand, the shipped config.yaml explains every key",
            config.prometheus.url
        ),
    };
    let young = survey
        .young()
        .map_or(String::new(), |young| format!(". {young}"));
    if survey
        .signals
        .iter()
        .all(|signal| signal.left_out.is_some())
    {
        bail!(
            "no signal of the preset {} returns data for most targets: {}{}",
            survey.found.preset.name,
            reasons(survey.signals.iter().map(|s| (s.name, &s.left_out))),
            young
        );
    }
    if survey
        .failures
        .iter()
        .all(|failure| failure.left_out.is_some())
    {
        let failures = survey.failures.iter();
        bail!(
            "no failure of the preset {} can be told: {}{}",
            survey.found.preset.name,
            reasons(failures.map(|f| (f.name, &f.left_out))),
            young
        );
    }
    let secrets = args.prometheus.as_deref();
    write(&args.path, secrets, &starter::render(&survey, &text))?;
    let config = load_config(&args.path).context(
        "the file that was written is not a sound config, which is a mistake of forewarn",
    )?;
    let looked = check::look(&config, RECENT)?;
    match args.output {
        Output::Json => {
            let report = json!({"survey": survey, "also_found": others, "config": args.path});
            print_json(&report)?;
        }
        Output::Text => {
            let text = text_of(&survey, &others, &args, &config, looked.queries());
            print(text.trim_end())?;
        }
    }
    looked.tell()
}

fn list(output: Output) -> anyhow::Result<()> {
    let queries = |queries: &[String]| -> Vec<String> {
        let jobs = ["JOB".to_owned()];
        queries
            .iter()
            .map(|query| presets::with_jobs(query, &jobs))
            .collect()
    };
    let described = presets::all().iter().map(|preset| {
        let signals = preset.signals.iter().map(|signal| {
            json!({"name": signal.name, "unit": signal.unit, "about": signal.about, "queries": queries(&signal.queries)})
        });
        let failures = preset.failures.iter().map(|failure| {
            let texts: Vec<String> = failure.variants.iter().map(|variant| variant.query.clone()).collect();
            let exist: Vec<String> = failure.variants.iter().map(|variant| variant.exists.clone()).collect();
            json!({"name": failure.name, "about": failure.about, "active": failure.active, "queries": queries(&texts), "exist": queries(&exist)})
        });
        json!({
            "preset": preset.name, "title": preset.title, "found_by": preset.found_by, "targets": preset.label,
            "signals": signals.collect::<Vec<_>>(), "failures": failures.collect::<Vec<_>>(),
        })
    });
    match output {
        Output::Json => print_json(&described.collect::<Vec<Value>>())?,
        Output::Text => {
            for preset in presets::all() {
                let signals: Vec<&str> = preset
                    .signals
                    .iter()
                    .map(|signal| signal.name.as_str())
                    .collect();
                let failures: Vec<&str> = preset
                    .failures
                    .iter()
                    .map(|failure| failure.name.as_str())
                    .collect();
                print(format!(
                    "{:<12} {}\n{:13}targets   {}\n{:13}signals   {}\n{:13}failures  {}",
                    preset.name,
                    preset.title,
                    "",
                    preset.label.join("/"),
                    "",
                    signals.join(", "),
                    "",
                    failures.join(", ")
                ))?;
            }
        }
    }
    Ok(())
}

/// How Prometheus is reached, and the text that says so in the config.
fn section(args: &InitArgs) -> anyhow::Result<(Config, String)> {
    let (name, lines_before, text) = match &args.prometheus {
        None => {
            let mut keys = String::new();
            if let (Some(name), Some(file)) = (&args.username, &args.password_file) {
                keys = format!(
                    "  basic_auth:\n    username: {}\n    password_file: {}\n",
                    starter::quote(name),
                    starter::quote(&file.display().to_string())
                );
            }
            if let Some(file) = &args.token_file {
                let file = starter::quote(&file.display().to_string());
                keys = format!("  authorization:\n    credentials_file: {file}\n");
            }
            (
                "--prometheus.url".into(),
                0,
                starter::prometheus(&args.url, &keys),
            )
        }
        Some(path) => {
            let whole = fs::read_to_string(path)
                .with_context(|| format!("--prometheus.config {}", path.display()))?;
            let Some((before, section)) = cut_out(&whole) else {
                return Err(Usage(format!(
                    "--prometheus.config {}: has no section prometheus at the beginning of a line",
                    path.display()
                ))
                .into());
            };
            (path.display().to_string(), before, section)
        }
    };
    // Only the section is looked at, in the line where it stands.
    let rest = "signals: {load: {query: up, unit: none}}\nfailure: {queries: [up == 0]}\n";
    let whole = format!("{}{text}\n{rest}", "\n".repeat(lines_before));
    let config = Config::parse(&whole, &name, &Environment::from_process()?)?;
    Ok((config, text))
}

/// The section `prometheus` of a config, and how many lines stand before it.
fn cut_out(config: &str) -> Option<(usize, String)> {
    let lines: Vec<&str> = config.lines().collect();
    let start = lines
        .iter()
        .position(|line| line.starts_with("prometheus:"))?;
    let goes_on = |line: &&&str| line.is_empty() || line.starts_with([' ', '#', '}']);
    let length = 1 + lines[start + 1..].iter().take_while(goes_on).count();
    let mut section = &lines[start..start + length];
    // What stands right before the next key is about that one.
    while let [rest @ .., last] = section
        && (last.is_empty() || last.starts_with('#'))
    {
        section = rest;
    }
    Some((start, section.join("\n") + "\n"))
}

/// Asks Prometheus: what was chosen, and what else is there.
fn look_around(
    args: &InitArgs,
    prometheus: &UpstreamConfig,
) -> anyhow::Result<Option<(Survey, Vec<Found>)>> {
    // One query after the other: nobody has said yet what this server can take.
    let client = Client::new(&UpstreamConfig {
        concurrency: 1,
        ..prometheus.clone()
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let at = now().floor(Duration::from_secs(1));
    let defaults = Config::parse(
        crate::config::SHIPPED,
        "config.yaml",
        &Environment::default(),
    )?;
    let rules = learning::plan(&defaults).rules;
    eprintln!("looking at what {} has", prometheus.url);
    let mut found = runtime.block_on(survey::find(&client, at))?;
    let wanted = |found: &Found| {
        args.preset
            .as_ref()
            .is_none_or(|name| *name == found.preset.name)
    };
    let Some(chosen) = found.iter().position(wanted) else {
        if let Some(preset) = args.preset.as_deref().and_then(presets::named) {
            bail!(
                "there are no targets for the preset {}: {} returns no series; are {} scraped?",
                preset.name,
                preset.found_by,
                preset.title
            );
        }
        return Ok(None);
    };
    let chosen = found.remove(chosen);
    let bars = Bars::new();
    let surveyed = runtime.block_on(survey::survey(
        &client,
        chosen,
        at,
        args.range,
        rules,
        |stage, share| bars.show(stage, share),
    ));
    bars.finish();
    Ok(Some((surveyed?, found)))
}

/// A copy of secrets is no easier to read than where they come from.
fn write(path: &Path, secrets: Option<&Path>, text: &str) -> anyhow::Result<()> {
    let io = |cause| OutputError::Io {
        path: path.to_path_buf(),
        cause,
    };
    let mode = secrets.and_then(|from| fs::metadata(from).ok());
    let mode = mode.map(|metadata| metadata.permissions().mode() & 0o777);
    output::write(path, |file| {
        if let Some(mode) = mode {
            let permissions = fs::Permissions::from_mode(mode);
            file.get_ref().set_permissions(permissions).map_err(io)?;
        }
        file.write_all(text.as_bytes()).map_err(io)
    })?;
    Ok(())
}

fn reasons<'a>(left_out: impl Iterator<Item = (&'static str, &'a Option<String>)>) -> String {
    let reasons = left_out.filter_map(|(name, why)| Some(format!("{name}: {}", why.as_ref()?)));
    reasons.collect::<Vec<_>>().join("; ")
}

fn text_of(
    survey: &Survey,
    others: &[Found],
    args: &InitArgs,
    config: &Config,
    queries: usize,
) -> String {
    let Survey { found, .. } = survey;
    let preset = found.preset;
    let span = match survey.at.since(survey.since) < args.range {
        true => format!("since {}", survey.since),
        false => format!("{} at least (--range)", format_duration(args.range)),
    };
    let mut text = format!(
        "preset   {}: {}\ntargets  {}, of job {}; label {}\nhistory  {}\n\n",
        preset.name,
        preset.title,
        found.targets,
        found.jobs.join(", "),
        preset.label.join("/"),
        span,
    );
    if let Some(young) = survey.young() {
        text.push_str(&format!("{young}.\n\n"));
    }
    let why = |left_out: &Option<String>| {
        let why = left_out.as_ref().map(|why| format!("left out: {why}"));
        why.unwrap_or_default()
    };
    let mut table = Table::new(&["<signal", ">targets", ">one of them now", "<"]);
    for signal in &survey.signals {
        let now = signal
            .value
            .map_or("-".into(), |value| starter::with_unit(value, signal.unit));
        let targets = format!("{} of {}", signal.targets, found.targets);
        table.row([signal.name.into(), targets, now, why(&signal.left_out)]);
    }
    text.push_str(&table.render(terminal::width()));
    text.push('\n');
    let mut table = Table::new(&["<failure", ">incidents", ">targets", "<"]);
    for failure in &survey.failures {
        let number = |of: fn(&survey::Incidents) -> usize| {
            failure
                .incidents
                .as_ref()
                .map_or("-".into(), |found| of(found).to_string())
        };
        table.row([
            failure.name.into(),
            number(|found| found.incidents),
            number(|found| found.targets),
            why(&failure.left_out),
        ]);
    }
    text.push_str(&table.render(terminal::width()));
    for alerts in &survey.alerts {
        let names: Vec<&str> = alerts.names.iter().map(String::as_str).collect();
        text.push_str(&match alerts.incidents.incidents {
            0 => format!("alerts with severity {} name no target by the label {}: see failure.target_labels\n", alerts.severity, preset.label.join(" and ")),
            _ => format!(
                "alerts with severity {} ({}) would be {}: to count them write alerts: [{{severity: {}}}]\n",
                alerts.severity,
                names.join(", "),
                starter::counted(alerts.incidents),
                alerts.severity
            ),
        });
    }
    text.push_str(&format!("\n{}\n", starter::verdict(survey)));
    let needed = training::shortest(&learning::plan(config));
    let have = survey.at.since(survey.since);
    if have < needed {
        let ready = survey.at.plus(needed - have);
        text.push_str(&format!(
            "Training needs a history of {} at least, which there is from {ready} on.\n",
            format_duration(needed)
        ));
    }
    for note in &survey.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    for other in others {
        text.push_str(&format!(
            "also found: {}, {} of them: forewarn init --preset {} --config.file {}.yaml\n",
            other.preset.title, other.targets, other.preset.name, other.preset.name
        ));
    }
    let path = args.path.display();
    let file = match args.path == Path::new("config.yaml") {
        true => String::new(),
        false => format!(" --config.file {path}"),
    };
    text.push_str(&format!(
        "\n{path} is written, and its {queries} queries were tried (forewarn check queries{file} shows what they return).\nnext: read it, then forewarn train{file}\n"
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_cut_out_as_it_stands() {
        let file = "# mine\n\nprometheus:\n  url: http://p\n\n  # who\n  basic_auth: {username: a}\n\n# next\ntargets: {}\n";
        let section = "prometheus:\n  url: http://p\n\n  # who\n  basic_auth: {username: a}\n";
        assert_eq!(cut_out(file), Some((2, section.into())));
        assert_eq!(
            cut_out("prometheus: {url: http://p,\n  timeout: 1s\n}"),
            Some((0, "prometheus: {url: http://p,\n  timeout: 1s\n}\n".into()))
        );
        assert_eq!(cut_out("signals: {}\n"), None);
    }
}
