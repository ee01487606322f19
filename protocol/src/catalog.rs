//! All event types and commands of a deployment, with their schemas.
//!
//! A family is one JSON Schema file. Its root is a `oneOf` (or `anyOf`) of branches
//! `{ "type": { "const": "<event type>" }, "data": <schema> }`, which is what schemars prints for an adjacently
//! tagged enum, Pydantic for a union of models with a `Literal`, and Zod for a discriminated union. A family
//! that also has commands declares them at the root, under [`COMMANDS_KEY`]. An event type that is live only
//! has [`EPHEMERAL_KEY`] in its branch or in the schema of its data.
//!
//! The built-in families come in by the same call as a user's: [`Catalog::add_family`].

mod profile;

use std::collections::{HashMap, HashSet};

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use self::profile::Reader;
pub(crate) use self::profile::{camel, references};
use crate::{
    blob::BlobEvent,
    book::BookEvent,
    command::{CreateBlob, CreateBlobReply, ProcessBlob, ProcessBlobReply},
    conversation::ConversationEvent,
    event::EventType,
    processor::ProcessorEvent,
};

/// The root key of a family's file under which it declares commands: `{ name: { request, reply } }`, each of
/// the two a schema, with an optional `description` beside them.
pub const COMMANDS_KEY: &str = "x-commands";
/// The key that makes an event type live only: never stored for replay.
pub const EPHEMERAL_KEY: &str = "x-ephemeral";

/// Every event type and command, in the order in which families were added and declare them. All schemas are
/// in the wire profile: 2020-12, references to `#/$defs/…` alone, integers within 2^53 - 1, optional fields
/// absent and never null.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    families: Vec<Family>,
    events: Vec<EventSpec>,
    commands: Vec<CommandSpec>,
    definitions: Map<String, Value>,
    /// The family that brought each definition in.
    owners: HashMap<String, String>,
    first_tokens: HashSet<String>,
    event_index: HashMap<String, usize>,
    command_index: HashMap<String, usize>,
}

/// A family of events: one file.
#[derive(Clone, Debug)]
pub struct Family {
    /// Its name, such as `blob`: how errors and pages call it.
    pub name: String,
    /// What its file says of it.
    pub description: Option<String>,
    /// Its file, as it was given.
    pub file: Value,
}

/// An event type.
#[derive(Clone, Debug)]
pub struct EventSpec {
    /// Its name.
    pub event_type: EventType,
    /// The name of the family that declares it.
    pub family: String,
    /// What its branch says of it.
    pub description: Option<String>,
    /// The definition that its data is of.
    pub data: String,
    /// Live only: never replayed.
    pub ephemeral: bool,
}

/// A command.
#[derive(Clone, Debug)]
pub struct CommandSpec {
    /// Its name, one token: the client frame's `type`, and the NATS subject `command.<name>`.
    pub name: String,
    /// The name of the family that declares it.
    pub family: String,
    /// What its declaration says of it.
    pub description: Option<String>,
    /// The definition that its request is of.
    pub request: String,
    /// The definition that its reply is of.
    pub reply: String,
}

/// Why a family is refused; the catalogue is then as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("family `{family}`, at {}: {problem}", if .pointer.is_empty() { "its root" } else { .pointer })]
pub struct FamilyError {
    /// The family.
    pub family: String,
    /// The offending place in its file, as a JSON pointer (RFC 6901).
    pub pointer: String,
    /// What is wrong there.
    pub problem: String,
}

impl Catalog {
    /// The four built-in families and the two built-in commands.
    pub fn builtin() -> Self {
        let mut blob = schema_of::<BlobEvent>();
        declare_command::<CreateBlob, CreateBlobReply>(&mut blob, "create_blob");
        declare_command::<ProcessBlob, ProcessBlobReply>(&mut blob, "process_blob");
        let mut catalog = Self::default();
        for (name, schema) in [
            ("blob", blob),
            ("processor", schema_of::<ProcessorEvent>()),
            ("book", schema_of::<BookEvent>()),
            ("conversation", schema_of::<ConversationEvent>()),
        ] {
            catalog
                .add_family(name, schema)
                .expect("a built-in family is in the form that families have");
        }
        catalog
    }

