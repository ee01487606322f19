//! The tokens that were verified, so that who comes again costs a digest and neither a signature nor claims to read.
//!
//! **What is kept** of a token is its SHA-256 and its [`Identity`], which its sessions hold anyway; never the token.
//! A token that differs in one byte is another token. Only tokens that count are kept: a stranger can't make one, so
//! a flood of bad ones pushes nothing out.
//!
//! **For how long**: until the token ends, and only while the keys are those that it was verified with. A JWKS that
//! says something else than before voids everything, as nobody remembers which key verified what. A clock that went
//! back to before the check voids it too, as `nbf` would count again.
//!
//! **When it is full**: the tokens are in two generations. Who is asked for moves to the recent one; when that has
//! half of all room, it becomes the earlier one, and what was still in the earlier one is forgotten: it was not
//! asked for while half as many others were. Forgetting costs no more than verifying again.
//!
//! Connects that bring one token at the same time before it is known verify it each: nearly every client has a token
//! of its own, and to wait for each other would cost all the rest a lock per token.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use crate::{identity::Identity, metrics::Metrics};

/// The most tokens, and the most bytes that they take: some 300 each, mostly shared with their sessions.
const MAX: Bounds = Bounds {
    tokens: 32_768,
    bytes: 16 << 20,
};

/// What one takes beside its identity: its digest and its place in a map that is at worst half empty.
const PLACE_BYTES: usize = 2 * size_of::<(Digest, Known)>();

/// The digest of a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Digest([u8; SHA256_OUTPUT_LEN]);

impl Digest {
    pub(super) fn of(token: &str) -> Self {
        let digest = digest(&SHA256, token.as_bytes());
        Self(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

/// Tokens that were verified.
pub(super) struct Verified {
    max: Bounds,
    tokens: Mutex<Tokens>,
    metrics: Arc<Metrics>,
}

#[derive(Clone, Copy)]
struct Bounds {
    tokens: usize,
    bytes: usize,
}

#[derive(Default)]
struct Tokens {
    recent: Generation,
    earlier: Generation,
}

#[derive(Default)]
struct Generation {
    known: HashMap<Digest, Known>,
    bytes: usize,
}

struct Known {
    identity: Identity,
    checked_at: SystemTime,
    /// Which state of the keys verified it.
    keys: u64,
}

impl Verified {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self::with_bounds(MAX, metrics)
    }

    fn with_bounds(max: Bounds, metrics: Arc<Metrics>) -> Self {
        Self {
            max,
            tokens: Mutex::default(),
            metrics,
        }
    }

    /// What the token came to, if it still counts at `now` with this state of the keys.
    pub(super) fn find(&self, token: &Digest, now: SystemTime, keys: u64) -> Option<Identity> {
        let counts = |known: &Known| {
            known.keys == keys
                && known.checked_at <= now
                && known.identity.expires_at.is_none_or(|end| now < end)
        };
        let mut tokens = self.lock();
        let found = match tokens.recent.known.get(token) {
            Some(known) => counts(known).then(|| known.identity.clone()),
            None => tokens.earlier.remove(token).filter(counts).map(|known| {
                let identity = known.identity.clone();
                self.add(&mut tokens, *token, known);
                identity
            }),
        };
        drop(tokens);
        match &found {
            Some(_) => self.metrics.tokens.hits.inc(),
            None => self.metrics.tokens.misses.inc(),
        };
        found
    }

    /// Keeps what a token came to when it was verified at `now`. `keys` is their state before that.
    pub(super) fn keep(&self, token: Digest, identity: Identity, now: SystemTime, keys: u64) {
        let known = Known {
            identity,
            checked_at: now,
            keys,
        };
        let mut tokens = self.lock();
        tokens.recent.remove(&token);
        self.add(&mut tokens, token, known);
    }

    fn add(&self, tokens: &mut Tokens, token: Digest, known: Known) {
        let recent = &mut tokens.recent;
        recent.bytes += known.bytes();
        recent.known.insert(token, known);
        if recent.known.len() >= self.max.tokens / 2 || recent.bytes >= self.max.bytes / 2 {
            tokens.earlier = std::mem::take(recent);
        }
        let known = tokens.recent.known.len() + tokens.earlier.known.len();
        self.metrics.tokens.known.set(known as i64);
    }

    #[cfg(test)]
    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn lock(&self) -> MutexGuard<'_, Tokens> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Verified {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Verified").finish_non_exhaustive()
    }
}

impl Generation {
    fn remove(&mut self, token: &Digest) -> Option<Known> {
        let known = self.known.remove(token)?;
        self.bytes -= known.bytes();
        Some(known)
    }
}

impl Known {
    fn bytes(&self) -> usize {
        PLACE_BYTES + self.identity.bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rivulet_protocol::subject::UserId;

    use super::*;
    use crate::identity::{CommandPermission, Who};

    const START: SystemTime = SystemTime::UNIX_EPOCH;

    fn identity(user: &str) -> Identity {
        Identity::from(Who {
            user: UserId::parse(user).unwrap(),
            events: [].into(),
            commands: CommandPermission::All,
            subscribe: vec![],
            devices: 5,
            expires_at: Some(START + Duration::from_secs(60)),
        })
    }

    fn verified(max: Bounds) -> Verified {
        Verified::with_bounds(max, Arc::new(Metrics::new([])))
    }

    impl Verified {
        fn add_user(&self, user: &str) {
            self.keep(Digest::of(user), identity(user), START, 0);
        }

        fn knows(&self, user: &str) -> bool {
            let found = self.find(&Digest::of(user), START, 0);
            assert!(
                found
                    .as_ref()
                    .is_none_or(|identity| identity.user.as_str() == user)
            );
            found.is_some()
        }

        /// Tokens and bytes, as counted and as they are.
        fn size(&self) -> (usize, usize) {
            let tokens = self.lock();
            let generations = [&tokens.recent, &tokens.earlier];
            for generation in generations {
                let bytes: usize = generation.known.values().map(Known::bytes).sum();
                assert_eq!(generation.bytes, bytes);
            }
            let known: usize = generations.iter().map(|generation| generation.known.len()).sum();
            assert_eq!(self.metrics.tokens.known.get(), known as i64);
            (known, generations.iter().map(|generation| generation.bytes).sum())
        }
    }

    #[test]
    fn there_are_never_more_than_the_bound_and_who_comes_again_stays() {
        let verified = verified(Bounds {
            tokens: 8,
            bytes: usize::MAX,
        });
        verified.add_user("regular");
        for number in 0..100 {
            verified.add_user(&format!("u{number}"));
            assert!(verified.size().0 <= 8);
            // Not more than half of all come between two times.
            if number % 3 == 0 {
                assert!(verified.knows("regular"), "{number}");
            }
        }
        assert!(verified.knows("u99"));
        assert!(!verified.knows("u0"));
    }

    #[test]
    fn there_are_never_more_bytes_than_the_bound() {
        let one = PLACE_BYTES + identity("u10").bytes();
        let verified = verified(Bounds {
            tokens: usize::MAX,
            bytes: 10 * one,
        });
        for number in 10..100 {
            verified.add_user(&format!("u{number}"));
            let (tokens, bytes) = verified.size();
            assert!(
                tokens <= 10 && bytes <= 10 * one,
                "{tokens} tokens of {bytes} bytes"
            );
        }
        assert!(verified.knows("u99"));
    }

    #[test]
    fn one_token_kept_twice_is_one_token() {
        let verified = verified(MAX);
        verified.add_user("u1");
        verified.add_user("u1");
        assert_eq!(verified.size().0, 1);
    }
}
