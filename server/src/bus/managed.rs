//! Whose configuration a stream has: the marks that a managing router leaves in the stream's metadata.
//!
//! The rule, so that nodes never overwrite each other in silence: a router with `stream.manage` that makes or
//! alters the stream writes down the settings it applied; one that finds other settings written down does not
//! start, and names what differs. `stream.take_over` lets it go on and write its own, which is how a deployment
//! changes its settings: one node's start with it, then all others' with the same settings. Without
//! `stream.manage` a stream that exists is never altered, and nothing is compared.
//!
//! JetStream has no way to alter a stream only if nobody else has meanwhile: of two configurations that meet a
//! stream without marks within the same round trip, the later one wins.

use std::collections::HashMap;

use crate::config;

/// Before each mark's name in the metadata.
const PREFIX: &str = "rivulet.";

/// What a configuration says of its stream: each key without its table, and its value as one writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings([(&'static str, String); 7]);

impl Settings {
    pub(super) fn new(config: &config::Stream, subjects: &[&str]) -> Self {
        // In one order, as two nodes may name the same sources in two.
        let mut subjects = subjects.to_vec();
        subjects.sort_unstable();
        let absent = || "absent".to_owned();
        Self([
            ("sources", subjects.join(" ")),
            ("max_age", config::duration_text(config.max_age)),
            (
                "max_bytes",
                config.max_bytes.map_or_else(absent, config::size_text),
            ),
            (
                "replicas",
                config
                    .replicas
                    .map_or_else(absent, |replicas| replicas.to_string()),
            ),
            ("duplicate_window", config::duration_text(config.duplicate_window)),
            ("republish_prefix", config.republish_prefix.clone()),
            (
                "feed",
                match config.feed {
                    config::Feed::Whole => "whole".to_owned(),
                    config::Feed::ByUser(_) => "by_user".to_owned(),
                },
            ),
        ])
    }

    /// Leaves the marks.
    pub(super) fn mark(&self, metadata: &mut HashMap<String, String>) {
        for (name, value) in &self.0 {
            metadata.insert(format!("{PREFIX}{name}"), value.clone());
        }
    }

    /// What another configuration left that says otherwise, by key with both values. A stream without any mark
    /// is nobody's, and a mark that is missing says nothing.
    pub(super) fn differing(&self, metadata: &HashMap<String, String>) -> Vec<String> {
        let marked = |name: &str| metadata.get(&format!("{PREFIX}{name}"));
        self.0
            .iter()
            .filter_map(|(name, ours)| {
                let theirs = marked(name).filter(|theirs| *theirs != ours)?;
                let key = match *name {
                    "sources" => "sources".to_owned(),
                    name => format!("stream.{name}"),
                };
                Some(format!("`{key}` is `{theirs}` there and `{ours}` here"))
            })
            .collect()
    }
}
