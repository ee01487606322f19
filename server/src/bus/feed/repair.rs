//! Repair: what the feed finds missing it reads back from the stream, part by part, and dispatches it before
//! anything newer.
//!
//! Live messages that come meanwhile are held, up to a bound, so that a fast stream can be caught up with; beyond
//! the bound they are dropped, as the stream has them. Only what the stream itself no longer has is told as a gap.

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::{Feed, durable::Durable, head::CHECK_SOON};
use crate::bus::{
    continuity::{Cause, Missed},
    decided::Verdict,
    past::{Chunk, PastFault},
};

/// How long the record of decisions may take to answer.
const LOOK: Duration = Duration::from_secs(1);

pub(super) type Read = BoxFuture<'static, Result<Chunk, PastFault>>;

/// Begins to read back what lies after `after`.
pub(super) fn read_back(durable: &Durable, after: u64, to: u64) -> Read {
    let (past, decisions) = (durable.past.clone(), durable.decisions.clone());
    let epoch = durable.continuity.epoch().to_owned();
    Box::pin(async move {
        let mut chunk = past.read(&epoch, after, to).await?;
        if let Some(decisions) = decisions {
            // The feed does not wait long for it: what it then judges itself changes no decision that stands.
            match timeout(LOOK, decisions.look(&epoch, after, chunk.up_to)).await {
                Ok(Ok(decided)) => {
                    for message in &mut chunk.messages {
                        message.verdict = message.seq().map_or(Verdict::Open, |seq| decided.of(seq));
                    }
                }
                answer => debug!(?answer, "what was decided of it is not known"),
            }
        }
        Ok(chunk)
    })
}

impl Feed {
    /// Takes what was held and is next now.
    pub(super) fn take_held(&mut self, now: Instant) {
        while let Some(durable) = &mut self.durable {
            let last = durable.continuity.last();
            let Some(arrived) = durable.held.pop_if(|seq| seq <= last + 1) else {
                break;
            };
            if let Some(seq) = arrived.seq().filter(|seq| *seq > last) {
                durable.continuity.reached(seq, now);
                self.dispatch(&arrived, now);
            }
        }
    }

    /// Takes what was read back of the stream, in the place of what was missed.
    pub(super) fn repair(&mut self, chunk: Result<Chunk, PastFault>) {
        let now = Instant::now();
        let Some(durable) = &mut self.durable else { return };
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(fault) => {
                if let PastFault::Passing(fault) = &fault {
                    warn!(fault, "the stream can't be read back now: trying again");
                }
                durable.next_read = now + CHECK_SOON;
                self.next_check = self.next_check.min(now + CHECK_SOON);
                return;
            }
        };
        let from = durable.continuity.last();
        let mut lost = chunk.lost.into_iter().peekable();
        for message in &chunk.messages {
            let Some(seq) = message.seq() else { continue };
            while let Some((after, to)) = lost.next_if(|(_, to)| *to < seq) {
                self.lost(after, to, now);
            }
            let Some(durable) = &mut self.durable else { return };
            if seq <= durable.continuity.last() {
                continue;
            }
            if let Some(by_user) = &durable.by_user {
                by_user.repair(message, seq, &mut durable.continuity, &mut *self.taker, now);
            } else {
                durable.continuity.reached(seq, now);
                self.dispatch(message, now);
                self.taker.repaired();
            }
        }
        for (after, to) in lost {
            self.lost(after, to, now);
        }
        if let Some(durable) = &mut self.durable {
            let up_to = chunk.up_to;
            match &durable.by_user {
                _ if up_to <= durable.continuity.last() => {}
                Some(by_user) => by_user.repaired(up_to, &mut durable.continuity, &mut *self.taker, now),
                None => {
                    durable.continuity.reached(up_to, now);
                    self.taker.passed(up_to);
                }
            }
            debug!(
                from_seq = from,
                to_seq = durable.continuity.last(),
                "read back what was missed"
            );
        }
        self.take_held(now);
        self.go_on(now);
    }

    /// Declares a range that the stream had removed before it was read back, as far as it is missing.
    fn lost(&mut self, after: u64, to: u64, now: Instant) {
        let Some(durable) = &mut self.durable else { return };
        let from = after.max(durable.continuity.last());
        if to > from {
            durable.continuity.reached(to, now);
            self.missed(&Missed {
                from,
                to,
                cause: Cause::Evicted,
            });
        }
    }
}
