//! The bus against a real nats-server.

mod commands;
mod feed;
mod local;
mod nats;
mod permissions;
mod repair;
mod rig;
