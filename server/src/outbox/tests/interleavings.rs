//! Every order in which those around an outbox can act, up to a length: who fills it, the two who write, and the
//! client that reads. The outbox is the real one. Its connection and its shard's flusher are models that act only
//! when they were told to, so that whoever is not told leaves something unwritten; and between any two writes of a
//! flush others fill the queue, as they do on another core.

use std::{
    cell::Cell,
    collections::VecDeque,
    sync::{
        LazyLock, Weak,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Wake, Waker},
};

use super::*;
use crate::websocket::close_frame;

/// What the socket takes at first, and what it takes more each time that the client reads: neither ends where a frame
/// does.
const ROOM: usize = 5;

/// So many events may wait.
const EVENTS: usize = 2;

static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics::new([]));

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// The queue is filled.
    Fill(Fill),
    /// The connection answers a ping.
    Pong,
    /// The connection holds events back.
    Hold,
    /// It lets them go.
    Release,
    /// It takes them out.
    Withdraw,
    /// The flusher has its turn; between its first write and the next the queue is filled.
    Flusher(Option<Fill>),
    /// So has the connection.
    Connection(Option<Fill>),
    /// The client reads.
    Read,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fill {
    Event,
    InOrder,
    Overtaking,
    Close,
}

/// A socket, and who acts while it is written to.
#[derive(Clone, Default)]
struct Socket(Arc<Mutex<SocketState>>);

#[derive(Default)]
struct SocketState {
    written: Vec<u8>,
    room: usize,
    meanwhile: VecDeque<Fill>,
    filling: Weak<Filling>,
}

impl Wire for Socket {
    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.0.lock().unwrap();
        let meanwhile = state.meanwhile.pop_front().zip(state.filling.upgrade());
        drop(state);
        if let Some((fill, filling)) = meanwhile {
            filling.fill(fill);
        }
        let mut state = self.0.lock().unwrap();
        let whole: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let taken = whole.len().min(state.room);
        state.written.extend_from_slice(&whole[..taken]);
        state.room -= taken;
        match taken {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(taken),
        }
    }
}

/// Those who fill the queue, and what they know of it.
struct Filling {
    outbox: Outbox,
    /// The flusher has it on its list.
    listed: AtomicBool,
    told: Mutex<Told>,
}

/// What was put into the outbox and must come out.
#[derive(Default)]
struct Told {
    last: u32,
    in_order: Vec<String>,
    overtaking: Vec<String>,
    pongs: Vec<String>,
}

impl Told {
    fn next(&mut self, kind: char) -> String {
        self.last += 1;
        format!("{kind}{}", self.last)
    }
}

