//! Incremental decoder of query answers: chunks in, series out, the body never held whole.
//! [`Tokenizer`] checks the JSON grammar over bytes cut anywhere; [`Content`] gives the tokens meaning.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::mem;

use thiserror::Error;

use crate::time::Timestamp;

use super::{Answer, disorder_warning, format_labels};

/// Bounds of one answer; a server that exceeds one is refused, not trusted.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub bytes: u64,
    pub series: u64,
    pub samples: u64,
    /// Names and values of one series' labels.
    pub label_bytes: u64,
    /// One JSON string.
    pub string_bytes: u64,
    pub depth: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 2 << 30,
            series: 250_000,
            samples: 50_000_000,
            label_bytes: 64 << 10,
            string_bytes: 1 << 20,
            depth: 32,
        }
    }
}

impl Limits {
    fn check(limit: &'static str, value: u64, max: u64) -> Result<(), DecodeError> {
        if value > max {
            return Err(DecodeError::TooLarge { limit, max });
        }
        Ok(())
    }

    pub fn check_series(&self, count: usize) -> Result<(), DecodeError> {
        Self::check("series", count as u64, self.series)
    }

    pub fn check_samples(&self, count: usize) -> Result<(), DecodeError> {
        Self::check("samples", count as u64, self.samples)
    }
}

#[derive(Clone, Debug, PartialEq, Error)]
pub enum DecodeError {
    #[error("{0}")]
    Invalid(String),
    /// A good answer of a kind that holds no samples.
    #[error("{0}")]
    Samples(String),
    #[error("more than {max} {limit}")]
    TooLarge { limit: &'static str, max: u64 },
}

fn invalid<T>(problem: impl Into<String>) -> Result<T, DecodeError> {
    Err(DecodeError::Invalid(problem.into()))
}

/// `status: error`, in the server's words.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    pub error_type: String,
    pub message: String,
}

/// A well-formed body: what was asked for, or the server's refusal.
pub type Decoded<T> = Result<Result<T, Refusal>, DecodeError>;

pub struct Decoder {
    tokens: Tokenizer,
    content: Content,
    limits: Limits,
}

impl Decoder {
    pub fn new(limits: Limits) -> Self {
        Self {
            tokens: Tokenizer {
                open: Vec::new(),
                next: Next::Value,
                lexeme: Lexeme::None,
                held: Vec::new(),
                offset: 0,
            },
            content: Content {
                limits,
                places: Vec::new(),
                key: Key::Other,
                label: String::new(),
                label_bytes: 0,
                series: 0,
                point: Point::default(),
                scalar_time: None,
                scalar_value: None,
                disordered: 0,
                partial: false,
                has_result: false,
                status: String::new(),
                result_type: String::new(),
                refusal: Refusal {
                    error_type: String::new(),
                    message: String::new(),
                },
                answer: Answer::default(),
            },
            limits,
        }
    }

    pub fn feed(&mut self, chunk: &[u8]) -> Result<(), DecodeError> {
        Limits::check(
            "bytes",
            self.bytes() + chunk.len() as u64,
            self.limits.bytes,
        )?;
        self.tokens.feed(chunk, &self.limits, &mut self.content)
    }

    /// Bytes fed so far.
    pub fn bytes(&self) -> u64 {
        self.tokens.offset
    }

