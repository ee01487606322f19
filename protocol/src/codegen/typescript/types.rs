//! What a schema is in TypeScript, and how names, values and descriptions are written.

use serde_json::{Map, Value};

/// The type of what a schema describes. The catalogue takes no keyword that this does not know.
pub(super) fn type_of(schema: &Value, indent: &str) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        return reference.trim_start_matches("#/$defs/").to_owned();
    }
    if let Some(constant) = schema.get("const") {
        return known(constant);
    }
    if let Some(values) = schema["enum"].as_array() {
        return open(values.iter());
    }
    for choice in ["anyOf", "oneOf", "allOf"] {
        if let Some(branches) = schema[choice].as_array() {
            return if branches.iter().all(|branch| branch.get("const").is_some()) {
                open(branches.iter().map(|branch| &branch["const"]))
            } else {
                union(branches.iter().map(|branch| type_of(branch, indent)))
            };
        }
    }
    match &schema["type"] {
        Value::Array(names) => union(names.iter().map(|name| of_type(name.as_str(), schema, indent))),
        name => of_type(name.as_str(), schema, indent),
    }
}

fn of_type(name: Option<&str>, schema: &Value, indent: &str) -> String {
    match name {
        Some("string") => "string".into(),
        Some("number" | "integer") => "number".into(),
        Some("boolean") => "boolean".into(),
        Some("null") => "null".into(),
        Some("array") => array(schema, indent),
        Some("object") if schema["properties"].is_object() => object(schema, indent),
        Some("object") if schema["additionalProperties"].is_object() => {
            format!(
                "Record<string, {}>",
                type_of(&schema["additionalProperties"], indent)
            )
        }
        Some("object") => "Record<string, unknown>".into(),
        _ => "unknown".into(),
    }
}

fn array(schema: &Value, indent: &str) -> String {
    let rest = schema
        .get("items")
        .map_or_else(|| "unknown".into(), |items| type_of(items, indent));
    let Some(prefix) = schema["prefixItems"].as_array() else {
        return format!("Array<{rest}>");
    };
    let (least, most) = (schema["minItems"].as_u64(), schema["maxItems"].as_u64());
    let mut items: Vec<_> = prefix
        .iter()
        .enumerate()
        .map(
            |(index, item)| match least.is_some_and(|least| (index as u64) < least) {
                true => type_of(item, indent),
                false => format!("({})?", type_of(item, indent)),
            },
        )
        .collect();
    if most.is_none_or(|most| most > prefix.len() as u64) {
        items.push(format!("...Array<{rest}>"));
    }
    format!("[{}]", items.join(", "))
}

pub(super) fn object(schema: &Value, indent: &str) -> String {
    let empty = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&empty);
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let deeper = format!("{indent}  ");
    let mut out = String::from("{\n");
    let mut types = Vec::new();
    for (name, property) in properties {
        comment(&mut out, &deeper, property["description"].as_str());
        let key = if is_identifier(name) {
            name.clone()
        } else {
            literal(&Value::from(name.as_str()))
        };
        let optional = !required.contains(&name.as_str());
        let of = type_of(property, &deeper);
        out.push_str(&format!(
            "{deeper}{key}{}: {of};\n",
            if optional { "?" } else { "" }
        ));
        types.push(of);
        if optional {
            types.push("undefined".into());
        }
    }
    match &schema["additionalProperties"] {
        Value::Bool(true) => out.push_str(&format!("{deeper}[more: string]: unknown;\n")),
        more @ Value::Object(_) => {
            // TypeScript holds the fields themselves to this type too.
            let of = union([type_of(more, &deeper)].into_iter().chain(types));
            out.push_str(&format!("{deeper}[more: string]: {of};\n"));
        }
        _ => {}
    }
    out.push_str(&format!("{indent}}}"));
    out
}

/// Known values, open to those of a later version; editors still offer the known ones.
fn open<'a>(values: impl Iterator<Item = &'a Value> + Clone) -> String {
    let kinds = values.clone().filter_map(|value| match value {
        Value::String(_) => Some("(string & {})".to_owned()),
        Value::Number(_) => Some("(number & {})".to_owned()),
        Value::Bool(_) => Some("boolean".to_owned()),
        _ => None,
    });
    union(values.map(known).chain(kinds))
}

