//! What is remembered of commands: which ids were asked, and what came of them.
//!
//! Shared by all nodes in a NATS key-value bucket; without JetStream in the node's own memory. Either forgets
//! an id after `commands.remember`, and the oldest first when it is full.

use std::{
    collections::{HashMap, VecDeque},
    error::Error as _,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_nats::jetstream::kv::{self, CreateErrorKind, Operation};
use bytes::Bytes;
use rivulet_protocol::subject::UserId;
use tracing::warn;

use super::{
    BusError,
    bucket::{self, Bucket},
    connect::Link,
};

/// The bucket's name.
pub(super) const BUCKET: &str = "rivulet-commands";
/// What the bucket may take on disk: at 1 KB a command, 130,000 of them.
const BUCKET_BYTES: i64 = 128 << 20;
/// What a node remembers by itself.
const NODE_BYTES: usize = 64 << 20;
/// What an entry of the node's own costs beside its key and its answer.
const ENTRY_OVERHEAD: usize = 200;

/// The key of an id of a user: two tokens, whatever the id contains.
pub(super) fn key(user: &UserId, id: &str) -> String {
    use std::fmt::Write as _;
    let mut key = user.escaped();
    key.push('.');
    for byte in id.bytes() {
        let _ = write!(key, "{byte:02x}");
    }
    // An empty id is an id too, and an empty token no token.
    key.push('_');
    key
}

/// Who may ask a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// Whoever claims: it was not asked before.
    Ours,
    /// Somebody who has not had an answer yet.
    Theirs,
    /// Nobody any more: this was the answer.
    Answered(Bytes),
}

/// What is remembered of commands.
#[derive(Debug)]
pub(super) enum Memory {
    /// By all nodes.
    Shared(Box<kv::Store>),
    /// By this node.
    Node(Node),
}

/// Why something was not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unwritten {
    /// The bucket is not there.
    Gone,
    /// JetStream does not take it, or does not answer.
    Refused(String),
}

/// A key of no command: those have two tokens.
const TRIAL: &str = "trial";

// The first byte of a value in the bucket.
const ASKED: u8 = b'?';
const ANSWERED: u8 = b'=';

impl Memory {
    /// The bucket, made where it is missing.
    ///
    /// # Errors
    /// If NATS does not permit it.
    pub(super) async fn shared(link: &Link, remember: Duration, replicas: usize) -> Result<Self, BusError> {
        // A client that repeats a command does so soon: when it is full it forgets the oldest.
        let wanted = Bucket {
            name: BUCKET,
            holds: "commands",
            bytes: BUCKET_BYTES,
            max_age: remember,
            replicas,
        };
        Ok(Self::Shared(Box::new(bucket::open(link, &wanted).await?)))
    }

    /// The node's own.
    pub(super) fn node(remember: Duration) -> Self {
        Self::Node(Node {
            remember,
            entries: Mutex::default(),
        })
    }

    /// Claims a key, or says who has.
    ///
    /// # Errors
    /// If the bucket does not answer. A claim that was made all the same then stands: an id is rather not asked
    /// than asked twice.
    pub(super) async fn claim(&self, key: &str) -> Result<Claim, String> {
        let store = match self {
            Self::Shared(store) => store,
            Self::Node(node) => return Ok(node.claim(key)),
        };
        let Err(fault) = store.create(key, Bytes::from_static(&[ASKED])).await else {
            return Ok(Claim::Ours);
        };
        if fault.kind() != CreateErrorKind::AlreadyExists {
            return Err(fault.to_string());
        }
        let entry = store.entry(key).await.map_err(|fault| fault.to_string())?;
        Ok(match entry {
            Some(entry) if entry.operation == Operation::Put && entry.value.first() == Some(&ANSWERED) => {
                Claim::Answered(entry.value.slice(1..))
            }
            // Released or forgotten between the two questions counts as theirs until it is asked again.
            _ => Claim::Theirs,
        })
    }

    /// Keeps the answer under a key that was claimed.
    pub(super) async fn keep(&self, key: &str, answer: &Bytes) {
        match self {
            Self::Shared(store) => {
                let value = [&[ANSWERED], &answer[..]].concat();
                if let Err(fault) = store.put(key, value.into()).await {
                    warn!(%fault, "the answer of a command could not be kept");
                }
            }
            Self::Node(node) => node.keep(key, answer),
        }
    }

    /// Writes what is of no use, to see whether it is stored.
    ///
    /// # Errors
    /// Why it is not.
    pub(super) async fn try_write(&self) -> Result<(), Unwritten> {
        let Self::Shared(store) = self else { return Ok(()) };
        let Err(fault) = store.put(TRIAL, Bytes::from_static(b"?")).await else {
            return Ok(());
        };
        let why = fault
            .source()
            .map_or_else(|| fault.to_string(), |source| format!("{fault}: {source}"));
        // No stream takes the key.
        Err(
            match why.contains("no responders") || why.contains("stream not found") {
                true => Unwritten::Gone,
                false => Unwritten::Refused(why),
            },
        )
    }

