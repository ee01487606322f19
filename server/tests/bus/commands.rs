//! Every way in which a command ends.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use rivulet_protocol::subject::UserId;
use rivulet_router::command::{Backend, Command, Outcome};
use tokio::time::Instant;

use crate::{
    nats::{Nats, settle},
    rig::{PATIENCE, Rig, config},
};

fn command(id: Option<&str>, data: &str, deadline: Duration) -> Command {
    Command {
        name: "create_blob".to_owned(),
        user: UserId::parse("a.b").unwrap(),
        id: id.map(str::to_owned),
        data: Bytes::copy_from_slice(data.as_bytes()),
        deadline: Instant::now() + deadline,
    }
}

async fn ask(backend: &Arc<dyn Backend>, id: Option<&str>, data: &str) -> String {
    line(backend.ask(command(id, data, PATIENCE)).await)
}

async fn ask_briefly(backend: &Arc<dyn Backend>, id: Option<&str>, data: &str) -> String {
    line(backend.ask(command(id, data, Duration::from_millis(500))).await)
}

fn line(outcome: Outcome) -> String {
    match outcome {
        Outcome::Reply(data) => format!("reply {data}"),
        Outcome::Refused(error) => format!("refused {error}"),
        Outcome::Failed(error) => error.code,
    }
}

/// Answers with the n-th of all commands and what came with it; says nothing to `silent`, and answers `late`
/// when it is told to.
async fn backend(nats: &Nats) -> (tokio::task::JoinHandle<()>, tokio::sync::mpsc::Sender<()>) {
    let client = nats.client().await;
    let mut commands = client.subscribe("command.*").await.unwrap();
    settle(&client).await;
    let (release, mut released) = tokio::sync::mpsc::channel::<()>(1);
    let answer = async move {
        let mut count = 0;
        while let Some(command) = commands.next().await {
            count += 1;
            let text = std::str::from_utf8(&command.payload).unwrap().to_owned();
            let answer = match text.as_str() {
                "silent" => continue,
                "late" => {
                    released.recv().await;
                    r#"{"data":{"late":true}}"#.to_owned()
                }
                "refuse" => r#"{"error":{"code":"NOT_FOUND","message":"no","blob_id":"b"}}"#.to_owned(),
                "nonsense" => "nonsense".to_owned(),
                _ => {
                    let headers = command.headers.unwrap();
                    let of = |name: &str| {
                        headers
                            .get(name)
                            .map(|value| value.to_string())
                            .unwrap_or_default()
                    };
                    format!(
                        r#"{{"data":{{"n": {count}.0,"user":"{}","id":"{}","data":{text}}}}}"#,
                        of("Rivulet-User"),
                        of("Rivulet-Command-Id")
                    )
                }
            };
            client
                .publish(command.reply.unwrap(), answer.into())
                .await
                .unwrap();
        }
    };
    (tokio::spawn(answer), release)
}

/// As many as may be in flight on one node, and nobody answers any of them.
#[tokio::test]
async fn commands_that_nobody_answers_give_their_places_back_at_their_deadline() {
    let nats = Nats::with("");
    let rig = Rig::open(&config(&[nats.url()], nats.directory.path())).await;
    let asker = rig.bus.backend();
    let (_task, _release) = backend(&nats).await;
    let silent: Vec<_> = (0..4_096)
        .map(|number| {
            let id = format!("silent-{number}");
            tokio::spawn(asker.ask(command(Some(&id), "silent", Duration::from_secs(5))))
        })
        .collect();
    for command in silent {
        assert_eq!(line(command.await.unwrap()), "OUTCOME_UNKNOWN");
    }
    let later = asker
        .ask(command(Some("later"), "{}", Duration::from_secs(30)))
        .await;
    assert!(line(later).starts_with("reply"));
}

