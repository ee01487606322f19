//! What a node pays for the events of others: four nodes, their users, and ten times the fleet's events while one
//! node's own stay as they are.
//!
//! Both feeds in one run, on the same NATS server and machine. CPU is the node's own process, read from the
//! operating system, over the same time at either rate. Each user's events are numbered: one that is lost,
//! doubled or out of order voids the run.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, ensure};
use async_nats::jetstream;
use bytes::{Buf, BytesMut};
use clap::Args;
use hdrhistogram::Histogram;
use rivulet_tests::{nats::Nats, until};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{MissedTickBehavior, interval},
};

const NODES: usize = 4;
const TIMES: u64 = 10;
const SOURCES: &str = "[{subject = 'blob.*.*', audience = 'token:2', validate = 'off'}]";
/// Acknowledgements that are waited for at once.
const IN_FLIGHT: usize = 2_048;

#[derive(Args)]
pub(crate) struct Feeds {
    /// Users of each node, with a connection each
    #[arg(long, default_value_t = 1_000)]
    users: usize,
    /// Events a second of the measured node's users
    #[arg(long, default_value_t = 100)]
    own: u64,
    /// Events a second of the whole fleet; then ten times as many
    #[arg(long, default_value_t = 400)]
    rate: u64,
    /// Bytes of an event's data
    #[arg(long, default_value_t = 200)]
    size: usize,
    /// Seconds of load for each figure
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How often both feeds are measured, in turn
    #[arg(long, default_value_t = 3)]
    repeat: usize,
}

/// A router in a process of its own.
struct Node {
    child: Child,
    address: SocketAddr,
    admin: SocketAddr,
    _directory: TempDir,
}

/// What one rate came to.
struct Figures {
    node: Duration,
    indexer: Duration,
    own: Histogram<u64>,
}

/// What has arrived.
#[derive(Default)]
struct Arrived {
    count: AtomicU64,
    /// Of the measured node's users: nanoseconds from the publisher on.
    own: Mutex<Option<Histogram<u64>>>,
    wrong: Mutex<Option<String>>,
}

pub(crate) async fn measure(feeds: &Feeds) -> anyhow::Result<()> {
    println!(
        "{NODES} nodes, {} users each, {} B; {} events/s of one node's own users, {} and {} of the fleet, {} s each",
        feeds.users,
        feeds.size,
        feeds.own,
        feeds.rate,
        feeds.rate * TIMES,
        feeds.seconds
    );
    println!(
        "{:<9} {:>9} {:>12} {:>10} {:>10} {:>10} {:>14}",
        "feed", "events/s", "node CPU %", "p50 ms", "p99 ms", "read back", "indexer CPU %"
    );
    let mut ratios = [Vec::new(), Vec::new()];
    for _ in 0..feeds.repeat {
        for (feed, ratios) in ["whole", "by_user"].into_iter().zip(&mut ratios) {
            ratios.push(
                feeds
                    .of(feed)
                    .await
                    .with_context(|| format!("the feed `{feed}`"))?,
            );
        }
    }
    for (feed, mut ratios) in ["whole", "by_user"].into_iter().zip(ratios) {
        ratios.sort_by(f64::total_cmp);
        println!(
            "CPU of a node at {TIMES} times the fleet's events, `{feed}`: median {:.2} times ({:.2} to {:.2})",
            ratios[ratios.len() / 2],
            ratios[0],
            ratios[ratios.len() - 1]
        );
    }
    Ok(())
}