    /// Gives a key back: nothing was asked.
    pub(super) async fn release(&self, key: &str) {
        match self {
            Self::Shared(store) => {
                if let Err(fault) = store.delete(key).await {
                    warn!(%fault, "the claim of a command could not be given back");
                }
            }
            Self::Node(node) => node.release(key),
        }
    }
}

/// A node's own memory, bounded in time and bytes.
#[derive(Debug)]
pub(super) struct Node {
    remember: Duration,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_key: HashMap<String, Entry>,
    /// In the order in which they were claimed; a released or repeated one may stand here in vain.
    order: VecDeque<(Instant, String)>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    claimed_at: Instant,
    answer: Option<Bytes>,
}

impl Node {
    fn claim(&self, key: &str) -> Claim {
        let now = Instant::now();
        let mut entries = self.lock();
        entries.forget(|entries, claimed_at| {
            now.duration_since(claimed_at) >= self.remember || entries.bytes > NODE_BYTES
        });
        match entries.by_key.get(key) {
            Some(Entry {
                answer: Some(answer), ..
            }) => Claim::Answered(answer.clone()),
            Some(_) => Claim::Theirs,
            None => {
                entries.bytes += 2 * key.len() + ENTRY_OVERHEAD;
                entries.order.push_back((now, key.to_owned()));
                entries.by_key.insert(
                    key.to_owned(),
                    Entry {
                        claimed_at: now,
                        answer: None,
                    },
                );
                Claim::Ours
            }
        }
    }

    fn keep(&self, key: &str, answer: &Bytes) {
        let mut entries = self.lock();
        if let Some(entry) = entries.by_key.get_mut(key) {
            // A copy: the bytes may be a slice of the connection's whole read buffer.
            let before = entry.answer.replace(Bytes::copy_from_slice(answer));
            entries.bytes += answer.len();
            entries.bytes -= before.map_or(0, |before| before.len());
        }
    }

    fn release(&self, key: &str) {
        let mut entries = self.lock();
        if let Some(entry) = entries.by_key.remove(key) {
            entries.bytes -= entry.answer.map_or(0, |answer| answer.len());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    /// Removes the oldest while `is_due`.
    fn forget(&mut self, is_due: impl Fn(&Self, Instant) -> bool) {
        while let Some(&(claimed_at, _)) = self.order.front()
            && is_due(self, claimed_at)
        {
            let Some((claimed_at, key)) = self.order.pop_front() else {
                return;
            };
            self.bytes -= 2 * key.len() + ENTRY_OVERHEAD;
            if self
                .by_key
                .get(&key)
                .is_some_and(|entry| entry.claimed_at == claimed_at)
                && let Some(entry) = self.by_key.remove(&key)
            {
                self.bytes -= entry.answer.map_or(0, |answer| answer.len());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(remember: Duration) -> Node {
        Node {
            remember,
            entries: Mutex::default(),
        }
    }

    #[test]
    fn a_key_is_claimed_once() {
        let node = node(Duration::from_secs(600));
        assert_eq!(node.claim("a"), Claim::Ours);
        assert_eq!(node.claim("a"), Claim::Theirs);
        assert_eq!(node.claim("b"), Claim::Ours);
        node.keep("a", &Bytes::from_static(b"{}"));
        assert_eq!(node.claim("a"), Claim::Answered(Bytes::from_static(b"{}")));
        node.release("b");
        assert_eq!(node.claim("b"), Claim::Ours);
    }

    #[test]
    fn an_answer_that_is_kept_again_is_counted_once() {
        let node = node(Duration::from_secs(600));
        assert_eq!(node.claim("a"), Claim::Ours);
        let empty = node.lock().bytes;
        for _ in 0..3 {
            node.keep("a", &Bytes::from_static(b"{}"));
        }
        assert_eq!(node.lock().bytes, empty + 2);
    }

    #[test]
    fn the_nodes_memory_is_bounded() {
        let node = node(Duration::from_secs(600));
        let answer = Bytes::from(vec![b'x'; 1 << 20]);
        for index in 0..200 {
            let key = index.to_string();
            assert_eq!(node.claim(&key), Claim::Ours);
            node.keep(&key, &answer);
        }
        assert!(node.lock().bytes < NODE_BYTES + 2 * answer.len());
        assert_eq!(node.claim("0"), Claim::Ours, "the oldest is forgotten first");
        assert_eq!(node.claim("199"), Claim::Answered(answer));
    }

    #[test]
    fn what_was_remembered_long_enough_is_forgotten() {
        let node = node(Duration::ZERO);
        assert_eq!(node.claim("a"), Claim::Ours);
        node.keep("a", &Bytes::from_static(b"{}"));
        assert_eq!(node.claim("a"), Claim::Ours);
        assert_eq!(node.lock().order.len(), 1);
        node.release("a");
        node.lock().forget(|_, _| true);
        assert_eq!(node.lock().bytes, 0);
    }

    #[test]
    fn any_id_is_two_tokens() {
        let user = UserId::parse("a.b").unwrap();
        assert_eq!(key(&user, ""), "a=2Eb._");
        assert_eq!(key(&user, "*.é"), "a=2Eb.2a2ec3a9_");
    }
}
