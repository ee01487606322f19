mod replay;

use std::time::Instant;

use bytes::Bytes;
use rivulet_protocol::{event::EventType, message::GapReason, pattern::Pattern, scalar::Timestamp};

use super::*;
use crate::outbox::Bounds;

struct Session {
    outbox: Arc<Outbox>,
    registration: Registration,
}

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn interest(texts: &[&str]) -> Interest {
    Interest::new(patterns(texts), patterns(&["*"]).into())
}

fn mark(position: &Position) -> Encoded {
    Encoded::json(&format!("@{}", position.seq.unwrap_or_default()))
}

fn join(router: &Arc<Router>, user: &str, interest: Interest) -> Session {
    let outbox = Arc::new(Outbox::new(Bounds {
        events: 100,
        bytes: 100_000,
    }));
    let user = UserId::parse(user).unwrap();
    let registration = router.register(user, interest, Arc::clone(&outbox), mark);
    Session { outbox, registration }
}

fn event(event_type: &str, users: &[&str], seq: u64) -> Event {
    let users: Vec<_> = users.iter().map(|user| UserId::parse(user).unwrap()).collect();
    Event {
        event_type: EventType::parse(event_type).unwrap(),
        audience: if users.is_empty() {
            Audience::Everyone
        } else {
            Audience::Users(users)
        },
        data: Bytes::from_static(b"{\"n\": 1.0}"),
        seq: Some(seq),
        time: Timestamp::parse("2026-01-01T00:00:00Z").unwrap(),
        as_error: None,
        trace_id: None,
        received_at: Instant::now(),
    }
}

/// What waits for a session: positions as `@7`, events as `7 blob.created`.
fn received(session: &Session) -> Vec<String> {
    received_of(&session.outbox)
}

fn received_of(outbox: &Outbox) -> Vec<String> {
    let mut batch = Vec::new();
    outbox.take(&mut batch, 1000, 1 << 20);
    let line = |message: &Encoded| {
        let text = String::from_utf8(message.payload().to_vec()).unwrap();
        match serde_json::from_str::<serde_json::Value>(&text) {
            Ok(value) => format!("{} {}", value["seq"], value["type"].as_str().unwrap()),
            Err(_) => text,
        }
    };
    batch.iter().map(line).collect()
}

#[test]
fn an_event_reaches_the_sessions_of_its_users_that_want_it() {
    let router = Arc::new(Router::default());
    router.open("S@1", 0, true);
    let blobs = join(&router, "ada", interest(&["blob.*"]));
    let books = join(&router, "ada", interest(&["book.*"]));
    let other = join(&router, "bob", interest(&["*"]));
    assert_eq!(router.dispatch(&event("blob.created", &["ada"], 1)), 1);
    assert_eq!(router.dispatch(&event("book.created", &["ada", "bob"], 2)), 2);
    assert_eq!(router.dispatch(&event("blob.created", &[], 3)), 2);
    assert_eq!(router.dispatch(&event("blob.created", &["eve"], 4)), 0);
    assert_eq!(received(&blobs), ["@0", "1 blob.created", "3 blob.created"]);
    assert_eq!(received(&books), ["@0", "2 book.created"]);
    assert_eq!(received(&other), ["@0", "2 book.created", "3 blob.created"]);
}

#[test]
fn overlapping_patterns_deliver_once() {
    let router = Arc::new(Router::default());
    let session = join(
        &router,
        "ada",
        interest(&["blob.created", "blob.*", "blob.>", "*"]),
    );
    assert_eq!(router.dispatch(&event("blob.created", &["ada"], 1)), 1);
    assert_eq!(received(&session), ["@0", "1 blob.created"]);
}

#[test]
fn the_bare_star_is_all_that_is_permitted() {
    let router = Arc::new(Router::default());
    let session = join(
        &router,
        "ada",
        Interest::new(patterns(&["*"]), patterns(&["blob.*"]).into()),
    );
    router.dispatch(&event("blob.created", &["ada"], 1));
    router.dispatch(&event("book.created", &["ada"], 2));
    assert_eq!(received(&session), ["@0", "1 blob.created"]);
}

