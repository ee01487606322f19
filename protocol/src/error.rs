//! Error codes: one closed list, each with what the client should do.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Writes the enum of codes and everything that is said about each code from one table, so that a code can't
/// be without its meaning or its advice.
macro_rules! error_codes {
    ($($variant:ident $name:literal $meaning:literal $advice:literal)*) => {
        /// Why something the client asked for, or sent, came to nothing.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum ErrorCode {
            $(#[doc = $meaning] #[serde(rename = $name)] $variant,)*
        }

        impl ErrorCode {
            /// Every code, in the order of the reference page.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The code as it stands on the wire.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// What it means.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning),* }
            }

            /// What the client should do.
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$variant => $advice),* }
            }
        }
    };
}

error_codes! {
    InvalidJson "INVALID_JSON"
        "The frame is not JSON."
        "Fix the sender. More than 10 bad messages a minute close the connection with 1008."
    UnknownType "UNKNOWN_TYPE"
        "No message and no command has this `type`."
        "Fix the name, or use a router that knows the command."
    InvalidMessage "INVALID_MESSAGE"
        "The message lacks a field or a field is of the wrong kind; `field` names it."
        "Fix the field named."
    InvalidPattern "INVALID_PATTERN"
        "A pattern is not of the form that patterns have; `field` names it."
        "Fix the pattern: tokens of `A-Za-z0-9_-` by dots, `*` for one token, a final `>` for the rest."
    TooLarge "TOO_LARGE"
        "A field is over its bound; `field` names it."
        "Send less."
    TooManyPatterns "TOO_MANY_PATTERNS"
        "The session would hold more patterns than `limits.max_patterns` of `connected`."
        "Use wider patterns, or unsubscribe from some."
    RateLimited "RATE_LIMITED"
        "Too much of this in too short a time."
        "Wait `retry_after` seconds."
    Unauthorized "UNAUTHORIZED"
        "The token is missing, malformed, expired, or not signed by a key that this router knows."
        "Get a new token from the application."
    Forbidden "FORBIDDEN"
        "The token does not permit this."
        "Do not repeat it with this token."
    NotFound "NOT_FOUND"
        "What the command is about does not exist, or not for this user."
        "Do not repeat it."
    CommandFailed "COMMAND_FAILED"
        "The backend answered with something that is neither a result nor an error."
        "Report it; asking again with the same `id` gets the same answer."
    CommandTimeout "COMMAND_TIMEOUT"
        "The deadline passed before the command was sent to a backend: nothing happened."
        "Ask again."
    OutcomeUnknown "OUTCOME_UNKNOWN"
        "The command was sent and no answer came by the deadline: it may have happened."
        "Ask again with the same `id`: it is sent to a backend at most once in 10 minutes."
    BackendUnavailable "BACKEND_UNAVAILABLE"
        "No backend answers this command now: nothing happened."
        "Ask again later."
    Unavailable "UNAVAILABLE"
        "The node is not current: it has lost NATS or is catching up."
        "Reconnect after a while; another node may be current."
    ProcessorFailed "PROCESSOR_FAILED"
        "A processor gave up on a blob: the event `processor.failed` as an error, for sessions that subscribe to `error`."
        "Show it; try again after `retry_after` seconds where given."
    Internal "INTERNAL"
        "The router has a fault."
        "Report it; try again."
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The `data` of an `error` frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// One of the [`ErrorCode`]s, or a backend's own code.
    pub code: String,
    /// What went wrong, for people.
    pub message: String,
    /// After how many seconds trying again may help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<f64>,
    /// The field that is at fault, as a path such as `data.content` or `events[2]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Whatever else the one who reports it had to say, such as `blob_id`.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl ErrorBody {
    /// An error of the router's own.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code: code.name().to_owned(),
            message: message.into(),
            retry_after: None,
            field: None,
            more: Map::new(),
        }
    }

    /// Names the field at fault.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Says after how many seconds trying again may help.
    #[must_use]
    pub fn retry_after(mut self, seconds: f64) -> Self {
        self.retry_after = Some(seconds);
        self
    }
}
