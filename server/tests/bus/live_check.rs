//! `rivulet check --live`: what lacks is found on a running NATS, and nothing is changed there.

use rivulet_router::{
    bus::{self, Finding},
    config::{Config, NatsCredentials, Secret},
};

use crate::{
    nats::Nats,
    rig::{Rig, config, publish, source},
};

const MINE: &str = r#"{"user_id":"u1"}"#;

/// A server on which `router` may do only this, `other` only that, and `backend` everything.
fn server(router: &str, other: &str) -> Nats {
    Nats::with(&format!(
        "jetstream {{ store_dir: \"STORE\" }}
         authorization {{ users: [
           {{ user: router, password: r, {router} }}
           {{ user: other, password: o, {other} }}
           {{ user: backend, password: b }}
         ] }}"
    ))
}

fn of(nats: &Nats) -> Config {
    let mut config = config(&[nats.url()], nats.directory.path());
    config.sources.push(source("typing.>", false));
    config.nats.credentials = as_user("router", "r");
    config
}

fn as_user(user: &str, password: &str) -> NatsCredentials {
    NatsCredentials::Password {
        user: user.to_owned(),
        password: Secret(password.to_owned()),
    }
}

/// The block that `check --permissions` prints for the router, and the one for everybody else.
fn printed() -> (String, String) {
    let mut config = config(&[], std::path::Path::new("/nowhere"));
    config.sources.push(source("typing.>", false));
    let text = bus::permissions(&config);
    let (router, others) = text.split_once("\n# Every other user").unwrap();
    let block = others.split_once("# permissions").unwrap().1;
    let block = block.lines().map(|line| line.strip_prefix("# ").unwrap_or(line));
    let block = block.collect::<Vec<_>>().join("\n");
    (router.to_owned(), format!("permissions {block}"))
}

async fn findings(config: &Config, other: Option<NatsCredentials>) -> Vec<Finding> {
    let mut findings = Vec::new();
    bus::check_live(config, other, |finding| findings.push(finding)).await;
    findings
}

fn bad(findings: &[Finding]) -> Vec<&str> {
    let bad = findings.iter().filter(|finding| !finding.good);
    bad.map(|finding| finding.text.as_str()).collect()
}

#[tokio::test]
async fn the_printed_permissions_are_good_and_nothing_changes() {
    let (router, others) = printed();
    let nats = server(&router, &others);
    let mut config = of(&nats);
    // Before the router ran, and beside it.
    let before = findings(&config, Some(as_user("other", "o"))).await;
    assert_eq!(bad(&before), Vec::<&str>::new());
    assert!(
        before
            .iter()
            .any(|finding| finding.text.contains("is not there yet")),
        "{before:?}"
    );
    let mut rig = Rig::open(&config).await;
    rig.next().await;
    config.nats.credentials = as_user("backend", "b");
    let during = findings(&of(&nats), Some(as_user("other", "o"))).await;
    assert_eq!(bad(&during), Vec::<&str>::new());
    assert!(
        during
            .iter()
            .any(|finding| finding.text.contains("resuming is exact")),
        "{during:?}"
    );
    let backend = async_nats::ConnectOptions::with_user_and_password("backend".into(), "b".into())
        .connect(nats.url())
        .await
        .unwrap();
    // The first of the stream: what was tried left nothing in it.
    publish(&backend, "blob.created", MINE).await;
    assert_eq!(rig.next().await, format!("1 blob.created u1 {MINE}"));
}

#[tokio::test]
async fn what_the_router_lacks_and_what_another_may_is_named() {
    let (router, others) = printed();
    let fewer: Vec<&str> = router
        .lines()
        .filter(|line| !line.contains("\"rivulet.live.>\"") && !line.contains("STREAM.MSG.GET.RIVULET"))
        .collect();
    let open: Vec<&str> = others
        .lines()
        .filter(|line| !line.contains("\"rivulet.inbox.>\"") && !line.contains("forged events"))
        .collect();
    let nats = server(&fewer.join("\n"), &open.join("\n"));
    let findings = findings(&of(&nats), Some(as_user("other", "o"))).await;
    let bad = bad(&findings);
    for expected in [
        "may subscribe to `rivulet.live.>`",
        "may publish on `$JS.API.STREAM.MSG.GET.RIVULET`",
        "the other user may subscribe to `rivulet.inbox.>`",
        "the other user may publish on `rivulet.inbox.>`",
        "the other user may publish on `rivulet.live.>`",
    ] {
        assert!(
            bad.iter().any(|text| text.starts_with(expected)),
            "{expected}: {bad:#?}"
        );
    }
    assert_eq!(bad.len(), 5, "{bad:#?}");
}

#[tokio::test]
async fn a_refused_user_and_a_server_that_is_away_are_one_line() {
    let (router, others) = printed();
    let nats = server(&router, &others);
    let mut config = of(&nats);
    config.nats.credentials = as_user("router", "wrong");
    let findings = findings(&config, None).await;
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(
        findings[0].text.contains("does not accept the router"),
        "{findings:?}"
    );
    config.nats.urls = vec!["nats://127.0.0.1:1".to_owned()];
    let findings = self::findings(&config, None).await;
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].text.contains("can't be reached"), "{findings:?}");
}
