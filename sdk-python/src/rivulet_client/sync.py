"""The client for programs without an event loop: the same code, in a thread of its own."""

import asyncio
import ssl as tls
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Never, Self, TypedDict

from rivulet_client._generated import Event, Gap
from rivulet_client._wire import Envelope, UnknownEvent
from rivulet_client.client import Client
from rivulet_client.connection import State, Token
from rivulet_client.cursor import Cursor, CursorStore
from rivulet_client.errors import RivuletError
from rivulet_client.family import Command, Family, Reply
from rivulet_client.reader import Reader

if TYPE_CHECKING:
    from typing_extensions import TypeVar, Unpack

    E = TypeVar("E", bound=Envelope, default=Never)
else:
    from typing import TypeVar

    E = TypeVar("E", bound=Envelope)

T = TypeVar("T")

_LEAVES_WITHIN = 10.0


class Options(TypedDict, total=False):
    """What `Client` takes beside url, token and families; its documentation says what each is."""

    on_gap: Callable[[Gap], Awaitable[None] | None] | None
    on_unknown: Callable[[UnknownEvent], Awaitable[None] | None] | None
    on_error: Callable[[Exception], object] | None
    on_state: Callable[[State], object] | None
    cursor: Cursor | None
    cursor_store: CursorStore | None
    device: str | None
    command_queue: int
    buffer: int
    ssl: tls.SSLContext | None


class SyncReader(Generic[T]):
    """An iterator of events. What `Reader` says holds for it too."""

    def __init__(self, reader: Reader[T], thread: "_LoopThread", client: "SyncClient[Any]") -> None:
        """For `SyncClient` alone."""
        self._reader = reader
        self._thread = thread
        # Keeps the client alive for as long as somebody reads.
        self._client = client
        self._batch: list[T] = []

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        if not self._batch:
            # One step into the other thread for all that wait there.
            self._batch = self._thread.run(self._reader.batch())
            if not self._batch:
                raise StopIteration
            self._batch.reverse()
        return self._batch.pop()

    def ready(self) -> None:
        """As `Reader.ready`."""
        self._thread.run(self._reader.ready())

    def close(self) -> None:
        """Ends it; what still waits is given up."""
        self._batch.clear()
        self._thread.call(self._reader.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class SyncClient(Generic[E]):
    """A `Client` in a thread with an event loop of its own. It connects when it is made.

    ```python
    for event in Client.sync("http://127.0.0.1:8010", token="ada").events("blob.*"):
        print(event)
    ```

    Close it, use it in a `with`, or forget it: it ends with its last reader. Any thread may call it. Hooks
    and a token's callback run in its thread.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token,
        families: Sequence[Family[E]] | None = None,
        **options: "Unpack[Options]",
    ) -> None:
        """Takes what `Client` takes, and raises what that raises."""
        # Of the thread, which takes leave of it when nobody holds this object any more.
        clients: list[Client[E]] = []
        self._thread = _LoopThread(clients)
        self._end = weakref.finalize(self, self._thread.end)

        async def enter() -> Client[E]:
            client = Client(url, token=token, families=families, **options)
            clients.append(client)
            return await client.__aenter__()

        try:
            self._client = self._thread.run(enter())
        except BaseException:
            self._end()
            raise

    @property
    def state(self) -> State:
        """What it is doing now."""
        return self._client.state

    @property
    def error(self) -> RivuletError | None:
        """Why it is not connected."""
        return self._client.error

    @property
    def cursor(self) -> Cursor | None:
        """Up to where everything was handed to the readers."""
        return self._client.cursor

    def ready(self) -> None:
        """Waits until it is connected. Raises `RivuletError` once it is stopped or closed."""
        self._thread.run(self._client.ready())

    def reconnect(self) -> None:
        """Tries again now, where it waits or is `stopped`."""
        self._thread.run(self._client.reconnect())

    def events(self, *patterns: str) -> SyncReader[Event | E]:
        """As `Client.events`."""
        return SyncReader(self._thread.call(lambda: self._client.events(*patterns)), self._thread, self)

    def raw(self, *patterns: str) -> SyncReader[bytes]:
        """As `Client.raw`."""
        return SyncReader(self._thread.call(lambda: self._client.raw(*patterns)), self._thread, self)

    def command(
        self, request: Command[Reply], *, deadline: float = 10.0, command_id: str | None = None
    ) -> Reply:
        """As `Client.command`."""
        return self._thread.run(self._client.command(request, deadline=deadline, command_id=command_id))

    def close(self) -> None:
        """Ends the connection, the readers, the commands and the thread, and saves the cursor."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _LoopThread:
    """A thread with an event loop, for as long as somebody needs it."""

    def __init__(self, clients: Sequence[Client[Any]]) -> None:
        """Runs; at its end it closes the clients."""
        self._clients = clients
        self._loop = asyncio.new_event_loop()
        self._over = False
        # It must not keep a program from its end.
        self._thread = threading.Thread(target=self._main, name="rivulet", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine there and waits for what comes of it. Raises `CLOSED` once it has ended."""
        if self._over:
            work.close()
            raise RivuletError("CLOSED", "the client is closed")
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C, above all: nobody waits for it any more.
            future.cancel()
            raise

    def call(self, function: Callable[[], T]) -> T:
        """Calls a function there."""

        async def call() -> T:
            return function()

        return self.run(call())

    def end(self) -> None:
        """Ends it, and waits for that."""
        self._over = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        # The collector may call this in the very thread.
        if self._thread is not threading.current_thread():
            self._thread.join(_LEAVES_WITHIN)

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        for client in self._clients:
            self._loop.run_until_complete(client.close())
        # Whoever waited for something of it has been told by now; the rest is given up.
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.close()
