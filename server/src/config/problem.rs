//! What is wrong with a configuration: everything at once, each with its place and what is allowed.

use std::{fmt, path::PathBuf};

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: it is the default, or missing.
    Default,
    /// In a file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// In a variable of the environment.
    Variable(String),
    /// In a flag.
    Flag(String),
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, such as `limits.ping.burst` or `sources[0].audience`; the origin itself where there is no key.
    pub key: String,
    /// The value as it may be shown: secrets are masked, long ones cut.
    pub value: Option<String>,
    /// Where it was written.
    pub origin: Origin,
    /// What is wrong, and what is allowed.
    pub message: String,
}

/// Everything that is wrong; at least one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("the default"),
            Self::File { path, line } => write!(formatter, "{} line {line}", path.display()),
            Self::Variable(name) | Self::Flag(name) => formatter.write_str(name),
        }
    }
}

/// `limits.max_patterns = 0 (rivulet.toml line 3): allowed is a whole number from 1 to 10000`
impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.key)?;
        if let Some(value) = &self.value {
            write!(formatter, " = {value}")?;
        }
        if self.origin != Origin::Default || self.value.is_some() {
            write!(formatter, " ({})", self.origin)?;
        }
        write!(formatter, ": {}", self.message)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => formatter.write_str("the configuration has 1 problem:")?,
            count => write!(formatter, "the configuration has {count} problems:")?,
        }
        self.0
            .iter()
            .try_for_each(|problem| write!(formatter, "\n  {problem}"))
    }
}

impl std::error::Error for Problems {}
