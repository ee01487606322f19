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

use super::{
    arrived::Arrived,
    connect::Link,
    source::{Rejection, Rule},
};

/// Before which subject rejected events are published.
pub(super) const PREFIX: &str = "rivulet.rejected";
/// Up to how many bytes a rejected event is published whole.
const MAX_WHOLE: usize = 64 * 1024;
/// Rejected events published a second in the long run; four times as many at once.
const RATE: NonZeroU32 = NonZeroU32::new(50).expect("more than zero");
const BURST: NonZeroU32 = NonZeroU32::new(200).expect("more than zero");
/// Rejected events that wait to be published; beyond, they are only counted.
const WAITING: usize = 256;
/// How long a rule on a subject is silent in the log after a line.
const SILENCE: Duration = Duration::from_secs(60);
/// Rules on subjects remembered for that; beyond, a rule has a line for all other subjects.
const MAX_LINES: usize = 1_000;
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
    /// Its publisher's `traceparent` (W3C Trace Context).
    pub traceparent: Option<String>,
}

const MESSAGE_ID: &str = "Nats-Msg-Id";
const TRACEPARENT: &str = "traceparent";
const SEQ: &str = "Rivulet-Rejected-Seq";
const SIZE: &str = "Rivulet-Rejected-Size";
const RULE: &str = "Rivulet-Rejected-Rule";
const POINTER: &str = "Rivulet-Rejected-Pointer";
const MESSAGE: &str = "Rivulet-Rejected-Message";

impl Rejected {
    /// Reads one back, and the message id that all nodes' copies of it have; empty on a core source.
    pub(super) fn read(message: &async_nats::Message) -> (Self, &str) {
        let header = |name: &str| {
            let value = message.headers.as_ref().and_then(|headers| headers.get(name));
            value.map(HeaderValue::as_str).unwrap_or_default()
        };
        let prefix = PREFIX.len() + 1;
        let rejected = Self {
            subject: message.subject.get(prefix..).unwrap_or_default().to_owned(),
            seq: header(SEQ).parse().ok(),
            size: header(SIZE).parse().unwrap_or(message.payload.len()),
            rule: header(RULE).to_owned(),
            pointer: header(POINTER).to_owned(),
            message: header(MESSAGE).to_owned(),
            payload: message.payload.clone(),
            traceparent: Some(header(TRACEPARENT).to_owned()).filter(|text| !text.is_empty()),
        };
        (rejected, header(MESSAGE_ID))
    }

    fn headers(&self, message_id: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut insert = |name, value: &str| headers.insert(name, one_line(value).as_str());
        if let Some(id) = message_id {
            insert(MESSAGE_ID, id);
        }
        if let Some(seq) = self.seq {
            insert(SEQ, &seq.to_string());
        }
        if let Some(traceparent) = &self.traceparent {
            insert(TRACEPARENT, traceparent);
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
    pub(super) fn put(&mut self, arrived: &Arrived, place: Option<(&str, u64)>, rejection: &Rejection) {
        let Arrived { subject, payload, .. } = arrived;
        let traceparent = arrived.traceparent();
        let seq = place.map(|(_, seq)| seq);
        if let Some(silenced) = self.lines.allow(subject, &rejection.rule, Instant::now()) {
            warn!(
                subject, seq, rule = %rejection.rule, pointer = rejection.pointer, silenced, traceparent,
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
            traceparent: traceparent.map(str::to_owned),
        };
        let message_id = place.map(|(epoch, seq)| format!("{epoch}-{seq}"));
        // Full: it was counted, and the log has its rule.
        let _ = self.queue.try_send((rejected, message_id));
    }
}

/// Which rules had their line within the last minute, for each subject.
#[derive(Debug, Default)]
struct Lines {
    subjects: HashMap<String, Vec<Line>>,
    /// The lines of subjects that there is no room for.
    others: Vec<Line>,
    /// How many there are of `subjects`.
    count: usize,
}

/// The last line of a rule.
#[derive(Debug)]
struct Line {
    rule: Rule,
    since: Instant,
    silenced: u64,
}

impl Lines {
    /// `Some` if a rejection by this rule on this subject may have a line now, with the number of lines kept back
    /// since the last.
    fn allow(&mut self, subject: &str, rule: &Rule, now: Instant) -> Option<u64> {
        let is_known = |lines: &[Line]| lines.iter().any(|line| line.rule == *rule);
        let known = self.subjects.get(subject).is_some_and(|lines| is_known(lines));
        let lines = if known || self.has_room(now) {
            if !known {
                self.count += 1;
                self.subjects.entry(subject.to_owned()).or_default();
            }
            self.subjects.get_mut(subject)?
        } else {
            &mut self.others
        };
        let Some(line) = lines.iter_mut().find(|line| line.rule == *rule) else {
            // Of `others` there are few: rules are from closed lists, ours and the keywords of schemas.
            lines.push(Line {
                rule: rule.clone(),
                since: now,
                silenced: 0,
            });
            return Some(0);
        };
        if line.is_silent(now) {
            line.silenced += 1;
            return None;
        }
        line.since = now;
        Some(std::mem::take(&mut line.silenced))
    }

    /// Whether one more line can be remembered, once those that count no more are forgotten.
    fn has_room(&mut self, now: Instant) -> bool {
        if self.count == MAX_LINES {
            self.subjects.retain(|_, lines| {
                lines.retain(|line| line.is_silent(now));
                !lines.is_empty()
            });
            self.count = self.subjects.values().map(Vec::len).sum();
        }
        self.count < MAX_LINES
    }
}

impl Line {
    fn is_silent(&self, now: Instant) -> bool {
        now.duration_since(self.since) < SILENCE
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
    fn a_second_kind_of_rejection_on_a_subject_has_a_line_of_its_own() {
        let start = Instant::now();
        let mut lines = Lines::default();
        let missing = Rule::Schema("required".into());
        assert_eq!(lines.allow("a", &missing, start), Some(0));
        assert_eq!(lines.allow("a", &missing, start), None);
        for rule in [Rule::NoAudience, Rule::Schema("type".into())] {
            assert_eq!(lines.allow("a", &rule, start), Some(0));
            assert_eq!(lines.allow("a", &rule, start), None);
        }
        assert_eq!(lines.allow("b", &missing, start), Some(0));
        assert_eq!(lines.allow("a", &missing, start), None);
        assert_eq!(lines.allow("a", &missing, start + SILENCE), Some(2));
    }

    #[test]
    fn lines_are_bounded_and_beyond_a_rule_has_one_for_all() {
        let start = Instant::now();
        let mut lines = Lines::default();
        let rules = [Rule::Json, Rule::User];
        let mut allowed = 0;
        for subject in 0..MAX_LINES {
            for rule in &rules {
                allowed += usize::from(lines.allow(&subject.to_string(), rule, start).is_some());
            }
        }
        assert_eq!(allowed, MAX_LINES + rules.len());
        assert_eq!(lines.count, MAX_LINES);
        let silenced = (MAX_LINES / 2 - 1) as u64;
        assert_eq!(lines.allow("later", &Rule::Json, start), None);
        assert_eq!(lines.allow("later", &Rule::Json, start + SILENCE), Some(0));
        assert_eq!((lines.count, lines.subjects.len()), (1, 1));
        assert_eq!(lines.others[0].silenced, silenced + 1);
    }
}
