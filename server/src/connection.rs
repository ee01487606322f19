//! One loop per socket: from its outbox to the WebSocket codec, and back.
//!
//! A connection passes through types: a [`handshake::Hello`] becomes [`handshake::Admitted`] or a refusal, what
//! was admitted becomes a [`session::Session`], and when that ends, a [`Closing`](crate::outbox::Closing) is said and waited for.
//!
//! The inputs of the loop, all of them:
//!
//! - bytes of the client, read only while there is room to act on them;
//! - the outbox, when something in it is the connection's to do: frames of the router's own, the decision to close
//!   (which an outbox that overflows makes at once), or what a flusher could not get rid of;
//! - room in the socket, while something waits for it;
//! - the end of a command, of the check of a new token, or of a read of the past;
//! - the clock: heartbeats, the token's end, a write that makes no progress, the drain;
//! - the node's shutdown.
//!
//! Live events don't wake it: the flusher of their shard writes them. A session that replays pulls its next events
//! only when all that it has appended is written: its socket sets the pace.

mod deadlines;
pub mod handshake;
mod keepalive;
mod parting;
mod pending;
mod read;
pub mod resume;
mod serve;
pub mod session;

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use rivulet_protocol::{catalog::Catalog, close::CloseCode, validate::Validator};
use tokio::{net::TcpStream, time::Instant};
use tracing::info;
use ulid::Ulid;

pub use self::parting::refuse;
use self::{handshake::Admitted, serve::Connection};
use crate::{
    auth::Auth, command::Backend, config, history::Archive, metrics::Metrics, router::Router,
    shutdown::Shutdown,
};

/// What all connections of a node share.
pub struct Node {
    /// Where sessions are seated.
    pub router: Arc<Router>,
    /// Where commands are answered.
    pub backend: Arc<dyn Backend>,
    /// The past that is no longer in memory.
    pub archive: Arc<dyn Archive>,
    /// Who checks a new token.
    pub auth: Arc<Auth>,
    /// The event types and commands that are known.
    pub catalog: Arc<Catalog>,
    /// Their schemas, compiled.
    pub validator: Arc<Validator>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How sessions behave.
    pub sessions: config::Sessions,
    /// Rates and counts.
    pub limits: config::Limits,
    /// How long a replay may take.
    pub replay_deadline: Duration,
    /// How commands are asked.
    pub commands: config::Commands,
    /// When the node goes away.
    pub shutdown: Shutdown,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Node").finish_non_exhaustive()
    }
}

/// Serves one admitted connection until it ends. `read_ahead` is what the client sent behind its handshake.
///
/// No `async fn`, and the connection is lent to what runs it: what an idle session holds is mostly this future, which
/// would have room for all that it was made from and for the connection a second time.
pub fn run(
    stream: TcpStream,
    read_ahead: BytesMut,
    admitted: Admitted,
    deflate: bool,
    node: Arc<Node>,
) -> impl Future<Output = ()> + Send {
    let id = Ulid::generate();
    // As text, which the log escapes: an id may hold line ends.
    let user = admitted.identity.user.as_str();
    let (address, kind) = (admitted.address, admitted.kind);
    info!(session = %id, user, %address, ?kind, deflate, "connected");
    let mut counted = Counted::new(Arc::clone(&node));
    let mut connection = Connection::open(stream, read_ahead, id, admitted, deflate, node);
    async move {
        let end = connection.run().await;
        let session = connection.session.id();
        let user = connection.session.identity().user.as_str();
        let (code, reason) = (end.code.number(), &*end.reason);
        info!(%session, user, code, reason, "closed");
        if end.code == CloseCode::TooSlow {
            connection.node.metrics.outbox.overflows.inc();
        }
        counted.ended(code);
    }
}

/// A session that is counted as open, and as closed when this is dropped: by a panic too.
struct Counted {
    node: Arc<Node>,
    opened: Instant,
    /// Its close code: our own fault until another is known.
    code: u16,
}

impl Counted {
    fn new(node: Arc<Node>) -> Self {
        node.metrics.connections.opened.inc();
        node.metrics.connections.open.inc();
        Self {
            node,
            opened: Instant::now(),
            code: CloseCode::InternalError.number(),
        }
    }

    fn ended(&mut self, code: u16) {
        self.code = code;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let connections = &self.node.metrics.connections;
        connections.open.dec();
        connections.closed.of(self.code.to_string()).inc();
        connections.duration.observe(self.opened.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::Outbox;

    fn size_of_future<F: Future>(
        _: impl FnOnce(TcpStream, BytesMut, Admitted, bool, Arc<Node>) -> F,
    ) -> usize {
        size_of::<F>()
    }

    /// What an idle session holds is mostly this. Its task was 4,000 bytes while it was an `async fn`.
    #[test]
    fn a_session_that_waits_is_small() {
        let (task, outbox) = (size_of_future(run), size_of::<Outbox>());
        assert!(task <= 1_440, "the task takes {task} bytes");
        assert!(outbox <= 336, "the outbox takes {outbox} bytes");
    }
}
