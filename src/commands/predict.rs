//! `forewarn predict`: the API's answers for rows from a file.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use rayon::prelude::*;
use serde_json::Value;
use serde_json::value::RawValue;

use super::terminal;
use super::{ConfigFile, model_dir, now};
use crate::artifact;
use crate::bundle::Bundle;
use crate::config::Config;
use crate::server::{Explain, Parser, Prediction, Problem, Scorer};
use crate::time::Timestamp;

/// Rows with errors that one message shows.
const SHOWN_ERRORS: usize = 20;

pub const EXAMPLES: &str = concat!(
    examples!(
        "echo '{\"cpu_usage\": 97, \"memory_usage\": 96}' | forewarn predict",
        "forewarn predict --input rows.json --model models/winter",
        "forewarn predict --format csv < rows.csv > scored.csv",
    ),
    "\n\n",
    paragraph!(
        "JSON",
        "{\"failure_probability\": 0.0312, \"failure_risk\": \"MINIMAL\", \"model_id\": \"…\", \"missing\": [], …}",
        "as POST /predict answers; /openapi.json of a running forewarn describes all of it.",
    ),
);

#[derive(Debug, clap::Args)]
pub struct PredictArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// The model directory [default: the served one under model.path].
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Where the rows come from; `-` is stdin.
    #[arg(long, value_name = "FILE", default_value = "-")]
    input: PathBuf,
    /// Of the rows and of their answers.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Json)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// One object, or an array of any length; answered by the same. All rows must be right.
    Json,
    /// One object per line; each is answered by a line at once, until one is wrong.
    Ndjson,
    /// A header that names signals, then a row per line without history; an empty cell is an unknown value.
    /// Answered by the same lines, all columns kept, with failure_probability and failure_risk appended.
    Csv,
}

pub fn run(args: PredictArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    let bundle = artifact::open(&model_dir(args.model, &config)?)?;
    if let Some(why) = bundle.lacks(config.model.serve) {
        bail!("{why}");
    }
    let rows = Rows {
        bundle: &bundle,
        config: &config,
    };
    let name = match args.input == Path::new("-") {
        true => "stdin".to_string(),
        false => args.input.display().to_string(),
    };
    let input: Box<dyn BufRead> = match args.input == Path::new("-") {
        true => Box::new(io::stdin().lock()),
        false => Box::new(BufReader::new(
            File::open(&args.input).with_context(|| format!("cannot read {name}"))?,
        )),
    };
    let mut out = io::stdout().lock();
    match args.format {
        Format::Json => rows.json(input, &mut out),
        Format::Ndjson => rows.ndjson(input, &mut out),
        Format::Csv => rows.csv(input, &mut out),
    }
    .context(name)
}

/// Answers rows as they come, in one of the formats.
pub struct Rows<'a> {
    pub bundle: &'a Bundle,
    pub config: &'a Config,
}

