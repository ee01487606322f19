//! One connection after another, as one stream of events.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use rivulet_protocol::{
    error::{ErrorBody, ErrorCode},
    halves,
    message::{Connected, Draining, Gap, Head, Resumed, SUBPROTOCOL},
    pattern::Pattern,
};
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest,
        http::{HeaderValue, Request, header},
    },
};
use ulid::Ulid;
use url::Url;

use super::{
    Credentials, Notices,
    print::{Frame, Printer},
    reconnect::{Attempts, End, Next},
};
use crate::cli::{Failure, token::Permissions};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long the router may be silent before it has said its heartbeat.
const FIRST_FRAME: Duration = Duration::from_secs(30);
/// For how long minted tokens count; they are refreshed before.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

/// What is followed, and where it goes.
pub(super) struct Follow {
    pub(super) url: Url,
    pub(super) patterns: Vec<Pattern>,
    pub(super) credentials: Credentials,
    pub(super) printer: Printer,
    pub(super) notices: Notices,
}

/// Where the client stands in the stream.
#[derive(Clone, Debug)]
struct Cursor {
    stream: String,
    seq: u64,
}

/// What is known from one connection to the next.
struct State {
    cursor: Option<Cursor>,
    /// A reconnect with it takes the seat of the connection before, should the router not know yet that it broke.
    device: String,
    /// How long a draining node asked to wait.
    drained: Option<Duration>,
    /// Why a connection was refused or ended, in the router's words.
    reason: Option<String>,
    /// How many tokens in a row were refused.
    refused: u32,
    heartbeat: Duration,
}

/// What a frame leads to.
enum Then {
    Go,
    /// A new token is due.
    Refresh,
    /// All that was asked for is printed.
    Enough,
}

impl Follow {
    /// Prints events until there were enough of them, or the router says that it makes no sense to go on.
    pub(super) async fn run(mut self) -> Result<(), Failure> {
        let mut attempts = Attempts::default();
        let mut state = State {
            cursor: None,
            device: Ulid::generate().to_string(),
            drained: None,
            reason: None,
            refused: 0,
            heartbeat: FIRST_FRAME,
        };
        loop {
            let began = Instant::now();
            state.reason = None;
            let end = match self.connect(&state).await? {
                Ok(socket) => match self.read(socket, &mut state).await? {
                    Some(end) => end,
                    None => return Ok(()),
                },
                Err(end) => end,
            };
            let what = describe(&end, &self.url, state.reason.as_deref());
            let mut delay = match attempts.after(&end, began.elapsed(), rand::random()) {
                Next::After(delay) => delay,
                // The last one may have ended. One that was made just now is not refused for that.
                Next::WithNewToken(delay) if self.can_mint() && state.refused == 0 => {
                    state.refused += 1;
                    delay
                }
                Next::WithNewToken(_) => {
                    return Err(Failure::other(format_args!(
                        "{what}{}",
                        self.credentials.advice()
                    )));
                }
                Next::Stop => return Err(Failure::other(what)),
            };
            if let Some(drained) = state.drained.take() {
                delay = delay.max(drained);
            }
            self.notices.say(format_args!(
                "{what}; connecting again in {:.1} s",
                delay.as_secs_f64()
            ));
            sleep(delay).await;
        }
    }

    fn can_mint(&self) -> bool {
        matches!(self.credentials, Credentials::Minted { .. })
    }

    fn token(&self) -> Result<String, Failure> {
        Ok(match &self.credentials {
            Credentials::Given(token) | Credentials::Named(token) => token.clone(),
            Credentials::Minted { minter, user } => {
                minter.mint(user, TOKEN_LIFETIME, &Permissions::default())?
            }
        })
    }

    /// Connects. The outer error is for good: what would be sent can't be.
    async fn connect(&self, state: &State) -> Result<Result<Socket, End>, Failure> {
        let request = self.request(state)?;
        Ok(match timeout(HANDSHAKE, connect_async(request)).await {
            Err(_) => Err(End::Lost(format!("{} does not answer", self.url))),
            Ok(Ok((socket, _))) => Ok(socket),
            Ok(Err(Error::Http(response))) => {
                let retry_after = response.headers().get(header::RETRY_AFTER);
                Err(End::Refused {
                    status: response.status().as_u16(),
                    retry_after: retry_after.and_then(|seconds| seconds.to_str().ok()?.parse().ok()),
                })
            }
            Ok(Err(error)) => Err(End::Lost(format!("{}: {}", self.url, fault(&error)))),
        })
    }

