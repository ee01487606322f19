//! What a schema is in Python: its type, and the names of its fields and classes.

use serde_json::{Map, Value, json};

use super::limits::limits;
use crate::{catalog::camel, validate::literals};

/// What no field may be called: Python's keywords (3.11), the built-in types that annotations speak of, and what
/// models and commands have of their own.
const TAKEN_FIELDS: &[&str] = &[
    "False",
    "None",
    "True",
    "and",
    "as",
    "assert",
    "async",
    "await",
    "break",
    "class",
    "continue",
    "def",
    "del",
    "elif",
    "else",
    "except",
    "finally",
    "for",
    "from",
    "global",
    "if",
    "import",
    "in",
    "is",
    "lambda",
    "nonlocal",
    "not",
    "or",
    "pass",
    "raise",
    "return",
    "try",
    "while",
    "with",
    "yield", //
    "bool",
    "dict",
    "float",
    "int",
    "list",
    "str",
    "tuple", //
    "command_name",
    "construct",
    "copy",
    "from_orm",
    "json",
    "parse_obj",
    "reply_model",
    "schema",
    "validate",
];

/// The type of what a schema describes. The catalogue takes no keyword that this does not know; objects with
/// fields have got a name before ([`name_objects`]).
pub(super) fn type_of(schema: &Value) -> String {
    let of = plain_type_of(schema);
    // Of values that are all listed the edge takes others too, and looks at their types alone.
    let listed = schema
        .as_object()
        .is_some_and(|keywords| literals(keywords).is_some());
    match limits(schema).filter(|_| !listed) {
        Some(limits) => format!("Annotated[{of}, {limits}]"),
        None => of,
    }
}

/// The same without what stands beside the type: for what no model reads.
pub(super) fn plain_type_of(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        return reference.trim_start_matches("#/$defs/").to_owned();
    }
    if let Some(constant) = schema.get("const") {
        return of_constants(&[constant], false);
    }
    if let Some(values) = schema["enum"].as_array() {
        return of_constants(&values.iter().collect::<Vec<_>>(), true);
    }
    for choice in ["anyOf", "oneOf", "allOf"] {
        if let Some(branches) = schema[choice].as_array() {
            let constants: Vec<_> = branches.iter().filter_map(|branch| branch.get("const")).collect();
            if constants.len() == branches.len() {
                return of_constants(&constants, true);
            }
            return union(branches.iter().map(type_of));
        }
    }
    match &schema["type"] {
        Value::Array(names) => union(names.iter().map(|name| of_type(name.as_str(), schema))),
        name => of_type(name.as_str(), schema),
    }
}

fn of_type(name: Option<&str>, schema: &Value) -> String {
    match name {
        Some("string") if schema["format"] == "date-time" => "Timestamp".into(),
        Some("string") => "str".into(),
        Some("integer") => bounded("Integer", schema),
        Some("number") => bounded("float", schema),
        Some("boolean") => "bool".into(),
        Some("null") => "None".into(),
        Some("array") => array(schema),
        Some("object") => match schema.get("additionalProperties") {
            Some(values) if values.is_object() => format!("dict[str, {}]", type_of(values)),
            _ => "dict[str, Any]".into(),
        },
        _ => "Any".into(),
    }
}

fn array(schema: &Value) -> String {
    let rest = schema.get("items").map(type_of);
    let Some(prefix) = schema["prefixItems"].as_array() else {
        return format!("list[{}]", rest.unwrap_or_else(|| "Any".into()));
    };
    let length = Some(prefix.len() as u64);
    if schema["minItems"].as_u64() == length && schema["maxItems"].as_u64() == length {
        let items: Vec<_> = prefix.iter().map(type_of).collect();
        // Strict models take no list for a tuple, and JSON has lists alone.
        return format!("Annotated[tuple[{}], Strict(False)]", items.join(", "));
    }
    let more = rest.unwrap_or_else(|| "Any".into());
    format!("list[{}]", union(prefix.iter().map(type_of).chain([more])))
}

/// Known values: of one kind each, and where `open`, beside any value of these kinds, as a later version may
/// know more of them.
fn of_constants(constants: &[&Value], open: bool) -> String {
    let literals: Vec<_> = constants
        .iter()
        .filter(|constant| constant.is_string() || constant.is_i64() || constant.is_u64())
        .map(|constant| constant.to_string())
        .collect();
    let known = (!literals.is_empty()).then(|| format!("Literal[{}]", literals.join(", ")));
    let kinds = constants.iter().filter_map(|constant| match constant {
        Value::String(_) => open.then_some("str"),
        Value::Number(number) if number.is_f64() => Some("float"),
        // The edge takes any number beside them.
        Value::Number(_) => open.then_some("Integer | float"),
        Value::Bool(true) if !open => Some("Literal[True]"),
        Value::Bool(false) if !open => Some("Literal[False]"),
        Value::Bool(_) => Some("bool"),
        Value::Null => Some("None"),
        Value::Array(_) => Some("list[Any]"),
        Value::Object(_) => Some("dict[str, Any]"),
    });
    union(known.into_iter().chain(kinds.map(str::to_owned)))
}

