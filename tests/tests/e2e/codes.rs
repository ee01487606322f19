//! Every code of the closed lists comes over a real socket, from a whole router, to each kind of client that can
//! get it.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use futures_util::{SinkExt, StreamExt};
use rivulet_protocol::{close::CloseCode, error::ErrorCode};
use rivulet_tests::{
    client::{Client, Connect},
    nats::{Nats, settle},
    publish::{Publish, blob_created},
    router::{Router, Setup},
    token::{ending_soon, token_for},
    until,
};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::{MaybeTlsStream, tungstenite::Message};

/// The codes that no router sends, and why.
const NEVER_SENT: [(&str, &str); 3] = [
    (
        "1006",
        "it stands for a connection that broke without a close frame",
    ),
    (
        "1011",
        "nothing in the router ends in it: a fault of its own breaks the socket of that connection",
    ),
    (
        "INTERNAL",
        "nothing in the router ends in it, for the same reason",
    ),
];

/// The codes that a client of one kind can't get, and why.
const NOT_FOR_PLAIN: [(&str, &str); 3] = [
    ("UNAUTHORIZED", "refused by HTTP, with 401"),
    ("4403", "refused by HTTP, with 403"),
    ("UNAVAILABLE", "refused by HTTP, with 503"),
];

const PLAIN: &str = "plain";
const V1: &str = "rivulet.v1";

