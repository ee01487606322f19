//! The rows of the matrix, in the order of the table of targets. A row is one file: add it to [`ALL`].

mod accept;
mod batched;
mod broadcast;
mod compressed;
mod flat_out;
mod idle;
mod per_user;
mod resume;

use std::time::Duration;

use tokio::runtime::Runtime;

use crate::{figures::Figures, goals::Goal};

/// All rows.
pub(crate) const ALL: [&dyn Row; 8] = [
    &broadcast::Broadcast,
    &batched::Batched,
    &flat_out::FlatOut,
    &idle::Idle,
    &compressed::Compressed,
    &per_user::PerUser,
    &resume::Resume,
    &accept::Accept,
];

/// What a run has at hand.
pub(crate) struct Bench {
    pub(crate) runtime: Runtime,
    /// Tiny sizes: whether it works, not how fast.
    pub(crate) quick: bool,
}

/// How long a scene lasts where only its completeness counts.
pub(crate) const QUICK: Duration = Duration::from_millis(300);

/// A column of a row's table: the figure and its heading.
pub(crate) type Column = (&'static str, &'static str);

/// What is measured, of whom, and what it must come to.
pub(crate) trait Row {
    /// One letter, as in the table of targets.
    fn letter(&self) -> char;
    /// One line.
    fn title(&self) -> &'static str;
    /// What a reader must know to read it.
    fn reading(&self) -> &'static str;
    /// Who takes part, in the order in which they are measured within a repetition.
    fn contestants(&self) -> &'static [&'static str];
    fn columns(&self) -> &'static [Column];
    fn goals(&self) -> &'static [Goal];
    /// One contestant, once.
    fn measure(&self, bench: &Bench, contestant: &str) -> anyhow::Result<Figures>;
}

/// The columns of a scene at a rate.
const AT_A_RATE: &[Column] = &[
    ("cpu", "CPU µs/delivery"),
    ("user", "user"),
    ("kernel", "kernel"),
    ("p50", "p50 ms"),
    ("p99", "p99 ms"),
    ("rate", "deliveries/s"),
    ("nats", "NATS µs"),
    ("client", "client µs"),
];
