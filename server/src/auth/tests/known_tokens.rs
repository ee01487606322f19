//! Tokens that were verified before: what they come to, and what ends that.

use super::{published_keys::*, *};

fn hits(auth: &Auth) -> u64 {
    auth.verified.metrics().tokens.hits.get()
}

#[tokio::test]
async fn a_known_token_comes_to_what_it_came_to_first() {
    let auth = auth(&config(), false);
    let token = permitting(json!({
        "role": "viewer", "events": ["book.*"], "commands": ["create_blob"], "subscribe": ["book.created"]
    }));
    let first = check(&auth, &token).await.unwrap();
    assert_eq!(hits(&auth), 0);
    let again = check(&auth, &token).await.unwrap();
    assert_eq!(hits(&auth), 1);
    let said = |identity: &Identity| {
        let Who {
            user,
            events,
            commands,
            subscribe,
            devices,
            expires_at,
        } = &**identity;
        format!("{user} {events:?} {commands:?} {subscribe:?} {devices} {expires_at:?}")
    };
    assert_eq!(said(&again), said(&first));
}

#[tokio::test]
async fn a_known_token_ends_when_it_ends() {
    let auth = auth(&config(), false);
    let token = hs256(&good());
    for (second, expected) in [(0, "is u1"), (59, "is u1"), (60, "expired"), (61, "expired")] {
        let checked = auth.check(&token, at(NOW + second)).await;
        assert_eq!(outcome(checked), expected, "{second}");
    }
    assert_eq!(hits(&auth), 1);
}

#[tokio::test]
async fn a_known_token_has_not_begun_when_the_clock_goes_back() {
    let auth = auth(&config(), false);
    let token = claiming(json!({"nbf": NOW}));
    assert_eq!(outcome(check(&auth, &token).await), "is u1");
    let earlier = auth.check(&token, at(NOW - 6)).await;
    assert_eq!(outcome(earlier), "not_yet_valid");
}

#[tokio::test]
async fn a_token_that_differs_in_one_byte_is_not_known() {
    let auth = auth(&config(), false);
    let token = hs256(&good());
    assert_eq!(outcome(check(&auth, &token).await), "is u1");
    for place in 0..token.len() {
        let mut other = token.clone().into_bytes();
        other[place] ^= 1;
        let other = String::from_utf8(other).unwrap();
        assert_ne!(outcome(check(&auth, &other).await), "is u1", "{place}");
    }
    assert_eq!(hits(&auth), 0);
}

#[tokio::test]
async fn bad_tokens_are_not_kept() {
    let auth = auth(&config(), false);
    assert_eq!(outcome(check(&auth, &hs256(&good())).await), "is u1");
    for bad in [
        hs256(&json!({})),
        claiming(json!({"exp": NOW})),
        "a.b.c".to_owned(),
    ] {
        assert!(check(&auth, &bad).await.is_err());
    }
    assert_eq!(auth.verified.metrics().tokens.known.get(), 1);
}

#[tokio::test]
async fn a_key_that_is_published_no_more_ends_what_it_verified() {
    use Algorithm::{ES256, RS256};
    let keys = &*KEYS;
    let issuer = Issuer::start().await;
    issuer.publish(&[keys.rsa.jwk(RS256, "old")]);
    let auth = issuer.auth();
    let old = named("old", "RS256", &keys.rsa.private, RS256);
    let new = named("new", "ES256", &keys.ec256.private, ES256);
    for _ in 0..3 {
        assert_eq!(outcome(check(&auth, &old).await), "is u1");
    }
    // The first came before any key was read, and what it found is not relied on.
    assert_eq!(hits(&auth), 1);

    // Read again, and the same: what is known stays so.
    after_the_floor().await;
    assert_eq!(outcome(check(&auth, &new).await), "unknown_key");
    assert_eq!(issuer.asked(), 2);
    assert_eq!(outcome(check(&auth, &old).await), "is u1");
    assert_eq!(hits(&auth), 2);

    issuer.publish(&[keys.ec256.jwk(ES256, "new")]);
    after_the_floor().await;
    assert_eq!(outcome(check(&auth, &new).await), "is u1");
    assert_eq!(outcome(check(&auth, &old).await), "unknown_key");
    assert_eq!(hits(&auth), 2);
}

#[tokio::test]
async fn another_key_under_the_same_id_ends_what_the_first_verified() {
    use Algorithm::RS256;
    let keys = &*KEYS;
    let issuer = Issuer::start().await;
    issuer.publish(&[keys.rsa.jwk(RS256, "k")]);
    let auth = issuer.auth();
    let old = named("k", "RS256", &keys.rsa.private, RS256);
    for _ in 0..3 {
        assert_eq!(outcome(check(&auth, &old).await), "is u1");
    }
    assert_eq!(hits(&auth), 1);

    issuer.publish(&[keys.stranger.jwk(RS256, "k")]);
    after_the_floor().await;
    let unknown = named("other", "RS256", &keys.rsa.private, RS256);
    assert_eq!(outcome(check(&auth, &unknown).await), "unknown_key");
    assert_eq!(outcome(check(&auth, &old).await), "signature");
    assert_eq!(hits(&auth), 1);
}
