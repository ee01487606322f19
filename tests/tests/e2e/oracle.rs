//! Patterns match as nats-server's own subscriptions do.

use std::collections::HashSet;

use futures_util::{FutureExt, StreamExt, future::join_all};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use rivulet_protocol::pattern::Pattern;
use rivulet_tests::{nats::Nats, soon};
use tokio::task::unconstrained;

const PATTERNS: usize = 400;
const SUBJECTS: usize = 300;

fn subject(random: &mut SmallRng, wild: bool) -> String {
    let count = random.random_range(1..=4);
    let mut tokens: Vec<&str> = (0..count)
        .map(|_| {
            if wild && random.random_ratio(1, 3) {
                "*"
            } else {
                ["a", "b"][random.random_range(0..2)]
            }
        })
        .collect();
    if wild && random.random_ratio(1, 4) {
        tokens.push(">");
    }
    tokens.join(".")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_pairs_are_equal() {
    let seed = rand::random();
    println!("seed {seed}");
    let random = &mut SmallRng::seed_from_u64(seed);
    let nats = Nats::start().await;
    let client = nats.client().await;
    // The bare `*` is our own alias.
    let patterns: Vec<String> = std::iter::repeat_with(|| subject(random, true))
        .filter(|text| text != "*")
        .take(PATTERNS)
        .collect();
    let subjects: Vec<String> = (0..SUBJECTS).map(|_| subject(random, false)).collect();
    let mut subscriptions = Vec::new();
    for pattern in &patterns {
        let theirs = format!("oracle.{pattern}");
        let end = format!("end.{}", subscriptions.len());
        // Both on one connection, so what comes before the end is all.
        let events = client.subscribe(theirs).await.unwrap();
        subscriptions.push((events, client.subscribe(end).await.unwrap()));
    }
    client.flush().await.unwrap();
    for (number, subject) in subjects.iter().enumerate() {
        client
            .publish(format!("oracle.{subject}"), number.to_string().into())
            .await
            .unwrap();
    }
    for number in 0..PATTERNS {
        client.publish(format!("end.{number}"), "".into()).await.unwrap();
    }
    client.flush().await.unwrap();
    let matched = join_all(subscriptions.into_iter().map(async |(mut events, mut end)| {
        soon("the end", end.next()).await;
        let mut numbers = HashSet::new();
        // Unconstrained: tokio's budget would end the look before the queue is empty.
        while let Some(Some(event)) = unconstrained(events.next()).now_or_never() {
            numbers.insert(
                std::str::from_utf8(&event.payload)
                    .unwrap()
                    .parse::<usize>()
                    .unwrap(),
            );
        }
        numbers
    }))
    .await;
    let mut matches = 0;
    for (pattern, matched) in patterns.iter().zip(matched) {
        let ours: Pattern = pattern.parse().unwrap();
        for (number, subject) in subjects.iter().enumerate() {
            assert_eq!(
                ours.matches(subject),
                matched.contains(&number),
                "{pattern} {subject}"
            );
            matches += usize::from(matched.contains(&number));
        }
    }
    let pairs = PATTERNS * SUBJECTS;
    println!("{pairs} pairs, {matches} matches");
    assert!(pairs >= 100_000 && matches > pairs / 50 && matches < pairs / 2);
}
