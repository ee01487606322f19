//! `rivulet tail`: connect to a router and print events as they come.

mod follow;
mod print;
pub(super) mod reconnect;
mod rejected;

use std::io::{self, IsTerminal as _};

use clap::{Args, ValueEnum};
use rivulet_protocol::{pattern::Pattern, subject::UserId};
use rivulet_router::config::Config;

use self::{follow::Follow, print::Printer};
use super::{
    Failure, Settings, block_on,
    colour::{self, Palette},
    token::Minter,
    variable,
};

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Tail {
    /// Which event types, such as `blob.created`, `blob.*`, `processor.>`
    #[arg(value_name = "PATTERN", default_value = "*")]
    patterns: Vec<Pattern>,
    /// The router [env: RIVULET_URL; default: ws:// and the key `listen`]
    #[arg(long)]
    url: Option<String>,
    /// The token to connect with [env: RIVULET_TOKEN]
    #[arg(long, conflicts_with = "user")]
    token: Option<String>,
    /// Connect as this user, with a token minted by `jwt_secret`; without one as a router in development takes it
    #[arg(long, value_name = "ID", value_parser = UserId::parse)]
    user: Option<UserId>,
    /// How to print an event
    #[arg(long, value_enum, default_value_t = Format::Pretty)]
    format: Format,
    /// Leave after so many events
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print what routers reject instead, read from NATS; patterns then match subjects
    #[arg(long, conflicts_with_all = ["url", "token", "user"])]
    rejected: bool,
    #[command(flatten)]
    settings: Settings,
}

/// How an event is printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For reading: the data on lines of its own
    Pretty,
    /// The frame as it came, one JSON object a line
    Json,
    /// One line: sequence, time, type, data
    Compact,
}

const AFTER_HELP: &str = "\
Events go to standard output, everything else (connected, reconnecting, gaps) to standard error. A connection \
that breaks is made again, with the position of the last event; what does not get better by itself exits with 1.

Examples:
  All events of u1, from a router in development mode on this machine:
    rivulet tail --user u1
  Failures only, for a script:
    rivulet tail 'processor.failed' --user u1 --format json | jq .data.message
  A router elsewhere:
    RIVULET_TOKEN=eyJ… rivulet tail 'blob.*' --url wss://live.example
  Wait for one event and leave:
    rivulet tail blob.created --user u1 --count 1 --format json
  What is wrong with the events that nobody gets:
    rivulet tail --rejected";

impl Tail {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let config = self.settings.load()?;
        let printer = Printer {
            format: self.format,
            palette: Palette(colour::wanted(io::stdout().is_terminal())),
            left: self.count,
        };
        if self.rejected {
            return block_on(rejected::watch(&config, &self.patterns, printer))?;
        }
        let follow = Follow {
            url: super::url::router(self.url.as_deref(), &config)?,
            patterns: self.patterns.clone(),
            credentials: self.credentials(&config)?,
            printer,
            notices: Notices(Palette(colour::wanted(io::stderr().is_terminal()))),
        };
        block_on(follow.run())?
    }

    fn credentials(&self, config: &Config) -> Result<Credentials, Failure> {
        if let Some(user) = &self.user {
            return Ok(match Minter::of(config) {
                Some(minter) => Credentials::Minted {
                    minter: Box::new(minter),
                    user: user.clone(),
                },
                None => Credentials::Named(user.as_str().to_owned()),
            });
        }
        let from_variable = || variable("RIVULET_TOKEN").map(|token| token.to_string_lossy().into_owned());
        self.token
            .clone()
            .or_else(from_variable)
            .map(Credentials::Given)
            .ok_or_else(|| {
                Failure::Usage(
                "who is it for? --user ID on a router in development mode or with RIVULET_JWT_SECRET set; \
                 else --token or RIVULET_TOKEN"
                    .to_owned(),
            )
            })
    }
}

/// What one connects with.
enum Credentials {
    /// A token.
    Given(String),
    /// A user id, which a router in development takes for a token.
    Named(String),
    /// A token of this user, as often as one is needed.
    Minted { minter: Box<Minter>, user: UserId },
}

impl Credentials {
    /// What to do where a router refuses them.
    fn advice(&self) -> &'static str {
        match self {
            Self::Given(_) => "",
            Self::Named(_) => {
                "; a router that is not in development wants a token: --token, or its `jwt_secret` \
                 (RIVULET_JWT_SECRET) here too, which signs one"
            }
            Self::Minted { .. } => {
                "; the token is signed with `jwt_secret` (RIVULET_JWT_SECRET): is that the router's? A router in \
                 development wants none"
            }
        }
    }
}

/// What happens beside the events, on standard error.
struct Notices(Palette);

impl Notices {
    fn say(&self, what: impl std::fmt::Display) {
        eprintln!("{}", self.0.dim(format_args!("· {what}")));
    }
}
