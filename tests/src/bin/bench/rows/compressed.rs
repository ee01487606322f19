//! Row f: 2 KB to everyone, compressed once for all.

use std::time::Duration;

use super::{Bench, Column, QUICK, Row};
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

pub(crate) struct Compressed;

const GOALS: &[Goal] = &[
    Goal {
        letter: 'f',
        text: "2 KB compressed: CPU per delivery, × floor",
        measure: Ratio(("rivulet", "cpu"), ("floor", "cpu")),
        must: Some(AtMost(1.5)),
        aim: None,
    },
    Goal {
        letter: 'f',
        text: "2 KB compressed: CPU per delivery, × uncompressed",
        measure: Ratio(("rivulet", "cpu"), ("rivulet-plain", "cpu")),
        must: None,
        aim: Some(AtMost(1.2)),
    },
    Goal {
        letter: 'f',
        text: "memory per session that negotiated deflate, bytes",
        measure: Value(("rivulet", "memory")),
        must: Some(AtMost(8_000.0)),
        aim: Some(AtMost(6_000.0)),
    },
];

/// Events before the memory is looked at: every session has got some compressed ones.
const HELD: u64 = 20;

impl Row for Compressed {
    fn letter(&self) -> char {
        'f'
    }

    fn title(&self) -> &'static str {
        "1,000 sessions × 2 KB, permessage-deflate, 50,000 deliveries/s"
    }

    fn reading(&self) -> &'static str {
        "The data is words and numbers by chance, of which deflate leaves about half. The floor compresses \
         each event once, at the router's level, and writes that frame to all. Memory is that of 5,000 other sessions \
         after 20 compressed events. No peer here compresses once for all its connections, so none takes part."
    }

    fn contestants(&self) -> &'static [&'static str] {
        &["floor", "rivulet", "rivulet-plain"]
    }

    fn columns(&self) -> &'static [Column] {
        &[
            ("cpu", "CPU µs/delivery"),
            ("user", "user"),
            ("kernel", "kernel"),
            ("wire", "bytes/delivery"),
            ("memory", "bytes/session"),
            ("p99", "p99 ms"),
            ("rate", "deliveries/s"),
            ("client", "client µs"),
        ]
    }

    fn goals(&self) -> &'static [Goal] {
        GOALS
    }

    fn measure(&self, bench: &Bench, contestant: &str) -> anyhow::Result<Figures> {
        let mut scene = Scene {
            size: 2_000,
            deflate: contestant != "rivulet-plain",
            duration: Duration::from_secs(5),
            ..Scene::default()
        };
        if bench.quick {
            scene.sessions = 50;
            scene.duration = QUICK;
        }
        let server = Contestant::of(contestant)?;
        let mut figures = scene.play(&bench.runtime, server)?;
        if contestant == "rivulet" {
            if !bench.quick {
                scene.sessions = 5_000;
            }
            let held = scene.hold(&bench.runtime, server, HELD)?;
            figures.set("memory", held.get("memory").unwrap_or(f64::NAN));
            figures.faults.add(held.faults);
        }
        Ok(figures)
    }
}
