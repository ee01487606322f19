//! Whether a connection gets each of its events, once, in order.

use std::collections::BTreeSet;

/// What was wrong, over any number of connections.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Faults {
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) reordered: u64,
    /// Events of other users, and connections that ended: why.
    pub(crate) broken: Vec<String>,
}

impl Faults {
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.reordered += other.reordered;
        self.broken.extend(other.broken);
    }

    /// One line.
    pub(crate) fn say(&self) -> String {
        let mut line = format!(
            "{} lost, {} doubled, {} reordered",
            self.lost, self.doubled, self.reordered
        );
        if let Some(first) = self.broken.first() {
            line += &format!(", {} broken: {first}", self.broken.len());
        }
        line
    }
}

/// Which numbers a connection is due: `first`, `first + stride`, and so on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    pub(crate) first: u64,
    pub(crate) stride: u64,
}

impl Due {
    /// Every event.
    pub(crate) const ALL: Self = Self { first: 0, stride: 1 };

    /// How many of the first `events` are due.
    pub(crate) fn of(self, events: u64) -> u64 {
        events.saturating_sub(self.first).div_ceil(self.stride)
    }
}

/// One connection's place in what it is due.
#[derive(Debug)]
pub(crate) struct Check {
    due: Due,
    /// How many came or were passed over.
    place: u64,
    passed_over: BTreeSet<u64>,
}

impl Check {
    pub(crate) fn new(due: Due) -> Self {
        Self {
            due,
            place: 0,
            passed_over: BTreeSet::new(),
        }
    }

    /// Takes an event's number.
    pub(crate) fn take(&mut self, number: u64, faults: &mut Faults) {
        let Some(beyond) = number.checked_sub(self.due.first) else {
            // A number below its first is somebody else's, or was due before it came.
            faults
                .broken
                .push(format!("event {number} is not this connection's"));
            return;
        };
        if !beyond.is_multiple_of(self.due.stride) {
            faults
                .broken
                .push(format!("event {number} is not this connection's"));
            return;
        }
        let place = beyond / self.due.stride;
        if place == self.place {
            self.place += 1;
        } else if place > self.place {
            // Whether they are lost or late is known at the end. A server that lost this much is void anyway.
            self.passed_over.extend((self.place..place).take(1_000));
            self.place = place + 1;
        } else if self.passed_over.remove(&place) {
            faults.reordered += 1;
        } else {
            faults.doubled += 1;
        }
    }

    /// What never came of the `due` that it was to get.
    pub(crate) fn lost(&self, due: u64) -> u64 {
        self.passed_over.len() as u64 + due.saturating_sub(self.place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(due: Due, numbers: &[u64], events: u64) -> Faults {
        let (mut check, mut faults) = (Check::new(due), Faults::default());
        for number in numbers {
            check.take(*number, &mut faults);
        }
        faults.lost += check.lost(due.of(events));
        faults
    }

    #[test]
    fn each_once_in_order_is_no_fault() {
        assert!(faults(Due::ALL, &[0, 1, 2], 3).is_none());
        assert!(faults(Due { first: 2, stride: 4 }, &[2, 6], 10).is_none());
    }

    #[test]
    fn a_lost_a_doubled_and_a_late_event_are_told_apart() {
        let of = |numbers: &[u64]| {
            let faults = faults(Due::ALL, numbers, 4);
            (faults.lost, faults.doubled, faults.reordered)
        };
        assert_eq!(of(&[0, 1, 3]), (1, 0, 0));
        assert_eq!(of(&[0, 1, 2]), (1, 0, 0));
        assert_eq!(of(&[0, 1, 1, 2, 3]), (0, 1, 0));
        assert_eq!(of(&[0, 2, 1, 3]), (0, 0, 1));
    }

    #[test]
    fn somebody_elses_event_is_a_fault() {
        assert_eq!(faults(Due { first: 2, stride: 4 }, &[2, 3, 6], 7).broken.len(), 1);
    }
}
