//! The whole contract with clients as one AsyncAPI 3 document: an export, for other people's tools.

use serde_json::{Map, Value, json};

use super::{
    GeneratedFile, document,
    schemas::{client_frames, commands, events, server_frames},
};
use crate::{catalog::Catalog, message::SUBPROTOCOL};

/// Where the channel is.
const ADDRESS: &str = "/api/v1/ws";

pub(super) fn file(catalog: &Catalog) -> GeneratedFile {
    let (commands, replies) = commands(catalog);
    let (client_frames, client_definitions) = client_frames();
    let (server_frames, server_definitions) = server_frames();
    let sent: Vec<_> = client_frames.into_iter().chain(commands).collect();
    let received: Vec<_> = events(catalog)
        .into_iter()
        .chain(server_frames)
        .chain(replies)
        .collect();

    let mut messages = Map::new();
    for (name, schema) in sent.iter().chain(&received) {
        messages.insert(name.clone(), message(name, schema));
    }
    let references: Map<String, Value> = messages
        .keys()
        .map(|name| {
            (
                name.clone(),
                json!({ "$ref": format!("#/components/messages/{name}") }),
            )
        })
        .collect();
    let mut schemas = catalog.definitions().clone();
    schemas.extend(client_definitions);
    schemas.extend(server_definitions);
    schemas.values_mut().for_each(refer_to_components);

    let value = json!({
        "asyncapi": "3.1.0",
        "id": "urn:rivulet:protocol:v1",
        "defaultContentType": "application/json",
        "info": {
            "title": "Rivulet",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Events from NATS, live, for one user: what a client and the router say to each other.",
            "contact": { "name": "Rivulet" },
            "license": { "name": "MIT OR Apache-2.0", "url": "https://spdx.org/licenses/MIT.html" },
            "tags": [{ "name": "websocket" }, { "name": "nats" }],
        },
        "servers": {
            "local": {
                "host": "127.0.0.1:8010",
                "protocol": "ws",
                "description": "A router on this machine.",
                "security": [{ "$ref": "#/components/securitySchemes/token" }],
            },
        },
        "channels": {
            "session": {
                "address": ADDRESS,
                "description": format!("One WebSocket; `{SUBPROTOCOL}` as its subprotocol brings arrays, heartbeats and `resumed`."),
                "messages": references,
            },
        },
        "operations": {
            "say": operation("send", "What a client says.", &sent),
            "hear": operation("receive", "What a client hears.", &received),
        },
        "components": {
            "messages": messages,
            "schemas": schemas,
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" },
            },
        },
    });
    document("schemas/asyncapi.json", &value)
}

fn message(name: &str, schema: &Value) -> Value {
    let mut payload = schema.clone();
    refer_to_components(&mut payload);
    let mut message =
        json!({ "name": name, "title": name, "contentType": "application/json", "payload": payload });
    if let Some(description) = schema.get("description") {
        message["summary"] = description.clone();
    }
    message
}

fn operation(action: &str, summary: &str, of: &[(String, Value)]) -> Value {
    let messages: Vec<_> = of
        .iter()
        .map(|(name, _)| json!({ "$ref": format!("#/channels/session/messages/{name}") }))
        .collect();
    json!({
        "action": action,
        "summary": summary,
        "channel": { "$ref": "#/channels/session" },
        "messages": messages,
    })
}

/// Definitions stand elsewhere in AsyncAPI than in JSON Schema.
fn refer_to_components(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::String(reference)) = object.get_mut("$ref") {
                *reference = reference.replace("#/$defs/", "#/components/schemas/");
            }
            object.values_mut().for_each(refer_to_components);
        }
        Value::Array(schemas) => schemas.iter_mut().for_each(refer_to_components),
        _ => {}
    }
}
