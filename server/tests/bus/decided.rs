//! A stored event is judged once: what it was then it is in every replay, whatever schema is in force by then.

use std::{sync::Arc, time::Duration};

use rivulet_protocol::subject::UserId;
use rivulet_router::config::Config;
use tokio::time::timeout;

use crate::{
    nats::Nats,
    rig::{Forgotten, PATIENCE, Rig, config, publish},
};

/// Of the schema until a field is required that it does not have.
const OLD: &str = r#"{"user_id":"u1","old":1}"#;
const MINE: &str = r#"{"user_id":"u1"}"#;
const BEFORE: &[&str] = &["bad"];
const SINCE: &[&str] = &["bad", "old"];

/// What u1 is replayed out of the first events of the stream.
async fn replayed(rig: &Rig, to: u64) -> Vec<u64> {
    let epoch: Arc<str> = rig.bus.feed().borrow().stream.clone().unwrap().epoch.into();
    let archive = rig.bus.archive();
    let user = UserId::parse("u1").unwrap();
    let (mut seqs, mut after) = (Vec::new(), 0);
    while after < to {
        let segment = timeout(PATIENCE, archive.segment(Arc::clone(&epoch), after, to));
        let Some(segment) = segment.await.expect("an answer") else {
            continue;
        };
        seqs.extend(segment.span.of(&user, after).map(|kept| kept.seq));
        after = segment.span.to();
    }
    seqs
}

/// Ends a rig as a router ends, and starts one with another schema.
async fn restarted(rig: Rig, config: &Config, refused: &'static [&'static str]) -> Rig {
    rig.bus.close(Duration::ZERO).await;
    Rig::judging(config, refused).await
}

#[tokio::test]
async fn what_was_accepted_comes_in_a_replay_after_a_field_became_required() {
    let nats = Nats::start();
    let client = nats.client().await;
    let config = config(&[nats.url()], nats.directory.path());
    let mut rig = Rig::judging(&config, BEFORE).await;
    rig.next().await;
    for seq in 1..=3 {
        publish(&client, "blob.created", OLD).await;
        assert_eq!(rig.next().await, format!("{seq} blob.created u1 {OLD}"));
    }
    let mut rig = restarted(rig, &config, SINCE).await;
    rig.next().await;
    publish(&client, "blob.created", OLD).await;
    assert_eq!(rig.next().await, "4 passed");
    assert_eq!(replayed(&rig, 4).await, [1, 2, 3]);
    let rig = restarted(rig, &config, BEFORE).await;
    assert_eq!(replayed(&rig, 4).await, [1, 2, 3]);
}

/// More of them than are published on `rivulet.rejected.>`, some without an audience.
#[tokio::test]
async fn what_was_rejected_stays_rejected_when_the_schema_allows_it_later() {
    let nats = Nats::start();
    let client = nats.client().await;
    let config = config(&[nats.url()], nats.directory.path());
    let mut rig = Rig::judging(&config, SINCE).await;
    rig.next().await;
    for seq in 1..=400 {
        publish(&client, "blob.created", if seq % 5 == 0 { "{}" } else { OLD }).await;
        assert_eq!(rig.next().await, format!("{seq} passed"));
    }
    publish(&client, "blob.created", MINE).await;
    rig.next().await;
    let rig = restarted(rig, &config, &[]).await;
    assert_eq!(replayed(&rig, 401).await, [401]);
}

#[tokio::test]
async fn what_no_node_read_is_judged_when_it_is_first_read() {
    let nats = Nats::start();
    let client = nats.client().await;
    let config = config(&[nats.url()], nats.directory.path());
    // The stream is there, and nobody reads it.
    Rig::open(&config).await.bus.close(Duration::ZERO).await;
    for payload in [OLD, MINE, OLD, r#"{"user_id":"u1","new":1}"#] {
        publish(&client, "blob.created", payload).await;
    }
    let rig = Rig::judging(&config, SINCE).await;
    assert_eq!(replayed(&rig, 4).await, [2, 4]);
    assert!(rig.metric("rivulet_events_rejected_total{rule=\"schema\"} 2"));
    let rig = restarted(rig, &config, &["new"]).await;
    assert_eq!(replayed(&rig, 4).await, [2, 4]);
}

