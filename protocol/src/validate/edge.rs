//! From what the profile says to what the edge takes.

use serde_json::{Map, Value, json};

/// The edge's form of a schema in the profile.
pub(super) fn edge(schema: &Value) -> Value {
    let Value::Object(keywords) = schema else {
        return schema.clone();
    };
    if let Some(types) = types_of_literals(keywords) {
        return json!({ "type": types });
    }
    let mut edge = Map::new();
    for (keyword, value) in keywords {
        let value = match (keyword.as_str(), value) {
            // Unknown fields are a later version's.
            ("additionalProperties", Value::Bool(_)) => continue,
            ("items" | "propertyNames" | "additionalProperties", schema) => self::edge(schema),
            ("properties", Value::Object(properties)) => properties
                .iter()
                .map(|(name, schema)| (name.clone(), property(name, schema, keywords)))
                .collect(),
            ("prefixItems" | "allOf", Value::Array(schemas)) => schemas.iter().map(self::edge).collect(),
            // Branches that exclude each other in the profile may overlap once they are lenient.
            ("oneOf" | "anyOf", Value::Array(schemas)) => {
                edge.insert("anyOf".into(), schemas.iter().map(self::edge).collect());
                continue;
            }
            (_, value) => value.clone(),
        };
        edge.insert(keyword.clone(), value);
    }
    Value::Object(edge)
}

/// The values, each with what is said of it, where a schema lists all that there may be.
pub(crate) fn literals(schema: &Map<String, Value>) -> Option<Vec<(&Value, Option<&str>)>> {
    if let Some(Value::Array(values)) = schema.get("enum") {
        return Some(values.iter().map(|value| (value, None)).collect());
    }
    // schemars prints an enum whose variants have docs as a union of constants.
    let branches = schema.get("oneOf").or_else(|| schema.get("anyOf"))?.as_array()?;
    branches
        .iter()
        .map(|branch| {
            Some((
                branch.get("const")?,
                branch.get("description").and_then(Value::as_str),
            ))
        })
        .collect()
}

/// A later version may have more values than these, of the same types. A lone `const` is a tag and stays.
fn types_of_literals(schema: &Map<String, Value>) -> Option<Vec<&'static str>> {
    let mut types: Vec<_> = literals(schema)?
        .into_iter()
        .map(|(value, _)| match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        })
        .collect();
    types.sort_unstable();
    types.dedup();
    Some(types)
}

/// A field that may be absent may also be `null`.
fn property(name: &str, schema: &Value, object: &Map<String, Value>) -> Value {
    let required = object.get("required").and_then(Value::as_array);
    let edge = edge(schema);
    if required.is_some_and(|required| required.iter().any(|other| other == name)) {
        return edge;
    }
    match edge.get("type").and_then(Value::as_str) {
        // The common case, spelled so that it is one check.
        Some(only) if edge.get("const").is_none() => {
            let types = json!([only, "null"]);
            let mut edge = edge;
            edge["type"] = types;
            edge
        }
        _ => json!({ "anyOf": [edge, { "type": "null" }] }),
    }
}
