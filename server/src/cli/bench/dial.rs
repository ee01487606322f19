//! From an address to an open WebSocket, or to the router's reason why not.

use std::{io, net::SocketAddr, pin::Pin, sync::Arc, task};

use base64::{Engine, engine::general_purpose::STANDARD};
use rivulet_protocol::message::SUBPROTOCOL;
use rivulet_router::websocket::accept_key;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpStream, lookup_host},
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, RootCertStore, pki_types::ServerName},
};
use url::Url;

use crate::cli::tail::reconnect::End;

/// The most bytes of an answer to the upgrade.
const MAX_ANSWER: usize = 16 * 1024;
/// What is offered with `--compress`: no context either way, so that one inflater serves all sessions.
const DEFLATE: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// A router, found.
pub(super) struct Target {
    url: Url,
    /// As the header `Host` has it.
    host: String,
    address: SocketAddr,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// What a client says of itself.
pub(super) struct Hello<'a> {
    pub(super) token: &'a str,
    pub(super) patterns: &'a str,
    pub(super) device: &'a str,
    /// The stream's epoch and the sequence after which it goes on.
    pub(super) position: Option<(&'a str, u64)>,
    pub(super) plain: bool,
    pub(super) compress: bool,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) end: End,
    /// The router's words.
    pub(super) said: Option<String>,
}

impl Refusal {
    fn lost(why: impl ToString) -> Self {
        Self {
            end: End::Lost(why.to_string()),
            said: None,
        }
    }
}

/// An open connection, what came behind the answer, and how many bytes came in all.
pub(super) struct Open {
    pub(super) stream: Stream,
    pub(super) rest: Vec<u8>,
    pub(super) read: usize,
}

impl Target {
    /// Finds the address of a URL, once for all sessions.
    pub(super) async fn find(url: Url) -> anyhow::Result<Self> {
        let name = url.host_str().unwrap_or_default().to_owned();
        let port = url.port_or_known_default().unwrap_or(80);
        let bare = name.trim_matches(['[', ']']);
        let mut addresses = lookup_host((bare, port))
            .await
            .map_err(|error| anyhow::anyhow!("{url}: {error}"))?;
        let address = addresses
            .next()
            .ok_or_else(|| anyhow::anyhow!("{url}: the name has no address"))?;
        let tls = match url.scheme() {
            "wss" => Some((connector()?, ServerName::try_from(bare.to_owned())?)),
            _ => None,
        };
        let host = url.port().map_or(name.clone(), |port| format!("{name}:{port}"));
        Ok(Self {
            url,
            host,
            address,
            tls,
        })
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// Connects and upgrades.
    pub(super) async fn dial(&self, hello: &Hello<'_>) -> Result<Open, Refusal> {
        let unreachable = |error: io::Error| Refusal::lost(format_args!("{}: {error}", self.url));
        let tcp = TcpStream::connect(self.address).await.map_err(unreachable)?;
        tcp.set_nodelay(true).map_err(unreachable)?;
        let mut stream = match &self.tls {
            None => Stream::Plain(tcp),
            Some((connector, name)) => {
                let tls = connector.connect(name.clone(), tcp).await;
                Stream::Tls(Box::new(tls.map_err(unreachable)?))
            }
        };
        let key = STANDARD.encode(rand::random::<[u8; 16]>());
        let request = self.request(hello, &key);
        stream.write_all(request.as_bytes()).await.map_err(unreachable)?;

        let mut answer = Vec::new();
        loop {
            if stream.read_buf(&mut answer).await.map_err(unreachable)? == 0 {
                return Err(Refusal::lost(format_args!(
                    "{} hangs up on the upgrade",
                    self.url
                )));
            }
            if let Some(body) = read_answer(&answer, &key, hello.compress)? {
                let rest = answer.split_off(body);
                return Ok(Open {
                    stream,
                    read: body,
                    rest,
                });
            }
            if answer.len() > MAX_ANSWER {
                return Err(Refusal::lost(format_args!(
                    "{} does not answer as a router does",
                    self.url
                )));
            }
        }
    }

    fn request(&self, hello: &Hello<'_>, key: &str) -> String {
        let mut url = self.url.clone();
        url.query_pairs_mut()
            .append_pair("events", hello.patterns)
            .append_pair("device", hello.device);
        if let Some((stream, seq)) = hello.position {
            url.query_pairs_mut()
                .append_pair("stream", stream)
                .append_pair("seq", &seq.to_string());
        }
        let (path, query) = (url.path(), url.query().unwrap_or_default());
        let mut request = format!(
            "GET {path}?{query} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer {}\r\n",
            self.host, hello.token
        );
        if !hello.plain {
            request.push_str(&format!("Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n"));
        }
        if hello.compress {
            request.push_str(&format!("Sec-WebSocket-Extensions: {DEFLATE}\r\n"));
        }
        request.push_str("\r\n");
        request
    }
}

/// Where what follows the answer begins, once all of it is there; a refusal with the words of its body.
fn read_answer(answer: &[u8], key: &str, compress: bool) -> Result<Option<usize>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let body = match response.parse(answer) {
        Ok(httparse::Status::Complete(body)) => body,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(Refusal::lost(format_args!("the answer is not HTTP: {error}"))),
    };
    let header = |name: &str| {
        let header = response
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok()
    };
    let status = response.code.unwrap_or_default();
    if status != 101 {
        let length = header("content-length").and_then(|length| length.parse().ok());
        let there = answer.len() - body;
        if length.is_some_and(|length: usize| there < length.min(MAX_ANSWER)) {
            return Ok(None);
        }
        let retry_after = header("retry-after").and_then(|seconds| seconds.parse().ok());
        return Err(Refusal {
            end: End::Refused { status, retry_after },
            said: words(&answer[body..]),
        });
    }
    let expected = accept_key(key).expect("a key of 16 bytes");
    if header("sec-websocket-accept") != Some(&expected) {
        return Err(Refusal::lost("the answer to the upgrade is another's"));
    }
    let extension = header("sec-websocket-extensions");
    match extension {
        Some(extension) if !compress || !extension.contains("server_no_context_takeover") => {
            Err(Refusal::lost(format_args!(
                "the router takes `{extension}`, which was not offered"
            )))
        }
        _ => Ok(Some(body)),
    }
}

