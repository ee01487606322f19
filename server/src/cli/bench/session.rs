//! One session: connects, reads, checks, and comes back with its position when its connection ends.

mod heard;

use std::{
    future::poll_fn,
    ops::ControlFlow,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf},
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use super::{
    check::Check,
    dial::{Hello, Open, Refusal, Stream},
    frame::{NoFrame, frames},
    lane::{Buffers, Lane},
    publish::Published,
    run::{Phase, Run},
    tally::Tally,
    wire::{Incoming, Reader, Scratch, close_frame, pong_frame},
};
use crate::cli::tail::reconnect::{Attempts, End, Next};

/// How long a handshake may take, and a write.
const PATIENCE: Duration = Duration::from_secs(10);

/// One session of a run.
pub(super) struct Session {
    run: Arc<Run>,
    lane: Rc<Lane>,
    number: usize,
    device: String,
    /// How often it has dialled: each time the next node, as a position may be asked of any.
    dialled: usize,
    check: Check,
    /// The stream's epoch and the last sequence that was handled.
    cursor: Option<(String, u64)>,
    /// Whether it has ever stood, and whether this connection does.
    ready: bool,
    stands: bool,
    /// What comes next is of a connection that was resumed: up to `seen` it may repeat, up to `past` it is history.
    seen: u64,
    past: u64,
    began: Instant,
    /// What the last `error` said.
    said: Option<String>,
    /// What waits to be written.
    out: Vec<u8>,
    ended: Option<End>,
    ending: Option<Arc<Published>>,
    /// When to ask the router again how far it is.
    ask_at: Option<Instant>,
    /// All that was due has come, or can't come any more.
    done: bool,
}

/// How one connection ended.
enum Over {
    /// There is nothing left to read.
    Done,
    /// It was dropped on purpose.
    Cut,
    /// The router or the network ended it.
    Ended(End),
}

impl Session {
    pub(super) fn new(run: Arc<Run>, lane: Rc<Lane>, number: usize) -> Self {
        let user = number / run.sessions_per_user;
        Self {
            device: run.device(number),
            check: Check::new(user as u64),
            run,
            lane,
            number,
            dialled: 0,
            cursor: None,
            ready: false,
            stands: false,
            seen: 0,
            past: 0,
            began: Instant::now(),
            said: None,
            out: Vec::new(),
            ended: None,
            ending: None,
            ask_at: None,
            done: false,
        }
    }

    fn user(&self) -> usize {
        self.number / self.run.sessions_per_user
    }

    /// Lives until the run is over.
    pub(super) async fn live(mut self) {
        let mut phase = self.run.phase.clone();
        let run = Arc::clone(&self.run);
        tokio::select! {
            () = sleep_until(run.connects_at(self.number)) => {}
            () = over(&mut phase) => {}
        }
        let mut attempts = Attempts::default();
        while !matches!(*phase.borrow(), Phase::Over(_)) {
            self.began = Instant::now();
            self.said = None;
            self.stands = false;
            let end = match self.connect().await {
                Ok(open) => match self.read(open, &mut phase.clone()).await {
                    Over::Done => break,
                    Over::Cut => {
                        self.lane.tally().cuts += 1;
                        continue;
                    }
                    Over::Ended(end) => end,
                },
                Err(refusal) => {
                    self.said = refusal.said;
                    refusal.end
                }
            };
            self.lane.tally().ended(&describe(&end, self.said.as_deref()));
            match attempts.after(&end, self.began.elapsed(), rand::random()) {
                Next::After(delay) => tokio::select! {
                    () = tokio::time::sleep(delay) => {}
                    () = over(&mut phase) => {}
                },
                Next::WithNewToken(_) | Next::Stop => {
                    self.lane.tally().gone += 1;
                    over(&mut phase).await;
                }
            }
        }
        self.settle(&phase.borrow());
    }

    async fn connect(&mut self) -> Result<Open, Refusal> {
        let run = &*self.run;
        let hello = Hello {
            token: run.crowd.token(self.user()),
            patterns: &run.patterns,
            device: &self.device,
            position: self.cursor.as_ref().map(|(stream, seq)| (&**stream, *seq)),
            plain: run.plain,
            compress: run.compress,
        };
        let target = &run.targets[(self.number + self.dialled) % run.targets.len()];
        self.dialled += 1;
        match timeout(PATIENCE, target.dial(&hello)).await {
            Ok(dialled) => dialled,
            Err(_) => Err(Refusal {
                end: End::Lost(format!("{} does not answer", target.url())),
                said: None,
            }),
        }
    }

