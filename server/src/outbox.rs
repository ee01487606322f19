//! One session's bounded queue and the way out of it: filled by the router, written to the socket by whoever
//! flushes it.
//!
//! Three things are in the queue: what goes out in order (events, and every frame that carries a sequence), what
//! may overtake (replies, errors, news of the token), and the decision to close.
//!
//! **Two flush it.** A shard's flusher writes live events, straight from where they were routed, so that a delivery wakes
//! no task. The session's connection does all else: it writes what the client asked for and what a replay
//! appends, and goes on where the socket took no more. One lock orders their writes; nobody waits under it, as a
//! socket that takes no more says so. The queue has a lock of its own, which is never held while anything is written.
//!
//! **When it is full.** Events are bounded in number and in bytes; frames of the router's own have a small
//! reserve beyond, so that a flood of events can't keep a client from its `pong`; who asks and does not read is not
//! read ([`Outbox::takes_answers`]). A push beyond its bound never
//! waits and never drops one message among others: it empties the queue and closes the session with 4413, from
//! which a client resumes without a loss. Beyond the queue one batch (64 messages, 64 KiB after the first) may
//! wait for the socket.

mod framing;
mod queue;

use std::{
    borrow::Cow,
    cell::Cell,
    fmt,
    io::{self, IoSlice},
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use atomic_waker::AtomicWaker;
use bytes::Bytes;
use rivulet_protocol::close::CloseCode;
use tokio::{net::tcp::OwnedWriteHalf, time::Instant};

pub use self::framing::Framing;
use self::queue::{Batch, Kind, Queue};
use crate::{encoded::Encoded, metrics::Sent, websocket::FrameWriter};

/// The most messages taken at a time: as many as go into one vectored write.
const MESSAGES: usize = 64;
/// The most bytes taken at a time, after the first message: what was taken is no longer in the queue's bound, so
/// it is kept near what a socket's buffer takes.
const BYTES: usize = 64 << 10;

thread_local! {
    /// A batch is filled and emptied in one go: a thread's sessions use one after the other.
    static BATCH: Cell<Batch> = Cell::default();
}

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

/// Where frames go: it takes what it can at once, and never waits.
pub trait Wire: Send + Sync {
    /// Writes some of the slices' bytes, in order.
    ///
    /// # Errors
    /// `WouldBlock` if it takes nothing now; anything else says that it is broken.
    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;
}

impl Wire for OwnedWriteHalf {
    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match slices {
            // A `send`: a `writev` of one takes 0.1 to 0.5 µs more.
            [frame] => self.try_write(frame),
            frames => OwnedWriteHalf::try_write_vectored(self, frames),
        }
    }
}

/// A session's queue and its way out.
pub struct Outbox {
    bounds: Bounds,
    framing: Framing,
    queue: Mutex<Queue>,
    writing: Mutex<Writing>,
    wire: Box<dyn Wire>,
    connection: AtomicWaker,
}

/// What the socket has not taken yet.
#[derive(Debug)]
struct Writing {
    backlog: FrameWriter,
    /// Goes as soon as the backlog is written.
    pong: Option<Bytes>,
    /// How many batches were begun.
    batches: u64,
    /// When the last one was.
    said: Instant,
    broken: bool,
    /// The connection parts: only its own last frames go out.
    sealed: bool,
}

/// What a push of a live event came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// The session ends, and the event is not sent.
    Refused,
    /// It will be sent.
    Queued,
    /// The same, and the caller sees to it that the outbox is flushed soon.
    First,
}

/// What a flush came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// All that waited is written.
    Written,
    /// The socket takes no more now.
    Blocked {
        /// Which batch waits for it: another number says that the last one went out whole.
        batch: u64,
        /// The bytes that are left of it.
        left: usize,
    },
    /// All that waited is written, and the session ends.
    Closing(Closing),
    /// The socket is broken.
    Lost,
}

