//! The stream read back, by sequence.
//!
//! Messages come by batches of Direct Get, which any replica of the stream answers. A replica may lag behind, so
//! its silence proves nothing: a range counts as read only when a message at or beyond its end has come from the
//! same replica, or the stream's leader says that nothing is left in it. What the stream removed while it was
//! read is found by asking for its first sequence *after* the read.
//!
//! A batch may go on where part of it was lost: the connection breaks, comes back at once, perhaps at another
//! server, and the rest of the answers finds it there. So each answer names the one before it, and a batch ends
//! where that one did not come.
//!
//! A message whose headers are not UTF-8 makes the client library drop the connection, at every attempt. Where
//! reading at one sequence broke the connection twice, that message is asked of the leader by itself, in an
//! answer that holds it in base64.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::{HeaderMap, Message, StatusCode, header::NATS_LAST_SEQUENCE};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use rivulet_protocol::scalar::Timestamp;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::{
    arrived::{Arrived, Headers, Place},
    connect::Link,
    decided::Verdict,
    stream::{Head, HeadFault, head},
};

/// The most messages of one read.
pub(super) const MESSAGES: usize = 256;
/// After how many bytes a read ends, its last message whole.
const BYTES: usize = 4 << 20;
/// How long the next message of a batch may take, or any other answer.
const SILENCE: Duration = Duration::from_secs(2);
/// How long a broken connection may take to come back.
const RECONNECT: Duration = Duration::from_secs(5);
/// Single requests under way at once, for a stream that does not allow Direct Get.
const SINGLES: usize = 32;

/// Reads the stream back. Its connection is its own: what breaks it leaves the live feed alone.
#[derive(Clone, Debug)]
pub(super) struct Past {
    link: Link,
    stream: String,
    /// Whether the stream answers Direct Get; shared by all clones, as a recreated one may differ.
    direct: Arc<AtomicBool>,
}

/// What was read.
#[derive(Debug)]
pub(super) struct Chunk {
    /// In order, each with its sequence.
    pub(super) messages: Vec<Arrived>,
    /// Up to here nothing else is in the stream.
    pub(super) up_to: u64,
    /// What the stream had removed when it was read: after the one sequence, up to the other.
    pub(super) lost: Vec<(u64, u64)>,
    /// The first sequence that the stream still had then.
    pub(super) first: u64,
}

/// Why nothing was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PastFault {
    /// The stream was made anew, or is gone.
    AnotherEpoch,
    /// Nobody who knows answers just now.
    Passing(String),
}

/// How a batch ended.
#[derive(Debug)]
enum End {
    /// The server said so, or the message at the end of the range came.
    Whole,
    /// The connection broke, and answers are lost.
    Broken,
    /// Nothing more came.
    Silent,
}

impl Past {
    pub(super) fn new(link: Link, stream: String, direct: bool) -> Self {
        let direct = Arc::new(AtomicBool::new(direct));
        Self { link, stream, direct }
    }

    /// Notes whether the stream that was recreated answers Direct Get.
    pub(super) fn answers_direct(&self, direct: bool) {
        self.direct.store(direct, Ordering::Relaxed);
    }

    /// Where the stream stands, as its leader says.
    pub(super) async fn head(&self) -> Result<Head, HeadFault> {
        match timeout(SILENCE, head(&self.link.jetstream, &self.stream)).await {
            Ok(answer) => answer,
            Err(_) => Err(HeadFault::Unanswered("no answer in 2 s".to_owned())),
        }
    }

    /// Reads what stands after `after` and up to `to`, or the first part of it: at most 256 messages, and no
    /// more after 4 MiB. The head of the stream must have been at least `to` at some time in this epoch.
    pub(super) async fn read(&self, epoch: &str, after: u64, to: u64) -> Result<Chunk, PastFault> {
        let (messages, up_to) = self.messages(after, to).await?;
        // Asked afterwards: only so does it say what was removed meanwhile, and that it was this stream.
        let head = self.head().await.map_err(passing)?;
        if head.epoch != epoch {
            return Err(PastFault::AnotherEpoch);
        }
        let lost = lost(after, up_to, &messages, head.first);
        Ok(Chunk {
            messages,
            up_to,
            lost,
            first: head.first,
        })
    }

