//! File descriptors: as many as the system lets us have, and some of them kept from clients.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

/// Kept for the admin port (64 at a time), NATS, key sets, files and the listeners themselves.
const KEPT: u64 = 256;

/// Raises the soft limit as far as it goes. Returns how many sockets clients may have at most, of `wanted`, so that
/// health and metrics still answer when all of those are taken.
pub(crate) fn for_clients(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let needed = (wanted as u64).saturating_add(KEPT);
    let most = match (limit.current, limit.maximum) {
        (None, _) => return wanted,
        (Some(current), _) if current >= needed => return wanted,
        (Some(current), maximum) => {
            let raised = maximum.map_or(needed, |maximum| maximum.min(needed));
            let asked = Rlimit {
                current: Some(raised),
                maximum,
            };
            match setrlimit(Resource::Nofile, asked) {
                Ok(()) if raised > current => {
                    info!(
                        from = current,
                        to = raised,
                        "raised the limit of file descriptors"
                    );
                    raised
                }
                _ => current,
            }
        }
    };
    let fitting = fitting(wanted, most);
    if fitting < wanted {
        warn!(
            descriptors = most,
            wanted,
            clients = fitting,
            "file descriptors are short: fewer clients are taken than `edge.max_connections` says; raise the limit (`ulimit -Hn`, `LimitNOFILE=`), or lower the key"
        );
    }
    fitting
}

/// How many of `wanted` sockets there are descriptors for.
fn fitting(wanted: usize, most: u64) -> usize {
    // With hardly any, half of them.
    let clients = most.saturating_sub(KEPT).max(most / 2);
    wanted.min(usize::try_from(clients).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_descriptors_are_kept_from_clients() {
        assert_eq!(fitting(65_536, 1 << 20), 65_536);
        assert_eq!(fitting(65_536, 1_024), 768);
        assert_eq!(fitting(65_536, 100), 50);
        assert_eq!(fitting(10, 1_024), 10);
    }

    #[test]
    fn the_limit_is_raised_as_far_as_clients_need_it() {
        let clients = for_clients(100);
        assert_eq!(clients, 100);
        let limit = getrlimit(Resource::Nofile);
        assert!(limit.current.is_none_or(|current| current >= 100 + KEPT));
    }
}
