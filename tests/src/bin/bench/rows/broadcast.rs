//! Rows a and e: each event to everyone, one by one.

use super::{AT_A_RATE, Bench, Column, QUICK, Row};
use crate::{
    contestant::Contestant,
    figures::Figures,
    goals::{
        Bound::AtMost,
        Goal,
        Measure::{Ratio, Value},
    },
    scene::Scene,
};

pub(crate) struct Broadcast;

const GOALS: &[Goal] = &[
    Goal {
        letter: 'a',
        text: "CPU per delivery, × floor",
        measure: Ratio(("rivulet", "cpu"), ("floor", "cpu")),
        must: Some(AtMost(1.35)),
        aim: Some(AtMost(1.2)),
    },
    Goal {
        letter: 'a',
        text: "user part of it, µs",
        measure: Value(("rivulet", "user")),
        must: Some(AtMost(2.5)),
        aim: None,
    },
    Goal {
        letter: 'a',
        text: "CPU per delivery, × Bun",
        measure: Ratio(("rivulet", "cpu"), ("bun", "cpu")),
        must: None,
        aim: Some(AtMost(1.0)),
    },
    Goal {
        letter: 'e',
        text: "p99, × floor",
        measure: Ratio(("rivulet", "p99"), ("floor", "p99")),
        must: Some(AtMost(1.3)),
        aim: Some(AtMost(1.1)),
    },
    Goal {
        letter: 'e',
        text: "p99, × nats-server",
        measure: Ratio(("rivulet", "p99"), ("nats-server", "p99")),
        must: Some(AtMost(0.5)),
        aim: None,
    },
];

impl Row for Broadcast {
    fn letter(&self) -> char {
        'a'
    }

    fn title(&self) -> &'static str {
        "1,000 sessions × 200 B, one by one, 50,000 deliveries/s"
    }

    fn reading(&self) -> &'static str {
        "The router checks tokens, filters by user and pattern, keeps its limits, and gets its events through NATS \
         and JetStream, which is in its latency; floor and peers make theirs in their own process, nats-server gets \
         them by core NATS."
    }

    fn contestants(&self) -> &'static [&'static str] {
        &["floor", "rivulet", "bun", "ws", "nats-server", "socket.io"]
    }

    fn columns(&self) -> &'static [Column] {
        AT_A_RATE
    }

    fn goals(&self) -> &'static [Goal] {
        GOALS
    }

    fn measure(&self, bench: &Bench, contestant: &str) -> anyhow::Result<Figures> {
        let mut scene = Scene::default();
        if bench.quick {
            scene.sessions = 50;
            scene.duration = QUICK;
        }
        scene.play(&bench.runtime, Contestant::of(contestant)?)
    }
}
