//! What a node holds, to be compared with what it held before.

use std::{fmt, time::Duration};

use anyhow::ensure;
use tokio::time::{Instant, sleep};

use super::stage::Stage;

/// How long a node may take to be as before.
const SETTLING: Duration = Duration::from_secs(60);
/// What memory may grow by, beside the tenth of what it was: the allocator's own.
const GROWTH: u64 = 8_000_000;

/// What a node holds.
#[derive(Debug)]
pub struct Vitals {
    /// Bytes of memory.
    pub memory: u64,
    /// Open descriptors.
    pub descriptors: usize,
    /// Tasks.
    pub tasks: f64,
    /// Addresses known to the limits.
    pub addresses: f64,
    /// Users whose seats are counted.
    pub users: f64,
    /// Subscriptions that the NATS servers know, of all nodes.
    pub subscriptions: u64,
}

impl Vitals {
    /// What it holds once it has settled: nobody but those who stay is there, and it holds no more than before, or
    /// [`SETTLING`] has passed.
    ///
    /// # Errors
    /// If whoever else was there does not go.
    pub async fn take(stage: &mut Stage, clients: usize, before: Option<&Self>) -> anyhow::Result<Self> {
        let until = Instant::now() + SETTLING;
        loop {
            let node = &mut stage.nodes[0];
            let sessions = node.metric("rivulet_connections").await?;
            let pending = node.metric("rivulet_pending_handshakes").await?;
            let vitals = Self {
                memory: node.process().memory()?,
                descriptors: node.process().descriptors()?,
                tasks: node.metric("rivulet_tasks").await?,
                addresses: node.metric("rivulet_limits_addresses").await?,
                users: node.metric("rivulet_limits_users").await?,
                subscriptions: stage.cluster.subscriptions().await?,
            };
            // Those who stay come from one address, two of each user.
            let settled = sessions == clients as f64
                // That of this question itself.
                && pending <= 1.0
                && vitals.addresses == 1.0
                && vitals.users == clients.div_ceil(2) as f64
                && before.is_none_or(|before| vitals.complaints(before).is_empty());
            if settled || Instant::now() > until {
                ensure!(
                    before.is_some() || settled,
                    "{sessions} sessions and {pending} handshakes don't end: {vitals}"
                );
                return Ok(vitals);
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Whether memory grew by more than an allocator keeps for the next.
    pub fn memory_grew(&self, before: &Self) -> bool {
        self.memory > before.memory + before.memory / 10 + GROWTH
    }

    /// What of it grew, memory aside.
    pub fn complaints(&self, before: &Self) -> Vec<String> {
        [
            ("descriptors", self.descriptors > before.descriptors),
            ("tasks", self.tasks > before.tasks),
            ("addresses", self.addresses > before.addresses),
            ("users", self.users > before.users),
            ("subscriptions", self.subscriptions > before.subscriptions),
        ]
        .into_iter()
        .filter(|(_, grew)| *grew)
        .map(|(name, _)| format!("{name} grew"))
        .collect()
    }
}

impl fmt::Display for Vitals {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:.1} MB, {} descriptors, {} tasks, {} subscriptions, {} addresses, {} users",
            self.memory as f64 / 1e6,
            self.descriptors,
            self.tasks,
            self.subscriptions,
            self.addresses,
            self.users
        )
    }
}
