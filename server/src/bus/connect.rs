//! A connection to NATS: how it is made, and what is heard of it afterwards.

use std::{
    collections::VecDeque,
    error::Error as _,
    fmt, io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_nats::{
    AuthError, Client, ConnectError, ConnectErrorKind, ConnectOptions, Event, ServerAddr, ServerError,
    Subscriber, client::RequestErrorKind, connection::State, jetstream, rustls,
};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use percent_encoding::percent_decode_str;
use tokio::{sync::Notify, time::timeout};
use tracing::{debug, info, warn};
use url::Url;

use super::{BusError, credentials, local_server::Credentials};
use crate::{
    config::{self, NatsCredentials, NatsTls, Secret},
    metrics::Metrics,
};

/// How often a silent server is asked whether it is there; after two unanswered the connection is given up, so a
/// frozen server is noticed within 6 s. The library's default of 60 s would take minutes.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// How long one server may take to accept us before the next is tried.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest pause between two attempts.
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(2);
/// Messages that may wait in one subscription: 0.8 s of the 80,000 a second that a stream was measured to bring.
/// One more is dropped by the library, which the feed notices as a jump of the sequence.
const SUBSCRIPTION_CAPACITY: usize = 65_536;
/// How often a connection that something is waited from is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long JetStream may take to answer.
const API_TIMEOUT: Duration = Duration::from_secs(5);
/// Refusals of the server that are remembered, to explain a request that got no answer.
const MAX_REMEMBERED_REFUSALS: usize = 32;
/// Before which subjects a router awaits answers. Not within `_INBOX`, which every NATS user may usually read and
/// write. Each connection adds 128 random bits, and the library 131 to each request (it is built without `nuid`, whose
/// subjects step by a constant).
pub(super) const INBOX_PREFIX: &str = "rivulet.inbox";
/// The same for the command line, which runs with the rights of any client.
const TOOL_INBOX_PREFIX: &str = "_INBOX.rivulet";

/// Before which subjects nodes talk to each other, and to themselves.
pub(super) const NODES: &str = "rivulet.node";
/// How often a connection is tried that nothing else tries, and for how long the answer is waited for.
const ECHO_EVERY: Duration = Duration::from_secs(1);
const ECHO_TIMEOUT: Duration = Duration::from_secs(2);

/// What a connection is for. Events and requests have one each, so that a message which breaks the one
/// (headers that are not UTF-8 do) leaves the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The feed of events, and the head checks that vouch for it.
    Feed,
    /// Commands, JetStream's API, rejected events.
    Requests,
    /// The stream read back.
    Past,
    /// The whole stream, read to index it for all nodes.
    Index,
    /// What the command line does.
    Tool,
}

impl Purpose {
    /// What NATS shows of the connection.
    fn name(self) -> &'static str {
        match self {
            Self::Feed => "rivulet feed",
            Self::Requests => "rivulet requests",
            Self::Past => "rivulet past",
            Self::Index => "rivulet index",
            Self::Tool => "rivulet command line",
        }
    }

    /// A prefix of inboxes that only one connection has.
    fn inbox_prefix(self) -> String {
        let prefix = match self {
            Self::Feed | Self::Requests | Self::Past | Self::Index => INBOX_PREFIX,
            Self::Tool => TOOL_INBOX_PREFIX,
        };
        format!("{prefix}.{:032x}", rand::random::<u128>())
    }
}

/// Where NATS is and who we are there.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    servers: Vec<ServerAddr>,
    credentials: NatsCredentials,
    tls: NatsTls,
    domain: Option<String>,
}

