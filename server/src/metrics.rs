//! Every metric and every label, as typed fields.
//!
//! Labels are bounded: an event type that the catalogue does not know is `other`, and nothing is ever labelled
//! with a user, a subject or an address. What happens once per delivery is counted once per event or per batch.

mod histogram;

use std::{borrow::Cow, collections::HashMap, time::Instant};

use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Metric, Registry},
};

pub use self::histogram::{Gathered, Histogram};

/// The label of an event type that the catalogue does not know.
const OTHER: &str = "other";

/// The router's metrics, all under the prefix `rivulet_`.
#[derive(Debug)]
pub struct Metrics {
    /// Sockets and what became of them.
    pub connections: Connections,
    /// Tokens and what was known of them.
    pub tokens: Tokens,
    /// What came from NATS and where it went.
    pub events: Events,
    /// What clients said and were told.
    pub messages: Messages,
    /// What waits for sessions.
    pub outbox: Outbox,
    /// Commands and their outcomes.
    pub commands: Commands,
    /// The way to NATS.
    pub nats: Nats,
    /// The past that sessions resume from.
    pub history: History,
    /// Tasks alive now.
    pub tasks: Gauge,
    registry: Registry,
    reference: Vec<Described>,
}

/// Sockets and what became of them.
#[derive(Debug)]
pub struct Connections {
    /// Sessions now.
    pub open: Gauge,
    /// Users with at least one session now.
    pub users: Gauge,
    /// Sockets whose handshake is under way.
    pub pending: Gauge,
    /// Sessions that began.
    pub opened: Counter,
    /// Sessions that ended, by close code.
    pub closed: Labelled,
    /// Handshakes that were refused, by close code, whichever way the client was told.
    pub refused: Labelled,
    /// Sockets that the edge dropped before a request came of them, by reason.
    pub dropped: Labelled,
    /// Addresses known to the limits now.
    pub addresses: Gauge,
    /// Users whose seats are counted now.
    pub seated: Gauge,
    /// Sessions that yielded their seat to one of another node, or were one too many over all nodes.
    pub yielded: Counter,
    /// Sessions that began while other nodes could not be asked about their user's seats.
    pub unasked: Counter,
    /// How long sessions lasted.
    pub duration: Histogram,
}

/// Tokens and what was known of them.
#[derive(Debug)]
pub struct Tokens {
    /// Tokens that were verified before and still counted.
    pub hits: Counter,
    /// Tokens that were not known: they were verified, or refused.
    pub misses: Counter,
    /// Verified tokens that are kept now.
    pub known: Gauge,
}

/// What came from NATS and where it went.
#[derive(Debug)]
pub struct Events {
    types: HashMap<Box<str>, EventType>,
    other: EventType,
    /// Events that were rejected, by rule.
    pub rejected: Labelled,
    /// Events that are not of their schema and passed all the same.
    pub warned: Counter,
    /// From NATS to all outboxes, for one event.
    pub routing: Histogram,
    /// From NATS to the socket, for the oldest event of one write.
    pub delivery: Histogram,
    /// The size of an event's data.
    pub size: Histogram,
}

/// What happened to the events of one type.
#[derive(Clone, Debug)]
pub struct EventType {
    /// Events that came and had an audience.
    pub routed: Counter,
    /// Copies put into outboxes.
    pub delivered: Counter,
}

/// What clients said and were told.
#[derive(Debug)]
pub struct Messages {
    /// Messages from clients, by type.
    pub received: Labelled,
    /// Frames of the router's own, by type.
    pub sent: Labelled,
    /// Bytes read from sockets.
    pub bytes_received: Counter,
    /// Bytes written to sockets.
    pub bytes_sent: Counter,
    /// Frames in one write.
    pub frames_per_write: Histogram,
    /// `error` frames, by code.
    pub errors: Labelled,
    /// Messages over a rate, by type.
    pub rate_limited: Labelled,
    /// Bytes before compression, of messages that were compressed.
    pub compression_in: Counter,
    /// Bytes after it.
    pub compression_out: Counter,
    /// Patterns in force now, by family; the wildcards are `*`.
    pub subscriptions: LabelledGauge,
}

