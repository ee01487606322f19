//! The past that is no longer in memory, for sessions that resume from farther back.
//!
//! The stream is read in segments that begin at multiples of 256, so that sessions which need the same range
//! share one read, and a crowd that reconnects after an hour costs the stream one read of it.
//!
//! **Bounds.** Four segments are read at once; the most recent ones stay in memory, up to 32 MiB. As many
//! sessions as configured replay from here at a time; one more is told when to come again.

use std::{
    collections::VecDeque,
    fmt,
    future::{pending, ready},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::sleep,
};
use tracing::{debug, warn};

use super::{
    past::{Chunk, MESSAGES, Past, PastFault},
    source::{Check, Sources},
};
use crate::{
    encoded::Encoded,
    history::{Archive, Kept, Segment, Span},
    metrics::Metrics,
    router::Keeping,
};

/// How many segments are read at once: more would take the live feed's share of the stream's leader.
const READERS: usize = 4;
/// About how many bytes of segments stay in memory.
const BYTES: usize = 32 << 20;
/// The most segments that stay in memory, read or being read.
const SEGMENTS: usize = 1_024;
/// How soon a read that failed is tried again.
const AGAIN: Duration = Duration::from_millis(250);

/// The stream's past in segments. A clone is the same.
#[derive(Clone)]
pub(super) struct Segments(Arc<Inner>);

struct Inner {
    past: Past,
    sources: Arc<Sources>,
    check: Arc<Check>,
    keeping: Keeping,
    metrics: Arc<Metrics>,
    admitted: Arc<Semaphore>,
    readers: Semaphore,
    recent: Mutex<VecDeque<Recent>>,
}

/// A segment that is there or on its way.
struct Recent {
    epoch: Arc<str>,
    after: u64,
    segment: Reads,
}

type Reads = Shared<BoxFuture<'static, Option<Arc<Segment>>>>;

impl fmt::Debug for Segments {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Segments").finish_non_exhaustive()
    }
}

impl Segments {
    /// `replays`: how many sessions replay from here at a time.
    pub(super) fn new(
        past: Past,
        sources: Arc<Sources>,
        check: Arc<Check>,
        keeping: Keeping,
        metrics: Arc<Metrics>,
        replays: usize,
    ) -> Self {
        Self(Arc::new(Inner {
            past,
            sources,
            check,
            keeping,
            metrics,
            admitted: Arc::new(Semaphore::new(replays)),
            readers: Semaphore::new(READERS),
            recent: Mutex::default(),
        }))
    }

    /// The segment that begins at `start`, begun to be read if nobody has.
    fn at(&self, epoch: &Arc<str>, start: u64, to: u64) -> Reads {
        let mut recent = self.0.recent();
        let known = recent
            .iter()
            .position(|known| known.after == start && known.epoch == *epoch);
        if let Some(known) = known.and_then(|known| recent.remove(known)) {
            let segment = known.segment.clone();
            recent.push_back(known);
            return segment;
        }
        let (done, read) = oneshot::channel();
        let inner = Arc::clone(&self.0);
        let stream = Arc::clone(epoch);
        // A task of its own: whoever waits for it may go away.
        tokio::spawn(async move {
            let segment = inner.read(&stream, start, to).await.map(Arc::new);
            if segment.is_none() {
                inner
                    .recent()
                    .retain(|known| known.after != start || known.epoch != stream);
            }
            let _ = done.send(segment);
        });
        let segment = read.map(|segment| segment.ok().flatten()).boxed().shared();
        recent.push_back(Recent {
            epoch: Arc::clone(epoch),
            after: start,
            segment: segment.clone(),
        });
        shrink(&mut recent);
        segment
    }

    async fn find(&self, epoch: Arc<str>, after: u64, to: u64) -> Option<Arc<Segment>> {
        let mut start = after - after % MESSAGES as u64;
        loop {
            let Some(segment) = self.at(&epoch, start, to).await else {
                sleep(AGAIN).await;
                return None;
            };
            if segment.span.to() > after {
                return Some(segment);
            }
            // It ended early, at its bound of bytes or at what was in memory then.
            start = segment.span.to();
        }
    }
}

