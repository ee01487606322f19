//! WebSocket, the client's half: frames out of the bytes that were read (RFC 6455), inflated where they were
//! compressed (RFC 7692). What a thousand sessions need at different times, one [`Scratch`] has for all of them.

use std::ops::ControlFlow;

use flate2::{Decompress, FlushDecompress, Status};

/// The most bytes of a message, as sent and inflated: 64 times the largest event that a router takes by default.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// What a sync-flushed message lacks at its end (RFC 7692 §7.2.1).
const FLUSH_TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming<'a> {
    Text(&'a [u8]),
    Ping(&'a [u8]),
    Close { code: u16, reason: String },
}

/// Why what came can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("a frame that RFC 6455 does not permit")]
    Frame,
    #[error("a message over {MAX_MESSAGE} bytes")]
    TooLarge,
    #[error("a compressed message that does not inflate")]
    Deflate,
}

/// Buffers that sessions share, as none needs them between two reads.
pub(super) struct Scratch {
    inflater: Decompress,
    inflated: Vec<u8>,
}

impl Scratch {
    pub(super) fn new() -> Self {
        Self {
            inflater: Decompress::new(false),
            inflated: Vec::new(),
        }
    }

    fn inflate(&mut self, message: &[u8]) -> Result<&[u8], Unreadable> {
        self.inflater.reset(false);
        self.inflated.clear();
        for mut part in [message, &FLUSH_TAIL] {
            while !part.is_empty() {
                if self.inflated.len() > MAX_MESSAGE {
                    return Err(Unreadable::TooLarge);
                }
                self.inflated.reserve(4 * part.len() + 256);
                let before = self.inflater.total_in();
                let status = self
                    .inflater
                    .decompress_vec(part, &mut self.inflated, FlushDecompress::Sync);
                match status {
                    // A final block: what follows is the tail that it did not need.
                    Ok(Status::StreamEnd) => return Ok(&self.inflated),
                    Ok(Status::Ok | Status::BufError) => {}
                    Err(_) => return Err(Unreadable::Deflate),
                }
                part = &part[(self.inflater.total_in() - before) as usize..];
            }
        }
        // All was read, but some of it may not have found room.
        while self.inflated.len() == self.inflated.capacity() {
            self.inflated.reserve(self.inflated.len());
            let more = self
                .inflater
                .decompress_vec(&[], &mut self.inflated, FlushDecompress::Sync);
            if more.is_err() {
                break;
            }
        }
        Ok(&self.inflated)
    }
}

/// One connection's frames. Between two reads it holds what is not yet whole, and mostly nothing.
#[derive(Default)]
pub(super) struct Reader {
    rest: Vec<u8>,
    /// A message in several frames, and whether it is compressed.
    message: Option<(Vec<u8>, bool)>,
}

impl Reader {
    /// With what came behind the handshake.
    pub(super) fn new(rest: Vec<u8>) -> Self {
        Self { rest, message: None }
    }

