//! A feed by user: what the whole feed promises, for those who are here.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use rivulet_protocol::subject::{EVERYONE_TOKEN, UserId};
use rivulet_tests::{
    nats::Nats,
    publish::{Publish, blob_created},
    router::{Router, Setup},
    until,
};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

const SOURCES: &str =
    "[{subject = 'blob.*.*', audience = 'token:2'}, {subject = 'book.*.*', audience = 'token:2'}]";

fn by_user(nats: &Nats) -> Setup {
    Setup::on(nats)
        .set("stream.feed", "by_user")
        .set("sources", SOURCES)
        .set("limits.devices_per_user", "0")
}

/// Publishes to a user, or to everyone.
async fn publish(publish: &Publish, event_type: &str, user: Option<&str>, number: u64) -> u64 {
    let token = user.map_or(EVERYONE_TOKEN.to_owned(), |user| {
        UserId::parse(user).unwrap().escaped()
    });
    let data = match event_type {
        "blob.created" => blob_created("x", &number.to_string()),
        _ => json!({ "user_id": "x", "book_id": number.to_string() }),
    };
    publish
        .raw(&format!("{event_type}.{token}"), data.to_string())
        .await
}

/// The position that a new session is told; asked again while the node takes nobody, as before the first index.
async fn position(router: &Router) -> Value {
    loop {
        if let Ok(mut client) = router.plain("nobody").attempt().await {
            return client.expect("connected").await["data"].clone();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn memory_holds_a_users_events_from_when_the_user_came() {
    let nats = Nats::start().await;
    let router = by_user(&nats).start().await;
    let backend = Publish::on(&nats).await;
    for number in 1..=20 {
        publish(&backend, "blob.created", Some("ada"), number).await;
    }
    until("the events to be passed", async || {
        position(&router).await["seq"] == 20
    })
    .await;
    let stream = position(&router).await["stream"].as_str().unwrap().to_owned();
    // Nobody was here, so memory has nothing of hers: the stream has.
    let resume = |seq: &str| {
        let connect = router.v1("ada").query("events", "*").query("stream", &stream);
        connect.query("seq", seq)
    };
    let mut ada = resume("5").open().await;
    assert_eq!(ada.expect("connected").await["data"]["resumed"], true);
    for number in 6..=20 {
        assert_eq!(ada.expect("blob.created").await["seq"], number);
    }
    assert_eq!(ada.expect("resumed").await["data"]["complete"], true);
    assert_eq!(router.metric("rivulet_resumes_total{past=\"stream\"}").await, 1.0);
    publish(&backend, "blob.created", Some("ada"), 21).await;
    publish(&backend, "book.created", None, 22).await;
    publish(&backend, "book.created", Some("bob"), 23).await;
    assert_eq!(ada.expect("blob.created").await["seq"], 21);
    assert_eq!(ada.expect("book.created").await["seq"], 22);
    // From here on it has all, also a while after she left.
    drop(ada);
    let mut again = resume("20").open().await;
    again.expect("connected").await;
    assert_eq!(again.expect("blob.created").await["seq"], 21);
    assert_eq!(again.expect("book.created").await["seq"], 22);
    again.expect("resumed").await;
    assert_eq!(router.metric("rivulet_resumes_total{past=\"stream\"}").await, 1.0);
    assert_eq!(router.metric("rivulet_resumes_total{past=\"memory\"}").await, 1.0);
}

/// Sessions that come, resume and are cut at random, on three nodes with much, little and no memory, while events
/// flow and NATS is killed: each has had exactly what the stream holds for it between its first position and
/// its last.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_comes_at_any_point_has_what_the_stream_holds() {
    const HOSTILE: [&str; 6] = ["u1", "a.b", "*", ">", "\u{e9} \u{fc}", EVERYONE_TOKEN];
    const USERS: usize = 90;
    const TYPES: [&str; 3] = ["blob.created", "book.created", "book.deleted"];
    const CLIENTS: usize = 12;
    const EVENTS: u64 = 3_000;

    // Many, so that most sessions are the first of their user at their node.
    let users: Arc<Vec<String>> = Arc::new(
        (0..USERS)
            .map(|number| format!("{}{number}", HOSTILE[number % 6]))
            .collect(),
    );
    // Who comes just now: events are for them above all.
    let coming: Arc<[AtomicUsize; CLIENTS]> = Arc::default();
    let seed = rand::random();
    println!("seed {seed}");
    let mut nats = Nats::start().await;
    let mut routers = Vec::new();
    for memory in ["64MiB", "64KiB", "0"] {
        let setup = by_user(&nats).set("history.max_bytes", memory);
        routers.push(setup.set("sessions.outbox_events", "50").start().await);
    }
    let stream = position(&routers[0]).await["stream"].as_str().unwrap().to_owned();
    let routers = Arc::new(routers);
    let (published, publishing) = watch::channel(None::<u64>);
    let cut: Vec<Arc<Notify>> = (0..CLIENTS).map(|_| Arc::default()).collect();
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let (routers, stream) = (Arc::clone(&routers), stream.clone());
        let (users, coming) = (Arc::clone(&users), Arc::clone(&coming));
        let cut = Arc::clone(&cut[client]);
        let mut publishing = publishing.clone();
        let mut random = SmallRng::seed_from_u64(seed ^ client as u64);
        clients.spawn(async move {
            // Each with its user, the position from which it began, its last, and what it got.
            let mut lives: Vec<(usize, u64, u64, Vec<u64>)> = Vec::new();
            loop {
                let router = &routers[random.random_range(0..routers.len())];
                let ended = *publishing.borrow();
                let anew = lives.is_empty() || (ended.is_none() && random.random_range(0..3) == 0);
                let user = match lives.last() {
                    Some((user, ..)) if !anew => *user,
                    _ => random.random_range(0..USERS),
                };
                coming[client].store(user, Ordering::Relaxed);
                let mut connect = router.v1(&users[user]).query("events", "*");
                if let Some((_, _, cursor, _)) = lives.last().filter(|_| !anew) {
                    connect = connect.query("stream", &stream).query("seq", &cursor.to_string());
                }
                let mut client = connect.open().await;
                let mut left = [3, 40, 400][random.random_range(0..3)];
                left = random.random_range(0..left);
                let pings = random.random_range(0..2) == 0;
                loop {
                    let frame = tokio::select! {
                        frame = client.next_or_close() => frame,
                        _ = publishing.wait_for(Option::is_some), if ended.is_none() => break,
                        () = cut.notified(), if ended.is_none() => break,
                    };
                    let Ok(frame) = frame else { break };
                    let seq = frame["data"]["seq"].as_u64();
                    match (frame["type"].as_str().unwrap(), lives.last_mut()) {
                        ("connected", life) => {
                            assert_eq!(frame["data"]["resumed"], !anew, "{frame}");
                            if anew || life.is_none() {
                                lives.push((user, seq.unwrap(), seq.unwrap(), Vec::new()));
                            }
                            if pings {
                                client.send(json!({ "type": "ping" })).await;
                            }
                        }
                        // What it says is behind the client is never sent again.
                        ("pong", Some((_, _, cursor, _))) => *cursor = seq.unwrap().max(*cursor),
                        ("resumed", _) => {
                            assert_eq!(frame["data"]["complete"], true);
                            if ended.is_some_and(|last| frame["data"]["to_seq"] == last) {
                                lives.last_mut().unwrap().2 = ended.unwrap();
                                return lives;
                            }
                            if ended.is_some() {
                                break;
                            }
                        }
                        // NATS is away: the node takes nobody.
                        ("error", _) => break,
                        ("gap", _) => panic!("nothing is gone: {frame}"),
                        (_, Some((_, _, cursor, got))) => {
                            let seq = frame["seq"].as_u64().unwrap();
                            assert!(seq > *cursor, "{seq} after {cursor}");
                            *cursor = seq;
                            got.push(seq);
                        }
                        (_, None) => panic!("before `connected`: {frame}"),
                    }
                    if left == 0 {
                        break;
                    }
                    left -= 1;
                }
                client.reset();
                tokio::time::sleep(Duration::from_millis(random.random_range(0..20))).await;
            }
        });
    }
    let mut backend = Publish::on(&nats).await;
    let mut random = SmallRng::seed_from_u64(seed);
    let mut events: Vec<(u64, Option<usize>)> = Vec::new();
    for number in 0..EVENTS {
        if number % 5 == 0 {
            cut[random.random_range(0..CLIENTS)].notify_one();
        }
        if number % 1_000 == 500 {
            nats.kill();
            nats.revive().await;
            backend = Publish::on(&nats).await;
        }
        let user = match random.random_range(0..8) {
            0 => None,
            1 => Some(random.random_range(0..USERS)),
            _ => Some(coming[random.random_range(0..CLIENTS)].load(Ordering::Relaxed)),
        };
        let event_type = TYPES[random.random_range(0..TYPES.len())];
        let id = user.map(|user| users[user].as_str());
        events.push((publish(&backend, event_type, id, number).await, user));
    }
    published.send_replace(Some(events.last().unwrap().0));
    let (mut joined, mut checked) = (0, 0);
    while let Some(lives) = clients.join_next().await {
        for (user, from, to, got) in lives.unwrap() {
            let expected = events.iter().filter(|(seq, whose)| {
                (from + 1..=to).contains(seq) && whose.is_none_or(|whose| whose == user)
            });
            let expected: Vec<u64> = expected.map(|(seq, _)| *seq).collect();
            assert_eq!(got, expected, "{} from {from} to {to}", users[user]);
            joined += 1;
            checked += got.len();
        }
    }
    println!("{joined} joins, {checked} deliveries of {EVENTS} events");
}

/// Which of them index the stream.
async fn indexing(routers: &[Router]) -> Vec<bool> {
    let mut indexing = Vec::new();
    for router in routers {
        indexing.push(router.metric("rivulet_feed_indexing").await == 1.0);
    }
    indexing
}

/// Two of the nodes index the stream for all. Where both end at once, without a word, another does.
#[tokio::test]
async fn an_index_that_ends_is_taken_over() {
    let nats = Nats::start().await;
    let mut routers = Vec::new();
    for _ in 0..4 {
        routers.push(by_user(&nats).start().await);
    }
    let backend = Publish::on(&nats).await;
    let mut clients = Vec::new();
    for router in &routers {
        clients.push(router.subscriber("ada", &["*"]).await);
    }
    let mut last = 0;
    while !routers.is_empty() {
        until("two of them to index, or all", async || {
            indexing(&routers)
                .await
                .iter()
                .filter(|indexes| **indexes)
                .count()
                == routers.len().min(2)
        })
        .await;
        // Nodes that begin at once may be more than two, until they have heard each other.
        let mut seats = 2;
        let mut ending = indexing(&routers).await;
        for indexes in &mut ending {
            *indexes = *indexes && seats > 0;
            seats -= i32::from(*indexes);
        }
        for number in 0..50 {
            last = publish(&backend, "blob.created", Some("ada"), number).await;
            for client in &mut clients {
                assert_eq!(client.expect("blob.created").await["seq"], last);
            }
        }
        let mut stays = ending.iter().map(|indexes| !indexes);
        clients.retain(|_| stays.next().unwrap());
        let mut stays = ending.iter().map(|indexes| !indexes);
        routers.retain(|_| stays.next().unwrap());
        for number in 0..50 {
            last = publish(&backend, "blob.created", Some("ada"), number).await;
            for client in &mut clients {
                assert_eq!(client.expect("blob.created").await["seq"], last);
            }
        }
    }
    assert_eq!(last, 200);
}

#[tokio::test]
async fn a_users_events_come_only_where_the_user_is() {
    let nats = Nats::start().await;
    let routers = [by_user(&nats).start().await, by_user(&nats).start().await];
    let backend = Publish::on(&nats).await;
    let mut here = routers[0].subscriber("ada", &["*"]).await;
    let mut there = routers[1].subscriber("a.b", &["*"]).await;
    for number in 0..50 {
        publish(&backend, "blob.created", Some("ada"), number).await;
        publish(&backend, "blob.created", Some("a.b"), number).await;
    }
    publish(&backend, "book.created", None, 0).await;
    for (client, first) in [(&mut here, 1), (&mut there, 2)] {
        for number in 0..50 {
            assert_eq!(client.expect("blob.created").await["seq"], first + 2 * number);
        }
        assert_eq!(client.expect("book.created").await["seq"], 101);
    }
    for router in &routers {
        assert_eq!(router.metric("rivulet_feed_users").await, 1.0);
        let routed = router
            .metric("rivulet_events_routed_total{type=\"blob.created\"}")
            .await;
        assert_eq!(routed, 50.0, "of the other's nothing was looked at");
    }
    // The second offers itself when it finds that only one does: its users' events need not wait for that.
    until("both nodes to index", async || {
        indexing(&routers).await == [true, true]
    })
    .await;
    publish(&backend, "blob.created", Some("eve"), 0).await;
    until("the position to go on with events of others", async || {
        position(&routers[0]).await["seq"] == 102
    })
    .await;
}
