//! The edge over real sockets, without NATS behind it: who is let in, who is refused and how, and what a
//! stranger may cost.

mod client;
mod counted;
mod greedy;
mod handshake;
mod rig;
mod strangers;
