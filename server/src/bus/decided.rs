//! What was decided of stored events. Validation is for what enters: an event is judged once, and every replay on
//! every node rests on that, whatever schema is in force by then.
//!
//! The record is a bucket beside the stream. A key holds what was decided of 4,096 sequences, as ranges: those
//! decided, and of these the rejected ones. A node writes what it decided a second later, in one write that succeeds
//! only if nobody else wrote meanwhile, and of a sequence that is decided there it takes over what stands. So the
//! first decision written stands. What is not decided there when it is first read back is judged by the reader's
//! schema, and is written before anybody gets it.
//!
//! An accepted event costs no write of its own: the ranges of a second are one ([`notes`]).

mod notes;

use std::{
    collections::VecDeque,
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_nats::jetstream::kv::{self, Operation, UpdateErrorKind};
use bytes::Bytes;
use rangemap::RangeInclusiveSet;
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

pub(super) use self::notes::Notes;
use super::{
    BusError,
    bucket::{self, Bucket},
    connect::Link,
};

/// The bucket's name.
pub(super) const BUCKET: &str = "rivulet-decided";
/// What it may take on disk; the oldest records go first. Of the largest ones it holds two million sequences.
const BUCKET_BYTES: i64 = 32 << 20;
/// How many sequences a record is of. In the worst case, every second one rejected, it has 60 KB.
const BLOCK: u64 = 4_096;
/// Records kept in memory.
const RECENT: usize = 64;
/// How long the bucket may take to answer.
const SILENCE: Duration = Duration::from_secs(2);
/// How often a write is tried that others got ahead of.
const TRIES: u32 = 16;

/// Which sequences are decided, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Decided {
    decided: RangeInclusiveSet<u64>,
    rejected: RangeInclusiveSet<u64>,
}

/// What was decided of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing, as far as is known.
    #[default]
    Open,
    /// It is one, whatever today's schema says.
    Accepted,
    /// It is for nobody.
    Rejected,
}

impl Decided {
    /// Decides a sequence.
    pub(super) fn note(&mut self, seq: u64, verdict: Verdict) {
        self.decided.insert(seq..=seq);
        if verdict == Verdict::Rejected {
            self.rejected.insert(seq..=seq);
        }
    }

    /// What was decided of a sequence.
    pub(super) fn of(&self, seq: u64) -> Verdict {
        match (self.decided.contains(&seq), self.rejected.contains(&seq)) {
            (false, _) => Verdict::Open,
            (true, false) => Verdict::Accepted,
            (true, true) => Verdict::Rejected,
        }
    }

    /// Takes over what another decided of a range, where nothing was. Returns whether there was any.
    fn take(&mut self, other: &Self, within: &RangeInclusive<u64>) -> bool {
        let theirs = other.decided.overlapping(within);
        let open: Vec<_> = theirs
            .map(|range| clip(range, within))
            .flat_map(|range| self.decided.gaps(&range).collect::<Vec<_>>())
            .collect();
        for range in &open {
            for rejected in other.rejected.overlapping(range) {
                self.rejected.insert(clip(rejected, range));
            }
            self.decided.insert(range.clone());
        }
        !open.is_empty()
    }

    /// Takes a range back. Returns whether anything of it was decided.
    fn withdraw(&mut self, range: &RangeInclusive<u64>) -> bool {
        let any = self.decided.overlaps(range);
        self.decided.remove(range.clone());
        self.rejected.remove(range.clone());
        any
    }

    /// The blocks in which something is decided.
    fn blocks(&self) -> Vec<u64> {
        let blocks = |range: &RangeInclusive<u64>| range.start() / BLOCK..=range.end() / BLOCK;
        let mut blocks: Vec<_> = self.decided.iter().flat_map(blocks).collect();
        blocks.dedup();
        blocks
    }

    /// The sequences which `self` rejects and `other` accepts, in order.
    fn rejected_but_accepted_by(&self, other: &Self) -> Vec<u64> {
        let rejected = self.rejected.iter().cloned().flatten();
        rejected
            .filter(|seq| other.of(*seq) == Verdict::Accepted)
            .collect()
    }

    fn read(bytes: &[u8]) -> Result<Self, String> {
        let record: Record = serde_json::from_slice(bytes).map_err(|fault| fault.to_string())?;
        let set = |ranges: Vec<(u64, u64)>| {
            let sound = |(from, to): &(u64, u64)| from <= to;
            ranges
                .into_iter()
                .filter(sound)
                .map(|(from, to)| from..=to)
                .collect()
        };
        Ok(Self {
            decided: set(record.decided),
            rejected: set(record.rejected),
        })
    }

