//! A thread that reads a share of the sessions, with what these share: buffers, and counts.

use std::{
    cell::RefCell,
    io,
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    runtime::Builder,
    task::{LocalSet, spawn_local},
    time::sleep,
};

use super::{run::Run, session::Session, tally::Tally, usage, wire::Scratch};

/// What one read takes at most: what a socket's buffer holds at a burst, so that it is one trip into the kernel.
const INPUT_BYTES: usize = 256 * 1024;
/// How often a thread says what CPU it has taken.
const LOOK: Duration = Duration::from_millis(50);

/// What a thread tells.
pub(super) struct Shared {
    tally: Mutex<Tally>,
    /// In nanoseconds.
    cpu: AtomicU64,
}

impl Shared {
    fn new() -> Self {
        Self {
            tally: Mutex::new(Tally::new()),
            cpu: AtomicU64::new(0),
        }
    }

    /// Held for one read at a time.
    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What CPU it had taken when it last looked.
    pub(super) fn cpu(&self) -> Duration {
        Duration::from_nanos(self.cpu.load(Ordering::Relaxed))
    }

    /// Looks from now on, for ever. Runs on the thread itself.
    pub(super) async fn look(&self) {
        loop {
            let cpu = usage::of_this_thread().as_nanos() as u64;
            self.cpu.store(cpu, Ordering::Relaxed);
            sleep(LOOK).await;
        }
    }
}

/// A thread from inside.
pub(super) struct Lane {
    shared: Arc<Shared>,
    pub(super) buffers: RefCell<Buffers>,
}

/// What a session needs while it reads.
pub(super) struct Buffers {
    pub(super) input: Vec<u8>,
    pub(super) scratch: Scratch,
}

impl Lane {
    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.shared.tally()
    }
}

/// Starts a thread with these sessions. It ends when they have.
pub(super) fn start(run: &Arc<Run>, number: usize, lanes: usize) -> io::Result<Arc<Shared>> {
    let shared = Arc::new(Shared::new());
    let (run, told) = (Arc::clone(run), Arc::clone(&shared));
    let runtime = Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new()
        .name(format!("lane {number}"))
        .spawn(move || {
            let lane = Rc::new(Lane {
                shared: told,
                buffers: RefCell::new(Buffers {
                    input: vec![0; INPUT_BYTES],
                    scratch: Scratch::new(),
                }),
            });
            let sessions = (number..run.sessions()).step_by(lanes);
            let at_work = async {
                let session = |number| Session::new(Arc::clone(&run), Rc::clone(&lane), number);
                let live: Vec<_> = sessions
                    .map(|number| spawn_local(session(number).live()))
                    .collect();
                tokio::select! {
                    _ = join_all(live) => {}
                    () = lane.shared.look() => {}
                }
            };
            LocalSet::new().block_on(&runtime, at_work);
        })?;
    Ok(shared)
}

/// A thread for the publisher and all that its NATS client does, so that its cost is told apart.
pub(super) fn beside() -> io::Result<(tokio::runtime::Handle, Arc<Shared>)> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (handle, shared) = (runtime.handle().clone(), Arc::new(Shared::new()));
    let told = Arc::clone(&shared);
    thread::Builder::new()
        .name("publisher".to_owned())
        .spawn(move || runtime.block_on(told.look()))?;
    Ok((handle, shared))
}
