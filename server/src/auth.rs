//! From a token to the identity that it vouches for.
//!
//! What a token may be signed with comes from the configuration alone: of its header only `alg` and `kid` are
//! read, to choose among the keys that are known, and a token that names its own key (`jwk`, `jku`, `x5u`,
//! `x5c`) gains nothing by it. A token, whole or in part, never stands in an error or a log.

mod jwks;

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, errors::ErrorKind};
use rivulet_protocol::{
    error::{ErrorBody, ErrorCode},
    pattern::Pattern,
    subject::UserId,
};
use serde::Deserialize;
use serde_json::{Map, Value};

use self::jwks::Jwks;
use crate::{
    config::{self, Key, Role},
    identity::{CommandPermission, Identity},
};

/// The most bytes in a token: RFC 7519 names no bound, and 8 KiB is what common proxies let through.
pub const MAX_TOKEN_BYTES: usize = 8 << 10;

/// Why a token counts for nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is none.
    #[error("no token: send `Authorization: Bearer …`, the subprotocol entry `bearer.…`, or `?token=…`")]
    Missing,
    /// It is not three parts of base64url, or its parts are not JSON.
    #[error("the token is not a JWT")]
    Malformed,
    /// It is longer than [`MAX_TOKEN_BYTES`].
    #[error("the token has more than {MAX_TOKEN_BYTES} bytes")]
    TooLong,
    /// No known key verifies it.
    #[error("the token is not signed by a key that this router knows, or not with an algorithm of that key")]
    Signature,
    /// It has ended.
    #[error("the token has expired")]
    Expired,
    /// It has not begun.
    #[error("the token is not valid yet")]
    NotYet,
    /// It comes from somebody else.
    #[error("the token's issuer is not one that this router accepts")]
    Issuer,
    /// It is for somebody else.
    #[error("the token's audience is not this router")]
    Audience,
    /// A claim is missing or of the wrong kind.
    #[error("the token's claim `{0}` is missing or wrong")]
    Claim(String),
}

impl Denied {
    /// The `error` that says so.
    pub fn to_body(&self) -> ErrorBody {
        ErrorBody::new(ErrorCode::Unauthorized, self.to_string())
    }
}

/// Checks tokens.
pub struct Auth {
    keys: Vec<VerifyingKey>,
    jwks: Option<Jwks>,
    issuers: Vec<String>,
    audiences: Vec<String>,
    user_claim: String,
    expiry_leeway: Duration,
    not_before_leeway: Duration,
    roles: BTreeMap<String, Role>,
    default_role: String,
    devices_per_user: usize,
    dev: bool,
}

/// Keys are not for logs.
impl std::fmt::Debug for Auth {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Auth").finish_non_exhaustive()
    }
}

/// A key and what it may be used with.
#[derive(Clone)]
struct VerifyingKey {
    key: DecodingKey,
    algorithms: Vec<Algorithm>,
}

/// The claim `rivulet`: what is absent is as the role has it.
#[derive(Deserialize)]
struct RivuletClaim {
    events: Option<Vec<Pattern>>,
    commands: Option<Vec<String>>,
    #[serde(default)]
    subscribe: Vec<Pattern>,
    role: Option<String>,
}

impl Auth {
    /// Takes the keys of the configuration; those of a JWKS are read by [`Auth::refresh_keys`].
    ///
    /// # Errors
    /// A PEM that is no public key.
    pub fn new(config: &config::Config) -> Result<Self, jsonwebtoken::errors::Error> {
        let auth = &config.auth;
        Ok(Self {
            keys: auth
                .keys
                .iter()
                .map(VerifyingKey::new)
                .collect::<Result<_, _>>()?,
            jwks: auth
                .jwks_url
                .as_ref()
                .map(|url| Jwks::new(url.clone(), auth.jwks_algorithms.clone(), auth.jwks_refresh)),
            issuers: auth.issuers.clone(),
            audiences: auth.audiences.clone(),
            user_claim: auth.user_claim.clone(),
            expiry_leeway: auth.expiry_leeway,
            not_before_leeway: auth.not_before_leeway,
            roles: config.roles.clone(),
            default_role: config.default_role.clone(),
            devices_per_user: config.limits.devices_per_user,
            dev: config.dev,
        })
    }

    /// Reads the JWKS again and again, where there is one. Ends only when dropped.
    pub async fn refresh_keys(&self) {
        match &self.jwks {
            Some(jwks) => jwks.refresh().await,
            None => std::future::pending().await,
        }
    }

    /// Whom the token vouches for. May read the JWKS, when the token names a key that is not known.
    pub async fn identify(&self, token: &str) -> Result<Identity, Denied> {
        self.identify_at(token, SystemTime::now()).await
    }

