//! Row i: connections, from the TCP handshake until the session stands.

use std::time::Instant;

use super::{Bench, Column, Row};
use crate::{
    client::{Crowd, Dialect, Due, Guests},
    figures::Figures,
    goals::{Bound::AtLeast, Goal, Measure::Value},
    router::{Router, Session, Setup},
};

pub(crate) struct Accept;

const GOALS: &[Goal] = &[
    Goal {
        letter: 'i',
        text: "accepts with token checked, a second and core",
        measure: Value(("rivulet", "accepts")),
        must: Some(AtLeast(2_000.0)),
        aim: Some(AtLeast(5_000.0)),
    },
    Goal {
        letter: 'i',
        text: "the same token again",
        measure: Value(("rivulet-same", "accepts")),
        must: None,
        aim: None,
    },
];

impl Row for Accept {
    fn letter(&self) -> char {
        'i'
    }

    fn title(&self) -> &'static str {
        "5,000 accepts, HS256 token checked, one pattern each"
    }

    fn reading(&self) -> &'static str {
        "The router's CPU from the first TCP handshake until the last client has its `connected`, all of them staying. \
         rivulet: users and tokens all different; rivulet-same: one token again and again, its user with as many devices."
    }

    fn contestants(&self) -> &'static [&'static str] {
        &["rivulet", "rivulet-same"]
    }

    fn columns(&self) -> &'static [Column] {
        &[
            ("accepts", "accepts/s and core"),
            ("cpu", "CPU µs/accept"),
            ("user", "user"),
            ("kernel", "kernel"),
            ("seconds", "seconds in all"),
        ]
    }

    fn goals(&self) -> &'static [Goal] {
        GOALS
    }

    fn measure(&self, bench: &Bench, contestant: &str) -> anyhow::Result<Figures> {
        let sessions = if bench.quick { 50 } else { 5_000 };
        let same = contestant == "rivulet-same";
        let mut setup = Setup::default();
        if same {
            setup.set.push(("limits.devices_per_user", "100000".into()));
        }
        let router = Router::start(&bench.runtime, &setup)?;
        let session = Session::default();
        let mut requests = Vec::with_capacity(sessions);
        for number in 0..sessions {
            let request = match requests.first() {
                Some(first) if same => Clone::clone(first),
                _ => session.request(&format!("user-{number}")),
            };
            requests.push(request);
        }
        let guests = Guests {
            address: router.address,
            dialect: Dialect::Rivulet,
            requests,
            due: vec![Due::ALL],
            size: 0,
            warm_up: 0,
        };
        let before = router.server.cpu()?;
        let begin = Instant::now();
        let crowd = Crowd::connect(guests)?;
        let cpu = router.server.cpu()?.since(before);
        let seconds = begin.elapsed().as_secs_f64();

        crowd.begin(None, None);
        let mut figures = Figures::default();
        figures.faults = crowd.end(0)?.faults;
        figures.per(sessions, "accepts", cpu);
        figures.set("seconds", seconds);
        Ok(figures)
    }
}
