//! A user's event reaches that user's sessions and no others, whatever the ids contain.

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use rivulet_protocol::subject::UserId;
use rivulet_tests::{
    client::{Client, Connect},
    nats::Nats,
    publish::Publish,
    router::Setup,
    soon,
    token::token,
};
use serde_json::json;

/// Ids that try to be something else.
fn hostile_ids() -> Vec<String> {
    let longest = "x".repeat(128);
    let mut ids: Vec<String> = [
        "u1",
        " u1",
        "u1 ",
        "U1",
        "*",
        ">",
        "a.b",
        "a b",
        "a",
        "b",
        "a\r\nb",
        "😀",
        "=2A",
        "==everyone",
    ]
    .map(str::to_owned)
    .into();
    ids.push(longest);
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_thousand_deliveries_go_to_their_owners() {
    const DELIVERIES: usize = 100_000;
    const PATTERNS: [&[&str]; 4] = [
        &["*"],
        &["blob.*", "blob.created", ">"],
        &["*.created", "blob.>"],
        &["blob.created"],
    ];

    let nats = Nats::start().await;
    let limits = Setup::on(&nats)
        .set("limits.devices_per_user", "0")
        .set("sessions.outbox_events", "100000");
    let router = limits.set("sessions.outbox_bytes", "64MiB").start().await;
    let publish = Publish::on(&nats).await;
    let ids = hostile_ids();
    let mut sessions = Vec::new();
    for id in &ids {
        for patterns in PATTERNS {
            let mut client = Connect::plain(router.address, &token(id)).ready().await;
            client.subscribe(patterns).await;
            sessions.push((id.clone(), client));
        }
    }
    let events = DELIVERIES.div_ceil(PATTERNS.len());
    let mut readers = tokio::task::JoinSet::new();
    let mut expected = vec![0; ids.len()];
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let owners: Vec<usize> = (0..events).map(|_| random.random_range(0..ids.len())).collect();
    for owner in &owners {
        expected[*owner] += 1;
    }
    for (id, client) in sessions {
        let count = expected[ids.iter().position(|known| *known == id).unwrap()];
        readers.spawn(read(id, client, count));
    }
    let core = nats.client().await;
    for (number, owner) in owners.iter().enumerate() {
        let id = &ids[*owner];
        let mut data = rivulet_tests::publish::blob_created("somebody else", &number.to_string());
        data["owner"] = json!(id);
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Rivulet-User", UserId::parse(id).unwrap().escaped());
        core.publish_with_headers("blob.created", headers, data.to_string().into())
            .await
            .unwrap();
    }
    core.flush().await.unwrap();
    // Behind all others in the stream: what comes to nobody.
    publish.blob("nobody", "last").await;
    let mut deliveries = 0;
    while let Some(count) = soon("all deliveries", readers.join_next()).await {
        deliveries += count.unwrap();
    }
    assert_eq!(deliveries, events * PATTERNS.len());
}

/// Reads as many events as are this user's; every one is this user's, and none comes twice or out of order.
async fn read(id: String, mut client: Client, count: usize) -> usize {
    let mut last = 0;
    for _ in 0..count {
        let event = client.expect("blob.created").await;
        assert_eq!(event["data"]["owner"], json!(id));
        let seq = event["seq"].as_u64().unwrap();
        assert!(seq > last, "{seq} after {last}");
        last = seq;
    }
    assert_eq!(
        client.drain().await,
        Vec::<serde_json::Value>::new(),
        "nothing beyond is for {id:?}"
    );
    count
}

#[tokio::test]
async fn an_id_of_129_bytes_is_refused() {
    let nats = Nats::start().await;
    let router = Setup::on(&nats).start().await;
    let refused = router
        .plain(&"x".repeat(129))
        .attempt()
        .await
        .err()
        .expect("refused");
    assert_eq!(refused.status, 401);
}

#[tokio::test]
async fn an_id_that_is_not_escaped_reaches_nobody() {
    let nats = Nats::start().await;
    let router = Setup::on(&nats).start().await;
    let publish = Publish::on(&nats).await;
    let mut star = router.subscriber("*", &["*"]).await;
    let mut dotted = router.subscriber("a.b", &["*"]).await;
    let data = rivulet_tests::publish::blob_created("*", "1").to_string();
    for user in ["*", "a.b", ">", "=2a", "=75"] {
        publish
            .with_headers("blob.created", &[("Rivulet-User", user)], data.clone())
            .await;
    }
    publish
        .with_headers(
            "blob.created",
            &[("Rivulet-User", "=2A"), ("Rivulet-User", "a=2Eb")],
            data,
        )
        .await;
    for client in [&mut star, &mut dotted] {
        assert_eq!(client.expect("blob.created").await["seq"], 6);
    }
}
