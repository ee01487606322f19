"""What a program reads events from."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

from rivulet_client.cursor import Cursor
from rivulet_client.errors import RivuletError
from rivulet_client.pattern import Pattern

T = TypeVar("T")


class Queue(Generic[T]):
    """The events that wait for one reader. Whoever fills it sees to its bound; taking calls back."""

    def __init__(self, patterns: list[Pattern], raw: bool, bound: int, changed: Callable[[], None]) -> None:
        """An empty queue; `changed` is called when there is room again, and when it is closed."""
        self.patterns = patterns
        self.raw = raw
        self.bound = bound
        self.closed = False
        # Set when nothing may be expected any more: why, or None for an ordinary end.
        self.error: RivuletError | None = None
        self.in_force = False
        # Somebody waits for room.
        self.awaited = False
        self._changed = changed
        self._items: deque[tuple[T, Cursor | None]] = deque()
        # Where the client stood before the event that was taken last, which is still being worked on.
        self._working_from: Cursor | None = None
        self._news = asyncio.Event()

    def __len__(self) -> int:
        return len(self._items)

    def wants(self, event_type: str) -> bool:
        """Whether events of this type belong here."""
        return any(pattern.matches(event_type) for pattern in self.patterns)

    def put(self, item: T, before: Cursor | None) -> None:
        """Appends an event; `before` is where the client stood before it."""
        if not self.closed:
            self._items.append((item, before))
            self._news.set()

    def take(self) -> T:
        """The oldest event. Whatever was taken before counts as done with."""
        item, self._working_from = self._items.popleft()
        self._taken()
        return item

    def take_all(self, most: int) -> list[T]:
        """The oldest events, so many at most. None of them counts as done with before the next take."""
        if not self._items:
            return []
        before = self._items[0][1]
        items = [self._items.popleft()[0] for _ in range(min(most, len(self._items)))]
        self._working_from = before
        self._taken()
        return items

    def _taken(self) -> None:
        if self.awaited and len(self._items) <= self.bound // 2:
            self.awaited = False
            self._changed()

    def done(self) -> None:
        """What was taken is done with."""
        self._working_from = None

    @property
    def undone_from(self) -> Cursor | None:
        """Where the client stood before the oldest event that is not done with; None if there is no such."""
        if self._working_from is not None:
            return self._working_from
        return self._items[0][1] if self._items else None

    def tell(self) -> None:
        """Has whoever waits look again."""
        self._news.set()

    async def wait(self) -> None:
        """Waits for an event or other news."""
        self._news.clear()
        await self._news.wait()

    def fail(self, error: RivuletError) -> None:
        """Ends it with an error, which comes after the events that wait."""
        self.error = error
        self.close()

    def close(self) -> None:
        """Ends it: nothing comes any more; what waits can still be taken."""
        if not self.closed:
            self.closed = True
            self._changed()
            self.tell()

    def abandon(self) -> None:
        """Ends it as one that nobody reads: what waits is given up."""
        self._items.clear()
        self.done()
        self.close()


class Reader(Generic[T]):
    """An asynchronous iterator of events, from `Client.events` or `Client.raw`.

    It begins with the events that come after it was made. Nothing is ever dropped from it: while it is full,
    the client reads nothing from its socket. So read it, or close it: leave the loop, call `close`, use it in
    a `with`, or forget it. It ends when the client is closed, and raises a `RivuletError` when the router
    refuses one of its patterns, or the client is `stopped`; after `Client.reconnect` it can be read on.
    """

    def __init__(self, queue: Queue[T], stopped: Callable[[], RivuletError | None]) -> None:
        """For `Client` alone."""
        self._queue = queue
        self._stopped = stopped
        self._loop: asyncio.AbstractEventLoop | None = None
        with contextlib.suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        queue = self._queue
        if not queue:
            await self._wait()
            if not queue:
                raise StopAsyncIteration
        return queue.take()

    async def batch(self, most: int = 1000) -> list[T]:
        """All events that wait, at least one and at most so many; nothing once it has ended."""
        queue = self._queue
        if not queue:
            await self._wait()
        return queue.take_all(most)

    async def ready(self) -> None:
        """Waits until the router has taken the patterns: every matching event from here on comes.

        Raises `RivuletError` where it refuses one, or the client is stopped or closed.
        """
        queue = self._queue
        while not queue.in_force:
            self._raise_if_over()
            if queue.closed:
                raise RivuletError("CLOSED", "the reader is closed")
            await queue.wait()

    def close(self) -> None:
        """Ends it; what still waits is given up."""
        self._queue.abandon()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Whoever left its loop holds no reader any more. The collector may run in any thread.
        if self._loop is None:
            self._queue.abandon()
        elif not self._queue.closed:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._queue.abandon)

    async def _wait(self) -> None:
        """Waits until there is something to take, or the end."""
        queue = self._queue
        queue.done()
        while not queue:
            self._raise_if_over()
            if queue.closed:
                return
            await queue.wait()

    def _raise_if_over(self) -> None:
        error = self._queue.error or self._stopped()
        if error is not None:
            # One error for all readers: without the way that it took through another one.
            raise error.with_traceback(None)
