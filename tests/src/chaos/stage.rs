//! What a scenario plays on: a cluster, nodes, clients, publishers; and how it ends.

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Write as _},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use rivulet_protocol::pattern::Pattern;
use tokio::{task::JoinHandle, time::Instant};

use super::{
    client::Profile,
    cluster::Cluster,
    crowd::{Census, Crowd},
    node::{Node, Program},
    oracle::Oracle,
    outcome::Outcome,
    publishers::{Flow, Publishers, Shared, user},
    record::{Cursor, Record},
    verdict::{Tally, judge},
};

/// What clients want, one of these each.
const WISHES: [&[&str]; 6] = [
    &["*"],
    &[">"],
    &["blob.*", "processor.*"],
    &["book.>", "conversation.*"],
    &["blob.created", "*.read", "book.created"],
    &["*.*"],
];

/// How long the first connections may take.
pub const CONNECTING: Duration = Duration::from_secs(60);

/// How a run is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// What all chances are drawn from.
    pub seed: u64,
    /// How many faults; each scenario has a number of its own.
    pub faults: Option<u64>,
    /// How many clients; each scenario has a number of its own.
    pub clients: Option<usize>,
    /// Events a second; each scenario has a number of its own.
    pub rate: Option<u32>,
    /// How many nodes; each scenario has a number of its own.
    pub nodes: Option<usize>,
    /// The router.
    pub program: Program,
    /// The fault planted in it, as it is printed.
    pub plant: Option<String>,
    /// Whether it counts how long something took.
    pub timed: bool,
    /// Whether to tell on standard error how it goes.
    pub progress: bool,
}

/// A cluster, nodes, clients and publishers.
pub struct Stage {
    /// The NATS servers.
    pub cluster: Cluster,
    /// The routers.
    pub nodes: Vec<Node>,
    /// The clients.
    pub crowd: Crowd,
    /// What is known of the stream; a scenario that removes it reads it before.
    pub oracle: Oracle,
    /// The scenario's chances.
    pub random: SmallRng,
    /// Faults done so far.
    pub faults: Arc<AtomicU64>,
    /// Figures of the scenario's own.
    pub figures: Vec<(&'static str, String)>,
    /// Whatever is wrong beside what is counted.
    pub problems: Vec<String>,
    options: Options,
    publishers: Option<Publishers>,
    shared: Arc<Shared>,
    progress: Option<JoinHandle<()>>,
    began: Instant,
}

impl Stage {
    /// Starts a cluster and this many nodes with these settings; other than none, as many as are asked for.
    ///
    /// # Errors
    /// What does not start.
    pub async fn set(options: &Options, nodes: usize, settings: &[(&str, String)]) -> anyhow::Result<Self> {
        let began = Instant::now();
        let mut cluster = Cluster::start().await?;
        let mut started = Vec::new();
        let nodes = match nodes {
            0 => 0,
            by_default => options.nodes.unwrap_or(by_default),
        };
        for _ in 0..nodes {
            started.push(Node::start(&options.program, &cluster.urls(), settings).await?);
        }
        cluster.healed().await?;
        Ok(Self {
            cluster,
            nodes: started,
            crowd: Crowd::new(),
            oracle: Oracle::default(),
            random: SmallRng::seed_from_u64(options.seed),
            faults: Arc::default(),
            figures: Vec::new(),
            problems: Vec::new(),
            options: options.clone(),
            publishers: None,
            shared: Arc::default(),
            progress: None,
            began,
        })
    }

    /// Where the nodes take clients.
    pub fn doors(&self) -> Arc<[SocketAddr]> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    /// A client's profile: two clients are of one user, and each wants something of its own.
    pub fn profile(&mut self, number: usize, doors: &Arc<[SocketAddr]>) -> Profile {
        Profile {
            number,
            user: user(number / 2),
            patterns: wish(&mut self.random),
            doors: Arc::clone(doors),
            first_door: number,
            cursor: None,
            pace: Duration::ZERO,
            compressed: false,
            narrow: false,
            seed: self.random.random(),
        }
    }

    /// Adds this many clients at these doors and waits until all have a session.
    ///
    /// # Errors
    /// If they don't get one.
    pub async fn gather(&mut self, clients: usize, doors: &Arc<[SocketAddr]>) -> anyhow::Result<()> {
        for number in self.crowd.len()..self.crowd.len() + clients {
            let profile = self.profile(number, doors);
            self.crowd.add(profile);
        }
        self.crowd.connected(CONNECTING).await?;
        Ok(())
    }

    /// Has events published for the users of the clients that are there, and for as many who are not.
    pub fn publish(&mut self, rate: u32) {
        let flow = Flow {
            rate: self.options.rate.unwrap_or(rate),
            users: self.crowd.len().max(2),
            everyone: 20,
            size: 100,
        };
        self.publish_flow(flow);
    }

    /// Has events published.
    pub fn publish_flow(&mut self, flow: Flow) {
        let shared = Arc::clone(&self.shared);
        let (urls, by_user) = (self.cluster.urls(), self.options.program.by_user);
        let publishers = Publishers::start(&urls, flow, by_user, 2, self.options.seed, shared);
        if self.options.progress && self.progress.is_none() {
            let told = Told {
                scenario_began: self.began,
                census: self.crowd.census(),
                faults: Arc::clone(&self.faults),
                shared: Arc::clone(&self.shared),
            };
            self.progress = Some(tokio::spawn(told.tell()));
        }
        self.publishers = Some(publishers);
    }

    /// Waits until this many more events are acknowledged.
    pub async fn more(&self, events: u64) {
        if let Some(publishers) = &self.publishers {
            publishers.more(events).await;
        }
    }

