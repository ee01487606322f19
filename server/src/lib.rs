//! Rivulet carries events the last mile, from NATS subjects to every screen of the user they concern.
//!
//! The rooms, in the order in which an event passes them:
//!
//! - [`bus`]: NATS. Messages become [`event`]s, checked once; commands become requests.
//! - [`router`]: who is here and what they want. `dispatch` finds the sessions and encodes at the first match;
//!   the recent past stays with it, in [`history`].
//!   [`presence`] knows whose events a node takes.
//! - [`outbox`]: one session's bounded queue of [`encoded`] events, and the way out of it.
//! - [`flush`]: one task per shard of the router, which writes what was put into outboxes to the sockets.
//! - [`connection`]: one loop per socket, for all that is not a live event; what is read goes through the
//!   [`websocket`] codec.
//!
//! And around them: [`http`] (the only room that knows axum), [`auth`] (token to [`identity`]), [`limits`],
//! [`config`], [`families`], [`metrics`], [`shutdown`], and [`tasks`], the parts that run as long as the node.

pub mod auth;
pub mod bus;
pub mod command;
pub mod config;
pub mod connection;
mod descriptors;
pub mod encoded;
pub mod event;
pub mod families;
pub mod flush;
pub mod history;
pub mod http;
pub mod identity;
pub mod limits;
pub mod metrics;
pub mod outbox;
pub mod presence;
pub mod router;
pub mod shutdown;
pub mod tasks;
pub mod websocket;

use std::{
    io,
    net::SocketAddr,
    num::NonZero,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use anyhow::Context as _;
use futures_util::future::OptionFuture;
use rivulet_protocol::{codegen, event::EventType, validate::Validator};
use tokio::{
    net::{TcpListener, TcpSocket},
    runtime::Handle,
    time::{Instant, sleep, timeout},
};
use tracing::{error, info, warn};

use crate::{
    auth::Auth,
    bus::{
        Bus,
        source::{Rejection, Rule},
    },
    config::{Config, Feed},
    connection::{Node, handshake::Door},
    http::Pages,
    limits::{
        address::{AddressLimits, Addresses},
        seats::Seats,
    },
    metrics::Metrics,
    presence::Presence,
    router::{Keeping, Router},
    tasks::Tasks,
};

/// Connections that the system may hold before we accept them: a reconnecting crowd comes at once.
const BACKLOG: u32 = 4096;

/// The ports of a router, bound: from here on clients wait instead of being refused.
#[derive(Debug)]
pub struct Listeners {
    clients: TcpListener,
    admin: Option<TcpListener>,
}

impl Listeners {
    /// Binds what the configuration names.
    ///
    /// # Errors
    /// The address that can't be had, and why.
    pub fn bind(config: &Config) -> anyhow::Result<Self> {
        let listen = |address: SocketAddr, key: &'static str| {
            bind(address).with_context(|| {
                format!(
                    "can't listen on {address}, as `{key}` says; `--set {key}=ADDRESS:PORT` says otherwise"
                )
            })
        };
        Ok(Self {
            clients: listen(config.listen, "listen")?,
            admin: config
                .admin_listen
                .map(|address| listen(address, "admin_listen"))
                .transpose()?,
        })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.clients.local_addr().expect("a bound socket has an address")
    }

    /// Where health and metrics are.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
            .as_ref()
            .map(|admin| admin.local_addr().expect("a bound socket has an address"))
    }
}

/// Runs a router until `shutdown` ends, then drains it: tells every session, spreads the closes, waits for
/// commands in flight, lets go of NATS, and last of its ports, where it says until then that it drains.
///
/// # Errors
/// What keeps it from starting: keys that can't be read, a nats-server that can't be started, a stream that
/// can't be had. Once it runs, what goes wrong outside is waited out, logged and told by readiness; a part of the
/// node that ends ([`tasks::Ended`]) ends the node, after a drain.
pub async fn run(
    config: Config,
    listeners: Listeners,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    run_through(config, listeners, |sink| sink, shutdown).await
}

