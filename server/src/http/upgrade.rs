//! From an HTTP request to a WebSocket (RFC 6455, section 4.2), or to a refusal that says why.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header},
    response::{IntoResponse, Response},
};
use bytes::BytesMut;
use futures_util::FutureExt as _;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use rivulet_protocol::message::SUBPROTOCOL;
use tokio::net::TcpStream;
use tracing::debug;

use super::{Edge, Entry, head::Rewound, problem::Problem};
use crate::{
    connection::{
        self,
        handshake::{Hello, Query},
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
        Err(problem) => return problem.into_response(),
    };
    let hello = hello(&request, &entry, &edge);
    let kind = hello.kind;
    let deflate = match edge.deflate {
        true => negotiate(request.headers().get_all(header::SEC_WEBSOCKET_EXTENSIONS)),
        false => None,
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let refused = &edge.door.node.metrics.connections.refused;
    // Before the door looks whether the node drains: whom it lets in is waited for.
    let stay = edge.door.node.shutdown.stay();
    match edge.door.admit(hello).await {
        Ok(admitted) => {
            let node = Arc::clone(&edge.door.node);
            tokio::spawn(async move {
                let Some((stream, read_ahead)) = upgraded(upgrade).await else {
                    return;
                };
                let Entry { open, pending, .. } = entry;
                drop(pending);
                let session = connection::run(stream, read_ahead, admitted, deflate.is_some(), node);
                // A task of its own, for as long as it lasts: this one's room would stay with it.
                tokio::spawn(session.map(move |()| drop((stay, open))));
            });
            switching(&accept, kind, deflate.map(|agreement| agreement.to_string()))
        }
        Err(refusal) if kind == ClientKind::V1 => {
            refused.of(refusal.code.number().to_string()).inc();
            // No end of strangers may come while the node drains.
            drop(stay);
            tokio::spawn(async move {
                let Some((stream, _)) = upgraded(upgrade).await else {
                    return;
                };
                tokio::select! {
                    () = connection::refuse(stream, &refusal) => {}
                    _ = entry.pending.taken() => {}
                }
            });
            switching(&accept, kind, None)
        }
        Err(refusal) => {
            refused.of(refusal.code.number().to_string()).inc();
            Problem::from(&refusal).into_response()
        }
    }
}

/// Checks what RFC 6455 asks of the request (section 4.2.1). Returns the value of `Sec-WebSocket-Accept`.
fn accept(request: &Request) -> Result<String, Problem> {
    let headers = request.headers();
    let names = |name, token: &str| list(headers, name).any(|entry| entry.eq_ignore_ascii_case(token));
    let only = |name: header::HeaderName| {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none())
    };
    let bad_request = |detail: &str| Problem::new(StatusCode::BAD_REQUEST, detail);
    let upgrade_required = |detail: &str| Problem::new(StatusCode::UPGRADE_REQUIRED, detail);

    let asks = request.method() == Method::GET
        && names(header::UPGRADE, "websocket")
        && names(header::CONNECTION, "upgrade");
    if !asks {
        return Err(upgrade_required(
            "this is a WebSocket address: connect with ws:// or wss://",
        ));
    }
    if request.version() != Version::HTTP_11 {
        return Err(bad_request("WebSocket begins with HTTP/1.1"));
    }
    if only(header::HOST).is_none() {
        return Err(bad_request("one `Host` is needed"));
    }
    // What follows the request is frames: a proxy that takes it for a body would read something else.
    let has_body = headers.contains_key(header::TRANSFER_ENCODING)
        || headers
            .get(header::CONTENT_LENGTH)
            .is_some_and(|length| length != "0");
    if has_body {
        return Err(bad_request("a WebSocket handshake has no body"));
    }
    if only(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(upgrade_required("only version 13 of WebSocket is spoken here"));
    }
    let key = only(header::SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok());
    accept_key(key.unwrap_or_default()).map_err(|error| bad_request(&error.to_string()))
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
    // What the client wrote may be no text; what a proxy appended to it is.
    let forwarded: Vec<_> = headers
        .get_all("x-forwarded-for")
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .collect();
    Hello {
        address: client_address(
            entry.peer,
            forwarded.iter().map(AsRef::as_ref),
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
        .downcast::<TokioIo<Rewound>>()
        .expect("what was accepted is a TCP stream");
    let (unread, stream) = parts.io.into_inner().into_parts();
    let mut read_ahead = BytesMut::from(parts.read_buf);
    read_ahead.extend_from_slice(&unread);
    Some((stream, read_ahead))
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
