//! A scene: so many clients, so many events, one contestant. Most rows are one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::runtime::Runtime;

use crate::{
    client::{Crowd, Due, Grant, Guests, THREADS, Taken, Window},
    contestant::{Contestant, Host},
    event::{Padding, first_for},
    figures::Figures,
    publish::{Published, To},
    router::Setup,
    server::{Cpu, cpu},
};

/// What is played.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) sessions: usize,
    /// Events a second; `None`: as fast as a window of [`WINDOW`] lets.
    pub(crate) rate: Option<u32>,
    pub(crate) duration: Duration,
    /// Bytes of an event's data.
    pub(crate) size: usize,
    /// Peers and floor write what has come up every so often; the router has `sessions.linger` in its setup.
    pub(crate) batch: Option<Duration>,
    pub(crate) deflate: bool,
    /// Clients that take arrays.
    pub(crate) arrays: bool,
    /// Each event to one user, in turn, instead of to all.
    pub(crate) each_to_one: bool,
    /// Of how many users the events are, in turn, where each is to one; sessions are of the first of them, in turn.
    pub(crate) users: u64,
    pub(crate) patterns: String,
    pub(crate) types: u64,
    pub(crate) router: Setup,
}

/// Events under way when nothing else holds them back.
pub(crate) const WINDOW: u64 = 64;

/// Seconds until a server counts as warm: until then nothing is measured.
const WARM_UP: Duration = Duration::from_millis(500);

impl Default for Scene {
    /// Row a of the table.
    fn default() -> Self {
        Self {
            sessions: 1_000,
            rate: Some(50),
            duration: Duration::from_secs(7),
            size: 200,
            batch: None,
            deflate: false,
            arrays: false,
            each_to_one: false,
            users: 0,
            patterns: "blob.*".into(),
            types: 1,
            router: Setup::default(),
        }
    }
}

/// What a server and its clients had taken at one moment.
struct Moment {
    at: Instant,
    server: Cpu,
    nats: Cpu,
    taken: Taken,
}

impl Moment {
    fn now(host: &Host, crowd: &Crowd) -> anyhow::Result<Self> {
        Ok(Self {
            at: Instant::now(),
            server: host.server.cpu()?,
            nats: match &host.nats {
                Some(nats) => cpu(nats.id())?,
                None => Cpu::default(),
            },
            taken: crowd.taken(),
        })
    }
}

impl Scene {
    /// The user of client number `number`.
    pub(crate) fn user(&self, number: usize) -> String {
        match self.users {
            0 => format!("user-{number}"),
            users => format!("user-{}", number as u64 % users),
        }
    }

    fn warm_up(&self) -> u64 {
        (f64::from(self.rate.unwrap_or(0)) * WARM_UP.as_secs_f64()).ceil() as u64
    }

    fn guests(&self, contestant: Contestant, host: &Host) -> Guests {
        let due = match self.each_to_one {
            false => vec![Due::ALL],
            true => (0..self.sessions as u64)
                .map(|number| Due {
                    first: first_for(number % self.users, self.users),
                    stride: self.users,
                })
                .collect(),
        };
        Guests {
            address: host.address,
            dialect: host.dialect,
            requests: (0..self.sessions)
                .map(|number| contestant.request(number, self))
                .collect(),
            due,
            size: self.size,
            warm_up: self.warm_up(),
        }
    }

    fn published(&self, contestant: Contestant) -> Published {
        Published {
            to: match self.each_to_one {
                false => To::Everyone,
                true => To::Users(self.users),
            },
            rate: self.rate.unwrap_or(0),
            size: self.size,
            padding: match self.deflate {
                true => Padding::Words,
                false => Padding::Plain,
            },
            types: self.types,
            durable: contestant == Contestant::Rivulet,
        }
    }

