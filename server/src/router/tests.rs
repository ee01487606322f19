mod replay;

use std::time::Instant;

use bytes::Bytes;
use rivulet_protocol::{event::EventType, message::GapReason, pattern::Pattern, scalar::Timestamp};

use super::*;
use crate::outbox::{
    Bounds, Framing,
    tests::{Tape, flush},
};

struct Session {
    tape: Tape,
    outbox: Arc<Outbox>,
    registration: Registration,
}

/// Of four shards, at the beginning of a stream.
fn router() -> Arc<Router> {
    let router = Arc::new(Router::new(Keeping::default(), NonZero::new(4).unwrap()));
    router.open("S@1", 0, true);
    router
}

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn interest(texts: &[&str]) -> Interest {
    Interest::new(patterns(texts).into(), patterns(&["*"]).into())
}

fn mark(position: &Position) -> Encoded {
    Encoded::json(&format!("@{}", position.seq.unwrap_or_default()))
}

fn join(router: &Arc<Router>, user: &str, interest: Interest) -> Session {
    let tape = Tape::default();
    let outbox = outbox(ROOM, &tape);
    let user = UserId::parse(user).unwrap();
    let registration = router.register(user, interest, Arc::clone(&outbox), mark);
    Session {
        tape,
        outbox,
        registration,
    }
}

const ROOM: Bounds = Bounds {
    events: 100,
    bytes: 100_000,
};

fn outbox(bounds: Bounds, tape: &Tape) -> Arc<Outbox> {
    Arc::new(Outbox::new(bounds, Framing::PLAIN, tape.clone()))
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
        received_at: Instant::now(),
    }
}

/// What a session gets: positions as `@7`, events as `7 blob.created`.
fn received(session: &Session) -> Vec<String> {
    received_of(&session.outbox, &session.tape)
}

fn received_of(outbox: &Outbox, tape: &Tape) -> Vec<String> {
    flush(outbox);
    let line = |text: String| match serde_json::from_str::<serde_json::Value>(&text) {
        Ok(value) => format!("{} {}", value["seq"], value["type"].as_str().unwrap()),
        Err(_) => text,
    };
    tape.texts().into_iter().map(line).collect()
}

#[test]
fn an_event_reaches_the_sessions_of_its_users_that_want_it() {
    let router = router();
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
    let router = router();
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
    let router = router();
    let session = join(
        &router,
        "ada",
        Interest::new(patterns(&["*"]).into(), patterns(&["blob.*"]).into()),
    );
    router.dispatch(&event("blob.created", &["ada"], 1));
    router.dispatch(&event("book.created", &["ada"], 2));
    assert_eq!(received(&session), ["@0", "1 blob.created"]);
}

#[test]
fn a_change_of_patterns_stands_in_order_with_events() {
    let router = router();
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
    let router = router();
    let sessions = [
        join(&router, "ada", interest(&["*"])),
        join(&router, "bob", interest(&["blob.*"])),
    ];
    router.dispatch(&event("blob.created", &[], 1));
    let frames = sessions.map(|session| {
        flush(&session.outbox);
        session.tape.addresses().pop().unwrap()
    });
    assert_eq!(frames[0], frames[1]);
}

#[test]
fn the_data_of_an_event_is_not_rewritten() {
    let router = router();
    let session = join(&router, "ada", interest(&["*"]));
    router.dispatch(&event("blob.created", &["ada"], 7));
    flush(&session.outbox);
    assert_eq!(
        session.tape.texts()[1],
        r#"{"type":"blob.created","seq":7,"time":"2026-01-01T00:00:00Z","data":{"n": 1.0}}"#
    );
}

#[test]
fn a_failure_is_an_error_too_for_those_who_subscribe_to_errors() {
    let router = router();
    let both = join(&router, "ada", interest(&["*", "error"]));
    let error_only = join(&router, "ada", interest(&["error"]));
    let star = join(&router, "ada", interest(&["*"]));
    let forbidden = join(
        &router,
        "ada",
        Interest::new(patterns(&["error"]).into(), patterns(&["blob.*"]).into()),
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
    let router = router();
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
        router.position(&UserId::parse("ada").unwrap()),
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
    let router = router();
    let session = join(&router, "ada", interest(&["*"]));
    drop(session.registration);
    assert_eq!(router.dispatch(&event("blob.created", &["ada"], 1)), 0);
    assert_eq!(router.census(), Census::default());
}

#[test]
fn a_shards_own_sequence_tells_which_patterns_an_event_met() {
    const EVENTS: u64 = 20_000;
    let router = router();
    let tape = Tape::default();
    let room = Bounds {
        events: EVENTS as usize,
        bytes: 100_000_000,
    };
    let outbox = outbox(room, &tape);
    let user = UserId::parse("ada").unwrap();
    let seat = router.register(user, interest(&["a.*"]), Arc::clone(&outbox), |_| {
        Encoded::json("a 0")
    });
    std::thread::scope(|scope| {
        let dispatching = scope.spawn(|| {
            for seq in 1..=EVENTS {
                // Of three events one is for somebody in another shard, or in the same.
                let user = if seq % 3 == 0 {
                    format!("user-{seq}")
                } else {
                    "ada".into()
                };
                let event_type = if seq % 2 == 0 { "a.x" } else { "b.x" };
                router.dispatch(&event(event_type, &[&user], seq));
            }
        });
        let mut flip = false;
        while !dispatching.is_finished() {
            flip = !flip;
            let family = if flip { "b" } else { "a" };
            seat.change(interest(&[&format!("{family}.*")]), |position| {
                Encoded::json(&format!("{family} {}", position.seq.unwrap()))
            });
            flush(&outbox);
        }
    });
    flush(&outbox);
    let mut in_force = vec![];
    let mut came = HashSet::new();
    for text in tape.texts() {
        match serde_json::from_str::<serde_json::Value>(&text) {
            Ok(value) => {
                came.insert(value["seq"].as_u64().unwrap());
            }
            Err(_) => {
                let (family, seq) = text.split_once(' ').unwrap();
                in_force.push((seq.parse::<u64>().unwrap(), family.to_owned()));
            }
        }
    }
    assert!(in_force.len() > 10, "the patterns hardly changed");
    for seq in (1..=EVENTS).filter(|seq| seq % 3 != 0) {
        let family = if seq % 2 == 0 { "a" } else { "b" };
        let (_, met) = in_force.iter().rfind(|(after, _)| *after < seq).unwrap();
        assert_eq!(came.contains(&seq), met == family, "{seq}");
    }
}

#[test]
fn a_position_that_was_told_is_never_from_the_future() {
    const EVENTS: u64 = 100_000;
    let router = router();
    let users: Vec<_> = (0..16)
        .map(|number| UserId::parse(&format!("u{number}")).unwrap())
        .collect();
    std::thread::scope(|scope| {
        let dispatching = scope.spawn(|| {
            for seq in 1..=EVENTS {
                router.dispatch(&event("a.b", &[&format!("u{}", seq % 16)], seq));
            }
        });
        for user in users.iter().cycle() {
            if dispatching.is_finished() {
                break;
            }
            let position = router.position(user);
            let asked = Asked {
                epoch: position.epoch.unwrap(),
                seq: position.seq.unwrap(),
                head: 0,
            };
            let outbox = outbox(ROOM, &Tape::default());
            let mut accepted = false;
            let first = |position: &Position, told| {
                accepted = told;
                mark(position)
            };
            router.replay(user.clone(), interest(&["*"]), outbox, asked, first);
            assert!(accepted);
        }
    });
}
