//! The index of the stream: for each sequence, whose event it is, in eight bytes.
//!
//! With a feed by user a node gets the events of its own users only, so that a jump of the sequence says
//! nothing any more; and no head that the leader gives says which of the messages before it are still on their
//! way, or were lost on a route between servers. What can be told is what has no holes. So two nodes of a fleet
//! read the whole stream, as with the whole feed and with the same account of what is missing, and tell all
//! nodes the marks of the users, sequence by sequence.
//!
//! Nobody leads: a node that hears fewer than two indexers for some time begins, and one that hears two with
//! lower numbers than its own ends. Where nobody indexes nothing is lost: nodes then read the stream back
//! themselves, and are late.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, OptionFuture},
};
use rivulet_protocol::message::Gap;
use tokio::{
    task::unconstrained,
    time::{MissedTickBehavior, interval},
};
use tracing::{debug, info};

use super::{
    BusError, FeedState,
    arrived::Arrived,
    connect::{Link, NODES},
    feed::{Feed, Taker},
    past::Past,
    stream::Stream,
};
use crate::{
    metrics::{Held, Metrics},
    presence::mark,
};

/// The form of a digest; others are not read.
const FORM: u8 = 1;
/// What stands before the marks: the form and four numbers.
const HEAD: usize = 33;
/// The most sequences in one: 32 KiB.
pub(super) const MOST: usize = 4_096;
/// The least time between two: 500 a second cost their readers less than the events that they name.
const PACE: Duration = Duration::from_millis(2);
/// How often an indexer is heard, if only with an empty digest.
const BREATH: Duration = Duration::from_millis(250);
/// How long one is not heard that is gone.
const SILENCE: Duration = Duration::from_secs(1);
/// How many index: when one of them dies nobody waits.
const INDEXERS: usize = 2;

/// Where a stream's digests are published.
pub(super) fn subject(stream: &str) -> String {
    format!("{NODES}.index.{stream}")
}

/// Whose the events of a range are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Digest {
    /// Who says so.
    pub(super) indexer: u64,
    /// Of which epoch: its [`mark`].
    pub(super) epoch: u64,
    /// The last sequence before the range.
    pub(super) after: u64,
    /// The last in it.
    pub(super) to: u64,
    /// Of each sequence its user's mark, 0 for nobody's; what stands beyond the last is nobody's.
    marks: Bytes,
}

impl Digest {
    /// Reads one; `None` if it is none.
    pub(super) fn read(mut bytes: Bytes) -> Option<Self> {
        if bytes.len() < HEAD || bytes.get_u8() != FORM {
            return None;
        }
        let digest = Self {
            indexer: bytes.get_u64_le(),
            epoch: bytes.get_u64_le(),
            after: bytes.get_u64_le(),
            to: bytes.get_u64_le(),
            marks: bytes,
        };
        let fits = digest.marks.len().is_multiple_of(8)
            && digest.after <= digest.to
            && (digest.marks.len() / 8) as u64 <= digest.to - digest.after;
        fits.then_some(digest)
    }

    /// The marks after `seq`, with their sequences; nobody's are left out.
    pub(super) fn marks_after(&self, seq: u64) -> impl Iterator<Item = (u64, u64)> {
        let skipped = (seq.saturating_sub(self.after) as usize).saturating_mul(8);
        let rest = self.marks.get(skipped..).unwrap_or_default();
        let first = self.after.max(seq) + 1;
        let marks = rest.chunks_exact(8).zip(first..);
        marks.filter_map(|(bytes, seq)| {
            let mark = u64::from_le_bytes(bytes.try_into().ok()?);
            (mark != 0).then_some((seq, mark))
        })
    }

    /// What it takes in memory, about.
    pub(super) fn bytes(&self) -> usize {
        self.marks.len() + 64
    }
}

/// A digest that is being written.
#[derive(Debug, Default)]
struct Draft {
    indexer: u64,
    epoch: u64,
    after: u64,
    to: u64,
    marks: BytesMut,
}

impl Draft {
    fn begin(&mut self, epoch: &str, seq: u64) {
        self.epoch = mark(epoch);
        (self.after, self.to) = (seq, seq);
        self.marks.clear();
    }

