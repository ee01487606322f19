//! Which permessage-deflate the two ends speak (RFC 7692 §5 and §7.1), if any.

use std::borrow::Cow;
use std::fmt;

/// The window of every frame that the server compresses: one frame for all, so one window for all.
const WINDOW_BITS: u8 = 15;

/// The permessage-deflate both ends agreed on: no context taken over, either way. Its `Display` is the value
/// of the answer's `Sec-WebSocket-Extensions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    server_max_window_bits: Option<u8>,
    client_max_window_bits: Option<u8>,
}

impl fmt::Display for Agreement {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("permessage-deflate; server_no_context_takeover; client_no_context_takeover")?;
        if let Some(bits) = self.server_max_window_bits {
            write!(out, "; server_max_window_bits={bits}")?;
        }
        if let Some(bits) = self.client_max_window_bits {
            write!(out, "; client_max_window_bits={bits}")?;
        }
        Ok(())
    }
}

/// Takes the first of the client's offers that a frame shared by all connections satisfies, or none.
///
/// `values` are the request's `Sec-WebSocket-Extensions` headers, in order. An offer that asks for a server
/// window below 15 bits is declined, and so is one with an unknown, repeated or malformed parameter
/// (RFC 7692 §7.1); the next offer is then looked at. Takes time linear in the bytes of `values`.
pub fn negotiate<V: AsRef<[u8]>>(values: impl IntoIterator<Item = V>) -> Option<Agreement> {
    values
        .into_iter()
        .find_map(|value| split_unquoted(value.as_ref(), b',').find_map(satisfy))
}

/// The agreement that accepts this one offer.
fn satisfy(offer: &[u8]) -> Option<Agreement> {
    let mut parts = split_unquoted(offer, b';').map(<[u8]>::trim_ascii);
    if !parts.next()?.eq_ignore_ascii_case(b"permessage-deflate") {
        return None;
    }
    let mut server_no_context_takeover = None;
    let mut client_no_context_takeover = None;
    let mut server_max_window_bits = None;
    let mut client_max_window_bits = None;
    for part in parts {
        let Parameter { name, value } = Parameter::parse(part)?;
        match name {
            b"server_no_context_takeover" => once(&mut server_no_context_takeover, absent(value)?)?,
            b"client_no_context_takeover" => once(&mut client_no_context_takeover, absent(value)?)?,
            b"server_max_window_bits" => once(&mut server_max_window_bits, window_bits(&value?)?)?,
            b"client_max_window_bits" => {
                let bits = value.map_or(Some(WINDOW_BITS), |value| window_bits(&value))?;
                once(&mut client_max_window_bits, bits)?;
            }
            _ => return None,
        }
    }
    if server_max_window_bits.is_some_and(|bits| bits != WINDOW_BITS) {
        return None;
    }
    Some(Agreement {
        server_max_window_bits,
        client_max_window_bits,
    })
}

struct Parameter<'a> {
    name: &'a [u8],
    value: Option<Cow<'a, [u8]>>,
}

impl<'a> Parameter<'a> {
    /// Splits name and value, and unquotes the value; `None` where `part` breaks the grammar of RFC 6455 §9.1.
    fn parse(part: &'a [u8]) -> Option<Self> {
        let mut sides = part.splitn(2, |byte| *byte == b'=');
        let name = sides.next()?.trim_ascii();
        let value = match sides.next().map(<[u8]>::trim_ascii) {
            Some(quoted) if quoted.starts_with(b"\"") => Some(unquote(quoted)?),
            Some(plain) => Some(Cow::Borrowed(plain)),
            None => None,
        };
        let well_formed = is_token(name) && value.as_deref().is_none_or(is_token);
        well_formed.then_some(Self { name, value })
    }
}

/// What a quoted string stands for; `None` where it doesn't end with its closing quote.
fn unquote(quoted: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut plain = Vec::with_capacity(quoted.len());
    let mut bytes = quoted.iter().skip(1);
    loop {
        match bytes.next()? {
            b'"' => return bytes.next().is_none().then_some(Cow::Owned(plain)),
            b'\\' => plain.push(*bytes.next()?),
            byte => plain.push(*byte),
        }
    }
}

/// A window of 8 to 15 bits, in decimal and without leading zeros (RFC 7692 §7.1.2).
fn window_bits(value: &[u8]) -> Option<u8> {
    match value {
        [digit @ b'8'..=b'9'] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}

/// Refuses a value where the parameter takes none.
fn absent(value: Option<Cow<'_, [u8]>>) -> Option<()> {
    value.is_none().then_some(())
}

/// Fills an empty place; refuses to fill it twice.
fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

/// A token of RFC 2616 §2.2, which RFC 6455 builds on.
fn is_token(text: &[u8]) -> bool {
    !text.is_empty()
        && text
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// Splits at each `separator` that stands outside quotes.
fn split_unquoted(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |byte| {
        let literal = std::mem::take(&mut escaped);
        match byte {
            b'"' if !literal => quoted = !quoted,
            b'\\' if quoted && !literal => escaped = true,
            _ => {}
        }
        *byte == separator && !quoted
    })
}
