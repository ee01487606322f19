//! One connection, from the TCP handshake until its session stands.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use socket2::{Domain, Socket, Type};

use super::{
    dialect::{Dialect, Greeting},
    frames::{self, CLOSE},
};

/// How long a server may take for a step of a handshake.
const PATIENCE: Duration = Duration::from_secs(120);

/// The header by which a client offers what one frame for all needs.
pub(crate) const OFFER_DEFLATE: &str = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n";

/// What a connection asks for.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Path and query.
    pub(crate) path: String,
    /// Further headers, each with its line end.
    pub(crate) headers: String,
}

/// A connection whose session stands, and what came behind the greeting.
pub(crate) struct Connected {
    pub(crate) stream: TcpStream,
    pub(crate) rest: Vec<u8>,
    pub(crate) greeting: String,
}

/// Connects number `number`, from a loopback address of its own: so the limits per address can stay on, and
/// ports don't run out.
pub(crate) fn connect(
    to: SocketAddr,
    number: usize,
    dialect: Dialect,
    request: &Request,
) -> anyhow::Result<Connected> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // 127.1.0.0 and on: 127.0.0.1 is the servers'.
    let source = Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 0).to_bits() + u32::try_from(number)?);
    socket.bind(&SocketAddrV4::new(source, 0).into())?;
    socket
        .connect_timeout(&to.into(), PATIENCE)
        .context("no connection")?;
    socket.set_tcp_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut stream = TcpStream::from(socket);
    let Request { path, headers } = request;
    stream.write_all(
        format!(
            "GET {path} HTTP/1.1\r\nHost: {to}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
        )
        .as_bytes(),
    )?;
    let mut input = Vec::new();
    let end = loop {
        read(&mut stream, &mut input)?;
        if let Some(end) = memchr::memmem::find(&input, b"\r\n\r\n") {
            break end + 4;
        }
    };
    ensure!(
        input.starts_with(b"HTTP/1.1 101"),
        "refused: {}",
        String::from_utf8_lossy(&input)
    );
    let wants_deflate = headers.contains("permessage-deflate");
    ensure!(
        !wants_deflate || memchr::memmem::find(&input[..end], b"permessage-deflate").is_some(),
        "the server does not compress"
    );
    input.drain(..end);
    let mut greeting = String::new();
    while dialect.greets() {
        let mut left = input.as_slice();
        let Some(frame) = frames::take(&mut left)? else {
            read(&mut stream, &mut input)?;
            continue;
        };
        if frame.opcode == CLOSE {
            bail!(
                "closed in its greeting: {}",
                String::from_utf8_lossy(frame.payload)
            );
        }
        let then = dialect.greeting(&frame);
        greeting = String::from_utf8_lossy(frame.payload).into_owned();
        let taken = input.len() - left.len();
        input.drain(..taken);
        match then {
            Greeting::Done => break,
            Greeting::Say(bytes) => stream.write_all(&bytes)?,
            Greeting::Wait => {}
        }
    }
    Ok(Connected {
        stream,
        rest: input,
        greeting,
    })
}

fn read(stream: &mut TcpStream, input: &mut Vec<u8>) -> anyhow::Result<()> {
    let mut buffer = [0; 4096];
    let count = stream.read(&mut buffer).context("no answer to a handshake")?;
    ensure!(count > 0, "closed in its handshake");
    input.extend_from_slice(&buffer[..count]);
    Ok(())
}
