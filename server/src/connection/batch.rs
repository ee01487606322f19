//! From what waits in the outbox to frames on the socket.

use std::time::Instant;

use bytes::Bytes;

use crate::{config, encoded::Encoded, metrics::Metrics};

/// The most messages taken at a time: as many as go into one vectored write.
pub(super) const MESSAGES: usize = 64;
/// The most bytes taken at a time, after the first message: what was taken is no longer in the outbox's bound,
/// so it is kept near what a socket's buffer takes.
pub(super) const BYTES: usize = 64 << 10;

/// How one connection's messages become frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct Framing {
    /// Compress messages of at least this many bytes, at this level; `None` without permessage-deflate.
    deflate: Option<(usize, u8)>,
    /// Join what was taken at a time into one array: only for clients that take arrays, and only where the
    /// writer lingers, as an array is made for one connection alone.
    arrays: bool,
}

impl Framing {
    pub(super) fn new(sessions: &config::Sessions, deflate: bool, takes_arrays: bool) -> Self {
        let level = u8::try_from(sessions.compression_level).unwrap_or(1);
        Self {
            deflate: deflate.then_some((sessions.compression_threshold, level)),
            arrays: takes_arrays && !sessions.linger.is_zero(),
        }
    }

    /// Hands the frames of a batch to `write`, in order, and empties it. Only of a live session's events does it
    /// tell how long they took.
    pub(super) fn write(
        &self,
        batch: &mut Vec<Encoded>,
        live: bool,
        metrics: &Metrics,
        mut write: impl FnMut(Bytes),
    ) {
        if let Some(oldest) = batch.iter().find_map(Encoded::received_at).filter(|_| live) {
            let waited = Instant::now().saturating_duration_since(oldest);
            metrics.events.delivery.observe(waited.as_secs_f64());
        }
        metrics.messages.frames_per_write.observe(batch.len() as f64);
        if self.arrays && batch.len() > 1 {
            let array = Encoded::array(batch);
            batch.clear();
            write(self.frame(&array, metrics));
            return;
        }
        for message in batch.drain(..) {
            write(self.frame(&message, metrics));
        }
    }

    fn frame(&self, message: &Encoded, metrics: &Metrics) -> Bytes {
        if let Some((threshold, level)) = self.deflate
            && message.payload().len() >= threshold
            && let Some(compressed) = message.compressed_frame(level)
        {
            metrics
                .messages
                .compression_in
                .inc_by(message.frame().len() as u64);
            metrics.messages.compression_out.inc_by(compressed.len() as u64);
            return compressed.clone();
        }
        message.frame().clone()
    }
}
