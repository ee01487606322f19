//! The loop of one socket, from `connected` to the close.

use std::{future::poll_fn, mem, pin::pin, sync::Arc, task::Poll, time::SystemTime};

use bytes::BytesMut;
use rivulet_protocol::close::CloseCode;
use tokio::{
    net::{TcpStream, tcp::OwnedReadHalf},
    task::yield_now,
    time::{Instant, sleep_until},
};
use ulid::Ulid;

use super::{
    Node,
    deadlines::Deadlines,
    handshake::{Admitted, Places},
    keepalive::{Due, Keepalive},
    parting::part,
    pending::{Done, Pending},
    read::poll_read,
    resume,
    session::{Next, Pull, Session},
};
use crate::{
    limits::seats::ClientKind,
    metrics::Held,
    outbox::{Bounds, Closing, Flushed, Framing, Outbox},
    websocket::{Decoder, Incoming, ProtocolError, close_frame, ping_frame, pong_frame},
};

/// A socket and its session.
pub(super) struct Connection {
    /// The socket; its other half is the outbox's.
    reader: OwnedReadHalf,
    /// Read and not yet decoded; without an allocation while the client is silent.
    input: BytesMut,
    decoder: Decoder,
    pub(super) session: Session,
    outbox: Arc<Outbox>,
    places: Places,
    keepalive: Keepalive,
    deadlines: Deadlines,
    /// Commands in flight, the check of a token or of a position, a read of the past: what ends by itself and
    /// then has an answer.
    pending: Pending,
    commands_in_flight: usize,
    /// Nothing is read while a new token or a position is checked, so that what follows it comes after it.
    refreshing: bool,
    /// What waits for room in the socket: which batch, and how much of it was left when its deadline was set.
    blocked: Option<(u64, usize)>,
    /// The node drains and our time has come: nothing more is asked of a backend.
    leaving: bool,
    /// A ping of ours was sent: one pong is the answer.
    pinged: bool,
    pub(super) node: Arc<Node>,
}

/// How a connection ends.
enum End {
    /// We say why, and wait for the client's answer.
    Close(Closing),
    /// The client said so; we answer.
    Closed { code: u16 },
    /// The socket broke.
    Lost,
}

impl Connection {
    /// Seats the session; its `connected` is on the way.
    pub(super) fn open(
        stream: TcpStream,
        read_ahead: BytesMut,
        id: Ulid,
        admitted: Admitted,
        deflate: bool,
        node: Arc<Node>,
    ) -> Self {
        let now = Instant::now();
        let (reader, writer) = stream.into_split();
        let bounds = Bounds {
            events: node.sessions.outbox_events,
            bytes: node.sessions.outbox_bytes,
        };
        let framing = Framing::new(&node.sessions, deflate, admitted.kind == ClientKind::V1);
        let outbox = Arc::new(Outbox::new(bounds, framing, writer));
        let deadlines = Deadlines {
            written: None,
            leave: None,
            replay: admitted.resume.is_some().then(|| now + node.replay_deadline),
            ..Deadlines::of_token(&admitted.identity, now)
        };
        let (session, places) = Session::open(id, admitted, Arc::clone(&outbox), Arc::clone(&node), now);
        let evicted = Arc::clone(&outbox);
        places.seat.on_eviction(move |code, reason| {
            evicted.close(Closing {
                code,
                reason: reason.into(),
            });
        });
        Self {
            reader,
            input: read_ahead,
            decoder: Decoder::new(node.limits.max_message_bytes).with_deflate(deflate),
            session,
            outbox,
            places,
            keepalive: Keepalive::new(node.sessions.heartbeat, now),
            deadlines,
            pending: Pending::default(),
            commands_in_flight: 0,
            refreshing: false,
            blocked: None,
            leaving: false,
            pinged: false,
            node,
        }
    }

    /// Runs until the end and takes leave. Returns what the end is counted as.
    pub(super) async fn run(&mut self) -> Closing {
        let closing = match self.serve().await {
            End::Close(closing) => closing,
            End::Closed { code } => {
                self.leave(code, "", false).await;
                return Closing {
                    code: CloseCode::Normal,
                    reason: format!("client said {code}").into(),
                };
            }
            End::Lost => return CloseCode::Abnormal.into(),
        };
        // It does not read; only a frame that has begun must be finished for the close to be one.
        let at_once = matches!(closing.code, CloseCode::TooSlow | CloseCode::HeartbeatMissed);
        self.leave(closing.code.number(), &closing.reason, at_once).await;
        closing
    }

