//! The short way from a body to rows, for bodies as nearly all are: signals as numbers, and fields that the model
//! does not know. Whatever else a body holds takes the careful way, which can say what is wrong with it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::predict::{Row, bounds};
use crate::types::Signal;

/// The row of a plain body; `None` does not mean that it is wrong.
pub(super) fn row(body: &[u8], signals: &[Signal]) -> Option<Row> {
    read(body, RowOf(signals))
}

/// The same of a batch of 1 to `max` rows.
pub(super) fn rows(body: &[u8], signals: &[Signal], max: usize) -> Option<Vec<Row>> {
    read(body, RowsOf { signals, max })
}

fn read<'b, S: DeserializeSeed<'b>>(body: &'b [u8], seed: S) -> Option<S::Value> {
    let text = std::str::from_utf8(body).ok()?;
    let mut json = serde_json::Deserializer::from_str(text);
    let value = seed.deserialize(&mut json).ok()?;
    json.end().ok()?;
    Some(value)
}

struct RowOf<'s>(&'s [Signal]);

impl<'de> DeserializeSeed<'de> for RowOf<'_> {
    type Value = Row;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Row, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowOf<'_> {
    type Value = Row;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object of signals")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Row, A::Error> {
        let signals = self.0;
        let mut values = vec![None; signals.len()];
        let mut ignored = Vec::new();
        while let Some(key) = fields.next_key_seed(Key)? {
            match signals.iter().position(|signal| signal.name == key) {
                Some(i) => values[i] = fields.next_value_seed(Number(&signals[i]))?,
                None if key == "target" || key == "history" => fields.next_value::<()>()?,
                None => {
                    fields.next_value::<IgnoredAny>()?;
                    ignored.push(key.into_owned());
                }
            }
        }
        if values.iter().all(Option::is_none) {
            return Err(A::Error::custom("no signal"));
        }
        ignored.sort_unstable();
        ignored.dedup();
        let absent = signals.iter().zip(&values).filter(|(_, v)| v.is_none());
        Ok(Row {
            missing: absent.map(|(signal, _)| signal.name.clone()).collect(),
            values,
            history: Vec::new(),
            target: None,
            ignored,
        })
    }
}

struct RowsOf<'s> {
    signals: &'s [Signal],
    max: usize,
}

impl<'de> DeserializeSeed<'de> for RowsOf<'_> {
    type Value = Vec<Row>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Vec<Row>, D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for RowsOf<'_> {
    type Value = Vec<Row>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an array of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<Row>, A::Error> {
        let mut rows = Vec::new();
        while let Some(row) = items.next_element_seed(RowOf(self.signals))? {
            if rows.len() == self.max {
                return Err(A::Error::custom("too many rows"));
            }
            rows.push(row);
        }
        match rows.is_empty() {
            true => Err(A::Error::custom("no row")),
            false => Ok(rows),
        }
    }
}

/// A field's name, borrowed where it has no escapes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

/// A signal's value: a number within its bounds, or null.
struct Number<'s>(&'s Signal);

impl<'de> DeserializeSeed<'de> for Number<'_> {
    type Value = Option<f32>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Number<'_> {
    type Value = Option<f32>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a number within its bounds or null")
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        let (low, high) = bounds(self.0);
        match (low..=high).contains(&value) {
            true => Ok(Some(value as f32)),
            false => Err(E::custom("out of range")),
        }
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        self.visit_f64(value as f64)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        self.visit_f64(value as f64)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}