    /// Adds a family from its schema file. Two families may define the same name in `$defs` when both define it
    /// the same way; otherwise the later one is refused.
    pub fn add_family(&mut self, name: &str, schema: Value) -> Result<(), FamilyError> {
        let mut reader = Reader::new(name, &schema)?;
        if self.families.iter().any(|family| family.name == name) {
            return Err(reader.refuse("", "a family of this name is already there"));
        }
        let events = reader.events()?;
        let commands = reader.commands()?;
        for (pointer, event) in &events {
            if let Some(other) = self.event(event.event_type.as_str()) {
                let problem = format!(
                    "`{}` is already declared by family `{}`",
                    event.event_type, other.family
                );
                return Err(reader.refuse(pointer, problem));
            }
        }
        for (pointer, command) in &commands {
            if let Some(other) = self.command(&command.name) {
                let problem = format!(
                    "`{}` is already declared by family `{}`",
                    command.name, other.family
                );
                return Err(reader.refuse(pointer, problem));
            }
        }
        let definitions = reader.into_definitions()?;
        for (definition, schema) in &definitions {
            if self
                .definitions
                .get(definition)
                .is_some_and(|known| known != schema)
            {
                return Err(FamilyError {
                    family: name.to_owned(),
                    pointer: format!("/$defs/{definition}"),
                    problem: format!(
                        "family `{}` defines `{definition}` differently: rename one of the two",
                        self.owners[definition]
                    ),
                });
            }
        }

        self.families.push(Family {
            name: name.to_owned(),
            description: text(&schema, "description"),
            file: schema,
        });
        for (definition, schema) in definitions {
            if !self.definitions.contains_key(&definition) {
                self.owners.insert(definition.clone(), name.to_owned());
                self.definitions.insert(definition, schema);
            }
        }
        for (_, event) in events {
            self.first_tokens.insert(event.event_type.family().to_owned());
            self.event_index
                .insert(event.event_type.as_str().to_owned(), self.events.len());
            self.events.push(event);
        }
        for (_, command) in commands {
            self.command_index
                .insert(command.name.clone(), self.commands.len());
            self.commands.push(command);
        }
        Ok(())
    }

    /// The families, in the order in which they were added.
    pub fn families(&self) -> &[Family] {
        &self.families
    }

    /// All event types.
    pub fn events(&self) -> &[EventSpec] {
        &self.events
    }

    /// All commands.
    pub fn commands(&self) -> &[CommandSpec] {
        &self.commands
    }

    /// Whether there are event types that begin with this token.
    pub fn has_events_of(&self, first_token: &str) -> bool {
        self.first_tokens.contains(first_token)
    }

    /// The event type of this name.
    pub fn event(&self, name: &str) -> Option<&EventSpec> {
        self.event_index.get(name).map(|&index| &self.events[index])
    }

    /// The command of this name.
    pub fn command(&self, name: &str) -> Option<&CommandSpec> {
        self.command_index.get(name).map(|&index| &self.commands[index])
    }

    /// All definitions by name, each before those that it alone refers to.
    pub fn definitions(&self) -> &Map<String, Value> {
        &self.definitions
    }

    /// The definition of this name together with all that it refers to.
    pub(crate) fn reachable(&self, name: &str) -> Map<String, Value> {
        reachable(&json!({ "$ref": format!("#/$defs/{name}") }), &self.definitions)
    }
}

/// The definitions that a schema refers to, directly or by way of others.
pub(crate) fn reachable(schema: &Value, definitions: &Map<String, Value>) -> Map<String, Value> {
    let mut reachable = Map::new();
    let mut pending = Vec::new();
    profile::references(schema, &mut |reference| pending.push(reference.to_owned()));
    while let Some(name) = pending.pop() {
        if reachable.contains_key(&name) {
            continue;
        }
        let schema = &definitions[&name];
        profile::references(schema, &mut |reference| pending.push(reference.to_owned()));
        reachable.insert(name, schema.clone());
    }
    reachable
}

impl FamilyError {
    fn new(family: &str, pointer: &str, problem: impl Into<String>) -> Self {
        Self {
            family: family.to_owned(),
            pointer: pointer.to_owned(),
            problem: problem.into(),
        }
    }
}

/// The schema of what this type writes.
pub(crate) fn schema_of<T: JsonSchema>() -> Value {
    SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value()
}

/// Declares a command in a family's file, its types' definitions moved to the file's own.
fn declare_command<Request: JsonSchema, Reply: JsonSchema>(family: &mut Value, name: &str) {
    let mut define = |mut schema: Value| {
        let definition = text(&schema, "title").expect("schemars gives every type a title");
        if let Some(Value::Object(nested)) = schema.as_object_mut().and_then(|root| root.remove("$defs")) {
            for (name, schema) in nested {
                family["$defs"][name] = schema;
            }
        }
        family["$defs"][&definition] = schema;
        json!({ "$ref": format!("#/$defs/{definition}") })
    };
    let (request, reply) = (define(schema_of::<Request>()), define(schema_of::<Reply>()));
    family[COMMANDS_KEY][name] = json!({ "request": request, "reply": reply });
}