/// What was provoked: kind of client and code.
#[derive(Default)]
struct Seen(Mutex<BTreeSet<(&'static str, String)>>);

impl Seen {
    fn note(&self, kind: &'static str, code: impl ToString) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert((kind, code.to_string()));
    }

    /// Reads on until an `error` comes, which must be this one.
    async fn error(&self, kind: &'static str, client: &mut Client, code: ErrorCode) -> Value {
        let error = client.skip_to("error").await;
        assert_eq!(error["data"]["code"], code.name(), "{kind}");
        self.note(kind, code.name());
        error
    }

    /// Reads on until the connection is closed, which must be with this code.
    async fn close(&self, kind: &'static str, client: &mut Client, code: CloseCode) {
        assert_eq!(client.closed().await.0, code.number(), "{kind}: {code}");
        self.note(kind, code.number());
    }

    /// A handshake that must be refused: by HTTP, or in frames.
    async fn refusal(&self, kind: &'static str, connect: Connect, code: CloseCode, error: ErrorCode) {
        if kind == V1 {
            let mut client = connect.open().await;
            self.error(kind, &mut client, error).await;
            return self.close(kind, &mut client, code).await;
        }
        let status = match code {
            CloseCode::Unauthorized => 401,
            CloseCode::Forbidden => 403,
            CloseCode::TooManyConnections => 429,
            _ => 503,
        };
        let refused = connect.attempt().await.err().expect("refused");
        assert_eq!(
            (refused.status, &refused.problem["code"]),
            (status, &json!(error.name()))
        );
        self.note(kind, status);
    }
}

fn both(router: &Router, user: &str) -> [(&'static str, Connect); 2] {
    [(PLAIN, router.plain(user)), (V1, router.v1(user))]
}

/// Writes bytes on the socket beneath the client library, which would not.
async fn write(client: &mut Client, bytes: &[u8]) {
    let MaybeTlsStream::Plain(stream) = client.socket().get_mut() else {
        panic!("loopback has no TLS");
    };
    stream.write_all(bytes).await.expect("the socket takes it");
}

#[tokio::test]
async fn every_code_is_sent_to_each_kind_of_client_that_can_get_it() {
    let seen = Seen::default();
    tokio::join!(
        messages(&seen),
        commands(&seen),
        frames(&seen),
        handshakes(&seen),
        silence(&seen),
        slowness(&seen),
        seats(&seen),
        absence(&seen),
        departure(&seen),
    );
    let seen = seen.0.into_inner().unwrap();
    let closes = CloseCode::ALL.iter().map(|code| code.number().to_string());
    let errors = ErrorCode::ALL.iter().map(|code| code.name().to_owned());
    let never: Vec<&str> = NEVER_SENT.iter().map(|(code, _)| *code).collect();
    let not_for_plain: Vec<&str> = NOT_FOR_PLAIN.iter().map(|(code, _)| *code).collect();
    for code in closes.chain(errors) {
        for kind in [PLAIN, V1] {
            let excepted =
                never.contains(&code.as_str()) || (kind == PLAIN && not_for_plain.contains(&code.as_str()));
            let was_seen = seen.contains(&(kind, code.clone()));
            assert_ne!(was_seen, excepted, "{code} for a {kind} client");
        }
    }
    for status in [401, 403, 429, 503] {
        assert!(seen.contains(&(PLAIN, status.to_string())), "{status} by HTTP");
    }
}

/// What is wrong with a message, or too much of it.
async fn messages(seen: &Seen) {
    let nats = Nats::start().await;
    let router = Setup::on(&nats)
        .set("limits.max_patterns", "1")
        .set("limits.ping.burst", "1")
        .start()
        .await;
    let publish = Publish::on(&nats).await;
    for kind in [PLAIN, V1] {
        let token = token_for("ada", json!({ "events": ["blob.*", "processor.*"] }));
        let connect = match kind {
            V1 => Connect::v1(router.address, &token),
            _ => Connect::plain(router.address, &token),
        };
        let mut client = connect.ready().await;
        for (message, code) in [
            ("nonsense".to_owned(), ErrorCode::InvalidJson),
            (json!({ "type": "nonsense" }).to_string(), ErrorCode::UnknownType),
            (
                json!({ "type": "subscribe" }).to_string(),
                ErrorCode::InvalidMessage,
            ),
            (
                json!({ "type": "subscribe", "events": ["blob*"] }).to_string(),
                ErrorCode::InvalidPattern,
            ),
            (
                json!({ "type": "ping", "id": "x".repeat(65) }).to_string(),
                ErrorCode::TooLarge,
            ),
            (
                json!({ "type": "subscribe", "events": ["blob.a", "blob.b"] }).to_string(),
                ErrorCode::TooManyPatterns,
            ),
            (
                json!({ "type": "subscribe", "events": ["book.*"] }).to_string(),
                ErrorCode::Forbidden,
            ),
        ] {
            client.send_text(&message).await;
            seen.error(kind, &mut client, code).await;
        }
        // One is allowed, and another for each half second that the machine makes it wait.
        loop {
            client.send(json!({ "type": "ping" })).await;
            let answer = client.next().await;
            if answer["type"] != "pong" {
                assert_eq!(answer["data"]["code"], ErrorCode::RateLimited.name(), "{kind}");
                seen.note(kind, ErrorCode::RateLimited.name());
                break;
            }
        }

        client.subscribe(&["error"]).await;
        let failed =
            json!({ "user_id": "ada", "blob_id": "b", "processor_id": "p", "code": "C", "message": "m" });
        publish.raw("processor.failed", failed.to_string()).await;
        seen.error(kind, &mut client, ErrorCode::ProcessorFailed).await;

        for _ in 0..11 {
            client.send_text("nonsense").await;
        }
        seen.close(kind, &mut client, CloseCode::PolicyViolation).await;
    }
    // A token that is refused in the middle changes nothing, and is told.
    for (kind, connect) in both(&router, "bob") {
        let mut client = connect.ready().await;
        client
            .send(json!({ "type": "refresh_token", "token": "nonsense" }))
            .await;
        let error = client.skip_to("error").await;
        assert_eq!(error["data"]["code"], "UNAUTHORIZED", "{kind}");
    }
}

/// Every end of a command.
async fn commands(seen: &Seen) {
    let nats = Nats::start().await;
    let router = Setup::on(&nats).set("commands.deadline", "500ms").start().await;
    let create =
        |content: &str| json!({ "type": "create_blob", "data": { "content": content, "schema_id": "s" } });
    let [(_, plain), (_, v1)] = both(&router, "ada");
    let mut clients = [(PLAIN, plain.ready().await), (V1, v1.ready().await)];
    for (kind, client) in &mut clients {
        client.send(create("")).await;
        seen.error(kind, client, ErrorCode::BackendUnavailable).await;
    }
    let backend = nats.client().await;
    let mut requests = backend.subscribe("command.create_blob").await.unwrap();
    settle(&backend).await;
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let data: Value = serde_json::from_slice(&request.payload).unwrap();
            let answer = match data["content"].as_str().unwrap() {
                "lost" => r#"{"error":{"code":"NOT_FOUND","message":"m"}}"#,
                "nonsense" => "nonsense",
                _ => continue,
            };
            let _ = backend.publish(request.reply.unwrap(), answer.into()).await;
        }
    });
    for (kind, client) in &mut clients {
        for (content, code) in [
            ("lost", ErrorCode::NotFound),
            ("nonsense", ErrorCode::CommandFailed),
            ("silence", ErrorCode::OutcomeUnknown),
        ] {
            client.send(create(content)).await;
            seen.error(kind, client, code).await;
        }
    }
    let mut nats = nats;
    nats.kill();
    until("the node to notice", async || {
        router.get("/health/ready").await.0 == 503
    })
    .await;
    for (kind, client) in &mut clients {
        client.send(create("never sent")).await;
        seen.error(kind, client, ErrorCode::CommandTimeout).await;
    }
}

