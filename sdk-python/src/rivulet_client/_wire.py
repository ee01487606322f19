"""The wire profile: models are strict to build and lenient to read.

What the router lets through is what Go, Python and JavaScript print by default, and all of it is read.
"""

import json
import re
from collections.abc import Set
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
)
from pydantic_core import CoreSchema, PydanticSerializationError, from_json, to_json, to_jsonable_python

from rivulet_client._limits import Limits

_TIME = re.compile(
    r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[+-]\d{2}:[0-5]\d)?", re.ASCII | re.IGNORECASE
)


# Half a surrogate pair, as JavaScript and Python print a text that was cut within an emoji: whole pairs and
# other escapes are passed over.
_HALF = re.compile(rb"\\(?:ud[89ab]..\\ud[c-f]..|(ud[89a-f]..)|.)", re.DOTALL | re.IGNORECASE)


def read_json(text: bytes) -> Any:
    """The value of a JSON text, half a surrogate pair read as U+FFFD. Raises `ValueError`."""
    try:
        # Unlike `json` it refuses NaN and bounds the depth, as the router does.
        return from_json(text, allow_inf_nan=False)
    except ValueError:
        mended = _HALF.sub(lambda found: rb"\ufffd" if found[1] else found[0], text)
        if mended == text:
            raise
    return from_json(mended, allow_inf_nan=False)


def write_json(value: Any) -> bytes:
    """The JSON of a value, half a surrogate pair as its escape. Raises `ValueError` where it has none."""
    try:
        return to_json(value, by_alias=True, inf_nan_mode="constants")
    except PydanticSerializationError:
        pass
    try:
        text = json.dumps(value, default=_jsonable, separators=(",", ":"))
    except TypeError as error:
        raise ValueError(str(error)) from error
    return text.encode()


def _jsonable(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    return to_jsonable_python(value, by_alias=True)


def _read_time(value: Any) -> Any:
    """Any RFC 3339 time, or an ISO time without a zone, which is UTC; finer than microseconds is cut."""
    if isinstance(value, datetime):
        # On the wire it would be taken for UTC, and who made it may have meant the local time.
        if value.tzinfo is None:
            raise ValueError("a time without a zone: datetime.now(UTC) has one")
        return _in_utc(value)
    if not isinstance(value, str):
        return value
    # `fromisoformat` alone would take more than the router and the other languages do.
    if not _TIME.fullmatch(value):
        raise ValueError("not a time such as 2026-01-31T12:00:00Z")
    time = datetime.fromisoformat(value.upper())
    return _in_utc(time.replace(tzinfo=UTC) if time.tzinfo is None else time)


def _in_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("a time is in the years 1 to 9999 of UTC") from None


def _read_integer(value: Any) -> Any:
    """`1.0` is an integer, as it is in JSON."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Timestamp = Annotated[datetime, BeforeValidator(_read_time)]
Integer = Annotated[int, BeforeValidator(_read_integer)]


class Model(BaseModel):
    """Data of an event or a command. Fields of a later version are kept."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="allow", populate_by_name=True, allow_inf_nan=False
    )

    __limits__: ClassVar[Limits | None] = None

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """What Pydantic checks: the fields, and where the schema says more of them all together, that."""
        schema = handler(source)
        return schema if cls.__limits__ is None else cls.__limits__.around(schema)

    @model_serializer(mode="wrap", when_used="json")
    def _as_json(self, write: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """An optional that is not there is absent; null stands where a field has to be, and may be null."""
        written: dict[str, Any] = write(self)
        for name, field in type(self).model_fields.items():
            if not field.is_required() and getattr(self, name) is None:
                written.pop(field.serialization_alias or name if info.by_alias else name, None)
        return written


class Envelope(Model):
    """An event as it stands on the wire."""

    seq: Annotated[Integer, Field(ge=0, le=2**53 - 1)] | None = None
    """Where it stands in the stream; None on a core source."""
    time: Timestamp | None = None
    """When the stream stored it or, on a core source, when the router got it."""


class Answer(Model):
    """A frame of the router, events aside."""

    id: str | None = None
    """The `id` of the client's message that this answers."""


class UnknownEvent(Envelope):
    """An event of a type that this version does not know, or that is not of its type's model."""

    type: str
    data: dict[str, Any]


def tag_of(frame: Any, known: Set[str]) -> str:
    """By which of a union's arms a frame is read: its type, or the last arm."""
    event_type: Any
    if isinstance(frame, dict):
        event_type = cast("dict[str, Any]", frame).get("type")
    else:
        event_type = getattr(frame, "type", None)
    return event_type if isinstance(event_type, str) and event_type in known else ""
