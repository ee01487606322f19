//! What a session is promised: patterns, answers, tokens, heartbeats, an orderly end.

use std::time::Duration;

use futures_util::SinkExt;
use rivulet_tests::{
    client::Connect,
    nats::Nats,
    publish::Publish,
    router::{Router, Setup},
    soon,
    token::{ending_soon, token, token_for, token_lasting},
    until,
};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

async fn parts() -> (Nats, Router, Publish) {
    let nats = Nats::start().await;
    let router = Router::start(&nats).await;
    let publish = Publish::on(&nats).await;
    (nats, router, publish)
}

#[tokio::test]
async fn patterns_are_added_and_removed() {
    let (_nats, router, publish) = parts().await;
    for patterns in [
        vec!["blob.created", "blob.updated", "processor.completed"],
        vec!["blob.*", "processor.*"],
        vec!["*"],
    ] {
        let mut client = router.plain("ada").ready().await;
        let subscribed = client.subscribe(&patterns).await;
        assert_eq!(subscribed["data"]["events"], json!(patterns));
        publish.blob("ada", "1").await;
        client.expect("blob.created").await;
        client
            .send(json!({ "type": "unsubscribe", "events": patterns }))
            .await;
        assert_eq!(client.expect("unsubscribed").await["data"]["events"], json!([]));
        publish.blob("ada", "2").await;
        let mut other = router.subscriber("ada", &["*"]).await;
        publish.blob("ada", "3").await;
        other.expect("blob.created").await;
        assert_eq!(client.drain().await, Vec::<Value>::new());
    }
}

