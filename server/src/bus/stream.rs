//! The one stream that keeps the durable sources: made where it is missing, checked where it is there.

mod by_user;

use std::{future::IntoFuture, time::Duration};

use async_nats::{
    Client,
    jetstream::{
        self, ErrorCode,
        account::Account,
        context::{RequestError, RequestErrorKind},
        response::Response,
        stream::{Config, DiscardPolicy, Republish, RetentionPolicy, StorageType},
    },
};
use rivulet_protocol::scalar::Timestamp;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};
use tracing::{info, warn};

use super::{BusError, connect::Link, filter, managed::Settings};
use crate::config::{self, Feed};

/// The most that a stream is given where the configuration does not say.
const MAX_BYTES: u64 = 10 << 30;
/// Less than this is no history to speak of: then the error says so.
const MIN_BYTES: u64 = 16 << 20;

/// The stream, as the feed needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stream {
    /// Its name.
    pub(super) name: String,
    /// Whether all that was acknowledged stays until the limits take it, oldest first: what exact resume
    /// needs.
    pub(super) exact: bool,
    /// Whether any of its replicas answers Direct Get.
    pub(super) direct: bool,
    /// How its messages come live.
    pub(super) live: Live,
}

/// How a stream's messages come live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Live {
    /// It republishes every message: on this subject.
    Republished {
        /// With wildcards.
        subject: String,
    },
    /// It doesn't: one ordered consumer reads it.
    Consumed,
}

/// Where a stream stands, as its leader says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Name and creation time in nanoseconds: another stream of the same name has another.
    pub(super) epoch: String,
    /// When it was made.
    pub(super) created: Timestamp,
    /// The oldest sequence that it still has; one more than the last if it has none.
    pub(super) first: u64,
    /// The last sequence that it gave.
    pub(super) last: u64,
    /// How many sequences between them it no longer has.
    pub(super) holes: u64,
}

/// Why a stream could not be opened.
#[derive(Debug)]
pub(super) enum Fault {
    /// It will not be otherwise by itself.
    Lasting(BusError),
    /// JetStream has no leader now, or is slow: worth another try.
    Passing(String),
}

impl From<BusError> for Fault {
    fn from(error: BusError) -> Self {
        Self::Lasting(error)
    }
}

/// Asks the stream's leader where the stream stands.
pub(super) async fn head(jetstream: &jetstream::Context, name: &str) -> Result<Head, HeadFault> {
    told(jetstream, name, &json!({})).await.map(|told| told.head)
}

/// Asks the stream's leader where the stream stands, and whether it republishes.
pub(super) async fn head_and_republish(
    jetstream: &jetstream::Context,
    name: &str,
) -> Result<(Head, bool), HeadFault> {
    let told = told(jetstream, name, &json!({})).await;
    told.map(|told| (told.head, told.republishes))
}

/// Where the stream stands, with the sequences behind the first that it no longer has, in order.
pub(super) async fn deleted(
    jetstream: &jetstream::Context,
    name: &str,
) -> Result<(Head, Vec<u64>), HeadFault> {
    let told = told(jetstream, name, &json!({ "deleted_details": true })).await;
    told.map(|mut told| {
        told.deleted.sort_unstable();
        (told.head, told.deleted)
    })
}

/// What the leader says of the stream.
struct Told {
    head: Head,
    republishes: bool,
    /// Only where the question asks for it.
    deleted: Vec<u64>,
}

