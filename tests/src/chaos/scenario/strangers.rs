//! H1: whoever means no good, all at once: half handshakes, dripped and giant headers, giant and compressed frames, JSON
//! of any depth. They are refused in time, memory stays bounded, and who is here notices nothing.

use std::{io::Write as _, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use flate2::{Compression, write::DeflateEncoder};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    chaos::{
        outcome::Outcome,
        publishers::user,
        stage::{Options, Stage},
        stranger::{Stranger, closes_with, contains, frame},
        vitals::Vitals,
    },
    token::token,
};

/// Clients that are there all the time.
const CLIENTS: usize = 20;
const RATE: u32 = 100;
/// Half handshakes. Of every other kind there are fewer by a factor.
const STRANGERS: u64 = 10_000;
const FEWER: u64 = 50;
/// How long strangers may be endured.
const ENDURED: Duration = Duration::from_secs(10);
/// After which time one is endured for ever.
const PATIENCE: Duration = Duration::from_secs(120);
/// How much memory all of them may cost, in bytes: 4,096 places for half handshakes by default, of less than 2 KB, and
/// the rest, in an unoptimized build too.
const COST: u64 = 50_000_000;

/// A kind of stranger: comes with a number and a door, and returns once it is out.
type Kind = (&'static str, u64, Visit);
type Visit = fn(SocketAddr, u64, Arc<[u8]>) -> futures_util::future::BoxFuture<'static, anyhow::Result<()>>;

pub(super) async fn run(options: &Options) -> anyhow::Result<Outcome> {
    let settings = [
        ("RIVULET_LIMITS_CONNECTIONS_PER_ADDRESS", "1000".to_owned()),
        ("RIVULET_LIMITS_HANDSHAKES_PER_ADDRESS", "1000".to_owned()),
    ];
    let mut stage = Stage::set(options, 1, &settings).await?;
    let doors = stage.doors();
    let clients = stage.planned_clients(CLIENTS);
    stage.gather(clients, &doors).await?;
    stage.publish(RATE);
    stage.more(u64::from(RATE)).await;
    let before = Vitals::take(&mut stage, clients, None).await?;
    let many = stage.planned_faults(STRANGERS);
    let few = (many / FEWER).max(1);
    let kinds: [Kind; 6] = [
        ("half handshakes", many, |door, number, _| {
            Box::pin(half(door, number))
        }),
        ("dripped headers", few, |door, number, _| {
            Box::pin(dripped(door, number))
        }),
        ("giant headers", few, |door, number, _| {
            Box::pin(giant_header(door, number))
        }),
        ("giant frames", few, |door, number, _| {
            Box::pin(giant_frame(door, number))
        }),
        ("bombs", few, |door, number, bomb| {
            Box::pin(bombed(door, number, bomb))
        }),
        ("deep JSON", few, |door, number, _| Box::pin(deep(door, number))),
    ];
    let bomb: Arc<[u8]> = bomb()?.into();
    for (name, count, visit) in kinds {
        let began = Instant::now();
        let mut visits = JoinSet::new();
        for number in 0..count {
            visits.spawn(visit(doors[0], number, Arc::clone(&bomb)));
            stage.fault();
        }
        while let Some(visit) = visits.join_next().await {
            visit?.context(name)?;
        }
        let took = began.elapsed();
        if options.timed && took > ENDURED {
            stage.problems.push(format!("{name} were endured for {took:?}"));
        }
        let took = took.as_secs_f64();
        let peak = stage.nodes[0].process().peak_memory()?;
        let cost = peak.saturating_sub(before.memory);
        stage.figures.push((
            name,
            format!(
                "{count}, out after {took:.1} s at most, +{:.0} MB at most",
                cost as f64 / 1e6
            ),
        ));
        if cost > COST {
            stage.problems.push(format!("{name} cost {cost} bytes"));
        }
    }
    let after = Vitals::take(&mut stage, clients, Some(&before)).await?;
    // What so many at once took, the allocator keeps for the next; that it is bounded was seen above.
    stage.problems.extend(after.complaints(&before));
    stage.more(u64::from(RATE)).await;
    let (mut outcome, records) = stage.end("h1").await?;
    let moved: u64 = records.iter().map(|record| record.reconnects).sum();
    if moved > 0 {
        outcome
            .problems
            .push(format!("good clients had to connect again {moved} times"));
    }
    Ok(outcome)
}

/// Half a handshake, and silence.
async fn half(door: SocketAddr, number: u64) -> anyhow::Result<()> {
    let mut stranger = Stranger::come(door, number).await?;
    stranger
        .say(b"GET /api/v1/ws HTTP/1.1\r\nhost: a\r\nupgr")
        .await?;
    out(&mut stranger).await.map(drop)
}

/// Headers that come a byte at a time, and never end.
async fn dripped(door: SocketAddr, number: u64) -> anyhow::Result<()> {
    let mut stranger = Stranger::come(door, number).await?;
    stranger.say(b"GET /api/v1/ws HTTP/1.1\r\n").await?;
    let drip = async {
        while stranger.say(b"a").await.is_ok() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, drip).await.context("it may drip for ever")
}

/// A megabyte of headers.
async fn giant_header(door: SocketAddr, number: u64) -> anyhow::Result<()> {
    let mut stranger = Stranger::come(door, number).await?;
    let header = format!("GET /api/v1/ws HTTP/1.1\r\nx: {}", "x".repeat(1 << 20));
    // It may be cut off before it has said all.
    let _ = stranger.say(header.as_bytes()).await;
    out(&mut stranger).await.map(drop)
}

/// A frame of a megabyte, of somebody with a token.
async fn giant_frame(door: SocketAddr, number: u64) -> anyhow::Result<()> {
    let mut stranger = seated(door, number).await?;
    let _ = stranger.say(&frame(0x81, &vec![b' '; 1 << 20])).await;
    // A reset may have overtaken the close frame, as not all was read.
    out(&mut stranger).await.map(drop)
}

/// What a small frame becomes when it is inflated.
async fn bombed(door: SocketAddr, number: u64, bomb: Arc<[u8]>) -> anyhow::Result<()> {
    let mut stranger = seated(door, number).await?;
    // 0x40: compressed.
    stranger.say(&frame(0xc1, &bomb)).await?;
    let said = out(&mut stranger).await?;
    ensure!(closes_with(&said, 1009), "not closed with 1009");
    Ok(())
}

/// JSON as deep as a message may be long: an error like any other, and the session goes on.
async fn deep(door: SocketAddr, number: u64) -> anyhow::Result<()> {
    let mut stranger = seated(door, number).await?;
    stranger.say(&frame(0x81, &[b'['; 60_000])).await?;
    stranger.hear(b"INVALID_JSON").await?;
    stranger.say(&frame(0x81, br#"{"type":"ping"}"#)).await?;
    stranger.hear(b"\"pong\"").await?;
    // A million would be too long before it is too deep.
    let _ = stranger.say(&frame(0x81, &[b'['; 1_000_000])).await;
    out(&mut stranger).await.map(drop)
}

async fn seated(door: SocketAddr, number: u64) -> anyhow::Result<Stranger> {
    let mut stranger = Stranger::come(door, number).await?;
    let user = user(1_000_000 + number as usize);
    stranger
        .begin("rivulet.v1", &token(&user), "events=blob.*")
        .await?;
    Ok(stranger)
}

/// Waits until the node has had enough; returns what it said.
async fn out(stranger: &mut Stranger) -> anyhow::Result<Vec<u8>> {
    timeout(PATIENCE, stranger.rest())
        .await
        .context("it is endured for ever")
}

/// 32 MB of nothing, in as little as it takes.
fn bomb() -> anyhow::Result<Vec<u8>> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&vec![b' '; 32 << 20])?;
    encoder.flush()?;
    let mut bomb = encoder.get_ref().clone();
    // RFC 7692, 7.2.1: what a flush ends with is left out.
    ensure!(contains(&bomb, &[0, 0, 0xff, 0xff]), "no flush");
    bomb.truncate(bomb.len() - 4);
    ensure!(bomb.len() < 60_000, "it would be too long as it is");
    Ok(bomb)
}
