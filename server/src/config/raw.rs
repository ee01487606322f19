//! The one description of the configuration.
//!
//! A struct per table; a field's doc, default and bounds are what the file, the environment, the flags, the
//! error messages and the reference page all go by. What a schema can't say by itself stands in extensions:
//! `x-min` and `x-max` (durations and sizes), `x-allowed` (what is allowed, in words, checked in `check.rs`),
//! `x-secret` (never shown).

use std::collections::BTreeMap;

use jsonwebtoken::Algorithm;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{
    FeedKind, LogFormat, Validation, key_file,
    scalar::{Size, Span},
};

/// The configuration as it is written.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    /// Development: a token that is not a JWT is itself the user id, no limits of connections, every origin. Only on loopback addresses.
    pub(super) dev: bool,
    /// Where clients connect. `0.0.0.0:8010` for every IPv4 address of the machine, `[::]:8010` for IPv6 too.
    #[schemars(extend("x-allowed" = "an address and a port, such as 127.0.0.1:8010 or [::]:8010"))]
    pub(super) listen: String,
    /// Where health and metrics are served; not for strangers.
    #[schemars(extend("x-allowed" = "an address and a port, such as 127.0.0.1:8011, or off"))]
    pub(super) admin_listen: String,
    /// Where the router keeps what it must: the data of its own nats-server and that server's credentials. Made if it is not there.
    #[schemars(extend("x-allowed" = "a directory"))]
    pub(super) data_dir: String,
    /// A directory with users' own families of events and commands: every `*.json` in it is one, by its name. Event types that the default sources do not cover get one of their own, unless `sources` is written.
    #[schemars(extend("x-allowed" = "a directory with JSON Schema files"))]
    pub(super) families: Option<String>,
    /// The NATS servers of one cluster. None: the router starts and supervises a nats-server of its own.
    #[schemars(extend("x-allowed" = "nats://host:port or tls://host:port; user and password, or a token, may stand before the host, the same in each"))]
    pub(super) nats_url: Vec<String>,
    /// The secret that tokens are signed with (HS256, HS384, HS512). Further keys stand in `auth.keys`.
    #[schemars(extend("x-allowed" = "a text of at least 32 bytes", "x-secret" = true))]
    pub(super) jwt_secret: Option<String>,
    /// Where the public keys that tokens are signed with are read from, as a JSON Web Key Set (RFC 7517).
    #[schemars(extend("x-allowed" = "an https:// URL without user and password; http:// only to a loopback address"))]
    pub(super) jwks_url: Option<String>,
    /// Origins of pages that may connect, beside the host's own.
    #[schemars(extend("x-allowed" = "scheme://host or scheme://host:port, no path, no wildcards"))]
    pub(super) allowed_origins: Vec<String>,
    /// The role of a token that names none.
    #[schemars(extend("x-allowed" = "the name of a role"))]
    pub(super) default_role: String,
    /// How to say to NATS who the router is.
    pub(super) nats: Nats,
    /// The one stream that keeps the events of durable sources.
    pub(super) stream: Stream,
    /// Who may connect.
    pub(super) auth: Auth,
    /// What strangers may cost.
    pub(super) edge: Edge,
    /// Rates and counts of clients.
    pub(super) limits: Limits,
    /// How sessions behave.
    pub(super) sessions: Sessions,
    /// The past that sessions resume from.
    pub(super) history: History,
    /// How commands are asked.
    pub(super) commands: Commands,
    /// How the router ends.
    pub(super) drain: Drain,
    /// What is logged, to standard error.
    pub(super) log: Log,
    /// From which NATS subjects events come, what they are and for whom. What is written here takes the place of the default.
    pub(super) sources: Vec<Source>,
    /// What a token may do whose own claims say nothing of it, by role. What is written here takes the place of the default.
    pub(super) roles: BTreeMap<String, Role>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Nats {
    /// A `.creds` file, read at every connect: a renewed one counts from then on.
    #[schemars(extend("x-allowed" = "a file that can be read"))]
    pub(super) creds_file: Option<String>,
    /// The seed of an nkey.
    #[schemars(extend("x-allowed" = "the 58 characters of a user's seed, from SU on", "x-secret" = true))]
    pub(super) nkey_seed: Option<String>,
    /// A user; with `nats.password`.
    #[schemars(extend("x-allowed" = "a text, together with nats.password"))]
    pub(super) user: Option<String>,
    /// The user's password.
    #[schemars(extend("x-allowed" = "a text, together with nats.user", "x-secret" = true))]
    pub(super) password: Option<String>,
    /// A token.
    #[schemars(extend("x-allowed" = "a text", "x-secret" = true))]
    pub(super) token: Option<String>,
    /// Whether plain text is refused; `tls://` in a URL asks for the same.
    pub(super) tls_required: bool,
    /// Root certificates in place of those of the system, in PEM.
    #[schemars(extend("x-allowed" = "a file that can be read"))]
    pub(super) tls_ca_file: Option<String>,
    /// The router's certificate, in PEM; with `nats.tls_key_file`.
    #[schemars(extend("x-allowed" = "a file that can be read, together with nats.tls_key_file"))]
    pub(super) tls_cert_file: Option<String>,
    /// The key of the router's certificate, in PEM.
    #[schemars(extend("x-allowed" = "a file that can be read, together with nats.tls_cert_file"))]
    pub(super) tls_key_file: Option<String>,
    /// The JetStream domain, where NATS is reached through a leaf node.
    #[schemars(extend("x-allowed" = "one subject token: no dots, wildcards or spaces"))]
    pub(super) jetstream_domain: Option<String>,
    /// The nats-server to start where `nats_url` names none. Absent: looked for on `PATH` and in `.tools/bin`.
    #[schemars(extend("x-allowed" = "a file that can be read"))]
    pub(super) server_binary: Option<String>,
    /// How long a node stays ready while the stream has no leader, and nothing is known to be missing. An election takes 4 to 9 s, and all nodes wait for the same one.
    #[schemars(extend("x-min" = "0s", "x-max" = "5m"))]
    pub(super) leader_grace: Span,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Stream {
    /// Its name.
    #[schemars(extend("x-allowed" = "1 to 64 of the characters A-Z a-z 0-9 _ -"))]
    pub(super) name: String,
    /// Copies. Absent: the lesser of 3 and the number of servers.
    #[schemars(range(min = 1, max = 5))]
    pub(super) replicas: Option<u64>,
    /// How long an event is kept: as far back a client can resume.
    #[schemars(extend("x-min" = "10s", "x-max" = "365d"))]
    pub(super) max_age: Span,
    /// How many bytes are kept; NATS reserves them. Absent: the lesser of 10 GiB and half of what the account has left.
    #[schemars(extend("x-min" = "1MiB", "x-max" = "1024TiB"))]
    pub(super) max_bytes: Option<Size>,
    /// In which time a message id counts once.
    #[schemars(extend("x-min" = "1s", "x-max" = "24h"))]
    pub(super) duplicate_window: Span,
    /// Whether an existing stream may be altered to what is written here. The router then writes down in the stream's metadata what it applied, and does not start where routers of another configuration have written something else: nodes refuse rather than overwrite each other.
    pub(super) manage: bool,
    /// Whether `stream.manage` may alter a stream that routers of another configuration manage. For the one start that changes the settings of a deployment: nodes that keep it on overwrite each other.
    pub(super) take_over: bool,
    /// Before which prefix the stream's events come out again. Nobody but the server may publish there.
    #[schemars(extend("x-allowed" = "a NATS subject without wildcards"))]
    pub(super) republish_prefix: String,
    /// What a node takes of the stream: all of it, or the events of its own users, for large fleets. `by_user` asks that every durable source has the audience `token:N`, with the same N and the same number of tokens, and that the stream republishes by user (docs/topics/feed.md).
    #[schemars(schema_with = "feeds")]
    pub(super) feed: FeedKind,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Auth {
    /// Further keys that tokens may be signed with.
    pub(super) keys: Vec<Key>,
    /// The algorithms that `jwt_secret` may be used with.
    #[schemars(schema_with = "secret_algorithms")]
    pub(super) secret_algorithms: Vec<Algorithm>,
    /// The algorithms that a key of the JWKS may be used with.
    #[schemars(schema_with = "public_algorithms")]
    pub(super) jwks_algorithms: Vec<Algorithm>,
    /// How often the JWKS is read again.
    #[schemars(extend("x-min" = "10s", "x-max" = "24h"))]
    pub(super) jwks_refresh: Span,
    /// The issuers (`iss`) that count. None: any.
    #[schemars(extend("x-allowed" = "texts"))]
    pub(super) issuers: Vec<String>,
    /// The audiences (`aud`) that count. None: any.
    #[schemars(extend("x-allowed" = "texts"))]
    pub(super) audiences: Vec<String>,
    /// The claim that names the user.
    #[schemars(extend("x-allowed" = "the name of a claim"))]
    pub(super) user_claim: String,
    /// How long after `exp` a token still counts.
    #[schemars(extend("x-min" = "0s", "x-max" = "5m"))]
    pub(super) expiry_leeway: Span,
    /// How long before `nbf` a token already counts.
    #[schemars(extend("x-min" = "0s", "x-max" = "5m"))]
    pub(super) not_before_leeway: Span,
}

/// A key that tokens may be signed with: one of `secret`, `secret_file`, `pem`, `pem_file`.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Key {
    /// A shared secret.
    #[schemars(extend("x-allowed" = "a text of at least 32 bytes", "x-secret" = true))]
    pub(super) secret: Option<String>,
    /// A file with a shared secret; line ends after it do not count.
    #[schemars(extend("x-allowed" = "a file that can be read, with a text of at least 32 bytes"))]
    pub(super) secret_file: Option<String>,
    /// A public key in PEM.
    #[schemars(extend("x-allowed" = "a public key in PEM: RSA of at least 2048 bits, EC P-256 or P-384, Ed25519"))]
    pub(super) pem: Option<String>,
    /// A file with a public key in PEM.
    #[schemars(extend("x-allowed" = "a file that can be read, with a public key in PEM: RSA of at least 2048 bits, EC P-256 or P-384, Ed25519"))]
    pub(super) pem_file: Option<String>,
    /// The algorithms that the key may be used with. None: those that fit it.
    #[schemars(schema_with = "algorithms")]
    pub(super) algorithms: Vec<Algorithm>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Edge {
    /// The proxies whose `X-Forwarded-For` counts.
    #[schemars(extend("x-allowed" = "addresses or networks, such as 10.0.0.0/8 or ::1"))]
    pub(super) trusted_proxies: Vec<String>,
    /// How long the headers of a request may take.
    #[schemars(extend("x-min" = "100ms", "x-max" = "1m"))]
    pub(super) header_timeout: Span,
    /// The most bytes in the headers of a request.
    #[schemars(extend("x-min" = "8KiB", "x-max" = "256KiB"))]
    pub(super) max_header_bytes: Size,
    /// The most sockets that are not yet sessions.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) max_pending_handshakes: u64,
    /// The most of them of one address (of IPv6, of one /64) that is no trusted proxy's; 0: none counted. Absent: a tenth of `edge.max_pending_handshakes`, at least 1.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub(super) max_pending_handshakes_per_address: Option<u64>,
    /// The most sockets at all.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub(super) max_connections: u64,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Limits {
    /// Devices at a time of one user; 0: none counted.
    #[schemars(range(min = 0, max = 100_000))]
    pub(super) devices_per_user: u64,
    /// Connections at a time of one address (of IPv6, of one /64); 0: none counted.
    #[schemars(range(min = 0, max = 10_000_000))]
    pub(super) connections_per_address: u64,
    /// Handshakes a second of one address (of IPv6, of one /64); 0: none counted.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub(super) handshakes_per_address: u32,
    /// Patterns of one session.
    #[schemars(range(min = 1, max = 10_000))]
    pub(super) max_patterns: u64,
    /// The most bytes in a client's message, after inflating.
    #[schemars(extend("x-min" = "1KiB", "x-max" = "16MiB"))]
    pub(super) max_message_bytes: Size,
    /// Bad messages a minute; one more closes the connection.
    #[schemars(range(min = 1, max = 100_000))]
    pub(super) bad_messages_per_minute: u32,
    /// `ping` of one session.
    pub(super) ping: Rate,
    /// `subscribe` and `unsubscribe` of one session; not charged in its first 10 s.
    pub(super) subscribe: Rate,
    /// Every other message of one session.
    pub(super) other: Rate,
}

/// A rate.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rate {
    /// How many at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) burst: u32,
    /// How many a second in the long run.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) per_second: u32,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Sessions {
    /// After how much silence either side says something; two missed close the connection.
    #[schemars(extend("x-min" = "100ms", "x-max" = "10m"))]
    pub(super) heartbeat: Span,
    /// The patterns of a session whose token and query name none.
    #[schemars(extend("x-allowed" = "patterns, such as blob.* or blob.>"))]
    pub(super) default_patterns: Vec<String>,
    /// Events that may wait for one session.
    #[schemars(range(min = 2, max = 1_000_000))]
    pub(super) outbox_events: u64,
    /// Bytes that may wait for one session.
    #[schemars(extend("x-min" = "4KiB", "x-max" = "1GiB"))]
    pub(super) outbox_bytes: Size,
    /// The most bytes in an event; at most a quarter of `sessions.outbox_bytes`.
    #[schemars(extend("x-min" = "1KiB", "x-max" = "64MiB"))]
    pub(super) max_event_bytes: Size,
    /// How long the writer waits for more after the first event.
    #[schemars(extend("x-min" = "0s", "x-max" = "1s"))]
    pub(super) linger: Span,
    /// How long a write may make no progress.
    #[schemars(extend("x-min" = "100ms", "x-max" = "5m"))]
    pub(super) write_deadline: Span,
    /// Whether permessage-deflate (RFC 7692) is offered.
    pub(super) compression: bool,
    /// From how many bytes on a message is compressed.
    #[schemars(extend("x-min" = "0", "x-max" = "64MiB"))]
    pub(super) compression_threshold: Size,
    /// How hard zlib tries.
    #[schemars(range(min = 1, max = 9))]
    pub(super) compression_level: u32,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct History {
    /// About how many bytes of the stream's last events stay in memory; what lies farther back is read from the stream.
    #[schemars(extend("x-min" = "0", "x-max" = "64GiB"))]
    pub(super) max_bytes: Size,
    /// Sessions that replay from farther back than memory at one time; one more is told when to come again.
    #[schemars(range(min = 1, max = 100_000))]
    pub(super) replays: u64,
    /// How long a replay may take before the connection is closed with 1013, from which a client resumes where it got to.
    #[schemars(extend("x-min" = "1s", "x-max" = "24h"))]
    pub(super) replay_deadline: Span,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Commands {
    /// By when a command is answered.
    #[schemars(extend("x-min" = "10ms", "x-max" = "10m"))]
    pub(super) deadline: Span,
    /// Commands in flight of one session; beyond, its socket is not read.
    #[schemars(range(min = 1, max = 10_000))]
    pub(super) in_flight: u64,
    /// For how long the id of a command counts once; at least `commands.deadline`.
    #[schemars(extend("x-min" = "1s", "x-max" = "24h"))]
    pub(super) remember: Span,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Drain {
    /// How long newcomers are still taken after readiness says that the node goes away, so that a load balancer learns of it first. Absent: 2s, and 0s with `dev`.
    #[schemars(extend("x-min" = "0s", "x-max" = "5m"))]
    pub(super) lame_duck: Option<Span>,
    /// Over how long the closes are spread, so that not all clients reconnect at once.
    #[schemars(extend("x-min" = "0s", "x-max" = "10m"))]
    pub(super) spread: Span,
    /// How long commands in flight may still take.
    #[schemars(extend("x-min" = "0s", "x-max" = "10m"))]
    pub(super) grace: Span,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Log {
    /// What is logged, by level and module.
    #[schemars(extend("x-allowed" = "a level (error, warn, info, debug, trace) or module=level with commas between, such as info,rivulet=debug"))]
    pub(super) filter: String,
    /// Text for people, or one JSON object a line.
    #[schemars(schema_with = "log_formats")]
    pub(super) format: LogFormat,
}

/// From which subjects events come, what they are and for whom.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Source {
    /// The NATS subject, with wildcards. It overlaps neither another source's nor `command.>`, `rivulet.>`, or what begins with `$` or `_INBOX`.
    #[schemars(extend("x-allowed" = "a NATS subject, such as blob.> or blob.created.*"))]
    pub(super) subject: String,
    /// Whether the stream keeps its events; else they pass by core NATS, at most once.
    #[serde(default = "yes")]
    pub(super) durable: bool,
    /// Where an event's type stands: in the leading tokens of the subject, in a header, or in a top-level string of the payload.
    #[serde(rename = "type", default = "type_from_subject")]
    #[schemars(extend("x-allowed" = "subject:N (the leading N tokens), header:NAME or field:NAME"))]
    pub(super) event_type: String,
    /// Put before the type, with a dot between.
    #[serde(default)]
    #[schemars(extend("x-allowed" = "1 to 7 tokens of A-Z a-z 0-9 _ - with dots between"))]
    pub(super) type_prefix: Option<String>,
    /// Where an event's data stands: the whole payload, or a top-level field of it.
    #[serde(default = "data_from_payload")]
    #[schemars(extend("x-allowed" = "payload or field:NAME"))]
    pub(super) data: String,
    /// Who gets an event: `auto` is a header if there is one, else the payload's top-level `user_id`; `payload:NAME` is another top-level field, which holds a user or a list of at most 1,000; `token:N` is token N of the subject, counted from 0.
    #[serde(default = "audience_auto")]
    #[schemars(extend("x-allowed" = "auto, header, payload, payload:NAME, everyone or token:N"))]
    pub(super) audience: String,
    /// What happens to an event that is not of its schema: it is rejected, or passes and is counted, or nobody looks.
    #[serde(default = "reject")]
    #[schemars(schema_with = "validations")]
    pub(super) validate: Validation,
}

impl Source {
    /// A source of this subject, everything else as where nothing is written.
    pub(super) fn of(subject: &str) -> Self {
        Self {
            subject: subject.into(),
            durable: yes(),
            event_type: type_from_subject(),
            type_prefix: None,
            data: data_from_payload(),
            audience: audience_auto(),
            validate: reject(),
        }
    }
}

/// What a token of the role may do.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Role {
    /// The event types that it may see.
    #[serde(default = "everything")]
    #[schemars(extend("x-allowed" = "patterns, such as blob.* or blob.>; * for all"))]
    pub(super) events: Vec<String>,
    /// The commands that it may ask.
    #[serde(default = "everything")]
    #[schemars(extend("x-allowed" = "names of commands; * for all"))]
    pub(super) commands: Vec<String>,
    /// Devices at a time of one user; 0: none counted. Absent: `limits.devices_per_user`.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100_000))]
    pub(super) devices_per_user: Option<u64>,
}

impl Default for Raw {
    fn default() -> Self {
        let user = Role {
            events: everything(),
            commands: everything(),
            devices_per_user: None,
        };
        Self {
            dev: false,
            listen: "127.0.0.1:8010".into(),
            admin_listen: "127.0.0.1:8011".into(),
            data_dir: ".rivulet".into(),
            families: None,
            nats_url: Vec::new(),
            jwt_secret: None,
            jwks_url: None,
            allowed_origins: Vec::new(),
            default_role: "user".into(),
            nats: Nats::default(),
            stream: Stream::default(),
            auth: Auth::default(),
            edge: Edge::default(),
            limits: Limits::default(),
            sessions: Sessions::default(),
            history: History::default(),
            commands: Commands::default(),
            drain: Drain::default(),
            log: Log::default(),
            sources: ["blob.>", "processor.>", "book.>", "conversation.>"]
                .map(Source::of)
                .into(),
            roles: BTreeMap::from([("user".to_owned(), user)]),
        }
    }
}

impl Default for Nats {
    fn default() -> Self {
        Self {
            creds_file: None,
            nkey_seed: None,
            user: None,
            password: None,
            token: None,
            tls_required: false,
            tls_ca_file: None,
            tls_cert_file: None,
            tls_key_file: None,
            jetstream_domain: None,
            server_binary: None,
            leader_grace: Span::seconds(10),
        }
    }
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            name: "RIVULET".into(),
            replicas: None,
            max_age: Span::seconds(24 * 3600),
            max_bytes: None,
            duplicate_window: Span::seconds(120),
            manage: false,
            take_over: false,
            republish_prefix: "rivulet.live".into(),
            feed: FeedKind::Whole,
        }
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            secret_algorithms: vec![Algorithm::HS256, Algorithm::HS384, Algorithm::HS512],
            jwks_algorithms: vec![Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA],
            jwks_refresh: Span::seconds(600),
            issuers: Vec::new(),
            audiences: Vec::new(),
            user_claim: "sub".into(),
            expiry_leeway: Span(0),
            not_before_leeway: Span::seconds(5),
        }
    }
}

