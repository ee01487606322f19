//! The router as it is run: a process of its own beside its own nats-server, tokens checked, limits on.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use rivulet_tests::{
    nats::Nats,
    token::{SECRET, token},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{
    client::{OFFER_DEFLATE, Request},
    server::{Server, Start, free_port},
};

/// A running router.
pub(crate) struct Router {
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
    pub(crate) nats: Arc<Nats>,
    admin: SocketAddr,
    directory: TempDir,
}

/// How a router is started, beyond the defaults of its configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setup {
    /// Keys of the configuration.
    pub(crate) set: Vec<(&'static str, String)>,
    /// Worker threads, on as many processors.
    pub(crate) workers: Option<usize>,
}

impl Router {
    pub(crate) fn start(runtime: &Runtime, setup: &Setup) -> anyhow::Result<Self> {
        let nats = Arc::new(runtime.block_on(Nats::start()));
        let directory = tempfile::tempdir()?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let admin = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let program = std::env::current_exe()?.with_file_name("rivulet");
        let mut arguments = vec!["serve".to_owned()];
        let own = [
            ("listen", address.to_string()),
            ("admin_listen", admin.to_string()),
            ("nats_url", nats.url()),
            ("data_dir", directory.path().display().to_string()),
        ];
        for (key, value) in own.iter().chain(&setup.set) {
            arguments.extend(["--set".into(), format!("{key}={value}")]);
        }
        let mut environment = vec![
            ("RIVULET_LOG_FILTER", "warn".to_owned()),
            ("RIVULET_JWT_SECRET", SECRET.to_owned()),
        ];
        if let Some(workers) = setup.workers {
            environment.push(("TOKIO_WORKER_THREADS", workers.to_string()));
        }
        let server = Server::start(&Start {
            program: &program,
            arguments: &arguments,
            environment: &environment,
            cores: setup.workers,
        })
        .context("the router")?;
        runtime.block_on(rivulet_tests::until("the router to be ready", async || {
            reqwest::get(format!("http://{address}/health/ready"))
                .await
                .is_ok_and(|answer| answer.status() == 200)
        }));
        Ok(Self {
            server,
            address,
            nats,
            admin,
            directory,
        })
    }

    /// The process, where it listens, its NATS, and what must be kept as long.
    pub(crate) fn into_parts(self) -> (Server, SocketAddr, Arc<Nats>, TempDir) {
        (self.server, self.address, self.nats, self.directory)
    }

    /// A line of its metrics: the value behind this name and its labels.
    pub(crate) fn metric(&self, runtime: &Runtime, name: &str) -> anyhow::Result<f64> {
        let page = runtime.block_on(async {
            let answer = reqwest::get(format!("http://{}/metrics", self.admin)).await?;
            answer.text().await
        })?;
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.context("no such metric")?.parse()?)
    }

    pub(crate) fn publishing_client(&self, runtime: &Runtime) -> async_nats::Client {
        runtime.block_on(self.nats.client())
    }
}

/// What a session asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session<'a> {
    pub(crate) patterns: &'a str,
    pub(crate) deflate: bool,
    /// `rivulet.v1`, which may be sent arrays; else a plain client.
    pub(crate) arrays: bool,
}

impl Default for Session<'_> {
    fn default() -> Self {
        Self {
            patterns: "blob.*",
            deflate: false,
            arrays: false,
        }
    }
}

impl Session<'_> {
    /// The handshake of this user.
    pub(crate) fn request(&self, user: &str) -> Request {
        let token = token(user);
        let mut headers = String::new();
        if self.arrays {
            headers += "Sec-WebSocket-Protocol: rivulet.v1\r\n";
        }
        if self.deflate {
            headers += OFFER_DEFLATE;
        }
        let events = match self.patterns {
            "" => String::new(),
            patterns => format!("&events={patterns}"),
        };
        Request {
            path: format!("/api/v1/ws?token={token}{events}"),
            headers,
        }
    }
}
