use std::time::Instant;

use bytes::Bytes;
use rivulet_protocol::scalar::Timestamp;

use super::*;

fn kept(seq: u64, users: &[&str]) -> Kept {
    let users: Vec<_> = users.iter().map(|user| UserId::parse(user).unwrap()).collect();
    let event = Event {
        event_type: EventType::parse("a.b").unwrap(),
        audience: match users.is_empty() {
            true => Audience::Everyone,
            false => Audience::Users(users),
        },
        data: Bytes::from_static(b"{}"),
        seq: Some(seq),
        time: Timestamp::parse("2026-01-01T00:00:00Z").unwrap(),
        as_error: None,
        received_at: Instant::now(),
    };
    Kept::new(&event, Encoded::event(&event), None).unwrap()
}

fn seqs(span: &Span, user: &str, after: u64) -> Vec<u64> {
    let user = UserId::parse(user).unwrap();
    span.of(&user, after).map(|kept| kept.seq).collect()
}

#[test]
fn a_user_finds_own_and_shared_events_in_the_order_of_the_stream() {
    let mut span = Span::new(10);
    for (seq, users) in [
        (11, &["ada"][..]),
        (13, &[]),
        (14, &["bob"]),
        (15, &["ada", "bob"]),
        (17, &[]),
    ] {
        span.push(kept(seq, users));
    }
    span.advance(20);
    assert_eq!(seqs(&span, "ada", 10), [11, 13, 15, 17]);
    assert_eq!(seqs(&span, "ada", 13), [15, 17]);
    assert_eq!(seqs(&span, "bob", 10), [13, 14, 15, 17]);
    assert_eq!(seqs(&span, "eve", 12), [13, 17]);
    assert_eq!(seqs(&span, "ada", 20), [0; 0]);
    assert!(span.covers(10) && span.covers(20) && !span.covers(9) && !span.covers(21));
}

#[test]
fn an_event_is_replaced_in_its_place() {
    let mut span = Span::new(10);
    for (seq, users) in [(11, &["ada"][..]), (12, &["eve"]), (14, &["ada"])] {
        span.push(kept(seq, users));
    }
    span.advance(20);
    span.replace(12, Some(kept(12, &["ada"])));
    span.replace(13, Some(kept(13, &[])));
    span.replace(14, None);
    assert_eq!(seqs(&span, "ada", 10), [11, 12, 13]);
    assert_eq!(seqs(&span, "eve", 10), [13]);
    assert!(span.event_at(14).is_none() && span.event_at(12).is_some());
    assert_eq!((span.after(), span.to(), span.len()), (10, 20, 3));
}

#[test]
fn the_oldest_goes_first_and_the_interval_says_so() {
    let mut span = Span::new(0);
    for seq in 1..=100 {
        span.push(kept(seq, if seq % 3 == 0 { &[] } else { &["ada"] }));
    }
    let one = span.bytes() / 100;
    span.shrink(one * 10);
    assert!((9..=11).contains(&span.len()), "{}", span.len());
    let after = span.after();
    assert_eq!(after, 100 - span.len() as u64);
    assert!(span.covers(after) && !span.covers(after - 1));
    assert_eq!(seqs(&span, "ada", after), (after + 1..=100).collect::<Vec<_>>());
    span.shrink(0);
    assert!(span.is_empty() && span.bytes() == 0);
    assert_eq!((span.after(), span.to()), (100, 100));
    assert!(span.of_user.is_empty() && span.of_everyone.is_empty());
    span.advance(105);
    span.push(kept(106, &["ada"]));
    assert_eq!(seqs(&span, "ada", 100), [106]);
}

/// Whatever is pushed, passed over, cut off and removed, each user finds what a plain list of it has.
#[test]
fn memory_is_what_a_plain_list_would_be() {
    use rand::{RngExt, SeedableRng, rngs::SmallRng};
    const USERS: [&str; 3] = ["ada", "bob", "eve"];
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut span = Span::new(5);
    let mut model: Vec<(u64, Vec<&str>)> = Vec::new();
    let mut after = 5;
    for _ in 0..4_000 {
        match random.random_range(0..10) {
            0..6 => {
                let seq = span.to() + random.random_range(1..4);
                let users: Vec<_> = USERS.into_iter().filter(|_| random.random_bool(0.4)).collect();
                span.push(kept(seq, &users));
                model.push((seq, users));
            }
            6 => span.advance(span.to() + random.random_range(0..3)),
            7 => {
                let first = random.random_range(after..=span.to() + 3);
                while !span.cut(first, 2) {}
                after = after.max((first.max(1) - 1).min(span.to()));
                model.retain(|(seq, _)| *seq >= first);
            }
            8 => {
                let bytes = span.bytes() * random.random_range(8..10) / 10;
                span.shrink(bytes);
                if span.after() > after {
                    after = span.after();
                    model.retain(|(seq, _)| *seq > after);
                }
            }
            _ => {
                let mut removed: Vec<u64> = (0..3)
                    .map(|_| random.random_range(after.saturating_sub(2)..=span.to() + 2))
                    .collect();
                removed.sort_unstable();
                span.remove(&removed);
                model.retain(|(seq, _)| !removed.contains(seq));
            }
        }
        assert_eq!(span.after(), after);
        let from = random.random_range(after..=span.to());
        for user in USERS {
            let of = |(seq, users): &(u64, Vec<&str>)| {
                (*seq > from && (users.is_empty() || users.contains(&user))).then_some(*seq)
            };
            let expected: Vec<_> = model.iter().filter_map(of).collect();
            assert_eq!(seqs(&span, user, from), expected);
        }
    }
    span.shrink(0);
    assert!(span.bytes() == 0 && span.of_user.is_empty() && span.of_everyone.is_empty());
}
