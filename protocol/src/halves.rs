//! Half a surrogate pair in JSON, as JavaScript and Python print a text that was cut within an emoji: `"\ud83d"`.
//!
//! The router passes such a text on as the bytes that it is. It is no Unicode, so `serde_json` reads it into no
//! `String`; where a text has to be read, it is read with the replacement character in the place of each half, as
//! Go reads it. Both escapes have six bytes, so that every place in the one text is the same in the other.

use serde::Deserialize;
use serde_json::value::RawValue;

/// The escape of U+FFFD, the replacement character.
const REPLACEMENT: &str = "\\ufffd";
/// The bytes of an escape: `\ud83d`.
const ESCAPE: usize = REPLACEMENT.len();

/// The text with each half replaced; `None` if it has none. Of a text that is no JSON, something no longer.
pub fn replaced(json: &str) -> Option<String> {
    let mut mended: Option<String> = None;
    let mut place = 0;
    while let Some(found) = json.as_bytes()[place..].iter().position(|&byte| byte == b'\\') {
        place += found;
        let rest = &json.as_bytes()[place..];
        place += match unit(rest) {
            Some(0xD800..=0xDBFF) if matches!(unit(&rest[ESCAPE..]), Some(0xDC00..=0xDFFF)) => 2 * ESCAPE,
            Some(0xD800..=0xDFFF) => {
                let mended = mended.get_or_insert_with(|| json.to_owned());
                mended.replace_range(place..place + ESCAPE, REPLACEMENT);
                ESCAPE
            }
            Some(_) => ESCAPE,
            // Of another escape the next character is no escape's beginning.
            None => rest.len().min(2),
        };
    }
    mended
}

/// Reads JSON, halves replaced where there are any. Costs nothing where there are none.
///
/// # Errors
/// If it is not what is meant, with halves replaced too.
pub fn read<T: for<'de> Deserialize<'de>>(json: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(json).or_else(|fault| match replaced(json) {
        Some(mended) => serde_json::from_str(&mended),
        None => Err(fault),
    })
}

/// The value at the place in `json` that `value` has in `replaced`, the same text with its halves replaced.
pub fn original<'t>(value: &RawValue, replaced: &str, json: &'t str) -> Option<&'t RawValue> {
    let start = (value.get().as_ptr() as usize).checked_sub(replaced.as_ptr() as usize)?;
    serde_json::from_str(json.get(start..start + value.get().len())?).ok()
}

/// The UTF-16 unit that a text's first escape says.
fn unit(text: &[u8]) -> Option<u16> {
    let digits = text.get(..ESCAPE)?.strip_prefix(b"\\u")?;
    let digits = std::str::from_utf8(digits).ok()?;
    // `from_str_radix` would take a sign.
    let hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    hex.then(|| u16::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_replaced_and_nothing_else() {
        for (json, expected) in [
            (r#""\ud83d""#, Some(r#""\ufffd""#)),
            (r#""\uDE00\uD83D""#, Some(r#""\ufffd\ufffd""#)),
            (r#""\ud83d\ud83d\ude00""#, Some(r#""\ufffd\ud83d\ude00""#)),
            (r#"{"a\ud83d":"b\\\ud83d"}"#, Some(r#"{"a\ufffd":"b\\\ufffd"}"#)),
            (r#""é\ud83d\n\ude00""#, Some(r#""é\ufffd\n\ufffd""#)),
            (r#""\ud83d\ude00\ufffd\\ud83d\u00e9""#, None),
            (r#""\ud83""#, None),
            (r#""\u+d83""#, None),
            ("\"\\", None),
            ("\"\\u\u{e9}\u{e9}", None),
            ("", None),
        ] {
            assert_eq!(replaced(json).as_deref(), expected, "{json}");
        }
    }
}
