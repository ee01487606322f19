//! Token → [`Identity`], or a [`TokenError`] that answers for itself.
//!
//! A token is a JWT (RFC 7519) signed as a JWS in compact form (RFC 7515). What a token says about how to check
//! it counts for nothing: each key has its algorithms from the configuration, `kid` only chooses among the keys
//! of the JWKS, and `jku`, `x5u`, `jwk` and `x5c` are not looked at. Order: size, form, signature, then claims,
//! so that nothing an unsigned token says is believed or answered for. What was checked once is known by its digest
//! ([`verified`]).
//!
//! It knows no sockets and no routing. A token, or a part of one, never reaches a log or an error's message.

mod claims;
mod jwks;
mod keys;
#[cfg(test)]
mod tests;
mod verified;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use rivulet_protocol::{
    close::CloseCode,
    error::{ErrorBody, ErrorCode},
};
use serde::Deserialize;

use self::{
    claims::Rules,
    jwks::Jwks,
    keys::VerificationKey,
    verified::{Digest, Verified},
};
use crate::{config, identity::Identity, metrics::Metrics};

/// The most bytes in a token.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// The media types (header `typ`, RFC 7519 §5.1 and RFC 9068 §2.1) of tokens that say who somebody is. A token
/// made for something else, such as `logout+jwt`, says so here (RFC 8725 §3.11).
const TYPES: [&str; 2] = ["JWT", "at+jwt"];

/// Checks tokens.
#[derive(Debug)]
pub struct Auth {
    dev: bool,
    keys: Vec<VerificationKey>,
    jwks: Option<Arc<Jwks>>,
    rules: Rules,
    verified: Verified,
}

/// Why a token does not count. Its `Display` is for whoever sent the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There is none.
    #[error(
        "a token is needed: the header `Authorization: Bearer …`, the subprotocol `bearer.…` or the query `token`"
    )]
    Missing,
    /// It is over [`MAX_TOKEN_BYTES`].
    #[error("the token is over {MAX_TOKEN_BYTES} bytes")]
    TooLong,
    /// It is not a signed JWT.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// No key is there for its algorithm.
    #[error("the token is signed with an algorithm that is not accepted here")]
    Algorithm,
    /// No published key has its `kid`.
    #[error("the token is signed with a key that is not known here")]
    UnknownKey,
    /// The signature is not of a key that is known here.
    #[error("the token's signature is wrong")]
    Signature,
    /// It has ended.
    #[error("the token has expired")]
    Expired,
    /// It has not begun.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// It is from somebody else.
    #[error("the token's issuer is not accepted here")]
    Issuer,
    /// It is for somebody else.
    #[error("the token is for another audience")]
    Audience,
    /// The issuer wrote a claim that cannot be understood.
    #[error("the token's claim `{claim}` {why}")]
    Claim {
        /// The claim, as a path: `rivulet.events[2]`.
        claim: String,
        /// What is wrong with it.
        why: Cow<'static, str>,
    },
    /// The keys to check it with could not be read yet: nobody's fault but ours.
    #[error("the keys to check tokens with cannot be read at present")]
    KeysUnavailable,
}

impl TokenError {
    /// The code of the `error` frame.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::KeysUnavailable => ErrorCode::Unavailable,
            _ => ErrorCode::Unauthorized,
        }
    }

    /// The code of the close.
    pub fn close_code(&self) -> CloseCode {
        match self {
            Self::KeysUnavailable => CloseCode::TryAgainLater,
            _ => CloseCode::Unauthorized,
        }
    }

    /// The `error` that says so.
    pub fn to_body(&self) -> ErrorBody {
        let body = ErrorBody::new(self.code(), self.to_string());
        match self {
            Self::KeysUnavailable => body.retry_after(jwks::MIN_BETWEEN_READS.as_secs_f64()),
            _ => body,
        }
    }

    /// A word for logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::TooLong => "too_long",
            Self::Malformed(_) => "malformed",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Claim { .. } => "claim",
            Self::KeysUnavailable => "keys_unavailable",
        }
    }
}

