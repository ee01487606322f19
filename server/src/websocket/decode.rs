//! From the client's bytes to its messages (RFC 6455 §5 to §8, RFC 7692 §6 and §7.2.2).

use bytes::{Buf, Bytes, BytesMut};

use super::deflate::inflate;
use super::error::ProtocolError;
use super::header::{Header, Opcode};
use super::mask::Mask;
use super::utf8::{IncomingText, Utf8};

/// What a client sent: a message put together, or a control frame.
///
/// Payloads may share the buffer that the socket was read into, so what is kept for long should be copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A text message.
    Text(Utf8),
    /// A binary message.
    Binary(Bytes),
    /// A ping of at most 125 bytes, to be answered by a pong with the same payload.
    Ping(Bytes),
    /// A pong of at most 125 bytes.
    Pong(Bytes),
    /// The client closes; nothing comes after it.
    Close {
        /// The status code; `None` where the frame is empty.
        code: Option<u16>,
        /// The reason, at most 123 bytes.
        reason: Utf8,
    },
}

/// Parses what one client sends. It holds bytes only while a message is on its way, never an inflater, and of
/// one message never more than the cap (and an eighth, where it is compressed).
#[derive(Debug)]
pub struct Decoder {
    max_message_bytes: usize,
    deflate: bool,
    /// The data frame whose header was read and whose payload is not all here.
    frame: Option<DataFrame>,
    /// The message of which some came and more will.
    message: Option<Message>,
    ended: bool,
}

/// What is to come of a data frame.
#[derive(Clone, Copy, Debug)]
struct DataFrame {
    fin: bool,
    /// Payload bytes to come.
    missing: u64,
    mask: Mask,
}

/// What came of a message.
#[derive(Debug)]
struct Message {
    body: Body,
    fragments: usize,
}

#[derive(Debug)]
enum Body {
    Text(IncomingText),
    Binary(BytesMut),
    Compressed { text: bool, bytes: BytesMut },
}

impl Decoder {
    /// A decoder for one connection without compression. A message over `max_message_bytes` is refused as
    /// soon as that shows: in a frame's header, over all fragments, or while inflating. So is one in more than
    /// 1,024 fragments and one for each 16 bytes of the cap.
    pub fn new(max_message_bytes: usize) -> Self {
        Self {
            max_message_bytes,
            deflate: false,
            frame: None,
            message: None,
            ended: false,
        }
    }

    /// Accepts compressed messages too, or not: as [`negotiate`](super::negotiate) agreed.
    #[must_use]
    pub fn with_deflate(self, deflate: bool) -> Self {
        Self { deflate, ..self }
    }

    /// Takes the next message or control frame off the front of `input`; `None` when more bytes are needed.
    ///
    /// It takes all that it can, so what stays in `input` is less than 140 bytes of an unfinished control
    /// frame or header. Text is checked as it comes: what can't become UTF-8 is refused before the message ends.
    /// After a close frame or an error nothing more comes out.
    ///
    /// # Errors
    /// The first [`ProtocolError`]: close with its code and read no further.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Incoming>, ProtocolError> {
        if self.ended {
            input.clear();
            return Ok(None);
        }
        let incoming = self.next(input);
        self.ended = matches!(incoming, Err(_) | Ok(Some(Incoming::Close { .. })));
        if self.ended {
            self.frame = None;
            self.message = None;
        }
        incoming
    }

    fn next(&mut self, input: &mut BytesMut) -> Result<Option<Incoming>, ProtocolError> {
        loop {
            if let Some(frame) = self.frame.take() {
                if let Some(incoming) = self.read_payload(frame, input)? {
                    return Ok(Some(incoming));
                }
                if self.frame.is_some() {
                    return Ok(None);
                }
            }
            let Some(header) = Header::parse(input)? else {
                return Ok(None);
            };
            if header.opcode.is_control() {
                return read_control(&header, input);
            }
            self.begin_frame(&header)?;
            input.advance(header.bytes);
        }
    }

    /// Checks a data frame's header against what came before, and makes ready for its payload.
    fn begin_frame(&mut self, header: &Header) -> Result<(), ProtocolError> {
        let message = match (header.opcode, self.message.take()) {
            (Opcode::Continuation, None) => return Err(ProtocolError::UnexpectedContinuation),
            (Opcode::Continuation, Some(message)) => message,
            (_, Some(_)) => return Err(ProtocolError::ExpectedContinuation),
            (_, None) if header.rsv1 && !self.deflate => return Err(ProtocolError::ReservedBit),
            (opcode, None) => Message {
                body: Body::new(opcode == Opcode::Text, header.rsv1),
                fragments: 0,
            },
        };
        // Deflate's worst case: an eighth more than what it compresses.
        let most = match message.body {
            Body::Compressed { .. } => self
                .max_message_bytes
                .saturating_add(self.max_message_bytes / 8 + 64),
            Body::Text(_) | Body::Binary(_) => self.max_message_bytes,
        };
        if header.payload_bytes > (most - message.body.len()) as u64 {
            return Err(ProtocolError::TooLarge);
        }
        // Fragments leave nothing behind but their bytes. This only ends a message that never would.
        if message.fragments >= 1024 + self.max_message_bytes / 16 {
            return Err(ProtocolError::TooManyFragments);
        }
        self.message = Some(Message {
            fragments: message.fragments + 1,
            ..message
        });
        self.frame = Some(DataFrame {
            fin: header.fin,
            missing: header.payload_bytes,
            mask: header.mask,
        });
        Ok(())
    }

    /// Takes what is here of a frame's payload; puts `frame` back if that isn't all.
    fn read_payload(
        &mut self,
        mut frame: DataFrame,
        input: &mut BytesMut,
    ) -> Result<Option<Incoming>, ProtocolError> {
        let here = usize::try_from(frame.missing).map_or(input.len(), |missing| missing.min(input.len()));
        let mut payload = input.split_to(here);
        frame.mask.remove(&mut payload);
        frame.missing -= here as u64;
        let message = self.message.as_mut().expect("a data frame belongs to a message");
        if frame.missing == 0 && frame.fin {
            let body = std::mem::replace(&mut message.body, Body::Binary(BytesMut::new()));
            self.message = None;
            return body.finish(payload, self.max_message_bytes).map(Some);
        }
        message.body.push(&payload)?;
        if frame.missing > 0 {
            self.frame = Some(frame);
        }
        Ok(None)
    }
}

