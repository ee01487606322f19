//! What a session wants, within what it may see.

use std::sync::Arc;

use rivulet_protocol::pattern::Pattern;

/// The pattern by which a session asks to see failures as `error` frames too.
const ERRORS: &str = "error";
/// The event that is a failure.
const FAILURE: &str = "processor.failed";

/// A session's patterns and permissions, resolved when either changes.
#[derive(Clone, Debug)]
pub struct Interest {
    patterns: Vec<Pattern>,
    permitted: Arc<[Pattern]>,
    everything: bool,
    errors: bool,
}

impl Interest {
    /// Each pattern lies within a permitted one, is the bare `*`, or names a frame of the router's: the session
    /// has seen to it.
    pub fn new(patterns: Vec<Pattern>, permitted: Arc<[Pattern]>) -> Self {
        let may_see_failures = permitted.iter().any(|pattern| pattern.matches(FAILURE));
        Self {
            everything: patterns.iter().any(Pattern::is_all),
            errors: may_see_failures && patterns.iter().any(|pattern| pattern.as_str() == ERRORS),
            patterns,
            permitted,
        }
    }

    /// Whether events of this type are for the session.
    pub fn wants(&self, event_type: &str) -> bool {
        let matching = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(event_type));
        matching(if self.everything {
            &self.permitted
        } else {
            &self.patterns
        })
    }

    /// Whether failures come as `error` frames too.
    pub fn wants_errors(&self) -> bool {
        self.errors
    }
}
