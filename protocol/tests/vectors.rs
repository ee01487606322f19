//! The vectors that every language runs: `schemas/vectors/`.

#![allow(clippy::print_stdout, reason = "a test that fails says which cases differ")]

use std::{collections::BTreeSet, fs, path::Path};

use rivulet_protocol::{
    catalog::Catalog,
    event::{Envelope, EventType, decode},
    halves,
    message::{ClientFrame, ClientMessage, ClientRequest, SERVER_FRAMES, ServerMessage},
    pattern::{InvalidPattern, Pattern},
    scalar::{SafeInteger, Timestamp},
    subject::{InvalidUserId, UserId},
    validate::Validator,
};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

/// By what name `known-gaps.json` calls this runner.
const RUNNER: &str = "rust";

fn vectors(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../schemas/vectors")
        .join(file);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The names of the cases whose outcome here is known not to be the expected one.
fn known_gaps(file: &str) -> BTreeSet<String> {
    vectors("known-gaps.json")
        .iter()
        .filter(|gap| gap["runner"] == RUNNER && gap["file"] == file)
        .flat_map(|gap| gap["cases"].as_array().unwrap())
        .map(|name| name.as_str().unwrap().to_owned())
        .collect()
}

/// Runs each case and compares the set of those that differ with the known gaps.
fn run(file: &str, least: usize, outcome: impl Fn(&Value) -> Result<(), String>) {
    let cases = vectors(file);
    assert!(cases.len() >= least, "{file} has {} cases", cases.len());
    let mut differing = BTreeSet::new();
    for case in &cases {
        if let Err(difference) = outcome(case) {
            let name = case["name"]
                .as_str()
                .map_or_else(|| case.to_string(), str::to_owned);
            println!("{file}, {name}: {difference}");
            differing.insert(name);
        }
    }
    assert_eq!(
        differing,
        known_gaps(file),
        "{file}: what differs is not what is known to"
    );
}

/// `Ok` where two outcomes are one.
fn same<T: PartialEq + std::fmt::Debug>(outcome: T, expected: T) -> Result<(), String> {
    if outcome == expected {
        Ok(())
    } else {
        Err(format!("{outcome:?}, not {expected:?}"))
    }
}

#[test]
fn every_known_gap_is_of_a_runner_and_a_case_and_says_why() {
    for gap in vectors("known-gaps.json") {
        let runner = gap["runner"].as_str().unwrap();
        assert!(["rust", "typescript", "typescript types", "python"].contains(&runner));
        assert!(gap["reason"].as_str().is_some_and(|reason| reason.len() > 10));
        let cases = vectors(gap["file"].as_str().unwrap());
        for name in gap["cases"].as_array().unwrap() {
            assert!(cases.iter().any(|case| case["name"] == *name), "{name}");
        }
    }
}

#[test]
fn names_are_of_one_case() {
    for file in ["events.json", "server-frames.json", "client-frames.json"] {
        let mut seen = BTreeSet::new();
        for case in vectors(file) {
            let name = case["name"].as_str().unwrap().to_owned();
            assert!(seen.insert(name.clone()), "{file}: {name} stands twice");
        }
    }
}

/// What the edge and the types make of an event's data, and the rule that it breaks.
fn event_outcome(
    validator: &Validator,
    event_type: &str,
    data: &RawValue,
) -> Result<(&'static str, Option<String>), String> {
    let checked = validator.validate_event(event_type, data.get().as_bytes());
    match (checked, decode(event_type, data)) {
        (Ok(()), Ok(Some(_))) => Ok(("ok", None)),
        (Ok(()), Ok(None)) => Ok(("unknown", None)),
        (Err(violation), Err(_) | Ok(None)) => Ok(("reject", Some(violation.rule))),
        (Ok(()), Err(error)) => Err(format!("the edge takes it, the types don't: {error}")),
        (Err(violation), Ok(Some(_))) => Err(format!("the types take it, the edge does not: {violation:?}")),
    }
}

#[test]
fn events() {
    let validator = Validator::new(&Catalog::builtin());
    run("events.json", 110, |case| {
        let envelope: Envelope<'_> = serde_json::from_str(case["wire"].as_str().unwrap()).unwrap();
        let event_type = EventType::parse(&envelope.event_type).unwrap();
        let (outcome, rule) = event_outcome(&validator, event_type.as_str(), envelope.data)?;
        same(
            (outcome, rule.as_deref()),
            (case["expect"].as_str().unwrap(), case["code"].as_str()),
        )
    });
}

/// What a client makes of one object of the router's, by the types of this crate.
fn server_frame_outcome(validator: &Validator, frame: &RawValue) -> Result<&'static str, String> {
    #[derive(Deserialize)]
    struct Frame<'a> {
        #[serde(rename = "type")]
        frame_type: String,
        #[serde(default, rename = "seq")]
        _seq: Option<SafeInteger>,
        #[serde(default, rename = "time")]
        _time: Option<Timestamp>,
        #[serde(default, rename = "id")]
        _id: Option<String>,
        #[serde(borrow)]
        data: &'a RawValue,
    }
    // serde reads a struct from an array too.
    if !frame.get().starts_with('{') {
        return Ok("reject");
    }
    let Ok(Frame { frame_type, data, .. }) = serde_json::from_str(frame.get()) else {
        return Ok("reject");
    };
    if SERVER_FRAMES.contains(&&*frame_type) {
        let object = frame_type == "reply" || data.get().starts_with('{');
        let read = halves::read::<ServerMessage>(frame.get());
        return Ok(if object && read.is_ok() { "frame" } else { "reject" });
    }
    Ok(match event_outcome(validator, &frame_type, data)?.0 {
        "ok" => "event",
        other => other,
    })
}

