//! `forewarn model`: which models there are, what one is, which one is served; and their trees as XGBoost's.

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;

use anstyle::Style;
use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::terminal::{self, ERROR, GOOD, print, print_json};
use super::train::{self, LearnArgs};
use super::{ConfigFile, Output, check_fit, model_dir};
use crate::artifact;
use crate::bundle::Origin;
use crate::config::Config;
use crate::learning;
use crate::models::{self, Entry};
use crate::output::{self, OutputError};
use crate::table::{Cell, Table};
use crate::training;
use crate::types::ServeMember;

pub const EXAMPLES: &str = examples!(
    "forewarn model list",
    "forewarn model inspect --output json",
    "forewarn model promote 20260112t0000-1a2b3c4d",
    "forewarn model rollback",
    "forewarn help model import       all about a command",
);

#[derive(Debug, clap::Args)]
pub struct ModelArgs {
    #[command(subcommand)]
    command: ModelCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ModelCommand {
    /// The models under model.path, the newest first.
    #[command(after_long_help = concat!(
        examples!(
            "forewarn model list",
            "forewarn model list --output json | jq -r '.[] | select(.current).name'",
        ),
        "\n\n",
        paragraph!(
            "JSON",
            "[{\"name\", \"id\", \"origin\", \"trained_until\", \"incidents\", \"average_precision\", \"roc_auc\",",
            "  \"threshold\", \"current\", \"previous\"}], or \"name\" and \"error\" of a model that cannot be read",
        ),
    ))]
    List(ListArgs),
    /// Verify a model and print its card, or its manifest with --output json.
    #[command(after_long_help = examples!(
        "forewarn model inspect",
        "forewarn model inspect 20260112t0000-1a2b3c4d --output json",
    ))]
    Inspect(InspectArgs),
    /// Verify a model and make it the served one; a running forewarn keeps the model that it has loaded.
    #[command(after_long_help = concat!(
        examples!("forewarn model promote 20260112t0000-1a2b3c4d"),
        "\n\n",
        paragraph!("JSON", "{\"served\": \"20260112t0000-1a2b3c4d\", \"before\": \"20260101t0000-5e6f7a8b\"}"),
    ))]
    Promote(PromoteArgs),
    /// Go back to the model that was served before; once more returns to this one.
    #[command(after_long_help = concat!(
        examples!("forewarn model rollback"),
        "\n\n",
        paragraph!("JSON", "{\"served\": \"20260101t0000-5e6f7a8b\", \"before\": \"20260112t0000-1a2b3c4d\"}"),
    ))]
    Rollback(RollbackArgs),
    /// Write a tree member as an XGBoost model that Python's xgboost loads.
    #[command(after_long_help = concat!(
        examples!(
            "forewarn model export --output model.json",
            "forewarn model export --member random_forest --model models/winter --output forest.json --summary json",
        ),
        "\n\n",
        paragraph!("JSON", "{\"file\": \"model.json\", \"model_id\": \"20260112t0000-1a2b3c4d\", \"member\": \"xgboost\"}"),
    ))]
    Export(ExportArgs),
    /// Take boosted trees that XGBoost trained elsewhere: calibrate, evaluate and serve them.
    ///
    /// The trees must be a binary:logistic model over the features that `forewarn dataset export` writes with
    /// this configuration. They are calibrated and given their threshold on the calibration slice of the
    /// history, evaluated on its test slice like a model of `forewarn train`, and promoted as --promote says. For figures
    /// that mean something give the --start and --end of the export, and train on its `fit` slice only. All trees of the file count, also those after an early stop's best iteration.
    #[command(after_long_help = examples!(
        "forewarn model import --xgboost model.json --start 2026-01-01T00:00:00Z --end 2026-03-01T00:00:00Z",
        "forewarn model import --xgboost model.json --start 60d --promote never --output json",
    ))]
    Import(ImportArgs),
}

#[derive(Debug, clap::Args)]
struct ExportArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// The model directory [default: the served one under model.path].
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Which member of the ensemble.
    #[arg(long, value_enum, value_name = "MEMBER", default_value_t = TreeMember::Xgboost)]
    member: TreeMember,
    /// The file to write; only an XGBoost JSON file is replaced.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// How what was written is summed up: text goes to stderr, JSON to stdout.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    summary: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
