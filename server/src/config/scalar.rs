//! Durations and sizes as people write them: `25s`, `64KiB`.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const DURATION_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];
const SIZE_UNITS: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("", 1),
];

/// A duration in whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span(pub(super) u64);

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Size(pub(super) u64);

impl Span {
    pub(super) const fn seconds(seconds: u64) -> Self {
        Self(seconds * 1_000)
    }

    pub(super) fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl Size {
    pub(super) const fn kib(kib: u64) -> Self {
        Self(kib << 10)
    }
}

/// Reads a whole number and one of the units, with nothing between.
fn read(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.trim_start_matches(|character: char| character.is_ascii_digit());
    let (number, unit) = text.split_at(text.len() - digits.len());
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// Writes a number in the largest unit that holds it whole.
fn write(formatter: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let (unit, factor) = units
        .iter()
        .find(|(_, factor)| value.is_multiple_of(*factor) && value >= *factor)
        .unwrap_or(&units[units.len() - 1]);
    write!(formatter, "{}{unit}", value / factor)
}

impl FromStr for Span {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        read(text, &DURATION_UNITS).map(Self).ok_or(())
    }
}

impl FromStr for Size {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        read(text, &SIZE_UNITS).map(Self).ok_or(())
    }
}

impl fmt::Display for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => formatter.write_str("0s"),
            milliseconds => write(formatter, milliseconds, &DURATION_UNITS),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(formatter, self.0, &SIZE_UNITS)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(|()| de::Error::custom("not a duration"))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Bytes(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Bytes(bytes) => Ok(Self(bytes)),
            Written::Text(text) => text.parse().map_err(|()| de::Error::custom("not a size")),
        }
    }
}

impl JsonSchema for Span {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "x-kind": "duration" })
    }
}

impl JsonSchema for Size {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "x-kind": "size" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_write() {
        for (text, milliseconds) in [
            ("0s", 0),
            ("250ms", 250),
            ("25s", 25_000),
            ("5m", 300_000),
            ("24h", 86_400_000),
            ("2d", 172_800_000),
        ] {
            assert_eq!(text.parse(), Ok(Span(milliseconds)), "{text}");
            assert_eq!(Span(milliseconds).to_string().parse(), Ok(Span(milliseconds)));
        }
        assert_eq!(Span(90_000).to_string(), "90s");
        for bad in [
            "",
            "s",
            "5",
            "5 s",
            "1.5s",
            "-1s",
            "5M",
            "1m30s",
            "99999999999999999d",
        ] {
            assert_eq!(bad.parse::<Span>(), Err(()), "{bad:?}");
        }
    }

    #[test]
    fn sizes_read_and_write() {
        for (text, bytes) in [
            ("0", 0),
            ("65536", 65_536),
            ("64KiB", 65_536),
            ("10GiB", 10 << 30),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
            assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
        }
        for bad in [
            "",
            "KiB",
            "64 KiB",
            "64KB",
            "64k",
            "-1",
            "1.5MiB",
            "99999999999TiB",
        ] {
            assert_eq!(bad.parse::<Size>(), Err(()), "{bad:?}");
        }
    }
}
