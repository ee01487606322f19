//! One session's bounded queue: filled by the router, drained by the session's connection.
//!
//! Three things are in it: what goes out in order (events, and every frame that carries a sequence), what may
//! overtake (replies, errors, news of the token), and the decision to close.
//!
//! **When it is full.** Events are bounded in number and in bytes; frames of the router's own have a small
//! reserve beyond, so that a flood of events can't keep a client from its `pong`. A push beyond its bound never
//! waits and never drops one message among others: it empties the queue and closes the session with 4413, from
//! which a client resumes without a loss.

use std::{
    borrow::Cow,
    collections::VecDeque,
    future::poll_fn,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use atomic_waker::AtomicWaker;
use rivulet_protocol::close::CloseCode;

use crate::encoded::Encoded;

/// Frames of the router's own that may wait beyond the event bound. They answer what the client asked, which is
/// rate-limited, so that more of them wait only while the client does not read.
const RESERVE: usize = 64;

/// Room for so many messages stays with an idle session: as much as the first of them takes.
const KEPT: usize = 4;

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Events.
    pub events: usize,
    /// Bytes of events on the wire.
    pub bytes: usize,
}

/// Why a session ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// The code.
    pub code: CloseCode,
    /// What the client is told beside it, at most 123 bytes.
    pub reason: Cow<'static, str>,
}

impl From<CloseCode> for Closing {
    fn from(code: CloseCode) -> Self {
        Self {
            code,
            reason: code.reason().into(),
        }
    }
}

/// A session's queue.
#[derive(Debug)]
pub struct Outbox {
    bounds: Bounds,
    queue: Mutex<Queue>,
    /// The connection that drains it.
    drain: AtomicWaker,
}

#[derive(Debug, Default)]
struct Queue {
    ordered: VecDeque<Waiting>,
    overtaking: VecDeque<Encoded>,
    /// Whether the first frame was taken: `connected`, which nothing may overtake.
    begun: bool,
    /// Of `ordered`: events and their bytes.
    events: usize,
    bytes: usize,
    closing: Option<Closing>,
}

#[derive(Debug)]
struct Waiting {
    message: Encoded,
    is_event: bool,
}

