//! Every frame that is not an event: what clients say, what the router says.
//!
//! [`ClientMessage`] and [`ServerMessage`] are the typed forms, from which schemas and SDKs are made. The router
//! itself reads client frames with [`ClientFrame::parse`], which leaves the bytes of a command's `data` as they
//! are and names the field at fault.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};

use crate::{
    error::{ErrorBody, ErrorCode},
    halves,
    pattern::Pattern,
    scalar::{SafeInteger, Timestamp},
};

/// The WebSocket subprotocol of clients that take arrays, heartbeats and `resumed`.
pub const SUBPROTOCOL: &str = "rivulet.v1";
/// What `connected` calls the protocol of a client that asked for no subprotocol.
pub const PLAIN: &str = "plain";
/// The most characters in the `id` of a client's message.
pub const MAX_ID_LENGTH: usize = 64;
/// The most characters in a `device`.
pub const MAX_DEVICE_LENGTH: usize = 64;

/// The names of the frames that the router sends.
pub const SERVER_FRAMES: [&str; 12] = [
    "connected",
    "subscribed",
    "unsubscribed",
    "resumed",
    "reply",
    "error",
    "pong",
    "heartbeat",
    "token_refreshed",
    "token_expiring",
    "gap",
    "draining",
];

/// The names of the frames with which a client speaks to the router itself: no command may have one.
pub const SESSION_FRAMES: [&str; 5] = ["subscribe", "unsubscribe", "resume", "refresh_token", "ping"];

/// The names of the built-in commands.
pub const BUILTIN_COMMANDS: [&str; 2] = ["create_blob", "process_blob"];

/// Whether a frame of the protocol has this name, so that no event type may have it.
pub fn is_frame_name(name: &str) -> bool {
    SERVER_FRAMES.contains(&name) || SESSION_FRAMES.contains(&name) || BUILTIN_COMMANDS.contains(&name)
}

/// What a client says, commands aside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientMessage {
    /// Adds patterns. Answered by `subscribed`, or by `error` and nothing changed.
    Subscribe {
        /// Echoed in the answer; at most 64 characters.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// The patterns to add. One already in force is no error.
        events: Vec<String>,
    },
    /// Removes patterns. One not in force is no error.
    Unsubscribe {
        /// Echoed in the answer; at most 64 characters.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// The patterns to remove. Nothing is carved out of a wider one.
        events: Vec<String>,
    },
    /// Sets patterns and position in one step; only before the first event was delivered.
    Resume {
        /// Echoed in an error; at most 64 characters.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// The stream's epoch, as `connected` named it.
        stream: String,
        /// The last sequence that the client has handled.
        seq: SafeInteger,
        /// The patterns; absent, those in force stay.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        events: Option<Vec<String>>,
    },
    /// Replaces the token. Answered by `token_refreshed`.
    RefreshToken {
        /// Echoed in the answer; at most 64 characters.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// The new token, of the same user.
        token: String,
    },
    /// Answered by `pong`.
    Ping {
        /// Echoed in the answer; at most 64 characters.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
    },
}

/// What the router says, events aside. On the wire an `id` may stand beside `type` and `data`: that of the
/// client's message which this answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub enum ServerMessage {
    /// The first frame of an accepted session.
    Connected(Connected),
    /// Patterns were added: every matching event after `seq` will come.
    Subscribed(Subscribed),
    /// Patterns were removed.
    Unsubscribed(Subscribed),
    /// The replay is over: what follows is live.
    Resumed(Resumed),
    /// A command's result.
    Reply(Value),
    /// What the client asked for, or sent, came to nothing.
    Error(ErrorBody),
    /// The answer to `ping`.
    Pong(Head),
    /// Nothing came for `heartbeat_ms`: all of yours up to `seq` has been sent.
    Heartbeat(Head),
    /// The new token is in force.
    TokenRefreshed(TokenTimes),
    /// The token ends soon.
    TokenExpiring(TokenTimes),
    /// What lies between is gone: re-read your state.
    Gap(Gap),
    /// This node is going away.
    Draining(Draining),
}