impl Endpoint {
    /// From the configuration. User information in a URL counts where no other credentials are configured, and
    /// is taken out of it, as the client library prints URLs in its logs.
    pub(super) fn configured(nats: &config::Nats) -> Result<Self, BusError> {
        let mut credentials = nats.credentials.clone();
        let mut servers = Vec::with_capacity(nats.urls.len());
        for text in &nats.urls {
            let invalid = |fault: &dyn fmt::Display| BusError::Url {
                url: masked(text),
                fault: fault.to_string(),
            };
            let with_scheme = if text.contains("://") {
                text.clone()
            } else {
                format!("nats://{text}")
            };
            let mut url = Url::parse(&with_scheme).map_err(|fault| invalid(&fault))?;
            if let (NatsCredentials::None, Some(in_url)) = (&credentials, user_information(&url)) {
                credentials = in_url;
            }
            // These fail only for URLs that can't have user information, and then there is none.
            let _ = url.set_username("");
            let _ = url.set_password(None);
            servers.push(ServerAddr::from_url(url).map_err(|fault| invalid(&fault))?);
        }
        Ok(Self {
            servers,
            credentials,
            tls: nats.tls.clone(),
            domain: nats.jetstream_domain.clone(),
        })
    }

    /// The nats-server that a router started.
    pub(super) fn local(credentials: &Credentials) -> Result<Self, BusError> {
        let address = credentials
            .url
            .parse()
            .map_err(|fault: io::Error| BusError::Url {
                url: masked(&credentials.url),
                fault: fault.to_string(),
            })?;
        Ok(Self {
            servers: vec![address],
            credentials: NatsCredentials::Password {
                user: credentials.user.clone(),
                password: credentials.password.clone(),
            },
            tls: NatsTls::default(),
            domain: None,
        })
    }

    fn options(&self, signals: &Arc<Signals>, purpose: Purpose) -> Result<ConnectOptions, BusError> {
        let with_base = |options: ConnectOptions| {
            options
                .ping_interval(PING_INTERVAL)
                .connection_timeout(CONNECTION_TIMEOUT)
                .subscription_capacity(SUBSCRIPTION_CAPACITY)
                .request_timeout(Some(API_TIMEOUT))
                .name(purpose.name())
                .custom_inbox_prefix(purpose.inbox_prefix())
                .reconnect_delay_callback(patience(signals))
                .require_tls(self.tls.required)
        };
        let mut options = with_base(ConnectOptions::new());
        options = match &self.credentials {
            NatsCredentials::None => options,
            NatsCredentials::File(path) => {
                let unusable = |fault: String| BusError::File {
                    path: path.clone(),
                    fault,
                };
                // Said now, where it can be mended, and not as a refusal.
                credentials::read(path).map_err(unusable)?;
                let path: Arc<Path> = path.as_path().into();
                with_base(ConnectOptions::with_auth_callback(move |nonce| {
                    let auth = credentials::read(&path).and_then(|credentials| credentials.sign(&nonce));
                    std::future::ready(auth.map_err(AuthError::new))
                }))
            }
            NatsCredentials::Nkey(Secret(seed)) => options.nkey(seed.clone()),
            NatsCredentials::Password {
                user,
                password: Secret(password),
            } => options.user_and_password(user.clone(), password.clone()),
            NatsCredentials::Token(Secret(token)) => options.token(token.clone()),
        };
        if let Some(path) = &self.tls.ca_file {
            readable(path)?;
            options = options.add_root_certificates(path.clone());
        }
        if let Some((certificate, key)) = &self.tls.client {
            readable(certificate)?;
            readable(key)?;
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        Ok(options)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, server) in self.servers.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(formatter, "{comma}{}:{}", server.host(), server.port())?;
        }
        Ok(())
    }
}

/// A connection that mends itself, and what is heard of it.
#[derive(Clone, Debug)]
pub(super) struct Link {
    /// The library's client.
    pub(super) client: Client,
    /// JetStream over it.
    pub(super) jetstream: jetstream::Context,
    /// Before which subjects its API stands: `$JS.API`, or that of a domain.
    pub(super) api: Arc<str>,
    /// What the server and the library say of it.
    pub(super) signals: Arc<Signals>,
    purpose: Purpose,
}

