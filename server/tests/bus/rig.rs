//! A bus whose sink writes down what it gets.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use rivulet_protocol::message::Gap;
use rivulet_router::{
    bus::{
        Bus, BusError, FeedState, Sink,
        source::{Check, Rejection, Rule},
    },
    config::*,
    event::{Audience, Event},
    history::Forget,
    metrics::Metrics,
    presence::Presence,
    router::Keeping,
};
use tokio::{sync::mpsc, time::timeout};

/// How long anything may take before a test gives up; nothing is measured by it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// What a sink was told, in a line each.
pub(crate) struct Sunk {
    told: mpsc::UnboundedSender<String>,
    last: Mutex<u64>,
    forgotten: Arc<Mutex<Vec<Forgotten>>>,
}

/// What a sink was told to forget: these, or all up to there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Forgotten {
    These(Vec<u64>),
    UpTo(u64),
}

impl Sink for Sunk {
    fn open(&self, epoch: &str, head: u64, _: bool) {
        *self.last.lock().unwrap() = head;
        let name = epoch.split_once('@').unwrap().0;
        let _ = self.told.send(format!("open {name} {head}"));
    }

    fn dispatch(&self, event: &Event) -> usize {
        if let Some(seq) = event.seq {
            self.rise(seq);
        }
        let audience = match &event.audience {
            Audience::Everyone => "everyone".to_owned(),
            Audience::Users(users) => users
                .iter()
                .map(|user| user.as_str())
                .collect::<Vec<_>>()
                .join(","),
        };
        let seq = event.seq.map_or("-".to_owned(), |seq| seq.to_string());
        let data = std::str::from_utf8(&event.data).unwrap();
        let _ = self
            .told
            .send(format!("{seq} {} {audience} {data}", event.event_type));
        1
    }

    fn advance(&self, seq: u64) {
        self.rise(seq);
        let _ = self.told.send(format!("{seq} passed"));
    }

    fn keeps_from(&self, _: u64) {}

    fn forget(&self, forget: Forget<'_>) {
        self.forgotten.lock().unwrap().push(match forget {
            Forget::These(removed) => Forgotten::These(removed.to_vec()),
            Forget::UpTo(seq) => Forgotten::UpTo(seq),
        });
    }

    fn gap(&self, gap: Gap) {
        *self.last.lock().unwrap() = gap.to_seq.get();
        let reason = serde_json::to_string(&gap.reason).unwrap();
        let _ = self.told.send(format!(
            "gap {} {} {reason}",
            gap.from_seq.get(),
            gap.to_seq.get()
        ));
    }
}

impl Sunk {
    fn rise(&self, seq: u64) {
        let mut last = self.last.lock().unwrap();
        assert!(seq > *last, "{seq} after {last}: a cursor is one number");
        *last = seq;
    }
}

/// A bus, and what it brings.
pub(crate) struct Rig {
    pub(crate) bus: Bus,
    pub(crate) presence: Arc<Presence>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) forgotten: Arc<Mutex<Vec<Forgotten>>>,
    told: mpsc::UnboundedReceiver<String>,
}

impl Rig {
    /// With an open feed.
    pub(crate) async fn open(config: &Config) -> Self {
        Self::try_open(config).await.unwrap()
    }

    /// With an open feed, and a schema that no text with one of these words is of.
    pub(crate) async fn judging(config: &Config, refused: &'static [&'static str]) -> Self {
        let (rig, opening) = Self::begin_judging(config, refused).await.unwrap();
        timeout(PATIENCE, opening).await.expect("the feed opens").unwrap();
        rig
    }

    pub(crate) async fn try_open(config: &Config) -> Result<Self, BusError> {
        let (rig, opening) = Self::begin(config).await?;
        timeout(PATIENCE, opening).await.expect("the feed opens")?;
        Ok(rig)
    }

    /// Without waiting for NATS.
    pub(crate) async fn begin(config: &Config) -> Result<(Self, rivulet_router::bus::Opening), BusError> {
        Self::begin_judging(config, &["bad"]).await
    }

    async fn begin_judging(
        config: &Config,
        refused: &'static [&'static str],
    ) -> Result<(Self, rivulet_router::bus::Opening), BusError> {
        let (sender, told) = mpsc::unbounded_channel();
        let metrics = Arc::new(Metrics::new(["blob.created"]));
        let forgotten = Arc::default();
        let sink = Arc::new(Sunk {
            told: sender,
            last: Mutex::new(0),
            forgotten: Arc::clone(&forgotten),
        });
        let presence = Arc::new(Presence::new(matches!(config.stream.feed, Feed::ByUser(_))));
        let keeping = Keeping {
            presence: Arc::clone(&presence),
            ..Keeping::default()
        };
        let (bus, opening) = Bus::start(config, check(refused), sink, keeping, Arc::clone(&metrics)).await?;
        let rig = Self {
            bus,
            presence,
            metrics,
            forgotten,
            told,
        };
        Ok((rig, opening))
    }

    /// What the sink is told next.
    pub(crate) async fn next(&mut self) -> String {
        timeout(PATIENCE, self.told.recv())
            .await
            .expect("the sink is told something")
            .expect("the bus lives")
    }

    /// Waits for a state of the feed.
    pub(crate) async fn until(&self, what: &str, is: impl Fn(&FeedState) -> bool) -> FeedState {
        let mut feed = self.bus.feed();
        let state = timeout(PATIENCE, feed.wait_for(|state| is(state))).await;
        state
            .unwrap_or_else(|_| panic!("the feed never became {what}"))
            .unwrap()
            .clone()
    }

    pub(crate) fn metric(&self, line: &str) -> bool {
        let text = self.metrics.to_text();
        text.lines().any(|found| found == line)
    }
}