/// What was written to sockets in one go: gathered by one task, and added to what all have written when it is
/// dropped, so that a delivery touches nothing that is shared.
#[derive(Debug)]
pub struct Sent<'a> {
    metrics: &'a Metrics,
    /// Bytes handed to sockets.
    pub bytes: u64,
    /// Bytes before compression, of messages that were compressed.
    pub compression_in: u64,
    /// Bytes after it.
    pub compression_out: u64,
    frames_per_write: Gathered<'a>,
    delivery: Gathered<'a>,
}

impl Sent<'_> {
    /// Counts a write of so many messages, the oldest live event among which came from NATS at `oldest`.
    pub fn batch(&mut self, messages: usize, oldest: Option<Instant>, now: Instant) {
        self.frames_per_write.observe(messages as f64);
        if let Some(oldest) = oldest {
            let waited = now.saturating_duration_since(oldest);
            self.delivery.observe(waited.as_secs_f64());
        }
    }
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        let messages = &self.metrics.messages;
        for (counter, add) in [
            (&messages.bytes_sent, self.bytes),
            (&messages.compression_in, self.compression_in),
            (&messages.compression_out, self.compression_out),
        ] {
            if add > 0 {
                counter.inc_by(add);
            }
        }
    }
}

/// What waits for sessions.
#[derive(Debug)]
pub struct Outbox {
    /// Messages that wait now, over all sessions.
    pub depth: Gauge,
    /// Bytes that wait now, over all sessions.
    pub bytes: Gauge,
    /// Sessions closed because their outbox was full.
    pub overflows: Counter,
}

/// Commands and their outcomes.
#[derive(Debug)]
pub struct Commands {
    /// Commands that ended, by outcome: `reply`, `refused`, or an error code.
    pub ended: Labelled,
    /// Commands in flight now.
    pub in_flight: Gauge,
    /// From the client's message to its answer.
    pub duration: Histogram,
}

/// The way to NATS.
#[derive(Debug)]
pub struct Nats {
    /// 1 while connected.
    pub connected: Gauge,
    /// 1 while the feed is known to be complete.
    pub current: Gauge,
    /// Connections lost.
    pub disconnects: Counter,
    /// Times the client library dropped messages because we were slow.
    pub slow_consumer: Counter,
    /// Events read back from the stream because they did not come by themselves.
    pub repaired: Counter,
    /// Messages that came as the stream's and were not.
    pub forged: Counter,
    /// With a feed by user: users whose events come.
    pub feed_users: Gauge,
    /// Those of them who have no session.
    pub feed_lingering: Gauge,
    /// 1 while this node indexes the stream for all.
    pub feed_indexing: Gauge,
    /// Sequences of which the index told whose they are.
    pub feed_indexed: Counter,
    /// Ranges of the stream that sessions were told are gone, by reason.
    pub gaps: Labelled,
    /// The last sequence dispatched.
    pub dispatched_seq: Gauge,
    /// The stream's head as last heard.
    pub head_seq: Gauge,
    /// 1 while JetStream stores what is written, as far as is known.
    pub writable: Gauge,
}

/// The past that sessions resume from.
#[derive(Debug)]
pub struct History {
    /// Events of the past in memory now.
    pub events: Gauge,
    /// About how many bytes they take.
    pub bytes: Gauge,
    /// How many sequences of the stream they reach back.
    pub sequences: Gauge,
    /// Positions that clients asked to resume from, by where the past was found: `memory`, `stream`, or `gone`.
    pub resumes: Labelled,
    /// Sessions that are replaying now.
    pub replaying: Gauge,
    /// Segments of the stream read back for them.
    pub segments: Counter,
}

/// One of what a gauge counts, for as long as this lives: it is counted down however its holder ends.
#[derive(Debug)]
pub struct Held(Gauge);