impl Outbox {
    /// An empty queue.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            queue: Mutex::default(),
            drain: AtomicWaker::new(),
        }
    }

    /// Appends an event. Beyond the bound it closes the session as too slow; after a close it does nothing.
    /// Returns whether the event will be sent.
    pub fn push_event(&self, event: Encoded) -> bool {
        let mut queue = self.lock();
        let bytes = event.frame().len();
        if queue.closing.is_some() {
            return false;
        }
        if queue.events >= self.bounds.events || queue.bytes + bytes > self.bounds.bytes {
            queue.overflow();
        } else {
            queue.events += 1;
            queue.bytes += bytes;
            queue.ordered.push_back(Waiting {
                message: event,
                is_event: true,
            });
        }
        self.wake(queue)
    }

    /// Appends a frame of the router's own that stands in order with events, under the same rule with its own
    /// reserve.
    pub fn push_in_order(&self, message: Encoded) {
        let mut queue = self.lock();
        if queue.closing.is_some() {
            return;
        }
        if queue.ordered.len() - queue.events + queue.overtaking.len() >= RESERVE {
            queue.overflow();
        } else {
            queue.ordered.push_back(Waiting {
                message,
                is_event: false,
            });
        }
        self.wake(queue);
    }

    /// Appends a frame that may overtake events, within the same reserve.
    pub fn push_overtaking(&self, message: Encoded) {
        let mut queue = self.lock();
        if queue.closing.is_some() {
            return;
        }
        if queue.ordered.len() - queue.events + queue.overtaking.len() >= RESERVE {
            queue.overflow();
        } else {
            queue.overtaking.push_back(message);
        }
        self.wake(queue);
    }

    /// Ends the session. The first reason counts. What waits is still sent, if the client reads it soon.
    pub fn close(&self, closing: impl Into<Closing>) {
        let mut queue = self.lock();
        queue.closing.get_or_insert(closing.into());
        self.wake(queue);
    }

    /// Moves what waits into `batch`, at most `messages` of them and, after the first, `bytes`. Returns why the
    /// session ends once all that was to be sent has been taken.
    pub fn take(&self, batch: &mut Vec<Encoded>, messages: usize, bytes: usize) -> Option<Closing> {
        let mut queue = self.lock();
        let mut taken = 0;
        while batch.len() < messages && (taken < bytes || batch.is_empty()) {
            let Some(message) = queue.pop() else { break };
            taken += message.frame().len();
            batch.push(message);
        }
        if queue.is_empty() {
            // A burst must not leave its room behind on every idle session. Room for a few stays, 64 bytes: without
            // it every delivery would allocate.
            if queue.ordered.capacity() > KEPT {
                queue.ordered = VecDeque::new();
            }
            queue.overtaking.shrink_to(0);
            return queue.closing.clone();
        }
        None
    }

    /// Takes out the events that wait: the session is to get them again, in the order of its replay.
    pub fn withdraw_events(&self) {
        let mut queue = self.lock();
        queue.ordered.retain(|waiting| !waiting.is_event);
        (queue.events, queue.bytes) = (0, 0);
    }

    /// Whether no event waits, so that a replay may append its next ones.
    pub fn has_room_for_a_step(&self) -> bool {
        let queue = self.lock();
        queue.events == 0 && queue.closing.is_none()
    }

    /// How much may wait.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Whether the session is to end.
    pub fn is_closing(&self) -> bool {
        self.lock().closing.is_some()
    }

    /// Messages and bytes that wait.
    pub fn depth(&self) -> (usize, usize) {
        let queue = self.lock();
        (queue.ordered.len() + queue.overtaking.len(), queue.bytes)
    }

    /// Waits until there is something to take. One task at a time.
    pub async fn ready(&self) {
        poll_fn(|context| self.poll_ready(context)).await;
    }

    /// Waits until it was too full, and says so: then nothing more comes of it. One task at a time, and not while
    /// that one waits for [`Outbox::ready`].
    pub async fn overflowed(&self) -> Closing {
        poll_fn(|context| {
            self.drain.register(context.waker());
            match &self.lock().closing {
                Some(closing) if closing.code == CloseCode::TooSlow => Poll::Ready(closing.clone()),
                _ => Poll::Pending,
            }
        })
        .await
    }

    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        // Registered first: what is pushed after the look wakes.
        self.drain.register(context.waker());
        let queue = self.lock();
        if queue.is_empty() && queue.closing.is_none() {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }

    /// Lets go of the lock before the other side runs into it. Returns whether the session goes on.
    fn wake(&self, queue: MutexGuard<'_, Queue>) -> bool {
        let goes_on = queue.closing.is_none();
        drop(queue);
        self.drain.wake();
        goes_on
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No code under the lock panics half-way through a change.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn pop(&mut self) -> Option<Encoded> {
        if (self.begun || self.ordered.is_empty())
            && let Some(message) = self.overtaking.pop_front()
        {
            return Some(message);
        }
        let Waiting { message, is_event } = self.ordered.pop_front()?;
        self.begun = true;
        if is_event {
            self.events -= 1;
            self.bytes -= message.frame().len();
        }
        Some(message)
    }

    fn is_empty(&self) -> bool {
        self.ordered.is_empty() && self.overtaking.is_empty()
    }

    fn overflow(&mut self) {
        *self = Self {
            closing: Some(CloseCode::TooSlow.into()),
            ..Self::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The queue of a session that has begun.
    fn outbox(events: usize, bytes: usize) -> Outbox {
        let outbox = Outbox::new(Bounds { events, bytes });
        outbox.push_in_order(message("connected"));
        assert_eq!(take(&outbox), (vec!["connected".into()], None));
        outbox
    }

    fn message(text: &str) -> Encoded {
        Encoded::json(text)
    }

    fn take(outbox: &Outbox) -> (Vec<String>, Option<Closing>) {
        let mut batch = Vec::new();
        let closing = outbox.take(&mut batch, 64, 1 << 20);
        let text = |message: &Encoded| String::from_utf8(message.payload().to_vec()).unwrap();
        (batch.iter().map(text).collect(), closing)
    }

    #[test]
    fn events_and_frames_keep_their_order() {
        let outbox = outbox(10, 1000);
        outbox.push_event(message("1"));
        outbox.push_in_order(message("2"));
        outbox.push_event(message("3"));
        outbox.push_overtaking(message("0"));
        assert_eq!(
            take(&outbox),
            (vec!["0".into(), "1".into(), "2".into(), "3".into()], None)
        );
    }

    #[test]
    fn nothing_overtakes_the_first_frame() {
        let outbox = Outbox::new(Bounds {
            events: 10,
            bytes: 1000,
        });
        outbox.push_in_order(message("connected"));
        outbox.push_event(message("1"));
        outbox.push_overtaking(message("error"));
        assert_eq!(
            take(&outbox),
            (vec!["connected".into(), "error".into(), "1".into()], None)
        );
    }

    #[test]
    fn one_event_too_many_closes_as_too_slow() {
        let outbox = outbox(2, 1000);
        assert!(outbox.push_event(message("1")));
        assert!(outbox.push_event(message("2")));
        assert!(!outbox.push_event(message("3")));
        assert_eq!(take(&outbox), (vec![], Some(CloseCode::TooSlow.into())));
        assert!(!outbox.push_event(message("4")), "nothing follows a close");
    }

    #[test]
    fn one_byte_too_many_closes_as_too_slow() {
        // A frame's header takes 2 bytes.
        let outbox = outbox(10, 12);
        assert!(outbox.push_event(message("1234")));
        assert!(outbox.push_event(message("1234")));
        assert!(!outbox.push_event(message("")));
        assert_eq!(take(&outbox).1, Some(CloseCode::TooSlow.into()));
    }

    #[test]
    fn full_of_events_there_is_still_room_for_answers() {
        let outbox = outbox(1, 1000);
        outbox.push_event(message("event"));
        outbox.push_in_order(message("pong"));
        outbox.push_overtaking(message("reply"));
        assert_eq!(
            take(&outbox),
            (vec!["reply".into(), "event".into(), "pong".into()], None)
        );
    }

    #[test]
    fn the_reserve_has_an_end() {
        let outbox = outbox(1, 1000);
        for _ in 0..RESERVE / 2 {
            outbox.push_in_order(message("pong"));
            outbox.push_overtaking(message("reply"));
        }
        assert!(!outbox.is_closing());
        outbox.push_overtaking(message("reply"));
        assert_eq!(take(&outbox).1, Some(CloseCode::TooSlow.into()));
    }

    #[test]
    fn what_waits_goes_before_the_close() {
        let outbox = outbox(10, 1000);
        outbox.push_event(message("1"));
        outbox.close(CloseCode::Unauthorized);
        outbox.close(CloseCode::TooSlow);
        outbox.push_event(message("2"));
        let mut batch = Vec::new();
        assert_eq!(outbox.take(&mut batch, 0, 1000), None);
        assert_eq!(
            take(&outbox),
            (vec!["1".into()], Some(CloseCode::Unauthorized.into()))
        );
    }

    #[test]
    fn a_batch_is_bounded_in_bytes_and_never_empty() {
        let outbox = outbox(10, 1000);
        for _ in 0..3 {
            outbox.push_event(message("123456"));
        }
        let mut batch = Vec::new();
        outbox.take(&mut batch, 64, 0);
        assert_eq!(batch.len(), 1);
        outbox.take(&mut batch, 64, 9);
        assert_eq!(batch.len(), 3);
    }

    #[test]
    fn events_are_withdrawn_and_the_rest_stays() {
        let outbox = outbox(2, 1000);
        outbox.push_event(message("1"));
        outbox.push_in_order(message("pong"));
        outbox.push_event(message("2"));
        assert!(!outbox.has_room_for_a_step());
        outbox.withdraw_events();
        assert!(outbox.has_room_for_a_step());
        outbox.push_event(message("3"));
        outbox.push_event(message("4"));
        assert_eq!(take(&outbox), (vec!["pong".into(), "3".into(), "4".into()], None));
    }
}
