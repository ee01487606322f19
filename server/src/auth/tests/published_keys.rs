//! Keys that an issuer publishes (JWKS): which one is used, and when they are read again.

use super::*;

/// An issuer's web server: answers every request with what it was last told to.
pub(super) struct Issuer {
    url: String,
    answer: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
    /// Held while nothing is answered.
    answering: Arc<tokio::sync::Mutex<()>>,
}

impl Issuer {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = Self {
            url: format!("http://{}/keys", listener.local_addr().unwrap()),
            answer: Arc::default(),
            asked: Arc::default(),
            answering: Arc::default(),
        };
        let (answer, asked) = (Arc::clone(&issuer.answer), Arc::clone(&issuer.asked));
        let answering = Arc::clone(&issuer.answering);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4_096];
                let _ = stream.read(&mut request).await;
                asked.fetch_add(1, Ordering::SeqCst);
                let _turn = answering.lock().await;
                let answer = answer.lock().unwrap().clone();
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        issuer
    }

    fn answer(&self, status: &str, body: &str) {
        *self.answer.lock().unwrap() = format!(
            "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\nlocation: {}\r\n\r\n{body}",
            body.len(),
            self.url
        );
    }

    pub(super) fn publish(&self, keys: &[Value]) {
        self.answer("200 OK", &json!({ "keys": keys }).to_string());
    }

    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub(super) fn auth(&self) -> Auth {
        let config = config::Auth {
            keys: vec![],
            jwks_url: Some(self.url.clone()),
            ..config()
        };
        auth(&config, false)
    }
}

pub(super) fn named(id: &str, algorithm: &str, key: &EncodingKey, signing: Algorithm) -> String {
    sign(&json!({"alg": algorithm, "kid": id}), &good(), key, signing)
}

/// Lets the floor between two reads pass. The clock moves only here: while it stands still a socket's own
/// timers do, too.
pub(super) async fn after_the_floor() {
    tokio::time::pause();
    tokio::time::advance(jwks::MIN_BETWEEN_READS).await;
    tokio::time::resume();
}

#[tokio::test]
async fn published_keys_are_chosen_by_their_id_and_used_with_their_own_algorithm() {
    use Algorithm::{ES256, EdDSA, HS256, PS256, RS256};
    let keys = &*KEYS;
    let issuer = Issuer::start().await;
    let mut for_encryption = keys.stranger.jwk(RS256, "enc");
    for_encryption["use"] = json!("enc");
    let mut for_signing_only = keys.stranger.jwk(RS256, "sign");
    for_signing_only["key_ops"] = json!(["sign"]);
    let mut any_rsa = keys.rsa.jwk(RS256, "any-rsa");
    any_rsa.as_object_mut().unwrap().remove("alg");
    let shared =
        json!({"kty": "oct", "kid": "shared", "alg": "HS256", "k": BASE64_URL_SAFE_NO_PAD.encode(SECRET)});
    issuer.publish(&[
        json!({"kty": "quantum", "kid": "new"}),
        json!(7),
        for_encryption,
        for_signing_only,
        shared,
        keys.rsa.jwk(RS256, "rsa"),
        any_rsa,
        keys.ec256.jwk(ES256, "ec"),
        keys.ed.jwk(EdDSA, "ed"),
    ]);
    let auth = issuer.auth();
    for (token, expected) in [
        (named("rsa", "RS256", &keys.rsa.private, RS256), "is u1"),
        (named("ec", "ES256", &keys.ec256.private, ES256), "is u1"),
        (named("ed", "EdDSA", &keys.ed.private, EdDSA), "is u1"),
        (named("any-rsa", "RS256", &keys.rsa.private, RS256), "is u1"),
        (named("any-rsa", "PS256", &keys.rsa.private, PS256), "algorithm"),
        (named("ec", "RS256", &keys.rsa.private, RS256), "algorithm"),
        (named("rsa", "RS256", &keys.stranger.private, RS256), "signature"),
        (
            named("enc", "RS256", &keys.stranger.private, RS256),
            "unknown_key",
        ),
        (
            named("sign", "RS256", &keys.stranger.private, RS256),
            "unknown_key",
        ),
        (named("shared", "HS256", &secret(), HS256), "algorithm"),
        (named("new", "ES256", &keys.ec256.private, ES256), "unknown_key"),
        // Without an id: where one key alone fits.
        (
            sign(&json!({"alg": "ES256"}), &good(), &keys.ec256.private, ES256),
            "is u1",
        ),
        (
            sign(&json!({"alg": "RS256"}), &good(), &keys.rsa.private, RS256),
            "unknown_key",
        ),
    ] {
        assert_eq!(outcome(check(&auth, &token).await), expected, "{token}");
    }
    assert_eq!(issuer.asked(), 1, "unknown ids, but the floor between reads");
}

