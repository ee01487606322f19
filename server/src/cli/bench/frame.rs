//! The router's frames, read with as little work as tells where each ends and what it says: a bench that parses
//! JSON in full measures itself. What is between the quotes and braces is believed.

use memchr::memchr2;

/// A frame, or one of an array of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// Its type, as it stands between the quotes.
    pub(super) kind: &'a [u8],
    pub(super) seq: Option<u64>,
    /// The JSON of its data.
    pub(super) data: &'a [u8],
}

/// What came is not a frame, nor an array of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoFrame;

/// Hands every frame of a message to `take`, in order.
///
/// # Errors
/// If there is anything else in it.
pub(super) fn frames<'a>(text: &'a [u8], mut take: impl FnMut(Frame<'a>)) -> Result<(), NoFrame> {
    let mut at = space(text, 0);
    let is_array = text.get(at) == Some(&b'[');
    if is_array {
        at = space(text, at + 1);
        if text.get(at) == Some(&b']') {
            return Ok(());
        }
    }
    loop {
        let (frame, end) = frame(text, at).ok_or(NoFrame)?;
        take(frame);
        at = space(text, end);
        match text.get(at) {
            None if !is_array => return Ok(()),
            Some(b',') if is_array => at = space(text, at + 1),
            Some(b']') if is_array && space(text, at + 1) == text.len() => return Ok(()),
            _ => return Err(NoFrame),
        }
    }
}

/// The frame that begins at `at`, and where it ends.
fn frame(text: &[u8], mut at: usize) -> Option<(Frame<'_>, usize)> {
    let mut frame = Frame {
        kind: b"",
        seq: None,
        data: b"",
    };
    if text.get(at) != Some(&b'{') {
        return None;
    }
    loop {
        at = space(text, at + 1);
        let key_ends = string(text, at)?;
        let key = &text[at + 1..key_ends - 1];
        at = space(text, key_ends);
        if text.get(at) != Some(&b':') {
            return None;
        }
        at = space(text, at + 1);
        let end = value(text, at)?;
        match key {
            b"type" if text[at] == b'"' => frame.kind = &text[at + 1..end - 1],
            b"seq" => frame.seq = number(&text[at..end]),
            b"data" => frame.data = &text[at..end],
            _ => {}
        }
        at = space(text, end);
        match text.get(at)? {
            b',' => {}
            b'}' if frame.kind.is_empty() => return None,
            b'}' => return Some((frame, at + 1)),
            _ => return None,
        }
    }
}