/// Why tokens cannot be checked as configured.
#[derive(Debug, thiserror::Error)]
pub enum InvalidAuth {
    /// A key that is not what its algorithms need.
    #[error("auth.keys[{index}]: {why}")]
    Key {
        /// Which, from 0.
        index: usize,
        /// What is wrong with it; nothing of the key itself.
        why: String,
    },
    /// The default role is none of the roles.
    #[error("default_role: there is no role `{0}`")]
    DefaultRole(String),
    /// The JWKS cannot be asked for.
    #[error("auth.jwks_url: {0}")]
    Jwks(String),
}

/// Reads the keys that the configured issuer publishes, once. `None`: none is configured. Else what was found, or why
/// nothing was.
pub async fn read_published_keys(auth: &config::Auth) -> Option<Result<String, String>> {
    let url = auth.jwks_url.as_deref()?;
    let read = async {
        let jwks = Jwks::new(url, &auth.jwks_algorithms, auth.jwks_refresh)?;
        jwks.try_read().await
    };
    Some(match read.await {
        Ok(keys) => Ok(format!(
            "{url} publishes {keys} keys that tokens may be signed with"
        )),
        Err(fault) => Err(format!("`auth.jwks_url`: {fault}")),
    })
}

impl Auth {
    /// Reads the keys of the configuration; those of a JWKS are read when they are needed, and by
    /// [`Auth::keep_keys_fresh`].
    ///
    /// # Errors
    /// [`InvalidAuth`] names what cannot be used.
    pub fn new(
        auth: &config::Auth,
        roles: &BTreeMap<String, config::Role>,
        default_role: &str,
        devices_per_user: usize,
        dev: bool,
        metrics: Arc<Metrics>,
    ) -> Result<Self, InvalidAuth> {
        let keys = auth.keys.iter().enumerate().map(|(index, key)| {
            VerificationKey::from_config(key).map_err(|error| InvalidAuth::Key {
                index,
                why: error.to_string(),
            })
        });
        let jwks = auth
            .jwks_url
            .as_deref()
            .map(|url| Jwks::new(url, &auth.jwks_algorithms, auth.jwks_refresh))
            .transpose();
        Ok(Self {
            dev,
            keys: keys.collect::<Result<_, _>>()?,
            jwks: jwks
                .map_err(|error| InvalidAuth::Jwks(error.to_string()))?
                .map(Arc::new),
            rules: Rules::new(auth, roles, default_role, devices_per_user, dev)
                .ok_or_else(|| InvalidAuth::DefaultRole(default_role.to_owned()))?,
            verified: Verified::new(metrics),
        })
    }

    /// Whom the token is of and what they may do. Waits for the JWKS at most once, and only where the token
    /// names a key that is not known.
    ///
    /// With `dev`, what is not a JWT is itself the user id and does not end, and devices are not counted.
    ///
    /// # Errors
    /// Why the token does not count at `now`.
    pub async fn check(&self, token: &str, now: SystemTime) -> Result<Identity, TokenError> {
        if token.is_empty() {
            return Err(TokenError::Missing);
        }
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong);
        }
        if self.dev && !looks_like_a_jwt(token) {
            return self.rules.developer(token);
        }
        let digest = Digest::of(token);
        // Before the token is verified: what changes meanwhile is not what verified it.
        let keys = self.jwks.as_ref().map_or(0, |jwks| jwks.version());
        if let Some(identity) = self.verified.find(&digest, now, keys) {
            return Ok(identity);
        }
        let token = Unverified::parse(token)?;
        self.verify(&token).await?;
        let claims = serde_json::from_slice(&token.claims)
            .map_err(|_| TokenError::Malformed("its claims are not a JSON object"))?;
        let identity = self.rules.identity(&claims, now)?;
        self.verified.keep(digest, identity.clone(), now, keys);
        Ok(identity)
    }

    /// Reads the JWKS again and again; never ends. Without a JWKS, waits for ever.
    pub async fn keep_keys_fresh(&self) {
        match &self.jwks {
            Some(jwks) => jwks.keep_fresh().await,
            None => std::future::pending().await,
        }
    }

    async fn verify(&self, token: &Unverified<'_>) -> Result<(), TokenError> {
        let mut fits = false;
        for key in self.keys.iter().filter(|key| key.is_for(token.algorithm)) {
            fits = true;
            if key.verifies(token) {
                return Ok(());
            }
        }
        let refused = if fits {
            TokenError::Signature
        } else {
            TokenError::Algorithm
        };
        let Some(jwks) = self.jwks.as_ref().filter(|jwks| jwks.is_for(token.algorithm)) else {
            return Err(refused);
        };
        let key = jwks.key(token.key_id.as_deref(), token.algorithm).await?;
        if key.verifies(token) {
            Ok(())
        } else {
            Err(TokenError::Signature)
        }
    }
}

