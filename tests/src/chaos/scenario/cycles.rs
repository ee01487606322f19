//! R13: connect and go, again and again, in every good and bad way, from many addresses, as many users. Afterwards
//! the node is as it was.

use std::{
    net::{Ipv4Addr, SocketAddr},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    chaos::{
        outcome::Outcome,
        publishers::user,
        stage::{Options, Stage},
    },
    token::token,
};

const CYCLES: u64 = 100_000;
/// Clients that stay all the time, and must notice nothing.
const CLIENTS: usize = 20;
const RATE: u32 = 100;
const AT_ONCE: u64 = 64;
const USERS: u64 = 5_000;
const ADDRESSES: u64 = 20_000;
/// How long anything of one cycle may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the node may take to be as before.
const SETTLING: Duration = Duration::from_secs(60);
/// What memory may grow by, beside the tenth of what it was: the allocator's own.
const GROWTH: u64 = 8_000_000;

pub(super) async fn run(options: &Options) -> anyhow::Result<Outcome> {
    let settings = [
        // Counted, as every address comes but seldom.
        ("RIVULET_LIMITS_CONNECTIONS_PER_ADDRESS", "1000".to_owned()),
        ("RIVULET_LIMITS_HANDSHAKES_PER_ADDRESS", "1000".to_owned()),
        // Of a size that the first part of the cycles fills.
        ("RIVULET_HISTORY_MAX_BYTES", "256KiB".to_owned()),
    ];
    let mut stage = Stage::set(options, 1, &settings).await?;
    let doors = stage.doors();
    let clients = stage.planned_clients(CLIENTS);
    stage.gather(clients, &doors).await?;
    stage.publish(RATE);
    let cycles = stage.planned_faults(CYCLES);
    let first = cycles / 10;

    // What is made at the first use of each way is there after a tenth.
    cycle(&stage, 0..first).await?;
    let before = Vitals::take(&mut stage, clients, None).await?;
    let began = Instant::now();
    cycle(&stage, first..cycles).await?;
    let rate = (cycles - first) as f64 / began.elapsed().as_secs_f64();
    let after = Vitals::take(&mut stage, clients, Some(&before)).await?;

    stage.problems.extend(after.complaints(&before));
    stage.figures.push(("cycles a second", format!("{rate:.0}")));
    stage.figures.push(("before", format!("{before}")));
    stage.figures.push(("after", format!("{after}")));
    let (outcome, _) = stage.end("r13").await?;
    Ok(outcome)
}

/// What a node holds.
#[derive(Debug)]
struct Vitals {
    memory: u64,
    descriptors: usize,
    tasks: f64,
    addresses: f64,
    users: f64,
    subscriptions: u64,
}

