//! What all parts of a run know.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use rivulet_protocol::event::EventType;
use tokio::{sync::watch, time::Instant};

use super::{
    crowd::Crowd,
    dial::Target,
    plan::{Plan, Track},
    publish::Published,
};

/// A run: who, what and where.
pub(super) struct Run {
    pub(super) plan: Plan,
    pub(super) crowd: Crowd,
    pub(super) targets: Vec<Target>,
    pub(super) types: Vec<EventType>,
    /// As the query has them.
    pub(super) patterns: String,
    pub(super) sessions_per_user: usize,
    pub(super) plain: bool,
    pub(super) compress: bool,
    /// Before the number of a session's device.
    pub(super) device: String,
    /// How the data of this run's events begins, up to their number.
    pub(super) mark: Vec<u8>,
    /// Connections a second.
    pub(super) ramp: f64,
    /// Connections a second that are dropped and resumed; 0: none.
    pub(super) reconnect: f64,
    /// When the first session connects; all times are counted from here.
    pub(super) began: Instant,
    /// The first event that is measured: none, before the warm-up has passed.
    pub(super) measured_from: AtomicU64,
    pub(super) phase: watch::Receiver<Phase>,
}

/// Where a run stands.
#[derive(Clone)]
pub(super) enum Phase {
    /// Sessions connect, events come.
    Going,
    /// All is published: what is left is to come.
    Ending(Arc<Published>),
    /// Nothing is waited for any more.
    Over(Option<Arc<Published>>),
}

impl Run {
    pub(super) fn sessions(&self) -> usize {
        self.crowd.len() * self.sessions_per_user
    }

    /// Nanoseconds since the run began, by a clock that only goes forward.
    pub(super) fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    pub(super) fn device(&self, session: usize) -> String {
        format!("{}-{session}", self.device)
    }

    /// When a session connects.
    pub(super) fn connects_at(&self, session: usize) -> Instant {
        self.began + Duration::from_secs_f64(session as f64 / self.ramp)
    }

    /// When a session's connection is dropped next: each in turn, so many a second, once all stand.
    pub(super) fn cut_at(&self, session: usize) -> Option<Instant> {
        if self.reconnect == 0.0 {
            return None;
        }
        let all = self.sessions() as f64;
        let ramp = all / self.ramp;
        let (first, round) = (ramp + session as f64 / self.reconnect, all / self.reconnect);
        // A connection lives at least a moment, or nothing would be read of it.
        let now = self.began.elapsed().as_secs_f64() + 0.2;
        let rounds = ((now - first) / round).ceil().max(0.0);
        Some(self.began + Duration::from_secs_f64(first + rounds * round))
    }

    /// An event, for people.
    pub(super) fn event(&self, number: u64) -> String {
        let place = self.plan.place(number);
        let event_type = &self.types[self.plan.event_type(place)];
        let whom = match place.track {
            Track::Everyone => "everyone".to_owned(),
            Track::User(user) => format!("`{}`", self.crowd.user(user as usize).as_str()),
        };
        format!("event {number} (`{event_type}`, to {whom})")
    }
}
