//! A key-value bucket of the routers' own, made where it is missing.

use std::time::Duration;

use async_nats::jetstream::{
    ErrorCode,
    context::CreateStreamErrorKind,
    kv,
    stream::{Config, DiscardPolicy, StorageType},
};

use super::{BusError, connect::Link};

/// How a bucket is made.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    pub(super) name: &'static str,
    /// What it holds, for people.
    pub(super) holds: &'static str,
    /// What it may take on disk; less where the server has less.
    pub(super) bytes: i64,
    /// How long a key stays; zero: as long as there is room.
    pub(super) max_age: Duration,
    /// On how many servers; fewer where there are fewer.
    pub(super) replicas: usize,
}

/// The bucket, made where it is missing.
///
/// # Errors
/// If NATS does not permit it.
pub(super) async fn open(link: &Link, bucket: &Bucket) -> Result<kv::Store, BusError> {
    let name = format!("KV_{}", bucket.name);
    let failed = |fault: String| BusError::Stream {
        name: name.clone(),
        fault,
    };
    let mut replicas = bucket.replicas;
    let mut bytes = bucket.bytes;
    let window = Duration::from_secs(120);
    // Each round asks for less, or finds what another node made in the meantime: less bytes of each number of copies,
    // and some to find it.
    for _ in 0..32 {
        let existing = link.permitted(link.jetstream.get_key_value(bucket.name)).await?;
        if let Ok(store) = existing {
            return Ok(store);
        }
        let made = link.jetstream.create_stream(Config {
            name: name.clone(),
            subjects: vec![format!("$KV.{}.>", bucket.name)],
            storage: StorageType::File,
            // A bucket usually refuses when it is full. This one forgets the oldest.
            discard: DiscardPolicy::Old,
            max_age: bucket.max_age,
            max_bytes: bytes,
            max_messages: -1,
            max_messages_per_subject: 1,
            duplicate_window: match bucket.max_age.is_zero() {
                true => window,
                false => bucket.max_age.min(window),
            },
            allow_direct: true,
            allow_rollup: true,
            deny_delete: true,
            num_replicas: replicas,
            ..Config::default()
        });
        let Err(fault) = link.permitted(made).await? else {
            continue;
        };
        match fault.kind() {
            CreateStreamErrorKind::JetStream(error) => match error.error_code() {
                ErrorCode::STREAM_NAME_EXIST => {}
                // Fewer bytes before fewer copies; a cluster's general codes come for both.
                ErrorCode::STORAGE_RESOURCES_EXCEEDED
                | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
                | ErrorCode::CLUSTER_NO_PEERS
                | ErrorCode::INSUFFICIENT_RESOURCES
                    if bytes > 1 << 20 =>
                {
                    bytes /= 2;
                }
                ErrorCode::CLUSTER_NO_PEERS
                | ErrorCode::INSUFFICIENT_RESOURCES
                | ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED
                    if replicas > 1 =>
                {
                    replicas -= 1;
                    bytes = bucket.bytes;
                }
                ErrorCode::STORAGE_RESOURCES_EXCEEDED | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED => {
                    return Err(failed(format!(
                        "{error}; the router keeps {} there, in 1 MiB at least: set `stream.max_bytes` so that something is left",
                        bucket.holds
                    )));
                }
                _ => return Err(failed(error.to_string())),
            },
            _ => return Err(failed(fault.to_string())),
        }
    }
    Err(failed("it exists and is not a key-value bucket".to_owned()))
}
