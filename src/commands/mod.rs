//! The commands: parse, wire the modules together, print. Errors carry context here.

/// A paragraph of `--help` after the flags: its heading, then its lines. Those that are commands are tried by a test.
macro_rules! paragraph {
    ($heading:literal $(, $line:literal)* $(,)?) => {
        concat!("\x1b[1;4m", $heading, ":\x1b[0m", $("\n  ", $line),*)
    };
}

/// The paragraph that most commands have.
macro_rules! examples {
    ($($line:literal),* $(,)?) => { paragraph!("Examples", $($line),*) };
}

mod backtest;
mod check;
mod dataset;
#[cfg(target_env = "gnu")]
mod heaps;
mod history;
mod init;
mod logging;
mod manual;
mod model;
pub mod predict;
mod progress;
mod promotion;
mod serve;
mod simulate;
mod terminal;
mod train;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::bail;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

use self::terminal::{ERROR, Unread};
use crate::artifact::ArtifactError;
use crate::bundle::Bundle;
use crate::config::{Config, ConfigError, Environment};
use crate::learning;
use crate::models;
use crate::time::Timestamp;

const FIRST_STEPS: &str = paragraph!(
    "First steps",
    "forewarn init            write config.yaml for the Prometheus that you have",
    "forewarn check queries   see what its queries return",
    "forewarn train           learn from the last 30 days, and see how good that is",
    "forewarn serve           status page, API and /metrics on http://127.0.0.1:8000",
    "forewarn help train      all about a command",
);

const MORE: &str = concat!(
    "\n\n",
    paragraph!(
        "Output",
        "Results go to stdout: text, or one JSON document with --output json. Progress, logs, warnings",
        "and errors go to stderr. Colours are for terminals; NO_COLOR turns them off, CLICOLOR_FORCE on.",
        "Times are RFC 3339 (2026-01-31T12:00:00Z), unix seconds, or relative (30d, now-6h).",
        "Durations are like 500ms, 30s, 5m, 1h30m, 30d.",
    ),
    "\n\n",
    paragraph!(
        "Exit status",
        "0  it worked",
        "1  it failed, or a check found something; stderr says what, and what to do about it",
        "2  the command line, the config or the web config is wrong",
    ),
    "\n\n",
    paragraph!(
        "Environment",
        "API_HOST, API_PORT  api.listen of the config",
        "MODEL_PATH          model.path",
        "DATA_PATH           state.path",
        "LOG_LEVEL           log.level",
        "These override the config. A file .env in the working directory is read as well.",
    ),
);

/// Says how probable it is that a target fails within the horizon, from series that Prometheus already has.
///
/// For each target that a Prometheus knows, forewarn reads a few series, scores them with models that have
/// learned from your own history, and republishes failure_probability for your alert rules and dashboards.
#[derive(Debug, Parser)]
#[command(
    name = "forewarn",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    subcommand_required = true,
    max_term_width = 110,
    after_help = FIRST_STEPS,
    after_long_help = format!("{FIRST_STEPS}{MORE}"),
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look at what a Prometheus has and write a first config for it.
    #[command(after_long_help = init::EXAMPLES)]
    Init(init::InitArgs),
    /// Score the targets every step; publish metrics, answer the API, receive webhooks.
    ///
    /// The service itself: every step it queries Prometheus, scores each target, and keeps a scoreboard of
    /// what it foresaw. Without a model it says so on /-/ready and waits for one.
    #[command(after_long_help = serve::EXAMPLES)]
    Serve(serve::ServeArgs),
    /// Learn from history: label report, fit, evaluation, model directory.
    ///
    /// Reads the signals and failures of the past from Prometheus, says first what there is to learn from,
    /// fits the models, evaluates them on the last part of the time, which they have not seen, and writes a
    /// model directory with card.md and report.html.
    #[command(after_long_help = train::EXAMPLES)]
    Train(train::TrainArgs),
    /// Replay history through a model: what it would have foreseen, at what cost in alarms.
    ///
    /// The history before the start that windows need is read too. Alarms are cut at the model's own threshold.
    /// The baselines that learn (prior, time_of_day) know what the model's training rows taught them, nothing
    /// of this range; of an imported model only the base rate is known, so that time_of_day equals prior.
    /// Scores under `compare` in the config are judged in the same way as the baselines.
    #[command(after_long_help = backtest::EXAMPLES)]
    Backtest(backtest::BacktestArgs),
    /// Score rows from a file: the answers of the API.
    ///
    /// A row is a body of POST /predict: the model's signals as numbers, null or absent where unknown, and
    /// optionally `history`. A live `target` exists only in `forewarn serve`. Rows are scored as of now.
    #[command(after_long_help = predict::EXAMPLES)]
    Predict(predict::PredictArgs),
    /// List, look at and choose the served model; exchange its trees with XGBoost.
    #[command(after_long_help = model::EXAMPLES)]
    Model(model::ModelArgs),
    /// Hand the training matrix to other tools.
    #[command(after_long_help = dataset::EXAMPLES)]
    Dataset(dataset::DatasetArgs),
    /// Check a config, its queries or a model.
    #[command(after_long_help = check::EXAMPLES)]
    Check(check::CheckArgs),
    /// Simulate a fleet to try forewarn on.
    #[command(after_long_help = simulate::EXAMPLES)]
    Simulate(simulate::SimulateArgs),
    /// Print the completions for a shell.
    #[command(after_long_help = manual::EXAMPLES)]
    Completions(manual::CompletionsArgs),
    /// Write the man pages of all commands.
    #[command(hide = true)]
    Man(manual::ManArgs),
}

