//! What a query reads: the selectors in its text. No parser; only a server can say whether a query is right.

use std::fmt;

/// Series that a query asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    /// Empty where only matchers select.
    pub metric: String,
    /// As written, `job="node"`.
    pub matchers: Vec<String>,
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.metric)?;
        match self.matchers.is_empty() {
            true => Ok(()),
            false => write!(f, "{{{}}}", self.matchers.join(",")),
        }
    }
}

/// Words after which a list of labels may stand.
const GROUPINGS: [&str; 6] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];

/// Other words that are no metric, even with no parenthesis behind them.
const WORDS: [&str; 22] = [
    "and",
    "or",
    "unless",
    "atan2",
    "bool",
    "offset",
    "inf",
    "nan",
    "sum",
    "min",
    "max",
    "avg",
    "group",
    "count",
    "stddev",
    "stdvar",
    "topk",
    "bottomk",
    "quantile",
    "count_values",
    "limitk",
    "limit_ratio",
];

/// Each selector of a query once, in its order.
pub fn selectors(query: &str) -> Vec<Selector> {
    let mut found = Vec::new();
    let mut rest = query;
    while let Some(c) = rest.chars().next() {
        rest = match c {
            '#' => rest.split_once('\n').map_or("", |(_, after)| after),
            '"' | '\'' | '`' => &rest[string(rest)..],
            '[' => after(rest, ']'),
            '{' => {
                add(&mut found, "", rest);
                after(rest, '}')
            }
            c if c.is_ascii_digit() => trim(rest, |c| c.is_ascii_alphanumeric() || c == '.'),
            c if c.is_ascii_alphabetic() || c == '_' || c == ':' => {
                let next = trim(rest, |c| {
                    c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '.')
                });
                let name = &rest[..rest.len() - next.len()];
                let next = next.trim_start();
                let word = name.to_ascii_lowercase();
                if GROUPINGS.contains(&word.as_str()) {
                    match next.starts_with('(') {
                        true => after(next, ')'),
                        false => next,
                    }
                } else if next.starts_with('{') {
                    add(&mut found, name, next);
                    after(next, '}')
                } else {
                    if !next.starts_with('(') && !WORDS.contains(&word.as_str()) {
                        add(&mut found, name, "");
                    }
                    next
                }
            }
            c => &rest[c.len_utf8()..],
        };
    }
    found
}

/// Whether it asks for the change of a counter, which takes two samples in the window.
pub fn has_window(query: &str) -> bool {
    ["rate(", "increase(", "delta("]
        .iter()
        .any(|function| query.contains(function))
}

/// The first bracket or string of a query that has no other end.
pub fn unclosed(query: &str) -> Option<String> {
    let mut open = Vec::new();
    let mut rest = query;
    while let Some(c) = rest.chars().next() {
        let mut taken = c.len_utf8();
        match c {
            '#' => taken = rest.find('\n').unwrap_or(rest.len()),
            '"' | '\'' | '`' => match ended(rest) {
                Some(length) => taken = length,
                None => return Some(format!("the string that begins with {rest:.20} has no end")),
            },
            '(' | '[' | '{' => open.push(c),
            ')' | ']' | '}' => {
                let begin = match c {
                    ')' => '(',
                    ']' => '[',
                    _ => '{',
                };
                if open.pop() != Some(begin) {
                    return Some(format!("{c} closes no {begin}"));
                }
            }
            _ => {}
        }
        rest = &rest[taken..];
    }
    open.pop().map(|c| format!("{c} is not closed"))
}

/// What stands in square brackets.
pub fn ranges(mut rest: &str) -> Vec<String> {
    let mut ranges = Vec::new();
    while let Some(c) = rest.chars().next() {
        rest = match c {
            '#' => rest.split_once('\n').map_or("", |(_, after)| after),
            '"' | '\'' | '`' => &rest[string(rest)..],
            '[' => {
                let next = after(rest, ']');
                let range = &rest[1..rest.len() - next.len()];
                ranges.push(range.trim_end_matches(']').trim().to_owned());
                next
            }
            c => &rest[c.len_utf8()..],
        };
    }
    ranges
}

