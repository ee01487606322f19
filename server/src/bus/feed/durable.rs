//! The durable part of a feed: how far it is, and what came before its turn.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{judge::Suspects, removed::Removed};
use crate::bus::{
    arrived::Arrived, by_user::ByUser, continuity::Continuity, decided::Decisions, past::Past, stream::Stream,
};

/// Live messages held while what lies before them is read back: 0.2 s of 40,000 a second, several times what one
/// read takes.
const HELD: usize = 8_192;
/// About how many bytes they may take.
const HELD_BYTES: usize = 16 << 20;

/// The durable part of a feed.
pub(super) struct Durable {
    pub(super) stream: Stream,
    pub(super) past: Past,
    pub(super) decisions: Option<Decisions>,
    pub(super) continuity: Continuity,
    /// Where the feed is by user.
    pub(super) by_user: Option<ByUser>,
    pub(super) held: Held,
    pub(super) suspects: Suspects,
    /// When the stream may be read back again after that failed.
    pub(super) next_read: Instant,
    pub(super) oldest: u64,
    pub(super) head: u64,
    /// Since when the leader has not said where the stream stands, and how many times in turn nobody answered.
    pub(super) silent: Option<(Instant, u32)>,
    /// How long that leaves the node current, with nothing known to be missing.
    pub(super) grace: Duration,
    /// What the stream removed behind its first sequence.
    pub(super) removed: Removed,
}

/// How soon after a head check the next one may be made because of messages out of turn: somebody may send many.
const ASK_AGAIN: Duration = Duration::from_millis(25);

/// Live messages that came before their turn.
#[derive(Default)]
pub(super) struct Held {
    messages: VecDeque<Arrived>,
    bytes: usize,
    /// How many of them had come when the leader was asked for its head, and when that was.
    asked: usize,
    asked_at: Option<Instant>,
}

impl Held {
    /// Keeps a message, or drops all when there are too many.
    pub(super) fn push(&mut self, message: Arrived) {
        if self.messages.len() >= HELD || self.bytes > HELD_BYTES {
            self.clear();
        }
        self.bytes += message.bytes();
        self.messages.push_back(message);
    }

    /// Takes the first if `wanted` says so of its sequence.
    pub(super) fn pop_if(&mut self, wanted: impl FnOnce(u64) -> bool) -> Option<Arrived> {
        let message = self.messages.front()?;
        if !message.seq().is_some_and(wanted) {
            return None;
        }
        self.bytes -= message.bytes();
        self.asked = self.asked.saturating_sub(1);
        self.messages.pop_front()
    }

    /// Drops all.
    pub(super) fn clear(&mut self) {
        self.messages.clear();
        (self.bytes, self.asked) = (0, 0);
    }

    /// Notes that the leader is asked for its head now.
    pub(super) fn asking(&mut self, now: Instant) {
        self.asked = self.messages.len();
        self.asked_at = Some(now);
    }

    /// When the leader may be asked about a message out of turn.
    pub(super) fn may_ask(&self, now: Instant) -> Instant {
        self.asked_at.map_or(now, |asked| now.max(asked + ASK_AGAIN))
    }

    /// Drops those that the stream did not have though they were here when its leader was asked for this head: they are
    /// not the stream's. Returns how many.
    pub(super) fn drop_beyond(&mut self, head: u64) -> u64 {
        let (mut place, mut dropped) = (0, 0);
        let Self {
            messages,
            bytes,
            asked,
            ..
        } = self;
        messages.retain(|message| {
            place += 1;
            let keeps = place > *asked || message.seq() <= Some(head);
            if !keeps {
                *bytes -= message.bytes();
                dropped += 1;
            }
            keeps
        });
        *asked = 0;
        dropped
    }
}

impl Durable {
    /// Whether all events come, as far as is known.
    pub(super) fn is_current(&self, now: Instant) -> bool {
        match self.silent {
            None => self.continuity.verified(),
            Some((since, _)) => now.duration_since(since) < self.grace && !self.continuity.lacks(now),
        }
    }

    /// What is to be read back now: after the one sequence, up to the other; not what is there already.
    pub(super) fn wanted(&self, now: Instant) -> Option<(u64, u64)> {
        let late = || {
            let to = self.by_user.as_ref()?.overdue(now)?;
            Some((self.continuity.last(), to))
        };
        let (after, to) = self.continuity.wanted(now).or_else(late)?;
        let known_from = match &self.by_user {
            Some(by_user) => by_user.known_from().filter(|known| *known > after),
            None => self
                .held
                .messages
                .front()
                .and_then(Arrived::seq)
                .map(|held| held - 1),
        };
        Some((after, known_from.map_or(to, |known| to.min(known))))
    }
}
