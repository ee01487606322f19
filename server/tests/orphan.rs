//! A router that is killed leaves no nats-server behind.
//!
//! This program is its own router: under the name `rivulet`, as the bus looks for, and with the router's hidden
//! subcommand. So it has no test harness.

#[allow(dead_code, reason = "shared with the tests of the bus")]
#[path = "bus/nats.rs"]
mod nats;
#[allow(dead_code, reason = "shared with the tests of the bus")]
#[path = "bus/rig.rs"]
mod rig;

use std::{
    ffi::OsString,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rivulet_router::bus::local_server::{SUBCOMMAND, become_server, read_credentials};

fn main() {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match arguments.first().and_then(|first| first.to_str()) {
        Some(SUBCOMMAND) => {
            let parent = arguments[1].to_str().unwrap().parse().unwrap();
            panic!(
                "{}",
                become_server(parent, Path::new(&arguments[2]), &arguments[3..])
            );
        }
        Some("be-a-router") => be_a_router(Path::new(&arguments[1])),
        _ => a_killed_router_leaves_no_nats_server(),
    }
}

#[tokio::main]
async fn be_a_router(data_dir: &Path) {
    let rig = rig::Rig::open(&rig::config(&[], data_dir)).await;
    rig.until("current", |state| state.current).await;
    #[allow(clippy::print_stdout, reason = "it is awaited")]
    {
        println!("ready");
    }
    std::future::pending::<()>().await;
}

fn a_killed_router_leaves_no_nats_server() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("rivulet");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let data_dir = directory.path().join("data");
    // Twice: what the first leaves behind must not be in the second's way.
    for _ in 0..2 {
        let mut router = Command::new(&program)
            .arg("be-a-router")
            .arg(&data_dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(router.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "ready\n");
        let url = read_credentials(&data_dir).unwrap().url;
        let address = url.strip_prefix("nats://").unwrap();
        assert!(std::net::TcpStream::connect(address).is_ok());
        router.kill().unwrap();
        router.wait().unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(address).is_ok() {
            assert!(Instant::now() < until, "the nats-server outlives its router");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
