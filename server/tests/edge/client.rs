//! A client that says just what it is told to, byte for byte.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::rig::{Edge, soon};

/// The headers that make a request a WebSocket handshake (RFC 6455, section 1.3).
pub(crate) const WEBSOCKET: &str = "Host: rivulet.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A socket.
pub(crate) struct Socket(pub(crate) TcpStream);

/// The head of an answer, and what came with it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    /// Bytes behind the head.
    pub(crate) rest: Vec<u8>,
}

impl Socket {
    pub(crate) async fn connect(edge: &Edge) -> Self {
        Self(
            soon("a connection", TcpStream::connect(edge.address))
                .await
                .unwrap(),
        )
    }

    /// From this address of the machine.
    pub(crate) async fn connect_from(edge: &Edge, address: [u8; 4]) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((address, 0).into()).unwrap();
        Self(soon("a connection", socket.connect(edge.address)).await.unwrap())
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon("room to write", self.0.write_all(bytes.as_ref()))
            .await
            .unwrap();
    }

    /// Reads up to the end of an answer's head.
    pub(crate) async fn answer(&mut self) -> Answer {
        let mut read = Vec::new();
        let end = loop {
            if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(
                soon("an answer", self.0.read_buf(&mut read)).await.unwrap() > 0,
                "the answer ends in its head: {:?}",
                String::from_utf8_lossy(&read)
            );
        };
        let head = String::from_utf8(read[..end].to_vec()).unwrap();
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head,
            rest: read.split_off(end),
        }
    }

    /// Reads all that comes until the other side ends, however it does.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = soon("the end", self.0.read_to_end(&mut rest)).await;
        rest
    }

    /// Reads one frame of the router: its opcode and its payload.
    pub(crate) async fn frame(&mut self, read: &mut Vec<u8>) -> (u8, Vec<u8>) {
        loop {
            if let Some((opcode, payload, length)) = frame(read) {
                read.drain(..length);
                return (opcode, payload);
            }
            let more = soon("a frame", self.0.read_buf(read)).await.unwrap();
            assert!(more > 0, "the frames end");
        }
    }
}

impl Answer {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// Sends a handshake with these headers on top, to this path. Returns the answer.
pub(crate) async fn open(edge: &Edge, path: &str, more: &str) -> (Socket, Answer) {
    let mut socket = Socket::connect(edge).await;
    socket
        .send(format!("GET {path} HTTP/1.1\r\n{WEBSOCKET}{more}\r\n"))
        .await;
    let answer = socket.answer().await;
    (socket, answer)
}

/// Sends a handshake that is refused by HTTP. Returns the answer and its problem document.
pub(crate) async fn refused(edge: &Edge, path: &str, more: &str) -> (Answer, Value) {
    let (mut socket, answer) = open(edge, path, more).await;
    let body = [answer.rest.clone(), socket.rest().await].concat();
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json"),
        "{answer:?}"
    );
    let problem: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(problem["status"], answer.status);
    (answer, problem)
}

/// Opens a session and reads `connected`; what else came is beside it.
pub(crate) async fn session(edge: &Edge, path: &str, more: &str) -> (Socket, Vec<u8>, Value) {
    let (mut socket, answer) = open(edge, path, more).await;
    assert_eq!(answer.status, 101, "{answer:?}");
    let mut read = answer.rest;
    let connected = message(&mut socket, &mut read).await;
    assert_eq!(connected["type"], "connected", "{connected}");
    (socket, read, connected["data"].clone())
}

/// Reads one message.
pub(crate) async fn message(socket: &mut Socket, read: &mut Vec<u8>) -> Value {
    let (opcode, payload) = socket.frame(read).await;
    assert_eq!(opcode, 1, "{:?}", String::from_utf8_lossy(&payload));
    serde_json::from_slice(&payload).unwrap()
}

/// Reads the close. Returns code and reason.
pub(crate) async fn closed(socket: &mut Socket, read: &mut Vec<u8>) -> (u16, String) {
    let (opcode, payload) = socket.frame(read).await;
    assert_eq!(opcode, 8, "{:?}", String::from_utf8_lossy(&payload));
    let code = u16::from_be_bytes([payload[0], payload[1]]);
    (code, String::from_utf8(payload[2..].to_vec()).unwrap())
}

/// A client's text frame, with the mask that a client needs (RFC 6455, section 5.3).
pub(crate) fn text(payload: &str) -> Vec<u8> {
    let mask = [1_u8, 2, 3, 4];
    let masked = payload
        .bytes()
        .zip(mask.iter().cycle())
        .map(|(byte, mask)| byte ^ mask);
    let mut frame = match payload.len() {
        short @ ..126 => vec![0x81, 0x80 | short as u8],
        long => [[0x81, 0x80 | 126], (long as u16).to_be_bytes()].concat(),
    };
    frame.extend(mask);
    frame.extend(masked);
    frame
}

/// The frame that these bytes begin with: its opcode, its payload, and how many of them it takes.
pub(crate) fn frame(read: &[u8]) -> Option<(u8, Vec<u8>, usize)> {
    let opcode = read.first()? & 0x0f;
    let (length, start) = match read.get(1)? {
        126 => (usize::from(u16::from_be_bytes([*read.get(2)?, *read.get(3)?])), 4),
        short => (usize::from(*short), 2),
    };
    let payload = read.get(start..start + length)?;
    Some((opcode, payload.to_vec(), start + length))
}
