//! The token matrix.

mod known_tokens;
mod published_keys;

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RsaKeyPair,
};
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, jwk::Jwk};
use rivulet_protocol::pattern::Pattern;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::config::{Key, Role, Secret};
use crate::identity::{CommandPermission, Who};

/// The hour at which all tokens here are checked, in seconds.
const NOW: u64 = 1_800_000_000;

const SECRET: &str = "a secret of thirty-two bytes, at least";
const OTHER_SECRET: &str = "another secret of thirty-two bytes or so";

/// A key pair: what the issuer signs with and what the router is given.
struct Pair {
    private: EncodingKey,
    public_pem: String,
}

impl Pair {
    fn jwk(&self, algorithm: Algorithm, id: &str) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.private, algorithm).unwrap();
        jwk.common.key_id = Some(id.to_owned());
        serde_json::to_value(jwk).unwrap()
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

fn public_pem(key: &impl AsDer<PublicKeyX509Der<'static>>) -> String {
    pem("PUBLIC KEY", key.as_der().unwrap().as_ref())
}

fn rsa() -> Pair {
    let pair = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let private: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().unwrap();
    Pair {
        private: EncodingKey::from_rsa_pem(pem("PRIVATE KEY", private.as_ref()).as_bytes()).unwrap(),
        public_pem: public_pem(pair.public_key()),
    }
}

fn ec(algorithm: &'static aws_lc_rs::signature::EcdsaSigningAlgorithm) -> Pair {
    let pair = EcdsaKeyPair::generate(algorithm).unwrap();
    Pair {
        private: EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref()),
        public_pem: public_pem(pair.public_key()),
    }
}

fn ed() -> Pair {
    let pair = Ed25519KeyPair::generate().unwrap();
    Pair {
        private: EncodingKey::from_ed_der(pair.to_pkcs8v1().unwrap().as_ref()),
        public_pem: public_pem(pair.public_key()),
    }
}

/// Made once: an RSA key takes long.
struct Keys {
    rsa: Pair,
    stranger: Pair,
    ec256: Pair,
    ec384: Pair,
    ed: Pair,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys {
    rsa: rsa(),
    stranger: rsa(),
    ec256: ec(&ECDSA_P256_SHA256_FIXED_SIGNING),
    ec384: ec(&ECDSA_P384_SHA384_FIXED_SIGNING),
    ed: ed(),
});

fn secret() -> EncodingKey {
    EncodingKey::from_secret(SECRET.as_bytes())
}

fn part(value: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
}

/// A token with just this header and these claims, whatever they are, signed as told.
fn sign(header: &Value, claims: &Value, key: &EncodingKey, algorithm: Algorithm) -> String {
    signed(&format!("{}.{}", part(header), part(claims)), key, algorithm)
}

fn signed(message: &str, key: &EncodingKey, algorithm: Algorithm) -> String {
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).unwrap();
    format!("{message}.{signature}")
}

fn hs256(claims: &Value) -> String {
    sign(
        &json!({"alg": "HS256", "typ": "JWT"}),
        claims,
        &secret(),
        Algorithm::HS256,
    )
}

/// A token that is right but for its header.
fn headed(header: Value) -> String {
    sign(&header, &good(), &secret(), Algorithm::HS256)
}

/// A token that is right but for these claims on top.
fn claiming(more: Value) -> String {
    let mut claims = good();
    claims
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    hs256(&claims)
}

fn permitting(permissions: Value) -> String {
    claiming(json!({ "rivulet": permissions }))
}

fn without(claim: &str) -> String {
    let mut claims = good();
    claims.as_object_mut().unwrap().remove(claim);
    hs256(&claims)
}

fn good() -> Value {
    json!({"sub": "u1", "exp": NOW + 60, "iss": "https://issuer.example", "aud": "rivulet"})
}

