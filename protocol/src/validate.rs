//! Validation at the edge: is this payload what its type says?
//!
//! The edge takes more than the profile that the catalogue's schemas state, namely what Go, Python and
//! JavaScript print by default (`docs/protocol.md`, section 1): any RFC 3339 or zoneless ISO time, `null` for an
//! absent optional, `1.0` for an integer, unknown fields, unknown enum values. Missing and mistyped fields
//! break. Its schemas are therefore made from the catalogue's by [`edge`].

mod edge;
mod json;

use std::{borrow::Cow, collections::HashMap, fmt};

use jsonschema::{
    PatternOptions, ValidationError,
    error::{TypeKind, ValidationErrorKind},
};
use serde_json::{Map, Value, json};

pub(crate) use self::edge::literals;
use crate::{catalog::Catalog, scalar::Timestamp};

/// The most characters in [`Violation::pointer`] and in [`Violation::message`].
pub const MAX_VIOLATION_LENGTH: usize = 200;

/// One compiled schema per event type and per command's request. Immutable and shareable; compiling takes
/// about 0.1 ms a schema.
#[derive(Debug)]
pub struct Validator {
    events: HashMap<String, jsonschema::Validator>,
    commands: HashMap<String, jsonschema::Validator>,
}

/// The first thing that is wrong with a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The offending place, as a JSON pointer (RFC 6901); that of a missing field is where it should stand.
    /// Cut to 200 characters.
    pub pointer: String,
    /// The schema keyword that it breaks, such as `required`, `type` or `format`; `json` where the payload is not
    /// one JSON object in UTF-8, without duplicate keys and at most 127 levels deep.
    pub rule: String,
    /// What is wrong, for people. Never holds a value of the payload; cut to 200 characters.
    pub message: String,
}

impl Validator {
    /// Compiles all schemas of a catalogue.
    pub fn new(catalog: &Catalog) -> Self {
        let compiled = |name: &str| {
            let reachable = catalog.reachable(name);
            let definitions: Map<_, _> = reachable
                .iter()
                .map(|(name, schema)| (name.clone(), edge::edge(schema)))
                .collect();
            compile(&json!({ "$ref": format!("#/$defs/{name}"), "$defs": definitions }))
                .expect("the catalogue takes only schemas that compile")
        };
        Self {
            events: catalog
                .events()
                .iter()
                .map(|event| (event.event_type.as_str().to_owned(), compiled(&event.data)))
                .collect(),
            commands: catalog
                .commands()
                .iter()
                .map(|command| (command.name.clone(), compiled(&command.request)))
                .collect(),
        }
    }

    /// Checks an event's `data`. A type without a schema passes if `data` is a JSON object at all, so that old
    /// routers carry new events.
    pub fn validate_event(&self, event_type: &str, data: &[u8]) -> Result<(), Violation> {
        check(self.events.get(event_type), data)
    }

    /// Checks a command's `data`. An unknown command passes if `data` is a JSON object at all.
    pub fn validate_command(&self, name: &str, data: &[u8]) -> Result<(), Violation> {
        check(self.commands.get(name), data)
    }
}

/// Checks that a payload is one JSON object that every client can read, whatever it says: the least that must
/// hold before its bytes are put into a frame.
pub fn validate_json(data: &[u8]) -> Result<(), Violation> {
    check(None, data)
}

impl Violation {
    /// The place as clients know it: `data.tags[2]` for `/tags/2` below `data`.
    pub fn field(&self, root: &str) -> String {
        let mut field = root.to_owned();
        for step in self.pointer.split('/').skip(1) {
            let step = step.replace("~1", "/").replace("~0", "~");
            if step.bytes().all(|byte| byte.is_ascii_digit()) {
                field.push_str(&format!("[{step}]"));
            } else {
                field.push('.');
                field.push_str(&step);
            }
        }
        field
    }

    fn json(message: impl Into<String>) -> Self {
        Self {
            pointer: String::new(),
            rule: "json".to_owned(),
            message: cut(message.into()),
        }
    }

