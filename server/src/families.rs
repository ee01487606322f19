//! Users' own families: the files that the catalogue has beside the built-in families.

use std::{fs, io, path::Path};

use rivulet_protocol::catalog::Catalog;
use serde_json::{Map, Value};

/// The ending of a family's file; what stands before it is the family's name.
const ENDING: &str = "json";

/// Reads every `*.json` of a directory as a family, in the order of their names, beside the built-in ones.
///
/// # Errors
/// One line for each file that can't be read or is refused, with the file and the place in it.
pub fn from_directory(directory: &Path) -> Result<Catalog, Vec<String>> {
    let files = files(directory).map_err(|error| vec![error.to_string()])?;
    if files.is_empty() {
        return Err(vec![format!(
            "there is no *.{ENDING} in it: a family is a file, by its name"
        )]);
    }
    let read = |(name, file): (String, String)| {
        let schema = match fs::read(directory.join(&file)) {
            Err(error) => Err(error.to_string()),
            Ok(text) => serde_json::from_slice(&text).map_err(|error| error.to_string()),
        };
        (file, name, schema)
    };
    catalog_of(files.into_iter().map(read))
}

/// Takes the families that a router serves ([`rivulet_protocol::codegen::families`]), beside the built-in ones.
///
/// # Errors
/// One line for each family that is refused, with the place in its file.
pub fn from_served(families: Map<String, Value>) -> Result<Catalog, Vec<String>> {
    catalog_of(
        families
            .into_iter()
            .map(|(name, schema)| (name.clone(), name, Ok(schema))),
    )
}

/// The built-in families and these: how errors call each, its name, and its schema if it could be read.
fn catalog_of(
    families: impl Iterator<Item = (String, String, Result<Value, String>)>,
) -> Result<Catalog, Vec<String>> {
    let mut catalog = Catalog::builtin();
    let mut problems = Vec::new();
    for (called, name, schema) in families {
        let added = schema.and_then(|schema| add(&mut catalog, &name, schema));
        problems.extend(added.err().map(|problem| format!("{called}: {problem}")));
    }
    if problems.is_empty() {
        Ok(catalog)
    } else {
        Err(problems)
    }
}

/// The error says the place, and leaves it to the caller to say the file.
fn add(catalog: &mut Catalog, name: &str, schema: Value) -> Result<(), String> {
    catalog
        .add_family(name, schema)
        .map_err(|error| match error.pointer.as_str() {
            "" => error.problem,
            pointer => format!("at {pointer}: {}", error.problem),
        })
}

/// The families' names and their files', sorted: every node has them in the same order.
fn files(directory: &Path) -> io::Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        // Another name than text is refused as a family's name, with the character that stands for it.
        let file = entry?.file_name().to_string_lossy().into_owned();
        // What editors leave begins with a dot.
        if let Some((name, ENDING)) = file.rsplit_once('.')
            && !name.starts_with('.')
            && !name.is_empty()
        {
            files.push((name.to_owned(), file));
        }
    }
    files.sort();
    Ok(files)
}
