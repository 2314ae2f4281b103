//! The commands: parse, wire the modules together, print. Errors carry context here.

mod backtest;
mod check;
mod dataset;
mod history;
mod init;
mod logging;
mod model;
pub mod predict;
mod progress;
mod promotion;
mod serve;
mod simulate;
mod train;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::bail;
use clap::{Parser, Subcommand, ValueEnum};

use crate::artifact::ArtifactError;
use crate::bundle::Bundle;
use crate::config::{Config, ConfigError, Environment};
use crate::learning;
use crate::models;
use crate::time::Timestamp;

/// Says how probable it is that a target fails within the horizon, from series that Prometheus already has.
#[derive(Debug, Parser)]
#[command(name = "forewarn", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look at what a Prometheus has and write a first config for it.
    Init(init::InitArgs),
    /// Score the targets every step; publish metrics, answer the API, receive webhooks.
    Serve(serve::ServeArgs),
    /// Learn from history: label report, fit, evaluation, model directory.
    Train(train::TrainArgs),
    /// Replay history through a model: what it would have foreseen, at what cost in alarms.
    ///
    /// The history before the start that windows need is read too. Alarms are cut at the model's own threshold.
    /// The baselines that learn (prior, time_of_day) know what the model's training rows taught them, nothing
    /// of this range; of an imported model only the base rate is known, so that time_of_day equals prior.
    /// Scores under `compare` in the config are judged in the same way as the baselines.
    Backtest(backtest::BacktestArgs),
    /// Score rows from a file: the answers of the API.
    ///
    /// A row is a body of POST /predict: the model's signals as numbers, null or absent where unknown, and
    /// optionally `history`. A live `target` exists only in `forewarn serve`. Rows are scored as of now.
    Predict(predict::PredictArgs),
    /// List, look at and choose the served model; exchange its trees with XGBoost.
    Model(model::ModelArgs),
    /// Hand the training matrix to other tools.
    Dataset(dataset::DatasetArgs),
    /// Check a config, its queries or a model.
    Check(check::CheckArgs),
    /// Simulate a fleet to try forewarn on.
    Simulate(simulate::SimulateArgs),
}

/// How a command prints its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
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
    };
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    if let Some(problems) = error.downcast_ref::<ConfigError>() {
        eprintln!("{problems}");
        return ExitCode::from(2);
    }
    eprintln!("forewarn: {error:#}");
    ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
}
