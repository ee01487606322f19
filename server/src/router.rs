//! Who is here and what they want.
//!
//! `dispatch` is called by one task only, in the order of the stream; with it and with every change of a
//! session's patterns goes the router's one lock, so that a frame which carries a sequence always says the truth:
//! all of the session's events up to it stand before it in the session's queue.
//!
//! A session is *live*, a [`Registration`], or it is *replaying*, a [`Replay`]: a cursor that pulls from the past
//! at its own socket's pace. Nothing is pushed to it or held for it. It becomes live in the one locked step in
//! which its cursor reaches what was dispatched last.
//!
//! Invariants: no I/O, no clock, no `async`, no payload parsed; an event is encoded once, for all who want it
//! and for the past; one that nobody wants and that is not kept is not encoded.

mod index;
mod interest;
mod replay;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rivulet_protocol::{
    message::{Gap, ServerMessage},
    scalar::SafeInteger,
    subject::UserId,
};

use self::index::{Index, Member, MemberId};
pub use self::{
    interest::Interest,
    replay::{Asked, Replay, Replayed, Step},
};
use crate::{
    encoded::Encoded,
    event::{Audience, Event},
    history::{Kept, Span},
    outbox::Outbox,
};

/// Everyone who is here, and how far the stream has been dispatched.
#[derive(Debug, Default)]
pub struct Router {
    state: Mutex<State>,
    keeping: Keeping,
}

/// What of the stream is kept in memory.
#[derive(Clone, Debug, Default)]
pub struct Keeping {
    /// About how many bytes the past may take. Compressed forms, made when somebody wants one, come on top.
    pub bytes: usize,
    /// The types whose events live only in the moment: never kept, never replayed.
    pub ephemeral: Arc<HashSet<String>>,
}

#[derive(Debug, Default)]
struct State {
    index: Index,
    position: Position,
    /// The last part of the stream: it ends with the position's sequence.
    past: Span,
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
    /// Whether the stream keeps what resuming exactly needs.
    pub durable: bool,
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
    /// Live sessions.
    pub sessions: usize,
    /// Users with at least one of them.
    pub users: usize,
    /// Messages that wait in outboxes.
    pub waiting_messages: usize,
    /// Bytes that wait in outboxes.
    pub waiting_bytes: usize,
    /// Events of the past that are in memory.
    pub past_events: usize,
    /// About how many bytes they take.
    pub past_bytes: usize,
    /// How far back they reach, in sequences.
    pub past_sequences: u64,
}

impl Router {
    /// A router that nobody is at yet.
    pub fn new(keeping: Keeping) -> Self {
        Self {
            state: Mutex::default(),
            keeping,
        }
    }