/// The state of a session at its start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Connected {
    /// Always `ready`: a session that is not ready is refused.
    pub status: String,
    /// Who the token says you are.
    pub user_id: String,
    /// This session, for logs.
    pub session_id: String,
    /// `rivulet.v1` or `plain`.
    pub protocol: String,
    /// The router and its version.
    pub server: String,
    /// After how many milliseconds of silence either side should say something.
    pub heartbeat_ms: SafeInteger,
    /// When the token ends, by the router's clock. Absent for a token without an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_expires_at: Option<Timestamp>,
    /// In how many milliseconds the token ends: the one to reckon with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_expires_in_ms: Option<SafeInteger>,
    /// The patterns in force.
    pub events: Vec<String>,
    /// Whether a cursor survives a reconnect: false on a router without a stream.
    pub durable: bool,
    /// The stream's epoch: its name and creation time in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// The last sequence that this node has dispatched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<SafeInteger>,
    /// The oldest sequence that can still be resumed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_seq: Option<SafeInteger>,
    /// Whether the position that was asked for was accepted without a gap.
    pub resumed: bool,
    /// What this session may do.
    pub limits: SessionLimits,
}

/// What a session may do.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SessionLimits {
    /// The most bytes in a client's message, after inflating.
    pub max_message_bytes: SafeInteger,
    /// The most patterns at a time.
    pub max_patterns: SafeInteger,
}

/// The patterns of a session after a change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Subscribed {
    /// All patterns now in force.
    pub events: Vec<String>,
    /// The last sequence dispatched before the change. Absent without a stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<SafeInteger>,
}

/// What a replay brought.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Resumed {
    /// The position that was asked for.
    pub from_seq: SafeInteger,
    /// The position from which on events come live.
    pub to_seq: SafeInteger,
    /// Whether everything between came.
    pub complete: bool,
}

/// A position in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Head {
    /// All of yours up to here has been sent. Absent without a stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<SafeInteger>,
}

/// When the token ends.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TokenTimes {
    /// By the router's clock.
    pub expires_at: Timestamp,
    /// From now: the one to reckon with.
    pub expires_in_ms: SafeInteger,
}

/// A range of the stream that this session will not see.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Gap {
    /// The stream's epoch now; the client's cursor moves to it.
    pub stream: String,
    /// The last sequence before the gap.
    pub from_seq: SafeInteger,
    /// The last sequence in the gap; the client's cursor becomes this, even where it is lower than before.
    pub to_seq: SafeInteger,
    /// Why.
    pub reason: GapReason,
}

/// Why a range of the stream is out of reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// The stream no longer keeps it.
    Evicted,
    /// The stream was made anew.
    EpochChanged,
    /// The position asked for is beyond the stream's end.
    FutureSeq,
    /// What came with the sequence after `to_seq` was not the stream's; the stream's own follows. `to_seq` is the
    /// sequence before it, and `from_seq` the sequence itself.
    Replaced,
    /// A reason of a later version; kept as it came.
    #[serde(untagged)]
    #[schemars(skip)]
    Other(String),
}

/// This node is going away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Draining {
    /// When to reconnect, from now.
    pub reconnect_after_ms: SafeInteger,
    /// The stream's epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// All of yours up to here has been sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<SafeInteger>,
}

/// A frame of the router: a message and what it answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServerFrame<'a> {
    /// The message.
    #[serde(flatten)]
    pub message: &'a ServerMessage,
    /// The `id` of the client's message that this answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a str>,
}

impl ServerMessage {
    /// The frame as JSON text.
    pub fn to_json(&self, id: Option<&str>) -> String {
        serde_json::to_string(&ServerFrame { message: self, id }).expect("a message of strings and numbers")
    }
}

