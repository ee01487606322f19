//! `rivulet bench` from outside, against real routers on real nats-servers: its counts, its verdict, its refusals.

#[path = "../bus/nats.rs"]
#[allow(dead_code, reason = "the tests of the bus use all of it")]
mod nats;
mod rig;

use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
};

use jsonwebtoken::{EncodingKey, Header};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    nats::Nats,
    rig::{Bench, Fault, Faulty, Router, SECRET},
};

/// That nothing is wrong with a run, and that every event of it came to so many sessions.
#[track_caller]
fn is_whole(figures: &Value, sessions_of_each: u64) {
    assert_eq!(figures["void"], false, "{figures}");
    for count in ["lost", "doubled", "reordered", "foreign", "sessions_gone"] {
        assert_eq!(figures["checks"][count], 0, "{figures}");
    }
    let events = figures["published"]["all_events"].as_u64().unwrap();
    assert!(events >= 400, "{figures}");
    assert_eq!(
        figures["deliveries"]["all"],
        events * sessions_of_each,
        "{figures}"
    );
}

#[test]
fn every_event_comes_once_to_each_session_of_its_user() {
    let nats = Nats::start();
    let router = Router::start(&nats, &[]);
    let figures = Bench::against(&[&router], &nats)
        .and(&["--sessions-per-user", "2"])
        .figures(0);
    is_whole(&figures, 2);
    assert_eq!(figures["connects"]["sessions"], 20);
    let latency = &figures["latency_us"];
    assert!(latency["p50"].as_f64() > Some(0.0) && latency["p50"].as_f64() <= latency["max"].as_f64());
    assert!(figures["published"]["ack_us"]["p50"].as_f64() > Some(0.0));
    assert!(figures["client"]["cpu"].as_f64() > Some(0.0));
}

#[test]
fn a_table_says_the_same() {
    let nats = Nats::start();
    let router = Router::start(&nats, &[]);
    let pid = std::process::id().to_string();
    let table = Bench::against(&[&router], &nats).and(&["--pid", &pid]).table();
    for line in [
        "10 users, 400 events/s of 200 B, each to one user\n",
        "checked     nothing lost, doubled or out of order\n",
        "connects    10 in ",
        "deliveries  ",
        "latency     p50 ",
        &format!(" {pid}: "),
    ] {
        assert!(table.contains(line), "{line} is not in {table}");
    }
}

#[test]
fn events_to_everyone_come_to_all_on_all_nodes() {
    let nats = Nats::start();
    let (one, other) = (Router::start(&nats, &[]), Router::start(&nats, &[]));
    let figures = Bench::against(&[&one, &other], &nats)
        .and(&["--to", "everyone"])
        .figures(0);
    is_whole(&figures, 10);
    assert_eq!(figures["asked"]["urls"].as_array().unwrap().len(), 2);
}

#[test]
fn sessions_get_what_their_patterns_match() {
    let nats = Nats::start();
    let router = Router::start(&nats, &[]);
    let figures = Bench::against(&[&router], &nats)
        .and(&[
            "--to",
            "25%",
            "--types",
            "4",
            "--patterns",
            "blob.bench1,blob.bench3",
        ])
        .figures(0);
    assert_eq!(figures["void"], false, "{figures}");
    let events = figures["published"]["all_events"].as_u64().unwrap();
    // One in four comes to ten sessions, three in four to one; half of all types are wanted.
    let about = events as f64 * (0.25 * 10.0 + 0.75) / 2.0;
    let came = figures["deliveries"]["all"].as_f64().unwrap();
    assert!((came - about).abs() < about / 20.0, "{figures}");
}

#[test]
fn plain_clients_arrays_and_compressed_frames_are_read() {
    let nats = Nats::start();
    let router = Router::start(&nats, &[("sessions.linger", "20ms")]);
    let bench = |more: &[&str]| {
        let bench = Bench::against(&[&router], &nats);
        bench.and(&["--to", "everyone", "--size", "2000"]).and(more)
    };
    let arrays = bench(&[]).figures(0);
    is_whole(&arrays, 10);
    assert!(
        arrays["deliveries"]["arrays_percent"].as_f64() > Some(1.0),
        "{arrays}"
    );
    let plain = bench(&["--plain"]).figures(0);
    is_whole(&plain, 10);
    assert_eq!(plain["deliveries"]["arrays_percent"], 0.0);
    let compressed = bench(&["--compress"]).figures(0);
    is_whole(&compressed, 10);
    let size = |figures: &Value| figures["deliveries"]["bytes_per_delivery"].as_f64().unwrap();
    assert!(size(&compressed) < 0.8 * size(&arrays), "{compressed}");
}

#[test]
fn dropped_connections_resume_and_nothing_is_lost() {
    let nats = Nats::start();
    let router = Router::start(&nats, &[]);
    for kind in [&[][..], &["--plain"]] {
        let figures = Bench::against(&[&router], &nats)
            .and(&["--reconnect", "20", "--duration", "2s"])
            .and(kind)
            .figures(0);
        is_whole(&figures, 1);
        assert!(figures["resumes"]["dropped"].as_u64() > Some(20), "{figures}");
    }
}