impl Archive for Segments {
    fn admit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.admitted).try_acquire_owned().ok()
    }

    fn admitted(&self) -> BoxFuture<'static, OwnedSemaphorePermit> {
        let admitted = Arc::clone(&self.0.admitted).acquire_owned();
        Box::pin(async move { admitted.await.expect("it is never closed") })
    }

    fn segment(&self, epoch: Arc<str>, after: u64, to: u64) -> BoxFuture<'static, Option<Arc<Segment>>> {
        let segments = self.clone();
        Box::pin(async move { segments.find(epoch, after, to).await })
    }

    fn head(&self) -> BoxFuture<'static, Option<(Arc<str>, u64)>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let head = inner.past.head().await;
            head.ok().map(|head| (head.epoch.into(), head.last))
        })
    }
}

/// The segments of a bus that may not have opened its feed yet.
pub(super) struct Opening(pub(super) Arc<OnceLock<Segments>>);

impl Archive for Opening {
    fn admit(&self) -> Option<OwnedSemaphorePermit> {
        self.0.get()?.admit()
    }

    fn admitted(&self) -> BoxFuture<'static, OwnedSemaphorePermit> {
        match self.0.get() {
            Some(segments) => segments.admitted(),
            None => Box::pin(pending()),
        }
    }

    fn segment(&self, epoch: Arc<str>, after: u64, to: u64) -> BoxFuture<'static, Option<Arc<Segment>>> {
        match self.0.get() {
            Some(segments) => segments.segment(epoch, after, to),
            None => Box::pin(pending()),
        }
    }

    fn head(&self) -> BoxFuture<'static, Option<(Arc<str>, u64)>> {
        match self.0.get() {
            Some(segments) => segments.head(),
            None => Box::pin(ready(None)),
        }
    }
}

impl Inner {
    async fn read(&self, epoch: &str, after: u64, to: u64) -> Option<Segment> {
        let _reader = self.readers.acquire().await.ok()?;
        let begun = Instant::now();
        let end = to.min(after + MESSAGES as u64);
        match self.past.read(epoch, after, end).await {
            Ok(mut chunk) => {
                if let Some((_, lost)) = chunk.lost.last_mut()
                    && *lost == chunk.up_to
                {
                    // One gap up to what is left, not one in each segment.
                    *lost = chunk.first.saturating_sub(1).clamp(*lost, to.max(*lost));
                }
                self.metrics.history.segments.inc();
                let segment = self.segment(after, chunk);
                debug!(
                    after,
                    to = segment.span.to(),
                    events = segment.span.len(),
                    took = ?begun.elapsed(),
                    "read a segment of the stream"
                );
                Some(segment)
            }
            Err(PastFault::AnotherEpoch) => None,
            Err(PastFault::Passing(fault)) => {
                warn!(
                    after,
                    to = end,
                    fault,
                    "the stream can't be read back now: trying again"
                );
                None
            }
        }
    }

    /// What sessions may ask for of what was read. An event that is rejected was counted when it was live.
    fn segment(&self, after: u64, chunk: Chunk) -> Segment {
        let mut span = Span::new(after);
        let now = Instant::now();
        for message in &chunk.messages {
            let Ok(content) = message.read(&self.sources, &*self.check) else {
                continue;
            };
            let event = message.event(content, now);
            if self.keeping.ephemeral.contains(event.event_type.as_str()) {
                continue;
            }
            let as_error = Encoded::event_as_error(&event);
            if let Some(kept) = Kept::new(&event, Encoded::event(&event), as_error) {
                span.push(kept);
            }
        }
        span.advance(chunk.up_to);
        Segment {
            span,
            lost: chunk.lost,
        }
    }

    fn recent(&self) -> MutexGuard<'_, VecDeque<Recent>> {
        // No code under the lock panics half-way through a change.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets the segments that were not asked for for the longest time. One that is being read counts nothing yet.
fn shrink(recent: &mut VecDeque<Recent>) {
    let bytes = |known: &Recent| {
        let read = known.segment.peek().and_then(Option::as_ref);
        read.map_or(0, |segment| segment.span.bytes())
    };
    let mut total: usize = recent.iter().map(bytes).sum();
    while (total > BYTES || recent.len() > SEGMENTS)
        && let Some(oldest) = recent.pop_front()
    {
        total -= bytes(&oldest);
    }
}