    /// Hands what is whole in `input`, after what came before it, to `take`, until that says to break off.
    ///
    /// # Errors
    /// What can't be read.
    pub(super) fn read(
        &mut self,
        input: &[u8],
        scratch: &mut Scratch,
        mut take: impl FnMut(Incoming<'_>) -> ControlFlow<()>,
    ) -> Result<(), Unreadable> {
        if self.rest.is_empty() {
            let read = self.whole(input, scratch, &mut take)?;
            self.rest.extend_from_slice(&input[read..]);
            return Ok(());
        }
        let mut rest = std::mem::take(&mut self.rest);
        rest.extend_from_slice(input);
        let read = self.whole(&rest, scratch, &mut take)?;
        // A buffer that is not needed is given back.
        if read < rest.len() {
            rest.drain(..read);
            self.rest = rest;
        }
        Ok(())
    }

    /// How many bytes were whole frames.
    fn whole(
        &mut self,
        input: &[u8],
        scratch: &mut Scratch,
        take: &mut impl FnMut(Incoming<'_>) -> ControlFlow<()>,
    ) -> Result<usize, Unreadable> {
        let mut at = 0;
        while let Some(WireFrame { first, payload, end }) = frame(&input[at..])? {
            at += end;
            let (is_final, compressed) = (first & 0x80 != 0, first & 0x40 != 0);
            if first & 0x30 != 0 {
                return Err(Unreadable::Frame);
            }
            let flow = match (first & 0x0f, &mut self.message) {
                (TEXT, None) if is_final => text(payload, compressed, scratch, take)?,
                (TEXT, None) => {
                    self.message = Some((payload.to_vec(), compressed));
                    ControlFlow::Continue(())
                }
                (CONTINUATION, Some((message, _))) if !compressed => {
                    if message.len() + payload.len() > MAX_MESSAGE {
                        return Err(Unreadable::TooLarge);
                    }
                    message.extend_from_slice(payload);
                    match self.message.take_if(|_| is_final) {
                        Some((message, compressed)) => text(&message, compressed, scratch, take)?,
                        None => ControlFlow::Continue(()),
                    }
                }
                (PING, _) if is_final => take(Incoming::Ping(payload)),
                (PONG, _) if is_final => ControlFlow::Continue(()),
                (CLOSE, _) if is_final => {
                    let (code, reason) = match *payload {
                        [high, low, ref reason @ ..] => (u16::from_be_bytes([high, low]), reason),
                        _ => (1005, &[][..]),
                    };
                    let reason = String::from_utf8_lossy(reason).into_owned();
                    take(Incoming::Close { code, reason })
                }
                _ => return Err(Unreadable::Frame),
            };
            if flow.is_break() {
                break;
            }
        }
        Ok(at)
    }
}

fn text(
    payload: &[u8],
    compressed: bool,
    scratch: &mut Scratch,
    take: &mut impl FnMut(Incoming<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, Unreadable> {
    let text = if compressed {
        scratch.inflate(payload)?
    } else {
        payload
    };
    Ok(take(Incoming::Text(text)))
}

/// A frame as it came.
struct WireFrame<'a> {
    /// Whether it is the last of its message, extensions, and what it is.
    first: u8,
    payload: &'a [u8],
    /// Where it ends.
    end: usize,
}

/// The frame at the start of `input`, if all of it is there.
fn frame(input: &[u8]) -> Result<Option<WireFrame<'_>>, Unreadable> {
    let (first, start, length) = match *input {
        [_, length, ..] if length & 0x80 != 0 => return Err(Unreadable::Frame),
        [first, length @ 0..=125, ..] => (first, 2, u64::from(length)),
        [first, 126, high, low, ..] => (first, 4, u64::from(u16::from_be_bytes([high, low]))),
        [first, 127, a, b, c, d, e, f, g, h, ..] => (first, 10, u64::from_be_bytes([a, b, c, d, e, f, g, h])),
        _ => return Ok(None),
    };
    if length > MAX_MESSAGE as u64 {
        return Err(Unreadable::TooLarge);
    }
    let end = start + length as usize;
    let payload = input.get(start..end);
    Ok(payload.map(|payload| WireFrame { first, payload, end }))
}

/// A text frame as clients send it.
pub(super) fn text_frame(text: &str) -> Vec<u8> {
    masked(TEXT, text.as_bytes())
}

/// The answer to a ping.
pub(super) fn pong_frame(payload: &[u8]) -> Vec<u8> {
    masked(PONG, payload)
}

/// A goodbye.
pub(super) fn close_frame(code: u16) -> Vec<u8> {
    masked(CLOSE, &code.to_be_bytes())
}

fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length => {
            // What a client says is far below 64 KiB.
            let length = u16::try_from(length).expect("a small message");
            frame.push(0x80 | 126);
            frame.extend_from_slice(&length.to_be_bytes());
        }
    }
    let mask: [u8; 4] = rand::random();
    frame.extend_from_slice(&mask);
    frame.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

#[cfg(test)]
mod tests {
    use rivulet_router::websocket::{
        Decoder, FrameBuilder, Incoming as FromClient, MessageKind, compressed_frame, ping_frame,
        text_frame as server_text,
    };

    use super::*;