    /// Notes whose the next event is. What lies between is nobody's; what no longer fits is given to `publish`.
    fn note(&mut self, seq: u64, mark: u64, mut publish: impl FnMut(Bytes)) {
        let fits = |draft: &Self| seq - draft.after <= MOST as u64;
        if !fits(self) {
            publish(self.end());
        }
        if !fits(self) {
            // A great hole: one digest of nobody's.
            self.to = seq - 1;
            publish(self.end());
        }
        self.marks.resize((seq - self.after - 1) as usize * 8, 0);
        self.marks.put_u64_le(mark);
        self.to = seq;
    }

    /// The digest; the next one begins behind it.
    fn end(&mut self) -> Bytes {
        let mut digest = BytesMut::with_capacity(HEAD + self.marks.len());
        digest.put_u8(FORM);
        for number in [self.indexer, self.epoch, self.after, self.to] {
            digest.put_u64_le(number);
        }
        digest.put_slice(&self.marks);
        self.after = self.to;
        self.marks.clear();
        digest.freeze()
    }
}

/// Publishes digests of what the feed brings.
struct Writer {
    link: Link,
    subject: String,
    /// Which token of a subject is the user.
    user: usize,
    draft: Draft,
    sent: Instant,
}

/// What can't be sent now is dropped: nodes see that it is missing, and read that part back.
fn publish(link: &Link, subject: &str, digest: Bytes) {
    if link.is_connected() {
        let sent = link.client.publish(subject.to_owned(), digest);
        // Not held up by how much this task has done: there is room, or there is none.
        let _ = unconstrained(sent).now_or_never();
    }
}

impl Taker for Writer {
    fn open(&mut self, epoch: &str, head: u64, _: bool) {
        self.draft.begin(epoch, head);
    }

    fn take(&mut self, arrived: &Arrived, _: Option<&str>, _: Instant) {
        let Some(seq) = arrived.seq() else { return };
        let token = arrived.subject.split('.').nth(self.user);
        let Self {
            link, subject, draft, ..
        } = self;
        draft.note(seq, token.map_or(0, mark), |digest| {
            publish(link, subject, digest);
        });
    }

    fn passed(&mut self, seq: u64) {
        self.draft.to = seq;
    }

    fn keeps_from(&mut self, _: u64) {}

    fn removed(&mut self, _: Option<&Arc<[u64]>>) {}

    fn gap(&mut self, gap: Gap, _: &'static str) {
        // What is gone is nobody's word: nodes find out by themselves.
        publish(&self.link, &self.subject, self.draft.end());
        self.draft.begin(&gap.stream, gap.to_seq.get());
    }

    fn repaired(&mut self) {}

    fn tell(&mut self, _: FeedState, _: Option<u64>) {}

    fn due(&self) -> Option<Instant> {
        let wait = match self.draft.to > self.draft.after {
            true => PACE,
            false => BREATH,
        };
        Some(self.sent + wait)
    }

    fn flush(&mut self, now: Instant) {
        if self.due() <= Some(now) {
            publish(&self.link, &self.subject, self.draft.end());
            self.sent = now;
        }
    }
}

/// What an indexer is made from.
pub(super) struct Indexer {
    pub(super) link: Link,
    pub(super) stream: Stream,
    pub(super) past: Past,
    /// Which token of a subject is the user.
    pub(super) user: usize,
    pub(super) metrics: Arc<Metrics>,
}

