//! What a connection waits for beside its socket, and what comes of it.

use std::future::pending;

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use rivulet_protocol::{error::ErrorBody, pattern::Pattern};
use tokio::time::Instant;

use super::{resume::Resume, session::ReadBack};
use crate::{command::Outcome, identity::Identity};

/// What ended by itself.
pub(super) enum Done {
    Command {
        id: Option<String>,
        asked: Instant,
        outcome: Outcome,
    },
    Refresh {
        id: Option<String>,
        checked: Result<Identity, ErrorBody>,
    },
    Resume {
        id: Option<String>,
        patterns: Vec<Pattern>,
        located: Result<Resume, ErrorBody>,
    },
    Past(ReadBack),
}

/// What is under way; without an allocation until something is, as for most connections nothing ever is.
#[derive(Default)]
pub(super) struct Pending(Option<FuturesUnordered<BoxFuture<'static, Done>>>);

impl Pending {
    pub(super) fn push(&mut self, future: impl Future<Output = Done> + Send + 'static) {
        self.0.get_or_insert_default().push(Box::pin(future));
    }

    /// The next to end; waits for ever while there is none.
    pub(super) async fn next(&mut self) -> Done {
        match &mut self.0 {
            Some(running) if !running.is_empty() => running.select_next_some().await,
            _ => pending().await,
        }
    }
}
