//! What came twice: a message whose sequence was dispatched before, with other bytes.
//!
//! One of the two is not the stream's. Which, the stream says. Nothing is kept or compared for this on the way of an
//! event: only what comes late is compared with the past in memory, and only where that says otherwise is the
//! stream's leader asked for the message.

use std::{collections::VecDeque, time::Instant};

use futures_util::future::BoxFuture;
use tracing::{debug, error};

use super::{Feed, durable::Durable, head::CHECK_SOON};
use crate::bus::{arrived::Arrived, past::PastFault};

/// Sequences that wait to be looked up. One more is not: it is the past of a flood that is no more than this at a time.
const SUSPECTS: usize = 256;

/// Sequences of which two messages came.
#[derive(Default)]
pub(super) struct Suspects {
    waiting: VecDeque<u64>,
    /// When the stream may be asked again after that failed.
    next: Option<Instant>,
}

/// A sequence, in which epoch, and what the stream has there.
pub(super) struct Found {
    seq: u64,
    epoch: String,
    stored: Result<Option<Arrived>, PastFault>,
}

pub(super) type Lookup = BoxFuture<'static, Found>;

/// Begins to ask the stream for the next suspect.
pub(super) fn look_up(durable: &mut Durable, now: Instant) -> Option<Lookup> {
    if durable.suspects.next.is_some_and(|next| now < next) {
        return None;
    }
    let seq = durable.suspects.waiting.pop_front()?;
    let (past, epoch) = (durable.past.clone(), durable.continuity.epoch().to_owned());
    Some(Box::pin(async move {
        let stored = past.at(seq).await;
        Found { seq, epoch, stored }
    }))
}

impl Feed {
    /// Has the stream asked about a sequence that was dispatched, if a message says otherwise than what was.
    pub(super) fn suspect(&mut self, arrived: &Arrived, seq: u64) {
        let Some(durable) = &mut self.durable else { return };
        let waiting = &mut durable.suspects.waiting;
        if waiting.len() < SUSPECTS && !waiting.contains(&seq) && !self.taker.agrees(arrived, seq) {
            waiting.push_back(seq);
        }
    }

    /// Takes what the stream has in the place of what was dispatched, if that was something else.
    pub(super) fn judge(&mut self, found: Found) {
        let Some(durable) = &mut self.durable else { return };
        let Found { seq, epoch, stored } = found;
        if epoch != durable.continuity.epoch() {
            return;
        }
        let stored = match stored {
            Ok(stored) => stored,
            Err(fault) => {
                debug!(?fault, seq, "the stream does not say what it has: asking again");
                durable.suspects.waiting.push_front(seq);
                durable.suspects.next = Some(Instant::now() + CHECK_SOON);
                return;
            }
        };
        // Of two messages for one sequence, one is forged, whichever came first.
        self.taker.forged(1);
        if self.taker.replace(stored.as_ref(), seq) {
            error!(
                stream = epoch,
                seq,
                "what was delivered for this sequence was not the stream's: sessions get the stream's; somebody else \
                 than NATS publishes as it does, see SECURITY.md"
            );
        }
    }
}
