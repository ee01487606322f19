//! Whether anything is missing: a pure account of sequences and heads.
//!
//! The stream numbers its messages without holes as it stores them, so a live message whose sequence is not the
//! next says that something was missed; and a head above the last message says it where nothing more comes. What
//! exists only the leader says: after a jump it is asked, and what lies beyond its answer counts for nothing, as
//! anybody may have sent it who may publish there. Nothing here rests on what the client library reports of the
//! connection: that is only a reason to ask for the head.
//!
//! What is missing is read back from the stream ([`Continuity::wanted`]); what the stream no longer has is a
//! [`Missed`] range, of which sessions are told.

use std::time::{Duration, Instant};

use rivulet_protocol::scalar::Timestamp;

use super::stream::Head;

/// How long messages up to a known head may be on their way while none arrives. They and the leader's answer
/// take different ways, so the answer may be the first.
const IN_FLIGHT: Duration = Duration::from_millis(500);
/// How long a head below one already seen is not believed: a deposed leader may answer for about 10 s.
const DEPOSED_LEADER: Duration = Duration::from_secs(15);

/// How far a stream has been dispatched, and whether that is all there is.
#[derive(Debug)]
pub(super) struct Continuity {
    epoch: String,
    created: Timestamp,
    last: u64,
    holes: Holes,
    /// Whether a head that was asked for after the last interruption has been reached.
    verified: bool,
    /// A sequence above `last` that the stream has reached.
    behind: Option<Behind>,
    /// What `last` was when the leader was asked for its head.
    asked: u64,
    /// Whether a message came before its turn, of which the leader has not said yet whether it exists.
    jumped: bool,
    /// Whether one had come when the leader was asked.
    asked_of_jump: bool,
    /// Since when the leader's head is below what had been dispatched when it was asked.
    below: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Behind {
    head: u64,
    /// Since when no message came nearer to it.
    since: Instant,
    /// Whether the messages up to it won't come by themselves.
    lost: bool,
}

/// What a jump of the sequence means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holes {
    /// Messages were missed: a republished stream brings every one.
    Missed,
    /// They were deleted from the stream: a consumer reads what is there, in order.
    Deleted,
}

/// What is to be done about a live message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It is the next.
    Next,
    /// What lies before it must be read back first, and the leader asked whether it exists.
    Early,
    /// It was dispatched before, or is of another stream of the same name.
    Past,
}

/// A range of the stream that nobody has any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Missed {
    /// The last sequence before it.
    pub(super) from: u64,
    /// The last sequence in it; after a [`Cause::StreamShortened`] below `from`.
    pub(super) to: u64,
    /// Why.
    pub(super) cause: Cause,
}

/// Why a range is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The stream removed it before it was read.
    Evicted,
    /// The stream was made anew; `from` counts in the old one.
    EpochChanged,
    /// The stream lost its end.
    StreamShortened,
}

impl Continuity {
    /// Begins at the head of the stream, as its leader said after the subscription stood.
    pub(super) fn begin(head: &Head, holes: Holes) -> Self {
        Self {
            epoch: head.epoch.clone(),
            created: head.created,
            last: head.last,
            holes,
            verified: true,
            behind: None,
            asked: head.last,
            jumped: false,
            asked_of_jump: false,
            below: None,
        }
    }

    /// The stream's epoch.
    pub(super) fn epoch(&self) -> &str {
        &self.epoch
    }

    /// Whether what was stored at `time` is of a stream of the same name that is gone: it may have waited for its
    /// turn while the head told of the new one. Were it of this one, stored by a server whose clock is behind, it is
    /// read back; a consumer would pass it over, so of one nothing is refused.
    pub(super) fn is_younger_than(&self, time: Timestamp) -> bool {
        self.holes == Holes::Missed && time < self.created
    }

    /// The last sequence dispatched or declared missing.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Whether everything was dispatched up to a head that was asked for after the last interruption.
    pub(super) fn verified(&self) -> bool {
        self.verified
    }

    /// Whether the stream has more than was dispatched, as far as is known, and that does not come by itself.
    pub(super) fn lacks(&self, now: Instant) -> bool {
        self.behind
            .is_some_and(|behind| behind.lost || now.duration_since(behind.since) >= IN_FLIGHT)
    }

    /// Core messages may have been missed: only a new head can say.
    pub(super) fn interrupted(&mut self) {
        self.verified = false;
    }

    /// Takes a live message into account.
    pub(super) fn message(&mut self, seq: u64, now: Instant) -> Arrival {
        if seq <= self.last {
            return Arrival::Past;
        }
        if seq > self.last + 1 && self.holes == Holes::Missed {
            self.jumped = true;
            return Arrival::Early;
        }
        self.reached(seq, now);
        Arrival::Next
    }

    /// Notes that something seems to have been dropped on its way: the leader's next answer says up to where.
    pub(super) fn jumped(&mut self) {
        self.jumped = true;
    }

    /// Notes that everything up to `seq` has been dispatched, or was never for anybody.
    pub(super) fn reached(&mut self, seq: u64, now: Instant) {
        self.last = self.last.max(seq);
        match &mut self.behind {
            Some(behind) if behind.head <= seq => self.caught_up(),
            Some(behind) => behind.since = now,
            None => {}
        }
    }

