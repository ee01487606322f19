//! The key `families`: the catalogue, and the sources that its events need.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use rivulet_protocol::{catalog::Catalog, event::EventType};

use super::{check::Checker, raw, subject};
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
    /// types.
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
            let mut source = raw::Source::of(&match count {
                1 => first.to_owned(),
                _ => format!("{first}.>"),
            });
            source.event_type = format!("subject:{count}");
            sources.push(source);
        }
        sources
    }
}
