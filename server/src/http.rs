//! The edge: sockets accepted under caps, HTTP up to the upgrade, and the pages beside it.
//!
//! This is the only room that knows axum. A connection has [`config::Edge::header_timeout`] for its request and
//! as long again for the answer; there is no keep-alive, so a socket is a session or gone. Until a request's head
//! is there, a socket costs a task and the bytes that it said ([`head`]).
//!
//! **What a stranger can make grow**, and its bound: sockets (`edge.max_connections`), sockets that are not yet
//! sessions (`edge.max_pending_handshakes`, and of one address a part of them), bytes of a request's headers
//! (`edge.max_header_bytes`). Beyond the first the newcomer is dropped, beyond the second the oldest yields to it,
//! of the same address where that has its part, both counted; beyond the third the answer is 431. Addresses that came and went are forgotten by and by.

mod head;
mod pending;
mod problem;
mod upgrade;

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep, sleep_until},
};
use tower::ServiceExt as _;
use tracing::{debug, warn};

use self::{
    head::Rewound,
    pending::{Pending, Place},
    problem::Problem,
};
use crate::{
    bus::FeedState,
    config,
    connection::handshake::Door,
    limits::address::is_trusted,
    metrics::{Held, Metrics},
    router::Router as Sessions,
    shutdown::Shutdown,
};

/// How long to wait when the system has no descriptors left: some will be given back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The most that the admin port serves at a time.
const ADMIN_CONNECTIONS: usize = 64;
/// How often addresses are forgotten that left nothing to count, and those that remain are counted.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// What the pages are made from.
#[derive(Debug)]
pub struct Pages {
    /// JSON documents by their path below `/`, such as `schemas/events.json`.
    pub documents: Vec<(String, String)>,
    /// The page at `/`, where there is one.
    pub front: Option<&'static str>,
}

/// What a socket holds while it is open.
#[derive(Clone, Debug)]
struct Entry {
    peer: IpAddr,
    /// Given back once the socket is a session or gone.
    pending: Arc<Place>,
    /// Given back when the socket is gone.
    open: Arc<OwnedSemaphorePermit>,
}

/// What the routes of the clients' port share.
#[derive(Debug)]
struct Edge {
    door: Arc<Door>,
    config: config::Edge,
    dev: bool,
    deflate: bool,
    pages: Pages,
    feed: watch::Receiver<FeedState>,
    /// Whether the feed was opened once.
    opened: Arc<AtomicBool>,
}

/// Serves clients for as long as it is polled; sessions that have begun go on by themselves. While the node drains,
/// handshakes are refused and the pages say so, for whoever sends clients here.
pub async fn serve_clients(
    listener: TcpListener,
    door: Arc<Door>,
    config: config::Edge,
    dev: bool,
    pages: Pages,
    opened: Arc<AtomicBool>,
) {
    let metrics = Arc::clone(&door.node.metrics);
    let counted = Arc::clone(&door.node.metrics);
    let counted = &counted.connections;
    let (addresses, seats) = (Arc::clone(&door.addresses), Arc::clone(&door.seats));
    let edge = Arc::new(Edge {
        feed: door.feed.clone(),
        deflate: door.node.sessions.compression,
        door,
        config: config.clone(),
        dev,
        pages,
        opened,
    });
    let routes = Router::new()
        .route("/api/v1/ws", get(upgrade::upgrade))
        .route("/ws", get(upgrade::upgrade))
        .route("/health/live", get(async || "live"))
        .route("/health/ready", get(ready))
        .route("/health/startup", get(started))
        .route("/", get(front))
        .route("/{*path}", get(document))
        .with_state(edge);
    let forget = async {
        loop {
            sleep(SWEEP_EVERY).await;
            addresses.sweep(Instant::now());
            counted.addresses.set(addresses.len() as i64);
            counted.seated.set(seats.users() as i64);
        }
    };
    tokio::select! {
        () = accept(listener, routes, config, metrics) => {}
        () = forget => {}
    }
}

