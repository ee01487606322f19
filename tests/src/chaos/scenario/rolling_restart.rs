//! R4: every node is drained and started again, one after the other, as a deployment does it.

use crate::chaos::{
    outcome::Outcome,
    stage::{CONNECTING, Options, Stage},
};

const NODES: usize = 3;
const CLIENTS: usize = 500;
/// Drains: every node twice.
const DRAINS: u64 = 6;
const RATE: u32 = 200;

pub(super) async fn run(options: &Options) -> anyhow::Result<Outcome> {
    let mut stage = Stage::set(options, NODES, &[]).await?;
    let doors = stage.doors();
    let clients = stage.planned_clients(CLIENTS);
    stage.gather(clients, &doors).await?;
    stage.publish(RATE);
    let mut too_many = 0;
    for number in 0..stage.planned_faults(DRAINS) {
        stage.more(u64::from(RATE)).await;
        let victim = number as usize % stage.nodes.len();
        let before = stage.crowd.places();
        stage.nodes[victim].drain().await?;
        stage.fault();
        stage.crowd.connected(CONNECTING).await?;
        stage.nodes[victim].restart().await?;
        stage.more(u64::from(RATE) / 4).await;
        for ((door, connects), (_, now)) in before.into_iter().zip(stage.crowd.places()) {
            let permitted = u64::from(door == victim);
            too_many += u64::from(now - connects > permitted);
        }
    }
    if too_many > 0 {
        stage.problems.push(format!(
            "{too_many} times a client had to connect again more often than its node was drained"
        ));
    }
    let (outcome, _) = stage.end("r4").await?;
    Ok(outcome)
}
