//! The configuration: raw (file, environment, flags) to checked, one typed part per room.
//!
//! A part holds what its room needs, already checked and in its own units; how a room uses it is its own
//! affair. What can be written, with its defaults and bounds, is described once (`config/raw.rs`).

mod check;
mod families;
mod key;
mod key_file;
mod load;
mod problem;
mod raw;
mod reference;
mod scalar;
mod subject;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use rivulet_protocol::{catalog::Catalog, event::EventType, pattern::Pattern};
use serde::{Deserialize, Serialize};

pub use self::{
    check::Purpose,
    key::nearest,
    load::{Flag, Inputs},
    problem::{Origin, Problem, Problems},
    reference::reference,
};

/// Everything a router needs to run, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Development: loopback only, any token that is not a JWT is itself the user id, no connection limits,
    /// every origin.
    pub dev: bool,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where health and metrics are served; `None`: nowhere.
    pub admin_listen: Option<SocketAddr>,
    /// Where the router keeps what it must: the data of a supervised nats-server and its credentials file.
    pub data_dir: PathBuf,
    /// The built-in families, and those of `families`.
    pub catalog: Arc<Catalog>,
    /// How to reach NATS.
    pub nats: Nats,
    /// The stream that holds durable sources.
    pub stream: Stream,
    /// From which subjects events come, and for whom.
    pub sources: Vec<Source>,
    /// Who may connect.
    pub auth: Auth,
    /// What every token of a role may do.
    pub roles: BTreeMap<String, Role>,
    /// The role of a token that names none.
    pub default_role: String,
    /// What strangers may cost.
    pub edge: Edge,
    /// Rates and counts of clients.
    pub limits: Limits,
    /// How sessions behave.
    pub sessions: Sessions,
    /// The past that sessions resume from.
    pub history: History,
    /// How commands are asked.
    pub commands: Commands,
    /// How the router ends.
    pub drain: Drain,
    /// What is logged.
    pub log: Log,
}

impl Config {
    /// Reads and checks all inputs. The error names every problem that they have.
    pub fn load(inputs: &Inputs, purpose: Purpose) -> Result<Self, Problems> {
        check::check(load::read(inputs), purpose)
    }
}

/// Reads a duration as the configuration writes it: a whole number and one of `ms`, `s`, `m`, `h`, `d`.
pub fn duration(text: &str) -> Option<Duration> {
    text.parse().ok().map(scalar::Span::duration)
}

/// A duration as the configuration writes it; what is below a millisecond is left out.
pub fn duration_text(duration: Duration) -> String {
    let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    scalar::Span(milliseconds).to_string()
}

/// A number of bytes as the configuration writes it.
pub fn size_text(bytes: u64) -> String {
    scalar::Size(bytes).to_string()
}

/// A secret: never in a log, not even by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

/// How to reach NATS.
#[derive(Clone, Debug)]
pub struct Nats {
    /// The servers of one cluster. Empty: the router starts and supervises a nats-server of its own.
    pub urls: Vec<String>,
    /// How to say who we are.
    pub credentials: NatsCredentials,
    /// Extra roots and a client certificate.
    pub tls: NatsTls,
    /// The JetStream domain, for leaf nodes.
    pub jetstream_domain: Option<String>,
    /// The nats-server to supervise; `None`: looked for on `PATH` and in `.tools/bin`.
    pub server_binary: Option<PathBuf>,
    /// How long a node stays ready while the stream has no leader and nothing is known to be missing; 10 s by default.
    pub leader_grace: Duration,
}

/// How the router says to NATS who it is.
#[derive(Clone, Debug)]
pub enum NatsCredentials {
    /// It does not.
    None,
    /// A `.creds` file.
    File(PathBuf),
    /// The seed of an nkey.
    Nkey(Secret),
    /// User and password.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A token.
    Token(Secret),
}

/// TLS towards NATS; `tls://` in a URL asks for it too.
#[derive(Clone, Debug, Default)]
pub struct NatsTls {
    /// Whether plain text is refused.
    pub required: bool,
    /// Roots in place of those of the system.
    pub ca_file: Option<PathBuf>,
    /// Our certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// The one stream of a deployment.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Its name, `RIVULET` by default.
    pub name: String,
    /// Copies; `None`: the lesser of 3 and the number of servers.
    pub replicas: Option<usize>,
    /// How long an event is kept.
    pub max_age: Duration,
    /// How many bytes are kept; `None`: the lesser of 10 GiB and half of what the account has left.
    pub max_bytes: Option<u64>,
    /// In which time a message id counts once.
    pub duplicate_window: Duration,
    /// Whether an existing stream may be altered to what is written here.
    pub manage: bool,
    /// Whether so may one that routers of another configuration manage.
    pub take_over: bool,
    /// Before which prefix the stream's republished events come, `rivulet.live` by default.
    pub republish_prefix: String,
    /// What a node takes of the stream.
    pub feed: Feed,
}

