//! The program from outside: what it prints, and with which exit code it ends.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tungstenite::{
    Message, WebSocket,
    handshake::server::{Request, Response},
    http::HeaderValue,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const SUBCOMMANDS: [&str; 8] = [
    "serve", "check", "token", "tail", "publish", "bench", "health", "codegen",
];
const DELETED: &str = r#"{"blob_id":"b1","user_id":"u1","deleted_at":"2026-01-01T00:00:00Z","n":1.0}"#;

/// The program in a directory of its own, with nothing of ours in its environment.
struct Rivulet {
    directory: TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Rivulet {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            variables: Vec::new(),
        }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn command(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rivulet"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RIVULET_") {
                command.env_remove(name);
            }
        }
        command
            .args(arguments)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(self.directory.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs it to its end; one that does not come to it is killed, and has no exit code.
    fn run(&self, arguments: &[impl AsRef<OsStr>]) -> Ended {
        let mut command = self.command(arguments);
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&child);
        let (ended, end) = mpsc::channel::<()>();
        let guard = thread::spawn(move || {
            if end.recv_timeout(Duration::from_secs(120)) == Err(RecvTimeoutError::Timeout) {
                let _ = kill_process(pid, Signal::KILL);
            }
        });
        let output = child.wait_with_output().unwrap();
        drop(ended);
        guard.join().unwrap();
        Ended(output)
    }
}

struct Ended(Output);

impl Ended {
    /// Standard output of a run that went well.
    fn good(self) -> String {
        assert!(self.0.status.success(), "{}", self.stderr());
        String::from_utf8(self.0.stdout).unwrap()
    }

    /// Standard error of a run that ended with this code.
    fn bad(self, code: i32) -> String {
        assert_eq!(self.0.status.code(), Some(code), "{}", self.stderr());
        self.stderr()
    }

    fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }
}

