//! Whose events a node takes: with a feed by user, those of users that are here; else everybody's.
//!
//! A user is here from the first session on until 5 minutes after the last, and fewer where too many linger: who
//! comes back soon finds the recent past in memory.
//!
//! **The one rule.** Who comes is entered *before* the session learns the router's position. The feed looks at
//! who is here and moves that position under the same lock. So whatever stands after a session's first position
//! was looked at with its user here.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rivulet_protocol::subject::{EVERYONE_TOKEN, UserId};
use tokio::sync::Notify;

/// How long a user stays here after the last session.
const LINGER: Duration = Duration::from_secs(300);
/// The most users that stay without a session; the first who left goes first.
const LINGERING: usize = 10_000;

/// The users of a node.
#[derive(Debug)]
pub struct Presence {
    by_user: AtomicBool,
    users: Mutex<Users>,
    /// Somebody came who was not here.
    pub came: Notify,
}

/// What is known of them.
#[derive(Debug, Default)]
pub struct Users {
    /// How far the feed has dispatched.
    last: u64,
    here: HashMap<UserId, User>,
    /// How many users that are here have this mark.
    marks: HashMap<u64, usize>,
    /// Who came since this was last asked.
    new: Vec<UserId>,
    /// Who has no session, in the order in which they left, each once: who comes back is taken out.
    left: BTreeMap<u64, (Instant, UserId)>,
    /// The number of the last who left.
    departures: u64,
}

#[derive(Debug)]
struct User {
    sessions: usize,
    since: Arc<AtomicU64>,
    /// The number in the order of those who left.
    left: Option<u64>,
}

/// A user's being here, until the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Here(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    presence: Arc<Presence>,
    user: UserId,
    since: Arc<AtomicU64>,
}

/// What stands for a user in the stream's index: 64 bits of the subject's token, by FNV-1a, never 0. Two users
/// may share one: then a node looks at an event that is not its own, and no more.
pub fn mark(token: &str) -> u64 {
    let hash = token.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.max(1)
}

impl Default for Presence {
    /// Everybody is here.
    fn default() -> Self {
        Self::new(false)
    }
}

impl Presence {
    /// Nobody is here yet; or, where the feed is not by user, everybody.
    pub fn new(by_user: bool) -> Self {
        Self {
            by_user: AtomicBool::new(by_user),
            users: Mutex::default(),
            came: Notify::new(),
        }
    }

    /// From now on everybody is here: there is no stream that a feed by user could read. To be called before the
    /// first session.
    pub fn admit_all(&self) {
        self.by_user.store(false, Ordering::Relaxed);
        *self.lock() = Users::default();
    }

    fn is_by_user(&self) -> bool {
        self.by_user.load(Ordering::Relaxed)
    }

    /// Enters a user. To be called before the session learns its position, and not under the router's lock.
    pub fn enter(self: &Arc<Self>, user: &UserId) -> Here {
        if !self.is_by_user() {
            return Here(None);
        }
        let mut users = self.lock();
        let last = users.last;
        let known = users.here.contains_key(user);
        if !known {
            *users.marks.entry(mark(&user.escaped())).or_default() += 1;
            users.new.push(user.clone());
        }
        let entry = users.here.entry(user.clone()).or_insert_with(|| User {
            sessions: 0,
            since: Arc::new(AtomicU64::new(last)),
            left: None,
        });
        entry.sessions += 1;
        let since = Arc::clone(&entry.since);
        if let Some(number) = entry.left.take() {
            users.left.remove(&number);
        }
        drop(users);
        if !known {
            self.came.notify_one();
        }
        Here(Some(Arc::new(Inner {
            presence: Arc::clone(self),
            user: user.clone(),
            since,
        })))
    }

    /// The sequence after which the events of the first of those who are here come; the greatest number where nobody is.
    /// Walks over all of them.
    pub fn since_first(&self) -> u64 {
        let users = self.lock();
        let since = users.here.values().map(|user| user.since.load(Ordering::Relaxed));
        since.min().unwrap_or(u64::MAX)
    }

    /// From which sequence on memory has all of a user's events; the greatest there is for one who is not here.
    pub fn since(&self, user: &UserId) -> u64 {
        if !self.is_by_user() {
            return 0;
        }
        let users = self.lock();
        let user = users.here.get(user);
        user.map_or(u64::MAX, |user| user.since.load(Ordering::Relaxed))
    }

    /// Who is here, for as long as the feed looks at it and moves the router's position.
    pub fn lock(&self) -> MutexGuard<'_, Users> {
        // Nothing under the lock leaves a change half made.
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, user: &UserId) {
        let now = Instant::now();
        let mut users = self.lock();
        let users = &mut *users;
        let Some(entry) = users.here.get_mut(user) else {
            return;
        };
        entry.sessions -= 1;
        if entry.sessions == 0 {
            users.departures += 1;
            entry.left = Some(users.departures);
            users.left.insert(users.departures, (now, user.clone()));
        }
    }
}