async fn told(jetstream: &jetstream::Context, name: &str, question: &Value) -> Result<Told, HeadFault> {
    #[derive(Deserialize)]
    struct Info {
        created: String,
        state: State,
        config: Republishing,
        /// Only in a cluster.
        cluster: Option<Cluster>,
    }
    #[derive(Deserialize)]
    struct Republishing {
        republish: Option<IgnoredAny>,
    }
    #[derive(Deserialize)]
    struct Cluster {
        #[serde(default)]
        leader: String,
    }
    #[derive(Deserialize)]
    struct State {
        first_seq: u64,
        last_seq: u64,
        messages: u64,
        deleted: Option<Vec<u64>>,
    }
    let answer: Result<Response<Info>, RequestError> =
        jetstream.request(format!("STREAM.INFO.{name}"), question).await;
    match answer {
        // A follower answers for a stream that lost its quorum: what it has may be old, and nothing can be stored.
        Ok(Response::Ok(info)) if info.cluster.as_ref().is_some_and(|of| of.leader.is_empty()) => {
            Err(HeadFault::Refused("the stream has no leader".to_owned()))
        }
        Ok(Response::Ok(info)) => match info.created.parse::<jiff::Timestamp>() {
            Ok(created) => {
                let State {
                    first_seq: first,
                    last_seq: last,
                    messages,
                    deleted,
                } = info.state;
                let head = Head {
                    epoch: format!("{name}@{}", created.as_nanosecond()),
                    created: Timestamp::new(created),
                    first,
                    last,
                    // An empty stream may say 0 of its first.
                    holes: match messages {
                        0 => 0,
                        messages => (last + 1).saturating_sub(first).saturating_sub(messages),
                    },
                };
                Ok(Told {
                    head,
                    republishes: info.config.republish.is_some(),
                    deleted: deleted.unwrap_or_default(),
                })
            }
            Err(fault) => Err(HeadFault::Refused(format!("`created`: {fault}"))),
        },
        Ok(Response::Err { error }) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
            Err(HeadFault::Missing)
        }
        Ok(Response::Err { error }) => Err(HeadFault::Refused(error.to_string())),
        Err(fault) if fault.kind() == RequestErrorKind::NoResponders => {
            Err(HeadFault::Refused("JetStream is not there".to_owned()))
        }
        Err(fault) => Err(HeadFault::Unanswered(fault.to_string())),
    }
}

/// Why the leader's word is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HeadFault {
    /// JetStream answered that it can't say.
    Refused(String),
    /// Nobody answered.
    Unanswered(String),
    /// Nor did the server that we are connected to.
    Deaf(String),
    /// There is no such stream.
    Missing,
}

/// Makes sure of the stream. `None`: JetStream is not there.
pub(super) async fn open(
    link: &Link,
    config: &config::Stream,
    subjects: &[&str],
) -> Result<Option<Stream>, Fault> {
    let Some(found) = find(link, &config.name).await? else {
        return Ok(None);
    };
    let existing = match found {
        Found::Nothing => create(link, config, subjects).await?,
        Found::Stream(info) if config.manage => manage(link, config, subjects, info.config).await?,
        Found::Stream(info) => info.config,
    };
    check(link, config, subjects, &existing).await.map(Some)
}

/// What a look at the stream finds.
pub(super) enum Examined {
    /// JetStream is not there.
    NoJetStream,
    /// The stream is not.
    Missing,
    /// The stream, and its own configuration.
    There(Stream, Box<Config>),
}

/// Looks at the stream as [`open`] does, and changes nothing.
pub(super) async fn examine(
    link: &Link,
    config: &config::Stream,
    subjects: &[&str],
) -> Result<Examined, Fault> {
    Ok(match find(link, &config.name).await? {
        None => Examined::NoJetStream,
        Some(Found::Nothing) => Examined::Missing,
        Some(Found::Stream(info)) => {
            let stream = check(link, config, subjects, &info.config).await?;
            Examined::There(stream, Box::new(info.config))
        }
    })
}

/// `None`: JetStream is not there.
async fn find(link: &Link, name: &str) -> Result<Option<Found>, Fault> {
    Ok(Some(
        match request(link, format!("STREAM.INFO.{name}"), &json!({})).await? {
            Answer::Ok(info) => Found::Stream(Box::new(info)),
            Answer::Refused(ErrorCode::STREAM_NOT_FOUND, _) => Found::Nothing,
            Answer::Refused(
                ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT,
                _,
            )
            | Answer::Nobody => return Ok(None),
            Answer::Refused(_, fault) => return Err(Fault::Passing(fault)),
        },
    ))
}

