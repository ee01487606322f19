//! A command ends in a reply, an error, or `OUTCOME_UNKNOWN`, and one id is asked once.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::StreamExt;
use rivulet_tests::{
    client::{Client, Connect},
    nats::{Nats, settle},
    publish::Publish,
    router::{Router, Setup},
    soon,
    token::token_for,
};
use serde_json::{Value, json};

const CREATE: &str = "create_blob";

/// A backend that answers `create_blob` as `answer` says; counts what it was asked.
async fn backend(nats: &Nats, answer: impl Fn(&str) -> Option<String> + Send + 'static) -> Arc<AtomicUsize> {
    let client = nats.client().await;
    let mut requests = client.subscribe("command.create_blob").await.unwrap();
    settle(&client).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            count.fetch_add(1, Ordering::Relaxed);
            let headers = request.headers.unwrap_or_default();
            let header = |name: &str| {
                headers
                    .get(name)
                    .map(|value| value.to_string())
                    .unwrap_or_default()
            };
            let data = String::from_utf8(request.payload.to_vec()).unwrap();
            let seen = format!(
                "{}|{}|{data}",
                header("Rivulet-User"),
                header("Rivulet-Command-Id")
            );
            if let (Some(answer), Some(inbox)) = (answer(&seen), request.reply) {
                client.publish(inbox, answer.into()).await.unwrap();
            }
        }
    });
    asked
}

fn create(id: Option<&str>) -> Value {
    let mut message = json!({ "type": CREATE, "data": { "content": "c", "schema_id": "s" } });
    if let Some(id) = id {
        message["id"] = json!(id);
    }
    message
}

/// The next frame's text.
async fn text_of(client: &mut Client) -> String {
    let message = soon("a frame", client.socket().next()).await.unwrap().unwrap();
    message.into_text().unwrap().as_str().to_owned()
}