impl Vitals {
    /// What it holds once it has settled: nobody but those who stay is there, and it holds no more than before, or
    /// [`SETTLING`] has passed.
    async fn take(stage: &mut Stage, clients: usize, before: Option<&Self>) -> anyhow::Result<Self> {
        let until = Instant::now() + SETTLING;
        loop {
            let node = &mut stage.nodes[0];
            let sessions = node.metric("rivulet_connections").await?;
            let pending = node.metric("rivulet_pending_handshakes").await?;
            let vitals = Self {
                memory: node.process().memory()?,
                descriptors: node.process().descriptors()?,
                tasks: node.metric("rivulet_tasks").await?,
                addresses: node.metric("rivulet_limits_addresses").await?,
                users: node.metric("rivulet_limits_users").await?,
                subscriptions: stage.cluster.subscriptions().await?,
            };
            // Those who stay come from one address, two of each user.
            let settled = sessions == clients as f64
                // That of this question itself.
                && pending <= 1.0
                && vitals.addresses == 1.0
                && vitals.users == clients.div_ceil(2) as f64
                && before.is_none_or(|before| vitals.complaints(before).is_empty());
            if settled || Instant::now() > until {
                ensure!(
                    before.is_some() || settled,
                    "{sessions} sessions and {pending} handshakes don't end: {vitals}"
                );
                return Ok(vitals);
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    fn complaints(&self, before: &Self) -> Vec<String> {
        let memory = before.memory + before.memory / 10 + GROWTH;
        [
            ("memory", self.memory > memory),
            ("descriptors", self.descriptors > before.descriptors),
            ("tasks", self.tasks > before.tasks),
            ("addresses", self.addresses > before.addresses),
            ("users", self.users > before.users),
            ("subscriptions", self.subscriptions > before.subscriptions),
        ]
        .into_iter()
        .filter(|(_, grew)| *grew)
        .map(|(name, _)| format!("{name} grew"))
        .collect()
    }
}

impl std::fmt::Display for Vitals {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{:.1} MB, {} descriptors, {} tasks, {} subscriptions, {} addresses, {} users",
            self.memory as f64 / 1e6,
            self.descriptors,
            self.tasks,
            self.subscriptions,
            self.addresses,
            self.users
        )
    }
}

/// Does these cycles, some at once.
async fn cycle(stage: &Stage, numbers: Range<u64>) -> anyhow::Result<()> {
    let door = stage.nodes[0].address;
    let next = Arc::new(AtomicU64::new(numbers.start));
    let mut workers = JoinSet::<anyhow::Result<()>>::new();
    for _ in 0..AT_ONCE {
        let (next, faults) = (Arc::clone(&next), Arc::clone(&stage.faults));
        workers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= numbers.end {
                    return Ok(());
                }
                let done = timeout(PATIENCE, one(door, number)).await;
                done.context("it takes too long")
                    .flatten()
                    .with_context(|| format!("cycle {number}"))?;
                faults.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    while let Some(done) = workers.join_next().await {
        done??;
    }
    Ok(())
}

/// Connects and goes, in one of eight ways.
async fn one(door: SocketAddr, number: u64) -> anyhow::Result<()> {
    // 127.1.0.0 and up: all of 127/8 is this machine.
    let address = Ipv4Addr::from_bits(0x7f01_0000 + (number % ADDRESSES) as u32);
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((address, 0)))?;
    let mut stream = socket.connect(door).await?;
    let user = user(1_000_000 + (number % USERS) as usize);
    match number % 8 {
        0 => {
            connect(&mut stream, "rivulet.v1, ", &token(&user), "events=*").await?;
            // A close frame, in an empty mask: 1000.
            stream.write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8]).await?;
            to_the_end(&mut stream).await
        }
        1 => {
            connect(&mut stream, "", &token(&user), "events=*").await?;
            Ok(())
        }
        2 => {
            connect(&mut stream, "rivulet.v1, ", &token(&user), "events=*").await?;
            Ok(stream.set_zero_linger()?)
        }
        3 => Ok(stream
            .write_all(b"GET /api/v1/ws HTTP/1.1\r\nhost: a\r\nupgr")
            .await?),
        4 => {
            ask(&mut stream, "", "nonsense", "").await?;
            to_the_end(&mut stream).await
        }
        5 => {
            let query = format!("events=blob.*&device=d{}", number % 3);
            connect(&mut stream, "rivulet.v1, ", &token(&user), &query).await?;
            Ok(())
        }
        6 => {
            connect(&mut stream, "", &token(&user), "events=*").await?;
            // A frame without a mask is against the protocol.
            stream.write_all(&[0x81, 0x02, b'h', b'i']).await?;
            to_the_end(&mut stream).await
        }
        _ => {
            // A place that is gone: a gap, and live from there.
            let query = "events=*&stream=RIVULET@1&seq=7";
            connect(&mut stream, "rivulet.v1, ", &token(&user), query).await?;
            Ok(stream.set_zero_linger()?)
        }
    }
}

/// Asks for an upgrade.
async fn ask(stream: &mut TcpStream, protocol: &str, token: &str, query: &str) -> anyhow::Result<()> {
    let request = format!(
        "GET /api/v1/ws?{query} HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
         sec-websocket-protocol: {protocol}bearer.{token}\r\n\r\n"
    );
    Ok(stream.write_all(request.as_bytes()).await?)
}

/// Asks for an upgrade and reads until the session has begun.
async fn connect(stream: &mut TcpStream, protocol: &str, token: &str, query: &str) -> anyhow::Result<()> {
    ask(stream, protocol, token, query).await?;
    let mut read = Vec::new();
    while !read
        .windows(b"\"connected\"".len())
        .any(|window| window == b"\"connected\"")
    {
        if stream.read_buf(&mut read).await? == 0 {
            bail!("refused: {}", String::from_utf8_lossy(&read));
        }
    }
    Ok(())
}

/// Reads until the node has closed.
async fn to_the_end(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await?;
    Ok(())
}
