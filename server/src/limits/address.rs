//! Who a connection comes from, and how much may come from there.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::Quota;
use ipnet::IpNet;
use tokio::time::Instant;

use super::Limiter;

/// The client's address: that of the peer, or what a trusted proxy says in `X-Forwarded-For`.
///
/// The header is read from the right, as each proxy appends the address that it was reached from: the first
/// entry that is not itself a trusted proxy is the client, and what stands to the left of it is the client's own
/// claim, which counts for nothing. A list that ends, or holds something that is no address, before such an
/// entry means the last proxy that was named.
///
/// `forwarded` are the header's values, in the order in which they stood.
pub fn client_address<'a>(
    peer: IpAddr,
    forwarded: impl DoubleEndedIterator<Item = &'a str>,
    trusted: &[IpNet],
) -> IpAddr {
    let mut nearest = peer.to_canonical();
    let mut hops = forwarded.rev().flat_map(|value| value.rsplit(','));
    while is_trusted(nearest, trusted) {
        match hops.next().and_then(forwarded_address) {
            Some(address) => nearest = address,
            None => break,
        }
    }
    nearest
}

/// Whether this is the address of a trusted proxy.
pub fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    let address = address.to_canonical();
    trusted.iter().any(|proxies| proxies.contains(&address))
}

/// One entry of `X-Forwarded-For`; some proxies add the port.
fn forwarded_address(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim();
    let unbracketed = entry.strip_prefix('[').and_then(|rest| rest.split(']').next());
    let address: IpAddr = match unbracketed {
        Some(address) => address.parse().ok()?,
        None => entry.parse().ok().or_else(|| {
            let (address, _port) = entry.split_once(':')?;
            Some(IpAddr::V4(address.parse().ok()?))
        })?,
    };
    Some(address.to_canonical())
}

/// How much may come from one address. For IPv6 that is a /64, the least that one customer is given.
#[derive(Clone, Copy, Debug)]
pub struct AddressLimits {
    /// Connections at a time; 0: none counted.
    pub connections: usize,
    /// Handshakes a second; 0: none counted.
    pub handshakes_per_second: u32,
}

/// Why an address may not connect now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", match self.kind {
    TooManyKind::Handshakes => "too many connection attempts from this address",
    TooManyKind::Connections => "too many connections from this address",
})]
pub struct TooMany {
    /// Of what.
    pub kind: TooManyKind,
    /// When trying again may help.
    pub retry_after: Duration,
}

/// What an address has too many of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooManyKind {
    /// Attempts to connect, accepted or not.
    Handshakes,
    /// Connections at a time.
    Connections,
}

/// How long one waits who has too many connections: nobody knows when one will end.
const CONNECTIONS_RETRY: Duration = Duration::from_secs(10);

/// The most addresses that are known without a connection of theirs being open. One is forgotten a second after
/// its last attempt, so this many a second fill the map; a stranger beyond them waits a second.
const MAX_IDLE_ADDRESSES: usize = 65_536;

/// Below this many addresses, none is looked for that could be forgotten.
const SWEEP_FROM: usize = 1_024;

/// The shortest time between two sweeps: each visits every address, and none is forgotten sooner.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// All addresses that are connected or tried to be within the last second.
#[derive(Debug)]
pub struct Addresses {
    limits: AddressLimits,
    max_idle: usize,
    known: Mutex<Known>,
}

impl Addresses {
    /// Nobody yet.
    pub fn new(limits: AddressLimits) -> Arc<Self> {
        Self::with_max_idle(limits, MAX_IDLE_ADDRESSES)
    }

    fn with_max_idle(limits: AddressLimits, max_idle: usize) -> Arc<Self> {
        Arc::new(Self {
            limits,
            max_idle,
            known: Mutex::default(),
        })
    }

