//! What a delivery costs as the work grows: one thing changes, everything else stays.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use crate::{
    contestant::Contestant,
    figures::{Figures, Results, short},
    record::of_results,
    rows::{Bench, QUICK},
    scene::Scene,
    table::markdown,
};

/// A curve: its points, each a scene by its label, and who plays them.
pub(crate) struct Curve {
    pub(crate) title: &'static str,
    /// What changes.
    axis: &'static str,
    contestants: &'static [&'static str],
    points: Vec<(String, Scene)>,
}

/// All curves.
pub(crate) fn all(quick: bool) -> Vec<Curve> {
    let plain = || Scene {
        duration: Duration::from_secs(5),
        ..Scene::default()
    };
    let mut curves = vec![
        Curve {
            title: "sessions: 200 B to everyone, about 50,000 deliveries/s in all",
            axis: "sessions",
            contestants: &["floor", "rivulet"],
            points: [(100, 500), (1_000, 50), (5_000, 10), (15_000, 3)]
                .map(|(sessions, rate)| {
                    let scene = Scene {
                        sessions,
                        rate: Some(rate),
                        ..plain()
                    };
                    (sessions.to_string(), scene)
                })
                .to_vec(),
        },
        Curve {
            title: "patterns: of one session, of which one matches; 1,000 sessions, 50,000 deliveries/s",
            axis: "patterns",
            contestants: &["rivulet"],
            points: [1, 10, 100]
                .map(|patterns| {
                    let others = (1..patterns).map(|number| format!("other{number}.*"));
                    let patterns_of_session: Vec<String> =
                        others.chain(std::iter::once("blob.*".into())).collect();
                    let scene = Scene {
                        patterns: patterns_of_session.join(","),
                        ..plain()
                    };
                    (patterns.to_string(), scene)
                })
                .to_vec(),
        },
        Curve {
            title: "known users: 1,000 sessions here; one user with all of them, then one session a user, then 99 % of the \
                    events for users who are not here",
            axis: "users",
            contestants: &["rivulet"],
            points: [(1, 10), (1_000, 10_000), (100_000, 10_000)]
                .map(|(users, rate)| {
                    let mut scene = Scene {
                        users,
                        rate: Some(rate),
                        each_to_one: true,
                        ..plain()
                    };
                    // One user has all sessions of the first point.
                    scene
                        .router
                        .set
                        .push(("limits.devices_per_user", "100000".into()));
                    (users.to_string(), scene)
                })
                .to_vec(),
        },
        Curve {
            title: "payload: 1,000 sessions, 10,000 deliveries/s",
            axis: "bytes",
            contestants: &["floor", "rivulet"],
            points: [64, 200, 1 << 10, 4 << 10, 16 << 10, 64 << 10]
                .map(|size| {
                    let scene = Scene {
                        size,
                        rate: Some(10),
                        ..plain()
                    };
                    (size.to_string(), scene)
                })
                .to_vec(),
        },
        Curve {
            title: "event types: in turn, 1,000 sessions with one pattern for all, 50,000 deliveries/s",
            axis: "types",
            contestants: &["rivulet"],
            points: [1, 10, 1_000]
                .map(|types| (types.to_string(), Scene { types, ..plain() }))
                .to_vec(),
        },
    ];
    if quick {
        for scene in curves
            .iter_mut()
            .flat_map(|curve| &mut curve.points)
            .map(|(_, scene)| scene)
        {
            scene.sessions = scene.sessions.min(100);
            scene.rate = scene.rate.map(|rate| rate.min(500));
            scene.users = scene.users.min(100);
            scene.duration = QUICK;
        }
    }
    curves
}

/// A curve's results: of each point, those of its contestants.
pub(crate) type Points = Vec<(String, Results)>;

impl Curve {
    /// Plays all points so many times, in turn.
    pub(crate) fn measure(&self, bench: &Bench, repeat: usize) -> anyhow::Result<Points> {
        println!("{}", self.title);
        let nothing = || Results {
            contestants: self
                .contestants
                .iter()
                .map(|name| ((*name).to_owned(), Vec::new()))
                .collect(),
        };
        let mut points: Points = self
            .points
            .iter()
            .map(|(label, _)| (label.clone(), nothing()))
            .collect();
        for _ in 0..repeat {
            for ((label, scene), (_, results)) in self.points.iter().zip(&mut points) {
                for (contestant, repetitions) in &mut results.contestants {
                    let figures = scene
                        .play(&bench.runtime, Contestant::of(contestant)?)
                        .with_context(|| format!("{} {label}, {contestant}", self.axis))?;
                    let value = |name: &str| figures.get(name).unwrap_or(f64::NAN);
                    println!(
                        "   {label:>7} {:<9} {contestant:<8} CPU µs/delivery {} · deliveries/s {}{}",
                        self.axis,
                        short(value("cpu")),
                        short(value("rate")),
                        void(&figures)
                    );
                    repetitions.push(figures);
                }
            }
        }
        Ok(points)
    }

    /// The curve as Markdown.
    pub(crate) fn table(&self, points: &Points) -> String {
        let columns = [
            ("cpu", "CPU µs/delivery"),
            ("user", "user"),
            ("kernel", "kernel"),
            ("event", "CPU µs/event"),
            ("rate", "deliveries/s"),
            ("p99", "p99 ms"),
        ];
        let mut lines = vec![vec![self.axis.to_owned(), String::new()]];
        lines[0].extend(columns.iter().map(|(_, heading)| (*heading).to_owned()));
        for (label, results) in points {
            for (contestant, _) in &results.contestants {
                let cells = columns.iter().map(|(figure, _)| {
                    let spread = results.spread(contestant, figure);
                    spread.map_or(String::new(), |spread| spread.say())
                });
                let head = [label.clone(), contestant.clone()];
                lines.push(head.into_iter().chain(cells).collect());
            }
        }
        let void = points.iter().flat_map(|(label, results)| {
            results
                .void()
                .into_iter()
                .map(move |line| format!("- VOID: {label}: {line}\n"))
        });
        format!(
            "**{}**\n\n{}{}",
            self.title,
            markdown(&lines),
            void.collect::<String>()
        )
    }

    /// The curve as JSON, a row for each point.
    pub(crate) fn json(&self, points: &Points) -> Vec<Value> {
        let rows = points
            .iter()
            .map(|(label, results)| of_results(&format!("{} {label}", self.axis), self.title, results));
        rows.collect()
    }
}

fn void(figures: &Figures) -> String {
    match figures.faults.is_none() {
        true => String::new(),
        false => format!("  VOID: {}", figures.faults.say()),
    }
}