impl Held {
    /// Counts one more.
    pub fn of(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A counter for each value of one label.
#[derive(Clone, Debug)]
pub struct Labelled {
    label: &'static str,
    family: Family<LabelSet, Counter>,
}

/// A gauge for each value of one label.
#[derive(Clone, Debug)]
pub struct LabelledGauge {
    label: &'static str,
    family: Family<LabelSet, Gauge>,
}

type LabelSet = [(&'static str, Cow<'static, str>); 1];

impl Labelled {
    /// The counter of this value. Values come from closed lists: never from a user, a subject or an address.
    pub fn of(&self, value: impl Into<Cow<'static, str>>) -> Counter {
        self.family.get_or_create_owned(&[(self.label, value.into())])
    }
}

impl LabelledGauge {
    /// The gauge of this value, under the same rule.
    pub fn of(&self, value: impl Into<Cow<'static, str>>) -> Gauge {
        self.family.get_or_create_owned(&[(self.label, value.into())])
    }
}

/// A line of the reference page.
#[derive(Debug)]
struct Described {
    name: String,
    kind: &'static str,
    label: Option<&'static str>,
    help: &'static str,
}

impl Metrics {
    /// Begins to count what is written.
    pub fn sent(&self) -> Sent<'_> {
        Sent {
            metrics: self,
            bytes: 0,
            compression_in: 0,
            compression_out: 0,
            frames_per_write: self.messages.frames_per_write.gather(),
            delivery: self.events.delivery.gather(),
        }
    }

    /// Fresh metrics, with a label value for each event type of the catalogue.
    pub fn new<'a>(event_types: impl IntoIterator<Item = &'a str>) -> Self {
        let mut build = Builder {
            registry: Registry::with_prefix("rivulet"),
            reference: Vec::new(),
        };

        let connections = Connections {
            open: build.gauge("connections", "Sessions now"),
            users: build.gauge("users", "Users with at least one session now"),
            pending: build.gauge("pending_handshakes", "Sockets whose handshake is under way"),
            opened: build.counter("connections_opened", "Sessions that began"),
            closed: build.labelled("connections_closed", "code", "Sessions that ended, by close code"),
            refused: build.labelled("handshakes_refused", "code", "Handshakes refused, by close code"),
            dropped: build.labelled(
                "sockets_dropped",
                "reason",
                "Sockets dropped before a request came of them",
            ),
            addresses: build.gauge("limits_addresses", "Addresses known to the limits now"),
            seated: build.gauge("limits_users", "Users whose seats are counted now"),
            yielded: build.counter(
                "seats_yielded",
                "Sessions that yielded to one of another node, or were one too many over all nodes",
            ),
            unasked: build.counter(
                "seats_unasked",
                "Sessions that began while other nodes could not be asked about their user's seats",
            ),
            duration: build.histogram(
                "connection_duration_seconds",
                "How long sessions lasted",
                [1.0, 10.0, 60.0, 300.0, 1_800.0, 3_600.0, 21_600.0, 86_400.0],
            ),
        };

        let tokens = Tokens {
            hits: build.counter(
                "token_cache_hits",
                "Tokens that had been verified before and still counted",
            ),
            misses: build.counter(
                "token_cache_misses",
                "Tokens that were not known: verified then, or refused",
            ),
            known: build.gauge("token_cache_entries", "Verified tokens that are kept now"),
        };

        let routed = build.labelled(
            "events_routed",
            "type",
            "Events that came and had an audience, by type",
        );
        let delivered = build.labelled(
            "events_delivered",
            "type",
            "Copies of events put into outboxes, by type",
        );
        let of_type = |name: &str| EventType {
            routed: routed.of(name.to_owned()),
            delivered: delivered.of(name.to_owned()),
        };
        const LATENCIES: [f64; 14] = [
            10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 50e-3, 0.1, 0.5, 1.0,
        ];
        const DELIVERIES: [f64; 18] = [
            10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 50e-3, 0.1, 0.5, 1.0,
            2.5, 10.0, 30.0, 60.0,
        ];
        let events = Events {
            types: event_types
                .into_iter()
                .map(|name| (name.into(), of_type(name)))
                .collect(),
            other: of_type(OTHER),
            rejected: build.labelled("events_rejected", "rule", "Events rejected at the edge, by rule"),
            warned: build.counter(
                "events_warned",
                "Events not of their schema that passed, as their source says",
            ),
            routing: build.histogram(
                "event_routing_seconds",
                "From NATS to all outboxes, for one event",
                LATENCIES,
            ),
            delivery: build.histogram(
                "event_delivery_seconds",
                "From when the stream stored it (without a stream, from NATS) to the socket, for the oldest event of one write; the clocks of NATS and the node are in it",
                DELIVERIES,
            ),
            size: build.histogram(
                "event_bytes",
                "The size of an event's data, in bytes",
                [
                    128.0, 256.0, 512.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0,
                ],
            ),
        };

        let messages = Messages {
            received: build.labelled("messages_received", "type", "Messages from clients, by type"),
            sent: build.labelled("messages_sent", "type", "Frames of the router's own, by type"),
            bytes_received: build.counter("received_bytes", "Bytes read from sockets"),
            bytes_sent: build.counter("sent_bytes", "Bytes written to sockets"),
            frames_per_write: build.histogram(
                "frames_per_write",
                "Frames in one write",
                [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0],
            ),
            errors: build.labelled("errors", "code", "Error frames, by code"),
            rate_limited: build.labelled("rate_limited", "type", "Messages over a rate, by type"),
            compression_in: build.counter("compression_in_bytes", "Bytes before compression"),
            compression_out: build.counter("compression_out_bytes", "Bytes after compression"),
            subscriptions: build.labelled_gauge(
                "subscriptions",
                "family",
                "Patterns in force now, by family",
            ),
        };

        let outbox = Outbox {
            depth: build.gauge("outbox_messages", "Messages that wait now, over all sessions"),
            bytes: build.gauge("outbox_bytes", "Bytes that wait now, over all sessions"),
            overflows: build.counter(
                "outbox_overflows",
                "Sessions closed because their outbox was full",
            ),
        };

        let commands = Commands {
            ended: build.labelled(
                "commands",
                "outcome",
                "Commands that ended: reply, refused, or an error code",
            ),
            in_flight: build.gauge("commands_in_flight", "Commands in flight now"),
            duration: build.histogram(
                "command_duration_seconds",
                "From the client's message to its answer",
                [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0],
            ),
        };

        let nats = Nats {
            connected: build.gauge("nats_connected", "1 while connected to NATS"),
            current: build.gauge("feed_current", "1 while the feed is known to be complete"),
            disconnects: build.counter("nats_disconnects", "Connections to NATS lost"),
            slow_consumer: build.counter("nats_slow_consumer", "Times the NATS client dropped messages"),
            repaired: build.counter(
                "feed_repaired",
                "Events read back from the stream because they did not come by themselves",
            ),
            forged: build.counter(
                "feed_forged",
                "Messages that came as the stream's and are not in it: somebody publishes where only NATS or routers should",
            ),
            feed_users: build.gauge("feed_users", "With a feed by user: users whose events come"),
            feed_lingering: build.gauge("feed_lingering", "Those of them who have no session now"),
            feed_indexing: build.gauge("feed_indexing", "1 while this node indexes the stream for all"),
            feed_indexed: build.counter("feed_indexed", "Sequences of which the index told whose they are"),
            gaps: build.labelled(
                "gaps",
                "reason",
                "Ranges of the stream that sessions were told are gone",
            ),
            dispatched_seq: build.gauge("stream_dispatched_seq", "The last sequence dispatched"),
            head_seq: build.gauge("stream_head_seq", "The stream's head as last heard"),
            writable: build.gauge(
                "stream_writable",
                "1 while JetStream stores what is written (0 with a full disk), tried every 10 s; 0 without JetStream",
            ),
        };

        let tasks = build.gauge("tasks", "Tasks alive now");

        let history = History {
            events: build.gauge("history_events", "Events of the past in memory now"),
            bytes: build.gauge("history_bytes", "About how many bytes they take"),
            sequences: build.gauge(
                "history_sequences",
                "How many sequences of the stream memory reaches back",
            ),
            resumes: build.labelled(
                "resumes",
                "past",
                "Positions that clients resumed from, by where the past was found: memory, stream or gone",
            ),
            replaying: build.gauge("replaying", "Sessions that are replaying now"),
            segments: build.counter(
                "history_segments_read",
                "Segments of the stream read back for sessions that resume",
            ),
        };

        let Builder { registry, reference } = build;
        Self {
            connections,
            tokens,
            events,
            messages,
            outbox,
            commands,
            nats,
            history,
            tasks,
            registry,
            reference,
        }
    }

