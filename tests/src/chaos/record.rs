//! What one client saw, in the order in which it saw it.

use std::{collections::BTreeMap, sync::Arc};

use rivulet_protocol::pattern::Pattern;

/// A place in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The epoch.
    pub stream: Arc<str>,
    /// The last sequence handled.
    pub seq: u64,
}

/// One thing that a client saw or did, as far as it counts for what it should have got.
#[derive(Clone, Debug)]
pub enum Entry {
    /// It had no cursor, and takes its first one.
    Start(Cursor),
    /// From here on these patterns are in force for what comes after this sequence.
    Patterns {
        /// The sequence.
        after: u64,
        /// The patterns, all of them.
        patterns: Arc<[Pattern]>,
    },
    /// An event came.
    Event {
        /// As the frame said it.
        seq: u64,
        /// The rig's own number in the data; 0 where there was none.
        id: u64,
        /// Whether the rule of the protocol let it through: its sequence was above the cursor.
        kept: bool,
    },
    /// A gap came.
    Gap {
        /// The cursor before it.
        before: Cursor,
        /// Where it begins: the last sequence before it.
        from: u64,
        /// The new cursor.
        to: Cursor,
        /// Why.
        reason: String,
    },
}

/// All that one client saw.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Whose client it was.
    pub user: String,
    /// What it saw.
    pub entries: Vec<Entry>,
    /// How often it connected after the first time.
    pub reconnects: u64,
    /// Close codes, by how often they came; 1006 for a connection that just ended.
    pub closes: BTreeMap<u16, u64>,
    /// Error codes, by how often they came.
    pub errors: BTreeMap<String, u64>,
    /// How many messages came compressed.
    pub inflated: u64,
    /// How many `resumed` came.
    pub resumed: u64,
    /// Where its cursor was at the end.
    pub cursor: Option<Cursor>,
    /// Why it gave up, or did not come to the end.
    pub fault: Option<String>,
}

impl Record {
    /// The gaps that it was told.
    pub fn gaps(&self) -> impl Iterator<Item = (&Cursor, u64, &Cursor, &str)> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Gap {
                before,
                from,
                to,
                reason,
            } => Some((before, *from, to, reason.as_str())),
            _ => None,
        })
    }

    /// The sequence after which it wants everything.
    pub fn start(&self) -> Option<&Cursor> {
        self.entries.iter().find_map(|entry| match entry {
            Entry::Start(cursor) => Some(cursor),
            _ => None,
        })
    }
}
