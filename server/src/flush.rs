//! From outboxes to sockets: one task for each shard of the router writes what was put into the outboxes of the
//! shard's sessions.
//!
//! A delivery is then a push and a write, and wakes nobody. What comes while others are written to rides along
//! with the next write of its session, so that a node under load writes less often, not later.

use std::{sync::Arc, time::Duration};

use tokio::{task::yield_now, time::sleep};

use crate::{metrics::Metrics, router::Router};

/// After so many sessions others have their turn: 3 to 4 ms at 6 to 8 µs a write. Not oftener, as whoever yields goes on
/// on another core, if one is idle.
const AT_A_TIME: usize = 512;

/// Flushes a shard's outboxes for as long as it is polled. Events wait for others for `linger`, counted from the first
/// that is there.
pub async fn run(router: Arc<Router>, shard: usize, linger: Duration, metrics: Arc<Metrics>) {
    let mut touched = Vec::new();
    loop {
        router.touched(shard).await;
        if !linger.is_zero() {
            sleep(linger).await;
        }
        router.take_touched(shard, &mut touched);
        for part in touched.chunks(AT_A_TIME) {
            let mut sent = metrics.sent();
            for outbox in part {
                outbox.flush_live(&mut sent);
            }
            drop(sent);
            yield_now().await;
        }
        touched.clear();
    }
}