    fn request(&self, state: &State) -> Result<Request<()>, Failure> {
        let mut url = self.url.clone();
        let patterns: Vec<_> = self.patterns.iter().map(Pattern::as_str).collect();
        url.query_pairs_mut()
            .append_pair("events", &patterns.join(","))
            .append_pair("device", &state.device);
        if let Some(Cursor { stream, seq }) = &state.cursor {
            url.query_pairs_mut()
                .append_pair("stream", stream)
                .append_pair("seq", &seq.to_string());
        }
        let mut request = url.as_str().into_client_request().map_err(Failure::other)?;
        let bearer = HeaderValue::try_from(format!("Bearer {}", self.token()?)).map_err(|_| {
            Failure::Usage("the token, or the user's id in its place, can't stand in a header".to_owned())
        })?;
        request.headers_mut().insert(header::AUTHORIZATION, bearer);
        request.headers_mut().insert(
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(SUBPROTOCOL),
        );
        Ok(request)
    }

    /// Reads one connection to its end; `None` when there were enough events.
    async fn read(&mut self, mut socket: Socket, state: &mut State) -> Result<Option<End>, Failure> {
        loop {
            let message = match timeout(state.heartbeat, socket.next()).await {
                Err(_) => return Ok(Some(End::Lost("the router is silent".to_owned()))),
                Ok(None) => return Ok(Some(End::Lost("the connection broke".to_owned()))),
                Ok(Some(Err(error))) => return Ok(Some(End::Lost(format!("the connection broke: {error}")))),
                Ok(Some(Ok(message))) => message,
            };
            match message {
                Message::Text(text) => {
                    for frame in frames(&text) {
                        match self.frame(frame, state)? {
                            Then::Go => {}
                            Then::Enough => {
                                // Politely, but nobody waits for the answer.
                                let _ = socket.close(None).await;
                                return Ok(None);
                            }
                            Then::Refresh => {
                                let refresh = json!({ "type": "refresh_token", "token": self.token()? });
                                // A failure shows at the next read.
                                let _ = socket.send(Message::text(refresh.to_string())).await;
                            }
                        }
                    }
                }
                Message::Close(frame) => {
                    let (code, reason) = frame.map_or((1005, String::new()), |frame| {
                        (frame.code.into(), frame.reason.as_str().to_owned())
                    });
                    return Ok(Some(End::Closed { code, reason }));
                }
                // Pings are answered by the library.
                Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_) => {}
            }
        }
    }

    fn frame(&mut self, raw: &RawValue, state: &mut State) -> Result<Then, Failure> {
        let Ok(frame) = serde_json::from_str::<Frame<'_>>(raw.get()) else {
            self.notices.say(format_args!("what is this? {}", raw.get()));
            return Ok(Then::Go);
        };
        match &*frame.frame_type {
            "connected" => {
                if let Some(connected) = read::<Connected>(frame.data) {
                    state.refused = 0;
                    self.connected(&connected, state);
                }
            }
            "error" => return self.error(&frame, raw, state),
            "gap" => {
                if let Some(gap) = read::<Gap>(frame.data) {
                    let (from, to) = (gap.from_seq.get(), gap.to_seq.get());
                    self.notices
                        .say(format_args!("gap: {from} to {to} are gone ({})", reason(&gap)));
                    state.cursor = Some(Cursor {
                        stream: gap.stream,
                        seq: to,
                    });
                }
            }
            "resumed" => {
                if let Some(resumed) = read::<Resumed>(frame.data) {
                    let (from, to) = (resumed.from_seq.get(), resumed.to_seq.get());
                    self.notices
                        .say(format_args!("resumed: {from} to {to} have been read back"));
                    state.advance(Some(to));
                }
            }
            "heartbeat" | "pong" | "subscribed" | "unsubscribed" => {
                state.advance(read::<Head>(frame.data).and_then(|head| Some(head.seq?.get())));
            }
            "draining" => {
                if let Some(draining) = read::<Draining>(frame.data) {
                    state.drained = Some(Duration::from_millis(draining.reconnect_after_ms.get()));
                    state.advance(draining.seq.map(|seq| seq.get()));
                    self.notices.say("the router goes away");
                }
            }
            "token_expiring" if self.can_mint() => return Ok(Then::Refresh),
            "token_expiring" => self.notices.say("the token ends soon"),
            "token_refreshed" | "reply" => {}
            _ => {
                state.advance(frame.seq);
                if self.printer.event(&frame, raw.get())? {
                    return Ok(Then::Enough);
                }
            }
        }
        Ok(Then::Go)
    }

    fn connected(&self, connected: &Connected, state: &mut State) {
        // Two heartbeats missed and half of one for the way.
        let heartbeat = Duration::from_millis(connected.heartbeat_ms.get());
        state.heartbeat = heartbeat.mul_f64(2.5);
        let host = self.url.host_str().unwrap_or_default();
        let port = self
            .url
            .port()
            .map_or_else(String::new, |port| format!(":{port}"));
        let events = connected.events.join(" ");
        let since = match (&connected.stream, connected.seq) {
            (Some(_), Some(seq)) => format!(", after {}", seq.get()),
            _ => ", not durable: what is missed is gone".to_owned(),
        };
        self.notices.say(format_args!(
            "connected to {host}{port} as {}: {events}{since}",
            connected.user_id
        ));
        if state.cursor.is_none()
            && let (Some(stream), Some(seq)) = (&connected.stream, connected.seq)
        {
            state.cursor = Some(Cursor {
                stream: stream.clone(),
                seq: seq.get(),
            });
        }
    }

    /// An error is either the event `processor.failed` in its other form, or about what we asked for.
    fn error(&mut self, frame: &Frame<'_>, raw: &RawValue, state: &mut State) -> Result<Then, Failure> {
        let Some(error) = read::<ErrorBody>(frame.data) else {
            return Ok(Then::Go);
        };
        if error.code == ErrorCode::ProcessorFailed.name() {
            state.advance(frame.seq);
            return Ok(if self.printer.event(frame, raw.get())? {
                Then::Enough
            } else {
                Then::Go
            });
        }
        let what = format!("{}: {}", error.code, error.message);
        let fatal = [
            ErrorCode::Forbidden,
            ErrorCode::InvalidPattern,
            ErrorCode::TooManyPatterns,
        ];
        let about_patterns = error
            .field
            .as_ref()
            .is_some_and(|field| field.starts_with("events"));
        if about_patterns && fatal.iter().any(|code| code.name() == error.code) {
            // Going on would mean to wait for what can't come.
            return Err(Failure::other(what));
        }
        self.notices.say(&what);
        state.reason = Some(what);
        Ok(Then::Go)
    }
}