/// What a backend answered to a command, its bytes untouched, as the frame `frame_type` (`reply` or `error`).
pub fn passed_on_json(frame_type: &str, data: &RawValue, id: Option<&str>) -> String {
    #[derive(Serialize)]
    struct PassedOn<'a> {
        #[serde(rename = "type")]
        frame_type: &'a str,
        data: &'a RawValue,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
    }
    serde_json::to_string(&PassedOn { frame_type, data, id }).expect("a message of strings and raw JSON")
}

/// A client's frame as the router reads it.
#[derive(Debug)]
pub struct ClientFrame<'a> {
    /// Echoed in whatever answers this, an error too.
    pub id: Option<String>,
    /// What it asks, or what is wrong with it.
    pub request: Result<ClientRequest<'a>, ErrorBody>,
}

/// What a client asks of the router.
#[derive(Debug)]
pub enum ClientRequest<'a> {
    /// `subscribe`
    Subscribe(Vec<Pattern>),
    /// `unsubscribe`
    Unsubscribe(Vec<Pattern>),
    /// `resume`
    Resume {
        /// The epoch of the client's cursor.
        stream: String,
        /// The last sequence that the client has handled.
        seq: u64,
        /// The patterns; `None` leaves those in force.
        events: Option<Vec<Pattern>>,
    },
    /// `refresh_token`
    RefreshToken(String),
    /// `ping`
    Ping,
    /// Any other type: a command, if the catalogue has one of this name.
    Command {
        /// The frame's `type`.
        name: Cow<'a, str>,
        /// The bytes of its `data`; `None` if it has none.
        data: Option<&'a RawValue>,
    },
}

impl<'a> ClientFrame<'a> {
    /// Reads one frame. Every fault comes with the code and, where there is one, the field that a client needs
    /// to mend it. Fields that this version does not know are passed over, however deep they are.
    pub fn parse(text: &'a str) -> Self {
        /// The fields of all messages, not looked into: so that each can be blamed by name.
        #[derive(Deserialize)]
        struct Fields<'a> {
            #[serde(borrow, rename = "type")]
            frame_type: Option<&'a RawValue>,
            #[serde(borrow)]
            id: Option<&'a RawValue>,
            #[serde(borrow)]
            events: Option<&'a RawValue>,
            #[serde(borrow)]
            token: Option<&'a RawValue>,
            #[serde(borrow)]
            stream: Option<&'a RawValue>,
            #[serde(borrow)]
            seq: Option<&'a RawValue>,
            #[serde(borrow)]
            data: Option<&'a RawValue>,
        }

