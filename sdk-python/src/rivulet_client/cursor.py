"""Where a client stands in the stream."""

from collections.abc import Awaitable
from typing import NamedTuple, Protocol

MAX_SEQ = 2**53 - 1
"""The greatest sequence that there is."""


class Cursor(NamedTuple):
    """A position: everything of the client's up to here has been handed on."""

    stream: str
    """The stream's epoch: its name and creation time in nanoseconds."""
    seq: int
    """The last sequence that was handed on."""


class CursorStore(Protocol):
    """What keeps a position over restarts of the program. Both may be coroutines."""

    def load(self) -> Awaitable[Cursor | None] | Cursor | None:
        """The position that was saved last, or None."""
        ...

    def save(self, cursor: Cursor) -> Awaitable[None] | None:
        """Keeps a position. It never passes an event that a reader has not done with."""
        ...


def checked(cursor: tuple[str, int]) -> Cursor:
    """A position that the router takes; what comes out of a store may be anything. Raises `ValueError`."""
    stream, seq = cursor
    if not isinstance(stream, str) or not stream or type(seq) is not int or not 0 <= seq <= MAX_SEQ:
        raise ValueError(f"{cursor!r} is no position in a stream")
    return Cursor(stream, seq)