    /// Notes that the leader is asked for its head now.
    pub(super) fn asking(&mut self) {
        self.asked = self.last;
        self.asked_of_jump = self.jumped;
    }

    /// Takes the leader's word into account. Of what it did not have yet when it was asked it says nothing:
    /// messages overtake the answer all the time.
    pub(super) fn head(&mut self, head: &Head, now: Instant) -> Option<Missed> {
        if head.epoch != self.epoch {
            let from = self.begin_again(head);
            self.epoch = head.epoch.clone();
            self.created = head.created;
            return Some(Missed {
                from,
                to: head.last,
                cause: Cause::EpochChanged,
            });
        }
        if head.last < self.asked {
            let since = *self.below.get_or_insert(now);
            if now.duration_since(since) < DEPOSED_LEADER {
                return None;
            }
            let from = self.begin_again(head);
            return Some(Missed {
                from,
                to: head.last,
                cause: Cause::StreamShortened,
            });
        }
        self.below = None;
        let jumped = self.jumped;
        self.jumped &= !std::mem::take(&mut self.asked_of_jump);
        if head.last <= self.last {
            self.verified |= self.behind.is_none();
            return None;
        }
        // What was dropped before this head won't come.
        self.verified &= !jumped;
        let (since, known, lost) = self
            .behind
            .map_or((now, 0, false), |behind| (behind.since, behind.head, behind.lost));
        self.behind = Some(Behind {
            head: head.last.max(known),
            since,
            // What was published during an interruption won't come.
            lost: lost || !self.verified,
        });
        // Only a consumer reads on by itself, and what is no longer there it passes over.
        if self.holes == Holes::Deleted && head.first > self.last + 1 {
            let from = self.last;
            let to = head.first - 1;
            self.reached(to, now);
            return Some(Missed {
                from,
                to,
                cause: Cause::Evicted,
            });
        }
        None
    }

    /// What is to be read back now: after the one sequence, up to the other.
    pub(super) fn wanted(&self, now: Instant) -> Option<(u64, u64)> {
        let behind = self.behind?;
        let waited = now.duration_since(behind.since) >= IN_FLIGHT;
        (self.holes == Holes::Missed && (behind.lost || waited)).then_some((self.last, behind.head))
    }

    /// Lets time pass: what does not come, though it is in the stream, leaves the node unverified.
    pub(super) fn tick(&mut self, now: Instant) {
        if self
            .behind
            .is_some_and(|behind| now.duration_since(behind.since) >= IN_FLIGHT)
        {
            self.verified = false;
        }
    }

    /// Goes on from the head, wherever it was before; says where that was.
    fn begin_again(&mut self, head: &Head) -> u64 {
        self.caught_up();
        (self.below, self.asked) = (None, head.last);
        (self.jumped, self.asked_of_jump) = (false, false);
        std::mem::replace(&mut self.last, head.last)
    }

    fn caught_up(&mut self) {
        self.verified = true;
        self.behind = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(first: u64, last: u64) -> Head {
        Head {
            epoch: "S@1".to_owned(),
            created: Timestamp::parse("2026-01-31T12:00:00Z").unwrap(),
            first,
            last,
            holes: 0,
        }
    }

    fn missed(from: u64, to: u64, cause: Cause) -> Missed {
        Missed { from, to, cause }
    }

    #[test]
    fn a_jump_has_what_lies_before_it_read_back() {
        let now = Instant::now();
        let mut stream = Continuity::begin(&head(1, 10), Holes::Missed);
        assert_eq!(stream.message(10, now), Arrival::Past);
        assert_eq!(stream.message(11, now), Arrival::Next);
        assert_eq!(stream.wanted(now), None);
        assert_eq!(stream.message(14, now), Arrival::Early);
        assert_eq!(stream.message(16, now), Arrival::Early);
        assert_eq!(stream.wanted(now), None, "the leader is asked first");
        stream.asking();
        assert_eq!(stream.head(&head(1, 16), now), None);
        assert!(!stream.verified());
        assert_eq!(stream.wanted(now), Some((11, 16)));
        stream.reached(13, now);
        assert_eq!(stream.message(14, now), Arrival::Next);
        assert_eq!(stream.wanted(now), Some((14, 16)));
        stream.reached(16, now);
        assert!(stream.verified());
        assert_eq!(stream.wanted(now), None);
        assert_eq!(stream.message(12, now), Arrival::Past);
        assert_eq!(stream.message(17, now), Arrival::Next);
    }

    #[test]
    fn a_head_out_of_reach_is_read_back_only_when_nothing_comes() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut stream = Continuity::begin(&head(1, 10), Holes::Missed);
        assert_eq!(stream.head(&head(1, 20), at(0)), None);
        assert!(stream.verified(), "what is on its way is not missing");
        for seq in 11..15 {
            assert_eq!(stream.message(seq, at(seq * 90)), Arrival::Next);
            assert_eq!(stream.wanted(at(seq * 90)), None, "messages still come");
        }
        stream.tick(at(14 * 90 + 499));
        assert!(stream.verified());
        stream.tick(at(14 * 90 + 500));
        assert!(!stream.verified());
        assert_eq!(stream.wanted(at(14 * 90 + 500)), Some((14, 20)));
    }

