//! The configuration from outside: what goes in, what comes out, and how what is wrong is said.

use std::{fs, time::Duration};

use proptest::prelude::*;

use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A configuration that is read for a router from this file and these variables.
fn load(file: &str, variables: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rivulet.toml");
    fs::write(&path, file).unwrap();
    let mut inputs = Inputs {
        file: Some(path),
        variables: variables
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect(),
        flags: Vec::new(),
    };
    for (key, value) in flags {
        inputs = inputs.set(key, value);
    }
    let folder = format!("{}/", directory.path().display());
    Config::load(&inputs, Purpose::Router).map_err(|problems| {
        problems
            .0
            .iter()
            .map(|problem| problem.to_string().replace(&folder, ""))
            .collect()
    })
}

/// A good configuration, with a key.
fn good(file: &str) -> Config {
    load(file, &[("RIVULET_JWT_SECRET", SECRET)], &[]).unwrap()
}

/// The problems of a configuration that has a key.
fn problems(file: &str) -> Vec<String> {
    load(file, &[("RIVULET_JWT_SECRET", SECRET)], &[]).expect_err(file)
}

fn one_problem(file: &str) -> String {
    let problems = problems(file);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems.into_iter().next().unwrap()
}

#[test]
fn defaults_are_those_of_the_protocol() {
    let config = good("");
    assert_eq!(config.listen.to_string(), "127.0.0.1:8010");
    assert_eq!(config.admin_listen.unwrap().to_string(), "127.0.0.1:8011");
    assert_eq!(config.limits.devices_per_user, 5);
    assert_eq!(config.limits.connections_per_address, 100);
    assert_eq!(config.edge.max_pending_handshakes_per_address, 409);
    assert_eq!(config.limits.handshakes_per_address, 20);
    assert_eq!(config.limits.max_message_bytes, 65_536);
    assert_eq!(
        config.limits.ping,
        Rate {
            burst: 120,
            per_second: 2
        }
    );
    assert_eq!(
        config.limits.subscribe,
        Rate {
            burst: 30,
            per_second: 1
        }
    );
    assert_eq!(
        config.limits.other,
        Rate {
            burst: 60,
            per_second: 10
        }
    );
    assert_eq!(config.sessions.heartbeat, Duration::from_secs(25));
    assert_eq!(
        (config.sessions.outbox_events, config.sessions.outbox_bytes),
        (1_000, 1 << 20)
    );
    assert_eq!(config.sessions.max_event_bytes, 256 << 10);
    assert_eq!(config.commands.deadline, Duration::from_secs(10));
    assert_eq!(config.commands.in_flight, 16);
    assert_eq!(config.stream.name, "RIVULET");
    assert_eq!(config.stream.max_age, Duration::from_secs(86_400));
    assert_eq!(config.auth.user_claim, "sub");
    let subjects: Vec<_> = config
        .sources
        .iter()
        .map(|source| source.subject.as_str())
        .collect();
    assert_eq!(subjects, ["blob.>", "processor.>", "book.>", "conversation.>"]);
    for source in &config.sources {
        assert!(source.durable);
        assert_eq!(source.event_type, TypeFrom::Subject { tokens: 2 });
        assert_eq!(source.audience, AudienceFrom::Auto);
        assert_eq!(source.validate, Validation::Reject);
    }
    assert_eq!(config.roles["user"].events, [Pattern::all()]);
}

#[test]
fn flags_win_over_the_environment_over_the_file() {
    let file = "limits.max_patterns = 1\nlimits.devices_per_user = 1\nlisten = '127.0.0.1:1'";
    let variables = [
        ("RIVULET_JWT_SECRET", SECRET),
        ("RIVULET_LIMITS_MAX_PATTERNS", "2"),
        ("RIVULET_LIMITS_DEVICES_PER_USER", "2"),
    ];
    let config = load(file, &variables, &[("limits.max_patterns", "3")]).unwrap();
    assert_eq!(config.limits.max_patterns, 3);
    assert_eq!(config.limits.devices_per_user, 2);
    assert_eq!(config.listen.port(), 1);
}

