//! The part of a feed that is by user: whose messages are awaited, and which have come.
//!
//! Messages of the users that are here come by a subscription for each, in any order and by any way; they wait
//! by their sequence. What says how far the stream has gone is its [`index`](super::index), which has no holes:
//! sequence by sequence it names the user, and where that is one of this node's the message is taken from those
//! that wait. One that is not there is awaited for a moment, then read back from the stream. So nothing rests on
//! a subscription: not on when it came into force, not on the order of two, not on a server that drops, not on
//! routes between servers. What gets lost on any of these ways is late by a read, and never out of its place.
//!
//! A digest that is missing is a jump of the sequence, which the feed reads back as ever.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::{Client, Subscriber};
use futures_util::{FutureExt, StreamExt, future::AbortHandle, stream::abortable};
use rivulet_protocol::subject::{EVERYONE_TOKEN, UserId};
use tokio::task::unconstrained;

use super::{
    arrived::Arrived,
    continuity::Continuity,
    feed::{Came, Messages, Taker},
    index::{Digest, MOST},
};
use crate::{
    config::Shape,
    metrics::Metrics,
    presence::{Presence, mark},
};

/// How long a message that the index names may be on its way. It and the index take different ways.
const LATE: Duration = Duration::from_millis(50);
/// Messages that wait for the index to come to them: several times what comes while something is read back.
const WAITING: usize = 8_192;
/// About how many bytes they may take.
const WAITING_BYTES: usize = 16 << 20;
/// About how many bytes of digests wait for a message: half a million sequences.
const DIGEST_BYTES: usize = 4 << 20;
/// About how many bytes of digests wait for the leader's word.
const DOUBTFUL_BYTES: usize = 1 << 20;

/// Whose events come, and how far they are known.
pub(super) struct ByUser {
    stream: String,
    prefix: String,
    shape: Shape,
    presence: Arc<Presence>,
    metrics: Arc<Metrics>,
    digests: VecDeque<Digest>,
    digest_bytes: usize,
    /// Digests that are ahead of what is known: the leader is asked whether the stream reaches so far.
    doubtful: VecDeque<Digest>,
    doubtful_bytes: usize,
    /// How many of them had come when it was asked.
    asked: usize,
    waiting: BTreeMap<u64, Arrived>,
    waiting_bytes: usize,
    /// The message that is awaited, and since when.
    lacking: Option<(u64, Instant)>,
    subscriptions: HashMap<UserId, AbortHandle>,
    /// Users who are here and not subscribed to yet.
    new: Vec<UserId>,
}

