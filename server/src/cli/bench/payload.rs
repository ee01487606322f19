//! An event's data: the mark of the run, its number, when it was made, and padding.

use std::io::Write as _;

use bytes::Bytes;
use rivulet_protocol::subject::UserId;

/// The least bytes that hold a mark, a number and a time.
pub(super) const LEAST: usize = 64;
/// By how much the paddings of events differ in where they begin.
const SHIFT: usize = 4096;
/// Different words in the paddings.
const VOCABULARY: usize = 64;

/// Makes the data of a run's events.
pub(super) struct Payloads {
    mark: Vec<u8>,
    size: usize,
    padding: Vec<u8>,
}

impl Payloads {
    /// Of `size` bytes each, or a few more where a user has to stand in it.
    pub(super) fn new(mark: &[u8], size: usize) -> Self {
        // Words of a small vocabulary, as data is: all one letter would be compressed away, and letters at random
        // would not be compressed at all.
        let letter = || rand::random_range(b'a'..=b'z');
        let word = || {
            (0..rand::random_range(3..10))
                .map(|_| letter())
                .chain([b' '])
                .collect()
        };
        let words: Vec<Vec<u8>> = (0..VOCABULARY).map(|_| word()).collect();
        let mut padding = Vec::new();
        while padding.len() < size + SHIFT {
            padding.extend_from_slice(&words[rand::random_range(0..VOCABULARY)]);
        }
        Self {
            mark: mark.to_vec(),
            size,
            padding,
        }
    }

    /// How the data of a run begins, up to the number.
    pub(super) fn mark(run: &str) -> Vec<u8> {
        format!(r#"{{"bench":"{run}","n":"#).into_bytes()
    }

    /// The data of an event, with the user whom it is for where the payload has to say so.
    pub(super) fn make(&self, number: u64, made: u64, user: Option<&UserId>) -> Bytes {
        let mut data = Vec::with_capacity(self.size + 64);
        data.extend_from_slice(&self.mark);
        write!(data, r#"{number},"made":{made}"#).expect("memory takes it");
        if let Some(user) = user {
            let user = serde_json::to_string(user.as_str()).expect("a string is JSON");
            write!(data, r#","user_id":{user}"#).expect("memory takes it");
        }
        // `,"pad":""` and the brace.
        match self.size.checked_sub(data.len() + 10) {
            Some(room) => {
                let from = (number as usize).wrapping_mul(61) % SHIFT;
                data.extend_from_slice(br#","pad":""#);
                data.extend_from_slice(&self.padding[from..from + room]);
                data.push(b'"');
            }
            None => data.resize(data.len().max(self.size.saturating_sub(1)), b' '),
        }
        data.push(b'}');
        data.into()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::frame::stamp, *};

    #[test]
    fn data_is_json_of_its_size_and_carries_its_stamp() {
        let mark = Payloads::mark("3f9a1c");
        for size in [LEAST, LEAST + 1, 80, 200, 70_000] {
            let payloads = Payloads::new(&mark, size);
            for (number, made) in [(0, 0), (7, 123_456), (9_999_999_999, 999_999_999_999_999)] {
                let data = payloads.make(number, made, None);
                assert_eq!(data.len(), size, "{data:?}");
                assert_eq!(stamp(&data, &mark), Some((number, made)));
                serde_json::from_slice::<serde_json::Value>(&data).unwrap();
            }
        }
    }

    #[test]
    fn it_compresses_about_as_data_does() {
        let data = Payloads::new(&Payloads::mark("3f9a1c"), 2_000).make(1, 2, None);
        let text = rivulet_router::websocket::MessageKind::Text;
        let compressed = rivulet_router::websocket::compressed_frame(text, &data, 1).unwrap();
        assert!((600..1_600).contains(&compressed.len()), "{}", compressed.len());
    }

    #[test]
    fn a_user_may_stand_in_it() {
        let mark = Payloads::mark("3f9a1c");
        let data = Payloads::new(&mark, 64).make(1, 2, Some(&UserId::parse("a\"b").unwrap()));
        let json: serde_json::Value = serde_json::from_slice(&data).unwrap();
        assert_eq!(json["user_id"], "a\"b");
        assert_eq!(stamp(&data, &mark), Some((1, 2)));
    }
}
