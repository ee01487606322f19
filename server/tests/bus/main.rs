//! The bus against a real nats-server.

mod by_user;
mod commands;
mod credentials;
mod decided;
mod feed;
mod live_check;
mod local;
mod managed;
mod nats;
mod permissions;
mod repair;
mod rig;
mod well;
