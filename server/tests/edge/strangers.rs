//! What a stranger may cost: time, sockets, bytes.

use tokio::io::AsyncWriteExt;

use crate::client::{Socket, WEBSOCKET, open, session};
use crate::rig::{Edge, soon, token};

/// Short, so that the test is; nothing here depends on how short.
const HEADER_TIMEOUT: (&str, &str) = ("edge.header_timeout", "300ms");

/// Longer than any test takes.
const PATIENT: (&str, &str) = ("edge.header_timeout", "1m");

/// All that come to a test come from one address; where several are meant, this lets them.
const ANY_ADDRESS: (&str, &str) = ("edge.max_pending_handshakes_per_address", "0");

#[tokio::test]
async fn a_socket_that_says_nothing_is_closed() {
    let edge = Edge::start(&[HEADER_TIMEOUT]).await;
    let mut socket = Socket::connect(&edge).await;
    assert!(socket.rest().await.is_empty());
    edge.until("it to be counted", |edge| edge.dropped("header_timeout") == 1)
        .await;
    assert_eq!(edge.pending(), 0);
}

#[tokio::test]
async fn headers_that_drip_are_cut_off() {
    let edge = Edge::start(&[HEADER_TIMEOUT]).await;
    let mut socket = Socket::connect(&edge).await;
    socket.send("GET /ws HTTP/1.1\r\n").await;
    let drip = async {
        // Never silent for long, never done.
        while socket.0.write_all(b"X: y\r\n").await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    soon("the end of patience", drip).await;
    edge.until("it to be counted", |edge| edge.dropped("header_timeout") == 1)
        .await;
}

#[tokio::test]
async fn an_answer_that_nobody_asked_twice_for_ends_the_connection() {
    let edge = Edge::start(&[]).await;
    let mut socket = Socket::connect(&edge).await;
    let request = "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n";
    socket.send(request.repeat(3)).await;
    let all = String::from_utf8(socket.rest().await).unwrap();
    assert_eq!(all.matches("HTTP/1.1 200").count(), 1, "{all}");
}

#[tokio::test]
async fn giant_headers_are_refused() {
    let edge = Edge::start(&[]).await;
    for giant in [
        format!("GET /ws HTTP/1.1\r\nX: {}", "x".repeat(64 * 1024)),
        format!("GET /ws?{} HTTP/1.1\r\n", "x".repeat(64 * 1024)),
        format!("GET /ws HTTP/1.1\r\n{}", "X: y\r\n".repeat(20_000)),
    ] {
        let mut socket = Socket::connect(&edge).await;
        // Some of it may find the door closed already.
        let _ = soon("room to write", socket.0.write_all(giant.as_bytes())).await;
        let answer = String::from_utf8(socket.rest().await).unwrap();
        assert!(
            ["", "HTTP/1.1 431", "HTTP/1.1 414", "HTTP/1.1 400"]
                .iter()
                .any(|status| answer.get(..12).unwrap_or_default() == *status),
            "{answer}"
        );
    }
    edge.until("all to be counted", |edge| edge.dropped("bad_request") == 3)
        .await;
    assert_eq!(edge.router().census().sessions, 0);
}

#[tokio::test]
async fn what_is_not_http_is_refused() {
    let edge = Edge::start(&[]).await;
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /ws\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nbad header\r\n\r\n",
        b"\xff\xfe\xfd\r\n\r\n",
    ] {
        let mut socket = Socket::connect(&edge).await;
        let _ = socket.0.write_all(garbage).await;
        let answer = String::from_utf8_lossy(&socket.rest().await).into_owned();
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
            "{garbage:?}: {answer}"
        );
    }
}

