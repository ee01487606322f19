//! How a session gets its events: as they happen, or out of the past until it has caught up.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use rivulet_protocol::{
    error::{ErrorBody, ErrorCode},
    pattern::Pattern,
};
use tokio::sync::OwnedSemaphorePermit;

use super::{Refusal, Session, frames::last};
use crate::{
    connection::resume::Resume,
    encoded::Encoded,
    history::Segment,
    metrics::Held,
    router::{Asked, Interest, Position, Registration, Replay, Step},
};

/// How a session gets its events.
#[derive(Debug)]
pub(super) enum Phase {
    /// The router pushes them.
    Live(Registration),
    /// It pulls them out of the past until it has caught up.
    Replaying(Box<Replaying>),
}

#[derive(Debug)]
pub(super) struct Replaying {
    replay: Replay,
    /// Leave to read from farther back than memory, once it was needed.
    permit: Option<OwnedSemaphorePermit>,
    /// Whether the past is being read for it.
    reads: bool,
    /// Whether it is to be decided first where it begins.
    undecided: bool,
    /// Whether the client asked for it and is told of its end.
    asked: bool,
    _counted: Held,
}

/// What came of a pull.
pub enum Pull {
    /// The session went on.
    Passed,
    /// Something else has to end before.
    Waits,
    /// The past has to be read first; what comes of it goes to [`Session::read_back`].
    Read(BoxFuture<'static, ReadBack>),
}

/// A part of the past, or nothing: then the session looks again whether it still needs it.
pub struct ReadBack {
    permit: OwnedSemaphorePermit,
    segment: Option<Arc<Segment>>,
}

impl Replaying {
    /// A replay that goes on from here on.
    pub(super) fn new(
        replay: Replay,
        permit: Option<OwnedSemaphorePermit>,
        asked: bool,
        counted: Held,
    ) -> Box<Self> {
        Box::new(Self {
            replay,
            permit,
            reads: false,
            undecided: false,
            asked,
            _counted: counted,
        })
    }
}

impl Phase {
    pub(super) fn mark(&self, frame: impl FnOnce(&Position) -> Encoded) {
        match self {
            Self::Live(registration) => registration.mark(frame),
            Self::Replaying(replaying) => replaying.replay.mark(frame),
        }
    }

    pub(super) fn change(&mut self, interest: Interest, frame: impl FnOnce(&Position) -> Encoded) {
        match self {
            Self::Live(registration) => registration.change(interest, frame),
            Self::Replaying(replaying) => replaying.replay.change(interest, frame),
        }
    }

    pub(super) fn permit(&mut self, interest: Interest) {
        match self {
            Self::Live(registration) => registration.permit(interest),
            Self::Replaying(replaying) => replaying.replay.permit(interest),
        }
    }
}

impl Session {
    /// Whether the session may set its position, and with which patterns. From here on it gets nothing until
    /// that is decided: an event handed over meanwhile would stand before those of the replay.
    pub(super) fn resumable(&mut self, events: Option<Vec<Pattern>>) -> Result<Vec<Pattern>, Refusal> {
        let patterns = events.unwrap_or_else(|| self.patterns.to_vec());
        self.permit(&patterns)?;
        self.bound(&patterns)?;
        if !self.outbox.hold_events() {
            let late = "resume comes before the first event was delivered";
            return Err(Refusal::Bad(ErrorBody::new(ErrorCode::InvalidMessage, late)));
        }
        // Should the position be refused, it goes on from where it began.
        if let (Phase::Live(_), Some(began)) = (&self.phase, self.began.clone()) {
            self.replay(began, None, false);
        }
        if let Phase::Replaying(replaying) = &mut self.phase {
            replaying.undecided = true;
        }
        Ok(patterns)
    }

    /// Goes on from a position with these patterns, or as before if it can't.
    pub fn resume(&mut self, id: Option<&str>, patterns: Vec<Pattern>, located: Result<Resume, ErrorBody>) {
        match located {
            Ok(Resume { asked, permit }) => {
                self.count_patterns(-1);
                self.patterns = patterns.into();
                self.count_patterns(1);
                self.replay(asked, permit, true);
            }
            Err(error) => {
                self.error(error, id);
                if let Phase::Replaying(replaying) = &mut self.phase {
                    replaying.undecided = false;
                }
                self.outbox.release();
            }
        }
    }

    fn replay(&mut self, from: Asked, permit: Option<OwnedSemaphorePermit>, asked: bool) {
        let interest = Interest::new(Arc::clone(&self.patterns), Arc::clone(&self.identity.events));
        let user = self.identity.user.clone();
        let replay = Replay::begin(
            Arc::clone(&self.node.router),
            user,
            interest,
            Arc::clone(&self.outbox),
            from,
        );
        let counted = Held::of(&self.node.metrics.history.replaying);
        self.phase = Phase::Replaying(Replaying::new(replay, permit, asked, counted));
        // After it has left the router: nothing joins them any more.
        self.outbox.withdraw_events();
    }

    /// Whether it pulls its events out of the past.
    pub fn is_replaying(&self) -> bool {
        matches!(self.phase, Phase::Replaying(_))
    }

    /// Goes on with its replay. To be called when no event waits in the outbox.
    pub fn pull(&mut self) -> Pull {
        let Phase::Replaying(replaying) = &mut self.phase else {
            return Pull::Waits;
        };
        if replaying.reads || replaying.undecided {
            return Pull::Waits;
        }
        let (kind, patterns, asked) = (self.kind, &self.patterns, replaying.asked);
        let step = replaying
            .replay
            .step(|position, replayed| asked.then(|| last(kind, patterns, position, replayed)));
        match step {
            Step::Moved => Pull::Passed,
            Step::Live(registration) => {
                self.phase = Phase::Live(registration);
                Pull::Passed
            }
            Step::Beyond { epoch, after, to } => {
                replaying.reads = true;
                let permit = replaying.permit.take();
                let archive = Arc::clone(&self.node.archive);
                Pull::Read(Box::pin(async move {
                    let permit = match permit {
                        Some(permit) => permit,
                        // It had begun in memory and was overtaken: it waits for its turn.
                        None => archive.admitted().await,
                    };
                    let segment = archive.segment(epoch, after, to).await;
                    ReadBack { permit, segment }
                }))
            }
        }
    }

    /// Takes what was read of the past.
    pub fn read_back(&mut self, past: ReadBack) {
        let ReadBack { permit, segment } = past;
        if let Phase::Replaying(replaying) = &mut self.phase {
            replaying.permit = Some(permit);
            replaying.reads = false;
            if let Some(segment) = segment {
                replaying.replay.read(segment);
            }
        }
    }
}
