//! Row d: what a session holds while nothing happens.

use super::{Bench, Column, Row};
use crate::{
    contestant::Contestant,
    figures::Figures,
    goals::{Bound::AtMost, Goal, Measure::Value},
    scene::Scene,
};

pub(crate) struct Idle;

const GOALS: &[Goal] = &[Goal {
    letter: 'd',
    text: "memory per idle session, bytes",
    measure: Value(("rivulet", "memory")),
    must: Some(AtMost(6_000.0)),
    aim: Some(AtMost(4_000.0)),
}];

impl Row for Idle {
    fn letter(&self) -> char {
        'd'
    }

    fn title(&self) -> &'static str {
        "memory per idle session with one pattern, 5,000 sessions"
    }

    fn reading(&self) -> &'static str {
        "Anonymous memory of the process (smaps_rollup) with the sessions, less that without, once it no longer moves. \
         What the kernel holds for a socket is not in it, for none of them."
    }

    fn contestants(&self) -> &'static [&'static str] {
        &["floor", "rivulet", "bun", "ws", "nats-server", "socket.io"]
    }

    fn columns(&self) -> &'static [Column] {
        &[("memory", "bytes/session"), ("base", "MB without")]
    }

    fn goals(&self) -> &'static [Goal] {
        GOALS
    }

    fn measure(&self, bench: &Bench, contestant: &str) -> anyhow::Result<Figures> {
        let mut scene = Scene {
            sessions: 5_000,
            ..Scene::default()
        };
        if bench.quick {
            scene.sessions = 50;
        }
        scene.hold(&bench.runtime, Contestant::of(contestant)?, 0)
    }
}
