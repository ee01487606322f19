//! What a client says, and what that changes. No socket, no clock: text in, answers into the outbox.

mod frames;
mod replaying;

use std::sync::Arc;

use bytes::Bytes;
use rivulet_protocol::{
    close::CloseCode,
    error::{ErrorBody, ErrorCode},
    message::{self, ClientFrame, ClientRequest, Draining, Head, ServerMessage, Subscribed},
    pattern::Pattern,
    scalar::SafeInteger,
};
use tokio::time::Instant;
use ulid::Ulid;

pub use self::replaying::{Pull, ReadBack};
use self::{
    frames::{connected, subscribed, token_times},
    replaying::{Phase, Replaying},
};
use super::{
    Node,
    handshake::{Admitted, Places},
    resume::{Resume, ResumePosition},
};
use crate::{
    command::{Command, Outcome},
    encoded::Encoded,
    identity::Identity,
    limits::{
        rates::{Charge, Rates, TooManyBadMessages},
        seats::ClientKind,
    },
    metrics::Held,
    outbox::Outbox,
    router::{Asked, Interest, Position},
};

/// A session: admitted, its `connected` on the way. The state before it is [`Admitted`].
#[derive(Debug)]
pub struct Session {
    id: Ulid,
    identity: Identity,
    kind: ClientKind,
    patterns: Arc<[Pattern]>,
    opened: Instant,
    /// From the first message on: most sessions never say anything.
    rates: Option<Box<Rates>>,
    /// Where it stood when it began, if there is a stream.
    began: Option<Asked>,
    phase: Phase,
    outbox: Arc<Outbox>,
    node: Arc<Node>,
}

/// What the connection has to do after a client's message.
#[derive(Debug)]
pub enum Next {
    /// Read on.
    Continue,
    /// Ask a backend; the outcome goes to [`Session::answer`].
    Ask {
        /// The message's id.
        id: Option<String>,
        /// The command.
        command: Command,
    },
    /// Check a token and read nothing meanwhile; the result goes to [`Session::refreshed`].
    Refresh {
        /// The message's id.
        id: Option<String>,
        /// The token, never to be logged.
        token: String,
    },
    /// Find out about a position and read nothing meanwhile; the result goes to [`Session::resume`].
    Resume {
        /// The message's id.
        id: Option<String>,
        /// The patterns to put in force with it.
        patterns: Vec<Pattern>,
        /// The position.
        position: ResumePosition,
    },
}

impl Session {
    /// Registers what was admitted: from here on its events come, or from the position that it asked for. What
    /// was wrong in the query is said right after `connected`. What it takes up is the connection's to hold.
    pub fn open(
        id: Ulid,
        admitted: Admitted,
        outbox: Arc<Outbox>,
        node: Arc<Node>,
        now: Instant,
    ) -> (Self, Places) {
        let Admitted {
            identity,
            kind,
            patterns,
            resume,
            faults,
            places,
            ..
        } = admitted;
        let patterns: Arc<[Pattern]> = patterns.into();
        let mut began = None;
        let mut connected = |position: &Position, resumed: bool| {
            began = position
                .epoch
                .clone()
                .zip(position.seq)
                .map(|(epoch, seq)| Asked { epoch, seq, head: 0 });
            let message = connected(id, &identity, kind, &patterns, position, resumed, &node);
            Encoded::message(&ServerMessage::Connected(message), None)
        };
        let interest = Interest::new(Arc::clone(&patterns), Arc::clone(&identity.events));
        let (user, queue) = (identity.user.clone(), Arc::clone(&outbox));
        let phase = match resume {
            None => {
                let first = |position: &Position| connected(position, false);
                Phase::Live(node.router.register(user, interest, queue, first))
            }
            Some(Resume { asked, permit }) => {
                let counted = Held::of(&node.metrics.history.replaying);
                let replay = node.router.replay(user, interest, queue, asked, &mut connected);
                Phase::Replaying(Replaying::new(replay, permit, true, counted))
            }
        };
        let session = Self {
            id,
            identity,
            kind,
            patterns,
            opened: now,
            rates: None,
            began,
            phase,
            outbox,
            node,
        };
        session.count_patterns(1);
        for fault in faults {
            session.error(fault, None);
        }
        (session, places)
    }

