//! Text that is known to be UTF-8, without a copy.

use std::fmt;

use bytes::{Bytes, BytesMut};

use super::error::ProtocolError;

/// Bytes that were checked to be UTF-8: cheap to clone and to keep.
///
/// It may share the buffer that the socket was read into, so what is kept for long should be copied.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Utf8(Bytes);

impl Utf8 {
    /// The text. Walks it once more, as telling the compiler that it was checked would take `unsafe`:
    /// 27 µs a megabyte of ASCII. Who parses bytes anyway takes [`Utf8::as_bytes`].
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("was checked when it was made")
    }

    /// The text's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text's bytes, shared.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl TryFrom<Bytes> for Utf8 {
    type Error = ProtocolError;

    fn try_from(bytes: Bytes) -> Result<Self, ProtocolError> {
        match std::str::from_utf8(&bytes) {
            Ok(_) => Ok(Self(bytes)),
            Err(_) => Err(ProtocolError::NotUtf8),
        }
    }
}

impl fmt::Debug for Utf8 {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), out)
    }
}

/// Text that is still coming in, checked as it comes so that what can't become UTF-8 is refused at once.
#[derive(Debug, Default)]
pub(super) struct IncomingText {
    bytes: BytesMut,
    /// How many of `bytes` are checked; at most 3 more may be the beginning of a character.
    checked: usize,
}

impl IncomingText {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn push(&mut self, more: &[u8]) -> Result<(), ProtocolError> {
        self.bytes.extend_from_slice(more);
        match std::str::from_utf8(&self.bytes[self.checked..]) {
            Ok(text) => self.checked += text.len(),
            Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
            Err(_) => return Err(ProtocolError::NotUtf8),
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Utf8, ProtocolError> {
        if self.checked == self.bytes.len() {
            Ok(Utf8(self.bytes.freeze()))
        } else {
            Err(ProtocolError::NotUtf8)
        }
    }
}
