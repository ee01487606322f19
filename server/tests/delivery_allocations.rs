//! What a delivery allocates: nothing. An event does, whoever gets it.

use std::{
    io::{self, IoSlice},
    num::NonZero,
    sync::Arc,
    time::Instant,
};

use allocation_counter::measure;
use bytes::Bytes;
use rivulet_protocol::{event::EventType, scalar::Timestamp, subject::UserId};
use rivulet_router::{
    encoded::Encoded,
    event::{Audience, Event},
    metrics::Metrics,
    outbox::{Bounds, Framing, Outbox, Wire},
    router::{Interest, Keeping, Registration, Router},
};

const EVENTS: u64 = 100;

/// A socket that takes all.
struct Sink;

impl Wire for Sink {
    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(slices.iter().map(|slice| slice.len()).sum())
    }
}

fn event(seq: u64, audience: Audience) -> Event {
    Event {
        event_type: EventType::parse("blob.created").unwrap(),
        audience,
        data: Bytes::from_static(b"{\"n\": 1}"),
        seq: Some(seq),
        time: Timestamp::parse("2026-01-01T00:00:00Z").unwrap(),
        as_error: None,
        received_at: Instant::now(),
    }
}

fn user(number: usize) -> UserId {
    UserId::parse(&format!("user-{number}")).unwrap()
}

fn join(router: &Arc<Router>, number: usize) -> Registration {
    let bounds = Bounds {
        events: 1_000,
        bytes: 1 << 20,
    };
    let outbox = Arc::new(Outbox::new(bounds, Framing::PLAIN, Sink));
    let patterns = ["blob.*", "book.>"].map(|pattern| pattern.parse().unwrap());
    let interest = Interest::new(Arc::new(patterns), Arc::new(["*".parse().unwrap()]));
    let first = Arc::clone(&outbox);
    let registration = router.register(user(number), interest, outbox, |_| Encoded::json("{}"));
    first.flush(&mut Metrics::new([]).sent());
    registration
}

/// Allocations of [`EVENTS`] events that are put into outboxes and written, with so many sessions here.
fn allocations(sessions: usize, audience: impl Fn(u64) -> Audience) -> u64 {
    let keeping = Keeping {
        bytes: 1 << 20,
        ..Keeping::default()
    };
    let router = Arc::new(Router::new(keeping, NonZero::new(4).unwrap()));
    router.open("S@1", 0, true);
    let _sessions: Vec<_> = (0..sessions).map(|number| join(&router, number)).collect();
    let metrics = Metrics::new([]);
    let mut touched = Vec::new();
    let mut deliver = |seq| {
        let copies = router.dispatch(&event(seq, audience(seq)));
        let mut sent = metrics.sent();
        for shard in 0..router.shards() {
            router.take_touched(shard, &mut touched);
            for outbox in touched.drain(..) {
                outbox.flush_live(&mut sent);
            }
        }
        copies
    };
    // The lists grow to their sizes, the past to its own.
    let warm = 1_500;
    for seq in 1..=warm {
        deliver(seq);
    }
    let allocations = measure(|| {
        for seq in warm + 1..=warm + EVENTS {
            assert!(deliver(seq) > 0);
        }
    });
    allocations.count_total
}

#[test]
fn an_event_allocates_as_much_for_a_thousand_sessions_as_for_ten() {
    let few = allocations(10, |_| Audience::Everyone);
    let many = allocations(1_000, |_| Audience::Everyone);
    assert!(
        many <= few + EVENTS / 10,
        "{many} for 1,000 sessions, {few} for 10"
    );
    assert!(many <= 8 * EVENTS, "{many} for {EVENTS} events");
}

#[test]
fn an_event_for_one_user_allocates_a_few_times() {
    let of_one = |seq: u64| Audience::Users(vec![user(seq as usize % 1_000)]);
    let count = allocations(1_000, of_one);
    assert!(count <= 12 * EVENTS, "{count} for {EVENTS} events");
}