    fn write(&self) -> Bytes {
        let ranges =
            |set: &RangeInclusiveSet<u64>| set.iter().map(|range| (*range.start(), *range.end())).collect();
        let record = Record {
            decided: ranges(&self.decided),
            rejected: ranges(&self.rejected),
        };
        serde_json::to_vec(&record).unwrap_or_default().into()
    }
}

/// A record as it is written: ranges with both ends. Fields that are not known yet are passed over.
#[derive(Deserialize, Serialize)]
struct Record {
    decided: Vec<(u64, u64)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rejected: Vec<(u64, u64)>,
}

fn clip(range: &RangeInclusive<u64>, within: &RangeInclusive<u64>) -> RangeInclusive<u64> {
    *range.start().max(within.start())..=*range.end().min(within.end())
}

fn block_range(block: u64) -> RangeInclusive<u64> {
    block * BLOCK..=block * BLOCK + (BLOCK - 1)
}

/// The record. A clone is the same.
#[derive(Clone, Debug)]
pub(super) struct Decisions(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: kv::Store,
    link: Link,
    bucket: Bucket,
    recent: Mutex<VecDeque<(String, Decided)>>,
}

impl Decisions {
    /// Opens the record, made where it is missing. `None`: NATS does not permit it or has no room for it, and the
    /// log says so. A router that could do without it before must not fail for it.
    pub(super) async fn open(link: &Link, replicas: usize) -> Option<Self> {
        let wanted = Bucket {
            name: BUCKET,
            holds: "what was decided of stored events",
            bytes: BUCKET_BYTES,
            max_age: Duration::ZERO,
            replicas,
        };
        let opened = async {
            let store = bucket::open(link, &wanted).await?;
            // Whether it may be written shows only when it is.
            let written = link.permitted(store.put("nodes", Bytes::new())).await?;
            if let Err(fault) = written {
                debug!(%fault, "the record of decisions does not answer yet");
            }
            link.permitted(store.entry("nodes")).await?.ok();
            Ok::<_, BusError>(store)
        };
        match opened.await {
            Ok(store) => Some(Self(Arc::new(Inner {
                store,
                link: link.clone(),
                bucket: wanted,
                recent: Mutex::default(),
            }))),
            Err(fault) => {
                warn!(
                    %fault,
                    "what is decided of stored events can't be recorded: until that is mended and the router restarted, a replay judges each by the schema of its node, so a changed schema changes what replays contain"
                );
                None
            }
        }
    }

    /// Makes the bucket again if somebody deleted it.
    pub(super) async fn mend(&self) {
        let Inner { link, bucket, .. } = &*self.0;
        if let Err(fault) = bucket::open(link, bucket).await {
            debug!(%fault, "the record of decisions can't be opened");
        }
    }

    /// What is decided of the sequences after `after` and up to `to`.
    ///
    /// # Errors
    /// If the record does not answer.
    pub(super) async fn look(&self, epoch: &str, after: u64, to: u64) -> Result<Decided, String> {
        let mut decided = Decided::default();
        for block in (after + 1) / BLOCK..=to / BLOCK {
            let within = block_range(block);
            let wanted = clip(&within, &(after + 1..=to));
            let key = key(epoch, block);
            let known = self
                .known(&key)
                .filter(|known| known.decided.gaps(&wanted).next().is_none());
            let record = match known {
                Some(record) => record,
                None => self.read(&key).await?.0,
            };
            decided.take(&record, &wanted);
        }
        Ok(decided)
    }

    /// Decides so, where nothing was decided before. Returns what stands, of the same blocks.
    ///
    /// # Errors
    /// If the record does not answer. Part of it may have been written.
    pub(super) async fn decide(&self, epoch: &str, ours: &Decided) -> Result<Decided, String> {
        let mut standing = Decided::default();
        for block in ours.blocks() {
            let within = block_range(block);
            standing.take(
                &self.decide_block(&key(epoch, block), ours, &within).await?,
                &within,
            );
        }
        Ok(standing)
    }

    async fn decide_block(
        &self,
        key: &str,
        ours: &Decided,
        within: &RangeInclusive<u64>,
    ) -> Result<Decided, String> {
        self.change(key, |record| record.take(ours, within)).await
    }

    /// Takes back what was decided after `after` and up to `to`: the stream lost its end, and gives those
    /// sequences again.
    ///
    /// # Errors
    /// If the record does not answer.
    async fn withdraw(&self, epoch: &str, after: u64, to: u64) -> Result<(), String> {
        let range = after + 1..=to;
        for block in range.start() / BLOCK..=to / BLOCK {
            let key = key(epoch, block);
            self.change(&key, |record| record.withdraw(&range)).await?;
        }
        Ok(())
    }

