//! Sends back whatever comes, on the router's WebSocket codec and nothing else of the router: the server that
//! Autobahn examines. Prints the address that it listens on, and serves until it is ended.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::BytesMut;
use clap::Parser;
use rivulet_router::websocket::{
    Decoder, FrameBuilder, FrameWriter, Incoming, MessageKind, accept_key, close_frame, compressed_frame,
    negotiate, pong_frame,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The longest request that is read before it is refused.
const MAX_REQUEST_BYTES: usize = 16 * 1024;

/// The room that is made for each read.
const READ_BYTES: usize = 64 * 1024;

/// How long the client may take to close its side once ours is closed.
const LINGER: Duration = Duration::from_secs(2);

#[derive(Parser)]
#[command(about = "A WebSocket echo on the router's codec")]
struct Arguments {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Accept permessage-deflate, and compress what gets smaller by it.
    #[arg(long)]
    deflate: bool,
    /// The largest message, in bytes.
    #[arg(long, default_value_t = 16 * 1024 * 1024)]
    max_message_bytes: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let listener = TcpListener::bind(arguments.listen).await?;
    writeln!(io::stdout(), "ws://{}", listener.local_addr()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            if let Err(error) = serve(stream, arguments.deflate, arguments.max_message_bytes).await {
                let _ = writeln!(io::stderr(), "{error:#}");
            }
        });
    }
}

async fn serve(mut stream: TcpStream, deflate: bool, max_message_bytes: usize) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = BytesMut::new();
    let deflate = upgrade(&mut stream, &mut input, deflate)
        .await
        .context("upgrade")?;
    let mut decoder = Decoder::new(max_message_bytes).with_deflate(deflate);
    let mut writer = FrameWriter::new();
    let mut closing = false;
    while !closing {
        match decoder.decode(&mut input) {
            Ok(None) => {
                writer.write(&mut stream).await?;
                input.reserve(READ_BYTES);
                if stream.read_buf(&mut input).await? == 0 {
                    return Ok(());
                }
            }
            Ok(Some(Incoming::Text(text))) => send(&mut writer, MessageKind::Text, text.as_bytes(), deflate),
            Ok(Some(Incoming::Binary(bytes))) => send(&mut writer, MessageKind::Binary, &bytes, deflate),
            Ok(Some(Incoming::Ping(payload))) => writer.push(pong_frame(&payload)),
            Ok(Some(Incoming::Pong(_))) => {}
            Ok(Some(Incoming::Close { code, .. })) => {
                writer.push(close_frame(code.unwrap_or(1000), ""));
                closing = true;
            }
            Err(error) => {
                writer.push(close_frame(error.close_code(), &error.to_string()));
                closing = true;
            }
        }
    }
    writer.write(&mut stream).await?;
    stream.shutdown().await?;
    // Bytes left unread would reset the connection, and the close frame with it.
    let _ = tokio::time::timeout(LINGER, tokio::io::copy(&mut stream, &mut tokio::io::sink())).await;
    Ok(())
}

/// Reads the request and answers it; says whether deflate was agreed on. What came behind it stays in `input`.
async fn upgrade(stream: &mut TcpStream, input: &mut BytesMut, deflate: bool) -> anyhow::Result<bool> {
    const END: &[u8] = b"\r\n\r\n";
    let end = loop {
        if let Some(at) = input.windows(END.len()).position(|window| window == END) {
            break at + END.len();
        }
        ensure!(
            input.len() < MAX_REQUEST_BYTES,
            "the request is over {MAX_REQUEST_BYTES} bytes"
        );
        ensure!(stream.read_buf(input).await? > 0, "the client left");
    };
    let request = input.split_to(end);
    let request = std::str::from_utf8(&request)?;
    let key = header_values(request, "Sec-WebSocket-Key")
        .next()
        .context("no Sec-WebSocket-Key")?;
    let agreement = if deflate {
        negotiate(header_values(request, "Sec-WebSocket-Extensions"))
    } else {
        None
    };
    let mut answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n",
        accept_key(key)?
    );
    if let Some(agreement) = agreement {
        answer.push_str(&format!("Sec-WebSocket-Extensions: {agreement}\r\n"));
    }
    answer.push_str("\r\n");
    stream.write_all(answer.as_bytes()).await?;
    Ok(agreement.is_some())
}

fn header_values<'a>(request: &'a str, wanted: &'a str) -> impl Iterator<Item = &'a str> {
    let headers = request.lines().filter_map(|line| line.split_once(':'));
    headers
        .filter(move |(name, _)| name.eq_ignore_ascii_case(wanted))
        .map(|(_, value)| value.trim())
}

fn send(writer: &mut FrameWriter, kind: MessageKind, payload: &[u8], deflate: bool) {
    let compressed = if deflate {
        compressed_frame(kind, payload, 1)
    } else {
        None
    };
    writer.push(compressed.unwrap_or_else(|| {
        let mut builder = FrameBuilder::with_capacity(payload.len());
        builder.extend_from_slice(payload);
        builder.finish(kind).into_wire()
    }));
}