#[tokio::test]
async fn one_subscribe_for_each_of_60_handlers() {
    let (_nats, router, publish) = parts().await;
    let mut client = router.plain("ada").open().await;
    for number in 0..60 {
        client
            .send(json!({ "type": "subscribe", "events": [format!("blob.kind{number}")] }))
            .await;
    }
    client.expect("connected").await;
    for number in 0..60 {
        let subscribed = client.expect("subscribed").await;
        assert_eq!(subscribed["data"]["events"].as_array().unwrap().len(), number + 1);
    }
    for number in [59, 0] {
        publish
            .raw(&format!("blob.kind{number}"), r#"{"user_id":"ada"}"#)
            .await;
        client.expect(&format!("blob.kind{number}")).await;
    }
}

#[tokio::test]
async fn who_reconnects_with_events_is_not_deaf() {
    let (_nats, router, publish) = parts().await;
    for _ in 0..2 {
        let mut client = router.plain("ada").query("events", "blob.*,book.*").open().await;
        let connected = client.expect("connected").await;
        assert_eq!(connected["data"]["events"], json!(["blob.*", "book.*"]));
        publish.blob("ada", "1").await;
        client.expect("blob.created").await;
    }
}

#[tokio::test]
async fn a_bad_query_is_told_after_connected_and_counts_as_not_given() {
    let (_nats, router, _publish) = parts().await;
    let mut client = router
        .plain("ada")
        .query("events", "blob.*,b*")
        .query("seq", "x")
        .query("device", &"d".repeat(65))
        .open()
        .await;
    assert_eq!(client.expect("connected").await["data"]["events"], json!([]));
    let mut faults = Vec::new();
    for _ in 0..3 {
        let error = client.expect("error").await;
        faults.push((
            error["data"]["code"].to_string(),
            error["data"]["field"].to_string(),
        ));
    }
    faults.sort();
    let expected = [
        ("INVALID_MESSAGE", "device"),
        ("INVALID_MESSAGE", "stream"),
        ("INVALID_PATTERN", "events[1]"),
    ];
    assert_eq!(
        faults,
        expected.map(|(code, field)| (format!("\"{code}\""), format!("\"{field}\"")))
    );
}

#[tokio::test]
async fn a_pong_comes_behind_everything_before_it() {
    let (_nats, router, publish) = parts().await;
    let mut client = router.subscriber("ada", &["*"]).await;
    let seq = publish.blob("ada", "1").await;
    client.expect("blob.created").await;
    client.send(json!({ "type": "ping", "id": "p" })).await;
    let pong = client.expect("pong").await;
    assert_eq!(
        (pong["id"].as_str(), pong["data"]["seq"].as_u64()),
        (Some("p"), Some(seq))
    );
}

#[tokio::test]
async fn the_star_is_all_that_the_token_permits() {
    let (_nats, router, publish) = parts().await;
    let limited = token_for("ada", json!({ "events": ["blob.*"] }));
    let mut client = Connect::plain(router.address, &limited).ready().await;
    client.subscribe(&["*", "error", "pong"]).await;
    client
        .send(json!({ "type": "subscribe", "events": ["book.*"], "id": "x" }))
        .await;
    let error = client.expect("error").await;
    assert_eq!(
        (&error["data"]["code"], &error["id"]),
        (&json!("FORBIDDEN"), &json!("x"))
    );
    publish
        .raw("book.created", r#"{"user_id":"ada","book_id":"b"}"#)
        .await;
    publish.blob("ada", "1").await;
    client.expect("blob.created").await;
}

#[tokio::test]
async fn the_claim_subscribe_is_in_force_from_the_start() {
    let (_nats, router, _publish) = parts().await;
    let token = token_for("ada", json!({ "subscribe": ["book.*"] }));
    let connected = Connect::plain(router.address, &token)
        .open()
        .await
        .expect("connected")
        .await;
    assert_eq!(connected["data"]["events"], json!(["book.*"]));
}

#[tokio::test]
async fn a_new_token_takes_the_place_of_the_old() {
    let (_nats, router, publish) = parts().await;
    let mut client = router.subscriber("ada", &["blob.*", "book.*", "*"]).await;
    for (token, code) in [
        (token("bob"), "FORBIDDEN"),
        ("not a token".into(), "UNAUTHORIZED"),
    ] {
        client
            .send(json!({ "type": "refresh_token", "token": token, "id": "r" }))
            .await;
        let error = client.expect("error").await;
        assert_eq!(
            (&error["data"]["code"], &error["id"]),
            (&json!(code), &json!("r"))
        );
    }
    let narrower = token_for("ada", json!({ "events": ["book.*"] }));
    client
        .send(json!({ "type": "refresh_token", "token": narrower, "id": "r" }))
        .await;
    let refreshed = client.expect("token_refreshed").await;
    assert!(refreshed["data"]["expires_in_ms"].as_u64().unwrap() > 3_000_000);
    assert_eq!(
        client.expect("subscribed").await["data"]["events"],
        json!(["book.*", "*"])
    );
    publish.blob("ada", "1").await;
    publish
        .raw("book.created", r#"{"user_id":"ada","book_id":"b"}"#)
        .await;
    client.expect("book.created").await;
}

#[tokio::test]
async fn an_expired_token_ends_the_session() {
    let (_nats, router, _publish) = parts().await;
    let mut client = ending_soon("ada", async |token| {
        Connect::plain(router.address, &token).try_ready().await
    })
    .await;
    client.expect("token_expiring").await;
    assert_eq!(client.closed().await.0, 4401);
}

#[tokio::test]
async fn a_token_that_is_known_ends_when_it_ends() {
    let (_nats, router, _publish) = parts().await;
    let (connect, mut sessions) = ending_soon("ada", async |token| {
        let connect = Connect::plain(router.address, &token);
        let first = connect.try_ready().await?;
        let hits = router.metric("rivulet_token_cache_hits_total").await;
        let second = connect.try_ready().await?;
        assert_eq!(router.metric("rivulet_token_cache_hits_total").await, hits + 1.0);
        Some((connect, [first, second]))
    })
    .await;
    for session in &mut sessions {
        session.expect("token_expiring").await;
        assert_eq!(session.closed().await.0, 4401);
    }
    let refused = connect.attempt().await.err().expect("it has ended");
    assert_eq!(refused.status, 401);
}

#[tokio::test]
async fn a_refreshed_token_outlives_the_old() {
    let (_nats, router, _publish) = parts().await;
    let (mut client, old, new) = ending_soon("ada", async |old| {
        let mut client = Connect::plain(router.address, &old).try_ready().await?;
        let expiring = client.next_or_close().await.ok()?;
        assert_eq!(expiring["type"], "token_expiring");
        let old = expiring["data"]["expires_at"].clone();
        let token = token_lasting("ada", Duration::from_secs(10));
        let sent = client.socket().send(Message::text(
            json!({ "type": "refresh_token", "token": token }).to_string(),
        ));
        sent.await.ok()?;
        let refreshed = client.next_or_close().await.ok()?;
        (refreshed["type"] == "token_refreshed")
            .then(|| (client, old, refreshed["data"]["expires_at"].clone()))
    })
    .await;
    assert_ne!(old, new);
    // The session's next end is the new token's, not the old one's.
    let expiring = client.expect("token_expiring").await;
    assert_eq!(expiring["data"]["expires_at"], new);
    assert_eq!(client.closed().await.0, 4401);
}

#[tokio::test]
async fn silence_is_filled_with_heartbeats() {
    let nats = Nats::start().await;
    // A client that does not come to its turn for twice as long is let go.
    let router = Setup::on(&nats).set("sessions.heartbeat", "3s").start().await;
    let publish = Publish::on(&nats).await;
    let mut client = router.v1("ada").ready().await;
    let seq = publish.blob("bob", "1").await;
    let heard = client.expect("heartbeat").await["data"]["seq"].as_u64().unwrap();
    assert!(heard <= seq);
    while client.expect("heartbeat").await["data"]["seq"] != seq {}
}

#[tokio::test]
async fn who_misses_two_heartbeats_is_let_go() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let nats = Nats::start().await;
    let router = Setup::on(&nats).set("sessions.heartbeat", "1s").start().await;
    // It reads and never answers: no library would do that.
    let mut socket = tokio::net::TcpStream::connect(router.address).await.unwrap();
    let request = format!(
        "GET /ws?token={} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        token("ada")
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut received = Vec::new();
    soon("the end", socket.read_to_end(&mut received)).await.unwrap();
    let close = 4408_u16.to_be_bytes();
    assert!(
        received.windows(2).any(|window| window == [0x89, 0]),
        "a WebSocket ping came first"
    );
    assert!(
        received.windows(2).any(|window| window == close),
        "then the close"
    );
}

#[tokio::test]
async fn a_drain_tells_every_session_and_ends() {
    let (_nats, mut router, _publish) = parts().await;
    let mut clients = [router.plain("ada").ready().await, router.v1("ada").ready().await];
    router.begin_end();
    for client in &mut clients {
        let draining = client.expect("draining").await;
        assert!(
            draining["data"]["stream"]
                .as_str()
                .unwrap()
                .starts_with("RIVULET@")
        );
        assert_eq!(client.closed().await.0, 1001);
    }
    router.end().await.unwrap();
}

#[tokio::test]
async fn a_node_that_drains_says_so_until_it_ends() {
    let nats = Nats::start().await;
    let mut router = Setup::on(&nats).set("drain.spread", "10m").start().await;
    // Each leaves at a moment of its own within the spread; that all do within this test is out of the question.
    let mut staying = Vec::new();
    for _ in 0..4 {
        staying.push(router.v1("ada").ready().await);
    }
    assert_eq!(router.admin_page("/health/ready").await, "ready");
    router.begin_end();
    until("readiness to end", async || {
        router.get("/health/ready").await.0 == 503
    })
    .await;
    let (_, problem) = router.get("/health/ready").await;
    let admin: Value = serde_json::from_str(&router.admin_page("/health/ready").await).unwrap();
    for problem in [&problem, &admin] {
        assert_eq!(problem["status"], 503);
        assert!(
            problem["detail"].as_str().unwrap().contains("draining"),
            "{problem}"
        );
    }
    let health: Value = serde_json::from_str(&router.admin_page("/health").await).unwrap();
    assert_eq!(health["status"], "draining");
    let page = reqwest::get(format!("http://{}/health/live", router.address)).await;
    assert_eq!(page.unwrap().status(), 200, "it lives all the same");

    assert_eq!(router.plain("eve").attempt().await.err().unwrap().status, 503);
    let mut late = router.v1("eve").open().await;
    assert_eq!(late.expect("error").await["data"]["code"], "UNAVAILABLE");
    assert_eq!(late.closed().await.0, 1013);

    let (address, admin) = (router.address, router.admin);
    drop(staying);
    router.end().await.unwrap();
    for port in [address, admin] {
        let end = tokio::net::TcpStream::connect(port).await;
        assert!(end.is_err(), "{port} is still open");
    }
}

#[tokio::test]
async fn fifty_sessions_of_one_development_token() {
    let nats = Nats::start().await;
    let router = Setup::on(&nats).set("dev", "true").start().await;
    let publish = Publish::on(&nats).await;
    let mut clients = Vec::new();
    for _ in 0..50 {
        let mut client = Connect::plain(router.address, "test_token").ready().await;
        client.subscribe(&["blob.*"]).await;
        clients.push(client);
    }
    for number in 0..10 {
        publish.blob("test_token", &number.to_string()).await;
    }
    for client in &mut clients {
        for number in 0..10 {
            let event = client.next().await;
            assert_eq!(event["type"], "blob.created");
            assert_eq!(event["data"]["blob_id"], number.to_string());
        }
    }
}
