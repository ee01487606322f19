//! R11: all clients lose their connection in the same moment and come back at once.

use std::time::Duration;

use tokio::time::Instant;

use crate::chaos::{
    client::Order,
    outcome::Outcome,
    stage::{CONNECTING, Options, Stage},
};

const CLIENTS: usize = 2_000;
const STAMPEDES: u64 = 3;
const RATE: u32 = 100;

pub(super) async fn run(options: &Options) -> anyhow::Result<Outcome> {
    let mut stage = Stage::set(options, 2, &[]).await?;
    let doors = stage.doors();
    let clients = stage.planned_clients(CLIENTS);
    stage.gather(clients, &doors).await?;
    stage.publish(RATE);
    let mut slowest = f64::MAX;
    let mut longest = Duration::ZERO;
    let mut calm = Duration::ZERO;
    for _ in 0..stage.planned_faults(STAMPEDES) {
        stage.crowd.latency.take_quantile(0.99);
        stage.more(u64::from(RATE) * 3).await;
        calm = calm.max(stage.crowd.latency.take_quantile(0.99));
        let before = stage.crowd.census().connects();
        let began = Instant::now();
        for client in 0..clients {
            stage.crowd.order(client, Order::Drop);
        }
        stage.fault();
        stage.crowd.sessions(before + clients as u64, CONNECTING).await?;
        let accepted = clients as f64 / began.elapsed().as_secs_f64();
        let head = stage.head().await?;
        stage.crowd.at(head, CONNECTING).await?;
        slowest = slowest.min(accepted);
        longest = longest.max(began.elapsed());
    }
    let milliseconds = |time: Duration| format!("{:.0} ms", time.as_secs_f64() * 1e3);
    let stormy = stage.crowd.latency.take_quantile(0.99);
    stage
        .figures
        .push(("sessions a second at least", format!("{slowest:.0}")));
    stage.figures.push((
        "all resumed at the latest in",
        format!("{:.1} s", longest.as_secs_f64()),
    ));
    stage.figures.push(("p99 calm", milliseconds(calm)));
    stage.figures.push(("p99 of the last one", milliseconds(stormy)));
    let (outcome, _) = stage.end("r11").await?;
    Ok(outcome)
}
