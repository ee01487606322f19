//! A message of NATS, and what its way says of it.

use std::time::{Duration, Instant};

use async_nats::{
    HeaderMap, HeaderName, HeaderValue, Message,
    header::{NATS_SEQUENCE, NATS_STREAM, NATS_SUBJECT, NATS_TIME_STAMP},
};
use bytes::Bytes;
use jiff::SignedDuration;
use rivulet_protocol::scalar::Timestamp;

use super::decided::Verdict;
use super::source::{Check, Content, Rejection, Rule, Sources};
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
    /// What is known to be decided of it.
    pub(super) verdict: Verdict,
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
            verdict: Verdict::Open,
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
            verdict: Verdict::Open,
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

    /// The publisher's `traceparent` (W3C Trace Context), if it has the form of one. Looked for only where it is
    /// wanted: an event that is delivered needs none.
    pub(super) fn traceparent(&self) -> Option<&str> {
        let Headers::Read(Some(headers)) = &self.headers else {
            return None;
        };
        let (_, values) = headers.iter().find(|(name, _)| {
            let name: &str = name.as_ref();
            name.eq_ignore_ascii_case("traceparent")
        })?;
        let value = values.last()?.as_str();
        let mut parts = value.split('-').map(str::as_bytes);
        let is_hex = |part: Option<&[u8]>, length| {
            part.is_some_and(|part| part.len() == length && part.iter().all(u8::is_ascii_hexdigit))
        };
        [2, 32, 16, 2]
            .into_iter()
            .all(|length| is_hex(parts.next(), length))
            .then_some(value)
    }

    /// What it says.
    ///
    /// # Errors
    /// Why it is not delivered to anybody.
    pub(super) fn read(&self, sources: &Sources, check: &Check) -> Result<Content, Rejection> {
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

    /// What it says, once it was accepted: it is of the schema that was in force then.
    ///
    /// # Errors
    /// Why it can't be delivered all the same: today's sources don't read it.
    pub(super) fn read_accepted(&self, sources: &Sources) -> Result<Content, Rejection> {
        self.read(sources, &|_, _| Ok(()))
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
    fn a_trace_is_read_if_it_has_the_form_of_one() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for (name, value, expected) in [
            ("traceparent", good, Some(good)),
            ("Traceparent", good, Some(good)),
            ("traceparent", "00-4bf9-00f067aa0ba902b7-01", None),
            ("traceparent", "nonsense", None),
            ("tracestate", good, None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, value);
            let arrived = Arrived {
                subject: "blob.created".to_owned(),
                headers: Headers::Read(Some(headers)),
                payload: Bytes::new(),
                place: Place::Core,
                verdict: Verdict::Open,
            };
            assert_eq!(arrived.traceparent(), expected, "{name}: {value}");
        }
    }

    #[test]
    fn what_comes_late_counts_from_when_it_was_stored() {
        let on_its_way = |ago: i64, place: fn(Timestamp) -> Place| {
            let stored = jiff::Timestamp::now() - SignedDuration::from_secs(ago);
            let arrived = Arrived {
                subject: "blob.created".to_owned(),
                headers: Headers::Read(None),
                payload: Bytes::new(),
                place: place(Timestamp::new(stored)),
                verdict: Verdict::Open,
            };
            let content = Content {
                event_type: EventType::parse("blob.created").unwrap(),
                audience: Audience::Everyone,
                data: Bytes::new(),
                as_error: None,
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
