//! A client's WebSocket, as far as the rig needs it: text in both directions, compressed by the server where asked
//! for (RFC 7692, which the client library of the other tests does not have).

use std::io;

use bytes::{Buf as _, BytesMut};
use flate2::{Decompress, FlushDecompress};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::stranger::frame;

/// A connection whose handshake is over.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    /// What was read and is not a whole frame yet.
    read: BytesMut,
    /// How many messages came compressed.
    pub inflated: u64,
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub enum Came {
    /// A message.
    Text(String),
    /// A close frame: code and reason; 1005 without one.
    Close(u16, String),
    /// A ping, answered.
    Ping,
}

impl Socket {
    /// Asks for an upgrade at this path and query.
    ///
    /// # Errors
    /// If the connection ends, or it is refused.
    pub async fn upgrade(
        mut stream: TcpStream,
        target: &str,
        protocols: &str,
        compressed: bool,
    ) -> io::Result<Self> {
        let extension = match compressed {
            true => "sec-websocket-extensions: permessage-deflate; server_no_context_takeover\r\n",
            false => "",
        };
        let request = format!(
            "GET {target} HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
             sec-websocket-protocol: {protocols}\r\n{extension}\r\n",
            stream.peer_addr()?
        );
        stream.write_all(request.as_bytes()).await?;
        let mut read = BytesMut::new();
        let end = loop {
            if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            fill(&mut stream, &mut read).await?;
        };
        let head = read.split_to(end + 4);
        if !head.starts_with(b"HTTP/1.1 101") {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(Self {
            stream,
            read,
            inflated: 0,
        })
    }

    /// What comes next. Dropped half-way, nothing of it is lost.
    ///
    /// # Errors
    /// If the connection ends, or what comes is no frame of a server's.
    pub async fn next(&mut self) -> io::Result<Came> {
        loop {
            if let Some((first, payload)) = take_frame(&mut self.read)? {
                return match first {
                    0x81 => Ok(Came::Text(text(payload.to_vec())?)),
                    0xc1 => {
                        self.inflated += 1;
                        Ok(Came::Text(text(inflate(&payload)?)?))
                    }
                    0x88 => {
                        let (code, reason) = payload.split_at_checked(2).unwrap_or_default();
                        let code = code.try_into().map_or(1005, u16::from_be_bytes);
                        Ok(Came::Close(code, text(reason.to_vec())?))
                    }
                    0x89 => {
                        self.stream.write_all(&frame(0x8a, &payload)).await?;
                        Ok(Came::Ping)
                    }
                    _ => Err(invalid("a frame that no router sends")),
                };
            }
            fill(&mut self.stream, &mut self.read).await?;
        }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// If the connection is over.
    pub async fn say(&mut self, text: &str) -> io::Result<()> {
        self.stream.write_all(&frame(0x81, text.as_bytes())).await
    }

    /// Says that it goes.
    ///
    /// # Errors
    /// If the connection is over.
    pub async fn close(&mut self) -> io::Result<()> {
        self.stream.write_all(&frame(0x88, &1000u16.to_be_bytes())).await
    }
}

async fn fill(stream: &mut TcpStream, read: &mut BytesMut) -> io::Result<()> {
    match stream.read_buf(read).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Takes a whole frame: its first byte and what it holds.
fn take_frame(read: &mut BytesMut) -> io::Result<Option<(u8, BytesMut)>> {
    let [first, second, ..] = read[..] else {
        return Ok(None);
    };
    if second & 0x80 != 0 {
        return Err(invalid("a server masks nothing"));
    }
    let extended = match second {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let Some(length) = read.get(2..2 + extended) else {
        return Ok(None);
    };
    let length = match extended {
        0 => usize::from(second),
        _ => length
            .iter()
            .fold(0, |length, byte| length << 8 | usize::from(*byte)),
    };
    if read.len() < 2 + extended + length {
        return Ok(None);
    }
    read.advance(2 + extended);
    Ok(Some((first, read.split_to(length))))
}

/// What a compressed message says; each begins anew.
fn inflate(payload: &[u8]) -> io::Result<Vec<u8>> {
    // RFC 7692, 7.2.2: what was left out is put back.
    let whole = [payload, &[0, 0, 0xff, 0xff]].concat();
    let mut inflate = Decompress::new(false);
    let mut message = Vec::with_capacity(whole.len() * 4);
    loop {
        let read = inflate.total_in() as usize;
        inflate.decompress_vec(&whole[read..], &mut message, FlushDecompress::Sync)?;
        if inflate.total_in() as usize == whole.len() && message.len() < message.capacity() {
            return Ok(message);
        }
        message.reserve(message.len() + 256);
    }
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| invalid("a message is no text"))
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::DeflateEncoder};

    use super::*;

    #[test]
    fn frames_are_taken_whole() {
        let mut read = BytesMut::new();
        for bytes in [&b"\x81"[..], b"\x03ab", b"c\x81\x7e\x00"] {
            read.extend_from_slice(bytes);
        }
        assert_eq!(take_frame(&mut read).unwrap(), Some((0x81, b"abc"[..].into())));
        assert_eq!(take_frame(&mut read).unwrap(), None);
        read.extend_from_slice(&[200]);
        read.extend_from_slice(&[b'x'; 200]);
        let (_, payload) = take_frame(&mut read).unwrap().unwrap();
        assert_eq!((payload.len(), read.len()), (200, 0));
    }

    #[test]
    fn what_was_compressed_comes_back() {
        for length in [0, 1, 1_000, 1_000_000] {
            let message = vec![b'x'; length];
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(&message).unwrap();
            encoder.flush().unwrap();
            let payload = encoder.get_ref();
            let payload = payload.strip_suffix(&[0, 0, 0xff, 0xff]).unwrap();
            assert_eq!(inflate(payload).unwrap().len(), length);
        }
    }
}
