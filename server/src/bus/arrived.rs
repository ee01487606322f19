//! A message of NATS, and what its way says of it.

use std::time::{Duration, Instant};

use async_nats::{
    HeaderMap, HeaderName, HeaderValue, Message,
    header::{NATS_SEQUENCE, NATS_STREAM, NATS_SUBJECT, NATS_TIME_STAMP},
};
use bytes::Bytes;
use jiff::SignedDuration;
use rivulet_protocol::scalar::Timestamp;

use super::source::{Check, Content, Reading, Rejection, Rule, Sources};
use crate::event::Event;

/// What the server writes: which stream, the subject, the sequence, the time.
static OWN: [HeaderName; 4] = [NATS_STREAM, NATS_SUBJECT, NATS_SEQUENCE, NATS_TIME_STAMP];

/// A message and what its way says of it.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) subject: String,
    pub(super) headers: Headers,
    pub(super) payload: Bytes,
    pub(super) place: Place,
}

/// A message's headers.
#[derive(Debug)]
pub(super) enum Headers {
    /// None, or as the publisher wrote them, with the server's behind them.
    Read(Option<HeaderMap>),
    /// They are not UTF-8: nats-server takes such headers, and the client library breaks its connection on them.
    Unreadable,
}

/// Where a message comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A core subscription.
    Core,
    /// The stream, as the server wrote it.
    Stored { seq: u64, time: Timestamp },
    /// The subject on which the stream republishes, but not from the stream.
    Foreign,
}

impl Arrived {
    /// A message of a core subscription.
    pub(super) fn core(message: Message) -> Self {
        Self {
            subject: message.subject.into_string(),
            headers: Headers::Read(message.headers),
            payload: message.payload,
            place: Place::Core,
        }
    }

    /// A message that the server took from this stream, republished or got directly. Of each of the server's
    /// headers only the last value is its own: a publisher may have put others before it.
    pub(super) fn stored(stream: &str, message: Message) -> Self {
        let stored = message.headers.as_ref().and_then(|headers| {
            // Hashing a name costs more than comparing it with the six or so that there are.
            let mut own = [None; 4];
            for (name, values) in headers.iter() {
                if let Some(which) = OWN.iter().position(|own| own == name) {
                    own[which] = values.last().map(HeaderValue::as_str);
                }
            }
            let [name, subject, seq, time] = own;
            if name? != stream {
                return None;
            }
            let place = Place::Stored {
                seq: seq?.parse().ok()?,
                time: Timestamp::parse(time?)?,
            };
            Some((subject?.to_owned(), place))
        });
        let (subject, place) = stored.unwrap_or_else(|| (message.subject.to_string(), Place::Foreign));
        Self {
            subject,
            headers: Headers::Read(message.headers),
            payload: message.payload,
            place,
        }
    }

    /// Its sequence, if the stream has one for it.
    pub(super) fn seq(&self) -> Option<u64> {
        match self.place {
            Place::Stored { seq, .. } => Some(seq),
            Place::Core | Place::Foreign => None,
        }
    }

    /// About how many bytes it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.subject.len() + self.payload.len() + 512
    }

    /// What it says.
    ///
    /// # Errors
    /// Why it is not delivered to anybody.
    pub(super) fn read(&self, sources: &Sources, check: &Check) -> Result<Reading, Rejection> {
        let rejected = |rule, text| Err(Rejection::new(rule, "", text));
        match (&self.headers, self.place) {
            (_, Place::Foreign) => rejected(
                Rule::Source,
                "somebody else than the stream publishes where only the stream should",
            ),
            (Headers::Unreadable, _) => rejected(Rule::Header, "its headers are not UTF-8"),
            (Headers::Read(headers), _) => {
                sources.read(&self.subject, headers.as_ref(), &self.payload, check)
            }
        }
    }

    /// The event that it is.
    pub(super) fn event(&self, content: Content, received_at: Instant) -> Event {
        let (seq, time) = match self.place {
            Place::Stored { seq, time } => (Some(seq), time),
            Place::Core | Place::Foreign => (None, Timestamp::new(jiff::Timestamp::now())),
        };
        // Since the stream stored it, as its server's clock says: what a slow way cost must show.
        let on_its_way = match self.place {
            Place::Stored { .. } => jiff::Timestamp::now().duration_since(time.instant()),
            Place::Core | Place::Foreign => SignedDuration::ZERO,
        };
        let on_its_way = Duration::try_from(on_its_way).unwrap_or_default();
        Event {
            event_type: content.event_type,
            audience: content.audience,
            data: content.data,
            seq,
            time,
            as_error: content.as_error,
            trace_id: content.trace_id,
            received_at: received_at.checked_sub(on_its_way).unwrap_or(received_at),
        }
    }
}

#[cfg(test)]
mod tests {
    use rivulet_protocol::event::EventType;

    use super::*;
    use crate::event::Audience;

    #[test]
    fn what_comes_late_counts_from_when_it_was_stored() {
        let on_its_way = |ago: i64, place: fn(Timestamp) -> Place| {
            let stored = jiff::Timestamp::now() - SignedDuration::from_secs(ago);
            let arrived = Arrived {
                subject: "blob.created".to_owned(),
                headers: Headers::Read(None),
                payload: Bytes::new(),
                place: place(Timestamp::new(stored)),
            };
            let content = Content {
                event_type: EventType::parse("blob.created").unwrap(),
                audience: Audience::Everyone,
                data: Bytes::new(),
                as_error: None,
                trace_id: None,
                warning: None,
            };
            let received_at = Instant::now();
            received_at.duration_since(arrived.event(content, received_at).received_at)
        };
        let stored = |time| Place::Stored { seq: 1, time };
        assert_eq!(on_its_way(50, stored).as_secs(), 50);
        assert_eq!(on_its_way(-50, stored), Duration::ZERO, "its clock is ahead");
        assert_eq!(on_its_way(50, |_| Place::Core), Duration::ZERO);
    }
}