impl Feeds {
    /// How many times the CPU a node takes.
    async fn of(&self, feed: &str) -> anyhow::Result<f64> {
        let nats = Nats::start().await;
        let mut nodes = Vec::new();
        for _ in 0..NODES {
            nodes.push(Node::start(&nats, feed).await?);
        }
        // The last comes when there are indexers already, and is none.
        let measured = NODES - 1;
        let indexer = &nodes[0];
        let mut indexing = Vec::new();
        for node in &nodes {
            indexing.push(node.indexes().await);
        }
        ensure!(!indexing[measured], "the measured node indexes: {indexing:?}");
        let arrived = Arc::new(Arrived::default());
        for (number, node) in nodes.iter().enumerate() {
            for user in 0..self.users {
                let own = number == measured;
                connect(node.address, &name(number, user), own, Arc::clone(&arrived)).await?;
            }
        }
        let mut sent = vec![0; NODES * self.users];
        self.load(&nats, self.rate, 2, &mut sent, &arrived).await?;
        let mut taken = Vec::new();
        for rate in [self.rate, self.rate * TIMES] {
            *arrived.own.lock().expect("nobody panics with it") = Some(Histogram::new(3)?);
            let read_back = nodes[measured].metric("rivulet_feed_repaired_total").await;
            let before = (nodes[measured].cpu()?, indexer.cpu()?);
            self.load(&nats, rate, self.seconds, &mut sent, &arrived).await?;
            let figures = Figures {
                node: nodes[measured].cpu()? - before.0,
                indexer: indexer.cpu()? - before.1,
                own: arrived
                    .own
                    .lock()
                    .expect("nobody panics with it")
                    .take()
                    .unwrap_or(Histogram::new(3)?),
            };
            let percent = |cpu: Duration| cpu.as_secs_f64() * 100.0 / self.seconds as f64;
            println!(
                "{feed:<9} {rate:>9} {:>12.2} {:>10.2} {:>10.2} {:>10} {:>14}",
                percent(figures.node),
                figures.own.value_at_quantile(0.5) as f64 / 1e6,
                figures.own.value_at_quantile(0.99) as f64 / 1e6,
                nodes[measured].metric("rivulet_feed_repaired_total").await - read_back,
                match indexing[0] {
                    true => format!("{:.2}", percent(figures.indexer)),
                    false => "-".to_owned(),
                }
            );
            taken.push(figures.node.as_secs_f64());
        }
        Ok(taken[1] / taken[0])
    }

    /// Publishes evenly for some seconds, and waits until all has arrived.
    async fn load(
        &self,
        nats: &Nats,
        rate: u64,
        seconds: u64,
        sent: &mut [u64],
        arrived: &Arrived,
    ) -> anyhow::Result<()> {
        let jetstream = jetstream::new(nats.client().await);
        let of_others = (NODES - 1) * self.users;
        let mut ticks = interval(Duration::from_millis(5));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let begun = Instant::now();
        let mut acks = std::collections::VecDeque::new();
        let (mut own, mut all) = (0, 0);
        while all < rate * seconds {
            ticks.tick().await;
            let due = |rate: u64| {
                let due = begun.elapsed().as_secs_f64() * rate as f64;
                (due as u64).min(rate * seconds)
            };
            while all < due(rate) {
                all += 1;
                let user = if own < due(self.own) {
                    own += 1;
                    of_others + own as usize % self.users
                } else {
                    all as usize % of_others
                };
                let payload = payload(sent[user], self.size);
                sent[user] += 1;
                let subject = format!("blob.bench.{}", name(user / self.users, user % self.users));
                acks.push_back(jetstream.publish(subject, payload.into()).await?);
                if acks.len() > IN_FLIGHT
                    && let Some(ack) = acks.pop_front()
                {
                    ack.await?;
                }
            }
        }
        for ack in acks {
            ack.await?;
        }
        let sent = sent.iter().sum::<u64>();
        until("all events to arrive", async || {
            arrived.count.load(Ordering::Relaxed) >= sent
                || arrived.wrong.lock().expect("nobody panics with it").is_some()
        })
        .await;
        let wrong = arrived.wrong.lock().expect("nobody panics with it").take();
        ensure!(wrong.is_none(), "{}", wrong.unwrap_or_default());
        let count = arrived.count.load(Ordering::Relaxed);
        ensure!(count == sent, "{count} of {sent} events arrived");
        Ok(())
    }
}

