//! The recent past, by sequence and by user.
//!
//! A [`Span`] is an interval of the stream that is known whole: every event in it that a session may ask for
//! again is there, and what is not there was never for anybody. The router keeps one of the last minutes, under
//! a cap of bytes; a [`Segment`] is one that was read back from the stream for sessions that ask for more.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::future::BoxFuture;
use rivulet_protocol::{event::EventType, subject::UserId};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    encoded::Encoded,
    event::{Audience, Event},
};

/// What an event takes beside its frame: its entry, its shared parts, its place in one user's order. Measured
/// with `cargo test -p rivulet-router --test history_memory -- --nocapture`: 300 to 430 bytes for events of one user.
const ENTRY_BYTES: usize = 430;
/// What each further user of an event takes.
const USER_BYTES: usize = 40;

/// What takes the place of an event that was removed.
static NOTHING: LazyLock<Encoded> = LazyLock::new(|| Encoded::json(""));

/// An event that may be asked for again.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Where it stands in the stream.
    pub seq: u64,
    /// Its type.
    pub event_type: EventType,
    /// The event as a frame.
    pub encoded: Encoded,
    /// The `error` frame that it also is.
    pub as_error: Option<Encoded>,
    audience: Audience,
    /// How many spans share its frames.
    shared_by: usize,
}

impl Kept {
    /// Its audience.
    pub fn audience(&self) -> &Audience {
        &self.audience
    }

    /// Whether a session would be sent the same for both.
    pub fn is(&self, other: &Self) -> bool {
        let error = |kept: &Self| kept.as_error.as_ref().map(|error| error.frame().clone());
        self.audience == other.audience
            && self.encoded.frame() == other.encoded.frame()
            && error(self) == error(other)
    }

    /// From an event of a durable source and its encoding; `None` for one of a core source.
    pub fn new(event: &Event, encoded: Encoded, as_error: Option<Encoded>) -> Option<Self> {
        Self::part(event, event.audience.clone(), 1, encoded, as_error)
    }

    /// The same for a part of its audience, in one of so many spans that share its frames.
    pub fn part(
        event: &Event,
        audience: Audience,
        shared_by: usize,
        encoded: Encoded,
        as_error: Option<Encoded>,
    ) -> Option<Self> {
        Some(Self {
            seq: event.seq?,
            event_type: event.event_type.clone(),
            encoded,
            as_error,
            audience,
            shared_by,
        })
    }

    /// What it takes in memory, about.
    fn bytes(&self) -> usize {
        let users = match &self.audience {
            Audience::Users(users) => users.len(),
            Audience::Everyone => 1,
        };
        let error = self.as_error.as_ref().map_or(0, |error| error.frame().len());
        (self.encoded.frame().len() + error) / self.shared_by
            + ENTRY_BYTES
            + users.saturating_sub(1) * USER_BYTES
    }
}

/// An interval of the stream, known whole: the events after one sequence and up to another.
#[derive(Debug, Default)]
pub struct Span {
    after: u64,
    to: u64,
    kept: VecDeque<Kept>,
    /// How many events were taken out at the front: the number of the first that is left.
    gone: u64,
    /// The numbers of each user's events, in order.
    of_user: HashMap<UserId, VecDeque<u64>>,
    /// The numbers of the events for everyone.
    of_everyone: VecDeque<u64>,
    bytes: usize,
}

impl Span {
    /// An empty one: nothing after `seq` is known yet.
    pub fn new(seq: u64) -> Self {
        Self {
            after: seq,
            to: seq,
            ..Self::default()
        }
    }

    /// The sequence after which it begins.
    pub fn after(&self) -> u64 {
        self.after
    }

    /// The sequence with which it ends.
    pub fn to(&self) -> u64 {
        self.to
    }

    /// About how many bytes it takes in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many events are in it.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether no event is in it.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Whether everything after `seq` and up to its own end is here.
    pub fn covers(&self, seq: u64) -> bool {
        (self.after..=self.to).contains(&seq)
    }

    /// Appends an event, which stands after all that are here.
    pub fn push(&mut self, event: Kept) {
        debug_assert!(event.seq > self.to, "{} after {}", event.seq, self.to);
        let number = self.gone + self.kept.len() as u64;
        match &event.audience {
            Audience::Users(users) => {
                for user in users {
                    self.of_user.entry(user.clone()).or_default().push_back(number);
                }
            }
            Audience::Everyone => self.of_everyone.push_back(number),
        }
        self.to = event.seq;
        self.bytes += event.bytes();
        self.kept.push_back(event);
    }

    /// Notes that nothing up to `seq` is for anybody.
    pub fn advance(&mut self, seq: u64) {
        self.to = self.to.max(seq);
    }

    /// The event at a sequence, if there is one that was not removed.
    pub fn event_at(&self, seq: u64) -> Option<&Kept> {
        let place = self.kept.binary_search_by_key(&seq, |kept| kept.seq).ok()?;
        let kept = self.kept.get(place)?;
        (kept.audience != Audience::Users(Vec::new())).then_some(kept)
    }

    /// Puts another event, or none, in the place of what is at `seq`, which the span covers. Walks over all events.
    pub fn replace(&mut self, seq: u64, event: Option<Kept>) {
        let (after, to) = (self.after, self.to);
        let mut kept = mem::replace(self, Self::new(after)).kept;
        let behind = kept.split_off(kept.partition_point(|kept| kept.seq < seq));
        let behind = behind.into_iter().filter(|kept| kept.seq > seq);
        for event in kept.into_iter().chain(event).chain(behind) {
            self.push(event);
        }
        self.advance(to);
    }