impl Link {
    /// Connects, and waits for NATS where it is away: one line says so.
    ///
    /// # Errors
    /// If NATS is there and does not take us, or our own files can't be read.
    pub(super) async fn connect(
        endpoint: &Endpoint,
        purpose: Purpose,
        metrics: Option<Arc<Metrics>>,
    ) -> Result<Self, BusError> {
        let signals = Arc::new(Signals::default());
        let heard = Arc::clone(&signals);
        let options = endpoint.options(&signals, purpose)?.event_callback(move |event| {
            heard.hear(purpose, &event, metrics.as_deref());
            std::future::ready(())
        });

        let mut attempt = 0;
        let client = loop {
            attempt += 1;
            let fault = match options.clone().connect(&endpoint.servers[..]).await {
                Ok(client) => break client,
                Err(fault) => fault,
            };
            if let Some(fault) = lasting(&fault, endpoint) {
                return Err(fault);
            }
            if attempt == 1 && purpose == Purpose::Feed {
                warn!(servers = %endpoint, %fault, "NATS is away: waiting for it");
            } else {
                debug!(servers = %endpoint, %fault, attempt, "NATS is still away");
            }
            tokio::time::sleep(reconnect_delay(attempt + 1)).await;
        };
        let link = Self::over(client, endpoint, purpose, signals);
        link.arrived();
        Ok(link)
    }

