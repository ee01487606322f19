//! What processes cost: this one, and routers that run on this machine.

use std::{fs, time::Duration};

use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    time::{ClockId, clock_gettime},
};

/// Descriptors beside the sessions': NATS, timers, standard streams, and those that a thread's runtime opens.
const BESIDE: u64 = 64;

/// The CPU time of this process so far.
pub(super) fn of_this_process() -> Duration {
    cpu(ClockId::ProcessCPUTime)
}

/// The CPU time of the calling thread so far.
pub(super) fn of_this_thread() -> Duration {
    cpu(ClockId::ThreadCPUTime)
}

fn cpu(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}

/// Makes room for so many sockets, as far as the system lets a process.
///
/// # Errors
/// What has to be raised, and to what.
pub(super) fn make_room(sessions: u64) -> Result<(), String> {
    let needed = sessions + BESIDE;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let wanted = Rlimit {
        current: Some(needed),
        maximum,
    };
    let permitted = maximum.is_none_or(|maximum| maximum >= needed);
    if permitted && setrlimit(Resource::Nofile, wanted).is_ok() {
        return Ok(());
    }
    let may = maximum.or(current).unwrap_or_default();
    Err(format!(
        "{sessions} sessions need {needed} open files, and this process may have {may}: raise the limit with \
         `ulimit -n {needed}` (its hard limit as root, or in /etc/security/limits.conf)"
    ))
}

/// A process on this machine, by its number.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) name: String,
}

/// What it has taken.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    pub(super) cpu: Duration,
    pub(super) resident_bytes: u64,
}

impl Process {
    /// # Errors
    /// If there is no such process, or the system doesn't say.
    pub(super) fn find(pid: u32) -> Result<Self, String> {
        let read = fs::read_to_string(format!("/proc/{pid}/comm"));
        let name = read.map_err(|_| {
            format!("--pid {pid}: no such process here (what a process takes is read from Linux's /proc)")
        })?;
        let process = Self {
            pid,
            name: name.trim().to_owned(),
        };
        match process.taken() {
            Some(_) => Ok(process),
            None => Err(format!("--pid {pid}: what it takes can't be read")),
        }
    }

    /// What it has taken so far; `None` when it is gone.
    pub(super) fn taken(&self) -> Option<Taken> {
        let pid = self.pid;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Behind the name, which may hold anything, the 12th and 13th field are ticks in user and kernel (proc(5)).
        let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kibibytes: u64 = resident.split_whitespace().next()?.parse().ok()?;
        Some(Taken {
            cpu: Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64),
            resident_bytes: kibibytes * 1024,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_is_spent_is_seen() {
        let (process, thread) = (of_this_process(), of_this_thread());
        let mut number = 1u64;
        while of_this_thread() == thread {
            number = number.wrapping_mul(31);
        }
        assert!(of_this_process() > process && number != 0);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_is_found_by_its_number() {
        let this = Process::find(std::process::id()).unwrap();
        assert!(this.taken().unwrap().resident_bytes > 100_000);
        assert!(Process::find(u32::MAX).unwrap_err().contains("no such process"));
    }

    #[test]
    fn more_sessions_than_the_system_permits_are_refused_with_the_number() {
        assert_eq!(make_room(1), Ok(()));
        if getrlimit(Resource::Nofile).maximum.is_some() {
            let why = make_room(u64::from(u32::MAX)).unwrap_err();
            assert!(why.contains("`ulimit -n 4294967359`"), "{why}");
        }
    }
}
