"""The protocol without a socket: text to what the router said, and what the client says to text.

What is read comes through the generated models, which are strict to build and lenient to read.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, NotRequired, TypedDict, TypeGuard, TypeVar, cast

from pydantic import BaseModel, TypeAdapter, ValidationError

from rivulet_client._generated import SERVER_FRAMES, ClientFrame, Event, ServerFrame, family
from rivulet_client._limits import RECEIVED
from rivulet_client._wire import Envelope, UnknownEvent, read_json
from rivulet_client.errors import InvalidPattern, RivuletError
from rivulet_client.family import Family
from rivulet_client.pattern import Pattern

SUBPROTOCOL = "rivulet.v1"
"""The WebSocket subprotocol of this version."""
MAX_ID_LENGTH = 64
"""The most characters in the `id` of a client's message."""

_MAX_SAFE_INTEGER = 2**53 - 1
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_SERVER_FRAME: TypeAdapter[ServerFrame] = TypeAdapter(ServerFrame)
_JSON = json.JSONDecoder()
# What stands between two items of an array.
_BETWEEN = re.compile(r"[^ \t\n\r,]")

T = TypeVar("T")
E = TypeVar("E", bound=Envelope)


@dataclass(frozen=True, slots=True)
class Rejected:
    """An object of the router's that can't be read."""

    error: RivuletError
    """Why."""


Received = Event | ServerFrame | Rejected
"""One object of the router's: an event (`UnknownEvent` where its type is of a later version), a frame, or why
it is neither."""


class CommandFrame(TypedDict):
    """A command to a backend."""

    type: str
    """The command's name."""
    id: NotRequired[str]
    """Echoed in the answer; at most 64 characters. With it, asking again is safe."""
    data: NotRequired[BaseModel | Mapping[str, Any]]
    """What the command takes."""


class Decoder(Generic[E]):
    """Reads what the router says, with the event types of some families beside the built-in ones."""

    def __init__(self, families: Iterable[Family[E]] = ()) -> None:
        """Raises `ValueError` where two families have an event type in common."""
        self._models: dict[str, type[Any]] = {}
        for one in [family, *families]:
            if twice := self._models.keys() & one.events.keys():
                raise ValueError(f"two families have the event type {min(twice)}")
            self._models.update(one.events)

    def knows(self, event_type: str) -> bool:
        """Whether events of this type have a model."""
        return event_type in self._models

    def event(self, fields: dict[str, Any]) -> Event | E | Rejected:
        """Reads an event."""
        model = self._models.get(fields["type"], UnknownEvent)
        try:
            # The class's own validator: a union would look for the class once more.
            event: Event | E = model.__pydantic_validator__.validate_python(fields, context=RECEIVED)
            return event
        except ValidationError as error:
            return _not_a_model(error, 0)

    def undecoded(self, fields: dict[str, Any]) -> UnknownEvent | None:
        """Reads an event that is not of its type's model, as one stored under an earlier schema may be."""
        try:
            return UnknownEvent.model_validate(fields)
        except ValidationError:
            return None

    def frame(self, fields: dict[str, Any]) -> ServerFrame | Rejected:
        """Reads a frame that is no event."""
        try:
            return _SERVER_FRAME.validate_python(fields, context=RECEIVED)
        except ValidationError as error:
            # The first step is the arm of the union.
            return _not_a_model(error, 1)


_BUILT_IN: Decoder[Any] = Decoder()


def decode(text: str) -> list[Received]:
    """Reads a text frame: one object, or an array of them in order.

    Never raises: what can't be read stands in its place as `Rejected`, and takes nothing else with it.
    """
    return [_received(item) for item in parse(text.encode("utf-8", "surrogatepass"))]


def parse(frame: bytes) -> "list[dict[str, Any] | Rejected]":
    """The objects of a text frame, each with a `type`. Never raises, as `decode`."""
    try:
        parsed = read_json(frame)
    except ValueError:
        return [_rejected("INVALID_JSON", "not JSON")]
    return [_typed(item) for item in parsed] if _is_list(parsed) else [_typed(parsed)]


def split(frame: bytes) -> list[bytes]:
    """The bytes of each object of a text frame that `parse` took, as they came."""
    if not frame.lstrip().startswith(b"["):
        return [frame]
    text = frame.decode()
    pieces: list[bytes] = []
    start = _after_space(text, text.index("[") + 1)
    while text[start] != "]":
        _, end = _JSON.raw_decode(text, start)
        pieces.append(text[start:end].encode())
        start = _after_space(text, end)
    return pieces


