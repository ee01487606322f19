//! Rates and counts: per address, per user, per session. Whatever a stranger can make grow is counted here, and
//! what counts it is itself bounded.
//!
//! - [`address`]: who a connection comes from, and how much may come from there;
//! - [`seats`]: how many sessions a user has, and which one yields;
//! - [`fleet`]: the same over all nodes;
//! - [`rates`]: how many messages a session may send.
//!
//! It reads no clock (every `now` is handed in) and knows nothing of what it limits. Rates and counts are those of
//! this node; only seats are shared.

pub mod address;
pub mod fleet;
pub mod rates;
pub mod seats;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use tokio::time::Instant;

/// One rate, by the time that its caller says it is.
#[derive(Debug)]
struct Limiter(RateLimiter<NotKeyed, InMemoryState, HandedClock, NoOpMiddleware<Duration>>);

impl Limiter {
    fn new(quota: Quota, now: Instant) -> Self {
        let clock = HandedClock {
            origin: now,
            nanoseconds: AtomicU64::new(0),
        };
        Self(RateLimiter::new(quota, InMemoryState::default(), clock))
    }

    /// Takes one, or says how long to wait for it.
    fn take(&self, now: Instant) -> Result<(), Duration> {
        let now = self.0.clock().set(now);
        self.0.check().map_err(|not_until| not_until.wait_time_from(now))
    }
}

/// The clock of a [`Limiter`]: where its caller last set it.
#[derive(Debug)]
struct HandedClock {
    origin: Instant,
    nanoseconds: AtomicU64,
}

impl HandedClock {
    fn set(&self, now: Instant) -> Duration {
        let elapsed = now.saturating_duration_since(self.origin);
        // 2^64 nanoseconds are 584 years.
        self.nanoseconds
            .store(elapsed.as_nanos() as u64, Ordering::Relaxed);
        elapsed
    }
}

impl Clock for HandedClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed))
    }
}
