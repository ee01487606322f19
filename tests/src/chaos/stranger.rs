//! A socket that says what no proper client says, byte by byte.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::bail;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

/// How many addresses strangers come from: 127.1.0.0 and up, as all of 127/8 is this machine.
const ADDRESSES: u64 = 20_000;

/// Somebody at a node's door.
#[derive(Debug)]
pub struct Stranger {
    stream: TcpStream,
    door: SocketAddr,
}

impl Stranger {
    /// Connects, from an address that the number says.
    ///
    /// # Errors
    /// If the door is shut.
    pub async fn come(door: SocketAddr, number: u64) -> anyhow::Result<Self> {
        let address = Ipv4Addr::from_bits(0x7f01_0000 + (number % ADDRESSES) as u32);
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from((address, 0)))?;
        let stream = socket.connect(door).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, door })
    }

    /// Says anything.
    ///
    /// # Errors
    /// If the connection is over.
    pub async fn say(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// Asks for an upgrade: `protocol` is the subprotocol, or empty.
    ///
    /// # Errors
    /// If the connection is over.
    pub async fn ask(&mut self, protocol: &str, token: &str, query: &str) -> anyhow::Result<()> {
        let comma = if protocol.is_empty() { "" } else { ", " };
        let request = format!(
            "GET /api/v1/ws?{query} HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
             sec-websocket-extensions: permessage-deflate\r\n\
             sec-websocket-protocol: {protocol}{comma}bearer.{token}\r\n\r\n",
            self.door
        );
        self.say(request.as_bytes()).await
    }

    /// Asks for an upgrade and reads until the session has begun.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn begin(&mut self, protocol: &str, token: &str, query: &str) -> anyhow::Result<()> {
        self.ask(protocol, token, query).await?;
        self.hear(b"\"connected\"").await
    }

    /// Reads until this comes.
    ///
    /// # Errors
    /// If the connection ends before.
    pub async fn hear(&mut self, what: &[u8]) -> anyhow::Result<()> {
        let mut read = Vec::new();
        while !contains(&read, what) {
            if self.stream.read_buf(&mut read).await? == 0 {
                bail!("it ended: {}", String::from_utf8_lossy(&read));
            }
        }
        Ok(())
    }

    /// Everything until the connection is over, a reset included.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // What came before a reset is there all the same.
        let _ = self.stream.read_to_end(&mut rest).await;
        rest
    }

    /// Goes with a reset.
    ///
    /// # Errors
    /// If the socket is none.
    pub fn reset(self) -> anyhow::Result<()> {
        Ok(self.stream.set_zero_linger()?)
    }
}

/// A client's frame: its first byte, and what it holds, under a mask of zeros.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ ..126 => frame.push(0x80 | length as u8),
        length @ ..0x1_0000 => {
            frame.push(0xfe);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0xff);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// Whether a close frame of the server's with this code is at the end of what it said.
pub fn closes_with(said: &[u8], code: u16) -> bool {
    let code = code.to_be_bytes();
    said.windows(4)
        .any(|window| window[0] == 0x88 && window[1] >= 2 && window[2..] == code)
}

/// Whether the one holds the other.
pub fn contains(all: &[u8], part: &[u8]) -> bool {
    all.windows(part.len()).any(|window| window == part)
}
