//! Router processes: the real program, each on ports of its own that stay the same when it is started again.

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use super::{
    plant::{Plant, VARIABLE},
    ports,
    process::Process,
};
use crate::token::SECRET;

/// How long a node may take to be ready.
const READY: Duration = Duration::from_secs(120);

/// The sources of a feed by user.
const BY_USER: &str = "[{subject = 'blob.*.*', audience = 'token:2'}, {subject = 'processor.*.*', audience = 'token:2'}, \
    {subject = 'book.*.*', audience = 'token:2'}, {subject = 'conversation.*.*', audience = 'token:2'}]";

/// What every node of a run is started with.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    plant: Option<Plant>,
    /// Whether the feed is by user.
    pub by_user: bool,
}

/// A router in a process of its own; killed when dropped.
#[derive(Debug)]
pub struct Node {
    process: Process,
    /// Where clients connect.
    pub address: SocketAddr,
    admin: SocketAddr,
    _directory: TempDir,
}

impl Program {
    /// The program `rivulet` beside this one; with a plant, the faulty router beside this one.
    ///
    /// # Errors
    /// If it is not there.
    pub fn find(plant: Option<Plant>, by_user: bool) -> anyhow::Result<Self> {
        let name = match plant {
            None => "rivulet",
            Some(_) => "faulty-router",
        };
        let path = std::env::current_exe()?.with_file_name(name);
        if !path.is_file() {
            bail!(
                "there is no {}: build it in the same profile first",
                path.display()
            );
        }
        Ok(Self { path, plant, by_user })
    }

    /// The router of this path.
    pub fn at(path: PathBuf) -> Self {
        Self {
            path,
            plant: None,
            by_user: false,
        }
    }
}

impl Node {
    /// Starts one on these NATS servers with these variables of the environment, and waits until it is ready.
    ///
    /// # Errors
    /// If it is not, three times with other ports.
    pub async fn start(
        program: &Program,
        nats: &[String],
        settings: &[(&str, String)],
    ) -> anyhow::Result<Self> {
        let mut fault = None;
        for _ in 0..3 {
            let mut node = Self::prepare(program, nats, settings)?;
            node.process.start()?;
            match node.ready().await {
                Ok(_) => return Ok(node),
                Err(error) => fault = Some(error),
            }
        }
        Err(fault.expect("it was tried"))
    }

    fn prepare(program: &Program, nats: &[String], settings: &[(&str, String)]) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let [clients, admin] = ports::free();
        let text = |value: &str| value.to_owned();
        let mut environment = vec![
            (text("RIVULET_LISTEN"), format!("127.0.0.1:{clients}")),
            (text("RIVULET_ADMIN_LISTEN"), format!("127.0.0.1:{admin}")),
            (text("RIVULET_NATS_URL"), nats.join(",")),
            (text("RIVULET_JWT_SECRET"), text(SECRET)),
            (text("RIVULET_DATA_DIR"), directory.path().display().to_string()),
            (text("RIVULET_LIMITS_CONNECTIONS_PER_ADDRESS"), text("0")),
            (text("RIVULET_LIMITS_HANDSHAKES_PER_ADDRESS"), text("0")),
            (text("RIVULET_STREAM_MAX_BYTES"), text("256MiB")),
            (text("RIVULET_SESSIONS_HEARTBEAT"), text("3s")),
            (text("RIVULET_DRAIN_SPREAD"), text("1s")),
            (text("NO_COLOR"), text("1")),
        ];
        if program.by_user {
            environment.push((text("RIVULET_STREAM_FEED"), text("by_user")));
            environment.push((text("RIVULET_SOURCES"), text(BY_USER)));
        }
        // The last of a name counts.
        environment.extend(settings.iter().map(|(name, value)| (text(name), value.clone())));
        let mut arguments = vec![text("serve")];
        if let Some(plant) = program.plant {
            environment.push((text(VARIABLE), plant.to_string()));
            arguments.clear();
        }
        let log = directory.path().join("log");
        Ok(Self {
            process: Process::new(&program.path, arguments, environment, log),
            address: SocketAddr::from(([127, 0, 0, 1], clients)),
            admin: SocketAddr::from(([127, 0, 0, 1], admin)),
            _directory: directory,
        })
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The sum of a metric over all its labels.
    ///
    /// # Errors
    /// If the node does not answer.
    pub async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let page = reqwest::get(format!("http://{}/metrics", self.admin)).await?;
        let page = page.error_for_status()?.text().await?;
        let of_name = |line: &&str| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        };
        let values = page.lines().filter(of_name);
        values
            .map(|line| Ok(line.rsplit(' ').next().unwrap_or_default().parse::<f64>()?))
            .sum()
    }

    /// Starts it again on the same ports.
    ///
    /// # Errors
    /// If it doesn't start, or doesn't become ready.
    pub async fn restart(&mut self) -> anyhow::Result<Duration> {
        self.process.start()?;
        self.ready().await
    }

    /// Drains it (SIGTERM) and waits until it has ended by itself.
    ///
    /// # Errors
    /// If it takes more than 30 s, or fails.
    pub async fn drain(&mut self) -> anyhow::Result<()> {
        self.process.terminate();
        let status = self.process.ended(Duration::from_secs(30)).await?;
        if !status.success() {
            bail!(
                "a drained node ended with {status}: {}",
                self.process.last_words()
            );
        }
        Ok(())
    }

    /// Waits until it is ready, and says how long that took.
    ///
    /// # Errors
    /// If it ends or is not ready within [`READY`].
    pub async fn ready(&mut self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let url = format!("http://{}/health/ready", self.address);
        let pages = reqwest::Client::builder()
            .timeout(Duration::from_secs(2))
            .build()?;
        loop {
            if pages
                .get(&url)
                .send()
                .await
                .is_ok_and(|answer| answer.status() == 200)
            {
                return Ok(began.elapsed());
            }
            if !self.process.lives() || began.elapsed() > READY {
                let words = self.process.last_words();
                return Err(anyhow::anyhow!(words)).context("a node is not ready");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
