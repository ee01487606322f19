//! Routers of two configurations and one stream: they refuse rather than overwrite each other.

use std::{collections::HashMap, time::Duration};

use async_nats::jetstream::{self, stream::Config as StreamConfig};
use rivulet_router::config::Config;

use crate::{
    nats::Nats,
    rig::{Rig, config, publish, source},
};

const HOUR: Duration = Duration::from_secs(3_600);

fn managing(nats: &Nats, max_age: Duration) -> Config {
    let mut config = config(&[nats.url()], nats.directory.path());
    config.stream.manage = true;
    config.stream.max_age = max_age;
    config
}

async fn stream(nats: &Nats) -> StreamConfig {
    let jetstream = jetstream::new(nats.client().await);
    let stream = jetstream.get_stream("RIVULET").await.unwrap();
    stream.cached_info().config.clone()
}

fn marks(stream: &StreamConfig) -> HashMap<&str, &str> {
    let marks = stream.metadata.iter();
    marks
        .filter_map(|(name, value)| Some((name.strip_prefix("rivulet.")?, value.as_str())))
        .collect()
}

async fn fault(config: &Config) -> String {
    let fault = Rig::try_open(config).await.err();
    fault
        .expect("another configuration manages the stream")
        .to_string()
}

#[tokio::test]
async fn a_stream_says_whose_settings_it_has() {
    let nats = Nats::start();
    let _one = Rig::open(&managing(&nats, HOUR)).await;
    let expected = [
        ("sources", "blob.> processor.>"),
        ("max_age", "1h"),
        ("max_bytes", "64MiB"),
        ("replicas", "absent"),
        ("duplicate_window", "2m"),
        ("republish_prefix", "rivulet.live"),
        ("feed", "whole"),
    ];
    assert_eq!(marks(&stream(&nats).await), HashMap::from(expected));
}

#[tokio::test]
async fn another_configuration_is_refused_with_what_differs() {
    let nats = Nats::start();
    let mut one = Rig::open(&managing(&nats, HOUR)).await;
    assert_eq!(one.next().await, "open RIVULET 0");
    let before = stream(&nats).await;

    let mut other = managing(&nats, 2 * HOUR);
    other.sources.push(source("book.>", true));
    other.stream.replicas = Some(1);
    let fault = fault(&other).await;
    for part in [
        "`stream.max_age` is `1h` there and `2h` here",
        "`sources` is `blob.> processor.>` there and `blob.> book.> processor.>` here",
        "`stream.replicas` is `absent` there and `1` here",
        "`--set stream.take_over=true`",
    ] {
        assert!(fault.contains(part), "{part}: {fault}");
    }
    assert!(!fault.contains("duplicate_window"), "{fault}");
    assert_eq!(stream(&nats).await, before, "nothing was altered");

    let backend = nats.client().await;
    publish(&backend, "blob.created", r#"{"user_id":"u1"}"#).await;
    assert_eq!(one.next().await, r#"1 blob.created u1 {"user_id":"u1"}"#);
}

#[tokio::test]
async fn the_same_settings_in_another_order_are_the_same() {
    let nats = Nats::start();
    let config = managing(&nats, HOUR);
    let _one = Rig::open(&config).await;
    let mut other = config;
    other.sources.reverse();
    let _other = Rig::open(&other).await;
}

#[tokio::test]
async fn who_does_not_manage_alters_nothing_and_is_let_be() {
    let nats = Nats::start();
    let _one = Rig::open(&managing(&nats, HOUR)).await;
    let before = stream(&nats).await;
    let mut other = managing(&nats, 2 * HOUR);
    other.stream.manage = false;
    let _other = Rig::open(&other).await;
    assert_eq!(stream(&nats).await, before);
}

#[tokio::test]
async fn a_stream_that_nobody_manages_becomes_managed() {
    let nats = Nats::start();
    let mut first = managing(&nats, HOUR);
    first.stream.manage = false;
    let _first = Rig::open(&first).await;
    assert_eq!(marks(&stream(&nats).await), HashMap::new());
    let _second = Rig::open(&managing(&nats, 2 * HOUR)).await;
    let stream = stream(&nats).await;
    assert_eq!((stream.max_age, marks(&stream)["max_age"]), (2 * HOUR, "2h"));
}

#[tokio::test]
async fn a_stream_is_taken_over_only_where_that_is_said() {
    let nats = Nats::start();
    let old = managing(&nats, HOUR);
    let _old = Rig::open(&old).await;
    let mut new = managing(&nats, 2 * HOUR);
    new.stream.take_over = true;
    let _new = Rig::open(&new).await;
    assert_eq!(stream(&nats).await.max_age, 2 * HOUR);

    let fault = fault(&old).await;
    assert!(
        fault.contains("`stream.max_age` is `2h` there and `1h` here"),
        "{fault}"
    );
    assert_eq!(stream(&nats).await.max_age, 2 * HOUR);
    new.stream.take_over = false;
    let _newer = Rig::open(&new).await;
}
