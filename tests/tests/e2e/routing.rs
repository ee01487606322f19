//! An event reaches the sessions of its user that want it, in order, once, and nobody else.

use rivulet_tests::{
    nats::Nats,
    publish::Publish,
    router::{Router, Setup},
};
use serde_json::json;

#[tokio::test]
async fn a_plain_client_gets_one_object_a_frame() {
    let nats = Nats::start().await;
    let router = Router::start(&nats).await;
    let publish = Publish::on(&nats).await;
    let mut client = router.plain("ada").open().await;
    let connected = client.expect("connected").await;
    assert_eq!(connected["data"]["user_id"], "ada");
    assert_eq!(connected["data"]["durable"], true);
    client
        .send(json!({ "type": "subscribe", "events": ["blob.created"], "id": "1" }))
        .await;
    let subscribed = client.expect("subscribed").await;
    assert_eq!(subscribed["data"]["events"], json!(["blob.created"]));
    assert_eq!(subscribed["id"], "1");

    let data = r#"{"zeta": 1.0, "blob_id":"b1","user_id":"ada","processor_id":"p","schema_id":"s","preview":"caf\u00e9","created_at":"2026-01-01T00:00:00Z","big":12345678901234567890}"#;
    let seq = publish.raw("blob.created", data).await;
    let event = client.expect("blob.created").await;
    assert_eq!(event["seq"], seq);
    assert_eq!(event["data"]["blob_id"], "b1");
    assert!(event["time"].is_string());
    assert_eq!(client.frames, 3);
}

#[tokio::test]
async fn the_schemas_are_served() {
    let nats = Nats::start().await;
    let router = Router::start(&nats).await;
    let (status, bundle) = router.get("/schemas/events.json").await;
    assert_eq!(status, 200);
    let types: Vec<_> = bundle["oneOf"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| &event["title"])
        .collect();
    assert!(types.contains(&&json!("blob.created")), "{types:?}");
    assert_eq!(router.get("/schemas/messages/pong.json").await.1["title"], "pong");
    assert_eq!(router.get("/asyncapi.json").await.1["info"]["title"], "Rivulet");
    assert_eq!(router.get("/schemas/../Cargo.toml").await.0, 404);
}

#[tokio::test]
async fn what_comes_while_the_writer_lingers_rides_in_one_frame_with_a_client_that_takes_arrays() {
    let nats = Nats::start().await;
    let router = Setup::on(&nats).set("sessions.linger", "1s").start().await;
    let publish = Publish::on(&nats).await;
    let mut v1 = router.v1("ada").query("events", "blob.created").ready().await;
    let mut plain = router.plain("ada").query("events", "blob.created").ready().await;
    publish.blobs("ada", 3).await;
    for (client, frames) in [(&mut v1, 1), (&mut plain, 3)] {
        let before = client.frames;
        for number in 0..3 {
            let event = client.expect("blob.created").await;
            assert_eq!(event["data"]["blob_id"], number.to_string());
        }
        assert_eq!(client.frames - before, frames);
    }
}
