//! Compressed frames, against an inflater that knows nothing of ours.

use flate2::{Decompress, FlushDecompress};
use proptest::prelude::*;
use rivulet_router::websocket::{Decoder, MessageKind, compressed_frame};

use crate::client::*;

/// The first byte and the payload of a whole, unmasked frame.
fn read_frame(frame: &[u8]) -> (u8, &[u8]) {
    let (length, payload) = match frame[1] {
        126 => (usize::from(u16::from_be_bytes([frame[2], frame[3]])), &frame[4..]),
        127 => (
            u64::from_be_bytes(frame[2..10].try_into().expect("8 bytes")) as usize,
            &frame[10..],
        ),
        short => (usize::from(short), &frame[2..]),
    };
    assert_eq!(payload.len(), length, "as long as the header says");
    (frame[0], payload)
}

/// RFC 7692 §7.2.2, with an inflater of its own for each message.
fn inflated(payload: &[u8], most: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(most + 64);
    Decompress::new(false)
        .decompress_vec(
            &[payload, &[0, 0, 0xff, 0xff]].concat(),
            &mut out,
            FlushDecompress::Sync,
        )
        .expect("deflate data");
    out
}

/// Text that compresses about as well as JSON does.
fn prose() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop::sample::select(vec!["{\"type\":", "\"blob.created\"", "été", "0.25", ",", "🦀"]),
        0..2000,
    )
    .prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_compressed_frame_is_smaller_and_stands_for_itself(messages in prop::collection::vec(prose(), 1..4), level in 1u8..=9) {
        for message in messages {
            let Some(frame) = compressed_frame(MessageKind::Text, message.as_bytes(), level) else {
                prop_assert!(message.len() < 64, "{} bytes of prose did not shrink", message.len());
                continue;
            };
            let (first, payload) = read_frame(&frame);
            prop_assert_eq!(first, FIN | RSV1 | TEXT);
            prop_assert!(payload.len() < message.len());
            prop_assert_eq!(inflated(payload, message.len()), message.as_bytes());
        }
    }

    #[test]
    fn what_does_not_shrink_is_not_compressed(noise in prop::collection::vec(any::<u8>(), 0..600)) {
        match compressed_frame(MessageKind::Binary, &noise, 1) {
            Some(frame) => {
                let (first, payload) = read_frame(&frame);
                prop_assert_eq!(first, FIN | RSV1 | BINARY);
                prop_assert!(payload.len() < noise.len());
                prop_assert_eq!(inflated(payload, noise.len()), noise);
            }
            None => prop_assert!(deflated(&noise, 1).len() >= noise.len()),
        }
    }

    #[test]
    fn what_a_client_compresses_is_what_comes_out(
        messages in prop::collection::vec((prose(), 0u32..=9, 1usize..500), 1..4),
        piece in 1usize..300,
    ) {
        let mut bytes = Vec::new();
        for (message, level, fragment) in &messages {
            let compressed = deflated(message.as_bytes(), *level);
            let last = compressed.chunks(*fragment).count() - 1;
            for (place, chunk) in compressed.chunks(*fragment).enumerate() {
                let first = if place == 0 { RSV1 | TEXT } else { CONTINUATION };
                bytes.extend(frame(if place == last { FIN | first } else { first }, chunk));
            }
        }
        let (incoming, error) = decode(Decoder::new(1 << 20).with_deflate(true), bytes.chunks(piece));
        prop_assert_eq!(error, None);
        prop_assert_eq!(incoming, messages.iter().map(|(message, ..)| text(message)).collect::<Vec<_>>());
    }

    #[test]
    fn a_compressed_message_that_was_cut_never_passes_for_whole(message in prose(), level in 1u32..=9, keep in any::<prop::sample::Index>()) {
        let compressed = deflated(message.as_bytes(), level);
        let cut = &compressed[..keep.index(compressed.len())];
        let (incoming, error) = decode(Decoder::new(1 << 20).with_deflate(true), [&frame(FIN | RSV1 | TEXT, cut)[..]]);
        // Cutting the last zero bits of a flush leaves the message whole where they only fill up a byte.
        let (whole, _) = decode(Decoder::new(1 << 20).with_deflate(true), [&frame(FIN | RSV1 | TEXT, &compressed)[..]]);
        prop_assert!(error.is_some() || incoming == whole, "{incoming:?}");
    }
}

/// zlib-rs panicked here when the message before had not been given room enough.
#[test]
fn a_large_message_is_compressed_after_one_that_does_not_shrink() {
    let noise = noise(300_000);
    for level in 1..=9 {
        for length in [100, 10_000, 70_000, 131_072, 300_000] {
            for _ in 0..2 {
                let compressed = compressed_frame(MessageKind::Binary, &noise[..length], level);
                assert_eq!(compressed, None, "level {level}, {length} bytes");
            }
            let prose = "{\"type\":\"blob.created\"}".repeat(length / 20);
            let compressed = compressed_frame(MessageKind::Text, prose.as_bytes(), level).expect("shrinks");
            assert_eq!(inflated(read_frame(&compressed).1, prose.len()), prose.as_bytes());
        }
    }
}

#[test]
fn a_message_of_4_megabytes_is_compressed_and_inflated() {
    let message = "{\"type\":\"blob.created\",\"seq\":4711}".repeat(120_000);
    let compressed = compressed_frame(MessageKind::Text, message.as_bytes(), 1).expect("shrinks");
    let (_, payload) = read_frame(&compressed);
    let (incoming, error) = decode(
        Decoder::new(message.len()).with_deflate(true),
        [&frame(FIN | RSV1 | TEXT, payload)[..]],
    );
    assert_eq!((incoming, error), (vec![text(&message)], None));
}
