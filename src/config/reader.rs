//! YAML as a tree with lines, and sections that report what they could not read.

use std::cell::RefCell;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::Spanned;
use serde_yaml::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};

use super::{ConfigError, Environment, Problem};

#[derive(Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Whole(u64),
    Number(f64),
    Text(String),
    /// Text that came from the environment: numbers and booleans may be read from it.
    Expanded(String),
    List(Vec<Spanned<Value>>),
    Map(Vec<(Spanned<String>, Spanned<Value>)>),
    /// Already reported.
    Broken,
}

impl fmt::Display for Value {
    /// For messages: the value as written, shortened.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null | Value::Broken => f.write_str("nothing"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Whole(value) => write!(f, "{value}"),
            Value::Number(value) => write!(f, "{value}"),
            Value::Text(text) | Value::Expanded(text) => match text.char_indices().nth(60) {
                Some((end, _)) => write!(f, "{:?}", format!("{}…", &text[..end])),
                None => write!(f, "{text:?}"),
            },
            Value::List(_) => f.write_str("a list"),
            Value::Map(_) => f.write_str("a mapping"),
        }
    }
}

impl Value {
    /// For messages about the wrong kind of value: a text may be a secret at the wrong place.
    fn kind(&self) -> String {
        match self {
            Value::Text(_) | Value::Expanded(_) => "text".into(),
            other => other.to_string(),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Whole(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(u64::try_from(value).map_or(Value::Number(value as f64), Value::Whole))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Value::Map(map))
    }
}

/// Parses one YAML document. Duplicate keys stay in the tree: [`Reader::resolve`] reports all of them.
pub(super) fn parse(text: &str, source_name: &str) -> Result<Spanned<Value>, ConfigError> {
    let options = serde_yaml::options! {
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        strict_booleans: true,
        with_snippet: false,
    };
    serde_yaml::from_str_with_options(text, options).map_err(|error| {
        let line = error.location().map_or(0, |at| at.line() as usize);
        let message = match error.without_snippet() {
            serde_yaml::Error::MultipleDocuments { .. } => {
                "holds more than one document; keep one and remove the line ---".into()
            }
            error => {
                let rendered = error.to_string();
                let place = error
                    .location()
                    .map(|at| format!(" at line {}, column {}", at.line(), at.column()));
                let text = rendered.trim_end_matches(place.as_deref().unwrap_or_default());
                format!("is not valid YAML: {text}")
            }
        };
        ConfigError::single(source_name, line, message)
    })
}

/// Collects the problems of one config.
pub(super) struct Reader<'a> {
    pub env: &'a Environment,
    pub problems: RefCell<Vec<Problem>>,
}

impl Reader<'_> {
    pub fn report(&self, path: &str, line: usize, message: String) {
        self.problems.borrow_mut().push(Problem {
            path: path.into(),
            line,
            message,
        });
    }

    /// Expands `${VAR}` and removes repeated keys.
    pub fn resolve(&self, node: &mut Spanned<Value>, path: &str) {
        match &mut node.value {
            Value::Text(text) if text.contains("${") => {
                node.value = match self.env.expand(text) {
                    Ok(expanded) => Value::Expanded(expanded),
                    Err(message) => {
                        self.report(path, line(node), message);
                        Value::Broken
                    }
                }
            }
            Value::List(items) => {
                for (i, item) in items.iter_mut().enumerate() {
                    self.resolve(item, &format!("{path}[{i}]"));
                }
            }
            Value::Map(entries) => {
                let mut seen: Vec<(String, usize)> = Vec::new();
                entries.retain_mut(|(key, value)| {
                    let path = join(path, &key.value);
                    if let Some((_, first)) = seen.iter().find(|(name, _)| *name == key.value) {
                        let message = format!("is written twice; the first is in line {first}");
                        self.report(&path, line(key), message);
                        return false;
                    }
                    seen.push((key.value.clone(), line(key)));
                    self.resolve(value, &path);
                    true
                });
            }
            _ => {}
        }
    }
}

