"""Patterns: which event types a client wants.

The grammar is that of NATS subjects: tokens with dots between, `*` for exactly one token, a final `>` for one
or more. The bare `*` is Rivulet's alias for "all that I may see": it matches every type.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from rivulet_client.errors import InvalidPattern

MAX_TOKENS = 8
MAX_BYTES = 128

_TOKEN = re.compile("[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A checked pattern. Equal exactly when its text is."""

    text: str
    """1 to 8 tokens of `[A-Za-z0-9_-]`, at most 128 characters; anything else raises `InvalidPattern`."""
    _tokens: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_tokens", _checked(self.text))

    @property
    def is_all(self) -> bool:
        """Whether this is the bare `*`."""
        return self.text == "*"

    def matches(self, event_type: str) -> bool:
        """Whether the pattern covers this event type."""
        if self.is_all:
            return True
        tokens = event_type.split(".")
        for index, wanted in enumerate(self._tokens):
            if index >= len(tokens):
                return False
            if wanted == ">":
                return True
            if wanted not in ("*", tokens[index]):
                return False
        return len(tokens) == len(self._tokens)

    def within(self, wider: "Pattern") -> bool:
        """Whether every type that this pattern covers is covered by `wider` too."""
        if wider.is_all:
            return True
        if self.is_all:
            # The alias covers types of any number of tokens, as only `>` does.
            return wider.text == ">"
        for index, their in enumerate(wider._tokens):
            if index >= len(self._tokens):
                return False
            our = self._tokens[index]
            if their == ">":
                return True
            # One token is not enough for all that `>` may bring.
            if our == ">" or their not in ("*", our):
                return False
        return len(self._tokens) == len(wider._tokens)

    def __str__(self) -> str:
        return self.text


def cover(patterns: Iterable[Pattern]) -> list[Pattern]:
    """The fewest of these patterns that cover all of them, in their order."""
    # `*` and `>` cover each other; of the two the router never refuses `*`.
    widest_first = sorted(dict.fromkeys(patterns), key=lambda pattern: not pattern.is_all)
    kept: list[Pattern] = []
    for pattern in widest_first:
        if not any(pattern.within(other) for other in kept):
            kept = [other for other in kept if not other.within(pattern)]
            kept.append(pattern)
    return kept


def _checked(text: str) -> tuple[str, ...]:
    # Counted as the router counts, in bytes; half of a surrogate pair is a wrong character, and no crash.
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise InvalidPattern("too_long")
    tokens = text.split(".")
    if len(tokens) > MAX_TOKENS:
        raise InvalidPattern("too_many_tokens")
    for index, token in enumerate(tokens):
        if index > 0 and tokens[index - 1] == ">":
            raise InvalidPattern("rest_before_end")
        if token == "":
            raise InvalidPattern("empty_token")
        if token in ("*", ">"):
            continue
        if "*" in token or ">" in token:
            raise InvalidPattern("wildcard_in_token")
        if not _TOKEN.fullmatch(token):
            raise InvalidPattern("character")
    return tuple(tokens)
