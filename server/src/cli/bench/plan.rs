//! What is published: an event's number alone decides whose it is and of which type, so that every session knows
//! what is due to it, and nobody keeps a list.

/// Events in turns: to every user one after another, with those to everyone evenly between.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    users: u64,
    /// Of a hundred events, how many are to everyone.
    to_everyone: u64,
    /// By type: whether the sessions' patterns match it.
    wanted: Vec<bool>,
}

/// Whom an event is for: those of one track are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Track {
    Everyone,
    User(u64),
}

/// Where an event stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) track: Track,
    pub(super) index: u64,
}

impl Plan {
    /// `to_everyone` is in percent; there is at least one user and one type.
    pub(super) fn new(users: u64, to_everyone: u64, wanted: Vec<bool>) -> Self {
        assert!(users > 0 && to_everyone <= 100 && !wanted.is_empty());
        Self {
            users,
            to_everyone,
            wanted,
        }
    }

    /// The tracks that there are events of.
    pub(super) fn kinds(&self) -> impl Iterator<Item = Track> {
        let everyone = (self.to_everyone > 0).then_some(Track::Everyone);
        let users = (self.to_everyone < 100).then_some(Track::User(0));
        everyone.into_iter().chain(users)
    }

    /// How many of the events before `number` are to everyone.
    fn everyone_before(&self, number: u64) -> u64 {
        number * self.to_everyone / 100
    }

    pub(super) fn place(&self, number: u64) -> Place {
        let everyone = self.everyone_before(number);
        if self.everyone_before(number + 1) > everyone {
            return Place {
                track: Track::Everyone,
                index: everyone,
            };
        }
        let turn = number - everyone;
        Place {
            track: Track::User(turn % self.users),
            index: turn / self.users,
        }
    }

    /// The number of the event that stands there.
    pub(super) fn number(&self, place: Place) -> u64 {
        match place.track {
            Track::Everyone => ((place.index + 1) * 100).div_ceil(self.to_everyone) - 1,
            Track::User(user) => {
                let turn = place.index * self.users + user;
                turn * 100 / (100 - self.to_everyone)
            }
        }
    }

    /// The type of the event that stands there. Each track has all of them in turn, and no two neighbours the same.
    pub(super) fn event_type(&self, place: Place) -> usize {
        let turn = match place.track {
            Track::Everyone => place.index,
            Track::User(user) => place.index + user,
        };
        (turn % self.wanted.len() as u64) as usize
    }

    /// Whether the sessions of its track get it.
    pub(super) fn is_due(&self, place: Place) -> bool {
        self.wanted[self.event_type(place)]
    }

    /// How many events of a track there are among those before `number`.
    pub(super) fn count(&self, track: Track, number: u64) -> u64 {
        let everyone = self.everyone_before(number);
        match track {
            Track::Everyone => everyone,
            // Those whose turn `user`, `user + users`, … has come.
            Track::User(user) => (number - everyone + self.users - 1 - user) / self.users,
        }
    }

    /// The first event of a track at or after `index` that is due, if it is before `end`.
    pub(super) fn next_due(&self, track: Track, index: u64, end: u64) -> Option<u64> {
        // Within one round of the types one is wanted, or none ever.
        let round = end.min(index + self.wanted.len() as u64);
        (index..round).find(|&index| self.is_due(Place { track, index }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plans() -> Vec<Plan> {
        let mut plans = Vec::new();
        for users in [1, 2, 7] {
            for to_everyone in [0, 1, 33, 50, 99, 100] {
                for wanted in [
                    vec![true],
                    vec![true, false, true],
                    vec![false, false, false, true],
                ] {
                    plans.push(Plan::new(users, to_everyone, wanted));
                }
            }
        }
        plans
    }

    #[test]
    fn a_number_has_one_place_and_a_place_one_number() {
        for plan in plans() {
            let mut counts = std::collections::HashMap::new();
            for number in 0..1_000 {
                let place = plan.place(number);
                let count: &mut u64 = counts.entry(place.track).or_default();
                assert_eq!(place.index, *count, "{plan:?} {number}");
                assert_eq!(plan.count(place.track, number), *count, "{plan:?} {number}");
                assert_eq!(plan.number(place), number, "{plan:?} {number}");
                *count += 1;
            }
        }
    }

    #[test]
    fn the_share_is_as_asked_and_users_take_turns() {
        let plan = Plan::new(3, 10, vec![true]);
        let tracks: Vec<_> = (0..11).map(|number| plan.place(number).track).collect();
        let users = (0..9).map(|turn| Track::User(turn % 3));
        let expected: Vec<_> = users.chain([Track::Everyone, Track::User(0)]).collect();
        assert_eq!(tracks, expected);
    }

    #[test]
    fn what_is_due_next_is_of_a_wanted_type() {
        let plan = Plan::new(2, 0, vec![false, false, true]);
        let track = Track::User(1);
        assert_eq!(plan.next_due(track, 0, 10), Some(1));
        assert_eq!(plan.next_due(track, 2, 10), Some(4));
        assert_eq!(plan.next_due(track, 2, 4), None);
    }
}
