//! The keys of the configuration, read off its one description.

use std::{fmt, sync::LazyLock};

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::{
    raw::Raw,
    scalar::{Size, Span},
};

/// A field of a table.
#[derive(Debug)]
pub(super) struct Field {
    /// Its name within the table.
    pub(super) name: String,
    /// What it is, in Markdown, one paragraph.
    pub(super) doc: String,
    /// What it may hold.
    pub(super) kind: Kind,
    /// What it holds when nothing is written; null: nothing.
    pub(super) default: Value,
    /// Whether it must be written.
    pub(super) required: bool,
    /// Whether it is never shown.
    pub(super) secret: bool,
}

/// What a field may hold.
#[derive(Debug)]
pub(super) enum Kind {
    Boolean,
    Integer {
        min: u64,
        max: u64,
    },
    Duration {
        min: Span,
        max: Span,
    },
    Size {
        min: Size,
        max: Size,
    },
    Choice(Vec<String>),
    /// A text, and which ones in words.
    Text(String),
    List(Box<Kind>),
    /// Tables by names of the operator's choice.
    Named(Vec<Field>),
    Table(Vec<Field>),
}

/// A setting that a file, a variable and a flag can each name: every leaf of the description, a list of tables
/// being one.
#[derive(Debug)]
pub(super) struct Key {
    /// `limits.ping.burst`
    pub(super) path: String,
    /// `RIVULET_LIMITS_PING_BURST`
    pub(super) variable: String,
    pub(super) field: &'static Field,
}

/// The whole description as one table.
pub(super) fn description() -> &'static [Field] {
    static FIELDS: LazyLock<Vec<Field>> = LazyLock::new(|| {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.inline_subschemas = true;
            settings.meta_schema = None;
        });
        let schema = settings.into_generator().into_root_schema_for::<Raw>().to_value();
        let default = serde_json::to_value(Raw::default()).expect("the defaults are plain values");
        fields(&schema, &default)
    });
    &FIELDS
}

/// Every key, in the order of the description.
pub(super) fn keys() -> &'static [Key] {
    static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
        let mut keys = Vec::new();
        collect("", description(), &mut keys);
        keys
    });
    &KEYS
}

/// The key of this path.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    keys().iter().find(|key| key.path == path)
}

/// The one of `names` that was probably meant: few enough letters away.
pub fn nearest<'a>(written: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|name| (strsim::damerau_levenshtein(written, name), name))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, name)| *distance <= name.len().div_ceil(4))
        .map(|(_, name)| name)
}

impl Kind {
    /// Whether a part of it is never shown.
    pub(super) fn holds_a_secret(&self) -> bool {
        match self {
            Self::List(item) => item.holds_a_secret(),
            Self::Named(fields) | Self::Table(fields) => fields
                .iter()
                .any(|field| field.secret || field.kind.holds_a_secret()),
            _ => false,
        }
    }
}

/// What is allowed, in words that follow "allowed is".
impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => formatter.write_str("true or false"),
            Self::Integer { min, max } => write!(formatter, "a whole number from {min} to {max}"),
            Self::Duration { min, max } => write!(formatter, "a duration from {min} to {max}"),
            Self::Size { min, max } => write!(formatter, "a size from {min} to {max}"),
            Self::Choice(choices) => write!(formatter, "one of {}", choices.join(", ")),
            Self::Text(allowed) => formatter.write_str(allowed),
            Self::List(item) => match &**item {
                Self::Table(_) => formatter.write_str("a list of tables"),
                item => write!(formatter, "a list of: {item}"),
            },
            Self::Named(_) => formatter.write_str("a table of tables, each under a name of your choice"),
            Self::Table(_) => formatter.write_str("one table"),
        }
    }
}

fn collect(prefix: &str, fields: &'static [Field], keys: &mut Vec<Key>) {
    for field in fields {
        let path = format!("{prefix}{}", field.name);
        match &field.kind {
            Kind::Table(inner) => collect(&format!("{path}."), inner, keys),
            _ => keys.push(Key {
                variable: format!("RIVULET_{}", path.replace('.', "_").to_uppercase()),
                path,
                field,
            }),
        }
    }
}