/// Each type once, in the order in which they come.
fn union(types: impl IntoIterator<Item = String>) -> String {
    let mut each: Vec<String> = Vec::new();
    for one in types {
        if one == "Any" {
            return one;
        }
        if !each.contains(&one) {
            each.push(one);
        }
    }
    each.join(" | ")
}

fn bounded(of: &str, schema: &Value) -> String {
    let bounds: Vec<_> = [
        ("minimum", "ge"),
        ("exclusiveMinimum", "gt"),
        ("maximum", "le"),
        ("exclusiveMaximum", "lt"),
        ("multipleOf", "multiple_of"),
    ]
    .into_iter()
    .filter_map(|(keyword, name)| Some(format!("{name}={}", schema.get(keyword)?)))
    .collect();
    if bounds.is_empty() {
        of.to_owned()
    } else {
        format!("Annotated[{of}, Field({})]", bounds.join(", "))
    }
}

/// Gives every object with fields that stands inside a definition a name of its own, made of the way to it, so
/// that it can be a class.
pub(super) fn name_objects(definitions: &Map<String, Value>) -> Map<String, Value> {
    let mut named = definitions.clone();
    for (name, schema) in definitions {
        let mut schema = schema.clone();
        name_objects_in(&mut schema, name, &mut named);
        named[name] = schema;
    }
    named
}

/// Names what is inside a schema, which is itself at `path`.
fn name_objects_in(schema: &mut Value, path: &str, named: &mut Map<String, Value>) {
    let Value::Object(keywords) = schema else {
        return;
    };
    for (keyword, value) in keywords {
        match (keyword.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                for (field, property) in properties {
                    name_object(property, &format!("{path}{}", class_name(field)), named);
                }
            }
            ("items" | "additionalProperties", value) => {
                name_object(value, &format!("{path}Item"), named);
            }
            ("oneOf" | "anyOf" | "allOf" | "prefixItems", Value::Array(branches)) => {
                for (index, branch) in branches.iter_mut().enumerate() {
                    let step = branch["title"]
                        .as_str()
                        .map_or_else(|| (index + 1).to_string(), class_name);
                    name_object(branch, &format!("{path}{step}"), named);
                }
            }
            _ => {}
        }
    }
}

fn name_object(schema: &mut Value, path: &str, named: &mut Map<String, Value>) {
    if !schema["properties"].is_object() {
        return name_objects_in(schema, path, named);
    }
    let name = free(path, |name| named.contains_key(name));
    // Taken at once, so that nothing inside gets the same.
    named.insert(name.clone(), Value::Null);
    name_objects_in(schema, &name, named);
    let mut reference = json!({ "$ref": format!("#/$defs/{name}") });
    if let Some(description) = schema.get("description") {
        reference["description"] = description.clone();
    }
    named[&name] = std::mem::replace(schema, reference);
}

/// The name, with as many `_` behind as make it free.
pub(super) fn free(name: &str, taken: impl Fn(&str) -> bool) -> String {
    let mut name = name.to_owned();
    while taken(&name) {
        name.push('_');
    }
    name
}

/// The name of a field in Python, and the one on the wire where they differ.
pub(super) fn attribute(field: &str) -> (String, Option<String>) {
    let plain = field.starts_with(|first: char| first.is_ascii_alphabetic())
        && field
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if plain && !TAKEN_FIELDS.contains(&field) && !field.starts_with("model_") {
        return (field.to_owned(), None);
    }
    let safe = identifier(field);
    let safe = safe.trim_start_matches(|first: char| !first.is_ascii_alphabetic());
    let safe = if safe.is_empty() { "field" } else { safe };
    (format!("{safe}_"), Some(literal(field)))
}

fn identifier(text: &str) -> String {
    text.chars()
        .map(|letter| {
            if letter.is_ascii_alphanumeric() {
                letter
            } else {
                '_'
            }
        })
        .collect()
}

/// `blob.created` as `BlobCreated`.
pub(super) fn class_name(name: &str) -> String {
    camel(&identifier(name))
}

/// A JSON string is a Python string: both escape with a backslash, and neither ends at a line.
pub(super) fn literal(text: &str) -> String {
    Value::from(text).to_string()
}

