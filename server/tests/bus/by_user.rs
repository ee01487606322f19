//! A feed by user: only what concerns who is here, in order, and nothing of it is lost.

use std::time::{Duration, Instant};

use async_nats::jetstream::{
    self,
    stream::{Config as StreamConfig, Republish},
};
use rivulet_protocol::subject::UserId;
use rivulet_router::{
    config::{AudienceFrom, Config, Feed, Shape},
    presence::mark,
};

use crate::{
    nats::Nats,
    rig::{PATIENCE, Rig, config, publish, source, until},
};

const MAPPED: &str = "rivulet.live.{{wildcard(3)}}.{{wildcard(1)}}.{{wildcard(2)}}";

pub(crate) fn by_user(urls: &[String], nats: &Nats) -> Config {
    let mut config = config(urls, nats.directory.path());
    config.stream.feed = Feed::ByUser(Shape { tokens: 3, user: 2 });
    config.sources = ["blob.*.*", "book.*.*"]
        .map(|subject| {
            let mut source = source(subject, true);
            source.audience = AudienceFrom::Token(2);
            source
        })
        .into();
    config
}

fn on(nats: &Nats) -> Config {
    by_user(&[nats.url()], nats)
}

fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

/// A stream that somebody made.
fn made(subjects: &[&str], republish: Option<(&str, &str)>) -> StreamConfig {
    StreamConfig {
        name: "RIVULET".to_owned(),
        subjects: subjects.iter().map(|&subject| subject.to_owned()).collect(),
        republish: republish.map(|(source, destination)| Republish {
            source: source.to_owned(),
            destination: destination.to_owned(),
            headers_only: false,
        }),
        allow_direct: true,
        ..StreamConfig::default()
    }
}

/// The next that the sink is told, what was passed over aside.
async fn event(rig: &mut Rig) -> String {
    loop {
        let told = rig.next().await;
        if !told.ends_with("passed") {
            return told;
        }
    }
}

/// A part of the index as an indexer publishes it.
fn digest(epoch: &str, after: u64, to: u64) -> Vec<u8> {
    let numbers = [7, mark(epoch), after, to];
    let numbers = numbers.iter().flat_map(|number: &u64| number.to_le_bytes());
    std::iter::once(1).chain(numbers).collect()
}

#[tokio::test]
async fn a_forged_index_from_far_ahead_stops_no_node() {
    let nats = Nats::start();
    let client = nats.client().await;
    let mut rig = Rig::open(&on(&nats)).await;
    rig.next().await;
    let _here = rig.presence.enter(&user("u1"));
    let state = rig
        .until("current", |state| state.current && state.stream.is_some())
        .await;
    let epoch = state.stream.unwrap().epoch;
    let far = 1_000_000_000_000;
    for (round, after) in [(1, far), (2, 0)] {
        // A jump, and a hole that begins where the node stands.
        let digest = digest(&epoch, after, far + 1);
        client
            .publish("rivulet.node.index.RIVULET", digest.into())
            .await
            .unwrap();
        until(|| rig.metric(&format!("rivulet_feed_forged_total {round}"))).await;
        publish(&client, "blob.created.u1", "{}").await;
        assert_eq!(event(&mut rig).await, format!("{round} blob.created u1 {{}}"));
    }
    rig.until("current", |state| state.current).await;
}