fn config() -> config::Auth {
    let pem = |pair: &Pair, algorithms: &[Algorithm]| Key::Pem {
        pem: pair.public_pem.clone(),
        algorithms: algorithms.to_vec(),
    };
    use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, RS256};
    config::Auth {
        keys: vec![
            Key::Secret {
                secret: Secret(OTHER_SECRET.to_owned()),
                algorithms: vec![HS256],
            },
            Key::Secret {
                secret: Secret(SECRET.to_owned()),
                algorithms: vec![HS256, HS384, HS512],
            },
            pem(&KEYS.rsa, &[RS256, PS256]),
            pem(&KEYS.ec256, &[ES256]),
            pem(&KEYS.ec384, &[ES384]),
            pem(&KEYS.ed, &[EdDSA]),
        ],
        jwks_url: None,
        jwks_algorithms: vec![RS256, ES256, EdDSA],
        jwks_refresh: Duration::from_secs(3_600),
        issuers: vec![
            "https://issuer.example".to_owned(),
            "https://old.example".to_owned(),
        ],
        audiences: vec!["rivulet".to_owned()],
        user_claim: "sub".to_owned(),
        expiry_leeway: Duration::ZERO,
        not_before_leeway: Duration::from_secs(5),
    }
}

fn auth(config: &config::Auth, dev: bool) -> Auth {
    let pattern = |text: &str| text.parse::<Pattern>().unwrap();
    let roles = [
        (
            "user".to_owned(),
            Role {
                events: vec![Pattern::all()],
                commands: vec!["*".to_owned()],
                devices_per_user: None,
            },
        ),
        (
            "viewer".to_owned(),
            Role {
                events: vec![pattern("blob.*"), pattern("book.>")],
                commands: vec![],
                devices_per_user: Some(2),
            },
        ),
    ];
    Auth::new(config, &roles.into(), "user", 5, dev, metrics()).unwrap()
}

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new([]))
}

