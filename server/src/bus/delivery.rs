//! What a feed brings, for sessions: read, counted, handed to the sink.

use std::{sync::Arc, time::Instant};

use rivulet_protocol::message::Gap;
use tokio::sync::watch;
use tracing::debug;

use super::{
    FeedState, Sink,
    arrived::Arrived,
    feed::Taker,
    rejected::Outlet,
    source::{Check, Reading, Sources},
};
use crate::metrics::Metrics;

/// The way from the feed to the sink.
pub(super) struct Delivery {
    pub(super) sources: Arc<Sources>,
    pub(super) check: Arc<Check>,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) outlet: Outlet,
    pub(super) state: watch::Sender<FeedState>,
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
        self.sink.open(epoch, head, exact);
    }

    /// Hands a message's event to the sink, or says why not.
    fn take(&mut self, arrived: &Arrived, epoch: Option<&str>, received_at: Instant) {
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
                self.metrics.events.rejected.of(rejection.rule.label()).inc();
                self.outlet
                    .put(&arrived.subject, &arrived.payload, epoch.zip(seq), &rejection);
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

    fn gap(&mut self, gap: Gap, label: &'static str) {
        self.metrics.nats.gaps.of(label).inc();
        self.sink.gap(gap);
    }

    fn repaired(&mut self) {
        self.metrics.nats.repaired.inc();
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
