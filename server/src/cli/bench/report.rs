//! What a run came to: one set of figures, as a table and as JSON.

use std::{collections::BTreeMap, fmt::Write as _};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    figures::{bytes, count, microseconds, share, some},
    tally::Faults,
};
use crate::cli::colour::Palette;

/// All figures of a run. Times are in microseconds.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) version: &'static str,
    /// Whether anything was lost, doubled or reordered, came to the wrong session, or was not read to its end:
    /// then the other figures count for nothing.
    pub(super) void: bool,
    pub(super) ended_early: bool,
    pub(super) asked: Asked,
    pub(super) checks: Checks,
    pub(super) connects: Connects,
    pub(super) published: Publishing,
    pub(super) deliveries: Deliveries,
    /// From publish to the client's read, live events only; both by this process's clock.
    pub(super) latency_us: Option<Quantiles>,
    pub(super) resumes: Option<Resumes>,
    pub(super) client: Client,
    pub(super) processes: Vec<Process>,
    /// How connections ended that nobody wanted to end.
    pub(super) ends: BTreeMap<String, u64>,
    /// `error` and `gap` frames.
    pub(super) errors: BTreeMap<String, u64>,
    /// What to know before one believes the figures.
    pub(super) notes: Vec<String>,
}

/// What was asked for.
#[derive(Serialize)]
pub(super) struct Asked {
    pub(super) urls: Vec<String>,
    pub(super) users: usize,
    pub(super) sessions_per_user: usize,
    pub(super) rate: f64,
    pub(super) size: usize,
    pub(super) to_everyone_percent: u64,
    pub(super) types: usize,
    pub(super) patterns: String,
    pub(super) warm_up_s: f64,
    pub(super) duration_s: f64,
    pub(super) plain: bool,
    pub(super) compress: bool,
    pub(super) acknowledged: bool,
    pub(super) reconnect: f64,
}

/// What every session was checked for.
#[derive(Serialize)]
pub(super) struct Checks {
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) reordered: u64,
    /// Events that were another user's, or of a type that was not asked for.
    pub(super) foreign: u64,
    /// Sessions that the router ended for good.
    pub(super) sessions_gone: u64,
    pub(super) first: Option<String>,
}

/// How sessions began.
#[derive(Serialize)]
pub(super) struct Connects {
    pub(super) sessions: u64,
    pub(super) seconds: f64,
    pub(super) per_second: f64,
    pub(super) handshake_us: Option<Quantiles>,
}

/// What was published while it was measured.
#[derive(Serialize)]
pub(super) struct Publishing {
    pub(super) events: u64,
    /// With those of the warm-up.
    pub(super) all_events: u64,
    pub(super) seconds: f64,
    pub(super) per_second: f64,
    /// Events, warm-up included, of which nobody knows whether they were published: not counted as lost.
    pub(super) uncertain: u64,
    pub(super) fault: Option<String>,
    pub(super) ack_us: Option<Quantiles>,
}

/// What came while it was measured.
#[derive(Serialize)]
pub(super) struct Deliveries {
    pub(super) count: u64,
    /// With those before and behind.
    pub(super) all: u64,
    pub(super) per_second: f64,
    pub(super) bytes_per_second: f64,
    pub(super) bytes_per_delivery: Option<f64>,
    /// Of all messages, those that were arrays of several frames, in percent.
    pub(super) arrays_percent: f64,
    /// Events of others, which were not counted.
    pub(super) others: u64,
}

/// Connections that came back.
#[derive(Serialize)]
pub(super) struct Resumes {
    /// Connections dropped on purpose.
    pub(super) dropped: u64,
    pub(super) resumed: u64,
    /// From the first packet to `resumed`.
    pub(super) took_us: Option<Quantiles>,
    /// Events that came again behind a reconnect, which clients drop.
    pub(super) repeated: u64,
}

/// What the bench itself took.
#[derive(Serialize)]
pub(super) struct Client {
    pub(super) cores: usize,
    pub(super) threads: usize,
    /// In cores: 0.5 is half of one.
    pub(super) cpu: f64,
    /// Of one core, in the reading thread that had the most to do.
    pub(super) busiest_thread: f64,
    pub(super) read_us_per_delivery: Option<f64>,
    pub(super) publish_us_per_event: Option<f64>,
    /// Whether it was so busy that the latencies are partly its own.
    pub(super) is_the_limit: bool,
}

/// What a process on this machine took meanwhile.
#[derive(Serialize)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) name: String,
    /// In cores.
    pub(super) cpu: f64,
    pub(super) us_per_delivery: Option<f64>,
    pub(super) resident_bytes: u64,
}

/// Times in microseconds.
#[derive(Serialize)]
pub(super) struct Quantiles {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) max: f64,
}

impl Quantiles {
    /// Of times in nanoseconds, if there are any.
    pub(super) fn of(times: &Histogram<u64>) -> Option<Self> {
        let at = |quantile| times.value_at_quantile(quantile) as f64 / 1e3;
        (!times.is_empty()).then(|| Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: times.max() as f64 / 1e3,
        })
    }
}

impl Checks {
    pub(super) fn of(faults: &Faults, sessions_gone: u64) -> Self {
        Self {
            lost: faults.lost,
            doubled: faults.doubled,
            reordered: faults.reordered,
            foreign: faults.foreign,
            sessions_gone,
            first: faults.first.as_ref().map(|(_, what)| what.clone()),
        }
    }

