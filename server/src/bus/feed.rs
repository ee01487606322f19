//! The feed: one task that brings every event, in the stream's order, to the sink.
//!
//! What wakes it: a message; something heard of the connection; the leader's answer to a head check; its own
//! ticks. It never waits for anything else, so that the client library's buffer is empty whenever possible.
//!
//! A head check asks the stream's leader, on the feed's own connection, where the stream stands: every 2 s and
//! after whatever may have cost messages. The feed is current once it has dispatched everything up to a head
//! that was asked for after the last interruption. What it finds missing it declares as a gap; reading it back
//! instead is repair, which is to take the place of [`Feed::missed`].

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use async_nats::{
    HeaderMap, Message,
    header::{NATS_SEQUENCE, NATS_STREAM, NATS_SUBJECT, NATS_TIME_STAMP},
    jetstream::consumer::{DeliverPolicy, push::OrderedConfig},
};
use bytes::Bytes;
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
    connect::Link,
    continuity::{Arrival, Cause, Continuity, Holes, Missed},
    rejected::Outlet,
    source::{Check, Reading, Rejection, Rule, Sources},
    stream::{Head, HeadFault, Live, Stream, head},
};
use crate::{event::Event, metrics::Metrics};

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

/// What the feed is made of.
pub(super) struct Feed {
    link: Link,
    sources: Sources,
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
    continuity: Continuity,
    oldest: u64,
    head: u64,
    /// Whether the last head check was answered.
    answered: bool,
}

/// A message and what its way says of it.
pub(super) struct Arrived {
    subject: String,
    headers: Option<HeaderMap>,
    payload: Bytes,
    place: Place,
}

/// Where a message comes from.
enum Place {
    /// A core subscription.
    Core,
    /// The stream, as the server wrote it.
    Stored { seq: u64, time: Timestamp },
    /// The subject on which the stream republishes, but not from the stream.
    Foreign,
}

/// The messages of all subscriptions.
pub(super) type Messages = SelectAll<BoxStream<'static, Arrived>>;

/// What a feed is made from.
pub(super) struct Parts {
    pub(super) link: Link,
    pub(super) sources: Sources,
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
        stream: Option<Stream>,
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
            messages.push(subscribe(&link, subject).await?.map(core_message).boxed());
        }
        let durable = match stream {
            Some(stream) => {
                if let Live::Republished { subject } = &stream.live {
                    let name = stream.name.clone();
                    let live = subscribe(&link, subject).await?;
                    messages.push(live.map(move |message| republished(&name, message)).boxed());
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
                sink.open(&at.epoch, at.last);
                info!(stream = %at.epoch, seq = at.last, "the feed is open");
                Some(Durable {
                    continuity: Continuity::begin(&at, holes),
                    stream,
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
                _ = ticks.tick() => {}
            }
            if self.interruption() {
                // Its request may be among what was lost.
                check = None;
            }
            let now = Instant::now();
            let missed = self
                .durable
                .as_mut()
                .and_then(|durable| durable.continuity.tick(now));
            if let Some(missed) = missed {
                self.missed(missed);
            }
            if let Some(durable) = &self.durable
                && check.is_none()
                && now >= self.next_check
                && self.link.is_connected()
            {
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

    /// Takes a message to the sink, or says why not.
    fn take(&mut self, arrived: Arrived) {
        let received_at = Instant::now();
        let (seq, time) = match arrived.place {
            Place::Core => (None, Timestamp::new(jiff::Timestamp::now())),
            Place::Stored { seq, time } => {
                let Some(durable) = &mut self.durable else { return };
                match durable.continuity.message(seq, received_at) {
                    Arrival::Next => {}
                    Arrival::After(missed) => self.missed(missed),
                    Arrival::Past => {
                        // Late, or of a stream made anew: the head's epoch says which.
                        self.next_check = self.next_check.min(received_at + CHECK_SOON);
                        return;
                    }
                }
                (Some(seq), time)
            }
            Place::Foreign => {
                let rejection = Rejection::new(
                    Rule::Source,
                    "",
                    "somebody else than the stream publishes where only the stream should",
                );
                self.reject(&arrived, None, &rejection);
                return;
            }
        };
        let reading = self.sources.read(
            &arrived.subject,
            arrived.headers.as_ref(),
            &arrived.payload,
            &*self.check,
        );
        match reading {
            Ok(Reading::Event(content)) => {
                if let Some(warning) = &content.warning {
                    self.metrics.events.warned.inc();
                    debug!(subject = arrived.subject, rule = %warning.rule, "passed an event: {}", warning.message);
                }
                let event = Event {
                    event_type: content.event_type,
                    audience: content.audience,
                    data: content.data,
                    seq,
                    time,
                    as_error: content.as_error,
                    trace_id: content.trace_id,
                    received_at,
                };
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
                self.reject(&arrived, seq, &rejection);
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
                    self.missed(missed);
                }
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

    /// Declares a range missing.
    fn missed(&mut self, missed: Missed) {
        let Some(durable) = &self.durable else { return };
        let reason = match missed.cause {
            Cause::Interrupted => GapReason::Interrupted,
            Cause::Evicted => GapReason::Evicted,
            Cause::EpochChanged => GapReason::EpochChanged,
            Cause::StreamShortened => GapReason::FutureSeq,
        };
        let label = match missed.cause {
            Cause::Interrupted => "interrupted",
            Cause::Evicted => "evicted",
            Cause::EpochChanged => "epoch_changed",
            Cause::StreamShortened => "future_seq",
        };
        warn!(
            stream = durable.continuity.epoch(),
            from_seq = missed.from,
            to_seq = missed.to,
            reason = label,
            "a range of the stream is missing: sessions are told"
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
                headers: message.headers,
                payload: message.payload,
                place: place.unwrap_or(Place::Foreign),
            })
        })
        .boxed())
}

fn core_message(message: Message) -> Arrived {
    Arrived {
        subject: message.subject.into_string(),
        headers: message.headers,
        payload: message.payload,
        place: Place::Core,
    }
}

/// Reads what the server appended to a republished message. Of each of its headers only the last value is the
/// server's: a publisher may have put others before it.
fn republished(stream: &str, message: Message) -> Arrived {
    let stored = message.headers.as_ref().and_then(|headers| {
        let last = |name| headers.get_last(name).map(async_nats::HeaderValue::as_str);
        if last(NATS_STREAM)? != stream {
            return None;
        }
        let place = Place::Stored {
            seq: last(NATS_SEQUENCE)?.parse().ok()?,
            time: Timestamp::parse(last(NATS_TIME_STAMP)?)?,
        };
        Some((last(NATS_SUBJECT)?.to_owned(), place))
    });
    let (subject, place) = stored.unwrap_or_else(|| (message.subject.to_string(), Place::Foreign));
    Arrived {
        subject,
        headers: message.headers,
        payload: message.payload,
        place,
    }
}
