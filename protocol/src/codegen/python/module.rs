//! The models of definitions, the envelope of each event, the request of each command, and the `family` of them
//! all: what the package's own module and a user's have in common.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::limits::limits_of_fields;
use super::types::{attribute, class_name, docstring, free, literal, name_objects, type_of};
use crate::{catalog::CommandSpec, codegen::part::Part};

/// A part of the catalogue under its names in Python.
pub(super) struct Module<'a> {
    part: &'a Part,
    /// The part's, with a name for each object inside them.
    definitions: Map<String, Value>,
    /// The envelope's class, for each of the part's events.
    envelopes: Vec<String>,
    /// The request's class, for each of the part's commands.
    requests: Vec<String>,
}

impl<'a> Module<'a> {
    pub(super) fn new(part: &'a Part) -> Self {
        let definitions = name_objects(&part.definitions);
        let mut taken: HashSet<String> = definitions.keys().cloned().collect();
        let mut take = |name: String| {
            let name = free(&name, |name| taken.contains(name));
            taken.insert(name.clone());
            name
        };
        let envelopes = part
            .events
            .iter()
            .map(|event| take(class_name(event.event_type.as_str()) + "Event"))
            .collect();
        let mut module = Self {
            part,
            definitions,
            envelopes,
            requests: Vec::new(),
        };
        let requests = part
            .commands
            .iter()
            .map(|command| match module.is_class_of(command) {
                true => module.object(&command.request).to_owned(),
                false => take(class_name(&command.name) + "Command"),
            })
            .collect();
        module.requests = requests;
        module
    }

    /// Writes everything but the family: models, commands, aliases, envelopes, `EVENT_TYPES` and `Event`.
    pub(super) fn write(&self, out: &mut String) {
        let of_commands: HashSet<&str> = self
            .part
            .commands
            .iter()
            .filter(|command| self.is_class_of(command))
            .map(|command| self.object(&command.request))
            .collect();
        self.recursive_aliases(out);
        for (name, schema) in &self.definitions {
            if self.is_model(name) && !of_commands.contains(name.as_str()) {
                model(out, name, "Model", schema, None);
            }
        }
        // After the models, as a class that answers a command stands in the head of the command's.
        for (command, class) in self.part.commands.iter().zip(&self.requests) {
            self.command(out, command, class);
        }
        self.aliases(out);
        self.events(out);
    }

    /// Writes what a client takes in `families`.
    pub(super) fn write_family(&self, out: &mut String) {
        let envelopes = match self.envelopes.as_slice() {
            [] => "Never".to_owned(),
            envelopes => format!("\n    {}\n", envelopes.join("\n    | ")),
        };
        out.push_str(&format!(
            "\n#: What a client takes in `families`.\nfamily: Family[{envelopes}] = Family(\n    events={{\n"
        ));
        for (event, class) in self.part.events.iter().zip(&self.envelopes) {
            out.push_str(&format!(
                "        {}: {class},\n",
                literal(event.event_type.as_str())
            ));
        }
        out.push_str("    },\n    commands={\n");
        for (command, class) in self.part.commands.iter().zip(&self.requests) {
            out.push_str(&format!("        {}: {class},\n", literal(&command.name)));
        }
        out.push_str("    },\n)\n");
    }

    /// Whether the request's own model can be the command: where it belongs to this command alone.
    fn is_class_of(&self, command: &CommandSpec) -> bool {
        let request = self.object(&command.request);
        self.part.commands.iter().all(|other| {
            self.object(&other.reply) != request
                && (other.name == command.name || self.object(&other.request) != request)
        })
    }

    /// The definition of an object that this name is for, directly or by way of others.
    fn object<'d>(&'d self, name: &'d str) -> &'d str {
        let mut schema = &self.definitions[name];
        while let Some(only) = schema["allOf"].get(0) {
            schema = only;
        }
        match schema["$ref"].as_str() {
            Some(reference) => self.object(reference.trim_start_matches("#/$defs/")),
            None => name,
        }
    }

    /// Whether a definition is a class: one with fields, or what an event or a command carries.
    fn is_model(&self, name: &str) -> bool {
        let schema = &self.definitions[name];
        let events = self.part.events.iter().map(|event| &event.data);
        let commands = self
            .part
            .commands
            .iter()
            .flat_map(|command| [&command.request, &command.reply]);
        schema["properties"].is_object()
            || (schema["type"] == "object"
                && events.chain(commands).any(|carried| self.object(carried) == name))
    }

    fn command(&self, out: &mut String, command: &CommandSpec, class: &str) {
        let base = format!("Command[{}]", self.object(&command.reply));
        let request = self.object(&command.request);
        if class == request {
            model(out, class, &base, &self.definitions[request], Some(&command.name));
            return;
        }
        out.push_str(&format!("\n\nclass {class}({request}, {base}):\n"));
        docstring(out, "    ", command.description.as_deref());
        command_name(out, &command.name);
    }

    /// Writes the aliases that speak of themselves. Their types are texts, which are read when they are needed; they
    /// stand before the classes, or pyright takes their names for variables.
    fn recursive_aliases(&self, out: &mut String) {
        for (name, schema) in &self.definitions {
            if self.is_recursive(name) {
                let (name_text, of) = (literal(name), literal(&type_of(schema)));
                out.push_str(&format!("\n\n{name} = TypeAliasType({name_text}, {of})\n"));
                docstring(out, "", schema["description"].as_str());
            }
        }
    }

