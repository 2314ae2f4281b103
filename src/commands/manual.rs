//! `forewarn completions` and `forewarn man`: what shells and man(1) are told of the command line.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use super::terminal;
use crate::output::OutputError;

pub const EXAMPLES: &str = examples!(
    "forewarn completions bash > ~/.local/share/bash-completion/completions/forewarn",
    "forewarn completions zsh > /usr/local/share/zsh/site-functions/_forewarn",
    "forewarn completions fish > ~/.config/fish/completions/forewarn.fish",
);

#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// The folder, which must exist; forewarn.1, forewarn-serve.1 and so on are replaced.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub fn completions(args: &CompletionsArgs, mut command: Command) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "forewarn", &mut script);
    terminal::wrote(std::io::stdout().write_all(&script))
}

pub fn man(args: &ManArgs, command: Command) -> anyhow::Result<()> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    pages(&command, &args.dir)
}

fn pages(command: &Command, dir: &Path) -> anyhow::Result<()> {
    for one in command.get_subcommands().filter(|one| !one.is_hide_set()) {
        pages(one, dir)?;
    }
    let man = Man::new(command.clone());
    let path = dir.join(man.get_filename());
    page(&man, command)
        .and_then(|text| fs::write(&path, text))
        .map_err(|cause| OutputError::Io { path, cause }.into())
}

fn page(man: &Man, command: &Command) -> std::io::Result<String> {
    let mut page = Vec::new();
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.get_subcommands().any(|one| !one.is_hide_set()) {
        man.render_subcommands_section(&mut page)?;
    }
    let further = command.get_after_long_help().or(command.get_after_help());
    further_sections(&further.map(ToString::to_string).unwrap_or_default()).to_writer(&mut page)?;
    let name = command.get_display_name().unwrap_or("forewarn");
    let version = env!("CARGO_PKG_VERSION");
    let head = format!(".TH {name} 1 \"\" \"forewarn {version}\" forewarn\n");
    Ok(head + &without_empty_breaks(&String::from_utf8_lossy(&page)))
}

/// A line break beside a vertical space does nothing, and linters complain about it.
fn without_empty_breaks(page: &str) -> String {
    let lines: Vec<&str> = page.lines().collect();
    let is_space = |at: Option<usize>| {
        at.and_then(|at| lines.get(at))
            .is_some_and(|line| [".sp", ""].contains(line))
    };
    let kept = (0..lines.len()).filter(|&at| {
        lines[at] != ".br" || !is_space(at.checked_sub(1)) && !is_space(Some(at + 1))
    });
    kept.map(|at| format!("{}\n", lines[at])).collect()
}

/// The paragraphs after the options, each under its first line, with lines that stay as they are.
fn further_sections(text: &str) -> Roff {
    let mut roff = Roff::new();
    for paragraph in text.split("\n\n") {
        let Some((heading, lines)) = paragraph.trim_matches('\n').split_once(":\n") else {
            continue;
        };
        roff.control("SH", [heading.to_uppercase().as_str()]);
        roff.control("nf", []);
        for line in lines.lines() {
            roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
        }
        roff.control("fi", []);
    }
    roff
}
