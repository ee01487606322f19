//! Patterns: which event types a client wants, and which a token permits.
//!
//! The grammar is that of NATS subjects: tokens with dots between, `*` for exactly one token, a final `>` for
//! one or more. The bare `*` is Rivulet's alias for "all that I may see": it matches every type.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::event::{MAX_TOKENS, MAX_TYPE_LENGTH, is_token};

/// A checked pattern. Cheap to clone; equal exactly when its text is.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(Arc<str>);

/// Why a text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// Nothing there, or nothing between two dots.
    #[error("a pattern has no empty tokens")]
    EmptyToken,
    /// More than 8 tokens.
    #[error("a pattern has at most 8 tokens")]
    TooManyTokens,
    /// More than 128 characters.
    #[error("a pattern has at most 128 characters")]
    TooLong,
    /// `>` before the end.
    #[error("`>` stands only at the end")]
    RestBeforeEnd,
    /// `*` or `>` beside other characters in a token.
    #[error("`*` and `>` stand alone in their token: use blob.* or blob.>")]
    WildcardInToken,
    /// A character that types do not have.
    #[error("tokens are of A-Z a-z 0-9 _ -")]
    Character,
}

impl Pattern {
    /// The bare `*`: all that one may see.
    pub fn all() -> Self {
        Self("*".into())
    }

    /// Whether this is the bare `*`.
    pub fn is_all(&self) -> bool {
        &*self.0 == "*"
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the pattern covers this event type.
    pub fn matches(&self, event_type: &str) -> bool {
        if self.is_all() {
            return true;
        }
        // Byte by byte, as this is asked for each session of each event: a wildcard is a token of its own.
        let mut rest = event_type.as_bytes();
        for wanted in self.0.bytes() {
            match (wanted, rest) {
                (_, []) => return false,
                (b'>', _) => return true,
                (b'*', _) => {
                    let end = rest.iter().position(|byte| *byte == b'.');
                    rest = &rest[end.unwrap_or(rest.len())..];
                }
                (_, [first, others @ ..]) if *first == wanted => rest = others,
                _ => return false,
            }
        }
        rest.is_empty()
    }

    /// Whether every type that this pattern covers is covered by `wider` too.
    pub fn within(&self, wider: &Self) -> bool {
        if wider.is_all() {
            return true;
        }
        if self.is_all() {
            // The alias covers types of any number of tokens, as only `>` does.
            return wider.as_str() == ">";
        }
        let mut ours = self.0.split('.');
        for theirs in wider.0.split('.') {
            match (ours.next(), theirs) {
                (None, _) => return false,
                (Some(_), ">") => return true,
                // One token is not enough for all that `>` may bring.
                (Some(">"), _) => return false,
                (Some(_), "*") => {}
                (Some(our), their) if our == their => {}
                _ => return false,
            }
        }
        ours.next().is_none()
    }
}

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        if text.len() > MAX_TYPE_LENGTH {
            return Err(InvalidPattern::TooLong);
        }
        if text.split('.').count() > MAX_TOKENS {
            return Err(InvalidPattern::TooManyTokens);
        }
        let mut rest = false;
        for token in text.split('.') {
            if rest {
                return Err(InvalidPattern::RestBeforeEnd);
            }
            match token {
                "" => return Err(InvalidPattern::EmptyToken),
                "*" => {}
                ">" => rest = true,
                _ if token.contains(['*', '>']) => return Err(InvalidPattern::WildcardInToken),
                _ if !is_token(token) => return Err(InvalidPattern::Character),
                _ => {}
            }
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Pattern({})", self.0)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse()
            .map_err(|error| de::Error::custom(format_args!("`{text}`: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().unwrap()
    }

    #[test]
    fn malformed_patterns_say_why() {
        for (text, why) in [
            ("", InvalidPattern::EmptyToken),
            ("blob.", InvalidPattern::EmptyToken),
            ("blob..created", InvalidPattern::EmptyToken),
            ("blob*", InvalidPattern::WildcardInToken),
            ("blob.cre*", InvalidPattern::WildcardInToken),
            ("blob.>.x", InvalidPattern::RestBeforeEnd),
            ("blob created", InvalidPattern::Character),
            ("blöb", InvalidPattern::Character),
            ("a.b.c.d.e.f.g.h.i", InvalidPattern::TooManyTokens),
        ] {
            assert_eq!(text.parse::<Pattern>(), Err(why), "{text:?}");
        }
        assert_eq!("x".repeat(129).parse::<Pattern>(), Err(InvalidPattern::TooLong));
    }

    #[test]
    fn wildcards_take_whole_tokens() {
        for (text, event_type, expected) in [
            ("blob.created", "blob.created", true),
            ("blob.created", "blob.updated", false),
            ("blob.*", "blob.created", true),
            ("blob.*", "blob", false),
            ("blob.*", "blob.created.v2", false),
            ("blob.>", "blob.created.v2", true),
            ("blob.>", "blob", false),
            ("*.created", "book.created", true),
            ("*.*", "blob", false),
            (">", "blob", true),
            ("*", "blob.created.v2", true),
        ] {
            assert_eq!(pattern(text).matches(event_type), expected, "{text} {event_type}");
        }
    }

    #[test]
    fn the_alias_lies_only_within_everything() {
        assert!(pattern("*").within(&pattern("*")));
        assert!(pattern("*").within(&pattern(">")));
        assert!(!pattern("*").within(&pattern("*.*")));
        assert!(pattern(">").within(&pattern("*")));
    }

    fn tokens(wild: bool) -> impl Strategy<Value = String> {
        let token = if wild { "a|b|c|\\*" } else { "a|b|c" };
        (proptest::collection::vec(token, 1..5), any::<bool>()).prop_map(move |(mut tokens, rest)| {
            if wild && rest {
                tokens.push(">".into());
            }
            tokens.join(".")
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn what_lies_within_matches_no_more(narrow in tokens(true), wide in tokens(true), name in tokens(false)) {
            let (narrow, wide) = (pattern(&narrow), pattern(&wide));
            if narrow.within(&wide) && narrow.matches(&name) {
                prop_assert!(wide.matches(&name));
            }
        }

        #[test]
        fn a_literal_lies_within_exactly_what_matches_it(name in tokens(false), wide in tokens(true)) {
            prop_assert_eq!(pattern(&name).within(&pattern(&wide)), pattern(&wide).matches(&name));
        }
    }
}
