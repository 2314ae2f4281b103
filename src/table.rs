//! Tables of text whose columns line up whatever is in them, on a terminal of any width.

use anstyle::Style;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

const GAP: usize = 2;
/// To how many places a column of words may be cut.
const SHORTEST: usize = 26;

/// A ratio in percent, without the sign: below 1 % two digits that matter, else so many decimals.
pub fn percent(ratio: f64, decimals: usize) -> String {
    let value = 100.0 * ratio;
    if value == 0.0 || value.abs() >= 1.0 || !value.is_finite() {
        return format!("{value:.decimals$}");
    }
    let places = (1.0 - value.abs().log10().floor()).min(12.0) as usize;
    let text = format!("{value:.places$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// What stands in one column of one row.
#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub fn styled(text: impl Into<String>, style: Style) -> Self {
        Self {
            style,
            ..text.into().into()
        }
    }
}

impl From<String> for Cell {
    /// Names come from elsewhere: a terminal must not obey what is in them.
    fn from(text: String) -> Self {
        let text = text
            .chars()
            .map(|c| if c.is_control() { '\u{fffd}' } else { c })
            .collect();
        Self {
            text,
            style: Style::new(),
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

#[derive(Debug)]
enum Line {
    Cells(Vec<Cell>),
    Across(String),
}

/// Column names with their alignment, and rows below them.
#[derive(Debug)]
pub struct Table {
    columns: Vec<(String, Align)>,
    lines: Vec<Line>,
}

impl Table {
    /// The names of columns of words begin with `<`, those of numbers with `>`.
    pub fn new(columns: &[&str]) -> Self {
        let column = |name: &&str| match name.strip_prefix('>') {
            Some(name) => (name.to_owned(), Align::Right),
            None => (name.trim_start_matches('<').to_owned(), Align::Left),
        };
        Self {
            columns: columns.iter().map(column).collect(),
            lines: Vec::new(),
        }
    }

    /// Columns without a cell stay empty.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<Cell>>) {
        let cells = cells.into_iter().map(Into::into).collect();
        self.lines.push(Line::Cells(cells));
    }

    /// A line that belongs to no column.
    pub fn across(&mut self, text: impl Into<String>) {
        self.lines.push(Line::Across(text.into()));
    }

    /// On `width` places the longest words are cut, and the columns that still do not fit follow below, beside the
    /// first column again.
    pub fn render(&self, width: Option<usize>) -> String {
        let widths = self.widths(width);
        let mut text = String::new();
        for block in blocks(&widths, width) {
            if !text.is_empty() {
                text.push('\n');
            }
            let names: Vec<Cell> = self
                .columns
                .iter()
                .map(|(name, _)| name.as_str().into())
                .collect();
            self.line(&mut text, &block, &widths, &names);
            for line in &self.lines {
                match line {
                    Line::Cells(cells) => self.line(&mut text, &block, &widths, cells),
                    Line::Across(words) => {
                        text.push_str(words);
                        text.push('\n');
                    }
                }
            }
        }
        text
    }

    fn widths(&self, width: Option<usize>) -> Vec<usize> {
        let mut widths: Vec<usize> = self.columns.iter().map(|(name, _)| name.width()).collect();
        for line in &self.lines {
            if let Line::Cells(cells) = line {
                for (widest, cell) in widths.iter_mut().zip(cells) {
                    *widest = (*widest).max(cell.text.width());
                }
            }
        }
        let Some(available) = width else {
            return widths;
        };
        let mut excess = total(&widths).saturating_sub(available);
        while excess > 0 {
            let words = (0..widths.len())
                .filter(|i| self.columns[*i].1 == Align::Left && widths[*i] > SHORTEST);
            let Some(longest) = words.max_by_key(|i| widths[*i]) else {
                break;
            };
            widths[longest] -= 1;
            excess -= 1;
        }
        widths
    }

    fn line(&self, text: &mut String, block: &[usize], widths: &[usize], cells: &[Cell]) {
        let mut line = String::new();
        for (nth, &column) in block.iter().enumerate() {
            let Some(cell) = cells.get(column) else {
                continue;
            };
            if nth > 0 {
                line.push_str(&" ".repeat(GAP));
            }
            let words = cut(&cell.text, widths[column]);
            let padding = " ".repeat(widths[column].saturating_sub(words.width()));
            let style = cell.style;
            let words = match words.is_empty() {
                true => words,
                false => format!("{style}{words}{style:#}"),
            };
            match self.columns[column].1 {
                Align::Left => line.extend([words, padding]),
                Align::Right => line.extend([padding, words]),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
}

/// Which columns stand beside each other.
fn blocks(widths: &[usize], available: Option<usize>) -> Vec<Vec<usize>> {
    let mut blocks: Vec<Vec<usize>> = vec![Vec::new()];
    let mut taken = 0;
    for (column, width) in widths.iter().enumerate() {
        let last = blocks.len() - 1;
        let full = available.is_some_and(|available| taken + GAP + width > available);
        if full && blocks[last].len() > 1 {
            blocks.push(vec![0, column]);
            taken = widths[0] + GAP + width;
        } else {
            blocks[last].push(column);
            taken += width + if column > 0 { GAP } else { 0 };
        }
    }
    blocks
}

fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let (mut kept, mut taken) = (String::new(), 1);
    for c in text.chars() {
        taken += c.width().unwrap_or(0);
        if taken > width {
            break;
        }
        kept.push(c);
    }
    kept.push('…');
    kept
}

#[cfg(test)]
mod tests {
    use anstyle::AnsiColor;

    use super::*;

    #[test]
    fn a_small_share_keeps_two_digits() {
        for (ratio, decimals, text) in [
            (0.0006, 1, "0.06"),
            (0.000_123, 1, "0.012"),
            (0.001, 0, "0.1"),
            (0.009_96, 1, "1"),
            (-0.0034, 0, "-0.34"),
            (0.0, 1, "0.0"),
            (0.0123, 1, "1.2"),
            (0.8543, 0, "85"),
        ] {
            assert_eq!(percent(ratio, decimals), text, "{ratio}");
        }
    }

    fn table() -> Table {
        let mut table = Table::new(&["<target", ">alarms", "<state", ">lead"]);
        table.row(["web-1", "7", "ok", "12m"]);
        table.row(["東京-データ", "1234567", "warming up", "1h"]);
        table.across("of the second kind");
        table.row(["a-very-long-name.of.a.target.example.com", "1"]);
        table
    }

    #[test]
    fn columns_line_up() {
        assert_eq!(
            table().render(None),
            "\
target                                     alarms  state       lead
web-1                                           7  ok           12m
東京-データ                               1234567  warming up    1h
of the second kind
a-very-long-name.of.a.target.example.com        1
"
        );
    }

    #[test]
    fn a_narrow_terminal_cuts_words_and_then_breaks_between_columns() {
        for line in table().render(Some(60)).lines() {
            assert!(line.width() <= 60, "{line}");
        }
        assert!(
            table()
                .render(Some(60))
                .contains("a-very-long-name.of.a.target.exa…")
        );
        let narrow = table().render(Some(40));
        let (first, second) = narrow.split_once("\n\n").unwrap();
        assert!(
            first.starts_with(&format!("{:<26}  {:>7}\n", "target", "alarms")),
            "{first}"
        );
        assert!(
            second.starts_with(&format!("{:<26}  state\n", "target")),
            "{second}"
        );
        for line in narrow.lines() {
            assert!(line.width() <= 40, "{line}");
        }
    }

    #[test]
    fn names_cannot_command_the_terminal_and_colour_takes_no_room() {
        let red = AnsiColor::Red.on_default();
        let mut table = Table::new(&["<a", ">b"]);
        table.row([Cell::styled("\u{1b}[2Jx", red), "1".into()]);
        table.row(["plain", "22"]);
        let text = table.render(None);
        assert_eq!(text.matches('\u{1b}').count(), 2, "{text:?}");
        let plain = text.replace(&red.to_string(), "").replace("\u{1b}[0m", "");
        assert_eq!(plain, "a       b\n\u{fffd}[2Jx   1\nplain  22\n");
    }
}
