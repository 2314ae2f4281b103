//! Logs go to stderr, as text or JSON lines.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, clap::Args)]
pub struct LogArgs {
    /// trace, debug, info, warn or error; the config and LOG_LEVEL say it otherwise.
    #[arg(long = "log.level", value_name = "LEVEL", value_parser = ["trace", "debug", "info", "warn", "error"], ignore_case = true)]
    pub level: Option<String>,
    /// One line of text or of JSON per event.
    #[arg(long = "log.format", value_enum, default_value_t = LogFormat::Text)]
    pub format: LogFormat,
}

/// Starts logging; a second call changes nothing.
pub fn start(args: &LogArgs, configured: &str) {
    let level = args.level.as_deref().unwrap_or(configured).to_lowercase();
    // What libraries say below a warning is of no use to an operator.
    let filter = EnvFilter::new(format!("warn,forewarn={level}"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    let _ = match args.format {
        LogFormat::Text => builder
            .with_ansi(std::io::stderr().is_terminal())
            .try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}
