//! What a delivery costs: the router beside a bare server that only writes prepared frames.
//!
//! Both serve the same connections the same events at the same rate, one after the other in one run; what
//! counts is the ratio, as machines are shared and noisy. CPU is the server process's own, read from the
//! operating system. A run in which an event is lost, doubled or out of order is void and fails.

#![allow(clippy::print_stdout, reason = "a bench is there to print its figures")]

mod feed;
mod floor;
mod load;
mod process;

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use rivulet_tests::nats::Nats;

use self::{
    load::{Figures, Load},
    process::Server,
};

#[derive(Parser)]
#[command(about = "CPU per delivered event and latency, beside a bare server on the same machine")]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// Connections, each of a user of its own
    #[arg(long, default_value_t = 1_000)]
    connections: usize,
    /// Events a second, each to every connection
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// Bytes of an event's data
    #[arg(long, default_value_t = 200)]
    size: usize,
    /// Seconds of load for each figure
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How often both are measured, in turn
    #[arg(long, default_value_t = 3)]
    repeat: usize,
}

#[derive(Subcommand)]
enum Part {
    /// What a node pays for the events of others, by feed
    Feed(feed::Feeds),
    /// The bare server; the bench starts it itself
    #[command(hide = true)]
    Floor {
        #[arg(long)]
        connections: usize,
        #[arg(long)]
        rate: u32,
        #[arg(long)]
        size: usize,
        #[arg(long)]
        events: u64,
    },
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    match arguments.part {
        Some(Part::Floor {
            connections,
            rate,
            size,
            events,
        }) => floor::serve(connections, rate, size, events),
        Some(Part::Feed(feeds)) => tokio::runtime::Runtime::new()?.block_on(feed::measure(&feeds)),
        None => tokio::runtime::Runtime::new()?.block_on(measure(&arguments)),
    }
}

async fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    let load = Load {
        connections: arguments.connections,
        rate: arguments.rate,
        size: arguments.size,
        duration: Duration::from_secs(arguments.seconds),
    };
    println!(
        "{} connections, {} B, {} deliveries/s, {} s each",
        load.connections,
        load.size,
        load.connections as u64 * u64::from(load.rate),
        arguments.seconds
    );
    println!(
        "{:<9} {:>14} {:>10} {:>10} {:>12}",
        "", "CPU µs/event", "p50 ms", "p99 ms", "deliveries"
    );
    let mut ratios = Vec::new();
    for _ in 0..arguments.repeat {
        let floor = of_floor(&load).await.context("the bare server")?;
        print("floor", &floor);
        let router = of_router(&load).await.context("the router")?;
        print("rivulet", &router);
        ratios.push(router.cpu_per_delivery() / floor.cpu_per_delivery());
    }
    ratios.sort_by(f64::total_cmp);
    let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
    println!(
        "CPU ratio, rivulet to floor: median {:.2} ({least:.2} to {most:.2})",
        ratios[ratios.len() / 2]
    );
    Ok(())
}

fn print(name: &str, figures: &Figures) {
    println!(
        "{name:<9} {:>14.2} {:>10.2} {:>10.2} {:>12}",
        figures.cpu_per_delivery(),
        figures.latency.value_at_quantile(0.5) as f64 / 1e6,
        figures.latency.value_at_quantile(0.99) as f64 / 1e6,
        figures.deliveries,
    );
}

async fn of_floor(load: &Load) -> anyhow::Result<Figures> {
    let program = std::env::current_exe()?;
    let text = |number: u64| number.to_string();
    let server = Server::start(
        &program,
        &[
            "floor",
            "--connections",
            &text(load.connections as u64),
            "--rate",
            &text(load.rate.into()),
            "--size",
            &text(load.size as u64),
            "--events",
            &text(load.events()),
        ],
    )?;
    let address = server
        .first_line()?
        .parse()
        .context("the bare server's address")?;
    load.receive(&server, address, async || Ok(())).await
}

async fn of_router(load: &Load) -> anyhow::Result<Figures> {
    let nats = Nats::start().await;
    let directory = tempfile::tempdir()?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let program: PathBuf = std::env::current_exe()?.with_file_name("rivulet");
    let server = Server::start(
        &program,
        &[
            "serve",
            "--dev",
            "--set",
            &format!("listen={address}"),
            "--set",
            "admin_listen=off",
            "--set",
            &format!("nats_url={}", nats.url()),
            "--set",
            &format!("data_dir={}", directory.path().display()),
        ],
    )?;
    rivulet_tests::until("the router to be ready", async || {
        reqwest::get(format!("http://{address}/health/ready"))
            .await
            .is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    let client = nats.client().await;
    load.receive(&server, address, async || load.publish(&client).await)
        .await
}
