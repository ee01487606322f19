//! The vectors that every language runs: `schemas/vectors/`.

#![allow(clippy::print_stdout, reason = "a test that fails says which cases differ")]

use std::{collections::BTreeSet, fs, path::Path};

use rivulet_protocol::{
    catalog::Catalog,
    event::{Envelope, EventType, decode},
    message::ClientFrame,
    pattern::Pattern,
    subject::UserId,
    validate::Validator,
};
use serde_json::Value;

/// Vectors whose outcome here is not the expected one, by file and name, with the reason; stale ones fail.
const KNOWN_GAPS: [(&str, &str); 0] = [];

fn vectors(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../schemas/vectors")
        .join(file);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
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
    let known = KNOWN_GAPS
        .iter()
        .filter(|(of, _)| *of == file)
        .map(|(_, name)| (*name).to_owned());
    assert_eq!(
        differing,
        known.collect::<BTreeSet<_>>(),
        "{file}: what differs is not what is known to"
    );
}

#[test]
fn events() {
    let validator = Validator::new(&Catalog::builtin());
    run("events.json", 50, |case| {
        let envelope: Envelope<'_> = serde_json::from_str(case["wire"].as_str().unwrap()).unwrap();
        let event_type = EventType::parse(&envelope.event_type).unwrap();
        let checked = validator.validate_event(event_type.as_str(), envelope.data.get().as_bytes());
        let decoded = decode(event_type.as_str(), envelope.data);
        let (outcome, rule) = match (&checked, &decoded) {
            (Ok(()), Ok(Some(_))) => ("ok", None),
            (Ok(()), Ok(None)) => ("unknown", None),
            (Err(violation), Err(_)) => ("reject", Some(violation.rule.as_str())),
            (Ok(()), Err(error)) => return Err(format!("the edge takes it, the types don't: {error}")),
            (Err(violation), Ok(_)) => {
                return Err(format!("the types take it, the edge does not: {violation:?}"));
            }
        };
        let expected = (case["expect"].as_str().unwrap(), case["code"].as_str());
        if (outcome, rule) == expected {
            Ok(())
        } else {
            Err(format!("{outcome} {rule:?}, not {expected:?}"))
        }
    });
}

#[test]
fn client_frames() {
    run("client-frames.json", 20, |case| {
        let frame = ClientFrame::parse(case["wire"].as_str().unwrap());
        let outcome = match &frame.request {
            Ok(_) => ("ok", None, None),
            Err(error) => ("reject", Some(error.code.as_str()), error.field.as_deref()),
        };
        let expected = (
            case["expect"].as_str().unwrap(),
            case["code"].as_str(),
            case["field"].as_str(),
        );
        if outcome == expected {
            Ok(())
        } else {
            Err(format!("{outcome:?}, not {expected:?}"))
        }
    });
}

#[test]
fn patterns() {
    run("patterns.json", 45, |case| {
        let parsed = case["pattern"].as_str().unwrap().parse::<Pattern>();
        let (outcome, expected) = if let Some(valid) = case["valid"].as_bool() {
            (parsed.is_ok(), valid)
        } else if let Some(wider) = case["within"].as_str() {
            let within = parsed.unwrap().within(&wider.parse().unwrap());
            (within, case["is_within"].as_bool().unwrap())
        } else {
            let matches = parsed.unwrap().matches(case["type"].as_str().unwrap());
            (matches, case["matches"].as_bool().unwrap())
        };
        if outcome == expected {
            Ok(())
        } else {
            Err(format!("{outcome}, not {expected}"))
        }
    });
}

#[test]
fn user_ids() {
    run("user-ids.json", 30, |case| {
        let id = case["id"].as_str().map(UserId::parse);
        let token = case["token"].as_str().map(UserId::unescape);
        let agrees = match (&id, &token) {
            (Some(Ok(id)), Some(Ok(read))) => id == read && id.escaped() == case["token"].as_str().unwrap(),
            (Some(Err(_)), None) | (None, Some(Err(_))) => case["valid"] == false,
            _ => false,
        };
        if agrees {
            Ok(())
        } else {
            Err(format!("{id:?} {token:?}"))
        }
    });
}