impl Node {
    async fn start(nats: &Nats, feed: &str) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let free = || -> anyhow::Result<SocketAddr> {
            Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
        };
        let (address, admin) = (free()?, free()?);
        let program = std::env::current_exe()?.with_file_name("rivulet");
        let mut command = Command::new(&program);
        command.args(["serve", "--dev"]);
        for (key, value) in [
            ("listen", address.to_string()),
            ("admin_listen", admin.to_string()),
            ("nats_url", nats.url()),
            ("data_dir", directory.path().display().to_string()),
            ("stream.feed", feed.to_owned()),
            ("sources", SOURCES.to_owned()),
        ] {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        let child = command
            .env("RIVULET_LOG_FILTER", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("can't start {}", program.display()))?;
        let node = Self {
            child,
            address,
            admin,
            _directory: directory,
        };
        until("the node to be ready", async || {
            let ready = reqwest::get(format!("http://{address}/health/ready")).await;
            ready.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        // Who comes first indexes; the others hear it.
        let wait = Instant::now();
        while feed == "by_user" && !node.indexes().await && wait.elapsed() < Duration::from_secs(2) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(node)
    }

    async fn indexes(&self) -> bool {
        self.metric("rivulet_feed_indexing").await == 1
    }

    /// A metric's value; 0 where there is none.
    async fn metric(&self, name: &str) -> u64 {
        let Ok(page) = reqwest::get(format!("http://{}/metrics", self.admin)).await else {
            return 0;
        };
        let page = page.text().await.unwrap_or_default();
        let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
        page.lines().find_map(value).unwrap_or_default()
    }

    fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // proc(5): the name may hold spaces, so count from behind it; utime and stime are fields 14 and 15.
        let behind = stat.rsplit(')').next().unwrap_or_default();
        let fields: Vec<&str> = behind.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        let per_second = rustix::param::clock_ticks_per_second();
        Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn name(node: usize, user: usize) -> String {
    format!("n{node}u{user}")
}

fn payload(number: u64, size: usize) -> String {
    let start = format!(r#"{{"number":{number},"made":{},"pad":""#, now());
    let padding = size.saturating_sub(start.len() + 2);
    format!(r#"{start}{}"}}"#, "x".repeat(padding))
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_nanos() as u64
}

/// Connects a user, whose events are read until the node goes away.
async fn connect(address: SocketAddr, user: &str, own: bool, arrived: Arc<Arrived>) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "GET /api/v1/ws?token={user}&events=blob.* HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n\
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
    let user = user.to_owned();
    tokio::spawn(async move {
        let mut next = 0;
        loop {
            while let Some(frame) = take_frame(&mut input) {
                let Some((number, made)) = read_event(&frame) else {
                    continue;
                };
                if number != next {
                    let wrong = format!("{user}: event {number} came where {next} was due");
                    *arrived.wrong.lock().expect("nobody panics with it") = Some(wrong);
                }
                next = number + 1;
                if own && let Some(latency) = &mut *arrived.own.lock().expect("nobody panics with it") {
                    // It grows with what it is given.
                    let _ = latency.record(now().saturating_sub(made));
                }
                arrived.count.fetch_add(1, Ordering::Relaxed);
            }
            if !matches!(stream.read_buf(&mut input).await, Ok(1..)) {
                return;
            }
        }
    });
    Ok(())
}

/// Takes the payload of the next whole frame (RFC 6455 §5.2, unmasked).
fn take_frame(input: &mut BytesMut) -> Option<BytesMut> {
    let (header, length) = match *input.as_ref() {
        [_, length @ 0..=125, ..] => (2, usize::from(length)),
        [_, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([high, low]))),
        _ => return None,
    };
    if input.len() < header + length {
        return None;
    }
    input.advance(header);
    Some(input.split_to(length))
}

/// Number and time of an event; `None` for any other frame.
fn read_event(frame: &[u8]) -> Option<(u64, u64)> {
    let field = |name: &str| {
        let mut windows = frame.windows(name.len());
        let at = windows.position(|window| window == name.as_bytes())? + name.len();
        let digits = frame[at..].split(|byte| !byte.is_ascii_digit()).next()?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    };
    Some((field(r#""number":"#)?, field(r#""made":"#)?))
}