async fn check(auth: &Auth, token: &str) -> Result<Identity, TokenError> {
    auth.check(token, at(NOW)).await
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// What a token comes to, in short: a user, or the word for what is wrong, with the claim where it is one.
fn outcome(checked: Result<Identity, TokenError>) -> String {
    match checked {
        Ok(identity) => format!("is {}", identity.user),
        Err(TokenError::Claim { claim, .. }) => format!("claim {claim}"),
        Err(error) => error.reason().to_owned(),
    }
}

#[tokio::test]
async fn token_matrix() {
    use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, RS256, RS384};
    let keys = &*KEYS;
    let plain = |name: &str| json!({"alg": name, "typ": "JWT"});
    let public_as_secret = EncodingKey::from_secret(keys.rsa.public_pem.as_bytes());
    let good_token = hs256(&good());
    let (good_message, good_signature) = good_token.rsplit_once('.').unwrap();
    let good_claims = good_message.split_once('.').unwrap().1;
    let other_user = part(&json!({"sub": "u2", "exp": NOW + 60}));

    let table: Vec<(&str, String, &str)> = vec![
        // Each kind of key, and each with an algorithm that it is not for.
        ("HS256", sign(&plain("HS256"), &good(), &secret(), HS256), "is u1"),
        ("HS384", sign(&plain("HS384"), &good(), &secret(), HS384), "is u1"),
        ("HS512", sign(&plain("HS512"), &good(), &secret(), HS512), "is u1"),
        (
            "RS256",
            sign(&plain("RS256"), &good(), &keys.rsa.private, RS256),
            "is u1",
        ),
        (
            "PS256",
            sign(&plain("PS256"), &good(), &keys.rsa.private, PS256),
            "is u1",
        ),
        (
            "ES256",
            sign(&plain("ES256"), &good(), &keys.ec256.private, ES256),
            "is u1",
        ),
        (
            "ES384",
            sign(&plain("ES384"), &good(), &keys.ec384.private, ES384),
            "is u1",
        ),
        (
            "EdDSA",
            sign(&plain("EdDSA"), &good(), &keys.ed.private, EdDSA),
            "is u1",
        ),
        (
            "the second secret",
            sign(
                &plain("HS256"),
                &good(),
                &EncodingKey::from_secret(OTHER_SECRET.as_bytes()),
                HS256,
            ),
            "is u1",
        ),
        (
            "a secret used with an algorithm that it is not for",
            sign(
                &plain("HS384"),
                &good(),
                &EncodingKey::from_secret(OTHER_SECRET.as_bytes()),
                HS384,
            ),
            "signature",
        ),
        (
            "RS384 is not configured",
            sign(&plain("RS384"), &good(), &keys.rsa.private, RS384),
            "algorithm",
        ),
        (
            "RS256 by a stranger",
            sign(&plain("RS256"), &good(), &keys.stranger.private, RS256),
            "signature",
        ),
        (
            "RS256 signed as PS256",
            sign(&plain("RS256"), &good(), &keys.rsa.private, PS256),
            "signature",
        ),
        (
            "ES256 signed as ES384",
            sign(&plain("ES256"), &good(), &keys.ec384.private, ES384),
            "signature",
        ),
        (
            "ES384 signed as ES256",
            sign(&plain("ES384"), &good(), &keys.ec256.private, ES256),
            "signature",
        ),
        (
            "the public key as the secret",
            sign(&plain("HS256"), &good(), &public_as_secret, HS256),
            "signature",
        ),
        (
            "HS256 said, RS256 signed",
            sign(&plain("HS256"), &good(), &keys.rsa.private, RS256),
            "signature",
        ),
        (
            "RS256 said, HS256 signed",
            sign(&plain("RS256"), &good(), &secret(), HS256),
            "signature",
        ),
        (
            "HS512 said, HS256 signed",
            sign(&plain("HS512"), &good(), &secret(), HS256),
            "signature",
        ),
        // No signature at all.
        (
            "none",
            format!("{}.{good_claims}.", part(&plain("none"))),
            "algorithm",
        ),
        (
            "None",
            format!("{}.{good_claims}.", part(&plain("None"))),
            "algorithm",
        ),
        (
            "nOnE, signed",
            sign(&plain("nOnE"), &good(), &secret(), HS256),
            "algorithm",
        ),
        (
            "hs256",
            sign(&plain("hs256"), &good(), &secret(), HS256),
            "algorithm",
        ),
        (
            "an empty algorithm",
            sign(&plain(""), &good(), &secret(), HS256),
            "algorithm",
        ),
        ("an empty signature", format!("{good_message}."), "signature"),
        (
            "an empty ECDSA signature",
            format!("{}.{good_claims}.", part(&plain("ES256"))),
            "signature",
        ),
        (
            "an ECDSA signature of zeroes (CVE-2022-21449)",
            format!(
                "{}.{good_claims}.{}",
                part(&plain("ES256")),
                BASE64_URL_SAFE_NO_PAD.encode([0; 64])
            ),
            "signature",
        ),
        (
            "claims exchanged",
            format!("{}.{other_user}.{good_signature}", part(&plain("HS256"))),
            "signature",
        ),
        (
            "a signature cut short",
            format!("{good_message}.{}", &good_signature[..20]),
            "signature",
        ),
        // Not a token.
        ("nothing", String::new(), "missing"),
        ("a word", "u1".to_owned(), "malformed"),
        ("dots", "..".to_owned(), "malformed"),
        ("two parts", good_message.to_owned(), "malformed"),
        ("four parts", format!("{good_token}.x"), "malformed"),
        (
            "five parts, as encrypted ones have",
            "a.b.c.d.e".to_owned(),
            "malformed",
        ),
        (
            "padded base64",
            format!("{good_message}=.{good_signature}"),
            "malformed",
        ),
        ("standard base64", format!("{good_message}.+/+/"), "malformed"),
        ("a space", format!(" {good_token}"), "malformed"),
        (
            "a header of another kind",
            signed(&format!("{}.{good_claims}", part(&json!([]))), &secret(), HS256),
            "malformed",
        ),
        (
            "a header without `alg`",
            headed(json!({"typ": "JWT"})),
            "malformed",
        ),
        ("`alg` is no string", headed(json!({"alg": 1})), "malformed"),
        ("`alg` is a list", headed(json!({"alg": ["HS256"]})), "malformed"),
        (
            "`alg` twice",
            signed(
                &format!(
                    "{}.{good_claims}",
                    BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"none","alg":"HS256"}"#)
                ),
                &secret(),
                HS256,
            ),
            "malformed",
        ),
        ("8 KiB and a byte", "x".repeat(MAX_TOKEN_BYTES + 1), "too_long"),
        ("8 KiB of something", "x".repeat(MAX_TOKEN_BYTES), "malformed"),
        (
            "8 KiB, signed",
            claiming(json!({"more": "x".repeat(MAX_TOKEN_BYTES)})),
            "too_long",
        ),
        (
            "claims of another kind",
            hs256(&json!(["sub", "u1"])),
            "malformed",
        ),
        ("claims that are a string", hs256(&json!("u1")), "malformed"),
        (
            "claims that are no JSON",
            signed(
                &format!("{}.{}", part(&plain("HS256")), BASE64_URL_SAFE_NO_PAD.encode("{")),
                &secret(),
                HS256,
            ),
            "malformed",
        ),
        (
            "claims that are not UTF-8",
            signed(
                &format!(
                    "{}.{}",
                    part(&plain("HS256")),
                    BASE64_URL_SAFE_NO_PAD.encode(b"{\"sub\":\"\xff\"}")
                ),
                &secret(),
                HS256,
            ),
            "malformed",
        ),
        // What the header says counts for nothing, and what must be understood is refused.
        ("no `typ`", headed(json!({"alg": "HS256"})), "is u1"),
        (
            "`typ` in small letters",
            headed(json!({"alg": "HS256", "typ": "jwt"})),
            "is u1",
        ),
        (
            "an access token",
            headed(json!({"alg": "HS256", "typ": "at+jwt"})),
            "is u1",
        ),
        (
            "an access token, in full",
            headed(json!({"alg": "HS256", "typ": "application/at+jwt"})),
            "is u1",
        ),
        (
            "a logout token",
            headed(json!({"alg": "HS256", "typ": "logout+jwt"})),
            "malformed",
        ),
        (
            "`typ` JOSE",
            headed(json!({"alg": "HS256", "typ": "JOSE"})),
            "malformed",
        ),
        (
            "`crit`",
            headed(json!({"alg": "HS256", "crit": ["exp"], "exp": 1})),
            "malformed",
        ),
        (
            "an unencoded payload",
            headed(json!({"alg": "HS256", "crit": ["b64"], "b64": false})),
            "malformed",
        ),
        (
            "a `kid`, where there is no JWKS",
            headed(json!({"alg": "HS256", "kid": "../../dev/null"})),
            "is u1",
        ),
        (
            "`kid` is no string",
            headed(json!({"alg": "HS256", "kid": 7})),
            "malformed",
        ),
        (
            "its own key in `jwk`",
            sign(
                &json!({"alg": "RS256", "jwk": keys.stranger.jwk(RS256, "mine")}),
                &good(),
                &keys.stranger.private,
                RS256,
            ),
            "signature",
        ),
        (
            "its own keys at `jku`",
            sign(
                &json!({"alg": "RS256", "jku": "http://127.0.0.1:1/keys", "x5u": "http://127.0.0.1:1/cert"}),
                &good(),
                &keys.stranger.private,
                RS256,
            ),
            "signature",
        ),
        // Times.
        (
            "expired a second ago",
            claiming(json!({"exp": NOW - 1})),
            "expired",
        ),
        ("expires now", claiming(json!({"exp": NOW})), "expired"),
        ("expires in a second", claiming(json!({"exp": NOW + 1})), "is u1"),
        (
            "expires in half a second",
            claiming(json!({"exp": NOW as f64 + 0.5})),
            "is u1",
        ),
        (
            "expired half a second ago",
            claiming(json!({"exp": NOW as f64 - 0.5})),
            "expired",
        ),
        ("no `exp`", without("exp"), "claim exp"),
        ("`exp` null", claiming(json!({"exp": null})), "claim exp"),
        (
            "`exp` a string",
            claiming(json!({"exp": (NOW + 60).to_string()})),
            "claim exp",
        ),
        ("`exp` true", claiming(json!({"exp": true})), "claim exp"),
        ("`exp` negative", claiming(json!({"exp": -1})), "claim exp"),
        (
            "`exp` in milliseconds",
            claiming(json!({"exp": (NOW + 60) * 1_000})),
            "claim exp",
        ),
        (
            "`exp` beyond all time",
            claiming(json!({"exp": 1e300})),
            "claim exp",
        ),
        (
            "`exp` u64's largest",
            claiming(json!({"exp": u64::MAX})),
            "claim exp",
        ),
        ("valid from now", claiming(json!({"nbf": NOW})), "is u1"),
        ("valid in 5 s", claiming(json!({"nbf": NOW + 5})), "is u1"),
        ("valid in 6 s", claiming(json!({"nbf": NOW + 6})), "not_yet_valid"),
        (
            "`nbf` a string",
            claiming(json!({"nbf": NOW.to_string()})),
            "claim nbf",
        ),
        ("issued tomorrow", claiming(json!({"iat": NOW + 86_400})), "is u1"),
        // Issuer and audience.
        (
            "the other issuer",
            claiming(json!({"iss": "https://old.example"})),
            "is u1",
        ),
        (
            "a stranger's",
            claiming(json!({"iss": "https://evil.example"})),
            "issuer",
        ),
        (
            "an issuer that begins alike",
            claiming(json!({"iss": "https://issuer.example.evil"})),
            "issuer",
        ),
        ("no issuer", without("iss"), "issuer"),
        (
            "a list of issuers",
            claiming(json!({"iss": ["https://issuer.example"]})),
            "issuer",
        ),
        (
            "one of several audiences",
            claiming(json!({"aud": ["other", "rivulet"]})),
            "is u1",
        ),
        (
            "for others",
            claiming(json!({"aud": ["other", "another"]})),
            "audience",
        ),
        ("for another", claiming(json!({"aud": "rivulet2"})), "audience"),
        ("for nobody", claiming(json!({"aud": []})), "audience"),
        ("no audience", without("aud"), "audience"),
        (
            "an audience of another kind",
            claiming(json!({"aud": {"rivulet": true}})),
            "audience",
        ),
        // Users.
        (
            "a user of Unicode",
            claiming(json!({"sub": "Zoë 🦊"})),
            "is Zoë 🦊",
        ),
        ("a user of wildcards", claiming(json!({"sub": "*.>"})), "is *.>"),
        (
            "a user with a line break",
            claiming(json!({"sub": "a\r\nb"})),
            "is a\r\nb",
        ),
        (
            "a user of 128 bytes",
            claiming(json!({"sub": "x".repeat(128)})),
            &Box::leak(format!("is {}", "x".repeat(128)).into_boxed_str())[..],
        ),
        (
            "a user of 129 bytes",
            claiming(json!({"sub": "x".repeat(129)})),
            "claim sub",
        ),
        (
            "a user of 65 × 2 bytes",
            claiming(json!({"sub": "é".repeat(65)})),
            "claim sub",
        ),
        ("an empty user", claiming(json!({"sub": ""})), "claim sub"),
        ("a number as user", claiming(json!({"sub": 17})), "claim sub"),
        ("no user", without("sub"), "claim sub"),
        // Permissions.
        ("permissions null", permitting(Value::Null), "is u1"),
        ("permissions empty", permitting(json!({})), "is u1"),
        (
            "permissions a list",
            permitting(json!(["blob.*"])),
            "claim rivulet",
        ),
        (
            "permissions a string",
            permitting(json!("admin")),
            "claim rivulet",
        ),
        (
            "all of them",
            permitting(
                json!({"events": ["blob.*"], "commands": ["create_blob"], "subscribe": ["blob.*"], "role": "viewer"}),
            ),
            "is u1",
        ),
        (
            "nulls",
            permitting(json!({"events": null, "commands": null, "subscribe": null, "role": null})),
            "is u1",
        ),
        (
            "one that is not known",
            permitting(json!({"rooms": ["r1"]})),
            "is u1",
        ),
        (
            "events a string",
            permitting(json!({"events": "blob.*"})),
            "claim rivulet.events",
        ),
        (
            "an event a number",
            permitting(json!({"events": ["blob.*", 1]})),
            "claim rivulet.events",
        ),
        (
            "an event no pattern",
            permitting(json!({"events": ["blob.*", "blob*"]})),
            "claim rivulet.events[1]",
        ),
        (
            "an event empty",
            permitting(json!({"events": [""]})),
            "claim rivulet.events[0]",
        ),
        (
            "a subscription no pattern",
            permitting(json!({"subscribe": ["a b"]})),
            "claim rivulet.subscribe[0]",
        ),
        (
            "a subscription to what it may not see",
            permitting(json!({"events": ["blob.*"], "subscribe": ["*", "blob.created", "book.created"]})),
            "claim rivulet.subscribe[2]",
        ),
        (
            "commands an object",
            permitting(json!({"commands": {}})),
            "claim rivulet.commands",
        ),
        (
            "a role that there is not",
            permitting(json!({"role": "admin"})),
            "claim rivulet.role",
        ),
        (
            "a role a number",
            permitting(json!({"role": 1})),
            "claim rivulet.role",
        ),
    ];
    assert!(table.len() >= 60);
    let auth = auth(&config(), false);
    for (name, token, expected) in &table {
        assert_eq!(outcome(check(&auth, token).await), *expected, "{name}");
    }
}

