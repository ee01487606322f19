//! Every way to be turned away says why, in the form that each kind of client can read.

use futures_util::SinkExt;
use rivulet_tests::{
    client::{Client, Connect},
    nats::Nats,
    router::{Router, Setup},
    token::token,
};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

async fn refused_v1(mut client: Client) -> (String, u16) {
    let error = client.expect("error").await;
    (
        error["data"]["code"].as_str().unwrap().to_owned(),
        client.closed().await.0,
    )
}

#[tokio::test]
async fn a_bad_token() {
    let nats = Nats::start().await;
    let router = Router::start(&nats).await;
    for bad in ["", "nonsense", "a.b.c", &format!("{}x", token("ada"))] {
        let refused = Connect::plain(router.address, bad)
            .attempt()
            .await
            .err()
            .expect("refused");
        assert_eq!(
            (refused.status, &refused.problem["code"]),
            (401, &json!("UNAUTHORIZED"))
        );
        let v1 = Connect::v1(router.address, bad).open().await;
        assert_eq!(refused_v1(v1).await, ("UNAUTHORIZED".into(), 4401));
    }
}

#[tokio::test]
async fn a_foreign_origin() {
    let nats = Nats::start().await;
    let router = Setup::on(&nats)
        .set("allowed_origins", "https://app.example")
        .start()
        .await;
    let refused = router
        .plain("ada")
        .header("origin", "https://evil.example")
        .attempt()
        .await
        .err()
        .expect("refused");
    assert_eq!(
        (refused.status, &refused.problem["code"]),
        (403, &json!("FORBIDDEN"))
    );
    let v1 = router.v1("ada").header("origin", "null").open().await;
    assert_eq!(refused_v1(v1).await, ("FORBIDDEN".into(), 4403));
    router
        .plain("ada")
        .header("origin", "https://app.example")
        .ready()
        .await;
    router
        .plain("ada")
        .header("origin", &format!("http://{}", router.address))
        .ready()
        .await;
}

#[tokio::test]
async fn a_node_that_is_not_current() {
    let mut nats = Nats::start().await;
    let router = Router::start(&nats).await;
    nats.kill();
    rivulet_tests::until("the node to notice", async || {
        router.get("/health/ready").await.0 == 503
    })
    .await;
    let refused = router.plain("ada").attempt().await.err().expect("refused");
    assert_eq!(
        (refused.status, &refused.problem["code"]),
        (503, &json!("UNAVAILABLE"))
    );
    assert!(refused.retry_after.is_some());
    let v1 = router.v1("ada").open().await;
    assert_eq!(refused_v1(v1).await, ("UNAVAILABLE".into(), 1013));
    assert_eq!(router.get("/health/live").await.0, 200);
}

#[tokio::test]
async fn frames_that_have_no_place_here() {
    let nats = Nats::start().await;
    let router = Setup::on(&nats)
        .set("limits.max_message_bytes", "1KiB")
        .start()
        .await;
    for connect in [router.plain("ada"), router.v1("ada")] {
        let mut client = connect.ready().await;
        client.send_message(Message::binary(vec![1, 2, 3])).await;
        assert_eq!(client.closed().await.0, 1003);
        let mut client = connect.ready().await;
        // The router may close before it has taken all of it.
        let _ = client.socket().send(Message::text("x".repeat(1 << 20))).await;
        assert!(matches!(client.closed().await.0, 1009 | 1006));
        let mut client = connect.ready().await;
        client.send_text(&"x".repeat(1025)).await;
        assert_eq!(client.closed().await.0, 1009);
        let mut client = connect.ready().await;
        client.send(json!({ "type": "ping", "id": "x".repeat(65) })).await;
        assert_eq!(client.expect("error").await["data"]["code"], "TOO_LARGE");
        client
            .send(json!({ "type": "subscribe", "events": ["blob*"] }))
            .await;
        let error = client.expect("error").await;
        assert_eq!(
            (&error["data"]["code"], &error["data"]["field"]),
            (&json!("INVALID_PATTERN"), &json!("events[0]"))
        );
        client.socket().close(None).await.unwrap();
        assert!(matches!(client.closed().await.0, 1000 | 1005));
    }
}

#[tokio::test]
async fn json_a_million_deep() {
    let nats = Nats::start().await;
    let router = Setup::on(&nats)
        .set("limits.max_message_bytes", "4MiB")
        .start()
        .await;
    let mut client = router.plain("ada").ready().await;
    let deep = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    for message in [
        deep.clone(),
        format!(r#"{{"type":"subscribe","events":{deep}}}"#),
        format!(r#"{{"type":"create_blob","data":{deep}}}"#),
    ] {
        client.send_text(&message).await;
        client.expect("error").await;
    }
    client.send(json!({ "type": "ping" })).await;
    client.expect("pong").await;
}
