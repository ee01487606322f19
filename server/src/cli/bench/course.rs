//! The course of a run: try the way, connect everybody, publish, wait for the last event, count.

use std::{
    future::pending,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use rivulet_protocol::event::EventType;
use rivulet_router::{bus::Publisher, config::Config};
use tokio::{
    runtime::Handle,
    signal::ctrl_c,
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};
use url::Url;

use super::{
    address::Addresses,
    crowd::Crowd,
    dial::Target,
    figures::{count, microseconds},
    lane,
    payload::Payloads,
    plan::Plan,
    probe::Probe,
    progress::Progress,
    publish::{Load, Pace, Published},
    report::Report,
    run::{Phase, Run},
    sample::{Lanes, Sample},
    tally::Tally,
    usage::Process,
};
use crate::cli::{Failure, within_seconds};

/// How often the run is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// For how long nothing may happen, before nothing is waited for any more.
const PATIENCE: Duration = Duration::from_secs(15);

/// What helps where a router's limits refuse.
pub(super) const LIMITS: &str = "; a load from one address needs `limits.connections_per_address`, \
                                 `limits.handshakes_per_address` and `limits.devices_per_user` of the router to be as \
                                 high, or 0 for none";

/// All that a run needs to know.
pub(super) struct Course {
    pub(super) config: Config,
    pub(super) urls: Vec<Url>,
    pub(super) crowd: Crowd,
    pub(super) plan: Plan,
    pub(super) types: Vec<EventType>,
    pub(super) patterns: String,
    pub(super) sessions_per_user: usize,
    pub(super) plain: bool,
    pub(super) compress: bool,
    pub(super) device: Option<String>,
    pub(super) ramp: f64,
    /// 0: none.
    pub(super) reconnect: f64,
    pub(super) size: usize,
    pub(super) to_everyone: u64,
    pub(super) pace: Pace,
    pub(super) processes: Vec<Process>,
    pub(super) cores: usize,
    pub(super) threads: usize,
}

/// What there is to tell at the end.
pub(super) struct Outcome {
    pub(super) published: Option<Arc<Published>>,
    pub(super) connected_in: Duration,
    pub(super) before: Sample,
    pub(super) after: Sample,
    pub(super) last: Tally,
    pub(super) ended_early: bool,
    pub(super) notes: Vec<String>,
}

/// What Ctrl-C leads to.
enum Then {
    Go,
    EndEarly,
}

impl Course {
    /// Runs it.
    ///
    /// # Errors
    /// What keeps it from starting, in the words of whoever refuses.
    pub(super) async fn run(mut self) -> Result<Report, Failure> {
        let (publishing, publisher_cpu) = lane::beside()?;
        let (phase, phases) = watch::channel(Phase::Going);
        let mut notes = Vec::new();

        let mut run = self.prepare(phases).await?;
        let payloads = Payloads::new(&run.mark, self.size);
        let addresses = Addresses::find(&run, &self.config, &payloads)?;
        let publisher = self.publisher(&publishing).await?;
        let has_stream = try_the_way(&run, &publisher, &addresses, &mut self.pace, &mut notes).await?;
        if run.reconnect > 0.0 && !has_stream {
            return Err(Failure::Usage(
                "--reconnect: without a stream there is no position to resume from".to_owned(),
            ));
        }

        run.began = Instant::now();
        let run = Arc::new(run);
        let lanes = (0..self.threads).map(|number| lane::start(&run, number, self.threads));
        let lanes = Lanes {
            readers: lanes.collect::<Result<_, _>>()?,
            publisher: publisher_cpu,
            processes: self.processes.clone(),
        };
        let mut progress = Progress::new();
        let interrupted = Box::pin(async {
            if ctrl_c().await.is_err() {
                pending::<()>().await;
            }
        });
        tokio::pin!(interrupted);

        let connecting = connect_all(&run, &lanes, &mut progress);
        let then = tokio::select! {
            connected = connecting => connected.map(|()| Then::Go),
            () = &mut interrupted => Ok(Then::EndEarly),
        };
        let then = then.inspect_err(|_| progress.end())?;
        let connected_in = run.began.elapsed();
        let mut outcome = Outcome {
            published: None,
            connected_in,
            before: lanes.sample(),
            after: lanes.sample(),
            last: Tally::new(),
            ended_early: matches!(then, Then::EndEarly),
            notes,
        };
        if matches!(then, Then::Go) {
            let load = Load {
                run: Arc::clone(&run),
                publisher,
                addresses,
                payloads,
                pace: self.pace,
            };
            let (stop, stopping) = watch::channel(false);
            let (measuring, mut measured) = watch::channel(false);
            let mut published: JoinHandle<Published> = publishing.spawn(load.publish(stopping, measuring));
            let began = Instant::now();
            let published = loop {
                tokio::select! {
                    published = &mut published => break published.map_err(Failure::other)?,
                    Ok(()) = measured.changed() => outcome.before = lanes.sample(),
                    () = &mut interrupted, if !outcome.ended_early => {
                        outcome.ended_early = true;
                        stop.send_replace(true);
                    }
                    () = sleep(LOOK) => self.tell(&mut progress, &lanes, began.elapsed()),
                }
            };
            outcome.after = lanes.sample();
            let published = Arc::new(published);
            outcome.published = Some(Arc::clone(&published));
            phase.send_replace(Phase::Ending(Arc::clone(&published)));
            let settled = settle(&run, &lanes, &mut progress);
            tokio::select! {
                settled = settled => outcome.notes.extend(settled),
                // Interrupted again, nothing more is waited for.
                _ = ctrl_c() => outcome.ended_early = true,
            }
        }
        phase.send_replace(Phase::Over(outcome.published.clone()));
        let all = run.sessions() as u64;
        let since = Instant::now();
        while lanes.tally().finished < all && since.elapsed() < PATIENCE {
            sleep(LOOK / 10).await;
        }
        progress.end();
        outcome.last = lanes.tally();
        Ok(self.report(&run, outcome))
    }

    /// Finds the routers, and puts together what all parts know.
    async fn prepare(&mut self, phase: watch::Receiver<Phase>) -> Result<Run, Failure> {
        let mut targets = Vec::new();
        for url in &self.urls {
            targets.push(Target::find(url.clone()).await?);
        }
        let name = format!("{:06x}", rand::random_range(0..0x100_0000));
        let crowd = std::mem::replace(&mut self.crowd, Crowd::none());
        Ok(Run {
            plan: self.plan.clone(),
            crowd,
            targets,
            types: self.types.clone(),
            patterns: self.patterns.clone(),
            sessions_per_user: self.sessions_per_user,
            plain: self.plain,
            compress: self.compress,
            device: self.device.clone().unwrap_or_else(|| format!("bench-{name}")),
            mark: Payloads::mark(&name),
            ramp: self.ramp,
            reconnect: self.reconnect,
            began: Instant::now(),
            measured_from: AtomicU64::new(u64::MAX),
            phase,
        })
    }

    /// Connects to NATS on the publisher's own thread.
    async fn publisher(&self, publishing: &Handle) -> Result<Publisher, Failure> {
        let (nats, data_dir) = (self.config.nats.clone(), self.config.data_dir.clone());
        let connecting = publishing.spawn(async move { Publisher::connect(&nats, &data_dir).await });
        within_seconds(async { connecting.await.expect("it does not panic") }).await
    }

    fn tell(&self, progress: &mut Progress, lanes: &Lanes, elapsed: Duration) {
        let Pace {
            warm_up, duration, ..
        } = self.pace;
        let (what, part) = match elapsed.checked_sub(warm_up) {
            None => ("warming up", elapsed.as_secs_f64() / warm_up.as_secs_f64()),
            Some(measured) => ("measuring", measured.as_secs_f64() / duration.as_secs_f64()),
        };
        progress.tell(what, part, || {
            let tally = lanes.tally();
            let faults = tally.faults.doubled + tally.faults.reordered + tally.faults.foreign;
            let mut say = format!(
                "{:.0} of {:.0} s, {} deliveries",
                elapsed.as_secs_f64(),
                (warm_up + duration).as_secs_f64(),
                count(tally.deliveries as f64)
            );
            if !tally.latency.is_empty() {
                let at = |quantile| microseconds(tally.latency.value_at_quantile(quantile) as f64 / 1e3);
                say.push_str(&format!(", p50 {}, p99 {}", at(0.5), at(0.99)));
            }
            if faults > 0 {
                say.push_str(&format!(", {} FAULTS", count(faults as f64)));
            }
            let ends: u64 = tally.ends.values().sum();
            if ends > 0 {
                say.push_str(&format!(", {} connections ended", count(ends as f64)));
            }
            say
        });
    }
}

/// Sends an event of each kind through all routers, and says whether a stream keeps them.
async fn try_the_way(
    run: &Run,
    publisher: &Publisher,
    addresses: &Addresses,
    pace: &mut Pace,
    notes: &mut Vec<String>,
) -> Result<bool, Failure> {
    let mut has_stream = true;
    for target in &run.targets {
        // One after another: it is one user and one device, whose last session alone has a seat.
        let mut probe = Probe::connect(run, target).await?;
        has_stream &= probe.has_stream();
        if pace.in_flight.is_some() && !(has_stream && addresses.are_durable()) {
            pace.in_flight = None;
            notes.push(
                "no stream keeps these events: published by core NATS, acknowledged by nobody".to_owned(),
            );
        }
        let acknowledged = pace.in_flight.is_some();
        probe.sees_events(run, publisher, addresses, acknowledged).await?;
        probe.leave().await;
    }
    Ok(has_stream)
}

/// Waits until all sessions stand.
async fn connect_all(run: &Run, lanes: &Lanes, progress: &mut Progress) -> Result<(), Failure> {
    let all = run.sessions() as u64;
    let (mut ready, mut since) = (0, Instant::now());
    loop {
        let tally = lanes.tally();
        if tally.gone > 0 || since.elapsed() > PATIENCE.max(Duration::from_secs_f64(2.0 / run.ramp)) {
            return Err(Failure::other(refusal(&tally, all)));
        }
        if tally.ready > ready {
            (ready, since) = (tally.ready, Instant::now());
        }
        progress.tell("connecting", ready as f64 / all as f64, || {
            let ends: u64 = tally.ends.values().sum();
            let refused = match ends {
                0 => String::new(),
                ends => format!(", {} refused", count(ends as f64)),
            };
            format!(
                "{} of {} sessions{refused}",
                count(ready as f64),
                count(all as f64)
            )
        });
        if ready == all {
            return Ok(());
        }
        sleep(LOOK / 4).await;
    }
}

/// Why not all sessions stand.
fn refusal(tally: &Tally, all: u64) -> String {
    let most = tally.ends.iter().max_by_key(|(_, count)| **count);
    let said = most.map_or_else(
        || "the router says nothing more".to_owned(),
        |(words, count)| format!("{count} × {words}"),
    );
    let hint = if said.contains("429") { LIMITS } else { "" };
    format!("{} of {all} sessions stand: {said}{hint}", tally.ready)
}

/// Waits until every session has read all that is due; what it had to give up on.
async fn settle(run: &Run, lanes: &Lanes, progress: &mut Progress) -> Option<String> {
    let all = run.sessions() as u64;
    let (mut last, mut since) = ((0, 0), Instant::now());
    loop {
        let tally = lanes.tally();
        let now = (tally.deliveries + tally.repeated, tally.finished);
        if now.1 == all {
            return None;
        }
        if now != last {
            (last, since) = (now, Instant::now());
        }
        if since.elapsed() > PATIENCE {
            return Some(format!(
                "{} sessions had not got to the end of the stream when nothing had come for {} s",
                all - now.1,
                PATIENCE.as_secs()
            ));
        }
        progress.tell("the rest", now.1 as f64 / all as f64, || {
            format!(
                "{} of {} sessions have all",
                count(now.1 as f64),
                count(all as f64)
            )
        });
        sleep(LOOK / 4).await;
    }
}