#[test]
fn server_frames() {
    let validator = Validator::new(&Catalog::builtin());
    run("server-frames.json", 80, |case| {
        let wire = case["wire"].as_str().unwrap();
        let frames = serde_json::from_str::<Vec<Box<RawValue>>>(wire)
            .or_else(|_| serde_json::from_str(wire).map(|frame| vec![frame]));
        let outcomes = match frames {
            Ok(frames) => frames
                .iter()
                .map(|frame| server_frame_outcome(&validator, frame))
                .collect::<Result<Vec<_>, _>>()?,
            Err(_) => vec!["reject"],
        };
        same(json!(outcomes), case["expect"].clone())
    });
}

#[test]
fn client_frames() {
    run("client-frames.json", 70, |case| {
        let wire = case["wire"].as_str().unwrap();
        let frame = ClientFrame::parse(wire);
        let outcome = match &frame.request {
            Ok(_) => ("ok", None, None),
            Err(error) => ("reject", Some(error.code.as_str()), error.field.as_deref()),
        };
        same(
            outcome,
            (
                case["expect"].as_str().unwrap(),
                case["code"].as_str(),
                case["field"].as_str(),
            ),
        )?;
        let Ok(request) = &frame.request else {
            return Ok(());
        };
        // What a client that builds it by the types would write.
        let canonical = match request {
            ClientRequest::Command { name, data } => {
                let mut command = json!({ "type": name });
                if let Some(id) = &frame.id {
                    command["id"] = json!(id);
                }
                if let Some(data) = data {
                    command["data"] = halves::read(data.get()).unwrap();
                }
                command
            }
            _ => serde_json::to_value(serde_json::from_str::<ClientMessage>(wire).unwrap()).unwrap(),
        };
        same(
            canonical,
            halves::read(case["canonical"].as_str().unwrap()).unwrap(),
        )
    });
}

#[test]
fn patterns() {
    run("patterns.json", 100, |case| {
        let parsed = case["pattern"].as_str().unwrap().parse::<Pattern>();
        if let Some(valid) = case["valid"].as_bool() {
            let reason = parsed.as_ref().err().map(|error| match error {
                InvalidPattern::EmptyToken => "empty_token",
                InvalidPattern::TooManyTokens => "too_many_tokens",
                InvalidPattern::TooLong => "too_long",
                InvalidPattern::RestBeforeEnd => "rest_before_end",
                InvalidPattern::WildcardInToken => "wildcard_in_token",
                InvalidPattern::Character => "character",
            });
            same((parsed.is_ok(), reason), (valid, case["reason"].as_str()))
        } else if let Some(wider) = case["within"].as_str() {
            let within = parsed.unwrap().within(&wider.parse().unwrap());
            same(within, case["is_within"].as_bool().unwrap())
        } else {
            let matches = parsed.unwrap().matches(case["type"].as_str().unwrap());
            same(matches, case["matches"].as_bool().unwrap())
        }
    });
}

#[test]
fn user_ids() {
    run("user-ids.json", 80, |case| {
        let id = case["id"].as_str().map(UserId::parse);
        let token = case["token"].as_str().map(UserId::unescape);
        match (id, token) {
            (Some(Ok(id)), Some(read)) => {
                same(id.escaped().as_str(), case["token"].as_str().unwrap())?;
                same(Ok(id), read)
            }
            (Some(Err(error)), None) | (None, Some(Err(error))) => {
                let reason = match error {
                    InvalidUserId::Empty => "empty",
                    InvalidUserId::TooLong => "too_long",
                    InvalidUserId::Escape => "escape",
                };
                same(
                    (false, reason),
                    (case["valid"] == true, case["reason"].as_str().unwrap()),
                )
            }
            other => Err(format!("{other:?}")),
        }
    });
}
