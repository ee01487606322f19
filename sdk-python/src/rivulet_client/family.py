"""Families: event types and commands that belong together, the built-in ones and a user's own alike.

`rivulet codegen --lang python` writes a module that ends with its `family`, for `Client(…, families=[…])`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from rivulet_client._wire import Envelope, Model

Reply = TypeVar("Reply", bound=Model)
E = TypeVar("E", bound=Envelope, covariant=True)


class Command(Model, Generic[Reply]):
    """The request of a command; `Reply` is the model of what answers it."""

    command_name: ClassVar[str]
    """The frame's `type`, and the last token of the subject `command.<name>`."""

    @classmethod
    def reply_model(cls) -> type[Reply]:
        """The model of what answers this command. Raises `TypeError` where the class names none."""
        for base in cls.__mro__:
            # Pydantic makes a class of its own of `Command[…]`.
            generic = base.__dict__.get("__pydantic_generic_metadata__")
            if generic and generic["origin"] is Command:
                reply: type[Reply] = generic["args"][0]
                return reply
        raise TypeError(f"{cls.__name__} does not say what answers it: derive it from Command[SomeReply]")


@dataclass(frozen=True, slots=True)
class Family(Generic[E]):
    """What a module of generated types brings; `E` is the union of its envelope classes."""

    events: Mapping[str, type[E]]
    """The envelope class of each event type."""
    commands: Mapping[str, type[Command[Any]]]
    """The request class of each command."""