enum Found {
    Nothing,
    Stream(Box<Described>),
}

#[derive(Debug, Deserialize)]
struct Described {
    config: Config,
}

/// Makes the stream, and asks for less where the server has less.
async fn create(link: &Link, config: &config::Stream, subjects: &[&str]) -> Result<Config, Fault> {
    let name = &config.name;
    let mut wanted = desired(config, subjects);
    wanted.num_replicas = config.replicas.unwrap_or(match clustered(&link.client) {
        true => 3,
        false => 1,
    });
    let limit = match config.max_bytes {
        Some(bytes) => bytes,
        None => half_of_what_is_left(link, wanted.num_replicas)
            .await?
            .min(MAX_BYTES),
    };
    wanted.max_bytes = i64::try_from(limit).unwrap_or(i64::MAX);
    if config.manage {
        Settings::new(config, subjects).mark(&mut wanted.metadata);
    }
    let most = (wanted.max_bytes, wanted.num_replicas);
    let mut asked_for_less = false;
    loop {
        let answer: Answer<Described> = request(link, format!("STREAM.CREATE.{name}"), &wanted).await?;
        let (code, fault) = match answer {
            Answer::Ok(made) => {
                let made = match asked_for_less {
                    true => halve(link, made).await,
                    false => made,
                };
                let (max_bytes, replicas) = (made.config.max_bytes, made.config.num_replicas);
                info!(stream = %name, max_bytes, replicas, "made the stream");
                if replicas < most.1 {
                    warn!(
                        stream = %name, replicas, wanted = most.1,
                        "the stream has fewer copies than servers could hold: it lasts no longer than they do; see to storage on each server, then `stream.replicas` with `stream.manage`"
                    );
                }
                return Ok(made.config);
            }
            Answer::Nobody => return Err(Fault::Passing("JetStream went away".to_owned())),
            Answer::Refused(code, fault) => (code, fault),
        };
        match code {
            // A server without an account limit does not say what it has left, nor does a cluster, whose general
            // codes come for storage too: less is asked for until they agree. Fewer bytes before fewer copies: a
            // shorter history is a smaller loss.
            ErrorCode::STORAGE_RESOURCES_EXCEEDED
            | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
            | ErrorCode::CLUSTER_NO_PEERS
            | ErrorCode::INSUFFICIENT_RESOURCES
                if config.max_bytes.is_none() && wanted.max_bytes as u64 / 2 >= MIN_BYTES =>
            {
                wanted.max_bytes /= 2;
                asked_for_less = true;
            }
            // Fewer servers than copies.
            ErrorCode::CLUSTER_NO_PEERS
            | ErrorCode::INSUFFICIENT_RESOURCES
            | ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED
                if config.replicas.is_none() && wanted.num_replicas > 1 =>
            {
                wanted.num_replicas -= 1;
                // It was not the bytes.
                (wanted.max_bytes, asked_for_less) = (most.0, false);
            }
            ErrorCode::STREAM_SUBJECT_OVERLAP => {
                return Err(claimed_elsewhere(link, name, subjects).await?.into());
            }
            // Another node made it in the meantime.
            ErrorCode::STREAM_NAME_EXIST => return Err(Fault::Passing(fault)),
            ErrorCode::CLUSTER_NOT_AVAILABLE | ErrorCode::CLUSTER_NOT_LEADER => {
                return Err(Fault::Passing(fault));
            }
            _ => {
                let of_storage = matches!(
                    code,
                    ErrorCode::STORAGE_RESOURCES_EXCEEDED
                        | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
                        | ErrorCode::CLUSTER_NO_PEERS
                        | ErrorCode::INSUFFICIENT_RESOURCES
                );
                let advice = match of_storage {
                    true => format!(
                        "; it asked for {} with {} copies: set `stream.max_bytes` to what each server has left (its `max_file`), or `stream.replicas`",
                        config::size_text(wanted.max_bytes as u64),
                        wanted.num_replicas
                    ),
                    false => String::new(),
                };
                return Err(BusError::Stream {
                    name: name.clone(),
                    fault: format!("it can't be made: {fault}{advice}"),
                }
                .into());
            }
        }
    }
}

