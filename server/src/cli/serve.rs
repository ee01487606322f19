//! `rivulet serve`: run a router.

use std::{io, process};

use clap::Args;
use rivulet_router::{
    Listeners,
    config::{Config, Flag, Inputs, Purpose},
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use super::{Failure, Settings, block_on, flag};
use crate::logging;

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) router: RouterSettings,
}

const AFTER_HELP: &str = "\
Examples:
  Try it out, with a nats-server of its own; any user id is a token:
    rivulet serve --dev
  Beside a NATS cluster, tokens signed by a login service:
    rivulet serve --listen 0.0.0.0:8010 --nats-url nats://nats-1:4222,nats://nats-2:4222 \\
        --jwks-url https://login.example/.well-known/jwks.json
  With events and commands of your own, a JSON Schema file for each family:
    rivulet serve --dev --families families/
  From a file, one key set otherwise:
    rivulet serve --config rivulet.toml --set limits.devices_per_user=10

SIGTERM and Ctrl-C drain: clients are told, their closes spread, commands awaited. Once more ends it at once.
SIGHUP does nothing: the configuration is read at the start.

docs/configuration.md lists every key.";

/// The configuration of a router, its everyday keys as flags.
#[derive(Args)]
pub(crate) struct RouterSettings {
    /// Development: loopback only, any token that is not a JWT is itself the user id, every origin
    #[arg(long)]
    dev: bool,
    /// Take clients here [key: listen; default: 127.0.0.1:8010]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Serve health and metrics here, or `off` [key: admin_listen; default: 127.0.0.1:8011]
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin_listen: Option<String>,
    #[command(flatten)]
    families: super::Families,
    /// Read public keys for tokens from here [key: jwks_url]
    #[arg(long, value_name = "URL")]
    jwks_url: Option<String>,
    /// Let pages of these origins connect, with commas between [key: allowed_origins]
    #[arg(long, value_name = "ORIGINS")]
    allowed_origins: Option<String>,
    /// Start this nats-server where no NATS is named [key: nats.server_binary; default: looked for]
    #[arg(long, value_name = "FILE")]
    nats_server: Option<String>,
    /// Alter an existing stream to what the configuration says [key: stream.manage]
    #[arg(long)]
    manage_stream: bool,
    /// Log this, such as `info,rivulet=debug` [key: log.filter]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// Log for people (`human`) or as JSON (`json`) [key: log.format]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    #[command(flatten)]
    settings: Settings,
}

impl RouterSettings {
    /// The configuration, checked for a router.
    pub(crate) fn load(&self) -> Result<Config, Failure> {
        Ok(Config::load(&self.inputs()?, Purpose::Router)?)
    }

    fn inputs(&self) -> Result<Inputs, Failure> {
        let switch = |name: &str, key: &str, on: bool| {
            on.then(|| Flag {
                name: name.to_owned(),
                key: key.to_owned(),
                value: "true".to_owned(),
            })
        };
        let mut inputs = self.settings.inputs()?;
        let flags = [
            switch("--dev", "dev", self.dev),
            switch("--manage-stream", "stream.manage", self.manage_stream),
            flag("--listen", "listen", self.listen.as_ref()),
            flag("--admin-listen", "admin_listen", self.admin_listen.as_ref()),
            flag("--jwks-url", "jwks_url", self.jwks_url.as_ref()),
            flag(
                "--allowed-origins",
                "allowed_origins",
                self.allowed_origins.as_ref(),
            ),
            flag("--nats-server", "nats.server_binary", self.nats_server.as_ref()),
            flag("--log", "log.filter", self.log.as_ref()),
            flag("--log-format", "log.format", self.log_format.as_ref()),
        ];
        inputs.flags.extend(flags.into_iter().flatten());
        inputs.flags.extend(self.families.flag());
        Ok(inputs)
    }
}

impl Serve {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let config = self.router.load()?;
        logging::start(&config.log);
        block_on(async {
            let signals = Signals::listen()?;
            let listeners = Listeners::bind(&config)?;
            rivulet_router::run(config, listeners, signals.first()).await
        })??;
        Ok(())
    }
}

/// The ways in which a router is asked to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            // By itself it would end the process.
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for one. Whoever asks a second time does not want to wait for the drain.
    async fn first(mut self) {
        let name = self.next().await;
        info!(signal = name, "asked to end; once more ends it at once");
        tokio::spawn(async move {
            self.next().await;
            process::exit(1);
        });
    }

    async fn next(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                Some(()) = self.hangup.recv() => {
                    warn!("SIGHUP does nothing: the configuration is read at the start; restart the router for a new one");
                }
            }
        }
    }
}