    /// The session's id.
    pub fn id(&self) -> Ulid {
        self.id
    }

    /// Who it is of.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Which frames it takes.
    pub fn kind(&self) -> ClientKind {
        self.kind
    }

    /// Takes one text message.
    pub fn receive(&mut self, text: &str, now: Instant) -> Next {
        let ClientFrame { id, request } = ClientFrame::parse(text);
        let outcome = request
            .map_err(Refusal::Bad)
            .and_then(|request| self.perform(request, id.as_deref(), now));
        match outcome {
            Ok(next) => next,
            Err(refusal) => {
                let (error, tolerated) = match refusal {
                    Refusal::Bad(error) => (error, self.rates().bad_message(now)),
                    Refusal::No(error) => (error, Ok(())),
                };
                self.error(error, id.as_deref());
                if let Err(TooManyBadMessages) = tolerated {
                    self.outbox.close(CloseCode::PolicyViolation);
                }
                Next::Continue
            }
        }
    }

    fn perform(
        &mut self,
        request: ClientRequest<'_>,
        id: Option<&str>,
        now: Instant,
    ) -> Result<Next, Refusal> {
        let node = Arc::clone(&self.node);
        let (name, kind) = match &request {
            ClientRequest::Ping => ("ping", Charge::Ping),
            ClientRequest::Subscribe(_) => ("subscribe", Charge::Subscribe),
            ClientRequest::Unsubscribe(_) => ("unsubscribe", Charge::Subscribe),
            ClientRequest::Resume { .. } => ("resume", Charge::Other),
            ClientRequest::RefreshToken(_) => ("refresh_token", Charge::Other),
            ClientRequest::Command { name, .. } => (
                node.catalog
                    .command(name)
                    .map_or("other", |command| &command.name),
                Charge::Other,
            ),
        };
        node.metrics.messages.received.of(name.to_owned()).inc();
        self.rates().charge(kind, now).map_err(|wait| {
            node.metrics.messages.rate_limited.of(name.to_owned()).inc();
            // Rounded up to milliseconds: whoever waits that long passes.
            let seconds = (wait.as_secs_f64() * 1000.0).ceil() / 1000.0;
            Refusal::Bad(
                ErrorBody::new(
                    ErrorCode::RateLimited,
                    format!("too many `{name}` in too short a time"),
                )
                .retry_after(seconds),
            )
        })?;
        match request {
            ClientRequest::Ping => {
                self.phase.mark(|position| {
                    Encoded::message(
                        &ServerMessage::Pong(Head {
                            seq: position.wire_seq(),
                        }),
                        id,
                    )
                });
                self.sent("pong");
            }
            ClientRequest::Subscribe(added) => {
                self.permit(&added)?;
                let mut patterns = self.patterns.to_vec();
                for pattern in added {
                    if !patterns.contains(&pattern) {
                        patterns.push(pattern);
                    }
                }
                self.bound(&patterns)?;
                self.change(patterns, ServerMessage::Subscribed, id);
            }
            ClientRequest::Unsubscribe(removed) => {
                let kept = self
                    .patterns
                    .iter()
                    .filter(|pattern| !removed.contains(pattern))
                    .cloned()
                    .collect();
                self.change(kept, ServerMessage::Unsubscribed, id);
            }
            ClientRequest::Resume { stream, seq, events } => {
                let patterns = self.resumable(events)?;
                return Ok(Next::Resume {
                    id: id.map(str::to_owned),
                    patterns,
                    position: ResumePosition { stream, seq },
                });
            }
            ClientRequest::RefreshToken(token) => {
                return Ok(Next::Refresh {
                    id: id.map(str::to_owned),
                    token,
                });
            }
            ClientRequest::Command { name, data } => {
                let command = self.command(&name, data.map(|data| data.get()), id, now)?;
                return Ok(Next::Ask {
                    id: command.id.clone(),
                    command,
                });
            }
        }
        Ok(Next::Continue)
    }