/// Leaves half to others: all that is known of a server which refused more is that it had this much left.
async fn halve(link: &Link, made: Described) -> Described {
    let half = Config {
        max_bytes: made.config.max_bytes / 2,
        ..made.config.clone()
    };
    match request(link, format!("STREAM.UPDATE.{}", half.name), &half).await {
        Ok(Answer::Ok(halved)) => halved,
        _ => {
            warn!(
                stream = half.name,
                "the stream takes more than half of what JetStream has left: set `stream.max_bytes`"
            );
            made
        }
    }
}

/// Alters an existing stream to the configuration, unless another configuration manages it; what the configuration
/// does not name stays.
async fn manage(
    link: &Link,
    config: &config::Stream,
    subjects: &[&str],
    existing: Config,
) -> Result<Config, Fault> {
    let name = &config.name;
    let settings = Settings::new(config, subjects);
    let differing = settings.differing(&existing.metadata).join(", ");
    if !differing.is_empty() && !config.take_over {
        return Err(BusError::Stream {
            name: name.clone(),
            fault: format!(
                "routers of another configuration manage it: {differing}; give all routers the same settings, or let these take the place of those with one start of one router with `--set stream.take_over=true`"
            ),
        }
        .into());
    }
    let mut metadata = existing.metadata.clone();
    settings.mark(&mut metadata);
    let wanted = desired(config, subjects);
    let altered = Config {
        metadata,
        subjects: wanted.subjects,
        retention: wanted.retention,
        discard: wanted.discard,
        max_age: wanted.max_age,
        max_messages_per_subject: -1,
        duplicate_window: wanted.duplicate_window,
        republish: wanted.republish,
        allow_direct: true,
        allow_rollup: false,
        max_bytes: match config.max_bytes {
            Some(bytes) => i64::try_from(bytes).unwrap_or(i64::MAX),
            None => existing.max_bytes,
        },
        num_replicas: config.replicas.unwrap_or(existing.num_replicas),
        ..existing.clone()
    };
    if altered == existing {
        return Ok(existing);
    }
    match request::<Described>(link, format!("STREAM.UPDATE.{name}"), &altered).await? {
        Answer::Ok(made) => {
            if differing.is_empty() {
                info!(stream = %name, "altered the stream to the configuration");
            } else {
                warn!(stream = %name, differing, "took the stream over from another configuration");
            }
            Ok(made.config)
        }
        Answer::Refused(ErrorCode::STREAM_SUBJECT_OVERLAP, _) => {
            Err(claimed_elsewhere(link, name, subjects).await?.into())
        }
        Answer::Refused(_, fault) => Err(BusError::Stream {
            name: name.clone(),
            fault: format!("it can't be altered to the configuration: {fault}"),
        }
        .into()),
        Answer::Nobody => Err(Fault::Passing("JetStream went away".to_owned())),
    }
}

