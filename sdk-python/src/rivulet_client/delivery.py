"""From what was received to the readers, and how far that has got. No socket."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from rivulet_client._generated import Gap
from rivulet_client._wire import UnknownEvent
from rivulet_client.cursor import MAX_SEQ, Cursor
from rivulet_client.errors import RivuletError
from rivulet_client.pattern import Pattern, cover
from rivulet_client.protocol import Decoder, Rejected
from rivulet_client.reader import Queue

log = logging.getLogger("rivulet_client")

# How many times its bound a queue may hold while a command waits for its answer, which comes behind.
_WHILE_ASKING = 64
_MOST_ROUTES = 1000


@dataclass(frozen=True, slots=True)
class _Route:
    """Where the events of one type go."""

    queues: list[Queue[Any]]
    decodes: bool


class Delivery:
    """The readers of a client, and its cursor.

    An event counts as handed on when it is in the queue of every reader that wants it. Where a queue is full,
    `event` waits, and with it whoever reads the socket.
    """

    def __init__(
        self,
        decoder: Decoder[Any],
        on_gap: Callable[[Gap], Awaitable[None] | None] | None,
        on_unknown: Callable[[UnknownEvent], Awaitable[None] | None] | None,
        on_error: Callable[[Exception], object] | None,
    ) -> None:
        """No reader yet, and no position."""
        self.cursor: Cursor | None = None
        self.asking: Callable[[], bool] = lambda: False
        self.changed: Callable[[], None] = lambda: None
        # Whether the socket is not read as a queue is full.
        self.waits_for_room = False
        # Whether some reader takes events undecoded.
        self.wants_raw = False
        self._decoder = decoder
        self._on_gap = on_gap
        self._on_unknown = on_unknown
        self._on_error = on_error
        self._queues: list[Queue[Any]] = []
        self._routes: dict[str, _Route] = {}
        self._room = asyncio.Event()

    # Readers

    def add(self, patterns: list[Pattern], raw: bool, bound: int) -> Queue[Any]:
        """A queue for a new reader."""
        queue: Queue[Any] = Queue(patterns, raw, bound, self._queue_changed)
        self._set_queues([*self._queues, queue])
        return queue

    def wanted(self) -> list[str]:
        """The fewest patterns that cover those of all readers."""
        return [pattern.text for pattern in cover(p for queue in self._queues for p in queue.patterns)]

    def in_force(self, patterns: Iterable[str]) -> None:
        """The router has these patterns in force."""
        texts = [Pattern(text) for text in patterns]
        for queue in self._queues:
            if all(any(pattern.within(text) for text in texts) for pattern in queue.patterns):
                queue.in_force = True
                queue.tell()

    def refuse(self, pattern: str, error: RivuletError) -> None:
        """The router refuses a pattern: the readers that want it end with the error."""
        refused = [queue for queue in self._queues if any(own.text == pattern for own in queue.patterns)]
        for queue in refused:
            queue.fail(error)
        if not refused:
            self.report(error)

    def tell_all(self) -> None:
        """Has all readers look again at what became of the client."""
        for queue in self._queues:
            queue.tell()

    def close(self) -> None:
        """Ends all readers."""
        for queue in list(self._queues):
            queue.close()

    def _queue_changed(self) -> None:
        open_ones = [queue for queue in self._queues if not queue.closed]
        if len(open_ones) < len(self._queues):
            self._set_queues(open_ones)
        self._room.set()

    def _set_queues(self, queues: list[Queue[Any]]) -> None:
        self._queues = queues
        self.wants_raw = any(queue.raw for queue in queues)
        self._routes.clear()
        self.changed()

    # What was received

    async def event(self, fields: dict[str, Any], raw: bytes) -> None:
        """Hands an event on, unless it was seen before. `raw` is read only where some reader takes it so."""
        seq, cursor = fields.get("seq"), self.cursor
        if seq is not None:
            if not _is_seq(seq):
                self.report(
                    RivuletError("INVALID_MESSAGE", "`seq` is a whole number from 0 to 2^53 - 1", "seq")
                )
                return
            if cursor is not None and seq <= cursor.seq:
                return
        event_type: str = fields["type"]
        route = self._routes.get(event_type) or self._find_route(event_type)
        decoded: Any = None
        if route.decodes:
            decoded = self._decoder.event(fields)
            if isinstance(decoded, Rejected):
                # The router judges an event once, when it enters: this one may be of an earlier schema.
                rejected, decoded = decoded, self._decoder.undecoded(fields)
                if decoded is None:
                    self.report(rejected.error)
        # First room in all of them, then the event for all at once: given up in between, it would come to
        # some of them twice.
        for queue in route.queues:
            if len(queue) >= queue.bound:
                await self._wait_for_room(queue)
        if self._on_unknown is not None and isinstance(decoded, UnknownEvent):
            await self._call(self._on_unknown, decoded)
        for queue in route.queues:
            item = raw if queue.raw else decoded
            if item is not None:
                queue.put(item, cursor)
        if seq is not None and cursor is not None:
            self.cursor = Cursor(cursor.stream, int(seq))

    async def gap(self, gap: Gap) -> None:
        """Tells of a gap, before anything that comes after it, and goes on behind it."""
        if self._on_gap is not None:
            await self._call(self._on_gap, gap)
        else:
            log.warning("a gap (%s): after %s, up to %s", gap.reason, gap.from_seq, gap.to_seq)
        self.cursor = Cursor(gap.stream, gap.to_seq)

    def passed(self, seq: int | None) -> None:
        """All of this client's up to here has come."""
        cursor = self.cursor
        if seq is not None and cursor is not None and seq > cursor.seq:
            self.cursor = Cursor(cursor.stream, seq)

    @property
    def done_with(self) -> Cursor | None:
        """Up to where the readers have done with everything: what is worth being kept."""
        cursor = self.cursor
        if cursor is None:
            return None
        undone = [start for queue in self._queues if (start := queue.undone_from) is not None]
        # Of an earlier epoch, if any: whatever is resumed from there is told as a gap once more.
        return min(undone, key=lambda start: (start.stream == cursor.stream, start.seq), default=cursor)

    def report(self, error: Exception) -> None:
        """Tells the program of an error that no call of its own brings."""
        if self._on_error is None:
            log.warning("%s", error)
            return
        try:
            self._on_error(error)
        except Exception:
            log.exception("on_error raised")

    def recheck(self) -> None:
        """A command waits for its answer now: there may be room."""
        self._room.set()

    def _find_route(self, event_type: str) -> "_Route":
        if len(self._routes) >= _MOST_ROUTES:
            self._routes.clear()
        queues = [queue for queue in self._queues if queue.wants(event_type)]
        unknown = not self._decoder.knows(event_type)
        decodes = any(not queue.raw for queue in queues) or (unknown and self._on_unknown is not None)
        route = self._routes[event_type] = _Route(queues, decodes)
        return route

    async def _wait_for_room(self, queue: Queue[Any]) -> None:
        while not queue.closed:
            if self.asking():
                if len(queue) < queue.bound * _WHILE_ASKING:
                    return
            elif not queue.awaited and len(queue) < queue.bound:
                return
            queue.awaited = self.waits_for_room = True
            self._room.clear()
            try:
                await self._room.wait()
            finally:
                self.waits_for_room = False

    async def _call(self, hook: Callable[[Any], Awaitable[None] | None], told: Any) -> None:
        try:
            outcome = hook(told)
            if inspect.isawaitable(outcome):
                await outcome
        except Exception as error:
            self.report(error)


def _is_seq(value: Any) -> bool:
    if type(value) is int:
        return 0 <= value <= MAX_SEQ
    return isinstance(value, float) and value.is_integer() and 0 <= value <= MAX_SEQ
