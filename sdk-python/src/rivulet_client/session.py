"""One session, from an open socket to its end."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeVarTuple

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from rivulet_client._generated import (
    SERVER_FRAMES,
    ClientFrame,
    Connected,
    ConnectedFrame,
    DrainingFrame,
    ErrorFrame,
    GapFrame,
    HeartbeatFrame,
    PongFrame,
    ReplyFrame,
    ResumedFrame,
    SubscribedFrame,
    TokenExpiringFrame,
    TokenRefreshedFrame,
    UnsubscribedFrame,
)
from rivulet_client.backoff import Backoff
from rivulet_client.commands import Commands
from rivulet_client.cursor import Cursor
from rivulet_client.delivery import Delivery
from rivulet_client.errors import RivuletError
from rivulet_client.protocol import Decoder, Rejected, encode, parse, split

Arguments = TypeVarTuple("Arguments")

LONGEST = (2**31 - 1) / 1000
"""The most seconds that anything is waited for."""
_CONNECTED_WITHIN = 10.0
_GOING_AWAY = 1001
_INDEX = re.compile(r"events\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a session ended."""

    code: int
    """The close code; 1006 where there was none."""
    reason: str = ""
    """What stood beside it."""
    error: RivuletError | None = None
    """What the router said was wrong, before."""
    lasted: float | None = None
    """Seconds since `connected`; None if that never came."""
    goes_on: bool = False
    """It was ended on this side, to be gone on with at once."""