    /// Takes out the oldest until what is left is at most `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        while self.bytes > bytes && self.pop_first() {}
    }

    /// Takes out what stands before `first`, but at most so many events. Returns whether that was all.
    pub fn cut(&mut self, first: u64, most: usize) -> bool {
        for _ in 0..most {
            if self.kept.front().is_none_or(|event| event.seq >= first) {
                self.after = self.after.max(first.saturating_sub(1).min(self.to));
                return true;
            }
            self.pop_first();
        }
        false
    }

    /// Takes out these events, given by their sequences in order. The interval stays known whole: they are for
    /// nobody any more.
    pub fn remove(&mut self, seqs: &[u64]) {
        let first = seqs.partition_point(|seq| *seq <= self.after);
        let end = seqs.partition_point(|seq| *seq <= self.to);
        for seq in &seqs[first..end] {
            let Ok(index) = self.kept.binary_search_by_key(seq, |event| event.seq) else {
                continue;
            };
            let number = self.gone + index as u64;
            // Its place stays, as the numbers of others count from it.
            let event = &mut self.kept[index];
            self.bytes -= event.bytes();
            event.encoded = NOTHING.clone();
            event.as_error = None;
            let audience = std::mem::replace(&mut event.audience, Audience::Users(Vec::new()));
            self.bytes += event.bytes();
            let without = |numbers: &mut VecDeque<u64>| {
                if let Ok(place) = numbers.binary_search(&number) {
                    numbers.remove(place);
                }
            };
            match audience {
                Audience::Users(users) => {
                    for user in users {
                        if let Some(numbers) = self.of_user.get_mut(&user) {
                            without(numbers);
                            if numbers.is_empty() {
                                self.of_user.remove(&user);
                            }
                        }
                    }
                }
                Audience::Everyone => without(&mut self.of_everyone),
            }
        }
    }

    fn pop_first(&mut self) -> bool {
        let Some(event) = self.kept.pop_front() else {
            return false;
        };
        self.bytes -= event.bytes();
        self.after = event.seq;
        self.gone += 1;
        match &event.audience {
            Audience::Users(users) => {
                for user in users {
                    if let Some(numbers) = self.of_user.get_mut(user) {
                        numbers.pop_front();
                        if numbers.is_empty() {
                            self.of_user.remove(user);
                        }
                    }
                }
            }
            Audience::Everyone => {
                self.of_everyone.pop_front();
            }
        }
        true
    }

    /// The user's events after `seq`, in the stream's order.
    pub fn of<'a>(&'a self, user: &UserId, seq: u64) -> impl Iterator<Item = &'a Kept> + use<'a> {
        let from = |numbers: Option<&'a VecDeque<u64>>| {
            let numbers = numbers.map_or_else(Default::default, |numbers| {
                let first = numbers.partition_point(|number| self.at(*number).seq <= seq);
                numbers.range(first..)
            });
            numbers.copied().peekable()
        };
        let mut own = from(self.of_user.get(user));
        let mut shared = from(Some(&self.of_everyone));
        std::iter::from_fn(move || {
            let number = match (own.peek(), shared.peek()) {
                (Some(one), Some(other)) if one > other => shared.next(),
                (None, _) => shared.next(),
                _ => own.next(),
            };
            number.map(|number| self.at(number))
        })
    }

    fn at(&self, number: u64) -> &Kept {
        &self.kept[(number - self.gone) as usize]
    }
}

/// A part of the stream that was read back.
#[derive(Debug)]
pub struct Segment {
    /// The events in it.
    pub span: Span,
    /// What the stream had already removed when it was read, in order: after the one sequence, up to the other. The
    /// last may reach beyond the span.
    pub lost: Vec<(u64, u64)>,
    /// Whether the stream has removed something since that may be in it.
    pub withdrawn: Withdrawn,
}

/// Whether what was read must not be used any more. A clone is the same.
#[derive(Clone, Debug, Default)]
pub struct Withdrawn(Arc<AtomicBool>);

impl Withdrawn {
    /// Says that it must not.
    pub fn withdraw(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether that was said.
    pub fn is_withdrawn(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What of the past must not be told again out of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forget<'a> {
    /// These events, given by their sequences in order: they are for nobody any more.
    These(&'a [u64]),
    /// All up to here: it has to be read from the stream.
    UpTo(u64),
}

/// The past that is no longer in memory, as the stream has it.
pub trait Archive: Send + Sync + 'static {
    /// Leave to read farther back than memory reaches, held as long as that goes on. `None`: too many do.
    fn admit(&self) -> Option<OwnedSemaphorePermit>;

    /// The same, waited for: for a session that fell behind memory while it was replaying.
    fn admitted(&self) -> BoxFuture<'static, OwnedSemaphorePermit>;

    /// Reads a segment that begins at or before `after` and ends after it, and at or before `to`. Those who ask
    /// for the same share one read. `None`: not now, look again whether it is still wanted.
    fn segment(&self, epoch: Arc<str>, after: u64, to: u64) -> BoxFuture<'static, Option<Arc<Segment>>>;

    /// The head of the stream as its leader gives it when asked now, with its epoch; `None`: it can't be asked.
    fn head(&self) -> BoxFuture<'static, Option<(Arc<str>, u64)>>;
}

#[cfg(test)]
mod tests;