#[tokio::test]
async fn errors_say_what_is_wrong_and_nothing_of_the_token() {
    let auth = auth(&config(), false);
    let token = permitting(json!({"events": ["*private*"]}));
    let error = check(&auth, &token).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the token's claim `rivulet.events[0]` is not a pattern: `*` and `>` stand alone in their token: \
         use blob.* or blob.>"
    );
    assert_eq!(
        (error.code(), error.close_code()),
        (ErrorCode::Unauthorized, CloseCode::Unauthorized)
    );
    for secret in [SECRET, "private", &KEYS.rsa.public_pem] {
        assert!(!format!("{auth:?}").contains(secret));
    }
}

#[tokio::test]
async fn without_issuer_and_audience_configured_any_will_do() {
    let config = config::Auth {
        issuers: vec![],
        audiences: vec![],
        ..config()
    };
    let auth = auth(&config, false);
    let token = hs256(&json!({"sub": "u1", "exp": NOW + 60, "aud": "other"}));
    assert_eq!(outcome(check(&auth, &token).await), "is u1");
}

#[tokio::test]
async fn leeways_and_the_users_claim_are_configurable() {
    let config = config::Auth {
        expiry_leeway: Duration::from_secs(30),
        not_before_leeway: Duration::ZERO,
        user_claim: "https://example.com/uid".to_owned(),
        ..config()
    };
    let auth = auth(&config, false);
    let late = claiming(json!({"exp": NOW - 29, "https://example.com/uid": "u9"}));
    let identity = check(&auth, &late).await.unwrap();
    assert_eq!(identity.user.as_str(), "u9");
    assert_eq!(identity.expires_at, Some(at(NOW + 1)));
    for (more, expected) in [
        (
            json!({"exp": NOW - 30, "https://example.com/uid": "u9"}),
            "expired",
        ),
        (
            json!({"nbf": NOW + 1, "https://example.com/uid": "u9"}),
            "not_yet_valid",
        ),
        (json!({}), "claim https://example.com/uid"),
    ] {
        assert_eq!(outcome(check(&auth, &claiming(more)).await), expected);
    }
}

