//! Row b: each event to everyone, joined over 10 ms.

use std::time::Duration;

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

pub(crate) struct Batched;

const GOALS: &[Goal] = &[
    Goal {
        letter: 'b',
        text: "CPU per delivery, µs",
        measure: Value(("rivulet", "cpu")),
        must: Some(AtMost(2.0)),
        aim: Some(AtMost(1.4)),
    },
    Goal {
        letter: 'b',
        text: "CPU per delivery, × floor",
        measure: Ratio(("rivulet", "cpu"), ("floor", "cpu")),
        must: None,
        aim: None,
    },
];

impl Row for Batched {
    fn letter(&self) -> char {
        'b'
    }

    fn title(&self) -> &'static str {
        "1,000 sessions × 200 B, batched over 10 ms, 500,000 deliveries/s"
    }

    fn reading(&self) -> &'static str {
        "The router lingers 10 ms (`sessions.linger`) and writes what has come up: plain clients get frames in one \
         vectored write, `rivulet.v1` clients (rivulet-v1) one array made for each. The floor writes its frames as one \
         prepared buffer. ws and Socket.IO send one message that holds the events as an array, Bun publishes them in \
         one turn of its loop, which joins them. nats-server has nothing to set and is left out."
    }

    fn contestants(&self) -> &'static [&'static str] {
        &["floor", "rivulet", "rivulet-v1", "bun", "ws", "socket.io"]
    }

    fn columns(&self) -> &'static [Column] {
        AT_A_RATE
    }

    fn goals(&self) -> &'static [Goal] {
        GOALS
    }

    fn measure(&self, bench: &Bench, contestant: &str) -> anyhow::Result<Figures> {
        let mut scene = Scene {
            rate: Some(500),
            duration: Duration::from_secs(4),
            batch: Some(Duration::from_millis(10)),
            arrays: contestant == "rivulet-v1",
            ..Scene::default()
        };
        scene.router.set.push(("sessions.linger", "10ms".into()));
        if bench.quick {
            scene.sessions = 50;
            scene.duration = QUICK;
        }
        scene.play(&bench.runtime, Contestant::of(contestant)?)
    }
}