    /// Connects once, and hands what the server and the library say to `hear`.
    ///
    /// # Errors
    /// Why it can't be had.
    pub(super) async fn try_once(
        endpoint: &Endpoint,
        purpose: Purpose,
        hear: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<Self, BusError> {
        let signals = Arc::default();
        let options = endpoint.options(&signals, purpose)?.event_callback(move |event| {
            hear(event);
            std::future::ready(())
        });
        let client = options.connect(&endpoint.servers[..]).await;
        let client = client.map_err(|fault| {
            lasting(&fault, endpoint).unwrap_or_else(|| BusError::Away {
                endpoint: endpoint.to_string(),
                fault: fault.to_string(),
            })
        })?;
        Ok(Self::over(client, endpoint, purpose, signals))
    }

    fn over(client: Client, endpoint: &Endpoint, purpose: Purpose, signals: Arc<Signals>) -> Self {
        let mut jetstream = match &endpoint.domain {
            Some(domain) => jetstream::with_domain(client.clone(), domain),
            None => jetstream::new(client.clone()),
        };
        jetstream.set_timeout(API_TIMEOUT);
        Self {
            client,
            jetstream,
            api: api(endpoint.domain.as_deref()).into(),
            signals,
            purpose,
        }
    }

    /// Notes at which server it is.
    pub(super) fn arrived(&self) {
        if !self.is_connected() {
            return;
        }
        let info = self.client.server_info();
        let server = format!("{} ({}:{})", info.server_name, info.host, info.port);
        if self.purpose == Purpose::Feed {
            info!(server, "connected to NATS");
        }
        *self.signals.server() = server;
    }

    /// Goes to another server: this one is well, and does not hear what it should.
    pub(super) async fn move_on(&self) {
        self.signals.moves.store(true, Ordering::Relaxed);
        // Fails only when the connection is closed for good.
        let _ = self.client.force_reconnect().await;
    }

    /// Whether the server answers, whatever JetStream does: nobody hears this subject, and the server says so.
    pub(super) async fn server_answers(&self) -> bool {
        let subject = format!("{NODES}.echo.{:016x}", rand::random::<u64>());
        match self.client.request(subject, Bytes::new()).await {
            Ok(_) => true,
            Err(fault) => fault.kind() == RequestErrorKind::NoResponders,
        }
    }

    /// Makes it possible to try the connection from here to its server and back.
    ///
    /// # Errors
    /// If NATS does not permit it.
    pub(super) async fn echo(&self) -> Result<Echo, BusError> {
        let subject = format!("{NODES}.echo.{:016x}", rand::random::<u64>());
        let subscribed = self.client.subscribe(subject.clone()).await;
        let answers = subscribed.map_err(|fault| BusError::Subscribe {
            subject: subject.clone(),
            fault: fault.to_string(),
        })?;
        let mut echo = Echo {
            link: self.clone(),
            subject,
            answers,
        };
        // Silence is not a refusal: NATS may just have gone away.
        let _ = self.permitted(echo.answered()).await?;
        Ok(echo)
    }

    /// Whether it stands now, as far as is known.
    pub(super) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// How many times it was established; whoever sees another number than before has missed core messages.
    pub(super) fn connects(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }

    /// Waits until it broke after it had been established `connects` times.
    pub(super) async fn broken_since(&self, connects: u64) {
        while self.is_connected() && self.connects() == connects {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The answer of a request, or the subject that the server refused, which it says apart from the request
    /// and without answering that.
    pub(super) async fn permitted<T>(&self, answer: impl Future<Output = T>) -> Result<T, BusError> {
        self.permitted_since(self.signals.refusals(), answer).await
    }

    /// The same, where a refusal counts that is not among the first `before`.
    pub(super) async fn permitted_since<T>(
        &self,
        before: u64,
        answer: impl Future<Output = T>,
    ) -> Result<T, BusError> {
        tokio::pin!(answer);
        loop {
            let refused = self.signals.refused.notified();
            if let Some(refusal) = self.signals.refusal_after(before) {
                return Err(BusError::NotPermitted(refusal));
            }
            tokio::select! {
                answer = &mut answer => {
                    // Both may be there at once.
                    return match self.signals.refusal_after(before) {
                        Some(refusal) => Err(BusError::NotPermitted(refusal)),
                        None => Ok(answer),
                    };
                }
                () = refused => {}
            }
        }
    }
}

/// A connection that is tried now and then: a frozen server leaves its sockets open and does not answer, which the
/// library would notice after 6 s.
#[derive(Debug)]
pub(super) struct Echo {
    link: Link,
    subject: String,
    answers: Subscriber,
}

impl Echo {
    /// Tries for ever, and goes to another server where this one is silent.
    pub(super) async fn watch(mut self) {
        loop {
            tokio::time::sleep(ECHO_EVERY).await;
            let connects = self.link.connects();
            if !self.link.is_connected() || self.answered().await {
                continue;
            }
            if self.link.is_connected() && self.link.connects() == connects {
                debug!("a NATS server does not answer: trying another");
                // Fails only when the connection is closed for good.
                let _ = self.link.client.force_reconnect().await;
            }
        }
    }

    async fn answered(&mut self) -> bool {
        // One that was late is no answer to this.
        while self.answers.next().now_or_never().flatten().is_some() {}
        let sent = self.link.client.publish(self.subject.clone(), Bytes::new()).await;
        sent.is_ok() && matches!(timeout(ECHO_TIMEOUT, self.answers.next()).await, Ok(Some(_)))
    }
}

/// What is heard of a connection. Counters and a wake-up: nothing rests on an event alone, as the library drops
/// events when its channel is full.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// Something changed: connected, disconnected, or messages were dropped.
    pub(super) changed: Notify,
    /// The library dropped messages because we were slow: so many times.
    pub(super) drops: AtomicU64,
    /// Which server it was connected to last.
    server: Mutex<String>,
    /// Whether the next disconnect is our own doing.
    moves: AtomicBool,
    /// Whether the server accepted us and then said that we may not stay.
    unwelcome: AtomicBool,
    refused: Notify,
    refusals: Mutex<Refusals>,
}

#[derive(Debug, Default)]
struct Refusals {
    count: u64,
    last: VecDeque<String>,
}

impl Signals {
    fn hear(&self, purpose: Purpose, event: &Event, metrics: Option<&Metrics>) {
        let feed = purpose == Purpose::Feed;
        match event {
            Event::Connected => {
                debug!(?purpose, "connected to NATS");
                self.changed.notify_one();
            }
            Event::Disconnected => {
                let server = self.server().clone();
                if self.moves.swap(false, Ordering::Relaxed) {
                    info!(
                        ?purpose,
                        server, "the stream's leader is not heard by this NATS server: trying another"
                    );
                } else if feed {
                    warn!(server, "lost NATS: reconnecting");
                    if let Some(metrics) = metrics {
                        metrics.nats.disconnects.inc();
                    }
                } else {
                    debug!(?purpose, server, "lost NATS: reconnecting");
                }
                self.changed.notify_one();
            }
            Event::SlowConsumer(_) => {
                // One event a dropped message: only the first since the feed last looked gets a line.
                if self.drops.fetch_add(1, Ordering::Relaxed) == 0 {
                    warn!("the NATS client dropped messages: more came than could be routed");
                }
                if let Some(metrics) = metrics {
                    metrics.nats.slow_consumer.inc();
                }
                self.changed.notify_one();
            }
            Event::LameDuckMode => {
                if feed {
                    info!("the NATS server is shutting down: another will be used");
                }
            }
            Event::ServerError(ServerError::Other(text))
                if text.to_ascii_lowercase().starts_with("permissions violation") =>
            {
                warn!(refusal = %text, "NATS does not permit this");
                let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
                refusals.count += 1;
                if refusals.last.len() == MAX_REMEMBERED_REFUSALS {
                    refusals.last.pop_front();
                }
                refusals.last.push_back(text.clone());
                drop(refusals);
                self.refused.notify_waiters();
            }
            Event::ServerError(fault) if is_of_credentials(fault) => {
                // Each connection hears it, at each attempt.
                if feed && !self.unwelcome.load(Ordering::Relaxed) {
                    warn!(%fault, "NATS does not let the router stay: its credentials are read again at each attempt");
                }
                self.unwelcome.store(true, Ordering::Relaxed);
            }
            Event::ServerError(fault) => warn!(%fault, "NATS reports an error"),
            // While NATS is away, one for each attempt.
            Event::ClientError(fault) => debug!(%fault, "NATS client"),
            Event::Draining | Event::Closed => {}
        }
    }

    fn server(&self) -> MutexGuard<'_, String> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refusals(&self) -> u64 {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).count
    }

    fn refusal_after(&self, before: u64) -> Option<String> {
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        (refusals.count > before)
            .then(|| refusals.last.back().cloned())
            .flatten()
    }
}

/// Before which subjects JetStream's API stands.
pub(super) fn api(domain: Option<&str>) -> String {
    domain.map_or_else(|| "$JS.API".to_owned(), |domain| format!("$JS.{domain}.API"))
}

/// The pauses between a connection's attempts. The library counts attempts from the last that was accepted, and a
/// server whose user has expired accepts the connection, and ends it at once.
fn patience(signals: &Arc<Signals>) -> impl Fn(usize) -> Duration + Send + Sync + 'static {
    let signals = Arc::clone(signals);
    let refused = AtomicUsize::new(0);
    move |attempts| {
        if attempts > 1 {
            return reconnect_delay(attempts + refused.load(Ordering::Relaxed));
        }
        match signals.unwelcome.swap(false, Ordering::Relaxed) {
            true => reconnect_delay(attempts + 1 + refused.fetch_add(1, Ordering::Relaxed)),
            false => {
                refused.store(0, Ordering::Relaxed);
                reconnect_delay(attempts)
            }
        }
    }
}

