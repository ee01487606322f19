//! A server that is measured, in a process of its own.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::Mutex,
    time::Duration,
};

use anyhow::Context as _;

/// A running server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    output: Mutex<BufReader<ChildStdout>>,
}

impl Server {
    pub(crate) fn start(program: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut child = Command::new(program)
            .args(arguments)
            .env("RIVULET_LOG_FILTER", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| {
                format!(
                    "can't start {}: build it in the same profile first",
                    program.display()
                )
            })?;
        let output = Mutex::new(BufReader::new(child.stdout.take().expect("it is piped")));
        Ok(Self { child, output })
    }

    /// What it says first.
    pub(crate) fn first_line(&self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.output
            .lock()
            .expect("nobody panics with it")
            .read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    /// The processor time that it has taken, its threads and the kernel's work for it included.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // proc(5): the name may hold spaces, so count from behind it; utime and stime are fields 14 and 15.
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        Ok(Duration::from_secs_f64(
            ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
        ))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
