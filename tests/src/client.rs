//! A WebSocket client that knows nothing of the router's code: another library, JSON as it comes.

use std::{collections::VecDeque, net::SocketAddr};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message, client::IntoClientRequest, http::HeaderValue, protocol::CloseFrame},
};

use crate::soon;

/// What one connects with.
#[derive(Clone, Debug)]
pub struct Connect {
    address: SocketAddr,
    query: Vec<(String, String)>,
    headers: Vec<(&'static str, String)>,
}

/// A connection to a router.
pub struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// The rest of an array.
    waiting: VecDeque<Value>,
    /// The text frames received, arrays counted as one.
    pub frames: usize,
}

/// A handshake that was refused by HTTP.
#[derive(Debug)]
pub struct Refused {
    /// The status.
    pub status: u16,
    /// `Retry-After`, if it was there.
    pub retry_after: Option<String>,
    /// The problem document.
    pub problem: Value,
}

impl Connect {
    /// A plain client with this token in the query.
    pub fn plain(address: SocketAddr, token: &str) -> Self {
        Self {
            address,
            query: vec![("token".into(), token.into())],
            headers: Vec::new(),
        }
    }

    /// A client of the protocol `rivulet.v1` with this token as a subprotocol entry.
    pub fn v1(address: SocketAddr, token: &str) -> Self {
        let protocols = format!("rivulet.v1, bearer.{token}");
        Self {
            address,
            query: Vec::new(),
            headers: vec![("sec-websocket-protocol", protocols)],
        }
    }

    /// Adds a parameter to the query.
    #[must_use]
    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.query.push((name.into(), value.into()));
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Connects; fails the test if the router refuses by HTTP.
    pub async fn open(&self) -> Client {
        self.attempt().await.expect("the router accepts")
    }

    /// Connects, or says how the router refused.
    pub async fn attempt(&self) -> Result<Client, Refused> {
        let mut url = reqwest::Url::parse(&format!("ws://{}/api/v1/ws", self.address)).expect("a URL");
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        let mut request = url.as_str().into_client_request().expect("a request");
        for (name, value) in &self.headers {
            request
                .headers_mut()
                .insert(*name, HeaderValue::from_str(value).expect("a header"));
        }
        match soon("the handshake", connect_async(request)).await {
            Ok((socket, _)) => Ok(Client {
                socket,
                waiting: VecDeque::new(),
                frames: 0,
            }),
            Err(Error::Http(response)) => Err(Refused {
                status: response.status().as_u16(),
                retry_after: response
                    .headers()
                    .get("retry-after")
                    .map(|value| value.to_str().expect("text").to_owned()),
                problem: serde_json::from_slice(response.body().as_deref().unwrap_or_default())
                    .unwrap_or_default(),
            }),
            Err(error) => panic!("no handshake: {error}"),
        }
    }

    /// Connects and reads `connected`.
    pub async fn ready(&self) -> Client {
        let mut client = self.open().await;
        client.expect("connected").await;
        client
    }

    /// Connects and reads `connected`; `None` if the router refuses, by HTTP or by a frame.
    pub async fn try_ready(&self) -> Option<Client> {
        let mut client = self.attempt().await.ok()?;
        let first = client.next_or_close().await.ok()?;
        (first["type"] == "connected").then_some(client)
    }
}

impl Client {
    /// Sends a message.
    pub async fn send(&mut self, message: Value) {
        self.send_text(&message.to_string()).await;
    }

    /// Sends any text.
    pub async fn send_text(&mut self, text: &str) {
        self.socket
            .send(Message::text(text))
            .await
            .expect("the socket takes it");
    }

    /// Sends a WebSocket message of any kind.
    pub async fn send_message(&mut self, message: Message) {
        self.socket.send(message).await.expect("the socket takes it");
    }

    /// The next object, arrays taken apart.
    pub async fn next(&mut self) -> Value {
        match self.next_or_close().await {
            Ok(value) => value,
            Err(close) => panic!("closed instead of a message: {close:?}"),
        }
    }

    /// The next object, or how the connection was closed: code and reason.
    pub async fn next_or_close(&mut self) -> Result<Value, (u16, String)> {
        if let Some(value) = self.waiting.pop_front() {
            return Ok(value);
        }
        loop {
            match soon("a frame", self.socket.next()).await {
                Some(Ok(Message::Text(text))) => {
                    self.frames += 1;
                    match serde_json::from_str(&text).expect("a frame is JSON") {
                        Value::Array(values) => self.waiting.extend(values),
                        value => self.waiting.push_back(value),
                    }
                    return Ok(self.waiting.pop_front().expect("no array is empty"));
                }
                Some(Ok(Message::Close(Some(CloseFrame { code, reason })))) => {
                    return Err((code.into(), reason.to_string()));
                }
                Some(Ok(Message::Close(None))) => return Err((1005, String::new())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err((1006, String::new())),
            }
        }
    }

    /// The next object, which must be of this type.
    pub async fn expect(&mut self, frame_type: &str) -> Value {
        let value = self.next().await;
        assert_eq!(value["type"], frame_type, "{value}");
        value
    }

    /// Reads on until an object of this type comes.
    pub async fn skip_to(&mut self, frame_type: &str) -> Value {
        loop {
            let value = self.next().await;
            if value["type"] == frame_type {
                return value;
            }
        }
    }

    /// Subscribes and waits until that is in force.
    pub async fn subscribe(&mut self, patterns: &[&str]) -> Value {
        self.send(json!({ "type": "subscribe", "events": patterns }))
            .await;
        self.expect("subscribed").await
    }

    /// Everything that comes until the router has answered a ping sent now: all of this session's events that
    /// the router had dispatched before.
    pub async fn drain(&mut self) -> Vec<Value> {
        self.send(json!({ "type": "ping", "id": "drain" })).await;
        let mut values = Vec::new();
        loop {
            let value = self.next().await;
            if value["type"] == "pong" && value["id"] == "drain" {
                return values;
            }
            values.push(value);
        }
    }

    /// Reads on until the connection is closed: code and reason.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            if let Err(close) = self.next_or_close().await {
                return close;
            }
        }
    }

    /// Lets the connection go without a word: what was on its way is lost.
    pub fn reset(self) {
        let MaybeTlsStream::Plain(stream) = self.socket.get_ref() else {
            return;
        };
        stream.set_zero_linger().expect("it is a socket");
    }

    /// The socket, for what a proper client would not do.
    pub fn socket(&mut self) -> &mut WebSocketStream<MaybeTlsStream<TcpStream>> {
        &mut self.socket
    }
}
