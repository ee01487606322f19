//! An event on its way from NATS to those whom it concerns.

use std::time::Instant;

use bytes::Bytes;
use rivulet_protocol::{event::EventType, scalar::Timestamp, subject::UserId};

/// An event as `bus` hands it over: checked, addressed, its data still the publisher's bytes.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its type.
    pub event_type: EventType,
    /// Whom it is for.
    pub audience: Audience,
    /// A JSON object, as it was published.
    pub data: Bytes,
    /// Where it stands in the stream; `None` on a core source.
    pub seq: Option<u64>,
    /// When the stream stored it or, on a core source, when the router got it.
    pub time: Timestamp,
    /// Of `processor.failed`: the `data` of the `error` frame that it also is, for sessions that subscribe to
    /// `error`. Made where the payload is read, as the router never reads one.
    pub as_error: Option<Bytes>,
    /// When the router got it; of a stored one, as long before as it had been on its way since then.
    pub received_at: Instant,
}

/// Whom an event is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// These users; at least one, each once.
    Users(Vec<UserId>),
    /// Every user.
    Everyone,
}
