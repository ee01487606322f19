//! What becomes of rejected events: a line in the log now and then, and a copy on `rivulet.rejected.<subject>`.
//!
//! The copy's body is the event's payload, untouched, or nothing where that is over 64 KiB; what is wrong stands
//! in its headers.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    time::{Duration, Instant},
};

use async_nats::{HeaderMap, HeaderValue};
use bytes::Bytes;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::{connect::Link, source::Rejection};

/// Before which subject rejected events are published.
pub(super) const PREFIX: &str = "rivulet.rejected";
/// Up to how many bytes a rejected event is published whole.
const MAX_WHOLE: usize = 64 * 1024;
/// Rejected events published a second in the long run; four times as many at once.
const RATE: NonZeroU32 = NonZeroU32::new(50).expect("more than zero");
const BURST: NonZeroU32 = NonZeroU32::new(200).expect("more than zero");
/// Rejected events that wait to be published; beyond, they are only counted.
const WAITING: usize = 256;
/// How long a subject is silent in the log after a line.
const SILENCE: Duration = Duration::from_secs(60);
/// Subjects remembered for that.
const MAX_SUBJECTS: usize = 1_000;
/// A longer subject is not published under: with the prefix it would not fit nats-server's control line of
/// 4 KiB, and an over-long one closes the connection.
const MAX_SUBJECT: usize = 2_048;

/// A rejected event as `rivulet tail --rejected` reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The subject that it was published on.
    pub subject: String,
    /// Its sequence in the stream; `None` on a core source.
    pub seq: Option<u64>,
    /// Its size in bytes.
    pub size: usize,
    /// The rule that it breaks.
    pub rule: String,
    /// Where, as a JSON Pointer (RFC 6901); empty: the whole.
    pub pointer: String,
    /// What is wrong, for people.
    pub message: String,
    /// Its payload; empty if it is over 64 KiB.
    pub payload: Bytes,
}

const SEQ: &str = "Rivulet-Rejected-Seq";
const SIZE: &str = "Rivulet-Rejected-Size";
const RULE: &str = "Rivulet-Rejected-Rule";
const POINTER: &str = "Rivulet-Rejected-Pointer";
const MESSAGE: &str = "Rivulet-Rejected-Message";

impl Rejected {
    /// Reads one back.
    pub(super) fn read(message: &async_nats::Message) -> Self {
        let header = |name: &str| {
            let value = message.headers.as_ref().and_then(|headers| headers.get(name));
            value.map(HeaderValue::as_str).unwrap_or_default()
        };
        let prefix = PREFIX.len() + 1;
        Self {
            subject: message.subject.get(prefix..).unwrap_or_default().to_owned(),
            seq: header(SEQ).parse().ok(),
            size: header(SIZE).parse().unwrap_or(message.payload.len()),
            rule: header(RULE).to_owned(),
            pointer: header(POINTER).to_owned(),
            message: header(MESSAGE).to_owned(),
            payload: message.payload.clone(),
        }
    }

    fn headers(&self, message_id: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut insert = |name, value: &str| headers.insert(name, one_line(value).as_str());
        if let Some(id) = message_id {
            insert("Nats-Msg-Id", id);
        }
        if let Some(seq) = self.seq {
            insert(SEQ, &seq.to_string());
        }
        insert(SIZE, &self.size.to_string());
        insert(RULE, &self.rule);
        insert(POINTER, &self.pointer);
        insert(MESSAGE, &self.message);
        headers
    }
}

/// Where the feed puts rejected events; never waits.
#[derive(Debug)]
pub(super) struct Outlet {
    queue: mpsc::Sender<(Rejected, Option<String>)>,
    rate: DefaultDirectRateLimiter,
    lines: Lines,
}

