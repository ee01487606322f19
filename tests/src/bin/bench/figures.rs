//! What a run came to, and what many runs say together.

use std::collections::BTreeMap;

use crate::{client::Faults, server::Cpu};

/// The figures of one contestant in one repetition, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    values: BTreeMap<&'static str, f64>,
    pub(crate) faults: Faults,
    /// What a reader must know of this run.
    pub(crate) remarks: Vec<String>,
}

impl Figures {
    /// Sets a figure; one that came to nothing, as a ratio to no time at all, is none.
    pub(crate) fn set(&mut self, name: &'static str, value: f64) {
        if value.is_finite() {
            self.values.insert(name, value);
        }
    }

    /// What `times` of something took of the server: microseconds each, and how many a second and core.
    pub(crate) fn per(&mut self, times: usize, name: &'static str, cpu: Cpu) {
        let times = times as f64;
        self.set(name, times / cpu.total().as_secs_f64());
        self.set("cpu", cpu.total().as_secs_f64() * 1e6 / times);
        self.set("user", cpu.user.as_secs_f64() * 1e6 / times);
        self.set("kernel", cpu.kernel.as_secs_f64() * 1e6 / times);
    }

    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.values.get(name).copied()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, f64)> {
        self.values.iter().map(|(name, value)| (*name, *value))
    }
}

/// Median, least and most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// Of at least one value.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        Some(Self { median, least, most })
    }

    /// `1.31 (1.29–1.40)`; without the spread where there is none.
    pub(crate) fn say(self) -> String {
        let Self { median, least, most } = self;
        if least == most {
            return short(median);
        }
        format!("{} ({}–{})", short(median), short(least), short(most))
    }
}

/// A number with about three digits that count.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        0.0..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        100.0..100_000.0 => format!("{value:.0}"),
        100_000.0..1e6 => format!("{:.0} k", value / 1e3),
        _ => format!("{:.2} M", value / 1e6),
    }
}

/// One row of the matrix after some repetitions: of each contestant its figures, in order.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) contestants: Vec<(String, Vec<Figures>)>,
}

impl Results {
    pub(crate) fn of(&self, contestant: &str) -> &[Figures] {
        self.contestants
            .iter()
            .find(|(name, _)| name == contestant)
            .map_or(&[], |(_, figures)| figures)
    }

    pub(crate) fn spread(&self, contestant: &str, figure: &str) -> Option<Spread> {
        Spread::of(self.of(contestant).iter().filter_map(|one| one.get(figure)))
    }

    /// Of one contestant's figure to another's, each pair from one repetition.
    pub(crate) fn ratio(&self, of: (&str, &str), to: (&str, &str)) -> Option<Spread> {
        let pairs = self.of(of.0).iter().zip(self.of(to.0));
        Spread::of(pairs.filter_map(|(one, other)| {
            let below = other.get(to.1)?;
            (below > 0.0).then_some(one.get(of.1)? / below)
        }))
    }

    /// What was wrong, of every run in which anything was.
    pub(crate) fn void(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, repetitions) in &self.contestants {
            for (at, figures) in repetitions.iter().enumerate() {
                if !figures.faults.is_none() {
                    lines.push(format!("{name}, repetition {}: {}", at + 1, figures.faults.say()));
                }
            }
        }
        lines
    }
}