    /// The message at a sequence, as the leader has it.
    pub(super) async fn at(&self, seq: u64) -> Result<Option<Arrived>, PastFault> {
        self.single(&json!({ "seq": seq })).await
    }

    async fn messages(&self, after: u64, to: u64) -> Result<(Vec<Arrived>, u64), PastFault> {
        let mut broken = 0;
        loop {
            let (mut messages, end) = match self.direct.load(Ordering::Relaxed) {
                true => self.batch(after + 1).await?,
                false => (self.singles(after + 1, to).await?, End::Whole),
            };
            // What stands beyond the range proves that it was read to its end.
            let last = messages.last().and_then(Arrived::seq).unwrap_or(after);
            if last >= to {
                messages.retain(|message| message.seq() <= Some(to));
                return Ok((messages, to));
            }
            if last > after {
                return Ok((messages, last));
            }
            match end {
                End::Silent => return Err(PastFault::Passing("the stream does not answer".to_owned())),
                End::Broken if broken == 0 => {
                    broken += 1;
                    self.reconnected().await?;
                }
                End::Broken | End::Whole => {
                    if matches!(end, End::Broken) {
                        warn!(
                            after,
                            "reading the stream breaks the connection: asking for the next message by itself"
                        );
                        self.reconnected().await?;
                    }
                    return self.of_leader(after, to).await;
                }
            }
        }
    }

    /// What the leader has next after `after`: that message, or the proof that there is none up to `to`.
    async fn of_leader(&self, after: u64, to: u64) -> Result<(Vec<Arrived>, u64), PastFault> {
        let next = json!({ "seq": after + 1, "next_by_subj": ">" });
        match self.single(&next).await? {
            Some(message) if message.seq() > Some(to) => Ok((Vec::new(), to)),
            Some(message) => {
                let seq = message.seq().unwrap_or(after);
                Ok((vec![message], seq))
            }
            None => {
                let head = self.head().await.map_err(passing)?;
                match head.last >= to {
                    true => Ok((Vec::new(), to)),
                    // It was leader once, and does not know yet.
                    false => Err(PastFault::Passing("the leader's head is behind".to_owned())),
                }
            }
        }
    }

    /// A batch of Direct Get from `first` on, from one replica.
    async fn batch(&self, first: u64) -> Result<(Vec<Arrived>, End), PastFault> {
        let client = &self.link.client;
        let connects = self.link.connects();
        let failed = |fault: String| PastFault::Passing(fault);
        let inbox = client.new_inbox();
        let mut answers = client
            .subscribe(inbox.clone())
            .await
            .map_err(|fault| failed(fault.to_string()))?;
        let request = json!({
            "seq": first, "next_by_subj": ">", "batch": MESSAGES, "max_bytes": BYTES
        });
        client
            .publish_with_reply(
                format!("{}.DIRECT.GET.{}", self.link.api, self.stream),
                inbox,
                request.to_string().into(),
            )
            .await
            .map_err(|fault| failed(fault.to_string()))?;
        let mut messages: Vec<Arrived> = Vec::new();
        loop {
            let answer = tokio::select! {
                answer = timeout(SILENCE, answers.next()) => answer,
                () = self.link.broken_since(connects) => return Ok((messages, End::Broken)),
            };
            let Ok(answer) = answer else {
                return Ok((messages, End::Silent));
            };
            let Some(answer) = answer else {
                return Err(failed("the connection is closed".to_owned()));
            };
            match answer.status {
                None | Some(StatusCode::OK) => {}
                Some(StatusCode::NO_RESPONDERS) => {
                    return Err(failed("the stream has nobody who answers".to_owned()));
                }
                // The end of the batch, or nothing at all.
                Some(_) => return Ok((messages, End::Whole)),
            }
            let last = messages.last().and_then(Arrived::seq);
            if !follows(&answer, last) {
                return Ok((messages, End::Broken));
            }
            let message = Arrived::stored(&self.stream, answer);
            if message.seq() <= Some(last.unwrap_or(first - 1)) {
                return Err(failed("the stream answers out of order".to_owned()));
            }
            messages.push(message);
        }
    }

