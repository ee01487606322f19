//! Who takes part: the router, the floor, and the peers, each started for one run.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use rivulet_tests::nats::Nats;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{
    client::{Dialect, Grant, OFFER_DEFLATE, Request},
    publish::{Published, Publisher},
    router::{Router, Session},
    scene::Scene,
    server::{Server, Start, free_port},
};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Contestant {
    Floor,
    Rivulet,
    Bun,
    Ws,
    Nats,
    SocketIo,
}

/// A started contestant.
pub(crate) struct Host {
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
    pub(crate) dialect: Dialect,
    /// The nats-server behind the router.
    pub(crate) nats: Option<Arc<Nats>>,
    /// Where its events come from; in its own process, where there is none.
    publishes: Option<async_nats::Client>,
    _kept: Vec<Kept>,
}

/// What must stand as long as its host.
enum Kept {
    #[expect(dead_code, reason = "held until the end")]
    Directory(TempDir),
}

/// Where events come from while a scene is played.
pub(crate) enum Source {
    Own,
    Publisher(Publisher),
}

impl Source {
    pub(crate) fn end(self, runtime: &Runtime) -> anyhow::Result<()> {
        match self {
            Self::Own => Ok(()),
            Self::Publisher(publisher) => publisher.end(runtime),
        }
    }
}

impl Contestant {
    /// By the name that the rows have for it; what stands behind a dash is a row's own matter.
    pub(crate) fn of(name: &str) -> anyhow::Result<Self> {
        Ok(match name {
            "floor" => Self::Floor,
            "bun" => Self::Bun,
            "ws" => Self::Ws,
            "nats-server" => Self::Nats,
            "socket.io" => Self::SocketIo,
            _ if name.starts_with("rivulet") => Self::Rivulet,
            _ => bail!("nobody is called {name}"),
        })
    }

    /// Starts it for this scene.
    pub(crate) fn host(self, runtime: &Runtime, scene: &Scene) -> anyhow::Result<Host> {
        match self {
            Self::Rivulet => {
                let router = Router::start(runtime, &scene.router)?;
                let publishes = Some(router.publishing_client(runtime));
                let (server, address, nats, kept) = router.into_parts();
                Ok(Host {
                    server,
                    address,
                    dialect: Dialect::Rivulet,
                    nats: Some(nats),
                    publishes,
                    _kept: vec![Kept::Directory(kept)],
                })
            }
            Self::Floor => own_source(
                &std::env::current_exe()?,
                &["floor".into()],
                Dialect::Bare,
                scene,
                true,
            ),
            Self::Bun => peer(".tools/bin/bun", "bun.mjs", Dialect::Bare, scene),
            Self::Ws => peer("node", "ws.mjs", Dialect::Bare, scene),
            Self::SocketIo => peer("node", "socketio.mjs", Dialect::SocketIo, scene),
            Self::Nats => nats_server(runtime, scene),
        }
    }

    /// What client number `number` asks it for.
    pub(crate) fn request(self, number: usize, scene: &Scene) -> Request {
        let path = match self {
            Self::Rivulet => {
                return Session {
                    patterns: &scene.patterns,
                    deflate: scene.deflate,
                    arrays: scene.arrays,
                }
                .request(&scene.user(number));
            }
            Self::SocketIo => "/socket.io/?EIO=4&transport=websocket",
            _ => "/",
        };
        Request {
            path: path.into(),
            headers: match scene.deflate {
                true => OFFER_DEFLATE.into(),
                false => String::new(),
            },
        }
    }
}

impl Host {
    /// Lets events come; the function is told how many may have been sent in all.
    pub(crate) fn source(
        &mut self,
        runtime: &Runtime,
        published: Published,
    ) -> anyhow::Result<(Source, Grant)> {
        match self.publishes.take() {
            None => Ok((Source::Own, self.server.grants()?)),
            Some(client) => {
                let publisher = Publisher::start(runtime, client, published);
                let grants = publisher.grants();
                Ok((Source::Publisher(publisher), grants))
            }
        }
    }
}

/// A server that makes the events itself, which spares it the way through NATS: its best case.
fn own_source(
    program: &Path,
    arguments: &[String],
    dialect: Dialect,
    scene: &Scene,
    is_floor: bool,
) -> anyhow::Result<Host> {
    let mut arguments = arguments.to_vec();
    let mut option = |name: &str, value: u64| arguments.extend([format!("--{name}"), value.to_string()]);
    option("connections", scene.sessions as u64);
    option("rate", scene.rate.unwrap_or(0).into());
    option("size", scene.size as u64);
    if let Some(batch) = scene.batch {
        option("batch", batch.as_millis() as u64);
    }
    if is_floor {
        // Where it writes at a rate that one thread can't, it has as many as clients have.
        let is_fast = scene.rate.is_none() || scene.batch.is_some();
        option("threads", if is_fast { 2 } else { 1 });
        if scene.deflate {
            arguments.push("--deflate".into());
        }
        if scene.each_to_one {
            arguments.push("--each-to-one".into());
        }
    }
    let mut server = Server::start(&Start {
        program,
        arguments: &arguments,
        environment: &[("NODE_ENV", "production".into())],
        cores: scene.router.workers,
    })?;
    let address = server.address()?;
    Ok(Host {
        server,
        address,
        dialect,
        nats: None,
        publishes: None,
        _kept: Vec::new(),
    })
}

fn peer(program: &str, file: &str, dialect: Dialect, scene: &Scene) -> anyhow::Result<Host> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let file = root.join("tests/load/peers").join(file);
    let program = match program.contains('/') {
        true => root.join(program),
        false => PathBuf::from(program),
    };
    own_source(&program, &[file.display().to_string()], dialect, scene, false)
        .with_context(|| format!("{}: `tests/setup node bun` sets it up", file.display()))
}

/// A nats-server whose own WebSocket the clients speak NATS on; the events come by core NATS, from outside.
fn nats_server(runtime: &Runtime, scene: &Scene) -> anyhow::Result<Host> {
    let directory = tempfile::tempdir()?;
    let (port, websocket) = (free_port()?, free_port()?);
    let file = directory.path().join("nats.conf");
    std::fs::write(
        &file,
        format!(
            "listen: \"127.0.0.1:{port}\"\nmax_connections: 65536\nwebsocket {{ listen: \"127.0.0.1:{websocket}\", no_tls: true }}\n"
        ),
    )?;
    let mut environment = Vec::new();
    if let Some(workers) = scene.router.workers {
        environment.push(("GOMAXPROCS", workers.to_string()));
    }
    let log = directory.path().join("log");
    let server = Server::start(&Start {
        program: &rivulet_tests::nats::binary(),
        arguments: &[
            "-c".into(),
            file.display().to_string(),
            "-l".into(),
            log.display().to_string(),
        ],
        environment: &environment,
        cores: scene.router.workers,
    })?;
    let url = format!("nats://127.0.0.1:{port}");
    runtime.block_on(rivulet_tests::until("nats-server to answer", async || {
        async_nats::connect(&url).await.is_ok()
    }));
    let client = runtime.block_on(async_nats::connect(&url))?;
    Ok(Host {
        server,
        address: SocketAddr::from(([127, 0, 0, 1], websocket)),
        dialect: Dialect::Nats,
        nats: None,
        publishes: Some(client),
        _kept: vec![Kept::Directory(directory)],
    })
}
