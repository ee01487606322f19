//! Whatever text a client sends: it is read as a request or answered by an error that can be sent, and only a JSON
//! object is a request.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use rivulet_protocol::{
    message::{ClientFrame, ClientRequest, ServerMessage},
    pattern::Pattern,
};
use serde::de::IgnoredAny;

fuzz_target!(|text: &str| {
    let frame = ClientFrame::parse(text);
    let id = frame.id.as_deref();
    assert!(id.is_none_or(|id| id.chars().count() <= 64));
    match frame.request {
        Err(error) => {
            let answer = ServerMessage::Error(error).to_json(id);
            let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
            assert_eq!(answer["type"], "error");
        }
        Ok(request) => {
            serde_json::from_str::<BTreeMap<String, IgnoredAny>>(text).expect("a request is a JSON object");
            check(&request, text);
        }
    }
});

fn check(request: &ClientRequest<'_>, text: &str) {
    let are_patterns = |patterns: &[Pattern]| {
        for pattern in patterns {
            assert_eq!(pattern.as_str().parse().as_ref(), Ok(pattern));
        }
    };
    match request {
        ClientRequest::Subscribe(patterns) | ClientRequest::Unsubscribe(patterns) => are_patterns(patterns),
        ClientRequest::Resume { seq, events, .. } => {
            assert!(*seq < 1 << 53);
            are_patterns(events.as_deref().unwrap_or_default());
        }
        ClientRequest::Command { data, .. } => {
            assert!(
                data.is_none_or(|data| text.contains(data.get())),
                "data is a part of the text"
            );
        }
        ClientRequest::RefreshToken(_) | ClientRequest::Ping => {}
    }
}