/// Whether the server says that we are not, or no longer, who may be there.
fn is_of_credentials(fault: &ServerError) -> bool {
    match fault {
        ServerError::AuthorizationViolation => true,
        ServerError::Other(text) => {
            let text = text.to_ascii_lowercase();
            ["authorization", "authentication"]
                .iter()
                .any(|word| text.contains(word))
        }
        ServerError::SlowConsumer(_) => false,
    }
}

/// Doubling from 25 ms, jittered by half so that the nodes of a fleet don't come back in step.
fn reconnect_delay(attempts: usize) -> Duration {
    if attempts <= 1 {
        return Duration::ZERO;
    }
    let doublings = u32::try_from(attempts - 2).unwrap_or(u32::MAX).min(10);
    let longest = (Duration::from_millis(25) * 2u32.pow(doublings)).min(MAX_RECONNECT_DELAY);
    longest.mul_f64(rand::random_range(0.5..1.0))
}

/// Why waiting would not help, if so.
fn lasting(fault: &ConnectError, endpoint: &Endpoint) -> Option<BusError> {
    let (endpoint, text) = (endpoint.to_string(), fault.to_string());
    match fault.kind() {
        ConnectErrorKind::Authentication
        | ConnectErrorKind::AuthorizationViolation
        | ConnectErrorKind::ServerParse => Some(BusError::Refused {
            endpoint,
            fault: text,
        }),
        _ if is_of_tls(fault) => Some(BusError::Tls {
            endpoint,
            fault: text,
        }),
        _ => None,
    }
}

