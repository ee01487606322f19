//! Wherever a client says that it stands, in the query or in a `resume` frame: both read the same positions, and
//! only those that JavaScript can count.
//!
//! The input is the query's `stream` and `seq`, in a line each; without a second line there is no `seq`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rivulet_protocol::message::{ClientFrame, ClientRequest};
use rivulet_router::connection::resume::ResumePosition;
use serde_json::json;

fuzz_target!(|text: &str| {
    let (stream, seq) = match text.split_once('\n') {
        Some((stream, seq)) => (stream, Some(seq)),
        None => (text, None),
    };
    for stream in [None, Some(stream)] {
        let position = ResumePosition::from_query(stream.map(str::to_owned), seq);
        match (stream, seq, position) {
            (None, None, Ok(None)) => {}
            (Some(stream), Some(seq), Ok(Some(position))) => {
                assert_eq!(position.stream, stream);
                assert!(position.seq < 1 << 53);
                assert_eq!(seq.parse(), Ok(position.seq));
            }
            (_, _, Err(fault)) => assert!(fault.field.is_some(), "{fault:?}"),
            other => panic!("{other:?}"),
        }
    }

    // The frame as the same words would stand in it: first as JSON writes them, then as they are.
    let written =
        json!({ "type": "resume", "stream": stream, "seq": seq.and_then(|seq| seq.parse::<u64>().ok()) });
    check(&written.to_string());
    check(&format!(
        "{{\"type\":\"resume\",\"stream\":{},\"seq\":{}}}",
        json!(stream),
        seq.unwrap_or_default()
    ));
});

fn check(frame: &str) {
    if let Ok(ClientRequest::Resume { seq, .. }) = ClientFrame::parse(frame).request {
        assert!(seq < 1 << 53, "{frame}");
    }
}
