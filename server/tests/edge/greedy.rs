//! What a client with a session may cost: one that does not read, and one that never stops talking.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use rivulet_protocol::{event::EventType, scalar::Timestamp, subject::UserId};
use rivulet_router::event::{Audience, Event};
use serde_json::json;

use crate::client::{Socket, closed, message, session, text};
use crate::rig::{Edge, soon, token, token_with};

/// Nothing of the clock's comes between.
const NO_HEARTBEAT: (&str, &str) = ("sessions.heartbeat", "5m");

/// A control frame of a client, with a mask of zeros.
fn control(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    frame.extend(payload);
    frame
}

fn event(user: &str, bytes: usize) -> Event {
    Event {
        event_type: EventType::parse("blob.created").unwrap(),
        audience: Audience::Users(vec![UserId::parse(user).unwrap()]),
        data: Bytes::from(json!({ "preview": "x".repeat(bytes) }).to_string()),
        seq: None,
        time: Timestamp::parse("2026-01-01T00:00:00Z").unwrap(),
        as_error: None,
        received_at: std::time::Instant::now(),
    }
}

/// Sends the user events until their socket takes no more. The shard's flusher takes outboxes in the order in which
/// they were filled, so what still waits when another session has its event was tried, and refused by the socket.
async fn fill(edge: &Edge, user: &str) {
    let path = format!("/ws?token={}&events=*", token("witness"));
    let (mut witness, mut read, _) = session(edge, &path, "").await;
    let (large, small) = (event(user, 60_000), event("witness", 0));
    loop {
        assert_eq!(edge.router().dispatch(&large), 1);
        assert_eq!(edge.router().dispatch(&small), 1);
        assert_eq!(message(&mut witness, &mut read).await["type"], "blob.created");
        if edge.router().census().waiting_messages > 0 {
            return;
        }
    }
}

#[tokio::test]
async fn a_ping_that_came_while_the_socket_was_full_is_answered_as_soon_as_there_is_room() {
    let edge = Edge::start(&[NO_HEARTBEAT, ("sessions.write_deadline", "1m")]).await;
    let path = format!("/ws?token={}&events=*", token("u1"));
    let (mut socket, mut read, _) = session(&edge, &path, "").await;
    fill(&edge, "u1").await;
    let bytes = &edge.door.node.metrics.messages.bytes_received;
    let before = bytes.get();
    socket.send(control(9, b"are you there?")).await;
    edge.until("the ping to be read", |_| bytes.get() > before).await;
    loop {
        let (opcode, payload) = socket.frame(&mut read).await;
        if opcode == 10 {
            assert_eq!(payload, b"are you there?");
            break;
        }
    }
}

#[tokio::test]
async fn a_burst_within_the_rate_is_answered_however_few_reads_it_takes() {
    let edge = Edge::start(&[NO_HEARTBEAT]).await;
    let path = format!("/ws?token={}", token("u1"));
    let (mut socket, mut read, _) = session(&edge, &path, "").await;
    // 120 pings at once are tolerated.
    let pings: Vec<u8> = (0..120)
        .flat_map(|id| text(&json!({ "type": "ping", "id": id.to_string() }).to_string()))
        .collect();
    socket.send(pings).await;
    for id in 0..120 {
        let pong = message(&mut socket, &mut read).await;
        assert_eq!(
            (&pong["type"], &pong["id"]),
            (&json!("pong"), &json!(id.to_string()))
        );
    }
}

#[tokio::test]
async fn who_is_to_leave_and_does_not_read_is_not_read_either() {
    /// More than both sockets' buffers hold.
    const MUCH: usize = 64 << 20;
    let edge = Edge::start(&[NO_HEARTBEAT, ("sessions.write_deadline", "1s")]).await;
    let path = format!("/ws?token={}&events=*&device=tab", token("u1"));
    let (socket, _, _) = session(&edge, &path, "").await;
    fill(&edge, "u1").await;
    // Another session of the device takes its seat.
    let _other = session(&edge, &path, "").await;
    let mut stream = socket.0.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    let written = thread::spawn(move || {
        let pongs = control(10, &[0; 100]).repeat(10_000);
        let mut written = 0;
        while written < MUCH {
            match stream.write(&pongs) {
                Ok(more) => written += more,
                Err(_) => break,
            }
        }
        written
    });
    let written = soon("the end", tokio::task::spawn_blocking(|| written.join().unwrap())).await;
    assert!(written.unwrap() < MUCH, "all of it was read");
}

