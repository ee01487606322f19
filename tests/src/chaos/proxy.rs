//! A TCP proxy that harms what passes it: delay, stall, cut, half-close, in either direction, by a seed.

use std::{
    net::SocketAddr,
    ops::ControlFlow,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

/// What is read at once.
const CHUNK: usize = 16 * 1024;
/// How much comes late where everything does.
const DELAYED: u64 = 128 * 1024;
/// How long the other direction may go on when one has ended.
const LINGER: Duration = Duration::from_secs(10);

/// What happens to a connection; where it goes on, something else will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Both sides get a reset; what was on its way is gone.
    Reset,
    /// Both sides are closed in order, in the middle of whatever it was.
    Finish,
    /// This direction ends; the other goes on for a while.
    HalfClose,
    /// This direction stands still for so long, then goes on.
    Stall(Duration),
    /// This direction stands still for so long, then both sides get a reset.
    StallAndReset(Duration),
    /// Everything in this direction comes later by so much, for [`DELAYED`] bytes; then both sides get a reset.
    Delay(Duration),
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the one who connected.
    Down,
    /// From the one who connected.
    Up,
}

/// What will happen to a connection, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// In which direction.
    pub direction: Direction,
    /// After how many bytes in it.
    pub after: u64,
    /// What.
    pub fault: Fault,
}

/// Draws what happens to each connection.
#[derive(Debug)]
pub struct Plan {
    random: Mutex<SmallRng>,
    draw: fn(&mut SmallRng) -> Option<Fate>,
    calm: AtomicBool,
    done: Arc<AtomicU64>,
}

/// A proxy before one address; it ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Plan {
    /// One that draws with `draw` from this seed, and counts in `done` what was done.
    pub fn new(seed: u64, draw: fn(&mut SmallRng) -> Option<Fate>, done: Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(Self {
            random: Mutex::new(SmallRng::seed_from_u64(seed)),
            draw,
            calm: AtomicBool::new(false),
            done,
        })
    }

    /// From here on nothing more happens to anyone.
    pub fn calm(&self) {
        self.calm.store(true, Ordering::Relaxed);
    }

    fn fate(&self) -> Option<Fate> {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        (self.draw)(&mut random)
    }

    /// Whether it may still be done; then it counts.
    fn happens(&self) -> bool {
        let happens = !self.calm.load(Ordering::Relaxed);
        self.done.fetch_add(u64::from(happens), Ordering::Relaxed);
        happens
    }
}

/// Cuts and pauses at any point of a client's connection: in the handshake, in `connected`, in a replay, live.
pub fn any_point(random: &mut SmallRng) -> Option<Fate> {
    // As likely in the first kilobyte as in the last hundred.
    let after = |random: &mut SmallRng, most: f64| 10f64.powf(random.random_range(1.5..most)) as u64;
    let pause = Duration::from_millis(random.random_range(10..1_500));
    let fault = match random.random_range(0..10) {
        0..=2 => Fault::Reset,
        3..=5 => Fault::Finish,
        6 => Fault::HalfClose,
        7 => Fault::StallAndReset(pause),
        8 => Fault::Stall(pause),
        _ => Fault::Delay(pause / 20),
    };
    let (direction, after) = match random.random_ratio(1, 8) {
        // A client sends its handshake and little more.
        true => (Direction::Up, after(random, 3.0)),
        false => (Direction::Down, after(random, 5.0)),
    };
    Some(Fate {
        direction,
        after,
        fault,
    })
}

