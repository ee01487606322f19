"""Answering the commands of clients."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError
from pydantic import ValidationError
from pydantic_core import to_json

from rivulet_client._limits import RECEIVED
from rivulet_client._wire import Model, read_json, write_json
from rivulet_client.errors import InvalidUserId
from rivulet_client.family import Command
from rivulet_client.subject import unescape_user_id

log = logging.getLogger("rivulet_client.nats")

Reply = TypeVar("Reply", bound=Model)
Request = TypeVar("Request", bound=Command[Any])
Request_co = TypeVar("Request_co", bound=Command[Any], covariant=True)


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks. The router vouches for it; whether what is asked for is theirs, the backend checks."""

    user: str
    """The user's id."""
    command_id: str | None
    """The client's own id of the command, if it gave one."""


class Refused(Exception):  # noqa: N818 (what happens to the command)
    """Raised in a command's function: the client gets this error.

    `raise Refused("NOT_FOUND", "there is no such blob", blob_id=request.blob_id)`: the code is one of the
    router's or your own, and further fields are passed on as they are.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        field: str | None = None,
        retry_after: float | None = None,
        **fields: Any,
    ) -> None:
        """`field`: the field at fault, such as `data.content`. `retry_after`: in seconds."""
        super().__init__(message)
        told = {"code": code, "message": message, "field": field, "retry_after": retry_after}
        self.error = {name: value for name, value in told.items() if value is not None} | fields


class Backend:
    """Answers commands, each with the function that was given for it.

    As a program has it:

        backend = Backend(nats)

        @backend.command(CreateBlob)
        async def create(request: CreateBlob, asker: Asker) -> CreateBlobReply: ...

        async with backend:
            await stopped.wait()
    """

    def __init__(
        self,
        connection: Client,
        *,
        queue: str = "backend",
        concurrency: int = 100,
        waiting: int = 1_000,
        remembered: int = 10_000,
        grace: float = 10.0,
    ) -> None:
        """
        `queue`: of all backends with this name, one gets each command. `concurrency`: commands worked on at a
        time; up to `waiting` more wait for their turn, and beyond that they are answered BACKEND_UNAVAILABLE.
        `remembered`: answers kept for commands that are asked again with their id; the oldest goes. `grace`:
        seconds that commands under way still have when the backend is closed.
        """
        self._connection = connection
        self._queue = queue
        self._most = concurrency + waiting
        self._turn = asyncio.Semaphore(concurrency)
        self._remembered = remembered
        self._grace = grace
        self._commands: dict[str, _Command] = {}
        self._subscriptions: list[Subscription] = []
        self._answering: set[asyncio.Task[None]] = set()
        # By command, user and command id: a repeat gets the first answer, even while that is being made.
        self._answers: OrderedDict[tuple[str, str, str], asyncio.Task[bytes]] = OrderedDict()

    def command(self, request: type[Request]) -> "Registration[Request]":
        """Says, as a decorator, which function answers a command: `async (request, asker) -> reply`.

        What does not fit the request's model never comes to it: it is answered INVALID_MESSAGE. An exception
        other than `Refused` is logged, and answered COMMAND_FAILED without its text.
        """
        return Registration(self._add, request)

    async def __aenter__(self) -> "Backend":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Begins to answer: when this returns, the server has heard of it."""
        if self._subscriptions:
            raise RuntimeError("the backend was started already")
        for name in self._commands:
            self._subscriptions.append(
                await self._connection.subscribe(f"command.{name}", queue=self._queue, cb=self._asked)
            )
        await self._settle()

    async def close(self) -> None:
        """Takes no more commands, and waits `grace` seconds for those under way. The connection stays open.

        What is still not done then is cancelled and not answered: of that the client is told OUTCOME_UNKNOWN.
        """
        subscriptions, self._subscriptions = self._subscriptions, []
        try:
            for subscription in subscriptions:
                # nats-py's own drain sends this after its PING, and drops what comes between.
                await self._connection._send_unsubscribe(subscription._id)  # pyright: ignore[reportPrivateUsage]
            await self._settle()
            for subscription in subscriptions:
                await subscription.drain()  # type: ignore[no-untyped-call]
        except (NatsError, TimeoutError) as error:
            log.warning("commands on their way here may have no answer: %r", error)
        if self._answering:
            _, late = await asyncio.wait(self._answering, timeout=self._grace)
            for task in late:
                task.cancel()
            if late:
                log.warning("%d commands were not done in %g s and are cancelled", len(late), self._grace)
                await asyncio.wait(late)
        try:
            await self._settle()
        except (NatsError, TimeoutError) as error:
            log.warning("the last answers may be lost: %r", error)

    async def _settle(self) -> None:
        """Returns when the server has all that was said to it."""
        # nats-py writes the PING of a flush past what waits to be written; that of the second follows it.
        await self._connection.flush()
        await self._connection.flush()

    def _add(self, command: "_Command") -> None:
        name = command.request.command_name
        if self._subscriptions:
            raise RuntimeError(f"{name}: commands are given before the backend starts")
        if name in self._commands:
            raise ValueError(f"two functions answer {name}")
        self._commands[name] = command

    async def _asked(self, message: Msg) -> None:
        # Never waits: what nats-py would hold back has no answer when its queue is full.
        if len(self._answering) >= self._most:
            busy = Refused("BACKEND_UNAVAILABLE", "too much to do", retry_after=5.0)
            await _respond(message, _refusal(busy))
            return
        task = asyncio.create_task(self._answer(message))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, message: Msg) -> None:
        headers = message.headers or {}
        command_id = headers.get("Rivulet-Command-Id")
        try:
            asker = Asker(unescape_user_id(headers.get("Rivulet-User", "")), command_id)
        except InvalidUserId as error:
            log.warning("%s: not of the router: Rivulet-User: %s", message.subject, error)
            await _respond(message, _refusal(Refused("INVALID_MESSAGE", f"Rivulet-User: {error}")))
            return
        if command_id is None:
            await _respond(message, await self._run(message, asker))
            return
        key = (message.subject, asker.user, command_id)
        if key not in self._answers:
            self._answers[key] = asyncio.create_task(self._run(message, asker))
            while len(self._answers) > self._remembered:
                self._answers.popitem(last=False)
        await _respond(message, await self._answers[key])

    async def _run(self, message: Msg, asker: Asker) -> bytes:
        name = message.subject.removeprefix("command.")
        command = self._commands[name]
        async with self._turn:
            try:
                reply = await command.answer(_read(command.request, message.data), asker)
                # Not every backend has a type checker.
                if not isinstance(reply, command.reply):
                    got, due = type(reply).__name__, command.reply.__name__
                    raise TypeError(f"{name} is answered with {due}, not {got}")
                return b'{"data":%b}' % write_json(reply)
            except Refused as refused:
                return _refusal(refused)
            except Exception:
                # Its text may tell of what is no client's business.
                log.exception("%s of %s failed", name, asker.user)
                return _refusal(Refused("COMMAND_FAILED", "the backend failed at it"))


