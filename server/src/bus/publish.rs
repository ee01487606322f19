//! What the command line does with NATS: publish an event, watch rejected ones.

use std::{
    collections::{HashSet, VecDeque},
    path::Path,
    sync::Arc,
};

use async_nats::{
    HeaderMap,
    jetstream::context::{PublishAckFuture, PublishErrorKind},
};
use bytes::Bytes;
use futures_util::StreamExt;

use super::{
    BusError,
    connect::{Endpoint, Link, Purpose},
    local_server::read_credentials,
    rejected::{PREFIX, Rejected},
    source::{Check, Content, Rejection, Rule, Sources},
};
use crate::config;

/// A connection that publishes events.
#[derive(Debug)]
pub struct Publisher {
    link: Link,
}

/// What became of a published event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// A stream keeps it.
    Stored {
        /// The stream's name.
        stream: String,
        /// Its sequence there.
        seq: u64,
        /// Whether its message id was there already, so that it was not stored again.
        duplicate: bool,
    },
    /// It was sent; no stream takes its subject.
    Sent,
}

impl Publisher {
    /// Connects to the configured servers or, without any, to the nats-server of a router with this data
    /// directory. Waits for servers that are away.
    ///
    /// # Errors
    /// If they refuse us, or there is no such router.
    pub async fn connect(nats: &config::Nats, data_dir: &Path) -> Result<Self, BusError> {
        let link = connect(nats, data_dir).await?;
        Ok(Self { link })
    }

    /// Publishes an event and waits until it is stored. `headers` are names and values; `Nats-Msg-Id` among them
    /// makes a repetition within the stream's duplicate window count once.
    ///
    /// # Errors
    /// If it can't be published, or it is unknown whether it was stored.
    pub async fn publish(
        &self,
        subject: &str,
        headers: &[(&str, &str)],
        payload: Bytes,
    ) -> Result<Published, BusError> {
        let failed = |fault: String| BusError::Publish {
            subject: subject.to_owned(),
            fault,
        };
        let map = header_map(headers).map_err(failed)?;
        let publish = async {
            let acknowledgement = self
                .link
                .jetstream
                .publish_with_headers(subject.to_owned(), map.clone(), payload.clone())
                .await?;
            acknowledgement.await
        };
        match self.link.permitted(publish).await? {
            Ok(stored) => Ok(Published::Stored {
                stream: stored.stream,
                seq: stored.sequence,
                duplicate: stored.duplicate,
            }),
            // Nobody acknowledges it: no stream takes it, but subscribers got it.
            Err(fault) if fault.kind() == PublishErrorKind::StreamNotFound => Ok(Published::Sent),
            Err(fault) => Err(failed(fault.to_string())),
        }
    }
}

impl Publisher {
    /// Publishes an event and does not wait until it is stored: many can be on their way. They arrive in the order
    /// of the calls.
    ///
    /// # Errors
    /// If it can't be published.
    pub async fn send(
        &self,
        subject: &str,
        headers: &[(&str, &str)],
        payload: Bytes,
    ) -> Result<Acknowledgement, BusError> {
        let failed = |fault: String| BusError::Publish {
            subject: subject.to_owned(),
            fault,
        };
        let headers = header_map(headers).map_err(failed)?;
        let acknowledgement = self
            .link
            .jetstream
            .publish_with_headers(subject.to_owned(), headers, payload)
            .await;
        acknowledgement
            .map(Acknowledgement)
            .map_err(|fault| failed(fault.to_string()))
    }

    /// Publishes an event as core NATS does: no stream acknowledges it, and nobody says whether it arrived.
    ///
    /// # Errors
    /// If it can't be published.
    pub async fn send_unacknowledged(
        &self,
        subject: &str,
        headers: &[(&str, &str)],
        payload: Bytes,
    ) -> Result<(), BusError> {
        let failed = |fault: String| BusError::Publish {
            subject: subject.to_owned(),
            fault,
        };
        let headers = header_map(headers).map_err(failed)?;
        let sent = self
            .link
            .client
            .publish_with_headers(subject.to_owned(), headers, payload)
            .await;
        sent.map_err(|fault| failed(fault.to_string()))
    }

    /// Waits until all that was sent has left.
    pub async fn flush(&self) {
        // While the connection is away there is nothing to wait for: what it holds it sends when it is back.
        let _ = self.link.client.flush().await;
    }
}

/// An event on its way to a stream.
#[derive(Debug)]
pub struct Acknowledgement(PublishAckFuture);

