"""User ids, and how they stand in NATS subjects and headers.

An id is any 1 to 128 bytes of UTF-8, so it may hold dots, spaces and wildcards. In a subject or a header it
is escaped: `[A-Za-z0-9_-]` stay, every other byte becomes `=XX` with upper-case hex digits. The result is
always exactly one token, no two ids share one, and no id becomes a wildcard.
"""

import re

from rivulet_client.errors import InvalidUserId

MAX_USER_ID_BYTES = 128
"""The most bytes in a user id, before escaping."""

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_ESCAPED = re.compile("(?:[A-Za-z0-9_-]|=[0-9A-F]{2})*")


def escape_user_id(user_id: str) -> str:
    """The escaped form of a user id: one subject token of at most 384 characters. Raises `InvalidUserId`."""
    try:
        encoded = user_id.encode()
    except UnicodeEncodeError:
        raise InvalidUserId("not_utf8") from None
    _check_length(encoded)
    return "".join(chr(byte) if byte in _PLAIN else f"={byte:02X}" for byte in encoded)


def unescape_user_id(token: str) -> str:
    """Reads the escaped form. Raises `InvalidUserId`.

    Strict: the one spelling that `escape_user_id` writes, so that two subjects never mean the same user.
    """
    # Counted as the router counts, in bytes.
    if len(token.encode("utf-8", "surrogatepass")) > 3 * MAX_USER_ID_BYTES:
        raise InvalidUserId("too_long")
    if not _ESCAPED.fullmatch(token):
        raise InvalidUserId("escape")
    encoded = bytearray()
    for piece in re.findall("=..|.", token):
        if len(piece) == 1:
            encoded.append(ord(piece))
            continue
        byte = int(piece[1:], 16)
        if byte in _PLAIN:
            raise InvalidUserId("escape")
        encoded.append(byte)
    try:
        user_id = encoded.decode()
    except UnicodeDecodeError:
        raise InvalidUserId("escape") from None
    _check_length(encoded)
    return user_id


def _check_length(encoded: bytes | bytearray) -> None:
    if not encoded:
        raise InvalidUserId("empty")
    if len(encoded) > MAX_USER_ID_BYTES:
        raise InvalidUserId("too_long")
