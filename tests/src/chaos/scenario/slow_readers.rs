//! S1: one reader is dead and ten are slow among many. They are cut and lose nothing by it; the others don't notice.

use std::time::Duration;

use crate::chaos::{
    client::Order,
    outcome::Outcome,
    publishers::Flow,
    stage::{CONNECTING, Options, Stage},
};

const CLIENTS: usize = 200;
const SLOW: usize = 10;
/// Windows with slow readers, each beside one without.
const PAIRS: u64 = 10;
const RATE: u32 = 200;
/// How long the dead one reads nothing, and about how long a window is.
const WINDOW: Duration = Duration::from_secs(3);

pub(super) async fn run(options: &Options) -> anyhow::Result<Outcome> {
    let settings = [
        ("RIVULET_SESSIONS_OUTBOX_EVENTS", "100".to_owned()),
        ("RIVULET_SESSIONS_OUTBOX_BYTES", "64KiB".to_owned()),
        ("RIVULET_SESSIONS_MAX_EVENT_BYTES", "16KiB".to_owned()),
    ];
    let mut stage = Stage::set(options, 1, &settings).await?;
    let doors = stage.doors();
    let clients = stage.planned_clients(CLIENTS).max(SLOW * 2);
    // The first are those who will be slow; they want all there is.
    for number in 0..=SLOW {
        let mut profile = stage.profile(number, &doors);
        profile.patterns = ["*".parse()?].into();
        profile.narrow = true;
        stage.crowd.add(profile);
    }
    stage.gather(clients - SLOW - 1, &doors).await?;
    let rate = options.rate.unwrap_or(RATE);
    stage.publish_flow(Flow {
        rate,
        users: clients,
        everyone: 2,
        size: 2_000,
    });
    let window = u64::from(rate) * WINDOW.as_secs();
    let (mut latency, mut cpu, mut memory) = (Vec::new(), Vec::new(), 0);
    for _ in 0..stage.planned_faults(PAIRS) {
        let calm = measure(&mut stage, window).await?;
        stage.crowd.order(0, Order::Sleep(WINDOW));
        for client in 1..=SLOW {
            stage.crowd.order(client, Order::Sleep(WINDOW / 2));
        }
        stage.fault();
        let slow = measure(&mut stage, window).await?;
        latency.push(slow.latency / calm.latency);
        cpu.push(slow.cpu / calm.cpu);
        memory = memory.max(stage.nodes[0].process().memory()?);
        stage.crowd.connected(CONNECTING).await?;
    }
    latency.sort_by(f64::total_cmp);
    cpu.sort_by(f64::total_cmp);
    stage.figures.push(("p99 with to without", ratio(&latency)));
    stage.figures.push(("CPU with to without", ratio(&cpu)));
    stage
        .figures
        .push(("memory at most", format!("{} MB", memory / 1_000_000)));
    let (mut outcome, records) = stage.end("s1").await?;
    let cut = |records: &[crate::chaos::record::Record]| -> u64 {
        let of_one = |record: &crate::chaos::record::Record| record.closes.get(&4413).copied().unwrap_or(0);
        records.iter().map(of_one).sum()
    };
    if cut(&records[..=SLOW]) == 0 {
        outcome
            .problems
            .push("no slow reader was cut with 4413: nothing is shown".to_owned());
    }
    let others = cut(&records[SLOW + 1..]);
    if others > 0 {
        outcome
            .problems
            .push(format!("{others} cut with 4413 among those who read"));
    }
    Ok(outcome)
}

struct Measured {
    latency: f64,
    /// Of the node, for each event that was new to a client.
    cpu: f64,
}

async fn measure(stage: &mut Stage, events: u64) -> anyhow::Result<Measured> {
    stage.crowd.latency.take_quantile(0.99);
    let before = stage.nodes[0].process().cpu()?;
    let delivered = stage.crowd.census().events();
    stage.more(events).await;
    let cpu = stage.nodes[0].process().cpu()? - before;
    let delivered = stage.crowd.census().events() - delivered;
    Ok(Measured {
        latency: stage.crowd.latency.take_quantile(0.99).as_secs_f64(),
        cpu: cpu.as_secs_f64() / delivered.max(1) as f64,
    })
}

/// The median of sorted ratios, and the interval in which it lies at 95 %: by ranks, as nothing is known of how
/// they are spread.
fn ratio(sorted: &[f64]) -> String {
    let count = sorted.len() as f64;
    let rank = ((count - 1.96 * count.sqrt()) / 2.0).floor().max(0.0) as usize;
    match (sorted.get(rank), sorted.iter().nth_back(rank)) {
        (Some(least), Some(most)) => {
            format!("{:.2} ({least:.2} to {most:.2})", sorted[sorted.len() / 2])
        }
        _ => "-".to_owned(),
    }
}
