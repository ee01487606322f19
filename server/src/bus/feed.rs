//! The feed: one task that brings every event, in the stream's order, to the sink.
//!
//! It brings the whole stream, or, [`by_user`](super::by_user), what concerns users that are here.
//!
//! What wakes it: a message; something heard of the connection; the leader's answer to a head check; a part of
//! the stream that was read back; its own ticks. It never waits for anything else, so that the client library's
//! buffer is empty whenever possible.
//!
//! A head check asks the stream's leader, on the feed's own connection, where the stream stands: every 2 s and
//! after whatever may have cost messages. The feed is current once it has dispatched everything up to a head
//! that was asked for after the last interruption.
//!
//! **Repair.** What it finds missing it reads back from the stream, part by part, and dispatches it before
//! anything newer. Live messages that come meanwhile are held, up to a bound, so that a fast stream can be
//! caught up with; beyond the bound they are dropped, as the stream has them. Only what the stream itself no
//! longer has is told as a gap.

use std::{
    collections::VecDeque,
    future::pending,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use async_nats::jetstream::consumer::{DeliverPolicy, push::OrderedConfig};
use bytes::Bytes;
use futures_util::{
    StreamExt,
    future::{BoxFuture, OptionFuture},
    stream::{BoxStream, SelectAll},
};
use rivulet_protocol::{
    message::{Gap, GapReason},
    scalar::{SafeInteger, Timestamp},
    subject::EVERYONE_TOKEN,
};
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};
use tracing::{debug, error, info, warn};

use super::{
    BusError, FeedState, StreamState,
    arrived::{Arrived, Headers, Place},
    by_user::ByUser,
    connect::Link,
    continuity::{Arrival, Cause, Continuity, Holes, Missed},
    index::{self, Digest},
    past::{Chunk, Past, PastFault},
    source::Sources,
    stream::{Head, HeadFault, Live, Stream, head},
};
use crate::presence::mark;

/// How often the leader is asked for the head.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// How long it may take to answer; after that another server is tried.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// How soon it is asked again when it could not say, or when a message was out of place.
const CHECK_SOON: Duration = Duration::from_millis(250);
/// How finely time passes for the feed.
const TICK: Duration = Duration::from_millis(100);
/// Messages taken at once, before the feed looks at anything else.
const CHUNK: usize = 256;
/// Live messages held while what lies before them is read back: 0.2 s of 40,000 a second, several times what one
/// read takes.
const HELD: usize = 8_192;
/// About how many bytes they may take.
const HELD_BYTES: usize = 16 << 20;

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
    /// A range of the stream is gone, for this reason.
    fn gap(&mut self, gap: Gap, label: &'static str);
    /// What it took last had been read back.
    fn repaired(&mut self);
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
}

/// The durable part of a feed.
struct Durable {
    stream: Stream,
    past: Past,
    continuity: Continuity,
    /// Where the feed is by user.
    by_user: Option<ByUser>,
    held: Held,
    /// When the stream may be read back again after that failed.
    next_read: Instant,
    oldest: u64,
    head: u64,
    /// Whether the last head check was answered.
    answered: bool,
}

/// Live messages that came before their turn.
#[derive(Default)]
struct Held {
    messages: VecDeque<Arrived>,
    bytes: usize,
}

impl Held {
    /// Keeps a message, or drops all when there are too many.
    fn push(&mut self, message: Arrived) {
        if self.messages.len() >= HELD || self.bytes > HELD_BYTES {
            *self = Self::default();
        }
        self.bytes += message.bytes();
        self.messages.push_back(message);
    }

    /// Takes the first if `wanted` says so of its sequence.
    fn pop_if(&mut self, wanted: impl FnOnce(u64) -> bool) -> Option<Arrived> {
        let message = self.messages.front()?;
        if !message.seq().is_some_and(wanted) {
            return None;
        }
        self.bytes -= message.bytes();
        self.messages.pop_front()
    }
}

/// The messages of all subscriptions.
pub(super) type Messages = SelectAll<BoxStream<'static, Came>>;

