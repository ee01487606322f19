//! Head checks: where the stream stands, as its leader says.
//!
//! It is asked on the feed's own connection, every 2 s and after whatever may have cost messages. The feed is
//! current once it has dispatched everything up to a head that was asked for after the last interruption.

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use rivulet_protocol::{
    message::{Gap, GapReason},
    scalar::SafeInteger,
};
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::Feed;
use crate::bus::{
    BusError,
    connect::Link,
    continuity::{Cause, Missed},
    stream::{Head, HeadFault, head},
};

/// How often the leader is asked for the head.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// How long it may take to answer; after that another server is tried.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// How soon it is asked again when it could not say, or when a message was out of place.
pub(super) const CHECK_SOON: Duration = Duration::from_millis(250);

/// For how long forged messages are not said of again in the log.
const SILENCE: Duration = Duration::from_secs(60);

pub(super) type HeadCheck = BoxFuture<'static, Result<Head, HeadFault>>;

pub(super) fn check_head(link: &Link, name: &str) -> HeadCheck {
    let (jetstream, name) = (link.jetstream.clone(), name.to_owned());
    Box::pin(async move {
        match timeout(CHECK_TIMEOUT, head(&jetstream, &name)).await {
            Ok(answer) => answer,
            Err(_) => Err(HeadFault::Unanswered("no answer in 2 s".to_owned())),
        }
    })
}

/// The first head, waited for.
pub(super) async fn first_head(link: &Link, name: &str) -> Result<Head, BusError> {
    let mut silent = true;
    loop {
        match link.permitted(check_head(link, name)).await? {
            Ok(head) => return Ok(head),
            Err(fault) if std::mem::take(&mut silent) => {
                warn!(
                    ?fault,
                    "the stream's leader does not say where the stream stands: waiting for it"
                );
            }
            Err(_) => {}
        }
        tokio::time::sleep(CHECK_SOON).await;
    }
}

impl Feed {
    /// Takes the leader's word, or its silence. Returns whether the feed begins again elsewhere in the stream.
    pub(super) async fn answered(&mut self, answer: Result<Head, HeadFault>) -> bool {
        let now = Instant::now();
        let Some(durable) = &mut self.durable else {
            return false;
        };
        let mut anew = false;
        match answer {
            Ok(head) => {
                if !durable.answered {
                    info!("the stream's leader answers again");
                }
                durable.answered = true;
                durable.oldest = head.first;
                durable.head = head.last;
                if let Some(missed) = durable.continuity.head(&head, now) {
                    anew = true;
                    durable.held.clear();
                    self.missed(&missed);
                } else {
                    self.drop_beyond(head.last, now);
                }
                self.taker.keeps_from(head.first);
                self.look_for_removed(&head, anew, now);
            }
            Err(fault) => {
                if std::mem::replace(&mut durable.answered, false) {
                    warn!(?fault, "the stream's leader does not say where the stream stands");
                }
                durable.continuity.interrupted();
                self.next_check = now + CHECK_SOON;
                // Another server may be nearer to the leader; a frozen one never answers. What this costs is
                // only what was lost already.
                if matches!(fault, HeadFault::Unanswered(_)) && self.link.is_connected() {
                    let _ = self.link.client.force_reconnect().await;
                }
            }
        }
        anew
    }

    /// Drops what came before its turn and is not in the stream, and takes what is.
    fn drop_beyond(&mut self, head: u64, now: Instant) {
        let Some(durable) = &mut self.durable else { return };
        let mut forged = durable.held.drop_beyond(head);
        if let Some(by_user) = &mut durable.by_user {
            forged += by_user.judge(head, &mut durable.continuity);
        }
        if forged > 0 {
            self.taker.forged(forged);
            if self.forged_said.is_none_or(|said| now >= said + SILENCE) {
                self.forged_said = Some(now);
                error!(
                    messages = forged,
                    head,
                    "somebody else than NATS publishes messages as the stream's: they are dropped; see SECURITY.md"
                );
            }
        }
        self.take_held(now);
        self.go_on(now);
    }

    /// Tells all that a range is gone.
    pub(super) fn missed(&mut self, missed: &Missed) {
        let Some(durable) = &mut self.durable else { return };
        let reason = match missed.cause {
            Cause::Evicted => GapReason::Evicted,
            Cause::EpochChanged => GapReason::EpochChanged,
            Cause::StreamShortened => GapReason::FutureSeq,
        };
        let label = match missed.cause {
            Cause::Evicted => "evicted",
            Cause::EpochChanged => "epoch_changed",
            Cause::StreamShortened => "future_seq",
        };
        warn!(
            stream = durable.continuity.epoch(),
            from_seq = missed.from,
            to_seq = missed.to,
            reason = label,
            "a range of the stream is gone: sessions are told"
        );
        let gap = Gap {
            stream: durable.continuity.epoch().to_owned(),
            from_seq: wire(missed.from),
            to_seq: wire(missed.to),
            reason,
        };
        let taker = &mut self.taker;
        match &mut durable.by_user {
            Some(by_user) => by_user.begin(missed.to, || taker.gap(gap, label)),
            None => taker.gap(gap, label),
        }
    }
}

/// A sequence as frames carry it. JetStream would have to store a million messages a second for 285 years to
/// pass the bound.
fn wire(seq: u64) -> SafeInteger {
    SafeInteger::new(seq).unwrap_or_default()
}
