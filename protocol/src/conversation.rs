//! The `conversation` family: messages between people.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalar::Timestamp;

/// What happens in conversations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data")]
pub enum ConversationEvent {
    /// Somebody wrote.
    #[serde(rename = "conversation.message")]
    Message(ConversationMessage),
    /// Somebody has read up to a message.
    #[serde(rename = "conversation.read")]
    Read(ConversationRead),
    /// Somebody started or stopped typing. Ephemeral: live only, never replayed.
    #[serde(rename = "conversation.typing")]
    #[schemars(extend("x-ephemeral" = true))]
    Typing(ConversationTyping),
    /// A conversation was begun.
    #[serde(rename = "conversation.created")]
    Created(ConversationCreated),
    /// A conversation is gone.
    #[serde(rename = "conversation.deleted")]
    Deleted(ConversationDeleted),
}

/// Somebody wrote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
pub struct ConversationMessage {
    /// The conversation.
    pub conversation_id: String,
    /// The message.
    pub message_id: String,
    /// Who wrote it.
    pub author_id: String,
    /// What was written.
    pub text: String,
    /// When it was sent.
    pub sent_at: Timestamp,
    /// For whom this copy is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
}

/// Somebody has read up to a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
pub struct ConversationRead {
    /// The conversation.
    pub conversation_id: String,
    /// The last message read.
    pub message_id: String,
    /// Who read it.
    pub reader_id: String,
    /// When.
    pub read_at: Timestamp,
    /// For whom this copy is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
}

/// Somebody started or stopped typing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
pub struct ConversationTyping {
    /// The conversation.
    pub conversation_id: String,
    /// Who types.
    pub typist_id: String,
    /// Whether they type now.
    pub typing: bool,
    /// For whom this copy is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
}

/// A conversation was begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
pub struct ConversationCreated {
    /// The conversation.
    pub conversation_id: String,
    /// Its title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Who takes part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_ids: Option<Vec<String>>,
    /// For whom this copy is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
}

/// A conversation is gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
pub struct ConversationDeleted {
    /// The conversation.
    pub conversation_id: String,
    /// The title that it had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Who took part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_ids: Option<Vec<String>>,
    /// For whom this copy is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
}
