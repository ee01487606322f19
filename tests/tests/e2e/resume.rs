//! A client that comes back gets exactly what it missed, or is told what is gone.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use rivulet_tests::{
    client::{Client, Connect},
    nats::Nats,
    publish::{Publish, blob_created},
    router::{Router, Setup},
    token::token_for,
    until,
};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

async fn parts(setup: impl FnOnce(Setup) -> Setup) -> (Nats, Router, Publish) {
    let nats = Nats::start().await;
    let router = setup(Setup::on(&nats)).start().await;
    let publish = Publish::on(&nats).await;
    (nats, router, publish)
}

/// Waits until this router has dispatched `seq`. Returns the stream's epoch.
async fn dispatched(router: &Router, seq: u64) -> String {
    let connected = async || router.plain("nobody").open().await.expect("connected").await["data"].clone();
    until("the events to be dispatched", async || {
        connected().await["seq"].as_u64() >= Some(seq)
    })
    .await;
    connected().await["stream"].as_str().unwrap().to_owned()
}

fn from(connect: Connect, stream: &str, seq: u64) -> Connect {
    connect.query("stream", stream).query("seq", &seq.to_string())
}

/// The ids of the next events, which come one by one.
async fn blobs(client: &mut Client, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let event = client.expect("blob.created").await;
        ids.push(event["data"]["blob_id"].as_str().unwrap().to_owned());
    }
    ids
}

