//! Commands: a NATS request each, with a deadline, and at most once for one id.
//!
//! What an answer may say: `{"data":{…}}` or `{"error":{"code","message",…}}`. What the bus itself says:
//! `COMMAND_TIMEOUT` only while nothing was sent, `OUTCOME_UNKNOWN` once something was.

use std::{pin::pin, sync::Arc};

use async_nats::{HeaderMap, Request, client::RequestErrorKind};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use rivulet_protocol::{
    command::{COMMAND_ID_HEADER, command_subject},
    error::{ErrorBody, ErrorCode},
    halves,
    subject::USER_HEADER,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{
    sync::{Semaphore, oneshot, watch},
    time::{Duration, Instant, sleep, timeout, timeout_at},
};
use tracing::{debug, warn};

use super::{
    connect::Link,
    memory::{Claim, Memory},
};
use crate::command::{Backend, Command, Outcome};

/// Commands in flight of one node; more wait for their turn until their deadline. With answers of 64 KiB
/// this is at most 256 MiB.
const IN_FLIGHT: usize = 4_096;
/// Commands of one node whose deadline has passed and whose answers are still awaited; the answer of one more is
/// not awaited, and who asks again with its id gets `OUTCOME_UNKNOWN`.
const OVERDUE: usize = 16_384;
/// How long after the deadline an answer is still awaited, to be kept for whoever asks again with the same id.
const LATE: Duration = Duration::from_secs(60);
/// How often a repeated command looks whether the first has its answer, and how often a lost connection is
/// looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Where commands go, once there is a connection.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    line: watch::Receiver<Option<Arc<Line>>>,
    in_flight: Arc<Semaphore>,
    overdue: Arc<Semaphore>,
}

/// A connection for requests, and what is remembered of them.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) link: Link,
    pub(super) memory: Memory,
}

impl Asker {
    pub(super) fn new(line: watch::Receiver<Option<Arc<Line>>>) -> Self {
        Self {
            line,
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT)),
            overdue: Arc::new(Semaphore::new(OVERDUE)),
        }
    }
}

impl Asker {
    /// The connection, once there is one; `None` if there never will be.
    pub(super) async fn link(mut self) -> Option<Link> {
        let line = self.line.wait_for(Option::is_some).await.ok()?;
        line.as_ref().map(|line| line.link.clone())
    }
}

impl Backend for Asker {
    fn ask(&self, command: Command) -> BoxFuture<'static, Outcome> {
        let asker = self.clone();
        Box::pin(async move {
            let deadline = command.deadline;
            let (told, answer) = oneshot::channel();
            let sent = Arc::new(Progress::default());
            // A task of its own: a session that ends does not undo what was asked, and an answer after the
            // deadline is still kept.
            tokio::spawn(asker.see_through(command, told, Arc::clone(&sent)));
            match timeout_at(deadline, answer).await {
                Ok(Ok(outcome)) => outcome,
                _ if sent.is_sent() => failed(
                    ErrorCode::OutcomeUnknown,
                    "it was sent, and no answer came by the deadline",
                ),
                _ => failed(
                    ErrorCode::CommandTimeout,
                    "the deadline passed before it was sent",
                ),
            }
        })
    }
}

/// Whether a command may have reached a backend.
#[derive(Debug, Default)]
struct Progress(std::sync::Mutex<Stage>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Waiting,
    Sent,
}

impl Progress {
    fn is_sent(&self) -> bool {
        *self.lock() == Stage::Sent
    }

    /// Marks it as sent, unless its deadline has passed: then it is not to be sent any more. Whoever waits asks
    /// only after the deadline, so the two never say different things.
    fn send_before(&self, deadline: Instant) -> bool {
        let mut stage = self.lock();
        if Instant::now() >= deadline {
            return false;
        }
        *stage = Stage::Sent;
        true
    }