pub(super) fn docstring(out: &mut String, indent: &str, text: Option<&str>) {
    if let Some(text) = text {
        let text = text
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', &format!("\n{indent}"));
        out.push_str(&format!("{indent}\"\"\"{text}\"\"\"\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_python_does_not_take_get_an_alias() {
        assert_eq!(attribute("blob_id"), ("blob_id".into(), None));
        assert_eq!(attribute("from"), ("from_".into(), Some("\"from\"".into())));
        assert_eq!(attribute("list"), ("list_".into(), Some("\"list\"".into())));
        assert_eq!(attribute("a-b"), ("a_b_".into(), Some("\"a-b\"".into())));
        assert_eq!(attribute("+1"), ("field_".into(), Some("\"+1\"".into())));
        assert_eq!(class_name("blob.created"), "BlobCreated");
        let mut out = String::new();
        docstring(&mut out, "", Some("ends \"\"\" here \\"));
        assert_eq!(out, "\"\"\"ends \\\"\\\"\\\" here \\\\\"\"\"\n");
    }

    #[test]
    fn every_schema_of_the_profile_has_its_type() {
        for (schema, of) in [
            (json!({ "type": ["string", "null"] }), "str | None"),
            (json!({ "const": "a" }), r#"Literal["a"]"#),
            (json!({ "const": true }), "Literal[True]"),
            (json!({ "enum": ["a", "b"] }), r#"Literal["a", "b"] | str"#),
            (
                json!({ "enum": [1, 2, null] }),
                "Literal[1, 2] | Integer | float | None",
            ),
            (
                json!({ "oneOf": [{ "const": "a" }, { "const": "b" }] }),
                r#"Literal["a", "b"] | str"#,
            ),
            (
                json!({ "oneOf": [{ "type": "string" }, { "type": "integer" }] }),
                "str | Integer",
            ),
            (json!({ "allOf": [{ "$ref": "#/$defs/A" }] }), "A"),
            (
                json!({ "type": "array", "items": { "$ref": "#/$defs/A" } }),
                "list[A]",
            ),
            (
                json!({ "type": "object", "additionalProperties": { "type": "boolean" } }),
                "dict[str, bool]",
            ),
            (
                json!({ "type": "array", "prefixItems": [{ "type": "string" }, { "type": "boolean" }], "minItems": 2, "maxItems": 2 }),
                "Annotated[tuple[str, bool], Strict(False)]",
            ),
            (
                json!({ "type": "array", "prefixItems": [{ "type": "string" }], "items": { "type": "boolean" } }),
                "list[str | bool]",
            ),
            (
                json!({ "type": "number", "exclusiveMinimum": 0, "multipleOf": 0.5 }),
                "Annotated[float, Field(gt=0, multiple_of=0.5)]",
            ),
            (
                json!({ "type": "string", "minLength": 1 }),
                "Annotated[str, Limits(min_length=1)]",
            ),
            (
                json!({ "type": ["string", "null"], "pattern": "a" }),
                r#"Annotated[str | None, Limits(pattern="a")]"#,
            ),
            (
                json!({ "$ref": "#/$defs/A", "maxLength": 3 }),
                "Annotated[A, Limits(max_length=3)]",
            ),
            (
                json!({ "type": "array", "items": { "type": "string", "format": "uuid" }, "maxItems": 3 }),
                r#"Annotated[list[Annotated[str, Limits(format="uuid")]], Limits(max_items=3)]"#,
            ),
            (json!({ "enum": ["a"], "maxLength": 3 }), r#"Literal["a"] | str"#),
            (json!({}), "Any"),
        ] {
            assert_eq!(type_of(&schema), of, "{schema}");
        }
    }

    #[test]
    fn objects_inside_objects_are_classes_of_their_own() {
        let definitions = json!({
            "Order": { "type": "object", "properties": {
                "address": { "type": "object", "properties": { "street": { "type": "string" } }, "description": "Where to." },
                "lines": { "type": "array", "items": { "type": "object", "properties": { "sku": { "type": "string" } } } },
            } },
            "OrderAddress": { "type": "string" },
        });
        let named = name_objects(definitions.as_object().unwrap());
        let names: Vec<_> = named.keys().collect();
        assert_eq!(
            names,
            ["Order", "OrderAddress", "OrderAddress_", "OrderLinesItem"]
        );
        let order = &named["Order"]["properties"];
        assert_eq!(
            order["address"],
            json!({ "$ref": "#/$defs/OrderAddress_", "description": "Where to." })
        );
        assert_eq!(type_of(&order["lines"]), "list[OrderLinesItem]");
    }
}
