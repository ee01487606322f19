//! What the check of a token takes: of one that was never seen, and of one that was.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rivulet_protocol::pattern::Pattern;
use rivulet_router::{
    auth::Auth,
    config::{self, Key, Role, Secret},
    metrics::Metrics,
};
use serde_json::json;

/// Tokens of each kind; fewer than are kept.
const TOKENS: usize = 5_000;

/// Prints the figures of each algorithm.
pub(crate) async fn measure(repeat: usize) -> anyhow::Result<()> {
    println!(
        "{:<8} {:>10} {:>14} {:>14}   µs a check, the least of {repeat}",
        "", "bytes", "new token", "known token"
    );
    for (algorithm, signing, key) in pairs()? {
        let tokens = tokens(algorithm, &signing)?;
        let mut best = [f64::MAX; 2];
        for _ in 0..repeat {
            let auth = auth(key.clone())?;
            for best in &mut best {
                *best = best.min(check(&auth, &tokens).await?);
            }
        }
        let [new, known] = best;
        let bytes = tokens[0].len();
        println!(
            "{:<8} {bytes:>10} {new:>14.2} {known:>14.2}",
            format!("{algorithm:?}")
        );
    }
    Ok(())
}

/// Checks each once; returns microseconds for one.
async fn check(auth: &Auth, tokens: &[String]) -> anyhow::Result<f64> {
    let now = SystemTime::now();
    let began = Instant::now();
    for token in tokens {
        auth.check(token, now).await?;
    }
    Ok(began.elapsed().as_secs_f64() * 1e6 / tokens.len() as f64)
}

fn pairs() -> anyhow::Result<Vec<(Algorithm, EncodingKey, Key)>> {
    let secret = "a secret that is only for the bench, 32 bytes and more";
    let rsa = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048)?;
    let rsa_private: Pkcs8V1Der<'_> = rsa.as_der()?;
    let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
    let ed = Ed25519KeyPair::generate()?;
    let public = |algorithm, key: &dyn AsDer<PublicKeyX509Der<'static>>| {
        let pem = pem("PUBLIC KEY", key.as_der()?.as_ref());
        anyhow::Ok(Key::Pem {
            pem,
            algorithms: vec![algorithm],
        })
    };
    Ok(vec![
        (
            Algorithm::HS256,
            EncodingKey::from_secret(secret.as_bytes()),
            Key::Secret {
                secret: Secret(secret.to_owned()),
                algorithms: vec![Algorithm::HS256],
            },
        ),
        (
            Algorithm::RS256,
            EncodingKey::from_rsa_pem(pem("PRIVATE KEY", rsa_private.as_ref()).as_bytes())?,
            public(Algorithm::RS256, rsa.public_key())?,
        ),
        (
            Algorithm::ES256,
            EncodingKey::from_ec_der(ec.to_pkcs8v1()?.as_ref()),
            public(Algorithm::ES256, ec.public_key())?,
        ),
        (
            Algorithm::EdDSA,
            EncodingKey::from_ed_der(ed.to_pkcs8v1()?.as_ref()),
            public(Algorithm::EdDSA, ed.public_key())?,
        ),
    ])
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

fn tokens(algorithm: Algorithm, key: &EncodingKey) -> anyhow::Result<Vec<String>> {
    let ends = SystemTime::now() + Duration::from_secs(3600);
    let ends = ends.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let token = |user| {
        let claims = json!({
            "sub": format!("user-{user:06}"), "exp": ends,
            "rivulet": {"events": ["blob.*", "book.*"], "commands": ["create_blob"]},
        });
        jsonwebtoken::encode(&Header::new(algorithm), &claims, key).context("a token")
    };
    (0..TOKENS).map(token).collect()
}

fn auth(key: Key) -> anyhow::Result<Auth> {
    let auth = config::Auth {
        keys: vec![key],
        jwks_url: None,
        jwks_algorithms: vec![],
        jwks_refresh: Duration::from_secs(3600),
        issuers: vec![],
        audiences: vec![],
        user_claim: "sub".to_owned(),
        expiry_leeway: Duration::ZERO,
        not_before_leeway: Duration::ZERO,
    };
    let role = Role {
        events: vec![Pattern::all()],
        commands: vec!["*".to_owned()],
        devices_per_user: None,
    };
    let roles = BTreeMap::from([("user".to_owned(), role)]);
    Ok(Auth::new(
        &auth,
        &roles,
        "user",
        5,
        false,
        Arc::new(Metrics::new([])),
    )?)
}
