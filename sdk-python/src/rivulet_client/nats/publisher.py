"""Publishing events, and knowing that the stream has them."""

import asyncio
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, Literal, cast

from nats.aio.client import Client
from nats.errors import ConnectionClosedError, ConnectionDrainingError, MaxPayloadError
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeout
from nats.js.errors import APIError
from pydantic import BaseModel

from rivulet_client._generated import ErrorCode
from rivulet_client._generated import family as built_in
from rivulet_client._wire import read_json, write_json
from rivulet_client.errors import RivuletError
from rivulet_client.family import Family
from rivulet_client.subject import escape_user_id

# One attempt waits so many seconds for its acknowledgement; between attempts are these pauses, the last one
# again and again.
_ATTEMPT = 5.0
_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)

# As many bytes as an event may have on a router that is configured by default (`sessions.max_event_bytes`).
_MOST_BYTES = 256 * 1024

_EVENT_TYPE = re.compile(r"(?=.{1,128}\Z)[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+){0,7}")
_ONE_WORD = re.compile("[!-~]+")
# A token that the codec of user ids never writes.
_EVERYONE = "==everyone"


@dataclass(frozen=True, slots=True)
class Published:
    """An event that the stream has."""

    stream: str
    """The stream's name."""
    seq: int
    """Its sequence there."""
    duplicate: bool
    """Whether its message id was there already: it was not stored again."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An event to be published, and for whom: exactly one of `user`, `users` and `everyone`."""

    data: BaseModel | Mapping[str, Any]
    """An event's data. A mapping of a known type is checked against its model."""
    user: str | None = None
    """The one user whom it is for."""
    users: Sequence[str] | None = None
    """The users whom it is for."""
    everyone: bool = False
    """Whether it is for all."""
    event_type: str | None = None
    """Needed where the class of the data does not tell it."""
    message_id: str | None = None
    """Made where not given. With the same one, publishing again within the stream's duplicate window (two
    minutes by default) stores nothing."""
    traceparent: str | None = None
    """The W3C trace that it belongs to."""


class NotStored(RivuletError):  # noqa: N818 (a word of the field, as the package's other errors)
    """The stream has not acknowledged an event.

    `code` is `OUTCOME_UNKNOWN`: it was sent, no acknowledgement came by the deadline, and publishing it again
    with this `message_id` is safe; `UNAVAILABLE`: nothing was stored, as no stream takes the subject or the
    connection is gone; `TOO_LARGE`: larger than routers or NATS take; `INTERNAL`: the stream refused it.
    """

    message_id: str
    """Under which it was tried."""

    def __init__(self, code: ErrorCode, message: str, message_id: str) -> None:
        super().__init__(code, message)
        self.message_id = message_id


class NotAllStored(ExceptionGroup[NotStored]):
    """Of many events some were not stored."""

    outcomes: Sequence[Published | NotStored]
    """What became of each, in the order in which they were given."""

    def __new__(cls, outcomes: Sequence[Published | NotStored]) -> "NotAllStored":
        """What became of each; at least one is a `NotStored`."""
        faults = [outcome for outcome in outcomes if isinstance(outcome, NotStored)]
        return super().__new__(cls, f"{len(faults)} of {len(outcomes)} events were not stored", faults)

    def __init__(self, outcomes: Sequence[Published | NotStored]) -> None:
        """What became of each event; at least one of them was not stored."""
        self.outcomes = outcomes


