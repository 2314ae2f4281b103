//! Logs go to stderr, as text or JSON lines.

use anstream::{AutoStream, ColorChoice};
use clap::ValueEnum;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt, reload};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// An object per line.
    Json,
}

#[derive(Debug, clap::Args)]
pub struct LogArgs {
    /// What is logged [default: log.level of the config].
    #[arg(long = "log.level", help_heading = "Logs", value_name = "LEVEL", value_parser = ["trace", "debug", "info", "warn", "error"], ignore_case = true)]
    pub level: Option<String>,
    /// How events are written to stderr.
    #[arg(long = "log.format", help_heading = "Logs", value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub format: LogFormat,
}

/// Starts logging; a second call changes nothing. The result sets the level that the config asks for, unless the command line says
/// one.
pub fn start(args: &LogArgs, configured: &str) -> Box<dyn Fn(&str) + Send> {
    let given = args.level.clone();
    let filter = move |configured: &str| {
        let level = given.as_deref().unwrap_or(configured).to_lowercase();
        // What libraries say below a warning is of no use to an operator.
        EnvFilter::new(format!("warn,forewarn={level}"))
    };
    let (level, handle) = reload::Layer::new(filter(configured));
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let colours = AutoStream::choice(&std::io::stderr()) != ColorChoice::Never;
    let lines = match args.format {
        LogFormat::Text => lines.with_ansi(colours).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let _ = tracing_subscriber::registry()
        .with(level)
        .with(lines)
        .try_init();
    Box::new(move |configured| drop(handle.reload(filter(configured))))
}
