//! A histogram that every connection may write to at every delivery.
//!
//! The library's own has one lock, which is taken for each value, by all threads that deliver. Here a thread counts
//! in a part of its own, and a scrape adds the parts up.

use std::{
    array,
    cell::Cell,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

/// How many parts: as many threads count without meeting another. More of them share.
const PARTS: usize = 16;
/// The most buckets, the one without an end among them.
const BUCKETS: usize = 20;

/// Counts values by bucket. Clones count together.
#[derive(Clone)]
pub struct Histogram {
    /// The buckets' upper bounds, ascending.
    bounds: Arc<[f64]>,
    parts: Arc<[Part; PARTS]>,
}

/// What some threads have counted, on cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Part {
    counts: [AtomicU64; BUCKETS],
    /// The bits of an `f64`.
    sum: AtomicU64,
}

impl Histogram {
    /// With these upper bounds, ascending.
    ///
    /// # Panics
    /// When there are more than 19 of them.
    pub fn new(bounds: impl IntoIterator<Item = f64>) -> Self {
        let bounds: Arc<[f64]> = bounds.into_iter().collect();
        assert!(
            bounds.len() < BUCKETS,
            "a histogram has at most {} bounds",
            BUCKETS - 1
        );
        Self {
            bounds,
            parts: Arc::new(array::from_fn(|_| Part::default())),
        }
    }

    /// Counts a value.
    pub fn observe(&self, value: f64) {
        self.gather().observe(value);
    }

    /// Begins to count values by themselves, which are added when that is dropped.
    pub fn gather(&self) -> Gathered<'_> {
        Gathered {
            histogram: self,
            counts: [0; BUCKETS],
            sum: 0.0,
        }
    }
}

/// Values that only one thread counts.
#[derive(Debug)]
pub struct Gathered<'a> {
    histogram: &'a Histogram,
    counts: [u32; BUCKETS],
    sum: f64,
}

impl Gathered<'_> {
    /// Counts a value.
    pub fn observe(&mut self, value: f64) {
        let bucket = self.histogram.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket] += 1;
        self.sum += value;
    }
}

impl Drop for Gathered<'_> {
    fn drop(&mut self) {
        let mut part = None;
        for (bucket, count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let part = part.get_or_insert_with(|| &self.histogram.parts[part_of_this_thread()]);
            part.counts[bucket].fetch_add(u64::from(*count), Relaxed);
        }
        if let Some(part) = part {
            let add = |sum| Some((f64::from_bits(sum) + self.sum).to_bits());
            // It always has a value to store.
            let _ = part.sum.fetch_update(Relaxed, Relaxed, add);
        }
    }
}

/// Threads take the parts in turn, as they come.
fn part_of_this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static PART: Cell<usize> = Cell::new(NEXT.fetch_add(1, Relaxed) % PARTS);
    }
    PART.get()
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let ends = self.bounds.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = ends
            .enumerate()
            .map(|(bucket, end)| {
                let count = |part: &Part| part.counts[bucket].load(Relaxed);
                (end, self.parts.iter().map(count).sum())
            })
            .collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = self
            .parts
            .iter()
            .map(|part| f64::from_bits(part.sum.load(Relaxed)))
            .sum();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Histogram")
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use prometheus_client::{encoding::text, registry::Registry};

    use super::*;

    #[test]
    fn what_threads_count_is_added_up() {
        let histogram = Histogram::new([1.0, 2.0]);
        let mut registry = Registry::default();
        registry.register("waits", "Waits", histogram.clone());
        thread::scope(|scope| {
            for _ in 0..2 * PARTS {
                scope.spawn(|| {
                    for value in [0.5, 1.0, 1.5, 7.0] {
                        histogram.observe(value);
                    }
                });
            }
        });
        let mut page = String::new();
        text::encode(&mut page, &registry).unwrap();
        // A bound belongs to its bucket, and each bucket holds those below it.
        for line in [
            "waits_sum 320.0",
            "waits_count 128",
            "waits_bucket{le=\"1.0\"} 64",
            "waits_bucket{le=\"2.0\"} 96",
            "waits_bucket{le=\"+Inf\"} 128",
        ] {
            assert!(page.lines().any(|found| found == line), "no `{line}` in:\n{page}");
        }
    }
}