#[test]
fn every_key_takes_its_default_from_its_variable_and_from_a_flag() {
    for key in key::keys().iter().filter(|key| !key.field.default.is_null()) {
        let text = match &key.field.default {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let secret = ("RIVULET_JWT_SECRET", SECRET);
        // NATS's own keys are about somebody else's servers.
        let servers = ("RIVULET_NATS_URL", "nats://127.0.0.1:4222");
        let mut variables = vec![secret, (&key.variable, &text)];
        if key.path != "nats_url" {
            variables.push(servers);
        }
        load("", &variables, &[]).expect(&key.path);
        variables.remove(1);
        load("", &variables, &[(&key.path, &text)]).expect(&key.path);
    }
}

#[test]
fn lists_and_tables_are_read_from_text() {
    let inline_toml = "[{subject = 'acme.*.*', audience = 'token:2', durable = false}]";
    let json = r#"[{"subject":"acme.*.*","audience":"token:2","durable":false,"type_prefix":null}]"#;
    for sources in [inline_toml, json] {
        let config = load(
            "",
            &[
                ("RIVULET_JWT_SECRET", SECRET),
                ("RIVULET_SOURCES", sources),
                (
                    "RIVULET_ROLES",
                    "{user = {}, viewer = {commands = [], events = ['blob.*']}}",
                ),
                (
                    "RIVULET_ALLOWED_ORIGINS",
                    "https://A.example, http://localhost:3000,https://b.example:443",
                ),
                ("RIVULET_EDGE_TRUSTED_PROXIES", r#"["10.0.0.0/8","::1"]"#),
            ],
            &[],
        )
        .unwrap();
        assert_eq!(config.sources.len(), 1);
        assert_eq!(config.sources[0].audience, AudienceFrom::Token(2));
        assert!(!config.sources[0].durable);
        assert_eq!(config.roles["user"].commands, ["*"]);
        assert_eq!(config.roles["viewer"].events, ["blob.*".parse().unwrap()]);
        assert!(config.roles["viewer"].commands.is_empty());
        assert_eq!(
            config.edge.allowed_origins,
            ["https://a.example", "http://localhost:3000", "https://b.example"]
        );
        assert_eq!(
            config.edge.trusted_proxies,
            ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]
        );
    }
}

#[test]
fn one_wrong_value_is_named_with_its_place_and_what_is_allowed() {
    for (file, problem) in [
        (
            "listen = 8010",
            "listen = 8010 (rivulet.toml line 1): allowed is an address and a port, such as 127.0.0.1:8010 or [::]:8010",
        ),
        (
            "\n\nlisten = 'localhost'",
            "listen = \"localhost\" (rivulet.toml line 3): allowed is an address and a port, such as 127.0.0.1:8010 or [::]:8010",
        ),
        (
            "dev = 'yes'",
            "dev = \"yes\" (rivulet.toml line 1): allowed is true or false",
        ),
        (
            "[limits]\nmax_patterns = 0",
            "limits.max_patterns = 0 (rivulet.toml line 2): allowed is a whole number from 1 to 10000",
        ),
        (
            "[limits]\nping = { burst = 1.0 }",
            "limits.ping.burst = 1.0 (rivulet.toml line 2): allowed is a whole number from 1 to 1000000",
        ),
        (
            "[limits]\nping = 3",
            "limits.ping = 3 (rivulet.toml line 2): allowed is one table, [limits.ping]",
        ),
        (
            "[[stream]]\nname = 'A'\n[[stream]]\nname = 'B'",
            "stream = [{\"name\":\"A\"},{\"name\":\"B\"}] (rivulet.toml line 1): allowed is one table, [stream]",
        ),
        (
            "sessions.heartbeat = '25 s'",
            "sessions.heartbeat = \"25 s\" (rivulet.toml line 1): allowed is a duration from 100ms to 10m",
        ),
        (
            "sessions.heartbeat = '1h'",
            "sessions.heartbeat = \"1h\" (rivulet.toml line 1): allowed is a duration from 100ms to 10m",
        ),
        (
            "limits.max_message_bytes = '64KB'",
            "limits.max_message_bytes = \"64KB\" (rivulet.toml line 1): allowed is a size from 1KiB to 16MiB",
        ),
        (
            "sessions.max_event_bytes = '512KiB'",
            "sessions.max_event_bytes = \"512KiB\" (rivulet.toml line 1): allowed is a size from 1KiB to 64MiB; no more than a quarter of `sessions.outbox_bytes`, 256KiB",
        ),
        (
            "log.format = 'text'",
            "log.format = \"text\" (rivulet.toml line 1): allowed is one of human, json",
        ),
        (
            "[limit]\nmax_patterns = 3",
            "limit (rivulet.toml line 1): there is no such key",
        ),
        (
            "[limits]\nmax_pattern = 3",
            "limits.max_pattern (rivulet.toml line 2): there is no such key; did you mean `limits.max_patterns`?",
        ),
        (
            "lisen = 'x'",
            "lisen (rivulet.toml line 1): there is no such key; did you mean `listen`?",
        ),
        (
            "allowed_origins = ['https://a.example', 'https://*.example']",
            "allowed_origins[1] = \"https://*.example\" (rivulet.toml line 1): allowed is scheme://host or scheme://host:port, no path, no wildcards",
        ),
        (
            "allowed_origins = 'https://a.example/'",
            "allowed_origins[0] = \"https://a.example/\" (rivulet.toml line 1): allowed is scheme://host or scheme://host:port, no path, no wildcards",
        ),
        (
            "nats_url = 'localhost:4222'",
            "nats_url[0] = \"localhost:4222\" (rivulet.toml line 1): allowed is nats://host:port or tls://host:port; user and password, or a token, may stand before the host, the same in each",
        ),
        (
            "nats_url = 'http://u:p@localhost:4222'",
            "nats_url[0] = \"***\" (rivulet.toml line 1): allowed is nats://host:port or tls://host:port; user and password, or a token, may stand before the host, the same in each",
        ),
        (
            "nats_url = 'nats://u:p@a:4222,nats://b:4222'",
            "nats_url[1] (rivulet.toml line 1): allowed is the same user and password, or token, in every URL",
        ),
        (
            "nats_url = 'nats://a:4222'\n[nats]\nuser = 'u'",
            "nats.user (rivulet.toml line 3): needs `nats.password` beside it",
        ),
        (
            "nats_url = 'nats://u:p@a:4222'\n[nats]\ntoken = 't'",
            "nats_url (rivulet.toml line 1): one way to say who the router is: allowed is one of `nats.token`, `nats_url`",
        ),
        (
            "nats_url = 'nats://a:4222'\nnats.nkey_seed = 'UABC'",
            "nats.nkey_seed = *** (rivulet.toml line 2): allowed is the 58 characters of a user's seed, from SU on",
        ),
        (
            "stream.take_over = true",
            "stream.take_over (rivulet.toml line 1): needs `stream.manage` beside it: without it no stream is altered",
        ),
        (
            "nats.token = 't'",
            "nats.token (rivulet.toml line 1): needs `nats_url`: without it the router starts a nats-server of its own",
        ),
        (
            "nats_url = 'nats://a:4222'\nnats.creds_file = '/nowhere/a.creds'",
            "nats.creds_file = \"/nowhere/a.creds\" (rivulet.toml line 2): allowed is a file that can be read; No such file or directory (os error 2)",
        ),
        (
            "jwks_url = 'http://login.example/jwks'",
            "jwks_url = \"http://login.example/jwks\" (rivulet.toml line 1): allowed is an https:// URL without user and password; http:// only to a loopback address",
        ),
        (
            "jwks_url = 'https://u:p@login.example/jwks'",
            "jwks_url = *** (rivulet.toml line 1): allowed is an https:// URL without user and password; http:// only to a loopback address",
        ),
        (
            "[auth]\njwks_algorithms = ['RS256', 'HS256']",
            "auth.jwks_algorithms[1] = \"HS256\" (rivulet.toml line 2): allowed is one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA",
        ),
        (
            "auth.secret_algorithms = ['RS256']",
            "auth.secret_algorithms[0] = \"RS256\" (rivulet.toml line 1): allowed is one of HS256, HS384, HS512",
        ),
        (
            "auth.secret_algorithms = ['none']",
            "auth.secret_algorithms[0] = \"none\" (rivulet.toml line 1): allowed is one of HS256, HS384, HS512",
        ),
        (
            "auth.secret_algorithms = []",
            "auth.secret_algorithms = [] (rivulet.toml line 1): allowed is at least one algorithm beside `jwt_secret`",
        ),
        (
            "[[auth.keys]]\nsecret = 'too short'",
            "auth.keys[0].secret = *** (rivulet.toml line 2): allowed is a text of at least 32 bytes; this has 9. `openssl rand -base64 33` makes one",
        ),
        (
            "[[auth.keys]]\nalgorithms = ['RS256']",
            "auth.keys[0] (rivulet.toml line 1): allowed is exactly one of `secret`, `secret_file`, `pem`, `pem_file`",
        ),
        (
            "[[auth.keys]]\npem = 'nonsense'",
            "auth.keys[0].pem = \"…\" (rivulet.toml line 2): allowed is a public key in PEM: RSA of at least 2048 bits, EC P-256 or P-384, Ed25519; this is no public key in PEM",
        ),
        (
            "default_role = 'admin'",
            "default_role = \"admin\" (rivulet.toml line 1): allowed is the name of a role; the roles are: user",
        ),
        (
            "[roles.user]\nevents = ['blob*']",
            "roles.user.events[0] = \"blob*\" (rivulet.toml line 2): allowed is patterns, such as blob.* or blob.>; * for all; `*` and `>` stand alone in their token: use blob.* or blob.>",
        ),
        (
            "[roles.user]\nevent = ['blob.*']",
            "roles.user.event (rivulet.toml line 2): there is no such key; did you mean `events`?",
        ),
        (
            "edge.trusted_proxies = ['10.0.0.0/33']",
            "edge.trusted_proxies[0] = \"10.0.0.0/33\" (rivulet.toml line 1): allowed is addresses or networks, such as 10.0.0.0/8 or ::1",
        ),
        (
            "stream.max_age = '1m'",
            "stream.duplicate_window = \"2m\" (the default): allowed is a duration from 1s to 1d; no more than `stream.max_age`, 1m",
        ),
        (
            "commands = { deadline = '10m', remember = '1m' }",
            "commands.remember = \"1m\" (rivulet.toml line 1): allowed is a duration from 1s to 1d; no less than `commands.deadline`, 10m",
        ),
        (
            "log.filter = 'rivulet=loud'",
            "log.filter = \"rivulet=loud\" (rivulet.toml line 1): allowed is a level (error, warn, info, debug, trace) or module=level with commas between, such as info,rivulet=debug",
        ),
        (
            "sources = []",
            "sources = [] (rivulet.toml line 1): allowed is at least one source: without any no event ever comes",
        ),
        (
            "[[sources]]\ndurable = true",
            "sources[0].subject (rivulet.toml line 1): is missing; allowed is a NATS subject, such as blob.> or blob.created.*",
        ),
        (
            "listen = ",
            "TOML (rivulet.toml line 1): string values must be quoted, expected literal string",
        ),
    ] {
        assert_eq!(one_problem(file), problem, "{file}");
    }
}

#[test]
fn sources_keep_apart() {
    for (source, place) in [
        (
            "subject = 'command.x'",
            "sources[0].subject = \"command.x\" (rivulet.toml line 2): allowed is a NATS subject, such as blob.> or blob.created.*; this overlaps `command.>`",
        ),
        (
            "subject = '>'\ntype = 'field:type'",
            "sources[0].subject = \">\" (rivulet.toml line 2): allowed is a NATS subject, such as blob.> or blob.created.*; this overlaps `command.>`",
        ),
        (
            "subject = 'rivulet.live.x'",
            "sources[0].subject = \"rivulet.live.x\" (rivulet.toml line 2): allowed is a NATS subject, such as blob.> or blob.created.*; this overlaps `rivulet.>`",
        ),
        (
            "subject = '$JS.API.x'",
            "sources[0].subject = \"$JS.API.x\" (rivulet.toml line 2): allowed is a NATS subject, such as blob.> or blob.created.*; subjects from `$` on are NATS's own",
        ),
        (
            "subject = '_INBOX.*'",
            "sources[0].subject = \"_INBOX.*\" (rivulet.toml line 2): allowed is a NATS subject, such as blob.> or blob.created.*; this overlaps `_INBOX.>`",
        ),
        (
            "subject = 'a b'\ntype = 'field:type'",
            "sources[0].subject = \"a b\" (rivulet.toml line 2): allowed is a NATS subject, such as blob.> or blob.created.*",
        ),
        (
            "subject = 'a.>'\n[[sources]]\nsubject = 'a.b'",
            "sources[1].subject = \"a.b\" (rivulet.toml line 4): allowed is a NATS subject, such as blob.> or blob.created.*; this overlaps `a.>` of sources[0]",
        ),
        (
            "subject = 'a.b.*'\naudience = 'token:3'",
            "sources[0].audience = \"token:3\" (rivulet.toml line 3): allowed is auto, header, payload, payload:NAME, everyone or token:N; `a.b.*` has no token 3, counted from 0",
        ),
        (
            "subject = 'a.b.*.c'\naudience = 'token:3'",
            "sources[0].audience = \"token:3\" (rivulet.toml line 3): allowed is auto, header, payload, payload:NAME, everyone or token:N; token 3 of `a.b.*.c` is always `c`, never a user",
        ),
        (
            "subject = 'a.*.*'\naudience = 'token:1'",
            "sources[0].audience = \"token:1\" (rivulet.toml line 3): allowed is auto, header, payload, payload:NAME, everyone or token:N; token 1 is one of the 2 that are the event's type",
        ),
        (
            "subject = 'a.>'\naudience = 'payload:'",
            "sources[0].audience = \"payload:\" (rivulet.toml line 3): allowed is auto, header, payload, payload:NAME, everyone or token:N",
        ),
        (
            "subject = 'a.>'\naudience = 'payload:to'\ndata = 'field:to'",
            "sources[0].audience = \"payload:to\" (rivulet.toml line 3): allowed is auto, header, payload, payload:NAME, everyone or token:N; the field `to` is where the event's data stands",
        ),
        (
            "subject = 'a.*.*'\naudience = 'room'",
            "sources[0].audience = \"room\" (rivulet.toml line 3): allowed is auto, header, payload, payload:NAME, everyone or token:N",
        ),
        (
            "subject = 'a'",
            "sources[0].type = \"subject:2\" (rivulet.toml line 1): allowed is subject:N (the leading N tokens), header:NAME or field:NAME; tokens in the shortest subject of `a`: 1",
        ),
        (
            "subject = 'a.b'\ntype = 'subject:9'",
            "sources[0].type = \"subject:9\" (rivulet.toml line 3): allowed is subject:N (the leading N tokens), header:NAME or field:NAME",
        ),
        (
            "subject = 'a.b'\ntype = 'header:A B'",
            "sources[0].type = \"header:A B\" (rivulet.toml line 3): allowed is subject:N (the leading N tokens), header:NAME or field:NAME",
        ),
        (
            "subject = 'a.b'\ntype_prefix = 'a.*'",
            "sources[0].type_prefix = \"a.*\" (rivulet.toml line 3): allowed is 1 to 7 tokens of A-Z a-z 0-9 _ - with dots between",
        ),
        (
            "subject = 'a.b'\ndata = 'body'",
            "sources[0].data = \"body\" (rivulet.toml line 3): allowed is payload or field:NAME",
        ),
    ] {
        assert_eq!(one_problem(&format!("[[sources]]\n{source}")), place);
    }
    let config = good(
        "[[sources]]\nsubject = 'consciousness.>'\ntype = 'field:type'\ntype_prefix = 'consciousness'\n\
         data = 'field:data'\naudience = 'everyone'\nvalidate = 'warn'\n\
         [[sources]]\nsubject = 'blob.*.>'\naudience = 'token:3'\ntype = 'header:Ce-Type'\n\
         [[sources]]\nsubject = 'c.>'\naudience = 'payload:members'",
    );
    assert_eq!(config.sources[0].event_type, TypeFrom::Field("type".into()));
    assert_eq!(
        config.sources[0].type_prefix.as_ref().unwrap().as_str(),
        "consciousness"
    );
    assert_eq!(config.sources[0].data, DataFrom::Field("data".into()));
    assert_eq!(config.sources[0].audience, AudienceFrom::Everyone);
    assert_eq!(config.sources[0].validate, Validation::Warn);
    assert_eq!(config.sources[1].audience, AudienceFrom::Token(3));
    assert_eq!(
        config.sources[2].audience,
        AudienceFrom::Field("members".to_owned())
    );
    assert_eq!(config.sources[1].event_type, TypeFrom::Header("Ce-Type".into()));
}

#[test]
fn a_feed_by_user_needs_sources_of_one_shape() {
    let by_user = "stream.feed = 'by_user'\n";
    let source = |rest: &str| format!("[[sources]]\nsubject = {rest}\n");
    let user_at_2 = source("'blob.*.*'\naudience = 'token:2'");
    let config = good(&format!(
        "{by_user}{user_at_2}{}{}",
        source("'*.made.*'\naudience = 'token:2'").replace("*.made", "book.made"),
        source("'typing.>'\ndurable = false"),
    ));
    assert_eq!(config.stream.feed, Feed::ByUser(Shape { tokens: 3, user: 2 }));
    assert_eq!(good(&user_at_2).stream.feed, Feed::Whole);
    for (second, why) in [
        (
            "'book.*.*'",
            "`book.*.*` of sources[1] does not name its user: set its `audience` to `token:N`",
        ),
        (
            "'book.>'\naudience = 'token:2'",
            "`book.>` of sources[1] has any number of tokens: write `*` for each in place of `>`",
        ),
        (
            "'book.*.*.*'\naudience = 'token:3'",
            "`book.*.*.*` of sources[1] has 4 tokens with the user at 3, and `blob.*.*` of sources[0] has 3 with the user at 2",
        ),
        (
            "'book.*.*'\naudience = 'token:1'\ntype = 'subject:1'",
            "`book.*.*` of sources[1] has 3 tokens with the user at 1, and `blob.*.*` of sources[0] has 3 with the user at 2",
        ),
    ] {
        let problem = one_problem(&format!("{by_user}{user_at_2}{}", source(second)));
        assert!(problem.contains(why), "{problem}");
        assert!(
            problem.starts_with("stream.feed = \"by_user\" (rivulet.toml line 1)"),
            "{problem}"
        );
        assert!(problem.contains("or leave `stream.feed` at `whole`"), "{problem}");
    }
    // The default sources name their users in headers and payloads.
    let problem = one_problem(by_user);
    assert!(
        problem.contains("`blob.>` of sources[0] has any number of tokens"),
        "{problem}"
    );
}

#[test]
fn all_problems_come_together() {
    let found = load(
        "listen = 'x'\n[limits]\nmax_patterns = -1\nmax_patern = 1\n[[sources]]\nsubject = 'command.>'\nroom = 1",
        &[
            ("RIVULET_LIMITS_PING_BURST", "many"),
            ("RIVULET_LIMITS_MAX_PATERNS", "1"),
            ("RIVULET_SOURCES", "[{"),
            ("HOME", "/"),
        ],
        &[("limits.other.burst", "0"), ("nonsense.key", "1")],
    )
    .unwrap_err();
    assert_eq!(
        found,
        [
            "listen = \"x\" (rivulet.toml line 1): allowed is an address and a port, such as 127.0.0.1:8010 or [::]:8010",
            "limits.max_patterns = -1 (rivulet.toml line 3): allowed is a whole number from 1 to 10000",
            "limits.max_patern (rivulet.toml line 4): there is no such key; did you mean `limits.max_patterns`?",
            "sources[0].room (rivulet.toml line 7): there is no such key",
            "limits.ping.burst = \"many\" (RIVULET_LIMITS_PING_BURST): allowed is a whole number from 1 to 1000000",
            "RIVULET_LIMITS_MAX_PATERNS: no key has this variable; did you mean `RIVULET_LIMITS_MAX_PATTERNS`?",
            "sources = \"[{\" (RIVULET_SOURCES): allowed is a list of tables, written as JSON or inline TOML",
            "limits.other.burst = 0 (--set limits.other.burst): allowed is a whole number from 1 to 1000000",
            "nonsense.key (--set nonsense.key): there is no such key",
            "jwt_secret: there is no key to check tokens with: set this (RIVULET_JWT_SECRET), or `jwks_url` (RIVULET_JWKS_URL), or `auth.keys`; or try it out with `--dev`",
        ]
    );
}

#[test]
fn without_a_key_it_refuses_but_in_development() {
    let refusal = load("", &[], &[]).unwrap_err();
    assert!(
        refusal[0].starts_with("jwt_secret: there is no key to check tokens with"),
        "{refusal:?}"
    );
    let config = load("", &[], &[("dev", "true")]).unwrap();
    assert!(config.dev && config.auth.keys.is_empty());
    assert_eq!(config.limits.connections_per_address, 0);
    assert_eq!(config.edge.max_pending_handshakes_per_address, 0);
    assert_eq!(config.limits.devices_per_user, 0);
    assert_eq!(config.roles["user"].devices_per_user, Some(0));
    let inputs = Inputs::default();
    assert!(Config::load(&inputs, Purpose::Tool).is_ok());

    for listen in ["listen", "admin_listen"] {
        assert_eq!(
            load("", &[], &[("dev", "true"), (listen, "0.0.0.0:8010")]).unwrap_err(),
            [format!(
                "{listen} = \"0.0.0.0:8010\" (--set {listen}): with `dev` anyone who can connect is whoever \
                 they say: allowed is a loopback address, such as 127.0.0.1:8010"
            )]
        );
    }
    assert!(
        load(
            "",
            &[],
            &[("dev", "true"), ("listen", "[::1]:0"), ("admin_listen", "off")]
        )
        .is_ok()
    );
}

#[test]
fn keys_come_with_the_algorithms_that_fit() {
    use jsonwebtoken::Algorithm::*;

    let pem = include_str!("../../tests/keys/p-256.pem");
    let directory = tempfile::tempdir().unwrap();
    let secret_file = directory.path().join("secret");
    fs::write(&secret_file, format!("{SECRET}\n")).unwrap();
    let file = format!(
        "[[auth.keys]]\npem = '''{pem}'''\n[[auth.keys]]\npem_file = '{}/tests/keys/rsa-2048.pem'\n\
         algorithms = ['PS256']\n[[auth.keys]]\nsecret_file = '{}'",
        env!("CARGO_MANIFEST_DIR"),
        secret_file.display(),
    );
    let config = load(&file, &[], &[]).unwrap();
    let [
        Key::Pem { algorithms: ec, .. },
        Key::Pem { algorithms: rsa, .. },
        Key::Secret { secret, algorithms },
    ] = &config.auth.keys[..]
    else {
        panic!("{:?}", config.auth.keys);
    };
    assert_eq!(ec, &[ES256]);
    assert_eq!(rsa, &[PS256]);
    assert_eq!(
        (secret.0.as_str(), &algorithms[..]),
        (SECRET, &[HS256, HS384, HS512][..])
    );

    let file = format!("[[auth.keys]]\npem = '''{pem}'''\nalgorithms = ['ES256', 'RS256']");
    assert_eq!(
        load(&file, &[], &[]).unwrap_err(),
        [
            "auth.keys[0].algorithms[1] = \"RS256\" (rivulet.toml line 7): allowed is one of ES256, which fit the key"
        ]
    );
}

#[test]
fn what_stands_before_a_nats_host_becomes_credentials() {
    let config = good("nats_url = ['nats://u:p%40ss@a:4222', 'tls://u:p%40ss@b:4222']");
    assert_eq!(config.nats.urls, ["nats://a:4222", "tls://b:4222"]);
    let NatsCredentials::Password { user, password } = config.nats.credentials else {
        panic!("no password");
    };
    assert_eq!((user.as_str(), password.0.as_str()), ("u", "p@ss"));
    let config = good("nats_url = 'nats://t0ken@a:4222'");
    assert!(matches!(config.nats.credentials, NatsCredentials::Token(Secret(token)) if token == "t0ken"));
}

#[test]
fn secrets_are_never_shown() {
    const HIDDEN: &str = "hunter2-hunter2-hunter2-hunter2-hunter2";
    let file = format!(
        "jwt_secret = '{HIDDEN}'\nnats_url = 'nats://user:{HIDDEN}@a:4222'\n[[auth.keys]]\nsecret = '{HIDDEN}'"
    );
    let config = load(&file, &[], &[]).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));

    let short = "hunter2";
    for (file, variables) in [
        (format!("jwt_secret = '{short}'"), vec![]),
        (format!("jwt_secret = ['{HIDDEN}']"), vec![]),
        (format!("jwt_secret = '{HIDDEN}"), vec![]),
        (format!("jwt_secret = {HIDDEN}"), vec![]),
        (
            format!("jwt_secret = '{HIDDEN}'\njwt_secret = '{HIDDEN}'"),
            vec![],
        ),
        (format!("jwt_secrt = '{HIDDEN}'"), vec![]),
        (format!("auth.keys = '{HIDDEN}'"), vec![]),
        (format!("auth.keys = ['{HIDDEN}']"), vec![]),
        (format!("[[auth.keys]]\nsecret = '{short}'"), vec![]),
        (format!("[[auth.keys]]\nsecret = ['{HIDDEN}']"), vec![]),
        (format!("[[auth.keys]]\npem = '{HIDDEN}'"), vec![]),
        (format!("nats_url = 'nats://a:{HIDDEN},x@b:1'"), vec![]),
        (format!("nats_url = 'a:{HIDDEN}@b:1'"), vec![]),
        (format!("nats_url = ['nats://a:{HIDDEN}@b:1/path']"), vec![]),
        (format!("nats.password = '{HIDDEN}'"), vec![]),
        (format!("nats.nkey_seed = '{HIDDEN}'"), vec![]),
        (String::new(), vec![("RIVULET_JWT_SECRT", HIDDEN)]),
        (String::new(), vec![("RIVULET_AUTH_KEYS", HIDDEN)]),
        (String::new(), vec![("RIVULET_JWKS_URL", "http://a:hunter2@b")]),
    ] {
        let problems = load(&file, &variables, &[]).expect_err(&file);
        assert!(
            !problems.is_empty() && !problems.concat().contains("hunter2"),
            "{file}: {problems:#?}"
        );
    }
}

