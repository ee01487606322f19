//! The two answers to an upgrade.

use rivulet_router::websocket::{BadKey, accept_key, negotiate};

const PLAIN: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

#[test]
fn the_key_of_the_rfc_has_the_answer_of_the_rfc() {
    assert_eq!(
        accept_key("dGhlIHNhbXBsZSBub25jZQ==").as_deref(),
        Ok("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
}

#[test]
fn a_key_of_anything_but_16_bytes_is_refused() {
    for key in [
        "",
        "dGhlIHNhbXBsZSBub25j",
        "dGhlIHNhbXBsZSBub25jZWU=",
        "dGhlIHNhbXBsZSBub25jZQ",
        "not base64 at all!!!!!!=",
        " dGhlIHNhbXBsZSBub25jZQ==",
    ] {
        assert_eq!(accept_key(key), Err(BadKey), "{key:?}");
    }
}

#[test]
fn the_first_offer_that_a_shared_frame_satisfies_is_taken() {
    let offers = |values: &[&str]| negotiate(values).map(|agreement| agreement.to_string());
    let with = |more: &str| Some(format!("{PLAIN}{more}"));
    for (values, answer) in [
        // What is accepted (RFC 7692 §7.1).
        (&["permessage-deflate"][..], with("")),
        (&["Permessage-Deflate"], with("")),
        (
            &["permessage-deflate; client_max_window_bits"],
            with("; client_max_window_bits=15"),
        ),
        (
            &["permessage-deflate; client_max_window_bits=10"],
            with("; client_max_window_bits=10"),
        ),
        (
            &["permessage-deflate; client_max_window_bits=\"9\""],
            with("; client_max_window_bits=9"),
        ),
        (
            &["permessage-deflate;server_max_window_bits=15"],
            with("; server_max_window_bits=15"),
        ),
        (
            &["permessage-deflate; server_no_context_takeover ;client_no_context_takeover"],
            with(""),
        ),
        (
            &["permessage-deflate; server_max_window_bits = 15; client_max_window_bits"],
            with("; server_max_window_bits=15; client_max_window_bits=15"),
        ),
        // The next offer, where the first is declined.
        (
            &["permessage-deflate; server_max_window_bits=10, permessage-deflate"],
            with(""),
        ),
        (
            &[
                "permessage-deflate; server_max_window_bits=10",
                "permessage-deflate",
            ],
            with(""),
        ),
        (
            &["x-webkit-deflate-frame, permessage-deflate; client_max_window_bits"],
            with("; client_max_window_bits=15"),
        ),
        (
            &["foo; bar=\"a,permessage-deflate\\\", b;\", permessage-deflate"],
            with(""),
        ),
        (&[", ,permessage-deflate"], with("")),
        // Declined: a window that a shared frame doesn't keep to (§7.1.2.1).
        (&["permessage-deflate; server_max_window_bits=8"], None),
        (&["permessage-deflate; server_max_window_bits=14"], None),
        // Declined: unknown, twice, a value missing or where none belongs, a window that is none (§7.1).
        (&["permessage-deflate; unknown"], None),
        (&["permessage-deflate; Server_no_context_takeover"], None),
        (
            &["permessage-deflate; server_no_context_takeover; server_no_context_takeover"],
            None,
        ),
        (
            &["permessage-deflate; client_max_window_bits; client_max_window_bits=15"],
            None,
        ),
        (&["permessage-deflate; server_no_context_takeover=1"], None),
        (&["permessage-deflate; client_no_context_takeover=\"\""], None),
        (&["permessage-deflate; server_max_window_bits"], None),
        (&["permessage-deflate; server_max_window_bits="], None),
        (&["permessage-deflate; server_max_window_bits=015"], None),
        (&["permessage-deflate; server_max_window_bits=16"], None),
        (&["permessage-deflate; client_max_window_bits=7"], None),
        (&["permessage-deflate; client_max_window_bits=+9"], None),
        (&["permessage-deflate; client_max_window_bits=\"10"], None),
        (&["permessage-deflate; client_max_window_bits=\"10\"0"], None),
        (&["permessage-deflate; client_max_window_bits=\"1 0\""], None),
        (&["permessage-deflate;"], None),
        (&["permessage-deflate; ;client_max_window_bits"], None),
        (&["permessage-deflate; a b"], None),
        // None of ours.
        (&["x-webkit-deflate-frame"], None),
        (&["permessage-bzip2"], None),
        (&["permessage-deflate2"], None),
        (&["permessage-deflate client_max_window_bits"], None),
        (&[""], None),
        (&[], None),
    ] {
        assert_eq!(offers(values), answer, "{values:?}");
    }
}

#[test]
fn a_header_that_is_not_text_is_declined() {
    assert_eq!(
        negotiate([b"permessage-deflate; client_max_window_bits=\"\xff\""]),
        None
    );
}
