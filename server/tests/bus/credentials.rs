//! Every way to say who the router is, TLS, and NATS behind a domain or an address that is dead.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use async_nats::{Client, ConnectOptions};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures_util::StreamExt;
use nkeys::KeyPair;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer};
use rivulet_protocol::subject::UserId;
use rivulet_router::{
    command::{Command, Outcome},
    config::{Config, NatsCredentials, NatsTls, Secret},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    nats::{Nats, settle},
    rig::{PATIENCE, Rig, config, publish},
};

const JETSTREAM: &str = "jetstream { store_dir: \"STORE\" }";

fn with(nats: &Nats, credentials: NatsCredentials) -> Config {
    let mut config = config(&[nats.url()], nats.directory.path());
    config.nats.credentials = credentials;
    config
}

fn password(password: &str) -> NatsCredentials {
    NatsCredentials::Password {
        user: "router".to_owned(),
        password: Secret(password.to_owned()),
    }
}

fn backend() -> ConnectOptions {
    ConnectOptions::with_user_and_password("backend".into(), "b".into())
}

/// A router of this configuration is brought what this backend publishes.
async fn an_event_arrives(config: &Config, nats: &Nats, backend: ConnectOptions) {
    let backend = backend.connect(nats.url()).await.unwrap();
    let mut rig = Rig::open(config).await;
    assert_eq!(rig.next().await, "open RIVULET 0");
    rig.until("current", |state| state.current && state.durable).await;
    publish(&backend, "blob.created", r#"{"user_id":"u1"}"#).await;
    assert_eq!(rig.next().await, r#"1 blob.created u1 {"user_id":"u1"}"#);
}

/// Why a router of this configuration does not start.
async fn fault(config: &Config) -> String {
    let fault = Rig::try_open(config).await.err();
    fault.expect("NATS does not take this router").to_string()
}

#[tokio::test]
async fn a_user_and_a_password() {
    let nats = Nats::with(&format!(
        "{JETSTREAM}
         authorization {{ users: [{{ user: router, password: hunter2 }}, {{ user: backend, password: b }}] }}"
    ));
    an_event_arrives(&with(&nats, password("hunter2")), &nats, backend()).await;

    let fault = fault(&with(&nats, password("hunter3"))).await;
    assert!(fault.contains("does not accept the router"), "{fault}");
    assert!(fault.contains("`nats.password`"), "{fault}");
    assert!(!fault.contains("hunter"), "{fault}");
}

#[tokio::test]
async fn a_token() {
    let nats = Nats::with(&format!("{JETSTREAM}\nauthorization {{ token: t0ken }}"));
    let token = NatsCredentials::Token(Secret("t0ken".to_owned()));
    let backend = ConnectOptions::with_token("t0ken".into());
    an_event_arrives(&with(&nats, token), &nats, backend).await;
}

#[tokio::test]
async fn a_token_before_the_host_of_the_url() {
    let nats = Nats::with(&format!("{JETSTREAM}\nauthorization {{ token: \"t0:ken\" }}"));
    let url = format!("nats://t0%3Aken@127.0.0.1:{}", nats.port);
    let config = config(&[url], nats.directory.path());
    let backend = ConnectOptions::with_token("t0:ken".into());
    an_event_arrives(&config, &nats, backend).await;
}

#[tokio::test]
async fn an_nkey() {
    let key = KeyPair::new_user();
    let nats = Nats::with(&format!(
        "{JETSTREAM}
         authorization {{ users: [{{ nkey: {} }}, {{ user: backend, password: b }}] }}",
        key.public_key()
    ));
    let of = |key: &KeyPair| NatsCredentials::Nkey(Secret(key.seed().unwrap()));
    an_event_arrives(&with(&nats, of(&key)), &nats, backend()).await;

    let stranger = KeyPair::new_user();
    let fault = fault(&with(&nats, of(&stranger))).await;
    assert!(fault.contains("does not accept the router"), "{fault}");
    assert!(!fault.contains(&stranger.seed().unwrap()), "{fault}");
}

/// An operator with one account, as `nsc` would make them.
struct Operator {
    account: KeyPair,
    configuration: String,
}

impl Operator {
    fn new() -> Self {
        let (operator, account, system) = (
            KeyPair::new_operator(),
            KeyPair::new_account(),
            KeyPair::new_account(),
        );
        let limits = |storage: i64| {
            json!({
                "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
                "conn": -1, "leaf": -1, "mem_storage": storage, "disk_storage": storage, "streams": -1,
                "consumer": -1,
            })
        };
        let of_operator = jwt(
            &operator,
            &operator,
            json!({ "type": "operator", "version": 2, "system_account": system.public_key() }),
        );
        let of_account = |account: &KeyPair, storage| {
            let claims = json!({ "type": "account", "version": 2, "limits": limits(storage) });
            jwt(&operator, account, claims)
        };
        let configuration = format!(
            "{JETSTREAM}
             operator: {of_operator}
             system_account: {}
             resolver: MEMORY
             resolver_preload: {{ {}: {}, {}: {} }}",
            system.public_key(),
            system.public_key(),
            of_account(&system, 0),
            account.public_key(),
            of_account(&account, -1),
        );
        Self {
            account,
            configuration,
        }
    }

    /// The text of a new user's `.creds` file.
    fn credentials(&self) -> String {
        self.credentials_until(0)
    }

    /// The same, which counts until that second of the epoch; 0: for ever.
    fn credentials_until(&self, exp: u64) -> String {
        let user = KeyPair::new_user();
        let claims = json!({
            "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1,
        });
        format!(
            "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            jwt_until(&self.account, &user, claims, exp),
            user.seed().unwrap()
        )
    }
}

/// A JWT as NATS has them, version 2: signed with the issuer's nkey.
fn jwt(issuer: &KeyPair, subject: &KeyPair, claims: Value) -> String {
    jwt_until(issuer, subject, claims, 0)
}

fn jwt_until(issuer: &KeyPair, subject: &KeyPair, claims: Value, exp: u64) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let head = part(&json!({ "typ": "JWT", "alg": "ed25519-nkey" }));
    let body = part(&json!({
        "jti": subject.public_key(),
        "iat": 1_700_000_000,
        "exp": exp,
        "iss": issuer.public_key(),
        "sub": subject.public_key(),
        "name": "test",
        "nats": claims,
    }));
    let signed = format!("{head}.{body}");
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}

#[tokio::test]
async fn a_credentials_file_of_an_operators_account() {
    let operator = Operator::new();
    let nats = Nats::with(&operator.configuration);
    let file = |name: &str, text: &str| {
        let path = nats.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let ours = file("router.creds", &operator.credentials());
    let backend = ConnectOptions::with_credentials(&operator.credentials()).unwrap();
    an_event_arrives(&with(&nats, NatsCredentials::File(ours)), &nats, backend).await;

    let strangers = file("stranger.creds", &Operator::new().credentials());
    let refused = fault(&with(&nats, NatsCredentials::File(strangers))).await;
    assert!(refused.contains("does not accept the router"), "{refused}");
    assert!(refused.contains("`nats.creds_file`"), "{refused}");

    let garbage = file("garbage.creds", "not credentials");
    let refused = fault(&with(&nats, NatsCredentials::File(garbage))).await;
    assert!(refused.contains("garbage.creds"), "{refused}");
}

#[tokio::test]
async fn a_renewed_credentials_file_counts_when_the_old_one_expires() {
    let operator = Operator::new();
    let nats = Nats::with(&operator.configuration);
    let path = nats.directory.path().join("router.creds");
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    std::fs::write(&path, operator.credentials_until(now + 10)).unwrap();
    let config = with(&nats, NatsCredentials::File(path.clone()));
    let mut rig = Rig::open(&config).await;
    rig.next().await;
    // Refused for some time first: it must not try as fast as it can.
    let backend = ConnectOptions::with_credentials(&operator.credentials()).unwrap();
    let backend = backend.connect(nats.url()).await.unwrap();
    rig.until("refused", |state| !state.connected).await;
    sleep(Duration::from_secs(1)).await;
    std::fs::write(&path, operator.credentials()).unwrap();
    rig.until("current again", |state| state.current).await;
    publish(&backend, "blob.created", "{\"user_id\":\"u1\"}").await;
    assert_eq!(rig.next().await, "1 blob.created u1 {\"user_id\":\"u1\"}");
    let log = std::fs::read_to_string(nats.directory.path().join("nats.log")).unwrap();
    let refusals = log
        .lines()
        .filter(|line| line.contains("authentication error"))
        .count();
    assert!(
        (1..60).contains(&refusals),
        "{refusals} attempts of four connections in a second: {log}"
    );
}

/// Who signs certificates for one test, and where they lie.
struct Authority {
    directory: tempfile::TempDir,
    issuer: Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut itself = CertificateParams::new([]).unwrap();
        itself.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        itself.distinguished_name.push(DnType::CommonName, "a test");
        let pem = itself.self_signed(&key).unwrap().pem();
        std::fs::write(directory.path().join("ca.pem"), pem).unwrap();
        Self {
            directory,
            issuer: Issuer::new(itself, key),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn root(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// A certificate of this name or address, and its key.
    fn sign(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = certificate.signed_by(&key, &self.issuer).unwrap();
        let paths = (
            self.path(&format!("{name}.pem")),
            self.path(&format!("{name}.key")),
        );
        std::fs::write(&paths.0, certificate.pem()).unwrap();
        std::fs::write(&paths.1, key.serialize_pem()).unwrap();
        paths
    }

    /// A server with a certificate of its own, and these lines in its `tls`.
    fn server(&self, more: &str) -> Nats {
        let (certificate, key) = self.sign("127.0.0.1");
        Nats::with(&format!(
            "{JETSTREAM}
             tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\"\n{more}\n}}",
            certificate.display(),
            key.display(),
            self.root().display()
        ))
    }
}

fn with_tls(nats: &Nats, root: &Path, client: Option<(PathBuf, PathBuf)>) -> Config {
    let mut config = with(nats, NatsCredentials::None);
    config.nats.tls = NatsTls {
        required: true,
        ca_file: Some(root.to_owned()),
        client,
    };
    config
}

#[tokio::test]
async fn tls_with_an_authority_of_ones_own() {
    let authority = Authority::new();
    let nats = authority.server("");
    let backend = || ConnectOptions::new().add_root_certificates(authority.root());
    an_event_arrives(&with_tls(&nats, &authority.root(), None), &nats, backend()).await;

    let another = Authority::new();
    let unknown = fault(&with_tls(&nats, &another.root(), None)).await;
    assert!(unknown.contains("invalid peer certificate"), "{unknown}");
    assert!(unknown.contains("`nats.tls_ca_file`"), "{unknown}");

    let garbage = authority.path("garbage.pem");
    std::fs::write(
        &garbage,
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    let unread = fault(&with_tls(&nats, &garbage, None)).await;
    assert!(unread.contains("`nats.tls_ca_file`"), "{unread}");
}

#[tokio::test]
async fn a_certificate_of_another_host_is_not_believed() {
    let authority = Authority::new();
    let (certificate, key) = authority.sign("nats.example");
    let nats = Nats::with(&format!(
        "{JETSTREAM}\ntls {{ cert_file: \"{}\", key_file: \"{}\" }}",
        certificate.display(),
        key.display()
    ));
    let fault = fault(&with_tls(&nats, &authority.root(), None)).await;
    assert!(fault.contains("not valid for name"), "{fault}");
}

#[tokio::test]
async fn tls_with_a_certificate_of_the_router() {
    let authority = Authority::new();
    let nats = authority.server("verify: true");
    let (certificate, key) = authority.sign("backend");
    let backend = ConnectOptions::new()
        .add_root_certificates(authority.root())
        .add_client_certificate(certificate, key);
    let ours = authority.sign("router");
    let config = with_tls(&nats, &authority.root(), Some(ours));
    an_event_arrives(&config, &nats, backend).await;

    let another = Authority::new();
    let strangers = another.sign("router");
    for client in [None, Some(strangers)] {
        let fault = fault(&with_tls(&nats, &authority.root(), client)).await;
        assert!(fault.contains("no TLS with NATS"), "{fault}");
        assert!(fault.contains("`nats.tls_cert_file`"), "{fault}");
    }
}

#[tokio::test]
async fn a_jetstream_domain_behind_a_leaf_node() {
    let hub = Nats::with(
        "server_name: hub
         jetstream { store_dir: \"STORE\", domain: hub }
         leafnodes { listen: \"127.0.0.1:-1\" }",
    );
    let leaf = Nats::with(&format!(
        "server_name: leaf
         leafnodes {{ remotes: [{{ url: \"nats-leaf://{}\" }}] }}",
        hub.logged("Listening for leafnode connections on ")
    ));
    let (near, far) = (leaf.client().await, hub.client().await);
    until_joined(&near, &far).await;
    let mut config = with(&leaf, NatsCredentials::None);
    config.nats.jetstream_domain = Some("hub".to_owned());
    let mut rig = Rig::open(&config).await;
    assert_eq!(rig.next().await, "open RIVULET 0");
    rig.until("current", |state| state.current && state.durable).await;
    publish(&far, "blob.created", r#"{"user_id":"u1"}"#).await;
    assert_eq!(rig.next().await, r#"1 blob.created u1 {"user_id":"u1"}"#);

    // What was asked is remembered in the same domain: nobody is there to answer again.
    let ask = || {
        rig.bus.backend().ask(Command {
            name: "create_blob".to_owned(),
            user: UserId::parse("u1").unwrap(),
            id: Some("1".to_owned()),
            data: Bytes::from_static(b"{}"),
            deadline: Instant::now() + PATIENCE,
        })
    };
    let mut commands = near.subscribe("command.*").await.unwrap();
    settle(&near).await;
    let asked = tokio::spawn(ask());
    let command = timeout(PATIENCE, commands.next()).await.unwrap().unwrap();
    let answer = Bytes::from_static(b"{\"data\":{}}");
    near.publish(command.reply.unwrap(), answer).await.unwrap();
    assert!(matches!(asked.await.unwrap(), Outcome::Reply(_)));
    commands.unsubscribe().await.unwrap();
    settle(&near).await;
    let kept = ask().await;
    assert!(matches!(kept, Outcome::Reply(_)), "{kept:?}");
}

/// Waits until what one says the other hears.
async fn until_joined(speaker: &Client, hearer: &Client) {
    let mut heard = hearer.subscribe("joined").await.unwrap();
    let said = async {
        loop {
            speaker.publish("joined", Bytes::new()).await.unwrap();
            sleep(Duration::from_millis(10)).await;
        }
    };
    let joined = async {
        tokio::select! {
            () = said => {}
            _ = heard.next() => {}
        }
    };
    timeout(PATIENCE, joined).await.expect("the leaf joins");
}

#[tokio::test]
async fn a_dead_server_among_the_urls() {
    let nats = Nats::start();
    // Bound, so that nobody else gets the port, and nobody listens.
    let dead = tokio::net::TcpSocket::new_v4().unwrap();
    dead.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let urls = [format!("nats://{}", dead.local_addr().unwrap()), nats.url()];
    let config = config(&urls, nats.directory.path());
    an_event_arrives(&config, &nats, ConnectOptions::new()).await;
}
