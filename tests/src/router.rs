//! A router of a test's own, in this process.

use std::net::SocketAddr;

use rivulet_router::config::{Config, Inputs, Purpose};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};

use crate::{
    client::{Client, Connect},
    nats::Nats,
    soon,
    token::{SECRET, token},
    until,
};

/// A running router; ended when dropped.
pub struct Router {
    /// Where clients connect.
    pub address: SocketAddr,
    /// Where health and metrics are.
    pub admin: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<anyhow::Result<()>>,
    _directory: TempDir,
}

/// What a router is started with.
pub struct Setup {
    inputs: Inputs,
    directory: TempDir,
}

impl Setup {
    /// A router on this NATS, with the tests' secret and room for many connections of one address.
    pub fn on(nats: &Nats) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let inputs = Inputs::default()
            .set("listen", "127.0.0.1:0")
            .set("admin_listen", "127.0.0.1:0")
            .set("nats_url", &nats.url())
            .set("jwt_secret", SECRET)
            .set("data_dir", directory.path().to_str().expect("a path of text"))
            .set("limits.connections_per_address", "0")
            .set("limits.handshakes_per_address", "0")
            .set("drain.lame_duck", "0s")
            .set("drain.spread", "50ms");
        Self { inputs, directory }
    }

    /// Sets a key of the configuration.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.inputs = self.inputs.set(key, value);
        self
    }

    /// Starts it, and waits until it is ready.
    pub async fn start(self) -> Router {
        let router = self.launch();
        until("the router to be ready", async || {
            router.get("/health/ready").await.0 == 200
        })
        .await;
        router
    }

    /// Starts it, ready or not.
    pub fn launch(self) -> Router {
        let config =
            Config::load(&self.inputs, Purpose::Router).unwrap_or_else(|problems| panic!("{problems}"));
        let listeners = rivulet_router::Listeners::bind(&config).expect("free ports");
        let (address, admin) = (
            listeners.address(),
            listeners.admin_address().expect("an admin listener"),
        );
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(rivulet_router::run(config, listeners, async move {
            // Dropped counts as said.
            let _ = stopped.await;
        }));
        Router {
            address,
            admin,
            stop: Some(stop),
            task,
            _directory: self.directory,
        }
    }
}

impl Router {
    /// Starts one with the tests' defaults.
    pub async fn start(nats: &Nats) -> Self {
        Setup::on(nats).start().await
    }

    /// A plain client of this user.
    pub fn plain(&self, user: &str) -> Connect {
        Connect::plain(self.address, &token(user))
    }

    /// A `rivulet.v1` client of this user.
    pub fn v1(&self, user: &str) -> Connect {
        Connect::v1(self.address, &token(user))
    }

    /// A plain client of this user that has read `connected` and subscribed.
    pub async fn subscriber(&self, user: &str, patterns: &[&str]) -> Client {
        let mut client = self.plain(user).ready().await;
        client.subscribe(patterns).await;
        client
    }

    /// Status and JSON body of a page of the clients' port.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        let response = reqwest::get(format!("http://{}{path}", self.address))
            .await
            .expect("the router answers");
        let status = response.status().as_u16();
        (
            status,
            serde_json::from_str(&response.text().await.expect("a body")).unwrap_or_default(),
        )
    }

    /// A page of the admin port, as text.
    pub async fn admin_page(&self, path: &str) -> String {
        let response = reqwest::get(format!("http://{}{path}", self.admin))
            .await
            .expect("the router answers");
        response.text().await.expect("a body")
    }

    /// The value of a metric, written as it stands on the page: `rivulet_connections`, or with its labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let page = self.admin_page("/metrics").await;
        let value = page
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// Begins its end, as SIGTERM would.
    pub fn begin_end(&mut self) {
        self.stop.take();
    }

    /// Ends it and waits until it is over.
    pub async fn end(mut self) -> anyhow::Result<()> {
        self.begin_end();
        soon("the router to end", &mut self.task).await.expect("no panic")
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.task.abort();
    }
}
