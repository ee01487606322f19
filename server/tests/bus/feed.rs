//! Events come, in order, and what does not come is said.

use std::time::Duration;

use async_nats::jetstream::{
    self,
    stream::{Config as StreamConfig, Republish},
};
use futures_util::StreamExt;
use rivulet_router::{
    bus::{Rejections, source::SourceFault},
    config::{AudienceFrom, Source, TypeFrom},
};
use rustix::process::Signal;
use tokio::time::timeout;

use crate::{
    nats::Nats,
    rig::{PATIENCE, Rig, config, forge, publish, publish_with, source, until},
};

const MINE: &str = r#"{"user_id":"u1", "n": 1.0}"#;

#[tokio::test]
async fn events_come_in_the_streams_order_with_their_bytes() {
    let nats = Nats::start();
    let client = nats.client().await;
    let mut rig = Rig::open(&config(&[nats.url()], nats.directory.path())).await;
    assert_eq!(rig.next().await, "open RIVULET 0");
    publish(&client, "blob.created", MINE).await;
    publish(&client, "blob.created", "{}").await;
    publish_with(
        &client,
        "processor.status.x",
        &[("rivulet-user", "a=2Eb")],
        "{\"b\":2,\"a\":1e400}",
    )
    .await;
    assert_eq!(rig.next().await, format!("1 blob.created u1 {MINE}"));
    assert_eq!(rig.next().await, "2 passed");
    assert_eq!(rig.next().await, "3 processor.status a.b {\"b\":2,\"a\":1e400}");
    assert!(rig.metric("rivulet_events_rejected_total{rule=\"no_audience\"} 1"));
    assert!(rig.metric("rivulet_event_bytes_count 2"), "each event's size");
    let state = rig.until("current", |state| state.current && state.durable).await;
    assert!(state.stream.unwrap().epoch.starts_with("RIVULET@1"));

    let stream = jetstream::new(client).get_stream("RIVULET").await.unwrap();
    let made = &stream.cached_info().config;
    assert_eq!(made.subjects, ["blob.>", "processor.>"]);
    assert_eq!(made.max_age, Duration::from_secs(86_400));
    assert_eq!(made.max_bytes, 64 << 20);
    assert_eq!(made.republish.as_ref().unwrap().destination, "rivulet.live.>");
}

