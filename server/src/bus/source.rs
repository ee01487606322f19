//! What a NATS message says: its type, whom it is for, where its data stands. A pure function of the message and
//! the sources.
//!
//! The data is never parsed into a tree here: one pass over the payload checks that it is a JSON object and
//! finds the few top-level fields that a source may ask for; what is handed on is a slice of the message's own
//! buffer.
//!
//! A header's value is what stands between the white space around it: the NATS client removes that before we
//! see the message, as HTTP does. Within a value, nothing outside the alphabet of escaped ids is taken.

mod audience;
mod fields;

use std::{borrow::Cow, fmt};

use async_nats::HeaderMap;
use bytes::Bytes;
use rivulet_protocol::{
    error::ErrorCode,
    event::EventType,
    subject::{AUDIENCE_HEADER, EVERYONE, ROOM_HEADER, USER_HEADER, UserId},
};
use serde::Serialize;
use serde_json::value::RawValue;

use self::{
    audience::{Said, USER_FIELD, user},
    fields::{pointer, top_level},
};
use super::filter;
use crate::{
    config::{AudienceFrom, DataFrom, Source, TypeFrom, Validation},
    event::Audience,
};

/// The sources of a deployment, in their order: the first whose subject matches says what a message is.
#[derive(Clone, Debug)]
pub struct Sources {
    sources: Vec<Source>,
    max_event_bytes: usize,
}

/// All of an event that its message says.
#[derive(Clone, Debug)]
pub struct Content {
    /// Its type.
    pub event_type: EventType,
    /// Whom it is for.
    pub audience: Audience,
    /// A JSON object: a slice of the payload.
    pub data: Bytes,
    /// Of `processor.failed`: the `data` of the `error` frame that it also is.
    pub as_error: Option<Bytes>,
    /// What is wrong with the data, where the source lets it pass all the same.
    pub warning: Option<Rejection>,
}

/// Why a message is not delivered to anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The rule that it breaks.
    pub rule: Rule,
    /// Where, as a JSON Pointer (RFC 6901) into the payload or its data; empty: the whole.
    pub pointer: String,
    /// What is wrong, for people.
    pub message: String,
}

/// The rules that a message may break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// It is larger than an event may be.
    TooLarge,
    /// No source names its subject.
    Source,
    /// Its headers are not UTF-8.
    Header,
    /// Its payload is not JSON in UTF-8.
    Json,
    /// Its payload is JSON but not an object.
    Object,
    /// A field that the source asks for stands there twice.
    DuplicateField,
    /// It has no type, or one that is not allowed.
    Type,
    /// The field that should hold its data does not.
    Data,
    /// It names a user by something that is not a user id.
    User,
    /// `Rivulet-Audience` names an audience that does not exist.
    Audience,
    /// It names no audience.
    NoAudience,
    /// It names two audiences.
    AudienceConflict,
    /// It names a room, which this version does not have.
    Room,
    /// Its data is not of its type's schema: the schema's own rule.
    Schema(String),
}

impl Rule {
    /// The rule's name from a closed list, as a metric may carry it.
    pub fn label(&self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Source => "source",
            Self::Header => "header",
            Self::Json => "json",
            Self::Object => "object",
            Self::DuplicateField => "duplicate_field",
            Self::Type => "type",
            Self::Data => "data",
            Self::User => "user",
            Self::Audience => "audience",
            Self::NoAudience => "no_audience",
            Self::AudienceConflict => "audience_conflict",
            Self::Room => "room",
            Self::Schema(_) => "schema",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Schema(rule) => write!(formatter, "schema.{rule}"),
            other => formatter.write_str(other.label()),
        }
    }
}

/// Checks an event's data against its type's schema.
pub type Check = dyn Fn(&EventType, &[u8]) -> Result<(), Rejection> + Send + Sync;

/// Two sources that would give one message two meanings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceFault {
    /// Neither of two durable sources holds the other, so no stream can take both.
    #[error(
        "the sources `{0}` and `{1}` overlap, and neither holds the other: a stream can't take both; make one of them wider"
    )]
    Overlap(String, String),
    /// One is durable, the other not: each event would come twice.
    #[error(
        "the sources `{0}` (durable) and `{1}` (core) overlap: each event would come twice; make both durable or both core"
    )]
    TwoKinds(String, String),
    /// It would take in what the router itself sends.
    #[error(
        "the source `{source_subject}` takes in `{own}`, on which the router itself sends; source subjects carry events only"
    )]
    Own {
        /// The source's subject.
        source_subject: String,
        /// The router's.
        own: String,
    },
}