impl Proxy {
    /// Starts one before `target`.
    ///
    /// # Errors
    /// If it can't listen.
    pub async fn start(target: SocketAddr, plan: Arc<Plan>) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            // Dropped with the task, and every connection with it.
            let mut connections = JoinSet::new();
            loop {
                let Ok((client, _)) = listener.accept().await else {
                    continue;
                };
                let plan = Arc::clone(&plan);
                connections.spawn(async move {
                    if let Ok(server) = TcpStream::connect(target).await {
                        relay(client, server, &plan).await;
                    }
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, task })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How one direction ended.
enum End {
    /// Its sender closed, or it was half-closed.
    Closed,
    /// Both directions end now.
    Cut { reset: bool },
}

async fn relay(mut client: TcpStream, mut server: TcpStream, plan: &Plan) {
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let fate = plan.fate();
    let reset = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let down = pump(from_server, to_client, Direction::Down, fate, plan);
        let up = pump(from_client, to_server, Direction::Up, fate, plan);
        tokio::pin!(down, up);
        let first = tokio::select! {
            end = &mut down => (end, true),
            end = &mut up => (end, false),
        };
        match first {
            (End::Cut { reset }, _) => reset,
            (End::Closed, of_down) => {
                let other = async {
                    match of_down {
                        true => up.await,
                        false => down.await,
                    }
                };
                matches!(timeout(LINGER, other).await, Ok(End::Cut { reset: true }))
            }
        }
    };
    if reset {
        let _ = client.set_zero_linger();
        let _ = server.set_zero_linger();
    }
}

async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    direction: Direction,
    fate: Option<Fate>,
    plan: &Plan,
) -> End {
    let ours = |fate: Option<Fate>| {
        let fate = fate.filter(|fate| fate.direction == direction);
        fate.map(|fate| (fate.after, fate.fault))
    };
    let mut buffer = vec![0; CHUNK];
    let mut left = ours(fate);
    let (mut delay, mut delayed) = (Duration::ZERO, 0);
    loop {
        let length = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => {
                let _ = to.shutdown().await;
                return End::Closed;
            }
            Ok(length) => length,
        };
        if !delay.is_zero() {
            sleep(delay).await;
            delayed += length as u64;
            if delayed > DELAYED && !plan.calm.load(Ordering::Relaxed) {
                return End::Cut { reset: true };
            }
        }
        let mut bytes = &buffer[..length];
        if let Some((after, fault)) = left
            && after <= bytes.len() as u64
        {
            left = None;
            // Exactly up to the point.
            let (before, behind) = bytes.split_at(after as usize);
            if to.write_all(before).await.is_err() {
                return End::Closed;
            }
            if plan.happens() {
                match suffer(fault, &mut to, &mut delay).await {
                    ControlFlow::Break(end) => return end,
                    // Another will come.
                    ControlFlow::Continue(()) => left = ours(plan.fate()),
                }
            }
            bytes = behind;
        }
        if let Some((after, _)) = &mut left {
            *after = after.saturating_sub(bytes.len() as u64);
        }
        if to.write_all(bytes).await.is_err() {
            return End::Closed;
        }
    }
}

async fn suffer(fault: Fault, to: &mut WriteHalf<'_>, delay: &mut Duration) -> ControlFlow<End> {
    match fault {
        Fault::Reset => ControlFlow::Break(End::Cut { reset: true }),
        Fault::Finish => ControlFlow::Break(End::Cut { reset: false }),
        Fault::HalfClose => {
            let _ = to.shutdown().await;
            ControlFlow::Break(End::Closed)
        }
        Fault::StallAndReset(how_long) => {
            sleep(how_long).await;
            ControlFlow::Break(End::Cut { reset: true })
        }
        Fault::Stall(how_long) => {
            sleep(how_long).await;
            ControlFlow::Continue(())
        }
        Fault::Delay(by) => {
            *delay = by;
            ControlFlow::Continue(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn received(fate: fn(&mut SmallRng) -> Option<Fate>) -> (Vec<u8>, bool, u64) {
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let done = Arc::new(AtomicU64::new(0));
        let plan = Plan::new(1, fate, Arc::clone(&done));
        let proxy = Proxy::start(target.local_addr().unwrap(), plan).await.unwrap();
        let mut client = TcpStream::connect(proxy.address).await.unwrap();
        let (mut server, _) = target.accept().await.unwrap();
        server.write_all(&[7; 100_000]).await.unwrap();
        drop(server);
        let mut bytes = Vec::new();
        let clean = client.read_to_end(&mut bytes).await.is_ok();
        (bytes, clean, done.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn a_cut_comes_at_the_very_byte() {
        let (bytes, clean, done) = received(|_| {
            Some(Fate {
                direction: Direction::Down,
                after: 33_333,
                fault: Fault::Finish,
            })
        })
        .await;
        assert_eq!((bytes.len(), clean, done), (33_333, true, 1));
    }

    #[tokio::test]
    async fn a_reset_is_one() {
        let (bytes, clean, done) = received(|_| {
            Some(Fate {
                direction: Direction::Down,
                after: 50,
                fault: Fault::Reset,
            })
        })
        .await;
        // A reset may overtake what was sent before it.
        assert!(bytes.len() <= 50);
        assert_eq!((clean, done), (false, 1));
    }

    #[tokio::test]
    async fn what_has_no_fate_passes_whole() {
        assert_eq!(received(|_| None).await, (vec![7; 100_000], true, 0));
    }
}
