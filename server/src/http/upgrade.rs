//! From an HTTP request to a WebSocket (RFC 6455, section 4.2), or to a refusal that says why.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::BytesMut;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use rivulet_protocol::message::SUBPROTOCOL;
use serde_json::json;
use tokio::net::TcpStream;
use tracing::debug;

use super::{Edge, Entry};
use crate::{
    connection::{
        self,
        handshake::{Hello, Query, Refusal},
    },
    limits::{address::client_address, seats::ClientKind},
    websocket::{accept_key, negotiate},
};

/// The entry of `Sec-WebSocket-Protocol` that carries a token: browsers can set no other header.
const BEARER: &str = "bearer.";

pub(super) async fn upgrade(State(edge): State<Arc<Edge>>, mut request: Request) -> Response {
    let entry = request
        .extensions()
        .get::<Entry>()
        .expect("every request has its socket's")
        .clone();
    let accept = match accept(&request) {
        Ok(accept) => accept,
        Err((status, text)) => {
            return (status, [(header::SEC_WEBSOCKET_VERSION, "13")], text).into_response();
        }
    };
    let hello = hello(&request, &entry, &edge);
    let kind = hello.kind;
    let deflate = match edge.deflate {
        true => negotiate(request.headers().get_all(header::SEC_WEBSOCKET_EXTENSIONS)),
        false => None,
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let refused = &edge.door.node.metrics.connections.refused;
    match edge.door.admit(hello).await {
        Ok(admitted) => {
            let node = Arc::clone(&edge.door.node);
            tokio::spawn(async move {
                let Some((stream, read_ahead)) = upgraded(upgrade).await else {
                    return;
                };
                let Entry {
                    open: _open, pending, ..
                } = entry;
                drop(pending);
                connection::run(stream, read_ahead, admitted, deflate.is_some(), node).await;
            });
            switching(&accept, kind, deflate.map(|agreement| agreement.to_string()))
        }
        Err(refusal) if kind == ClientKind::V1 => {
            refused.of(refusal.code.number().to_string()).inc();
            tokio::spawn(async move {
                let Some((stream, _)) = upgraded(upgrade).await else {
                    return;
                };
                connection::refuse(stream, &refusal).await;
                drop(entry);
            });
            switching(&accept, kind, None)
        }
        Err(refusal) => {
            refused.of(refusal.code.number().to_string()).inc();
            problem(&refusal)
        }
    }
}

/// Checks what RFC 6455 asks of the request. Returns the value of `Sec-WebSocket-Accept`.
fn accept(request: &Request) -> Result<String, (StatusCode, &'static str)> {
    let headers = request.headers();
    let names = |name, token: &str| list(headers, name).any(|entry| entry.eq_ignore_ascii_case(token));
    if request.method() != Method::GET
        || !names(header::UPGRADE, "websocket")
        || !names(header::CONNECTION, "upgrade")
    {
        return Err((
            StatusCode::UPGRADE_REQUIRED,
            "this is a WebSocket address: connect with ws:// or wss://",
        ));
    }
    if headers
        .get(header::SEC_WEBSOCKET_VERSION)
        .is_none_or(|version| version != "13")
    {
        return Err((
            StatusCode::UPGRADE_REQUIRED,
            "only version 13 of WebSocket is spoken here",
        ));
    }
    let key = headers
        .get(header::SEC_WEBSOCKET_KEY)
        .and_then(|key| key.to_str().ok())
        .unwrap_or_default();
    accept_key(key).map_err(|_| {
        (
            StatusCode::BAD_REQUEST,
            "Sec-WebSocket-Key is not 16 bytes in base64",
        )
    })
}

/// What the request says of the client.
fn hello(request: &Request, entry: &Entry, edge: &Edge) -> Hello {
    let headers = request.headers();
    let mut query = Query::default();
    let mut query_token = None;
    for (name, value) in url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()) {
        let field = match &*name {
            "events" => &mut query.events,
            "stream" => &mut query.stream,
            "seq" => &mut query.seq,
            "device" => &mut query.device,
            "token" => &mut query_token,
            _ => continue,
        };
        *field = Some(value.into_owned());
    }
    let protocols = || list(headers, header::SEC_WEBSOCKET_PROTOCOL);
    let bearer_header = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim().to_owned());
    let bearer_protocol = || {
        protocols()
            .find_map(|entry| entry.strip_prefix(BEARER))
            .map(str::to_owned)
    };
    let forwarded = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok());
    Hello {
        address: client_address(
            entry.peer,
            forwarded.collect::<Vec<_>>().into_iter(),
            &edge.config.trusted_proxies,
        ),
        kind: if protocols().any(|entry| entry == SUBPROTOCOL) {
            ClientKind::V1
        } else {
            ClientKind::Plain
        },
        foreign_origin: foreign_origin(headers, edge),
        token: bearer_header.or_else(bearer_protocol).or(query_token),
        query,
    }
}

/// The origin, if it is neither the host's own nor allowed.
fn foreign_origin(headers: &HeaderMap, edge: &Edge) -> Option<String> {
    let origin = headers.get(header::ORIGIN)?;
    let Ok(origin) = origin.to_str() else {
        return Some("(not text)".into());
    };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let own = origin.split_once("://").map(|(_, host)| host);
    let allowed = edge.dev
        || (own.is_some() && own.map(str::to_ascii_lowercase) == host.map(str::to_ascii_lowercase))
        || edge
            .config
            .allowed_origins
            .iter()
            .any(|allowed| allowed.eq_ignore_ascii_case(origin));
    (!allowed).then(|| origin.chars().take(256).collect())
}

/// The entries of a header that is a list, over all its lines.
fn list(headers: &HeaderMap, name: header::HeaderName) -> impl Iterator<Item = &str> {
    let values: Vec<&HeaderValue> = headers.get_all(name).iter().collect();
    values
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// Takes the stream back from HTTP, with what the client sent behind its request.
async fn upgraded(upgrade: OnUpgrade) -> Option<(TcpStream, BytesMut)> {
    let upgraded: Upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => {
            debug!(%error, "the client went away in its handshake");
            return None;
        }
    };
    let parts = upgraded
        .downcast::<TokioIo<TcpStream>>()
        .expect("what was accepted is a TCP stream");
    Some((parts.io.into_inner(), BytesMut::from(parts.read_buf)))
}

fn switching(accept: &str, kind: ClientKind, extensions: Option<String>) -> Response {
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    let value = |text: &str| HeaderValue::from_str(text).expect("base64 and tokens are header text");
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, value(accept));
    if kind == ClientKind::V1 {
        headers.insert(
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(SUBPROTOCOL),
        );
    }
    if let Some(extensions) = extensions {
        headers.insert(header::SEC_WEBSOCKET_EXTENSIONS, value(&extensions));
    }
    response
}

/// The refusal of a plain client (RFC 9457).
fn problem(refusal: &Refusal) -> Response {
    let status = StatusCode::from_u16(refusal.status()).expect("a status of ours");
    let body = json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": refusal.status(),
        "code": refusal.error.code,
        "detail": refusal.error.message,
        "retry_after": refusal.error.retry_after,
    });
    let mut response = (status, body.to_string()).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    // RFC 9110, section 10.2.3: whole seconds. Who has no seat may try when one is given back, which nobody
    // knows; a plain client still wants a number.
    let seconds = refusal.error.retry_after.unwrap_or(60.0).ceil() as u64;
    if matches!(status.as_u16(), 429 | 503) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