        impl Fields<'_> {
            /// The same places in `text` that these are in `read`.
            fn within<'t>(&self, read: &str, text: &'t str) -> Fields<'t> {
                let same = |value: Option<&RawValue>| halves::original(value?, read, text);
                Fields {
                    frame_type: same(self.frame_type),
                    id: same(self.id),
                    events: same(self.events),
                    token: same(self.token),
                    stream: same(self.stream),
                    seq: same(self.seq),
                    data: same(self.data),
                }
            }
        }
        let refused = |error| Self {
            id: None,
            request: Err(error),
        };

        // A key that holds half a surrogate pair is a field that this version does not know, too.
        let mended;
        let read = match serde_json::from_str::<Fields<'_>>(text) {
            Err(fault) => {
                mended = halves::replaced(text);
                match &mended {
                    Some(mended) => {
                        serde_json::from_str::<Fields<'_>>(mended).map(|fields| fields.within(mended, text))
                    }
                    None => Err(fault),
                }
            }
            read => read,
        };
        let fields: Fields<'a> = match read {
            // serde reads a struct from an array too.
            Ok(_) if !text.trim_start().starts_with('{') => {
                return refused(ErrorBody::new(
                    ErrorCode::InvalidMessage,
                    "a message is one JSON object",
                ));
            }
            Ok(fields) => fields,
            Err(error) if error.is_data() => {
                return refused(ErrorBody::new(
                    ErrorCode::InvalidMessage,
                    format!("a message is one JSON object: {error}"),
                ));
            }
            Err(error) => {
                return refused(ErrorBody::new(
                    ErrorCode::InvalidJson,
                    format!("not JSON: {error}"),
                ));
            }
        };
        let id = match fields
            .id
            .map(|id| required::<String>("id", Some(id), "a string"))
            .transpose()
        {
            Ok(Some(id)) if id.chars().count() > MAX_ID_LENGTH => {
                return refused(
                    ErrorBody::new(
                        ErrorCode::TooLarge,
                        format!("`id` has at most {MAX_ID_LENGTH} characters"),
                    )
                    .field("id"),
                );
            }
            Ok(id) => id,
            Err(error) => return refused(error),
        };
        let request = (|| {
            let frame_type: Cow<'a, str> = required("type", fields.frame_type, "a string").map(Cow::Owned)?;
            Ok(match &*frame_type {
                "subscribe" => ClientRequest::Subscribe(patterns(fields.events)?),
                "unsubscribe" => ClientRequest::Unsubscribe(patterns(fields.events)?),
                "resume" => ClientRequest::Resume {
                    stream: required("stream", fields.stream, "a string")?,
                    seq: required::<SafeInteger>("seq", fields.seq, "a whole number from 0 to 2^53 - 1")?
                        .get(),
                    events: fields.events.map(|events| patterns(Some(events))).transpose()?,
                },
                "refresh_token" => ClientRequest::RefreshToken(required("token", fields.token, "a string")?),
                "ping" => ClientRequest::Ping,
                _ => ClientRequest::Command {
                    name: frame_type,
                    data: fields.data,
                },
            })
        })();
        Self { id, request }
    }
}

/// Decodes a field that must be there.
fn required<T: DeserializeOwned>(field: &str, raw: Option<&RawValue>, kind: &str) -> Result<T, ErrorBody> {
    let wrong = |what: &str| {
        ErrorBody::new(
            ErrorCode::InvalidMessage,
            format!("`{field}` {what}: it is {kind}"),
        )
        .field(field)
    };
    serde_json::from_str(raw.ok_or_else(|| wrong("is missing"))?.get())
        .map_err(|_| wrong("is of the wrong kind"))
}

