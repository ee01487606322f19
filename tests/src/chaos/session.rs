//! The rules of the protocol for one client, without a socket: frames in, a record out.

use std::{sync::Arc, time::Duration};

use rivulet_protocol::pattern::Pattern;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::record::{Cursor, Entry, Record};

/// A client's memory across its connections.
#[derive(Debug)]
pub struct Session {
    /// Where it stands; `None` before the first `connected`.
    pub cursor: Option<Cursor>,
    /// What it wants, as it will say when it connects.
    pub patterns: Arc<[Pattern]>,
    /// What it saw.
    pub record: Record,
    /// What it said when it connected last: in force from there on, whatever it asks for before the answer comes.
    asked: Arc<[Pattern]>,
    /// The patterns that the record has last.
    noted: Vec<Pattern>,
}

/// What a frame asks its client to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Then {
    /// Read on.
    Continue,
    /// An event that is new, and when it was made, in microseconds since 1970.
    Event(u64),
    /// The session stands; the router's heartbeat.
    Connected(Duration),
    /// Leave after this time and connect elsewhere.
    Leave(Duration),
    /// Don't come back before this time has passed.
    ComeBack(Duration),
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type")]
    frame_type: &'a str,
    seq: Option<u64>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Numbered {
    #[serde(default)]
    n: u64,
    #[serde(default)]
    made: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Data {
    stream: Option<String>,
    seq: Option<u64>,
    from_seq: u64,
    to_seq: u64,
    reason: String,
    code: String,
    heartbeat_ms: u64,
    reconnect_after_ms: u64,
    retry_after: Option<f64>,
    events: Vec<Pattern>,
}

impl Session {
    /// A client of this user that wants these patterns, from `cursor` on or from where it first connects.
    pub fn new(user: &str, patterns: Arc<[Pattern]>, cursor: Option<Cursor>) -> Self {
        let mut record = Record {
            user: user.to_owned(),
            ..Record::default()
        };
        record.entries.extend(cursor.clone().map(Entry::Start));
        Self {
            cursor,
            asked: Arc::clone(&patterns),
            patterns,
            record,
            noted: Vec::new(),
        }
    }

    /// Notes that it connects with its patterns and its cursor.
    pub fn connecting(&mut self) {
        self.asked = Arc::clone(&self.patterns);
        if let Some(cursor) = &self.cursor {
            let after = cursor.seq;
            self.note_patterns(after, self.patterns.to_vec());
        }
    }

    /// Takes a text frame: an object, or an array of them.
    ///
    /// # Errors
    /// If it is neither.
    pub fn frame(&mut self, text: &str) -> Result<Vec<Then>, serde_json::Error> {
        if text.starts_with('[') {
            let frames: Vec<Frame<'_>> = serde_json::from_str(text)?;
            return frames.into_iter().map(|frame| self.object(&frame)).collect();
        }
        Ok(vec![self.object(&serde_json::from_str(text)?)?])
    }

    fn object(&mut self, frame: &Frame<'_>) -> Result<Then, serde_json::Error> {
        let text = frame.data.map_or("{}", RawValue::get);
        // An event's type has a dot, a frame's has none.
        if frame.frame_type.contains('.') {
            let Numbered { n, made } = serde_json::from_str(text)?;
            return Ok(match self.event(frame.seq.unwrap_or(0), n) {
                true => Then::Event(made),
                false => Then::Continue,
            });
        }
        let data: Data = serde_json::from_str(text)?;
        match frame.frame_type {
            "connected" => {
                if self.cursor.is_none()
                    && let (Some(stream), Some(seq)) = (data.stream, data.seq)
                {
                    let cursor = Cursor {
                        stream: stream.into(),
                        seq,
                    };
                    self.record.entries.push(Entry::Start(cursor.clone()));
                    self.cursor = Some(cursor);
                    self.note_patterns(seq, self.asked.to_vec());
                }
                return Ok(Then::Connected(Duration::from_millis(data.heartbeat_ms)));
            }
            "gap" => self.gap(data),
            "resumed" => {
                self.record.resumed += 1;
                self.advance(data.to_seq);
            }
            // All of ours up to `seq` stands before these.
            "pong" | "heartbeat" => self.advance(data.seq.unwrap_or(0)),
            "subscribed" | "unsubscribed" => {
                let seq = data.seq.unwrap_or(0);
                self.advance(seq);
                // Those that are in force: what was asked for since is not yet.
                self.note_patterns(seq, data.events);
            }
            "draining" => return Ok(Then::Leave(Duration::from_millis(data.reconnect_after_ms))),
            "error" => {
                *self.record.errors.entry(data.code).or_default() += 1;
                if let Some(seconds) = data.retry_after {
                    return Ok(Then::ComeBack(Duration::from_secs_f64(
                        seconds.clamp(0.0, 3600.0),
                    )));
                }
            }
            _ => {}
        }
        Ok(Then::Continue)
    }

    /// Takes an event, and says whether it is new.
    fn event(&mut self, seq: u64, id: u64) -> bool {
        let kept = self.cursor.as_ref().is_none_or(|cursor| seq > cursor.seq);
        self.record.entries.push(Entry::Event { seq, id, kept });
        if kept {
            self.advance(seq);
        }
        kept
    }

    fn gap(&mut self, data: Data) {
        let to = Cursor {
            stream: data.stream.unwrap_or_default().into(),
            seq: data.to_seq,
        };
        let before = self.cursor.replace(to.clone()).unwrap_or_else(|| to.clone());
        self.record.entries.push(Entry::Gap {
            before,
            from: data.from_seq,
            to,
            reason: data.reason,
        });
    }

    fn advance(&mut self, seq: u64) {
        if let Some(cursor) = &mut self.cursor {
            cursor.seq = cursor.seq.max(seq);
        }
    }

    /// These are in force for what comes after `after`.
    fn note_patterns(&mut self, after: u64, patterns: Vec<Pattern>) {
        if self.noted != patterns {
            self.noted.clone_from(&patterns);
            let patterns = patterns.into();
            self.record.entries.push(Entry::Patterns { after, patterns });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        let patterns = ["*".parse().unwrap()].into();
        let mut session = Session::new("ada", patterns, None);
        session
            .frame(r#"{"type":"connected","data":{"stream":"S@1","seq":7,"heartbeat_ms":25000}}"#)
            .unwrap();
        session
    }

    fn seq(session: &Session) -> u64 {
        session.cursor.as_ref().unwrap().seq
    }

    #[test]
    fn what_was_seen_is_not_kept_again() {
        let mut session = session();
        let text = r#"[{"type":"blob.created","seq":8,"data":{"n":1}},{"type":"blob.created","seq":8,"data":{"n":1}}]"#;
        assert_eq!(session.frame(text).unwrap(), [Then::Event(0), Then::Continue]);
        assert_eq!(seq(&session), 8);
    }

    #[test]
    fn what_is_asked_for_before_connected_is_not_in_force_from_there_on() {
        let patterns = ["*".parse().unwrap()].into();
        let mut session = Session::new("ada", Arc::clone(&patterns), None);
        session.connecting();
        session.patterns = [].into();
        session
            .frame(r#"{"type":"connected","data":{"stream":"S@1","seq":7,"heartbeat_ms":25000}}"#)
            .unwrap();
        let Some(Entry::Patterns {
            after: 7,
            patterns: noted,
        }) = session.record.entries.last()
        else {
            panic!("no patterns noted: {:?}", session.record.entries);
        };
        assert_eq!(*noted, patterns);
    }

    #[test]
    fn the_cursor_follows_what_the_protocol_says() {
        let mut session = session();
        let say = |session: &mut Session, text: &str| {
            session.frame(text).unwrap();
            seq(session)
        };
        assert_eq!(say(&mut session, r#"{"type":"pong","data":{"seq":9}}"#), 9);
        assert_eq!(say(&mut session, r#"{"type":"heartbeat","data":{"seq":8}}"#), 9);
        // A later `connected` moves nothing.
        let connected = r#"{"type":"connected","data":{"stream":"S@1","seq":99,"heartbeat_ms":1}}"#;
        assert_eq!(say(&mut session, connected), 9);
        let resumed = r#"{"type":"resumed","data":{"from_seq":9,"to_seq":12,"complete":true}}"#;
        assert_eq!(say(&mut session, resumed), 12);
        let gap =
            r#"{"type":"gap","data":{"stream":"S@2","from_seq":12,"to_seq":3,"reason":"epoch_changed"}}"#;
        assert_eq!(say(&mut session, gap), 3);
        assert_eq!(&*session.cursor.unwrap().stream, "S@2");
    }
}