/// Names what the stream lacks, and finds out how its messages come live.
async fn check(
    link: &Link,
    config: &config::Stream,
    subjects: &[&str],
    existing: &Config,
) -> Result<Stream, Fault> {
    let name = &config.name;
    let lacking: Vec<&str> = subjects
        .iter()
        .copied()
        .filter(|subject| !existing.subjects.iter().any(|wide| filter::covers(wide, subject)))
        .collect();
    if !lacking.is_empty() {
        return Err(BusError::Stream {
            name: name.clone(),
            fault: format!(
                "it exists and does not take `{}`; add the subject to it, or allow the router to with `stream.manage` (`--manage-stream`)",
                lacking.join("`, `")
            ),
        }
        .into());
    }
    let faults = inexact(existing);
    if !faults.is_empty() {
        warn!(
            stream = %name,
            "the stream is not one that exact resume can rest on, `connected` says \"durable\": false: {}",
            faults.join("; ")
        );
    }
    if existing.storage == StorageType::Memory {
        warn!(stream = %name, "the stream is kept in memory: it ends with its servers");
    }
    if let Feed::ByUser(shape) = config.feed {
        by_user::check(config, shape, existing)?;
    }
    let live = match &existing.republish {
        Some(_) if matches!(config.feed, Feed::ByUser(_)) => Live::Republished {
            subject: format!("{}.>", config.republish_prefix),
        },
        Some(republish) if republishes_all(republish) => Live::Republished {
            subject: republish.destination.clone(),
        },
        other => {
            let why = other.as_ref().map_or(
                "does not republish",
                |_| "republishes only part of its messages, or only their headers",
            );
            warn!(
                stream = %name,
                "the stream {why}: it is read by a consumer, which takes longer; with `stream.manage` (`--manage-stream`) the router makes it republish"
            );
            Live::Consumed
        }
    };
    if let Live::Republished { subject } = &live {
        let capturing = streams_taking(link, subject).await?;
        if !capturing.is_empty() {
            return Err(BusError::Stream {
                name: name.clone(),
                fault: format!(
                    "it republishes on `{subject}`, which the stream `{}` takes in: each event would be stored twice; narrow that stream's subjects, or set another `stream.republish_prefix`",
                    capturing.join("`, `")
                ),
            }
            .into());
        }
    }
    Ok(Stream {
        name: name.clone(),
        exact: faults.is_empty(),
        direct: existing.allow_direct,
        live,
    })
}

/// The stream as we would make it, its size and copies aside.
fn desired(config: &config::Stream, subjects: &[&str]) -> Config {
    Config {
        name: config.name.clone(),
        subjects: subjects.iter().map(|&subject| subject.to_owned()).collect(),
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        max_age: config.max_age,
        max_messages: -1,
        max_messages_per_subject: -1,
        duplicate_window: config.duplicate_window.min(nonzero(config.max_age)),
        republish: Some(match config.feed {
            Feed::Whole => Republish {
                source: ">".to_owned(),
                destination: format!("{}.>", config.republish_prefix),
                headers_only: false,
            },
            Feed::ByUser(shape) => by_user::mapping(&config.republish_prefix, shape),
        }),
        allow_direct: true,
        num_replicas: 1,
        ..Config::default()
    }
}

/// Zero means "for ever" to a stream.
fn nonzero(age: Duration) -> Duration {
    if age.is_zero() { Duration::MAX } else { age }
}

/// What an existing stream lacks for exact resume, each with its name in the stream's configuration.
fn inexact(existing: &Config) -> Vec<&'static str> {
    let faults = [
        (
            existing.retention != RetentionPolicy::Limits,
            "`retention` is not `limits`: a consumer's acknowledgement removes messages",
        ),
        (
            existing.discard != DiscardPolicy::Old,
            "`discard` is not `old`: when it is full, publishing fails",
        ),
        (
            existing.max_messages_per_subject > 0,
            "`max_msgs_per_subject` is set: newer messages remove older ones of their subject",
        ),
        (
            existing.allow_message_ttl,
            "`allow_msg_ttl` is set: messages may go before their time",
        ),
        (
            existing.allow_rollup,
            "`allow_rollup_hdrs` is set: a publisher may remove messages",
        ),
        (
            existing.no_ack,
            "`no_ack` is set: publishers never learn what was stored",
        ),
        (
            existing.subject_transform.is_some(),
            "`subject_transform` is set: messages are stored under other subjects",
        ),
        (
            existing.mirror.is_some(),
            "it is a mirror: what is published elsewhere comes late",
        ),
    ];
    faults
        .into_iter()
        .filter_map(|(lacks, what)| lacks.then_some(what))
        .collect()
}