class Session:
    """What is said on one socket."""

    def __init__(
        self,
        socket: ClientConnection,
        delivery: Delivery,
        commands: Commands,
        decoder: Decoder[Any],
        asked: list[str],
        ask_token: Callable[[], Awaitable[str]] | None,
        on_connected: Callable[[], None],
    ) -> None:
        """`asked` are the patterns of the query; `ask_token` is None where there is only one token."""
        self._socket = socket
        self._delivery = delivery
        self._commands = commands
        self._decoder = decoder
        self._asked = asked
        self._ask_token = ask_token
        self._on_connected = on_connected
        self._heard = monotonic()
        self._patience = _CONNECTED_WITHIN
        self._began: float | None = None
        self._connected: Connected | None = None
        self._in_force: list[str] = []
        self._patterns_changed = asyncio.Event()
        self._questions = 0
        self._answers: dict[str, asyncio.Future[RivuletError | None]] = {}
        self._error: RivuletError | None = None
        self._goes_on = False
        self._drains = False
        self._tasks: list[asyncio.Task[None]] = []
        self._group = asyncio.TaskGroup()
        self._refreshing: asyncio.Task[None] | None = None

    async def run(self) -> Ended:
        """Receives until the end, and does all that goes on beside."""
        self._delivery.changed = self._patterns_changed.set
        try:
            async with self._group:
                self._beside(self._watch)
                try:
                    closed = await self._receive()
                finally:
                    for task in self._tasks:
                        task.cancel()
        finally:
            self._delivery.changed = lambda: None
        received = closed.rcvd if closed is not None else None
        if self._drains and received is not None and received.code == _GOING_AWAY:
            # The node was a moment faster than our own leave, at the time that both agreed on.
            self._goes_on = True
        return Ended(
            code=received.code if received is not None else 1006,
            reason=received.reason if received is not None else "",
            error=self._error,
            lasted=None if self._began is None else monotonic() - self._began,
            goes_on=self._goes_on,
        )

    async def _receive(self) -> ConnectionClosed | None:
        delivery = self._delivery
        while not self._goes_on:
            try:
                frame = await self._socket.recv(decode=False)
            except ConnectionClosed as closed:
                return closed
            items = parse(frame)
            pieces = split(frame) if delivery.wants_raw and len(items) != 1 else [frame] * len(items)
            for item, piece in zip(items, pieces, strict=True):
                if isinstance(item, Rejected):
                    delivery.report(item.error)
                elif item["type"] in SERVER_FRAMES:
                    await self._frame(item)
                elif self._connected is not None:
                    await delivery.event(item, piece)
                if self._goes_on:
                    break
            self._heard = monotonic()
        return None

    async def _frame(self, fields: dict[str, Any]) -> None:
        delivery = self._delivery
        frame = self._decoder.frame(fields)
        match frame:
            case Rejected():
                delivery.report(frame.error)
            case ConnectedFrame():
                self._begin(frame.data)
            case SubscribedFrame() | UnsubscribedFrame():
                delivery.passed(frame.data.seq)
                self._put_in_force(frame.data.events)
                self._answer(frame.id, None)
            case ReplyFrame():
                self._commands.answered(frame.id, frame.data)
            case ErrorFrame():
                self._fault(frame.id, RivuletError.of(frame.data))
            case PongFrame() | HeartbeatFrame():
                delivery.passed(frame.data.seq)
            case ResumedFrame():
                delivery.passed(frame.data.to_seq)
            case TokenRefreshedFrame():
                self._answer(frame.id, None)
            case TokenExpiringFrame():
                if self._ask_token is not None and (self._refreshing is None or self._refreshing.done()):
                    self._refreshing = self._beside(self._refresh, self._ask_token)
            case GapFrame():
                await delivery.gap(frame.data)
            case DrainingFrame():
                delivery.passed(frame.data.seq)
                self._drains = True
                self._beside(self._leave, frame.data.reconnect_after_ms / 1000)

    def _begin(self, connected: Connected) -> None:
        delivery = self._delivery
        if delivery.cursor is None and connected.stream is not None and connected.seq is not None:
            delivery.cursor = Cursor(connected.stream, connected.seq)
        self._connected = connected
        self._began = monotonic()
        self._patience = min(LONGEST, 2 * connected.heartbeat_ms / 1000)
        self._error = None
        self._put_in_force(connected.events)
        self._on_connected()
        self._beside(self._agree, connected)
        self._beside(self._send_commands, connected.limits.max_message_bytes)

    def _put_in_force(self, patterns: list[str]) -> None:
        self._in_force = patterns
        # Not always by our asking: a new token may permit less.
        self._patterns_changed.set()

    def _fault(self, answered: str | None, error: RivuletError) -> None:
        if answered is not None:
            if not self._commands.answered(answered, error) and not self._answer(answered, error):
                # Of a command that nobody waits for any more.
                self._delivery.report(error)
        elif self._connected is None:
            # A refusal; the close says what is to be done.
            self._error = error
        elif (error.field or "").startswith("events"):
            # The whole query counts as not given, so nothing may move on: once more, from the same position.
            self._refuse(self._asked, error)
            self._goes_on = True
        else:
            if error.code != "PROCESSOR_FAILED":
                self._error = error
            self._delivery.report(error)

    def _refuse(self, asked: list[str], error: RivuletError) -> None:
        """The router refuses what was asked, or the one of them that it names."""
        most = self._connected.limits.max_patterns if self._connected is not None else 0
        index = _INDEX.fullmatch(error.field or "")
        if index is not None and int(index[1]) < len(asked):
            refused = [asked[int(index[1])]]
        elif error.code == "TOO_MANY_PATTERNS":
            refused = asked[most:]
        else:
            refused = asked
        for pattern in refused:
            self._delivery.refuse(pattern, error)

    # What goes on beside

    def _beside(
        self, work: Callable[[*Arguments], Coroutine[Any, Any, None]], *arguments: *Arguments
    ) -> asyncio.Task[None]:
        async def until_closed() -> None:
            # Whoever finds the socket closed just ends: the receiver knows why it is.
            with suppress(ConnectionClosed):
                await work(*arguments)

        task = self._group.create_task(until_closed())
        self._tasks.append(task)
        return task

    async def _watch(self) -> None:
        """Gives the socket up when nothing is heard for too long."""
        while True:
            if self._delivery.waits_for_room:
                # It is us who don't read.
                self._heard = monotonic()
            left = self._heard + self._patience - monotonic()
            if left <= 0:
                self._socket.transport.abort()
                return
            await asyncio.sleep(left)

    async def _agree(self, connected: Connected) -> None:
        """Keeps the router's patterns those that the readers want: adds first, then takes away."""
        most = connected.limits.max_patterns
        while True:
            self._patterns_changed.clear()
            wanted = self._delivery.wanted()
            missing = [pattern for pattern in wanted if pattern not in self._in_force]
            needless = [pattern for pattern in self._in_force if pattern not in wanted]
            if len(wanted) > most:
                too_many = f"a session holds at most {most} patterns"
                self._refuse(wanted, RivuletError("TOO_MANY_PATTERNS", too_many, "events"))
                continue
            if missing and len(self._in_force) + len(missing) > most:
                # No room to add first; the query of a new session sets all at once.
                await self._go_on()
                return
            if not missing and not needless:
                self._delivery.in_force(wanted)
                await self._patterns_changed.wait()
                continue
            refused = await self._ask(
                {"type": "subscribe", "events": missing}
                if missing
                else {"type": "unsubscribe", "events": needless}
            )
            if refused is None:
                continue
            if refused.retry_after is not None:
                await asyncio.sleep(min(LONGEST, refused.retry_after))
            elif missing:
                self._refuse(missing, refused)
            else:
                self._delivery.report(refused)
                await self._patterns_changed.wait()

    async def _send_commands(self, most_bytes: int) -> None:
        while True:
            pending = await self._commands.next()
            if len(pending.text.encode()) > most_bytes:
                too_large = f"a command has at most {most_bytes} bytes"
                self._commands.answered(pending.id, RivuletError("TOO_LARGE", too_large))
            else:
                await self._socket.send(pending.text)

    async def _refresh(self, ask_token: Callable[[], Awaitable[str]]) -> None:
        backoff = Backoff()
        while True:
            try:
                token = await ask_token()
            except RivuletError as error:
                self._delivery.report(error)
            else:
                refused = await self._ask({"type": "refresh_token", "token": token})
                if refused is None:
                    return
                self._delivery.report(refused)
            await asyncio.sleep(1 + backoff.next())

    async def _leave(self, after: float) -> None:
        await asyncio.sleep(min(LONGEST, after))
        await self._go_on()

    async def _go_on(self) -> None:
        self._goes_on = True
        await self._socket.close()

    async def _ask(self, frame: ClientFrame) -> RivuletError | None:
        """Sends a frame and waits until it is answered. Returns why it was refused, if so."""
        self._questions += 1
        question = f"rivulet-{self._questions}"
        answer: asyncio.Future[RivuletError | None] = asyncio.get_running_loop().create_future()
        self._answers[question] = answer
        frame["id"] = question
        try:
            await self._socket.send(encode(frame))
            return await answer
        finally:
            del self._answers[question]

    def _answer(self, question: str | None, error: RivuletError | None) -> bool:
        answer = self._answers.get(question) if question is not None else None
        if answer is None or answer.done():
            return False
        answer.set_result(error)
        return True