#[tokio::test]
async fn a_new_key_is_read_when_a_token_names_it_but_not_more_often_than_the_floor() {
    use Algorithm::{ES256, RS256};
    let keys = &*KEYS;
    let issuer = Issuer::start().await;
    issuer.publish(&[keys.rsa.jwk(RS256, "old")]);
    let auth = issuer.auth();
    let old = named("old", "RS256", &keys.rsa.private, RS256);
    let new = named("new", "ES256", &keys.ec256.private, ES256);
    assert_eq!(outcome(check(&auth, &old).await), "is u1");

    issuer.publish(&[keys.ec256.jwk(ES256, "new")]);
    assert_eq!(outcome(check(&auth, &new).await), "unknown_key");
    assert_eq!(issuer.asked(), 1);
    after_the_floor().await;
    let both = tokio::join!(check(&auth, &new), check(&auth, &new));
    assert_eq!(
        (outcome(both.0), outcome(both.1)),
        ("is u1".to_owned(), "is u1".to_owned())
    );
    assert_eq!(issuer.asked(), 2, "both waited for the same read");
    assert_eq!(outcome(check(&auth, &old).await), "unknown_key");
}

#[tokio::test]
async fn a_read_that_fails_leaves_the_keys_as_they_were() {
    use Algorithm::{ES256, RS256};
    let keys = &*KEYS;
    let issuer = Issuer::start().await;
    issuer.publish(&[keys.rsa.jwk(RS256, "old")]);
    let auth = issuer.auth();
    let old = named("old", "RS256", &keys.rsa.private, RS256);
    let new = named("new", "ES256", &keys.ec256.private, ES256);
    assert_eq!(outcome(check(&auth, &old).await), "is u1");

    let good = json!({"keys": [keys.ec256.jwk(ES256, "new")]}).to_string();
    let huge = format!("{good}{}", " ".repeat(300 * 1024));
    for (status, body) in [
        ("500 Internal Server Error", good.as_str()),
        ("302 Found", &good),
        ("200 OK", ""),
        ("200 OK", "[]"),
        ("200 OK", r#"{"keys": []}"#),
        ("200 OK", &huge),
    ] {
        issuer.answer(status, body);
        after_the_floor().await;
        let asked = issuer.asked();
        assert_eq!(
            outcome(check(&auth, &new).await),
            "unknown_key",
            "{status} {:.20}",
            body
        );
        assert_eq!(issuer.asked(), asked + 1, "{status} {:.20}", body);
        assert_eq!(outcome(check(&auth, &old).await), "is u1");
    }
}

#[tokio::test]
async fn keys_that_were_never_read_are_our_fault_and_not_the_tokens() {
    let issuer = Issuer::start().await;
    issuer.answer("503 Service Unavailable", "");
    let auth = issuer.auth();
    let token = named("k", "RS256", &KEYS.rsa.private, Algorithm::RS256);
    let error = check(&auth, &token).await.unwrap_err();
    assert_eq!(error, TokenError::KeysUnavailable);
    assert_eq!(
        (error.code(), error.close_code()),
        (ErrorCode::Unavailable, CloseCode::TryAgainLater)
    );

    issuer.publish(&[KEYS.rsa.jwk(Algorithm::RS256, "k")]);
    after_the_floor().await;
    assert_eq!(outcome(check(&auth, &token).await), "is u1");
}

#[tokio::test]
async fn the_timer_reads_without_being_asked() {
    let issuer = Issuer::start().await;
    issuer.publish(&[KEYS.rsa.jwk(Algorithm::RS256, "k")]);
    let auth = issuer.auth();
    let asked_once = async {
        while issuer.asked() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = auth.keep_keys_fresh() => unreachable!("it never ends"),
        () = asked_once => {}
    }
}

#[tokio::test]
async fn who_goes_away_while_the_keys_are_read_does_not_have_them_read_again() {
    let keys = &*KEYS;
    let issuer = Issuer::start().await;
    issuer.publish(&[keys.rsa.jwk(Algorithm::RS256, "rsa")]);
    let auth = issuer.auth();
    let token = named("rsa", "RS256", &keys.rsa.private, Algorithm::RS256);
    let silent = issuer.answering.lock().await;
    for _ in 0..5 {
        let waited = tokio::time::timeout(Duration::from_millis(20), auth.check(&token, at(NOW))).await;
        assert!(waited.is_err(), "the issuer has not answered");
    }
    drop(silent);
    assert!(auth.check(&token, at(NOW)).await.is_ok());
    assert_eq!(issuer.asked(), 1);
}
