use super::*;

fn source(subject: &str) -> Source {
    Source {
        subject: subject.to_owned(),
        durable: true,
        event_type: TypeFrom::Subject { tokens: 2 },
        type_prefix: None,
        data: DataFrom::Payload,
        audience: AudienceFrom::Auto,
        validate: Validation::Off,
    }
}

fn by(audience: AudienceFrom) -> Source {
    Source {
        audience,
        ..source("blob.>")
    }
}

/// What becomes of a message, in a line: `type audience data`, `nobody`, or `rule pointer`.
fn read(source: &Source, subject: &str, headers: &[(&str, &str)], payload: &str) -> String {
    let sources = Sources::new(std::slice::from_ref(source), 1_000, &[]).unwrap();
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, *value);
    }
    let payload = Bytes::copy_from_slice(payload.as_bytes());
    let map = (!headers.is_empty()).then_some(&map);
    match sources.read(subject, map, &payload, &|_, _| Ok(())) {
        Ok(content) => {
            let audience = match content.audience {
                Audience::Everyone => "everyone".to_owned(),
                Audience::Users(users) => users.iter().map(UserId::as_str).collect::<Vec<_>>().join(","),
            };
            let data = std::str::from_utf8(&content.data).unwrap();
            assert!(
                payload.as_ptr_range().contains(&content.data.as_ptr()),
                "the data is a slice of the message, not a copy"
            );
            format!("{} {audience} {data}", content.event_type)
        }
        Err(rejection) => format!("{} {}", rejection.rule, rejection.pointer),
    }
}

