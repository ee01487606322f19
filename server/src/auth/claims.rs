//! The claims of a token that is known to be the issuer's → [`Identity`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rivulet_protocol::{pattern::Pattern, subject::UserId};
use serde_json::{Map, Value};

use super::TokenError;
use crate::{
    config,
    identity::{CommandPermission, Identity, Who},
};

/// The claim that says what its user may do.
const PERMISSIONS: &str = "rivulet";

/// The latest `exp` or `nbf` that is understood, in seconds: the start of the year 9999, the last that RFC 3339
/// can write.
const MAX_NUMERIC_DATE: f64 = 253_370_764_800.0;

/// What claims must say to count.
#[derive(Debug)]
pub(super) struct Rules {
    issuers: Vec<String>,
    audiences: Vec<String>,
    user_claim: String,
    expiry_leeway: Duration,
    not_before_leeway: Duration,
    roles: BTreeMap<String, Permissions>,
    default: Permissions,
}

/// A role, in the form in which identities share it.
#[derive(Clone, Debug)]
struct Permissions {
    events: Arc<[Pattern]>,
    commands: CommandPermission,
    devices: usize,
}

impl Rules {
    /// `None` if there is no role `default_role`.
    pub(super) fn new(
        auth: &config::Auth,
        roles: &BTreeMap<String, config::Role>,
        default_role: &str,
        devices_per_user: usize,
        dev: bool,
    ) -> Option<Self> {
        let permissions = |role: &config::Role| Permissions {
            events: role.events.as_slice().into(),
            commands: command_permission(role.commands.clone()),
            devices: match dev {
                true => 0,
                false => role.devices_per_user.unwrap_or(devices_per_user),
            },
        };
        let roles: BTreeMap<_, _> = roles
            .iter()
            .map(|(name, role)| (name.clone(), permissions(role)))
            .collect();
        Some(Self {
            issuers: auth.issuers.clone(),
            audiences: auth.audiences.clone(),
            user_claim: auth.user_claim.clone(),
            expiry_leeway: auth.expiry_leeway,
            not_before_leeway: auth.not_before_leeway,
            default: roles.get(default_role)?.clone(),
            roles,
        })
    }

    pub(super) fn identity(
        &self,
        claims: &Map<String, Value>,
        now: SystemTime,
    ) -> Result<Identity, TokenError> {
        let expires_at =
            numeric_date(claims, "exp")?.ok_or_else(|| claim("exp", "is missing"))? + self.expiry_leeway;
        if now >= expires_at {
            return Err(TokenError::Expired);
        }
        if numeric_date(claims, "nbf")?.is_some_and(|not_before| not_before > now + self.not_before_leeway) {
            return Err(TokenError::NotYetValid);
        }
        if !self.issuers.is_empty() && !names_one_of(claims.get("iss"), &self.issuers) {
            return Err(TokenError::Issuer);
        }
        if !self.audiences.is_empty() && !self.is_for_us(claims.get("aud")) {
            return Err(TokenError::Audience);
        }
        let user = match claims.get(&self.user_claim) {
            Some(Value::String(user)) => {
                UserId::parse(user).map_err(|error| claim(&self.user_claim, error.to_string()))?
            }
            Some(_) => return Err(claim(&self.user_claim, "is not a string")),
            None => return Err(claim(&self.user_claim, "is missing")),
        };
        self.permitted(user, Some(expires_at), claims.get(PERMISSIONS))
    }

    /// Whoever a developer says to be.
    pub(super) fn developer(&self, user: &str) -> Result<Identity, TokenError> {
        let user = UserId::parse(user).map_err(|error| claim(&self.user_claim, error.to_string()))?;
        self.permitted(user, None, None)
    }

    /// RFC 7519 §4.1.3: one audience, or an array of them that holds one of ours.
    fn is_for_us(&self, audience: Option<&Value>) -> bool {
        match audience {
            Some(Value::Array(audiences)) => audiences
                .iter()
                .any(|audience| names_one_of(Some(audience), &self.audiences)),
            one => names_one_of(one, &self.audiences),
        }
    }

    /// What the claim does not say, the role says. `null` is what Go and Python print for what is absent.
    fn permitted(
        &self,
        user: UserId,
        expires_at: Option<SystemTime>,
        stated: Option<&Value>,
    ) -> Result<Identity, TokenError> {
        let nothing = Map::new();
        let stated = match stated {
            None | Some(Value::Null) => &nothing,
            Some(Value::Object(stated)) => stated,
            Some(_) => return Err(claim(PERMISSIONS, "is not an object")),
        };
        let role = match stated.get("role") {
            None | Some(Value::Null) => &self.default,
            Some(Value::String(name)) => self
                .roles
                .get(name)
                .ok_or_else(|| permission("role", "names a role that this router does not have"))?,
            Some(_) => return Err(permission("role", "is not a string")),
        };
        let identity = Identity::from(Who {
            user,
            events: patterns(stated, "events")?.map_or_else(|| Arc::clone(&role.events), Into::into),
            commands: strings(stated, "commands")?.map_or_else(|| role.commands.clone(), command_permission),
            subscribe: patterns(stated, "subscribe")?.unwrap_or_default(),
            devices: role.devices,
            expires_at,
        });
        match identity
            .subscribe
            .iter()
            .position(|pattern| !identity.may_subscribe(pattern))
        {
            Some(index) => Err(permission(
                &format!("subscribe[{index}]"),
                "lies outside what the token or its role permits",
            )),
            None => Ok(identity),
        }
    }
}

/// RFC 7519 §2: seconds since 1970, with or without a fraction.
fn numeric_date(claims: &Map<String, Value>, name: &str) -> Result<Option<SystemTime>, TokenError> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    let seconds = value.as_f64().ok_or_else(|| claim(name, "is not a number"))?;
    if !(0.0..=MAX_NUMERIC_DATE).contains(&seconds) {
        return Err(claim(name, "is not a time from 1970 to 9998"));
    }
    Ok(Some(SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds)))
}

fn names_one_of(value: Option<&Value>, accepted: &[String]) -> bool {
    value
        .and_then(Value::as_str)
        .is_some_and(|name| accepted.iter().any(|accepted| accepted == name))
}

fn patterns(stated: &Map<String, Value>, name: &str) -> Result<Option<Vec<Pattern>>, TokenError> {
    let parsed = |(index, text): (usize, String)| {
        text.parse()
            .map_err(|error| permission(&format!("{name}[{index}]"), format!("is not a pattern: {error}")))
    };
    strings(stated, name)?
        .map(|texts| texts.into_iter().enumerate().map(parsed).collect())
        .transpose()
}

fn strings(stated: &Map<String, Value>, name: &str) -> Result<Option<Vec<String>>, TokenError> {
    let not_strings = || permission(name, "is not an array of strings");
    match stated.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(values)) => values
            .iter()
            .map(|value| value.as_str().map(str::to_owned).ok_or_else(not_strings))
            .collect::<Result<_, _>>()
            .map(Some),
        Some(_) => Err(not_strings()),
    }
}

fn command_permission(names: Vec<String>) -> CommandPermission {
    if names.iter().any(|name| name == "*") {
        CommandPermission::All
    } else {
        CommandPermission::Only(names.into())
    }
}

fn claim(claim: &str, why: impl Into<Cow<'static, str>>) -> TokenError {
    TokenError::Claim {
        claim: claim.to_owned(),
        why: why.into(),
    }
}

fn permission(name: &str, why: impl Into<Cow<'static, str>>) -> TokenError {
    claim(&format!("{PERMISSIONS}.{name}"), why)
}
