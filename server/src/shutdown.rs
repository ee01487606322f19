//! Say that the node will go, tell all, wait for those who stay, spread the closes.

use std::{future::pending, time::Duration};

use tokio::sync::{mpsc, watch};

/// Held by everyone who has to be told.
#[derive(Clone, Debug)]
pub struct Shutdown {
    state: watch::Receiver<State>,
    staying: mpsc::WeakSender<()>,
}

/// How far the end of the node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    /// It will drain soon: new clients should go elsewhere.
    Leaving,
    /// All end within this time.
    Draining(Duration),
}

/// Held by whoever has to be waited for: the last one dropped is the end of the drain.
#[derive(Debug)]
pub struct Stay {
    _staying: mpsc::Sender<()>,
}

/// Held by the one who tells.
#[derive(Debug)]
pub struct Drain {
    state: watch::Sender<State>,
    /// Until the drain begins, so that it doesn't end before.
    staying: mpsc::Sender<()>,
    gone: mpsc::Receiver<()>,
}

/// The two sides.
pub fn shutdown() -> (Drain, Shutdown) {
    let (state, told) = watch::channel(State::Running);
    let (staying, gone) = mpsc::channel(1);
    let shutdown = Shutdown {
        state: told,
        staying: staying.downgrade(),
    };
    (Drain { state, staying, gone }, shutdown)
}

impl Shutdown {
    /// Waits until the node drains. Returns over how long the closes are spread.
    pub async fn draining(&mut self) -> Duration {
        let draining = |state: &State| matches!(state, State::Draining(_));
        let told = self.state.wait_for(draining).await.map(|state| *state);
        match told {
            Ok(State::Draining(spread)) => spread,
            // Nobody is left who could tell.
            _ => pending().await,
        }
    }

    /// Whether clients should no longer be sent to the node: it drains, or will soon.
    pub fn is_leaving(&self) -> bool {
        *self.state.borrow() != State::Running
    }

    /// Whether the node drains.
    pub fn is_draining(&self) -> bool {
        matches!(*self.state.borrow(), State::Draining(_))
    }

    /// Asks to be waited for. Whoever finds that the node does not drain *after* this will be.
    ///
    /// `None`: the drain is over.
    pub fn stay(&self) -> Option<Stay> {
        self.staying.upgrade().map(|staying| Stay { _staying: staying })
    }
}

impl Drain {
    /// Says that the node will drain. Until it does it takes newcomers, as a load balancer
    /// learns of it late.
    pub fn announce(&self) {
        self.state.send_replace(State::Leaving);
    }

    /// Tells all holders to end within `spread`.
    pub fn begin(&self, spread: Duration) {
        self.state.send_replace(State::Draining(spread));
    }

    /// Waits until nobody stays.
    pub async fn finished(self) {
        let Self {
            state: _told,
            staying,
            mut gone,
        } = self;
        drop(staying);
        let _ = gone.recv().await;
    }
}