/// Serves health and metrics for as long as it is polled, to whoever reaches the port: it is bound to loopback by
/// default.
pub async fn serve_admin(
    listener: TcpListener,
    sessions: Arc<Sessions>,
    metrics: Arc<Metrics>,
    feed: watch::Receiver<FeedState>,
    edge: config::Edge,
    shutdown: Shutdown,
) {
    let health = {
        let (sessions, feed, shutdown) = (Arc::clone(&sessions), feed.clone(), shutdown.clone());
        let metrics = Arc::clone(&metrics);
        async move || {
            let census = sessions.census();
            let feed = FeedState::now(&feed);
            let status = match (shutdown.is_leaving(), feed.current) {
                (true, _) => "draining",
                (false, true) => "ready",
                (false, false) => "not current",
            };
            Json(json!({
                "status": status,
                "active_connections": metrics.connections.open.get(),
                "active_users": census.users,
                "queue_size": census.waiting_messages,
                "queue_bytes": census.waiting_bytes,
                "durable": feed.durable,
                "nats_connected": feed.connected,
                "stream_writable": feed.stream.as_ref().map(|_| metrics.nats.writable.get() == 1),
            }))
        }
    };
    let page = {
        let metrics = Arc::clone(&metrics);
        async move || {
            let census = sessions.census();
            metrics.connections.users.set(census.users as i64);
            metrics.outbox.depth.set(census.waiting_messages as i64);
            metrics.outbox.bytes.set(census.waiting_bytes as i64);
            metrics.history.events.set(census.past_events as i64);
            metrics.history.bytes.set(census.past_bytes as i64);
            metrics.history.sequences.set(census.past_sequences as i64);
            let alive = Handle::current().metrics().num_alive_tasks();
            metrics.tasks.set(alive as i64);
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], metrics.to_text())
        }
    };
    let ready = async move || readiness(&FeedState::now(&feed), &shutdown);
    let routes = Router::new()
        .route("/health", get(health))
        .route("/health/ready", get(ready))
        .route("/metrics", get(page));
    let edge = config::Edge {
        max_connections: ADMIN_CONNECTIONS,
        max_pending_handshakes: ADMIN_CONNECTIONS,
        max_pending_handshakes_per_address: 0,
        ..edge
    };
    accept(listener, routes, edge, metrics).await;
}

async fn ready(State(edge): State<Arc<Edge>>) -> Response {
    readiness(&FeedState::now(&edge.feed), &edge.door.node.shutdown)
}

/// Whether clients should be sent here.
fn readiness(feed: &FeedState, shutdown: &Shutdown) -> Response {
    let not_now = |detail| Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response();
    match (shutdown.is_leaving(), feed.current) {
        (true, _) => not_now("draining: the node is going away"),
        (false, true) => "ready".into_response(),
        (false, false) => not_now("the feed is not current"),
    }
}

async fn started(State(edge): State<Arc<Edge>>) -> Response {
    if edge.opened.load(Ordering::Relaxed) {
        "started".into_response()
    } else {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "waiting for NATS").into_response()
    }
}

async fn front(State(edge): State<Arc<Edge>>) -> Response {
    match edge.pages.front {
        Some(page) => Html(page).into_response(),
        None => nothing_here(),
    }
}

async fn document(State(edge): State<Arc<Edge>>, Path(path): Path<String>) -> Response {
    match edge.pages.documents.iter().find(|(known, _)| *known == path) {
        Some((_, text)) => ([(header::CONTENT_TYPE, "application/json")], text.clone()).into_response(),
        None => nothing_here(),
    }
}

fn nothing_here() -> Response {
    Problem::new(StatusCode::NOT_FOUND, "there is nothing here").into_response()
}

