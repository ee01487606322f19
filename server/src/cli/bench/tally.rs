//! What sessions count, together: one for each thread that reads, merged to look at.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::check::Fault;

/// The longest time that is told from longer ones, in nanoseconds: an hour.
const LONGEST: u64 = 3_600_000_000_000;
/// How many different ends and errors are counted by their words.
const MAX_WORDS: usize = 64;
const OTHERS: &str = "others";

/// Times in nanoseconds, to three digits.
pub(super) fn times() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, 3).expect("bounds that fit")
}

/// The counts.
#[derive(Clone)]
pub(super) struct Tally {
    /// Sessions that stand, or did: the router said `connected` to them.
    pub(super) ready: u64,
    /// Sessions that ended because nothing is left to read.
    pub(super) finished: u64,
    /// Sessions that ended for good before.
    pub(super) gone: u64,
    /// From the first packet to `connected`; first connections only.
    pub(super) handshakes: Histogram<u64>,
    /// From the first packet to `resumed`.
    pub(super) resumes: Histogram<u64>,
    /// Connections that were dropped on purpose.
    pub(super) cuts: u64,
    /// Events of ours that were due and came, warm-up included.
    pub(super) deliveries: u64,
    /// From publish to read, without the warm-up and without what was read back.
    pub(super) latency: Histogram<u64>,
    /// Bytes read from sockets.
    pub(super) bytes: u64,
    /// Frames that hold more than one message.
    pub(super) arrays: u64,
    /// Compressed messages are counted by their frames.
    pub(super) frames: u64,
    /// Events that others published.
    pub(super) others: u64,
    /// Events that came again behind a reconnect, as they may.
    pub(super) repeated: u64,
    pub(super) faults: Faults,
    /// How connections ended that nobody wanted to end, by their words.
    pub(super) ends: BTreeMap<String, u64>,
    /// `error` and `gap` frames, by their words.
    pub(super) errors: BTreeMap<String, u64>,
}

/// What makes a run void.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) reordered: u64,
    pub(super) foreign: u64,
    /// The earliest event that something is wrong with, and what.
    pub(super) first: Option<(u64, String)>,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            ready: 0,
            finished: 0,
            gone: 0,
            handshakes: times(),
            resumes: times(),
            cuts: 0,
            deliveries: 0,
            latency: times(),
            bytes: 0,
            arrays: 0,
            frames: 0,
            others: 0,
            repeated: 0,
            faults: Faults::default(),
            ends: BTreeMap::new(),
            errors: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.ready += other.ready;
        self.finished += other.finished;
        self.gone += other.gone;
        self.cuts += other.cuts;
        self.deliveries += other.deliveries;
        self.bytes += other.bytes;
        self.arrays += other.arrays;
        self.frames += other.frames;
        self.others += other.others;
        self.repeated += other.repeated;
        for (mine, theirs) in [
            (&mut self.handshakes, &other.handshakes),
            (&mut self.resumes, &other.resumes),
            (&mut self.latency, &other.latency),
        ] {
            mine.add(theirs).expect("the same bounds");
        }
        self.faults.add(&other.faults);
        for (mine, theirs) in [(&mut self.ends, &other.ends), (&mut self.errors, &other.errors)] {
            for (words, count) in theirs {
                count_words(mine, words, *count);
            }
        }
    }

    pub(super) fn ended(&mut self, words: &str) {
        count_words(&mut self.ends, words, 1);
    }

    pub(super) fn error(&mut self, words: &str) {
        count_words(&mut self.errors, words, 1);
    }
}

impl Faults {
    pub(super) fn count(&mut self, fault: Fault, number: u64, whose: impl FnOnce() -> String) {
        let (count, what) = match fault {
            Fault::Doubled => (&mut self.doubled, "came twice"),
            Fault::Reordered => (&mut self.reordered, "came behind a later one"),
            Fault::Foreign => (&mut self.foreign, "came, and was not due"),
        };
        *count += 1;
        self.tell(number, || format!("{} {what}", whose()));
    }

    /// Keeps what is told of an event if it is the earliest.
    pub(super) fn tell(&mut self, number: u64, what: impl FnOnce() -> String) {
        if self.first.as_ref().is_none_or(|(first, _)| number < *first) {
            self.first = Some((number, what()));
        }
    }

    fn add(&mut self, other: &Self) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.reordered += other.reordered;
        self.foreign += other.foreign;
        if let Some((number, what)) = &other.first {
            self.tell(*number, || what.clone());
        }
    }
}

fn count_words(counts: &mut BTreeMap<String, u64>, words: &str, count: u64) {
    let known = counts.len() < MAX_WORDS || counts.contains_key(words);
    *counts
        .entry(if known { words } else { OTHERS }.to_owned())
        .or_default() += count;
}