async fn matrix(nats: &Nats) {
    let rig = Rig::open(&config(&[nats.url()], nats.directory.path())).await;
    let asker = rig.bus.backend();
    // Nobody is there, and nothing happened: the id may be used again.
    assert_eq!(ask(&asker, None, "{}").await, "BACKEND_UNAVAILABLE");
    assert_eq!(ask(&asker, Some("first"), "{}").await, "BACKEND_UNAVAILABLE");

    let (_task, release) = backend(nats).await;
    let answered = r#"reply {"n": 1.0,"user":"a=2Eb","id":"first","data":{"x": 1.0}}"#;
    assert_eq!(ask(&asker, Some("first"), r#"{"x": 1.0}"#).await, answered);
    assert_eq!(
        ask(&asker, Some("first"), r#"{"other":1}"#).await,
        answered,
        "asked once"
    );
    let without = r#"reply {"n": 2.0,"user":"a=2Eb","id":"","data":{}}"#;
    assert_eq!(ask(&asker, None, "{}").await, without);

    let refused = r#"refused {"code":"NOT_FOUND","message":"no","blob_id":"b"}"#;
    assert_eq!(ask(&asker, Some("refused"), "refuse").await, refused);
    assert_eq!(ask(&asker, Some("refused"), "{}").await, refused);
    assert_eq!(ask(&asker, None, "nonsense").await, "COMMAND_FAILED");

    assert_eq!(ask_briefly(&asker, None, "silent").await, "OUTCOME_UNKNOWN");
    assert_eq!(
        ask_briefly(&asker, Some("silent"), "silent").await,
        "OUTCOME_UNKNOWN"
    );
    assert_eq!(
        ask_briefly(&asker, Some("silent"), "{}").await,
        "OUTCOME_UNKNOWN",
        "asked once"
    );

    // A second one waits for the answer of the first, even after the first has given up.
    assert_eq!(ask_briefly(&asker, Some("late"), "late").await, "OUTCOME_UNKNOWN");
    let second = tokio::spawn(asker.ask(command(Some("late"), "{}", PATIENCE)));
    release.send(()).await.unwrap();
    assert_eq!(line(second.await.unwrap()), r#"reply {"late":true}"#);

    // Hostile ids are ids like any other.
    for id in ["", " x ", "a.b", "*", ">", "\r\n", "é", &"x".repeat(64)] {
        let first = ask(&asker, Some(id), "{}").await;
        assert!(first.starts_with("reply"), "{id:?}: {first}");
        assert_eq!(ask(&asker, Some(id), "{}").await, first, "{id:?}");
    }
}

#[tokio::test]
async fn a_command_ends_in_one_way() {
    matrix(&Nats::start()).await;
}

#[tokio::test]
async fn a_command_ends_in_the_same_way_without_jetstream() {
    matrix(&Nats::with("")).await;
}

#[tokio::test]
async fn an_id_is_asked_once_over_all_nodes() {
    let nats = Nats::start();
    let config = config(&[nats.url()], nats.directory.path());
    let (one, two) = (Rig::open(&config).await, Rig::open(&config).await);
    let (_task, _release) = backend(&nats).await;
    let askers = [one.bus.backend(), two.bus.backend()];
    let asked = (0..20).map(|index| askers[index % 2].ask(command(Some("same"), "{}", PATIENCE)));
    let mut answers: Vec<String> = futures_util::future::join_all(asked)
        .await
        .into_iter()
        .map(line)
        .collect();
    answers.dedup();
    assert_eq!(
        answers,
        [r#"reply {"n": 1.0,"user":"a=2Eb","id":"same","data":{}}"#]
    );
}

#[tokio::test]
async fn what_was_not_sent_by_the_deadline_did_not_happen() {
    let mut nats = Nats::start();
    let rig = Rig::open(&config(&[nats.url()], nats.directory.path())).await;
    rig.until("current", |state| state.current).await;
    nats.kill();
    rig.until("disconnected", |state| !state.connected).await;
    let asker = rig.bus.backend();
    assert_eq!(ask_briefly(&asker, Some("x"), "{}").await, "COMMAND_TIMEOUT");
    nats.restart();
    let (_task, _release) = backend(&nats).await;
    rig.until("current", |state| state.current).await;
    let answer = ask(&asker, Some("x"), "{}").await;
    assert!(
        answer.starts_with(r#"reply {"n": 1.0"#),
        "the first was never sent: {answer}"
    );
}
