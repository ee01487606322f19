//! Who a token says you are, and what you may do.

use std::{ops::Deref, sync::Arc, time::SystemTime};

use rivulet_protocol::{pattern::Pattern, subject::UserId};

/// What a checked token comes to. A clone is a count: all sessions of one token share it.
#[derive(Clone, Debug)]
pub struct Identity(Arc<Who>);

/// What an [`Identity`] says.
#[derive(Debug)]
pub struct Who {
    /// The user.
    pub user: UserId,
    /// The event types that the user may see.
    pub events: Arc<[Pattern]>,
    /// The commands that the user may ask.
    pub commands: CommandPermission,
    /// The patterns from the start, by the claim `subscribe`.
    pub subscribe: Vec<Pattern>,
    /// Devices at a time; 0: none counted.
    pub devices: usize,
    /// When the token ends, leeway included; `None` only for a development token.
    pub expires_at: Option<SystemTime>,
}

/// The commands that somebody may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandPermission {
    /// Every command.
    All,
    /// These.
    Only(Arc<[String]>),
}

impl Identity {
    /// Whether the user may see events of this type.
    pub fn may_see(&self, event_type: &str) -> bool {
        self.events.iter().any(|permitted| permitted.matches(event_type))
    }

    /// Whether the user may subscribe to this pattern. The bare `*` always: it means "all that I may see".
    pub fn may_subscribe(&self, pattern: &Pattern) -> bool {
        pattern.is_all() || self.events.iter().any(|permitted| pattern.within(permitted))
    }

    /// Whether the user may ask this command.
    pub fn may_ask(&self, command: &str) -> bool {
        match &self.commands {
            CommandPermission::All => true,
            CommandPermission::Only(names) => names.iter().any(|name| name == command),
        }
    }

    /// About how many bytes it takes, what it shares with its role included.
    pub fn bytes(&self) -> usize {
        /// Of an allocation, beside what was asked for: its counts or capacity, and what the allocator rounds up.
        const ALLOCATED: usize = 32;
        let text = |text: &str| text.len() + ALLOCATED;
        let patterns = |patterns: &[Pattern]| -> usize {
            let bytes = |pattern: &Pattern| size_of::<Pattern>() + text(pattern.as_str());
            patterns.iter().map(bytes).sum()
        };
        let commands = match &self.commands {
            CommandPermission::All => 0,
            CommandPermission::Only(names) => names.iter().map(|name| size_of::<String>() + text(name)).sum(),
        };
        size_of::<Who>()
            + ALLOCATED
            + text(self.user.as_str())
            + patterns(&self.events)
            + patterns(&self.subscribe)
            + commands
    }
}

impl From<Who> for Identity {
    fn from(who: Who) -> Self {
        Self(Arc::new(who))
    }
}

impl Deref for Identity {
    type Target = Who;

    fn deref(&self) -> &Who {
        &self.0
    }
}
