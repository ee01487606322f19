//! The frames of a session that carry what it is and where it stands.

use std::time::SystemTime;

use rivulet_protocol::{
    message::{Connected, PLAIN, Resumed, SUBPROTOCOL, ServerMessage, SessionLimits, Subscribed, TokenTimes},
    pattern::Pattern,
    scalar::{SafeInteger, Timestamp},
};
use ulid::Ulid;

use crate::{
    connection::Node,
    encoded::Encoded,
    identity::Identity,
    limits::seats::ClientKind,
    router::{Position, Replayed},
};

/// The frame that ends a replay.
pub(super) fn last(
    kind: ClientKind,
    patterns: &[Pattern],
    position: &Position,
    replayed: Replayed,
) -> Encoded {
    let wire = |seq| SafeInteger::new(seq).unwrap_or_default();
    let message = match kind {
        ClientKind::V1 => ServerMessage::Resumed(Resumed {
            from_seq: wire(replayed.from),
            to_seq: wire(replayed.to),
            complete: replayed.complete,
        }),
        // A plain client takes no `resumed`; the head tells it the same.
        ClientKind::Plain => ServerMessage::Subscribed(subscribed(patterns, position)),
    };
    Encoded::message(&message, None)
}

pub(super) fn subscribed(patterns: &[Pattern], position: &Position) -> Subscribed {
    Subscribed {
        events: patterns.iter().map(Pattern::to_string).collect(),
        seq: position.wire_seq(),
    }
}

pub(super) fn connected(
    session_id: Ulid,
    identity: &Identity,
    kind: ClientKind,
    patterns: &[Pattern],
    position: &Position,
    resumed: bool,
    node: &Node,
) -> Connected {
    let times = token_times(identity);
    let size = |size: usize| SafeInteger::new(size as u64).unwrap_or_default();
    Connected {
        status: "ready".into(),
        user_id: identity.user.to_string(),
        session_id: session_id.to_string(),
        protocol: match kind {
            ClientKind::V1 => SUBPROTOCOL,
            ClientKind::Plain => PLAIN,
        }
        .into(),
        server: concat!("rivulet/", env!("CARGO_PKG_VERSION")).into(),
        heartbeat_ms: size(node.sessions.heartbeat.as_millis() as usize),
        token_expires_at: times.map(|times| times.expires_at),
        token_expires_in_ms: times.map(|times| times.expires_in_ms),
        events: patterns.iter().map(Pattern::to_string).collect(),
        durable: position.durable,
        stream: position.epoch.as_deref().map(str::to_owned),
        seq: position.wire_seq(),
        oldest_seq: position.oldest.and_then(SafeInteger::new),
        resumed,
        limits: SessionLimits {
            max_message_bytes: size(node.limits.max_message_bytes),
            max_patterns: size(node.limits.max_patterns),
        },
    }
}

/// When the identity's token ends; `None` for one without an end.
pub(super) fn token_times(identity: &Identity) -> Option<TokenTimes> {
    let end = identity.expires_at?;
    let left = end.duration_since(SystemTime::now()).unwrap_or_default();
    Some(TokenTimes {
        expires_at: Timestamp::new(jiff::Timestamp::try_from(end).ok()?),
        expires_in_ms: SafeInteger::new(left.as_millis() as u64)?,
    })
}