    /// Counts an attempt to connect, and the connection for as long as the slot is held.
    ///
    /// # Errors
    /// [`TooMany`] attempts or connections.
    pub fn enter(self: &Arc<Self>, address: IpAddr, now: Instant) -> Result<Slot, TooMany> {
        let Some(rate) = NonZeroU32::new(self.limits.handshakes_per_second) else {
            return self.take_slot(address, now, None);
        };
        self.take_slot(address, now, Some(Quota::per_second(rate)))
    }

    /// Forgets the addresses that have no connection and may try as often as a stranger. Done by itself while
    /// the map grows; a caller with a timer gets the memory back sooner.
    pub fn sweep(&self, now: Instant) {
        self.lock().sweep(now);
    }

    /// How many addresses are known.
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Whether no address is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn take_slot(
        self: &Arc<Self>,
        address: IpAddr,
        now: Instant,
        quota: Option<Quota>,
    ) -> Result<Slot, TooMany> {
        let key = Key::from(address);
        let mut known = self.lock();
        if !known.entries.contains_key(&key) && !known.make_room(self.max_idle, now) {
            return Err(TooMany {
                kind: TooManyKind::Handshakes,
                retry_after: SWEEP_EVERY,
            });
        }
        let entry = known.entries.entry(key).or_insert_with(|| Entry {
            handshakes: quota.map(|quota| Limiter::new(quota, now)),
            connections: 0,
            last_attempt: now,
        });
        entry.last_attempt = now;
        if let Some(handshakes) = &entry.handshakes {
            handshakes.take(now).map_err(|retry_after| TooMany {
                kind: TooManyKind::Handshakes,
                retry_after,
            })?;
        }
        if self.limits.connections > 0 && entry.connections >= self.limits.connections {
            return Err(TooMany {
                kind: TooManyKind::Connections,
                retry_after: CONNECTIONS_RETRY,
            });
        }
        entry.connections += 1;
        let is_the_first = entry.connections == 1;
        known.connected += usize::from(is_the_first);
        Ok(Slot {
            addresses: Arc::clone(self),
            key,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection of an address, counted until this is dropped.
#[derive(Debug)]
pub struct Slot {
    addresses: Arc<Addresses>,
    key: Key,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut known = self.addresses.lock();
        if let Some(entry) = known.entries.get_mut(&self.key) {
            entry.connections -= 1;
            let was_the_last = entry.connections == 0;
            known.connected -= usize::from(was_the_last);
        }
    }
}

/// Who shares one count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    V4(Ipv4Addr),
    V6Prefix(u64),
}

impl From<IpAddr> for Key {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => Self::V6Prefix((address.to_bits() >> 64) as u64),
        }
    }
}

#[derive(Debug)]
struct Entry {
    /// `None` where attempts are not counted.
    handshakes: Option<Limiter>,
    connections: usize,
    last_attempt: Instant,
}

impl Entry {
    /// Whether forgetting it changes nothing: a burst is as many as come back in a second.
    fn is_as_new(&self, now: Instant) -> bool {
        self.connections == 0 && now.saturating_duration_since(self.last_attempt) >= Duration::from_secs(1)
    }
}

#[derive(Debug, Default)]
struct Known {
    entries: HashMap<Key, Entry>,
    /// How many entries have connections.
    connected: usize,
    sweep_at: usize,
    swept: Option<Instant>,
}