#[tokio::test]
async fn what_concerns_nobody_here_is_passed_over() {
    let nats = Nats::start();
    let client = nats.client().await;
    let mut rig = Rig::open(&on(&nats)).await;
    assert_eq!(rig.next().await, "open RIVULET 0");
    let hostile = "a.b >*";
    let _here = [
        rig.presence.enter(&user("u1")),
        rig.presence.enter(&user(hostile)),
    ];
    let escaped = user(hostile).escaped();
    for token in [
        "u1",
        "u2",
        &escaped,
        "==everyone",
        "=3D=3Deveryone",
        "no=id",
        "u1",
    ] {
        publish(&client, &format!("blob.created.{token}"), "{}").await;
    }
    for expected in [
        "1 blob.created u1 {}".to_owned(),
        format!("3 blob.created {hostile} {{}}"),
        "4 blob.created everyone {}".to_owned(),
        "7 blob.created u1 {}".to_owned(),
    ] {
        assert_eq!(event(&mut rig).await, expected);
    }
    assert!(rig.metric("rivulet_feed_users 2"));
    let stream = jetstream::new(client).get_stream("RIVULET").await.unwrap();
    let republish = stream.cached_info().config.republish.clone().unwrap();
    assert_eq!(
        (republish.source.as_str(), republish.destination.as_str()),
        ("*.*.*", MAPPED)
    );
}