    fn command(
        &self,
        name: &str,
        data: Option<&str>,
        id: Option<&str>,
        now: Instant,
    ) -> Result<Command, Refusal> {
        let Some(spec) = self.node.catalog.command(name) else {
            let shown: String = name.chars().take(MAX_SHOWN).collect();
            return Err(Refusal::Bad(
                ErrorBody::new(
                    ErrorCode::UnknownType,
                    format!("no message and no command is called `{shown}`"),
                )
                .field("type"),
            ));
        };
        if !self.identity.may_ask(name) {
            let text = format!("the token does not permit the command `{name}`");
            return Err(Refusal::No(ErrorBody::new(ErrorCode::Forbidden, text)));
        }
        let Some(data) = data else {
            return Err(Refusal::Bad(
                ErrorBody::new(ErrorCode::InvalidMessage, "`data` is missing: it is an object").field("data"),
            ));
        };
        self.node
            .validator
            .validate_command(name, data.as_bytes())
            .map_err(|violation| {
                let field = violation.field("data");
                Refusal::Bad(ErrorBody::new(ErrorCode::InvalidMessage, violation.message).field(field))
            })?;
        Ok(Command {
            name: spec.name.clone(),
            user: self.identity.user.clone(),
            id: id.map(str::to_owned),
            data: Bytes::copy_from_slice(data.as_bytes()),
            deadline: now + self.node.commands.deadline,
        })
    }

    /// Passes on what came of a command.
    pub fn answer(&self, id: Option<&str>, outcome: &Outcome) {
        let metrics = &self.node.metrics;
        match outcome {
            Outcome::Reply(data) => {
                metrics.commands.ended.of("reply").inc();
                self.sent("reply");
                self.outbox
                    .push_overtaking(Encoded::json(&message::passed_on_json("reply", data, id)));
            }
            Outcome::Refused(error) => {
                metrics.commands.ended.of("refused").inc();
                self.sent("error");
                self.outbox
                    .push_overtaking(Encoded::json(&message::passed_on_json("error", error, id)));
            }
            Outcome::Failed(error) => {
                metrics.commands.ended.of(error.code.clone()).inc();
                self.error(error.clone(), id);
            }
        }
    }

    /// Puts a new token's identity in the place of the old one, or says why not. Returns whether it did.
    pub fn refreshed(&mut self, id: Option<&str>, checked: Result<Identity, ErrorBody>) -> bool {
        let identity = match checked {
            Ok(identity) if identity.user == self.identity.user => identity,
            Ok(_) => {
                self.error(
                    ErrorBody::new(ErrorCode::Forbidden, "the new token is of another user"),
                    id,
                );
                return false;
            }
            Err(error) => {
                self.error(error, id);
                return false;
            }
        };
        self.identity = identity;
        if let Some(times) = token_times(&self.identity) {
            self.sent("token_refreshed");
            self.outbox
                .push_overtaking(Encoded::message(&ServerMessage::TokenRefreshed(times), id));
        }
        let kept: Vec<_> = self
            .patterns
            .iter()
            .filter(|pattern| self.may_subscribe(pattern))
            .cloned()
            .collect();
        if kept.len() < self.patterns.len() {
            self.change(kept, ServerMessage::Subscribed, None);
        } else {
            // The bare `*` means what the new token permits.
            let interest = Interest::new(kept.into(), Arc::clone(&self.identity.events));
            self.phase.permit(interest);
        }
        true
    }

    fn rates(&mut self) -> &Rates {
        let rates = || Box::new(Rates::new(&self.node.limits, self.opened));
        self.rates.get_or_insert_with(rates)
    }

    /// Charges a WebSocket ping, or a pong that nobody asked for: each costs what a `ping` costs. Returns whether it
    /// is tolerated.
    pub fn charge_ping(&mut self, now: Instant) -> bool {
        self.rates().charge(Charge::Ping, now).is_ok() || self.rates().bad_message(now).is_ok()
    }

