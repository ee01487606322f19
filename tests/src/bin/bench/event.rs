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

/// Which of so many users an event is for, where each is for one: all of them in turn, neighbours far apart, so
/// that those who are here get theirs evenly over the time. The number of users divides a million.
pub(crate) fn user_of(number: u64, users: u64) -> u64 {
    number * 101 % users
}

/// The first event for this user; the next is `users` events on.
pub(crate) fn first_for(user: u64, users: u64) -> u64 {
    // 101 × 9,901 is 1 more than a million: one undoes the other.
    user * 9_901 % users
}

/// Nanoseconds since 1970: one clock for all processes of a machine.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_user_has_a_turn_and_knows_when() {
        for users in [1, 50, 100, 1_000, 100_000] {
            for user in (0..users).step_by(7) {
                assert_eq!(user_of(first_for(user, users), users), user);
                assert_eq!(user_of(first_for(user, users) + users, users), user);
            }
        }
    }

    #[test]
    fn data_has_the_size_that_was_asked_for() {
        for padding in [Padding::Plain, Padding::Words] {
            for size in [64, 200, 65_536] {
                assert_eq!(data(123_456, size, padding).len(), size);
            }
        }
    }
}
