//! One module per promise, each against a real nats-server and real sockets.

mod by_user;
mod codes;
mod commands;
mod families;
mod faults;
mod forged;
mod limits;
mod oracle;
mod ownership;
mod refusals;
mod resume;
mod routing;
mod seats;
mod sessions;
mod slow_consumer;
mod sources;
