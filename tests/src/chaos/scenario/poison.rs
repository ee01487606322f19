//! P1: messages that break those who read them, in the stream under load and again at every replay: a header that is
//! no UTF-8, forged headers of the server, a megabyte.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use rand::RngExt;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::chaos::{
    client::Order,
    outcome::Outcome,
    publishers::{data, user},
    stage::{CONNECTING, Options, Stage, wish},
};

const CLIENTS: usize = 100;
/// Poison of each kind.
const DOSES: u64 = 10;
const RATE: u32 = 300;
/// The metric of rejected events.
const REJECTED: &str = "rivulet_events_rejected_total";

/// As the server writes them; only the last of a name is the server's own.
const FORGED: &str = "Nats-Sequence: 999999\r\nNats-Stream: OTHER\r\nNats-Subject: book.created\r\n\
                      Nats-Last-Sequence: 7\r\nNats-Time-Stamp: 1999-01-01T00:00:00Z\r\n";

pub(super) async fn run(options: &Options) -> anyhow::Result<Outcome> {
    let mut stage = Stage::set(options, 2, &[]).await?;
    let doors = stage.doors();
    let clients = stage.planned_clients(CLIENTS);
    stage.gather(clients, &doors).await?;
    stage.publish(RATE);
    let doses = stage.planned_faults(DOSES);
    for number in 0..doses {
        stage.more(u64::from(RATE) / 3).await;
        // Some are away, and have it in their replay.
        for _ in 0..clients / 4 {
            let client = stage.random.random_range(0..clients);
            let away = Duration::from_millis(stage.random.random_range(500..3_000));
            let wish = wish(&mut stage.random);
            stage.crowd.order(client, Order::Return(away, wish));
        }
        stage.more(u64::from(RATE) / 3).await;
        let port = stage.cluster.port(number as usize % 3);
        let victim = user(stage.random.random_range(0..clients / 2));
        // No number: nobody may get these two.
        let bad = data("blob.created", &victim, 0, 10);
        store(port, b"X-Note: \xff\xfe\x80\r\n", &bad).await?;
        stage.fault();
        let megabyte = data("blob.created", &victim, 0, 1_000_000);
        store(port, b"", &megabyte).await?;
        stage.fault();
        // This one is an event as any other.
        let good = data("blob.created", &victim, FORGED_FROM + number, 10);
        store(port, FORGED.as_bytes(), &good).await?;
        stage.fault();
    }
    stage.more(u64::from(RATE) * 3).await;
    stage.crowd.connected(CONNECTING).await?;
    let head = stage.head().await?;
    stage.crowd.at(head, CONNECTING).await?;
    let mut rejected = Vec::new();
    for node in &stage.nodes {
        rejected.push(node.metric(REJECTED).await?);
    }
    if rejected.iter().any(|count| *count != (doses * 2) as f64) {
        stage.problems.push(format!(
            "the nodes rejected {rejected:?}, and {} were to be rejected once each",
            doses * 2
        ));
    }
    let (outcome, _) = stage.end("p1").await?;
    Ok(outcome)
}

/// Where the rig's numbers of forged events begin: far beyond those of the publishers.
const FORGED_FROM: u64 = 1 << 40;

/// How long a server may take to hear where the stream is.
const STORING: Duration = Duration::from_secs(10);

/// Stores a message with these bytes as its headers, by the wire: no client library sends them.
async fn store(port: u16, headers: &[u8], payload: &str) -> anyhow::Result<()> {
    let talk = async {
        while !try_store(port, headers, payload).await? {
            sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    timeout(STORING, talk)
        .await
        .context("no ack")?
        .context("poison is not stored")
}

/// Says whether anybody took it.
async fn try_store(port: u16, headers: &[u8], payload: &str) -> anyhow::Result<bool> {
    let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", port)).await?);
    let headers = [b"NATS/1.0\r\n", headers, b"\r\n"].concat();
    let first = format!(
        "CONNECT {{\"verbose\":false,\"headers\":true,\"no_responders\":true}}\r\nSUB ack 1\r\n\
         HPUB blob.created ack {} {}\r\n",
        headers.len(),
        headers.len() + payload.len()
    );
    for bytes in [first.as_bytes(), &headers, payload.as_bytes(), b"\r\n"] {
        stream.write_all(bytes).await?;
    }
    let mut line = String::new();
    loop {
        line.clear();
        ensure!(stream.read_line(&mut line).await? > 0, "closed");
        if line.starts_with("MSG ack") {
            line.clear();
            stream.read_line(&mut line).await?;
            ensure!(line.contains("\"seq\""), "not stored: {line}");
            return Ok(true);
        }
        // A status without a body: nobody is there to take it.
        if line.starts_with("HMSG ack") {
            return Ok(false);
        }
        ensure!(!line.starts_with("-ERR"), "{line}");
    }
}
