//! From file, environment and flags to one raw configuration, with the place of every value.
//!
//! Defaults are overridden by the file, that by the environment, that by flags. Every layer is examined whole,
//! also where a later one overrides it: what is written wrong is wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Map, Number, Value};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    key::{self, Field, Key, Kind},
    problem::{Origin, Problem},
    raw::Raw,
};

/// The variables that are no keys: where the file is, and what `rivulet tail` goes by.
pub(super) const OTHER_VARIABLES: [(&str, &str); 3] = [
    ("RIVULET_CONFIG", "the configuration file, as `--config`"),
    (
        "RIVULET_URL",
        "the router that `rivulet tail` and `rivulet bench` connect to, as `--url`",
    ),
    (
        "RIVULET_TOKEN",
        "the token that `rivulet tail` connects with, as `--token`",
    ),
];

/// What the configuration is read from.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// The environment; only names that begin with `RIVULET_` count.
    pub variables: Vec<(String, String)>,
    /// The flags, in their order.
    pub flags: Vec<Flag>,
}

/// A flag that sets a key.
#[derive(Clone)]
pub struct Flag {
    /// As it was typed: `--listen`.
    pub name: String,
    /// The key that it sets.
    pub key: String,
    /// To what.
    pub value: String,
}

/// The value may be a secret.
impl std::fmt::Debug for Flag {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Flag({} {})", self.name, self.key)
    }
}

impl Inputs {
    /// A file, and the environment of this process.
    pub fn from_environment(file: Option<PathBuf>) -> Self {
        let readable = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let mut variables: Vec<_> = std::env::vars_os()
            .map(|(name, value)| (readable(name), readable(value)))
            .collect();
        variables.sort();
        Self {
            file,
            variables,
            flags: Vec::new(),
        }
    }

    /// Adds a flag `--set key=value`.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.flags.push(Flag {
            name: format!("--set {key}"),
            key: key.to_owned(),
            value: value.to_owned(),
        });
        self
    }
}

/// What was found in the inputs.
pub(super) struct Found {
    /// Every value that could be read; defaults where one couldn't.
    pub(super) raw: Raw,
    /// Where values were written.
    pub(super) origins: Origins,
    /// The keys with a value that could not be read.
    pub(super) faulty: BTreeSet<String>,
    pub(super) problems: Vec<Problem>,
}

/// Where values were written, by path.
#[derive(Default)]
pub(super) struct Origins(BTreeMap<String, Origin>);

impl Origins {
    /// Where the value at this path, or the whole that it is part of, was written.
    pub(super) fn of(&self, path: &str) -> Origin {
        let mut path = path;
        loop {
            match (self.0.get(path), path.rfind(['.', '['])) {
                (Some(origin), _) => return origin.clone(),
                (None, Some(end)) => path = &path[..end],
                (None, None) => return Origin::Default,
            }
        }
    }

    /// Whether this very key was written.
    pub(super) fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }
}

/// Reads all inputs.
pub(super) fn read(inputs: &Inputs) -> Found {
    let mut layers = Layers {
        tree: serde_json::to_value(Raw::default()).expect("the defaults are plain values"),
        origins: Origins::default(),
        faulty: BTreeSet::new(),
        problems: Vec::new(),
    };
    if let Some(path) = &inputs.file {
        layers.add_file(path);
    }
    layers.add_variables(&inputs.variables);
    layers.add_flags(&inputs.flags);
    Found {
        raw: serde_json::from_value(layers.tree).expect("what was examined is of the description"),
        origins: layers.origins,
        faulty: layers.faulty,
        problems: layers.problems,
    }
}

struct Layers {
    tree: Value,
    origins: Origins,
    faulty: BTreeSet<String>,
    problems: Vec<Problem>,
}

impl Layers {
    /// The file that may name the keys for tokens can't be read: that there is none is not said on top of it.
    fn keys_unknown(&mut self) {
        self.faulty.insert("jwt_secret".to_owned());
    }