impl Default for Edge {
    fn default() -> Self {
        Self {
            trusted_proxies: Vec::new(),
            header_timeout: Span::seconds(5),
            max_header_bytes: Size::kib(16),
            max_pending_handshakes: 4_096,
            max_pending_handshakes_per_address: None,
            max_connections: 65_536,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            devices_per_user: 5,
            connections_per_address: 100,
            handshakes_per_address: 20,
            max_patterns: 100,
            max_message_bytes: Size::kib(64),
            bad_messages_per_minute: 10,
            ping: Rate {
                burst: 120,
                per_second: 2,
            },
            subscribe: Rate {
                burst: 30,
                per_second: 1,
            },
            other: Rate {
                burst: 60,
                per_second: 10,
            },
        }
    }
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            heartbeat: Span::seconds(25),
            default_patterns: Vec::new(),
            outbox_events: 1_000,
            outbox_bytes: Size::kib(1024),
            max_event_bytes: Size::kib(256),
            linger: Span(0),
            write_deadline: Span::seconds(10),
            compression: true,
            compression_threshold: Size::kib(1),
            compression_level: 1,
        }
    }
}

impl Default for History {
    fn default() -> Self {
        Self {
            max_bytes: Size::kib(64 << 10),
            replays: 256,
            replay_deadline: Span::seconds(600),
        }
    }
}

impl Default for Commands {
    fn default() -> Self {
        Self {
            deadline: Span::seconds(10),
            in_flight: 16,
            remember: Span::seconds(600),
        }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            lame_duck: None,
            spread: Span::seconds(5),
            grace: Span::seconds(10),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            filter: "info,async_nats=warn".into(),
            format: LogFormat::Human,
        }
    }
}

fn yes() -> bool {
    true
}

fn type_from_subject() -> String {
    "subject:2".into()
}

fn data_from_payload() -> String {
    "payload".into()
}

fn audience_auto() -> String {
    "auto".into()
}

fn reject() -> Validation {
    Validation::Reject
}

fn everything() -> Vec<String> {
    vec!["*".into()]
}

fn algorithms(_: &mut SchemaGenerator) -> Schema {
    let all = [key_file::SECRET, key_file::PUBLIC].concat();
    json_schema!({ "type": "array", "items": { "type": "string", "enum": all } })
}

fn secret_algorithms(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": { "type": "string", "enum": key_file::SECRET } })
}

fn public_algorithms(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": { "type": "string", "enum": key_file::PUBLIC } })
}

fn feeds(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["whole", "by_user"] })
}

fn log_formats(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["human", "json"] })
}

fn validations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["reject", "warn", "off"] })
}
