//! Three nats-servers with JetStream, of which any can be killed, frozen and brought back.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;
use tempfile::TempDir;

use super::{ports, process::Process};
use crate::nats::binary;

/// The servers of a cluster.
pub const SERVERS: usize = 3;
/// How long a cluster may take to have leaders and all copies again.
pub const HEALING: Duration = Duration::from_secs(90);
/// The name of the routers' stream.
pub const STREAM: &str = "RIVULET";
/// How often the cluster is asked.
const LOOK: Duration = Duration::from_millis(50);

/// A running cluster; its servers are killed when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    servers: Vec<Server>,
    control: async_nats::Client,
    pages: reqwest::Client,
    _directory: TempDir,
}

#[derive(Debug)]
struct Server {
    name: String,
    port: u16,
    monitor: u16,
    process: Process,
}

impl Cluster {
    /// Starts one and waits until JetStream has a leader.
    ///
    /// # Errors
    /// If it does not come, three times with other ports.
    pub async fn start() -> anyhow::Result<Self> {
        let mut fault = None;
        for _ in 0..3 {
            match Self::attempt().await {
                Ok(cluster) => return Ok(cluster),
                Err(error) => fault = Some(error),
            }
        }
        Err(fault.expect("it was tried")).context("three nats-servers don't become a cluster")
    }

