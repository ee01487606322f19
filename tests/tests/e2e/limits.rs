//! What one user, one address and one session may take.

use rivulet_tests::{
    nats::Nats,
    publish::Publish,
    router::{Router, Setup},
};
use serde_json::json;

#[tokio::test]
async fn of_six_plain_clients_five_work_and_the_sixth_is_refused() {
    let nats = Nats::start().await;
    let router = Router::start(&nats).await;
    let publish = Publish::on(&nats).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(router.subscriber("ada", &["blob.*"]).await);
    }
    for round in 0..10 {
        let refused = router
            .plain("ada")
            .attempt()
            .await
            .err()
            .expect("the sixth is refused");
        assert_eq!(
            (refused.status, &refused.problem["code"]),
            (429, &json!("RATE_LIMITED"))
        );
        assert!(refused.retry_after.is_some());
        publish.blob("ada", &round.to_string()).await;
        for client in &mut clients {
            assert_eq!(
                client.expect("blob.created").await["data"]["blob_id"],
                round.to_string()
            );
        }
    }
    router.plain("bob").ready().await;
}

#[tokio::test]
async fn a_v1_newcomer_takes_the_oldest_v1_seat() {
    let nats = Nats::start().await;
    let router = Setup::on(&nats).set("limits.devices_per_user", "2").start().await;
    let mut plain = router.plain("ada").ready().await;
    let mut first = router.v1("ada").ready().await;
    let mut second = router.v1("ada").ready().await;
    assert_eq!(first.closed().await.0, 4429);
    assert_eq!((plain.drain().await.len(), second.drain().await.len()), (0, 0));
    drop(second);
    let _another = router.plain("bob").ready().await;
}

#[tokio::test]
async fn where_all_seats_are_plain_a_v1_newcomer_is_refused() {
    let nats = Nats::start().await;
    let router = Setup::on(&nats).set("limits.devices_per_user", "1").start().await;
    let _plain = router.plain("ada").ready().await;
    let mut newcomer = router.v1("ada").open().await;
    assert_eq!(newcomer.expect("error").await["data"]["code"], "RATE_LIMITED");
    assert_eq!(newcomer.closed().await.0, 4429);
}

#[tokio::test]
async fn a_device_that_comes_again_replaces_its_ghost() {
    let nats = Nats::start().await;
    let router = Setup::on(&nats).set("limits.devices_per_user", "1").start().await;
    let mut ghost = router.plain("ada").query("device", "phone").ready().await;
    let mut back = router.plain("ada").query("device", "phone").ready().await;
    assert_eq!(ghost.closed().await, (4429, "replaced".into()));
    assert_eq!(back.drain().await.len(), 0);
}

#[tokio::test]
async fn more_than_ten_bad_messages_end_the_session() {
    let nats = Nats::start().await;
    let router = Router::start(&nats).await;
    for connect in [router.plain("ada"), router.v1("ada")] {
        let mut client = connect.ready().await;
        for _ in 0..11 {
            client.send_text("nonsense").await;
        }
        for _ in 0..11 {
            assert_eq!(client.expect("error").await["data"]["code"], "INVALID_JSON");
        }
        assert_eq!(client.closed().await.0, 1008);
    }
}

#[tokio::test]
async fn a_rate_says_when_to_come_again() {
    let nats = Nats::start().await;
    let router = Setup::on(&nats)
        .set("limits.ping.burst", "3")
        .set("limits.ping.per_second", "1")
        .start()
        .await;
    let mut client = router.plain("ada").ready().await;
    // Three are allowed, and another for each second that the machine makes them wait.
    let mut number = 0;
    let error = loop {
        client
            .send(json!({ "type": "ping", "id": number.to_string() }))
            .await;
        let answer = client.next().await;
        assert_eq!(answer["id"], number.to_string(), "{answer}");
        if answer["type"] == "error" {
            break answer;
        }
        number += 1;
    };
    assert!(number >= 3, "{number} are fewer than the burst");
    assert_eq!(error["data"]["code"], "RATE_LIMITED");
    let wait = error["data"]["retry_after"].as_f64().unwrap();
    assert!(wait > 0.0 && wait <= 1.0, "{wait}");
}

#[tokio::test]
async fn an_address_has_so_many_connections() {
    let nats = Nats::start().await;
    let router = Setup::on(&nats)
        .set("limits.connections_per_address", "2")
        .start()
        .await;
    let _first = router.plain("ada").ready().await;
    let second = router.plain("bob").ready().await;
    let refused = router.plain("eve").attempt().await.err().expect("refused");
    assert_eq!(refused.status, 429);
    let mut v1 = router.v1("eve").open().await;
    v1.expect("error").await;
    let (code, reason) = v1.closed().await;
    assert_eq!(code, 4429);
    assert!(reason.contains("retry_after"), "{reason}");
    drop(second);
    rivulet_tests::until("the slot to be given back", async || {
        router.plain("eve").attempt().await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_session_holds_so_many_patterns() {
    let nats = Nats::start().await;
    let router = Setup::on(&nats).set("limits.max_patterns", "2").start().await;
    let mut client = router.plain("ada").ready().await;
    client.subscribe(&["a.*", "b.*"]).await;
    client.subscribe(&["a.*"]).await;
    client
        .send(json!({ "type": "subscribe", "events": ["c.*"] }))
        .await;
    assert_eq!(client.expect("error").await["data"]["code"], "TOO_MANY_PATTERNS");
}