/// A JWS in compact form, taken apart.
struct Unverified<'a> {
    algorithm: Algorithm,
    key_id: Option<String>,
    /// What is signed: header and claims as they stand in the token.
    message: &'a str,
    /// In base64url.
    signature: &'a str,
    claims: Vec<u8>,
}

impl<'a> Unverified<'a> {
    fn parse(token: &'a str) -> Result<Self, TokenError> {
        /// Twice the same member is an error, as the derived code has it (RFC 7515 §4 leaves the choice).
        #[derive(Deserialize)]
        struct Header {
            alg: String,
            kid: Option<String>,
            typ: Option<String>,
            crit: Option<serde::de::IgnoredAny>,
        }
        let malformed = TokenError::Malformed;
        let (message, signature) = token
            .rsplit_once('.')
            .ok_or(malformed("it is not three parts with dots between"))?;
        let (header, claims) = message
            .split_once('.')
            .filter(|(_, claims)| !claims.contains('.'))
            .ok_or(malformed("it is not three parts with dots between"))?;
        let decoded = |part| {
            BASE64_URL_SAFE_NO_PAD
                .decode(part)
                .map_err(|_| malformed("a part of it is not base64url without padding"))
        };
        let header: Header = serde_json::from_slice(&decoded(header)?)
            .map_err(|_| malformed("its header is not a JSON object with the string `alg`"))?;
        if header.crit.is_some() {
            // RFC 7515 §4.1.11: whoever does not understand all of it must refuse; nothing is understood here.
            return Err(malformed("its header has `crit`"));
        }
        if let Some(media_type) = &header.typ {
            let short = media_type
                .split_at_checked("application/".len())
                .filter(|(prefix, _)| prefix.eq_ignore_ascii_case("application/"))
                .map_or(media_type.as_str(), |(_, rest)| rest);
            if !TYPES.iter().any(|accepted| accepted.eq_ignore_ascii_case(short)) {
                return Err(malformed("its header's `typ` is not `JWT`"));
            }
        }
        decoded(signature)?;
        Ok(Self {
            // Also `none`: there is no such algorithm.
            algorithm: header.alg.parse().map_err(|_| TokenError::Algorithm)?,
            key_id: header.kid,
            message,
            signature,
            claims: decoded(claims)?,
        })
    }
}

/// Whether somebody meant this as a JWT: three parts, the first of which is a JSON object. The user id `a.b.c`
/// is not.
fn looks_like_a_jwt(token: &str) -> bool {
    let mut parts = token.split('.');
    let header = parts
        .next()
        .and_then(|header| BASE64_URL_SAFE_NO_PAD.decode(header).ok());
    parts.count() == 2
        && header.is_some_and(|header| {
            serde_json::from_slice::<BTreeMap<String, serde::de::IgnoredAny>>(&header).is_ok()
        })
}
