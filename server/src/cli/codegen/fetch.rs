//! Asks a router for the families that it serves.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Map, Value};
use url::Url;

/// Where a router serves its users' families, below its address.
const PATH: &str = "schemas/families.json";
/// The most bytes of the answer.
const MAX_BYTES: usize = 64 << 20;
/// How long the whole may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The address of a router, as `--from` takes it: that of a page or of its WebSockets.
pub(super) fn address(text: &str) -> Result<Url, String> {
    let why = "a router's address is http://host:port or https://host";
    let http = match text.split_once("://") {
        Some(("ws", rest)) => format!("http://{rest}"),
        Some(("wss", rest)) => format!("https://{rest}"),
        _ => text.to_owned(),
    };
    let mut url = Url::parse(&http).map_err(|error| format!("{error}: {why}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.query().is_some() || url.fragment().is_some() {
        return Err(why.to_owned());
    }
    let path = url.path().trim_end_matches("api/v1/ws").trim_end_matches('/');
    let path = format!("{path}/");
    url.set_path(&path);
    Ok(url)
}

/// The router's families by name, each as its file was given.
pub(super) async fn families(router: &Url) -> anyhow::Result<Map<String, Value>> {
    let url = router.join(PATH)?;
    let asked = || format!("can't read {url}");
    let client = reqwest::Client::builder().timeout(TIMEOUT).build()?;
    let mut response = client.get(url.clone()).send().await.with_context(asked)?;
    let status = response.status();
    ensure!(
        status.is_success(),
        "{url} answered with {status}: is this a router, and one that knows families?"
    );
    let mut text = Vec::new();
    while let Some(chunk) = response.chunk().await.with_context(asked)? {
        ensure!(
            text.len() + chunk.len() <= MAX_BYTES,
            "the answer of {url} is over {MAX_BYTES} bytes"
        );
        text.extend_from_slice(&chunk);
    }
    let Ok(families) = serde_json::from_slice::<Map<String, Value>>(&text) else {
        bail!("the answer of {url} is not a JSON object: is this a router?");
    };
    ensure!(
        !families.is_empty(),
        "the router has no families but the built-in ones, which the SDKs have: `rivulet serve --families` gives it some"
    );
    Ok(families)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_that_of_a_page_or_of_the_sockets() {
        for (text, url) in [
            ("http://localhost:8010", "http://localhost:8010/"),
            (
                "wss://events.example.com/api/v1/ws",
                "https://events.example.com/",
            ),
            ("https://example.com/events/", "https://example.com/events/"),
        ] {
            assert_eq!(address(text).unwrap().as_str(), url);
        }
        for text in ["localhost:8010", "nats://localhost", "http://a/?token=b", ""] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
