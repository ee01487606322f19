//! All clients of a run, and what they have seen when it ends.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::bail;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};

use super::{
    client::{Client, Order, Profile, Status},
    latency::Latency,
    record::{Cursor, Record},
};

/// How long clients may take from the end of all faults to the end of the stream.
pub const CATCHING_UP: Duration = Duration::from_secs(90);

/// Clients at work.
pub struct Crowd {
    members: Vec<Member>,
    end: watch::Sender<Option<Cursor>>,
    stop: watch::Sender<bool>,
    run: Instant,
    /// From the publishers to all clients that are not narrow.
    pub latency: Arc<Latency>,
}

struct Member {
    status: Arc<Status>,
    orders: mpsc::UnboundedSender<Order>,
    task: JoinHandle<Record>,
}

/// What can be told of a crowd while it runs.
#[derive(Clone)]
pub struct Census(Vec<Arc<Status>>);

impl Crowd {
    /// One without members.
    pub fn new() -> Self {
        Self {
            members: Vec::new(),
            end: watch::Sender::new(None),
            stop: watch::Sender::new(false),
            run: Instant::now(),
            latency: Arc::default(),
        }
    }

    /// Adds a client, which connects at once.
    pub fn add(&mut self, profile: Profile) {
        let status = Arc::new(Status::default());
        let (orders, taken) = mpsc::unbounded_channel();
        let client = Client::new(
            profile,
            self.end.subscribe(),
            taken,
            (Arc::clone(&status), Arc::clone(&self.latency)),
            self.run,
        );
        let task = tokio::spawn(client.run(self.stop.subscribe()));
        self.members.push(Member { status, orders, task });
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// How a client stands.
    pub fn status(&self, client: usize) -> &Status {
        &self.members[client].status
    }

    /// Asks something of a client.
    pub fn order(&self, client: usize, order: Order) {
        // One that gave up is seen at the end.
        let _ = self.members[client].orders.send(order);
    }

    /// How it stands, for another task.
    pub fn census(&self) -> Census {
        Census(
            self.members
                .iter()
                .map(|member| Arc::clone(&member.status))
                .collect(),
        )
    }

    /// The longest silence that any of the first `clients` has heard since this was last asked.
    pub fn take_silence(&self, clients: usize) -> Duration {
        let silences = self.members.iter().take(clients);
        silences
            .map(|member| member.status.take_silence(self.run))
            .max()
            .unwrap_or_default()
    }

    /// Waits until every client has a session, and says how long that took.
    ///
    /// # Errors
    /// If they don't within `patience`.
    pub async fn connected(&self, patience: Duration) -> anyhow::Result<Duration> {
        let census = self.census();
        let connected = move || census.connected() == census.0.len();
        self.wait("clients don't connect", patience, connected).await
    }

    /// Waits until somebody had to connect again since there were `connects` sessions, and every client has one;
    /// says how long that took.
    ///
    /// # Errors
    /// If they don't within `patience`.
    pub async fn moved(&self, connects: u64, patience: Duration) -> anyhow::Result<Duration> {
        let census = self.census();
        let moved = move || census.connects() > connects && census.connected() == census.0.len();
        self.wait("clients don't come back", patience, moved).await
    }

    /// Waits until there were `connects` sessions in all, and says how long that took.
    ///
    /// # Errors
    /// If there are fewer after `patience`.
    pub async fn sessions(&self, connects: u64, patience: Duration) -> anyhow::Result<Duration> {
        let census = self.census();
        let there = move || census.connects() >= connects;
        self.wait("clients don't come back", patience, there).await
    }

    /// At which door each client is or was last, and how often it has connected.
    pub fn places(&self) -> Vec<(usize, u64)> {
        let place = |member: &Member| {
            let status = &member.status;
            (
                status.door.load(Ordering::Relaxed),
                status.connects.load(Ordering::Relaxed),
            )
        };
        self.members.iter().map(place).collect()
    }

    /// Waits until every client has handled this sequence, and says how long that took.
    ///
    /// # Errors
    /// If they don't within `patience`.
    pub async fn at(&self, seq: u64, patience: Duration) -> anyhow::Result<Duration> {
        let census = self.census();
        let there = move || {
            census
                .0
                .iter()
                .all(|status| status.seq.load(Ordering::Relaxed) >= seq)
        };
        self.wait("clients don't catch up", patience, there).await
    }

    async fn wait(
        &self,
        what: &str,
        patience: Duration,
        done: impl Fn() -> bool,
    ) -> anyhow::Result<Duration> {
        let began = Instant::now();
        while !done() {
            if began.elapsed() > patience {
                bail!(
                    "{what}: {} of {} have a session after {patience:?}",
                    self.census().connected(),
                    self.len()
                );
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(began.elapsed())
    }

    /// Lets every client come to `end`, and returns what they saw. Who is not there after [`CATCHING_UP`] is
    /// stopped, and its record says so.
    pub async fn finish(self, end: Cursor) -> Vec<Record> {
        self.end.send_replace(Some(end));
        let stop = self.stop;
        let late = tokio::spawn(async move {
            tokio::time::sleep(CATCHING_UP).await;
            stop.send_replace(true);
            // Kept, or clients could not tell its end from a stop.
            std::future::pending::<()>().await;
        });
        let mut records = Vec::new();
        for member in self.members {
            records.push(member.task.await.expect("a client does not panic"));
        }
        late.abort();
        records
    }
}

impl Default for Crowd {
    fn default() -> Self {
        Self::new()
    }
}

impl Census {
    /// How many have a session now.
    pub fn connected(&self) -> usize {
        let connected = |status: &&Arc<Status>| AtomicBool::load(&status.connected, Ordering::Relaxed);
        self.0.iter().filter(connected).count()
    }

    /// Events that were new, of all.
    pub fn events(&self) -> u64 {
        self.sum(|status| &status.events)
    }

    /// Sessions so far, of all.
    pub fn connects(&self) -> u64 {
        self.sum(|status| &status.connects)
    }

    fn sum(&self, of: impl Fn(&Status) -> &AtomicU64) -> u64 {
        self.0
            .iter()
            .map(|status| of(status).load(Ordering::Relaxed))
            .sum()
    }
}
