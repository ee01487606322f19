//! Colours, where somebody looks and has not asked for none.

use std::fmt;

const RESET: &str = "\x1b[0m";

/// Whether to colour what goes to a terminal or elsewhere. Anything in `NO_COLOR` says no (no-color.org).
pub(crate) fn wanted(is_terminal: bool) -> bool {
    is_terminal && super::variable("NO_COLOR").is_none()
}

/// The colours of a program that colours, or none.
#[derive(Clone, Copy)]
pub(crate) struct Palette(pub(crate) bool);

impl Palette {
    pub(crate) fn dim(self, text: impl fmt::Display) -> String {
        self.paint("\x1b[2m", text)
    }

    pub(crate) fn bold(self, text: impl fmt::Display) -> String {
        self.paint("\x1b[1m", text)
    }

    pub(crate) fn red(self, text: impl fmt::Display) -> String {
        self.paint("\x1b[31m", text)
    }

    /// One of six colours, always the same for the same name: a family of events is seen at a glance.
    pub(crate) fn named(self, name: &str, text: impl fmt::Display) -> String {
        const COLOURS: [&str; 6] = [
            "\x1b[32m", "\x1b[33m", "\x1b[34m", "\x1b[35m", "\x1b[36m", "\x1b[92m",
        ];
        let sum: usize = name.bytes().map(usize::from).sum();
        self.paint(COLOURS[sum % COLOURS.len()], text)
    }

    fn paint(self, colour: &str, text: impl fmt::Display) -> String {
        if self.0 {
            format!("{colour}{text}{RESET}")
        } else {
            text.to_string()
        }
    }
}