impl Filling {
    fn fill(&self, fill: Fill) {
        let mut told = self.told.lock().unwrap();
        let ends = self.outbox.closing().is_some();
        match fill {
            Fill::Event => {
                let text = told.next('e');
                match self.outbox.push_event(Encoded::json(&text)) {
                    Pushed::Refused => return,
                    Pushed::First => self.listed.store(true, SeqCst),
                    Pushed::Queued => {}
                }
                told.in_order.push(text);
            }
            Fill::InOrder => {
                let text = told.next('o');
                self.outbox.push_in_order(Encoded::json(&text));
                if !ends {
                    told.in_order.push(text);
                }
            }
            Fill::Overtaking => {
                let text = told.next('v');
                self.outbox.push_overtaking(Encoded::json(&text));
                if !ends {
                    told.overtaking.push(text);
                }
            }
            Fill::Close => self.outbox.close(CloseCode::GoingAway),
        }
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

struct Model {
    filling: Arc<Filling>,
    socket: Socket,
    woken: Arc<Woken>,
    /// The connection waits for room.
    blocked: Cell<bool>,
    held: Cell<bool>,
    left: Cell<bool>,
}

impl Model {
    fn new() -> Self {
        let socket = Socket::default();
        let bounds = Bounds {
            events: EVENTS,
            bytes: 1000,
        };
        let filling = Arc::new(Filling {
            outbox: Outbox::new(bounds, Framing::PLAIN, socket.clone()),
            listed: AtomicBool::new(false),
            told: Mutex::default(),
        });
        {
            let mut state = socket.0.lock().unwrap();
            state.room = ROOM;
            state.filling = Arc::downgrade(&filling);
        }
        let model = Self {
            filling,
            socket,
            woken: Arc::default(),
            blocked: Cell::new(false),
            held: Cell::new(false),
            left: Cell::new(false),
        };
        // A session's first frame, and the first turn of its connection.
        model.filling.fill(Fill::InOrder);
        model.connection(None);
        model
    }

    fn outbox(&self) -> &Outbox {
        &self.filling.outbox
    }

    fn has_room(&self) -> bool {
        self.socket.0.lock().unwrap().room > 0
    }

    fn flusher_is_told(&self) -> bool {
        self.filling.listed.load(SeqCst)
    }

    fn connection_is_told(&self) -> bool {
        !self.left.get() && (self.woken.0.load(SeqCst) || self.blocked.get() && self.has_room())
    }

    /// Whether it can happen now.
    fn can(&self, act: Act) -> bool {
        match act {
            Act::Fill(_) | Act::Read => true,
            Act::Pong | Act::Hold => !self.left.get() && !self.held.get(),
            Act::Release | Act::Withdraw => !self.left.get() && self.held.get(),
            Act::Flusher(_) => self.flusher_is_told(),
            Act::Connection(_) => self.connection_is_told(),
        }
    }

    fn act(&self, act: Act) {
        match act {
            Act::Fill(fill) => self.filling.fill(fill),
            Act::Pong => {
                let pong = self.filling.told.lock().unwrap().next('p');
                self.outbox().push_pong(text_frame(&pong));
                self.filling.told.lock().unwrap().pongs.push(pong);
                self.connection(None);
            }
            Act::Hold => {
                self.held.set(self.outbox().hold_events());
                self.connection(None);
            }
            Act::Release => {
                self.held.set(false);
                self.outbox().release();
            }
            Act::Withdraw => {
                self.held.set(false);
                if self.outbox().closing().is_none() {
                    let told = &mut self.filling.told.lock().unwrap().in_order;
                    told.retain(|text| !text.starts_with('e'));
                }
                self.outbox().withdraw_events();
                self.connection(None);
            }
            Act::Flusher(meanwhile) => {
                self.filling.listed.store(false, SeqCst);
                self.meanwhile(meanwhile);
                self.outbox().flush_live(&mut METRICS.sent());
                self.meanwhile(None);
            }
            Act::Connection(meanwhile) => self.connection(meanwhile),
            Act::Read => {
                let room = &mut self.socket.0.lock().unwrap().room;
                *room = room.saturating_add(ROOM);
            }
        }
        if self.held.get() && self.outbox().closing().is_none() {
            let events = self.written().iter().filter(|text| text.starts_with('e')).count();
            assert_eq!(events, 0, "held back");
        }
    }

    fn meanwhile(&self, fill: Option<Fill>) {
        self.socket.0.lock().unwrap().meanwhile = fill.into_iter().collect();
    }

    /// A turn of `Connection::serve`.
    fn connection(&self, meanwhile: Option<Fill>) {
        self.woken.0.store(false, SeqCst);
        self.meanwhile(meanwhile);
        loop {
            let flushed = self.outbox().flush(&mut METRICS.sent());
            self.blocked.set(matches!(flushed, Flushed::Blocked { .. }));
            match flushed {
                Flushed::Closing(closing) => return self.leave(&closing),
                Flushed::Blocked { .. } => {
                    if let Some(closing) = self.outbox().closing()
                        && closing.code == CloseCode::TooSlow
                    {
                        return self.leave(&closing);
                    }
                }
                Flushed::Written => {}
                Flushed::Lost => unreachable!("the socket never breaks"),
            }
            let waker = Waker::from(Arc::clone(&self.woken));
            if self
                .outbox()
                .poll_roused(&mut Context::from_waker(&waker))
                .is_pending()
            {
                break;
            }
        }
        self.meanwhile(None);
    }

    fn leave(&self, closing: &Closing) {
        self.meanwhile(None);
        self.left.set(true);
        let mut last = self.outbox().seal(closing.code == CloseCode::TooSlow);
        last.push(close_frame(closing.code.number(), ""));
        self.socket.0.lock().unwrap().room = usize::MAX;
        let written = last.try_write(|slices| self.socket.try_write_vectored(slices));
        assert!(matches!(written, Ok(true)), "there is room for all of it");
    }

    /// The payloads of the frames that were written whole; a close is `x`.
    fn written(&self) -> Vec<String> {
        let state = self.socket.0.lock().unwrap();
        let (mut texts, mut rest) = (Vec::new(), &state.written[..]);
        while let [first, length, more @ ..] = rest
            && let Some((payload, behind)) = more.split_at_checked(usize::from(*length))
        {
            texts.push(match first {
                0x81 => String::from_utf8(payload.to_vec()).expect("a text that was pushed"),
                0x88 => "x".to_owned(),
                _ => panic!("no frame begins with {first:#x}"),
            });
            rest = behind;
        }
        texts
    }

    /// Lets everybody act who was told to, with a client that reads all, and looks at what came of it.
    fn settle(&self) {
        self.socket.0.lock().unwrap().room = usize::MAX;
        if self.held.replace(false) && !self.left.get() {
            self.outbox().release();
        }
        let mut turns = 0;
        while self.flusher_is_told() || self.connection_is_told() {
            let flusher = self.flusher_is_told();
            self.act(if flusher {
                Act::Flusher(None)
            } else {
                Act::Connection(None)
            });
            turns += 1;
            assert!(turns < 20, "they never come to rest");
        }
        let written = self.written();
        let told = self.filling.told.lock().unwrap();
        let of = |kinds: &[char]| -> Vec<&String> {
            let is_one = |text: &&String| text.starts_with(kinds);
            written.iter().filter(is_one).collect()
        };
        let closing = self.outbox().closing();
        assert_eq!(closing.is_some(), self.left.get(), "it ends where it is to end");
        assert_eq!(
            written.iter().filter(|text| *text == "x").count(),
            usize::from(self.left.get())
        );
        assert_eq!(written.last().is_some_and(|text| text == "x"), self.left.get());
        assert!(
            of(&['o', 'v', 'e'])[0] == "o1",
            "nothing overtakes the first frame"
        );
        let (in_order, overtaking, pongs) = (of(&['e', 'o']), of(&['v']), of(&['p']));
        assert!(pongs.is_sorted_by_key(|pong| told.pongs.iter().position(|told| told == *pong)));
        if closing.is_some_and(|closing| closing.code == CloseCode::TooSlow) {
            assert!(told.in_order.iter().collect::<Vec<_>>().starts_with(&in_order));
            assert!(
                told.overtaking
                    .iter()
                    .collect::<Vec<_>>()
                    .starts_with(&overtaking)
            );
        } else {
            assert_eq!(in_order, told.in_order.iter().collect::<Vec<_>>());
            assert_eq!(overtaking, told.overtaking.iter().collect::<Vec<_>>());
            assert_eq!(pongs.last().copied(), told.pongs.last());
        }
        if !self.left.get() {
            assert_eq!(self.outbox().depth(), (0, 0), "nothing waits");
            assert_eq!(self.outbox().backlog(), 0);
        }
    }
}

/// Tries all orders of `length` of these acts. Returns how many there are.
fn all(acts: &[Act], length: usize) -> usize {
    /// Those that begin with `begun`, which can happen.
    fn beyond(acts: &[Act], length: usize, begun: &mut Vec<Act>) -> usize {
        let model = Model::new();
        for act in &*begun {
            model.act(*act);
        }
        if begun.len() == length {
            let settled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| model.settle()));
            assert!(settled.is_ok(), "{begun:?}");
            return 1;
        }
        let possible: Vec<Act> = acts.iter().copied().filter(|act| model.can(*act)).collect();
        drop(model);
        let mut orders = 0;
        for act in possible {
            begun.push(act);
            orders += beyond(acts, length, begun);
            begun.pop();
        }
        orders
    }
    beyond(acts, length, &mut Vec::new())
}

