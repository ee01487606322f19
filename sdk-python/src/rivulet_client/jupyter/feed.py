"""The events of a notebook: received in threads, kept and handled in the kernel's own event loop."""

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

from rivulet_client.client import Client
from rivulet_client.errors import RivuletError
from rivulet_client.family import Family
from rivulet_client.jupyter.on_cell import OnCell
from rivulet_client.jupyter.rates import Rates
from rivulet_client.jupyter.show import Table
from rivulet_client.pattern import Pattern
from rivulet_client.sync import SyncReader

log = logging.getLogger("rivulet_client.jupyter")

MOST_EVENTS = 10_000
"""How many events are kept; the oldest goes."""
ANSWERS_WITHIN = 10.0
"""Seconds that a cell waits for the router."""


class Feed:
    """What `%rivulet connect` gives: the client, and the events that came.

    While a cell keeps the kernel busy, nothing is read: the stream keeps the events, and they come later.
    """

    def __init__(self, url: str, token: str, families: Sequence[Family[Any]] = ()) -> None:
        """Connects. Call it in a cell. Raises `RivuletError` if the router refuses, or can't be reached."""
        self._loop = asyncio.get_running_loop()
        self.url = url
        self.families = families
        """The user's own families."""
        self.client = Client.sync(url, token=token, families=families)
        """The client: `feed.client.command(CreateBlob(…))`."""
        self.events: deque[Any] = deque(maxlen=MOST_EVENTS)
        """The events that came, the oldest first; at most 10,000."""
        self.received = 0
        """How many came."""
        self.rates = Rates()
        """How many of each type came in each second."""
        self.cells: dict[str, OnCell] = {}
        """What runs for events, by the patterns that `%%on` was given."""
        self._patterns: list[Pattern] = []
        self._readers: list[SyncReader[Any]] = []
        # What the readers' threads hand over, one event each at a time.
        self._arrivals: queue.SimpleQueue[tuple[Any, Future[None]]] = queue.SimpleQueue()
        self._news = asyncio.Event()
        self.closed = False
        """Whether it is over."""
        try:
            self._wait_for(self.client.ready, f"{url} can't be reached")
        except BaseException:
            self.close()
            raise

    @property
    def patterns(self) -> list[str]:
        """What is subscribed to."""
        return [pattern.text for pattern in self._patterns]

    def subscribe(self, *patterns: str) -> None:
        """Receives the events of these patterns too, from now on. Raises `RivuletError` for a refused one."""
        wanted: list[Pattern] = []
        for pattern in map(Pattern, patterns):
            if not any(pattern.within(wider) for wider in (*self._patterns, *wanted)):
                wanted.append(pattern)
        if not wanted:
            return
        reader = self.client.events(*(pattern.text for pattern in wanted))
        try:
            self._wait_for(reader.ready, "the router has not taken the patterns")
        except BaseException:
            reader.close()
            raise
        # An event that several patterns match is the one's that was there first.
        before = list(self._patterns)
        self._patterns += wanted
        self._readers.append(reader)
        threading.Thread(target=self._read, args=(reader, before), name="rivulet-feed", daemon=True).start()

    def on(self, patterns: str, cell: OnCell) -> None:
        """Runs a cell for each event of these patterns (by spaces), in place of an earlier one."""
        self.subscribe(*patterns.split())
        if (earlier := self.cells.pop(patterns, None)) is not None:
            earlier.end("replaced")
        self.cells[patterns] = cell

    async def until(self, condition: Callable[[], object], within: float = 60.0) -> Any:
        """Waits until a condition holds, looking whenever an event came; returns what it said.

        `await feed.until(lambda: len(feed.events) >= 3)`. `TimeoutError` after `within` seconds.
        """
        async with asyncio.timeout(within):
            while not (held := condition()):
                if self.closed:
                    raise RivuletError("CLOSED", "the feed is closed")
                self._news.clear()
                await self._news.wait()
        return held

    def close(self) -> None:
        """Disconnects, and ends the cells. The events stay."""
        if self.closed:
            return
        self.closed = True
        self._news.set()
        for cell in self.cells.values():
            cell.end("disconnected")
        self.client.close()

    def status(self) -> Table:
        """How things are, as a table."""
        cursor = self.client.cursor
        rows: list[tuple[str, object]] = [
            ("router", self.url),
            ("state", "closed" if self.closed else self.client.state),
            ("patterns", ", ".join(self.patterns) or "none yet: %rivulet subscribe blob.*"),
            ("events", f"{self.received} received, {len(self.events)} kept"),
            ("cursor", "none" if cursor is None else f"{cursor.stream} {cursor.seq}"),
        ]
        if (error := self.client.error) is not None:
            rows.append(("error", f"{error.code}: {error}"))
        for patterns, cell in self.cells.items():
            rows.append((f"on {patterns}", f"{cell.runs} runs, {cell.errors} errors"))
        return Table(("", ""), rows)

    def table(self, most: int = 10) -> Table:
        """The last events, as a table."""
        return Table.of_events(list(self.events)[-most:] if most > 0 else [])

    def _repr_html_(self) -> str:
        return self.status()._repr_html_()

    def __repr__(self) -> str:
        return repr(self.status())

    def _read(self, reader: SyncReader[Any], before: Sequence[Pattern]) -> None:
        """A thread: hands each event to the kernel's loop, and waits until that has done with it."""
        try:
            for event in reader:
                if any(pattern.matches(event.type) for pattern in before):
                    continue
                done: Future[None] = Future()
                self._arrivals.put((event, done))
                self._loop.call_soon_threadsafe(self._take)
                done.result()
        except (RivuletError, CancelledError) as error:
            if not self.closed:
                log.warning("no more events of these patterns: %s", error)
        except RuntimeError:
            # The kernel's loop has ended.
            pass

    def _take(self) -> None:
        """In the kernel's thread: handles what the readers have handed over."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._arrived(*self._arrivals.get_nowait())

    def _wait_for(self, call: Callable[[], None], what: str) -> None:
        """Calls what waits for the router, and handles events meanwhile: the answer is behind them."""
        fault: list[BaseException] = []

        def run() -> None:
            try:
                call()
            except BaseException as error:
                fault.append(error)

        thread = threading.Thread(target=run, name="rivulet-wait", daemon=True)
        thread.start()
        ends = time.monotonic() + ANSWERS_WITHIN
        while thread.is_alive() and time.monotonic() < ends:
            with contextlib.suppress(queue.Empty):
                self._arrived(*self._arrivals.get(timeout=0.02))
        if thread.is_alive():
            raise RivuletError("UNAVAILABLE", f"{what} within {ANSWERS_WITHIN:g} s")
        if fault:
            raise fault[0]

    def _arrived(self, event: Any, done: "Future[None]") -> None:
        try:
            if self.closed:
                return
            self.events.append(event)
            self.received += 1
            self.rates.count(event.type, time.monotonic())
            for cell in list(self.cells.values()):
                if cell.wants(event.type):
                    cell.run(event)
            self._news.set()
        finally:
            with contextlib.suppress(Exception):
                done.set_result(None)
