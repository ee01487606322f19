//! Reads a family's file into the wire profile, or says what in it the profile does not have.

mod taken;

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use self::taken::TAKEN;
use super::{COMMANDS_KEY, CommandSpec, EPHEMERAL_KEY, EventSpec, FamilyError, text};
use crate::{
    event::{EventType, MAX_TYPE_LENGTH, is_token},
    message,
    scalar::MAX_SAFE_INTEGER,
    validate,
};

/// What a family's schemas may say of a value, beside the keywords that hold schemas.
const ASSERTIONS: &[&str] = &[
    "type",
    "const",
    "enum",
    "required",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "title",
    "description",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "$comment",
    "contentEncoding",
    "contentMediaType",
];

/// What generators add and the profile leaves out: `discriminator` is OpenAPI's and strict validators refuse
/// it; a `default` would say that absent means something, which no consumer of the wire may assume.
const LEFT_OUT: &[&str] = &[
    "$schema",
    "$id",
    "$defs",
    "definitions",
    "default",
    "discriminator",
];

/// Each of these says alone what a value is; of two of them a generated type would show one.
const SHAPES: [&str; 5] = ["$ref", "properties", "oneOf", "anyOf", "allOf"];

/// Formats that name a machine's number: they say nothing to a reader of JSON.
const NUMBER_FORMATS: &[&str] = &[
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "int", "uint", "float",
    "double",
];

/// Calls `found` with the name of every definition that a schema in the profile refers to.
pub(crate) fn references<'a>(schema: &'a Value, found: &mut impl FnMut(&'a str)) {
    if let Some(name) = referenced(schema) {
        found(name);
    }
    for subschema in subschemas(schema) {
        references(subschema, found);
    }
}

