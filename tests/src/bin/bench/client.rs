//! The clients of all servers alike: few threads, no parsing to speak of, every event checked.
//!
//! A [`Crowd`] connects, then reads; how a server speaks inside of its frames is all in [`Dialect`].

mod check;
mod connect;
mod dialect;
mod frames;
mod scan;
mod thread;
mod window;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hdrhistogram::Histogram;

pub(crate) use self::{
    check::{Due, Faults},
    connect::{OFFER_DEFLATE, Request},
    dialect::Dialect,
    frames::{TEXT, frame},
    window::{Grant, Window},
};
use self::{
    connect::connect,
    thread::{Clients, Meter, Orders, Outcome, latencies},
};

/// As many as a machine of four cores can spare beside the server, NATS and the publisher.
pub(crate) const THREADS: usize = 2;

/// A source that has sent nothing for so long will send no more.
const PATIENCE: Duration = Duration::from_secs(15);

/// Who connects, and what they are due.
pub(crate) struct Guests {
    pub(crate) address: SocketAddr,
    pub(crate) dialect: Dialect,
    pub(crate) requests: Vec<Request>,
    /// Of each connection; one entry for all, if there is but one.
    pub(crate) due: Vec<Due>,
    /// Bytes of an event's data.
    pub(crate) size: usize,
    /// Events whose latency does not count.
    pub(crate) warm_up: u64,
}

/// Connected clients.
pub(crate) struct Crowd {
    threads: Vec<JoinHandle<anyhow::Result<Outcome>>>,
    meters: Vec<Arc<Meter>>,
    go: Vec<mpsc::Sender<Opening>>,
    stop: Arc<AtomicBool>,
    due: Vec<Due>,
    sessions: usize,
    /// What the server said to the first of them when its session stood.
    pub(crate) greeting: String,
}

type Opening = (Option<Arc<Vec<u8>>>, Option<Arc<Window>>);

/// What all clients have taken until now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Taken {
    pub(crate) events: u64,
    pub(crate) bytes: u64,
    /// Nanoseconds of processor time: of all threads, and of the busiest.
    pub(crate) cpu: u64,
    pub(crate) busiest: u64,
}

/// What all clients got in the end.
pub(crate) struct Received {
    pub(crate) latency: Histogram<u64>,
    pub(crate) faults: Faults,
    pub(crate) inflated: u64,
}

impl Crowd {
    /// Connects everyone.
    pub(crate) fn connect(guests: Guests) -> anyhow::Result<Self> {
        let sessions = guests.requests.len();
        let guests = Arc::new(guests);
        let stop = Arc::new(AtomicBool::new(false));
        let (connected, greetings) = mpsc::channel();
        let (mut threads, mut meters, mut go) = (Vec::new(), Vec::new(), Vec::new());
        for thread in 0..THREADS {
            let meter = Arc::new(Meter::default());
            let (say_go, wait_go) = mpsc::channel::<Opening>();
            let (of_thread, connected) = (Arc::clone(&guests), connected.clone());
            let (meter_of_thread, stop_of_thread) = (Arc::clone(&meter), Arc::clone(&stop));
            threads.push(std::thread::spawn(move || {
                let mut streams = Vec::new();
                for number in (thread..of_thread.requests.len()).step_by(THREADS) {
                    let Guests {
                        address,
                        dialect,
                        requests,
                        due,
                        ..
                    } = &*of_thread;
                    match connect(*address, number, *dialect, &requests[number]) {
                        Ok(one) => streams.push((one, due[number % due.len()])),
                        Err(error) => {
                            let error = error.context(format!("client {number}"));
                            let _ = connected.send(Err(error));
                            anyhow::bail!("not all connected");
                        }
                    }
                }
                let greeting = streams
                    .first()
                    .map_or(String::new(), |(one, _)| one.greeting.clone());
                let _ = connected.send(Ok(greeting));
                drop(connected);
                // Without a word to go on, the crowd was dropped.
                let Ok((opening, window)) = wait_go.recv() else {
                    anyhow::bail!("nobody let it begin");
                };
                let orders = Orders {
                    dialect: of_thread.dialect,
                    size: of_thread.size,
                    warm_up: of_thread.warm_up,
                    window: window.map(|window| (window, thread)),
                    stop: stop_of_thread,
                    meter: meter_of_thread,
                };
                Clients::new(streams, orders)?.run(opening.as_deref().map(Vec::as_slice))
            }));
            meters.push(meter);
            go.push(say_go);
        }
        drop(connected);
        let mut greeting = String::new();
        for of_thread in greetings {
            let said = of_thread?;
            // A thread without clients has heard none.
            if !said.is_empty() {
                greeting = said;
            }
        }
        Ok(Self {
            threads,
            meters,
            go,
            stop,
            due: guests.due.clone(),
            sessions,
            greeting,
        })
    }

    /// Lets everyone say `opening`, and read.
    pub(crate) fn begin(&self, opening: Option<Vec<u8>>, window: Option<&Arc<Window>>) {
        let opening = opening.map(Arc::new);
        for go in &self.go {
            // A thread that is gone tells why when it is joined.
            let _ = go.send((opening.clone(), window.cloned()));
        }
    }

    pub(crate) fn taken(&self) -> Taken {
        let mut taken = Taken::default();
        for meter in &self.meters {
            taken.events += meter.received.load(Ordering::Relaxed);
            taken.bytes += meter.bytes.load(Ordering::Relaxed);
            let cpu = meter.cpu.load(Ordering::Relaxed);
            taken.cpu += cpu;
            taken.busiest = taken.busiest.max(cpu);
        }
        taken
    }

    /// How many deliveries the first `events` events are.
    pub(crate) fn deliveries(&self, events: u64) -> u64 {
        (0..self.sessions)
            .map(|number| self.due[number % self.due.len()].of(events))
            .sum()
    }

    /// Waits until so many deliveries were taken, or nothing comes any more, or a connection has ended.
    pub(crate) fn wait_for(&self, deliveries: u64) {
        let (mut last, mut since) = (0, Instant::now());
        loop {
            let events = self.taken().events;
            let broken = self
                .meters
                .iter()
                .any(|meter| meter.broken.load(Ordering::Relaxed));
            let ended = self.threads.iter().any(JoinHandle::is_finished);
            if events >= deliveries || broken || ended {
                return;
            }
            if events > last {
                (last, since) = (events, Instant::now());
            } else if since.elapsed() > PATIENCE {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends all connections; each was to get its part of the first `events` events.
    pub(crate) fn end(self, events: u64) -> anyhow::Result<Received> {
        // What comes after the last event is one too many: it gets the time to come.
        std::thread::sleep(Duration::from_millis(50));
        self.stop.store(true, Ordering::Relaxed);
        let mut received = Received {
            latency: latencies()?,
            faults: Faults::default(),
            inflated: 0,
        };
        for thread in self.threads {
            let outcome = thread.join().expect("no client thread panics")?;
            received.latency.add(outcome.latency).context("latencies")?;
            received.faults.add(outcome.faults);
            received.inflated += outcome.inflated;
            for (due, check) in outcome.checks {
                received.faults.lost += check.lost(due.of(events));
            }
        }
        Ok(received)
    }
}
