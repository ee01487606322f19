//! The events: made at an even rate, put on NATS over one connection, which keeps their order, and acknowledged.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use hdrhistogram::Histogram;
use rivulet_router::bus::{Acknowledgement, BusError, Publisher};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout, timeout_at},
};

use super::{address::Addresses, payload::Payloads, run::Run, tally::times};

/// Events between two looks at the clock, where many are due at once.
const BURST: u64 = 64;
/// How long an acknowledgement may take, and a place among those that wait for theirs.
const PATIENCE: Duration = Duration::from_secs(10);

/// At which rate, for how long.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    /// Events a second.
    pub(super) rate: f64,
    pub(super) warm_up: Duration,
    pub(super) duration: Duration,
    /// Events that may wait for their acknowledgement; `None`: no stream gives any.
    pub(super) in_flight: Option<usize>,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Published {
    /// The number after that of the last event.
    pub(super) end: u64,
    /// How many of them were measured, and for how long.
    pub(super) measured: u64,
    pub(super) took: Duration,
    /// The sequence of the last event that a stream acknowledged; `None` where none does.
    pub(super) last_seq: Option<u64>,
    /// Events of which nobody knows whether they were published.
    pub(super) uncertain: HashSet<u64>,
    /// What was said of the first of them.
    pub(super) fault: Option<String>,
    /// From publish to acknowledgement, without the warm-up.
    pub(super) acks: Histogram<u64>,
}

/// Publishes one run's events.
pub(super) struct Load {
    pub(super) run: Arc<Run>,
    pub(super) publisher: Publisher,
    pub(super) addresses: Addresses,
    pub(super) payloads: Payloads,
    pub(super) pace: Pace,
}

/// An event on its way.
struct Pending {
    number: u64,
    made: u64,
    acknowledgement: Acknowledgement,
}

/// What acknowledgements said.
struct Acknowledged {
    last_seq: Option<u64>,
    uncertain: HashSet<u64>,
    fault: Option<String>,
    acks: Histogram<u64>,
}

impl Load {
    /// Publishes until the time is over or `stop` says so. `measuring` is told when the warm-up has passed.
    pub(super) async fn publish(
        self,
        mut stop: watch::Receiver<bool>,
        measuring: watch::Sender<bool>,
    ) -> Published {
        let Pace {
            rate,
            warm_up,
            duration,
            in_flight,
        } = self.pace;
        // Its length is the bound: whoever sends into it when it is full waits.
        let (pending, to_acknowledge) = mpsc::channel(in_flight.unwrap_or(1));
        let acknowledged = tokio::spawn(acknowledge(Arc::clone(&self.run), to_acknowledge));
        let mut faults = Vec::new();
        let began = Instant::now();
        let (mut number, mut measured_from) = (0, None);
        loop {
            let elapsed = began.elapsed();
            if measured_from.is_none() && elapsed >= warm_up {
                self.run.measured_from.store(number, Ordering::Relaxed);
                measured_from = Some((number, Instant::now()));
                measuring.send_replace(true);
            }
            if elapsed >= warm_up + duration || *stop.borrow() {
                break;
            }
            // The first is due at once.
            let due = (elapsed.as_secs_f64() * rate) as u64 + 1;
            for _ in 0..due.saturating_sub(number).min(BURST) {
                let sent = timeout(PATIENCE, self.send(number, &pending)).await;
                number += 1;
                let fault = match sent {
                    Ok(Ok(())) => continue,
                    Ok(Err(fault)) => fault.to_string(),
                    Err(_) => "NATS takes nothing more".to_owned(),
                };
                faults.push((number - 1, fault));
                // Whether it is time to end comes first.
                break;
            }
            if number >= due {
                let next = began + Duration::from_secs_f64(number as f64 / rate);
                let end = began + warm_up + duration;
                let turn = if measured_from.is_none() {
                    began + warm_up
                } else {
                    end
                };
                tokio::select! {
                    () = sleep_until(next.min(turn)) => {}
                    _ = stop.changed() => {}
                }
            } else {
                // Behind: its acknowledgements and the connection have their turn.
                tokio::task::yield_now().await;
            }
        }
        let (first, since) = measured_from.unwrap_or((number, Instant::now()));
        let took = since.elapsed();
        drop(pending);
        let _ = timeout(PATIENCE, self.publisher.flush()).await;
        let Acknowledged {
            last_seq,
            mut uncertain,
            mut fault,
            acks,
        } = acknowledged.await.expect("it does not panic");
        for (number, what) in faults {
            uncertain.insert(number);
            fault.get_or_insert(what);
        }
        Published {
            end: number,
            measured: number - first,
            took,
            last_seq,
            uncertain,
            fault,
            acks,
        }
    }

    async fn send(&self, number: u64, pending: &mpsc::Sender<Pending>) -> Result<(), BusError> {
        // Before the event is made: what waits here is not on its way.
        let free = match self.pace.in_flight {
            Some(_) => Some(pending.reserve().await.expect("it is read until it is dropped")),
            None => None,
        };
        let made = self.run.now();
        let (addressed, user) = self.addresses.of(&self.run, self.run.plan.place(number));
        let payload = self.payloads.make(number, made, user);
        let headers = addressed.headers();
        let Some(free) = free else {
            return self
                .publisher
                .send_unacknowledged(&addressed.subject, &headers, payload)
                .await;
        };
        let acknowledgement = self.publisher.send(&addressed.subject, &headers, payload).await?;
        free.send(Pending {
            number,
            made,
            acknowledgement,
        });
        Ok(())
    }
}

/// Waits for acknowledgements in the order of the events, which is the order in which they come.
async fn acknowledge(run: Arc<Run>, mut pending: mpsc::Receiver<Pending>) -> Acknowledged {
    let mut acknowledged = Acknowledged {
        last_seq: None,
        uncertain: HashSet::new(),
        fault: None,
        acks: times(),
    };
    while let Some(Pending {
        number,
        made,
        acknowledgement,
    }) = pending.recv().await
    {
        // From its publish on, and not from its turn: a stream that is away fails all that waits for it at once.
        let deadline = run.began + Duration::from_nanos(made) + PATIENCE;
        let stored = timeout_at(deadline, acknowledgement.stored()).await;
        match stored.unwrap_or_else(|_| Err("no acknowledgement came".to_owned())) {
            Ok(seq) => {
                acknowledged.last_seq = acknowledged.last_seq.max(Some(seq));
                if number >= run.measured_from.load(Ordering::Relaxed) {
                    let took = run.now().saturating_sub(made);
                    acknowledged.acks.saturating_record(took);
                }
            }
            Err(fault) => {
                acknowledged.uncertain.insert(number);
                acknowledged.fault.get_or_insert(fault);
            }
        }
    }
    acknowledged
}
