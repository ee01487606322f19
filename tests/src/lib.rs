//! Whole-system checks: a real nats-server, real routers, real sockets.
//!
//! Every part takes port 0 and its own temporary directory, and ends when it is dropped. Nothing waits for a
//! time to pass: what is awaited is the thing itself, with [`PATIENCE`] as the point at which a test gives up.

pub mod chaos;
pub mod client;
pub mod nats;
pub mod publish;
pub mod router;
pub mod token;

use std::time::Duration;

/// How long a test waits for something that must come before it fails.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits for `what`, and fails the test by that name if it does not come.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} in vain for {what}"),
    }
}

/// Asks again and again until the answer is yes: for states that nobody announces.
pub async fn until<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    soon(what, async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