enum TreeMember {
    /// binary:logistic; its margin is the log-odds before calibration.
    Xgboost,
    /// reg:squarederror; its prediction is the mean share of positives before calibration.
    RandomForest,
}

#[derive(Debug, clap::Args)]
struct ImportArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// The model, as `booster.save_model("model.json")` writes it.
    #[arg(long, value_name = "FILE")]
    xgboost: PathBuf,
    #[command(flatten)]
    learn: LearnArgs,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// How the result is printed.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct InspectArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// Name of a model under model.path [default: the served one].
    #[arg(value_name = "ID")]
    name: Option<String>,
    /// How the result is printed.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct PromoteArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// Name of a model under model.path.
    #[arg(value_name = "ID")]
    name: String,
    /// How the result is printed.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct RollbackArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// How the result is printed.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
}

pub fn run(args: ModelArgs) -> anyhow::Result<()> {
    match args.command {
        ModelCommand::List(args) => list(&args.config.load()?, args.output),
        ModelCommand::Inspect(args) => inspect(&args),
        ModelCommand::Promote(args) => promote(&args.config.load()?, &args.name, args.output),
        ModelCommand::Rollback(args) => {
            let config = args.config.load()?;
            let previous = models::previous(&config.model.path)?.with_context(|| {
                format!(
                    "no model was served before the current one in {}: `forewarn model list` shows what can be promoted",
                    config.model.path.display()
                )
            })?;
            promote(&config, &previous, args.output)
        }
        ModelCommand::Export(args) => export(args),
        ModelCommand::Import(args) => import(&args),
    }
}

fn export(args: ExportArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    output::check_replaceable(&args.output, output::XGBOOST_JSON).context("--output")?;
    let dir = model_dir(args.model, &config)?;
    let bundle = artifact::open(&dir)?;
    let member = match args.member {
        TreeMember::Xgboost => ServeMember::Xgboost,
        TreeMember::RandomForest => ServeMember::RandomForest,
    };
    let file = format!("full/{}.json", member.name());
    let mut files = bundle.files();
    let bytes = files.remove(&file).with_context(|| {
        format!(
            "model {} of {} origin has no {file}",
            bundle.manifest.id,
            bundle.manifest.origin.name()
        )
    })?;
    output::write::<OutputError>(&args.output, |out| {
        out.write_all(&bytes).map_err(|cause| OutputError::Io {
            path: args.output.clone(),
            cause,
        })
    })?;
    let id = &bundle.manifest.id;
    match args.summary {
        Output::Text => eprintln!("{file} of model {id} written to {}", args.output.display()),
        Output::Json => print_json(&json!({
            "file": args.output,
            "model_id": id,
            "member": member.name(),
        }))?,
    }
    Ok(())
}

/// Bytes of an XGBoost model at most: some two thousand trees of depth ten.
const MAX_MODEL_BYTES: u64 = 256 << 20;

