//! Finds the top-level fields of a payload that a source asks for.

use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Rejection, Rule};

/// Finds top-level fields of a JSON object in one pass, without building a tree; no depth costs stack.
pub(super) fn top_level<'a, const N: usize>(
    payload: &'a [u8],
    wanted: [Option<&str>; N],
) -> Result<[Option<&'a RawValue>; N], Rejection> {
    let not_json = |message: String| Rejection::new(Rule::Json, "", message);
    // serde_json does not look into strings that it skips, and a client would close on bad UTF-8 (1007).
    let text = std::str::from_utf8(payload).map_err(|fault| not_json(format!("not UTF-8: {fault}")))?;
    let mut json = serde_json::Deserializer::from_str(text);
    let found = Fields { wanted }
        .deserialize(&mut json)
        .and_then(|found| json.end().map(|()| found))
        .map_err(|fault| {
            if fault.is_data() {
                Rejection::new(Rule::Object, "", "the payload is JSON, but not an object")
            } else {
                not_json(format!("not JSON: {fault}"))
            }
        })?;
    let mut once = [None; N];
    for (index, found) in found.into_iter().enumerate() {
        once[index] = match found {
            Found::Absent => None,
            Found::Once(value) => Some(value),
            Found::Twice => {
                let field = wanted[index].unwrap_or_default();
                return Err(Rejection::new(
                    Rule::DuplicateField,
                    pointer(field),
                    format!("the field `{field}` stands there twice"),
                ));
            }
        };
    }
    Ok(once)
}

#[derive(Clone, Copy)]
enum Found<'a> {
    Absent,
    Once(&'a RawValue),
    Twice,
}

struct Fields<'w, const N: usize> {
    wanted: [Option<&'w str>; N],
}

impl<'de, const N: usize> DeserializeSeed<'de> for Fields<'_, N> {
    type Value = [Found<'de>; N];

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Fields<'_, N> {
    type Value = [Found<'de>; N];

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [Found::Absent; N];
        while let Some(index) = map.next_key_seed(Key { wanted: &self.wanted })? {
            match index {
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
                Some(index) => {
                    let value = map.next_value::<&'de RawValue>()?;
                    found[index] = match found[index] {
                        Found::Absent => Found::Once(value),
                        _ => Found::Twice,
                    };
                }
            }
        }
        Ok(found)
    }
}

/// Which of the wanted fields a key is, escapes resolved.
struct Key<'w> {
    wanted: &'w [Option<&'w str>],
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<usize>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        // As bytes: a key may hold half a surrogate pair, which is no text.
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Option<usize>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_bytes<E>(self, key: &[u8]) -> Result<Self::Value, E> {
        let is = |wanted: &Option<&str>| wanted.is_some_and(|wanted| wanted.as_bytes() == key);
        Ok(self.wanted.iter().position(is))
    }
}

/// The first fields of an object: their names, halves of surrogate pairs replaced, and their values. For an
/// explanation, so what is no object has none.
pub(super) fn first_fields(object: &[u8]) -> Vec<(String, &RawValue)> {
    let mut json = serde_json::Deserializer::from_slice(object);
    serde::Deserializer::deserialize_map(&mut json, FirstFields).unwrap_or_default()
}

/// How many fields an explanation looks at.
const FIRST: usize = 200;

struct FirstFields;

impl<'de> Visitor<'de> for FirstFields {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(name) = map.next_key_seed(Name)? {
            let value = map.next_value()?;
            if fields.len() < FIRST {
                fields.push((name, value));
            }
        }
        Ok(fields)
    }
}

/// A key, halves of surrogate pairs replaced.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = String;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Name {
    type Value = String;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_bytes<E>(self, key: &[u8]) -> Result<Self::Value, E> {
        Ok(String::from_utf8_lossy(key).into_owned())
    }
}

/// A field's name as a JSON Pointer (RFC 6901).
pub(super) fn pointer(field: &str) -> String {
    format!("/{}", field.replace('~', "~0").replace('/', "~1"))
}
