//! The sockets that are not yet sessions, bounded: when one too many comes, the oldest yields, and that of the
//! same address first.
//!
//! An honest handshake is over within a round trip or two, so the oldest is who holds its socket half open.
//! Turning newcomers away instead would let whoever fills the places keep everybody out. And as an address has
//! only a part of all places, one that opens sockets by the thousand takes them from itself.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use tokio::sync::Notify;

use crate::limits::address::Key;

/// All sockets that are not yet sessions.
#[derive(Debug)]
pub(super) struct Pending {
    most: usize,
    /// 0: not counted.
    most_by_address: usize,
    sockets: Mutex<Sockets>,
}

#[derive(Debug, Default)]
struct Sockets {
    /// In the order in which they came.
    waiting: BTreeMap<u64, Waiting>,
    /// The same by address, where addresses are counted.
    by_address: HashMap<Key, BTreeSet<u64>>,
    last: u64,
}

#[derive(Debug)]
struct Waiting {
    address: Option<Key>,
    told: Arc<Told>,
}

#[derive(Debug, Default)]
struct Told {
    notify: Notify,
    /// Which bound took the place.
    bound: OnceLock<&'static str>,
}

impl Pending {
    pub(super) fn new(most: usize, most_by_address: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_by_address,
            sockets: Mutex::default(),
        })
    }

    /// Takes a place, that of the oldest if there is no other: of the oldest of this address if it has all that
    /// one address may have. `None`: an address that many share, of which the places are not counted.
    pub(super) fn enter(self: &Arc<Self>, address: Option<IpAddr>) -> Place {
        let address = address.filter(|_| self.most_by_address > 0).map(Key::from);
        let told = Arc::new(Told::default());
        let mut sockets = self.lock();
        sockets.last += 1;
        let number = sockets.last;
        let waiting = Waiting {
            address,
            told: Arc::clone(&told),
        };
        sockets.waiting.insert(number, waiting);
        if let Some(address) = address {
            let numbers = sockets.by_address.entry(address).or_default();
            numbers.insert(number);
            if numbers.len() > self.most_by_address
                && let Some(&oldest) = numbers.first()
            {
                sockets.take(oldest, "max_pending_handshakes_per_address");
            }
        }
        if sockets.waiting.len() > self.most
            && let Some((&oldest, _)) = sockets.waiting.first_key_value()
        {
            sockets.take(oldest, "max_pending_handshakes");
        }
        Place {
            pending: Arc::clone(self),
            number,
            told,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sockets> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sockets {
    /// Takes a place away from who has it.
    fn take(&mut self, number: u64, bound: &'static str) {
        if let Some(told) = self.remove(number) {
            let _ = told.bound.set(bound);
            told.notify.notify_one();
        }
    }

    fn remove(&mut self, number: u64) -> Option<Arc<Told>> {
        let Waiting { address, told } = self.waiting.remove(&number)?;
        if let Some(address) = address
            && let Some(numbers) = self.by_address.get_mut(&address)
        {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_address.remove(&address);
            }
        }
        Some(told)
    }
}

/// One socket's place, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    pending: Arc<Pending>,
    number: u64,
    told: Arc<Told>,
}

impl Place {
    /// Waits until the place is somebody else's. Returns the bound that took it.
    pub(super) async fn taken(&self) -> &'static str {
        self.told.notify.notified().await;
        // Also for whoever else waits for this place.
        self.told.notify.notify_one();
        self.told.bound.get().copied().expect("said before it is told")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pending.lock().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn taken(place: &Place) -> Option<&'static str> {
        place.taken().now_or_never()
    }

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn an_address_takes_places_from_itself_alone() {
        let pending = Pending::new(4, 2);
        let honest = pending.enter(address("192.0.2.1"));
        let greedy: Vec<_> = (1..=10)
            .map(|host| pending.enter(address(&format!("2001:db8::{host}"))))
            .collect();
        let by_address = Some("max_pending_handshakes_per_address");
        for (index, place) in greedy.iter().enumerate() {
            assert_eq!(taken(place), by_address.filter(|_| index < 8), "{index}");
        }
        assert_eq!(taken(&honest), None);

        // Others come, and now the oldest of all yields.
        let _other = pending.enter(address("2001:db8:0:1::1"));
        let _another = pending.enter(address("192.0.2.2"));
        assert_eq!(taken(&honest), Some("max_pending_handshakes"));
    }

    #[test]
    fn a_shared_address_is_not_counted() {
        let pending = Pending::new(3, 1);
        let places = [(); 3].map(|()| pending.enter(None));
        assert_eq!(places.each_ref().map(taken), [None; 3]);
    }

    #[test]
    fn what_is_given_back_is_forgotten() {
        let pending = Pending::new(4, 2);
        for _ in 0..10 {
            let place = pending.enter(address("192.0.2.1"));
            assert_eq!(taken(&place), None);
        }
        let sockets = pending.lock();
        assert!(sockets.waiting.is_empty() && sockets.by_address.is_empty());
    }
}
