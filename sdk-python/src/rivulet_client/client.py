"""The client: what programs call."""

import asyncio
import inspect
import ssl as tls
import uuid
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Never, Self

from pydantic import ValidationError

from rivulet_client._generated import Event, Gap
from rivulet_client._limits import RECEIVED
from rivulet_client._wire import Envelope, UnknownEvent
from rivulet_client.commands import Commands, Pending
from rivulet_client.connection import Connection, State, Token
from rivulet_client.cursor import Cursor, CursorStore, checked
from rivulet_client.delivery import Delivery
from rivulet_client.errors import RivuletError
from rivulet_client.family import Command, Family, Reply
from rivulet_client.pattern import Pattern
from rivulet_client.protocol import Decoder, encode
from rivulet_client.reader import Reader
from rivulet_client.session import LONGEST

if TYPE_CHECKING:
    # Checkers bring it along; at run time its default means nothing.
    from typing_extensions import TypeVar, Unpack

    from rivulet_client.sync import Options, SyncClient

    E = TypeVar("E", bound=Envelope, default=Never)
    S = TypeVar("S", bound=Envelope, default=Never)
else:
    from typing import TypeVar

    E = TypeVar("E", bound=Envelope)
    S = TypeVar("S", bound=Envelope)

_SAVE_EVERY = 0.25