impl Body {
    fn new(text: bool, compressed: bool) -> Self {
        match (compressed, text) {
            (true, text) => Self::Compressed {
                text,
                bytes: BytesMut::new(),
            },
            (false, true) => Self::Text(IncomingText::default()),
            (false, false) => Self::Binary(BytesMut::new()),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) | Self::Compressed { bytes, .. } => bytes.len(),
        }
    }

    fn push(&mut self, more: &[u8]) -> Result<(), ProtocolError> {
        match self {
            Self::Text(text) => text.push(more),
            Self::Binary(bytes) | Self::Compressed { bytes, .. } => {
                bytes.extend_from_slice(more);
                Ok(())
            }
        }
    }

    /// The whole message, given the last of it. What came in one piece is not copied.
    fn finish(mut self, last: BytesMut, max_message_bytes: usize) -> Result<Incoming, ProtocolError> {
        if self.len() > 0 {
            self.push(&last)?;
        }
        let whole = self.len() == 0;
        match self {
            Self::Text(_) if whole => Utf8::try_from(last.freeze()).map(Incoming::Text),
            Self::Text(text) => text.finish().map(Incoming::Text),
            Self::Binary(bytes) => Ok(Incoming::Binary(if whole { last } else { bytes }.freeze())),
            Self::Compressed { text, bytes } => {
                let inflated = inflate(if whole { &last } else { &bytes }, max_message_bytes)?;
                if text {
                    Utf8::try_from(inflated).map(Incoming::Text)
                } else {
                    Ok(Incoming::Binary(inflated))
                }
            }
        }
    }
}

/// Takes a control frame off `input`; `None`, and nothing taken, while it isn't all there.
fn read_control(header: &Header, input: &mut BytesMut) -> Result<Option<Incoming>, ProtocolError> {
    // At most 125 bytes, as the header was checked.
    let payload_bytes = header.payload_bytes as usize;
    if input.len() - header.bytes < payload_bytes {
        return Ok(None);
    }
    input.advance(header.bytes);
    let mut payload = input.split_to(payload_bytes);
    let mut mask = header.mask;
    mask.remove(&mut payload);
    let payload = payload.freeze();
    let incoming = match header.opcode {
        Opcode::Ping => Incoming::Ping(payload),
        Opcode::Pong => Incoming::Pong(payload),
        _ => read_close(payload)?,
    };
    Ok(Some(incoming))
}

fn read_close(mut payload: Bytes) -> Result<Incoming, ProtocolError> {
    if payload.is_empty() {
        return Ok(Incoming::Close {
            code: None,
            reason: Utf8::default(),
        });
    }
    let code = payload.try_get_u16().map_err(|_| ProtocolError::BadClose)?;
    // What may be sent: the codes that RFC 6455 §7.4.1 and IANA's registry define for that, and those free for
    // libraries, frameworks and applications (§7.4.2).
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(ProtocolError::BadClose);
    }
    Ok(Incoming::Close {
        code: Some(code),
        reason: Utf8::try_from(payload)?,
    })
}