#[test]
fn a_change_of_patterns_stands_in_order_with_events() {
    let router = Arc::new(Router::default());
    let session = join(&router, "ada", interest(&["blob.*"]));
    router.dispatch(&event("blob.created", &["ada"], 1));
    session.registration.change(interest(&["book.*"]), mark);
    router.dispatch(&event("blob.created", &["ada"], 2));
    router.dispatch(&event("book.created", &["ada"], 3));
    session.registration.mark(mark);
    assert_eq!(
        received(&session),
        ["@0", "1 blob.created", "@1", "3 book.created", "@3"]
    );
}

#[test]
fn one_encoding_serves_all() {
    let router = Arc::new(Router::default());
    let sessions = [
        join(&router, "ada", interest(&["*"])),
        join(&router, "bob", interest(&["blob.*"])),
    ];
    router.dispatch(&event("blob.created", &[], 1));
    let frames = sessions.map(|session| {
        let mut batch = Vec::new();
        session.outbox.take(&mut batch, 10, 1 << 20);
        batch.pop().unwrap().frame().as_ptr()
    });
    assert_eq!(frames[0], frames[1]);
}

#[test]
fn the_data_of_an_event_is_not_rewritten() {
    let router = Arc::new(Router::default());
    let session = join(&router, "ada", interest(&["*"]));
    router.dispatch(&event("blob.created", &["ada"], 7));
    let mut batch = Vec::new();
    session.outbox.take(&mut batch, 10, 1 << 20);
    assert_eq!(
        batch[1].payload(),
        br#"{"type":"blob.created","seq":7,"time":"2026-01-01T00:00:00Z","data":{"n": 1.0}}"#
    );
}

#[test]
fn a_failure_is_an_error_too_for_those_who_subscribe_to_errors() {
    let router = Arc::new(Router::default());
    let both = join(&router, "ada", interest(&["*", "error"]));
    let error_only = join(&router, "ada", interest(&["error"]));
    let star = join(&router, "ada", interest(&["*"]));
    let forbidden = join(
        &router,
        "ada",
        Interest::new(patterns(&["error"]), patterns(&["blob.*"]).into()),
    );
    let mut failure = event("processor.failed", &["ada"], 1);
    failure.as_error = Some(Bytes::from_static(
        b"{\"code\":\"PROCESSOR_FAILED\",\"message\":\"m\"}",
    ));
    router.dispatch(&failure);
    assert_eq!(received(&both), ["@0", "1 processor.failed", "null error"]);
    assert_eq!(received(&error_only), ["@0", "null error"]);
    assert_eq!(received(&star), ["@0", "1 processor.failed"]);
    assert_eq!(received(&forbidden), ["@0"]);
}

#[test]
fn a_gap_reaches_everyone_in_order_and_moves_the_position() {
    let router = Arc::new(Router::default());
    router.open("S@1", 4, true);
    let session = join(&router, "ada", interest(&["*"]));
    router.gap(Gap {
        stream: "S@2".into(),
        from_seq: SafeInteger::new(4).unwrap(),
        to_seq: SafeInteger::new(2).unwrap(),
        reason: GapReason::EpochChanged,
    });
    router.dispatch(&event("blob.created", &["ada"], 3));
    assert_eq!(received(&session), ["@4", "null gap", "3 blob.created"]);
    assert_eq!(
        router.position(),
        Position {
            epoch: Some("S@2".into()),
            seq: Some(3),
            oldest: None,
            durable: true,
        }
    );
}

#[test]
fn who_leaves_gets_nothing_and_leaves_nothing() {
    let router = Arc::new(Router::default());
    let session = join(&router, "ada", interest(&["*"]));
    drop(session.registration);
    assert_eq!(router.dispatch(&event("blob.created", &["ada"], 1)), 0);
    assert_eq!(router.census(), Census::default());
}
