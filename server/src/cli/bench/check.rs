//! What one session was due against what it got: each event once, in order, and nobody else's.

use std::{collections::HashSet, ops::Range};

use super::plan::{Place, Plan, Track};

/// Ranges of missing events that a session remembers, should they come late. Of more, the oldest counts as lost.
const MAX_MISSING: usize = 1024;

/// What is wrong with an event that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It came before.
    Doubled,
    /// One that is later in the stream, or was published later, came before it.
    Reordered,
    /// It is another user's, or of a type that was not asked for.
    Foreign,
}

/// What did not come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) count: u64,
    /// The number of the first.
    pub(super) first: Option<u64>,
}

/// The account of one session, whose user's place in the plan is `user`.
#[derive(Debug)]
pub(super) struct Check {
    user: u64,
    everyone: Account,
    own: Account,
    /// The sequence of the last event.
    last_seq: u64,
    /// The number after that of the last event.
    after: u64,
    /// No longer remembered one by one.
    given_up: Lost,
}

/// One track's part of it.
#[derive(Debug, Default)]
struct Account {
    /// All before it came, or is missing, or was not due.
    next: u64,
    /// Each begins with one that is due.
    missing: Vec<Range<u64>>,
}

impl Check {
    pub(super) fn new(user: u64) -> Self {
        Self {
            user,
            everyone: Account::default(),
            own: Account::default(),
            last_seq: 0,
            after: 0,
            given_up: Lost::default(),
        }
    }

    /// An event came. The publisher has one connection, which keeps its order, so numbers and sequences both rise.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn arrived(&mut self, plan: &Plan, number: u64, seq: Option<u64>) -> Result<(), Fault> {
        let Place { track, index } = plan.place(number);
        let account = match track {
            Track::Everyone => &mut self.everyone,
            Track::User(user) if user == self.user => &mut self.own,
            Track::User(_) => return Err(Fault::Foreign),
        };
        if !plan.is_due(Place { track, index }) {
            return Err(Fault::Foreign);
        }
        if index < account.next {
            if !account.find(plan, track, index) {
                return Err(Fault::Doubled);
            }
        } else {
            if let Some(first) = plan.next_due(track, account.next, index) {
                account.missing.push(first..index);
            }
            account.next = index + 1;
            if account.missing.len() > MAX_MISSING {
                let oldest = account.missing.remove(0);
                self.given_up.add(plan, track, oldest, &HashSet::new());
            }
        }
        let in_order = number >= self.after && seq.is_none_or(|seq| seq > self.last_seq);
        self.after = self.after.max(number + 1);
        self.last_seq = self.last_seq.max(seq.unwrap_or_default());
        if in_order { Ok(()) } else { Err(Fault::Reordered) }
    }

    /// The events before `end` that were due and have not come, but for the `uncertain` ones, of which nobody knows
    /// whether they were published.
    pub(super) fn lost(&self, plan: &Plan, end: u64, uncertain: &HashSet<u64>) -> Lost {
        let mut lost = self.given_up;
        for (track, account) in self.accounts() {
            let rest = account.next..plan.count(track, end);
            for range in account.missing.iter().cloned().chain([rest]) {
                lost.add(plan, track, range, uncertain);
            }
        }
        lost
    }

    /// Whether all that was due of the events before `end` came.
    pub(super) fn is_complete(&self, plan: &Plan, end: u64) -> bool {
        self.given_up.count == 0
            && self.accounts().into_iter().all(|(track, account)| {
                let rest = plan.next_due(track, account.next, plan.count(track, end));
                account.missing.is_empty() && rest.is_none()
            })
    }

    fn accounts(&self) -> [(Track, &Account); 2] {
        [
            (Track::Everyone, &self.everyone),
            (Track::User(self.user), &self.own),
        ]
    }
}

impl Account {
    /// Takes one out of the missing ones, if it is among them.
    fn find(&mut self, plan: &Plan, track: Track, index: u64) -> bool {
        let Some(at) = self.missing.iter().position(|range| range.contains(&index)) else {
            return false;
        };
        let Range { start, end } = self.missing.remove(at);
        let later = plan.next_due(track, index + 1, end).map(|first| first..end);
        let earlier = (start < index).then_some(start..index);
        for part in [later, earlier].into_iter().flatten() {
            self.missing.insert(at, part);
        }
        true
    }
}

