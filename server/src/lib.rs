//! Rivulet carries events the last mile, from NATS subjects to every screen of the user they concern.
//!
//! The rooms, in the order in which an event passes them:
//!
//! - [`bus`]: NATS. Messages become [`event`]s, checked once; commands become requests.
//! - [`router`]: who is here and what they want. `dispatch` finds the sessions and encodes at the first match.
//! - [`outbox`]: one session's bounded queue of [`encoded`] events.
//! - `connection`: one loop per socket, from its outbox to the [`websocket`] codec and back.
//!
//! And around them: `http` (the only room that knows axum), `auth` (token to [`identity`]), `limits`,
//! [`config`], [`metrics`], `shutdown`.

pub mod bus;
pub mod command;
pub mod config;
pub mod encoded;
pub mod event;
pub mod identity;
pub mod metrics;
pub mod outbox;
pub mod router;
pub mod websocket;