#[tokio::test]
async fn half_an_emoji_passes_untouched_in_events_and_in_commands() {
    let nats = Nats::start().await;
    let router = Setup::on(&nats).start().await;
    // The backend answers with what it was asked.
    backend(&nats, |seen| {
        let data = seen.splitn(3, '|').nth(2).unwrap();
        Some(format!(r#"{{"data":{{"asked":{data}}}}}"#))
    })
    .await;
    let mut client = router.subscriber("ada", &["*"]).await;
    let publish = Publish::on(&nats).await;
    for (subject, data) in [
        (
            "book.created",
            r#"{"user_id":"ada","book_id":"b\ud83d","\ud83d":{"\ude00":"\ude00"}}"#,
        ),
        ("blob.unheard_of", r#"{"user_id":"ada","\ud83d":"\ude00"}"#),
    ] {
        publish.raw(subject, data).await;
        let frame = text_of(&mut client).await;
        assert!(frame.ends_with(&format!(r#""data":{data}}}"#)), "{frame}");
    }
    let data = r#"{"content":"\ud83d","schema_id":"s","metadata":{"\ud83d":"\ude00"}}"#;
    client
        .send_text(&format!(r#"{{"type":"{CREATE}","id":"1","data":{data}}}"#))
        .await;
    let frame = text_of(&mut client).await;
    assert_eq!(
        frame,
        format!(r#"{{"type":"reply","data":{{"asked":{data}}},"id":"1"}}"#)
    );
}

#[tokio::test]
async fn a_command_reaches_its_backend_and_the_answer_comes_back_untouched() {
    let nats = Nats::start().await;
    let router = Router::start(&nats).await;
    backend(&nats, |seen| {
        Some(format!(r#"{{"data": {{"seen":{}, "n": 1.0}}}}"#, json!(seen)))
    })
    .await;
    let mut client = router.plain("a b").ready().await;
    client
        .send_text(r#"{"type":"create_blob","id":"7","data":{"schema_id":"s", "content":"\u00e9"}}"#)
        .await;
    let reply = client.expect("reply").await;
    assert_eq!(reply["id"], "7");
    assert_eq!(
        reply["data"]["seen"],
        r#"a=20b|7|{"schema_id":"s", "content":"\u00e9"}"#
    );
    assert_eq!(reply["data"]["n"].to_string(), "1.0");
}

#[tokio::test]
async fn an_id_is_asked_once() {
    let nats = Nats::start().await;
    let router = Router::start(&nats).await;
    let asked = backend(&nats, |_| Some(r#"{"data":{"blob_id":"b"}}"#.into())).await;
    for _ in 0..3 {
        // Another session each time: the id is the user's.
        let mut client = router.v1("ada").ready().await;
        client.send(create(Some("once"))).await;
        assert_eq!(client.expect("reply").await["data"]["blob_id"], "b");
    }
    let mut other = router.plain("bob").ready().await;
    other.send(create(Some("once"))).await;
    other.expect("reply").await;
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_backends_error_comes_with_its_fields() {
    let nats = Nats::start().await;
    let router = Router::start(&nats).await;
    backend(&nats, |_| {
        Some(r#"{"error":{"code":"NOT_FOUND","message":"m","blob_id":"b"}}"#.into())
    })
    .await;
    let mut client = router.plain("ada").ready().await;
    client.send(create(Some("x"))).await;
    let error = client.expect("error").await;
    assert_eq!(
        error,
        json!({ "type": "error", "id": "x", "data": { "code": "NOT_FOUND", "message": "m", "blob_id": "b" } })
    );
}

#[tokio::test]
async fn every_other_end_has_a_code() {
    let nats = Nats::start().await;
    let router = Router::start(&nats).await;
    let mut client = router.plain("ada").ready().await;
    client.send(create(None)).await;
    assert_eq!(
        client.expect("error").await["data"]["code"],
        "BACKEND_UNAVAILABLE"
    );

    backend(&nats, |seen| seen.contains("nonsense").then(|| "nonsense".into())).await;
    let mut nonsense = create(None);
    nonsense["data"]["content"] = json!("nonsense");
    client.send(nonsense).await;
    assert_eq!(client.expect("error").await["data"]["code"], "COMMAND_FAILED");

    let hasty = Setup::on(&nats).set("commands.deadline", "1s").start().await;
    let mut client = hasty.plain("ada").ready().await;
    client.send(create(None)).await;
    assert_eq!(client.expect("error").await["data"]["code"], "OUTCOME_UNKNOWN");
}

#[tokio::test]
async fn a_bad_command_names_its_field() {
    let nats = Nats::start().await;
    let router = Router::start(&nats).await;
    let mut client = router.plain("ada").ready().await;
    for (message, code, field) in [
        (json!({ "type": CREATE }), "INVALID_MESSAGE", "data"),
        (
            json!({ "type": CREATE, "data": { "content": "c" } }),
            "INVALID_MESSAGE",
            "data.schema_id",
        ),
        (
            json!({ "type": CREATE, "data": { "content": 1, "schema_id": "s" } }),
            "INVALID_MESSAGE",
            "data.content",
        ),
        (
            json!({ "type": "create_blub", "data": {} }),
            "UNKNOWN_TYPE",
            "type",
        ),
    ] {
        client.send(message.clone()).await;
        let error = client.expect("error").await;
        assert_eq!(
            (&error["data"]["code"], &error["data"]["field"]),
            (&json!(code), &json!(field)),
            "{message}"
        );
    }
    let limited = token_for("ada", json!({ "commands": ["process_blob"] }));
    let mut client = Connect::v1(router.address, &limited).ready().await;
    client.send(create(None)).await;
    assert_eq!(client.expect("error").await["data"]["code"], "FORBIDDEN");
}

/// A backend that holds every command until it is told to answer: what it was asked, one by one.
async fn holding(nats: &Nats) -> (async_nats::Client, async_nats::Subscriber) {
    let client = nats.client().await;
    let requests = client.subscribe("command.create_blob").await.unwrap();
    settle(&client).await;
    (client, requests)
}

#[tokio::test]
async fn a_node_that_drains_waits_for_commands_in_flight() {
    let nats = Nats::start().await;
    // Every session is to leave at once.
    let mut router = Setup::on(&nats).set("drain.spread", "0s").start().await;
    let (backend, mut requests) = holding(&nats).await;
    let mut client = router.v1("ada").ready().await;
    let mut idle = router.v1("bob").ready().await;
    client.send(create(Some("x"))).await;
    let request = soon("the command", requests.next()).await.unwrap();
    router.begin_end();
    client.expect("draining").await;
    // The time to leave has come: the session that waits for nothing is gone.
    assert_eq!(idle.closed().await.0, 1001);
    let answer = r#"{"data":{"blob_id":"b"}}"#;
    backend
        .publish(request.reply.unwrap(), answer.into())
        .await
        .unwrap();
    assert_eq!(client.expect("reply").await["data"]["blob_id"], "b");
    assert_eq!(client.closed().await.0, 1001);
    router.end().await.unwrap();
}

#[tokio::test]
async fn what_became_of_a_command_whose_node_died_is_unknown_on_every_other() {
    let nats = Nats::start().await;
    let one = Router::start(&nats).await;
    let two = Setup::on(&nats).set("commands.deadline", "1s").start().await;
    let (_backend, mut requests) = holding(&nats).await;
    let mut client = one.v1("ada").ready().await;
    client.send(create(Some("x"))).await;
    soon("the command", requests.next()).await.unwrap();
    drop(one);
    let mut client = two.v1("ada").ready().await;
    client.send(create(Some("x"))).await;
    assert_eq!(client.expect("error").await["data"]["code"], "OUTCOME_UNKNOWN");
    // Whoever asks again does not have it done again.
    client.send(create(Some("y"))).await;
    let next = soon("another command", requests.next()).await.unwrap();
    let headers = next.headers.unwrap();
    assert_eq!(headers.get("Rivulet-Command-Id").unwrap().as_str(), "y");
}