const EVENT: Act = Act::Fill(Fill::Event);
const IN_ORDER: Act = Act::Fill(Fill::InOrder);
const OVERTAKING: Act = Act::Fill(Fill::Overtaking);
const CLOSE: Act = Act::Fill(Fill::Close);

#[test]
fn whatever_the_order_each_frame_is_written_once_and_whole() {
    let acts = [
        EVENT,
        IN_ORDER,
        OVERTAKING,
        CLOSE,
        Act::Pong,
        Act::Flusher(None),
        Act::Connection(None),
        Act::Read,
    ];
    let orders = all(&acts, 6);
    assert!(orders > 50_000, "{orders} orders");
}

#[test]
fn whatever_comes_while_others_write_is_written_too() {
    let acts = [
        EVENT,
        Act::Flusher(Some(Fill::Event)),
        Act::Flusher(Some(Fill::InOrder)),
        Act::Flusher(Some(Fill::Close)),
        Act::Connection(Some(Fill::Event)),
        Act::Connection(Some(Fill::Overtaking)),
        Act::Connection(Some(Fill::Close)),
        Act::Read,
    ];
    let orders = all(&acts, 8);
    assert!(orders > 10_000, "{orders} orders");
}

#[test]
fn whatever_the_order_what_is_held_back_is_written_when_it_is_let_go() {
    let acts = [
        EVENT,
        IN_ORDER,
        Act::Hold,
        Act::Release,
        Act::Withdraw,
        Act::Flusher(None),
        Act::Connection(None),
        Act::Read,
    ];
    let orders = all(&acts, 7);
    assert!(orders > 50_000, "{orders} orders");
}
