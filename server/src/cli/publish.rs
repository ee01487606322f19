//! `rivulet publish`: publish an event to NATS, rehearsed first with what the router itself reads by.

pub(super) mod address;

use std::{fs, io, io::Read as _};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use rivulet_protocol::{event::EventType, subject::UserId};
use rivulet_router::{
    bus::{Published, Publisher, source::Sources},
    config::{Config, Purpose, nearest},
};
use ulid::Ulid;

use self::address::Draft;
use super::{Failure, Families, Settings, block_on, print, within_seconds};
use crate::logging;

/// The header by which NATS counts a repeated message once.
const MESSAGE_ID_HEADER: &str = "Nats-Msg-Id";

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Publish {
    /// The event's type
    #[arg(value_name = "TYPE", value_parser = EventType::parse)]
    event_type: EventType,
    /// Whom it is for; may be repeated. Without it and `--everyone` the data's `user_id` says
    #[arg(long = "user", value_name = "ID", value_parser = UserId::parse, conflicts_with = "everyone")]
    users: Vec<UserId>,
    /// It is for every user
    #[arg(long)]
    everyone: bool,
    /// Its data, a JSON object: as it is, from `@FILE`, or from standard input with `-`
    #[arg(long, value_name = "JSON|@FILE|-")]
    data: String,
    /// Publish on this subject [default: the type, and the user where the source wants it there]
    #[arg(long)]
    subject: Option<String>,
    /// The message id: published again with it, the event counts once [default: a new one]
    #[arg(long)]
    id: Option<String>,
    /// Publish it even though the router would reject it
    #[arg(long)]
    no_check: bool,
    #[command(flatten)]
    families: Families,
    #[command(flatten)]
    settings: Settings,
}

const AFTER_HELP: &str = "\
Without --nats-url it goes to the nats-server that a router on this machine has started; --data-dir says which. \
Prints the stream and the sequence under which the event is kept.

Examples:
  rivulet publish blob.deleted --user u1 \\
      --data '{\"blob_id\":\"b1\",\"user_id\":\"u1\",\"deleted_at\":\"2026-01-01T00:00:00Z\"}'
  rivulet publish blob.created --user u1 --user u2 --data @event.json
  make-event | rivulet publish acme.news --everyone --data - --id news-17
  rivulet publish order.placed --families families/ --user u1 --data @order.json";

impl Publish {
    pub(crate) fn run(mut self) -> Result<(), Failure> {
        let mut inputs = self.settings.inputs()?;
        inputs.flags.extend(self.families.flag());
        let config = Config::load(&inputs, Purpose::Tool)?;
        logging::start_for_a_tool();
        let payload = self.payload()?;
        let sources =
            Sources::new(&config.sources, config.sessions.max_event_bytes, &[]).map_err(Failure::other)?;
        let draft = Draft {
            event_type: self.event_type.clone(),
            users: self.users.clone(),
            everyone: self.everyone,
            subject: self.subject.clone(),
        };
        let (message, _) = draft.address(&config, &sources, &payload, self.no_check)?;

        // What no family declares passes as it is, so a typo would too, in silence.
        let declared = config
            .catalog
            .events()
            .iter()
            .map(|event| event.event_type.as_str());
        if config.catalog.event(self.event_type.as_str()).is_none()
            && let Some(meant) = nearest(self.event_type.as_str(), declared)
        {
            eprintln!(
                "· no family declares `{}`; did you mean `{meant}`?",
                self.event_type
            );
        }

        let id = self.id.take().unwrap_or_else(|| Ulid::generate().to_string());
        let mut headers = message.headers();
        headers.push((MESSAGE_ID_HEADER, id.as_str()));
        let published = block_on(within_seconds(async {
            let publisher = Publisher::connect(&config.nats, &config.data_dir).await?;
            publisher.publish(&message.subject, &headers, payload).await
        }))??;
        print(match published {
            Published::Stored {
                stream,
                seq,
                duplicate: false,
            } => format!("{stream} {seq}"),
            Published::Stored {
                stream,
                seq,
                duplicate: true,
            } => {
                format!("{stream} {seq} (was there already, by its message id)")
            }
            Published::Sent => "sent; no stream keeps it".to_owned(),
        })?;
        Ok(())
    }

    fn payload(&self) -> Result<Bytes, Failure> {
        let payload = match self.data.strip_prefix('@') {
            Some(file) => fs::read(file).with_context(|| format!("--data @{file}"))?,
            None if self.data == "-" => {
                let mut read = Vec::new();
                io::stdin().lock().read_to_end(&mut read)?;
                read
            }
            None => self.data.clone().into_bytes(),
        };
        Ok(payload.into())
    }
}
