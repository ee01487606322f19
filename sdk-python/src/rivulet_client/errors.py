"""What goes wrong, each kind with a name that programs can ask for.

The messages are those of the router, so that a fault reads the same wherever it is found.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from rivulet_client._generated import ErrorBody, ErrorCode

ClientCode = Literal["QUEUE_FULL", "CLOSED"]
"""The codes that the client itself adds: too many commands wait to be sent; the client was closed."""

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class RivuletError(Exception):
    """The error that all others of this package are."""

    code: ErrorCode | ClientCode | str
    """One of the router's codes or of the client's, or a backend's own."""
    message: str
    """What went wrong, for people."""
    field: str | None
    """The field at fault, as a path such as `data.content` or `events[2]`."""
    retry_after: float | None
    """After how many seconds trying again may help."""
    extra: Mapping[str, Any]
    """Whatever else a backend said of it, by name; of an `OUTCOME_UNKNOWN` the command's `id`."""

    def __init__(
        self,
        code: ErrorCode | ClientCode | str,
        message: str,
        field: str | None = None,
        retry_after: float | None = None,
        extra: Mapping[str, Any] = _NOTHING,
    ) -> None:
        """An error of this code."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field
        self.retry_after = retry_after
        self.extra = extra

    @classmethod
    def of(cls, body: ErrorBody) -> "RivuletError":
        """The error that an `error` frame tells."""
        return RivuletError(
            body.code, body.message, body.field, body.retry_after, body.model_extra or _NOTHING
        )


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
        """An error for this reason."""
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
        """An error for this reason."""
        super().__init__("INVALID_MESSAGE", _USER_ID_FAULTS[reason])
        self.reason = reason