/// Decodes the patterns of `events`, naming the one at fault.
fn patterns(raw: Option<&RawValue>) -> Result<Vec<Pattern>, ErrorBody> {
    let texts: Vec<String> = required("events", raw, "an array of strings")?;
    let parse = |(index, text): (usize, &String)| {
        text.parse().map_err(|error| {
            let shown: String = text.chars().take(130).collect();
            ErrorBody::new(ErrorCode::InvalidPattern, format!("`{shown}`: {error}"))
                .field(format!("events[{index}]"))
        })
    };
    texts.iter().enumerate().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> (String, Option<String>) {
        let error = ClientFrame::parse(text).request.expect_err(text);
        (error.code, error.field)
    }

    #[test]
    fn faults_name_code_and_field() {
        for (text, code, field) in [
            ("", "INVALID_JSON", None),
            ("{", "INVALID_JSON", None),
            ("{\"type\":\"ping\"} x", "INVALID_JSON", None),
            ("[]", "INVALID_MESSAGE", None),
            ("null", "INVALID_MESSAGE", None),
            (
                "[\"ping\",null,null,null,null,null,null]",
                "INVALID_MESSAGE",
                None,
            ),
            ("{}", "INVALID_MESSAGE", Some("type")),
            (r#"{"type":1}"#, "INVALID_MESSAGE", Some("type")),
            (r#"{"type":"ping","type":"ping"}"#, "INVALID_MESSAGE", None),
            (r#"{"type":"ping","id":1}"#, "INVALID_MESSAGE", Some("id")),
            (r#"{"type":"subscribe"}"#, "INVALID_MESSAGE", Some("events")),
            (
                r#"{"type":"subscribe","events":"blob.*"}"#,
                "INVALID_MESSAGE",
                Some("events"),
            ),
            (
                r#"{"type":"subscribe","events":["a","b*"]}"#,
                "INVALID_PATTERN",
                Some("events[1]"),
            ),
            (
                r#"{"type":"resume","stream":"S@1","seq":-1}"#,
                "INVALID_MESSAGE",
                Some("seq"),
            ),
            (r#"{"type":"refresh_token"}"#, "INVALID_MESSAGE", Some("token")),
        ] {
            assert_eq!(
                refusal(text),
                (code.to_owned(), field.map(str::to_owned)),
                "{text}"
            );
        }
        let long = format!(r#"{{"type":"ping","id":"{}"}}"#, "x".repeat(65));
        assert_eq!(refusal(&long), ("TOO_LARGE".to_owned(), Some("id".to_owned())));
    }

    #[test]
    fn half_of_a_surrogate_pair_in_a_command_stays_as_it_is() {
        for text in [
            r#"{"type":"create_blob","data":{"a":"\ud83d","\ude00":1}}"#,
            r#"{"\ud83d":1,"type":"create_blob","data":{"a":"\ud83d","\ude00":1},"é":"\ud83d"}"#,
        ] {
            let Ok(ClientRequest::Command {
                name,
                data: Some(data),
            }) = ClientFrame::parse(text).request
            else {
                panic!("not a command: {text}")
            };
            assert_eq!(
                (&*name, data.get()),
                ("create_blob", r#"{"a":"\ud83d","\ude00":1}"#)
            );
        }
        let twice = refusal(r#"{"\ud83d":1,"type":"ping","type":"ping"}"#);
        assert_eq!(twice, ("INVALID_MESSAGE".to_owned(), None));
        let id = refusal(r#"{"type":"ping","id":"\ud83d"}"#);
        assert_eq!(id, ("INVALID_MESSAGE".to_owned(), Some("id".to_owned())));
    }

    #[test]
    fn the_id_of_a_refused_message_is_kept() {
        let frame = ClientFrame::parse(r#"{"id":"7","type":"subscribe","events":["b*"]}"#);
        assert_eq!(frame.id.as_deref(), Some("7"));
        assert!(frame.request.is_err());
    }

    #[test]
    fn a_commands_bytes_stay() {
        let frame = ClientFrame::parse(r#"{"type":"create_blob","data":{"b": 1.0,"a":"\u00e9"}}"#);
        let Ok(ClientRequest::Command {
            name,
            data: Some(data),
        }) = frame.request
        else {
            panic!("not a command")
        };
        assert_eq!(
            (&*name, data.get()),
            ("create_blob", r#"{"b": 1.0,"a":"\u00e9"}"#)
        );
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = format!(
            r#"{{"type":"ping","x":{}{}}}"#,
            "[".repeat(1_000_000),
            "]".repeat(1_000_000)
        );
        assert!(matches!(
            ClientFrame::parse(&deep).request,
            Ok(ClientRequest::Ping)
        ));
        assert_eq!(refusal(&"[".repeat(1_000_000)).0, "INVALID_JSON");
        let events = format!(
            r#"{{"type":"subscribe","events":{}{}}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        assert_eq!(refusal(&events).1.as_deref(), Some("events"));
    }

    #[test]
    fn the_answered_id_stands_beside_data() {
        let pong = ServerMessage::Pong(Head {
            seq: SafeInteger::new(7),
        });
        assert_eq!(
            pong.to_json(Some("a")),
            r#"{"type":"pong","data":{"seq":7},"id":"a"}"#
        );
        let data = RawValue::from_string(r#"{"n": 1.0}"#.into()).unwrap();
        assert_eq!(
            passed_on_json("reply", &data, None),
            r#"{"type":"reply","data":{"n": 1.0}}"#
        );
    }
}
