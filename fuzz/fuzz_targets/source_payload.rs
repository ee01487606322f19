//! Whatever is published where sources are, with whatever headers: it is an event of a well-formed type, for
//! somebody, whose data is an object within the payload, or it is rejected with a rule and a reason.
//!
//! The input's first line is the subject; lines of headers follow up to an empty one, and then the payload.

#![no_main]

use std::sync::LazyLock;

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use rivulet_protocol::{catalog::Catalog, event::EventType, validate::Validator};
use rivulet_router::{
    bus::source::{Rejection, Rule, Sources},
    config::{AudienceFrom, DataFrom, Source, TypeFrom, Validation},
    event::Audience,
};
use serde_json::{Map, Value};

const MAX_EVENT_BYTES: usize = 4_096;

static SOURCES: LazyLock<Sources> = LazyLock::new(|| {
    let source = |subject: &str, audience| Source {
        subject: subject.to_owned(),
        durable: true,
        event_type: TypeFrom::Subject { tokens: 2 },
        type_prefix: None,
        data: DataFrom::Payload,
        audience,
        validate: Validation::Reject,
    };
    let sources = [
        source("blob.>", AudienceFrom::Auto),
        source("processor.>", AudienceFrom::Payload),
        source("book.>", AudienceFrom::Header),
        source("conversation.*.*", AudienceFrom::Token(2)),
        Source {
            validate: Validation::Warn,
            ..source("news.>", AudienceFrom::Everyone)
        },
        source("room.>", AudienceFrom::Field("to".to_owned())),
        Source {
            event_type: TypeFrom::Header("Event-Type".to_owned()),
            data: DataFrom::Field("data".to_owned()),
            validate: Validation::Off,
            ..source("cloud.>", AudienceFrom::Auto)
        },
        Source {
            event_type: TypeFrom::Field("pattern".to_owned()),
            type_prefix: Some(EventType::parse("state").unwrap()),
            data: DataFrom::Field("data".to_owned()),
            ..source("nest.>", AudienceFrom::Payload)
        },
    ];
    Sources::new(&sources, MAX_EVENT_BYTES, &["command.*"]).unwrap()
});
static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| Validator::new(&Catalog::builtin()));

fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    let mut line = || {
        let end = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
        let (line, after) = rest.split_at(end);
        rest = after.get(1..).unwrap_or_default();
        std::str::from_utf8(line).unwrap_or_default()
    };
    let subject = line();
    let mut headers = HeaderMap::new();
    loop {
        let header = line();
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(':').unwrap_or((header, ""));
        // As the NATS client reads them.
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.trim().parse::<HeaderValue>()) {
            headers.append(name, value);
        }
    }
    let payload = Bytes::copy_from_slice(rest);
    let validate = |event_type: &EventType, data: &[u8]| {
        VALIDATOR
            .validate_event(event_type.as_str(), data)
            .map_err(|violation| {
                Rejection::new(Rule::Schema(violation.rule), violation.pointer, violation.message)
            })
    };
    match SOURCES.read(subject, Some(&headers), &payload, &validate) {
        Ok(content) => {
            assert!(payload.len() <= MAX_EVENT_BYTES);
            assert_eq!(
                EventType::parse(content.event_type.as_str()).as_ref(),
                Ok(&content.event_type)
            );
            let within = payload.as_ptr_range();
            assert!(within.contains(&content.data.as_ptr()), "the data is a copy");
            is_an_object(&content.data);
            if let Some(error) = &content.as_error {
                is_an_object(error);
            }
            if let Audience::Users(users) = &content.audience {
                assert!(!users.is_empty() && users.is_sorted(), "{users:?}");
            }
        }
        Err(rejection) => {
            assert!(!rejection.message.is_empty(), "{rejection:?}");
            assert!(rejection.message.len() < 2 * MAX_EVENT_BYTES, "{rejection:?}");
        }
    }
});

fn is_an_object(data: &[u8]) {
    if let Err(error) = serde_json::from_slice::<Map<String, Value>>(data) {
        // What nests deeper than a tree may be, or says half a character, passes as the bytes that it is.
        let text = error.to_string();
        assert!(
            text.contains("recursion limit") || text.contains("surrogate") || text.contains("hex escape"),
            "{error}: {}",
            String::from_utf8_lossy(data)
        );
    }
}
