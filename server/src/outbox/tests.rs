mod interleavings;

use std::sync::Arc;

use super::*;
use crate::{metrics::Metrics, websocket::text_frame};

/// A socket that keeps what it takes, as far as it has room.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tape(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    bytes: Vec<u8>,
    /// Where in memory each slice was.
    addresses: Vec<usize>,
    writes: usize,
    /// How many bytes it takes yet; `None` is all.
    room: Option<usize>,
    broken: bool,
}

impl Wire for Tape {
    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut taken = self.0.lock().unwrap();
        taken.writes += 1;
        if taken.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut written = 0;
        for slice in slices {
            let fits = taken.room.unwrap_or(usize::MAX).min(slice.len());
            taken.bytes.extend_from_slice(&slice[..fits]);
            taken.addresses.push(slice.as_ptr() as usize);
            if let Some(room) = &mut taken.room {
                *room -= fits;
            }
            written += fits;
            if fits < slice.len() {
                break;
            }
        }
        match written {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(written),
        }
    }
}

impl Tape {
    /// Takes the texts of the whole frames that were written.
    pub(crate) fn texts(&self) -> Vec<String> {
        let mut taken = self.0.lock().unwrap();
        let mut texts = Vec::new();
        let mut rest = &taken.bytes[..];
        loop {
            let (header, length) = match *rest {
                [_, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([high, low]))),
                [_, length, ..] => (2, usize::from(length)),
                _ => break,
            };
            let Some(frame) = rest.get(header..header + length) else {
                break;
            };
            texts.push(String::from_utf8(frame.to_vec()).unwrap());
            rest = &rest[header + length..];
        }
        taken.bytes = rest.to_vec();
        texts
    }

    /// Where in memory each slice was that was written.
    pub(crate) fn addresses(&self) -> Vec<usize> {
        self.0.lock().unwrap().addresses.clone()
    }

    /// From now on it takes so many bytes and then no more.
    fn narrow(&self, room: usize) {
        self.0.lock().unwrap().room = Some(room);
    }

    fn widen(&self) {
        self.0.lock().unwrap().room = None;
    }

    fn writes(&self) -> usize {
        self.0.lock().unwrap().writes
    }
}

/// Writes what waits.
pub(crate) fn flush(outbox: &Outbox) -> Flushed {
    outbox.flush(&mut Metrics::new([]).sent())
}

struct Session {
    outbox: Outbox,
    tape: Tape,
}

/// A session that has begun.
fn session(events: usize, bytes: usize) -> Session {
    let tape = Tape::default();
    let bounds = Bounds { events, bytes };
    let outbox = Outbox::new(bounds, Framing::PLAIN, tape.clone());
    let session = Session { outbox, tape };
    session.push_in_order("connected");
    assert_eq!(session.flushed(), (vec!["connected".into()], Flushed::Written));
    session
}

impl Session {
    fn push_event(&self, text: &str) -> Pushed {
        self.outbox.push_event(Encoded::json(text))
    }

    fn push_in_order(&self, text: &str) {
        self.outbox.push_in_order(Encoded::json(text));
    }

    fn push_overtaking(&self, text: &str) {
        self.outbox.push_overtaking(Encoded::json(text));
    }

    /// What a flush writes, and what it comes to.
    fn flushed(&self) -> (Vec<String>, Flushed) {
        let flushed = flush(&self.outbox);
        (self.tape.texts(), flushed)
    }

