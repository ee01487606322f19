//! The scalars of the wire profile: strict to write, lenient to read.
//!
//! What Rivulet's own types write is the profile; what they read is whatever the edge lets through, which is
//! what Go, Python and JavaScript print by default (`docs/protocol.md`, section 1).

use std::{borrow::Cow, fmt};

use jiff::{
    SignedDuration,
    civil::{DateTime, date},
    tz::TimeZone,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The largest integer that JavaScript holds exactly, 2^53 - 1. Larger ids travel as strings.
pub const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// An instant in the years 1 to 9999. Written as RFC 3339 in UTC with a `Z` and at most microseconds; read from
/// any RFC 3339 time or an ISO 8601 time without a zone (taken as UTC), up to nanoseconds.
// Not a `jiff::Timestamp`, which ends a day before 9999-12-31T23:59:59Z: what many databases call "for ever".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(test, derive(ts_rs::TS), ts(type = "string"))]
pub struct Timestamp(DateTime);

impl Timestamp {
    /// The instant, cut to whole microseconds and to the years 1 to 9999.
    pub fn new(instant: jiff::Timestamp) -> Self {
        Self::cut(TimeZone::UTC.to_datetime(instant)).unwrap_or(Self(date(1, 1, 1).at(0, 0, 0, 0)))
    }

    /// Reads any time that the edge accepts: `YYYY-MM-DD`, one of `T`, `t` and a space, `HH:MM:SS`, at most nine
    /// digits of fraction, and `Z`, `z`, `±HH:MM` or nothing. `None` for anything else, a leap second too.
    // jiff alone would take more than Python and JavaScript can read: a comma before the fraction, minutes
    // without seconds, `+02`, names of zones in brackets.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let (day, rest) = text.split_at_checked(10)?;
        let (separator, rest) = rest.split_at_checked(1)?;
        let (time, rest) = rest.split_at_checked(8)?;
        if !matches!(separator, "T" | "t" | " ") || time.ends_with("60") {
            return None;
        }
        let mut parts = [time.get(..2)?, time.get(3..5)?, time.get(6..)?].into_iter();
        let plain = time.get(2..3)? == ":" && time.get(5..6)? == ":" && parts.all(digits);
        let mut parts = day.splitn(3, '-');
        let lengths = [4, 2, 2];
        let plain = plain
            && lengths.into_iter().all(|length| {
                parts
                    .next()
                    .is_some_and(|part| part.len() == length && digits(part))
            });
        if !plain {
            return None;
        }
        let zone_at = rest.find(['Z', 'z', '+', '-']).unwrap_or(rest.len());
        let (fraction, zone) = rest.split_at(zone_at);
        if !fraction.is_empty()
            && !fraction
                .strip_prefix('.')
                .is_some_and(|fraction| (1..=9).contains(&fraction.len()) && digits(fraction))
        {
            return None;
        }
        let local: DateTime = format!("{day}T{time}{fraction}").parse().ok()?;
        Self::cut(local.checked_sub(offset(zone)?).ok()?)
    }

    /// The instant as jiff has it, which ends at 9999-12-30T22:00:00Z.
    pub fn instant(self) -> jiff::Timestamp {
        TimeZone::UTC.to_timestamp(self.0).unwrap_or(jiff::Timestamp::MAX)
    }

    fn cut(utc: DateTime) -> Option<Self> {
        let nanosecond = utc.subsec_nanosecond();
        let utc = utc
            .with()
            .subsec_nanosecond(nanosecond - nanosecond % 1_000)
            .build()
            .ok()?;
        (1..=9999).contains(&utc.year()).then_some(Self(utc))
    }
}

/// How far a zone is east of UTC.
fn offset(zone: &str) -> Option<SignedDuration> {
    let (sign, rest) = match zone.split_at_checked(1) {
        None => return Some(SignedDuration::ZERO),
        Some(("Z" | "z", "")) => return Some(SignedDuration::ZERO),
        Some(("+", rest)) => (1, rest),
        Some(("-", rest)) => (-1, rest),
        Some(_) => return None,
    };
    let number = |text: &str, bound: i64| {
        let plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|number: &i64| plain && *number < bound)
    };
    let (hours, minutes) = rest.split_once(':')?;
    Some(SignedDuration::from_mins(
        sign * (number(hours, 24)? * 60 + number(minutes, 60)?),
    ))
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}Z", self.0)
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
#[cfg_attr(test, derive(ts_rs::TS), ts(type = "number"))]
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
#[cfg_attr(test, derive(ts_rs::TS), ts(type = "number"))]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_languages_print_are_read() {
        for (text, written) in [
            ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
            ("2026-01-31T12:00:00.123Z", "2026-01-31T12:00:00.123Z"),
            (
                "2026-01-31T12:00:00.123456789+01:00",
                "2026-01-31T11:00:00.123456Z",
            ),
            ("2026-01-31T12:00:00", "2026-01-31T12:00:00Z"),
            ("2026-01-31T12:00:00.1", "2026-01-31T12:00:00.1Z"),
            ("2026-01-31 12:00:00.100000", "2026-01-31T12:00:00.1Z"),
            ("2026-01-31t12:00:00z", "2026-01-31T12:00:00Z"),
            ("2026-01-31T12:00:00-00:00", "2026-01-31T12:00:00Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59.999999Z"),
            ("2024-02-29T23:30:00-05:30", "2024-03-01T05:00:00Z"),
        ] {
            assert_eq!(
                Timestamp::parse(text).map(|time| time.to_string()).as_deref(),
                Some(written),
                "{text}"
            );
        }
    }

    #[test]
    fn what_some_readers_would_not_take_is_not_a_time() {
        for text in [
            "",
            "2026-01-31",
            "12:00:00",
            "2026-01-31T12",
            "2026-01-31T12:00",
            "2026-01-31T12:00:00.",
            "2026-01-31T12:00:00,5Z",
            "2026-01-31T12:00:00.1234567890Z",
            "2026-01-31T12:00:00+01",
            "2026-01-31T12:00:00+0100",
            "2026-01-31T12:00:00+24:00",
            "2026-01-31T12:00:00+01:60",
            "2026-01-31T12:00:00Z[UTC]",
            "2026-01-31T12:00:00ZZ",
            "2026-01-31T12:00:00 Z",
            "2026-01-31_12:00:00Z",
            "2026-01-31T23:59:60Z",
            "2026-01-31T24:00:00Z",
            "2026-02-29T12:00:00Z",
            "2026-13-01T12:00:00Z",
            "0000-01-01T00:00:00Z",
            "0001-01-01T00:00:00+01:00",
            "9999-12-31T23:59:59-01:00",
            "+002026-01-31T12:00:00Z",
            "-2026-01-31T12:00:00Z",
            "20260131T120000Z",
            "1769860800",
            "２026-01-31T12:00:00Z",
            "2026-01-31T12:00:00é",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text:?}");
        }
    }
}
