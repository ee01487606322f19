//! Which sources take a run's events, found out with what the router itself reads by.

use bytes::Bytes;
use rivulet_protocol::subject::UserId;
use rivulet_router::{
    bus::source::Sources,
    config::{AudienceFrom, Config, Source},
};

use super::{
    payload::Payloads,
    plan::{Place, Track},
    run::Run,
};
use crate::cli::{
    Failure,
    publish::address::{Addressed, Draft},
};

/// For each type the source that takes it, by audience.
pub(super) struct Addresses {
    everyone: Vec<Source>,
    users: Vec<Source>,
}

impl Addresses {
    /// Rehearses an event of each type and audience.
    ///
    /// # Errors
    /// Why a router would not take it.
    pub(super) fn find(run: &Run, config: &Config, payloads: &Payloads) -> Result<Self, Failure> {
        let sources =
            Sources::new(&config.sources, config.sessions.max_event_bytes, &[]).map_err(Failure::other)?;
        let mut addresses = Self {
            everyone: Vec::new(),
            users: Vec::new(),
        };
        for track in run.plan.kinds() {
            for event_type in 0..run.types.len() {
                let draft = draft(run, event_type, track);
                let address = |payload: Bytes| draft.address(config, &sources, &payload, false);
                // A source may want to read in the payload whom it is for.
                let found = address(payloads.make(0, 0, None)).or_else(|refusal| {
                    address(payloads.make(0, 0, draft.users.first())).map_err(|_| refusal)
                });
                let (_, source) = found?;
                let source = source.expect("what is not refused has a source").clone();
                match track {
                    Track::Everyone => addresses.everyone.push(source),
                    Track::User(_) => addresses.users.push(source),
                }
            }
        }
        Ok(addresses)
    }

    /// Whether a stream keeps all of them, as far as the configuration says.
    pub(super) fn are_durable(&self) -> bool {
        let mut sources = self.everyone.iter().chain(&self.users);
        sources.all(|source| source.durable)
    }

    /// How an event is sent, and the user that its payload has to name.
    pub(super) fn of<'a>(&self, run: &'a Run, place: Place) -> (Addressed, Option<&'a UserId>) {
        let event_type = run.plan.event_type(place);
        let (source, user) = match place.track {
            Track::Everyone => (&self.everyone[event_type], None),
            Track::User(user) => (&self.users[event_type], Some(run.crowd.user(user as usize))),
        };
        let addressed = draft(run, event_type, place.track).candidate(source);
        let named = user.filter(|_| matches!(source.audience, AudienceFrom::Payload));
        (addressed.expect("it was found so"), named)
    }
}

fn draft(run: &Run, event_type: usize, track: Track) -> Draft {
    Draft {
        event_type: run.types[event_type].clone(),
        users: match track {
            Track::Everyone => Vec::new(),
            Track::User(user) => vec![run.crowd.user(user as usize).clone()],
        },
        everyone: track == Track::Everyone,
        subject: None,
    }
}