#[tokio::test]
async fn of_nodes_that_disagree_the_first_decision_written_stands() {
    const EVENTS: u64 = 20;
    let nats = Nats::start();
    let client = nats.client().await;
    let config = config(&[nats.url()], nats.directory.path());
    let mut rigs = Vec::new();
    for refused in [BEFORE, SINCE, BEFORE] {
        let data = tempfile::tempdir().unwrap();
        let mut config = config.clone();
        config.data_dir = data.path().to_owned();
        rigs.push((Rig::judging(&config, refused).await, data));
    }
    for _ in 1..=EVENTS {
        publish(&client, "blob.created", OLD).await;
    }
    for (rig, _) in &mut rigs {
        let last = format!("{EVENTS} ");
        while !rig.next().await.starts_with(&last) {}
    }
    let standing = replayed(&rigs[1].0, EVENTS).await;
    for (rig, _) in &rigs {
        assert_eq!(replayed(rig, EVENTS).await, standing);
    }
    // What they remember follows.
    let follows = |rig: &Rig, strict: bool| {
        let forgotten = rig.forgotten.lock().unwrap();
        (1..=EVENTS).all(|seq| match standing.contains(&seq) {
            accepted if accepted != strict => true,
            true => forgotten
                .iter()
                .any(|forgotten| matches!(forgotten, Forgotten::UpTo(to) if *to >= seq)),
            false => forgotten
                .iter()
                .any(|forgotten| matches!(forgotten, Forgotten::These(these) if these.contains(&seq))),
        })
    };
    for (rig, strict) in rigs.iter().map(|(rig, _)| rig).zip([false, true, false]) {
        let all = async {
            while !follows(rig, strict) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, all).await.expect("memory follows");
    }
    for (rig, _) in rigs {
        rig.bus.close(Duration::ZERO).await;
    }
    for refused in [BEFORE, SINCE] {
        let rig = Rig::judging(&config, refused).await;
        assert_eq!(replayed(&rig, EVENTS).await, standing);
        rig.bus.close(Duration::ZERO).await;
    }
}

/// What another node accepted while this one was cut off is not judged once more when it is read back.
#[tokio::test]
async fn what_is_read_back_after_an_outage_is_what_others_decided() {
    let mut nats = Nats::start();
    let config = config(&[nats.url()], nats.directory.path());
    let mut rig = Rig::judging(&config, SINCE).await;
    rig.next().await;
    publish(&nats.client().await, "blob.created", OLD).await;
    assert_eq!(rig.next().await, "1 passed");
    nats.kill();
    rig.until("not current", |state| !state.current).await;
    // The same stream in another nats-server, where the other node is.
    let store = nats.directory.path().join("store");
    let elsewhere = Nats::with(&format!("jetstream {{ store_dir: \"{}\" }}", store.display()));
    let mut there = config.clone();
    let data = tempfile::tempdir().unwrap();
    (there.nats.urls, there.data_dir) = (vec![elsewhere.url()], data.path().to_owned());
    let mut other = Rig::judging(&there, BEFORE).await;
    other.next().await;
    publish(&elsewhere.client().await, "blob.created", OLD).await;
    assert_eq!(other.next().await, format!("2 blob.created u1 {OLD}"));
    other.bus.close(Duration::ZERO).await;
    drop(elsewhere);
    nats.restart();
    assert_eq!(rig.next().await, format!("2 blob.created u1 {OLD}"));
    publish(&nats.client().await, "blob.created", OLD).await;
    assert_eq!(rig.next().await, "3 passed");
    assert_eq!(replayed(&rig, 3).await, [2]);
}

#[tokio::test]
async fn what_a_node_decided_is_written_while_it_runs() {
    let nats = Nats::start();
    let client = nats.client().await;
    let config = config(&[nats.url()], nats.directory.path());
    let mut rig = Rig::judging(&config, BEFORE).await;
    rig.next().await;
    publish(&client, "blob.created", OLD).await;
    rig.next().await;
    let jetstream = async_nats::jetstream::new(client);
    let written = async {
        loop {
            let bucket = jetstream.get_stream("KV_rivulet-decided").await.unwrap();
            // One key is there from the start.
            if bucket.cached_info().state.messages > 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, written).await.expect("it is written");
    // As a node ends that is killed: with nothing more to say.
    drop(rig);
    let rig = Rig::judging(&config, SINCE).await;
    assert_eq!(replayed(&rig, 1).await, [1]);
}

#[tokio::test]
async fn a_record_that_somebody_deleted_is_made_again() {
    let nats = Nats::start();
    let client = nats.client().await;
    let config = config(&[nats.url()], nats.directory.path());
    let mut rig = Rig::judging(&config, SINCE).await;
    rig.next().await;
    let jetstream = async_nats::jetstream::new(client.clone());
    jetstream.delete_stream("KV_rivulet-decided").await.unwrap();
    for payload in [OLD, MINE] {
        publish(&client, "blob.created", payload).await;
        rig.next().await;
    }
    assert_eq!(replayed(&rig, 2).await, [2]);
    let rig = restarted(rig, &config, &[]).await;
    assert_eq!(replayed(&rig, 2).await, [2]);
}
