//! When something must be said, and when nothing was heard for too long. No clock: every `now` is handed in.

use std::time::Duration;

use tokio::time::Instant;

/// Silence in both directions of one connection.
#[derive(Debug)]
pub(super) struct Keepalive {
    heartbeat: Duration,
    heard: Instant,
    said: Instant,
    /// When the last probe went out, if nothing was heard since.
    probed: Option<Instant>,
}

/// What silence asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing yet.
    Nothing,
    /// The client was silent for a heartbeat: a WebSocket ping, which every client answers by itself.
    Probe,
    /// We were silent for a heartbeat.
    Say,
    /// The client missed two heartbeats.
    GiveUp,
}

impl Keepalive {
    pub(super) fn new(heartbeat: Duration, now: Instant) -> Self {
        Self {
            heartbeat,
            heard: now,
            said: now,
            probed: None,
        }
    }

    /// Any byte of the client counts.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.probed = None;
    }

    /// Notes when something was written last.
    pub(super) fn said(&mut self, last: Instant) {
        self.said = self.said.max(last);
    }

    /// What is due, most pressing first. What it asks for counts as done.
    pub(super) fn due(&mut self, now: Instant) -> Due {
        if now >= self.heard + 2 * self.heartbeat {
            return Due::GiveUp;
        }
        if self.probed.is_none() && now >= self.heard + self.heartbeat {
            self.probed = Some(now);
            return Due::Probe;
        }
        if now >= self.said + self.heartbeat {
            self.said = now;
            return Due::Say;
        }
        Due::Nothing
    }

    /// When to ask again.
    pub(super) fn next(&self) -> Instant {
        let of_client = match self.probed {
            None => self.heard + self.heartbeat,
            Some(_) => self.heard + 2 * self.heartbeat,
        };
        of_client.min(self.said + self.heartbeat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn two_missed_heartbeats_end_it() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(10 * SECOND, start);
        keepalive.said(start + 5 * SECOND);
        assert_eq!(keepalive.due(start + 9 * SECOND), Due::Nothing);
        assert_eq!(keepalive.next(), start + 10 * SECOND);
        assert_eq!(keepalive.due(start + 10 * SECOND), Due::Probe);
        assert_eq!(keepalive.next(), start + 15 * SECOND);
        assert_eq!(keepalive.due(start + 15 * SECOND), Due::Say);
        assert_eq!(keepalive.due(start + 15 * SECOND), Due::Nothing);
        assert_eq!(keepalive.next(), start + 20 * SECOND);
        assert_eq!(keepalive.due(start + 20 * SECOND), Due::GiveUp);
    }

    #[test]
    fn any_byte_counts() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(10 * SECOND, start);
        assert_eq!(keepalive.due(start + 10 * SECOND), Due::Probe);
        keepalive.heard(start + 19 * SECOND);
        keepalive.said(start + 19 * SECOND);
        assert_eq!(keepalive.due(start + 20 * SECOND), Due::Nothing);
        assert_eq!(keepalive.due(start + 29 * SECOND), Due::Probe);
        assert_eq!(keepalive.due(start + 39 * SECOND), Due::GiveUp);
    }
}