impl Outlet {
    /// The outlet, and the task that publishes what goes into it until the outlet is dropped.
    pub(super) fn new(link: Link) -> (Self, impl Future<Output = ()>) {
        let (queue, mut waiting) = mpsc::channel::<(Rejected, Option<String>)>(WAITING);
        let publish = async move {
            while let Some((rejected, message_id)) = waiting.recv().await {
                let subject = format!("{PREFIX}.{}", rejected.subject);
                let headers = rejected.headers(message_id.as_deref());
                let published = link
                    .client
                    .publish_with_headers(subject, headers, rejected.payload);
                if let Err(fault) = published.await {
                    debug!(%fault, "a rejected event could not be published");
                }
            }
        };
        let outlet = Self {
            queue,
            rate: RateLimiter::direct(Quota::per_second(RATE).allow_burst(BURST)),
            lines: Lines::default(),
        };
        (outlet, publish)
    }

    /// Logs and publishes, as far as the rates allow. `epoch` and `seq` make the message id, so that the copies
    /// of several nodes count once where a stream keeps them.
    pub(super) fn put(
        &mut self,
        subject: &str,
        payload: &Bytes,
        place: Option<(&str, u64)>,
        rejection: &Rejection,
    ) {
        let seq = place.map(|(_, seq)| seq);
        if let Some(silenced) = self.lines.allow(subject, Instant::now()) {
            warn!(
                subject, seq, rule = %rejection.rule, pointer = rejection.pointer, silenced,
                "rejected an event: {}", rejection.message
            );
        }
        if subject.len() > MAX_SUBJECT || self.rate.check().is_err() {
            return;
        }
        let payload_if_whole = (payload.len() <= MAX_WHOLE).then(|| payload.clone());
        let rejected = Rejected {
            subject: subject.to_owned(),
            seq,
            size: payload.len(),
            rule: rejection.rule.to_string(),
            pointer: rejection.pointer.clone(),
            message: rejection.message.clone(),
            payload: payload_if_whole.unwrap_or_default(),
        };
        let message_id = place.map(|(epoch, seq)| format!("{epoch}-{seq}"));
        // Full: it was counted, and the log has its rule.
        let _ = self.queue.try_send((rejected, message_id));
    }
}

/// Which subjects had their line within the last minute.
#[derive(Debug, Default)]
struct Lines {
    subjects: HashMap<String, (Instant, u64)>,
}

impl Lines {
    /// `Some` if the subject may have a line now, with the number of lines kept back since its last.
    fn allow(&mut self, subject: &str, now: Instant) -> Option<u64> {
        if let Some((since, silenced)) = self.subjects.get_mut(subject) {
            if now.duration_since(*since) < SILENCE {
                *silenced += 1;
                return None;
            }
            *since = now;
            return Some(std::mem::take(silenced));
        }
        if self.subjects.len() == MAX_SUBJECTS {
            self.subjects
                .retain(|_, (since, _)| now.duration_since(*since) < SILENCE);
            if self.subjects.len() == MAX_SUBJECTS {
                return None;
            }
        }
        self.subjects.insert(subject.to_owned(), (now, 0));
        Some(0)
    }
}

/// Headers are lines, and the reason may quote a stranger.
fn one_line(text: &str) -> String {
    text.chars()
        .take(1_024)
        .map(|character| if character.is_control() { ' ' } else { character })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_has_one_line_a_minute() {
        let start = Instant::now();
        let mut lines = Lines::default();
        assert_eq!(lines.allow("a", start), Some(0));
        assert_eq!(lines.allow("a", start), None);
        assert_eq!(lines.allow("b", start), Some(0));
        assert_eq!(lines.allow("a", start + SILENCE), Some(1));
    }

    #[test]
    fn subjects_are_bounded() {
        let start = Instant::now();
        let mut lines = Lines::default();
        let allowed = (0..2 * MAX_SUBJECTS).filter(|index| lines.allow(&index.to_string(), start).is_some());
        assert_eq!(allowed.count(), MAX_SUBJECTS);
        assert_eq!(lines.allow("later", start + SILENCE), Some(0));
        assert_eq!(lines.subjects.len(), 1);
    }
}
