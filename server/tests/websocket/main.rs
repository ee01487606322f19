//! The WebSocket codec through its public door, sorted by what could break.

mod clauses;
mod client;
mod compression;
mod handshake;
mod peer;
mod writer;