    async fn attempt() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let ports: [u16; 3 * SERVERS] = ports::free();
        let (clients, others) = ports.split_at(SERVERS);
        let (routes, monitors) = others.split_at(SERVERS);
        let all: Vec<String> = routes
            .iter()
            .map(|port| format!("nats-route://127.0.0.1:{port}"))
            .collect();
        let mut servers = Vec::new();
        for number in 0..SERVERS {
            let name = format!("n{number}");
            let home = directory.path().join(&name);
            std::fs::create_dir(&home)?;
            let file = home.join("nats.conf");
            // Nobody is told of other servers than those that he is given: a proxy may stand before them.
            let configuration = format!(
                "server_name: {name}\nlisten: \"127.0.0.1:{}\"\nhttp: \"127.0.0.1:{}\"\nmax_payload: 2MB\n\
                 jetstream {{ store_dir: \"{}\", max_file_store: 2GB, max_memory_store: 256MB }}\n\
                 cluster {{ name: chaos, no_advertise: true, listen: \"127.0.0.1:{}\", routes: [{}] }}\n",
                clients[number],
                monitors[number],
                home.join("store").display(),
                routes[number],
                all.join(", "),
            );
            std::fs::write(&file, configuration)?;
            let arguments = vec!["-c".to_owned(), file.display().to_string()];
            let mut process = Process::new(&binary(), arguments, Vec::new(), home.join("log"));
            process.start()?;
            servers.push(Server {
                name,
                port: clients[number],
                monitor: monitors[number],
                process,
            });
        }
        let urls: Vec<String> = servers.iter().map(Server::url).collect();
        let control = connect(&urls).await?;
        let mut cluster = Self {
            servers,
            control,
            pages: reqwest::Client::builder()
                .timeout(Duration::from_secs(2))
                .build()?,
            _directory: directory,
        };
        cluster.healed().await?;
        Ok(cluster)
    }

    /// The URLs of all servers.
    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(Server::url).collect()
    }

    /// A client of all servers.
    ///
    /// # Errors
    /// If none answers.
    pub async fn client(&self) -> anyhow::Result<async_nats::Client> {
        connect(&self.urls()).await
    }

    /// The rig's own client, for questions.
    pub fn control(&self) -> &async_nats::Client {
        &self.control
    }

    /// The port of a server's clients.
    pub fn port(&self, server: usize) -> u16 {
        self.servers[server].port
    }

    /// The process of a server.
    pub fn process(&mut self, server: usize) -> &mut Process {
        &mut self.servers[server].process
    }

    /// How many subscriptions the servers know, all together.
    ///
    /// # Errors
    /// If one of them does not say.
    pub async fn subscriptions(&self) -> anyhow::Result<u64> {
        let mut all = 0;
        for server in &self.servers {
            let page = format!("http://127.0.0.1:{}/varz", server.monitor);
            let page: Value = serde_json::from_str(&self.pages.get(page).send().await?.text().await?)?;
            all += page["subscriptions"].as_u64().context("subscriptions")?;
        }
        Ok(all)
    }

    /// Which server leads the stream, if one does.
    pub async fn leader(&self) -> Option<usize> {
        let leader = self.stream().await?["cluster"]["leader"].as_str()?.to_owned();
        self.servers.iter().position(|server| server.name == leader)
    }

    /// What the stream's leader says of it; `None` without a stream, or a leader.
    pub async fn stream(&self) -> Option<Value> {
        let subject = format!("$JS.API.STREAM.INFO.{STREAM}");
        let answer = tokio::time::timeout(Duration::from_secs(2), self.control.request(subject, "".into()))
            .await
            .ok()?
            .ok()?;
        let info: Value = serde_json::from_slice(&answer.payload).ok()?;
        info.get("state").is_some().then_some(info)
    }

    /// Waits until every server runs and is in step, JetStream has a leader, and the stream, if there is one, has
    /// a leader and all its copies. Says how long that took.
    ///
    /// # Errors
    /// If it doesn't come to that within [`HEALING`].
    pub async fn healed(&mut self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        loop {
            match self.look().await {
                Ok(()) => return Ok(began.elapsed()),
                Err(fault) if began.elapsed() > HEALING => {
                    return Err(fault.context("the cluster does not heal"));
                }
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        }
    }

    async fn look(&mut self) -> anyhow::Result<()> {
        let mut leads = None;
        for number in 0..self.servers.len() {
            let server = &mut self.servers[number];
            if !server.process.runs() {
                bail!("{} does not run: {}", server.name, server.process.last_words());
            }
            let page = |path: &str| format!("http://127.0.0.1:{}{path}", server.monitor);
            let health = self.pages.get(page("/healthz")).send().await?;
            if health.status() != 200 {
                bail!("{}: {}", server.name, health.text().await?);
            }
            let jsz: Value = serde_json::from_str(&self.pages.get(page("/jsz")).send().await?.text().await?)?;
            let leader = jsz["meta_cluster"]["leader"].as_str().unwrap_or_default();
            if leader.is_empty() || leads.get_or_insert_with(|| leader.to_owned()) != leader {
                bail!("{}: JetStream has no one leader", server.name);
            }
        }
        let subject = format!("$JS.API.STREAM.INFO.{STREAM}");
        let ask = self.control.request(subject, "".into());
        let answer = tokio::time::timeout(Duration::from_secs(2), ask).await??;
        let info: Value = serde_json::from_slice(&answer.payload)?;
        // No such stream.
        if info["error"]["err_code"] == 10059 {
            return Ok(());
        }
        let group = &info["cluster"];
        if group["leader"].as_str().unwrap_or_default().is_empty() {
            bail!("the stream has no leader: {info}");
        }
        for copy in group["replicas"].as_array().into_iter().flatten() {
            if copy["current"] != true || copy["offline"] == true {
                bail!("a copy of the stream is behind: {copy}");
            }
        }
        Ok(())
    }
}

impl Server {
    fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }
}

/// A client that notices a frozen server within some seconds and goes to another.
///
/// # Errors
/// If none of them answers in 30 s.
pub async fn connect(urls: &[String]) -> anyhow::Result<async_nats::Client> {
    let options = async_nats::ConnectOptions::new()
        .ping_interval(Duration::from_secs(2))
        .connection_timeout(Duration::from_secs(2))
        .retry_on_initial_connect();
    let client = options.connect(urls).await?;
    let until = Instant::now() + Duration::from_secs(30);
    while client.connection_state() != async_nats::connection::State::Connected {
        if Instant::now() > until {
            bail!("no nats-server answers");
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(client)
}
