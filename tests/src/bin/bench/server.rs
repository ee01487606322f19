//! A server that is measured, in a process of its own.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::client::Grant;

/// A running server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    /// Beside the server's own: what the kernel did for it is in neither.
    name: String,
}

/// Processor time of a process with all its threads.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    pub(crate) user: Duration,
    pub(crate) kernel: Duration,
}

impl Cpu {
    pub(crate) fn total(self) -> Duration {
        self.user + self.kernel
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            user: self.user.saturating_sub(before.user),
            kernel: self.kernel.saturating_sub(before.kernel),
        }
    }
}

/// How a server is started.
pub(crate) struct Start<'a> {
    pub(crate) program: &'a Path,
    pub(crate) arguments: &'a [String],
    pub(crate) environment: &'a [(&'a str, String)],
    /// Only on the first so many processors.
    pub(crate) cores: Option<usize>,
}

impl Server {
    /// Starts one. It ends with its standard input, which is a pipe.
    pub(crate) fn start(start: &Start<'_>) -> anyhow::Result<Self> {
        let mut command = match start.cores {
            None => Command::new(start.program),
            Some(cores) => {
                let mut command = Command::new("taskset");
                command
                    .arg("--cpu-list")
                    .arg(format!("0-{}", cores - 1))
                    .arg(start.program);
                command
            }
        };
        let child = command
            .args(start.arguments)
            .envs(start.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| {
                format!(
                    "can't start {}: build it in the same profile first",
                    start.program.display()
                )
            })?;
        Ok(Self {
            child,
            name: start.program.display().to_string(),
        })
    }

    /// Reads the address that it says in its first line.
    pub(crate) fn address(&mut self) -> anyhow::Result<SocketAddr> {
        let mut line = String::new();
        let output = self.child.stdout.take().context("its output was read")?;
        BufReader::new(output).read_line(&mut line)?;
        line.trim()
            .parse()
            .with_context(|| format!("{} says `{}`, no address", self.name, line.trim()))
    }

    /// Tells how many events it may have sent in all, whenever it is called.
    pub(crate) fn grants(&mut self) -> anyhow::Result<Grant> {
        let input: ChildStdin = self.child.stdin.take().context("its input is taken")?;
        let input = Mutex::new(input);
        Ok(Arc::new(move |granted| {
            let mut input = input.lock().expect("nobody panics with it");
            // A server that has gone shows in what its clients lack.
            let _ = writeln!(input, "{granted}");
        }))
    }

    /// The processor time that it has taken.
    pub(crate) fn cpu(&self) -> anyhow::Result<Cpu> {
        cpu(self.child.id())
    }

    /// Resident memory in bytes once it no longer moves. Memory of sockets is the kernel's and not in it.
    pub(crate) fn settled_memory(&self) -> anyhow::Result<u64> {
        let limit = Instant::now() + Duration::from_secs(10);
        let mut last = resident(self.child.id())?;
        loop {
            std::thread::sleep(Duration::from_millis(500));
            let now = resident(self.child.id())?;
            if now.abs_diff(last) < 64 << 10 || Instant::now() > limit {
                return Ok(now);
            }
            last = now;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The kernel divides the exact time between user and kernel by what it saw at each tick (4 ms here), and tells
/// both in hundredths of a second: the sum is good to 20 ms, the parts to a few per cent of some seconds.
pub(crate) fn cpu(process: u32) -> anyhow::Result<Cpu> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).context("the server has gone")?;
    // proc(5): the name may hold spaces, so count from behind it; utime and stime are fields 14 and 15.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let time = |field: &str| -> anyhow::Result<Duration> {
        Ok(Duration::from_secs_f64(
            field.parse::<u64>()? as f64 / rustix::param::clock_ticks_per_second() as f64,
        ))
    };
    Ok(Cpu {
        user: time(fields[11])?,
        kernel: time(fields[12])?,
    })
}

/// Anonymous memory that is there: what the process holds for itself, without the program's own pages.
fn resident(process: u32) -> anyhow::Result<u64> {
    let rollup =
        std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")).context("the server has gone")?;
    let kilobytes: u64 = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Anonymous:"))
        .context("smaps_rollup has no Anonymous")?
        .trim()
        .trim_end_matches(" kB")
        .parse()?;
    Ok(kilobytes << 10)
}

/// A port that was free a moment ago, for servers that can't say which they took.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
