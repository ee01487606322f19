//! What the stream removed behind its first sequence: an event that somebody deleted must not be told again.
//!
//! The leader's answer to a head check says how many sequences are missing between the first and the last. Within
//! an epoch that set only grows, and shrinks only as the first sequence passes over it; so where their number is
//! that of the known ones, nothing is new. Where it is greater the leader is asked which they are.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use tokio::{task::JoinHandle, time::timeout};
use tracing::{debug, info};

use super::Feed;
use crate::bus::stream::{Head, HeadFault, deleted};

/// The most sequences that are asked for by name: an answer of about 1 MB. Where there are more, memory gives up
/// all that it has, and what sessions ask for is read from the stream.
const MOST: u64 = 100_000;
/// The least time between two such questions. With that between two head checks it is within 10 s.
const PACE: Duration = Duration::from_secs(6);
/// How long the answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

type Answer = Result<(Head, Vec<u64>), HeadFault>;

/// What is known to be removed.
#[derive(Default)]
pub(super) struct Removed {
    /// In order.
    known: Arc<[u64]>,
    /// What was dispatched later than this may be among the known ones.
    given_up_to: u64,
    asked: Option<Instant>,
    answer: Option<JoinHandle<Answer>>,
    /// Where there were too many: the first sequence then, and how many.
    many: Option<(u64, u64)>,
}

impl Removed {
    /// How many of the known ones lie behind the stream's first sequence.
    fn behind(&self, first: u64) -> u64 {
        (self.known.len() - self.known.partition_point(|seq| *seq < first)) as u64
    }

    /// Whether one of them was dispatched since.
    fn came_late(&self, last: u64) -> bool {
        let next = self.known.partition_point(|seq| *seq <= self.given_up_to);
        self.known.get(next).is_some_and(|seq| *seq <= last)
    }
}

impl Feed {
    /// Compares the leader's word with what is known, and asks for more.
    pub(super) fn look_for_removed(&mut self, head: &Head, recreated: bool, now: Instant) {
        let Some(durable) = &mut self.durable else { return };
        let removed = &mut durable.removed;
        if recreated {
            *removed = Removed::default();
        }
        let last = durable.continuity.last();
        if removed.came_late(last) {
            removed.given_up_to = last;
            self.taker.removed(Some(&removed.known));
        }
        if head.holes <= removed.behind(head.first) {
            return;
        }
        if head.holes > MOST {
            if removed.many.replace((head.first, head.holes)) != Some((head.first, head.holes)) {
                info!(
                    sequences = head.holes,
                    "more was deleted from the stream than can be asked for: memory gives up all that it has"
                );
                self.taker.removed(None);
            }
        } else if removed.answer.is_none() && removed.asked.is_none_or(|asked| now - asked >= PACE) {
            removed.asked = Some(now);
            let (jetstream, name) = (self.link.jetstream.clone(), durable.stream.name.clone());
            // A task of its own: to read a long answer takes some milliseconds.
            removed.answer = Some(tokio::spawn(async move {
                match timeout(TIMEOUT, deleted(&jetstream, &name)).await {
                    Ok(answer) => answer,
                    Err(_) => Err(HeadFault::Unanswered("no answer in 5 s".to_owned())),
                }
            }));
        }
    }

    /// Has what the leader named given up, if it answered.
    pub(super) fn forget_removed(&mut self, now: Instant) {
        let Some(durable) = &mut self.durable else { return };
        let removed = &mut durable.removed;
        let Some(answer) = removed.answer.take_if(|answer| answer.is_finished()) else {
            return;
        };
        match answer.now_or_never() {
            Some(Ok(Ok((head, deleted)))) if head.epoch == durable.continuity.epoch() => {
                info!(
                    sequences = deleted.len(),
                    "events were deleted from the stream: memory gives them up"
                );
                removed.known = deleted.into();
                removed.given_up_to = durable.continuity.last();
                self.taker.removed(Some(&removed.known));
            }
            answer => {
                debug!(
                    ?answer,
                    "the leader does not say what was deleted: it is asked again"
                );
                removed.asked = now.checked_sub(PACE);
            }
        }
    }
}
