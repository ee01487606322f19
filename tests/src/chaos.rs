//! The chaos rig: what the promises say, under every fault that can be made here.
//!
//! A run has a [`cluster`] of nats-servers, [`node`]s (router processes), a [`crowd`] of [`client`]s that behave
//! as the protocol tells an SDK to, and [`publishers`] that retry until JetStream acknowledges; all of it on a
//! [`stage`]. A [`scenario`] does the faults, some of them by a [`proxy`]. At the end the [`oracle`] reads the stream back, the [`verdict`]
//! compares it with every client's [`record`], and the [`outcome`] is one line.
//!
//! A [`plant`] is a fault on purpose: with it the rig must turn red.

pub mod client;
pub mod cluster;
pub mod crowd;
pub mod latency;
pub mod node;
pub mod oracle;
pub mod outcome;
pub mod plant;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod publishers;
pub mod record;
pub mod scenario;
pub mod session;
pub mod socket;
pub mod stage;
pub mod stranger;
pub mod verdict;
pub mod vitals;
