//! One loop per socket: from its outbox to the WebSocket codec, and back.
//!
//! A connection passes through types: a [`handshake::Hello`] becomes [`handshake::Admitted`] or a refusal, what
//! was admitted becomes a [`session::Session`], and when that ends, a [`Closing`] is said and waited for.
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

pub mod handshake;
mod keepalive;
pub mod resume;
pub mod session;

use std::{
    future::{pending, poll_fn},
    io, mem,
    net::Shutdown as Direction,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use bytes::BytesMut;
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use rivulet_protocol::{
    catalog::Catalog, close::CloseCode, error::ErrorBody, message::ServerMessage, pattern::Pattern,
    validate::Validator,
};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpStream, tcp::OwnedReadHalf},
    task::yield_now,
    time::{Instant, sleep_until, timeout},
};
use tracing::info;
use ulid::Ulid;

use self::{
    handshake::{Admitted, Places, Refusal},
    keepalive::{Due, Keepalive},
    resume::Resume,
    session::{Next, Pull, ReadBack, Session},
};
use crate::{
    auth::Auth,
    command::{Backend, Outcome},
    config,
    history::Archive,
    identity::Identity,
    limits::seats::ClientKind,
    metrics::Metrics,
    outbox::{Bounds, Closing, Flushed, Framing, Outbox},
    router::Router,
    shutdown::Shutdown,
    websocket::{
        Decoder, FrameWriter, Incoming, ProtocolError, close_frame, ping_frame, pong_frame, text_frame,
    },
};

/// How long the client may take to read what waits and the close frame, and then to answer it.
const CLOSE_GRACE: Duration = Duration::from_secs(2);
/// The lead of `token_expiring`: this, or a fifth of what the token still lasts, whichever is less.
const EXPIRY_LEAD: Duration = Duration::from_secs(60);

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
    node.metrics.connections.opened.inc();
    node.metrics.connections.open.inc();
    let opened = Instant::now();
    let mut connection = Connection::open(stream, read_ahead, id, admitted, deflate, node);
    async move {
        let end = connection.run().await;
        let session = connection.session.id();
        let user = connection.session.identity().user.as_str();
        let (code, reason) = (end.code.number(), &*end.reason);
        info!(%session, user, code, reason, "closed");
        let connections = &connection.node.metrics.connections;
        connections.closed.of(code.to_string()).inc();
        if end.code == CloseCode::TooSlow {
            connection.node.metrics.outbox.overflows.inc();
        }
        connections.open.dec();
        connections.duration.observe(opened.elapsed().as_secs_f64());
    }
}

/// Tells a `rivulet.v1` client that it may not, in frames: a browser can't read the status of a handshake. Takes
/// at most 2 s and keeps nothing.
pub async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, refusal: &Refusal) {
    let error = ServerMessage::Error(refusal.error.clone()).to_json(None);
    let Closing { code, reason } = refusal.closing();
    let mut writer = FrameWriter::new();
    writer.push(text_frame(&error));
    writer.push(close_frame(code.number(), &reason));
    let parting = async {
        writer.write(&mut stream).await?;
        stream.shutdown().await?;
        // Closing with bytes unread would reset the connection, and what we said could be lost with it.
        let mut discarded = [0; 1024];
        while stream.read(&mut discarded).await? > 0 {}
        io::Result::Ok(())
    };
    // Whatever comes of it, the connection is over.
    let _ = timeout(CLOSE_GRACE, parting).await;
}

struct Connection {
    /// The socket; its other half is the outbox's.
    reader: OwnedReadHalf,
    /// Read and not yet decoded; without an allocation while the client is silent.
    input: BytesMut,
    decoder: Decoder,
    session: Session,
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
    node: Arc<Node>,
}

/// What the clock has to bring, each at most once.
struct Deadlines {
    token_expiring: Option<Instant>,
    token_expired: Option<Instant>,
    /// Until when what is being written must have made progress.
    written: Option<Instant>,
    /// When this connection goes, once the node drains.
    leave: Option<Instant>,
    /// When a replay has taken too long.
    replay: Option<Instant>,
}

/// What ended by itself.
enum Done {
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
    fn open(
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
    async fn run(&mut self) -> Closing {
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
                        self.node.metrics.commands.in_flight.inc();
                        self.commands_in_flight += 1;
                        let answer = self.node.backend.ask(command);
                        let done = async move {
                            Done::Command {
                                id,
                                asked: now,
                                outcome: answer.await,
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
                self.node.metrics.commands.in_flight.dec();
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
            Due::Probe => {
                self.outbox.push_ping(ping_frame(b""));
                self.pinged = true;
            }
            Due::Say if self.session.kind() == ClientKind::V1 => self.session.heartbeat(),
            Due::Say => {}
        }
        None
    }

    /// Says why we part, waits for the answer, and lets go of the socket. With `at_once`, what waits is not sent.
    async fn leave(&mut self, code: u16, reason: &str, at_once: bool) {
        let mut last = self.outbox.seal(at_once);
        last.push(close_frame(code, reason));
        let parting = async {
            let socket = self.reader.as_ref();
            while !last.try_write(|slices| socket.try_write_vectored(slices))? {
                socket.writable().await?;
            }
            SockRef::from(socket).shutdown(Direction::Write)?;
            // Closing with bytes unread would reset the connection, and the close frame could be lost with it.
            loop {
                self.input.clear();
                let (reader, input) = (&mut self.reader, &mut self.input);
                if poll_fn(|context| poll_read(reader, input, context)).await? == 0 {
                    return io::Result::Ok(());
                }
            }
        };
        // Whatever comes of it, the connection is over.
        let _ = timeout(CLOSE_GRACE, parting).await;
    }
}

impl Deadlines {
    fn of_token(identity: &Identity, now: Instant) -> Self {
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

    fn next(&self, keepalive: &Keepalive) -> Instant {
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

/// How a replay that comes to nothing ends: the client resumes from where it got to.
fn stuck(reason: &'static str) -> Closing {
    Closing {
        code: CloseCode::TryAgainLater,
        reason: reason.into(),
    }
}

/// What is under way; without an allocation until something is, as for most connections nothing ever is.
#[derive(Default)]
struct Pending(Option<FuturesUnordered<BoxFuture<'static, Done>>>);

impl Pending {
    fn push(&mut self, future: impl Future<Output = Done> + Send + 'static) {
        self.0.get_or_insert_default().push(Box::pin(future));
    }

    /// The next to end; waits for ever while there is none.
    async fn next(&mut self) -> Done {
        match &mut self.0 {
            Some(running) if !running.is_empty() => running.select_next_some().await,
            _ => pending().await,
        }
    }
}

/// Appends what the socket has to `input`. While it has nothing, nothing is allocated for it: what is read goes
/// through a buffer of the thread.
fn poll_read(
    reader: &mut OwnedReadHalf,
    input: &mut BytesMut,
    context: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    use std::cell::RefCell;

    /// As much as one read takes; a client's message is at most 64 KiB and mostly far less.
    const CHUNK: usize = 16 << 10;
    thread_local! {
        static BUFFER: RefCell<Box<[u8; CHUNK]>> = RefCell::new(Box::new([0; CHUNK]));
    }
    BUFFER.with_borrow_mut(|buffer| {
        let mut filled = ReadBuf::new(&mut **buffer);
        std::task::ready!(Pin::new(reader).poll_read(context, &mut filled))?;
        input.extend_from_slice(filled.filled());
        Poll::Ready(Ok(filled.filled().len()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
