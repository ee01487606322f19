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
    arrived::Arrived,
    decided::{Decided, Decisions, Verdict},
    past::{Chunk, MESSAGES, Past, PastFault},
    source::{Check, Rejection, Sources},
};
use crate::{
    encoded::Encoded,
    history::{Archive, Kept, Segment, Span, Withdrawn},
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
    decisions: Option<Decisions>,
    sources: Arc<Sources>,
    check: Arc<Check>,
    keeping: Keeping,
    metrics: Arc<Metrics>,
    admitted: Arc<Semaphore>,
    readers: Semaphore,
    recent: Mutex<VecDeque<Recent>>,
    removed: Mutex<Removed>,
}

/// What the stream removed behind its first sequence.
#[derive(Clone, Default)]
struct Removed {
    /// In order, as far as known.
    known: Arc<[u64]>,
    /// Of all segments read since that was heard.
    withdrawn: Withdrawn,
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
        decisions: Option<Decisions>,
        sources: Arc<Sources>,
        check: Arc<Check>,
        keeping: Keeping,
        metrics: Arc<Metrics>,
        replays: usize,
    ) -> Self {
        Self(Arc::new(Inner {
            past,
            decisions,
            sources,
            check,
            keeping,
            metrics,
            admitted: Arc::new(Semaphore::new(replays)),
            readers: Semaphore::new(READERS),
            recent: Mutex::default(),
            removed: Mutex::default(),
        }))
    }

    /// Gives up what was read: the stream has removed these sequences since, in order, or more than it says. A
    /// replica that answers later may not know of it yet, so they are left out of what it says.
    pub(super) fn forget(&self, removed: Option<&Arc<[u64]>>) {
        let fresh = Removed {
            known: removed.cloned().unwrap_or_default(),
            withdrawn: Withdrawn::default(),
        };
        let stale = std::mem::replace(&mut *self.0.removed(), fresh);
        stale.withdrawn.withdraw();
        self.0.recent().clear();
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
            if segment
                .as_ref()
                .is_none_or(|segment| segment.withdrawn.is_withdrawn())
            {
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
        let removed = self.removed().clone();
        let end = to.min(after + MESSAGES as u64);
        match self.past.read(epoch, after, end).await {
            Ok(mut chunk) => {
                if let Some((_, lost)) = chunk.lost.last_mut()
                    && *lost == chunk.up_to
                {
                    // One gap up to what is left, not one in each segment.
                    *lost = chunk.first.saturating_sub(1).clamp(*lost, to.max(*lost));
                }
                if let Err(fault) = self.judge(epoch, after, &mut chunk).await {
                    warn!(
                        after,
                        fault, "the record of decisions can't be read or written now: trying again"
                    );
                    return None;
                }
                self.metrics.history.segments.inc();
                let segment = self.segment(after, chunk, removed);
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

    /// Finds what was decided of these events, and decides what nobody has.
    async fn judge(&self, epoch: &str, after: u64, chunk: &mut Chunk) -> Result<(), String> {
        let Some(decisions) = &self.decisions else {
            return Ok(());
        };
        let answer = self.decided(decisions, epoch, after, chunk).await;
        let Ok(decided) = answer else {
            decisions.mend().await;
            return answer.map(|_| ());
        };
        for message in &mut chunk.messages {
            message.verdict = message.seq().map_or(Verdict::Open, |seq| decided.of(seq));
        }
        Ok(())
    }

    async fn decided(
        &self,
        decisions: &Decisions,
        epoch: &str,
        after: u64,
        chunk: &Chunk,
    ) -> Result<Decided, String> {
        let decided = decisions.look(epoch, after, chunk.up_to).await?;
        let mut ours = Decided::default();
        let mut rejected: Vec<(u64, &Arrived, Rejection)> = Vec::new();
        for message in &chunk.messages {
            let Some(seq) = message.seq().filter(|seq| decided.of(*seq) == Verdict::Open) else {
                continue;
            };
            let reading = message.read(&self.sources, &*self.check);
            ours.note(
                seq,
                match &reading {
                    Ok(_) => Verdict::Accepted,
                    _ => Verdict::Rejected,
                },
            );
            if let Err(rejection) = reading {
                rejected.push((seq, message, rejection));
            }
        }
        if ours == Decided::default() {
            return Ok(decided);
        }
        decisions.decide(epoch, &ours).await?;
        for (_, _, rejection) in &rejected {
            self.metrics.events.rejected.of(rejection.rule.label()).inc();
        }
        if let Some((seq, message, rejection)) = rejected.first() {
            warn!(
                after, to = chunk.up_to, rejected = rejected.len(), seq, subject = message.subject,
                rule = %rejection.rule, pointer = rejection.pointer,
                "rejected stored events that no node had read: {}", rejection.message
            );
        }
        decisions.look(epoch, after, chunk.up_to).await
    }

    /// What sessions may ask for of what was read.
    fn segment(&self, after: u64, chunk: Chunk, removed: Removed) -> Segment {
        let mut span = Span::new(after);
        let now = Instant::now();
        let mut unreadable = 0_usize;
        for message in &chunk.messages {
            if let Some(seq) = message.seq()
                && removed.known.binary_search(&seq).is_ok()
            {
                continue;
            }
            let reading = match message.verdict {
                Verdict::Open => message.read(&self.sources, &*self.check),
                Verdict::Accepted => message.read_accepted(&self.sources),
                Verdict::Rejected => continue,
            };
            let content = match reading {
                Ok(content) => content,
                Err(rejection) => {
                    unreadable += 1;
                    self.metrics.events.rejected.of(rejection.rule.label()).inc();
                    continue;
                }
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
        if unreadable > 0 {
            warn!(
                after,
                to = chunk.up_to,
                events = unreadable,
                "left stored events out of what is replayed: today's sources, or without a record of decisions today's schemas, do not take them"
            );
        }
        span.advance(chunk.up_to);
        Segment {
            span,
            lost: chunk.lost,
            withdrawn: removed.withdrawn,
        }
    }

    fn removed(&self) -> MutexGuard<'_, Removed> {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner)
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
