//! Who is here and what they want.
//!
//! `dispatch` is called by one task only, in the order of the stream. Users are spread over shards; a shard has
//! their sessions, their part of the past and its own last sequence under its own lock, with which go `dispatch` to
//! the shard and every change of a session's patterns. So a frame which carries a sequence always says the truth: all of
//! the session's events up to it stand before it in the session's queue.
//!
//! How far everything was dispatched is one number beside the shards. It is raised after the shards that an event
//! concerned have it: whoever holds a shard's lock may count on everything up to it, as what did not concern the
//! shard was for others.
//!
//! A session is *live*, a [`Registration`], or it is *replaying*, a [`Replay`]: a cursor that pulls from the past
//! at its own socket's pace. Nothing is pushed to it or held for it. It becomes live in the one locked step in
//! which its cursor reaches what was dispatched last.
//!
//! What was put into outboxes is written by whoever takes [`Router::touched`]: a flusher for each shard.
//!
//! Invariants: no I/O, no clock, no `async`, no payload parsed; an event is encoded once, for all who want it
//! and for the past, under no lock; one that is for nobody here and that is not kept is not encoded.

mod index;
mod interest;
mod replace;
mod replay;
mod shard;

use std::{
    collections::HashSet,
    future::poll_fn,
    hash::{BuildHasher as _, RandomState},
    mem,
    num::NonZero,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rivulet_protocol::{
    message::{Gap, ServerMessage},
    scalar::SafeInteger,
    subject::UserId,
};

use self::{
    index::MemberId,
    interest::Types,
    shard::{Parcel, Shard, State},
};
pub use self::{
    interest::Interest,
    replay::{Asked, Replay, Replayed, Step},
};
use crate::{
    encoded::Encoded,
    event::{Audience, Event},
    history::{Forget, Span},
    outbox::Outbox,
    presence::{Here, Presence},
};

/// The most events of the past that are given up under one lock.
const CUT: usize = 1_024;

/// Everyone who is here, and how far the stream has been dispatched.
#[derive(Debug)]
pub struct Router {
    shards: Box<[Shard]>,
    /// From users to shards.
    hasher: RandomState,
    /// All shards have every event up to here, where there is a stream.
    dispatched: AtomicU64,
    /// The oldest sequence that the stream still keeps, as last heard.
    oldest: AtomicU64,
    types: Mutex<Types>,
    keeping: Keeping,
}

/// What of the stream is kept in memory.
#[derive(Clone, Debug, Default)]
pub struct Keeping {
    /// About how many bytes the past may take. Compressed forms, made when somebody wants one, come on top.
    pub bytes: usize,
    /// The types whose events live only in the moment: never kept, never replayed.
    pub ephemeral: Arc<HashSet<String>>,
    /// Of whom: sessions enter their users.
    pub presence: Arc<Presence>,
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
    /// A router that nobody is at yet. The more shards, the more cores write side by side.
    pub fn new(keeping: Keeping, shards: NonZero<usize>) -> Self {
        Self {
            shards: (0..shards.get()).map(|_| Shard::default()).collect(),
            hasher: RandomState::new(),
            dispatched: AtomicU64::new(0),
            oldest: AtomicU64::new(0),
            types: Mutex::default(),
            keeping,
        }
    }

    /// Takes the stream's epoch, the sequence after which events will come, and whether the stream keeps what
    /// resuming exactly needs. Called before the first event.
    pub fn open(&self, epoch: &str, seq: u64, durable: bool) {
        let position = Position {
            epoch: Some(epoch.into()),
            seq: Some(seq),
            oldest: None,
            durable,
        };
        for state in &mut self.lock_all() {
            state.past = Span::new(seq);
            state.position = position.clone();
        }
        self.dispatched.store(seq, Ordering::Release);
    }

    /// Seats a session. `first` makes its first frame, in the same step: what it says of the position is exact.
    pub fn register(
        self: &Arc<Self>,
        user: UserId,
        interest: Interest,
        outbox: Arc<Outbox>,
        first: impl FnOnce(&Position) -> Encoded,
    ) -> Registration {
        let here = self.keeping.presence.enter(&user);
        let mut state = self.lock(&user);
        outbox.push_in_order(first(&state.position));
        Registration::join(self, &mut state, user, interest, outbox, 0, here)
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
        let replay = Replay::begin(
            Arc::clone(self),
            user,
            interest,
            Arc::clone(&outbox),
            asked.clone(),
        );
        let state = self.lock(&replay.user);
        let accepted = state.accepts(&asked, &replay.here);
        outbox.push_in_order(first(&state.position, accepted));
        drop(state);
        replay
    }

    /// Whether the past in memory reaches back to this position for this user, so that a replay from it needs no
    /// other.
    pub fn remembers(&self, user: &UserId, epoch: &str, seq: u64) -> bool {
        let since = self.keeping.presence.since(user);
        let state = self.lock(user);
        let same = state.position.epoch.as_deref() == Some(epoch);
        !same || state.position.seq <= Some(seq) || (seq >= since && state.past.covers(seq))
    }

    /// Whether all that follows a position is still there, in memory or in the stream, as far as is known now. `head`:
    /// as the stream's leader gave it, or 0.
    pub fn reaches(&self, user: &UserId, epoch: &str, seq: u64, head: u64) -> bool {
        let since = self.keeping.presence.since(user);
        let state = self.lock(user);
        let position = &state.position;
        let remembered = seq >= since && state.past.covers(seq);
        let kept = position
            .oldest
            .is_none_or(|oldest| seq + 1 >= oldest || remembered);
        position.epoch.as_deref() == Some(epoch)
            && position.seq.is_some_and(|here| seq <= here.max(head))
            && kept
    }

    /// Puts the event into the outbox of every session that it concerns. Returns the number of copies.
    pub fn dispatch(&self, event: &Event) -> usize {
        let keeps = self.keeping.keeps(event);
        let copies = if keeps || self.awaits(&event.audience) {
            self.distribute(event, keeps)
        } else {
            0
        };
        if let Some(seq) = event.seq {
            self.advance(seq);
        }
        copies
    }

    fn distribute(&self, event: &Event, keeps: bool) -> usize {
        let mut parcel = Parcel {
            event,
            type_id: self.types().id(event.event_type.as_str()),
            encoded: Encoded::event(event),
            as_error: Encoded::event_as_error(event),
            keeps,
            past_bytes: self.keeping.bytes / self.shards.len(),
            shards: 1,
        };
        match &event.audience {
            Audience::Everyone => {
                parcel.shards = self.shards.len();
                let copies = self
                    .shards
                    .iter()
                    .map(|shard| shard.dispatch(&parcel, Audience::Everyone));
                copies.sum()
            }
            Audience::Users(users) if users.len() == 1 || self.shards.len() == 1 => {
                self.shard(&users[0]).dispatch(&parcel, event.audience.clone())
            }
            Audience::Users(users) => {
                let mut placed: Vec<_> = users.iter().map(|user| (self.place(user), user)).collect();
                placed.sort_by_key(|(place, _)| *place);
                let by_shard = placed.chunk_by(|(one, _), (other, _)| one == other);
                let copies = by_shard.map(|part| {
                    let users = part.iter().map(|(_, user)| (*user).clone()).collect();
                    self.shards[part[0].0].dispatch(&parcel, Audience::Users(users))
                });
                copies.sum()
            }
        }
    }

    /// Notes that the stream went on to `seq` with nothing to deliver: an event without an audience, or a rejected one.
    pub fn advance(&self, seq: u64) {
        let before = self.dispatched.swap(seq, Ordering::AcqRel);
        debug_assert!(before < seq, "a cursor is one number: sequences only rise");
    }

    /// Notes the oldest sequence that the stream still keeps. Memory gives up what lies before it.
    pub fn keeps_from(&self, seq: u64) {
        self.oldest.store(seq, Ordering::Relaxed);
        for shard in &self.shards {
            loop {
                let mut state = self.reached(shard);
                state.position.oldest = Some(seq);
                if state.past.cut(seq, CUT) {
                    break;
                }
            }
        }
    }

    /// Has memory give up what is not to be told again.
    pub fn forget(&self, forget: Forget<'_>) {
        for shard in &self.shards {
            match forget {
                Forget::These(removed) => self.reached(shard).past.remove(removed),
                Forget::UpTo(seq) => while !self.reached(shard).past.cut(seq.saturating_add(1), CUT) {},
            }
        }
    }

    /// Tells every session that a range of the stream is gone, and goes on after it.
    pub fn gap(&self, gap: Gap) {
        let epoch: Arc<str> = gap.stream.as_str().into();
        let seq = gap.to_seq.get();
        let encoded = Encoded::message(&ServerMessage::Gap(gap), None);
        let mut states = self.lock_all();
        for state in &mut states {
            state.position.epoch = Some(Arc::clone(&epoch));
            state.position.seq = Some(seq);
            state.past = Span::new(seq);
            for member in state.index.all_mut() {
                // What it waited for may never come: sequences may begin anew.
                member.after = 0;
                member.outbox.push_in_order(encoded.clone());
            }
        }
        // While nobody can look: it may be lower than before.
        self.dispatched.store(seq, Ordering::Release);
    }

    /// How far the stream has been dispatched to a user: a shard that an event concerns may have it before the others.
    pub fn position(&self, user: &UserId) -> Position {
        self.lock(user).position.clone()
    }

    /// Who is here, in numbers. Walks over all sessions: for a scrape, not for an event.
    pub fn census(&self) -> Census {
        let mut census = Census::default();
        let reach = self.shards.iter().map(|shard| {
            let state = self.reached(shard);
            state.count(&mut census);
            state.past.to() - state.past.after()
        });
        // What one of them can't answer, the node can't.
        census.past_sequences = reach.min().unwrap_or_default();
        census
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Waits until live events wait in outboxes of a shard. One task for each shard.
    pub async fn touched(&self, shard: usize) {
        poll_fn(|context| self.shards[shard].poll_touched(context)).await;
    }

    /// Puts the outboxes of a shard in which live events wait into `touched`, which is empty: they are to be flushed.
    pub fn take_touched(&self, shard: usize, touched: &mut Vec<Arc<Outbox>>) {
        mem::swap(&mut self.shards[shard].lock().touched, touched);
    }

    /// Whether the event is for anybody who is here.
    fn awaits(&self, audience: &Audience) -> bool {
        match audience {
            Audience::Users(users) => {
                let mut users = users.iter();
                users.any(|user| self.shard(user).lock().awaits(Some(user)))
            }
            Audience::Everyone => self.shards.iter().any(|shard| shard.lock().awaits(None)),
        }
    }

    fn place(&self, user: &UserId) -> usize {
        self.hasher.hash_one(user) as usize % self.shards.len()
    }

    fn shard(&self, user: &UserId) -> &Shard {
        &self.shards[self.place(user)]
    }

    /// A user's shard, its position up to date.
    fn lock(&self, user: &UserId) -> MutexGuard<'_, State> {
        self.reached(self.shard(user))
    }

    fn reached<'a>(&self, shard: &'a Shard) -> MutexGuard<'a, State> {
        let mut state = shard.lock();
        state.reach(self.dispatched.load(Ordering::Acquire));
        state
    }

    /// All shards at once, for what is rare: in their order, so that two who do it don't wait for each other.
    fn lock_all(&self) -> Vec<MutexGuard<'_, State>> {
        self.shards.iter().map(Shard::lock).collect()
    }

    fn types(&self) -> MutexGuard<'_, Types> {
        self.types.lock().unwrap_or_else(PoisonError::into_inner)
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
    _here: Here,
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
        here: Here,
    ) -> Self {
        let member = state
            .index
            .add(user.clone(), interest, Arc::clone(&outbox), after);
        Self {
            router: Arc::clone(router),
            user,
            member,
            outbox,
            _here: here,
        }
    }

    /// Changes what the session wants and appends the frame that says so, in one step: every matching event
    /// after the position that `frame` is given will come.
    pub fn change(&self, interest: Interest, frame: impl FnOnce(&Position) -> Encoded) {
        let mut state = self.router.lock(&self.user);
        self.outbox.push_in_order(frame(&self.position(&state)));
        state.index.change(self.member, interest);
    }

    /// Changes what the session may see, with the patterns as they were: nothing is said of it.
    pub fn permit(&self, interest: Interest) {
        let mut state = self.router.lock(&self.user);
        state.index.change(self.member, interest);
    }

    /// Appends a frame that carries the position: all of the session's events up to it stand before it.
    pub fn mark(&self, frame: impl FnOnce(&Position) -> Encoded) {
        let state = self.router.lock(&self.user);
        self.outbox.push_in_order(frame(&self.position(&state)));
    }

    /// The position as this session has it: it may have come from a node that was ahead of this one.
    fn position(&self, state: &State) -> Position {
        let mut position = state.position.clone();
        let after = state.index.after(self.member);
        position.seq = position.seq.map(|seq| seq.max(after));
        position
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = self.router.lock(&self.user);
        state.index.remove(&self.user, self.member);
    }
}

#[cfg(test)]
mod tests;
