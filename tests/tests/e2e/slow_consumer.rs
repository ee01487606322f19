//! One slow reader delays nobody and costs a bounded amount of memory.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use rivulet_tests::{
    nats::Nats,
    publish::{Publish, blob_created},
    router::Setup,
    until,
};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_200_readers_the_one_that_stops_is_closed_and_the_others_miss_nothing() {
    const READERS: usize = 200;
    const EVENTS: usize = 2_000;
    const BOUND: u64 = 256 << 10;
    /// Events that the publisher may be ahead of the slowest of the others: fewer than an outbox holds.
    const AHEAD: usize = 16;

    let nats = Nats::start().await;
    let router = Setup::on(&nats)
        .set("limits.devices_per_user", "0")
        .set("sessions.outbox_bytes", "256KiB")
        .set("sessions.outbox_events", "10000")
        .set("sessions.max_event_bytes", "64KiB")
        .start()
        .await;
    let mut stopped = router.subscriber("ada", &["*"]).await;
    let mut readers = tokio::task::JoinSet::new();
    let read: Arc<Vec<AtomicUsize>> = Arc::new((1..READERS).map(|_| AtomicUsize::new(0)).collect());
    for reader in 1..READERS {
        let mut client = router.subscriber("ada", &["*"]).await;
        let read = Arc::clone(&read);
        readers.spawn(async move {
            for number in 0..EVENTS {
                assert_eq!(
                    client.expect("blob.created").await["data"]["blob_id"],
                    number.to_string()
                );
                read[reader - 1].store(number + 1, Ordering::Relaxed);
            }
        });
    }
    let mut data = blob_created("ada", "");
    // 2,000 events of 8 KB are far beyond what the kernel buffers for one loopback socket.
    data["preview"] = "x".repeat(8_000).into();
    let jetstream = async_nats::jetstream::new(nats.client().await);
    let mut waiting = 0;
    for number in 0..EVENTS {
        // The readers share this machine with whatever else it does: none of them is to fall behind for that.
        until("the others to read", async || {
            let slowest = read.iter().map(|read| read.load(Ordering::Relaxed)).min();
            slowest >= Some(number.saturating_sub(AHEAD))
        })
        .await;
        data["blob_id"] = number.to_string().into();
        jetstream
            .publish("blob.created", data.to_string().into())
            .await
            .unwrap()
            .await
            .unwrap();
        if number % 100 == 0 {
            let health: Value = serde_json::from_str(&router.admin_page("/health").await).unwrap();
            waiting = waiting.max(health["queue_bytes"].as_u64().unwrap());
        }
    }
    until("the slow reader to be cut", async || {
        router
            .metric("rivulet_connections_closed_total{code=\"4413\"}")
            .await
            == 1.0
    })
    .await;
    while let Some(reader) = readers.join_next().await {
        reader.unwrap();
    }
    assert!(waiting <= READERS as u64 * BOUND, "{waiting} bytes waited");
    assert_eq!(router.metric("rivulet_outbox_overflows_total").await, 1.0);

    // What it reads when it reads on is whole, in order, and at its end says why.
    let mut number = 0;
    let code = loop {
        match stopped.next_or_close().await {
            Ok(event) => {
                assert_eq!(event["data"]["blob_id"], number.to_string());
                number += 1;
            }
            Err((code, _)) => break code,
        }
    };
    assert!(number < EVENTS);
    assert!(matches!(code, 4413 | 1006), "{code}");
}

/// It used to be cut only when its write had made no progress for the whole deadline.
#[tokio::test]
async fn a_reader_that_stops_is_cut_as_soon_as_its_outbox_is_full() {
    let nats = Nats::start().await;
    let router = Setup::on(&nats)
        .set("sessions.outbox_bytes", "64KiB")
        .set("sessions.max_event_bytes", "16KiB")
        .set("sessions.write_deadline", "5m")
        .start()
        .await;
    let _stopped = router.subscriber("ada", &["*"]).await;
    let publish = Publish::on(&nats).await;
    let mut data = blob_created("ada", "");
    data["preview"] = "x".repeat(15_000).into();
    for _ in 0..1_000 {
        publish.raw("blob.created", data.to_string()).await;
    }
    until("it to be cut", async || {
        router
            .metric("rivulet_connections_closed_total{code=\"4413\"}")
            .await
            == 1.0
    })
    .await;
}
