//! Whether a client may have a session: from what it said at the door to what was admitted, or a refusal.
//!
//! The order is from cheap to dear, and nothing is kept of who is refused: the address, its origin, whether the
//! node is current, the token, a seat.

use std::{net::IpAddr, sync::Arc, time::SystemTime};

use rivulet_protocol::{
    close::CloseCode,
    error::{ErrorBody, ErrorCode},
    message::{self, MAX_DEVICE_LENGTH},
    pattern::Pattern,
};
use tokio::{sync::watch, time::Instant};
use tracing::{debug, warn};

use super::{
    Node,
    resume::{self, Resume, ResumePosition},
};
use crate::{
    bus::FeedState,
    identity::Identity,
    limits::{
        address::{Addresses, Slot},
        seats::{ClientKind, Newcomer, Seat, Seats},
    },
    outbox::Closing,
};

/// What a client says at the door.
#[derive(Debug)]
pub struct Hello {
    /// Where it comes from, behind trusted proxies.
    pub address: IpAddr,
    /// Which frames it takes.
    pub kind: ClientKind,
    /// An `Origin` that is neither the host's own nor allowed; to be logged, so that it can be.
    pub foreign_origin: Option<String>,
    /// The token; never logged.
    pub token: Option<String>,
    /// The rest of the query, as it was given.
    pub query: Query,
}

/// What a client asks for in the query.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Patterns with commas between.
    pub events: Option<String>,
    /// The epoch of its cursor.
    pub stream: Option<String>,
    /// The last sequence that it has handled.
    pub seq: Option<String>,
    /// Which of the user's devices it is.
    pub device: Option<String>,
}

/// A client that may have its session.
#[derive(Debug)]
pub struct Admitted {
    /// Who it is.
    pub identity: Identity,
    /// Which frames it takes.
    pub kind: ClientKind,
    /// The patterns from the start.
    pub patterns: Vec<Pattern>,
    /// The position that it asks for.
    pub resume: Option<Resume>,
    /// What was wrong in its query, to be said after `connected`.
    pub faults: Vec<ErrorBody>,
    /// Where it comes from.
    pub address: IpAddr,
    /// What it takes up, until it ends.
    pub places: Places,
}

/// What a connection takes up: given back when dropped.
#[derive(Debug)]
pub struct Places {
    /// Among the user's sessions.
    pub seat: Seat,
    /// Among the address's connections.
    pub slot: Slot,
}

/// A client that may not.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The close code that a `rivulet.v1` client gets.
    pub code: CloseCode,
    /// What either kind of client is told.
    pub error: ErrorBody,
}

impl Refusal {
    /// The HTTP status that a plain client gets.
    pub fn status(&self) -> u16 {
        match self.code {
            CloseCode::Unauthorized => 401,
            CloseCode::Forbidden => 403,
            CloseCode::TooManyConnections => 429,
            _ => 503,
        }
    }

