//! R8: a cursor that nobody can serve any more: evicted, purged, of another epoch, from the future. Always a `gap`,
//! and everything after it.

use std::{net::SocketAddr, ops::Range, sync::Arc};

use anyhow::ensure;
use serde_json::{Value, json};

use crate::chaos::{
    cluster::STREAM,
    outcome::Outcome,
    record::{Cursor, Record},
    stage::{CONNECTING, Options, Stage},
};

const CLIENTS: usize = 60;
/// The stream holds several thousand events: on a busy machine, seconds pass from one reading of the oracle to the
/// next.
const RATE: u32 = 500;
/// Well below what the stream holds, so that each batch can be read back before it is evicted.
const BATCH: u64 = 800;

/// Clients that come with a cursor of one kind, and what they must be told: these reasons, in this order.
struct Group {
    name: &'static str,
    clients: Range<usize>,
    must: &'static [&'static str],
    /// The oldest sequence of the stream soon after they came: the first gap may not reach it.
    oldest: Option<u64>,
}

pub(super) async fn run(options: &Options) -> anyhow::Result<Outcome> {
    // The least that can be configured: some thousand events. In memory are fewer, or nothing would be out of reach.
    let settings = [
        ("RIVULET_STREAM_MAX_BYTES", "1MiB".to_owned()),
        ("RIVULET_HISTORY_MAX_BYTES", "32KiB".to_owned()),
    ];
    let mut stage = Stage::set(options, 2, &settings).await?;
    let doors = stage.doors();
    let each = (stage.planned_clients(CLIENTS) / 6).max(2);
    let mut groups = Vec::new();

    stage.gather(each, &doors).await?;
    groups.push(Group {
        // Those who are there all the time are told only of the stream made anew.
        name: "live",
        clients: 0..each,
        must: &["epoch_changed"],
        oldest: None,
    });
    stage.publish(RATE);
    for _ in 0..6 {
        stage.more(BATCH).await;
        stage.oracle.read(stage.cluster.control()).await?;
    }
    let (stream, head) = stage.oracle.read(stage.cluster.control()).await?;
    let first = oldest(&stage, &stream);
    ensure!(first > 1, "nothing was evicted, so nothing is shown");
    let at = |seq| Cursor {
        stream: stream.clone(),
        seq,
    };
    let clients = add(&mut stage, each, &doors, at(first / 2)).await?;
    stage.oracle.read(stage.cluster.control()).await?;
    groups.push(Group {
        name: "evicted",
        clients,
        must: &["evicted", "epoch_changed"],
        oldest: Some(oldest(&stage, &stream)),
    });
    groups.push(Group {
        name: "from the future",
        clients: add(&mut stage, each, &doors, at(head + 1_000_000)).await?,
        must: &["future_seq", "epoch_changed"],
        oldest: None,
    });
    stage.oracle.read(stage.cluster.control()).await?;
    let elsewhere = Cursor {
        stream: format!("{STREAM}@1").into(),
        seq: head,
    };
    groups.push(Group {
        name: "of another epoch",
        clients: add(&mut stage, each, &doors, elsewhere).await?,
        must: &["epoch_changed", "epoch_changed"],
        oldest: None,
    });
    stage.oracle.read(stage.cluster.control()).await?;

    stage.more(BATCH).await;
    let (_, head) = stage.oracle.read(stage.cluster.control()).await?;
    // Nothing that was not read back yet.
    ask(&stage, "PURGE", &json!({ "seq": head - 10 })).await?;
    stage.fault();
    let clients = add(&mut stage, each, &doors, at(head - BATCH / 2)).await?;
    // The last of the old stream is read before it goes.
    let old = stage.settle().await?;
    groups.push(Group {
        name: "purged",
        clients,
        // A replica that has not heard of the purge yet may still serve what it took: more than is owed.
        must: &["evicted?", "epoch_changed"],
        oldest: Some(oldest(&stage, &stream)),
    });
    stage.crowd.at(old.seq, CONNECTING).await?;

    let config = ask(&stage, "INFO", &json!({})).await?["config"].clone();
    ask(&stage, "DELETE", &json!({})).await?;
    ask(&stage, "CREATE", &config).await?;
    stage.fault();
    stage.cluster.healed().await?;
    stage.publish(RATE);
    stage.more(BATCH).await;
    groups.push(Group {
        name: "of the stream before",
        clients: add(&mut stage, each, &doors, old).await?,
        must: &["epoch_changed"],
        oldest: None,
    });
    stage.oracle.read(stage.cluster.control()).await?;
    stage.more(BATCH).await;
    let (mut outcome, records) = stage.end("r8").await?;
    outcome.gaps_belong = true;
    for group in groups {
        outcome.problems.extend(group.complaint(&records));
    }
    Ok(outcome)
}