    /// The last sequence of the stream now.
    ///
    /// # Errors
    /// If it has no leader.
    pub async fn head(&self) -> anyhow::Result<u64> {
        let info = self.cluster.stream().await.context("the stream has no leader")?;
        info["state"]["last_seq"]
            .as_u64()
            .context("the stream's leader says nothing of it")
    }

    /// How many faults are to be done.
    pub fn planned_faults(&self, by_default: u64) -> u64 {
        self.options.faults.unwrap_or(by_default)
    }

    /// How many clients there are to be.
    pub fn planned_clients(&self, by_default: usize) -> usize {
        self.options.clients.unwrap_or(by_default)
    }

    /// Counts a fault.
    pub fn fault(&self) {
        self.faults.fetch_add(1, Ordering::Relaxed);
    }

    /// Lets a time pass in which the fault lasts or the run goes on.
    pub async fn pass(&mut self, milliseconds: std::ops::Range<u64>) {
        let time = self.random.random_range(milliseconds);
        tokio::time::sleep(Duration::from_millis(time)).await;
    }

    /// Has the publishers stop, and compares every ack with the stream: what JetStream acknowledged and lost by
    /// itself is no fault of a router, but the run's ground is gone.
    ///
    /// # Errors
    /// If the cluster does not heal, or the stream can't be read.
    pub async fn settle(&mut self) -> anyhow::Result<Cursor> {
        self.cluster.healed().await?;
        let acks = match self.publishers.take() {
            Some(publishers) => publishers.stop().await?,
            None => Vec::new(),
        };
        let (stream, seq) = self.oracle.read(self.cluster.control()).await?;
        let epoch = self.oracle.epoch(&stream).context("it was just read")?;
        let gone = acks
            .iter()
            .filter(|(id, seq)| *seq >= epoch.first && epoch.at(*seq).is_none_or(|stored| stored.id != *id))
            .count();
        if gone > 0 {
            self.problems
                .push(format!("{gone} of {} acks are not in the stream", acks.len()));
        }
        Ok(Cursor { stream, seq })
    }

    /// Ends the run and compares what every client saw with the stream.
    ///
    /// # Errors
    /// As [`Stage::settle`].
    pub async fn end(mut self, scenario: &'static str) -> anyhow::Result<(Outcome, Vec<Record>)> {
        let end = self.settle().await?;
        let settled = Instant::now();
        let clients = self.crowd.len();
        let records = self.crowd.finish(end.clone()).await;
        self.figures.push((
            "caught up in",
            format!("{:.1} s", settled.elapsed().as_secs_f64()),
        ));
        if let Some(progress) = self.progress.take() {
            progress.abort();
        }
        let mut tally = Tally::default();
        let mut findings = Vec::new();
        let mut ends = BTreeMap::<String, usize>::new();
        let (mut reconnects, mut resumed) = (0, 0);
        let mut closes = BTreeMap::<u16, u64>::new();
        for record in &records {
            let (of_one, finding) = judge(record, &self.oracle, &end);
            tally += of_one;
            findings.extend(finding);
            reconnects += record.reconnects;
            resumed += record.resumed;
            for (code, count) in &record.closes {
                *closes.entry(*code).or_default() += count;
            }
            if let Some(fault) = &record.fault {
                *ends.entry(fault.clone()).or_default() += 1;
            }
        }
        for (fault, clients) in ends {
            self.problems.push(format!("{clients} clients: {fault}"));
        }
        let retried = self.shared.retried.load(Ordering::Relaxed);
        self.figures.push(("retried", retried.to_string()));
        self.figures.push(("reconnects", reconnects.to_string()));
        self.figures.push(("resumed", resumed.to_string()));
        if !closes.is_empty() {
            let closes: Vec<String> = closes
                .iter()
                .map(|(code, count)| format!("{code}×{count}"))
                .collect();
            self.figures.push(("closes", closes.join(" ")));
        }
        let outcome = Outcome {
            scenario,
            seed: self.options.seed,
            plant: self.options.plant.clone(),
            events: self.oracle.len(),
            clients,
            faults: self.faults.load(Ordering::Relaxed),
            tally,
            finding: findings.into_iter().next(),
            gaps_belong: false,
            problems: self.problems,
            figures: self.figures,
            took: self.began.elapsed(),
        };
        Ok((outcome, records))
    }
}

/// Draws what a client wants.
pub fn wish(random: &mut SmallRng) -> Arc<[Pattern]> {
    let wish = WISHES[random.random_range(0..WISHES.len())];
    wish.iter()
        .map(|pattern| pattern.parse().expect("a pattern"))
        .collect()
}

/// What the line of progress is made of.
struct Told {
    scenario_began: Instant,
    census: Census,
    faults: Arc<AtomicU64>,
    shared: Arc<Shared>,
}

impl Told {
    async fn tell(self) {
        let (every, end) = match std::io::stderr().is_terminal() {
            true => (Duration::from_millis(500), "\r"),
            false => (Duration::from_secs(10), "\n"),
        };
        loop {
            tokio::time::sleep(every).await;
            let line = format!(
                "  {:>5.0} s  {} faults  {} acked  {} delivered  {} clients connected  {} sessions so far ",
                self.scenario_began.elapsed().as_secs_f64(),
                self.faults.load(Ordering::Relaxed),
                self.shared.acked.load(Ordering::Relaxed),
                self.census.events(),
                self.census.connected(),
                self.census.connects(),
            );
            let _ = write!(std::io::stderr(), "{line}{end}");
        }
    }
}
