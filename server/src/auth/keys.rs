//! A key and the algorithms that it is for.

use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, crypto};

use super::Unverified;
use crate::config::{Key, Secret};

/// A key to check signatures with, and the algorithms that it may be used with: those of the configuration, so
/// that a public key is never taken for a shared secret, whatever a token's `alg` says.
#[derive(Debug)]
pub(super) struct VerificationKey {
    key: DecodingKey,
    algorithms: Vec<Algorithm>,
}

impl VerificationKey {
    pub(super) fn new(key: DecodingKey, algorithms: Vec<Algorithm>) -> Self {
        Self { key, algorithms }
    }

    pub(super) fn from_config(key: &Key) -> Result<Self, InvalidKey> {
        let (key, algorithms) = match key {
            Key::Secret {
                secret: Secret(secret),
                algorithms,
            } => (DecodingKey::from_secret(secret.as_bytes()), algorithms),
            Key::Pem { pem, algorithms } => {
                let family = algorithms.first().ok_or(InvalidKey::NoAlgorithm)?.family();
                let pem = pem.as_bytes();
                let key = match family {
                    AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(pem),
                    AlgorithmFamily::Ec => DecodingKey::from_ec_pem(pem),
                    AlgorithmFamily::Ed => DecodingKey::from_ed_pem(pem),
                    AlgorithmFamily::Hmac => return Err(InvalidKey::SharedPem),
                };
                // What jsonwebtoken has to say about it adds nothing.
                (key.map_err(|_| InvalidKey::Pem(family))?, algorithms)
            }
        };
        match algorithms
            .iter()
            .find(|algorithm| algorithm.family() != key.family())
        {
            Some(other) => Err(InvalidKey::OtherFamily(*other)),
            None if algorithms.is_empty() => Err(InvalidKey::NoAlgorithm),
            None => Ok(Self::new(key, algorithms.clone())),
        }
    }

    pub(super) fn is_for(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Whether the signature is of this key. The caller has asked [`VerificationKey::is_for`].
    pub(super) fn verifies(&self, token: &Unverified<'_>) -> bool {
        // An error is a key of another family or curve: no signature of it either.
        crypto::verify(
            token.signature,
            token.message.as_bytes(),
            &self.key,
            token.algorithm,
        )
        .unwrap_or(false)
    }
}

/// Why a key of the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidKey {
    #[error("a key needs at least one algorithm")]
    NoAlgorithm,
    #[error("a PEM holds no shared secret: HS256, HS384 and HS512 are for secrets")]
    SharedPem,
    #[error("not a public key in PEM of the kind that its algorithms need ({0:?})")]
    Pem(AlgorithmFamily),
    #[error("{0:?} is for another kind of key")]
    OtherFamily(Algorithm),
}
