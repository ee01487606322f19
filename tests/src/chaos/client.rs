//! A client that behaves as the protocol tells an SDK to: connects, reads, obeys close codes, comes back with its
//! cursor. It never gives up while the run lasts, unless it is told not to come back.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use rivulet_protocol::pattern::Pattern;
use serde_json::json;
use socket2::SockRef;
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};

use super::{
    latency::Latency,
    record::{Cursor, Record},
    session::{Session, Then},
    socket::{Came, Socket},
};
use crate::token::token;

/// How long connecting and the handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// The first wait after a failure; doubled up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// The longest wait after failures in a row.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// How often a client that waits for the end asks how far it has got.
const ASK: Duration = Duration::from_millis(500);

/// Who a client is and how it goes about it.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Its number in the crowd.
    pub number: usize,
    /// Whose it is.
    pub user: String,
    /// What it wants.
    pub patterns: Arc<[Pattern]>,
    /// Where to connect: any of these.
    pub doors: Arc<[SocketAddr]>,
    /// Which of them first.
    pub first_door: usize,
    /// A cursor from before this run.
    pub cursor: Option<Cursor>,
    /// How long it takes over each frame.
    pub pace: Duration,
    /// Whether little fits on the way to it, so that a slow reader soon shows.
    pub narrow: bool,
    /// Whether it asks for compression.
    pub compressed: bool,
    /// What its chances are drawn from.
    pub seed: u64,
}

/// What a scenario asks of a client.
#[derive(Clone, Debug)]
pub enum Order {
    /// Drop the connection without a word.
    Drop,
    /// Add a pattern.
    Subscribe(Pattern),
    /// Take one away.
    Unsubscribe(Pattern),
    /// Drop the connection, stay away this long, and come back with these patterns.
    Return(Duration, Arc<[Pattern]>),
    /// Stop reading for this long, the connection open.
    Sleep(Duration),
}

/// How a client stands, for whoever watches.
#[derive(Debug, Default)]
pub struct Status {
    /// Whether it has a session.
    pub connected: AtomicBool,
    /// The last sequence that it has handled.
    pub seq: AtomicU64,
    /// Events that were new.
    pub events: AtomicU64,
    /// How often it connected.
    pub connects: AtomicU64,
    /// At which of its doors it is, or was last.
    pub door: AtomicUsize,
    /// Milliseconds since the start of the run of the last event that was new.
    last_event: AtomicU64,
    /// The longest time between two such, in milliseconds, since it was last asked.
    silence: AtomicU64,
}

impl Status {
    /// The longest silence since this was last asked, the one that lasts included.
    pub fn take_silence(&self, run: Instant) -> Duration {
        let now = run.elapsed().as_millis() as u64;
        let lasting = now.saturating_sub(self.last_event.swap(now, Ordering::Relaxed));
        Duration::from_millis(self.silence.swap(0, Ordering::Relaxed).max(lasting))
    }

    fn event(&self, run: Instant) {
        let now = run.elapsed().as_millis() as u64;
        let before = self.last_event.swap(now, Ordering::Relaxed);
        self.silence
            .fetch_max(now.saturating_sub(before), Ordering::Relaxed);
        self.events.fetch_add(1, Ordering::Relaxed);
    }
}

/// A client at work.
pub struct Client {
    profile: Profile,
    session: Session,
    random: SmallRng,
    /// The end of the run: where its cursor has to come to; it stops there.
    end: watch::Receiver<Option<Cursor>>,
    orders: mpsc::UnboundedReceiver<Order>,
    status: Arc<Status>,
    latency: Arc<Latency>,
    run: Instant,
    door: usize,
    failures: u32,
    wait: Option<Duration>,
}

/// How a connection ended.
enum Ended {
    /// The client is where it has to be.
    Done,
    /// Connect again: at once, later, or after what the router says.
    Again(Again),
    /// Don't, and why.
    Never(String),
}

enum Again {
    Now,
    Later,
    After(Duration),
}

