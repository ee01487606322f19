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

/// A command that a rig asks.
fn ask(rig: &Rig, id: &str) -> impl Future<Output = Outcome> + use<> {
    rig.bus.backend().ask(Command {
        name: "create_blob".to_owned(),
        user: UserId::parse("u1").unwrap(),
        id: Some(id.to_owned()),
        data: Bytes::from_static(b"{}"),
        deadline: Instant::now() + PATIENCE,
    })
}

/// A client whose own replies are under `prefix`.
async fn as_user(nats: &Nats, user: &str, prefix: &str) -> async_nats::Client {
    async_nats::ConnectOptions::with_user_and_password(user.into(), "p".into())
        .custom_inbox_prefix(prefix)
        .connect(nats.url())
        .await
        .unwrap()
}

/// Waits until the server has taken what a client said before: `flush` waits only until it has left.
async fn settled(client: &async_nats::Client, subject: &str) {
    let mut back = client.subscribe(subject.to_owned()).await.unwrap();
    client.publish(subject.to_owned(), Bytes::new()).await.unwrap();
    back.next().await.unwrap();
}

#[tokio::test]
async fn a_user_who_has_all_of_inbox_sees_no_reply_and_forges_none() {
    let nats = Nats::with(&format!(
        "jetstream {{ store_dir: \"STORE\" }}
         authorization {{ users: [
           {{ user: router, password: r, {} }}
           {{ user: backend, password: p }}
           {{ user: stranger, password: p, permissions {{ publish: \"_INBOX.>\", subscribe: \"_INBOX.>\" }} }}
         ] }}",
        least()
    ));
    let backend = as_user(&nats, "backend", "backend").await;
    let stranger = as_user(&nats, "stranger", "_INBOX").await;
    let mut seen = stranger.subscribe("_INBOX.>").await.unwrap();
    settled(&stranger, "_INBOX.settled").await;
    assert_eq!(seen.next().await.unwrap().subject.as_str(), "_INBOX.settled");
    let mut rig = Rig::open(&as_router(&nats)).await;
    rig.next().await;
    let mut commands = backend.subscribe("command.*").await.unwrap();
    settled(&backend, "settled").await;

    // What was stored, read back as for a session that resumes.
    publish(&backend, "blob.created", r#"{"user_id":"u1"}"#).await;
    rig.next().await;
    let epoch = rig
        .until("current", |state| state.current)
        .await
        .stream
        .unwrap()
        .epoch;
    let segment = rig.bus.archive().segment(epoch.into(), 0, 1).await.unwrap();
    assert_eq!(segment.span.len(), 1);

    // Even one who knows where an answer goes can't send it.
    let asked = tokio::spawn(ask(&rig, "1"));
    let reply = commands.next().await.unwrap().reply.unwrap();
    stranger
        .publish(reply.clone(), r#"{"data":{"forged":1}}"#.into())
        .await
        .unwrap();
    stranger.flush().await.unwrap();
    backend
        .publish(reply, r#"{"data":{"true":1}}"#.into())
        .await
        .unwrap();
    let outcome = format!("{:?}", asked.await.unwrap());
    assert!(
        outcome.contains("true") && !outcome.contains("forged"),
        "{outcome}"
    );

    backend.publish("_INBOX.end", Bytes::new()).await.unwrap();
    assert_eq!(seen.next().await.unwrap().subject.as_str(), "_INBOX.end");
}

#[tokio::test]
async fn where_a_reply_goes_says_nothing_of_where_the_next_one_does() {
    let nats = Nats::start();
    let client = nats.client().await;
    let mut commands = client.subscribe("command.*").await.unwrap();
    settled(&client, "settled").await;
    let rigs = [
        Rig::open(&config(&[nats.url()], nats.directory.path())).await,
        Rig::open(&config(&[nats.url()], nats.directory.path())).await,
    ];
    let mut replies = Vec::new();
    for (id, rig) in ["1", "2"]
        .into_iter()
        .flat_map(|id| rigs.iter().map(move |rig| (id, rig)))
    {
        let asked = tokio::spawn(ask(rig, &format!("{id}{}", replies.len())));
        let reply = commands.next().await.unwrap().reply.unwrap();
        client
            .publish(reply.clone(), r#"{"data":{}}"#.into())
            .await
            .unwrap();
        asked.await.unwrap();
        let (connection, request) = reply.rsplit_once('.').unwrap();
        assert!(connection.starts_with("rivulet.inbox."), "{reply}");
        replies.push((connection.to_owned(), request.to_owned()));
    }
    assert_eq!(replies[0].0, replies[2].0);
    assert_ne!(replies[0].0, replies[1].0, "of two connections");
    for one in 0..4 {
        for other in 0..one {
            // Two random requests agree in their first six characters once in 5 * 10^10.
            let (one, other) = (&replies[one].1, &replies[other].1);
            assert_ne!(one[..6], other[..6], "{one} after {other}");
        }
    }
}

/// What is printed for every other user.
fn denied() -> String {
    let text = least();
    let (_, others) = text.split_once("# permissions {").unwrap();
    others.lines().fold("permissions {\n".to_owned(), |text, line| {
        text + line.trim_start_matches('#') + "\n"
    })
}

#[tokio::test]
async fn what_others_are_denied_keeps_them_from_the_routers_subjects() {
    let nats = Nats::with(&format!(
        "jetstream {{ store_dir: \"STORE\" }}
         authorization {{ users: [
           {{ user: router, password: r, {} }}
           {{ user: backend, password: p, permissions {{
             publish: {{ allow: settled, deny: \"rivulet.>\" }}, subscribe: [\"command.create_blob\", settled], allow_responses: true
           }} }}
           {{ user: other, password: p, {} }}
           {{ user: all, password: p }}
         ] }}",
        least(),
        denied()
    ));
    let [all, other, backend] = ["all", "other", "backend"].map(|user| as_user(&nats, user, "x"));
    let (all, other, backend) = (all.await, other.await, backend.await);
    let rig = Rig::open(&as_router(&nats)).await;

    let subjects = [
        "rivulet.inbox.a.b",
        "rivulet.node.all",
        "rivulet.live.blob.created",
        "rivulet.rejected.blob.created",
        "command.create_blob",
        "$KV.rivulet-commands.u1.31_",
        "$JS.API.STREAM.MSG.GET.RIVULET",
        "$JS.API.STREAM.MSG.DELETE.KV_rivulet-commands",
        "$JS.API.STREAM.PURGE.RIVULET",
        "$JS.API.STREAM.CREATE.COPY",
        "$JS.API.DIRECT.GET.RIVULET",
        "$JS.API.DIRECT.GET.KV_rivulet-commands.$KV.rivulet-commands.u1.31_",
        "$JS.API.CONSUMER.CREATE.RIVULET.c.blob.>",
        "$JS.API.CONSUMER.DURABLE.CREATE.RIVULET.c",
    ];
    let mut published = all.subscribe(">").await.unwrap();
    settled(&all, "settled").await;
    for subject in subjects
        .into_iter()
        .filter(|subject| !subject.contains('>'))
        .chain(["end"])
    {
        other.publish(subject, Bytes::new()).await.unwrap();
    }
    let theirs = |subject: &str| subject == "end" || subjects.contains(&subject);
    let first = loop {
        // The router talks too.
        let subject = published.next().await.unwrap().subject;
        if theirs(&subject) {
            break subject;
        }
    };
    assert_eq!(first.as_str(), "end");

    let mut read = futures_util::stream::SelectAll::new();
    for subject in [
        "rivulet.>",
        "rivulet.inbox.>",
        "rivulet.node.>",
        "rivulet.live.>",
        "command.*",
        "$KV.>",
        "end",
    ] {
        read.push(other.subscribe(subject).await.unwrap());
    }
    settled(&other, "settled").await;
    publish(&all, "blob.created", r#"{"user_id":"u1"}"#).await;
    let mut commands = backend.subscribe("command.create_blob").await.unwrap();
    settled(&backend, "settled").await;
    let asked = tokio::spawn(ask(&rig, "1"));
    let reply = commands.next().await.unwrap().reply.unwrap();
    backend.publish(reply, r#"{"data":{}}"#.into()).await.unwrap();
    let outcome = asked.await.unwrap();
    assert!(matches!(outcome, Outcome::Reply(_)), "{outcome:?}");
    all.publish("end", Bytes::new()).await.unwrap();
    assert_eq!(read.next().await.unwrap().subject.as_str(), "end");
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
        "rivulet.inbox.>",
    ] {
        let fewer: Vec<String> = least()
            .lines()
            .filter(|line| !line.contains(&format!("\"{lacking}\"")))
            .map(str::to_owned)
            .collect();
        let nats = server(&(fewer.join("\n") + "\n"));
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
        let nats = server(&(fewer.join("\n") + "\n"));
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