    pub fn finish(self) -> Decoded<Answer> {
        if self.tokens.next != Next::Nothing {
            return invalid(format!(
                "the answer ends early, after {} bytes",
                self.bytes()
            ));
        }
        self.content.finish()
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    Object,
    Array,
}

enum Token<'a> {
    Open(Shape),
    Close,
    Key(Cow<'a, str>),
    Text(Cow<'a, str>),
    Number(f64),
    Bool(bool),
    Null,
}

/// What the grammar allows at this point.
#[derive(Clone, Copy, PartialEq)]
enum Next {
    Value,
    ValueOrClose,
    Key,
    KeyOrClose,
    Colon,
    CommaOrClose,
    Nothing,
}

#[derive(Clone, Copy)]
enum Lexeme {
    None,
    String {
        escapes: bool,
        backslash: bool,
    },
    /// A number, `true`, `false` or `null`.
    Word,
}

struct Tokenizer {
    open: Vec<Shape>,
    next: Next,
    lexeme: Lexeme,
    /// Beginning of a lexeme that earlier chunks cut off.
    held: Vec<u8>,
    /// Bytes in earlier chunks.
    offset: u64,
}

impl Tokenizer {
    fn feed(
        &mut self,
        chunk: &[u8],
        limits: &Limits,
        content: &mut Content,
    ) -> Result<(), DecodeError> {
        let mut at = 0;
        while at < chunk.len() {
            let rest = &chunk[at..];
            if let Lexeme::None = self.lexeme {
                if rest[0].is_ascii_whitespace() {
                    at += 1;
                } else if let Some((point, length)) = self.whole_point(rest, limits, content) {
                    content.point = point;
                    content.push_sample()?;
                    self.after_value();
                    at += length;
                } else {
                    let position = self.offset + at as u64;
                    at += self.structure(rest[0], position, limits, content)?;
                }
                continue;
            }
            let (length, complete) = self.scan(rest);
            at += length;
            let string = matches!(self.lexeme, Lexeme::String { .. });
            let text = &rest[..length - usize::from(string && complete)];
            Limits::check(
                "bytes in one string",
                (self.held.len() + text.len()) as u64,
                limits.string_bytes,
            )?;
            if !complete {
                self.held.extend_from_slice(text);
            } else if self.held.is_empty() {
                self.emit(text, content)?;
            } else {
                let mut held = mem::take(&mut self.held);
                held.extend_from_slice(text);
                self.emit(&held, content)?;
                held.clear();
                self.held = held;
            }
        }
        self.offset += chunk.len() as u64;
        Ok(())
    }

    /// The sample that the bytes begin with, if the grammar wants one here, and its length: most of an answer is samples,
    /// and most of them are written without a blank and not cut by the end of the chunk. The others go the long way.
    fn whole_point(
        &self,
        rest: &[u8],
        limits: &Limits,
        content: &Content,
    ) -> Option<(Point, usize)> {
        let is_wanted = matches!(self.next, Next::Value | Next::ValueOrClose)
            && content.takes_point()
            && (self.open.len() as u64) < limits.depth;
        if !is_wanted {
            return None;
        }
        let (time, value) = split_at_byte(rest.strip_prefix(b"[")?, b',')?;
        begins_number(*time.first()?).then_some(())?;
        let (value, end) = split_at_byte(value.strip_prefix(b"\"")?, b'"')?;
        end.starts_with(b"]").then_some(())?;
        let point = Point {
            elements: 2,
            time: parse_number(time)?,
            value: parse_number(value)?,
        };
        Some((point, rest.len() - end.len() + 1))
    }

    /// How many bytes belong to the lexeme, closing quote included, and whether it ends there.
    fn scan(&mut self, rest: &[u8]) -> (usize, bool) {
        let Lexeme::String { escapes, backslash } = &mut self.lexeme else {
            let is_end = |b: &u8| !(b.is_ascii_alphanumeric() || b"+-.".contains(b));
            let end = rest.iter().position(is_end);
            return (end.unwrap_or(rest.len()), end.is_some());
        };
        for (i, &b) in rest.iter().enumerate() {
            match b {
                _ if *backslash => *backslash = false,
                b'"' => return (i + 1, true),
                b'\\' => (*escapes, *backslash) = (true, true),
                _ => {}
            }
        }
        (rest.len(), false)
    }

    fn emit(&mut self, text: &[u8], content: &mut Content) -> Result<(), DecodeError> {
        let token = match mem::replace(&mut self.lexeme, Lexeme::None) {
            Lexeme::String { escapes, .. } => {
                let mut text = String::from_utf8_lossy(text);
                if escapes {
                    match serde_json::from_str(&format!("\"{text}\"")) {
                        Ok(plain) => text = Cow::Owned(plain),
                        Err(_) => return invalid("a JSON string has an invalid escape"),
                    }
                }
                if matches!(self.next, Next::Key | Next::KeyOrClose) {
                    self.next = Next::Colon;
                    return content.token(Token::Key(text));
                }
                Token::Text(text)
            }
            _ => match text {
                b"true" => Token::Bool(true),
                b"false" => Token::Bool(false),
                b"null" => Token::Null,
                _ => match parse_number(text) {
                    Some(number) => Token::Number(number),
                    None => {
                        let text = String::from_utf8_lossy(text);
                        return invalid(format!("{text:?} is not a JSON value"));
                    }
                },
            },
        };
        self.after_value();
        content.token(token)
    }

    fn after_value(&mut self) {
        self.next = match self.open.is_empty() {
            true => Next::Nothing,
            false => Next::CommaOrClose,
        };
    }

    /// Handles one byte between lexemes; gives the number of bytes used up.
    fn structure(
        &mut self,
        byte: u8,
        position: u64,
        limits: &Limits,
        content: &mut Content,
    ) -> Result<usize, DecodeError> {
        use Next::*;
        let inside = self.open.last().copied();
        match (byte, self.next) {
            (b'{' | b'[', Value | ValueOrClose) => {
                Limits::check(
                    "levels of nesting",
                    self.open.len() as u64 + 1,
                    limits.depth,
                )?;
                let (shape, next) = match byte {
                    b'{' => (Shape::Object, KeyOrClose),
                    _ => (Shape::Array, ValueOrClose),
                };
                self.open.push(shape);
                self.next = next;
                content.token(Token::Open(shape))?;
            }
            (b'}', KeyOrClose | CommaOrClose) if inside == Some(Shape::Object) => {
                self.close(content)?;
            }
            (b']', ValueOrClose | CommaOrClose) if inside == Some(Shape::Array) => {
                self.close(content)?;
            }
            (b',', CommaOrClose) => {
                self.next = match inside {
                    Some(Shape::Object) => Key,
                    _ => Value,
                }
            }
            (b':', Colon) => self.next = Value,
            (b'"', Value | ValueOrClose | Key | KeyOrClose) => {
                self.lexeme = Lexeme::String {
                    escapes: false,
                    backslash: false,
                }
            }
            (_, Value | ValueOrClose) if begins_number(byte) || byte.is_ascii_lowercase() => {
                self.lexeme = Lexeme::Word;
                return Ok(0);
            }
            _ => {
                let byte = char::from(byte);
                return invalid(format!("unexpected {byte:?} at byte {position}"));
            }
        }
        Ok(1)
    }

    fn close(&mut self, content: &mut Content) -> Result<(), DecodeError> {
        self.open.pop();
        self.after_value();
        content.token(Token::Close)
    }
}

/// What stands before and after the first such byte, which is near.
fn split_at_byte(bytes: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    const NEAR: usize = 40;
    let at = bytes.iter().take(NEAR).position(|b| *b == byte)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

fn begins_number(byte: u8) -> bool {
    byte == b'-' || byte.is_ascii_digit()
}

fn parse_number(text: &[u8]) -> Option<f64> {
    let digits = |b: &u8| b.is_ascii_digit() || b"+-.eE".contains(b);
    if !text.iter().all(digits) {
        return None;
    }
    str::from_utf8(text).ok()?.parse().ok()
}

/// Where in the answer an open object or array stands.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Root,
    Warnings,
    Infos,
    Data,
    Result,
    Series,
    Metric,
    Values,
    Point,
    Histograms,
    /// Nothing in here is of interest.
    Skip,
}

/// The key whose value comes next, if it means something where it stands.
#[derive(Clone, Copy, PartialEq)]
enum Key {
    Status,
    ErrorType,
    Error,
    Warnings,
    Infos,
    Partial,
    Data,
    ResultType,
    Result,
    Metric,
    Value,
    Values,
    Histogram,
    Histograms,
    Other,
}

impl Key {
    fn of(place: Place, name: &str) -> Self {
        match (place, name) {
            (Place::Root, "status") => Key::Status,
            (Place::Root, "errorType") => Key::ErrorType,
            (Place::Root, "error") => Key::Error,
            (Place::Root, "warnings") => Key::Warnings,
            (Place::Root, "infos") => Key::Infos,
            (Place::Root, "isPartial") => Key::Partial,
            (Place::Root, "data") => Key::Data,
            (Place::Data, "resultType") => Key::ResultType,
            (Place::Data, "result") => Key::Result,
            (Place::Series, "metric") => Key::Metric,
            (Place::Series, "value") => Key::Value,
            (Place::Series, "values") => Key::Values,
            (Place::Series, "histogram") => Key::Histogram,
            (Place::Series, "histograms") => Key::Histograms,
            _ => Key::Other,
        }
    }
}

/// `[time, "value"]`, element by element.
#[derive(Default)]
struct Point {
    elements: usize,
    time: f64,
    value: f64,
}

struct Content {
    limits: Limits,
    places: Vec<Place>,
    key: Key,
    label: String,
    label_bytes: u64,
    /// Those without samples too.
    series: usize,
    point: Point,
    scalar_time: Option<f64>,
    /// Of a scalar or a string; read when `resultType` is known.
    scalar_value: Option<String>,
    disordered: u64,
    partial: bool,
    has_result: bool,
    status: String,
    result_type: String,
    refusal: Refusal,
    answer: Answer,
}

impl Content {
    fn token(&mut self, token: Token) -> Result<(), DecodeError> {
        let place = self.places.last().copied();
        match (token, place) {
            (Token::Open(shape), _) => {
                let inner = self.opened(shape, place)?;
                self.places.push(inner);
            }
            (Token::Close, _) => {
                self.places.pop();
                if let Some(place) = place {
                    self.closed(place)?;
                }
            }
            (Token::Key(name), Some(Place::Metric)) => {
                self.label.clear();
                self.label.push_str(&name);
            }
            (Token::Key(name), Some(place)) => self.key = Key::of(place, &name),
            (token, Some(place)) => self.scalar(token, place)?,
            (_, None) => return invalid("the answer is not a JSON object"),
        }
        Ok(())
    }

    /// Whether an array that opens now is a sample.
    fn takes_point(&self) -> bool {
        match self.places.last() {
            Some(Place::Values) => true,
            Some(Place::Series) => self.key == Key::Value,
            _ => false,
        }
    }

    fn opened(&mut self, shape: Shape, place: Option<Place>) -> Result<Place, DecodeError> {
        use Shape::*;
        let Some(place) = place else {
            return match shape {
                Object => Ok(Place::Root),
                Array => invalid("the answer is not a JSON object"),
            };
        };
        Ok(match (place, self.key, shape) {
            (Place::Skip, ..) => Place::Skip,
            (Place::Result, _, Object) => {
                self.label_bytes = 0;
                Place::Series
            }
            (_, _, Array) if self.takes_point() => {
                self.point = Point::default();
                Place::Point
            }
            (Place::Histograms, _, Array) | (Place::Series, Key::Histogram, Array) => {
                self.answer.histograms += 1;
                Place::Skip
            }
            (Place::Root, Key::Data, Object) => Place::Data,
            (Place::Root, Key::Warnings, Array) => Place::Warnings,
            (Place::Root, Key::Infos, Array) => Place::Infos,
            (Place::Data, Key::Result, Array) => {
                self.has_result = true;
                Place::Result
            }
            (Place::Series, Key::Metric, Object) => Place::Metric,
            (Place::Series, Key::Values, Array) => Place::Values,
            (Place::Series, Key::Histograms, Array) => Place::Histograms,
            (Place::Root | Place::Data | Place::Series, Key::Other, _) => Place::Skip,
            _ => return invalid(misplaced(place)),
        })
    }

    fn closed(&mut self, place: Place) -> Result<(), DecodeError> {
        match place {
            Place::Point => {
                if self.point.elements != 2 {
                    return invalid(misplaced(place));
                }
                self.push_sample()
            }
            Place::Series => {
                let series = self.answer.open();
                let names = || series.labels().map(|(name, _)| name);
                if !names().is_sorted_by(|a, b| a < b)
                    && names().collect::<BTreeSet<_>>().len() < names().count()
                {
                    let labels = format_labels(series.labels());
                    return invalid(format!("a label name occurs twice in {labels}"));
                }
                self.answer.close();
                self.series += 1;
                self.limits.check_series(self.series)
            }
            _ => Ok(()),
        }
    }

    fn scalar(&mut self, token: Token, place: Place) -> Result<(), DecodeError> {
        match (place, self.key, token) {
            (Place::Skip, ..) => {}
            (Place::Point, _, Token::Number(time)) if self.point.elements == 0 => {
                self.point.time = time;
                self.point.elements = 1;
            }
            (Place::Point, _, Token::Text(value)) if self.point.elements == 1 => {
                self.point.value = parse_value(&value)?;
                self.point.elements = 2;
            }
            (Place::Result, _, Token::Number(time)) if self.scalar_time.is_none() => {
                self.scalar_time = Some(time);
            }
            (Place::Result, _, Token::Text(value)) if self.scalar_value.is_none() => {
                self.scalar_value = Some(value.into_owned());
            }
            (Place::Metric, _, Token::Text(value)) => {
                self.label_bytes += (self.label.len() + value.len()) as u64;
                Limits::check(
                    "bytes of labels in one series",
                    self.label_bytes,
                    self.limits.label_bytes,
                )?;
                self.answer.push_label(&self.label, &value);
            }
            (Place::Warnings, _, Token::Text(text)) => note(&mut self.answer.warnings, &text),
            (Place::Infos, _, Token::Text(text)) => note(&mut self.answer.infos, &text),
            (Place::Root | Place::Data | Place::Series, Key::Other, _) => {}
            (Place::Root | Place::Data | Place::Series, key, Token::Null) => {
                self.has_result |= key == Key::Result;
            }
            (Place::Root, Key::Status, Token::Text(text)) => self.status = shorten(&text),
            (Place::Root, Key::ErrorType, Token::Text(text)) => {
                self.refusal.error_type = shorten(&text);
            }
            (Place::Root, Key::Error, Token::Text(text)) => self.refusal.message = shorten(&text),
            (Place::Root, Key::Partial, Token::Bool(partial)) => self.partial = partial,
            (Place::Data, Key::ResultType, Token::Text(text)) => self.result_type = shorten(&text),
            _ => return invalid(misplaced(place)),
        }
        Ok(())
    }

    fn push_sample(&mut self) -> Result<(), DecodeError> {
        if self.point.time.abs() > 1e11 {
            return invalid(format!("{} is not a time in unix seconds", self.point.time));
        }
        let time = Timestamp::from_secs_f64(self.point.time);
        let answer = &mut self.answer;
        let before = answer.open().samples.last();
        if !self.point.value.is_finite() {
            answer.not_finite += 1;
        } else if before.is_some_and(|before| time <= before.0) {
            self.disordered += 1;
        } else {
            answer.samples.push((time, self.point.value));
        }
        self.limits.check_samples(self.answer.samples.len())
    }

    fn finish(mut self) -> Decoded<Answer> {
        match self.status.as_str() {
            "error" => return Ok(Err(self.refusal)),
            "success" => {}
            status => return invalid(format!("the answer has the status {status:?}")),
        }
        if !self.has_result {
            return invalid("the answer has no data.result");
        }
        let series = self.series;
        match (
            self.result_type.as_str(),
            self.scalar_time,
            self.scalar_value.take(),
        ) {
            ("vector" | "matrix", None, None) => {}
            ("scalar", Some(time), Some(value)) if series == 0 => {
                self.point.time = time;
                self.point.value = parse_value(&value)?;
                self.push_sample()?;
                self.answer.close();
            }
            ("string", Some(_), Some(_)) => {
                return Err(DecodeError::Samples(
                    "it returns a string; write one that returns series".into(),
                ));
            }
            (other, ..) => {
                return invalid(format!("data.result does not fit the resultType {other:?}"));
            }
        }
        let answer = &mut self.answer;
        if self.partial {
            answer
                .warnings
                .push("the answer is partial: some storage nodes did not respond".into());
        }
        answer.warnings.extend(disorder_warning(self.disordered));
        Ok(Ok(self.answer))
    }
}

fn parse_value(text: &str) -> Result<f64, DecodeError> {
    match text.parse() {
        Ok(value) => Ok(value),
        Err(_) => invalid(format!("{:?} is not a sample value", shorten(text))),
    }
}

fn misplaced(place: Place) -> &'static str {
    match place {
        Place::Root => "a top-level field has the wrong type",
        Place::Warnings | Place::Infos => "warnings or infos are not a list of strings",
        Place::Data => "a field of data has the wrong type",
        Place::Result => "data.result holds something that is neither a series nor a scalar",
        Place::Series => "a field of a series has the wrong type",
        Place::Metric => "a label value is not a string",
        Place::Values | Place::Point => "a sample is not [time, \"value\"]",
        Place::Histograms | Place::Skip => "a histogram is not a list",
    }
}

fn note(notes: &mut Vec<String>, text: &str) {
    const MAX_NOTES: usize = 50;
    if notes.len() < MAX_NOTES {
        notes.push(shorten(text));
    }
}

fn shorten(text: &str) -> String {
    const MAX_CHARS: usize = 500;
    text.chars().take(MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn decode<'a>(chunks: impl IntoIterator<Item = &'a [u8]>, limits: Limits) -> Decoded<Answer> {
        let mut decoder = Decoder::new(limits);
        for chunk in chunks {
            decoder.feed(chunk)?;
        }
        decoder.finish()
    }

    fn whole(body: &str) -> Decoded<Answer> {
        decode([body.as_bytes()], Limits::default())
    }

    fn answer(body: &str) -> Answer {
        whole(body).unwrap().unwrap()
    }

    fn success(result_type: &str, result: &str) -> String {
        format!(
            r#"{{"status":"success","data":{{"resultType":"{result_type}","result":{result}}}}}"#
        )
    }

    fn fixtures() -> BTreeSet<Vec<u8>> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/prometheus");
        let folders = fs::read_dir(root)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        folders
            .filter(|path| path.is_dir())
            .flat_map(|path| fs::read_dir(path).unwrap())
            .map(|entry| fs::read(entry.unwrap().path()).unwrap())
            .collect()
    }