#[test]
fn a_position_goes_from_node_to_node() {
    let nats = Nats::start();
    let (one, other) = (Router::start(&nats, &[]), Router::start(&nats, &[]));
    let figures = Bench::against(&[&one, &other], &nats)
        .and(&["--reconnect", "20", "--duration", "2s", "--to", "10%"])
        .figures(0);
    assert_eq!(figures["void"], false, "{figures}");
    assert!(figures["resumes"]["resumed"].as_u64() > Some(20), "{figures}");
}

#[test]
fn without_a_stream_events_go_by_core_nats() {
    let nats = Nats::with("");
    let router = Router::start(&nats, &[]);
    let figures = Bench::against(&[&router], &nats).figures(0);
    is_whole(&figures, 1);
    assert_eq!(figures["published"]["ack_us"], Value::Null);
    let notes = figures["notes"].as_array().unwrap();
    assert!(
        notes
            .iter()
            .any(|note| note.as_str().unwrap().contains("core NATS")),
        "{figures}"
    );
    let refusal = Bench::against(&[&router], &nats)
        .and(&["--reconnect", "1"])
        .refusal(2);
    assert!(refusal.contains("no position to resume from"), "{refusal}");
    // And where there is one, on demand.
    let nats = Nats::start();
    let router = Router::start(&nats, &[]);
    is_whole(&Bench::against(&[&router], &nats).and(&["--core"]).figures(0), 1);
}

/// That one counter alone is not zero, and that the run counts for nothing.
#[track_caller]
fn is_void_by(fault: Fault, counter: &str, words: &str) {
    let nats = Nats::start();
    let router = Router::start_through(&nats, &[], Faulty::before(fault));
    // What is one user's alone, its neighbours in the stream are not.
    let to = if matches!(fault, Fault::Leak) {
        "user"
    } else {
        "everyone"
    };
    let figures = Bench::against(&[&router], &nats).and(&["--to", to]).figures(1);
    assert_eq!(figures["void"], true);
    for other in ["lost", "doubled", "reordered", "foreign"] {
        let count = figures["checks"][other].as_u64().unwrap();
        // An event that is to change places with the one after the last never comes, to ten sessions.
        let excused = if matches!(fault, Fault::Swap) && other == "lost" {
            10
        } else {
            0
        };
        assert_eq!(count > excused, other == counter, "{other} {figures}");
    }
    let first = figures["checks"]["first"].as_str().unwrap();
    assert!(first.starts_with("event ") && first.ends_with(words), "{first}");
    let refusal = Bench::against(&[&router], &nats).and(&["--to", to]).refusal(1);
    assert!(refusal.starts_with("rivulet: the run is void: "), "{refusal}");
}

#[test]
fn a_router_that_leaves_events_out_makes_a_run_void() {
    is_void_by(Fault::Drop, "lost", "never came");
}

#[test]
fn a_router_that_swaps_events_makes_a_run_void() {
    is_void_by(Fault::Swap, "reordered", "came behind a later one");
}

#[test]
fn a_router_that_brings_events_twice_makes_a_run_void() {
    is_void_by(Fault::Double, "doubled", "came twice");
}

#[test]
fn a_router_that_gives_events_to_others_makes_a_run_void() {
    is_void_by(Fault::Leak, "foreign", "came, and was not due");
}

#[test]
fn a_slow_router_is_waited_for_and_told_of() {
    let nats = Nats::start();
    let router = Router::start_through(&nats, &[], Faulty::before(Fault::Slow));
    let figures = Bench::against(&[&router], &nats).figures(0);
    is_whole(&figures, 1);
    // That deliveries came late, and not that any session was given up on. A busy machine has more to note.
    let notes = figures["notes"].as_array().unwrap();
    let late = |note: &Value| note.as_str().unwrap().contains("deliveries came only when");
    assert!(notes.iter().any(late), "{figures}");
    assert_eq!(figures["ends"], json!({}), "{figures}");
}

#[test]
fn a_refused_token_is_told_in_the_routers_words() {
    let nats = Nats::start();
    let router = Router::start(&nats, &[]);
    let without = Bench::against(&[&router], &nats).without_secret();
    for bench in [
        without,
        Bench::against(&[&router], &nats).with_secret("another secret, of 32 bytes or so"),
        Bench::against(&[&router], &nats)
            .with_secret("another secret, of 32 bytes or so")
            .and(&["--plain"]),
    ] {
        let refusal = bench.refusal(1);
        assert!(
            refusal.contains("401") && refusal.contains("UNAUTHORIZED: "),
            "{refusal}"
        );
        assert!(refusal.contains("--tokens"), "{refusal}");
    }
}

/// A token that may see `events` alone.
fn token(user: &str, events: &[&str]) -> String {
    let claims = json!({ "sub": user, "exp": 4_000_000_000_u64, "rivulet": { "events": events } });
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap()
}

