//! From users to their sessions.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use rivulet_protocol::subject::UserId;

use super::Interest;
use crate::outbox::Outbox;

/// Which of a user's sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MemberId(u64);

/// A session as the router sees it.
#[derive(Debug)]
pub(super) struct Member {
    id: MemberId,
    /// It has had everything up to here: from a node that is ahead of this one. Zero: from this one.
    pub(super) after: u64,
    pub(super) interest: Interest,
    pub(super) outbox: Arc<Outbox>,
}

/// All sessions, by user. A user without a session has no entry.
#[derive(Debug, Default)]
pub(super) struct Index {
    users: HashMap<UserId, Vec<Member>>,
    last_id: u64,
}

impl Index {
    pub(super) fn add(
        &mut self,
        user: UserId,
        interest: Interest,
        outbox: Arc<Outbox>,
        after: u64,
    ) -> MemberId {
        self.last_id += 1;
        let id = MemberId(self.last_id);
        self.users.entry(user).or_default().push(Member {
            id,
            after,
            interest,
            outbox,
        });
        id
    }

    pub(super) fn after(&self, user: &UserId, id: MemberId) -> u64 {
        let member = self.of_user(user).iter().find(|member| member.id == id);
        member.map_or(0, |member| member.after)
    }

    pub(super) fn change(&mut self, user: &UserId, id: MemberId, interest: Interest) {
        let members = self
            .users
            .get_mut(user)
            .map(Vec::as_mut_slice)
            .unwrap_or_default();
        if let Some(member) = members.iter_mut().find(|member| member.id == id) {
            member.interest = interest;
        }
    }

    pub(super) fn remove(&mut self, user: &UserId, id: MemberId) {
        if let Entry::Occupied(mut members) = self.users.entry(user.clone()) {
            members.get_mut().retain(|member| member.id != id);
            if members.get().is_empty() {
                members.remove();
            }
        }
    }

    pub(super) fn of_user(&self, user: &UserId) -> &[Member] {
        self.users.get(user).map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Member> {
        self.users.values().flatten()
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.users.values_mut().flatten()
    }

    pub(super) fn users(&self) -> usize {
        self.users.len()
    }
}
