//! The connections between nodes and NATS are cut, stalled and delayed; clients keep theirs.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rand::{RngExt, rngs::SmallRng};

use crate::chaos::{
    cluster::SERVERS,
    node::Node,
    outcome::Outcome,
    proxy::{Direction, Fate, Fault, Plan, Proxy},
    stage::{Options, Stage},
};

const CLIENTS: usize = 200;
const FAULTS: u64 = 60;
const RATE: u32 = 500;

pub(super) async fn run(options: &Options) -> anyhow::Result<Outcome> {
    let mut stage = Stage::set(options, 0, &[]).await?;
    let plan = Plan::new(options.seed, far_point, Arc::clone(&stage.faults));
    let mut proxies = Vec::new();
    for _ in 0..options.nodes.unwrap_or(2) {
        let mut urls = Vec::new();
        for server in 0..SERVERS {
            let target = SocketAddr::from(([127, 0, 0, 1], stage.cluster.port(server)));
            let proxy = Proxy::start(target, Arc::clone(&plan)).await?;
            urls.push(format!("nats://{}", proxy.address));
            proxies.push(proxy);
        }
        stage.nodes.push(Node::start(&options.program, &urls, &[]).await?);
    }
    let doors = stage.doors();
    let clients = stage.planned_clients(CLIENTS);
    stage.gather(clients, &doors).await?;
    stage.publish(RATE);
    let faults = stage.planned_faults(FAULTS);
    while stage.faults.load(std::sync::atomic::Ordering::Relaxed) < faults {
        stage.more(10).await;
    }
    plan.calm();
    stage.more(u64::from(RATE)).await;
    let (outcome, _) = stage.end("links").await?;
    Ok(outcome)
}

/// Anywhere in some seconds of the feed.
fn far_point(random: &mut SmallRng) -> Option<Fate> {
    let pause = Duration::from_millis(random.random_range(100..6_000));
    let fault = match random.random_range(0..8) {
        0..=1 => Fault::Reset,
        2..=3 => Fault::Finish,
        4 => Fault::HalfClose,
        5 => Fault::StallAndReset(pause),
        6 => Fault::Stall(pause),
        _ => Fault::Delay(pause / 40),
    };
    Some(Fate {
        direction: Direction::Down,
        after: 10f64.powf(random.random_range(3.5..6.0)) as u64,
        fault,
    })
}
