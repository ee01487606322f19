//! A node is frozen for a while: its clients notice the silence, go to the others, and leave ghosts behind.

use rand::RngExt;

use crate::chaos::{
    outcome::Outcome,
    stage::{CONNECTING, Options, Stage},
};

const NODES: usize = 2;
const CLIENTS: usize = 200;
const FREEZES: u64 = 6;
const RATE: u32 = 200;

pub(super) async fn run(options: &Options) -> anyhow::Result<Outcome> {
    let mut stage = Stage::set(options, NODES, &[]).await?;
    let doors = stage.doors();
    let clients = stage.planned_clients(CLIENTS);
    stage.gather(clients, &doors).await?;
    stage.publish(RATE);
    for _ in 0..stage.planned_faults(FREEZES) {
        stage.more(u64::from(RATE)).await;
        let victim = stage.random.random_range(0..stage.nodes.len());
        stage.nodes[victim].process().freeze();
        stage.fault();
        // Some are shorter than two heartbeats, some longer.
        stage.pass(1_000..15_000).await;
        stage.nodes[victim].process().thaw();
        stage.nodes[victim].ready().await?;
        stage.crowd.connected(CONNECTING).await?;
    }
    stage.more(u64::from(RATE)).await;
    let (outcome, _) = stage.end("freeze").await?;
    Ok(outcome)
}
