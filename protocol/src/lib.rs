//! The words of Rivulet: what backends publish, what clients and the router say to each other.
//!
//! This crate is the one source of types. It knows no sockets, no NATS connection, no clock and no
//! environment; everything here is a pure function of its arguments. From it come the JSON Schemas, the
//! AsyncAPI document, both SDKs' generated files, the pages of codes, and the validation at the edge.
//!
//! Read in this order:
//!
//! - [`event`]: an event's type name and its envelope on the wire; one file per built-in family beside it
//!   ([`blob`], [`processor`], [`book`], [`conversation`]).
//! - [`command`]: what a client may ask a backend to do.
//! - [`message`]: every frame that is not an event, in both directions.
//! - [`pattern`]: what a client subscribes to and what a token permits.
//! - [`subject`]: user ids, and how they become NATS subject tokens.
//! - [`close`] and [`error`]: every bad end, with what the client should do about it.
//! - [`catalog`]: all event types and commands of a deployment, with their schemas.
//! - [`halves`]: halves of surrogate pairs in JSON, which pass as they are.
//! - [`validate`]: whether a payload is what its type says, as leniently as the edge is.
//! - [`codegen`]: from the catalogue to text.

pub mod blob;
pub mod book;
pub mod catalog;
pub mod close;
pub mod codegen;
pub mod command;
pub mod conversation;
pub mod error;
pub mod event;
pub mod halves;
pub mod message;
pub mod pattern;
pub mod processor;
pub mod scalar;
pub mod subject;
pub mod validate;