impl ByUser {
    pub(super) fn new(
        stream: String,
        prefix: String,
        shape: Shape,
        presence: Arc<Presence>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            stream,
            prefix,
            shape,
            presence,
            metrics,
            digests: VecDeque::new(),
            digest_bytes: 0,
            doubtful: VecDeque::new(),
            doubtful_bytes: 0,
            asked: 0,
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            lacking: None,
            subscriptions: HashMap::new(),
            new: Vec::new(),
        }
    }

    /// Who is here.
    pub(super) fn presence(&self) -> &Arc<Presence> {
        &self.presence
    }

    /// The subject of a user's messages, or of everyone's: by the user as subjects have it.
    pub(super) fn subject(&self, token: &str) -> String {
        match self.shape.tokens {
            1 => format!("{}.{token}", self.prefix),
            _ => format!("{}.{token}.>", self.prefix),
        }
    }

    /// Subscribes to who came, and ends the subscriptions of who is long gone.
    pub(super) fn follow(&mut self, client: &Client, messages: &mut Messages, now: Instant) {
        let (gone, (here, lingering)) = {
            let mut users = self.presence.lock();
            self.new.append(&mut users.take_new());
            (users.sweep(now), users.count())
        };
        for user in gone {
            self.new.retain(|new| *new != user);
            if let Some(subscription) = self.subscriptions.remove(&user) {
                subscription.abort();
            }
        }
        while let Some(user) = self.new.pop() {
            if self.subscriptions.contains_key(&user) {
                continue;
            }
            let subject = self.subject(&user.escaped());
            // Waits only while the client's own queue is full; then the next round tries again.
            let subscribing = unconstrained(client.subscribe(subject));
            let Some(Ok(subscriber)) = subscribing.now_or_never() else {
                self.new.push(user);
                break;
            };
            let (stored, ends) = abortable(self.stored(subscriber));
            messages.push(stored.boxed());
            self.subscriptions.insert(user, ends);
        }
        self.metrics.nats.feed_users.set(here as i64);
        self.metrics.nats.feed_lingering.set(lingering as i64);
    }

    /// What a subscription brings.
    pub(super) fn stored(&self, subscriber: Subscriber) -> impl futures_util::Stream<Item = Came> + use<> {
        let name = self.stream.clone();
        subscriber.map(move |message| Came::Event(Arrived::stored(&name, message)))
    }

    /// Takes a message that came live, to wait for its turn.
    pub(super) fn wait(&mut self, seq: u64, arrived: Arrived) {
        if self.waiting.len() >= WAITING || self.waiting_bytes > WAITING_BYTES {
            // The stream has them.
            self.waiting.clear();
            self.waiting_bytes = 0;
        }
        if let Some(twin) = self.waiting.remove(&seq) {
            self.waiting_bytes -= twin.bytes();
            if twin.payload != arrived.payload || twin.subject != arrived.subject {
                // One of them is not the stream's: neither is taken, and it is read back.
                return;
            }
        }
        self.waiting_bytes += arrived.bytes();
        self.waiting.insert(seq, arrived);
    }

    /// Whether a message that comes late should have been dispatched: it is of somebody who was here when its turn was.
    pub(super) fn is_owed(&self, arrived: &Arrived, seq: u64) -> bool {
        let since = match arrived.subject.split('.').nth(self.shape.user) {
            Some(EVERYONE_TOKEN) => self.presence.since_first(),
            Some(token) => UserId::unescape(token).map_or(u64::MAX, |user| self.presence.since(&user)),
            None => u64::MAX,
        };
        since < seq
    }

    /// Takes a digest of this epoch. One that is next is taken as it comes, one that is ahead when the leader vouches
    /// for it: returns whether it is to be asked.
    pub(super) fn learn(&mut self, digest: Digest, continuity: &mut Continuity) -> bool {
        let known = self.known(continuity);
        if digest.to <= known {
            return false;
        }
        if digest.after <= known && digest.to - known <= MOST as u64 {
            self.take_digest(digest, known, continuity);
            return false;
        }
        if self.doubtful_bytes > DOUBTFUL_BYTES {
            // What they would have said is read back.
            self.clear_doubtful();
        }
        continuity.jumped();
        self.doubtful_bytes += digest.bytes();
        self.doubtful.push_back(digest);
        true
    }

    /// Notes that the leader is asked for its head now.
    pub(super) fn asking(&mut self) {
        self.asked = self.doubtful.len();
    }

    /// Takes the digests within the leader's head, and drops those beyond it that were here when it was asked. Returns how
    /// many those are.
    pub(super) fn judge(&mut self, head: u64, continuity: &mut Continuity) -> u64 {
        let asked = std::mem::take(&mut self.asked);
        let doubtful = std::mem::take(&mut self.doubtful);
        self.doubtful_bytes = 0;
        let mut dropped = 0;
        for (place, digest) in doubtful.into_iter().enumerate() {
            let known = self.known(continuity);
            if digest.to <= known {
                continue;
            }
            if digest.to <= head || (digest.after <= known && digest.to - known <= MOST as u64) {
                self.take_digest(digest, known, continuity);
            } else if place < asked {
                dropped += 1;
            } else {
                continuity.jumped();
                self.doubtful_bytes += digest.bytes();
                self.doubtful.push_back(digest);
            }
        }
        dropped
    }

    /// Up to where the index is known.
    fn known(&self, continuity: &Continuity) -> u64 {
        let indexed = self.digests.back().map_or(0, |digest| digest.to);
        indexed.max(continuity.last())
    }

    fn take_digest(&mut self, digest: Digest, known: u64, continuity: &mut Continuity) {
        self.metrics.nats.feed_indexed.inc_by(digest.to - known);
        if self.digest_bytes > DIGEST_BYTES {
            // Then it is read back what they would have said.
            continuity.jumped();
            self.digests.clear();
            self.digest_bytes = 0;
        }
        self.digest_bytes += digest.bytes();
        self.digests.push_back(digest);
    }

    fn clear_doubtful(&mut self) {
        self.doubtful.clear();
        (self.doubtful_bytes, self.asked) = (0, 0);
    }

    /// Dispatches as far as the index and the messages go.
    pub(super) fn go_on(&mut self, continuity: &mut Continuity, taker: &mut dyn Taker, now: Instant) {
        let presence = Arc::clone(&self.presence);
        let mut lacking = None;
        while lacking.is_none()
            && let Some(digest) = self.digests.front()
        {
            let last = continuity.last();
            if digest.after > last {
                break;
            }
            // Held until the sink stands where this digest ends: see `presence`.
            let mut users = presence.lock();
            let mut dispatched = last;
            let mut to = digest.to;
            for (seq, mark) in digest.marks_after(last) {
                if !users.concerns(mark) {
                    continue;
                }
                let Some(arrived) = self.waiting.remove(&seq) else {
                    lacking = Some(seq);
                    to = seq - 1;
                    break;
                };
                self.waiting_bytes -= arrived.bytes();
                taker.take(&arrived, Some(continuity.epoch()), now);
                dispatched = seq;
            }
            if to > dispatched {
                taker.passed(to);
            }
            if to > last {
                continuity.reached(to, now);
                users.at(to);
            }
            drop(users);
            if lacking.is_none()
                && let Some(digest) = self.digests.pop_front()
            {
                self.digest_bytes -= digest.bytes();
            }
        }
        self.lacking = lacking.map(|seq| match self.lacking {
            Some((same, since)) if same == seq => (seq, since),
            _ => (seq, now),
        });
        self.forget(continuity.last());
    }

    /// Drops what was dispatched, or was for nobody here.
    fn forget(&mut self, last: u64) {
        while let Some(first) = self.waiting.first_entry()
            && *first.key() <= last
        {
            self.waiting_bytes -= first.remove().bytes();
        }
    }

    /// Takes a message that was read back. Those that are nobody's here are passed over.
    pub(super) fn repair(
        &self,
        arrived: &Arrived,
        seq: u64,
        continuity: &mut Continuity,
        taker: &mut dyn Taker,
        now: Instant,
    ) {
        let token = arrived.subject.split('.').nth(self.shape.user);
        let mut users = self.presence.lock();
        if token.is_some_and(|token| users.concerns(mark(token))) {
            taker.take(arrived, Some(continuity.epoch()), now);
            taker.repaired();
        } else {
            taker.passed(seq);
        }
        continuity.reached(seq, now);
        users.at(seq);
    }

    /// Goes on after what was read back: up to there nothing else is in the stream.
    pub(super) fn repaired(&self, to: u64, continuity: &mut Continuity, taker: &mut dyn Taker, now: Instant) {
        let mut users = self.presence.lock();
        continuity.reached(to, now);
        taker.passed(to);
        users.at(to);
    }

    /// Up to where the stream is to be read back for a message that does not come.
    pub(super) fn overdue(&self, now: Instant) -> Option<u64> {
        let (_, since) = self.lacking?;
        let digest = self.digests.front()?;
        (now >= since + LATE).then_some(digest.to)
    }

    /// When that is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.lacking.map(|(_, since)| since + LATE)
    }

    /// All subscriptions are gone: users who are here are subscribed to again.
    pub(super) fn subscribe_again(&mut self) {
        self.new.extend(self.subscriptions.drain().map(|(user, _)| user));
    }

    /// The last sequence before the first digest, where that is known.
    pub(super) fn known_from(&self) -> Option<u64> {
        self.digests.front().map(|digest| digest.after)
    }

    /// Sequences go on after `seq`, and may have begun anew: `tell` moves the sink there.
    pub(super) fn begin(&mut self, seq: u64, tell: impl FnOnce()) {
        self.digests.clear();
        self.digest_bytes = 0;
        self.clear_doubtful();
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.lacking = None;
        let mut users = self.presence.lock();
        users.begin(seq);
        tell();
    }
}
