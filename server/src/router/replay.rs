//! A session that reads the past, at the pace of its own socket, until it has caught up.

use std::sync::{Arc, atomic::Ordering};

use rivulet_protocol::{
    message::{Gap, GapReason, ServerMessage},
    scalar::SafeInteger,
    subject::UserId,
};

use super::{Interest, Position, Registration, Router, replace::replaced, shard::State};
use crate::{
    encoded::Encoded,
    history::{Segment, Span},
    outbox::Outbox,
    presence::Here,
};

/// The most events that one step looks at: what it may take of the router's lock.
const LOOKED_AT: usize = 1_024;
/// The most messages that one step appends: as many as go into one vectored write.
const MESSAGES: usize = 64;
/// The most bytes that one step appends, after its first message.
const BYTES: usize = 64 << 10;

/// A position that a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The stream's epoch.
    pub epoch: Arc<str>,
    /// The last sequence that the client has handled.
    pub seq: u64,
    /// The head of the stream as its leader gave it after the client asked; zero where nobody needed to ask, as
    /// the position is not ahead of this node's.
    pub head: u64,
}

/// A session that is not live yet. Nothing is pushed to it: it pulls, one [`Replay::step`] at a time, when its
/// socket has taken what the last one appended.
#[derive(Debug)]
pub struct Replay {
    router: Arc<Router>,
    pub(super) user: UserId,
    interest: Interest,
    outbox: Arc<Outbox>,
    epoch: Arc<str>,
    from: u64,
    /// Everything of the session's up to here is in its outbox or beyond.
    cursor: u64,
    /// The highest head that the leader is known to have given.
    head: u64,
    /// Whether nothing was missing so far.
    complete: bool,
    segment: Option<Arc<Segment>>,
    /// How many sequences of the shard had been replaced when it last looked.
    replaced: Option<u64>,
    pub(super) here: Here,
}

/// What a step came to.
#[derive(Debug)]
pub enum Step {
    /// The cursor moved. The next step is due when the outbox is empty.
    Moved,
    /// What follows `after` is not in memory: [`Replay::read`] takes the segment in which it is.
    Beyond {
        /// The stream that is meant.
        epoch: Arc<str>,
        /// The cursor.
        after: u64,
        /// Where memory begins.
        to: u64,
    },
    /// The session has everything that this node has, and is live.
    Live(Registration),
}

/// What a replay has told when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// The position that was asked for.
    pub from: u64,
    /// The last sequence of the replay.
    pub to: u64,
    /// Whether nothing was missing in between.
    pub complete: bool,
}

impl Replay {
    /// Begins at a position, with no first frame.
    pub fn begin(
        router: Arc<Router>,
        user: UserId,
        interest: Interest,
        outbox: Arc<Outbox>,
        asked: Asked,
    ) -> Self {
        Self {
            here: router.keeping.presence.enter(&user),
            router,
            user,
            interest,
            outbox,
            epoch: asked.epoch,
            from: asked.seq,
            cursor: asked.seq,
            head: asked.head,
            complete: true,
            segment: None,
            replaced: None,
        }
    }

    /// Takes a segment in which the cursor lies.
    pub fn read(&mut self, segment: Arc<Segment>) {
        self.segment = Some(segment);
    }

    /// Appends what comes next, if it is there. To be called when the outbox is empty, so that it never
    /// overflows. `last` makes the frame that ends the replay, if its client asked for one.
    pub fn step(&mut self, last: impl FnOnce(&Position, Replayed) -> Option<Encoded>) -> Step {
        // What the stream has removed since it was read is looked for again.
        if let Some(segment) = self.segment.take()
            && !segment.withdrawn.is_withdrawn()
            && self.cursor + 1 >= self.router.oldest.load(Ordering::Relaxed)
            && self.pass_segment(&segment)
        {
            self.segment = Some(segment);
            return Step::Moved;
        }
        let router = Arc::clone(&self.router);
        let mut state = router.lock(&self.user);
        if let Some(gap) = self.replaced(&state) {
            self.say(gap);
        }
        if let Some(gap) = self.missing(&state) {
            self.say(gap);
        }
        let Some(head) = state.position.seq else {
            // No stream, so no past.
            (self.cursor, self.complete) = (0, false);
            return self.join(&mut state, last);
        };
        if self.cursor < head && !state.remembers(self.cursor, &self.here) {
            return Step::Beyond {
                epoch: Arc::clone(&self.epoch),
                after: self.cursor,
                to: state.past.after().max(self.here.since().min(head)),
            };
        }
        if self.cursor < head {
            self.pass(&state.past, head);
            if self.cursor < head {
                return Step::Moved;
            }
        }
        self.join(&mut state, last)
    }

    /// Puts other patterns in force for what comes after the cursor.
    pub fn change(&mut self, interest: Interest, frame: impl FnOnce(&Position) -> Encoded) {
        self.interest = interest;
        self.mark(frame);
    }

