//! `rivulet codegen`: write what is generated from the types, the project's own or a user's families'.

mod fetch;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use rivulet_protocol::{catalog::Catalog, codegen};
use rivulet_router::{config, families, metrics};
use url::Url;

use super::{Failure, block_on, print};

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Codegen {
    /// Write one file for this language's SDK, of families that are not built in [default: the project's own files]
    #[arg(long, value_enum)]
    lang: Option<Language>,
    /// The families: every `*.json` in here is one, by its name
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "from")]
    families: Option<PathBuf>,
    /// The families: those of the router at this address
    #[arg(long, value_name = "URL", value_parser = fetch::address)]
    from: Option<Url>,
    /// The file, with --lang; without, below which directory the project's files stand [default: the project's own tree]
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    /// Write nothing; exit 1 if a file is not as it would be written
    #[arg(long)]
    check: bool,
}

/// What only the project's own tree has.
const SOURCE: &str = "protocol/src/codegen";

/// For which SDK.
#[derive(Clone, Copy, ValueEnum)]
enum Language {
    /// TypeScript
    Ts,
    /// Python
    Python,
}

const AFTER_HELP: &str = "\
Examples:
  rivulet codegen --lang ts --families families/ --out src/shop.ts
  rivulet codegen --lang python --from https://events.example.com --out shop.py
  rivulet codegen --lang ts --families families/ --out src/shop.ts --check    as CI runs it
  rivulet codegen            in the project's own tree, what `./just gen` runs
  rivulet codegen --check    what `./just check` runs";

impl Codegen {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match (self.lang, self.families.is_some() || self.from.is_some()) {
            (Some(language), true) => self.write_families(language),
            (Some(_), false) => {
                usage("--lang needs --families DIRECTORY or --from URL: whose types to write")
            }
            (None, true) => usage("--families and --from need --lang ts or --lang python"),
            (None, false) => self.write_project(),
        }
    }

    /// One file of what users have declared.
    fn write_families(self, language: Language) -> Result<(), Failure> {
        let Some(out) = &self.out else {
            return usage("--lang needs --out FILE: where to write");
        };
        let (catalog, of) = match (&self.families, &self.from) {
            (Some(directory), _) => (
                families::from_directory(directory),
                format!("--families {}", directory.display()),
            ),
            (None, Some(router)) => {
                let served = block_on(fetch::families(router))??;
                (families::from_served(served), format!("--from {router}"))
            }
            (None, None) => unreachable!("one of them is given"),
        };
        let catalog =
            catalog.map_err(|problems| Failure::other(format_args!("{of}:\n  {}", problems.join("\n  "))))?;
        let (text, name) = match language {
            Language::Ts => (codegen::typescript_family(&catalog), "ts"),
            Language::Python => (codegen::python_family(&catalog), "python"),
        };
        if is_current(out, &text) {
            return Ok(());
        }
        let file = out.display();
        if self.check {
            return Err(Failure::other(format_args!(
                "{file} is stale; this writes it anew:\n  rivulet codegen --lang {name} {of} --out {file}"
            )));
        }
        write(out, &text)?;
        print(format_args!("wrote {file}"))?;
        Ok(())
    }

    /// The project's own files.
    fn write_project(self) -> Result<(), Failure> {
        // Some forty files, a `docs/` among them: nothing for a directory that happens to be somebody's.
        if self.out.is_none() && !Path::new(SOURCE).is_dir() {
            return usage(
                "this is not the project's own tree. Types for families of your own: --lang ts or python, with \
                 --families DIRECTORY or --from URL, and --out FILE. The project's files all the same: --out DIRECTORY",
            );
        }
        let project = self.out.unwrap_or_else(|| ".".into());
        let mut stale = Vec::new();
        for (path, text) in generated() {
            let file = project.join(&path);
            if is_current(&file, &text) {
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

fn usage(why: &str) -> Result<(), Failure> {
    Err(Failure::Usage(why.to_owned()))
}

/// Every generated file of the project, by its path in it.
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

fn is_current(file: &Path, text: &str) -> bool {
    fs::read_to_string(file).is_ok_and(|found| found == text)
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
