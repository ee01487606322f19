//! How a server is talked to over its WebSocket: all that the client has to know of a peer.

use super::frames::{self, BINARY, Frame, PING, PONG, TEXT, frame};

/// What is spoken inside of the frames.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Dialect {
    /// Rivulet's own: `connected` comes first.
    Rivulet,
    /// Nothing beside the events.
    Bare,
    /// The NATS protocol in binary frames.
    Nats,
    /// Engine.IO and Socket.IO packets in text frames.
    SocketIo,
}

/// What a step of the greeting leads to.
pub(crate) enum Greeting {
    /// The session stands.
    Done,
    /// Say this, and read on.
    Say(Vec<u8>),
    /// Read on.
    Wait,
}

impl Dialect {
    /// Whether the server says anything before its events.
    pub(crate) fn greets(self) -> bool {
        self != Self::Bare
    }

    /// What a frame before the first event means.
    pub(crate) fn greeting(self, frame: &Frame<'_>) -> Greeting {
        let holds = |text: &str| {
            frame
                .payload
                .windows(text.len())
                .any(|part| part == text.as_bytes())
        };
        match self {
            Self::Rivulet if holds(r#""type":"connected""#) => Greeting::Done,
            Self::Nats if holds("INFO {") => Greeting::Say(frames::frame(
                BINARY,
                b"CONNECT {\"verbose\":false,\"pedantic\":false,\"protocol\":1}\r\nSUB blob.bench 1\r\nPING\r\n",
            )),
            Self::Nats if holds("PONG\r\n") => Greeting::Done,
            Self::SocketIo if frame.payload.starts_with(b"0{") => Greeting::Say(frames::frame(TEXT, b"40")),
            Self::SocketIo if frame.payload.starts_with(b"40") => Greeting::Done,
            _ => Greeting::Wait,
        }
    }

    /// What the server must hear to keep the connection.
    pub(crate) fn answer(self, received: &Frame<'_>) -> Option<Vec<u8>> {
        match self {
            _ if received.opcode == PING => Some(frame(PONG, received.payload)),
            Self::Nats
                if received.payload.starts_with(b"PING\r\n")
                    || received.payload.ends_with(b"\r\nPING\r\n") =>
            {
                Some(frame(BINARY, b"PONG\r\n"))
            }
            Self::SocketIo if received.payload == b"2" => Some(frame(TEXT, b"3")),
            _ => None,
        }
    }
}
