//! Frames as a server sends them (RFC 6455, section 5.2: unmasked), and the few that a client answers with.

use anyhow::{bail, ensure};

/// A frame's head and its payload.
#[derive(Debug, PartialEq)]
pub(crate) struct Frame<'a> {
    pub(crate) opcode: u8,
    pub(crate) compressed: bool,
    pub(crate) payload: &'a [u8],
}

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// Takes the next whole frame off `input`; `None` if it is not all there.
pub(crate) fn take<'a>(input: &mut &'a [u8]) -> anyhow::Result<Option<Frame<'a>>> {
    let (header, length) = match *input {
        [_, length @ 0..=125, ..] => (2, usize::from(*length)),
        [_, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([*high, *low]))),
        [_, 127, rest @ ..] if rest.len() >= 8 => {
            let length = u64::from_be_bytes(rest[..8].try_into().expect("eight"));
            (10, usize::try_from(length)?)
        }
        [_, 128..=255, ..] => bail!("a masked frame from a server"),
        _ => return Ok(None),
    };
    let first = input[0];
    ensure!(
        first & 0x80 != 0,
        "a fragment, which the bench's client does not read"
    );
    let Some(payload) = input.get(header..header + length) else {
        return Ok(None);
    };
    *input = &input[header + length..];
    Ok(Some(Frame {
        opcode: first & 0x0f,
        compressed: first & 0x40 != 0,
        payload,
    }))
}

/// A frame of a client's. The mask is 0, which is as good as any for a bench.
pub(crate) fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode];
    match payload.len() {
        short @ 0..=125 => bytes.push(0x80 | short as u8),
        length => {
            let length = u16::try_from(length).expect("the bench says nothing long");
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}