/// Accepts sockets, each under its caps.
async fn accept(listener: TcpListener, routes: Router, edge: config::Edge, metrics: Arc<Metrics>) {
    let edge = Arc::new(edge);
    let open = Arc::new(Semaphore::new(edge.max_connections));
    let pending = Pending::new(
        edge.max_pending_handshakes,
        edge.max_pending_handshakes_per_address,
    );
    let mut failing = false;
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => {
                failing = false;
                accepted
            }
            // Over before it was accepted: nobody's fault here.
            Err(error) if is_the_clients(&error) => continue,
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    warn!(%error, "can't accept; trying again until it goes");
                }
                metrics.connections.dropped.of("accept_error").inc();
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(open) = Arc::clone(&open).try_acquire_owned() else {
            metrics.connections.dropped.of("max_connections").inc();
            continue;
        };
        // Many come by a proxy's address, and whose sockets they are is not known before their headers.
        let counted = Some(peer.ip()).filter(|ip| !is_trusted(*ip, &edge.trusted_proxies));
        let entry = Entry {
            peer: peer.ip(),
            pending: Arc::new(pending.enter(counted)),
            open: Arc::new(open),
        };
        tokio::spawn(serve(
            stream,
            peer,
            entry,
            routes.clone(),
            Arc::clone(&edge),
            Arc::clone(&metrics),
        ));
    }
}

fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// Serves one request of one socket.
async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    entry: Entry,
    routes: Router,
    edge: Arc<config::Edge>,
    metrics: Arc<Metrics>,
) {
    // Events are small and must not wait for each other's acknowledgements.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%peer, %error, "no TCP_NODELAY");
    }
    let _pending = Held::of(&metrics.connections.pending);
    let until = Instant::now() + 2 * edge.header_timeout;
    let head = tokio::select! {
        head = head::read(&stream, edge.max_header_bytes) => head.map_err(|error| {
            debug!(%peer, %error, "no request came of a socket");
            "bad_request"
        }),
        () = sleep(edge.header_timeout) => Err("header_timeout"),
        bound = entry.pending.taken() => Err(bound),
    };
    let ended = match head {
        // It said nothing and went.
        Ok(head) if head.is_empty() => Ok(()),
        // In a box: whoever has not said all of its head has no room for it.
        Ok(head) => {
            Box::pin(answer(
                Rewound::new(head, stream),
                peer,
                entry,
                routes,
                &edge,
                until,
            ))
            .await
        }
        Err(reason) => Err(reason),
    };
    if let Err(reason) = ended {
        metrics.connections.dropped.of(reason).inc();
    }
}

/// Answers a request; an error is what the socket's end is counted as.
async fn answer(
    stream: Rewound,
    peer: SocketAddr,
    entry: Entry,
    routes: Router,
    edge: &config::Edge,
    until: Instant,
) -> Result<(), &'static str> {
    let place = Arc::clone(&entry.pending);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(entry.clone());
        let routes = routes.clone();
        async move {
            let mut response = routes
                .oneshot(request)
                .await
                .unwrap_or_else(|never| match never {});
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                // One request a socket. (hyper's own switch for that would refuse upgrades too.)
                response
                    .headers_mut()
                    .insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(edge.header_timeout)
        .max_buf_size(edge.max_header_bytes)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let answered = tokio::select! {
        answered = connection => answered,
        () = sleep_until(until) => return Err("request_timeout"),
        bound = place.taken() => return Err(bound),
    };
    answered.map_err(|error| {
        debug!(%peer, %error, "no request came of a socket");
        match error.is_timeout() {
            true => "header_timeout",
            false => "bad_request",
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What hyper makes for a socket would be some 3 KB more, beside its two buffers of 8 KB.
    #[tokio::test]
    async fn a_socket_that_has_not_said_its_head_costs_little() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, server) = tokio::join!(
            TcpStream::connect(listener.local_addr().unwrap()),
            listener.accept()
        );
        let (stream, peer) = server.unwrap();
        let edge = Arc::new(config::Edge {
            allowed_origins: vec![],
            trusted_proxies: vec![],
            header_timeout: Duration::from_secs(5),
            max_header_bytes: 16 << 10,
            max_pending_handshakes: 1,
            max_pending_handshakes_per_address: 0,
            max_connections: 1,
        });
        let entry = Entry {
            peer: peer.ip(),
            pending: Arc::new(Pending::new(1, 0).enter(None)),
            open: Arc::new(Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap()),
        };
        let metrics = Arc::new(Metrics::new([]));
        let waiting = serve(stream, peer, entry, Router::new(), edge, metrics);
        assert!(size_of_val(&waiting) <= 1_024, "{} bytes", size_of_val(&waiting));
        drop(client);
    }
}
