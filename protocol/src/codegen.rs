//! From the catalogue to text: schemas, the SDKs' types, the pages of codes. Pure functions; `rivulet codegen` writes the files.

mod asyncapi;
mod codes;
mod part;
mod python;
mod schemas;
mod typescript;

use serde_json::Value;

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

/// A Python module of what is not built in, for the `families` of the Python SDK's client.
pub fn python_family(catalog: &Catalog) -> String {
    python::family(catalog)
}

/// A JSON document as a file.
fn document(path: impl Into<String>, value: &Value) -> GeneratedFile {
    let text = serde_json::to_string_pretty(value).expect("a value is JSON") + "\n";
    GeneratedFile {
        path: path.into(),
        text,
    }
}
