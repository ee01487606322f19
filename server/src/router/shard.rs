//! A part of the users: who of them is here, what was dispatched to them, and their past.
//!
//! Everything about a session lies in its user's shard, under the shard's one lock; no lock is wider.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use atomic_waker::AtomicWaker;
use rivulet_protocol::subject::UserId;

use super::{
    Asked, Census, Position,
    index::{Index, Member},
    interest::{Interests, TypeId},
    replace::Replaced,
};
use crate::{
    encoded::Encoded,
    event::{Audience, Event},
    history::{Kept, Span},
    outbox::{Outbox, Pushed},
    presence::Here,
};

#[derive(Debug, Default)]
pub(super) struct Shard {
    state: Mutex<State>,
    /// Who writes what was put into the outboxes.
    flusher: AtomicWaker,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) index: Index,
    /// What is known of the stream. Its sequence is that of the last event that concerned the shard: see
    /// [`State::reach`].
    pub(super) position: Position,
    /// The last part of the stream, as far as it concerns the shard: it ends with the position's sequence.
    pub(super) past: Span,
    /// What of it was not the stream's.
    pub(super) replaced: Replaced,
    /// Outboxes in which live events wait, each once.
    pub(super) touched: Vec<Arc<Outbox>>,
}

/// An event that is on its way to some shards.
pub(super) struct Parcel<'a> {
    pub(super) event: &'a Event,
    pub(super) type_id: Option<TypeId>,
    /// The event as a frame, and the `error` frame that it also is.
    pub(super) encoded: Encoded,
    pub(super) as_error: Option<Encoded>,
    /// Whether it may be asked for again.
    pub(super) keeps: bool,
    /// About how many bytes a shard's past may take.
    pub(super) past_bytes: usize,
    /// Over how many shards it is for.
    pub(super) shards: usize,
}

impl Shard {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock (memory ran out) leaves the index whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an event into the outboxes of those whom it concerns. Returns the number of copies.
    pub(super) fn dispatch(&self, parcel: &Parcel<'_>, audience: Audience) -> usize {
        let mut state = self.lock();
        let copies = state.deliver(parcel, &audience);
        if let Some(seq) = parcel.event.seq {
            state.position.seq = Some(seq);
            state.remember(parcel, audience, seq);
        }
        let waits = !state.touched.is_empty();
        drop(state);
        if waits {
            self.flusher.wake();
        }
        copies
    }

    /// Waits until live events wait in outboxes.
    pub(super) fn poll_touched(&self, context: &mut Context<'_>) -> Poll<()> {
        // Registered first: what is put there after the look wakes.
        self.flusher.register(context.waker());
        match self.lock().touched.is_empty() {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    }
}

impl State {
    /// Takes over how far all events have been dispatched: up to there, what did not concern the shard was for
    /// others. To be called under the lock, before its position or its past is looked at.
    pub(super) fn reach(&mut self, dispatched: u64) {
        if let Some(seq) = &mut self.position.seq {
            *seq = dispatched.max(*seq);
            self.past.advance(*seq);
        }
    }

    fn deliver(&mut self, parcel: &Parcel<'_>, audience: &Audience) -> usize {
        let Self { index, touched, .. } = self;
        let Parcel { event, type_id, .. } = parcel;
        let event_type = event.event_type.as_str();
        let mut copies = 0;
        let mut push = |outbox: &Arc<Outbox>, encoded: &Encoded| match outbox.push_event(encoded.clone()) {
            Pushed::Refused => {}
            Pushed::Queued => copies += 1,
            Pushed::First => {
                copies += 1;
                touched.push(Arc::clone(outbox));
            }
        };
        let mut visit = |member: &Member, interests: &mut Interests| {
            if event.seq.is_some_and(|seq| seq <= member.after) {
                return;
            }
            if interests.wants(member.interest, event_type, *type_id) {
                push(&member.outbox, &parcel.encoded);
            }
            if let Some(as_error) = &parcel.as_error
                && interests.wants_errors(member.interest)
            {
                push(&member.outbox, as_error);
            }
        };
        match audience {
            Audience::Users(users) => {
                for user in users {
                    index.each_of(user, &mut visit);
                }
            }
            Audience::Everyone => index.each(visit),
        }
        copies
    }

    fn remember(&mut self, parcel: &Parcel<'_>, audience: Audience, seq: u64) {
        if !parcel.keeps {
            return self.past.advance(seq);
        }
        if parcel.past_bytes == 0 {
            self.past = Span::new(seq);
            return;
        }
        let (encoded, as_error) = (parcel.encoded.clone(), parcel.as_error.clone());
        if let Some(kept) = Kept::part(parcel.event, audience, parcel.shards, encoded, as_error) {
            self.past.push(kept);
        }
        self.past.shrink(parcel.past_bytes);
    }

    /// Whether all of a user's events after `seq` are in memory.
    pub(super) fn remembers(&self, seq: u64, here: &Here) -> bool {
        seq >= here.since() && self.past.covers(seq)
    }

    /// Whether a replay from here would miss nothing, as far as is known now.
    pub(super) fn accepts(&self, asked: &Asked, here: &Here) -> bool {
        let Some(head) = self.position.seq else {
            return false;
        };
        let kept = self
            .position
            .oldest
            .is_none_or(|oldest| asked.seq + 1 >= oldest || self.remembers(asked.seq, here));
        self.position.epoch.as_deref() == Some(&*asked.epoch) && asked.seq <= head.max(asked.head) && kept
    }

    /// Whether an event is for anybody who is here.
    pub(super) fn awaits(&self, user: Option<&UserId>) -> bool {
        match user {
            Some(user) => self.index.has(user),
            None => self.index.users() > 0,
        }
    }

    /// Adds who is here.
    pub(super) fn count(&self, census: &mut Census) {
        census.users += self.index.users();
        census.past_events += self.past.len();
        census.past_bytes += self.past.bytes();
        for member in self.index.all() {
            let (messages, bytes) = member.outbox.depth();
            census.sessions += 1;
            census.waiting_messages += messages;
            census.waiting_bytes += bytes;
        }
    }
}
