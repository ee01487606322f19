//! What is counted as being there goes when it is gone, however it goes.

use serde_json::json;

use crate::{
    client::{message, session, text},
    rig::{Edge, token},
};

fn process() -> Vec<u8> {
    text(&json!({ "type": "process_blob", "data": { "blob_id": "b", "processor_id": "p" } }).to_string())
}

#[tokio::test]
async fn gauges_fall_when_a_session_leaves_in_mid_command() {
    let edge = Edge::start(&[]).await;
    let path = format!("/ws?token={}", token("u1"));
    let (mut socket, _, _) = session(&edge, &path, "").await;
    let metrics = &edge.door.node.metrics;
    for _ in 0..2 {
        socket.send(process()).await;
    }
    edge.until("both commands are in flight", |_| {
        metrics.commands.in_flight.get() == 2
    })
    .await;
    drop(socket);
    edge.until("the session is gone", |_| metrics.connections.open.get() == 0)
        .await;
    edge.until("no command is in flight", |_| {
        metrics.commands.in_flight.get() == 0
    })
    .await;
}

#[tokio::test]
async fn gauges_fall_when_a_session_panics() {
    let edge = Edge::start(&[]).await;
    let path = format!("/ws?token={}&events=blob.*", token("u1"));
    let (mut socket, mut read, _) = session(&edge, &path, "").await;
    let metrics = &edge.door.node.metrics;
    socket.send(process()).await;
    socket.send(text(r#"{"type":"ping"}"#)).await;
    assert_eq!(message(&mut socket, &mut read).await["type"], "pong");
    assert_eq!(metrics.commands.in_flight.get(), 1);
    assert_eq!(metrics.messages.subscriptions.of("blob").get(), 1);
    // The rig's backend panics at this.
    socket
        .send(text(
            r#"{"type":"create_blob","data":{"content":"c","schema_id":"s"}}"#,
        ))
        .await;
    for (what, gauge) in [
        ("sessions", &metrics.connections.open),
        ("handshakes", &metrics.connections.pending),
        ("commands", &metrics.commands.in_flight),
        ("patterns", &metrics.messages.subscriptions.of("blob")),
    ] {
        edge.until(what, |_| gauge.get() == 0).await;
    }
    edge.until("the session counts as closed by our fault", |_| {
        metrics.connections.closed.of("1011").get() == 1
    })
    .await;
}
