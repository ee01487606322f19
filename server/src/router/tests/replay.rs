//! A replay: where it begins, how it meets what is live.

use super::*;
use crate::history::{Forget, Kept, Segment, Withdrawn};

const SHARDS: NonZero<usize> = NonZero::new(4).unwrap();
/// Of a shard.
const KEEPING: usize = 1 << 20;

fn remembering() -> Arc<Router> {
    let keeping = Keeping {
        bytes: SHARDS.get() * KEEPING,
        ephemeral: Arc::new(["conversation.typing".to_owned()].into()),
        ..Keeping::default()
    };
    let router = Arc::new(Router::new(keeping, SHARDS));
    router.open("S@1", 0, true);
    router
}

struct Replaying {
    tape: Tape,
    outbox: Arc<Outbox>,
    replay: Replay,
    accepted: bool,
}

fn replay(router: &Arc<Router>, asked: (&str, u64, u64), bounds: Bounds) -> Replaying {
    let tape = Tape::default();
    let outbox = outbox(bounds, &tape);
    let asked = Asked {
        epoch: asked.0.into(),
        seq: asked.1,
        head: asked.2,
    };
    let mut accepted = false;
    let user = UserId::parse("ada").unwrap();
    let first = |position: &Position, told| {
        accepted = told;
        mark(position)
    };
    let replay = router.replay(user, interest(&["*"]), Arc::clone(&outbox), asked, first);
    Replaying {
        tape,
        outbox,
        replay,
        accepted,
    }
}

fn last(position: &Position, replayed: Replayed) -> Option<Encoded> {
    let Replayed { from, to, complete } = replayed;
    assert_eq!(position.seq, Some(to));
    Some(Encoded::json(&format!("resumed {from} {to} {complete}")))
}

impl Replaying {
    fn step(&mut self) -> Step {
        self.replay.step(last)
    }

    fn received(&self) -> Vec<String> {
        received_of(&self.outbox, &self.tape)
    }
}

fn live(step: Step) -> Registration {
    match step {
        Step::Live(registration) => registration,
        other => panic!("not live: {other:?}"),
    }
}

#[test]
fn it_becomes_live_in_the_step_in_which_it_has_caught_up() {
    let router = remembering();
    router.dispatch(&event("blob.created", &["ada"], 1));
    router.dispatch(&event("blob.created", &["bob"], 6));
    for seq in 7..=9 {
        router.dispatch(&event("blob.created", &[], seq));
    }
    let mut session = replay(&router, ("S@1", 1, 0), ROOM);
    assert!(session.accepted);
    // What is dispatched now is not pushed to it, and not left out.
    router.dispatch(&event("blob.created", &["ada"], 10));
    let _seat = live(session.step());
    router.dispatch(&event("blob.created", &["ada"], 11));
    assert_eq!(
        session.received(),
        [
            "@9",
            "7 blob.created",
            "8 blob.created",
            "9 blob.created",
            "10 blob.created",
            "resumed 1 10 true",
            "11 blob.created"
        ]
    );
}

#[test]
fn a_step_takes_no_more_than_the_outbox_holds() {
    let router = remembering();
    for seq in 1..=10 {
        router.dispatch(&event("blob.created", &["ada"], seq));
    }
    let bounds = Bounds {
        events: 4,
        bytes: 100_000,
    };
    let mut session = replay(&router, ("S@1", 0, 0), bounds);
    let mut seqs = Vec::new();
    loop {
        let step = session.step();
        assert_eq!(session.outbox.closing(), None);
        seqs.push(session.received().len());
        if let Step::Live(_) = step {
            break;
        }
    }
    assert_eq!(
        seqs,
        [4, 3, 3, 2],
        "three events a step, with the first and the last frame"
    );
}

