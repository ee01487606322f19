//! How many messages one session may send.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::Quota;
use tokio::time::Instant;

use super::Limiter;
use crate::config::{Limits, Rate};

/// For how long after its start a session's `subscribe` and `unsubscribe` are not charged: a plain client sends
/// one `subscribe` for each of its handlers in `onopen`.
pub const FREE_SUBSCRIBE: Duration = Duration::from_secs(10);

/// Which rate a message counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// `ping`
    Ping,
    /// `subscribe` and `unsubscribe`
    Subscribe,
    /// Everything else.
    Other,
}

/// The rates of one session.
#[derive(Debug)]
pub struct Rates {
    ping: Limiter,
    subscribe: Limiter,
    other: Limiter,
    bad: Option<Limiter>,
    subscribe_is_free_until: Instant,
}

impl Rates {
    /// Rates of a session that starts now, all unspent.
    pub fn new(limits: &Limits, now: Instant) -> Self {
        let limiter = |rate: Rate| Limiter::new(quota(rate), now);
        Self {
            ping: limiter(limits.ping),
            subscribe: limiter(limits.subscribe),
            other: limiter(limits.other),
            bad: NonZeroU32::new(limits.bad_messages_per_minute)
                .map(|allowed| Limiter::new(Quota::per_minute(allowed), now)),
            subscribe_is_free_until: now + FREE_SUBSCRIBE,
        }
    }

    /// Charges one message.
    ///
    /// # Errors
    /// How long to wait, where the session has sent too many: answer `RATE_LIMITED` with it as `retry_after`.
    pub fn charge(&self, charge: Charge, now: Instant) -> Result<(), Duration> {
        match charge {
            Charge::Ping => self.ping.take(now),
            Charge::Subscribe if now < self.subscribe_is_free_until => Ok(()),
            Charge::Subscribe => self.subscribe.take(now),
            Charge::Other => self.other.take(now),
        }
    }

    /// Counts a message that was answered with an error of the client's making (one over its rate is such, too:
    /// that is what ends a flood).
    ///
    /// # Errors
    /// [`TooManyBadMessages`] where the session is to be closed.
    pub fn bad_message(&self, now: Instant) -> Result<(), TooManyBadMessages> {
        let bad = self.bad.as_ref().ok_or(TooManyBadMessages)?;
        bad.take(now).map_err(|_| TooManyBadMessages)
    }
}

/// More bad messages in a minute than a session may send: close it with 1008.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many bad messages")]
pub struct TooManyBadMessages;

/// The configuration promises at least 1 of each.
fn quota(rate: Rate) -> Quota {
    let at_least_one = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
    Quota::per_second(at_least_one(rate.per_second)).allow_burst(at_least_one(rate.burst))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits() -> Limits {
        Limits {
            devices_per_user: 5,
            connections_per_address: 100,
            handshakes_per_address: 20,
            max_patterns: 100,
            max_message_bytes: 65_536,
            bad_messages_per_minute: 10,
            ping: Rate {
                burst: 120,
                per_second: 2,
            },
            subscribe: Rate {
                burst: 30,
                per_second: 1,
            },
            other: Rate {
                burst: 60,
                per_second: 10,
            },
        }
    }

    fn accepted(rates: &Rates, charge: Charge, now: Instant) -> usize {
        (0..1_000)
            .take_while(|_| rates.charge(charge, now).is_ok())
            .count()
    }

    #[test]
    fn each_kind_has_its_burst_and_its_rate() {
        let start = Instant::now();
        let rates = Rates::new(&limits(), start);
        let later = start + FREE_SUBSCRIBE;
        for (charge, burst, per_second) in [
            (Charge::Ping, 120, 2),
            (Charge::Subscribe, 30, 1),
            (Charge::Other, 60, 10),
        ] {
            assert_eq!(accepted(&rates, charge, later), burst, "{charge:?}");
            assert_eq!(
                accepted(&rates, charge, later + SECOND),
                per_second,
                "{charge:?} a second later"
            );
        }
    }

    #[test]
    fn subscribing_is_free_at_first() {
        let start = Instant::now();
        let rates = Rates::new(&limits(), start);
        assert_eq!(
            accepted(&rates, Charge::Subscribe, start + FREE_SUBSCRIBE - SECOND),
            1_000
        );
        assert_eq!(accepted(&rates, Charge::Subscribe, start + FREE_SUBSCRIBE), 30);
    }

    #[test]
    fn waiting_as_long_as_told_is_enough() {
        let start = Instant::now();
        let rates = Rates::new(&limits(), start);
        accepted(&rates, Charge::Other, start);
        let wait = rates.charge(Charge::Other, start).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        assert!(
            rates
                .charge(Charge::Other, start + wait - Duration::from_nanos(1))
                .is_err()
        );
        assert!(rates.charge(Charge::Other, start + wait).is_ok());
    }

    #[test]
    fn the_eleventh_bad_message_in_a_minute_ends_it() {
        let start = Instant::now();
        let rates = Rates::new(&limits(), start);
        for _ in 0..10 {
            assert_eq!(rates.bad_message(start), Ok(()));
        }
        assert_eq!(rates.bad_message(start), Err(TooManyBadMessages));
        assert_eq!(rates.bad_message(start + 6 * SECOND), Ok(()));
    }
}