#[tokio::test]
async fn half_open_handshakes_yield_to_those_who_go_on() {
    let edge = Edge::start(&[("edge.max_pending_handshakes", "4"), ANY_ADDRESS]).await;
    let mut half_open = Vec::new();
    for _ in 0..40 {
        let mut socket = Socket::connect(&edge).await;
        socket.send("GET /ws HTTP/1.1\r\n").await;
        half_open.push(socket);
    }
    edge.until("the first to have yielded", |edge| {
        edge.dropped("max_pending_handshakes") == 36 && edge.pending() == 4
    })
    .await;
    for mut socket in half_open.drain(..36) {
        assert!(socket.rest().await.is_empty());
    }
    let honest = format!("/ws?token={}", token("u1"));
    for _ in 0..5 {
        let _session = session(&edge, &honest, "").await;
    }
    for socket in &mut half_open {
        socket.send("Host: x\r\n").await;
    }
}

#[tokio::test]
async fn an_address_takes_places_from_itself_alone() {
    let edge = Edge::start(&[
        ("edge.max_pending_handshakes", "20"),
        ("edge.max_pending_handshakes_per_address", "3"),
        PATIENT,
    ])
    .await;
    // One who is slow, from another address of this machine, before all others.
    let mut slow = Socket::connect_from(&edge, [127, 0, 0, 2]).await;
    slow.send("GET /ws HTTP/1.1\r\n").await;
    edge.until("it to be there", |edge| edge.pending() == 1).await;
    let mut greedy = Vec::new();
    for _ in 0..40 {
        greedy.push(Socket::connect(&edge).await);
    }
    edge.until("all but three to have yielded", |edge| {
        edge.dropped("max_pending_handshakes_per_address") == 37 && edge.pending() == 4
    })
    .await;
    assert_eq!(edge.dropped("max_pending_handshakes"), 0);
    slow.send("Host: x\r\n\r\n").await;
    assert_eq!(slow.answer().await.status, 426, "it was not cut off");
}

#[tokio::test]
async fn an_address_has_a_tenth_of_all_places_and_a_trusted_proxy_all() {
    for (proxies, left) in [("[]", 1), ("[\"127.0.0.0/8\"]", 10)] {
        let edge = Edge::start(&[
            ("edge.max_pending_handshakes", "10"),
            ("edge.trusted_proxies", proxies),
            PATIENT,
        ])
        .await;
        let mut sockets = Vec::new();
        for _ in 0..20 {
            sockets.push(Socket::connect(&edge).await);
        }
        let dropped = |edge: &Edge| {
            edge.dropped("max_pending_handshakes_per_address") + edge.dropped("max_pending_handshakes")
        };
        edge.until("the others to have yielded", |edge| {
            edge.pending() == left && dropped(edge) == 20 - left as u64
        })
        .await;
    }
}

#[tokio::test]
async fn refused_v1_clients_that_linger_yield_too() {
    let edge = Edge::start(&[("edge.max_pending_handshakes", "2"), ANY_ADDRESS]).await;
    let mut lingering = Vec::new();
    for _ in 0..10 {
        lingering.push(open(&edge, "/ws", "Sec-WebSocket-Protocol: rivulet.v1\r\n").await);
    }
    let honest = format!("/ws?token={}", token("u1"));
    session(&edge, &honest, "").await;
}

#[tokio::test]
async fn no_more_sockets_than_there_is_room_for() {
    let edge = Edge::start(&[
        ("edge.max_connections", "2"),
        ("edge.max_pending_handshakes", "2"),
        ANY_ADDRESS,
    ])
    .await;
    let path = format!("/ws?token={}", token("u1"));
    let one = session(&edge, &path, "").await;
    let _two = session(&edge, &path, "").await;
    let mut third = Socket::connect(&edge).await;
    assert!(third.rest().await.is_empty());
    assert_eq!(edge.dropped("max_connections"), 1);

    drop(one);
    edge.until("the socket to be gone", |edge| {
        edge.router().census().sessions == 1
    })
    .await;
    let retried = async {
        loop {
            let mut socket = Socket::connect(&edge).await;
            // One that finds no room is closed at once.
            let _ = socket
                .0
                .write_all(format!("GET {path} HTTP/1.1\r\n{WEBSOCKET}\r\n").as_bytes())
                .await;
            if socket.0.readable().await.is_ok() && socket.0.peek(&mut [0]).await.is_ok_and(|read| read > 0) {
                break socket.answer().await.status;
            }
        }
    };
    assert_eq!(soon("room", retried).await, 101);
}