/// A mapping being read. Knows which keys were asked for, and so which are unknown.
pub(super) struct Section<'a> {
    reader: &'a Reader<'a>,
    path: String,
    line: usize,
    entries: &'a [(Spanned<String>, Spanned<Value>)],
    known: RefCell<Vec<String>>,
    /// Not a mapping, which has been reported: nothing else about it is.
    broken: bool,
}

impl<'a> Section<'a> {
    /// Reads a mapping with `read`, then reports the keys that it did not ask for.
    pub fn read<T>(
        reader: &'a Reader<'a>,
        path: String,
        line: usize,
        value: &'a Value,
        read: impl FnOnce(&Self) -> T,
    ) -> T {
        let section = Self {
            reader,
            path,
            line,
            entries: match value {
                Value::Map(entries) => entries,
                _ => &[],
            },
            known: RefCell::default(),
            broken: !matches!(value, Value::Map(_) | Value::Null),
        };
        if section.broken && *value != Value::Broken {
            reader.report(
                &section.path,
                line,
                format!("{} is not a mapping of keys", value.kind()),
            );
        }
        let result = read(&section);
        section.report_unknown();
        result
    }

    fn report_unknown(&self) {
        let known = self.known.borrow();
        for (key, _) in self.entries {
            if known.contains(&key.value) {
                continue;
            }
            let hint = match nearest(&key.value, known.iter().map(String::as_str)) {
                Some(name) => format!("did you mean {name}?"),
                None => format!("known here: {}", known.join(", ")),
            };
            let path = join(&self.path, &key.value);
            self.reader
                .report(&path, line(key), format!("is not a known key; {hint}"));
        }
    }

    fn find(&self, key: &str) -> Option<(usize, &'a Value)> {
        self.known.borrow_mut().push(key.into());
        self.entries
            .iter()
            .find(|(name, _)| name.value == key)
            .map(|(name, node)| (line(name), &node.value))
    }

    /// Reports something about `key`, or about the whole section when the key is not there.
    pub fn report(&self, key: &str, message: impl Into<String>) {
        if self.broken {
            return;
        }
        let entry = self.entries.iter().find(|(name, _)| name.value == key);
        let line = entry.map_or(self.line, |(name, _)| line(name));
        self.reader
            .report(&join(&self.path, key), line, message.into());
    }

    /// Whether all of these were read without a problem, so that they can be compared.
    pub fn sound(&self, keys: &[&str]) -> bool {
        let problems = self.reader.problems.borrow();
        !keys.iter().any(|key| {
            let path = join(&self.path, key);
            problems
                .iter()
                .any(|problem| problem.path.starts_with(&path))
        })
    }

    /// Reads an optional key.
    pub fn get<T>(&self, key: &str, parse: impl Fn(&Value) -> Result<T, String>) -> Option<T> {
        let (_, value) = self.find(key)?;
        let parsed = match value {
            Value::Broken => return None,
            Value::Null => Err("has no value; write one or remove the key".into()),
            value => parse(value),
        };
        parsed.map_err(|message| self.report(key, message)).ok()
    }

