//! The least that a server can do: a blocking thread, one prepared frame, one `write` a connection. Nobody's
//! token is looked at, nothing is filtered, nothing is read.

use std::{
    io::{BufRead, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::Args;
use rivulet_router::websocket::{MessageKind, accept_key, compressed_frame, text_frame};

use crate::event::{Padding, data, enveloped, user_of};

/// What it sends. How many events in all comes line by line to its standard input.
#[derive(Args, Clone, Debug)]
pub(crate) struct Floor {
    #[arg(long)]
    connections: usize,
    /// Events a second; 0: as soon as they are granted
    #[arg(long, default_value_t = 0)]
    rate: u32,
    #[arg(long)]
    size: usize,
    /// Write what has come up every so many milliseconds, in one write a connection
    #[arg(long)]
    batch: Option<u64>,
    /// Threads, each with its share of the connections
    #[arg(long, default_value_t = 1)]
    threads: usize,
    #[arg(long)]
    deflate: bool,
    /// Each event to one connection, in turn, instead of to all
    #[arg(long)]
    each_to_one: bool,
}

/// How many events may have been sent in all.
#[derive(Default)]
struct Granted {
    events: Mutex<u64>,
    more: Condvar,
}

impl Granted {
    /// Waits until event `number` is granted; how many are.
    fn wait_for(&self, number: u64) -> u64 {
        let mut events = self.events.lock().expect("nobody panics with it");
        while *events <= number {
            events = self.more.wait(events).expect("nobody panics with it");
        }
        *events
    }
}

/// Serves until it is killed.
pub(crate) fn serve(floor: &Floor) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let mut streams = Vec::with_capacity(floor.connections);
    for _ in 0..floor.connections {
        let (stream, from) = listener.accept()?;
        streams.push((from.ip(), upgrade(stream, floor.deflate)?));
    }
    // A client's address is its number.
    streams.sort_by_key(|(from, _)| *from);
    let mut shares: Vec<Vec<TcpStream>> = (0..floor.threads).map(|_| Vec::new()).collect();
    for (number, (_, stream)) in streams.into_iter().enumerate() {
        shares[number % floor.threads].push(stream);
    }
    let granted = Arc::new(Granted::default());
    for streams in shares {
        let (floor, granted) = (floor.clone(), Arc::clone(&granted));
        std::thread::spawn(move || send(&floor, streams, &granted));
    }
    for line in std::io::stdin().lock().lines() {
        *granted.events.lock().expect("nobody panics with it") = line?.parse()?;
        granted.more.notify_all();
    }
    Ok(())
}

fn send(floor: &Floor, mut streams: Vec<TcpStream>, granted: &Granted) -> anyhow::Result<()> {
    let mut number = 0;
    granted.wait_for(0);
    let begin = Instant::now();
    let due = |number: u64| begin + Duration::from_secs(1).mul_f64(number as f64 / f64::from(floor.rate));
    let mut batch = Vec::new();
    let mut turn = begin;
    loop {
        let all = granted.wait_for(number);
        let mut until = all;
        if floor.rate > 0 {
            sleep(due(number).saturating_duration_since(Instant::now()));
            until = number + 1;
        }
        while number < until {
            if floor.each_to_one {
                let frame = frame(floor, number)?;
                let to = user_of(number, streams.len() as u64) as usize;
                streams[to].write_all(&frame)?;
            } else {
                batch.extend_from_slice(&frame(floor, number)?);
            }
            number += 1;
        }
        if let Some(every) = floor.batch {
            let next = turn + Duration::from_millis(every);
            if number < all && due(number) < next {
                continue;
            }
            sleep(next.saturating_duration_since(Instant::now()));
            turn = next;
        }
        for stream in &mut streams {
            stream.write_all(&batch)?;
        }
        batch.clear();
    }
}

fn frame(floor: &Floor, number: u64) -> anyhow::Result<bytes::Bytes> {
    let padding = match floor.deflate {
        true => Padding::Words,
        false => Padding::Plain,
    };
    let event = enveloped(number, &data(number, floor.size, padding));
    match floor.deflate {
        // The router's own level.
        true => compressed_frame(MessageKind::Text, event.as_bytes(), 1).context("it gets no smaller"),
        false => Ok(text_frame(&event)),
    }
}

fn upgrade(mut stream: TcpStream, deflate: bool) -> anyhow::Result<TcpStream> {
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
    let extension = match deflate {
        true => {
            "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n"
        }
        false => "",
    };
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{extension}Sec-WebSocket-Accept: {}\r\n\r\n",
        accept_key(key)?
    )?;
    Ok(stream)
}
