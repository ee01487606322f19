//! What a connect costs, and a session that only waits: processor time for an accept, with its token new or known,
//! memory for an idle session and for a half handshake, and a token's check by itself.
//!
//! Two routers (`--router` twice) are measured in turn, so that what the machine does beside falls on both.

#![allow(clippy::print_stdout, reason = "a bench is there to print its figures")]

mod tokens;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use clap::Parser;
use rivulet_tests::{
    chaos::{
        node::{Node, Program},
        stranger::Stranger,
    },
    nats::Nats,
    token::token,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

#[derive(Parser)]
#[command(about = "What a connect costs, and a session that only waits")]
struct Arguments {
    /// Sessions, each of a user of its own
    #[arg(long, default_value_t = 5_000)]
    sessions: usize,
    /// Half handshakes that stay open at a time
    #[arg(long, default_value_t = 4_000)]
    half: usize,
    /// How often each router is measured, in turn
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// Only what the check of a token takes
    #[arg(long)]
    tokens: bool,
    /// The filter of its log; its lines go to a file
    #[arg(long, default_value = "info")]
    log: String,
    /// The router [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    router: Vec<PathBuf>,
}

/// How many come at a time.
const AT_ONCE: usize = 64;
/// How long what comes by itself may take to do so: freed memory, the last of the closes.
const SETTLE: Duration = Duration::from_secs(2);

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    tokio::runtime::Runtime::new()?.block_on(measure(arguments))
}

async fn measure(mut arguments: Arguments) -> anyhow::Result<()> {
    if arguments.tokens {
        return tokens::measure(arguments.repeat).await;
    }
    if arguments.router.is_empty() {
        arguments.router = vec![std::env::current_exe()?.with_file_name("rivulet")];
    }
    println!(
        "{} sessions of one pattern each, {} half handshakes, log {}",
        arguments.sessions, arguments.half, arguments.log
    );
    println!(
        "{:<24} {:>22} {:>22} {:>16} {:>10} {:>10}",
        "", "new token: user+kernel", "known token: the same", "close: the same", "B/session", "B/half"
    );
    for _ in 0..arguments.repeat {
        for router in &arguments.router {
            let figures = of_router(router, &arguments).await?;
            println!(
                "{:<24} {figures}",
                router.file_name().unwrap_or_default().to_string_lossy()
            );
        }
    }
    Ok(())
}

/// All of one router, fresh.
async fn of_router(router: &std::path::Path, arguments: &Arguments) -> anyhow::Result<String> {
    let nats = Nats::start().await;
    let settings = [
        ("RIVULET_LOG_FILTER", arguments.log.clone()),
        ("RIVULET_SESSIONS_HEARTBEAT", "2m".to_owned()),
        ("RIVULET_EDGE_HEADER_TIMEOUT", "1m".to_owned()),
        ("RIVULET_EDGE_MAX_PENDING_HANDSHAKES", "100000".to_owned()),
        ("RIVULET_EDGE_MAX_PENDING_HANDSHAKES_PER_ADDRESS", "0".to_owned()),
    ];
    let program = Program::at(router.to_owned());
    let mut node = Node::start(&program, &[nats.url()], &settings).await?;
    let door = node.address;
    let count = arguments.sessions;
    let tokens: Arc<[String]> = (0..count).map(|user| token(&format!("user-{user:06}"))).collect();

    // What is made once, by the first of a kind.
    drop(open(door, &tokens, 200.min(count)).await?);
    settle(&node, 0).await?;
    let idle = node.process().memory()?;
    let half = (0..arguments.half).map(|number| async move {
        let mut stranger = Stranger::come(door, number as u64).await?;
        stranger
            .say(b"GET /api/v1/ws HTTP/1.1\r\nhost: a\r\nupgr")
            .await?;
        Ok(stranger)
    });
    let strangers = all(half).await?;
    sleep(SETTLE).await;
    let per_half = node.process().memory()?.saturating_sub(idle) / arguments.half.max(1) as u64;
    let per_half = match arguments.half {
        0 => "-".to_owned(),
        _ => per_half.to_string(),
    };
    for stranger in strangers {
        stranger.reset()?;
    }
    drop(node);

    // A fresh one, as what the half handshakes took the allocator keeps.
    let mut node = Node::start(&program, &[nats.url()], &settings).await?;
    let door = node.address;
    let warm: Arc<[String]> = (0..200).map(|user| token(&format!("warm-{user}"))).collect();
    drop(open(door, &warm, warm.len()).await?);
    settle(&node, 0).await?;
    let idle = node.process().memory()?;
    let before = node.process().cpu_parts()?;
    let first = open(door, &tokens, count).await?;
    settle(&node, count).await?;
    let opened = node.process().cpu_parts()?;
    let per_session = (node.process().memory()? - idle) / count as u64;
    for stranger in first {
        stranger.reset()?;
    }
    settle(&node, 0).await?;
    let closed = node.process().cpu_parts()?;
    let again = open(door, &tokens, count).await?;
    settle(&node, count).await?;
    let reopened = node.process().cpu_parts()?;
    drop(again);

    let each = |from: (Duration, Duration), to: (Duration, Duration)| {
        let micros = |from: Duration, to: Duration| (to - from).as_secs_f64() * 1e6 / count as f64;
        let (user, kernel) = (micros(from.0, to.0), micros(from.1, to.1));
        format!("{user:.1}+{kernel:.1} µs")
    };
    Ok(format!(
        "{:>22} {:>22} {:>16} {per_session:>10} {per_half:>10}",
        each(before, opened),
        each(closed, reopened),
        each(opened, closed),
    ))
}

/// Opens a session for each of the first `count` tokens.
async fn open(door: SocketAddr, tokens: &Arc<[String]>, count: usize) -> anyhow::Result<Vec<Stranger>> {
    let session = |number: usize| {
        let tokens = Arc::clone(tokens);
        async move {
            let mut stranger = Stranger::come(door, number as u64).await?;
            stranger
                .begin("rivulet.v1", &tokens[number], "events=blob.*")
                .await?;
            Ok(stranger)
        }
    };
    all((0..count).map(session)).await
}

/// Does all of these, some at a time.
async fn all<F>(futures: impl Iterator<Item = F>) -> anyhow::Result<Vec<Stranger>>
where
    F: Future<Output = anyhow::Result<Stranger>> + Send + 'static,
{
    let futures: Arc<[_]> = futures
        .map(|future| std::sync::Mutex::new(Some(Box::pin(future))))
        .collect();
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (futures, next) = (Arc::clone(&futures), Arc::clone(&next));
        workers.spawn(async move {
            let mut done = Vec::new();
            while let Some(future) = futures.get(next.fetch_add(1, Ordering::Relaxed)) {
                let future = future.lock().expect("nobody panics with it").take();
                done.push(future.context("each is done once")?.await?);
            }
            anyhow::Ok(done)
        });
    }
    let mut done = Vec::new();
    while let Some(worker) = workers.join_next().await {
        done.extend(worker??);
    }
    Ok(done)
}

/// Waits until the node has so many sessions, and what comes after has come.
async fn settle(node: &Node, sessions: usize) -> anyhow::Result<()> {
    let until = Instant::now() + Duration::from_secs(60);
    while node.metric("rivulet_connections").await? != sessions as f64 {
        anyhow::ensure!(Instant::now() < until, "the node has not {sessions} sessions");
        sleep(Duration::from_millis(20)).await;
    }
    sleep(SETTLE).await;
    Ok(())
}
