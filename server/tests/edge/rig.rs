//! A clients' port of a test's own.

use std::future::{pending, ready};
use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use jsonwebtoken::{EncodingKey, Header};
use rivulet_protocol::catalog::Catalog;
use rivulet_protocol::validate::Validator;
use rivulet_router::auth::Auth;
use rivulet_router::bus::FeedState;
use rivulet_router::command::{Backend, Command, Outcome};
use rivulet_router::config::{Config, Inputs, Purpose};
use rivulet_router::connection::{Node, handshake::Door};
use rivulet_router::flush;
use rivulet_router::history::{Archive, Segment};
use rivulet_router::http::{Pages, serve_clients};
use rivulet_router::limits::{address::AddressLimits, address::Addresses, seats::Seats};
use rivulet_router::metrics::Metrics;
use rivulet_router::router::{Keeping, Router};
use rivulet_router::shutdown::{Drain, shutdown};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

const SECRET: &str = "a secret of thirty-two bytes, at least";

/// How long anything may take that is waited for: far beyond what it takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits for what must come.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what} never came"))
}

/// A token of this user, with these claims on top.
pub(crate) fn token_with(user: &str, more: Value) -> String {
    let mut claims = json!({"sub": user, "exp": 4_000_000_000_u64});
    claims
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap()
}

/// A token of this user.
pub(crate) fn token(user: &str) -> String {
    token_with(user, json!({}))
}

/// A running edge; ended when dropped.
pub(crate) struct Edge {
    pub(crate) address: SocketAddr,
    pub(crate) door: Arc<Door>,
    pub(crate) drain: Drain,
    feed: Option<watch::Sender<FeedState>>,
    tasks: [JoinHandle<()>; 2],
}

impl Edge {
    /// With these keys of the configuration.
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Self {
        let mut inputs = Inputs::default().set("jwt_secret", SECRET);
        for (key, value) in settings {
            inputs = inputs.set(key, value);
        }
        let config = Config::load(&inputs, Purpose::Router).unwrap_or_else(|problems| panic!("{problems}"));
        let catalog = Arc::new(Catalog::builtin());
        let (drain, draining) = shutdown();
        let metrics = Arc::new(Metrics::new([]));
        let auth = Auth::new(
            &config.auth,
            &config.roles,
            &config.default_role,
            config.limits.devices_per_user,
            config.dev,
            Arc::clone(&metrics),
        );
        let node = Arc::new(Node {
            router: Arc::new(Router::new(Keeping::default(), NonZero::<usize>::MIN)),
            backend: Arc::new(Nobody),
            archive: Arc::new(Nothing),
            auth: Arc::new(auth.unwrap()),
            validator: Arc::new(Validator::new(&catalog)),
            metrics,
            sessions: config.sessions.clone(),
            limits: config.limits.clone(),
            replay_deadline: config.history.replay_deadline,
            commands: config.commands.clone(),
            shutdown: draining,
            catalog,
        });
        let (feed, fed) = watch::channel(FeedState {
            current: true,
            ..FeedState::default()
        });
        let door = Arc::new(Door {
            addresses: Addresses::new(AddressLimits {
                connections: config.limits.connections_per_address,
                handshakes_per_second: config.limits.handshakes_per_address,
            }),
            seats: Seats::new(config.sessions.heartbeat, Instant::now(), SystemTime::now()),
            feed: fed,
            node,
        });
        let node = &door.node;
        let flushing = flush::run(
            Arc::clone(&node.router),
            0,
            node.sessions.linger,
            Arc::clone(&node.metrics),
        );
        let flushing = tokio::spawn(flushing);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            door: Arc::clone(&door),
            drain,
            feed: Some(feed),
            tasks: [
                tokio::spawn(serve_clients(
                    listener,
                    door,
                    config.edge,
                    config.dev,
                    Pages {
                        documents: vec![("schemas/events.json".to_owned(), "{}".to_owned())],
                        front: Some("<!doctype html>"),
                    },
                    Arc::new(AtomicBool::new(true)),
                )),
                flushing,
            ],
        }
    }

    pub(crate) fn router(&self) -> &Router {
        &self.door.node.router
    }

    /// The node falls behind, or catches up.
    pub(crate) fn is_current(&self, current: bool) {
        let feed = self.feed.as_ref().expect("the feed lives");
        feed.send_modify(|feed| feed.current = current);
    }

    /// The feed ends, with what it said last left as it was.
    pub(crate) fn end_feed(&mut self) {
        self.feed = None;
    }

    /// How many sockets were dropped for this reason.
    pub(crate) fn dropped(&self, reason: &'static str) -> u64 {
        self.door.node.metrics.connections.dropped.of(reason).get()
    }

    /// How many handshakes are under way.
    pub(crate) fn pending(&self) -> i64 {
        self.door.node.metrics.connections.pending.get()
    }

    /// Waits until something is so.
    pub(crate) async fn until(&self, what: &str, so: impl Fn(&Self) -> bool) {
        soon(what, async {
            while !so(self) {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// A past that nobody asks for here.
struct Nothing;

impl Archive for Nothing {
    fn admit(&self) -> Option<OwnedSemaphorePermit> {
        None
    }

    fn admitted(&self) -> BoxFuture<'static, OwnedSemaphorePermit> {
        Box::pin(pending())
    }

    fn segment(&self, _: Arc<str>, _: u64, _: u64) -> BoxFuture<'static, Option<Arc<Segment>>> {
        Box::pin(ready(None))
    }

    fn head(&self) -> BoxFuture<'static, Option<(Arc<str>, u64)>> {
        Box::pin(ready(None))
    }
}

/// A backend that never answers `process_blob`, and is asked nothing else here but by mistake.
struct Nobody;

impl Backend for Nobody {
    fn ask(&self, command: Command) -> BoxFuture<'static, Outcome> {
        match command.name.as_str() {
            "process_blob" => Box::pin(pending()),
            name => panic!("nobody is there to do {name}"),
        }
    }
}