/// What a problem document says (RFC 9457).
fn words(body: &[u8]) -> Option<String> {
    let problem: serde_json::Value = serde_json::from_slice(body).ok()?;
    let detail = problem["detail"].as_str()?;
    Some(match problem["code"].as_str() {
        Some(code) => format!("{code}: {detail}"),
        None => detail.to_owned(),
    })
}

/// TLS with the authorities that the system trusts.
fn connector() -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    for certificate in rustls_native_certs::load_native_certs().certs {
        // One that can't be read is one that vouches for nobody.
        let _ = roots.add(certificate);
    }
    anyhow::ensure!(
        !roots.is_empty(),
        "this system has no certificates of authorities, which wss:// needs"
    );
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A socket with or without TLS.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> task::Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        bytes: &[u8],
    ) -> task::Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut task::Context<'_>) -> task::Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut task::Context<'_>) -> task::Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn switching(extension: &str) -> String {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n{extension}\r\n"
        )
    }

    #[test]
    fn an_upgrade_is_read_to_its_end() {
        let answer = switching("") + "rest";
        for end in 0..answer.len() - "rest".len() {
            assert!(
                read_answer(&answer.as_bytes()[..end], KEY, false)
                    .unwrap()
                    .is_none()
            );
        }
        let body = read_answer(answer.as_bytes(), KEY, false).unwrap();
        assert_eq!(body, Some(answer.len() - "rest".len()));
    }

    #[test]
    fn compression_is_as_offered_or_not_at_all() {
        let whole = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n";
        let context = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
        assert!(read_answer(switching(whole).as_bytes(), KEY, true).is_ok());
        assert!(read_answer(switching("").as_bytes(), KEY, true).is_ok());
        assert!(read_answer(switching(context).as_bytes(), KEY, true).is_err());
        assert!(read_answer(switching(whole).as_bytes(), KEY, false).is_err());
    }

    #[test]
    fn a_refusal_is_told_in_the_routers_words() {
        let body =
            r#"{"title":"Unauthorized","status":401,"detail":"the token is expired","code":"UNAUTHORIZED"}"#;
        let answer = format!(
            "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        assert!(
            read_answer(&answer.as_bytes()[..answer.len() - 1], KEY, false)
                .unwrap()
                .is_none()
        );
        let Refusal { end, said } = read_answer(answer.as_bytes(), KEY, false).unwrap_err();
        let expected = End::Refused {
            status: 429,
            retry_after: Some(3),
        };
        assert_eq!(end, expected);
        assert_eq!(said.as_deref(), Some("UNAUTHORIZED: the token is expired"));
    }

    #[test]
    fn an_answer_to_another_key_is_refused() {
        assert!(read_answer(switching("").as_bytes(), "AAAAAAAAAAAAAAAAAAAAAA==", false).is_err());
    }
}