impl Rows<'_> {
    fn answer(&self, row: &RawValue, now: Timestamp) -> Result<Prediction, Problem> {
        let mut parser = Parser::new(self.bundle, None);
        let row = parser.row(row, "")?;
        let row = parser.finish(row)?;
        Ok(Scorer::new(self.bundle, self.config, None, now, Explain::No).predict(row))
    }

    pub fn json(&self, mut input: impl Read, out: &mut impl Write) -> anyhow::Result<()> {
        let mut text = String::new();
        input.read_to_string(&mut text)?;
        let document: &RawValue = serde_json::from_str(&text).map_err(|error| {
            anyhow!("not JSON: {error}; write --format ndjson or csv if it is that")
        })?;
        let now = now();
        if !document.get().starts_with('[') {
            let answer = self
                .answer(document, now)
                .map_err(|problem| anyhow!("{problem}"))?;
            return print(out, &serde_json::to_string_pretty(&answer)?);
        }
        let rows: Vec<&RawValue> = serde_json::from_str(document.get())?;
        let answers: Vec<Result<Prediction, Problem>> =
            rows.par_iter().map(|row| self.answer(row, now)).collect();
        let wrong: Vec<String> = (1..)
            .zip(&answers)
            .filter_map(|(n, answer)| Some(format!("row {n}: {}", answer.as_ref().err()?)))
            .collect();
        if !wrong.is_empty() {
            let shown = wrong[..wrong.len().min(SHOWN_ERRORS)].join("\n  ");
            bail!(
                "{} of {} rows are wrong:\n  {shown}",
                wrong.len(),
                rows.len()
            );
        }
        let answers: Vec<Prediction> = answers.into_iter().flatten().collect();
        print(out, &serde_json::to_string_pretty(&answers)?)
    }

    pub fn ndjson(&self, input: impl BufRead, out: &mut impl Write) -> anyhow::Result<()> {
        for (n, line) in (1..).zip(input.lines()) {
            let line = line.with_context(|| format!("line {n}"))?;
            if line.trim().is_empty() {
                continue;
            }
            let row: &RawValue = serde_json::from_str(&line)
                .map_err(|error| anyhow!("line {n}: not JSON: {error}"))?;
            let answer = self
                .answer(row, now())
                .map_err(|problem| anyhow!("line {n}: {problem}"))?;
            print(out, &serde_json::to_string(&answer)?)?;
        }
        Ok(())
    }

    pub fn csv(&self, input: impl BufRead, out: &mut impl Write) -> anyhow::Result<()> {
        let mut lines = (1..).zip(input.lines());
        let (_, header) = lines
            .next()
            .context("is empty; a header must name the signals")?;
        let header = header.context("line 1")?;
        let header = header.trim_start_matches('\u{feff}').trim_end();
        let columns = cells(header).context("line 1")?;
        let signals = self.bundle.catalogue.signals();
        let is_signal = |name: &str| signals.iter().any(|signal| signal.name == name);
        if !columns.iter().any(|column| is_signal(column)) {
            let names: Vec<&str> = signals.iter().map(|signal| signal.name.as_str()).collect();
            bail!(
                "line 1: the header names none of the model's signals: {}",
                names.join(", ")
            );
        }
        print(out, &format!("{header},failure_probability,failure_risk"))?;
        for (n, line) in lines {
            let line = line.with_context(|| format!("line {n}"))?;
            let line = line.trim_end();
            if line.is_empty() {
                continue;
            }
            let cells = cells(line).with_context(|| format!("line {n}"))?;
            if cells.len() != columns.len() {
                bail!(
                    "line {n}: has {} cells, and the header {}",
                    cells.len(),
                    columns.len()
                );
            }
            let known = columns
                .iter()
                .zip(&cells)
                .filter(|(name, _)| is_signal(name));
            let fields = known.map(|(name, cell)| (name.clone(), value(cell)));
            let row = Value::Object(fields.collect()).to_string();
            let answer = self
                .answer(&RawValue::from_string(row)?, now())
                .map_err(|problem| anyhow!("line {n}: {problem}"))?;
            let (probability, level) = (answer.failure_probability, answer.failure_risk);
            print(out, &format!("{line},{probability},{}", level.name()))?;
        }
        Ok(())
    }
}

fn print(out: &mut impl Write, line: &str) -> anyhow::Result<()> {
    terminal::wrote(writeln!(out, "{line}"))
}

/// A cell as the API would see it.
fn value(cell: &str) -> Value {
    match (cell.trim(), cell.trim().parse::<f64>()) {
        ("", _) => Value::Null,
        (_, Ok(number)) if number.is_finite() => Value::from(number),
        (text, _) => Value::from(text),
    }
}

/// The cells of one line; a quoted cell may hold commas, and quotes as "".
fn cells(line: &str) -> anyhow::Result<Vec<String>> {
    let (mut cells, mut cell, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => cell.push('"'),
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(std::mem::take(&mut cell)),
            c => cell.push(c),
        }
    }
    if quoted {
        bail!("a quoted cell does not end on its line");
    }
    cells.push(cell);
    Ok(cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_split_into_cells() {
        for (line, expected) in [
            ("a,b", &["a", "b"][..]),
            ("a,,", &["a", "", ""]),
            (r#""x,y",1"#, &["x,y", "1"]),
            (r#""say ""hi""",1"#, &[r#"say "hi""#, "1"]),
        ] {
            assert_eq!(cells(line).unwrap(), expected, "{line}");
        }
        assert!(cells(r#"1,"a"#).is_err());
    }

    #[test]
    fn cells_are_numbers_nothing_or_text() {
        for (cell, expected) in [
            (" 7.5 ", "7.5"),
            ("+.5", "0.5"),
            ("1e3", "1000.0"),
            ("", "null"),
            (" ", "null"),
            ("NaN", r#""NaN""#),
            ("inf", r#""inf""#),
            ("12 %", r#""12 %""#),
        ] {
            assert_eq!(value(cell).to_string(), expected, "{cell:?}");
        }
    }
}