#[test]
fn help_names_every_subcommand_and_each_has_an_example() {
    let help = Rivulet::new().run(&["--help"]).good();
    for subcommand in SUBCOMMANDS {
        assert!(
            help.contains(&format!("\n  {subcommand} ")),
            "{subcommand} is not in {help}"
        );
        let help = Rivulet::new().run(&[subcommand, "--help"]).good();
        let examples = help.matches(&format!("rivulet {subcommand}")).count();
        // The first is in the usage; `health` shows how a container has it.
        assert!(
            examples >= 2 || help.contains(r#"["rivulet", "health"]"#),
            "{help}"
        );
    }
    assert!(help.contains("Exit codes:"));
    assert!(!help.contains("supervised"));
}

#[test]
fn the_version_is_that_of_the_binary_and_not_of_the_crate() {
    let version = Rivulet::new().run(&["--version"]).good();
    assert_eq!(version, concat!("rivulet ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn the_text_behind_a_help_is_wrapped_to_the_terminal_and_not_twice() {
    for subcommand in SUBCOMMANDS {
        let help = Rivulet::new().run(&[subcommand, "--help"]).good();
        let lines: Vec<_> = help.lines().collect();
        for pair in lines.windows(2) {
            // A line that was wrapped leaves a rest, which must not end before another line of the same sentence.
            let is_rest = pair[0].len() < 40 && pair[0].starts_with(char::is_lowercase);
            let goes_on = pair[1].starts_with(char::is_lowercase);
            assert!(!(is_rest && goes_on), "{subcommand}: {pair:?}");
        }
    }
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    for arguments in [
        &["nonsense"][..],
        &[],
        &["serve", "--nonsense"],
        &["token"],
        &["token", "--user", ""],
        &["token", "--user", "u1", "--ttl", "0s"],
        &["token", "--user", "u1", "--events", "blob*"],
        &["tail", "blob..x", "--user", "u1"],
        &["tail", "--user", "u1", "--token", "t"],
        &["tail"],
        &["tail", "--user", "u1", "--url", "nats://a"],
        &["tail", "--user", "u1", "--count", "0"],
        &["publish", "blob created", "--data", "{}"],
        &["publish", "error", "--data", "{}"],
        &[
            "publish",
            "blob.created",
            "--user",
            "u1",
            "--everyone",
            "--data",
            "{}",
        ],
        &["check", "--set", "listen"],
    ] {
        Rivulet::new().run(arguments).bad(2);
    }
}

#[test]
fn check_says_what_a_router_would_do() {
    let rivulet = Rivulet::new().with("RIVULET_JWT_SECRET", SECRET);
    let file = rivulet.file(
        "rivulet.toml",
        "listen = '127.0.0.1:9000'\nnats_url = 'nats://u:p@n:4222'",
    );
    let summary = rivulet.run(&["check", "--config", file.to_str().unwrap()]).good();
    for line in [
        "ws://127.0.0.1:9000/api/v1/ws",
        "nats://n:4222 as u",
        "blob.>, durable",
        "a secret",
    ] {
        assert!(summary.contains(line), "{line} is not in {summary}");
    }
    let flagged = rivulet
        .run(&["check", "--listen", "127.0.0.1:9001", "--set", "stream.name=MINE"])
        .good();
    assert!(flagged.contains("127.0.0.1:9001") && flagged.contains("MINE"));
    let rivulet = rivulet.with("RIVULET_CONFIG", file.to_str().unwrap());
    assert!(rivulet.run(&["check"]).good().contains("127.0.0.1:9000"));
    let permissions = rivulet.run(&["check", "--permissions"]).good();
    assert!(
        permissions.contains("$JS.API.STREAM.INFO.RIVULET"),
        "{permissions}"
    );
}

#[test]
fn check_names_every_problem_and_ends_with_1() {
    let rivulet = Rivulet::new()
        .with("RIVULET_JWT_SECRET", "hunter2")
        .with("RIVULET_LIMITS_MAX_PATERNS", "3");
    rivulet.file("rivulet.toml", "listen = 'here'\n");
    let stderr = rivulet.run(&["check", "--config", "rivulet.toml"]).bad(1);
    assert_eq!(
        stderr,
        "rivulet: the configuration has 3 problems:\n  \
         listen = \"here\" (rivulet.toml line 1): allowed is an address and a port, such as 127.0.0.1:8010 or [::]:8010\n  \
         RIVULET_LIMITS_MAX_PATERNS: no key has this variable; did you mean `RIVULET_LIMITS_MAX_PATTERNS`?\n  \
         jwt_secret = *** (RIVULET_JWT_SECRET): allowed is a text of at least 32 bytes; this has 7. `openssl rand -base64 33` makes one\n"
    );
}

#[test]
fn a_configuration_file_that_cant_be_read_is_one_problem() {
    let rivulet = Rivulet::new();
    rivulet.file("bad.toml", "listen = \"0.0.0.0:8010\n");
    for (file, why) in [
        (
            "nowhere.toml",
            "nowhere.toml: the configuration file can't be read",
        ),
        ("bad.toml", "TOML (bad.toml line 1)"),
    ] {
        let stderr = rivulet.run(&["check", "--config", file]).bad(1);
        assert!(
            stderr.contains("has 1 problem:") && stderr.contains(why),
            "{stderr}"
        );
    }
}

#[test]
fn a_family_that_declares_nothing_is_refused() {
    let rivulet = Rivulet::new();
    fs::create_dir(rivulet.directory.path().join("families")).unwrap();
    rivulet.file("families/empty.json", r#"{"oneOf":[]}"#);
    let stderr = rivulet.run(&["check", "--dev", "--families", "families"]).bad(1);
    assert!(
        stderr.contains("empty.json: at /oneOf: it names no event type"),
        "{stderr}"
    );
}

#[test]
fn serve_refuses_to_start_without_a_key() {
    let stderr = Rivulet::new().run(&["serve"]).bad(2);
    assert!(
        stderr.contains("there is no key to check tokens with"),
        "{stderr}"
    );
    let stderr = Rivulet::new()
        .run(&["serve", "--dev", "--listen", "0.0.0.0:0"])
        .bad(2);
    assert!(stderr.contains("allowed is a loopback address"), "{stderr}");
}

#[test]
fn serve_says_which_port_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let stderr = Rivulet::new()
        .run(&["serve", "--dev", "--listen", &address])
        .bad(1);
    assert!(
        stderr.contains(&address) && stderr.contains("`listen`"),
        "{stderr}"
    );
}

#[test]
fn tokens_say_what_was_asked_for() {
    let rivulet = Rivulet::new()
        .with("RIVULET_JWT_SECRET", SECRET)
        .with("RIVULET_AUTH_ISSUERS", "https://me.example")
        .with("RIVULET_AUTH_SECRET_ALGORITHMS", "HS384");
    let minted = rivulet
        .run(&[
            "token",
            "--user",
            "a.b",
            "--ttl",
            "5m",
            "--events",
            "blob.*,book.>",
            "--role",
            "user",
        ])
        .good();
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS384);
    validation.leeway = 0;
    let key = jsonwebtoken::DecodingKey::from_secret(SECRET.as_bytes());
    let claims = jsonwebtoken::decode::<Value>(minted.trim(), &key, &validation)
        .unwrap()
        .claims;
    assert_eq!(claims["sub"], "a.b");
    assert_eq!(claims["iss"], "https://me.example");
    assert_eq!(
        claims["rivulet"],
        serde_json::json!({ "events": ["blob.*", "book.>"], "role": "user" })
    );
    let lifetime = claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
    assert!((300..=301).contains(&lifetime), "{lifetime}");

    let stderr = rivulet.run(&["token", "--user", "u1", "--role", "admin"]).bad(2);
    assert!(stderr.contains("--role admin: the roles are: user"), "{stderr}");
    let stderr = Rivulet::new().run(&["token", "--user", "u1"]).bad(2);
    assert!(stderr.contains("there is no secret to sign with"), "{stderr}");
}

#[test]
fn codegen_without_arguments_leaves_a_directory_of_somebody_elses_alone() {
    let rivulet = Rivulet::new();
    for arguments in [&["codegen"][..], &["codegen", "--check"]] {
        let stderr = rivulet.run(arguments).bad(2);
        assert!(stderr.contains("--families DIRECTORY"), "{stderr}");
    }
    assert_eq!(fs::read_dir(rivulet.directory.path()).unwrap().count(), 0);
}

#[test]
fn codegen_notices_what_is_stale() {
    let rivulet = Rivulet::new();
    let here = ["codegen", "--out", ".", "--check"];
    let stderr = rivulet.run(&here).bad(1);
    assert!(
        stderr.contains("docs/configuration.md") && stderr.contains("docs/metrics.md"),
        "{stderr}"
    );
    rivulet.run(&here[..3]).good();
    assert_eq!(rivulet.run(&here).good(), "");
    fs::write(rivulet.directory.path().join("docs/metrics.md"), "edited").unwrap();
    let stderr = rivulet.run(&here).bad(1);
    assert!(
        stderr.contains("docs/metrics.md") && !stderr.contains("configuration"),
        "{stderr}"
    );
}

#[test]
fn what_a_router_would_reject_is_not_published() {
    let rivulet = Rivulet::new();
    let mut large = tempfile::NamedTempFile::new().unwrap();
    write!(large, r#"{{"a":"{}"}}"#, "x".repeat(256 << 10)).unwrap();
    let large = format!("@{}", large.path().display());
    for (arguments, why) in [
        (
            &["publish", "blob.new", "--user", "u1", "--data", &large][..],
            "by too_large",
        ),
        (
            &[
                "publish",
                "blob.deleted",
                "--user",
                "u1",
                "--data",
                r#"{"blob_id":1,"user_id":"u1","deleted_at":"2026-01-01T00:00:00Z"}"#,
            ][..],
            "schema.type at /blob_id",
        ),
        (
            &["publish", "blob.deleted", "--user", "u1", "--data", "[]"],
            "by object",
        ),
        (
            &["publish", "blob.new", "--data", "{}"],
            "the top-level field `user_id`; or give --user or --everyone",
        ),
        (
            &["publish", "acme.x", "--user", "u1", "--data", "{}"],
            "no source names this subject",
        ),
        (
            &[
                "publish",
                "blob.new",
                "--user",
                "u1",
                "--subject",
                "blob.old",
                "--data",
                "{}",
            ],
            "it would be of the type `blob.old`",
        ),
        (
            &["publish", "blob.new", "--user", "u1", "--data", "@nowhere.json"],
            "--data @nowhere.json",
        ),
        // It may be somebody's own, so it is not refused; what is wrong here comes after that.
        (
            &["publish", "blob.deletd", "--user", "u1", "--data", "{}"],
            "did you mean `blob.deleted`?",
        ),
        // Right, but nobody is there to take it.
        (
            &["publish", "blob.deleted", "--user", "u1", "--data", DELETED],
            "nats.json",
        ),
    ] {
        let stderr = rivulet.run(arguments).bad(1);
        assert!(stderr.contains(why), "{why} is not in {stderr}");
    }
    let sources = "[{subject='news.>', audience='everyone', type='field:type', type_prefix='acme'}]";
    let rivulet = rivulet.with("RIVULET_SOURCES", sources);
    let to_one = [
        "publish",
        "acme.x",
        "--user",
        "u1",
        "--subject",
        "news.a",
        "--data",
        r#"{"type":"x"}"#,
    ];
    let stderr = rivulet.run(&to_one).bad(1);
    assert!(
        stderr.contains("on `news.a` it would be for everyone"),
        "{stderr}"
    );
}

#[test]
fn a_router_that_is_not_there_is_not_healthy() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let stderr = Rivulet::new()
        .with("RIVULET_LISTEN", free.to_string())
        .run(&["health"])
        .bad(1);
    assert!(stderr.contains("does not answer"), "{stderr}");
}

/// A router of few words: it takes connections one by one, each with a script.
struct Script {
    listener: TcpListener,
}

impl Script {
    fn new() -> Self {
        Self {
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
        }
    }

    fn url(&self) -> String {
        format!("ws://{}", self.listener.local_addr().unwrap())
    }

    /// Takes the next connection: its request line's path and `Authorization`, and the socket.
    fn accept(&self) -> (String, String, WebSocket<TcpStream>) {
        let (stream, _) = self.listener.accept().unwrap();
        let (mut path, mut authorization) = (String::new(), String::new());
        #[allow(clippy::result_large_err, reason = "the library's callback")]
        let look = |request: &Request, mut response: Response| {
            path = request.uri().to_string();
            authorization = request.headers()["authorization"].to_str().unwrap().to_owned();
            assert_eq!(request.headers()["sec-websocket-protocol"], "rivulet.v1");
            let protocol = HeaderValue::from_static("rivulet.v1");
            response.headers_mut().insert("sec-websocket-protocol", protocol);
            Ok(response)
        };
        let socket = tungstenite::accept_hdr(stream, look).unwrap();
        (path, authorization, socket)
    }
}

fn connected(socket: &mut WebSocket<TcpStream>) {
    let connected = r#"{"type":"connected","data":{"status":"ready","user_id":"u1","session_id":"s","protocol":"rivulet.v1","server":"test","heartbeat_ms":25000,"events":["blob.*"],"durable":true,"stream":"S@1","seq":4,"oldest_seq":1,"resumed":false,"limits":{"max_message_bytes":65536,"max_patterns":100}}}"#;
    socket.send(Message::text(connected)).unwrap();
}

fn close(socket: &mut WebSocket<TcpStream>, code: u16, reason: &str) {
    let frame = CloseFrame {
        code: CloseCode::from(code),
        reason: reason.to_owned().into(),
    };
    socket.close(Some(frame)).unwrap();
    while socket.read().is_ok() {}
}

#[test]
fn tail_gives_up_on_codes_that_do_not_reconnect() {
    for (code, reason, said) in [
        (4403, "forbidden", "closed with 4403: forbidden"),
        (4401, "unauthorized", "closed with 4401: unauthorized"),
        (
            4429,
            "too many connections",
            "closed with 4429: too many connections",
        ),
        (1008, "flood", "closed with 1008: flood"),
    ] {
        let script = Script::new();
        let url = script.url();
        let router = thread::spawn(move || {
            let (path, authorization, mut socket) = script.accept();
            assert!(path.starts_with("/api/v1/ws?events=blob.*&device="), "{path}");
            assert_eq!(authorization, "Bearer t0ken");
            close(&mut socket, code, reason);
        });
        let stderr = Rivulet::new()
            .with("RIVULET_TOKEN", "t0ken")
            .run(&["tail", "blob.*", "--url", &url])
            .bad(1);
        assert_eq!(stderr, format!("rivulet: {said}\n"));
        router.join().unwrap();
    }
}

#[test]
fn tail_gives_up_where_its_patterns_are_refused_or_the_answer_is_not_websocket() {
    let script = Script::new();
    let url = script.url();
    let router = thread::spawn(move || {
        let (_, _, mut socket) = script.accept();
        connected(&mut socket);
        let error =
            r#"{"type":"error","data":{"code":"FORBIDDEN","message":"not permitted","field":"events[0]"}}"#;
        socket.send(Message::text(error)).unwrap();
        let _ = socket.read();
        let (mut stream, _) = script.listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]).unwrap();
        stream
            .write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            .unwrap();
    });
    let rivulet = Rivulet::new();
    let stderr = rivulet.run(&["tail", "--user", "u1", "--url", &url]).bad(1);
    assert!(
        stderr.ends_with("rivulet: FORBIDDEN: not permitted\n"),
        "{stderr}"
    );
    let stderr = rivulet.run(&["tail", "--user", "u1", "--url", &url]).bad(1);
    assert!(
        stderr.starts_with(&format!("rivulet: {url}/api/v1/ws: refused with HTTP 404: ")),
        "{stderr}"
    );
    router.join().unwrap();
}