impl Client {
    /// A client that begins when [`Client::run`] is polled; `run` is the start of the scenario.
    pub fn new(
        profile: Profile,
        end: watch::Receiver<Option<Cursor>>,
        orders: mpsc::UnboundedReceiver<Order>,
        (status, latency): (Arc<Status>, Arc<Latency>),
        run: Instant,
    ) -> Self {
        let session = Session::new(
            &profile.user,
            Arc::clone(&profile.patterns),
            profile.cursor.clone(),
        );
        Self {
            random: SmallRng::seed_from_u64(profile.seed),
            door: profile.first_door,
            profile,
            session,
            end,
            orders,
            status,
            latency,
            run,
            failures: 0,
            wait: None,
        }
    }

    /// Runs until the end is reached, or until `stop` says that it is too late.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Record {
        let fault = tokio::select! {
            fault = self.live() => fault,
            _ = stop.wait_for(|stop| *stop) => Some("did not come to the end in time".to_owned()),
        };
        self.status.connected.store(false, Ordering::Relaxed);
        self.session.record.cursor = self.session.cursor.clone();
        self.session.record.fault = fault;
        self.session.record
    }

    async fn live(&mut self) -> Option<String> {
        loop {
            let ended = match self.connect().await {
                Ok(mut socket) => {
                    let ended = self.converse(&mut socket).await;
                    self.session.record.inflated += socket.inflated;
                    ended
                }
                Err(_) => Ended::Again(Again::Later),
            };
            self.status.connected.store(false, Ordering::Relaxed);
            // Another door: this one failed or is about to close.
            self.door += 1;
            let wait = match ended {
                Ended::Done => return None,
                Ended::Never(why) => return Some(why),
                Ended::Again(Again::Now) => Duration::ZERO,
                Ended::Again(Again::After(told)) => told.mul_f64(self.random.random_range(1.0..1.3)),
                Ended::Again(Again::Later) => {
                    let most = FIRST_WAIT * 2u32.saturating_pow(self.failures.min(10));
                    self.failures += 1;
                    most.min(LONGEST_WAIT).mul_f64(self.random.random_range(0.5..1.0))
                }
            };
            sleep(wait).await;
        }
    }

    async fn connect(&mut self) -> std::io::Result<Socket> {
        let door = self.profile.doors[self.door % self.profile.doors.len()];
        let mut url = reqwest::Url::parse(&format!("ws://{door}/api/v1/ws")).expect("a URL");
        {
            let mut query = url.query_pairs_mut();
            let patterns: Vec<&str> = self.session.patterns.iter().map(Pattern::as_str).collect();
            query.append_pair("events", &patterns.join(","));
            query.append_pair("device", &format!("device-{}", self.profile.number));
            if let Some(cursor) = &self.session.cursor {
                query.append_pair("stream", &cursor.stream);
                query.append_pair("seq", &cursor.seq.to_string());
            }
        }
        let target = format!("{}?{}", url.path(), url.query().unwrap_or_default());
        let protocols = format!("rivulet.v1, bearer.{}", token(&self.profile.user));
        self.session.connecting();
        let attempt = async {
            let stream = reach(door, self.profile.narrow).await?;
            stream.set_nodelay(true)?;
            Socket::upgrade(stream, &target, &protocols, self.profile.compressed).await
        };
        timeout(HANDSHAKE, attempt).await?
    }

    /// One connection from its first frame to its end.
    async fn converse(&mut self, socket: &mut Socket) -> Ended {
        let mut heartbeat = HANDSHAKE;
        let mut heard = Instant::now();
        let mut leave: Option<Instant> = None;
        let mut asks = interval(ASK);
        asks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.wait = None;
        let mut end = self.end.clone();
        loop {
            if self.is_done() {
                let _ = timeout(Duration::from_millis(200), socket.close()).await;
                return Ended::Done;
            }
            let due = leave.unwrap_or(heard + heartbeat * 2 + Duration::from_secs(1));
            tokio::select! {
                frame = socket.next() => {
                    heard = Instant::now();
                    match frame {
                        Ok(Came::Text(text)) => match self.session.frame(&text) {
                            Ok(all) => {
                                for then in all {
                                    self.follow(then, &mut heartbeat, &mut leave);
                                }
                                if !self.profile.pace.is_zero() {
                                    sleep(self.profile.pace).await;
                                }
                            }
                            Err(error) => return Ended::Never(format!("not a frame: {error}: {text}")),
                        },
                        Ok(Came::Close(code, reason)) => return self.closed(code, &reason),
                        Ok(Came::Ping) => {}
                        Err(_) => return self.closed(1006, ""),
                    }
                }
                // Nothing for so long, or asked to leave.
                () = sleep_until(due) => {
                    return match leave {
                        Some(_) => self.again(Again::Now),
                        None => self.closed(1006, ""),
                    };
                }
                Some(order) = self.orders.recv() => match order {
                    Order::Drop => return self.again(Again::Now),
                    Order::Return(away, patterns) => {
                        self.session.patterns = patterns;
                        return self.again(Again::After(away));
                    }
                    Order::Sleep(how_long) => {
                        sleep(how_long).await;
                        heard = Instant::now();
                    }
                    Order::Subscribe(pattern) => {
                        if !self.session.patterns.contains(&pattern) {
                            let more = std::iter::once(pattern.clone());
                            self.session.patterns = self.session.patterns.iter().cloned().chain(more).collect();
                        }
                        self.say(socket, json!({ "type": "subscribe", "events": [pattern.as_str()] })).await;
                    }
                    Order::Unsubscribe(pattern) => {
                        let others = self.session.patterns.iter().filter(|other| **other != pattern);
                        self.session.patterns = others.cloned().collect();
                        self.say(socket, json!({ "type": "unsubscribe", "events": [pattern.as_str()] })).await;
                    }
                },
                Ok(()) = end.changed() => {}
                _ = asks.tick(), if end.borrow().is_some() => {
                    self.say(socket, json!({ "type": "ping" })).await;
                }
            }
        }
    }

    /// A failure to send shows when the socket is read.
    async fn say(&self, socket: &mut Socket, message: serde_json::Value) {
        let _ = timeout(HANDSHAKE, socket.say(&message.to_string())).await;
    }

    fn follow(&mut self, then: Then, heartbeat: &mut Duration, leave: &mut Option<Instant>) {
        match then {
            Then::Continue => {}
            Then::Event(made) => {
                self.status.event(self.run);
                if !self.profile.narrow {
                    self.latency.note(made);
                }
            }
            Then::Connected(every) => {
                *heartbeat = every;
                self.failures = 0;
                if self.status.connects.fetch_add(1, Ordering::Relaxed) > 0 {
                    self.session.record.reconnects += 1;
                }
                let door = self.door % self.profile.doors.len();
                self.status.door.store(door, Ordering::Relaxed);
                self.status.connected.store(true, Ordering::Relaxed);
            }
            Then::Leave(after) => *leave = Some(Instant::now() + after),
            Then::ComeBack(after) => self.wait = Some(after),
        }
        if let Some(cursor) = &self.session.cursor {
            self.status.seq.store(cursor.seq, Ordering::Relaxed);
        }
    }

    /// What the protocol (section 5) says about a close code.
    fn closed(&mut self, code: u16, reason: &str) -> Ended {
        *self.session.record.closes.entry(code).or_default() += 1;
        let told = serde_json::from_str::<serde_json::Value>(reason)
            .ok()
            .and_then(|reason| reason["retry_after"].as_f64())
            .map(Duration::from_secs_f64)
            .or(self.wait);
        match (code, told) {
            (1000..=1001, _) => self.again(Again::Now),
            (4401, _) => self.again(Again::Later),
            (1005 | 1006 | 1011 | 1013 | 4408 | 4413, None) => self.again(Again::Later),
            (1005 | 1006 | 1011 | 1013 | 4408 | 4413 | 4429, Some(after)) => self.again(Again::After(after)),
            _ => Ended::Never(format!("closed with {code} {reason}")),
        }
    }

    fn again(&self, again: Again) -> Ended {
        Ended::Again(again)
    }

    fn is_done(&self) -> bool {
        match (&*self.end.borrow(), &self.session.cursor) {
            (Some(end), Some(cursor)) => cursor.stream == end.stream && cursor.seq >= end.seq,
            _ => false,
        }
    }
}

/// Connects; narrow, with little room in both systems' buffers, which hold megabytes on loopback otherwise.
async fn reach(door: SocketAddr, narrow: bool) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if narrow {
        socket.set_recv_buffer_size(4096)?;
        SockRef::from(&socket).set_tcp_mss(536)?;
    }
    socket.connect(door).await
}
