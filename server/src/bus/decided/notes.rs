//! What a node decides, on its way into the record: noted by the feed, written by a task of its own.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rangemap::RangeInclusiveSet;
use tokio::{sync::mpsc, time::sleep};
use tracing::warn;

use super::{Decided, Decisions};
use crate::{bus::Sink, history::Forget};

/// How long after it what a node decided is written.
const PACE: Duration = Duration::from_secs(1);
/// How soon a write that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// The most ranges that wait to be written. What does not fit is not written: it is judged when it is first read
/// back.
const WAITING: usize = 16_384;

/// Sequences in order, as ranges: noting the next one is an addition.
#[derive(Debug, Default)]
struct Runs(Vec<(u64, u64)>);

impl Runs {
    fn note(&mut self, seq: u64) {
        match self.0.last_mut() {
            Some((_, to)) if *to + 1 == seq => *to = seq,
            _ => self.0.push((seq, seq)),
        }
    }

    fn set(&self) -> RangeInclusiveSet<u64> {
        self.0.iter().map(|(from, to)| *from..=*to).collect()
    }
}

/// What this node decided in one epoch and has not written yet.
#[derive(Debug, Default)]
struct Noted {
    epoch: String,
    /// What is to be taken back first: after the one sequence, up to the other.
    withdrawn: Option<(u64, u64)>,
    decided: Runs,
    rejected: Runs,
}

impl Noted {
    fn is_empty(&self) -> bool {
        self.decided.0.is_empty() && self.withdrawn.is_none()
    }
}

/// Where the feed puts what it decided; never waits. What is in it when it is dropped is written too.
#[derive(Debug)]
pub(in crate::bus) struct Notes {
    queue: mpsc::Sender<Noted>,
    noted: Noted,
    next: Instant,
}

impl Notes {
    /// The notes, and the task that writes what goes into them until they are dropped.
    pub(in crate::bus) fn new(decisions: Decisions, sink: Arc<dyn Sink>) -> (Self, impl Future<Output = ()>) {
        // One that is being waited for, and room for the last.
        let (queue, waiting) = mpsc::channel(2);
        let notes = Self {
            queue,
            noted: Noted::default(),
            next: Instant::now(),
        };
        (notes, write(decisions, sink, waiting))
    }

    /// Sequences count in this epoch from now on.
    pub(in crate::bus) fn begin(&mut self, epoch: &str) {
        if self.noted.epoch != epoch {
            self.noted = Noted {
                epoch: epoch.to_owned(),
                ..Noted::default()
            };
        }
    }

    /// The stream lost its end: what was decided after `after` and up to `to` was of other events.
    pub(in crate::bus) fn withdraw(&mut self, after: u64, to: u64) {
        // What was noted and not written is left to be judged when it is first read back.
        self.noted = Noted {
            epoch: std::mem::take(&mut self.noted.epoch),
            withdrawn: Some((after, to)),
            ..Noted::default()
        };
    }

    /// What was decided of this sequence was decided of a forged message: the stream's own counts.
    pub(in crate::bus) fn overrule(&mut self, seq: u64, accepted: bool) {
        let one = (seq.saturating_sub(1), seq);
        let (after, to) = self
            .noted
            .withdrawn
            .map_or(one, |(after, to)| (after.min(one.0), to.max(one.1)));
        self.withdraw(after, to);
        self.note(seq, accepted);
    }

    /// Notes what was decided of the next event.
    pub(in crate::bus) fn note(&mut self, seq: u64, accepted: bool) {
        let Noted {
            decided, rejected, ..
        } = &mut self.noted;
        if decided.0.len() >= WAITING || rejected.0.len() >= WAITING {
            return;
        }
        decided.note(seq);
        if !accepted {
            rejected.note(seq);
        }
    }

    /// When there is something to hand over.
    pub(in crate::bus) fn due(&self) -> Option<Instant> {
        (!self.noted.is_empty() && self.is_free()).then_some(self.next)
    }

    /// Hands over what was noted.
    pub(in crate::bus) fn flush(&mut self, now: Instant) {
        if self.due().is_some_and(|due| due <= now) {
            self.next = now + PACE;
            self.hand_over();
        }
    }

    fn is_free(&self) -> bool {
        self.queue.capacity() == self.queue.max_capacity()
    }

    fn hand_over(&mut self) {
        let next = Noted {
            epoch: self.noted.epoch.clone(),
            ..Noted::default()
        };
        // There is room: see `due` and `new`.
        let _ = self.queue.try_send(std::mem::replace(&mut self.noted, next));
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        if !self.noted.is_empty() {
            self.hand_over();
        }
    }
}

/// Writes what comes, and has memory follow where another decision stands.
async fn write(decisions: Decisions, sink: Arc<dyn Sink>, mut waiting: mpsc::Receiver<Noted>) {
    let mut silent = false;
    while let Some(noted) = waiting.recv().await {
        let ours = Decided {
            decided: noted.decided.set(),
            rejected: noted.rejected.set(),
        };
        let standing = loop {
            let written = async {
                if let Some((after, to)) = noted.withdrawn {
                    decisions.withdraw(&noted.epoch, after, to).await?;
                }
                decisions.decide(&noted.epoch, &ours).await
            };
            match written.await {
                Ok(standing) => break standing,
                Err(fault) => {
                    if !std::mem::replace(&mut silent, true) {
                        warn!(
                            fault,
                            "what was decided of stored events can't be recorded now: trying again"
                        );
                    }
                    decisions.mend().await;
                    sleep(AGAIN).await;
                }
            }
        };
        silent = false;
        // What others rejected first leaves memory; for what others accepted first, the stream is read.
        let rejected = standing.rejected_but_accepted_by(&ours);
        if !rejected.is_empty() {
            sink.forget(Forget::These(&rejected));
        }
        let accepted = ours.rejected_but_accepted_by(&standing);
        if let Some(last) = accepted.last() {
            sink.forget(Forget::UpTo(*last));
        }
        if !rejected.is_empty() || !accepted.is_empty() {
            warn!(
                rejected = rejected.len(),
                accepted = accepted.len(),
                "another node decided otherwise of stored events, and first: do all nodes have the same families and sources?"
            );
        }
    }
}
