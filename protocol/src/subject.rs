//! User ids, and how they stand in NATS subjects and headers.
//!
//! An id is any 1 to 128 bytes of UTF-8, so it may hold dots, spaces and wildcards. In a subject or a header it
//! is escaped: `[A-Za-z0-9_-]` stay, every other byte becomes `=XX` with upper-case hex digits. The result is
//! always exactly one token, no two ids share one, and no id becomes a wildcard.

use std::{fmt, sync::Arc};

/// The header that names the user (escaped) of an event; repeatable. The router alone sets it on a command.
pub const USER_HEADER: &str = "Rivulet-User";
/// The header that names an audience that is not a list of users; the one value is [`EVERYONE`].
pub const AUDIENCE_HEADER: &str = "Rivulet-Audience";
/// The header reserved for rooms, which a later version brings.
pub const ROOM_HEADER: &str = "Rivulet-Room";
/// The value of [`AUDIENCE_HEADER`] for all users.
pub const EVERYONE: &str = "everyone";
/// The subject token for all users. No id escapes to it: after `=` an id has two hex digits.
pub const EVERYONE_TOKEN: &str = "==everyone";
/// The most bytes in a user id, before escaping.
pub const MAX_USER_ID_BYTES: usize = 128;

/// A user's id: 1 to 128 bytes of UTF-8, nothing else asked of it. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Arc<str>);

/// Why a text is not a user id, or not an escaped one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUserId {
    /// No bytes.
    #[error("a user id is not empty")]
    Empty,
    /// More than 128 bytes.
    #[error("a user id has at most 128 bytes")]
    TooLong,
    /// A byte outside `[A-Za-z0-9_=-]`, or `=` without two upper-case hex digits, or an escape that was not
    /// needed, or bytes that are not UTF-8.
    #[error("an escaped user id is of A-Z a-z 0-9 _ - with every other byte as =XX")]
    Escape,
}

impl UserId {
    /// Checks the length.
    pub fn parse(id: &str) -> Result<Self, InvalidUserId> {
        match id.len() {
            0 => Err(InvalidUserId::Empty),
            1..=MAX_USER_ID_BYTES => Ok(Self(id.into())),
            _ => Err(InvalidUserId::TooLong),
        }
    }

    /// Reads the escaped form. Strict: the one spelling that [`UserId::escaped`] writes, so that two subjects
    /// never mean the same user.
    pub fn unescape(token: &str) -> Result<Self, InvalidUserId> {
        fn hex(digit: u8) -> Option<u8> {
            match digit {
                b'0'..=b'9' => Some(digit - b'0'),
                b'A'..=b'F' => Some(digit - b'A' + 10),
                _ => None,
            }
        }
        // Checked before anything is allocated: a header may be 64 KiB.
        if token.len() > 3 * MAX_USER_ID_BYTES {
            return Err(InvalidUserId::TooLong);
        }
        let mut id = Vec::with_capacity(token.len());
        let mut bytes = token.bytes();
        while let Some(byte) = bytes.next() {
            if is_plain(byte) {
                id.push(byte);
                continue;
            }
            let digits = (byte == b'=')
                .then(|| Some((hex(bytes.next()?)?, hex(bytes.next()?)?)))
                .flatten();
            match digits.map(|(high, low)| high << 4 | low) {
                Some(escaped) if !is_plain(escaped) => id.push(escaped),
                _ => return Err(InvalidUserId::Escape),
            }
        }
        Self::parse(std::str::from_utf8(&id).map_err(|_| InvalidUserId::Escape)?)
    }

    /// The escaped form: one subject token of at most 384 characters.
    pub fn escaped(&self) -> String {
        let mut token = String::with_capacity(self.0.len());
        for byte in self.0.bytes() {
            if is_plain(byte) {
                token.push(char::from(byte));
            } else {
                const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
                token.push('=');
                token.push(char::from(DIGITS[usize::from(byte >> 4)]));
                token.push(char::from(DIGITS[usize::from(byte & 15)]));
            }
        }
        token
    }

    /// The id itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

impl fmt::Display for UserId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "UserId({:?})", &*self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hostile_ids_become_one_token() {
        for (id, token) in [
            ("u1", "u1"),
            ("*", "=2A"),
            (">", "=3E"),
            ("a.b", "a=2Eb"),
            ("a b", "a=20b"),
            (" u1", "=20u1"),
            ("a\r\nb", "a=0D=0Ab"),
            ("=", "=3D"),
            ("==everyone", "=3D=3Deveryone"),
            ("é", "=C3=A9"),
        ] {
            let user = UserId::parse(id).unwrap();
            assert_eq!(user.escaped(), token);
            assert_eq!(UserId::unescape(token), Ok(user));
        }
    }

    #[test]
    fn only_one_spelling_is_read() {
        for token in [
            "=2a",
            "=75",
            "=",
            "=2",
            "=zz",
            "a.b",
            "a b",
            " u1",
            "u1 ",
            "*",
            "==everyone",
            "=FF",
        ] {
            assert_eq!(UserId::unescape(token), Err(InvalidUserId::Escape), "{token:?}");
        }
        assert_eq!(UserId::unescape(""), Err(InvalidUserId::Empty));
    }

    #[test]
    fn length_is_counted_before_escaping() {
        assert!(UserId::unescape(&"=2E".repeat(128)).is_ok());
        assert_eq!(UserId::unescape(&"=2E".repeat(129)), Err(InvalidUserId::TooLong));
        assert_eq!(UserId::parse(&"x".repeat(129)), Err(InvalidUserId::TooLong));
        assert_eq!(UserId::parse(""), Err(InvalidUserId::Empty));
    }

    proptest! {
        #[test]
        fn every_id_comes_back(id in "\\PC{1,32}") {
            let user = UserId::parse(&id).unwrap();
            let token = user.escaped();
            prop_assert!(token.bytes().all(|byte| is_plain(byte) || byte == b'='));
            prop_assert_eq!(UserId::unescape(&token), Ok(user));
        }
    }
}
