//! From the catalogue to text: schemas, the SDKs' types, the pages of codes. Pure functions; `rivulet codegen` writes the files.

mod asyncapi;
mod codes;
mod part;
mod python;
mod schemas;
mod typescript;

use serde_json::{Map, Value};

use crate::catalog::Catalog;

/// A file that is generated and never edited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedFile {
    /// Where it stands in the project, with `/` between folders.
    pub path: String,
    /// What is in it.
    pub text: String,
}

/// Every file that comes from the catalogue.
pub fn files(catalog: &Catalog) -> Vec<GeneratedFile> {
    let mut files = schemas::files(catalog);
    files.push(asyncapi::file(catalog));
    files.extend(codes::files());
    files.push(typescript::file(catalog));
    files.push(python::file(catalog));
    files
}

/// A TypeScript module of what is not built in, for the `families` of the TypeScript SDK's client.
pub fn typescript_family(catalog: &Catalog) -> String {
    typescript::family(catalog)
}

/// A Python module of what is not built in, for the `families` of the Python SDK's client.
pub fn python_family(catalog: &Catalog) -> String {
    python::family(catalog)
}

/// The families that are not built in, by name, each as its file was given: nothing of what a generator needs is
/// lost, as it would be in the merged schemas.
pub fn families(catalog: &Catalog) -> GeneratedFile {
    let builtin = Catalog::builtin();
    let is_builtin = |name: &str| builtin.families().iter().any(|family| family.name == name);
    let families = catalog.families().iter();
    let files: Map<String, Value> = families
        .filter(|family| !is_builtin(&family.name))
        .map(|family| (family.name.clone(), family.file.clone()))
        .collect();
    document("schemas/families.json", &Value::Object(files))
}

/// A JSON document as a file.
fn document(path: impl Into<String>, value: &Value) -> GeneratedFile {
    let text = serde_json::to_string_pretty(value).expect("a value is JSON") + "\n";
    GeneratedFile {
        path: path.into(),
        text,
    }
}
