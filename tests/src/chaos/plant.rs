//! Faults that a router is given on purpose: what the rig must see, or its zeros mean nothing.

use std::{
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rivulet_protocol::{message::Gap, subject::UserId};
use rivulet_router::{
    bus::Sink,
    event::{Audience, Event},
    history::Forget,
};

/// The variable of the environment that names the fault of the faulty router.
pub const VARIABLE: &str = "CHAOS_PLANT";

/// How often a fault happens where it is not said: one event in this many.
const RATE: u64 = 500;

/// How long an event waits for the next to go before it: where none comes any more, it goes by itself.
const HELD: Duration = Duration::from_secs(1);

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
    /// Puts the fault before `sink`. To be called in a runtime.
    pub fn before(self, sink: Arc<dyn Sink>) -> Arc<dyn Sink> {
        if self.kind == Kind::Nothing {
            return sink;
        }
        let faulty = Arc::new(Faulty {
            sink,
            plant: self,
            state: Mutex::default(),
        });
        let waiting = Arc::downgrade(&faulty);
        tokio::spawn(async move {
            while let Some(faulty) = waiting.upgrade() {
                faulty.state().release(&*faulty.sink, HELD);
                drop(faulty);
                tokio::time::sleep(HELD / 4).await;
            }
        });
        faulty
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
    /// An event that waits for the next to go before it, and since when.
    held: Option<(Event, Instant)>,
    /// How far the stream went on with nothing to deliver while it waits: it would be late for its own place.
    passed: Option<u64>,
}

impl State {
    /// Lets an event go that has waited this long for a next one.
    fn release(&mut self, sink: &dyn Sink, waited: Duration) {
        let held = self.held.take_if(|(_, since)| since.elapsed() >= waited);
        if let Some((held, _)) = held {
            sink.dispatch(&held);
            if let Some(passed) = self.passed.take() {
                sink.advance(passed);
            }
        }
    }
}

impl Faulty {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave_out(&self, event: &Event) -> usize {
        if let Some(seq) = event.seq {
            self.sink.advance(seq);
        }
        0
    }

    fn swap(&self, event: &Event, due: bool) -> usize {
        let mut state = self.state();
        if due && state.held.is_none() {
            state.held = Some((event.clone(), Instant::now()));
            return 0;
        }
        let Some((first, _)) = state.held.take() else {
            return self.sink.dispatch(event);
        };
        state.passed = None;
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
        self.state().release(&*self.sink, Duration::ZERO);
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
        let mut state = self.state();
        match state.held {
            Some(_) => state.passed = Some(seq),
            None => self.sink.advance(seq),
        }
    }

    fn keeps_from(&self, seq: u64) {
        self.sink.keeps_from(seq);
    }

    fn forget(&self, forget: Forget<'_>) {
        self.sink.forget(forget);
    }

    fn gap(&self, gap: Gap) {
        self.state().release(&*self.sink, Duration::ZERO);
        self.sink.gap(gap);
    }
}
