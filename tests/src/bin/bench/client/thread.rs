//! One thread of clients: waits for whichever of its sockets has something, reads it into the one buffer, and
//! looks at as little of it as it can.

use std::{
    io::{ErrorKind, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token, net::TcpStream};
use rustix::time::{ClockId, clock_gettime};

use super::{
    check::{Check, Due, Faults},
    connect::Connected,
    dialect::Dialect,
    frames::{self, CLOSE},
    scan::Scan,
    window::Window,
};
use crate::event::now;

/// What others see of a thread while it runs.
#[derive(Default)]
pub(crate) struct Meter {
    /// Events.
    pub(crate) received: AtomicU64,
    /// Bytes off the sockets.
    pub(crate) bytes: AtomicU64,
    /// Nanoseconds of processor time.
    pub(crate) cpu: AtomicU64,
    /// Whether a connection ended.
    pub(crate) broken: AtomicBool,
}

/// What a thread works with.
pub(crate) struct Orders {
    pub(crate) dialect: Dialect,
    /// Bytes of an event's data.
    pub(crate) size: usize,
    /// Events of each connection whose latency does not count.
    pub(crate) warm_up: u64,
    pub(crate) window: Option<(Arc<Window>, usize)>,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) meter: Arc<Meter>,
}

/// What came of it.
pub(crate) struct Outcome {
    /// Nanoseconds from the publisher to the client.
    pub(crate) latency: Histogram<u64>,
    pub(crate) faults: Faults,
    /// Of each connection: how many of the events it had, in order.
    pub(crate) checks: Vec<(Due, Check)>,
    pub(crate) inflated: u64,
}

struct Connection {
    stream: TcpStream,
    /// The beginning of a frame that was not all there.
    part: Vec<u8>,
    due: Due,
    check: Check,
}

/// A thread's connections.
pub(crate) struct Clients {
    poll: Poll,
    connections: Vec<Connection>,
    orders: Orders,
    scan: Scan,
    latency: Histogram<u64>,
    faults: Faults,
    /// Of the events in the window: how many connections have each.
    reached: Vec<usize>,
    place: u64,
}

/// Of nanoseconds up to a minute, to a thousandth.
pub(crate) fn latencies() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1_000, 60_000_000_000, 3)?)
}

/// Holds the longest frame of any row, with room for many short ones.
const BUFFER: usize = 512 << 10;

impl Clients {
    pub(crate) fn new(connected: Vec<(Connected, Due)>, orders: Orders) -> anyhow::Result<Self> {
        let poll = Poll::new()?;
        let mut connections = Vec::with_capacity(connected.len());
        for (number, (Connected { stream, rest, .. }, due)) in connected.into_iter().enumerate() {
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry()
                .register(&mut stream, Token(number), Interest::READABLE)?;
            connections.push(Connection {
                stream,
                part: rest,
                due,
                check: Check::new(due),
            });
        }
        let window = orders.window.as_ref().map_or(0, |(window, _)| window.size());
        ensure!(
            window == 0 || !connections.is_empty(),
            "a window needs a client in every thread"
        );
        Ok(Self {
            poll,
            connections,
            scan: Scan::new(orders.size),
            orders,
            latency: latencies()?,
            faults: Faults::default(),
            // A connection may be a window ahead of the last one.
            reached: vec![0; window as usize * 2],
            place: 0,
        })
    }

    /// Says `opening` on every connection and reads until it is told to stop.
    pub(crate) fn run(mut self, opening: Option<&[u8]>) -> anyhow::Result<Outcome> {
        if let Some(opening) = opening {
            for connection in &mut self.connections {
                connection.stream.write_all(opening)?;
            }
        }
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; BUFFER];
        while !self.orders.stop.load(Ordering::Relaxed) {
            match self.poll.poll(&mut events, Some(Duration::from_millis(10))) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            let (mut received, mut bytes) = (0, 0);
            for event in &events {
                let number = event.token().0;
                match self.read(number, &mut buffer, &mut received) {
                    Ok(count) => bytes += count,
                    Err(error) => {
                        self.faults.broken.push(format!("{error:#}"));
                        let stream = &mut self.connections[number].stream;
                        self.poll.registry().deregister(stream)?;
                        self.orders.meter.broken.store(true, Ordering::Relaxed);
                    }
                }
            }
            let meter = &self.orders.meter;
            meter.received.fetch_add(received, Ordering::Relaxed);
            meter.bytes.fetch_add(bytes, Ordering::Relaxed);
            let cpu = clock_gettime(ClockId::ThreadCPUTime);
            meter.cpu.store(
                cpu.tv_sec as u64 * 1_000_000_000 + cpu.tv_nsec as u64,
                Ordering::Relaxed,
            );
            self.tell_window();
        }
        Ok(Outcome {
            latency: self.latency,
            faults: self.faults,
            checks: self
                .connections
                .into_iter()
                .map(|connection| (connection.due, connection.check))
                .collect(),
            inflated: self.scan.inflated,
        })
    }

    /// Reads until the socket has no more. Readiness is told once, at its edge; a read that does not fill its
    /// buffer has emptied the socket (epoll(7)), which saves the read that would only say so.
    fn read(&mut self, number: usize, buffer: &mut [u8], received: &mut u64) -> anyhow::Result<u64> {
        let mut bytes = 0;
        loop {
            let connection = &mut self.connections[number];
            let before = connection.part.len();
            buffer[..before].copy_from_slice(&connection.part);
            let count = match connection.stream.read(&mut buffer[before..]) {
                Ok(0) => bail!("the server ended the connection"),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(bytes),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            bytes += count as u64;
            let emptied = count < buffer.len() - before;
            let left = self.take(number, &buffer[..before + count], received)?;
            let part = &mut self.connections[number].part;
            part.clear();
            part.extend_from_slice(left);
            if emptied {
                return Ok(bytes);
            }
        }
    }

    fn take<'a>(
        &mut self,
        number: usize,
        mut input: &'a [u8],
        received: &mut u64,
    ) -> anyhow::Result<&'a [u8]> {
        let arrived = now();
        let Self {
            connections,
            orders,
            scan,
            latency,
            faults,
            reached,
            ..
        } = self;
        let connection = &mut connections[number];
        while let Some(frame) = frames::take(&mut input)? {
            let check = &mut connection.check;
            let mut each = |seen: super::scan::Seen| {
                check.take(seen.number, faults);
                *received += 1;
                if seen.number >= orders.warm_up {
                    latency.saturating_record(arrived.saturating_sub(seen.made));
                }
                if !reached.is_empty() {
                    let at = seen.number as usize % reached.len();
                    reached[at] += 1;
                }
            };
            match (frame.opcode, frame.compressed) {
                (CLOSE, _) => bail!("closed: {}", String::from_utf8_lossy(frame.payload)),
                (_, true) => scan.compressed(frame.payload, each)?,
                (_, false) => scan.plain(frame.payload, &mut each),
            }
            if let Some(answer) = orders.dialect.answer(&frame) {
                connection
                    .stream
                    .write_all(&answer)
                    .context("the server takes no answer")?;
            }
        }
        Ok(input)
    }

    /// Tells how far all connections of this thread have come.
    fn tell_window(&mut self) {
        let Some((window, thread)) = &self.orders.window else {
            return;
        };
        let before = self.place;
        loop {
            let at = self.place as usize % self.reached.len();
            if self.reached[at] < self.connections.len() {
                break;
            }
            self.reached[at] = 0;
            self.place += 1;
        }
        if self.place > before {
            window.reached(*thread, self.place);
        }
    }
}