    async fn identify_at(&self, token: &str, now: SystemTime) -> Result<Identity, Denied> {
        if token.is_empty() {
            return Err(Denied::Missing);
        }
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Denied::TooLong);
        }
        if self.dev && !is_jwt_shaped(token) {
            let user = UserId::parse(token).map_err(|_| Denied::Claim(self.user_claim.clone()))?;
            return self.identity(user, None, None);
        }
        let claims = self.verify(token).await?;
        let seconds = |name: &str| match claims.get(name) {
            None => Ok(None),
            Some(value) => value
                .as_f64()
                .filter(|seconds| (0.0..=MAX_SECONDS).contains(seconds))
                .map(|seconds| Some(UNIX_EPOCH + Duration::from_secs_f64(seconds)))
                .ok_or_else(|| Denied::Claim(name.to_owned())),
        };
        let end = seconds("exp")?.ok_or_else(|| Denied::Claim("exp".into()))? + self.expiry_leeway;
        if end <= now {
            return Err(Denied::Expired);
        }
        if seconds("nbf")?.is_some_and(|begin| begin > now + self.not_before_leeway) {
            return Err(Denied::NotYet);
        }
        let user = claims.get(&self.user_claim).and_then(Value::as_str);
        let user = user
            .and_then(|user| UserId::parse(user).ok())
            .ok_or_else(|| Denied::Claim(self.user_claim.clone()))?;
        let rivulet = match claims.get("rivulet") {
            None | Some(Value::Null) => None,
            Some(claim @ Value::Object(_)) => {
                Some(RivuletClaim::deserialize(claim).map_err(|_| Denied::Claim("rivulet".into()))?)
            }
            Some(_) => return Err(Denied::Claim("rivulet".into())),
        };
        self.identity(user, rivulet, Some(end))
    }

    /// Checks signature, issuer and audience. Returns the claims.
    async fn verify(&self, token: &str) -> Result<Map<String, Value>, Denied> {
        let header = decode_header(token).map_err(|error| match error.kind() {
            // `none`, and whatever else the library does not know as an algorithm.
            ErrorKind::Json(_) => Denied::Signature,
            _ => Denied::Malformed,
        })?;
        if header.crit.is_some() {
            // RFC 7515, section 4.1.11: what must be understood and is not makes the token invalid.
            return Err(Denied::Signature);
        }
        let mut denied = Denied::Signature;
        let fetched = match &self.jwks {
            Some(jwks) => jwks.keys(header.kid.as_deref()).await,
            None => Vec::new(),
        };
        for candidate in self.keys.iter().chain(&fetched) {
            if !candidate.algorithms.contains(&header.alg) {
                continue;
            }
            match decode::<Map<String, Value>>(token, &candidate.key, &self.validation(candidate, header.alg))
            {
                Ok(data) => return Ok(data.claims),
                Err(error) => match error.kind() {
                    ErrorKind::InvalidIssuer => denied = Denied::Issuer,
                    ErrorKind::InvalidAudience => denied = Denied::Audience,
                    ErrorKind::MissingRequiredClaim(claim) => denied = Denied::Claim(claim.clone()),
                    ErrorKind::InvalidClaimFormat(claim) => denied = Denied::Claim(claim.clone()),
                    ErrorKind::Base64(_)
                    | ErrorKind::Json(_)
                    | ErrorKind::Utf8(_)
                    | ErrorKind::InvalidToken => {
                        denied = Denied::Malformed;
                    }
                    _ => {}
                },
            }
        }
        Err(denied)
    }

    /// What the library checks. Times are ours: it knows one leeway for all of them, in whole seconds.
    fn validation(&self, candidate: &VerifyingKey, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        // All of one family, as the library asks for; the token's own is among them.
        validation.algorithms.clone_from(&candidate.algorithms);
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.required_spec_claims.clear();
        validation.validate_aud = !self.audiences.is_empty();
        if !self.audiences.is_empty() {
            validation.set_audience(&self.audiences);
            validation.required_spec_claims.insert("aud".into());
        }
        if !self.issuers.is_empty() {
            validation.set_issuer(&self.issuers);
            validation.required_spec_claims.insert("iss".into());
        }
        validation
    }

    /// Fills from the role what the token does not say itself.
    fn identity(
        &self,
        user: UserId,
        claim: Option<RivuletClaim>,
        expires_at: Option<SystemTime>,
    ) -> Result<Identity, Denied> {
        let claim = claim.unwrap_or(RivuletClaim {
            events: None,
            commands: None,
            subscribe: Vec::new(),
            role: None,
        });
        let role_name = claim.role.as_ref().unwrap_or(&self.default_role);
        let role = self
            .roles
            .get(role_name)
            .ok_or_else(|| Denied::Claim("rivulet.role".into()))?;
        let commands = claim.commands.unwrap_or_else(|| role.commands.clone());
        let identity = Identity {
            user,
            events: claim.events.unwrap_or_else(|| role.events.clone()).into(),
            commands: if commands.iter().any(|command| command == "*") {
                CommandPermission::All
            } else {
                CommandPermission::Only(commands.into())
            },
            subscribe: Vec::new(),
            devices: if self.dev {
                0
            } else {
                role.devices_per_user.unwrap_or(self.devices_per_user)
            },
            expires_at,
        };
        if claim
            .subscribe
            .iter()
            .any(|pattern| !identity.may_subscribe(pattern))
        {
            return Err(Denied::Claim("rivulet.subscribe".into()));
        }
        Ok(Identity {
            subscribe: claim.subscribe,
            ..identity
        })
    }
}

/// The year 9999: beyond it a time is a mistake, and could not be printed.
const MAX_SECONDS: f64 = 253_402_300_799.0;

impl VerifyingKey {
    fn new(key: &Key) -> Result<Self, jsonwebtoken::errors::Error> {
        match key {
            Key::Secret { secret, algorithms } => Ok(Self {
                key: DecodingKey::from_secret(secret.0.as_bytes()),
                algorithms: algorithms.clone(),
            }),
            Key::Pem { pem, algorithms } => {
                let pem = pem.as_bytes();
                let key = DecodingKey::from_ec_pem(pem)
                    .or_else(|_| DecodingKey::from_ed_pem(pem))
                    .or_else(|_| DecodingKey::from_rsa_pem(pem))?;
                Ok(Self {
                    key,
                    algorithms: algorithms.clone(),
                })
            }
        }
    }
}

/// Whether a text could be a JWT: three parts of base64url.
fn is_jwt_shaped(token: &str) -> bool {
    let is_part = |part: &str| {
        part.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    token.split('.').count() == 3 && token.split('.').all(is_part) && !token.starts_with('.')
}
