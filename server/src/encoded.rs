//! A message as wire bytes, made once and shared by all who receive it.

use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

use bytes::Bytes;
use rivulet_protocol::message::ServerMessage;

use crate::{
    event::Event,
    websocket::{Frame, FrameBuilder, MessageKind, compressed_frame},
};

/// A message as one WebSocket frame. It knows nothing of its receivers, so one serves all of them, and so does
/// its one compressed form. A clone is a count.
#[derive(Clone, Debug)]
pub struct Encoded(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    frame: Frame,
    /// Made by the first receiver that wants it; `None` inside: it would not get smaller.
    compressed: OnceLock<Option<Bytes>>,
    received_at: Option<Instant>,
}

impl Encoded {
    /// The event, its data spliced in as it came.
    pub fn event(event: &Event) -> Self {
        use std::io::Write as _;

        let Event {
            event_type,
            data,
            seq,
            time,
            ..
        } = event;
        // Beside type and data: a sequence of up to 20 bytes, a time of up to 27, and 40 of punctuation.
        let mut builder = FrameBuilder::with_capacity(data.len() + event_type.as_str().len() + 87);
        // A type has no character that JSON escapes.
        write!(builder, r#"{{"type":"{event_type}""#).expect("memory takes it");
        if let Some(seq) = seq {
            write!(builder, r#","seq":{seq}"#).expect("memory takes it");
        }
        write!(builder, r#","time":"{time}","data":"#).expect("memory takes it");
        builder.extend_from_slice(data);
        builder.extend_from_slice(b"}");
        Self::from_frame(builder.finish(MessageKind::Text), Some(event.received_at))
    }

    /// The `error` frame that a `processor.failed` also is; `None` for every other event.
    pub fn event_as_error(event: &Event) -> Option<Self> {
        let data = event.as_error.as_ref()?;
        let mut builder = FrameBuilder::with_capacity(data.len() + 32);
        builder.extend_from_slice(br#"{"type":"error","data":"#);
        builder.extend_from_slice(data);
        builder.extend_from_slice(b"}");
        Some(Self::from_frame(
            builder.finish(MessageKind::Text),
            Some(event.received_at),
        ))
    }

    /// A message of the router's own, with the `id` of what it answers.
    pub fn message(message: &ServerMessage, id: Option<&str>) -> Self {
        Self::json(&message.to_json(id))
    }

    /// A message that is JSON text already.
    pub fn json(text: &str) -> Self {
        let mut builder = FrameBuilder::with_capacity(text.len());
        builder.extend_from_slice(text.as_bytes());
        Self::from_frame(builder.finish(MessageKind::Text), None)
    }

    /// Several messages as one array, for clients that take arrays; compressed for itself, as nobody shares it.
    pub fn array(messages: &[Self]) -> Self {
        let bytes: usize = messages.iter().map(|message| message.payload().len() + 1).sum();
        let mut builder = FrameBuilder::with_capacity(bytes + 1);
        for (index, message) in messages.iter().enumerate() {
            builder.extend_from_slice(if index == 0 { b"[" } else { b"," });
            builder.extend_from_slice(message.payload());
        }
        builder.extend_from_slice(b"]");
        let oldest = messages.iter().find_map(Self::received_at);
        Self::from_frame(builder.finish(MessageKind::Text), oldest)
    }

    /// The frame, header and all.
    pub fn frame(&self) -> &Bytes {
        self.0.frame.wire()
    }

    /// The frame in its compressed form, made at the first call; `None` if it would not be smaller. `level` is
    /// one for the whole router: the first caller's counts.
    pub fn compressed_frame(&self, level: u8) -> Option<&Bytes> {
        self.0
            .compressed
            .get_or_init(|| compressed_frame(MessageKind::Text, self.payload(), level))
            .as_ref()
    }

    /// The JSON text without the frame's header.
    pub fn payload(&self) -> &[u8] {
        self.0.frame.payload()
    }

    /// Since when the event is on its way, as [`Event::received_at`] says; `None` for a message of the router's own.
    pub fn received_at(&self) -> Option<Instant> {
        self.0.received_at
    }

    fn from_frame(frame: Frame, received_at: Option<Instant>) -> Self {
        Self(Arc::new(Inner {
            frame,
            compressed: OnceLock::new(),
            received_at,
        }))
    }
}
