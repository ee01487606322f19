//! The load, and the clients that measure what comes of it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail, ensure};
use async_nats::{HeaderMap, jetstream};
use bytes::{Buf, BytesMut};
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use crate::process::Server;

/// Events that are not measured, while the server warms up.
const WARM_UP: u64 = 20;

/// What is sent, and to how many.
pub(crate) struct Load {
    pub(crate) connections: usize,
    pub(crate) rate: u32,
    pub(crate) size: usize,
    pub(crate) duration: Duration,
}

/// What came of it.
pub(crate) struct Figures {
    pub(crate) cpu: Duration,
    pub(crate) deliveries: u64,
    /// Nanoseconds from the publisher to the client.
    pub(crate) latency: Histogram<u64>,
}

impl Figures {
    /// Microseconds.
    pub(crate) fn cpu_per_delivery(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.deliveries as f64
    }
}

impl Load {
    pub(crate) fn events(&self) -> u64 {
        WARM_UP + self.duration.as_secs() * u64::from(self.rate)
    }

    /// Connects all clients, has the events sent, and waits until each client has got each of them.
    pub(crate) async fn receive(
        &self,
        server: &Server,
        address: SocketAddr,
        send: impl AsyncFnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Figures> {
        let warm = Arc::new(AtomicU64::new(0));
        let mut clients: Vec<JoinHandle<anyhow::Result<Histogram<u64>>>> =
            Vec::with_capacity(self.connections);
        for number in 0..self.connections {
            let client = Client::connect(address, number, self.events(), Arc::clone(&warm)).await?;
            clients.push(tokio::spawn(client.run()));
        }
        let measured = async {
            while warm.load(Ordering::Relaxed) < self.connections as u64 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            server.cpu()
        };
        let (sent, before) = tokio::join!(send(), measured);
        sent?;
        let before = before?;
        let mut latency = Histogram::new(3)?;
        for of_client in try_join_all(clients).await? {
            latency.add(of_client?)?;
        }
        let cpu = server.cpu()? - before;
        Ok(Figures {
            cpu,
            deliveries: latency.len(),
            latency,
        })
    }

    /// Publishes all events, evenly, to everyone.
    pub(crate) async fn publish(&self, nats: &async_nats::Client) -> anyhow::Result<()> {
        let jetstream = jetstream::new(nats.clone());
        let mut ticks = interval(Duration::from_secs(1) / self.rate);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut acks = Vec::new();
        for number in 0..self.events() {
            ticks.tick().await;
            let mut headers = HeaderMap::new();
            headers.insert("Rivulet-Audience", "everyone");
            let payload = payload(number, self.size).into();
            acks.push(
                jetstream
                    .publish_with_headers("blob.bench", headers, payload)
                    .await?,
            );
        }
        for ack in acks {
            ack.await.context("JetStream acknowledges")?;
        }
        Ok(())
    }
}

/// An event's data: its number, when it was made, and padding up to `size` bytes.
pub(crate) fn payload(number: u64, size: usize) -> String {
    let start = format!(r#"{{"number":{number},"made":{},"pad":""#, now());
    let padding = size.saturating_sub(start.len() + 2);
    format!(r#"{start}{}"}}"#, "x".repeat(padding))
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_nanos() as u64
}

/// One connection that reads as little of a frame as it can, so that the client is not the limit.
struct Client {
    stream: TcpStream,
    input: BytesMut,
    events: u64,
    warm: Arc<AtomicU64>,
}

impl Client {
    async fn connect(
        address: SocketAddr,
        number: usize,
        events: u64,
        warm: Arc<AtomicU64>,
    ) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!(
            "GET /api/v1/ws?token=user-{number}&events=blob.* HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut input = BytesMut::new();
        let end = loop {
            ensure!(stream.read_buf(&mut input).await? > 0, "refused");
            if let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
        };
        ensure!(
            input.starts_with(b"HTTP/1.1 101"),
            "refused: {}",
            String::from_utf8_lossy(&input)
        );
        input.advance(end);
        Ok(Self {
            stream,
            input,
            events,
            warm,
        })
    }

    async fn run(mut self) -> anyhow::Result<Histogram<u64>> {
        let mut latency = Histogram::new(3)?;
        let mut next = 0;
        while next < self.events {
            while let Some(frame) = take_frame(&mut self.input)? {
                let Some((number, made)) = read_event(&frame) else {
                    continue;
                };
                ensure!(
                    number == next,
                    "event {number} came where {next} was due: lost, doubled or out of order"
                );
                next += 1;
                if next == WARM_UP {
                    self.warm.fetch_add(1, Ordering::Relaxed);
                } else if next > WARM_UP {
                    latency.record(now().saturating_sub(made))?;
                }
            }
            if next < self.events {
                ensure!(
                    self.stream.read_buf(&mut self.input).await? > 0,
                    "closed before event {next}"
                );
            }
        }
        Ok(latency)
    }
}

/// Takes the payload of the next whole frame (RFC 6455 §5.2, unmasked).
fn take_frame(input: &mut BytesMut) -> anyhow::Result<Option<BytesMut>> {
    let (header, length) = match *input.as_ref() {
        [_, length @ 0..=125, ..] => (2, usize::from(length)),
        [_, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([high, low]))),
        [_, 127, ..] => bail!("a frame beyond what the bench sends"),
        _ => return Ok(None),
    };
    if input.len() < header + length {
        return Ok(None);
    }
    input.advance(header);
    Ok(Some(input.split_to(length)))
}

/// Number and time of an event; `None` for any other frame.
fn read_event(frame: &[u8]) -> Option<(u64, u64)> {
    let field = |name: &str| {
        let at = frame
            .windows(name.len())
            .position(|window| window == name.as_bytes())?
            + name.len();
        let digits = frame[at..].split(|byte| !byte.is_ascii_digit()).next()?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    };
    Some((field(r#""number":"#)?, field(r#""made":"#)?))
}
