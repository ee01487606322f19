//! R2: a NATS server is frozen or killed for a while, the stream's leader or another; how long clients hear nothing.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use rand::RngExt;

use crate::chaos::{
    cluster::{HEALING, SERVERS},
    outcome::Outcome,
    publishers::Flow,
    stage::{Options, Stage},
};

const CLIENTS: usize = 200;
const FAULTS: u64 = 20;
const RATE: u32 = 200;
/// How long a fault lasts, in milliseconds.
const LASTS: std::ops::Range<u64> = 3_000..30_000;

pub(super) async fn run(options: &Options) -> anyhow::Result<Outcome> {
    let mut stage = Stage::set(options, 2, &[]).await?;
    let doors = stage.doors();
    let clients = stage.planned_clients(CLIENTS);
    stage.gather(clients, &doors).await?;
    // One in four is for everyone: whoever hears nothing for a second is cut off.
    stage.publish_flow(Flow {
        rate: options.rate.unwrap_or(RATE),
        users: clients.max(2),
        everyone: 4,
        size: 100,
    });
    let mut silences = BTreeMap::<&str, Duration>::new();
    for number in 0..stage.planned_faults(FAULTS) {
        stage.more(u64::from(RATE)).await;
        let leader = stage
            .cluster
            .leader()
            .await
            .context("a healed cluster has a leader")?;
        // All four kinds in turn.
        let (of_leader, freeze) = (number % 2 == 0, number / 2 % 2 == 0);
        let victim = match of_leader {
            true => leader,
            false => (leader + stage.random.random_range(1..SERVERS)) % SERVERS,
        };
        stage.crowd.take_silence(clients);
        match freeze {
            true => stage.cluster.process(victim).freeze(),
            false => stage.cluster.process(victim).kill(),
        }
        stage.fault();
        stage.pass(LASTS).await;
        match freeze {
            true => stage.cluster.process(victim).thaw(),
            false => stage.cluster.process(victim).start()?,
        }
        stage.cluster.healed().await?;
        // Whoever is still cut off counts as long as that lasts.
        let head = stage.head().await?;
        stage.crowd.at(head, HEALING).await?;
        let kind = match (of_leader, freeze) {
            (true, true) => "silence, leader frozen",
            (true, false) => "silence, leader killed",
            (false, true) => "silence, follower frozen",
            (false, false) => "silence, follower killed",
        };
        let silence = stage.crowd.take_silence(clients);
        let longest = silences.entry(kind).or_default();
        *longest = silence.max(*longest);
        // The election takes 4 to 9 s where it was the leader.
        let most = Duration::from_secs(if of_leader { 12 } else { 8 });
        if options.timed && silence > most {
            stage
                .problems
                .push(format!("{kind}: {:.1} s", silence.as_secs_f64()));
        }
    }
    for (kind, silence) in silences {
        let silence = format!("{:.1} s", silence.as_secs_f64());
        stage.figures.push((kind, silence));
    }
    let (outcome, _) = stage.end("r2").await?;
    Ok(outcome)
}
