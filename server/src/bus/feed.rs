//! The feed: one task that brings every event, in the stream's order, to the sink.
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
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use async_nats::jetstream::consumer::{DeliverPolicy, push::OrderedConfig};
use futures_util::{
    StreamExt,
    future::{BoxFuture, OptionFuture},
    stream::{BoxStream, SelectAll},
};
use rivulet_protocol::{
    message::{Gap, GapReason},
    scalar::{SafeInteger, Timestamp},
};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::{debug, error, info, warn};

use super::{
    BusError, FeedState, Sink, StreamState,
    arrived::{Arrived, Headers, Place},
    connect::Link,
    continuity::{Arrival, Cause, Continuity, Holes, Missed},
    past::{Chunk, Past, PastFault},
    rejected::Outlet,
    source::{Check, Reading, Rejection, Sources},
    stream::{Head, HeadFault, Live, Stream, head},
};
use crate::metrics::Metrics;

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

/// What the feed is made of.
pub(super) struct Feed {
    link: Link,
    sources: Arc<Sources>,
    check: Arc<Check>,
    sink: Arc<dyn Sink>,
    metrics: Arc<Metrics>,
    outlet: Outlet,
    state: watch::Sender<FeedState>,
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
pub(super) type Messages = SelectAll<BoxStream<'static, Arrived>>;

/// What a feed is made from.
pub(super) struct Parts {
    pub(super) link: Link,
    pub(super) sources: Arc<Sources>,
    pub(super) check: Arc<Check>,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) outlet: Outlet,
    pub(super) state: watch::Sender<FeedState>,
}

