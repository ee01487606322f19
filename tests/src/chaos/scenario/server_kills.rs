//! R1: a random NATS server of three is killed, and back before the next one is.

use std::time::Duration;

use rand::RngExt;

use crate::chaos::{
    cluster::SERVERS,
    outcome::Outcome,
    stage::{Options, Stage},
};

const CLIENTS: usize = 500;
const KILLS: u64 = 100;
const RATE: u32 = 200;

pub(super) async fn run(options: &Options) -> anyhow::Result<Outcome> {
    let mut stage = Stage::set(options, 2, &[]).await?;
    let doors = stage.doors();
    let clients = stage.planned_clients(CLIENTS);
    stage.gather(clients, &doors).await?;
    stage.publish(RATE);
    let mut longest = Duration::ZERO;
    let mut of_leaders = 0;
    for _ in 0..stage.planned_faults(KILLS) {
        stage.more(u64::from(RATE) / 2).await;
        let victim = stage.random.random_range(0..SERVERS);
        of_leaders += u64::from(stage.cluster.leader().await == Some(victim));
        stage.cluster.process(victim).kill();
        stage.fault();
        stage.pass(0..2_000).await;
        stage.cluster.process(victim).start()?;
        longest = longest.max(stage.cluster.healed().await?);
    }
    stage.more(u64::from(RATE)).await;
    stage
        .figures
        .push(("of the stream's leader", of_leaders.to_string()));
    stage.figures.push((
        "healed at the latest in",
        format!("{:.1} s", longest.as_secs_f64()),
    ));
    let (outcome, _) = stage.end("r1").await?;
    Ok(outcome)
}