class Publisher:
    """Publishes events and waits until the stream has them."""

    def __init__(
        self,
        connection: Client,
        *,
        families: Iterable[Family[Any]] = (),
        audience: Literal["header", "token"] = "header",
        deadline: float = 30.0,
        domain: str | None = None,
        max_event_bytes: int = _MOST_BYTES,
    ) -> None:
        """
        `families`: your own event families, beside the built-in ones. `audience`: how the router's source
        learns whom an event is for, by headers (its `auto` and `header`) or by the subject's last token
        (`token:N`). `deadline`: seconds until `NotStored`, all attempts together. `domain`: of JetStream.
        `max_event_bytes`: what the routers are configured with (`sessions.max_event_bytes`): a larger event
        is not published, as they would reject it.
        """
        self._stream = connection.jetstream(domain=domain)
        self._models: dict[str, type[BaseModel]] = {}
        self._types: dict[type[BaseModel], list[str]] = {}
        for family in (built_in, *families):
            for event_type, envelope in family.events.items():
                envelope.model_rebuild()
                model = envelope.model_fields["data"].annotation
                if not (isinstance(model, type) and issubclass(model, BaseModel)):
                    raise TypeError(f"the data of {event_type} is no model")
                self._models[event_type] = model
                self._types.setdefault(model, []).append(event_type)
        self._audience = audience
        self._deadline = deadline
        self._max_event_bytes = max_event_bytes

    async def publish(
        self,
        data: BaseModel | Mapping[str, Any],
        *,
        user: str | None = None,
        users: Sequence[str] | None = None,
        everyone: bool = False,
        event_type: str | None = None,
        message_id: str | None = None,
        traceparent: str | None = None,
        deadline: float | None = None,
    ) -> Published:
        """Publishes one event; the parameters are those of `Outgoing`, and another `deadline` in seconds.

        Tries again under one message id, so that it is stored once. Raises `NotStored`; before anything is
        sent, `InvalidUserId`, and `ValueError` or `TypeError` for an event that can't be.
        """
        event = Outgoing(data, user, users, everyone, event_type, message_id, traceparent)
        return await self._store(self._message(event), self._deadline if deadline is None else deadline)

    async def publish_many(
        self, events: Iterable[Outgoing], *, in_flight: int = 256, deadline: float | None = None
    ) -> list[Published]:
        """Publishes many events, at most `in_flight` at a time, each acknowledged and with its own deadline.

        They are all checked before the first is sent, and sent in their order, but for those that must be
        tried again. Raises `NotAllStored`, which says what became of each, and otherwise as `publish` does.
        """
        if in_flight < 1:
            raise ValueError("`in_flight` is at least 1")
        deadline = self._deadline if deadline is None else deadline
        messages = [self._message(event) for event in events]
        outcomes: list[Published | NotStored | None] = [None] * len(messages)
        waiting = iter(enumerate(messages))

        async def take() -> None:
            for index, message in waiting:
                try:
                    outcomes[index] = await self._store(message, deadline)
                except NotStored as fault:
                    outcomes[index] = fault

        async with asyncio.TaskGroup() as group:
            for _ in range(min(in_flight, len(messages))):
                group.create_task(take())
        stored = [outcome for outcome in outcomes if isinstance(outcome, Published)]
        if len(stored) < len(outcomes):
            raise NotAllStored([outcome for outcome in outcomes if outcome is not None])
        return stored

    def _message(self, event: Outgoing) -> "_Message":
        event_type, data = self._typed(event)
        subject, headers = self._addressed(event, event_type)
        message_id = event.message_id or uuid.uuid4().hex
        headers.append(("Nats-Msg-Id", _one_word("message_id", message_id)))
        if event.traceparent is not None:
            headers.append(("traceparent", _one_word("traceparent", event.traceparent)))
        payload = write_json(data)
        self._check(event_type, payload)
        return _Message(subject, payload, _Headers(headers), message_id)

    def _check(self, event_type: str, payload: bytes) -> None:
        """Raises `ValueError` where routers would reject what is written, however it was built."""
        try:
            written = read_json(payload)
        except ValueError as error:
            raise ValueError(
                f"the data of {event_type} is written as no JSON that routers take: {error}"
            ) from None
        if model := self._models.get(event_type):
            model.model_validate(written)

    def _typed(self, event: Outgoing) -> tuple[str, BaseModel | Mapping[str, Any]]:
        """The event's type, and its data as the model of that type, if there is one."""
        data, event_type = event.data, event.event_type
        if event_type is None:
            if not isinstance(data, BaseModel):
                raise TypeError("`event_type` is needed: only a family's model tells its type")
            name = type(data).__name__
            types = next((self._types[of] for of in type(data).__mro__ if of in self._types), [])
            if len(types) != 1:
                why = f"is the data of {' and '.join(types)}" if types else "is of no family given"
                raise ValueError(f"`event_type` is needed: {name} {why}")
            return types[0], data
        if not _EVENT_TYPE.fullmatch(event_type):
            raise ValueError(f"`{event_type[:130]}` is no event type: 1 to 8 tokens of A-Za-z0-9_- by dots")
        model = self._models.get(event_type)
        if model is None:
            return event_type, data
        if isinstance(data, BaseModel):
            if not isinstance(data, model):
                raise TypeError(f"the data of {event_type} is {model.__name__}, not {type(data).__name__}")
            return event_type, data
        return event_type, model.model_validate(data)

    def _addressed(self, event: Outgoing, event_type: str) -> tuple[str, list[tuple[str, str]]]:
        named = (event.user is not None) + (event.users is not None) + event.everyone
        if named != 1:
            raise ValueError("an event is for exactly one of `user`, `users` and `everyone`")
        users = event.users if event.users is not None else [event.user] if event.user is not None else []
        # A text is a sequence of texts too.
        if isinstance(users, str):
            raise TypeError("`users` is a list; for one user there is `user`")
        if not users and not event.everyone:
            raise ValueError("`users` is empty: nobody would get the event")
        # Each once, in their order.
        escaped = [escape_user_id(user) for user in dict.fromkeys(users)]
        if self._audience == "token":
            if len(escaped) > 1:
                raise ValueError("a subject names one user: publish an event for each, or by `header`")
            return f"{event_type}.{_EVERYONE if event.everyone else escaped[0]}", []
        if event.everyone:
            return event_type, [("Rivulet-Audience", "everyone")]
        return event_type, [("Rivulet-User", user) for user in escaped]

    async def _store(self, message: "_Message", deadline: float) -> Published:
        now = asyncio.get_running_loop().time
        ends = now() + deadline
        # Whether an attempt may have reached the stream.
        sent = False
        fault: Exception | None = None
        if len(message.payload) > self._max_event_bytes:
            text = f"{len(message.payload)} bytes are more than the {self._max_event_bytes} that routers take"
            raise NotStored("TOO_LARGE", f"{text} (`sessions.max_event_bytes`)", message.message_id)
        for pause in chain(_PAUSES, repeat(_PAUSES[-1])):
            remaining = ends - now()
            if remaining <= 0:
                break
            try:
                stored = await self._stream.publish(
                    message.subject,
                    message.payload,
                    timeout=min(_ATTEMPT, remaining),
                    headers=cast("dict[str, Any]", message.headers),
                )
                return Published(stored.stream, stored.seq, bool(stored.duplicate))
            except MaxPayloadError as error:
                text = f"{len(message.payload)} bytes are more than NATS takes (`max_payload`)"
                raise NotStored("TOO_LARGE", text, message.message_id) from error
            except (ConnectionClosedError, ConnectionDrainingError) as error:
                fault = error
                break
            except APIError as error:
                # What the server can't do now, it may do later; what it refuses, it will refuse again.
                if (error.code or 0) < 500:
                    text = f"the stream refused it: {error.description}"
                    raise NotStored("INTERNAL", text, message.message_id) from error
                fault = error
            except NatsTimeout as error:
                sent = True
                fault = error
            except (NatsError, OSError) as error:
                # Among these: no stream yet. The router makes it when it starts, maybe after us.
                fault = error
            await asyncio.sleep(max(0.0, min(pause, ends - now())))
        if sent:
            text = f"{message.subject} was sent, and no acknowledgement came within {deadline:g} s"
            raise NotStored("OUTCOME_UNKNOWN", text, message.message_id) from fault
        why = "the connection is closed" if isinstance(fault, ConnectionClosedError) else "no stream took it"
        raise NotStored("UNAVAILABLE", f"{message.subject}: {why}", message.message_id) from fault


@dataclass(frozen=True, slots=True)
class _Message:
    subject: str
    payload: bytes
    headers: "_Headers"
    message_id: str


class _Headers(list[tuple[str, str]]):
    """Headers, of which one may stand several times: nats-py takes a dictionary and reads its items."""

    def items(self) -> Iterator[tuple[str, str]]:
        return iter(self)


def _one_word(name: str, value: str) -> str:
    if not _ONE_WORD.fullmatch(value):
        raise ValueError(f"`{name}` is of visible ASCII characters, without spaces")
    return value
