//! The keys that an issuer publishes (RFC 7517), read over HTTP.
//!
//! They are read by a timer, and when a token names a key that is not known, but never twice within
//! [`MIN_BETWEEN_READS`], as any stranger can name one. A read that fails leaves the keys as they were. One that
//! says something new makes another version of them.

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use reqwest::{Client, Url, redirect};
use serde::Deserialize;
use serde_json::Value;
use tokio::{sync::Mutex, time::Instant};
use tracing::{info, warn};

use super::{TokenError, keys::VerificationKey};

/// The shortest time from the end of one read to the start of the next.
pub(super) const MIN_BETWEEN_READS: Duration = Duration::from_secs(10);

/// When a failed read is repeated, if the timer would not do so sooner.
const RETRY: Duration = Duration::from_secs(30);

/// How long a read may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The most bytes in the answer. The largest seen in the wild are about 20 KB, certificates included.
const MAX_BYTES: usize = 256 * 1024;

/// The most keys that are kept: the first.
const MAX_KEYS: usize = 64;

/// The keys that an issuer publishes.
#[derive(Debug)]
pub(super) struct Jwks {
    url: Url,
    client: Client,
    algorithms: Vec<Algorithm>,
    refresh: Duration,
    /// `None` until they were read once.
    keys: RwLock<Option<Arc<[Published]>>>,
    /// Of `keys`; rises after they have changed.
    version: AtomicU64,
    /// Held while reading, so that all who wait for a read wait for the same.
    last_read: Arc<Mutex<LastRead>>,
}

#[derive(Debug)]
struct Published {
    id: Option<String>,
    key: Arc<VerificationKey>,
}

#[derive(Debug, Default)]
struct LastRead {
    ended: Option<Instant>,
    failed: bool,
    /// The answer's text of the last read that did not fail.
    text: Vec<u8>,
}

impl Jwks {
    pub(super) fn new(
        url: &str,
        algorithms: &[Algorithm],
        refresh: Duration,
    ) -> Result<Self, UnreadableJwks> {
        Ok(Self {
            url: url.parse().map_err(|_| UnreadableJwks::Url)?,
            // A redirect would let somebody else than the one configured name the keys.
            client: Client::builder()
                .timeout(TIMEOUT)
                .redirect(redirect::Policy::none())
                .build()?,
            algorithms: algorithms.to_vec(),
            refresh,
            keys: RwLock::default(),
            version: AtomicU64::new(0),
            last_read: Arc::default(),
        })
    }

    /// The version of the keys: what an earlier one verified may not be of these.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }

    /// Whether its keys may be used with this algorithm.
    pub(super) fn is_for(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// The key of this id, read anew if there is none. A token without an id is checked only where just one key
    /// fits its algorithm: a stranger doesn't make us try them all.
    pub(super) async fn key(
        self: &Arc<Self>,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Arc<VerificationKey>, TokenError> {
        match self.find(id, algorithm) {
            Err(TokenError::UnknownKey | TokenError::KeysUnavailable) => {
                self.read_unless_just_read().await;
                self.find(id, algorithm)
            }
            found => found,
        }
    }

    pub(super) async fn keep_fresh(&self) {
        loop {
            let failed = {
                let mut last_read = self.last_read.lock().await;
                self.read(&mut last_read).await;
                last_read.failed
            };
            let pause = if failed {
                self.refresh.min(RETRY)
            } else {
                self.refresh
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Reads the keys once, and says how many fit.
    pub(super) async fn try_read(&self) -> Result<usize, UnreadableJwks> {
        Ok(self.fetch().await?.0.len())
    }

    fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<Arc<VerificationKey>, TokenError> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        let keys = keys.ok_or(TokenError::KeysUnavailable)?;
        let named: Vec<_> = keys
            .iter()
            .filter(|published| id.is_none() || published.id.as_deref() == id)
            .collect();
        let mut fitting = named.iter().filter(|published| published.key.is_for(algorithm));
        match (fitting.next(), fitting.next()) {
            (Some(published), None) => Ok(Arc::clone(&published.key)),
            // Two keys of one id and kind: the first counts.
            (Some(published), Some(_)) if id.is_some() => Ok(Arc::clone(&published.key)),
            _ if id.is_some() && !named.is_empty() => Err(TokenError::Algorithm),
            _ => Err(TokenError::UnknownKey),
        }
    }

    async fn read_unless_just_read(self: &Arc<Self>) {
        let mut last_read = Arc::clone(&self.last_read).lock_owned().await;
        if last_read
            .ended
            .is_some_and(|ended| ended.elapsed() < MIN_BETWEEN_READS)
        {
            return;
        }
        let jwks = Arc::clone(self);
        // A task of its own, which ends also where who asked goes away: else the next would begin anew.
        let read = tokio::spawn(async move { jwks.read(&mut last_read).await });
        // It fails only by a panic: the keys stay as they were.
        let _ = read.await;
    }

    async fn read(&self, last_read: &mut LastRead) {
        let read = self.fetch().await;
        last_read.ended = Some(Instant::now());
        let failed_before = std::mem::replace(&mut last_read.failed, read.is_err());
        let host = self.url.host_str().unwrap_or_default();
        match read {
            Ok((keys, text)) => {
                if failed_before {
                    info!(host, keys = keys.len(), "the JWKS can be read again");
                }
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(keys);
                if last_read.text != text {
                    last_read.text = text;
                    // Only now: a token that is found to be of this version was verified with these keys.
                    self.version.fetch_add(1, Ordering::SeqCst);
                }
            }
            Err(error) if !failed_before => {
                warn!(host, %error, "the JWKS cannot be read: the keys stay as they were");
            }
            Err(_) => {}
        }
    }

    /// The keys, and the text that they were read from.
    async fn fetch(&self) -> Result<(Arc<[Published]>, Vec<u8>), UnreadableJwks> {
        let mut response = self.client.get(self.url.clone()).send().await?;
        if !response.status().is_success() {
            return Err(UnreadableJwks::Status(response.status().as_u16()));
        }
        let mut text = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if text.len() + chunk.len() > MAX_BYTES {
                return Err(UnreadableJwks::TooLarge);
            }
            text.extend_from_slice(&chunk);
        }
        Ok((published(&text, &self.algorithms)?, text))
    }
}

/// Why the keys could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnreadableJwks {
    #[error("not a URL")]
    Url,
    #[error("{0}")]
    Http(reqwest::Error),
    #[error("answered with status {0}")]
    Status(u16),
    #[error("the answer is over {MAX_BYTES} bytes")]
    TooLarge,
    #[error("the answer is not a JSON object with the array `keys`")]
    Form,
    #[error("the answer has no key that tokens may be signed with")]
    NoKeys,
}

impl From<reqwest::Error> for UnreadableJwks {
    fn from(error: reqwest::Error) -> Self {
        // A URL may hold a password.
        Self::Http(error.without_url())
    }
}

/// The keys for signatures, each with those of `algorithms` that fit it. Others are passed over: a set may hold
/// keys of kinds that are not known here (RFC 7517 §5).
fn published(text: &[u8], algorithms: &[Algorithm]) -> Result<Arc<[Published]>, UnreadableJwks> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let set: Set = serde_json::from_slice(text).map_err(|_| UnreadableJwks::Form)?;
    let keys: Arc<[_]> = set
        .keys
        .into_iter()
        .filter_map(|key| {
            let key: Jwk = serde_json::from_value(key).ok()?;
            let fitting: Vec<_> = algorithms
                .iter()
                .copied()
                .filter(|algorithm| is_for(&key, *algorithm))
                .collect();
            if fitting.is_empty() {
                return None;
            }
            let decoding = DecodingKey::from_jwk(&key).ok()?;
            Some(Published {
                id: key.common.key_id,
                key: Arc::new(VerificationKey::new(decoding, fitting)),
            })
        })
        .take(MAX_KEYS)
        .collect();
    if keys.is_empty() {
        return Err(UnreadableJwks::NoKeys);
    }
    Ok(keys)
}

/// Whether the key is meant for this algorithm. One for shared secrets never is: it would be public.
fn is_for(key: &Jwk, algorithm: Algorithm) -> bool {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    let by_kind: &[Algorithm] = match &key.algorithm {
        AlgorithmParameters::RSA(_) => &[RS256, RS384, RS512, PS256, PS384, PS512],
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => &[ES256],
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P384 => &[ES384],
        AlgorithmParameters::OctetKeyPair(okp) if okp.curve == EllipticCurve::Ed25519 => &[EdDSA],
        _ => &[],
    };
    let common = &key.common;
    by_kind.contains(&algorithm)
        && common
            .public_key_use
            .as_ref()
            .is_none_or(|usage| *usage == PublicKeyUse::Signature)
        && common
            .key_operations
            .as_ref()
            .is_none_or(|operations| operations.contains(&KeyOperations::Verify))
        && common
            .key_algorithm
            .is_none_or(|stated| stated == KeyAlgorithm::from(algorithm))
}