    /// The messages of a range one by one, for a stream that does not allow Direct Get.
    async fn singles(&self, first: u64, to: u64) -> Result<Vec<Arrived>, PastFault> {
        let end = to.min(first + MESSAGES as u64 - 1);
        let mut answers = stream::iter(first..=end)
            .map(async |seq| self.single(&json!({ "seq": seq })).await)
            .buffered(SINGLES);
        let mut messages = Vec::new();
        while let Some(answer) = answers.next().await {
            messages.extend(answer?);
        }
        Ok(messages)
    }

    /// One message, as the leader has it.
    async fn single(&self, request: &serde_json::Value) -> Result<Option<Arrived>, PastFault> {
        #[derive(Deserialize)]
        struct Answer {
            message: Option<Stored>,
            error: Option<Refused>,
        }
        #[derive(Deserialize)]
        struct Refused {
            code: u16,
            description: String,
        }
        let subject = format!("STREAM.MSG.GET.{}", self.stream);
        let answer = self.link.jetstream.request(subject, request);
        let answer: Answer = match timeout(SILENCE, answer).await {
            Ok(answer) => answer.map_err(|fault| PastFault::Passing(fault.to_string()))?,
            Err(_) => return Err(PastFault::Passing("no answer in 2 s".to_owned())),
        };
        match (answer.message, answer.error) {
            (Some(stored), _) => stored.arrived().map(Some),
            (None, Some(Refused { code: 404, .. })) => Ok(None),
            (None, error) => Err(PastFault::Passing(
                error.map_or_else(|| "an empty answer".to_owned(), |error| error.description),
            )),
        }
    }