    fn new(error: &ValidationError<'_>) -> Self {
        let error = closest(error);
        let mut pointer = error.instance_path().as_str().to_owned();
        if let ValidationErrorKind::Required { property } = error.kind() {
            let name = property.as_str().unwrap_or_default();
            pointer.push('/');
            pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
        }
        Self {
            pointer: cut(pointer),
            rule: error.kind().keyword().to_owned(),
            message: cut(message(error)),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.pointer.is_empty() {
            write!(formatter, "{}: ", self.pointer)?;
        }
        formatter.write_str(&self.message)
    }
}

/// Compiles a schema of the profile's 2020-12.
pub(crate) fn compile(schema: &Value) -> Result<jsonschema::Validator, ValidationError<'static>> {
    jsonschema::draft202012::options()
        .should_validate_formats(true)
        .with_format("date-time", |text: &str| Timestamp::parse(text).is_some())
        // Linear in the text: a user's pattern can't be made to backtrack.
        .with_pattern_options(PatternOptions::regex())
        .build(schema)
}

fn check(validator: Option<&jsonschema::Validator>, data: &[u8]) -> Result<(), Violation> {
    let text = std::str::from_utf8(data)
        .map_err(|error| Violation::json(format!("not UTF-8 at byte {}", error.valid_up_to())))?;
    match validator {
        None => json::check_object(text).map_err(Violation::json),
        Some(validator) => {
            let value = json::parse_object(text).map_err(Violation::json)?;
            validator.validate(&value).map_err(|error| Violation::new(&error))
        }
    }
}

/// Of the branches of a union that a value misses, the error of the one that it missed least, so that the error
/// says more than "none of these". The first wins among equals: `null` stands last in what may be absent.
fn closest<'e>(error: &'e ValidationError<'_>) -> &'e ValidationError<'e> {
    let (ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context }) =
        error.kind()
    else {
        return error;
    };
    let depth = |error: &&ValidationError<'_>| error.instance_path().as_str().matches('/').count();
    context
        .iter()
        .filter_map(|errors| errors.first())
        .map(closest)
        .rev()
        .max_by_key(depth)
        .unwrap_or(error)
}

