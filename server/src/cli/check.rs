//! `rivulet check`: check the configuration and start nothing.

use std::{fmt::Write as _, path::Path};

use clap::Args;
use rivulet_router::{
    auth,
    bus::{self, Finding},
    config::{AudienceFrom, Config, Key, NatsCredentials, Secret, Source},
};

use super::{Failure, block_on, print, serve::RouterSettings};

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Check {
    /// Print the least NATS permissions of a router with this configuration
    #[arg(long)]
    permissions: bool,
    /// Try on the running NATS all that a router with this configuration needs of it, and change nothing there
    #[arg(long, conflicts_with = "permissions")]
    live: bool,
    /// With `--live`: try also that this user of NATS, who is no router, is denied what only routers may use; a `.creds`
    /// file, or `user:password`
    #[arg(long, value_name = "CREDENTIALS", requires = "live")]
    r#as: Option<String>,
    #[command(flatten)]
    router: RouterSettings,
}

const AFTER_HELP: &str = "\
Examples:
  rivulet check --config rivulet.toml
  RIVULET_LISTEN=0.0.0.0:8010 RIVULET_JWKS_URL=https://login.example/jwks rivulet check
  rivulet check --config rivulet.toml --permissions >> nats-server.conf
  rivulet check --config rivulet.toml --live --as backend.creds

Exits 1 if anything is wrong, with every problem on standard error: where it stands, and what is allowed.";

impl Check {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let config = match self.router.load() {
            // That it is wrong is this command's answer, not its misuse.
            Err(Failure::Configuration(problems)) => return Err(Failure::other(problems)),
            result => result?,
        };
        if self.permissions {
            print(bus::permissions(&config).trim_end())?;
        } else if self.live {
            return live(&config, self.r#as.as_deref());
        } else {
            print(summary(&config).trim_end())?;
        }
        Ok(())
    }
}

/// Tries NATS and the published keys, a line each.
fn live(config: &Config, other: Option<&str>) -> Result<(), Failure> {
    let other = other.map(|given| match given.split_once(':') {
        Some((user, password)) if !Path::new(given).exists() => NatsCredentials::Password {
            user: user.to_owned(),
            password: Secret(password.to_owned()),
        },
        _ => NatsCredentials::File(given.into()),
    });
    let mut bad = 0;
    let mut printed = Ok(());
    let mut say = |finding: Finding| {
        bad += usize::from(!finding.good);
        if printed.is_ok() {
            printed = print(finding.to_string());
        }
    };
    block_on(async {
        bus::check_live(config, other, &mut say).await;
        if let Some(read) = auth::read_published_keys(&config.auth).await {
            say(match read {
                Ok(keys) => Finding::good(keys),
                Err(fault) => Finding::bad(fault),
            });
        }
    })?;
    printed?;
    match bad {
        0 => Ok(()),
        bad => Err(Failure::other(format!(
            "{bad} of these are not as a router needs them"
        ))),
    }
}

/// What a router with this configuration does, in a few lines.
fn summary(config: &Config) -> String {
    let mut text = "The configuration is good.\n\n".to_owned();
    let mut line = |name: &str, what: String| {
        let _ = writeln!(text, "  {name:<9} {what}");
    };
    let listen = config.listen;
    line(
        "clients",
        format!(
            "ws://{listen}/api/v1/ws{}",
            if config.dev { ", development" } else { "" }
        ),
    );
    line(
        "admin",
        config
            .admin_listen
            .map_or("off".to_owned(), |address| format!("http://{address}/health")),
    );
    line("NATS", nats(config));
    let stream = &config.stream;
    line(
        "stream",
        format!("{}, {} h", stream.name, stream.max_age.as_secs() / 3600),
    );
    for family in config.catalog.families() {
        let of = |of: &str| of == family.name;
        let events = config.catalog.events().iter();
        let commands = config.catalog.commands().iter();
        let events = counted(events.filter(|event| of(&event.family)).count(), "event type");
        let commands = counted(commands.filter(|command| of(&command.family)).count(), "command");
        let all: Vec<_> = [events, commands].into_iter().flatten().collect();
        line("family", format!("{}: {}", family.name, all.join(", ")));
    }
    for source in &config.sources {
        line("source", self::source(source));
    }
    for key in &config.auth.keys {
        line(
            "key",
            match key {
                Key::Secret { algorithms, .. } => format!("a secret, {algorithms:?}"),
                Key::Pem { algorithms, .. } => format!("a public key, {algorithms:?}"),
            },
        );
    }
    if let Some(url) = &config.auth.jwks_url {
        line(
            "key",
            format!("those of {url}, {:?}", config.auth.jwks_algorithms),
        );
    }
    for name in config.roles.keys() {
        line(
            "role",
            format!(
                "{name}{}",
                if *name == config.default_role {
                    ", by default"
                } else {
                    ""
                }
            ),
        );
    }
    text
}

/// `None`: there are none.
fn counted(count: usize, of: &str) -> Option<String> {
    match count {
        0 => None,
        1 => Some(format!("1 {of}")),
        _ => Some(format!("{count} {of}s")),
    }
}

fn nats(config: &Config) -> String {
    if config.nats.urls.is_empty() {
        return format!("a nats-server of its own, in {}", config.data_dir.display());
    }
    let identity = match &config.nats.credentials {
        NatsCredentials::None => "without credentials".to_owned(),
        NatsCredentials::File(path) => format!("with {}", path.display()),
        NatsCredentials::Nkey(_) => "with an nkey".to_owned(),
        NatsCredentials::Password { user, .. } => format!("as {user}"),
        NatsCredentials::Token(_) => "with a token".to_owned(),
    };
    format!("{} {identity}", config.nats.urls.join(", "))
}

fn source(source: &Source) -> String {
    let kept = if source.durable { "durable" } else { "core" };
    let audience = match source.audience {
        AudienceFrom::Token(index) => format!("token {index}"),
        AudienceFrom::Header => "header".to_owned(),
        AudienceFrom::Payload => "payload".to_owned(),
        AudienceFrom::Everyone => "everyone".to_owned(),
        AudienceFrom::Field(ref name) => format!("field {name}"),
        AudienceFrom::Auto => "header, else payload".to_owned(),
    };
    format!("{}, {kept}, audience: {audience}", source.subject)
}