#[test]
fn the_audience_has_five_forms() {
    const U: &str = "Rivulet-User";
    const A: &str = "Rivulet-Audience";
    let mine = r#"{"user_id":"u1"}"#;
    use AudienceFrom::{Auto, Everyone, Header, Payload, Token};
    type Case = (
        AudienceFrom,
        &'static str,
        &'static [(&'static str, &'static str)],
        &'static str,
        &'static str,
    );
    let cases: &[Case] = &[
        // The payload names the user, as one string.
        (Payload, "blob.created", &[], mine, "u1"),
        (Payload, "blob.created", &[], r#"{"user_id":" u1"}"#, " u1"),
        (Payload, "blob.created", &[], r#"{"user\u005fid":"\u0075"}"#, "u"),
        (
            Payload,
            "blob.created",
            &[],
            r#"{"a":{"user_id":"u2"}}"#,
            "no_audience /user_id",
        ),
        (Payload, "blob.created", &[], r#"{"user_id":7}"#, "7"),
        (Payload, "blob.created", &[], r#"{"user_id":0}"#, "0"),
        (
            Payload,
            "blob.created",
            &[],
            r#"{"user_id":12345678901234567890123}"#,
            "12345678901234567890123",
        ),
        (Payload, "blob.created", &[], r#"{"user_id":-7}"#, "user /user_id"),
        (
            Payload,
            "blob.created",
            &[],
            r#"{"user_id":7.0}"#,
            "user /user_id",
        ),
        (
            Payload,
            "blob.created",
            &[],
            r#"{"user_id":7e1}"#,
            "user /user_id",
        ),
        (
            Payload,
            "blob.created",
            &[],
            r#"{"user_id":true}"#,
            "user /user_id",
        ),
        (
            Payload,
            "blob.created",
            &[],
            r#"{"user_id":"\ud83d"}"#,
            "user /user_id",
        ),
        (
            Payload,
            "blob.created",
            &[],
            r#"{"user_id":null}"#,
            "user /user_id",
        ),
        (
            Payload,
            "blob.created",
            &[],
            r#"{"user_id":["u1"]}"#,
            "user /user_id",
        ),
        (Payload, "blob.created", &[], r#"{"user_id":""}"#, "user /user_id"),
        (
            Payload,
            "blob.created",
            &[],
            r#"{"user_id":"u1","user_id":"u1"}"#,
            "duplicate_field /user_id",
        ),
        (
            Payload,
            "blob.created",
            &[],
            r#"{"user_id":"u1","user\u005fid":"u2"}"#,
            "duplicate_field /user_id",
        ),
        (Payload, "blob.created", &[(U, "u2")], mine, "u1"),
        // A header names users, escaped, or everyone.
        (Header, "blob.created", &[(U, "u2")], mine, "u2"),
        (Header, "blob.created", &[("rivulet-user", "u2")], mine, "u2"),
        (
            Header,
            "blob.created",
            &[(U, "u2"), ("RIVULET-USER", "u3"), (U, "u2")],
            mine,
            "u2,u3",
        ),
        (Header, "blob.created", &[(U, "a=2Eb")], mine, "a.b"),
        (Header, "blob.created", &[(U, "a.b")], mine, "user "),
        (Header, "blob.created", &[(U, "u2, u3")], mine, "user "),
        (Header, "blob.created", &[(U, "=75")], mine, "user "),
        (Header, "blob.created", &[(U, "")], mine, "user "),
        (Header, "blob.created", &[(U, "u2"), (U, "*")], mine, "user "),
        (Header, "blob.created", &[(A, "everyone")], mine, "everyone"),
        (Header, "blob.created", &[(A, "Everyone")], mine, "audience "),
        (
            Header,
            "blob.created",
            &[(A, "everyone"), (A, "room")],
            mine,
            "audience ",
        ),
        (
            Header,
            "blob.created",
            &[(A, "everyone"), (U, "u2")],
            mine,
            "audience_conflict ",
        ),
        (Header, "blob.created", &[], mine, "no_audience "),
        // A header if there is one.
        (Auto, "blob.created", &[], mine, "u1"),
        (Auto, "blob.created", &[(U, "u2")], mine, "u2"),
        (Auto, "blob.created", &[(U, "u2")], r#"{"user_id":7}"#, "u2"),
        (Auto, "blob.created", &[(A, "everyone")], mine, "everyone"),
        (Auto, "blob.created", &[(U, " ")], mine, "user "),
        (Auto, "blob.created", &[], "{}", "no_audience "),
        // Whatever the event says.
        (Everyone, "blob.created", &[], mine, "everyone"),
        (Everyone, "blob.created", &[], r#"{"user_id":7}"#, "everyone"),
        (
            Everyone,
            "blob.created",
            &[(A, "everyone"), (U, "u2")],
            mine,
            "audience_conflict ",
        ),
        // A token of the subject.
        (Token(2), "blob.created.u2", &[], mine, "u2"),
        (Token(2), "blob.created.a=2Eb", &[], mine, "a.b"),
        (Token(2), "blob.created.==everyone", &[], mine, "everyone"),
        (Token(2), "blob.created.=2a", &[], mine, "user "),
        (Token(2), "blob.created", &[], mine, "no_audience "),
        (Token(2), "blob.created.u2", &[(U, "u2")], mine, "u2"),
        (
            Token(2),
            "blob.created.u2",
            &[(U, "u3")],
            mine,
            "audience_conflict ",
        ),
        (
            Token(2),
            "blob.created.u2",
            &[(U, "u2"), (U, "u3")],
            mine,
            "audience_conflict ",
        ),
        (
            Token(2),
            "blob.created.u2",
            &[(A, "everyone")],
            mine,
            "audience_conflict ",
        ),
        (
            Token(2),
            "blob.created.==everyone",
            &[(A, "everyone")],
            mine,
            "everyone",
        ),
        (
            Token(2),
            "blob.created.==everyone",
            &[(U, "u2")],
            mine,
            "audience_conflict ",
        ),
        // Rooms are not there yet.
        (Auto, "blob.created", &[("Rivulet-Room", "r")], mine, "room "),
        (Everyone, "blob.created", &[("rivulet-room", "")], mine, "room "),
    ];
    for (audience, subject, headers, payload, expected) in cases {
        let read = read(&by(audience.clone()), subject, headers, payload);
        let expected = if expected.contains(' ') && !expected.starts_with(' ') {
            (*expected).to_owned()
        } else {
            format!("blob.created {expected} {payload}")
        };
        assert_eq!(read, expected, "{audience:?} {subject} {headers:?} {payload}");
    }
    let long = format!(r#"{{"user_id":"{}"}}"#, "x".repeat(129));
    assert_eq!(read(&by(Payload), "blob.created", &[], &long), "user /user_id");
}

#[test]
fn a_source_names_the_field_of_its_users() {
    let source = by(AudienceFrom::Field("to".to_owned()));
    let list = |count: usize| {
        let ids: Vec<_> = (0..count).map(|id| id.to_string()).collect();
        format!(r#"{{"to":[{}]}}"#, ids.join(","))
    };
    for (payload, expected) in [
        (r#"{"to":"u1","user_id":"u2"}"#, "u1"),
        (r#"{"to":7}"#, "7"),
        (r#"{"to":["u2",7,"u1","u2"]}"#, "7,u1,u2"),
        (r#"{"to":[ "u2" , "u1" ]}"#, "u1,u2"),
        (r#"{"to":[]}"#, "no_audience /to"),
        (r#"{"user_id":"u1"}"#, "no_audience /to"),
        (r#"{"to":null}"#, "user /to"),
        (r#"{"to":{"id":"u1"}}"#, "user /to"),
        (r#"{"to":["u1",null]}"#, "user /to/1"),
        (r#"{"to":["u1",["u2"]]}"#, "user /to/1"),
        (r#"{"to":["u1",""]}"#, "user /to/1"),
        (r#"{"to":["u1"],"to":["u2"]}"#, "duplicate_field /to"),
    ] {
        let expected = match expected.contains(' ') {
            true => expected.to_owned(),
            false => format!("blob.created {expected} {payload}"),
        };
        assert_eq!(read(&source, "blob.created", &[], payload), expected, "{payload}");
    }
    let sources = Sources::new(std::slice::from_ref(&source), 1 << 20, &[]).unwrap();
    let users = |payload: String| {
        let read = sources.read("blob.created", None, &Bytes::from(payload), &|_, _| Ok(()));
        read.map(|content| match content.audience {
            Audience::Users(users) => users.len(),
            Audience::Everyone => panic!(),
        })
    };
    assert_eq!(users(list(1_000)), Ok(1_000));
    let rejection = users(list(1_001)).unwrap_err();
    assert_eq!((rejection.rule, rejection.pointer), (Rule::User, "/to".into()));
}

/// What the rejection of a message without an audience says.
fn looked_for(source: &Source, headers: &[(&str, &str)], payload: &'static str) -> String {
    let sources = Sources::new(std::slice::from_ref(source), 1_000, &[]).unwrap();
    let map = headers.iter().map(|(name, value)| {
        let name: async_nats::HeaderName = name.parse().unwrap();
        (name, async_nats::HeaderValue::from(*value))
    });
    let payload = Bytes::from_static(payload.as_bytes());
    let read = sources.read(
        "blob.created",
        Some(&HeaderMap::from_iter(map)),
        &payload,
        &|_, _| Ok(()),
    );
    let rejection = read.unwrap_err();
    assert_eq!(rejection.rule, Rule::NoAudience, "{}", rejection.message);
    let message = rejection.message;
    message
        .strip_prefix("it names no audience; looked for: ")
        .unwrap()
        .to_owned()
}

#[test]
fn an_event_without_an_audience_says_what_was_looked_for_and_what_is_near() {
    let auto = "the header `Rivulet-User` or `Rivulet-Audience`, or the top-level field `user_id`";
    let source = by(AudienceFrom::Auto);
    for (headers, payload, near) in [
        (&[][..], "{}", ""),
        (
            &[("Nats-Msg-Id", "1"), ("traceparent", "x")][..],
            r#"{"blob_id":"b"}"#,
            "",
        ),
        (
            &[("Rivulet-Usr", "u1")][..],
            "{}",
            "; there is the header `Rivulet-Usr`",
        ),
        (
            &[("rivulet-users", "u1")][..],
            "{}",
            "; there is the header `rivulet-users`",
        ),
        (&[][..], r#"{"userId":"u1"}"#, "; there is the field `userId`"),
        (
            &[("Rivulet_User", "u1")][..],
            r#"{"USER-ID":"u1","a":{"user_id":1}}"#,
            "; there is the header `Rivulet_User`, the field `USER-ID`",
        ),
        (&[][..], r#"{"user":"u1"}"#, "; there is the field `user`"),
        (&[][..], r#"{"\ud83d":1}"#, ""),
    ] {
        assert_eq!(
            looked_for(&source, headers, payload),
            format!("{auto}{near}"),
            "{headers:?} {payload}"
        );
    }
    // What another form of source would read.
    assert_eq!(
        looked_for(&by(AudienceFrom::Header), &[], r#"{"user_id":"u1"}"#),
        "the header `Rivulet-User` or `Rivulet-Audience`; there is the field `user_id`"
    );
    assert_eq!(
        looked_for(&by(AudienceFrom::Payload), &[("Rivulet-User", "u1")], "{}"),
        "the top-level field `user_id`; there is the header `Rivulet-User`"
    );
    assert_eq!(
        looked_for(&by(AudienceFrom::Token(2)), &[], "{}"),
        "token 2 of the subject, counted from 0"
    );
    let enveloped = Source {
        data: DataFrom::Field("data".to_owned()),
        ..by(AudienceFrom::Field("to".to_owned()))
    };
    assert_eq!(
        looked_for(&enveloped, &[], r#"{"data":{"to":"u1"}}"#),
        "the top-level field `to`; there is the field `to` within `data`"
    );
}

#[test]
fn the_payload_is_a_json_object() {
    let everyone = by(AudienceFrom::Everyone);
    for (payload, expected) in [
        ("{}", "blob.created everyone {}"),
        (
            " {\n\"b\": 1.0, \"a\":12345678901234567890 } ",
            "blob.created everyone  {\n\"b\": 1.0, \"a\":12345678901234567890 } ",
        ),
        (r#"{"a":"\ud800"}"#, r#"blob.created everyone {"a":"\ud800"}"#),
        (r#"{"a\ud83d":1}"#, r#"blob.created everyone {"a\ud83d":1}"#),
        ("", "json "),
        ("{", "json "),
        ("{} {}", "json "),
        ("{\"a\":NaN}", "json "),
        ("{'a':1}", "json "),
        ("\u{feff}{}", "json "),
        ("[]", "object "),
        ("null", "object "),
        ("\"{}\"", "object "),
        ("1", "object "),
    ] {
        assert_eq!(
            read(&everyone, "blob.created", &[], payload),
            expected,
            "{payload:?}"
        );
    }
    let sources = Sources::new(std::slice::from_ref(&everyone), 1 << 21, &[]).unwrap();
    let not_utf8 = Bytes::from_static(b"{\"a\":\"\xff\"}");
    let rejected = sources.read("blob.created", None, &not_utf8, &|_, _| Ok(()));
    assert_eq!(rejected.unwrap_err().rule, Rule::Json);
    let deep = Bytes::from(format!(
        "{{\"a\":{}{}}}",
        "[".repeat(500_000),
        "]".repeat(500_000)
    ));
    assert!(sources.read("blob.created", None, &deep, &|_, _| Ok(())).is_ok());
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(1_000));
    assert_eq!(read(&everyone, "blob.created", &[], &large), "too_large ");
}

#[test]
fn the_type_comes_from_where_the_source_says() {
    let prefix = Some(EventType::parse("consciousness").unwrap());
    let from = |event_type: TypeFrom, type_prefix: &Option<EventType>| Source {
        event_type,
        type_prefix: type_prefix.clone(),
        ..by(AudienceFrom::Everyone)
    };
    let field = || TypeFrom::Field("type".to_owned());
    let header = || TypeFrom::Header("Event-Type".to_owned());
    let tokens = |tokens| TypeFrom::Subject { tokens };
    type Case<'a> = (
        TypeFrom,
        &'a Option<EventType>,
        &'a str,
        &'a [(&'a str, &'a str)],
        &'a str,
        &'a str,
    );
    let cases: &[Case<'_>] = &[
        (tokens(1), &None, "blob.created.x", &[], "{}", "blob"),
        (tokens(2), &None, "blob.created.x", &[], "{}", "blob.created"),
        (tokens(3), &None, "blob.created", &[], "{}", "blob.created"),
        (
            tokens(2),
            &prefix,
            "blob.created",
            &[],
            "{}",
            "consciousness.blob.created",
        ),
        (tokens(2), &None, "blob.cre ated", &[], "{}", "type "),
        (
            field(),
            &prefix,
            "blob.x",
            &[],
            r#"{"type":"state_transition"}"#,
            "consciousness.state_transition",
        ),
        (field(), &None, "blob.x", &[], r#"{"type":"error"}"#, "type /type"),
        (
            field(),
            &prefix,
            "blob.x",
            &[],
            r#"{"type":"error"}"#,
            "consciousness.error",
        ),
        (field(), &None, "blob.x", &[], r#"{"type":7}"#, "type /type"),
        (field(), &None, "blob.x", &[], "{}", "type /type"),
        (
            field(),
            &None,
            "blob.x",
            &[],
            r#"{"type":"a","type":"b"}"#,
            "duplicate_field /type",
        ),
        (header(), &None, "blob.x", &[("event-type", "a.b")], "{}", "a.b"),
        (
            header(),
            &None,
            "blob.x",
            &[("event-type", "a.b"), ("Event-Type", "a.b")],
            "{}",
            "a.b",
        ),
        (
            header(),
            &None,
            "blob.x",
            &[("event-type", "a.b"), ("Event-Type", "c")],
            "{}",
            "type ",
        ),
        (header(), &None, "blob.x", &[], "{}", "type "),
        (header(), &None, "blob.x", &[("Event-Type", "a.*")], "{}", "type "),
    ];
    for (event_type, prefix, subject, headers, payload, expected) in cases {
        let read = read(&from(event_type.clone(), prefix), subject, headers, payload);
        let expected = match expected.contains(' ') {
            true => (*expected).to_owned(),
            false => format!("{expected} everyone {payload}"),
        };
        assert_eq!(read, expected, "{event_type:?} {subject} {headers:?} {payload}");
    }
}

#[test]
fn the_data_may_stand_in_an_envelope() {
    let enveloped = Source {
        data: DataFrom::Field("data".to_owned()),
        audience: AudienceFrom::Payload,
        ..source("blob.>")
    };
    for (payload, expected) in [
        (
            r#"{"user_id":"u1","data": { "b": 1.0,"user_id":7} }"#,
            r#"blob.created u1 { "b": 1.0,"user_id":7}"#,
        ),
        (r#"{"user_id":"u1","data":[]}"#, "data /data"),
        (r#"{"user_id":"u1","data":null}"#, "data /data"),
        (r#"{"user_id":"u1"}"#, "data /data"),
        (r#"{"data":{"user_id":"u1"}}"#, "no_audience /user_id"),
        (r#"{"user_id":"u1","data":{},"data":{}}"#, "duplicate_field /data"),
    ] {
        assert_eq!(
            read(&enveloped, "blob.created", &[], payload),
            expected,
            "{payload}"
        );
    }
}

#[test]
fn a_failed_processor_is_an_error_too() {
    let sources = Sources::new(&[by(AudienceFrom::Everyone), source("processor.>")], 1_000, &[]).unwrap();
    let as_error = |payload: &'static str| {
        let payload = Bytes::from_static(payload.as_bytes());
        let headers = HeaderMap::from_iter([(
            async_nats::HeaderName::from_static("Rivulet-User"),
            async_nats::HeaderValue::from("u1"),
        )]);
        match sources.read("processor.failed", Some(&headers), &payload, &|_, _| Ok(())) {
            Ok(content) => content
                .as_error
                .map(|error| String::from_utf8(error.to_vec()).unwrap()),
            other => panic!("{other:?}"),
        }
    };
    let failed = r#"{"blob_id":"b","processor_id":"p","code":"E","message":"m\u00e9","retry_after":1.50}"#;
    let error = r#"{"code":"PROCESSOR_FAILED","message":"m\u00e9","retry_after":1.50,"blob_id":"b","processor_id":"p","processor_code":"E"}"#;
    assert_eq!(as_error(failed).as_deref(), Some(error));
    let bare = r#"{"blob_id":"b","processor_id":"p","message":"m","retry_after":null}"#;
    let error = r#"{"code":"PROCESSOR_FAILED","message":"m","blob_id":"b","processor_id":"p"}"#;
    assert_eq!(as_error(bare).as_deref(), Some(error));
    let half = r#"{"blob_id":"b","processor_id":"p","message":"\ud83d","\ud83d":1}"#;
    let error = r#"{"code":"PROCESSOR_FAILED","message":"\ud83d","blob_id":"b","processor_id":"p"}"#;
    assert_eq!(as_error(half).as_deref(), Some(error));
    assert_eq!(as_error("{}"), None);
}

#[test]
fn data_is_checked_as_the_source_says() {
    let read = |validate| {
        let source = Source {
            validate,
            ..by(AudienceFrom::Everyone)
        };
        let sources = Sources::new(&[source], 1_000, &[]).unwrap();
        let broken = |_: &EventType, _: &[u8]| {
            Err(Rejection::new(
                Rule::Schema("required".into()),
                "/blob_id",
                "missing",
            ))
        };
        sources.read("blob.created", None, &Bytes::from_static(b"{}"), &broken)
    };
    let rejection = read(Validation::Reject).unwrap_err();
    assert_eq!(rejection.rule.to_string(), "schema.required");
    assert_eq!(rejection.rule.label(), "schema");
    for (validate, warned) in [(Validation::Warn, true), (Validation::Off, false)] {
        let Ok(content) = read(validate) else {
            panic!("{validate:?}");
        };
        assert_eq!(content.warning.is_some(), warned);
    }
}

#[test]
fn sources_have_one_meaning() {
    let of = |subjects: &[(&str, bool)]| {
        let sources: Vec<Source> = subjects
            .iter()
            .map(|&(subject, durable)| Source {
                durable,
                ..source(subject)
            })
            .collect();
        Sources::new(&sources, 1_000, &["command.*", "rivulet.live.>"])
    };
    let sources = of(&[("blob.created", true), ("blob.>", true), ("typing.>", false)]).unwrap();
    assert_eq!(sources.subjects(true), ["blob.>"]);
    assert_eq!(sources.subjects(false), ["typing.>"]);
    assert!(matches!(
        of(&[("a.*.c", true), ("a.b.*", true)]),
        Err(SourceFault::Overlap(..))
    ));
    assert!(matches!(
        of(&[("a.>", true), ("a.b", false)]),
        Err(SourceFault::TwoKinds(..))
    ));
    for own in ["command.>", ">", "rivulet.>", "*.create_blob"] {
        assert!(
            matches!(of(&[(own, true)]), Err(SourceFault::Own { .. })),
            "{own}"
        );
    }
}
