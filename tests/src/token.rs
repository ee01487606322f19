//! Tokens as an application's backend would mint them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

/// The secret that test routers check tokens with.
pub const SECRET: &str = "a secret that is only for tests, 32 bytes and more";

/// A token of `user` that lasts an hour.
pub fn token(user: &str) -> String {
    token_with(user, json!({}))
}

/// A token of `user` with the claim `rivulet`.
pub fn token_for(user: &str, rivulet: Value) -> String {
    token_with(user, json!({ "rivulet": rivulet }))
}

/// A token of `user` that ends after `lifetime`.
pub fn token_lasting(user: &str, lifetime: Duration) -> String {
    // `exp` is read as a whole second or a fraction of one (RFC 7519, section 2).
    token_with(user, json!({ "exp": (now() + lifetime).as_secs() }))
}

/// What `attempt` makes of a token of `user` that ends soon. Tries lifetimes from 2 s, doubling to 64 s, until one
/// outlasts the attempt on this machine; `attempt` returns `None` when the token ended too early.
pub async fn ending_soon<T>(user: &str, attempt: impl AsyncFn(String) -> Option<T>) -> T {
    for doublings in 1..=6 {
        let token = token_lasting(user, Duration::from_secs(1 << doublings));
        if let Some(outcome) = attempt(token).await {
            return outcome;
        }
    }
    panic!("no token outlasts the attempt");
}

/// A token of `user` whose further claims are `claims`.
pub fn token_with(user: &str, claims: Value) -> String {
    let mut all = json!({ "sub": user, "exp": (now() + Duration::from_secs(3600)).as_secs() });
    for (name, value) in claims.as_object().expect("claims are an object") {
        all[name] = value.clone();
    }
    jsonwebtoken::encode(
        &Header::default(),
        &all,
        &EncodingKey::from_secret(SECRET.as_bytes()),
    )
    .expect("claims are JSON")
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970")
}
