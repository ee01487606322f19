//! What waits for a session, in its order and within its bounds.

use std::{collections::VecDeque, time::Instant};

use super::{Bounds, Closing};
use crate::encoded::Encoded;
use rivulet_protocol::close::CloseCode;

/// Frames of the router's own that may wait beyond the event bound. While half of it is taken the client is asked
/// nothing more of, so that the other half is there for what comes by itself: replies, heartbeats, gaps, news of the
/// token and of the drain.
pub(super) const RESERVE: usize = 64;

/// Room for so many messages stays with an idle session: as much as the first of them takes.
const KEPT: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Queue {
    ordered: VecDeque<Waiting>,
    overtaking: VecDeque<Encoded>,
    /// Whether the first frame was taken: `connected`, which nothing may overtake.
    begun: bool,
    /// Whether an event was taken.
    touched: bool,
    /// Whether events are held back.
    held: bool,
    /// Of `ordered`: events and their bytes.
    events: usize,
    bytes: usize,
    pub(super) closing: Option<Closing>,
    /// Whether somebody is to flush it: from the first event that was pushed until all is taken.
    pub(super) listed: bool,
    /// Whether its connection is to look at it.
    pub(super) roused: bool,
}

#[derive(Debug)]
struct Waiting {
    message: Encoded,
    kind: Kind,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A frame of the router's own that stands in order with events.
    Own,
    /// An event as it happens.
    Live,
    /// An event of the past.
    Replayed,
}

/// What was taken at a time.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) messages: Vec<Encoded>,
    /// When the oldest live event among them came from NATS.
    pub(super) oldest: Option<Instant>,
}

impl Queue {
    /// Appends what stands in order. Beyond its bound it empties the queue and ends the session.
    pub(super) fn push(&mut self, message: Encoded, kind: Kind, bounds: Bounds) {
        let bytes = message.frame().len();
        let fits = match kind {
            Kind::Own => self.own() < RESERVE,
            Kind::Live | Kind::Replayed => self.events < bounds.events && self.bytes + bytes <= bounds.bytes,
        };
        if !fits {
            return self.overflow();
        }
        if kind != Kind::Own {
            self.events += 1;
            self.bytes += bytes;
        }
        self.ordered.push_back(Waiting { message, kind });
    }

    /// Appends what may overtake.
    pub(super) fn push_overtaking(&mut self, message: Encoded) {
        if self.own() < RESERVE {
            self.overtaking.push_back(message);
        } else {
            self.overflow();
        }
    }

    /// Moves what comes next into `batch`, at most `messages` of them and, after the first, `bytes`.
    pub(super) fn take(&mut self, batch: &mut Batch, messages: usize, bytes: usize) {
        let mut taken = 0;
        while batch.messages.len() < messages && (taken < bytes || batch.messages.is_empty()) {
            let Some((message, kind)) = self.pop() else { break };
            taken += message.frame().len();
            if kind == Kind::Live && batch.oldest.is_none() {
                batch.oldest = message.received_at();
            }
            batch.messages.push(message);
        }
        if self.is_empty() {
            self.listed = false;
            // A burst must not leave its room behind on every idle session. Room for a few stays, 64 bytes: without
            // it every delivery would allocate.
            if self.ordered.capacity() > KEPT {
                self.ordered = VecDeque::new();
            }
            self.overtaking.shrink_to(0);
        }
    }

    /// Lets go of what waits; nothing comes any more. `code` counts where the session does not end already.
    pub(super) fn end(&mut self, code: CloseCode) {
        let closing = self.closing.take().unwrap_or_else(|| code.into());
        *self = Self {
            closing: Some(closing),
            ..Self::default()
        };
    }

    /// Holds events back until they are withdrawn or let go. Returns whether none was taken before.
    pub(super) fn hold(&mut self) -> bool {
        self.held |= !self.touched;
        self.held
    }

    /// Takes out the events that wait, and holds back no more.
    pub(super) fn withdraw_events(&mut self) {
        self.ordered.retain(|waiting| waiting.kind == Kind::Own);
        (self.events, self.bytes) = (0, 0);
        self.held = false;
    }

    /// Holds back no more.
    pub(super) fn release(&mut self) {
        self.held = false;
    }

    pub(super) fn has_events(&self) -> bool {
        self.events > 0
    }

    /// Whether what the client asks may be answered.
    pub(super) fn takes_answers(&self) -> bool {
        self.closing.is_none() && self.own() < RESERVE / 2
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ordered.is_empty() && self.overtaking.is_empty()
    }

    /// Messages, and the bytes of the events among them.
    pub(super) fn depth(&self) -> (usize, usize) {
        (self.ordered.len() + self.overtaking.len(), self.bytes)
    }

    /// Frames of the router's own that wait.
    fn own(&self) -> usize {
        self.ordered.len() - self.events + self.overtaking.len()
    }

    fn pop(&mut self) -> Option<(Encoded, Kind)> {
        if (self.begun || self.ordered.is_empty())
            && let Some(message) = self.overtaking.pop_front()
        {
            return Some((message, Kind::Own));
        }
        let is_event = self.ordered.front()?.kind != Kind::Own;
        if is_event && self.held && self.closing.is_none() {
            return None;
        }
        let Waiting { message, kind } = self.ordered.pop_front()?;
        self.begun = true;
        if is_event {
            self.touched = true;
            self.events -= 1;
            self.bytes -= message.frame().len();
        }
        Some((message, kind))
    }

    fn overflow(&mut self) {
        self.end(CloseCode::TooSlow);
        self.roused = true;
    }
}
