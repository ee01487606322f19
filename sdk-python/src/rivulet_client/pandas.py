"""Events as a table. Needs pandas: `pip install 'rivulet-client[pandas]'`."""

import types
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Union, get_args, get_origin

try:
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "rivulet_client.pandas needs pandas: pip install 'rivulet-client[pandas]'"
    ) from missing

from pydantic import BaseModel

from rivulet_client._wire import Envelope

_TIME = "datetime64[us, UTC]"
_DTYPES: dict[type, str] = {
    str: "string",
    bool: "boolean",
    int: "Int64",
    float: "float64",
    datetime: _TIME,
}


def to_dataframe(events: Iterable[Envelope]) -> "pd.DataFrame":
    """A row an event: `type` (category), `seq` (Int64), `time` (datetime64[us, UTC]) and the data's fields.

    A field of a field stands as `chapter_added.title`; one called `type`, `seq` or `time` as `data.type` and
    so on. What is absent is missing. Dtypes are those of the models, whatever the values: texts are `string`
    (`category` where the model names the usual ones), whole numbers `Int64`, others `float64`, booleans
    `boolean`, times `datetime64[us, UTC]`, lists and mappings `object`. Fields that no model has get the
    dtype that their values have in common, and fields on which two models disagree are `object`.
    """
    rows: list[dict[str, Any]] = []
    # By column: the dtypes that the models say.
    said: dict[str, set[str]] = {"type": {"category"}, "seq": {"Int64"}, "time": {_TIME}}
    known: set[type[BaseModel]] = set()
    for event in events:
        data: BaseModel | Mapping[str, Any] = getattr(event, "data", {})
        if isinstance(data, BaseModel) and type(data) not in known:
            known.add(type(data))
            for name, dtype in _columns(type(data)):
                said.setdefault(_own(name), set()).add(dtype)
        row = {"type": getattr(event, "type", None), "seq": event.seq, "time": event.time}
        rows.append(row | {_own(name): value for name, value in _flat(data)})
    # In the order of the models, then as they came.
    names = dict.fromkeys([*said, *(name for row in rows for name in row)])
    return pd.DataFrame(
        {name: _series([row.get(name) for row in rows], said.get(name, set())) for name in names},
        index=pd.RangeIndex(len(rows)),
    )


def _own(name: str) -> str:
    return f"data.{name}" if name in ("type", "seq", "time") else name


def _flat(data: BaseModel | Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """The values by their columns. Mappings within are values: their keys are data too."""
    fields = data if isinstance(data, Mapping) else dict(data)
    for name, value in fields.items():
        if isinstance(value, BaseModel):
            yield from _flat(value, f"{path}{name}.")
        elif value is not None:
            yield f"{path}{name}", value


def _columns(
    model: type[BaseModel], path: str = "", within: tuple[type, ...] = ()
) -> Iterator[tuple[str, str]]:
    # Resolves names that came later in the module.
    model.model_rebuild()
    for name, field in model.model_fields.items():
        kinds = set(_kinds(field.annotation))
        (kind,) = kinds if len(kinds) == 1 else (object,)
        if kind is Literal or kinds == {Literal, str}:
            yield f"{path}{name}", "category"
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            # A model that holds itself has no end.
            if kind not in within:
                yield from _columns(kind, f"{path}{name}.", (*within, model))
        else:
            yield f"{path}{name}", _DTYPES.get(kind, "object")


def _kinds(annotation: Any) -> Iterator[Any]:
    """The classes that an annotation allows, None aside; `Literal` for literals."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _kinds(get_args(annotation)[0])
    elif origin is Union or origin is types.UnionType:
        for part in get_args(annotation):
            yield from _kinds(part)
    elif origin is Literal:
        yield Literal
    elif annotation is not type(None):
        yield annotation if origin is None else origin


def _series(values: list[Any], said: set[str]) -> "pd.Series":
    if len(said) == 1:
        (dtype,) = said
    elif said:
        dtype = "object"
    else:
        kinds = {type(value) for value in values if value is not None}
        if kinds == {int, float}:
            kinds = {float}
        dtype = _DTYPES.get(kinds.pop(), "object") if len(kinds) == 1 else "object"
    try:
        return pd.Series(values, dtype=dtype)
    except (TypeError, ValueError, OverflowError):
        # An integer beyond 64 bits, in a field that no model has.
        return pd.Series(values, dtype="object")
