//! `forewarn model`: which models there are, what one is, which one is served.

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::{ConfigFile, Output, check_fit};
use crate::artifact;
use crate::config::Config;
use crate::models::{self, Entry};

#[derive(Debug, clap::Args)]
pub struct ModelArgs {
    #[command(subcommand)]
    command: ModelCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ModelCommand {
    /// The models under model.path, the newest first.
    List(ListArgs),
    /// Verify a model and print its card, or its manifest with --output json.
    Inspect(InspectArgs),
    /// Verify a model and make it the served one; a running forewarn keeps the model that it has loaded.
    Promote(PromoteArgs),
    /// Go back to the model that was served before; once more returns to this one.
    Rollback(ConfigFile),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    config: ConfigFile,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct InspectArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// Name of a model under model.path; default: the served one.
    #[arg(value_name = "ID")]
    name: Option<String>,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct PromoteArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// Name of a model under model.path.
    #[arg(value_name = "ID")]
    name: String,
}

pub fn run(args: ModelArgs) -> anyhow::Result<()> {
    match args.command {
        ModelCommand::List(args) => list(&args.config.load()?, args.output),
        ModelCommand::Inspect(args) => inspect(&args),
        ModelCommand::Promote(args) => promote(&args.config.load()?, &args.name),
        ModelCommand::Rollback(file) => {
            let config = file.load()?;
            let previous = models::previous(&config.model.path)?.with_context(|| {
                format!(
                    "no model was served before the current one in {}: `forewarn model list` shows what can be promoted",
                    config.model.path.display()
                )
            })?;
            promote(&config, &previous)
        }
    }
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
        Output::Json => println!("{}", serde_json::to_string_pretty(&rows)?),
        Output::Text if rows.is_empty() => {
            println!(
                "no model in {}: train one with `forewarn train`",
                folder.display()
            );
        }
        Output::Text => print!("{}", table(&rows)),
    }
    Ok(())
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
    let mut text = format!(
        "  {:<32} {:<10} {:<20} {:>9} {:>6} {:>8} {:>10}\n",
        "model", "origin", "trained until", "incidents", "AP", "ROC AUC", "threshold"
    );
    for row in rows {
        let word = |key: &str| row[key].as_str().unwrap_or("-");
        let number = |key: &str| {
            row[key]
                .as_f64()
                .map_or_else(|| "-".to_string(), |x| format!("{x:.3}"))
        };
        let mark = match (&row["current"], &row["previous"]) {
            (Value::Bool(true), _) => '*',
            (_, Value::Bool(true)) => '<',
            _ => ' ',
        };
        let name = match (word("name"), word("id")) {
            (name, id) if name == id || id == "-" => name.to_string(),
            (name, id) => format!("{name} ({id})"),
        };
        if let Some(error) = row["error"].as_str() {
            text.push_str(&format!("{mark} {name:<32} {error}\n"));
            continue;
        }
        text.push_str(&format!(
            "{mark} {name:<32} {:<10} {:<20} {:>9} {:>6} {:>8} {:>10}\n",
            word("origin"),
            word("trained_until"),
            row["incidents"],
            number("average_precision"),
            number("roc_auc"),
            number("threshold"),
        ));
    }
    text.push_str("* served   < served before it: `forewarn model rollback` goes back to it\n");
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
            print!("{}", artifact::card(&dir)?);
            if let Some(report) = artifact::report(&dir) {
                eprintln!("report for a browser: {}", report.display());
            }
        }
        Output::Json => println!("{}", serde_json::to_string_pretty(&bundle.manifest)?),
    }
    Ok(())
}

fn promote(config: &Config, name: &str) -> anyhow::Result<()> {
    let folder = &config.model.path;
    let dir = models::directory(folder, name)?;
    if !artifact::is_model(&dir) {
        bail!(
            "there is no model {name} in {}; `forewarn model list` shows those that are there",
            folder.display()
        );
    }
    check_fit(&artifact::open(&dir)?.manifest, config)?;
    let before = models::served(folder)?;
    models::promote(folder, name)?;
    match before {
        Some(before) if before == name => println!("{name} is served already"),
        Some(before) => println!("{name} is the served model now; before it was {before}"),
        None => println!("{name} is the served model now"),
    }
    Ok(())
}