/// What a node takes of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    /// All of it.
    Whole,
    /// The events of users that are here. All durable sources have the same shape.
    ByUser(Shape),
}

/// The shape of subjects that name their user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How many tokens they have.
    pub tokens: usize,
    /// Which of them is the user, counted from 0.
    pub user: usize,
}

/// What of a feed can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FeedKind {
    Whole,
    ByUser,
}

/// From which subjects events come, what they are and for whom.
#[derive(Clone, Debug)]
pub struct Source {
    /// The NATS subject, with wildcards: `blob.>`.
    pub subject: String,
    /// Whether the stream keeps its events; else they pass by core NATS, at most once.
    pub durable: bool,
    /// Where the type stands.
    pub event_type: TypeFrom,
    /// What is put before the type, with a dot between.
    pub type_prefix: Option<EventType>,
    /// Where `data` stands.
    pub data: DataFrom,
    /// Whom an event is for.
    pub audience: AudienceFrom,
    /// What happens to an event that is not of its schema.
    pub validate: Validation,
}

/// Where an event's type stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypeFrom {
    /// The leading tokens of the subject; 2 by default.
    Subject {
        /// How many.
        tokens: usize,
    },
    /// A header.
    Header(String),
    /// A top-level string of the payload.
    Field(String),
}

/// Where an event's data stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataFrom {
    /// The whole payload.
    Payload,
    /// A top-level field of the payload.
    Field(String),
}

/// Whom a source's events are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AudienceFrom {
    /// A token of the subject, counted from 0, is the user (escaped).
    Token(usize),
    /// The headers `Rivulet-User` or `Rivulet-Audience`.
    Header,
    /// The payload's top-level `user_id`.
    Payload,
    /// Another top-level field of the payload: a user, or a list of at most 1,000.
    Field(String),
    /// Everyone, whatever the event says.
    Everyone,
    /// A header if there is one, else `user_id`.
    Auto,
}

/// What happens to an event that is not of its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Validation {
    /// It is rejected.
    Reject,
    /// It passes and is counted.
    Warn,
    /// Nobody looks.
    Off,
}

/// Who may connect.
#[derive(Clone, Debug)]
pub struct Auth {
    /// The keys that tokens may be signed with; empty only with `dev`.
    pub keys: Vec<Key>,
    /// Where further keys are read from.
    pub jwks_url: Option<String>,
    /// The algorithms that a key of the JWKS may be used with.
    pub jwks_algorithms: Vec<jsonwebtoken::Algorithm>,
    /// How often the JWKS is read again.
    pub jwks_refresh: Duration,
    /// The issuers that count; empty: any.
    pub issuers: Vec<String>,
    /// The audiences that count; empty: any.
    pub audiences: Vec<String>,
    /// The claim that names the user, `sub` by default.
    pub user_claim: String,
    /// How long after `exp` a token still counts.
    pub expiry_leeway: Duration,
    /// How long before `nbf` a token already counts.
    pub not_before_leeway: Duration,
}

/// A key that tokens may be signed with, and the algorithms that it may be used with.
#[derive(Clone, Debug)]
pub enum Key {
    /// A shared secret of at least 32 bytes, for HS256, HS384, HS512.
    Secret {
        /// The secret.
        secret: Secret,
        /// The algorithms.
        algorithms: Vec<jsonwebtoken::Algorithm>,
    },
    /// A public key in PEM, for RS, PS, ES or EdDSA.
    Pem {
        /// Its text.
        pem: String,
        /// The algorithms, which all fit the key.
        algorithms: Vec<jsonwebtoken::Algorithm>,
    },
}

/// What every token of a role may do; a token's own claims take the place of these.
#[derive(Clone, Debug)]
pub struct Role {
    /// The event types that it may see.
    pub events: Vec<Pattern>,
    /// The commands that it may ask; `*` for all.
    pub commands: Vec<String>,
    /// Devices at a time of one user; 0: none counted. `None`: `limits.devices_per_user`.
    pub devices_per_user: Option<usize>,
}

