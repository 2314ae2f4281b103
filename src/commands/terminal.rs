//! What a command says: results on stdout, all else on stderr, in colour only where somebody sees it.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use anyhow::{Context, bail};
use serde::Serialize;

pub const ERROR: Style = AnsiColor::Red.on_default().bold();
pub const WARNING: Style = AnsiColor::Yellow.on_default();
pub const GOOD: Style = AnsiColor::Green.on_default();

/// Who read the output has seen enough, like `head`: no failure.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads stdout any more")]
pub struct Unread;

/// A line, or several, of the result.
pub fn print(text: impl Display) -> anyhow::Result<()> {
    wrote(writeln!(anstream::stdout(), "{text}"))
}

pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print(serde_json::to_string_pretty(value)?)
}

/// What writing to stdout means for the command.
pub fn wrote(result: io::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => bail!(Unread),
        result => result.context("cannot write to stdout"),
    }
}

pub fn warn(text: impl Display) {
    anstream::eprintln!("{WARNING}warning:{WARNING:#} {text}");
}

/// Lines for stderr, those that begin with `warning:` marked.
pub fn tell(lines: &str) {
    for line in lines.lines() {
        match line.strip_prefix("warning: ") {
            Some(text) => warn(text),
            None => eprintln!("{line}"),
        }
    }
}

/// How many places a line has, where it has an end.
pub fn width() -> Option<usize> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(stdout).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}
