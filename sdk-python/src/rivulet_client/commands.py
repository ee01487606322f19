"""The commands of a client: those that wait to be sent and those that wait for their answer. No socket."""

import asyncio
from bisect import insort
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from time import monotonic
from typing import Any

from rivulet_client.errors import RivuletError

MOST_IN_FLIGHT = 8
"""Commands that may wait for an answer. Were all of them refused as too many, the router would still forgive
it: it closes at more than 10 bad messages a minute."""
_LONGEST_HOLD = 1.0
_FORGOTTEN_AFTER = 60.0


@dataclass(eq=False, slots=True)
class Pending:
    """A command on its way."""

    id: str
    text: str
    """The frame."""
    answer: "asyncio.Future[Any]"
    """The `data` of the reply, or a `RivuletError`."""
    sent_at: float | None = field(default=None)
    """When it was sent last; None as long as nobody can have done anything with it."""
    lost: bool = field(default=False)
    """Whether it went out on a connection that broke before the answer."""
    refused: RivuletError | None = field(default=None)
    """Why it was sent back as one too many, if it was: it is sent again."""
    order: int = field(default_factory=count().__next__)
    """Commands are sent in the order in which they were given."""


class Pace:
    """How fast commands are sent: as they come, until the router says that they are too many.

    What it says of one refusal is when the next command passes, and not how many a second do. So each refusal
    adds to the time that is left between two commands, until none is refused any more.
    """

    def __init__(self) -> None:
        """As they come."""
        self._spacing = 0.0
        self._not_before = 0.0
        self._learned_at = 0.0

    def wait(self, now: float) -> float:
        """Seconds until the next command may be sent."""
        return max(0.0, self._not_before - now)

    def sent(self, now: float) -> None:
        """One was sent."""
        if now - self._learned_at > _FORGOTTEN_AFTER:
            self._spacing = 0.0
        self._not_before = now + self._spacing

    def refused(self, now: float, sent_at: float, retry_after: float) -> None:
        """One was refused. A backend may say so too, of its own: the others don't wait long for that."""
        # Sent before the last lesson was learned: part of the same one.
        if sent_at >= self._learned_at:
            self._spacing = min(self._spacing + retry_after, _LONGEST_HOLD)
            self._learned_at = now
        self._not_before = max(self._not_before, now + min(retry_after, _LONGEST_HOLD))


class Commands:
    """All commands that are not answered yet."""

    def __init__(self, bound: int, asking_changed: Callable[[], None]) -> None:
        """`bound` commands may wait to be sent; `asking_changed` is called as one is sent."""
        self._bound = bound
        self._asking_changed = asking_changed
        self._waiting: deque[Pending] = deque()
        self._in_flight: dict[str, Pending] = {}
        self._pace = Pace()
        self._news = asyncio.Event()

    @property
    def asking(self) -> bool:
        """Whether a command waits for its answer."""
        return bool(self._in_flight)

    def add(self, pending: Pending) -> None:
        """Queues a command. Raises `QUEUE_FULL` where too many wait to be sent."""
        if pending.id in self._in_flight or any(pending.id == other.id for other in self._waiting):
            raise RivuletError("INVALID_MESSAGE", "a command with this id is under way", "id")
        if len(self._waiting) >= self._bound:
            raise RivuletError("QUEUE_FULL", f"{self._bound} commands wait to be sent already")
        self._waiting.append(pending)
        self._news.set()

    def forget(self, pending: Pending) -> None:
        """Nobody waits for its answer any more."""
        if self._in_flight.pop(pending.id, None) is None and pending in self._waiting:
            self._waiting.remove(pending)
        self._news.set()

    async def next(self) -> Pending:
        """Waits for the next command that may be sent; it counts as sent."""
        while True:
            self._news.clear()
            if self._waiting and len(self._in_flight) < MOST_IN_FLIGHT:
                hold = self._pace.wait(monotonic())
                if hold > 0:
                    await asyncio.sleep(hold)
                    continue
                pending = self._waiting.popleft()
                pending.sent_at = monotonic()
                self._pace.sent(pending.sent_at)
                self._in_flight[pending.id] = pending
                self._asking_changed()
                return pending
            await self._news.wait()

    def answered(self, command_id: str | None, answer: Any) -> bool:
        """Takes the answer of a command, a `RivuletError` or the reply's data. Returns whether it was one."""
        pending = self._in_flight.pop(command_id, None) if command_id is not None else None
        if pending is None:
            return False
        if isinstance(answer, RivuletError) and answer.code == "RATE_LIMITED":
            assert pending.sent_at is not None, "it is in flight"
            self._pace.refused(monotonic(), pending.sent_at, answer.retry_after or _LONGEST_HOLD)
            pending.refused = answer
            # The router did nothing with it now, and perhaps did before.
            if not pending.lost:
                pending.sent_at = None
            insort(self._waiting, pending, key=lambda other: other.order)
        elif isinstance(answer, RivuletError):
            self._set(pending, error=answer)
        else:
            self._set(pending, answer)
        self._news.set()
        return True

    def lost(self) -> None:
        """The connection is gone: what was not answered is sent again, first."""
        for pending in self._in_flight.values():
            pending.lost = True
        self._waiting.extendleft(reversed(self._in_flight.values()))
        self._in_flight.clear()
        self._pace = Pace()
        self._news.set()

    def fail_all(self, error: RivuletError) -> None:
        """None of them will be answered."""
        for pending in [*self._in_flight.values(), *self._waiting]:
            self._set(pending, error=error)
        self._in_flight.clear()
        self._waiting.clear()

    @staticmethod
    def _set(pending: Pending, value: Any = None, error: RivuletError | None = None) -> None:
        if pending.answer.done():
            return
        if error is None:
            pending.answer.set_result(value)
        else:
            pending.answer.set_exception(error)
