//! The feed: one task that brings every event, in the stream's order, to the sink.
//!
//! It brings the whole stream, or, [`by_user`](super::by_user), what concerns users that are here.
//!
//! What wakes it: a message; something heard of the connection; the leader's answer to a head check; a part of
//! the stream that was read back; its own ticks. It never waits for anything else, so that the client library's
//! buffer is empty whenever possible.
//!
//! How it begins is in [`open`], the leader's answers in [`head`], what is missing in [`repair`], what came twice in
//! [`judge`], what the stream removed behind its first sequence in [`removed`], and how far it is in [`durable`].

mod durable;
mod head;
mod judge;
mod open;
mod removed;
mod repair;

use std::{
    future::pending,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{
    StreamExt,
    future::OptionFuture,
    stream::{BoxStream, SelectAll},
};
use rivulet_protocol::message::Gap;
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tracing::{debug, error};

pub(super) use self::open::{Durables, Left};
use self::{
    durable::Durable,
    head::{CHECK_INTERVAL, CHECK_SOON, HeadCheck, Then, check_head},
    judge::{Lookup, look_up},
    repair::{Read, read_back},
};
use super::{
    FeedState, StreamState,
    arrived::{Arrived, Place},
    by_user::ByUser,
    connect::Link,
    continuity::Arrival,
    index::Digest,
};
use crate::presence::mark;

/// How finely time passes for the feed.
const TICK: Duration = Duration::from_millis(100);
/// Messages taken at once, before the feed looks at anything else.
const CHUNK: usize = 256;
/// How long a move to another server may take before the node counts as cut off.
const MOVE: Duration = Duration::from_secs(1);

/// Whom a feed brings its messages to.
pub(super) trait Taker: Send {
    /// Where the stream stands before the first message, and whether it keeps what resuming exactly needs.
    fn open(&mut self, epoch: &str, head: u64, exact: bool);
    /// A message, in its turn.
    fn take(&mut self, arrived: &Arrived, epoch: Option<&str>, received_at: Instant);
    /// The stream went on to `seq` with nothing to take.
    fn passed(&mut self, seq: u64);
    /// The oldest sequence that the stream still keeps.
    fn keeps_from(&mut self, seq: u64);
    /// The stream no longer has these sequences, in order, which lie behind its first; or more of them than it says.
    fn removed(&mut self, removed: Option<&Arc<[u64]>>);
    /// A range of the stream is gone, for this reason.
    fn gap(&mut self, gap: Gap, label: &'static str);
    /// What it took last had been read back.
    fn repaired(&mut self);
    /// So many messages came as the stream's that the stream does not have.
    fn forged(&mut self, _messages: u64) {}
    /// Whether it took for a sequence what this message says, as far as it remembers.
    fn agrees(&self, _arrived: &Arrived, _seq: u64) -> bool {
        true
    }
    /// Takes what the stream has at a sequence, where it took something else. Returns whether it had.
    fn replace(&mut self, _stored: Option<&Arrived>, _seq: u64) -> bool {
        false
    }
    /// How the feed stands, and up to where it has brought the stream.
    fn tell(&mut self, state: FeedState, dispatched: Option<u64>);
    /// When it wants to act by itself.
    fn due(&self) -> Option<Instant> {
        None
    }
    /// It may act by itself.
    fn flush(&mut self, _now: Instant) {}
}

/// What a subscription of a feed brings.
pub(super) enum Came {
    /// A message of a source.
    Event(Arrived),
    /// Whose the next events are.
    Digest(Bytes),
}

/// What the feed is made of.
pub(super) struct Feed {
    link: Link,
    taker: Box<dyn Taker>,
    durable: Option<Durable>,
    /// How many times the connection had been established when the feed last looked.
    connects: u64,
    next_check: Instant,
    /// When forged messages were last said of in the log.
    forged_said: Option<Instant>,
    /// When the feed left a server that was well for another.
    moves_since: Option<Instant>,
    /// Whether it ended.
    over: bool,
}

/// The messages of all subscriptions.
pub(super) type Messages = SelectAll<BoxStream<'static, Came>>;

impl Feed {
    /// Runs until the connection is closed for good (`None`), or the stream is another or gone: then it is to be
    /// opened again.
    pub(super) async fn run(mut self, messages: Messages) -> Option<Left> {
        let mut messages = messages.ready_chunks(CHUNK);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut check: Option<HeadCheck> = None;
        let mut read: Option<Read> = None;
        let mut lookup: Option<Lookup> = None;
        let signals = Arc::clone(&self.link.signals);
        let presence = self.by_user().map(|by_user| Arc::clone(by_user.presence()));
        let came = async || match &presence {
            Some(presence) => presence.came.notified().await,
            None => pending().await,
        };
        loop {
            let due = self
                .due(read.is_some())
                .map_or_else(far, tokio::time::Instant::from_std);
            tokio::select! {
                chunk = messages.next() => {
                    let Some(chunk) = chunk else { break };
                    for came in chunk {
                        self.take(came);
                    }
                    self.go_on(Instant::now());
                }
                () = signals.changed.notified() => {}
                () = came() => {}
                () = sleep_until(due) => {}
                Some(answer) = OptionFuture::from(check.as_mut()) => {
                    check = None;
                    match self.answered(answer).await {
                        Then::GoOn => {}
                        Then::ReadAgain => read = None,
                        Then::OpenAgain => {
                            self.over = true;
                            self.tell();
                            return self.left();
                        }
                    }
                }
                Some(chunk) = OptionFuture::from(read.as_mut()) => {
                    read = None;
                    self.repair(chunk);
                }
                Some(found) = OptionFuture::from(lookup.as_mut()) => {
                    lookup = None;
                    self.judge(found);
                }
                _ = ticks.tick() => {}
            }
            if self.interruption() {
                // Its request may be among what was lost.
                check = None;
            }
            let now = Instant::now();
            if let Some(durable) = &mut self.durable {
                durable.continuity.tick(now);
                if let Some(by_user) = &mut durable.by_user {
                    by_user.follow(&self.link.client, messages.get_mut(), now);
                }
                if lookup.is_none() {
                    lookup = look_up(durable, now);
                }
                if read.is_none() && now >= durable.next_read {
                    read = durable
                        .wanted(now)
                        .map(|(after, to)| read_back(durable, after, to));
                }
            }
            self.forget_removed(now);
            self.taker.flush(now);
            if let Some(durable) = &mut self.durable
                && check.is_none()
                && now >= self.next_check
                && self.link.is_connected()
            {
                durable.continuity.asking();
                durable.held.asking(now);
                if let Some(by_user) = &mut durable.by_user {
                    by_user.asking();
                }
                check = Some(check_head(&self.link, &durable.stream.name));
                self.next_check = now + CHECK_INTERVAL;
            }
            self.tell();
        }
        error!("the NATS connection of the feed is closed");
        self.over = true;
        self.tell();
        None
    }

    /// Notices whatever may have cost messages, and has the head asked at once.
    fn interruption(&mut self) -> bool {
        let connects = self.link.connects();
        let dropped = self.link.signals.drops.swap(0, Ordering::Relaxed) > 0;
        let interrupted = connects != self.connects || !self.link.is_connected();
        if interrupted || dropped {
            if connects != self.connects {
                self.link.arrived();
                self.moves_since = None;
            }
            self.connects = connects;
            if let Some(durable) = &mut self.durable
                && interrupted
            {
                durable.continuity.interrupted();
            }
            self.next_check = Instant::now();
        }
        interrupted
    }

    /// Takes what came live: to the taker, or aside until its turn.
    fn take(&mut self, came: Came) {
        let now = Instant::now();
        let arrived = match came {
            Came::Event(arrived) => arrived,
            Came::Digest(digest) => return self.learn(digest, now),
        };
        let Some(seq) = arrived.seq() else {
            return self.dispatch(&arrived, now);
        };
        let Some(durable) = &mut self.durable else { return };
        if let Place::Stored { time, .. } = arrived.place
            && durable.continuity.is_younger_than(time)
        {
            return;
        }
        if let Some(by_user) = &mut durable.by_user {
            if seq > durable.continuity.last() {
                by_user.wait(seq, arrived);
            } else if by_user.is_owed(&arrived, seq) {
                self.suspect(&arrived, seq);
            }
            return;
        }
        match durable.continuity.message(seq, now) {
            Arrival::Next => {
                self.dispatch(&arrived, now);
                self.take_held(now);
            }
            Arrival::Early => {
                // Whether it exists, only the leader says.
                self.next_check = self.next_check.min(durable.held.may_ask(now));
                durable.held.push(arrived);
            }
            // Late, of a recreated stream, which the head's epoch says, or not the stream's.
            Arrival::Past => {
                self.next_check = self.next_check.min(now + CHECK_SOON);
                self.suspect(&arrived, seq);
            }
        }
    }

    /// Takes a part of the stream's index.
    fn learn(&mut self, digest: Bytes, now: Instant) {
        let Some(durable) = &mut self.durable else { return };
        let Some(by_user) = &mut durable.by_user else {
            return;
        };
        let Some(digest) = Digest::read(digest) else {
            debug!("a part of the index can't be read");
            return;
        };
        if digest.epoch == mark(durable.continuity.epoch()) {
            if by_user.learn(digest, &mut durable.continuity) {
                self.next_check = self.next_check.min(durable.held.may_ask(now));
            }
        } else {
            self.next_check = self.next_check.min(now + CHECK_SOON);
        }
    }

    /// Dispatches what the index and the messages of users allow.
    fn go_on(&mut self, now: Instant) {
        if let Some(durable) = &mut self.durable
            && let Some(by_user) = &mut durable.by_user
        {
            by_user.go_on(&mut durable.continuity, &mut *self.taker, now);
        }
    }

    fn by_user(&self) -> Option<&ByUser> {
        self.durable.as_ref()?.by_user.as_ref()
    }

    /// When something is to be done that nothing else wakes the feed for.
    fn due(&self, reads: bool) -> Option<Instant> {
        let durable = self.durable.as_ref().filter(|_| !reads);
        let late = durable.and_then(|durable| {
            let due = durable.by_user.as_ref()?.due()?;
            Some(due.max(durable.next_read))
        });
        self.taker.due().into_iter().chain(late).min()
    }

    fn dispatch(&mut self, arrived: &Arrived, received_at: Instant) {
        let epoch = self.durable.as_ref().map(|durable| durable.continuity.epoch());
        self.taker.take(arrived, epoch, received_at);
    }

    /// Tells the others how the feed stands, where that changed.
    fn tell(&mut self) {
        let now = Instant::now();
        let connected = self.link.is_connected() && self.connects > 0 && !self.over;
        let moves = self
            .moves_since
            .is_some_and(|since| now.duration_since(since) < MOVE);
        let complete = self
            .durable
            .as_ref()
            .is_none_or(|durable| durable.is_current(now));
        let state = FeedState {
            connected,
            current: (connected || moves) && complete && !self.over,
            durable: self.durable.as_ref().is_some_and(|durable| durable.stream.exact),
            stream: self.durable.as_ref().map(|durable| StreamState {
                epoch: durable.continuity.epoch().to_owned(),
                oldest_seq: durable.oldest,
                head_seq: durable.head,
            }),
        };
        let dispatched = self.durable.as_ref().map(|durable| durable.continuity.last());
        self.taker.tell(state, dispatched);
    }
}

/// A moment that is not waited for: the ticks come before.
fn far() -> tokio::time::Instant {
    tokio::time::Instant::now() + CHECK_INTERVAL
}