class Registration(Generic[Request_co]):
    """What `Backend.command` gives: a decorator for a function that takes this request."""

    def __init__(self, add: "Callable[[_Command], None]", request: type[Request_co]) -> None:
        self._add = add
        self._request = request

    def __call__(
        self: "Registration[Command[Reply]]", answer: Callable[[Request_co, Asker], Awaitable[Reply]]
    ) -> Callable[[Request_co, Asker], Awaitable[Reply]]:
        """Registers the function, and leaves it as it is."""
        self._add(_Command(self._request, self._request.reply_model(), answer))
        return answer


@dataclass(frozen=True, slots=True)
class _Command:
    request: type[Command[Any]]
    reply: type[Model]
    answer: Callable[[Any, Asker], Awaitable[Model]]


def _read(model: type[Command[Any]], payload: bytes) -> Command[Any]:
    try:
        data = read_json(payload)
    except ValueError:
        raise Refused("INVALID_JSON", "not JSON") from None
    if not isinstance(data, dict):
        raise Refused("INVALID_MESSAGE", "a command's data is one JSON object", field="data")
    try:
        return model.model_validate(data, context=RECEIVED)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
        raise Refused("INVALID_MESSAGE", first["msg"], field="data" + "".join(steps)) from None


def _refusal(refused: Refused) -> bytes:
    try:
        return write_json({"error": refused.error})
    except ValueError:
        # A field that JSON has no form for is said as text.
        return to_json({"error": refused.error}, fallback=str)


async def _respond(message: Msg, answer: bytes) -> None:
    if not message.reply:
        log.warning("%s: published, not asked: nobody waits for the answer", message.subject)
        return
    try:
        try:
            await message.respond(answer)
        except MaxPayloadError:
            log.error("%s: an answer of %d bytes is more than NATS takes", message.subject, len(answer))
            await message.respond(_refusal(Refused("COMMAND_FAILED", "the answer is too large")))
    except NatsError as error:
        # The client is told OUTCOME_UNKNOWN.
        log.warning("%s: the answer could not be sent: %r", message.subject, error)