    async fn serve(&mut self) -> End {
        let mut shutdown = self.node.shutdown.clone();
        let mut draining = false;
        // Both are kept from turn to turn: to begin either anew takes a lock that all connections share.
        let mut told = pin!(shutdown.draining());
        let mut alarm = pin!(sleep_until(self.keepalive.next()));
        loop {
            if self.leaving && self.commands_in_flight == 0 {
                // What is in flight ends by its own deadline.
                self.outbox.close(CloseCode::GoingAway);
            }
            let more = match self.receive() {
                Ok(more) => more,
                Err(end) => return end,
            };
            if let Err(end) = self.flush() {
                return end;
            }
            if more && self.may_receive() {
                continue;
            }
            let passed = self.blocked.is_none() && self.pull();
            let reads = self.may_receive();
            // A deadline that was put off is looked at when the alarm rings, and only then set anew.
            let due = self.deadlines.next(&self.keepalive);
            if due < alarm.deadline() || alarm.is_elapsed() {
                alarm.as_mut().reset(due);
            }
            let blocked = self.blocked.is_some();
            let (reader, input, outbox) = (&mut self.reader, &mut self.input, &self.outbox);
            let socket = poll_fn(|context| {
                let writes = blocked && reader.as_ref().poll_write_ready(context).is_ready();
                if writes || outbox.poll_roused(context).is_ready() {
                    return Poll::Ready(None);
                }
                match reads {
                    true => poll_read(reader, input, context).map(Some),
                    false => Poll::Pending,
                }
            });
            tokio::select! {
                biased;
                done = self.pending.next() => self.finish(done),
                spread = &mut told, if !draining => {
                    draining = true;
                    let wait = spread.mul_f64(rand::random());
                    self.session.draining(wait.as_millis() as u64);
                    self.deadlines.leave = Some(Instant::now() + wait);
                }
                read = socket => match read {
                    // There is something to flush, or room for it.
                    None => {}
                    Some(Ok(0) | Err(_)) => return End::Lost,
                    Some(Ok(bytes)) => {
                        self.node.metrics.messages.bytes_received.inc_by(bytes as u64);
                        let now = Instant::now();
                        self.keepalive.heard(now);
                        self.places.seat.heard(now);
                        // The alarm has no turn while the client never stops talking.
                        if due <= now
                            && let Some(closing) = self.ring(now)
                        {
                            return End::Close(closing);
                        }
                    }
                },
                // Other connections have their turn between two looks at the past.
                () = yield_now(), if passed => {}
                () = &mut alarm => {
                    if let Some(closing) = self.ring(Instant::now()) {
                        return End::Close(closing);
                    }
                }
            }
        }
    }

    /// Whether there is room to act on what the client says.
    fn may_receive(&self) -> bool {
        !self.refreshing
            && !self.leaving
            && self.commands_in_flight < self.node.commands.in_flight
            && self.outbox.takes_answers()
    }

    /// Acts on what was read, as far as there is room. Returns whether there may be more of it.
    fn receive(&mut self) -> Result<bool, End> {
        let mut more = !self.input.is_empty();
        while more && self.may_receive() {
            let refused = |error: ProtocolError| {
                let code = CloseCode::ALL
                    .iter()
                    .copied()
                    .find(|code| code.number() == error.close_code());
                let code = code.unwrap_or(CloseCode::ProtocolError);
                End::Close(Closing {
                    code,
                    reason: error.to_string().into(),
                })
            };
            let Some(incoming) = self.decoder.decode(&mut self.input).map_err(refused)? else {
                more = false;
                break;
            };
            let now = Instant::now();
            match incoming {
                Incoming::Text(text) => match self.session.receive(text.as_str(), now) {
                    Next::Continue => {}
                    Next::Ask { id, command } => {
                        let in_flight = Held::of(&self.node.metrics.commands.in_flight);
                        self.commands_in_flight += 1;
                        let answer = self.node.backend.ask(command);
                        let done = async move {
                            let outcome = answer.await;
                            drop(in_flight);
                            Done::Command {
                                id,
                                asked: now,
                                outcome,
                            }
                        };
                        self.pending.push(done);
                    }
                    Next::Resume {
                        id,
                        patterns,
                        position,
                    } => {
                        self.refreshing = true;
                        let node = Arc::clone(&self.node);
                        let user = self.session.identity().user.clone();
                        let done = async move {
                            let located = resume::locate(&node, &user, position).await;
                            Done::Resume {
                                id,
                                patterns,
                                located,
                            }
                        };
                        self.pending.push(done);
                    }
                    Next::Refresh { id, token } => {
                        self.refreshing = true;
                        let auth = Arc::clone(&self.node.auth);
                        let done = async move {
                            let checked = auth
                                .check(&token, SystemTime::now())
                                .await
                                .map_err(|error| error.to_body());
                            Done::Refresh { id, checked }
                        };
                        self.pending.push(done);
                    }
                },
                Incoming::Binary(_) => return Err(End::Close(CloseCode::UnsupportedData.into())),
                Incoming::Pong(_) if mem::take(&mut self.pinged) => {}
                Incoming::Ping(_) | Incoming::Pong(_) if !self.session.charge_ping(now) => {
                    return Err(End::Close(CloseCode::PolicyViolation.into()));
                }
                Incoming::Ping(payload) => self.outbox.push_pong(pong_frame(&payload)),
                Incoming::Pong(_) => {}
                Incoming::Close { code, .. } => {
                    return Err(End::Closed {
                        code: code.unwrap_or(CloseCode::Normal.number()),
                    });
                }
            }
        }
        if self.input.is_empty() {
            // What a burst was read into must not stay with an idle session.
            self.input = BytesMut::new();
        }
        Ok(more)
    }

