//! `rivulet check --live`: tries on a running NATS what the router will need of it, and changes nothing there.
//!
//! Permissions are tried as the server applies them: each subject is subscribed to, or published on with a message that
//! has no effect (an empty request, a name that nothing has, an expected sequence that no stream has). What would have
//! an effect whatever the payload, `STREAM.DELETE` and `STREAM.PURGE`, is not tried.

use std::{
    collections::HashSet,
    fmt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use async_nats::{Event, HeaderMap, jetstream::account::Account};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::{
    BusError,
    connect::{Endpoint, Link, NODES, Purpose},
    local_server::read_credentials,
    permissions::{self, Rights},
    stream::{self, Fault},
};
use crate::config::{self, Config, NatsCredentials};

/// How long NATS may take to answer one question.
const PATIENCE: Duration = Duration::from_secs(5);
/// The refusals of a connection come on a task of their own, behind the answer that follows them.
const REFUSALS_WITHIN: Duration = Duration::from_millis(200);
/// A clock that differs by more makes tokens end early, or late.
const MOST_SKEW: Duration = Duration::from_secs(2);

/// One thing that was tried, as a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether it is as the router needs it.
    pub good: bool,
    /// What was tried, and what is wrong or to be known.
    pub text: String,
}

impl Finding {
    /// Something that is as it should be.
    pub fn good(text: impl Into<String>) -> Self {
        Self {
            good: true,
            text: text.into(),
        }
    }

    /// Something that is not.
    pub fn bad(text: impl Into<String>) -> Self {
        Self {
            good: false,
            text: text.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.good { "ok  " } else { "BAD " };
        write!(formatter, "{mark}{}", self.text)
    }
}

/// Tries all that a router with this configuration needs of NATS, and that `other`, a user of the same account who is no
/// router, is denied what only routers may use. Says each finding as it comes.
pub async fn check(config: &Config, other: Option<NatsCredentials>, mut say: impl FnMut(Finding)) {
    let trial = match Trial::connect(&config.nats, &config.data_dir, Purpose::Requests).await {
        Ok(trial) => trial,
        Err(fault) => return say(Finding::bad(fault.to_string())),
    };
    let server = trial.link.client.server_info();
    say(Finding::good(format!(
        "connected to {}, nats-server {}",
        trial.endpoint, server.version
    )));
    let needed = permissions::needed(config);
    let refused = trial.refused(&needed).await;
    for (action, subject, why) in needed.each() {
        let text = format!("may {action} `{subject}` ({why})");
        say(match refused.contains(&(action, subject.to_owned())) {
            false => Finding::good(text),
            true => Finding::bad(format!(
                "{text}: NATS refuses it; see `rivulet check --permissions`"
            )),
        });
    }
    trial.stream(config, &mut say).await;
    if let Some(credentials) = other {
        others(config, credentials, &mut say).await;
    }
}

/// Whether a user who is no router is denied what only routers may use.
async fn others(config: &Config, credentials: NatsCredentials, say: &mut impl FnMut(Finding)) {
    let nats = config::Nats {
        credentials,
        ..config.nats.clone()
    };
    let trial = match Trial::connect(&nats, &config.data_dir, Purpose::Tool).await {
        Ok(trial) => trial,
        Err(fault) => return say(Finding::bad(format!("the other user: {fault}"))),
    };
    let denied = permissions::denied(config);
    let refused = trial.refused(&denied).await;
    for (action, subject, why) in denied.each() {
        let text = format!("`{subject}` is closed to the other user's {action} ({why})");
        say(match refused.contains(&(action, subject.to_owned())) {
            true => Finding::good(text),
            false => Finding::bad(format!(
                "the other user may {action} `{subject}` ({why}): deny it, as `rivulet check --permissions` prints"
            )),
        });
    }
}

/// A connection on which something is tried.
struct Trial {
    endpoint: Endpoint,
    purpose: Purpose,
    link: Link,
    /// What the server refused: the texts of its errors.
    refusals: Arc<Mutex<Vec<String>>>,
}

impl Trial {
    /// Connects with the inboxes of that purpose: the router may use its own alone.
    async fn connect(nats: &config::Nats, data_dir: &Path, purpose: Purpose) -> Result<Self, BusError> {
        let endpoint = match nats.urls.is_empty() {
            true => Endpoint::local(&read_credentials(data_dir)?)?,
            false => Endpoint::configured(nats)?,
        };
        let refusals = Arc::<Mutex<Vec<String>>>::default();
        let heard = Arc::clone(&refusals);
        let link = Link::try_once(&endpoint, purpose, move |event| {
            if let Event::ServerError(fault) = event {
                heard
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(fault.to_string());
            }
        })
        .await?;
        Ok(Self {
            endpoint,
            purpose,
            link,
            refusals,
        })
    }

