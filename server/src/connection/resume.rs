//! Whether a session can go on from a position that its client asks for.

use std::{sync::Arc, time::Duration};

use rivulet_protocol::{
    error::{ErrorBody, ErrorCode},
    scalar::SafeInteger,
    subject::UserId,
};
use tokio::{sync::OwnedSemaphorePermit, time::sleep};

use super::Node;
use crate::router::Asked;

/// When a client comes again for whom there was no room to replay, in seconds: a replay takes a few of them.
const RETRY_AFTER: f64 = 5.0;
/// How long until the leader is asked a second time about a position that is beyond its head: a deposed one
/// learns of it in that time.
const SECOND_OPINION: Duration = Duration::from_millis(300);

/// A position that a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumePosition {
    /// The epoch.
    pub stream: String,
    /// The last sequence that it has handled.
    pub seq: u64,
}

impl ResumePosition {
    /// Reads `stream` and `seq` of the query, which come together or not at all.
    ///
    /// # Errors
    /// What is wrong with which of the two.
    pub fn from_query(stream: Option<String>, seq: Option<&str>) -> Result<Option<Self>, ErrorBody> {
        let fault =
            |field: &str, text: &str| Err(ErrorBody::new(ErrorCode::InvalidMessage, text).field(field));
        match (stream, seq) {
            (None, None) => Ok(None),
            (None, Some(_)) => fault("stream", "`seq` means nothing without `stream`"),
            (Some(_), None) => fault("seq", "`stream` means nothing without `seq`"),
            (Some(stream), Some(seq)) => {
                match seq.parse().ok().filter(|seq| SafeInteger::new(*seq).is_some()) {
                    Some(seq) => Ok(Some(Self { stream, seq })),
                    None => fault("seq", "`seq` is a whole number from 0 to 2^53 - 1"),
                }
            }
        }
    }
}

/// A position from which a replay may begin.
#[derive(Debug)]
pub struct Resume {
    pub(super) asked: Asked,
    /// Held while the past is read from farther back than memory.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

/// Finds out what has to be known of a user's position before a replay begins.
///
/// # Errors
/// What the client is told instead: too many replay from the stream already, or a position ahead of this node
/// can't be judged as the stream's leader does not answer.
pub(super) async fn locate(
    node: &Node,
    user: &UserId,
    position: ResumePosition,
) -> Result<Resume, ErrorBody> {
    let ResumePosition { stream, seq } = position;
    let here = node.router.position(user);
    let resumes = &node.metrics.history.resumes;
    let mut head = 0;
    if here.epoch.as_deref() == Some(&*stream) && here.seq < Some(seq) {
        // Another node may be ahead of this one; only the stream's leader can say.
        head = leader_head(node, &stream).await?;
        if head < seq {
            sleep(SECOND_OPINION).await;
            head = leader_head(node, &stream).await?;
        }
    }
    let reached = node.router.reaches(user, &stream, seq, head);
    let found = |past| resumes.of(if reached { past } else { "gone" }).inc();
    let permit = match node.router.remembers(user, &stream, seq) {
        true => {
            found("memory");
            None
        }
        false => {
            let permit = node.archive.admit().ok_or_else(|| {
                ErrorBody::new(
                    ErrorCode::RateLimited,
                    "too many clients read the past just now; try again",
                )
                .retry_after(RETRY_AFTER)
            })?;
            found("stream");
            Some(permit)
        }
    };
    Ok(Resume {
        asked: Asked {
            epoch: Arc::from(stream),
            seq,
            head,
        },
        permit,
    })
}

async fn leader_head(node: &Node, stream: &str) -> Result<u64, ErrorBody> {
    match node.archive.head().await {
        Some((epoch, head)) if *epoch == *stream => Ok(head),
        // Made anew, and this node has not heard of it: it will, and says so.
        Some(_) => Ok(0),
        None => Err(ErrorBody::new(
            ErrorCode::Unavailable,
            "the stream's leader does not say where the stream stands; try again",
        )
        .retry_after(1.0)),
    }
}