    /// All metrics in the OpenMetrics text format, as Prometheus scrapes it.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("writing to a string");
        text
    }
}

impl Events {
    /// The metrics of this type; those of `other` if the catalogue does not know it.
    pub fn of(&self, event_type: &str) -> &EventType {
        self.types.get(event_type).unwrap_or(&self.other)
    }
}

/// The reference page of all metrics, in Markdown.
pub fn reference() -> String {
    let metrics = Metrics::new([]);
    let mut page = String::from(
        "# Metrics\n\n\
         <!-- Generated by `just gen` from server/src/metrics.rs. Do not edit. -->\n\n\
         Served at `/metrics` of the admin listener (`127.0.0.1:8011` by default) in the OpenMetrics text format.\n\
         The label `type` holds the types of the catalogue; all else is `other`. No label comes from a user, a\n\
         subject or an address.\n\n\
         | metric | kind | label | meaning |\n|---|---|---|---|\n",
    );
    for Described {
        name,
        kind,
        label,
        help,
    } in &metrics.reference
    {
        let label = label.map(|label| format!("`{label}`")).unwrap_or_default();
        page.push_str(&format!("| `{name}` | {kind} | {label} | {help} |\n"));
    }
    page
}

/// Registers metrics and remembers what it registered.
struct Builder {
    registry: Registry,
    reference: Vec<Described>,
}

