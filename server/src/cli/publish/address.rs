//! How an event is put on NATS so that a router makes of it what is meant.

use bytes::Bytes;
use rivulet_protocol::{
    event::EventType,
    subject::{AUDIENCE_HEADER, EVERYONE, EVERYONE_TOKEN, USER_HEADER, UserId},
    validate::Validator,
};
use rivulet_router::{
    bus::{
        rehearse,
        source::{Check, Content, Rejection, Rule, Sources},
    },
    config::{AudienceFrom, Config, Source, TypeFrom},
    event::Audience,
};

use super::super::Failure;

/// A message as it would be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Addressed {
    pub(crate) subject: String,
    pub(crate) headers: Vec<(String, String)>,
}

/// What an event is to be.
pub(crate) struct Draft {
    pub(crate) event_type: EventType,
    /// Whom it is for. Without any, and not for everyone, its data says.
    pub(crate) users: Vec<UserId>,
    pub(crate) everyone: bool,
    /// On which subject, if not on the one that the source implies.
    pub(crate) subject: Option<String>,
}

impl Addressed {
    /// The headers as they are sent.
    pub(crate) fn headers(&self) -> Vec<(&str, &str)> {
        self.headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    }
}

impl Draft {
    /// The message by which a router makes of the payload what was asked for, and the source that takes it, if one
    /// does. Where it is `unchecked`: the first that might.
    pub(crate) fn address<'a>(
        &self,
        config: &'a Config,
        sources: &Sources,
        payload: &Bytes,
        unchecked: bool,
    ) -> Result<(Addressed, Option<&'a Source>), Failure> {
        let validator = Validator::new(&config.catalog);
        let check = move |event_type: &EventType, data: &[u8]| {
            validator
                .validate_event(event_type.as_str(), data)
                .map_err(|violation| {
                    Rejection::new(Rule::Schema(violation.rule), violation.pointer, violation.message)
                })
        };
        let mut candidates: Vec<(Addressed, Option<&Source>)> = config
            .sources
            .iter()
            .filter_map(|source| Some((self.candidate(source)?, Some(source))))
            .collect();
        if candidates.is_empty() {
            // No source takes it; the rehearsal says so.
            let message = self.with_audience_headers(self.event_type.as_str().to_owned());
            candidates.push((message, None));
        }
        let mut refusal = None;
        for (message, source) in candidates {
            match self.rehearsed(&message, sources, payload, &check) {
                Ok(()) => return Ok((message, source)),
                Err(_) if unchecked => return Ok((message, source)),
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
        let headers = message.headers();
        let subject = &message.subject;
        let content = match rehearse(sources, subject, &headers, payload, check) {
            Ok(content) => content,
            Err(Rejection {
                rule: rule @ Rule::NoAudience,
                message,
                ..
            }) => return Err((rule, format!("{message}; or give --user or --everyone"))),
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
        // As the router reads them: each once, in order.
        let mut users = self.users.clone();
        users.sort_unstable();
        users.dedup();
        (!users.is_empty()).then_some(Audience::Users(users))
    }

    /// How the event would be sent to this source; `None` where that can't be told without `--subject`.
    pub(crate) fn candidate(&self, source: &Source) -> Option<Addressed> {
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
