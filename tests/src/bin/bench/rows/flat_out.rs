//! Row c: as fast as it goes.

use std::time::Duration;

use super::{Bench, Column, QUICK, Row};
use crate::{
    contestant::Contestant,
    figures::Figures,
    goals::{
        Bound::AtLeast,
        Goal,
        Measure::{Ratio, Value},
    },
    scene::Scene,
};

pub(crate) struct FlatOut;

const fn ratio(text: &'static str, to: &'static str, must: Option<f64>, aim: Option<f64>) -> Goal {
    Goal {
        letter: 'c',
        text,
        measure: Ratio(("rivulet", "rate"), (to, "rate")),
        must: match must {
            Some(least) => Some(AtLeast(least)),
            None => None,
        },
        aim: match aim {
            Some(least) => Some(AtLeast(least)),
            None => None,
        },
    }
}

const GOALS: &[Goal] = &[
    Goal {
        letter: 'c',
        text: "deliveries a second",
        measure: Value(("rivulet", "rate")),
        must: Some(AtLeast(1.5e6)),
        aim: Some(AtLeast(2.5e6)),
    },
    ratio(
        "deliveries a second, × nats-server",
        "nats-server",
        Some(4.0),
        None,
    ),
    ratio("deliveries a second, × ws", "ws", Some(20.0), None),
    ratio("deliveries a second, × Socket.IO", "socket.io", Some(20.0), None),
    ratio("deliveries a second, × Bun", "bun", None, Some(1.5)),
];

impl Row for FlatOut {
    fn letter(&self) -> char {
        'c'
    }

    fn title(&self) -> &'static str {
        "1,000 sessions × 200 B flat out, 64 events under way, two workers"
    }

    fn reading(&self) -> &'static str {
        "Event n is sent once all clients have event n − 64. Every server runs on processors 0 and 1 alone, the router \
         and the floor with two threads; clients, publisher and the router's NATS run where there is room. The router's \
         events come through JetStream, at a few thousand a second: its cost does not count here."
    }

    fn contestants(&self) -> &'static [&'static str] {
        &["floor", "rivulet", "bun", "nats-server", "ws", "socket.io"]
    }

    fn columns(&self) -> &'static [Column] {
        &[
            ("rate", "deliveries/s"),
            ("cores", "cores used"),
            ("cpu", "CPU µs/delivery"),
            ("user", "user"),
            ("kernel", "kernel"),
            ("client", "client µs"),
            ("busiest", "client busy"),
        ]
    }

    fn goals(&self) -> &'static [Goal] {
        GOALS
    }

    fn measure(&self, bench: &Bench, contestant: &str) -> anyhow::Result<Figures> {
        let mut scene = Scene {
            rate: None,
            duration: Duration::from_secs(3),
            ..Scene::default()
        };
        scene.router.workers = Some(2);
        if bench.quick {
            scene.sessions = 50;
            scene.duration = QUICK;
        }
        scene.play(&bench.runtime, Contestant::of(contestant)?)
    }
}
