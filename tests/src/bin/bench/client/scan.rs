//! Finds the events in a message without parsing it.

use std::collections::VecDeque;

use anyhow::Context as _;
use flate2::{Decompress, FlushDecompress};
use memchr::memmem::Finder;

/// An event, as far as the client looks at it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) number: u64,
    /// Nanoseconds since 1970.
    pub(crate) made: u64,
}

/// Finds events whose data is `size` bytes long.
pub(crate) struct Scan {
    size: usize,
    finder: Finder<'static>,
    /// Compressed messages seen last, and what was in them: one frame serves every connection, so each is
    /// inflated once and then recognised by its bytes.
    known: VecDeque<(Vec<u8>, Vec<Seen>)>,
    /// How many messages had to be inflated.
    pub(crate) inflated: u64,
}

const NUMBER: &[u8] = br#""number":"#;
const MADE: &[u8] = br#","made":"#;

impl Scan {
    pub(crate) fn new(size: usize) -> Self {
        Self {
            size,
            finder: Finder::new(NUMBER),
            known: VecDeque::new(),
            inflated: 0,
        }
    }

    /// Calls `each` for every event in a plain message.
    pub(crate) fn plain(&self, mut message: &[u8], mut each: impl FnMut(Seen)) {
        // An event takes at least its data.
        while message.len() > 32 {
            let Some(at) = self.finder.find(message) else {
                return;
            };
            let fields = &message[at + NUMBER.len()..];
            let (number, rest) = digits(fields);
            let Some(rest) = rest.strip_prefix(MADE) else {
                return;
            };
            each(Seen {
                number,
                made: digits(rest).0,
            });
            // On behind its data, whose brace stands before the name that was found.
            message = message.get(at - 1 + self.size..).unwrap_or_default();
        }
    }

    /// Calls `each` for every event in a compressed message (RFC 7692, no context taken over).
    pub(crate) fn compressed(&mut self, message: &[u8], each: impl FnMut(Seen)) -> anyhow::Result<()> {
        if let Some((_, seen)) = self.known.iter().rev().find(|(known, _)| known == message) {
            seen.iter().copied().for_each(each);
            return Ok(());
        }
        let mut plain = Vec::with_capacity(message.len() * 16 + 1024);
        let mut inflate = Decompress::new(false);
        let tail = [message, &[0, 0, 0xff, 0xff]].concat();
        inflate
            .decompress_vec(&tail, &mut plain, FlushDecompress::Sync)
            .context("a compressed message is not deflate")?;
        self.inflated += 1;
        let mut seen = Vec::new();
        self.plain(&plain, |event| seen.push(event));
        seen.iter().copied().for_each(each);
        if self.known.len() == 256 {
            self.known.pop_front();
        }
        self.known.push_back((message.to_vec(), seen));
        Ok(())
    }
}

fn digits(text: &[u8]) -> (u64, &[u8]) {
    let mut value = 0_u64;
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'0'..=b'9' => value = value.wrapping_mul(10) + u64::from(byte - b'0'),
            _ => return (value, &text[at..]),
        }
    }
    (value, &[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Padding, data, enveloped};

    #[test]
    fn events_are_found_in_objects_arrays_and_compressed_messages() {
        let events: Vec<String> = (7..10)
            .map(|number| enveloped(number, &data(number, 200, Padding::Words)))
            .collect();
        let array = format!("[{}]", events.join(","));
        let mut scan = Scan::new(200);
        let mut numbers = Vec::new();
        scan.plain(array.as_bytes(), |seen| numbers.push(seen.number));
        let frame = rivulet_router::websocket::compressed_frame(
            rivulet_router::websocket::MessageKind::Text,
            array.as_bytes(),
            1,
        )
        .expect("it gets smaller");
        for _ in 0..2 {
            scan.compressed(&frame[4..], |seen| numbers.push(seen.number))
                .expect("deflate");
        }
        assert_eq!(numbers, [7, 8, 9, 7, 8, 9, 7, 8, 9]);
        assert_eq!(scan.inflated, 1);
    }
}
