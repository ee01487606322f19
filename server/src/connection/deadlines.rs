//! What the clock has to bring to one connection. No clock: every `now` is handed in, but for that of tokens.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::keepalive::Keepalive;
use crate::identity::Identity;

/// The lead of `token_expiring`: this, or a fifth of what the token still lasts, whichever is less.
const EXPIRY_LEAD: Duration = Duration::from_secs(60);

/// What the clock has to bring, each at most once.
pub(super) struct Deadlines {
    pub(super) token_expiring: Option<Instant>,
    pub(super) token_expired: Option<Instant>,
    /// Until when what is being written must have made progress.
    pub(super) written: Option<Instant>,
    /// When this connection goes, once the node drains.
    pub(super) leave: Option<Instant>,
    /// When a replay has taken too long.
    pub(super) replay: Option<Instant>,
}

impl Deadlines {
    /// Those of a token, and no others.
    pub(super) fn of_token(identity: &Identity, now: Instant) -> Self {
        let left = identity
            .expires_at
            .map(|end| end.duration_since(SystemTime::now()).unwrap_or_default());
        Self {
            token_expiring: left.map(|left| now + left - EXPIRY_LEAD.min(left / 5)),
            token_expired: left.map(|left| now + left),
            written: None,
            leave: None,
            replay: None,
        }
    }

    /// When the first of them is due, or silence has to be broken.
    pub(super) fn next(&self, keepalive: &Keepalive) -> Instant {
        let deadlines = [
            self.token_expiring,
            self.token_expired,
            self.written,
            self.leave,
            self.replay,
        ];
        deadlines
            .into_iter()
            .flatten()
            .fold(keepalive.next(), Instant::min)
    }
}