    /// Waits until a broken connection is back.
    async fn reconnected(&self) -> Result<(), PastFault> {
        let back = async {
            while !self.link.is_connected() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        match timeout(RECONNECT, back).await {
            Ok(()) => Ok(()),
            Err(_) => Err(PastFault::Passing("the connection does not come back".to_owned())),
        }
    }
}

/// Whether an answer of a batch is the next one after the message at `last`, or the first.
fn follows(answer: &Message, last: Option<u64>) -> bool {
    let headers = answer.headers.as_ref();
    // The server's own is the last of the name; of the first answer it is 0.
    let before = headers.and_then(|headers| headers.get_last(NATS_LAST_SEQUENCE));
    before.is_some_and(|before| before.as_str().parse() == Ok(last.unwrap_or(0)))
}

/// A message as the leader's answer holds it.
#[derive(Deserialize)]
struct Stored {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
    time: String,
}

impl Stored {
    fn arrived(self) -> Result<Arrived, PastFault> {
        let failed = |what: &str| PastFault::Passing(format!("the answer's `{what}` can't be read"));
        let headers = BASE64.decode(&self.hdrs).map_err(|_| failed("hdrs"))?;
        Ok(Arrived {
            headers: match headers.is_empty() {
                true => Headers::Read(None),
                false => std::str::from_utf8(&headers)
                    .map_or(Headers::Unreadable, |text| Headers::Read(Some(parse(text)))),
            },
            payload: Bytes::from(BASE64.decode(&self.data).map_err(|_| failed("data"))?),
            place: Place::Stored {
                seq: self.seq,
                time: Timestamp::parse(&self.time).ok_or_else(|| failed("time"))?,
            },
            subject: self.subject,
            verdict: Verdict::Open,
        })
    }
}

/// Headers as they stand on the wire: a line with the version, then one of each name and value.
fn parse(text: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in text.split("\r\n").skip(1) {
        if let Some((name, value)) = line.split_once(':')
            && let (Ok(name), Ok(value)) = (
                name.trim().parse::<async_nats::HeaderName>(),
                value.trim().parse::<async_nats::HeaderValue>(),
            )
        {
            headers.append(name, value);
        }
    }
    headers
}

/// The holes in what was read that lie before the stream's first sequence: they may have held messages. A hole
/// behind it is one that somebody deleted.
fn lost(after: u64, up_to: u64, messages: &[Arrived], first: u64) -> Vec<(u64, u64)> {
    let mut lost = Vec::new();
    let mut last = after;
    for seq in messages
        .iter()
        .filter_map(Arrived::seq)
        .chain([up_to.saturating_add(1)])
    {
        let end = (seq - 1).min(first.saturating_sub(1));
        if end > last {
            lost.push((last, end));
        }
        last = seq;
    }
    lost
}

fn passing(fault: HeadFault) -> PastFault {
    match fault {
        HeadFault::Refused(fault) | HeadFault::Unanswered(fault) | HeadFault::Deaf(fault) => {
            PastFault::Passing(fault)
        }
        HeadFault::Missing => PastFault::AnotherEpoch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seq: u64) -> Arrived {
        Arrived {
            subject: "a.b".to_owned(),
            headers: Headers::Read(None),
            payload: Bytes::new(),
            place: Place::Stored {
                seq,
                time: Timestamp::parse("2026-01-01T00:00:00Z").unwrap(),
            },
            verdict: Verdict::Open,
        }
    }

    #[test]
    fn a_hole_before_the_first_sequence_is_lost_and_one_behind_it_was_deleted() {
        let read = [at(4), at(5), at(9)];
        assert_eq!(lost(3, 9, &read, 1), []);
        assert_eq!(lost(1, 9, &read, 3), [(1, 2)]);
        assert_eq!(lost(1, 9, &read, 4), [(1, 3)]);
        assert_eq!(lost(1, 9, &read, 8), [(1, 3), (5, 7)]);
        assert_eq!(lost(1, 12, &read, 20), [(1, 3), (5, 8), (9, 12)]);
        assert_eq!(lost(1, 5, &[], 20), [(1, 5)]);
        assert_eq!(lost(1, 5, &[], 2), []);
    }

    #[test]
    fn a_batch_that_goes_on_where_part_of_it_was_lost_ends_there() {
        let answer = |before: &[&str]| {
            let mut headers = HeaderMap::new();
            for before in before {
                headers.append(NATS_LAST_SEQUENCE, *before);
            }
            Message {
                subject: "_INBOX.a".into(),
                reply: None,
                payload: Bytes::new(),
                headers: Some(headers),
                status: None,
                description: None,
                length: 0,
            }
        };
        assert!(follows(&answer(&["0"]), None));
        assert!(follows(&answer(&["41"]), Some(41)));
        // What a publisher wrote stands before what the server did.
        assert!(follows(&answer(&["7", "41"]), Some(41)));
        assert!(!follows(&answer(&["41", "7"]), Some(41)));
        assert!(!follows(&answer(&["43"]), Some(41)));
        assert!(!follows(&answer(&["41"]), None));
        assert!(!follows(&answer(&[]), Some(41)));
    }

    #[test]
    fn headers_are_read_as_the_library_reads_them() {
        let headers = parse("NATS/1.0\r\nA: one\r\na:two \r\nA:three\r\n\r\n");
        let all: Vec<_> = headers.get_all("A").map(|value| value.as_str()).collect();
        assert_eq!(all, ["one", "three"]);
        assert_eq!(headers.get("a").unwrap().as_str(), "two");
    }
}