/// One family's file while it is read.
pub(super) struct Reader<'a> {
    family: &'a str,
    root: &'a Value,
    /// What was referred to so far, in the profile. `Null` while it is being read.
    definitions: Map<String, Value>,
    /// Where in the file each definition stands.
    places: HashMap<String, String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(family: &'a str, root: &'a Value) -> Result<Self, FamilyError> {
        let reader = Self {
            family,
            root,
            definitions: Map::new(),
            places: HashMap::new(),
        };
        if !is_token(family) || family.len() > MAX_TYPE_LENGTH {
            return Err(reader.refuse(
                "",
                "a family's name is of A-Z a-z 0-9 _ -, at most 128 characters",
            ));
        }
        if !root.is_object() {
            return Err(reader.refuse("", "a family's file is one JSON object"));
        }
        Ok(reader)
    }

    pub(super) fn refuse(&self, pointer: &str, problem: impl Into<String>) -> FamilyError {
        FamilyError::new(self.family, pointer, problem)
    }

    /// The event types, each with the place of its branch.
    pub(super) fn events(&mut self) -> Result<Vec<(String, EventSpec)>, FamilyError> {
        let root = self.root;
        let branches: Vec<(String, &Value)> = match ["oneOf", "anyOf"]
            .into_iter()
            .find_map(|keyword| Some((keyword, root.get(keyword)?)))
        {
            Some((keyword, Value::Array(branches)))
                if branches.is_empty() && root.get(COMMANDS_KEY).is_none() =>
            {
                return Err(self.refuse(
                    &format!("/{keyword}"),
                    format!("it names no event type, and no `{COMMANDS_KEY}` stand beside it"),
                ));
            }
            Some((keyword, Value::Array(branches))) => branches
                .iter()
                .enumerate()
                .map(|(index, branch)| (format!("/{keyword}/{index}"), branch))
                .collect(),
            Some((keyword, _)) => {
                return Err(self.refuse(&format!("/{keyword}"), format!("`{keyword}` is an array")));
            }
            // Generators print a union of one as its only branch.
            None if root.get("properties").is_some() || root.get("$ref").is_some() => {
                vec![(String::new(), root)]
            }
            None if root.get(COMMANDS_KEY).is_some() => Vec::new(),
            None => {
                return Err(self.refuse(
                    "",
                    format!("a family has a `oneOf` of its event types, or `{COMMANDS_KEY}`"),
                ));
            }
        };
        let mut events: Vec<(String, EventSpec)> = Vec::with_capacity(branches.len());
        for (pointer, branch) in branches {
            let event = self.event(&pointer, branch, &events)?;
            events.push((pointer, event));
        }
        Ok(events)
    }

    fn event(
        &mut self,
        pointer: &str,
        branch: &'a Value,
        others: &[(String, EventSpec)],
    ) -> Result<EventSpec, FamilyError> {
        // Pydantic names every branch and refers to it.
        let (pointer, branch) = match branch.get("$ref") {
            Some(reference) => {
                let (_, place, schema) = self.resolve(&format!("{pointer}/$ref"), reference)?;
                (place, schema)
            }
            None => (pointer.to_owned(), branch),
        };
        let Some(Value::Object(properties)) = branch.get("properties") else {
            return Err(self.refuse(
                &pointer,
                "a branch is an object with the properties `type` and `data`",
            ));
        };
        let properties_at = format!("{pointer}/properties");
        if let Some(other) = properties
            .keys()
            .find(|name| !matches!(name.as_str(), "type" | "data"))
        {
            return Err(self.refuse(
                &child(&properties_at, other),
                "a branch has the properties `type` and `data` alone: what an event says stands in its `data`",
            ));
        }
        let tag_at = format!("{properties_at}/type");
        let tag = properties.get("type").and_then(|tag| {
            let only = |values: &'a Value| match values.as_array()?.as_slice() {
                [value] => Some(value),
                _ => None,
            };
            tag.get("const")
                .or_else(|| tag.get("enum").and_then(only))?
                .as_str()
        });
        let Some(tag) = tag else {
            return Err(self.refuse(&tag_at, "`type` is a `const` string: the event type"));
        };
        let event_type = EventType::parse(tag).map_err(|error| self.refuse(&tag_at, error.to_string()))?;
        if others.iter().any(|(_, other)| other.event_type == event_type) {
            return Err(self.refuse(&tag_at, format!("`{event_type}` is declared twice")));
        }
        let Some(data) = properties.get("data") else {
            return Err(self.refuse(&properties_at, "the property `data` is missing"));
        };
        let data_name = self.definition(&format!("{properties_at}/data"), data, tag)?;
        let ephemeral = [branch, data, &self.definitions[&data_name]]
            .into_iter()
            .any(|schema| schema.get(EPHEMERAL_KEY) == Some(&Value::Bool(true)));
        Ok(EventSpec {
            event_type,
            family: self.family.to_owned(),
            description: text(branch, "description"),
            data: data_name,
            ephemeral,
        })
    }

    /// The commands, each with the place of its declaration.
    pub(super) fn commands(&mut self) -> Result<Vec<(String, CommandSpec)>, FamilyError> {
        let root = self.root;
        let at = format!("/{COMMANDS_KEY}");
        let declared = match root.get(COMMANDS_KEY) {
            None => return Ok(Vec::new()),
            Some(Value::Object(declared)) => declared,
            Some(_) => return Err(self.refuse(&at, "commands are an object: name to `{request, reply}`")),
        };
        let mut commands = Vec::with_capacity(declared.len());
        for (name, declaration) in declared {
            let pointer = child(&at, name);
            if !is_token(name) || name.len() > MAX_TYPE_LENGTH {
                return Err(self.refuse(
                    &pointer,
                    "a command's name is one token of A-Z a-z 0-9 _ -, at most 128 characters",
                ));
            }
            if message::SESSION_FRAMES.contains(&name.as_str())
                || message::SERVER_FRAMES.contains(&name.as_str())
            {
                return Err(self.refuse(
                    &pointer,
                    format!("`{name}` is the name of a frame of the protocol"),
                ));
            }
            let mut part = |part: &str| match declaration.get(part) {
                Some(schema) => self.definition(&child(&pointer, part), schema, &format!("{name}.{part}")),
                None => Err(self.refuse(&pointer, format!("`{part}` is missing: a schema"))),
            };
            let (request, reply) = (part("request")?, part("reply")?);
            for (part, name) in [("request", &request), ("reply", &reply)] {
                if !self.is_one_object(name) {
                    let problem =
                        format!("a {part} is one object, no choice: put the choice into a field of it");
                    return Err(self.refuse(&child(&pointer, part), problem));
                }
            }
            commands.push((
                pointer,
                CommandSpec {
                    name: name.clone(),
                    family: self.family.to_owned(),
                    description: text(declaration, "description"),
                    request,
                    reply,
                },
            ));
        }
        Ok(commands)
    }

    /// All that was referred to, checked to be schemas that can be validated against.
    pub(super) fn into_definitions(self) -> Result<Map<String, Value>, FamilyError> {
        for name in self.definitions.keys() {
            if let Some(name) = self.circle(name) {
                return Err(self.refuse(&self.places[name], "the definition is made of itself"));
            }
        }
        let each: Vec<Value> = self
            .definitions
            .keys()
            .map(|name| json!({ "$ref": format!("#/$defs/{name}") }))
            .collect();
        if !each.is_empty() {
            validate::compile(&json!({ "$defs": self.definitions, "anyOf": each }))
                .map_err(|error| self.refuse(error.instance_path().as_str(), error.to_string()))?;
        }
        Ok(self.definitions)
    }

    /// A definition that can be reached from this one without going into a value: no value could ever be checked
    /// against it.
    fn circle<'d>(&'d self, start: &'d str) -> Option<&'d str> {
        let mut seen = HashSet::new();
        let mut pending = in_place(&self.definitions[start]);
        while let Some(name) = pending.pop() {
            if name == start {
                return Some(start);
            }
            if seen.insert(name) {
                pending.extend(in_place(&self.definitions[name]));
            }
        }
        None
    }

    /// Reads what an event or a command carries: a JSON object. Gives the name of its definition, which is that
    /// of the one it refers to, or made of `name` where it stands inline.
    fn definition(&mut self, pointer: &str, schema: &'a Value, name: &str) -> Result<String, FamilyError> {
        let name = match schema.get("$ref") {
            Some(reference) => self.reference(&format!("{pointer}/$ref"), reference)?,
            None => {
                let name = definition_name(&camel(name));
                if self.definitions.contains_key(&name) || self.raw(&name).is_some() {
                    return Err(self.refuse(
                        pointer,
                        format!("the name `{name}` is taken: move this to `$defs`"),
                    ));
                }
                self.definitions.insert(name.clone(), Value::Null);
                self.places.insert(name.clone(), pointer.to_owned());
                let schema = self.schema(pointer, schema, false)?;
                self.definitions.insert(name.clone(), schema);
                name
            }
        };
        if !self.is_object(&name, &mut HashSet::new()) {
            return Err(self.refuse(
                pointer,
                "this is always a JSON object: say `\"type\": \"object\"`",
            ));
        }
        Ok(name)
    }

    /// Whether all values of a definition are objects.
    fn is_object<'d>(&'d self, name: &'d str, seen: &mut HashSet<&'d str>) -> bool {
        fn check<'d>(reader: &'d Reader<'_>, schema: &'d Value, seen: &mut HashSet<&'d str>) -> bool {
            if let Some(name) = referenced(schema) {
                return reader.is_object(name, seen);
            }
            let all = |keyword: &str, seen: &mut HashSet<&'d str>| {
                let branches = schema.get(keyword).and_then(Value::as_array);
                branches.is_some_and(|branches| branches.iter().all(|branch| check(reader, branch, seen)))
            };
            schema.get("type").and_then(Value::as_str) == Some("object")
                || all("oneOf", seen)
                || all("anyOf", seen)
                || all("allOf", seen)
        }
        // A circle is refused with its own words.
        !seen.insert(name) || check(self, &self.definitions[name], seen)
    }

    /// Whether all values of a definition are objects of the same fields.
    fn is_one_object(&self, name: &str) -> bool {
        let mut schema = &self.definitions[name];
        // A circle is refused with its own words.
        for _ in 0..=self.definitions.len() {
            while let Some(only) = schema.get("allOf").and_then(|parts| parts.get(0)) {
                schema = only;
            }
            match referenced(schema) {
                Some(next) => schema = &self.definitions[next],
                None => break,
            }
        }
        ["oneOf", "anyOf"]
            .iter()
            .all(|choice| schema.get(choice).is_none())
    }

    /// Reads the definition that a reference leads to, and gives its name in the profile.
    fn reference(&mut self, pointer: &str, reference: &'a Value) -> Result<String, FamilyError> {
        let (raw_name, place, schema) = self.resolve(pointer, reference)?;
        let name = definition_name(&raw_name);
        match self.places.get(&name) {
            Some(known) if *known == place => {}
            Some(known) => {
                return Err(self.refuse(&place, format!("`{name}` is also what {known} is called in code")));
            }
            None => {
                self.definitions.insert(name.clone(), Value::Null);
                self.places.insert(name.clone(), place.clone());
                let schema = self.schema(&place, schema, false)?;
                self.definitions.insert(name.clone(), schema);
            }
        }
        Ok(name)
    }

    /// Where a reference leads: the definition's name, its place and itself.
    fn resolve(
        &self,
        pointer: &str,
        reference: &'a Value,
    ) -> Result<(String, String, &'a Value), FamilyError> {
        let text = reference.as_str().unwrap_or_default();
        let place = ["#/$defs/", "#/definitions/"]
            .into_iter()
            .find_map(|prefix| text.strip_prefix(prefix))
            .filter(|name| !name.contains('/'));
        let Some(name) = place else {
            return Err(self.refuse(
                pointer,
                format!("`{reference}` is out of reach: references are of the form #/$defs/Name"),
            ));
        };
        match self.root.pointer(&text[1..]) {
            Some(schema) => Ok((
                name.replace("~1", "/").replace("~0", "~"),
                text[1..].to_owned(),
                schema,
            )),
            None => Err(self.refuse(pointer, format!("`{text}` leads nowhere"))),
        }
    }

    fn raw(&self, name: &str) -> Option<&'a Value> {
        ["$defs", "definitions"]
            .into_iter()
            .find_map(|keyword| self.root.get(keyword)?.get(name))
    }

    /// One schema in the profile. `optional`: it is that of a field which may be absent, and so is never null.
    fn schema(&mut self, pointer: &str, schema: &'a Value, optional: bool) -> Result<Value, FamilyError> {
        let keywords = match schema {
            Value::Object(keywords) => keywords,
            Value::Bool(true) => return Ok(json!({})),
            _ => return Err(self.refuse(pointer, "a schema is a JSON object")),
        };
        let mut shapes = SHAPES.iter().filter(|shape| keywords.contains_key(**shape));
        if let (Some(one), Some(other)) = (shapes.next(), shapes.next()) {
            let problem = format!("`{other}` beside `{one}` is not supported");
            return Err(self.refuse(&child(pointer, other), problem));
        }
        let mut profile = Map::new();
        for (keyword, value) in keywords {
            let at = child(pointer, keyword);
            let value = match keyword.as_str() {
                "$ref" => Value::String(format!("#/$defs/{}", self.reference(&at, value)?)),
                // No more items than those that are named.
                "items" if *value == false && keywords.get("prefixItems").is_some_and(Value::is_array) => {
                    continue;
                }
                "items" | "propertyNames" => self.schema(&at, value, false)?,
                "additionalProperties" if value.is_boolean() => value.clone(),
                "additionalProperties" => self.schema(&at, value, false)?,
                "properties" => self.properties(&at, value, keywords)?,
                "oneOf" | "anyOf" | "prefixItems" => self.schemas(&at, value)?,
                "allOf" if value.as_array().is_some_and(|parts| parts.len() == 1) => {
                    self.schemas(&at, value)?
                }
                "allOf" => return Err(self.refuse(&at, "`allOf` of several schemas is not supported")),
                keyword if LEFT_OUT.contains(&keyword) => continue,
                keyword if ASSERTIONS.contains(&keyword) || keyword.starts_with("x-") => value.clone(),
                _ => return Err(self.refuse(&at, format!("the keyword `{keyword}` is not supported"))),
            };
            profile.insert(keyword.clone(), value);
        }
        self.required(pointer, &profile)?;
        if keywords.get("items") == Some(&Value::Bool(false))
            && let Some(named) = profile.get("prefixItems").and_then(Value::as_array).map(Vec::len)
            && profile
                .get("maxItems")
                .and_then(Value::as_u64)
                .is_none_or(|most| most > named as u64)
        {
            profile.insert("maxItems".into(), json!(named));
        }
        if optional {
            remove_null(&mut profile);
        }
        if profile.contains_key("properties") && !profile.contains_key("type") {
            profile.insert("type".into(), "object".into());
        }
        bound_integers(&mut profile);
        match profile.get("format").and_then(Value::as_str) {
            // Zod prints its own pattern beside the format, which Pydantic can't hold against a datetime and
            // which lacks the times that the edge takes.
            Some("date-time") => drop(profile.remove("pattern")),
            Some(format) if NUMBER_FORMATS.contains(&format) => drop(profile.remove("format")),
            _ => {}
        }
        Ok(Value::Object(profile))
    }

    fn properties(
        &mut self,
        pointer: &str,
        properties: &'a Value,
        object: &Map<String, Value>,
    ) -> Result<Value, FamilyError> {
        let Value::Object(properties) = properties else {
            return Err(self.refuse(pointer, "`properties` is an object"));
        };
        let required = |name: &str| {
            let required = object.get("required").and_then(Value::as_array);
            required.is_some_and(|required| required.iter().any(|other| other == name))
        };
        let read = |(name, schema): (&String, &'a Value)| {
            let schema = self.schema(&child(pointer, name), schema, !required(name))?;
            Ok((name.clone(), schema))
        };
        properties.iter().map(read).collect()
    }

    fn schemas(&mut self, pointer: &str, schemas: &'a Value) -> Result<Value, FamilyError> {
        let Value::Array(schemas) = schemas else {
            return Err(self.refuse(pointer, "this is an array of schemas"));
        };
        let read = |(index, schema)| self.schema(&format!("{pointer}/{index}"), schema, false);
        schemas.iter().enumerate().map(read).collect()
    }

    /// A field that must be there is one that is described.
    fn required(&self, pointer: &str, profile: &Map<String, Value>) -> Result<(), FamilyError> {
        let Some(required) = profile.get("required") else {
            return Ok(());
        };
        let at = child(pointer, "required");
        let Value::Array(required) = required else {
            return Err(self.refuse(&at, "`required` is an array of names"));
        };
        for (index, name) in required.iter().enumerate() {
            let known = name
                .as_str()
                .and_then(|name| profile.get("properties")?.get(name));
            if known.is_none() {
                let problem = format!("{name} is required and not among `properties`");
                return Err(self.refuse(&format!("{at}/{index}"), problem));
            }
        }
        Ok(())
    }
}