    /// Says that the token ends soon.
    pub fn token_expiring(&self) {
        if let Some(times) = token_times(&self.identity) {
            self.sent("token_expiring");
            self.outbox
                .push_overtaking(Encoded::message(&ServerMessage::TokenExpiring(times), None));
        }
    }

    /// Says that nothing came, and up to where.
    pub fn heartbeat(&self) {
        self.sent("heartbeat");
        self.phase.mark(|position| {
            Encoded::message(
                &ServerMessage::Heartbeat(Head {
                    seq: position.wire_seq(),
                }),
                None,
            )
        });
    }

    /// Says that this node is going away.
    pub fn draining(&self, reconnect_after_ms: u64) {
        self.sent("draining");
        self.phase.mark(|position| {
            let draining = Draining {
                reconnect_after_ms: SafeInteger::new(reconnect_after_ms).unwrap_or_default(),
                stream: position.epoch.as_deref().map(str::to_owned),
                seq: position.wire_seq(),
            };
            Encoded::message(&ServerMessage::Draining(draining), None)
        });
    }

    /// Refuses patterns that the token does not permit. The name of a frame of the router's is no event type,
    /// so asking for it gives nothing away: plain clients subscribe to whatever they have a handler for.
    fn permit(&self, patterns: &[Pattern]) -> Result<(), Refusal> {
        match patterns
            .iter()
            .enumerate()
            .find(|(_, pattern)| !self.may_subscribe(pattern))
        {
            None => Ok(()),
            Some((index, pattern)) => Err(Refusal::No(
                ErrorBody::new(
                    ErrorCode::Forbidden,
                    format!("the token does not permit `{pattern}`"),
                )
                .field(format!("events[{index}]")),
            )),
        }
    }

    fn may_subscribe(&self, pattern: &Pattern) -> bool {
        message::is_frame_name(pattern.as_str()) || self.identity.may_subscribe(pattern)
    }

    fn bound(&self, patterns: &[Pattern]) -> Result<(), Refusal> {
        let most = self.node.limits.max_patterns;
        if patterns.len() <= most {
            return Ok(());
        }
        let text = format!("a session holds at most {most} patterns");
        Err(Refusal::No(
            ErrorBody::new(ErrorCode::TooManyPatterns, text).field("events"),
        ))
    }

    /// Puts other patterns in force and says so, in order with events.
    fn change(&mut self, patterns: Vec<Pattern>, message: fn(Subscribed) -> ServerMessage, id: Option<&str>) {
        self.count_patterns(-1);
        self.patterns = patterns.into();
        self.count_patterns(1);
        let interest = Interest::new(Arc::clone(&self.patterns), Arc::clone(&self.identity.events));
        self.phase.change(interest, |position| {
            Encoded::message(&message(subscribed(&self.patterns, position)), id)
        });
        self.sent("subscribed");
    }

    fn error(&self, error: ErrorBody, id: Option<&str>) {
        self.sent("error");
        self.node.metrics.messages.errors.of(error.code.clone()).inc();
        self.outbox
            .push_overtaking(Encoded::message(&ServerMessage::Error(error), id));
    }

    fn sent(&self, frame_type: &'static str) {
        self.node.metrics.messages.sent.of(frame_type).inc();
    }

    fn count_patterns(&self, sign: i64) {
        for pattern in self.patterns.iter() {
            let family = pattern.as_str().split('.').next().unwrap_or_default();
            let label = match family {
                "*" | ">" => "*",
                known if self.node.catalog.has_events_of(known) => known,
                _ => "other",
            };
            self.node
                .metrics
                .messages
                .subscriptions
                .of(label.to_owned())
                .inc_by(sign);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.count_patterns(-1);
    }
}

/// The most characters of a client's own text that an error repeats.
const MAX_SHOWN: usize = 64;

/// Why a message came to nothing, and what that counts for.
enum Refusal {
    /// The message is bad or one too many; more than a few of either a minute end the session.
    Bad(ErrorBody),
    /// The message is well-formed, the answer is no.
    No(ErrorBody),
}
