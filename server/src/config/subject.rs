//! NATS subjects with wildcards, as far as a configuration names them.

/// The most characters in a subject that a source names.
const MAX_SUBJECT_LENGTH: usize = 255;

/// Whether this is a subject: tokens without spaces and control characters, `*` alone in its token, `>` alone
/// in the last.
pub(super) fn is_subject(text: &str) -> bool {
    let plain = |token: &str| {
        !token.is_empty()
            && !token.contains(|character: char| {
                character.is_whitespace() || character.is_control() || matches!(character, '*' | '>')
            })
    };
    let last = text.split('.').count() - 1;
    text.len() <= MAX_SUBJECT_LENGTH
        && text
            .split('.')
            .enumerate()
            .all(|(index, token)| token == "*" || (token == ">" && index == last) || plain(token))
}

/// Whether some subject is covered by both.
pub(super) fn overlap(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    loop {
        match (one.next(), other.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(one), Some(other)) if one == other || one == "*" || other == "*" => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_tokens() {
        for good in [
            "blob.>",
            "blob.created.*",
            ">",
            "*",
            "a",
            "events.état",
            "$JS.API",
        ] {
            assert!(is_subject(good), "{good:?}");
        }
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "a.>.b",
            "a*",
            "a.b>",
            "a b",
            "a\r\nb",
            &"a".repeat(256),
        ] {
            assert!(!is_subject(bad), "{bad:?}");
        }
    }

    #[test]
    fn overlap_is_what_both_cover() {
        for (one, other) in [
            ("blob.>", "blob.created"),
            ("blob.>", "*.created.x"),
            ("*.b", "a.*"),
            (">", "command.>"),
            ("a.b", "a.b"),
            ("a.*.>", "a.b.c"),
        ] {
            assert!(overlap(one, other) && overlap(other, one), "{one} {other}");
        }
        for (one, other) in [
            ("blob.>", "book.>"),
            ("blob.>", "blob"),
            ("*", "a.b"),
            ("a.*", "a.b.c"),
            ("a.*.>", "a.b"),
        ] {
            assert!(!overlap(one, other) && !overlap(other, one), "{one} {other}");
        }
    }
}