impl Feed {
    /// Subscribes, learns where the stream (of the configured `name`) stands, and opens the sink there.
    ///
    /// # Errors
    /// If NATS does not permit it. What may pass (no leader, a slow answer) is waited for.
    pub(super) async fn open(
        parts: Parts,
        name: &str,
        stream: Option<(Stream, Past)>,
    ) -> Result<(Self, Messages), BusError> {
        let Parts {
            link,
            sources,
            check,
            sink,
            metrics,
            outlet,
            state,
        } = parts;
        let connects = link.connects();
        let mut messages = SelectAll::new();
        // With no stream, what should be durable comes by core NATS too.
        let core = match stream {
            Some(_) => sources.subjects(false),
            None => [sources.subjects(true), sources.subjects(false)].concat(),
        };
        for subject in core {
            messages.push(subscribe(&link, subject).await?.map(Arrived::core).boxed());
        }
        let durable = match stream {
            Some((stream, past)) => {
                if let Live::Republished { subject } = &stream.live {
                    let name = stream.name.clone();
                    let live = subscribe(&link, subject).await?;
                    messages.push(live.map(move |message| Arrived::stored(&name, message)).boxed());
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
                sink.open(&at.epoch, at.last, stream.exact);
                sink.keeps_from(at.first);
                info!(stream = %at.epoch, seq = at.last, "the feed is open");
                Some(Durable {
                    continuity: Continuity::begin(&at, holes),
                    stream,
                    past,
                    held: Held::default(),
                    next_read: Instant::now(),
                    oldest: at.first,
                    head: at.last,
                    answered: true,
                })
            }
            None => {
                // The server answers in order, so whatever it refuses of the subscriptions stands before this
                // answer, which is "nobody" or "no such stream".
                let _ = link.permitted(head(&link.jetstream, name)).await?;
                info!("the feed is open, without a stream");
                None
            }
        };
        let feed = Self {
            link,
            sources,
            check,
            sink,
            metrics,
            outlet,
            state,
            durable,
            connects,
            next_check: Instant::now() + CHECK_INTERVAL,
        };
        feed.tell();
        Ok((feed, messages))
    }

    /// Runs until the connection is closed for good or the future is dropped.
    pub(super) async fn run(mut self, messages: Messages) {
        let mut messages = messages.ready_chunks(CHUNK);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut check: Option<HeadCheck> = None;
        let mut read: Option<Read> = None;
        let signals = Arc::clone(&self.link.signals);
        loop {
            tokio::select! {
                chunk = messages.next() => {
                    let Some(chunk) = chunk else { break };
                    for arrived in chunk {
                        self.take(arrived);
                    }
                }
                () = signals.changed.notified() => {}
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
                if read.is_none() && now >= durable.next_read {
                    let held = durable.held.messages.front().and_then(Arrived::seq);
                    read = durable.continuity.wanted(now).map(|(after, to)| {
                        let to = held.map_or(to, |held| to.min(held - 1));
                        read_back(durable, after, to)
                    });
                }
            }
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

    /// Takes a live message: to the sink, or aside until its turn.
    fn take(&mut self, arrived: Arrived) {
        let now = Instant::now();
        let Some(seq) = arrived.seq() else {
            return self.dispatch(&arrived, now);
        };
        let Some(durable) = &mut self.durable else { return };
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
            if seq > durable.continuity.last() {
                durable.continuity.reached(seq, now);
                self.dispatch(message, now);
                self.metrics.nats.repaired.inc();
            }
        }
        for (after, to) in lost {
            self.lost(after, to, now);
        }
        if let Some(durable) = &mut self.durable {
            if chunk.up_to > durable.continuity.last() {
                durable.continuity.reached(chunk.up_to, now);
                self.sink.advance(chunk.up_to);
            }
            info!(
                from_seq = from,
                to_seq = durable.continuity.last(),
                "read back what was missed"
            );
        }
        self.take_held(now);
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

    /// Hands a message's event to the sink, or says why not.
    fn dispatch(&mut self, arrived: &Arrived, received_at: Instant) {
        let seq = arrived.seq();
        match arrived.read(&self.sources, &*self.check) {
            Ok(Reading::Event(content)) => {
                if let Some(warning) = &content.warning {
                    self.metrics.events.warned.inc();
                    debug!(subject = arrived.subject, rule = %warning.rule, "passed an event: {}", warning.message);
                }
                let event = arrived.event(content, received_at);
                let copies = self.sink.dispatch(&event);
                let counted = self.metrics.events.of(event.event_type.as_str());
                counted.routed.inc();
                counted.delivered.inc_by(copies as u64);
                self.metrics
                    .events
                    .routing
                    .observe(received_at.elapsed().as_secs_f64());
            }
            Ok(Reading::NoAudience) => {
                self.metrics.events.without_audience.inc();
                if let Some(seq) = seq {
                    self.sink.advance(seq);
                }
            }
            Err(rejection) => {
                self.reject(arrived, seq, &rejection);
                if let Some(seq) = seq {
                    self.sink.advance(seq);
                }
            }
        }
    }

    fn reject(&mut self, arrived: &Arrived, seq: Option<u64>, rejection: &Rejection) {
        self.metrics.events.rejected.of(rejection.rule.label()).inc();
        let epoch = self.durable.as_ref().map(|durable| durable.continuity.epoch());
        self.outlet
            .put(&arrived.subject, &arrived.payload, epoch.zip(seq), rejection);
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
                self.sink.keeps_from(head.first);
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
        let Some(durable) = &self.durable else { return };
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
        self.metrics.nats.gaps.of(label).inc();
        self.sink.gap(Gap {
            stream: durable.continuity.epoch().to_owned(),
            from_seq: wire(missed.from),
            to_seq: wire(missed.to),
            reason,
        });
    }

    /// Tells the others how the feed stands, where that changed.
    fn tell(&self) {
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
        let nats = &self.metrics.nats;
        nats.connected.set(i64::from(state.connected));
        nats.current.set(i64::from(state.current));
        if let Some(durable) = &self.durable {
            nats.dispatched_seq.set(durable.continuity.last() as i64);
            nats.head_seq
                .set(durable.head.max(durable.continuity.last()) as i64);
        }
        self.state.send_if_modified(|told| {
            let changed = *told != state;
            if changed {
                *told = state;
            }
            changed
        });
    }
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
async fn consume(link: &Link, name: &str, from: u64) -> Result<BoxStream<'static, Arrived>, BusError> {
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
            Some(Arrived {
                subject: message.subject.into_string(),
                headers: Headers::Read(message.headers),
                payload: message.payload,
                place: place.unwrap_or(Place::Foreign),
            })
        })
        .boxed())
}
