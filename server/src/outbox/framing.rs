//! From a session's messages to the frames that its client takes.

use bytes::Bytes;

use crate::{config, encoded::Encoded, metrics::Sent};

/// How one connection's messages become frames.
#[derive(Clone, Copy, Debug)]
pub struct Framing {
    /// Compress messages of at least this many bytes, at this level; `None` without permessage-deflate.
    deflate: Option<(usize, u8)>,
    /// Join what was taken at a time into one array: only for clients that take arrays, and only where events
    /// linger, as an array is made for one connection alone.
    arrays: bool,
}

impl Framing {
    /// One message a frame, as it is.
    pub const PLAIN: Self = Self {
        deflate: None,
        arrays: false,
    };

    /// As the configuration has it, for a client that agreed to compression or not, and takes arrays or not.
    pub fn new(sessions: &config::Sessions, deflate: bool, takes_arrays: bool) -> Self {
        let level = u8::try_from(sessions.compression_level).unwrap_or(1);
        Self {
            deflate: deflate.then_some((sessions.compression_threshold, level)),
            arrays: takes_arrays && !sessions.linger.is_zero(),
        }
    }

    /// Joins messages into one where the client takes arrays.
    pub(super) fn join(&self, messages: &mut Vec<Encoded>) {
        if self.arrays && messages.len() > 1 {
            let array = Encoded::array(messages);
            messages.clear();
            messages.push(array);
        }
    }

    /// The frame of a message.
    pub(super) fn frame<'a>(&self, message: &'a Encoded, sent: &mut Sent<'_>) -> &'a Bytes {
        if let Some((threshold, level)) = self.deflate
            && message.payload().len() >= threshold
            && let Some(compressed) = message.compressed_frame(level)
        {
            sent.compression_in += message.frame().len() as u64;
            sent.compression_out += compressed.len() as u64;
            return compressed;
        }
        message.frame()
    }
}