    /// Puts other patterns in force, and says nothing of it.
    pub fn permit(&mut self, interest: Interest) {
        self.interest = interest;
    }

    /// Appends a frame that carries the position: the cursor.
    pub fn mark(&self, frame: impl FnOnce(&Position) -> Encoded) {
        let state = self.router.lock(&self.user);
        let position = Position {
            epoch: Some(Arc::clone(&self.epoch)),
            seq: Some(self.cursor),
            ..state.position.clone()
        };
        self.outbox.push_in_order(frame(&position));
    }

    /// Whether something was replaced that was sent already: it goes on from there once more.
    fn replaced(&mut self, state: &State) -> Option<Gap> {
        let count = state.replaced.count();
        let before = self.replaced.replace(count).unwrap_or(count);
        let seq = state.replaced.lowest_since(before)?;
        let sent = (self.from < seq && seq <= self.cursor).then_some(seq)?;
        (state.position.epoch.as_ref() == Some(&self.epoch)).then(|| replaced(&self.epoch, self.cursor, sent))
    }

    /// Whether the position is out of reach altogether, or part of what follows it.
    fn missing(&self, state: &State) -> Option<Gap> {
        let epoch = state.position.epoch.as_ref()?;
        let head = state.position.seq?;
        let (to, reason) = if **epoch != *self.epoch {
            (head, GapReason::EpochChanged)
        } else if self.cursor > head.max(self.head) {
            (head, GapReason::FutureSeq)
        } else {
            let oldest = state.position.oldest?;
            let gone = self.cursor + 1 < oldest && !state.remembers(self.cursor, &self.here);
            (gone.then(|| oldest - 1)?, GapReason::Evicted)
        };
        Some(gap(epoch, self.cursor, to, reason))
    }

    fn say(&mut self, gap: Gap) {
        self.epoch = gap.stream.as_str().into();
        self.cursor = gap.to_seq.get();
        self.complete = false;
        self.outbox
            .push_in_order(Encoded::message(&ServerMessage::Gap(gap), None));
    }

    /// Goes on within what was read back. Returns whether there is more of it.
    fn pass_segment(&mut self, segment: &Segment) -> bool {
        if !segment.span.covers(self.cursor) {
            return false;
        }
        let lost = segment.lost.iter().find(|(_, to)| *to > self.cursor);
        let end = lost.map_or(segment.span.to(), |(from, _)| (*from).max(self.cursor));
        self.pass(&segment.span, end);
        if let Some((_, to)) = lost
            && self.cursor == end
        {
            let gap = gap(&self.epoch, self.cursor, *to, GapReason::Evicted);
            self.say(gap);
        }
        self.cursor < segment.span.to()
    }

    /// Appends the session's events after the cursor, up to `end` or as many as one step may. The cursor goes to
    /// the last that was looked at, or to the end.
    fn pass(&mut self, span: &Span, end: u64) {
        let bounds = self.outbox.bounds();
        // An event and the error that it also is are two messages.
        let most = MESSAGES.min(bounds.events - 1);
        let most_bytes = BYTES.min(bounds.bytes / 4);
        let (mut messages, mut bytes, mut looked_at) = (0, 0, 0);
        for kept in span.of(&self.user, self.cursor) {
            if kept.seq > end {
                break;
            }
            if messages >= most || bytes >= most_bytes || looked_at >= LOOKED_AT {
                return;
            }
            looked_at += 1;
            let event = self
                .interest
                .wants(kept.event_type.as_str())
                .then_some(&kept.encoded);
            let error = kept.as_error.as_ref().filter(|_| self.interest.wants_errors());
            for encoded in event.into_iter().chain(error) {
                messages += 1;
                bytes += encoded.frame().len();
                self.outbox.append_event(encoded.clone());
            }
            self.cursor = kept.seq;
        }
        self.cursor = end;
    }

    fn join(&self, state: &mut State, last: impl FnOnce(&Position, Replayed) -> Option<Encoded>) -> Step {
        let mut position = state.position.clone();
        position.seq = position.seq.map(|_| self.cursor);
        let replayed = Replayed {
            from: self.from,
            to: self.cursor,
            complete: self.complete,
        };
        if let Some(last) = last(&position, replayed) {
            self.outbox.push_in_order(last);
        }
        Step::Live(Registration::join(
            &self.router,
            state,
            self.user.clone(),
            self.interest.clone(),
            Arc::clone(&self.outbox),
            self.cursor,
            self.here.clone(),
        ))
    }
}

fn gap(epoch: &str, from: u64, to: u64, reason: GapReason) -> Gap {
    Gap {
        stream: epoch.to_owned(),
        from_seq: SafeInteger::new(from).unwrap_or_default(),
        to_seq: SafeInteger::new(to).unwrap_or_default(),
        reason,
    }
}
