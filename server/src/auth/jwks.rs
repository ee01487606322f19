//! Keys that are read from a JSON Web Key Set (RFC 7517): by timer, and when a token names a key that is not
//! known, at most once in [`FLOOR`].

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{Jwk, JwkSet, PublicKeyUse},
};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::VerifyingKey;

/// The least time between two reads, whatever tokens name: a stranger can make up key ids.
const FLOOR: Duration = Duration::from_secs(10);
/// How long a read may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The most bytes of a key set: some hundred keys.
const MAX_BYTES: usize = 512 << 10;
/// The most keys that are kept.
const MAX_KEYS: usize = 100;

pub(super) struct Jwks {
    url: String,
    algorithms: Vec<Algorithm>,
    every: Duration,
    client: reqwest::Client,
    known: Mutex<Known>,
    /// One reads, the others wait for what it brings.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    keys: Vec<(Option<String>, VerifyingKey)>,
    read_at: Option<Instant>,
    failing: bool,
}

impl Jwks {
    pub(super) fn new(url: String, algorithms: Vec<Algorithm>, every: Duration) -> Self {
        // A redirect could lead to where nobody meant to trust keys from.
        let client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("a client without options that can fail");
        Self {
            url,
            algorithms,
            every,
            client,
            known: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
        }
    }

    /// The keys with this id; without one, all. Reads the set anew if it has none of that id.
    pub(super) async fn keys(&self, id: Option<&str>) -> Vec<VerifyingKey> {
        let found = self.known_keys(id);
        if !found.is_empty() {
            return found;
        }
        let _reading = self.reading.lock().await;
        let floor = self
            .lock()
            .read_at
            .is_some_and(|read_at| read_at.elapsed() < FLOOR);
        if !floor {
            self.read().await;
        }
        self.known_keys(id)
    }

    /// Reads the set by timer, for ever.
    pub(super) async fn refresh(&self) {
        loop {
            {
                let _reading = self.reading.lock().await;
                self.read().await;
            }
            sleep(self.every.max(FLOOR)).await;
        }
    }

    fn known_keys(&self, id: Option<&str>) -> Vec<VerifyingKey> {
        let known = self.lock();
        let of_id = known
            .keys
            .iter()
            .filter(|(known, _)| id.is_none() || known.as_deref() == id);
        of_id.map(|(_, key)| key.clone()).collect()
    }

    /// Puts what the set holds now in the place of what it held. A failed read leaves the old keys in force.
    async fn read(&self) {
        let fetched = self.fetch().await;
        let mut known = self.lock();
        known.read_at = Some(Instant::now());
        match fetched {
            Ok(set) => {
                known.keys = set
                    .keys
                    .iter()
                    .filter_map(|jwk| self.verifying_key(jwk))
                    .take(MAX_KEYS)
                    .collect();
                info!(keys = known.keys.len(), "read the key set");
                known.failing = false;
            }
            Err(error) => {
                if !known.failing {
                    warn!(%error, kept = known.keys.len(), "can't read the key set; the keys known stay in force");
                }
                known.failing = true;
            }
        }
    }

    async fn fetch(&self) -> Result<JwkSet, String> {
        // The error's own text would hold the URL, which may hold a secret of its own.
        let failed = |error: reqwest::Error| error.without_url().to_string();
        let mut response = self
            .client
            .get(&self.url)
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .map_err(failed)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > MAX_BYTES {
                return Err(format!("the key set has more than {MAX_BYTES} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map_err(|error| error.to_string())
    }

    /// A key for signatures, with the algorithms of the configuration that fit it.
    fn verifying_key(&self, jwk: &Jwk) -> Option<(Option<String>, VerifyingKey)> {
        if matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)) {
            return None;
        }
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let named = jwk.common.key_algorithm.map(|algorithm| algorithm.to_string());
        let fits = |algorithm: &&Algorithm| {
            let name = format!("{algorithm:?}");
            algorithm.family() == key.family() && named.as_ref().is_none_or(|named| *named == name)
        };
        let algorithms: Vec<_> = self.algorithms.iter().filter(fits).copied().collect();
        (!algorithms.is_empty()).then(|| (jwk.common.key_id.clone(), VerifyingKey { key, algorithms }))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