/// Number and time of an event of ours, which begins with `mark`.
pub(super) fn stamp(data: &[u8], mark: &[u8]) -> Option<(u64, u64)> {
    let (event, rest) = digits(data.strip_prefix(mark)?)?;
    let (made, _) = digits(rest.strip_prefix(br#","made":"#)?)?;
    Some((event, made))
}

/// The digits that it begins with, and what follows them.
fn digits(text: &[u8]) -> Option<(u64, &[u8])> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit())?;
    Some((number(&text[..end])?, &text[end..]))
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Where the space ends that may begin at `at`.
fn space(text: &[u8], mut at: usize) -> usize {
    while matches!(text.get(at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
        at += 1;
    }
    at
}

/// Where the string ends that begins at `at`.
fn string(text: &[u8], mut at: usize) -> Option<usize> {
    if text.get(at) != Some(&b'"') {
        return None;
    }
    at += 1;
    loop {
        at += memchr2(b'"', b'\\', text.get(at..)?)?;
        match text[at] {
            b'"' => return Some(at + 1),
            _ => at += 2,
        }
    }
}

/// Where the value ends that begins at `at`.
fn value(text: &[u8], mut at: usize) -> Option<usize> {
    match text.get(at)? {
        b'"' => string(text, at),
        b'{' | b'[' => {
            let mut depth = 0;
            loop {
                match text.get(at)? {
                    b'"' => at = string(text, at)?,
                    b'{' | b'[' => {
                        depth += 1;
                        at += 1;
                    }
                    b'}' | b']' => {
                        depth -= 1;
                        at += 1;
                        if depth == 0 {
                            return Some(at);
                        }
                    }
                    _ => at += 1,
                }
            }
        }
        b',' | b':' | b'}' | b']' => None,
        _ => {
            let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n');
            Some(
                text[at..]
                    .iter()
                    .position(ends)
                    .map_or(text.len(), |end| at + end),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read(text: &str) -> Result<Vec<(String, Option<u64>, String)>, NoFrame> {
        let mut read = Vec::new();
        let owned = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        frames(text.as_bytes(), |frame| {
            read.push((owned(frame.kind), frame.seq, owned(frame.data)));
        })?;
        Ok(read)
    }

    #[test]
    fn one_frame_or_an_array_of_them() {
        let event = |data: &str| ("blob.bench".to_owned(), Some(7), data.to_owned());
        let one =
            r#"{"type":"blob.bench","seq":7,"time":"2026-01-01T00:00:00Z","data":{"a":"}]\"","b":[1,{}]}}"#;
        let data = r#"{"a":"}]\"","b":[1,{}]}"#;
        assert_eq!(read(one), Ok(vec![event(data)]));
        assert_eq!(
            read(&format!("[{one},{one}]")),
            Ok(vec![event(data), event(data)])
        );
        assert_eq!(read(&format!(" [ {one} , {one} ] ")).unwrap().len(), 2);
        assert_eq!(read("[]"), Ok(vec![]));
        let without = ("pong".to_owned(), None, String::new());
        assert_eq!(read(r#"{"id":"x","type":"pong"}"#), Ok(vec![without]));
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for text in [
            "",
            "{}",
            "[",
            "[1]",
            "1",
            "null",
            r#"{"type":"a""#,
            r#"{"type":"a"}}"#,
            r#"{"type":"a"},"#,
            r#"[{"type":"a"}"#,
            r#"[{"type":"a"}]]"#,
            r#"{"type":}"#,
            r#"{"type":"a\"#,
            r#"{"type":1}"#,
        ] {
            assert_eq!(read(text), Err(NoFrame), "{text}");
        }
    }

    #[test]
    fn stamps_are_of_ours_alone() {
        let mark = br#"{"bench":"0a","number":"#;
        let read = |text: &str| stamp(text.as_bytes(), mark);
        assert_eq!(
            read(r#"{"bench":"0a","number":12,"made":345,"pad":"x"}"#),
            Some((12, 345))
        );
        assert_eq!(read(r#"{"bench":"0a","number":12,"made":345}"#), Some((12, 345)));
        assert_eq!(read(r#"{"bench":"0b","number":12,"made":345}"#), None);
        assert_eq!(read(r#"{"bench":"0a","number":,"made":345}"#), None);
        assert_eq!(read(r#"{"bench":"0a","number":12"#), None);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(".*", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_data_is_found_whole(data in any_json(), seq in any::<u32>(), pretty in any::<bool>()) {
            let frame = json!({ "type": "a.b", "seq": seq, "data": data, "more": data });
            let array = json!([frame, frame]);
            let text = if pretty { serde_json::to_string_pretty(&array) } else { serde_json::to_string(&array) };
            for (kind, found, raw) in read(&text.unwrap()).unwrap() {
                prop_assert_eq!(kind, "a.b");
                prop_assert_eq!(found, Some(u64::from(seq)));
                prop_assert_eq!(serde_json::from_str::<Value>(&raw).unwrap(), data.clone());
            }
        }

        #[test]
        fn nothing_makes_it_panic(text in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = frames(&text, |_| {});
        }

        #[test]
        fn nothing_json_like_makes_it_panic(text in "[\\[\\]{}\",:\\\\a1 ]{0,32}") {
            let _ = frames(text.as_bytes(), |_| {});
        }
    }
}
