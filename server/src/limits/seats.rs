//! How many sessions a user has at a time, and which one yields to a newcomer.
//!
//! Sessions that fell silent yield first, whatever they are. Then a plain newcomer is refused, as an evicted
//! plain session would reconnect at once and evict the next, for ever; a `rivulet.v1` newcomer takes the seat
//! of the user's oldest `rivulet.v1` session, as an SDK that is told so stays away.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rivulet_protocol::{close::CloseCode, subject::UserId};
use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, time::Instant};

use super::fleet::{Known, Place};

/// How many sessions may wait for the task that asks other nodes about them. It only takes them over.
const ARRIVALS: usize = 16_384;

/// What a client is able to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientKind {
    /// It asked for no subprotocol: one JSON object a frame, and it reconnects whatever it is told.
    Plain,
    /// `rivulet.v1`: it heeds close codes.
    V1,
}

/// The reason of the close of a session whose `device` came again.
pub const REPLACED: &str = "replaced";

/// What takes the place of the seat's holder: called once, with the code and the reason of the close.
pub type Eviction = Box<dyn FnOnce(CloseCode, &'static str) + Send>;

/// A newcomer found no seat: refuse it with 429 or 4429, without `retry_after`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("all {devices} seats of this user are taken")]
pub struct NoSeat {
    /// How many the user has.
    pub devices: usize,
}

/// Who wants a seat.
#[derive(Clone, Copy, Debug)]
pub struct Newcomer<'a> {
    /// The user.
    pub user: &'a UserId,
    /// What the client is able to be told.
    pub kind: ClientKind,
    /// The socket's owner, where the client names one: its former session yields.
    pub device: Option<&'a str>,
    /// The most sessions of the user, this one included; 0: any number.
    pub devices: usize,
}

/// A session that was seated: other nodes may have sessions of its user too.
#[derive(Debug)]
pub struct Arrival {
    /// The user.
    pub user: UserId,
    /// Which session.
    pub place: Place,
    /// The socket's owner, where the client names one.
    pub device: Option<Box<str>>,
    /// The most sessions of the user; 0: any number.
    pub devices: usize,
}

/// The seats of all users on this node.
pub struct Seats {
    /// For how long a live session may be silent.
    patience: Duration,
    origin: Instant,
    /// The origin, in microseconds since 1970.
    origin_unix: u64,
    /// A name for this node that no other has.
    node: Box<str>,
    arrivals: OnceLock<mpsc::Sender<Arrival>>,
    taken: Mutex<Taken>,
}

impl Seats {
    /// No seat is taken. A session that was silent for 1.5 × `heartbeat` has missed a whole one, however the
    /// network delayed the one before.
    /// The time is handed in twice: by the clock that only rises, and by the one that nodes share.
    pub fn new(heartbeat: Duration, now: Instant, shared_now: SystemTime) -> Arc<Self> {
        let origin_unix = shared_now.duration_since(UNIX_EPOCH).unwrap_or_default();
        Arc::new(Self {
            patience: heartbeat * 3 / 2,
            origin: now,
            origin_unix: origin_unix.as_micros() as u64,
            node: format!("{:016x}", rand::random::<u64>()).into(),
            arrivals: OnceLock::new(),
            taken: Mutex::default(),
        })
    }

    /// The name of this node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Every session seated from now on that may have to share seats with sessions of other nodes; at most 16,384
    /// wait, and more are not told. `None` for anyone but the first who asks.
    pub fn arrivals(&self) -> Option<mpsc::Receiver<Arrival>> {
        let (sender, arrivals) = mpsc::channel(ARRIVALS);
        self.arrivals.set(sender).ok().map(|()| arrivals)
    }

    /// The user's sessions on this node.
    pub fn of_user(&self, user: &UserId, now: Instant) -> Vec<Known> {
        let since_origin = self.since_origin(now);
        let taken = self.lock();
        let sessions = taken.users.get(user).into_iter().flatten();
        let known = |session: &Session| Known {
            place: self.place(session),
            kind: session.kind,
            silent: self.is_silent(session, since_origin),
        };
        sessions.map(known).collect()
    }

    /// Has the user's sessions of this device yield that were seated before `newcomer`, which is on another node.
    /// Says how many.
    pub fn replace(&self, user: &UserId, device: &str, newcomer: &Place) -> usize {
        let same =
            |session: &Session| session.device.as_deref() == Some(device) && self.place(session) < *newcomer;
        self.yield_where(user, REPLACED, same)
    }

    /// Has a session yield to one on another node. Says whether it was there.
    pub fn yield_one(&self, user: &UserId, id: u64) -> bool {
        let reason = CloseCode::TooManyConnections.reason();
        self.yield_where(user, reason, |session| session.id == id) > 0
    }