#[tokio::test]
async fn only_the_servers_own_headers_count() {
    let nats = Nats::start();
    let client = nats.client().await;
    let mut rig = Rig::open(&config(&[nats.url()], nats.directory.path())).await;
    rig.next().await;
    let forged = [
        ("Nats-Sequence", "999"),
        ("nats-sequence", "998"),
        ("Nats-Stream", "OTHER"),
        ("Nats-Subject", "blob.deleted"),
        ("Nats-Time-Stamp", "2001-01-01T00:00:00Z"),
        ("Nats-Last-Sequence", "997"),
    ];
    publish_with(&client, "blob.created", &forged, MINE).await;
    assert_eq!(rig.next().await, format!("1 blob.created u1 {MINE}"));
    // Whoever publishes where only the stream should is not heard.
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Sequence", "2");
    headers.insert("Nats-Subject", "blob.created");
    client
        .publish_with_headers("rivulet.live.blob.created", headers, MINE.into())
        .await
        .unwrap();
    client.flush().await.unwrap();
    publish(&client, "blob.created", r#"{"user_id":"u2"}"#).await;
    assert_eq!(rig.next().await, r#"2 blob.created u2 {"user_id":"u2"}"#);
    assert!(rig.metric("rivulet_events_rejected_total{rule=\"source\"} 1"));
}

#[tokio::test]
async fn a_forged_message_from_far_ahead_stops_no_node() {
    let nats = Nats::start();
    let client = nats.client().await;
    let mut rig = Rig::open(&config(&[nats.url()], nats.directory.path())).await;
    rig.next().await;
    let far = 1_000_000_000_000;
    for round in 0..3 {
        forge(
            &client,
            "rivulet.live.blob.created",
            "blob.created",
            far + round,
            "{}",
        )
        .await;
        publish(&client, "blob.created", MINE).await;
        assert_eq!(rig.next().await, format!("{} blob.created u1 {MINE}", round + 1));
    }
    until(|| rig.metric("rivulet_feed_forged_total 3")).await;
    let state = rig.until("current", |state| state.current).await;
    assert!(state.stream.unwrap().head_seq <= 3);
    assert!(rig.metric("rivulet_nats_disconnects_total 0"));
}

#[tokio::test]
async fn what_a_stream_of_the_same_name_had_stored_takes_nobodys_place() {
    let nats = Nats::start();
    let client = nats.client().await;
    let mut rig = Rig::open(&config(&[nats.url()], nats.directory.path())).await;
    rig.next().await;
    // As it comes when it waited for its turn while the stream was recreated.
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Stream", "RIVULET");
    headers.insert("Nats-Subject", "blob.created");
    headers.insert("Nats-Sequence", "2");
    headers.insert("Nats-Time-Stamp", "2001-01-01T00:00:00Z");
    let old = r#"{"user_id":"old"}"#;
    client
        .publish_with_headers("rivulet.live.blob.created", headers, old.into())
        .await
        .unwrap();
    client.flush().await.unwrap();
    publish(&client, "blob.created", MINE).await;
    publish(&client, "blob.created", MINE).await;
    assert_eq!(rig.next().await, format!("1 blob.created u1 {MINE}"));
    assert_eq!(rig.next().await, format!("2 blob.created u1 {MINE}"));
}

#[tokio::test]
async fn what_breaks_a_rule_is_shown_and_nothing_else_is_lost() {
    let nats = Nats::start();
    let client = nats.client().await;
    let config = config(&[nats.url()], nats.directory.path());
    let mut rig = Rig::open(&config).await;
    rig.next().await;
    let mut rejections = Rejections::connect(&config.nats, &config.data_dir).await.unwrap();
    // The subscription stands once the server answered on its connection; the first rejection shows it.
    let mut copies = client.subscribe("rivulet.rejected.>").await.unwrap();
    client.flush().await.unwrap();

    let large = format!(r#"{{"user_id":"u1","a":"{}"}}"#, "x".repeat(1_000_000));
    let medium = format!(r#"{{"user_id":"u1","bad":"{}"}}"#, "x".repeat(100_000));
    publish(&client, "blob.created", r#"{"user_id":"u1","bad":1}"#).await;
    publish(&client, "blob.updated.x", &large).await;
    publish(&client, "blob.created", &medium).await;
    publish(&client, "blob.created", MINE).await;
    for seq in 1..4 {
        assert_eq!(rig.next().await, format!("{seq} passed"));
    }
    assert_eq!(rig.next().await, format!("4 blob.created u1 {MINE}"));
    assert!(rig.metric("rivulet_events_rejected_total{rule=\"schema\"} 2"));
    assert!(rig.metric("rivulet_events_rejected_total{rule=\"too_large\"} 1"));

    let epoch = rig.bus.feed().borrow().stream.clone().unwrap().epoch;
    let copy = copies.next().await.unwrap();
    let id = copy.headers.unwrap().get("Nats-Msg-Id").unwrap().to_string();
    assert_eq!(id, format!("{epoch}-1"));

    let first = rejections.next().await.unwrap().unwrap();
    assert_eq!(
        (
            first.subject.as_str(),
            first.seq,
            first.rule.as_str(),
            first.pointer.as_str()
        ),
        ("blob.created", Some(1), "schema.required", "/blob_id")
    );
    assert_eq!(first.payload, r#"{"user_id":"u1","bad":1}"#);
    let second = rejections.next().await.unwrap().unwrap();
    assert_eq!((second.rule.as_str(), second.size), ("too_large", large.len()));
    assert!(second.payload.is_empty());
    let third = rejections.next().await.unwrap().unwrap();
    assert_eq!((third.seq, third.size), (Some(3), medium.len()));
    assert!(third.payload.is_empty(), "over 64 KiB only what is wrong is said");
}

#[tokio::test]
async fn an_event_without_an_audience_is_rejected_with_what_was_looked_for() {
    let nats = Nats::start();
    let client = nats.client().await;
    let mut config = config(&[nats.url()], nats.directory.path());
    config.sources.push(Source {
        audience: AudienceFrom::Field("to".to_owned()),
        ..source("book.>", true)
    });
    let mut rig = Rig::open(&config).await;
    rig.next().await;
    let mut rejections = Rejections::connect(&config.nats, &config.data_dir).await.unwrap();
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = [("Rivulet-Usr", "u1"), ("traceparent", TRACE)];
    publish_with(&client, "blob.created", &headers, "{}").await;
    publish(&client, "blob.created", r#"{"userId":"u1"}"#).await;
    publish(&client, "blob.created", r#"{"user_id":7}"#).await;
    publish(&client, "book.created", r#"{"to":["u2",7]}"#).await;
    assert_eq!(rig.next().await, "1 passed");
    assert_eq!(rig.next().await, "2 passed");
    assert_eq!(rig.next().await, r#"3 blob.created 7 {"user_id":7}"#);
    assert_eq!(rig.next().await, r#"4 book.created 7,u2 {"to":["u2",7]}"#);
    for (near, trace) in [
        ("the header `Rivulet-Usr`", Some(TRACE)),
        ("the field `userId`", None),
    ] {
        let rejected = timeout(PATIENCE, rejections.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(rejected.rule, "no_audience");
        assert_eq!(rejected.traceparent.as_deref(), trace);
        let expected = format!(
            "it names no audience; looked for: the header `Rivulet-User` or `Rivulet-Audience`, or the top-level \
             field `user_id`; there is {near}"
        );
        assert_eq!(rejected.message, expected);
    }
}

#[tokio::test]
async fn what_several_nodes_reject_is_read_once() {
    let nats = Nats::start();
    let client = nats.client().await;
    let config = config(&[nats.url()], nats.directory.path());
    let mut nodes = [Rig::open(&config).await, Rig::open(&config).await];
    let mut copies = client.subscribe("rivulet.rejected.>").await.unwrap();
    client.flush().await.unwrap();
    let mut rejections = Rejections::connect(&config.nats, &config.data_dir).await.unwrap();
    for node in &mut nodes {
        node.next().await;
    }
    for seq in 1..=2 {
        publish(&client, "blob.created", r#"{"user_id":"u1","bad":1}"#).await;
        for node in &mut nodes {
            assert_eq!(node.next().await, format!("{seq} passed"));
        }
        // Both nodes' copies are there before the next event is.
        for _ in &nodes {
            timeout(PATIENCE, copies.next()).await.unwrap().unwrap();
        }
    }
    for seq in 1..=2 {
        let rejected = timeout(PATIENCE, rejections.next()).await.unwrap();
        assert_eq!(rejected.unwrap().unwrap().seq, Some(seq));
    }
}

#[tokio::test]
async fn it_comes_back_by_itself() {
    let mut nats = Nats::start();
    let mut rig = Rig::open(&config(&[nats.url()], nats.directory.path())).await;
    rig.next().await;
    let client = nats.client().await;
    publish(&client, "blob.created", MINE).await;
    rig.next().await;
    rig.until("current", |state| state.current).await;

    nats.kill();
    rig.until("not current", |state| !state.current && !state.connected)
        .await;
    nats.restart();
    rig.until("current again", |state| state.current).await;
    let client = nats.client().await;
    publish(&client, "blob.created", MINE).await;
    assert_eq!(
        rig.next().await,
        format!("2 blob.created u1 {MINE}"),
        "nothing was missed, so no gap"
    );
}

#[tokio::test]
async fn a_stream_made_anew_is_another_epoch() {
    let nats = Nats::start();
    let client = nats.client().await;
    let mut rig = Rig::open(&config(&[nats.url()], nats.directory.path())).await;
    rig.next().await;
    publish(&client, "blob.created", MINE).await;
    publish(&client, "blob.created", MINE).await;
    rig.next().await;
    rig.next().await;
    let before = rig.bus.feed().borrow().stream.clone().unwrap().epoch;
    let jetstream = jetstream::new(client.clone());
    let stream = jetstream.get_stream("RIVULET").await.unwrap();
    let same = stream.cached_info().config.clone();
    jetstream.delete_stream("RIVULET").await.unwrap();
    jetstream.create_stream(same).await.unwrap();
    assert_eq!(rig.next().await, "gap 2 0 \"epoch_changed\"");
    rig.until("of another epoch", |state| {
        state.current && state.stream.as_ref().unwrap().epoch != before
    })
    .await;
    publish(&client, "blob.created", MINE).await;
    assert_eq!(rig.next().await, format!("1 blob.created u1 {MINE}"));
}

#[tokio::test]
async fn nats_is_waited_for() {
    let mut nats = Nats::start();
    nats.kill();
    let config = config(&[nats.url()], nats.directory.path());
    let (mut rig, opening) = Rig::begin(&config).await.unwrap();
    assert!(!rig.bus.feed().borrow().connected);
    nats.restart();
    opening.await.unwrap();
    assert_eq!(rig.next().await, "open RIVULET 0");
    rig.until("current", |state| state.current).await;
}

#[tokio::test]
async fn without_jetstream_events_pass_by_core() {
    let nats = Nats::with("");
    let client = nats.client().await;
    let mut rig = Rig::open(&config(&[nats.url()], nats.directory.path())).await;
    let state = rig.until("current", |state| state.current).await;
    assert!(!state.durable && state.stream.is_none());
    client.publish("blob.created", MINE.into()).await.unwrap();
    assert_eq!(rig.next().await, format!("- blob.created u1 {MINE}"));
}

#[tokio::test]
async fn a_core_source_stands_beside_durable_ones() {
    let nats = Nats::start();
    let client = nats.client().await;
    let mut config = config(&[nats.url()], nats.directory.path());
    let mut typing = source("typing.*", false);
    typing.audience = AudienceFrom::Token(1);
    typing.event_type = TypeFrom::Subject { tokens: 1 };
    config.sources.push(typing);
    let mut rig = Rig::open(&config).await;
    rig.next().await;
    client.publish("typing.u=2E1", "{}".into()).await.unwrap();
    assert_eq!(rig.next().await, "- typing u.1 {}");
}

#[tokio::test]
async fn a_stream_that_does_not_republish_is_consumed() {
    let mut nats = Nats::start();
    let client = nats.client().await;
    let jetstream = jetstream::new(client.clone());
    jetstream
        .create_stream(StreamConfig {
            name: "EXISTING".to_owned(),
            subjects: vec!["blob.>".to_owned(), "processor.>".to_owned(), "more.>".to_owned()],
            ..StreamConfig::default()
        })
        .await
        .unwrap();
    publish(&client, "blob.created", MINE).await;
    let mut config = config(&[nats.url()], nats.directory.path());
    config.stream.name = "EXISTING".to_owned();
    let mut rig = Rig::open(&config).await;
    assert_eq!(rig.next().await, "open EXISTING 1");
    publish(&client, "blob.created", MINE).await;
    assert_eq!(rig.next().await, format!("2 blob.created u1 {MINE}"));
    nats.kill();
    rig.until("not current", |state| !state.current).await;
    nats.restart();
    publish(&nats.client().await, "blob.created", MINE).await;
    assert_eq!(rig.next().await, format!("3 blob.created u1 {MINE}"));
    rig.until("current again", |state| state.current && state.durable)
        .await;
}

#[tokio::test]
async fn an_existing_stream_is_checked_and_never_altered() {
    let nats = Nats::start();
    let client = nats.client().await;
    let jetstream = jetstream::new(client.clone());
    let existing = StreamConfig {
        name: "RIVULET".to_owned(),
        subjects: vec!["blob.>".to_owned()],
        max_messages_per_subject: 5,
        ..StreamConfig::default()
    };
    jetstream.create_stream(existing).await.unwrap();
    let mut config = config(&[nats.url()], nats.directory.path());
    let fault = Rig::try_open(&config).await.err().unwrap().to_string();
    assert!(fault.contains("does not take `processor.>`"), "{fault}");

    config.sources.truncate(1);
    let rig = Rig::open(&config).await;
    let state = rig.until("current", |state| state.current).await;
    assert!(
        !state.durable,
        "a limit per subject is no ground for exact resume"
    );
    drop(rig);
    let mut stream = jetstream.get_stream("RIVULET").await.unwrap();
    assert_eq!(stream.cached_info().config.max_messages_per_subject, 5);

    config.stream.manage = true;
    config.sources.push(source("processor.>", true));
    let rig = Rig::open(&config).await;
    rig.until("durable", |state| state.current && state.durable).await;
    let altered = &stream.info().await.unwrap().config;
    assert_eq!(altered.subjects, ["blob.>", "processor.>"]);
    assert_eq!(altered.republish.as_ref().unwrap().destination, "rivulet.live.>");
}

#[tokio::test]
async fn other_streams_in_the_way_are_named() {
    let nats = Nats::start();
    let jetstream = jetstream::new(nats.client().await);
    let of = |name: &str, subject: &str| StreamConfig {
        name: name.to_owned(),
        subjects: vec![subject.to_owned()],
        ..StreamConfig::default()
    };
    jetstream
        .create_stream(of("BLOBS", "blob.created"))
        .await
        .unwrap();
    let config = config(&[nats.url()], nats.directory.path());
    let fault = Rig::try_open(&config).await.err().unwrap().to_string();
    assert!(
        fault.contains("`blob.>` belongs to the stream `BLOBS`"),
        "{fault}"
    );
    assert!(fault.contains("stream.name = \"BLOBS\""), "{fault}");

    jetstream
        .create_stream(of("PROCESSORS", "processor.>"))
        .await
        .unwrap();
    let fault = Rig::try_open(&config).await.err().unwrap().to_string();
    assert!(fault.contains("--source BLOBS --source PROCESSORS"), "{fault}");

    jetstream.delete_stream("BLOBS").await.unwrap();
    jetstream.delete_stream("PROCESSORS").await.unwrap();
    jetstream
        .create_stream(of("ALL", "rivulet.live.blob.>"))
        .await
        .unwrap();
    let fault = Rig::try_open(&config).await.err().unwrap().to_string();
    assert!(fault.contains("which the stream `ALL` takes in"), "{fault}");
}

#[tokio::test]
async fn a_part_of_the_stream_is_not_the_stream() {
    let nats = Nats::start();
    let client = nats.client().await;
    jetstream::new(client.clone())
        .create_stream(StreamConfig {
            name: "RIVULET".to_owned(),
            subjects: vec!["blob.>".to_owned(), "processor.>".to_owned()],
            republish: Some(Republish {
                source: "blob.>".to_owned(),
                destination: "rivulet.live.blob.>".to_owned(),
                headers_only: false,
            }),
            ..StreamConfig::default()
        })
        .await
        .unwrap();
    let mut rig = Rig::open(&config(&[nats.url()], nats.directory.path())).await;
    rig.next().await;
    publish(&client, "processor.status", MINE).await;
    assert_eq!(rig.next().await, format!("1 processor.status u1 {MINE}"));
}

#[tokio::test]
async fn sources_that_would_bring_an_event_twice_are_refused() {
    let nats = Nats::start();
    let mut config = config(&[nats.url()], nats.directory.path());
    config.sources.push(source("blob.typing", false));
    let fault = Rig::try_open(&config).await.err().unwrap();
    assert!(
        matches!(
            fault,
            rivulet_router::bus::BusError::Sources(SourceFault::TwoKinds(..))
        ),
        "{fault}"
    );
}

#[tokio::test]
async fn at_most_half_of_what_the_server_has_left_is_taken() {
    let nats = Nats::with("jetstream { store_dir: \"STORE\", max_file_store: 1GB }");
    let mut config = config(&[nats.url()], nats.directory.path());
    config.stream.max_bytes = None;
    let _rig = Rig::open(&config).await;
    let stream = jetstream::new(nats.client().await)
        .get_stream("RIVULET")
        .await
        .unwrap();
    let max_bytes = stream.cached_info().config.max_bytes;
    assert!((100 << 20..=500_000_000).contains(&max_bytes), "{max_bytes}");
}

#[tokio::test]
async fn a_frozen_server_is_noticed() {
    let nats = Nats::start();
    let mut rig = Rig::open(&config(&[nats.url()], nats.directory.path())).await;
    rig.next().await;
    rig.until("current", |state| state.current).await;
    nats.signal(Signal::STOP);
    rig.until("not current", |state| !state.current).await;
    nats.signal(Signal::CONT);
    rig.until("current again", |state| state.current).await;
    publish(&nats.client().await, "blob.created", MINE).await;
    assert_eq!(rig.next().await, format!("1 blob.created u1 {MINE}"));
}

#[tokio::test]
async fn a_cluster_keeps_three_copies() {
    let cluster = Nats::cluster().await;
    let urls: Vec<String> = cluster.iter().map(Nats::url).collect();
    let directory = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(&config(&urls, directory.path())).await;
    assert_eq!(rig.next().await, "open RIVULET 0");
    let client = cluster[0].client().await;
    let mut stream = jetstream::new(client.clone())
        .get_stream("RIVULET")
        .await
        .unwrap();
    assert_eq!(stream.info().await.unwrap().config.num_replicas, 3);
    for seq in 1..=100 {
        publish(&client, "blob.created", MINE).await;
        assert_eq!(rig.next().await, format!("{seq} blob.created u1 {MINE}"));
    }
    rig.until("current", |state| state.current).await;
}
