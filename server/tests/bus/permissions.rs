//! The least permissions are enough, and what lacks is named.

use bytes::Bytes;
use futures_util::StreamExt;
use rivulet_protocol::subject::UserId;
use rivulet_router::{
    bus,
    command::{Command, Outcome},
    config::{Config, NatsCredentials, Secret},
};
use tokio::time::{Instant, timeout};

use crate::{
    nats::Nats,
    rig::{PATIENCE, Rig, config, publish, source},
};

/// A server on which `router` may do only this, and `backend` everything.
fn server(permissions: &str) -> Nats {
    Nats::with(&format!(
        "jetstream {{ store_dir: \"STORE\" }}
         authorization {{ users: [
           {{ user: router, password: r, {permissions} }}
           {{ user: backend, password: b }}
         ] }}"
    ))
}

fn as_router(nats: &Nats) -> Config {
    let mut config = config(&[nats.url()], nats.directory.path());
    config.sources.push(source("typing.>", false));
    config.nats.credentials = NatsCredentials::Password {
        user: "router".to_owned(),
        password: Secret("r".to_owned()),
    };
    config
}

async fn backend(nats: &Nats) -> async_nats::Client {
    async_nats::ConnectOptions::with_user_and_password("backend".into(), "b".into())
        .connect(nats.url())
        .await
        .unwrap()
}

fn least() -> String {
    let nowhere = std::path::Path::new("/nowhere");
    let mut config = config(&[], nowhere);
    config.sources.push(source("typing.>", false));
    bus::permissions(&config)
}

#[tokio::test]
async fn the_least_permissions_are_enough() {
    let nats = server(&least());
    let backend = backend(&nats).await;
    let mut rig = Rig::open(&as_router(&nats)).await;
    rig.next().await;
    rig.until("current", |state| state.current && state.durable).await;
    let mut rejected = backend.subscribe("rivulet.rejected.>").await.unwrap();
    let mut commands = backend.subscribe("command.*").await.unwrap();
    backend.flush().await.unwrap();

    publish(&backend, "blob.created", r#"{"user_id":"u1"}"#).await;
    assert_eq!(rig.next().await, r#"1 blob.created u1 {"user_id":"u1"}"#);
    backend
        .publish("typing.now", r#"{"user_id":"u1"}"#.into())
        .await
        .unwrap();
    assert_eq!(rig.next().await, r#"- typing.now u1 {"user_id":"u1"}"#);
    publish(&backend, "blob.created", r#"{"user_id":"u1","bad":1}"#).await;
    assert_eq!(
        rejected.next().await.unwrap().subject.as_str(),
        "rivulet.rejected.blob.created"
    );

    tokio::spawn(async move {
        while let Some(command) = commands.next().await {
            let answer = Bytes::from_static(b"{\"data\":{}}");
            backend.publish(command.reply.unwrap(), answer).await.unwrap();
        }
    });
    for _ in 0..2 {
        let asked = rig.bus.backend().ask(Command {
            name: "create_blob".to_owned(),
            user: UserId::parse("u1").unwrap(),
            id: Some("1".to_owned()),
            data: Bytes::from_static(b"{}"),
            deadline: Instant::now() + PATIENCE,
        });
        let outcome = asked.await;
        assert!(matches!(outcome, Outcome::Reply(_)), "{outcome:?}");
    }
}

#[tokio::test]
async fn reading_rejected_events_without_the_permission_says_so() {
    let nats = server("permissions: { subscribe: \"_INBOX.>\" }");
    let config = as_router(&nats);
    let mut rejections = bus::Rejections::connect(&config.nats, &config.data_dir)
        .await
        .unwrap();
    let fault = timeout(PATIENCE, rejections.next()).await.unwrap().unwrap_err();
    let text = fault.to_string();
    assert!(text.contains("rivulet.rejected.>"), "{text}");
}

#[tokio::test]
async fn a_consumed_stream_needs_no_more() {
    let nats = server(&least());
    let backend = backend(&nats).await;
    async_nats::jetstream::new(backend.clone())
        .create_stream(async_nats::jetstream::stream::Config {
            name: "RIVULET".to_owned(),
            subjects: vec!["blob.>".to_owned(), "processor.>".to_owned()],
            ..Default::default()
        })
        .await
        .unwrap();
    let mut rig = Rig::open(&as_router(&nats)).await;
    rig.next().await;
    publish(&backend, "blob.created", r#"{"user_id":"u1"}"#).await;
    assert_eq!(rig.next().await, r#"1 blob.created u1 {"user_id":"u1"}"#);
}

#[tokio::test]
async fn what_is_not_permitted_is_named() {
    for lacking in [
        "$JS.API.STREAM.INFO.RIVULET",
        "$JS.API.STREAM.CREATE.RIVULET",
        "$JS.API.STREAM.NAMES",
        "$JS.API.STREAM.CREATE.KV_rivulet-commands",
        "rivulet.live.>",
        "typing.>",
        "_INBOX.rivulet.>",
    ] {
        let fewer: Vec<String> = least()
            .lines()
            .filter(|line| !line.contains(&format!("\"{lacking}\"")))
            .map(str::to_owned)
            .collect();
        let nats = server(&fewer.join("\n"));
        let fault = Rig::try_open(&as_router(&nats)).await.err();
        let fault = fault
            .unwrap_or_else(|| panic!("opened without `{lacking}`"))
            .to_string();
        let named = lacking.trim_end_matches('>');
        assert!(fault.contains(named), "{lacking}: {fault}");
        assert!(fault.contains("rivulet check --permissions"), "{fault}");
    }
}

/// Routers that were permitted what an earlier version needs go on.
#[tokio::test]
async fn without_the_record_of_decisions_events_come_all_the_same() {
    for lacking in [
        "$JS.API.STREAM.INFO.KV_rivulet-decided",
        "$JS.API.STREAM.CREATE.KV_rivulet-decided",
        "$JS.API.DIRECT.GET.KV_rivulet-decided.>",
        "$KV.rivulet-decided.>",
    ] {
        let fewer: Vec<String> = least()
            .lines()
            .filter(|line| !line.contains(&format!("\"{lacking}\"")))
            .map(str::to_owned)
            .collect();
        assert!(fewer.len() < least().lines().count());
        let nats = server(&fewer.join("\n"));
        let backend = backend(&nats).await;
        let mut rig = Rig::open(&as_router(&nats)).await;
        rig.next().await;
        publish(&backend, "blob.created", r#"{"user_id":"u1"}"#).await;
        assert_eq!(rig.next().await, r#"1 blob.created u1 {"user_id":"u1"}"#);
        let epoch = rig.bus.feed().borrow().stream.clone().unwrap().epoch;
        let segment = rig.bus.archive().segment(epoch.into(), 0, 1).await.unwrap();
        assert_eq!(segment.span.len(), 1, "{lacking}");
    }
}

#[tokio::test]
async fn wrong_credentials_are_said_at_once() {
    let nats = server("");
    let mut config = as_router(&nats);
    config.nats.credentials = NatsCredentials::Token(Secret("wrong".to_owned()));
    let fault = Rig::try_open(&config).await.err().unwrap().to_string();
    assert!(fault.contains("does not accept the router"), "{fault}");
    assert!(!fault.contains("wrong"), "{fault}");
}