/// How a command prints its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// One JSON document.
    Json,
}

#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// Configuration file.
    #[arg(
        long = "config.file",
        default_value = "config.yaml",
        value_name = "FILE"
    )]
    path: PathBuf,
}

impl ConfigFile {
    fn load(&self) -> Result<Config, ConfigError> {
        load_config(&self.path)
    }
}

/// A mistake in the arguments that the parser cannot see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

fn load_config(path: &Path) -> Result<Config, ConfigError> {
    Config::load(path, &Environment::from_process()?)
}

/// The model directory that a flag names; else the served one.
fn model_dir(flag: Option<PathBuf>, config: &Config) -> Result<PathBuf, ArtifactError> {
    flag.map_or_else(|| models::current(&config.model.path), Ok)
}

/// Refuses a model that cannot score what the config describes.
fn check_fit(bundle: &Bundle, config: &Config) -> anyhow::Result<()> {
    match learning::misfit(bundle, config).or_else(|| bundle.lacks(config.model.serve)) {
        Some(why) => bail!("{why}"),
        None => Ok(()),
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Parses the command line and runs it: 0 is ok, 1 a failure, 2 a mistake in usage or config.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Init(args) => init::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Train(args) => train::run(args),
        Command::Backtest(args) => backtest::run(args),
        Command::Predict(args) => predict::run(args),
        Command::Model(args) => model::run(args),
        Command::Dataset(args) => dataset::run(args),
        Command::Check(args) => check::run(args),
        Command::Simulate(args) => simulate::run(args),
        Command::Completions(args) => manual::completions(&args, Cli::command()),
        Command::Man(args) => manual::man(&args, Cli::command()),
    };
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    if error.is::<Unread>() {
        return ExitCode::SUCCESS;
    }
    if let Some(problems) = error.downcast_ref::<ConfigError>() {
        eprintln!("{problems}");
        return ExitCode::from(2);
    }
    anstream::eprintln!("{ERROR}forewarn:{ERROR:#} {error:#}");
    ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command that is shown, with its words, outermost first.
    fn all(command: &clap::Command, words: &str) -> Vec<(String, clap::Command)> {
        let words = format!("{words} {}", command.get_name()).trim().to_owned();
        let inner = command
            .get_subcommands()
            .filter(|one| !one.is_hide_set() && one.get_name() != "help");
        let inner: Vec<_> = inner.flat_map(|one| all(one, &words)).collect();
        [vec![(words, command.clone())], inner].concat()
    }

    /// The words of the forewarn in a line of shell, up to where a pipe, a redirection or a remark begins.
    fn words_of(line: &str) -> Option<Vec<&str>> {
        let from = line.find("forewarn ")?;
        let line = line[from..].split(" | ").next()?.split("   ").next()?;
        let line = line.split(" > ").next()?.split(" < ").next()?;
        Some(line.split_whitespace().collect())
    }

    #[test]
    fn every_command_says_what_it_is_for_and_shows_examples_that_parse() {
        let mut examples = 0;
        for (words, command) in all(&Cli::command(), "") {
            assert!(command.get_about().is_some(), "{words}");
            let text = command.get_after_long_help().map(ToString::to_string);
            let text = text.unwrap_or_default();
            let own = text
                .split("\n\n")
                .filter(|one| one.starts_with("Examples:") || one.starts_with("First steps:"))
                .flat_map(str::lines)
                .filter_map(words_of)
                .map(|example| {
                    if let Err(error) = Cli::try_parse_from(&example)
                        && error.kind() != clap::error::ErrorKind::DisplayHelp
                    {
                        panic!("{words}: {example:?}: {error}");
                    }
                });
            let own = own.count();
            assert!(own > 0, "{words} has no example");
            examples += own;
        }
        assert!(examples > 40, "{examples}");
    }

    #[test]
    fn every_flag_says_what_it_does_and_what_it_takes() {
        for (words, command) in all(&Cli::command(), "") {
            for flag in command.get_arguments() {
                let name = flag.get_id();
                assert!(
                    flag.get_help().is_some() || flag.is_positional(),
                    "{words} {name}"
                );
                let takes =
                    flag.get_action().takes_values() && flag.get_possible_values().is_empty();
                let said = flag.get_value_names().and_then(|names| names.first());
                assert!(!takes || said.is_some(), "{words} {name} has no value name");
            }
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
