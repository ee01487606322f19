"""The protocol without a socket: text to what the router said, and what the client says to text.

What is read comes through the generated models, which are strict to build and lenient to read.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict, TypeGuard, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json

from rivulet._generated import SERVER_FRAMES, ClientFrame, Event, ServerFrame
from rivulet.errors import InvalidPattern, RivuletError
from rivulet.pattern import Pattern

SUBPROTOCOL = "rivulet.v1"
"""The WebSocket subprotocol of this version."""
MAX_ID_LENGTH = 64
"""The most characters in the `id` of a client's message."""

_MAX_SAFE_INTEGER = 2**53 - 1
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_EVENT: TypeAdapter[Event] = TypeAdapter(Event)
_SERVER_FRAME: TypeAdapter[ServerFrame] = TypeAdapter(ServerFrame)

T = TypeVar("T")


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


def decode(text: str) -> list[Received]:
    """Reads a text frame: one object, or an array of them in order.

    Never raises: what can't be read stands in its place as `Rejected`, and takes nothing else with it.
    """
    try:
        # Unlike `json` it refuses NaN and halves of surrogate pairs and bounds the depth, as the router does.
        frame = from_json(text.encode(), allow_inf_nan=False)
    except ValueError:
        return [_rejected("INVALID_JSON", "not JSON")]
    return [_received(item) for item in frame] if isinstance(frame, list) else [_received(frame)]


def encode(frame: ClientFrame | CommandFrame) -> str:
    """Writes a client's frame, of the fields that it has by its type and no others.

    Raises `RivuletError` with the code and the field that the router would name, and `TypeError` or
    `ValueError` where a command's `data` has no form in JSON.
    """
    # Not everyone who calls this has a type checker.
    fields: Any = frame
    if not isinstance(fields, Mapping):
        raise RivuletError("INVALID_MESSAGE", "a message is one JSON object")
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


def _received(frame: Any) -> Received:
    if not isinstance(frame, dict):
        return _rejected("INVALID_MESSAGE", "a frame is one JSON object")
    frame_type = frame.get("type")
    if not isinstance(frame_type, str):
        return _rejected("INVALID_MESSAGE", "`type` is a string", "type")
    try:
        if frame_type in SERVER_FRAMES:
            return _SERVER_FRAME.validate_python(frame)
        return _EVENT.validate_python(frame)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        # The first step is the arm of the union.
        field = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"][1:])
        return _rejected("INVALID_MESSAGE", first["msg"], field.removeprefix(".") or None)


def _rejected(
    code: Literal["INVALID_JSON", "INVALID_MESSAGE"], message: str, field: str | None = None
) -> Rejected:
    return Rejected(RivuletError(code, message, field))


def _model_as_json(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_none=True)
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


def _are_strings(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(_is_string(item) for item in value)


def _is_position(value: object) -> TypeGuard[int | float]:
    """Whether a value is a sequence of the stream: a whole number, also as `1.0`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value <= _MAX_SAFE_INTEGER and value == int(value)