    /// Which of these rights the user lacks.
    async fn refused(&self, rights: &Rights) -> HashSet<(&'static str, String)> {
        let client = &self.link.client;
        let mut subscriptions = Vec::new();
        for (subject, _) in &rights.subscribe {
            // Kept until the answers are there: a subscription that is dropped is taken back.
            subscriptions.push(client.subscribe(subject.clone()).await);
        }
        let mut published = Vec::new();
        for (subject, _) in &rights.publish {
            let literal = literal(subject);
            // Fails only where the connection is closed: then nothing is refused, and the echo says so.
            let _ = client
                .publish_with_headers(literal.clone(), without_effect(), Bytes::new())
                .await;
            published.push((subject.clone(), literal));
        }
        self.echo().await;
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let is_refused = |kind: &str, subject: &str| {
            let quoted = format!("\"{subject}\"").to_lowercase();
            refusals
                .iter()
                .map(|text| text.to_lowercase())
                .any(|text| text.contains(kind) && text.contains(&quoted))
        };
        let subscribe = rights.subscribe.iter().map(|(subject, _)| subject);
        let subscribe = subscribe
            .filter(|subject| is_refused("subscription", subject))
            .map(|subject| ("subscribe to", subject.clone()));
        let publish = published
            .into_iter()
            .filter(|(_, literal)| is_refused("publish", literal))
            .map(|(subject, _)| ("publish on", subject));
        subscribe.chain(publish).collect()
    }

    /// Waits until the server has taken all that was sent, and what it refused was heard.
    async fn echo(&self) {
        let client = &self.link.client;
        // A router may publish on no inbox, another user on nothing of the nodes'.
        let subject = match self.purpose {
            Purpose::Tool => client.new_inbox(),
            _ => format!("{NODES}.echo.{:016x}", rand::random::<u64>()),
        };
        let echo = async {
            let mut echo = client.subscribe(subject.clone()).await.ok()?;
            client.publish(subject, Bytes::new()).await.ok()?;
            echo.next().await
        };
        let _ = timeout(PATIENCE, echo).await;
        sleep(REFUSALS_WITHIN).await;
    }

    /// The stream, what JetStream has left, and the server's clock.
    async fn stream(&self, config: &Config, say: &mut impl FnMut(Finding)) {
        let sources = config.sources.iter().filter(|source| source.durable);
        let subjects: Vec<&str> = sources.map(|source| source.subject.as_str()).collect();
        if subjects.is_empty() {
            return;
        }
        let name = &config.stream.name;
        match timeout(PATIENCE, stream::examine(&self.link, &config.stream, &subjects)).await {
            Err(_) => say(Finding::bad(format!(
                "the stream `{name}`: JetStream does not answer"
            ))),
            Ok(Err(Fault::Lasting(fault))) => say(Finding::bad(fault.to_string())),
            Ok(Err(Fault::Passing(fault))) => say(Finding::bad(format!("the stream `{name}`: {fault}"))),
            Ok(Ok(stream::Examined::NoJetStream)) => say(Finding::bad(
                "JetStream is not there: events are live only, and no session can resume".to_owned(),
            )),
            Ok(Ok(stream::Examined::Missing)) => say(Finding::good(format!(
                "the stream `{name}` is not there yet: the router makes it"
            ))),
            Ok(Ok(stream::Examined::There(stream, existing))) => {
                let exact = if stream.exact { "exact" } else { "not exact" };
                let live = match stream.live {
                    stream::Live::Republished { .. } => "republished",
                    stream::Live::Consumed => "read by a consumer, as it does not republish",
                };
                say(Finding {
                    good: stream.exact,
                    text: format!(
                        "the stream `{name}`: resuming is {exact}, live events are {live}, {} replicas, at most {}",
                        existing.num_replicas,
                        bytes(existing.max_bytes)
                    ),
                });
            }
        }
        if let Ok(account) = self.link.jetstream.query_account().await {
            say(storage(&account));
        }
        self.clock(name, say).await;
    }

