//! NATS subject filters: tokens by dots, `*` for one token, a final `>` for one or more.

/// Whether every subject of `narrow` is one of `wide`. A literal subject is a filter too.
pub(super) fn covers(wide: &str, narrow: &str) -> bool {
    let (mut wide, mut narrow) = (wide.split('.'), narrow.split('.'));
    loop {
        match (wide.next(), narrow.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(expected), Some(token)) if expected == token => {}
            _ => return false,
        }
    }
}

/// Whether some subject is one of both.
pub(super) fn overlap(left: &str, right: &str) -> bool {
    let (mut left, mut right) = (left.split('.'), right.split('.'));
    loop {
        match (left.next(), right.next()) {
            (Some(">"), Some(_)) | (Some(_), Some(">")) | (None, None) => return true,
            (Some(one), Some(other)) if one == other || one == "*" || other == "*" => {}
            _ => return false,
        }
    }
}

/// The fewest of these filters that together cover all of them, in their order.
pub(super) fn widest<'a>(filters: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut kept: Vec<&str> = Vec::new();
    for filter in filters {
        if !kept.iter().any(|wide| covers(wide, filter)) {
            kept.retain(|narrow| !covers(filter, narrow));
            kept.push(filter);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_cover_and_overlap() {
        for (left, right, left_covers, overlaps) in [
            ("a.b", "a.b", true, true),
            ("a.*", "a.b", true, true),
            ("a.b", "a.*", false, true),
            ("a.>", "a.b.c", true, true),
            ("a.>", "a", false, false),
            ("a.>", "a.*", true, true),
            ("a.*", "a.>", false, true),
            (">", "a.>", true, true),
            ("a.*.c", "a.b.*", false, true),
            ("a.b", "a.c", false, false),
            ("a.b", "a.b.c", false, false),
            ("*.*", "a.b", true, true),
            ("a.*", "b.*", false, false),
        ] {
            assert_eq!(covers(left, right), left_covers, "{left} covers {right}");
            assert_eq!(overlap(left, right), overlaps, "{left} overlaps {right}");
            assert_eq!(overlap(right, left), overlaps, "{right} overlaps {left}");
        }
    }

    #[test]
    fn the_widest_are_kept() {
        assert_eq!(widest(["a.b", "a.>", "b", "a.c"]), ["a.>", "b"]);
        assert_eq!(widest(["a.*.c", "a.b.*"]), ["a.*.c", "a.b.*"]);
    }
}
