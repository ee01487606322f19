//! From payloads to frames. Server frames carry no mask (RFC 6455 §5.1), so one frame serves every connection.

use std::io;

use bytes::{Buf, Bytes};

use super::deflate::deflate;
use super::header::{CONTROL_PAYLOAD_BYTES, Opcode, UNMASKED_HEADER_BYTES, write_unmasked};

/// The bytes of a close frame's payload that its code takes.
const CLOSE_CODE_BYTES: usize = 2;

/// The highest level that deflate knows.
const MAX_LEVEL: u8 = 9;

/// What a message's payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

impl From<MessageKind> for Opcode {
    fn from(kind: MessageKind) -> Self {
        match kind {
            MessageKind::Text => Self::Text,
            MessageKind::Binary => Self::Binary,
        }
    }
}

/// A whole message in one frame: the header and the payload behind it, in one shared buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    wire: Bytes,
    header_bytes: usize,
}

impl Frame {
    /// What is written to the socket.
    pub fn wire(&self) -> &Bytes {
        &self.wire
    }

    /// The message without its header.
    pub fn payload(&self) -> &[u8] {
        &self.wire[self.header_bytes..]
    }

    /// What is written to the socket, without counting a reference.
    pub fn into_wire(self) -> Bytes {
        self.wire
    }
}

/// Builds a frame in place: room for the header is kept in front of the payload, which is written once.
///
/// What is written must be UTF-8 where the frame is to be text; it is not checked here.
#[derive(Debug)]
pub struct FrameBuilder {
    buffer: Vec<u8>,
}

impl FrameBuilder {
    /// A builder for a payload of about `payload_bytes`: it may grow beyond, and what is left over stays
    /// allocated as long as the frame.
    pub fn with_capacity(payload_bytes: usize) -> Self {
        let mut buffer = Vec::with_capacity(UNMASKED_HEADER_BYTES + payload_bytes);
        buffer.extend_from_slice(&[0; UNMASKED_HEADER_BYTES]);
        Self { buffer }
    }

    /// Appends to the payload.
    pub fn extend_from_slice(&mut self, more: &[u8]) {
        self.buffer.extend_from_slice(more);
    }

    /// What was written so far.
    pub fn payload(&self) -> &[u8] {
        &self.buffer[UNMASKED_HEADER_BYTES..]
    }

    /// Puts the header in front.
    pub fn finish(self, kind: MessageKind) -> Frame {
        self.finish_as(kind.into(), false)
    }

    fn finish_as(mut self, opcode: Opcode, compressed: bool) -> Frame {
        let payload_bytes = self.payload().len();
        let room = self.buffer.first_chunk_mut().expect("room was made first");
        let unused = write_unmasked(room, opcode, compressed, payload_bytes);
        let mut wire = Bytes::from(self.buffer);
        wire.advance(unused);
        Frame {
            wire,
            header_bytes: UNMASKED_HEADER_BYTES - unused,
        }
    }
}

/// For serializers that write to an [`io::Write`]; never fails.
impl io::Write for FrameBuilder {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        self.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A text message in one frame.
pub fn text_frame(payload: &str) -> Bytes {
    framed(Opcode::Text, false, &[payload.as_bytes()])
}

/// A message in one frame, compressed for whoever negotiated permessage-deflate: no connection's context is
/// in it. `None` when it would not get smaller.
///
/// `level` is deflate's, 1 to 9. Level 1 is two to four times as fast as level 6, which makes 2 KB of JSON up to
/// a third smaller.
pub fn compressed_frame(kind: MessageKind, payload: &[u8], level: u8) -> Option<Bytes> {
    deflate(payload, u32::from(level.min(MAX_LEVEL)), |compressed| {
        framed(kind.into(), true, &[compressed])
    })
}

/// A ping. Panics when `payload` is over 125 bytes.
pub fn ping_frame(payload: &[u8]) -> Bytes {
    control_frame(Opcode::Ping, &[payload])
}

/// The answer to a ping: a pong with the ping's payload. Panics when `payload` is over 125 bytes, which no
/// [`Incoming::Ping`](super::Incoming::Ping) is.
pub fn pong_frame(payload: &[u8]) -> Bytes {
    control_frame(Opcode::Pong, &[payload])
}

/// A close frame. Of a reason over 123 bytes only the whole characters within them are sent.
pub fn close_frame(code: u16, reason: &str) -> Bytes {
    let reason = &reason[..reason.floor_char_boundary(CONTROL_PAYLOAD_BYTES - CLOSE_CODE_BYTES)];
    control_frame(Opcode::Close, &[&code.to_be_bytes(), reason.as_bytes()])
}

fn control_frame(opcode: Opcode, payload: &[&[u8]]) -> Bytes {
    let payload_bytes: usize = payload.iter().map(|part| part.len()).sum();
    assert!(
        payload_bytes <= CONTROL_PAYLOAD_BYTES,
        "a control frame of {payload_bytes} bytes"
    );
    framed(opcode, false, payload)
}

fn framed(opcode: Opcode, compressed: bool, payload: &[&[u8]]) -> Bytes {
    let mut builder = FrameBuilder::with_capacity(payload.iter().map(|part| part.len()).sum());
    for part in payload {
        builder.extend_from_slice(part);
    }
    builder.finish_as(opcode, compressed).into_wire()
}
