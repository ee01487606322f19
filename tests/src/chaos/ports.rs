//! Ports that a process can have again after it was killed.

use std::net::TcpListener;

use rand::RngExt;

/// Below where the system takes the ports of outgoing connections from (32768 on Linux): none of those can sit
/// on the port of a server that is down for a while.
const RANGE: std::ops::Range<u16> = 10_000..32_000;

/// Takes `N` ports that are free now. Somebody may still be faster, so whoever uses them tries again with others.
pub fn free<const N: usize>() -> [u16; N] {
    // All are held until all are found, or one would be found twice.
    let held = [(); N].map(|()| {
        loop {
            let port = rand::rng().random_range(RANGE);
            if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
                break (port, listener);
            }
        }
    });
    held.map(|(port, _)| port)
}
