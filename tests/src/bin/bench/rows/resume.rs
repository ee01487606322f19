//! Row h: sessions that come back for what they missed, out of memory.

use std::time::Instant;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{Bench, Column, Row};
use crate::{
    client::{Crowd, Dialect, Due, Guests, TEXT, frame},
    event::Padding,
    figures::Figures,
    goals::{Bound::AtLeast, Goal, Measure},
    publish::{Published, Publisher, To},
    router::{Router, Session, Setup},
};

pub(crate) struct Resume;

const GOALS: &[Goal] = &[Goal {
    letter: 'h',
    text: "resumes from memory, 100 events each, a second and core",
    measure: Measure::Value(("rivulet", "resumes")),
    must: Some(AtLeast(5_000.0)),
    aim: Some(AtLeast(20_000.0)),
}];

/// Events that each session gets back.
const MISSED: u64 = 100;
/// Events before them, which it has.
const HAD: u64 = 20;
/// Bytes of an event's data.
const SIZE: usize = 200;

impl Row for Resume {
    fn letter(&self) -> char {
        'h'
    }

    fn title(&self) -> &'static str {
        "5,000 sessions resume at once, 100 events of 200 B each, from memory"
    }

    fn reading(&self) -> &'static str {
        "The sessions stand, then each sends `resume` in one moment. What counts is the router's CPU from there until \
         all have all of it: arrays made for each, as `rivulet.v1` clients get them in a replay. The accept is not in \
         it (row i)."
    }

    fn contestants(&self) -> &'static [&'static str] {
        &["rivulet"]
    }

    fn columns(&self) -> &'static [Column] {
        &[
            ("resumes", "resumes/s and core"),
            ("cpu", "CPU µs/resume"),
            ("user", "user"),
            ("kernel", "kernel"),
            ("seconds", "seconds in all"),
        ]
    }

    fn goals(&self) -> &'static [Goal] {
        GOALS
    }

    fn measure(&self, bench: &Bench, _contestant: &str) -> anyhow::Result<Figures> {
        let sessions = if bench.quick { 50 } else { 5_000 };
        let router = Router::start(&bench.runtime, &Setup::default())?;
        let published = Published {
            to: To::Everyone,
            rate: 2_000,
            size: SIZE,
            padding: Padding::Plain,
            types: 1,
            durable: true,
        };
        let publisher = Publisher::start(
            &bench.runtime,
            router.publishing_client(&bench.runtime),
            published,
        );
        let grant = publisher.grants();
        grant(HAD + MISSED);
        drop(grant);
        publisher.end(&bench.runtime)?;

        let guests = |sessions: usize| Guests {
            address: router.address,
            dialect: Dialect::Rivulet,
            requests: (0..sessions)
                .map(|number| {
                    Session {
                        patterns: "",
                        arrays: true,
                        deflate: false,
                    }
                    .request(&format!("user-{number}"))
                })
                .collect(),
            due: vec![Due {
                first: HAD,
                stride: 1,
            }],
            size: SIZE,
            warm_up: 0,
        };
        // What is acknowledged is stored; dispatched it is a moment later.
        let limit = Instant::now() + rivulet_tests::PATIENCE;
        let stream = loop {
            let connected: Value = serde_json::from_str(&Crowd::connect(guests(1))?.greeting)?;
            if connected["data"]["seq"] == HAD + MISSED {
                let stream = connected["data"]["stream"].as_str();
                break stream.context("`connected` names no stream")?.to_owned();
            }
            anyhow::ensure!(
                Instant::now() < limit,
                "the router does not dispatch: {connected}"
            );
        };
        let crowd = Crowd::connect(guests(sessions))?;
        let resume = json!({ "type": "resume", "stream": stream, "seq": HAD, "events": ["blob.*"] });
        let before = router.server.cpu()?;
        let begin = Instant::now();
        crowd.begin(Some(frame(TEXT, resume.to_string().as_bytes())), None);
        crowd.wait_for(crowd.deliveries(HAD + MISSED));
        let cpu = router.server.cpu()?.since(before);
        let seconds = begin.elapsed().as_secs_f64();

        let mut figures = Figures::default();
        figures.faults = crowd.end(HAD + MISSED)?.faults;
        let from_memory = router.metric(&bench.runtime, r#"rivulet_resumes_total{past="memory"}"#)?;
        anyhow::ensure!(
            from_memory == sessions as f64,
            "{from_memory} of {sessions} resumed from memory"
        );
        figures.per(sessions, "resumes", cpu);
        figures.set("seconds", seconds);
        Ok(figures)
    }
}