/// The stream that a feed brings.
pub(super) struct Durables {
    pub(super) stream: Stream,
    pub(super) past: Past,
    /// Where it is brought by user.
    pub(super) by_user: Option<ByUser>,
}

impl Feed {
    /// Subscribes, learns where the stream (of the configured `name`) stands, and opens the taker there.
    ///
    /// # Errors
    /// If NATS does not permit it. What may pass (no leader, a slow answer) is waited for.
    pub(super) async fn open(
        link: Link,
        taker: Box<dyn Taker>,
        sources: &Sources,
        name: &str,
        stream: Option<Durables>,
    ) -> Result<(Self, Messages), BusError> {
        let connects = link.connects();
        let mut messages = SelectAll::new();
        // With no stream, what should be durable comes by core NATS too.
        let core = match stream {
            Some(_) => sources.subjects(false),
            None => [sources.subjects(true), sources.subjects(false)].concat(),
        };
        for subject in core {
            let live = subscribe(&link, subject).await?;
            messages.push(live.map(Arrived::core).map(Came::Event).boxed());
        }
        let Some(stream) = stream else {
            // The server answers in order, so whatever it refuses of the subscriptions stands before this
            // answer, which is "nobody" or "no such stream".
            let _ = link.permitted(head(&link.jetstream, name)).await?;
            info!("the feed is open, without a stream");
            return Ok((Self::new(link, taker, None, connects), messages));
        };
        Self::durable(link, taker, stream, connects, messages).await
    }

    /// A feed of the whole stream and nothing else.
    ///
    /// # Errors
    /// As [`Feed::open`].
    pub(super) async fn whole(
        link: Link,
        taker: Box<dyn Taker>,
        stream: Stream,
        past: Past,
    ) -> Result<(Self, Messages), BusError> {
        let connects = link.connects();
        let stream = Durables {
            stream,
            past,
            by_user: None,
        };
        Self::durable(link, taker, stream, connects, SelectAll::new()).await
    }

    async fn durable(
        link: Link,
        mut taker: Box<dyn Taker>,
        stream: Durables,
        connects: u64,
        mut messages: Messages,
    ) -> Result<(Self, Messages), BusError> {
        let Durables {
            stream,
            past,
            mut by_user,
        } = stream;
        match (&stream.live, &by_user) {
            (Live::Republished { .. }, Some(by_user)) => {
                let digests = subscribe(&link, &index::subject(&stream.name)).await?;
                messages.push(digests.map(|message| Came::Digest(message.payload)).boxed());
                let everyone = subscribe(&link, &by_user.subject(EVERYONE_TOKEN)).await?;
                messages.push(by_user.stored(everyone).boxed());
            }
            (Live::Republished { subject }, None) => {
                let name = stream.name.clone();
                let live = subscribe(&link, subject).await?;
                messages.push(
                    live.map(move |message| Came::Event(Arrived::stored(&name, message)))
                        .boxed(),
                );
            }
            (Live::Consumed, _) => {}
        }
        // Asked after the subscription, on the same connection: what is stored later comes live.
        let at = first_head(&link, &stream.name).await?;
        let holes = match &stream.live {
            Live::Republished { .. } => Holes::Missed,
            Live::Consumed => {
                messages.push(consume(&link, &stream.name, at.last + 1).await?);
                Holes::Deleted
            }
        };
        let mut open = || taker.open(&at.epoch, at.last, stream.exact);
        match &mut by_user {
            Some(by_user) => by_user.begin(at.last, open),
            None => open(),
        }
        taker.keeps_from(at.first);
        info!(stream = %at.epoch, seq = at.last, "the feed is open");
        let durable = Durable {
            continuity: Continuity::begin(&at, holes),
            stream,
            past,
            by_user,
            held: Held::default(),
            next_read: Instant::now(),
            oldest: at.first,
            head: at.last,
            answered: true,
        };
        Ok((Self::new(link, taker, Some(durable), connects), messages))
    }

