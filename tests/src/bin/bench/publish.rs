//! The publisher: events on NATS, at a rate or as a window grants them.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use async_nats::{HeaderMap, jetstream};
use tokio::{
    runtime::Runtime,
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use crate::{
    client::Grant,
    event::{Padding, data, user_of},
};

/// Whom an event is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum To {
    Everyone,
    /// So many users, each event to the next of them.
    Users(u64),
}

/// What is published.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Published {
    pub(crate) to: To,
    /// Events a second; 0: as soon as they are granted.
    pub(crate) rate: u32,
    pub(crate) size: usize,
    pub(crate) padding: Padding,
    /// Event types; more than one only for one's own curve.
    pub(crate) types: u64,
    /// Into the stream, acknowledged; else by core NATS alone.
    pub(crate) durable: bool,
}

/// A running publisher.
pub(crate) struct Publisher {
    task: JoinHandle<anyhow::Result<()>>,
    granted: watch::Sender<u64>,
}

/// The type, or the first of them, which is also its subject.
pub(crate) fn event_type(number: u64, types: u64) -> String {
    match number % types {
        0 => "blob.bench".into(),
        other => format!("blob.bench{other}"),
    }
}

/// Acknowledgements that may be awaited at a time.
const IN_FLIGHT: usize = 4_000;

impl Publisher {
    pub(crate) fn start(runtime: &Runtime, client: async_nats::Client, published: Published) -> Self {
        let (granted, grants) = watch::channel(0);
        let task = runtime.spawn(publish(client, published, grants));
        Self { task, granted }
    }

    /// Tells it how many events it may send in all, whenever called.
    pub(crate) fn grants(&self) -> Grant {
        let granted = self.granted.clone();
        Arc::new(move |events| {
            granted.send_replace(events);
        })
    }

    /// Waits until all that was granted is acknowledged. The grants must be dropped before.
    pub(crate) fn end(self, runtime: &Runtime) -> anyhow::Result<()> {
        drop(self.granted);
        runtime.block_on(self.task)?
    }
}

async fn publish(
    client: async_nats::Client,
    published: Published,
    mut grants: watch::Receiver<u64>,
) -> anyhow::Result<()> {
    let jetstream = jetstream::new(client.clone());
    let (acks, mut to_await) = tokio::sync::mpsc::channel::<jetstream::context::PublishAckFuture>(IN_FLIGHT);
    let awaited = tokio::spawn(async move {
        while let Some(ack) = to_await.recv().await {
            ack.await.context("JetStream acknowledges")?;
        }
        anyhow::Ok(())
    });
    let mut number = 0;
    let mut begin = None;
    loop {
        // The sender is gone: nothing more will be granted, and what was is sent.
        let Ok(granted) = grants
            .wait_for(|granted| *granted > number)
            .await
            .map(|granted| *granted)
        else {
            break;
        };
        let begin = *begin.get_or_insert_with(Instant::now);
        while number < granted {
            if published.rate > 0 {
                let due = begin + Duration::from_secs(1).mul_f64(number as f64 / f64::from(published.rate));
                // The timer has steps of a millisecond: what is due within one goes at once.
                if due > Instant::now() {
                    sleep_until(due).await;
                }
            }
            let mut headers = HeaderMap::new();
            match published.to {
                To::Everyone => headers.insert("Rivulet-Audience", "everyone"),
                To::Users(count) => {
                    headers.insert("Rivulet-User", format!("user-{}", user_of(number, count)));
                }
            }
            let payload = data(number, published.size, published.padding).into();
            let subject = event_type(number, published.types);
            if published.durable {
                let ack = jetstream.publish_with_headers(subject, headers, payload).await?;
                // Full: wait, as a publisher would.
                acks.send(ack).await.context("nobody awaits acknowledgements")?;
            } else {
                client.publish_with_headers(subject, headers, payload).await?;
            }
            number += 1;
        }
    }
    drop(acks);
    client.flush().await?;
    awaited.await?
}
