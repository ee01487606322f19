//! Events: their type names, and the envelope in which they travel.
//!
//! On the way of an event the router holds its type and the raw bytes of its `data`, never a closed enum: a
//! router that is older than a backend still carries the backend's new events, and the bytes pass untouched.
//! Decoding is therefore two steps: the [`Envelope`] first, then [`decode`] looks its type up.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{
    blob::BlobEvent, book::BookEvent, conversation::ConversationEvent, halves, message,
    processor::ProcessorEvent,
};

/// The most tokens in an event type.
pub const MAX_TOKENS: usize = 8;
/// The most characters in an event type.
pub const MAX_TYPE_LENGTH: usize = 128;

/// The name of an event's type, such as `blob.created`: 1 to 8 tokens of `[A-Za-z0-9_-]` with dots between,
/// at most 128 characters, and never the name of a router's or client's frame. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventType(Arc<str>);

/// Why a text is not an event type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidType {
    /// It is the name of a frame that the router or a client sends.
    #[error("`{0}` is the name of a frame of the protocol, not of an event")]
    Reserved(String),
    /// It is not 1 to 8 tokens of the allowed characters.
    #[error(
        "`{0}` is not an event type: 1 to 8 tokens of A-Z a-z 0-9 _ - with dots between, at most 128 characters"
    )]
    Malformed(String),
}

impl EventType {
    /// Checks the name.
    pub fn parse(name: &str) -> Result<Self, InvalidType> {
        if name.len() > MAX_TYPE_LENGTH
            || name.split('.').count() > MAX_TOKENS
            || !name.split('.').all(is_token)
        {
            return Err(InvalidType::Malformed(
                name.chars().take(MAX_TYPE_LENGTH).collect(),
            ));
        }
        if message::is_frame_name(name) {
            return Err(InvalidType::Reserved(name.to_owned()));
        }
        Ok(Self(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The leading token, such as `blob`.
    pub fn family(&self) -> &str {
        self.0.split('.').next().unwrap_or_default()
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Whether the text is one token of a type or of a literal pattern.
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// An event as it stands on the wire, its data not yet decoded.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Envelope<'a> {
    /// The event's type.
    #[serde(rename = "type")]
    pub event_type: std::borrow::Cow<'a, str>,
    /// Where it stands in the stream; absent on a core source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// When the stream stored it or, on a core source, when the router got it (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<std::borrow::Cow<'a, str>>,
    /// The bytes that the backend published.
    #[serde(borrow)]
    pub data: &'a RawValue,
}

/// An event of one of the built-in families.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// `blob.*`
    Blob(BlobEvent),
    /// `processor.*`
    Processor(ProcessorEvent),
    /// `book.*`
    Book(BookEvent),
    /// `conversation.*`
    Conversation(ConversationEvent),
}

/// Decodes `data` as the built-in event `event_type`. `Ok(None)`: this version does not know the type. `Err`:
/// it knows the type, and the data is not of it.
pub fn decode(event_type: &str, data: &RawValue) -> Result<Option<Event>, serde_json::Error> {
    /// What an adjacently tagged enum is decoded from.
    #[derive(Serialize)]
    struct Tagged<'a> {
        #[serde(rename = "type")]
        event_type: &'a str,
        data: &'a RawValue,
    }
    fn family<T: DeserializeOwned>(tagged: &Tagged<'_>) -> Result<T, serde_json::Error> {
        halves::read(&serde_json::to_string(tagged)?)
    }
    let tagged = Tagged { event_type, data };
    Ok(Some(match event_type {
        "blob.created" | "blob.updated" | "blob.deleted" | "blob.derived" => Event::Blob(family(&tagged)?),
        "processor.status" | "processor.completed" | "processor.failed" => Event::Processor(family(&tagged)?),
        "book.created" | "book.updated" | "book.deleted" => Event::Book(family(&tagged)?),
        "conversation.message"
        | "conversation.read"
        | "conversation.typing"
        | "conversation.created"
        | "conversation.deleted" => Event::Conversation(family(&tagged)?),
        _ => return Ok(None),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_tokens() {
        for good in [
            "blob.created",
            "a",
            "a.b.c.d.e.f.g.h",
            "A-Z_0.9",
            &"x".repeat(128),
        ] {
            assert_eq!(EventType::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "a.b.c.d.e.f.g.h.i",
            "a b",
            "a.*",
            "a.>",
            "é",
            &"x".repeat(129),
        ] {
            assert!(
                matches!(EventType::parse(bad), Err(InvalidType::Malformed(_))),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn frame_names_are_not_types() {
        for reserved in ["connected", "error", "ping", "subscribe", "reply", "gap"] {
            assert_eq!(
                EventType::parse(reserved),
                Err(InvalidType::Reserved(reserved.to_owned()))
            );
        }
    }

    #[test]
    fn what_the_edge_takes_decodes() {
        let data = RawValue::from_string(
            r#"{"blob_id":"b","processor_id":"p","status":"paused","progress":1,"message":null,"new":[1]}"#
                .into(),
        )
        .unwrap();
        let Some(Event::Processor(ProcessorEvent::Status(status))) =
            decode("processor.status", &data).unwrap()
        else {
            panic!("not a status");
        };
        assert_eq!(
            status.status,
            crate::processor::ProcessorStatus::Other("paused".into())
        );
        assert!(decode("processor.completed", &data).is_ok());
        assert!(decode("processor.failed", &data).is_err());
        assert_eq!(decode("processor.paused", &data).unwrap(), None);
    }
}
