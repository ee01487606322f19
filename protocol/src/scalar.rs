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
    // By hand, as each event has one or two of them: a tenth of what jiff's parser and the checks around it cost, which
    // would take more than Python and JavaScript can read (minutes without seconds, names of zones in brackets).
    pub fn parse(text: &str) -> Option<Self> {
        let (plain, rest) = text.as_bytes().split_first_chunk::<19>()?;
        let marks = [plain[4], plain[7], plain[13], plain[16]];
        if marks != *b"--::" || !matches!(plain[10], b'T' | b't' | b' ') {
            return None;
        }
        let digit = |byte: &u8| byte.is_ascii_digit().then(|| byte - b'0');
        let two = |at: usize| {
            let [tens, ones] = [digit(&plain[at])?, digit(&plain[at + 1])?];
            i8::try_from(tens * 10 + ones).ok()
        };
        let year = i16::from(two(0)?) * 100 + i16::from(two(2)?);
        let mut nanosecond = 0;
        let mut zone = rest;
        if let [b'.', fraction @ ..] = rest {
            let digits = fraction.iter().map_while(digit).count();
            if !(1..=9).contains(&digits) {
                return None;
            }
            let (fraction, behind) = fraction.split_at(digits);
            let padded = fraction.iter().copied().chain(std::iter::repeat(b'0'));
            nanosecond = padded
                .take(9)
                .fold(0, |number, byte| number * 10 + i32::from(byte - b'0'));
            zone = behind;
        }
        let local = DateTime::new(year, two(5)?, two(8)?, two(11)?, two(14)?, two(17)?, nanosecond).ok()?;
        let utc = match offset(zone)? {
            SignedDuration::ZERO => local,
            east => local.checked_sub(east).ok()?,
        };
        Self::cut(utc)
    }

    /// The instant as jiff has it, which ends at 9999-12-30T22:00:00Z.
    pub fn instant(self) -> jiff::Timestamp {
        TimeZone::UTC.to_timestamp(self.0).unwrap_or(jiff::Timestamp::MAX)
    }

    fn cut(utc: DateTime) -> Option<Self> {
        let micros = utc.subsec_nanosecond() / 1_000;
        let time = utc.time();
        let cut = DateTime::new(
            utc.year(),
            utc.month(),
            utc.day(),
            time.hour(),
            time.minute(),
            time.second(),
            micros * 1_000,
        );
        cut.ok().filter(|cut| (1..=9999).contains(&cut.year())).map(Self)
    }
}

/// How far a zone is east of UTC.
fn offset(zone: &[u8]) -> Option<SignedDuration> {
    let (sign, rest) = match zone {
        b"" | b"Z" | b"z" => return Some(SignedDuration::ZERO),
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return None,
    };
    let &[h1, h0, b':', m1, m0] = rest else {
        return None;
    };
    if ![h1, h0, m1, m0].iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |tens: u8, ones: u8| i64::from((tens - b'0') * 10 + (ones - b'0'));
    let (hours, minutes) = (number(h1, h0), number(m1, m0));
    (hours < 24 && minutes < 60).then(|| SignedDuration::from_mins(sign * (hours * 60 + minutes)))
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Each event is written with one.
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let mut put = |end: usize, digits: usize, mut number: u32| {
            for place in text[end - digits..end].iter_mut().rev() {
                *place = b'0' + (number % 10) as u8;
                number /= 10;
            }
        };
        let time = self.0;
        // None of them is negative: the year is 1 at least.
        put(4, 4, time.year().unsigned_abs().into());
        put(7, 2, time.month().unsigned_abs().into());
        put(10, 2, time.day().unsigned_abs().into());
        put(13, 2, time.hour().unsigned_abs().into());
        put(16, 2, time.minute().unsigned_abs().into());
        put(19, 2, time.second().unsigned_abs().into());
        put(26, 6, time.subsec_nanosecond().unsigned_abs() / 1_000);
        let end = match time.subsec_nanosecond() {
            0 => 19,
            _ => {
                26 - text[..26]
                    .iter()
                    .rev()
                    .take_while(|digit| **digit == b'0')
                    .count()
            }
        };
        text[end] = b'Z';
        formatter.write_str(std::str::from_utf8(&text[..=end]).expect("ASCII"))
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
    use proptest::prelude::*;

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

    proptest! {
        /// jiff's own reader and writer are the oracle, for whatever has the form.
        #[test]
        fn times_are_read_and_written_as_jiff_does(
            year in 0_i16..=9999, month in 0_i8..=14, day in 0_i8..=33,
            hour in 0_i8..=25, minute in 0_i8..=61, second in 0_i8..=61,
            fraction in "(\\.[0-9]{1,9})?",
        ) {
            let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}");
            // jiff takes a leap second for the one before.
            let oracle: Option<DateTime> = text.parse().ok().filter(|_| second < 60 && year > 0);
            let read = Timestamp::parse(&text);
            prop_assert_eq!(read.is_some(), oracle.is_some(), "{}", text);
            if let (Some(read), Some(oracle)) = (read, oracle) {
                let nanosecond = oracle.subsec_nanosecond();
                let cut = oracle.with().subsec_nanosecond(nanosecond - nanosecond % 1_000).build().unwrap();
                prop_assert_eq!(read.to_string(), format!("{cut}Z"));
            }
        }

        #[test]
        fn what_is_no_time_is_refused_without_a_panic(text in "[0-9TZtz:. +é-]{0,32}") {
            if let Some(read) = Timestamp::parse(&text) {
                prop_assert_eq!(Timestamp::parse(&read.to_string()), Some(read));
            }
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
