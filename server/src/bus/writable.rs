//! Whether JetStream stores what is written: a full disk leaves a stream its leader, who answers as ever, and every
//! publish fails.
//!
//! The router may not publish on the sources' subjects, and nothing that it could ask says so. So it writes where it
//! may: into the memory of commands, one key for all nodes, 10 bytes that take the place of those before. That is
//! the same JetStream, and in a cluster of three the same servers. In a larger one the stream may lie on others: then
//! it is the state of those that hold the memory of commands. A stream that refuses what is new when it is full
//! (`discard` is `new`) says so by itself.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::json;
use tokio::{sync::watch, time::sleep};
use tracing::{error, info};

use super::{commands::Line, connect::Link, memory::Unwritten, reopen::restore_memory};
use crate::{config::Config, metrics::Metrics};

/// How often it is tried.
const EVERY: Duration = Duration::from_secs(10);
/// How soon again after it failed: once may be an election.
const SOON: Duration = Duration::from_secs(2);

/// Tries, and says what came of it.
pub(super) struct Probe {
    pub(super) requests: Link,
    pub(super) config: Config,
    pub(super) line: Arc<watch::Sender<Option<Arc<Line>>>>,
    pub(super) metrics: Arc<Metrics>,
}

impl Probe {
    /// Tries for ever.
    pub(super) async fn watch(self) {
        let mut failures = 0_u32;
        self.metrics.nats.writable.set(1);
        loop {
            sleep(if failures == 0 { EVERY } else { SOON }).await;
            // Without a connection nothing is learnt, and readiness says so.
            if !self.requests.is_connected() {
                continue;
            }
            match self.refusal().await {
                None => {
                    if failures > 1 {
                        info!("JetStream stores again what is written");
                    }
                    failures = 0;
                    self.metrics.nats.writable.set(1);
                }
                Some(fault) => {
                    failures = failures.saturating_add(1);
                    if failures == 2 {
                        error!(
                            fault,
                            "JetStream does not store what is written: publishing fails; is a disk full, or `max_file` reached?"
                        );
                        self.metrics.nats.writable.set(0);
                    }
                }
            }
        }
    }

    /// Why nothing is stored.
    async fn refusal(&self) -> Option<String> {
        if let Some(why) = self.full().await {
            return Some(why);
        }
        let line = self.line.borrow().clone()?;
        match line.memory.try_write().await {
            Ok(()) => None,
            Err(Unwritten::Gone) => restore_memory(&self.requests, &self.config, &self.line)
                .await
                .err()
                .map(|fault| fault.to_string()),
            Err(Unwritten::Refused(fault)) => Some(fault),
        }
    }

    /// Whether the stream is full and says so to publishers.
    async fn full(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Info {
            config: Limits,
            state: State,
        }
        #[derive(Deserialize)]
        struct Limits {
            #[serde(default)]
            discard: String,
            #[serde(default)]
            max_bytes: i64,
            #[serde(default)]
            max_msgs: i64,
        }
        #[derive(Deserialize)]
        struct State {
            bytes: i64,
            messages: i64,
        }
        let name = &self.config.stream.name;
        let nothing = json!({});
        let asked = self
            .requests
            .jetstream
            .request(format!("STREAM.INFO.{name}"), &nothing);
        let Info { config, state } = asked.await.ok()?;
        // A message and its place take more than this.
        let no_bytes = config.max_bytes > 0 && state.bytes + 64 > config.max_bytes;
        let no_messages = config.max_msgs > 0 && state.messages >= config.max_msgs;
        (config.discard == "new" && (no_bytes || no_messages))
            .then(|| "the stream is full, and its `discard` is `new`".to_owned())
    }
}