    fn yield_where(&self, user: &UserId, reason: &'static str, yields: impl Fn(&Session) -> bool) -> usize {
        let mut taken = self.lock();
        let Some(sessions) = taken.users.get_mut(user) else {
            return 0;
        };
        let yielding: Vec<Session> = sessions.extract_if(.., |session| yields(session)).collect();
        if sessions.is_empty() {
            taken.users.remove(user);
        }
        drop(taken);
        // Told without the lock, as what they do about it is not known here.
        for session in &yielding {
            session.holder.evict(reason);
        }
        yielding.len()
    }

    fn place(&self, session: &Session) -> Place {
        Place {
            since: self.origin_unix + session.since,
            node: self.node.clone(),
            id: session.id,
        }
    }

    /// Takes a seat, where needed from another session of the user, which is told through the [`Eviction`] of
    /// its seat.
    ///
    /// # Errors
    /// [`NoSeat`] if there is none and none to be had.
    pub fn take(self: &Arc<Self>, newcomer: Newcomer<'_>, now: Instant) -> Result<Seat, NoSeat> {
        let mut yielding = Vec::new();
        let mut taken = self.lock();
        let Taken { users, last_id } = &mut *taken;
        let sessions = users.entry(newcomer.user.clone()).or_default();

        if let Some(device) = newcomer.device {
            let same = |session: &mut Session| session.device.as_deref() == Some(device);
            yielding.extend(sessions.extract_if(.., same).map(|session| (session, REPLACED)));
        }
        let too_many = CloseCode::TooManyConnections.reason();
        let is_full = |sessions: &[Session]| newcomer.devices > 0 && sessions.len() >= newcomer.devices;
        while is_full(sessions)
            && let Some(silent) = self.most_silent(sessions, now)
        {
            yielding.push((sessions.swap_remove(silent), too_many));
        }
        let seated = if !is_full(sessions) {
            true
        } else if let (ClientKind::V1, Some(oldest)) = (newcomer.kind, oldest_v1(sessions)) {
            yielding.push((sessions.swap_remove(oldest), too_many));
            true
        } else {
            false
        };

        let seat = seated.then(|| {
            *last_id += 1;
            let since = now.saturating_duration_since(self.origin).as_micros() as u64;
            let holder = Arc::new(Holder::heard_at(self.since_origin(now)));
            let session = Session {
                id: *last_id,
                since,
                kind: newcomer.kind,
                device: newcomer.device.map(Into::into),
                holder: Arc::clone(&holder),
            };
            self.tell(&newcomer, &session);
            // Most users have one, and a vector begins with room for four.
            sessions.reserve_exact(1);
            sessions.push(session);
            Seat {
                seats: Arc::clone(self),
                user: newcomer.user.clone(),
                id: *last_id,
                holder,
            }
        });
        if sessions.is_empty() {
            users.remove(newcomer.user);
        }
        drop(taken);
        // Told without the lock, as what they do about it is not known here.
        for (session, reason) in yielding {
            session.holder.evict(reason);
        }
        seat.ok_or(NoSeat {
            devices: newcomer.devices,
        })
    }

    /// How many users have a session.
    pub fn users(&self) -> usize {
        self.lock().users.len()
    }

    fn tell(&self, newcomer: &Newcomer<'_>, session: &Session) {
        let Some(arrivals) = self.arrivals.get() else {
            return;
        };
        if newcomer.devices == 0 && newcomer.device.is_none() {
            return;
        }
        // Where no more can wait, it stays: whoever can't be counted is let in.
        let _ = arrivals.try_send(Arrival {
            user: newcomer.user.clone(),
            place: self.place(session),
            device: session.device.clone(),
            devices: newcomer.devices,
        });
    }

    fn most_silent(&self, sessions: &[Session], now: Instant) -> Option<usize> {
        let now = self.since_origin(now);
        (0..sessions.len())
            .filter(|index| self.is_silent(&sessions[*index], now))
            .min_by_key(|index| sessions[*index].holder.heard.load(Ordering::Relaxed))
    }

    fn is_silent(&self, session: &Session, since_origin: u64) -> bool {
        let heard = session.holder.heard.load(Ordering::Relaxed);
        u128::from(since_origin.saturating_sub(heard)) >= self.patience.as_millis()
    }

    /// In milliseconds.
    fn since_origin(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.origin).as_millis() as u64
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Seats {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Seats")
            .field("users", &self.users())
            .finish()
    }
}

/// A session's seat, held until this is dropped or it is given to another.
pub struct Seat {
    seats: Arc<Seats>,
    user: UserId,
    id: u64,
    holder: Arc<Holder>,
}