    /// Writes the other aliases, each after those that it speaks of.
    fn aliases(&self, out: &mut String) {
        let mut written = HashSet::new();
        for name in self.definitions.keys() {
            self.alias(out, name, &mut written);
        }
    }

    fn alias<'d>(&'d self, out: &mut String, name: &'d str, written: &mut HashSet<&'d str>) {
        if self.is_model(name) || !written.insert(name) || self.is_recursive(name) {
            return;
        }
        let schema = &self.definitions[name];
        for other in spoken_of(schema) {
            self.alias(out, other, written);
        }
        out.push_str(&format!("\n{name} = {}\n", type_of(schema)));
        docstring(out, "", schema["description"].as_str());
    }

    fn is_recursive(&self, name: &str) -> bool {
        !self.is_model(name)
            && spoken_of(&self.definitions[name])
                .into_iter()
                .any(|other| self.reaches(other, name, &mut HashSet::new()))
    }

    /// Whether an alias speaks of another, directly or by way of aliases.
    fn reaches<'d>(&'d self, name: &'d str, other: &str, seen: &mut HashSet<&'d str>) -> bool {
        if self.is_model(name) || !seen.insert(name) {
            return false;
        }
        name == other
            || spoken_of(&self.definitions[name])
                .into_iter()
                .any(|next| self.reaches(next, other, seen))
    }

    fn events(&self, out: &mut String) {
        let events: Vec<_> = self.part.events.iter().zip(&self.envelopes).collect();
        for (event, class) in &events {
            out.push_str(&format!("\n\nclass {class}(Envelope):\n"));
            docstring(out, "    ", event.description.as_deref());
            out.push_str(&format!(
                "    type: Literal[{}]\n    data: {}\n",
                literal(event.event_type.as_str()),
                event.data
            ));
        }
        if events.is_empty() {
            out.push_str("\n\nEVENT_TYPES: frozenset[str] = frozenset()\n\nEvent = UnknownEvent\n");
            return;
        }
        names(
            out,
            "Every event type that this version knows.",
            "EVENT_TYPES",
            events.iter().map(|(event, _)| event.event_type.as_str()),
        );
        out.push_str(
            "\n#: Any event; a type of a later version is an `UnknownEvent`.\nEvent = Annotated[\n    ",
        );
        for (event, class) in &events {
            out.push_str(&format!(
                "Annotated[{class}, Tag({})]\n    | ",
                literal(event.event_type.as_str())
            ));
        }
        out.push_str(
            "Annotated[UnknownEvent, Tag(\"\")],\n    Discriminator(lambda frame: tag_of(frame, EVENT_TYPES)),\n]\n",
        );
    }
}

/// The definitions that the text of an alias names.
fn spoken_of(schema: &Value) -> Vec<&str> {
    let mut names = Vec::new();
    crate::catalog::references(schema, &mut |name| names.push(name));
    names
}

/// A class for an object's definition; `command` where it is that of a command.
pub(super) fn model(out: &mut String, name: &str, base: &str, schema: &Value, command: Option<&str>) {
    out.push_str(&format!("\n\nclass {name}({base}):\n"));
    docstring(out, "    ", schema["description"].as_str());
    if let Some(command) = command {
        command_name(out, command);
    }
    let limits = limits_of_fields(schema);
    if let Some(limits) = &limits {
        out.push_str(&format!("    __limits__ = {limits}\n"));
    }
    let required = |field: &str| {
        let required = schema["required"].as_array();
        required.is_some_and(|required| required.iter().any(|other| other == field))
    };
    let mut taken = HashSet::new();
    let properties = schema["properties"].as_object().into_iter().flatten();
    for (field, property) in properties {
        let (field_name, alias) = attribute(field);
        let field_name = free(&field_name, |name| taken.contains(name));
        taken.insert(field_name.clone());
        let of = type_of(property);
        let declaration = match (required(field), alias) {
            (true, None) => of,
            (true, Some(alias)) => format!("{of} = Field(alias={alias})"),
            (false, None) => format!("{of} | None = None"),
            (false, Some(alias)) => format!("{of} | None = Field(default=None, alias={alias})"),
        };
        out.push_str(&format!("    {field_name}: {declaration}\n"));
        docstring(out, "    ", property["description"].as_str());
    }
    if schema["additionalProperties"].is_object() {
        let more = type_of(&schema["additionalProperties"]);
        // Pydantic takes it in; its own declaration is wider.
        out.push_str(&format!(
            "    __pydantic_extra__: dict[str, {more}]  # pyright: ignore[reportIncompatibleVariableOverride]\n"
        ));
    } else if taken.is_empty() && command.is_none() && limits.is_none() && !schema["description"].is_string()
    {
        out.push_str("    pass\n");
    }
}

fn command_name(out: &mut String, name: &str) {
    out.push_str(&format!("    command_name: ClassVar[str] = {}\n", literal(name)));
}

/// A set of names that is there at runtime.
pub(super) fn names<'a>(
    out: &mut String,
    description: &str,
    name: &str,
    values: impl IntoIterator<Item = &'a str>,
) {
    out.push_str(&format!("\n\n#: {description}\n{name} = frozenset(\n    {{\n"));
    for value in values {
        out.push_str(&format!("        {},\n", literal(value)));
    }
    out.push_str("    }\n)\n");
}
