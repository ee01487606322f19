//! What a session makes of the router's frames.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rivulet_protocol::{
    error::ErrorBody,
    message::{Connected, Gap},
};
use serde::Deserialize;
use tokio::time::Instant;

use super::{
    super::{
        frame::{Frame, stamp},
        tally::Tally,
        wire::text_frame,
    },
    Session,
};

/// How long after an answer that was too early the router is asked again: its rate for pings is two a second.
const ASK_AGAIN: Duration = Duration::from_millis(600);

impl Session {
    pub(super) fn frame(&mut self, frame: &Frame<'_>, now: u64, tally: &mut Tally) {
        match frame.kind {
            b"connected" => self.connected(frame.data, tally),
            b"error" => {
                let Ok(error) = serde_json::from_slice::<ErrorBody>(frame.data) else {
                    return;
                };
                let said = format!("{}: {}", error.code, error.message);
                // A refusal is told as the end that it is.
                if self.stands {
                    tally.error(&said);
                }
                self.said = Some(said);
            }
            b"gap" => {
                if let Ok(gap) = serde_json::from_slice::<Gap>(frame.data) {
                    let reason = serde_json::to_value(&gap.reason).unwrap_or_default();
                    tally.error(&format!("gap: {}", reason.as_str().unwrap_or_default()));
                    self.cursor = Some((gap.stream, gap.to_seq.get()));
                }
            }
            b"resumed" => {
                let took = self.began.elapsed().as_nanos() as u64;
                tally.resumes.saturating_record(took);
                self.advance(field(frame.data, |data| data.to_seq));
            }
            b"pong" => {
                let seq = field(frame.data, |data| data.seq);
                self.advance(seq);
                self.answered(seq);
            }
            b"heartbeat" | b"subscribed" | b"unsubscribed" | b"draining" => {
                self.advance(field(frame.data, |data| data.seq));
            }
            b"token_expiring" | b"token_refreshed" | b"reply" => {}
            _ => self.event(frame, now, tally),
        }
    }

    fn event(&mut self, frame: &Frame<'_>, now: u64, tally: &mut Tally) {
        let run = Arc::clone(&self.run);
        let Some((number, made)) = stamp(frame.data, &run.mark) else {
            tally.others += 1;
            self.advance(frame.seq);
            return;
        };
        if frame.seq.is_some_and(|seq| seq <= self.seen) {
            tally.repeated += 1;
            return;
        }
        self.advance(frame.seq);
        let checked = self.check.arrived(&run.plan, number, frame.seq);
        if let Err(fault) = checked {
            let in_session = || format!("{} {}", run.event(number), self.name());
            tally.faults.count(fault, number, in_session);
            return;
        }
        tally.deliveries += 1;
        let is_live = frame.seq.is_none_or(|seq| seq > self.past);
        if is_live && number >= run.measured_from.load(Ordering::Relaxed) {
            tally.latency.saturating_record(now.saturating_sub(made));
        }
    }

    fn connected(&mut self, data: &[u8], tally: &mut Tally) {
        let Ok(connected) = serde_json::from_slice::<Connected>(data) else {
            return;
        };
        if connected.user_id != self.run.crowd.user(self.user()).as_str() {
            tally.error(&format!(
                "the router takes a token of `{}` for one of `{}`",
                self.run.crowd.user(self.user()).as_str(),
                connected.user_id
            ));
        }
        self.stands = true;
        let head = connected.seq.map(|seq| seq.get());
        match (&self.cursor, connected.stream, head) {
            (None, Some(stream), Some(head)) => self.cursor = Some((stream, head)),
            (Some(_), _, Some(head)) => self.past = head,
            _ => {}
        }
        if !std::mem::replace(&mut self.ready, true) {
            let took = self.began.elapsed().as_nanos() as u64;
            tally.handshakes.saturating_record(took);
            tally.ready += 1;
        }
    }

    fn advance(&mut self, seq: Option<u64>) {
        if let (Some((_, cursor)), Some(seq)) = (&mut self.cursor, seq) {
            *cursor = seq.max(*cursor);
        }
    }

    /// Asks how far the router is. Its answer comes in order with the events, so that behind it none is on its way.
    pub(super) fn ask(&mut self) {
        self.out.extend(text_frame(r#"{"type":"ping"}"#));
    }

    fn answered(&mut self, seq: Option<u64>) {
        let Some(published) = &self.ending else {
            return;
        };
        // Where no stream keeps events, no sequence says whether the router has had all of them.
        let is_current = match published.last_seq {
            Some(last) => seq.is_some_and(|seq| seq >= last),
            None => self.check.is_complete(&self.run.plan, published.end),
        };
        if is_current {
            self.done = true;
        } else {
            self.ask_at = Some(Instant::now() + ASK_AGAIN);
        }
    }
}

/// What frames say of the stream.
#[derive(Default, Deserialize)]
struct Position {
    seq: Option<u64>,
    to_seq: Option<u64>,
}

fn field(data: &[u8], of: impl FnOnce(Position) -> Option<u64>) -> Option<u64> {
    of(serde_json::from_slice(data).unwrap_or_default())
}