impl Indexer {
    /// Indexes while the fleet needs it, for ever.
    ///
    /// # Errors
    /// If NATS does not permit it.
    pub(super) async fn keep(self) -> Result<(), BusError> {
        let subject = subject(&self.stream.name);
        let digests = self.link.client.subscribe(subject.clone()).await;
        let mut digests = digests.map_err(|fault| BusError::Subscribe {
            subject: subject.clone(),
            fault: fault.to_string(),
        })?;
        let indexer: u64 = rand::random();
        let mut others: HashMap<u64, Instant> = HashMap::new();
        let mut ticks = interval(BREATH / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let patience = || Instant::now() + BREATH.mul_f64(rand::random_range(1.2..3.0));
        let mut begins = patience();
        let mut work: Option<BoxFuture<'_, Result<(), BusError>>> = None;
        loop {
            tokio::select! {
                digest = digests.next() => {
                    let Some(digest) = digest else { return Ok(()) };
                    let heard = Digest::read(digest.payload).map(|digest| digest.indexer);
                    if let Some(other) = heard.filter(|heard| *heard != indexer) {
                        others.insert(other, Instant::now());
                    }
                }
                Some(ended) = OptionFuture::from(work.as_mut()) => {
                    work = None;
                    begins = patience();
                    ended?;
                }
                _ = ticks.tick() => {}
            }
            let now = Instant::now();
            others.retain(|_, heard| now.duration_since(*heard) < SILENCE);
            if work.is_some() {
                if others.keys().filter(|other| **other < indexer).count() >= INDEXERS {
                    info!("two others index the stream: this node ends");
                    work = None;
                    begins = patience();
                }
            } else if others.len() >= INDEXERS || !self.link.is_connected() {
                begins = patience();
            } else if now >= begins {
                info!("this node indexes the stream for all nodes");
                let counted = Held::of(&self.metrics.nats.feed_indexing);
                let index = self.index(indexer, subject.clone());
                work = Some(
                    async move {
                        let _counted = counted;
                        index.await
                    }
                    .boxed(),
                );
            }
        }
    }

    async fn index(&self, indexer: u64, subject: String) -> Result<(), BusError> {
        let writer = Writer {
            link: self.link.clone(),
            subject,
            user: self.user,
            draft: Draft {
                indexer,
                ..Draft::default()
            },
            sent: Instant::now(),
        };
        let (link, stream, past) = (self.link.clone(), self.stream.clone(), self.past.clone());
        let (feed, messages) = Feed::whole(link, Box::new(writer), stream, past).await?;
        // Of another stream it begins again.
        let _ = feed.run(messages).await;
        debug!("the index ended");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(after: u64, to: u64, marks: &[u64]) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_u8(FORM);
        for number in [7, 8, after, to].iter().chain(marks) {
            bytes.put_u64_le(*number);
        }
        bytes.freeze()
    }

    fn after(digest: &Digest, seq: u64) -> Vec<(u64, u64)> {
        digest.marks_after(seq).collect()
    }

    #[test]
    fn a_digest_names_whose_each_sequence_is() {
        let digest = Digest::read(digest(10, 15, &[1, 0, 3])).unwrap();
        assert_eq!((digest.indexer, digest.epoch), (7, 8));
        assert_eq!(after(&digest, 10), [(11, 1), (13, 3)]);
        assert_eq!(after(&digest, 3), [(11, 1), (13, 3)]);
        assert_eq!(after(&digest, 12), [(13, 3)]);
        assert_eq!(after(&digest, 13), []);
        assert_eq!(after(&digest, u64::MAX - 1), []);
    }

    #[test]
    fn digests_follow_each_other_over_holes_of_any_size() {
        let mut draft = Draft::default();
        draft.begin("S@1", 10);
        let mut digests = Vec::new();
        let noted = [(11, 5), (13, 6), (10_000, 7), (10_001, 8), (1 << 40, 9)];
        for (seq, mark) in noted {
            draft.note(seq, mark, |digest| digests.push(digest));
        }
        draft.to += 3;
        digests.push(draft.end());
        digests.push(draft.end());
        let (mut last, mut read) = (10, Vec::new());
        for digest in digests {
            let digest = Digest::read(digest).unwrap();
            assert_eq!((digest.after, digest.epoch), (last, mark("S@1")));
            assert!(digest.bytes() <= MOST * 8 + 64);
            read.extend(digest.marks_after(last));
            last = digest.to;
        }
        assert_eq!(read, noted);
        assert_eq!(last, (1 << 40) + 3);
    }

    #[test]
    fn what_is_no_digest_is_not_read() {
        assert_eq!(Digest::read(Bytes::new()), None);
        assert_eq!(Digest::read(digest(10, 9, &[])), None);
        assert_eq!(Digest::read(digest(10, 11, &[1, 2])), None);
        assert_eq!(Digest::read(digest(10, 11, &[1]).slice(..38)), None);
        let mut other = BytesMut::from(&digest(10, 11, &[1])[..]);
        other[0] = 2;
        assert_eq!(Digest::read(other.freeze()), None);
        assert!(Digest::read(digest(0, u64::MAX, &[])).is_some());
    }
}
