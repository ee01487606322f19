//! Routers and nats-servers for the bench to run against, some of them with a fault.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rivulet_protocol::{message::Gap, subject::UserId};
use rivulet_router::{
    Listeners,
    bus::Sink,
    config::{Config, Inputs, Purpose},
    event::{Audience, Event},
    history::Forget,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::nats::Nats;

pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// How long anything may take that is waited for: far beyond what it takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// A router in this process; ended when dropped.
pub(crate) struct Router {
    pub(crate) url: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _directory: TempDir,
}

impl Router {
    /// In no development mode, so that tokens are checked.
    pub(crate) fn start(nats: &Nats, keys: &[(&str, &str)]) -> Self {
        Self::start_through(nats, keys, |sink| sink)
    }

    /// With something between NATS and the sessions.
    pub(crate) fn start_through(
        nats: &Nats,
        keys: &[(&str, &str)],
        wrap: impl FnOnce(Arc<dyn Sink>) -> Arc<dyn Sink> + Send + 'static,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut inputs = Inputs::default()
            .set("listen", "127.0.0.1:0")
            .set("admin_listen", "off")
            .set("nats_url", &nats.url())
            .set("jwt_secret", SECRET)
            .set("data_dir", directory.path().to_str().unwrap())
            .set("limits.connections_per_address", "0")
            .set("limits.handshakes_per_address", "0")
            .set("drain.spread", "0s");
        for (key, value) in keys {
            inputs = inputs.set(key, value);
        }
        let config = Config::load(&inputs, Purpose::Router).unwrap_or_else(|problems| panic!("{problems}"));
        let (stop, stopped) = oneshot::channel::<()>();
        let (bound, address) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let ended = runtime.block_on(async {
                let listeners = Listeners::bind(&config).unwrap();
                bound.send(listeners.address()).unwrap();
                // Dropped counts as said.
                let stop = async { drop(stopped.await) };
                rivulet_router::run_through(config, listeners, wrap, stop).await
            });
            ended.unwrap();
        });
        let address = address.recv().unwrap();
        let since = Instant::now();
        while !is_ready(address) {
            assert!(since.elapsed() < PATIENCE, "the router is never ready");
            thread::sleep(Duration::from_millis(20));
        }
        Self {
            url: format!("ws://{address}"),
            stop: Some(stop),
            thread: Some(thread),
            _directory: directory,
        }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.stop.take();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking());
    }
}

fn is_ready(address: SocketAddr) -> bool {
    let mut answer = String::new();
    let ask = |mut stream: TcpStream| {
        stream.write_all(b"GET /health/ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
        stream.read_to_string(&mut answer)
    };
    TcpStream::connect(address).and_then(ask).is_ok() && answer.starts_with("HTTP/1.1 200")
}

/// What a faulty router does, to one event in 20.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    /// Leaves it out.
    Drop,
    /// Gives it another's payload, and that one its own.
    Swap,
    /// Brings it again, as a new one.
    Double,
    /// Gives it to `user-0` too.
    Leak,
    /// None, but takes its time over every event.
    Slow,
}

/// A sink with a fault before another.
pub(crate) struct Faulty {
    sink: Arc<dyn Sink>,
    fault: Fault,
    count: AtomicU64,
    held: std::sync::Mutex<Option<Event>>,
}

impl Faulty {
    pub(crate) fn before(fault: Fault) -> impl FnOnce(Arc<dyn Sink>) -> Arc<dyn Sink> + Send + 'static {
        move |sink| {
            Arc::new(Self {
                sink,
                fault,
                count: AtomicU64::new(0),
                held: std::sync::Mutex::new(None),
            })
        }
    }
}

impl Sink for Faulty {
    fn open(&self, epoch: &str, head: u64, durable: bool) {
        self.sink.open(epoch, head, durable);
    }