impl Acknowledgement {
    /// Waits until the event is stored, and says under which sequence.
    ///
    /// # Errors
    /// What the stream says against it; that it says nothing.
    pub async fn stored(self) -> Result<u64, String> {
        let stored = self.0.await;
        stored
            .map(|stored| stored.sequence)
            .map_err(|fault| fault.to_string())
    }
}

/// What a router with these sources would make of a message, without sending it.
///
/// # Errors
/// The rule that it would break.
pub fn rehearse(
    sources: &Sources,
    subject: &str,
    headers: &[(&str, &str)],
    payload: &Bytes,
    check: &Check,
) -> Result<Content, Rejection> {
    let headers = header_map(headers).map_err(|fault| Rejection::new(Rule::Audience, "", fault))?;
    sources.read(subject, Some(&headers), payload, check)
}

fn header_map(headers: &[(&str, &str)]) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name: async_nats::HeaderName = name
            .parse()
            .map_err(|_| format!("`{name}` is not a header name"))?;
        let value: async_nats::HeaderValue = value
            .parse()
            .map_err(|_| "a header's value is one line".to_owned())?;
        map.append(name, value);
    }
    Ok(map)
}

/// Rejected events, as they come, each once however many nodes reject it.
#[derive(Debug)]
pub struct Rejections {
    messages: async_nats::Subscriber,
    link: Link,
    seen: Seen,
}

impl Rejections {
    /// Connects as [`Publisher::connect`] does, and subscribes to all rejected events.
    ///
    /// # Errors
    /// If NATS refuses us, or there is no such router.
    pub async fn connect(nats: &config::Nats, data_dir: &Path) -> Result<Self, BusError> {
        let link = connect(nats, data_dir).await?;
        let subject = format!("{PREFIX}.>");
        let messages = link
            .client
            .subscribe(subject.clone())
            .await
            .map_err(|fault| BusError::Subscribe {
                subject,
                fault: fault.to_string(),
            })?;
        // So that what is rejected from now on comes.
        let _ = link.client.flush().await;
        Ok(Self {
            messages,
            link,
            seen: Seen::default(),
        })
    }

    /// The next; `None` when the connection is closed. On a core source, whose events have no message id, each
    /// node's own.
    ///
    /// # Errors
    /// If NATS does not permit to read them: the server says so after the subscription, and again when that is
    /// made again.
    pub async fn next(&mut self) -> Result<Option<Rejected>, BusError> {
        loop {
            // This connection subscribes and does nothing else, so that every refusal is of that.
            let next = self.link.permitted_since(0, self.messages.next()).await;
            let next = next.map_err(|fault| match fault {
                BusError::NotPermitted(fault) => BusError::Subscribe {
                    subject: format!("{PREFIX}.>"),
                    fault,
                },
                other => other,
            })?;
            let Some(message) = next else {
                return Ok(None);
            };
            let (rejected, id) = Rejected::read(&message);
            if id.is_empty() || self.seen.is_new(id) {
                return Ok(Some(rejected));
            }
        }
    }
}

/// The last message ids, up to [`SEEN`] of them.
#[derive(Debug, Default)]
struct Seen {
    ids: HashSet<Arc<str>>,
    order: VecDeque<Arc<str>>,
}

/// Message ids that are remembered: for 80 s at the most that a node publishes in the long run.
const SEEN: usize = 4_096;

impl Seen {
    fn is_new(&mut self, id: &str) -> bool {
        if self.ids.contains(id) {
            return false;
        }
        if self.order.len() == SEEN
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        let id: Arc<str> = id.into();
        self.order.push_back(Arc::clone(&id));
        self.ids.insert(id);
        true
    }
}

async fn connect(nats: &config::Nats, data_dir: &Path) -> Result<Link, BusError> {
    let endpoint = if nats.urls.is_empty() {
        Endpoint::local(&read_credentials(data_dir)?)?
    } else {
        Endpoint::configured(nats)?
    };
    Link::connect(&endpoint, Purpose::Tool, None).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_remembered_up_to_a_bound() {
        let mut seen = Seen::default();
        assert!((0..=SEEN).all(|id| seen.is_new(&id.to_string())));
        assert!(!seen.is_new("1"), "the oldest alone was forgotten");
        assert!(seen.is_new("0"));
        assert_eq!((seen.ids.len(), seen.order.len()), (SEEN, SEEN));
    }
}