/// Says this again and again until the router ends the session. Returns the code of its close.
async fn talk(edge: &Edge, socket: Socket, what: Vec<u8>) -> u16 {
    let mut stream = socket.0.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    let flood = stream.try_clone().unwrap();
    thread::spawn(move || {
        let chunk = what.repeat((64 << 10) / what.len());
        let mut flood: TcpStream = flood;
        while flood.write_all(&chunk).is_ok() {}
    });
    let reading = tokio::task::spawn_blocking(move || {
        let (mut frames, mut chunk) = (Vec::new(), vec![0; 64 << 10]);
        loop {
            match stream.read(&mut chunk) {
                Ok(0) => panic!("no close came"),
                Ok(read) => frames.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("no close came: {error}"),
            }
            while let Some((opcode, payload, length)) = crate::client::frame(&frames) {
                frames.drain(..length);
                if opcode == 8 {
                    let _ = stream.shutdown(Shutdown::Both);
                    return u16::from_be_bytes([payload[0], payload[1]]);
                }
            }
        }
    });
    let code = soon("the close", reading).await.unwrap();
    edge.until("the session to be gone", |edge| {
        edge.router().census().sessions == 0
    })
    .await;
    code
}

/// What is not charged in a session's first seconds.
fn subscribe() -> Vec<u8> {
    text(r#"{"type":"subscribe","events":["blob.*"]}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_ends_also_for_who_never_stops_talking() {
    let edge = Edge::start(&[NO_HEARTBEAT]).await;
    let (mut socket, mut read, _) = session(&edge, &format!("/ws?token={}", token("u1")), "").await;
    // The handshake may take its time; what follows has a token that ends within 2 s.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let short = token_with("u1", json!({ "exp": now.as_secs() + 2 }));
    let refresh = json!({ "type": "refresh_token", "token": short });
    socket.send(text(&refresh.to_string())).await;
    assert_eq!(message(&mut socket, &mut read).await["type"], "token_refreshed");
    assert_eq!(talk(&edge, socket, subscribe()).await, 4401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_drains_does_not_wait_for_who_never_stops_talking() {
    let edge = Arc::new(Edge::start(&[NO_HEARTBEAT]).await);
    let (socket, _, _) = session(&edge, &format!("/ws?token={}", token("u1")), "").await;
    let talking = {
        let edge = Arc::clone(&edge);
        tokio::spawn(async move { talk(&edge, socket, subscribe()).await })
    };
    let bytes = &edge.door.node.metrics.messages.bytes_received;
    edge.until("it to talk", |_| bytes.get() > 100_000).await;
    edge.drain.begin(Duration::ZERO);
    assert_eq!(talking.await.unwrap(), 1001);
}

#[tokio::test(flavor = "multi_thread")]
async fn pongs_that_nobody_asked_for_are_charged() {
    let edge = Edge::start(&[NO_HEARTBEAT]).await;
    let (socket, _, _) = session(&edge, &format!("/ws?token={}", token("u1")), "").await;
    assert_eq!(talk(&edge, socket, control(10, b"")).await, 1008);
}

#[tokio::test]
async fn the_answer_to_a_ping_of_ours_costs_nothing() {
    let edge = Edge::start(&[
        ("sessions.heartbeat", "1s"),
        ("limits.ping.burst", "1"),
        ("limits.ping.per_second", "1"),
        ("limits.bad_messages_per_minute", "1"),
    ])
    .await;
    let (mut socket, mut read, _) = session(&edge, &format!("/ws?token={}", token("u1")), "").await;
    let (opcode, _) = socket.frame(&mut read).await;
    assert_eq!(opcode, 9);
    // The first is the answer. One more is within the rate, and another is tolerated.
    socket.send(control(10, b"").repeat(3)).await;
    socket.send(subscribe()).await;
    assert_eq!(message(&mut socket, &mut read).await["type"], "subscribed");
    socket.send(control(10, b"").repeat(2)).await;
    assert_eq!(closed(&mut socket, &mut read).await.0, 1008);
}
