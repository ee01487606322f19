//! What happens when NATS goes, comes back, or carries what it should not.

use futures_util::StreamExt;
use rivulet_tests::{
    nats::{Nats, settle},
    publish::{Publish, blob_created},
    router::Router,
    soon, until,
};

#[tokio::test]
async fn nats_restarts_and_the_router_comes_back_by_itself() {
    let mut nats = Nats::start().await;
    let router = Router::start(&nats).await;
    let mut client = router.subscriber("ada", &["*"]).await;
    let publish = Publish::on(&nats).await;
    let before = publish.blob("ada", "before").await;
    client.expect("blob.created").await;
    nats.kill();
    until("the node to notice", async || {
        router.get("/health/ready").await.0 == 503
    })
    .await;
    nats.revive().await;
    until("the node to be ready again", async || {
        router.get("/health/ready").await.0 == 200
    })
    .await;
    let publish = Publish::on(&nats).await;
    let after = publish.blob("ada", "after").await;
    let event = client.skip_to("blob.created").await;
    assert_eq!(event["data"]["blob_id"], "after");
    assert_eq!(event["seq"], after);
    assert_eq!(after, before + 1);
}

#[tokio::test]
async fn what_was_stored_meanwhile_comes_too() {
    let mut nats = Nats::start().await;
    let router = Router::start(&nats).await;
    let mut client = router.subscriber("ada", &["*"]).await;
    let before = Publish::on(&nats).await.blob("ada", "1").await;
    client.expect("blob.created").await;
    nats.kill();
    until("the node to notice", async || {
        router.get("/health/ready").await.0 == 503
    })
    .await;
    nats.revive().await;
    // Whether the router or this publisher is back first makes no difference.
    let publish = Publish::on(&nats).await;
    for number in 1..=20 {
        assert_eq!(publish.blob("ada", "2").await, before + number);
    }
    for number in 1..=20 {
        assert_eq!(client.expect("blob.created").await["seq"], before + number);
    }
}

#[tokio::test]
async fn forged_sequence_headers_change_nothing() {
    let nats = Nats::start().await;
    let router = Router::start(&nats).await;
    let mut client = router.subscriber("ada", &["*"]).await;
    let publish = Publish::on(&nats).await;
    let forged = [
        ("Nats-Sequence", "999999"),
        ("Nats-Stream", "OTHER"),
        ("Nats-Subject", "book.created"),
        ("Nats-Last-Sequence", "7"),
        ("Nats-Time-Stamp", "1999-01-01T00:00:00Z"),
    ];
    for number in 0..3 {
        let data = blob_created("ada", &number.to_string()).to_string();
        let seq = publish.with_headers("blob.created", &forged, data).await;
        let event = client.expect("blob.created").await;
        assert_eq!(event["seq"], seq);
        assert!(!event["time"].as_str().unwrap().starts_with("1999"));
    }
}

#[tokio::test]
async fn what_breaks_a_rule_is_shown_and_nothing_else_is_lost() {
    let nats = Nats::start().await;
    let router = Router::start(&nats).await;
    let mut client = router.subscriber("ada", &["*"]).await;
    let watcher = nats.client().await;
    let mut rejected = watcher.subscribe("rivulet.rejected.>").await.unwrap();
    settle(&watcher).await;
    let publish = Publish::on(&nats).await;
    publish.raw("blob.created", r#"{"user_id":"ada"}"#).await;
    let message = soon("the rejected event", rejected.next()).await.unwrap();
    assert_eq!(message.subject.as_str(), "rivulet.rejected.blob.created");
    let megabyte = format!(r#"{{"user_id":"ada","x":"{}"}}"#, "x".repeat(1_000_000));
    publish.raw("blob.updated", megabyte).await;
    let message = soon("the rejected event", rejected.next()).await.unwrap();
    assert_eq!(message.subject.as_str(), "rivulet.rejected.blob.updated");
    assert!(message.payload.len() < 4_096, "only what it was and why");
    publish.blob("ada", "good").await;
    assert_eq!(client.expect("blob.created").await["data"]["blob_id"], "good");
    assert_eq!(
        router
            .metric("rivulet_events_rejected_total{rule=\"too_large\"}")
            .await,
        1.0
    );
}
