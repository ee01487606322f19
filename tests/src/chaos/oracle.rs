//! The truth: the stream itself, read back message by message from its leader.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::json;

use super::cluster::STREAM;

/// Questions in flight at a time.
const AT_ONCE: usize = 128;
/// How long one question may take, asked again and again: a leader may change meanwhile.
const TRIES: usize = 20;

/// What is known of all epochs that were read.
#[derive(Debug, Default)]
pub struct Oracle {
    epochs: HashMap<Arc<str>, Epoch>,
}

/// The messages of one epoch.
#[derive(Debug, Default)]
pub struct Epoch {
    messages: BTreeMap<u64, Stored>,
    by_user: HashMap<Arc<str>, Vec<u64>>,
    by_id: HashMap<u64, u64>,
    /// The oldest sequence that it had when it was read.
    pub first: u64,
    /// Its last sequence.
    pub last: u64,
}

/// A message of the stream.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The rig's own number; 0 for what no client may get.
    pub id: u64,
    /// The type of the event.
    pub event_type: Arc<str>,
    /// Whose it is; `None` is everyone's.
    pub user: Option<Arc<str>>,
}

/// Who gets what is everyone's, in the table by user.
const EVERYONE: &str = "";

impl Oracle {
    /// Reads the stream as it is now, beside what was read of other epochs; says its epoch and its last sequence.
    ///
    /// # Errors
    /// If it can't be read whole.
    pub async fn read(&mut self, client: &async_nats::Client) -> anyhow::Result<(Arc<str>, u64)> {
        let info: Info = ask(client, "INFO", &json!({})).await?;
        let created: jiff::Timestamp = info.created.parse()?;
        let name: Arc<str> = format!("{STREAM}@{}", created.as_nanosecond()).into();
        let epoch = self.epochs.entry(Arc::clone(&name)).or_default();
        let known = epoch.messages.keys().next_back().copied().unwrap_or(0);
        let wanted = info.state.first_seq.max(known + 1)..=info.state.last_seq;
        let messages: Vec<(u64, Option<Message>)> = stream::iter(wanted)
            .map(|seq| async move { Ok::<_, anyhow::Error>((seq, message(client, seq).await?)) })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        for (seq, message) in messages {
            if let Some(message) = message {
                epoch.add(seq, message.stored()?);
            }
        }
        epoch.first = info.state.first_seq;
        epoch.last = info.state.last_seq;
        Ok((name, info.state.last_seq))
    }

    /// What is known of an epoch.
    pub fn epoch(&self, name: &str) -> Option<&Epoch> {
        self.epochs.get(name)
    }

    /// How many messages it knows.
    pub fn len(&self) -> usize {
        self.epochs.values().map(|epoch| epoch.messages.len()).sum()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Epoch {
    /// Adds a message.
    pub fn add(&mut self, seq: u64, stored: Stored) {
        if stored.id != 0 {
            let user = stored.user.clone().unwrap_or_else(|| EVERYONE.into());
            self.by_user.entry(user).or_default().push(seq);
            self.by_id.insert(stored.id, seq);
        }
        self.messages.insert(seq, stored);
    }

    /// The message at a sequence.
    pub fn at(&self, seq: u64) -> Option<&Stored> {
        self.messages.get(&seq)
    }

    /// Where the message with the rig's number stands.
    pub fn seq_of(&self, id: u64) -> Option<u64> {
        self.by_id.get(&id).copied()
    }

    /// The sequences after `after` up to `to` of what this user may get, in order.
    pub fn of_user(&self, user: &str, after: u64, to: u64) -> Vec<u64> {
        let part = |user: &str| {
            let all = self.by_user.get(user).map_or(&[][..], Vec::as_slice);
            let begin = all.partition_point(|seq| *seq <= after);
            let end = all.partition_point(|seq| *seq <= to);
            all.get(begin..end).unwrap_or_default().to_vec()
        };
        let mut seqs = part(user);
        seqs.extend(part(EVERYONE));
        seqs.sort_unstable();
        seqs
    }
}

#[derive(Deserialize)]
struct Info {
    created: String,
    state: State,
}

#[derive(Deserialize)]
struct State {
    first_seq: u64,
    last_seq: u64,
}

#[derive(Deserialize)]
struct Got {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    subject: String,
    #[serde(default)]
    data: String,
    #[serde(default)]
    hdrs: String,
}

impl Message {
    /// What the publishers of the rig meant with it.
    fn stored(self) -> anyhow::Result<Stored> {
        #[derive(Deserialize)]
        struct Data {
            n: u64,
            user_id: Option<Arc<str>>,
        }
        let headers = STANDARD.decode(&self.hdrs)?;
        let data = STANDARD.decode(&self.data)?;
        let everyone = headers
            .windows(b"Rivulet-Audience: everyone".len())
            .any(|window| window == b"Rivulet-Audience: everyone");
        let data: Data = serde_json::from_slice(&data).context("no event of the rig's own")?;
        let user = if everyone { None } else { data.user_id };
        Ok(Stored {
            // What the rig means to be rejected bears no number.
            id: data.n,
            // Behind the type stands the user, where the feed is by user.
            event_type: self
                .subject
                .split('.')
                .take(2)
                .collect::<Vec<_>>()
                .join(".")
                .into(),
            user,
        })
    }
}

/// Reads one message; `None` where there is none any more.
async fn message(client: &async_nats::Client, seq: u64) -> anyhow::Result<Option<Message>> {
    match ask::<Got>(client, "MSG.GET", &json!({ "seq": seq })).await {
        Ok(got) => Ok(Some(got.message)),
        Err(error) if error.is::<NotFound>() => Ok(None),
        Err(error) => Err(error),
    }
}

#[derive(Debug)]
struct NotFound;

impl std::fmt::Display for NotFound {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("no message there")
    }
}

impl std::error::Error for NotFound {}

async fn ask<T: for<'de> Deserialize<'de>>(
    client: &async_nats::Client,
    what: &str,
    question: &serde_json::Value,
) -> anyhow::Result<T> {
    let subject = format!("$JS.API.STREAM.{what}.{STREAM}");
    let mut fault = String::new();
    for _ in 0..TRIES {
        let request = client.request(subject.clone(), question.to_string().into());
        match tokio::time::timeout(Duration::from_secs(3), request).await {
            Ok(Ok(answer)) => {
                let answer: serde_json::Value = serde_json::from_slice(&answer.payload)?;
                match answer["error"]["err_code"].as_u64() {
                    None => return Ok(serde_json::from_value(answer)?),
                    Some(10037) => return Err(NotFound.into()),
                    Some(_) => fault = answer["error"].to_string(),
                }
            }
            Ok(Err(error)) => fault = error.to_string(),
            Err(_) => fault = "no answer in 3 s".to_owned(),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    bail!("the stream can't be read back: {fault}")
}