fn message(error: &ValidationError<'_>) -> String {
    let instance = kind(error.instance());
    match error.kind() {
        ValidationErrorKind::Required { property } => format!("{property} is missing"),
        ValidationErrorKind::Type { kind } => {
            let wanted: Cow<'_, str> = match kind {
                TypeKind::Single(wanted) => wanted.as_str().into(),
                TypeKind::Multiple(wanted) => {
                    // That what may be absent may be null is the edge's leniency, not what is meant.
                    let names = wanted.iter().map(|wanted| wanted.as_str());
                    names
                        .filter(|name| *name != "null")
                        .collect::<Vec<_>>()
                        .join(" or ")
                        .into()
                }
            };
            format!("{instance} where {wanted} is meant")
        }
        ValidationErrorKind::Format { format } if format == "date-time" => {
            "not a time such as 2026-01-31T12:00:00Z".to_owned()
        }
        _ => error.masked_with(instance).to_string(),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(MAX_VIOLATION_LENGTH) {
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATED: &str = r#"{"blob_id":"b","user_id":"u","processor_id":"p","schema_id":"s","preview":"…","created_at":"2026-01-31T12:00:00Z"}"#;

    fn event(event_type: &str, data: &str) -> Result<(), Violation> {
        Validator::new(&Catalog::builtin()).validate_event(event_type, data.as_bytes())
    }

    fn refusal(event_type: &str, data: &str) -> (String, String, String) {
        let violation = event(event_type, data).expect_err(data);
        (violation.pointer, violation.rule, violation.message)
    }

    #[test]
    fn what_languages_print_passes() {
        event("blob.created", CREATED).unwrap();
        for data in [
            CREATED.replace('}', r#","book_id":null}"#),
            CREATED.replace('}', r#","new":{"deep":[1]}}"#),
            CREATED.replace("12:00:00Z", "12:00:00.123456789+05:30"),
            CREATED.replace("12:00:00Z", "12:00:00.123456"),
        ] {
            event("blob.created", &data).unwrap();
        }
        let status = r#"{"blob_id":"b","processor_id":"p","status":"paused","progress":1}"#;
        event("processor.status", status).unwrap();
        let completed = r#"{"blob_id":"b","processor_id":"p","duration_ms":12.0}"#;
        event("processor.completed", completed).unwrap();
        let updated = r#"{"book_id":"b","chapter_added":null}"#;
        event("book.updated", updated).unwrap();
    }

    #[test]
    fn what_breaks_names_place_and_rule() {
        for (event_type, data, pointer, rule, message) in [
            (
                "blob.created",
                CREATED.replace("blob_id", "blobId"),
                "/blob_id",
                "required",
                r#""blob_id" is missing"#,
            ),
            (
                "blob.created",
                CREATED.replace(r#""u""#, "7"),
                "/user_id",
                "type",
                "a number where string is meant",
            ),
            (
                "blob.created",
                CREATED.replace(r#""u""#, "null"),
                "/user_id",
                "type",
                "null where string is meant",
            ),
            (
                "blob.created",
                CREATED.replace("12:00:00Z", "noon"),
                "/created_at",
                "format",
                "not a time such as 2026-01-31T12:00:00Z",
            ),
            (
                "processor.completed",
                r#"{"blob_id":"b","processor_id":"p","duration_ms":1.5}"#.into(),
                "/duration_ms",
                "type",
                "a number where integer is meant",
            ),
            (
                "processor.completed",
                r#"{"blob_id":"b","processor_id":"p","duration_ms":9007199254740993}"#.into(),
                "/duration_ms",
                "maximum",
                "a number is greater than the maximum of 9007199254740991",
            ),
            (
                "book.updated",
                r#"{"book_id":"b","chapter_added":{"chapter_num":1,"blob_id":"b"}}"#.into(),
                "/chapter_added/title",
                "required",
                r#""title" is missing"#,
            ),
            (
                "book.updated",
                r#"{"book_id":"b","chapter_added":7}"#.into(),
                "/chapter_added",
                "type",
                "a number where object is meant",
            ),
            (
                "conversation.created",
                r#"{"conversation_id":"c","member_ids":["a",1]}"#.into(),
                "/member_ids/1",
                "type",
                "a number where string is meant",
            ),
        ] {
            let (pointer, rule, message) = (pointer.to_owned(), rule.to_owned(), message.to_owned());
            assert_eq!(refusal(event_type, &data), (pointer, rule, message), "{data}");
        }
    }

    #[test]
    fn only_one_object_without_duplicate_keys_is_json() {
        let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(200), "]".repeat(200));
        let deeper = format!(r#"{{"a":{}"#, "[".repeat(1_000_000));
        for data in [
            "",
            "{",
            "null",
            "[]",
            "7",
            r#""{}""#,
            "{}{}",
            "{} x",
            "\u{feff}{}",
            r#"{"a":NaN}"#,
            r#"{"a":1e999}"#,
            r#"{"a":"\ud80"}"#,
            "{\"a\":\"\n\"}",
            "{'a':1}",
            r#"{"a":1,}"#,
            &deep,
            &deeper,
        ] {
            for event_type in ["blob.created", "acme.unknown"] {
                let (pointer, rule, _) = refusal(event_type, data);
                assert_eq!((pointer.as_str(), rule.as_str()), ("", "json"), "{:.40}", data);
            }
        }
        let twice = CREATED.replace('}', r#","user_id":"v"}"#);
        assert!(
            refusal("blob.created", &twice)
                .2
                .contains("the key `user_id` stands twice")
        );
        let nested = r#"{"book_id":"b","new":{"a":1,"a":2}}"#;
        assert_eq!(refusal("book.created", nested).1, "json");
        let bytes = Validator::new(&Catalog::builtin()).validate_event("acme.unknown", b"{\"a\":\"\xff\"}");
        assert_eq!(bytes.unwrap_err().message, "not UTF-8 at byte 6");
    }

    #[test]
    fn half_of_a_surrogate_pair_passes_in_texts_and_in_keys() {
        for data in [
            r#"{"book_id":"\ud83d"}"#,
            r#"{"book_id":"b\ude00","title":"\ud83d \ud83d\ude00"}"#,
            r#"{"book_id":"b","\ud83d":{"\ud83d":["\ude00"]}}"#,
        ] {
            for event_type in ["book.created", "acme.unknown"] {
                event(event_type, data).unwrap();
            }
            validate_json(data.as_bytes()).unwrap();
        }
        let validator = Validator::new(&Catalog::builtin());
        let asked = br#"{"content":"\ud83d","schema_id":"s","metadata":{"\ud83d":"\ude00"}}"#;
        validator.validate_command("create_blob", asked).unwrap();
        validator
            .validate_command("ship", br#"{"\ud83d":"\ude00"}"#)
            .unwrap();
        // Its other faults are still found.
        for (data, pointer, rule) in [
            (r#"{"title":"\ud83d"}"#, "/book_id", "required"),
            (r#"{"book_id":"\ud83d","book_id":"\ud83d"}"#, "", "json"),
            (r#"{"book_id":"b","\ud83d":1,"\ud83d":2}"#, "", "json"),
            (r#"{"book_id":"\ud83d",}"#, "", "json"),
        ] {
            let (at, broken, _) = refusal("book.created", data);
            assert_eq!((at.as_str(), broken.as_str()), (pointer, rule), "{data}");
        }
    }

    #[test]
    fn unknown_types_pass() {
        event("acme.unknown", r#"{"anything":[1,null]}"#).unwrap();
        validate_json(b"{}").unwrap();
    }

    #[test]
    fn commands_are_checked_like_events() {
        let validator = Validator::new(&Catalog::builtin());
        validator
            .validate_command(
                "create_blob",
                br#"{"content":"c","schema_id":"s","metadata":{"a":1}}"#,
            )
            .unwrap();
        validator.validate_command("ship", b"{}").unwrap();
        let violation = validator
            .validate_command("create_blob", br#"{"content":"c","schema_id":7}"#)
            .unwrap_err();
        assert_eq!(violation.field("data"), "data.schema_id");
        let violation = validator
            .validate_command("create_blob", br#"{"content":"c"}"#)
            .unwrap_err();
        assert_eq!(violation.field("data"), "data.schema_id");
    }

    #[test]
    fn violations_are_short_and_quote_nothing() {
        let mut catalog = Catalog::default();
        let family = json!({ "oneOf": [{ "properties": {
            "type": { "const": "a.b" },
            "data": { "type": "object", "additionalProperties": { "type": "string", "pattern": "^[a-z]*$", "maxLength": 1000 } },
        } }] });
        catalog.add_family("a", family).unwrap();
        let validator = Validator::new(&catalog);
        let secret = "SECRET".repeat(1_000);
        for data in [
            json!({ "a": secret }),
            json!({ (secret.as_str()): 1 }),
            json!({ "a": [secret] }),
        ] {
            let violation = validator
                .validate_event("a.b", data.to_string().as_bytes())
                .unwrap_err();
            assert!(!violation.message.contains("SECRET"), "{violation}");
            assert!(violation.pointer.chars().count() <= MAX_VIOLATION_LENGTH);
            assert!(violation.message.chars().count() <= MAX_VIOLATION_LENGTH);
        }
    }

    #[test]
    fn a_union_is_blamed_where_it_comes_closest() {
        let mut catalog = Catalog::default();
        let arm = |tag: &str, field: &str| json!({ "type": "object", "properties": { "kind": { "const": tag }, (field): { "type": "string" } }, "required": ["kind", field] });
        let family = json!({ "oneOf": [{ "properties": {
            "type": { "const": "a.b" },
            "data": { "type": "object", "properties": { "of": { "oneOf": [arm("x", "left"), arm("y", "right")] } }, "required": ["of"] },
        } }] });
        catalog.add_family("a", family).unwrap();
        let validator = Validator::new(&catalog);
        validator
            .validate_event("a.b", br#"{"of":{"kind":"y","right":"r","new":1}}"#)
            .unwrap();
        let violation = validator
            .validate_event("a.b", br#"{"of":{"kind":"y","right":1}}"#)
            .unwrap_err();
        assert_eq!(violation.pointer, "/of/right");
        // An unknown tag breaks: what else the value says can't be checked.
        assert!(
            validator
                .validate_event("a.b", br#"{"of":{"kind":"z"}}"#)
                .is_err()
        );
    }
}
