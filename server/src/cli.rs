//! The command line: one file per subcommand, and what they share.

mod bench;
mod check;
mod codegen;
pub(crate) mod colour;
mod health;
mod publish;
mod serve;
mod supervised;
mod tail;
mod token;
mod url;

use std::{
    env,
    ffi::OsString,
    fmt,
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use rivulet_router::config::{Config, Flag, Inputs, Problems, Purpose};

/// Carries events the last mile, from NATS subjects to every screen of the user they concern.
#[derive(Parser)]
#[command(name = "rivulet", version, max_term_width = 100, after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str = "\
Try it, in three terminals:
  rivulet serve --dev
  rivulet tail 'blob.*' --user u1
  rivulet publish blob.deleted --user u1 \\
      --data '{\"blob_id\":\"b1\",\"user_id\":\"u1\",\"deleted_at\":\"2026-01-01T00:00:00Z\"}'

Exit codes:
  0  it went well
  1  it did not; the last line on standard error says why
  2  the command line or the configuration is wrong (`rivulet check`, whose answer that is, exits 1)

Every key of the configuration has a variable of the environment, such as RIVULET_LISTEN: docs/configuration.md \
lists them all.";

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run a router
    Serve(serve::Serve),
    /// Check the configuration and start nothing
    Check(check::Check),
    /// Mint a development token
    Token(token::Token),
    /// Connect to a router and print events as they come
    Tail(tail::Tail),
    /// Publish an event to NATS, its schema checked first
    Publish(publish::Publish),
    /// Load a router with users and events, and measure what comes of it
    Bench(Box<bench::Bench>),
    /// Ask a router whether it is ready
    Health(health::Health),
    /// Write what is generated from the types: schemas, SDK types, reference pages
    Codegen(codegen::Codegen),
    /// Become the nats-server of the router that runs this
    #[command(hide = true, name = rivulet_router::bus::local_server::SUBCOMMAND)]
    Supervised(supervised::Supervised),
}

impl Command {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Serve(serve) => serve.run(),
            Self::Check(check) => check.run(),
            Self::Token(token) => token.run(),
            Self::Tail(tail) => tail.run(),
            Self::Publish(publish) => publish.run(),
            Self::Bench(bench) => bench.run(),
            Self::Health(health) => health.run(),
            Self::Codegen(codegen) => codegen.run(),
            Self::Supervised(supervised) => supervised.run(),
        }
    }
}

/// Why a command did not go well.
pub(crate) enum Failure {
    /// The configuration is wrong.
    Configuration(Problems),
    /// The command line is wrong, in a way that its parser can't see.
    Usage(String),
    /// Anything else.
    Other(anyhow::Error),
}

impl Failure {
    pub(crate) fn other(why: impl fmt::Display) -> Self {
        Self::Other(anyhow::anyhow!("{why}"))
    }

    /// Says on standard error what is wrong.
    pub(crate) fn report(self) -> ExitCode {
        let (message, code) = match self {
            Self::Configuration(problems) => (problems.to_string(), 2),
            Self::Usage(message) => (message, 2),
            // Whoever reads our output has read enough, as `head` does.
            Self::Other(error) if is_broken_pipe(&error) => return ExitCode::SUCCESS,
            Self::Other(error) => (format!("{error:#}"), 1),
        };
        eprintln!("rivulet: {message}");
        ExitCode::from(code)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Other(error.into())
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::Configuration(problems)
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io_error = error.downcast_ref::<io::Error>();
    io_error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// What every command that reads the configuration takes.
#[derive(Args)]
pub(crate) struct Settings {
    /// Read this TOML file [env: RIVULET_CONFIG]
    #[arg(long, value_name = "FILE", help_heading = "Configuration")]
    config: Option<PathBuf>,
    /// Set any key, as in `limits.max_patterns=20`; may be repeated
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Configuration")]
    set: Vec<String>,
    /// Keep and look for files here [key: data_dir; default: .rivulet]
    #[arg(long, value_name = "DIRECTORY", help_heading = "Configuration")]
    data_dir: Option<String>,
    /// Use these NATS servers, with commas between [key: nats_url; default: a nats-server of its own]
    #[arg(long, value_name = "URLS", help_heading = "Configuration")]
    nats_url: Option<String>,
}

impl Settings {
    fn inputs(&self) -> Result<Inputs, Failure> {
        let file = self
            .config
            .clone()
            .or_else(|| variable("RIVULET_CONFIG").map(PathBuf::from));
        let mut inputs = Inputs::from_environment(file);
        inputs
            .flags
            .extend(flag("--data-dir", "data_dir", self.data_dir.as_ref()));
        inputs
            .flags
            .extend(flag("--nats-url", "nats_url", self.nats_url.as_ref()));
        for setting in &self.set {
            let Some((key, value)) = setting.split_once('=') else {
                // Not the text itself: it may be a secret that lacks its key.
                return Err(Failure::Usage(
                    "--set takes KEY=VALUE, as in limits.max_patterns=20".to_owned(),
                ));
            };
            inputs = inputs.set(key, value);
        }
        Ok(inputs)
    }

    /// The configuration as a tool needs it.
    fn load(&self) -> Result<Config, Failure> {
        Ok(Config::load(&self.inputs()?, Purpose::Tool)?)
    }
}

/// The users' own families, for the commands that go by the catalogue.
#[derive(Args)]
pub(crate) struct Families {
    /// Know the families of events and commands in here beside the built-in ones [key: families]
    #[arg(long, value_name = "DIRECTORY")]
    families: Option<String>,
}

impl Families {
    fn flag(&self) -> Option<Flag> {
        flag("--families", "families", self.families.as_ref())
    }
}

/// The flag for a key, if it was given.
fn flag(name: &str, key: &str, value: Option<&String>) -> Option<Flag> {
    let (name, key) = (name.to_owned(), key.to_owned());
    Some(Flag {
        name,
        key,
        value: value?.clone(),
    })
}

/// A variable of the environment; one set to nothing counts as not set.
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// Prints a line to standard output.
fn print(line: impl fmt::Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

/// The runtime of the commands that talk to somebody.
fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(future))
}

/// Where somebody on this machine reaches a router that listens there.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let address = match listen.ip() {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    SocketAddr::new(address, listen.port())
}

/// Awaits what NATS is asked; it waits for servers that are away, and somebody at a terminal does not.
async fn within_seconds<T, E: fmt::Display>(asked: impl Future<Output = Result<T, E>>) -> Result<T, Failure> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let answer = tokio::time::timeout(PATIENCE, asked).await;
    answer
        .map_err(|_| Failure::other(format_args!(
            "NATS has not answered for {} s: is it where `nats_url` says or, without that, `nats.json` in `data_dir`?",
            PATIENCE.as_secs()
        )))?
        .map_err(Failure::other)
}