    /// Reads one connection to its end.
    async fn read(&mut self, open: Open, phase: &mut watch::Receiver<Phase>) -> Over {
        let Open {
            mut stream,
            rest,
            read,
        } = open;
        let run = Arc::clone(&self.run);
        self.seen = self.cursor.as_ref().map_or(0, |(_, seq)| *seq);
        self.past = self.seen;
        self.ended = None;
        self.out.clear();
        self.lane.tally().bytes += (read + rest.len()) as u64;
        let mut reader = Reader::new(rest);
        // What came behind the answer.
        if let Err(end) = self.take(&[], &mut reader) {
            return Over::Ended(end);
        }
        // They stay registered over many reads.
        let mut changed = Box::pin(next(phase.clone(), false));
        let mut timer = pin!(sleep_until(run.cut_at(self.number).unwrap_or_else(far)));
        loop {
            if let Some(end) = self.ended.take() {
                return Over::Ended(end);
            }
            if !self.out.is_empty() {
                let written = timeout(PATIENCE, stream.write_all(&self.out)).await;
                if !matches!(written, Ok(Ok(()))) {
                    return Over::Ended(End::Lost("the connection takes nothing more".to_owned()));
                }
                self.out.clear();
            }
            if self.done {
                // Politely, but nobody waits for the answer.
                let _ = timeout(PATIENCE, stream.write_all(&close_frame(1000))).await;
                return Over::Done;
            }
            if let Some(ask_at) = self.ask_at.take() {
                timer.as_mut().reset(ask_at);
            }
            tokio::select! {
                biased;
                read = poll_fn(|context| self.poll_read(context, &mut stream, &mut reader)) => {
                    if let Err(end) = read {
                        return Over::Ended(end);
                    }
                }
                phase = &mut changed => match phase {
                    Phase::Ending(published) => {
                        self.ending = Some(published);
                        // No more cuts.
                        timer.as_mut().reset(far());
                        changed.set(next(run.phase.clone(), true));
                        self.ask();
                    }
                    _ => self.done = true,
                },
                () = &mut timer => {
                    if self.ending.is_none() {
                        return Over::Cut;
                    }
                    timer.as_mut().reset(far());
                    self.ask();
                }
            }
        }
    }

    /// Reads once, into the buffer that all sessions of the thread share.
    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut Stream,
        reader: &mut Reader,
    ) -> Poll<Result<(), End>> {
        let lane = Rc::clone(&self.lane);
        let mut buffers = lane.buffers.borrow_mut();
        let mut buffer = ReadBuf::new(&mut buffers.input);
        let read = ready!(Pin::new(stream).poll_read(context, &mut buffer));
        let count = buffer.filled().len();
        if let Err(error) = read {
            return Poll::Ready(Err(End::Lost(format!("the connection broke: {error}"))));
        }
        if count == 0 {
            return Poll::Ready(Err(End::Lost("the connection broke".to_owned())));
        }
        let mut tally = lane.tally();
        tally.bytes += count as u64;
        let Buffers { input, scratch } = &mut *buffers;
        Poll::Ready(self.read_frames(&input[..count], reader, scratch, &mut tally))
    }

    fn take(&mut self, input: &[u8], reader: &mut Reader) -> Result<(), End> {
        let lane = Rc::clone(&self.lane);
        let mut buffers = lane.buffers.borrow_mut();
        let mut tally = lane.tally();
        self.read_frames(input, reader, &mut buffers.scratch, &mut tally)
    }

    fn read_frames(
        &mut self,
        input: &[u8],
        reader: &mut Reader,
        scratch: &mut Scratch,
        tally: &mut Tally,
    ) -> Result<(), End> {
        // One look at the clock for all that came at once.
        let now = self.run.now();
        let mut malformed = false;
        let read = reader.read(input, scratch, |incoming| {
            match incoming {
                Incoming::Text(text) => {
                    tally.frames += 1;
                    tally.arrays += u64::from(text.first() == Some(&b'['));
                    let read = frames(text, |frame| self.frame(&frame, now, tally));
                    malformed |= read == Err(NoFrame);
                }
                Incoming::Ping(payload) => self.out.extend(pong_frame(payload)),
                Incoming::Close { code, reason } => {
                    self.ended = Some(End::Closed { code, reason });
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        });
        match read {
            Err(error) => Err(End::Lost(format!("what came can't be read: {error}"))),
            Ok(()) if malformed => Err(End::Lost("what came is not a frame".to_owned())),
            Ok(()) => Ok(()),
        }
    }

    /// Counts what is missing.
    fn settle(&self, phase: &Phase) {
        let mut tally = self.lane.tally();
        tally.finished += 1;
        let (Phase::Ending(published) | Phase::Over(Some(published))) = phase else {
            return;
        };
        let run = &self.run;
        let lost = self.check.lost(&run.plan, published.end, &published.uncertain);
        tally.faults.lost += lost.count;
        if let Some(first) = lost.first {
            let told = || format!("{} {} never came", run.event(first), self.name());
            tally.faults.tell(first, told);
        }
    }

    fn name(&self) -> String {
        let user = self.run.crowd.user(self.user()).as_str();
        let session = self.number % self.run.sessions_per_user;
        format!("in session {session} of `{user}`")
    }
}

/// Waits until the run is over.
async fn over(phase: &mut watch::Receiver<Phase>) {
    // An error: nobody runs it any more.
    let _ = phase.wait_for(|phase| matches!(phase, Phase::Over(_))).await;
}

/// Waits until nothing is published any more, or the run is over.
async fn next(mut phase: watch::Receiver<Phase>, is_ending: bool) -> Phase {
    let is_next = |phase: &Phase| match phase {
        Phase::Going => false,
        Phase::Ending(_) => !is_ending,
        Phase::Over(_) => true,
    };
    match phase.wait_for(is_next).await {
        Ok(phase) => phase.clone(),
        Err(_) => Phase::Over(None),
    }
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(86_400 * 365)
}

/// How a connection ended, for people.
pub(super) fn describe(end: &End, said: Option<&str>) -> String {
    let what = match end {
        End::Closed { code, reason } if reason.is_empty() || said.is_some() => format!("closed with {code}"),
        End::Closed { code, reason } => format!("closed with {code}: {reason}"),
        End::Refused { status, .. } => format!("refused with HTTP {status}"),
        End::Lost(what) => what.clone(),
    };
    match said {
        Some(said) => format!("{what}: {said}"),
        None => what,
    }
}