impl Known {
    /// Whether one more address may be remembered.
    fn make_room(&mut self, max_idle: usize, now: Instant) -> bool {
        let is_full = |known: &Self| known.entries.len() - known.connected >= max_idle;
        let is_due = self
            .swept
            .is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP_EVERY);
        if is_due && (is_full(self) || self.entries.len() >= self.sweep_at.max(SWEEP_FROM)) {
            self.sweep(now);
        }
        !is_full(self)
    }

    fn sweep(&mut self, now: Instant) {
        self.entries.retain(|_, entry| !entry.is_as_new(now));
        self.swept = Some(now);
        // Twice as many must come before the next, so that a sweep costs each newcomer a constant.
        self.sweep_at = 2 * self.entries.len();
        self.entries.shrink_to(self.sweep_at.max(SWEEP_FROM));
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn limits(connections: usize, handshakes_per_second: u32) -> AddressLimits {
        AddressLimits {
            connections,
            handshakes_per_second,
        }
    }

    #[test]
    fn only_listed_proxies_are_believed() {
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().unwrap()).into();
        for (peer, forwarded, client) in [
            ("203.0.113.1", &["198.51.100.1"][..], "203.0.113.1"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("::ffff:10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["1.1.1.1", "198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["198.51.100.1, 10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &["198.51.100.1:4711"], "198.51.100.1"),
            ("10.0.0.1", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
            ("fd00::1", &["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &[""], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ] {
            assert_eq!(
                client_address(address(peer), forwarded.iter().copied(), &trusted),
                address(client),
                "{peer} {forwarded:?}"
            );
        }
    }

    #[test]
    fn connections_are_counted_while_their_slots_are_held() {
        let addresses = Addresses::new(limits(2, 0));
        let now = Instant::now();
        let one = addresses.enter(address("192.0.2.1"), now).unwrap();
        let _two = addresses.enter(address("::ffff:192.0.2.1"), now).unwrap();
        let refused = addresses.enter(address("192.0.2.1"), now).unwrap_err();
        assert_eq!(refused.kind, TooManyKind::Connections);
        assert!(addresses.enter(address("192.0.2.2"), now).is_ok());
        drop(one);
        assert!(addresses.enter(address("192.0.2.1"), now).is_ok());
    }

    #[test]
    fn a_v6_customer_is_one_address() {
        let addresses = Addresses::new(limits(1, 0));
        let now = Instant::now();
        let _one = addresses.enter(address("2001:db8:0:1::1"), now).unwrap();
        assert!(addresses.enter(address("2001:db8:0:1:ffff::2"), now).is_err());
        assert!(addresses.enter(address("2001:db8:0:2::1"), now).is_ok());
    }

    #[test]
    fn attempts_are_counted_even_when_refused_for_something_else() {
        let addresses = Addresses::new(limits(1, 20));
        let now = Instant::now();
        let _one = addresses.enter(address("192.0.2.1"), now).unwrap();
        for _ in 1..20 {
            let refused = addresses.enter(address("192.0.2.1"), now).unwrap_err();
            assert_eq!(refused.kind, TooManyKind::Connections);
        }
        let refused = addresses.enter(address("192.0.2.1"), now).unwrap_err();
        assert_eq!(refused.kind, TooManyKind::Handshakes);
        assert_eq!(refused.retry_after, Duration::from_millis(50));
        let after = addresses
            .enter(address("192.0.2.1"), now + refused.retry_after)
            .unwrap_err();
        assert_eq!(after.kind, TooManyKind::Connections);
    }

    #[test]
    fn strangers_cannot_grow_the_map_beyond_its_cap() {
        let addresses = Addresses::with_max_idle(limits(100, 20), 5_000);
        let start = Instant::now();
        let connected = addresses.enter(address("192.0.2.1"), start).unwrap();
        let refused = (0..20_000_u64)
            .filter(|prefix| {
                let stranger = Ipv6Addr::from_bits(u128::from(*prefix) << 64);
                addresses.enter(stranger.into(), start).is_err()
            })
            .count();
        assert_eq!(addresses.len(), 5_001);
        assert_eq!(refused, 15_000);

        assert!(
            addresses.enter(address("192.0.2.1"), start).is_ok(),
            "one who is connected is known"
        );
        let later = start + SECOND;
        assert!(addresses.enter(address("192.0.2.2"), later).is_ok());
        assert!(addresses.len() < 10, "{} are still known", addresses.len());

        drop(connected);
        addresses.sweep(later + SECOND);
        assert!(addresses.is_empty());
    }
}