impl Outbox {
    /// An empty queue before a socket.
    pub fn new(bounds: Bounds, framing: Framing, wire: impl Wire + 'static) -> Self {
        Self {
            bounds,
            framing,
            queue: Mutex::default(),
            writing: Mutex::new(Writing {
                backlog: FrameWriter::new(),
                pong: None,
                batches: 0,
                said: Instant::now(),
                broken: false,
                sealed: false,
            }),
            wire: Box::new(wire),
            connection: AtomicWaker::new(),
        }
    }

    /// Appends an event that just happened. Beyond the bound it closes the session as too slow; after a close it
    /// does nothing. It wakes nobody: the caller has the outbox flushed.
    pub fn push_event(&self, event: Encoded) -> Pushed {
        let mut queue = self.queue();
        if queue.closing.is_some() {
            return Pushed::Refused;
        }
        queue.push(event, Kind::Live, self.bounds);
        if queue.closing.is_some() {
            drop(queue);
            self.connection.wake();
            return Pushed::Refused;
        }
        match std::mem::replace(&mut queue.listed, true) {
            true => Pushed::Queued,
            false => Pushed::First,
        }
    }

    /// Appends an event of the past, under the same bound. For the connection alone, which then flushes.
    pub fn append_event(&self, event: Encoded) {
        let mut queue = self.queue();
        if queue.closing.is_none() {
            queue.push(event, Kind::Replayed, self.bounds);
        }
    }

    /// Appends a frame of the router's own that stands in order with events, under the same rule with its own
    /// reserve.
    pub fn push_in_order(&self, message: Encoded) {
        self.rouse(|queue| {
            if queue.closing.is_none() {
                queue.push(message, Kind::Own, self.bounds);
            }
        });
    }

    /// Appends a frame that may overtake events, within the same reserve.
    pub fn push_overtaking(&self, message: Encoded) {
        self.rouse(|queue| {
            if queue.closing.is_none() {
                queue.push_overtaking(message);
            }
        });
    }

    /// Ends the session. The first reason counts. What waits is still sent, if the client reads it soon.
    pub fn close(&self, closing: impl Into<Closing>) {
        self.rouse(|queue| {
            queue.closing.get_or_insert(closing.into());
        });
    }

    /// Writes what waits, as far as the socket takes it at once. For the connection alone.
    pub fn flush(&self, sent: &mut Sent<'_>) -> Flushed {
        self.queue().roused = false;
        self.write_out(sent)
    }

    /// The same for everybody else: where something is left to do, the connection is told.
    pub fn flush_live(&self, sent: &mut Sent<'_>) {
        if self.write_out(sent) != Flushed::Written {
            self.rouse(|_| {});
        }
    }

    fn write_out(&self, sent: &mut Sent<'_>) -> Flushed {
        let mut writing = self.writing();
        let mut batch = BATCH.take();
        let flushed = loop {
            if writing.sealed {
                break Flushed::Written;
            }
            if writing.broken {
                break Flushed::Lost;
            }
            if !writing.backlog.is_empty() {
                let written = writing
                    .backlog
                    .try_write(|slices| self.wire.try_write_vectored(slices));
                match written {
                    Ok(true) => {}
                    Ok(false) => {
                        break Flushed::Blocked {
                            batch: writing.batches,
                            left: writing.backlog.pending_bytes(),
                        };
                    }
                    Err(_) => writing.broken = true,
                }
                continue;
            }
            if let Some(pong) = writing.pong.take() {
                writing.put_first(pong);
                continue;
            }
            let closing = {
                let mut queue = self.queue();
                queue.take(&mut batch, MESSAGES, BYTES);
                queue.closing.clone()
            };
            if batch.messages.is_empty() {
                break closing.map_or(Flushed::Written, Flushed::Closing);
            }
            self.write(&mut writing, &mut batch, sent);
        };
        BATCH.set(batch);
        flushed
    }

    fn write(&self, writing: &mut Writing, batch: &mut Batch, sent: &mut Sent<'_>) {
        let now = Instant::now();
        sent.batch(batch.messages.len(), batch.oldest.take(), now.into_std());
        self.framing.join(&mut batch.messages);
        let frames = batch
            .messages
            .iter()
            .map(|message| self.framing.frame(message, sent));
        let written = writing
            .backlog
            .write_through(frames, |slices| self.wire.try_write_vectored(slices));
        match written {
            Ok(bytes) => sent.bytes += bytes as u64,
            Err(_) => writing.broken = true,
        }
        (writing.said, writing.batches) = (now, writing.batches + 1);
        batch.messages.clear();
    }

