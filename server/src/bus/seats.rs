//! Seats over all nodes: who else has sessions of a user.
//!
//! A session is seated by its own node at once, by what that node knows. Then its node asks all others, by one core
//! message, what sessions of the user they have, and a second later decides by the rules of [`fleet`] whether
//! somebody has to yield: the newcomer, or another, whose node is told. A session of the same `device` yields as
//! soon as the question is heard.
//!
//! The seats of other nodes are known only for this one decision, from answers of nodes that live. So a dead node,
//! or one that is cut off, holds no seat, with no lease that has to run out first; nothing is stored, and it works
//! without JetStream. The price is a message to each node for each session that begins. While NATS can't be
//! reached nobody answers, and everybody is let in.
//!
//! [`fleet`]: crate::limits::fleet

use std::{
    collections::{HashMap, VecDeque},
    future::pending,
    sync::Arc,
    time::Duration,
};

use async_nats::Message;
use futures_util::StreamExt;
use rivulet_protocol::subject::UserId;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tracing::debug;

use super::{
    commands::Asker,
    connect::{Link, NODES},
};
use crate::{
    limits::{
        fleet::{Known, Place, who_yields},
        seats::{Arrival, Seats},
    },
    metrics::Metrics,
};

/// Where all are asked.
const ALL: &str = "rivulet.node.all";
/// How long answers are waited for. Nobody waits for the decision, so it is far more than an answer takes.
const GATHER: Duration = Duration::from_secs(1);
/// The most newcomers for whom answers are waited for, about 500 bytes each. One more is let in.
const GATHERING: usize = 65_536;
/// The most sessions of one user that an answer names: some 100 bytes each.
const NAMED: usize = 1_000;

/// What one node says to another, or to all.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "lowercase")]
enum Letter {
    /// Who has sessions of this user? To all.
    Who {
        user: Box<str>,
        newcomer: Place,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device: Option<Box<str>>,
    },
    /// I have, at least one. To the node that asked.
    Have { newcomer: u64, sessions: Vec<Known> },
    /// This session of yours has to go. To its node.
    Yield { user: Box<str>, id: u64 },
}

/// A newcomer for whom answers are waited for.
struct Gathering {
    arrival: Arrival,
    others: Vec<Known>,
}

/// Talks to the other nodes for ever.
pub(super) async fn share(seats: Arc<Seats>, asker: Asker, metrics: Arc<Metrics>) {
    if let (Some(arrivals), Some(link)) = (seats.arrivals(), asker.link().await)
        && let Err(fault) = run(seats, link, metrics, arrivals).await
    {
        debug!(%fault, "seats are counted on this node alone");
    }
    pending::<()>().await;
}

async fn run(
    seats: Arc<Seats>,
    link: Link,
    metrics: Arc<Metrics>,
    arrivals: mpsc::Receiver<Arrival>,
) -> Result<(), async_nats::SubscribeError> {
    let mut table = Table {
        seats,
        link,
        metrics,
        gathering: HashMap::new(),
        due: VecDeque::new(),
    };
    table.run(arrivals).await
}

/// Where one node is told something.
fn node_subject(node: &str) -> String {
    format!("{NODES}.to.{node}")
}

struct Table {
    seats: Arc<Seats>,
    link: Link,
    metrics: Arc<Metrics>,
    gathering: HashMap<u64, Gathering>,
    /// When each of those is decided, in order.
    due: VecDeque<(Instant, u64)>,
}

impl Table {
    async fn run(&mut self, mut arrivals: mpsc::Receiver<Arrival>) -> Result<(), async_nats::SubscribeError> {
        let client = &self.link.client;
        let mut to_all = client.subscribe(ALL).await?;
        let mut to_us = client.subscribe(node_subject(self.seats.node())).await?;
        loop {
            let next = self.due.front().map_or_else(Instant::now, |(due, _)| *due);
            tokio::select! {
                Some(arrival) = arrivals.recv() => self.ask(arrival).await,
                Some(letter) = to_all.next() => self.read(letter).await,
                Some(letter) = to_us.next() => self.read(letter).await,
                () = sleep_until(next), if !self.due.is_empty() => self.decide().await,
                // The connection is closed for good: the node ends.
                else => return Ok(()),
            }
        }
    }

    /// Asks all nodes about a newcomer.
    async fn ask(&mut self, arrival: Arrival) {
        if !self.link.is_connected() || self.gathering.len() >= GATHERING {
            self.metrics.connections.unasked.inc();
            return;
        }
        let letter = Letter::Who {
            user: arrival.user.as_str().into(),
            newcomer: arrival.place.clone(),
            device: arrival.device.clone(),
        };
        self.send(ALL.to_owned(), &letter).await;
        if arrival.devices == 0 {
            return;
        }
        self.due.push_back((Instant::now() + GATHER, arrival.place.id));
        let gathering = Gathering {
            arrival,
            others: Vec::new(),
        };
        self.gathering.insert(gathering.arrival.place.id, gathering);
    }

    async fn read(&mut self, message: Message) {
        let letter = match serde_json::from_slice(&message.payload) {
            Ok(letter) => letter,
            Err(fault) => {
                debug!(subject = %message.subject, %fault, "what a node says of seats can't be read");
                return;
            }
        };
        match letter {
            Letter::Who { newcomer, .. } if *newcomer.node == *self.seats.node() => {}
            Letter::Who {
                user,
                newcomer,
                device,
            } => {
                let Ok(user) = UserId::parse(&user) else { return };
                if let Some(device) = device {
                    let replaced = self.seats.replace(&user, &device, &newcomer);
                    self.metrics.connections.yielded.inc_by(replaced as u64);
                }
                let mut sessions = self.seats.of_user(&user, Instant::now());
                if sessions.is_empty() {
                    return;
                }
                sessions.truncate(NAMED);
                let answer = Letter::Have {
                    newcomer: newcomer.id,
                    sessions,
                };
                self.send(node_subject(&newcomer.node), &answer).await;
            }
            Letter::Have { newcomer, sessions } => {
                // After the decision it is too late.
                if let Some(gathering) = self.gathering.get_mut(&newcomer) {
                    gathering.others.extend(sessions);
                }
            }
            Letter::Yield { user, id } => {
                if let Ok(user) = UserId::parse(&user)
                    && self.seats.yield_one(&user, id)
                {
                    self.metrics.connections.yielded.inc();
                }
            }
        }
    }

    /// Decides for those whose time has come.
    async fn decide(&mut self) {
        let now = Instant::now();
        while let Some((_, id)) = self.due.pop_front_if(|(due, _)| *due <= now) {
            let Some(Gathering { arrival, others }) = self.gathering.remove(&id) else {
                continue;
            };
            if others.is_empty() {
                // On one node its own rules have been applied.
                continue;
            }
            let Arrival {
                user, place, devices, ..
            } = arrival;
            let mut all = self.seats.of_user(&user, now);
            all.extend(others);
            for place in who_yields(all, &place, devices) {
                if *place.node == *self.seats.node() {
                    if self.seats.yield_one(&user, place.id) {
                        self.metrics.connections.yielded.inc();
                    }
                } else {
                    let letter = Letter::Yield {
                        user: user.as_str().into(),
                        id: place.id,
                    };
                    self.send(node_subject(&place.node), &letter).await;
                }
            }
        }
    }

    async fn send(&self, subject: String, letter: &Letter) {
        let letter = serde_json::to_vec(letter).expect("a letter has no maps");
        // Fails only when the connection is closed for good.
        let _ = self.link.client.publish(subject, letter.into()).await;
    }
}