/// A keyword whose value is text.
fn text(schema: &Value, keyword: &str) -> Option<String> {
    schema.get(keyword)?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message;

    /// As Pydantic 2.13 prints `TypeAdapter(Annotated[Union[Placed, Shipped], Field(discriminator="type")])`.
    fn pydantic() -> Value {
        json!({
            "$defs": {
                "OrderPlaced": {
                    "properties": {
                        "order_id": { "title": "Order Id", "type": "string" },
                        "note": { "anyOf": [{ "type": "string" }, { "type": "null" }], "default": null, "title": "Note" },
                        "count": { "title": "Count", "type": "integer" },
                    },
                    "required": ["order_id", "count"],
                    "title": "OrderPlaced",
                    "type": "object",
                },
                "Placed": {
                    "properties": {
                        "type": { "const": "order.placed", "default": "order.placed", "title": "Type", "type": "string" },
                        "data": { "$ref": "#/$defs/OrderPlaced" },
                    },
                    "required": ["data"],
                    "title": "Placed",
                    "type": "object",
                },
                "Error": { "properties": { "why": { "type": "string" } }, "title": "Error", "type": "object" },
                "Failed": {
                    "properties": {
                        "type": { "const": "order.failed", "title": "Type", "type": "string" },
                        "data": { "$ref": "#/$defs/Error" },
                    },
                    "title": "Failed",
                    "type": "object",
                },
            },
            "discriminator": {
                "mapping": { "order.placed": "#/$defs/Placed", "order.failed": "#/$defs/Failed" },
                "propertyName": "type",
            },
            "oneOf": [{ "$ref": "#/$defs/Placed" }, { "$ref": "#/$defs/Failed" }],
        })
    }

    /// As Zod 4 prints `z.toJSONSchema(z.discriminatedUnion("type", […]))`.
    fn zod() -> Value {
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "anyOf": [{
                "type": "object",
                "properties": {
                    "type": { "type": "string", "const": "stock.low" },
                    "data": {
                        "type": "object",
                        "properties": {
                            "sku": { "type": "string" },
                            "left": { "type": "integer", "minimum": -9007199254740991_i64, "maximum": 9007199254740991_u64 },
                            "at": { "type": "string", "format": "date-time", "pattern": "^(?:(?:\\d\\d[2468][048])-02-29)T$" },
                        },
                        "required": ["sku", "left", "at"],
                        "additionalProperties": false,
                    },
                },
                "required": ["type", "data"],
                "additionalProperties": false,
            }],
        })
    }

    fn refusal(family: Value) -> (String, String) {
        let mut catalog = Catalog::builtin();
        let before = (catalog.events().len(), catalog.definitions().len());
        let error = catalog
            .add_family("acme", family)
            .expect_err("a family that is refused");
        assert_eq!((catalog.events().len(), catalog.definitions().len()), before);
        assert_eq!(error.family, "acme");
        (error.pointer, error.problem)
    }

    fn event(data: Value) -> Value {
        json!({ "oneOf": [{ "properties": { "type": { "const": "acme.done" }, "data": data } }] })
    }

    #[test]
    fn the_builtin_catalogue_is_whole() {
        let catalog = Catalog::builtin();
        let families: Vec<_> = catalog
            .families()
            .iter()
            .map(|family| family.name.as_str())
            .collect();
        assert_eq!(families, ["blob", "processor", "book", "conversation"]);
        assert_eq!(catalog.events().len(), 15);
        let ephemeral = |event: &&EventSpec| event.ephemeral;
        let ephemeral: Vec<_> = catalog
            .events()
            .iter()
            .filter(ephemeral)
            .map(|event| event.event_type.as_str())
            .collect();
        assert_eq!(ephemeral, ["conversation.typing"]);
        let commands: Vec<_> = catalog
            .commands()
            .iter()
            .map(|command| command.name.as_str())
            .collect();
        assert_eq!(commands, message::BUILTIN_COMMANDS);
        assert_eq!(catalog.event("blob.created").unwrap().data, "BlobCreated");
        assert_eq!(catalog.command("create_blob").unwrap().reply, "CreateBlobReply");
        assert!(catalog.event("blob").is_none());
        for event in catalog.events() {
            assert_eq!(event.family, event.event_type.family());
            assert!(event.description.is_some(), "{}", event.event_type);
        }
    }

    #[test]
    fn what_types_write_is_what_they_read() {
        fn same<T: JsonSchema>() {
            let read = SchemaSettings::draft2020_12()
                .into_generator()
                .into_root_schema_for::<T>()
                .to_value();
            assert_eq!(schema_of::<T>(), read);
        }
        same::<BlobEvent>();
        same::<ProcessorEvent>();
        same::<BookEvent>();
        same::<ConversationEvent>();
        same::<CreateBlob>();
        same::<CreateBlobReply>();
        same::<ProcessBlob>();
        same::<ProcessBlobReply>();
        same::<message::ClientMessage>();
        same::<message::ServerMessage>();
    }

    #[test]
    fn what_other_generators_print_is_taken() {
        let mut catalog = Catalog::builtin();
        catalog.add_family("order", pydantic()).unwrap();
        catalog.add_family("stock", zod()).unwrap();
        assert_eq!(catalog.event("order.placed").unwrap().data, "OrderPlaced");
        let placed = &catalog.definitions()["OrderPlaced"];
        assert_eq!(
            placed["properties"]["note"],
            json!({ "type": "string", "title": "Note" })
        );
        assert_eq!(
            placed["properties"]["count"]["maximum"],
            9_007_199_254_740_991_u64
        );
        assert!(!catalog.definitions().contains_key("Placed"));
        // `Error` means something else in JavaScript.
        assert_eq!(catalog.event("order.failed").unwrap().data, "ErrorData");
        let low = &catalog.definitions()["StockLow"];
        assert_eq!(
            low["properties"]["at"],
            json!({ "type": "string", "format": "date-time" })
        );
    }

    #[test]
    fn a_tuple_that_takes_no_more_items_has_at_most_those() {
        let mut catalog = Catalog::default();
        let pair = json!({ "type": "array", "prefixItems": [{ "type": "string" }, {}], "items": false, "minItems": 2 });
        let data = json!({ "type": "object", "properties": { "pair": pair } });
        catalog.add_family("acme", event(data)).unwrap();
        assert_eq!(
            catalog.definitions()["AcmeDone"]["properties"]["pair"],
            json!({ "type": "array", "prefixItems": [{ "type": "string" }, {}], "minItems": 2, "maxItems": 2 })
        );
    }

    #[test]
    fn draft_7_definitions_and_a_lone_event_are_taken() {
        let mut catalog = Catalog::default();
        let family = json!({
            "properties": { "type": { "enum": ["acme.done"] }, "data": { "$ref": "#/definitions/Done" } },
            "definitions": { "Done": { "type": "object", "properties": { "next": { "$ref": "#/definitions/Done" } } } },
        });
        catalog.add_family("acme", family).unwrap();
        assert_eq!(
            catalog.definitions()["Done"]["properties"]["next"]["$ref"],
            "#/$defs/Done"
        );
    }

    #[test]
    fn commands_are_declared_beside_events_or_alone() {
        let mut catalog = Catalog::builtin();
        let family = json!({ "x-commands": { "ship": {
            "description": "Ships it.",
            "request": { "type": "object", "properties": { "order_id": { "type": "string" } }, "required": ["order_id"] },
            "reply": { "type": "object" },
        } } });
        catalog.add_family("acme", family).unwrap();
        let ship = catalog.command("ship").unwrap();
        assert_eq!(
            (ship.request.as_str(), ship.reply.as_str()),
            ("ShipRequest", "ShipReply")
        );
        assert_eq!(ship.description.as_deref(), Some("Ships it."));
    }

    #[test]
    fn ephemeral_may_stand_with_the_branch_or_with_the_data() {
        for family in [
            json!({ "oneOf": [{ "x-ephemeral": true, "properties": { "type": { "const": "a.b" }, "data": { "type": "object" } } }] }),
            json!({ "oneOf": [{ "properties": { "type": { "const": "a.b" }, "data": { "type": "object", "x-ephemeral": true } } }] }),
            json!({
                "oneOf": [{ "properties": { "type": { "const": "a.b" }, "data": { "$ref": "#/$defs/B" } } }],
                "$defs": { "B": { "type": "object", "x-ephemeral": true } },
            }),
        ] {
            let mut catalog = Catalog::default();
            catalog.add_family("a", family).unwrap();
            assert!(catalog.event("a.b").unwrap().ephemeral);
        }
    }

    #[test]
    fn shared_definitions_must_be_the_same() {
        let family = |name: &str, length: u64| {
            json!({
                "oneOf": [{ "properties": { "type": { "const": name }, "data": { "$ref": "#/$defs/Done" } } }],
                "$defs": { "Done": { "type": "object", "properties": { "a": { "type": "string", "maxLength": length } } } },
            })
        };
        let mut catalog = Catalog::default();
        catalog.add_family("a", family("a.done", 1)).unwrap();
        catalog.add_family("b", family("b.done", 1)).unwrap();
        let error = catalog.add_family("c", family("c.done", 2)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "family `c`, at /$defs/Done: family `a` defines `Done` differently: rename one of the two"
        );
    }

    #[test]
    fn refusals_name_the_place() {
        let object = |keyword: &str, value: Value| json!({ "type": "object", "properties": { "a": { keyword: value } } });
        let branch = |tag: Value| json!({ "oneOf": [{ "properties": { "type": tag, "data": { "type": "object" } } }] });
        let data = "/oneOf/0/properties/data";
        for (family, pointer, problem) in [
            (json!([]), "", "one JSON object"),
            (json!({}), "", "oneOf"),
            (json!({ "oneOf": {} }), "/oneOf", "array"),
            (
                json!({ "oneOf": [{ "type": "string" }] }),
                "/oneOf/0",
                "properties",
            ),
            (
                json!({ "oneOf": [{ "$ref": "#/$defs/No" }] }),
                "/oneOf/0/$ref",
                "leads nowhere",
            ),
            (
                branch(json!({ "type": "string" })),
                "/oneOf/0/properties/type",
                "const",
            ),
            (
                branch(json!({ "const": "a b" })),
                "/oneOf/0/properties/type",
                "not an event type",
            ),
            (
                branch(json!({ "const": "error" })),
                "/oneOf/0/properties/type",
                "name of a frame",
            ),
            (
                branch(json!({ "const": "blob.created" })),
                "/oneOf/0",
                "already declared by family `blob`",
            ),
            (event(json!({ "type": "string" })), data, "always a JSON object"),
            (
                event(json!({ "type": ["object", "null"] })),
                data,
                "always a JSON object",
            ),
            (
                event(object("not", json!({}))),
                &format!("{data}/properties/a/not"),
                "`not` is not supported",
            ),
            (
                event(object("$ref", json!("other.json#/A"))),
                &format!("{data}/properties/a/$ref"),
                "out of reach",
            ),
            (
                event(object("pattern", json!("("))),
                "/$defs/AcmeDone/properties/a/pattern",
                "regex",
            ),
            (
                event(object("type", json!("strnig"))),
                "/$defs/AcmeDone/properties/a/type",
                "strnig",
            ),
            (
                event(json!({ "type": "object", "required": ["a"] })),
                &format!("{data}/required/0"),
                "not among",
            ),
            (
                json!({ "x-commands": { "ping": { "request": {}, "reply": {} } } }),
                "/x-commands/ping",
                "name of a frame",
            ),
            (
                json!({ "x-commands": { "a.b": {} } }),
                "/x-commands/a.b",
                "one token",
            ),
            (
                json!({ "x-commands": { "create_blob": { "request": { "type": "object" }, "reply": { "type": "object" } } } }),
                "/x-commands/create_blob",
                "already declared",
            ),
            (
                json!({ "x-commands": { "a": { "request": { "type": "object" } } } }),
                "/x-commands/a",
                "`reply` is missing",
            ),
            (
                event(json!({ "type": "object", "properties": {}, "oneOf": [{ "type": "object" }] })),
                &format!("{data}/oneOf"),
                "`oneOf` beside `properties`",
            ),
            (
                json!({ "x-commands": { "a": {
                    "request": { "type": "object" },
                    "reply": { "oneOf": [{ "type": "object" }, { "type": "object" }] },
                } } }),
                "/x-commands/a/reply",
                "no choice",
            ),
            (
                json!({
                    "oneOf": [{ "properties": { "type": { "const": "a.b" }, "data": { "$ref": "#/$defs/A" } } }],
                    "$defs": { "A": { "anyOf": [{ "$ref": "#/$defs/B" }] }, "B": { "$ref": "#/$defs/A" } },
                }),
                "/$defs/A",
                "made of itself",
            ),
        ] {
            let (at, why) = refusal(family.clone());
            assert_eq!(at, pointer, "{family}: {why}");
            assert!(why.contains(problem), "{family}: {why}");
        }
        let twice = json!({ "oneOf": [branch(json!({ "const": "a.b" }))["oneOf"][0], branch(json!({ "const": "a.b" }))["oneOf"][0]] });
        assert_eq!(refusal(twice).0, "/oneOf/1/properties/type");
        let error = Catalog::builtin()
            .add_family("blob", json!({ "x-commands": {} }))
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "family `blob`, at its root: a family of this name is already there"
        );
    }
}