    #[test]
    fn captured_bodies_decode_alike_wherever_they_are_cut() {
        let bodies = fixtures();
        assert!(bodies.len() > 100, "only {} fixtures", bodies.len());
        for body in bodies {
            let expected = decode([&body[..]], Limits::default());
            let bytewise = decode(body.chunks(1), Limits::default());
            assert_eq!(bytewise, expected, "{}", String::from_utf8_lossy(&body));
            // Bytewise covers every cut of the few large bodies.
            let stride = body.len() / 4000 + 1;
            for cut in (0..body.len()).step_by(stride) {
                let (a, b) = body.split_at(cut);
                assert_eq!(decode([a, b], Limits::default()), expected, "cut at {cut}");
            }
            for end in (0..body.trim_ascii_end().len()).step_by(stride) {
                let cut_off = decode([&body[..end]], Limits::default());
                assert!(cut_off.is_err(), "decoded {end} of {} bytes", body.len());
            }
        }
    }

    #[test]
    fn fields_count_in_any_order_and_unknown_ones_do_not() {
        let plain = success(
            "matrix",
            r#"[{"metric":{"a":"1","b":"2"},"values":[[1.5,"2"],[2.5,"-3e2"]]}]"#,
        );
        let mut expected = answer(&plain);
        let series = expected.series().next().unwrap();
        assert_eq!(
            (series.labels().collect(), series.samples),
            (
                vec![("a", "1"), ("b", "2")],
                &[(Timestamp(1500), 2.0), (Timestamp(2500), -300.0)][..]
            )
        );
        expected.warnings = vec!["w".into()];
        expected.infos = vec!["i".into()];
        let shuffled = r#" {"x":{"data":[{"result":1}]}, "infos":["i"], "data" :
            {"stats":{"resultType":"no"},"result":[ {"y":[[1]],"values":[[1.5,"2"],[2.5,"-300"]],
            "value":null,"metric":{"b":"2","a":"1"},"z":"s"} ],"w":1e3,"resultType":"matrix"},
            "warnings":["w"],"errorType":null,"t":true,"status":"success"}
            "#;
        assert_eq!(answer(shuffled), expected);
    }

    #[test]
    fn values_of_every_kind() {
        let samples = |body: &str| {
            let answer = answer(body);
            let samples: Vec<_> = answer.series().flat_map(|s| s.samples.to_vec()).collect();
            (samples, answer.not_finite, answer.histograms)
        };
        let none = vec![];
        for (value, expected) in [
            ("NaN", None),
            ("+Inf", None),
            ("-Inf", None),
            ("0", Some(0.0)),
            ("1.7976931348623157e+308", Some(f64::MAX)),
            ("5e-324", Some(5e-324)),
        ] {
            let body = success(
                "vector",
                &format!(r#"[{{"metric":{{}},"value":[7,"{value}"]}}]"#),
            );
            let scalar = success("scalar", &format!(r#"[7,"{value}"]"#));
            let expected = match expected {
                Some(v) => (vec![(Timestamp(7000), v)], 0, 0),
                None => (none.clone(), 1, 0),
            };
            assert_eq!(samples(&body), expected, "{value}");
            assert_eq!(samples(&scalar), expected, "{value}");
        }
        let mixed = r#"[{"metric":{},"values":[[1,"1"]],"histograms":[[2,{"count":"1"}],[3,{}]]}]"#;
        assert_eq!(
            samples(&success("matrix", mixed)),
            (vec![(Timestamp(1000), 1.0)], 0, 2)
        );
        let disordered = r#"[{"metric":{},"values":[[2,"1"],[2,"2"],[1,"3"],[3,"4"]]}]"#;
        let answer = answer(&success("matrix", disordered));
        assert_eq!(
            answer.samples,
            [(Timestamp(2000), 1.0), (Timestamp(3000), 4.0)]
        );
        assert_eq!(
            answer.warnings,
            ["2 samples dropped because their timestamps do not increase"]
        );
    }

    #[test]
    fn escapes_and_foreign_bytes_in_labels() {
        let label = |value: &[u8]| {
            let mut body =
                br#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":""#
                    .to_vec();
            body.extend_from_slice(value);
            body.extend_from_slice(br#""},"value":[1,"1"]}]}}"#);
            let bytewise = decode(body.chunks(1), Limits::default());
            assert_eq!(decode([&body[..]], Limits::default()), bytewise);
            bytewise.map(|answer| {
                answer
                    .unwrap()
                    .series()
                    .next()
                    .unwrap()
                    .label("a")
                    .unwrap()
                    .to_owned()
            })
        };
        assert_eq!(
            label(br#"C:\\dir \"x\"\n\u00e4\ud83d\ude00\/"#).unwrap(),
            "C:\\dir \"x\"\nä😀/"
        );
        assert_eq!(label("ä😀".as_bytes()).unwrap(), "ä😀");
        assert_eq!(label(b"\xff").unwrap(), "\u{fffd}");
        assert!(label(br"\x").is_err());
        assert!(label(br"\ud800").is_err());
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let series = |text: &str| success("vector", text);
        for (body, message) in [
            (String::new(), "ends early, after 0 bytes"),
            ("<html>".into(), "unexpected '<' at byte 0"),
            ("[]".into(), "not a JSON object"),
            ("17 ".into(), "not a JSON object"),
            ("{}".into(), "status \"\""),
            (r#"{"status":"success"}"#.into(), "no data.result"),
            (
                r#"{"status":"success","data":[]}"#.into(),
                "top-level field",
            ),
            (
                r#"{"status":"success","data":{"result":[]}}"#.into(),
                "resultType \"\"",
            ),
            (success("cube", "[]"), "resultType \"cube\""),
            (success("scalar", "[]"), "resultType \"scalar\""),
            (success("vector", r#"[1,"2"]"#), "resultType \"vector\""),
            (success("string", r#"[1,"2"]"#), "returns a string"),
            (success("vector", "[]") + "{", "unexpected '{'"),
            (series(r#"[{"metric":{"a":1}}]"#), "label value"),
            (
                series(r#"[{"metric":{"a":"1","a":"2"}}]"#),
                "label name occurs twice",
            ),
            (series(r#"[{"metric":[]}]"#), "field of a series"),
            (series(r#"[{"value":[1]}]"#), "a sample is not"),
            (series(r#"[{"value":[1,2]}]"#), "a sample is not"),
            (series(r#"[{"value":["1","2"]}]"#), "a sample is not"),
            (series(r#"[{"value":[1,"2",3]}]"#), "a sample is not"),
            (series(r#"[{"value":[.5,"2"]}]"#), "unexpected '.'"),
            (series(r#"[{"value":[+5,"2"]}]"#), "unexpected '+'"),
            (
                series(r#"[{"value":[1,"x"]}]"#),
                "\"x\" is not a sample value",
            ),
            (series(r#"[{"value":[1e999,"1"]}]"#), "not a time"),
            (series(r#"[{"value":[1,"1"],}]"#), "unexpected '}'"),
            (series(r#"[{"value":[1 "1"]}]"#), "unexpected '\"'"),
            (series("[nul]"), "\"nul\" is not a JSON value"),
            (series("[1-]"), "\"1-\" is not a JSON value"),
            (series("[-inf]"), "\"-inf\" is not a JSON value"),
        ] {
            let error = whole(&body).unwrap_err().to_string();
            assert!(error.contains(message), "{body}: {error}");
        }
        let refusal =
            whole(r#"{"error":"no","errorType":"bad_data","status":"error","data":null}"#);
        let refusal = refusal.unwrap().unwrap_err();
        assert_eq!(
            (&*refusal.error_type, &*refusal.message),
            ("bad_data", "no")
        );
    }

    #[test]
    fn partial_answers_warn() {
        let body =
            r#"{"status":"success","isPartial":true,"data":{"resultType":"vector","result":null}}"#;
        assert!(answer(body).warnings[0].contains("partial"));
        assert!(answer(&body.replace("true", "false")).warnings.is_empty());
    }

    #[test]
    fn each_limit_is_named() {
        let base = Limits {
            bytes: 200,
            series: 2,
            samples: 2,
            label_bytes: 10,
            string_bytes: 20,
            depth: 7,
        };
        let series = |names: &[&str]| {
            let all: Vec<_> = names
                .iter()
                .map(|name| format!(r#"{{"metric":{{"a":"{name}"}},"values":[]}}"#))
                .collect();
            success("matrix", &format!("[{}]", all.join(",")))
        };
        let deep =
            |levels: usize| format!(r#"{{"x":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
        let samples = |n: usize| {
            let all: Vec<_> = (1..=n).map(|t| format!(r#"[{t},"1"]"#)).collect();
            success(
                "matrix",
                &format!(r#"[{{"metric":{{}},"values":[{}]}}]"#, all.join(",")),
            )
        };
        for (good, bad, limit) in [
            (series(&["1", "2"]), series(&["1", "2", "3"]), "series"),
            (samples(2), samples(3), "samples"),
            (
                series(&["123456789"]),
                series(&["1234567890"]),
                "bytes of labels in one series",
            ),
            (deep(6), deep(7), "levels of nesting"),
            (
                "{}".to_owned() + &" ".repeat(198),
                "{}".to_owned() + &" ".repeat(199),
                "bytes",
            ),
            (
                format!(r#"{{"{}":1}}"#, "k".repeat(20)),
                format!(r#"{{"{}":1}}"#, "k".repeat(21)),
                "bytes in one string",
            ),
        ] {
            for step in [1, 1000] {
                let is_limit = |body: &str| match decode(body.as_bytes().chunks(step), base) {
                    Err(DecodeError::TooLarge { limit: found, .. }) => Some(found),
                    _ => None,
                };
                assert_eq!(is_limit(&bad), Some(limit), "{bad}");
                assert_eq!(is_limit(&good), None, "{good}");
            }
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(body: Vec<u8>, text in "[\\[\\]{}:,\"\\\\a-z0-9. ]{0,60}") {
            let _ = decode([&body[..]], Limits::default());
            let _ = decode([text.as_bytes()], Limits::default());
        }

        #[test]
        fn damaged_answers_never_panic_and_cuts_never_matter(
            at in 0usize..700,
            byte: u8,
            mut cuts in prop::collection::vec(0usize..700, 0..6),
        ) {
            let mut body = fs::read(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/fixtures/prometheus/prom2.42/native_hist_range.json"
            )).unwrap();
            body[at] = byte;
            cuts.sort();
            let mut chunks = vec![];
            let mut from = 0;
            for cut in cuts {
                chunks.push(&body[from..cut]);
                from = cut;
            }
            chunks.push(&body[from..]);
            prop_assert_eq!(
                decode(chunks, Limits::default()),
                decode([&body[..]], Limits::default())
            );
        }

        #[test]
        fn what_a_server_encodes_is_what_comes_out(
            series in prop::collection::btree_map(
                prop::collection::btree_map("[a-z_]{1,5}", any::<String>(), 0..4),
                prop::collection::btree_map(-4_000_000_000_000i64..4_000_000_000_000, any::<f64>(), 1..5),
                0..5,
            ),
        ) {
            let result: Vec<_> = series.iter().map(|(labels, samples)| {
                let values: Vec<_> = samples
                    .iter()
                    .map(|(t, v)| serde_json::json!([*t as f64 / 1000.0, v.to_string()]))
                    .collect();
                serde_json::json!({"metric": labels, "values": values})
            }).collect();
            let found = answer(&success("matrix", &serde_json::to_string(&result).unwrap()));
            let found: Vec<(BTreeMap<_, _>, _)> = found.series().map(|series| {
                let labels = series.labels().map(|(name, value)| (name.to_owned(), value.to_owned()));
                (labels.collect(), series.samples.to_vec())
            }).collect();
            let expected: Vec<_> = series.into_iter().map(|(labels, samples)| {
                let finite = samples.into_iter().filter(|(_, v)| v.is_finite());
                (labels, finite.map(|(t, v)| (Timestamp(t), v)).collect::<Vec<_>>())
            }).filter(|(_, samples)| !samples.is_empty()).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
