//! permessage-deflate without context takeover (RFC 7692 §7.2): every message for itself.
//!
//! One compressor and one inflater per thread, reset for each message: a connection keeps neither, and a frame
//! that was compressed once serves all of them.

use std::cell::RefCell;

use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::error::ProtocolError;

/// How a sync-flushed message ends, and what is not sent of it (RFC 7692 §7.2.1).
const FLUSH_TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// What is read after a message: the tail that was not sent, then an empty final block. After a whole message
/// the inflater sees that block end and makes nothing of either; of one that was cut it takes them for data.
const WHOLE_TAIL: [u8; 9] = [0x00, 0x00, 0xff, 0xff, 0x01, 0x00, 0x00, 0xff, 0xff];

/// A scratch buffer that grew beyond this many bytes is given back.
const SCRATCH_BYTES: usize = 64 * 1024;

/// What a message is inflated into at first; doubled as needed, up to the cap.
const FIRST_OUTPUT_BYTES: usize = 1024;

thread_local! {
    static DEFLATER: RefCell<Option<Deflater>> = const { RefCell::new(None) };
    static INFLATER: RefCell<Option<Decompress>> = const { RefCell::new(None) };
}

struct Deflater {
    level: u32,
    compress: Compress,
    scratch: Vec<u8>,
}

impl Deflater {
    fn new(level: u32) -> Self {
        Self {
            level,
            compress: Compress::new(Compression::new(level), false),
            scratch: Vec::new(),
        }
    }
}

/// Compresses one message and hands its bytes to `take`; `None` when they would not be fewer.
pub(super) fn deflate<T>(message: &[u8], level: u32, take: impl FnOnce(&[u8]) -> T) -> Option<T> {
    DEFLATER.with_borrow_mut(|slot| {
        if slot.as_ref().is_some_and(|deflater| deflater.level != level) {
            *slot = None;
        }
        let Deflater {
            compress, scratch, ..
        } = slot.get_or_insert_with(|| Deflater::new(level));
        compress.reset();
        scratch.clear();
        // What fills all this room is not smaller than the message; what leaves a byte free was flushed whole.
        let room = message.len() + FLUSH_TAIL.len();
        scratch.reserve_exact(room);
        let flushed = compress
            .compress_vec(message, scratch, FlushCompress::Sync)
            .is_ok();
        let taken = if flushed && scratch.len() < room {
            scratch.strip_suffix(&FLUSH_TAIL).map(take)
        } else {
            None
        };
        if scratch.capacity() > SCRATCH_BYTES {
            *scratch = Vec::new();
        }
        // Over a reset, zlib-rs 0.6.8 keeps its place in output that found no room, and panics in the next large
        // message. Making a new compressor costs less than a microsecond more than resetting one.
        if taken.is_none() {
            *slot = None;
        }
        taken
    })
}

/// Inflates one message; never makes more than `most` bytes of it, and one to notice that there are more.
pub(super) fn inflate(message: &[u8], most: usize) -> Result<Bytes, ProtocolError> {
    INFLATER.with_borrow_mut(|slot| {
        let inflater = slot.get_or_insert_with(|| Decompress::new(false));
        let mut inflated = Vec::with_capacity(FIRST_OUTPUT_BYTES.min(most.saturating_add(1)));
        inflater.reset(false);
        if inflate_part(inflater, message, &mut inflated, most)? {
            return Ok(Bytes::from(inflated));
        }
        let message_bytes = inflated.len();
        if inflate_part(inflater, &WHOLE_TAIL, &mut inflated, most)? && inflated.len() == message_bytes {
            Ok(Bytes::from(inflated))
        } else {
            Err(ProtocolError::BadDeflate)
        }
    })
}

/// Inflates all of `input`, and says whether it ended where a final block ended. More blocks may follow a
/// final one (RFC 7692 §7.2.1); the window starts anew then.
fn inflate_part(
    inflater: &mut Decompress,
    mut input: &[u8],
    inflated: &mut Vec<u8>,
    most: usize,
) -> Result<bool, ProtocolError> {
    loop {
        if inflated.len() == inflated.capacity() {
            inflated.reserve_exact(inflated.len().min((most - inflated.len()).saturating_add(1)));
        }
        let before = inflater.total_in();
        let status = inflater
            .decompress_vec(input, inflated, FlushDecompress::Sync)
            .map_err(|_| ProtocolError::BadDeflate)?;
        // At most `input.len()`, so it fits.
        let read = (inflater.total_in() - before) as usize;
        input = &input[read..];
        if inflated.len() > most {
            return Err(ProtocolError::TooLarge);
        }
        match status {
            Status::StreamEnd => {
                inflater.reset(false);
                if input.is_empty() {
                    return Ok(true);
                }
            }
            // A full output may hide more of it.
            Status::Ok | Status::BufError if inflated.len() == inflated.capacity() => {}
            Status::Ok | Status::BufError if input.is_empty() => return Ok(false),
            // Room and input both left, and nothing moved.
            Status::Ok | Status::BufError if read == 0 => return Err(ProtocolError::BadDeflate),
            Status::Ok | Status::BufError => {}
        }
    }
}
