//! What came of a scenario: one line, and whether it is red.

use std::{fmt, time::Duration};

use serde_json::{Value, json};

use super::verdict::Tally;

/// The figures of one run of a scenario.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The scenario.
    pub scenario: &'static str,
    /// What its chances were drawn from.
    pub seed: u64,
    /// The fault that was planted, or none.
    pub plant: Option<String>,
    /// Events in the stream.
    pub events: usize,
    /// Clients.
    pub clients: usize,
    /// Faults, planned and done.
    pub faults: u64,
    /// What the clients saw, beside what they should have seen.
    pub tally: Tally,
    /// The first thing that is wrong with them, in words.
    pub finding: Option<String>,
    /// Whether a gap is what has to come here.
    pub gaps_belong: bool,
    /// Whatever else is wrong.
    pub problems: Vec<String>,
    /// Figures of the scenario's own.
    pub figures: Vec<(&'static str, String)>,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    /// Why it is red; empty when it is green.
    pub fn complaints(&self) -> Vec<String> {
        let tally = &self.tally;
        let counted = [
            ("lost", tally.lost),
            ("twice after the rule", tally.twice),
            ("reordered", tally.reordered),
            ("foreign", tally.foreign),
            ("gaps", if self.gaps_belong { 0 } else { tally.gaps }),
        ];
        let counted = counted.into_iter().filter(|(_, count)| *count > 0);
        let mut complaints: Vec<String> = counted.map(|(name, count)| format!("{count} {name}")).collect();
        if tally.expected == 0 {
            complaints.push("nothing was expected: the run shows nothing".to_owned());
        }
        if !complaints.is_empty() {
            complaints.extend(self.finding.iter().map(|finding| format!("the first: {finding}")));
        }
        complaints.extend(self.problems.iter().cloned());
        complaints
    }

    /// Whether it shows a fault.
    pub fn is_red(&self) -> bool {
        !self.complaints().is_empty()
    }

    /// All of it, for a machine.
    pub fn json(&self) -> Value {
        let tally = &self.tally;
        let figures: serde_json::Map<String, Value> = self
            .figures
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect();
        json!({
            "scenario": self.scenario,
            "seed": self.seed,
            "plant": self.plant,
            "events": self.events,
            "clients": self.clients,
            "faults": self.faults,
            "expected": tally.expected,
            "delivered": tally.delivered,
            "lost": tally.lost,
            "twice_on_wire": tally.twice_on_wire,
            "twice": tally.twice,
            "reordered": tally.reordered,
            "foreign": tally.foreign,
            "gaps": tally.gaps,
            "gapped": tally.gapped,
            "bound": bound(tally.expected),
            "figures": figures,
            "complaints": self.complaints(),
            "seconds": self.took.as_secs_f64(),
        })
    }
}

/// What zero in `trials` says: the share lies below this, at 95 %.
fn bound(trials: u64) -> f64 {
    3.0 / trials.max(1) as f64
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tally = &self.tally;
        // Zero is only as good as the number of chances that it had.
        let of = |count: u64| match count {
            0 => format!("0 (<{:.1e})", bound(tally.expected)),
            count => count.to_string(),
        };
        write!(
            formatter,
            "{}: {} events, {} clients, {} faults, seed {}",
            self.scenario, self.events, self.clients, self.faults, self.seed
        )?;
        if let Some(plant) = &self.plant {
            write!(formatter, ", planted {plant}")?;
        }
        write!(
            formatter,
            " | of {} due: lost {}, twice {} (wire {}), reordered {}, foreign {}, gaps {} (of {} events)",
            tally.expected,
            of(tally.lost),
            of(tally.twice),
            tally.twice_on_wire,
            of(tally.reordered),
            of(tally.foreign),
            tally.gaps,
            tally.gapped,
        )?;
        for (name, value) in &self.figures {
            write!(formatter, " | {name} {value}")?;
        }
        write!(formatter, " | {:.1} s | ", self.took.as_secs_f64())?;
        match self.complaints().as_slice() {
            [] => formatter.write_str("GREEN"),
            complaints => write!(formatter, "RED: {}", complaints.join("; ")),
        }
    }
}
