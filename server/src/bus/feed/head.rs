//! Head checks: where the stream stands, as its leader says.
//!
//! It is asked on the feed's own connection, every 2 s and after whatever may have cost messages. The feed is
//! current once it has dispatched everything up to a head that was asked for after the last interruption. While
//! there is no leader to ask (an election takes 4 to 9 s, and is the same for all nodes) it stays current for a
//! grace, unless it knows of something that is missing.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use futures_util::future::{BoxFuture, join};
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
    stream::{Head, HeadFault, Live, head_and_republish},
};

/// How often the leader is asked for the head.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// How long it may take to answer; after that another server is tried.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// After how many unanswered checks in turn another server is tried, though this one answers: it may be cut off
/// from the others.
const UNHEARD: u32 = 2;
/// How soon it is asked again when it could not say, or when a message was out of place.
pub(super) const CHECK_SOON: Duration = Duration::from_millis(250);

/// For how long forged messages are not said of again in the log.
const SILENCE: Duration = Duration::from_secs(60);

/// Where the stream stands, and whether it republishes.
pub(super) type HeadCheck = BoxFuture<'static, Result<(Head, bool), HeadFault>>;

pub(super) fn check_head(link: &Link, name: &str) -> HeadCheck {
    let (link, name) = (link.clone(), name.to_owned());
    Box::pin(async move {
        let mut asked = pin!(timeout(CHECK_TIMEOUT, head_and_republish(&link.jetstream, &name)));
        let answer = match timeout(CHECK_TIMEOUT / 2, &mut asked).await {
            Ok(answer) => answer,
            Err(_) => {
                // Is it the leader who is silent, or the server between?
                let (answer, well) = join(asked, timeout(CHECK_TIMEOUT / 2, link.server_answers())).await;
                if answer.is_err() && well != Ok(true) {
                    return Err(HeadFault::Deaf("the server does not answer".to_owned()));
                }
                answer
            }
        };
        answer.unwrap_or_else(|_| Err(HeadFault::Unanswered("no answer in 2 s".to_owned())))
    })
}

/// The first head, waited for.
pub(super) async fn first_head(link: &Link, name: &str) -> Result<Head, BusError> {
    let mut silent = true;
    loop {
        match link.permitted(check_head(link, name)).await? {
            Ok((head, _)) => return Ok(head),
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

/// What an answer is followed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Nothing.
    GoOn,
    /// What is read back is of the stream as it was before.
    ReadAgain,
    /// The stream is another, or gone: the feed is opened again.
    OpenAgain,
}

impl Feed {
    /// Takes the leader's word, or its silence.
    pub(super) async fn answered(&mut self, answer: Result<(Head, bool), HeadFault>) -> Then {
        let now = Instant::now();
        let Some(durable) = &mut self.durable else {
            return Then::GoOn;
        };
        let mut then = Then::GoOn;
        match answer {
            Ok((head, _)) if head.epoch != durable.continuity.epoch() => {
                warn!(before = durable.continuity.epoch(), now = %head.epoch, "the stream was recreated");
                return Then::OpenAgain;
            }
            Ok((_, false)) if matches!(durable.stream.live, Live::Republished { .. }) => {
                warn!("the stream does not republish any more");
                return Then::OpenAgain;
            }
            Err(HeadFault::Missing) => {
                warn!(stream = durable.continuity.epoch(), "the stream is gone");
                return Then::OpenAgain;
            }
            Ok((head, _)) => {
                if durable.silent.take().is_some() {
                    info!("the stream's leader answers again");
                }
                durable.oldest = head.first;
                durable.head = head.last;
                if let Some(missed) = durable.continuity.head(&head, now) {
                    then = Then::ReadAgain;
                    durable.held.clear();
                    self.missed(&missed);
                } else {
                    self.drop_beyond(head.last, now);
                }
                self.taker.keeps_from(head.first);
                self.look_for_removed(&head, then == Then::ReadAgain, now);
            }
            Err(fault) => {
                let (_, unheard) = durable.silent.get_or_insert_with(|| {
                    warn!(?fault, "the stream's leader does not say where the stream stands");
                    (now, 0)
                });
                *unheard = match fault {
                    HeadFault::Unanswered(_) => *unheard + 1,
                    _ => 0,
                };
                let cut_off = *unheard >= UNHEARD;
                durable.continuity.interrupted();
                self.next_check = now + CHECK_SOON;
                // Another server may be nearer to the leader; a frozen one never answers. What this costs is
                // only what was lost already.
                if self.link.is_connected() {
                    if matches!(fault, HeadFault::Deaf(_)) {
                        let _ = self.link.client.force_reconnect().await;
                    } else if cut_off {
                        durable.silent = durable.silent.map(|(since, _)| (since, 0));
                        self.moves_since = Some(now);
                        self.link.move_on().await;
                    }
                }
            }
        }
        then
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
pub(super) fn wire(seq: u64) -> SafeInteger {
    SafeInteger::new(seq).unwrap_or_default()
}
