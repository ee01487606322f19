//! What a run is kept as: where, with what and how it was measured, and every figure of every repetition.

use std::{path::Path, process::Command};

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::figures::{Figures, Results};

/// Where and with what a run was measured.
pub(crate) struct Circumstances {
    began: Timestamp,
    commit: String,
    machine: Value,
    versions: Value,
    load_before: String,
}

/// The project's root.
pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

impl Circumstances {
    /// Looks around before a run.
    pub(crate) fn look() -> Self {
        let mut commit = said_by("git", &["rev-parse", "--short", "HEAD"]);
        if !said_by("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty() {
            commit += "+";
        }
        let package = |name: &str| {
            let file = root().join("node_modules").join(name).join("package.json");
            let package: Option<Value> = std::fs::read(file)
                .ok()
                .and_then(|bytes| serde_json::from_slice(&bytes).ok());
            package.map_or(Value::Null, |package| package["version"].clone())
        };
        let rivulet = std::env::current_exe().map(|program| program.with_file_name("rivulet"));
        let rivulet = rivulet.map_or(String::new(), |program| {
            said_by(&program.display().to_string(), &["--version"])
        });
        let nats = rivulet_tests::nats::binary().display().to_string();
        Self {
            began: Timestamp::now(),
            commit,
            machine: json!({
                "processors": std::thread::available_parallelism().map_or(0, usize::from),
                "model": of_file("/proc/cpuinfo", "model name"),
                "memory": of_file("/proc/meminfo", "MemTotal"),
                "kernel": said_by("uname", &["-sr"]),
            }),
            versions: json!({
                "rivulet": rivulet,
                "nats-server": said_by(&nats, &["--version"]),
                "node": said_by("node", &["--version"]),
                "ws": package("ws"),
                "socket.io": package("socket.io"),
                "bun": said_by(&root().join(".tools/bin/bun").display().to_string(), &["--version"]),
            }),
            load_before: load(),
        }
    }

    /// `2026-01-31-abc1234`
    pub(crate) fn name(&self) -> String {
        format!("{}-{}", self.began.strftime("%Y-%m-%d"), self.commit)
    }

    /// The run as JSON.
    pub(crate) fn record(&self, rows: Vec<Value>, goals: Vec<Value>) -> Value {
        json!({
            "began": self.began.to_string(),
            "commit": self.commit,
            "command": command_line(),
            "machine": self.machine,
            "versions": self.versions,
            "load_average": { "before": self.load_before, "after": load() },
            "rows": rows,
            "targets": goals,
        })
    }

    /// The same in a sentence or two, before a table.
    pub(crate) fn say(&self) -> String {
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let (machine, versions) = (&self.machine, &self.versions);
        format!(
            "{}, commit {}: `{}`. {} processors ({}), {}; {}, {}, Node {}, ws {}, Socket.IO {}, Bun {}. Load average of the \
             machine {} before and {} after. Median (least–most); ratios are of pairs within a repetition.\n",
            self.began.strftime("%Y-%m-%d"),
            self.commit,
            command_line(),
            machine["processors"],
            text(&machine["model"]),
            text(&machine["kernel"]),
            text(&versions["rivulet"]),
            text(&versions["nats-server"]),
            text(&versions["node"]),
            text(&versions["ws"]),
            text(&versions["socket.io"]),
            text(&versions["bun"]),
            self.load_before,
            load(),
        )
    }
}

/// A row's results as JSON.
pub(crate) fn of_results(letter: &str, title: &str, results: &Results) -> Value {
    let contestants = results.contestants.iter().map(|(name, repetitions)| {
        let repetitions: Vec<Value> = repetitions.iter().map(of_figures).collect();
        (name.clone(), json!(repetitions))
    });
    json!({ "row": letter, "title": title, "contestants": contestants.collect::<Map<_, _>>() })
}

fn of_figures(figures: &Figures) -> Value {
    let mut object: Map<String, Value> = figures
        .all()
        .map(|(name, value)| (name.to_owned(), json!(value)))
        .collect();
    object.insert("void".into(), json!(!figures.faults.is_none()));
    if !figures.faults.is_none() {
        object.insert("faults".into(), json!(figures.faults.say()));
    }
    if !figures.remarks.is_empty() {
        object.insert("remarks".into(), json!(figures.remarks));
    }
    Value::Object(object)
}

/// Writes a file of the project.
pub(crate) fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    let folder = file.parent().context("a file in a folder")?;
    std::fs::create_dir_all(folder)?;
    std::fs::write(file, text).with_context(|| format!("can't write {}", file.display()))?;
    println!("written: {}", file.strip_prefix(root()).unwrap_or(file).display());
    Ok(())
}

/// As one types it: the recipe builds what is to be measured.
fn command_line() -> String {
    std::iter::once("./just bench".to_owned())
        .chain(std::env::args().skip(1))
        .collect::<Vec<_>>()
        .join(" ")
}

fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}

fn of_file(file: &str, field: &str) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.split_once(':'))
        .map_or(String::new(), |(_, value)| value.trim().to_owned())
}

/// What a program says in its first line; nothing where it is not there.
fn said_by(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(root()).output();
    let text = output.map_or(String::new(), |output| {
        String::from_utf8_lossy(&output.stdout).into_owned()
    });
    text.lines().next().unwrap_or_default().trim().to_owned()
}