impl Sources {
    /// Checks that every message has one meaning at most.
    ///
    /// # Errors
    /// If two sources can't stand beside each other, or one takes in the router's own subjects (`own`).
    pub fn new(sources: &[Source], max_event_bytes: usize, own: &[&str]) -> Result<Self, SourceFault> {
        for (index, source) in sources.iter().enumerate() {
            for &subject in own {
                if filter::overlap(&source.subject, subject) {
                    return Err(SourceFault::Own {
                        source_subject: source.subject.clone(),
                        own: subject.to_owned(),
                    });
                }
            }
            for other in &sources[index + 1..] {
                let (one, two) = (&source.subject, &other.subject);
                if !filter::overlap(one, two) {
                    continue;
                }
                if source.durable != other.durable {
                    let (durable, core) = if source.durable { (one, two) } else { (two, one) };
                    return Err(SourceFault::TwoKinds(durable.clone(), core.clone()));
                }
                if !filter::covers(one, two) && !filter::covers(two, one) {
                    return Err(SourceFault::Overlap(one.clone(), two.clone()));
                }
            }
        }
        Ok(Self {
            sources: sources.to_vec(),
            max_event_bytes,
        })
    }

    /// The subjects of all sources of a kind; none holds another.
    pub fn subjects(&self, durable: bool) -> Vec<&str> {
        filter::widest(
            self.sources
                .iter()
                .filter(|source| source.durable == durable)
                .map(|source| source.subject.as_str()),
        )
    }

    /// Reads a message.
    ///
    /// # Errors
    /// If the message breaks a rule; it is then for nobody.
    pub fn read(
        &self,
        subject: &str,
        headers: Option<&HeaderMap>,
        payload: &Bytes,
        check: &Check,
    ) -> Result<Content, Rejection> {
        if payload.len() > self.max_event_bytes {
            return Err(Rejection::new(
                Rule::TooLarge,
                "",
                format!(
                    "{} bytes, and an event has at most {}",
                    payload.len(),
                    self.max_event_bytes
                ),
            ));
        }
        let source = self
            .sources
            .iter()
            .find(|source| filter::covers(&source.subject, subject))
            .ok_or_else(|| Rejection::new(Rule::Source, "", "no source names this subject"))?;
        let headers = Headers::of(headers, &source.event_type);
        headers.check()?;

        let user_field = match &source.audience {
            AudienceFrom::Payload => Some(USER_FIELD),
            AudienceFrom::Field(name) => Some(name.as_str()),
            AudienceFrom::Auto if !headers.name_an_audience() => Some(USER_FIELD),
            _ => None,
        };
        let wanted = [
            user_field,
            match &source.event_type {
                TypeFrom::Field(field) => Some(field.as_str()),
                _ => None,
            },
            match &source.data {
                DataFrom::Field(field) => Some(field.as_str()),
                DataFrom::Payload => None,
            },
        ];
        let [field, type_field, data_field] = top_level(payload, wanted)?;

        let event_type = event_type(source, subject, &headers, type_field)?;
        let said = Said {
            subject,
            headers: &headers,
            payload,
            field,
        };
        let audience = said.audience(source)?;
        let data = match (&source.data, data_field) {
            (DataFrom::Payload, _) => payload.clone(),
            (DataFrom::Field(_), Some(data)) if data.get().starts_with('{') => {
                payload.slice_ref(data.get().as_bytes())
            }
            (DataFrom::Field(field), found) => {
                let what = found.map_or("is missing", |_| "is not a JSON object");
                return Err(Rejection::new(
                    Rule::Data,
                    pointer(field),
                    format!("the field `{field}` holds the data and {what}"),
                ));
            }
        };
        let warning = match source.validate {
            Validation::Off => None,
            Validation::Reject => {
                check(&event_type, &data)?;
                None
            }
            Validation::Warn => check(&event_type, &data).err(),
        };
        Ok(Content {
            as_error: (event_type.as_str() == "processor.failed")
                .then(|| as_error(&data))
                .flatten(),
            event_type,
            audience,
            data,
            warning,
        })
    }
}

impl Rejection {
    /// A broken rule, where, and what is wrong.
    pub fn new(rule: Rule, pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            rule,
            pointer: pointer.into(),
            message: message.into(),
        }
    }
}

/// The headers that mean something to the router, found whatever their case.
#[derive(Default)]
struct Headers<'a> {
    all: Option<&'a HeaderMap>,
    users: Vec<&'a str>,
    audiences: Vec<&'a str>,
    room: bool,
    types: Vec<&'a str>,
}

impl<'a> Headers<'a> {
    fn of(headers: Option<&'a HeaderMap>, type_from: &TypeFrom) -> Self {
        let mut found = Self {
            all: headers,
            ..Self::default()
        };
        let type_header = match type_from {
            TypeFrom::Header(name) => Some(name.as_str()),
            _ => None,
        };
        for (name, values) in headers.into_iter().flat_map(HeaderMap::iter) {
            let name: &str = name.as_ref();
            let values = values.iter().map(async_nats::HeaderValue::as_str);
            let is = |known: &str| name.eq_ignore_ascii_case(known);
            if is(USER_HEADER) {
                found.users.extend(values.clone());
            } else if is(AUDIENCE_HEADER) {
                found.audiences.extend(values.clone());
            } else if is(ROOM_HEADER) {
                found.room = true;
            }
            // Not an `else`: a deployment may name any header.
            if type_header.is_some_and(is) {
                found.types.extend(values);
            }
        }
        found
    }

