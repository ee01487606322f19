//! From which subjects events come, what they are and for whom.

use rivulet_tests::{
    nats::Nats,
    publish::{Publish, blob_created},
    router::Setup,
};

#[tokio::test]
async fn a_type_from_the_payload_reaches_everyone() {
    let nats = Nats::start().await;
    let sources = r#"[{ subject = "mind.>", type = "field:type", type_prefix = "consciousness", audience = "everyone" }]"#;
    let router = Setup::on(&nats).set("sources", sources).start().await;
    let publish = Publish::on(&nats).await;
    let mut ada = router.subscriber("ada", &["consciousness.*"]).await;
    let mut bob = router.subscriber("bob", &["*"]).await;
    publish
        .raw(
            "mind.changed",
            r#"{"type":"state_transition","user_id":"carol","to":"awake"}"#,
        )
        .await;
    for client in [&mut ada, &mut bob] {
        assert_eq!(
            client.expect("consciousness.state_transition").await["data"]["to"],
            "awake"
        );
    }
}

#[tokio::test]
async fn data_from_an_envelope_keeps_its_bytes() {
    let nats = Nats::start().await;
    let sources =
        r#"[{ subject = "app.>", type = "field:pattern", data = "field:data", audience = "header" }]"#;
    let router = Setup::on(&nats).set("sources", sources).start().await;
    let publish = Publish::on(&nats).await;
    let mut client = router.plain("ada").ready().await;
    client.subscribe(&["*"]).await;
    let data = r#"{"z": 1.0, "a":12345678901234567890,  "s":"\u00e9\/"}"#;
    let envelope = format!(r#"{{"pattern":"order.paid","data":{data},"id":7}}"#);
    publish
        .with_headers("app.x", &[("rivulet-user", "ada")], envelope)
        .await;
    use futures_util::StreamExt;
    let frame = client
        .socket()
        .next()
        .await
        .unwrap()
        .unwrap()
        .into_text()
        .unwrap();
    assert!(frame.starts_with(r#"{"type":"order.paid","#), "{frame}");
    assert!(frame.ends_with(&format!(r#""data":{data}}}"#)), "{frame}");
}

#[tokio::test]
async fn a_token_of_the_subject_is_the_user() {
    let nats = Nats::start().await;
    let sources = r#"[{ subject = "blob.*.*", audience = "token:2" }]"#;
    let router = Setup::on(&nats).set("sources", sources).start().await;
    let publish = Publish::on(&nats).await;
    let mut ada = router.subscriber("a.b", &["*"]).await;
    let mut bob = router.subscriber("bob", &["*"]).await;
    let data = |id: &str| blob_created("somebody else", id).to_string();
    publish.raw("blob.created.a=2Eb", data("1")).await;
    publish
        .with_headers("blob.created.bob", &[("Rivulet-User", "a=2Eb")], data("conflict"))
        .await;
    publish
        .with_headers("blob.created.bob", &[("Rivulet-Room", "r")], data("room"))
        .await;
    publish.raw("blob.created.==everyone", data("2")).await;
    assert_eq!(ada.expect("blob.created").await["data"]["blob_id"], "1");
    for client in [&mut ada, &mut bob] {
        assert_eq!(client.expect("blob.created").await["data"]["blob_id"], "2");
    }
    for rule in ["audience_conflict", "room"] {
        assert_eq!(
            router
                .metric(&format!("rivulet_events_rejected_total{{rule=\"{rule}\"}}"))
                .await,
            1.0,
            "{rule}"
        );
    }
}

#[tokio::test]
async fn an_event_without_an_audience_is_rejected() {
    let nats = Nats::start().await;
    let router = Setup::on(&nats).start().await;
    let publish = Publish::on(&nats).await;
    let mut client = router.subscriber("ada", &["*"]).await;
    publish.raw("book.created", r#"{"book_id":"b"}"#).await;
    publish.blob("ada", "1").await;
    client.expect("blob.created").await;
    let rejected = "rivulet_events_rejected_total{rule=\"no_audience\"}";
    assert_eq!(router.metric(rejected).await, 1.0);
}

#[tokio::test]
async fn a_core_source_has_no_sequence() {
    let nats = Nats::start().await;
    let sources = r#"[{ subject = "blob.>", durable = false }, { subject = "book.>" }]"#;
    let router = Setup::on(&nats).set("sources", sources).start().await;
    let mut client = router.subscriber("ada", &["*"]).await;
    let core = nats.client().await;
    core.publish("blob.created", blob_created("ada", "1").to_string().into())
        .await
        .unwrap();
    let event = client.expect("blob.created").await;
    assert!(event.get("seq").is_none() && event["time"].is_string(), "{event}");
    let seq = Publish::on(&nats)
        .await
        .raw("book.created", r#"{"user_id":"ada","book_id":"b"}"#)
        .await;
    assert_eq!(client.expect("book.created").await["seq"], seq);
}

#[tokio::test]
async fn a_stream_that_forgets_at_will_is_not_durable_and_connected_says_so() {
    use async_nats::jetstream::stream::{Config, Republish};

    let nats = Nats::start().await;
    let jetstream = async_nats::jetstream::new(nats.client().await);
    let stream = Config {
        name: "RIVULET".to_owned(),
        subjects: ["blob.>", "processor.>", "book.>", "conversation.>"]
            .map(str::to_owned)
            .to_vec(),
        max_messages_per_subject: 1,
        republish: Some(Republish {
            source: ">".to_owned(),
            destination: "rivulet.live.>".to_owned(),
            headers_only: false,
        }),
        ..Config::default()
    };
    jetstream.create_stream(stream).await.unwrap();
    let router = Setup::on(&nats).start().await;
    let connected = router.plain("ada").open().await.expect("connected").await;
    assert_eq!(connected["data"]["durable"], false);
    assert!(connected["data"]["stream"].is_string());
}

#[tokio::test]
async fn without_jetstream_nothing_is_durable_and_connected_says_so() {
    let nats = Nats::start_without_jetstream().await;
    let router = Setup::on(&nats).start().await;
    let mut client = router.plain("ada").query("events", "*").open().await;
    let connected = client.expect("connected").await;
    assert_eq!(connected["data"]["durable"], false);
    assert!(connected["data"].get("stream").is_none());
    let core = nats.client().await;
    core.publish("blob.created", blob_created("ada", "1").to_string().into())
        .await
        .unwrap();
    client.expect("blob.created").await;
}
