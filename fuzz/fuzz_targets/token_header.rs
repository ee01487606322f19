//! Whatever stands where a token should: it counts only if it is signed, and then the identity keeps to its bounds.
//!
//! The input's first byte says what follows: 0 the token itself, anything else its header and its claims, in a
//! line each, which are signed here so that what is behind the signature is reached.

#![no_main]

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use futures_util::FutureExt;
use jsonwebtoken::{Algorithm, EncodingKey, crypto::sign};
use libfuzzer_sys::fuzz_target;
use rivulet_router::{
    auth::{Auth, MAX_TOKEN_BYTES},
    config::{Config, Inputs, Purpose},
    metrics::Metrics,
};

const SECRET: &str = "a secret of thirty-two bytes, at least";
/// So that an input means the same tomorrow.
const NOW: Duration = Duration::from_secs(1_800_000_000);

static AUTH: LazyLock<Auth> = LazyLock::new(|| {
    let inputs = Inputs::default().set("jwt_secret", SECRET);
    let config = Config::load(&inputs, Purpose::Router).unwrap();
    let devices = config.limits.devices_per_user;
    let metrics = Arc::new(Metrics::new([]));
    Auth::new(
        &config.auth,
        &config.roles,
        &config.default_role,
        devices,
        false,
        metrics,
    )
    .unwrap()
});

fuzz_target!(|text: &str| {
    let Some((kind, rest)) = text.split_at_checked(1) else {
        return;
    };
    let token = match (kind, rest.split_once('\n')) {
        ("0", _) => rest.to_owned(),
        (_, Some((header, claims))) => {
            let [header, claims] = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
            let signed = format!("{header}.{claims}");
            format!("{signed}.{}", signature(&signed, Algorithm::HS256))
        }
        _ => return,
    };
    let now = SystemTime::UNIX_EPOCH + NOW;
    let checked = AUTH.check(&token, now).now_or_never().expect("no keys are read");
    match checked {
        Ok(identity) => {
            assert!(token.len() <= MAX_TOKEN_BYTES);
            let (signed, ours) = token.rsplit_once('.').expect("a JWT has three parts");
            let all = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
            assert!(
                all.into_iter()
                    .any(|algorithm| signature(signed, algorithm) == ours),
                "not signed: {token}"
            );
            assert!((1..=128).contains(&identity.user.as_str().len()));
            assert!(identity.expires_at.is_some_and(|end| end > now), "{identity:?}");
        }
        Err(error) => {
            let body = error.to_body();
            assert!(body.message.len() < 1_024, "{}", body.message);
        }
    }
});

fn signature(signed: &str, algorithm: Algorithm) -> String {
    sign(
        signed.as_bytes(),
        &EncodingKey::from_secret(SECRET.as_bytes()),
        algorithm,
    )
    .unwrap()
}
