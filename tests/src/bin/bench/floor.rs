//! The least that a server can do: one blocking thread, one prepared frame, one `write` a connection.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rivulet::websocket::{accept_key, text_frame};

use crate::load::payload;

/// Waits for all connections, then sends all events to each, and ends when the last client has gone.
pub(crate) fn serve(connections: usize, rate: u32, size: usize, events: u64) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let mut streams = Vec::with_capacity(connections);
    while streams.len() < connections {
        let (stream, _) = listener.accept()?;
        streams.push(upgrade(stream)?);
    }
    let interval = Duration::from_secs(1) / rate;
    let begin = Instant::now();
    for number in 0..events {
        let due = begin + interval * u32::try_from(number)?;
        sleep(due.saturating_duration_since(Instant::now()));
        // The envelope that the router puts around, so that both send the same bytes.
        let event = format!(
            r#"{{"type":"blob.bench","seq":{number},"time":"2026-01-01T00:00:00.000000Z","data":{}}}"#,
            payload(number, size)
        );
        let frame = text_frame(&event);
        for stream in &mut streams {
            stream.write_all(&frame)?;
        }
    }
    for stream in &mut streams {
        // The client closes once it has everything.
        let _ = stream.read(&mut [0; 64]);
    }
    Ok(())
}

fn upgrade(mut stream: TcpStream) -> anyhow::Result<TcpStream> {
    stream.set_nodelay(true)?;
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut buffer = [0; 1024];
        let count = stream.read(&mut buffer)?;
        ensure!(count > 0, "a client left in its handshake");
        request.extend_from_slice(&buffer[..count]);
    }
    let request = String::from_utf8(request)?;
    let key = request
        .lines()
        .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))
        .context("a request without a key")?;
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        accept_key(key)?
    )?;
    Ok(stream)
}