/// nats-server itself says which subscriptions the feed has.
#[tokio::test]
async fn a_node_subscribes_to_its_own_users() {
    let nats = Nats::with("jetstream { store_dir: \"STORE\" }\nhttp: \"127.0.0.1:-1\"");
    let rig = Rig::open(&on(&nats)).await;
    let address = nats.logged("Starting http monitor on ");
    let subjects = async || -> Vec<String> {
        let url = format!("http://{address}/connz?subs=1");
        let page: serde_json::Value = reqwest::get(url).await.unwrap().json().await.unwrap();
        let feed = page["connections"].as_array().unwrap().iter();
        let feed = feed.filter(|connection| connection["name"] == "rivulet feed");
        let subjects = feed.flat_map(|feed| feed["subscriptions_list"].as_array().unwrap().clone());
        let mut subjects: Vec<String> = subjects
            .map(|subject| subject.as_str().unwrap().to_owned())
            .filter(|subject| !subject.starts_with("rivulet.inbox"))
            .collect();
        subjects.sort();
        subjects
    };
    let until = async |expected: &[&str]| {
        let begun = Instant::now();
        while subjects().await != expected {
            assert!(begun.elapsed() < PATIENCE, "{:?}", subjects().await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let (everyone, index) = ("rivulet.live.==everyone.>", "rivulet.node.index.RIVULET");
    until(&[everyone, index]).await;
    let here = rig.presence.enter(&user("a.b"));
    until(&[everyone, "rivulet.live.a=2Eb.>", index]).await;
    // Who left lingers, and is let go by the clock alone.
    drop(here);
    let begun = Instant::now();
    while !rig.metric("rivulet_feed_lingering 1") {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    until(&[everyone, "rivulet.live.a=2Eb.>", index]).await;
}

#[tokio::test]
async fn what_was_published_while_nats_was_away_comes_in_order() {
    let mut nats = Nats::start();
    let mut rig = Rig::open(&on(&nats)).await;
    rig.next().await;
    let _here = rig.presence.enter(&user("u1"));
    publish(&nats.client().await, "blob.created.u1", "{}").await;
    assert_eq!(event(&mut rig).await, "1 blob.created u1 {}");
    for round in 0..3 {
        nats.kill();
        rig.until("not current", |state| !state.current).await;
        // The same stream in another nats-server, where the router can't see it.
        let store = nats.directory.path().join("store");
        let elsewhere = Nats::with(&format!("jetstream {{ store_dir: \"{}\" }}", store.display()));
        let client = elsewhere.client().await;
        let first = 2 + round * 600;
        for seq in first..first + 600 {
            let user = if seq % 3 == 0 { "u1" } else { "u2" };
            publish(&client, &format!("blob.created.{user}"), "{}").await;
        }
        drop(elsewhere);
        nats.restart();
        for seq in (first..first + 600).filter(|seq| seq % 3 == 0) {
            assert_eq!(event(&mut rig).await, format!("{seq} blob.created u1 {{}}"));
        }
        rig.until("current again", |state| state.current).await;
    }
}

#[tokio::test]
async fn what_the_stream_has_removed_meanwhile_is_told() {
    let mut nats = Nats::start();
    let mut rig = Rig::open(&on(&nats)).await;
    rig.next().await;
    let _here = rig.presence.enter(&user("u1"));
    publish(&nats.client().await, "blob.created.u1", "{}").await;
    event(&mut rig).await;
    nats.kill();
    rig.until("not current", |state| !state.current).await;
    let store = nats.directory.path().join("store");
    let elsewhere = Nats::with(&format!("jetstream {{ store_dir: \"{}\" }}", store.display()));
    let client = elsewhere.client().await;
    for _ in 2..=9 {
        publish(&client, "blob.created.u1", "{}").await;
    }
    let stream = jetstream::new(client).get_stream("RIVULET").await.unwrap();
    stream.purge().sequence(6).await.unwrap();
    drop(elsewhere);
    nats.restart();
    assert_eq!(event(&mut rig).await, "gap 1 5 \"evicted\"");
    for seq in 6..=9 {
        assert_eq!(event(&mut rig).await, format!("{seq} blob.created u1 {{}}"));
    }
}

#[tokio::test]
async fn a_stream_made_anew_is_another_epoch() {
    let nats = Nats::start();
    let client = nats.client().await;
    let mut rig = Rig::open(&on(&nats)).await;
    rig.next().await;
    let here = rig.presence.enter(&user("u1"));
    for seq in 1..=5 {
        publish(&client, "blob.created.u1", "{}").await;
        assert_eq!(event(&mut rig).await, format!("{seq} blob.created u1 {{}}"));
    }
    let late = rig.presence.enter(&user("u2"));
    assert_eq!((here.since(), late.since()), (0, 5));
    let jetstream = jetstream::new(client.clone());
    let stream = jetstream.get_stream("RIVULET").await.unwrap();
    let same = stream.cached_info().config.clone();
    jetstream.delete_stream("RIVULET").await.unwrap();
    jetstream.create_stream(same).await.unwrap();
    assert_eq!(event(&mut rig).await, "gap 5 0 \"epoch_changed\"");
    assert_eq!(late.since(), 0, "sequences began anew, and so did memory");
    rig.until("current", |state| state.current).await;
    for seq in 1..=5 {
        publish(&client, "blob.created.u2", "{}").await;
        assert_eq!(event(&mut rig).await, format!("{seq} blob.created u2 {{}}"));
    }
}

/// The messages themselves do not come by subscription: the index names them, and they are read.
#[tokio::test]
async fn what_does_not_come_live_is_read_back() {
    let nats = Nats::with(
        "jetstream { store_dir: \"STORE\" }
         authorization { users: [
           { user: all, password: a }
           { user: deaf, password: a, permissions: { subscribe: { deny: [\"rivulet.live.u1.>\"] } } }
         ] }",
    );
    let url = |user: &str| format!("nats://{user}:a@127.0.0.1:{}", nats.port);
    let _indexer = Rig::open(&by_user(&[url("all")], &nats)).await;
    let all = async_nats::ConnectOptions::with_user_and_password("all".into(), "a".into());
    let client = all.connect(nats.url()).await.unwrap();
    let mut deaf = Rig::open(&by_user(&[url("deaf")], &nats)).await;
    deaf.next().await;
    let _here = deaf.presence.enter(&user("u1"));
    for seq in 1..=20 {
        publish(&client, "blob.created.u1", "{}").await;
        assert_eq!(event(&mut deaf).await, format!("{seq} blob.created u1 {{}}"));
    }
    assert!(deaf.metric("rivulet_feed_repaired_total 20"));
}

#[tokio::test]
async fn a_cluster_may_lose_any_server() {
    let mut cluster = Nats::cluster().await;
    let urls: Vec<String> = cluster.iter().map(Nats::url).collect();
    let mut rig = Rig::open(&by_user(&urls, &cluster[0])).await;
    rig.next().await;
    let _here = rig.presence.enter(&user("u1"));
    let client = async_nats::ConnectOptions::new()
        .connect(
            urls.iter()
                .map(|url| url.parse::<async_nats::ServerAddr>().unwrap())
                .collect::<Vec<_>>(),
        )
        .await
        .unwrap();
    let jetstream = jetstream::new(client);
    let mut expected = 0;
    for (dead, server) in cluster.iter_mut().enumerate() {
        server.kill();
        for number in 0..60 {
            let user = if number % 2 == 0 { "u1" } else { "u2" };
            let id = format!("{dead}-{number}");
            // Until it is acknowledged: an election takes some seconds.
            let seq = loop {
                let mut headers = async_nats::HeaderMap::new();
                headers.insert("Nats-Msg-Id", id.as_str());
                let subject = format!("blob.created.{user}");
                let sent = jetstream
                    .publish_with_headers(subject, headers, "{}".into())
                    .await;
                if let Ok(sent) = sent
                    && let Ok(acknowledged) = sent.await
                {
                    break acknowledged.sequence;
                }
            };
            assert!(seq > expected, "{seq} after {expected}");
            expected = seq;
            if user == "u1" {
                assert_eq!(event(&mut rig).await, format!("{seq} blob.created u1 {{}}"));
            }
        }
        server.restart();
        rig.until("current", |state| state.current).await;
    }
}

#[tokio::test]
async fn a_stream_that_does_not_republish_by_user_is_refused() {
    let nats = Nats::start();
    let jetstream = jetstream::new(nats.client().await);
    let sources = ["blob.*.*", "book.*.*"];
    let mut config = on(&nats);
    for (existing, has) in [
        (made(&sources, None), "it does not republish"),
        (
            made(&sources, Some((">", "rivulet.live.>"))),
            "it republishes `>` as `rivulet.live.>`",
        ),
        (
            made(
                &sources,
                Some(("*.*.*", "other.{{wildcard(3)}}.{{wildcard(1)}}.{{wildcard(2)}}")),
            ),
            "it republishes `*.*.*` as `other.{{wildcard(3)}}.{{wildcard(1)}}.{{wildcard(2)}}`",
        ),
        (
            made(&["blob.>", "book.*.*"], Some(("*.*.*", MAPPED))),
            "it takes `blob.>`, which is not of 3 tokens",
        ),
    ] {
        let _ = jetstream.delete_stream("RIVULET").await;
        jetstream.create_stream(existing).await.unwrap();
        let fault = Rig::try_open(&config).await.err().expect(has).to_string();
        assert!(
            fault.contains(has) && fault.contains("--manage-stream"),
            "{fault}"
        );
        if !has.contains("takes") {
            assert!(fault.contains(&format!("`*.*.*` as `{MAPPED}`")), "{fault}");
        }
    }
    let _ = jetstream.delete_stream("RIVULET").await;
    let older = MAPPED.replace("{{wildcard(", "$").replace(")}}", "");
    jetstream
        .create_stream(made(&sources, Some(("*.*.*", &older))))
        .await
        .unwrap();
    Rig::open(&config).await;

    jetstream.delete_stream("RIVULET").await.unwrap();
    jetstream.create_stream(made(&["blob.>"], None)).await.unwrap();
    config.stream.manage = true;
    let mut rig = Rig::open(&config).await;
    rig.next().await;
    let _here = rig.presence.enter(&user("u1"));
    publish(&nats.client().await, "book.created.u1", "{}").await;
    assert_eq!(event(&mut rig).await, "1 book.created u1 {}");

    // Another configuration refuses rather than turn it back.
    let mut whole = config.clone();
    whole.stream.feed = Feed::Whole;
    let fault = Rig::try_open(&whole)
        .await
        .err()
        .expect("they differ")
        .to_string();
    assert!(
        fault.contains("`stream.feed` is `by_user` there and `whole` here"),
        "{fault}"
    );
}
