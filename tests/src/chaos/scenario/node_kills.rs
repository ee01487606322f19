//! R3: a node is killed, and its clients go to the others. With a feed by user every third time the nodes that index
//! the stream for all die with it.

use std::time::Duration;

use hdrhistogram::Histogram;
use rand::RngExt;

use crate::chaos::{
    outcome::Outcome,
    stage::{CONNECTING, Options, Stage},
};

const NODES: usize = 3;
const CLIENTS: usize = 500;
const KILLS: u64 = 10;
const RATE: u32 = 200;

pub(super) async fn run(options: &Options) -> anyhow::Result<Outcome> {
    let mut stage = Stage::set(options, NODES, &[]).await?;
    let doors = stage.doors();
    let clients = stage.planned_clients(CLIENTS);
    stage.gather(clients, &doors).await?;
    stage.publish(RATE);
    let mut back = Histogram::<u64>::new(3)?;
    let mut indexers = 0;
    for number in 0..stage.planned_faults(KILLS) {
        stage.more(u64::from(RATE)).await;
        // One that has clients: a node that came back waits for its first.
        let client = stage.random.random_range(0..clients);
        let (victim, _) = stage.crowd.places()[client];
        let mut victims = vec![victim];
        let indexing = indexing(&stage).await?;
        if number % 3 == 2 {
            victims.extend(indexing.iter().filter(|node| **node != victim));
            // Somebody has to be left.
            victims.truncate(stage.nodes.len() - 1);
        }
        indexers += victims.iter().filter(|node| indexing.contains(node)).count();
        let before = stage.crowd.census().connects();
        for victim in &victims {
            stage.nodes[*victim].process().kill();
        }
        stage.fault();
        // Those of the dead node see it at once: its sockets are reset.
        let moved = stage.crowd.moved(before, CONNECTING).await?;
        back.record(moved.as_millis() as u64)?;
        stage.pass(0..1_000).await;
        for victim in victims {
            stage.nodes[victim].restart().await?;
        }
    }
    if options.program.by_user {
        stage.figures.push(("indexers killed", indexers.to_string()));
    }
    stage.more(u64::from(RATE)).await;
    stage.figures.push((
        "all back at the latest in",
        format!("{:.1} s", Duration::from_millis(back.max()).as_secs_f64()),
    ));
    let (outcome, _) = stage.end("r3").await?;
    Ok(outcome)
}

/// The nodes that index the stream for all: none where they all take the whole of it.
async fn indexing(stage: &Stage) -> anyhow::Result<Vec<usize>> {
    let mut indexing = Vec::new();
    for (number, node) in stage.nodes.iter().enumerate() {
        if node.metric("rivulet_feed_indexing").await? > 0.0 {
            indexing.push(number);
        }
    }
    Ok(indexing)
}
