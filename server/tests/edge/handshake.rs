//! Who is let in, and what they are told who are not.

use futures_util::FutureExt;
use serde_json::json;

use crate::client::{Socket, WEBSOCKET, closed, message, open, refused, session, text};
use crate::rig::{Edge, soon, token, token_with};

const V1: &str = "Sec-WebSocket-Protocol: rivulet.v1\r\n";

fn with_token(user: &str) -> String {
    format!("/api/v1/ws?token={}", token(user))
}

fn bearer(user: &str) -> String {
    format!("Authorization: Bearer {}\r\n", token(user))
}

#[tokio::test]
async fn the_token_may_stand_in_three_places_and_is_never_echoed() {
    let edge = Edge::start(&[]).await;
    for (path, headers, protocol) in [
        (with_token("u1"), String::new(), None),
        (with_token("u1").replace("/api/v1", ""), String::new(), None),
        ("/ws".to_owned(), bearer("u1"), None),
        ("/ws".to_owned(), bearer("u1").replace("Bearer", "bearer"), None),
        (
            "/ws".to_owned(),
            format!("Sec-WebSocket-Protocol: rivulet.v1, bearer.{}\r\n", token("u1")),
            Some("rivulet.v1"),
        ),
        (
            "/ws".to_owned(),
            format!("Sec-WebSocket-Protocol: bearer.{}\r\n{V1}", token("u1")),
            Some("rivulet.v1"),
        ),
    ] {
        let (_, answer) = open(&edge, &path, &headers).await;
        assert_eq!(answer.status, 101, "{path} {headers}");
        assert_eq!(answer.header("sec-websocket-protocol"), protocol);
        assert_eq!(
            answer.header("sec-websocket-accept"),
            Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
        assert!(!format!("{answer:?}").contains(&token("u1")));
    }
}

#[tokio::test]
async fn compression_is_agreed_on_where_it_is_offered_and_switched_on() {
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    for (compression, agreed) in [("true", true), ("false", false)] {
        let edge = Edge::start(&[("sessions.compression", compression)]).await;
        let (_, answer) = open(&edge, &with_token("u1"), offer).await;
        let extensions = answer.header("sec-websocket-extensions");
        assert_eq!(
            extensions.is_some_and(|extensions| extensions.starts_with("permessage-deflate")),
            agreed
        );
    }
}

#[tokio::test]
async fn what_is_no_handshake_is_refused_by_name() {
    let edge = Edge::start(&[]).await;
    let path = with_token("u1");
    let without = |header: &str| -> String {
        WEBSOCKET
            .split_inclusive("\r\n")
            .filter(|line| !line.starts_with(header))
            .collect()
    };
    let all = WEBSOCKET.to_owned();
    let table = [
        ("POST", "1.1", all.clone(), 405),
        ("HEAD", "1.1", all.clone(), 426),
        ("GET", "1.0", all.clone(), 400),
        ("GET", "1.1", without("Upgrade"), 426),
        ("GET", "1.1", without("Connection"), 426),
        ("GET", "1.1", without("Host"), 400),
        ("GET", "1.1", without("Sec-WebSocket-Version"), 426),
        ("GET", "1.1", without("Sec-WebSocket-Key"), 400),
        ("GET", "1.1", all.replace("13", "8"), 426),
        (
            "GET",
            "1.1",
            all.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"),
            400,
        ),
        (
            "GET",
            "1.1",
            format!("{all}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
            400,
        ),
        ("GET", "1.1", format!("{all}Content-Length: 5\r\n"), 400),
        ("GET", "1.1", format!("{all}Transfer-Encoding: chunked\r\n"), 400),
        (
            "GET",
            "1.1",
            all.replace("Upgrade: websocket", "Upgrade: h2c, WebSocket"),
            101,
        ),
        (
            "GET",
            "1.1",
            all.replace("Connection: Upgrade", "Connection: keep-alive, upgrade"),
            101,
        ),
    ];
    for (row, (method, version, headers, status)) in table.into_iter().enumerate() {
        let mut socket = Socket::connect(&edge).await;
        socket
            .send(format!("{method} {path} HTTP/{version}\r\n{headers}\r\n"))
            .await;
        let answer = socket.answer().await;
        assert_eq!(answer.status, status, "row {row}: {answer:?}");
        if status == 426 {
            assert_eq!(answer.header("sec-websocket-version"), Some("13"), "row {row}");
        }
    }
}

#[tokio::test]
async fn plain_clients_are_refused_by_http_and_v1_clients_in_frames() {
    let edge = Edge::start(&[("limits.devices_per_user", "1")]).await;
    let (_seated, _, _) = session(&edge, &with_token("taken"), "").await;
    let expired = format!("/ws?token={}", token_with("u1", json!({"exp": 1})));
    let origin = "Origin: https://elsewhere.example\r\n".to_owned();
    let table = [
        (
            "no token",
            "/ws".to_owned(),
            String::new(),
            401,
            "UNAUTHORIZED",
            4401,
            None,
        ),
        ("expired", expired, String::new(), 401, "UNAUTHORIZED", 4401, None),
        ("origin", with_token("u1"), origin, 403, "FORBIDDEN", 4403, None),
        (
            "no seat",
            with_token("taken"),
            String::new(),
            429,
            "RATE_LIMITED",
            4429,
            Some("60"),
        ),
    ];
    for (name, path, headers, status, code, close, retry_after) in table {
        let (answer, problem) = refused(&edge, &path, &headers).await;
        assert_eq!(
            (answer.status, &problem["code"]),
            (status, &json!(code)),
            "{name}"
        );
        assert_eq!(answer.header("retry-after"), retry_after, "{name}");
        assert_eq!(answer.header("connection"), Some("close"), "{name}");

        let (mut socket, answer) = open(&edge, &path, &format!("{headers}{V1}")).await;
        assert_eq!(answer.status, 101, "{name}");
        let mut read = answer.rest;
        let error = message(&mut socket, &mut read).await;
        assert_eq!(
            (&error["type"], &error["data"]["code"]),
            (&json!("error"), &json!(code)),
            "{name}"
        );
        let (number, reason) = closed(&mut socket, &mut read).await;
        assert_eq!(number, close, "{name}");
        assert!(!reason.contains("retry_after"), "{name}: {reason}");
    }
    assert_eq!(
        edge.router().census().sessions,
        1,
        "a refused client leaves nothing"
    );
}

#[tokio::test]
async fn a_node_that_is_not_current_sends_clients_away() {
    let edge = Edge::start(&[]).await;
    let ready = || async {
        let mut socket = Socket::connect(&edge).await;
        socket.send("GET /health/ready HTTP/1.1\r\nHost: x\r\n\r\n").await;
        socket.answer().await.status
    };
    assert_eq!(ready().await, 200);
    edge.is_current(false);
    assert_eq!(ready().await, 503);
    let (answer, problem) = refused(&edge, &with_token("u1"), "").await;
    assert_eq!((answer.status, &problem["code"]), (503, &json!("UNAVAILABLE")));
    assert_eq!(answer.header("retry-after"), Some("1"));

    let (mut socket, answer) = open(&edge, &with_token("u1"), V1).await;
    let mut read = answer.rest;
    assert_eq!(
        message(&mut socket, &mut read).await["data"]["code"],
        "UNAVAILABLE"
    );
    assert_eq!(
        closed(&mut socket, &mut read).await,
        (1013, r#"{"retry_after":1}"#.to_owned())
    );

    edge.is_current(true);
    session(&edge, &with_token("u1"), "").await;
}

#[tokio::test]
async fn an_address_that_comes_too_often_is_told_when_to_come_again() {
    let edge = Edge::start(&[("limits.handshakes_per_address", "1")]).await;
    session(&edge, &with_token("u1"), "").await;
    let (answer, problem) = refused(&edge, &with_token("u1"), "").await;
    assert_eq!((answer.status, &problem["code"]), (429, &json!("RATE_LIMITED")));
    assert_eq!(answer.header("retry-after"), Some("1"));

    let (mut socket, answer) = open(&edge, &with_token("u1"), V1).await;
    let mut read = answer.rest;
    assert_eq!(message(&mut socket, &mut read).await["data"]["retry_after"], 1.0);
    assert_eq!(
        closed(&mut socket, &mut read).await,
        (4429, r#"{"retry_after":1}"#.to_owned())
    );
}

#[tokio::test]
async fn connections_are_counted_by_the_address_that_a_trusted_proxy_names() {
    let settings = [("limits.connections_per_address", "1")];
    let trusting = [settings[0], ("edge.trusted_proxies", "127.0.0.0/8")];
    let from = |address: &str| format!("X-Forwarded-For: 203.0.113.9, {address}\r\n");

    let edge = Edge::start(&trusting).await;
    let _one = session(&edge, &with_token("u1"), &from("198.51.100.1")).await;
    let _two = session(&edge, &with_token("u2"), &from("198.51.100.2")).await;
    // What the client wrote itself, before the proxy appended to it, may be no text.
    let not_ascii = "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-For: caf\u{e9}, 198.51.100.1\r\n";
    for forwarded in [&from("198.51.100.1"), not_ascii] {
        let (answer, _) = refused(&edge, &with_token("u3"), forwarded).await;
        assert_eq!((answer.status, answer.header("retry-after")), (429, Some("10")));
    }

    let edge = Edge::start(&settings).await;
    let _one = session(&edge, &with_token("u1"), &from("198.51.100.1")).await;
    let (answer, _) = refused(&edge, &with_token("u2"), &from("198.51.100.2")).await;
    assert_eq!(answer.status, 429, "nobody else is believed");
}

#[tokio::test]
async fn origins() {
    let edge = Edge::start(&[("allowed_origins", "https://app.example")]).await;
    for (origin, status) in [
        ("http://rivulet.example", 101),
        ("https://RIVULET.example", 101),
        ("https://app.example", 101),
        ("https://app.example:8443", 403),
        ("http://app.example", 403),
        ("https://sub.app.example", 403),
        ("https://rivulet.example.evil", 403),
        ("null", 403),
        ("", 403),
    ] {
        let (_, answer) = open(&edge, &with_token("u1"), &format!("Origin: {origin}\r\n")).await;
        assert_eq!(answer.status, status, "{origin:?}");
    }
}

#[tokio::test]
async fn what_is_wrong_in_the_query_is_said_after_connected_and_counts_as_not_given() {
    let edge = Edge::start(&[("limits.max_patterns", "3")]).await;
    let viewer = token_with(
        "u1",
        json!({"rivulet": {"events": ["blob.*", "book.*"], "subscribe": ["book.created"]}}),
    );
    let device = "x".repeat(65);
    for (query, events, code, field) in [
        (
            "events=blob.created,blob.*",
            json!(["blob.created", "blob.*", "book.created"]),
            None,
            "",
        ),
        ("", json!(["book.created"]), None, ""),
        (
            "events=blob*",
            json!(["book.created"]),
            Some("INVALID_PATTERN"),
            "events[0]",
        ),
        (
            "events=blob.created,,blob*",
            json!(["book.created"]),
            Some("INVALID_PATTERN"),
            "events[2]",
        ),
        (
            "events=blob.*,conversation.*",
            json!(["book.created"]),
            Some("FORBIDDEN"),
            "events[1]",
        ),
        (
            "events=blob.a,blob.b,blob.c,blob.d",
            json!(["book.created"]),
            Some("TOO_MANY_PATTERNS"),
            "events[3]",
        ),
        (
            "stream=S&seq=-1",
            json!(["book.created"]),
            Some("INVALID_MESSAGE"),
            "seq",
        ),
        (
            "stream=S&seq=1e3",
            json!(["book.created"]),
            Some("INVALID_MESSAGE"),
            "seq",
        ),
        (
            "seq=1",
            json!(["book.created"]),
            Some("INVALID_MESSAGE"),
            "stream",
        ),
        (
            &format!("device={device}"),
            json!(["book.created"]),
            Some("INVALID_MESSAGE"),
            "device",
        ),
    ] {
        let path = format!("/ws?token={viewer}&{query}");
        let (mut socket, mut read, connected) = session(&edge, &path, "").await;
        assert_eq!(connected["events"], events, "{query}");
        assert_eq!(connected["resumed"], false, "{query}");
        // What comes next without a fault is the answer to this.
        socket.send(text(r#"{"type":"ping","id":"p"}"#)).await;
        let next = message(&mut socket, &mut read).await;
        match code {
            None => assert_eq!(next["type"], "pong", "{query}"),
            Some(code) => {
                assert_eq!(next["data"]["code"], code, "{query}");
                assert_eq!(next["data"]["field"], field, "{query}");
                assert_eq!(message(&mut socket, &mut read).await["type"], "pong", "{query}");
            }
        }
    }
}

#[tokio::test]
async fn a_device_that_comes_again_takes_its_seat() {
    let edge = Edge::start(&[("limits.devices_per_user", "1")]).await;
    let path = format!("{}&device=tab-1", with_token("u1"));
    let (mut ghost, mut read, _) = session(&edge, &path, "").await;
    let _again = session(&edge, &path, "").await;
    assert_eq!(closed(&mut ghost, &mut read).await, (4429, "replaced".to_owned()));
}

#[tokio::test]
async fn what_a_client_sends_behind_its_handshake_is_read() {
    let edge = Edge::start(&[]).await;
    let mut socket = Socket::connect(&edge).await;
    let handshake = format!("GET {} HTTP/1.1\r\n{WEBSOCKET}\r\n", with_token("u1"));
    let early = [text("nonsense"), text(r#"{"type":"ping","id":"early"}"#)].concat();
    socket.send([handshake.as_bytes(), &early].concat()).await;
    let answer = socket.answer().await;
    let mut read = answer.rest;
    assert_eq!(message(&mut socket, &mut read).await["type"], "connected");
    assert_eq!(
        message(&mut socket, &mut read).await["data"]["code"],
        "INVALID_JSON"
    );
    let pong = message(&mut socket, &mut read).await;
    assert_eq!((&pong["type"], &pong["id"]), (&json!("pong"), &json!("early")));
}

#[tokio::test]
async fn a_seat_is_free_once_its_socket_is_gone() {
    let edge = Edge::start(&[
        ("limits.devices_per_user", "1"),
        ("limits.connections_per_address", "1"),
    ])
    .await;
    for _ in 0..3 {
        drop(session(&edge, &with_token("u1"), "").await);
        edge.until("the seat to be free", |edge| edge.door.seats.users() == 0)
            .await;
    }
}

#[tokio::test]
async fn a_node_whose_feed_ended_lets_nobody_in() {
    let mut edge = Edge::start(&[]).await;
    edge.end_feed();
    let (answer, problem) = refused(&edge, &with_token("u1"), "").await;
    assert_eq!((answer.status, &problem["code"]), (503, &json!("UNAVAILABLE")));
    let mut probe = Socket::connect(&edge).await;
    probe.send("GET /health/ready HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(probe.answer().await.status, 503);
}

#[tokio::test]
async fn a_node_that_will_drain_is_not_ready_and_takes_newcomers() {
    let edge = Edge::start(&[]).await;
    edge.drain.announce();
    let mut probe = Socket::connect(&edge).await;
    probe.send("GET /health/ready HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(probe.answer().await.status, 503);
    let (mut client, mut read, _) = session(&edge, &with_token("u1"), "").await;
    edge.drain.begin(std::time::Duration::ZERO);
    assert_eq!(message(&mut client, &mut read).await["type"], "draining");
}

#[tokio::test]
async fn a_draining_node_lets_nobody_in() {
    let edge = Edge::start(&[]).await;
    let mut early = Socket::connect(&edge).await;
    edge.until("the socket to be accepted", |edge| edge.pending() == 1)
        .await;
    edge.drain.begin(std::time::Duration::ZERO);
    early
        .send(format!("GET {} HTTP/1.1\r\n{WEBSOCKET}\r\n", with_token("u1")))
        .await;
    assert_eq!(early.answer().await.status, 503);
    let (answer, problem) = refused(&edge, &with_token("u1"), "").await;
    assert_eq!((answer.status, &problem["code"]), (503, &json!("UNAVAILABLE")));
    let (mut late, answer) = open(&edge, &with_token("u1"), V1).await;
    let mut read = answer.rest;
    assert_eq!(message(&mut late, &mut read).await["type"], "error");
    assert_eq!(closed(&mut late, &mut read).await.0, 1013);
}

#[tokio::test]
async fn a_drain_waits_for_sessions_and_not_for_strangers() {
    let mut edge = Edge::start(&[]).await;
    let (mut staying, mut read, _) = session(&edge, &with_token("u1"), "").await;
    let _half_open = Socket::connect(&edge).await;
    edge.drain.begin(std::time::Duration::ZERO);
    let drain = std::mem::replace(&mut edge.drain, rivulet_router::shutdown::shutdown().0);
    let mut finished = Box::pin(drain.finished());
    assert_eq!(message(&mut staying, &mut read).await["type"], "draining");
    assert_eq!(closed(&mut staying, &mut read).await.0, 1001);
    // The session waits for the client's half of the close.
    assert!((&mut finished).now_or_never().is_none());
    drop(staying);
    soon("the end of the drain", finished).await;
}

#[tokio::test]
async fn pages() {
    let edge = Edge::start(&[]).await;
    for (path, status, kind) in [
        ("/", 200, "text/html; charset=utf-8"),
        ("/health/live", 200, "text/plain; charset=utf-8"),
        ("/health/startup", 200, "text/plain; charset=utf-8"),
        ("/schemas/events.json", 200, "application/json"),
        ("/schemas/../Cargo.toml", 404, "application/problem+json"),
        ("/nothing", 404, "application/problem+json"),
        ("/api/v1/ws", 426, "application/problem+json"),
    ] {
        let mut socket = Socket::connect(&edge).await;
        socket
            .send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
            .await;
        let answer = socket.answer().await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (status, Some(kind)),
            "{path}"
        );
        assert_eq!(answer.header("connection"), Some("close"), "{path}");
        socket.rest().await;
    }
}
