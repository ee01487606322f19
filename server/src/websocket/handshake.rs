//! The one secret handshake of RFC 6455: proof that the server speaks WebSocket.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What every server appends to the client's key (RFC 6455 §1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The bytes that a key holds once decoded (RFC 6455 §4.1).
const KEY_BYTES: usize = 16;

/// `Sec-WebSocket-Key` is not 16 bytes in base64 (RFC 6455 §4.2.1): answer the upgrade with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Sec-WebSocket-Key is not 16 bytes in base64")]
pub struct BadKey;

/// The value of `Sec-WebSocket-Accept` that answers the client's `Sec-WebSocket-Key` (RFC 6455 §4.2.2).
///
/// # Errors
/// [`BadKey`] when the key is anything but 16 bytes in padded base64.
pub fn accept_key(sec_websocket_key: &str) -> Result<String, BadKey> {
    match STANDARD.decode(sec_websocket_key) {
        Ok(key) if key.len() == KEY_BYTES => {}
        _ => return Err(BadKey),
    }
    let keyed = [sec_websocket_key.as_bytes(), GUID].concat();
    Ok(STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &keyed)))
}