    /// Lets a session that replays go on, once all that it has appended is written. Returns whether it went on.
    fn pull(&mut self) -> bool {
        if !self.session.is_replaying() || !self.outbox.has_room_for_a_step() {
            return false;
        }
        match self.session.pull() {
            Pull::Passed => true,
            Pull::Waits => false,
            Pull::Read(past) => {
                self.pending.push(async { Done::Past(past.await) });
                false
            }
        }
    }

    /// Writes what waits, as far as the socket takes it.
    ///
    /// # Errors
    /// How the connection ends: when all that was to be sent before is written, or at once where the client does
    /// not read.
    fn flush(&mut self) -> Result<(), End> {
        let flushed = self.outbox.flush(&mut self.node.metrics.sent());
        self.blocked = match flushed {
            Flushed::Written => None,
            Flushed::Blocked { batch, left } => match self.blocked {
                Some((same, _)) if same == batch => self.blocked,
                _ => {
                    self.deadlines.written = Some(Instant::now() + self.node.sessions.write_deadline);
                    Some((batch, left))
                }
            },
            Flushed::Closing(closing) => return Err(End::Close(closing)),
            Flushed::Lost => return Err(End::Lost),
        };
        if self.blocked.is_none() {
            self.deadlines.written = None;
        } else if let Some(closing) = self.outbox.closing()
            && closing.code == CloseCode::TooSlow
        {
            // What is being written may never end.
            return Err(End::Close(closing));
        }
        Ok(())
    }

    /// Acts on what ended by itself.
    fn finish(&mut self, done: Done) {
        match done {
            Done::Command { id, asked, outcome } => {
                self.commands_in_flight -= 1;
                self.node
                    .metrics
                    .commands
                    .duration
                    .observe(asked.elapsed().as_secs_f64());
                self.session.answer(id.as_deref(), &outcome);
            }
            Done::Refresh { id, checked } => {
                self.refreshing = false;
                if self.session.refreshed(id.as_deref(), checked) {
                    let of_token = Deadlines::of_token(self.session.identity(), Instant::now());
                    self.deadlines.token_expiring = of_token.token_expiring;
                    self.deadlines.token_expired = of_token.token_expired;
                }
            }
            Done::Resume {
                id,
                patterns,
                located,
            } => {
                self.refreshing = false;
                self.session.resume(id.as_deref(), patterns, located);
                self.deadlines.replay = Some(Instant::now() + self.node.replay_deadline);
            }
            Done::Past(past) => self.session.read_back(past),
        }
    }

    /// Acts on the clock. Returns why the session ends, where it does at once.
    fn ring(&mut self, now: Instant) -> Option<Closing> {
        let deadlines = &mut self.deadlines;
        let due = |deadline: &mut Option<Instant>| deadline.take_if(|deadline| *deadline <= now).is_some();
        if due(&mut deadlines.written)
            && let Some((batch, before)) = self.blocked
        {
            if !self.session.is_replaying() {
                return Some(CloseCode::TooSlow.into());
            }
            // Nothing waits for a replay but its own events: it may be slow, if it gets anywhere.
            let left = self.outbox.backlog();
            if left >= before {
                return Some(stuck("the replay made no progress"));
            }
            self.blocked = Some((batch, left));
            deadlines.written = Some(now + self.node.sessions.write_deadline);
        }
        if due(&mut deadlines.replay) && self.session.is_replaying() {
            return Some(stuck("the replay took too long"));
        }
        if due(&mut deadlines.token_expired) {
            return Some(Closing {
                code: CloseCode::Unauthorized,
                reason: "token expired".into(),
            });
        }
        if due(&mut deadlines.token_expiring) {
            self.session.token_expiring();
        }
        self.leaving |= due(&mut deadlines.leave);
        self.keepalive.said(self.outbox.said());
        match self.keepalive.due(now) {
            Due::Nothing => {}
            Due::GiveUp if self.may_receive() => return Some(CloseCode::HeartbeatMissed.into()),
            // Nothing is read just now, so nothing could be heard.
            Due::GiveUp => self.keepalive.heard(now),
            Due::Probe => self.pinged |= self.outbox.push_ping(ping_frame(b"")),
            Due::Say if self.session.kind() == ClientKind::V1 => self.session.heartbeat(),
            Due::Say => {}
        }
        None
    }

    /// Says why we part. With `at_once`, what waits is not sent.
    async fn leave(&mut self, code: u16, reason: &str, at_once: bool) {
        let mut last = self.outbox.seal(at_once);
        last.push(close_frame(code, reason));
        part(&mut self.reader, &mut self.input, last).await;
    }
}

/// How a replay that comes to nothing ends: the client resumes from where it got to.
fn stuck(reason: &'static str) -> Closing {
    Closing {
        code: CloseCode::TryAgainLater,
        reason: reason.into(),
    }
}
