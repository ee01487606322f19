//! RFC 6455 and RFC 7692, clause by clause: what a client sends, and what comes out.

use rivulet_router::websocket::ProtocolError::{self, *};
use rivulet_router::websocket::{Decoder, Incoming, close_frame, ping_frame, pong_frame, text_frame};

use crate::client::*;

/// The cap of the decoder that the table runs against.
const MAX_MESSAGE_BYTES: usize = 70_000;

struct Clause {
    name: &'static str,
    deflate: bool,
    input: Vec<u8>,
    incoming: Vec<Incoming>,
    error: Option<ProtocolError>,
}

/// `name` in which `input` breaks nothing.
fn good(name: &'static str, input: &[Vec<u8>], incoming: &[Incoming]) -> Clause {
    Clause {
        name,
        deflate: false,
        input: input.concat(),
        incoming: incoming.to_vec(),
        error: None,
    }
}

/// `name` in which `input` is refused after `incoming`.
fn bad(name: &'static str, input: &[Vec<u8>], incoming: &[Incoming], error: ProtocolError) -> Clause {
    Clause {
        error: Some(error),
        ..good(name, input, incoming)
    }
}

fn deflate(clause: Clause) -> Clause {
    Clause {
        deflate: true,
        ..clause
    }
}

fn raw(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

fn close_with(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// The header of a frame that announces more than comes.
fn header(first: u8, length: &[u8]) -> Vec<u8> {
    [&[first], length, &MASK].concat()
}

fn opening() -> Vec<Clause> {
    let pair = frame(FIN | TEXT, b"Hello");
    vec![
        good(
            "6455 5.7: masked Hello",
            &[raw(&[
                0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
            ])],
            &[text("Hello")],
        ),
        good(
            "6455 5.1: a mask of zeros",
            &[masked_frame(FIN | TEXT, [0; 4], b"Hello")],
            &[text("Hello")],
        ),
        bad(
            "6455 5.1: unmasked text",
            &[raw(&[0x81, 0x05]), raw(b"Hello")],
            &[],
            Unmasked,
        ),
        bad("6455 5.1: unmasked ping", &[raw(&[0x89, 0x00])], &[], Unmasked),
        bad(
            "6455 5.1: unmasked close after a message",
            &[pair, raw(&[0x88, 0x00])],
            &[text("Hello")],
            Unmasked,
        ),
    ]
}

fn reserved_bits_and_opcodes() -> Vec<Clause> {
    let mut clauses = vec![
        bad(
            "6455 5.2: RSV1 without an extension",
            &[frame(FIN | RSV1 | TEXT, b"a")],
            &[],
            ReservedBit,
        ),
        bad(
            "6455 5.2: RSV2",
            &[frame(FIN | 0x20 | TEXT, b"a")],
            &[],
            ReservedBit,
        ),
        bad(
            "6455 5.2: RSV3",
            &[frame(FIN | 0x10 | BINARY, b"a")],
            &[],
            ReservedBit,
        ),
        bad(
            "6455 5.2: RSV1 on a ping",
            &[frame(FIN | RSV1 | PING, b"")],
            &[],
            ReservedBit,
        ),
        bad(
            "6455 5.2: RSV2 on a close",
            &[frame(FIN | 0x20 | CLOSE, b"")],
            &[],
            ReservedBit,
        ),
        deflate(bad(
            "7692 6: RSV2 with deflate",
            &[frame(FIN | RSV1 | 0x20 | TEXT, b"a")],
            &[],
            ReservedBit,
        )),
        deflate(bad(
            "7692 6.1: RSV1 on a ping",
            &[frame(FIN | RSV1 | PING, b"")],
            &[],
            ReservedBit,
        )),
        deflate(bad(
            "7692 6.1: RSV1 on a pong",
            &[frame(FIN | RSV1 | PONG, b"")],
            &[],
            ReservedBit,
        )),
        deflate(bad(
            "7692 6.1: RSV1 on a close",
            &[frame(FIN | RSV1 | CLOSE, b"")],
            &[],
            ReservedBit,
        )),
        deflate(bad(
            "7692 6.1: RSV1 on a continuation",
            &[
                frame(RSV1 | TEXT, b"\xf2\x48\xcd"),
                frame(FIN | RSV1 | CONTINUATION, b"\xc9\xc9\x07\x00"),
            ],
            &[],
            ReservedBit,
        )),
    ];
    for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        clauses.push(bad(
            "6455 5.2: reserved opcode",
            &[frame(FIN | opcode, b"a")],
            &[],
            ReservedOpcode,
        ));
        clauses.push(bad(
            "6455 5.2: reserved opcode inside a message",
            &[frame(TEXT, b"a"), frame(FIN | opcode, b"")],
            &[],
            ReservedOpcode,
        ));
    }
    clauses
}

fn lengths() -> Vec<Clause> {
    let mut clauses = Vec::new();
    for length in [0, 1, 125, 126, 127, 128, 65535, 65536, 65537, MAX_MESSAGE_BYTES] {
        let payload = vec![b'*'; length];
        clauses.push(good(
            "6455 5.2: every form of length",
            &[frame(FIN | BINARY, &payload), frame(FIN | TEXT, &payload)],
            &[binary(&payload), text(&"*".repeat(length))],
        ));
    }
    clauses.extend([
        bad(
            "6455 5.2: 125 in 2 bytes",
            &[header(FIN | BINARY, &[0xfe, 0, 125])],
            &[],
            BadLength,
        ),
        bad(
            "6455 5.2: 0 in 2 bytes",
            &[header(FIN | TEXT, &[0xfe, 0, 0])],
            &[],
            BadLength,
        ),
        bad(
            "6455 5.2: 65535 in 8 bytes",
            &[header(FIN | TEXT, &[0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff])],
            &[],
            BadLength,
        ),
        bad(
            "6455 5.2: the highest bit of 8 bytes",
            &[header(FIN | TEXT, &[0xff, 0x80, 0, 0, 0, 0, 1, 0, 0])],
            &[],
            BadLength,
        ),
        bad(
            "6455 10.4: one byte over the cap, announced",
            &[header(FIN | TEXT, &[0xff, 0, 0, 0, 0, 0, 1, 0x11, 0x71])],
            &[],
            TooLarge,
        ),
        bad(
            "6455 10.4: 2^63-1 bytes announced",
            &[header(
                FIN | BINARY,
                &[0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            )],
            &[],
            TooLarge,
        ),
        bad(
            "6455 10.4: fragments over the cap",
            &[
                frame(BINARY, &vec![0; MAX_MESSAGE_BYTES]),
                frame(CONTINUATION, b""),
                header(CONTINUATION, &[0x81]),
            ],
            &[],
            TooLarge,
        ),
    ]);
    clauses
}

fn fragments() -> Vec<Clause> {
    vec![
        good(
            "6455 5.7: Hel, lo",
            &[frame(TEXT, b"Hel"), frame(FIN | CONTINUATION, b"lo")],
            &[text("Hello")],
        ),
        good(
            "6455 5.4: many fragments, some empty",
            &[
                frame(TEXT, b""),
                frame(CONTINUATION, b"a"),
                frame(CONTINUATION, b""),
                frame(CONTINUATION, b"b"),
                frame(FIN | CONTINUATION, b""),
                frame(FIN | BINARY, b"c"),
            ],
            &[text("ab"), binary(b"c")],
        ),
        good(
            "6455 5.4: only empty fragments",
            &[frame(BINARY, b""), frame(FIN | CONTINUATION, b"")],
            &[binary(b"")],
        ),
        good(
            "6455 5.4: all of it in the last fragment",
            &[frame(TEXT, b""), frame(FIN | CONTINUATION, "é".as_bytes())],
            &[text("é")],
        ),
        good(
            "6455 5.4: control frames inside a message",
            &[
                frame(TEXT, b"Hel"),
                frame(FIN | PING, b"1"),
                frame(CONTINUATION, b"l"),
                frame(FIN | PONG, b"2"),
                frame(FIN | CONTINUATION, b"o"),
            ],
            &[ping(b"1"), pong(b"2"), text("Hello")],
        ),
        good(
            "6455 5.5.1: close inside a message",
            &[frame(TEXT, b"Hel"), close_with(1000, b"")],
            &[close(1000, "")],
        ),
        bad(
            "6455 5.4: continuation of nothing",
            &[frame(FIN | CONTINUATION, b"a")],
            &[],
            UnexpectedContinuation,
        ),
        bad(
            "6455 5.4: continuation after the last",
            &[
                frame(TEXT, b"a"),
                frame(FIN | CONTINUATION, b"b"),
                frame(FIN | CONTINUATION, b"c"),
            ],
            &[text("ab")],
            UnexpectedContinuation,
        ),
        bad(
            "6455 5.4: text in text",
            &[frame(TEXT, b"a"), frame(FIN | TEXT, b"b")],
            &[],
            ExpectedContinuation,
        ),
        bad(
            "6455 5.4: binary in text",
            &[frame(TEXT, b"a"), frame(BINARY, b"b")],
            &[],
            ExpectedContinuation,
        ),
        bad(
            "10.4: fragments without end",
            &[frame(BINARY, b""), frame(CONTINUATION, b"").repeat(6_000)],
            &[],
            TooManyFragments,
        ),
    ]
}

fn control_frames() -> Vec<Clause> {
    let most = [7; 125];
    vec![
        good(
            "6455 5.5.2: ping",
            &[frame(FIN | PING, b""), frame(FIN | PING, &most)],
            &[ping(b""), ping(&most)],
        ),
        good(
            "6455 5.5.3: pong",
            &[frame(FIN | PONG, b"x"), frame(FIN | PONG, &most)],
            &[pong(b"x"), pong(&most)],
        ),
        bad(
            "6455 5.5: ping of 126 bytes",
            &[frame(FIN | PING, &[0; 126])],
            &[],
            LongControl,
        ),
        bad(
            "6455 5.5: pong of 65,536 bytes",
            &[frame(FIN | PONG, &[0; 65536])],
            &[],
            LongControl,
        ),
        bad(
            "6455 5.5: close of 126 bytes",
            &[frame(FIN | CLOSE, &[0x03; 126])],
            &[],
            LongControl,
        ),
        bad(
            "6455 5.5: ping in fragments",
            &[frame(PING, b"a")],
            &[],
            FragmentedControl,
        ),
        bad(
            "6455 5.5: close in fragments",
            &[frame(CLOSE, b"")],
            &[],
            FragmentedControl,
        ),
    ]
}

fn closes() -> Vec<Clause> {
    let mut clauses = vec![
        good(
            "6455 5.5.1: empty close",
            &[frame(FIN | CLOSE, b"")],
            &[close(None, "")],
        ),
        good(
            "6455 5.5.1: reason",
            &[close_with(1001, "tschüß".as_bytes())],
            &[close(1001, "tschüß")],
        ),
        good(
            "6455 5.5.1: longest reason",
            &[close_with(1000, &[b'x'; 123])],
            &[close(1000, &"x".repeat(123))],
        ),
        good(
            "6455 5.5.1: nothing after a close",
            &[
                close_with(1000, b""),
                frame(FIN | TEXT, b"late"),
                raw(&[0xff; 300]),
            ],
            &[close(1000, "")],
        ),
        bad(
            "6455 5.5.1: close of one byte",
            &[frame(FIN | CLOSE, &[3])],
            &[],
            BadClose,
        ),
        bad(
            "6455 8.1: reason not UTF-8",
            &[close_with(1000, &[0xff])],
            &[],
            NotUtf8,
        ),
        bad(
            "6455 8.1: reason cut inside a character",
            &[close_with(1000, &"é".as_bytes()[..1])],
            &[],
            NotUtf8,
        ),
    ];
    for code in [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999,
    ] {
        clauses.push(good(
            "6455 7.4: code that may be sent",
            &[close_with(code, b"")],
            &[close(code, "")],
        ));
    }
    for code in [
        0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535,
    ] {
        clauses.push(bad(
            "6455 7.4: code that may not be sent",
            &[close_with(code, b"")],
            &[],
            BadClose,
        ));
    }
    clauses
}

fn utf8() -> Vec<Clause> {
    let mut clauses = vec![
        good(
            "6455 8.1: the edges of UTF-8",
            &[frame(
                FIN | TEXT,
                "\0\u{7f}\u{80}\u{7ff}\u{800}\u{d7ff}\u{e000}\u{ffff}\u{10000}\u{10ffff}".as_bytes(),
            )],
            &[text(
                "\0\u{7f}\u{80}\u{7ff}\u{800}\u{d7ff}\u{e000}\u{ffff}\u{10000}\u{10ffff}",
            )],
        ),
        good(
            "6455 5.4: a character over three fragments",
            &[
                frame(TEXT, b"\xf0"),
                frame(CONTINUATION, b"\x9f\xa6"),
                frame(FIN | CONTINUATION, b"\x80"),
            ],
            &[text("🦀")],
        ),
        good(
            "6455 8.1: binary may hold anything",
            &[frame(FIN | BINARY, b"\xff\xc0")],
            &[binary(b"\xff\xc0")],
        ),
        bad(
            "6455 8.1: ends inside a character",
            &[frame(FIN | TEXT, b"ab\xf0\x9f\xa6")],
            &[],
            NotUtf8,
        ),
        bad(
            "6455 8.1: a message ends inside a character",
            &[frame(TEXT, b"ab\xf0\x9f"), frame(FIN | CONTINUATION, b"\xa6")],
            &[],
            NotUtf8,
        ),
        // The rest of these never comes: they have to be refused before it.
        bad(
            "6455 8.1: refused before the frame ends",
            &[header(FIN | TEXT, &[0x80 | 100]), raw(&[MASK[0] ^ 0xff])],
            &[],
            NotUtf8,
        ),
        bad(
            "6455 8.1: refused before the message ends",
            &[frame(TEXT, b"\xce\xba\xf4\x90")],
            &[],
            NotUtf8,
        ),
        bad(
            "6455 8.1: refused across fragments",
            &[frame(TEXT, b"\xf4"), frame(CONTINUATION, b"\x90")],
            &[],
            NotUtf8,
        ),
    ];
    for broken in [
        &b"\x80"[..],
        b"\xbf",
        b"\xc0\x80",
        b"\xc1\xbf",
        b"\xe0\x80\x80",
        b"\xe0\x9f\xbf",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xf0\x80\x80\x80",
        b"\xf0\x8f\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\xf5\x80\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xfe",
        b"\xff",
        b"\xc2 ",
        b"\xe1\x80 ",
        b"\xf1\x80\x80 ",
    ] {
        clauses.push(bad(
            "6455 8.1: not UTF-8",
            &[frame(FIN | TEXT, broken)],
            &[],
            NotUtf8,
        ));
        clauses.push(bad(
            "6455 8.1: not UTF-8, not finished",
            &[frame(TEXT, broken)],
            &[],
            NotUtf8,
        ));
        let compressed = deflated(broken, 6);
        clauses.push(deflate(bad(
            "6455 8.1: not UTF-8, compressed",
            &[frame(FIN | RSV1 | TEXT, &compressed)],
            &[],
            NotUtf8,
        )));
    }
    clauses
}

fn compressed() -> Vec<Clause> {
    let hello = b"\xf2\x48\xcd\xc9\xc9\x07\x00";
    let most = deflated(&vec![b'*'; MAX_MESSAGE_BYTES], 6);
    let over = deflated(&vec![b'*'; MAX_MESSAGE_BYTES + 1], 6);
    // What deflate can't make smaller it makes a little larger.
    let noise = noise(MAX_MESSAGE_BYTES);
    let stored = deflated(&noise, 0);
    assert!(stored.len() > MAX_MESSAGE_BYTES);
    let whole = |payload: &[u8]| frame(FIN | RSV1 | TEXT, payload);
    [
        good("7692 7.2.3.1: Hello", &[whole(hello)], &[text("Hello")]),
        good(
            "7692 7.2.3.1: Hello in two fragments",
            &[
                frame(RSV1 | TEXT, &hello[..3]),
                frame(FIN | CONTINUATION, &hello[3..]),
            ],
            &[text("Hello")],
        ),
        good(
            "7692 7.2.3.3: a block without compression",
            &[whole(b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00")],
            &[text("Hello")],
        ),
        good(
            "7692 7.2.3.4: a final block",
            &[whole(b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00")],
            &[text("Hello")],
        ),
        good(
            "7692 7.2.3.4: a final block, and nothing after it",
            &[whole(b"\xf3\x48\xcd\xc9\xc9\x07\x00")],
            &[text("Hello")],
        ),
        good(
            "7692 7.2.1: blocks after a final one",
            &[whole(b"\xf3\x48\xcd\xc9\xc9\x07\x00\xf2\x48\xcd\xc9\xc9\x07\x00")],
            &[text("HelloHello")],
        ),
        good(
            "7692 7.2.3.5: two blocks",
            &[whole(b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00")],
            &[text("Hello")],
        ),
        good("7692 7.2.3.6: an empty message", &[whole(b"\x00")], &[text("")]),
        good(
            "7692 6.2: not every message is compressed",
            &[whole(hello), frame(FIN | TEXT, b"a"), whole(hello)],
            &[text("Hello"), text("a"), text("Hello")],
        ),
        good(
            "7692 6.1: control frames inside a compressed message",
            &[
                frame(RSV1 | BINARY, &hello[..3]),
                frame(FIN | PING, b"p"),
                frame(FIN | CONTINUATION, &hello[3..]),
            ],
            &[ping(b"p"), binary(b"Hello")],
        ),
        good(
            "7692 8: as large as the cap",
            &[whole(&most)],
            &[text(&"*".repeat(MAX_MESSAGE_BYTES))],
        ),
        good(
            "7692 8: as large as the cap, and larger compressed",
            &[frame(FIN | RSV1 | BINARY, &stored)],
            &[binary(&noise)],
        ),
        bad("7692 8: one byte over the cap", &[whole(&over)], &[], TooLarge),
        // The second Hello of §7.2.3.2, which leans on the first.
        bad(
            "7692 7.2.3.2: a context taken over",
            &[whole(hello), whole(b"\xf2\x00\x11\x00\x00")],
            &[text("Hello")],
            BadDeflate,
        ),
        bad(
            "7692 7.2.2: a reserved block type",
            &[whole(b"\x06")],
            &[],
            BadDeflate,
        ),
        bad(
            "7692 7.2.2: cut inside a block",
            &[whole(&hello[..4])],
            &[],
            BadDeflate,
        ),
        bad(
            "7692 7.2.2: a stored block that is cut",
            &[whole(b"\x00\x05\x00\xfa\xff\x48\x65")],
            &[],
            BadDeflate,
        ),
        bad(
            "7692 7.2.2: a stored block of another length",
            &[whole(b"\x00\x05\x00\xfa\xfe\x48")],
            &[],
            BadDeflate,
        ),
        bad("7692 7.2.2: no bytes at all", &[whole(b"")], &[], BadDeflate),
        bad(
            "7692 7.2.2: not deflate",
            &[whole(b"Hello, I am not compressed")],
            &[],
            BadDeflate,
        ),
    ]
    .map(deflate)
    .into()
}

#[test]
fn every_clause_holds_however_the_bytes_are_split() {
    let table = [
        opening(),
        reserved_bits_and_opcodes(),
        lengths(),
        fragments(),
        control_frames(),
        closes(),
        utf8(),
        compressed(),
    ]
    .into_iter()
    .flatten();
    for Clause {
        name,
        deflate,
        input,
        incoming,
        error,
    } in table
    {
        let decoder = || Decoder::new(MAX_MESSAGE_BYTES).with_deflate(deflate);
        let whole = decode(decoder(), [&input[..]]);
        assert_eq!(whole, (incoming, error), "{name}");
        let dripped = decode(decoder(), input.chunks(1));
        assert_eq!(dripped, whole, "{name}, byte by byte");
        if input.len() < 400 {
            for at in 0..input.len() {
                let (before, after) = input.split_at(at);
                assert_eq!(
                    &decode(decoder(), [before, after]),
                    &whole,
                    "{name}, split at {at}"
                );
            }
        }
    }
}

#[test]
fn every_error_answers_for_its_close_code_and_a_reason_that_fits() {
    for (error, code) in [
        (ReservedBit, 1002),
        (ReservedOpcode, 1002),
        (Unmasked, 1002),
        (BadLength, 1002),
        (FragmentedControl, 1002),
        (LongControl, 1002),
        (UnexpectedContinuation, 1002),
        (ExpectedContinuation, 1002),
        (BadClose, 1002),
        (NotUtf8, 1007),
        (BadDeflate, 1007),
        (TooManyFragments, 1008),
        (TooLarge, 1009),
    ] {
        assert_eq!(error.close_code(), code, "{error:?}");
        assert!(error.to_string().len() <= 123, "{error:?}");
    }
}

#[test]
fn the_server_writes_what_the_examples_show() {
    assert_eq!(
        text_frame("Hello"),
        &b"\x81\x05\x48\x65\x6c\x6c\x6f"[..],
        "6455 5.7: unmasked text"
    );
    assert_eq!(
        ping_frame(b"Hello"),
        &b"\x89\x05\x48\x65\x6c\x6c\x6f"[..],
        "6455 5.7: unmasked ping"
    );
    assert_eq!(
        pong_frame(b"Hello"),
        &b"\x8a\x05\x48\x65\x6c\x6c\x6f"[..],
        "6455 5.7: the pong to it"
    );
    assert_eq!(text_frame(&"*".repeat(126))[..4], [0x81, 126, 0, 126]);
    assert_eq!(text_frame(&"*".repeat(65535))[..4], [0x81, 126, 0xff, 0xff]);
    assert_eq!(
        text_frame(&"*".repeat(65536))[..10],
        [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]
    );
    assert_eq!(close_frame(1000, ""), &b"\x88\x02\x03\xe8"[..]);
}

#[test]
fn a_long_close_reason_is_cut_between_characters() {
    let reason = format!("{}ééé", "x".repeat(120));
    let sent = close_frame(4401, &reason);
    assert_eq!(sent[..4], [0x88, 124, 0x11, 0x31]);
    assert_eq!(
        std::str::from_utf8(&sent[4..]),
        Ok(&*format!("{}é", "x".repeat(120)))
    );
    assert_eq!(close_frame(4401, &"x".repeat(200)).len(), 2 + 125);
}