/// [`run`] with something between the bus and the router, which `wrap` puts there: how a test plants a fault.
///
/// # Errors
/// As [`run`].
pub async fn run_through(
    mut config: Config,
    listeners: Listeners,
    wrap: impl FnOnce(Arc<dyn bus::Sink>) -> Arc<dyn bus::Sink>,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    config.edge.max_connections = descriptors::for_clients(config.edge.max_connections);
    let catalog = Arc::clone(&config.catalog);
    let validator = Arc::new(Validator::new(&catalog));
    let metrics = Arc::new(Metrics::new(
        catalog.events().iter().map(|event| event.event_type.as_str()),
    ));
    let auth = Auth::new(
        &config.auth,
        &config.roles,
        &config.default_role,
        config.limits.devices_per_user,
        config.dev,
        Arc::clone(&metrics),
    );
    let auth = Arc::new(auth.context("tokens can't be checked as configured")?);
    let ephemeral = catalog.events().iter().filter(|event| event.ephemeral);
    let keeping = Keeping {
        bytes: config.history.max_bytes,
        ephemeral: Arc::new(ephemeral.map(|event| event.event_type.to_string()).collect()),
        presence: Arc::new(Presence::new(matches!(config.stream.feed, Feed::ByUser(_)))),
    };
    // As many as there are threads to write side by side.
    let workers = NonZero::new(Handle::current().metrics().num_workers()).unwrap_or(NonZero::<usize>::MIN);
    let router = Arc::new(Router::new(keeping.clone(), workers));
    let mut tasks = Tasks::default();
    for shard in 0..router.shards() {
        let (router, metrics) = (Arc::clone(&router), Arc::clone(&metrics));
        tasks.spawn(
            "flusher",
            flush::run(router, shard, config.sessions.linger, metrics),
        );
    }
    if config.dev {
        warn!(
            "development mode: any token that is not a JWT is itself the user id. Never where others can connect"
        );
    }

    let check = Arc::clone(&validator);
    let check = move |event_type: &EventType, data: &[u8]| {
        check
            .validate_event(event_type.as_str(), data)
            .map_err(|violation| {
                Rejection::new(Rule::Schema(violation.rule), violation.pointer, violation.message)
            })
    };
    let (mut bus, opening) = Bus::start(
        &config,
        Arc::new(check),
        wrap(Arc::clone(&router) as Arc<dyn bus::Sink>),
        keeping,
        Arc::clone(&metrics),
    )
    .await?;

    let (drain, draining) = shutdown::shutdown();
    let node = Arc::new(Node {
        router: Arc::clone(&router),
        backend: bus.backend(),
        archive: bus.archive(),
        auth: Arc::clone(&auth),
        catalog: Arc::clone(&catalog),
        validator,
        metrics: Arc::clone(&metrics),
        sessions: config.sessions.clone(),
        limits: config.limits.clone(),
        replay_deadline: config.history.replay_deadline,
        commands: config.commands.clone(),
        shutdown: draining.clone(),
    });
    let counted = |limit: usize| if config.dev { 0 } else { limit };
    let seats = Seats::new(config.sessions.heartbeat, Instant::now(), SystemTime::now());
    // Until the drain: sessions that are told to leave hold nobody's seat. A task, as each session that begins wakes
    // it: this one runs on a thread of its own, which the system would have to wake, too.
    tasks.spawn("seats", bus.share_seats(Arc::clone(&seats)));
    let door = Arc::new(Door {
        addresses: Addresses::new(AddressLimits {
            connections: counted(config.limits.connections_per_address),
            handshakes_per_second: if config.dev {
                0
            } else {
                config.limits.handshakes_per_address
            },
        }),
        seats: Arc::clone(&seats),
        feed: bus.feed(),
        node,
    });
    let opened = Arc::new(AtomicBool::new(false));
    let pages = Pages {
        documents: codegen::files(&catalog)
            .into_iter()
            .filter(|file| file.path.starts_with("schemas/"))
            .chain([codegen::families(&catalog)])
            .map(|file| match file.path.as_str() {
                "schemas/asyncapi.json" => ("asyncapi.json".to_owned(), file.text),
                _ => (file.path, file.text),
            })
            .collect(),
        front: config.dev.then_some(include_str!("http/front.html")),
    };

    info!(address = %listeners.address(), "clients connect here");
    let serving = http::serve_clients(
        listeners.clients,
        door,
        config.edge.clone(),
        config.dev,
        pages,
        Arc::clone(&opened),
    );
    tasks.spawn("clients' port", serving);
    if let Some(listener) = listeners.admin {
        let edge = config.edge.clone();
        let serving = http::serve_admin(listener, router, metrics, bus.feed(), edge, draining);
        tasks.spawn("admin port", serving);
    }
    tasks.spawn("key set", async move { auth.keep_keys_fresh().await });

    tokio::pin!(shutdown);
    let mut opening = opening;
    let mut lame_duck = None;
    let ended: anyhow::Result<()> = loop {
        tokio::select! {
            result = &mut opening, if !opened.load(Ordering::Relaxed) => match result {
                Ok(()) => {
                    opened.store(true, Ordering::Relaxed);
                    info!("ready");
                }
                Err(error) => break Err(error.into()),
            },
            ended = tasks.ended() => break Err(ended.into()),
            ended = bus.ended() => break Err(ended.into()),
            () = &mut shutdown, if lame_duck.is_none() => {
                let time = config.drain.lame_duck;
                if !time.is_zero() {
                    info!(time = config::duration_text(time), "not ready any more; newcomers are still taken");
                }
                drain.announce();
                lame_duck = Some(Box::pin(sleep(time)));
            }
            Some(()) = OptionFuture::from(lame_duck.as_mut()) => break Ok(()),
        }
    };
    if let Err(fault) = &ended {
        error!("the node ends: {fault:#}");
    }

    info!("draining");
    tasks.end("seats");
    drain.begin(config.drain.spread);
    match &ended {
        Ok(()) => drain.finished().await,
        // What broke may be what sessions would end by.
        Err(_) => {
            let longest = config.drain.spread + config.sessions.write_deadline;
            let _ = timeout(longest, drain.finished()).await;
        }
    }
    bus.close(config.drain.grace).await;
    // Until here whoever sends clients to this node can ask, and is told that it drains.
    tasks.shutdown().await;
    info!("ended");
    ended
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A restarted router must not wait for the last one's sockets to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
