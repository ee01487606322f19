//! `rivulet publish`: publish an event to NATS, rehearsed first with what the router itself reads by.

use std::{fs, io, io::Read as _};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use rivulet::{
    bus::{
        Published, Publisher, rehearse,
        source::{Check, Content, Reading, Rejection, Rule, Sources},
    },
    config::{AudienceFrom, Config, Purpose, Source, TypeFrom},
    event::Audience,
};
use rivulet_protocol::{
    event::EventType,
    subject::{AUDIENCE_HEADER, EVERYONE, EVERYONE_TOKEN, USER_HEADER, UserId},
    validate::Validator,
};
use ulid::Ulid;

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
Without --nats-url it goes to the nats-server that a router on this machine has started; --data-dir says which.
Prints the stream and the sequence under which the event is kept.

Examples:
  rivulet publish blob.deleted --user u1 \\
      --data '{\"blob_id\":\"b1\",\"user_id\":\"u1\",\"deleted_at\":\"2026-01-01T00:00:00Z\"}'
  rivulet publish blob.created --user u1 --user u2 --data @event.json
  make-event | rivulet publish acme.news --everyone --data - --id news-17
  rivulet publish order.placed --families families/ --user u1 --data @order.json";

/// A message as it would be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Addressed {
    subject: String,
    headers: Vec<(String, String)>,
}

impl Publish {
    pub(crate) fn run(mut self) -> Result<(), Failure> {
        let mut inputs = self.settings.inputs()?;
        inputs.flags.extend(self.families.flag());
        let config = Config::load(&inputs, Purpose::Tool)?;
        logging::start_for_a_tool();
        let payload = self.payload()?;
        let sources =
            Sources::new(&config.sources, config.sessions.max_event_bytes, &[]).map_err(Failure::other)?;
        let message = self.address(&config, &sources, &payload)?;

        let id = self.id.take().unwrap_or_else(|| Ulid::generate().to_string());
        let headers: Vec<_> = message
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .chain([(MESSAGE_ID_HEADER, id.as_str())])
            .collect();
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

    /// The message by which a router makes of the payload what was asked for.
    fn address(&self, config: &Config, sources: &Sources, payload: &Bytes) -> Result<Addressed, Failure> {
        let validator = Validator::new(&config.catalog);
        let check = move |event_type: &EventType, data: &[u8]| {
            validator
                .validate_event(event_type.as_str(), data)
                .map_err(|violation| {
                    Rejection::new(Rule::Schema(violation.rule), violation.pointer, violation.message)
                })
        };
        let mut candidates: Vec<Addressed> = config
            .sources
            .iter()
            .filter_map(|source| self.candidate(source))
            .collect();
        if candidates.is_empty() {
            // No source takes it; the rehearsal says so.
            candidates.push(self.with_audience_headers(self.event_type.as_str().to_owned()));
        }
        let mut refusal = None;
        for message in candidates {
            match self.rehearsed(&message, sources, payload, &check) {
                Ok(()) => return Ok(message),
                Err(_) if self.no_check => return Ok(message),
                // What a source of this very subject says is worth more than that another one has another.
                Err((Rule::Source, why)) => refusal = refusal.or(Some(why)),
                Err((_, why)) => return Err(Failure::other(why)),
            }
        }
        let why = refusal.unwrap_or_default();
        Err(Failure::other(format_args!(
            "{why}; the configuration's sources say which subjects are events"
        )))
    }

    /// Whether a router makes of the message what was asked for.
    fn rehearsed(
        &self,
        message: &Addressed,
        sources: &Sources,
        payload: &Bytes,
        check: &Check,
    ) -> Result<(), (Rule, String)> {
        let headers: Vec<_> = message
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let subject = &message.subject;
        let content = match rehearse(sources, subject, &headers, payload, check) {
            Ok(Reading::Event(content)) => content,
            Ok(Reading::NoAudience) => {
                let why = "it says nowhere whom it is for: --user, --everyone or a `user_id` in its data";
                return Err((Rule::Audience, why.to_owned()));
            }
            Err(rejection) => {
                let Rejection {
                    rule,
                    pointer,
                    message,
                } = rejection;
                let place = if pointer.is_empty() {
                    String::new()
                } else {
                    format!(" at {pointer}")
                };
                let why = format!("the router would reject it on `{subject}`, by {rule}{place}: {message}");
                return Err((rule, why));
            }
        };
        let Content {
            event_type,
            audience,
            warning,
            ..
        } = content;
        if event_type != self.event_type {
            let why = format!("on `{subject}` it would be of the type `{event_type}`");
            return Err((Rule::Type, why));
        }
        if self.asked_audience().is_some_and(|asked| asked != audience) {
            let whom = match audience {
                Audience::Everyone => "everyone".to_owned(),
                Audience::Users(users) => format!("{users:?}"),
            };
            return Err((Rule::Audience, format!("on `{subject}` it would be for {whom}")));
        }
        if let Some(warning) = warning {
            eprintln!("· the router warns: {}", warning.message);
        }
        Ok(())
    }

    fn asked_audience(&self) -> Option<Audience> {
        if self.everyone {
            return Some(Audience::Everyone);
        }
        let mut users: Vec<UserId> = Vec::new();
        for user in &self.users {
            if !users.contains(user) {
                users.push(user.clone());
            }
        }
        (!users.is_empty()).then_some(Audience::Users(users))
    }

    /// How the event would be sent to this source; `None` where that can't be told without `--subject`.
    fn candidate(&self, source: &Source) -> Option<Addressed> {
        let full = self.event_type.as_str();
        let short = match &source.type_prefix {
            Some(prefix) => full.strip_prefix(prefix.as_str())?.strip_prefix('.')?,
            None => full,
        };
        let subject = match (&self.subject, &source.event_type, &source.audience) {
            (Some(subject), ..) => subject.clone(),
            (None, TypeFrom::Subject { tokens }, AudienceFrom::Token(index)) if index == tokens => {
                format!("{short}.{}", self.user_token()?)
            }
            (None, TypeFrom::Subject { .. }, _) => short.to_owned(),
            (None, ..) if source.subject.contains(['*', '>']) => return None,
            (None, ..) => source.subject.clone(),
        };
        let mut message = match source.audience {
            AudienceFrom::Auto | AudienceFrom::Header => self.with_audience_headers(subject),
            _ => Addressed {
                subject,
                headers: Vec::new(),
            },
        };
        if let TypeFrom::Header(name) = &source.event_type {
            message.headers.push((name.clone(), short.to_owned()));
        }
        Some(message)
    }

    fn with_audience_headers(&self, subject: String) -> Addressed {
        let mut headers: Vec<_> = self
            .users
            .iter()
            .map(|user| (USER_HEADER.to_owned(), user.escaped()))
            .collect();
        if self.everyone {
            headers.push((AUDIENCE_HEADER.to_owned(), EVERYONE.to_owned()));
        }
        Addressed { subject, headers }
    }

    /// The one token of a subject that says whom it is for.
    fn user_token(&self) -> Option<String> {
        match &self.users[..] {
            [] if self.everyone => Some(EVERYONE_TOKEN.to_owned()),
            [user] => Some(user.escaped()),
            _ => None,
        }
    }
}