    /// Plays it once.
    pub(crate) fn play(&self, runtime: &Runtime, contestant: Contestant) -> anyhow::Result<Figures> {
        let mut host = contestant.host(runtime, self)?;
        let crowd = Crowd::connect(self.guests(contestant, &host))?;
        let (source, grant) = host.source(runtime, self.published(contestant))?;
        let (before, after, events) = match self.rate {
            Some(rate) => self.at_a_rate(rate, &host, &crowd, &grant)?,
            None => self.flat_out(&host, &crowd, &grant)?,
        };
        let ended = crowd.end(events)?;
        // Not before: it is also what keeps a server that makes its own events.
        drop(grant);
        source.end(runtime)?;

        let mut figures = Figures::default();
        let deliveries = (after.taken.events - before.taken.events) as f64;
        let seconds = (after.at - before.at).as_secs_f64();
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let server = after.server.since(before.server);
        figures.set("cpu", micros(server.total()) / deliveries);
        figures.set("user", micros(server.user) / deliveries);
        figures.set("kernel", micros(server.kernel) / deliveries);
        figures.set("rate", deliveries / seconds);
        figures.set("cores", server.total().as_secs_f64() / seconds);
        figures.set(
            "wire",
            (after.taken.bytes - before.taken.bytes) as f64 / deliveries,
        );
        if host.nats.is_some() {
            let nats = after.nats.since(before.nats).total();
            figures.set("nats", micros(nats) / deliveries);
        }
        if self.each_to_one {
            // So many deliveries is an event.
            let each = self.sessions as f64 / self.users as f64;
            figures.set("event", micros(server.total()) / deliveries * each);
        }
        if self.rate.is_some() {
            figures.set("p50", ended.latency.value_at_quantile(0.5) as f64 / 1e6);
            figures.set("p99", ended.latency.value_at_quantile(0.99) as f64 / 1e6);
        }
        let client = (after.taken.cpu - before.taken.cpu) as f64;
        figures.set("client", client / 1e3 / deliveries);
        let busiest = (after.taken.busiest - before.taken.busiest) as f64 / 1e9 / seconds;
        figures.set("busiest", busiest);
        if busiest > 0.8 {
            figures.remarks.push(format!(
                "a client thread was {:.0} % busy: the client may be the limit",
                busiest * 100.0
            ));
        }
        if self.deflate {
            figures.set("inflated", ended.inflated as f64);
        }
        let asked = self.rate.map(|rate| crowd_rate(self, rate));
        if let Some(asked) = asked
            && deliveries / seconds < asked * 0.95
        {
            figures.remarks.push(format!(
                "{:.0} deliveries/s of the {asked:.0} that were asked for",
                deliveries / seconds
            ));
        }
        figures.faults = ended.faults;
        Ok(figures)
    }

    /// Connects everyone, lets so many events happen and then nothing: the memory of a session.
    pub(crate) fn hold(
        &self,
        runtime: &Runtime,
        contestant: Contestant,
        events: u64,
    ) -> anyhow::Result<Figures> {
        let mut host = contestant.host(runtime, self)?;
        let before = host.server.settled_memory()?;
        let crowd = Crowd::connect(self.guests(contestant, &host))?;
        crowd.begin(None, None);
        let (source, grant) = host.source(runtime, self.published(contestant))?;
        grant(events);
        crowd.wait_for(crowd.deliveries(events));
        let after = host.server.settled_memory()?;
        let mut figures = Figures::default();
        figures.set("base", before as f64 / 1e6);
        figures.set(
            "memory",
            after.saturating_sub(before) as f64 / self.sessions as f64,
        );
        figures.faults = crowd.end(events)?.faults;
        drop(grant);
        source.end(runtime)?;
        Ok(figures)
    }

    fn at_a_rate(
        &self,
        rate: u32,
        host: &Host,
        crowd: &Crowd,
        grant: &Grant,
    ) -> anyhow::Result<(Moment, Moment, u64)> {
        let warm_up = self.warm_up();
        let events = warm_up + (f64::from(rate) * self.duration.as_secs_f64()).ceil() as u64;
        crowd.begin(None, None);
        grant(events);
        crowd.wait_for(crowd.deliveries(warm_up));
        let before = Moment::now(host, crowd)?;
        crowd.wait_for(crowd.deliveries(events));
        let after = Moment::now(host, crowd)?;
        Ok((before, after, events))
    }

    fn flat_out(&self, host: &Host, crowd: &Crowd, grant: &Grant) -> anyhow::Result<(Moment, Moment, u64)> {
        let window = Arc::new(Window::new(WINDOW, THREADS, Arc::clone(grant)));
        crowd.begin(None, Some(&window));
        window.open();
        std::thread::sleep(WARM_UP);
        let before = Moment::now(host, crowd)?;
        std::thread::sleep(self.duration);
        let after = Moment::now(host, crowd)?;
        let events = window.close();
        crowd.wait_for(crowd.deliveries(events));
        Ok((before, after, events))
    }
}

/// Deliveries a second that a rate of events comes to.
fn crowd_rate(scene: &Scene, rate: u32) -> f64 {
    let rate = f64::from(rate);
    match scene.each_to_one {
        false => rate * scene.sessions as f64,
        true => rate * scene.sessions as f64 / scene.users as f64,
    }
}
