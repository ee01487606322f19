//! No fault: everything comes, once and in order. What the rig says of a planted fault counts only beside this.

use crate::chaos::{
    outcome::Outcome,
    stage::{Options, Stage},
};

const CLIENTS: usize = 60;
const RATE: u32 = 400;
/// How many seconds of publishing.
const LASTS: u64 = 10;

pub(super) async fn run(options: &Options) -> anyhow::Result<Outcome> {
    let mut stage = Stage::set(options, 2, &[]).await?;
    let doors = stage.doors();
    let clients = stage.planned_clients(CLIENTS);
    stage.gather(clients, &doors).await?;
    stage.publish(RATE);
    let rate = options.rate.unwrap_or(RATE);
    stage.more(u64::from(rate) * LASTS).await;
    let (outcome, _) = stage.end("calm").await?;
    Ok(outcome)
}
