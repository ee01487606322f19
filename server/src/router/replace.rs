//! What was dispatched in the name of the stream and was not the stream's, put right.

use std::{collections::VecDeque, sync::Arc};

use rivulet_protocol::{
    message::{Gap, GapReason, Head, ServerMessage},
    scalar::SafeInteger,
    subject::UserId,
};

use super::{Router, index::Member, interest::Interests, shard::State};
use crate::{
    encoded::Encoded,
    event::{Audience, Event},
    history::Kept,
};

/// Replaced sequences that are remembered for sessions that replay.
const REMEMBERED: usize = 64;

/// Which sequences of a shard were replaced.
#[derive(Debug, Default)]
pub(super) struct Replaced {
    count: u64,
    last: VecDeque<u64>,
}

impl Replaced {
    fn note(&mut self, seq: u64) {
        self.count += 1;
        self.last.push_back(seq);
        if self.last.len() > REMEMBERED {
            self.last.pop_front();
        }
    }

    /// How many there were.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The lowest of those after the first `count`, as far as they are remembered.
    pub(super) fn lowest_since(&self, count: u64) -> Option<u64> {
        let unseen = (self.count - count) as usize;
        self.last.iter().rev().take(unseen).min().copied()
    }
}

impl Router {
    /// Whether the past in memory has at this sequence what the event says, or nothing where there is none. It has no
    /// contrary word of what it does not keep.
    pub fn agrees(&self, seq: u64, event: Option<&Event>) -> bool {
        let event = event.filter(|event| self.keeping.keeps(event));
        let encoding = event.map(Encoding::new);
        self.shards.iter().enumerate().all(|(place, shard)| {
            let state = self.reached(shard);
            if seq == 0 || seq > state.past.to() || !state.past.covers(seq - 1) {
                return true;
            }
            let stored = encoding.as_ref().and_then(|encoding| self.part(encoding, place));
            match (state.past.event_at(seq), stored) {
                (None, None) => true,
                (Some(kept), Some(stored)) => kept.is(&stored),
                _ => false,
            }
        })
    }

    /// Puts what the stream has at a sequence in the place of what was dispatched for it. Sessions that got the false one,
    /// or not the real one, get a gap over the sequence, then the real one.
    pub fn replace(&self, seq: u64, event: Option<&Event>) {
        let event = event.filter(|event| self.keeping.keeps(event));
        let encoding = event.map(Encoding::new);
        for (place, shard) in self.shards.iter().enumerate() {
            let mut state = self.reached(shard);
            if seq == 0 || seq > state.past.to() || !state.past.covers(seq - 1) {
                continue;
            }
            let stored = encoding.as_ref().and_then(|encoding| self.part(encoding, place));
            let dispatched = state.past.event_at(seq).cloned();
            if match (&dispatched, &stored) {
                (None, None) => true,
                (Some(dispatched), Some(stored)) => dispatched.is(stored),
                _ => false,
            } {
                continue;
            }
            state.past.replace(seq, stored.clone());
            state.replaced.note(seq);
            state.put_right(seq, dispatched.as_ref(), stored.as_ref());
        }
    }

    /// What a shard keeps of an event.
    fn part(&self, encoding: &Encoding<'_>, place: usize) -> Option<Kept> {
        let (audience, shards) = match &encoding.event.audience {
            Audience::Everyone => (Audience::Everyone, self.shards.len()),
            Audience::Users(users) => {
                let here = users.iter().filter(|user| self.place(user) == place);
                let here: Vec<_> = here.cloned().collect();
                if here.is_empty() {
                    return None;
                }
                (Audience::Users(here), 1)
            }
        };
        let (encoded, as_error) = (encoding.encoded.clone(), encoding.as_error.clone());
        Kept::part(encoding.event, audience, shards, encoded, as_error)
    }
}

/// An event and its frames.
struct Encoding<'a> {
    event: &'a Event,
    encoded: Encoded,
    as_error: Option<Encoded>,
}

impl<'a> Encoding<'a> {
    fn new(event: &'a Event) -> Self {
        Self {
            event,
            encoded: Encoded::event(event),
            as_error: Encoded::event_as_error(event),
        }
    }
}

impl State {
    /// Tells live sessions that got `dispatched` at a sequence that the stream has `stored` there.
    fn put_right(&mut self, seq: u64, dispatched: Option<&Kept>, stored: Option<&Kept>) {
        let Some(epoch) = self.position.epoch.clone() else {
            return;
        };
        let gap = Encoded::message(&ServerMessage::Gap(replaced(&epoch, seq, seq)), None);
        // The cursor goes back to where it was.
        let position = Encoded::message(
            &ServerMessage::Heartbeat(Head {
                seq: self.position.wire_seq(),
            }),
            None,
        );
        let is_for = |kept: Option<&Kept>, user: Option<&UserId>| match kept.map(Kept::audience) {
            None => false,
            Some(Audience::Everyone) => true,
            Some(Audience::Users(users)) => user.is_some_and(|user| users.contains(user)),
        };
        let tell = |user: Option<&UserId>, member: &Member, interests: &mut Interests| {
            if seq <= member.after {
                return;
            }
            let mut frames = |kept: Option<&Kept>| -> Vec<Encoded> {
                let Some(kept) = kept.filter(|kept| is_for(Some(kept), user)) else {
                    return Vec::new();
                };
                let event = interests
                    .wants(member.interest, kept.event_type.as_str(), None)
                    .then_some(&kept.encoded);
                let error = kept.as_error.as_ref();
                let error = error.filter(|_| interests.wants_errors(member.interest));
                event.into_iter().chain(error).cloned().collect()
            };
            let (had, has) = (frames(dispatched), frames(stored));
            if had.is_empty() && has.is_empty() {
                return;
            }
            let frames = std::iter::once(&gap).chain(&has).chain([&position]);
            for frame in frames {
                member.outbox.push_in_order(frame.clone());
            }
        };
        let everyone = |kept: Option<&Kept>| matches!(kept.map(Kept::audience), Some(Audience::Everyone));
        let mut users: Vec<UserId> = Vec::new();
        if everyone(dispatched) || everyone(stored) {
            users.extend(self.index.all_users().cloned());
        } else {
            for kept in [dispatched, stored].into_iter().flatten() {
                if let Audience::Users(of) = kept.audience() {
                    users.extend(
                        of.iter()
                            .filter(|user| !users.contains(user))
                            .cloned()
                            .collect::<Vec<_>>(),
                    );
                }
            }
        }
        for user in &users {
            self.index
                .each_of(user, |member, interests| tell(Some(user), member, interests));
        }
    }
}

/// The gap before what the stream has at a sequence, for a session whose cursor is at `cursor`.
pub(super) fn replaced(epoch: &Arc<str>, cursor: u64, seq: u64) -> Gap {
    Gap {
        stream: epoch.to_string(),
        from_seq: SafeInteger::new(cursor).unwrap_or_default(),
        to_seq: SafeInteger::new(seq.saturating_sub(1)).unwrap_or_default(),
        reason: GapReason::Replaced,
    }
}