#[test]
fn a_frame_with_a_sequence_tells_the_cursor_of_the_replay() {
    let router = remembering();
    for seq in 1..=10 {
        router.dispatch(&event("blob.created", &["ada"], seq));
    }
    let bounds = Bounds {
        events: 4,
        bytes: 100_000,
    };
    let mut session = replay(&router, ("S@1", 0, 0), bounds);
    session.step();
    session.replay.mark(mark);
    session.replay.change(interest(&["book.*"]), mark);
    assert_eq!(
        session.received(),
        [
            "@10",
            "1 blob.created",
            "2 blob.created",
            "3 blob.created",
            "@3",
            "@3"
        ]
    );
    // The new patterns apply to all that comes after.
    live(session.step());
    assert_eq!(session.received(), ["resumed 0 10 true"]);
}

#[test]
fn a_cursor_ahead_of_this_node_waits_for_it() {
    let router = remembering();
    router.dispatch(&event("blob.created", &["ada"], 1));
    let mut session = replay(&router, ("S@1", 3, 4), ROOM);
    assert!(session.accepted);
    let seat = live(session.step());
    seat.mark(mark);
    for seq in 2..=4 {
        router.dispatch(&event("blob.created", &["ada"], seq));
    }
    seat.mark(mark);
    assert_eq!(
        session.received(),
        ["@1", "resumed 3 3 true", "@3", "4 blob.created", "@4"]
    );
}

#[test]
fn what_can_not_be_had_is_a_gap() {
    let router = remembering();
    for seq in 1..=5 {
        router.dispatch(&event("blob.created", &["ada"], seq));
    }
    for asked in [("S@1", 9, 7), ("S@0", 2, 0), ("S@0", 9, 0)] {
        let mut session = replay(&router, asked, ROOM);
        assert!(!session.accepted);
        let seat = live(session.step());
        seat.mark(mark);
        let resumed = format!("resumed {} 5 false", asked.1);
        assert_eq!(session.received(), ["@5", "null gap", &resumed, "@5"]);
    }
}

#[test]
fn what_memory_no_longer_has_is_read_from_the_stream() {
    let router = remembering();
    for seq in 1..=20 {
        router.dispatch(&event("blob.created", &["ada"], seq));
        if seq == 10 {
            // All before is forgotten.
            router.lock(&UserId::parse("ada").unwrap()).past = Span::new(10);
        }
    }
    router.keeps_from(4);
    let mut session = replay(&router, ("S@1", 1, 0), ROOM);
    assert!(!session.accepted, "the stream no longer has 2 and 3");
    let Step::Beyond { epoch, after, to } = session.step() else {
        panic!("memory does not reach back to it");
    };
    assert_eq!((&*epoch, after, to), ("S@1", 3, 10));
    let mut span = Span::new(0);
    for seq in [1, 4, 5, 8] {
        let event = event("blob.created", &["ada"], seq);
        span.push(Kept::new(&event, Encoded::event(&event), None).unwrap());
    }
    span.advance(9);
    // While it was read, the stream lost 6 and 7 too.
    let lost = vec![(1, 3), (5, 7)];
    session.replay.read(Arc::new(Segment {
        span,
        lost,
        withdrawn: Withdrawn::default(),
    }));
    let mut steps = 0;
    let seat = loop {
        steps += 1;
        match session.step() {
            Step::Moved => {}
            Step::Live(seat) => break seat,
            Step::Beyond { after, to, .. } => {
                assert_eq!((after, to), (9, 10));
                let mut span = Span::new(9);
                span.advance(10);
                let segment = Segment {
                    span,
                    lost: Vec::new(),
                    withdrawn: Withdrawn::default(),
                };
                session.replay.read(Arc::new(segment));
            }
        }
        assert!(steps < 10);
    };
    drop(seat);
    let mut expected = vec!["@20".to_owned(), "null gap".to_owned()];
    expected.extend([4, 5].map(|seq| format!("{seq} blob.created")));
    expected.push("null gap".to_owned());
    expected.push("8 blob.created".to_owned());
    expected.extend((11..=20).map(|seq| format!("{seq} blob.created")));
    expected.push("resumed 1 20 false".to_owned());
    assert_eq!(session.received(), expected);
}

