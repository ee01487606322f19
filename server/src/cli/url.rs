//! Where the router is.

use rivulet_router::config::Config;
use url::Url;

use super::{Failure, reachable, variable};

/// What `--url` says, else the environment, else the configuration; a URL without a path gets that of the protocol.
pub(super) fn router(given: Option<&str>, config: &Config) -> Result<Url, Failure> {
    let from_variable = || variable("RIVULET_URL").map(|url| url.to_string_lossy().into_owned());
    let Some(text) = given.map(str::to_owned).or_else(from_variable) else {
        let local = reachable(config.listen);
        return Ok(Url::parse(&format!("ws://{local}/api/v1/ws")).expect("an address makes a URL"));
    };
    let wrong = || Failure::Usage(format!("--url {text}: allowed is ws://host:port or wss://host"));
    let mut url = Url::parse(&text).map_err(|_| wrong())?;
    let scheme = match url.scheme() {
        "http" | "ws" => "ws",
        "https" | "wss" => "wss",
        _ => return Err(wrong()),
    };
    if url.set_scheme(scheme).is_err() || !url.has_host() {
        return Err(wrong());
    }
    if matches!(url.path(), "" | "/") {
        url.set_path("/api/v1/ws");
    }
    Ok(url)
}
