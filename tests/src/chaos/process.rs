//! A process that can be killed, frozen, asked to end, and started again.

use std::{
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

/// A process and how it is started; killed when dropped.
#[derive(Debug)]
pub struct Process {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
    frozen: bool,
}

impl Process {
    /// How it will be started; its output goes to the end of `log`.
    pub fn new(
        program: &Path,
        arguments: Vec<String>,
        environment: Vec<(String, String)>,
        log: PathBuf,
    ) -> Self {
        Self {
            program: program.to_owned(),
            arguments,
            environment,
            log,
            child: None,
            frozen: false,
        }
    }

    /// Starts it.
    ///
    /// # Errors
    /// If there is no such program.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let child = Command::new(&self.program)
            .args(&self.arguments)
            // It names the rig's own server, and a router takes it for a key that it has not.
            .env_remove("RIVULET_NATS_SERVER")
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(File::try_clone(&log)?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("can't start {}: build it first", self.program.display()))?;
        self.child = Some(child);
        self.frozen = false;
        Ok(())
    }

    /// Whether it runs: started, not ended, not frozen.
    pub fn runs(&mut self) -> bool {
        !self.frozen && self.lives()
    }

    /// Whether it was started and has not ended.
    pub fn lives(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.frozen = false;
    }

    /// Stops it in its tracks (SIGSTOP): its sockets stay open and nothing answers.
    pub fn freeze(&mut self) {
        self.signal(Signal::STOP);
        self.frozen = true;
    }

    /// Lets it go on (SIGCONT).
    pub fn thaw(&mut self) {
        self.signal(Signal::CONT);
        self.frozen = false;
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&mut self) {
        self.signal(Signal::TERM);
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// If it has not within `patience`.
    pub async fn ended(&mut self, patience: Duration) -> anyhow::Result<ExitStatus> {
        let until = Instant::now() + patience;
        let child = self.child.as_mut().context("it was not started")?;
        loop {
            if let Some(status) = child.try_wait()? {
                self.child = None;
                return Ok(status);
            }
            if Instant::now() > until {
                bail!("{} did not end in {patience:?}", self.program.display());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The processor time that it has taken so far.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let (user, kernel) = self.cpu_parts()?;
        Ok(user + kernel)
    }

    /// The same, as its own part and the kernel's.
    ///
    /// # Errors
    /// If it was not started.
    pub fn cpu_parts(&self) -> anyhow::Result<(Duration, Duration)> {
        let child = self.child.as_ref().context("it was not started")?;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id()))?;
        // proc(5): the name may hold spaces, so count from behind it; utime and stime are fields 14 and 15.
        let behind = stat.rsplit(')').next().unwrap_or_default();
        let fields: Vec<&str> = behind.split_whitespace().collect();
        let time = |ticks: u64| {
            Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
        };
        Ok((time(fields[11].parse()?), time(fields[12].parse()?)))
    }

    /// The memory that it holds, in bytes.
    pub fn memory(&self) -> anyhow::Result<u64> {
        let child = self.child.as_ref().context("it was not started")?;
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", child.id()))?;
        let pages: u64 = statm.split_whitespace().nth(1).context("statm")?.parse()?;
        Ok(pages * rustix::param::page_size() as u64)
    }

    /// The most memory that it ever held, in bytes (proc(5): `VmHWM`).
    pub fn peak_memory(&self) -> anyhow::Result<u64> {
        let child = self.child.as_ref().context("it was not started")?;
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|peak| peak.trim().strip_suffix(" kB"));
        Ok(peak.context("VmHWM")?.parse::<u64>()? * 1024)
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> anyhow::Result<usize> {
        let child = self.child.as_ref().context("it was not started")?;
        Ok(std::fs::read_dir(format!("/proc/{}/fd", child.id()))?.count())
    }

    /// The end of what it wrote.
    pub fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            // It may have ended by itself: whoever waits for it will see.
            let _ = kill_process(Pid::from_child(child), signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
