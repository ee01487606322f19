//! No token stands in a log, however the client brought it and whatever became of it, and nobody writes a line of
//! their own into it.
//!
//! A process of its own: a log of one thread alone misses lines at random where other tests' threads have none.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

use rivulet_tests::{
    client::Connect,
    nats::Nats,
    router::Router,
    token::{SECRET, token, token_lasting},
};
use serde_json::json;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_whole_run_at_trace_shows_no_token() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        // Of this test's own client the library logs its requests, the token with them.
        .with_env_filter("trace,tungstenite=off")
        .with_writer(move || writer.clone())
        .init();
    let nats = Nats::start().await;
    let router = Router::start(&nats).await;
    let good = token("ada");
    let expired = token_lasting("ada", Duration::ZERO);
    let forged = format!("{}x", token("eve"));
    for token in [&good, &expired, &forged] {
        let _ = Connect::plain(router.address, token).attempt().await;
        let _ = Connect::plain(router.address, "")
            .header("authorization", &format!("Bearer {token}"))
            .attempt()
            .await;
        let mut client = Connect::v1(router.address, token).open().await;
        let _ = client.next().await;
    }
    let mut client = router.plain("ada").ready().await;
    for token in [&good, &expired, &forged] {
        client
            .send(json!({ "type": "refresh_token", "token": token }))
            .await;
        client.next().await;
    }
    // An issuer may let users choose what they are called.
    drop(router.plain("eve\nFORGED a line of her own").ready().await);
    router.end().await.unwrap();

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(
        log.contains("connected") && log.contains("TRACE"),
        "the log is a log"
    );
    for token in [&good, &expired, &forged] {
        let signature = token.rsplit('.').next().unwrap();
        let line = log.lines().find(|line| line.contains(signature));
        assert_eq!(line, None, "a token's signature is in the log");
    }
    assert!(!log.contains(SECRET));
    assert!(log.contains("FORGED"), "who connects is logged");
    assert!(
        !log.lines().any(|line| line.starts_with("FORGED")),
        "a user writes lines into the log"
    );
}