/// Waits for a state that nothing tells of.
pub(crate) async fn until(is: impl Fn() -> bool) {
    let state = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, state).await.expect("it becomes so");
}

/// A text with one of these words, `{"bad":…}`, is of no schema.
fn check(refused: &'static [&'static str]) -> Arc<Check> {
    Arc::new(move |_, data| match std::str::from_utf8(data) {
        Ok(text) if refused.iter().any(|word| text.contains(&format!("\"{word}\""))) => Err(Rejection::new(
            Rule::Schema("required".into()),
            "/blob_id",
            "`blob_id` is missing",
        )),
        _ => Ok(()),
    })
}

/// A publisher's JetStream context.
pub(crate) async fn publish(client: &async_nats::Client, subject: &str, payload: &str) -> u64 {
    publish_with(client, subject, &[], payload).await
}

pub(crate) async fn publish_with(
    client: &async_nats::Client,
    subject: &str,
    headers: &[(&str, &str)],
    payload: &str,
) -> u64 {
    let mut map = async_nats::HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, *value);
    }
    async_nats::jetstream::new(client.clone())
        .publish_with_headers(
            subject.to_owned(),
            map,
            Bytes::copy_from_slice(payload.as_bytes()),
        )
        .await
        .unwrap()
        .await
        .unwrap()
        .sequence
}

/// Publishes what only the server publishes: a message of the stream.
pub(crate) async fn forge(client: &async_nats::Client, live: &str, subject: &str, seq: u64, payload: &str) {
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Stream", "RIVULET");
    headers.insert("Nats-Subject", subject);
    headers.insert("Nats-Sequence", seq.to_string().as_str());
    headers.insert("Nats-Time-Stamp", "2040-01-01T00:00:00Z");
    let payload = Bytes::copy_from_slice(payload.as_bytes());
    client
        .publish_with_headers(live.to_owned(), headers, payload)
        .await
        .unwrap();
}

pub(crate) fn source(subject: &str, durable: bool) -> Source {
    Source {
        subject: subject.to_owned(),
        durable,
        event_type: TypeFrom::Subject { tokens: 2 },
        type_prefix: None,
        data: DataFrom::Payload,
        audience: AudienceFrom::Auto,
        validate: Validation::Reject,
    }
}

/// A configuration for the servers at `urls`; none: a nats-server of the router's own.
pub(crate) fn config(urls: &[String], data_dir: &Path) -> Config {
    let rate = Rate {
        burst: 1,
        per_second: 1,
    };
    let address: SocketAddr = ([127, 0, 0, 1], 0).into();
    Config {
        dev: true,
        listen: address,
        admin_listen: None,
        data_dir: data_dir.to_owned(),
        catalog: std::sync::Arc::new(rivulet_protocol::catalog::Catalog::builtin()),
        nats: Nats {
            urls: urls.to_vec(),
            credentials: NatsCredentials::None,
            tls: NatsTls::default(),
            jetstream_domain: None,
            server_binary: Some(crate::nats::program()),
            leader_grace: Duration::from_secs(10),
        },
        stream: Stream {
            name: "RIVULET".to_owned(),
            replicas: None,
            max_age: Duration::from_secs(86_400),
            max_bytes: Some(64 << 20),
            duplicate_window: Duration::from_secs(120),
            manage: false,
            take_over: false,
            republish_prefix: "rivulet.live".to_owned(),
            feed: Feed::Whole,
        },
        sources: vec![source("blob.>", true), source("processor.>", true)],
        auth: Auth {
            keys: Vec::new(),
            jwks_url: None,
            jwks_algorithms: Vec::new(),
            jwks_refresh: Duration::from_secs(60),
            issuers: Vec::new(),
            audiences: Vec::new(),
            user_claim: "sub".to_owned(),
            expiry_leeway: Duration::ZERO,
            not_before_leeway: Duration::ZERO,
        },
        roles: BTreeMap::new(),
        default_role: "user".to_owned(),
        edge: Edge {
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            header_timeout: Duration::from_secs(5),
            max_header_bytes: 16_384,
            max_pending_handshakes: 100,
            max_pending_handshakes_per_address: 0,
            max_connections: 100,
        },
        limits: Limits {
            devices_per_user: 0,
            connections_per_address: 0,
            handshakes_per_address: 0,
            max_patterns: 100,
            max_message_bytes: 65_536,
            bad_messages_per_minute: 10,
            ping: rate,
            subscribe: rate,
            other: rate,
        },
        sessions: Sessions {
            heartbeat: Duration::from_secs(25),
            default_patterns: Vec::new(),
            outbox_events: 1_000,
            outbox_bytes: 1 << 20,
            max_event_bytes: 256 << 10,
            linger: Duration::ZERO,
            write_deadline: Duration::from_secs(10),
            compression: false,
            compression_threshold: 1_024,
            compression_level: 1,
        },
        history: History {
            max_bytes: 1 << 20,
            replays: 10,
            replay_deadline: Duration::from_secs(60),
        },
        commands: Commands {
            deadline: Duration::from_secs(10),
            in_flight: 16,
            remember: Duration::from_secs(600),
        },
        drain: Drain {
            lame_duck: Duration::ZERO,
            spread: Duration::ZERO,
            grace: Duration::ZERO,
        },
        log: Log {
            filter: "info".to_owned(),
            format: LogFormat::Human,
        },
    }
}