class Client(Generic[E]):
    """A connection to a router that is kept up, over restarts and networks that come and go.

    ```python
    async with Client("http://127.0.0.1:8010", token="ada") as client:
        async for event in client.events("blob.*"):
            print(event)
    ```

    It connects when the `async with` begins, which waits for nothing, and is closed when that ends. Whatever
    breaks, it comes back by itself and goes on where it was: readers get every event that the stream keeps,
    once and in order; what the stream no longer has is told by `on_gap`. It belongs to one event loop.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token,
        families: Sequence[Family[E]] | None = None,
        on_gap: Callable[[Gap], Awaitable[None] | None] | None = None,
        on_unknown: Callable[[UnknownEvent], Awaitable[None] | None] | None = None,
        on_error: Callable[[Exception], object] | None = None,
        on_state: Callable[[State], object] | None = None,
        cursor: Cursor | None = None,
        cursor_store: CursorStore | None = None,
        device: str | None = None,
        command_queue: int = 100,
        buffer: int = 1000,
        ssl: tls.SSLContext | None = None,
    ) -> None:
        """A client that is not connected yet. Raises `ValueError` for a wrong URL, families or cursor.

        Args:
            url: The router, `http(s)://` or `ws(s)://`; without a path `/api/v1/ws` is added.
            token: The token, or a function or coroutine function that brings one, asked at each connect and
                before the token ends. A function that waits should be a coroutine: it runs in the event loop.
            families: Own event types and commands, as `rivulet codegen --lang python` writes them.
            on_gap: Called, and awaited, where events are gone for good, before any later one is handed on:
                the place to read one's state anew. Absent, a gap is logged as a warning.
            on_unknown: Called, and awaited, with every event whose type no family has, and with one that is
                not of its type's model, as one stored under an earlier schema may be. Readers whose pattern
                matches get it too.
            on_error: Called with what no call of the program's own brings: frames that can't be read, a token
                that could not be had, refused patterns that nobody reads, what other hooks raised, and, once,
                an outage that outlasts the first try. Absent, it is logged as a warning.
            on_state: Called with each new `state`.
            cursor: Where to go on from; else the store's position, else the stream's head.
            cursor_store: Keeps the position over restarts of the program: saved at most every 250 ms and at
                the end, never beyond an event that a reader has not done with.
            device: Names the owner of this connection among those of its user, at most 64 characters: a new
                connection with the same one takes the place of the old one. By default a random one.
            command_queue: How many commands may wait to be sent, offline above all.
            buffer: How many events wait for a reader before the client stops to read from its socket; 64
                times as many while a command waits for its answer, which comes behind them.
            ssl: For `wss://`, in place of the system's root certificates.
        """
        if command_queue < 1 or buffer < 1:
            raise ValueError("`command_queue` and `buffer` are at least 1")
        self._decoder: Decoder[E] = Decoder(families or ())
        self._delivery = Delivery(self._decoder, on_gap, on_unknown, on_error)
        self._delivery.cursor = None if cursor is None else checked(cursor)
        self._commands = Commands(command_queue, self._delivery.recheck)
        self._delivery.asking = lambda: self._commands.asking
        self._on_state = on_state
        self._cursor_store = cursor_store
        self._buffer = buffer
        self._connection = Connection(
            url,
            token,
            device or uuid.uuid4().hex,
            self._delivery,
            self._commands,
            self._decoder,
            ssl,
            self._state_changed,
        )
        self._saved: Cursor | None = None
        self._state_news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @staticmethod
    def sync(
        url: str, *, token: Token, families: "Sequence[Family[S]] | None" = None, **options: "Unpack[Options]"
    ) -> "SyncClient[S]":
        """The same client for programs without an event loop. It takes what `Client` takes."""
        from rivulet_client.sync import SyncClient

        return SyncClient(url, token=token, families=families, **options)

    # What it is doing

    @property
    def state(self) -> State:
        """What it is doing now."""
        return self._connection.state

    @property
    def error(self) -> RivuletError | None:
        """Why it is not connected; None where it is, or where nothing went wrong yet."""
        return self._connection.error

    @property
    def cursor(self) -> Cursor | None:
        """Up to where everything was handed to the readers; None before the first `connected`, and where the
        router has no stream."""
        return self._delivery.cursor

    async def ready(self) -> None:
        """Waits until it is connected. Raises `RivuletError` once it is stopped or closed."""
        while self.state != "connected":
            self._raise_if_over()
            self._state_news.clear()
            await self._state_news.wait()

    async def reconnect(self) -> None:
        """Tries again now, where it waits or is `stopped`. Raises `CLOSED` once it is closed."""
        if self.state == "closed":
            self._raise_if_over()
        self._connection.reconnect()

    # Events

    def events(self, *patterns: str) -> Reader[Event | E]:
        """Reads the events whose type matches one of the patterns: `blob.created`, `blob.*`, `processor.>`,
        or `*` for all that the token permits.

        Raises `InvalidPattern` for what is no pattern, and `ValueError` where there is none.
        """
        return self._reader(patterns, raw=False)

    def raw(self, *patterns: str) -> Reader[bytes]:
        """As `events`, but each as the bytes of its JSON object, undecoded and unchecked: for hot loops."""
        return self._reader(patterns, raw=True)

    def _reader(self, patterns: tuple[str, ...], raw: bool) -> Reader[Any]:
        if not patterns:
            raise ValueError("name one pattern at least: `*` is all")
        if self.state == "closed":
            self._raise_if_over()
        queue = self._delivery.add([Pattern(text) for text in patterns], raw, self._buffer)
        return Reader(queue, self._over)

    # Commands

    async def command(
        self, request: Command[Reply], *, deadline: float = 10.0, command_id: str | None = None
    ) -> Reply:
        """Asks a backend, and returns its reply.

        It waits for a connection where there is none, and is sent again, under the same id, where the
        connection breaks before the answer: a backend gets it once. Cancelling gives it up.

        Args:
            request: The command.
            deadline: Seconds until it is given up.
            command_id: At most 64 characters. Only to ask again what ended with `OUTCOME_UNKNOWN`, whose
                `extra["id"]` it is: if it was done, the same reply comes. By default a new one.

        Raises:
            RivuletError: What the router or the backend answered; `COMMAND_TIMEOUT`: not sent by the
                deadline, nothing happened; `RATE_LIMITED`: the same, as there were too many (one too many is
                sent again, slower, until then); `OUTCOME_UNKNOWN`: sent, and not answered by the deadline;
                `QUEUE_FULL`: too many wait to be sent; `CLOSED`; why the client is stopped;
                `INVALID_MESSAGE`: the reply is not what the command brings.
        """
        self._raise_if_over()
        command_id = command_id or uuid.uuid4().hex
        frame = encode({"type": request.command_name, "id": command_id, "data": request})
        pending = Pending(command_id, frame, asyncio.get_running_loop().create_future())
        self._commands.add(pending)
        try:
            async with asyncio.timeout(min(LONGEST, deadline)):
                reply = await pending.answer
        except TimeoutError:
            extra = {"id": command_id}
            if pending.sent_at is None and pending.refused is not None:
                raise pending.refused from None
            if pending.sent_at is None:
                late = "the deadline passed before it was sent: nothing happened"
                raise RivuletError("COMMAND_TIMEOUT", late, extra=extra) from None
            late = "it was sent, and no answer came by the deadline"
            raise RivuletError("OUTCOME_UNKNOWN", late, extra=extra) from None
        finally:
            self._commands.forget(pending)
        try:
            return request.reply_model().model_validate(reply, context=RECEIVED)
        except ValidationError as error:
            wrong = f"the reply is no {request.reply_model().__name__}: {error}"
            raise RivuletError("INVALID_MESSAGE", wrong) from error

    # From the beginning to the end

    async def __aenter__(self) -> Self:
        if self.state == "closed" or self._tasks:
            raise RuntimeError("a client is entered once")
        store = self._cursor_store
        if store is not None and self._delivery.cursor is None:
            loaded = store.load()
            if inspect.isawaitable(loaded):
                loaded = await loaded
            self._delivery.cursor = self._saved = None if loaded is None else checked(loaded)
        self._tasks.append(asyncio.create_task(self._connection.run(), name="rivulet"))
        if store is not None:
            self._tasks.append(asyncio.create_task(self._save_now_and_then(store), name="rivulet-cursor"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection, the readers and the commands, and saves the cursor."""
        if self.state == "closed":
            return
        self._connection.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._commands.fail_all(RivuletError("CLOSED", "the client is closed"))
        if self._cursor_store is not None:
            await self._save(self._cursor_store)
        self._delivery.close()

    def _over(self) -> RivuletError | None:
        """Why nothing is to be expected, unless `reconnect` is called."""
        return self.error if self.state == "stopped" else None

    def _raise_if_over(self) -> None:
        if self.state == "closed":
            raise RivuletError("CLOSED", "the client is closed")
        if (error := self._over()) is not None:
            raise error.with_traceback(None)

    def _state_changed(self, state: State) -> None:
        self._state_news.set()
        if state == "stopped":
            self._delivery.tell_all()
        if self._on_state is not None:
            try:
                self._on_state(state)
            except Exception as error:
                self._delivery.report(error)

    async def _save_now_and_then(self, store: CursorStore) -> None:
        while True:
            await asyncio.sleep(_SAVE_EVERY)
            await self._save(store)

    async def _save(self, store: CursorStore) -> None:
        cursor = self._delivery.done_with
        if cursor is None or cursor == self._saved:
            return
        try:
            saved = store.save(cursor)
            if inspect.isawaitable(saved):
                await saved
            self._saved = cursor
        except Exception as error:
            self._delivery.report(error)