    fn add_file(&mut self, path: &Path) {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                self.keys_unknown();
                return self.problems.push(Problem {
                    key: path.display().to_string(),
                    value: None,
                    origin: Origin::Default,
                    message: format!("the configuration file can't be read: {error}"),
                });
            }
        };
        let file = File { path, text: &text };
        let (table, errors) = DeTable::parse_recoverable(&text);
        for error in &errors {
            let origin = file.origin(error.span().map_or(0, |span| span.start));
            self.problems.push(Problem {
                key: "TOML".to_owned(),
                value: None,
                origin,
                // Not the error's `Display`, which quotes the line: a secret may stand there.
                message: error.message().to_owned(),
            });
        }
        if !errors.is_empty() {
            self.keys_unknown();
        } else {
            self.add_table(&file, "", table.get_ref(), key::description());
        }
    }

    fn add_table(&mut self, file: &File<'_>, prefix: &str, table: &DeTable<'_>, fields: &'static [Field]) {
        for (name, value) in table {
            let path = format!("{prefix}{}", name.get_ref());
            let origin = file.origin(name.span().start);
            let field = fields.iter().find(|field| field.name == **name.get_ref());
            match (field.map(|field| &field.kind), value.get_ref()) {
                (Some(Kind::Table(inner)), DeValue::Table(table)) => {
                    self.add_table(file, &format!("{path}."), table, inner);
                }
                (Some(Kind::Table(_)), value) => self.problems.push(Problem {
                    value: Some(shown(&json(value), false)),
                    origin,
                    message: format!("allowed is one table, [{path}]"),
                    key: path,
                }),
                (Some(_), _) => {
                    let key = key::find(&path).expect("a field that is no table is a key");
                    self.set(key, json(value.get_ref()), origin, |origins| {
                        file.record(&path, value, origins);
                    });
                }
                (None, _) => self.unknown(path, origin),
            }
        }
    }

    fn add_variables(&mut self, variables: &[(String, String)]) {
        for (name, text) in variables.iter().filter(|(name, _)| name.starts_with("RIVULET_")) {
            let origin = Origin::Variable(name.clone());
            match key::keys().iter().find(|key| key.variable == *name) {
                // What `docker compose` and shells leave of a variable that is not set.
                Some(_) if text.is_empty() => {}
                Some(key) => self.set_text(key, text, origin),
                None if OTHER_VARIABLES.iter().any(|(other, _)| other == name) => {}
                None if is_of_kubernetes(name, text) => {}
                None => {
                    let meant = key::nearest(name, key::keys().iter().map(|key| key.variable.as_str()));
                    self.problems.push(Problem {
                        key: name.clone(),
                        value: None,
                        origin: Origin::Default,
                        message: format!("no key has this variable{}", did_you_mean(meant)),
                    });
                }
            }
        }
    }

    fn add_flags(&mut self, flags: &[Flag]) {
        for flag in flags {
            let origin = Origin::Flag(flag.name.clone());
            match key::find(&flag.key) {
                Some(key) => self.set_text(key, &flag.value, origin),
                None => self.unknown(flag.key.clone(), origin),
            }
        }
    }

    fn set_text(&mut self, key: &'static Key, text: &str, origin: Origin) {
        match from_text(&key.field.kind, text) {
            Some(value) => self.set(key, value, origin, |_| {}),
            None => {
                let masked = key.field.secret || key.field.kind.holds_a_secret();
                self.problems.push(Problem {
                    key: key.path.clone(),
                    value: Some(shown(&Value::from(text), masked)),
                    origin,
                    message: format!("allowed is {}, written as JSON or inline TOML", key.field.kind),
                });
                self.faulty.insert(key.path.clone());
            }
        }
    }

    /// Puts a value into the tree, if it is of its kind.
    fn set(
        &mut self,
        key: &'static Key,
        mut value: Value,
        origin: Origin,
        record_parts: impl FnOnce(&mut Origins),
    ) {
        // What an earlier layer said of its parts is no longer so.
        let part = |path: &str| {
            path.strip_prefix(&key.path)
                .is_some_and(|rest| rest.starts_with(['.', '[']))
        };
        self.origins.0.retain(|path, _| !part(path));
        self.origins.0.insert(key.path.clone(), origin);
        record_parts(&mut self.origins);

        let before = self.problems.len();
        self.examine(&key.path, &key.field.kind, key.field.secret, &mut value);
        if self.problems.len() > before {
            self.faulty.insert(key.path.clone());
            return;
        }
        let mut place = &mut self.tree;
        for name in key.path.split('.') {
            place = &mut place[name];
        }
        *place = value;
    }

    /// Reports whatever in a value is not of its kind.
    fn examine(&mut self, path: &str, kind: &Kind, secret: bool, value: &mut Value) {
        if let (Kind::List(item), Value::String(text)) = (kind, &*value)
            && !matches!(**item, Kind::Table(_))
        {
            *value = split(text);
        }
        let good = match (kind, &mut *value) {
            (Kind::Boolean, value) => value.is_boolean(),
            (Kind::Integer { min, max }, value) => value
                .as_u64()
                .is_some_and(|number| (*min..=*max).contains(&number)),
            (Kind::Duration { min, max }, value) => {
                let read = value.as_str().and_then(|text| text.parse().ok());
                read.is_some_and(|span| (*min..=*max).contains(&span))
            }
            (Kind::Size { min, max }, value) => {
                serde_json::from_value(value.clone()).is_ok_and(|size| (*min..=*max).contains(&size))
            }
            (Kind::Choice(choices), value) => value
                .as_str()
                .is_some_and(|text| choices.iter().any(|choice| choice == text)),
            (Kind::Text(_), value) => value.as_str().is_some_and(|text| !text.is_empty()),
            (Kind::List(kind), Value::Array(items)) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.examine(&format!("{path}[{index}]"), kind, secret, item);
                }
                true
            }
            (Kind::Named(fields), Value::Object(tables)) => {
                for (name, table) in tables {
                    self.examine_table(&format!("{path}.{name}"), fields, table);
                }
                true
            }
            (Kind::Table(fields), table) => {
                self.examine_table(path, fields, table);
                true
            }
            _ => false,
        };
        if !good {
            self.problems.push(Problem {
                key: path.to_owned(),
                value: Some(shown(value, secret || kind.holds_a_secret())),
                origin: self.origins.of(path),
                message: format!("allowed is {kind}"),
            });
        }
    }

    fn examine_table(&mut self, path: &str, fields: &[Field], value: &mut Value) {
        let Value::Object(table) = value else {
            let masked = fields.iter().any(|field| field.secret);
            return self.problems.push(Problem {
                key: path.to_owned(),
                value: Some(shown(value, masked)),
                origin: self.origins.of(path),
                message: "allowed is a table".to_owned(),
            });
        };
        // JSON writes null for what isn't there.
        table.retain(|_, value| !value.is_null());
        for (name, value) in table.iter_mut() {
            let path = format!("{path}.{name}");
            match fields.iter().find(|field| field.name == *name) {
                Some(field) => self.examine(&path, &field.kind, field.secret, value),
                None => {
                    let names = fields.iter().map(|field| field.name.as_str());
                    let meant = did_you_mean(key::nearest(name, names));
                    self.problems.push(Problem {
                        value: None,
                        origin: self.origins.of(&path),
                        message: format!("there is no such key{meant}"),
                        key: path,
                    });
                }
            }
        }
        for field in fields
            .iter()
            .filter(|field| field.required && !table.contains_key(&field.name))
        {
            self.problems.push(Problem {
                key: format!("{path}.{}", field.name),
                value: None,
                origin: self.origins.of(path),
                message: format!("is missing; allowed is {}", field.kind),
            });
        }
    }

    fn unknown(&mut self, path: String, origin: Origin) {
        let meant = key::nearest(&path, key::keys().iter().map(|key| key.path.as_str()));
        self.problems.push(Problem {
            key: path,
            value: None,
            origin,
            message: format!("there is no such key{}", did_you_mean(meant)),
        });
    }
}