    fn new(link: Link, taker: Box<dyn Taker>, durable: Option<Durable>, connects: u64) -> Self {
        let mut feed = Self {
            link,
            taker,
            durable,
            connects,
            next_check: Instant::now() + CHECK_INTERVAL,
        };
        feed.tell();
        feed
    }

    /// Runs until the connection is closed for good or the future is dropped.
    pub(super) async fn run(mut self, messages: Messages) {
        let mut messages = messages.ready_chunks(CHUNK);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut check: Option<HeadCheck> = None;
        let mut read: Option<Read> = None;
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
                    self.answered(answer).await;
                }
                Some(chunk) = OptionFuture::from(read.as_mut()) => {
                    read = None;
                    self.repair(chunk);
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
                if read.is_none() && now >= durable.next_read {
                    read = durable
                        .wanted(now)
                        .map(|(after, to)| read_back(durable, after, to));
                }
            }
            self.taker.flush(now);
            if let Some(durable) = &mut self.durable
                && check.is_none()
                && now >= self.next_check
                && self.link.is_connected()
            {
                durable.continuity.asking();
                check = Some(check_head(&self.link, &durable.stream.name));
                self.next_check = now + CHECK_INTERVAL;
            }
            self.tell();
        }
        error!("the NATS connection of the feed is closed");
        self.connects = 0;
        self.tell();
    }

    /// Notices whatever may have cost messages, and has the head asked at once.
    fn interruption(&mut self) -> bool {
        let connects = self.link.connects();
        let dropped = self.link.signals.drops.swap(0, Ordering::Relaxed) > 0;
        let interrupted = connects != self.connects || !self.link.is_connected();
        if interrupted || dropped {
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
        if let Some(by_user) = &mut durable.by_user {
            if seq > durable.continuity.last() {
                by_user.wait(seq, arrived);
            }
            return;
        }
        match durable.continuity.message(seq, now) {
            Arrival::Next => {
                self.dispatch(&arrived, now);
                self.take_held(now);
            }
            Arrival::Early => durable.held.push(arrived),
            // Late, or of a stream made anew: the head's epoch says which.
            Arrival::Past => self.next_check = self.next_check.min(now + CHECK_SOON),
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
            by_user.learn(digest, &mut durable.continuity, now);
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

    /// Takes what was held and is next now.
    fn take_held(&mut self, now: Instant) {
        while let Some(durable) = &mut self.durable {
            let last = durable.continuity.last();
            let Some(arrived) = durable.held.pop_if(|seq| seq <= last + 1) else {
                break;
            };
            if let Some(seq) = arrived.seq().filter(|seq| *seq > last) {
                durable.continuity.reached(seq, now);
                self.dispatch(&arrived, now);
            }
        }
    }

    /// Takes what was read back of the stream, in the place of what was missed.
    fn repair(&mut self, chunk: Result<Chunk, PastFault>) {
        let now = Instant::now();
        let Some(durable) = &mut self.durable else { return };
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(fault) => {
                if let PastFault::Passing(fault) = &fault {
                    warn!(fault, "the stream can't be read back now: trying again");
                }
                durable.next_read = now + CHECK_SOON;
                self.next_check = self.next_check.min(now + CHECK_SOON);
                return;
            }
        };
        let from = durable.continuity.last();
        let mut lost = chunk.lost.into_iter().peekable();
        for message in &chunk.messages {
            let Some(seq) = message.seq() else { continue };
            while let Some((after, to)) = lost.next_if(|(_, to)| *to < seq) {
                self.lost(after, to, now);
            }
            let Some(durable) = &mut self.durable else { return };
            if seq <= durable.continuity.last() {
                continue;
            }
            if let Some(by_user) = &durable.by_user {
                by_user.repair(message, seq, &mut durable.continuity, &mut *self.taker, now);
            } else {
                durable.continuity.reached(seq, now);
                self.dispatch(message, now);
                self.taker.repaired();
            }
        }
        for (after, to) in lost {
            self.lost(after, to, now);
        }
        if let Some(durable) = &mut self.durable {
            let up_to = chunk.up_to;
            match &durable.by_user {
                _ if up_to <= durable.continuity.last() => {}
                Some(by_user) => by_user.repaired(up_to, &mut durable.continuity, &mut *self.taker, now),
                None => {
                    durable.continuity.reached(up_to, now);
                    self.taker.passed(up_to);
                }
            }
            debug!(
                from_seq = from,
                to_seq = durable.continuity.last(),
                "read back what was missed"
            );
        }
        self.take_held(now);
        self.go_on(now);
    }

    /// Declares a range that the stream had removed before it was read back, as far as it is missing.
    fn lost(&mut self, after: u64, to: u64, now: Instant) {
        let Some(durable) = &mut self.durable else { return };
        let from = after.max(durable.continuity.last());
        if to > from {
            durable.continuity.reached(to, now);
            self.missed(&Missed {
                from,
                to,
                cause: Cause::Evicted,
            });
        }
    }

    fn dispatch(&mut self, arrived: &Arrived, received_at: Instant) {
        let epoch = self.durable.as_ref().map(|durable| durable.continuity.epoch());
        self.taker.take(arrived, epoch, received_at);
    }

    /// Takes the leader's word, or its silence.
    async fn answered(&mut self, answer: Result<Head, HeadFault>) {
        let now = Instant::now();
        let Some(durable) = &mut self.durable else { return };
        match answer {
            Ok(head) => {
                if !durable.answered {
                    info!("the stream's leader answers again");
                }
                durable.answered = true;
                durable.oldest = head.first;
                durable.head = head.last;
                if let Some(missed) = durable.continuity.head(&head, now) {
                    durable.held = Held::default();
                    self.missed(&missed);
                }
                self.taker.keeps_from(head.first);
            }
            Err(fault) => {
                if std::mem::replace(&mut durable.answered, false) {
                    warn!(?fault, "the stream's leader does not say where the stream stands");
                }
                durable.continuity.interrupted();
                self.next_check = now + CHECK_SOON;
                // Another server may be nearer to the leader; a frozen one never answers. What this costs is
                // only what was lost already.
                if matches!(fault, HeadFault::Unanswered(_)) && self.link.is_connected() {
                    let _ = self.link.client.force_reconnect().await;
                }
            }
        }
    }

    /// Tells all that a range is gone.
    fn missed(&mut self, missed: &Missed) {
        let Some(durable) = &mut self.durable else { return };
        let reason = match missed.cause {
            Cause::Evicted => GapReason::Evicted,
            Cause::EpochChanged => GapReason::EpochChanged,
            Cause::StreamShortened => GapReason::FutureSeq,
        };
        let label = match missed.cause {
            Cause::Evicted => "evicted",
            Cause::EpochChanged => "epoch_changed",
            Cause::StreamShortened => "future_seq",
        };
        warn!(
            stream = durable.continuity.epoch(),
            from_seq = missed.from,
            to_seq = missed.to,
            reason = label,
            "a range of the stream is gone: sessions are told"
        );
        let gap = Gap {
            stream: durable.continuity.epoch().to_owned(),
            from_seq: wire(missed.from),
            to_seq: wire(missed.to),
            reason,
        };
        let taker = &mut self.taker;
        match &mut durable.by_user {
            Some(by_user) => by_user.begin(missed.to, || taker.gap(gap, label)),
            None => taker.gap(gap, label),
        }
    }

    /// Tells the others how the feed stands, where that changed.
    fn tell(&mut self) {
        let connected = self.link.is_connected() && self.connects > 0;
        let verified = self
            .durable
            .as_ref()
            .is_none_or(|durable| durable.answered && durable.continuity.verified());
        let state = FeedState {
            connected,
            current: connected && verified,
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

impl Durable {
    /// What is to be read back now: after the one sequence, up to the other; not what is there already.
    fn wanted(&self, now: Instant) -> Option<(u64, u64)> {
        let late = || {
            let to = self.by_user.as_ref()?.overdue(now)?;
            Some((self.continuity.last(), to))
        };
        let (after, to) = self.continuity.wanted(now).or_else(late)?;
        let known_from = match &self.by_user {
            Some(by_user) => by_user.known_from().filter(|known| *known > after),
            None => self
                .held
                .messages
                .front()
                .and_then(Arrived::seq)
                .map(|held| held - 1),
        };
        Some((after, known_from.map_or(to, |known| to.min(known))))
    }
}

/// A moment that is not waited for: the ticks come before.
fn far() -> tokio::time::Instant {
    tokio::time::Instant::now() + CHECK_INTERVAL
}

/// A sequence as frames carry it. JetStream would have to store a million messages a second for 285 years to
/// pass the bound.
fn wire(seq: u64) -> SafeInteger {
    SafeInteger::new(seq).unwrap_or_default()
}

type Read = BoxFuture<'static, Result<Chunk, PastFault>>;

/// Begins to read back what lies after `after`.
fn read_back(durable: &Durable, after: u64, to: u64) -> Read {
    let past = durable.past.clone();
    let epoch = durable.continuity.epoch().to_owned();
    Box::pin(async move { past.read(&epoch, after, to).await })
}

type HeadCheck = BoxFuture<'static, Result<Head, HeadFault>>;

fn check_head(link: &Link, name: &str) -> HeadCheck {
    let (jetstream, name) = (link.jetstream.clone(), name.to_owned());
    Box::pin(async move {
        match timeout(CHECK_TIMEOUT, head(&jetstream, &name)).await {
            Ok(answer) => answer,
            Err(_) => Err(HeadFault::Unanswered("no answer in 2 s".to_owned())),
        }
    })
}

/// The first head, waited for.
async fn first_head(link: &Link, name: &str) -> Result<Head, BusError> {
    let mut silent = true;
    loop {
        match link.permitted(check_head(link, name)).await? {
            Ok(head) => return Ok(head),
            Err(fault) if std::mem::take(&mut silent) => {
                warn!(
                    ?fault,
                    "the stream's leader does not say where the stream stands: waiting for it"
                );
            }
            Err(_) => {}
        }
        tokio::time::sleep(CHECK_SOON).await;
    }
}

async fn subscribe(link: &Link, subject: &str) -> Result<async_nats::Subscriber, BusError> {
    link.client
        .subscribe(subject.to_owned())
        .await
        .map_err(|fault| BusError::Subscribe {
            subject: subject.to_owned(),
            fault: fault.to_string(),
        })
}

/// Reads a stream that doesn't republish, from a sequence on. The library makes the consumer anew where it was
/// lost or a message was, and goes on after the last one that it brought.
async fn consume(link: &Link, name: &str, from: u64) -> Result<BoxStream<'static, Came>, BusError> {
    let failed = |fault: String| BusError::Stream {
        name: name.to_owned(),
        fault: format!("no consumer can read it: {fault}"),
    };
    let config = OrderedConfig {
        // Named, so that it is made by a subject which permissions can tell from other streams' consumers.
        name: Some(format!("rivulet-{:016x}", rand::random::<u64>())),
        deliver_subject: link.client.new_inbox(),
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: from },
        description: Some("a rivulet node's feed".to_owned()),
        ..OrderedConfig::default()
    };
    let made = link.jetstream.create_consumer_on_stream(config, name.to_owned());
    let consumer = link
        .permitted(made)
        .await?
        .map_err(|fault| failed(fault.to_string()))?;
    let messages = consumer
        .messages()
        .await
        .map_err(|fault| failed(fault.to_string()))?;
    Ok(messages
        .filter_map(|message| async move {
            let message = message
                .inspect_err(|fault| warn!(%fault, "the stream's consumer is made anew"))
                .ok()?;
            let place = message.info().ok().and_then(|info| {
                let time = jiff::Timestamp::from_nanosecond(info.published.unix_timestamp_nanos()).ok()?;
                Some(Place::Stored {
                    seq: info.stream_sequence,
                    time: Timestamp::new(time),
                })
            });
            let message = message.message;
            Some(Came::Event(Arrived {
                subject: message.subject.into_string(),
                headers: Headers::Read(message.headers),
                payload: message.payload,
                place: place.unwrap_or(Place::Foreign),
            }))
        })
        .boxed())
}