/// The name of the definition that a schema in the profile refers to.
pub(crate) fn referenced(schema: &Value) -> Option<&str> {
    schema.get("$ref")?.as_str()?.strip_prefix("#/$defs/")
}

/// The schemas right inside a schema.
fn subschemas(schema: &Value) -> impl Iterator<Item = &Value> {
    let single = ["items", "propertyNames", "additionalProperties"]
        .into_iter()
        .filter_map(|keyword| schema.get(keyword));
    let listed = ["oneOf", "anyOf", "allOf", "prefixItems"]
        .into_iter()
        .filter_map(|keyword| schema.get(keyword)?.as_array())
        .flatten();
    let named = schema.get("properties").and_then(Value::as_object);
    single
        .chain(listed)
        .chain(named.into_iter().flat_map(Map::values))
}

/// The definitions that a value must meet, or may meet, to meet this schema.
fn in_place(schema: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = referenced(schema).into_iter().collect();
    for keyword in ["oneOf", "anyOf", "allOf"] {
        for branch in schema
            .get(keyword)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            names.extend(in_place(branch));
        }
    }
    names
}

/// Takes `null` out of what a value may be.
fn remove_null(schema: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(values)) = schema.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    for keyword in ["anyOf", "oneOf"] {
        let Some(Value::Array(branches)) = schema.get_mut(keyword) else {
            continue;
        };
        branches.retain(|branch| branch.get("type").and_then(Value::as_str) != Some("null"));
        if let [Value::Object(_)] = branches.as_slice() {
            // What the field says of itself wins over what its type says.
            let only = branches.remove(0);
            schema.remove(keyword);
            for (keyword, value) in only.as_object().into_iter().flatten() {
                schema.entry(keyword).or_insert_with(|| value.clone());
            }
        }
    }
}