#[tokio::test]
async fn what_the_token_does_not_say_the_role_says() {
    let auth = auth(&config(), false);
    let texts = |patterns: &[Pattern]| patterns.iter().map(Pattern::to_string).collect::<Vec<_>>();
    let only =
        |names: &[&str]| CommandPermission::Only(names.iter().map(|name| (*name).to_owned()).collect());
    for (permissions, events, commands, subscribe, devices) in [
        (json!({}), vec!["*"], CommandPermission::All, vec![], 5),
        (
            json!({"role": "viewer"}),
            vec!["blob.*", "book.>"],
            only(&[]),
            vec![],
            2,
        ),
        (
            json!({"role": "viewer", "events": ["book.*"], "commands": ["create_blob"], "subscribe": ["book.created"]}),
            vec!["book.*"],
            only(&["create_blob"]),
            vec!["book.created"],
            2,
        ),
        (
            json!({"events": [], "commands": []}),
            vec![],
            only(&[]),
            vec![],
            5,
        ),
        (
            json!({"commands": ["x", "*"]}),
            vec!["*"],
            CommandPermission::All,
            vec![],
            5,
        ),
    ] {
        let identity = check(&auth, &permitting(permissions.clone())).await.unwrap();
        assert_eq!(texts(&identity.events), events, "{permissions}");
        assert_eq!(identity.commands, commands, "{permissions}");
        assert_eq!(texts(&identity.subscribe), subscribe, "{permissions}");
        assert_eq!(identity.devices, devices, "{permissions}");
        assert_eq!(identity.expires_at, Some(at(NOW + 60)));
    }
}

