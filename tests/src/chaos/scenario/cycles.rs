//! R13: connect and go, again and again, in every good and bad way, from many addresses, as many users. Afterwards
//! the node is as it was.

use std::{
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    chaos::{
        outcome::Outcome,
        publishers::user,
        stage::{Options, Stage},
        stranger::{Stranger, frame},
        vitals::Vitals,
    },
    token::token_with,
};

const CYCLES: u64 = 100_000;
/// Clients that stay all the time, and must notice nothing.
const CLIENTS: usize = 20;
const RATE: u32 = 100;
const AT_ONCE: u64 = 64;
const USERS: u64 = 5_000;
/// How long anything of one cycle may take.
const PATIENCE: Duration = Duration::from_secs(120);

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
    let first = cycles / 2;

    // What is made at the first use of each way, and what the allocator keeps for the next, is there half-way.
    cycle(&stage, 0..first).await?;
    let before = Vitals::take(&mut stage, clients, None).await?;
    let began = Instant::now();
    cycle(&stage, first..cycles).await?;
    let rate = (cycles - first) as f64 / began.elapsed().as_secs_f64();
    let after = Vitals::take(&mut stage, clients, Some(&before)).await?;

    stage.problems.extend(after.complaints(&before));
    if after.memory_grew(&before) {
        stage.problems.push("memory grew".to_owned());
    }
    stage.figures.push(("cycles a second", format!("{rate:.0}")));
    stage.figures.push(("before", format!("{before}")));
    stage.figures.push(("after", format!("{after}")));
    let (outcome, _) = stage.end("r13").await?;
    Ok(outcome)
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
                let done = async {
                    while let Err(fault) = one(door, number).await {
                        // A node that is not sure of its feed sends everybody away for a second.
                        if !fault.to_string().contains("UNAVAILABLE") {
                            return Err(fault);
                        }
                        sleep(Duration::from_secs(1)).await;
                    }
                    Ok(())
                };
                let done = timeout(PATIENCE, done).await;
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
    let mut stranger = Stranger::come(door, number).await?;
    // One token a user, whenever they come: as many are known half-way as at the end.
    let user = user(1_000_000 + (number % USERS) as usize);
    let token = token_with(&user, json!({ "exp": 4_000_000_000_u64 }));
    match number % 8 {
        0 => {
            stranger.begin("rivulet.v1", &token, "events=*").await?;
            stranger.say(&frame(0x88, &1000u16.to_be_bytes())).await?;
            stranger.rest().await;
        }
        1 => stranger.begin("", &token, "events=*").await?,
        2 => {
            stranger.begin("rivulet.v1", &token, "events=*").await?;
            stranger.reset()?;
        }
        3 => {
            stranger
                .say(b"GET /api/v1/ws HTTP/1.1\r\nhost: a\r\nupgr")
                .await?;
        }
        4 => {
            stranger.ask("", "nonsense", "").await?;
            stranger.rest().await;
        }
        5 => {
            let query = format!("events=blob.*&device=d{}", number % 3);
            stranger.begin("rivulet.v1", &token, &query).await?;
        }
        6 => {
            stranger.begin("", &token, "events=*").await?;
            // A frame without a mask is against the protocol.
            stranger.say(&[0x81, 0x02, b'h', b'i']).await?;
            stranger.rest().await;
        }
        _ => {
            // A place that is gone: a gap, and live from there.
            let query = "events=*&stream=RIVULET@1&seq=7";
            stranger.begin("rivulet.v1", &token, query).await?;
            stranger.reset()?;
        }
    }
    Ok(())
}
