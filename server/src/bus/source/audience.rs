//! The audience of a message, and what was looked for where it names none.

use std::{borrow::Cow, fmt};

use rivulet_protocol::subject::{AUDIENCE_HEADER, EVERYONE_TOKEN, InvalidUserId, USER_HEADER, UserId};
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{
    Headers, Rejection, Rule,
    fields::{first_fields, pointer},
    shown,
};
use crate::{
    config::{AudienceFrom, DataFrom, Source, nearest},
    event::Audience,
};

/// The field of the payload that names the user, where the source names no other.
pub(super) const USER_FIELD: &str = "user_id";
/// The most users in a field of the payload.
const MAX_USERS: usize = 1_000;
/// How long a name is that may have been meant for another, and how many of those are named.
const LONGEST: usize = 64;
const NAMED: usize = 3;
/// What a user's field is called elsewhere, in lower case and without `_` and `-`.
const ELSEWHERE: [&str; 5] = ["user", "users", "uid", "userid", "userids"];

/// What a message says of its audience.
pub(super) struct Said<'a> {
    pub(super) subject: &'a str,
    pub(super) headers: &'a Headers<'a>,
    pub(super) payload: &'a [u8],
    /// The field of the payload that the source asks for, if it asks for one and the field is there.
    pub(super) field: Option<&'a RawValue>,
}

impl Said<'_> {
    /// The audience, as the source reads it.
    pub(super) fn audience(&self, source: &Source) -> Result<Audience, Rejection> {
        let headers = self.headers;
        let found = match &source.audience {
            AudienceFrom::Everyone => Some(Audience::Everyone),
            AudienceFrom::Header => headers.audience()?,
            AudienceFrom::Auto if headers.name_an_audience() => headers.audience()?,
            AudienceFrom::Payload | AudienceFrom::Auto => match self.field {
                Some(raw) => Some(Audience::Users(vec![one_user(raw, USER_FIELD)?])),
                None => None,
            },
            AudienceFrom::Field(name) => match self.field {
                Some(raw) => Some(users_of(raw, name)?),
                None => None,
            },
            AudienceFrom::Token(index) => self.of_the_subject(*index)?,
        };
        found.ok_or_else(|| self.nobody(source))
    }

    fn of_the_subject(&self, index: usize) -> Result<Option<Audience>, Rejection> {
        let Some(token) = self.subject.split('.').nth(index) else {
            return Ok(None);
        };
        let named = if token == EVERYONE_TOKEN {
            Audience::Everyone
        } else {
            Audience::Users(vec![user(token, "", UserId::unescape(token))?])
        };
        match self.headers.audience()? {
            Some(other) if other != named => Err(Rejection::new(
                Rule::AudienceConflict,
                "",
                format!("the subject names `{}`, a header somebody else", shown(token)),
            )),
            _ => Ok(Some(named)),
        }
    }

    /// That it names no audience: what was looked for, and what is there that may have been meant.
    fn nobody(&self, source: &Source) -> Rejection {
        let by_header = format!("the header `{USER_HEADER}` or `{AUDIENCE_HEADER}`");
        let by_field = |field: &str| format!("the top-level field `{field}`");
        let (looked_for, field) = match &source.audience {
            AudienceFrom::Header => (by_header, None),
            AudienceFrom::Payload => (by_field(USER_FIELD), Some(USER_FIELD)),
            AudienceFrom::Field(name) => (by_field(name), Some(name.as_str())),
            AudienceFrom::Auto => (
                format!("{by_header}, or {}", by_field(USER_FIELD)),
                Some(USER_FIELD),
            ),
            AudienceFrom::Token(index) => (format!("token {index} of the subject, counted from 0"), None),
            AudienceFrom::Everyone => ("nothing".to_owned(), None),
        };
        let mut near = self.headers_near();
        near.extend(self.fields_near(field.unwrap_or(USER_FIELD), &source.data));
        near.truncate(NAMED);
        let mut message = format!("it names no audience; looked for: {looked_for}");
        if !near.is_empty() {
            message.push_str("; there is ");
            message.push_str(&near.join(", "));
        }
        let place = match source.audience {
            AudienceFrom::Payload | AudienceFrom::Field(_) => field.map(pointer),
            _ => None,
        };
        Rejection::new(Rule::NoAudience, place.unwrap_or_default(), message)
    }

    fn headers_near(&self) -> Vec<String> {
        let known = [USER_HEADER, AUDIENCE_HEADER].map(str::to_ascii_lowercase);
        let names = self.headers.all.into_iter().flat_map(async_nats::HeaderMap::iter);
        names
            .map(|(name, _)| name.as_ref())
            .filter(|name: &&str| name.len() <= LONGEST)
            .filter(|name| nearest(&name.to_ascii_lowercase(), known.iter().map(String::as_str)).is_some())
            .take(NAMED)
            .map(|name| format!("the header `{}`", shown(name)))
            .collect()
    }

    /// The payload's fields that may have been meant for `wanted`: by their names, or by their place in an envelope.
    fn fields_near(&self, wanted: &str, data: &DataFrom) -> Vec<String> {
        let plain = |name: &str| name.to_lowercase().replace(['_', '-'], "");
        let meant = |name: &str| {
            name == wanted
                || name.len() <= LONGEST
                    && (plain(name) == plain(wanted)
                        || ELSEWHERE.contains(&plain(name).as_str())
                        || nearest(name, [wanted].into_iter()).is_some())
        };
        let mut near = Vec::new();
        for (name, value) in first_fields(self.payload) {
            if meant(&name) {
                near.push(format!("the field `{}`", shown(&name)));
            }
            if matches!(data, DataFrom::Field(envelope) if *envelope == name) {
                let inner = first_fields(value.get().as_bytes()).into_iter();
                let inner = inner.filter(|(inner, _)| meant(inner));
                near.extend(
                    inner
                        .map(|(inner, _)| format!("the field `{}` within `{}`", shown(&inner), shown(&name))),
                );
            }
        }
        near
    }
}