impl Lost {
    fn add(&mut self, plan: &Plan, track: Track, range: Range<u64>, uncertain: &HashSet<u64>) {
        let mut from = range.start;
        while let Some(index) = plan.next_due(track, from, range.end) {
            from = index + 1;
            let number = plan.number(Place { track, index });
            if !uncertain.contains(&number) {
                self.count += 1;
                self.first = Some(self.first.map_or(number, |first| first.min(number)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: Option<u64> = None;

    /// Two users, every fourth event to everyone; events 3, 7, 11 … are.
    fn plan() -> Plan {
        Plan::new(2, 25, vec![true])
    }

    /// The numbers of the events before `end` that are due to this user.
    fn due(plan: &Plan, user: u64, end: u64) -> Vec<u64> {
        let due = |number: &u64| {
            let place = plan.place(*number);
            plan.is_due(place) && matches!(place.track, Track::Everyone) | (place.track == Track::User(user))
        };
        (0..end).filter(due).collect()
    }

    fn lost(check: &Check, plan: &Plan, end: u64) -> (u64, Option<u64>) {
        let lost = check.lost(plan, end, &HashSet::new());
        assert_eq!(lost.count == 0, check.is_complete(plan, end));
        (lost.count, lost.first)
    }

    #[test]
    fn what_comes_as_planned_is_complete() {
        for wanted in [vec![true], vec![false, true, false]] {
            let plan = Plan::new(2, 25, wanted);
            for user in 0..2 {
                let mut check = Check::new(user);
                for number in due(&plan, user, 200) {
                    assert_eq!(check.arrived(&plan, number, Some(number + 1)), Ok(()));
                }
                assert_eq!(lost(&check, &plan, 200), (0, None));
                assert!(check.lost(&plan, 300, &HashSet::new()).count > 0);
            }
        }
    }

    #[test]
    fn what_does_not_come_is_lost_wherever_it_was_due() {
        let plan = plan();
        let due = due(&plan, 1, 100);
        for left_out in [0, 1, due.len() / 2, due.len() - 1] {
            let mut check = Check::new(1);
            for (at, &number) in due.iter().enumerate() {
                if at != left_out {
                    assert_eq!(check.arrived(&plan, number, OTHER), Ok(()));
                }
            }
            assert_eq!(lost(&check, &plan, 100), (1, Some(due[left_out])));
            // Unless it may never have been published.
            let uncertain = HashSet::from([due[left_out]]);
            assert_eq!(check.lost(&plan, 100, &uncertain), Lost::default());
        }
        assert_eq!(lost(&Check::new(1), &plan, 100), (due.len() as u64, Some(due[0])));
    }

    #[test]
    fn what_comes_again_is_doubled() {
        let plan = plan();
        let mut check = Check::new(0);
        assert_eq!(check.arrived(&plan, 0, Some(1)), Ok(()));
        assert_eq!(check.arrived(&plan, 0, Some(1)), Err(Fault::Doubled));
        assert_eq!(check.arrived(&plan, 2, Some(3)), Ok(()));
        assert_eq!(check.arrived(&plan, 0, Some(4)), Err(Fault::Doubled));
        assert_eq!(lost(&check, &plan, 3), (0, None));
    }

    #[test]
    fn what_comes_late_is_out_of_order_and_not_lost() {
        let plan = plan();
        let mut check = Check::new(0);
        for (number, seq) in [(0, 1), (5, 6), (7, 8)] {
            assert_eq!(check.arrived(&plan, number, Some(seq)), Ok(()));
        }
        assert_eq!(lost(&check, &plan, 8), (2, Some(2)));
        assert_eq!(check.arrived(&plan, 3, Some(4)), Err(Fault::Reordered));
        assert_eq!(check.arrived(&plan, 2, Some(3)), Err(Fault::Reordered));
        assert_eq!(check.arrived(&plan, 2, Some(3)), Err(Fault::Doubled));
        assert_eq!(lost(&check, &plan, 8), (0, None));
    }

    #[test]
    fn two_that_changed_places_but_not_sequences_are_out_of_order() {
        let plan = plan();
        let mut check = Check::new(0);
        assert_eq!(check.arrived(&plan, 2, Some(1)), Ok(()));
        assert_eq!(check.arrived(&plan, 0, Some(2)), Err(Fault::Reordered));
    }

    #[test]
    fn a_sequence_that_does_not_rise_is_out_of_order() {
        let plan = plan();
        let mut check = Check::new(0);
        assert_eq!(check.arrived(&plan, 0, Some(9)), Ok(()));
        assert_eq!(check.arrived(&plan, 2, Some(8)), Err(Fault::Reordered));
    }

    #[test]
    fn what_is_another_users_or_was_not_asked_for_is_foreign() {
        let plan = plan();
        assert_eq!(Check::new(0).arrived(&plan, 1, OTHER), Err(Fault::Foreign));
        let plan = Plan::new(1, 0, vec![true, false]);
        assert_eq!(Check::new(0).arrived(&plan, 1, OTHER), Err(Fault::Foreign));
    }

    #[test]
    fn more_holes_than_are_remembered_are_still_counted() {
        let plan = Plan::new(1, 0, vec![true]);
        let mut check = Check::new(0);
        let end = 4 * MAX_MISSING as u64;
        for number in (1..end).step_by(2) {
            assert_eq!(check.arrived(&plan, number, OTHER), Ok(()));
        }
        assert!(check.own.missing.len() <= MAX_MISSING);
        assert_eq!(lost(&check, &plan, end), (end / 2, Some(0)));
    }
}