    /// Why the run is void; `None` if it is not.
    pub(super) fn why_void(&self) -> Option<String> {
        let faults = [
            (self.lost, "lost"),
            (self.doubled, "doubled"),
            (self.reordered, "out of order"),
            (self.foreign, "came to the wrong session"),
            (self.sessions_gone, "sessions ended for good"),
        ];
        let faults: Vec<_> = faults
            .into_iter()
            .filter(|(number, _)| *number > 0)
            .map(|(number, what)| format!("{} {what}", count(number as f64)))
            .collect();
        (!faults.is_empty()).then(|| faults.join(", "))
    }
}

impl Report {
    /// For people.
    pub(super) fn table(&self, palette: Palette) -> String {
        let mut table = format!("{}\n\n", self.head());
        let mut line = |name: &str, what: String| {
            let _ = writeln!(table, "  {} {what}", palette.dim(format_args!("{name:<11}")));
        };
        match self.checks.why_void() {
            None => line("checked", "nothing lost, doubled or out of order".to_owned()),
            Some(why) => {
                line("checked", palette.red(format_args!("VOID: {why}")));
                if let Some(first) = &self.checks.first {
                    line("", format!("first: {first}"));
                }
            }
        }
        let Connects {
            sessions,
            seconds,
            per_second,
            handshake_us,
        } = &self.connects;
        line(
            "connects",
            format!(
                "{} in {seconds:.1} s, {}/s{}",
                count(*sessions as f64),
                count(*per_second),
                some(handshake_us.as_ref(), |times| format!(
                    "; handshake p50 {}, p99 {}",
                    microseconds(times.p50),
                    microseconds(times.p99)
                ))
            ),
        );
        let published = &self.published;
        line(
            "published",
            format!(
                "{} in {:.1} s, {}/s{}",
                count(published.events as f64),
                published.seconds,
                count(published.per_second),
                some(published.ack_us.as_ref(), |times| format!(
                    "; acknowledged p50 {}, p99 {}",
                    microseconds(times.p50),
                    microseconds(times.p99)
                ))
            ),
        );
        if published.uncertain > 0 {
            let fault = published.fault.as_deref().unwrap_or_default();
            let uncertain = count(published.uncertain as f64);
            line(
                "",
                format!("{uncertain} not acknowledged, and not counted as lost: {fault}"),
            );
        }
        let deliveries = &self.deliveries;
        line(
            "deliveries",
            format!(
                "{}, {}/s; {}/s on the wire{}",
                count(deliveries.count as f64),
                count(deliveries.per_second),
                bytes(deliveries.bytes_per_second),
                some(deliveries.bytes_per_delivery.as_ref(), |of_one| format!(
                    ", {} each",
                    bytes(*of_one)
                ))
            ),
        );
        if let Some(times) = &self.latency_us {
            line("latency", quantiles(times));
        }
        if let Some(resumes) = &self.resumes {
            line(
                "resumes",
                format!(
                    "{} dropped, {} resumed{}",
                    count(resumes.dropped as f64),
                    count(resumes.resumed as f64),
                    some(resumes.took_us.as_ref(), |times| format!(
                        "; {}",
                        quantiles(times)
                    ))
                ),
            );
        }
        for process in &self.processes {
            line(
                "process",
                format!(
                    "{} {}: {} of a core{}; {}",
                    process.name,
                    process.pid,
                    share(process.cpu),
                    some(process.us_per_delivery.as_ref(), |time| format!(
                        ", {} a delivery",
                        microseconds(*time)
                    )),
                    bytes(process.resident_bytes as f64)
                ),
            );
        }
        let client = &self.client;
        line(
            "the bench",
            format!(
                "{} of {} cores, busiest thread {}{}{}",
                share(client.cpu / client.cores as f64),
                client.cores,
                share(client.busiest_thread),
                some(client.read_us_per_delivery.as_ref(), |time| format!(
                    "; {} a delivery read",
                    microseconds(*time)
                )),
                some(client.publish_us_per_event.as_ref(), |time| format!(
                    ", {} an event published",
                    microseconds(*time)
                ))
            ),
        );
        for (what, words) in [("ends", &self.ends), ("errors", &self.errors)] {
            for (at, (words, number)) in words.iter().enumerate() {
                line(
                    if at == 0 { what } else { "" },
                    format!("{} × {words}", count(*number as f64)),
                );
            }
        }
        for (at, note) in self.notes.iter().enumerate() {
            line(if at == 0 { "note" } else { "" }, note.clone());
        }
        table
    }

    /// The load in a line.
    fn head(&self) -> String {
        let asked = &self.asked;
        let whom = match asked.to_everyone_percent {
            0 => "each to one user".to_owned(),
            100 => "each to everyone".to_owned(),
            percent => format!("{percent} % to everyone, the others to one user"),
        };
        let sessions = match asked.sessions_per_user {
            1 => String::new(),
            sessions => format!(" × {sessions} sessions"),
        };
        let kind = match (asked.plain, asked.compress) {
            (true, true) => ", plain and compressed",
            (true, false) => ", plain",
            (false, true) => ", compressed",
            (false, false) => "",
        };
        format!(
            "{} users{sessions}, {} events/s of {}, {whom}{kind}{}",
            count(asked.users as f64),
            count(asked.rate),
            bytes(asked.size as f64),
            if self.ended_early { "; ended early" } else { "" }
        )
    }
}

fn quantiles(times: &Quantiles) -> String {
    format!(
        "p50 {}  p90 {}  p99 {}  p99.9 {}  max {}",
        microseconds(times.p50),
        microseconds(times.p90),
        microseconds(times.p99),
        microseconds(times.p999),
        microseconds(times.max)
    )
}