/// A field that holds a user, or a list of users.
fn users_of(raw: &RawValue, name: &str) -> Result<Audience, Rejection> {
    if !raw.get().starts_with('[') {
        return Ok(Audience::Users(vec![one_user(raw, name)?]));
    }
    let items = serde_json::Deserializer::from_str(raw.get()).deserialize_seq(AtMost(MAX_USERS));
    let items = items.map_err(|_| {
        Rejection::new(
            Rule::User,
            pointer(name),
            format!("`{name}` holds more than {MAX_USERS} users"),
        )
    })?;
    if items.is_empty() {
        let why = format!("it names no audience: the list `{name}` is empty");
        return Err(Rejection::new(Rule::NoAudience, pointer(name), why));
    }
    let mut users = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let user = one_user(item, name).map_err(|mut rejection| {
            rejection.pointer = format!("{}/{index}", rejection.pointer);
            rejection
        })?;
        users.push(user);
    }
    users.sort_unstable();
    users.dedup();
    Ok(Audience::Users(users))
}

/// A user: a string, or an integer whose decimal digits are the id.
fn one_user(raw: &RawValue, name: &str) -> Result<UserId, Rejection> {
    let text = raw.get();
    // JSON's integers have no zeros in front, so that one number is one id.
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return user(text, &pointer(name), UserId::parse(text));
    }
    let Ok(id) = serde_json::from_str::<Cow<'_, str>>(text) else {
        let is = match text.as_bytes().first() {
            Some(b'"') => "holds half a character (a lone surrogate)",
            Some(b'[') => "is a list; a source's `payload:NAME` takes one",
            Some(b'{') => "is an object",
            Some(b'n') => "is null",
            Some(b't' | b'f') => "is a boolean",
            _ => "is a number with a sign, a fraction or an exponent",
        };
        let why = format!("`{name}` {is}: a user is a string or an integer from 0");
        return Err(Rejection::new(Rule::User, pointer(name), why));
    };
    user(&id, &pointer(name), UserId::parse(&id))
}

pub(super) fn user(
    text: &str,
    pointer: &str,
    parsed: Result<UserId, InvalidUserId>,
) -> Result<UserId, Rejection> {
    parsed.map_err(|fault| Rejection::new(Rule::User, pointer, format!("`{}`: {fault}", shown(text))))
}

/// Reads an array of so many items at most.
struct AtMost(usize);

impl<'de> Visitor<'de> for AtMost {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "an array of at most {} items", self.0)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = array.next_element()? {
            if items.len() == self.0 {
                return Err(A::Error::custom("too many"));
            }
            items.push(item);
        }
        Ok(items)
    }
}
