//! Tell all, wait for those who stay, spread the closes.

use std::{future::pending, time::Duration};

use tokio::sync::{mpsc, watch};

/// Held by everyone who has to be told.
#[derive(Clone, Debug)]
pub struct Shutdown {
    draining: watch::Receiver<Option<Duration>>,
    staying: mpsc::WeakSender<()>,
}

/// Held by whoever has to be waited for: the last one dropped is the end of the drain.
#[derive(Debug)]
pub struct Stay {
    _staying: mpsc::Sender<()>,
}

/// Held by the one who tells.
#[derive(Debug)]
pub struct Drain {
    draining: watch::Sender<Option<Duration>>,
    /// Until the drain begins, so that it doesn't end before.
    staying: mpsc::Sender<()>,
    gone: mpsc::Receiver<()>,
}

/// The two sides.
pub fn shutdown() -> (Drain, Shutdown) {
    let (draining, told) = watch::channel(None);
    let (staying, gone) = mpsc::channel(1);
    let shutdown = Shutdown {
        draining: told,
        staying: staying.downgrade(),
    };
    (
        Drain {
            draining,
            staying,
            gone,
        },
        shutdown,
    )
}

impl Shutdown {
    /// Waits until the node drains. Returns over how long the closes are spread.
    pub async fn draining(&mut self) -> Duration {
        let told = self
            .draining
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|spread| *spread);
        match told {
            Some(spread) => spread,
            // Nobody is left who could tell.
            None => pending().await,
        }
    }

    /// Whether the node drains.
    pub fn is_draining(&self) -> bool {
        self.draining.borrow().is_some()
    }

    /// Asks to be waited for. Whoever finds that the node does not drain *after* this will be.
    ///
    /// `None`: the drain is over.
    pub fn stay(&self) -> Option<Stay> {
        self.staying.upgrade().map(|staying| Stay { _staying: staying })
    }
}

impl Drain {
    /// Tells all holders to end within `spread`.
    pub fn begin(&self, spread: Duration) {
        self.draining.send_replace(Some(spread));
    }

    /// Waits until nobody stays.
    pub async fn finished(self) {
        let Self {
            draining: _told,
            staying,
            mut gone,
        } = self;
        drop(staying);
        let _ = gone.recv().await;
    }
}