impl Seat {
    /// Something came from the client. Costs one relaxed store.
    pub fn heard(&self, now: Instant) {
        self.holder
            .heard
            .store(self.seats.since_origin(now), Ordering::Relaxed);
    }

    /// What to do when the seat is given to another; done at once if it already was, which may be between the
    /// handshake and the session's first step.
    pub fn on_eviction(&self, evict: impl FnOnce(CloseCode, &'static str) + Send + 'static) {
        let mut eviction = self.holder.lock();
        match *eviction {
            State::Evicted(reason) => {
                drop(eviction);
                evict(CloseCode::TooManyConnections, reason);
            }
            State::Seated(_) => *eviction = State::Seated(Some(Box::new(evict))),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        let Some(sessions) = taken.users.get_mut(&self.user) else {
            return;
        };
        if let Some(index) = sessions.iter().position(|session| session.id == self.id) {
            sessions.swap_remove(index);
        }
        if sessions.is_empty() {
            taken.users.remove(&self.user);
        }
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Seat")
            .field("user", &self.user)
            .field("id", &self.id)
            .finish()
    }
}

#[derive(Default)]
struct Taken {
    users: HashMap<UserId, Vec<Session>>,
    last_id: u64,
}

/// What is known of one session: in no order, as the ids tell the age.
struct Session {
    id: u64,
    /// When it was seated, in microseconds since the seats' origin.
    since: u64,
    kind: ClientKind,
    device: Option<Box<str>>,
    holder: Arc<Holder>,
}

fn oldest_v1(sessions: &[Session]) -> Option<usize> {
    (0..sessions.len())
        .filter(|index| sessions[*index].kind == ClientKind::V1)
        .min_by_key(|index| sessions[*index].id)
}

/// What seat and session share.
struct Holder {
    /// In milliseconds since the seats' origin.
    heard: AtomicU64,
    state: Mutex<State>,
}

enum State {
    Seated(Option<Eviction>),
    Evicted(&'static str),
}

impl Holder {
    fn heard_at(milliseconds: u64) -> Self {
        Self {
            heard: AtomicU64::new(milliseconds),
            state: Mutex::new(State::Seated(None)),
        }
    }

    fn evict(&self, reason: &'static str) {
        let before = std::mem::replace(&mut *self.lock(), State::Evicted(reason));
        if let State::Seated(Some(evict)) = before {
            evict(CloseCode::TooManyConnections, reason);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    const HEARTBEAT: Duration = Duration::from_secs(25);

    /// Sessions of one user, and what each was told.
    struct Room {
        seats: Arc<Seats>,
        start: Instant,
    }

    struct Guest {
        seat: Seat,
        told: Receiver<(CloseCode, &'static str)>,
    }

    impl Guest {
        fn told(&self) -> Option<&'static str> {
            self.told.try_recv().ok().map(|(code, reason)| {
                assert_eq!(code, CloseCode::TooManyConnections);
                reason
            })
        }
    }

    impl Room {
        fn new() -> Self {
            let start = Instant::now();
            Self {
                seats: Seats::new(HEARTBEAT, start, SystemTime::now()),
                start,
            }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        fn take(
            &self,
            kind: ClientKind,
            device: Option<&str>,
            devices: usize,
            now: Instant,
        ) -> Result<Guest, NoSeat> {
            let user = UserId::parse("u1").unwrap();
            let newcomer = Newcomer {
                user: &user,
                kind,
                device,
                devices,
            };
            let seat = self.seats.take(newcomer, now)?;
            let (tell, told) = channel();
            seat.on_eviction(move |code, reason| tell.send((code, reason)).unwrap());
            Ok(Guest { seat, told })
        }

        /// Five sessions, one a second, of these kinds.
        fn full(&self, kinds: [ClientKind; 5]) -> Vec<Guest> {
            let seconds = 0..;
            seconds
                .zip(kinds)
                .map(|(second, kind)| self.take(kind, None, 5, self.at(second)).unwrap())
                .collect()
        }
    }

    const P: ClientKind = ClientKind::Plain;
    const V: ClientKind = ClientKind::V1;

    #[test]
    fn who_yields() {
        const LIVE: [bool; 5] = [true; 5];
        let taken = "too many connections";
        type Row = ([ClientKind; 5], [bool; 5], ClientKind, Option<usize>, bool);
        #[rustfmt::skip]
        let table: &[Row] = &[
            // who is there     | who was heard lately               | newcomer | who yields | seated
            ([P, P, P, P, P],    LIVE,                                 P,         None,        false),
            ([P, P, P, P, P],    LIVE,                                 V,         None,        false),
            ([V, V, V, V, V],    LIVE,                                 P,         None,        false),
            ([V, V, V, V, V],    LIVE,                                 V,         Some(0),     true),
            ([P, P, V, P, V],    LIVE,                                 V,         Some(2),     true),
            ([P, P, V, P, V],    LIVE,                                 P,         None,        false),
            ([P, P, P, P, P],    [true, true, false, true, true],      P,         Some(2),     true),
            ([P, P, P, P, P],    [true, true, false, true, false],     V,         Some(2),     true),
            ([V, V, V, V, V],    [true, true, true, false, true],      V,         Some(3),     true),
            ([V, P, V, V, V],    [true, false, true, true, true],      V,         Some(1),     true),
            ([V, P, V, V, V],    [true, true, true, true, false],      P,         Some(4),     true),
        ];
        for (row, (kinds, heard, newcomer, yields, seated)) in table.iter().enumerate() {
            let room = Room::new();
            let guests = room.full(*kinds);
            let now = room.at(60);
            for (guest, heard) in guests.iter().zip(heard) {
                if *heard {
                    guest.seat.heard(now);
                }
            }
            assert_eq!(room.take(*newcomer, None, 5, now).is_ok(), *seated, "row {row}");
            for (index, guest) in guests.iter().enumerate() {
                let expected = (*yields == Some(index)).then_some(taken);
                assert_eq!(guest.told(), expected, "row {row}, session {index}");
            }
        }
    }

    #[test]
    fn silence_counts_from_one_and_a_half_heartbeats() {
        for (milliseconds, yields) in [(37_499, false), (37_500, true)] {
            let room = Room::new();
            let quiet = room.take(P, None, 1, room.start).unwrap();
            let now = room.start + Duration::from_millis(milliseconds);
            assert_eq!(room.take(P, None, 1, now).is_ok(), yields);
            assert_eq!(quiet.told().is_some(), yields);
        }
    }

    #[test]
    fn a_device_takes_its_own_seat_again() {
        for kind in [P, V] {
            let room = Room::new();
            let others = room.full([V, V, V, V, P]);
            drop(others.into_iter().next_back());
            let ghost = room.take(P, Some("tab-1"), 5, room.start).unwrap();
            let again = room.take(kind, Some("tab-1"), 5, room.start).unwrap();
            assert_eq!(ghost.told(), Some(REPLACED));
            assert_eq!(again.told(), None);
        }
    }

    #[test]
    fn another_users_device_is_another_device() {
        let room = Room::new();
        let ours = room.take(P, Some("tab-1"), 5, room.start).unwrap();
        let stranger = UserId::parse("u2").unwrap();
        let newcomer = Newcomer {
            user: &stranger,
            kind: V,
            device: Some("tab-1"),
            devices: 5,
        };
        let _theirs = room.seats.take(newcomer, room.start).unwrap();
        assert_eq!(ours.told(), None);
        assert_eq!(room.seats.users(), 2);
    }

    #[test]
    fn zero_devices_means_any_number() {
        let room = Room::new();
        let guests: Vec<_> = (0..100)
            .map(|_| room.take(P, None, 0, room.start).unwrap())
            .collect();
        assert!(guests.iter().all(|guest| guest.told().is_none()));
    }

    #[test]
    fn a_seat_is_free_again_once_dropped_and_nobody_is_remembered() {
        let room = Room::new();
        let guests = room.full([P; 5]);
        assert!(room.take(P, None, 5, room.at(5)).is_err());
        drop(guests);
        assert_eq!(room.seats.users(), 0);
        assert!(room.take(P, None, 5, room.at(5)).is_ok());
        assert_eq!(room.seats.users(), 0);
    }

    #[test]
    fn dropping_an_evicted_seat_leaves_its_successor_seated() {
        let room = Room::new();
        let first = room.take(V, None, 1, room.start).unwrap();
        let second = room.take(V, None, 1, room.start).unwrap();
        drop(first);
        assert!(room.take(P, None, 1, room.start).is_err());
        drop(second);
        assert!(room.take(P, None, 1, room.start).is_ok());
    }

    #[test]
    fn an_eviction_before_the_session_began_is_not_lost() {
        let room = Room::new();
        let user = UserId::parse("u1").unwrap();
        let newcomer = Newcomer {
            user: &user,
            kind: V,
            device: None,
            devices: 1,
        };
        let first = room.seats.take(newcomer, room.start).unwrap();
        let _second = room.seats.take(newcomer, room.start).unwrap();
        let (tell, told) = channel();
        first.on_eviction(move |code, reason| tell.send((code, reason)).unwrap());
        assert_eq!(
            told.try_recv(),
            Ok((CloseCode::TooManyConnections, "too many connections"))
        );
    }
}