fn import(args: &ImportArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    let serve = config.model.serve;
    if ![ServeMember::Ensemble, ServeMember::Xgboost].contains(&serve) {
        bail!(
            "an imported model has no {}, which model.serve names: set it to ensemble or xgboost",
            serve.name()
        );
    }
    let path = args.xgboost.display();
    let mut bytes = Vec::new();
    File::open(&args.xgboost)
        .and_then(|file| file.take(MAX_MODEL_BYTES + 1).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {path}"))?;
    if bytes.len() as u64 > MAX_MODEL_BYTES {
        bail!(
            "{path} is larger than {} MiB: train fewer or shallower trees",
            MAX_MODEL_BYTES >> 20
        );
    }
    let names = learning::plan(&config).catalogue.names();
    let trees = crate::model::import(&bytes, &names).with_context(|| path.to_string())?;
    drop(bytes);
    train::learn(
        &config,
        &args.learn,
        Origin::Imported,
        |history, replay, plan, force, progress| {
            training::import(history, replay, plan, trees, force, progress)
        },
    )
}

fn list(config: &Config, output: Output) -> anyhow::Result<()> {
    let folder = &config.model.path;
    let (served, previous) = (models::served(folder)?, models::previous(folder)?);
    let entries = models::list(folder)?;
    let rows: Vec<Value> = entries
        .iter()
        .map(|entry| {
            let mut row = describe(entry);
            row["current"] = json!(served.as_ref() == Some(&entry.name));
            row["previous"] = json!(previous.as_ref() == Some(&entry.name));
            row
        })
        .collect();
    match output {
        Output::Json => print_json(&rows),
        Output::Text if rows.is_empty() => print(format!(
            "no model in {}: train one with `forewarn train`",
            folder.display()
        )),
        Output::Text => print(table(&rows)),
    }
}

fn describe(entry: &Entry) -> Value {
    let manifest = match &entry.manifest {
        Ok(manifest) => manifest,
        Err(error) => return json!({"name": entry.name, "error": error.to_string()}),
    };
    let ensemble = &manifest.metrics["ensemble"];
    json!({
        "name": entry.name,
        "id": manifest.id,
        "origin": manifest.origin,
        "trained_until": manifest.training.end,
        "incidents": manifest.training.incidents,
        "average_precision": ensemble["average_precision"],
        "roc_auc": ensemble["roc_auc"],
        "threshold": manifest.threshold.alarming(),
    })
}

fn table(rows: &[Value]) -> String {
    let mut table = Table::new(&[
        "<  model",
        "<origin",
        "<trained until",
        ">incidents",
        ">AP",
        ">ROC AUC",
        ">threshold",
    ]);
    for row in rows {
        let word = |key: &str| row[key].as_str().unwrap_or("-");
        let number = |key: &str| {
            row[key]
                .as_f64()
                .map_or_else(|| "-".to_string(), |x| format!("{x:.3}"))
        };
        let (mark, style) = match (&row["current"], &row["previous"]) {
            (Value::Bool(true), _) => ('*', GOOD),
            (_, Value::Bool(true)) => ('<', Style::new()),
            _ => (' ', Style::new()),
        };
        let name = match (word("name"), word("id")) {
            (name, id) if name == id || id == "-" => format!("{mark} {name}"),
            (name, id) => format!("{mark} {name} ({id})"),
        };
        if let Some(error) = row["error"].as_str() {
            table.across(format!("{ERROR}{name}{ERROR:#}  {error}"));
            continue;
        }
        table.row([
            Cell::styled(name, style),
            word("origin").into(),
            word("trained_until").into(),
            row["incidents"].to_string().into(),
            number("average_precision").into(),
            number("roc_auc").into(),
            number("threshold").into(),
        ]);
    }
    let mut text = table.render(terminal::width());
    text.push_str("* served   < served before it: `forewarn model rollback` goes back to it");
    text
}

fn inspect(args: &InspectArgs) -> anyhow::Result<()> {
    let folder = &args.config.load()?.model.path;
    let dir = match &args.name {
        Some(name) => models::directory(folder, name)?,
        None => models::current(folder)?,
    };
    let bundle = artifact::open(&dir)?;
    match args.output {
        Output::Text => {
            print(artifact::card(&dir)?.trim_end())?;
            if let Some(report) = artifact::report(&dir) {
                eprintln!("report for a browser: {}", report.display());
            }
        }
        Output::Json => print_json(&bundle.manifest)?,
    }
    Ok(())
}

fn promote(config: &Config, name: &str, output: Output) -> anyhow::Result<()> {
    let folder = &config.model.path;
    let dir = models::directory(folder, name)?;
    if !artifact::is_model(&dir) {
        bail!(
            "there is no model {name} in {}; `forewarn model list` shows those that are there",
            folder.display()
        );
    }
    let _lock = models::lock(folder)?;
    check_fit(&artifact::open(&dir)?, config)?;
    let before = models::served(folder)?;
    models::promote(folder, name)?;
    match (output, before) {
        (Output::Json, before) => print_json(&json!({"served": name, "before": before})),
        (Output::Text, Some(before)) if before == name => {
            print(format!("{name} is served already"))
        }
        (Output::Text, Some(before)) => print(format!(
            "{name} is the served model now; before it was {before}"
        )),
        (Output::Text, None) => print(format!("{name} is the served model now")),
    }
}
