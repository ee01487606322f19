"""What a schema says of a value beside its type: lengths, patterns, formats, counts.

It is checked of what is built here and of what is published, and not of what was received: the router has
decided about that, maybe by another version of the schema.
"""

import ipaddress
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any, Final, TypeGuard, cast

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import (
    CoreSchema,
    PydanticUndefined,
    SchemaError,
    SchemaValidator,
    ValidationError,
    core_schema,
    to_jsonable_python,
)

RECEIVED: Final[dict[str, Any]] = {"received": True}
"""The context of a validation of what was received."""


class Limits:
    """The keywords of a schema, each for the values that it speaks of, as in JSON Schema."""

    def __init__(
        self,
        *,
        min_length: int = 0,
        max_length: int | None = None,
        pattern: str | None = None,
        format: str | None = None,  # noqa: A002 (the keyword's name)
        min_items: int = 0,
        max_items: int | None = None,
        unique_items: bool = False,
        min_properties: int = 0,
        max_properties: int | None = None,
        names: "Limits | None" = None,
        const: Any = PydanticUndefined,
    ) -> None:
        """Lengths are in characters; `names`: of an object's fields."""
        self._length = (min_length, max_length)
        self._pattern = pattern
        self._matches: Callable[[str], bool] | None = None
        self._format = format
        self._items = (min_items, max_items)
        self._unique = unique_items
        self._properties = (min_properties, max_properties)
        self._names = names
        self._const = const

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """What Pydantic checks where a type is annotated with this."""
        return self.around(handler(source))

    def around(self, schema: CoreSchema) -> CoreSchema:
        """The schema with these checks after its own."""
        return core_schema.with_info_after_validator_function(self._after, schema)

    def _after(self, value: Any, info: core_schema.ValidationInfo) -> Any:
        if info.context is not RECEIVED:
            self.check(value)
        return value

    def check(self, value: Any) -> None:
        """Raises `ValueError` where the value is not what the schema says."""
        if isinstance(value, str):
            self._check_text(value)
        elif isinstance(value, Mapping):
            self._check_names(list(cast("Mapping[str, Any]", value)))
        elif isinstance(value, BaseModel):
            self._check_names(list(value.model_dump(mode="json", by_alias=True)))
        elif _is_list(value):
            self._check_items(value)
        if self._const is not PydanticUndefined and _identity(value) != _identity(self._const):
            raise ValueError(f"it is always {json.dumps(self._const)}")

    def _check_text(self, text: str) -> None:
        _count(len(text), self._length, "character")
        if self._pattern is not None:
            self._matches = self._matches or _matcher(self._pattern)
            if not self._matches(text):
                raise ValueError(f"it does not match {self._pattern}")
        is_one = _FORMATS.get(self._format or "")
        if is_one is not None and not is_one(text):
            raise ValueError(f"it is no {self._format}")

    def _check_items(self, items: Sequence[Any]) -> None:
        _count(len(items), self._items, "item")
        if self._unique and len({_identity(item) for item in items}) < len(items):
            raise ValueError("an item stands there twice")

    def _check_names(self, names: Sequence[str]) -> None:
        _count(len(names), self._properties, "field")
        if self._names is not None:
            for name in names:
                try:
                    self._names.check(name)
                except ValueError as error:
                    raise ValueError(f"the name of a field: {error}") from None


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, list | tuple)


def _count(count: int, bounds: tuple[int, int | None], what: str) -> None:
    least, most = bounds
    if count < least:
        raise ValueError(f"{count} {what}s, and at least {least} are meant")
    if most is not None and count > most:
        raise ValueError(f"{count} {what}s, and at most {most} are meant")


def _matcher(pattern: str) -> Callable[[str], bool]:
    """Whether a text holds a match, by the engine that the router has."""
    try:
        validator = SchemaValidator(core_schema.str_schema(pattern=pattern))
    except SchemaError:
        # What this version of the engine does not read, the router alone decides.
        return lambda _: True

    def matches(text: str) -> bool:
        try:
            validator.validate_python(text)
        except ValidationError:
            return False
        return True

    return matches


def _identity(value: Any) -> str:
    """The same for values that JSON Schema takes for equal: `1` and `1.0` are, `1` and `true` are not."""

    def plain(value: Any) -> Any:
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, dict):
            return {name: plain(inner) for name, inner in cast("dict[str, Any]", value).items()}
        if _is_list(value):
            return [plain(item) for item in value]
        return value

    return json.dumps(plain(to_jsonable_python(value, by_alias=True)), sort_keys=True)


def _like(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern, re.ASCII | re.IGNORECASE)
    return lambda text: compiled.fullmatch(text) is not None


def _parsed_by(parse: Callable[[str], object], shape: str) -> Callable[[str], bool]:
    has_shape = _like(shape)

    def is_one(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return has_shape(text)

    return is_one


# No stricter than the router, which reads some of these more closely: what it then rejects, it shows.
_FORMATS: Mapping[str, Callable[[str], bool]] = {
    "date": _parsed_by(date.fromisoformat, r"\d{4}-\d\d-\d\d"),
    "time": _like(r"([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?(z|[+-]([01]\d|2[0-3]):[0-5]\d)"),
    "duration": _like(r"p(?=.)(\d+w|(\d+y)?(\d+m)?(\d+d)?(t(?=\d)(\d+h)?(\d+m)?(\d+s)?)?)"),
    "uuid": _like(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"),
    "ipv4": _parsed_by(ipaddress.IPv4Address, r"[\d.]+"),
    "ipv6": _parsed_by(ipaddress.IPv6Address, r"[0-9a-f:.]+"),
    "email": _like(r"(\"[^\n]*\"|[^@\s]+)@[^@\s]+"),
    "idn-email": _like(r"(\"[^\n]*\"|[^@\s]+)@[^@\s]+"),
    "hostname": _like(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"),
    "uri": _like(r"[a-z][a-z0-9+.-]*:[!-~]*"),
    "uri-reference": _like(r"[!-~]*"),
    "iri": _like(r"[a-z][a-z0-9+.-]*:\S*"),
    "iri-reference": _like(r"\S*"),
    "json-pointer": _like(r"(/([^~/]|~[01])*)*"),
    "uri-template": _like(r"([^{}]|\{[^{}]+\})*"),
}
