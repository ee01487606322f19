//! One module per promise, each against a real nats-server and real sockets.

mod routing;