    /// Why the socket of a `rivulet.v1` client is closed: JSON where it says when to come again.
    pub fn closing(&self) -> Closing {
        let reason = match self.error.retry_after {
            Some(seconds) => format!(r#"{{"retry_after":{seconds}}}"#).into(),
            None => self.code.reason().into(),
        };
        Closing {
            code: self.code,
            reason,
        }
    }

    fn new(code: CloseCode, error: ErrorBody) -> Self {
        Self { code, error }
    }

    /// Of a client that may come again soon.
    fn for_now(error: ErrorBody) -> Self {
        let code = match error.code == ErrorCode::RateLimited.name() {
            true => CloseCode::TooManyConnections,
            false => CloseCode::TryAgainLater,
        };
        Self { code, error }
    }
}

/// Who decides at the door.
#[derive(Debug)]
pub struct Door {
    /// Connections by address.
    pub addresses: Arc<Addresses>,
    /// Sessions by user.
    pub seats: Arc<Seats>,
    /// Whether the feed is current: who comes to a node that is not would miss events.
    pub feed: watch::Receiver<FeedState>,
    /// What sessions share.
    pub node: Arc<Node>,
}

impl Door {
    /// Decides.
    ///
    /// # Errors
    /// A [`Refusal`], of which nothing is kept.
    pub async fn admit(&self, hello: Hello) -> Result<Admitted, Refusal> {
        let Hello {
            address,
            kind,
            foreign_origin,
            token,
            query,
        } = hello;
        let slot = self
            .addresses
            .enter(address, Instant::now())
            .map_err(|too_many| {
                let error = ErrorBody::new(ErrorCode::RateLimited, too_many.to_string());
                let seconds = too_many.retry_after.as_secs_f64().ceil().max(1.0);
                Refusal::new(CloseCode::TooManyConnections, error.retry_after(seconds))
            })?;
        if let Some(origin) = foreign_origin {
            warn!(
                origin,
                "refused an origin; to allow it, add it to `allowed_origins`"
            );
            let text = "pages of this origin may not connect";
            return Err(Refusal::new(
                CloseCode::Forbidden,
                ErrorBody::new(ErrorCode::Forbidden, text),
            ));
        }
        if !FeedState::now(&self.feed).current || self.node.shutdown.is_draining() {
            let error = ErrorBody::new(
                ErrorCode::Unavailable,
                "this node is not current; try again, or another",
            );
            return Err(Refusal::new(CloseCode::TryAgainLater, error.retry_after(1.0)));
        }
        let identity = self
            .node
            .auth
            .check(token.as_deref().unwrap_or_default(), SystemTime::now())
            .await
            .map_err(|error| {
                debug!(reason = error.reason(), "refused a token");
                Refusal::new(error.close_code(), error.to_body())
            })?;
        let mut faults = Vec::new();
        let patterns = self.patterns(&identity, query.events.as_deref(), &mut faults);
        let position =
            ResumePosition::from_query(query.stream, query.seq.as_deref()).unwrap_or_else(|fault| {
                faults.push(fault);
                None
            });
        let resume = match position {
            Some(position) => {
                let located = resume::locate(&self.node, &identity.user, position).await;
                Some(located.map_err(Refusal::for_now)?)
            }
            None => None,
        };
        let device = query.device.filter(|device| {
            let fits = !device.is_empty() && device.chars().count() <= MAX_DEVICE_LENGTH;
            if !fits {
                let text = format!("`device` has 1 to {MAX_DEVICE_LENGTH} characters");
                faults.push(ErrorBody::new(ErrorCode::InvalidMessage, text).field("device"));
            }
            fits
        });
        let newcomer = Newcomer {
            user: &identity.user,
            kind,
            device: device.as_deref(),
            devices: identity.devices,
        };
        let seat = self.seats.take(newcomer, Instant::now()).map_err(|no_seat| {
            let error = ErrorBody::new(ErrorCode::RateLimited, no_seat.to_string());
            Refusal::new(CloseCode::TooManyConnections, error)
        })?;
        Ok(Admitted {
            identity,
            kind,
            patterns,
            resume,
            faults,
            address,
            places: Places { seat, slot },
        })
    }

    /// The patterns from the start: those of the query and of the token, else those of the configuration. A
    /// query with a fault counts as not given.
    fn patterns(
        &self,
        identity: &Identity,
        events: Option<&str>,
        faults: &mut Vec<ErrorBody>,
    ) -> Vec<Pattern> {
        let asked = match parse_patterns(
            events.unwrap_or_default(),
            identity,
            self.node.limits.max_patterns,
        ) {
            Ok(patterns) => patterns,
            Err(fault) => {
                faults.push(fault);
                Vec::new()
            }
        };
        let mut patterns: Vec<Pattern> = Vec::new();
        for pattern in asked.into_iter().chain(identity.subscribe.iter().cloned()) {
            if !patterns.contains(&pattern) {
                patterns.push(pattern);
            }
        }
        if patterns.is_empty() {
            let defaults = self.node.sessions.default_patterns.iter();
            patterns.extend(
                defaults
                    .filter(|pattern| identity.may_subscribe(pattern))
                    .cloned(),
            );
        }
        patterns.truncate(self.node.limits.max_patterns);
        patterns
    }
}

/// Reads the patterns of a query; a fault names the first that is refused by its place between the commas.
fn parse_patterns(events: &str, identity: &Identity, most: usize) -> Result<Vec<Pattern>, ErrorBody> {
    let mut patterns = Vec::new();
    for (index, text) in events.split(',').enumerate().filter(|(_, text)| !text.is_empty()) {
        let fault = |code, text: String| Err(ErrorBody::new(code, text).field(format!("events[{index}]")));
        let pattern: Pattern = match text.parse() {
            Ok(pattern) => pattern,
            Err(error) => {
                let shown: String = text.chars().take(130).collect();
                return fault(ErrorCode::InvalidPattern, format!("`{shown}`: {error}"));
            }
        };
        if !message::is_frame_name(pattern.as_str()) && !identity.may_subscribe(&pattern) {
            return fault(
                ErrorCode::Forbidden,
                format!("the token does not permit `{pattern}`"),
            );
        }
        if patterns.len() == most {
            return fault(
                ErrorCode::TooManyPatterns,
                format!("a session holds at most {most} patterns"),
            );
        }
        patterns.push(pattern);
    }
    Ok(patterns)
}
