//! An event's data: the same bytes from every server.

use std::time::{SystemTime, UNIX_EPOCH};

/// What lies between an event's number and the next event's: the padding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Padding {
    /// One letter again and again.
    Plain,
    /// Words and numbers by chance, which deflate makes about half as long, as it does ordinary JSON.
    Words,
}

const WORDS: [&str; 16] = [
    "created",
    "processor",
    "pending",
    "document",
    "finished",
    "chapter",
    "preview",
    "message",
    "schema",
    "progress",
    "conversation",
    "reader",
    "updated",
    "duration",
    "author",
    "status",
];

/// Data number `number`, made now, of `size` bytes (at least 64).
pub(crate) fn data(number: u64, size: usize, padding: Padding) -> String {
    let mut data = format!(r#"{{"number":{number},"made":{},"pad":""#, now());
    match padding {
        Padding::Plain => data.extend(std::iter::repeat_n('x', size.saturating_sub(data.len() + 2))),
        Padding::Words => {
            // xorshift, from the number: no two events alike.
            let mut state = (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            while data.len() + 2 < size {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                data += WORDS[(state >> 60) as usize];
                data += &format!(" {:04} ", (state >> 32) % 10_000);
            }
            data.truncate(size - 2);
        }
    }
    data + r#""}"#
}

/// The envelope that the router puts around, so that all send the same bytes.
pub(crate) fn enveloped(number: u64, data: &str) -> String {
    format!(
        r#"{{"type":"blob.bench","seq":{},"time":"2026-01-01T00:00:00.000000Z","data":{data}}}"#,
        number + 1
    )
}

/// Nanoseconds since 1970: one clock for all processes of a machine.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_nanos() as u64
}