#[test]
fn tokens_may_come_from_a_file() {
    let nats = Nats::start();
    let router = Router::start(&nats, &[]);
    let bench = || {
        let bench = Bench::of(&["--nats-url", &nats.url(), "--url", &router.url]);
        bench.and(&[
            "--rate",
            "400",
            "--duration",
            "1s",
            "--warm-up",
            "100ms",
            "--tokens",
            "tokens",
        ])
    };
    let good = bench();
    good.file(
        "tokens",
        &format!("{}\n{}\n", token("ada", &["*"]), token("b.o b", &["*"])),
    );
    let figures = good.figures(0);
    is_whole(&figures, 1);
    assert_eq!(figures["asked"]["users"], 2);

    let forbidden = bench().and(&["--patterns", "blob.*"]);
    forbidden.file("tokens", &token("ada", &["book.*"]));
    let refusal = forbidden.refusal(1);
    assert!(
        refusal.contains("FORBIDDEN: ") && refusal.contains("events[0]"),
        "{refusal}"
    );
    assert!(bench().refusal(1).contains("--tokens tokens"));
}

#[test]
fn nobody_there_is_told_at_once() {
    let nats = Nats::start();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("ws://{free}");
    let refusal = Bench::of(&["--nats-url", &nats.url(), "--url", &url]).refusal(1);
    assert!(refusal.contains(&url), "{refusal}");
    let router = Router::start(&nats, &[]);
    let away = Bench::of(&["--nats-url", &format!("nats://{free}"), "--url", &router.url]).refusal(1);
    assert!(away.contains("NATS has not answered"), "{away}");
}

#[test]
fn another_nats_than_the_routers_is_found_out() {
    let (nats, other) = (Nats::start(), Nats::start());
    let router = Router::start(&nats, &[]);
    let refusal = Bench::against(&[&router], &other).refusal(1);
    assert!(
        refusal.contains("is that router's NATS the one published to"),
        "{refusal}"
    );
}

#[test]
fn who_may_not_publish_is_told_what_nats_says() {
    let nats = Nats::with(
        r#"authorization { users: [
            { user: router, password: r }
            { user: bench, password: b, permissions: { publish: { deny: "blob.>" } } }
        ] }
        jetstream { store_dir: "STORE" }"#,
    );
    let router = Router::start(&nats, &[("nats.user", "router"), ("nats.password", "r")]);
    let refusal = Bench::against(&[&router], &nats)
        .and(&["--set=nats.user=bench", "--set=nats.password=b"])
        .refusal(1);
    assert!(refusal.contains("does not permit"), "{refusal}");
}

#[test]
fn limits_of_the_router_are_named() {
    let nats = Nats::start();
    let router = Router::start(&nats, &[("limits.connections_per_address", "4")]);
    let refusal = Bench::against(&[&router], &nats).refusal(1);
    assert!(refusal.contains("4 of 10 sessions stand"), "{refusal}");
    assert!(refusal.contains("`limits.connections_per_address`"), "{refusal}");
}

#[test]
fn more_sessions_than_files_are_refused_with_the_number() {
    let mut bench = Bench::of(&["--users", "500"]);
    bench.open_files = Some(300);
    let refusal = bench.refusal(1);
    assert!(refusal.contains("`ulimit -n 564`"), "{refusal}");
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    for arguments in [
        &["--rate", "0"][..],
        &["--users", "0"],
        &["--size", "10"],
        &["--to", "101%"],
        &["--to", "nobody"],
        &["--ramp", "-1"],
        &["--duration", "0s"],
        &["--duration", "8d"],
        &["--patterns", "blob..x"],
        &["--patterns", "book.*"],
        &["--type", "error"],
        &["--url", "nats://a"],
        &["--pid", "4294967295"],
        &["--core", "--in-flight", "3"],
    ] {
        Bench::of(arguments).refusal(2);
    }
    // What no source takes, or is too large for all.
    for (arguments, why) in [
        (["--type", "acme.x"], "no source names this subject"),
        (["--size", "300000"], "too_large"),
    ] {
        let nats = Nats::start();
        let refusal = Bench::of(&["--nats-url", &nats.url()]).and(&arguments).refusal(1);
        assert!(refusal.contains(why), "{refusal}");
    }
}

#[test]
fn ctrl_c_ends_a_run_early_with_what_was_measured() {
    let nats = Nats::start();
    let router = Router::start(&nats, &[]);
    let bench = Bench::against(&[&router], &nats).and(&["--duration", "10m", "--json"]);
    let mut child = bench.spawn();
    let told = BufReader::new(child.stderr.take().unwrap());
    let mut lines = told.lines().map(Result::unwrap);
    lines
        .find(|line| line.contains("measuring"))
        .expect("it measures");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    // Read to its end, so that it can write.
    lines.for_each(drop);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&figures["ended_early"], &figures["void"]),
        (&true.into(), &false.into())
    );
    assert_eq!(figures["deliveries"]["all"], figures["published"]["all_events"]);
}