def _after_space(text: str, start: int) -> int:
    found = _BETWEEN.search(text, start)
    assert found is not None, "what was parsed ends with a bracket"
    return found.start()


def encode(frame: ClientFrame | CommandFrame) -> str:
    """Writes a client's frame, of the fields that it has by its type and no others.

    Raises `RivuletError` with the code and the field that the router would name, and `TypeError` or
    `ValueError` where a command's `data` has no form in JSON.
    """
    # Not everyone who calls this has a type checker.
    if not isinstance(frame, Mapping):
        raise RivuletError("INVALID_MESSAGE", "a message is one JSON object")
    fields = cast("Mapping[str, Any]", frame)
    message_id = _optional(fields, "id", _is_string, "a string")
    if message_id is not None and len(message_id) > MAX_ID_LENGTH:
        raise RivuletError("TOO_LARGE", f"`id` has at most {MAX_ID_LENGTH} characters", "id")
    frame_type = _required(fields, "type", _is_string, "a string")
    written = {"type": frame_type, "id": message_id, **_body(frame_type, fields)}
    return json.dumps(
        {name: value for name, value in written.items() if value is not None},
        default=_model_as_json,
        allow_nan=False,
        separators=(",", ":"),
    )


def _body(frame_type: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    match frame_type:
        case "subscribe" | "unsubscribe":
            return {"events": _patterns(_required(fields, "events", _are_strings, "an array of strings"))}
        case "resume":
            stream = _required(fields, "stream", _is_string, "a string")
            seq = _required(fields, "seq", _is_position, "a whole number from 0 to 2^53 - 1")
            events = _optional(fields, "events", _are_strings, "an array of strings")
            return {
                "stream": stream,
                "seq": int(seq),
                "events": None if events is None else _patterns(events),
            }
        case "refresh_token":
            return {"token": _required(fields, "token", _is_string, "a string")}
        case "ping":
            return {}
        case _:
            return {"data": fields.get("data")}


def _patterns(texts: list[str]) -> list[str]:
    for index, text in enumerate(texts):
        try:
            Pattern(text)
        except InvalidPattern as error:
            raise RivuletError(error.code, f"`{text[:130]}`: {error}", f"events[{index}]") from error
    return texts


def _received(item: dict[str, Any] | Rejected) -> Received:
    if isinstance(item, Rejected):
        return item
    return _BUILT_IN.frame(item) if item["type"] in SERVER_FRAMES else _BUILT_IN.event(item)


def _typed(frame: Any) -> dict[str, Any] | Rejected:
    if not isinstance(frame, dict):
        return _rejected("INVALID_MESSAGE", "a frame is one JSON object")
    fields = cast("dict[str, Any]", frame)
    frame_type = fields.get("type")
    # U+FFFD: half a surrogate pair was there.
    if not isinstance(frame_type, str) or "\ufffd" in frame_type:
        return _rejected("INVALID_MESSAGE", "`type` is a string", "type")
    return fields


def _not_a_model(error: ValidationError, arms: int) -> Rejected:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"][arms:])
    return _rejected("INVALID_MESSAGE", first["msg"], field.removeprefix(".") or None)


def _rejected(
    code: Literal["INVALID_JSON", "INVALID_MESSAGE"], message: str, field: str | None = None
) -> Rejected:
    return Rejected(RivuletError(code, message, field))


def _model_as_json(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _required(
    fields: Mapping[str, Any], name: str, is_kind: Callable[[object], TypeGuard[T]], kind: str
) -> T:
    value = _optional(fields, name, is_kind, kind)
    if value is None:
        raise RivuletError("INVALID_MESSAGE", f"`{name}` is missing: it is {kind}", name)
    return value


def _optional(
    fields: Mapping[str, Any], name: str, is_kind: Callable[[object], TypeGuard[T]], kind: str
) -> T | None:
    """A field that may be absent, or None."""
    value = fields.get(name)
    if value is None or is_kind(value):
        return value
    raise RivuletError("INVALID_MESSAGE", f"`{name}` is of the wrong kind: it is {kind}", name)


def _is_string(value: object) -> TypeGuard[str]:
    """Whether a value is text that has a form in UTF-8."""
    return isinstance(value, str) and not _LONE_SURROGATE.search(value)


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _are_strings(value: object) -> TypeGuard[list[str]]:
    return _is_list(value) and all(_is_string(item) for item in value)


def _is_position(value: object) -> TypeGuard[int | float]:
    """Whether a value is a sequence of the stream: a whole number, also as `1.0`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value <= _MAX_SAFE_INTEGER and value == int(value)