    /// What comes of these bytes when they come in pieces of so many.
    fn read(bytes: &[u8], piece: usize) -> Result<Vec<String>, Unreadable> {
        let (mut reader, mut scratch, mut read) = (Reader::default(), Scratch::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            reader.read(piece, &mut scratch, |incoming| {
                read.push(match incoming {
                    Incoming::Text(text) => String::from_utf8(text.to_vec()).unwrap(),
                    other => format!("{other:?}"),
                });
                ControlFlow::Continue(())
            })?;
        }
        assert!(reader.rest.is_empty() && reader.rest.capacity() == 0);
        Ok(read)
    }

    fn server_frame(text: &str) -> Vec<u8> {
        let mut frame = FrameBuilder::with_capacity(text.len());
        frame.extend_from_slice(text.as_bytes());
        frame.finish(MessageKind::Text).wire().to_vec()
    }

    #[test]
    fn the_routers_frames_are_read_in_pieces_of_any_size() {
        let long = "x".repeat(70_000);
        let medium = "y".repeat(200);
        let mut bytes = server_text("one").to_vec();
        for text in [&medium, &long] {
            bytes.extend(server_frame(text));
            bytes.extend(compressed_frame(MessageKind::Text, text.as_bytes(), 1).unwrap());
        }
        bytes.extend(ping_frame(b"there?"));
        bytes.extend(rivulet_router::websocket::close_frame(1001, "going away"));
        let expected = [
            "one",
            &medium,
            &medium,
            &long,
            &long,
            "Ping([116, 104, 101, 114, 101, 63])",
            r#"Close { code: 1001, reason: "going away" }"#,
        ];
        for piece in [1, 7, 1000, bytes.len()] {
            assert_eq!(read(&bytes, piece).unwrap(), expected, "{piece}");
        }
    }

    #[test]
    fn what_shrinks_a_thousand_times_inflates_whole() {
        let text = "z".repeat(1_000_000);
        let frame = compressed_frame(MessageKind::Text, text.as_bytes(), 6).unwrap();
        assert_eq!(read(&frame, frame.len()).unwrap(), [text]);
    }

    #[test]
    fn messages_may_come_in_parts_with_a_ping_between() {
        let bytes = [
            &[0x01, 2, b'a', b'b', 0x89, 0, 0x00, 1, b'c', 0x80, 1, b'd'][..],
            &[0x81, 1, b'e'],
        ];
        assert_eq!(read(&bytes.concat(), 3).unwrap(), ["Ping([])", "abcd", "e"]);
    }

    #[test]
    fn what_no_server_may_send_is_refused() {
        let frame = Err(Unreadable::Frame);
        assert_eq!(read(&[0x81, 0x81, 0, 0, 0, 0, 0], 9), frame);
        assert_eq!(read(&[0x91, 0], 9), frame);
        assert_eq!(read(&[0x80, 0], 9), frame);
        assert_eq!(read(&[0x82, 0], 9), frame);
        assert_eq!(read(&[0x01, 0, 0x81, 0], 9), frame);
        let large = [0x81, 127, 0, 0, 0, 1, 0, 0, 0, 0];
        assert_eq!(read(&large, 10), Err(Unreadable::TooLarge));
        assert_eq!(read(&[0xc1, 2, 0xff, 0xff], 9), Err(Unreadable::Deflate));
    }

    #[test]
    fn the_router_reads_what_we_send() {
        let mut decoder = Decoder::new(65_536);
        let long = "l".repeat(1_000);
        for text in ["", "short", &long] {
            let mut input = text_frame(text).as_slice().into();
            let Ok(Some(FromClient::Text(read))) = decoder.decode(&mut input) else {
                panic!("{text}");
            };
            assert_eq!(read.as_str(), text);
        }
        let mut input = pong_frame(b"p").as_slice().into();
        assert!(matches!(
            decoder.decode(&mut input),
            Ok(Some(FromClient::Pong(_)))
        ));
        let mut input = close_frame(1000).as_slice().into();
        assert!(matches!(
            decoder.decode(&mut input),
            Ok(Some(FromClient::Close { .. }))
        ));
    }
}
