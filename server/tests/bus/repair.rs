//! What did not come live is read back from the stream.

use std::io::{Read as _, Write as _};

use async_nats::jetstream::{
    self,
    stream::{Config as StreamConfig, Republish},
};

use crate::{
    nats::Nats,
    rig::{Rig, config, publish},
};

const MINE: &str = r#"{"user_id":"u1"}"#;

/// A rig that has had event 1, whose NATS is cut off.
async fn cut_off(nats: &mut Nats) -> Rig {
    let mut rig = Rig::open(&config(&[nats.url()], nats.directory.path())).await;
    rig.next().await;
    publish(&nats.client().await, "blob.created", MINE).await;
    rig.next().await;
    nats.kill();
    rig.until("not current", |state| !state.current).await;
    rig
}

/// The same stream in another nats-server, where the router can't see it.
fn aside(nats: &Nats) -> Nats {
    let store = nats.directory.path().join("store");
    Nats::with(&format!("jetstream {{ store_dir: \"{}\" }}", store.display()))
}

#[tokio::test]
async fn what_was_published_while_it_was_away_is_read_back() {
    let mut nats = Nats::start();
    let mut rig = cut_off(&mut nats).await;
    let elsewhere = aside(&nats);
    // More than one read takes.
    for _ in 2..=600 {
        publish(&elsewhere.client().await, "blob.created", MINE).await;
    }
    publish(
        &elsewhere.client().await,
        "blob.created",
        r#"{"user_id":"u1","bad":1}"#,
    )
    .await;
    drop(elsewhere);
    nats.restart();
    for seq in 2..=600 {
        assert_eq!(rig.next().await, format!("{seq} blob.created u1 {MINE}"));
    }
    assert_eq!(rig.next().await, "601 passed");
    rig.until("current again", |state| state.current).await;
    publish(&nats.client().await, "blob.created", MINE).await;
    assert_eq!(rig.next().await, format!("602 blob.created u1 {MINE}"));
    assert!(rig.metric("rivulet_feed_repaired_total 600"));
    assert!(rig.metric("rivulet_events_rejected_total{rule=\"schema\"} 1"));
}

#[tokio::test]
async fn what_the_stream_has_removed_meanwhile_is_told() {
    let mut nats = Nats::start();
    let mut rig = cut_off(&mut nats).await;
    let elsewhere = aside(&nats);
    let client = elsewhere.client().await;
    for _ in 2..=9 {
        publish(&client, "blob.created", MINE).await;
    }
    let stream = jetstream::new(client).get_stream("RIVULET").await.unwrap();
    // A hole behind the first sequence was somebody's wish; what the limits took is told.
    assert!(stream.delete_message(8).await.unwrap());
    stream.purge().sequence(6).await.unwrap();
    drop(elsewhere);
    nats.restart();
    assert_eq!(rig.next().await, "gap 1 5 \"evicted\"");
    for seq in [6, 7, 9] {
        assert_eq!(rig.next().await, format!("{seq} blob.created u1 {MINE}"));
    }
    rig.until("current again", |state| state.current).await;
    assert!(rig.metric("rivulet_gaps_total{reason=\"evicted\"} 1"));
}

#[tokio::test]
async fn a_stream_without_direct_get_is_read_back_from_its_leader() {
    let mut nats = Nats::start();
    let made = jetstream::new(nats.client().await)
        .create_stream(StreamConfig {
            name: "RIVULET".to_owned(),
            subjects: vec!["blob.>".to_owned(), "processor.>".to_owned()],
            allow_direct: false,
            republish: Some(Republish {
                source: ">".to_owned(),
                destination: "rivulet.live.>".to_owned(),
                headers_only: false,
            }),
            ..StreamConfig::default()
        })
        .await
        .unwrap();
    assert!(!made.cached_info().config.allow_direct);
    let mut rig = cut_off(&mut nats).await;
    let elsewhere = aside(&nats);
    for _ in 2..=300 {
        publish(&elsewhere.client().await, "blob.created", MINE).await;
    }
    drop(elsewhere);
    nats.restart();
    for seq in 2..=300 {
        assert_eq!(rig.next().await, format!("{seq} blob.created u1 {MINE}"));
    }
}

/// nats-server takes any bytes as a header's value; the client library drops its connection on them.
#[tokio::test]
async fn a_header_that_is_not_utf8_costs_its_own_event_alone() {
    let nats = Nats::start();
    let mut rig = Rig::open(&config(&[nats.url()], nats.directory.path())).await;
    rig.next().await;
    let client = nats.client().await;
    let poison = || {
        let mut socket = std::net::TcpStream::connect(("127.0.0.1", nats.port)).unwrap();
        let headers = b"NATS/1.0\r\nX: \xff\xfe\r\n\r\n";
        let (head, all) = (headers.len(), headers.len() + MINE.len());
        socket
            .write_all(b"CONNECT {\"verbose\":false,\"headers\":true}\r\n")
            .unwrap();
        write!(socket, "HPUB blob.created {head} {all}\r\n").unwrap();
        socket.write_all(headers).unwrap();
        write!(socket, "{MINE}\r\nPING\r\n").unwrap();
        let mut answer = String::new();
        while !answer.contains("PONG") {
            let mut bytes = [0; 1024];
            let read = socket.read(&mut bytes).unwrap();
            answer.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
    };
    publish(&client, "blob.created", MINE).await;
    poison();
    publish(&client, "blob.created", MINE).await;
    poison();
    poison();
    publish(&client, "blob.created", MINE).await;
    for line in [1, 3, 6].map(|seq| format!("{seq} blob.created u1 {MINE}")) {
        let mut told = rig.next().await;
        while told.ends_with("passed") {
            told = rig.next().await;
        }
        assert_eq!(told, line);
    }
    rig.until("current again", |state| state.current).await;
    assert!(rig.metric("rivulet_events_rejected_total{rule=\"header\"} 3"));
}
