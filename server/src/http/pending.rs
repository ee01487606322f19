//! The sockets that are not yet sessions, bounded: when one too many comes, the oldest yields.
//!
//! An honest handshake is over within a round trip or two, so the oldest is who holds its socket half open.
//! Turning newcomers away instead would let whoever fills the places keep everybody out.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// All sockets that are not yet sessions.
#[derive(Debug)]
pub(super) struct Pending {
    most: usize,
    sockets: Mutex<Sockets>,
}

#[derive(Debug, Default)]
struct Sockets {
    /// In the order in which they came.
    waiting: BTreeMap<u64, Arc<Notify>>,
    last: u64,
}

impl Pending {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            sockets: Mutex::default(),
        })
    }

    /// Takes a place, that of the oldest if there is no other.
    pub(super) fn enter(self: &Arc<Self>) -> Place {
        let told = Arc::new(Notify::new());
        let mut sockets = self.lock();
        sockets.last += 1;
        let number = sockets.last;
        sockets.waiting.insert(number, Arc::clone(&told));
        if sockets.waiting.len() > self.most
            && let Some((_, oldest)) = sockets.waiting.pop_first()
        {
            oldest.notify_one();
        }
        Place {
            pending: Arc::clone(self),
            number,
            told,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sockets> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One socket's place, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    pending: Arc<Pending>,
    number: u64,
    told: Arc<Notify>,
}

impl Place {
    /// Waits until the place is somebody else's.
    pub(super) async fn taken(&self) {
        self.told.notified().await;
        // Also for whoever else waits for this place.
        self.told.notify_one();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pending.lock().waiting.remove(&self.number);
    }
}
