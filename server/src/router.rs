//! Who is here and what they want.
//!
//! `dispatch` is called by one task only, in the order of the stream; with it and with every change of a
//! session's patterns goes the router's one lock, so that a frame which carries a sequence always says the truth:
//! all of the session's events up to it stand before it in the session's queue.
//!
//! Invariants: no I/O, no clock, no `async`, no payload parsed; an event that nobody wants is not encoded; one
//! that many want is encoded once.

mod index;
mod interest;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rivulet_protocol::{
    message::{Gap, ServerMessage},
    scalar::SafeInteger,
    subject::UserId,
};

use self::index::{Index, MemberId};
pub use self::interest::Interest;
use crate::{
    encoded::Encoded,
    event::{Audience, Event},
    outbox::Outbox,
};

/// Everyone who is here, and how far the stream has been dispatched.
#[derive(Debug, Default)]
pub struct Router {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    index: Index,
    position: Position,
}

/// How far the stream has been dispatched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The stream's epoch; `None` without a stream.
    pub epoch: Option<Arc<str>>,
    /// The last sequence dispatched.
    pub seq: Option<u64>,
    /// The oldest sequence that the stream still keeps, as last heard.
    pub oldest: Option<u64>,
}

impl Position {
    /// The sequence as frames carry it.
    pub fn wire_seq(&self) -> Option<SafeInteger> {
        self.seq.and_then(SafeInteger::new)
    }
}

/// Who is here, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Sessions.
    pub sessions: usize,
    /// Users with at least one.
    pub users: usize,
    /// Messages that wait in outboxes.
    pub waiting_messages: usize,
    /// Bytes that wait in outboxes.
    pub waiting_bytes: usize,
}

impl Router {
    /// Takes the stream's epoch and the sequence after which events will come. Called before the first event,
    /// and again only after [`Router::gap`] told the sessions of another epoch.
    pub fn open(&self, epoch: &str, seq: u64) {
        self.lock().position = Position {
            epoch: Some(epoch.into()),
            seq: Some(seq),
            oldest: None,
        };
    }

    /// Seats a session. `first` makes its first frame, in the same step: what it says of the position is exact.
    pub fn register(
        self: &Arc<Self>,
        user: UserId,
        interest: Interest,
        outbox: Arc<Outbox>,
        first: impl FnOnce(&Position) -> Encoded,
    ) -> Registration {
        let mut state = self.lock();
        outbox.push_in_order(first(&state.position));
        let member = state.index.add(user.clone(), interest, Arc::clone(&outbox));
        Registration {
            router: Arc::clone(self),
            user,
            member,
            outbox,
        }
    }

    /// Puts the event into the outbox of every session that it concerns. Returns the number of copies.
    pub fn dispatch(&self, event: &Event) -> usize {
        let mut state = self.lock();
        let mut copies = 0;
        let mut encoded = None;
        let mut encoded_error = None;
        let event_type = event.event_type.as_str();
        let mut deliver = |interest: &Interest, outbox: &Outbox| {
            if interest.wants(event_type) {
                let encoded: &Encoded = encoded.get_or_insert_with(|| Encoded::event(event));
                copies += usize::from(outbox.push_event(encoded.clone()));
            }
            if event.as_error.is_some() && interest.wants_errors() {
                let encoded: &Option<Encoded> =
                    encoded_error.get_or_insert_with(|| Encoded::event_as_error(event));
                if let Some(encoded) = encoded {
                    copies += usize::from(outbox.push_event(encoded.clone()));
                }
            }
        };
        match &event.audience {
            Audience::Users(users) => {
                for user in users {
                    for member in state.index.of_user(user) {
                        deliver(&member.interest, &member.outbox);
                    }
                }
            }
            Audience::Everyone => {
                for member in state.index.all() {
                    deliver(&member.interest, &member.outbox);
                }
            }
        }
        if let Some(seq) = event.seq {
            state.advance(seq);
        }
        copies
    }

    /// Notes that the stream went on to `seq` with nothing to deliver: an event without an audience, or a rejected one.
    pub fn advance(&self, seq: u64) {
        self.lock().advance(seq);
    }

    /// Notes the oldest sequence that the stream still keeps.
    pub fn keeps_from(&self, seq: u64) {
        self.lock().position.oldest = Some(seq);
    }

    /// Tells every session that a range of the stream is gone, and goes on after it.
    pub fn gap(&self, gap: Gap) {
        let mut state = self.lock();
        state.position.epoch = Some(gap.stream.as_str().into());
        state.position.seq = Some(gap.to_seq.get());
        let encoded = Encoded::message(&ServerMessage::Gap(gap), None);
        for member in state.index.all() {
            member.outbox.push_in_order(encoded.clone());
        }
    }

    /// How far the stream has been dispatched.
    pub fn position(&self) -> Position {
        self.lock().position.clone()
    }

    /// Who is here, in numbers. Walks over all sessions: for a scrape, not for an event.
    pub fn census(&self) -> Census {
        let state = self.lock();
        let mut census = Census {
            users: state.index.users(),
            ..Census::default()
        };
        for member in state.index.all() {
            let (messages, bytes) = member.outbox.depth();
            census.sessions += 1;
            census.waiting_messages += messages;
            census.waiting_bytes += bytes;
        }
        census
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock (memory ran out in an encoding) leaves the index whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn advance(&mut self, seq: u64) {
        debug_assert!(
            self.position.seq < Some(seq),
            "a cursor is one number: sequences only rise"
        );
        self.position.seq = Some(seq);
    }
}

/// A session's seat in the router; dropped, the session gets nothing more.
#[derive(Debug)]
pub struct Registration {
    router: Arc<Router>,
    user: UserId,
    member: MemberId,
    outbox: Arc<Outbox>,
}

impl Registration {
    /// Changes what the session wants and appends the frame that says so, in one step: every matching event
    /// after the position that `frame` is given will come.
    pub fn change(&self, interest: Interest, frame: impl FnOnce(&Position) -> Encoded) {
        let mut state = self.router.lock();
        self.outbox.push_in_order(frame(&state.position));
        state.index.change(&self.user, self.member, interest);
    }

    /// Changes what the session may see, with the patterns as they were: nothing is said of it.
    pub fn permit(&self, interest: Interest) {
        self.router.lock().index.change(&self.user, self.member, interest);
    }

    /// Appends a frame that carries the position: all of the session's events up to it stand before it.
    pub fn mark(&self, frame: impl FnOnce(&Position) -> Encoded) {
        let state = self.router.lock();
        self.outbox.push_in_order(frame(&state.position));
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.router.lock().index.remove(&self.user, self.member);
    }
}

#[cfg(test)]
mod tests;