/// The type of one value.
fn known(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(known).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(fields) => {
            let fields: Vec<_> = fields
                .iter()
                .map(|(name, value)| format!("{}: {}", literal(&Value::from(name.as_str())), known(value)))
                .collect();
            format!("{{ {} }}", fields.join("; "))
        }
        value => literal(value),
    }
}

/// Each type once, in the order in which they come.
fn union(types: impl IntoIterator<Item = String>) -> String {
    let mut each: Vec<String> = Vec::new();
    for one in types {
        if !each.contains(&one) {
            each.push(one);
        }
    }
    each.join(" | ")
}

pub(super) fn literal(value: &Value) -> String {
    match value {
        Value::String(text) => {
            // A JSON string is a JavaScript string; only the quotes are the project's style.
            let inner = &Value::from(text.as_str()).to_string();
            let inner = inner[1..inner.len() - 1]
                .replace("\\\"", "\"")
                .replace('\'', "\\'");
            format!("'{inner}'")
        }
        other => other.to_string(),
    }
}

pub(super) fn comment(out: &mut String, indent: &str, text: Option<&str>) {
    if let Some(text) = text {
        // What closes a comment must not stand in one; a user's family may hold anything.
        let text = text.replace("*/", "*\u{200b}/");
        let lines: Vec<&str> = text.lines().collect();
        match lines.as_slice() {
            [line] => out.push_str(&format!("{indent}/** {line} */\n")),
            _ => {
                out.push_str(&format!("{indent}/**\n"));
                for line in lines {
                    out.push_str(&format!("{indent} * {line}\n"));
                }
                out.push_str(&format!("{indent} */\n"));
            }
        }
    }
}

pub(super) fn is_identifier(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_schema_of_the_profile_has_its_type() {
        for (schema, of) in [
            (json!({ "type": ["string", "null"] }), "string | null"),
            (json!({ "const": "a" }), "'a'"),
            (json!({ "const": true }), "true"),
            (json!({ "enum": ["a", "b"] }), "'a' | 'b' | (string & {})"),
            (json!({ "enum": [1, 2, null] }), "1 | 2 | null | (number & {})"),
            (
                json!({ "oneOf": [{ "const": "a" }, { "const": "b" }] }),
                "'a' | 'b' | (string & {})",
            ),
            (
                json!({ "anyOf": [{ "type": "string" }, { "type": "integer" }, { "type": "number" }] }),
                "string | number",
            ),
            (json!({ "allOf": [{ "$ref": "#/$defs/A" }] }), "A"),
            (
                json!({ "type": "array", "items": { "type": ["string", "null"] } }),
                "Array<string | null>",
            ),
            (
                json!({ "type": "object", "additionalProperties": { "type": "boolean" } }),
                "Record<string, boolean>",
            ),
            (
                json!({ "type": "array", "prefixItems": [{ "type": "string" }, { "type": "boolean" }], "minItems": 2, "maxItems": 2 }),
                "[string, boolean]",
            ),
            (
                json!({ "type": "array", "prefixItems": [{ "type": "string" }], "items": { "type": "boolean" } }),
                "[(string)?, ...Array<boolean>]",
            ),
            (
                json!({ "type": "object", "properties": { "a": { "type": "string" }, "b": { "type": "object", "properties": {} } },
                    "required": ["a"], "additionalProperties": { "type": "boolean" } }),
                "{\n  a: string;\n  b?: {\n  };\n  [more: string]: boolean | string | {\n  } | undefined;\n}",
            ),
            (json!({}), "unknown"),
        ] {
            assert_eq!(type_of(&schema, ""), of, "{schema}");
        }
    }

    #[test]
    fn hostile_texts_stay_inside_their_literals() {
        assert_eq!(literal(&json!("a'b\"c\\d\n")), r#"'a\'b"c\\d\n'"#);
        let mut out = String::new();
        comment(&mut out, "", Some("ends */ alert(1)"));
        assert_eq!(out.matches("*/").count(), 1);
        assert!(!is_identifier("a-b") && !is_identifier("1a") && is_identifier("_a1"));
    }
}
