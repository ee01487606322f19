"""What goes wrong, each kind with a name that programs can ask for.

The messages are those of the router, so that a fault reads the same wherever it is found.
"""

from typing import Literal

from rivulet._generated import ErrorCode


class RivuletError(Exception):
    """The error that all others of this package are."""

    code: ErrorCode
    """One of the router's codes."""
    field: str | None
    """The field at fault, as a path such as `data.content` or `events[2]`."""

    def __init__(self, code: ErrorCode, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.field = field


PatternFault = Literal[
    "empty_token", "too_many_tokens", "too_long", "rest_before_end", "wildcard_in_token", "character"
]

_PATTERN_FAULTS: dict[PatternFault, str] = {
    "empty_token": "a pattern has no empty tokens",
    "too_many_tokens": "a pattern has at most 8 tokens",
    "too_long": "a pattern has at most 128 characters",
    "rest_before_end": "`>` stands only at the end",
    "wildcard_in_token": "`*` and `>` stand alone in their token: use blob.* or blob.>",
    "character": "tokens are of A-Z a-z 0-9 _ -",
}


class InvalidPattern(RivuletError):  # noqa: N818 (the word of the router and of the other SDK)
    """A text is not a pattern."""

    reason: PatternFault
    """Why, for programs; the message says it for people."""

    def __init__(self, reason: PatternFault) -> None:
        super().__init__("INVALID_PATTERN", _PATTERN_FAULTS[reason])
        self.reason = reason


UserIdFault = Literal["empty", "too_long", "escape", "not_utf8"]

_USER_ID_FAULTS: dict[UserIdFault, str] = {
    "empty": "a user id is not empty",
    "too_long": "a user id has at most 128 bytes",
    "escape": "an escaped user id is of A-Z a-z 0-9 _ - with every other byte as =XX",
    "not_utf8": "a user id is UTF-8",
}


class InvalidUserId(RivuletError):  # noqa: N818 (as above)
    """A text is not a user id, or not an escaped one."""

    reason: UserIdFault
    """Why, for programs; the message says it for people."""

    def __init__(self, reason: UserIdFault) -> None:
        super().__init__("INVALID_MESSAGE", _USER_ID_FAULTS[reason])
        self.reason = reason
