//! R7: connections are cut at any byte: in the handshake, in a batch, in a replay, twice at once, two devices of a
//! user, with patterns that change in between, while events go on being published.

use std::{sync::Arc, time::Duration};

use rand::RngExt;
use rivulet_protocol::pattern::Pattern;

use crate::chaos::{
    client::Order,
    outcome::Outcome,
    proxy::{Plan, Proxy, any_point},
    publishers::{Flow, TYPES},
    stage::{CONNECTING, Options, Stage, wish},
};

const CLIENTS: usize = 60;
const CUTS: u64 = 2_000;
const RATE: u32 = 500;
/// Far fewer than a client misses while it is away: a replay does not fit the outbox.
const OUTBOX_EVENTS: u32 = 300;

pub(super) async fn run(options: &Options) -> anyhow::Result<Outcome> {
    let settings = [
        ("RIVULET_SESSIONS_OUTBOX_EVENTS", OUTBOX_EVENTS.to_string()),
        // All events, for those who ask for it: every second client.
        ("RIVULET_SESSIONS_COMPRESSION_THRESHOLD", "64".to_owned()),
    ];
    let mut stage = Stage::set(options, 2, &settings).await?;
    let plan = Plan::new(options.seed, any_point, Arc::clone(&stage.faults));
    let mut proxies = Vec::new();
    for node in &stage.nodes {
        proxies.push(Proxy::start(node.address, Arc::clone(&plan)).await?);
    }
    let doors = proxies.iter().map(|proxy| proxy.address).collect();
    let clients = stage.planned_clients(CLIENTS);
    for number in 0..clients {
        let mut profile = stage.profile(number, &doors);
        profile.compressed = number % 2 == 0;
        stage.crowd.add(profile);
    }
    // A third is for everyone, so that there is much to replay.
    stage.publish_flow(Flow {
        rate: options.rate.unwrap_or(RATE),
        users: clients.max(2),
        everyone: 3,
        size: 100,
    });
    let faults = stage.planned_faults(CUTS);
    while stage.faults.load(std::sync::atomic::Ordering::Relaxed) < faults {
        stage.pass(1..20).await;
        let client = stage.random.random_range(0..clients);
        let order = order(&mut stage);
        stage.crowd.order(client, order);
    }
    plan.calm();
    stage.crowd.connected(CONNECTING).await?;
    stage.more(u64::from(RATE)).await;
    let (mut outcome, records) = stage.end("cuts").await?;
    let inflated: u64 = records.iter().map(|record| record.inflated).sum();
    outcome.figures.push(("compressed", inflated.to_string()));
    if inflated == 0 {
        outcome.problems.push("nothing came compressed".to_owned());
    }
    Ok(outcome)
}

/// What a client does by itself meanwhile.
fn order(stage: &mut Stage) -> Order {
    let random = &mut stage.random;
    let pattern: Pattern = TYPES[random.random_range(0..TYPES.len())]
        .parse()
        .expect("a type is a pattern");
    match random.random_range(0..8) {
        0..=2 => Order::Subscribe(pattern),
        3..=5 => Order::Unsubscribe(pattern),
        6 => Order::Drop,
        _ => Order::Return(Duration::from_millis(random.random_range(0..4_000)), wish(random)),
    }
}
