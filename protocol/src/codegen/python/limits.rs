//! What a schema says of a value beside its type, as the arguments of `Limits` in `rivulet_client/_limits.py`.
//!
//! Bounds of numbers are not among them: Pydantic has these.

use serde_json::Value;

use super::types::literal;

/// Each keyword, and what its argument is called.
const KEYWORDS: [(&str, &str); 9] = [
    ("minLength", "min_length"),
    ("maxLength", "max_length"),
    ("pattern", "pattern"),
    ("format", "format"),
    ("minItems", "min_items"),
    ("maxItems", "max_items"),
    ("uniqueItems", "unique_items"),
    ("minProperties", "min_properties"),
    ("maxProperties", "max_properties"),
];

/// `Limits(…)`, if the schema says anything of its values' contents.
pub(super) fn limits(schema: &Value) -> Option<String> {
    // Its type says it: a tuple.
    let length = schema["prefixItems"].as_array().map(|items| items.len() as u64);
    let is_tuple =
        length.is_some() && schema["minItems"].as_u64() == length && schema["maxItems"].as_u64() == length;
    let mut arguments: Vec<String> = KEYWORDS
        .into_iter()
        .filter_map(|(keyword, name)| {
            let value = schema.get(keyword)?;
            let value = match (keyword, value) {
                // A time is no text any more.
                ("format", Value::String(format)) if format == "date-time" => return None,
                ("uniqueItems", Value::Bool(false)) => return None,
                ("minItems" | "maxItems", _) if is_tuple => return None,
                // As the edge reads it; Pydantic has the same engine.
                ("pattern", Value::String(pattern)) => {
                    literal(&jsonschema_regex::to_rust_regex(pattern).unwrap_or(pattern.into()))
                }
                _ => python(value),
            };
            Some(format!("{name}={value}"))
        })
        .collect();
    if let Some(constant) = schema.get("const").filter(|constant| !has_literal(constant)) {
        arguments.push(format!("const={}", python(constant)));
    }
    if let Some(names) = schema.get("propertyNames").and_then(limits) {
        arguments.push(format!("names={names}"));
    }
    (!arguments.is_empty()).then(|| format!("Limits({})", arguments.join(", ")))
}

/// The same of a class's fields alone: the class is no text and no list.
pub(super) fn limits_of_fields(schema: &Value) -> Option<String> {
    let keywords = schema.as_object()?.iter();
    let of_fields = keywords.filter(|(keyword, _)| {
        matches!(
            keyword.as_str(),
            "minProperties" | "maxProperties" | "propertyNames"
        )
    });
    limits(
        &of_fields
            .map(|(keyword, value)| (keyword.clone(), value.clone()))
            .collect(),
    )
}

/// Whether Python has a type of this value alone.
fn has_literal(constant: &Value) -> bool {
    match constant {
        Value::Null | Value::Bool(_) | Value::String(_) => true,
        Value::Number(number) => !number.is_f64(),
        Value::Array(_) | Value::Object(_) => false,
    }
}

/// A JSON value as Python writes it.
fn python(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => literal(text),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(python).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(fields) => {
            let fields: Vec<_> = fields
                .iter()
                .map(|(name, value)| format!("{}: {}", literal(name), python(value)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_keyword_that_a_type_drops_is_an_argument() {
        for (schema, expected) in [
            (json!({ "type": "string" }), None),
            (json!({ "type": "string", "format": "date-time" }), None),
            (json!({ "type": "array", "uniqueItems": false }), None),
            (json!({ "const": 5 }), None),
            (
                json!({ "minLength": 1, "maxLength": 3, "pattern": "^\\d+$", "format": "uuid" }),
                Some(r#"Limits(min_length=1, max_length=3, pattern="^[0-9]+$", format="uuid")"#),
            ),
            (
                json!({ "minItems": 1, "maxItems": 3, "uniqueItems": true }),
                Some("Limits(min_items=1, max_items=3, unique_items=True)"),
            ),
            (
                json!({ "minProperties": 1, "maxProperties": 3, "propertyNames": { "maxLength": 2 } }),
                Some("Limits(min_properties=1, max_properties=3, names=Limits(max_length=2))"),
            ),
            (
                json!({ "const": [true, null, { "a": 1.5 }] }),
                Some(r#"Limits(const=[True, None, {"a": 1.5}])"#),
            ),
        ] {
            assert_eq!(limits(&schema).as_deref(), expected, "{schema}");
        }
    }
}
