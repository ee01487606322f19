//! The chaos rig, bounded: it must be green where nothing is wrong, and red for each fault that is planted. `just
//! chaos` runs it at length.

use std::process::Command;

use serde_json::Value;

/// Runs a scenario on the library that these tests are linked with. Says how it ended and what it counted.
#[expect(clippy::print_stdout, reason = "shown by the test runner where a test fails")]
fn chaos(scenario: &str, plant: &str, arguments: &[&str]) -> (Option<i32>, Value) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("figures");
    let output = Command::new(env!("CARGO_BIN_EXE_chaos"))
        .args([
            "--scenario",
            scenario,
            "--plant",
            plant,
            "--untimed",
            "--quiet",
            "--json",
        ])
        .arg(&file)
        .args(arguments)
        .output()
        .unwrap();
    let (lines, faults) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    println!("{lines}{faults}");
    let figures = std::fs::read_to_string(&file).unwrap_or_default();
    (
        output.status.code(),
        serde_json::from_str(&figures).unwrap_or_default(),
    )
}

/// That one counter alone is not zero.
#[track_caller]
fn is_red_by(feed: &str, plant: &str, counter: &str) {
    let (code, figures) = chaos("calm", plant, &["--clients", "40", "--feed", feed]);
    assert_eq!(code, Some(1), "{figures}");
    for other in ["lost", "twice", "reordered", "foreign", "gaps"] {
        let count = figures[other].as_u64().unwrap();
        assert_eq!(count > 0, other == counter, "{other} {figures}");
    }
}

#[test]
fn is_green_where_nothing_is_wrong() {
    let (code, figures) = chaos("calm", "none", &["--clients", "40"]);
    assert_eq!(code, Some(0), "{figures}");
    assert!(figures["delivered"].as_u64() > Some(1_000), "{figures}");
}

#[test]
fn is_red_by_an_event_left_out() {
    is_red_by("whole", "drop:100", "lost");
}

#[test]
fn is_red_by_two_events_swapped() {
    is_red_by("whole", "swap:100", "reordered");
}

#[test]
fn is_red_by_an_event_for_somebody_else() {
    is_red_by("whole", "leak:100", "foreign");
}

#[test]
fn is_red_by_an_event_left_out_of_a_feed_by_user() {
    is_red_by("by_user", "drop:100", "lost");
}

#[test]
fn is_red_by_two_events_swapped_in_a_feed_by_user() {
    is_red_by("by_user", "swap:100", "reordered");
}

#[test]
fn is_red_by_an_event_for_somebody_else_in_a_feed_by_user() {
    is_red_by("by_user", "leak:100", "foreign");
}

/// That a scenario of this size costs nothing.
#[track_caller]
fn is_green(scenario: &str, arguments: &[&str]) {
    let (code, figures) = chaos(scenario, "none", arguments);
    assert_eq!(code, Some(0), "{figures}");
}

#[test]
fn a_killed_nats_server_costs_nothing() {
    is_green("r1", &["--faults", "2", "--clients", "60"]);
}

#[test]
fn a_frozen_nats_server_that_leads_the_stream_costs_nothing() {
    is_green("r2", &["--faults", "1", "--clients", "60"]);
}

#[test]
fn a_killed_node_costs_nothing() {
    is_green("r3", &["--faults", "3", "--clients", "60"]);
}

#[test]
fn a_frozen_node_costs_nothing() {
    is_green("freeze", &["--faults", "1", "--clients", "60"]);
}

#[test]
fn a_rolling_restart_costs_nothing() {
    is_green("r4", &["--faults", "3", "--clients", "60"]);
}

#[test]
fn a_cut_at_any_byte_costs_nothing() {
    is_green("cuts", &["--faults", "200", "--clients", "60"]);
}

#[test]
fn nodes_cut_off_from_nats_cost_nothing() {
    is_green("links", &["--faults", "6", "--clients", "60"]);
}

#[test]
fn what_is_out_of_reach_is_told() {
    is_green("r8", &[]);
}

#[test]
fn all_clients_at_once_cost_nothing() {
    is_green("r11", &["--faults", "2", "--clients", "500"]);
}

#[test]
fn a_hundred_thousand_connections_leave_nothing_behind() {
    is_green("r13", &["--faults", "100000"]);
}

#[test]
fn strangers_are_put_out_and_cost_nobody_anything() {
    is_green("h1", &["--faults", "3000"]);
}

#[test]
fn poison_in_the_stream_costs_its_own_event_alone() {
    is_green("p1", &["--faults", "4", "--clients", "60"]);
}

#[test]
fn nodes_by_user_cut_off_from_nats_cost_nothing() {
    is_green(
        "links",
        &["--feed", "by_user", "--faults", "6", "--clients", "60"],
    );
}

/// Two of the four index the stream for all; whoever dies, it goes on.
#[test]
fn killed_nodes_by_user_cost_nothing() {
    let arguments = [
        "--feed",
        "by_user",
        "--nodes",
        "4",
        "--faults",
        "4",
        "--clients",
        "60",
    ];
    is_green("r3", &arguments);
}
