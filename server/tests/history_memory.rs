//! What the past takes in memory, against what it says it takes. Alone in its binary, as it counts every byte of
//! the process.

use std::time::Instant;

use bytes::Bytes;
use peak_alloc::PeakAlloc;
use rivulet_protocol::{event::EventType, scalar::Timestamp, subject::UserId};
use rivulet_router::{
    encoded::Encoded,
    event::{Audience, Event},
    history::{Kept, Span},
};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

fn event(seq: u64, audience: Audience, bytes: usize) -> Event {
    Event {
        event_type: EventType::parse("blob.created").unwrap(),
        audience,
        data: Bytes::from(vec![b' '; bytes]),
        seq: Some(seq),
        time: Timestamp::parse("2026-01-01T00:00:00Z").unwrap(),
        as_error: None,
        received_at: Instant::now(),
    }
}

/// The bytes that a span of 20,000 events takes for each that it says it takes.
#[expect(clippy::print_stdout, reason = "the figure that the docs cite")]
fn ratio(bytes: usize, audience: impl Fn(u64) -> Audience) -> f64 {
    const EVENTS: u64 = 20_000;
    let before = ALLOCATED.current_usage();
    let mut span = Span::new(0);
    for seq in 1..=EVENTS {
        let event = event(seq, audience(seq), bytes);
        span.push(Kept::new(&event, Encoded::event(&event), None).unwrap());
    }
    let taken = ALLOCATED.current_usage() - before;
    println!(
        "{} B of data: {} B an event, told {}",
        bytes,
        taken as u64 / EVENTS,
        span.bytes() as u64 / EVENTS
    );
    let ratio = taken as f64 / span.bytes() as f64;
    span.shrink(0);
    drop(span);
    let left = ALLOCATED.current_usage().saturating_sub(before);
    assert!(left < 100_000, "{left} bytes are left behind");
    ratio
}

#[test]
fn the_past_takes_about_as_much_as_it_says() {
    let of = |user: String| Audience::Users(vec![UserId::parse(&user).unwrap()]);
    for bytes in [64, 200, 2_000] {
        for users in [10, 1_000, 20_000] {
            let ratio = ratio(bytes, |seq| of(format!("user-{}", seq % users)));
            assert!(
                (0.4..1.25).contains(&ratio),
                "{bytes} B, {users} users: {ratio:.2}"
            );
        }
        let everyone = ratio(bytes, |_| Audience::Everyone);
        assert!((0.4..1.25).contains(&everyone), "{bytes} B: {everyone:.2}");
        let many = ratio(bytes, |seq| {
            let user = |number| UserId::parse(&format!("user-{}", (seq + number) % 1_000)).unwrap();
            Audience::Users((0..10).map(user).collect())
        });
        assert!((0.4..1.25).contains(&many), "{bytes} B, 10 users each: {many:.2}");
    }
}
