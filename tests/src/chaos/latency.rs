//! How long events take from the publisher to the client, as many tasks see it at once.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Steps in which a time doubles: each is 4.4 % wide.
const STEPS: f64 = 16.0;
/// Up to 2^30 microseconds.
const BUCKETS: usize = 16 * 30;

/// Latencies, in microseconds, by ratio.
#[derive(Debug)]
pub struct Latency {
    buckets: [AtomicU64; BUCKETS],
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }
}

/// Now, in microseconds since 1970: publishers write it into the data.
pub fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_micros() as u64
}

impl Latency {
    /// Notes an event that was made at `made`.
    pub fn note(&self, made: u64) {
        let took = now().saturating_sub(made).max(1) as f64;
        let bucket = ((took.log2() * STEPS) as usize).min(BUCKETS - 1);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
    }

    /// Below which time this share of all lies, since it was last asked; and forgets them.
    pub fn take_quantile(&self, share: f64) -> Duration {
        let counts: Vec<u64> = self
            .buckets
            .iter()
            .map(|bucket| bucket.swap(0, Ordering::Relaxed))
            .collect();
        let wanted = (counts.iter().sum::<u64>() as f64 * share) as u64;
        let mut seen = 0;
        for (bucket, count) in counts.iter().enumerate() {
            seen += count;
            if seen > wanted {
                return Duration::from_micros(((bucket + 1) as f64 / STEPS).exp2() as u64);
            }
        }
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_right_to_some_percent() {
        let latency = Latency::default();
        let now = now();
        for milliseconds in 1..=1000 {
            latency.note(now - milliseconds * 1000);
        }
        let p90 = latency.take_quantile(0.9).as_secs_f64();
        assert!((0.85..1.05).contains(&p90), "{p90}");
        assert_eq!(latency.take_quantile(0.9), Duration::ZERO);
    }
}
