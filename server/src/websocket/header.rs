//! The header of a frame (RFC 6455 §5.2).

use super::error::ProtocolError;
use super::mask::Mask;

/// The longest payload of a control frame, in bytes (RFC 6455 §5.5).
pub(super) const CONTROL_PAYLOAD_BYTES: usize = 125;

/// The longest header of a frame without a mask, in bytes.
pub(super) const UNMASKED_HEADER_BYTES: usize = 10;

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const RSV2_AND_RSV3: u8 = 0x30;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;
const LENGTH_IN_2_BYTES: u8 = 126;
const LENGTH_IN_8_BYTES: u8 = 127;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
}

impl Opcode {
    pub(super) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// A client's frame header that keeps every rule that can be checked without knowing what came before.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) fin: bool,
    /// Only where a message begins: it is compressed (RFC 7692 §6).
    pub(super) rsv1: bool,
    pub(super) opcode: Opcode,
    pub(super) payload_bytes: u64,
    pub(super) mask: Mask,
    /// How many bytes the header itself takes.
    pub(super) bytes: usize,
}

impl Header {
    /// Reads the header that `input` begins with; `None` while it isn't all there.
    pub(super) fn parse(input: &[u8]) -> Result<Option<Self>, ProtocolError> {
        let [first, second, rest @ ..] = input else {
            return Ok(None);
        };
        if first & RSV2_AND_RSV3 != 0 {
            return Err(ProtocolError::ReservedBit);
        }
        let fin = first & FIN != 0;
        let opcode = match first & OPCODE {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xa => Opcode::Pong,
            _ => return Err(ProtocolError::ReservedOpcode),
        };
        let rsv1 = first & RSV1 != 0;
        if rsv1 && !matches!(opcode, Opcode::Text | Opcode::Binary) {
            return Err(ProtocolError::ReservedBit);
        }
        if second & MASKED == 0 {
            return Err(ProtocolError::Unmasked);
        }
        if opcode.is_control() {
            if !fin {
                return Err(ProtocolError::FragmentedControl);
            }
            if usize::from(second & LENGTH) > CONTROL_PAYLOAD_BYTES {
                return Err(ProtocolError::LongControl);
            }
        }
        let (payload_bytes, rest) = match (second & LENGTH, rest) {
            (LENGTH_IN_2_BYTES, [a, b, rest @ ..]) => {
                let length = u64::from(u16::from_be_bytes([*a, *b]));
                if length < u64::from(LENGTH_IN_2_BYTES) {
                    return Err(ProtocolError::BadLength);
                }
                (length, rest)
            }
            (LENGTH_IN_8_BYTES, [a, b, c, d, e, f, g, h, rest @ ..]) => {
                let length = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
                if length <= u64::from(u16::MAX) || length > i64::MAX.unsigned_abs() {
                    return Err(ProtocolError::BadLength);
                }
                (length, rest)
            }
            (LENGTH_IN_2_BYTES | LENGTH_IN_8_BYTES, _) => return Ok(None),
            (length, rest) => (u64::from(length), rest),
        };
        let [a, b, c, d, payload @ ..] = rest else {
            return Ok(None);
        };
        Ok(Some(Self {
            fin,
            rsv1,
            opcode,
            payload_bytes,
            mask: Mask([*a, *b, *c, *d]),
            bytes: input.len() - payload.len(),
        }))
    }
}

/// Writes the header of a whole, unmasked frame at the end of `room`, and says at which byte of it the header
/// begins.
pub(super) fn write_unmasked(
    room: &mut [u8; UNMASKED_HEADER_BYTES],
    opcode: Opcode,
    compressed: bool,
    payload_bytes: usize,
) -> usize {
    let first = FIN | if compressed { RSV1 } else { 0 } | opcode as u8;
    let length = payload_bytes as u64;
    if let Ok(short) = u8::try_from(length)
        && short < LENGTH_IN_2_BYTES
    {
        room[8..].copy_from_slice(&[first, short]);
        8
    } else if let Ok(medium) = u16::try_from(length) {
        room[6..8].copy_from_slice(&[first, LENGTH_IN_2_BYTES]);
        room[8..].copy_from_slice(&medium.to_be_bytes());
        6
    } else {
        room[..2].copy_from_slice(&[first, LENGTH_IN_8_BYTES]);
        room[2..].copy_from_slice(&length.to_be_bytes());
        0
    }
}
