//! How many events may be under way: those that not all clients have got yet.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

/// Tells a source how many events it may have sent in all.
pub(crate) type Grant = Arc<dyn Fn(u64) + Send + Sync>;

/// Lets a source send event n once every client has got event n − `size`.
pub(crate) struct Window {
    size: u64,
    /// Per client thread: so many events have all its connections.
    places: Vec<AtomicU64>,
    gate: Mutex<Gate>,
}

struct Gate {
    /// Events that may have been sent in all.
    granted: u64,
    closed: bool,
    grant: Grant,
}

impl Window {
    /// `grant` is told how many events may be sent in all, each time it gets more.
    pub(crate) fn new(size: u64, threads: usize, grant: Grant) -> Self {
        Self {
            size,
            places: (0..threads).map(|_| AtomicU64::new(0)).collect(),
            gate: Mutex::new(Gate {
                granted: 0,
                closed: false,
                grant,
            }),
        }
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Grants the first events.
    pub(crate) fn open(&self) {
        self.grant();
    }

    /// All connections of this thread have got so many.
    pub(crate) fn reached(&self, thread: usize, place: u64) {
        self.places[thread].store(place, Ordering::Release);
        self.grant();
    }

    /// Grants no more, and tells how many were granted.
    pub(crate) fn close(&self) -> u64 {
        let mut gate = self.gate.lock().expect("nobody panics with it");
        gate.closed = true;
        gate.granted
    }

    fn grant(&self) {
        let mut gate = self.gate.lock().expect("nobody panics with it");
        let least = self
            .places
            .iter()
            .map(|place| place.load(Ordering::Acquire))
            .min()
            .unwrap_or(0);
        let granted = least + self.size;
        if granted > gate.granted && !gate.closed {
            gate.granted = granted;
            (gate.grant)(granted);
        }
    }
}