fn numbers(numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
    numbers.into_iter().map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn what_was_missed_comes_in_order_and_then_what_is_new() {
    // From memory, and with nothing in memory from the stream.
    for memory in ["64MiB", "0"] {
        let (_nats, router, publish) = parts(|setup| setup.set("history.max_bytes", memory)).await;
        for number in 1..=700 {
            publish.blob("ada", &number.to_string()).await;
            publish.blob("bob", "not hers").await;
        }
        let stream = dispatched(&router, 1_400).await;
        let connect = from(router.v1("ada").query("events", "blob.*"), &stream, 600);
        let mut client = connect.open().await;
        let connected = client.expect("connected").await;
        assert_eq!(connected["data"]["resumed"], true, "{connected}");
        assert_eq!(connected["data"]["seq"], 1_400);
        assert_eq!(blobs(&mut client, 400).await, numbers(301..=700));
        let resumed = client.expect("resumed").await;
        assert_eq!(
            resumed["data"],
            json!({ "from_seq": 600, "to_seq": 1_400, "complete": true })
        );
        publish.blob("ada", "new").await;
        assert_eq!(blobs(&mut client, 1).await, ["new"]);

        // By a frame, with patterns of its own, for a client that is not of the protocol.
        let mut plain = router.plain("ada").ready().await;
        plain.subscribe(&["book.*"]).await;
        let resume = json!({ "type": "resume", "stream": stream, "seq": 1_398, "events": ["blob.*"] });
        plain.send(resume).await;
        assert_eq!(blobs(&mut plain, 2).await, ["700", "new"]);
        let told = plain.expect("subscribed").await;
        assert_eq!(told["data"], json!({ "events": ["blob.*"], "seq": 1_401 }));
        plain
            .send(json!({ "type": "resume", "stream": stream, "seq": 1, "id": "late" }))
            .await;
        let late = plain.expect("error").await;
        assert_eq!(
            (&late["data"]["code"], &late["id"]),
            (&json!("INVALID_MESSAGE"), &json!("late"))
        );
    }
}

#[tokio::test]
async fn any_node_resumes_a_client() {
    let (nats, first, publish) = parts(|setup| setup).await;
    publish.blob("ada", "before the second node").await;
    dispatched(&first, 1).await;
    let second = Router::start(&nats).await;
    publish.blob("ada", "after").await;
    let stream = dispatched(&second, 2).await;
    let mut client = from(second.v1("ada").query("events", "*"), &stream, 0)
        .open()
        .await;
    assert_eq!(client.expect("connected").await["data"]["resumed"], true);
    assert_eq!(blobs(&mut client, 2).await, ["before the second node", "after"]);
    assert_eq!(client.expect("resumed").await["data"]["complete"], true);
}

#[tokio::test]
async fn what_cannot_be_resumed_is_told_as_a_gap() {
    for memory in ["64MiB", "0"] {
        let (nats, router, publish) = parts(|setup| setup.set("history.max_bytes", memory)).await;
        for number in 1..=9 {
            publish.blob("ada", &number.to_string()).await;
        }
        let stream = dispatched(&router, 9).await;
        for (stream, seq) in [
            (stream.as_str(), 9 + 5),
            ("OTHER@1", 3),
            ("OTHER@1", (1 << 53) - 1),
            (stream.as_str(), (1 << 53) - 1),
        ] {
            let reason = match stream {
                "OTHER@1" => "epoch_changed",
                _ => "future_seq",
            };
            let mut at_connect = from(router.v1("ada").query("events", "blob.*"), stream, seq)
                .open()
                .await;
            let connected = at_connect.expect("connected").await;
            assert_eq!(connected["data"]["resumed"], false, "{connected}");
            let mut by_frame = router.v1("ada").ready().await;
            by_frame
                .send(json!({ "type": "resume", "stream": stream, "seq": seq, "events": ["blob.*"] }))
                .await;
            for client in [&mut at_connect, &mut by_frame] {
                let gap = client.expect("gap").await;
                assert_eq!(gap["data"]["reason"], reason);
                assert_eq!(gap["data"]["from_seq"], seq);
                assert_eq!(gap["data"]["to_seq"], 9, "here it goes on");
                assert_eq!(client.expect("resumed").await["data"]["complete"], false);
            }
        }

        let gone = "rivulet_resumes_total{past=\"gone\"}";
        assert_eq!(
            router.metric(gone).await,
            8.0,
            "each position counts where it was"
        );

        // What the stream removed is named, and what it still has comes after it.
        let jetstream = async_nats::jetstream::new(nats.client().await);
        let kept = jetstream.get_stream("RIVULET").await.unwrap();
        kept.purge().sequence(6).await.unwrap();
        let expected = [
            json!({ "stream": stream, "from_seq": 2, "to_seq": 5, "reason": "evicted" }),
            json!(6),
            json!(7),
            json!(8),
            json!(9),
            json!({ "from_seq": 2, "to_seq": 9, "complete": false }),
        ];
        until("the router to know of it", async || {
            replayed(&router, &stream, 2).await == expected
        })
        .await;
    }
}

/// What ada gets who resumes: the sequences of events, and what gaps and `resumed` say.
async fn replayed(router: &Router, stream: &str, seq: u64) -> Vec<Value> {
    let connect = from(router.v1("ada").query("events", "*"), stream, seq);
    let mut client = connect.open().await;
    client.expect("connected").await;
    let mut told = Vec::new();
    loop {
        let frame = client.next().await;
        match frame["type"].as_str().unwrap() {
            "gap" => told.push(frame["data"].clone()),
            "resumed" => {
                told.push(frame["data"].clone());
                return told;
            }
            _ => told.push(frame["seq"].clone()),
        }
    }
}

/// Whatever removes events from the stream, a running node soon answers as one that has just begun.
#[tokio::test]
async fn what_the_stream_removed_is_not_replayed_by_a_node_that_remembers_it() {
    let (nats, router, publish) = parts(|setup| setup).await;
    let elsewhere = Setup::on(&nats).set("history.max_bytes", "0").start().await;
    for number in 1..=600 {
        publish.blob("ada", &number.to_string()).await;
    }
    let stream = dispatched(&router, 600).await;
    dispatched(&elsewhere, 600).await;
    assert_eq!(replayed(&router, &stream, 0).await.len(), 601);
    // What it has read back is kept too.
    assert_eq!(replayed(&elsewhere, &stream, 0).await.len(), 601);
    let jetstream = async_nats::jetstream::new(nats.client().await);
    let mut kept = jetstream.get_stream("RIVULET").await.unwrap();
    let agree = async |seqs: &[u64]| {
        let fresh = Router::start(&nats).await;
        for from in [0, 4, 300] {
            let expected = replayed(&fresh, &stream, from).await;
            let events: Vec<u64> = expected.iter().filter_map(Value::as_u64).collect();
            let left: Vec<u64> = seqs.iter().copied().filter(|seq| *seq > from).collect();
            assert_eq!(events, left);
            for node in [&router, &elsewhere] {
                until("a node that was there to answer the same", async || {
                    replayed(node, &stream, from).await == expected
                })
                .await;
            }
        }
    };
    let mut left: Vec<u64> = (1..=600).collect();

    // One inside, and the last.
    for seq in [300, 301, 450, 600] {
        assert!(kept.delete_message(seq).await.unwrap());
        left.retain(|left| *left != seq);
    }
    agree(&left).await;
    // The first ones, and another inside in the same moment.
    kept.purge().sequence(3).await.unwrap();
    assert!(kept.delete_message(5).await.unwrap());
    left.retain(|left| *left > 2 && *left != 5);
    agree(&left).await;
    // By age, all.
    let mut config = kept.info().await.unwrap().config.clone();
    config.max_age = std::time::Duration::from_secs(1);
    config.duplicate_window = config.max_age;
    jetstream.update_stream(config).await.unwrap();
    until("the stream to be empty", async || {
        let now = jetstream.get_stream("RIVULET").await.unwrap();
        now.cached_info().state.messages == 0
    })
    .await;
    agree(&[]).await;
}

#[tokio::test]
async fn patterns_and_permissions_of_now_apply() {
    let (_nats, router, publish) = parts(|setup| setup).await;
    publish.blob("ada", "1").await;
    let book = json!({ "user_id": "ada", "book_id": "b", "title": "t" });
    publish.raw("book.created", book.to_string()).await;
    let typing = json!({ "user_id": "ada", "conversation_id": "c", "typist_id": "t", "typing": true });
    publish.raw("conversation.typing", typing.to_string()).await;
    let failed =
        json!({ "user_id": "ada", "blob_id": "b", "processor_id": "p", "code": "C", "message": "m" });
    publish.raw("processor.failed", failed.to_string()).await;
    let stream = dispatched(&router, 4).await;
    let types = async |connect: Connect| {
        let mut client = from(connect, &stream, 0).open().await;
        client.expect("connected").await;
        let mut types = Vec::new();
        loop {
            let frame = client.next().await;
            match frame["type"].as_str().unwrap() {
                "resumed" => return types,
                other => types.push(other.to_owned()),
            }
        }
    };
    // An ephemeral event lived in its moment.
    let all = types(router.v1("ada").query("events", "*")).await;
    assert_eq!(all, ["blob.created", "book.created", "processor.failed"]);
    let books = types(router.v1("ada").query("events", "book.*,error")).await;
    assert_eq!(books, ["book.created", "error"]);
    let token = token_for("ada", json!({ "events": ["blob.*"] }));
    let narrow = types(Connect::v1(router.address, &token).query("events", "*")).await;
    assert_eq!(narrow, ["blob.created"]);
    let eve = types(router.v1("eve").query("events", "*")).await;
    assert_eq!(eve, [""; 0]);
}

#[tokio::test]
async fn a_replay_longer_than_the_outbox_goes_at_the_pace_of_its_reader() {
    for memory in ["64MiB", "0"] {
        let setup = |setup: Setup| {
            setup
                .set("history.max_bytes", memory)
                .set("sessions.outbox_events", "2")
                .set("sessions.outbox_bytes", "4KiB")
                .set("sessions.max_event_bytes", "1KiB")
        };
        let (_nats, router, publish) = parts(setup).await;
        for number in 1..=500 {
            publish.blob("ada", &number.to_string()).await;
        }
        let stream = dispatched(&router, 500).await;
        let mut client = from(router.v1("ada").query("events", "*"), &stream, 0)
            .open()
            .await;
        client.expect("connected").await;
        assert_eq!(blobs(&mut client, 500).await, numbers(1..=500));
        client.expect("resumed").await;
    }
}

/// That a client which was cut has the beginning whole, and that resuming brings it all the rest.
async fn resumes_whole(router: &Router, mut cut: Client, stream: &str, all: u64) -> Client {
    let mut cursor = 0;
    while let Ok(event) = cut.next_or_close().await {
        assert_eq!(event["seq"], cursor + 1);
        cursor += 1;
    }
    assert!(cursor < all);
    let mut client = from(router.v1("ada").query("events", "*"), stream, cursor)
        .open()
        .await;
    client.expect("connected").await;
    for seq in cursor + 1..=all {
        assert_eq!(client.expect("blob.created").await["seq"], seq);
    }
    client
}

#[tokio::test]
async fn a_replay_that_gets_nowhere_ends_so_that_its_client_resumes() {
    let setup = |setup: Setup| setup.set("sessions.write_deadline", "200ms");
    let (_nats, router, publish) = parts(setup).await;
    let mut data = blob_created("ada", "");
    data["preview"] = "x".repeat(100_000).into();
    for _ in 0..200 {
        publish.raw("blob.created", data.to_string()).await;
    }
    let stream = dispatched(&router, 200).await;
    let mut stopped = from(router.v1("ada").query("events", "*"), &stream, 0)
        .open()
        .await;
    until("the replay to be given up", async || {
        router
            .metric("rivulet_connections_closed_total{code=\"1013\"}")
            .await
            == 1.0
    })
    .await;
    assert_eq!(router.metric("rivulet_replaying").await, 0.0);
    stopped.expect("connected").await;
    resumes_whole(&router, stopped, &stream, 200).await;
}

#[tokio::test]
async fn one_replay_too_many_is_told_when_to_come_again() {
    let setup = |setup: Setup| setup.set("history.max_bytes", "0").set("history.replays", "1");
    let (_nats, router, publish) = parts(setup).await;
    let mut data = blob_created("ada", "");
    data["preview"] = "x".repeat(100_000).into();
    for _ in 0..200 {
        publish.raw("blob.created", data.to_string()).await;
    }
    let stream = dispatched(&router, 200).await;
    let mut first = from(router.v1("ada").query("events", "*"), &stream, 0)
        .open()
        .await;
    first.expect("connected").await;
    first.expect("blob.created").await;

    let refused = from(router.plain("bob"), &stream, 0).attempt().await;
    let refused = refused.err().expect("no room");
    assert_eq!((refused.status, refused.retry_after.as_deref()), (429, Some("5")));
    let mut v1 = from(router.v1("bob"), &stream, 0).open().await;
    let error = v1.expect("error").await;
    assert_eq!(error["data"]["code"], "RATE_LIMITED");
    assert_eq!(error["data"]["retry_after"], 5.0);
    assert_eq!(v1.closed().await, (4429, r#"{"retry_after":5}"#.to_owned()));

    // By a frame it changes nothing: the session goes on as it was.
    let mut by_frame = router.v1("bob").query("events", "blob.*").ready().await;
    by_frame
        .send(json!({ "type": "resume", "stream": stream, "seq": 0, "events": ["book.*"], "id": "r" }))
        .await;
    let error = by_frame.expect("error").await;
    assert_eq!(
        (&error["data"]["code"], &error["id"]),
        (&json!("RATE_LIMITED"), &json!("r"))
    );
    publish.blob("bob", "live").await;
    assert_eq!(blobs(&mut by_frame, 1).await, ["live"]);

    // Who reads to the end, or leaves, makes room.
    drop(first);
    until("the room to be given back", async || {
        from(router.plain("bob"), &stream, 0).attempt().await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_session_that_replays_is_a_session() {
    let (_nats, router, publish) = parts(|setup| setup.set("history.max_bytes", "0")).await;
    let mut data = blob_created("ada", "");
    data["preview"] = "x".repeat(100_000).into();
    for _ in 0..200 {
        publish.raw("blob.created", data.to_string()).await;
    }
    let stream = dispatched(&router, 200).await;
    let mut client = from(router.v1("ada").query("events", "blob.*"), &stream, 0)
        .open()
        .await;
    client.expect("connected").await;
    client.expect("blob.created").await;
    assert_eq!(router.metric("rivulet_replaying").await, 1.0);
    // What carries a sequence stands in order with the events, and says how far they go.
    client.send(json!({ "type": "ping", "id": "p" })).await;
    client
        .send(json!({ "type": "subscribe", "events": ["book.*"], "id": "s" }))
        .await;
    client
        .send(json!({ "type": "create_blob", "data": { "content": "", "schema_id": "s" } }))
        .await;
    let (mut cursor, mut answers) = (1, Vec::new());
    loop {
        let frame = client.next().await;
        match frame["type"].as_str().unwrap() {
            "blob.created" => {
                assert_eq!(frame["seq"], cursor + 1);
                cursor += 1;
            }
            "resumed" => break,
            "pong" => {
                assert_eq!(frame["data"]["seq"], cursor);
                answers.push("pong");
            }
            "subscribed" => {
                assert_eq!(
                    frame["data"],
                    json!({ "events": ["blob.*", "book.*"], "seq": cursor })
                );
                answers.push("subscribed");
            }
            _ => {
                assert_eq!(frame["data"]["code"], "BACKEND_UNAVAILABLE", "{frame}");
                answers.push("error");
            }
        }
    }
    assert_eq!(cursor, 200);
    answers.sort_unstable();
    assert_eq!(answers, ["error", "pong", "subscribed"]);
    assert_eq!(router.metric("rivulet_replaying").await, 0.0);
}

#[tokio::test]
async fn a_slow_reader_loses_nothing_by_resuming() {
    let setup = |setup: Setup| {
        setup
            .set("sessions.outbox_bytes", "256KiB")
            .set("sessions.max_event_bytes", "64KiB")
    };
    let (_nats, router, publish) = parts(setup).await;
    let mut client = router.v1("ada").query("events", "*").open().await;
    let connected = client.expect("connected").await;
    let stream = connected["data"]["stream"].as_str().unwrap().to_owned();
    let mut data = blob_created("ada", "");
    data["preview"] = "x".repeat(20_000).into();
    for _ in 0..500 {
        publish.raw("blob.created", data.to_string()).await;
    }
    until("it to be cut", async || {
        router
            .metric("rivulet_connections_closed_total{code=\"4413\"}")
            .await
            == 1.0
    })
    .await;
    let mut client = resumes_whole(&router, client, &stream, 500).await;
    client.expect("resumed").await;
}

/// Clients that are cut at random points, from several nodes, while publishing goes on: each gets what the
/// stream holds for it, once and in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cut_at_any_point_a_client_ends_up_with_the_stream() {
    const USERS: usize = 4;
    const EVENTS: u64 = 3_000;
    const PATTERNS: [&str; 3] = ["*", "blob.*", "book.created"];

    let seed = rand::random();
    println!("seed {seed}");
    let nats = Nats::start().await;
    let mut routers = Vec::new();
    for memory in ["64MiB", "64KiB", "0"] {
        let setup = Setup::on(&nats)
            .set("history.max_bytes", memory)
            .set("limits.devices_per_user", "0")
            .set("sessions.outbox_events", "50");
        routers.push(setup.start().await);
    }
    let stream = dispatched(&routers[0], 0).await;
    let (published, publishing) = watch::channel(false);
    let cuts = Arc::new(AtomicU64::new(0));
    let cut: Vec<Arc<Notify>> = (0..USERS * PATTERNS.len()).map(|_| Arc::default()).collect();
    let routers = Arc::new(routers);
    let mut clients = tokio::task::JoinSet::new();
    for user in 0..USERS {
        for (device, events) in PATTERNS.into_iter().enumerate() {
            let (routers, stream) = (Arc::clone(&routers), stream.clone());
            let cuts = Arc::clone(&cuts);
            let cut = Arc::clone(&cut[user * PATTERNS.len() + device]);
            let mut publishing = publishing.clone();
            let mut random = SmallRng::seed_from_u64(seed ^ (user * PATTERNS.len() + device) as u64);
            clients.spawn(async move {
                let (mut cursor, mut got) = (0, Vec::new());
                loop {
                    let router = &routers[random.random_range(0..routers.len())];
                    let ended = *publishing.borrow();
                    let connect = router.v1(&format!("u{user}")).query("events", events);
                    let mut client = from(connect, &stream, cursor).open().await;
                    // Some connections live for a frame, some until the replay is over, some longer.
                    let mut left = [3, 40, 400][random.random_range(0..3)];
                    left = random.random_range(0..left);
                    loop {
                        let frame = tokio::select! {
                            frame = client.next_or_close() => frame,
                            _ = publishing.wait_for(|ended| *ended), if !ended => break,
                            () = cut.notified(), if !ended => break,
                        };
                        let Ok(frame) = frame else { break };
                        match frame["type"].as_str().unwrap() {
                            "connected" | "subscribed" => {}
                            "resumed" => {
                                assert_eq!(frame["data"]["complete"], true);
                                if ended && frame["data"]["to_seq"] == EVENTS {
                                    return (user, device, got);
                                }
                                if ended {
                                    // This node has not had all yet.
                                    break;
                                }
                            }
                            "gap" => panic!("nothing is gone: {frame}"),
                            _ => {
                                let seq = frame["seq"].as_u64().unwrap();
                                assert!(seq > cursor, "{seq} after {cursor}");
                                cursor = seq;
                                got.push(seq);
                            }
                        }
                        if left == 0 {
                            break;
                        }
                        left -= 1;
                    }
                    cuts.fetch_add(1, Ordering::Relaxed);
                    // The socket goes without a word, with whatever was on its way.
                    client.reset();
                }
            });
        }
    }
    let publish = Publish::on(&nats).await;
    let mut expected: HashMap<(usize, usize), Vec<u64>> = HashMap::new();
    let mut random = SmallRng::seed_from_u64(seed);
    for number in 0..EVENTS {
        if number % 5 == 0 {
            cut[random.random_range(0..cut.len())].notify_one();
        }
        let user = random.random_range(0..USERS);
        let id = format!("u{user}");
        let (seq, devices): (u64, &[usize]) = match random.random_range(0..3) {
            0 => (publish.blob(&id, "").await, &[0, 1]),
            1 => {
                let book = json!({ "user_id": id, "book_id": "b" }).to_string();
                (publish.raw("book.created", book).await, &[0, 2])
            }
            _ => {
                let book = json!({ "user_id": id, "book_id": "b" }).to_string();
                (publish.raw("book.deleted", book).await, &[0])
            }
        };
        for device in devices {
            expected.entry((user, *device)).or_default().push(seq);
        }
    }
    published.send_replace(true);
    while let Some(client) = clients.join_next().await {
        let (user, device, got) = client.unwrap();
        assert_eq!(got, expected[&(user, device)], "user {user}, device {device}");
    }
    println!("{} cuts, {EVENTS} events", cuts.load(Ordering::Relaxed));
}
