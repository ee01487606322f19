//! The scalars of the wire profile: strict to write, lenient to read.
//!
//! What Rivulet's own types write is the profile; what they read is whatever the edge lets through, which is
//! what Go, Python and JavaScript print by default (`docs/protocol.md`, section 1).

use std::{borrow::Cow, fmt};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The largest integer that JavaScript holds exactly, 2^53 - 1. Larger ids travel as strings.
pub const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// An instant. Written as RFC 3339 in UTC with a `Z` and at most microseconds; read from any RFC 3339 time or
/// an ISO 8601 time without a zone (taken as UTC), up to nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(jiff::Timestamp);

impl Timestamp {
    /// The instant, cut to whole microseconds.
    pub fn new(instant: jiff::Timestamp) -> Self {
        Self(jiff::Timestamp::from_microsecond(instant.as_microsecond()).unwrap_or(instant))
    }

    /// Reads any time that the edge accepts. `None` if the text is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let lenient = |text: &str| {
            text.parse::<jiff::Timestamp>().ok().or_else(|| {
                // A zoneless time is what Python's `datetime.utcnow().isoformat()` prints.
                let civil: DateTime = text.parse().ok()?;
                TimeZone::UTC.to_timestamp(civil).ok()
            })
        };
        let has_a_time = text
            .get(10..11)
            .is_some_and(|separator| matches!(separator, "T" | "t" | " "));
        // jiff reads `60` as `59`; a leap second is outside the profile. It would also take a time zone
        // annotation in brackets, which RFC 3339 does not have.
        let leap_second = text.get(17..19) == Some("60");
        if !has_a_time || leap_second || text.contains('[') {
            return None;
        }
        lenient(text).map(Self::new)
    }

    /// The instant as jiff has it.
    pub fn instant(self) -> jiff::Timestamp {
        self.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom(format_args!("`{text}` is not a time")))
    }
}

impl JsonSchema for Timestamp {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

/// A whole number from 0 to 2^53 - 1. Written without a fraction; read also as `1.0`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SafeInteger(u64);

impl SafeInteger {
    /// `None` above 2^53 - 1.
    pub fn new(value: u64) -> Option<Self> {
        (value <= MAX_SAFE_INTEGER).then_some(Self(value))
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl Serialize for SafeInteger {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for SafeInteger {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        // The cast is exact: both bounds are checked, and the fraction is zero.
        let whole = |float: f64| {
            (float.fract() == 0.0 && (0.0..=MAX_SAFE_INTEGER as f64).contains(&float)).then_some(float as u64)
        };
        number
            .as_u64()
            .or_else(|| number.as_f64().and_then(whole))
            .and_then(Self::new)
            .ok_or_else(|| {
                de::Error::custom(format_args!("{number} is not a whole number from 0 to 2^53 - 1"))
            })
    }
}

impl JsonSchema for SafeInteger {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "SafeInteger".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 0, "maximum": MAX_SAFE_INTEGER })
    }
}

/// How far along something is, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
pub struct Progress(f64);

impl Progress {
    /// `None` outside 0..=1.
    pub fn new(value: f64) -> Option<Self> {
        (0.0..=1.0).contains(&value).then_some(Self(value))
    }

    /// The fraction.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl<'de> Deserialize<'de> for Progress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = f64::deserialize(deserializer)?;
        Self::new(value).ok_or_else(|| de::Error::custom(format_args!("{value} is not within 0 and 1")))
    }
}

impl JsonSchema for Progress {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Progress".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "minimum": 0, "maximum": 1 })
    }
}