impl State {
    fn advance(&mut self, seq: Option<u64>) {
        if let (Some(cursor), Some(seq)) = (&mut self.cursor, seq) {
            cursor.seq = cursor.seq.max(seq);
        }
    }
}

/// The frames of a text: one, or an array of them. What is neither comes as it is, and is remarked on.
fn frames(text: &str) -> Vec<&RawValue> {
    if text.starts_with('[') {
        serde_json::from_str(text).unwrap_or_default()
    } else {
        serde_json::from_str(text).map_or_else(|_| Vec::new(), |frame| vec![frame])
    }
}

fn read<T: for<'de> Deserialize<'de>>(data: &RawValue) -> Option<T> {
    halves::read(data.get()).ok()
}

fn reason(gap: &Gap) -> String {
    serde_json::to_value(&gap.reason)
        .ok()
        .and_then(|reason| reason.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// Why there is no connection, for people. Of an answer without TLS the library says that it is corrupt.
fn fault(error: &Error) -> String {
    let text = error.to_string();
    if text.contains("InvalidContentType") {
        "what answers speaks no TLS: is it ws:// here?".to_owned()
    } else {
        text
    }
}

/// How a connection ended, for people.
fn describe(end: &End, url: &Url, reason: Option<&str>) -> String {
    match (end, reason) {
        (End::Closed { code, .. }, Some(said)) => format!("closed with {code}: {said}"),
        (End::Closed { code, reason }, None) if reason.is_empty() => format!("closed with {code}"),
        (End::Closed { code, reason }, None) => format!("closed with {code}: {reason}"),
        (End::Refused { status: 404, .. }, _) => {
            format!("{url}: refused with HTTP 404: is this where a router takes clients (its key `listen`)?")
        }
        (End::Refused { status, .. }, _) => format!("{url}: refused with HTTP {status}"),
        (End::Lost(what), _) => what.clone(),
    }
}
