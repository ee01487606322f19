//! Faults that a router is given on purpose: what the rig must see, or its zeros mean nothing.

use std::{
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, bail};
use rivulet::{
    bus::Sink,
    event::{Audience, Event},
};
use rivulet_protocol::{message::Gap, subject::UserId};

/// The variable of the environment that names the fault of the faulty router.
pub const VARIABLE: &str = "CHAOS_PLANT";

/// How often a fault happens where it is not said: one event in this many.
const RATE: u64 = 500;

/// A fault, and in how many events it happens once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plant {
    /// What happens.
    pub kind: Kind,
    /// One event in this many.
    pub one_in: u64,
}

/// What a faulty router does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: the router as it is, from the library that the tests are linked with.
    Nothing,
    /// Leaves an event out and says nothing.
    Drop,
    /// Swaps an event with the next one.
    Swap,
    /// Also gives an event to the user of the one before.
    Leak,
}

impl FromStr for Plant {
    type Err = anyhow::Error;

    /// Reads `drop`, `drop:500`, `swap`, `leak` or `none`.
    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, rate) = text.split_once(':').unwrap_or((text, ""));
        let kind = match name {
            "none" => Kind::Nothing,
            "drop" => Kind::Drop,
            "swap" => Kind::Swap,
            "leak" => Kind::Leak,
            _ => bail!("`{name}` is no fault to plant: drop, swap, leak or none"),
        };
        let one_in = match rate {
            "" => RATE,
            rate => rate.parse().context("one in how many events")?,
        };
        anyhow::ensure!(one_in > 1, "at most one event in 2");
        Ok(Self { kind, one_in })
    }
}

impl fmt::Display for Plant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.kind {
            Kind::Nothing => return formatter.write_str("none"),
            Kind::Drop => "drop",
            Kind::Swap => "swap",
            Kind::Leak => "leak",
        };
        write!(formatter, "{name}:{}", self.one_in)
    }
}

impl Plant {
    /// Puts the fault before `sink`.
    pub fn before(self, sink: Arc<dyn Sink>) -> Arc<dyn Sink> {
        match self.kind {
            Kind::Nothing => sink,
            _ => Arc::new(Faulty {
                sink,
                plant: self,
                state: Mutex::default(),
            }),
        }
    }
}

/// A sink with a fault before another.
struct Faulty {
    sink: Arc<dyn Sink>,
    plant: Plant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    count: u64,
    /// The user of the last event that had one alone.
    last_user: Option<UserId>,
    /// An event that waits for the next to go before it.
    held: Option<Event>,
}

impl Faulty {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets an event go that waits for a next one which is none.
    fn release(&self) {
        let held = self.state().held.take();
        if let Some(held) = held {
            self.sink.dispatch(&held);
        }
    }

    fn leave_out(&self, event: &Event) -> usize {
        if let Some(seq) = event.seq {
            self.sink.advance(seq);
        }
        0
    }

    fn swap(&self, event: &Event, due: bool) -> usize {
        let held = {
            let mut state = self.state();
            if due && state.held.is_none() {
                state.held = Some(event.clone());
                return 0;
            }
            state.held.take()
        };
        let Some(first) = held else {
            return self.sink.dispatch(event);
        };
        // They change places, not numbers: the router's own sequences only rise.
        let (mut earlier, mut later) = (event.clone(), first.clone());
        earlier.seq = first.seq;
        later.seq = event.seq;
        self.sink.dispatch(&earlier) + self.sink.dispatch(&later)
    }

    fn leak(&self, event: &Event, due: bool) -> usize {
        let Audience::Users(users) = &event.audience else {
            return self.sink.dispatch(event);
        };
        let other = self.state().last_user.replace(users[0].clone());
        match other {
            Some(other) if due && !users.contains(&other) => {
                let mut event = event.clone();
                event.audience = Audience::Users(vec![users[0].clone(), other]);
                self.sink.dispatch(&event)
            }
            _ => self.sink.dispatch(event),
        }
    }
}

impl Sink for Faulty {
    fn open(&self, epoch: &str, head: u64, durable: bool) {
        self.release();
        self.sink.open(epoch, head, durable);
    }

    fn dispatch(&self, event: &Event) -> usize {
        let due = {
            let mut state = self.state();
            state.count += 1;
            state.count.is_multiple_of(self.plant.one_in)
        };
        match self.plant.kind {
            Kind::Drop if due => self.leave_out(event),
            Kind::Swap => self.swap(event, due),
            Kind::Leak => self.leak(event, due),
            Kind::Nothing | Kind::Drop => self.sink.dispatch(event),
        }
    }

    fn advance(&self, seq: u64) {
        self.release();
        self.sink.advance(seq);
    }

    fn keeps_from(&self, seq: u64) {
        self.sink.keeps_from(seq);
    }

    fn gap(&self, gap: Gap) {
        self.release();
        self.sink.gap(gap);
    }
}
