//! The nats-server that a router starts where it is given none: on loopback, with JetStream, for itself and for
//! what runs beside it.
//!
//! It lives in `<data_dir>/nats`: its configuration, its log, its store, its lock. Its URL and credentials stand
//! in `<data_dir>/nats.json`, for the owner's eyes only, and stay the same from one start to the next, so that
//! clients find it again.
//!
//! The lock is held through a descriptor that the nats-server inherits as its standard input: whichever of the
//! two lives longer keeps a second pair off the store.

use std::{
    convert::Infallible,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::{
        fs::{DirBuilderExt, OpenOptionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::FlockOperation,
    process::{Pid, Signal, kill_process},
};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::BusError;
use crate::config::Secret;

/// The name of the router's hidden subcommand that becomes a nats-server: see [`become_server`].
pub const SUBCOMMAND: &str = "supervised-nats";
/// Where the credentials stand in the data directory.
const CREDENTIALS_FILE: &str = "nats.json";
/// The user that they name.
const USER: &str = "rivulet";
/// How long a nats-server may take to open its port; recovering a large store takes a while.
const START: Duration = Duration::from_secs(60);
/// How long it may take to end, its store flushed, before it is killed.
const STOP: Duration = Duration::from_secs(10);
/// How long a lock is waited for: the nats-server of a router that was killed may be ending.
const LOCK: Duration = Duration::from_secs(3);
/// How often the child is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// The longest pause before a nats-server that keeps dying is started again.
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// How to reach a local nats-server.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// `nats://127.0.0.1:<port>`.
    pub url: String,
    /// The user.
    pub user: String,
    /// The password.
    pub password: Secret,
}

#[derive(Serialize, Deserialize)]
struct CredentialsFile {
    url: String,
    user: String,
    password: String,
}

/// Reads where the nats-server of this data directory is, and how to log in.
///
/// # Errors
/// If no router has started one there, or the file is not ours to read.
pub fn read_credentials(data_dir: &Path) -> Result<Credentials, BusError> {
    let path = data_dir.join(CREDENTIALS_FILE);
    let failed = |fault: String| BusError::NoLocalServer {
        path: path.clone(),
        fault,
    };
    let text = fs::read_to_string(&path).map_err(|fault| failed(fault.to_string()))?;
    let CredentialsFile { url, user, password } =
        serde_json::from_str(&text).map_err(|fault| failed(fault.to_string()))?;
    Ok(Credentials {
        url,
        user,
        password: Secret(password),
    })
}

/// Becomes a nats-server that ends with its parent: asks the kernel for SIGTERM when the parent dies, then
/// executes the program with its arguments. Returns only if that fails.
///
/// A process of its own does this because it can only be asked for oneself, and doing it between `fork` and
/// `exec` would be `unsafe`.
pub fn become_server(parent: u32, program: &Path, arguments: &[std::ffi::OsString]) -> io::Error {
    #[cfg(target_os = "linux")]
    {
        if let Err(fault) = rustix::process::set_parent_process_death_signal(Some(Signal::TERM)) {
            return fault.into();
        }
        // It may have died before the kernel was asked.
        let living = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
        if living != Some(parent) {
            return io::Error::other("the router is gone");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = parent;
    Command::new(program).args(arguments).exec()
}

/// A running nats-server and the thread that watches it. Dropped, it ends.
#[derive(Debug)]
pub(super) struct LocalServer {
    credentials: Credentials,
    /// Nothing is ever sent: dropped, it says "stop" for good, to whichever step of the thread looks next.
    running: mpsc::Sender<Infallible>,
    ended: oneshot::Receiver<()>,
}

impl LocalServer {
    /// Starts it and waits until it takes connections.
    ///
    /// # Errors
    /// If there is no program, another router has the directory, or the program fails.
    pub(super) async fn start(data_dir: &Path, binary: Option<&Path>) -> Result<Self, BusError> {
        let program = find(binary)?;
        let home = Home::open(data_dir).await?;
        let (started, ready) = oneshot::channel();
        let (running, stopped) = mpsc::channel();
        let (end, ended) = oneshot::channel();
        // A thread for as long as the child: the kernel sends the parent-death signal when the *thread* that
        // started the child ends, and the runtime's threads come and go.
        thread::Builder::new()
            .name("nats-server".to_owned())
            .spawn(move || {
                supervise(&home, &program, &stopped, started);
                let _ = end.send(());
            })
            .map_err(|fault| BusError::LocalServer(fault.to_string()))?;
        let credentials = ready
            .await
            .unwrap_or_else(|_| Err(BusError::LocalServer("its thread ended".to_owned())))?;
        Ok(Self {
            credentials,
            running,
            ended,
        })
    }

    /// How to reach it.
    pub(super) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Waits until nobody looks after it any more, though it was not to end.
    pub(super) async fn lost(&mut self) {
        let _ = (&mut self.ended).await;
    }

    /// Ends it, and waits for that.
    pub(super) async fn end(self) {
        drop(self.running);
        if !self.ended.is_terminated() {
            let _ = self.ended.await;
        }
    }
}

/// Looks for a nats-server: where we are told, on `PATH`, in `.tools/bin` below here, or below a directory
/// above the router's own program (a checkout has it in `target/…`).
fn find(told: Option<&Path>) -> Result<PathBuf, BusError> {
    const NAME: &str = "nats-server";
    if let Some(path) = told {
        return if path.is_file() {
            Ok(path.to_owned())
        } else {
            Err(BusError::NoProgram(format!("`{}` is not a file", path.display())))
        };
    }
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let own = std::env::current_exe().unwrap_or_default();
    let tools = own
        .ancestors()
        .take(5)
        .chain([Path::new("."), Path::new("..")])
        .map(|directory| directory.join(".tools/bin"));
    std::env::split_paths(&on_path)
        .chain(tools)
        .map(|directory| directory.join(NAME))
        .find(|path| path.is_file())
        .ok_or_else(|| BusError::NoProgram("there is none on PATH and none in .tools/bin".to_owned()))
}

/// The directory of a local nats-server, locked.
struct Home {
    data_dir: PathBuf,
    directory: PathBuf,
    lock: File,
    password: String,
    /// The port of the last time, which is used again if it is free.
    port: Option<u16>,
}

impl Home {
    async fn open(data_dir: &Path) -> Result<Self, BusError> {
        let directory = data_dir.join("nats");
        let failed = |path: &Path, fault: io::Error| BusError::File {
            path: path.to_owned(),
            fault: format!("{fault}; the nats-server's files stand there, as `data_dir` says"),
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(|fault| failed(&directory, fault))?;
        // nats-server is told absolute paths: it reads relative ones as relative to its own directory.
        let directory = directory
            .canonicalize()
            .map_err(|fault| failed(&directory, fault))?;
        let path = directory.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|fault| failed(&path, fault))?;
        let until = Instant::now() + LOCK;
        while rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            if Instant::now() >= until {
                return Err(BusError::Locked(data_dir.to_owned()));
            }
            tokio::time::sleep(LOOK).await;
        }
        let before = read_credentials(data_dir).ok();
        let port = before.as_ref().and_then(|before| {
            let port = before.url.rsplit_once(':')?.1.parse().ok()?;
            std::net::TcpListener::bind(("127.0.0.1", port)).ok()?;
            Some(port)
        });
        let password = before.map_or_else(random_password, |before| before.password.0);
        Ok(Self {
            data_dir: data_dir.to_owned(),
            directory,
            lock,
            password,
            port,
        })
    }

    fn log(&self) -> PathBuf {
        self.directory.join("nats-server.log")
    }

    fn ports(&self) -> PathBuf {
        self.directory.join("ports")
    }

    /// Writes the server's configuration. Port -1 is "any that is free".
    fn configure(&self, port: Option<u16>) -> io::Result<PathBuf> {
        let path = self.directory.join("nats-server.conf");
        let port = port.map_or(-1, i32::from);
        let quoted = |path: &Path| serde_json::json!(path.to_string_lossy()).to_string();
        write_private(
            &path,
            &format!(
                "# Written by rivulet at each start.\n\
                 listen: \"127.0.0.1:{port}\"\n\
                 server_name: \"rivulet-local\"\n\
                 ports_file_dir: {}\n\
                 log_file: {}\n\
                 logfile_size_limit: 10MB\n\
                 logfile_max_num: 3\n\
                 jetstream {{ store_dir: {} }}\n\
                 authorization {{ user: \"{USER}\", password: \"{}\" }}\n",
                quoted(&self.ports()),
                quoted(&self.log()),
                quoted(&self.directory.join("store")),
                self.password,
            ),
        )?;
        Ok(path)
    }

    fn credentials(&self, port: u16) -> Credentials {
        Credentials {
            url: format!("nats://127.0.0.1:{port}"),
            user: USER.to_owned(),
            password: Secret(self.password.clone()),
        }
    }

    fn write_credentials(&self, credentials: &Credentials) -> io::Result<()> {
        let file = CredentialsFile {
            url: credentials.url.clone(),
            user: credentials.user.clone(),
            password: credentials.password.0.clone(),
        };
        write_private(
            &self.data_dir.join(CREDENTIALS_FILE),
            &serde_json::to_string(&file)?,
        )
    }

    /// Starts the program and waits for its port.
    fn launch(
        &self,
        program: &Path,
        port: Option<u16>,
        stopped: &mpsc::Receiver<Infallible>,
    ) -> io::Result<(Child, u16)> {
        let configuration = self.configure(port)?;
        // A ports file of an earlier process may have this one's id in its name.
        let _ = fs::remove_dir_all(self.ports());
        fs::create_dir(self.ports())?;
        let mut child = command(program, &configuration)
            .stdin(Stdio::from(self.lock.try_clone()?))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C in a terminal goes to the whole group, and the router is to end it in its own time.
            .process_group(0)
            .spawn()?;
        let until = Instant::now() + START;
        loop {
            if let Some(port) = self.port_of() {
                return Ok((child, port));
            }
            if let Some(status) = child.try_wait()? {
                return Err(io::Error::other(format!(
                    "it ended at once ({status}){}",
                    self.last_words()
                )));
            }
            if is_over(stopped, LOOK) || Instant::now() >= until {
                end(&mut child);
                return Err(io::Error::other("it did not open its port"));
            }
        }
    }

    /// The port, once the server has written it down.
    fn port_of(&self) -> Option<u16> {
        #[derive(Deserialize)]
        struct Ports {
            nats: Vec<String>,
        }
        let file = fs::read_dir(self.ports()).ok()?.next()?.ok()?;
        // Not yet whole: no JSON.
        let ports: Ports = serde_json::from_slice(&fs::read(file.path()).ok()?).ok()?;
        ports.nats.first()?.rsplit_once(':')?.1.parse().ok()
    }

    /// The last errors in the server's log.
    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let is_error = |line: &&str| line.contains("[FTL]") || line.contains("[ERR]");
        let last = log.lines().rev().find(is_error);
        last.map_or_else(String::new, |line| format!(": {line}"))
    }
}

/// The nats-server, by way of our own program where that is the router: only so can it be told to end with us.
fn command(program: &Path, configuration: &Path) -> Command {
    let own = std::env::current_exe().unwrap_or_default();
    let mut command = if own.file_stem().is_some_and(|stem| stem == "rivulet") {
        let mut command = Command::new(own);
        command
            .arg(SUBCOMMAND)
            .arg(std::process::id().to_string())
            .arg(program);
        command
    } else {
        Command::new(program)
    };
    command.arg("-c").arg(configuration);
    command
}

/// Starts the server, starts it again when it dies, ends it when it is told to.
fn supervise(
    home: &Home,
    program: &Path,
    stopped: &mpsc::Receiver<Infallible>,
    started: oneshot::Sender<Result<Credentials, BusError>>,
) {
    let first = home
        .launch(program, home.port, stopped)
        .and_then(|(child, port)| {
            let credentials = home.credentials(port);
            home.write_credentials(&credentials)?;
            Ok((child, port, credentials))
        });
    let (mut child, port) = match first {
        Ok((child, port, credentials)) => {
            info!(url = credentials.url, program = %program.display(), "started a nats-server");
            let _ = started.send(Ok(credentials));
            (child, port)
        }
        Err(fault) => {
            let _ = started.send(Err(BusError::LocalServer(fault.to_string())));
            return;
        }
    };
    let mut backoff = LOOK;
    let mut since = Instant::now();
    loop {
        if is_over(stopped, LOOK) {
            return end(&mut child);
        }
        let status = match child.try_wait() {
            Ok(None) => continue,
            Ok(Some(status)) => status.to_string(),
            Err(fault) => fault.to_string(),
        };
        if since.elapsed() > MAX_BACKOFF {
            backoff = LOOK;
        }
        warn!(%status, "the nats-server ended: starting it again{}", home.last_words());
        // On the same port, so that clients find it.
        child = loop {
            if is_over(stopped, backoff) {
                return;
            }
            backoff = (backoff * 2).min(MAX_BACKOFF);
            match home.launch(program, Some(port), stopped) {
                Ok((child, _)) => break child,
                Err(fault) => error!(%fault, "the nats-server could not be started again"),
            }
        };
        since = Instant::now();
        info!(port, "the nats-server is back");
    }
}

/// Waits this long, or until the router wants no server any more.
fn is_over(stopped: &mpsc::Receiver<Infallible>, pause: Duration) -> bool {
    !matches!(stopped.recv_timeout(pause), Err(mpsc::RecvTimeoutError::Timeout))
}

/// Asks the child to end, and kills it if it does not.
fn end(child: &mut Child) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // Not waited for yet, so the id is still the child's.
        let _ = kill_process(pid, Signal::TERM);
    }
    let until = Instant::now() + STOP;
    while Instant::now() < until {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        thread::sleep(LOOK);
    }
    warn!("the nats-server did not end: killing it");
    let _ = child.kill();
    let _ = child.wait();
}

fn random_password() -> String {
    (0..32)
        .map(|_| char::from(rand::random_range(b'a'..=b'z')))
        .collect()
}

/// Writes a file that only its owner reads, whole or not at all.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    let _ = fs::remove_file(&unfinished);
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    fs::rename(unfinished, path)
}
