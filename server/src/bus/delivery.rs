//! What a feed brings, for sessions: read, counted, handed to the sink.

use std::{sync::Arc, time::Instant};

use rivulet_protocol::message::{Gap, GapReason};
use tokio::sync::watch;
use tracing::debug;

use super::{
    FeedState, Sink,
    arrived::Arrived,
    decided::{Notes, Verdict},
    feed::Taker,
    rejected::Outlet,
    segments::Segments,
    source::{Check, Sources},
};
use crate::{event::Event, history::Forget, metrics::Metrics};

/// The way from the feed to the sink.
pub(super) struct Delivery {
    pub(super) sources: Arc<Sources>,
    pub(super) check: Arc<Check>,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) outlet: Outlet,
    pub(super) state: watch::Sender<FeedState>,
    /// Where there is a stream.
    pub(super) segments: Option<Segments>,
    /// Where what is decided of stored events can be recorded.
    pub(super) notes: Option<Notes>,
}

impl Delivery {
    fn begin(&mut self, epoch: &str) {
        if let Some(notes) = &mut self.notes {
            notes.begin(epoch);
        }
    }

    /// The event that a message is, if it is one for anybody.
    fn event(&self, arrived: &Arrived) -> Option<Event> {
        let content = arrived.read(&self.sources, &*self.check).ok()?;
        Some(arrived.event(content, Instant::now()))
    }
}

impl Drop for Delivery {
    /// Nothing vouches for the feed any more.
    fn drop(&mut self) {
        self.metrics.nats.connected.set(0);
        self.metrics.nats.current.set(0);
    }
}

impl Taker for Delivery {
    fn open(&mut self, epoch: &str, head: u64, exact: bool) {
        self.begin(epoch);
        self.sink.open(epoch, head, exact);
    }

    /// Hands a message's event to the sink, or says why not.
    fn take(&mut self, arrived: &Arrived, epoch: Option<&str>, received_at: Instant) {
        let seq = arrived.seq();
        let reading = match arrived.verdict {
            Verdict::Open => arrived.read(&self.sources, &*self.check),
            // Judged before, perhaps by another schema.
            Verdict::Accepted => arrived.read_accepted(&self.sources),
            Verdict::Rejected => {
                if let Some(seq) = seq {
                    self.sink.advance(seq);
                }
                return;
            }
        };
        if let (Some(notes), Some(seq), Verdict::Open) = (&mut self.notes, seq, arrived.verdict) {
            notes.note(seq, reading.is_ok());
        }
        match reading {
            Ok(content) => {
                if let Some(warning) = &content.warning {
                    self.metrics.events.warned.inc();
                    debug!(
                        subject = arrived.subject, rule = %warning.rule, traceparent = arrived.traceparent(),
                        "passed an event: {}", warning.message
                    );
                }
                let event = arrived.event(content, received_at);
                let copies = self.sink.dispatch(&event);
                self.metrics.events.size.observe(event.data.len() as f64);
                let counted = self.metrics.events.of(event.event_type.as_str());
                counted.routed.inc();
                counted.delivered.inc_by(copies as u64);
                self.metrics
                    .events
                    .routing
                    .observe(received_at.elapsed().as_secs_f64());
            }
            Err(rejection) => {
                self.metrics.events.rejected.of(rejection.rule.label()).inc();
                self.outlet.put(arrived, epoch.zip(seq), &rejection);
                if let Some(seq) = seq {
                    self.sink.advance(seq);
                }
            }
        }
    }

    fn passed(&mut self, seq: u64) {
        self.sink.advance(seq);
    }

    fn keeps_from(&mut self, seq: u64) {
        self.sink.keeps_from(seq);
    }

    fn removed(&mut self, removed: Option<&Arc<[u64]>>) {
        if let Some(segments) = &self.segments {
            segments.forget(removed);
        }
        self.sink.forget(match removed {
            Some(removed) => Forget::These(removed),
            None => Forget::UpTo(u64::MAX),
        });
    }

    fn gap(&mut self, gap: Gap, label: &'static str) {
        self.metrics.nats.gaps.of(label).inc();
        self.begin(&gap.stream);
        if let (Some(notes), GapReason::FutureSeq) = (&mut self.notes, &gap.reason) {
            notes.withdraw(gap.to_seq.get(), gap.from_seq.get());
        }
        if let (Some(segments), true) = (&self.segments, gap.reason != GapReason::Evicted) {
            // They are of sequences that the stream gives again.
            segments.forget(None);
        }
        self.sink.gap(gap);
    }

    fn repaired(&mut self) {
        self.metrics.nats.repaired.inc();
    }

    fn due(&self) -> Option<Instant> {
        self.notes.as_ref()?.due()
    }

    fn flush(&mut self, now: Instant) {
        if let Some(notes) = &mut self.notes {
            notes.flush(now);
        }
    }

    fn forged(&mut self, messages: u64) {
        self.metrics.nats.forged.inc_by(messages);
    }

    fn agrees(&self, arrived: &Arrived, seq: u64) -> bool {
        self.sink.agrees(seq, self.event(arrived).as_ref())
    }

    fn replace(&mut self, stored: Option<&Arrived>, seq: u64) -> bool {
        let event = stored.and_then(|stored| self.event(stored));
        if let Some(notes) = &mut self.notes {
            notes.overrule(seq, event.is_some());
        }
        let agrees = self.sink.agrees(seq, event.as_ref());
        if !agrees {
            self.metrics.nats.gaps.of("replaced").inc();
            self.sink.replace(seq, event.as_ref());
        }
        !agrees
    }

    /// Tells the others how the feed stands, where that changed.
    fn tell(&mut self, state: FeedState, dispatched: Option<u64>) {
        let nats = &self.metrics.nats;
        nats.connected.set(i64::from(state.connected));
        nats.current.set(i64::from(state.current));
        if let (Some(dispatched), Some(stream)) = (dispatched, &state.stream) {
            nats.dispatched_seq.set(dispatched as i64);
            nats.head_seq.set(stream.head_seq.max(dispatched) as i64);
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
