//! What of the catalogue goes into one generated module.

use serde_json::{Map, Value, json};

use crate::catalog::{Catalog, CommandSpec, EventSpec, reachable};

/// Event types, commands, and the definitions that they need.
pub(super) struct Part {
    pub(super) events: Vec<EventSpec>,
    pub(super) commands: Vec<CommandSpec>,
    pub(super) definitions: Map<String, Value>,
}

impl Part {
    /// All of it.
    pub(super) fn whole(catalog: &Catalog) -> Self {
        Self {
            events: catalog.events().to_vec(),
            commands: catalog.commands().to_vec(),
            definitions: catalog.definitions().clone(),
        }
    }

    /// What is not built in.
    pub(super) fn of_users(catalog: &Catalog) -> Self {
        let builtin = Catalog::builtin();
        let mut part = Self::whole(catalog);
        part.events
            .retain(|event| builtin.event(event.event_type.as_str()).is_none());
        part.commands
            .retain(|command| builtin.command(&command.name).is_none());
        let roots: Vec<Value> = part
            .events
            .iter()
            .map(|event| &event.data)
            .chain(
                part.commands
                    .iter()
                    .flat_map(|command| [&command.request, &command.reply]),
            )
            .map(|name| json!({ "$ref": format!("#/$defs/{name}") }))
            .collect();
        let needed = reachable(&json!({ "anyOf": roots }), &part.definitions);
        part.definitions.retain(|name, _| needed.contains_key(name));
        part
    }
}