    /// What no source allows.
    fn check(&self) -> Result<(), Rejection> {
        if self.room {
            return Err(Rejection::new(
                Rule::Room,
                "",
                format!("`{ROOM_HEADER}` names a room; rooms are reserved for a later version"),
            ));
        }
        if !self.users.is_empty() && !self.audiences.is_empty() {
            return Err(Rejection::new(
                Rule::AudienceConflict,
                "",
                format!("both `{USER_HEADER}` and `{AUDIENCE_HEADER}` are there"),
            ));
        }
        Ok(())
    }

    fn name_an_audience(&self) -> bool {
        !self.users.is_empty() || !self.audiences.is_empty()
    }

    /// The audience that the headers name; `None` if they name none.
    fn audience(&self) -> Result<Option<Audience>, Rejection> {
        if let Some(unknown) = self.audiences.iter().find(|&&audience| audience != EVERYONE) {
            return Err(Rejection::new(
                Rule::Audience,
                "",
                format!(
                    "`{AUDIENCE_HEADER}: {}`: the one audience is `{EVERYONE}`",
                    shown(unknown)
                ),
            ));
        }
        if !self.audiences.is_empty() {
            return Ok(Some(Audience::Everyone));
        }
        let mut users = Vec::with_capacity(self.users.len());
        for escaped in &self.users {
            users.push(user(escaped, "", UserId::unescape(escaped))?);
        }
        // Sorted, as a header may hold thousands of ids and each user counts once.
        users.sort_unstable();
        users.dedup();
        Ok((!users.is_empty()).then_some(Audience::Users(users)))
    }
}

fn event_type(
    source: &Source,
    subject: &str,
    headers: &Headers<'_>,
    field: Option<&RawValue>,
) -> Result<EventType, Rejection> {
    let wrong = |pointer: String, message: String| Err(Rejection::new(Rule::Type, pointer, message));
    let (name, place): (Cow<'_, str>, String) = match &source.event_type {
        TypeFrom::Subject { tokens } => {
            let end = subject.match_indices('.').nth(tokens.saturating_sub(1));
            (
                Cow::Borrowed(end.map_or(subject, |(end, _)| &subject[..end])),
                String::new(),
            )
        }
        TypeFrom::Header(header) => match headers.types.as_slice() {
            [] => {
                return wrong(
                    String::new(),
                    format!("the header `{header}` holds the type and is missing"),
                );
            }
            [name, others @ ..] if others.iter().all(|other| other == name) => {
                (Cow::Borrowed(*name), String::new())
            }
            _ => return wrong(String::new(), format!("the header `{header}` names two types")),
        },
        TypeFrom::Field(name) => {
            let text = field.map(|raw| serde_json::from_str::<Cow<'_, str>>(raw.get()));
            match text {
                Some(Ok(text)) => (text, pointer(name)),
                found => {
                    let what = found.map_or("is missing", |_| "is not a string");
                    return wrong(
                        pointer(name),
                        format!("the field `{name}` holds the type and {what}"),
                    );
                }
            }
        }
    };
    let parsed = match &source.type_prefix {
        Some(prefix) => EventType::parse(&format!("{prefix}.{name}")),
        None => EventType::parse(&name),
    };
    parsed.or_else(|fault| wrong(place, fault.to_string()))
}

/// `processor.failed` as the `data` of an `error` frame. `None` if the data lacks what makes it one; then
/// nobody checked it either.
fn as_error(data: &[u8]) -> Option<Bytes> {
    #[derive(Serialize)]
    struct AsError<'a> {
        code: &'static str,
        message: &'a RawValue,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after: Option<&'a RawValue>,
        blob_id: &'a RawValue,
        processor_id: &'a RawValue,
        #[serde(skip_serializing_if = "Option::is_none")]
        processor_code: Option<&'a RawValue>,
    }
    let wanted = ["message", "retry_after", "blob_id", "processor_id", "code"];
    let [message, retry_after, blob_id, processor_id, code] = top_level(data, wanted.map(Some)).ok()?;
    let there = |value: &&RawValue| value.get() != "null";
    let error = AsError {
        code: ErrorCode::ProcessorFailed.name(),
        message: message?,
        retry_after: retry_after.filter(there),
        blob_id: blob_id?,
        processor_id: processor_id?,
        processor_code: code.filter(there),
    };
    serde_json::to_vec(&error).ok().map(Bytes::from)
}

/// The start of a text that a stranger wrote, for a message.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests;
