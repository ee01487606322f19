//! The targets, as data: what a row must reach and what it aims at.

use serde_json::{Value, json};

use crate::figures::{Results, Spread, short};

/// A figure of a contestant.
pub(crate) type Of = (&'static str, &'static str);

/// Which figure is held to a target.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Measure {
    Value(Of),
    Ratio(Of, Of),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// A target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    /// Its letter in the table of targets.
    pub(crate) letter: char,
    pub(crate) text: &'static str,
    pub(crate) measure: Measure,
    pub(crate) must: Option<Bound>,
    pub(crate) aim: Option<Bound>,
}

impl Bound {
    fn met(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }

    fn say(self) -> String {
        match self {
            Self::AtMost(most) => format!("≤ {}", short(most)),
            Self::AtLeast(least) => format!("≥ {}", short(least)),
        }
    }

    /// The target, and whether the median meets it or by how much it does not.
    fn verdict(self, value: f64) -> String {
        let (Self::AtMost(bound) | Self::AtLeast(bound)) = self;
        match self.met(value) {
            true => format!("{}: met", self.say()),
            false => format!(
                "{}: missed by {:.0} %",
                self.say(),
                (value / bound - 1.0).abs() * 100.0
            ),
        }
    }
}

/// A target beside what was measured.
pub(crate) struct Verdict {
    pub(crate) letter: char,
    pub(crate) text: &'static str,
    pub(crate) measured: Spread,
    pub(crate) must: String,
    pub(crate) aim: String,
    must_met: Option<bool>,
    aim_met: Option<bool>,
}

impl Verdict {
    pub(crate) fn json(&self) -> Value {
        json!({
            "row": self.letter.to_string(),
            "figure": self.text,
            "median": self.measured.median,
            "least": self.measured.least,
            "most": self.measured.most,
            "must": self.must,
            "must_met": self.must_met,
            "aim": self.aim,
            "aim_met": self.aim_met,
        })
    }
}

impl Goal {
    /// `None` where a contestant that it needs did not take part.
    pub(crate) fn verdict(&self, results: &Results) -> Option<Verdict> {
        let measured = match self.measure {
            Measure::Value((contestant, figure)) => results.spread(contestant, figure),
            Measure::Ratio(of, to) => results.ratio(of, to),
        }?;
        let say = |bound: Option<Bound>| bound.map_or(String::new(), |bound| bound.verdict(measured.median));
        let met = |bound: Option<Bound>| bound.map(|bound| bound.met(measured.median));
        Some(Verdict {
            letter: self.letter,
            text: self.text,
            measured,
            must: say(self.must),
            aim: say(self.aim),
            must_met: met(self.must),
            aim_met: met(self.aim),
        })
    }
}
