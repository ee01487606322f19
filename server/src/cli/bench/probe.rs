//! One event of each kind through all of it before the load begins, so that what can't work is told at once and in
//! the words of whoever refuses it.

use std::{ops::ControlFlow, time::Duration};

use futures_util::TryFutureExt as _;
use rivulet_protocol::{error::ErrorBody, message::Connected};
use rivulet_router::bus::{BusError, Publisher};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout, timeout_at},
};

use super::{
    address::Addresses,
    course::LIMITS,
    dial::{Hello, Open, Refusal, Target},
    frame::frames,
    plan::Place,
    run::Run,
    session::describe,
    wire::{Incoming, Reader, Scratch, close_frame, text_frame},
};
use crate::cli::{Failure, tail::reconnect::End, within_seconds};

/// How long the router may take to answer, and an event to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// A session that sees whether events arrive.
pub(super) struct Probe<'a> {
    target: &'a Target,
    open: Open,
    reader: Reader,
    connected: Option<Connected>,
    answered: bool,
    /// The marks of the events that came.
    came: Vec<Vec<u8>>,
    /// What was refused, in the router's words.
    refused: Option<String>,
}

impl<'a> Probe<'a> {
    /// Connects as the first user, and waits until the router has said all that it has against it.
    ///
    /// # Errors
    /// What that is.
    pub(super) async fn connect(run: &'a Run, target: &'a Target) -> Result<Self, Failure> {
        let device = run.device(0);
        let hello = Hello {
            token: run.crowd.token(0),
            patterns: &run.patterns,
            device: &device,
            position: None,
            plain: run.plain,
            compress: run.compress,
        };
        let dialled = timeout(PATIENCE, target.dial(&hello)).await;
        let mut open = dialled
            .map_err(|_| Failure::other(format_args!("{} does not answer", target.url())))?
            .map_err(|Refusal { end, said }| failure(target, &end, said.as_deref()))?;
        let reader = Reader::new(std::mem::take(&mut open.rest));
        let mut probe = Self {
            target,
            open,
            reader,
            connected: None,
            answered: false,
            came: Vec::new(),
            refused: None,
        };
        // What is wrong with the query is said before a ping is answered.
        let ping = text_frame(r#"{"type":"ping"}"#);
        probe.open.stream.write_all(&ping).await?;
        let answered = timeout(PATIENCE, probe.read_until(|probe| probe.answered)).await;
        answered.map_err(|_| Failure::other(format_args!("{} does not answer", target.url())))??;
        if let Some(refused) = probe.refused.take() {
            return Err(Failure::other(format_args!("{}: {refused}", target.url())));
        }
        let Some(connected) = &probe.connected else {
            return Err(Failure::other(format_args!(
                "{} is no router of ours",
                target.url()
            )));
        };
        let (user, is) = (run.crowd.user(0).as_str(), &connected.user_id);
        if user != is {
            return Err(Failure::other(format_args!(
                "the router takes the first token for one of `{is}`, and it says `{user}`: set `auth.user_claim` to the router's"
            )));
        }
        Ok(probe)
    }

    /// Whether a stream keeps events there.
    pub(super) fn has_stream(&self) -> bool {
        self.connected
            .as_ref()
            .is_some_and(|connected| connected.stream.is_some())
    }

    /// Publishes an event of each kind, and waits until they came.
    ///
    /// # Errors
    /// What NATS says against it; that they did not come.
    pub(super) async fn sees_events(
        &mut self,
        run: &Run,
        publisher: &Publisher,
        addresses: &Addresses,
        acknowledged: bool,
    ) -> Result<(), Failure> {
        let mut marks = Vec::new();
        for track in run.plan.kinds() {
            // One of a type that the sessions want, or there would be nothing to see.
            let index = run.plan.next_due(track, 0, u64::MAX).unwrap_or_default();
            let (addressed, user) = addresses.of(run, Place { track, index });
            let mut data = json!({ "probe": format!("{} {track:?}", run.device) });
            if let Some(user) = user {
                data["user_id"] = user.as_str().into();
            }
            let data = data.to_string();
            let headers = addressed.headers();
            let payload = data.clone().into();
            if acknowledged {
                let published = publisher.publish(&addressed.subject, &headers, payload);
                let silent = |error: BusError| match error {
                    BusError::Publish { .. } => {
                        format!("{error}; where no stream keeps these events: --core")
                    }
                    error => error.to_string(),
                };
                within_seconds(published.map_err(silent)).await?;
            } else {
                publisher
                    .send_unacknowledged(&addressed.subject, &headers, payload)
                    .await
                    .map_err(Failure::other)?;
            }
            marks.push(data.into_bytes());
        }
        let came = self.read_until(|probe| marks.iter().all(|mark| probe.came.contains(mark)));
        match timeout(PATIENCE, came).await {
            Ok(came) => came,
            Err(_) => Err(Failure::other(format_args!(
                "an event was published, and did not come to a session of its user at {} within {} s: is that router's \
                 NATS the one published to, are its sources those of this configuration, and may the user see the type?",
                self.target.url(),
                PATIENCE.as_secs()
            ))),
        }
    }

    /// Leaves, so that the seat is free.
    pub(super) async fn leave(mut self) {
        // A router that does not want to hear it is left all the same.
        let _ = self.open.stream.write_all(&close_frame(1000)).await;
        let until = Instant::now() + Duration::from_secs(1);
        let mut rest = [0; 1024];
        while let Ok(Ok(1..)) = timeout_at(until, self.open.stream.read(&mut rest)).await {}
    }

    async fn read_until(&mut self, enough: impl Fn(&Self) -> bool) -> Result<(), Failure> {
        let (mut scratch, mut input) = (Scratch::new(), vec![0; 64 * 1024]);
        let mut count = 0;
        loop {
            let mut closed = None;
            let mut reader = std::mem::take(&mut self.reader);
            let read = reader.read(&input[..count], &mut scratch, |incoming| {
                match incoming {
                    // What is no frame is no answer either.
                    Incoming::Text(text) => drop(frames(text, |frame| self.frame(frame.kind, frame.data))),
                    Incoming::Ping(_) => {}
                    Incoming::Close { code, reason } => {
                        closed = Some(End::Closed { code, reason });
                        return ControlFlow::Break(());
                    }
                }
                ControlFlow::Continue(())
            });
            self.reader = reader;
            if let Err(error) = read {
                return Err(Failure::other(format_args!("{}: {error}", self.target.url())));
            }
            if let Some(end) = closed {
                return Err(failure(self.target, &end, self.refused.as_deref()));
            }
            if enough(self) {
                return Ok(());
            }
            count = self.open.stream.read(&mut input).await?;
            if count == 0 {
                let end = End::Lost("the connection broke".to_owned());
                return Err(failure(self.target, &end, self.refused.as_deref()));
            }
        }
    }

    fn frame(&mut self, kind: &[u8], data: &[u8]) {
        match kind {
            b"connected" => self.connected = serde_json::from_slice(data).ok(),
            b"error" => {
                let error = serde_json::from_slice::<ErrorBody>(data);
                self.refused = error.ok().map(|error| match error.field {
                    Some(field) => format!("{}: {} ({field})", error.code, error.message),
                    None => format!("{}: {}", error.code, error.message),
                });
            }
            b"pong" => self.answered = true,
            _ if data.starts_with(br#"{"probe":"#) => self.came.push(data.to_vec()),
            _ => {}
        }
    }
}

/// Why there is no session.
fn failure(target: &Target, end: &End, said: Option<&str>) -> Failure {
    let what = describe(end, said);
    let hint = match end {
        End::Closed { code: 4401, .. } | End::Refused { status: 401, .. } => {
            "; a router in development mode takes `user-0` for a token, any other wants RIVULET_JWT_SECRET or --tokens"
        }
        End::Closed { code: 4429, .. } | End::Refused { status: 429, .. } => LIMITS,
        _ => "",
    };
    match end {
        End::Lost(_) => Failure::other(format_args!("{what}{hint}")),
        _ => Failure::other(format_args!("{}: {what}{hint}", target.url())),
    }
}
