//! JSON Schemas (2020-12): a bundle of all events, and each message by itself.

use serde_json::{Map, Value, json};

use super::{GeneratedFile, document};
use crate::{
    catalog::{Catalog, CommandSpec, EPHEMERAL_KEY, EventSpec, reachable, schema_of},
    message::{ClientMessage, MAX_ID_LENGTH, ServerMessage},
    scalar::MAX_SAFE_INTEGER,
};

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// A message's name and its schema, whose definitions stand elsewhere.
pub(super) type Message = (String, Value);

pub(super) fn files(catalog: &Catalog) -> Vec<GeneratedFile> {
    let mut files = vec![document("schemas/events.json", &bundle(catalog))];
    let mut add = |messages: Vec<Message>, definitions: &Map<String, Value>| {
        for (name, schema) in messages {
            files.push(document(
                format!("schemas/messages/{name}.json"),
                &alone(schema, definitions),
            ));
        }
    };
    add(events(catalog), catalog.definitions());
    let (requests, replies) = commands(catalog);
    add(requests, catalog.definitions());
    add(replies, catalog.definitions());
    for (messages, definitions) in [client_frames(), server_frames()] {
        add(messages, &definitions);
    }
    files
}

/// Every event as it stands on the wire.
pub(super) fn events(catalog: &Catalog) -> Vec<Message> {
    catalog
        .events()
        .iter()
        .map(|event| (event.event_type.to_string(), envelope(event)))
        .collect()
}

/// Every command, and its reply as `<command>.reply`.
pub(super) fn commands(catalog: &Catalog) -> (Vec<Message>, Vec<Message>) {
    let requests = catalog
        .commands()
        .iter()
        .map(|command| (command.name.clone(), request(command)));
    let replies = catalog
        .commands()
        .iter()
        .map(|command| (format!("{}.reply", command.name), reply(command)));
    (requests.collect(), replies.collect())
}

/// What a client says, commands aside, with the definitions that it needs.
pub(super) fn client_frames() -> (Vec<Message>, Map<String, Value>) {
    branches(schema_of::<ClientMessage>())
}

/// What the router says, events and replies aside, with the definitions that it needs.
pub(super) fn server_frames() -> (Vec<Message>, Map<String, Value>) {
    let (mut messages, definitions) = branches(schema_of::<ServerMessage>());
    for (_, schema) in &mut messages {
        schema["properties"]["id"] = id("The `id` of the message that this answers.");
    }
    (messages, definitions)
}

/// The variants of a tagged enum, each by its tag.
fn branches(mut schema: Value) -> (Vec<Message>, Map<String, Value>) {
    into_profile(&mut schema);
    let definitions = schema["$defs"].as_object().cloned().unwrap_or_default();
    let branches = schema["oneOf"]
        .as_array()
        .expect("a tagged enum is a choice")
        .iter();
    let messages = branches.map(|branch| {
        let name = branch["properties"]["type"]["const"]
            .as_str()
            .expect("each is tagged")
            .to_owned();
        let mut branch = branch.clone();
        branch["title"] = json!(name);
        (name, branch)
    });
    (messages.collect(), definitions)
}

/// All events in one document.
fn bundle(catalog: &Catalog) -> Value {
    let branches: Vec<Value> = catalog.events().iter().map(envelope).collect();
    let schema = json!({ "title": "Event", "oneOf": branches });
    alone(schema, catalog.definitions())
}

/// An event as it stands on the wire.
fn envelope(event: &EventSpec) -> Value {
    let mut schema = json!({
        "title": event.event_type.as_str(),
        "type": "object",
        "properties": {
            "type": { "const": event.event_type.as_str() },
            "seq": {
                "description": "Where the event stands in the stream; absent on a core source.",
                "type": "integer",
                "minimum": 0,
                "maximum": MAX_SAFE_INTEGER,
            },
            "time": {
                "description": "When the stream stored it or, on a core source, when the router got it.",
                "type": "string",
                "format": "date-time",
            },
            "data": definition(&event.data),
        },
        "required": ["type", "data"],
    });
    describe(&mut schema, event.description.as_deref());
    if event.ephemeral {
        schema[EPHEMERAL_KEY] = json!(true);
    }
    schema
}

fn request(command: &CommandSpec) -> Value {
    let mut schema = json!({
        "title": command.name,
        "type": "object",
        "properties": {
            "type": { "const": command.name },
            "id": id("Echoed in the answer. One id is asked once in 10 minutes."),
            "data": definition(&command.request),
        },
        "required": ["type", "data"],
    });
    describe(&mut schema, command.description.as_deref());
    schema
}

fn reply(command: &CommandSpec) -> Value {
    json!({
        "title": format!("{}.reply", command.name),
        "description": format!("The answer to `{}`.", command.name),
        "type": "object",
        "properties": {
            "type": { "const": "reply" },
            "id": id("The `id` of the command."),
            "data": definition(&command.reply),
        },
        "required": ["type", "data"],
    })
}

fn describe(schema: &mut Value, description: Option<&str>) {
    if let Some(description) = description {
        schema["description"] = description.into();
    }
}

fn definition(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}

fn id(description: &str) -> Value {
    json!({ "description": description, "type": "string", "maxLength": MAX_ID_LENGTH })
}

/// Takes out what schemars says and the wire profile does not have: an optional that isn't there is absent, never
/// null, and the width of a number in Rust is nobody's business.
pub(super) fn into_profile(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    object["type"] = only.clone();
                }
            }
            if object.get("format").is_some_and(|format| format == "double") {
                object.remove("format");
            }
            object.values_mut().for_each(into_profile);
        }
        Value::Array(schemas) => schemas.iter_mut().for_each(into_profile),
        _ => {}
    }
}

/// The schema as a document of its own, with the definitions that it needs and no others.
fn alone(mut schema: Value, definitions: &Map<String, Value>) -> Value {
    let needed = reachable(&schema, definitions);
    let mut document = Map::from_iter([("$schema".to_owned(), json!(DIALECT))]);
    document.append(schema.as_object_mut().expect("a schema is an object"));
    if !needed.is_empty() {
        document.insert("$defs".to_owned(), Value::Object(needed));
    }
    Value::Object(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_document_compiles_and_takes_its_own() {
        let files = files(&Catalog::builtin());
        assert!(files.len() > 15 + 4 + 5 + 12);
        for file in &files {
            let schema: Value = serde_json::from_str(&file.text).unwrap();
            jsonschema::draft202012::meta::validate(&schema)
                .unwrap_or_else(|error| panic!("{}: {error}", file.path));
            jsonschema::validator_for(&schema).unwrap_or_else(|error| panic!("{}: {error}", file.path));
        }
        let of = |path: &str| {
            let file = files.iter().find(|file| file.path == path).unwrap();
            jsonschema::validator_for(&serde_json::from_str(&file.text).unwrap()).unwrap()
        };
        let pong = json!({ "type": "pong", "data": { "seq": 7 }, "id": "a" });
        assert!(of("schemas/messages/pong.json").is_valid(&pong));
        assert!(!of("schemas/messages/heartbeat.json").is_valid(&pong));
        let event = json!({ "type": "book.created", "seq": 7, "data": { "book_id": "b" } });
        assert!(of("schemas/events.json").is_valid(&event));
        assert!(!of("schemas/events.json").is_valid(&json!({ "type": "book.created", "data": {} })));
    }
}
