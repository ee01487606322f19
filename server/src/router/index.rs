//! From users to their sessions.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use rivulet_protocol::subject::UserId;

use super::interest::{Interest, InterestId, Interests};
use crate::outbox::Outbox;

/// Which of a shard's sessions. It is another's once the session has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MemberId(u32);

/// A session as the router sees it.
#[derive(Debug)]
pub(super) struct Member {
    /// It has had everything up to here: from a node that is ahead of this one. Zero: from this one.
    pub(super) after: u64,
    pub(super) interest: InterestId,
    pub(super) outbox: Arc<Outbox>,
}

/// Where a user's sessions are.
#[derive(Debug)]
enum Seats {
    One(MemberId),
    Many(Vec<MemberId>),
}

/// A shard's sessions, by user. A user without a session has no entry.
#[derive(Debug, Default)]
pub(super) struct Index {
    users: HashMap<UserId, Seats>,
    /// Side by side, as an event for everyone walks over them; `None` where one has left.
    members: Vec<Option<Member>>,
    free: Vec<MemberId>,
    interests: Interests,
}

impl Index {
    pub(super) fn add(
        &mut self,
        user: UserId,
        interest: Interest,
        outbox: Arc<Outbox>,
        after: u64,
    ) -> MemberId {
        let member = Some(Member {
            after,
            interest: self.interests.add(interest),
            outbox,
        });
        let id = match self.free.pop() {
            Some(id) => {
                self.members[id.0 as usize] = member;
                id
            }
            None => {
                self.members.push(member);
                MemberId((self.members.len() - 1) as u32)
            }
        };
        match self.users.entry(user) {
            Entry::Vacant(entry) => {
                entry.insert(Seats::One(id));
            }
            Entry::Occupied(mut entry) => match entry.get_mut() {
                Seats::One(first) => {
                    let both = vec![*first, id];
                    entry.insert(Seats::Many(both));
                }
                Seats::Many(ids) => ids.push(id),
            },
        }
        id
    }

    pub(super) fn after(&self, id: MemberId) -> u64 {
        self.members[id.0 as usize]
            .as_ref()
            .map_or(0, |member| member.after)
    }

    pub(super) fn change(&mut self, id: MemberId, interest: Interest) {
        if let Some(member) = &mut self.members[id.0 as usize] {
            let before = member.interest;
            member.interest = self.interests.add(interest);
            self.interests.remove(before);
        }
    }

    pub(super) fn remove(&mut self, user: &UserId, id: MemberId) {
        if let Some(member) = self.members[id.0 as usize].take() {
            self.interests.remove(member.interest);
            self.free.push(id);
        }
        if let Entry::Occupied(mut entry) = self.users.entry(user.clone()) {
            let left = match entry.get_mut() {
                Seats::One(_) => 0,
                Seats::Many(ids) => {
                    ids.retain(|other| *other != id);
                    ids.len()
                }
            };
            if left == 0 {
                entry.remove();
            }
        }
        if self.users.is_empty() {
            // What a crowd took must not stay behind it.
            *self = Self::default();
        }
    }

    /// Goes over a user's sessions.
    pub(super) fn each_of(&mut self, user: &UserId, mut visit: impl FnMut(&Member, &mut Interests)) {
        let ids = match self.users.get(user) {
            None => return,
            Some(Seats::One(id)) => std::slice::from_ref(id),
            Some(Seats::Many(ids)) => ids,
        };
        for id in ids {
            if let Some(member) = &self.members[id.0 as usize] {
                visit(member, &mut self.interests);
            }
        }
    }

    /// Goes over all sessions.
    pub(super) fn each(&mut self, mut visit: impl FnMut(&Member, &mut Interests)) {
        for member in self.members.iter().flatten() {
            visit(member, &mut self.interests);
        }
    }

    pub(super) fn has(&self, user: &UserId) -> bool {
        self.users.contains_key(user)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().flatten()
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.members.iter_mut().flatten()
    }

    pub(super) fn all_users(&self) -> impl Iterator<Item = &UserId> {
        self.users.keys()
    }

    pub(super) fn users(&self) -> usize {
        self.users.len()
    }
}
