//! A record beside the truth: what is missing, doubled, out of order, somebody else's.

use std::{collections::HashSet, ops::AddAssign, sync::Arc};

use rivulet_protocol::pattern::Pattern;

use super::{
    oracle::Oracle,
    record::{Cursor, Entry, Record},
};

/// What came of comparing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events that should have come, gaps left aside.
    pub expected: u64,
    /// Events that came and were kept.
    pub delivered: u64,
    /// Should have come, did not, and no gap tells of it.
    pub lost: u64,
    /// Came again, and the rule dropped it.
    pub twice_on_wire: u64,
    /// Came again, and the rule let it through.
    pub twice: u64,
    /// Came before one that stands before it, or under another's sequence.
    pub reordered: u64,
    /// Is of another user, beyond the patterns, or not in the stream at all.
    pub foreign: u64,
    /// Gaps told.
    pub gaps: u64,
    /// Events that stood in those gaps.
    pub gapped: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.expected += other.expected;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.twice_on_wire += other.twice_on_wire;
        self.twice += other.twice;
        self.reordered += other.reordered;
        self.foreign += other.foreign;
        self.gaps += other.gaps;
        self.gapped += other.gapped;
    }
}

/// A range of one epoch, in which the client should have got everything that matches.
struct Span {
    stream: Arc<str>,
    after: u64,
    to: u64,
    patterns: Arc<[Pattern]>,
}

/// What the walk over a record holds.
struct Walk<'a> {
    oracle: &'a Oracle,
    user: &'a str,
    tally: Tally,
    finding: Option<String>,
    spans: Vec<Span>,
    gaps: Vec<Span>,
    at: Option<Cursor>,
    patterns: Arc<[Pattern]>,
    received: HashSet<(Arc<str>, u64)>,
    /// The last true sequence that was kept since the cursor was last set back.
    last: u64,
}

/// Compares what a client saw with what it should have seen up to `end`. Beside the counts comes the first thing
/// that is wrong, in words.
pub fn judge(record: &Record, oracle: &Oracle, end: &Cursor) -> (Tally, Option<String>) {
    let mut walk = Walk {
        oracle,
        user: &record.user,
        tally: Tally::default(),
        finding: None,
        spans: Vec::new(),
        gaps: Vec::new(),
        at: None,
        patterns: [].into(),
        received: HashSet::new(),
        last: 0,
    };
    for entry in &record.entries {
        walk.step(entry);
    }
    walk.close(end);
    walk.count();
    (walk.tally, walk.finding)
}

impl Walk<'_> {
    fn step(&mut self, entry: &Entry) {
        match entry {
            Entry::Start(cursor) => self.at = Some(cursor.clone()),
            Entry::Patterns { after, patterns } => {
                if let Some(at) = self.at.clone() {
                    let to = Cursor {
                        stream: at.stream,
                        seq: *after,
                    };
                    self.close(&to);
                    self.at = Some(to);
                }
                self.patterns = Arc::clone(patterns);
            }
            Entry::Event { seq, id, kept } => self.event(*seq, *id, *kept),
            Entry::Gap {
                before,
                from,
                to,
                reason,
            } => {
                self.tally.gaps += 1;
                self.found(|| format!("a gap, {reason}, from {from} to {} of {}", to.seq, to.stream));
                // A gap speaks only of what lies between: all before it must have come.
                let same = before.stream == to.stream;
                let seq = if same {
                    before.seq.max((*from).min(to.seq))
                } else {
                    before.seq
                };
                self.close(&Cursor {
                    stream: Arc::clone(&before.stream),
                    seq,
                });
                self.gaps.push(Span {
                    stream: Arc::clone(&before.stream),
                    after: seq,
                    to: if same { to.seq } else { u64::MAX },
                    patterns: Arc::clone(&self.patterns),
                });
                self.last = 0;
                self.at = Some(to.clone());
            }
        }
    }

    fn event(&mut self, seq: u64, id: u64, kept: bool) {
        if !kept {
            self.tally.twice_on_wire += 1;
        }
        let Some(at) = &self.at else { return };
        let stream = Arc::clone(&at.stream);
        let epoch = self.oracle.epoch(&stream);
        let Some((place, stored)) = epoch.and_then(|epoch| {
            let place = epoch.seq_of(id)?;
            // A retried message may stand in the stream twice: its own sequence counts.
            let place = match epoch.at(seq) {
                Some(stored) if stored.id == id => seq,
                _ => place,
            };
            Some((place, epoch.at(place)?))
        }) else {
            self.tally.foreign += 1;
            self.found(|| format!("number {id} came as {seq} of {stream}, where it is not"));
            return;
        };
        let theirs = stored.user.as_deref().is_some_and(|user| user != self.user);
        if theirs || !wants(&self.patterns, &stored.event_type) {
            self.tally.foreign += 1;
            let event_type = Arc::clone(&stored.event_type);
            self.found(|| format!("{seq}, a {event_type}, is somebody else's, or not wanted"));
            return;
        }
        let key = (stream, place);
        if !kept {
            // The rule dropped what had never come: it was late, and a loss.
            if !self.received.contains(&key) && self.covers(seq) {
                self.tally.reordered += 1;
                self.found(|| format!("{seq} came late and was dropped"));
            }
            return;
        }
        if self.received.contains(&key) {
            self.tally.twice += 1;
            self.found(|| format!("{seq} came twice"));
            return;
        }
        if place != seq || place <= self.last {
            self.tally.reordered += 1;
            let last = self.last;
            self.found(|| format!("{place} came as {seq}, after {last}"));
        }
        self.tally.delivered += 1;
        self.last = self.last.max(place);
        self.received.insert(key);
    }

    /// Keeps the first thing that is wrong.
    fn found(&mut self, what: impl FnOnce() -> String) {
        let user = self.user;
        self.finding.get_or_insert_with(|| format!("{user}: {}", what()));
    }

    /// Whether a sequence lies where everything should have come already.
    fn covers(&self, seq: u64) -> bool {
        self.at.as_ref().is_some_and(|at| seq > at.seq)
    }

    /// Ends the current span at `to`.
    fn close(&mut self, to: &Cursor) {
        if let Some(at) = self.at.take()
            && at.stream == to.stream
        {
            self.spans.push(Span {
                stream: at.stream,
                after: at.seq,
                to: to.seq,
                patterns: Arc::clone(&self.patterns),
            });
        }
    }

    fn count(&mut self) {
        let spans = std::mem::take(&mut self.spans);
        let gaps = std::mem::take(&mut self.gaps);
        for (spans, gapped) in [(spans, false), (gaps, true)] {
            for span in &spans {
                let Some(epoch) = self.oracle.epoch(&span.stream) else {
                    continue;
                };
                for seq in epoch.of_user(self.user, span.after, span.to) {
                    let wanted = epoch
                        .at(seq)
                        .is_some_and(|stored| wants(&span.patterns, &stored.event_type));
                    let came = self.received.contains(&(Arc::clone(&span.stream), seq));
                    match (wanted, gapped) {
                        (false, _) => {}
                        (true, true) => self.tally.gapped += u64::from(!came),
                        (true, false) => {
                            self.tally.expected += 1;
                            self.tally.lost += u64::from(!came);
                            if !came {
                                let Span {
                                    after, to, patterns, ..
                                } = span;
                                self.found(|| {
                                    format!("{seq} did not come, in {after} to {to} with {patterns:?}")
                                });
                            }
                        }
                    }
                }
            }
        }
    }
}

fn wants(patterns: &[Pattern], event_type: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(event_type))
}