#[test]
fn what_kubernetes_sets_beside_a_service_is_no_mistake() {
    load(
        "",
        &[
            ("RIVULET_JWT_SECRET", SECRET),
            ("RIVULET_SERVICE_HOST", "10.0.0.1"),
            ("RIVULET_SERVICE_PORT", "8010"),
            ("RIVULET_SERVICE_PORT_HTTP", "8010"),
            ("RIVULET_PORT", "tcp://10.0.0.1:8010"),
            ("RIVULET_PORT_8010_TCP", "tcp://10.0.0.1:8010"),
            ("RIVULET_PORT_8010_TCP_ADDR", "10.0.0.1"),
            ("RIVULET_ADMIN_PORT_8011_TCP_PROTO", "tcp"),
            ("RIVULET_TOKEN", "t"),
            ("RIVULET_LISTEN", ""),
        ],
        &[],
    )
    .unwrap();
    assert!(
        load(
            "",
            &[("RIVULET_JWT_SECRET", SECRET), ("RIVULET_PORT", "8010")],
            &[]
        )
        .is_err()
    );
}

#[test]
fn a_file_that_is_not_there_is_a_problem() {
    let inputs = Inputs {
        file: Some("/nowhere/rivulet.toml".into()),
        ..Inputs::default()
    };
    assert_eq!(
        Config::load(&inputs, Purpose::Tool).unwrap_err().to_string(),
        "the configuration has 1 problem:\n  /nowhere/rivulet.toml: the configuration file can't be read: \
         No such file or directory (os error 2)"
    );
}

#[test]
fn the_reference_page_is_fresh() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md")).unwrap();
    assert!(
        page == reference(),
        "docs/configuration.md is stale: ./just gen writes it anew"
    );
}

proptest! {
    /// Whatever is written, it is read or refused.
    #[test]
    fn nothing_panics(index in 0..key::keys().len(), text in "\\PC{0,20}", json in any_json()) {
        let key = &key::keys()[index];
        let _ = load(&format!("{} = {json}\n", key.path), &[(&key.variable, &text)], &[(&key.path, &json)]);
    }
}

/// Small JSON values, which are inline TOML too as long as nothing is null.
fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("true".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        "[a-z0-9.:/*>]{0,8}".prop_map(|text| format!("{text:?}")),
        prop::sample::select(vec!["0s", "5m", "1KiB", "token:1", "subject:2", "HS256", "a.b.>"])
            .prop_map(|text| format!("{text:?}")),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let names = prop::sample::select(vec![
            "subject", "type", "audience", "events", "secret", "pem", "x",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(|items| format!("[{}]", items.join(","))),
            (names, inner).prop_map(|(name, value)| format!("{{{name} = {value}}}")),
        ]
    })
}
