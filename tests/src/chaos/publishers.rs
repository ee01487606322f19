//! Backends: they publish until JetStream acknowledges, again and again with the same message id.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use async_nats::{HeaderMap, connection::State, jetstream};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use rivulet_protocol::subject::EVERYONE_TOKEN;
use tokio::{
    sync::{Mutex, Semaphore, watch},
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval, timeout},
};

use super::{cluster::connect, latency};

/// Messages of one publisher that wait for their ack.
const IN_FLIGHT: usize = 512;
/// How long an ack may take before the message is sent again. Well below the duplicate window (2 min).
const ACK: Duration = Duration::from_secs(2);
/// How long to wait before a message is sent again.
const AGAIN: Duration = Duration::from_millis(200);
/// How long the last acks may take once the faults are over.
const LAST_ACKS: Duration = Duration::from_secs(60);

/// The types of events that are published.
pub const TYPES: [&str; 6] = [
    "blob.created",
    "blob.deleted",
    "processor.status",
    "book.created",
    "conversation.message",
    "conversation.read",
];

/// What is published.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// Events a second, of all publishers together.
    pub rate: u32,
    /// The users that events are for, from 0 on.
    pub users: usize,
    /// One event in this many is for everyone.
    pub everyone: u32,
    /// Bytes of text in an event.
    pub size: usize,
}

/// Publishers at work.
pub struct Publishers {
    tasks: Vec<JoinHandle<anyhow::Result<()>>>,
    stop: watch::Sender<bool>,
    shared: Arc<Shared>,
}

/// What they have come to.
#[derive(Debug, Default)]
pub struct Shared {
    next: AtomicU64,
    /// Acknowledged so far.
    pub acked: AtomicU64,
    /// Sent more than once.
    pub retried: AtomicU64,
    /// Every ack: the rig's number and the sequence that JetStream named.
    acks: Mutex<Vec<(u64, u64)>>,
}

/// The name of a user of the rig.
pub fn user(number: usize) -> String {
    format!("user-{number}")
}

impl Publishers {
    /// Starts `count` of them, which go on numbering where those before them ended.
    /// `by_user`: the user stands in the subject, for a feed by user, and not in the headers.
    pub fn start(
        urls: &[String],
        flow: Flow,
        by_user: bool,
        count: u32,
        seed: u64,
        shared: Arc<Shared>,
    ) -> Self {
        let stop = watch::Sender::new(false);
        let tasks = (0..count)
            .map(|number| {
                let publisher = Publisher {
                    urls: urls.to_vec(),
                    flow: Flow {
                        rate: (flow.rate / count).max(1),
                        ..flow
                    },
                    random: SmallRng::seed_from_u64(seed ^ (u64::from(number) << 32)),
                    by_user,
                    run: format!("{seed:x}"),
                    shared: Arc::clone(&shared),
                };
                tokio::spawn(publisher.run(stop.subscribe()))
            })
            .collect();
        Self { tasks, stop, shared }
    }