    #[test]
    fn after_an_interruption_only_a_head_vouches() {
        let now = Instant::now();
        let mut stream = Continuity::begin(&head(1, 10), Holes::Missed);
        stream.interrupted();
        assert_eq!(stream.message(11, now), Arrival::Next);
        assert!(!stream.verified());
        assert_eq!(stream.head(&head(1, 12), now), None);
        assert!(!stream.verified());
        assert_eq!(stream.wanted(now), Some((11, 12)), "it was published meanwhile");
        stream.reached(12, now);
        assert!(stream.verified());
        stream.interrupted();
        assert_eq!(stream.head(&head(1, 12), now), None);
        assert!(stream.verified());
    }

    #[test]
    fn another_epoch_is_another_stream() {
        let now = Instant::now();
        let mut stream = Continuity::begin(&head(1, 10), Holes::Missed);
        let other = Head {
            epoch: "S@2".to_owned(),
            created: Timestamp::parse("2026-01-31T13:00:00Z").unwrap(),
            first: 1,
            last: 3,
            holes: 0,
        };
        let between = Timestamp::parse("2026-01-31T12:30:00Z").unwrap();
        assert!(!stream.is_younger_than(between));
        let changed = missed(10, 3, Cause::EpochChanged);
        assert_eq!(stream.head(&other, now), Some(changed));
        assert_eq!((stream.epoch(), stream.last()), ("S@2", 3));
        assert!(stream.is_younger_than(between));
        assert!(!stream.is_younger_than(other.created));
        assert_eq!(stream.message(4, now), Arrival::Next);
    }

    #[test]
    fn a_lower_head_is_believed_in_the_end() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut stream = Continuity::begin(&head(1, 10), Holes::Missed);
        assert_eq!(stream.head(&head(1, 8), at(0)), None);
        assert_eq!(stream.head(&head(1, 8), at(14)), None);
        assert_eq!(
            stream.head(&head(1, 10), at(14)),
            None,
            "the new leader knows better"
        );
        assert_eq!(stream.head(&head(1, 8), at(20)), None);
        let shortened = missed(10, 8, Cause::StreamShortened);
        assert_eq!(stream.head(&head(1, 8), at(36)), Some(shortened));
        assert_eq!(stream.message(9, at(36)), Arrival::Next);
    }

    #[test]
    fn messages_that_overtake_the_leaders_answer_are_no_sign_of_a_lost_end() {
        let start = Instant::now();
        let mut stream = Continuity::begin(&head(1, 10), Holes::Missed);
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            let asked = stream.last();
            stream.asking();
            assert_eq!(stream.message(asked + 1, now), Arrival::Next);
            assert_eq!(stream.message(asked + 2, now), Arrival::Next);
            assert_eq!(stream.head(&head(1, asked + 1), now), None);
            assert!(stream.verified());
        }
    }

    #[test]
    fn an_answer_from_before_a_jump_does_not_undo_it() {
        let now = Instant::now();
        let mut stream = Continuity::begin(&head(1, 10), Holes::Missed);
        stream.asking();
        assert_eq!(stream.message(12, now), Arrival::Early);
        assert_eq!(stream.head(&head(1, 10), now), None);
        stream.asking();
        assert_eq!(stream.head(&head(1, 12), now), None);
        assert!(!stream.verified());
        assert_eq!(stream.wanted(now), Some((10, 12)));
    }

    #[test]
    fn a_sequence_beyond_the_leaders_head_is_not_awaited() {
        let now = Instant::now();
        let mut stream = Continuity::begin(&head(1, 10), Holes::Missed);
        assert_eq!(stream.message(1 << 40, now), Arrival::Early);
        assert!(stream.verified());
        stream.asking();
        assert_eq!(stream.head(&head(1, 10), now), None);
        assert!(stream.verified());
        assert_eq!(stream.wanted(now), None);
        assert_eq!(stream.message(1 << 40, now), Arrival::Early);
        stream.asking();
        assert_eq!(stream.head(&head(1, 12), now), None);
        assert_eq!(
            stream.wanted(now),
            Some((10, 12)),
            "behind the leader, not the message"
        );
        stream.reached(12, now);
        assert!(stream.verified());
    }

    #[test]
    fn a_consumer_passes_over_holes_and_says_what_was_evicted() {
        let start = Instant::now();
        let mut stream = Continuity::begin(&head(1, 10), Holes::Deleted);
        assert_eq!(stream.message(13, start), Arrival::Next);
        let evicted = missed(13, 19, Cause::Evicted);
        assert_eq!(stream.head(&head(20, 30), start), Some(evicted));
        let later = start + Duration::from_secs(2);
        stream.tick(later);
        assert!(!stream.verified(), "what a consumer does not bring is awaited");
        assert_eq!(stream.wanted(later), None, "it reads by itself");
        assert_eq!(stream.message(30, start), Arrival::Next);
        assert!(stream.verified());
    }
}
