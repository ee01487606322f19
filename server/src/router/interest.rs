//! What a session wants, within what it may see.

use std::{collections::HashMap, sync::Arc};

use rivulet_protocol::pattern::Pattern;

/// The pattern by which a session asks to see failures as `error` frames too.
const ERRORS: &str = "error";
/// The event that is a failure.
const FAILURE: &str = "processor.failed";

/// A session's patterns and permissions. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Interest {
    patterns: Arc<[Pattern]>,
    permitted: Arc<[Pattern]>,
    everything: bool,
    errors: bool,
}

impl Interest {
    /// Each pattern lies within a permitted one, is the bare `*`, or names a frame of the router's: the session
    /// has seen to it.
    pub fn new(patterns: Arc<[Pattern]>, permitted: Arc<[Pattern]>) -> Self {
        let may_see_failures = permitted.iter().any(|pattern| pattern.matches(FAILURE));
        Self {
            everything: patterns.iter().any(Pattern::is_all),
            errors: may_see_failures && patterns.iter().any(|pattern| pattern.as_str() == ERRORS),
            patterns,
            permitted,
        }
    }

    /// Whether events of this type are for the session.
    pub fn wants(&self, event_type: &str) -> bool {
        let matching = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(event_type));
        matching(if self.everything {
            &self.permitted
        } else {
            &self.patterns
        })
    }

    /// Whether failures come as `error` frames too.
    pub fn wants_errors(&self) -> bool {
        self.errors
    }
}

/// A type of events by number, for as many types as get one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TypeId(u16);

/// The types that have been seen, by number.
#[derive(Debug, Default)]
pub(super) struct Types(HashMap<Box<str>, TypeId>);

impl Types {
    /// How many get a number: a session's answers to all of them take 1 KiB. The others are matched every time.
    const MOST: usize = 4_096;

    pub(super) fn id(&mut self, event_type: &str) -> Option<TypeId> {
        if let Some(id) = self.0.get(event_type) {
            return Some(*id);
        }
        let id = u16::try_from(self.0.len()).ok().map(TypeId)?;
        (self.0.len() < Self::MOST).then(|| *self.0.entry(event_type.into()).or_insert(id))
    }
}

/// The different interests of a shard's sessions, each held once however many have it, with what it has answered.
#[derive(Debug, Default)]
pub(super) struct Interests {
    ids: HashMap<Interest, InterestId>,
    shared: Vec<Shared>,
    free: Vec<InterestId>,
}

/// Which of a shard's interests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InterestId(u32);

#[derive(Debug)]
struct Shared {
    /// `None` while nobody has it.
    interest: Option<Interest>,
    sessions: u32,
    /// Two bits for each type: 0 while it is not known, else [`NO`] or [`YES`].
    answers: Vec<u64>,
}

const NO: u64 = 2;
const YES: u64 = 3;
/// How many types' answers a word holds.
const IN_A_WORD: usize = 32;

impl Interests {
    pub(super) fn add(&mut self, interest: Interest) -> InterestId {
        if let Some(id) = self.ids.get(&interest) {
            self.shared[id.0 as usize].sessions += 1;
            return *id;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.shared.push(Shared {
                interest: None,
                sessions: 0,
                answers: Vec::new(),
            });
            InterestId((self.shared.len() - 1) as u32)
        });
        self.shared[id.0 as usize] = Shared {
            interest: Some(interest.clone()),
            sessions: 1,
            answers: Vec::new(),
        };
        self.ids.insert(interest, id);
        id
    }

    pub(super) fn remove(&mut self, id: InterestId) {
        let shared = &mut self.shared[id.0 as usize];
        shared.sessions -= 1;
        if shared.sessions == 0
            && let Some(interest) = shared.interest.take()
        {
            shared.answers = Vec::new();
            self.ids.remove(&interest);
            self.free.push(id);
            if self.ids.is_empty() {
                // What a crowd took must not stay behind it.
                *self = Self::default();
            }
        }
    }

    /// Whether those who have this interest want events of a type. Matched once for each type that has a number.
    pub(super) fn wants(&mut self, id: InterestId, event_type: &str, type_id: Option<TypeId>) -> bool {
        let Shared {
            interest, answers, ..
        } = &mut self.shared[id.0 as usize];
        let wants = || {
            interest
                .as_ref()
                .is_some_and(|interest| interest.wants(event_type))
        };
        let Some(TypeId(number)) = type_id else {
            return wants();
        };
        let (word, shift) = (
            usize::from(number) / IN_A_WORD,
            usize::from(number) % IN_A_WORD * 2,
        );
        if answers.len() <= word {
            answers.resize(word + 1, 0);
        }
        match answers[word] >> shift & 3 {
            0 => {
                let wants = wants();
                answers[word] |= if wants { YES } else { NO } << shift;
                wants
            }
            answer => answer == YES,
        }
    }

    pub(super) fn wants_errors(&self, id: InterestId) -> bool {
        let interest = self.shared[id.0 as usize].interest.as_ref();
        interest.is_some_and(Interest::wants_errors)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.ids.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interest(patterns: &[&str]) -> Interest {
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Interest::new(parse(patterns), parse(&["*"]))
    }

    #[test]
    fn equal_interests_are_held_once_and_for_as_long_as_somebody_has_them() {
        let mut interests = Interests::default();
        let blobs = interests.add(interest(&["blob.*"]));
        let books = interests.add(interest(&["book.*"]));
        assert_eq!(interests.add(interest(&["blob.*"])), blobs);
        assert_eq!(interests.len(), 2);
        interests.remove(blobs);
        let mut types = Types::default();
        let created = types.id("blob.created");
        assert!(interests.wants(blobs, "blob.created", created));
        interests.remove(blobs);
        assert_eq!(interests.len(), 1);
        // Its place is taken by another, which answers for itself.
        let all = interests.add(interest(&["conversation.*"]));
        assert_eq!(all, blobs);
        assert!(!interests.wants(all, "blob.created", created));
        assert!(!interests.wants(books, "blob.created", created));
    }

    #[test]
    fn a_type_beyond_those_with_a_number_is_matched_all_the_same() {
        let mut types = Types::default();
        for number in 0..Types::MOST {
            assert!(types.id(&format!("blob.t{number}")).is_some());
        }
        assert_eq!(types.id("blob.one_more"), None);
        let last = types.id(&format!("blob.t{}", Types::MOST - 1));
        let mut interests = Interests::default();
        let id = interests.add(interest(&["blob.one_more", "blob.t4095"]));
        for _ in 0..2 {
            assert!(interests.wants(id, "blob.one_more", None));
            assert!(!interests.wants(id, "blob.other", None));
            assert!(interests.wants(id, "blob.t4095", last));
            assert!(!interests.wants(id, "blob.t0", types.id("blob.t0")));
        }
    }
}
