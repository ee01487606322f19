//! What is done to a running system, by name.

mod beyond;
mod calm;
mod cuts;
mod cycles;
mod links;
mod node_freezes;
mod node_kills;
mod poison;
mod rolling_restart;
mod server_kills;
mod server_silences;
mod slow_readers;
mod stampede;
mod strangers;

use futures_util::future::BoxFuture;

use super::{outcome::Outcome, stage::Options};

/// A scenario.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// What it is called.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    run: for<'a> fn(&'a Options) -> BoxFuture<'a, anyhow::Result<Outcome>>,
}

/// All of them.
pub const ALL: [Scenario; 14] = [
    Scenario {
        name: "calm",
        about: "no fault at all: what the others are compared with",
        run: |options| Box::pin(calm::run(options)),
    },
    Scenario {
        name: "r1",
        about: "kill -9 of a random NATS server of 3, again and again",
        run: |options| Box::pin(server_kills::run(options)),
    },
    Scenario {
        name: "r2",
        about: "freeze or kill a NATS server for 3 to 30 s, the stream's leader or another",
        run: |options| Box::pin(server_silences::run(options)),
    },
    Scenario {
        name: "r3",
        about: "kill -9 of a node: its clients go to the others",
        run: |options| Box::pin(node_kills::run(options)),
    },
    Scenario {
        name: "freeze",
        about: "SIGSTOP of a node for 1 to 15 s",
        run: |options| Box::pin(node_freezes::run(options)),
    },
    Scenario {
        name: "r4",
        about: "rolling restart of all nodes with drain",
        run: |options| Box::pin(rolling_restart::run(options)),
    },
    Scenario {
        name: "cuts",
        about: "r7: clients are cut at any byte, in replays too",
        run: |options| Box::pin(cuts::run(options)),
    },
    Scenario {
        name: "links",
        about: "nodes are cut off from NATS, stalled and delayed",
        run: |options| Box::pin(links::run(options)),
    },
    Scenario {
        name: "r8",
        about: "cursors beyond the window, of another epoch, from the future",
        run: |options| Box::pin(beyond::run(options)),
    },
    Scenario {
        name: "r11",
        about: "all clients reconnect at once",
        run: |options| Box::pin(stampede::run(options)),
    },
    Scenario {
        name: "r13",
        about: "connect and go, in every good and bad way, again and again: nothing is left behind",
        run: |options| Box::pin(cycles::run(options)),
    },
    Scenario {
        name: "h1",
        about: "half handshakes, dripped and giant headers, giant frames, bombs, deep JSON",
        run: |options| Box::pin(strangers::run(options)),
    },
    Scenario {
        name: "s1",
        about: "one dead and ten slow readers among many",
        run: |options| Box::pin(slow_readers::run(options)),
    },
    Scenario {
        name: "p1",
        about: "poison messages in the stream, under load and at replay",
        run: |options| Box::pin(poison::run(options)),
    },
];

impl Scenario {
    /// The scenario of this name.
    pub fn named(name: &str) -> Option<Self> {
        ALL.into_iter().find(|scenario| scenario.name == name)
    }

    /// Runs it.
    ///
    /// # Errors
    /// What keeps it from coming to a verdict.
    pub async fn run(self, options: &Options) -> anyhow::Result<Outcome> {
        (self.run)(options).await
    }
}