#[test]
fn tail_comes_back_with_its_position_and_prints_frames_as_they_came() {
    let script = Script::new();
    let url = script.url();
    let router = thread::spawn(move || {
        let (first, _, mut socket) = script.accept();
        assert!(!first.contains("seq="), "{first}");
        connected(&mut socket);
        socket
            .send(Message::text(
                r#"[{"type":"blob.a","seq":5,"data":{"n": 1.0}},{"type":"heartbeat","data":{"seq":9}}]"#,
            ))
            .unwrap();
        close(&mut socket, 1001, "going away");
        let (second, _, mut socket) = script.accept();
        assert!(second.ends_with("&stream=S%401&seq=9"), "{second}");
        let device = |path: &str| {
            path.split("device=")
                .nth(1)
                .unwrap()
                .split('&')
                .next()
                .map(str::to_owned)
        };
        assert_eq!(device(&first), device(&second));
        connected(&mut socket);
        socket
            .send(Message::text(r#"{"type":"blob.b","seq":10,"data":{}}"#))
            .unwrap();
        while socket.read().is_ok() {}
    });
    let ended = Rivulet::new()
        .with("RIVULET_URL", url)
        .run(&["tail", "--user", "u1", "--format", "json", "--count", "2"]);
    let stderr = ended.stderr();
    assert_eq!(
        ended.good(),
        "{\"type\":\"blob.a\",\"seq\":5,\"data\":{\"n\": 1.0}}\n{\"type\":\"blob.b\",\"seq\":10,\"data\":{}}\n"
    );
    assert!(
        stderr.contains("closed with 1001: going away; connecting again"),
        "{stderr}"
    );
    router.join().unwrap();
}

#[test]
fn tail_mints_tokens_where_it_has_the_secret_and_refreshes_them() {
    let script = Script::new();
    let url = script.url();
    let router = thread::spawn(move || {
        let (_, first, mut socket) = script.accept();
        assert_eq!(first.split('.').count(), 3, "{first}");
        // A refused token is made anew.
        close(&mut socket, 4401, "unauthorized");
        let (_, _, mut socket) = script.accept();
        connected(&mut socket);
        let expiring =
            r#"{"type":"token_expiring","data":{"expires_at":"2026-01-01T00:00:00Z","expires_in_ms":1000}}"#;
        socket.send(Message::text(expiring)).unwrap();
        let refresh: Value = serde_json::from_str(socket.read().unwrap().to_text().unwrap()).unwrap();
        assert_eq!(refresh["type"], "refresh_token");
        assert_eq!(refresh["token"].as_str().unwrap().split('.').count(), 3);
        close(&mut socket, 4403, "done");
    });
    let rivulet = Rivulet::new().with("RIVULET_JWT_SECRET", SECRET);
    rivulet.run(&["tail", "--user", "u1", "--url", &url]).bad(1);
    router.join().unwrap();
}

#[test]
fn tail_ends_where_a_token_that_it_just_made_is_refused_and_says_what_to_look_at() {
    for (secret, tries, advice) in [
        (Some(SECRET), 2, "is that the router's?"),
        (None, 1, "a router that is not in development wants a token"),
    ] {
        let script = Script::new();
        let url = script.url();
        let router = thread::spawn(move || {
            for _ in 0..tries {
                let (_, _, mut socket) = script.accept();
                close(&mut socket, 4401, "unauthorized");
            }
        });
        let mut rivulet = Rivulet::new();
        if let Some(secret) = secret {
            rivulet = rivulet.with("RIVULET_JWT_SECRET", secret);
        }
        let stderr = rivulet.run(&["tail", "--user", "u1", "--url", &url]).bad(1);
        assert!(
            stderr.contains("\nrivulet: closed with 4401") || stderr.starts_with("rivulet: closed with 4401"),
            "{stderr}"
        );
        assert!(stderr.contains(advice), "{stderr}");
        router.join().unwrap();
    }
}

#[test]
fn a_wrong_address_says_what_is_wrong_with_it() {
    let rivulet = Rivulet::new();
    for url in ["nonsense", "ws://127.0.0.1:8010"] {
        let stderr = rivulet.run(&["health", "--url", url]).bad(2);
        assert!(stderr.contains("allowed is http://host:port"), "{stderr}");
    }

    // What answers a greeting of TLS in plain words, as a router without a proxy does.
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("wss://{}", plain.local_addr().unwrap());
    let mut tail = rivulet
        .command(&["tail", "--user", "u1", "--url", &url])
        .stderr(Stdio::piped())
        .spawn()
        .map(Running)
        .unwrap();
    let (mut stream, _) = plain.accept().unwrap();
    let _ = stream.read(&mut [0; 4096]).unwrap();
    stream
        .write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        .unwrap();
    let mut first = String::new();
    let stderr = tail.0.stderr.take().unwrap();
    BufReader::new(stderr).read_line(&mut first).unwrap();
    assert!(first.contains("speaks no TLS: is it ws:// here?"), "{first}");
}

/// A program that runs until it is told to end.
struct Running(Child);

impl Running {
    /// Asks it to end as a supervisor does, and waits.
    fn end(mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        self.0.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The nats-server to test with; the tests of the bus say the same.
fn nats_server() -> String {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/bin/nats-server");
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&on_path).map(|directory| directory.join("nats-server"));
    let program = [fetched]
        .into_iter()
        .chain(found)
        .find(|program| program.is_file());
    let program = program.expect("no nats-server: `./just test` fetches one into .tools/bin");
    fs::canonicalize(program).unwrap().to_str().unwrap().to_owned()
}

/// Without a handler it would end the process at once, clients and all.
#[test]
fn a_hangup_leaves_a_router_as_it_is_and_is_answered_in_the_log() {
    let rivulet = Rivulet::new()
        .with("RIVULET_LISTEN", "127.0.0.1:0")
        .with("RIVULET_ADMIN_LISTEN", "off")
        .with("RIVULET_NATS_SERVER_BINARY", nats_server())
        .with("RIVULET_DRAIN_SPREAD", "0s");
    let mut serve = rivulet.command(&["serve", "--dev"]);
    let mut router = Running(
        serve
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut log = BufReader::new(router.0.stderr.take().unwrap()).lines();
    let mut logged = |words: &str| log.find(|line| line.as_ref().unwrap().contains(words)).is_some();
    assert!(logged("ready"));
    kill_process(Pid::from_child(&router.0), Signal::HUP).unwrap();
    assert!(logged("SIGHUP does nothing"));
    // Nobody reads it any more, and what is written must not fail.
    thread::spawn(move || log.for_each(drop));
    assert_eq!(router.end(), Some(0));
}

#[test]
fn an_event_goes_from_publish_to_tail_and_a_bad_one_to_tail_rejected() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let rivulet = Rivulet::new()
        .with("RIVULET_LISTEN", free)
        .with("RIVULET_ADMIN_LISTEN", "off")
        .with("RIVULET_NATS_SERVER_BINARY", nats_server())
        .with("RIVULET_DRAIN_SPREAD", "0s");
    let mut serve = rivulet.command(&["serve", "--dev"]);
    let router = Running(serve.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let since = Instant::now();
    while !rivulet.run(&["health"]).0.status.success() {
        assert!(
            since.elapsed() < Duration::from_secs(120),
            "the router is never ready"
        );
        thread::sleep(Duration::from_millis(50));
    }

    let watch = |arguments: &[&str]| {
        let mut command = rivulet.command(arguments);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut notices = BufReader::new(child.stderr.take().unwrap());
        let mut notice = String::new();
        notices.read_line(&mut notice).unwrap();
        assert!(
            notice.starts_with("· connected") || notice.starts_with("· watching"),
            "{notice}"
        );
        (child, notices)
    };
    let (tail, _notices) = watch(&[
        "tail", "blob.*", "--user", "u1", "--count", "1", "--format", "compact",
    ]);
    let (rejected, _more) = watch(&["tail", "--rejected", "--count", "1", "--format", "json"]);

    let publish = [
        "publish",
        "blob.deleted",
        "--user",
        "u1",
        "--id",
        "once",
        "--data",
        DELETED,
    ];
    assert_eq!(rivulet.run(&publish).good(), "RIVULET 1\n");
    assert_eq!(
        rivulet.run(&publish).good(),
        "RIVULET 1 (was there already, by its message id)\n"
    );
    let bad = [
        "publish",
        "blob.deleted",
        "--user",
        "u1",
        "--no-check",
        "--data",
        "{}",
    ];
    assert_eq!(rivulet.run(&bad).good(), "RIVULET 2\n");

    let tailed = Ended(tail.wait_with_output().unwrap()).good();
    assert!(
        tailed.starts_with("1 ") && tailed.ends_with(&format!(" blob.deleted {DELETED}\n")),
        "{tailed}"
    );
    let rejected = Ended(rejected.wait_with_output().unwrap()).good();
    let rejected: Value = serde_json::from_str(&rejected).unwrap();
    assert_eq!(
        (&rejected["rule"], &rejected["pointer"]),
        (&"schema.required".into(), &"/blob_id".into())
    );
    assert_eq!(router.end(), Some(0));
}
