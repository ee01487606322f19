//! A backend that publishes plain messages, acknowledged by JetStream.

use async_nats::{HeaderMap, jetstream};
use serde_json::{Value, json};

use crate::nats::Nats;

/// A publisher.
pub struct Publish {
    jetstream: jetstream::Context,
}

impl Publish {
    /// One on this NATS.
    pub async fn on(nats: &Nats) -> Self {
        Self {
            jetstream: jetstream::new(nats.client().await),
        }
    }

    /// Publishes these bytes and returns their sequence.
    pub async fn raw(&self, subject: &str, payload: impl Into<Vec<u8>>) -> u64 {
        self.with_headers(subject, &[], payload).await
    }

    /// Publishes with headers and returns the sequence.
    pub async fn with_headers(
        &self,
        subject: &str,
        headers: &[(&str, &str)],
        payload: impl Into<Vec<u8>>,
    ) -> u64 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, *value);
        }
        let payload = payload.into().into();
        let sent = self
            .jetstream
            .publish_with_headers(subject.to_owned(), map, payload)
            .await
            .expect("NATS takes it");
        sent.await.expect("JetStream acknowledges").sequence
    }

    /// Publishes this many valid `blob.created` of this user, numbered from 0, in one go.
    pub async fn blobs(&self, user: &str, count: usize) {
        let mut sent = Vec::new();
        for number in 0..count {
            let payload = blob_created(user, &number.to_string()).to_string();
            let publish = self.jetstream.publish("blob.created", payload.into());
            sent.push(publish.await.expect("NATS takes it"));
        }
        for acknowledgement in sent {
            acknowledgement.await.expect("JetStream acknowledges");
        }
    }

    /// Publishes a valid `blob.created` of this user and returns its sequence.
    pub async fn blob(&self, user: &str, blob_id: &str) -> u64 {
        self.raw("blob.created", blob_created(user, blob_id).to_string())
            .await
    }
}

/// The data of a valid `blob.created`.
pub fn blob_created(user: &str, blob_id: &str) -> Value {
    json!({
        "blob_id": blob_id,
        "user_id": user,
        "processor_id": "p1",
        "schema_id": "s1",
        "preview": "",
        "created_at": "2026-01-01T00:00:00Z",
    })
}
