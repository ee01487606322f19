//! A router with a fault planted between the bus and the router; the rig must turn red with it. It reads the
//! configuration of the real one from the environment, and the fault from `CHAOS_PLANT`.

use std::io;

use rivulet_router::{
    Listeners,
    config::{Config, Inputs, Purpose},
};
use rivulet_tests::chaos::plant::{Plant, VARIABLE};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let plant: Plant = std::env::var(VARIABLE)?.parse()?;
    let config = Config::load(&Inputs::from_environment(None), Purpose::Router)
        .map_err(|problems| anyhow::anyhow!("{problems}"))?;
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(&config.log.filter)?)
        .with_writer(io::stderr)
        .init();
    let mut terminate = signal(SignalKind::terminate())?;
    let listeners = Listeners::bind(&config)?;
    rivulet_router::run_through(config, listeners, |sink| plant.before(sink), async move {
        terminate.recv().await;
    })
    .await
}
