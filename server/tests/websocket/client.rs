//! The client's half, as raw as a test wants it.

use bytes::{Bytes, BytesMut};
use flate2::{Compress, Compression, FlushCompress};
use rivulet_router::websocket::{Decoder, Incoming, ProtocolError, Utf8};

pub(crate) const FIN: u8 = 0x80;
pub(crate) const RSV1: u8 = 0x40;
pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xa;

/// The mask of RFC 6455 §5.7.
pub(crate) const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame with this first byte, masked, its length in as few bytes as can be.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    masked_frame(first, MASK, payload)
}

pub(crate) fn masked_frame(first: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length @ 126..65536 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(
        payload
            .iter()
            .zip(mask.into_iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

/// All that a client sent, up to the first error.
pub(crate) type Outcome = (Vec<Incoming>, Option<ProtocolError>);

/// Decodes what comes in these pieces, and checks that it ends for good where it ends.
pub(crate) fn decode<'a>(mut decoder: Decoder, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut incoming = Vec::new();
    let mut error = None;
    let mut input = BytesMut::new();
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(item)) => {
                    assert!(error.is_none(), "{item:?} came after {error:?}");
                    incoming.push(item);
                }
                Ok(None) => break,
                Err(first) => {
                    assert!(error.is_none(), "{first:?} came after {error:?}");
                    error = Some(first);
                }
            }
        }
        assert!(input.len() < 140, "{} bytes stayed in the input", input.len());
    }
    (incoming, error)
}

pub(crate) fn text(text: &str) -> Incoming {
    Incoming::Text(Utf8::try_from(Bytes::copy_from_slice(text.as_bytes())).expect("a str"))
}

pub(crate) fn binary(bytes: &[u8]) -> Incoming {
    Incoming::Binary(Bytes::copy_from_slice(bytes))
}

pub(crate) fn ping(bytes: &[u8]) -> Incoming {
    Incoming::Ping(Bytes::copy_from_slice(bytes))
}

pub(crate) fn pong(bytes: &[u8]) -> Incoming {
    Incoming::Pong(Bytes::copy_from_slice(bytes))
}

pub(crate) fn close(code: impl Into<Option<u16>>, reason: &str) -> Incoming {
    let reason = Utf8::try_from(Bytes::copy_from_slice(reason.as_bytes())).expect("a str");
    Incoming::Close {
        code: code.into(),
        reason,
    }
}

/// What a client compresses, as RFC 7692 §7.2.1 has it: flushed, without the last four bytes.
pub(crate) fn deflated(message: &[u8], level: u32) -> Vec<u8> {
    let mut compress = Compress::new(Compression::new(level), false);
    let mut out = Vec::with_capacity(message.len() + message.len() / 8 + 64);
    compress
        .compress_vec(message, &mut out, FlushCompress::Sync)
        .expect("room enough");
    assert!(out.ends_with(&[0, 0, 0xff, 0xff]), "flushed");
    out.truncate(out.len() - 4);
    out
}

/// What no compressor makes smaller; the same bytes every time.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
    .take(length)
    .collect()
}