/// Gives integers the bounds within which JavaScript holds them exactly.
fn bound_integers(schema: &mut Map<String, Value>) {
    let is = |name: &str| match schema.get("type") {
        Some(Value::String(only)) => only == name,
        Some(Value::Array(types)) => types.iter().any(|other| other == name),
        _ => false,
    };
    if !is("integer") || is("number") {
        return;
    }
    let bound = MAX_SAFE_INTEGER as f64;
    let number = |schema: &Map<String, Value>, keyword: &str| schema.get(keyword).and_then(Value::as_f64);
    if number(schema, "maximum")
        .or(number(schema, "exclusiveMaximum"))
        .is_none_or(|maximum| maximum > bound)
    {
        schema.insert("maximum".into(), json!(MAX_SAFE_INTEGER));
    }
    if number(schema, "minimum")
        .or(number(schema, "exclusiveMinimum"))
        .is_none_or(|minimum| minimum < -bound)
    {
        schema.insert("minimum".into(), json!(-(MAX_SAFE_INTEGER as i64)));
    }
}

/// A definition's name as both SDKs can write it.
fn definition_name(raw: &str) -> String {
    let mut name: String = raw
        .chars()
        .map(|character| {
            if character.is_ascii_alphanumeric() {
                character
            } else {
                '_'
            }
        })
        .collect();
    if !name.starts_with(|first: char| first.is_ascii_alphabetic()) {
        name.insert(0, 'T');
    }
    if TAKEN.contains(&name.as_str()) {
        name.push_str("Data");
    }
    name
}

/// `order.placed` as `OrderPlaced`.
pub(crate) fn camel(name: &str) -> String {
    name.split(['.', '_', '-'])
        .flat_map(|word| {
            let mut characters = word.chars();
            characters
                .next()
                .map(|first| first.to_ascii_uppercase())
                .into_iter()
                .chain(characters)
        })
        .collect()
}

/// The pointer one step further (RFC 6901, section 3).
fn child(pointer: &str, name: &str) -> String {
    format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"))
}