    /// Reads a key that must be there; `None` once a problem is reported.
    pub fn required<T>(&self, key: &str, parse: impl Fn(&Value) -> Result<T, String>) -> Option<T> {
        if !self.has(key) {
            self.report(key, "is missing");
        }
        self.get(key, parse)
    }

    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(name, _)| name.value == key)
    }

    pub fn holds_mapping(&self, key: &str) -> bool {
        let mut entries = self.entries.iter();
        entries.any(|(name, node)| name.value == key && matches!(node.value, Value::Map(_)))
    }

    /// Reads a list, each item with `parse`; no list is an empty one.
    pub fn list<T>(&self, key: &str, parse: impl Fn(&Value) -> Result<T, String>) -> Vec<T> {
        let items = match self.find(key) {
            Some((_, Value::List(items))) => items.as_slice(),
            Some((_, Value::Null | Value::Broken)) | None => &[],
            Some((_, value)) => {
                self.report(
                    key,
                    format!("{} is not a list; write - before each item", value.kind()),
                );
                &[]
            }
        };
        let item = |(i, node): (usize, &Spanned<Value>)| {
            let path = format!("{}[{i}]", join(&self.path, key));
            match &node.value {
                Value::Broken => None,
                value => parse(value)
                    .map_err(|message| self.reader.report(&path, line(node), message))
                    .ok(),
            }
        };
        items.iter().enumerate().filter_map(item).collect()
    }

    /// Reads a section; one that is absent is read as empty, so that its defaults stand.
    pub fn section<T>(&self, key: &str, read: impl FnOnce(&Section<'a>) -> T) -> T {
        let absent = if self.broken {
            &Value::Broken
        } else {
            &Value::Null
        };
        let (line, value) = self.find(key).unwrap_or((self.line, absent));
        Section::read(self.reader, join(&self.path, key), line, value, read)
    }

    /// Reads a section that means something only when it is there.
    pub fn optional_section<T>(
        &self,
        key: &str,
        read: impl FnOnce(&Section<'a>) -> T,
    ) -> Option<T> {
        let (line, value) = self.find(key)?;
        Some(Section::read(
            self.reader,
            join(&self.path, key),
            line,
            value,
            read,
        ))
    }

    /// The value of an environment variable that overrides the file.
    pub fn variable<T>(
        &self,
        name: &str,
        parse: impl Fn(&Value) -> Result<T, String>,
    ) -> Option<T> {
        let value = Value::Expanded(self.reader.env.get(name)?.into());
        parse(&value)
            .map_err(|message| {
                self.reader
                    .report(&format!("environment variable {name}"), 0, message)
            })
            .ok()
    }

    /// Whether an environment variable says anything.
    pub fn is_set(&self, name: &str) -> bool {
        self.reader
            .env
            .get(name)
            .is_some_and(|value| !value.trim().is_empty())
    }

    /// The keys as written, for sections whose keys are the user's own names.
    pub fn names(&self) -> Vec<&'a str> {
        self.entries
            .iter()
            .map(|(name, _)| name.value.as_str())
            .collect()
    }
}

/// What was probably meant by a misspelt name.
pub fn nearest<'a>(written: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|name| {
            let longer = name.len().abs_diff(written.len());
            (edits(written, name), longer, name)
        })
        .min()
        .filter(|(distance, _, name)| *distance <= 1 + name.len() / 4)
        .map(|(_, _, name)| name)
}

fn line(node: &Spanned<impl Sized>) -> usize {
    node.referenced.line() as usize
}

fn join(path: &str, key: &str) -> String {
    match (path, key) {
        ("", key) => key.into(),
        (path, "") => path.into(),
        (path, key) => format!("{path}.{key}"),
    }
}

/// Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.chars().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[row.len() - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_single_edits() {
        for (a, b, expected) in [
            ("", "abc", 3),
            ("query", "qurey", 2),
            ("step", "steps", 1),
            ("a", "a", 0),
        ] {
            assert_eq!(edits(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn every_node_knows_its_line() {
        let text = "a:\n  - {b: 1}\n  -\n    c: >-\n      x\n      y\nd: [no,\n  2.5]\n";
        let tree = parse(text, "t").unwrap();
        let Value::Map(entries) = &tree.value else {
            panic!("{tree:?}")
        };
        assert_eq!((line(&entries[0].0), line(&entries[1].0)), (1, 7));
        let Value::List(items) = &entries[0].1.value else {
            panic!("{tree:?}")
        };
        assert_eq!((line(&items[0]), line(&items[1])), (2, 4));
        let Value::Map(folded) = &items[1].value else {
            panic!("{tree:?}")
        };
        assert_eq!(folded[0].1.value, Value::Text("x y".into()));
        let Value::List(items) = &entries[1].1.value else {
            panic!("{tree:?}")
        };
        assert_eq!(items[0].value, Value::Text("no".into()));
        assert_eq!((&items[1].value, line(&items[1])), (&Value::Number(2.5), 8));
    }
}
