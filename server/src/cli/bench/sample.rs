//! What was counted and taken at a moment; two of them tell what came between.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    course::{Course, Outcome},
    figures::count,
    lane::Shared,
    publish::Published,
    report::{
        Asked, Checks, Client, Connects, Deliveries, Process as ProcessFigures, Publishing, Quantiles,
        Report, Resumes,
    },
    run::Run,
    tally::{Tally, times},
    usage::{self, Process, Taken},
};

/// Of its cores, or of one core in one thread: busier than this, the bench adds to the latencies that it measures.
const BUSY: f64 = 0.7;
/// Of all deliveries: if more than these come late, something did not keep up.
const LATE: f64 = 0.05;
/// Of the rate that was asked for: less is told.
const ENOUGH: f64 = 0.97;

/// The threads of a run, and the processes that are looked at.
pub(super) struct Lanes {
    pub(super) readers: Vec<Arc<Shared>>,
    pub(super) publisher: Arc<Shared>,
    pub(super) processes: Vec<Process>,
}

/// A moment.
pub(super) struct Sample {
    at: Instant,
    process: Duration,
    readers: Vec<Duration>,
    publisher: Duration,
    deliveries: u64,
    bytes: u64,
    taken: Vec<Option<Taken>>,
}

impl Lanes {
    /// The counts of all threads.
    pub(super) fn tally(&self) -> Tally {
        let mut all = Tally::new();
        for reader in &self.readers {
            all.add(&reader.tally());
        }
        all
    }

    pub(super) fn sample(&self) -> Sample {
        let tally = self.tally();
        Sample {
            at: Instant::now(),
            process: usage::of_this_process(),
            readers: self.readers.iter().map(|reader| reader.cpu()).collect(),
            publisher: self.publisher.cpu(),
            deliveries: tally.deliveries,
            bytes: tally.bytes,
            taken: self.processes.iter().map(Process::taken).collect(),
        }
    }
}

