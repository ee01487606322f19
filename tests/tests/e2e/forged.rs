//! What comes in the stream's name and is not the stream's is put right.

use rivulet_tests::{
    nats::Nats,
    publish::{Publish, blob_created},
    router::Setup,
    until,
};

/// Publishes what only the server publishes: a message of the stream.
async fn forge(client: &async_nats::Client, seq: u64, user: &str, blob_id: &str) {
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Stream", "RIVULET");
    headers.insert("Nats-Subject", "blob.created");
    headers.insert("Nats-Sequence", seq.to_string().as_str());
    headers.insert("Nats-Time-Stamp", "2040-01-01T00:00:00Z");
    let payload = blob_created(user, blob_id).to_string();
    client
        .publish_with_headers("rivulet.live.blob.created", headers, payload.into())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_forged_next_event_is_replaced_by_the_streams() {
    let nats = Nats::start().await;
    let router = Setup::on(&nats).start().await;
    let publish = Publish::on(&nats).await;
    let client = nats.client().await;
    let mut ada = router.subscriber("ada", &["blob.*"]).await;
    let mut bob = router.subscriber("bob", &["blob.*"]).await;

    // To ada, where the stream has one for bob.
    forge(&client, 1, "ada", "false").await;
    assert_eq!(ada.expect("blob.created").await["data"]["blob_id"], "false");
    publish.blob("bob", "true").await;
    let gap = ada.expect("gap").await;
    assert_eq!(gap["data"]["reason"], "replaced");
    assert_eq!(
        (&gap["data"]["from_seq"], &gap["data"]["to_seq"]),
        (&1.into(), &0.into())
    );
    assert_eq!(ada.expect("heartbeat").await["data"]["seq"], 1);
    assert_eq!(bob.expect("gap").await["data"]["to_seq"], 0);
    let event = bob.expect("blob.created").await;
    assert_eq!(
        (&event["seq"], &event["data"]["blob_id"]),
        (&1.into(), &"true".into())
    );
    assert_eq!(bob.expect("heartbeat").await["data"]["seq"], 1);

    // To ada, where the stream has another for her.
    forge(&client, 2, "ada", "false").await;
    assert_eq!(ada.expect("blob.created").await["data"]["blob_id"], "false");
    publish.blob("ada", "true").await;
    assert_eq!(ada.expect("gap").await["data"]["to_seq"], 1);
    assert_eq!(ada.expect("blob.created").await["data"]["blob_id"], "true");
    assert_eq!(ada.expect("heartbeat").await["data"]["seq"], 2);

    // Too late to be seen.
    forge(&client, 2, "ada", "late").await;
    until("all three to be counted", async || {
        router.metric("rivulet_feed_forged_total").await == 3.0
    })
    .await;
    publish.blob("ada", "next").await;
    assert_eq!(ada.expect("blob.created").await["data"]["blob_id"], "next");

    // The past has what the stream has.
    let stream = router.plain("ada").open().await.expect("connected").await["data"]["stream"].clone();
    let again = router.plain("ada").query("events", "blob.*");
    let again = again.query("stream", stream.as_str().unwrap()).query("seq", "0");
    let mut again = again.open().await;
    again.expect("connected").await;
    for blob_id in ["true", "next"] {
        assert_eq!(again.expect("blob.created").await["data"]["blob_id"], blob_id);
    }
}
