//! A nats-server with JetStream of a test's own.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use futures_util::StreamExt;
use tempfile::TempDir;

use crate::{soon, until};

/// A running nats-server on a free port of 127.0.0.1; killed when dropped.
pub struct Nats {
    process: Child,
    port: u16,
    jetstream: bool,
    directory: TempDir,
}

impl Nats {
    /// Starts one with JetStream.
    pub async fn start() -> Self {
        Self::launch(true).await
    }

    /// Starts one that has only core NATS.
    pub async fn start_without_jetstream() -> Self {
        Self::launch(false).await
    }

    async fn launch(jetstream: bool) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        // The server picks a free port and writes down which: `-1` is its word for that.
        let process = run(directory.path(), -1, jetstream);
        let mut nats = Self {
            process,
            port: 0,
            jetstream,
            directory,
        };
        let ports = nats
            .directory
            .path()
            .join(format!("nats-server_{}.ports", nats.process.id()));
        until("nats-server's ports file", async || {
            ports.exists() && port(&ports).is_some()
        })
        .await;
        nats.port = port(&ports).expect("it was there");
        nats.answers().await;
        nats
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// A client of it.
    pub async fn client(&self) -> async_nats::Client {
        async_nats::connect(self.url())
            .await
            .expect("nats-server answers")
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ends");
    }

    /// Starts it again, on the same port with the same store.
    pub async fn revive(&mut self) {
        self.process = run(self.directory.path(), i32::from(self.port), self.jetstream);
        self.answers().await;
    }

    async fn answers(&self) {
        let url = self.url();
        until("nats-server to answer", async || {
            let Ok(client) = async_nats::connect(&url).await else {
                return false;
            };
            let jetstream = async_nats::jetstream::new(client);
            !self.jetstream || jetstream.query_account().await.is_ok()
        })
        .await;
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits until the server has taken all that this client said: a subscription made before is then in force. (A
/// flush says only that the socket took it.)
pub async fn settle(client: &async_nats::Client) {
    let inbox = client.new_inbox();
    let mut echo = client.subscribe(inbox.clone()).await.expect("NATS takes it");
    client.publish(inbox, "".into()).await.expect("NATS takes it");
    soon("NATS to answer", echo.next()).await;
}

fn run(directory: &Path, port: i32, jetstream: bool) -> Child {
    let mut command = Command::new(binary());
    command.args(["-a", "127.0.0.1", "-p", &port.to_string()]);
    command.arg("--ports_file_dir").arg(directory);
    if jetstream {
        command.arg("-js").arg("-sd").arg(directory.join("store"));
    }
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nats-server starts")
}

fn port(file: &Path) -> Option<u16> {
    let ports: serde_json::Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    ports["nats"][0].as_str()?.rsplit(':').next()?.parse().ok()
}

/// The nats-server to test with: `RIVULET_NATS_SERVER`, `.tools/bin`, or the one on the `PATH`.
pub fn binary() -> PathBuf {
    if let Some(named) = env::var_os("RIVULET_NATS_SERVER") {
        return named.into();
    }
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/bin/nats-server");
    let on_path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&on_path).map(|folder| folder.join("nats-server"));
    std::iter::once(fetched)
        .chain(found)
        .find(|candidate| candidate.is_file())
        .expect("no nats-server: `./just test` fetches one into .tools/bin")
}