    /// Changes a record in one write that nobody else's comes between. Returns what stands then.
    async fn change(
        &self,
        key: &str,
        mut change: impl FnMut(&mut Decided) -> bool,
    ) -> Result<Decided, String> {
        for attempt in 0..TRIES {
            // A replica that answers may lag behind.
            sleep(Duration::from_millis(10) * attempt).await;
            let (mut record, revision) = self.read(key).await?;
            if !change(&mut record) {
                return Ok(record);
            }
            let update = self.0.store.update(key, record.write(), revision);
            match timeout(SILENCE, update).await {
                Ok(Ok(_)) => {
                    self.keep(key, &record);
                    return Ok(record);
                }
                Ok(Err(fault)) if fault.kind() == UpdateErrorKind::WrongLastRevision => {}
                Ok(Err(fault)) => return Err(fault.to_string()),
                Err(_) => return Err("no answer in 2 s".to_owned()),
            }
        }
        Err("others write all the time".to_owned())
    }

    async fn read(&self, key: &str) -> Result<(Decided, u64), String> {
        let entry = match timeout(SILENCE, self.0.store.entry(key)).await {
            Ok(entry) => entry.map_err(|fault| fault.to_string())?,
            Err(_) => return Err("no answer in 2 s".to_owned()),
        };
        let Some(entry) = entry else {
            return Ok((Decided::default(), 0));
        };
        if entry.operation != Operation::Put {
            return Ok((Decided::default(), entry.revision));
        }
        let record = Decided::read(&entry.value)?;
        self.keep(key, &record);
        Ok((record, entry.revision))
    }

    fn known(&self, key: &str) -> Option<Decided> {
        let recent = self.recent();
        let known = recent.iter().find(|(known, _)| known == key);
        known.map(|(_, record)| record.clone())
    }

    fn keep(&self, key: &str, record: &Decided) {
        let mut recent = self.recent();
        recent.retain(|(known, _)| known != key);
        recent.push_back((key.to_owned(), record.clone()));
        if recent.len() > RECENT {
            recent.pop_front();
        }
    }

    fn recent(&self) -> MutexGuard<'_, VecDeque<(String, Decided)>> {
        // Nothing under the lock leaves a change half made.
        self.0.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key of a block: the stream's name, when it was made, the block's number.
fn key(epoch: &str, block: u64) -> String {
    use std::fmt::Write as _;
    let (name, created) = epoch.rsplit_once('@').unwrap_or((epoch, "0"));
    let mut key = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => key.push(char::from(byte)),
            _ => {
                let _ = write!(key, "={byte:02X}");
            }
        }
    }
    let _ = write!(key, ".{created}.{block}");
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(accepted: &[RangeInclusive<u64>], rejected: &[u64]) -> Decided {
        let mut decided = Decided::default();
        for range in accepted {
            decided.decided.insert(range.clone());
        }
        for seq in rejected {
            decided.note(*seq, Verdict::Rejected);
        }
        decided
    }

    #[test]
    fn the_first_decision_of_a_sequence_stands() {
        let mut record = decided(&[1..=10], &[3, 11]);
        let second = decided(&[3..=20], &[5, 15, 30]);
        assert!(record.take(&second, &(0..=25)));
        assert_eq!(record, decided(&[1..=20], &[3, 11, 15]));
        assert!(!record.take(&second, &(0..=25)));
        assert_eq!(
            [3, 5, 15, 21, 30].map(|seq| record.of(seq)),
            [
                Verdict::Rejected,
                Verdict::Accepted,
                Verdict::Rejected,
                Verdict::Open,
                Verdict::Open
            ]
        );
        assert_eq!(second.rejected_but_accepted_by(&record), [5]);
        let mut shorter = record.clone();
        assert!(shorter.withdraw(&(10..=50)) && !shorter.withdraw(&(10..=50)));
        assert_eq!(shorter, decided(&[1..=9], &[3]));
        assert_eq!(Decided::read(&record.write()).unwrap(), record);
    }

    #[test]
    fn a_record_is_of_a_block() {
        let decided = decided(&[1..=2, BLOCK - 1..=BLOCK * 2], &[]);
        assert_eq!(decided.blocks(), [0, 1, 2]);
        assert_eq!(key("A.b@17", 3), "A=2Eb.17.3");
    }

    #[test]
    fn the_record_in_its_worst_case_is_of_this_size() {
        let mut worst = Decided::default();
        for seq in block_range(1 << 30) {
            worst.note(
                seq,
                if seq % 2 == 0 {
                    Verdict::Rejected
                } else {
                    Verdict::Accepted
                },
            );
        }
        assert!(worst.write().len() < 64 << 10, "{}", worst.write().len());
    }
}
