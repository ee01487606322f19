//! From outboxes to sockets: one task for each shard of the router writes what was put into the outboxes of the
//! shard's sessions.
//!
//! A delivery is then a push and a write, and wakes nobody. What comes while others are written to rides along
//! with the next write of its session, so that a node under load writes less often, not later.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use rivulet_protocol::close::CloseCode;
use tokio::{task::yield_now, time::sleep};

use crate::{metrics::Metrics, router::Router};

/// After so many sessions others have their turn: 3 to 4 ms at 6 to 8 µs a write. Not oftener, as whoever yields goes on
/// on another core, if one is idle.
const AT_A_TIME: usize = 512;

/// Flushes a shard's outboxes for as long as it is polled. Events wait for others for `linger`, counted from the first
/// that is there.
pub async fn run(router: Arc<Router>, shard: usize, linger: Duration, metrics: Arc<Metrics>) {
    let mut touched = Vec::new();
    loop {
        router.touched(shard).await;
        if !linger.is_zero() {
            sleep(linger).await;
        }
        router.take_touched(shard, &mut touched);
        for part in touched.chunks(AT_A_TIME) {
            let mut sent = metrics.sent();
            for outbox in part {
                // A fault in one session's write must not be that of all in its shard, for whom nobody else would write.
                if catch_unwind(AssertUnwindSafe(|| outbox.flush_live(&mut sent))).is_err() {
                    outbox.close(CloseCode::InternalError);
                }
            }
            drop(sent);
            yield_now().await;
        }
        touched.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, IoSlice},
        num::NonZero,
        time::Instant,
    };

    use bytes::Bytes;
    use rivulet_protocol::{event::EventType, scalar::Timestamp, subject::UserId};
    use tokio::time::timeout;

    use super::*;
    use crate::{
        encoded::Encoded,
        event::{Audience, Event},
        outbox::{Bounds, Framing, Outbox, Wire, tests::Tape},
        router::{Interest, Keeping},
    };

    struct Faulty;

    impl Wire for Faulty {
        fn try_write_vectored(&self, _: &[IoSlice<'_>]) -> io::Result<usize> {
            panic!("a fault of ours");
        }
    }

    fn outbox(wire: impl Wire + 'static) -> Arc<Outbox> {
        let bounds = Bounds {
            events: 10,
            bytes: 1000,
        };
        Arc::new(Outbox::new(bounds, Framing::PLAIN, wire))
    }

    #[tokio::test]
    async fn a_fault_in_one_sessions_write_is_not_its_shards() {
        let router = Arc::new(Router::new(Keeping::default(), NonZero::<usize>::MIN));
        let metrics = Arc::new(Metrics::new([]));
        let tape = Tape::default();
        let (faulty, sound) = (outbox(Faulty), outbox(tape.clone()));
        let all: Arc<[_]> = ["*".parse().unwrap()].into();
        let _registered = [&faulty, &sound].map(|outbox| {
            let interest = Interest::new(Arc::clone(&all), Arc::clone(&all));
            let user = UserId::parse("u1").unwrap();
            let first = |_: &_| Encoded::json("connected");
            router.register(user, interest, Arc::clone(outbox), first)
        });
        let flushing = tokio::spawn(run(Arc::clone(&router), 0, Duration::ZERO, metrics));
        for _ in 0..2 {
            router.dispatch(&Event {
                event_type: EventType::parse("blob.created").unwrap(),
                audience: Audience::Everyone,
                data: Bytes::from_static(b"{}"),
                seq: None,
                time: Timestamp::parse("2026-01-01T00:00:00Z").unwrap(),
                as_error: None,
                received_at: Instant::now(),
            });
            let written = async {
                while !tape.texts().iter().any(|text| text.contains("blob.created")) {
                    yield_now().await;
                }
            };
            timeout(Duration::from_secs(20), written)
                .await
                .expect("the event");
        }
        assert!(faulty.closing().is_some() && sound.closing().is_none());
        flushing.abort();
    }
}