/// The oldest sequence of an epoch when it was last read.
fn oldest(stage: &Stage, stream: &str) -> u64 {
    stage.oracle.epoch(stream).map_or(0, |epoch| epoch.first)
}

impl Group {
    /// Whether these are the reasons that they must be told; one with a question mark may be missing.
    fn fits(&self, reasons: &[&str]) -> bool {
        let all = self.must.iter().map(|must| must.trim_end_matches('?'));
        let owed = self.must.iter().filter(|must| !must.ends_with('?'));
        all.eq(reasons.iter().copied()) || owed.eq(reasons)
    }

    /// What is wrong with what they were told.
    fn complaint(&self, records: &[Record]) -> Option<String> {
        let records = &records[self.clients.clone()];
        let wrong: Vec<Vec<(u64, u64, &str)>> = records
            .iter()
            .map(|record| {
                let mut told = Vec::<(u64, u64, &str)>::new();
                for (_, from, to, reason) in record.gaps() {
                    match told.last_mut() {
                        // More went while the rest was read.
                        Some(last) if last.2 == reason && reason == "evicted" => last.1 = to.seq,
                        _ => told.push((from, to.seq, reason)),
                    }
                }
                told
            })
            .filter(|told| {
                let reasons: Vec<&str> = told.iter().map(|(_, _, reason)| *reason).collect();
                // What the stream still has is not gone.
                let too_far = told
                    .first()
                    .zip(self.oldest)
                    .is_some_and(|((_, to, _), oldest)| *to >= oldest);
                !self.fits(&reasons) || too_far
            })
            .collect();
        let first = wrong.first()?;
        let below = self.oldest.map(|oldest| format!(", up to below {oldest}"));
        Some(format!(
            "{} of {} clients {}: not told just {:?}{}, but, the first of them, {first:?}",
            wrong.len(),
            records.len(),
            self.name,
            self.must,
            below.unwrap_or_default(),
        ))
    }
}

/// Adds clients that come with this cursor, and says which they are.
async fn add(
    stage: &mut Stage,
    clients: usize,
    doors: &Arc<[SocketAddr]>,
    cursor: Cursor,
) -> anyhow::Result<Range<usize>> {
    let numbers = stage.crowd.len()..stage.crowd.len() + clients;
    for number in numbers.clone() {
        let mut profile = stage.profile(number, doors);
        profile.cursor = Some(cursor.clone());
        stage.crowd.add(profile);
        stage.fault();
    }
    stage.crowd.connected(CONNECTING).await?;
    // Until they were told.
    let (_, head) = stage.oracle.read(stage.cluster.control()).await?;
    stage.crowd.at(head, CONNECTING).await?;
    Ok(numbers)
}

async fn ask(stage: &Stage, what: &str, question: &Value) -> anyhow::Result<Value> {
    let subject = format!("$JS.API.STREAM.{what}.{STREAM}");
    let answer = stage
        .cluster
        .control()
        .request(subject, question.to_string().into())
        .await?;
    let answer: Value = serde_json::from_slice(&answer.payload)?;
    ensure!(answer.get("error").is_none(), "{what}: {answer}");
    Ok(answer)
}
