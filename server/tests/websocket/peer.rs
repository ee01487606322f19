//! tungstenite as the other end, both ways.

use std::io::{self, Cursor, Read, Write};

use bytes::Bytes;
use proptest::prelude::*;
use rivulet_router::websocket::{
    Decoder, FrameBuilder, Incoming, MessageKind, close_frame, ping_frame, pong_frame, text_frame,
};
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::{CloseFrame, Role};
use tungstenite::{Message, WebSocket};

use crate::client::*;

/// A socket in memory.
#[derive(Default)]
struct Wire {
    incoming: Cursor<Vec<u8>>,
    outgoing: Vec<u8>,
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.incoming.read(into)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            read => Ok(read),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.outgoing.write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn tungstenite(role: Role, incoming: Vec<u8>) -> WebSocket<Wire> {
    WebSocket::from_raw_socket(
        Wire {
            incoming: Cursor::new(incoming),
            outgoing: Vec::new(),
        },
        role,
        None,
    )
}

/// A message, and how long its fragments are.
#[derive(Clone, Debug)]
enum Sent {
    Text(String, usize),
    Binary(Vec<u8>, usize),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

fn sent() -> impl Strategy<Value = Sent> {
    let control = || prop::collection::vec(any::<u8>(), 0..=125);
    let data = || prop_oneof![8 => prop::collection::vec(any::<u8>(), 0..300), 1 => prop::collection::vec(any::<u8>(), 65_000..67_000)];
    prop_oneof![
        4 => (".{0,200}", 1usize..100).prop_map(|(text, fragment)| Sent::Text(text, fragment)),
        4 => (data(), 1usize..40_000).prop_map(|(bytes, fragment)| Sent::Binary(bytes, fragment)),
        1 => control().prop_map(Sent::Ping),
        1 => control().prop_map(Sent::Pong),
    ]
}

impl Sent {
    fn expected(&self) -> Incoming {
        match self {
            Self::Text(payload, _) => text(payload),
            Self::Binary(payload, _) => binary(payload),
            Self::Ping(payload) => ping(payload),
            Self::Pong(payload) => pong(payload),
        }
    }

