//! `rivulet health`: ask a router whether it is ready.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use url::Url;

use super::{Failure, Settings, block_on, print, reachable};

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Health {
    /// The router [default: http:// and the key `listen`]
    #[arg(long)]
    url: Option<String>,
    #[command(flatten)]
    settings: Settings,
}

const AFTER_HELP: &str = "\
Exits 0 if the router is ready, 1 if it is not or does not answer within 5 s. In a container:
  HEALTHCHECK CMD [\"rivulet\", \"health\"]";

impl Health {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let config = self.settings.load()?;
        let base = match self.url {
            Some(url) => checked(url)?,
            None => format!("http://{}", reachable(config.listen)),
        };
        let url = format!("{}/health/ready", base.trim_end_matches('/'));
        let (status, body) = block_on(ask(&url))??;
        if !status.is_success() {
            return Err(Failure::other(format_args!(
                "not ready: {url} says {status} {}",
                body.trim()
            )));
        }
        print(body.trim())?;
        Ok(())
    }
}

fn checked(url: String) -> Result<String, Failure> {
    let scheme = Url::parse(&url).ok().map(|url| url.scheme().to_owned());
    match scheme.as_deref() {
        Some("http" | "https") => Ok(url),
        _ => Err(Failure::Usage(format!(
            "--url {url}: allowed is http://host:port or https://host"
        ))),
    }
}

async fn ask(url: &str) -> anyhow::Result<(reqwest::StatusCode, String)> {
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(5))
        .build()?;
    let response = client
        .get(url)
        .send()
        .await
        .with_context(|| format!("{url} does not answer"))?;
    Ok((response.status(), response.text().await?))
}
