//! How a stream republishes by user: one mapping for all its subjects, with the user's token first.

use async_nats::jetstream::stream::{Config, Republish};

use super::{BusError, filter};
use crate::config::{self, Shape};

/// `*.*.*` with the user at 2 comes out as `rivulet.live.{{wildcard(3)}}.{{wildcard(1)}}.{{wildcard(2)}}`.
pub(super) fn mapping(prefix: &str, shape: Shape) -> Republish {
    let mut destination = format!("{prefix}.{{{{wildcard({})}}}}", shape.user + 1);
    for token in (0..shape.tokens).filter(|token| *token != shape.user) {
        destination.push_str(&format!(".{{{{wildcard({})}}}}", token + 1));
    }
    Republish {
        source: every(shape),
        destination,
        headers_only: false,
    }
}

/// Whether an existing stream republishes by user, and all that it takes.
///
/// # Errors
/// What it has, and what is needed.
pub(super) fn check(config: &config::Stream, shape: Shape, existing: &Config) -> Result<(), BusError> {
    let failed = |fault: String| BusError::Stream {
        name: config.name.clone(),
        fault,
    };
    let every = every(shape);
    if let Some(other) = existing
        .subjects
        .iter()
        .find(|subject| !filter::covers(&every, subject))
    {
        return Err(failed(format!(
            "it takes `{other}`, which is not of {} tokens, so that part of it can't be republished by user; `stream.feed = \"by_user\"` needs a stream of the sources alone: take that subject out of it, or allow the router to with `stream.manage` (`--manage-stream`), or leave `stream.feed` at `whole`",
            shape.tokens
        )));
    }
    let wanted = mapping(&config.republish_prefix, shape);
    let same = existing.republish.as_ref().is_some_and(|republish| {
        republish.source == wanted.source
            && spelled_out(&republish.destination) == wanted.destination
            && !republish.headers_only
    });
    if same {
        return Ok(());
    }
    let has = existing.republish.as_ref().map_or_else(
        || "does not republish".to_owned(),
        |republish| {
            let only = if republish.headers_only {
                ", headers only"
            } else {
                ""
            };
            format!(
                "republishes `{}` as `{}`{only}",
                republish.source, republish.destination
            )
        },
    );
    Err(failed(format!(
        "it {has}; `stream.feed = \"by_user\"` needs `{}` as `{}`: alter it, or allow the router to with `stream.manage` (`--manage-stream`), or leave `stream.feed` at `whole`",
        wanted.source, wanted.destination
    )))
}

/// The filter of all subjects of a shape.
fn every(shape: Shape) -> String {
    vec!["*"; shape.tokens].join(".")
}

/// `$1` is an older way to write `{{wildcard(1)}}`, and spaces may stand in that.
fn spelled_out(destination: &str) -> String {
    let token = |token: &str| match token.strip_prefix('$').map(str::parse::<usize>) {
        Some(Ok(place)) => format!("{{{{wildcard({place})}}}}"),
        _ => token.to_ascii_lowercase().replace(' ', ""),
    };
    // The prefix is compared as it is written, the mapping's own tokens as they are meant.
    destination
        .split('.')
        .map(|part| {
            if part.starts_with(['$', '{']) {
                token(part)
            } else {
                part.to_owned()
            }
        })
        .collect::<Vec<_>>()
        .join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_comes_first() {
        let of = |tokens, user| mapping("rivulet.live", Shape { tokens, user });
        let made = of(3, 2);
        assert_eq!(made.source, "*.*.*");
        assert_eq!(
            made.destination,
            "rivulet.live.{{wildcard(3)}}.{{wildcard(1)}}.{{wildcard(2)}}"
        );
        assert_eq!(of(1, 0).destination, "rivulet.live.{{wildcard(1)}}");
        assert_eq!(
            of(3, 1).destination,
            "rivulet.live.{{wildcard(2)}}.{{wildcard(1)}}.{{wildcard(3)}}"
        );
    }

    #[test]
    fn a_mapping_may_be_spelled_in_two_ways() {
        let wanted = mapping("live", Shape { tokens: 2, user: 1 }).destination;
        for spelling in ["live.$2.$1", "live.{{Wildcard( 2 )}}.{{wildcard(1)}}"] {
            assert_eq!(spelled_out(spelling), wanted);
        }
        assert_ne!(spelled_out("live.$1.$2"), wanted);
    }
}
