//! Tell all, wait for all, spread the closes.

use std::{future::pending, time::Duration};

use tokio::sync::{mpsc, watch};

/// Held by everyone who has to be told, and waited for.
#[derive(Clone, Debug)]
pub struct Shutdown {
    draining: watch::Receiver<Option<Duration>>,
    /// Dropped with the last holder: that is what is waited for.
    _alive: mpsc::Sender<()>,
}

/// Held by the one who tells.
#[derive(Debug)]
pub struct Drain {
    draining: watch::Sender<Option<Duration>>,
    gone: mpsc::Receiver<()>,
}

/// The two sides.
pub fn shutdown() -> (Drain, Shutdown) {
    let (draining, told) = watch::channel(None);
    let (alive, gone) = mpsc::channel(1);
    (
        Drain { draining, gone },
        Shutdown {
            draining: told,
            _alive: alive,
        },
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
}

impl Drain {
    /// Tells all holders to end within `spread`.
    pub fn begin(&self, spread: Duration) {
        self.draining.send_replace(Some(spread));
    }

    /// Waits until no holder is left.
    pub async fn finished(mut self) {
        let _ = self.gone.recv().await;
    }
}