impl Here {
    /// From which sequence on memory has all of the user's events.
    pub fn since(&self) -> u64 {
        let inner = self.0.as_ref();
        inner.map_or(0, |inner| inner.since.load(Ordering::Relaxed))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.presence.leave(&self.user);
    }
}

impl Users {
    /// Whether an event with this mark may concern somebody here.
    pub fn concerns(&self, mark: u64) -> bool {
        self.marks.contains_key(&mark)
    }

    /// Notes how far the feed has dispatched.
    pub fn at(&mut self, seq: u64) {
        self.last = seq;
    }

    /// Notes that sequences begin anew after `seq`: memory does too.
    pub fn begin(&mut self, seq: u64) {
        self.last = seq;
        self.marks.entry(mark(EVERYONE_TOKEN)).or_insert(1);
        for user in self.here.values() {
            user.since.store(0, Ordering::Relaxed);
        }
    }

    /// Who came since this was last asked.
    pub fn take_new(&mut self) -> Vec<UserId> {
        std::mem::take(&mut self.new)
    }

    /// Lets those go who left long ago, or too many; says who.
    pub fn sweep(&mut self, now: Instant) -> Vec<UserId> {
        let mut gone = Vec::new();
        loop {
            let many = self.left.len() > LINGERING;
            let Some(first) = self.left.first_entry() else {
                return gone;
            };
            if !many && now.duration_since(first.get().0) < LINGER {
                return gone;
            }
            let (_, user) = first.remove();
            self.here.remove(&user);
            let mark = mark(&user.escaped());
            if let Some(count) = self.marks.get_mut(&mark) {
                *count -= 1;
                if *count == 0 {
                    self.marks.remove(&mark);
                }
            }
            gone.push(user);
        }
    }

    /// How many users are here, and how many of them have no session.
    pub fn count(&self) -> (usize, usize) {
        (self.here.len(), self.left.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: &str) -> UserId {
        UserId::parse(id).unwrap()
    }

    fn mark_of(id: &str) -> u64 {
        mark(&user(id).escaped())
    }

    #[test]
    fn a_user_is_here_until_long_after_the_last_session() {
        let presence = Arc::new(Presence::new(true));
        presence.lock().begin(7);
        assert!(presence.lock().concerns(mark(EVERYONE_TOKEN)));
        assert_eq!(presence.since(&user("a.b")), u64::MAX);
        let one = presence.enter(&user("a.b"));
        presence.lock().at(9);
        let other = presence.enter(&user("a.b"));
        assert_eq!(
            (one.since(), other.since(), presence.since(&user("a.b"))),
            (7, 7, 7)
        );
        assert_eq!(presence.lock().take_new(), [user("a.b")]);
        drop((one, other.clone()));
        assert_eq!(presence.lock().count(), (1, 0));
        drop(other);
        let now = Instant::now();
        assert_eq!(presence.lock().count(), (1, 1));
        assert!(presence.lock().sweep(now).is_empty() && presence.lock().concerns(mark_of("a.b")));
        // Who comes back in time was never away.
        drop(presence.enter(&user("a.b")));
        assert_eq!(presence.since(&user("a.b")), 7);
        let later = Instant::now() + LINGER;
        assert_eq!(presence.lock().sweep(later), [user("a.b")]);
        assert!(!presence.lock().concerns(mark_of("a.b")));
        assert_eq!(presence.lock().count(), (0, 0));
        assert_eq!(presence.enter(&user("a.b")).since(), 9);
    }

    #[test]
    fn no_more_linger_than_may() {
        let presence = Arc::new(Presence::new(true));
        for number in 0..LINGERING + 3 {
            drop(presence.enter(&user(&number.to_string())));
        }
        let gone = presence.lock().sweep(Instant::now());
        assert_eq!(gone, ["0", "1", "2"].map(user));
        assert_eq!(presence.lock().count(), (LINGERING, LINGERING));
    }

    #[test]
    fn who_comes_and_goes_all_the_time_is_kept_once() {
        let presence = Arc::new(Presence::new(true));
        let stays = presence.enter(&user("b"));
        for _ in 0..1_000 {
            drop(presence.enter(&user("a")));
            drop(presence.enter(&user("b")));
        }
        assert_eq!(presence.lock().left.len(), 1);
        drop(stays);
        assert_eq!(presence.lock().left.len(), 2);
    }

    #[test]
    fn with_the_whole_feed_everybody_is_here() {
        let presence = Arc::new(Presence::default());
        assert_eq!(
            (presence.since(&user("a")), presence.enter(&user("a")).since()),
            (0, 0)
        );
        assert_eq!(presence.lock().count(), (0, 0));
    }

    #[test]
    fn where_there_is_no_stream_to_read_by_user_nobody_is_entered() {
        let presence = Arc::new(Presence::new(true));
        presence.admit_all();
        let here = presence.enter(&user("a"));
        assert_eq!((here.since(), presence.since(&user("b"))), (0, 0));
        drop(here);
        let mut users = presence.lock();
        assert_eq!((users.count(), users.take_new()), ((0, 0), Vec::new()));
    }
}
