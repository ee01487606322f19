//! How a feed begins: it subscribes, and learns where the stream stands.

use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{DeliverPolicy, push::OrderedConfig};
use futures_util::{
    StreamExt,
    stream::{BoxStream, SelectAll},
};
use rivulet_protocol::{
    message::{Gap, GapReason},
    scalar::Timestamp,
    subject::EVERYONE_TOKEN,
};
use tracing::{info, warn};

use super::{
    Came, Feed, Messages, Taker,
    durable::{Durable, Held},
    head::{CHECK_INTERVAL, first_head, wire},
    judge::Suspects,
    removed::Removed,
};
use crate::bus::{
    BusError,
    arrived::{Arrived, Headers, Place},
    by_user::ByUser,
    connect::Link,
    continuity::{Continuity, Holes},
    decided::{Decisions, Verdict},
    index,
    past::Past,
    source::Sources,
    stream::{Head, Live, Stream, head},
};

/// The stream that a feed brings.
pub(in crate::bus) struct Durables {
    pub(in crate::bus) stream: Stream,
    pub(in crate::bus) past: Past,
    pub(in crate::bus) decisions: Option<Decisions>,
    /// Where it is brought by user.
    pub(in crate::bus) by_user: Option<ByUser>,
    /// How long it stays current without a leader, with nothing known to be missing.
    pub(in crate::bus) grace: Duration,
}

/// What a feed leaves to the one that goes on in its place.
pub(in crate::bus) struct Left {
    pub(in crate::bus) taker: Box<dyn Taker>,
    pub(in crate::bus) decisions: Option<Decisions>,
    pub(in crate::bus) by_user: Option<ByUser>,
    /// The epoch of the stream that it brought, and how far it was.
    pub(in crate::bus) at: (String, u64),
}

impl Feed {
    /// Subscribes, learns where the stream (of the configured `name`) stands, and opens the taker there.
    ///
    /// # Errors
    /// If NATS does not permit it. What may pass (no leader, a slow answer) is waited for.
    pub(in crate::bus) async fn open(
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
        Self::durable(link, taker, stream, connects, messages, None).await
    }

    /// Opens a feed in the place of one that ended as its stream was another, or gone. Sessions get a gap where it
    /// is another; where it is the same after all, what was missed is read back.
    ///
    /// # Errors
    /// As [`Feed::open`].
    pub(in crate::bus) async fn reopen(
        link: Link,
        sources: &Sources,
        (stream, past, grace): (Stream, Past, Duration),
        left: Left,
    ) -> Result<(Self, Messages), BusError> {
        let connects = link.connects();
        let mut messages = SelectAll::new();
        for subject in sources.subjects(false) {
            let live = subscribe(&link, subject).await?;
            messages.push(live.map(Arrived::core).map(Came::Event).boxed());
        }
        let Left {
            taker,
            decisions,
            mut by_user,
            at,
        } = left;
        if let Some(by_user) = &mut by_user {
            by_user.subscribe_again();
        }
        let stream = Durables {
            stream,
            past,
            decisions,
            by_user,
            grace,
        };
        Self::durable(link, taker, stream, connects, messages, Some(at)).await
    }

    /// What it leaves to the one that goes on in its place.
    pub(super) fn left(self) -> Option<Left> {
        let durable = self.durable?;
        Some(Left {
            taker: self.taker,
            decisions: durable.decisions,
            by_user: durable.by_user,
            at: (durable.continuity.epoch().to_owned(), durable.continuity.last()),
        })
    }

    /// A feed of the whole stream and nothing else.
    ///
    /// # Errors
    /// As [`Feed::open`].
    pub(in crate::bus) async fn whole(
        link: Link,
        taker: Box<dyn Taker>,
        stream: Stream,
        past: Past,
    ) -> Result<(Self, Messages), BusError> {
        let connects = link.connects();
        let stream = Durables {
            stream,
            past,
            decisions: None,
            by_user: None,
            grace: Duration::ZERO,
        };
        Self::durable(link, taker, stream, connects, SelectAll::new(), None).await
    }

    async fn durable(
        link: Link,
        mut taker: Box<dyn Taker>,
        stream: Durables,
        connects: u64,
        mut messages: Messages,
        before: Option<(String, u64)>,
    ) -> Result<(Self, Messages), BusError> {
        let Durables {
            stream,
            past,
            decisions,
            mut by_user,
            grace,
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
                let from = match &before {
                    Some((epoch, last)) if *epoch == at.epoch => *last,
                    _ => at.last,
                };
                messages.push(consume(&link, &stream.name, from + 1).await?);
                Holes::Deleted
            }
        };
        let mut continuity = Continuity::begin(&at, holes);
        let mut begin = |tell: &mut dyn FnMut(&mut dyn Taker)| match &mut by_user {
            Some(by_user) => by_user.begin(at.last, || tell(&mut *taker)),
            None => tell(&mut *taker),
        };
        match before {
            None => begin(&mut |taker| taker.open(&at.epoch, at.last, stream.exact)),
            Some((epoch, last)) if epoch == at.epoch => {
                let stood = Head { last, ..at.clone() };
                continuity = Continuity::begin(&stood, holes);
                continuity.interrupted();
                continuity.head(&at, Instant::now());
            }
            Some((_, last)) => {
                warn!(stream = %at.epoch, from_seq = last, to_seq = at.last, "the stream is another: sessions get a gap");
                let gap = Gap {
                    stream: at.epoch.clone(),
                    from_seq: wire(last),
                    to_seq: wire(at.last),
                    reason: GapReason::EpochChanged,
                };
                begin(&mut |taker| taker.gap(gap.clone(), "epoch_changed"));
            }
        }
        taker.keeps_from(at.first);
        info!(stream = %at.epoch, seq = at.last, "the feed is open");
        let durable = Durable {
            continuity,
            stream,
            past,
            decisions,
            by_user,
            held: Held::default(),
            suspects: Suspects::default(),
            next_read: Instant::now(),
            oldest: at.first,
            head: at.last,
            silent: None,
            grace,
            removed: Removed::default(),
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
            forged_said: None,
            moves_since: None,
            over: false,
        };
        feed.tell();
        feed
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
                verdict: Verdict::Open,
            }))
        })
        .boxed())
}