    /// Its frames, as tungstenite builds them, with a ping between each two fragments.
    fn frames(&self) -> Vec<Frame> {
        let (kind, payload, fragment) = match self {
            Self::Text(payload, fragment) => (Data::Text, payload.as_bytes(), *fragment),
            Self::Binary(payload, fragment) => (Data::Binary, &payload[..], *fragment),
            Self::Ping(payload) => return vec![Frame::ping(payload.clone())],
            Self::Pong(payload) => return vec![Frame::pong(payload.clone())],
        };
        let mut chunks: Vec<&[u8]> = payload.chunks(fragment).collect();
        if chunks.is_empty() {
            chunks.push(b"");
        }
        let last = chunks.len() - 1;
        chunks
            .into_iter()
            .enumerate()
            .flat_map(|(place, chunk)| {
                let opcode = OpCode::Data(if place == 0 { kind } else { Data::Continue });
                let fragment = Frame::message(Bytes::copy_from_slice(chunk), opcode, place == last);
                let ping = (place != last).then(|| Frame::ping("between"));
                [Some(fragment), ping].into_iter().flatten()
            })
            .collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_tungstenite_sends_is_what_comes_out(sent in prop::collection::vec(sent(), 0..6), piece in 1usize..5000) {
        let mut client = tungstenite(Role::Client, Vec::new());
        for frame in sent.iter().flat_map(Sent::frames) {
            client.send(Message::Frame(frame)).expect("memory takes all");
        }
        client.close(Some(CloseFrame { code: CloseCode::Normal, reason: "bye".into() })).expect("memory takes all");
        let (incoming, error) = decode(Decoder::new(1 << 20), client.get_ref().outgoing.chunks(piece));
        prop_assert_eq!(error, None);
        let incoming: Vec<_> = incoming.into_iter().filter(|item| *item != ping(b"between")).collect();
        let expected: Vec<_> = sent.iter().map(Sent::expected).chain([close(1000, "bye")]).collect();
        prop_assert_eq!(incoming, expected);
    }

    #[test]
    fn what_the_server_sends_is_what_tungstenite_reads(sent in prop::collection::vec(sent(), 0..6)) {
        let mut bytes = Vec::new();
        for item in &sent {
            match item {
                Sent::Text(payload, _) => bytes.extend_from_slice(&text_frame(payload)),
                Sent::Binary(payload, _) => {
                    let mut builder = FrameBuilder::with_capacity(0);
                    builder.write_all(payload).expect("never fails");
                    prop_assert_eq!(builder.payload(), payload);
                    let frame = builder.finish(MessageKind::Binary);
                    prop_assert_eq!(frame.payload(), payload);
                    bytes.extend_from_slice(frame.wire());
                }
                Sent::Ping(payload) => bytes.extend_from_slice(&ping_frame(payload)),
                Sent::Pong(payload) => bytes.extend_from_slice(&pong_frame(payload)),
            }
        }
        bytes.extend_from_slice(&close_frame(4413, "too slow"));
        let mut client = tungstenite(Role::Client, bytes);
        for item in &sent {
            let read = client.read().expect("a message");
            let expected = match item {
                Sent::Text(payload, _) => Message::text(payload),
                Sent::Binary(payload, _) => Message::binary(payload.clone()),
                Sent::Ping(payload) => Message::Ping(payload.clone().into()),
                Sent::Pong(payload) => Message::Pong(payload.clone().into()),
            };
            prop_assert_eq!(read, expected);
        }
        let close = CloseFrame { code: CloseCode::from(4413), reason: "too slow".into() };
        prop_assert_eq!(client.read().expect("a close"), Message::Close(Some(close)));
    }

    /// Frames that break rules as often as they keep them: both ends give the same messages before they refuse.
    #[test]
    fn what_tungstenite_refuses_is_refused(
        frames in prop::collection::vec((any_first_byte(), any::<[u8; 4]>(), "[a-z]{0,3}\u{e9}?".prop_map(String::into_bytes), any::<bool>()), 1..8),
        piece in 1usize..20,
    ) {
        let mut bytes = Vec::new();
        for (first, mask, payload, cut) in &frames {
            // Half of a character here and there.
            let payload = if *cut { &payload[..payload.len().saturating_sub(1)] } else { payload };
            bytes.extend(masked_frame(*first, *mask, payload));
        }
        let (ours, our_error) = decode(Decoder::new(1 << 20), bytes.chunks(piece));
        let mut server = tungstenite(Role::Server, bytes);
        let mut theirs = Vec::new();
        let their_error = loop {
            match server.read() {
                Ok(Message::Text(payload)) => theirs.push(text(&payload)),
                Ok(Message::Binary(payload)) => theirs.push(Incoming::Binary(payload)),
                Ok(Message::Ping(payload)) => theirs.push(Incoming::Ping(payload)),
                Ok(Message::Pong(payload)) => theirs.push(Incoming::Pong(payload)),
                Ok(other) => panic!("{other:?} was not sent"),
                Err(tungstenite::Error::Io(_)) => break false,
                Err(_) => break true,
            }
        };
        prop_assert_eq!(our_error.is_some(), their_error, "{:?}", our_error);
        prop_assert_eq!(ours, theirs);
    }
}

/// First bytes of frames, mostly sound; never a close, on whose codes the two ends differ.
fn any_first_byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        8 => prop::sample::select(vec![FIN | TEXT, TEXT, CONTINUATION, FIN | CONTINUATION, BINARY, FIN | BINARY, FIN | PING, FIN | PONG]),
        1 => any::<u8>().prop_filter("a close", |first| first & 0x0f != CLOSE),
    ]
}