    /// Answers a ping, before whatever waits in the queue. Where the socket has yet to take what it was given, the
    /// pong goes behind that, and one that waits already gives way: the answer to the last ping is enough (RFC 6455
    /// §5.5.3). For the connection, which then flushes.
    pub fn push_pong(&self, pong: Bytes) {
        self.writing().pong = Some(pong);
    }

    /// Asks for a sign of life, unless something waits for the socket: to take that is one. Returns whether it did.
    /// For the connection, which then flushes.
    pub fn push_ping(&self, ping: Bytes) -> bool {
        let mut writing = self.writing();
        let free = writing.backlog.is_empty();
        if free {
            writing.put_first(ping);
        }
        free
    }

    /// Parts: from here on only the caller writes, and what waits in the queue or would come into it is nobody's.
    /// Returns what the socket has not taken; with `at_once`, no more of it than the rest of a frame that has begun.
    pub fn seal(&self, at_once: bool) -> FrameWriter {
        self.queue().end(CloseCode::Abnormal);
        let mut writing = self.writing();
        writing.sealed = true;
        let mut backlog = std::mem::take(&mut writing.backlog);
        if at_once {
            backlog.drop_unbegun();
        }
        backlog
    }

    /// How many bytes wait for the socket.
    pub fn backlog(&self) -> usize {
        self.writing().backlog.pending_bytes()
    }

    /// When something was written last.
    pub fn said(&self) -> Instant {
        self.writing().said
    }

    /// Holds events back, if none has left yet, until [`Outbox::withdraw_events`] or [`Outbox::release`]. Returns
    /// whether it does.
    pub fn hold_events(&self) -> bool {
        self.queue().hold()
    }

    /// Takes out the events that wait, held back or not: the session is to get them again, in the order of its
    /// replay.
    pub fn withdraw_events(&self) {
        self.queue().withdraw_events();
    }

    /// Lets events go that were held back.
    pub fn release(&self) {
        self.rouse(Queue::release);
    }

    /// Whether nothing of the session's events waits, so that a replay may append its next ones.
    pub fn has_room_for_a_step(&self) -> bool {
        let queue = self.queue();
        !queue.has_events() && queue.closing.is_none()
    }

    /// Whether what the client asks may be answered: the session does not end, and not too many answers wait already
    /// for a client that does not read.
    pub fn takes_answers(&self) -> bool {
        self.queue().takes_answers()
    }

    /// How much may wait.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Why the session is to end.
    pub fn closing(&self) -> Option<Closing> {
        self.queue().closing.clone()
    }

    /// Messages and bytes that wait.
    pub fn depth(&self) -> (usize, usize) {
        self.queue().depth()
    }

    /// Waits until there is something for the connection to do: a flush, or an end. One task at a time.
    pub fn poll_roused(&self, context: &mut Context<'_>) -> Poll<()> {
        // Registered first: what comes after the look wakes.
        self.connection.register(context.waker());
        match std::mem::take(&mut self.queue().roused) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// Changes the queue and tells the connection.
    fn rouse(&self, change: impl FnOnce(&mut Queue)) {
        let mut queue = self.queue();
        change(&mut queue);
        queue.roused = true;
        // Let go before the other side runs into it.
        drop(queue);
        self.connection.wake();
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // No code under the lock panics half-way through a change.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(|poisoned| {
            // What panicked may have lost a batch, and whatever is written after that would pass it over.
            let mut writing = poisoned.into_inner();
            writing.broken = true;
            writing
        })
    }
}

impl Writing {
    /// Puts a control frame before whatever waits in the queue: it has a deadline of its own, as a batch has.
    fn put_first(&mut self, control: Bytes) {
        self.backlog.push(control);
        self.batches += 1;
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Outbox")
            .field("queue", &self.queue)
            .field("writing", &self.writing)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests;