impl Course {
    /// The figures of what came out.
    pub(super) fn report(&self, run: &Run, outcome: Outcome) -> Report {
        let Outcome {
            published,
            connected_in,
            before,
            after,
            last,
            ended_early,
            mut notes,
        } = outcome;
        let seconds = after.at.duration_since(before.at).as_secs_f64();
        let per_second = |number: f64| if seconds > 0.0 { number / seconds } else { 0.0 };
        let delivered = after.deliveries - before.deliveries;
        let bytes = after.bytes - before.bytes;
        let each = |cpu: Duration, of: u64| (of > 0).then(|| cpu.as_secs_f64() * 1e6 / of as f64);

        let nothing = times();
        let publishing = match published.as_deref() {
            Some(published) => self.publishing(published, &mut notes),
            None => Publishing {
                events: 0,
                all_events: 0,
                seconds: 0.0,
                per_second: 0.0,
                uncertain: 0,
                fault: None,
                ack_us: Quantiles::of(&nothing),
            },
        };

        let readers: Vec<_> = before
            .readers
            .iter()
            .zip(&after.readers)
            .map(|(before, after)| after.saturating_sub(*before))
            .collect();
        let reading: Duration = readers.iter().sum();
        let publisher = after.publisher.saturating_sub(before.publisher);
        let busiest = readers.iter().max().copied().unwrap_or_default();
        let cpu = per_second(after.process.saturating_sub(before.process).as_secs_f64());
        let busiest_thread = per_second(busiest.as_secs_f64());
        let is_the_limit = busiest_thread > BUSY
            || per_second(publisher.as_secs_f64()) > BUSY
            || cpu > BUSY * self.cores as f64;
        if is_the_limit {
            notes.push(
                "the bench itself was busy, so the latencies are partly its own: ask for less, or run several on \
                 machines of their own"
                    .to_owned(),
            );
        }
        let processes = self.processes.iter().zip(before.taken.iter().zip(&after.taken));
        let processes = processes
            .filter_map(|(process, taken)| {
                let (Some(before), Some(after)) = taken else {
                    notes.push(format!("process {} ended", process.pid));
                    return None;
                };
                let cpu = after.cpu.saturating_sub(before.cpu);
                Some(ProcessFigures {
                    pid: process.pid,
                    name: process.name.clone(),
                    cpu: per_second(cpu.as_secs_f64()),
                    us_per_delivery: each(cpu, delivered),
                    resident_bytes: after.resident_bytes,
                })
            })
            .collect();
        let late = last.deliveries.saturating_sub(after.deliveries);
        if late as f64 > LATE * last.deliveries as f64 {
            notes.push(format!(
                "{} deliveries came only when nothing was published any more: the router, this machine or the bench \
                 did not keep up, and the latency is that of a queue",
                count(late as f64)
            ));
        }
        let checks = Checks::of(&last.faults, last.gone);
        Report {
            version: env!("CARGO_PKG_VERSION"),
            void: checks.why_void().is_some(),
            ended_early,
            asked: self.asked(run),
            checks,
            connects: Connects {
                sessions: last.ready,
                seconds: connected_in.as_secs_f64(),
                per_second: last.ready as f64 / connected_in.as_secs_f64(),
                handshake_us: Quantiles::of(&last.handshakes),
            },
            deliveries: Deliveries {
                count: delivered,
                all: last.deliveries,
                per_second: per_second(delivered as f64),
                bytes_per_second: per_second(bytes as f64),
                bytes_per_delivery: (delivered > 0).then(|| bytes as f64 / delivered as f64),
                arrays_percent: last.arrays as f64 * 100.0 / last.frames.max(1) as f64,
                others: last.others,
            },
            latency_us: Quantiles::of(&last.latency),
            resumes: (last.cuts > 0 || !last.resumes.is_empty()).then(|| Resumes {
                dropped: last.cuts,
                resumed: last.resumes.len(),
                took_us: Quantiles::of(&last.resumes),
                repeated: last.repeated,
            }),
            client: Client {
                cores: self.cores,
                threads: self.threads,
                cpu,
                busiest_thread,
                read_us_per_delivery: each(reading, delivered),
                publish_us_per_event: each(publisher, publishing.events),
                is_the_limit,
            },
            published: publishing,
            processes,
            ends: last.ends,
            errors: last.errors,
            notes,
        }
    }

    fn publishing(&self, published: &Published, notes: &mut Vec<String>) -> Publishing {
        let seconds = published.took.as_secs_f64();
        let per_second = if seconds > 0.0 {
            published.measured as f64 / seconds
        } else {
            0.0
        };
        // One more or less is no shortfall.
        if published.measured as f64 + 1.0 < ENOUGH * self.pace.rate * seconds {
            notes.push(format!(
                "the rate was not reached: {per_second:.0} events/s of {}; NATS, its acknowledgements or the \
                 publisher held it up",
                self.pace.rate
            ));
        }
        Publishing {
            events: published.measured,
            all_events: published.end,
            seconds,
            per_second,
            uncertain: published.uncertain.len() as u64,
            fault: published.fault.clone(),
            ack_us: Quantiles::of(&published.acks),
        }
    }

    fn asked(&self, run: &Run) -> Asked {
        Asked {
            urls: self.urls.iter().map(ToString::to_string).collect(),
            users: run.crowd.len(),
            sessions_per_user: self.sessions_per_user,
            rate: self.pace.rate,
            size: self.size,
            to_everyone_percent: self.to_everyone,
            types: self.types.len(),
            patterns: self.patterns.clone(),
            warm_up_s: self.pace.warm_up.as_secs_f64(),
            duration_s: self.pace.duration.as_secs_f64(),
            plain: self.plain,
            compress: self.compress,
            acknowledged: self.pace.in_flight.is_some(),
            reconnect: self.reconnect,
        }
    }
}