    /// Takes the stream's epoch, the sequence after which events will come, and whether the stream keeps what
    /// resuming exactly needs. Called before the first event.
    pub fn open(&self, epoch: &str, seq: u64, durable: bool) {
        let mut state = self.lock();
        state.past = Span::new(seq);
        state.position = Position {
            epoch: Some(epoch.into()),
            seq: Some(seq),
            oldest: None,
            durable,
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
        Registration::join(self, &mut state, user, interest, outbox, 0)
    }

    /// Begins a replay from an asked position instead: `first` makes the session's first frame and is told
    /// whether the position is accepted, as far as is known now.
    pub fn replay(
        self: &Arc<Self>,
        user: UserId,
        interest: Interest,
        outbox: Arc<Outbox>,
        asked: Asked,
        first: impl FnOnce(&Position, bool) -> Encoded,
    ) -> Replay {
        let state = self.lock();
        let accepted = state.accepts(&asked);
        outbox.push_in_order(first(&state.position, accepted));
        Replay::begin(Arc::clone(self), user, interest, outbox, asked)
    }

    /// Whether the past in memory reaches back to this position, so that a replay from it needs no other.
    pub fn remembers(&self, epoch: &str, seq: u64) -> bool {
        let state = self.lock();
        let same = state.position.epoch.as_deref() == Some(epoch);
        !same || state.position.seq <= Some(seq) || state.past.covers(seq)
    }

    /// Puts the event into the outbox of every session that it concerns. Returns the number of copies.
    pub fn dispatch(&self, event: &Event) -> usize {
        let mut state = self.lock();
        let mut copies = 0;
        let mut encoded = None;
        let mut encoded_error = None;
        let event_type = event.event_type.as_str();
        let mut deliver = |member: &Member| {
            let Member { interest, outbox, .. } = member;
            if event.seq.is_some_and(|seq| seq <= member.after) {
                return;
            }
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
                        deliver(member);
                    }
                }
            }
            Audience::Everyone => {
                for member in state.index.all() {
                    deliver(member);
                }
            }
        }
        if self.keeping.keeps(event) && self.keeping.bytes == 0 {
            state.past = Span::new(event.seq.unwrap_or_default());
        } else if self.keeping.keeps(event) {
            let encoded = encoded.unwrap_or_else(|| Encoded::event(event));
            let as_error = encoded_error.unwrap_or_else(|| Encoded::event_as_error(event));
            if let Some(kept) = Kept::new(event, encoded, as_error) {
                state.past.push(kept);
                state.past.shrink(self.keeping.bytes);
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
        state.past = Span::new(gap.to_seq.get());
        let encoded = Encoded::message(&ServerMessage::Gap(gap), None);
        for member in state.index.all_mut() {
            // What it waited for may never come: sequences may begin anew.
            member.after = 0;
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
            past_events: state.past.len(),
            past_bytes: state.past.bytes(),
            past_sequences: state.past.to() - state.past.after(),
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
        self.past.advance(seq);
    }

    /// Whether a replay from here would miss nothing, as far as is known now.
    fn accepts(&self, asked: &Asked) -> bool {
        let Some(head) = self.position.seq else {
            return false;
        };
        let kept = self
            .position
            .oldest
            .is_none_or(|oldest| asked.seq + 1 >= oldest || self.past.covers(asked.seq));
        self.position.epoch.as_deref() == Some(&*asked.epoch) && asked.seq <= head.max(asked.head) && kept
    }
}

impl Keeping {
    /// Whether the event may be asked for again.
    fn keeps(&self, event: &Event) -> bool {
        event.seq.is_some() && !self.ephemeral.contains(event.event_type.as_str())
    }
}

/// A live session's seat in the router; dropped, the session gets nothing more.
#[derive(Debug)]
pub struct Registration {
    router: Arc<Router>,
    user: UserId,
    member: MemberId,
    outbox: Arc<Outbox>,
}

impl Registration {
    /// Seats a session that has had everything up to `after`, which may lie ahead of this node.
    fn join(
        router: &Arc<Router>,
        state: &mut State,
        user: UserId,
        interest: Interest,
        outbox: Arc<Outbox>,
        after: u64,
    ) -> Self {
        let member = state
            .index
            .add(user.clone(), interest, Arc::clone(&outbox), after);
        Self {
            router: Arc::clone(router),
            user,
            member,
            outbox,
        }
    }

    /// Changes what the session wants and appends the frame that says so, in one step: every matching event
    /// after the position that `frame` is given will come.
    pub fn change(&self, interest: Interest, frame: impl FnOnce(&Position) -> Encoded) {
        let mut state = self.router.lock();
        self.outbox.push_in_order(frame(&self.position(&state)));
        state.index.change(&self.user, self.member, interest);
    }

    /// Changes what the session may see, with the patterns as they were: nothing is said of it.
    pub fn permit(&self, interest: Interest) {
        self.router.lock().index.change(&self.user, self.member, interest);
    }

    /// Appends a frame that carries the position: all of the session's events up to it stand before it.
    pub fn mark(&self, frame: impl FnOnce(&Position) -> Encoded) {
        let state = self.router.lock();
        self.outbox.push_in_order(frame(&self.position(&state)));
    }

    /// The position as this session has it: it may have come from a node that was ahead of this one.
    fn position(&self, state: &State) -> Position {
        let mut position = state.position.clone();
        let after = state.index.after(&self.user, self.member);
        position.seq = position.seq.map(|seq| seq.max(after));
        position
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.router.lock().index.remove(&self.user, self.member);
    }
}

#[cfg(test)]
mod tests;
