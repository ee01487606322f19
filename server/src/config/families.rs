//! The key `families`: the catalogue, and the sources that its events need.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use rivulet_protocol::{catalog::Catalog, event::EventType};

use super::{
    check::{Checker, RESERVED_SUBJECTS},
    raw, subject,
};
use crate::families;

impl Checker {
    /// The built-in families and those of the directory.
    pub(super) fn catalog(&mut self, directory: Option<&String>) -> Arc<Catalog> {
        let read = match directory {
            Some(directory) => families::from_directory(Path::new(directory)),
            None => Ok(Catalog::builtin()),
        };
        let catalog = read.unwrap_or_else(|problems| {
            for problem in problems {
                self.contradiction(
                    "families",
                    directory.map(|directory| format!("{directory:?}")),
                    problem,
                );
            }
            Catalog::builtin()
        });
        Arc::new(catalog)
    }

    /// Sources for the events that the default ones do not cover: `<first token>.>` for each first token of their
    /// types, or as many tokens as these have.
    pub(super) fn sources_of_families(
        &mut self,
        catalog: &Catalog,
        defaults: &[raw::Source],
    ) -> Vec<raw::Source> {
        let mut types: BTreeMap<&str, Vec<&EventType>> = BTreeMap::new();
        for event in catalog.events() {
            let event_type = &event.event_type;
            let covered = |source: &raw::Source| subject::overlap(&source.subject, event_type.as_str());
            if !defaults.iter().any(covered) {
                types.entry(event_type.family()).or_default().push(event_type);
            }
        }
        let mut sources = Vec::new();
        for (first, types) in types {
            let tokens = |event_type: &EventType| event_type.as_str().split('.').count();
            let count = tokens(types[0]);
            if let Some(other) = types.iter().find(|event_type| tokens(event_type) != count) {
                let message = format!(
                    "`{}` has {count} tokens and `{other}` {}: which tokens of a subject are the type only \
                     `sources` can say; write it",
                    types[0],
                    tokens(other)
                );
                self.contradiction("families", None, message);
                continue;
            }
            // As many tokens at least as the type has: `order.>`, `order.*.>`.
            let mut source = raw::Source::of(&match count {
                1 => first.to_owned(),
                _ => format!("{first}.{}>", "*.".repeat(count - 2)),
            });
            source.event_type = format!("subject:{count}");
            let own = |reserved: &&&str| subject::overlap(reserved, &source.subject);
            if let Some(reserved) = RESERVED_SUBJECTS.iter().find(own) {
                let message = format!(
                    "the subject of `{}` would lie in `{reserved}`, which is not for events: where it comes from \
                     only `sources` can say; write it",
                    types[0]
                );
                self.contradiction("families", None, message);
                continue;
            }
            sources.push(source);
        }
        sources
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use crate::config::{Config, Inputs, Problems, Purpose, TypeFrom};

    fn directory(types: &[&str]) -> TempDir {
        let branch = |name: &&str| {
            format!(r#"{{"properties":{{"type":{{"const":"{name}"}},"data":{{"type":"object"}}}}}}"#)
        };
        let branches: Vec<_> = types.iter().map(branch).collect();
        let directory = tempfile::tempdir().unwrap();
        let family = format!(r#"{{"oneOf":[{}]}}"#, branches.join(","));
        fs::write(directory.path().join("acme.json"), family).unwrap();
        // Of no family: another ending, and what an editor left.
        fs::write(directory.path().join("README.md"), "").unwrap();
        fs::write(directory.path().join(".acme.json"), "").unwrap();
        directory
    }

    fn load(directory: &TempDir, more: &[(&str, &str)]) -> Result<Config, Problems> {
        let families = directory.path().to_str().unwrap();
        let inputs = more
            .iter()
            .fold(Inputs::default(), |inputs, (key, value)| inputs.set(key, value));
        Config::load(&inputs.set("families", families), Purpose::Tool)
    }

    fn sources(config: &Config) -> Vec<(&str, &TypeFrom)> {
        let sources = config.sources.iter();
        sources
            .map(|source| (source.subject.as_str(), &source.event_type))
            .collect()
    }

    #[test]
    fn what_no_default_source_covers_gets_one() {
        let types = ["blob.archived", "order.placed", "order.paid", "tick", "a.b.c"];
        let config = load(&directory(&types), &[]).unwrap();
        assert_eq!(
            sources(&config)[4..],
            [
                ("a.*.>", &TypeFrom::Subject { tokens: 3 }),
                ("order.>", &TypeFrom::Subject { tokens: 2 }),
                ("tick", &TypeFrom::Subject { tokens: 1 }),
            ]
        );
        assert!(
            config.catalog.event("order.paid").is_some() && config.catalog.event("blob.created").is_some()
        );
    }

    #[test]
    fn written_sources_stay_as_they_are() {
        let config = load(
            &directory(&["order.placed"]),
            &[("sources", r#"[{ subject = "acme.>" }]"#)],
        )
        .unwrap();
        assert_eq!(sources(&config), [("acme.>", &TypeFrom::Subject { tokens: 2 })]);
    }

    #[test]
    fn what_no_default_can_say_is_left_to_sources() {
        for (types, why) in [
            (
                ["order.placed", "order.line.added"],
                "has 2 tokens and `order.line.added` 3",
            ),
            (["command.done", "command.failed"], "would lie in `command.>`"),
        ] {
            let written = directory(&types);
            let problems = load(&written, &[]).unwrap_err().0;
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].to_string().starts_with("families"), "{}", problems[0]);
            assert!(problems[0].message.contains(why), "{}", problems[0]);
            load(&written, &[("sources", r#"[{ subject = "acme.>" }]"#)]).unwrap();
        }
    }

    #[test]
    fn a_directory_that_is_none_or_empty_is_a_problem() {
        let empty = tempfile::tempdir().unwrap();
        let problem = load(&empty, &[]).unwrap_err().to_string();
        assert!(problem.contains("there is no *.json in it"), "{problem}");
        let away = tempfile::tempdir().unwrap();
        fs::remove_dir(away.path()).unwrap();
        let problem = load(&away, &[]).unwrap_err().to_string();
        assert!(problem.contains("No such file"), "{problem}");
    }
}