/// Whether certificates or keys don't fit, theirs or ours: waiting would not mend it. The library calls most of
/// these faults plain I/O.
fn is_of_tls(fault: &ConnectError) -> bool {
    let said_by_tls = || {
        let io = fault.source()?.downcast_ref::<io::Error>()?;
        io.get_ref()?.downcast_ref::<rustls::Error>()
    };
    fault.kind() == ConnectErrorKind::Tls || said_by_tls().is_some()
}

fn readable(path: &Path) -> Result<(), BusError> {
    std::fs::File::open(path)
        .map(drop)
        .map_err(|fault| BusError::File {
            path: path.to_owned(),
            fault: fault.to_string(),
        })
}

fn user_information(url: &Url) -> Option<NatsCredentials> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    match (url.username(), url.password()) {
        ("", None) => None,
        (token, None) => Some(NatsCredentials::Token(Secret(decoded(token)))),
        (user, Some(password)) => Some(NatsCredentials::Password {
            user: decoded(user),
            password: Secret(decoded(password)),
        }),
    }
}

/// A URL as it may be shown: without what stands before its `@`.
fn masked(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}://…{}", &url[..scheme], &url[at..]),
        (None, Some(at)) => format!("…{}", &url[at..]),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nats(urls: &[&str], credentials: NatsCredentials) -> config::Nats {
        config::Nats {
            urls: urls.iter().map(|&url| url.to_owned()).collect(),
            credentials,
            tls: NatsTls::default(),
            jetstream_domain: None,
            server_binary: None,
            leader_grace: Duration::from_secs(10),
        }
    }

    #[test]
    fn user_information_leaves_the_url() {
        let endpoint = Endpoint::configured(&nats(
            &["nats://joe:hunter%402@one:4222", "two"],
            NatsCredentials::None,
        ))
        .unwrap();
        assert_eq!(endpoint.to_string(), "one:4222, two:4222");
        assert!(!format!("{endpoint:?}").contains("hunter"), "{endpoint:?}");
        let NatsCredentials::Password { user, password } = endpoint.credentials else {
            panic!("no password");
        };
        assert_eq!((user.as_str(), password.0.as_str()), ("joe", "hunter@2"));

        let endpoint = Endpoint::configured(&nats(
            &["nats://joe:secret@one"],
            NatsCredentials::Token(Secret("token".into())),
        ))
        .unwrap();
        assert!(matches!(endpoint.credentials, NatsCredentials::Token(_)));
    }

    #[test]
    fn a_bad_url_is_named_without_its_secret() {
        let fault =
            Endpoint::configured(&nats(&["nats://joe:secret@one:x"], NatsCredentials::None)).unwrap_err();
        assert!(fault.to_string().contains("nats://…@one:x"), "{fault}");
        assert!(!fault.to_string().contains("secret"), "{fault}");
    }

    #[test]
    fn who_is_accepted_and_then_refused_waits_longer_each_time() {
        let signals = Arc::new(Signals::default());
        let pause = patience(&signals);
        assert_eq!(pause(1), Duration::ZERO);
        let refused = ServerError::Other("User Authentication Expired".to_owned());
        for round in 0..20 {
            signals.hear(Purpose::Past, &Event::ServerError(refused.clone()), None);
            let least = (Duration::from_millis(25) * 2_u32.pow(round.min(10))).min(MAX_RECONNECT_DELAY) / 2;
            assert!(pause(1) >= least, "{round}");
        }
        assert_eq!(pause(1), Duration::ZERO, "the last time it was let stay");
    }

    #[test]
    fn reconnecting_is_jittered_and_bounded() {
        assert_eq!(reconnect_delay(1), Duration::ZERO);
        for attempts in 2..100 {
            assert!(reconnect_delay(attempts) <= MAX_RECONNECT_DELAY);
        }
        assert!(reconnect_delay(100) >= MAX_RECONNECT_DELAY / 2);
    }
}
