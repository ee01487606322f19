//! The client's mask (RFC 6455 §5.3).

/// Where a frame's mask stands: the four bytes that the next four bytes of payload are masked with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mask(pub(super) [u8; 4]);

impl Mask {
    /// Takes the mask off the next bytes of the payload, in place.
    pub(super) fn remove(&mut self, payload: &mut [u8]) {
        // Eight bytes at a time, which the compiler widens to whatever the machine has.
        let [a, b, c, d] = self.0;
        let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
        let (words, rest) = payload.as_chunks_mut::<8>();
        for word in words {
            *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
        }
        for (byte, mask) in rest.iter_mut().zip(self.0.into_iter().cycle()) {
            *byte ^= mask;
        }
        self.0.rotate_left(rest.len() % 4);
    }
}
