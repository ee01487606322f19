//! `rivulet codegen`: write what is generated from the types.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use rivulet::{config, metrics};
use rivulet_protocol::{catalog::Catalog, codegen};

use super::{Failure, print};

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Codegen {
    /// Below which directory the files stand
    #[arg(long, value_name = "DIRECTORY", default_value = ".")]
    out: PathBuf,
    /// Write nothing; exit 1 if a file is not as it would be written
    #[arg(long)]
    check: bool,
}

const AFTER_HELP: &str = "\
Examples:
  rivulet codegen            in the project's own tree, what `./just gen` runs
  rivulet codegen --check    what `./just check` runs";

impl Codegen {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut stale = Vec::new();
        for (path, text) in generated() {
            let file = self.out.join(&path);
            if fs::read_to_string(&file).is_ok_and(|found| found == text) {
                continue;
            }
            if self.check {
                stale.push(path);
            } else {
                write(&file, &text)?;
                print(format_args!("wrote {}", file.display()))?;
            }
        }
        if stale.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = stale.iter().map(|path| format!("\n  {path}")).collect();
        Err(Failure::other(format_args!(
            "stale; `./just gen` writes them anew:{}",
            names.concat()
        )))
    }
}

/// Every generated file, by its path in the project.
fn generated() -> Vec<(String, String)> {
    let of_the_protocol = codegen::files(&Catalog::builtin())
        .into_iter()
        .map(|file| (file.path, file.text));
    let of_the_server = [
        ("docs/configuration.md".to_owned(), config::reference()),
        ("docs/metrics.md".to_owned(), metrics::reference()),
    ];
    of_the_protocol.chain(of_the_server).collect()
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory).with_context(|| format!("can't make {}", directory.display()))?;
    }
    fs::write(file, text).with_context(|| format!("can't write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_generated_file_is_stale() {
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for (path, text) in generated() {
            let found = fs::read_to_string(project.join(&path)).unwrap_or_default();
            assert!(found == text, "{path} is stale: `./just gen` writes it anew");
        }
    }
}