    /// Somebody else has sent it, under the same id.
    fn sent_elsewhere(&self) {
        *self.lock() = Stage::Sent;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Stage> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Asker {
    /// Asks, remembers, tells. What it does not tell, the deadline does.
    async fn see_through(
        mut self,
        command: Command,
        told: oneshot::Sender<Outcome>,
        progress: Arc<Progress>,
    ) {
        let deadline = command.deadline;
        let ready = async {
            let permit = Arc::clone(&self.in_flight).acquire_owned().await.ok()?;
            let line = self.line.wait_for(Option::is_some).await.ok()?.clone()?;
            // The library would keep the request for after a reconnect, which may be after the deadline.
            while !line.link.is_connected() {
                sleep(LOOK).await;
            }
            Some((permit, line))
        };
        let Ok(Some((permit, line))) = timeout_at(deadline, ready).await else {
            return;
        };
        let key = command
            .id
            .as_ref()
            .map(|id| super::memory::key(&command.user, id));
        if let Some(key) = &key {
            match timeout_at(deadline, claim(&line.memory, key, &progress)).await {
                Ok(Some(kept)) => {
                    let _ = told.send(read(&kept));
                    return;
                }
                Ok(None) => {}
                Err(_) => return,
            }
        }
        if !progress.send_before(deadline) {
            if let Some(key) = &key {
                line.memory.release(key).await;
            }
            return;
        }
        let mut headers = HeaderMap::new();
        headers.insert(USER_HEADER, command.user.escaped());
        if let Some(id) = command.id.as_deref().filter(|id| fits_a_header(id)) {
            headers.insert(COMMAND_ID_HEADER, id);
        }
        let patience = deadline.saturating_duration_since(Instant::now());
        let patience = if key.is_some() { patience + LATE } else { patience };
        let request = Request::new()
            .payload(command.data)
            .headers(headers)
            .timeout(Some(patience));
        let client = &line.link.client;
        let mut answer = pin!(client.send_request(command_subject(&command.name), request));
        let in_time = timeout_at(deadline, &mut answer).await;
        // Its place is for those that somebody waits for.
        drop(permit);
        let answer = match (in_time, &key) {
            (Ok(answer), _) => answer,
            (Err(_), None) => return,
            (Err(_), Some(_)) => {
                let Ok(_place) = Arc::clone(&self.overdue).try_acquire_owned() else {
                    return;
                };
                answer.await
            }
        };
        match answer {
            Ok(answer) => {
                if let Some(key) = &key {
                    line.memory.keep(key, &answer.payload).await;
                }
                let _ = told.send(read(&answer.payload));
            }
            Err(fault) => {
                let outcome = match fault.kind() {
                    RequestErrorKind::NoResponders => failed(
                        ErrorCode::BackendUnavailable,
                        "no backend answers this command now",
                    ),
                    RequestErrorKind::MaxPayloadExceeded => failed(
                        ErrorCode::TooLarge,
                        "it is larger than NATS takes (`max_payload`)",
                    ),
                    // The outcome is unknown, and the deadline says so. The claim stays.
                    RequestErrorKind::TimedOut => return,
                    RequestErrorKind::InvalidSubject | RequestErrorKind::Other => {
                        warn!(command = %command.name, %fault, "a command could not be asked");
                        return;
                    }
                };
                // Nothing happened, so the id may be asked again.
                if let Some(key) = &key {
                    line.memory.release(key).await;
                }
                let _ = told.send(outcome);
            }
        }
    }
}

/// Claims the id, or waits for the answer of whoever has: `Some` is that answer.
async fn claim(memory: &Memory, key: &str, progress: &Progress) -> Option<Bytes> {
    loop {
        match memory.claim(key).await {
            Ok(Claim::Ours) => return None,
            Ok(Claim::Answered(answer)) => return Some(answer),
            Ok(Claim::Theirs) => progress.sent_elsewhere(),
            Err(fault) => debug!(%fault, "the memory of commands does not answer"),
        }
        sleep(LOOK).await;
    }
}

/// Tells a result from an error from neither.
fn read(payload: &Bytes) -> Outcome {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        data: Option<&'a RawValue>,
        #[serde(borrow)]
        error: Option<&'a RawValue>,
    }
    /// What an error must have.
    #[derive(Deserialize)]
    struct Refusal {
        #[serde(rename = "code")]
        _code: String,
        #[serde(rename = "message")]
        _message: String,
    }
    let is_object = |raw: &RawValue| raw.get().starts_with('{');
    let text = std::str::from_utf8(payload)
        .ok()
        // serde would read the struct from an array too.
        .filter(|text| text.trim_start().starts_with('{'))
        .unwrap_or_default();
    let mended;
    let answer = match serde_json::from_str::<Answer<'_>>(text) {
        Ok(answer) => Some(answer),
        // A key beside them may hold half a surrogate pair.
        Err(_) => {
            mended = halves::replaced(text).unwrap_or_default();
            let original = |value: Option<&RawValue>| halves::original(value?, &mended, text);
            let answer = serde_json::from_str::<Answer<'_>>(&mended).ok();
            answer.map(|Answer { data, error }| Answer {
                data: original(data),
                error: original(error),
            })
        }
    };
    match answer {
        Some(Answer {
            data: Some(data),
            error: None,
        }) if is_object(data) => Outcome::Reply(data.to_owned()),
        Some(Answer {
            data: None,
            error: Some(error),
        }) if is_object(error) && halves::read::<Refusal>(error.get()).is_ok() => {
            Outcome::Refused(error.to_owned())
        }
        _ => failed(
            ErrorCode::CommandFailed,
            "the backend answered with neither a result nor an error",
        ),
    }
}