fn fields(schema: &Value, default: &Value) -> Vec<Field> {
    let required = schema["required"].as_array().map_or(&[][..], Vec::as_slice);
    let properties = schema["properties"].as_object().into_iter().flatten();
    properties
        .map(|(name, property)| {
            let default = default.get(name).unwrap_or(&property["default"]);
            Field {
                name: name.clone(),
                doc: property["description"].as_str().expect(name).to_owned(),
                kind: kind(name, property, default),
                default: default.clone(),
                required: required.iter().any(|required| required == name),
                secret: property["x-secret"] == true,
            }
        })
        .collect()
}

/// Reads a property's kind. Panics on a description that says too little, which every start would show.
fn kind(name: &str, property: &Value, default: &Value) -> Kind {
    // An optional field is `anyOf` the thing and null, or of two types.
    let shape = property["anyOf"]
        .as_array()
        .and_then(|options| options.iter().find(|option| option["type"] != "null"))
        .unwrap_or(property);
    let shape_type = match &shape["type"] {
        Value::Array(types) => types[0].as_str(),
        other => other.as_str(),
    };
    let bound = |name: &str| property[name].as_str().unwrap_or_default();
    let choices = shape["enum"].as_array();
    match (shape_type, shape["x-kind"].as_str(), choices) {
        (_, Some("duration"), _) => Kind::Duration {
            min: bound("x-min").parse().expect(name),
            max: bound("x-max").parse().expect(name),
        },
        (_, Some("size"), _) => Kind::Size {
            min: bound("x-min").parse().expect(name),
            max: bound("x-max").parse().expect(name),
        },
        (_, _, Some(choices)) => Kind::Choice(
            choices
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
        ),
        (Some("boolean"), ..) => Kind::Boolean,
        (Some("integer"), ..) => Kind::Integer {
            min: property["minimum"].as_u64().expect(name),
            max: property["maximum"].as_u64().expect(name),
        },
        (Some("string"), ..) => Kind::Text(property["x-allowed"].as_str().expect(name).to_owned()),
        (Some("array"), ..) => {
            let mut item = shape["items"].clone();
            if let Some(allowed) = property.get("x-allowed") {
                item["x-allowed"] = allowed.clone();
            }
            Kind::List(Box::new(kind(name, &item, &Value::Null)))
        }
        (Some("object"), ..) if shape["additionalProperties"].is_object() => {
            Kind::Named(fields(&shape["additionalProperties"], &Value::Null))
        }
        (Some("object"), ..) => Kind::Table(fields(shape, default)),
        _ => panic!("the description of `{name}` has no kind: {property}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_key_has_a_variable_of_its_own_and_a_doc() {
        let variables: BTreeSet<_> = keys().iter().map(|key| &key.variable).collect();
        assert_eq!(variables.len(), keys().len());
        for key in keys() {
            assert!(key.field.doc.ends_with('.'), "{}", key.path);
            assert!(!key.field.doc.contains('\n'), "{}", key.path);
        }
        for (path, variable) in [
            (
                "limits.connections_per_address",
                "RIVULET_LIMITS_CONNECTIONS_PER_ADDRESS",
            ),
            ("limits.ping.burst", "RIVULET_LIMITS_PING_BURST"),
            ("listen", "RIVULET_LISTEN"),
            ("nats_url", "RIVULET_NATS_URL"),
            ("jwt_secret", "RIVULET_JWT_SECRET"),
            ("jwks_url", "RIVULET_JWKS_URL"),
            ("allowed_origins", "RIVULET_ALLOWED_ORIGINS"),
            ("data_dir", "RIVULET_DATA_DIR"),
            ("auth.keys", "RIVULET_AUTH_KEYS"),
            ("sources", "RIVULET_SOURCES"),
            ("roles", "RIVULET_ROLES"),
        ] {
            assert_eq!(find(path).expect(path).variable, variable);
        }
    }

    #[test]
    fn secrets_are_known() {
        let secret: Vec<_> = keys()
            .iter()
            .filter(|key| key.field.secret)
            .map(|key| key.path.as_str())
            .collect();
        assert_eq!(
            secret,
            ["jwt_secret", "nats.nkey_seed", "nats.password", "nats.token"]
        );
        assert!(find("auth.keys").unwrap().field.kind.holds_a_secret());
    }

    #[test]
    fn the_nearest_name_is_near() {
        let names = ["listen", "limits.max_patterns"];
        assert_eq!(nearest("lisetn", names.into_iter()), Some("listen"));
        assert_eq!(
            nearest("limit.max_pattern", names.into_iter()),
            Some("limits.max_patterns")
        );
        assert_eq!(nearest("zzz", names.into_iter()), None);
    }
}