fn add(found: &mut Vec<Selector>, metric: &str, braces: &str) {
    let inside = &braces[..braces.len() - after(braces, '}').len()];
    let inside = inside.trim_start_matches('{').trim_end_matches('}');
    let selector = Selector {
        metric: metric.to_owned(),
        matchers: parts(inside),
    };
    if !found.contains(&selector) {
        found.push(selector);
    }
}

/// The matchers between commas.
fn parts(mut rest: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut part = String::new();
    while let Some(c) = rest.chars().next() {
        let taken = match c {
            '"' | '\'' | '`' => string(rest),
            c => c.len_utf8(),
        };
        match c {
            ',' => parts.push(std::mem::take(&mut part)),
            _ => part.push_str(&rest[..taken]),
        }
        rest = &rest[taken..];
    }
    parts.push(part);
    let trimmed = parts.iter().map(|part| part.trim().to_owned());
    trimmed.filter(|part| !part.is_empty()).collect()
}

/// What comes after the next `end` that is in no string.
fn after(mut rest: &str, end: char) -> &str {
    while let Some(c) = rest.chars().next() {
        let taken = match c {
            '"' | '\'' | '`' => string(rest),
            c => c.len_utf8(),
        };
        rest = &rest[taken..];
        if c == end {
            break;
        }
    }
    rest
}

/// Length of the string at the beginning, quotes included; all that is left if it has no end.
fn string(text: &str) -> usize {
    ended(text).unwrap_or(text.len())
}

fn ended(text: &str) -> Option<usize> {
    let mut chars = text.char_indices();
    let (_, quote) = chars.next()?;
    while let Some((at, c)) = chars.next() {
        if c == '\\' && quote != '`' {
            chars.next();
        } else if c == quote {
            return Some(at + 1);
        }
    }
    None
}

fn trim(text: &str, letter: fn(char) -> bool) -> &str {
    text.trim_start_matches(letter)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn metrics_and_matchers_are_found_and_nothing_else() {
        for (query, expected) in [
            ("up", "up"),
            ("up == bool 0 # not this", "up"),
            (
                r#"a:b{x="1, }", y=~'\'z',}[5m:1m] offset 5m"#,
                r#"a:b{x="1, }",y=~'\'z'}"#,
            ),
            ("sum by (le, instance) (rate(m_bucket[5m]))", "m_bucket"),
            ("sum(a) by (b) / on (c) group_left (d) e > 1e3", "a e"),
            (
                r#"label_replace(100 * (1 - A / B), "instance", "$1", "instance", "(.*?)(:[0-9]+)?")"#,
                "A B",
            ),
            (
                r#"{__name__="x"} or vector(0) and NaN"#,
                r#"{__name__="x"}"#,
            ),
            ("sum without (a) (x{}) + x{} - time()", "x"),
            ("1.5h2m", ""),
            (r#"x{a="unclosed"#, r#"x{a="unclosed}"#),
        ] {
            let found: Vec<String> = selectors(query).iter().map(Selector::to_string).collect();
            assert_eq!(found.join(" "), expected, "{query}");
        }
    }

    #[test]
    fn brackets_and_strings_must_end() {
        for (query, expected) in [
            (r#"sum by (a) (rate(x{a="("}[5m])) # ) it does"#, None),
            ("sum(x", Some("( is not closed")),
            ("sum(x[5m)", Some(") closes no (")),
            ("x}", Some("} closes no {")),
            (
                r#"x{a="b\"}"#,
                Some(r#"the string that begins with "b\"} has no end"#),
            ),
        ] {
            assert_eq!(unclosed(query).as_deref(), expected, "{query}");
        }
        assert_eq!(ranges(r#"a[5m] + b{c="[1m]"}[30m:1m]"#), ["5m", "30m:1m"]);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in r#"[a-z{}()\[\]"'`,=~\\#ä 0-9\n]{0,40}"#) {
            selectors(&text);
            unclosed(&text);
            ranges(&text);
        }
    }
}