/// What strangers may cost.
#[derive(Clone, Debug)]
pub struct Edge {
    /// Origins beside the host's own; each is `scheme://host[:port]`.
    pub allowed_origins: Vec<String>,
    /// The proxies whose `X-Forwarded-For` counts.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// How long a request's headers may take, 5 s by default.
    pub header_timeout: Duration,
    /// The most bytes in a request's headers, 16 KiB by default.
    pub max_header_bytes: usize,
    /// The most sockets that are not yet sessions.
    pub max_pending_handshakes: usize,
    /// The most of them of one address, a tenth by default; 0: none counted. Trusted proxies are not.
    pub max_pending_handshakes_per_address: usize,
    /// The most sockets at all.
    pub max_connections: usize,
}

/// Rates and counts of clients.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Devices at a time of one user, 5 by default; 0: none counted.
    pub devices_per_user: usize,
    /// Connections at a time of one address, 100 by default; 0: none counted.
    pub connections_per_address: usize,
    /// Handshakes a second of one address, 20 by default; 0: none counted.
    pub handshakes_per_address: u32,
    /// Patterns of one session, 100 by default.
    pub max_patterns: usize,
    /// Bytes in a client's message, after inflating, 64 KiB by default.
    pub max_message_bytes: usize,
    /// Bad messages a minute, 10 by default.
    pub bad_messages_per_minute: u32,
    /// `ping`: 120 burst and 2/s by default.
    pub ping: Rate,
    /// `subscribe` and `unsubscribe`: 30 burst and 1/s by default; not charged in the first 10 s.
    pub subscribe: Rate,
    /// Everything else: 60 burst and 10/s by default.
    pub other: Rate,
}

/// A rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many at once, at least 1.
    pub burst: u32,
    /// How many a second in the long run, at least 1.
    pub per_second: u32,
}

/// How sessions behave.
#[derive(Clone, Debug)]
pub struct Sessions {
    /// After how much silence either side says something; two missed close the connection. 25 s by default.
    pub heartbeat: Duration,
    /// The patterns of a session whose token and query name none.
    pub default_patterns: Vec<Pattern>,
    /// Events that may wait for one session, 1,000 by default.
    pub outbox_events: usize,
    /// Bytes that may wait for one session, 1 MiB by default.
    pub outbox_bytes: usize,
    /// The most bytes in an event, 256 KiB by default and at most a quarter of the outbox.
    pub max_event_bytes: usize,
    /// How long the writer waits for more after the first event; zero by default.
    pub linger: Duration,
    /// How long a write may make no progress, 10 s by default.
    pub write_deadline: Duration,
    /// Whether permessage-deflate is offered.
    pub compression: bool,
    /// From how many bytes on a message is compressed, 1 KiB by default.
    pub compression_threshold: usize,
    /// zlib's level, 1 to 9; 1 by default.
    pub compression_level: u32,
}

/// The past that sessions resume from.
#[derive(Clone, Debug)]
pub struct History {
    /// About how many bytes of the stream's last events stay in memory; 64 MiB by default.
    pub max_bytes: usize,
    /// Sessions that replay from farther back than memory at one time, 256 by default.
    pub replays: usize,
    /// How long a replay may take, 10 minutes by default.
    pub replay_deadline: Duration,
}

/// How commands are asked.
#[derive(Clone, Debug)]
pub struct Commands {
    /// By when a command is answered, 10 s by default.
    pub deadline: Duration,
    /// Commands in flight of one session, 16 by default.
    pub in_flight: usize,
    /// For how long a command id counts once, 10 minutes by default.
    pub remember: Duration,
}

/// How the router ends.
#[derive(Clone, Debug)]
pub struct Drain {
    /// How long newcomers are still taken after readiness says that the node goes; zero with `dev`, else 2 s by
    /// default.
    pub lame_duck: Duration,
    /// Over how long the closes are spread.
    pub spread: Duration,
    /// How long commands in flight may still take.
    pub grace: Duration,
}

/// What is logged.
#[derive(Clone, Debug)]
pub struct Log {
    /// As `tracing_subscriber::EnvFilter` reads it: `info`, `rivulet=debug`.
    pub filter: String,
    /// One JSON object a line, or text for people.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text for people.
    Human,
    /// One JSON object a line.
    Json,
}