    /// Waits until `count` more events are acknowledged.
    pub async fn more(&self, count: u64) {
        let target = self.shared.acked.load(Ordering::Relaxed) + count;
        while self.shared.acked.load(Ordering::Relaxed) < target {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Has them stop, waits for the last acks, and returns all: the rig's number and the sequence.
    ///
    /// # Errors
    /// If acks don't come although the faults are over.
    pub async fn stop(self) -> anyhow::Result<Vec<(u64, u64)>> {
        self.stop.send_replace(true);
        for task in self.tasks {
            timeout(LAST_ACKS, task).await.context("the last acks")???;
        }
        Ok(std::mem::take(&mut *self.shared.acks.lock().await))
    }
}

struct Publisher {
    urls: Vec<String>,
    flow: Flow,
    by_user: bool,
    random: SmallRng,
    run: String,
    shared: Arc<Shared>,
}

impl Publisher {
    async fn run(mut self, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        let mut ways = Vec::new();
        for url in &self.urls {
            let client = connect(std::slice::from_ref(url)).await?;
            let mut context = jetstream::new(client.clone());
            context.set_timeout(ACK);
            ways.push(Way { client, context });
        }
        let ways: Arc<[Way]> = ways.into();
        let mut ticks = interval(Duration::from_secs(1) / self.flow.rate);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let room = Arc::new(Semaphore::new(IN_FLIGHT));
        let mut sending = JoinSet::new();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
            let permit = tokio::select! {
                permit = Arc::clone(&room).acquire_owned() => permit?,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let event = self.next_event();
            let (ways, shared) = (Arc::clone(&ways), Arc::clone(&self.shared));
            sending.spawn(async move {
                let ack = event.publish(&ways, &shared).await;
                drop(permit);
                let mut acks = shared.acks.lock().await;
                acks.push(ack);
                shared.acked.fetch_add(1, Ordering::Relaxed);
            });
            while sending.try_join_next().is_some() {}
        }
        while let Some(sent) = sending.join_next().await {
            sent?;
        }
        Ok(())
    }

    fn next_event(&mut self) -> Event {
        let id = 1 + self.shared.next.fetch_add(1, Ordering::Relaxed);
        let everyone = self.random.random_ratio(1, self.flow.everyone);
        let user = user(self.random.random_range(0..self.flow.users));
        let event_type = TYPES[self.random.random_range(0..TYPES.len())];
        let token = if everyone { EVERYONE_TOKEN } else { &user };
        Event {
            id,
            subject: match self.by_user {
                true => format!("{event_type}.{token}"),
                false => event_type.to_owned(),
            },
            message_id: format!("{}-{id}", self.run),
            everyone,
            data: data(event_type, &user, id, self.flow.size),
        }
    }
}

/// A connection to one server: a frozen one then stops only what goes by it.
struct Way {
    client: async_nats::Client,
    context: jetstream::Context,
}

struct Event {
    id: u64,
    subject: String,
    message_id: String,
    everyone: bool,
    data: String,
}

impl Event {
    /// Publishes until it is acknowledged.
    async fn publish(self, ways: &[Way], shared: &Shared) -> (u64, u64) {
        for attempt in 0.. {
            if attempt > 0 {
                shared.retried.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(AGAIN).await;
            }
            let turn = self.id as usize + attempt;
            let all = (0..ways.len()).map(|step| &ways[(turn + step) % ways.len()]);
            let connected = |way: &&Way| way.client.connection_state() == State::Connected;
            let Some(way) = all.into_iter().find(connected) else {
                continue;
            };
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", self.message_id.as_str());
            if self.everyone {
                headers.insert("Rivulet-Audience", "everyone");
            }
            let payload = self.data.clone().into();
            let attempt = async {
                let sent = way
                    .context
                    .publish_with_headers(self.subject.clone(), headers, payload)
                    .await;
                sent.ok()?.await.ok()
            };
            if let Ok(Some(ack)) = timeout(ACK, attempt).await {
                return (self.id, ack.sequence);
            }
        }
        unreachable!("it is tried for ever")
    }
}

/// The data of a valid event with the rig's number `n`.
pub fn data(subject: &str, user: &str, n: u64, size: usize) -> String {
    let text = "x".repeat(size);
    let time = "2026-01-01T00:00:00Z";
    let own = match subject {
        "blob.created" => format!(
            r#""blob_id":"b{n}","processor_id":"p","schema_id":"s","preview":"{text}","created_at":"{time}""#
        ),
        "blob.deleted" => format!(r#""blob_id":"b{n}","deleted_at":"{time}","note":"{text}""#),
        "processor.status" => format!(
            r#""blob_id":"b{n}","processor_id":"p","status":"processing","progress":0.5,"message":"{text}""#
        ),
        "book.created" => format!(r#""book_id":"b{n}","title":"{text}""#),
        "conversation.message" => format!(
            r#""conversation_id":"c","message_id":"m{n}","author_id":"a","text":"{text}","sent_at":"{time}""#
        ),
        _ => format!(
            r#""conversation_id":"c","message_id":"m{n}","reader_id":"r","read_at":"{time}","note":"{text}""#
        ),
    };
    let made = latency::now();
    format!(r#"{{"user_id":"{user}","n":{n},"made":{made},{own}}}"#)
}
