//! Whatever a client sends, in whatever pieces: the decoder ends in messages or in an error, the same for every
//! way to cut the bytes, and holds no more than its cap.
//!
//! The input's first byte says whether deflate was agreed on, the next three how long the pieces are in turn
//! (0: all the rest), and what follows is what the client sends.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;
use rivulet_router::websocket::{Decoder, Incoming, ProtocolError};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

const MAX_MESSAGE_BYTES: usize = 16 * 1024;

/// The one inflater of the thread, and both outputs while one grows into the other.
const OVERHEAD_BYTES: usize = 64 * 1024 + 2 * MAX_MESSAGE_BYTES;

/// An item decoded from at least 6 bytes takes less than this for each of them, the messages' list doubling.
const BYTES_PER_BYTE: usize = 40;

fuzz_target!(|input: &[u8]| {
    let Some((&[deflate, lengths @ ..], bytes)) = input.split_first_chunk::<4>() else {
        return;
    };
    let deflate = deflate & 1 == 1;
    let whole = decode(deflate, [bytes]);
    assert_eq!(
        decode(deflate, pieces(bytes, lengths)),
        whole,
        "the pieces made a difference"
    );
});

fn decode<'a>(
    deflate: bool,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Incoming>, Option<ProtocolError>) {
    let mut decoder = Decoder::new(MAX_MESSAGE_BYTES).with_deflate(deflate);
    let mut input = BytesMut::new();
    let mut incoming = Vec::new();
    for piece in pieces {
        input.extend_from_slice(piece);
        let before = ALLOCATED.current_usage();
        ALLOCATED.reset_peak_usage();
        let mut bound = before + OVERHEAD_BYTES + BYTES_PER_BYTE * input.len();
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(item)) => {
                    check(&item);
                    // Kept here, in a buffer that may have grown to twice of it. It may have come out of few bytes.
                    bound += 2 * length(&item);
                    incoming.push(item);
                }
                Ok(None) => break,
                Err(error) => return (incoming, Some(error)),
            }
        }
        assert!(
            ALLOCATED.peak_usage() <= bound,
            "{} bytes over {before}",
            ALLOCATED.peak_usage() - before
        );
        assert!(input.len() < 140, "{} bytes left over", input.len());
    }
    (incoming, None)
}

fn check(item: &Incoming) {
    match item {
        Incoming::Text(text) => assert!(text.as_str().len() <= MAX_MESSAGE_BYTES),
        Incoming::Binary(bytes) => assert!(bytes.len() <= MAX_MESSAGE_BYTES),
        Incoming::Ping(payload) | Incoming::Pong(payload) => assert!(payload.len() <= 125),
        Incoming::Close { reason, .. } => assert!(reason.as_str().len() <= 123),
    }
}

fn length(item: &Incoming) -> usize {
    match item {
        Incoming::Text(text) => text.as_str().len(),
        Incoming::Binary(bytes) | Incoming::Ping(bytes) | Incoming::Pong(bytes) => bytes.len(),
        Incoming::Close { reason, .. } => reason.as_str().len(),
    }
}

/// `bytes` cut into pieces of these lengths, in turn.
fn pieces(mut bytes: &[u8], lengths: [u8; 3]) -> impl Iterator<Item = &[u8]> {
    let mut lengths = lengths.into_iter().cycle();
    std::iter::from_fn(move || {
        let length = match usize::from(lengths.next()?) {
            0 => bytes.len(),
            length => length.min(bytes.len()),
        };
        let (piece, rest) = bytes.split_at(length);
        bytes = rest;
        (!piece.is_empty()).then_some(piece)
    })
}