    fn roused(&self) -> bool {
        let mut context = Context::from_waker(std::task::Waker::noop());
        self.outbox.poll_roused(&mut context).is_ready()
    }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn too_slow() -> Flushed {
    Flushed::Closing(CloseCode::TooSlow.into())
}

#[test]
fn events_and_frames_keep_their_order() {
    let session = session(10, 1000);
    session.push_event("1");
    session.push_in_order("2");
    session.push_event("3");
    session.push_overtaking("0");
    assert_eq!(
        session.flushed(),
        (texts(&["0", "1", "2", "3"]), Flushed::Written)
    );
    // The first of the session's was one write, and these are one.
    assert_eq!(session.tape.writes(), 2);
}

#[test]
fn nothing_overtakes_the_first_frame() {
    let tape = Tape::default();
    let bounds = Bounds {
        events: 10,
        bytes: 1000,
    };
    let outbox = Outbox::new(bounds, Framing::PLAIN, tape.clone());
    let session = Session { outbox, tape };
    session.push_in_order("connected");
    session.push_event("1");
    session.push_overtaking("error");
    assert_eq!(session.flushed().0, texts(&["connected", "error", "1"]));
}

#[test]
fn only_the_first_event_that_waits_asks_for_a_flush() {
    let session = session(10, 1000);
    assert_eq!(session.push_event("1"), Pushed::First);
    assert_eq!(session.push_event("2"), Pushed::Queued);
    session.flushed();
    assert_eq!(session.push_event("3"), Pushed::First);
    assert!(!session.roused(), "an event is not the connection's to write");
}

#[test]
fn one_event_too_many_closes_as_too_slow() {
    let session = session(2, 1000);
    session.push_event("1");
    session.push_event("2");
    assert_eq!(session.push_event("3"), Pushed::Refused);
    assert!(session.roused());
    assert_eq!(session.flushed(), (texts(&[]), too_slow()));
    assert_eq!(
        session.push_event("4"),
        Pushed::Refused,
        "nothing follows a close"
    );
}

#[test]
fn one_byte_too_many_closes_as_too_slow() {
    // A frame's header takes 2 bytes.
    let session = session(10, 12);
    session.push_event("1234");
    session.push_event("1234");
    assert_eq!(session.push_event(""), Pushed::Refused);
    assert_eq!(session.flushed().1, too_slow());
}

#[test]
fn full_of_events_there_is_still_room_for_answers() {
    let session = session(1, 1000);
    session.push_event("event");
    session.push_in_order("pong");
    session.push_overtaking("reply");
    assert_eq!(session.flushed().0, texts(&["reply", "event", "pong"]));
}

#[test]
fn the_reserve_has_an_end() {
    let session = session(1, 1000);
    for _ in 0..queue::RESERVE / 2 {
        session.push_in_order("pong");
        session.push_overtaking("reply");
    }
    assert_eq!(session.outbox.closing(), None);
    session.push_overtaking("reply");
    assert_eq!(session.flushed().1, too_slow());
}

#[test]
fn what_waits_goes_before_the_close() {
    let session = session(10, 1000);
    session.push_event("1");
    session.outbox.close(CloseCode::Unauthorized);
    session.outbox.close(CloseCode::TooSlow);
    session.push_event("2");
    assert_eq!(
        session.flushed(),
        (texts(&["1"]), Flushed::Closing(CloseCode::Unauthorized.into()))
    );
}

#[test]
fn what_the_socket_does_not_take_goes_on_where_it_stopped() {
    let session = session(10, 1000);
    session.tape.narrow(5);
    session.push_event("one");
    session.push_event("two");
    let (written, flushed) = session.flushed();
    assert_eq!(written, texts(&["one"]));
    let Flushed::Blocked { batch, left: 5 } = flushed else {
        panic!("{flushed:?}");
    };
    session.push_event("three");
    let same = Flushed::Blocked { batch, left: 5 };
    assert_eq!(session.flushed(), (texts(&[]), same));
    session.tape.narrow(7);
    let (written, flushed) = session.flushed();
    assert_eq!(written, texts(&["two"]));
    let Flushed::Blocked { batch: next, left: 5 } = flushed else {
        panic!("{flushed:?}");
    };
    assert_ne!(next, batch, "the last one went out whole");
    session.tape.widen();
    assert_eq!(session.flushed(), (texts(&["three"]), Flushed::Written));
}

#[test]
fn what_a_flusher_leaves_is_told_to_the_connection() {
    let metrics = Metrics::new([]);
    let session = session(10, 1000);
    session.push_event("1");
    session.outbox.flush_live(&mut metrics.sent());
    assert!(!session.roused(), "nothing is left");
    session.tape.narrow(0);
    session.push_event("2");
    session.outbox.flush_live(&mut metrics.sent());
    assert!(session.roused(), "the socket is full");
    session.tape.widen();
    session.flushed();
    session.outbox.close(CloseCode::GoingAway);
    session.outbox.flush_live(&mut metrics.sent());
    assert!(session.roused(), "the session ends, whoever flushed first");
    let broken = self::session(10, 1000);
    broken.tape.0.lock().unwrap().broken = true;
    broken.push_event("1");
    broken.outbox.flush_live(&mut metrics.sent());
    assert!(broken.roused(), "the socket is broken");
    assert_eq!(broken.flushed().1, Flushed::Lost);
}

#[test]
fn a_pong_goes_as_soon_as_the_socket_has_taken_what_it_was_given() {
    let session = session(10, 1000);
    session.push_event("1");
    session.outbox.push_pong(text_frame("pong"));
    assert_eq!(session.flushed().0, texts(&["pong", "1"]));
    session.tape.narrow(1);
    session.push_event("2");
    session.flushed();
    session.push_event("3");
    session.outbox.push_pong(text_frame("pong to the first"));
    session.outbox.push_pong(text_frame("pong"));
    session.tape.widen();
    assert_eq!(session.flushed(), (texts(&["2", "pong", "3"]), Flushed::Written));
}

#[test]
fn a_control_frame_has_a_deadline_of_its_own() {
    let session = session(10, 1000);
    session.tape.narrow(1);
    session.push_event("1");
    let Flushed::Blocked { batch, .. } = session.flushed().1 else {
        panic!("the socket is full");
    };
    // A flusher of the shard writes the rest.
    session.tape.widen();
    session.outbox.flush_live(&mut Metrics::new([]).sent());
    session.tape.narrow(0);
    session.outbox.push_pong(text_frame("pong"));
    let Flushed::Blocked { batch: pong, .. } = session.flushed().1 else {
        panic!("the socket is full");
    };
    assert_ne!(pong, batch, "what waited before went out whole");
}

#[test]
fn who_is_to_be_asked_for_a_sign_of_life_is_not_where_something_waits() {
    let session = session(10, 1000);
    session.outbox.push_ping(text_frame("ping"));
    assert_eq!(session.flushed().0, texts(&["ping"]));
    session.tape.narrow(1);
    session.push_event("1");
    session.flushed();
    session.outbox.push_ping(text_frame("ping"));
    session.tape.widen();
    assert_eq!(session.flushed().0, texts(&["1"]));
}

#[test]
fn events_are_withdrawn_and_the_rest_stays() {
    let session = session(2, 1000);
    session.push_event("1");
    session.push_in_order("pong");
    session.push_event("2");
    assert!(!session.outbox.has_room_for_a_step());
    session.outbox.withdraw_events();
    assert!(session.outbox.has_room_for_a_step());
    session.outbox.append_event(Encoded::json("3"));
    session.outbox.append_event(Encoded::json("4"));
    assert_eq!(session.flushed().0, texts(&["pong", "3", "4"]));
}

#[test]
fn no_event_leaves_while_the_position_is_being_decided() {
    let session = session(10, 1000);
    session.push_event("1");
    assert!(session.outbox.hold_events());
    session.push_overtaking("reply");
    assert_eq!(session.flushed(), (texts(&["reply"]), Flushed::Written));
    session.outbox.release();
    assert!(session.roused());
    assert_eq!(session.flushed().0, texts(&["1"]));
    assert!(!session.outbox.hold_events(), "one has left");
}

#[test]
fn who_parts_is_the_only_one_who_writes() {
    let session = session(10, 1000);
    session.tape.narrow(4);
    for text in ["one", "two"] {
        session.push_event(text);
    }
    session.flushed();
    let last = session.outbox.seal(true);
    assert_eq!(last.pending_bytes(), 1, "the rest of the frame that has begun");
    session.tape.widen();
    assert_eq!(
        session.push_event("three"),
        Pushed::Refused,
        "nobody would write it"
    );
    assert_eq!(session.outbox.depth(), (0, 0), "nothing waits for nobody");
    assert_eq!(session.flushed(), (texts(&[]), Flushed::Written));
}

/// A socket that breaks its writer.
struct Faulty;

impl Wire for Faulty {
    fn try_write_vectored(&self, _: &[IoSlice<'_>]) -> io::Result<usize> {
        panic!("a fault of ours");
    }
}

#[test]
fn what_a_panic_lost_is_not_passed_over() {
    let bounds = Bounds {
        events: 10,
        bytes: 1000,
    };
    let outbox = Outbox::new(bounds, Framing::PLAIN, Faulty);
    outbox.push_event(Encoded::json("1"));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| flush(&outbox)));
    assert!(panicked.is_err());
    // What came after it would tell the client that it has all before it.
    outbox.push_event(Encoded::json("2"));
    assert_eq!(flush(&outbox), Flushed::Lost);
}