impl Builder {
    fn counter(&mut self, name: &'static str, help: &'static str) -> Counter {
        self.add(name, "counter", None, help, Counter::default())
    }

    fn gauge(&mut self, name: &'static str, help: &'static str) -> Gauge {
        self.add(name, "gauge", None, help, Gauge::default())
    }

    fn histogram<const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        buckets: [f64; N],
    ) -> Histogram {
        self.add(name, "histogram", None, help, Histogram::new(buckets))
    }

    fn labelled(&mut self, name: &'static str, label: &'static str, help: &'static str) -> Labelled {
        Labelled {
            label,
            family: self.add(name, "counter", Some(label), help, Family::default()),
        }
    }

    fn labelled_gauge(
        &mut self,
        name: &'static str,
        label: &'static str,
        help: &'static str,
    ) -> LabelledGauge {
        LabelledGauge {
            label,
            family: self.add(name, "gauge", Some(label), help, Family::default()),
        }
    }

    fn add<M: Metric + Clone>(
        &mut self,
        name: &'static str,
        kind: &'static str,
        label: Option<&'static str>,
        help: &'static str,
        metric: M,
    ) -> M {
        self.registry.register(name, help, metric.clone());
        // OpenMetrics appends the suffix of a counter itself.
        let suffix = if kind == "counter" { "_total" } else { "" };
        self.reference.push(Described {
            name: format!("rivulet_{name}{suffix}"),
            kind,
            label,
            help,
        });
        metric
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_that_nobody_declared_is_other() {
        let metrics = Metrics::new(["blob.created"]);
        metrics.events.of("blob.created").routed.inc();
        metrics.events.of("made.up").routed.inc();
        metrics.events.of("also.made.up").routed.inc();
        let text = metrics.to_text();
        assert!(
            text.contains("rivulet_events_routed_total{type=\"blob.created\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("rivulet_events_routed_total{type=\"other\"} 2"),
            "{text}"
        );
        assert!(!text.contains("made.up"));
    }
}
