//! What a session asks of a backend, and what comes of it.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use rivulet_protocol::{error::ErrorBody, subject::UserId};
use serde_json::value::RawValue;
use tokio::time::Instant;

/// A command that a session may ask: known, permitted and, where the catalogue has its schema, valid.
#[derive(Debug)]
pub struct Command {
    /// Its name: `create_blob`.
    pub name: String,
    /// Who asks; vouched for by the token.
    pub user: UserId,
    /// The client's id for it, at most 64 characters: one id is asked once.
    pub id: Option<String>,
    /// The bytes of `data`.
    pub data: Bytes,
    /// By when an answer counts.
    pub deadline: Instant,
}

/// What comes of a command.
#[derive(Debug)]
pub enum Outcome {
    /// The backend's result, its bytes untouched.
    Reply(Box<RawValue>),
    /// The backend's own error, its bytes untouched.
    Refused(Box<RawValue>),
    /// An error of the router's own.
    Failed(ErrorBody),
}

/// Where commands are answered.
pub trait Backend: Send + Sync + 'static {
    /// Asks, and always ends by the command's deadline.
    fn ask(&self, command: Command) -> BoxFuture<'static, Outcome>;
}