#[test]
fn what_the_stream_removed_leaves_memory_and_what_was_read_of_it() {
    let router = remembering();
    for seq in 1..=9 {
        router.dispatch(&event("blob.created", &["ada"], seq));
    }
    router.keeps_from(4);
    router.forget(Forget::These(&[1, 6, 12]));
    let mut session = replay(&router, ("S@1", 1, 0), ROOM);
    assert!(!session.accepted, "2 and 3 are gone");
    live(session.step());
    let mut expected = vec!["@9".to_owned(), "null gap".to_owned()];
    expected.extend([4, 5, 7, 8, 9].map(|seq| format!("{seq} blob.created")));
    expected.push("resumed 1 9 false".to_owned());
    assert_eq!(session.received(), expected);

    // One that reads from the stream takes nothing more out of what was withdrawn.
    router.forget(Forget::UpTo(u64::MAX));
    let mut session = replay(&router, ("S@1", 4, 0), ROOM);
    let Step::Beyond { .. } = session.step() else {
        panic!("memory was given up");
    };
    let mut span = Span::new(0);
    for seq in 5..=9 {
        let event = event("blob.created", &["ada"], seq);
        span.push(Kept::new(&event, Encoded::event(&event), None).unwrap());
    }
    let withdrawn = Withdrawn::default();
    session.replay.read(Arc::new(Segment {
        span,
        lost: Vec::new(),
        withdrawn: withdrawn.clone(),
    }));
    withdrawn.withdraw();
    let Step::Beyond { after: 4, .. } = session.step() else {
        panic!("what was read was withdrawn");
    };
    assert_eq!(session.received(), ["@9"]);
}

#[test]
fn an_ephemeral_event_is_live_only() {
    let router = remembering();
    let there = join(&router, "ada", interest(&["*"]));
    router.dispatch(&event("conversation.typing", &["ada"], 1));
    router.dispatch(&event("blob.created", &["ada"], 2));
    assert_eq!(received(&there).len(), 3);
    let mut session = replay(&router, ("S@1", 0, 0), ROOM);
    live(session.step());
    assert_eq!(session.received(), ["@2", "2 blob.created", "resumed 0 2 true"]);
}

#[test]
fn a_stream_made_anew_ends_a_replay_with_a_gap() {
    let router = remembering();
    for seq in 1..=10 {
        router.dispatch(&event("blob.created", &["ada"], seq));
    }
    let bounds = Bounds {
        events: 4,
        bytes: 100_000,
    };
    let mut session = replay(&router, ("S@1", 0, 0), bounds);
    session.step();
    session.received();
    router.gap(Gap {
        stream: "S@2".into(),
        from_seq: SafeInteger::new(10).unwrap(),
        to_seq: SafeInteger::new(2).unwrap(),
        reason: GapReason::EpochChanged,
    });
    router.dispatch(&event("blob.created", &["ada"], 3));
    let _seat = live(session.step());
    router.dispatch(&event("blob.created", &["ada"], 4));
    assert_eq!(
        session.received(),
        ["null gap", "resumed 0 3 false", "4 blob.created"],
        "3 lies in the gap, which goes up to where the node is"
    );
}

#[test]
fn a_replay_goes_back_to_what_was_replaced_behind_it() {
    let router = remembering();
    for seq in 1..=5 {
        router.dispatch(&event("blob.created", &["ada"], seq));
    }
    let bounds = Bounds {
        events: 4,
        bytes: 100_000,
    };
    let mut session = replay(&router, ("S@1", 0, 0), bounds);
    session.step();
    session.received();
    let stored = event("blob.deleted", &["ada"], 2);
    assert!(!router.agrees(2, Some(&stored)) && !router.agrees(2, None));
    router.replace(2, Some(&stored));
    assert!(router.agrees(2, Some(&stored)));
    let mut received = Vec::new();
    let _seat = loop {
        match session.step() {
            Step::Moved => received.extend(session.received()),
            step => break live(step),
        }
    };
    received.extend(session.received());
    assert_eq!(
        received,
        [
            "null gap",
            "2 blob.deleted",
            "3 blob.created",
            "4 blob.created",
            "5 blob.created",
            "resumed 0 5 false"
        ]
    );
}