#[tokio::test]
async fn a_developers_token_is_the_user() {
    let dev = auth(&config(), true);
    for user in ["test_token", "a.b.c", "a b", "*", "🦊"] {
        let identity = check(&dev, user).await.unwrap();
        assert_eq!(identity.user.as_str(), user);
        assert_eq!((identity.expires_at, identity.devices), (None, 0));
    }
    assert_eq!(outcome(check(&dev, &hs256(&good())).await), "is u1");
    assert_eq!(
        outcome(check(&dev, &claiming(json!({"exp": NOW}))).await),
        "expired"
    );
    assert_eq!(outcome(check(&dev, "").await), "missing");
    assert_eq!(outcome(check(&dev, &"x".repeat(129)).await), "claim sub");

    let keyless = config::Auth {
        keys: vec![],
        ..config()
    };
    assert_eq!(
        outcome(check(&auth(&keyless, true), &hs256(&good())).await),
        "algorithm"
    );
    assert_eq!(
        outcome(check(&auth(&config(), false), "test_token").await),
        "malformed"
    );
}

#[test]
fn keys_that_do_not_fit_their_algorithms_are_named() {
    let pem = KEYS.ec256.public_pem.clone();
    let private = pem.replace("PUBLIC KEY", "PRIVATE KEY");
    let with = |pem: &str, algorithms: &[Algorithm]| {
        let config = config::Auth {
            keys: vec![Key::Pem {
                pem: pem.to_owned(),
                algorithms: algorithms.to_vec(),
            }],
            ..config()
        };
        Auth::new(&config, &BTreeMap::new(), "user", 5, false, metrics())
            .unwrap_err()
            .to_string()
    };
    let not_a_key = "auth.keys[0]: not a public key in PEM of the kind that its algorithms need";
    for (pem, algorithms, expected) in [
        (pem.as_str(), &[Algorithm::RS256][..], not_a_key),
        (&private, &[Algorithm::ES256], not_a_key),
        ("nonsense", &[Algorithm::EdDSA], not_a_key),
        (
            &pem,
            &[Algorithm::HS256],
            "auth.keys[0]: a PEM holds no shared secret",
        ),
        (&pem, &[], "auth.keys[0]: a key needs at least one algorithm"),
        (
            &pem,
            &[Algorithm::ES256, Algorithm::RS256],
            "auth.keys[0]: RS256 is for another kind of key",
        ),
    ] {
        let error = with(pem, algorithms);
        assert!(error.starts_with(expected), "{error}");
    }
}
