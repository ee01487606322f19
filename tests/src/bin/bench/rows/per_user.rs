//! Row g: each event to one user.

use std::{sync::OnceLock, time::Duration};

use super::{Bench, Column, QUICK, Row};
use crate::{
    contestant::Contestant,
    figures::Figures,
    goals::{Bound::AtMost, Goal, Measure::Ratio},
    scene::Scene,
};

pub(crate) struct PerUser;

const GOALS: &[Goal] = &[Goal {
    letter: 'g',
    text: "per-user traffic: CPU per delivery, × broadcast",
    measure: Ratio(("rivulet", "cpu"), ("rivulet-broadcast", "cpu")),
    must: Some(AtMost(1.5)),
    aim: Some(AtMost(1.3)),
}];

/// The rate of this run: where NATS, router, publisher and clients share few processors, 50,000 events may be
/// more than they can, and a router that repairs what NATS dropped would be measured instead.
fn highest_rate(bench: &Bench) -> anyhow::Result<u32> {
    static RATE: OnceLock<u32> = OnceLock::new();
    if let Some(rate) = RATE.get() {
        return Ok(*rate);
    }
    let mut rate = 50_000;
    loop {
        let scene = Scene {
            users: 1_000,
            rate: Some(rate),
            duration: Duration::from_secs(2),
            each_to_one: true,
            ..Scene::default()
        };
        let figures = scene.play(&bench.runtime, Contestant::Rivulet)?;
        let held = figures.get("rate").unwrap_or(0.0) > 0.97 * f64::from(rate);
        if held || rate <= 12_500 {
            return Ok(*RATE.get_or_init(|| rate));
        }
        rate /= 2;
    }
}

impl Row for PerUser {
    fn letter(&self) -> char {
        'g'
    }

    fn title(&self) -> &'static str {
        "1,000 users, each event to one of them, 50,000 deliveries/s or as many as the machine can"
    }

    fn reading(&self) -> &'static str {
        "Here a delivery has a NATS message of its own, in the broadcast rivulet-broadcast a thousandth of one. What \
         reading and routing a message costs alone shows rivulet-away: the same events, of which one user of \
         the thousand is here. The floor reads nothing. The rate is the highest \
         of 50,000, 25,000 and 12,500 a second that the router held for two seconds before the row began."
    }

    fn contestants(&self) -> &'static [&'static str] {
        &["floor", "rivulet", "rivulet-broadcast", "rivulet-away"]
    }

    fn columns(&self) -> &'static [Column] {
        &[
            ("cpu", "CPU µs/delivery"),
            ("event", "CPU µs/event"),
            ("user", "user/delivery"),
            ("kernel", "kernel/delivery"),
            ("p50", "p50 ms"),
            ("p99", "p99 ms"),
            ("rate", "deliveries/s"),
            ("nats", "NATS µs/delivery"),
            ("client", "client µs"),
        ]
    }

    fn goals(&self) -> &'static [Goal] {
        GOALS
    }

    fn measure(&self, bench: &Bench, contestant: &str) -> anyhow::Result<Figures> {
        let users = if bench.quick { 50 } else { 1_000 };
        let broadcast = contestant == "rivulet-broadcast";
        let rate = if bench.quick { 2_500 } else { highest_rate(bench)? };
        let mut scene = Scene {
            sessions: users,
            users: if broadcast { 0 } else { users as u64 },
            rate: Some(if broadcast { rate / users as u32 } else { rate }),
            duration: Duration::from_secs(5),
            each_to_one: !broadcast,
            ..Scene::default()
        };
        if contestant == "rivulet-away" {
            scene.sessions = 1;
        }
        if bench.quick {
            scene.duration = QUICK;
        }
        scene.play(&bench.runtime, Contestant::of(contestant)?)
    }
}
