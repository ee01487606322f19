//! A stream that is gone or was recreated while the node runs: the feed is opened again, under the rules of the
//! start. It is made where it is missing, altered where `stream.manage` says so, and else read as it is.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::sleep};
use tracing::error;

use super::{
    BusError,
    commands::Line,
    connect::Link,
    feed::{Feed, Left, Messages},
    memory::Memory,
    open_stream,
    past::Past,
    source::Sources,
    stream::Stream,
};
use crate::config::Config;

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_secs(2);

/// What a feed is opened again with.
pub(super) struct Reopening {
    pub(super) link: Link,
    pub(super) requests: Link,
    pub(super) config: Config,
    pub(super) sources: Arc<Sources>,
    pub(super) past: Past,
    pub(super) line: Arc<watch::Sender<Option<Arc<Line>>>>,
}

impl Reopening {
    /// Opens the feed again. What keeps the stream from being had is waited out: readiness says so meanwhile.
    ///
    /// # Errors
    /// If NATS does not permit the feed.
    pub(super) async fn open(&self, left: Left) -> Result<(Feed, Messages), BusError> {
        let mut silent = true;
        let stream = loop {
            let fault = match self.stream().await {
                Ok(Some(stream)) => break stream,
                Ok(None) => "JetStream is not there".to_owned(),
                Err(fault) => fault.to_string(),
            };
            if std::mem::take(&mut silent) {
                error!(fault, "the stream can't be had: trying until it can");
            }
            sleep(PAUSE).await;
        };
        self.past.answers_direct(stream.direct);
        let grace = self.config.nats.leader_grace;
        let stream = (stream, self.past.clone(), grace);
        Feed::reopen(self.link.clone(), &self.sources, stream, left).await
    }

    /// The stream, and beside it the memory of commands, which a store that is gone had too.
    async fn stream(&self) -> Result<Option<Stream>, BusError> {
        let subjects = self.sources.subjects(true);
        let stream = open_stream(&self.requests, &self.config, &subjects).await?;
        if stream.is_some() {
            restore_memory(&self.requests, &self.config, &self.line).await?;
        }
        Ok(stream)
    }
}

/// Makes sure of the memory of commands.
pub(super) async fn restore_memory(
    requests: &Link,
    config: &Config,
    line: &watch::Sender<Option<Arc<Line>>>,
) -> Result<(), BusError> {
    let replicas = config.stream.replicas.unwrap_or(3);
    let memory = Memory::shared(requests, config.commands.remember, replicas).await?;
    let link = requests.clone();
    line.send_replace(Some(Arc::new(Line { link, memory })));
    Ok(())
}