/// What is no frame, or none that has a place here.
async fn frames(seen: &Seen) {
    let nats = Nats::start().await;
    let router = Setup::on(&nats)
        .set("limits.max_message_bytes", "1KiB")
        .start()
        .await;
    for (kind, connect) in both(&router, "ada") {
        // Masked, as a client's frames are, with a mask of zeros: a reserved bit; text that is not UTF-8.
        for (bytes, code) in [
            (&[0xb1, 0x80, 0, 0, 0, 0][..], CloseCode::ProtocolError),
            (&[0x81, 0x82, 0, 0, 0, 0, 0xc3, 0x28], CloseCode::InvalidPayload),
        ] {
            let mut client = connect.ready().await;
            write(&mut client, bytes).await;
            seen.close(kind, &mut client, code).await;
        }
        for (message, code) in [
            (Message::binary(vec![1]), CloseCode::UnsupportedData),
            (Message::text("x".repeat(1_025)), CloseCode::MessageTooBig),
        ] {
            let mut client = connect.ready().await;
            client.send_message(message).await;
            seen.close(kind, &mut client, code).await;
        }
        let mut client = connect.ready().await;
        let bye = tokio_tungstenite::tungstenite::protocol::CloseFrame {
            code: 1000.into(),
            reason: "".into(),
        };
        client.socket().send(Message::Close(Some(bye))).await.unwrap();
        seen.close(kind, &mut client, CloseCode::Normal).await;
    }
}

/// Who may not connect, and whose leave ends.
async fn handshakes(seen: &Seen) {
    let nats = Nats::start().await;
    let router = Setup::on(&nats)
        .set("limits.handshakes_per_address", "20")
        .start()
        .await;
    let of = |kind, token: &str| match kind {
        V1 => Connect::v1(router.address, token),
        _ => Connect::plain(router.address, token),
    };
    for kind in [PLAIN, V1] {
        let foreign = both(&router, "ada")
            .into_iter()
            .find(|(found, _)| *found == kind)
            .unwrap()
            .1
            .header("origin", "https://evil.example");
        seen.refusal(kind, foreign, CloseCode::Forbidden, ErrorCode::Forbidden)
            .await;
        let bad = of(kind, "nonsense");
        seen.refusal(kind, bad, CloseCode::Unauthorized, ErrorCode::Unauthorized)
            .await;
        let mut client = ending_soon("ada", async |short| of(kind, &short).try_ready().await).await;
        seen.close(kind, &mut client, CloseCode::Unauthorized).await;
    }
}

/// Who says nothing for two heartbeats.
async fn silence(seen: &Seen) {
    let nats = Nats::start().await;
    let router = Setup::on(&nats).set("sessions.heartbeat", "200ms").start().await;
    for (kind, connect) in both(&router, "ada") {
        // The client library answers pings only while it is read.
        let mut client = connect.ready().await;
        until("the router to miss it", async || {
            let closed = "rivulet_connections_closed_total{code=\"4408\"}";
            router.metric(closed).await >= if kind == PLAIN { 1.0 } else { 2.0 }
        })
        .await;
        seen.close(kind, &mut client, CloseCode::HeartbeatMissed).await;
    }
}