    fn dispatch(&self, event: &Event) -> usize {
        // The first ones are the bench's own trial.
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let due = count.is_multiple_of(20);
        if let Some(mut earlier) = self.held.lock().unwrap().take() {
            let mut later = event.clone();
            std::mem::swap(&mut earlier.seq, &mut later.seq);
            return self.sink.dispatch(&later) + self.sink.dispatch(&earlier);
        }
        match self.fault {
            Fault::Slow => {
                thread::sleep(Duration::from_millis(5));
                self.sink.dispatch(event)
            }
            _ if !due => self.sink.dispatch(event),
            Fault::Drop => {
                event.seq.inspect(|seq| self.sink.advance(*seq));
                0
            }
            Fault::Swap => {
                *self.held.lock().unwrap() = Some(event.clone());
                0
            }
            Fault::Double => {
                // Sequences only rise, so the copy has none.
                let mut again = event.clone();
                again.seq = None;
                self.sink.dispatch(event) + self.sink.dispatch(&again)
            }
            Fault::Leak => {
                let mut event = event.clone();
                if let Audience::Users(users) = &event.audience {
                    let stranger = UserId::parse("user-0").unwrap();
                    event.audience = Audience::Users(vec![users[0].clone(), stranger]);
                }
                self.sink.dispatch(&event)
            }
        }
    }

    fn advance(&self, seq: u64) {
        self.sink.advance(seq);
    }

    fn keeps_from(&self, seq: u64) {
        self.sink.keeps_from(seq);
    }

    fn forget(&self, forget: Forget<'_>) {
        self.sink.forget(forget);
    }

    fn gap(&self, gap: Gap) {
        self.sink.gap(gap);
    }
}

/// `rivulet bench`, in a directory of its own and with nothing of ours in its environment.
pub(crate) struct Bench {
    directory: TempDir,
    arguments: Vec<String>,
    secret: Option<&'static str>,
    pub(crate) open_files: Option<u32>,
}

impl Bench {
    pub(crate) fn against(routers: &[&Router], nats: &Nats) -> Self {
        let mut bench = Self::of(&["--nats-url", &nats.url()]).with_secret(SECRET);
        for router in routers {
            bench = bench.and(&["--url", &router.url]);
        }
        // Enough for every fault, and soon over.
        bench.and(&[
            "--users",
            "10",
            "--rate",
            "400",
            "--warm-up",
            "100ms",
            "--duration",
            "1s",
        ])
    }

    pub(crate) fn of(arguments: &[&str]) -> Self {
        let bench = Self {
            directory: tempfile::tempdir().unwrap(),
            arguments: Vec::new(),
            secret: None,
            open_files: None,
        };
        bench.and(arguments)
    }

    /// A later flag counts.
    pub(crate) fn and(mut self, arguments: &[&str]) -> Self {
        for argument in arguments {
            // Given twice, the first goes, with its value.
            let known = self.arguments.iter().position(|known| known == argument);
            if let Some(at) = known.filter(|_| argument.starts_with("--") && *argument != "--url") {
                self.arguments.drain(at..at + 2);
            }
            self.arguments.push((*argument).to_owned());
        }
        self
    }

    pub(crate) fn with_secret(mut self, secret: &'static str) -> Self {
        self.secret = Some(secret);
        self
    }

    pub(crate) fn without_secret(mut self) -> Self {
        self.secret = None;
        self
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn spawn(&self) -> Child {
        let program = env!("CARGO_BIN_EXE_rivulet");
        let mut command = match self.open_files {
            None => Command::new(program),
            Some(files) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\""), program]);
                shell
            }
        };
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RIVULET_") {
                command.env_remove(name);
            }
        }
        command
            .arg("bench")
            .args(&self.arguments)
            .envs(self.secret.map(|secret| ("RIVULET_JWT_SECRET", secret)))
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn ended(&self, code: i32) -> Output {
        let output = self.spawn().wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let told = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{said}\n{told}");
        output
    }

    /// The figures of a run that ends with this code.
    #[track_caller]
    pub(crate) fn figures(self, code: i32) -> Value {
        let output = self.and(&["--json"]).ended(code);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Standard output of a run that ends well.
    #[track_caller]
    pub(crate) fn table(self) -> String {
        String::from_utf8(self.ended(0).stdout).unwrap()
    }

    /// The last line on standard error of a run that ends with this code.
    #[track_caller]
    pub(crate) fn refusal(self, code: i32) -> String {
        let output = self.ended(code);
        String::from_utf8_lossy(&output.stderr)
            .lines()
            .last()
            .unwrap_or_default()
            .to_owned()
    }
}