fn republishes_all(republish: &Republish) -> bool {
    matches!(republish.source.as_str(), "" | ">")
        && republish.destination.ends_with(".>")
        && !republish.headers_only
}

/// Explains which streams claim the sources' subjects.
async fn claimed_elsewhere(link: &Link, name: &str, subjects: &[&str]) -> Result<BusError, Fault> {
    let mut claims = Vec::new();
    for subject in subjects {
        for owner in streams_taking(link, subject).await? {
            claims.push((owner, (*subject).to_owned()));
        }
    }
    claims.retain(|(owner, _)| owner != name);
    Ok(BusError::Claimed {
        name: name.to_owned(),
        claims,
    })
}

/// The streams whose subjects overlap with `subject`.
async fn streams_taking(link: &Link, subject: &str) -> Result<Vec<String>, Fault> {
    #[derive(Deserialize)]
    struct Names {
        streams: Option<Vec<String>>,
    }
    match request::<Names>(link, "STREAM.NAMES".to_owned(), &json!({ "subject": subject })).await? {
        Answer::Ok(names) => Ok(names.streams.unwrap_or_default()),
        Answer::Refused(_, fault) => Err(Fault::Passing(fault)),
        Answer::Nobody => Err(Fault::Passing("JetStream went away".to_owned())),
    }
}

/// Half of what the account has left on disk; as much as there is where it has no limit.
async fn half_of_what_is_left(link: &Link, replicas: usize) -> Result<u64, Fault> {
    let account: Account = match request(link, "INFO".to_owned(), &json!({})).await? {
        Answer::Ok(account) => account,
        Answer::Refused(_, fault) => return Err(Fault::Passing(fault)),
        Answer::Nobody => return Err(Fault::Passing("JetStream went away".to_owned())),
    };
    let tier = account.tiers.get(&format!("R{replicas}"));
    let (limits, used, reserved) = match tier {
        Some(tier) => (tier.limits, tier.storage, tier.reserved_storage),
        None => (account.limits, account.storage, account.reserved_storage),
    };
    let Some(limit) = limits.max_storage.and_then(|limit| u64::try_from(limit).ok()) else {
        return Ok(u64::MAX);
    };
    let half = limit.saturating_sub(used.max(reserved)) / 2;
    if half < MIN_BYTES {
        return Err(BusError::NoStorage {
            left: half * 2,
            least: MIN_BYTES * 2,
        }
        .into());
    }
    Ok(half)
}

fn clustered(client: &Client) -> bool {
    client.server_info().cluster.is_some()
}

/// JetStream's answer.
enum Answer<T> {
    Ok(T),
    Refused(ErrorCode, String),
    /// There is no JetStream.
    Nobody,
}

async fn request<T: serde::de::DeserializeOwned>(
    link: &Link,
    subject: String,
    body: &(impl serde::Serialize + ?Sized),
) -> Result<Answer<T>, Fault> {
    let answer = link
        .jetstream
        .request::<_, _, Value>(subject.clone(), body)
        .into_future();
    match link.permitted(answer).await? {
        Ok(mut answer) => match answer.get_mut("error").map(Value::take) {
            Some(error) => {
                let error: jetstream::Error = serde_json::from_value(error)
                    .map_err(|fault| Fault::Passing(format!("{subject}: {fault}")))?;
                Ok(Answer::Refused(error.error_code(), error.to_string()))
            }
            None => serde_json::from_value(answer)
                .map(Answer::Ok)
                .map_err(|fault| Fault::Passing(format!("{subject}: {fault}"))),
        },
        Err(fault) if fault.kind() == RequestErrorKind::NoResponders => Ok(Answer::Nobody),
        Err(fault) => Err(Fault::Passing(format!("{subject}: {fault}"))),
    }
}