/// Who does not read.
async fn slowness(seen: &Seen) {
    let nats = Nats::start().await;
    let router = Setup::on(&nats)
        .set("sessions.outbox_bytes", "64KiB")
        .set("sessions.max_event_bytes", "16KiB")
        .start()
        .await;
    let publish = Publish::on(&nats).await;
    let mut data = blob_created("ada", "");
    data["preview"] = "x".repeat(15_000).into();
    let data = data.to_string();
    let mut cut = 0.0;
    for (kind, connect) in both(&router, "ada") {
        let mut client = connect.query("events", "*").ready().await;
        cut += 1.0;
        while router
            .metric("rivulet_connections_closed_total{code=\"4413\"}")
            .await
            < cut
        {
            for _ in 0..50 {
                publish.raw("blob.created", data.clone()).await;
            }
        }
        // Where what it had not read filled the socket, the close frame found no way through.
        let code = client.closed().await.0;
        assert!(matches!(code, 4413 | 1006), "{code}");
        seen.note(kind, CloseCode::TooSlow.number());
    }
}

/// Whose seat is taken.
async fn seats(seen: &Seen) {
    let nats = Nats::start().await;
    let router = Setup::on(&nats).set("limits.devices_per_user", "1").start().await;
    let _plain = router.plain("ada").ready().await;
    for (kind, connect) in both(&router, "ada") {
        seen.refusal(
            kind,
            connect,
            CloseCode::TooManyConnections,
            ErrorCode::RateLimited,
        )
        .await;
    }
    for (kind, connect) in both(&router, "bob") {
        let mut ghost = connect.clone().query("device", kind).ready().await;
        let _back = connect.query("device", kind).ready().await;
        seen.close(kind, &mut ghost, CloseCode::TooManyConnections).await;
    }
}

/// A node without its NATS; and a replay that is given up, which ends the same way.
async fn absence(seen: &Seen) {
    let mut nats = Nats::start().await;
    let router = Setup::on(&nats)
        .set("sessions.write_deadline", "200ms")
        .start()
        .await;
    let publish = Publish::on(&nats).await;
    let mut data = blob_created("ada", "");
    data["preview"] = "x".repeat(100_000).into();
    for _ in 0..200 {
        publish.raw("blob.created", data.to_string()).await;
    }
    let connected = router.plain("ada").open().await.expect("connected").await;
    let stream = connected["data"]["stream"].as_str().unwrap();
    let mut given_up = 0.0;
    for (kind, connect) in both(&router, "ada") {
        let resuming = connect
            .query("events", "*")
            .query("stream", stream)
            .query("seq", "0");
        let mut client = resuming.open().await;
        given_up += 1.0;
        until("the replay to be given up", async || {
            router
                .metric("rivulet_connections_closed_total{code=\"1013\"}")
                .await
                == given_up
        })
        .await;
        let code = client.closed().await.0;
        assert!(matches!(code, 1013 | 1006), "{code}");
        seen.note(kind, CloseCode::TryAgainLater.number());
    }
    nats.kill();
    until("the node to notice", async || {
        router.get("/health/ready").await.0 == 503
    })
    .await;
    for (kind, connect) in both(&router, "ada") {
        seen.refusal(kind, connect, CloseCode::TryAgainLater, ErrorCode::Unavailable)
            .await;
    }
}

/// A node that goes away.
async fn departure(seen: &Seen) {
    let nats = Nats::start().await;
    let mut router = Router::start(&nats).await;
    let mut clients = Vec::new();
    for (kind, connect) in both(&router, "ada") {
        clients.push((kind, connect.ready().await));
    }
    router.begin_end();
    for (kind, client) in &mut clients {
        client.expect("draining").await;
        seen.close(kind, client, CloseCode::GoingAway).await;
    }
    router.end().await.unwrap();
}