    /// The server's time beside ours. JetStream says it with a stream's state since nats-server 2.10.
    async fn clock(&self, name: &str, say: &mut impl FnMut(Finding)) {
        #[derive(Deserialize)]
        struct Answer {
            ts: Option<String>,
        }
        let asked = SystemTime::now();
        let answer: Result<Answer, _> = self
            .link
            .jetstream
            .request(format!("STREAM.INFO.{name}"), &json!({}))
            .await;
        let theirs = answer
            .ok()
            .and_then(|answer| answer.ts?.parse::<jiff::Timestamp>().ok());
        let Some(theirs) = theirs else { return };
        let theirs = SystemTime::from(theirs);
        // Halfway between question and answer.
        let ours = asked + asked.elapsed().unwrap_or_default() / 2;
        let skew = theirs
            .duration_since(ours)
            .unwrap_or_else(|behind| behind.duration());
        let text = format!(
            "the server's clock differs from this machine's by {} ms",
            skew.as_millis()
        );
        say(match skew <= MOST_SKEW {
            true => Finding::good(text),
            false => Finding::bad(format!("{text}: tokens and events get other times")),
        });
    }
}

fn storage(account: &Account) -> Finding {
    let used = i64::try_from(account.storage).unwrap_or(i64::MAX);
    match account.limits.max_storage.filter(|limit| *limit >= 0) {
        None => Finding::good(format!(
            "JetStream's storage: {} used, without a limit of the account",
            bytes(used)
        )),
        Some(limit) => Finding {
            good: used < limit,
            text: format!("JetStream's storage: {} of {} used", bytes(used), bytes(limit)),
        },
    }
}

fn bytes(bytes: i64) -> String {
    match bytes {
        ..0 => "any size".to_owned(),
        bytes => format!("{} MiB", bytes >> 20),
    }
}

/// A subject that the pattern covers, and that means nothing or is refused for its empty payload.
fn literal(subject: &str) -> String {
    let name = format!("rivulet-check-{:08x}", rand::random::<u32>());
    // Of JetStream's API real calls, as permissions may name them one by one.
    let subject = [
        (".STREAM.*.*.", ".STREAM.MSG.GET."),
        (".STREAM.*.", ".STREAM.INFO."),
        (".CONSUMER.*.*.", ".CONSUMER.DURABLE.CREATE."),
        (".CONSUMER.*.", ".CONSUMER.CREATE."),
    ]
    .into_iter()
    .fold(subject.to_owned(), |subject, (calls, call)| {
        subject.replace(calls, call)
    });
    let tokens = subject.split('.').map(|token| match token {
        "*" | ">" => name.as_str(),
        token => token,
    });
    tokens.collect::<Vec<_>>().join(".")
}

/// What makes a stream refuse a message: no stream has a last sequence as high.
fn without_effect() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(
        async_nats::header::NATS_EXPECTED_LAST_SEQUENCE,
        (1_u64 << 53).to_string().as_str(),
    );
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_tried_with_a_name_that_nothing_has() {
        assert_eq!(literal("$JS.API.STREAM.INFO.S"), "$JS.API.STREAM.INFO.S");
        assert_eq!(literal("$JS.API.STREAM.*.*.S"), "$JS.API.STREAM.MSG.GET.S");
        let literal = literal("command.*");
        assert!(literal.starts_with("command.rivulet-check-"), "{literal}");
    }
}
