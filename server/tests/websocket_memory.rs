//! What a stranger can make the decoder allocate. Alone in its binary, as it counts every byte of the process.

use bytes::BytesMut;
use flate2::{Compress, Compression, FlushCompress};
use peak_alloc::PeakAlloc;
use rivulet_router::websocket::{Decoder, ProtocolError};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

const KIB: usize = 1024;
const MAX_MESSAGE_BYTES: usize = 64 * KIB;

/// What one inflater takes, and one for each thread is all there are.
const INFLATER_BYTES: usize = 64 * KIB;

/// Peak and final growth while `work` runs, in bytes.
fn growth<T>(work: impl FnOnce() -> T) -> (T, usize, usize) {
    let before = ALLOCATED.current_usage();
    ALLOCATED.reset_peak_usage();
    let result = work();
    let peak = ALLOCATED.peak_usage().saturating_sub(before);
    (result, peak, ALLOCATED.current_usage().saturating_sub(before))
}

/// A frame of 126 bytes or more, with a mask of zeros.
fn frame(first: u8, payload: &[u8]) -> BytesMut {
    let mut frame = BytesMut::from(&[first][..]);
    if let Ok(length) = u16::try_from(payload.len()) {
        frame.extend_from_slice(&[0xfe]);
        frame.extend_from_slice(&length.to_be_bytes());
    } else {
        frame.extend_from_slice(&[0xff]);
        frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

fn bomb(inflated_bytes: usize) -> Vec<u8> {
    let mut compress = Compress::new(Compression::best(), false);
    let mut out = Vec::with_capacity(inflated_bytes / 500);
    let zeros = vec![0; inflated_bytes];
    compress
        .compress_vec(&zeros, &mut out, FlushCompress::Sync)
        .expect("room enough");
    out.truncate(out.len() - 4);
    out
}

#[test]
fn memory_stays_within_the_cap() {
    a_bomb_is_refused_before_it_grows();
    an_announced_length_allocates_nothing();
    tiny_fragments_cost_what_they_hold();
    an_idle_decoder_holds_nothing();
}

fn a_bomb_is_refused_before_it_grows() {
    // About 65 KB, as much as fits under the cap, and 64 MiB once inflated: 1 to 1,000.
    let bomb = bomb(64 * KIB * KIB);
    assert!(
        (60 * KIB..MAX_MESSAGE_BYTES).contains(&bomb.len()),
        "a bomb of {} bytes",
        bomb.len()
    );
    let mut input = frame(0xc2, &bomb);
    let mut decoder = Decoder::new(MAX_MESSAGE_BYTES).with_deflate(true);
    let (result, peak, _) = growth(|| decoder.decode(&mut input));
    assert_eq!(result, Err(ProtocolError::TooLarge));
    // The last doubling holds the old and the new output at once.
    assert!(
        peak <= 2 * MAX_MESSAGE_BYTES + INFLATER_BYTES,
        "a bomb took {peak} bytes"
    );
}

fn an_announced_length_allocates_nothing() {
    let mut decoder = Decoder::new(64 * KIB * KIB);
    let mut input = frame(0x82, &[0; 100 * KIB]);
    input.truncate(14 + 10);
    let (result, peak, _) = growth(|| decoder.decode(&mut input));
    assert_eq!(result, Ok(None));
    assert!(peak <= KIB, "a header took {peak} bytes");
}

fn tiny_fragments_cost_what_they_hold() {
    let mut decoder = Decoder::new(MAX_MESSAGE_BYTES);
    let mut input = BytesMut::with_capacity(4 * KIB);
    let (error, peak, left) = growth(|| {
        let mut first = 0x02;
        loop {
            while input.len() < 3 * KIB {
                input.extend_from_slice(&[first, 0x81, 0, 0, 0, 0, 7]);
                first = 0;
            }
            match decoder.decode(&mut input) {
                Ok(incoming) => assert_eq!(incoming, None),
                Err(error) => break error,
            }
        }
    });
    assert_eq!(error, ProtocolError::TooManyFragments);
    assert!(
        peak <= 3 * MAX_MESSAGE_BYTES / 8,
        "fragments of a byte took {peak} bytes"
    );
    assert!(left <= 4 * KIB, "an error left {left} bytes behind");
}

fn an_idle_decoder_holds_nothing() {
    let mut decoder = Decoder::new(MAX_MESSAGE_BYTES).with_deflate(true);
    let (_, _, left) = growth(|| {
        for first in [0x81, 0x82, 0xc1] {
            // In two pieces, so that the first has to be kept.
            let payload = if first == 0xc1 {
                stored()
            } else {
                vec![b'x'; MAX_MESSAGE_BYTES]
            };
            let mut rest = frame(first, &payload);
            let mut input = rest.split_to(20 * KIB);
            assert_eq!(decoder.decode(&mut input), Ok(None));
            drop(input);
            assert!(decoder.decode(&mut rest).expect("sound").is_some(), "{first:#x}");
        }
    });
    assert!(left <= INFLATER_BYTES, "{left} bytes stayed behind");
    let (_, _, again) = growth(|| {
        let mut input = frame(0xc1, &stored());
        assert!(decoder.decode(&mut input).expect("sound").is_some());
    });
    assert_eq!(again, 0, "a message left bytes behind");
}

/// A whole message of the cap's size that takes more than that compressed.
fn stored() -> Vec<u8> {
    let mut compress = Compress::new(Compression::none(), false);
    let mut out = Vec::with_capacity(2 * MAX_MESSAGE_BYTES);
    compress
        .compress_vec(&[b'x'; MAX_MESSAGE_BYTES], &mut out, FlushCompress::Sync)
        .expect("room enough");
    out.truncate(out.len() - 4);
    out
}