/// A file while it is read.
struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    fn origin(&self, offset: usize) -> Origin {
        let before = self.text.as_bytes().iter().take(offset);
        Origin::File {
            path: self.path.to_owned(),
            line: 1 + before.filter(|byte| **byte == b'\n').count(),
        }
    }

    /// Records where the parts of a value stand.
    fn record(&self, path: &str, value: &Spanned<DeValue<'_>>, origins: &mut Origins) {
        match value.get_ref() {
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    origins.0.insert(path.clone(), self.origin(item.span().start));
                    self.record(&path, item, origins);
                }
            }
            DeValue::Table(table) => {
                for (name, value) in table {
                    let path = format!("{path}.{}", name.get_ref());
                    origins.0.insert(path.clone(), self.origin(name.span().start));
                    self.record(&path, value, origins);
                }
            }
            _ => {}
        }
    }
}

/// A value as it may be shown: secrets are masked, and what a URL holds before its host; long ones are cut.
pub(super) fn shown(value: &Value, secret: bool) -> String {
    const LONGEST: usize = 100;
    let text = value.to_string();
    if secret || (text.contains("://") && text.contains('@')) {
        return "***".to_owned();
    }
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Reads a value of the environment or of a flag. `None`: it is neither JSON nor TOML where one is needed.
fn from_text(kind: &Kind, text: &str) -> Option<Value> {
    let word = || Value::from(text);
    Some(match kind {
        Kind::Boolean => text.parse::<bool>().map_or_else(|_| word(), Value::from),
        Kind::Integer { .. } => text.parse::<u64>().map_or_else(|_| word(), Value::from),
        Kind::Duration { .. } | Kind::Size { .. } | Kind::Choice(_) | Kind::Text(_) => word(),
        Kind::List(item) if !matches!(**item, Kind::Table(_)) && !text.trim_start().starts_with('[') => {
            word()
        }
        Kind::List(_) | Kind::Named(_) | Kind::Table(_) => match serde_json::from_str(text) {
            Ok(value) => value,
            Err(_) => json(DeValue::parse(text).ok()?.get_ref()),
        },
    })
}

/// The items of a list written as one text.
fn split(text: &str) -> Value {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .collect()
}

/// The same value in JSON. What JSON does not have becomes the text that it was.
fn json(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::from(&**text),
        DeValue::Boolean(boolean) => Value::from(*boolean),
        DeValue::Integer(integer) => {
            let text = integer.as_str();
            let number = i128::from_str_radix(text, integer.radix()).ok();
            number
                .and_then(Number::from_i128)
                .map_or_else(|| Value::from(text), Value::Number)
        }
        DeValue::Float(float) => {
            let number = float.as_str().parse().ok().and_then(Number::from_f64);
            number.map_or_else(|| Value::from(float.as_str()), Value::Number)
        }
        DeValue::Datetime(datetime) => Value::from(datetime.to_string()),
        DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect(),
        DeValue::Table(table) => {
            let entry = |(name, value): (&Spanned<_>, &Spanned<_>)| {
                (
                    String::from(&**AsRef::<std::borrow::Cow<'_, str>>::as_ref(name)),
                    json(value.get_ref()),
                )
            };
            Value::Object(table.iter().map(entry).collect::<Map<_, _>>())
        }
    }
}

fn did_you_mean(name: Option<&str>) -> String {
    name.map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

/// Whether Kubernetes sets this variable in every pod beside a service that is called `rivulet` or `rivulet-…`:
/// `RIVULET_SERVICE_HOST`, `RIVULET_PORT=tcp://10.0.0.1:8010`, `RIVULET_PORT_8010_TCP_ADDR`.
fn is_of_kubernetes(name: &str, text: &str) -> bool {
    let numbered_port = || {
        let after = name.split("_PORT_").nth(1)?;
        Some(after.starts_with(|character: char| character.is_ascii_digit()))
    };
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.ends_with("_PORT") && text.contains("://"))
        || numbered_port() == Some(true)
}
