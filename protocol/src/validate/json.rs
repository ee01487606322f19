//! Reads payloads as JSON, more strictly than serde_json does by itself: a key that stands twice means one thing
//! to one reader and another to the next.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value, map::Entry};

use crate::halves;

/// One JSON object, without duplicate keys, halves of surrogate pairs replaced: keys that only differ in these are
/// duplicates, as they are to a reader that replaces them. serde_json bounds the depth at 127.
pub(super) fn parse_object(text: &str) -> Result<Value, String> {
    match halves::read(text).map_err(|error| describe(&error))? {
        Unique(object @ Value::Object(_)) => Ok(object),
        Unique(_) => Err(NOT_AN_OBJECT.to_owned()),
    }
}

/// The same without making a tree of it; duplicate keys are not looked for.
pub(super) fn check_object(text: &str) -> Result<(), String> {
    match halves::read(text).map_err(|error| describe(&error))? {
        WellFormed { object: true } => Ok(()),
        WellFormed { object: false } => Err(NOT_AN_OBJECT.to_owned()),
    }
}

const NOT_AN_OBJECT: &str = "the payload is one JSON object";

fn describe(error: &serde_json::Error) -> String {
    format!("not JSON: {error}")
}

/// A value whose objects have no key twice.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tree;

        impl<'de> Visitor<'de> for Tree {
            type Value = Value;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON value")
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Bool(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(Value::Number(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value::Number(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
            }

            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(Value::String(value.to_owned()))
            }

            fn visit_string<E>(self, value: String) -> Result<Value, E> {
                Ok(Value::String(value))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
                let mut array = Vec::new();
                while let Some(Unique(item)) = items.next_element()? {
                    array.push(item);
                }
                Ok(Value::Array(array))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
                let mut object = Map::new();
                while let Some((key, Unique(value))) = entries.next_entry::<String, _>()? {
                    match object.entry(key) {
                        Entry::Vacant(place) => drop(place.insert(value)),
                        Entry::Occupied(first) => {
                            let key: String = first.key().chars().take(64).collect();
                            return Err(A::Error::custom(format_args!("the key `{key}` stands twice")));
                        }
                    }
                }
                Ok(Value::Object(object))
            }
        }

        deserializer.deserialize_any(Tree).map(Self)
    }
}

/// What is left of a value that was only looked at.
struct WellFormed {
    object: bool,
}

impl<'de> Deserialize<'de> for WellFormed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Look;

        const OTHER: WellFormed = WellFormed { object: false };

        impl<'de> Visitor<'de> for Look {
            type Value = WellFormed;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON value")
            }

            fn visit_unit<E>(self) -> Result<WellFormed, E> {
                Ok(OTHER)
            }

            fn visit_bool<E>(self, _: bool) -> Result<WellFormed, E> {
                Ok(OTHER)
            }

            fn visit_u64<E>(self, _: u64) -> Result<WellFormed, E> {
                Ok(OTHER)
            }

            fn visit_i64<E>(self, _: i64) -> Result<WellFormed, E> {
                Ok(OTHER)
            }

            fn visit_f64<E>(self, _: f64) -> Result<WellFormed, E> {
                Ok(OTHER)
            }

            fn visit_str<E>(self, _: &str) -> Result<WellFormed, E> {
                Ok(OTHER)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<WellFormed, A::Error> {
                while items.next_element::<WellFormed>()?.is_some() {}
                Ok(OTHER)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<WellFormed, A::Error> {
                while entries.next_entry::<WellFormed, WellFormed>()?.is_some() {}
                Ok(WellFormed { object: true })
            }
        }

        deserializer.deserialize_any(Look)
    }
}