fn failed(code: ErrorCode, message: &str) -> Outcome {
    Outcome::Failed(ErrorBody::new(code, message))
}

/// A header is a line; the id of a hostile client need not be. Without its header the command is still asked
/// at most once.
fn fits_a_header(id: &str) -> bool {
    !id.contains(char::is_control) && id.trim() == id
}

/// Commands in flight should end well within this when a router drains.
pub(super) async fn drain(asker: &Asker, grace: Duration) {
    let all = u32::try_from(IN_FLIGHT).unwrap_or(u32::MAX);
    let _ = timeout(grace, asker.in_flight.acquire_many(all)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_result_or_an_error() {
        for (answer, expected) in [
            (r#"{"data":{"b": 1.0}}"#, r#"reply {"b": 1.0}"#),
            (r#" {"data":{},"more":1}"#, "reply {}"),
            (
                r#"{"error":{"code":"NOT_FOUND","message":"no","blob_id":"b"}}"#,
                r#"refused {"code":"NOT_FOUND","message":"no","blob_id":"b"}"#,
            ),
            (r#"{"data":{"\ud83d":"\ude00"}}"#, r#"reply {"\ud83d":"\ude00"}"#),
            (r#"{"\ud83d":1,"data":{"a":"\ude00"}}"#, r#"reply {"a":"\ude00"}"#),
            (
                r#"{"error":{"code":"X","message":"\ud83d","\ude00":1}}"#,
                r#"refused {"code":"X","message":"\ud83d","\ude00":1}"#,
            ),
            (r#"{"error":{"code":"X"}}"#, "COMMAND_FAILED"),
            (r#"{"error":"no"}"#, "COMMAND_FAILED"),
            (r#"{"data":[]}"#, "COMMAND_FAILED"),
            (r#"{"data":null}"#, "COMMAND_FAILED"),
            (
                r#"{"data":{},"error":{"code":"X","message":"m"}}"#,
                "COMMAND_FAILED",
            ),
            (r#"[{},null]"#, "COMMAND_FAILED"),
            ("{}", "COMMAND_FAILED"),
            ("", "COMMAND_FAILED"),
            ("\u{7f}", "COMMAND_FAILED"),
        ] {
            let outcome = match read(&Bytes::from_static(answer.as_bytes())) {
                Outcome::Reply(data) => format!("reply {data}"),
                Outcome::Refused(error) => format!("refused {error}"),
                Outcome::Failed(error) => error.code,
            };
            assert_eq!(outcome, expected, "{answer}");
        }
    }
}
