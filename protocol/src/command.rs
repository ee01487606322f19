//! The built-in commands: what a client may ask a backend to do, and what the backend answers.
//!
//! A command travels as a NATS request on `command.<name>`, with the bytes of the client's `data` as its
//! payload and the headers [`USER_HEADER`](crate::subject::USER_HEADER) and [`COMMAND_ID_HEADER`]. The backend
//! answers `{"data": {…}}` or `{"error": {"code", "message", …}}`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The NATS header with the client's command id, where it gave one. The router alone sets it.
pub const COMMAND_ID_HEADER: &str = "Rivulet-Command-Id";

/// The NATS subject on which a command is asked.
pub fn command_subject(name: &str) -> String {
    format!("command.{name}")
}

/// `create_blob`: store content as a new blob of the asking user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CreateBlob {
    /// The content.
    pub content: String,
    /// What the content looks like.
    pub schema_id: String,
    /// Anything the application wants to keep beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
}

/// The answer to `create_blob`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CreateBlobReply {
    /// The new blob.
    pub blob_id: String,
}

/// `process_blob`: have a processor work on a blob of the asking user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessBlob {
    /// The blob.
    pub blob_id: String,
    /// What should work on it.
    pub processor_id: String,
}

/// The answer to `process_blob`: the work was taken on; how it goes comes as `processor.*` events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessBlobReply {
    /// The blob.
    pub blob_id: String,
    /// What works on it.
    pub processor_id: String,
}
