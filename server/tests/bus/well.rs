//! A node says that it is well when it is, and only then.

use std::{
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::jetstream::{
    self,
    stream::{Config as StreamConfig, DiscardPolicy},
};
use rivulet_protocol::message::Gap;
use rivulet_router::{
    Listeners,
    bus::{FeedState, Sink},
    config::{Config, Role, Validation},
    event::Event,
    history::Forget,
    run_through,
};
use tokio::time::{sleep, timeout};

use crate::{
    nats::Nats,
    rig::{PATIENCE, Rig, config, publish},
};

const MINE: &str = r#"{"user_id":"u1"}"#;

/// A sink with a fault of ours.
struct Faulty(Arc<dyn Sink>);

impl Sink for Faulty {
    fn open(&self, epoch: &str, head: u64, durable: bool) {
        self.0.open(epoch, head, durable);
    }

    fn dispatch(&self, _: &Event) -> usize {
        panic!("a planted fault");
    }

    fn advance(&self, seq: u64) {
        self.0.advance(seq);
    }

    fn keeps_from(&self, seq: u64) {
        self.0.keeps_from(seq);
    }

    fn forget(&self, forget: Forget<'_>) {
        self.0.forget(forget);
    }

    fn gap(&self, gap: Gap) {
        self.0.gap(gap);
    }
}

async fn until(what: &str, is: impl AsyncFn() -> bool) {
    let wait = async {
        while !is().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn a_fault_in_the_feed_ends_the_node_with_an_error_that_names_it() {
    let nats = Nats::start();
    let mut config = config(&[nats.url()], nats.directory.path());
    let role = Role {
        events: Vec::new(),
        commands: Vec::new(),
        devices_per_user: None,
    };
    config.roles.insert(config.default_role.clone(), role);
    config.sources[0].validate = Validation::Off;
    let listeners = Listeners::bind(&config).unwrap();
    let faulty = |sink| Arc::new(Faulty(sink)) as Arc<dyn Sink>;
    let mut node = tokio::spawn(run_through(config, listeners, faulty, pending()));
    let client = nats.client().await;
    let jetstream = jetstream::new(client.clone());
    until("a stream", async || {
        assert!(!node.is_finished(), "it does not start");
        jetstream.get_stream("RIVULET").await.is_ok()
    })
    .await;
    // What is published before the feed is open is not live.
    let ended = async {
        loop {
            publish(&client, "blob.created", MINE).await;
            if let Ok(ended) = timeout(Duration::from_millis(100), &mut node).await {
                return ended;
            }
        }
    };
    let ended = timeout(PATIENCE, ended).await.expect("the node ends");
    let fault = ended.expect("no panic leaves it").unwrap_err().to_string();
    assert!(
        fault.contains("`feed`") && fault.contains("a planted fault"),
        "{fault}"
    );
}

#[tokio::test]
async fn a_feed_that_ended_is_not_current() {
    let (state, feed) = tokio::sync::watch::channel(FeedState {
        current: true,
        connected: true,
        ..FeedState::default()
    });
    assert!(FeedState::now(&feed).current);
    drop(state);
    assert_eq!(FeedState::now(&feed), FeedState::default());
}

#[tokio::test]
async fn without_a_leader_a_node_stays_ready_for_the_grace_and_no_longer() {
    let [stays, mut one, mut other] = Nats::cluster().await;
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(&[stays.url()], directory.path());
    config.nats.leader_grace = Duration::from_secs(6);
    let grace = config.nats.leader_grace;
    let mut rig = Rig::open(&config).await;
    rig.next().await;
    published(&stays.client().await, "first").await;
    rig.next().await;
    rig.until("current", |state| state.current && state.durable).await;
    let since = Instant::now();
    one.kill();
    other.kill();
    rig.until("not current", |state| !state.current).await;
    assert!(since.elapsed() >= grace, "{:?}", since.elapsed());
    assert!(
        rig.metric("rivulet_nats_disconnects_total 0"),
        "its own connection was well"
    );
    one.restart();
    other.restart();
    rig.until("current again", |state| state.current).await;
    published(&stays.client().await, "second").await;
    assert_eq!(rig.next().await, format!("2 blob.created u1 {MINE}"));
}

/// Publishes once, however often that takes in a cluster that has just come together.
async fn published(client: &async_nats::Client, id: &str) {
    let jetstream = jetstream::new(client.clone());
    until("an event stored", async || {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Msg-Id", id);
        let sent = jetstream
            .publish_with_headers("blob.created", headers, MINE.into())
            .await;
        sent.unwrap().await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_is_deleted_is_made_again_and_sessions_are_told() {
    let nats = Nats::start();
    let mut rig = Rig::open(&config(&[nats.url()], nats.directory.path())).await;
    rig.next().await;
    let client = nats.client().await;
    publish(&client, "blob.created", MINE).await;
    rig.next().await;
    let jetstream = jetstream::new(client.clone());
    jetstream.delete_stream("RIVULET").await.unwrap();
    assert_eq!(rig.next().await, "gap 1 0 \"epoch_changed\"");
    rig.until("current again", |state| state.current && state.durable)
        .await;
    let made = jetstream.get_stream("RIVULET").await.unwrap();
    assert!(made.cached_info().config.republish.is_some());
    publish(&client, "blob.created", MINE).await;
    assert_eq!(rig.next().await, format!("1 blob.created u1 {MINE}"));
}

#[tokio::test]
async fn a_nats_that_comes_back_with_an_empty_store_is_furnished_again() {
    let mut nats = Nats::start();
    let mut rig = Rig::open(&config(&[nats.url()], nats.directory.path())).await;
    rig.next().await;
    publish(&nats.client().await, "blob.created", MINE).await;
    rig.next().await;
    nats.kill();
    std::fs::remove_dir_all(nats.directory.path().join("store")).unwrap();
    nats.restart();
    assert_eq!(rig.next().await, "gap 1 0 \"epoch_changed\"");
    rig.until("current again", |state| state.current && state.durable)
        .await;
    let client = nats.client().await;
    let memory = jetstream::new(client.clone())
        .get_key_value("rivulet-commands")
        .await;
    memory.expect("the memory of commands");
    publish(&client, "blob.created", MINE).await;
    assert_eq!(rig.next().await, format!("1 blob.created u1 {MINE}"));
}

/// A rig whose stream somebody deletes, and makes again without what makes it republish.
async fn recreated_by_hand(nats: &Nats, config: &Config) -> (Rig, async_nats::Client) {
    let mut rig = Rig::open(config).await;
    rig.next().await;
    let client = nats.client().await;
    publish(&client, "blob.created", MINE).await;
    rig.next().await;
    let jetstream = jetstream::new(client.clone());
    loop {
        let by_hand = StreamConfig {
            name: "RIVULET".to_owned(),
            subjects: vec!["blob.>".to_owned(), "processor.>".to_owned()],
            ..StreamConfig::default()
        };
        jetstream.delete_stream("RIVULET").await.unwrap();
        // The router may have been the first to make it.
        if jetstream.create_stream(by_hand).await.is_ok() {
            break;
        }
    }
    while rig.next().await != "gap 1 0 \"epoch_changed\"" {}
    rig.until("current again", |state| state.current).await;
    (rig, client)
}

#[tokio::test]
async fn a_stream_recreated_without_republish_is_read_by_a_consumer() {
    let nats = Nats::start();
    let (mut rig, client) = recreated_by_hand(&nats, &config(&[nats.url()], nats.directory.path())).await;
    for seq in 1..=3 {
        publish(&client, "blob.created", MINE).await;
        assert_eq!(rig.next().await, format!("{seq} blob.created u1 {MINE}"));
    }
    assert!(rig.metric("rivulet_feed_repaired_total 0"), "they came live");
}

#[tokio::test]
async fn a_stream_recreated_without_republish_is_repaired_where_the_router_manages_it() {
    let nats = Nats::start();
    let mut config = config(&[nats.url()], nats.directory.path());
    config.stream.manage = true;
    let (mut rig, client) = recreated_by_hand(&nats, &config).await;
    let made = jetstream::new(client.clone())
        .get_stream("RIVULET")
        .await
        .unwrap();
    assert!(made.cached_info().config.republish.is_some());
    publish(&client, "blob.created", MINE).await;
    assert_eq!(rig.next().await, format!("1 blob.created u1 {MINE}"));
    assert!(rig.metric("rivulet_feed_repaired_total 0"), "it came live");
}

#[tokio::test]
async fn a_stream_that_ceases_to_republish_is_read_by_a_consumer() {
    let nats = Nats::start();
    let mut rig = Rig::open(&config(&[nats.url()], nats.directory.path())).await;
    rig.next().await;
    let client = nats.client().await;
    publish(&client, "blob.created", MINE).await;
    rig.next().await;
    let jetstream = jetstream::new(client.clone());
    let mut altered = jetstream
        .get_stream("RIVULET")
        .await
        .unwrap()
        .cached_info()
        .config
        .clone();
    altered.republish = None;
    jetstream.update_stream(altered).await.unwrap();
    let consumers = async || {
        let mut stream = jetstream.get_stream("RIVULET").await.unwrap();
        stream.info().await.unwrap().state.consumer_count
    };
    until("a consumer", async || consumers().await == 1).await;
    publish(&client, "blob.created", MINE).await;
    assert_eq!(rig.next().await, format!("2 blob.created u1 {MINE}"));
    rig.until("current", |state| state.current).await;
}

#[tokio::test]
async fn a_full_store_leaves_a_node_ready_and_is_said() {
    let nats = Nats::with("jetstream { store_dir: \"STORE\", max_file_store: 4MB }");
    let mut config = config(&[nats.url()], nats.directory.path());
    config.stream.max_bytes = Some(1 << 20);
    // First, as the router's streams reserve what is left.
    let client = nats.client().await;
    let jetstream = jetstream::new(client.clone());
    let other = StreamConfig {
        name: "OTHER".to_owned(),
        subjects: vec!["other".to_owned()],
        ..StreamConfig::default()
    };
    jetstream.create_stream(other).await.unwrap();
    let rig = Rig::open(&config).await;
    until("writable", async || rig.metric("rivulet_stream_writable 1")).await;
    let large = "x".repeat(512 << 10);
    while jetstream
        .publish("other", large.clone().into())
        .await
        .unwrap()
        .await
        .is_ok()
    {}
    until("not writable", async || rig.metric("rivulet_stream_writable 0")).await;
    assert!(rig.bus.feed().borrow().current);
    jetstream.delete_stream("OTHER").await.unwrap();
    until("writable again", async || rig.metric("rivulet_stream_writable 1")).await;
}

#[tokio::test]
async fn a_stream_that_refuses_what_is_new_is_not_writable_when_it_is_full() {
    let nats = Nats::start();
    let client = nats.client().await;
    let refusing = StreamConfig {
        name: "RIVULET".to_owned(),
        subjects: vec!["blob.>".to_owned(), "processor.>".to_owned()],
        discard: DiscardPolicy::New,
        max_messages: 1,
        ..StreamConfig::default()
    };
    jetstream::new(client.clone())
        .create_stream(refusing)
        .await
        .unwrap();
    let rig = Rig::open(&config(&[nats.url()], nats.directory.path())).await;
    publish(&client, "blob.created", MINE).await;
    until("not writable", async || rig.metric("rivulet_stream_writable 0")).await;
    rig.until("current", |state| state.current).await;
}

#[tokio::test]
async fn where_there_is_no_stream_users_of_a_feed_by_user_are_not_kept() {
    let nats = Nats::with("");
    let config = crate::by_user::by_user(&[nats.url()], &nats);
    let rig = Rig::open(&config).await;
    for number in 0..20 {
        drop(
            rig.presence
                .enter(&rivulet_protocol::subject::UserId::parse(&number.to_string()).unwrap()),
        );
    }
    assert_eq!(rig.presence.lock().count(), (0, 0));
}

#[tokio::test]
async fn with_little_storage_a_cluster_keeps_all_copies_of_less() {
    let cluster = Nats::cluster_with(", max_file_store: 200MB").await;
    let urls: Vec<String> = cluster.iter().map(Nats::url).collect();
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(&urls, directory.path());
    config.stream.max_bytes = None;
    let _rig = Rig::open(&config).await;
    let jetstream = jetstream::new(cluster[0].client().await);
    for stream in ["RIVULET", "KV_rivulet-commands"] {
        let made = jetstream
            .get_stream(stream)
            .await
            .unwrap()
            .cached_info()
            .config
            .clone();
        assert_eq!(made.num_replicas, 3, "{stream}");
        assert!(
            (1 << 20..200_000_000).contains(&made.max_bytes),
            "{stream}: {}",
            made.max_bytes
        );
    }
}

#[tokio::test]
async fn a_stream_that_does_not_fit_is_refused_with_the_key_that_says_its_size() {
    let nats = Nats::with("jetstream { store_dir: \"STORE\", max_file_store: 16MB }");
    let fault = Rig::try_open(&config(&[nats.url()], nats.directory.path())).await;
    let fault = fault.err().expect("64 MiB don't fit").to_string();
    assert!(fault.contains("`stream.max_bytes`"), "{fault}");
}

#[tokio::test]
async fn a_stream_that_leaves_no_room_for_commands_is_named_by_its_key() {
    let nats = Nats::with("jetstream { store_dir: \"STORE\", max_file_store: 64MB }");
    let fault = Rig::try_open(&config(&[nats.url()], nats.directory.path())).await;
    let fault = fault.err().expect("64 MiB of 64 MiB").to_string();
    assert!(
        fault.contains("rivulet-commands") && fault.contains("`stream.max_bytes`"),
        "{fault}"
    );
}
